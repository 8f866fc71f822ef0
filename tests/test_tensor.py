"""Tensor as people script with it: creation, dtypes, copies, in-place writes, hooks, checks."""

import copy
import pickle
import threading
import warnings

import numpy as np
import pytest

import tinygrad_mnist as tg
from tinygrad_mnist import dispatch, random
from tinygrad_mnist.autograd import Function
from tinygrad_mnist.testing import assert_close, gradcheck, gradgradcheck

BACKENDS = ["numpy", "numba"]
T = tg.tensor


@pytest.fixture(params=BACKENDS, autouse=True)
def backend(request: pytest.FixtureRequest):
    with tg.use_backend(request.param):
        yield request.param


# ---- creation and dtypes


def test_creation_takes_requires_grad() -> None:
    for made in (
        tg.zeros(2, requires_grad=True),
        tg.ones(2, requires_grad=True),
        tg.full((2,), 3.0, requires_grad=True),
        tg.rand(2, requires_grad=True),
        tg.randn(2, requires_grad=True),
    ):
        assert made.requires_grad
        assert made.is_leaf


def test_arange_is_of_integers_unless_a_bound_is_not() -> None:
    assert tg.arange(0).dtype == np.int64
    assert tg.arange(2, 8, 3).tolist() == [2, 5]
    assert tg.arange(0, 1, 0.25).dtype == np.float32


@pytest.mark.parametrize(
    ("data", "dtype"), [([2**63], None), (300, "uint8"), ([-1], "uint8"), ([2**40], "int32")]
)
def test_integers_that_do_not_fit_are_refused(data: object, dtype: str | None) -> None:
    with pytest.raises(OverflowError, match=r"found .* holds"):
        T(data, dtype=dtype)


def test_random_numbers_are_floats() -> None:
    with pytest.raises(TypeError, match="rand: expected a float dtype, got int64"):
        tg.rand(3, dtype="int64")


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
    with pytest.raises(ValueError, match="leading dims of shapes"):
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


def test_pickle(backend: str) -> None:
    x = pickle.loads(pickle.dumps(T([1.0, 2.0], requires_grad=True)))
    assert x.tolist() == [1.0, 2.0]
    assert x.requires_grad
    assert x.backend.name == backend


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


def test_no_write_mixes_backends(backend: str) -> None:
    other = tg.ones(2, backend=BACKENDS[1 - BACKENDS.index(backend)])
    for write in (lambda: tg.ones(2).add_(other), lambda: tg.ones(2).lerp_(other, 0.5)):
        with pytest.raises(RuntimeError, match="one operand is on the backend"):
            write()
    with pytest.raises(RuntimeError, match="the gradient is on the backend"):
        (tg.ones(2, requires_grad=True) + 1).backward(other)


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
