"""Sigmoid and cross entropy in float32, with the eˣ they share.

Numba's exp is a scalar call; this one is written out, so that the loops around it vectorise. It
stands in the same file as its users because Numba's cache does not see edits in other files.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from tinygrad_mnist.backends.numba_kernels.compile import compiled

Array = Any

LOWEST = np.float32(-87.3)  # e^x is a normal number down to here
HIGHEST = np.float32(88.0)
LOG2_E = np.float32(1.44269504088896341)
LN2_HIGH = np.float32(0.693359375)  # few bits: times a small integer it is exact
LN2_LOW = np.float32(-2.12194440e-4)
ROUNDER = np.float32(1.5 * 2**23)  # added, it leaves the nearest integer in the lowest bits
EXPONENT_BITS = np.int32(23)
EXPONENT_OF_ONE = np.int32(127 << 23)
# Cephes' expf: (e^r - 1 - r) / r² on |r| <= ln(2)/2
C0, C1 = np.float32(1.9875691500e-4), np.float32(1.3981999507e-3)
C2, C3 = np.float32(8.3334519073e-3), np.float32(4.1665795894e-2)
C4, C5 = np.float32(1.6666665459e-1), np.float32(5.0000001201e-1)
ZERO, ONE = np.float32(0), np.float32(1)

ROWS = 64  # whose exponentials are taken in one loop


@compiled
def exp(x: Any) -> Any:
    """eˣ for x ≤ 88 to 2 units in the last place; 0 where it would be denormal; NaN stays."""
    shifted = np.float32(x * LOG2_E + ROUNDER)
    n = shifted - ROUNDER
    r = x - n * LN2_HIGH
    r = r - n * LN2_LOW
    p = ((((C0 * r + C1) * r + C2) * r + C3) * r + C4) * r + C5
    p = p * (r * r) + r + ONE
    power = (shifted.view(np.int32) << EXPONENT_BITS) + EXPONENT_OF_ONE
    y = p * np.int32(power).view(np.float32)
    return ZERO if x < LOWEST else y


@compiled
def logistic(x: Any) -> Any:
    e = exp(HIGHEST if x > HIGHEST else x)
    return e / (ONE + e)


@compiled
def sigmoid(x: Array, y: Array) -> None:
    if x.ctypes.data == y.ctypes.data:  # one array, not two that may overlap: it vectorises
        for i in range(y.size):
            y[i] = logistic(y[i])
    else:
        for i in range(y.size):
            y[i] = logistic(x[i])


@compiled
def row_max(x: Array, i: int) -> Any:
    """The largest of row ``i``; NaN if one is there."""
    largest = x[i, 0]
    for j in range(1, x.shape[1]):
        if x[i, j] > largest or x[i, j] != x[i, j]:
            largest = x[i, j]
    return largest


@compiled
def counted(target: Array, classes: int, ignore_index: int) -> int:
    """How many targets are not ``ignore_index``; -1 if one of them is no class."""
    count = 0
    for i in range(target.size):
        if target[i] != ignore_index:
            if target[i] < 0 or target[i] >= classes:
                return -1
            count += 1
    return count


@compiled
def cross_entropy(x: Array, target: Array, ignore_index: int, loss: Array) -> int:
    """Three passes over a block of rows, so that the middle one is one long loop.

    Returns what ``counted`` does, and below 0 does nothing.
    """
    rows, classes = x.shape
    count = counted(target, classes, ignore_index)
    if count < 0:
        return count
    shifted = np.empty(min(ROWS, rows) * classes, np.float32)
    chosen = np.empty(min(ROWS, rows), np.float32)
    for start in range(0, rows, ROWS):
        stop = min(start + ROWS, rows)
        for i in range(start, stop):
            largest = row_max(x, i)
            for j in range(classes):
                shifted[(i - start) * classes + j] = x[i, j] - largest
            if target[i] != ignore_index:
                chosen[i - start] = x[i, target[i]] - largest
        for k in range((stop - start) * classes):
            shifted[k] = exp(shifted[k])
        for i in range(start, stop):
            total = ZERO
            for j in range(classes):
                total += shifted[(i - start) * classes + j]
            loss[i] = np.log(total) - chosen[i - start] if target[i] != ignore_index else ZERO
    return count


@compiled
def cross_entropy_grad(dY: Array, x: Array, target: Array, ignore_index: int, dX: Array) -> int:
    """As ``cross_entropy``; the exponentials are taken in dX itself."""
    rows, classes = x.shape
    count = counted(target, classes, ignore_index)
    if count < 0:
        return count
    flat = dX.reshape(dX.size)
    for start in range(0, rows, ROWS):
        stop = min(start + ROWS, rows)
        for i in range(start, stop):
            largest = row_max(x, i)
            for j in range(classes):
                dX[i, j] = x[i, j] - largest
        for k in range(start * classes, stop * classes):
            flat[k] = exp(flat[k])
        for i in range(start, stop):
            total = ZERO
            for j in range(classes):
                total += dX[i, j]
            scale = dY[i] / total
            if target[i] == ignore_index:
                dX[i] = ZERO
                continue
            for j in range(classes):
                dX[i, j] *= scale
            dX[i, target[i]] -= dY[i]
    return count
