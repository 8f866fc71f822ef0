"""Tensor as people script with it: creation, dtypes, copies, in-place writes, hooks, checks."""

import copy
import pickle
import threading
import warnings

import numpy as np
import pytest
from strict_backend import StrictArray

import tinygrad_mnist as tg
from tinygrad_mnist import backend as backends
from tinygrad_mnist import dispatch, random
from tinygrad_mnist.autograd.function import Function
from tinygrad_mnist.checks import DTYPES
from tinygrad_mnist.kernels import Backend
from tinygrad_mnist.testing import assert_close, gradcheck, gradgradcheck

T = tg.tensor


@pytest.fixture(autouse=True)
def current(backend: Backend, monkeypatch: pytest.MonkeyPatch):
    """Each backend in turn is the current one, and known by its name."""
    monkeypatch.setitem(backends._loaded, backend.name, backend)
    with tg.use_backend(backend):
        yield


# ---- creation and dtypes


@pytest.mark.parametrize(
    ("data", "dtype"), [([2**63], None), (300, "uint8"), ([-1], "uint8"), ([2**40], "int32")]
)
def test_integers_that_do_not_fit_are_refused(data: object, dtype: str | None) -> None:
    with pytest.raises(OverflowError, match=r"found .* holds"):
        T(data, dtype=dtype)


@pytest.mark.parametrize(
    ("x", "y", "dtype"),
    [
        (np.float32([1, 2]), np.float64(1), "float32"),  # 0-d of the same kind does not widen
        (np.float32([1, 2]), np.float64([1, 2]), "float64"),
        (np.float32(1), np.float64([1, 2]), "float64"),
        (np.int32([1, 2]), np.int64(1), "int32"),
        (np.int64([1, 2]), np.float32(1), "float32"),  # the higher kind wins
        (np.bool_([True]), np.uint8([1]), "uint8"),
    ],
)
def test_the_table_of_dtypes(x: np.ndarray, y: np.ndarray, dtype: str) -> None:
    a, b = T(np.asarray(x)), T(np.asarray(y))
    assert (a + b).dtype == dtype
    assert (b + a).dtype == dtype


def test_a_tensor_of_an_integer_is_an_index() -> None:
    assert ["a", "b", "c"][T([0.1, 0.7, 0.2]).argmax()] == "b"
    assert list(range(T(2))) == [0, 1]
    with pytest.raises(TypeError, match="only an integer tensor"):
        range(T(2.0))


def test_the_truth_of_several_elements_is_refused() -> None:
    with pytest.raises(ValueError, match="ambiguous"):
        bool(tg.zeros(2))


def test_matmul_takes_arrays_on_either_side() -> None:
    x, y = np.ones((2, 3), np.float32), np.ones((3, 2), np.float32)
    assert (T(x) @ y).tolist() == (x @ T(y)).tolist() == [[3.0, 3.0], [3.0, 3.0]]
    with pytest.raises(ValueError, match=r"shapes \(2,\) and \(4,\), of \(2, 3, 3\) and"):
        tg.ones(2, 3, 3) @ tg.ones(4, 3, 3)


# ---- numerics


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_sigmoid_keeps_its_digits_far_from_zero(dtype: str) -> None:
    x = np.array([-80.0, -40.0, -19.9, -1e-3, 0.0, 19.9, 80.0, 800.0])
    y = T(x, dtype=dtype).sigmoid()
    with np.errstate(over="ignore"):
        assert_close(y.double(), 1 / (1 + np.exp(-x)), rtol=1e-5 if dtype == "float32" else 1e-14)


def test_the_log_of_a_small_sigmoid_and_its_gradient() -> None:
    x = T([-20.0], requires_grad=True)
    y = x.sigmoid().log()
    y.sum().backward()
    assert abs(y.item() + 20) < 1e-4
    assert x.grad is not None
    assert abs(x.grad.item() - 1) < 1e-5


def test_sigmoid_of_infinities_without_a_warning() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        low, high = T([-np.inf, np.inf]).sigmoid().tolist()
    assert (low, high) == (0, 1)


# ---- copies


def test_deepcopy_has_memory_and_gradient_of_its_own() -> None:
    x = T([1.0, 2.0], requires_grad=True)
    (x * x).sum().backward()
    twin = copy.deepcopy(x)
    with tg.no_grad():
        twin.mul_(5)
        twin.grad.mul_(5)
    assert x.tolist() == [1.0, 2.0]
    assert x.grad is not None
    assert x.grad.tolist() == [2.0, 4.0]
    assert (twin + x).tolist() == [6.0, 12.0]  # of one backend
    with pytest.raises(RuntimeError, match="detach"):
        copy.deepcopy(x * 2)


