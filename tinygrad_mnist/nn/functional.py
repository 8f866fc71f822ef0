"""Layers and losses as functions, named as in PyTorch."""

from __future__ import annotations

from typing import Any

from tinygrad_mnist import ops
from tinygrad_mnist.ops import (
    conv2d,
    linear,
    log_softmax,
    max_pool2d,
    relu,
    sigmoid,
    softmax,
    tanh,
)
from tinygrad_mnist.ops.networks import check_floats, check_tensors
from tinygrad_mnist.tensor import Tensor

__all__ = [
    "batch_norm",
    "conv2d",
    "cross_entropy",
    "dropout",
    "linear",
    "log_softmax",
    "max_pool2d",
    "mse_loss",
    "relu",
    "sigmoid",
    "softmax",
    "tanh",
]


def dropout(x: Tensor, p: float = 0.5, training: bool = True) -> Tensor:
    """``x`` with each element zero with probability ``p``, the others divided by 1 − p.

    ``x`` itself where not ``training``. ValueError for p outside 0 … 1.
    """
    return ops.dropout(x, p) if training else x


def batch_norm(
    x: Tensor,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    weight: Tensor,
    bias: Tensor,
    training: bool = False,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> Tensor:
    """(x − mean) / √(var + eps) · weight + bias for each channel of x (N, C, …).

    In training, mean and biased variance are the batch's, and the running ones (C,) move towards
    them by ``momentum``, the variance as the unbiased one; otherwise the running ones are used.
    TypeError for differing dtypes, and others than floats. Ioffe, Szegedy 2015.
    """
    running = {"running_mean": running_mean, "running_var": running_var}
    given = {key: value for key, value in running.items() if value is not None}
    check_floats("batch_norm", x=x, weight=weight, bias=bias, **given)
    if training or running_mean is None or running_var is None:
        y, mean, var = ops.batch_norm(x, weight, bias, eps)
        if training and running_mean is not None and running_var is not None:
            count = x.numel() // x.shape[1]
            running_mean.lerp_(mean, momentum)
            running_var.lerp_(var * (count / (count - 1)), momentum)
        return y
    if x.ndim < 2 or x.shape[1:2] != running_mean.shape:
        raise ValueError(
            f"batch_norm: expected x (N, {running_mean.shape[0]}, …), got shape {tuple(x.shape)}"
        )
    shape = (1, -1) + (1,) * (x.ndim - 2)
    scale = weight / (running_var + eps).sqrt()
    shift = bias - running_mean.clone() * scale  # backward wants it as it is now
    return x * scale.reshape(shape) + shift.reshape(shape)


def cross_entropy(x: Tensor, target: Tensor, reduction: str = "mean") -> Tensor:
    """−log softmax(x)[target] of logits x (N, C) and classes target (N,) int64.

    ``reduction``: "mean", "sum" or "none" (N,). IndexError for a class outside 0 … C−1.
    """
    return _reduced(ops.cross_entropy(x, target), reduction)


def mse_loss(x: Tensor, target: Tensor, reduction: str = "mean") -> Tensor:
    """(x − target)² of equal shapes; ``reduction``: "mean", "sum" or "none"."""
    check_tensors("mse_loss", x=x, target=target)
    if x.shape != target.shape:
        raise ValueError(f"mse_loss: shapes differ: {tuple(x.shape)} and {tuple(target.shape)}")
    return _reduced((x - target).square(), reduction)


def _reduced(losses: Any, reduction: str) -> Tensor:
    if reduction == "mean":
        return losses.mean()
    if reduction == "sum":
        return losses.sum()
    if reduction == "none":
        return losses
    raise ValueError(f"reduction must be 'mean', 'sum' or 'none', got {reduction!r}")
