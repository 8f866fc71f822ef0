"""Optimizers: their state, what they refuse, and their corners."""

from __future__ import annotations

import copy
import inspect
import pickle
import textwrap
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import tinygrad_mnist as tg
from tinygrad_mnist import dispatch, nn, optim
from tinygrad_mnist.testing import assert_close

BACKENDS = ["numpy", "numba"]
MAKES: dict[str, Callable[..., optim.Optimizer]] = {
    "sgd": optim.SGD,
    "momentum": lambda params, **o: optim.SGD(params, momentum=0.9, nesterov=True, **o),
    "adam": lambda params, **o: optim.Adam(params, weight_decay=0.01, **o),
    "amsgrad": lambda params, **o: optim.AdamW(params, amsgrad=True, **o),
    "adagrad": lambda params, **o: optim.Adagrad(params, lr_decay=0.1, **o),
    "adadelta": optim.Adadelta,
    "rmsprop": lambda params, **o: optim.RMSprop(params, momentum=0.9, centered=True, **o),
}
all_optimizers = pytest.mark.parametrize("make", MAKES.values(), ids=MAKES)


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
@all_optimizers
def test_a_loaded_state_goes_on_as_the_one_it_came_from(make: Any, backend: str) -> None:
    ours, theirs = ([tg.ones(2, 3, backend=backend), tg.ones(3, backend=backend)] for _ in "ab")
    source, target = stepped(make(ours, lr=0.1)), make(theirs)
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


@pytest.mark.parametrize("step", [3, 3.0, np.int64(3), np.array(3.0), tg.tensor(3.0)])
def test_step_counts_may_be_numbers_or_arrays_of_one(step: Any) -> None:
    target = adam((2,))
    target.load_state_dict(changed(stepped(adam((2,))).state_dict(), 0, step=step))
    entry = target.state_dict()["state"][0]
    assert (entry["step"], type(entry["step"])) == (3, int)


@all_optimizers
def test_copies_of_an_optimizer_are_on_their_own(make: Any) -> None:
    def content(optimizer: optim.Optimizer) -> Any:
        params = [p.tolist() for group in optimizer.param_groups for p in group["params"]]
        return params, values(optimizer.state_dict())

    source = stepped(make([tg.ones(2, 3, backend="numpy")], lr=0.1))
    before = content(source)
    twins = [copy.deepcopy(source), pickle.loads(pickle.dumps(source))]
    after = [content(stepped(twin, 1)) for twin in twins]
    assert content(source) == before
    assert after == [content(stepped(source, 1))] * 2


def test_what_pytorch_alone_keeps_in_a_group_is_left_out() -> None:
    state = adam((2,)).state_dict()
    target = adam((2,))
    target.load_state_dict(with_options(state, foreach=None, fused=True, initial_lr=0.5))
    assert target.state_dict()["param_groups"][0].keys() - state["param_groups"][0].keys() == {
        "initial_lr"
    }


