"""Making tensors: sizes, dtypes, backends, the numbers themselves, and what bad input gets."""

from __future__ import annotations

import math
import pickle
from collections import Counter
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from strict_backend import StrictBackend, transfers

import tinygrad_mnist as tg
from tinygrad_mnist.checks import DTYPES
from tinygrad_mnist.kernels import Backend

Make = Callable[..., tg.Tensor]

OF_SIZES: dict[str, Make] = {
    "zeros": tg.zeros,
    "ones": tg.ones,
    "empty": tg.empty,
    "rand": tg.rand,
    "randn": tg.randn,
    "full": lambda *size, **kw: tg.full(size if len(size) > 1 else size[0], 3, **kw),
    "randint": lambda *size, **kw: tg.randint(0, 2, size if len(size) > 1 else size[0], **kw),
}
LIKE: dict[str, Make] = {
    "zeros_like": tg.zeros_like,
    "ones_like": tg.ones_like,
    "empty_like": tg.empty_like,
    "full_like": lambda x, **kw: tg.full_like(x, 3, **kw),
    "rand_like": tg.rand_like,
    "randn_like": tg.randn_like,
}
OF_NUMBERS: dict[str, Make] = {
    "arange": lambda **kw: tg.arange(5, **kw),
    "linspace": lambda **kw: tg.linspace(0, 4, 5, **kw),
    "eye": lambda **kw: tg.eye(3, **kw),
    "randperm": lambda **kw: tg.randperm(5, **kw),
}
EVERY = {
    **{n: lambda f=f, **kw: f(2, 3, **kw) for n, f in OF_SIZES.items()},
    **OF_NUMBERS,
}


def each(makers: dict[str, Make]) -> Any:
    return pytest.mark.parametrize("make", makers.values(), ids=makers.keys())


@pytest.fixture(autouse=True)
def current(backend: Backend):
    with tg.use_backend(backend):
        yield


# ---- what all have in common


@each(EVERY)
@pytest.mark.parametrize(
    ("dtype", "name"),
    [("float32", "float32"), (np.float64, "float64"), (tg.float64, "float64"), (float, "float32")],
)
def test_keywords(make: Make, dtype: Any, name: str, backend: Backend) -> None:
    made = make(dtype=dtype, requires_grad=True)
    assert made.dtype.name == name
    assert (made.requires_grad, made.is_leaf, made.backend) == (True, True, backend)
    assert make(dtype=dtype, backend="numpy").backend.name == "numpy"
    assert not make(dtype=dtype).requires_grad
    with tg.no_grad():
        assert make(dtype=dtype, requires_grad=True).requires_grad


@each({n: f for n, f in EVERY.items() if n not in ("rand", "randn")})
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_every_dtype(make: Make, dtype: np.dtype) -> None:
    if make is EVERY["arange"] and dtype == np.bool_:
        with pytest.raises(TypeError, match="arange: expected a dtype of integers or floats"):
            make(dtype=dtype)
        return
    made = make(dtype=dtype)
    assert made.dtype == dtype
    if dtype.kind != "f":
        with pytest.raises(RuntimeError, match="only float tensors can require grad"):
            make(dtype=dtype, requires_grad=True)


@each(EVERY)
def test_unsupported_dtypes(make: Make) -> None:
    for dtype in ("complex64", "float16", "uint32", "text"):
        with pytest.raises(TypeError, match="expected one of bool, uint8"):
            make(dtype=dtype)


@each(OF_SIZES)
def test_sizes(make: Make) -> None:
    assert make(2, 3).shape == make((2, 3)).shape == make([2, 3]).shape == (2, 3)
    assert make(np.int64(4)).shape == make(4).shape == (4,)
    assert make(()).shape == ()
    assert make(0, 5).shape == (0, 5)


