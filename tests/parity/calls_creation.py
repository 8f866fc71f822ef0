"""Tensors made of numbers, of data and of other tensors' shapes."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from parity.draws import OMIT, Array, Call, Dice, Dtype, Op, at


def dtype(dice: Dice, probability: float = 0.5, kinds: str = "any") -> Any:
    return dice.maybe(Dtype(dice.dtype(kinds)), probability)


def sized(kinds: str = "any", random: bool = False) -> Any:
    """``f(2, 3)``, ``f((2, 3))`` or ``f(size=(2, 3))``; negative sizes and floats are wrong."""

    def draw(dice: Dice) -> Call:
        shape: tuple[Any, ...] = dice.shape()
        if dice.chance(0.1):
            shape = (*shape, dice.pick(-1, -3, 1.5, "2"))
        only = {"dtype": dtype(dice, kinds=kinds if dice.chance(0.9) else "any")}
        if dice.chance(0.2):
            only["requires_grad"] = dice.pick(True, False)
        how = dice.pick("apart", "tuple", "list", "size")
        args = shape if how == "apart" else (shape,) if how == "tuple" else (list(shape),)
        if how == "size":
            only["size"], args = shape, ()
        call = dice.call(*args, only=only)
        return replace(call, values=not random)

    return draw


def full(dice: Dice) -> Call:
    shape: Any = dice.shape()
    if dice.chance(0.1):
        shape = dice.pick((2, -1), 3.5, "3", 3)
    return dice.call(size=shape, fill_value=dice.number(), only={"dtype": dtype(dice, 0.4)})


def arange(dice: Dice) -> Call:
    def number(low: int, high: int) -> Any:
        return dice.integer(low, high) if dice.chance(0.7) else dice.integer(low, high) / 4

    only = {"dtype": dtype(dice, 0.3)}
    if dice.chance(0.35):
        return dice.call(number(-1, 6), only=only)
    start = number(-3, 3)
    step = dice.pick(1, 2, 3, 0.5, 0.25, OMIT, OMIT, -1, -0.5, 0)
    stop = start + abs(number(0, 6)) if step is OMIT or step >= 0 else start - abs(number(0, 6))
    if dice.chance(0.06):
        start, stop = stop, start
    return dice.call(start, stop, step=step, only=only)


def linspace(dice: Dice) -> Call:
    only = {"dtype": dtype(dice, 0.3, "float")}
    steps = dice.pick(0, 1, 2, 3, 5, 6, 7, -1, 2.5)
    return dice.call(start=dice.number(), end=dice.number(), steps=steps, only=only)


def eye(dice: Dice) -> Call:
    n, m = dice.pick(0, 1, 2, 3, 4, -1, 1.5), dice.maybe(dice.pick(0, 1, 2, 3, 5, -2))
    return dice.call(n=n, m=m, only={"dtype": dtype(dice)})


def randint(dice: Dice) -> Call:
    size = dice.shape()
    only = {"dtype": dice.maybe(Dtype(dice.dtype("integer")), 0.3)}
    low = dice.integer(-2, 2)
    high = low + dice.pick(0, 1, 2, 5, 9, 9)
    bounds = (low, high) if dice.chance(0.6) else (high,)
    return replace(dice.call(*bounds, size=size, only=only), values=False)


def randperm(dice: Dice) -> Call:
    n = dice.pick(0, 1, 2, 5, 9, -1, 2.5)
    return replace(dice.call(n=n, only={"dtype": dtype(dice, 0.2)}), values=False)


def like(kinds: str = "any", random: bool = False) -> Any:
    def draw(dice: Dice) -> Call:
        x = dice.array(dtype=dice.dtype(kinds if dice.chance(0.9) else "any"))
        only = {"dtype": dtype(dice, 0.4, kinds), "requires_grad": dice.maybe(False, 0.2)}
        return replace(dice.call(x, only=only), values=not random)

    return draw


def full_like(dice: Dice) -> Call:
    x = dice.array(dtype=dice.dtype())
    return dice.call(x, fill_value=dice.number(), only={"dtype": dtype(dice, 0.4)})


def nested(dice: Dice) -> Any:
    """Numbers, nested lists and tuples, some ragged or of what is no number."""
    shape = dice.shape(high=3)
    kind = dice.pick("float64", "float64", "int64", "bool")
    data: Any = dice.values(shape, kind).tolist()
    if dice.chance(0.1):
        return [data, [data, data]] if dice.chance(0.5) else [data, "a"]
    if dice.chance(0.15):
        return dice.pick([1, 2.5], [True, 2], [True, 0.5], (1, (2)), [], [[]], [[], []], "a", None)
    return data


def data(dice: Dice) -> Any:
    """What a tensor can be made of."""
    if dice.chance(0.5):
        return nested(dice)
    array = dice.array(dtype=dice.dtype(), fill=None, grad=0).values
    return array if dice.chance(0.6) else Array(array)


def tensor(dice: Dice) -> Call:
    only = {"dtype": dtype(dice, 0.3), "requires_grad": dice.maybe(dice.pick(True, False), 0.2)}
    call = dice.call(data(dice), only=only)
    return call if _castable(call) else Call(call.args)


def as_tensor(dice: Dice) -> Call:
    call = dice.call(data(dice), dtype=dtype(dice, 0.3))
    return call if _castable(call) else Call(call.args)


def _castable(call: Call) -> bool:
    """Whether no NaN, infinity or negative number meets a dtype that has none."""
    given = [part for part in (*call.args, *call.kwargs.values()) if isinstance(part, Dtype)]
    if not given or given[0].name in ("float32", "float64", "bool"):
        return True
    value = call.args[0]
    try:
        array = np.asarray(value.values if isinstance(value, Array) else value)
        return array.dtype.kind != "f" or bool(np.all((array >= 0) & (array < 100)))
    except (TypeError, ValueError):
        return True


def from_numpy(dice: Dice) -> Call:
    array = dice.array(dtype=dice.dtype(), grad=0).laid_out()[1]
    return Call((dice.pick(array, array, array, array, array, [1.0], 2.0, array.astype("U3")),))


def one_hot(dice: Dice) -> Call:
    classes = dice.pick(1, 2, 3, 4)
    x = dice.index(dice.shape(high=3), classes)
    return dice.call(x, num_classes=dice.pick(OMIT, -1, classes, classes, classes + 2, 0, 2))


GRAD = ("require grad",)  # "only float tensors can require grad" needs no more

OPS: list[Op] = [
    at("torch.tensor", tensor, says=GRAD),
    at("torch.as_tensor", as_tensor, says=("tensor",)),
    at("torch.from_numpy", from_numpy, says=("tensor",)),
    at("torch.zeros", sized(), says=GRAD),
    at("torch.ones", sized(), says=GRAD),
    at("torch.empty", sized(random=True), says=GRAD),
    at("torch.rand", sized("float", random=True), says=GRAD),
    at("torch.randn", sized("float", random=True), says=GRAD),
    at("torch.full", full),
    at("torch.arange", arange),
    at("torch.linspace", linspace),
    at("torch.eye", eye),
    at("torch.randint", randint),
    at("torch.randperm", randperm),
    at("torch.zeros_like", like()),
    at("torch.ones_like", like()),
    at("torch.empty_like", like(random=True)),
    at("torch.rand_like", like("float", random=True)),
    at("torch.randn_like", like("float", random=True)),
    at("torch.full_like", full_like),
    at("F.one_hot", one_hot),
]
