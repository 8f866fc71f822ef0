"""One cycle of the learning rate and the momentum."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from tinygrad_mnist.optim.lr_scheduler.base import (
    LRScheduler,
    check_optimizer,
    count,
    name_of,
    number,
    per_group,
)
from tinygrad_mnist.optim.optimizer import Group, Optimizer


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
        check_optimizer(self, optimizer)
        self.total_steps = _total_steps(self, total_steps, epochs, steps_per_epoch)
        if anneal_strategy not in _ANNEAL:
            raise ValueError(
                f"OneCycleLR: anneal_strategy must be 'cos' or 'linear', got {anneal_strategy!r}"
            )
        if not 0 <= number(self, "pct_start", pct_start) <= 1:
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
            if not number(self, name, value) > 0:
                raise ValueError(f"OneCycleLR: {name} must be above 0, got {value}")
        found = []
        for high in per_group(self, "max_lr", max_lr, optimizer):
            if not (math.isfinite(number(self, "max_lr", high)) and high > 0):
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
                f"OneCycleLR: {name_of(optimizer)} has no momentum to cycle; give "
                "cycle_momentum=False"
            )
        ends = (
            [number(self, name, m) for m in per_group(self, name, given, optimizer)]
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
        return count(schedule, "total_steps", total)
    if epochs is None or steps_per_epoch is None:
        raise ValueError("OneCycleLR: give total_steps, or epochs and steps_per_epoch")
    per_epoch = count(schedule, "steps_per_epoch", steps_per_epoch)
    return count(schedule, "epochs", epochs) * per_epoch