@each(OF_SIZES)
def test_sizes_that_are_none(make: Make) -> None:
    for size in ((-1,), (2, -3)):
        with pytest.raises(ValueError, match=r"\w+: sizes must not be negative"):
            make(*size)
    for size in ((2.0,), (2, "3"), (True,), ([None],)):
        with pytest.raises(TypeError, match=r"\w+: a shape is made of integers"):
            make(*size)


@each(LIKE)
def test_like_keeps_shape_dtype_and_backend(make: Make, backend: Backend) -> None:
    x = tg.zeros(2, 3, dtype="float64", requires_grad=True)
    with tg.use_backend("numpy"):
        made = make(x)
        assert (made.shape, made.dtype, made.backend) == (x.shape, x.dtype, backend)
        assert not made.requires_grad
        other = make(x.T[::2], dtype="float32", requires_grad=True, backend="numpy")
    assert (other.shape, other.dtype, other.backend.name) == ((2, 2), np.float32, "numpy")
    assert other.requires_grad
    with pytest.raises(TypeError, match=r"\w+_like: expected a tensor as the first argument"):
        make(np.zeros(3))


def test_like_integers() -> None:
    x = tg.zeros(2, dtype="int8")
    assert (tg.ones_like(x).dtype, tg.ones_like(x).tolist()) == (np.int8, [1, 1])
    assert tg.full_like(x, fill_value=5).tolist() == [5, 5]
    for draw in (tg.rand_like, tg.randn_like):
        with pytest.raises(TypeError, match="expected a float dtype, got int8"):
            draw(x)
        assert draw(x, dtype=float).dtype == np.float32


@pytest.mark.parametrize(
    ("attempt", "error", "says"),
    [
        (lambda x: tg.full_like(x, 300), OverflowError, "full_like: found 300, int8 holds"),
        (lambda x: tg.full_like(x, "1"), TypeError, "full_like: fill_value must be a number"),
        (lambda x: tg.zeros_like(x, dtype="int3"), TypeError, "zeros_like: 'int3' is no dtype"),
        (lambda x: tg.rand_like(x), TypeError, "rand_like: expected a float dtype, got int8"),
        (lambda x: tg.randn_like(x), TypeError, "randn_like: expected a float dtype, got int8"),
        (lambda x: tg.ones(2, dtype="int3"), TypeError, "ones: 'int3' is no dtype"),
    ],
)
def test_errors_begin_with_the_function(
    attempt: Callable[[Any], Any], error: type[Exception], says: str
) -> None:
    with pytest.raises(error, match=f"^{says}"):
        attempt(tg.zeros(2, dtype="int8"))


def test_nothing_crosses_to_the_host(strict: StrictBackend) -> None:
    makers = [f for name, f in EVERY.items() if name != "randperm"]
    with tg.use_backend(strict), transfers(strict) as crossed:
        x = tg.ones(2, 3)
        for make in makers:
            make(dtype="float64")
        for make in LIKE.values():
            make(x)
        x.uniform_(0, 1).normal_().exp_().add_(x).clamp_(0, 1).pow_(2)
        x += x.T.clone().T
        x.copy_(3)
    assert crossed == []


# ---- the numbers


def test_of_one_number() -> None:
    assert tg.zeros(2).tolist() == [0, 0]
    assert tg.ones(2, dtype="bool").tolist() == [True, True]
    assert tg.empty(3, 2).shape == (3, 2)
    for value, dtype in (
        (2, "int64"),
        (2.5, "float32"),
        (True, "bool"),
        (np.float64(1), "float64"),
    ):
        found = tg.full((2,), value)
        assert (found.dtype, found.tolist()) == (dtype, [value, value])
    assert tg.full((), math.inf).item() == math.inf
    assert tg.full((1,), 2.5, dtype="int64").item() == 2  # as in PyTorch: towards 0
    with pytest.raises(OverflowError, match="full: found 300"):
        tg.full((2,), 300, dtype="uint8")
    for value in ("1", None, 1j, [1]):
        with pytest.raises(TypeError, match="full: fill_value must be a number"):
            tg.full((2,), value)


