"""detect_anomaly: which NaN and infinities it reports, and what it says of them."""

from __future__ import annotations

import math
import re
import threading
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import tinygrad_mnist as tg
import tinygrad_mnist.nn.functional as F
from tinygrad_mnist import autograd, dispatch, nn, optim
from tinygrad_mnist.kernels import Backend

T = tg.tensor
INF = math.inf


def anomaly(run: Callable[[], Any]) -> FloatingPointError:
    """What ``run`` raises in the block."""
    with pytest.raises(FloatingPointError) as raised, tg.detect_anomaly():
        run()
    return raised.value


def line_of(text: str) -> str:
    """``test_anomaly.py:31 (text)``, where the line ``text`` alone stands in this file."""
    with open(__file__, encoding="utf-8") as file:
        (number,) = [i for i, line in enumerate(file, 1) if line.strip() == text]
    return f"{__file__}:{number} ({text})"


# ---- what it says


def test_the_forward_op_its_inputs_and_the_line(backend: Backend) -> None:
    x = T([0.0, 1.0, -1.0], backend=backend)

    def run() -> None:
        y = x + 0
        y.log()

    assert str(anomaly(run)) == (
        f"log made 1 NaN and 1 infinity among its 3 numbers, at {line_of('y.log()')}; "
        "inputs: x float32(3,)"
    )


def test_the_op_of_a_gradient_and_both_lines(backend: Backend) -> None:
    x = T([0.0, 4.0], requires_grad=True, backend=backend)

    def run() -> None:
        twice = x * 2
        root = twice.sqrt()
        total = (root.reshape(2, 1) + 1).sum()
        total.backward()

    assert str(anomaly(run)) == (
        "divide made 1 infinity among its 2 numbers in the gradient of sqrt, which ran at "
        f"{line_of('root = twice.sqrt()')}; backward at {line_of('total.backward()')}; "
        "inputs: x float32(2,), y float32(2,)"
    )
    assert x.grad is None


def test_a_graph_from_before_the_block() -> None:
    x = T([0.0, 4.0], requires_grad=True)
    loss = x.sqrt().sum()
    said = str(anomaly(loss.backward))
    assert "in the gradient of sqrt, which ran outside of the block; backward at " in said


def test_the_gradients_own_gradient() -> None:
    x = T([0.0], requires_grad=True)

    def run() -> None:
        (slope,) = autograd.grad((x**1.5).sum(), x, create_graph=True)
        slope.sum().backward()

    assert "in the gradient of " in str(anomaly(run))
    assert "at " + line_of("slope.sum().backward()") in str(anomaly(run))


def test_data_that_has_them_is_another_finding(backend: Backend) -> None:
    data = np.ones((10, 10), np.float32)
    data[2, :3] = np.nan

    def run() -> None:
        x = T(data, backend=backend)  # alone, it is no anomaly
        x.reshape(100) * 2

    said = str(anomaly(run))
    assert said.startswith("multiply was given NaN: x has 3 NaN among its 100 numbers, at ")
    assert said.endswith("inputs: x float32(100,), y 2")


def test_a_nan_of_infinities_names_them() -> None:
    x = T([INF, 1.0])
    said = str(anomaly(lambda: x - x))
    assert said.startswith("subtract made 1 NaN among its 2 numbers, of the infinities in x, at ")


def test_a_kernel_with_several_results_names_the_one() -> None:
    ignored = T([-100, -100])
    said = str(anomaly(lambda: F.cross_entropy(tg.zeros(2, 3), ignored)))
    assert said.startswith("cross_entropy made 1 NaN among the 1 number of results[1], at ")


@pytest.mark.parametrize("lr", [1e38, math.nan])
def test_an_update_in_place(backend: Backend, lr: float) -> None:
    w = nn.Parameter(T([1.0, 2.0], backend=backend))
    optimizer = optim.SGD([w], lr=0.1)
    optimizer.param_groups[0]["lr"] = lr

    def run() -> None:
        (w * w * 10).sum().backward()
        optimizer.step()

    said = str(anomaly(run))
    what = "2 infinities" if lr == 1e38 else "2 NaN"
    assert said.startswith(
        f"sgd_ made {what} among the 2 numbers of params[0] in the update, at "
        + line_of("optimizer.step()")
    )


