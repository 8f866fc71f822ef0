"""One pass over each parameter. Numbers arrive as float64 and take the parameter's dtype."""

from __future__ import annotations

from typing import Any

import numpy as np

from tinygrad_mnist.backends.numba_kernels.compile import compiled

Array = Any


@compiled
def sgd(p: Array, g: Array, lr: float, weight_decay: float) -> None:
    lr, decay = p.dtype.type(lr), p.dtype.type(weight_decay)
    decays = weight_decay != 0  # 0 times an infinite parameter would be NaN
    for i in range(p.size):
        slope = g[i] + decay * p[i] if decays else g[i]
        p[i] -= lr * slope


@compiled
def sgd_momentum(
    p: Array,
    g: Array,
    buffer: Array,
    lr: float,
    momentum: float,
    undamped: float,
    weight_decay: float,
    nesterov: bool,
    tiny: float,
) -> None:
    lr, decay = p.dtype.type(lr), p.dtype.type(weight_decay)
    momentum, undamped = p.dtype.type(momentum), p.dtype.type(undamped)
    tiny, zero = p.dtype.type(tiny), p.dtype.type(0)
    decays = weight_decay != 0
    for i in range(p.size):
        slope = g[i] + decay * p[i] if decays else g[i]
        b = momentum * buffer[i] + undamped * slope
        b = zero if abs(b) < tiny else b
        buffer[i] = b
        slope = slope + momentum * b if nesterov else b
        p[i] -= lr * slope


@compiled
def adam(
    p: Array,
    g: Array,
    m: Array,
    v: Array,
    beta1: float,
    beta2: float,
    eps: float,
    weight_decay: float,
    step_size: float,
    correction: float,
    tiny: float,
) -> None:
    dtype = p.dtype.type
    b1, c1, b2, c2 = dtype(beta1), dtype(1 - beta1), dtype(beta2), dtype(1 - beta2)
    small, decay, size, root = dtype(eps), dtype(weight_decay), dtype(step_size), dtype(correction)
    least, zero = dtype(tiny), dtype(0)
    decays = weight_decay != 0
    for i in range(p.size):
        slope = g[i] + decay * p[i] if decays else g[i]
        first = b1 * m[i] + c1 * slope
        first = zero if abs(first) < least else first
        second = b2 * v[i] + c2 * (slope * slope)
        m[i], v[i] = first, second
        p[i] -= size * (first / (np.sqrt(second) / root + small))
