"""Products of vectors and matrices made of ``matmul``, and pointwise functions made of others."""

from __future__ import annotations

import math
from typing import Any, Self

from tinygrad_mnist.autograd.graph import Value, broadcast, broadcasts_to
from tinygrad_mnist.checks import DOUBLE, check_numbers, check_scalars, fit, held, shown
from tinygrad_mnist.composed.statistics import Statistics
from tinygrad_mnist.ops.pointwise import clamped, where
from tinygrad_mnist.ops.products import matmul, product
from tinygrad_mnist.ops.table import Number, cast, full_like, operand, operands, scalar


class Algebra(Statistics):
    """Further products and functions."""

    __slots__ = ()

    # ---- products of vectors and matrices

    def mm(self, mat2: Self) -> Self:
        """The product of two matrices, (n, k) and (k, m): (n, m).

        ValueError where the shapes do not fit; TypeError for differing dtypes, and for booleans.
        """
        fit("mm", "x (n, k), mat2 (k, m)", self, mat2)
        check_numbers("mm", self)
        return product(self, mat2)

    def bmm(self, mat2: Self) -> Self:
        """The products of a batch of matrices, (b, n, k) and (b, k, m): (b, n, m).

        ValueError where the shapes do not fit; TypeError for differing dtypes, and for booleans.
        """
        fit("bmm", "x (b, n, k), mat2 (b, k, m)", self, mat2)
        check_numbers("bmm", self)
        return product(self, mat2)

    def mv(self, vec: Self) -> Self:
        """A matrix (n, k) times a vector (k): (n).

        ValueError where the shapes do not fit; TypeError for differing dtypes, and for booleans.
        """
        fit("mv", "x (n, k), vec (k)", self, vec)
        check_numbers("mv", self)
        return product(self, vec)

    def dot(self, tensor: Self) -> Self:
        """Σ xᵢ·yᵢ of two vectors (n), 0-d.

        ValueError where the shapes do not fit; TypeError for differing dtypes, and for booleans.
        """
        fit("dot", "x (n), tensor (n)", self, tensor)
        check_numbers("dot", self)
        return product(self, tensor)

    def outer(self, vec2: Self) -> Self:
        """xᵢ·yⱼ of two vectors (n) and (m): (n, m); dtypes are promoted.

        ValueError for what is not 1-D.
        """
        fit("outer", "x (n)", self)
        fit("outer", "vec2 (m)", vec2)
        return self.unsqueeze(1) * vec2

    def addmm(self, mat1: Self, mat2: Self, *, beta: Number = 1, alpha: Number = 1) -> Self:
        """beta · x + alpha · mat1 · mat2, of mat1 (n, k), mat2 (k, m) and x broadcast to (n, m).

        Where ``beta`` is 0, nothing of ``x`` shows, not even a NaN. ValueError where the shapes do
        not fit; TypeError for differing dtypes, booleans, and fractions times integers.
        """
        fit("addmm", "x (…), mat1 (n, k), mat2 (k, m)", self, mat1, mat2)
        return self._plus_product("addmm", mat1, mat2, beta, alpha)

    def baddbmm(self, batch1: Self, batch2: Self, *, beta: Number = 1, alpha: Number = 1) -> Self:
        """``addmm`` of a batch: batch1 (b, n, k), batch2 (b, k, m), x broadcast to (b, n, m)."""
        fit("baddbmm", "x (…), batch1 (b, n, k), batch2 (b, k, m)", self, batch1, batch2)
        return self._plus_product("baddbmm", batch1, batch2, beta, alpha)

    def _plus_product(self, name: str, x: Self, y: Self, beta: Number, alpha: Number) -> Self:
        check_numbers(name, x)
        check_scalars(name, beta=beta, alpha=alpha)
        whole = self.array.dtype.kind != "f"
        if whole and (isinstance(beta, float) or isinstance(alpha, float)):
            raise TypeError(
                f"{name}: beta and alpha must be integers for tensors of {self.array.dtype}, "
                f"got {beta} and {alpha}"
            )
        shape = (*x.array.shape[:-1], y.array.shape[-1])
        if not broadcasts_to(tuple(self.array.shape), shape):
            raise ValueError(
                f"{name}: shape {tuple(self.array.shape)} does not broadcast to {shape}, that of "
                "the product"
            )
        product: Any = matmul(x, y)
        product = product if alpha == 1 else product * alpha
        if beta == 0:
            return where(scalar(self, False), self, product)
        return product + (self if beta == 1 else self * beta)

    # ---- pointwise

    def reciprocal(self) -> Self:
        """1 / x. Integers and booleans become float32 first."""
        return 1 / self

    def rsqrt(self) -> Self:
        """1 / √x. Integers and booleans become float32 first."""
        return 1 / self.sqrt()

    def clamp(self, min: Any = None, max: Any = None) -> Self:
        """``x`` between the bounds, tensors or numbers, one of which may be None.

        The gradient passes at a bound itself; where min > max, max wins. ValueError for no bound.
        """
        if min is None and max is None:
            raise ValueError("clamp: expected min, max or both, got neither")
        x: Any = self
        for bound in (min, max):
            if bound is not None:
                x, _ = operands("clamp", x, bound)
        bounds = [None if b is None else operands("clamp", x, b)[1] for b in (min, max)]
        return clamped(x, *bounds)

    def clamp_min(self, min: Any) -> Self:
        """``x`` where it is at least ``min``, a tensor or a number, else that. See ``clamp``."""
        return self.clamp(operand("clamp_min", self, min), None)

    def clamp_max(self, max: Any) -> Self:
        """``x`` where it is at most ``max``, a tensor or a number, else that. See ``clamp``."""
        return self.clamp(None, operand("clamp_max", self, max))

    def where(self, condition: Any, other: Any) -> Self:
        """``x`` where the boolean ``condition`` holds, else ``other``; the three are broadcast.

        ``other`` is a tensor or a number. TypeError for a condition that is not boolean.
        """
        return where(condition, self, other)

    def masked_fill(self, mask: Any, value: Any) -> Self:
        """``value`` where the boolean ``mask`` holds, else ``x``, of the dtype of ``x``.

        ``mask`` and ``x`` are broadcast; ``value`` is a number or a 0-d tensor. TypeError for a
        mask that is not boolean, ValueError for more than one value, OverflowError for a number
        that the dtype does not hold.
        """
        value, dtype = operand("masked_fill", self, value), self.array.dtype
        number = not isinstance(value, Value)
        fit("masked_fill", "mask bool (…), value? ()", mask, None if number else value)
        broadcast("masked_fill", self.array.shape, mask.array.shape)
        value = held("masked_fill", value, dtype) if number else cast(value, dtype)
        return where(mask, value, self)

    def logical_not(self) -> Self:
        """Whether x is 0: boolean."""
        return self.eq(0)

    def logical_and(self, other: Any) -> Self:
        """Whether neither x nor ``other`` is 0; the two are broadcast."""
        x, y = self._truths("logical_and", other)
        return x & y

    def logical_or(self, other: Any) -> Self:
        """Whether x, ``other`` or both are not 0; the two are broadcast."""
        x, y = self._truths("logical_or", other)
        return x | y

    def logical_xor(self, other: Any) -> Self:
        """Whether one of x and ``other`` is not 0; the two are broadcast."""
        x, y = self._truths("logical_xor", other)
        return x ^ y

    def isclose(
        self, other: Any, rtol: float = 1e-05, atol: float = 1e-08, equal_nan: bool = False
    ) -> Self:
        """Whether |x − other| ≤ atol + rtol · |other|: boolean; the two are broadcast.

        Infinities are close to themselves alone; a NaN to none, or with ``equal_nan`` to a NaN.
        The two are compared in the dtype in which they meet, integers and booleans in float64.
        ValueError for a tolerance below 0, or one that is not finite.
        """
        return self._close("isclose", other, rtol, atol, equal_nan)

    def allclose(
        self, other: Any, rtol: float = 1e-05, atol: float = 1e-08, equal_nan: bool = False
    ) -> bool:
        """Whether ``isclose`` holds for all elements: a bool of Python, told by the device."""
        return _told(self._close("allclose", other, rtol, atol, equal_nan))

    def equal(self, other: Any) -> bool:
        """Whether ``other`` is a tensor of this shape with the same values: a bool of Python.

        TypeError for anything but a tensor.
        """
        if not isinstance(other, Value):
            raise TypeError(f"equal: expected a tensor as other, got {shown(other)}")
        alike = self.array.shape == other.array.shape
        return alike and _told(self.eq(other))

    def _close(self, name: str, other: Any, rtol: float, atol: float, equal_nan: bool) -> Any:
        check_scalars(name, rtol=rtol, atol=atol)
        if not (0 <= rtol < math.inf and 0 <= atol < math.inf):
            raise ValueError(
                f"{name}: expected finite tolerances of 0 or above, got {rtol} and {atol}"
            )
        x: Any
        y: Any
        x, y = operands(name, self, other)
        dtype = x.array.dtype if x.array.dtype.kind == "f" else DOUBLE
        x, y = cast(x, dtype), cast(y, dtype) if isinstance(y, Value) else full_like(x, y, ())
        broadcast(name, x.array.shape, y.array.shape)
        finite = x.isfinite() & y.isfinite()
        x_0, y_0 = where(finite, x, 0), where(finite, y, 0)  # inf − inf would warn
        far = (x_0 - y_0).abs()
        close = (far <= y_0.abs() * rtol + atol) & far.isfinite() & finite | x.eq(y)
        return close | (x.isnan() & y.isnan()) if equal_nan else close

    def _truths(self, name: str, other: Any) -> tuple[Any, Any]:
        other = operand(name, self, other)
        if isinstance(other, Value):
            broadcast(name, self.array.shape, other.array.shape)
        return self.ne(0), other != 0


def _told(truths: Any) -> bool:
    """Whether all are true, on the host."""
    return bool(truths.all().item())
