"""Convolution, pooling, and windows of images."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from tinygrad_mnist.autograd.graph import Value
from tinygrad_mnist.checks import check_numbers, checked_integer, fit, shown
from tinygrad_mnist.composed.arrangements import pad
from tinygrad_mnist.kernels import Conv, Pair, Pool, convolved, lowest
from tinygrad_mnist.nn.functional.windows import (
    check_divisor,
    check_groups,
    check_named_padding,
    check_window,
    pair,
    part_counts,
    pooling,
)
from tinygrad_mnist.ops import products
from tinygrad_mnist.ops.products import conv2d_dx, windows, windows_grad
from tinygrad_mnist.ops.shapes import cat, sliced
from tinygrad_mnist.ops.table import full_like
from tinygrad_mnist.tensor import Tensor

# ---- convolution


def conv1d(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Any = 1,
    padding: Any = 0,
    dilation: Any = 1,
    groups: int = 1,
) -> Tensor:
    """``conv2d`` in one dim: input (N, C, L) or (C, L), weight (O, C/groups, k): (N, O, L')."""
    if _has_dims(input, 2):
        return _of_one(conv1d, input, weight, bias, stride, padding, dilation, groups)
    fit("conv1d", "input (N, C, L), weight (O, I, k), bias? (O)", input, weight, bias)
    check_numbers("conv1d", input)
    flat, kernel = _flat(input), _flat(weight)
    steps = (1, _single("stride", stride, 1))
    spread = (1, _single("dilation", dilation, 1))
    if isinstance(padding, str):
        flat, margin = _named_padding("conv1d", flat, kernel, padding, steps, spread)
    else:
        margin = (0, _single("padding", padding, 0))
    check_groups("conv1d", groups, input.shape, weight.shape)
    check_window("conv1d", flat, kernel.shape[2:], steps, margin, spread)
    y = products.conv2d(flat, kernel, bias, conv=Conv(steps, margin, spread, groups))
    return y.reshape((*y.shape[:2], y.shape[3]))


def conv2d(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Any = 1,
    padding: Any = 0,
    dilation: Any = 1,
    groups: int = 1,
) -> Tensor:
    """Cross-correlation of input (N, C, H, W) or (C, H, W) with weight (O, C/groups, kh, kw).

    (N, O, H', W') with H' = ⌊(H + 2·padding − dilation·(kh−1) − 1) / stride⌋ + 1, W' likewise, or
    (O, H', W'); bias (O,) is added. Settings are numbers or pairs. padding ``"valid"`` is 0;
    ``"same"``, of stride 1, gives H' = H: an odd margin is larger at the bottom and the right.
    ValueError where the shapes do not fit; TypeError for differing dtypes.
    """
    if _has_dims(input, 3):
        return _of_one(conv2d, input, weight, bias, stride, padding, dilation, groups)
    fit("conv2d", "input (N, C, H, W), weight (O, I, kh, kw), bias? (O)", input, weight, bias)
    check_numbers("conv2d", input)
    check_groups("conv2d", groups, input.shape, weight.shape)
    steps = pair("conv2d", "stride", stride, 1)
    spread = pair("conv2d", "dilation", dilation, 1)
    if isinstance(padding, str):
        input, margin = _named_padding("conv2d", input, weight, padding, steps, spread)
    else:
        margin = pair("conv2d", "padding", padding, 0)
    check_window("conv2d", input, weight.shape[2:], steps, margin, spread)
    return products.conv2d(input, weight, bias, conv=Conv(steps, margin, spread, groups))


def _named_padding(
    name: str, x: Any, weight: Any, padding: str, stride: Pair, dilation: Pair
) -> tuple[Any, Pair]:
    """``x``, with zeros at the bottom and the right where it takes more there, and the padding."""
    check_named_padding(name, padding, stride)
    if padding == "valid":
        return x, (0, 0)
    down, right = (d * (k - 1) for d, k in zip(dilation, weight.array.shape[2:], strict=True))
    return _framed(x, (0, 0), (down % 2, right % 2)), (down // 2, right // 2)


def conv_transpose2d(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Any = 1,
    padding: Any = 0,
    output_padding: Any = 0,
    groups: int = 1,
    dilation: Any = 1,
) -> Tensor:
    """The transpose of ``conv2d``, its gradient by its input.

    input (N, C, H, W) or (C, H, W), weight (C, O/groups, kh, kw): (N, O, H', W') with
    H' = (H − 1)·stride − 2·padding + dilation·(kh − 1) + output_padding + 1, W' likewise, or
    (O, H', W'); bias (O,) is added. ValueError where the shapes do not fit, or output_padding is
    not below stride or dilation; TypeError for differing dtypes.
    """
    if _has_dims(input, 3):
        settings = (stride, padding, output_padding, groups, dilation)
        return _of_one(conv_transpose2d, input, weight, bias, *settings)
    name = "conv_transpose2d"
    fit(name, "input (N, C, H, W), weight (C, O, kh, kw)", input, weight)
    check_numbers(name, input)
    if checked_integer(name, "groups", groups) < 1 or weight.shape[0] % groups:
        raise ValueError(f"{name}: {weight.shape[0]} channels do not form groups={groups}")
    channels = weight.shape[1] * groups
    if bias is not None:
        fit(name, f"input (…), bias ({channels})", input, bias)
    steps, spread = pair(name, "stride", stride, 1), pair(name, "dilation", dilation, 1)
    margin = pair(name, "padding", padding, 0)
    extra = pair(name, "output_padding", output_padding, 0)
    full, sizes = _transposed_sizes(input, weight, steps, margin, extra, spread)
    lead = (input.shape[0], channels)
    if extra[0] < steps[0] and extra[1] < steps[1]:
        conv = Conv(steps, margin, spread, groups)
        y = conv2d_dx(input, weight, shape=(*lead, *sizes), conv=conv)
    else:  # of so many rows or columns conv2d would make more than there were
        conv = Conv(steps, (0, 0), spread, groups)
        y = conv2d_dx(input, weight, shape=(*lead, *full), conv=conv)
        y = _cropped(_framed(y, (0, 0), extra), margin)
    return y if bias is None else y + bias.reshape(-1, 1, 1)


def _transposed_sizes(
    x: Any, weight: Any, stride: Pair, padding: Pair, extra: Pair, dilation: Pair
) -> tuple[list[int], list[int]]:
    """The height and width of a transposed convolution, without any padding and with it."""
    if any(e >= max(s, d) for e, s, d in zip(extra, stride, dilation, strict=True)):
        raise ValueError(
            f"conv_transpose2d: output_padding must be below stride {stride} or dilation "
            f"{dilation}, got {extra}"
        )
    full = [
        (n - 1) * s + d * (k - 1) + 1
        for n, s, d, k in zip(x.shape[2:], stride, dilation, weight.shape[2:], strict=True)
    ]
    sizes = [f - 2 * p + e for f, p, e in zip(full, padding, extra, strict=True)]
    if min(*x.shape[2:], *weight.shape[2:], *sizes) < 1:
        raise ValueError(
            f"conv_transpose2d: input {x.shape} with weight {weight.shape}, stride {stride} and "
            f"padding {padding} gives an image of {tuple(sizes)}"
        )
    return full, sizes


# ---- pooling


def max_pool2d(
    input: Tensor,
    kernel_size: Any,
    stride: Any = None,
    padding: Any = 0,
    dilation: Any = 1,
    ceil_mode: bool = False,
    return_indices: bool = False,
) -> Tensor:
    """The maximum of each window of input (N, C, H, W): (N, C, H', W'); or without N.

    H' = ⌊(H + 2·padding − dilation·(kernel_size−1) − 1) / stride⌋ + 1; ``ceil_mode`` rounds up, for
    windows that begin inside the image or its padding above. ``stride`` is ``kernel_size`` by
    default. The first of equal cells gets the gradient; a NaN is the maximum of its window.
    ValueError where the shapes do not fit, padding exceeds half of the window, or for
    ``return_indices``.
    """
    if return_indices:
        raise ValueError("max_pool2d: return_indices=True is not supported")
    if _has_dims(input, 3):
        return _of_one(max_pool2d, input, kernel_size, stride, padding, dilation, ceil_mode)
    spread = pair("max_pool2d", "dilation", dilation, 1)
    fit("max_pool2d", "input (N, C, H, W)", input)
    check_numbers("max_pool2d", input)
    pool = pooling("max_pool2d", kernel_size, stride, padding)
    size, step, margin = pool
    over = _overhang(input, size, step, margin, spread) if ceil_mode else (0, 0)
    check_window("max_pool2d", input, size, step, margin, spread, over)
    if spread == (1, 1) and over == (0, 0):
        return products.max_pool2d(input, pool)
    low = lowest(input.dtype)
    if spread == (1, 1):
        return products.max_pool2d(_framed(input, (0, 0), over, low), pool)
    return _dilated_max(_framed(input, margin, _sum(margin, over), low), size, step, spread)


def _dilated_max(x: Any, size: Pair, stride: Pair, dilation: Pair) -> Any:
    """The maxima of the windows laid side by side, so that none overlap and none has gaps."""
    found = windows(x, size, stride, dilation)
    n, c, kh, kw, height, width = found.shape
    apart = found.permute(0, 1, 4, 2, 5, 3).reshape(n, c, height * kh, width * kw)
    return products.max_pool2d(apart, Pool(size, size, (0, 0)))


def avg_pool2d(
    input: Tensor,
    kernel_size: Any,
    stride: Any = None,
    padding: Any = 0,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
    divisor_override: int | None = None,
) -> Tensor:
    """The mean of each window of input (N, C, H, W): (N, C, H', W'); or without N.

    H' and W' as for ``max_pool2d``. The sum of a window is divided by ``divisor_override``, else
    by how many of its cells lie in the image or, with ``count_include_pad``, its padding.
    ValueError where the shapes do not fit, padding exceeds half of the window, or for divisor 0.
    """
    settings = (ceil_mode, count_include_pad, divisor_override)
    if _has_dims(input, 3):
        return _of_one(avg_pool2d, input, kernel_size, stride, padding, *settings)
    fit("avg_pool2d", "input float (N, C, H, W)", input)
    size, step, margin = pooling("avg_pool2d", kernel_size, stride, padding)
    over = _overhang(input, size, step, margin, (1, 1)) if ceil_mode else (0, 0)
    check_window("avg_pool2d", input, size, step, margin, (1, 1), over)
    check_divisor("avg_pool2d", divisor_override)
    total = _window_sums(_framed(input, margin, _sum(margin, over)), size, step)
    if divisor_override is not None:
        return total / divisor_override
    if over == (0, 0) and (count_include_pad or margin == (0, 0)):
        return total / (size[0] * size[1])
    return total / _cell_counts(input, size, step, margin, over, count_include_pad)


def _cell_counts(
    x: Any, size: Pair, stride: Pair, padding: Pair, over: Pair, padding_counts: bool
) -> Any:
    """How many cells of each window count: (1, 1, H', W')."""
    if padding_counts:
        height, width = _sum(x.shape[2:], _sum(padding, padding))
        counted = _framed(full_like(x, 1, (1, 1, height, width)), (0, 0), over)
    else:
        counted = _framed(full_like(x, 1, (1, 1, *x.shape[2:])), padding, _sum(padding, over))
    return _window_sums(counted, size, stride)


def _window_sums(x: Any, size: Pair, stride: Pair) -> Any:
    found = windows(x, size, stride)
    if found.is_contiguous():
        return found.sum((2, 3))
    # A copy with the cells first is summed several times as fast as a view with dims that overlap.
    return found.permute(2, 3, 0, 1, 4, 5).contiguous().sum((0, 1))


def adaptive_avg_pool2d(input: Tensor, output_size: Any) -> Tensor:
    """The means of H'×W' parts of input (N, C, H, W): (N, C, H', W'); or without N.

    Part i of n along a dim of size s reaches from ⌊i·s/n⌋ to ⌈(i+1)·s/n⌉. ``output_size`` is a
    number or a pair; None keeps a dim. ValueError for a negative one, or an image of size 0.
    """
    if _has_dims(input, 3):
        return _of_one(adaptive_avg_pool2d, input, output_size)
    fit("adaptive_avg_pool2d", "input float (N, C, H, W)", input)
    sizes = input.shape[2:]
    height, width = part_counts("adaptive_avg_pool2d", output_size, sizes)
    if 0 in sizes:
        raise ValueError(f"adaptive_avg_pool2d: expected an image, got shape {input.shape}")
    if height and width and sizes[0] % height == 0 and sizes[1] % width == 0:
        return avg_pool2d(input, (sizes[0] // height, sizes[1] // width))
    return _part_means(_part_means(input, 2, height), 3, width)


def _part_means(x: Any, dim: int, count: int) -> Any:
    """The means of ``count`` parts along ``dim``."""
    size, lead = x.shape[dim], (slice(None),) * dim
    ends = [(i * size // count, -(-(i + 1) * size // count)) for i in range(count)]
    parts = [sliced(x, (*lead, slice(a, b))).mean(dim, keepdim=True) for a, b in ends]
    return cat(parts, dim) if parts else sliced(x, (*lead, slice(0, 0)))


# ---- windows


def unfold(
    input: Tensor, kernel_size: Any, dilation: Any = 1, padding: Any = 0, stride: Any = 1
) -> Tensor:
    """The windows of input (N, C, H, W) as columns: (N, C·kh·kw, H'·W'); or without N.

    H' = ⌊(H + 2·padding − dilation·(kernel_size−1) − 1) / stride⌋ + 1, W' likewise. ValueError
    where the shapes do not fit.
    """
    if _has_dims(input, 3):
        return _of_one(unfold, input, kernel_size, dilation, padding, stride)
    fit("unfold", "input (N, C, H, W)", input)
    size, spread, margin, step = _settings("unfold", kernel_size, dilation, padding, stride)
    check_window("unfold", input, size, step, margin, spread)
    found = windows(_framed(input, margin, margin), size, step, spread)
    n, c, kh, kw, height, width = found.shape
    return found.reshape(n, c * kh * kw, height * width)


def fold(
    input: Tensor,
    output_size: Any,
    kernel_size: Any,
    dilation: Any = 1,
    padding: Any = 0,
    stride: Any = 1,
) -> Tensor:
    """The columns of ``unfold`` added up where they were: its transpose.

    input (N, C·kh·kw, L), L = H'·W' of ``unfold``, to (N, C, *output_size); or without N.
    ValueError where the shapes do not fit.
    """
    if _has_dims(input, 2):
        return _of_one(fold, input, output_size, kernel_size, dilation, padding, stride)
    fit("fold", "input float (N, C, L)", input)
    size, spread, margin, step = _settings("fold", kernel_size, dilation, padding, stride)
    image = pair("fold", "output_size", output_size, 1)
    height, width = _sum(image, _sum(margin, margin))
    spots = convolved((height, width), size, step, spread)
    n, rows, columns = input.shape
    cells = size[0] * size[1]
    if min(spots) < 1 or rows % cells or columns != spots[0] * spots[1]:
        raise ValueError(
            f"fold: expected input (N, C·{cells}, {spots[0]}·{spots[1]}) for output_size {image}, "
            f"kernel_size {size}, dilation {spread}, padding {margin} and stride {step}, got "
            f"{input.shape}"
        )
    found = input.reshape(n, rows // cells, *size, *spots)
    shape = (n, rows // cells, height, width)
    return _cropped(windows_grad(found, shape, step, spread), margin)


def _settings(
    name: str, kernel_size: Any, dilation: Any, padding: Any, stride: Any
) -> tuple[Pair, Pair, Pair, Pair]:
    size = pair(name, "kernel_size", kernel_size, 1)
    spread = pair(name, "dilation", dilation, 1)
    return size, spread, pair(name, "padding", padding, 0), pair(name, "stride", stride, 1)


# ---- what they share


def _has_dims(x: Any, ndim: int) -> bool:
    return isinstance(x, Value) and x.array.ndim == ndim


def _of_one(function: Callable[..., Any], x: Any, *args: Any) -> Any:
    """``function`` of a batch of one, without the batch."""
    y = function(x.unsqueeze(0), *args)
    return y.reshape(y.shape[1:])


def _flat(x: Any) -> Any:
    """x (N, C, L) as images of height 1."""
    n, c, length = x.shape
    return x.reshape(n, c, 1, length)


def _single(what: str, value: Any, least: int) -> int:
    """A setting of conv1d: a number, alone or in a sequence."""
    if isinstance(value, tuple | list) and len(value) != 1:
        raise ValueError(f"conv1d: {what} must be one integer, got {shown(value)}")
    return pair("conv1d", what, value, least)[0]


def _sum(a: Pair, b: Pair) -> Pair:
    return a[0] + b[0], a[1] + b[1]


def _overhang(x: Any, size: Pair, stride: Pair, padding: Pair, dilation: Pair) -> Pair:
    """How far ceil mode's last windows reach beyond the padding; they begin before its end."""
    found = []
    for n, k, s, p, d in zip(x.shape[2:], size, stride, padding, dilation, strict=True):
        reach, room = d * (k - 1) + 1, n + 2 * p
        last = math.ceil((room - reach) / s) * s
        last = last if last < n + p else last - s
        found.append(max(0, last + reach - room))
    return found[0], found[1]


def _framed(x: Any, before: Pair, after: Pair, value: float = 0) -> Any:
    """``x`` with ``value`` before and after its rows and columns."""
    if before == after == (0, 0):
        return x
    return pad(x, (before[1], after[1], before[0], after[0]), value=value)


def _cropped(x: Any, margin: Pair) -> Any:
    """``x`` without a margin on every side."""
    if margin == (0, 0):
        return x
    (h, w), (top, left) = x.shape[2:], margin
    return sliced(x, (slice(None), slice(None), slice(top, h - top), slice(left, w - left)))
