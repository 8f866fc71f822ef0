"""Each compiled kernel against the contract's default, on what it covers and what it does not."""

from __future__ import annotations

import inspect
import math
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("numba")

from tinygrad_mnist.backends.numba_backend import NumbaBackend
from tinygrad_mnist.backends.numba_kernels import threads
from tinygrad_mnist.backends.numpy_backend import NumpyBackend
from tinygrad_mnist.contract import kernel_names, spec
from tinygrad_mnist.kernels import ACTIVATIONS, Backend, Conv, Pool

NUMPY, NUMBA = NumpyBackend(), NumbaBackend()
OVERRIDES = [name for name in kernel_names() if name in vars(NumbaBackend)]
TOLERANCE = {"float32": (1e-5, 2e-6), "float64": (1e-12, 1e-13)}  # relative; of the largest
NONE = (np.nan, np.inf, -np.inf)

Case = tuple[tuple[Any, ...], dict[str, Any]]  # arrays and static arguments
Draw = Callable[..., np.ndarray]
CASES: dict[str, Callable[[Draw, np.dtype], Iterator[Case]]] = {}


def case(*names: str) -> Callable[[Any], Any]:
    def mark(cases: Any) -> Any:
        CASES.update(dict.fromkeys(names, cases))
        return cases

    return mark


@case("sigmoid", "relu")
def unary(draw: Draw, dtype: np.dtype) -> Iterator[Case]:
    for shape in ((33, 7), (1,), (0, 3), (), (2, 3, 4, 5), (700,)):
        yield (np.asarray(10 * draw(*shape)),), {}
    yield (np.array([np.nan, np.inf, -np.inf, 0, -0.0, 100, -100, 88.5, -88.5], dtype),), {}


@case("gelu")
def gelu(draw: Draw, dtype: np.dtype) -> Iterator[Case]:
    for approximate in ("none", "tanh"):
        for arrays, _ in unary(draw, dtype):
            yield arrays, {"approximate": approximate}
        far = np.array([1e4, -1e4, 1e30, -1e30, 12, -12, 1e-30, -1e-5], dtype)
        yield (far,), {"approximate": approximate}


@case("gelu_grad")
def gelu_grad(draw: Draw, dtype: np.dtype) -> Iterator[Case]:
    for (x,), static in gelu(draw, dtype):
        yield (draw(*x.shape), x), static


@case("softmax", "log_softmax")
def softmax(draw: Draw, dtype: np.dtype) -> Iterator[Case]:
    for shape in ((5, 10), (700, 10), (1, 1), (64, 3), (4,), (2, 3, 1), (2, 3, 4, 49), (3, 2500)):
        yield (20 * draw(*shape),), {"dim": len(shape) - 1}
        yield (draw(*shape),), {"dim": 0}
    for value in NONE:
        x = draw(6, 4)
        x[1, 2] = x[3, 0] = value
        x[5] = value
        yield (x,), {"dim": 1}
    far = np.array([[100, 0, -100], [3e4, 1, 0], [-3e4, -3e4, -1e30]], dtype)
    yield (far,), {"dim": 1}


@case("softmax_grad")
def softmax_grad(draw: Draw, dtype: np.dtype) -> Iterator[Case]:
    for (x,), static in softmax(draw, dtype):
        with np.errstate(all="ignore"):
            y = NUMPY.softmax(x, **static)
        yield (draw(*x.shape), y), static
        yield (np.broadcast_to(np.array(0.3, dtype), x.shape), y), static


@case("log_softmax_grad")
def log_softmax_grad(draw: Draw, dtype: np.dtype) -> Iterator[Case]:
    for (x,), static in softmax(draw, dtype):
        with np.errstate(all="ignore"):
            y = NUMPY.log_softmax(x, **static)
        yield (draw(*x.shape), y), static
        yield (np.broadcast_to(np.array(0.3, dtype), x.shape), y), static


@case("sigmoid_grad", "relu_grad", "tanh_grad")
def slopes(draw: Draw, dtype: np.dtype) -> Iterator[Case]:
    for shape in ((33, 7), (1,), (0, 3), (), (700,)):
        yield (draw(*shape), draw(*shape)), {}
    special = np.array([np.nan, np.inf, -np.inf, 0, -0.0], dtype)
    yield (draw(5), special), {}
    yield (special, draw(5)), {}


@case("sum")
def sums(draw: Draw, dtype: np.dtype) -> Iterator[Case]:
    shapes = (700, 60), (70, 30, 40), (65, 5, 12, 13), (3, 4, 4100), (40_000, 1), (9, 7), (3, 0), ()
    for shape in shapes:
        for dim in {(0,), (0, *range(2, len(shape))), tuple(range(len(shape)))}:
            if len(shape) >= len(dim):
                for keepdim in (False, True):
                    yield (draw(*shape),), {"dim": dim, "keepdim": keepdim}
    for value in NONE:
        x = draw(9000, 7)
        x[5, 1] = x[800, 2] = value
        yield (x,), {"dim": (0,), "keepdim": False}


