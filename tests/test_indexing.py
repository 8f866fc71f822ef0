"""Indexing: what a table of cases cannot say, and random indices against PyTorch."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

import tinygrad_mnist as tg
from tinygrad_mnist.autograd.backward import grad
from tinygrad_mnist.backend import use_backend
from tinygrad_mnist.dispatch import Call, Observer, observe
from tinygrad_mnist.kernels import Backend
from tinygrad_mnist.nn import functional as F
from tinygrad_mnist.tensor import Tensor

Index = Any


def on_host(x: Tensor) -> np.ndarray:
    return x.backend.to_numpy(x.array)


def counted(backend: Backend, *shape: int) -> Tensor:
    """0, 1, 2, … in ``shape``, as float64."""
    return tg.tensor(np.arange(float(np.prod(shape))).reshape(shape), backend=backend)


class Kernels(Observer):
    """The kernels that ran, in order."""

    def __init__(self) -> None:
        self.names: list[str] = []

    def before(self, call: Call) -> None:
        self.names.append(call.kernel)


# ---- kinds of indices

EVERY_KIND: dict[str, Index] = {
    "a NumPy integer": np.int32(1),
    "a 0-d NumPy array": np.array(1),
    "a list": [1, 0, 1],
    "a nested list": [[1, 0], [0, 0]],
    "an empty list": [],
    "a range": range(2),
    "a tuple in a tuple": ((1, 0),),
    "an int8 array": np.array([1, -1], np.int8),
    "a uint16 array": np.array([1, 0], np.uint16),
    "an empty array": np.zeros((0, 2), np.int64),
    "a list of booleans": [True, False],
    "a mask as nested lists": [[True, False, True], [False, False, True]],
    "a mask as an array": np.arange(24).reshape(2, 3, 4) % 5 == 1,
    "lists of integers": ([0, 1], [2, 0]),
    "a list and a slice": (slice(1, None), [2, 0, 0]),
    "an array after ...": (..., np.array([3, 3, 0])),
    "arrays on both sides": ([[0], [1]], slice(None), [3, 1]),
    "a list and None": (None, [1, 1], None, slice(2)),
    "True": True,
    "False": False,
    "a NumPy boolean": np.bool_(True),
    "True among others": (slice(None), True, 1),
    "integers and True": (1, True),
}


@pytest.mark.parametrize("kind", EVERY_KIND)
def test_every_kind_of_index(kind: str, backend: Backend) -> None:
    """As NumPy has it, in reading and in writing."""
    index, x = EVERY_KIND[kind], counted(backend, 2, 3, 4)
    expected = np.arange(24.0).reshape(2, 3, 4)
    as_numpy = [tuple(i) if isinstance(i, range) else i for i in _parts(index)]
    chosen = expected[tuple(list(i) if isinstance(i, tuple) else i for i in as_numpy)]
    np.testing.assert_array_equal(on_host(x[index]), chosen)
    x[index] = -chosen
    expected[tuple(list(i) if isinstance(i, tuple) else i for i in as_numpy)] *= -1
    np.testing.assert_array_equal(on_host(x), expected)


def _parts(index: Index) -> tuple[Index, ...]:
    return index if isinstance(index, tuple) else (index,)


def test_tensors_as_indices(backend: Backend) -> None:
    x, one = counted(backend, 3, 4), tg.tensor(1, backend=backend)
    assert x[one].tolist() == [4, 5, 6, 7]
    assert x[one, one].item() == 5
    assert x[one : one + 1].tolist() == [[4, 5, 6, 7]]
    assert x[:, one].tolist() == [1, 5, 9]
    assert x[[one, one]].tolist() == [[4, 5, 6, 7]] * 2
    assert x[one > 0].shape == (1, 3, 4)
    assert x[one < 0].shape == (0, 3, 4)
    assert x[x > 9].tolist() == [10, 11]
    for dtype in ("int8", "int16", "int32", "int64"):
        assert x[tg.tensor([2, -3], dtype, backend=backend), 0].tolist() == [8, 0]


def test_integers_come_first_as_in_pytorch(backend: Backend) -> None:
    """NumPy would count the integer among the arrays and put their dim first."""
    x = counted(backend, 2, 3, 4)
    assert x[0, :, [0, 1]].shape == (3, 2)
    assert x[[0, 1], 1, [2, 3]].tolist() == [6, 19]
    assert x[[0, 1], :, [2, 3]].shape == (2, 3)


def test_basic_indices_are_views(backend: Backend) -> None:
    x = counted(backend, 3, 4)
    for index in (1, -1, np.int64(2), slice(1, None), (..., 2), (None, slice(None, None, 2))):
        seen = Kernels()
        with observe(seen):
            view = x[index]
        assert seen.names == ["getitem"]
        assert view.version is x.version
    for index in (np.int32(1), tg.tensor(1, backend=backend)):
        assert x[index].version is x.version


def test_one_array_of_a_view_copies_nothing_else(backend: Backend) -> None:
    """``take`` reads a transposed or sliced tensor where it lies; so does a pair of arrays."""
    x = counted(backend, 4, 5, 6)
    for chosen in (
        lambda: x.transpose(0, 2)[[1, 2]],
        lambda: x[1:, 0, [1, 2]],
        lambda: x[[0, 1], 2, [3, 4]],
        lambda: x[[0, 1], :, [3, 4]],
    ):
        seen = Kernels()
        with observe(seen):
            chosen()
        assert "copy" not in seen.names


# ---- gradients


def test_repeated_indices_accumulate(backend: Backend) -> None:
    x = tg.tensor([1.0, 2.0, 3.0], requires_grad=True, backend=backend)
    y = x[[2, 0, 2, -1]]
    (dX,) = grad((y * y).sum(), [x], create_graph=True)
    assert dX.tolist() == [2, 0, 18]
    (again,) = grad(dX.sum(), [x])
    assert again.tolist() == [2, 0, 6]


def test_nan_and_infinity_pass_backward(backend: Backend) -> None:
    x = tg.zeros(3, requires_grad=True, backend=backend)
    x[[0, 2, 2]].backward(tg.tensor([np.nan, 1.0, np.inf], backend=backend))
    assert x.grad is not None
    np.testing.assert_array_equal(x.grad.tolist(), [np.nan, 0, np.inf])


def test_integers_are_added_exactly(backend: Backend) -> None:
    big = 2**53 + 1  # float64 does not hold it
    x = tg.tensor([0, big], backend=backend)
    y = x.scatter_add(
        0, tg.tensor([1, 0, 1], backend=backend), tg.tensor([1, 2, 1], backend=backend)
    )
    assert y.tolist() == [2, big + 2]


def test_an_index_may_change_after_it_was_used(backend: Backend) -> None:
    """What backward needs of it is a copy."""
    x = tg.ones(3, requires_grad=True, backend=backend)
    index = tg.tensor([0, 1], backend=backend)
    y = x[index] + x.gather(0, index) + x.take(index) + x.index_select(0, index)
    index[[0, 1]] = 2
    y.sum().backward()
    assert x.grad is not None
    assert x.grad.tolist() == [4, 4, 0]


# ---- writing


def test_the_last_of_repeated_indices_wins_on_the_host() -> None:
    for name in ("numpy", "numba"):
        x = tg.zeros(3, 2, backend=name)
        x[[1, 1, 0, 1]] = np.arange(8.0).reshape(4, 2)
        assert x.tolist() == [[4, 5], [6, 7], [0, 0]]


def test_writing_casts_to_the_tensors_dtype(backend: Backend) -> None:
    x = tg.tensor([1, 2, 3], backend=backend)
    x[0] = 2.9
    x[[1]] = np.array([-1.7])
    x[x == 3] = True
    assert (x.dtype, x.tolist()) == (np.int64, [2, -1, 1])
    y = tg.tensor(np.zeros(4), backend=backend)
    y[0], y[[1]], y[y > 1], y[2:] = 0.1, 0.1, 5, [0.1, 0.2]
    assert y.tolist() == [0.1, 0.1, 0.1, 0.2]  # not by way of float32
    z = tg.tensor([True, False, False], backend=backend)
    z[1:] = 0.5
    assert z.tolist() == [True, True, True]


def test_writing_to_views(backend: Backend) -> None:
    x = counted(backend, 3, 4)
    x.T[[0, 1], [2, 0]] = -1.0
    x[:, 1:][[0, 2]] = tg.tensor([[7.0], [8.0]], backend=backend)
    x[1:, ::2][x[1:, ::2] > 7] = 0.0
    expected = np.array([[0, 7, 7, 7], [4, 5, 6, 7], [-1, 8, 0, 8.0]])
    np.testing.assert_array_equal(on_host(x), expected)


def test_writing_a_tensor_to_itself(backend: Backend) -> None:
    order = np.random.default_rng(0).permutation(1000)
    x = counted(backend, 1000)
    x[order] = x
    np.testing.assert_array_equal(on_host(x)[order], np.arange(1000.0))
    y = counted(backend, 3, 3)
    y[tg.tensor([[True, False, True]] * 3, backend=backend)[0]] = y[1]
    assert y.tolist() == [[3, 4, 5], [3, 4, 5], [3, 4, 5]]
    z = counted(backend, 3, 3)
    z[[0, 1, 2], [2, 1, 0]] = z[:, 0]
    assert z.tolist() == [[0, 1, 0], [3, 3, 5], [6, 7, 8]]


def test_in_place_forms_at_indices(backend: Backend) -> None:
    """x[i] += v reads, adds and writes: an index that is repeated adds once, as in NumPy."""
    x = tg.zeros(3, backend=backend)
    x[[0, 2, 2]] += 1
    x[x == 0] -= 1
    assert x.tolist() == [1, -1, 1]


@pytest.mark.parametrize(
    ("index", "value", "error"),
    [
        (([0, 1], [0, 4]), 1.0, IndexError),
        (([0, 1], [0, 1, 2]), 1.0, IndexError),
        ([0, 1], np.ones((2, 3)), ValueError),
        ([True, False, True], np.ones((3, 4)), ValueError),
        ([True, False], 1.0, IndexError),
        (([0, 1], 1.5), 1.0, TypeError),
        (([0, 1], slice(None, None, -1)), 1.0, ValueError),
        (0, [1, 2, 3], ValueError),
        (0, "text", TypeError),
        (0, {}, TypeError),
        (0, [[1, 2], [3]], ValueError),
    ],
)
def test_nothing_is_half_written(index: Index, value: Any, error: type[Exception]) -> None:
    for name in ("numpy", "numba"):
        x = tg.zeros(3, 4, backend=name)
        with pytest.raises(error, match=r"index: |x\[i\] = v: "):
            x[index] = value
        assert x.tolist() == [[0] * 4] * 3


def test_numbers_that_do_not_fit_are_refused(backend: Backend) -> None:
    x = tg.tensor([1, 2], "uint8", backend=backend)
    for value in (300, -1, np.inf, np.nan):
        for index in (0, [0], x > 1):
            with pytest.raises(OverflowError, match=r"x\[i\] = v: found .* uint8 (holds|does)"):
                x[index] = value
    assert x.tolist() == [1, 2]


def test_writing_where_gradients_are_recorded_is_refused(backend: Backend) -> None:
    x, w = tg.zeros(3, backend=backend), tg.ones(1, requires_grad=True, backend=backend)
    with pytest.raises(RuntimeError, match=r"x\[i\] = v in place where gradients"):
        x[[0]] = w
    with pytest.raises(RuntimeError, match=r"x\[i\] = v in place where gradients"):
        w[[0]] = 1
    with tg.no_grad():
        w[[0]] = 3
    assert w.item() == 3


# ---- errors


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (
            lambda x: x[[0, 5]],
            IndexError,
            "index: dim 0 of size 3: found index 5, expected -3 to 2",
        ),
        (lambda x: x[[0, -4]], IndexError, "index: dim 0 .*found index -4"),
        (lambda x: x[:, [4, 0]], IndexError, "index: dim 1 of size 4: found index 4"),
        # the place 0·4 + 7 exists, in another row
        (lambda x: x[[0, 1], [7, 1]], IndexError, "index: dim 1 of size 4: found index 7"),
        (lambda x: x[0, [0], [0]], IndexError, "index: got 3 indices for a tensor of 2 dims"),
        (lambda x: x[..., 0, [0], ...], IndexError, "index: got more than one ..."),
        (
            lambda x: x[[0, 1], [0, 1, 2]],
            IndexError,
            r"index: .*\(2,\) and \(3,\) do not broadcast",
        ),
        (lambda x: x[[True, False]], IndexError, r"index: expected a mask \(3,\) at dim 0"),
        (lambda x: x[:, [True] * 3], IndexError, r"index: expected a mask \(4,\) at dim 1"),
        (lambda x: x[1.0], TypeError, "index: expected integers, slices.* got float"),
        (lambda x: x["a"], TypeError, "index: expected integers, slices.* got str"),
        (lambda x: x[["a"]], TypeError, "index: expected integers, slices.* got list of <U1"),
        (lambda x: x[[0.5]], TypeError, "index: expected integers, slices.* got list of float64"),
        (lambda x: x[[[0, 1], [0]]], TypeError, "index: expected integers, slices.* got a list"),
        (lambda x: x[x], TypeError, "index: .*got float64; use .long"),
        (lambda x: x[(x > 1).to("uint8")], TypeError, "index: .*got uint8; use .long.* .bool"),
        (lambda x: x[::-1], ValueError, "index: a slice's step must be positive, got -1"),
        (lambda x: x[::0, [1]], ValueError, "index: a slice's step must be positive, got 0"),
        (lambda x: x.gather(1, long(x, [[4]])), IndexError, "gather: dim 1 of size 4: .*index 4"),
        (lambda x: x.gather(1, long(x, [[-1]])), IndexError, "gather: dim 1 .*index -1"),
        (lambda x: x.gather(1, long(x, [0])), ValueError, "gather: expected an index of 2 dims"),
        (
            lambda x: x.gather(0, long(x, [[0] * 5])),
            ValueError,
            r"gather: .*no larger than \(3, 4\)",
        ),
        (lambda x: x.gather(2, long(x, [[0]])), IndexError, "gather: dim 2 is out of range"),
        (lambda x: x.gather(0, [[0]]), TypeError, "gather: expected a tensor as the index"),
        (lambda x: x.gather(0, x), TypeError, "gather: .*signed integers, got float64"),
        (lambda x: x.scatter(0, long(x, [[3]]), 1), IndexError, "scatter: dim 0 .*index 3"),
        (
            lambda x: x.scatter(0, long(x, [[0]])),
            TypeError,
            "scatter: expected either src or value",
        ),
        (lambda x: x.scatter(0, long(x, [[0]]), "a"), TypeError, "scatter: .*got str"),
        (lambda x: x.scatter(0, long(x, [[0]]), x.float()), TypeError, "scatter: dtypes differ"),
        (lambda x: x.scatter(0, long(x, [[0]]), x[0]), ValueError, "scatter: expected src of as"),
        (lambda x: x.scatter(0, long(x, [[0, 1]]), x[:, :1]), ValueError, "scatter: expected src"),
        (lambda x: x.scatter_add(0, long(x, [[-1]]), x), IndexError, "scatter_add: dim 0"),
        (lambda x: x.index_select(0, long(x, [3])), IndexError, "index_select: dim 0 .*index 3"),
        (lambda x: x.index_select(0, long(x, [-1])), IndexError, "index_select: dim 0 .*index -1"),
        (lambda x: x.index_select(0, long(x, [[0]])), ValueError, r"index_select: .*\(1, 1\)"),
        (lambda x: x.take(long(x, [12])), IndexError, "take: dim 0 of size 12: found index 12"),
        (lambda x: x.take_along_dim(long(x, [[4]]), 1), IndexError, "take_along_dim: dim 1"),
        (lambda x: x.take_along_dim(long(x, [4]), 1), ValueError, "take_along_dim: expected indi"),
        (lambda x: x.masked_select(x), TypeError, "masked_select: expected bool mask"),
        (lambda x: x.masked_select((x > 1)[:2]), ValueError, "masked_select: shapes"),
        (lambda x: F.one_hot(long(x, [0, 3]), 3), IndexError, "one_hot: found index 3, .* 0 to 2"),
        (lambda x: F.one_hot(long(x, [0, -1])), IndexError, "one_hot: found index -1"),
        (lambda x: F.one_hot(long(x, [0]), 0), ValueError, "one_hot: expected num_classes above 0"),
        (lambda x: F.one_hot(long(x, [0])[:0]), ValueError, "one_hot: .*-1 and a tensor"),
        (lambda x: F.one_hot(x), TypeError, "one_hot: .*signed integers, got float64"),
        (lambda x: F.one_hot(long(x, [0]), 2.0), TypeError, "one_hot: num_classes must be an"),
        (lambda x: tg.gather([1.0], 0, long(x, [0])), TypeError, "gather: expected a tensor"),
    ],
)
def test_errors(
    call: Callable[[Tensor], Tensor], error: type[Exception], message: str, backend: Backend
) -> None:
    """The same type everywhere; a device reports an index at the latest when it is read."""
    with pytest.raises(error, match=message):
        call(counted(backend, 3, 4)).tolist()


def long(like: Tensor, data: Any) -> Tensor:
    return tg.tensor(data, "int64", backend=like.backend)


def test_a_tensor_of_another_backend_is_named() -> None:
    x, index = tg.zeros(3, backend="numpy"), tg.tensor([0], backend="numba")
    with pytest.raises(RuntimeError, match=r"take: .*numba.*numpy.*\.to"):
        x[index]


# ---- the others


def test_in(backend: Backend) -> None:
    x = counted(backend, 2, 3)
    assert 3 in x
    assert 7 not in x
    assert np.float32(2) in x
    assert tg.tensor([9.0, 4.0, 9.0], backend=backend) in x
    assert np.nan not in tg.tensor([np.nan], backend=backend)
    with pytest.raises(TypeError, match="in: expected a number or a tensor, got str"):
        "3" in x  # noqa: B015


def test_one_hot_infers_the_classes(backend: Backend) -> None:
    y = F.one_hot(tg.tensor([2, 0], backend=backend))
    assert (y.dtype, y.tolist()) == (np.int64, [[0, 0, 1], [1, 0, 0]])
    assert F.one_hot(tg.tensor(1, "int32", backend=backend), num_classes=2).tolist() == [0, 1]


def test_function_forms(backend: Backend) -> None:
    x, index = counted(backend, 2, 3), tg.tensor([[0, 2], [1, 1]], backend=backend)
    assert tg.gather(x, 1, index).tolist() == [[0, 2], [4, 4]]
    assert tg.gather(x, dim=1, index=index).tolist() == [[0, 2], [4, 4]]
    assert tg.take(x, index).tolist() == [[0, 2], [1, 1]]
    assert tg.take_along_dim(x, index, dim=1).tolist() == [[0, 2], [4, 4]]
    assert tg.take_along_dim(x, index).tolist() == [0, 2, 1, 1]
    assert tg.index_select(x, 1, index[0]).tolist() == [[0, 2], [3, 5]]
    assert tg.scatter(x, 1, index, x).tolist() == [[0, 1, 1], [3, 4, 5]]
    assert tg.scatter(x, 1, index, value=9).tolist() == [[9, 1, 9], [3, 9, 5]]
    assert tg.scatter_add(x, 1, index, src=x).tolist() == [[0, 1, 3], [3, 11, 5]]
    assert tg.masked_select(x, x > 3).tolist() == [4, 5]
    assert tg.nonzero(x > 3).tolist() == [[1, 1], [1, 2]]
    assert [i.tolist() for i in tg.nonzero(x > 3, as_tuple=True)] == [[1, 1], [1, 2]]


# ---- against PyTorch, at random


class Drawn:
    """A tensor, an index into it and what may be written there."""

    def __init__(self, seed: int) -> None:
        self.rng = np.random.default_rng(seed)
        sizes = self.rng.choice([0, 1, 2, 3, 4], self.rng.integers(0, 5), p=P)
        self.shape = tuple(map(int, sizes))
        self.layout = str(self.rng.choice(["plain", "gaps", "turned"]))
        self.base = self.rng.standard_normal(self._base())
        self.inner = tuple(int(n) for n in self.rng.choice([1, 2, 3], self.rng.integers(1, 3)))
        self.index = tuple(self._index())

    def _base(self) -> tuple[int, ...]:
        """The shape of what ``laid_out`` makes the tensor of."""
        if self.layout == "gaps" and self.shape:
            return (*self.shape[:-1], 2 * self.shape[-1])
        return self.shape[::-1] if self.layout == "turned" else self.shape

    def _index(self) -> Iterator[Any]:
        """Each part as a NumPy array, a number, a slice, None or ``...``."""
        dim, dots, rng = 0, False, self.rng
        while dim < len(self.shape) and rng.random() < 0.85:
            size, kind = self.shape[dim], rng.integers(0, 12)
            if kind == 0:
                yield None
            elif kind == 1 and not dots:
                dots = True
                dim += int(rng.integers(0, len(self.shape) - dim))
                yield ...
            elif kind == 2:
                yield bool(rng.random() < 0.8)
            elif kind == 3 and not dots:
                dims = int(rng.integers(1, min(3, len(self.shape) - dim + 1)))
                yield np.asarray(rng.random(self.shape[dim : dim + dims]) < 0.5)
                dim += dims
            elif kind < 7 and size:
                yield rng.integers(-size, size, self._inner())
                dim += 1
            elif kind < 9 and size:
                yield int(rng.integers(-size, size))
                dim += 1
            else:
                ends = [None if rng.random() < 0.5 else int(rng.integers(-5, 6)) for _ in "ab"]
                yield slice(*ends, None if rng.random() < 0.6 else int(rng.integers(1, 4)))
                dim += 1

    def _inner(self) -> tuple[int, ...]:
        """A shape that broadcasts against those of the other arrays, most of the time."""
        if self.rng.random() < 0.02:
            return (5,)
        kept = self.inner[self.rng.integers(0, len(self.inner)) :]
        return tuple(1 if self.rng.random() < 0.2 else n for n in kept)

    def value(self, shape: tuple[int, ...]) -> Any:
        """A number, or an array that broadcasts to ``shape``, most of the time."""
        if self.rng.random() < 0.3:
            return float(self.rng.integers(1, 9))
        kept = shape[int(self.rng.integers(0, len(shape) + 1)) :]
        sizes = [1 if self.rng.random() < 0.2 else n for n in kept]
        sizes = [1] * int(self.rng.random() < 0.1) + sizes
        return self.rng.standard_normal([n + int(self.rng.random() < 0.02) for n in sizes])

    def repeats(self) -> bool:
        """Whether an element is named twice: then who writes last is undefined."""
        wide = np.arange(np.prod(self.shape, dtype=int)).reshape(self.shape)
        found = on_host(tg.tensor(wide, backend="numpy")[self.index])
        return len(np.unique(found)) != found.size


P = [0.05, 0.15, 0.3, 0.3, 0.2]
RUNS = 400


def laid_out(base: Any, layout: str) -> Any:
    """A tensor of either library that is contiguous, or has gaps, or its dims in reverse."""
    if layout == "gaps" and base.ndim:
        return base[..., ::2]
    return base.permute(*reversed(range(base.ndim))) if layout == "turned" and base.ndim else base


def attempted(function: Callable[[], Any]) -> Any:
    """The result, or the error."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            return function()
        except (IndexError, ValueError, TypeError, RuntimeError) as error:
            return error


