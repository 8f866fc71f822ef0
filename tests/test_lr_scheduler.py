"""Schedules: what they are for, refuse, warn of and keep. Their bits: test_parity_optim."""

from __future__ import annotations

import functools
import math
import operator
import warnings
from typing import Any

import numpy as np
import pytest

import tinygrad_mnist as tg
from tinygrad_mnist import optim
from tinygrad_mnist.optim import lr_scheduler as schedules


def sgd(*rates: float, **options: Any) -> optim.SGD:
    """An optimizer with a group for each of the rates, of 0.1 without any."""
    groups = [{"params": [tg.ones(1)], "lr": rate} for rate in rates or (0.1,)]
    return optim.SGD(groups, **options)


def rates(optimizer: optim.Optimizer, schedule: Any, steps: int) -> list[float]:
    """The first group's rate before each of the steps."""
    found = []
    for _ in range(steps):
        found.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()
    return found


@pytest.mark.parametrize(
    ("make", "expected"),
    [
        (lambda o: schedules.StepLR(o, 2, 0.5), [1, 1, 0.5, 0.5, 0.25]),
        (lambda o: schedules.MultiStepLR(o, [1, 3, 3], 0.5), [1, 0.5, 0.5, 0.125, 0.125]),
        (lambda o: schedules.ExponentialLR(o, 0.5), [1, 0.5, 0.25, 0.125, 0.0625]),
        (lambda o: schedules.LinearLR(o, 0.5, 1.0, 2), [0.5, 0.75, 1, 1, 1]),
        (lambda o: schedules.LambdaLR(o, lambda step: step / 8), [0, 0.125, 0.25, 0.375, 0.5]),
        (lambda o: schedules.CosineAnnealingLR(o, 2), [1, 0.5, 0, 0.5, 1]),
        (
            lambda o: schedules.OneCycleLR(
                o, 1.0, 5, pct_start=0.6, anneal_strategy="linear", div_factor=4, final_div_factor=1
            ),
            [0.25, 0.625, 1, 0.625, 0.25],
        ),
        (
            lambda o: schedules.SequentialLR(
                o, [schedules.ExponentialLR(o, 0.5), schedules.StepLR(o, 1, 0.1)], [3]
            ),
            [1, 0.5, 0.25, 1, 0.1],
        ),
    ],
)
def test_what_each_schedule_is_for(make: Any, expected: list[float]) -> None:
    optimizer = sgd(1.0)
    assert rates(optimizer, make(optimizer), 5) == pytest.approx(expected, abs=1e-15)


def test_a_plateau_lowers_the_rate_after_the_patience_and_rests() -> None:
    optimizer = sgd(1.0)
    schedule = schedules.ReduceLROnPlateau(optimizer, factor=0.5, patience=1, cooldown=2)
    found = []
    for metric in (3.0, 2.0, 2.0, 2.0, 2.0, 2.0, 2.0, 2.0, tg.tensor(1.0), float("nan")):
        optimizer.step()
        schedule.step(metric)
        found.append((optimizer.param_groups[0]["lr"], schedule.in_cooldown))
    lowered, rests = zip(*found, strict=True)
    assert lowered == (1, 1, 1, 0.5, 0.5, 0.5, 0.5, 0.25, 0.25, 0.25)
    assert rests == (False, False, False, True, True, False, False, True, True, False)
    assert (schedule.best, schedule.last_epoch) == (1.0, 10)


def test_initial_rates_are_kept_in_the_groups() -> None:
    optimizer = sgd(0.5, 0.25)
    schedule = schedules.ExponentialLR(optimizer, 0.5)
    rates(optimizer, schedule, 2)
    assert schedule.base_lrs == [0.5, 0.25]
    assert [group["initial_lr"] for group in optimizer.param_groups] == [0.5, 0.25]
    assert schedule.get_last_lr() == [0.125, 0.0625]
    assert schedule.last_epoch == 2
    for other in (
        schedules.StepLR(optimizer, 3),
        schedules.ReduceLROnPlateau(optimizer),
        schedules.SequentialLR(optimizer, [schedules.StepLR(optimizer, 3)], []),
    ):
        assert other.base_lrs == [0.5, 0.25]
    assert schedules.ReduceLROnPlateau(sgd(2.0)).base_lrs == [2.0]


