"""Schedules: what sets the learning rates of an optimizer's groups from step to step.

The numbers are PyTorch's to the last bit, so most schedules go on from the rate as it is, and
several may act on one optimizer.
"""

from __future__ import annotations

import copy
import math
import types
import warnings
from bisect import bisect_right
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, SupportsFloat

from tinygrad_mnist.checks import checked_integer, shown
from tinygrad_mnist.optim.optimizer import Group, Optimizer, is_number

# What PyTorch keeps in its states besides.
_PYTORCHS = {"_get_lr_called_within_step", "_is_initial", "mode_worse", "use_beta1", "verbose"}


class LRScheduler:
    """Base: counts the steps, and at each sets the rates that ``get_lr`` of a subclass computes.

    Made, it takes the first step: ``last_epoch`` goes from -1 to 0, and the groups' rates at that
    time are kept as their ``initial_lr`` and in ``base_lrs``. With another ``last_epoch`` it goes
    on from there in groups that have an ``initial_lr``, as those of a loaded optimizer have; else
    ValueError. TypeError for what is no optimizer.
    """

    _initial = False  # whether this is the step that it is made with

    def __init__(self, optimizer: Optimizer, last_epoch: int = -1) -> None:
        _check_optimizer(self, optimizer)
        for i, group in enumerate(optimizer.param_groups):
            if last_epoch == -1:
                group.setdefault("initial_lr", group["lr"])
            elif "initial_lr" not in group:
                raise ValueError(
                    f"{_name(self)}: group {i} has no initial_lr to go on from at last_epoch "
                    f"{last_epoch}; load the optimizer's state first, or leave last_epoch out"
                )
        self.base_lrs: list[float] = [group["initial_lr"] for group in optimizer.param_groups]
        self.last_epoch = last_epoch
        self._attach(optimizer)
        self._begin()

    def get_lr(self) -> list[float]:
        """The rate of each group at ``last_epoch``; it is called by ``step`` alone."""
        raise NotImplementedError(f"{_name(self)}: a subclass must have get_lr()")

    def get_last_lr(self) -> list[float]:
        """The learning rate of each group as this schedule last set it."""
        return self._last_lr

    def step(self) -> None:
        """Go one step on; call it after ``optimizer.step()``.

        UserWarning where it is called before the optimizer's first step: the first rate would go
        unused.
        """
        if self._step_count == 1:
            self._warn_unless_stepped()
        self._go_to(self.last_epoch + 1, self.get_lr)
        self._step_count += 1

    def state_dict(self) -> dict[str, Any]:
        """Everything but the optimizer, which has a state of its own."""
        return copy.deepcopy({k: v for k, v in vars(self).items() if k != "optimizer"})

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Go on from a ``state_dict``, or PyTorch's; the rates are in the optimizer's state.

        TypeError, ValueError, and nothing is changed, where the state is none, or of another
        schedule or number of groups.
        """
        self._check_state(state_dict)
        self._load(copy.deepcopy(dict(state_dict)))

    def _check_state(self, state: Any) -> None:
        if not isinstance(state, Mapping):
            raise TypeError(f"{_name(self)}: expected a state_dict, got {shown(state)}")
        own, given = set(vars(self)) - {"optimizer"}, set(state)
        lacking = own - given - {"base_lrs"}  # which PyTorch's have not all
        besides = given - own - _PYTORCHS
        if lacking or besides:
            raise ValueError(
                f"{_name(self)}: the state is of another schedule: it lacks "
                f"{sorted(lacking)} and has {sorted(besides, key=str)} besides"
            )
        rates = state.get("base_lrs", state.get("_last_lr"))
        _check_length(self, "groups", rates, len(self.base_lrs))

    def _load(self, state: dict[str, Any]) -> None:
        own = vars(self)
        own.update({key: value for key, value in state.items() if key in own})

    def _attach(self, optimizer: Optimizer) -> None:
        """Set the rates of ``optimizer``, and notice whether it steps from here on."""
        self.optimizer = optimizer
        if optimizer._stepped is None:
            optimizer._stepped = False

    def _warn_unless_stepped(self) -> None:
        """UserWarning, at the line that called step, where the optimizer has not stepped."""
        if not self.optimizer._stepped:
            warnings.warn(
                f"{_name(self)}: step() before optimizer.step() skips the first learning rate; "
                "call optimizer.step() first",
                UserWarning,
                stacklevel=3,
            )

    def _begin(self) -> None:
        """Take the first step."""
        self._step_count = 0
        self._initial = True
        try:
            self.step()
        finally:
            del self._initial

    def _restart(self) -> None:
        """Go to step 0, from rates that another schedule has set."""
        self._go_to(0, self._first_lr)

    def _first_lr(self) -> list[float]:
        """The rates at step 0 whatever they are now."""
        return self.get_lr()

    def _go_to(self, epoch: int, rates: Callable[[], list[float]]) -> None:
        """Set the ``rates`` of step ``epoch``; where they raise an error, all stays as it was."""
        before, self.last_epoch = self.last_epoch, epoch
        try:
            found = self._floats(rates())
        except BaseException:
            self.last_epoch = before
            raise
        for group, rate in zip(self.optimizer.param_groups, found, strict=True):
            group["lr"] = rate
        self._last_lr = found

    def _floats(self, rates: Any) -> list[float]:
        """The rates as floats; TypeError, ValueError for what is not a number for each group."""
        count = len(self.optimizer.param_groups)
        found = list(rates) if isinstance(rates, Iterable) else []
        if len(found) != count:
            raise ValueError(
                f"{_name(self)}: get_lr must give a rate for each of the {count} groups, got "
                f"{shown(rates)}"
            )
        return [_float(self, "a rate", rate) for rate in found]

    def _lrs(self) -> list[float]:
        """The groups' rates as they are."""
        return [group["lr"] for group in self.optimizer.param_groups]

    def _scaled(self, factor: float) -> list[float]:
        return [group["lr"] * factor for group in self.optimizer.param_groups]

    def _with_bases(self) -> list[tuple[Group, float]]:
        """Each group and its first rate; ValueError where groups have been added."""
        groups = self.optimizer.param_groups
        if len(groups) != len(self.base_lrs):
            raise ValueError(
                f"{_name(self)}: the optimizer has {len(groups)} groups, and had "
                f"{len(self.base_lrs)} when the schedule was made; make a new one"
            )
        return list(zip(groups, self.base_lrs, strict=True))


