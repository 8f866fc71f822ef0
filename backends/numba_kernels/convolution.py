"""Convolution of the padded x (N, C, H, W), image by image: columns, and a product.

An image's columns (C, kh, kw, H', W') stay in the cache between the copy and the product, which is
SciPy's BLAS: Numba calls it for ``np.dot``. Each kernel does the images from ``start`` to ``stop``.
``steps`` is None for strides and dilations of 1, which Numba compiles apart; else the array of both
strides and both dilations. ``floor`` is what smaller results become: 0 for a ReLU, −∞ for none.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import prange

from tinygrad_mnist.backends.numba_kernels.compile import compiled, region_of
from tinygrad_mnist.backends.numba_kernels.pooling import max_pool2d

Array = Any


@compiled
def im2col(x: Array, columns: Array, steps: Array | None) -> None:
    """The plainest indexing is the fastest: slices and offsets took two to three times as long.

    Where Numba knows that no index is negative it leaves out a check, and the loop vectorises.
    """
    channels, kh, kw, height, width = columns.shape
    for c in range(channels):
        for i in range(kh):
            for j in range(kw):
                for row in range(height):
                    if steps is None:
                        for col in range(width):
                            columns[c, i, j, row, col] = x[c, i + row, j + col]
                    else:
                        line = x[c, i * steps[2] + row * steps[0]]
                        for col in range(width):
                            columns[c, i, j, row, col] = line[j * steps[3] + col * steps[1]]


@compiled
def col2im(columns: Array, dX: Array, steps: Array | None) -> None:
    channels, kh, kw, height, width = columns.shape
    dX[:] = 0
    for c in range(channels):
        for i in range(kh):
            for j in range(kw):
                for row in range(height):
                    if steps is None:
                        for col in range(width):
                            dX[c, i + row, j + col] += columns[c, i, j, row, col]
                    else:
                        line = dX[c, i * steps[2] + row * steps[0]]
                        for col in range(width):
                            line[j * steps[3] + col * steps[1]] += columns[c, i, j, row, col]


@compiled
def convolve(
    x: Array, weight: Array, bias: Array, floor: Any, columns: Array, y: Array, steps: Array | None
) -> None:
    """One image x (C, H, W) to y (G, O / G, height · width); ``columns`` is a scratch."""
    groups, outputs, rows = weight.shape
    im2col(x, columns, steps)
    matrices = columns.reshape(groups, rows, y.shape[2])
    for g in range(groups):
        np.dot(weight[g], matrices[g], y[g])
        for o in range(outputs):
            for k in range(y.shape[2]):
                value = y[g, o, k] + bias[g, o]
                y[g, o, k] = floor if value <= floor else value


@compiled
def conv2d(
    start: int,
    stop: int,
    x: Array,
    weight: Array,
    bias: Array,
    floor: float,
    y: Array,
    steps: Array | None,
    kh: int,
    kw: int,
    height: int,
    width: int,
) -> None:
    """``weight`` (G, O / G, C / G · kh · kw) in G groups, ``y`` (N, G, O / G, height · width)."""
    columns, least = np.empty((x.shape[1], kh, kw, height, width), x.dtype), x.dtype.type(floor)
    for n in range(start, stop):
        convolve(x[n], weight, bias, least, columns, y[n], steps)


@compiled
def conv2d_pooled(
    start: int,
    stop: int,
    x: Array,
    weight: Array,
    bias: Array,
    floor: float,
    y: Array,
    index: Array,
    steps: Array | None,
    kh: int,
    kw: int,
    height: int,
    width: int,
) -> None:
    """``conv2d`` and ``max_pool2d`` of one image after the other, while it is in the cache."""
    groups, outputs, _ = weight.shape
    columns, dtype = np.empty((x.shape[1], kh, kw, height, width), x.dtype), x.dtype.type
    image = np.empty((groups, outputs, height * width), x.dtype)
    planes = image.reshape(1, groups * outputs, height, width)
    least, lowest = dtype(floor), dtype(-np.inf)
    for n in range(start, stop):
        convolve(x[n], weight, bias, lowest, columns, image, steps)
        max_pool2d(0, 1, planes, y[n : n + 1], index[n : n + 1])
        pooled = y[n].reshape(y[n].size)
        for i in range(pooled.size):
            pooled[i] = least if pooled[i] <= least else pooled[i]


@compiled
def conv2d_dx(
    start: int,
    stop: int,
    dY: Array,
    weight: Array,
    dX: Array,
    steps: Array | None,
    kh: int,
    kw: int,
    height: int,
    width: int,
) -> None:
    """``dY`` as ``y`` above, ``dX`` (N, C, H, W)."""
    groups, _, rows = weight.shape
    columns = np.empty((dX.shape[1], kh, kw, height, width), dY.dtype)
    matrices = columns.reshape(groups, rows, height * width)
    for n in range(start, stop):
        for g in range(groups):
            np.dot(weight[g].T, dY[n, g], matrices[g])
        col2im(columns, dX[n], steps)


@compiled
def conv2d_dw(
    start: int,
    stop: int,
    dY: Array,
    x: Array,
    total: Array,
    steps: Array | None,
    kh: int,
    kw: int,
    height: int,
    width: int,
) -> None:
    """``total`` (G, C / G · kh · kw, O / G): the sum of these images, transposed.

    That way round, the product reads both as they lie, and took three quarters of the time.
    """
    groups, rows, outputs = total.shape
    columns = np.empty((x.shape[1], kh, kw, height, width), x.dtype)
    matrices = columns.reshape(groups, rows, height * width)
    product = np.empty((rows, outputs), x.dtype)
    total[:] = 0
    for n in range(start, stop):
        im2col(x[n], columns, steps)
        for g in range(groups):
            np.dot(matrices[g], dY[n, g].T, product)
            for i in range(rows):
                for o in range(outputs):
                    total[g, i, o] += product[i, o]


@region_of(conv2d)
def conv2d_region(threads: int, items: int, *arguments: Any) -> None:
    for t in prange(threads):
        conv2d(items * t // threads, items * (t + 1) // threads, *arguments)


@region_of(conv2d_pooled)
def conv2d_pooled_region(threads: int, items: int, *arguments: Any) -> None:
    for t in prange(threads):
        conv2d_pooled(items * t // threads, items * (t + 1) // threads, *arguments)


@region_of(conv2d_dx)
def conv2d_dx_region(threads: int, items: int, *arguments: Any) -> None:
    for t in prange(threads):
        conv2d_dx(items * t // threads, items * (t + 1) // threads, *arguments)


@region_of(conv2d_dw)
def conv2d_dw_region(
    threads: int, items: int, dY: Array, x: Array, totals: Array, *arguments: Any
) -> None:
    """``totals`` (threads, …): one for each thread, which nobody else writes."""
    for t in prange(threads):
        start, stop = items * t // threads, items * (t + 1) // threads
        conv2d_dw(start, stop, dY, x, totals[t], *arguments)
