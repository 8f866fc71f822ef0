"""Elementwise kernels on flat arrays."""

from __future__ import annotations

from typing import Any

from tinygrad_mnist.backends.numba_kernels.compile import compiled

Array = Any


@compiled
def relu(x: Array, y: Array) -> None:
    zero = x.dtype.type(0)
    for i in range(x.size):
        y[i] = zero if x[i] <= zero else x[i]


@compiled
def relu_grad(dY: Array, y: Array, dX: Array) -> None:
    zero = y.dtype.type(0)
    for i in range(y.size):
        dX[i] = zero if y[i] <= zero else dY[i]


@compiled
def tanh_grad(dY: Array, y: Array, dX: Array) -> None:
    one = y.dtype.type(1)
    for i in range(y.size):
        dX[i] = dY[i] * (one - y[i] * y[i])


@compiled
def sigmoid_grad(dY: Array, y: Array, dX: Array) -> None:
    one = y.dtype.type(1)
    for i in range(y.size):
        dX[i] = dY[i] * ((one - y[i]) * y[i])
