"""Views and copies: ops that move elements and compute nothing."""

from __future__ import annotations

import operator
from collections.abc import Sequence
from itertools import accumulate
from typing import Any, Self

from tinygrad_mnist.autograd.record import EVERY, define, record
from tinygrad_mnist.checks import checked_dim, filled_in, listed, shape_of
from tinygrad_mnist.kernels import Shape
from tinygrad_mnist.ops.pointwise import Pointwise
from tinygrad_mnist.ops.table import full_like, promoted

_RESHAPE = define("reshape", x=lambda dY, x_shape: dY.reshape(x_shape))
_PERMUTE = define("permute", x=lambda dY, dims: dY.permute(_inverse(dims)))
_EXPAND = define("expand", x=lambda dY: dY)  # the engine sums over what was expanded
_SLICE = define("getitem", x=lambda dY, index, x_shape: sliced_grad(dY, index, x_shape))
_SLICE_GRAD = define("getitem_grad", dY=lambda dZ, index: sliced(dZ, index))
_COPY = define("copy", x=lambda dY: dY)
_CONCAT = define("concat", joint=lambda dY, shapes, dim: _cut_again(dY, shapes, dim))
_SPLIT = define(
    "split",
    joint=lambda dYs, x_shape, sizes, dim: [_joined_again(dYs, x_shape, sizes, dim)],
    differentiable=EVERY,
)


def sliced(x: Any, index: tuple[Any, ...]) -> Any:
    """``x[index]`` of integers, slices of any step, None and ``...``: a view."""
    return record(_SLICE, (x,), {"index": index})


def sliced_grad(dY: Any, index: tuple[Any, ...], shape: Shape) -> Any:
    """Zeros of ``shape`` with ``dY`` at ``index``."""
    return record(_SLICE_GRAD, (dY,), {"index": index, "shape": shape})


def cat(tensors: Sequence[Any], dim: int = 0) -> Any:
    """The tensors one after the other along ``dim``; dtypes are promoted.

    Empty ones of shape (0,) fit any others. ValueError for none, for 0-d ones, or for shapes that
    differ outside ``dim``; TypeError for what is no tensor.
    """
    parts = promoted(listed("cat", tensors))
    shapes = [tuple(part.array.shape) for part in parts]
    if () in shapes:
        raise ValueError("cat: expected tensors of at least 1 dim, got a 0-d one; see stack")
    first = next((shape for shape in shapes if shape != (0,)), (0,))
    at = checked_dim("cat", dim, len(first))
    nothing = (*first[:at], 0, *first[at + 1 :])
    fitting = [x.reshape(nothing) if s == (0,) else x for x, s in zip(parts, shapes, strict=True)]
    if any((*s[:at], 0, *s[at + 1 :]) != nothing for s in shapes if s != (0,)):
        got = ", ".join(map(str, shapes))
        raise ValueError(f"cat: expected shapes that differ at most in dim {dim}, got {got}")
    return record(_CONCAT, fitting, {"dim": at})


def cut(x: Any, sizes: Shape, dim: int) -> Any:
    """Views of ``x``, of ``sizes`` along ``dim``, which they fill."""
    return record(_SPLIT, (x,), {"sizes": sizes, "dim": dim})


def _cut_again(dY: Any, shapes: list[Shape], dim: int) -> Any:
    return cut(dY, tuple(shape[dim] for shape in shapes), dim)


def _joined_again(dYs: list[Any], shape: Shape, sizes: Shape, dim: int) -> Any:
    like = next(dY for dY in dYs if dY is not None)
    missing = {size for dY, size in zip(dYs, sizes, strict=True) if dY is None}
    zeros = {n: full_like(like, 0, (*shape[:dim], n, *shape[dim + 1 :])) for n in missing}
    return cat([zeros[n] if dY is None else dY for dY, n in zip(dYs, sizes, strict=True)], dim)


def dims_of(args: tuple[Any, ...]) -> tuple[Any, ...]:
    """``f(0, 1)`` and ``f((0, 1))`` alike."""
    return tuple(args[0]) if len(args) == 1 and isinstance(args[0], tuple | list) else args


def _inverse(dims: Shape) -> Shape:
    return tuple(dims.index(i) for i in range(len(dims)))


def lies_as(array: Any, shape: Shape) -> bool:
    """Whether ``array`` can be seen as ``shape``, which holds its elements, without a copy.

    Dims whose elements follow each other in memory are one run; ``shape`` may divide the runs
    anew, but no dim of it may reach from one into the next.
    """
    if array.flags.c_contiguous:
        return True
    runs: list[int] = []
    last = None
    for size, stride in zip(array.shape, array.strides, strict=True):
        if size != 1:
            if last == size * stride:
                runs[-1] *= size
            else:
                runs.append(size)
            last = stride
    ends = set(accumulate(runs, operator.mul))
    return ends <= set(accumulate(shape, operator.mul))


class Shapes(Pointwise):
    """How a tensor's elements lie."""

    __slots__ = ()

    def reshape(self, shape: Any = (), *more: int) -> Self:
        """The same elements in row-major order as ``shape``; one size may be -1.

        A view where the elements lie so that it can be one, as those of a contiguous tensor do;
        else of a copy. ValueError where the sizes do not fit.
        """
        sizes = filled_in("reshape", shape_of((shape, *more), "reshape"), self.array.shape)
        x = self if lies_as(self.array, sizes) else self.clone()
        return x._seen_as(sizes)

    def permute(self, dims: Any = (), *more: int) -> Self:
        """The dims in another order: a view. ValueError where ``dims`` is not each dim once."""
        ndim = self.array.ndim
        order = tuple([checked_dim("permute", d, ndim) for d in dims_of((dims, *more))])
        if sorted(order) != list(range(ndim)):
            raise ValueError(f"permute: dims {order} are not each of the {ndim} dims once")
        return self._turned(order)

    def _turned(self, order: Shape) -> Self:
        """``permute`` to an order that is known to be one."""
        return record(_PERMUTE, (self,), {"dims": order})

    @property
    def mT(self) -> Self:
        """The last two dims swapped: a view. ValueError for fewer than two."""
        ndim = self.array.ndim
        if ndim < 2:
            raise ValueError(f"mT: expected at least 2 dims, got shape {tuple(self.array.shape)}")
        return record(_PERMUTE, (self,), {"dims": (*range(ndim - 2), ndim - 1, ndim - 2)})

    def _broadcast(self, shape: Shape) -> Self:
        """Repeated to a shape that is known to fit, a view."""
        return record(_EXPAND, (self,), {"shape": shape})

    def _seen_as(self, shape: Shape) -> Self:
        """``reshape`` to a shape as which its elements are known to lie."""
        return record(_RESHAPE, (self,), {"shape": shape})

    def clone(self) -> Self:
        """A contiguous copy with the same gradient."""
        return record(_COPY, (self,))

    def contiguous(self) -> Self:
        """The tensor itself where it is contiguous, else a copy."""
        return self if self.array.flags.c_contiguous else self.clone()
