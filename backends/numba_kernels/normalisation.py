"""Batch norm over x (N, C, S), S the size of one image's channel, and over x (N, C).

Each kernel does channels ``start`` to ``stop`` alone and touches no other's results, so threads can
share them out. It reads a channel twice for the variance: E[x²] − E[x]² in one pass cancels. Sums
are taken in float64, as is x − mean in them: against a mean rounded to float32, gradients whose own
mean is large would give a wrong dweight. ``floor`` is what smaller results become: 0 for a ReLU, −∞
for none.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import prange

from tinygrad_mnist.backends.numba_kernels.compile import compiled, compiled_sums, region_of

Array = Any


@compiled_sums
def batch_norm(
    start: int, stop: int,
    x: Array, weight: Array, bias: Array, eps: float, floor: float,
    y: Array, mean: Array, var: Array,
) -> None:  # fmt: skip
    images, _, cells = x.shape
    dtype = x.dtype.type
    count, least = images * cells, dtype(floor)
    for c in range(start, stop):
        total = squares = np.float64(0)
        for n in range(images):
            for k in range(cells):
                total += x[n, c, k]
        centre = total / count
        for n in range(images):
            for k in range(cells):
                centred = x[n, c, k] - centre
                squares += centred * centred
        variance = squares / count
        scale, shift = dtype(weight[c] / np.sqrt(variance + eps)), dtype(centre)
        for n in range(images):
            for k in range(cells):
                value = (x[n, c, k] - shift) * scale + bias[c]
                y[n, c, k] = least if value <= least else value
        mean[c], var[c] = centre, variance


@compiled_sums
def batch_norm_grad(
    start: int, stop: int,
    dY: Array, x: Array, weight: Array, eps: float, dX: Array, dweight: Array, dbias: Array,
) -> None:  # fmt: skip
    """dX = weight/σ · (dY − Σ dY / count − (x − mean) · Σ dY·(x − mean) / (σ² · count))."""
    images, _, cells = x.shape
    dtype = x.dtype.type
    count = images * cells
    for c in range(start, stop):
        total = slopes = squares = products = np.float64(0)
        for n in range(images):
            for k in range(cells):
                total += x[n, c, k]
                slopes += dY[n, c, k]
        centre = total / count
        for n in range(images):
            for k in range(cells):
                centred = x[n, c, k] - centre
                squares += centred * centred
                products += dY[n, c, k] * centred
        scale = 1 / np.sqrt(squares / count + eps)
        shift, mean_slope = dtype(centre), dtype(slopes / count)
        tilt = dtype(products * scale * scale / count)
        factor = dtype(weight[c] * scale)
        for n in range(images):
            for k in range(cells):
                centred = x[n, c, k] - shift
                dX[n, c, k] = (dY[n, c, k] - mean_slope - centred * tilt) * factor
        dweight[c], dbias[c] = products * scale, slopes


@compiled
def batch_norm_rows(
    start: int, stop: int,
    x: Array, weight: Array, bias: Array, eps: float, floor: float,
    y: Array, mean: Array, var: Array,
) -> None:  # fmt: skip
    """``batch_norm`` of x (N, C): all channels of one row after the other, as they lie.

    Unsigned, an index needs no check for counting from the end, and the loops vectorise.
    """
    rows, dtype = x.shape[0], x.dtype.type
    low, high, least = np.uintp(start), np.uintp(stop), dtype(floor)
    centre, squares = np.zeros(stop), np.zeros(stop)
    scale, shift = np.empty(stop, x.dtype), np.empty(stop, x.dtype)
    for n in range(rows):
        for c in range(low, high):
            centre[c] += x[n, c]
    for c in range(low, high):
        centre[c] /= rows
    for n in range(rows):
        for c in range(low, high):
            centred = x[n, c] - centre[c]
            squares[c] += centred * centred
    for c in range(low, high):
        variance = squares[c] / rows
        scale[c], shift[c] = dtype(weight[c] / np.sqrt(variance + eps)), dtype(centre[c])
        mean[c], var[c] = centre[c], variance
    for n in range(rows):
        for c in range(low, high):
            value = (x[n, c] - shift[c]) * scale[c] + bias[c]
            y[n, c] = least if value <= least else value


@compiled
def batch_norm_rows_grad(
    start: int, stop: int,
    dY: Array, x: Array, weight: Array, eps: float, dX: Array, dweight: Array, dbias: Array,
) -> None:  # fmt: skip
    """``batch_norm_grad`` of x (N, C), row by row."""
    rows, dtype = x.shape[0], x.dtype.type
    low, high = np.uintp(start), np.uintp(stop)
    centre, slopes = np.zeros(stop), np.zeros(stop)
    squares, products = np.zeros(stop), np.zeros(stop)
    shift, mean_slope = np.empty(stop, x.dtype), np.empty(stop, x.dtype)
    tilt, factor = np.empty(stop, x.dtype), np.empty(stop, x.dtype)
    for n in range(rows):
        for c in range(low, high):
            centre[c] += x[n, c]
            slopes[c] += dY[n, c]
    for c in range(low, high):
        centre[c] /= rows
    for n in range(rows):
        for c in range(low, high):
            centred = x[n, c] - centre[c]
            squares[c] += centred * centred
            products[c] += dY[n, c] * centred
    for c in range(low, high):
        scale = 1 / np.sqrt(squares[c] / rows + eps)
        shift[c], mean_slope[c] = dtype(centre[c]), dtype(slopes[c] / rows)
        tilt[c] = dtype(products[c] * scale * scale / rows)
        factor[c] = dtype(weight[c] * scale)
        dweight[c], dbias[c] = products[c] * scale, slopes[c]
    for n in range(rows):
        for c in range(low, high):
            centred = x[n, c] - shift[c]
            dX[n, c] = (dY[n, c] - mean_slope[c] - centred * tilt[c]) * factor[c]


@region_of(batch_norm)
def batch_norm_region(threads: int, items: int, *arguments: Any) -> None:
    for t in prange(threads):
        batch_norm(items * t // threads, items * (t + 1) // threads, *arguments)


@region_of(batch_norm_grad)
def batch_norm_grad_region(threads: int, items: int, *arguments: Any) -> None:
    for t in prange(threads):
        batch_norm_grad(items * t // threads, items * (t + 1) // threads, *arguments)


@region_of(batch_norm_rows)
def batch_norm_rows_region(threads: int, items: int, *arguments: Any) -> None:
    for t in prange(threads):
        batch_norm_rows(items * t // threads, items * (t + 1) // threads, *arguments)


@region_of(batch_norm_rows_grad)
def batch_norm_rows_grad_region(threads: int, items: int, *arguments: Any) -> None:
    for t in prange(threads):
        batch_norm_rows_grad(items * t // threads, items * (t + 1) // threads, *arguments)
