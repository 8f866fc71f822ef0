"""Ops on each element, with broadcasting."""

from __future__ import annotations

import math
from typing import Any

from tinygrad_mnist.autograd import Value, define, record
from tinygrad_mnist.ops.table import BOOL, T, binary, operands, scalar, unary

# ---- arithmetic

add = binary(
    "add",
    "x + y.",
    x=lambda dZ: dZ,
    y=lambda dZ: dZ,
)
subtract = binary(
    "subtract",
    "x − y.",
    x=lambda dZ: dZ,
    y=lambda dZ: -dZ,
)
multiply = binary(
    "multiply",
    "x · y.",
    x=lambda dZ, y: dZ * y,
    y=lambda dZ, x: dZ * x,
)
divide = binary(
    "divide",
    "x / y; integers are divided as float32.",
    x=lambda dZ, y: dZ / y,
    y=lambda dZ, out, y: -(dZ * out / y),
    floats=True,
)
_pow = binary(
    "pow",
    "x to the power y.",
    x=lambda dZ, x, y: dZ * y * pow(_base(x, y), y - 1),
    y=lambda dZ, out, x: dZ * out * _log_base(x),
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


def pow(x: Any, y: Any) -> Any:
    """x to the power y; squares and square roots by number are computed as such."""
    if isinstance(x, Value) and isinstance(y, int | float):
        if y == 2 and (x.array.dtype.kind == "f" or isinstance(y, int)):
            return square(x)
        if y == 0.5:
            return sqrt(x)
        if y < 0 and x.array.dtype.kind in "iu" and isinstance(y, int):
            raise ValueError(
                f"pow: an integer to the negative power {y} is no integer; use x.to(float) ** {y}"
            )
    return _pow(x, y)


def _base(x: Any, y: Any) -> Any:
    """x, but 1 where x and y are both 0, so that the slope of x⁰ at 0 is 0 and not 0 · ∞."""
    if isinstance(y, Value):
        return where(equal(y, 0), where(x == 0, 1.0, x), x)
    return x if y else where(x == 0, 1.0, x)


def _log_base(x: Any) -> Any:
    """log x, but 0 where x is 0: there xʸ stays 0 as y moves."""
    if isinstance(x, Value):
        return log(where(equal(x, 0), 1.0, x))
    return math.log(x) if x > 0 else 0.0 if x == 0 else math.nan


def _larger_share(dZ: Any, x: Any, y: Any) -> Any:
    return dZ * where(x == y, 0.5, where(x > y, 1.0, 0.0))


# ---- comparisons: boolean, without gradients

equal = binary("equal", "x == y.")
not_equal = binary("not_equal", "x != y.")
less = binary("less", "x < y.")
less_equal = binary("less_equal", "x <= y.")
greater = binary("greater", "x > y.")
greater_equal = binary("greater_equal", "x >= y.")


# ---- functions of one tensor

negative = unary("negative", "−x.", lambda dY: -dY, floats=False)
sign = unary("sign", "−1, 0 or 1.", floats=False)
abs = unary("abs", "|x|; its slope at 0 is 0.", lambda dY, x: dY * sign(x), floats=False)
square = unary("square", "x².", lambda dY, x: dY * (2 * x), floats=False)
exp = unary("exp", "eˣ.", lambda dY, out: dY * out)
log = unary("log", "The natural logarithm.", lambda dY, x: dY / x)
sqrt = unary("sqrt", "√x.", lambda dY, out: dY / (2 * out))
sin = unary("sin", "The sine of x in radians.", lambda dY, x: _sin_grad(dY, x))
cos = unary("cos", "The cosine of x in radians.", lambda dY, x: -(dY * sin(x)))
tanh = unary("tanh", "The hyperbolic tangent.", lambda dY, out: dY * (1 - out * out))


def _sin_grad(dY: Any, x: Any) -> Any:
    return dY * cos(x)


# ---- activations and their fused gradients

_RELU_GRAD = define("relu_grad", {"dY": lambda dZ, y: relu_grad(dZ, y)})
_SIGMOID_GRAD = define(
    "sigmoid_grad",
    {
        "dY": lambda dZ, y: sigmoid_grad(dZ, y),
        "y": lambda dZ, dY, y: dZ * dY * (1 - 2 * y),
    },
)


def relu_grad(dY: T, y: T) -> T:
    """dY where y = relu(x) is positive or NaN, else 0."""
    return record(_RELU_GRAD, (dY, y))


def sigmoid_grad(dY: T, y: T) -> T:
    """dY · y · (1 − y) with y = sigmoid(x)."""
    return record(_SIGMOID_GRAD, (dY, y))


relu = unary(
    "relu",
    "max(x, 0); its slope at 0 is 0. NaN stays NaN.",
    lambda dY, out: relu_grad(dY, out),
    floats=False,
)
sigmoid = unary("sigmoid", "1 / (1 + e⁻ˣ).", lambda dY, out: sigmoid_grad(dY, out))


# ---- choice

_WHERE = define(
    "where",
    {
        "x": lambda dZ, condition: where(condition, dZ, 0.0),
        "y": lambda dZ, condition: where(condition, 0.0, dZ),
    },
)


def where(condition: Value, x: Any, y: Any) -> Any:
    """``x`` where the boolean ``condition`` holds, else ``y``; the three are broadcast.

    ``x`` or ``y`` may be numbers. TypeError for a condition that is not boolean.
    """
    if not isinstance(condition, Value) or condition.array.dtype != BOOL:
        found = condition.array.dtype if isinstance(condition, Value) else type(condition).__name__
        raise TypeError(f"where: the condition must be a boolean tensor, got {found}")
    if not isinstance(x, Value) and not isinstance(y, Value):
        y = scalar(condition, y)
    if not (isinstance(x, Value) and isinstance(y, Value) and x.array.dtype is y.array.dtype):
        x, y = operands("where", x, y)
    return record(_WHERE, (condition, x, y))