def test_one_cycle_cycles_the_momentum_against_the_rate() -> None:
    for optimizer in (sgd(momentum=0.9), optim.Adam([tg.ones(1)])):
        schedule = schedules.OneCycleLR(optimizer, 1.0, 4, pct_start=0.5)
        group, seen = optimizer.param_groups[0], []
        for _ in range(4):
            seen.append(group["betas"][0] if "betas" in group else group["momentum"])
            optimizer.step()
            schedule.step()
        assert seen == pytest.approx([0.95, 0.85, 0.9, 0.95])


def test_a_schedule_of_ones_own() -> None:
    class Halving(schedules.LRScheduler):
        def get_lr(self) -> list[float]:
            return [base / (1 + self.last_epoch) for base in self.base_lrs]

    optimizer = sgd(1.0)
    assert rates(optimizer, Halving(optimizer), 4) == [1, 1 / 2, 1 / 3, 1 / 4]
    with pytest.raises(NotImplementedError, match="LRScheduler: a subclass must have get_lr"):
        schedules.LRScheduler(optimizer)


@pytest.mark.parametrize(
    ("found", "kind", "message"),
    [
        (None, ValueError, "Own: get_lr must give a rate for each of the 2 groups, got None"),
        ([0.5], ValueError, r"a rate for each of the 2 groups, got \[0.5\]"),
        ([0.5, None], TypeError, "Own: a rate must be a number, got None"),
        ([0.5, "0.5"], TypeError, "Own: a rate must be a number, got '0.5'"),
        ([0.5, tg.ones(2)], TypeError, r"a rate must be a number, got a tensor of shape \(2,\)"),
    ],
)
def test_what_is_no_rate_is_not_set(found: Any, kind: type[Exception], message: str) -> None:
    class Own(schedules.LRScheduler):
        def get_lr(self) -> Any:
            return self.base_lrs if self.last_epoch == 0 else found

    optimizer = sgd(1.0, 2.0)
    schedule = Own(optimizer)
    optimizer.step()
    before = schedule.state_dict()
    with pytest.raises(kind, match=message):
        schedule.step()
    assert [group["lr"] for group in optimizer.param_groups] == [1.0, 2.0]
    assert schedule.state_dict() == before


@pytest.mark.parametrize("value", [None, "x", tg.ones(2)])
def test_a_factor_that_is_no_number_is_named(value: Any) -> None:
    with pytest.raises(TypeError, match="LambdaLR: what lr_lambda gives must be a number, got"):
        schedules.LambdaLR(sgd(), lambda step: value)


@pytest.mark.parametrize("factor", [tg.tensor(0.5), np.float32(0.5), np.array(0.5), True])
def test_rates_are_floats_whatever_they_are_computed_of(factor: Any) -> None:
    optimizer = sgd(1.0)
    schedule = schedules.LambdaLR(optimizer, lambda step: factor)
    rates(optimizer, schedule, 2)
    (group,) = optimizer.param_groups
    assert (group["lr"], schedule.get_last_lr()) == (float(factor), [float(factor)])
    assert type(group["lr"]) is type(schedule.get_last_lr()[0]) is float
    sgd(1.0).load_state_dict(optimizer.state_dict())


# ---- the order of steps


STEP = "step\\(\\) before optimizer.step\\(\\) skips the first learning rate"


def test_a_schedule_stepped_before_its_optimizer_warns_once() -> None:
    optimizer = sgd()
    schedule = schedules.ExponentialLR(optimizer, 0.5)
    with pytest.warns(UserWarning, match=f"ExponentialLR: {STEP}"):
        schedule.step()
    schedule.step()
    optimizer.step()
    schedule.step()


