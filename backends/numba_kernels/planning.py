"""What the kernels of the Numba backend would run, written down instead of run.

``Planning`` stands before ``NumbaBackend`` and ``Refusing`` behind it. A kernel is called as ever,
checks its arrays, and hands its loops to helpers; here these keep ``Planned`` launches. Whatever
would touch numbers in another way raises ``Uncovered``. Scratch arrays are made here, once, and
written by the launches. ``programs`` asks for the plan of a step and makes a program of many.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from tinygrad_mnist.backends.numba_kernels import elements, exponentials, products, threads
from tinygrad_mnist.backends.numba_kernels.launching import Total
from tinygrad_mnist.kernels import Array, Backend, Pair, Shape

FLOATS = np.dtype(np.float32), np.dtype(np.float64)
NUMBERS = *FLOATS, np.dtype(np.int64)
# Work that another thread takes over: a program's threads are awake, and need no call.
WORTH = 2**14
# The ranges that these are given decide how their results round: they get those of a plain call.
ROUNDED = {products.matmul, products.linear, products.linear_outputs, products.linear_dw_rows}
ROUNDED |= {exponentials.softmax, exponentials.softmax_grad, exponentials.log_softmax}
ROUNDED |= {exponentials.log_softmax_grad, exponentials.cross_entropy_grad}
DIMS = 4  # of arrays that are copied however they lie


class Uncovered(Exception):
    """The step is more than compiled loops."""


class Slot(NamedTuple):
    """A number that is written to a cell of the program's table before each run."""

    cell: int
    value: Any  # its type counts


class Strided(NamedTuple):
    """An array of four dims, whose layout the kernel does not know."""

    array: Array


class Planned(NamedTuple):
    """``kernel`` on ``items`` in ``parts``; ``beside``: at the same time as the one before it."""

    kernel: Any
    items: int
    parts: int
    arguments: tuple[Any, ...]
    beside: bool = False


class Numbers(NamedTuple):
    """What the host computes before each run: ``fn(**static)``, into the cells from ``cell`` on.

    The plan holds as long as ``guard``, a static argument or "", is as true as it was.
    """

    fn: Callable[..., tuple[Any, ...]]
    cell: int
    values: tuple[Any, ...]
    guard: str


