"""What networks are made of beyond products: batch norm, losses, dropout, batches."""

from __future__ import annotations

from typing import Any, TypeVar

from tinygrad_mnist import random
from tinygrad_mnist.autograd.graph import wrap
from tinygrad_mnist.autograd.record import Op, define, record
from tinygrad_mnist.checks import FLOAT, fit
from tinygrad_mnist.dispatch import call
from tinygrad_mnist.kernels import Shape
from tinygrad_mnist.ops.pointwise import where
from tinygrad_mnist.ops.products import Products
from tinygrad_mnist.ops.table import full_like, zeros_like

T = TypeVar("T", bound=Products)

# ---- batch norm

_BATCH_NORM = define(
    "batch_norm", joint=lambda dY, x, weight, eps: batch_norm_grad(dY, x, weight, eps=eps)
)
batch_norm_grad: Op = define(
    "batch_norm_grad",
    joint=lambda ddX, ddweight, ddbias, dY, x, weight, eps: _batch_norm_curve(
        ddX, ddweight, ddbias, dY, x, weight, eps
    ),
    differentiable=3,
)


def batch_norm(x: T, weight: T, bias: T, eps: float) -> tuple[T, T, T]:
    """weight · (x − mean) / √(var + eps) + bias per channel of x (N, C, …), over the batch.

    Returns y of the shape of ``x``, and mean (C,) and biased variance (C,) without gradients.
    The operands fit, and a channel has more than one value.
    """
    return record(_BATCH_NORM, (x, weight, bias), {"eps": eps})


def _batch_norm_curve(
    ddX: Any, ddweight: Any, ddbias: Any, dY: Any, x: Any, weight: Any, eps: float
) -> tuple[Any, Any, Any]:
    """The gradients by dY, x and weight of ddX · dX + ddweight · dweight + ddbias · dbias.

    With dX = weight/σ · P(dY), where P(v) = v − mean(v) − x̂ · mean(v·x̂) is its own transpose and
    the slope of x̂ by x is P/σ.
    """
    dims = (0, *range(2, x.array.ndim))

    def mean(v: Any) -> Any:
        return v.mean(dims, keepdim=True)

    def per_channel(v: Any) -> Any:
        return v.reshape((1, -1) + (1,) * (x.array.ndim - 2))

    def projected(v: Any) -> Any:
        return v - mean(v) - normal * mean(v * normal)

    given = zip((ddX, ddweight, ddbias), (x, weight, weight), strict=True)
    ddX, ddweight, ddbias = (zeros_like(like) if dd is None else dd for dd, like in given)
    centred = x - mean(x)
    scale = 1 / (mean(centred.square()) + eps).sqrt()
    normal, gain, along = centred * scale, per_channel(weight) * scale, per_channel(ddweight)
    slope = projected(dY)
    dnormal = along * dY - gain * (ddX * mean(dY * normal) + dY * mean(ddX * normal))
    dx = scale * (projected(dnormal) - gain * normal * mean(ddX * slope))
    ddY = gain * projected(ddX) + along * normal + per_channel(ddbias)
    return ddY, dx, (ddX * slope * scale).sum(dims)


# ---- losses

softmax: Op = define("softmax", x=lambda dY, out, dim: softmax_grad(dY, out, dim=dim))
softmax_grad: Op = define(
    "softmax_grad",
    dY=lambda dZ, y, dim: softmax_grad(dZ, y, dim=dim),
    y=lambda dZ, dY, y, dim: (
        dZ * (dY - (dY * y).sum(dim, keepdim=True)) - dY * (dZ * y).sum(dim, keepdim=True)
    ),
)
log_softmax: Op = define("log_softmax", x=lambda dY, out, dim: log_softmax_grad(dY, out, dim=dim))
log_softmax_grad: Op = define(
    "log_softmax_grad",
    dY=lambda dZ, y, dim: dZ - (dZ * y.exp()).sum(dim, keepdim=True),
    y=lambda dZ, dY, y, dim: -(dZ * y.exp() * dY.sum(dim, keepdim=True)),
)

_CROSS_ENTROPY = define(
    "cross_entropy",
    x=lambda dY, x, target, ignore_index: cross_entropy_grad(
        dY, x, target, ignore_index=ignore_index
    ),
)
cross_entropy_grad: Op = define(
    "cross_entropy_grad",
    dY=lambda dZ, x, target, ignore_index: (dZ * _slope(x, target, ignore_index)).sum(1),
    x=lambda dZ, dY, x, target, ignore_index: (
        softmax_grad(dZ, x.softmax(1), dim=1) * where(target != ignore_index, dY, 0.0).unsqueeze(1)
    ),
)


def cross_entropy(input: T, target: T, ignore_index: int = -100) -> tuple[T, T]:
    """−log softmax(input)[target] of each row of input (N, C), with classes target (N,): (N,).

    And 0-d, how many rows count: those with target ``ignore_index`` do not, and give 0. The count
    is NaN where none does. ValueError where the shapes do not fit, TypeError for dtypes, IndexError
    for another class outside 0 … C−1.
    """
    fit("cross_entropy", "input float (N, C), target int64 (N)", input, target)
    if input.array.shape[1] == 0:
        shape = tuple(input.array.shape)
        raise ValueError(f"cross_entropy: expected at least one class, got input {shape}")
    return record(_CROSS_ENTROPY, (input, target), {"ignore_index": ignore_index})


def _slope(x: Any, target: Any, ignore_index: int) -> Any:
    """The gradient of the sum of all losses."""
    ones = full_like(x, 1, target.array.shape)
    return cross_entropy_grad(ones, x, target, ignore_index=ignore_index)


# ---- dropout and batches

_TAKE_SCALED = define("take_scaled")


def dropout_mask(x: T, p: float, shape: Shape) -> T:
    """A factor for ``x``, of ``shape``: 0 with probability ``p`` < 1, else 1 / (1 − p).

    It comes from the seeded stream, the same on every backend.
    """
    static = {"shape": shape, "p": p, "key": random.next_key(), "dtype": x.array.dtype}
    return wrap(x.result_type, call(x.backend, "dropout_mask", (), static), x.backend)


def take_scaled(x: T, index: T, scale: float = 1.0, shift: float = 0.0) -> T:
    """Rows ``index`` (int64) of a uint8 tensor as float32: x[index] · scale + shift.

    No gradient. IndexError for an index outside 0 … len(x)−1.
    """
    fit("take_scaled", "x uint8 (N, …), index int64 (n)", x, index)
    static = {"scale": scale, "shift": shift, "dtype": FLOAT}
    return record(_TAKE_SCALED, (x, index), static)