class LambdaLR(LRScheduler):
    """initial_lr · lr_lambda(step); ``lr_lambda`` is a function, or a list of one per group."""

    def __init__(
        self,
        optimizer: Optimizer,
        lr_lambda: Callable[[int], float] | Sequence[Callable[[int], float]],
        last_epoch: int = -1,
    ) -> None:
        _check_optimizer(self, optimizer)
        self.lr_lambdas = _per_group(self, "lr_lambda", lr_lambda, optimizer)
        for function in self.lr_lambdas:
            if not callable(function):
                raise TypeError(f"LambdaLR: lr_lambda must be functions, got {shown(function)}")
        super().__init__(optimizer, last_epoch)

    def get_lr(self) -> list[float]:
        found = []
        for (_, base), function in zip(self._with_bases(), self.lr_lambdas, strict=True):
            factor = function(self.last_epoch)
            _float(self, "what lr_lambda gives", factor)
            found.append(base * factor)
        return found

    def state_dict(self) -> dict[str, Any]:
        """As of any schedule; of functions None, of callable objects their attributes."""
        state = {k: v for k, v in vars(self).items() if k not in ("optimizer", "lr_lambdas")}
        kept = [_attributes(function) for function in self.lr_lambdas]
        return copy.deepcopy({**state, "lr_lambdas": kept})

    def _check_state(self, state: Any) -> None:
        super()._check_state(state)
        _check_length(self, "functions", state["lr_lambdas"], len(self.lr_lambdas))
        for i, given in enumerate(state["lr_lambdas"]):
            function = self.lr_lambdas[i]
            if given and (not isinstance(given, Mapping) or _attributes(function) is None):
                raise ValueError(
                    f"LambdaLR: the state has {shown(given)} for function {i}, {shown(function)}"
                )

    def _load(self, state: dict[str, Any]) -> None:
        for function, given in zip(self.lr_lambdas, state.pop("lr_lambdas"), strict=True):
            if given:
                vars(function).update(given)
        super()._load(state)