@pytest.mark.parametrize(
    ("args", "expected"),
    [
        ((0,), []),
        ((3,), [0, 1, 2]),
        ((2, 8, 3), [2, 5]),
        ((2, 9, 3), [2, 5, 8]),
        ((5, 2, -1), [5, 4, 3]),
        ((5, 5), []),
        ((-3, 0), [-3, -2, -1]),
        ((2**53, 2**53 + 2), [2**53, 2**53 + 1]),
    ],
)
def test_arange_of_integers(args: tuple[int, ...], expected: list[int]) -> None:
    found = tg.arange(*args)
    assert (found.dtype, found.tolist()) == (np.int64, expected)


def test_arange_of_floats() -> None:
    assert tg.arange(0, 1, 0.25).dtype == np.float32
    assert tg.arange(0, 1, 0.25).tolist() == [0, 0.25, 0.5, 0.75]
    assert tg.arange(1, 0, -0.5).tolist() == [1, 0.5]
    assert tg.arange(1, 1.3, 0.1, dtype="float64").shape == (4,)  # ⌈(1.3 − 1)/0.1⌉, as in PyTorch
    assert tg.arange(2.5).tolist() == [0, 1, 2]
    assert tg.arange(3, dtype="float64").tolist() == [0, 1, 2]
    assert tg.arange(0.5, 4.9, dtype="int64").tolist() == [0, 1, 2, 3]
    x = tg.arange(-1, 1, 0.1, dtype="float64")
    np.testing.assert_array_equal(x.numpy(), -1 + 0.1 * np.arange(20))


def test_arange_by_name() -> None:
    assert tg.arange(end=3).tolist() == [0, 1, 2]
    assert tg.arange(start=1, end=7, step=2).tolist() == [1, 3, 5]
    assert tg.arange(1, step=2, end=4).tolist() == [1, 3]


@pytest.mark.parametrize(
    ("args", "error", "says"),
    [
        ((5, 2), ValueError, "a step of 1 does not lead from 5 to 2"),
        ((2, 5, -1), ValueError, "a step of -1 does not lead from 2 to 5"),
        ((0, 5, 0), ValueError, "a step of 0 does not lead from 0 to 5"),
        ((0.0, 1.0, 0.0), ValueError, "a step of 0.0"),
        ((math.inf,), ValueError, "end must be finite, got inf"),
        ((math.nan, 2), ValueError, "start must be finite, got nan"),
        ((), TypeError, "end must be a number, got None"),
        (("3",), TypeError, "end must be a number, got '3'"),
        ((0, 1, [1]), TypeError, "step must be a number"),
    ],
)
def test_arange_of_nonsense(args: Any, error: type[Exception], says: str) -> None:
    with pytest.raises(error, match=f"arange: .*{says}"):
        tg.arange(*args)


def test_arange_that_the_dtype_does_not_hold() -> None:
    assert tg.arange(250, 256, dtype="uint8").tolist() == [250, 251, 252, 253, 254, 255]
    for args in ((257,), (-1, 3)):
        with pytest.raises(OverflowError, match=r"arange: found .* uint8 holds 0 to 255"):
            tg.arange(*args, dtype="uint8")


def test_linspace() -> None:
    for start, end, steps in ((0, 1, 5), (3, -10, 7), (1e9, 1e9 + 1, 1000), (-0.1, 0.3, 2)):
        x = tg.linspace(start, end, steps, dtype="float64").numpy()
        np.testing.assert_allclose(x, np.linspace(start, end, steps), rtol=1e-15, atol=1e-15)
        assert (x[0], x[-1]) == (start, end)
    assert tg.linspace(0, 1, 3).dtype == np.float32
    assert tg.linspace(start=2, end=1, steps=1).tolist() == [2]
    assert tg.linspace(0, 1, 0).shape == (0,)
    assert tg.linspace(0, 10, 4, dtype="int64").tolist() == [0, 3, 6, 10]
    assert tg.linspace(-1, 1, 4, dtype="int64").tolist() == [-1, 0, 0, 1]
    for steps, error in ((-1, ValueError), (2.5, TypeError)):
        with pytest.raises(error, match="linspace: "):
            tg.linspace(0, 1, steps)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="linspace: end must be finite"):
        tg.linspace(0, math.inf, 3)
    with pytest.raises(OverflowError, match="linspace: found 0 to 300"):
        tg.linspace(0, 300, 3, dtype="uint8")


