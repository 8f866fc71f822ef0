"""Schedules: functions of the step count that set the options of an optimizer's groups."""

from __future__ import annotations

import math
from typing import Any

from tinygrad_mnist.optim.optimizer import Optimizer


class LRScheduler:
    """Base: counts the steps and sets each group's options at each of them."""

    def __init__(self, optimizer: Optimizer) -> None:
        self.optimizer = optimizer
        self.last_epoch = -1
        self.step()

    def step(self) -> None:
        """Go one step on; call it after ``optimizer.step()``."""
        self.last_epoch += 1
        for group in self.optimizer.param_groups:
            self._set(group, self.last_epoch)

    def get_last_lr(self) -> list[float]:
        """The learning rate of each group as it is now."""
        return [group["lr"] for group in self.optimizer.param_groups]

    def state_dict(self) -> dict[str, Any]:
        """What ``load_state_dict`` needs to go on from here."""
        return {"last_epoch": self.last_epoch}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from a ``state_dict``."""
        self.last_epoch = state["last_epoch"]
        for group in self.optimizer.param_groups:
            self._set(group, self.last_epoch)

    def _set(self, group: dict[str, Any], step: int) -> None:
        raise NotImplementedError


class OneCycleLR(LRScheduler):
    """One rise and one fall of the learning rate, momentum the other way round.

    For the first ``pct_start`` of ``total_steps`` the rate goes from max_lr/div_factor to
    ``max_lr``, then to max_lr/div_factor/final_div_factor, both along half a cosine; the momentum
    (of Adam: beta1) from ``max_momentum`` to ``base_momentum`` and back (Smith, Topin 2018).
    """

    def __init__(
        self,
        optimizer: Optimizer,
        max_lr: float,
        total_steps: int | None = None,
        epochs: int | None = None,
        steps_per_epoch: int | None = None,
        pct_start: float = 0.3,
        cycle_momentum: bool = True,
        base_momentum: float = 0.85,
        max_momentum: float = 0.95,
        div_factor: float = 25.0,
        final_div_factor: float = 1e4,
    ) -> None:
        if total_steps is None:
            if epochs is None or steps_per_epoch is None:
                raise ValueError("OneCycleLR: give total_steps, or epochs and steps_per_epoch")
            total_steps = epochs * steps_per_epoch
        for name, value in (("max_lr", max_lr), ("div_factor", div_factor)):
            if not isinstance(value, int | float):
                raise TypeError(f"OneCycleLR: {name} must be a number, got {value!r}")
        if not (div_factor > 0 and final_div_factor > 0):
            raise ValueError(
                "OneCycleLR: div_factor and final_div_factor must be above 0, got "
                f"{div_factor} and {final_div_factor}"
            )
        if not isinstance(total_steps, int) or total_steps < 1 or not 0 <= pct_start <= 1:
            raise ValueError(
                "OneCycleLR: expected an integer total_steps of at least 1 and pct_start in 0 to "
                f"1, got {total_steps} and {pct_start}"
            )
        if not (math.isfinite(max_lr) and max_lr > 0):
            raise ValueError(f"OneCycleLR: max_lr must be a finite number above 0, got {max_lr}")
        self.total_steps = total_steps
        self.max_lr = max_lr
        self.initial_lr = max_lr / div_factor
        self.final_lr = self.initial_lr / final_div_factor
        self.peak = float(pct_start * total_steps) - 1
        self.momenta = (max_momentum, base_momentum) if cycle_momentum else None
        super().__init__(optimizer)

    def _set(self, group: dict[str, Any], step: int) -> None:
        if step > self.total_steps:
            raise ValueError(
                f"OneCycleLR: step {step} of a schedule of {self.total_steps} steps; "
                "give it the number of all optimizer steps"
            )
        if step <= self.peak and self.peak > 0:
            along = step / self.peak
            ends, momenta = (self.initial_lr, self.max_lr), self.momenta
        else:
            rest = self.total_steps - 1 - self.peak
            along = (step - self.peak) / rest if rest else 1.0
            ends, momenta = (self.max_lr, self.final_lr), self.momenta and self.momenta[::-1]
        group["lr"] = _cosine(*ends, along)
        if momenta:
            _set_momentum(group, _cosine(*momenta, along))


def _cosine(start: float, end: float, along: float) -> float:
    """Half a cosine wave from ``start`` (along = 0) to ``end`` (along = 1)."""
    return end + (start - end) / 2.0 * (math.cos(math.pi * along) + 1)


def _set_momentum(group: dict[str, Any], value: float) -> None:
    if "betas" in group:
        group["betas"] = (value, *group["betas"][1:])
    elif "momentum" in group:
        group["momentum"] = value