PICKLES = pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_copies_keep_dtype_and_values_of_a_view(dtype: np.dtype) -> None:
    """Of every dtype, transposed, with gaps and expanded; what comes back can be written."""
    x = T(np.arange(12).reshape(3, 4) % 2, dtype=dtype)
    for view in (x, x.T, x[:, ::2], x[1], x[1, 1], x[:0], x[:1].expand(3, 4)):
        for twin in (copy.deepcopy(view), pickle.loads(pickle.dumps(view)), copy.copy(view)):
            assert (twin.dtype, twin.backend) == (dtype, x.backend)
            np.testing.assert_array_equal(twin.numpy(), view.numpy())
        copy.deepcopy(view).fill_(1)
        pickle.loads(pickle.dumps(view)).fill_(1)
    np.testing.assert_array_equal(x.numpy(), (np.arange(12).reshape(3, 4) % 2).astype(dtype))


@PICKLES
def test_pickle(protocol: int, backend: Backend) -> None:
    x = T([1.0, 2.0], requires_grad=True)
    (x * x).sum().backward()
    back = pickle.loads(pickle.dumps(x, protocol))
    assert back.tolist() == [1.0, 2.0]
    assert back.requires_grad
    assert back.is_leaf
    assert back.grad is None  # as in PyTorch: a gradient is not part of what is saved
    assert back.backend is backend
    with tg.no_grad():
        back.mul_(2)
    assert (x.tolist(), back.tolist()) == ([1.0, 2.0], [2.0, 4.0])
    with pytest.raises(RuntimeError, match="pickling a tensor that an op made: detach"):
        pickle.dumps(x * 2, protocol)


def test_deepcopy_of_shared_tensors_shares() -> None:
    x = T([1.0])
    a, b = copy.deepcopy([x, x])
    assert a is b
    assert a is not x


# ---- in place


@pytest.mark.parametrize(
    "write",
    [
        lambda x, y: x.copy_(y),
        lambda x, y: x.add_(y),
        lambda x, y: x.__setitem__(slice(None), y),
        lambda x, y: x.lerp_(y, 0.5),
    ],
)
def test_writes_that_do_not_fit_name_both_shapes(write) -> None:
    with pytest.raises(ValueError, match=r"\(2,\) does not broadcast to \(3,\)"):
        write(tg.zeros(3), tg.zeros(2))


@pytest.mark.parametrize("write", [lambda x: x.fill_(1), lambda x: x.add_(1), lambda x: x.zero_()])
def test_writes_to_an_expanded_tensor_are_refused(write) -> None:
    with pytest.raises(RuntimeError, match=r"expanded tensor .* clone\(\) it first"):
        write(tg.zeros(1).expand(3))


def test_writes_to_an_empty_tensor_do_nothing() -> None:
    assert tg.zeros(0, 5).fill_(1).shape == (0, 5)


def test_setitem_takes_numbers_arrays_and_tensors() -> None:
    x = tg.zeros(2, 3)
    x[0, 1] = 5
    x[1] = np.arange(3)
    x[:, 2] = tg.ones(2)
    assert x.tolist() == [[0.0, 5.0, 1.0], [0.0, 1.0, 1.0]]
    with pytest.raises(RuntimeError, match="in place where gradients are recorded"):
        x[0] = tg.ones(3, requires_grad=True)


def test_setitem_drops_leading_dims_of_size_1_and_says_what_does_not_fit() -> None:
    x = tg.zeros(2, 3)
    x[0] = tg.ones(1, 1, 3)
    assert x.tolist() == [[1.0, 1.0, 1.0], [0.0, 0.0, 0.0]]
    with pytest.raises(ValueError, match=r"x\[i\] = v: shape \(2,\)"):
        x[0] = tg.ones(2)


def test_a_wider_float_does_not_widen_what_it_is_added_to() -> None:
    x = T([1.0, 2.0])
    x += np.ones(2)
    assert x.tolist() == [2.0, 3.0]
    assert x.dtype == np.float32
    with pytest.raises(TypeError, match="the result has dtype float32, the tensor int64"):
        x.long().add_(0.5)


@pytest.mark.parametrize(
    "value", [lambda: T([7.0]), lambda: tg.ones(3, dtype="float64"), lambda: 3]
)
def test_data_takes_what_has_its_shape_and_dtype(value) -> None:
    x = tg.ones(3, requires_grad=True)
    with pytest.raises(ValueError, match=r"data: expected a tensor float32\(3,\), got"):
        x.data = value()
    x.data = T([1.0, 2.0, 3.0])
    assert x.tolist() == [1.0, 2.0, 3.0]


def test_gradients_accumulate_in_the_tensor_that_is_there() -> None:
    x = tg.ones(3, requires_grad=True)
    x.grad = buffer = tg.zeros(3)
    (x * x).sum().backward()
    (x * x).sum().backward()
    assert x.grad is buffer
    assert buffer.tolist() == [4.0, 4.0, 4.0]
    x.grad = tg.zeros(2, 3)
    with pytest.raises(ValueError, match=r"already has: found a gradient of shape \(2, 3\)"):
        x.sum().backward()


