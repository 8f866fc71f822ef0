"""The graph: backward, grad, modes, versions, hooks, custom functions, and memory given back."""

from __future__ import annotations

import gc
import threading
import tracemalloc
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest
from strict_backend import StrictBackend

import tinygrad_mnist as tg
from tinygrad_mnist.autograd.backward import grad
from tinygrad_mnist.autograd.function import Function
from tinygrad_mnist.autograd.graph import Node
from tinygrad_mnist.autograd.record import OpNode
from tinygrad_mnist.dispatch import Call, Observer, observe
from tinygrad_mnist.kernels import Backend
from tinygrad_mnist.nn import functional as F
from tinygrad_mnist.ops import networks, pointwise, products
from tinygrad_mnist.tensor import Tensor
from tinygrad_mnist.testing import gradcheck, gradgradcheck


def leaf(*values: float, backend: Any = None) -> Tensor:
    array = np.array(values, np.float64)
    return tg.tensor(array, requires_grad=True, backend=backend)


@pytest.fixture(autouse=True)
def on_numpy() -> Iterator[None]:
    """The graph is the same everywhere; only tests that take ``backend`` look at others."""
    with tg.use_backend("numpy"):
        yield


def scalar(value: float) -> Tensor:
    return tg.tensor(np.array(value), requires_grad=True)


def values(x: Tensor | None) -> Any:
    assert x is not None
    return x.tolist()


class Names(Observer):
    """The kernels that ran, in order."""

    def __init__(self) -> None:
        self.names: list[str] = []

    def before(self, call: Call) -> None:
        self.names.append(call.kernel)


# ---- backward


def test_backward_fills_the_leaves(backend: Backend) -> None:
    x, w = leaf(1, 2, backend=backend), leaf(3, 4, backend=backend)
    y = x * w
    y.sum().backward()
    assert (values(x.grad), values(w.grad)) == ([3, 4], [1, 2])
    assert y.grad is None
    assert x.grad is not None
    assert not x.grad.requires_grad


def test_gradient_argument() -> None:
    x = leaf(1, 2)
    (x * x).backward(tg.tensor(np.array([10.0, 1.0])))
    assert values(x.grad) == [20, 4]


def test_gradient_argument_must_fit() -> None:
    y = leaf(1, 2) * 2
    with pytest.raises(ValueError, match=r"shape \(3,\).*\(2,\)"):
        y.backward(tg.tensor(np.ones(3)))
    with pytest.raises(TypeError, match="float32"):
        y.backward(tg.ones(2))
    with pytest.raises(TypeError, match="found float, expected a tensor"):
        y.backward(1.0)  # type: ignore[arg-type]


def test_non_scalar_needs_a_gradient() -> None:
    with pytest.raises(RuntimeError, match=r"shape \(2,\).*sum"):
        (leaf(1, 2) * 2).backward()


def test_one_element_of_any_shape_is_a_scalar() -> None:
    x = leaf(3)
    (x * x).reshape(1, 1, 1).backward()
    assert values(x.grad) == [6]


def test_outside_the_graph() -> None:
    with pytest.raises(RuntimeError, match="does not require grad"):
        tg.tensor([1.0]).sum().backward()
    with pytest.raises(RuntimeError, match="does not require grad"):
        leaf(1).detach().backward()


def test_backward_of_a_leaf() -> None:
    x = leaf(5)
    x.backward()
    assert values(x.grad) == [1]


def test_gradients_accumulate() -> None:
    x = leaf(1, 2)
    for _ in range(3):
        (x * 2).sum().backward()
    assert values(x.grad) == [6, 6]


def test_a_value_used_many_times() -> None:
    x = leaf(3)
    y = x * x
    (y * y + y + x).sum().backward()
    assert values(x.grad) == [4 * 27 + 2 * 3 + 1]


def test_integers_take_no_gradient() -> None:
    x = leaf(1, 2)
    y = x * tg.tensor([1, 2])
    y.sum().backward()
    assert values(x.grad) == [1, 2]
    assert not x.argmax().requires_grad
    assert not (x > 1).requires_grad
    assert not x.long().requires_grad


def test_gradients_keep_the_dtype() -> None:
    x = tg.tensor([1.0, 2.0], requires_grad=True)
    y = leaf(3, 4)
    (x * y).sum().backward()
    assert x.grad is not None
    assert y.grad is not None
    assert (x.grad.dtype, y.grad.dtype) == (np.float32, np.float64)


# ---- grad


def test_grad_writes_nothing() -> None:
    x, y = leaf(2), leaf(5)
    dX, dY = grad((x * y).sum(), [x, y])
    assert (values(dX), values(dY)) == ([5], [2])
    assert x.grad is None
    assert y.grad is None


