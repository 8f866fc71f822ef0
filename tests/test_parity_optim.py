"""Optimizers and schedules beside PyTorch's, step by step, and states taken over both ways."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import tinygrad_mnist as tg

torch = pytest.importorskip("torch", reason="PyTorch is not installed")

BACKENDS = ["numpy", "numba"]
Options = dict[str, Any]
Difference = Callable[[str, str, float], None]

# What each optimizer is tried with, and what its second group has of its own.
OPTIMIZERS: list[tuple[str, Options, Options]] = [
    ("SGD", {"lr": 0.05}, {"weight_decay": 0.1}),
    ("SGD", {"lr": 0.05, "maximize": True}, {"lr": 0.01}),
    ("SGD", {"lr": 0.05, "momentum": 0.9}, {"nesterov": True, "weight_decay": 0.1}),
    ("SGD", {"lr": 0.05, "momentum": 0.9, "dampening": 0.3, "weight_decay": 0.1}, {"momentum": 0}),
    ("SGD", {"lr": 0.01, "momentum": 0.5, "nesterov": True, "maximize": True}, {"lr": 0.02}),
    ("Adam", {"lr": 0.05}, {"betas": (0.5, 0.9)}),
    ("Adam", {"lr": 0.05, "amsgrad": True, "weight_decay": 0.1}, {"amsgrad": False}),
    (
        "Adam",
        {"lr": 0.02, "maximize": True, "eps": 1e-3},
        {"weight_decay": 0.2, "betas": (0.5, 0.9)},
    ),
    ("Adam", {"lr": 0.02, "decoupled_weight_decay": True, "weight_decay": 0.1}, {"lr": 0.1}),
    ("AdamW", {"lr": 0.05}, {"weight_decay": 0.3}),
    ("AdamW", {"lr": 0.05, "amsgrad": True, "maximize": True}, {"betas": (0.8, 0.99)}),
    ("Adagrad", {"lr": 0.5}, {"lr_decay": 0.1}),
    ("Adagrad", {"lr": 0.3, "initial_accumulator_value": 0.5}, {"weight_decay": 0.1}),
    ("Adagrad", {"lr": 0.1, "lr_decay": 0.01, "maximize": True}, {"eps": 1e-3}),
    ("Adadelta", {}, {"rho": 0.5}),
    ("Adadelta", {"lr": 0.5, "weight_decay": 0.1}, {"eps": 1e-3}),
    ("Adadelta", {"rho": 0.8, "maximize": True}, {"lr": 2.0}),
    ("RMSprop", {}, {"alpha": 0.9}),
    ("RMSprop", {"momentum": 0.9, "weight_decay": 0.1}, {"momentum": 0}),
    ("RMSprop", {"centered": True, "alpha": 0.9}, {"centered": False}),
    ("RMSprop", {"centered": True, "momentum": 0.5, "maximize": True}, {"eps": 1e-3}),
]
SHAPES: list[tuple[int, ...]] = [(3, 4), (5,), (), (0, 3), (2, 1, 3), (70,)]
FIRST = 4  # of these are in the first group


def label(name: str, options: Options, more: Options) -> str:
    first, second = (", ".join(f"{k}={v}" for k, v in o.items()) for o in (options, more))
    return f"{name}({first}; {second})"


settings = pytest.mark.parametrize(
    ("name", "options", "more"), OPTIMIZERS, ids=[label(*row) for row in OPTIMIZERS]
)


class Side:
    """Parameters, an optimizer and a schedule of one of the two libraries."""

    def __init__(self, library: Any, name: str, options: Options, more: Options, **to: Any) -> None:
        self.library, self.to = library, to
        random = np.random.default_rng(0)
        self.params = [self.tensor(random.standard_normal(shape)) for shape in SHAPES]
        self.groups = [{"params": self.params[:FIRST]}, {"params": self.params[FIRST:], **more}]
        self.make = lambda: getattr(library.optim, name)(
            [{**g, "params": list(g["params"])} for g in self.groups], **options
        )
        self.optimizer = self.make()
        self.schedule = self.scheduled()

    def tensor(self, array: Any) -> Any:
        made = self.library.tensor(np.asarray(array), **self.to)
        return made.requires_grad_()

    def scheduled(self) -> Any:
        return self.library.optim.lr_scheduler.StepLR(self.optimizer, step_size=20, gamma=0.8)

    def values(self) -> list[np.ndarray]:
        return [p.detach().numpy().copy() for p in self.params]

    def step(self, number: int, gradients: list[np.ndarray]) -> None:
        """One step; the second parameter has a gradient from step 10 on, every third time."""
        for i, (p, g) in enumerate(zip(self.params, gradients, strict=True)):
            absent = i == 1 and (number < 10 or number % 3)
            p.grad = None if absent else self.tensor(g).detach()
        self.optimizer.step()
        self.schedule.step()


def gradients(number: int, at: list[np.ndarray], up: bool) -> list[np.ndarray]:
    """Of a bowl, with noise; upside down where the optimizer goes up."""
    random = np.random.default_rng(number)
    sign = -1 if up else 1
    return [sign * x + 0.3 * np.asarray(random.standard_normal(x.shape)) for x in at]


def distance(found: list[np.ndarray], expected: list[np.ndarray]) -> float:
    """The largest difference, of numbers above 1 relative to them."""
    worst = 0.0
    for x, y in zip(found, expected, strict=True):
        assert (x.dtype, x.shape) == (y.dtype, y.shape)
        assert np.isfinite(y).all()
        worst = max(worst, np.max(np.abs(x - y) / np.maximum(1, np.abs(y)), initial=0))
    return float(worst)


def run(side: Side, other: Side, steps: range, up: bool) -> float:
    """Both on gradients at where the second is; how far apart they come."""
    worst = 0.0
    for number in steps:
        slopes = gradients(number, other.values(), up)
        side.step(number, slopes)
        other.step(number, slopes)
        worst = max(worst, distance(side.values(), other.values()))
    return worst


@pytest.mark.parametrize("backend", BACKENDS)
@settings
def test_optimizers_take_pytorchs_path(
    name: str, options: Options, more: Options, backend: str, difference: Difference
) -> None:
    """100 steps in float64, two groups, a rate that falls, a parameter often without gradient."""
    ours = Side(tg, name, options, more, dtype="float64", backend=backend)
    theirs = Side(torch, name, options, more, dtype=torch.float64)
    start = theirs.values()
    worst = run(ours, theirs, range(100), options.get("maximize", False))
    assert distance(start, theirs.values()) > 0.05
    assert worst < 1e-13
    difference("optimizers", name, worst)


@pytest.mark.parametrize("backend", BACKENDS)
@settings
def test_optimizers_take_pytorchs_path_in_float32(
    name: str, options: Options, more: Options, backend: str
) -> None:
    ours = Side(tg, name, options, more, dtype="float32", backend=backend)
    theirs = Side(torch, name, options, more, dtype=torch.float32)
    assert run(ours, theirs, range(100), options.get("maximize", False)) < 2e-5


def as_torch(state: dict[str, Any]) -> dict[str, Any]:
    """A state_dict of ours with PyTorch's tensors in it."""
    entries = {
        i: {k: torch.tensor(v.numpy()) if isinstance(v, tg.Tensor) else v for k, v in entry.items()}
        for i, entry in state["state"].items()
    }
    return {**state, "state": entries}