def test_adamw_decouples_whatever_it_loads() -> None:
    p = tg.ones(2)
    target = optim.AdamW([p])
    target.load_state_dict(optim.Adam([p], weight_decay=0.5).state_dict())
    group = target.param_groups[0]
    assert (group["decoupled_weight_decay"], group["weight_decay"]) == (True, 0.5)


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
        (lambda s: changed(s, 1, step="3"), ValueError, "step of parameter 1.*got '3'$"),
        (lambda s: changed(s, 1, step=tg.ones(1)), ValueError, "step of parameter 1.*integer"),
        (lambda s: changed(s, 1, step=np.array(np.nan)), ValueError, "step of parameter 1"),
        (lambda s: changed(s, 1, exp_avg=np.ones(3, int)), TypeError, "must be of floats"),
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
        (lambda s: with_options(s, lr="0.1"), TypeError, "lr must be a number"),
        (lambda s: with_options(s, betas=(0.9,)), ValueError, "betas must be two numbers"),
        (lambda s: with_options(s, momentum=0.9), TypeError, r"unknown options \['momentum'\]"),
        (lambda s: {**s, "param_groups": []}, ValueError, r"of groups of \[\] parameters"),
        (lambda s: {"state": {}}, ValueError, "'state' and 'param_groups'"),
        (lambda s: "state.pt", TypeError, "expected a state_dict, got a str"),
        (
            lambda s: {**s, "param_groups": None},
            TypeError,
            "'param_groups' of a state must be a list of dicts, got a NoneType",
        ),
        (lambda s: {**s, "param_groups": [3]}, TypeError, "list of dicts, got an int in it"),
        (
            lambda s: {**s, "param_groups": [{"lr": 0.1}]},
            ValueError,
            "group 0 of a state must list its 'params'",
        ),
        (lambda s: with_options(s, params=None), ValueError, "group 0 .* must list its"),
        (lambda s: {**s, "state": [1]}, TypeError, "'state' of a state must be a dict, got a list"),
        (
            lambda s: {**s, "state": {0: None}},
            TypeError,
            "the state of parameter 0 must be a dict, got a NoneType",
        ),
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


def test_a_rate_that_a_schedule_set_is_loaded_whatever_it_is() -> None:
    """In floats a fall to 0 may end below; PyTorch's does so too."""
    source = adam((2,), lr=0.1)
    schedule = optim.lr_scheduler.LinearLR(source, 0.1, 0.0, 9)
    for _ in range(9):
        stepped(source, 1)
        schedule.step()
    assert -1e-15 < source.param_groups[0]["lr"] < 0
    target = adam((2,))
    target.load_state_dict(source.state_dict())
    assert values(target.state_dict()) == values(source.state_dict())
    stepped(target)
    for out_of_range in ({"lr": -1.0}, {"betas": (0.9, 1.0)}, {"eps": float("inf")}):
        target.load_state_dict(with_options(source.state_dict(), **out_of_range))
        assert target.param_groups[0].items() >= out_of_range.items()


@all_optimizers
def test_a_state_that_was_only_looked_at_is_none(make: Any) -> None:
    source, target = (make([tg.ones(2), tg.ones(3)]) for _ in "ab")
    for p in source.param_groups[0]["params"]:
        assert source.state[p] == {}
    assert source.state[tg.ones(1)] == {}  # of no parameter of its
    assert source.state_dict()["state"] == {}
    stepped(target).load_state_dict({**source.state_dict(), "state": {0: {}, 1: {}}})
    assert target.state_dict()["state"] == {}
    stepped(target)


def test_the_state_of_another_optimizer_is_refused() -> None:
    params = [tg.ones(2)]
    with pytest.raises(TypeError, match=r"Adam: unknown options \['dampening', 'momentum'"):
        optim.Adam(params).load_state_dict(optim.SGD(params).state_dict())
    with pytest.raises(TypeError, match=r"SGD: unknown options \['amsgrad', 'betas',"):
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


@all_optimizers
def test_a_parameter_frozen_later_stays_as_it_is(make: Any) -> None:
    """Its momentum and weight decay, too, rest while it has no gradient."""
    layer = nn.Linear(2, 2)
    optimizer = make(layer.named_parameters(), lr=0.1)

    def step() -> None:
        optimizer.zero_grad()
        layer(tg.ones(1, 2)).square().sum().backward()
        optimizer.step()

    step()
    layer.bias.requires_grad_(False)
    before = layer.bias.tolist(), layer.weight.tolist()
    state = values(optimizer.state_dict())[0].get(1)
    step()
    assert layer.bias.tolist() == before[0]
    assert layer.weight.tolist() != before[1]
    assert values(optimizer.state_dict())[0].get(1) == state


