"""Batch norm over x (N, C, S), S the size of one image's channel. Sums are taken in float64."""

from __future__ import annotations

from typing import Any

import numpy as np

from tinygrad_mnist.backends.numba_kernels.compile import compiled_sums

Array = Any


@compiled_sums
def batch_norm(
    x: Array, weight: Array, bias: Array, eps: float, y: Array, mean: Array, var: Array
) -> None:
    images, channels, cells = x.shape
    dtype = x.dtype.type
    for c in range(channels):
        total = 0.0
        for n in range(images):
            for k in range(cells):
                total += x[n, c, k]
        centre = dtype(total / (images * cells))
        squares = 0.0
        for n in range(images):
            for k in range(cells):
                centred = x[n, c, k] - centre
                squares += centred * centred
        variance = squares / (images * cells)
        scale = dtype(weight[c] / np.sqrt(variance + eps))
        for n in range(images):
            for k in range(cells):
                y[n, c, k] = (x[n, c, k] - centre) * scale + bias[c]
        mean[c], var[c] = centre, variance


@compiled_sums
def batch_norm_grad(
    dY: Array, x: Array, weight: Array, eps: float, dX: Array, dweight: Array, dbias: Array
) -> None:
    """dX = weight/σ · (dY − Σ dY / count − (x − mean) · Σ dY·(x − mean) / (σ² · count))."""
    images, channels, cells = x.shape
    dtype = x.dtype.type
    count = images * cells
    for c in range(channels):
        total = slopes = 0.0
        for n in range(images):
            for k in range(cells):
                total += x[n, c, k]
                slopes += dY[n, c, k]
        centre = dtype(total / count)
        squares = products = 0.0
        for n in range(images):
            for k in range(cells):
                centred = x[n, c, k] - centre
                squares += centred * centred
                products += dY[n, c, k] * centred
        scale = 1 / np.sqrt(squares / count + eps)
        mean_slope = dtype(slopes / count)
        tilt = dtype(products * scale * scale / count)
        factor = dtype(weight[c] * scale)
        for n in range(images):
            for k in range(cells):
                centred = x[n, c, k] - centre
                dX[n, c, k] = (dY[n, c, k] - mean_slope - centred * tilt) * factor
        dweight[c], dbias[c] = products * scale, slopes
