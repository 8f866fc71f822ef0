"""What NumPy does faster in one call, as loops: for programs, in which nothing calls NumPy.

On flat arrays each loop does the elements ``start`` to ``stop``. Those that end in ``_by`` and
``_of`` take rows (N, size) and one number for each row. ``planning`` alone calls them.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from tinygrad_mnist.backends.numba_kernels.compile import compiled, compiled_sums

Array = Any

RUN = 256  # numbers added up before they join a float64 sum


@compiled
def add(start: int, stop: int, x: Array, y: Array, out: Array) -> None:
    x, y, out = x[start:stop], y[start:stop], out[start:stop]
    for i in range(out.size):
        out[i] = x[i] + y[i]


@compiled
def subtract(start: int, stop: int, x: Array, y: Array, out: Array) -> None:
    x, y, out = x[start:stop], y[start:stop], out[start:stop]
    for i in range(out.size):
        out[i] = x[i] - y[i]


@compiled
def multiply(start: int, stop: int, x: Array, y: Array, out: Array) -> None:
    x, y, out = x[start:stop], y[start:stop], out[start:stop]
    for i in range(out.size):
        out[i] = x[i] * y[i]


@compiled
def divide(start: int, stop: int, x: Array, y: Array, out: Array) -> None:
    x, y, out = x[start:stop], y[start:stop], out[start:stop]
    for i in range(out.size):
        out[i] = x[i] / y[i]


@compiled
def add_by(start: int, stop: int, x: Array, y: Array, out: Array) -> None:
    for n in range(start, stop):
        line, result, number = x[n], out[n], y[n]
        for i in range(result.size):
            result[i] = line[i] + number


@compiled
def multiply_by(start: int, stop: int, x: Array, y: Array, out: Array) -> None:
    for n in range(start, stop):
        line, result, number = x[n], out[n], y[n]
        for i in range(result.size):
            result[i] = line[i] * number


@compiled
def subtract_by(start: int, stop: int, x: Array, y: Array, out: Array) -> None:
    for n in range(start, stop):
        line, result, number = x[n], out[n], y[n]
        for i in range(result.size):
            result[i] = line[i] - number


@compiled
def subtract_of(start: int, stop: int, x: Array, y: Array, out: Array) -> None:
    """The rows ``x`` from the numbers ``y``."""
    for n in range(start, stop):
        line, result, number = x[n], out[n], y[n]
        for i in range(result.size):
            result[i] = number - line[i]


@compiled
def divide_by(start: int, stop: int, x: Array, y: Array, out: Array) -> None:
    for n in range(start, stop):
        line, result, number = x[n], out[n], y[n]
        for i in range(result.size):
            result[i] = line[i] / number


@compiled
def divide_of(start: int, stop: int, x: Array, y: Array, out: Array) -> None:
    for n in range(start, stop):
        line, result, number = x[n], out[n], y[n]
        for i in range(result.size):
            result[i] = number / line[i]


@compiled
def negative(start: int, stop: int, x: Array, out: Array) -> None:
    x, out = x[start:stop], out[start:stop]
    for i in range(out.size):
        out[i] = -x[i]


@compiled
def square(start: int, stop: int, x: Array, out: Array) -> None:
    x, out = x[start:stop], out[start:stop]
    for i in range(out.size):
        out[i] = x[i] * x[i]


@compiled
def sqrt(start: int, stop: int, x: Array, out: Array) -> None:
    x, out = x[start:stop], out[start:stop]
    for i in range(out.size):
        out[i] = np.sqrt(x[i])


@compiled
def lerp(start: int, stop: int, x: Array, end: Array, weight: float) -> None:
    """x ← x + weight · (end − x)."""
    x, end, share = x[start:stop], end[start:stop], x.dtype.type(weight)
    for i in range(x.size):
        way = share * (end[i] - x[i])
        x[i] = x[i] + way


@compiled
def fill(start: int, stop: int, number: float, out: Array) -> None:
    out, value = out[start:stop], out.dtype.type(number)
    for i in range(out.size):
        out[i] = value


@compiled
def copy(start: int, stop: int, x: Array, out: Array) -> None:
    """x to out, both of four dims, however they lie."""
    for a in range(start, stop):
        for b in range(out.shape[1]):
            for c in range(out.shape[2]):
                for d in range(out.shape[3]):
                    out[a, b, c, d] = x[a, b, c, d]


# ---- sums


@compiled_sums
def sum_all(start: int, stop: int, x: Array, total: Array) -> None:
    """Elements start … stop added up in ``total`` (1,), float64."""
    x = x[start:stop]
    total[0] = 0
    for first in range(0, x.size, RUN):
        run = x[first : min(first + RUN, x.size)]
        part = x.dtype.type(0)
        for k in range(run.size):
            part += run[k]
        total[0] += part


@compiled
def join(start: int, stop: int, totals: Array, out: Array) -> None:
    """``totals`` (parts, C) added up in the order of the parts, as np.sum adds them."""
    for c in range(start, stop):
        out[c] = totals[0, c]
    for part in range(1, len(totals)):
        for c in range(start, stop):
            out[c] += out.dtype.type(totals[part, c])


# ---- what the data must be


@compiled
def within(start: int, stop: int, index: Array, low: int, size: int) -> None:
    for i in range(start, stop):
        if index[i] < low or index[i] >= size:
            raise IndexError


@compiled
def count(
    start: int, stop: int, target: Array, classes: int, ignore_index: int, count: Array
) -> None:
    """How many of all targets are not ``ignore_index``, NaN for none; each must be a class."""
    found = 0
    for i in range(target.size):
        if target[i] != ignore_index:
            if target[i] < 0 or target[i] >= classes:
                raise IndexError
            found += 1
    count[0] = found if found else math.nan