class StepLR(LRScheduler):
    """The rate times ``gamma`` every ``step_size`` steps."""

    def __init__(
        self, optimizer: Optimizer, step_size: int, gamma: float = 0.1, last_epoch: int = -1
    ) -> None:
        self.step_size = _count(self, "step_size", step_size)
        self.gamma = _number(self, "gamma", gamma)
        super().__init__(optimizer, last_epoch)

    def get_lr(self) -> list[float]:
        if self.last_epoch == 0 or self.last_epoch % self.step_size:
            return self._lrs()
        return self._scaled(self.gamma)

    def _first_lr(self) -> list[float]:
        return [base for _, base in self._with_bases()]


class MultiStepLR(LRScheduler):
    """The rate times ``gamma`` at each of the ``milestones``, as often as it is among them."""

    def __init__(
        self,
        optimizer: Optimizer,
        milestones: Iterable[int],
        gamma: float = 0.1,
        last_epoch: int = -1,
    ) -> None:
        given = _listed(self, "milestones", milestones)
        self.milestones = Counter(_count(self, "a milestone", m, 0) for m in given)
        self.gamma = _number(self, "gamma", gamma)
        super().__init__(optimizer, last_epoch)

    def get_lr(self) -> list[float]:
        if self.last_epoch not in self.milestones:
            return self._lrs()
        return self._scaled(self.gamma ** self.milestones[self.last_epoch])

    def _first_lr(self) -> list[float]:
        return [base * self.gamma ** self.milestones[0] for _, base in self._with_bases()]


class ExponentialLR(LRScheduler):
    """The rate times ``gamma`` at every step."""

    def __init__(self, optimizer: Optimizer, gamma: float, last_epoch: int = -1) -> None:
        self.gamma = _number(self, "gamma", gamma)
        super().__init__(optimizer, last_epoch)

    def get_lr(self) -> list[float]:
        return self._lrs() if self._initial else self._scaled(self.gamma)

    def _first_lr(self) -> list[float]:
        return [base for _, base in self._with_bases()]


class LinearLR(LRScheduler):
    """initial_lr times a factor from ``start_factor`` to ``end_factor`` over ``total_iters``."""

    def __init__(
        self,
        optimizer: Optimizer,
        start_factor: float = 1.0 / 3,
        end_factor: float = 1.0,
        total_iters: int = 5,
        last_epoch: int = -1,
    ) -> None:
        self.start_factor = _number(self, "start_factor", start_factor)
        self.end_factor = _number(self, "end_factor", end_factor)
        if not 0 < start_factor <= 1 or not 0 <= end_factor <= 1:
            raise ValueError(
                "LinearLR: start_factor must be above 0 and at most 1, end_factor in 0 to 1, got "
                f"{start_factor} and {end_factor}"
            )
        self.total_iters = _count(self, "total_iters", total_iters)
        super().__init__(optimizer, last_epoch)

    def get_lr(self) -> list[float]:
        if self.last_epoch == 0:
            return self._scaled(self.start_factor)
        if self._initial or self.last_epoch > self.total_iters:
            return self._lrs()
        rise = self.end_factor - self.start_factor
        before = self.total_iters * self.start_factor + (self.last_epoch - 1) * rise
        return self._scaled(1.0 + rise / before)

    def _first_lr(self) -> list[float]:
        return [base * self.start_factor for _, base in self._with_bases()]


class CosineAnnealingLR(LRScheduler):
    """Half a cosine from initial_lr to ``eta_min`` in ``T_max`` steps, then back up, and so on.

    Loshchilov, Hutter 2017, without restarts; the rate at each step from that at the one before.
    """

    def __init__(
        self, optimizer: Optimizer, T_max: int, eta_min: float = 0.0, last_epoch: int = -1
    ) -> None:
        self.T_max = _count(self, "T_max", T_max)
        self.eta_min = _number(self, "eta_min", eta_min)
        super().__init__(optimizer, last_epoch)

    def get_lr(self) -> list[float]:
        if self._initial:
            return self._lrs()
        step, low = self.last_epoch, self.eta_min
        if (step - 1 - self.T_max) % (2 * self.T_max) == 0:  # the rate was eta_min, a factor of 0
            up = 1 - math.cos(math.pi / self.T_max)
            return [group["lr"] + (base - low) * up / 2 for group, base in self._with_bases()]
        here = 1 + math.cos(math.pi * step / self.T_max)
        factor = here / (1 + math.cos(math.pi * (step - 1) / self.T_max))
        return [factor * (rate - low) + low for rate in self._lrs()]

    def _first_lr(self) -> list[float]:
        return [self.eta_min + (base - self.eta_min) for _, base in self._with_bases()]