def as_numpy(state: dict[str, Any]) -> dict[str, Any]:
    """A state_dict of PyTorch's with NumPy's arrays in it."""
    entries = {
        i: {k: v.numpy() if torch.is_tensor(v) else v for k, v in entry.items()}
        for i, entry in state["state"].items()
    }
    return {**state, "state": entries}


@pytest.mark.parametrize("through", [as_numpy, lambda state: state], ids=["arrays", "tensors"])
@settings
def test_a_state_of_pytorchs_goes_on_here(
    name: str, options: Options, more: Options, through: Any
) -> None:
    ours = Side(tg, name, options, more, dtype="float64", backend="numpy")
    theirs = Side(torch, name, options, more, dtype=torch.float64)
    up = options.get("maximize", False)
    for number in range(25):
        theirs.step(number, gradients(number, theirs.values(), up))
    with tg.no_grad():
        for p, value in zip(ours.params, theirs.values(), strict=True):
            p.copy_(value)
    ours.optimizer.load_state_dict(through(theirs.optimizer.state_dict()))
    ours.schedule.last_epoch = theirs.schedule.last_epoch
    assert run(ours, theirs, range(25, 60), up) < 1e-13


@settings
def test_a_state_of_ours_goes_on_in_pytorch(name: str, options: Options, more: Options) -> None:
    ours = Side(tg, name, options, more, dtype="float64", backend="numpy")
    theirs = Side(torch, name, options, more, dtype=torch.float64)
    up = options.get("maximize", False)
    for number in range(25):
        ours.step(number, gradients(number, ours.values(), up))
    with torch.no_grad():
        for p, value in zip(theirs.params, ours.values(), strict=True):
            p.copy_(torch.tensor(value))
    theirs.optimizer.load_state_dict(as_torch(ours.optimizer.state_dict()))
    theirs.schedule.last_epoch = ours.schedule.last_epoch
    assert run(theirs, ours, range(25, 60), up) < 1e-13