def test_eye() -> None:
    for n, m in ((3, 3), (2, 4), (4, 2), (0, 3), (1, 1)):
        np.testing.assert_array_equal(tg.eye(n, m).numpy(), np.eye(n, m, dtype=np.float32))
    assert tg.eye(n=2).tolist() == [[1, 0], [0, 1]]
    assert tg.eye(2, dtype=bool).tolist() == [[True, False], [False, True]]
    for n, error in ((-1, ValueError), (2.0, TypeError)):
        with pytest.raises(error, match="eye: "):
            tg.eye(n)  # type: ignore[arg-type]


# ---- at random


def test_draws_are_the_same_on_every_backend(usable: list[Backend]) -> None:
    """To the bit for what is uniform, to rounding for what a logarithm goes into."""
    drawn = []
    for backend in usable:
        tg.manual_seed(3)
        with tg.use_backend(backend):
            found = [tg.rand(9), tg.randint(-5, 1000, (7, 3)), tg.randint(2**32, (9,)), tg.randn(9)]
            found += [tg.randperm(9), tg.zeros(9).uniform_(1, 2)]
        drawn.append([x.numpy() for x in found])
    first, *others = drawn
    for other in others:
        for i, (x, y) in enumerate(zip(first, other, strict=True)):
            (np.testing.assert_allclose if i == 3 else np.testing.assert_array_equal)(x, y, 1e-5)


def test_the_seed_fixes_the_draws() -> None:
    for draw in (
        lambda: tg.randint(1000, (20,)),
        lambda: tg.randperm(20),
        lambda: tg.rand_like(tg.zeros(20)),
        lambda: tg.randn(20),
    ):
        tg.manual_seed(11)
        first, second = draw().tolist(), draw().tolist()
        tg.manual_seed(11)
        assert draw().tolist() == first
        assert first != second


def test_normal_numbers_are_normal() -> None:
    x = tg.randn(100_000, dtype="float64").numpy()
    assert np.isfinite(x).all()
    assert abs(x.mean()) < 0.02
    assert abs(x.std() - 1) < 0.02
    within = [(np.abs(x) < k).mean() for k in (1, 2, 3)]
    np.testing.assert_allclose(within, [0.6827, 0.9545, 0.9973], atol=0.006)


def test_random_numbers_are_floats() -> None:
    for draw, name in ((tg.rand, "rand"), (tg.randn, "randn")):
        with pytest.raises(TypeError, match=f"{name}: expected a float dtype, got int64"):
            draw(3, dtype="int64")


def test_randint_as_pytorch_calls_it() -> None:
    calls = [
        tg.randint(10, (3,)),
        tg.randint(0, 10, (3,)),
        tg.randint(0, 10, size=(3,)),
        tg.randint(high=10, size=(3,)),
        tg.randint(10, size=[3]),
        tg.randint(low=0, high=10, size=3),
    ]
    for found in calls:
        assert (found.dtype, found.shape) == (np.int64, (3,))
        assert ((found >= 0) & (found < 10)).all()
    assert tg.randint(5, 6, ()).item() == 5
    assert tg.randint(0, 2, (4,), dtype="bool").dtype == np.bool_


