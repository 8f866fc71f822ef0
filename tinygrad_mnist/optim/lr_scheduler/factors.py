"""Schedules that go on from the rate as it is, by a factor."""

from __future__ import annotations

import copy
import math
import types
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from tinygrad_mnist.checks import shown
from tinygrad_mnist.optim.lr_scheduler.base import (
    LRScheduler,
    as_float,
    check_length,
    check_optimizer,
    count,
    listed,
    number,
    per_group,
)
from tinygrad_mnist.optim.optimizer import Optimizer


class LambdaLR(LRScheduler):
    """initial_lr · lr_lambda(step); ``lr_lambda`` is a function, or a list of one per group."""

    def __init__(
        self,
        optimizer: Optimizer,
        lr_lambda: Callable[[int], float] | Sequence[Callable[[int], float]],
        last_epoch: int = -1,
    ) -> None:
        check_optimizer(self, optimizer)
        self.lr_lambdas = per_group(self, "lr_lambda", lr_lambda, optimizer)
        for function in self.lr_lambdas:
            if not callable(function):
                raise TypeError(f"LambdaLR: lr_lambda must be functions, got {shown(function)}")
        super().__init__(optimizer, last_epoch)

    def get_lr(self) -> list[float]:
        found = []
        for (_, base), function in zip(self._with_bases(), self.lr_lambdas, strict=True):
            factor = function(self.last_epoch)
            as_float(self, "what lr_lambda gives", factor)
            found.append(base * factor)
        return found

    def state_dict(self) -> dict[str, Any]:
        """As of any schedule; of functions None, of callable objects their attributes."""
        state = {k: v for k, v in vars(self).items() if k not in ("optimizer", "lr_lambdas")}
        kept = [_attributes(function) for function in self.lr_lambdas]
        return copy.deepcopy({**state, "lr_lambdas": kept})

    def _check_state(self, state: Any) -> None:
        super()._check_state(state)
        check_length(self, "functions", state["lr_lambdas"], len(self.lr_lambdas))
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
        self.step_size = count(self, "step_size", step_size)
        self.gamma = number(self, "gamma", gamma)
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
        given = listed(self, "milestones", milestones)
        self.milestones = Counter(count(self, "a milestone", m, 0) for m in given)
        self.gamma = number(self, "gamma", gamma)
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
        self.gamma = number(self, "gamma", gamma)
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
        self.start_factor = number(self, "start_factor", start_factor)
        self.end_factor = number(self, "end_factor", end_factor)
        if not 0 < start_factor <= 1 or not 0 <= end_factor <= 1:
            raise ValueError(
                "LinearLR: start_factor must be above 0 and at most 1, end_factor in 0 to 1, got "
                f"{start_factor} and {end_factor}"
            )
        self.total_iters = count(self, "total_iters", total_iters)
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
        self.T_max = count(self, "T_max", T_max)
        self.eta_min = number(self, "eta_min", eta_min)
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


def _attributes(function: Any) -> dict[str, Any] | None:
    """What a callable object keeps; None of a function, and of what has no attributes."""
    if isinstance(function, types.FunctionType | types.MethodType):
        return None
    found = getattr(function, "__dict__", None)
    return found if isinstance(found, dict) else None