def test_no_write_mixes_backends(backend: Backend) -> None:
    other = tg.ones(2, backend="numpy" if backend.name != "numpy" else "numba")
    for write in (lambda: tg.ones(2).add_(other), lambda: tg.ones(2).lerp_(other, 0.5)):
        with pytest.raises(RuntimeError, match="found an operand on the backend"):
            write()
    with pytest.raises(RuntimeError, match="found a gradient on the backend"):
        (tg.ones(2, requires_grad=True) + 1).backward(other)


ROW = [[0.5, 2.0, 1.5]]
WRITES = [
    ("add", (0.5,)),
    ("sub", (ROW,)),
    ("mul", (ROW,)),
    ("div", (ROW,)),
    ("floor_divide", (ROW,)),
    ("remainder", (0.75,)),
    ("pow", (2,)),
    ("pow", (ROW,)),
    ("clamp", (0.5, 1.5)),
    ("clamp", (None, ROW)),
    ("clamp_min", (0.5,)),
    ("clamp_max", (1.5,)),
    ("masked_fill", ([[True, False, True]], 9.0)),
]
NAMES = (
    "neg abs square reciprocal exp log sqrt rsqrt sin cos tanh sigmoid relu floor ceil round trunc"
)
WRITES += [(name, ()) for name in NAMES.split()]


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(("name", "args"), WRITES, ids=lambda p: p if isinstance(p, str) else "")
def test_in_place_forms_write_what_the_op_returns(name: str, args: tuple, dtype: str) -> None:
    """In a view of other memory, of which every view counts the write."""
    rows = np.linspace(0.1, 2.6, 12).reshape(2, 6)
    for values in (rows, rows - 1) if name not in ("log", "sqrt", "rsqrt", "pow") else (rows,):
        base = T(values, dtype=dtype)
        given = [
            T(a, dtype=dtype if a is ROW else None) if isinstance(a, list) else a for a in args
        ]
        x = base[:, ::2]
        expected, others = getattr(x.clone(), name)(*given), base[:, 1::2].clone()
        before = base.version[0]
        assert getattr(x, f"{name}_")(*given) is x
        assert (x.dtype, base.version[0]) == (np.dtype(dtype), before + 1)
        assert_close(base[:, ::2], expected, rtol=1e-6, atol=1e-7)
        np.testing.assert_array_equal(base[:, 1::2].numpy(), others.numpy())


def test_augmented_assignment_writes_in_place() -> None:
    x = alias = T([7.0, 8.0, 9.0])
    x += 1
    x -= T([0.0, 1.0, 2.0])
    x *= np.float32([2.0, 2.0, 2.0])
    x /= 4
    x **= 2
    x //= 3
    x %= 4
    assert x is alias
    assert x.tolist() == [1.0, 1.0, 1.0]
    y = alias = T([6, 5, 4])
    y += 1
    y -= 1
    y *= 3
    y //= 2
    y %= 8
    y **= 2
    y &= 21
    y |= T([2, 2, 2])
    y ^= 1
    assert y is alias
    assert (y.dtype, y.tolist()) == (np.int64, [2, 18, 7])
    flags = T([True, False])
    flags |= True
    flags &= T([True, False])
    flags ^= True
    assert (flags.dtype, flags.tolist()) == (np.bool_, [False, True])


def test_in_place_forms_of_integers() -> None:
    for name, args in (("neg", ()), ("abs", ()), ("square", ()), ("relu", ()), ("floor", ())):
        x = T([-2, 0, 3])
        expected = getattr(x, name)(*args).tolist()
        assert getattr(x, f"{name}_")(*args).tolist() == expected
        assert x.dtype == np.int64


@pytest.mark.parametrize("dtype", ["bool", "uint8", "int64"])
@pytest.mark.parametrize(
    "write",
    [
        lambda x: x.exp_(),
        lambda x: x.div_(2),
        lambda x: x.add_(0.5),
        lambda x: x.add_(tg.ones(3)),
        lambda x: x.clamp_(0.5),
        lambda x: x.reciprocal_(),
        lambda x: x.sigmoid_(),
        lambda x: x.uniform_(),
        lambda x: x.normal_(),
    ],
)
def test_in_place_forms_keep_the_dtype(write, dtype: str) -> None:
    x = T([1, 1, 1], dtype=dtype)
    with pytest.raises(TypeError, match=r"\w+_: (the result has dtype float32|expected a float)"):
        write(x)
    assert (x.tolist(), x.version[0]) == ([1, 1, 1], 0)


FORMS = [
    lambda x, y: x.pow_(y),
    lambda x, y: x.remainder_(y),
    lambda x, y: x.clamp_(max=y),
    lambda x, y: x.clamp_min_(y),
    lambda x, y: x.masked_fill_(y > 0, 1),
    lambda x, y: x.__ifloordiv__(y),
]