def test_a_plateau_stepped_before_its_optimizer_warns_once() -> None:
    optimizer = sgd()
    optimizer.step()
    schedule = schedules.ReduceLROnPlateau(optimizer)
    with pytest.warns(UserWarning, match=f"ReduceLROnPlateau: {STEP}") as caught:
        schedule.step(1.0)
    assert caught[0].filename == __file__
    schedule.step(1.0)
    resumed = schedules.ReduceLROnPlateau(sgd())
    resumed.load_state_dict(schedule.state_dict())
    resumed.step(1.0)


def test_steps_before_the_first_schedule_do_not_count() -> None:
    optimizer = sgd()
    optimizer.step()
    with pytest.warns(UserWarning, match=STEP):
        schedules.StepLR(optimizer, 1).step()


def test_the_warning_of_a_sequence_and_of_an_optimizer_of_ones_own() -> None:
    class Own(optim.Optimizer):
        def step(self, closure: Any = None) -> None:
            pass

    optimizer = Own([tg.ones(1)], {"lr": 0.1})
    parts = [schedules.StepLR(optimizer, 1), schedules.ExponentialLR(optimizer, 0.5)]
    sequence = schedules.SequentialLR(optimizer, parts, [2])
    with pytest.warns(UserWarning, match=f"StepLR: {STEP}"):
        sequence.step()
    optimizer = Own([tg.ones(1)], {"lr": 0.1})
    schedule = schedules.StepLR(optimizer, 1)
    optimizer.step()
    schedule.step()


@pytest.mark.parametrize(
    "order", ["optimizer first", "schedule first", "no optimizer", "made late"]
)
def test_the_warning_comes_when_pytorchs_does(order: str) -> None:
    torch = pytest.importorskip("torch", reason="PyTorch is not installed")
    moments = []
    for library in (tg, torch):
        p = library.ones(1)
        optimizer = library.optim.SGD([p], lr=0.1)
        if order == "made late":
            optimizer.step()
        schedule = library.optim.lr_scheduler.StepLR(optimizer, 1)
        moments.append([])
        for step in range(4):
            if order == "optimizer first" or (order == "schedule first" and step):
                optimizer.step()
            with warnings.catch_warnings(record=True) as caught:
                warnings.simplefilter("always")
                schedule.step()
            moments[-1].append([w.category for w in caught])
    assert moments[0] == moments[1]


# ---- state


def test_a_state_shares_nothing_and_keeps_callable_objects() -> None:
    optimizer = sgd(1.0, 2.0)
    schedule = schedules.LambdaLR(optimizer, [Factor(0.5), lambda step: 3.0])
    state = schedule.state_dict()
    assert state["lr_lambdas"] == [{"value": 0.5}, None]
    other = sgd(1.0, 2.0)
    target = schedules.LambdaLR(other, [Factor(7.0), lambda step: 3.0])
    target.load_state_dict(state)
    other.step()
    target.step()
    assert target.get_last_lr() == [0.5, 6.0]
    state["base_lrs"][0] = 100.0
    assert (schedule.base_lrs, target.base_lrs) == ([1.0, 2.0], [1.0, 2.0])


@pytest.mark.parametrize(
    "function", [abs, math.exp, functools.partial(pow, 0.5), operator.methodcaller("bit_length")]
)
def test_functions_of_every_kind_have_a_state(function: Any) -> None:
    schedule = schedules.LambdaLR(sgd(), function)
    state = schedule.state_dict()
    assert not state["lr_lambdas"][0]
    schedule.load_state_dict(state)
    assert schedule.state_dict() == state


class Factor:
    def __init__(self, value: float) -> None:
        self.value = value

    def __call__(self, step: int) -> float:
        return self.value


ON_TWO = {
    "StepLR": lambda o: schedules.StepLR(o, 2),
    "LambdaLR": lambda o: schedules.LambdaLR(o, Factor(0.5)),
    "CosineAnnealingLR": lambda o: schedules.CosineAnnealingLR(o, 9),
    "OneCycleLR": lambda o: schedules.OneCycleLR(o, 1.0, 9, cycle_momentum=False),
    "ReduceLROnPlateau": lambda o: schedules.ReduceLROnPlateau(o),
    "ExponentialLR": lambda o: schedules.SequentialLR(o, [schedules.ExponentialLR(o, 0.5)], []),
}