@pytest.mark.parametrize("name", ["numpy", "numba"])
@pytest.mark.parametrize("part", range(4))
def test_reading_as_pytorch(part: int, name: str) -> None:
    """Values, both gradients' sums, and where it is an error."""
    torch = pytest.importorskip("torch", reason="PyTorch is not installed")
    errors = 0
    with use_backend(name):
        for seed in range(part * RUNS, (part + 1) * RUNS):
            drawn = Drawn(seed)
            leaf = torch.tensor(drawn.base, requires_grad=True)
            theirs = attempted(lambda: laid_out(leaf, drawn.layout)[on(torch, drawn.index)])  # noqa: B023
            own = tg.tensor(drawn.base, requires_grad=True)
            ours = attempted(lambda: laid_out(own, drawn.layout)[drawn.index])  # noqa: B023
            what = f"seed {seed}: {drawn.shape} {drawn.layout} at {drawn.index}"
            if isinstance(theirs, Exception):
                assert isinstance(ours, IndexError), f"{what}: {theirs}; {ours!r}"
                errors += 1
                continue
            if isinstance(ours, IndexError) and not theirs.numel():
                continue  # PyTorch does not look at the indices of an empty result
            assert isinstance(ours, Tensor), f"{what}: {ours!r}"
            np.testing.assert_array_equal(on_host(ours), theirs.detach().numpy(), err_msg=what)
            (theirs**3).sum().backward()
            (ours**3).sum().backward()
            assert own.grad is not None
            np.testing.assert_allclose(on_host(own.grad), leaf.grad.numpy(), 1e-12, err_msg=what)
    assert 0 < errors < RUNS / 4


