"""Max pooling of x (N, C, H, W) by windows of 2 × 2 side by side: cells 0 1 over 2 3.

Written for this one window the loops have no branch that the data decides.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from tinygrad_mnist.backends.numba_kernels.compile import compiled

Array = Any


@compiled
def max_pool2d(x: Array, y: Array, index: Array) -> None:
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
def max_pool2d_grad(dY: Array, index: Array, dX: Array) -> None:
    """One line of ``dX`` at a time: writing both in one loop takes ten times as long."""
    images, channels, rows, cols = dY.shape
    zero = dX.dtype.type(0)
    dX[:, :, 2 * rows :] = zero
    dX[:, :, :, 2 * cols :] = zero
    for n in range(images):
        for c in range(channels):
            for row in range(rows):
                slopes, which = dY[n, c, row], index[n, c, row]
                for i in range(2):
                    line = dX[n, c, 2 * row + i]
                    for col in range(cols):
                        slope, cell = slopes[col], which[col] - 2 * i
                        line[2 * col] = slope if cell == 0 else zero
                        line[2 * col + 1] = slope if cell == 1 else zero


@compiled
def max_pool2d_take(x: Array, index: Array, taken: Array) -> None:
    images, channels, rows, cols = taken.shape
    for n in range(images):
        for c in range(channels):
            for row in range(rows):
                for col in range(cols):
                    cell = index[n, c, row, col]
                    value = x.dtype.type(0)
                    if 0 <= cell < 4:
                        value = x[n, c, 2 * row + cell // 2, 2 * col + cell % 2]
                    taken[n, c, row, col] = value
