"""How the kernels of the Numba backend run their loops.

Each checks its arrays and hands its loops to these helpers, which run them; in a plan ``Planning``
stands in their place, and writes them down.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from tinygrad_mnist.backends.numba_kernels import exponentials, reductions, threads
from tinygrad_mnist.kernels import Array, Shape


class Total(NamedTuple):
    """An argument (parts, …) of which each part of a loop takes its own."""

    array: Array


class Launching:
    """Runs loops at once."""

    def _run(self, kernel: Any, items: int, work: int, *arguments: Any) -> None:
        """``kernel`` for all items: at once, or a range of them on each thread of its region."""
        parts = threads.split(items, work)
        if parts == 1:
            kernel(0, items, *arguments)
        else:
            kernel.region(parts, items, *arguments)

    _run_beside = _run  # one of several that write nothing that another one reads

    def _run_totals(self, kernel: Any, items: int, *arguments: Any) -> None:
        """As ``_run``, in as many parts as the argument ``Total`` has: each takes its own."""
        parts = next(len(x.array) for x in arguments if isinstance(x, Total))
        if parts == 1:
            kernel(0, items, *(x.array[0] if isinstance(x, Total) else x for x in arguments))
        else:
            given = (x.array if isinstance(x, Total) else x for x in arguments)
            kernel.region(parts, items, *given)

    def _join(self, totals: Array, out: Array) -> None:
        """The parts' totals added up, in the order of the parts."""
        np.sum(totals, axis=0, out=out.reshape(totals.shape[1:]))

    def _contiguous(self, x: Array) -> Array:
        return x if x.flags.c_contiguous else np.ascontiguousarray(x)

    def _copied(self, x: Array, out: Array) -> None:
        out[...] = x

    def _numbers(
        self, fn: Callable[..., tuple[Any, ...]], *, guard: str = "", **static: Any
    ) -> tuple[Any, ...]:
        """What a kernel takes for its static arguments, some of which may change between runs."""
        return fn(**static)

    def _counted(self, target: Array, classes: int, ignore_index: int, count: Array = None) -> bool:
        """How many targets are not ``ignore_index``, in ``count``; False if one is no class."""
        counted = exponentials.counted(target, classes, ignore_index)
        if counted >= 0 and count is not None:
            count[()] = counted or math.nan
        return counted >= 0

    def _each(self, kernel: Any, work: int, *arrays: Array, out: Array) -> Array:
        """``kernel`` on the elements of arrays that are alike."""
        x = arrays[0]
        out = or_empty(out, x.shape, x.dtype)
        self._run(kernel, x.size, work, *[each.ravel() for each in arrays], out.ravel())
        return out

    def _each_row(self, kernel: Any, *arrays: Array, out: Array) -> Array:
        """``kernel`` on the rows (n, size) of arrays (…, size) that are alike."""
        x = arrays[0]
        out = or_empty(out, x.shape, x.dtype)
        rows = [each.reshape(-1, x.shape[-1]) for each in (*arrays, out)]
        self._run(kernel, len(rows[0]), 4 * x.size, *rows)
        return out

    def _sum(self, planes: Array, out: Array) -> None:
        """``planes`` (N, C, S) added up over N and S, each thread's as float64."""
        parts = threads.split(len(planes), planes.size // 4)
        totals = np.empty((parts, planes.shape[1]), np.float64)
        if planes.shape[2] == 1:
            self._run_totals(reductions.sum_rows, len(planes), planes[:, :, 0], Total(totals))
        else:
            self._run_totals(reductions.sum_planes, len(planes), planes, Total(totals))
        self._join(totals, out)

    def _update(self, kernel: Any, arrays: tuple[Any, ...], *settings: Any) -> None:
        """One parameter's arrays through an optimizer's ``kernel``."""
        size = arrays[0].size
        flat = [None if x is None else x.ravel() for x in arrays]
        self._run_beside(kernel, size, size, *flat, *settings)


def or_empty(out: Any, shape: Shape, dtype: np.dtype) -> Array:
    return np.empty(shape, dtype) if out is None else out