@pytest.mark.parametrize("name", ["numpy", "numba"])
@pytest.mark.parametrize("part", range(4))
def test_writing_as_pytorch(part: int, name: str) -> None:
    torch = pytest.importorskip("torch", reason="PyTorch is not installed")
    written = 0
    with use_backend(name):
        for seed in range(part * RUNS, (part + 1) * RUNS):
            drawn = Drawn(seed)
            base, own = torch.tensor(drawn.base), tg.tensor(drawn.base)
            x, y = laid_out(base, drawn.layout), laid_out(own, drawn.layout)
            chosen = attempted(lambda: x[on(torch, drawn.index)])  # noqa: B023
            if isinstance(chosen, Exception) or not chosen.numel():
                continue
            value = drawn.value(tuple(chosen.shape))
            if np.ndim(value) and drawn.repeats():
                continue
            given = torch.tensor(value) if isinstance(value, np.ndarray) else value
            theirs = attempted(lambda: x.__setitem__(on(torch, drawn.index), given))  # noqa: B023
            ours = attempted(lambda: y.__setitem__(drawn.index, value))  # noqa: B023
            what = f"seed {seed}: {drawn.shape} {drawn.layout} at {drawn.index}"
            assert isinstance(ours, Exception) == isinstance(theirs, Exception), (
                f"{what} = {np.shape(value)}: {theirs!r}; {ours!r}"
            )
            np.testing.assert_array_equal(on_host(own), base.numpy(), err_msg=what)
            written += ours is None
    assert written > RUNS / 3


def on(torch: Any, index: tuple[Any, ...]) -> tuple[Any, ...]:
    """The index with its arrays as PyTorch's tensors."""
    return tuple(torch.tensor(i) if isinstance(i, np.ndarray) else i for i in index)
