"""Sums, means, maxima, and what is made of them."""

from __future__ import annotations

import math
from functools import cache
from typing import Any

from tinygrad_mnist.autograd import broadcasts_to, define, record
from tinygrad_mnist.kernels import Shape
from tinygrad_mnist.ops.pointwise import exp, log
from tinygrad_mnist.ops.shapes import broadcast, reshape, shape_of
from tinygrad_mnist.ops.table import FLOAT, INT, T, cast, checked_dim, checked_dims

Dim = int | tuple[int, ...] | list[int] | None

_SUM = define("sum", {"x": lambda dY, x_shape, dim: broadcast(_kept(dY, x_shape, dim), x_shape)})
_MAX = define("max", {"x": lambda dY, x, out, dim: _max_share(dY, x, out, dim)})
_ARGMAX = define("argmax", {})


def sum(x: T, dim: Dim = None, keepdim: bool = False) -> T:
    """The sum over ``dim``: one, several or (None) all. Integers and booleans sum as int64."""
    if x.array.dtype.kind != "f":
        x = cast(x, INT)
    dims = checked_dims("sum", dim, x.array.ndim)
    return _sum(x, dims, keepdim)


def _sum(x: Any, dims: Shape, keepdim: bool) -> Any:
    return record(_SUM, (x,), {"dim": dims, "keepdim": keepdim})


def mean(x: T, dim: Dim = None, keepdim: bool = False) -> T:
    """The mean over ``dim``: one, several or (None) all. TypeError for integers."""
    if x.array.dtype.kind != "f":
        raise TypeError(f"mean: expected a float tensor, got {x.array.dtype}; use x.float().mean()")
    dims = checked_dims("mean", dim, x.array.ndim)
    count = math.prod(x.array.shape[d] for d in dims)
    total: Any = sum(x, dims, keepdim)
    return total * (1 / count if count else math.nan)


def amax(x: T, dim: Dim = None, keepdim: bool = False) -> T:
    """The maximum over ``dim``, NaN where there is one; equal maxima share the gradient.

    ValueError where a reduced dim has size 0.
    """
    dims = checked_dims("amax", dim, x.array.ndim)
    if any(x.array.shape[d] == 0 for d in dims):
        raise ValueError(f"amax: no maximum of a dim of size 0 in shape {tuple(x.array.shape)}")
    return record(_MAX, (x,), {"dim": dims, "keepdim": keepdim})


def _max_share(dY: Any, x: Any, out: Any, dim: Shape) -> Any:
    shape = tuple(x.array.shape)
    chosen = cast(x == _kept(out, shape, dim), x.array.dtype)
    return chosen * (_kept(dY, shape, dim) / sum(chosen, dim, keepdim=True))


def argmax(x: T, dim: int | None = None, keepdim: bool = False) -> T:
    """The index of the first maximum along ``dim``, or (None) in the flattened tensor; int64."""
    if x.array.size == 0:
        raise ValueError(f"argmax: no maximum in a tensor of shape {tuple(x.array.shape)}")
    if dim is None:
        flat = record(_ARGMAX, (reshape(x, -1),), {"dim": 0, "keepdim": False})
        return reshape(flat, (1,) * x.array.ndim if keepdim else ())
    at = checked_dim("argmax", dim, x.array.ndim)
    if x.array.ndim == 0:
        return argmax(x, None, keepdim)
    return record(_ARGMAX, (x,), {"dim": at, "keepdim": keepdim})


def sum_to_size(x: T, *shape: Any) -> T:
    """``x`` summed over the dims in which ``shape`` was broadcast to it.

    ValueError where ``shape`` does not broadcast to the shape of ``x``.
    """
    sizes = shape_of(shape)
    old = tuple(x.array.shape)
    if not broadcasts_to(sizes, old):
        raise ValueError(f"sum_to_size: shape {old} does not sum to {sizes}")
    return unbroadcast(x, sizes)


def unbroadcast(x: T, shape: Shape) -> T:
    """``sum_to_size`` of a shape that is known to have been broadcast to that of ``x``."""
    dims, keepdim, reshaped = _broadcast_dims(x.array.shape, shape)
    if dims:
        x = _sum(x, dims, keepdim)
    return reshape(x, shape) if reshaped else x


@cache
def _broadcast_dims(old: Shape, shape: Shape) -> tuple[Shape, bool, bool]:
    """The dims to sum, whether they stay as size 1, and whether a reshape must follow."""
    new = len(old) - len(shape)
    kept = tuple(i for i, o in enumerate(old) if i >= new and shape[i - new] != o)
    return (*range(new), *kept), not new, bool(new and kept)


def _kept(dY: Any, shape: Shape, dim: Shape) -> Any:
    """A reduction's result with its reduced dims put back as size 1, if that is needed at all."""
    if not dY.array.ndim:
        return dY
    return reshape(dY, tuple(1 if i in dim else s for i, s in enumerate(shape)))


def log_softmax(x: T, dim: int) -> T:
    """x − log Σ eˣ along ``dim``, computed from x − max x so that nothing overflows."""
    if x.array.dtype.kind != "f":
        x = cast(x, FLOAT)
    shifted = _shifted("log_softmax", x, dim)
    return shifted - log(sum(exp(shifted), dim, keepdim=True))


def softmax(x: T, dim: int) -> T:
    """eˣ / Σ eˣ along ``dim``, computed from x − max x so that nothing overflows."""
    if x.array.dtype.kind != "f":
        x = cast(x, FLOAT)
    powers = exp(_shifted("softmax", x, dim))
    return powers / sum(powers, dim, keepdim=True)


def _shifted(name: str, x: Any, dim: int) -> Any:
    checked_dim(name, dim, x.array.ndim)
    if x.array.size == 0:
        return x
    return x - amax(x, dim, keepdim=True).detach()
