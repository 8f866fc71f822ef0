"""What networks are made of beyond products: batch norm, losses, dropout, batches."""

from __future__ import annotations

from typing import Any

from tinygrad_mnist import random
from tinygrad_mnist.autograd import Value, define, filled, record, vjp, wrap
from tinygrad_mnist.dispatch import call
from tinygrad_mnist.ops.pointwise import multiply, sqrt
from tinygrad_mnist.ops.reductions import mean, softmax, sum
from tinygrad_mnist.ops.shapes import reshape
from tinygrad_mnist.ops.table import FLOAT, INT, T

# ---- batch norm

_BATCH_NORM = define(
    "batch_norm",
    {},
    joint=lambda dY, x, weight, eps: _batch_norm_grad(dY, x, weight, eps),
)
_BATCH_NORM_GRAD = define(
    "batch_norm_grad",
    {},
    joint=lambda ddX, ddweight, ddbias, dY, x, weight, eps: vjp(
        lambda dY, x, weight: _batch_norm_grad_of_ops(dY, x, weight, eps),
        (dY, x, weight),
        (ddX, ddweight, ddbias),
    ),
    differentiable=3,
)


def batch_norm(x: T, weight: T, bias: T, eps: float) -> tuple[T, T, T]:
    """weight · (x − mean) / √(var + eps) + bias per channel of x (N, C, …), over the batch.

    Returns y of the shape of ``x``, and mean (C,) and biased variance (C,) without gradients.
    ValueError where the shapes do not fit or a channel has fewer than two values; TypeError for
    differing dtypes, and others than floats.
    """
    check_floats("batch_norm", x=x, weight=weight, bias=bias)
    a = x.array
    if a.ndim < 2 or weight.array.shape != (a.shape[1],) or bias.array.shape != (a.shape[1],):
        raise ValueError(
            "batch_norm: expected x (N, C, …), weight (C,) and bias (C,), got shapes "
            f"{tuple(a.shape)}, {tuple(weight.array.shape)} and {tuple(bias.array.shape)}"
        )
    if a.size <= a.shape[1]:
        raise ValueError(
            f"batch_norm: needs more than one value per channel in training, got shape "
            f"{tuple(a.shape)}; use a larger batch or eval()"
        )
    return record(_BATCH_NORM, (x, weight, bias), {"eps": eps})


def _batch_norm_grad(dY: Any, x: Any, weight: Any, eps: float) -> Any:
    return record(_BATCH_NORM_GRAD, (dY, x, weight), {"eps": eps})


def _batch_norm_grad_of_ops(dY: Any, x: Any, weight: Any, eps: float) -> Any:
    """What the kernel batch_norm_grad computes, from ops, to be differentiated."""
    dims = (0, *range(2, x.array.ndim))
    centred = x - mean(x, dims, keepdim=True)
    scale = 1 / sqrt(mean(centred * centred, dims, keepdim=True) + eps)
    normal = centred * scale
    per_channel = reshape(weight, (1, -1) + (1,) * (x.array.ndim - 2))
    share = mean(dY, dims, keepdim=True) + normal * mean(dY * normal, dims, keepdim=True)
    return per_channel * scale * (dY - share), sum(dY * normal, dims), sum(dY, dims)


# ---- losses

_CROSS_ENTROPY = define(
    "cross_entropy", {"x": lambda dY, x, target: cross_entropy_grad(dY, x, target)}
)
_CROSS_ENTROPY_GRAD = define(
    "cross_entropy_grad",
    {
        "dY": lambda dZ, x, target: sum(dZ * cross_entropy_grad(_ones(x), x, target), 1),
        "x": lambda dZ, dY, x: _softmax_slope(dZ, x) * reshape(dY, (-1, 1)),
    },
)