class OneCycleLR(LRScheduler):
    """One rise and one fall of the learning rate, momentum the other way round.

    For the first ``pct_start`` of ``total_steps`` the rate goes from max_lr/div_factor to
    ``max_lr``, then to max_lr/div_factor/final_div_factor, along half a cosine or a line
    (``anneal_strategy`` "cos" or "linear"); the momentum (of Adam: beta1) from ``max_momentum`` to
    ``base_momentum`` and back (Smith, Topin 2018). With ``three_phase`` the fall takes as long as
    the rise and ends at max_lr/div_factor; the rest of the steps go on to the last rate. Lists give
    each group its own. ValueError past the last step, and where there is no momentum to cycle.
    """

    def __init__(
        self,
        optimizer: Optimizer,
        max_lr: float | Sequence[float],
        total_steps: int | None = None,
        epochs: int | None = None,
        steps_per_epoch: int | None = None,
        pct_start: float = 0.3,
        anneal_strategy: str = "cos",
        cycle_momentum: bool = True,
        base_momentum: float | Sequence[float] = 0.85,
        max_momentum: float | Sequence[float] = 0.95,
        div_factor: float = 25.0,
        final_div_factor: float = 1e4,
        three_phase: bool = False,
        last_epoch: int = -1,
    ) -> None:
        _check_optimizer(self, optimizer)
        self.total_steps = _total_steps(self, total_steps, epochs, steps_per_epoch)
        if anneal_strategy not in _ANNEAL:
            raise ValueError(
                f"OneCycleLR: anneal_strategy must be 'cos' or 'linear', got {anneal_strategy!r}"
            )
        if not 0 <= _number(self, "pct_start", pct_start) <= 1:
            raise ValueError(f"OneCycleLR: pct_start must be in 0 to 1, got {pct_start}")
        self._anneal_func_type = anneal_strategy
        self.cycle_momentum = cycle_momentum
        self._schedule_phases = _phases(self.total_steps, pct_start, three_phase)
        rates = self._rates(optimizer, max_lr, div_factor, final_div_factor)
        momenta = self._momenta(optimizer, max_momentum, base_momentum) if cycle_momentum else []
        if last_epoch == -1:
            for settings in (rates, momenta):
                for group, values in zip(optimizer.param_groups, settings, strict=False):
                    group.update(values)
        super().__init__(optimizer, last_epoch)

    def _rates(
        self, optimizer: Optimizer, max_lr: Any, div_factor: float, final_div_factor: float
    ) -> list[dict[str, float]]:
        """What each group keeps of its rates."""
        for name, value in (("div_factor", div_factor), ("final_div_factor", final_div_factor)):
            if not _number(self, name, value) > 0:
                raise ValueError(f"OneCycleLR: {name} must be above 0, got {value}")
        found = []
        for high in _per_group(self, "max_lr", max_lr, optimizer):
            if not (math.isfinite(_number(self, "max_lr", high)) and high > 0):
                raise ValueError(f"OneCycleLR: max_lr must be a finite number above 0, got {high}")
            start = high / div_factor
            found.append({"initial_lr": start, "max_lr": high, "min_lr": start / final_div_factor})
        return found

    def _momenta(
        self, optimizer: Optimizer, max_momentum: Any, base_momentum: Any
    ) -> list[dict[str, float]]:
        """What each group keeps of its momenta; ValueError for an optimizer without."""
        if not {"momentum", "betas"} & set(optimizer.defaults):
            raise ValueError(
                f"OneCycleLR: {_name(optimizer)} has no momentum to cycle; give "
                "cycle_momentum=False"
            )
        ends = (
            [_number(self, name, m) for m in _per_group(self, name, given, optimizer)]
            for name, given in (("max_momentum", max_momentum), ("base_momentum", base_momentum))
        )
        return [{"max_momentum": m, "base_momentum": b} for m, b in zip(*ends, strict=True)]

    def get_lr(self) -> list[float]:
        step = self.last_epoch
        if step > self.total_steps:
            raise ValueError(
                f"OneCycleLR: step {step} of a schedule of {self.total_steps} steps; "
                "give it the number of all optimizer steps"
            )
        self._with_bases()
        start, phase = _phase_at(self._schedule_phases, step)
        end = phase["end_step"]
        along = (step - start) / (end - start) if end > start else 1.0
        between = _ANNEAL[self._anneal_func_type]

        def now(group: Group, what: str) -> float:
            return between(group[phase[f"start_{what}"]], group[phase[f"end_{what}"]], along)

        for group in self.optimizer.param_groups if self.cycle_momentum else ():
            _set_momentum(group, now(group, "momentum"))
        return [now(group, "lr") for group in self.optimizer.param_groups]


