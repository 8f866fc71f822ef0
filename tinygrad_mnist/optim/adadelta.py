"""Adadelta."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, ClassVar

from tinygrad_mnist.optim.fused import FusedOptimizer


class Adadelta(FusedOptimizer):
    """v ← ρv + (1−ρ)g²;  d = g·√(u + eps) / √(v + eps);  u ← ρu + (1−ρ)d²;  p ← p − lr·d.

    ``weight_decay``·p is added to g first (Zeiler 2012). ``maximize`` goes up instead of down.
    """

    _kernel = "adadelta_"
    _options = ("lr", "rho", "eps", "weight_decay", "maximize")
    _moments: ClassVar = {"square_avg": "", "acc_delta": ""}

    def __init__(
        self,
        params: Iterable[Any],
        lr: float = 1.0,
        rho: float = 0.9,
        eps: float = 1e-6,
        weight_decay: float = 0,
        *,
        maximize: bool = False,
    ) -> None:
        defaults = {
            "lr": lr,
            "rho": rho,
            "eps": eps,
            "weight_decay": weight_decay,
            "maximize": maximize,
        }
        super().__init__(params, defaults)
