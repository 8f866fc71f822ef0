"""Max pooling over x (N, C, H, W). Windows may overlap and reach into the padding."""

from __future__ import annotations

from typing import Any

import numpy as np

from tinygrad_mnist.backends.numba_kernels.compile import compiled

Array = Any
Pair = tuple[int, int]


@compiled
def max_pool2d(x: Array, size: Pair, stride: Pair, padding: Pair, y: Array, index: Array) -> None:
    """Cell by cell of the window over one row of results, so that the inner loop has no branch."""
    images, channels, height, width = x.shape
    rows, cols = y.shape[2], y.shape[3]
    lowest = x.dtype.type(-np.inf)
    for n in range(images):
        for c in range(channels):
            for row in range(rows):
                best, which = y[n, c, row], index[n, c, row]
                best[:] = lowest
                which[:] = 0
                for i in range(size[0]):
                    top = row * stride[0] + i - padding[0]
                    if top < 0 or top >= height:
                        continue
                    cells = x[n, c, top]
                    for j in range(size[1]):
                        cell = i * size[1] + j
                        for col in range(cols):
                            left = col * stride[1] + j - padding[1]
                            if left < 0 or left >= width:
                                continue
                            value = cells[left]
                            if value > best[col] or value != value:
                                best[col], which[col] = value, cell