@pytest.mark.parametrize("write", FORMS)
def test_in_place_forms_keep_the_shape(write) -> None:
    for shape in ((2, 3), (4,), (1, 1, 3)):
        x = tg.ones(3)
        with pytest.raises(ValueError, match=r"\(2, 3\)|\(4,\)|\(1, 1, 3\)"):
            write(x, tg.ones(*shape))
        assert (x.tolist(), x.version[0]) == ([1, 1, 1], 0)


@pytest.mark.parametrize("write", [lambda x, y: x.exp_(), lambda x, y: x.normal_(), *FORMS])
def test_in_place_forms_are_refused_where_gradients_are_recorded(write) -> None:
    x, y = tg.ones(3, requires_grad=True), tg.ones(3)
    with pytest.raises(RuntimeError, match="in place where gradients are recorded"):
        write(x, y)
    with tg.no_grad():
        write(x, y)
    assert x.version[0] == 1
    assert x.is_leaf


def test_a_write_between_forward_and_backward_is_seen() -> None:
    x = T([1.0, 2.0], requires_grad=True)
    y = x.exp()
    y.detach().sqrt_()
    with pytest.raises(RuntimeError, match="changed in place"):
        y.sum().backward()


def test_in_place_with_another_view_of_the_same_memory() -> None:
    """Is as if the operand had been read before the first element was written."""
    x = T(np.arange(1, 7.0))
    x[1:].mul_(x[:-1])
    assert x.tolist() == [1, 2, 6, 12, 20, 30]
    x = T([[1.0, 2.0], [3.0, 4.0]])
    x.clamp_min_(x.T)
    assert x.tolist() == [[1, 3], [3, 4]]


def test_read_only_memory_is_not_written() -> None:
    array = np.ones(3)
    array.flags.writeable = False
    x = tg.from_numpy(array, backend="numpy")
    for write in (lambda: x.exp_(), lambda: x.fill_(1), lambda: x.__setitem__(0, 1)):
        with pytest.raises(RuntimeError, match=r"read-only memory; clone\(\) it first"):
            write()
    assert x.clone().neg_().tolist() == [-1, -1, -1]


def test_draws_in_place() -> None:
    x = tg.zeros(20_000, 2, dtype="float64")
    assert x[:, 0].uniform_(-1, 3) is not x
    assert x[:, 1].eq(0).all()
    assert (x[:, 0] >= -1).all()
    assert (x[:, 0] < 3).all()
    assert abs(x[:, 0].mean().item() - 1) < 0.05
    x.normal_(2, 0.5)
    assert abs(x.mean().item() - 2) < 0.02
    assert abs(((x - 2).square().mean() ** 0.5).item() - 0.5) < 0.02
    tg.manual_seed(5)
    first = x.uniform_().tolist()
    tg.manual_seed(5)
    assert tg.rand(20_000, 2, dtype="float64").tolist() == first
    for draw, words in ((lambda: x.uniform_(2, 1), "a ≤ b"), (lambda: x.normal_(0, -1), "std ≥ 0")):
        with pytest.raises(ValueError, match=words):
            draw()


def test_fill_takes_numbers_and_0_d_tensors() -> None:
    x = tg.zeros(2)
    assert x.fill_(T(3)).tolist() == [3, 3]
    assert x.fill_(np.float64(2)).tolist() == [2, 2]
    for value in (tg.ones(2), "1", None, [1.0]):
        with pytest.raises(TypeError, match="fill_: expected a number or a 0-d tensor"):
            x.fill_(value)


def test_copy_casts_and_broadcasts() -> None:
    x = tg.zeros(2, 2, dtype="int64")
    assert x.copy_(T([1.5, -2.5])).tolist() == [[1, -2], [1, -2]]
    assert x.copy_(np.array([3, 4])).tolist() == [[3, 4], [3, 4]]
    assert x.copy_(7).tolist() == [[7, 7], [7, 7]]
    assert x.copy_(tg.ones(2, backend="numpy")).tolist() == [[1, 1], [1, 1]]
    with pytest.raises(TypeError, match="copy_: expected a tensor, a NumPy array or a number"):
        x.copy_([1, 2])


# ---- other libraries


def of_host(backend: Backend) -> bool:
    return issubclass(backend.array_type, np.ndarray)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_numpy_shares_memory(dtype: np.dtype, backend: Backend) -> None:
    x = T([[1, 0], [1, 1]], dtype=dtype)
    for view in (x, x.T, x[1], x[1, 1], x[:0]):
        for array in (np.asarray(view), view.numpy(), np.array(view, copy=None)):
            assert array.dtype == dtype
            assert array.shape == view.shape
            shares = np.shares_memory(array, view.array) if of_host(backend) else False
            assert shares == (of_host(backend) and view.numel() > 0)


