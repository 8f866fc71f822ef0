"""Making tensors of numbers and at random; ``tensor`` and its kin make them of data.

Everywhere: ``dtype``, ``requires_grad`` (of floats only: RuntimeError) and ``backend`` as keywords;
sizes as integers or as one tuple. TypeError for sizes that are no integers and for dtypes that are
not supported, ValueError for negative sizes, OverflowError for numbers that the dtype cannot hold.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from tinygrad_mnist import random
from tinygrad_mnist.autograd.graph import wrap
from tinygrad_mnist.backend import resolve
from tinygrad_mnist.checks import (
    FLOAT,
    INT,
    checked_dtype,
    checked_integer,
    no_tensor,
    shape_of,
    shown,
)
from tinygrad_mnist.dispatch import call
from tinygrad_mnist.in_place import normal, uniform
from tinygrad_mnist.kernels import Shape
from tinygrad_mnist.ops.shapes import cat
from tinygrad_mnist.ops.table import named
from tinygrad_mnist.tensor import Tensor, from_host

F64 = np.dtype(np.float64)

# ---- of one number


def full(
    size: Any,
    fill_value: float,
    *,
    dtype: Any = None,
    requires_grad: bool = False,
    backend: Any = None,
) -> Tensor:
    """A tensor of ``size`` that holds ``fill_value`` everywhere, by default of its dtype."""
    return _full("full", (size,), fill_value, dtype, requires_grad, backend)


def zeros(
    size: Any = (),
    *more: int,
    dtype: Any = None,
    requires_grad: bool = False,
    backend: Any = None,
) -> Tensor:
    """A tensor of zeros, float32 by default."""
    return _full("zeros", (size, *more), 0, dtype or FLOAT, requires_grad, backend)


def ones(
    size: Any = (),
    *more: int,
    dtype: Any = None,
    requires_grad: bool = False,
    backend: Any = None,
) -> Tensor:
    """A tensor of ones, float32 by default."""
    return _full("ones", (size, *more), 1, dtype or FLOAT, requires_grad, backend)


def empty(
    size: Any = (),
    *more: int,
    dtype: Any = None,
    requires_grad: bool = False,
    backend: Any = None,
) -> Tensor:
    """A tensor whose elements nobody should read before writing them; here they are 0."""
    return _full("empty", (size, *more), 0, dtype or FLOAT, requires_grad, backend)


# ---- of many


def arange(
    start: float | None = None,
    end: float | None = None,
    step: float = 1,
    *,
    dtype: Any = None,
    requires_grad: bool = False,
    backend: Any = None,
) -> Tensor:
    """``arange(end)`` or ``arange(start, end, step)``: start + step·i for i < ⌈(end − start)/step⌉.

    int64 of integers, else float32; an integer dtype takes the integer parts of the three.
    ValueError for a step of 0 or one that leads away from ``end``, TypeError for what is no number.
    """
    first, last = (start, end) if end is not None else (0, start)
    given = {"start": 0 if first is None else first, "end": last, "step": step}
    whole = all(isinstance(x, int | np.integer) for x in given.values())
    kind = checked_dtype(dtype or (INT if whole else FLOAT), "arange")
    if kind.kind == "b":
        raise TypeError("arange: expected a dtype of integers or floats, got bool")
    first, last, step = (_number("arange", name, x, kind) for name, x in given.items())
    if step == 0 or (last - first) * step < 0:
        raise ValueError(f"arange: a step of {step} does not lead from {first} to {last}")
    size = math.ceil((last - first) / step) if kind.kind == "f" else -((first - last) // step)
    _check_holds("arange", kind, first, first + step * max(0, size - 1))
    static = {"start": first, "step": step, "size": size, "dtype": kind}
    return _made("arange", static, requires_grad, backend)


def linspace(
    start: float,
    end: float,
    steps: int,
    *,
    dtype: Any = None,
    requires_grad: bool = False,
    backend: Any = None,
) -> Tensor:
    """``steps`` numbers at equal distances from ``start`` to ``end``, both included.

    The first half is counted from ``start``, the second from ``end``, so that both are exact.
    """
    (size,) = _sizes("linspace", (checked_integer("linspace", "steps", steps),))
    kind = checked_dtype(dtype or FLOAT, "linspace")
    first = _number("linspace", "start", start, F64)
    last = _number("linspace", "end", end, F64)
    _check_holds("linspace", kind, int(first), int(last))
    step = (last - first) / (size - 1) if size > 1 else 0.0
    half = size // 2 if size > 1 else size
    up = {"start": first, "step": step, "size": half, "dtype": kind}
    down = {"start": last, "step": -step, "size": size - half, "dtype": kind}
    halves = _made("arange", up, False, backend), _made("arange", down, False, backend).flip(0)
    made: Tensor = cat(halves)
    return made.requires_grad_(requires_grad)


def eye(
    n: int,
    m: int | None = None,
    *,
    dtype: Any = None,
    requires_grad: bool = False,
    backend: Any = None,
) -> Tensor:
    """Zeros of shape (n, m), or (n, n), with ones on the diagonal; float32 by default."""
    rows, columns = _sizes("eye", (n, n if m is None else m))
    down = arange(rows, backend=backend).unsqueeze(1)
    found: Tensor = down == arange(columns, backend=backend)
    return found.to(checked_dtype(dtype or FLOAT, "eye")).requires_grad_(requires_grad)


# ---- at random


def rand(
    size: Any = (),
    *more: int,
    dtype: Any = None,
    requires_grad: bool = False,
    backend: Any = None,
) -> Tensor:
    """Uniform numbers in [0, 1) from the seeded stream, the same bits on every backend.

    TypeError for a dtype that is not float.
    """
    shape, kind = _sizes("rand", (size, *more)), checked_dtype(dtype or FLOAT, "rand")
    return uniform("rand", Tensor, shape, kind, resolve(backend)).requires_grad_(requires_grad)


def randn(
    size: Any = (),
    *more: int,
    dtype: Any = None,
    requires_grad: bool = False,
    backend: Any = None,
) -> Tensor:
    """Normal numbers, mean 0 and deviation 1, from the seeded stream.

    TypeError for a dtype that is not float.
    """
    shape, kind = _sizes("randn", (size, *more)), checked_dtype(dtype or FLOAT, "randn")
    return normal("randn", Tensor, shape, kind, resolve(backend)).requires_grad_(requires_grad)


def randint(
    low: int = 0,
    high: Any = None,
    size: Any = None,
    *,
    dtype: Any = None,
    requires_grad: bool = False,
    backend: Any = None,
) -> Tensor:
    """Integers in [low, high) from the seeded stream, int64 by default, the same on every backend.

    ``randint(high, size)`` starts at 0. low + ⌊u·(high − low)⌋ with u of 48 bits: the chances of
    two integers differ by at most (high − low)·2⁻⁴⁸ of themselves, and high − low is at most 2³².
    ValueError for an empty or a larger range, TypeError for bounds that are no integers.
    """
    if size is None and isinstance(high, tuple | list):
        high, size = None, high
    if size is None:
        raise TypeError("randint: expected a size, as in randint(0, 10, (2, 3))")
    bounds = (0, low) if high is None else (low, high)
    first, last = (checked_integer("randint", "a bound", bound) for bound in bounds)
    if not 0 < last - first <= 2**32:
        raise ValueError(f"randint: expected 0 < high - low ≤ 2**32, got {first} and {last}")
    shape, kind = _sizes("randint", (size,)), checked_dtype(dtype or INT, "randint")
    _check_holds("randint", kind, first, last - 1)
    high_bits, low_bits = (rand(shape, dtype=F64, backend=backend) for _ in range(2))  # 24 each
    u = high_bits + low_bits * 2.0**-24
    drawn: Tensor = (u * (last - first)).floor().long() + first
    return drawn.to(kind).requires_grad_(requires_grad)


def randperm(
    n: int, *, dtype: Any = None, requires_grad: bool = False, backend: Any = None
) -> Tensor:
    """0 … n−1 in random order, int64 by default: drawn on the host, as all shuffles are."""
    (size,) = _sizes("randperm", (checked_integer("randperm", "n", n),))
    kind = checked_dtype(dtype or INT, "randperm")
    _check_holds("randperm", kind, 0, max(0, size - 1))
    order = random.generator().permutation(size).astype(kind)
    return from_host(order, backend, copy=False).requires_grad_(requires_grad)


# ---- like a tensor


def _like(make: Callable[..., Tensor]) -> Callable[..., Tensor]:
    name = f"{make.__name__}_like"

    def like(
        x: Tensor, *args: Any, dtype: Any = None, backend: Any = None, **kwargs: Any
    ) -> Tensor:
        if not isinstance(x, Tensor):
            raise no_tensor(name, "the first argument", x)
        dtype, backend = dtype or x.dtype, backend or x.backend
        try:
            return make(x.shape, *args, dtype=dtype, backend=backend, **kwargs)
        except (TypeError, ValueError, OverflowError) as error:
            raise type(error)(str(error).replace(make.__name__, name, 1)) from error

    doc = f"``{make.__name__}`` of the shape of ``x``, by default of its dtype, on its backend."
    made: Callable[..., Tensor] = named(like, name, doc)
    return made


zeros_like = _like(zeros)
ones_like = _like(ones)
full_like = _like(full)
empty_like = _like(empty)
rand_like = _like(rand)
randn_like = _like(randn)


# ---- what they share


def _sizes(name: str, size: tuple[Any, ...]) -> Shape:
    sizes = shape_of(size, name)
    if min(sizes, default=0) < 0:
        raise ValueError(f"{name}: sizes must not be negative, got {sizes}")
    return sizes


def _number(name: str, what: str, x: Any, kind: np.dtype) -> Any:
    """A finite number as Python's float or int, whichever ``kind`` is."""
    if not isinstance(x, int | float | np.integer | np.floating):
        raise TypeError(f"{name}: {what} must be a number, got {shown(x)}")
    if not math.isfinite(x):
        raise ValueError(f"{name}: {what} must be finite, got {x}")
    return float(x) if kind.kind == "f" else int(x)


def _check_holds(name: str, kind: np.dtype, *numbers: Any) -> None:
    if kind.kind in "iu":
        limits = np.iinfo(kind)
        if not (limits.min <= min(numbers) and max(numbers) <= limits.max):
            raise OverflowError(
                f"{name}: found {min(numbers)} to {max(numbers)}, {kind} holds {limits.min} to "
                f"{limits.max}"
            )


def _full(
    name: str, size: tuple[Any, ...], value: Any, dtype: Any, requires_grad: bool, backend: Any
) -> Tensor:
    if not isinstance(value, int | float | np.integer | np.floating | np.bool_):
        raise TypeError(f"{name}: fill_value must be a number, got {shown(value)}")
    kind = checked_dtype(dtype or type(value), name)
    _check_holds(name, kind, value)
    static = {"shape": _sizes(name, size), "value": value, "dtype": kind}
    return _made("full", static, requires_grad, backend)


def _made(kernel: str, static: dict[str, Any], requires_grad: bool, backend: Any) -> Tensor:
    """What a kernel without inputs makes on the chosen backend."""
    target = resolve(backend)
    made: Tensor = wrap(Tensor, call(target, kernel, (), static), target)
    return made.requires_grad_(requires_grad)
