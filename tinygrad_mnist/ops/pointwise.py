"""Ops on each element, with broadcasting."""

from __future__ import annotations

import math
from typing import Any

from tinygrad_mnist.autograd.graph import Value
from tinygrad_mnist.autograd.record import Op, define, record
from tinygrad_mnist.checks import fit
from tinygrad_mnist.ops.table import (
    binary,
    operand,
    operands,
    reflected,
    rounding,
    scalar,
    unary,
    zeros_like,
)
from tinygrad_mnist.special import GELU_TANH

# ---- choice

_WHERE = define(
    "where",
    x=lambda dZ, condition: where(condition, dZ, 0.0),
    y=lambda dZ, condition: where(condition, 0.0, dZ),
)
clamped = define(
    "clamp",
    x=lambda dY, x, min, max: where(_inside(x, min, max), dY, 0.0),
    min=lambda dY, x, min, max: where(_at_min(x, min, max), dY, 0.0),
    max=lambda dY, x, min, max: where(_at_max(x, min, max), dY, 0.0),
)


def where(condition: Any, x: Any, y: Any) -> Any:
    """``x`` where the boolean ``condition`` holds, else ``y``; the three are broadcast.

    ``x`` or ``y`` may be numbers. TypeError for a condition that is not boolean.
    """
    fit("where", "condition bool (…)", condition)
    if not isinstance(x, Value) and not isinstance(y, Value):
        y = operand("where", condition, y)
        y = y if isinstance(y, Value) else scalar(condition, y)
    if not (isinstance(x, Value) and isinstance(y, Value) and x.array.dtype is y.array.dtype):
        x, y = operands("where", x, y)
    return record(_WHERE, (condition, x, y))


def _larger_share(dZ: Any, x: Any, y: Any) -> Any:
    """All of dZ where x > y or either is NaN, half where they are equal."""
    return where(x == y, dZ * 0.5, where(x < y, 0.0, dZ))


def _inside(x: Any, min: Any, max: Any) -> Any:
    """Where neither bound is met or passed: a bound itself lies inside."""
    if min is None:
        return x <= max
    return x >= min if max is None else (x >= min) & (x <= max)


def _at_min(x: Any, min: Any, max: Any) -> Any:
    return x < min if max is None else (x < min) & (min < max)


def _at_max(x: Any, min: Any, max: Any) -> Any:
    return x > max if min is None else (x > max) | (max < min)


# ---- powers

_POW = binary(
    "pow",
    "x to the power y.",
    x=lambda dZ, x, y: dZ * y * pow(_base(x, y), y - 1),
    y=lambda dZ, out, x, y: dZ * out * _log_base(x, y),
    kinds="iuf",
)


def pow(x: Any, exponent: Any) -> Any:
    """x to the power ``exponent``; squares and square roots by number are computed as such.

    ValueError for integers to a negative integer power, TypeError for booleans to booleans.
    """
    if isinstance(x, Value) and isinstance(exponent, int | float):
        base: Any = x
        kind = x.array.dtype.kind
        if exponent == 2 and (kind == "f" or (kind != "b" and isinstance(exponent, int))):
            return base.square()
        if exponent == 0.5:
            return base.sqrt()
        if exponent < 0 and kind in "iu" and isinstance(exponent, int):
            raise ValueError(
                f"pow: an integer to the negative power {exponent} is no integer; "
                f"use x.to(float) ** {exponent}"
            )
    return _POW(x, exponent)


def _base(x: Any, y: Any) -> Any:
    """x, but 1 where x and y are both 0, so that the slope of x⁰ at 0 is 0 and not 0 · ∞."""
    none = y == 0
    if isinstance(none, Value):
        return where(none, where(x == 0, 1.0, x), x)
    return where(x == 0, 1.0, x) if none else x


def _log_base(x: Any, y: Any) -> Any:
    """log x, but 0 where x is 0 and y is not negative: there xʸ stays as it is while y moves."""
    none = x == 0
    if isinstance(none, Value):
        return where(none & (y >= 0), 1.0, x).log()
    return where(y >= 0, 0.0, -math.inf) if none else math.log(x) if x > 0 else math.nan