def test_a_write_over_the_input_is_told_from_what_it_had() -> None:
    made = T([1.0, 1e38])
    assert str(anomaly(lambda: made.mul_(1e38))).startswith("multiply made 1 infinity among its 2")
    had = T([1.0, INF])
    with tg.detect_anomaly():
        had.mul_(2)
    assert had.tolist() == [2, INF]


class Root(nn.Module):
    """A layer whose gradient at 0 is infinite."""

    def forward(self, x: tg.Tensor) -> tg.Tensor:
        return x.sqrt()


def test_the_layer_is_noted_forward_and_backward() -> None:
    model = nn.Sequential(nn.Flatten(), nn.Sequential(nn.ReLU(), Root()))
    negative = T([[-1.0]], requires_grad=True)
    error = anomaly(lambda: model(negative).sum().backward())
    assert "in the gradient of sqrt" in str(error)
    assert error.__notes__ == ["in 1.1: Root()"]
    error = anomaly(lambda: model[1][1](negative))
    assert error.__notes__ == ["in Root()"]
    wide = nn.Sequential(nn.Linear(1, 1), nn.ReLU())
    nn.init.constant_(wide[0].weight, 1e30)
    error = anomaly(lambda: wide(T([[1e30]])))
    assert error.__notes__ == ["in 0: Linear(in_features=1, out_features=1, bias=True)"]


def test_other_errors_of_a_backward_pass_are_noted() -> None:
    class Wrong(autograd.Function):
        @staticmethod
        def forward(ctx: Any, x: tg.Tensor) -> tg.Tensor:
            return x * 2

        @staticmethod
        def backward(ctx: Any, dY: tg.Tensor) -> Any:
            raise KeyError("lost")

    x = T([1.0], requires_grad=True)
    for check_nan in (True, False):
        with pytest.raises(KeyError) as raised, tg.detect_anomaly(check_nan):
            Wrong.apply(x.exp()).sum().backward()
        (note,) = raised.value.__notes__
        assert re.match(r"in the gradient of Wrong, which ran at .*test_anomaly\.py:\d+ ", note)
    with tg.detect_anomaly(check_nan=False), np.errstate(divide="ignore"):
        T([0.0]).log()
    with pytest.raises(KeyError) as raised, tg.detect_anomaly():
        x.exp().sum().backward()
        raise KeyError("beside it")
    assert not hasattr(raised.value, "__notes__")


class Raw(autograd.Function):
    """x, and dY as it comes, times numbers of NumPy that nobody watches."""

    @staticmethod
    def forward(ctx: Any, x: tg.Tensor, forward: float, backward: float) -> tg.Tensor:
        ctx.backward = backward
        return T(x.detach().numpy() * np.float32(forward), backend=x.backend)

    @staticmethod
    def backward(ctx: Any, dY: tg.Tensor) -> Any:
        return T(dY.numpy() * np.float32(ctx.backward), backend=dY.backend), None, None


@pytest.mark.parametrize("bad", [math.nan, INF])
def test_what_a_function_returns_at_the_line_that_applies_it(bad: float) -> None:
    x = T([1.0, 2.0], requires_grad=True, backend="numpy")
    found = "2 NaN" if math.isnan(bad) else "2 infinities"

    def forward() -> None:
        Raw.apply(x * 2, bad, 1.0)

    assert str(anomaly(forward)) == (
        f"Raw made {found} among its 2 numbers, at {line_of('Raw.apply(x * 2, bad, 1.0)')}; "
        f"inputs: float32(2,), {bad}, 1.0"
    )

    def backward() -> None:
        y = Raw.apply(x * 2, 1.0, bad)
        y.mean().backward()

    assert str(anomaly(backward)) == (
        f"Raw.backward for argument 0 made {found} among its 2 numbers in the gradient of Raw, "
        f"which ran at {line_of('y = Raw.apply(x * 2, 1.0, bad)')}; "
        f"backward at {line_of('y.mean().backward()')}; inputs: float32(2,)"
    )
    assert x.grad is None


