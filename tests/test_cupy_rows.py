"""What the op table does not reach of the CUDA kernels of elements, rows, indices and updates.

They run on the CPU: ``cuda_on_cpu`` compiles the sources that a card would get. The NumPy backend
says what is right.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import cuda_on_cpu
import numpy as np
import pytest

from tinygrad_mnist.backend import resolve
from tinygrad_mnist.kernels import Backend

F32, F64 = np.dtype(np.float32), np.dtype(np.float64)
dtypes = pytest.mark.parametrize("dtype", [F32, F64], ids=str)


@pytest.fixture(scope="module")
def gpu() -> Backend:
    found = cuda_on_cpu.load()
    if isinstance(found, str):
        pytest.skip(found)
    return found


@pytest.fixture
def launched(gpu: Backend, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The kernels launched so far in the test."""
    names: list[str] = []
    for method in ("_each", "_grid"):
        monkeypatch.setattr(type(gpu), method, noted(getattr(type(gpu), method), names))
    return names


def noted(method: Callable[..., None], names: list[str]) -> Callable[..., None]:
    def launch(self: Any, file: str, name: str, *rest: Any) -> None:
        names.append(name)
        method(self, file, name, *rest)

    return launch


@pytest.fixture
def hosted(gpu: Backend, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Numbers of the host come from memory of the device, as in a CUDA graph; which did."""
    seen: list[str] = []
    by_value = type(gpu)._numbers

    def from_memory(self: Any, fn: Any, **static: Any) -> tuple[Any, Any]:
        numbers, _ = by_value(self, fn, **static)
        seen.append(fn.__name__)
        wrong = np.full((), np.nan, numbers.dtype["at"].base)
        fresh = self.asarray(numbers["at"].copy())
        numbers["at"][:] = wrong  # must not be read
        return numbers, fresh

    monkeypatch.setattr(type(gpu), "_numbers", from_memory)
    return seen


def draws(*shape: int, dtype: Any = F32, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape).astype(dtype)


def both(gpu: Backend, kernel: str, *arrays: Any, **static: Any) -> tuple[Any, Any]:
    """What the kernel gives on the device and with NumPy, or in place, what it leaves."""
    results = []
    for backend in (gpu, resolve("numpy")):
        given = [moved(backend, x) for x in arrays]
        result = getattr(backend, kernel)(*given, **static)
        results.append(fetched(backend, given if result is None else result))
    return results[0], results[1]


def moved(backend: Backend, x: Any) -> Any:
    if isinstance(x, list):
        return [moved(backend, each) for each in x]
    return backend.asarray(x.copy(order="K")) if isinstance(x, np.ndarray) else x


def fetched(backend: Backend, x: Any) -> Any:
    if isinstance(x, list | tuple):
        return [fetched(backend, each) for each in x]
    return backend.to_numpy(x).copy() if isinstance(x, backend.array_type) else x


def close(found: Any, expected: Any, ulps: float = 128) -> None:
    """Within so many units in the last place of the largest number; NaN in the same places."""
    if isinstance(expected, list):
        for a, b in zip(found, expected, strict=True):
            close(a, b, ulps)
        return
    expected = np.asarray(expected)
    assert (found.dtype, found.shape) == (expected.dtype, expected.shape)
    if expected.size == 0:
        return
    eps = np.finfo(expected.dtype).eps * ulps if expected.dtype.kind == "f" else 0
    largest = np.max(np.abs(expected), where=np.isfinite(expected), initial=1)
    np.testing.assert_allclose(found, expected, 0, eps * largest)


# ---- indices out of range


def test_the_first_index_out_of_range_is_raised_when_the_host_reads(gpu: Backend) -> None:
    x, index = gpu.asarray(draws(5, 3)), gpu.asarray(np.array([0, 7, 1]))
    taken = gpu.take(x, index, dim=0)
    gpu.take(x, gpu.asarray(np.array([9])), dim=1)  # a second one is not told
    with pytest.raises(IndexError, match=r"^take: dim 0: found index 7, expected 0 to 4$"):
        gpu.to_numpy(taken)
    rows = gpu.to_numpy(taken)  # once
    np.testing.assert_array_equal(rows[[0, 2]], gpu.to_numpy(x)[[0, 1]])
    assert not rows[1].any()


@pytest.mark.parametrize(
    ("kernel", "arrays", "static", "says"),
    [
        ("take", (draws(4, 3), np.array([-1])), {"dim": 1}, "take: dim 1: found index -1"),
        ("take", (np.arange(4, dtype=np.uint8), np.array([4])), {"dim": 0}, "take: dim 0: found"),
        ("take_grad", (draws(2), np.array([0, 3])), {"shape": (3,), "dim": 0}, "take_grad: dim 0"),
        (
            "take_grad",
            (draws(9000), np.arange(9000) - 1),
            {"shape": (9000,), "dim": 0},
            "take_grad: dim 0: found index -1, expected 0 to 8999",
        ),
        ("put_", (draws(3), np.array([3]), draws(1)), {}, "put_: found index 3, expected 0 to 2"),
        (
            "wrap_index",
            (np.array([2, -4]),),
            {"size": 3, "low": -3, "step": 5, "what": "getitem: dim 0"},
            "getitem: dim 0: found index -4, expected -3 to 2",
        ),
        (
            "take_scaled",
            (np.ones((4, 2), np.uint8), np.array([4])),
            {"scale": 1.0, "shift": 0.0, "dtype": F32},
            "take_scaled: found index 4, expected 0 to 3",
        ),
        (
            "cross_entropy",
            (draws(3, 4), np.array([1, 4, -100])),
            {"ignore_index": -100},
            "cross_entropy: found index 4, expected 0 to 3",
        ),
        (
            "cross_entropy_grad",
            (draws(3), draws(3, 4), np.array([1, -2, 0])),
            {"ignore_index": -100},
            "cross_entropy_grad: found index -2, expected 0 to 3",
        ),
    ],
    ids=lambda x: x if isinstance(x, str) and " " not in x else "",
)
def test_what_is_said_of_an_index_out_of_range(
    kernel: str, arrays: Any, static: Any, says: str, gpu: Backend
) -> None:
    given = [moved(gpu, x) for x in arrays]
    getattr(gpu, kernel)(*given, **static)
    with pytest.raises(IndexError, match=f"^{says}"):
        gpu.to_numpy(given[0])
    gpu.to_numpy(given[0])


def test_rows_with_a_label_out_of_range_are_0(gpu: Backend) -> None:
    x, target = draws(4, 3), np.array([0, 5, -100, 2])
    given = gpu.asarray(x), gpu.asarray(target)
    losses, count = gpu.cross_entropy(*given, ignore_index=-100)
    dX = gpu.cross_entropy_grad(gpu.asarray(draws(4)), *given, ignore_index=-100)
    with pytest.raises(IndexError, match="cross_entropy: found index 5"):
        gpu.to_numpy(losses)
    assert (gpu.to_numpy(losses) == 0).tolist() == [False, True, True, False]
    assert gpu.to_numpy(dX).any(axis=1).tolist() == [True, False, False, True]
    assert gpu.to_numpy(count) == 3


# ---- reading and adding at indices


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.int64, np.int32, np.uint8, np.bool_])
@pytest.mark.parametrize("dim", [0, 1, 2])
def test_take_of_any_dtype_and_dim(dim: int, dtype: Any, gpu: Backend) -> None:
    x = (draws(4, 5, 6) * 50).astype(dtype)
    found, expected = both(gpu, "take", x, np.array([[3, 0], [2, 3]]), dim=dim)
    assert found.dtype == expected.dtype
    np.testing.assert_array_equal(found, expected)


TAKEN = [
    ((7, 3), 0, 5),
    ((2, 30, 3), 1, 500),
    ((2, 30, 3), 1, 9000),
    ((9000,), 0, 9000),
    ((3, 4), 1, 0),
    ((5, 0), 0, 2),
]


@dtypes
@pytest.mark.parametrize(("shape", "dim", "count"), TAKEN, ids=str)
def test_take_grad_adds_in_order(
    shape: tuple[int, ...], dim: int, count: int, dtype: Any, gpu: Backend
) -> None:
    """Little work and much; the same bits as one number after the other gives."""
    index = np.random.default_rng(1).integers(0, min(shape[dim], 11), count)
    dY = draws(*shape[:dim], count, *shape[dim + 1 :], dtype=dtype)
    found, expected = both(gpu, "take_grad", dY, index, shape=shape, dim=dim)
    assert found.tobytes() == expected.tobytes()


@pytest.mark.parametrize("dtype", [np.int64, np.int32, np.uint8])
@pytest.mark.parametrize("count", [20, 9000])
def test_take_grad_of_integers(count: int, dtype: Any, gpu: Backend) -> None:
    index = np.random.default_rng(1).integers(0, 4, count)
    dY = np.random.default_rng(2).integers(0, 100, count).astype(dtype)
    found, expected = both(gpu, "take_grad", dY, index, shape=(4,), dim=0)
    assert (found.dtype, found.tolist()) == (expected.dtype, expected.tolist())


def test_take_scaled_and_wrap_index_are_one_launch(gpu: Backend, launched: list[str]) -> None:
    x = np.random.default_rng(0).integers(0, 256, (50, 4, 5)).astype(np.uint8)
    static = {"scale": 1 / 255, "shift": -0.5, "dtype": F32}
    close(*both(gpu, "take_scaled", x, np.array([3, 49, 3]), **static))
    x = np.array([[-7, 6], [0, -1]])
    close(*both(gpu, "wrap_index", x, size=7, low=-7, step=3, what="x"))
    assert launched == ["take_scaled", "wrap_index"]


# ---- rows


@dtypes
@pytest.mark.parametrize(
    ("rows", "cols"),
    [(rows, cols) for rows in (1, 7, 300) for cols in (1, 2, 3, 10, 32, 33, 1000, 1025)]
    + [(7, 5000)],
)
def test_softmax_of_short_and_long_rows(rows: int, cols: int, dtype: Any, gpu: Backend) -> None:
    x, dY = draws(rows, cols, dtype=dtype) * 5, draws(rows, cols, dtype=dtype, seed=1)
    for kernel in ("softmax", "log_softmax"):
        close(*both(gpu, kernel, x, dim=1))
        y = getattr(resolve("numpy"), kernel)(x, dim=1)
        close(*both(gpu, f"{kernel}_grad", dY, y, dim=1))


def test_rows_of_what_is_no_number(gpu: Backend) -> None:
    x = draws(6, 40)
    x[0, 3], x[1, 4], x[2, 5], x[3], x[4] = np.nan, np.inf, -np.inf, -np.inf, np.nan
    with np.errstate(all="ignore"):
        for kernel in ("softmax", "log_softmax"):
            close(*both(gpu, kernel, x, dim=1))
        target = np.array([0, 4, 5, 0, 1, 2])
        close(*both(gpu, "cross_entropy", x, target, ignore_index=-1))
        close(*both(gpu, "cross_entropy_grad", draws(6), x, target, ignore_index=4))


@dtypes
@pytest.mark.parametrize(
    ("rows", "cols"), [(1, 10), (32, 10), (1000, 3), (4096, 1), (60_000, 10), (5, 3000)]
)
def test_cross_entropy_is_one_launch(
    rows: int, cols: int, dtype: Any, gpu: Backend, launched: list[str]
) -> None:
    x, target = draws(rows, cols, dtype=dtype), np.arange(rows) % cols
    target[::7] = 0
    found, expected = both(gpu, "cross_entropy", x, target, ignore_index=0)
    close(found, expected)
    assert launched == ["cross_entropy"]


def test_cross_entropy_where_none_counts(gpu: Backend) -> None:
    for rows in (3, 5000):
        given = draws(rows, 4), np.full(rows, -100)
        (losses, count), _ = both(gpu, "cross_entropy", *given, ignore_index=-100)
        assert not losses.any()
        assert np.isnan(count)


@dtypes
@pytest.mark.parametrize(("rows", "cols"), [(1, 10), (60_000, 10), (5, 3000)])
def test_cross_entropy_grad_of_one_number_expanded(
    rows: int, cols: int, dtype: Any, gpu: Backend, launched: list[str]
) -> None:
    x, target = draws(rows, cols, dtype=dtype), np.arange(rows) % cols
    dY = np.array(0.25, dtype)
    expanded = np.full(rows, 0.25, dtype)
    _, expected = both(gpu, "cross_entropy_grad", expanded, x, target, ignore_index=1)
    launched.clear()
    device = gpu.expand(gpu.asarray(dY), shape=(rows,)), gpu.asarray(x), gpu.asarray(target)
    close(gpu.to_numpy(gpu.cross_entropy_grad(*device, ignore_index=1)), expected)
    assert launched == ["cross_entropy_grad"]


# ---- streams

KEYS = [0, 1, 2**63, 2**64 - 1]
KEYS += [0x7FF0000000000001, 0xFFF4000000000000, 0x7FF8000000000001]  # as a double no number


@dtypes
@pytest.mark.parametrize("key", KEYS, ids=hex)
@pytest.mark.parametrize("size", [0, 1, 2, 1001])
def test_streams_have_the_bits_of_the_host(size: int, key: int, dtype: Any, gpu: Backend) -> None:
    static = {"shape": (size,), "key": key, "dtype": dtype}
    for p in (0.0, 0.3, 1 - 2**-40):
        found, expected = both(gpu, "dropout_mask", p=p, **static)
        assert found.tobytes() == expected.tobytes()
    found, expected = both(gpu, "uniform", **static)
    assert found.tobytes() == expected.tobytes()


def test_what_is_dropped_ends_at_the_very_number(gpu: Backend) -> None:
    """The first number of the stream is kept where it is p·2³², and dropped just above."""
    first, second = (int(n) for n in resolve("numpy")._bits(5, (2,)))  # type: ignore[attr-defined]
    for number, at in ((first, 0), (second, 1)):
        for above in (0, 1):
            static = {"shape": (2,), "p": (number + above) / 2**32, "key": 5, "dtype": F64}
            found, expected = both(gpu, "dropout_mask", **static)
            assert found.tobytes() == expected.tobytes()
            assert (found[at] == 0) == bool(above)


@pytest.mark.parametrize("key", KEYS, ids=hex)
def test_streams_by_numbers_in_memory(key: int, gpu: Backend, hosted: list[str]) -> None:
    static = {"shape": (7,), "key": key, "dtype": F32}
    for kernel, others in (("uniform", {}), ("dropout_mask", {"p": 0.4})):
        found, expected = both(gpu, kernel, **static, **others)
        assert found.tobytes() == expected.tobytes()
    assert len(hosted) == 2


# ---- updates

SHARED = {"lr": 0.1, "weight_decay": 0.01, "maximize": False}
SGD = {**SHARED, "momentum": 0.9, "dampening": 0.1, "nesterov": True, "first": False}
ADAM = {**SHARED, "beta1": 0.9, "beta2": 0.99, "eps": 1e-8, "step": 3}
RMSPROP = {**SHARED, "alpha": 0.9, "momentum": 0.5, "eps": 1e-8, "step": 2}
UPDATES: list[tuple[str, int, dict[str, Any]]] = [
    ("sgd_", 1, SGD),
    ("sgd_", 1, {**SGD, "nesterov": False, "first": True, "maximize": True}),
    ("adam_", 2, {**ADAM, "decoupled_weight_decay": False}),
    ("adam_", 3, {**ADAM, "decoupled_weight_decay": True, "maximize": True}),
    ("adagrad_", 1, {**SHARED, "lr_decay": 0.1, "eps": 1e-10, "step": 3}),
    ("adadelta_", 2, {**SHARED, "rho": 0.9, "eps": 1e-6, "step": 1}),
    ("rmsprop_", 3, RMSPROP),
]
updates = pytest.mark.parametrize(
    ("kernel", "moments", "static"), UPDATES, ids=[f"{u[0]}{i}" for i, u in enumerate(UPDATES)]
)


def tensors(kernel: str, moments: int, count: int, dtype: Any) -> list[list[np.ndarray]]:
    """Parameters, gradients, moments: small ones of unlike sizes, some empty."""
    sizes = [(3 * i) % 11 for i in range(count)]
    rng = np.random.default_rng(count)
    lists = [[rng.uniform(0.1, 2, n).astype(dtype) for n in sizes] for _ in range(2 + moments)]
    if kernel == "rmsprop_":
        lists[3] = [0.01 * mean for mean in lists[3]]
    return lists + [[]] * ({"adam_": 3, "rmsprop_": 3}.get(kernel, moments) - moments)


@dtypes
@updates
def test_more_tensors_than_one_launch_takes(
    kernel: str, moments: int, static: Any, dtype: Any, gpu: Backend, launched: list[str]
) -> None:
    lists = tensors(kernel, moments, 201, dtype)
    full = sum(p.size > 0 for p in lists[0])
    close(*both(gpu, kernel, *lists, **static))
    assert launched == [kernel.rstrip("_")] * -(-full // 80)


@updates
def test_numbers_from_memory_give_the_same_bits(
    kernel: str, moments: int, static: Any, gpu: Backend, request: pytest.FixtureRequest
) -> None:
    lists = tensors(kernel, moments, 20, F32)

    def left() -> bytes:
        given = [moved(gpu, x) for x in lists]
        getattr(gpu, kernel)(*given, **static)
        return b"".join(x.tobytes() for arrays in fetched(gpu, given) for x in arrays)

    by_value = left()
    hosted = request.getfixturevalue("hosted")
    assert left() == by_value
    assert len(hosted) == 1


def test_the_host_may_set_momentum_to_0(gpu: Backend) -> None:
    """Which lists there are is fixed, momentum is not: buffers are then as they were."""
    lists = tensors("sgd_", 1, 9, F32)
    found, expected = both(gpu, "sgd_", *lists, **{**SGD, "momentum": 0.0})
    close(found, expected)
    np.testing.assert_array_equal(np.concatenate(found[2]), np.concatenate(lists[2]))


def test_an_infinite_parameter_without_decay(gpu: Backend) -> None:
    p = np.array([np.inf, 1, -np.inf], np.float32)
    lists = [p], [draws(3)], [np.zeros(3, np.float32)]
    static = {**SGD, "weight_decay": 0.0}
    found, expected = both(gpu, "sgd_", *map(list, lists), **static)
    close(found, expected)
    assert np.isinf(found[0][0]).tolist() == [True, False, True]


@dtypes
def test_denormal_moments_become_0(dtype: Any, gpu: Backend) -> None:
    tiny = np.finfo(dtype).tiny
    moment = np.array([tiny, 2 * tiny, tiny / 2, -tiny / 2], dtype)
    lists = [[np.ones(4, dtype)], [np.zeros(4, dtype)], [moment]]
    (_, _, (left,)), (_, _, (expected,)) = both(
        gpu, "sgd_", *lists, **{**SGD, "weight_decay": 0.0, "momentum": 0.75}
    )
    np.testing.assert_array_equal(left, expected)
    assert (left != 0).tolist() == [False, True, False, False]


def test_gradients_that_are_expanded_and_parameters_with_gaps(gpu: Backend) -> None:
    wide = gpu.asarray(np.arange(12, dtype=np.float32))
    p, g = wide[::2], gpu.expand(gpu.asarray(np.float32([2])), shape=(6,))
    static = {**SGD, "momentum": 0.0, "weight_decay": 0.0}
    gpu.sgd_([p], [g], [], **static)
    left = gpu.to_numpy(wide)
    np.testing.assert_allclose(left[::2], np.arange(0, 12, 2) - 0.2, rtol=1e-6)
    np.testing.assert_array_equal(left[1::2], np.arange(1, 12, 2))


# ---- elements

SPECIAL = np.array([np.nan, np.inf, -np.inf, 0.0, -0.0, 1.0, -1.0, 2.5, -2.5, 0.1, 1e30, -1e-40])


@dtypes
@pytest.mark.parametrize("kernel", ["floor_divide", "remainder", "maximum", "minimum"])
def test_two_special_numbers(kernel: str, dtype: Any, gpu: Backend) -> None:
    with np.errstate(all="ignore"):
        x, y = (np.ascontiguousarray(v, dtype) for v in np.meshgrid(SPECIAL, SPECIAL))
        found, expected = both(gpu, kernel, x, y)
        np.testing.assert_array_equal(found, expected)
        if kernel in ("floor_divide", "remainder"):
            np.testing.assert_array_equal(np.signbit(found), np.signbit(expected))
        np.testing.assert_array_equal(*both(gpu, kernel, x[0], 0.3))
        np.testing.assert_array_equal(*both(gpu, kernel, x.T[::2], y.T[::2]))
        np.testing.assert_array_equal(*both(gpu, kernel, x[0], y[:, :1]))  # broadcast
        np.testing.assert_array_equal(*both(gpu, kernel, x[0, 0], y))


@pytest.mark.parametrize("dtype", [np.int64, np.int32, np.uint8])
def test_powers_of_integers(dtype: Any, gpu: Backend) -> None:
    x = np.arange(-3, 9).astype(dtype).reshape(3, 4)
    y = np.arange(12).reshape(4, 3).T.astype(dtype)
    for pair in ((x, y), (x, 3), (2, y), (x[:, :0], 2), (x[:, :1], y[0]), (x[0], y.T[..., None])):
        found, expected = both(gpu, "pow", *pair)
        assert found.dtype == expected.dtype
        np.testing.assert_array_equal(found, expected)


def test_negative_powers_of_integers_are_told_later(gpu: Backend) -> None:
    x = gpu.asarray(np.array([1, -1]))
    gpu.pow(2, x)
    with pytest.raises(ValueError, match=r"^pow: integers to negative powers are no integers"):
        gpu.to_numpy(x)
    gpu.to_numpy(x)


@dtypes
def test_clamp_keeps_what_is_no_number(dtype: Any, gpu: Backend) -> None:
    x, low = (np.ascontiguousarray(v, dtype) for v in np.meshgrid(SPECIAL, SPECIAL))
    for bounds in [(low, None), (None, low), (low, 0.5), (1.0, -1.0), (low, x.T.copy())]:
        np.testing.assert_array_equal(*both(gpu, "clamp", x, *bounds))


@dtypes
@pytest.mark.parametrize("approximate", ["none", "tanh"])
def test_gelu_far_out(approximate: str, dtype: Any, gpu: Backend) -> None:
    x = np.concatenate([np.linspace(-45, 45, 2001), SPECIAL]).astype(dtype)
    with np.errstate(all="ignore"):
        found, expected = both(gpu, "gelu", x, approximate=approximate)
        np.testing.assert_array_equal(np.isnan(found), np.isnan(expected))
        if approximate == "none":  # the tail keeps its digits
            tail = (x > -12) & (x < -3)
            np.testing.assert_allclose(found[tail], expected[tail], 600 * np.finfo(dtype).eps)
        close(found[:2001], expected[:2001])
        slopes = both(gpu, "gelu_grad", np.ones_like(x), x, approximate=approximate)
        np.testing.assert_array_equal(*map(np.isnan, slopes))
        close(slopes[0][:2001], slopes[1][:2001])


@dtypes
def test_erf_and_sigmoid_at_the_ends(dtype: Any, gpu: Backend) -> None:
    x = np.concatenate([np.linspace(-800, 800, 999), np.linspace(-7, 7, 999), SPECIAL])
    with np.errstate(all="ignore"):
        for kernel in ("erf", "sigmoid", "tanh", "relu"):
            close(*both(gpu, kernel, x.astype(dtype)))


@dtypes
@pytest.mark.parametrize("act", [None, "relu", "sigmoid", "tanh"])
@pytest.mark.parametrize("biased", [True, False])
def test_bias_and_act_are_the_separate_kernels(
    biased: bool, act: Any, dtype: Any, gpu: Backend
) -> None:
    """What ``linear`` ends with has the bits of the kernels that it stands for."""
    launching = cuda_on_cpu.module("cupy_kernels.launching")
    y, bias = gpu.asarray(draws(33, 7, dtype=dtype)), gpu.asarray(draws(7, dtype=dtype, seed=1))
    plain = gpu.add(y, gpu.expand(bias, shape=(33, 7))) if biased else gpu.copy(y)
    expected = plain if act is None else getattr(gpu, act)(plain)
    given = y, bias if biased else None, y.size, 7, launching.act_of(act)
    gpu._each("pointwise", "bias_act", y.size, y.dtype, *given)  # type: ignore[attr-defined]
    assert gpu.to_numpy(y).tobytes() == gpu.to_numpy(expected).tobytes()


@pytest.mark.parametrize("kernel", ["where", "floor_divide", "remainder"])
def test_out_that_overlaps_an_input_in_part(kernel: str, gpu: Backend) -> None:
    """x[1:] = where(c, x[:-1], x[1:]) reads x as it was before."""
    x = np.abs(draws(1000)) + 1
    first = (draws(999) > 0,) if kernel == "where" else ()
    t = gpu.asarray(x.copy())
    getattr(gpu, kernel)(*map(gpu.asarray, first), t[:-1], t[1:], out=t[1:])
    expected = getattr(np, kernel)(*first, x[:-1], x[1:])
    np.testing.assert_array_equal(gpu.to_numpy(t)[1:], expected)


def test_lerp_and_copy_of_what_overlaps(gpu: Backend) -> None:
    x = draws(1000)
    t = gpu.asarray(x.copy())
    gpu.lerp_(t[1:], t[:-1], weight=0.25)
    np.testing.assert_allclose(gpu.to_numpy(t)[1:], x[1:] + 0.25 * (x[:-1] - x[1:]), rtol=1e-5)
    for to, source in ((slice(1, None), slice(None, -1)), (slice(None, -1), slice(1, None))):
        t = gpu.asarray(x.copy())
        gpu.copy_(t[to], t[source])
        np.testing.assert_array_equal(gpu.to_numpy(t)[to], x[source])


def test_lerp_by_a_number_in_memory(gpu: Backend, hosted: list[str]) -> None:
    close(*both(gpu, "lerp_", draws(50), draws(50, seed=1), weight=0.3))
    assert len(hosted) == 1
