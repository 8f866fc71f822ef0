"""Convolution of the padded x (N, C, H, W), image by image: columns, and a product.

An image's columns (C, kh, kw, H', W') stay in the cache between the copy and the product, which is
SciPy's BLAS: Numba calls it for ``np.dot``. Each kernel does the images from ``start`` to ``stop``;
``steps`` are the strides and the dilations, by rows and by columns.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import prange

from tinygrad_mnist.backends.numba_kernels.compile import compiled, region_of

Array = Any


@compiled
def im2col(x: Array, columns: Array, sh: int, sw: int, dh: int, dw: int) -> None:
    """The plainest indexing is the fastest: slices and offsets took two to three times as long.

    Where Numba knows that no index is negative it leaves out a check, and the loop vectorises.
    """
    channels, kh, kw, height, width = columns.shape
    dense = sh == sw == dh == dw == 1
    for c in range(channels):
        for i in range(kh):
            for j in range(kw):
                for row in range(height):
                    if dense:
                        for col in range(width):
                            columns[c, i, j, row, col] = x[c, i + row, j + col]
                    else:
                        for col in range(width):
                            pixel = x[c, i * dh + row * sh, j * dw + col * sw]
                            columns[c, i, j, row, col] = pixel


@compiled
def col2im(columns: Array, dX: Array, sh: int, sw: int, dh: int, dw: int) -> None:
    channels, kh, kw, height, width = columns.shape
    dense = sh == sw == dh == dw == 1
    dX[:] = 0
    for c in range(channels):
        for i in range(kh):
            for j in range(kw):
                for row in range(height):
                    if dense:
                        for col in range(width):
                            dX[c, i + row, j + col] += columns[c, i, j, row, col]
                    else:
                        for col in range(width):
                            slope = columns[c, i, j, row, col]
                            dX[c, i * dh + row * sh, j * dw + col * sw] += slope


@compiled
def columns_of(x: Array, kh: int, kw: int, *steps: int) -> Array:
    """Room for one image's columns."""
    _, channels, height, width = x.shape
    sh, sw, dh, dw = steps
    rows, cols = (height - dh * (kh - 1) - 1) // sh + 1, (width - dw * (kw - 1) - 1) // sw + 1
    return np.empty((channels, kh, kw, rows, cols), x.dtype)


@compiled
def conv2d(
    start: int,
    stop: int,
    x: Array,
    weight: Array,
    bias: Array,
    y: Array,
    kh: int,
    kw: int,
    *steps: int,
) -> None:
    """``weight`` (G, O / G, C / G · kh · kw) in G groups, ``y`` (N, G, O / G, H' · W')."""
    groups, outputs, rows = weight.shape
    columns = columns_of(x, kh, kw, *steps)
    matrices = columns.reshape(groups, rows, y.shape[3])
    for n in range(start, stop):
        im2col(x[n], columns, *steps)
        for g in range(groups):
            np.dot(weight[g], matrices[g], y[n, g])
            for o in range(outputs):
                for k in range(y.shape[3]):
                    y[n, g, o, k] += bias[g, o]


@compiled
def conv2d_dx(
    start: int,
    stop: int,
    dY: Array,
    weight: Array,
    dX: Array,
    kh: int,
    kw: int,
    *steps: int,
) -> None:
    """``dY`` as ``y`` above, ``dX`` (N, C, H, W)."""
    groups, _, rows = weight.shape
    columns = columns_of(dX, kh, kw, *steps)
    matrices = columns.reshape(groups, rows, dY.shape[3])
    for n in range(start, stop):
        for g in range(groups):
            np.dot(weight[g].T, dY[n, g], matrices[g])
        col2im(columns, dX[n], *steps)


@compiled
def conv2d_dw(
    start: int,
    stop: int,
    dY: Array,
    x: Array,
    total: Array,
    kh: int,
    kw: int,
    *steps: int,
) -> None:
    """``total`` (G, C / G · kh · kw, O / G): the sum of these images, transposed.

    That way round, the product reads both as they lie, and took three quarters of the time.
    """
    groups, rows, outputs = total.shape
    columns = columns_of(x, kh, kw, *steps)
    matrices = columns.reshape(groups, rows, dY.shape[3])
    product = np.empty((rows, outputs), x.dtype)
    for g in range(groups):
        total[g] = 0
    for n in range(start, stop):
        im2col(x[n], columns, *steps)
        for g in range(groups):
            np.dot(matrices[g], dY[n, g].T, product)
            for i in range(rows):
                for o in range(outputs):
                    total[g, i, o] += product[i, o]


@region_of(conv2d)
def conv2d_region(threads: int, items: int, *arguments: Any) -> None:
    for t in prange(threads):
        conv2d(items * t // threads, items * (t + 1) // threads, *arguments)


@region_of(conv2d_dx)
def conv2d_dx_region(threads: int, items: int, *arguments: Any) -> None:
    for t in prange(threads):
        conv2d_dx(items * t // threads, items * (t + 1) // threads, *arguments)


@region_of(conv2d_dw)
def conv2d_dw_region(
    threads: int, items: int, dY: Array, x: Array, totals: Array, *window: int
) -> None:
    """``totals`` (threads, …): one for each thread, which nobody else writes."""
    for t in prange(threads):
        start, stop = items * t // threads, items * (t + 1) // threads
        conv2d_dw(start, stop, dY, x, totals[t], *window)
