"""Sigmoid, GELU, softmax and cross entropy, with the eˣ they share.

Numba's exp is a scalar call; these two are written out, so that the loops around them vectorise.
They stand in the same file as their users because Numba's cache does not see edits in other files.
Each kernel does the elements or rows ``start`` to ``stop``: a slice, and loops from 0 on, since an
index that starts elsewhere might be negative, which costs the vectors. Kernels of (rows, classes)
take the exponentials of a block of rows in one long loop. Sums are taken in float64.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import prange

from tinygrad_mnist.backends.numba_kernels.compile import (
    by_dtype,
    compiled,
    compiled_sums,
    inlined,
    region_of,
)

Array = Any

# float32: exact in float64 too, and without effect on the dtype of what they meet
ZERO, HALF, ONE = np.float32(0), np.float32(0.5), np.float32(1)
BLOCK = 1024  # numbers whose exponentials are taken in one loop

# ---- eˣ = 2ⁿ·eʳ, n the integer nearest to x / ln 2

LOG2_E32, LOG2_E64 = np.float32(1.44269504088896341), 1.44269504088896341
# ln 2 in two parts, the first of few bits: times a small integer it is exact. Cephes
HIGH32, LOW32 = np.float32(0.693359375), np.float32(-2.12194440e-4)
HIGH64, LOW64 = 6.93145751953125e-1, 1.42860682030941723212e-6
# added, it leaves the nearest integer in the lowest bits
ROUNDER32, ROUNDER64 = np.float32(1.5 * 2**23), 1.5 * 2.0**52
BITS32, BIAS32 = np.int32(23), np.int32(127 << 23)
BITS64, BIAS64 = np.int64(52), np.int64(1023 << 52)
LOWEST32, LOWEST64 = np.float32(-87.3), -708.3  # e^x is a normal number down to here
HIGHEST = np.float32(88.0)
# Cephes' expf: (e^r - 1 - r) / r² on |r| <= ln(2)/2
C0, C1 = np.float32(1.9875691500e-4), np.float32(1.3981999507e-3)
C2, C3 = np.float32(8.3334519073e-3), np.float32(4.1665795894e-2)
C4, C5 = np.float32(1.6666665459e-1), np.float32(5.0000001201e-1)
# the same by Taylor: 1/k! for k = 13 … 3; what it leaves out is below 4·10⁻¹⁸
D0, D1, D2, D3 = 1 / 6227020800, 1 / 479001600, 1 / 39916800, 1 / 3628800
D4, D5, D6, D7 = 1 / 362880, 1 / 40320, 1 / 5040, 1 / 720
D8, D9, D10 = 1 / 120, 1 / 24, 1 / 6


@inlined
def exp32(x: Any) -> Any:
    shifted = np.float32(x * LOG2_E32 + ROUNDER32)
    n = shifted - ROUNDER32
    r = x - n * HIGH32
    r = r - n * LOW32
    p = ((((C0 * r + C1) * r + C2) * r + C3) * r + C4) * r + C5
    p = p * (r * r) + r + ONE
    power = (shifted.view(np.int32) << BITS32) + BIAS32
    y = p * np.int32(power).view(np.float32)
    return ZERO if x < LOWEST32 else y


@inlined
def exp64(x: Any) -> Any:
    shifted = np.float64(x * LOG2_E64 + ROUNDER64)
    n = shifted - ROUNDER64
    r = x - n * HIGH64
    r = r - n * LOW64
    p = ((((D0 * r + D1) * r + D2) * r + D3) * r + D4) * r + D5
    p = ((((p * r + D6) * r + D7) * r + D8) * r + D9) * r + D10
    p = (p * r + HALF) * (r * r) + r + ONE
    power = (shifted.view(np.int64) << BITS64) + BIAS64
    y = p * np.int64(power).view(np.float64)
    return 0.0 if x < LOWEST64 else y


exp = by_dtype(
    exp32,
    exp64,
    "eˣ for x ≤ 88 to 2 units in the last place; 0 where it would be denormal; NaN stays.",
)


@compiled
def logistic(x: Any) -> Any:
    e = exp(HIGHEST if x > HIGHEST else x)
    return e / (ONE + e)


@compiled
def sigmoid(start: int, stop: int, x: Array, y: Array) -> None:
    x, y = x[start:stop], y[start:stop]
    if x.ctypes.data == y.ctypes.data:  # one array, not two that may overlap: it vectorises
        for i in range(y.size):
            y[i] = logistic(y[i])
    else:
        for i in range(y.size):
            y[i] = logistic(x[i])


# ---- GELU

LIMIT = np.float32(40)  # where the normal density is 0, and no infinity yet meets it
FLAT = np.float32(10)  # where the slope of the approximation is 1 or 0
DENSITY32, DENSITY64 = np.float32(0.3989422804014327), 0.3989422804014327  # 1/√(2π)
# u = A·x + B·x³ of the approximation by tanh, twice: (1 + tanh u)/2 = sigmoid(2u)
A32, B32 = np.float32(1.5957691216057308), np.float32(0.07135481282759)
A64, B64 = 1.5957691216057308, 0.044715 * 1.5957691216057308


@inlined
def tail32(a: Any) -> Any:
    """(1 − Φ(a)) · e^(a²/2) for a ≥ 0, fitted at Chebyshev nodes by t: to 2·10⁻⁸ of it."""
    t = (a - np.float32(3)) / (a + np.float32(3))
    p = np.float32(5.3955544e-05) * t + np.float32(0.00011603319)
    p = (p * t + np.float32(-0.00033941218)) * t + np.float32(-0.00098406007)
    p = (p * t + np.float32(0.0029043938)) * t + np.float32(0.0061321147)
    p = (p * t + np.float32(-0.046213247)) * t + np.float32(0.12322503)
    return (p * t + np.float32(-0.20640262)) * t + np.float32(0.12151395)


@inlined
def tail64(a: Any) -> Any:
    """As ``tail32``, to 3·10⁻¹⁶."""
    t = (a - 4.0) / (a + 4.0)
    p = (-3.910211123884181e-10 * t - 1.4335955097375302e-09) * t + 8.630033371591181e-10
    p = (p * t + 1.1178836967975042e-08) * t + 8.255093051584656e-09
    p = (p * t - 5.238686676350986e-08) * t - 9.319894540242272e-08
    p = (p * t + 2.0592204663595566e-07) * t + 6.609887397906818e-07
    p = (p * t - 8.294529255488644e-07) * t - 4.303383808419075e-06
    p = (p * t + 4.631589252820366e-06) * t + 2.8648307530602333e-05
    p = (p * t - 4.5554903007332325e-05) * t - 0.00018718426442176662
    p = (p * t + 0.0006388138530271316) * t + 0.0005075620746267203
    p = (p * t - 0.008492095482215276) * t + 0.030864804106335356
    p = (p * t - 0.0717074073377334) * t + 0.12437925533926317
    return (p * t - 0.17039772154845545) * t + 0.09441064130196894


@compiled
def bend32(x: Any) -> Any:
    """2u and its derivative."""
    square = x * x
    return x * (A32 + B32 * square), A32 + np.float32(3) * B32 * square


@compiled
def bend64(x: Any) -> Any:
    square = x * x
    return x * (A64 + B64 * square), A64 + 3.0 * B64 * square


@compiled
def density32(e: Any) -> Any:
    return e * DENSITY32


@compiled
def density64(e: Any) -> Any:
    return e * DENSITY64


tail = by_dtype(tail32, tail64, tail32.__doc__)
bend = by_dtype(bend32, bend64, bend32.__doc__)
density = by_dtype(density32, density64, "φ(x) of e^(−x²/2).")


@inlined
def normal(x: Any) -> Any:
    """Φ(x), which keeps its digits where it is small, and e^(−x²/2), for |x| ≤ 40."""
    a = abs(x)
    e = exp(-HALF * a * a)
    rest = e * tail(a)
    return (rest if x < ZERO else ONE - rest), e


@compiled
def within(x: Any, limit: Any) -> Any:
    """x between the limits; NaN stays."""
    x = x if x <= limit or x != x else limit
    return x if x >= -limit or x != x else -limit


@compiled
def gelu(start: int, stop: int, x: Array, y: Array) -> None:
    x, y = x[start:stop], y[start:stop]
    for i in range(x.size):
        share, _ = normal(within(x[i], LIMIT))
        y[i] = x[i] * share


@compiled
def gelu_grad(start: int, stop: int, dY: Array, x: Array, dX: Array) -> None:
    dY, x, dX = dY[start:stop], x[start:stop], dX[start:stop]
    for i in range(x.size):
        share, e = normal(within(x[i], LIMIT))
        dX[i] = dY[i] * (share + x[i] * density(e))


@compiled
def gelu_tanh(start: int, stop: int, x: Array, y: Array) -> None:
    x, y = x[start:stop], y[start:stop]
    for i in range(x.size):
        u, _ = bend(x[i])
        y[i] = x[i] * logistic(u)


@compiled
def gelu_tanh_grad(start: int, stop: int, dY: Array, x: Array, dX: Array) -> None:
    dY, x, dX = dY[start:stop], x[start:stop], dX[start:stop]
    for i in range(x.size):
        v = within(x[i], FLAT)
        u, slope = bend(v)
        e = exp(u)
        rest = ONE / (ONE + e)
        share = e * rest
        nothing = x[i] - x[i]  # NaN of an infinity, as in the exact form
        dX[i] = dY[i] * (share + v * share * rest * slope + nothing)


# ---- softmax


@inlined
def largest_of(x: Array) -> Any:
    """The largest; a NaN may be passed over: its exponential is NaN as well."""
    largest = x[0]
    for j in range(1, x.size):
        largest = x[j] if x[j] > largest else largest
    return largest


@compiled_sums
def total(x: Array) -> Any:
    found = np.float64(0)
    for k in range(x.size):
        found += x[k]
    return x.dtype.type(found)


@compiled
def block(classes: int) -> int:
    """How many rows to take at a time."""
    return max(1, BLOCK // classes)


@compiled
def softmax(start: int, stop: int, x: Array, y: Array) -> None:
    x, y = x[start:stop], y[start:stop]
    rows, classes = x.shape
    flat, step = y.reshape(y.size), block(classes)
    for first in range(0, rows, step):
        last = min(first + step, rows)
        for i in range(first, last):
            largest = largest_of(x[i])
            for j in range(classes):
                y[i, j] = x[i, j] - largest
        part = flat[first * classes : last * classes]
        for k in range(part.size):
            part[k] = exp(part[k])
        for i in range(first, last):
            scale = ONE / total(y[i])
            for j in range(classes):
                y[i, j] *= scale


@compiled
def log_softmax(start: int, stop: int, x: Array, y: Array) -> None:
    x, y = x[start:stop], y[start:stop]
    rows, classes = x.shape
    step = min(rows, block(classes))
    powers = np.empty((step, classes), x.dtype)
    flat = powers.reshape(powers.size)
    for first in range(0, rows, step):
        count = min(step, rows - first)
        for i in range(count):
            largest = largest_of(x[first + i])
            for j in range(classes):
                powers[i, j] = x[first + i, j] - largest
        for k in range(count * classes):
            flat[k] = exp(flat[k])
        for i in range(count):
            largest, rest = largest_of(x[first + i]), np.log(total(powers[i]))
            for j in range(classes):
                y[first + i, j] = (x[first + i, j] - largest) - rest


@compiled_sums
def softmax_grad(start: int, stop: int, dY: Array, y: Array, dX: Array) -> None:
    dY, y, dX = dY[start:stop], y[start:stop], dX[start:stop]
    rows, classes = y.shape
    for i in range(rows):
        products = np.float64(0)
        for j in range(classes):
            products += dY[i, j] * y[i, j]
        slope = y.dtype.type(products)
        for j in range(classes):
            dX[i, j] = y[i, j] * (dY[i, j] - slope)


@compiled
def log_softmax_grad(start: int, stop: int, dY: Array, y: Array, dX: Array) -> None:
    dY, y, dX = dY[start:stop], y[start:stop], dX[start:stop]
    rows, classes = y.shape
    flat, logs, step = dX.reshape(dX.size), y.reshape(y.size), block(classes)
    for first in range(0, rows, step):
        last = min(first + step, rows)
        powers = flat[first * classes : last * classes]
        exponents = logs[first * classes : last * classes]
        for k in range(powers.size):
            powers[k] = exp(exponents[k])
        for i in range(first, last):
            slope = total(dY[i])
            for j in range(classes):
                dX[i, j] = dY[i, j] - dX[i, j] * slope


# ---- cross entropy


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
def cross_entropy(
    start: int, stop: int, x: Array, target: Array, ignore_index: int, loss: Array
) -> None:
    """Each target is a class, or ``ignore_index``."""
    x, target, loss = x[start:stop], target[start:stop], loss[start:stop]
    rows, classes = x.shape
    step = min(rows, block(classes))
    powers = np.empty((step, classes), x.dtype)
    flat = powers.reshape(powers.size)
    for first in range(0, rows, step):
        rest = min(step, rows - first)
        for i in range(rest):
            largest = largest_of(x[first + i])
            for j in range(classes):
                powers[i, j] = x[first + i, j] - largest
            label = target[first + i]
            loss[first + i] = ZERO if label == ignore_index else powers[i, label]
        for k in range(rest * classes):
            flat[k] = exp(flat[k])
        for i in range(rest):
            if target[first + i] != ignore_index:
                loss[first + i] = np.log(total(powers[i])) - loss[first + i]


@compiled
def cross_entropy_grad(
    start: int, stop: int, dY: Array, x: Array, target: Array, ignore_index: int, dX: Array
) -> None:
    """As ``cross_entropy``; dX is the softmax first."""
    softmax(start, stop, x, dX)
    dY, target, dX = dY[start:stop], target[start:stop], dX[start:stop]
    rows, classes = dX.shape
    for i in range(rows):
        if target[i] == ignore_index:
            dX[i] = ZERO
            continue
        for j in range(classes):
            dX[i, j] *= dY[i]
        dX[i, target[i]] -= dY[i]


@region_of(sigmoid)
def sigmoid_region(threads: int, items: int, *arguments: Any) -> None:
    for t in prange(threads):
        sigmoid(items * t // threads, items * (t + 1) // threads, *arguments)


@region_of(gelu)
def gelu_region(threads: int, items: int, *arguments: Any) -> None:
    for t in prange(threads):
        gelu(items * t // threads, items * (t + 1) // threads, *arguments)


@region_of(gelu_grad)
def gelu_grad_region(threads: int, items: int, *arguments: Any) -> None:
    for t in prange(threads):
        gelu_grad(items * t // threads, items * (t + 1) // threads, *arguments)


@region_of(gelu_tanh)
def gelu_tanh_region(threads: int, items: int, *arguments: Any) -> None:
    for t in prange(threads):
        gelu_tanh(items * t // threads, items * (t + 1) // threads, *arguments)


@region_of(gelu_tanh_grad)
def gelu_tanh_grad_region(threads: int, items: int, *arguments: Any) -> None:
    for t in prange(threads):
        gelu_tanh_grad(items * t // threads, items * (t + 1) // threads, *arguments)


@region_of(softmax)
def softmax_region(threads: int, items: int, *arguments: Any) -> None:
    for t in prange(threads):
        softmax(items * t // threads, items * (t + 1) // threads, *arguments)


@region_of(softmax_grad)
def softmax_grad_region(threads: int, items: int, *arguments: Any) -> None:
    for t in prange(threads):
        softmax_grad(items * t // threads, items * (t + 1) // threads, *arguments)


@region_of(log_softmax)
def log_softmax_region(threads: int, items: int, *arguments: Any) -> None:
    for t in prange(threads):
        log_softmax(items * t // threads, items * (t + 1) // threads, *arguments)


@region_of(log_softmax_grad)
def log_softmax_grad_region(threads: int, items: int, *arguments: Any) -> None:
    for t in prange(threads):
        log_softmax_grad(items * t // threads, items * (t + 1) // threads, *arguments)


@region_of(cross_entropy)
def cross_entropy_region(threads: int, items: int, *arguments: Any) -> None:
    for t in prange(threads):
        cross_entropy(items * t // threads, items * (t + 1) // threads, *arguments)


@region_of(cross_entropy_grad)
def cross_entropy_grad_region(threads: int, items: int, *arguments: Any) -> None:
    for t in prange(threads):
        cross_entropy_grad(items * t // threads, items * (t + 1) // threads, *arguments)
