"""Views, copies, and arrays made of nothing."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from tinygrad_mnist.kernels.base import Array, Shape, view, writes
from tinygrad_mnist.kernels.pointwise import Pointwise


class Shapes(Pointwise):
    """Views are aliases and take no ``out``; the others fill new arrays, or write given ones."""

    @view
    def reshape(self, x: Array, *, shape: Shape) -> Array:
        """``x`` must lie so that the result is a view, as C-contiguous arrays do."""
        return x.reshape(shape)

    @view
    def permute(self, x: Array, *, dims: Shape) -> Array:
        return x.transpose(dims)

    @view
    def expand(self, x: Array, *, shape: Shape) -> Array:
        """``x`` repeated, read-only; where nothing repeats, a reshape, which can be written."""
        if math.prod(shape) == x.size:
            return x.reshape(shape)
        return self.xp.broadcast_to(x, shape)

    @view
    def getitem(self, x: Array, *, index: tuple[Any, ...]) -> Array:
        """Basic indexing: integers, slices, None and ``...``."""
        return x[(*index, ...)] if ... not in index else x[index]

    def getitem_grad(
        self, dY: Array, *, index: tuple[Any, ...], shape: Shape, out: Array = None
    ) -> Array:
        """Zeros of ``shape`` with ``dY`` written at ``index``."""
        out = self._filled(out, shape, dY.dtype, 0)
        out[index] = dY
        return out

    def copy(self, x: Array, *, out: Array = None) -> Array:
        """A C-contiguous copy."""
        return self._into(out, x.copy(order="C"))

    def concat(self, *arrays: Array, dim: int, out: Array = None) -> Array:
        """The arrays one after the other along ``dim``."""
        return self.xp.concatenate(arrays, axis=dim, out=out)

    @view
    def split(self, x: Array, *, sizes: Shape, dim: int) -> tuple[Array, ...]:
        """``x`` cut into pieces of ``sizes`` along ``dim``."""
        ends = np.cumsum(sizes).tolist()
        lead = (slice(None),) * dim
        return tuple(x[(*lead, slice(e - s, e))] for s, e in zip(sizes, ends, strict=True))

    def arange(
        self, *, start: float, step: float, size: int, dtype: np.dtype, out: Array = None
    ) -> Array:
        """start + step · (0, 1, …, size−1)."""
        numbers = self.xp.arange(size, dtype=np.float64 if dtype.kind == "f" else np.int64)
        return self._into(out, (start + step * numbers).astype(dtype))

    def full(self, *, shape: Shape, value: float, dtype: np.dtype, out: Array = None) -> Array:
        """An array of ``shape`` that holds ``value`` everywhere."""
        return self._filled(out, shape, dtype, value)

    @writes("x")
    def copy_(self, x: Array, y: Array) -> None:
        x[...] = y

    @writes("x")
    def fill_(self, x: Array, *, value: float) -> None:
        x.fill(value)

    @writes("x")
    def lerp_(self, x: Array, end: Array, *, weight: float) -> None:
        """x ← x + weight · (end − x)."""
        x += weight * (end - x)
