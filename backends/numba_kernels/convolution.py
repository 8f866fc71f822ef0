"""Copies between images (N, C, H, W) and columns (N, C, kh, kw, H', W'), at stride 1.

The plainest indexing is the fastest here: slices and flat offsets took two to three times as long.
"""

from __future__ import annotations

from typing import Any

from tinygrad_mnist.backends.numba_kernels.compile import compiled

Array = Any


@compiled
def im2col(x: Array, columns: Array) -> None:
    images, channels, kh, kw, height, width = columns.shape
    for n in range(images):
        for c in range(channels):
            for i in range(kh):
                for j in range(kw):
                    for row in range(height):
                        for col in range(width):
                            columns[n, c, i, j, row, col] = x[n, c, i + row, j + col]


@compiled
def col2im(columns: Array, dX: Array) -> None:
    images, channels, kh, kw, height, width = columns.shape
    dX[:] = 0
    for n in range(images):
        for c in range(channels):
            for i in range(kh):
                for j in range(kw):
                    for row in range(height):
                        for col in range(width):
                            dX[n, c, i + row, j + col] += columns[n, c, i, j, row, col]