@pytest.mark.parametrize(("name", "make"), ON_TWO.items(), ids=ON_TWO)
@pytest.mark.parametrize("counts", [(2, 1), (1, 2)])
def test_a_state_of_other_groups_is_refused_and_changes_nothing(
    name: str, make: Any, counts: tuple[int, int]
) -> None:
    source, target = (make(sgd(*[0.1] * count)) for count in counts)
    before = target.state_dict()
    with pytest.raises(ValueError, match=f"the state is of {counts[0]} groups, expected"):
        target.load_state_dict(source.state_dict())
    assert target.state_dict() == before


@pytest.mark.parametrize(
    ("spoil", "kind", "message"),
    [
        (lambda s: None, TypeError, "LambdaLR: expected a state_dict, got None"),
        (lambda s: {**s, "base_lrs": None}, ValueError, "the state is of None groups, expected 1"),
        (lambda s: {**s, "lr_lambdas": []}, ValueError, "state is of 0 functions, expected 1"),
        (lambda s: {**s, "lr_lambdas": [3]}, ValueError, "has 3 for function 0"),
        (lambda s: {**s, "mode": "min"}, ValueError, r"lacks \[\] and has \['mode'\] besides"),
    ],
)
def test_a_state_that_is_none_is_refused(spoil: Any, kind: type[Exception], message: str) -> None:
    schedule = schedules.LambdaLR(sgd(), Factor(0.5))
    before = schedule.state_dict()
    with pytest.raises(kind, match=message):
        schedule.load_state_dict(spoil(before))
    assert schedule.state_dict() == before


def test_attributes_are_not_loaded_into_a_function() -> None:
    state = schedules.LambdaLR(sgd(), Factor(0.5)).state_dict()
    plain = schedules.LambdaLR(sgd(), lambda step: 1.0)
    with pytest.raises(ValueError, match=r"LambdaLR: the state has {'value': 0.5} for function 0"):
        plain.load_state_dict(state)


def test_a_state_of_another_schedule_is_refused_and_changes_nothing() -> None:
    optimizer = sgd()
    step, cosine = schedules.StepLR(optimizer, 2), schedules.CosineAnnealingLR(optimizer, 9)
    before = step.state_dict()
    with pytest.raises(ValueError, match=r"StepLR: .*lacks \['gamma', 'step_size'\].*'T_max'"):
        step.load_state_dict(cosine.state_dict())
    assert step.state_dict() == before
    pair = schedules.SequentialLR(optimizer, [step, cosine], [3])
    single = schedules.SequentialLR(optimizer, [step], [])
    with pytest.raises(ValueError, match="the state is of 1 schedules, expected 2"):
        pair.load_state_dict(single.state_dict())
    turned = schedules.SequentialLR(optimizer, [cosine, step], [3])
    before = pair.state_dict()
    with pytest.raises(ValueError, match="StepLR: the state is of another schedule"):
        pair.load_state_dict(turned.state_dict())
    assert pair.state_dict() == before


def test_an_error_in_a_step_leaves_all_as_it_was() -> None:
    optimizer = sgd(1.0)
    schedule = schedules.LambdaLR(optimizer, lambda step: 1 / (2 - step))
    rates(optimizer, schedule, 1)
    before = schedule.state_dict()
    for _ in range(2):
        with pytest.raises(ZeroDivisionError):
            schedule.step()
    assert schedule.state_dict() == before
    cycle = schedules.OneCycleLR(optimizer, 0.1, 2)
    rates(optimizer, cycle, 2)
    group = dict(optimizer.param_groups[0])
    for _ in range(2):
        with pytest.raises(ValueError, match="OneCycleLR: step 3 of a schedule of 2 steps"):
            cycle.step()
    assert optimizer.param_groups[0] == group


