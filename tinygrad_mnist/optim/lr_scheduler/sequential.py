"""Schedules one after another."""

from __future__ import annotations

import copy
from bisect import bisect_right
from collections.abc import Sequence
from typing import Any

from tinygrad_mnist.checks import shown
from tinygrad_mnist.optim.lr_scheduler.base import (
    LRScheduler,
    check_length,
    check_optimizer,
    count,
    listed,
    name_of,
)
from tinygrad_mnist.optim.lr_scheduler.plateau import ReduceLROnPlateau
from tinygrad_mnist.optim.optimizer import Optimizer


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
        check_optimizer(self, optimizer)
        self._schedulers: list[LRScheduler] = listed(self, "schedulers", schedulers)
        given = listed(self, "milestones", milestones)
        self._milestones = [count(self, "a milestone", m, 0) for m in given]
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
                raise ValueError(f"SequentialLR: scheduler {i} cannot be a {name_of(schedule)}")
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
        check_length(self, "schedules", state["_schedulers"], len(self._schedulers))
        for schedule, inner in zip(self._schedulers, state["_schedulers"], strict=True):
            schedule._check_state(inner)

    def _load(self, state: dict[str, Any]) -> None:
        for schedule, inner in zip(self._schedulers, state.pop("_schedulers"), strict=True):
            schedule._load(inner)
        super()._load(state)
