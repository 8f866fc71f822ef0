"""Sums, maxima, orders, and what the rules of other ops need of them."""

from __future__ import annotations

from functools import cache
from typing import Any, Self

from tinygrad_mnist.autograd.record import define, record
from tinygrad_mnist.checks import INT, checked_dim, checked_dims, summed_dtype
from tinygrad_mnist.kernels import Shape
from tinygrad_mnist.ops.shapes import Shapes
from tinygrad_mnist.ops.table import cast

Dim = int | tuple[int, ...] | list[int] | None

_SUM = define("sum", x=lambda dY, x_shape, dim: _kept(dY, x_shape, dim)._broadcast(x_shape))
_MAX = define("max", x=lambda dY, x, out, dim: _share(dY, x, out, dim))
_MIN = define("min", x=lambda dY, x, out, dim: _share(dY, x, out, dim))
_CUMSUM = define("cumsum", x=lambda dY, dim: dY.flip(dim).cumsum(dim).flip(dim))
_ANY, _ALL = define("any"), define("all")
_ARGMAX, _ARGMIN, _ARGSORT = define("argmax"), define("argmin"), define("argsort")


def _kept(dY: Any, shape: Shape, dim: Shape) -> Any:
    """A reduction's result with its reduced dims put back as size 1, if that is needed at all."""
    if not dY.array.ndim:
        return dY
    return dY.reshape(tuple(1 if i in dim else s for i, s in enumerate(shape)))


def _share(dY: Any, x: Any, out: Any, dim: Shape) -> Any:
    """The gradient of a maximum or minimum, shared by those that equal it."""
    shape = tuple(x.array.shape)
    chosen = cast(x == _kept(out, shape, dim), x.array.dtype)
    return chosen * (_kept(dY, shape, dim) / chosen.sum(dim, keepdim=True))


def some(name: str, x: Any, dims: Shape) -> None:
    """ValueError where one of ``dims`` has size 0, so that there is nothing to choose from."""
    shape = tuple(x.array.shape)
    if shape and any(shape[d] == 0 for d in dims):
        raise ValueError(f"{name}: nothing to choose from in a dim of size 0, shape {shape}")


@cache
def _broadcast_dims(old: Shape, shape: Shape) -> tuple[Shape, bool, bool]:
    """The dims to sum, whether they stay as size 1, and whether a reshape must follow."""
    new = len(old) - len(shape)
    kept = tuple(i for i, o in enumerate(old) if i >= new and shape[i - new] != o)
    return (*range(new), *kept), not new, bool(new and kept)


class Reductions(Shapes):
    """What many elements of a tensor come to."""

    __slots__ = ()

    def sum(self, dim: Dim = None, keepdim: bool = False, *, dtype: Any = None) -> Self:
        """The sum over ``dim``: one, several or (None) all, as ``dtype``.

        Integers and booleans sum as int64 by default.
        """
        x = self._summable("sum", dtype)
        dims = checked_dims("sum", dim, x.array.ndim)
        return record(_SUM, (x,), {"dim": dims, "keepdim": keepdim})

    def amax(self, dim: Dim = None, keepdim: bool = False) -> Self:
        """The maximum over ``dim``, NaN where there is one; equal maxima share the gradient.

        ValueError where a reduced dim has size 0.
        """
        return self._extreme("amax", _MAX, dim, keepdim)

    def amin(self, dim: Dim = None, keepdim: bool = False) -> Self:
        """The minimum over ``dim``, NaN where there is one; equal minima share the gradient.

        ValueError where a reduced dim has size 0.
        """
        return self._extreme("amin", _MIN, dim, keepdim)

    def _extreme(self, name: str, op: Any, dim: Dim, keepdim: bool) -> Self:
        dims = checked_dims(name, dim, self.array.ndim)
        some(name, self, dims)
        return record(op, (self,), {"dim": dims, "keepdim": keepdim})

    def any(self, dim: Dim = None, keepdim: bool = False) -> Self:
        """Whether an element over ``dim`` is not 0: boolean. Of ``()`` each is its own."""
        return self._truth("any", _ANY, dim, keepdim)

    def all(self, dim: Dim = None, keepdim: bool = False) -> Self:
        """Whether no element over ``dim`` is 0: boolean. Of ``()`` each is its own."""
        return self._truth("all", _ALL, dim, keepdim)

    def _truth(self, name: str, op: Any, dim: Dim, keepdim: bool) -> Self:
        none = isinstance(dim, tuple | list) and not dim
        dims = () if none else checked_dims(name, dim, self.array.ndim)
        return record(op, (self,), {"dim": dims, "keepdim": keepdim})

    def argmax(self, dim: int | None = None, keepdim: bool = False) -> Self:
        """The index of the first maximum along ``dim``, or (None) in the flattened tensor; int64.

        ValueError where there is nothing to choose from.
        """
        return self._place("argmax", _ARGMAX, dim, keepdim)

    def argmin(self, dim: int | None = None, keepdim: bool = False) -> Self:
        """The index of the first minimum along ``dim``, or (None) in the flattened tensor; int64.

        ValueError where there is nothing to choose from.
        """
        return self._place("argmin", _ARGMIN, dim, keepdim)

    def _place(self, name: str, op: Any, dim: int | None, keepdim: bool) -> Self:
        shape = tuple(self.array.shape)
        if dim is None or not shape:
            if dim is not None:
                checked_dim(name, dim, 0)
            some(name, self, tuple(range(len(shape))))
            found = self.reshape(-1)._place(name, op, 0, False)
            return found.reshape((1,) * len(shape) if keepdim else ())
        at = checked_dim(name, dim, len(shape))
        some(name, self, (at,))
        return record(op, (self,), {"dim": at, "keepdim": keepdim})

    def argsort(self, dim: int = -1, descending: bool = False, *, stable: bool = False) -> Self:
        """The order that sorts along ``dim``, int64; NaN counts as the largest.

        Equal elements stay as they came, ``stable`` or not.
        """
        at = checked_dim("argsort", dim, self.array.ndim)
        if not self.array.ndim:
            return self.argmax()
        if not descending:
            return record(_ARGSORT, (self,), {"dim": at})
        x: Any = self
        return x.array.shape[at] - 1 - x.flip(at).argsort(at).flip(at)

    def _summable(self, name: str, dtype: Any) -> Self:
        if dtype is not None:
            return cast(self, summed_dtype(name, dtype))
        return self if self.array.dtype.kind == "f" else cast(self, INT)

    def cumsum(self, dim: int, *, dtype: Any = None) -> Self:
        """The sums of the elements so far along ``dim``, as ``dtype``; see ``sum``."""
        x = self._summable("cumsum", dtype)
        at = checked_dim("cumsum", dim, x.array.ndim)
        return record(_CUMSUM, (x,), {"dim": at}) if x.array.ndim else x.clone()

    def unbroadcast(self, shape: Shape) -> Self:
        """Summed over the dims in which ``shape``, which fits, was broadcast to this one."""
        dims, keepdim, reshaped = _broadcast_dims(self.array.shape, shape)
        x = record(_SUM, (self,), {"dim": dims, "keepdim": keepdim}) if dims else self
        return x.reshape(shape) if reshaped else x