def test_grad_of_several_outputs() -> None:
    x = leaf(2, 3)
    seeds = [tg.tensor(np.array([1.0, 10.0])), tg.tensor(np.array([1.0, 1.0]))]
    (dX,) = grad([x * x, x * 3], x, seeds)
    assert values(dX) == [7, 63]
    with pytest.raises(ValueError, match="1 grad_outputs for 2 outputs"):
        grad([x * x, x], x, seeds[:1])


def test_grad_of_unused_inputs() -> None:
    x, y = leaf(2), leaf(5)
    with pytest.raises(RuntimeError, match=r"input 1 was not used.*allow_unused"):
        grad((x * x).sum(), [x, y])
    dX, dY = grad((x * x).sum(), [x, y], allow_unused=True)
    assert values(dX) == [4]
    assert dY is None
    with pytest.raises(RuntimeError, match="input 0 does not require grad"):
        grad((x * x).sum(), [tg.tensor([1.0])])


def test_grad_of_an_output_by_itself_and_twice() -> None:
    x = leaf(2)
    y = x * 3
    assert [values(g) for g in grad(y, [y, x, x])] == [[1], [3], [3]]
    assert values(grad(x, x)[0]) == [1]


def test_grad_by_interior_values() -> None:
    x = leaf(2, 3)
    h = x * x
    k = h * 5
    y = (k * h).sum()
    dH, dK = grad(y, [h, k], retain_graph=True)
    assert values(dK) == [4, 9]
    assert values(dH) == [2 * 5 * 4, 2 * 5 * 9]
    (dX,) = grad(y, x)
    assert values(dX) == [20 * 8, 20 * 27]


def test_only_wanted_nodes_run() -> None:
    """A branch that does not lead to the input is not differentiated."""
    x, w = leaf(1, 2), leaf(3, 4)
    y = (x.exp() * w.tanh()).sum()
    for wanted, multiplied, slopes in (
        (x, 2, 0),
        (w, 1, 1),
        ([x, w], 3, 1),
    ):  # dY·tanh w and ·eˣ; dY·eˣ, and tanh's own
        seen = Names()
        with observe(seen):
            grad(y, wanted, retain_graph=True)
        assert seen.names.count("multiply") == multiplied
        assert seen.names.count("tanh_grad") == slopes
    frozen = Names()
    x.requires_grad_(False)
    y = (x * w).sum()
    with observe(frozen):
        y.backward()
    assert frozen.names.count("multiply") == 1  # dW alone: nobody asked for dX
    assert x.grad is None


def test_an_interior_target_stops_the_pass() -> None:
    x = leaf(1, 2)
    h = x.exp()
    y = (h * 3).sum()
    with pytest.raises(RuntimeError):
        h.register_hook(lambda dH: None).remove()
        tg.tensor([1.0]).register_hook(print)
    seen = Names()
    with observe(seen):
        grad(y, h)
    assert seen.names.count("multiply") == 1  # by 3; exp's own rule does not run


def test_higher_derivatives() -> None:
    """d⁴/dx⁴ of x⁵ is 120 x."""
    x = scalar(2.0)
    y = x * x * x * x * x
    for power in (80, 160, 240, 240):
        (y,) = grad(y, x, create_graph=True)
        assert y.item() == power


def test_create_graph_in_backward() -> None:
    x = leaf(3)
    (x * x * x).sum().backward(create_graph=True)
    first = x.grad
    assert first is not None
    assert first.requires_grad
    x.grad = None
    first.sum().backward()
    assert values(x.grad) == [18]


def test_gradient_penalty() -> None:
    """A loss that contains a gradient, checked against central differences."""
    generator = np.random.default_rng(0)
    w = tg.tensor(generator.standard_normal((4, 3)), requires_grad=True)
    x = tg.tensor(generator.standard_normal((5, 3)), requires_grad=True)

    def penalty(w: Tensor, x: Tensor) -> Tensor:
        y = products.linear(x, w).tanh().sum()
        (dX,) = grad(y, x, create_graph=True)
        return dX.square().sum()

    assert gradcheck(penalty, [w, x])
    assert gradgradcheck(penalty, [w, x])


def test_second_gradient_through_shared_results() -> None:
    """The rules of exp, tanh, sqrt and divide use their own result, which is in the graph."""
    x = scalar(0.7)
    y = x.exp() + x.tanh() + x.sqrt() + 1 / x
    (first,) = grad(y, x, create_graph=True)
    (second,) = grad(first, x)
    v = 0.7
    expected = np.exp(v) - 2 * np.tanh(v) / np.cosh(v) ** 2 - v**-1.5 / 4 + 2 / v**3
    assert second.item() == pytest.approx(expected, rel=1e-12)


# ---- freed graphs, changed values


