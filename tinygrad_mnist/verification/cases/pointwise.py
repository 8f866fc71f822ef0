"""Rows of ``ops.pointwise`` and of what is composed of it."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from tinygrad_mnist.ops import pointwise, table
from tinygrad_mnist.tensor import Tensor
from tinygrad_mnist.verification.cases.draws import (
    COARSE,
    POSITIVE,
    TIES,
    Case,
    Draw,
    Fill,
    Rng,
    Row,
    Shape,
    alike,
    between,
    case,
    coin,
    gaps,
    halves,
    integral,
    normal,
    off_zero,
    one,
    tied,
    turned,
    two,
    whole,
)


def eighths(rng: Rng, shape: Shape) -> np.ndarray:
    """Odd multiples of ⅛: no multiples of ``powers_of_two``, and not halfway between integers."""
    return np.asarray((2 * rng.integers(-20, 20, shape) + 1) / 8)


def powers_of_two(rng: Rng, shape: Shape) -> np.ndarray:
    return np.asarray(rng.choice([-2.0, -1.0, -0.5, 0.5, 1.0, 2.0], shape))


def signed(rng: Rng, shape: Shape) -> np.ndarray:
    return np.asarray(rng.integers(-9, 10, shape))


def signed_off_zero(rng: Rng, shape: Shape) -> np.ndarray:
    return np.asarray(rng.choice([-4, -3, -2, -1, 1, 2, 3, 5], shape))


def special(rng: Rng, shape: Shape) -> np.ndarray:
    """Finite, infinite and undefined numbers."""
    return np.asarray(rng.choice([0.0, 1.5, -2.5, np.inf, -np.inf, np.nan], shape))


def two_whole(x: Fill, y: Fill | None = None) -> Draw:
    """Two arrays of integers or booleans as ``two`` has them, and an array with an integer."""
    second = y or x
    return lambda rng: [
        *two(x, second, numbers=False)(rng),
        case(x(rng, (3, 4)), int(second(rng, ()))),
        case(int(x(rng, ())), gaps(second(rng, (3, 4)))),
    ]


def bits(x: Fill, y: Fill) -> Draw:
    return two(x, y, numbers=False)


def near(rng: Rng, shape: Shape) -> np.ndarray:
    """Numbers that lie within the usual tolerances of each other, and just outside."""
    return np.asarray(rng.choice([0.0, 5e-9, 2e-8, 1.0, 1 + 5e-6, 1 + 2e-5, -1.0], shape))


def tiny(rng: Rng, shape: Shape) -> np.ndarray:
    return np.asarray(normal(rng, shape) * 1e-7)


def clamped(fill: Fill) -> Draw:
    """An array and its bounds: numbers, arrays, one of them None, and the wrong way round."""
    return lambda rng: [
        case(fill(rng, ()), -0.5, 0.5),
        case(fill(rng, (0, 3)), 0, None),
        case(fill(rng, (3, 4)), None, 0.5),
        case(fill(rng, (3, 4)), 0.5, -0.5),
        case(fill(rng, (3, 4)), fill(rng, (4,)), fill(rng, (3, 1))),
        case(fill(rng, (3, 1)), fill(rng, (2, 1, 4)), None),
        case(fill(rng, ()), None, fill(rng, (3, 4))),
        case(turned(fill(rng, (3, 4))), gaps(fill(rng, (3, 4))), 1),
        case(fill(rng, (257, 401)), -1.0, fill(rng, (401,)), smooth=False),
    ]


def whole_clamped(rng: Rng) -> list[Case]:
    return [
        case(signed(rng, ()), -2, 3),
        case(signed(rng, (0, 3)), 0, None),
        case(signed(rng, (3, 4)), None, 2),
        case(signed(rng, (3, 4)), signed(rng, (4,)), signed(rng, (3, 1))),
        case(gaps(signed(rng, (3, 4))), turned(signed(rng, (3, 4))), None),
        case(signed(rng, (3, 4)), 3, -2),
    ]


def bounded(rng: Rng) -> list[Case]:
    """An array and one bound."""
    return [case(*c.inputs, smooth=c.smooth) for c in two(normal)(rng)[:-1]]  # not a number first


def masked(rng: Rng) -> list[Case]:
    """An array, a mask and the number or 0-d array that fills it."""
    shapes: list[tuple[Shape, Shape]] = [
        ((), ()),
        ((0, 3), (3,)),
        ((3, 4), (3, 4)),
        ((3, 4), (3, 1)),
        ((4,), (3, 1)),
        ((), (3, 4)),
    ]
    cases = [case(normal(rng, x), coin(rng, m), normal(rng, ())) for x, m in shapes]
    return [
        *cases,
        case(gaps(normal(rng, (3, 4))), turned(coin(rng, (3, 4))), -7.5),
        case(turned(normal(rng, (3, 4))), gaps(coin(rng, (3, 4))), 2),
        case(normal(rng, (257, 401)), coin(rng, (401,)), 0.5, smooth=False),
    ]


def whole_masked(rng: Rng) -> list[Case]:
    """What is filled keeps its dtype, whatever fills it."""
    return [
        case(signed(rng, ()), coin(rng, ()), 7),
        case(signed(rng, (0, 3)), coin(rng, (3,)), 7),
        case(signed(rng, (3, 4)), coin(rng, (3, 1)), -1.75),
        case(gaps(whole(9, np.uint8)(rng, (3, 4))), coin(rng, (3, 4)), 255.0),
        case(coin(rng, (3, 4)), coin(rng, (4,)), 2),
        case(signed(rng, (4,)), turned(coin(rng, (3, 4))), signed(rng, ())),
    ]


def choosing(rng: Rng) -> list[Case]:
    """``chosen``, with the condition in the middle."""
    return [
        case(x, c, y)
        for c, x, y in (found.inputs for found in chosen(rng))
        if isinstance(x, np.ndarray)
    ]


def sigmoids(rng: Rng, shape: Shape) -> np.ndarray:
    return np.asarray(sigmoid_of(normal(rng, shape)))


def waves(rng: Rng, shape: Shape) -> np.ndarray:
    return np.asarray(np.tanh(normal(rng, shape)))


def relus(rng: Rng, shape: Shape) -> np.ndarray:
    return relu_of(normal(rng, shape))


def powers(rng: Rng) -> list[Case]:
    """An array and a number, either way round."""
    return [
        case(off_zero(rng, (3, 4)), 3),
        case(off_zero(rng, (3, 4)), -1),
        case(off_zero(rng, ()), 3.0),
        case(off_zero(rng, (0, 2)), -2),
        case(gaps(between(0.3, 3)(rng, (5,))), 1.5),
        case(2.0, normal(rng, (3, 4))),
        case(3, normal(rng, ())),
    ]


def chosen(rng: Rng) -> list[Case]:
    """A condition and two choices."""
    shapes = [
        ((), (), ()),
        ((0, 3), (0, 3), (3,)),
        ((3, 4), (3, 4), (3, 4)),
        ((3, 1), (4,), ()),
        ((4,), (3, 1), (3, 4)),
    ]
    cases = [case(coin(rng, c), normal(rng, x), normal(rng, y)) for c, x, y in shapes]
    return [
        *cases,
        case(gaps(coin(rng, (3, 4))), turned(normal(rng, (3, 4))), normal(rng, (4,))),
        case(coin(rng, (3, 4)), normal(rng, (3, 4)), 0.5),
        case(coin(rng, (3, 4)), -1.5, normal(rng, (3, 4))),
    ]


def there_and_back(x: Any) -> Any:
    """float64 → float32 → float64, so that both directions are differentiated."""
    return table.cast(table.cast(x, np.dtype(np.float32)), np.dtype(np.float64))


def to_int(x: Any) -> Any:
    return table.cast(x, np.dtype(np.int64))


def to_bool(x: Any) -> Any:
    return table.cast(x, np.dtype(np.bool_))


def clamp_of(x: np.ndarray, low: Any, high: Any) -> np.ndarray:
    x = x if low is None else np.maximum(x, low)
    return x if high is None else np.minimum(x, high)


def masked_fill_of(x: np.ndarray, mask: np.ndarray, value: Any) -> np.ndarray:
    return np.where(mask, np.asarray(value).astype(x.dtype), x)


def quotient_of(x: Any, y: Any) -> np.ndarray:
    found = np.floor(np.divide(x, y))
    return found if np.result_type(x, y).kind == "f" else found.astype(np.int64)


def remainder_of(x: Any, y: Any) -> np.ndarray:
    return np.asarray(x - y * quotient_of(x, y))


def ratio_of(x: Any, y: Any) -> np.ndarray:
    return np.divide(x, y).astype(np.float32)


def even_of(x: np.ndarray) -> np.ndarray:
    """Numbers halfway between integers, to the even one of these."""
    return np.where(np.isnan(x), x, 2 * np.floor((x + 0.5) / 2))


erf_of = np.vectorize(math.erf, otypes=[np.float64])


def sigmoid_of(x: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-x))


def relu_of(x: np.ndarray) -> np.ndarray:
    return np.where(x < 0, 0.0, x)


def relu_grad_of(dY: np.ndarray, y: np.ndarray) -> np.ndarray:
    return np.where(y <= 0, 0.0, dY)


def rounded(x: np.ndarray) -> np.ndarray:
    return x.astype(np.float32).astype(np.float64)


JUMPS = "where x / y is an integer"


ROWS = [
    # arithmetic
    Row("add", Tensor.add, ("add",), two(normal), np.add),
    Row("subtract", Tensor.sub, ("subtract",), two(normal), np.subtract),
    Row("multiply", Tensor.mul, ("multiply",), two(normal), np.multiply),
    Row("divide", Tensor.div, ("divide",), two(normal, off_zero), np.divide),
    Row(
        "floor_divide",
        Tensor.floor_divide,
        ("floor_divide",),
        two(eighths, powers_of_two),
        quotient_of,
        kinks=JUMPS,
    ),
    Row(
        "remainder",
        Tensor.remainder,
        ("remainder",),
        two(eighths, powers_of_two),
        remainder_of,
        kinks=JUMPS,
    ),
    Row("pow", Tensor.pow, ("pow",), two(POSITIVE, between(-2, 3)), np.power),
    Row("pow:number", Tensor.pow, ("pow",), powers, np.power),
    Row("pow:square", lambda x: Tensor.pow(x, 2), ("square",), one(normal), np.square),
    Row("pow:root", lambda x: Tensor.pow(x, 0.5), ("sqrt",), one(POSITIVE), np.sqrt),
    Row("maximum", Tensor.maximum, ("maximum",), two(integral, halves), np.maximum, kinks=TIES),
    Row("maximum:ties", Tensor.maximum, ("maximum",), two(tied), np.maximum, ()),
    Row("minimum", Tensor.minimum, ("minimum",), two(integral, halves), np.minimum, kinks=TIES),
    Row("minimum:ties", Tensor.minimum, ("minimum",), two(tied), np.minimum, ()),
    # arithmetic of integers
    Row("add:int", Tensor.add, ("add",), two_whole(signed), np.add, ()),
    Row("subtract:int", Tensor.sub, ("subtract",), two_whole(signed), np.subtract, ()),
    Row("multiply:int", Tensor.mul, ("multiply",), two_whole(signed), np.multiply, ()),
    Row("divide:int", Tensor.div, ("divide",), two_whole(signed, signed_off_zero), ratio_of, ()),
    Row(
        "floor_divide:int",
        Tensor.floor_divide,
        ("floor_divide",),
        two_whole(signed, signed_off_zero),
        quotient_of,
        (),
    ),
    Row(
        "remainder:int",
        Tensor.remainder,
        ("remainder",),
        two_whole(signed, signed_off_zero),
        remainder_of,
        (),
    ),
    Row("pow:int", Tensor.pow, ("pow",), two_whole(signed, whole(4)), np.power, ()),
    Row("maximum:int", Tensor.maximum, ("maximum",), two_whole(signed), np.maximum, ()),
    Row("minimum:int", Tensor.minimum, ("minimum",), two_whole(signed), np.minimum, ()),
    Row("negative:int", Tensor.neg, ("negative",), one(signed), np.negative, ()),
    Row("abs:int", Tensor.abs, ("abs",), one(signed), np.abs, ()),
    Row("sign:int", Tensor.sign, ("sign",), one(signed), np.sign, ()),
    Row("square:int", Tensor.square, ("square",), one(signed), np.square, ()),
    Row("relu:int", Tensor.relu, ("relu",), one(signed), lambda x: np.where(x < 0, 0, x), ()),
    # bits and logic
    Row("bitwise_and", Tensor.bitwise_and, ("bitwise_and",), two_whole(signed), np.bitwise_and, ()),
    Row("bitwise_or", Tensor.bitwise_or, ("bitwise_or",), two_whole(signed), np.bitwise_or, ()),
    Row("bitwise_xor", Tensor.bitwise_xor, ("bitwise_xor",), two_whole(signed), np.bitwise_xor, ()),
    Row("bitwise_invert", Tensor.bitwise_not, ("bitwise_invert",), one(signed), np.invert, ()),
    Row("bitwise_and:bool", Tensor.bitwise_and, (), two(coin, numbers=False), np.logical_and, ()),
    Row("bitwise_or:bool", Tensor.bitwise_or, (), two(coin, numbers=False), np.logical_or, ()),
    Row("bitwise_xor:bool", Tensor.bitwise_xor, (), two(coin, numbers=False), np.not_equal, ()),
    Row("bitwise_invert:bool", Tensor.bitwise_not, (), one(coin), np.logical_not, ()),
    Row("logical_not", Tensor.logical_not, ("equal",), one(tied), np.logical_not, ()),
    Row("logical_not:bool", Tensor.logical_not, (), one(coin), np.logical_not, ()),
    Row("logical_and", Tensor.logical_and, ("not_equal",), bits(tied, coin), np.logical_and, ()),
    Row("logical_or", Tensor.logical_or, ("not_equal",), bits(signed, tied), np.logical_or, ()),
    Row("logical_xor", Tensor.logical_xor, ("not_equal",), bits(coin, signed), np.logical_xor, ()),
    # comparisons
    Row("isclose", Tensor.isclose, (), bits(near, near), np.isclose, ()),
    Row("isclose:int", Tensor.isclose, (), bits(signed, near), np.isclose, ()),
    Row("isclose:special", Tensor.isclose, (), bits(special, special), np.isclose, ()),
    Row("equal", Tensor.eq, ("equal",), two(tied), np.equal, ()),
    Row("not_equal", Tensor.ne, ("not_equal",), two(tied), np.not_equal, ()),
    Row("less", Tensor.lt, ("less",), two(tied), np.less, ()),
    Row("less_equal", Tensor.le, ("less_equal",), two(tied), np.less_equal, ()),
    Row("greater", Tensor.gt, ("greater",), two(tied), np.greater, ()),
    Row("greater_equal", Tensor.ge, ("greater_equal",), two(tied), np.greater_equal, ()),
    Row("equal:int", Tensor.eq, ("equal",), two_whole(signed), np.equal, ()),
    Row("not_equal:bool", Tensor.ne, ("not_equal",), two(coin, numbers=False), np.not_equal, ()),
    Row("less:int", Tensor.lt, ("less",), two_whole(signed), np.less, ()),
    Row("less_equal:int", Tensor.le, ("less_equal",), two_whole(signed), np.less_equal, ()),
    Row("greater:bool", Tensor.gt, ("greater",), two(coin, numbers=False), np.greater, ()),
    Row(
        "greater_equal:mixed", Tensor.ge, (), two(coin, signed, numbers=False), np.greater_equal, ()
    ),
    # functions of one tensor
    Row("negative", Tensor.neg, ("negative",), one(normal), np.negative),
    Row("abs", Tensor.abs, ("abs",), one(off_zero), np.abs, kinks="at 0"),
    Row("sign", Tensor.sign, ("sign",), one(off_zero), np.sign, kinks="at 0"),
    Row("sign:zeros", Tensor.sign, ("sign",), one(tied), np.sign, ()),
    Row("square", Tensor.square, ("square",), one(normal), np.square),
    Row("exp", Tensor.exp, ("exp",), one(normal), np.exp),
    Row("expm1", Tensor.expm1, ("expm1",), one(normal), np.expm1),
    Row("expm1:near", Tensor.expm1, ("expm1",), one(tiny), lambda x: x + x * x / 2, rtol=1e-18),
    Row("log", Tensor.log, ("log",), one(POSITIVE), np.log),
    Row("log1p", Tensor.log1p, ("log1p",), one(between(-0.8, 3)), np.log1p),
    Row("log1p:near", Tensor.log1p, ("log1p",), one(tiny), lambda x: x - x * x / 2, rtol=1e-18),
    Row("sqrt", Tensor.sqrt, ("sqrt",), one(POSITIVE), np.sqrt),
    Row("sin", Tensor.sin, ("sin",), one(normal), np.sin),
    Row("cos", Tensor.cos, ("cos",), one(normal), np.cos),
    Row("tan", Tensor.tan, ("tan",), one(between(-1.2, 1.2)), np.tan),
    Row("asin", Tensor.asin, ("asin",), one(between(-0.9, 0.9)), np.arcsin),
    Row("acos", Tensor.acos, ("acos",), one(between(-0.9, 0.9)), np.arccos),
    Row("atan", Tensor.atan, ("atan",), one(normal), np.arctan),
    Row("sinh", Tensor.sinh, ("sinh",), one(normal), np.sinh),
    Row("cosh", Tensor.cosh, ("cosh",), one(normal), np.cosh),
    Row("tanh", Tensor.tanh, ("tanh",), one(normal), np.tanh),
    Row("tanh:near", Tensor.tanh, ("tanh",), one(tiny), lambda x: x - x**3 / 3, rtol=1e-18),
    Row("tanh:far", Tensor.tanh, ("tanh",), one(between(-700, 700)), np.tanh, ()),
    Row("erf", Tensor.erf, ("erf",), one(between(-3, 3)), erf_of, rtol=1e-15),
    Row("erf:far", Tensor.erf, ("erf",), one(between(-30, 30)), erf_of, (), rtol=1e-15),
    Row("reciprocal", Tensor.reciprocal, ("divide",), one(off_zero), lambda x: x**-1),
    Row("rsqrt", Tensor.rsqrt, ("sqrt",), one(POSITIVE), lambda x: x**-0.5),
    # steps
    Row("floor", Tensor.floor, ("floor",), one(eighths), np.floor, kinks="at integers"),
    Row("ceil", Tensor.ceil, ("ceil",), one(eighths), np.ceil, kinks="at integers"),
    Row("trunc", Tensor.trunc, ("trunc",), one(eighths), np.trunc, kinks="at integers"),
    Row("round", Tensor.round, ("round",), one(eighths), np.rint, kinks="halfway between integers"),
    Row("round:halves", Tensor.round, ("round",), one(halves), even_of, ()),
    Row("floor:int", Tensor.floor, (), one(signed), np.copy, (), aliases=True),
    Row("isnan", Tensor.isnan, ("isnan",), one(special), lambda x: x != x, ()),
    Row("isinf", Tensor.isinf, ("isinf",), one(special), lambda x: np.abs(x) == np.inf, ()),
    Row("isfinite", Tensor.isfinite, ("isfinite",), one(special), lambda x: x - x == 0, ()),
    Row("isnan:int", Tensor.isnan, ("isnan",), one(signed), lambda x: x != x, ()),
    Row("isfinite:bool", Tensor.isfinite, ("isfinite",), one(coin), lambda x: x == x, ()),
    # activations
    Row("relu", Tensor.relu, ("relu",), one(off_zero), relu_of, kinks="at 0"),
    Row("relu:zeros", Tensor.relu, ("relu",), one(tied), relu_of, ()),
    Row("relu_grad", pointwise.relu_grad, ("relu_grad",), alike(normal, relus), relu_grad_of, (0,)),
    Row("sigmoid", Tensor.sigmoid, ("sigmoid",), one(normal), sigmoid_of),
    Row("sigmoid:far", Tensor.sigmoid, ("sigmoid",), one(between(-700, 700)), sigmoid_of, ()),
    Row(
        "sigmoid_grad",
        pointwise.sigmoid_grad,
        ("sigmoid_grad",),
        alike(normal, sigmoids),
        lambda dY, y: dY * y * (1 - y),
    ),
    Row(
        "tanh_grad",
        pointwise.tanh_grad,
        ("tanh_grad",),
        alike(normal, waves),
        lambda dY, y: dY * (1 - y * y),
    ),
    # choice and dtypes
    Row("where", pointwise.where, ("where",), chosen, np.where, (1, 2)),
    Row(
        "where:method",
        Tensor.where,
        ("where",),
        choosing,
        lambda x, c, y: np.where(c, x, y),
        (0, 2),
    ),
    Row("masked_fill", Tensor.masked_fill, ("where",), masked, masked_fill_of, (0, 2)),
    Row("masked_fill:int", Tensor.masked_fill, ("where",), whole_masked, masked_fill_of, ()),
    Row("clamp", Tensor.clamp, ("clamp",), clamped(normal), clamp_of, kinks="at the bounds"),
    Row("clamp:ties", Tensor.clamp, ("clamp",), clamped(tied), clamp_of, ()),
    Row("clamp:int", Tensor.clamp, ("clamp",), whole_clamped, clamp_of, ()),
    Row("clamp_min", Tensor.clamp_min, ("clamp",), bounded, np.maximum, kinks="at the bound"),
    Row("clamp_max", Tensor.clamp_max, ("clamp",), bounded, np.minimum, kinks="at the bound"),
    Row("cast", there_and_back, ("cast",), one(normal), rounded, check=COARSE, rtol32=1e-6),
    Row("cast:int", to_int, ("cast",), one(between(-9, 9)), lambda x: x.astype(np.int64), ()),
    Row("cast:bool", to_bool, ("cast",), one(tied), lambda x: x.astype(np.bool_), ()),
]
