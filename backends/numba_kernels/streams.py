"""The random stream (splitmix64: Steele, Lea, Flood 2014), and batches of rows."""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import prange

from tinygrad_mnist.backends.numba_kernels.compile import compiled, region_of
from tinygrad_mnist.kernels import GOLDEN, MIX_1, MIX_2

Array = Any

STEP, FIRST, SECOND = np.uint64(GOLDEN), np.uint64(MIX_1), np.uint64(MIX_2)
S27, S30, S31, HALF = np.uint64(27), np.uint64(30), np.uint64(31), np.uint64(32)
LOW = np.uint64(0xFFFFFFFF)
BYTE = np.uint64(8)


@compiled
def splitmix64(key: Any, i: int) -> Any:
    """Number ``i`` = 1, 2, … of the stream ``key``."""
    z = np.uint64(i) * STEP + key
    z = (z ^ (z >> S30)) * FIRST
    z = (z ^ (z >> S27)) * SECOND
    return z ^ (z >> S31)


@compiled
def dropout_mask(
    start: int, stop: int, key: Any, threshold: Any, scale: float, mask: Array
) -> None:
    """Two elements from each of the stream's numbers start … stop, the low half first."""
    mask = mask[2 * start : 2 * stop]
    kept, zero = mask.dtype.type(scale), mask.dtype.type(0)
    for i in range(mask.size // 2):
        z = splitmix64(key, start + i + 1)
        mask[2 * i] = kept if (z & LOW) >= threshold else zero
        mask[2 * i + 1] = kept if (z >> HALF) >= threshold else zero
    if mask.size % 2:
        z = splitmix64(key, stop)
        mask[mask.size - 1] = kept if (z & LOW) >= threshold else zero


@compiled
def uniform(start: int, stop: int, key: Any, out: Array) -> None:
    out = out[2 * start : 2 * stop]
    unit = out.dtype.type(2.0**-24)
    for i in range(out.size // 2):
        z = splitmix64(key, start + i + 1)
        out[2 * i] = out.dtype.type(np.int32((z & LOW) >> BYTE)) * unit
        out[2 * i + 1] = out.dtype.type(np.int32(z >> (HALF + BYTE))) * unit
    if out.size % 2:
        z = splitmix64(key, stop)
        out[out.size - 1] = out.dtype.type(np.int32((z & LOW) >> BYTE)) * unit


@compiled
def take_scaled(
    start: int, stop: int, x: Array, index: Array, scale: float, shift: float, out: Array
) -> None:
    """x and out as matrices: one row per index."""
    factor, offset = out.dtype.type(scale), out.dtype.type(shift)
    for i in range(start, stop):
        row = index[i]
        for j in range(x.shape[1]):
            out[i, j] = out.dtype.type(x[row, j]) * factor + offset


@compiled
def bounds(index: Array) -> Any:
    """The smallest and the largest of a flat index."""
    low = high = index[0]
    for i in range(index.size):
        low, high = min(low, index[i]), max(high, index[i])
    return low, high


@region_of(dropout_mask)
def dropout_mask_region(threads: int, items: int, *arguments: Any) -> None:
    for t in prange(threads):
        dropout_mask(items * t // threads, items * (t + 1) // threads, *arguments)


@region_of(uniform)
def uniform_region(threads: int, items: int, *arguments: Any) -> None:
    for t in prange(threads):
        uniform(items * t // threads, items * (t + 1) // threads, *arguments)


@region_of(take_scaled)
def take_scaled_region(threads: int, items: int, *arguments: Any) -> None:
    for t in prange(threads):
        take_scaled(items * t // threads, items * (t + 1) // threads, *arguments)
