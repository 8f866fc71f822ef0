"""Normalisation over the batch, over an example's features, and over groups of channels."""

from __future__ import annotations

import math
from collections.abc import Sequence

from tinygrad_mnist.checks import check_scalars, checked_integer, fit, shape_of, shown
from tinygrad_mnist.kernels import Shape
from tinygrad_mnist.ops import networks
from tinygrad_mnist.ops.table import full_like
from tinygrad_mnist.tensor import Tensor

_CHANNELS = "weight? float (C), bias? float (C)"
_RUNNING = "running_mean? float (C), running_var? float (C)"
_BATCH_NORM = f"input float (N, C, …), {_RUNNING}, {_CHANNELS}"


def batch_norm(
    input: Tensor,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    training: bool = False,
    momentum: float | Tensor = 0.1,
    eps: float = 1e-5,
) -> Tensor:
    """(x − mean) / √(var + eps) · weight + bias for each channel of input (N, C, …).

    In training, mean and biased variance are the batch's, and the running ones (C,) move towards
    them by ``momentum`` (a number, or a tensor () of one), the variance as the unbiased one;
    otherwise the running ones are used.
    ValueError where shapes do not fit, for one of the running ones without the other or neither
    outside of training, and for a single value per channel in training; TypeError for differing
    dtypes, and others than floats. Ioffe, Szegedy 2015.
    """
    fit("batch_norm", _BATCH_NORM, input, running_mean, running_var, weight, bias)
    check_scalars("batch_norm", eps=eps)
    if not isinstance(momentum, Tensor):
        check_scalars("batch_norm", momentum=momentum)
    if running_mean is None or running_var is None:
        if not training or running_mean is not running_var:
            missing = "running_var" if running_var is None else "running_mean"
            raise ValueError(
                f"batch_norm: expected running_mean and running_var, or in training neither; "
                f"{missing} is None with training={training}"
            )
    elif not training:
        return _by_running(input, running_mean, running_var, weight, bias, eps)
    size, channels = input.array.size, input.array.shape[1]
    if not size:
        return _affine(input, weight, bias)
    if size == channels:
        raise ValueError(
            f"batch_norm: needs more than one value per channel in training, got shape "
            f"{tuple(input.shape)}; use a larger batch or eval()"
        )
    y, mean, var = _batch_norm(input, weight, bias, eps)
    if running_mean is not None and running_var is not None:
        count = size // channels
        _follow(running_mean, mean, momentum)
        _follow(running_var, var * (count / (count - 1)), momentum)
    return y


def _batch_norm(
    x: Tensor, weight: Tensor | None, bias: Tensor | None, eps: float
) -> tuple[Tensor, Tensor, Tensor]:
    size = x.shape[1:2]
    weight = full_like(x, 1, size) if weight is None else weight
    return networks.batch_norm(x, weight, full_like(x, 0, size) if bias is None else bias, eps)


def _follow(running: Tensor, value: Tensor, momentum: float | Tensor) -> None:
    if isinstance(momentum, Tensor):
        running.add_((value - running) * momentum)
    else:
        running.lerp_(value, momentum)


def _by_running(
    x: Tensor, mean: Tensor, var: Tensor, weight: Tensor | None, bias: Tensor | None, eps: float
) -> Tensor:
    scale = (var + eps).sqrt().reciprocal()
    scale = scale if weight is None else weight * scale
    shift = -mean * scale
    return _affine(x, scale, shift if bias is None else shift + bias)


def layer_norm(
    input: Tensor,
    normalized_shape: Sequence[int],
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    eps: float = 1e-5,
) -> Tensor:
    """(x − mean) / √(var + eps) · weight + bias over the last dims, ``normalized_shape``.

    Weight and bias are of that shape; the variance is the biased one. ValueError where shapes do
    not fit, TypeError for differing dtypes, and others than floats. Ba, Kiros, Hinton 2016.
    """
    sizes = checked_sizes("layer_norm", normalized_shape)
    inner = ", ".join(map(str, sizes))
    pattern = f"input float (…, {inner}), weight? float ({inner}), bias? float ({inner})"
    fit("layer_norm", pattern, input, weight, bias)
    check_scalars("layer_norm", eps=eps)
    y = _standardised(input, math.prod(sizes), eps)
    y = y if weight is None else y * weight
    return y if bias is None else y + bias


def checked_sizes(name: str, sizes: Sequence[int]) -> Shape:
    """``normalized_shape`` as a tuple. ValueError for no or negative sizes, else TypeError."""
    if not isinstance(sizes, tuple | list):
        raise TypeError(f"{name}: normalized_shape must be a tuple of integers, got {shown(sizes)}")
    found = shape_of((sizes,), name)
    if min(found, default=-1) < 0:
        raise ValueError(
            f"{name}: normalized_shape must be one or more sizes of at least 0, got {found}"
        )
    return found


def group_norm(
    input: Tensor,
    num_groups: int,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    eps: float = 1e-5,
) -> Tensor:
    """(x − mean) / √(var + eps) · weight + bias over each of the groups of channels.

    input (N, C, …), with C / num_groups neighbouring channels in a group; weight and bias (C,)
    scale and shift each channel. ValueError where shapes do not fit, or for a batch with a single
    value per group; TypeError for differing dtypes, and others than floats. Wu, He 2018.
    """
    fit("group_norm", f"input float (N, C, …), {_CHANNELS}", input, weight, bias)
    check_scalars("group_norm", eps=eps)
    channels = input.shape[1]
    if checked_integer("group_norm", "num_groups", num_groups) < 1 or channels % num_groups:
        raise ValueError(
            f"group_norm: num_groups must divide the {channels} channels, got {num_groups}"
        )
    if input.numel() == num_groups:
        raise ValueError(
            f"group_norm: needs more than one value per group, got shape {tuple(input.shape)} "
            f"with num_groups {num_groups}"
        )
    cells = math.prod(input.shape[1:]) // num_groups
    return _affine(_standardised(input, cells, eps), weight, bias)


def _affine(x: Tensor, scale: Tensor | None, shift: Tensor | None) -> Tensor:
    """x (N, C, …) · scale (C,) + shift (C,), where they are there."""
    per_channel = (-1,) + (1,) * (x.ndim - 2)
    y = x if scale is None else x * scale.reshape(per_channel)
    return y if shift is None else y + shift.reshape(per_channel)


def _standardised(x: Tensor, cells: int, eps: float) -> Tensor:
    """(x − mean) / √(var + eps) over each run of ``cells`` elements in row-major order."""
    if not x.numel():
        return x.clone()
    runs = x.reshape(1, -1, cells)  # each a channel of one image
    return _batch_norm(runs, None, None, eps)[0].reshape(x.shape)