@case("matmul")
def matmul(draw: Draw, dtype: np.dtype) -> Iterator[Case]:
    for n, k, m in ((70, 80, 90), (1, 600, 700), (700, 600, 1), (3, 2, 4), (0, 3, 2), (2, 0, 3)):
        x, y = draw(n, k), draw(k, m)
        yield (x, y), {}
        yield (np.asfortranarray(x), y), {}
        yield (x, np.asfortranarray(y)), {}
    yield (draw(3, 90, 80), draw(3, 80, 70)), {}
    yield (draw(90, 80), draw(80)), {}


@case("linear")
def linear(draw: Draw, dtype: np.dtype) -> Iterator[Case]:
    for n, inputs, outputs in LINEAR:
        x, weight, bias = draw(n, inputs), draw(outputs, inputs), draw(outputs)
        yield (x, weight, bias), {}
        yield (x, weight), {}
        x, weight = np.round(x), np.round(weight) / 32  # exact: an act hides what was added
        bias[: len(NONE)] = NONE[:outputs]
        for act in ACTIVATIONS:
            yield (x, weight, bias), {"act": act}
        yield (x, weight), {"act": "relu"}


@case("linear_dw")
def linear_dw(draw: Draw, dtype: np.dtype) -> Iterator[Case]:
    for n, inputs, outputs in LINEAR:
        yield (draw(n, outputs), draw(n, inputs)), {}


LINEAR = ((32, 784, 20), (3000, 50, 10), (1, 600, 700), (3000, 100, 1), (2, 3, 4), (0, 3, 2))


@case("conv2d")
def conv2d(draw: Draw, dtype: np.dtype) -> Iterator[Case]:
    for shapes, conv in convolutions():
        x, weight, bias = (draw(*shape) for shape in shapes)
        yield (x, weight, bias), {"conv": conv}
        yield (x, weight), {"conv": conv}
        x, weight, bias = np.round(x), np.round(weight) / 32, np.round(bias)  # exact: ties stay
        bias[: len(NONE) : 2] = NONE[: len(bias) : 2]
        for act in (None, *ACTIVATIONS):
            yield (x, weight, bias), {"conv": conv, "act": act}
            yield (x, weight, bias), {"conv": conv, "act": act, "pool": HALVES}
            yield (x, weight), {"conv": conv, "act": act, "pool": OVERLAPPING}


HALVES = Pool(size=(2, 2), stride=(2, 2), padding=(0, 0))
OVERLAPPING = Pool(size=(3, 2), stride=(2, 1), padding=(1, 1))


@case("conv2d_dx")
def conv2d_dx(draw: Draw, dtype: np.dtype) -> Iterator[Case]:
    for (x, weight, bias), conv in convolutions():
        dY = NUMPY.conv2d(draw(*x), draw(*weight), draw(*bias), conv=conv)
        yield (dY, draw(*weight)), {"shape": x, "conv": conv}


@case("conv2d_dw")
def conv2d_dw(draw: Draw, dtype: np.dtype) -> Iterator[Case]:
    for (x, weight, bias), conv in convolutions():
        dY = NUMPY.conv2d(draw(*x), draw(*weight), draw(*bias), conv=conv)
        yield (dY, draw(*x)), {"shape": weight, "conv": conv}


def convolutions() -> Iterator[tuple[tuple[Any, ...], Conv]]:
    plain = Conv(stride=(1, 1), padding=(0, 0), dilation=(1, 1), groups=1)
    yield ((3, 2, 9, 8), (4, 2, 3, 2), (4,)), plain
    yield ((3, 2, 7, 6), (4, 2, 3, 2), (4,)), plain  # too small for a product per image
    yield ((50, 10, 12, 12), (20, 10, 5, 5), (20,)), plain  # several blocks
    yield ((1, 1, 1, 1), (1, 1, 1, 1), (1,)), plain
    yield ((0, 2, 5, 5), (3, 2, 3, 3), (3,)), plain
    yield ((2, 2, 5, 6), (3, 2, 3, 3), (3,)), plain._replace(padding=(1, 2))
    yield ((2, 4, 6, 6), (6, 2, 3, 3), (6,)), plain._replace(groups=2, padding=(1, 1))
    yield ((2, 2, 13, 9), (3, 2, 3, 3), (3,)), plain._replace(stride=(2, 1))
    yield ((2, 2, 9, 9), (3, 2, 3, 3), (3,)), plain._replace(dilation=(1, 2))
    both = plain._replace(stride=(2, 3), dilation=(3, 2), padding=(1, 0))
    yield ((2, 2, 17, 29), (3, 2, 3, 3), (3,)), both