@settings
def test_states_have_pytorchs_entries(name: str, options: Options, more: Options) -> None:
    ours = Side(tg, name, options, more, dtype="float64", backend="numpy")
    theirs = Side(torch, name, options, more, dtype=torch.float64)
    run(ours, theirs, range(15), options.get("maximize", False))
    found, expected = ours.optimizer.state_dict(), theirs.optimizer.state_dict()
    assert found["state"].keys() == expected["state"].keys()
    for i, entry in expected["state"].items():
        entry = {key: value for key, value in entry.items() if value is not None}
        assert found["state"][i].keys() == entry.keys()
        assert found["state"][i].get("step") == entry.get("step")
    for group, other in zip(found["param_groups"], expected["param_groups"], strict=True):
        runs = {"foreach", "fused", "capturable", "differentiable"}
        assert group == {key: value for key, value in other.items() if key not in runs}


def test_repr_is_pytorchs_less_what_only_pytorch_has() -> None:
    options: Options = {"lr": 0.1, "momentum": 0.9}
    found = [
        repr(Side(library, "SGD", options, {"weight_decay": 0.5}).optimizer)
        for library in (tg, torch)
    ]
    lines = [
        line
        for line in found[1].splitlines()
        if line.split(":")[0].strip() not in ("foreach", "fused", "differentiable")
    ]
    assert found[0].splitlines() == lines


# ---- schedules: to the last bit


def named(name: str, *args: Any, **options: Any) -> Callable[[Any, Any], Any]:
    """Makes the schedule ``name`` of an ``lr_scheduler`` module on an optimizer."""
    return lambda module, optimizer: getattr(module, name)(optimizer, *args, **options)


def sequential(milestones: list[int], *makes: Callable[[Any, Any], Any]) -> Any:
    return lambda module, optimizer: module.SequentialLR(
        optimizer, [make(module, optimizer) for make in makes], milestones
    )


def doubling(step: int) -> float:
    return 1.01**step


