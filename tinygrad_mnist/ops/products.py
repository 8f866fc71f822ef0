"""Matrix products, convolution and pooling."""

from __future__ import annotations

import math
from typing import Any, Self, TypeVar

from tinygrad_mnist.autograd.graph import Value, broadcast
from tinygrad_mnist.autograd.record import Op, define, record
from tinygrad_mnist.checks import check_numbers, fit
from tinygrad_mnist.kernels import Pair, Pool, Shape
from tinygrad_mnist.ops.indexing import Indexing
from tinygrad_mnist.ops.table import operand

T = TypeVar("T", bound=Indexing)

# ---- matrix products

product = define(  # of operands that fit, of at most 2 dims or of batches alike
    "matmul",
    x=lambda dZ, y, x_shape: _matmul_dx(dZ, y, x_shape),
    y=lambda dZ, x, y_shape: _matmul_dy(dZ, x, y_shape),
)
_LINEAR: Op = define(
    "linear",
    x=lambda dY, weight: product(dY, weight),
    weight=lambda dY, x: linear_dw(dY, x),
    bias=lambda dY: dY,
)
linear_dw: Op = define(
    "linear_dw",
    dY=lambda dZ, x: _LINEAR(x, dZ),
    x=lambda dZ, dY: product(dY, dZ),
)


def _matmul_dx(dZ: Any, y: Any, shape: Shape) -> Any:
    if y.array.ndim == 1:
        return dZ.unsqueeze(-1) * y
    return product(y, dZ) if len(shape) == 1 else product(dZ, y.mT)


def _matmul_dy(dZ: Any, x: Any, shape: Shape) -> Any:
    if x.array.ndim > 1:
        return product(x.mT, dZ)
    return x * dZ if len(shape) == 1 else x.unsqueeze(1) * dZ


def matmul(x: Any, other: Any) -> Any:
    """The matrix product of (…, n, k) and (…, k, m), leading dims broadcast: (…, n, m).

    A 1-D operand is a row (left) or a column (right) and its dim is dropped from the result.
    ValueError where the inner sizes differ; TypeError for differing dtypes, and for booleans.
    """
    like = x if isinstance(x, Value) else other
    if isinstance(like, Value):
        x, other = operand("matmul", like, x), operand("matmul", like, other)
    fit("matmul", "x (…), other (…)", x, other)
    check_numbers("matmul", x)
    a, b = x.array.shape, other.array.shape
    if not a or not b or a[-1] != b[-2 if len(b) > 1 else 0]:
        raise ValueError(
            f"matmul: expected x (…, n, k) and other (…, k, m), got shapes {a} and {b}"
        )
    if len(a) <= 2 and len(b) <= 2:
        return product(x, other)
    broadcast("matmul", a[:-2], b[:-2], of=(a, b))
    if len(b) <= 2:  # one product of all rows, not one per matrix
        rows = x.reshape(math.prod(a[:-1]), a[-1])
        return product(rows, other).reshape((*a[:-1], *b[1:]))
    if len(a) == 1:
        return product(x.reshape(1, -1), other).reshape((*b[:-2], b[-1]))
    return product(x, other)


def linear(x: T, weight: T, bias: T | None = None) -> T:
    """x (…, in) · weight (out, in)ᵀ + bias (out,): (…, out).

    ValueError where the shapes do not fit; TypeError for differing dtypes, and for booleans.
    """
    fit("linear", "x (…, in), weight (out, in), bias? (out)", x, weight, bias)
    check_numbers("linear", x)
    shape = x.array.shape
    if len(shape) == 2:
        return record(_LINEAR, (x, weight, bias))
    rows = x.reshape(math.prod(shape[:-1]), shape[-1])
    return record(_LINEAR, (rows, weight, bias)).reshape(*shape[:-1], weight.array.shape[0])


class Products(Indexing):
    """A tensor as a matrix."""

    __slots__ = ()

    matmul = matmul

    def __matmul__(self, other: Any) -> Self:
        return matmul(self, other)

    def __rmatmul__(self, other: Any) -> Self:
        return matmul(other, self)


# ---- windows of images

_WINDOWS = define(
    "windows", x=lambda dY, x_shape, stride, dilation: windows_grad(dY, x_shape, stride, dilation)
)
_WINDOWS_GRAD: Op = define(
    "windows_grad",
    dY=lambda dZ, dY_shape, stride, dilation: windows(dZ, dY_shape[2:4], stride, dilation),
)


def windows(x: Any, size: Pair, stride: Pair, dilation: Pair = (1, 1)) -> Any:
    """The windows of x (N, C, H, W), a read-only view: (N, C, kh, kw, H', W')."""
    return record(_WINDOWS, (x,), {"size": size, "stride": stride, "dilation": dilation})


def windows_grad(x: Any, shape: Shape, stride: Pair, dilation: Pair = (1, 1)) -> Any:
    """x (N, C, kh, kw, H', W') added up where its windows lie in ``shape`` (N, C, H, W)."""
    return record(_WINDOWS_GRAD, (x,), {"shape": shape, "stride": stride, "dilation": dilation})


# ---- convolution: each of the three products is the gradient of the others. Their operands fit

conv2d: Op = define(
    "conv2d",
    x=lambda dY, weight, x_shape, conv: conv2d_dx(dY, weight, shape=x_shape, conv=conv),
    weight=lambda dY, x, weight_shape, conv: conv2d_dw(dY, x, shape=weight_shape, conv=conv),
    bias=lambda dY: dY.sum((0, 2, 3)),
)
conv2d_dx: Op = define(
    "conv2d_dx",
    dY=lambda dZ, weight, conv: conv2d(dZ, weight, conv=conv),
    weight=lambda dZ, dY, weight_shape, conv: conv2d_dw(dY, dZ, shape=weight_shape, conv=conv),
)
conv2d_dw: Op = define(
    "conv2d_dw",
    dY=lambda dZ, x, conv: conv2d(x, dZ, conv=conv),
    x=lambda dZ, dY, x_shape, conv: conv2d_dx(dY, dZ, shape=x_shape, conv=conv),
)


# ---- pooling

_MAX_POOL2D = define(
    "max_pool2d",
    x=lambda dY, out_1, x_shape, pool: max_pool2d_grad(dY, out_1, shape=x_shape, pool=pool),
)
max_pool2d_grad: Op = define(
    "max_pool2d_grad", dY=lambda dZ, index, pool: max_pool2d_take(dZ, index, pool=pool)
)
max_pool2d_take: Op = define(
    "max_pool2d_take",
    x=lambda dY, index, x_shape, pool: max_pool2d_grad(dY, index, shape=x_shape, pool=pool),
)


def max_pool2d(x: T, pool: Pool) -> T:
    """The maximum of each window of x (N, C, H, W), which fits; the first of equals is chosen."""
    return _MAX_POOL2D(x, pool=pool)[0]
