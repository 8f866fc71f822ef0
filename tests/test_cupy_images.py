"""CUDA kernels for images and sums, run on the CPU: what the op table's sizes do not reach.

Edges of tiles, steps larger than kernels, several NaN, sums of several launches: beside NumPy's.
"""

from __future__ import annotations

import math
from typing import Any

import cuda_on_cpu
import numpy as np
import pytest

from tinygrad_mnist.backend import resolve
from tinygrad_mnist.kernels import Backend, Conv, Pool, convolved

NUMPY = resolve("numpy")
DTYPES = [np.float32, np.float64]
UNITS = {"f": 128, "d": 512}  # in the last place of the largest result

pytestmark = pytest.mark.parametrize("dtype", DTYPES, ids=["float32", "float64"])


@pytest.fixture(scope="module")
def cuda() -> Backend:
    loaded = cuda_on_cpu.load()
    if isinstance(loaded, str):
        pytest.skip(loaded)
    return loaded


def drawn(shape: Any, dtype: Any, seed: int = 0) -> np.ndarray:
    return np.random.default_rng([seed, *shape]).standard_normal(shape).astype(dtype)


def found(backend: Backend, kernel: str, *arrays: Any, **static: Any) -> list[np.ndarray]:
    """A kernel's results, as NumPy arrays."""
    given = [x if x is None else backend.asarray(x) for x in arrays]
    results = getattr(backend, kernel)(*given, **static)
    results = results if isinstance(results, tuple) else (results,)
    return [np.asarray(backend.to_numpy(each)) for each in results]


def near(x: np.ndarray, y: Any, units: float | None = None) -> None:
    y = np.asarray(y)
    assert (x.shape, x.dtype) == (y.shape, y.dtype)
    if y.dtype.kind != "f":
        np.testing.assert_array_equal(x, y)
        return
    largest = np.max(np.abs(y[np.isfinite(y)]), initial=0)
    bound = (UNITS[y.dtype.char] if units is None else units) * np.spacing(largest)
    np.testing.assert_allclose(x, y, 0, bound)


def alike(cuda: Backend, kernel: str, *arrays: Any, units: Any = None, **static: Any) -> None:
    expected = found(NUMPY, kernel, *arrays, **static)
    for x, y in zip(found(cuda, kernel, *arrays, **static), expected, strict=True):
        near(x, y, units)


# ---- sums

SUMS = [
    ((), ()), ((1,), (0,)), ((5,), (0,)), ((255,), (0,)), ((256,), (0,)), ((257,), (0,)),
    ((8192,), (0,)), ((8193,), (0,)), ((60_000,), (0,)), ((32, 128), (0,)), ((33, 257), (0,)),
    ((257, 33), (1,)), ((600, 10), (1,)), ((70_000, 3), (1,)), ((6_000, 100), (0,)),
    ((50_000, 90), (0,)), ((8, 10, 24, 24), (0, 2, 3)), ((64, 10, 24, 24), (0, 2, 3)),
    ((64, 3, 5, 7), (0, 2, 3)), ((5, 7, 3), (1,)), ((5, 7, 3), (0, 2)), ((5, 1, 3), (1,)),
    ((5, 7, 3, 2), (1, 3)), ((3, 700, 3, 50), (1, 3)), ((2, 3, 4, 5, 6), (0, 2, 4)),
    ((4, 3), ()), ((300, 2, 300), (0, 1, 2)),
]  # fmt: skip


@pytest.mark.parametrize(("shape", "dim"), SUMS, ids=str)
def test_sum(shape: Any, dim: Any, dtype: Any, cuda: Backend) -> None:
    """To the last place but one, of one launch or of two."""
    x = np.asarray(drawn(shape, dtype) + 1, dtype)
    for keepdim in (False, True):
        (total,) = found(cuda, "sum", x, dim=dim, keepdim=keepdim)
        near(total, x.sum(dim, np.longdouble, keepdims=keepdim).astype(dtype), 2)


@pytest.mark.parametrize("kernel", ["argmax", "argmin"])
@pytest.mark.parametrize("shape", [(5,), (60, 10), (7, 33, 3), (2, 3000), (3000, 2), (20_000,)])
def test_places(kernel: str, shape: Any, dtype: Any, cuda: Backend) -> None:
    """The first of equal elements; the first NaN before all."""
    draw = np.random.default_rng(0)
    for share in (0, 0.2, 1):
        x = draw.integers(0, 5, shape).astype(dtype)
        x[draw.random(shape) < share] = np.nan
        for dim in range(len(shape)):
            for keepdim in (False, True):
                alike(cuda, kernel, x, dim=dim, keepdim=keepdim)


# ---- convolution