def test_zero_grad_forgets_or_fills_with_zeros() -> None:
    p, q = tg.ones(2), tg.ones(3)
    optimizer = optim.SGD([p, q])
    p.grad = kept = tg.ones(2)
    optimizer.zero_grad(set_to_none=False)
    assert (p.grad.tolist(), kept.tolist(), q.grad) == ([0, 0], [0, 0], None)
    optimizer.zero_grad()
    assert p.grad is None


# ---- parameters and groups


def test_groups_have_options_of_their_own() -> None:
    p, q = tg.ones(2), tg.ones(3)
    optimizer = optim.SGD([{"params": p, "name": "first"}, {"params": [], "lr": 1}], lr=0.5)
    optimizer.add_param_group({"params": (x for x in [q]), "lr": 0.25, "initial_lr": 0.1})
    stepped(optimizer, 1)
    assert (p.tolist(), q.tolist()) == ([0.5, 0.5], [0.75, 0.75, 0.75])
    assert [group.get("name") for group in optimizer.param_groups] == ["first", None, None]
    assert repr(optimizer).startswith("SGD (\nParameter Group 0\n    dampening: 0\n    lr: 0.5\n")


def test_named_parameters_keep_their_names() -> None:
    layer = nn.Linear(2, 2)
    optimizer = optim.SGD(layer.named_parameters())
    assert optimizer.param_groups[0]["param_names"] == ["weight", "bias"]
    assert optimizer.param_groups[0]["params"] == [layer.weight, layer.bias]
    optimizer.load_state_dict(optimizer.state_dict())
    again = optim.Adam(
        [{"params": g["params"], "param_names": g["param_names"]} for g in optimizer.param_groups]
    )
    assert again.param_groups[0]["param_names"] == ["weight", "bias"]
    for extra in ([tg.ones(1)], [("a", tg.ones(1)), tg.ones(1)]):
        with pytest.raises(ValueError, match="name the parameters of all groups, or of none"):
            optimizer.add_param_group({"params": extra})
    assert len(optimizer.param_groups) == 1


P = tg.ones(2)


@pytest.mark.parametrize(
    ("params", "kind", "message"),
    [
        (list, ValueError, "^Adam: got no parameters$"),
        (lambda: iter([]), ValueError, "got no parameters; was the iterator used up before"),
        (lambda: nn.Linear(1, 1), TypeError, r"got a Linear; use its parameters\(\)"),
        (lambda: nn.Linear(1, 1).parameters, TypeError, r"a method; call it: parameters\(\)"),
        (lambda: nn.Linear(1, 1).state_dict(), TypeError, r"dict; give its values\(\), or a list"),
        (lambda: {"params": [P]}, TypeError, r"a list of groups: \[{'params': …}\]"),
        (lambda: {P}, TypeError, "got a set; its order changes"),
        (lambda: P, TypeError, "got a Tensor; put it in a list"),
        (lambda: 3, TypeError, "expected tensors, got an int; give a list"),
        (lambda: [P, 3.0], TypeError, "parameter 1 of group 0 is a float, expected a tensor"),
        (lambda: [np.ones(2)], TypeError, "parameter 0 of group 0 is a ndarray"),
        (lambda: [P, {"params": [P]}], TypeError, "parameter 1 of group 0 is a dict"),
        (lambda: [{"params": [P]}, P], TypeError, "group 1 is a Tensor, expected a dict"),
        (lambda: [{"param": [P]}], ValueError, r"group 0 has no 'params', only \['param'\]"),
        (lambda: [{"params": nn.ReLU()}], TypeError, r"got a ReLU; use its parameters\(\)"),
        (lambda: [P, tg.arange(2)], ValueError, "parameter 1 of group 0 is int64; only floats"),
        (
            lambda: [tg.ones(2, requires_grad=True) * 2],
            ValueError,
            "parameter 0 of group 0 was computed by .*give the leaves",
        ),
        (
            lambda: [tg.ones(3), P, P],
            ValueError,
            r"parameter 2 of group 0, of shape \(2,\), is given twice: it is parameter 1 of",
        ),
        (
            lambda: [{"params": [tg.ones(3), P]}, {"params": P}],
            ValueError,
            "parameter 0 of group 1, .* is given twice: it is parameter 1 of group 0",
        ),
    ],
)
def test_what_is_no_list_of_parameters_is_refused(
    params: Any, kind: type[Exception], message: str
) -> None:
    with pytest.raises(kind, match=message):
        optim.Adam(params())