_Phase = dict[str, Any]  # its last step; the names of a group's numbers that it goes between


def _phase(end: float, lrs: tuple[str, str], momenta: tuple[str, str]) -> _Phase:
    """As PyTorch keeps it in a state."""
    return {
        "end_step": end,
        "start_lr": lrs[0],
        "end_lr": lrs[1],
        "start_momentum": momenta[0],
        "end_momentum": momenta[1],
    }


def _phases(steps: int, pct_start: float, three_phase: bool) -> list[_Phase]:
    """Where each part of one cycle ends, and between which of a group's numbers it goes."""
    up = float(pct_start * steps) - 1
    rise = _phase(up, ("initial_lr", "max_lr"), ("max_momentum", "base_momentum"))
    back = ("base_momentum", "max_momentum")
    if not three_phase:
        return [rise, _phase(steps - 1, ("max_lr", "min_lr"), back)]
    down = float(2 * pct_start * steps) - 2
    fall = _phase(down, ("max_lr", "initial_lr"), back)
    last = _phase(steps - 1, ("initial_lr", "min_lr"), ("max_momentum", "max_momentum"))
    return [rise, fall, last]


def _phase_at(phases: list[_Phase], step: int) -> tuple[float, _Phase]:
    """The phase that ``step`` lies in, the last for the rest, and before it where it starts.

    A phase of no length is passed over.
    """
    start = 0.0
    for phase in phases[:-1]:
        if step <= phase["end_step"] and phase["end_step"] > start:
            return start, phase
        start = phase["end_step"]
    return start, phases[-1]


def _cosine(start: float, end: float, along: float) -> float:
    """Half a cosine wave from ``start`` (along = 0) to ``end`` (along = 1)."""
    return end + (start - end) / 2.0 * (math.cos(math.pi * along) + 1)


def _linear(start: float, end: float, along: float) -> float:
    return (end - start) * along + start


_ANNEAL = {"cos": _cosine, "linear": _linear}


def _set_momentum(group: Group, value: float) -> None:
    if "betas" in group:
        group["betas"] = (value, *group["betas"][1:])
    else:
        group["momentum"] = value


def _total_steps(
    schedule: LRScheduler, total: int | None, epochs: int | None, steps_per_epoch: int | None
) -> int:
    if total is not None:
        return _count(schedule, "total_steps", total)
    if epochs is None or steps_per_epoch is None:
        raise ValueError("OneCycleLR: give total_steps, or epochs and steps_per_epoch")
    per_epoch = _count(schedule, "steps_per_epoch", steps_per_epoch)
    return _count(schedule, "epochs", epochs) * per_epoch


