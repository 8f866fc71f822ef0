"""Optimizers: their state, what they refuse, and their corners."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import tinygrad_mnist as tg
from tinygrad_mnist import nn, optim
from tinygrad_mnist.testing import assert_close

BACKENDS = ["numpy", "numba"]


def stepped(optimizer: optim.Optimizer, steps: int = 3) -> optim.Optimizer:
    """``optimizer`` after some steps along gradients of ones."""
    for _ in range(steps):
        for group in optimizer.param_groups:
            for p in group["params"]:
                p.grad = tg.full(p.shape, 1.0, dtype=p.dtype, backend=p.backend)
        optimizer.step()
    return optimizer


def adam(*shapes: tuple[int, ...], **options: Any) -> optim.Adam:
    return optim.Adam([tg.ones(*shape) for shape in shapes], **options)


def values(state: dict[str, Any]) -> Any:
    """A state_dict as plain data, to be compared."""
    plain = {
        i: {k: v.tolist() if isinstance(v, tg.Tensor) else v for k, v in entry.items()}
        for i, entry in state["state"].items()
    }
    return plain, state["param_groups"]


# ---- state


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize(
    "make",
    [
        lambda params: optim.Adam(params, lr=0.1, weight_decay=0.01),
        lambda params: optim.SGD(params, lr=0.1, momentum=0.9, nesterov=True),
        lambda params: optim.SGD(params, lr=0.1),
    ],
)
def test_a_loaded_state_goes_on_as_the_one_it_came_from(make: Any, backend: str) -> None:
    ours, theirs = ([tg.ones(2, 3, backend=backend), tg.ones(3, backend=backend)] for _ in "ab")
    source, target = stepped(make(ours)), make(theirs)
    target.load_state_dict(source.state_dict())
    assert values(target.state_dict()) == values(source.state_dict())
    for p, q in zip(ours, theirs, strict=True):
        q.copy_(p)
    stepped(source), stepped(target)
    for p, q in zip(ours, theirs, strict=True):
        assert_close(q, p, rtol=0, atol=0)


def test_a_loaded_state_shares_no_memory() -> None:
    source, target = stepped(adam((2,))), adam((2,))
    target.load_state_dict(source.state_dict())
    before = values(target.state_dict())
    stepped(source)
    assert values(target.state_dict()) == before


def test_a_fresh_state_clears_the_moments_and_steps_of_a_used_optimizer() -> None:
    used = stepped(adam((2,)))
    used.load_state_dict(adam((2,)).state_dict())
    assert used.state_dict()["state"] == {}
    (p,) = used.param_groups[0]["params"]
    before = p.numpy().copy()
    stepped(used, 1)
    assert_close(p, before - 1e-3)  # Adam's first step is of length lr


def test_moments_of_numpy_arrays_are_taken_too() -> None:
    state = stepped(adam((2,))).state_dict()
    arrays = {k: v.numpy() if k != "step" else np.int64(v) for k, v in state["state"][0].items()}
    target = adam((2,))
    target.load_state_dict({**state, "state": {0: arrays}})
    assert values(target.state_dict()) == values(state)
    stepped(target)


def changed(state: dict[str, Any], position: int, **entry: Any) -> dict[str, Any]:
    """``state`` with entries of one parameter set, or left out where they are None."""
    new = {k: v for k, v in {**state["state"][position], **entry}.items() if v is not None}
    return {**state, "state": {**state["state"], position: new}}


def with_options(state: dict[str, Any], **options: Any) -> dict[str, Any]:
    return {**state, "param_groups": [{**g, **options} for g in state["param_groups"]]}


@pytest.mark.parametrize(
    ("spoil", "kind", "message"),
    [
        (
            lambda s: changed(s, 1, exp_avg=tg.ones(1)),
            ValueError,
            r"exp_avg of parameter 1 has shape \(1,\), expected \(3,\)",
        ),
        (lambda s: changed(s, 1, exp_avg_sq=None), ValueError, "parameter 1 lacks.*exp_avg_sq"),
        (lambda s: changed(s, 1, step=None), ValueError, "parameter 1 lacks.*step"),
        (lambda s: changed(s, 1, step=-1), ValueError, "step of parameter 1.*got -1"),
        (lambda s: changed(s, 1, step=1.5), ValueError, r"step of parameter 1.*got 1\.5"),
        (lambda s: changed(s, 1, exp_avg=[1.0] * 3), TypeError, "exp_avg of parameter 1.*got list"),
        (
            lambda s: changed(s, 1, momentum_buffer=tg.ones(3)),
            ValueError,
            "parameter 1 .*unknown.*momentum_buffer",
        ),
        (
            lambda s: {**s, "state": {**s["state"], 2: s["state"][1]}},
            ValueError,
            "parameter 2, expected positions 0 to 1",
        ),
        (lambda s: with_options(s, lr=float("nan")), ValueError, "lr must be a finite number"),
        (lambda s: with_options(s, lr="0.1"), TypeError, "lr must be a number"),
        (lambda s: with_options(s, betas=(0.9, 1.0)), ValueError, "betas must be"),
        (lambda s: with_options(s, momentum=0.9), TypeError, r"unknown options \['momentum'\]"),
        (lambda s: {**s, "param_groups": []}, ValueError, r"of groups of \[\] parameters"),
        (lambda s: {"state": {}}, ValueError, "'state' and 'param_groups'"),
    ],
)
def test_a_state_that_does_not_fit_is_refused_and_changes_nothing(
    spoil: Callable[[dict[str, Any]], Any], kind: type[Exception], message: str
) -> None:
    other = spoil(stepped(adam((2,), (3,), lr=0.5), 7).state_dict())
    optimizer = stepped(adam((2,), (3,)))
    before = values(optimizer.state_dict())
    with pytest.raises(kind, match=message):
        optimizer.load_state_dict(other)
    assert values(optimizer.state_dict()) == before


def test_the_state_of_another_optimizer_is_refused() -> None:
    params = [tg.ones(2)]
    with pytest.raises(TypeError, match=r"Adam: unknown options \['dampening', 'momentum'"):
        optim.Adam(params).load_state_dict(optim.SGD(params).state_dict())
    with pytest.raises(TypeError, match=r"SGD: unknown options \['betas', 'eps'\]"):
        optim.SGD(params).load_state_dict(optim.Adam(params).state_dict())


def test_momentum_that_begins_after_the_first_steps_can_be_saved() -> None:
    source = stepped(optim.SGD([tg.ones(2)], lr=0.1))
    source.param_groups[0]["momentum"] = 0.9
    target = optim.SGD([tg.ones(2)])
    target.load_state_dict(source.state_dict())
    assert values(stepped(target).state_dict()) == values(stepped(source).state_dict())


# ---- gradients that do not fit


@pytest.mark.parametrize(
    ("gradient", "kind", "message"),
    [
        (tg.ones(1), ValueError, r"parameter of shape \(2, 3\) has a gradient of shape \(1,\)"),
        (tg.ones(3), ValueError, r"parameter of shape \(2, 3\) has a gradient of shape \(3,\)"),
        (np.ones((2, 3), np.float32), TypeError, r"of shape \(2, 3\).*expected a tensor.*ndarray"),
        (0.5, TypeError, r"of shape \(2, 3\).*expected a tensor.*float"),
        (tg.ones(2, 3, dtype="int64"), TypeError, "float32.*gradient of int64"),
        (tg.ones(2, 3, backend="numba"), ValueError, "numpy.*numba"),
    ],
)
@pytest.mark.parametrize("make", [optim.SGD, optim.Adam])
def test_a_gradient_that_does_not_fit_is_refused_before_any_update(
    make: Any, gradient: Any, kind: type[Exception], message: str
) -> None:
    first, p = tg.ones(4, backend="numpy"), tg.ones(2, 3, backend="numpy")
    if isinstance(gradient, tg.Tensor) and "numba" not in message:
        gradient = gradient.to("numpy")
    optimizer = make([{"params": [first]}, {"params": [p]}])
    first.grad, p.grad = tg.ones(4, backend="numpy"), gradient
    with pytest.raises(kind, match=message):
        optimizer.step()
    assert first.tolist() == [1.0] * 4
    assert p.tolist() == [[1.0] * 3] * 2


def test_leaves_that_require_no_grad_are_taken_but_not_trained() -> None:
    layer = nn.Linear(2, 2)
    layer.bias.requires_grad_(False)
    optimizer = optim.SGD(layer.parameters(), lr=0.1)
    before = layer.bias.tolist(), layer.weight.tolist()
    layer(tg.ones(1, 2)).sum().backward()
    optimizer.step()
    assert layer.bias.tolist() == before[0]
    assert layer.weight.tolist() != before[1]


# ---- options


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda p: optim.SGD(p, lr="0.1"), r"SGD: lr must be a number, got '0.1' \(str\)"),
        (lambda p: optim.SGD(p, lr=None), r"SGD: lr must be a number, got None \(NoneType\)"),
        (lambda p: optim.SGD(p, momentum="0.9", nesterov=True), "momentum must be a number"),
        (lambda p: optim.SGD(p, dampening="0"), "dampening must be a number"),
        (lambda p: optim.Adam(p, eps="1e-8"), "Adam: eps must be a number"),
        (lambda p: optim.Adam(p, weight_decay=[0.0]), "weight_decay must be a number"),
        (lambda p: optim.Adam(p, betas=0.9), r"Adam: betas must be two numbers.*0\.9 \(float\)"),
        (lambda p: optim.Adam(p, betas=("0.9", 0.9)), "Adam: betas must be two numbers"),
    ],
)
def test_an_option_of_a_wrong_type_is_named(make: Any, message: str) -> None:
    with pytest.raises(TypeError, match=message):
        make([tg.ones(2)])


def test_options_may_be_numpy_numbers() -> None:
    stepped(optim.Adam([tg.ones(2)], lr=np.float32(0.1), betas=[np.float64(0.9), 0.99]))


def test_nesterov_without_momentum_is_refused_in_a_group_too() -> None:
    with pytest.raises(ValueError, match="nesterov needs a momentum"):
        optim.SGD([{"params": tg.ones(2), "nesterov": True}], lr=0.1)


# ---- steps


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_closure_runs_with_gradients_under_no_grad(backend: str) -> None:
    w = tg.ones(2, backend=backend).requires_grad_()
    optimizer = optim.SGD([w], lr=0.25)

    def closure() -> tg.Tensor:
        assert tg.is_grad_enabled()
        optimizer.zero_grad()
        loss = w.square().sum()
        loss.backward()
        return loss

    with tg.no_grad():
        assert optimizer.step(closure).item() == 2.0
        assert not tg.is_grad_enabled()
    assert w.tolist() == [0.5, 0.5]


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_adam_keeps_no_denormal_moments(backend: str, dtype: str) -> None:
    tiny = np.finfo(dtype).tiny
    p = tg.ones(1000, dtype=dtype, backend=backend)
    optimizer = optim.Adam([p])
    p.grad = tg.full((1000,), float(tiny) * 64, dtype=dtype, backend=backend)
    optimizer.step()
    moment = optimizer.state[p]["exp_avg"]
    assert (moment.numpy() > tiny).all()
    p.grad = tg.zeros(1000, dtype=dtype, backend=backend)
    for _ in range(100):
        optimizer.step()
        found = np.abs(moment.numpy())
        assert not ((found > 0) & (found < tiny)).any()
    assert (found == 0).all()


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_moments_follow_a_module_that_was_moved(backend: str, dtype: str) -> None:
    model = nn.Linear(2, 1)
    optimizer = stepped(optim.Adam(model.parameters(), lr=0.1))
    before = values(optimizer.state_dict())[0]
    model.to(backend).to(dtype)
    for entry, old in zip(optimizer.state_dict()["state"].values(), before.values(), strict=True):
        assert_close(entry["exp_avg"].double(), np.array(old["exp_avg"]), rtol=1e-6)
    stepped(optimizer, 1)
    for entry in optimizer.state_dict()["state"].values():
        assert entry["step"] == 4
        assert entry["exp_avg"].dtype == dtype
        assert entry["exp_avg"].backend.name == backend
