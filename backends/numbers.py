"""The numbers that kernels take for static arguments which the host may compute anew for each call.

What backends with kernels of their own share.
"""

from __future__ import annotations

from typing import Any

import numpy as np

# ---- updates


def sgd_numbers(
    *,
    lr: float,
    momentum: float,
    dampening: float,
    weight_decay: float,
    nesterov: bool,
    maximize: bool,
    first: bool,
) -> tuple[Any, ...]:
    """Those that momentum needs come first."""
    undamped = 1.0 if first else float(1 - dampening)
    settings = float(momentum), undamped, bool(nesterov)
    return *settings, float(lr), float(weight_decay), bool(maximize)


def adam_numbers(
    *,
    lr: float,
    beta1: float,
    beta2: float,
    eps: float,
    weight_decay: float,
    decoupled_weight_decay: bool,
    maximize: bool,
    step: int,
) -> tuple[Any, ...]:
    shrink, coupled = 1.0, float(weight_decay)
    if decoupled_weight_decay:
        shrink, coupled = float(1 - lr * weight_decay), 0.0
    step_size, correction = float(lr / (1 - beta1**step)), float((1 - beta2**step) ** 0.5)
    betas = float(beta1), float(beta2)
    return *betas, float(eps), coupled, shrink, bool(maximize), step_size, correction


def adagrad_numbers(
    *, lr: float, lr_decay: float, eps: float, weight_decay: float, maximize: bool, step: int
) -> tuple[Any, ...]:
    rate = lr / (1 + (step - 1) * lr_decay)
    return float(rate), float(eps), float(weight_decay), bool(maximize)


def adadelta_numbers(
    *, lr: float, rho: float, eps: float, weight_decay: float, maximize: bool, step: int
) -> tuple[Any, ...]:
    return float(lr), float(rho), float(eps), float(weight_decay), bool(maximize)


def rmsprop_numbers(
    *,
    lr: float,
    alpha: float,
    eps: float,
    momentum: float,
    weight_decay: float,
    maximize: bool,
    step: int,
) -> tuple[Any, ...]:
    settings = float(lr), float(alpha), float(eps), float(momentum)
    return *settings, float(weight_decay), bool(maximize)


# ---- random streams


def mask_numbers(*, shape: Any, p: float, key: int, dtype: Any) -> tuple[Any, ...]:
    """What ``dropout_mask`` takes: the stream, what is dropped of 2³², and what is kept becomes."""
    return np.uint64(key), np.uint64(min(round(p * 2**32), 2**32 - 1)), float(1 / (1 - p))


def uniform_numbers(*, shape: Any, key: int, dtype: Any) -> tuple[Any, ...]:
    return (np.uint64(key),)
