"""Adagrad."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, ClassVar

from tinygrad_mnist.optim.fused import FusedOptimizer
from tinygrad_mnist.optim.optimizer import Group


class Adagrad(FusedOptimizer):
    """s ← s + g²;  p ← p − lr / (1 + (t−1)·lr_decay) · g / (√s + eps) at step t.

    ``weight_decay``·p is added to g first; s begins at ``initial_accumulator_value``
    (Duchi, Hazan, Singer 2011). ``maximize`` goes up instead of down.
    """

    _kernel = "adagrad_"
    _options = ("lr", "lr_decay", "eps", "weight_decay", "maximize")
    _moments: ClassVar = {"sum": ""}

    def __init__(
        self,
        params: Iterable[Any],
        lr: float = 1e-2,
        lr_decay: float = 0,
        weight_decay: float = 0,
        initial_accumulator_value: float = 0,
        eps: float = 1e-10,
        *,
        maximize: bool = False,
    ) -> None:
        defaults = {
            "lr": lr,
            "lr_decay": lr_decay,
            "eps": eps,
            "weight_decay": weight_decay,
            "initial_accumulator_value": initial_accumulator_value,
            "maximize": maximize,
        }
        super().__init__(params, defaults)

    def _initial(self, group: Group) -> float:
        return float(group["initial_accumulator_value"])