def test_a_function_is_told_from_what_it_is_given() -> None:
    x = T([math.nan, 2.0], requires_grad=True, backend="numpy")
    said = str(anomaly(lambda: Raw.apply(x, 1.0, 1.0)))
    assert said.startswith("Raw was given NaN: its inputs[0] has 1 NaN among its 2 numbers, at ")
    x = T([INF, 2.0], requires_grad=True, backend="numpy")
    with tg.detect_anomaly():
        Raw.apply(x, 1.0, 1.0).backward(T([INF, 1.0], backend="numpy"))
    assert x.grad.tolist() == [INF, 1]


def test_the_layer_of_a_function_is_noted() -> None:
    class Layer(nn.Module):
        def forward(self, x: tg.Tensor) -> tg.Tensor:
            return Raw.apply(x, 1.0, math.nan)

    x = T([1.0], requires_grad=True, backend="numpy")
    error = anomaly(lambda: Layer()(x).sum().backward())
    assert error.__notes__ == ["in Layer()"]
    assert "which ran at " + line_of("return Raw.apply(x, 1.0, math.nan)") in str(error)


def test_what_a_hook_returns(backend: Backend) -> None:
    bad = tg.full((2,), math.nan, backend=backend)
    on = {"requires_grad": True, "backend": backend}
    leaf, inner = T([1.0, 2.0], **on), T([1.0, 2.0], **on)
    leaf.register_hook(lambda dX: bad)
    said = str(anomaly(lambda: (leaf * 2).sum().backward()))
    assert said.startswith("a hook made 2 NaN among its 2 numbers in the backward pass, at ")

    def run() -> None:
        y = inner * 2
        y.register_hook(lambda dX: bad)
        y.sum().backward()

    said = str(anomaly(run))
    assert said.startswith(
        "a hook made 2 NaN among its 2 numbers in the gradient of multiply, which ran at "
    )
    assert leaf.grad is inner.grad is None


def test_the_gradient_that_backward_is_given(backend: Backend) -> None:
    w = tg.ones(2, requires_grad=True, backend=backend)
    bad = tg.full((2, 1), math.nan, backend=backend)
    message = "backward was given NaN: its input has 2 NaN among its 2 numbers"
    assert str(anomaly(lambda: w.reshape(2, 1).backward(bad))).startswith(message)
    assert w.grad is None
    said = str(anomaly(lambda: autograd.grad(w.reshape(2, 1), w, bad)))
    assert said.startswith(message)


def test_an_infinity_beside_given_ones(backend: Backend) -> None:
    x = T([-INF, 1000.0, 1.0], backend=backend)
    said = str(anomaly(x.exp))
    assert said.startswith("exp made 1 infinity among its 3 numbers, at ")
    assert "divide made 1 infinity among" in str(anomaly(lambda: 1 / T([-INF, 0.0])))
    columns = T([[1.0], [1e38]], backend=backend)
    assert "multiply made 1 infinity among its 6" in str(anomaly(lambda: columns * x))
    assert "made 1 infinity among its 3" in str(anomaly(lambda: x.mul_(1e36)))
    with tg.detect_anomaly():
        assert T([-INF, 1.0, INF], backend=backend).square().tolist() == [INF, 1, INF]
        assert T([-INF, 1.0], backend=backend).mul_(2).tolist() == [-INF, 2]
        assert tg.where(T([True, False]), -INF, T([1.0, INF])).tolist() == [-INF, INF]
        assert T([1.0, INF]).clamp(min=-INF, max=INF).tolist() == [1, INF]


