"""Kernels of each element."""

from __future__ import annotations

import numpy as np

from tinygrad_mnist.kernels.base import Array, Base, Kernel, elementwise
from tinygrad_mnist.special import erf as erf_of
from tinygrad_mnist.special import gelu, gelu_slope

MANY = 2**14  # elements, from which on a few more calls are worth a faster loop


def _unary(name: str) -> Kernel:
    @elementwise
    def kernel(self: Base, x: Array, *, out: Array = None) -> Array:
        return getattr(self.xp, name)(x, out=out)

    return kernel


def _binary(name: str) -> Kernel:
    @elementwise
    def kernel(self: Base, x: Array, y: Array, *, out: Array = None) -> Array:
        return getattr(self.xp, name)(x, y, out=out)

    return kernel


class Pointwise(Base):
    """Arithmetic, comparisons, functions of a number; arrays of equal shapes and dtypes."""

    add = _binary("add")
    subtract = _binary("subtract")
    multiply = _binary("multiply")
    divide = _binary("divide")
    floor_divide = _binary("floor_divide")
    remainder = _binary("remainder")
    maximum = _binary("maximum")
    minimum = _binary("minimum")
    equal = _binary("equal")
    not_equal = _binary("not_equal")
    less = _binary("less")
    less_equal = _binary("less_equal")
    greater = _binary("greater")
    greater_equal = _binary("greater_equal")
    bitwise_and = _binary("bitwise_and")
    bitwise_or = _binary("bitwise_or")
    bitwise_xor = _binary("bitwise_xor")
    bitwise_invert = _unary("invert")

    negative = _unary("negative")
    abs = _unary("absolute")
    sign = _unary("sign")
    exp = _unary("exp")
    expm1 = _unary("expm1")
    log = _unary("log")
    log1p = _unary("log1p")
    sqrt = _unary("sqrt")
    square = _unary("square")
    sin = _unary("sin")
    cos = _unary("cos")
    tan = _unary("tan")
    asin = _unary("arcsin")
    acos = _unary("arccos")
    atan = _unary("arctan")
    sinh = _unary("sinh")
    cosh = _unary("cosh")
    tanh = _unary("tanh")
    floor = _unary("floor")
    ceil = _unary("ceil")
    trunc = _unary("trunc")
    round = _unary("rint")
    isnan = _unary("isnan")
    isinf = _unary("isinf")
    isfinite = _unary("isfinite")

    @elementwise
    def pow(self, x: Array, y: Array, *, out: Array = None) -> Array:
        """xʸ; ValueError for integers to a negative integer power."""
        try:
            return self.xp.power(x, y, out=out)
        except ValueError as error:  # NumPy's: it alone looks at every y
            raise ValueError(
                "integers to negative powers are no integers; use x.to(float) ** y"
            ) from error

    @elementwise
    def erf(self, x: Array, *, out: Array = None) -> Array:
        """2/√π · ∫ e^(−t²) dt from 0 to x."""
        return self._into(out, erf_of(self.xp, x))

    @elementwise
    def clamp(self, x: Array, min: Array = None, max: Array = None, *, out: Array = None) -> Array:
        """min(max(x, min), max); a bound may be None."""
        return self._into(out, self.xp.clip(x, min, max))

    @elementwise
    def sigmoid(self, x: Array, *, out: Array = None) -> Array:
        """1 / (1 + e⁻ˣ), as e^min(x, 0) / (1 + e^−|x|), which neither overflows nor cancels."""
        top = self.xp.minimum(x, 0, out=self.xp.empty_like(x))
        self.xp.exp(top, out=top)
        out = self.xp.empty_like(x) if out is None else out
        self.xp.negative(self.xp.absolute(x, out=out), out=out)
        self.xp.exp(out, out=out)
        self.xp.add(out, 1, out=out)
        return self.xp.divide(top, out, out=out)

    @elementwise
    def sigmoid_grad(self, dY: Array, y: Array, *, out: Array = None) -> Array:
        """dY · y · (1 − y)."""
        slope = self.xp.subtract(1, y, out=self.xp.empty_like(y))
        self.xp.multiply(slope, y, out=slope)
        return self.xp.multiply(dY, slope, out=out)

    @elementwise
    def tanh_grad(self, dY: Array, y: Array, *, out: Array = None) -> Array:
        """dY · (1 − y²)."""
        slope = self.xp.square(y, out=self.xp.empty_like(y))
        self.xp.subtract(1, slope, out=slope)
        return self.xp.multiply(dY, slope, out=out)

    @elementwise
    def gelu(self, x: Array, *, approximate: str, out: Array = None) -> Array:
        """x · Φ(x), or by "tanh" x · (1 + tanh(√(2/π) · (x + 0.044715·x³))) / 2."""
        return self._into(out, gelu(self.xp, x, approximate))

    @elementwise
    def gelu_grad(self, dY: Array, x: Array, *, approximate: str, out: Array = None) -> Array:
        """dY times the slope of gelu at x."""
        return self.xp.multiply(dY, gelu_slope(self.xp, x, approximate), out=out)

    @elementwise
    def relu(self, x: Array, *, out: Array = None) -> Array:
        """max(x, 0); NaN stays NaN."""
        return self.xp.maximum(x, 0, out=out)

    @elementwise
    def relu_grad(self, dY: Array, y: Array, *, out: Array = None) -> Array:
        """dY where y > 0 (or NaN), else 0."""
        return self._into(out, self._masked(dY, ~(y <= 0)))

    @elementwise
    def where(self, condition: Array, x: Array, y: Array, *, out: Array = None) -> Array:
        """``x`` where ``condition`` holds, else ``y``.

        Many floats are chosen by their bits, 5 to 20 times as fast where the condition is random.
        """
        like = x if hasattr(x, "dtype") else y
        if condition.size < MANY or like.dtype.kind != "f":
            return self._into(out, self.xp.where(condition, x, y))
        bits = np.int32 if like.dtype.itemsize == 4 else np.int64
        a, b = ((v if hasattr(v, "dtype") else like.dtype.type(v)).view(bits) for v in (x, y))
        return self._into(out, ((a ^ b) & -condition.astype(bits) ^ b).view(like.dtype))

    @elementwise
    def cast(self, x: Array, *, dtype: np.dtype, out: Array = None) -> Array:
        return self._into(out, x.astype(dtype))
