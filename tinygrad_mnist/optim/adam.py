"""Adam, and Adam with decoupled weight decay."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, ClassVar

from tinygrad_mnist.optim.fused import FusedOptimizer
from tinygrad_mnist.optim.optimizer import Group


class Adam(FusedOptimizer):
    """m ← β₁m + (1−β₁)g;  v ← β₂v + (1−β₂)g²;  p ← p − lr · m̂ / (√v̂ + eps).

    m̂ = m / (1 − β₁ᵗ), v̂ = v / (1 − β₂ᵗ) at step t; ``weight_decay``·p is added to g first, or,
    ``decoupled_weight_decay``, lr·weight_decay·p taken from p (Kingma, Ba 2015). With ``amsgrad``
    the largest v so far stands for v (Reddi et al. 2018). ``maximize`` goes up instead of down.
    """

    _kernel = "adam_"
    _options = (
        "lr",
        "beta1",
        "beta2",
        "eps",
        "weight_decay",
        "decoupled_weight_decay",
        "maximize",
    )
    _moments: ClassVar = {"exp_avg": "", "exp_avg_sq": "", "max_exp_avg_sq": "amsgrad"}

    def __init__(
        self,
        params: Iterable[Any],
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0,
        amsgrad: bool = False,
        *,
        maximize: bool = False,
        decoupled_weight_decay: bool = False,
    ) -> None:
        defaults = {
            "lr": lr,
            "betas": betas,
            "eps": eps,
            "weight_decay": weight_decay,
            "amsgrad": amsgrad,
            "maximize": maximize,
            "decoupled_weight_decay": decoupled_weight_decay,
        }
        super().__init__(params, defaults)


class AdamW(Adam):
    """Adam with decoupled weight decay: p ← p − lr·weight_decay·p first (Loshchilov, Hutter 2019).

    Everything else is as in ``Adam``.
    """

    def __init__(
        self,
        params: Iterable[Any],
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 1e-2,
        amsgrad: bool = False,
        *,
        maximize: bool = False,
    ) -> None:
        super().__init__(
            params,
            lr,
            betas,
            eps,
            weight_decay,
            amsgrad,
            maximize=maximize,
            decoupled_weight_decay=True,
        )

    def _checked(self, group: Group) -> Group:
        """As everywhere; decoupled also where a state of ``Adam`` is loaded."""
        return super()._checked({**group, "decoupled_weight_decay": True})