@case("max_pool2d")
def max_pool2d(draw: Draw, dtype: np.dtype) -> Iterator[Case]:
    for shape, pool in poolings():
        yield (draw(*shape),), {"pool": pool}
        yield (np.round(draw(*shape)),), {"pool": pool}  # ties
        x = draw(*shape)
        x.flat[::5], x.flat[1::7], x.flat[2::3] = NONE
        yield (x,), {"pool": pool}
        yield (np.full_like(x, -np.inf),), {"pool": pool}


@case("max_pool2d_grad")
def max_pool2d_grad(draw: Draw, dtype: np.dtype) -> Iterator[Case]:
    for shape, pool in poolings():
        y, index = NUMPY.max_pool2d(draw(*shape), pool=pool)
        static = {"shape": shape, "pool": pool}
        yield (y, index), static
        y[..., :1] = np.inf
        yield (y, index), static
        yield (y, index - 2), static  # cells that no window has


@case("max_pool2d_take")
def max_pool2d_take(draw: Draw, dtype: np.dtype) -> Iterator[Case]:
    for shape, pool in poolings():
        x = draw(*shape)
        index = NUMPY.max_pool2d(x, pool=pool)[1]
        yield (x, index), {"pool": pool}
        yield (x, index - 2), {"pool": pool}


def poolings() -> Iterator[tuple[tuple[int, ...], Pool]]:
    plain = Pool(size=(2, 2), stride=(2, 2), padding=(0, 0))
    for shape in ((3, 2, 8, 24), (2, 3, 5, 7), (1, 1, 2, 2), (0, 2, 4, 4), (2, 1, 1, 4)):
        yield shape, plain
    yield (2, 2, 6, 6), plain._replace(padding=(1, 1))
    yield (2, 2, 6, 6), plain._replace(stride=(1, 1))
    yield (40, 3, 9, 11), Pool(size=(3, 3), stride=(2, 2), padding=(1, 1))  # several blocks
    yield (2, 0, 7, 7), Pool(size=(3, 3), stride=(2, 2), padding=(1, 1))
    yield (2, 2, 9, 8), Pool(size=(3, 2), stride=(1, 3), padding=(1, 0))
    yield (2, 3, 4, 9), Pool(size=(1, 5), stride=(2, 1), padding=(0, 2))
    yield (1, 2, 7, 9), Pool(size=(2, 3), stride=(4, 5), padding=(1, 1))  # cells between windows
    yield (3, 1, 6, 5), Pool(size=(6, 5), stride=(9, 9), padding=(0, 0))  # one window
    yield (2, 2, 1, 1), Pool(size=(1, 1), stride=(1, 1), padding=(0, 0))
    yield (1, 1, 1, 1), Pool(size=(3, 3), stride=(1, 1), padding=(1, 1))
    yield (2, 1, 4, 4), Pool(size=(2, 2), stride=(1, 1), padding=(3, 3))  # windows of padding


@case("batch_norm")
def batch_norm(draw: Draw, dtype: np.dtype) -> Iterator[Case]:
    many = ((6, 3, 4, 5), (2, 1, 1), (64, 20, 4, 4), (5, 3, 1, 1), (1, 40, 7))
    rows = ((9, 4), (32, 128), (3, 1), (1, 5), (1, 1), (3, 0), (70, 33))
    for shape in (*many, *rows):
        yield (3 + 5 * draw(*shape), draw(shape[1]), draw(shape[1])), {"eps": 1e-5}
        for act in ACTIVATIONS:
            arrays = 3 + 5 * draw(*shape), draw(shape[1]), draw(shape[1])
            yield arrays, {"eps": 1e-5, "act": act}
    for shape in ((4, 3, 2, 2), (9, 3)):
        for value in NONE:
            x = draw(*shape)
            x[1, 0], x[2, 1] = value, np.inf
            yield (x, draw(3), draw(3)), {"eps": 1e-5}
            yield (x, draw(3), np.array([0, np.inf, value], dtype)), {"eps": 1e-5, "act": "relu"}
        yield (np.full(shape, 7, dtype), draw(3), draw(3)), {"eps": 1e-5}


@case("batch_norm_grad")
def batch_norm_grad(draw: Draw, dtype: np.dtype) -> Iterator[Case]:
    for (x, weight, _), static in batch_norm(draw, dtype):
        if "act" in static:
            continue
        yield (draw(*x.shape), x, weight), static
        dY = draw(*x.shape)
        dY[-1:, -1:] = np.inf
        yield (dY, x, weight), static


@case("cross_entropy")
def cross_entropy(draw: Draw, dtype: np.dtype) -> Iterator[Case]:
    for shape in ((5, 10), (200, 10), (1, 1), (64, 3), (0, 4)):
        yield (20 * draw(*shape), np.arange(shape[0]) % shape[1]), {"ignore_index": -100}
        yield (draw(*shape), np.arange(shape[0]) % shape[1]), {"ignore_index": 0}
    for value in NONE:
        x = draw(6, 4)
        x[1, 2] = x[3, 0] = value
        x[5] = value
        yield (x, np.arange(6) % 4), {"ignore_index": -100}
        yield (x, np.array([0, -7, 2, -7, 1, 3])), {"ignore_index": -7}
    far = np.array([[100, 0, -100], [3e4, 1, 0]], dtype)
    yield (far, np.array([2, 1])), {"ignore_index": -100}