class Planning:
    """The helpers of ``NumbaBackend`` that keep what they are given, and kernels for programs."""

    _sum: Any  # of NumbaBackend
    _small = True  # they are no work for a call from Python, but for a program

    def __init__(self, hosted: bool, cell: int) -> None:
        self.launches: list[Planned] = []
        self.numbers: Numbers | None = None
        self._hosted, self._cell = hosted, cell

    # ---- the helpers

    def _run(self, kernel: Any, items: int, work: int, *arguments: Any) -> None:
        self.launches.append(Planned(kernel, items, _parts(kernel, items, work), arguments))

    def _run_beside(self, kernel: Any, items: int, work: int, *arguments: Any) -> None:
        parts = _parts(kernel, items, work)
        self.launches.append(Planned(kernel, items, parts, arguments, beside=True))

    def _run_totals(self, kernel: Any, items: int, *arguments: Any) -> None:
        parts = next(len(each.array) for each in arguments if isinstance(each, Total))
        self.launches.append(Planned(kernel, items, parts, arguments))

    def _join(self, totals: Array, out: Array) -> None:
        totals = totals.reshape(len(totals), -1)
        self._run(elements.join, out.size, totals.size // 4, totals, _flat(out))

    def _contiguous(self, x: Array) -> Array:
        if x.flags.c_contiguous:
            return x
        scratch = np.empty(x.shape, x.dtype)
        self._copied(x, scratch)
        return scratch

    def _copied(self, x: Array, out: Array) -> None:
        x, out = _of_four_dims(x), _of_four_dims(out)
        self._run(elements.copy, len(out), out.size // 2, Strided(x), Strided(out))

    def _numbers(
        self, fn: Callable[..., tuple[Any, ...]], *, guard: str = "", **static: Any
    ) -> tuple[Any, ...]:
        values = fn(**static)
        if not self._hosted:
            return values
        self.numbers = Numbers(fn, self._cell, values, guard)
        return tuple(Slot(self._cell + i, value) for i, value in enumerate(values))

    def _counted(self, target: Array, classes: int, ignore_index: int, count: Array = None) -> bool:
        count = np.empty((), FLOATS[0]) if count is None else count
        self._run(elements.count, 1, 0, target, classes, ignore_index, _flat(count))
        return True

    def check_index(self, index: Array, size: int, kernel: str, low: int = 0) -> None:
        _require(type(index) is np.ndarray and index.dtype == np.int64 and index.size > 0)
        flat = _flat(self._contiguous(index))
        self._run(elements.within, flat.size, 0, flat, low, size)

    def _pad(self, x: Array, padding: Pair, value: float) -> Array:
        if padding == (0, 0):
            return x
        (n, c, h, w), (ph, pw) = x.shape, padding
        padded = np.full((n, c, h + 2 * ph, w + 2 * pw), value, x.dtype)  # the edges stay
        self._copied(x, padded[:, :, ph : ph + h, pw : pw + w])
        return padded

    # ---- kernels that NumPy runs when called one by one

    def add(self, x: Array, y: Array, *, out: Array = None) -> Array:
        kernels = elements.add, elements.add_by, elements.add_by
        return self._pair(kernels, x, y, out)

    def subtract(self, x: Array, y: Array, *, out: Array = None) -> Array:
        kernels = elements.subtract, elements.subtract_by, elements.subtract_of
        return self._pair(kernels, x, y, out)

    def multiply(self, x: Array, y: Array, *, out: Array = None) -> Array:
        kernels = elements.multiply, elements.multiply_by, elements.multiply_by
        return self._pair(kernels, x, y, out)

    def divide(self, x: Array, y: Array, *, out: Array = None) -> Array:
        _require(_is_float(out))
        kernels = elements.divide, elements.divide_by, elements.divide_of
        return self._pair(kernels, x, y, out)

    def negative(self, x: Array, *, out: Array = None) -> Array:
        return self._one(elements.negative, x, out)

    def square(self, x: Array, *, out: Array = None) -> Array:
        return self._one(elements.square, x, out)

    def sqrt(self, x: Array, *, out: Array = None) -> Array:
        return self._one(elements.sqrt, x, out)

    def sum(self, x: Array, *, dim: Shape, keepdim: bool, out: Array = None) -> Array:
        _require(_is_float(out) and type(x) is np.ndarray and x.dtype == out.dtype and x.size > 0)
        kept = [d for d in range(x.ndim) if d not in dim]
        if kept and kept[-1] - kept[0] >= len(kept):  # the loops want it together
            x = x.transpose(*dim, *kept)
            kept = list(range(len(dim), x.ndim))
        x = self._contiguous(x)
        if not kept:
            totals = np.empty((threads.split(x.size, x.size // 4), 1), np.float64)
            self._run_totals(elements.sum_all, x.size, _flat(x), Total(totals))
            self._join(totals, out)
        else:
            planes = x.reshape(math.prod(x.shape[: kept[0]]), out.size, -1)
            self._sum(planes, out)
        return out

    def full(self, *, shape: Shape, value: float, dtype: np.dtype, out: Array = None) -> Array:
        _require(_is_float(out))
        (number,) = self._numbers(_filling, shape=shape, value=value, dtype=dtype)
        self._run(elements.fill, out.size, out.size // 4, number, _flat(out))
        return out

    def fill_(self, x: Array, *, value: float) -> None:
        _require(_is_float(x))
        (number,) = self._numbers(_filling, value=value)
        self._run(elements.fill, x.size, x.size // 4, number, _flat(x))

    def copy(self, x: Array, *, out: Array = None) -> Array:
        self.copy_(out, x)
        return out

    def copy_(self, x: Array, y: Array) -> None:
        numbers = type(x) is type(y) is np.ndarray and x.size > 0
        _require(numbers and x.dtype == y.dtype and x.dtype in NUMBERS)
        self._copied(np.broadcast_to(y, x.shape), x)

    def lerp_(self, x: Array, end: Array, *, weight: float) -> None:
        _require(_is_float(x) and _is_float(end) and x.dtype == end.dtype and x.shape == end.shape)
        (share,) = self._numbers(_blending, weight=weight)
        self._run(elements.lerp, x.size, x.size // 2, _flat(x), _flat(end), share)

    def take_grad(self, dY: Array, index: Array, **static: Any) -> Array:
        raise Uncovered

    # ---- what they share

    def _one(self, kernel: Any, x: Array, out: Array) -> Array:
        _require(_is_float(out) and type(x) is np.ndarray and x.dtype == out.dtype)
        self._run(kernel, out.size, out.size // 4, _flat(self._contiguous(x)), _flat(out))
        return out

    def _pair(self, kernels: tuple[Any, Any, Any], x: Any, y: Any, out: Array) -> Array:
        """``kernels``: of two arrays; of rows and a number for each; of a number and a row."""
        _require(_is_a(NUMBERS, out))
        each, by, of = kernels
        x, y = (_operand(operand, out) for operand in (x, y))
        if x.size < out.size and y.size < out.size:
            x = self._contiguous(np.broadcast_to(x, out.shape))
        if y.size < out.size and not _is_of_rows(y, out.shape):
            y = self._contiguous(np.broadcast_to(y, out.shape))
        if x.size < out.size and not _is_of_rows(x, out.shape):
            x = self._contiguous(np.broadcast_to(x, out.shape))
        x, y = self._contiguous(x), self._contiguous(y)
        if x.size == y.size:
            self._run(each, out.size, out.size // 4, _flat(x), _flat(y), _flat(out))
            return out
        kernel, rows, numbers = (by, x, y) if y.size < x.size else (of, y, x)
        shape = numbers.size, -1
        arguments = rows.reshape(shape), _flat(numbers), out.reshape(shape)
        self._run(kernel, numbers.size, out.size // 4, *arguments)
        return out


def _refused(self: Any, *arguments: Any, **static: Any) -> Any:
    raise Uncovered


class _Nothing:
    """A namespace for arrays that has nothing."""

    def __getattr__(self, name: str) -> Any:
        raise Uncovered


class Refusing(Backend):
    """Every default of the contract raises ``Uncovered``."""

    xp = _Nothing()


for _name in dir(Backend):
    _kernel = getattr(Backend, _name)
    if callable(_kernel) and not isinstance(_kernel, type) and not _name.startswith("__"):
        setattr(Refusing, _name, _refused)


def _filling(*, value: float, **static: Any) -> tuple[Any, ...]:
    return (float(value),)


def _blending(*, weight: float) -> tuple[Any, ...]:
    return (float(weight),)


def _parts(kernel: Any, items: int, work: int) -> int:
    if kernel in ROUNDED:
        return threads.split(items, work)
    return threads.split(items, work * (threads.WORTH // WORTH))


def _require(condition: bool) -> None:
    if not condition:
        raise Uncovered


def _is_float(x: Any) -> bool:
    return _is_a(FLOATS, x)


def _is_a(dtypes: tuple[np.dtype, ...], x: Any) -> bool:
    """Whether ``x`` is a non-empty C-contiguous array of one of these."""
    return type(x) is np.ndarray and x.dtype in dtypes and x.flags.c_contiguous and x.size > 0


def _flat(x: Array) -> Array:
    return x.reshape(-1)


def _of_four_dims(x: Array) -> Array:
    """``x`` with dims of 1 after the first one, whose items threads divide."""
    _require(x.ndim <= DIMS)
    if x.ndim == 0:
        return x[None, None, None, None]
    return x[(slice(None), *(None,) * (DIMS - x.ndim), ...)]


def _operand(x: Any, out: Array) -> Array:
    """An array of the dtype of ``out`` and as many dims, of size 1 where it repeats itself."""
    if not hasattr(x, "dtype"):
        return np.full((1,) * out.ndim, x, out.dtype)
    _require(type(x) is np.ndarray and x.dtype == out.dtype)
    once = tuple(slice(0, 1) if step == 0 else slice(None) for step in x.strides)
    x = x[(..., *once)]  # without the dots, one of no dims would be copied: a number
    return x.reshape((1,) * (out.ndim - x.ndim) + x.shape)


def _is_of_rows(x: Array, shape: Shape) -> bool:
    """Whether ``x`` has one number for each row of an array of ``shape``, for rows of some dims."""
    dims = next((d for d in range(x.ndim, 0, -1) if x.shape[d - 1] != 1), 0)
    return x.shape[:dims] == shape[:dims]