def test_arrays_of_tensors_as_numpy_2_has_them(backend: Backend) -> None:
    x = T([1.0, 2.5])
    apart = np.array(x, copy=True)
    apart[0] = 9
    assert np.asarray(x, dtype="int64").tolist() == [1, 2]
    assert x.tolist() == [1.0, 2.5]
    if of_host(backend):
        np.asarray(x, copy=False)[0] = 7
        assert x.tolist() == [7.0, 2.5]
        with pytest.raises(ValueError, match="Unable to avoid copy"):
            np.asarray(x, dtype="float64", copy=False)
    else:
        with pytest.raises(ValueError, match="is copied to the host"):
            np.asarray(x, copy=False)


def test_no_array_of_what_requires_grad() -> None:
    x = tg.ones(2, requires_grad=True)
    for convert in (np.asarray, np.array, lambda x: x.numpy(), lambda x: T([x])):
        with pytest.raises(RuntimeError, match=r"requires grad .* use x\.detach\(\)\.numpy\(\)"):
            convert(x)
    assert np.asarray(x.detach()).tolist() == [1, 1]


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_dlpack_both_ways_without_a_copy(dtype: np.dtype, backend: Backend) -> None:
    if not of_host(backend):
        pytest.skip("not on the host")
    array = np.array([[1, 0, 1], [0, 1, 1]], dtype)
    for view in (array, array.T, array[:, ::2], array[1], array[1:, 1]):
        x = tg.from_dlpack(view)
        assert (x.dtype, x.backend, x.tolist()) == (dtype, backend, view.tolist())
        back = np.from_dlpack(x)
        assert np.shares_memory(back, array)
        assert (back.dtype, back.strides) == (dtype, view.strides)
        back[...] = 1
        assert x.tolist() == np.ones_like(view).tolist()
        array[...] = [[1, 0, 1], [0, 1, 1]]


def test_dlpack_with_torch(backend: Backend) -> None:
    torch = pytest.importorskip("torch")
    if not of_host(backend):
        pytest.skip("not on the host")
    for name in ("bool", "uint8", "int8", "int16", "int32", "int64", "float32", "float64"):
        y = torch.tensor([[1, 0], [1, 1]], dtype=getattr(torch, name)).T
        x = tg.from_dlpack(y)
        assert (x.dtype, x.tolist()) == (name, y.tolist())
        x[0, 0] = 0
        assert not y[0, 0]
        again = torch.from_dlpack(x)
        assert (again.data_ptr(), again.dtype) == (y.data_ptr(), y.dtype)
    with pytest.raises(BufferError, match="detach"):
        tg.from_dlpack(torch.ones(2, requires_grad=True))
    for name in ("bfloat16", "float16", "complex64"):
        with pytest.raises(TypeError, match=r"Unsupported dtype|is not supported"):
            tg.from_dlpack(torch.ones(2, dtype=getattr(torch, name)))


def test_dlpack_says_what_it_cannot(backend: Backend) -> None:
    x = tg.ones(2, requires_grad=True)
    with pytest.raises(BufferError, match=r"requires grad: detach\(\) it first"):
        np.from_dlpack(x)
    with pytest.raises(TypeError, match="from_dlpack: expected what has __dlpack__, got list"):
        tg.from_dlpack([1.0])
    if not of_host(backend):
        with pytest.raises(BufferError, match=r"has no DLPack: use x\.cpu\(\)"):
            np.from_dlpack(x.detach())
        assert tg.from_dlpack(np.ones(2)).backend is backend  # copied to the device
        return
    array = np.ones(3)
    array.flags.writeable = False
    for found in (tg.from_dlpack(array), tg.ones(1).expand(3)):
        assert not np.from_dlpack(found).flags.writeable
        with pytest.raises(BufferError, match="readonly"):
            found.__dlpack__()  # to who knows nothing of memory that is not for writing
    with pytest.raises(RuntimeError, match="read-only memory"):
        tg.from_dlpack(array).add_(1)


# ---- elsewhere


def test_to_takes_dtypes_tensors_and_backends(backend: Backend) -> None:
    x = T([1.0, 2.0])
    assert x.to(None) is x
    assert x.to("float32") is x.to(x) is x.to(backend) is x.to(dtype=float) is x
    for dtype in ("int64", np.int64, int, np.dtype("int64"), T([1])):
        assert x.to(dtype).dtype == np.int64
    there = x.to("numpy", "float64")
    assert (there.backend.name, there.dtype) == ("numpy", np.float64)
    assert x.to(there).dtype == np.float64
    assert x.to(there).backend is there.backend
    both = x.to(device="numpy", dtype=tg.int8)
    assert (both.backend.name, both.dtype) == ("numpy", np.int8)
    kinds = [x.float(), x.double(), x.long(), x.int(), x.bool()]
    assert [k.dtype.name for k in kinds] == ["float32", "float64", "int64", "int32", "bool"]
    with pytest.raises(TypeError, match="3 is no dtype"):
        x.to(3)
    with pytest.raises(tg.BackendError, match="if no dtype, is 'flaot32'"):
        x.to("flaot32")