def test_randint_reaches_every_integer_alike() -> None:
    x = tg.randint(-3, 4, (70_000,)).numpy()
    counts = Counter(x.tolist())
    assert set(counts) == set(range(-3, 4))
    assert max(abs(c - 10_000) for c in counts.values()) < 500  # five standard deviations


def test_randint_of_a_wide_range_uses_all_its_bits() -> None:
    x = tg.randint(-(2**31), 2**31, (50_000,)).numpy()
    assert abs(x.mean()) < 2**31 * 0.02
    assert ((x & 1).mean(), ((x >> 8) & 1).mean()) == pytest.approx((0.5, 0.5), abs=0.02)
    assert len(np.unique(x)) > 49_990
    assert (x < -(2**31) + 2**26).any()
    assert (x >= 2**31 - 2**26).any()
    high = tg.randint(2**62, 2**62 + 3, (50,)).tolist()
    assert set(high) == {2**62, 2**62 + 1, 2**62 + 2}


@pytest.mark.parametrize(
    ("args", "error", "says"),
    [
        ((5, 5, (3,)), ValueError, "expected 0 < high - low"),
        ((5, 2, (3,)), ValueError, r"got 5 and 2"),
        ((0, (3,)), ValueError, "got 0 and 0"),
        ((0, 2**32 + 1, (3,)), ValueError, r"≤ 2\*\*32"),
        ((10, 3), TypeError, "expected a size"),
        ((0.5, 3, (3,)), TypeError, "must be an integer, got 0.5"),
        ((0, 3.0, (3,)), TypeError, "must be an integer, got 3.0"),
        ((0, 3, (-1,)), ValueError, "must not be negative"),
        ((0, 3, (1.5,)), TypeError, "made of integers"),
    ],
)
def test_randint_of_nonsense(args: Any, error: type[Exception], says: str) -> None:
    with pytest.raises(error, match=f"randint: .*{says}"):
        tg.randint(*args)


def test_randint_that_the_dtype_does_not_hold() -> None:
    assert tg.randint(256, (3,), dtype="uint8").dtype == np.uint8
    for args in ((257, (3,)), (-1, 3, (3,))):
        with pytest.raises(OverflowError, match=r"randint: found .* uint8 holds 0 to 255"):
            tg.randint(*args, dtype="uint8")


def test_randperm() -> None:
    for n in (0, 1, 2, 100):
        found = tg.randperm(n)
        assert (found.dtype, sorted(found.tolist())) == (np.int64, list(range(n)))
    assert tg.randperm(256, dtype="uint8").dtype == np.uint8
    first = Counter(tuple(tg.randperm(3).tolist()) for _ in range(600))
    assert len(first) == 6
    assert min(first.values()) > 50
    with pytest.raises(OverflowError, match="randperm: found 0 to 256"):
        tg.randperm(257, dtype="uint8")
    for n, error in ((-1, ValueError), (2.5, TypeError)):
        with pytest.raises(error, match="randperm: "):
            tg.randperm(n)  # type: ignore[arg-type]


# ---- of data


@pytest.mark.parametrize(
    ("data", "dtype", "values"),
    [
        (3, "int64", 3),
        (2.5, "float32", 2.5),
        (True, "bool", True),
        ([1, 2.5], "float32", [1, 2.5]),
        ([True, 2], "int64", [1, 2]),
        ([[1, 2], (3, 4)], "int64", [[1, 2], [3, 4]]),
        (range(3), "int64", [0, 1, 2]),
        ([], "float32", []),
        ([[], []], "float32", [[], []]),
        (np.float64(1.5), "float64", 1.5),
        (np.int8(3), "int8", 3),
        (np.array([1, 2], np.uint8), "uint8", [1, 2]),
        ([np.float64(1), 2.5], "float64", [1, 2.5]),
        ([np.float32(1), 2.5], "float32", [1, 2.5]),
        ([np.zeros(2), [1, 2]], "float64", [[0, 0], [1, 2]]),
        ([np.uint8(1), np.uint8(2)], "uint8", [1, 2]),
        ([np.uint8(1), 300], "int64", [1, 300]),
        ([np.bool_(True), False], "bool", [True, False]),
    ],
)
def test_dtypes_of_data(data: Any, dtype: str, values: Any, backend: Backend) -> None:
    found = tg.tensor(data)
    assert (found.dtype, found.tolist(), found.backend) == (dtype, values, backend)
    assert tg.as_tensor(data).dtype == dtype


