"""RMSprop."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, ClassVar

from tinygrad_mnist.optim.fused import FusedOptimizer


class RMSprop(FusedOptimizer):
    """v ← αv + (1−α)g²;  d = g / (√v + eps);  b ← momentum·b + d;  p ← p − lr·b.

    Without momentum p ← p − lr·d. ``centered`` subtracts the square of the gradient's own average
    from v. ``weight_decay``·p is added to g first (Hinton 2012, lecture 6e; centered: Graves 2013).
    ``maximize`` goes up instead of down.
    """

    _kernel = "rmsprop_"
    _options = ("lr", "alpha", "eps", "momentum", "weight_decay", "maximize")
    _moments: ClassVar = {"square_avg": "", "grad_avg": "centered", "momentum_buffer": "momentum"}

    def __init__(
        self,
        params: Iterable[Any],
        lr: float = 1e-2,
        alpha: float = 0.99,
        eps: float = 1e-8,
        weight_decay: float = 0,
        momentum: float = 0,
        centered: bool = False,
        *,
        maximize: bool = False,
    ) -> None:
        defaults = {
            "lr": lr,
            "alpha": alpha,
            "eps": eps,
            "weight_decay": weight_decay,
            "momentum": momentum,
            "centered": centered,
            "maximize": maximize,
        }
        super().__init__(params, defaults)
