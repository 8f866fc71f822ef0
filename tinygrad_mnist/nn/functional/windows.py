"""Checks of the settings of convolution and pooling."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np

from tinygrad_mnist.checks import checked_integer, shown
from tinygrad_mnist.kernels import Pair, Pool, Shape, convolved


def pair(name: str, what: str, value: Any, least: int) -> Pair:
    """A number, or one or two of them as a sequence, as a pair.

    ValueError for anything else, or a number below ``least``.
    """
    if type(value) is int and value >= least:
        return value, value
    plain = type(value) is tuple and len(value) == 2 and type(value[0]) is type(value[1]) is int
    found: Pair | None = value if plain else _paired(value)
    if found is None or min(found) < least:
        raise ValueError(
            f"{name}: {what} must be an integer of at least {least} or a pair, got {shown(value)}"
        )
    return found


def _paired(value: Any) -> Pair | None:
    """Two Python integers of whatever stands for them; None for what does not."""
    found = tuple(value) if isinstance(value, tuple | list) else (value,)
    found = found * 2 if len(found) == 1 else found
    whole = all(isinstance(v, int | np.integer) and not isinstance(v, bool) for v in found)
    return (int(found[0]), int(found[1])) if whole and len(found) == 2 else None


def pooling(
    name: str, kernel_size: int | Pair, stride: int | Pair | None, padding: int | Pair
) -> Pool:
    """A pooling's kernel size, stride and padding, checked, as pairs."""
    size = pair(name, "kernel_size", kernel_size, 1)
    step = size if stride is None else pair(name, "stride", stride, 1)
    margin = pair(name, "padding", padding, 0)
    if 2 * margin[0] > size[0] or 2 * margin[1] > size[1]:
        raise ValueError(f"{name}: padding {margin} is above half of kernel_size {size}")
    return Pool(size, step, margin)


def part_counts(name: str, output_size: Any, sizes: Shape) -> Pair:
    """Into how many parts adaptive pooling cuts dims of ``sizes``; None keeps a dim.

    ValueError for anything but numbers of at least 0.
    """
    if isinstance(output_size, tuple | list) and len(output_size) == 2:
        output_size = [s if n is None else n for s, n in zip(sizes, output_size, strict=True)]
    return pair(name, "output_size", output_size, 0)


def check_divisor(name: str, divisor_override: int | None) -> None:
    """ValueError for a divisor of 0, TypeError for no integer."""
    if divisor_override is None:
        return
    if checked_integer(name, "divisor_override", divisor_override) == 0:
        raise ValueError(f"{name}: divisor_override must be an integer but 0, got 0")


def check_named_padding(name: str, padding: str, stride: Pair) -> None:
    """ValueError for another word than "valid" and, of stride 1, "same"."""
    if padding not in ("same", "valid"):
        raise ValueError(f'{name}: padding must be a number, "same" or "valid", got {padding!r}')
    if padding == "same" and stride != (1, 1):
        raise ValueError(f'{name}: padding "same" takes stride 1, got {stride}')


def check_groups(name: str, groups: int, shape: Shape, weight: Shape) -> None:
    """ValueError where ``weight`` (O, I, …) does not take x of ``shape`` (N, C, …) in groups.

    TypeError for groups that are no integer.
    """
    if checked_integer(name, "groups", groups) < 1 or weight[0] % groups:
        raise ValueError(f"{name}: weight of shape {tuple(weight)} does not form groups={groups}")
    if shape[1] != weight[1] * groups:
        raise ValueError(
            f"{name}: weight of shape {tuple(weight)} with groups={groups} takes "
            f"{weight[1] * groups} channels, got x of shape {tuple(shape)}"
        )


def check_window(
    name: str,
    x: Any,
    size: Any,
    stride: Pair,
    padding: Pair,
    dilation: Pair,
    over: Pair = (0, 0),
) -> None:
    """ValueError where a window is larger than the padded image, or one of them is empty.

    ``over``: how much farther than the padding the last windows may reach.
    """
    shape = x.array.shape
    padded = (shape[2] + 2 * padding[0] + over[0], shape[3] + 2 * padding[1] + over[1])
    if _empty(shape, padded, size, stride, dilation):
        raise ValueError(
            f"{name}: a window of {tuple(size)} (dilation {dilation}) is empty or larger than the "
            f"padded image of {padded}, x has shape {tuple(shape)}"
        )


@lru_cache(maxsize=4096)
def _empty(shape: Shape, padded: Pair, size: Pair, stride: Pair, dilation: Pair) -> bool:
    """Whether there is nothing to see, or nothing to see it through."""
    return min(*shape[2:], *size, *convolved(padded, size, stride, dilation)) < 1