def test_freed_graph() -> None:
    x = leaf(2)
    y = x.exp().sum()
    y.backward()
    with pytest.raises(RuntimeError, match=r"exp.*retain_graph=True"):
        y.backward()


def test_grad_through_a_freed_graph() -> None:
    x = leaf(2)
    h = x.exp()
    y = (h * h).sum()
    y.backward()
    for target in (x, h):
        with pytest.raises(RuntimeError, match="retain_graph=True"):
            grad(y, target)


def test_what_was_not_freed_can_be_passed_again() -> None:
    """A sum keeps nothing, so that it runs twice, as in PyTorch."""
    x = leaf(2, 3)
    y = (x + 1).sum()
    y.backward()
    y.backward()
    assert values(x.grad) == [2, 2]


def test_retain_graph() -> None:
    x = leaf(2)
    y = (x * x).sum()
    y.backward(retain_graph=True)
    y.backward()
    assert values(x.grad) == [8]
    with pytest.raises(RuntimeError, match="second time"):
        y.backward()


def test_saved_values_go_as_backward_passes() -> None:
    x = leaf(1, 2)
    h = x.exp()
    node = h.grad_fn
    assert isinstance(node, OpNode)
    (h * h).sum().backward()
    assert node.inputs is None
    assert node.kept is None


def test_changed_in_place() -> None:
    x, w = leaf(1, 2), tg.tensor(np.array([3.0, 4.0]))
    y = (x * w).sum()
    with tg.no_grad():
        w += 1
    with pytest.raises(RuntimeError, match=r"multiply needs y.*\(2,\).*in place.*clone"):
        y.backward()


def test_result_changed_in_place() -> None:
    x = leaf(1, 2)
    h = x.exp()
    y = h.sum()
    with tg.no_grad():
        h.zero_()
    with pytest.raises(RuntimeError, match=r"exp.*result"):
        y.backward()


@pytest.mark.parametrize(
    "write",
    [
        lambda w: w.fill_(0),
        lambda w: w.zero_(),
        lambda w: w.copy_(1.0),
        lambda w: w.lerp_(tg.tensor(np.ones((2, 2))), 0.5),
        lambda w: w.mul_(2),
        lambda w: w[0].fill_(0),
        lambda w: w.T.add_(1),
        lambda w: w.reshape(-1).sub_(1),
        lambda w: w.detach().div_(2),
        lambda w: w.data.zero_(),
        lambda w: w.__setitem__((0, 0), 5.0),
    ],
)
def test_every_write_counts(write: Callable[[Tensor], Any]) -> None:
    """Through the value, a view of it, or what shares its memory outside the graph."""
    x, w = leaf(1, 2), tg.tensor(np.ones((2, 2)))
    y = (x * w).sum()
    with tg.no_grad():
        write(w)
    with pytest.raises(RuntimeError, match="changed in place"):
        y.backward()


def test_base_changed_after_a_view_was_used() -> None:
    w = tg.tensor(np.ones((3, 2)))
    y = (leaf(1, 2) * w[1]).sum()
    w.zero_()
    with pytest.raises(RuntimeError, match="changed in place"):
        y.backward()


def test_changing_what_no_rule_needs() -> None:
    x, w = leaf(1, 2), leaf(3, 4)
    y = (x + w).sum()
    with tg.no_grad():
        w -= 1
    y.backward()
    assert values(w.grad) == [1, 1]


def test_an_update_between_two_steps() -> None:
    w = leaf(3)
    for _ in range(2):
        w.grad = None
        (w * w).sum().backward()
        with tg.no_grad():
            w -= 0.5 * w.grad
    assert w.tolist() == [0]


# ---- grad mode


def test_no_grad() -> None:
    x = leaf(1)
    with tg.no_grad():
        assert not tg.is_grad_enabled()
        y = x * 2
        with tg.enable_grad():
            z = x * 2
    assert tg.is_grad_enabled()
    assert (y.requires_grad, z.requires_grad) == (False, True)


def test_no_grad_as_decorator() -> None:
    @tg.no_grad()
    def double(x: Tensor, depth: int = 0) -> Tensor:
        """Doc."""
        return double(x, depth - 1) if depth else x * 2

    assert not double(leaf(1), 3).requires_grad
    assert (double.__name__, double.__doc__) == ("double", "Doc.")
    assert tg.is_grad_enabled()


def test_the_mode_comes_back_after_an_error() -> None:
    guard = tg.no_grad()
    with pytest.raises(ZeroDivisionError), guard, guard:
        _ = 1 / 0
    assert tg.is_grad_enabled()
    with pytest.raises(RuntimeError):
        (leaf(1, 2) * 2).backward()
    assert tg.is_grad_enabled()