def test_an_infinity_that_a_narrower_dtype_makes(backend: Backend) -> None:
    wide = T([1e300, 1.0, INF], dtype="float64", backend=backend)

    def rows(v: Any) -> None:
        tg.zeros(3, 2, backend=backend)[[0, 2]] = v

    x = tg.zeros(3, backend=backend)
    said = str(anomaly(lambda: x.copy_(wide)))
    assert said.startswith("copy_ made 1 infinity among the 3 numbers of y, at ")
    assert "inputs: x float32(3,), y float64(3,)" in said
    assert "cast made 1 infinity among its 2 numbers" in str(anomaly(lambda: rows(wide[:2])))
    assert "made 1 infinity" in str(anomaly(lambda: tg.full((2,), 1e300, backend=backend)))
    with tg.detect_anomaly():
        x[1:].copy_(wide[1:])
        rows(wide[1:])
        rows(T([math.nan, -INF], backend=backend))
        tg.full((2,), -INF, backend=backend)


def test_a_function_made_of_ops_that_brings_the_nan(backend: Backend) -> None:
    on = {"backend": backend}

    def run() -> None:
        tg.zeros(0, **on).mean()

    assert str(anomaly(run)) == (
        "mean made 1 NaN among its 1 number (in multiply), at "
        f"{line_of('tg.zeros(0, **on).mean()')}; inputs: x float32(), y nan"
    )
    for name in ("std", "var"):
        said = str(anomaly(getattr(tg.zeros(1, **on), name)))
        assert said.startswith(f"{name} made 1 NaN among its 1 number (in ")
    said = str(anomaly(lambda: tg.mean(tg.zeros(0, **on))))
    assert said.startswith("mean made 1 NaN among its 1 number (in multiply), at ")
    said = str(anomaly(lambda: tg.ones(2, **on) * math.nan))  # their own number
    assert said.startswith("multiply was given NaN: y has 1 NaN among its 1 number, at ")
    said = str(anomaly(lambda: T([1.0, math.nan], **on).mean()))
    assert said.startswith("sum was given NaN: x has 1 NaN among its 2 numbers, at ")


def test_an_error_beside_a_backward_pass_that_failed_has_no_note() -> None:
    x = T([1.0], requires_grad=True)

    def fail(dX: Any) -> None:
        raise RuntimeError("lost")

    for check_nan in (True, False):
        y = x * 2
        y.register_hook(fail)
        with pytest.raises(KeyError) as raised, tg.detect_anomaly(check_nan):
            with pytest.raises(RuntimeError, match="lost") as caught:
                y.sum().backward()
            raise KeyError("unrelated")
        assert "in the gradient of multiply, which ran outside" in caught.value.__notes__[0]
        assert not hasattr(raised.value, "__notes__")


# ---- what it does not report


def test_infinities_that_are_given_pass_on(backend: Backend) -> None:
    on = {"backend": backend}
    with tg.detect_anomaly():
        x = tg.randn(2, 3, requires_grad=True, **on)
        mask = T([[True, False, True], [False, True, False]], **on)
        lowest = tg.full((2, 3), -INF, **on)
        x.masked_fill(mask, -INF).softmax(1).square().sum().backward()
        tg.where(mask, x, lowest).log_softmax(1)[0, 0].backward()
        F.cross_entropy(tg.where(mask, x, -INF), T([0, 1], **on)).backward()
        assert (lowest.clone() + x).amax().item() == -INF
        x.detach()[0, 0] = -INF
        tg.full((2,), math.nan, **on).isnan()
    assert np.isfinite(x.grad.tolist()).all()


@pytest.mark.parametrize("masked", ["none", "causal", "booleans", "numbers"])
def test_attention_raises_no_alarm(masked: str) -> None:
    allowed = T([[True, False, False], [True, True, False], [False] * 3])  # one without any key
    masks: dict[str, Any] = {
        "none": {},
        "causal": {"is_causal": True},
        "booleans": {"attn_mask": allowed},
        "numbers": {"attn_mask": tg.where(allowed, 0.0, -INF)},
    }
    with tg.detect_anomaly():
        q, k, v = (tg.randn(2, 3, 4, requires_grad=True) for _ in range(3))
        F.scaled_dot_product_attention(q, k, v, **masks[masked]).square().sum().backward()