@pytest.mark.parametrize(
    "group",
    [
        {"params": [tg.ones(1), P]},
        {"params": [tg.ones(1)], "lr": -1},
        {"params": [tg.ones(1)], "learning_rate": 1},
    ],
)
def test_a_group_that_is_refused_is_not_there(group: dict[str, Any]) -> None:
    optimizer = optim.SGD([P])
    with pytest.raises((ValueError, TypeError)):
        optimizer.add_param_group(group)
    assert len(optimizer.param_groups) == 1


# ---- options


@pytest.mark.parametrize(
    ("make", "options", "message"),
    [
        (optim.Adam, {"learning_rate": 1}, r"\['learning_rate'\] \(did you mean 'lr'\?\); known"),
        (optim.SGD, {"Lr": 1}, "did you mean 'lr'"),
        (optim.SGD, {"weigth_decay": 1}, "did you mean 'weight_decay'"),
        (optim.AdamW, {"beta": (0.9, 0.99)}, "did you mean 'betas'"),
        (optim.Adagrad, {"decay": 0.1}, "did you mean 'lr_decay'"),
        (optim.Adadelta, {"zzz": 1}, r"\['zzz'\]; known: \['lr', 'rho', 'eps', "),
        (optim.RMSprop, {"fused": True}, "'fused' is PyTorch's way to run an update"),
    ],
)
def test_an_unknown_option_is_named_and_another_proposed(
    make: Any, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(TypeError, match=f"{make.__name__}: unknown options .*{message}"):
        make([P], **options)
    with pytest.raises(TypeError, match=f"{make.__name__}: unknown options .*{message}"):
        make([{"params": P, **options}])


@pytest.mark.parametrize(
    ("make", "options", "message"),
    [
        (optim.SGD, {"lr": -0.1}, "lr must be a finite number of at least 0, got -0.1"),
        (optim.SGD, {"lr": float("inf")}, "lr must be a finite number"),
        (optim.SGD, {"momentum": -1}, "momentum must be"),
        (optim.SGD, {"dampening": float("nan")}, "dampening must be a finite number"),
        (optim.SGD, {"momentum": 0.9, "nesterov": True, "dampening": 0.1}, "nesterov needs"),
        (optim.Adam, {"betas": (-0.1, 0.9)}, "betas must be two numbers in"),
        (optim.Adam, {"betas": (0.9,)}, "betas must be two numbers in"),
        (optim.AdamW, {"weight_decay": -1}, "weight_decay must be"),
        (optim.Adagrad, {"lr_decay": -1}, "lr_decay must be"),
        (optim.Adagrad, {"initial_accumulator_value": -1}, "initial_accumulator_value must be"),
        (optim.Adadelta, {"rho": 1.1}, "rho must be in 0 to 1, got 1.1"),
        (optim.RMSprop, {"alpha": float("nan")}, "alpha must be in 0 to 1"),
        (optim.RMSprop, {"eps": -1e-8}, "eps must be"),
    ],
)
def test_an_option_out_of_range_is_refused(make: Any, options: Any, message: str) -> None:
    with pytest.raises(ValueError, match=f"{make.__name__}: {message}"):
        make([P], **options)
    with pytest.raises(ValueError, match=f"{make.__name__}: {message}"):
        make([{"params": P, **options}])


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda p: optim.SGD(p, lr="0.1"), "SGD: lr must be a number, got '0.1'$"),
        (lambda p: optim.SGD(p, lr=None), "SGD: lr must be a number, got None$"),
        (lambda p: optim.SGD(p, momentum="0.9", nesterov=True), "momentum must be a number"),
        (lambda p: optim.SGD(p, dampening="0"), "dampening must be a number"),
        (lambda p: optim.Adam(p, eps="1e-8"), "Adam: eps must be a number"),
        (lambda p: optim.Adam(p, weight_decay=[0.0]), "weight_decay must be a number"),
        (lambda p: optim.Adam(p, betas=0.9), r"Adam: betas must be two numbers.*got 0\.9$"),
        (lambda p: optim.Adam(p, betas=("0.9", 0.9)), "Adam: betas must be two numbers"),
        (lambda p: optim.Adam(p, amsgrad="yes"), "amsgrad must be a bool, got 'yes'$"),
        (lambda p: optim.RMSprop(p, centered=None), "centered must be a bool, got None"),
        (lambda p: optim.SGD(p, nesterov=tg.ones(2)), "nesterov must be a bool, got a tensor"),
        (lambda p: optim.Adam(p, lr=True), "Adam: lr must be a number, got True"),
        (lambda p: optim.Adam(p, betas=(False, 0.9)), r"betas must be two numbers.*\(False, 0.9\)"),
        (lambda p: optim.SGD(p, lr=tg.ones(2, 3)), r"got a tensor of shape \(2, 3\)$"),
    ],
)
def test_an_option_of_a_wrong_type_is_named(make: Any, message: str) -> None:
    with pytest.raises(TypeError, match=message):
        make([tg.ones(2)])


