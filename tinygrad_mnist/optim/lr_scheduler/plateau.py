"""A schedule that follows a metric."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import SupportsFloat

from tinygrad_mnist.optim.lr_scheduler.base import (
    LRScheduler,
    as_float,
    check_optimizer,
    count,
    number,
    per_group,
)
from tinygrad_mnist.optim.optimizer import Optimizer


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
        check_optimizer(self, optimizer)
        if not 0 <= number(self, "factor", factor) < 1:
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
        self.factor, self.threshold = factor, number(self, "threshold", threshold)
        self.patience = count(self, "patience", patience, 0)
        self.cooldown = count(self, "cooldown", cooldown, 0)
        self.eps = number(self, "eps", eps)
        lowest = per_group(self, "min_lr", min_lr, optimizer)
        self.min_lrs = [number(self, "min_lr", low) for low in lowest]
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
        current = as_float(self, "metrics", metrics)
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