# ---- activations' fused gradients; the kernels say what they are

relu_grad: Op = define("relu_grad", dY=lambda dZ, y: relu_grad(dZ, y))
sigmoid_grad: Op = define(
    "sigmoid_grad",
    dY=lambda dZ, y: sigmoid_grad(dZ, y),
    y=lambda dZ, dY, y: dZ * dY * (1 - 2 * y),
)
tanh_grad: Op = define(
    "tanh_grad",
    dY=lambda dZ, y: tanh_grad(dZ, y),
    y=lambda dZ, dY, y: dZ * dY * (-2 * y),
)
gelu: Op = define("gelu", x=lambda dY, x, approximate: gelu_grad(dY, x, approximate=approximate))
gelu_grad: Op = define(
    "gelu_grad",
    dY=lambda dZ, x, approximate: gelu_grad(dZ, x, approximate=approximate),
    x=lambda dZ, dY, x, approximate: dZ * dY * _gelu_curve(x, approximate),
)


def _gelu_curve(x: Any, approximate: str) -> Any:
    """gelu's second derivative: φ(x)·(2 − x²), or that of x·(1 + tanh u)/2 with u = a·x + b·x³."""
    square = x.square()
    if approximate == "none":
        return (square * -0.5).exp() * (2 - square) * (1 / math.sqrt(2 * math.pi))
    a, b = GELU_TANH
    wave = (x * (a + b * square)).tanh()
    slope = a + 3 * b * square
    return tanh_grad(slope + 3 * b * square - x * wave * slope.square(), wave)