def test_set_grad_enabled() -> None:
    tg.set_grad_enabled(False)
    assert not tg.is_grad_enabled()
    tg.set_grad_enabled(True)
    with tg.set_grad_enabled(False):
        assert not (leaf(1) * 2).requires_grad
    assert tg.is_grad_enabled()


def test_rules_do_not_record_themselves() -> None:
    x = leaf(1)
    found = []
    y = x.exp()
    y.register_hook(lambda dY: found.append(tg.is_grad_enabled()))
    y.sum().backward(retain_graph=True)
    y.sum().backward(create_graph=True)
    assert found == [False, True]


def test_each_thread_has_its_own_mode() -> None:
    here, there = threading.Event(), threading.Event()
    found: dict[str, bool] = {}

    def work() -> None:
        x = leaf(2, backend="numpy")  # use_backend is this thread's own as well
        found["fresh"] = tg.is_grad_enabled()
        here.wait(10)
        (x * x).sum().backward()
        found["other"] = values(x.grad) == [4] and tg.is_grad_enabled()
        with tg.no_grad():
            there.set()
            found["own"] = not (x * 2).requires_grad

    thread = threading.Thread(target=work)
    with tg.no_grad():
        thread.start()
        here.set()
        assert there.wait(10)
        assert not tg.is_grad_enabled()
    assert (leaf(1) * 2).requires_grad
    thread.join(10)
    assert found == {"fresh": True, "other": True, "own": True}