CONVS = {
    "one pixel": ((1, 1, 1, 1), (1, 1, 1, 1), Conv((1, 1), (0, 0), (1, 1), 1)),
    "one result": ((1, 3, 5, 7), (4, 3, 5, 7), Conv((1, 1), (0, 0), (1, 1), 1)),
    "one result each": ((37, 3, 5, 7), (4, 3, 5, 7), Conv((1, 1), (0, 0), (1, 1), 1)),
    "first layer": ((3, 1, 28, 28), (10, 1, 5, 5), Conv((1, 1), (0, 0), (1, 1), 1)),
    "first layer, full": ((64, 1, 28, 28), (10, 1, 5, 5), Conv((1, 1), (0, 0), (1, 1), 1)),
    "second layer": ((5, 10, 12, 12), (20, 10, 5, 5), Conv((1, 1), (0, 0), (1, 1), 1)),
    "groups": ((3, 4, 9, 8), (6, 2, 3, 2), Conv((2, 3), (1, 2), (1, 1), 2)),
    "depthwise": ((2, 6, 9, 8), (6, 1, 3, 3), Conv((1, 1), (1, 1), (1, 1), 6)),
    "padding beyond the image": ((2, 3, 4, 5), (5, 3, 3, 3), Conv((1, 2), (9, 7), (1, 1), 1)),
    "dilation": ((2, 3, 11, 10), (5, 3, 3, 3), Conv((1, 2), (4, 5), (2, 3), 1)),
    "steps beyond the kernel": ((2, 3, 9, 9), (5, 3, 2, 2), Conv((3, 4), (0, 0), (1, 1), 1)),
    "only padding met": ((2, 3, 4, 4), (4, 3, 1, 1), Conv((2, 2), (3, 3), (1, 1), 1)),
    "16 and 64 channels": ((1, 16, 9, 9), (64, 16, 3, 3), Conv((1, 1), (1, 1), (1, 1), 1)),
    "65 and 17 channels": ((1, 65, 6, 6), (17, 65, 3, 3), Conv((1, 1), (1, 1), (1, 1), 1)),
    "130 channels": ((1, 7, 5, 5), (130, 7, 3, 3), Conv((1, 1), (1, 1), (1, 1), 1)),
    "many images": ((200, 2, 5, 5), (3, 2, 2, 2), Conv((1, 1), (0, 1), (1, 1), 1)),
}


def images_of(case: str, dtype: Any) -> tuple[Any, ...]:
    x, weight, conv = CONVS[case]
    padded = tuple(s + 2 * p for s, p in zip(x[2:], conv.padding, strict=True))
    spots = convolved(padded, weight[2:], conv.stride, conv.dilation)  # type: ignore[arg-type]
    y = x[0], weight[0], *spots
    return drawn(x, dtype), drawn(weight, dtype), drawn(weight[:1], dtype), drawn(y, dtype), conv


@pytest.mark.parametrize("case", CONVS)
def test_conv2d(case: str, dtype: Any, cuda: Backend) -> None:
    x, weight, bias, _, conv = images_of(case, dtype)
    alike(cuda, "conv2d", x, weight, None, conv=conv)
    alike(cuda, "conv2d", x, weight, bias, conv=conv, act="relu")


@pytest.mark.parametrize("case", CONVS)
def test_conv2d_dx(case: str, dtype: Any, cuda: Backend) -> None:
    x, weight, _, dY, conv = images_of(case, dtype)
    alike(cuda, "conv2d_dx", dY, weight, shape=x.shape, conv=conv)


@pytest.mark.parametrize("case", CONVS)
def test_conv2d_dw(case: str, dtype: Any, cuda: Backend) -> None:
    x, weight, _, dY, conv = images_of(case, dtype)
    alike(cuda, "conv2d_dw", dY, x, shape=weight.shape, conv=conv)


@pytest.mark.parametrize("act", [None, "relu"])
def test_conv2d_then_pool_and_act(act: Any, dtype: Any, cuda: Backend) -> None:
    """The bits of the kernels one after the other."""
    x, weight, bias, _, conv = images_of("second layer", dtype)
    pool = Pool((3, 2), (2, 2), (1, 0))
    best, index = found(cuda, "conv2d", x, weight, bias, conv=conv, act=act, pool=pool)
    (y,) = found(cuda, "conv2d", x, weight, bias, conv=conv)
    (folded,) = found(cuda, "conv2d", x, weight, bias, conv=conv, act=act)
    plain, place = found(cuda, "max_pool2d", y, pool=pool)
    if act is not None:
        (plain,), (y,) = found(cuda, act, plain), found(cuda, act, y)
    assert (best.tobytes(), index.tobytes()) == (plain.tobytes(), place.tobytes())
    assert folded.tobytes() == y.tobytes()


