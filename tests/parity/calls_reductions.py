"""Reductions over dims, orders and positions."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from parity.draws import (
    OMIT,
    Array,
    Call,
    Dice,
    Dtype,
    Op,
    at,
    both,
    distinct,
    special,
    tame,
    whole,
)

Draw = Callable[[Dice], Call]


def over_dims(kinds: str = "any", fill: Any = None, dtype: float = 0.0) -> Draw:
    """One, several or all dims, and ``keepdim``."""

    def draw(dice: Dice) -> Call:
        x = dice.array(dtype=dice.dtype(kinds if dice.chance(0.9) else "any"), fill=fill)
        dim = dice.dims(x.ndim)
        keepdim = OMIT if dim is OMIT and dice.chance(0.7) else dice.maybe(dice.pick(True, False))
        only = {"dtype": dice.maybe(Dtype(dice.dtype("float")), dtype)}
        return dice.call(x, dim=dim, keepdim=keepdim, only=only)

    return draw


def over_one(kinds: str = "any", fill: Any = None, whole: float = 0.2, dtype: float = 0.0) -> Draw:
    """One dim or all."""

    def draw(dice: Dice) -> Call:
        x = dice.array(dtype=dice.dtype(kinds), fill=fill)
        only = {"dtype": dice.maybe(Dtype(dice.dtype("float")), dtype)}
        if dice.chance(whole):
            return dice.call(x, only=only)
        dim = dice.dim(x.ndim) if dice.chance(0.95) else (0,)
        keepdim = dice.maybe(dice.pick(True, False))
        return dice.call(x, dim=dim, keepdim=keepdim, only=only)

    return draw


def spread(dice: Dice) -> Call:
    """var and std: the newer ``correction``, by keyword, or the older ``unbiased``."""
    x = dice.array(dtype=dice.dtype("float" if dice.chance(0.93) else "any"))
    dim = dice.dims(x.ndim)
    keepdim = dice.maybe(dice.pick(True, False))
    if dice.chance(0.15):
        return dice.call(x, dim=dim, only={"unbiased": dice.pick(True, False), "keepdim": keepdim})
    correction = dice.maybe(dice.pick(0, 1, 2, 1.5))
    return dice.call(x, dim=dim, only={"correction": correction, "keepdim": keepdim})


def required(dice: Dice) -> Call:
    """logsumexp: the dim must be given."""
    x = dice.array(dtype=dice.dtype("float" if dice.chance(0.9) else "any"))
    dim = dice.dims(x.ndim)
    return dice.call(x, dim=dim, keepdim=dice.maybe(dice.pick(True, False)))


def extreme(dice: Dice) -> Call:
    """max and min: of all, along a dim, or of two tensors."""
    if dice.chance(0.15):
        shapes = dice.broadcast(2)
        x, y = (dice.array(shape, dice.dtype(), whole) for shape in shapes)
        return dice.call(x, other=y)
    return over_one(fill=dice.pick(None, whole, special), whole=0.3)(dice)


def argument(dice: Dice) -> Call:
    return over_one(fill=dice.pick(None, whole, special), whole=0.25)(dice)


def cumsum(dice: Dice) -> Call:
    x = dice.array(dtype=dice.dtype())
    only = {"dtype": dice.maybe(Dtype(dice.dtype("float")), 0.15)}
    return dice.call(x, dim=dice.dim(x.ndim) if dice.chance(0.95) else OMIT, only=only)


def norm(dice: Dice) -> Call:
    x = dice.array(dtype=dice.dtype("float" if dice.chance(0.92) else "any"))
    inf = float("inf")
    p = dice.pick(OMIT, OMIT, "fro", 1, 2, 2, 3, 2.0, 1.5, 0, inf, -inf, -1, None, "other")
    dim = dice.dims(x.ndim)
    return dice.call(x, p=p, dim=dim, keepdim=dice.maybe(dice.pick(True, False)))


def sort(dice: Dice) -> Call:
    x = dice.array(dtype=dice.dtype(), fill=dice.pick(None, distinct, distinct, whole, special))
    stable = dice.maybe(dice.pick(True, False), 0.2)
    down = dice.maybe(dice.pick(True, False))
    dim = dice.maybe(dice.dim(x.ndim), 0.7)
    if stable is not OMIT:
        return dice.call(x, only={"stable": stable, "dim": dim, "descending": down})
    return dice.call(x, dim=dim, descending=down)


def argsort(dice: Dice) -> Call:
    """The order of equal elements is settled only where it is asked to be."""
    stable = dice.chance(0.5)
    fill = dice.pick(whole, special, None) if stable else distinct
    dtype = dice.dtype("any" if stable else "float")
    x = dice.array(dtype=dtype, fill=fill)
    x = x if stable else Array(np.asarray(distinct(dice.rng, x.shape) * 0.5))
    options = {
        "dim": dice.maybe(dice.dim(x.ndim), 0.7),
        "descending": dice.maybe(dice.pick(True, False)),
    }
    if stable:
        return dice.call(x, only={**options, "stable": True})
    return dice.call(x, **options)


def sum_to_size(dice: Dice) -> Call:
    x = dice.array(dtype=dice.dtype())
    size = dice.refit(dice.narrowed(x.shape), 0.1)
    return Call((x, *size) if size and dice.chance(0.3) else (x, size))


def topk(dice: Dice) -> Call:
    """The order of equal elements is nobody's business, so there are none."""
    x = dice.array(dtype=dice.pick("float32", "float64", "int64", "int32"), fill=distinct)
    if x.layout == "expanded":
        x = dice.array(x.shape, "float64", distinct)
        x = Array(np.asarray(distinct(dice.rng, x.shape) * 0.5), requires_grad=x.requires_grad)
    dim = dice.maybe(dice.dim(x.ndim), 0.7)
    along = x.shape[dim] if isinstance(dim, int) and -x.ndim <= dim < x.ndim else 0
    along = x.shape[-1] if dim is OMIT and x.ndim else along
    k = dice.pick(0, 1, along, max(along - 1, 0), max(along - 1, 0), along + 1, -1, 1.5)
    flags = {name: dice.maybe(dice.pick(True, False), 0.4) for name in ("largest", "sorted")}
    if flags["sorted"] is False:
        flags["sorted"] = True
    return dice.call(x, k=k, dim=dim, **flags)


def nonzero(dice: Dice) -> Call:
    x = dice.array(dtype=dice.dtype(), fill=dice.pick(None, whole))
    return dice.call(x, only={"as_tuple": dice.maybe(dice.pick(True, False))})


OPS: list[Op] = [
    both("sum", over_dims(dtype=0.1)),
    both("mean", over_dims("float", dtype=0.1)),
    both("var", spread),
    both("std", spread),
    both("amax", over_dims(fill=whole)),
    both("amin", over_dims(fill=whole)),
    at("Tensor.amax", over_dims(fill=special)),
    both("max", extreme, says=("maximum",)),
    both("min", extreme, says=("minimum",)),
    both("prod", over_one(fill=tame, dtype=0.1)),
    at("torch.prod", over_one("float", fill=whole)),
    both("logsumexp", required),
    both("argmax", argument),
    both("argmin", argument),
    both("cumsum", cumsum),
    both("norm", norm, rough=10),
    both("any", over_dims()),
    both("all", over_dims()),
    both("sort", sort),
    both("argsort", argsort),
    both("topk", topk),
    at("Tensor.sum_to_size", sum_to_size),
    both("nonzero", nonzero),
]
