"""One pass over each parameter. Numbers arrive as float64 and take the parameter's dtype.

An array that an update does without is None, for which Numba compiles a loop of its own.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import prange

from tinygrad_mnist.backends.numba_kernels.compile import compiled, region_of

Array = Any


@compiled
def slope_at(p: Any, g: Any, decay: Any, maximize: bool) -> Any:
    slope = -g if maximize else g
    return slope + decay * p if decay != 0 else slope  # 0 times an infinite p would be NaN


@compiled
def flushed(x: Any, tiny: Any) -> Any:
    """``x``, or 0 where it is a denormal number."""
    return x - x if abs(x) < tiny else x


@compiled
def sgd(
    start: int,
    stop: int,
    p: Array,
    g: Array,
    lr: float,
    weight_decay: float,
    maximize: bool,
) -> None:
    p, g = p[start:stop], g[start:stop]
    rate, decay = p.dtype.type(lr), p.dtype.type(weight_decay)
    for i in range(p.size):
        p[i] -= rate * slope_at(p[i], g[i], decay, maximize)


@compiled
def sgd_momentum(
    start: int,
    stop: int,
    p: Array,
    g: Array,
    buffer: Array,
    lr: float,
    momentum: float,
    undamped: float,
    weight_decay: float,
    nesterov: bool,
    maximize: bool,
    tiny: float,
) -> None:
    p, g, buffer = p[start:stop], g[start:stop], buffer[start:stop]
    dtype = p.dtype.type
    rate, decay, least = dtype(lr), dtype(weight_decay), dtype(tiny)
    keep, add = dtype(momentum), dtype(undamped)
    for i in range(p.size):
        slope = slope_at(p[i], g[i], decay, maximize)
        b = flushed(keep * buffer[i] + add * slope, least)
        buffer[i] = b
        p[i] -= rate * (slope + keep * b if nesterov else b)


@compiled
def adam(
    start: int,
    stop: int,
    p: Array,
    g: Array,
    m: Array,
    v: Array,
    v_max: Array | None,
    beta1: float,
    beta2: float,
    eps: float,
    weight_decay: float,
    shrink: float,
    maximize: bool,
    step_size: float,
    correction: float,
    tiny: float,
) -> None:
    p, g, m, v = p[start:stop], g[start:stop], m[start:stop], v[start:stop]
    v_max = None if v_max is None else v_max[start:stop]
    dtype = p.dtype.type
    b1, c1, b2, c2 = dtype(beta1), dtype(1 - beta1), dtype(beta2), dtype(1 - beta2)
    small, decay, size, root = dtype(eps), dtype(weight_decay), dtype(step_size), dtype(correction)
    least, kept = dtype(tiny), dtype(shrink)
    for i in range(p.size):
        slope = slope_at(p[i], g[i], decay, maximize)
        first = flushed(b1 * m[i] + c1 * slope, least)
        second = flushed(b2 * v[i] + c2 * (slope * slope), least)
        m[i], v[i] = first, second
        if v_max is not None:
            second = second if second >= v_max[i] or second != second else v_max[i]
            v_max[i] = second
        old = p[i] if kept == 1 else p[i] * kept
        p[i] = old - size * (first / (np.sqrt(second) / root + small))


@compiled
def adagrad(
    start: int,
    stop: int,
    p: Array,
    g: Array,
    total: Array,
    rate: float,
    eps: float,
    weight_decay: float,
    maximize: bool,
) -> None:
    p, g, total = p[start:stop], g[start:stop], total[start:stop]
    dtype = p.dtype.type
    size, small, decay = dtype(rate), dtype(eps), dtype(weight_decay)
    for i in range(p.size):
        slope = slope_at(p[i], g[i], decay, maximize)
        grown = total[i] + slope * slope
        total[i] = grown
        p[i] -= size * (slope / (np.sqrt(grown) + small))


@compiled
def adadelta(
    start: int,
    stop: int,
    p: Array,
    g: Array,
    square: Array,
    deltas: Array,
    lr: float,
    rho: float,
    eps: float,
    weight_decay: float,
    maximize: bool,
    tiny: float,
) -> None:
    p, g, square, deltas = p[start:stop], g[start:stop], square[start:stop], deltas[start:stop]
    dtype = p.dtype.type
    rate, small, decay, least = dtype(lr), dtype(eps), dtype(weight_decay), dtype(tiny)
    keep, add = dtype(rho), dtype(1 - rho)
    for i in range(p.size):
        slope = slope_at(p[i], g[i], decay, maximize)
        v = flushed(keep * square[i] + add * (slope * slope), least)
        square[i] = v
        delta = np.sqrt(deltas[i] + small) / np.sqrt(v + small) * slope
        deltas[i] = flushed(keep * deltas[i] + add * (delta * delta), least)
        p[i] -= rate * delta


@compiled
def rmsprop(
    start: int,
    stop: int,
    p: Array,
    g: Array,
    square: Array,
    mean: Array | None,
    buffer: Array | None,
    lr: float,
    alpha: float,
    eps: float,
    momentum: float,
    weight_decay: float,
    maximize: bool,
    tiny: float,
) -> None:
    p, g, square = p[start:stop], g[start:stop], square[start:stop]
    mean = None if mean is None else mean[start:stop]
    buffer = None if buffer is None else buffer[start:stop]
    dtype = p.dtype.type
    rate, small, decay, least = dtype(lr), dtype(eps), dtype(weight_decay), dtype(tiny)
    keep, add, hold = dtype(alpha), dtype(1 - alpha), dtype(momentum)
    for i in range(p.size):
        slope = slope_at(p[i], g[i], decay, maximize)
        v = flushed(keep * square[i] + add * (slope * slope), least)
        square[i] = v
        if mean is not None:
            a = flushed(keep * mean[i] + add * slope, least)
            mean[i] = a
            v = v - a * a
            v = v if v >= 0 or v != v else v - v  # rounding must not make it negative
        step = slope / (np.sqrt(v) + small)
        if buffer is not None:
            step = flushed(hold * buffer[i] + step, least)
            buffer[i] = step
        p[i] -= rate * step


@region_of(sgd)
def sgd_region(threads: int, items: int, *arguments: Any) -> None:
    for t in prange(threads):
        sgd(items * t // threads, items * (t + 1) // threads, *arguments)


@region_of(sgd_momentum)
def sgd_momentum_region(threads: int, items: int, *arguments: Any) -> None:
    for t in prange(threads):
        sgd_momentum(items * t // threads, items * (t + 1) // threads, *arguments)


@region_of(adam)
def adam_region(threads: int, items: int, *arguments: Any) -> None:
    for t in prange(threads):
        adam(items * t // threads, items * (t + 1) // threads, *arguments)


@region_of(adagrad)
def adagrad_region(threads: int, items: int, *arguments: Any) -> None:
    for t in prange(threads):
        adagrad(items * t // threads, items * (t + 1) // threads, *arguments)


@region_of(adadelta)
def adadelta_region(threads: int, items: int, *arguments: Any) -> None:
    for t in prange(threads):
        adadelta(items * t // threads, items * (t + 1) // threads, *arguments)


@region_of(rmsprop)
def rmsprop_region(threads: int, items: int, *arguments: Any) -> None:
    for t in prange(threads):
        rmsprop(items * t // threads, items * (t + 1) // threads, *arguments)