def test_groups_added_later() -> None:
    """Schedules that go on from the rate as it is take them; others say what to do."""
    optimizer = sgd(1.0)
    going = [
        schedules.StepLR(optimizer, 1, 0.5),
        schedules.ReduceLROnPlateau(optimizer, patience=0),
    ]
    bound = [
        schedules.LambdaLR(optimizer, lambda step: 1.0),
        schedules.OneCycleLR(optimizer, 1.0, 9),
        schedules.CosineAnnealingLR(optimizer, 1),
    ]
    listed = schedules.ReduceLROnPlateau(optimizer, min_lr=[0.1], patience=0)
    optimizer.add_param_group({"params": [tg.ones(1)], "lr": 2.0})
    optimizer.step()
    going[0].step()
    assert optimizer.param_groups[1]["lr"] == 1.0
    for metric in (1.0, 1.0):
        going[1].step(metric)
    assert optimizer.param_groups[1]["lr"] == pytest.approx(0.1)
    for schedule in bound:
        with pytest.raises(ValueError, match="has 2 groups, and had 1 when the schedule was made"):
            for _ in range(2):
                schedule.step()
    listed.step(1.0)
    with pytest.raises(ValueError, match="2 groups and min_lr 1 values; set min_lrs"):
        listed.step(1.0)


# ---- what they refuse


