"""How the inputs of an op are drawn, and what a row of the table is."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

Rng = np.random.Generator


Shape = tuple[int, ...]


Fill = Callable[[Rng, Shape], np.ndarray]


@dataclass(frozen=True)
class Case:
    """One call: arrays (float64, or integers and booleans), numbers or None; then keywords.

    An op that draws random numbers has the ``seed`` of them among its keywords.
    """

    inputs: tuple[Any, ...]
    static: dict[str, Any] = field(default_factory=dict)
    smooth: bool = True  # False: a kink, a tie or a large array, for the forward tests only


Draw = Callable[[Rng], list[Case]]


@dataclass(frozen=True)
class Row:
    """An op and all that its tests need to know."""

    name: str  # the op's, and what is special after a colon
    op: Callable[..., Any]
    kernels: tuple[str, ...]  # those it stands for: its forward pass must call them
    draw: Draw
    reference: Callable[..., Any]
    differentiable: tuple[int, ...] | None = None  # which inputs; None: all float arrays
    kinks: str = ""  # where it is not differentiable; smooth cases keep away
    second: str | None = None  # why no second gradient is claimed
    aliases: bool = False  # the result may share memory with the input
    check: dict[str, float] = field(default_factory=dict)  # gradcheck's tolerances
    rtol: float = 1e-10
    rtol32: float = 1e-5  # of float32, relative to the largest expected number


def normal(rng: Rng, shape: Shape) -> np.ndarray:
    return np.asarray(rng.standard_normal(shape))


def between(low: float, high: float) -> Fill:
    return lambda rng, shape: np.asarray(rng.uniform(low, high, shape))


def off_zero(rng: Rng, shape: Shape) -> np.ndarray:
    return np.asarray(rng.uniform(0.2, 2, shape) * rng.choice([-1.0, 1.0], shape))


def spaced(rng: Rng, shape: Shape) -> np.ndarray:
    """Distinct numbers at least 0.1 apart, none near 0."""
    count = int(np.prod(shape))
    return ((rng.permutation(count) - count // 2) * 0.1 + 0.05).reshape(shape)


def tied(rng: Rng, shape: Shape) -> np.ndarray:
    return np.asarray(rng.integers(-1, 2, shape), np.float64)


def integral(rng: Rng, shape: Shape) -> np.ndarray:
    return np.asarray(rng.integers(-3, 4, shape), np.float64)


def halves(rng: Rng, shape: Shape) -> np.ndarray:
    """Numbers that no ``integral`` one is near."""
    return np.asarray(integral(rng, shape) + 0.5)


def coin(rng: Rng, shape: Shape) -> np.ndarray:
    return np.asarray(rng.random(shape) < 0.5)


def whole(high: int, dtype: Any = np.int64) -> Fill:
    return lambda rng, shape: np.asarray(rng.integers(0, high, shape), dtype)


def gaps(x: np.ndarray) -> np.ndarray:
    """``x`` with unused elements between its own."""
    wide = np.zeros((*x.shape, 2), x.dtype)
    wide[..., 0] = x
    return wide[..., 0]


def turned(x: np.ndarray) -> np.ndarray:
    """``x`` as a transposed view: column-major."""
    return np.asfortranarray(x)


def case(*inputs: Any, smooth: bool = True, **static: Any) -> Case:
    return Case(inputs, static, smooth)


def one(fill: Fill, **static: Any) -> Draw:
    """One array in every layout."""
    return lambda rng: [
        case(fill(rng, ()), **static),
        case(fill(rng, (0, 3)), **static),
        case(fill(rng, (5,)), **static),
        case(fill(rng, (3, 4)), **static),
        case(gaps(fill(rng, (3, 4))), **static),
        case(turned(fill(rng, (2, 3, 4))), **static),
        case(np.broadcast_to(fill(rng, (3, 1)), (3, 4)), **static),
        case(fill(rng, (257, 401)), smooth=False, **static),
    ]


def two(x: Fill, y: Fill | None = None, numbers: bool = True) -> Draw:
    """Two arrays, broadcast against each other, and an array with a number."""
    second = y or x

    def draw(rng: Rng) -> list[Case]:
        pairs = [
            ((), ()),
            ((0, 3), (1, 3)),
            ((3, 4), (3, 4)),
            ((3, 4), (4,)),
            ((3, 1), (2, 1, 4)),
            ((), (3, 4)),
        ]
        cases = [case(x(rng, a), second(rng, b)) for a, b in pairs]
        cases.append(case(gaps(x(rng, (3, 4))), turned(second(rng, (3, 4)))))
        cases.append(case(x(rng, (257, 401)), second(rng, (401,)), smooth=False))
        if numbers:
            cases.append(case(x(rng, (3, 4)), float(second(rng, ()))))
            cases.append(case(float(x(rng, ())), gaps(second(rng, (3, 4)))))
        return cases

    return draw


def alike(x: Fill, y: Fill, **static: Any) -> Draw:
    """Two arrays of one shape, in every layout."""
    return lambda rng: [
        case(*a.inputs, *b.inputs, smooth=a.smooth, **static)
        for a, b in zip(one(x)(rng), one(y)(rng), strict=True)
    ]


def reduced(fill: Fill, empty: Shape = (0, 3)) -> Draw:
    """One array reduced over None, one or several dims, negative ones too, with keepdim."""
    return lambda rng: [
        case(fill(rng, ())),
        case(fill(rng, empty), dim=0),
        case(fill(rng, (3, 4))),
        case(fill(rng, (3, 4)), keepdim=True),
        case(fill(rng, (3, 4)), dim=-1),
        case(gaps(fill(rng, (3, 4))), dim=0, keepdim=True),
        case(turned(fill(rng, (2, 3, 4))), dim=(0, -1)),
        case(fill(rng, (2, 3, 4)), dim=(-2,), keepdim=True),
        case(np.broadcast_to(fill(rng, (3, 1)), (3, 4)), dim=0),
        case(fill(rng, (257, 401)), dim=0, smooth=False),
        case(fill(rng, (257, 401)), dim=-1, smooth=False),
    ]


def along(fill: Fill) -> Draw:
    """One array and one dim."""
    return lambda rng: [
        case(fill(rng, (4,)), dim=0),
        case(fill(rng, (0, 3)), dim=1),
        case(fill(rng, (3, 4)), dim=-1),
        case(fill(rng, (3, 4)), dim=0),
        case(gaps(fill(rng, (2, 3, 4))), dim=1),
        case(turned(fill(rng, (3, 4))), dim=-2),
        case(fill(rng, (3, 1)), dim=1),
        case(fill(rng, (130, 300)), dim=1, smooth=False),
    ]


def _parts(index: Any) -> tuple[Any, ...]:
    return index if isinstance(index, tuple) else (index,)


def shaped(*calls: tuple[Shape, Any]) -> Draw:
    """An array and the op's further positional arguments; the last two also strided."""

    def draw(rng: Rng) -> list[Case]:
        cases = [case(normal(rng, shape), args=_parts(args)) for shape, args in calls]
        (a, first), (b, second) = calls[-2:]
        cases.append(case(gaps(normal(rng, a)), args=_parts(first)))
        return [*cases, case(turned(normal(rng, b)), args=_parts(second))]

    return draw


def contiguous_only(draw: Draw) -> Draw:
    return lambda rng: [c for c in draw(rng) if c.inputs[0].flags.c_contiguous]


def spread(function: Callable[..., Any]) -> Callable[..., Any]:
    """``function(x, *args)`` as a function of x and a static ``args``."""
    return lambda x, *, args: function(x, *args)


POSITIVE = between(0.3, 3)


TIES = "where two elements are equal"


COARSE = {"eps": 0.5, "rtol": 1e-5, "atol": 1e-5}  # for float32 in the middle of a linear op


def several(results: Any) -> tuple[Any, ...]:
    return results if isinstance(results, tuple) else (results,)
