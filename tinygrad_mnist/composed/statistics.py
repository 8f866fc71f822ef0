"""Reductions made of others."""

from __future__ import annotations

import math
from collections.abc import Callable
from numbers import Real
from typing import Any, NamedTuple, Self

from tinygrad_mnist.autograd.graph import Value, broadcasts_to
from tinygrad_mnist.checks import (
    FLOAT,
    INT,
    checked_dim,
    checked_dims,
    checked_dtype,
    checked_integer,
    fit,
    shape_of,
    shown,
)
from tinygrad_mnist.composed.arrangements import Arrangements
from tinygrad_mnist.ops.networks import log_softmax, softmax
from tinygrad_mnist.ops.pointwise import where
from tinygrad_mnist.ops.reductions import Dim, some
from tinygrad_mnist.ops.shapes import cut
from tinygrad_mnist.ops.table import cast

Reduction = Callable[[Any, bool], Any]


class Chosen(NamedTuple):
    """Elements and where they lay, int64."""

    values: Any
    indices: Any


class Statistics(Arrangements):
    """What describes a tensor's elements."""

    __slots__ = ()

    # ---- sums

    def mean(self, dim: Dim = None, keepdim: bool = False, *, dtype: Any = None) -> Self:
        """The mean over ``dim``: one, several or (None) all, as ``dtype``.

        TypeError for integers.
        """
        if dtype is not None:
            return cast(self, checked_dtype(dtype, "mean")).mean(dim, keepdim)
        if self.array.dtype.kind != "f":
            raise TypeError(
                f"mean: expected a float tensor, got {self.array.dtype}; use x.float().mean()"
            )
        dims = checked_dims("mean", dim, self.array.ndim)
        count = math.prod(self.array.shape[d] for d in dims)
        return self.sum(dims, keepdim) * (1 / count if count else math.nan)

    def sum_to_size(self, *shape: Any) -> Self:
        """Summed over the dims in which ``shape`` was broadcast to this one.

        ValueError where ``shape`` does not broadcast to this shape.
        """
        sizes = shape_of(shape, "sum_to_size")
        old = tuple(self.array.shape)
        if not broadcasts_to(sizes, old):
            raise ValueError(f"sum_to_size: shape {old} does not sum to {sizes}")
        whole = self.array.dtype.kind != "f" and (sizes != old or not old)
        return (cast(self, INT) if whole else self).unbroadcast(sizes)

    # ---- deviations and norms

    def var(
        self,
        dim: Dim = None,
        unbiased: bool | None = None,
        keepdim: bool = False,
        *,
        correction: float | None = None,
    ) -> Self:
        """Σ (x − mean x)² / max(0, n − correction) over ``dim``: one, several or (None) all.

        ``correction`` is 1 by default; ``unbiased=False`` is the older name for 0. NaN for too few
        elements. TypeError for integers.
        """
        return self._variance("var", dim, unbiased, keepdim, correction)

    def std(
        self,
        dim: Dim = None,
        unbiased: bool | None = None,
        keepdim: bool = False,
        *,
        correction: float | None = None,
    ) -> Self:
        """√var; the slope is 0 where it is 0. See ``var`` for the arguments and errors."""
        return _root(self._variance("std", dim, unbiased, keepdim, correction))

    def _variance(
        self, name: str, dim: Dim, unbiased: Any, keepdim: bool, correction: float | None
    ) -> Self:
        if isinstance(dim, bool):  # var(False) is var(unbiased=False)
            dim, unbiased = None, dim
        both = unbiased is not None and correction is not None
        if both or not isinstance(unbiased, bool | None) or not isinstance(correction, Real | None):
            raise TypeError(
                f"{name}: expected unbiased as a bool or correction as a number, got "
                f"unbiased={shown(unbiased)}, correction={shown(correction)}"
            )
        if correction is None:
            correction = 1 if unbiased is None else int(unbiased)
        fit(name, "x float (…)", self)
        dims = checked_dims(name, dim, self.array.ndim)
        count = math.prod(self.array.shape[d] for d in dims)
        total: Any = (self - self.mean(dims, True)).square().sum(dims, keepdim)
        if count > max(0, correction):
            return total / (count - correction)
        return total * where(total > 0, math.inf, math.nan)  # total / 0, without NumPy's warning

    def norm(self, p: float | str | None = 2, dim: Dim = None, keepdim: bool = False) -> Self:
        """(Σ |x|ᵖ)^(1/p) over ``dim``: one, several or (None) all; the slope is 0 where it is 0.

        ``p`` is any number; inf is the largest |x|, -inf the smallest, 0 counts what is not 0, and
        "fro" or None is 2. ValueError for another ``p``, and where a negative ``p`` or inf has
        nothing to choose from; TypeError for integers.
        """
        fit("norm", "x float (…)", self)
        p = 2 if p is None or p == "fro" else p
        if not isinstance(p, Real) or p != p:
            raise ValueError(f'norm: p must be a number, "fro" or None, got {shown(p)}')
        power = float(p)
        dims = checked_dims("norm", dim, self.array.ndim)
        if power < 0 or power == math.inf:
            some("norm", self, dims)
        if power == 2:
            return _root(self.square().sum(dims, keepdim))
        if power == 0:
            return where(self.ne(0), 1.0, self.sign()).sum(dims, keepdim)
        size = self.abs()
        if power == 1:
            return size.sum(dims, keepdim)
        if abs(power) == math.inf:
            return size.amax(dims, keepdim) if power > 0 else size.amin(dims, keepdim)
        return _power(_power(size, power).sum(dims, keepdim), 1 / power)

    def logsumexp(self, dim: Dim = None, keepdim: bool = False) -> Self:
        """log Σ eˣ over ``dim``: one, several or (None) all, from x − max x: nothing overflows.

        −∞ of nothing; the slope is 0 where it is infinite. Integers and booleans become float32
        first.
        """
        x = self._as_float("logsumexp")
        dims = checked_dims("logsumexp", dim, x.array.ndim)
        if any(x.array.shape[d] == 0 for d in dims):
            return x.sum(dims, keepdim) - math.inf
        top = x.amax(dims, True).detach()
        infinite = top.isinf()
        total = (x - where(infinite, 0.0, top)).exp().sum(dims, True)
        total = where(infinite, 1.0, total).log() + top
        return total if keepdim else total._without(dims)

    # ---- exponentials

    def softmax(self, dim: int, *, dtype: Any = None) -> Self:
        """eˣ / Σ eˣ along ``dim``, computed as ``dtype`` from x − max x: nothing overflows."""
        return self._along("softmax", softmax, dim, dtype)

    def log_softmax(self, dim: int, *, dtype: Any = None) -> Self:
        """x − log Σ eˣ along ``dim``, computed as ``dtype`` from x − max x: nothing overflows."""
        return self._along("log_softmax", log_softmax, dim, dtype)

    def _along(self, name: str, op: Callable[..., Any], dim: int, dtype: Any) -> Any:
        x = self._as_float(name, dtype)
        at = checked_dim(name, dim, x.array.ndim)
        if not x.array.size:
            return x.exp()  # as empty, and with a gradient of its own
        return op(x, dim=at) if x.array.ndim else op(x.reshape(1), dim=0).reshape(())

    def _as_float(self, name: str, dtype: Any = None) -> Any:
        """As ``dtype`` where one is given; what is then no float becomes float32."""
        x = self if dtype is None else cast(self, checked_dtype(dtype, name))
        return x if x.array.dtype.kind == "f" else cast(x, FLOAT)

    # ---- products

    def prod(self, dim: Dim = None, keepdim: bool = False, *, dtype: Any = None) -> Self:
        """The product over ``dim``: one, several or (None) all, as ``dtype``.

        Integers and booleans by default as int64.
        Each half is multiplied by the other until one element is left, so that a gradient divides
        by nothing.
        """
        start = self._summable("prod", dtype)
        dims = checked_dims("prod", dim, start.array.ndim)
        x = start
        for at in dims:
            x = _multiplied(x, at)
        x = x.clone() if x is start else x
        return x if keepdim else x._without(dims)

    def _without(self, dims: tuple[int, ...]) -> Self:
        """Without these dims of size 1."""
        return self.reshape(tuple(s for i, s in enumerate(self.array.shape) if i not in dims))

    # ---- elements chosen by their size

    def max(self, dim: Any = None, keepdim: bool = False, *, other: Any = None) -> Any:
        """The maximum of all; along ``dim`` (values, indices); with another tensor, ``maximum``.

        Equal maxima of all share the gradient; along ``dim`` the first takes it. A NaN is the
        maximum. ValueError where there is nothing to choose from.
        """
        if other is not None or isinstance(dim, Value):
            return self.maximum(_one_of("max", dim, other))
        return self._best("max", self.amax, self.argmax, dim, keepdim)

    def min(self, dim: Any = None, keepdim: bool = False, *, other: Any = None) -> Any:
        """The minimum of all; along ``dim`` (values, indices); with another tensor, ``minimum``.

        See ``max``.
        """
        if other is not None or isinstance(dim, Value):
            return self.minimum(_one_of("min", dim, other))
        return self._best("min", self.amin, self.argmin, dim, keepdim)

    def _best(
        self, name: str, extreme: Reduction, place: Reduction, dim: int | None, keepdim: bool
    ) -> Any:
        if dim is None:
            some(name, self, tuple(range(self.array.ndim)))
            return extreme(None, keepdim)
        at = checked_dim(name, dim, self.array.ndim)
        some(name, self, (at,))
        return self._chosen(at, place(at, True), keepdim)

    def sort(self, dim: int = -1, descending: bool = False, *, stable: bool = False) -> Chosen:
        """(values, indices) in order along ``dim``; NaN counts as the largest.

        Equal elements stay as they came, ``stable`` or not.
        """
        at = checked_dim("sort", dim, self.array.ndim)
        return self._chosen(at, self.argsort(at, descending))

    def topk(
        self,
        k: int,
        dim: int = -1,
        largest: bool = True,
        sorted: bool = True,
    ) -> Chosen:
        """(values, indices) of the ``k`` largest or smallest along ``dim``, ``sorted`` or not.

        Equal elements stay as they came; NaN counts as the largest. ValueError for a ``k`` outside
        0 … the dim's size.
        """
        at = checked_dim("topk", dim, self.array.ndim)
        size = self.array.shape[at] if self.array.ndim else 1
        if not 0 <= checked_integer("topk", "k", k) <= size:
            raise ValueError(f"topk: k must be 0 to {size}, the size of dim {dim}, got {k}")
        order = self.argsort(at, largest)
        if self.array.ndim:
            order = order[(slice(None),) * at + (slice(k),)].contiguous()
        return self._chosen(at, order)

    def _chosen(self, dim: int, index: Any, keepdim: bool = True) -> Chosen:
        """The elements at ``index`` along ``dim``, with it."""
        values: Any = self.gather(dim, index) if self.array.ndim else self.clone()
        if keepdim or not self.array.ndim:
            return Chosen(values, index)
        return Chosen(values.squeeze(dim), index.squeeze(dim))


def _one_of(name: str, dim: Any, other: Any) -> Any:
    if dim is not None and other is not None:
        raise TypeError(f"{name}: expected a dim or another tensor, got both")
    return dim if other is None else other


def _root(x: Any) -> Any:
    """√x, with the slope 0 where x is 0."""
    none = x == 0
    return where(none, 0.0, where(none, 1.0, x).sqrt())


def _power(x: Any, p: float) -> Any:
    """xᵖ of x ≥ 0, with the slope 0 where x is 0."""
    none = x == 0
    return where(none, 0.0 if p > 0 else math.inf, where(none, 1.0, x) ** p)


def _multiplied(x: Any, dim: int) -> Any:
    """The product along ``dim``, whose size becomes 1."""
    if x.array.shape[dim] == 0:
        return x.sum(dim, keepdim=True) + 1
    spare = None  # the last of an odd number
    while (size := x.array.shape[dim]) > 1:
        half = size // 2
        first, second, *last = cut(x, (half, half, 1) if size % 2 else (half, half), dim)
        x = first * second
        for one in last:
            spare = one if spare is None else spare * one
    return x if spare is None else x * spare