def test_the_gradient_comes_back_from_elsewhere(backend: Backend) -> None:
    x = tg.ones(2, requires_grad=True)
    y = x.to("numpy" if backend.name != "numpy" else "numba").double() * 3
    y.sum().backward()
    assert x.grad is not None
    assert (x.grad.backend, x.grad.dtype, x.grad.tolist()) == (backend, np.float32, [3.0, 3.0])


def test_cpu_is_the_host(backend: Backend) -> None:
    x = T([1.0, 2.0])
    for there in (x.cpu(), x.to("cpu"), x.to("cpu", "float64"), x.to(device="cpu")):
        assert there.device == "cpu"
        assert there.backend.name == (backend.name if of_host(backend) else "numba")
        assert there.tolist() == [1.0, 2.0]
    assert (x.cpu() is x) == of_host(backend)
    with tg.use_backend("numpy"):
        assert x.cpu().backend.name == (backend.name if of_host(backend) else "numpy")


def test_cuda_is_cupy(usable: list[Backend], monkeypatch: pytest.MonkeyPatch) -> None:
    class Named(type(backends.resolve("numpy"))):
        name = "cupy:1"
        array_type = StrictArray

    x = T([1.0])
    if "cupy" not in [backend.name for backend in usable]:
        for move in (x.cuda, lambda: x.to("cuda"), lambda: x.to("cuda", "int64")):
            with pytest.raises(tg.BackendError, match="the device 'cuda' is 'cupy'"):
                move()
        for move in (lambda: x.cuda(1), lambda: x.to("cuda:1"), lambda: x.cuda("cuda:1")):
            with pytest.raises(tg.BackendError, match="the device 'cuda:1' is 'cupy:1'"):
                move()
    monkeypatch.setitem(backends._loaded, "cupy:1", Named())
    assert x.to("cuda:1").device == "cuda:1"


# ---- display


def test_formatting(backend: Backend) -> None:
    assert f"{T(3.14159):.3f} {T([[2]]):03d}" == "3.142 002"
    about = f"shape=(2,), dtype=float32, backend={backend.name}"
    assert f"{T([1.0, 2.0])}" == repr(T([1.0, 2.0])) == f"tensor([1., 2.], {about})"
    with pytest.raises(ValueError, match=r"expected one element, got a tensor of shape \(2,\)"):
        f"{T([1.0, 2.0]):.3f}"


def test_a_tensor_prints_its_shape_dtype_backend_and_grad_fn() -> None:
    x = tg.tensor([1.0, np.nan], requires_grad=True, backend="numpy")
    about = "shape=(2,), dtype=float32, backend=numpy"
    assert repr(x) == f"tensor([ 1., nan], {about}, requires_grad=True)"
    assert repr(x * 2) == f"tensor([ 2., nan], {about}, grad_fn=<multiply>)"
    shown = {
        "tensor(2.5, shape=(), dtype=float64, backend=numpy)": T(2.5, dtype="float64"),
        "tensor([], shape=(0, 3), dtype=float32, backend=numpy)": tg.zeros(0, 3),
        "tensor([[ True, False]], shape=(1, 2), dtype=bool, backend=numpy)": T([[True, False]]),
        "tensor([[[[[[0, 1], ...]]]]], shape=(2, 2, 2, 2, 2, 2), dtype=int64, backend=numpy)": (
            tg.arange(64).reshape((2,) * 6)
        ),
    }
    assert [repr(x.to("numpy")) for x in shown.values()] == [*shown]


@pytest.mark.parametrize(
    ("shape", "lines"),
    [((60000, 784), 8), ((3, 784), 4), ((100,), 15), ((100, 1), 7), ((20, 1, 1), 9),
     ((64, 3, 28, 28), 24), ((2, 8, 3, 28, 28), 2), ((3,) * 8, 2)],
)  # fmt: skip
def test_a_large_tensor_prints_short(shape: tuple[int, ...], lines: int) -> None:
    x = tg.full((1,), -1234.5678, dtype="float64", requires_grad=True).expand(*shape)
    text = repr(x)
    assert len(text.splitlines()) == lines, text
    assert max(map(len, text.splitlines())) <= 100, text
    assert f"shape={shape}, dtype=float64, backend=" in text
    assert text.endswith("grad_fn=<expand>)")


def test_numpys_own_print_options_do_not_show() -> None:
    x = T([[0.123456789, 1e-9, np.nan], [1.0, -np.inf, 123456.0]])
    before = repr(x)
    with np.printoptions(
        formatter={"float": lambda value: "x"}, precision=1, suppress=True, linewidth=20,
        sign="+", nanstr="?", infstr="!", floatmode="fixed", edgeitems=1, threshold=1,
    ):  # fmt: skip
        assert repr(x) == before
    with np.printoptions(legacy="1.13"):
        assert repr(x) == before


