"""Kernels that read and write at indices."""

from __future__ import annotations

import math

from tinygrad_mnist.kernels.base import Array, Shape, writes
from tinygrad_mnist.kernels.reductions import Reductions


class Indexing(Reductions):
    """Indices are int64 arrays, checked here: a device can only do it without waiting."""

    def take(self, x: Array, index: Array, *, dim: int, out: Array = None) -> Array:
        """``x`` at the int64 ``index``, of any shape, along ``dim``, whose place its dims take."""
        self.check_index(index, x.shape[dim], f"take: dim {dim}")
        if x.flags.c_contiguous:
            return self._into(out, self.xp.take(x, index, axis=dim))
        taken = x[(*(slice(None),) * dim, index)]  # take would copy the whole of x
        return self._into(out, taken.copy(order="C"))

    def take_grad(
        self, dY: Array, index: Array, *, shape: Shape, dim: int, out: Array = None
    ) -> Array:
        """Zeros of ``shape`` with ``dY`` added at ``index`` along ``dim``.

        Element by element in one flat array: NumPy's ``add.at`` is five times slower on rows.
        """
        self.check_index(index, shape[dim], f"take_grad: dim {dim}")
        before, after = math.prod(shape[:dim]), math.prod(shape[dim + 1 :])
        places = index.reshape(-1)
        if after != 1:
            places = places[:, None] * after + self.xp.arange(after)
        if before != 1:
            starts = self.xp.arange(before) * (shape[dim] * after)
            places = starts[:, None] + places.reshape(1, -1)
        total = self.xp.zeros(math.prod(shape), dY.dtype)
        self.xp.add.at(total, places.reshape(-1), dY.reshape(-1))
        return self._into(out, total.reshape(shape))

    def put(self, x: Array, index: Array, y: Array, *, out: Array = None) -> Array:
        """A copy of ``x`` with ``y`` at ``index``, as ``put_`` writes it."""
        self.check_index(index, len(x), "put")
        out = self._into(out, x.copy(order="C"))
        out[index] = y
        return out

    @writes("x")
    def put_(self, x: Array, index: Array, y: Array) -> None:
        """x[index] ← y with an int64 ``index`` along dim 0; of repeated indices any one wins.

        ``y`` broadcasts to the dims of ``index`` and then those of ``x`` after the first.
        """
        self.check_index(index, len(x), "put_")
        x[index] = y

    def wrap_index(
        self, x: Array, *, size: int, low: int, step: int, what: str, out: Array = None
    ) -> Array:
        """int64 ``x``, of which negative ones count from the end of ``size``, times ``step``.

        IndexError, beginning with ``what``, outside ``low`` … size−1; ``low`` is 0 or −size.
        """
        self.check_index(x, size, what, low)
        if low == 0:
            return self.xp.multiply(x, step, out=out)
        wrapped = x >> 63  # −1 where x < 0, else 0: ten times as fast as where
        wrapped &= size
        wrapped += x
        wrapped *= step
        return self._into(out, wrapped)

    def nonzero(self, x: Array, *, out: Array = None) -> Array:
        """The indices of what is not 0, (count, ndim) int64, in row-major order."""
        return self._into(out, self.xp.argwhere(x))