def test_threads_differentiate_at_the_same_time() -> None:
    """Two threads, each with its own graph and observers."""
    results: dict[int, list[float]] = {}

    def work(number: int) -> None:
        w = leaf(number, backend="numpy")
        for _ in range(200):
            w.grad = None
            (w * w * 0.5).sum().backward()
            with tg.no_grad():
                w -= 0.01 * w.grad
        results[number] = w.tolist()

    threads = [threading.Thread(target=work, args=(n,)) for n in (1, 2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert results[1] == pytest.approx([0.99**200])
    assert results[2] == pytest.approx([2 * 0.99**200])


# ---- hooks


def test_hook_on_a_leaf() -> None:
    x = leaf(1, 2)
    seen = []
    x.register_hook(lambda dX: seen.append(dX.tolist()))
    (x * x + x).sum().backward()
    assert seen == [[3, 5]]  # once, with the whole gradient
    assert values(x.grad) == [3, 5]


def test_hook_that_replaces() -> None:
    x = leaf(1, 2)
    h = x * 3
    h.register_hook(lambda dH: dH * 10)
    handle = x.register_hook(lambda dX: dX + 1)
    h.sum().backward()
    assert values(x.grad) == [31, 31]
    assert values(grad((x * 3).sum(), x)[0]) == [4, 4]
    handle.remove()
    handle.remove()
    x.grad = None
    (x * 3).sum().backward()
    assert values(x.grad) == [3, 3]


def test_hook_on_an_interior_value() -> None:
    x = leaf(2)
    h = x * x
    seen: list[Any] = []
    handle = h.register_hook(lambda dH: seen.append(dH.tolist()))
    (h * 3 + h).sum().backward(retain_graph=True)
    handle.remove()
    h.sum().backward()
    assert seen == [[4]]


def test_hooks_run_in_order() -> None:
    x = leaf(1)
    x.register_hook(lambda dX: dX * 2)
    x.register_hook(lambda dX: dX + 1)
    x.sum().backward()
    assert values(x.grad) == [3]


def test_hooks_of_what_nobody_asked_for_do_not_run() -> None:
    """Even where one rule gives all gradients at once, as batch norm's."""
    x, weight, bias = tg.tensor(np.eye(3, 2), requires_grad=True), leaf(1, 1), leaf(0, 0)
    seen: list[Any] = []
    weight.register_hook(seen.append)
    y = networks.batch_norm(x, weight, bias, 1e-5)[0].square().sum()
    grad(y, x, retain_graph=True)
    assert seen == []
    grad(y, weight)
    assert len(seen) == 1


def test_hook_needs_a_gradient() -> None:
    with pytest.raises(RuntimeError, match="does not require grad"):
        tg.tensor([1.0]).register_hook(print)


def test_retain_grad() -> None:
    x = leaf(2)
    h = x * x
    h.retain_grad()
    (h * 3).sum().backward()
    assert values(h.grad) == [3]
    assert values(x.grad) == [12]
    x.retain_grad()  # a leaf has one anyway


# ---- gradients own their memory


def test_gradients_do_not_alias() -> None:
    x, y = leaf(1, 2), leaf(3, 4)
    (x + y).sum().backward()
    assert x.grad is not None
    with tg.no_grad():
        x.grad.mul_(2)
    assert values(y.grad) == [1, 1]


def test_retained_gradients_do_not_alias() -> None:
    x = leaf(1, 2)
    z = x + 1
    z.retain_grad()
    (z * 3).sum().backward()
    assert x.grad is not None
    x.grad.mul_(2)
    assert values(z.grad) == [3, 3]


def test_the_given_gradient_is_not_kept() -> None:
    x, dY = leaf(1, 2), tg.tensor(np.array([1.0, 1.0]))
    (x + 0).backward(dY)
    assert x.grad is not None
    x.grad.zero_()
    assert values(dY) == [1, 1]
    x = leaf(1, 2)
    x.backward(dY)
    assert x.grad is not None
    x.grad.zero_()
    assert values(dY) == [1, 1]


def test_gradients_do_not_alias_inputs() -> None:
    """dX of x · w with dY = 1 is w's value, not w's memory."""
    x, w = leaf(1, 2), leaf(3, 4)
    pointwise.where(tg.tensor([True, True]), x * w, 0.0).sum().backward()
    assert x.grad is not None
    x.grad.zero_()
    assert values(w) == [3, 4]


@pytest.mark.parametrize("shape", [(), (1,), (1, 1), (3,), (2, 3), (3, 1)])
def test_gradients_are_contiguous_and_writable(shape: tuple[int, ...], backend: Backend) -> None:
    """Even where the rule gives an expanded or a transposed view."""
    x = tg.tensor(np.ones(shape), requires_grad=True, backend=backend)
    (x.sum() * 2).backward()
    assert x.grad is not None
    assert x.grad.is_contiguous()
    x.grad += 1
    assert x.grad.tolist() == np.full(shape, 3.0).tolist()
    x.grad = None
    (x.permute(*reversed(range(x.ndim))) * 2).sum().backward()
    assert x.grad is not None
    assert x.grad.is_contiguous()  # type: ignore[unreachable]


# ---- in place


def test_rebinding_update_is_refused() -> None:
    w = leaf(1, 2)
    (w * w).sum().backward()
    original = w
    with pytest.raises(RuntimeError, match="no_grad"):
        w -= 0.1 * w.grad
    assert w is original
    assert values(w) == [1, 2]
    with tg.no_grad():
        w -= 0.5 * w.grad
    assert w is original
    assert values(w) == [0, 0]
    assert w.requires_grad


@pytest.mark.parametrize(
    "write",
    [
        lambda x: x.add_(1),
        lambda x: x.sub_(1),
        lambda x: x.mul_(1),
        lambda x: x.div_(1),
        lambda x: x.zero_(),
        lambda x: x.fill_(1),
        lambda x: x.copy_(1.0),
        lambda x: x.lerp_(x.detach(), 0.5),
        lambda x: x.__setitem__(0, 1.0),
    ],
)
def test_in_place_is_refused_while_recording(write: Callable[[Tensor], Any]) -> None:
    x = leaf(1, 2)
    for value in (x, x * 2):
        with pytest.raises(RuntimeError, match="no_grad"):
            write(value)
    assert values(x) == [1, 2]
    write(x.detach())


def test_in_place_with_a_tracked_operand_is_refused() -> None:
    x, y = leaf(1, 2), tg.tensor(np.zeros(2))
    for write in (
        lambda: y.add_(x),
        lambda: y.copy_(x),
        lambda: y.lerp_(x, 0.5),
        lambda: y.__setitem__(0, x[0]),
    ):
        with pytest.raises(RuntimeError, match="no_grad"):
            write()
    assert values(y) == [0, 0]


def test_in_place_without_gradients(backend: Backend) -> None:
    x = tg.tensor([[1.0, 2.0], [3.0, 4.0]], backend=backend)
    row = x[1]
    row += 10
    x[:, 0] = tg.tensor([5.0, 6.0], backend=backend)
    x *= 2
    x[0, 1] = 7
    assert values(x) == [[10, 7], [12, 28]]
    x.data = tg.zeros(2, 2, backend=backend)
    assert values(row) == [0, 0]


def test_in_place_keeps_shape_and_dtype() -> None:
    x = tg.ones(2, 3)
    with pytest.raises(ValueError, match=r"\(2, 3\)"):
        x += tg.ones(4, 2, 3)
    with pytest.raises(ValueError, match="copy_"):
        x.copy_(tg.ones(4, 2, 3))
    counts = tg.tensor([1, 2])
    with pytest.raises(TypeError, match="float32"):
        counts += 0.5
    assert values(counts) == [1, 2]


# ---- beside NumPy


def test_arrays_on_the_left_stay_tensors() -> None:
    x = leaf(1, 2)
    a = np.array([3.0, 4.0])
    for y in (a * x, a + x, a - x, a / x, a**x, np.float64(2) * x, a @ x):
        assert isinstance(y, Tensor)
        assert y.requires_grad
    assert isinstance(a < x, Tensor)
    assert values(a - x) == [2, 2]


def test_numpy_of_a_tracked_tensor() -> None:
    x = leaf(1, 2)
    with pytest.raises(RuntimeError, match=r"detach\(\)"):
        x.numpy()
    with pytest.raises(RuntimeError, match=r"detach\(\)"):
        np.asarray(x)
    np.testing.assert_array_equal(x.detach().numpy(), [1, 2])
    assert x[1].item() == 2


def test_two_backends() -> None:
    from_here = leaf(1, 2, backend="numpy")
    other = from_here.detach().to(_second_backend())
    with pytest.raises(RuntimeError, match=r"'strict'.*'numpy'.*\.to\(\"numpy\"\)"):
        from_here + other
    with pytest.raises(RuntimeError, match=r"linear: .*'strict'.*'numpy'"):
        products.linear(from_here.reshape(1, 2), other.reshape(1, 2))
    with tg.no_grad(), pytest.raises(RuntimeError, match=r"add_: .*'strict'.*'numpy'"):
        from_here += other


def test_gradients_cross_backends() -> None:
    x = leaf(1, 2, backend="numpy")
    (x.to(_second_backend()) * 3).to("numpy").square().sum().backward()
    assert values(x.grad) == [18, 36]
    assert x.grad is not None
    assert x.grad.backend is x.backend


def _second_backend() -> Backend:
    return StrictBackend()


# ---- custom functions


class Cube(Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return x * x * x

    @staticmethod
    def backward(ctx: Any, dY: Tensor) -> Tensor:
        (x,) = ctx.saved_tensors
        return dY * 3 * x * x


class Exp(Function):
    """Saves its result."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        y = x.exp()
        ctx.save_for_backward(y)
        return y

    @staticmethod
    def backward(ctx: Any, dY: Tensor) -> Tensor:
        (y,) = ctx.saved_tensors
        return dY * y


class Scaled(Function):
    """Several results, arguments that are no tensors, keywords."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, factor: float, y: Tensor, *, shift: float = 0.0) -> Any:
        ctx.factor = factor
        return x * factor + shift, x * y

    @staticmethod
    def backward(ctx: Any, dA: Tensor, dB: Tensor) -> Any:
        assert ctx.needs_input_grad == (True, False, False)
        return dA * ctx.factor + dB, None, None


def test_function_and_its_derivatives() -> None:
    x = leaf(1, 2)
    y = Cube.apply(x)
    assert repr(y.grad_fn) == "<Cube>"
    (first,) = grad(y.sum(), x, create_graph=True)
    (second,) = grad(first.sum(), x)
    assert (values(first), values(second)) == ([3, 12], [6, 12])
    assert gradcheck(Cube.apply, [x])
    assert gradgradcheck(Cube.apply, [x])
    assert gradgradcheck(Exp.apply, [x])


def test_function_of_several() -> None:
    x, y = leaf(1, 2), tg.tensor(np.array([1.0, 1.0]))
    a, b = Scaled.apply(x, 3.0, y, shift=1.0)
    assert (values(a), values(b)) == ([4, 7], [1, 2])
    (a + b).sum().backward()
    assert values(x.grad) == [4, 4]


def test_function_with_an_unused_result() -> None:
    """``backward`` gets zeros for a result nobody used, as in PyTorch."""
    x, y = leaf(1, 2), tg.tensor(np.array([1.0, 1.0]))
    a, b = Scaled.apply(x, 3.0, y)
    a.sum().backward(retain_graph=True)
    assert values(x.grad) == [3, 3]
    x.grad = None
    b.sum().backward()
    assert values(x.grad) == [1, 1]


def test_function_without_gradients() -> None:
    with tg.no_grad():
        assert not Cube.apply(leaf(1)).requires_grad
    assert not Cube.apply(tg.tensor([1.0])).requires_grad


def test_function_that_returns_its_input() -> None:
    class Same(Function):
        @staticmethod
        def forward(ctx: Any, x: Tensor) -> Tensor:
            return x

        @staticmethod
        def backward(ctx: Any, dY: Tensor) -> Tensor:
            return dY * 5

    x = leaf(1)
    y = Same.apply(x)
    assert y is not x
    assert x.is_leaf
    y.sum().backward()
    assert values(x.grad) == [5]


def test_function_that_returns_what_it_found_elsewhere() -> None:
    """A parameter or a cached constant stays the leaf it is."""
    found = leaf(5)

    class Found(Function):
        @staticmethod
        def forward(ctx: Any, x: Tensor) -> Tensor:
            return found

        @staticmethod
        def backward(ctx: Any, dY: Tensor) -> Tensor:
            return dY

    x = leaf(1)
    y = Found.apply(x)
    assert found.is_leaf
    assert not y.is_leaf
    y.sum().backward()
    assert values(x.grad) == [1]
    assert found.grad is None


def test_function_with_one_result_twice() -> None:
    class Pair(Function):
        @staticmethod
        def forward(ctx: Any, x: Tensor) -> Any:
            y = x * 2
            return y, y

        @staticmethod
        def backward(ctx: Any, dA: Tensor, dB: Tensor) -> Tensor:
            return dA * 2 + dB * 2

    x = leaf(1)
    a, b = Pair.apply(x)
    (a * 3 + b).sum().backward()
    assert values(x.grad) == [8]


def test_function_with_an_integer_result() -> None:
    class Top(Function):
        @staticmethod
        def forward(ctx: Any, x: Tensor) -> Any:
            at = x.argmax()
            ctx.mark_non_differentiable(at)
            return x * 2, at

        @staticmethod
        def backward(ctx: Any, dY: Tensor, _: Any) -> Tensor:
            return dY * 2

    x = leaf(1, 3)
    y, at = Top.apply(x)
    assert not at.requires_grad
    y.sum().backward()
    assert values(x.grad) == [2, 2]


def test_function_errors() -> None:
    class TooMany(Cube):
        @staticmethod
        def backward(ctx: Any, dY: Tensor) -> Any:
            return dY, dY

    class NoTensor(Cube):
        @staticmethod
        def backward(ctx: Any, dY: Tensor) -> Any:
            return 1.0

    class Forgot(Function):
        pass

    with pytest.raises(RuntimeError, match="returned 2 gradients, forward took 1"):
        TooMany.apply(leaf(1)).sum().backward()
    with pytest.raises(TypeError, match=r"NoTensor.backward for argument 0: found float"):
        NoTensor.apply(leaf(1)).sum().backward()
    with pytest.raises(NotImplementedError, match="static method forward"):
        Forgot.apply(leaf(1))


def test_function_checks_what_it_saved() -> None:
    x = leaf(1, 2)
    y = Cube.apply(x).sum()
    with tg.no_grad():
        x += 1
    with pytest.raises(RuntimeError, match=r"Cube.*changed in place"):
        y.backward()


def test_function_is_freed() -> None:
    y = Cube.apply(leaf(1)).sum()
    y.backward()
    with pytest.raises(RuntimeError, match="retain_graph"):
        y.backward()


def test_function_gradient_is_summed_to_its_input() -> None:
    class Row(Function):
        @staticmethod
        def forward(ctx: Any, x: Tensor) -> Tensor:
            return x.expand(3, 2) * 1

        @staticmethod
        def backward(ctx: Any, dY: Tensor) -> Tensor:
            return dY

    x = leaf(1, 2)
    Row.apply(x).sum().backward()
    assert values(x.grad) == [3, 3]


# ---- memory


@contextmanager
def no_collector() -> Iterator[None]:
    """What dies in here died by reference counting: nothing was in a cycle."""
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


def forward_only(x: Tensor) -> list[Any]:
    h = x.exp().tanh().sigmoid()
    return [h, (h * h).sum()]


def forward_and_backward(x: Tensor) -> list[Any]:
    kept = forward_only(x)
    kept[-1].backward()
    return kept


def retained(x: Tensor) -> list[Any]:
    kept = forward_only(x)
    kept[-1].backward(retain_graph=True)
    return kept


def grad_twice(x: Tensor) -> list[Any]:
    y = (x * x).exp().sum()
    (first,) = grad(y, x, create_graph=True)
    (second,) = grad(first.sum(), x)
    return [y, first, second]


def custom(x: Tensor) -> list[Any]:
    y = Exp.apply(Cube.apply(x))
    y.sum().backward()
    return [y]


def custom_unused(x: Tensor) -> list[Any]:
    return [Exp.apply(x), Cube.apply(x)]


def hooked(x: Tensor) -> list[Any]:
    h = x * 2
    h.register_hook(lambda dH: dH * 2)
    h.retain_grad()
    h.sum().backward()
    return [h, h.grad]


def unrecorded(x: Tensor) -> list[Any]:
    with tg.no_grad():
        return [x.exp(), x.sum()]


def fused(x: Tensor) -> list[Any]:
    image = x.reshape(1, 1, 2, 2).expand(2, 1, 2, 2)
    y = F.conv2d(image, tg.tensor(np.ones((2, 1, 1, 1)), requires_grad=True))
    y = networks.batch_norm(y, leaf(1, 1), leaf(0, 0), 1e-5)[0]
    y = F.max_pool2d(y, 2).flatten(1)
    loss = networks.cross_entropy(y, tg.tensor([0, 1]))[0].mean()
    loss.backward()
    return [image, y, loss]


@pytest.mark.parametrize(
    "use",
    [
        forward_only,
        forward_and_backward,
        retained,
        grad_twice,
        custom,
        custom_unused,
        hooked,
        unrecorded,
        fused,
    ],
)
def test_nothing_survives_del(use: Callable[[Tensor], list[Any]]) -> None:
    with no_collector():
        x = leaf(1, 2, 3, 4)
        kept = use(x)
        nodes = [v.grad_fn for v in kept if v.grad_fn is not None]
        watched = [weakref.ref(v) for v in (x, *kept)]
        counted = len(live(Node))
        del x, kept, nodes
        assert [ref() for ref in watched] == [None] * len(watched)
        assert len(live(Node)) <= counted
        assert live(Node) == []


def live(kind: type) -> list[Any]:
    return [x for x in gc.get_objects() if issubclass(type(x), kind)]


def test_the_graph_of_a_loss_dies_with_it() -> None:
    with no_collector():
        x = leaf(1, 2)
        h = x.exp()
        watched = weakref.ref(h)
        y = h.tanh().sum()
        del h
        assert watched() is None  # the nodes keep arrays, not the tensors the user let go
        y.backward()
        assert x.grad is not None


def test_a_thousand_steps_leave_nothing_behind() -> None:
    generator = np.random.default_rng(0)
    w, v = (
        tg.tensor(generator.standard_normal(s) * 0.1, requires_grad=True) for s in [(8, 4), (3, 8)]
    )
    x = tg.tensor(generator.standard_normal((5, 4)))
    target = tg.tensor([0, 1, 2, 0, 1])

    def step() -> None:
        h = Cube.apply(Tensor.relu(products.linear(x, w)))
        loss = networks.cross_entropy(products.linear(h, v), target)[0].mean()
        for p in (w, v):
            p.grad = None
        loss.backward()
        with tg.no_grad():
            for p in (w, v):
                p -= 0.1 * p.grad

    with no_collector():
        for _ in range(50):
            step()
        objects = len(gc.get_objects())
        for _ in range(500):
            step()
        assert len(gc.get_objects()) - objects < 20  # nodes, tuples, lists
        tracemalloc.start()
        try:
            step()
            before = snapshot()
            for _ in range(500):
                step()
            assert gc.collect() == 0  # no cycles
            after = snapshot()
        finally:
            tracemalloc.stop()
    assert array_bytes(after) - array_bytes(before) < 1000
    grown = sum(s.size_diff for s in after.compare_to(before, "lineno"))
    assert grown < 5_000  # an object a step would be at least 16,000


def snapshot() -> tracemalloc.Snapshot:
    """What is allocated. Python's stock of freed tuples is not: how full it is differs by run."""
    gc.collect()
    return tracemalloc.take_snapshot()


def array_bytes(snapshot: tracemalloc.Snapshot) -> int:
    """What NumPy allocated for elements."""
    only = tracemalloc.DomainFilter(True, np.lib.tracemalloc_domain)
    return sum(s.size for s in snapshot.filter_traces([only]).statistics("lineno"))


def test_a_long_chain() -> None:
    """100,000 ops: no recursion forward, backward, in grad or in del, and each node runs once."""
    length = 100_000
    x = leaf(1)
    y = x
    for _ in range(length):
        y = y + 1
    seen = Counting()
    with seen:
        y.sum().backward()
        (dX,) = grad(y.sum(), x)
    assert values(x.grad) == values(dX) == [1]
    assert seen.visits == 2 * (length + 1)
    del y


def test_a_wide_graph_runs_each_node_once() -> None:
    """y = y + y has 2ⁿ paths and n nodes."""
    x = leaf(1)
    y = x
    for _ in range(60):
        y = y + y
    seen = Counting()
    with seen:
        y.sum().backward()
    assert values(x.grad) == [2.0**60]
    assert seen.visits == 61


class Counting:
    """How many nodes pass gradients on."""

    def __init__(self) -> None:
        self.visits = 0

    def __enter__(self) -> None:
        original = OpNode.gradients

        def counted(node: OpNode, *args: Any) -> Any:
            self.visits += 1
            return original(node, *args)

        self._original = original
        OpNode.gradients = counted  # type: ignore[method-assign]

    def __exit__(self, *_: object) -> None:
        OpNode.gradients = self._original  # type: ignore[method-assign]


def test_visits_grow_with_the_graph() -> None:
    visits = []
    for length in (1000, 2000):
        x = leaf(1)
        y = x
        for _ in range(length):
            y = y * 1.0 + x
        seen = Counting()
        with seen:
            y.sum().backward()
        visits.append(seen.visits)
    assert visits == [2001, 4001]
