"""Bad input to reading and writing at indices; an index out of range never wraps."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

import tinygrad_mnist as tg
from errors.table import Bad, Maker, bad
from tinygrad_mnist.tensor import Tensor


def _at(index: Callable[[Maker], Any], error: type[Exception], *says: str) -> list[Bad]:
    """``x[index]`` and ``x[index] = 0`` of ones (2, 3)."""

    def write(t: Maker) -> Tensor:
        x = t(2, 3)
        x[index(t)] = 0.0
        return x

    return [
        bad("__getitem__", lambda t: t(2, 3)[index(t)], error, *says),
        bad("__setitem__", write, error, *says),
    ]


INDICES = [
    *_at(lambda t: 2, IndexError, "2"),
    *_at(lambda t: -3, IndexError, "-3", "2"),
    *_at(lambda t: (0, 3), IndexError, "3"),
    *_at(lambda t: (0, 0, 0), IndexError, "3", "2"),
    *_at(lambda t: (..., 0, 0, 0), IndexError, "3", "2"),
    *_at(lambda t: (..., ...), IndexError, "..."),
    *_at(lambda t: 0.5, TypeError, "float"),
    *_at(lambda t: "a", TypeError, "str"),
    *_at(lambda t: (0, "a"), TypeError, "str"),
    *_at(lambda t: 1j, TypeError, "complex"),
    *_at(lambda t: {0}, TypeError, "set"),
    *_at(lambda t: slice(None, None, -1), ValueError, "positive", "-1"),
    *_at(lambda t: slice(None, None, 0), ValueError, "0"),
    *_at(lambda t: slice(0.5, None), TypeError, "slice indices", "(2, 3)"),
    *_at(lambda t: slice("a"), TypeError, "slice indices", "(2, 3)"),
    *_at(lambda t: slice(None, None, "1"), TypeError, "slice indices", "(2, 3)"),
    *_at(lambda t: [0, 2], IndexError, "index 2", "dim 0 of size 2", "-2 to 1"),
    *_at(lambda t: t.of([-3, 0]), IndexError, "index -3", "dim 0 of size 2", "-2 to 1"),
    *_at(lambda t: (slice(None), t.of([0, 3])), IndexError, "index 3", "dim 1 of size 3"),
    *_at(lambda t: (0, t.of([0, 3])), IndexError, "index 3", "dim 1 of size 3"),
    *_at(lambda t: (t.of([0, 1]), t.of([-4, 0])), IndexError, "index -4", "dim 1 of size 3"),
    *_at(lambda t: np.array([5]), IndexError, "index 5", "dim 0 of size 2"),
    *_at(lambda t: t.of(2), IndexError, "2"),
    *_at(lambda t: (t.of([0, 1]), t.of([0, 1, 2])), IndexError, "(2,) and (3,)"),
    *_at(lambda t: t(2), TypeError, "float32", ".long()"),
    *_at(lambda t: np.ones(2), TypeError, "float64"),
    *_at(lambda t: [0.5, 1.0], TypeError, "float64"),
    *_at(lambda t: t(2, dtype="uint8"), TypeError, "uint8", ".bool()"),
    *_at(lambda t: [[0], [0, 1]], TypeError, "list"),
    *_at(lambda t: ["a"], TypeError, "list"),
    *_at(lambda t: [None], TypeError, "list"),
    *_at(lambda t: t(3).bool(), IndexError, "(2,)", "(3,)"),
    *_at(lambda t: t(2, 2).bool(), IndexError, "(2, 3)", "(2, 2)"),
    *_at(lambda t: (0, t(2).bool()), IndexError, "(3,)", "(2,)"),
    *_at(lambda t: t(2, 3, 1).bool(), IndexError, "3 indices", "2 dims"),
    *_at(lambda t: [True, False, True], IndexError, "(2,)", "(3,)"),
]


def _written(index: Any, value: Callable[[Maker], Any]) -> Callable[[Maker], Tensor]:
    def write(t: Maker) -> Tensor:
        x = t(2, 3)
        x[index] = value(t)
        return x

    return write


VALUES = [
    bad("__setitem__", _written(0, lambda t: t(4)), ValueError, "(4,)", "(3,)"),
    bad("__setitem__", _written(slice(1), lambda t: t(2, 3)), ValueError, "(2, 3)", "(1, 3)"),
    bad("__setitem__", _written([0, 1], lambda t: t(3, 3)), ValueError, "(3, 3)", "(2, 3)"),
    bad("__setitem__", _written([True, False], lambda t: t(2)), ValueError, "(2,)", "(2, 3)"),
    bad("__setitem__", _written(0, lambda t: "a"), TypeError, "str"),
    bad("__setitem__", _written(0, lambda t: None), TypeError, "NoneType"),
    bad("__setitem__", _written(0, lambda t: [[1], [1, 2]]), ValueError, "ragged"),
    bad("__setitem__", _written(0, lambda t: np.array([1j])), TypeError, "complex128"),
    bad("__setitem__", _written((0, 0), lambda t: t.leaf(1)), RuntimeError, "no_grad"),
    bad("__setitem__", lambda t: t.leaf(2).__setitem__(0, 1.0), RuntimeError, "no_grad"),
    bad("__setitem__", lambda t: t(1).expand(2).__setitem__(0, 1.0), RuntimeError, "clone()"),
    bad(
        "__setitem__",
        lambda t: t(2, dtype="uint8").__setitem__(0, 256),
        OverflowError,
        "256",
        "uint8",
    ),
    bad("__setitem__", lambda t: t(2).long().__setitem__(0, float("nan")), OverflowError, "nan"),
]


def _along_one_dim(name: str) -> list[Bad]:
    """What gather and both kinds of scatter refuse of their dim and index."""

    def op(x: Tensor, dim: Any, index: Any) -> Any:
        more = () if name == "gather" else (x,)
        return getattr(tg, name)(x, dim, index, *more)

    return [
        bad(name, lambda t: op(t(2, 3), 2, t.of([[0]])), IndexError, "dim 2", "2 dims"),
        bad(name, lambda t: op(t(2, 3), -3, t.of([[0]])), IndexError, "dim -3", "2 dims"),
        bad(name, lambda t: op(t(2, 3), 0.0, t.of([[0]])), TypeError, "0.0"),
        bad(name, lambda t: op(t(2, 3), 0, t.of([[2]])), IndexError, "index 2", "dim 0 of size 2"),
        bad(name, lambda t: op(t(2, 3), 1, t.of([[3]])), IndexError, "index 3", "dim 1 of size 3"),
        bad(name, lambda t: op(t(2, 3), 1, t.of([[-1]])), IndexError, "index -1", "0 to 2"),
        bad(name, lambda t: op(t(), 0, t.of(1)), IndexError, "index 1", "0 to 0"),
        bad(name, lambda t: op(t(2, 3), 0, t.of([0])), ValueError, "2 dims", "(1,)"),
        bad(name, lambda t: op(t(2, 3), 1, t(3, 3).long()), ValueError, "(2, 3)", "(3, 3)"),
        bad(name, lambda t: op(t(2, 3), 0, t(2, 3)), TypeError, "float32"),
        bad(name, lambda t: op(t(2, 3), 0, t(2, 3).bool()), TypeError, "bool"),
        bad(name, lambda t: op(t(2, 3), 0, [[0]]), TypeError, "list"),
        bad(name, lambda t: op(t(2, 3), 0, 0), TypeError, "int"),
        bad(name, lambda t: op(t(2, 3), 0, None), TypeError, "NoneType"),
    ]


def _zeros(t: Maker, *shape: int) -> Tensor:
    return t(*shape).long() * 0


SOURCES = [
    bad("scatter", lambda t: t(2, 3).scatter(0, _zeros(t, 1, 3)), TypeError, "src or value"),
    bad(
        "scatter",
        lambda t: t(2).scatter(0, _zeros(t, 1), t(1), value=1.0),
        TypeError,
        "src or value",
    ),
    bad("scatter", lambda t: t(2).scatter(0, _zeros(t, 2), t(1)), ValueError, "(2,)", "(1,)"),
    bad("scatter", lambda t: t(2).scatter(0, _zeros(t, 2), t(1, 2)), ValueError, "(2,)", "(1, 2)"),
    bad("scatter", lambda t: t(2).scatter(0, _zeros(t, 2), t(2).double()), TypeError, "float64"),
    bad("scatter", lambda t: t(2).scatter(0, _zeros(t, 2), [1.0]), TypeError, "list"),
    bad("scatter", lambda t: t(2).scatter(0, _zeros(t, 2), value="a"), TypeError, "str"),
    bad(
        "scatter",
        lambda t: t(2, dtype="int8").scatter(0, _zeros(t, 2), value=128),
        OverflowError,
        "128",
        "int8",
    ),
    bad("scatter_add", lambda t: t(2).scatter_add(0, _zeros(t, 2), t(1)), ValueError, "(2,)"),
    bad(
        "scatter_add", lambda t: t(2).scatter_add(0, _zeros(t, 2), t(2).long()), TypeError, "int64"
    ),
    bad("scatter_add", lambda t: t(2).scatter_add(0, _zeros(t, 2), 1.0), TypeError, "float"),
    bad("scatter_add", lambda t: t(2).scatter_add(0, _zeros(t, 2), None), TypeError, "NoneType"),
]

CHOSEN = [
    bad("index_select", lambda t: t(2, 3).index_select(2, t.of([0])), IndexError, "dim 2"),
    bad("index_select", lambda t: t(2, 3).index_select("0", t.of([0])), TypeError, "'0'"),
    bad("index_select", lambda t: t(2).index_select(0, t.of([2])), IndexError, "index 2", "0 to 1"),
    bad("index_select", lambda t: t(2).index_select(0, t.of([-1])), IndexError, "index -1"),
    bad("index_select", lambda t: t(0).index_select(0, t.of([0])), IndexError, "size 0"),
    bad("index_select", lambda t: t().index_select(0, t.of([1])), IndexError, "index 1"),
    bad("index_select", lambda t: t(2).index_select(0, t.of([[0]])), ValueError, "(1, 1)"),
    bad("index_select", lambda t: t().index_select(0, t.of([0, 0])), ValueError, "(2,)"),
    bad("index_select", lambda t: t(2).index_select(0, t(1)), TypeError, "float32"),
    bad("index_select", lambda t: t(2).index_select(0, [0]), TypeError, "list"),
    bad("index_select", lambda t: t(2).index_select(0, 0), TypeError, "int"),
    bad("take", lambda t: t(2, 3).take(t.of([6])), IndexError, "index 6", "-6 to 5"),
    bad("take", lambda t: t(2, 3).take(t.of([-7])), IndexError, "index -7", "-6 to 5"),
    bad("take", lambda t: t(0).take(t.of([0])), IndexError, "size 0"),
    bad("take", lambda t: t(2).take(t(1)), TypeError, "float32"),
    bad("take", lambda t: t(2).take([0]), TypeError, "list"),
    bad("take_along_dim", lambda t: t(2, 3).take_along_dim(t.of([[3]]), 1), IndexError, "index 3"),
    bad("take_along_dim", lambda t: t(2, 3).take_along_dim(t.of([[-4]]), 1), IndexError, "-4"),
    bad("take_along_dim", lambda t: t(2, 3).take_along_dim(t.of([6])), IndexError, "index 6"),
    bad("take_along_dim", lambda t: t(2, 3).take_along_dim(t.of([[0]]), 2), IndexError, "dim 2"),
    bad("take_along_dim", lambda t: t(2, 3).take_along_dim(t.of([0]), 0), ValueError, "(1,)"),
    bad(
        "take_along_dim",
        lambda t: t(2, 3).take_along_dim(_zeros(t, 3, 1), 1),
        ValueError,
        "(2, 3)",
        "(3, 1)",
    ),
    bad("take_along_dim", lambda t: t(2, 3).take_along_dim(t(2, 3), 1), TypeError, "float32"),
    bad("take_along_dim", lambda t: t(2, 3).take_along_dim([0], 1), TypeError, "list"),
    bad("take_along_dim", lambda t: t(2, 3).take_along_dim(t.of([[0]]), "1"), TypeError, "'1'"),
    bad("masked_select", lambda t: t(2).masked_select(t(2)), TypeError, "bool mask", "float32"),
    bad("masked_select", lambda t: t(2).masked_select([True, False]), TypeError, "list"),
    bad("masked_select", lambda t: t(2).masked_select(t(3).bool()), ValueError, "(2,)", "(3,)"),
]

CASES = [
    *INDICES,
    *VALUES,
    *(case for name in ("gather", "scatter", "scatter_add") for case in _along_one_dim(name)),
    *SOURCES,
    *CHOSEN,
]