@pytest.mark.parametrize(
    ("make", "kind", "message"),
    [
        (lambda o: schedules.StepLR(o.param_groups, 2), TypeError, "StepLR: expected an optimizer"),
        (lambda o: schedules.StepLR(o, 0), ValueError, "StepLR: step_size must be at least 1"),
        (lambda o: schedules.StepLR(o, 2.5), TypeError, "step_size must be an integer, got 2.5"),
        (lambda o: schedules.StepLR(o, 2, "0.1"), TypeError, "gamma must be a number, got '0.1'"),
        (lambda o: schedules.MultiStepLR(o, [-1]), ValueError, "a milestone must be at least 0"),
        (lambda o: schedules.ExponentialLR(o, None), TypeError, "gamma must be a number"),
        (lambda o: schedules.LinearLR(o, 0.0), ValueError, "start_factor must be above 0"),
        (lambda o: schedules.LinearLR(o, 0.5, 1.5), ValueError, "end_factor in 0 to 1"),
        (lambda o: schedules.LinearLR(o, total_iters=0), ValueError, "total_iters must be at"),
        (lambda o: schedules.CosineAnnealingLR(o, 0), ValueError, "T_max must be at least 1"),
        (lambda o: schedules.LambdaLR(o, 0.5), TypeError, "lr_lambda must be functions, got 0.5"),
        (
            lambda o: schedules.LambdaLR(o, [abs] * 2),
            ValueError,
            "2 values, the optimizer 1 groups",
        ),
        (lambda o: schedules.StepLR(o, 2, last_epoch=3), ValueError, "group 0 has no initial_lr"),
        (lambda o: schedules.OneCycleLR(o, 0.1), ValueError, "give total_steps, or epochs and"),
        (lambda o: schedules.OneCycleLR(o, 0.1, 0), ValueError, "total_steps must be at least 1"),
        (
            lambda o: schedules.OneCycleLR(o, 0.1, 9, pct_start=2),
            ValueError,
            "pct_start must be in",
        ),
        (lambda o: schedules.OneCycleLR(o, [0.1] * 2, 9), ValueError, "max_lr has 2 values"),
        (lambda o: schedules.OneCycleLR(o, -1.0, 9), ValueError, "max_lr must be a finite number"),
        (
            lambda o: schedules.OneCycleLR(o, 0.1, 9, anneal_strategy="exp"),
            ValueError,
            "anneal_strategy must be 'cos' or 'linear', got 'exp'",
        ),
        (
            lambda o: schedules.OneCycleLR(optim.Adagrad([tg.ones(1)]), 0.1, 9),
            ValueError,
            "Adagrad has no momentum to cycle; give cycle_momentum=False",
        ),
        (lambda o: schedules.ReduceLROnPlateau(o, factor=1.0), ValueError, r"factor must be in"),
        (lambda o: schedules.ReduceLROnPlateau(o, "low"), ValueError, "'min' or 'max', got 'low'"),
        (
            lambda o: schedules.ReduceLROnPlateau(o, threshold_mode="x"),
            ValueError,
            "threshold_mode must be 'rel' or 'abs', got 'x'",
        ),
        (lambda o: schedules.ReduceLROnPlateau(o, patience=-1), ValueError, "patience must be at"),
        (lambda o: schedules.SequentialLR(o, [], []), ValueError, "got 0 and 0"),
        (
            lambda o: schedules.SequentialLR(o, [schedules.StepLR(o, 1)], [3]),
            ValueError,
            "one scheduler more than milestones, got 1 and 1",
        ),
        (
            lambda o: schedules.SequentialLR(o, [schedules.StepLR(o, 1) for _ in "abc"], [3, 2]),
            ValueError,
            r"milestones must ascend, got \[3, 2\]",
        ),
        (
            lambda o: schedules.SequentialLR(o, [schedules.ReduceLROnPlateau(o)], []),
            ValueError,
            "scheduler 0 cannot be a ReduceLROnPlateau",
        ),
        (
            lambda o: schedules.SequentialLR(o, [schedules.StepLR(sgd(), 1)], []),
            ValueError,
            "scheduler 0 is of another optimizer",
        ),
        (lambda o: schedules.SequentialLR(o, [3], []), TypeError, "scheduler 0 is 3, no schedule"),
        (
            lambda o: schedules.SequentialLR(o, 3, [3]),
            TypeError,
            "schedulers must be a list, got 3",
        ),
        (
            lambda o: schedules.SequentialLR(o, [schedules.StepLR(o, 1)], 3),
            TypeError,
            "SequentialLR: milestones must be a list, got 3",
        ),
        (lambda o: schedules.MultiStepLR(o, 3), TypeError, "milestones must be a list, got 3"),
        (lambda o: schedules.MultiStepLR(o, "3"), TypeError, "milestones must be a list, got '3'"),
        (
            lambda o: schedules.ReduceLROnPlateau(o, min_lr="a"),
            TypeError,
            "min_lr must be a number",
        ),
        (
            lambda o: schedules.ReduceLROnPlateau(o, min_lr=[None]),
            TypeError,
            "min_lr must be a num",
        ),
        (lambda o: schedules.StepLR(o, True), TypeError, "step_size must be an integer, got True"),
        (lambda o: schedules.ExponentialLR(o, True), TypeError, "gamma must be a number, got True"),
    ],
)
def test_what_makes_no_schedule_is_refused(make: Any, kind: type[Exception], message: str) -> None:
    optimizer = sgd()
    with pytest.raises(kind, match=message):
        make(optimizer)


@pytest.mark.parametrize("metric", [None, "low", [1.0], tg.ones(2)])
def test_a_metric_that_is_no_number_is_refused(metric: Any) -> None:
    optimizer = sgd()
    schedule = schedules.ReduceLROnPlateau(optimizer)
    optimizer.step()
    before = schedule.state_dict()
    with pytest.raises(TypeError, match="ReduceLROnPlateau: metrics must be a number, got"):
        schedule.step(metric)
    assert schedule.state_dict() == before


@pytest.mark.parametrize(
    "make",
    [
        lambda o: schedules.OneCycleLR(o, [0.1] * 2, 9),
        lambda o: schedules.OneCycleLR(o, 0.1, 9, base_momentum="low"),
        lambda o: schedules.LinearLR(o, 0.0),
        lambda o: schedules.LambdaLR(o, [abs] * 2),
    ],
)
def test_a_schedule_that_is_refused_leaves_the_groups_alone(make: Any) -> None:
    optimizer = sgd()
    before = dict(optimizer.param_groups[0])
    with pytest.raises((ValueError, TypeError)):
        make(optimizer)
    assert optimizer.param_groups[0] == before