def cross_entropy(x: T, target: T) -> T:
    """−log softmax(x)[target] per row of x (N, C), with classes target (N,) int64: (N,).

    ValueError where the shapes do not fit, TypeError for dtypes, IndexError for a class outside
    0 … C−1.
    """
    check_tensors("cross_entropy", x=x, target=target)
    if x.array.ndim != 2 or target.array.shape != x.array.shape[:1]:
        raise ValueError(
            "cross_entropy: expected x (N, C) and target (N,), got shapes "
            f"{tuple(x.array.shape)} and {tuple(target.array.shape)}"
        )
    if x.array.dtype.kind != "f" or target.array.dtype != INT:
        raise TypeError(
            "cross_entropy: expected float x and int64 target, got "
            f"{x.array.dtype} and {target.array.dtype}; cast the target with .long()"
        )
    if x.array.shape[1] == 0:
        raise ValueError("cross_entropy: expected at least one class, got x of shape (N, 0)")
    return record(_CROSS_ENTROPY, (x, target))


def cross_entropy_grad(dY: T, x: T, target: T) -> T:
    """dY (N,) · (softmax(x) − one-hot(target)): (N, C)."""
    return record(_CROSS_ENTROPY_GRAD, (dY, x, target))


def _softmax_slope(dZ: Any, x: Any) -> Any:
    p = softmax(x, 1)
    return p * (dZ - sum(dZ * p, 1, keepdim=True))


def _ones(x: Any) -> Any:
    return filled(x.result_type, x.backend, x.array.shape[:1], 1, x.array.dtype)


# ---- dropout and batches

_TAKE_SCALED = define("take_scaled", {})


def dropout(x: T, p: float = 0.5) -> T:
    """``x`` with each element zero with probability ``p``, the others divided by 1 − p.

    The mask comes from the seeded stream, the same on every backend. ValueError for p outside
    0 … 1.
    """
    if not 0 <= p <= 1:
        raise ValueError(f"dropout: p must lie in 0 to 1, got {p}")
    check_tensors("dropout", x=x)
    if x.array.dtype.kind != "f":
        raise TypeError(f"dropout: expected a float tensor, got {x.array.dtype}")
    if p == 0:
        return x
    if p == 1:
        return multiply(x, 0.0)
    static = {"shape": x.array.shape, "p": p, "key": random.next_key(), "dtype": x.array.dtype}
    mask = wrap(x.result_type, call(x.backend, "dropout_mask", (), static), x.backend)
    return multiply(x, mask)


def take_scaled(x: T, index: Value, scale: float = 1.0, shift: float = 0.0) -> T:
    """Rows ``index`` (int64) of a uint8 tensor as float32: x[index] · scale + shift.

    No gradient. IndexError for an index outside 0 … len(x)−1.
    """
    check_tensors("take_scaled", x=x, index=index)
    if x.array.dtype.kind != "u" or index.array.dtype != INT or index.array.ndim != 1:
        raise TypeError(
            f"take_scaled: expected a uint8 tensor and a 1-D int64 index, got {x.array.dtype} and "
            f"{index.array.ndim}-D {index.array.dtype}"
        )
    static = {"scale": scale, "shift": shift, "dtype": FLOAT}
    return record(_TAKE_SCALED, (x, index), static)


# ---- checks


def check_tensors(name: str, **values: Any) -> None:
    """TypeError for one that is no tensor."""
    for key, x in values.items():
        if not isinstance(x, Value):
            raise TypeError(
                f"{name}: expected a tensor as {key}, got {type(x).__name__}; "
                "make one with tensor(…) or from_numpy(…)"
            )


def check_floats(name: str, **values: Any) -> None:
    """TypeError for what is no tensor, for differing dtypes, and for others than floats."""
    check_tensors(name, **values)
    dtypes = {key: x.array.dtype for key, x in values.items()}
    if len(set(dtypes.values())) > 1:
        given = ", ".join(f"{key} {dtype}" for key, dtype in dtypes.items())
        raise TypeError(f"{name}: dtypes differ ({given}); cast one, for example with .to(dtype)")
    found = next(iter(dtypes.values()))
    if found.kind != "f":
        raise TypeError(f"{name}: expected float tensors, got {found}; cast them with .float()")
