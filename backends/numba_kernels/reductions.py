"""Sums over all dims but neighbours: those of x (N, C, S) over N and S, for a bias's gradient.

Few numbers are added as they are, and those sums as float64: many small numbers then lose nothing
beside a large sum.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import prange

from tinygrad_mnist.backends.numba_kernels.compile import (
    compiled,
    compiled_sums,
    region_of,
)

Array = Any

ROWS = 64  # added up before they join the sum
RUN = 256  # numbers of a plane, likewise


@compiled
def sum_rows(start: int, stop: int, x: Array, total: Array) -> None:
    """Rows start … stop of x (N, C) added up in ``total`` (C,), float64."""
    block = np.empty(total.size, x.dtype)
    total[:] = 0
    for first in range(start, stop, ROWS):
        block[:] = 0
        for n in range(first, min(first + ROWS, stop)):
            for c in range(block.size):
                block[c] += x[n, c]
        for c in range(block.size):
            total[c] += block[c]


@compiled_sums
def sum_planes(start: int, stop: int, x: Array, total: Array) -> None:
    """Images start … stop of x (N, C, S) added up in ``total`` (C,), float64."""
    total[:] = 0
    size = x.shape[2]
    for n in range(start, stop):
        for c in range(total.size):
            for first in range(0, size, RUN):
                run = x[n, c, first : min(first + RUN, size)]
                part = x.dtype.type(0)
                for k in range(run.size):
                    part += run[k]
                total[c] += part


@region_of(sum_rows)
def sum_rows_region(threads: int, items: int, x: Array, totals: Array) -> None:
    """``totals`` (threads, C): one for each thread, which nobody else writes."""
    for t in prange(threads):
        sum_rows(items * t // threads, items * (t + 1) // threads, x, totals[t])


@region_of(sum_planes)
def sum_planes_region(threads: int, items: int, x: Array, totals: Array) -> None:
    for t in prange(threads):
        sum_planes(items * t // threads, items * (t + 1) // threads, x, totals[t])
