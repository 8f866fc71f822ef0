"""Elementwise kernels on flat arrays, each for the elements start … stop, and on threads.

A slice first and a loop over its size: from ``start`` on, every index is checked for a sign, which
stops vectorisation.
"""

from __future__ import annotations

from typing import Any

from numba import prange

from tinygrad_mnist.backends.numba_kernels.compile import compiled, region_of

Array = Any


@compiled
def relu(start: int, stop: int, x: Array, y: Array) -> None:
    x, y, zero = x[start:stop], y[start:stop], x.dtype.type(0)
    for i in range(x.size):
        y[i] = zero if x[i] <= zero else x[i]


@compiled
def relu_grad(start: int, stop: int, dY: Array, y: Array, dX: Array) -> None:
    dY, y, dX, zero = dY[start:stop], y[start:stop], dX[start:stop], y.dtype.type(0)
    for i in range(y.size):
        dX[i] = zero if y[i] <= zero else dY[i]


@compiled
def tanh_grad(start: int, stop: int, dY: Array, y: Array, dX: Array) -> None:
    dY, y, dX, one = dY[start:stop], y[start:stop], dX[start:stop], y.dtype.type(1)
    for i in range(y.size):
        dX[i] = dY[i] * (one - y[i] * y[i])


@compiled
def sigmoid_grad(start: int, stop: int, dY: Array, y: Array, dX: Array) -> None:
    dY, y, dX, one = dY[start:stop], y[start:stop], dX[start:stop], y.dtype.type(1)
    for i in range(y.size):
        dX[i] = dY[i] * ((one - y[i]) * y[i])


@region_of(relu)
def relu_region(threads: int, items: int, *arguments: Any) -> None:
    for t in prange(threads):
        relu(items * t // threads, items * (t + 1) // threads, *arguments)


@region_of(relu_grad)
def relu_grad_region(threads: int, items: int, *arguments: Any) -> None:
    for t in prange(threads):
        relu_grad(items * t // threads, items * (t + 1) // threads, *arguments)


@region_of(sigmoid_grad)
def sigmoid_grad_region(threads: int, items: int, *arguments: Any) -> None:
    for t in prange(threads):
        sigmoid_grad(items * t // threads, items * (t + 1) // threads, *arguments)


@region_of(tanh_grad)
def tanh_grad_region(threads: int, items: int, *arguments: Any) -> None:
    for t in prange(threads):
        tanh_grad(items * t // threads, items * (t + 1) // threads, *arguments)