def test_sizes_and_values() -> None:
    x = tg.zeros(2, 3)
    assert x.shape == x.size() == (2, 3)
    assert (x.size(-1), x.dim(), x.ndim, x.numel()) == (3, 2, 2, 6)
    assert (len(x), [row.tolist() for row in x]) == (2, [[0, 0, 0]] * 2)
    assert (T(5).item(), T(5).tolist(), T([[True]]).item()) == (5, 5, True)
    assert (int(T(2.5)), float(T(2))) == (2, 2.0)
    assert x.is_floating_point()
    assert not x.long().is_floating_point()
    with pytest.raises(IndexError, match="size: dim 2 is out of range"):
        x.size(2)
    for ask in (len, iter):
        with pytest.raises(TypeError, match="a 0-d tensor"):
            ask(T(1.0))
    for ask in (lambda x: x.item(), float, int):
        with pytest.raises(ValueError, match="expected one element"):
            ask(x)


# ---- hooks


@pytest.mark.parametrize("interior", [False, True])
def test_a_hook_may_remove_itself(interior: bool) -> None:
    x = T([1.0], requires_grad=True)
    y = x * 2 if interior else x
    seen = []

    def once(dY: tg.Tensor) -> None:
        seen.append(dY.item())
        handle.remove()

    handle = y.register_hook(once)
    for _ in range(2):
        (y * 3).sum().backward(retain_graph=True)
    assert seen == [3.0]


def test_what_a_hook_returned_or_kept_stays_its_own() -> None:
    returned, kept = T([5.0]), []
    x, z = T([1.0], requires_grad=True), T([1.0], requires_grad=True)
    x.register_hook(lambda dX: returned)
    y = z + 0
    y.register_hook(kept.append)
    (x * 3 + y).sum().backward()
    with tg.no_grad():
        x.grad.zero_()
        z.grad.zero_()
    assert returned.tolist() == [5.0]
    assert kept[0].tolist() == [1.0]


@pytest.mark.parametrize(
    ("returned", "error"),
    [
        (lambda: tg.ones(3), "shape"),
        (lambda: T(1.0), "shape"),
        (lambda: tg.ones(2, dtype="float64"), "float64, expected float32"),
        (lambda: 3.0, "found float, expected a tensor"),
    ],
)
@pytest.mark.parametrize("interior", [False, True])
def test_a_hooks_gradient_must_fit(returned, error: str, interior: bool) -> None:
    x = tg.ones(2, requires_grad=True)
    y = x * 2 if interior else x
    y.register_hook(lambda dY: returned())
    with pytest.raises((ValueError, TypeError), match=error):
        y.sum().backward()


def test_retain_grad_twice_counts_once_and_sees_what_hooks_made() -> None:
    y = T([1.0], requires_grad=True) * 2
    y.retain_grad()
    y.retain_grad()
    y.register_hook(lambda dY: dY * 10)
    (y * 3).sum().backward()
    assert y.grad is not None
    assert y.grad.tolist() == [30.0]


# ---- custom functions


class Constant(Function):
    """Returns whatever ``gradient`` is."""

    gradient: object

    @staticmethod
    def forward(ctx, x):
        return x * 1

    @staticmethod
    def backward(ctx, dY):
        return Constant.gradient


def test_a_gradient_kept_by_the_users_code_is_not_handed_out() -> None:
    Constant.gradient = T([4.0])
    x = T([1.0], requires_grad=True)
    Constant.apply(x).sum().backward()
    with tg.no_grad():
        x.grad.zero_()
    assert Constant.gradient.tolist() == [4.0]


@pytest.mark.parametrize(
    "gradient", [lambda: tg.ones(3), lambda: T(1.0), lambda: tg.ones(2, dtype="float64")]
)
def test_a_functions_gradient_must_fit(gradient) -> None:
    Constant.gradient = gradient()
    x = tg.ones(2, requires_grad=True)
    with pytest.raises((ValueError, TypeError), match=r"Constant\.backward for argument 0"):
        Constant.apply(x).sum().backward()


def test_a_functions_gradient_of_the_broadcast_shape_is_summed() -> None:
    Constant.gradient = tg.ones(3, 2)
    x = tg.ones(2, requires_grad=True)
    Constant.apply(x).sum().backward()
    assert x.grad is not None
    assert x.grad.tolist() == [3.0, 3.0]


# ---- the checks check


class CutBackward(Function):
    """x², whose backward leaves the graph: right once, wrong to differentiate again."""

    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return x * x

    @staticmethod
    def backward(ctx, dY):
        (x,) = ctx.saved_tensors
        return tg.from_numpy(2 * x.detach().numpy() * dY.detach().numpy(), backend=x.backend)