class SequentialLR(LRScheduler):
    """One schedule after another; each of the ``milestones`` is the step where the next begins.

    ``schedulers`` are of this optimizer, one more than the milestones. Each counts its own steps
    from 0. ValueError, TypeError for what does not fit, and for a ``ReduceLROnPlateau`` or another
    ``SequentialLR`` among them.
    """

    def __init__(
        self,
        optimizer: Optimizer,
        schedulers: Sequence[LRScheduler],
        milestones: Sequence[int],
        last_epoch: int = -1,
    ) -> None:
        _check_optimizer(self, optimizer)
        self._schedulers: list[LRScheduler] = _listed(self, "schedulers", schedulers)
        given = _listed(self, "milestones", milestones)
        self._milestones = [_count(self, "a milestone", m, 0) for m in given]
        self._check(optimizer)
        self._attach(optimizer)
        self.base_lrs = [group["initial_lr"] for group in optimizer.param_groups]
        self.last_epoch = last_epoch + 1
        for group in optimizer.param_groups:
            group["lr"] = group["initial_lr"]
        for schedule in self._schedulers:
            schedule.last_epoch -= 1  # back before the step that it was made with
        first = self._schedulers[bisect_right(self._milestones, 0)]
        first._begin()
        self._last_lr = first.get_last_lr()

    def _check(self, optimizer: Optimizer) -> None:
        for i, schedule in enumerate(self._schedulers):
            if not isinstance(schedule, LRScheduler):
                raise TypeError(f"SequentialLR: scheduler {i} is {shown(schedule)}, no schedule")
            if isinstance(schedule, ReduceLROnPlateau | SequentialLR):
                raise ValueError(f"SequentialLR: scheduler {i} cannot be a {_name(schedule)}")
            if schedule.optimizer is not optimizer:
                raise ValueError(f"SequentialLR: scheduler {i} is of another optimizer")
        if not self._schedulers or len(self._milestones) != len(self._schedulers) - 1:
            raise ValueError(
                "SequentialLR: expected one scheduler more than milestones, got "
                f"{len(self._schedulers)} and {len(self._milestones)}"
            )
        if self._milestones != sorted(self._milestones):
            raise ValueError(f"SequentialLR: milestones must ascend, got {self._milestones}")

    def _now(self) -> LRScheduler:
        return self._schedulers[bisect_right(self._milestones, self.last_epoch)]

    def step(self) -> None:
        """Go one step on with the schedule whose turn it is; call it after ``optimizer.step()``."""
        self.last_epoch += 1
        if self.last_epoch in self._milestones:
            self._now()._restart()
        else:
            self._now().step()
        self._last_lr = self._now().get_last_lr()

    def state_dict(self) -> dict[str, Any]:
        """As of any schedule, with the states of the ``schedulers``."""
        state = {k: v for k, v in vars(self).items() if k not in ("optimizer", "_schedulers")}
        inner = [schedule.state_dict() for schedule in self._schedulers]
        return copy.deepcopy(state) | {"_schedulers": inner}

    def _check_state(self, state: Any) -> None:
        super()._check_state(state)
        _check_length(self, "schedules", state["_schedulers"], len(self._schedulers))
        for schedule, inner in zip(self._schedulers, state["_schedulers"], strict=True):
            schedule._check_state(inner)

    def _load(self, state: dict[str, Any]) -> None:
        for schedule, inner in zip(self._schedulers, state.pop("_schedulers"), strict=True):
            schedule._load(inner)
        super()._load(state)


class ReduceLROnPlateau(LRScheduler):
    """The rate times ``factor`` where a metric has not improved for more than ``patience`` steps.

    In ``mode`` "min" a metric improves if it lies below the best so far · (1 − threshold), with
    ``threshold_mode`` "abs" below best − threshold; in "max" above best · (1 + threshold), or
    best + threshold. After a reduction ``cooldown`` steps are not counted; no rate falls below
    ``min_lr``, of which there may be one per group, nor by ``eps`` or less.
    """

    def __init__(
        self,
        optimizer: Optimizer,
        mode: str = "min",
        factor: float = 0.1,
        patience: int = 10,
        threshold: float = 1e-4,
        threshold_mode: str = "rel",
        cooldown: int = 0,
        min_lr: float | Sequence[float] = 0,
        eps: float = 1e-8,
    ) -> None:
        _check_optimizer(self, optimizer)
        if not 0 <= _number(self, "factor", factor) < 1:
            raise ValueError(f"ReduceLROnPlateau: factor must be in [0, 1), got {factor}")
        for name, value, known in (
            ("mode", mode, ("min", "max")),
            ("threshold_mode", threshold_mode, ("rel", "abs")),
        ):
            if value not in known:
                raise ValueError(
                    f"ReduceLROnPlateau: {name} must be {known[0]!r} or {known[1]!r}, got {value!r}"
                )
        self.mode, self.threshold_mode = mode, threshold_mode
        self.factor, self.threshold = factor, _number(self, "threshold", threshold)
        self.patience = _count(self, "patience", patience, 0)
        self.cooldown = _count(self, "cooldown", cooldown, 0)
        self.eps = _number(self, "eps", eps)
        lowest = _per_group(self, "min_lr", min_lr, optimizer)
        self.min_lrs = [_number(self, "min_lr", low) for low in lowest]
        self.default_min_lr = None if isinstance(min_lr, list | tuple) else self.min_lrs[0]
        self.base_lrs = [
            group["initial_lr"] if "initial_lr" in group else group["lr"]
            for group in optimizer.param_groups
        ]
        self._attach(optimizer)
        self.last_epoch = 0
        self.best = math.inf if mode == "min" else -math.inf
        self.cooldown_counter = 0
        self.num_bad_epochs = 0
        self._last_lr = self._lrs()

    @property
    def in_cooldown(self) -> bool:
        """Whether steps are not counted because the rate was just reduced."""
        return self.cooldown_counter > 0

    def step(self, metrics: SupportsFloat) -> None:  # type: ignore[override]
        """Look at a metric, a number or a tensor of one, and reduce the rates if it is time.

        UserWarning as of any schedule; TypeError for what is no number.
        """
        current = _float(self, "metrics", metrics)
        if self.last_epoch == 0:
            self._warn_unless_stepped()
        self.last_epoch += 1
        if self._is_better(current):
            self.best = current
            self.num_bad_epochs = 0
        else:
            self.num_bad_epochs += 1
        if self.in_cooldown:
            self.cooldown_counter -= 1
            self.num_bad_epochs = 0
        if self.num_bad_epochs > self.patience:
            self._reduce()
            self.cooldown_counter = self.cooldown
            self.num_bad_epochs = 0
        self._last_lr = self._lrs()

    def _is_better(self, metric: float) -> bool:
        relative, sign = self.threshold_mode == "rel", 1.0 if self.mode == "max" else -1.0
        if relative:
            bar = self.best * (1.0 + sign * self.threshold)
        else:
            bar = self.best + sign * self.threshold
        return metric > bar if self.mode == "max" else metric < bar

    def _reduce(self) -> None:
        groups = self.optimizer.param_groups
        if self.default_min_lr is not None:
            self.min_lrs = [self.default_min_lr] * len(groups)
        if len(self.min_lrs) != len(groups):
            raise ValueError(
                f"ReduceLROnPlateau: the optimizer has {len(groups)} groups and min_lr "
                f"{len(self.min_lrs)} values; set min_lrs anew"
            )
        for group, low in zip(groups, self.min_lrs, strict=True):
            rate = float(max(group["lr"] * self.factor, low))
            if group["lr"] - rate > self.eps:
                group["lr"] = rate