SCHEDULES: dict[str, list[Callable[[Any, Any], Any]]] = {
    "StepLR": [
        named("StepLR", 1),
        named("StepLR", 7, 0.7),
        named("StepLR", step_size=50, gamma=1.1),
    ],
    "MultiStepLR": [
        named("MultiStepLR", [10, 30, 31]),
        named("MultiStepLR", [0, 5, 5, 199], 0.3),
        named("MultiStepLR", [], 0.3),
    ],
    "ExponentialLR": [named("ExponentialLR", g) for g in (0.9, 0.97, 1.0, 1.01)],
    "CosineAnnealingLR": [
        named("CosineAnnealingLR", 200),
        named("CosineAnnealingLR", 199, 1e-3),
        named("CosineAnnealingLR", 37, eta_min=0.01),
        named("CosineAnnealingLR", 1),
        named("CosineAnnealingLR", 2, 0.5),
    ],
    "LinearLR": [
        named("LinearLR"),
        named("LinearLR", 0.1, 0.7, 150),
        named("LinearLR", 1.0, 0.0, 199),
        named("LinearLR", 1 / 7, total_iters=1),
    ],
    "LambdaLR": [
        named("LambdaLR", lambda step: 0.95**step),
        named("LambdaLR", [lambda step: 1 / (step + 1), doubling]),
        named("LambdaLR", lambda step: step),
    ],
    "OneCycleLR": [
        named("OneCycleLR", 0.3, 200),
        named("OneCycleLR", [0.3, 0.7], 200, pct_start=0.25, div_factor=10, final_div_factor=3),
        named("OneCycleLR", 0.3, epochs=10, steps_per_epoch=21, anneal_strategy="linear"),
        named("OneCycleLR", 0.3, 201, three_phase=True, pct_start=0.4),
        named("OneCycleLR", 0.3, 200, three_phase=True, anneal_strategy="linear"),
        named("OneCycleLR", 0.3, 200, base_momentum=[0.5, 0.6], max_momentum=[0.8, 0.9]),
        named("OneCycleLR", 0.3, 200, cycle_momentum=False, pct_start=0.0),
        named("OneCycleLR", 0.3, 333, pct_start=1 / 3),
    ],
    "ReduceLROnPlateau": [
        named("ReduceLROnPlateau", patience=3),
        named("ReduceLROnPlateau", "max", 0.5, 2, cooldown=4),
        named("ReduceLROnPlateau", "min", 0.7, 0, 0.05, "abs", min_lr=[0.01, 0.02]),
        named("ReduceLROnPlateau", "max", 0.9, 1, 0.5, "rel", 1, 1e-3, 1e-3),
        named("ReduceLROnPlateau", "max", 0.9, 5, 0.1, "abs"),
    ],
    "SequentialLR": [
        sequential(
            [10, 60],
            named("LinearLR", 0.1, total_iters=10),
            named("CosineAnnealingLR", 40, 1e-3),
            named("ExponentialLR", 0.99),
        ),
        sequential(
            [5, 20, 50, 90],
            named("StepLR", 2, 0.9),
            named("MultiStepLR", [0, 3, 4], 0.5),
            named("LinearLR", 0.2),
            named("LambdaLR", doubling),
            named("OneCycleLR", 0.2, 150),
        ),
        sequential([0], named("ExponentialLR", 0.9), named("StepLR", 3)),
        sequential([3, 3], named("StepLR", 3), named("StepLR", 4), named("StepLR", 5)),
    ],
}
ROWS = [(name, make) for name, makes in SCHEDULES.items() for make in makes]
CHAINED: dict[str, list[Callable[[Any, Any], Any]]] = {
    "LinearLR and ExponentialLR": [
        named("LinearLR", 0.1, total_iters=20),
        named("ExponentialLR", 0.97),
    ],
    "CosineAnnealingLR and StepLR": [named("CosineAnnealingLR", 30), named("StepLR", 40, 0.5)],
    "MultiStepLR and LinearLR": [named("MultiStepLR", [9, 90], 0.5), named("LinearLR", 0.5)],
    "ExponentialLR and ReduceLROnPlateau": [
        named("ExponentialLR", 0.99),
        named("ReduceLROnPlateau", patience=2),
    ],
}


def metric(step: int) -> float:
    """Falls, rises, and stays."""
    return round(math.exp(-step / 40) + 0.3 * math.sin(step / 9), 2)


def optimizer_of(library: Any, kind: str) -> Any:
    params = [library.tensor(np.ones(n), requires_grad=True) for n in (2, 3)]
    groups = [{"params": params[0]}, {"params": params[1], "lr": 0.03}]
    options = {"momentum": 0.9} if kind == "SGD" else {}
    return getattr(library.optim, kind)(groups, lr=0.1, **options)


def course(optimizer: Any, schedules: list[Any], steps: range) -> list[Any]:
    """The rates and momenta of both groups, and what the schedules say, at each step."""
    rows = []
    for step in steps:
        rows.append(
            [(g["lr"], g.get("momentum"), g.get("betas")) for g in optimizer.param_groups]
            + [(list(s.get_last_lr()), s.last_epoch) for s in schedules]
        )
        optimizer.step()
        for schedule in schedules:
            plateau = type(schedule).__name__ == "ReduceLROnPlateau"
            schedule.step(*([metric(step)] if plateau else []))
    return rows


def rates(rows: list[Any]) -> list[float]:
    return [group[0] for row in rows for group in row[:2]]


def courses(kind: str, makes: list[Callable[[Any, Any], Any]]) -> tuple[list[Any], list[Any]]:
    """200 steps of ours and of theirs."""
    rows = []
    for library in (tg, torch):
        optimizer, module = optimizer_of(library, kind), library.optim.lr_scheduler
        rows.append(course(optimizer, [make(module, optimizer) for make in makes], range(200)))
    return rows[0], rows[1]