def test_options_may_be_numpy_numbers() -> None:
    p, q = tg.ones(2), tg.ones(2)
    stepped(optim.Adam([p], lr=np.float32(0.25), betas=[np.float64(0.5), 0.75], eps=np.int64(1)))
    stepped(optim.Adam([q], lr=0.25, betas=(0.5, 0.75), eps=1))
    assert p.tolist() == q.tolist() != [1.0, 1.0]


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
@pytest.mark.parametrize(
    "make",
    [
        lambda p: optim.SGD(p, momentum=0.5),
        lambda p: optim.Adam(p, betas=(0.5, 0.5)),
        lambda p: optim.Adadelta(p, rho=0.5, eps=1e-30),
        lambda p: optim.RMSprop(p, alpha=0.5, momentum=0.5, centered=True),
    ],
    ids=["sgd", "adam", "adadelta", "rmsprop"],
)
def test_moments_decay_to_zero_and_never_into_denormals(
    make: Any, dtype: str, backend: str
) -> None:
    tiny = np.finfo(dtype).tiny
    p = tg.ones(1000, dtype=dtype, backend=backend)
    optimizer = make([p])
    p.grad = tg.full((1000,), float(np.sqrt(tiny) * 64), dtype=dtype, backend=backend)
    optimizer.step()
    moments = [m.numpy() for k, m in optimizer.state[p].items() if k != "step"]
    assert all((moment > 0).all() for moment in moments)
    p.grad = tg.zeros(1000, dtype=dtype, backend=backend)
    for _ in range(1200):
        optimizer.step()
        for moment in moments:
            assert not ((moment > 0) & (moment < tiny)).any()
    assert not np.any(moments)


class Kernels(dispatch.Observer):
    """Which kernels ran, with what."""

    def __init__(self) -> None:
        self.calls: list[dispatch.Call] = []

    def after(self, call: dispatch.Call, result: Any) -> None:
        self.calls.append(call)


