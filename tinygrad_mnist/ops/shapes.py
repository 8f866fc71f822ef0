"""Views and copies: ops that move elements and compute nothing."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from tinygrad_mnist.autograd import Value, define, record
from tinygrad_mnist.kernels import Shape
from tinygrad_mnist.ops.table import T, checked_dim

_RESHAPE = define("reshape", {"x": lambda dY, x_shape: reshape(dY, x_shape)})
_PERMUTE = define("permute", {"x": lambda dY, dims: permute(dY, _inverse(dims))})
_EXPAND = define("expand", {"x": lambda dY: dY})  # the engine sums over what was expanded
_GETITEM = define("getitem", {"x": lambda dY, index, x_shape: getitem_grad(dY, index, x_shape)})
_GETITEM_GRAD = define("getitem_grad", {"dY": lambda dZ, index: getitem(dZ, index)})
_COPY = define("copy", {"x": lambda dY: dY})


def shape_of(args: tuple[Any, ...]) -> Shape:
    """``f(2, 3)`` and ``f((2, 3))`` alike: the sizes as a tuple. TypeError for non-integers."""
    sizes = args[0] if len(args) == 1 and isinstance(args[0], tuple | list) else args
    for size in sizes:
        if not isinstance(size, int | np.integer) or isinstance(size, bool):
            raise TypeError(f"a shape is made of integers, got {size!r}")
    return tuple(int(size) for size in sizes)


def reshape(x: T, *shape: Any) -> T:
    """The same elements in row-major order as ``shape``; one size may be -1.

    A view where ``x`` is contiguous, else of a copy. ValueError where the sizes do not fit.
    """
    sizes = _fill_in(x, shape_of(shape))
    if not x.array.flags.c_contiguous:
        x = clone(x)
    return record(_RESHAPE, (x,), {"shape": sizes})


def view(x: T, *shape: Any) -> T:
    """``reshape`` that never copies: RuntimeError where ``x`` is not contiguous."""
    if not x.array.flags.c_contiguous:
        raise RuntimeError(
            f"view: the tensor of shape {tuple(x.array.shape)} is not contiguous; use .reshape()"
        )
    return reshape(x, *shape)


def _fill_in(x: Value, shape: Shape) -> Shape:
    size = x.array.size
    if shape.count(-1) == 1:
        known = math.prod(s for s in shape if s != -1)
        if known and size % known == 0:
            shape = tuple(size // known if s == -1 else s for s in shape)
    if min(shape, default=0) < 0 or math.prod(shape) != size:
        raise ValueError(
            f"reshape: {size} elements of shape {tuple(x.array.shape)} do not fit shape {shape}"
        )
    return shape


def flatten(x: T, start_dim: int = 0, end_dim: int = -1) -> T:
    """The dims from ``start_dim`` to ``end_dim``, both included, as one."""
    shape = x.array.shape
    start = checked_dim("flatten", start_dim, len(shape))
    end = checked_dim("flatten", end_dim, len(shape))
    if start > end:
        raise ValueError(f"flatten: start_dim {start_dim} comes after end_dim {end_dim}")
    return reshape(x, (*shape[:start], math.prod(shape[start : end + 1]), *shape[end + 1 :]))


def permute(x: T, *dims: Any) -> T:
    """The dims in another order: a view. ValueError where ``dims`` is not each dim once."""
    order = tuple(checked_dim("permute", d, x.array.ndim) for d in shape_of(dims))
    if sorted(order) != list(range(x.array.ndim)):
        raise ValueError(f"permute: dims {order} are not each of the {x.array.ndim} dims once")
    return record(_PERMUTE, (x,), {"dims": order})


def transpose(x: T, dim0: int, dim1: int) -> T:
    """Two dims swapped: a view."""
    order = list(range(x.array.ndim))
    a = checked_dim("transpose", dim0, x.array.ndim)
    b = checked_dim("transpose", dim1, x.array.ndim)
    if order:
        order[a], order[b] = order[b], order[a]
    return record(_PERMUTE, (x,), {"dims": tuple(order)})


def mT(x: T) -> T:
    """The last two dims swapped: a view."""
    order = (*range(x.array.ndim - 2), x.array.ndim - 1, x.array.ndim - 2)
    return record(_PERMUTE, (x,), {"dims": order})


def _inverse(dims: Shape) -> Shape:
    return tuple(dims.index(i) for i in range(len(dims)))


def expand(x: T, *shape: Any) -> T:
    """``x`` repeated along its dims of size 1, and along new first ones: a view.

    A size of -1 keeps the dim. ValueError where the shapes do not fit.
    """
    sizes, old = shape_of(shape), tuple(x.array.shape)
    kept = tuple(
        o if s == -1 else s
        for s, o in zip(sizes, (-1,) * (len(sizes) - len(old)) + old, strict=False)
    )
    fits = len(sizes) >= len(old) and all(
        k == o or o == 1 for k, o in zip(kept[len(kept) - len(old) :], old, strict=True)
    )
    if not fits or min(kept, default=0) < 0:
        raise ValueError(f"expand: shape {old} does not expand to {sizes}")
    return broadcast(x, kept)


def broadcast(x: T, shape: Shape) -> T:
    """``expand`` to a shape that is known to fit."""
    return record(_EXPAND, (x,), {"shape": shape})


def squeeze(x: T, dim: int | None = None) -> T:
    """Without the dims of size 1, or without ``dim`` where its size is 1."""
    shape = tuple(x.array.shape)
    if dim is None:
        return reshape(x, tuple(s for s in shape if s != 1))
    at = checked_dim("squeeze", dim, len(shape))
    return reshape(x, shape[:at] + shape[at + 1 :]) if shape and shape[at] == 1 else x


def unsqueeze(x: T, dim: int) -> T:
    """With a new dim of size 1 at ``dim``."""
    at = checked_dim("unsqueeze", dim, x.array.ndim + 1)
    return getitem(x, (slice(None),) * at + (None,))


def getitem(x: T, index: Any) -> T:
    """``x[index]`` for integers, slices, None and ``...``: a view.

    IndexError out of range or for too many indices; TypeError for anything else.
    """
    parts = index if isinstance(index, tuple) else (index,)
    for part in parts:
        known = part is None or part is ... or isinstance(part, int | np.integer | slice)
        if not known or isinstance(part, bool):
            raise TypeError(
                f"indexing takes integers, slices, None and ..., got {type(part).__name__}"
            )
        if isinstance(part, slice) and part.step is not None and part.step < 1:
            raise ValueError(f"indexing: a slice's step must be positive, got {part.step}")
    return record(_GETITEM, (x,), {"index": parts})


def getitem_grad(dY: T, index: Any, shape: Shape) -> T:
    """Zeros of ``shape`` with ``dY`` at ``index``."""
    return record(_GETITEM_GRAD, (dY,), {"index": index, "shape": shape})


def clone(x: T) -> T:
    """A contiguous copy with the same gradient."""
    return record(_COPY, (x,))


def contiguous(x: T) -> T:
    """``x`` itself where it is contiguous, else a copy."""
    return x if x.array.flags.c_contiguous else clone(x)
