"""Ops on each element: arithmetic, comparisons, bits, functions of one tensor, choice."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from parity.draws import (
    OMIT,
    Array,
    Call,
    Dice,
    Op,
    at,
    both,
    normal,
    positive,
    probability,
    special,
    tame,
    unit,
    whole,
    wide,
)

Draw = Callable[[Dice], Call]


def one(fill: Any = None, kinds: str = "any") -> Draw:
    """One tensor."""
    return lambda dice: Call((dice.array(dtype=dice.dtype(kinds), fill=fill),))


def pair(dice: Dice, kinds: str, fill: Any = None, number: float = 0.25) -> tuple[Any, Any]:
    """Two tensors that broadcast, of one dtype or two; or a tensor and a number."""
    dtype = dice.dtype(kinds)
    other = dtype if dice.chance(0.6) else dice.dtype("any")
    shapes = dice.broadcast(2)
    x = dice.array(shapes[0], dtype, fill)
    if dice.chance(number):
        return x, dice.number(floats=kinds != "integer" or dice.chance(0.1))
    return x, dice.array(shapes[1], other, fill)


def operator(kinds: str = "any", fill: Any = None) -> Draw:
    """``x ∘ y`` with a number on either side."""

    def draw(dice: Dice) -> Call:
        x, y = pair(dice, kinds, fill, number=0.4)
        return Call((y, x) if dice.chance(0.5) else (x, y))

    return draw


def function(kinds: str = "any", fill: Any = None, number: float = 0.25, **only: Draw) -> Draw:
    """``f(x, other)``; ``only`` draws what is given by keyword alone, rarely."""

    def draw(dice: Dice) -> Call:
        x, y = pair(dice, kinds, fill, number)
        more = {name: dice.maybe(value(dice), 0.1) for name, value in only.items()}
        return dice.call(x, other=y, only=more)

    return draw


def closeness(dice: Dice) -> Call:
    """Two tensors of one dtype that broadcast, with tolerances that tell some of them apart."""
    dtype, shapes = dice.dtype("float"), dice.broadcast(2)
    x, y = (dice.array(shape, dtype, whole) for shape in shapes)
    settings = {name: dice.maybe(dice.pick(0.0, 0.3, 1.0), 0.5) for name in ("rtol", "atol")} | {
        "equal_nan": dice.maybe(dice.chance(0.5), 0.3)
    }
    return dice.call(x, other=y, only=settings)


def inplace(kinds: str = "any", fill: Any = None, no_grad: float = 0.7) -> Draw:
    """``x ∘= y``: mostly without gradients, and where the result fits ``x``."""

    def draw(dice: Dice) -> Call:
        dtype = dice.dtype(kinds)
        shape = dice.shape()
        x = dice.array(shape, dtype, fill, grad=0.2)
        other = dtype if dice.chance(0.7) else dice.dtype("any")
        y = dice.array(dice.refit(dice.narrowed(shape)), other, fill, grad=0.1)
        given = dice.number() if dice.chance(0.3) else y
        return Call((x, given), no_grad=dice.chance(no_grad))

    return draw


def power(dice: Dice) -> tuple[Any, Any]:
    """A base and an exponent: numbers that have methods of their own among them."""
    shapes = dice.broadcast(2)
    dtype = dice.dtype()
    x = dice.array(shapes[0], dtype, dice.pick(None, positive, positive, whole))
    if dice.chance(0.5):
        return x, dice.pick(0, 1, 2, 3, -1, -2, 0.5, -0.5, 1.5, 2.0, 0.0, 3.0, True)
    other = dtype if dice.chance(0.7) else dice.dtype()
    return x, dice.array(shapes[1], other, dice.pick(normal, whole, whole))


def power_operator(dice: Dice) -> Call:
    x, y = power(dice)
    if dice.chance(0.3) and not isinstance(y, Array):
        return Call((dice.pick(0, 2, 3, 2.5, 0.0, -2, True), x))
    return Call((x, y))


def power_function(dice: Dice) -> Call:
    x, y = power(dice)
    return dice.call(x, exponent=y)


def power_inplace(dice: Dice) -> Call:
    x = dice.array(grad=0)
    return Call((x, dice.pick(0, 1, 2, 3, 0.5, -1, 2.5)), no_grad=dice.chance(0.7))


def one_inplace(dice: Dice) -> Call:
    return Call((dice.array(dtype=dice.dtype(), grad=0.2),), no_grad=dice.chance(0.7))


def within(draw: Draw) -> Draw:
    """What ``draw`` gives, for the op in place: mostly without gradients."""

    def inside(dice: Dice) -> Call:
        call = draw(dice)
        x, *rest = call.args
        x = replace(x, requires_grad=x.requires_grad and dice.chance(0.3))
        return replace(call, args=(x, *rest), no_grad=dice.chance(0.7))

    return inside


def lerp_(dice: Dice) -> Call:
    shape, dtype = dice.shape(), dice.dtype("float")
    other = dtype if dice.chance(0.9) else dice.dtype()
    end = dice.array(dice.refit(dice.narrowed(shape)), other, tame)
    weight = dice.pick(0, 1, 0.5, 0.25, -1, 2.0)
    x = dice.array(shape, dtype, tame, grad=0.1)
    return replace(dice.call(x, end=end, weight=weight), no_grad=dice.chance(0.8))


def where(dice: Dice) -> Call:
    shapes = dice.broadcast(3)
    kind = dice.pick("bool", "bool", "bool", "bool", "bool", "bool", "bool", "int64", "float32")
    condition = dice.array(shapes[0], kind, grad=0)
    x = dice.array(shapes[1], dice.dtype())
    y = dice.array(shapes[2], x.dtype if dice.chance(0.5) else dice.dtype())
    if dice.chance(0.06):
        return Call((condition,))
    return Call(
        (condition, x if dice.chance(0.8) else dice.number(), y)
        if dice.chance(0.8)
        else (condition, x, dice.number())
    )


def where_method(dice: Dice) -> Call:
    call = where(dice)
    condition, x, y = call.args if len(call.args) == 3 else (*call.args, 1.0, 2.0)
    x = x if isinstance(x, Array) else dice.array(condition.shape)
    return dice.call(x, condition=condition, other=y)


def bound(dice: Dice, shape: Any) -> Any:
    """A number, a tensor or nothing."""
    if dice.chance(0.2):
        return dice.pick(None, OMIT)
    if dice.chance(0.3):
        return dice.array(dice.refit(dice.narrowed(shape)), dice.dtype(), dice.pick(normal, whole))
    return dice.pick(-1, 0, 1, 2, -0.5, 0.5, 1.5, float("nan"), float("inf"))


def clamp(dice: Dice) -> Call:
    shape = dice.shape()
    x = dice.array(shape, dice.dtype(), dice.pick(None, whole))
    low, high = bound(dice, shape), bound(dice, shape)
    if isinstance(low, Array) != isinstance(high, Array):  # PyTorch takes neither or both
        high = dice.pick(OMIT, None) if dice.chance(0.8) or not isinstance(low, Array) else 1
    return dice.call(x, min=low, max=high)


def clamp_one(name: str) -> Draw:
    def draw(dice: Dice) -> Call:
        shape = dice.shape()
        x = dice.array(shape, dice.dtype(), dice.pick(None, whole))
        return dice.call(x, **{name: bound(dice, shape)})

    return draw


def masked_fill(dice: Dice) -> Call:
    shape = dice.shape()
    x = dice.array(shape, dice.dtype())
    kind = dice.pick("bool", "bool", "bool", "bool", "bool", "bool", "uint8", "float32")
    mask = dice.array(dice.refit(dice.narrowed(shape)), kind, grad=0)
    value = dice.number() if dice.chance(0.7) else dice.array(dice.pick((), (), (1,)), dice.dtype())
    return dice.call(x, mask=mask, value=value)


def rounded(dice: Dice) -> Call:
    fill = dice.pick(None, whole, lambda rng, shape: rng.integers(-6, 7, shape) / 2)
    x = dice.array(dtype=dice.dtype(), fill=fill)
    return dice.call(x, only={"decimals": dice.maybe(dice.pick(0, 1, 2, -1), 0.1)})


FUNCTIONS: dict[str, Draw] = {
    **dict.fromkeys(["abs", "sign", "neg", "square", "floor", "ceil", "trunc"], one()),
    **dict.fromkeys(["exp", "expm1", "sin", "cos", "tan", "atan", "sinh", "cosh"], one()),
    **dict.fromkeys(["tanh", "sigmoid", "relu", "erf", "isfinite", "reciprocal"], one()),
    **dict.fromkeys(["isnan", "isinf"], one(special)),
    **dict.fromkeys(["asin", "acos"], one(unit)),
    **dict.fromkeys(["log", "sqrt", "rsqrt"], one(positive)),
    "log1p": one(probability),
    "round": rounded,
}
IN_PLACE = (
    *("abs", "ceil", "cos", "exp", "floor", "log", "neg", "reciprocal", "relu", "round", "rsqrt"),
    *("sigmoid", "sin", "sqrt", "square", "tanh", "trunc"),
)
COMPARISONS = ["eq", "ne", "lt", "le", "gt", "ge"]
LONG = {
    "and": "bitwise_and",
    "div": "divide",
    "eq": "equal",
    "floordiv": "floor_divide",
    "ge": "greater_equal",
    "gt": "greater",
    "invert": "bitwise_not",
    "le": "less_equal",
    "lt": "less",
    "mod": "remainder",
    "mul": "multiply",
    "ne": "not_equal",
    "neg": "negative",
    "or": "bitwise_or",
    "sub": "subtract",
    "truediv": "div",
    "xor": "bitwise_xor",
}


def _said(name: str) -> tuple[str, ...]:
    """What an error may call an op: PyTorch's name of it and the longer one, which is NumPy's."""
    short = name.removeprefix("i").rstrip("_") if name not in LONG else name
    long = LONG.get(short, short)
    return short, long, LONG.get(long, long)


def _alpha(dice: Dice) -> Any:
    return dice.pick(2, -1, 0.5)


def _rounding(dice: Dice) -> Any:
    return dice.pick("floor", "trunc", None, "nearest")


OPS = [
    *(both(name, draw, says=_said(name)) for name, draw in FUNCTIONS.items()),
    *(
        at(f"Tensor.{name}_", one_inplace, says=_said(name), inplace=True)
        for name in FUNCTIONS
        if name in IN_PLACE
    ),
    at("torch.negative", one(), says=_said("neg")),
    at("operator.neg", one(), says=_said("neg")),
    at("operator.abs", one()),
    at("operator.invert", one(kinds="integer"), says=_said("invert")),
    *(at(f"operator.{n}", operator(), says=_said(n)) for n in ("add", "sub", "mul", "truediv")),
    *(at(f"operator.{n}", operator(fill=whole), says=_said(n)) for n in ("floordiv", "mod")),
    at("operator.pow", power_operator),
    *(at(f"operator.{n}", operator(fill=whole), says=_said(n)) for n in COMPARISONS),
    *(at(f"operator.{n}", operator("integer"), says=_said(n)) for n in ("and_", "or_", "xor")),
    *(
        at(f"operator.{n}", inplace(), says=_said(n), inplace=True)
        for n in ("iadd", "isub", "imul", "itruediv", "ifloordiv", "imod")
    ),
    at("operator.ipow", power_inplace, says=_said("ipow"), inplace=True),
    *(
        at(f"operator.{n}", inplace("integer"), says=_said(n), inplace=True)
        for n in ("iand", "ior", "ixor")
    ),
    *(
        at(f"Tensor.{n}_", inplace(), says=_said(n), inplace=True)
        for n in ("add", "sub", "mul", "div")
    ),
    both("add", function(alpha=_alpha)),
    both("sub", function(alpha=_alpha), "torch.subtract", says=_said("sub")),
    both("mul", function(), "torch.multiply", says=_said("mul")),
    both("div", function(rounding_mode=_rounding), "torch.divide", says=_said("div")),
    both("floor_divide", function(fill=whole)),
    both("remainder", function(fill=whole)),
    both("pow", power_function),
    both("maximum", function(fill=whole, number=0.05)),
    both("minimum", function(fill=whole, number=0.05)),
    *(both(name, function(fill=whole), says=_said(name)) for name in COMPARISONS),
    *(both(f"bitwise_{name}", function("integer")) for name in ("and", "or", "xor")),
    *(both(f"logical_{name}", function(fill=whole, number=0.05)) for name in ("and", "or", "xor")),
    both("logical_not", one(whole)),
    both("isclose", closeness),
    both("bitwise_not", one(kinds="integer")),
    at("torch.where", where),
    at("Tensor.where", where_method),
    *(
        at(f"Tensor.{name}_", inplace("integer"), inplace=True)
        for name in ("bitwise_and", "bitwise_or", "bitwise_xor")
    ),
    *(at(f"Tensor.{n}_", inplace(fill=whole), inplace=True) for n in ("floor_divide", "remainder")),
    at("Tensor.pow_", power_inplace, inplace=True),
    at("Tensor.clamp_", within(clamp), inplace=True),
    at("Tensor.clamp_min_", within(clamp_one("min")), inplace=True),
    at("Tensor.clamp_max_", within(clamp_one("max")), inplace=True),
    at("Tensor.masked_fill_", within(masked_fill), inplace=True),
    at("Tensor.lerp_", lerp_, inplace=True),
    both("clamp", clamp),
    both("clamp_min", clamp_one("min"), says=("clamp",)),
    both("clamp_max", clamp_one("max"), says=("clamp",)),
    both("masked_fill", masked_fill),
    Op("wide values", tuple(f"torch.{n}" for n in ("exp", "sigmoid", "tanh", "erf")), one(wide)),
]
