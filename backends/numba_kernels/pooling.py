"""Max pooling over x (N, C, H, W).

The 2 × 2 windows of most networks have loops of their own, which vectorise; any other window
goes cell by cell.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from tinygrad_mnist.backends.numba_kernels.compile import compiled

Array = Any
Pair = tuple[int, int]


@compiled
def max_pool2d_2x2(x: Array, y: Array, index: Array) -> None:
    images, channels, rows, cols = y.shape
    for n in range(images):
        for c in range(channels):
            for row in range(rows):
                upper, lower = x[n, c, 2 * row], x[n, c, 2 * row + 1]
                best, which = y[n, c, row], index[n, c, row]
                for col in range(cols):
                    value, cell = upper[2 * col], np.int32(0)
                    other = upper[2 * col + 1]
                    if other > value or other != other:
                        value, cell = other, np.int32(1)
                    other = lower[2 * col]
                    if other > value or other != other:
                        value, cell = other, np.int32(2)
                    other = lower[2 * col + 1]
                    if other > value or other != other:
                        value, cell = other, np.int32(3)
                    best[col], which[col] = value, cell


@compiled
def max_pool2d(x: Array, size: Pair, stride: Pair, padding: Pair, y: Array, index: Array) -> None:
    height, width = x.shape[2:]
    images, channels, rows, cols = y.shape
    for n in range(images):
        for c in range(channels):
            for row in range(rows):
                top = row * stride[0] - padding[0]
                for col in range(cols):
                    left = col * stride[1] - padding[1]
                    best, which = x.dtype.type(-np.inf), 0
                    for i in range(max(0, -top), min(size[0], height - top)):
                        for j in range(max(0, -left), min(size[1], width - left)):
                            value = x[n, c, top + i, left + j]
                            if value > best or value != value:
                                best, which = value, i * size[1] + j
                    y[n, c, row, col], index[n, c, row, col] = best, which


@compiled
def max_pool2d_grad_2x2(dY: Array, index: Array, dX: Array) -> None:
    images, channels, rows, cols = dY.shape
    zero = dX.dtype.type(0)
    dX[:, :, 2 * rows :] = zero
    dX[:, :, :, 2 * cols :] = zero
    for n in range(images):
        for c in range(channels):
            for row in range(rows):
                upper, lower = dX[n, c, 2 * row], dX[n, c, 2 * row + 1]
                slopes, which = dY[n, c, row], index[n, c, row]
                for col in range(cols):
                    slope, cell = slopes[col], which[col]
                    upper[2 * col] = slope if cell == 0 else zero
                    upper[2 * col + 1] = slope if cell == 1 else zero
                    lower[2 * col] = slope if cell == 2 else zero
                    lower[2 * col + 1] = slope if cell == 3 else zero


@compiled
def max_pool2d_grad(
    dY: Array, index: Array, size: Pair, stride: Pair, padding: Pair, dX: Array
) -> None:
    """Cells that no window has, or that lie in the padding, take nothing."""
    height, width = dX.shape[2:]
    images, channels, rows, cols = dY.shape
    dX[:] = 0
    for n in range(images):
        for c in range(channels):
            for row in range(rows):
                for col in range(cols):
                    cell = index[n, c, row, col]
                    y = row * stride[0] - padding[0] + cell // size[1]
                    x = col * stride[1] - padding[1] + cell % size[1]
                    known = 0 <= cell < size[0] * size[1]
                    if known and 0 <= y < height and 0 <= x < width:
                        dX[n, c, y, x] += dY[n, c, row, col]


@compiled
def max_pool2d_take(
    x: Array, index: Array, size: Pair, stride: Pair, padding: Pair, taken: Array
) -> None:
    height, width = x.shape[2:]
    images, channels, rows, cols = taken.shape
    for n in range(images):
        for c in range(channels):
            for row in range(rows):
                for col in range(cols):
                    cell = index[n, c, row, col]
                    i = row * stride[0] - padding[0] + cell // size[1]
                    j = col * stride[1] - padding[1] + cell % size[1]
                    known = 0 <= cell < size[0] * size[1]
                    value = x.dtype.type(0)
                    if known and 0 <= i < height and 0 <= j < width:
                        value = x[n, c, i, j]
                    taken[n, c, row, col] = value