class Pointwise(Value):
    """What a tensor does with each of its elements."""

    __slots__ = ()

    # ---- arithmetic

    add = binary("add", "x + y.", x=lambda dZ: dZ, y=lambda dZ: dZ)
    sub = binary("subtract", "x − y, not of booleans.", lambda dZ: dZ, lambda dZ: -dZ, kinds="iuf")
    mul = binary("multiply", "x · y.", x=lambda dZ, y: dZ * y, y=lambda dZ, x: dZ * x)
    div = binary(
        "divide",
        "x / y; integers are divided as float32.",
        x=lambda dZ, y: dZ / y,
        y=lambda dZ, out, y: -(dZ * out / y),
        kinds="f",
    )
    floor_divide = binary(
        "floor_divide", "⌊x / y⌋; the slope is 0.", zeros_like, zeros_like, kinds="iuf"
    )
    remainder = binary(
        "remainder",
        "x − y·⌊x / y⌋, of the sign of y.",
        x=lambda dZ: dZ,
        y=lambda dZ, x, y: -(dZ * (x // y)),
        kinds="iuf",
    )
    maximum = binary(
        "maximum",
        "The larger of x and y, NaN where either is; of equals each gets half of the gradient.",
        x=lambda dZ, x, y: _larger_share(dZ, x, y),
        y=lambda dZ, x, y: _larger_share(dZ, y, x),
    )
    minimum = binary(
        "minimum",
        "The smaller of x and y, NaN where either is; of equals each gets half of the gradient.",
        x=lambda dZ, x, y: _larger_share(dZ, -x, -y),
        y=lambda dZ, x, y: _larger_share(dZ, -y, -x),
    )
    pow = pow
    __add__, __radd__ = add, reflected(add)
    __sub__, __rsub__ = sub, reflected(sub)
    __mul__, __rmul__ = mul, reflected(mul)
    __truediv__, __rtruediv__ = div, reflected(div)
    __floordiv__, __rfloordiv__ = floor_divide, reflected(floor_divide)
    __mod__, __rmod__ = remainder, reflected(remainder)
    __pow__, __rpow__ = pow, reflected(pow)

    # ---- comparisons: boolean, without gradients

    eq = binary("equal", "x == y.")
    ne = binary("not_equal", "x != y.")
    lt = binary("less", "x < y.")
    le = binary("less_equal", "x <= y.")
    gt = binary("greater", "x > y.")
    ge = binary("greater_equal", "x >= y.")
    __lt__, __le__, __gt__, __ge__ = lt, le, gt, ge

    # ---- bits of integers, logic of booleans

    bitwise_and = binary("bitwise_and", "x & y of integers or booleans.", kinds="biu")
    bitwise_or = binary("bitwise_or", "x | y of integers or booleans.", kinds="biu")
    bitwise_xor = binary("bitwise_xor", "x ^ y of integers or booleans.", kinds="biu")
    bitwise_not = unary("bitwise_invert", "~x of integers or booleans.", kinds="biu")
    __and__, __rand__ = bitwise_and, reflected(bitwise_and)
    __or__, __ror__ = bitwise_or, reflected(bitwise_or)
    __xor__, __rxor__ = bitwise_xor, reflected(bitwise_xor)
    __invert__ = bitwise_not

    # ---- functions of one tensor

    neg = unary("negative", "−x.", lambda dY: -dY, kinds="iuf")
    sign = unary("sign", "−1, 0 or 1.", zeros_like, kinds="iuf")
    abs = unary("abs", "|x|; its slope at 0 is 0.", lambda dY, x: dY * x.sign(), kinds="iuf")
    square = unary("square", "x².", lambda dY, x: dY * (2 * x), kinds="iuf")
    exp = unary("exp", "eˣ.", lambda dY, out: dY * out)
    expm1 = unary("expm1", "eˣ − 1, exact near 0.", lambda dY, out: dY * (out + 1))
    log = unary("log", "The natural logarithm.", lambda dY, x: dY / x)
    log1p = unary("log1p", "log(1 + x), exact near 0.", lambda dY, x: dY / (x + 1))
    sqrt = unary("sqrt", "√x.", lambda dY, out: dY / (2 * out))
    sin = unary("sin", "The sine of x in radians.", lambda dY, x: dY * x.cos())
    cos = unary("cos", "The cosine of x in radians.", lambda dY, x: -(dY * x.sin()))
    tan = unary("tan", "The tangent of x in radians.", lambda dY, out: dY * (1 + out * out))
    asin = unary("asin", "The arc sine in radians.", lambda dY, x: dY / (1 - x * x).sqrt())
    acos = unary("acos", "The arc cosine in radians.", lambda dY, x: -(dY / (1 - x * x).sqrt()))
    atan = unary("atan", "The arc tangent in radians.", lambda dY, x: dY / (1 + x * x))
    sinh = unary("sinh", "The hyperbolic sine.", lambda dY, x: dY * x.cosh())
    cosh = unary("cosh", "The hyperbolic cosine.", lambda dY, x: dY * x.sinh())
    tanh = unary("tanh", "The hyperbolic tangent.", lambda dY, out: tanh_grad(dY, out))
    erf = unary(
        "erf",
        "The error function, 2/√π · ∫ e^(−t²) dt from 0 to x.",
        lambda dY, x: dY * (-(x * x)).exp() * (2 / math.sqrt(math.pi)),
    )
    sigmoid = unary("sigmoid", "1 / (1 + e⁻ˣ).", lambda dY, out: sigmoid_grad(dY, out))
    relu = unary(
        "relu",
        "max(x, 0); its slope at 0 is 0. NaN stays NaN.",
        lambda dY, out: relu_grad(dY, out),
        kinds="iuf",
    )
    floor = rounding("floor", "⌊x⌋.")
    ceil = rounding("ceil", "⌈x⌉.")
    trunc = rounding("trunc", "x without its fraction.")
    round = rounding("round", "The nearest integer, of two the even one.")
    isnan = unary("isnan", "Whether x is NaN.", kinds="biuf")
    isinf = unary("isinf", "Whether x is ∞ or −∞.", kinds="biuf")
    isfinite = unary("isfinite", "Whether x is neither NaN nor infinite.", kinds="biuf")
    __neg__, __abs__ = neg, abs