@case("cross_entropy_grad")
def cross_entropy_grad(draw: Draw, dtype: np.dtype) -> Iterator[Case]:
    for (x, target), static in cross_entropy(draw, dtype):
        yield (draw(len(x)), x, target), static
    x, target = draw(7, 4), np.arange(7) % 4
    yield (np.broadcast_to(np.array(1 / 7, dtype), 7), x, target), {"ignore_index": -100}


@case("dropout_mask", "uniform")
def streams(draw: Draw, dtype: np.dtype) -> Iterator[Case]:
    for shape in ((32, 7), (5,), (1,), (0, 3), (), (3, 3, 3)):
        for key in (0, 2**64 - 1, 2**63 + 12345):
            yield (), {"shape": shape, "key": key, "dtype": dtype}


@case("take_grad")
def indices(draw: Draw, dtype: np.dtype) -> Iterator[Case]:
    for shape, dim, inner in (((5,), 0, (40,)), ((5, 3), 0, (2, 3)), ((2, 5, 3), 1, (7,))):
        index = np.random.default_rng(2).integers(0, 5, inner)
        dY = draw(*shape[:dim], *inner, *shape[dim + 1 :])
        yield (dY, index), {"shape": shape, "dim": dim}
        yield (np.full_like(dY, np.nan), index), {"shape": shape, "dim": dim}
    yield (draw(4, 2, 2)[::2], np.array([[0, 1], [1, 1]])), {"shape": (2, 2), "dim": 0}
    yield (draw(0, 3), np.zeros(0, np.int64)), {"shape": (4, 3), "dim": 0}


@case("take_scaled")
def take_scaled(draw: Draw, dtype: np.dtype) -> Iterator[Case]:
    static = {"scale": 1 / 255, "shift": -0.5, "dtype": dtype}
    for shape in ((20, 7), (20, 3, 4), (1, 1), (20,)):
        x = np.arange(np.prod(shape), dtype=np.uint8).reshape(shape)
        yield (x, np.array([0, shape[0] - 1, 0])), static
        yield (x, np.zeros(0, np.int64)), static


SHARED = {"lr": 0.1, "weight_decay": 0.0, "maximize": False}
SHAPES = ((6, 5), (1,), (0,), (3, 2, 2), (200,))


def updates(draw: Draw, dtype: np.dtype, letters: str, *settings: dict[str, Any]) -> Iterator[Case]:
    """Parameters, gradients and moments for each of the settings, and what is infinite or NaN.

    ``letters`` has one for each list of moments: "m", "v" for one of squares, "-" for none.
    """
    infinite = np.array([np.inf, -np.inf, np.nan, 1], dtype)
    kinds = [{"v": np.square, "m": lambda x: x / 9, "-": None}[letter] for letter in letters]
    for static in settings:
        moments = [[kind(draw(*s)) for s in SHAPES] if kind else [] for kind in kinds]
        p, g = ([draw(*s) for s in SHAPES] for _ in range(2))
        yield (p, g, *moments), static
        few = [[abs(draw(4))] if kind else [] for kind in kinds]
        yield ([infinite.copy()], [infinite[::-1].copy()], *few), static


@case("sgd_")
def sgd(draw: Draw, dtype: np.dtype) -> Iterator[Case]:
    plain = {**SHARED, "momentum": 0.0, "dampening": 0.0, "nesterov": False, "first": False}
    upwards = {"weight_decay": 0.1, "maximize": True}
    yield from updates(draw, dtype, "-", plain, {**plain, "weight_decay": 0.1})
    for static in (plain, {**plain, **upwards}):  # long enough for a compiled loop
        yield ([draw(40_000)], [draw(40_000)], []), static
    infinite = np.resize(np.array([np.inf, -np.inf, np.nan, 1], dtype), 40_000)
    yield ([infinite], [infinite[::-1].copy()], []), plain
    plain = {**plain, "momentum": 0.9}
    yield from updates(draw, dtype, "m", plain, {**plain, "dampening": 0.5, "first": True})
    yield from updates(draw, dtype, "m", {**plain, "nesterov": True}, {**plain, **upwards})


@case("adam_")
def adam(draw: Draw, dtype: np.dtype) -> Iterator[Case]:
    plain = {**SHARED, "beta1": 0.9, "beta2": 0.999, "eps": 1e-8, "step": 3}
    plain = {**plain, "decoupled_weight_decay": False}
    decoupled = {**plain, "weight_decay": 0.1, "decoupled_weight_decay": True}
    upwards = {**plain, "weight_decay": 0.1, "maximize": True, "step": 1}
    yield from updates(draw, dtype, "mv-", plain, decoupled, upwards)
    yield from updates(draw, dtype, "mvv", plain, decoupled, upwards)