@pytest.mark.parametrize("case", ["groups", "second layer"])
def test_operands_that_do_not_lie_in_order(case: str, dtype: Any, cuda: Backend) -> None:
    x, weight, bias, dY, conv = images_of(case, dtype)

    def apart(a: np.ndarray) -> np.ndarray:
        return np.asfortranarray(a)

    alike(cuda, "conv2d", apart(x), apart(weight), bias, conv=conv)
    alike(cuda, "conv2d_dx", apart(dY), apart(weight), shape=x.shape, conv=conv)
    alike(cuda, "conv2d_dw", apart(dY), apart(x), shape=weight.shape, conv=conv)


def test_not_a_number_stays_in_its_windows(dtype: Any, cuda: Backend) -> None:
    x, weight, _, dY, conv = images_of("dilation", dtype)
    x[0, 1, 5, 5], dY[0, 1, 3, 2] = np.nan, np.inf
    alike(cuda, "conv2d", x, weight, None, conv=conv)
    alike(cuda, "conv2d_dx", dY, weight, shape=x.shape, conv=conv)


WINDOWS = [
    ((2, 3, 8, 8), (2, 2), (2, 2), (1, 1)),
    ((2, 3, 9, 8), (3, 2), (1, 2), (2, 1)),
    ((2, 3, 9, 8), (9, 8), (1, 1), (1, 1)),
    ((1, 1, 7, 7), (2, 3), (3, 4), (1, 2)),
]


@pytest.mark.parametrize(("shape", "size", "stride", "dilation"), WINDOWS)
def test_windows_grad(
    shape: Any, size: Any, stride: Any, dilation: Any, dtype: Any, cuda: Backend
) -> None:
    """Of a whole array, and of numbers that are repeated, which is what a mean's gradient is."""
    spots = convolved(shape[2:], size, stride, dilation)
    dY = drawn((*shape[:2], *size, *spots), dtype)
    static = {"shape": shape, "stride": stride, "dilation": dilation}
    alike(cuda, "windows_grad", dY, **static)
    alike(cuda, "windows_grad", np.broadcast_to(dY[:, :, :1, :1], dY.shape), **static)


@pytest.mark.parametrize("shape", [(4, 10, 12, 12), (2, 5, 20, 20)])
def test_the_order_of_blocks_and_threads_leaves_the_bits(
    shape: Any, dtype: Any, cuda: Backend, monkeypatch: Any
) -> None:
    def all_of_it() -> list[np.ndarray]:
        weight, ones = drawn((20, shape[1], 5, 5), dtype), np.ones(shape[1], dtype)
        x, conv = drawn(shape, dtype), Conv((1, 1), (1, 1), (1, 1), 1)
        (y,) = found(cuda, "conv2d", x, weight, conv=conv)
        results = [
            *found(cuda, "conv2d_dx", y, weight, shape=shape, conv=conv),
            *found(cuda, "conv2d_dw", y, x, shape=weight.shape, conv=conv),
            *found(cuda, "sum", np.tile(x, (40, 1, 1, 1)), dim=(0, 2, 3), keepdim=False),
        ]
        norm = found(cuda, "batch_norm", np.tile(x, (40, 1, 1, 1)), ones, ones, eps=1e-5)
        return [y, *results, *norm]

    forwards = all_of_it()
    monkeypatch.setattr(cuda_on_cpu.machine, "backwards", True)
    assert [a.tobytes() for a in all_of_it()] == [a.tobytes() for a in forwards]


LAUNCHES = {
    "a bias's gradient": ("sum", [(32, 128)], {"dim": (0,), "keepdim": False}, 1),
    "that of many rows": ("sum", [(6_000, 100)], {"dim": (0,), "keepdim": False}, 2),
    "channels": ("sum", [(64, 10, 24, 24)], {"dim": (0, 2, 3), "keepdim": False}, 2),
    "a small norm": ("batch_norm", [(32, 128), (128,), (128,)], {"eps": 1e-5}, 1),
    "a norm": ("batch_norm", [(64, 10, 24, 24), (10,), (10,)], {"eps": 1e-5}, 2),
    "a norm's gradient": ("batch_norm_grad", [(64, 10, 24, 24)] * 2 + [(10,)], {"eps": 1e-5}, 2),
}


@pytest.mark.parametrize("case", LAUNCHES)
def test_launches(case: str, dtype: Any, cuda: Backend) -> None:
    """As few as there should be, and nothing waits."""
    kernel, shapes, static, most = LAUNCHES[case]
    given = [cuda.asarray(drawn(shape, dtype)) for shape in shapes]
    with cuda_on_cpu.transfers() as seen:
        getattr(cuda, kernel)(*given, **static)
    assert list(seen) == []
    assert len(seen.launches) <= most, seen.launches


# ---- pooling

