"""Stochastic gradient descent."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, ClassVar

from tinygrad_mnist.optim.fused import FusedOptimizer
from tinygrad_mnist.optim.optimizer import Group


class SGD(FusedOptimizer):
    """g ← g + weight_decay·p;  b ← momentum·b + (1 − dampening)·g;  p ← p − lr·b.

    Without momentum p ← p − lr·g; with ``nesterov`` the step is g + momentum·b. The first b is g
    (Sutskever et al. 2013, in PyTorch's form). ``maximize`` goes up instead of down.
    """

    _kernel = "sgd_"
    _options = (
        "lr",
        "momentum",
        "dampening",
        "weight_decay",
        "nesterov",
        "maximize",
    )
    _moments: ClassVar = {"momentum_buffer": "momentum"}
    _counts = False

    def __init__(
        self,
        params: Iterable[Any],
        lr: float = 1e-3,
        momentum: float = 0,
        dampening: float = 0,
        weight_decay: float = 0,
        nesterov: bool = False,
        *,
        maximize: bool = False,
    ) -> None:
        defaults = {
            "lr": lr,
            "momentum": momentum,
            "dampening": dampening,
            "weight_decay": weight_decay,
            "nesterov": nesterov,
            "maximize": maximize,
        }
        super().__init__(params, defaults)

    def _check_ranges(self, group: Group) -> None:
        super()._check_ranges(group)
        if group["nesterov"] and (group["momentum"] <= 0 or group["dampening"] != 0):
            raise ValueError("SGD: nesterov needs a momentum above 0 and no dampening")
