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
def conv2d(
    start: int,
    stop: int,
    x: Array,
    weight: Array,
    bias: Array,
    y: Array,
    *steps: int,
) -> None:
    """``weight`` (G, O / G, C / G, kh, kw) in G groups, ``y`` (N, G, O / G, H', W')."""
    groups, outputs, inputs, kh, kw = weight.shape
    height, width = y.shape[3:]
    kernel = weight.reshape(groups, outputs, inputs * kh * kw)
    columns = np.empty((groups * inputs, kh, kw, height, width), x.dtype)
    matrices = columns.reshape(groups, inputs * kh * kw, height * width)
    for n in range(start, stop):
        im2col(x[n], columns, *steps)
        for g in range(groups):
            products = y[n, g].reshape(outputs, height * width)
            np.dot(kernel[g], matrices[g], products)
            for o in range(outputs):
                for k in range(height * width):
                    products[o, k] += bias[g, o]


@compiled
def conv2d_dx(start: int, stop: int, dY: Array, weight: Array, dX: Array, *steps: int) -> None:
    """``dY`` as ``y`` above, ``dX`` (N, C, H, W)."""
    groups, outputs, inputs, kh, kw = weight.shape
    height, width = dY.shape[3:]
    kernel = weight.reshape(groups, outputs, inputs * kh * kw)
    columns = np.empty((groups * inputs, kh, kw, height, width), dY.dtype)
    matrices = columns.reshape(groups, inputs * kh * kw, height * width)
    for n in range(start, stop):
        for g in range(groups):
            np.dot(kernel[g].T, dY[n, g].reshape(outputs, height * width), matrices[g])
        col2im(columns, dX[n], *steps)


@compiled
def conv2d_dw(
    start: int,
    stop: int,
    dY: Array,
    x: Array,
    kh: int,
    kw: int,
    total: Array,
    *steps: int,
) -> None:
    """``total`` (groups, C / groups · kh · kw, O / groups): the sum of these images, transposed.

    That way round, the product reads both as they lie, and took three quarters of the time.
    """
    groups, rows, outputs = total.shape
    height, width = dY.shape[3:]
    columns = np.empty((x.shape[1], kh, kw, height, width), x.dtype)
    matrices = columns.reshape(groups, rows, height * width)
    product = np.empty((rows, outputs), x.dtype)
    total[:] = 0
    for n in range(start, stop):
        im2col(x[n], columns, *steps)
        for g in range(groups):
            np.dot(matrices[g], dY[n, g].reshape(outputs, height * width).T, product)
            total[g] += product


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
    threads: int,
    items: int,
    dY: Array,
    x: Array,
    kh: int,
    kw: int,
    totals: Array,
    *steps: int,
) -> None:
    """``totals`` (threads, …): one for each thread, which nobody else writes."""
    for t in prange(threads):
        start, stop = items * t // threads, items * (t + 1) // threads
        conv2d_dw(start, stop, dY, x, kh, kw, totals[t], *steps)