LOSSES: dict[str, Callable[[Any, Any], Any]] = {
    "binary_cross_entropy": F.binary_cross_entropy,
    "with_logits": lambda x, y: F.binary_cross_entropy_with_logits((x - 0.5) * 1e4, y),
    "kl_div": F.kl_div,
    "logsumexp": lambda x, y: (x * 1e4).logsumexp(0),
    "max_pool2d": lambda x, y: F.max_pool2d(x.reshape(1, 1, 2, 2), 2, padding=1).sum(),
    "softplus": lambda x, y: F.softplus(x * 1e4).sum(),
    "logsigmoid": lambda x, y: F.logsigmoid(x * -1e4).sum(),
    "elu": lambda x, y: F.elu(x * 1e4).sum(),
    "norm": lambda x, y: (x * 0).norm(),
    "std": lambda x, y: (x * 0).std(),
    "prod": lambda x, y: x.prod(),
}


@pytest.mark.parametrize("name", LOSSES)
def test_what_is_finite_at_its_ends_raises_no_alarm(name: str) -> None:
    x, y = T([0.0, 1.0, 0.0, 1.0], requires_grad=True), T([0.0, 1.0, 1.0, 0.0])
    with tg.detect_anomaly():
        LOSSES[name](x, y).backward()


# ---- where it looks


def test_off_the_door_is_as_before() -> None:
    before = dispatch.observers()
    with tg.detect_anomaly() as outer, tg.detect_anomaly(), outer:
        assert len(dispatch.observers()) == len(before) + 3
    assert dispatch.observers() == before
    with pytest.warns(RuntimeWarning, match="divide by zero"):  # NumPy's, silent in the block only
        T([0.0], backend="numpy").log()


def test_it_watches_its_own_thread() -> None:
    found: list[Any] = []
    with tg.detect_anomaly():
        thread = threading.Thread(target=lambda: found.append((T([np.nan]) * 2).item()))
        thread.start()
        thread.join()
    assert [math.isnan(x) for x in found] == [True]


def test_a_recorded_step_tells_the_lines_it_was_recorded_at(backend: Backend) -> None:
    model = Root()
    w = nn.Parameter(tg.ones(2, backend=backend))

    @tg.jit
    def step(x: Any) -> Any:
        shifted = w * x
        loss = model(shifted + 1).sum()
        w.grad = None
        loss.backward()
        return loss.log()

    with tg.detect_anomaly():
        for _ in range(3):
            step(T([1.0, 2.0], backend=backend))
    forward = anomaly(lambda: step(T([-1.0, -1.0], backend=backend)))
    backward = anomaly(lambda: step(T([-1.0, 2.0], backend=backend)))
    assert " in the gradient of sqrt, which ran at " in str(backward)
    assert f"; backward at {__file__}:" in str(backward)
    assert "(loss.backward())" in str(backward)
    assert "return x.sqrt()" in str(backward)
    assert backward.__notes__ == ["in Root()"]
    assert " in the gradient of sqrt" in str(forward)
    nan = anomaly(lambda: step(T([-3.0, 2.0], backend=backend)))
    assert str(nan).startswith("sqrt made 1 NaN among its 2 numbers, at ")
    assert nan.__notes__ == ["in Root()"]


def test_a_recorded_function_is_named_with_the_line_that_applies_it(backend: Backend) -> None:
    class Copied(autograd.Function):
        @staticmethod
        def forward(ctx: Any, x: tg.Tensor) -> tg.Tensor:
            ctx.save_for_backward(x)
            return x * 1

        @staticmethod
        def backward(ctx: Any, dY: tg.Tensor) -> tg.Tensor:
            return dY / ctx.saved_tensors[0]

    w = nn.Parameter(tg.ones(2, backend=backend))

    @tg.jit
    def step(x: Any) -> None:
        copied = Copied.apply(w * x)
        w.grad = None
        copied.sum().backward()

    for _ in range(3):
        step(tg.ones(2, backend=backend))
    said = str(anomaly(lambda: step(tg.zeros(2, backend=backend))))
    assert said.startswith(
        "divide made 2 infinities among its 2 numbers in the gradient of Copied, which ran at "
        + line_of("copied = Copied.apply(w * x)")
    )
