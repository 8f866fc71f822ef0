"""Kernels that reduce dims, or sort along one."""

from __future__ import annotations

import numpy as np

from tinygrad_mnist.kernels.base import Array, Base, Kernel, Shape
from tinygrad_mnist.kernels.pointwise import MANY
from tinygrad_mnist.kernels.shapes import Shapes
from tinygrad_mnist.special import blocked


def _reduction(name: str) -> Kernel:
    def kernel(self: Base, x: Array, *, dim: Shape, keepdim: bool, out: Array = None) -> Array:
        return getattr(self.xp, name)(x, axis=dim, keepdims=keepdim, out=out)

    return kernel


class Reductions(Shapes):
    """``dim`` is a tuple of dims for sums, one dim for the others."""

    def sum(self, x: Array, *, dim: Shape, keepdim: bool, out: Array = None) -> Array:
        x = blocked(self.xp, x, dim) if x.size > MANY else x
        return self.xp.sum(x, axis=dim, keepdims=keepdim, out=out)

    max = _reduction("max")
    min = _reduction("min")
    any = _reduction("any")
    all = _reduction("all")

    def argmax(self, x: Array, *, dim: int, keepdim: bool, out: Array = None) -> Array:
        return self._into(out, self.xp.argmax(x, axis=dim, keepdims=keepdim))

    def argmin(self, x: Array, *, dim: int, keepdim: bool, out: Array = None) -> Array:
        return self._into(out, self.xp.argmin(x, axis=dim, keepdims=keepdim))

    def argsort(self, x: Array, *, dim: int, out: Array = None) -> Array:
        """The order that sorts ``x`` along ``dim``, equal elements as they came; NaN last."""
        return self._into(out, self.xp.argsort(x, axis=dim, kind="stable"))

    def cumsum(self, x: Array, *, dim: int, out: Array = None) -> Array:
        """The sums so far; of floats in float64, since they are added one after the other."""
        wide = np.float64 if x.dtype.kind == "f" else None
        return self._into(out, self.xp.cumsum(x, axis=dim, dtype=wide).astype(x.dtype, copy=False))
