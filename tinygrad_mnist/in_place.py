"""Writing over a tensor: what ends in an underscore, and ``x += y``.

Allowed under ``no_grad``, or where no gradient is involved. A write counts up the version that the
tensor shares with all views of its memory, so that backward refuses what has changed.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Any, Self, TypeVar

import numpy as np

from tinygrad_mnist import random
from tinygrad_mnist.autograd.graph import (
    Value,
    broadcasts_to,
    elsewhere,
    is_grad_enabled,
    no_grad,
    wrap,
    written,
)
from tinygrad_mnist.checks import check_scalars, held, no_tensor, shown
from tinygrad_mnist.composed.algebra import Algebra
from tinygrad_mnist.contract import spec
from tinygrad_mnist.dispatch import call, tell
from tinygrad_mnist.kernels import Backend, Shape
from tinygrad_mnist.ops.table import named, operand

W = TypeVar("W", bound="InPlace")


def in_place(name: str, kernel: str = "") -> Callable[..., Any]:
    """The op ``name`` with its result, of the tensor's shape and dtype, written over the tensor.

    ``kernel``: the elementwise one that is the whole op where nothing has to be cast; it writes
    there itself.
    """

    def apply(self: W, *args: Any, **kwargs: Any) -> W:
        others = [x for x in (*args, *kwargs.values()) if isinstance(x, Value)]
        self._writable(f"{name}_", *others)
        if kernel and not kwargs and self._meets(args, len(spec(kernel).inputs)):
            arrays = [x.array if isinstance(x, Value) else x for x in (self, *args)]
            call(self.backend, kernel, arrays, out=self.array)
            return self._written()
        with no_grad():
            result = getattr(self, name)(*args, **kwargs)
        return self._overwritten(f"{name}_", result)

    doc = (
        f"``{name}``, written over the tensor itself, which is returned.\n\nRuntimeError where "
        "gradients are recorded or elements share memory, ValueError for a result of another "
        "shape, TypeError for one of another dtype."
    )
    return named(apply, f"{name}_", doc)


class InPlace(Algebra):
    """What a tensor does to itself."""

    __slots__ = ()

    def copy_(self, other: Any) -> Self:
        """Overwrite the elements with those of ``other``, broadcast and cast to this dtype."""
        other = operand("copy_", self, other)
        if not isinstance(other, Value):
            return self._filled("copy_", other)
        if other.backend is not self.backend:
            other = other.to(self.backend)  # type: ignore[attr-defined]
        self._writable("copy_", other)
        call(self.backend, "copy_", (self.array, other.array))
        return self._written()

    def fill_(self, value: Any) -> Self:
        """Set every element to a number, or to that of a 0-d tensor.

        Integers take it without its fraction. TypeError for anything else, OverflowError for a
        number that the dtype does not hold.
        """
        if isinstance(value, Value) and value.array.ndim == 0:
            return self.copy_(value)
        if not isinstance(value, int | float | np.integer | np.floating | np.bool_):
            raise TypeError(f"fill_: expected a number or a 0-d tensor, got {shown(value)}")
        return self._filled("fill_", value)

    def zero_(self) -> Self:
        """Set every element to 0."""
        return self._filled("zero_", 0)

    def _filled(self, name: str, number: Any) -> Self:
        self._writable(name)
        number = held(name, number, self.array.dtype)
        call(self.backend, "fill_", (self.array,), {"value": number})
        return self._written()

    def lerp_(self, end: Value, weight: float) -> Self:
        """x ← x + weight · (end − x), of equal dtypes."""
        if not isinstance(end, Value):
            raise no_tensor("lerp_", "end", end)
        check_scalars("lerp_", weight=weight)
        self._writable("lerp_", end)
        dtype = self.array.dtype
        if end.array.dtype != dtype or dtype.kind != "f":
            raise TypeError(f"lerp_: expected float tensors alike, got {dtype}, {end.array.dtype}")
        call(self.backend, "lerp_", (self.array, end.array), {"weight": weight})
        return self._written()

    def uniform_(self, a: float = 0, b: float = 1) -> Self:
        """Overwrite the elements with uniform numbers in [a, b) from the seeded stream."""
        check_scalars("uniform_", a=a, b=b)
        if not a <= b:
            raise ValueError(f"uniform_: expected a ≤ b, got {a} and {b}")
        self._writable("uniform_")
        drawn = uniform("uniform_", type(self), self.array.shape, self.array.dtype, self.backend)
        return self._overwritten("uniform_", drawn * (b - a) + a)

    def normal_(self, mean: float = 0, std: float = 1) -> Self:
        """Overwrite the elements with normal numbers from the seeded stream."""
        check_scalars("normal_", mean=mean, std=std)
        if not std >= 0:
            raise ValueError(f"normal_: expected std ≥ 0, got {std}")
        self._writable("normal_")
        drawn = normal("normal_", type(self), self.array.shape, self.array.dtype, self.backend)
        return self._overwritten("normal_", drawn * std + mean)

    add_ = __iadd__ = in_place("add", "add")
    sub_ = __isub__ = in_place("sub", "subtract")
    mul_ = __imul__ = in_place("mul", "multiply")
    div_ = __itruediv__ = in_place("div", "divide")
    floor_divide_ = __ifloordiv__ = in_place("floor_divide", "floor_divide")
    remainder_ = __imod__ = in_place("remainder", "remainder")
    pow_ = __ipow__ = in_place("pow")
    bitwise_and_ = __iand__ = in_place("bitwise_and")
    bitwise_or_ = __ior__ = in_place("bitwise_or")
    bitwise_xor_ = __ixor__ = in_place("bitwise_xor")
    clamp_ = in_place("clamp")
    clamp_min_ = in_place("clamp_min")
    clamp_max_ = in_place("clamp_max")
    masked_fill_ = in_place("masked_fill")
    neg_ = in_place("neg", "negative")
    abs_ = in_place("abs", "abs")
    square_ = in_place("square", "square")
    reciprocal_ = in_place("reciprocal")
    exp_ = in_place("exp", "exp")
    log_ = in_place("log", "log")
    sqrt_ = in_place("sqrt", "sqrt")
    rsqrt_ = in_place("rsqrt")
    sin_ = in_place("sin", "sin")
    cos_ = in_place("cos", "cos")
    tanh_ = in_place("tanh", "tanh")
    sigmoid_ = in_place("sigmoid", "sigmoid")
    relu_ = in_place("relu", "relu")
    floor_ = in_place("floor", "floor")
    ceil_ = in_place("ceil", "ceil")
    round_ = in_place("round", "round")
    trunc_ = in_place("trunc", "trunc")
    expm1_ = in_place("expm1", "expm1")
    log1p_ = in_place("log1p", "log1p")
    tan_ = in_place("tan", "tan")
    asin_ = in_place("asin", "asin")
    acos_ = in_place("acos", "acos")
    atan_ = in_place("atan", "atan")
    sinh_ = in_place("sinh", "sinh")
    cosh_ = in_place("cosh", "cosh")
    erf_ = in_place("erf", "erf")
    sign_ = in_place("sign", "sign")
    logical_not_ = in_place("logical_not")
    scatter_ = in_place("scatter")
    scatter_add_ = in_place("scatter_add")

    # ---- what may be written, and where

    def _writable(self, name: str, *others: Value) -> None:
        if is_grad_enabled() and (self.tracked or any(o.tracked for o in others)):
            raise RuntimeError(
                f"{name} in place where gradients are recorded: put it under "
                "`with no_grad():`, or make a new tensor, such as x = x + y"
            )
        array = self.array
        if 0 in array.strides and array.size and _repeats(array):
            raise RuntimeError(
                f"{name} in place on an expanded tensor of shape {tuple(array.shape)}: several "
                "elements share memory; clone() it first"
            )
        if not getattr(array.flags, "writeable", True):
            raise RuntimeError(f"{name} in place on read-only memory; clone() it first")
        for other in others:
            self._check_fits(name, other)

    def _check_fits(self, name: str, other: Value) -> None:
        if other.backend is not self.backend:
            raise elsewhere(f"{name}: found an operand", other, self.backend)
        shape, own = tuple(other.array.shape), tuple(self.array.shape)
        if shape != own and not broadcasts_to(shape, own):
            raise ValueError(f"{name}: shape {shape} does not broadcast to {own}")

    def _meets(self, args: tuple[Any, ...], inputs: int) -> bool:
        """Whether a kernel of ``inputs`` takes this float tensor and ``args`` as they are."""
        return (
            self.array.dtype.kind == "f"
            and len(args) == inputs - 1
            and all(
                self._reads(x) if isinstance(x, Value) else type(x) in (int, float) for x in args
            )
        )

    def _reads(self, x: Value) -> bool:
        """Whether ``x`` is of this dtype, and no other view of the same memory.

        A device would read of such a view what it has just written.
        """
        apart = x.array is self.array or x.version is not self.version
        return apart and bool(x.array.dtype == self.array.dtype)

    def _overwritten(self, name: str, result: Value) -> Self:
        """This tensor with the elements of ``result``, if they are of its shape and dtype.

        A wider float is rounded: what a float is added to does not widen it.
        """
        x, y = self.array, result.array
        if y.shape != x.shape:
            raise ValueError(f"{name}: the result has shape {tuple(y.shape)}, not {tuple(x.shape)}")
        if y.dtype != x.dtype and not y.dtype.kind == x.dtype.kind == "f":
            raise TypeError(
                f"{name}: the result has dtype {y.dtype}, the tensor {x.dtype}; "
                "write x = … instead, or cast first"
            )
        if result is not self:
            call(self.backend, "copy_", (x, y))
        return self._written()

    def _written(self) -> Self:
        written(self)
        return self


def _repeats(array: Any) -> bool:
    """Whether elements of it share memory because they were expanded."""
    return any(s == 0 and n > 1 for s, n in zip(array.strides, array.shape, strict=True))


def forget_gradients(tensors: Iterable[Value], set_to_none: bool) -> None:
    """Each tensor's gradient becomes None, or else zeros in place."""
    for x in tensors:
        tell("forgotten" if set_to_none else "graded", x)
        x.grad = None if set_to_none or x.grad is None else x.grad.detach().zero_()


# ---- from the seeded stream


def uniform(name: str, kind: type[W], shape: Shape, dtype: np.dtype, backend: Backend) -> W:
    """Numbers in [0, 1), the same bits on every backend. TypeError for a dtype not of floats."""
    if dtype.kind != "f":
        raise TypeError(f"{name}: expected a float dtype, got {dtype}")
    static = {"shape": shape, "key": random.next_key(), "dtype": dtype}
    made: W = wrap(kind.result_type, call(backend, "uniform", (), static), backend)
    return made


def normal(name: str, kind: type[W], shape: Shape, dtype: np.dtype, backend: Backend) -> W:
    """Normal numbers, mean 0 and deviation 1: √(−2 log u)·cos(2πv) (Box, Muller 1958)."""
    u, v = (uniform(name, kind, shape, dtype, backend) for _ in range(2))
    made: W = (-2 * (1 - u).log()).sqrt() * (v * (2 * math.pi)).cos()
    return made