@case("adagrad_")
def adagrad(draw: Draw, dtype: np.dtype) -> Iterator[Case]:
    plain = {**SHARED, "lr_decay": 0.1, "eps": 1e-10, "step": 3}
    yield from updates(draw, dtype, "v", plain, {**plain, "weight_decay": 0.1, "maximize": True})


@case("adadelta_")
def adadelta(draw: Draw, dtype: np.dtype) -> Iterator[Case]:
    plain = {**SHARED, "rho": 0.9, "eps": 1e-6, "step": 3}
    yield from updates(draw, dtype, "vv", plain, {**plain, "weight_decay": 0.1, "maximize": True})


@case("rmsprop_")
def rmsprop(draw: Draw, dtype: np.dtype) -> Iterator[Case]:
    plain = {**SHARED, "alpha": 0.9, "eps": 1e-8, "momentum": 0.0, "step": 3}
    yield from updates(draw, dtype, "v--", plain, {**plain, "weight_decay": 0.1})
    yield from updates(draw, dtype, "v-m", {**plain, "momentum": 0.9, "maximize": True})
    plain = {**plain, "alpha": 0.5}
    for (p, g, v, a, b), static in updates(draw, dtype, "vmm", {**plain, "momentum": 0.9}):
        v = [1 + x for x in v]  # so that it stays above the square of the average
        yield (p, g, v, a, []), {**static, "momentum": 0.0}
        yield (p, g, v, a, b), static


def cases_of(name: str, dtype: str) -> list[Case]:
    generator = np.random.default_rng(1)

    def draw(*shape: int) -> np.ndarray:
        return np.asarray(generator.standard_normal(shape), dtype)

    found = list(CASES[name](draw, np.dtype(dtype)))
    if name == "dropout_mask":
        found = [(a, {**static, "p": p}) for a, static in found for p in (0.1, 0.5, 0.999)]
    return found


def strided(x: Any) -> Any:
    """The same numbers with gaps between them."""
    if isinstance(x, list):
        return [strided(one) for one in x]
    if x.ndim == 0:
        return x
    wide = np.zeros((*x.shape, 2), x.dtype)
    wide[..., 0] = x
    return wide[..., 0]


def copied(arrays: Any) -> Any:
    return [copied(a) if isinstance(a, list) else a.copy() for a in arrays]


def run(backend: Backend, name: str, arrays: Any, static: Any, out: Any = None) -> Any:
    keywords = static if out is None else {**static, "out": out}
    with np.errstate(all="ignore"):
        return getattr(backend, name)(*arrays, **keywords)


def as_tuple(result: Any) -> tuple[Any, ...]:
    return result if isinstance(result, tuple) else (result,)


def filled(results: tuple[Any, ...], gaps: bool = False) -> Any:
    """An ``out`` for these results that holds NaN, or a large integer."""
    outs = tuple(np.full(np.shape(r), np.nan if r.dtype.kind == "f" else 99, r.dtype)
                 for r in results)  # fmt: skip
    outs = tuple(map(strided, outs)) if gaps else outs
    return outs if len(outs) > 1 else outs[0]


def assert_close(found: Any, expected: Any, dtype: str) -> None:
    for a, b in zip(as_tuple(found), as_tuple(expected), strict=True):
        assert np.shape(a) == np.shape(b)
        assert a.dtype == b.dtype
        largest = max(1.0, float(np.max(np.abs(b), initial=0, where=np.isfinite(b))))
        rtol, atol = TOLERANCE[dtype]
        np.testing.assert_allclose(a, b, rtol=rtol, atol=atol * largest)


def assert_same(found: Any, expected: Any) -> None:
    for a, b in zip(as_tuple(found), as_tuple(expected), strict=True):
        np.testing.assert_array_equal(a, b, strict=True)


PLAIN = [name for name in OVERRIDES if spec(name).kind != "inplace"]
IN_PLACE = [name for name in OVERRIDES if spec(name).kind == "inplace"]
DTYPES = ("float32", "float64")


def test_every_override_has_cases_and_the_contracts_signature() -> None:
    assert set(OVERRIDES) == set(CASES)
    for name in OVERRIDES:
        ours, contract = getattr(NumbaBackend, name), getattr(Backend, name)
        assert inspect.signature(ours) == inspect.signature(contract), name


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", PLAIN)
def test_agrees_with_the_default(name: str, dtype: str) -> None:
    for arrays, static in cases_of(name, dtype):
        expected = run(NUMPY, name, copied(arrays), static)
        before = copied(arrays)
        found = run(NUMBA, name, arrays, static)
        assert_close(found, expected, dtype)
        assert_same(tuple(arrays), tuple(before))
        assert_close(run(NUMBA, name, [strided(a) for a in arrays], static), expected, dtype)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", PLAIN)