# ---- what people pass


def _name(x: object) -> str:
    return type(x).__name__


def _check_optimizer(schedule: LRScheduler, optimizer: Any) -> None:
    if not isinstance(optimizer, Optimizer):
        raise TypeError(f"{_name(schedule)}: expected an optimizer, got {shown(optimizer)}")


def _per_group(schedule: LRScheduler, what: str, given: Any, optimizer: Optimizer) -> list[Any]:
    """One value per group; ValueError for a list of another length."""
    count = len(optimizer.param_groups)
    if not isinstance(given, list | tuple):
        return [given] * count
    if len(given) != count:
        raise ValueError(
            f"{_name(schedule)}: {what} has {len(given)} values, the optimizer {count} groups"
        )
    return list(given)


def _number(schedule: LRScheduler, what: str, value: Any) -> float:
    if not is_number(value):
        raise TypeError(f"{_name(schedule)}: {what} must be a number, got {shown(value)}")
    return value


def _float(schedule: LRScheduler, what: str, value: Any) -> float:
    """A number, or a tensor of one, as a float."""
    try:
        if not isinstance(value, str):
            return float(value)
    except (TypeError, ValueError):
        pass
    raise TypeError(f"{_name(schedule)}: {what} must be a number, got {shown(value)}")


def _count(schedule: LRScheduler, what: str, value: Any, least: int = 1) -> int:
    count = checked_integer(_name(schedule), what, value)
    if count < least:
        raise ValueError(f"{_name(schedule)}: {what} must be at least {least}, got {count}")
    return count


def _listed(schedule: LRScheduler, what: str, given: Any) -> list[Any]:
    if not isinstance(given, Iterable) or isinstance(given, str):
        raise TypeError(f"{_name(schedule)}: {what} must be a list, got {shown(given)}")
    return list(given)


# ---- states


def _check_length(schedule: LRScheduler, what: str, given: Any, expected: int) -> None:
    """ValueError where a list in a state is of another length, or no list."""
    found = len(given) if isinstance(given, list | tuple) else shown(given)
    if found != expected:
        raise ValueError(f"{_name(schedule)}: the state is of {found} {what}, expected {expected}")


def _attributes(function: Any) -> dict[str, Any] | None:
    """What a callable object keeps; None of a function, and of what has no attributes."""
    if isinstance(function, types.FunctionType | types.MethodType):
        return None
    found = getattr(function, "__dict__", None)
    return found if isinstance(found, dict) else None