POOLS = {
    "side by side": ((2, 3, 6, 6), Pool((2, 2), (2, 2), (0, 0))),
    "odd sizes": ((2, 3, 7, 5), Pool((2, 2), (2, 2), (0, 0))),
    "overlapping": ((2, 3, 7, 5), Pool((3, 2), (1, 1), (1, 1))),
    "padded": ((1, 1, 9, 9), Pool((3, 3), (2, 2), (1, 1))),
    "with gaps": ((1, 2, 9, 9), Pool((2, 2), (4, 5), (0, 0))),
    "larger than half": ((2, 2, 5, 5), Pool((5, 5), (1, 1), (2, 2))),
    "one cell": ((2, 2, 1, 1), Pool((1, 1), (1, 1), (0, 0))),
}


def numbers_of(shape: Any, dtype: Any, kind: str) -> np.ndarray:
    draw = np.random.default_rng(1)
    x = draw.integers(0, 4, shape).astype(dtype)  # many are equal
    if kind == "NaN":
        x[draw.random(shape) < 0.3] = np.nan
    elif kind == "all lowest":
        x[:] = -math.inf
    elif kind == "infinite":
        x[draw.random(shape) < 0.5] = -math.inf
        x[draw.random(shape) < 0.1] = math.inf
        x[draw.random(shape) < 0.1] = np.nan
    return x


@pytest.mark.parametrize("kind", ["equal", "NaN", "all lowest", "infinite"])
@pytest.mark.parametrize("case", POOLS)
def test_pooling(case: str, kind: str, dtype: Any, cuda: Backend) -> None:
    shape, pool = POOLS[case]
    x = numbers_of(shape, dtype, kind)
    alike(cuda, "max_pool2d", x, pool=pool)
    _, index = found(NUMPY, "max_pool2d", x, pool=pool)
    dY = drawn(index.shape, dtype)
    dY[..., 0] = np.nan
    alike(cuda, "max_pool2d_grad", dY, index, shape=shape, pool=pool)
    alike(cuda, "max_pool2d_take", x, index, pool=pool)


# ---- batch norm

NORMS = [(3, 1), (8, 3), (32, 128), (33, 17), (2, 70, 3), (3, 300, 2, 2), (4, 10, 6, 6)]
NORMS += [(16, 10, 24, 24), (6_000, 20), (600, 100)]


@pytest.mark.parametrize("shape", NORMS, ids=str)
def test_batch_norm(shape: Any, dtype: Any, cuda: Backend) -> None:
    x, dY = drawn(shape, dtype), drawn(shape, dtype, 1)
    weight, bias = drawn(shape[1:2], dtype), drawn(shape[1:2], dtype, 1)
    alike(cuda, "batch_norm", x, weight, bias, eps=1e-5)
    alike(cuda, "batch_norm", x, weight, bias, eps=1e-5, act="tanh")
    units = {"f": 1024, "d": 4096}[np.dtype(dtype).char]  # the default's own rounding
    alike(cuda, "batch_norm_grad", dY, x, weight, eps=1e-5, units=units)


@pytest.mark.parametrize("shape", [(32, 128), (16, 10, 24, 24), (6_000, 20)], ids=str)
def test_batch_norm_far_from_zero(shape: Any, dtype: Any, cuda: Backend) -> None:
    """A mean of 10,000 and a deviation of 1: beside the default in long doubles.

    What rounding float64's mean costs is allowed.
    """
    x, dY = (drawn(shape, np.float64) + 1e4).astype(dtype), drawn(shape, dtype, 1)
    weight, bias = drawn(shape[1:2], dtype), drawn(shape[1:2], dtype, 1)
    far = 1 if dtype == np.float32 else 200
    exact = [a.astype(np.longdouble) for a in (dY, x, weight, bias)]
    expected = NUMPY.batch_norm(*exact[1:], eps=1e-5)
    for a, b in zip(found(cuda, "batch_norm", x, weight, bias, eps=1e-5), expected, strict=True):
        near(a, b.astype(dtype), far * UNITS[a.dtype.char])
    expected = NUMPY.batch_norm_grad(*exact[:3], eps=1e-5)
    for a, b in zip(found(cuda, "batch_norm_grad", dY, x, weight, eps=1e-5), expected, strict=True):
        near(a, b.astype(dtype), far * UNITS[a.dtype.char])


def test_a_channel_that_is_not_finite(dtype: Any, cuda: Backend) -> None:
    """It spoils itself alone, in one launch and in several."""
    for shape in ((8, 5), (16, 5, 30, 30)):
        x = drawn(shape, dtype)
        x[0, 1], x[1, 2] = np.nan, np.inf
        ones = np.ones(5, dtype)
        with np.errstate(invalid="ignore"):
            alike(cuda, "batch_norm", x, ones, ones, eps=1e-5)