def test_lists_of_tensors() -> None:
    one, two = tg.tensor(1.0), tg.tensor(2)
    assert (found := tg.tensor([one, 2.5])).dtype == np.float32
    assert found.tolist() == [1, 2.5]
    assert tg.tensor([two, two]).dtype == np.int64
    assert tg.tensor([two, 0.5]).tolist() == [2, 0.5]
    assert tg.tensor([[one.double(), one], [3, 4]]).dtype == np.float64
    assert tg.tensor([tg.ones(2), tg.zeros(2)]).tolist() == [[1, 1], [0, 0]]
    with pytest.raises(ValueError, match="ragged"):
        tg.tensor([tg.ones(2), tg.ones(3)])
    with pytest.raises(RuntimeError, match=r"use x\.detach\(\)"):
        tg.tensor([one.requires_grad_(), 2.0])


@pytest.mark.parametrize(
    ("data", "error", "says"),
    [
        ([[1], [2, 3]], ValueError, "ragged"),
        ("text", TypeError, "expected numbers, got str"),
        (["1", 2], TypeError, "expected numbers"),
        (None, TypeError, "expected numbers, got NoneType"),
        ([1, None], TypeError, "expected numbers"),
        ({1: 2}, TypeError, "expected numbers, got dict"),
        (1 + 2j, TypeError, "expected numbers, got complex"),
        (np.ones(2, np.float16), TypeError, "float16 is not supported"),
        (np.ones(2, np.uint32), TypeError, "uint32 is not supported"),
    ],
)
def test_data_that_is_none(data: Any, error: type[Exception], says: str) -> None:
    for make in (tg.tensor, tg.as_tensor):
        with pytest.raises(error, match=says):
            make(data)


def test_tensor_copies_and_its_kin_share(backend: Backend) -> None:
    array = np.zeros(3, np.float32)
    shares = issubclass(backend.array_type, np.ndarray)
    apart, near, nearer = tg.tensor(array), tg.as_tensor(array), tg.from_numpy(array)
    array[0] = 5
    assert [x.tolist()[0] for x in (apart, near, nearer)] == [0, 5 * shares, 5 * shares]
    x = tg.ones(2, requires_grad=True)
    twin = tg.tensor(x)
    twin.zero_()
    assert (x.tolist(), twin.requires_grad) == ([1, 1], False)
    assert tg.as_tensor(x) is x
    other = tg.tensor(x, dtype="int64", backend="numpy")
    assert (other.dtype, other.backend.name) == (np.int64, "numpy")
    assert tg.tensor([1, 2], dtype=float, requires_grad=True).requires_grad
    with pytest.raises(TypeError, match="from_numpy: expected a NumPy array, got list"):
        tg.from_numpy([1.0])  # type: ignore[arg-type]
    with pytest.raises(RuntimeError, match="only float tensors can require grad"):
        tg.tensor([1, 2], requires_grad=True)


@pytest.mark.parametrize("make", [tg.tensor, tg.as_tensor, tg.from_numpy])
@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.int64, np.bool_])
def test_an_unpickled_array_has_numpys_own_dtype(make: Any, dtype: type) -> None:
    """Kernels compare dtypes by identity, and pickle makes one that only equals NumPy's."""
    array = pickle.loads(pickle.dumps(np.ones((2, 3), dtype)))
    assert make(array).array.dtype is np.dtype(dtype)
    assert make(array[:, ::2]).tolist() == array[:, ::2].tolist()