@pytest.mark.parametrize("kind", ["SGD", "Adam"])
@pytest.mark.parametrize(
    ("name", "makes"),
    [*((name, [make]) for name, make in ROWS), *CHAINED.items()],
    ids=lambda x: x if isinstance(x, str) else "",
)
def test_schedules_are_pytorchs_to_the_last_bit(
    name: str, makes: Any, kind: str, difference: Difference
) -> None:
    found, expected = courses(kind, makes)
    worst = max(abs(x - y) for x, y in zip(rates(found), rates(expected), strict=True))
    difference("schedules", name, worst)
    assert worst == 0.0
    assert found == expected


@pytest.mark.parametrize("steps", [1, 2, 3, 5, 7])
def test_one_cycle_of_few_steps_is_pytorchs(steps: int) -> None:
    rows = []
    for library in (tg, torch):
        optimizer = optimizer_of(library, "Adam")
        cycle = library.optim.lr_scheduler.OneCycleLR(optimizer, 0.05, total_steps=steps)
        rows.append(course(optimizer, [cycle], range(steps)))
        rows[-1].append(cycle.get_last_lr())
        with pytest.raises(ValueError, match="step"):
            cycle.step()
    assert rows[0] == rows[1]


@pytest.mark.parametrize(
    ("name", "make"), ROWS, ids=[f"{name}{i}" for i, (name, _) in enumerate(ROWS)]
)
def test_a_schedule_goes_on_from_its_state(name: str, make: Any) -> None:
    """In the middle, in a new optimizer, as in PyTorch."""
    rows = []
    for library in (tg, torch):
        optimizer = optimizer_of(library, "SGD")
        schedule = make(library.optim.lr_scheduler, optimizer)
        rows.append(course(optimizer, [schedule], range(70)))
        states = copy.deepcopy((optimizer.state_dict(), schedule.state_dict()))
        whole = course(optimizer, [schedule], range(70, 200))
        optimizer = optimizer_of(library, "SGD")
        schedule = make(library.optim.lr_scheduler, optimizer)
        optimizer.load_state_dict(states[0])
        schedule.load_state_dict(states[1])
        rest = course(optimizer, [schedule], range(70, 200))
        assert rest == whole
        rows[-1] += rest
    assert rows[0] == rows[1]


@pytest.mark.parametrize(("source", "target"), [(torch, tg), (tg, torch)], ids=["here", "there"])
@pytest.mark.parametrize(
    ("name", "make"), ROWS, ids=[f"{name}{i}" for i, (name, _) in enumerate(ROWS)]
)
def test_a_schedule_goes_on_in_the_other_library(
    name: str, make: Any, source: Any, target: Any
) -> None:
    first = optimizer_of(source, "SGD")
    schedule = make(source.optim.lr_scheduler, first)
    course(first, [schedule], range(70))
    second = optimizer_of(target, "SGD")
    resumed = make(target.optim.lr_scheduler, second)
    second.load_state_dict(as_torch(as_numpy(copy.deepcopy(first.state_dict()))))
    resumed.load_state_dict(schedule.state_dict())
    expected = course(first, [schedule], range(70, 200))
    assert course(second, [resumed], range(70, 200)) == expected


@pytest.mark.parametrize(
    ("name", "make"),
    [
        ("StepLR", lambda e: named("StepLR", 10, 0.5, last_epoch=e)),
        ("MultiStepLR", lambda e: named("MultiStepLR", [50, 60], 0.5, last_epoch=e)),
        ("ExponentialLR", lambda e: named("ExponentialLR", 0.9, last_epoch=e)),
        ("CosineAnnealingLR", lambda e: named("CosineAnnealingLR", 80, 0.01, last_epoch=e)),
        ("LinearLR", lambda e: named("LinearLR", 0.1, 1.0, 120, last_epoch=e)),
        ("LambdaLR", lambda e: named("LambdaLR", doubling, last_epoch=e)),
        ("OneCycleLR", lambda e: named("OneCycleLR", 0.3, 250, last_epoch=e)),
    ],
)
def test_a_schedule_made_at_a_last_epoch_is_pytorchs(name: str, make: Any) -> None:
    rows = []
    for library in (tg, torch):
        module = library.optim.lr_scheduler
        optimizer = optimizer_of(library, "SGD")
        course(optimizer, [make(-1)(module, optimizer)], range(49))
        again = optimizer_of(library, "SGD")
        again.load_state_dict(optimizer.state_dict())
        rows.append(course(again, [make(49)(module, again)], range(150)))
    assert rows[0] == rows[1]