@all_optimizers
def test_a_group_is_one_kernel_call_of_host_numbers(make: Any) -> None:
    params = [tg.ones(n, backend="numpy") for n in range(6)]
    optimizer = stepped(make([{"params": params[:4]}, {"params": params[4:], "lr": 0.5}]))
    seen = Kernels()
    with dispatch.observe(seen):
        optimizer.step()
    assert [len(c.arrays[0]) for c in seen.calls] == [4, 2]
    assert len({c.kernel for c in seen.calls}) == 1
    for c in seen.calls:
        fixed = set(c.static) - set(c.hosts)
        assert fixed <= {"first"}  # whether a momentum begins
    optimizer.param_groups[0]["lr"] = 0.125
    assert seen.calls[0].hosts["lr"]() == 0.125


@pytest.mark.parametrize(
    ("make", "option", "value", "moment"),
    [
        (optim.SGD, "momentum", 0.9, "momentum_buffer"),
        (optim.Adam, "amsgrad", True, "max_exp_avg_sq"),
        (optim.RMSprop, "centered", True, "grad_avg"),
        (optim.RMSprop, "momentum", 0.9, "momentum_buffer"),
    ],
)
def test_an_option_may_be_turned_on_and_off_midway(
    make: Any, option: str, value: Any, moment: str
) -> None:
    p = tg.ones(3)
    optimizer = stepped(make([p]))
    assert moment not in optimizer.state[p]
    optimizer.param_groups[0][option] = value
    stepped(optimizer, 2)
    kept = optimizer.state[p][moment].tolist()
    optimizer.param_groups[0][option] = type(value)(0)
    stepped(optimizer, 1)
    assert optimizer.state[p][moment].tolist() == kept
    assert np.isfinite(p.numpy()).all()


# ---- optimizers of one's own


def test_the_example_of_an_optimizer_of_ones_own_works() -> None:
    text = (inspect.getdoc(optim.Optimizer) or "").partition("::\n\n")[2]
    example = "\n".join(line for line in text.splitlines() if line.startswith("    "))
    names: dict[str, Any] = {"optim": optim, "tg": tg}
    exec(textwrap.dedent(example), names)
    model = nn.Linear(2, 1)
    optimizer = names["SignSGD"](model.parameters(), lr=0.25)
    before = model.bias.tolist()
    model(tg.ones(1, 2)).sum().backward()
    optimizer.step()
    assert model.bias.tolist() == pytest.approx([before[0] - 0.25], rel=1e-6)
    with pytest.raises(TypeError, match=r"SignSGD: unknown options .*did you mean 'lr'"):
        names["SignSGD"](model.parameters(), learning_rate=0.25)


class Averaging(optim.Optimizer):
    """Keeps a tensor and a count of its own."""

    def __init__(self, params: Any, lr: float = 0.5, **more: Any) -> None:
        super().__init__(params, {"lr": lr, **more})

    @tg.no_grad()
    def step(self, closure: Any = None) -> Any:
        for group in self.param_groups:
            for p in group["params"]:
                state = self.state[p]
                if not state:
                    state.update(count=0, mean=tg.zeros(p.shape), note=["kept"])
                state["count"] += 1
                state["mean"] += (p.grad - state["mean"]) / state["count"]
                p -= group["lr"] * state["mean"]


def test_an_optimizer_of_ones_own_has_state_groups_and_schedules() -> None:
    p, q = tg.ones(2), tg.ones(2)
    source, target = Averaging([p], decay=0.1), Averaging([q], lr=3, decay=0.2)
    schedule = optim.lr_scheduler.StepLR(source, 1, 0.5)
    stepped(source, 2)
    schedule.step()
    target.load_state_dict(source.state_dict())
    assert target.param_groups[0]["lr"] == 0.25
    entry = target.state[q]
    assert (entry["count"], entry["mean"].tolist(), entry["note"]) == (2, [1.0, 1.0], ["kept"])
    assert entry["note"] is not source.state[p]["note"]
    stepped(source, 1)
    assert entry["count"] == 2
    with pytest.raises(NotImplementedError, match="Optimizer: a subclass must have step"):
        optim.Optimizer([p], {}).step()


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
