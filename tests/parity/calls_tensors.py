"""What a tensor says of itself, and its conversions."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from parity.draws import OMIT, Array, Call, Dice, Dtype, Op, Shape, at

Draw = Callable[[Dice], Call]


def one(fill: Any = None, low: int = 0) -> Draw:
    return lambda dice: Call((dice.array(dice.shape(low), dice.dtype(), fill),))


def small(rng: np.random.Generator, shape: Shape) -> Any:
    """Numbers that every dtype has a place for, halves among them."""
    return rng.integers(0, 200, shape) / 2


def castable(dice: Dice) -> Array:
    return dice.array(dtype=dice.dtype(), fill=small)


def convert(dice: Dice) -> Call:
    return Call((castable(dice),))


def to(dice: Dice) -> Call:
    x = castable(dice)
    dtype = Dtype(dice.dtype() if dice.chance(0.8) else x.dtype)
    copy = {"copy": dice.maybe(dice.pick(True, False), 0.15)}
    how = dice.pick("dtype", "dtype", "device", "both", "tensor", "wrong")
    if how == "device":
        return dice.call(x, dice.pick("cpu", "cpu", "cpu", "cuda:99", "tpu9"), only=copy)
    if how == "both":
        return dice.call(x, "cpu", dtype=dtype)
    if how == "tensor":
        return dice.call(x, castable(dice))
    if how == "wrong":
        return dice.call(x, dice.pick("other", None))
    return Call((x,), {"dtype": dtype}) if dice.chance(0.3) else dice.call(x, dtype, only=copy)


def size(dice: Dice) -> Call:
    x = dice.array(dtype=dice.dtype())
    return dice.call(x, dim=dice.maybe(dice.dim(x.ndim)))


def scalar(dice: Dice) -> Call:
    """Mostly one element."""
    shape = dice.pick((), (), (1,), (1, 1), (2,), (0,))
    return Call((dice.array(shape, dice.dtype(), small),))


def contains(dice: Dice) -> Call:
    x = dice.array(dtype=dice.dtype())
    item = dice.number() if dice.chance(0.8) else dice.array((), x.dtype, grad=0)
    return Call((x, item))


def format_(dice: Dice) -> Call:
    x = dice.array(dice.pick((), (), (), (1,)), dice.pick("float32", "float64", "int64"), small)
    return Call((x, dice.pick(".2f", ".3e", "08.3f", "g")))


def shape_only(dice: Dice) -> Call:
    return dice.call(dice.array(dtype=dice.dtype()), only={"memory_format": OMIT})


OPS: list[Op] = [
    at("Tensor.to", to, says=("dtype", "device")),
    *(at(f"Tensor.{name}", convert) for name in ("float", "double", "int", "long", "bool")),
    at("Tensor.cpu", one()),
    at("Tensor.contiguous", shape_only),
    Op("clone", ("torch.clone", "Tensor.clone"), shape_only),
    at("Tensor.detach", one()),
    at("Tensor.size", size),
    *(at(f"Tensor.{name}", one()) for name in ("numel", "dim", "tolist", "is_contiguous")),
    at("Tensor.is_floating_point", one()),
    *(
        at(f"Tensor.{n}", one(), spoils=False)
        for n in ("shape", "ndim", "requires_grad", "is_leaf")
    ),
    at("Tensor.item", scalar),
    at("Tensor.__bool__", scalar, says=("truth", "bool", "item")),
    at("Tensor.__float__", scalar, says=("item", "float")),
    at("Tensor.__int__", scalar, says=("item", "int")),
    at("Tensor.__index__", scalar, says=("index", "item")),
    at("builtins.len", one()),
    at("builtins.list", one(), says=("iteration", "len", "iter")),
    at("builtins.format", format_, says=("item",)),
    at("operator.contains", contains, says=("in", "equal", "contains")),
    at("Tensor.copy_", lambda dice: _copied(dice), inplace=True),
    at("Tensor.fill_", lambda dice: _filled(dice), inplace=True),
    at("Tensor.zero_", lambda dice: Call((dice.array(grad=0.1),)), inplace=True),
]


def _copied(dice: Dice) -> Call:
    shape = dice.shape()
    x = dice.array(shape, dice.dtype(), small, grad=0.1)
    y = dice.array(dice.refit(dice.narrowed(shape)), dice.dtype(), small, grad=0.1)
    return Call((x, y), no_grad=dice.chance(0.7))


def _filled(dice: Dice) -> Call:
    x = dice.array(dice.shape(), dice.dtype(), grad=0.1)
    value = dice.number() if x.is_float else dice.integer(0, 9)
    return Call((x, value), no_grad=dice.chance(0.7))