def test_gradcheck_sees_what_left_the_graph() -> None:
    x = tg.randn(3, dtype="float64", requires_grad=True)
    with pytest.raises(AssertionError, match=r"backward says 0\.0"):
        gradcheck(lambda x: x.detach() * 2, [x])
    assert gradcheck(lambda x: tg.ones(3, dtype="float64"), [x])
    with pytest.raises(ValueError, match="no input requires grad"):
        gradcheck(lambda x: x * 2, [x.detach()])
    assert gradcheck(CutBackward.apply, [x])
    with pytest.raises(AssertionError):
        gradgradcheck(CutBackward.apply, [x])
    with pytest.raises(ValueError, match="do not require grad"):
        gradgradcheck(lambda x: x.detach(), [x])


# ---- modes, streams, observers


def test_no_grad_decorates_functions_and_generators() -> None:
    @tg.no_grad()
    def plain() -> bool:
        return tg.is_grad_enabled()

    @tg.no_grad
    def bare() -> bool:
        return tg.is_grad_enabled()

    @tg.no_grad()
    def steps():
        yield tg.is_grad_enabled()
        yield tg.is_grad_enabled()

    assert not plain()
    assert not bare()
    for enabled in steps():
        assert not enabled
        assert tg.is_grad_enabled()


def test_the_stream_of_a_seed_is_fixed() -> None:
    tg.manual_seed(42)
    keys = [random.next_key().fn() for _ in range(2)]
    assert keys == [18036798128018490698, 8238092213399105094]
    tg.manual_seed(42)
    assert tg.rand(3).tolist() == [0.8938432931900024, 0.17529559135437012, 0.7567393183708191]


def test_observers_are_of_their_thread_only() -> None:
    class Counter(dispatch.Observer):
        calls = 0

        def after(self, call: dispatch.Call, result: object) -> None:
            self.calls += 1

    counter = Counter()
    with dispatch.observe(counter):
        thread = threading.Thread(target=lambda: tg.ones(2, backend="numpy") + 1)
        thread.start()
        thread.join()
        assert counter.calls == 0
        tg.ones(2)
    assert counter.calls == 1


def test_one_use_backend_serves_several_threads() -> None:
    scope = tg.use_backend("numba")
    names = []

    def inside() -> None:
        with scope:
            names.append(tg.zeros(1).backend.name)

    with scope:
        threads = [threading.Thread(target=inside) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        inside()
    assert names == ["numba"] * 5


def test_a_device_is_chosen_as_in_pytorch(usable: list[Backend]) -> None:
    assert tg.cuda.is_available() == ("cupy" in [backend.name for backend in usable])
    x = tg.ones(2).to(tg.device("cpu"))
    assert x.device == tg.device("cpu")


# ---- comparisons that give a bool


def test_allclose_is_isclose_of_all(backend: Backend) -> None:
    x = tg.tensor([1.0, 2.0], backend=backend)
    assert x.allclose(x + 1e-6) is True
    assert tg.allclose(x, x + 1e-3) is False
    assert tg.allclose(x, x + 1e-3, rtol=0.0, atol=1e-2) is True
    assert tg.allclose(x[:0], x[:0]) is True
    nan = x * float("nan")
    assert (tg.allclose(nan, nan), tg.allclose(nan, nan, equal_nan=True)) == (False, True)
    assert tg.allclose(x.long(), x.double()) is True
    assert tg.allclose(x, 1.0) is False


@pytest.mark.parametrize("settings", [{"rtol": 0.5}, {"atol": 0.25}, {"rtol": 0, "atol": 0}])
@pytest.mark.parametrize("equal_nan", [False, True])
def test_isclose_is_numpys(settings: dict[str, float], equal_nan: bool, backend: Backend) -> None:
    values = np.array([0.0, 1.5, -2.5, 1.25, 1e200, np.inf, -np.inf, np.nan])
    x, y = tg.tensor(values[:, None], backend=backend), tg.tensor(values, backend=backend)
    with np.errstate(all="ignore"):
        expected = np.isclose(values[:, None], values, **settings, equal_nan=equal_nan)
    found = x.isclose(y, **settings, equal_nan=equal_nan)
    assert found.tolist() == expected.tolist()
    for value, column in zip(values, expected.T, strict=True):
        with_number = x[:, 0].isclose(float(value), **settings, equal_nan=equal_nan)
        assert with_number.tolist() == column.tolist()


def test_equal_asks_for_the_shape_too(backend: Backend) -> None:
    x = tg.tensor([[1.0, 2.0]], backend=backend)
    assert tg.equal(x, x.clone()) is True
    assert x.equal(x.long()) is True
    assert x.equal(x[0]) is False
    assert x.equal(x + 1) is False
    assert tg.equal(x * float("nan"), x * float("nan")) is False
    assert tg.equal(x[:0], x[:0]) is True


def test_a_difference_that_overflows_is_not_close(backend: Backend) -> None:
    x = tg.tensor([1e308], dtype=tg.float64, backend=backend)
    with np.errstate(over="ignore"):
        assert x.isclose(-x, rtol=1.9).tolist() == [False]