def test_fills_out_with_the_same_bits(name: str, dtype: str) -> None:
    for arrays, static in cases_of(name, dtype):
        expected = as_tuple(run(NUMBA, name, arrays, static))
        out = filled(expected)
        found = run(NUMBA, name, arrays, static, out)
        assert all(a is b for a, b in zip(as_tuple(found), as_tuple(out), strict=True))
        assert_same(found, tuple(np.asarray(a) for a in expected))
        assert_close(run(NUMBA, name, arrays, static, filled(expected, gaps=True)), expected, dtype)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("count", (1, 2, 3))
@pytest.mark.parametrize("name", ("linear", "conv2d", "batch_norm"))
def test_act_and_pool_are_the_separate_kernels(
    name: str, count: int, dtype: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """To the bit, on any number of threads."""
    monkeypatch.setattr(threads, "WORTH", 0)
    monkeypatch.setattr(threads, "count", lambda: count)
    tried = 0
    for arrays, static in cases_of(name, dtype):
        plain = {k: v for k, v in static.items() if k not in ("act", "pool")}
        act, pool = static.get("act"), static.get("pool")
        for backend in (NUMPY, NUMBA):
            results = as_tuple(run(backend, name, arrays, plain))
            if pool is not None:
                results = run(backend, "max_pool2d", results, {"pool": pool})
            if act is not None:
                results = (run(backend, act, results[:1], {}), *results[1:])
            assert_same(run(backend, name, arrays, static), results)
        tried += plain != static
    assert tried > 10


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", [n for n in PLAIN if spec(n).kind == "elementwise"])
def test_an_elementwise_out_may_be_an_input(name: str, dtype: str) -> None:
    for arrays, static in cases_of(name, dtype):
        expected = np.asarray(run(NUMBA, name, arrays, static))
        for i in range(len(arrays)):
            given = copied(arrays)
            assert_same(run(NUMBA, name, given, static, given[i]), expected)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("gaps", (False, True), ids=("contiguous", "strided"))
@pytest.mark.parametrize("name", IN_PLACE)
def test_in_place_agrees_with_the_default(name: str, gaps: bool, dtype: str) -> None:
    for arrays, static in cases_of(name, dtype):
        expected, given = copied(arrays), copied(arrays)
        given = [strided(a) for a in given] if gaps else given
        run(NUMPY, name, expected, static)
        run(NUMBA, name, given, static)
        for argument, ours, theirs, old in zip(
            spec(name).inputs, given, expected, arrays, strict=True
        ):
            assert_close(tuple(ours), tuple(theirs), dtype)
            if argument not in spec(name).writes:
                assert_same(tuple(ours), tuple(old))


def test_pointwise_operands_that_broadcast_or_are_numbers_take_the_default() -> None:
    x, row = np.ones((3, 4), np.float32), np.full(4, 2, np.float32)
    assert_same(NUMBA.sigmoid_grad(x, row), NUMPY.sigmoid_grad(x, row))
    assert_same(NUMBA.relu(np.arange(-3, 3)), NUMPY.relu(np.arange(-3, 3)))
    assert NUMBA.relu(-2.0) == 0


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", ("dropout_mask", "uniform"))
def test_streams_have_the_defaults_bits(name: str, dtype: str) -> None:
    for arrays, static in cases_of(name, dtype):
        expected = np.asarray(run(NUMPY, name, arrays, static))
        assert_same(np.asarray(run(NUMBA, name, arrays, static)), expected)


@pytest.mark.parametrize("bad", (-1, 10, 2**40))
def test_an_index_outside_is_an_error_and_never_read(bad: int) -> None:
    x, dY = np.zeros((3, 10), np.float32), np.ones(3, np.float32)
    target = np.array([0, bad, 1])
    images, static = np.zeros((10, 4), np.uint8), {"scale": 1.0, "shift": 0.0}
    with pytest.raises(IndexError, match=f"cross_entropy: found index {bad}, expected 0 to 9"):
        NUMBA.cross_entropy(x, target, ignore_index=-100)
    with pytest.raises(IndexError, match=f"cross_entropy_grad: found index {bad}"):
        NUMBA.cross_entropy_grad(dY, x, target, ignore_index=-100)
    with pytest.raises(IndexError, match=f"take_scaled: found index {bad}"):
        NUMBA.take_scaled(images, target, dtype=np.dtype(np.float32), **static)


HALVED: dict[str, tuple[int, dict[str, Any]]] = {  # moments, and what keeps half of each
    "sgd_": (1, {"momentum": 0.5, "dampening": 0.0, "nesterov": False, "first": False}),
    "adam_": (3, {"beta1": 0.5, "beta2": 0.5, "eps": 1e-8, "decoupled_weight_decay": False}),
    "adadelta_": (2, {"rho": 0.5, "eps": 1e-6}),
    "rmsprop_": (3, {"alpha": 0.5, "momentum": 0.5, "eps": 1e-8}),
}


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("backend", (NUMPY, NUMBA), ids=("numpy", "numba"))
@pytest.mark.parametrize("name", HALVED)
def test_moments_that_became_denormal_are_zero(name: str, backend: Backend, dtype: str) -> None:
    count, static = HALVED[name]
    static = {**SHARED, **static} | ({} if name == "sgd_" else {"step": 9})
    p, g = np.ones(4, dtype), np.zeros(4, dtype)
    moments = [np.full(4, np.finfo(dtype).tiny) for _ in range(count)]
    if name == "adam_":
        moments[2][:] = 0  # the largest so far
    getattr(backend, name)([p], [g], *([m] for m in moments), **static)
    assert not np.any(moments)
    assert (p == 1).all()


@pytest.mark.parametrize("dtype", DTYPES)
def test_the_chosen_cells_of_windows_are_the_defaults(dtype: str) -> None:
    for arrays, static in cases_of("max_pool2d", dtype):
        expected = run(NUMPY, "max_pool2d", arrays, static)
        assert_same(run(NUMBA, "max_pool2d", arrays, static), expected)


@pytest.mark.parametrize("dtype", DTYPES)
def test_gradients_of_windows_that_overlap_are_added_in_the_defaults_order(dtype: str) -> None:
    pool = Pool(size=(5, 5), stride=(1, 2), padding=(2, 1))
    generator = np.random.default_rng(3)
    x = np.asarray(np.round(generator.standard_normal((3, 2, 11, 9))), dtype)
    y, index = NUMPY.max_pool2d(x, pool=pool)
    dY = np.asarray(generator.standard_normal(y.shape), dtype)
    expected = NUMPY.max_pool2d_grad(dY, index, shape=x.shape, pool=pool)
    assert_same(NUMBA.max_pool2d_grad(dY, index, shape=x.shape, pool=pool), expected)


@pytest.mark.parametrize("shape", ((60_000, 2), (16_000, 2, 9), (9, 2, 20_000)), ids=str)
def test_sums_of_many_keep_their_digits(shape: tuple[int, ...]) -> None:
    x = np.full(shape, 0.1, np.float32)
    found = NUMBA.sum(x, dim=(0, *range(2, len(shape))), keepdim=False)
    # Without the compiler, 256 numbers are added one after the other.
    np.testing.assert_allclose(found, x.size / 2 * float(np.float32(0.1)), rtol=3e-6)


@pytest.mark.parametrize("shape", ((50, 1, 1000), (50_000, 1)), ids=str)
def test_batch_norm_of_many_numbers_far_from_zero_is_accurate(shape: tuple[int, ...]) -> None:
    x = (1000 + np.random.default_rng(7).standard_normal(shape)).astype(np.float32)
    one, zero = np.ones(1, np.float32), np.zeros(1, np.float32)
    y, mean, var = NUMBA.batch_norm(x, one, zero, eps=1e-5)
    exact = x.astype(np.float64)
    np.testing.assert_allclose(mean, exact.mean(), rtol=1e-7)
    np.testing.assert_allclose(var, exact.var(), rtol=1e-6)
    normal = (exact - exact.mean()) / np.sqrt(exact.var() + 1e-5)
    np.testing.assert_allclose(y, normal, atol=1e-4)
    dX, dweight, dbias = NUMBA.batch_norm_grad(x, x, one, eps=1e-5)
    np.testing.assert_allclose(dweight, (exact * normal).sum(), rtol=1e-4)
    np.testing.assert_allclose(dbias, exact.sum(), rtol=1e-6)
    assert np.abs(dX).max() < 1e-3  # a gradient along x moves nothing


@pytest.mark.parametrize("backend", (NUMPY, NUMBA), ids=("numpy", "numba"))
@pytest.mark.parametrize(("dtype", "rtol"), [("float32", 3e-6), ("float64", 2e-14)])
def test_gelu_keeps_its_digits_in_the_tails(dtype: str, rtol: float, backend: Backend) -> None:
    x = np.concatenate((np.linspace(-8, 8, 3201), [1e-20, -1e-20])).astype(dtype)
    exact = x * np.array([math.erfc(-v / math.sqrt(2)) / 2 for v in x.astype(np.float64)])
    np.testing.assert_allclose(backend.gelu(x, approximate="none"), exact, rtol=rtol)


@pytest.mark.parametrize(("dtype", "rtol"), [("float32", 4e-7), ("float64", 1e-15)])
def test_sigmoid_is_accurate_in_the_tails(dtype: str, rtol: float) -> None:
    x = np.linspace(-87, 87, 100_001).astype(dtype)
    exact = 1 / (1 + np.exp(-x.astype(np.longdouble)))
    np.testing.assert_allclose(NUMBA.sigmoid(x), exact.astype(np.float64), rtol=rtol)


@pytest.mark.parametrize("backend", (NUMPY, NUMBA), ids=("numpy", "numba"))
@pytest.mark.parametrize("dim", (0, 1))
def test_softmax_of_many_keeps_its_digits(dim: int, backend: Backend) -> None:
    x = np.random.default_rng(3).random((1_000_000, 1), np.float32).reshape((-1, 1)[:: 1 - 2 * dim])
    powers = np.exp(x.astype(np.float64))
    exact = powers / powers.sum()
    np.testing.assert_allclose(backend.softmax(x, dim=dim), exact, rtol=2e-6)
    logs = backend.log_softmax(x, dim=dim)
    np.testing.assert_allclose(logs, np.log(exact), rtol=2e-6)
    np.testing.assert_allclose(
        backend.softmax_grad(x, exact.astype(np.float32), dim=dim),
        exact * (x - np.sum(x * exact)),
        atol=1e-12,
    )


# ---- Numba's switches, each in a process of its own

PROGRAM = """
import numpy as np
from tinygrad_mnist.backends.numba_backend import NumbaBackend
from tinygrad_mnist.backends.numpy_backend import NumpyBackend
from tinygrad_mnist.kernels import Pool

x = np.random.default_rng(0).standard_normal((4, 10)).astype(np.float32)
target, p = np.array([1, 2, 3, 9]), [x.copy() for _ in range(4)]
static = dict(shape=(3, 3), key=2**64 - 5, dtype=np.dtype(np.float32))
pool = Pool(size=(2, 2), stride=(2, 2), padding=(0, 0))
shared = dict(lr=0.1, weight_decay=0.1, maximize=True, eps=1e-8, step=2)
adam = dict(beta1=0.9, beta2=0.99, decoupled_weight_decay=False, **shared)
rmsprop = dict(alpha=0.9, momentum=0.5, **shared)

def results(backend):
    yield backend.sigmoid(x)
    yield backend.sigmoid(x.astype(np.float64))
    yield backend.gelu(x, approximate="none")
    yield backend.gelu_grad(x, x, approximate="tanh")
    yield backend.log_softmax(x, dim=1)
    yield from backend.cross_entropy(x, target, ignore_index=-100)
    yield backend.cross_entropy_grad(x[:, 0].copy(), x, target, ignore_index=-100)
    yield backend.dropout_mask(p=0.5, **static)
    yield backend.uniform(**static)
    yield from backend.max_pool2d(x.reshape(1, 1, 4, 10), pool=pool)
    yield from backend.batch_norm(x.reshape(2, 2, 10), x[0, :2], x[1, :2], eps=1e-5)
    update, new = p[0].copy(), lambda: [x * x + 1]
    backend.adam_([update], [x], [x.copy()], new(), new(), **adam)
    backend.adagrad_([update], [x], new(), lr_decay=0.1, **shared)
    backend.adadelta_([update], [x], new(), new(), rho=0.9, **shared)
    backend.rmsprop_([update], [x], new(), [x / 9], [x.copy()], **rmsprop)
    yield update

for ours, theirs in zip(results(NumbaBackend()), results(NumpyBackend()), strict=True):
    np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-6)
print("agreed")
"""


def program(*lines: str, **variables: str) -> subprocess.CompletedProcess[str]:
    root = Path(__file__).resolve().parents[1]
    environment = {**os.environ, "PYTHONPATH": str(root), "NUMBA_DISABLE_JIT": "0", **variables}
    return subprocess.run(
        [sys.executable, "-W", "error", "-c", "\n".join((*lines, PROGRAM))],
        env=environment, cwd=root, capture_output=True, text=True, check=False, timeout=120,
    )  # fmt: skip


def test_runs_without_compiling() -> None:
    done = program(NUMBA_DISABLE_JIT="1")
    assert done.returncode == 0, done.stderr
    assert done.stdout == "agreed\n"
    assert done.stderr == ""


@pytest.mark.slow
def test_runs_where_nothing_can_be_cached(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.touch()
    done = program(
        NUMBA_CACHE_DIR=str(file), NUMBA_CACHE_LOCATOR_CLASSES="UserProvidedCacheLocator"
    )
    assert done.stdout == "agreed\n", done.stderr
    assert done.stderr.count("cannot be kept for the next start") <= 1  # old Numbas find a folder


def test_runs_where_the_cache_cannot_be_written(tmp_path: Path) -> None:
    """A disk that is full, or a folder taken away after the import."""
    refuse = (
        "from numba.core import caching",
        "def refuse(self, path): raise OSError(28, 'No space left on device')",
        "caching.IndexDataCacheFile._open_for_write = refuse",
    )
    done = program(*refuse, NUMBA_CACHE_DIR=str(tmp_path))
    assert done.stdout == "agreed\n", done.stderr
    assert done.stderr.count("cannot be kept for the next start: [Errno 28]") == 1


def test_a_kernel_is_compiled_once_and_then_found(tmp_path: Path) -> None:
    first = program(NUMBA_CACHE_DIR=str(tmp_path))
    again = program(NUMBA_CACHE_DIR=str(tmp_path))
    assert first.stderr.count("compiling Numba kernels") == 1
    assert again.stdout == "agreed\n"
    assert again.stderr == ""
