"""Matrix products, convolution and pooling."""

from __future__ import annotations

from typing import Any

import numpy as np

from tinygrad_mnist.autograd import Op, Value, broadcasts, define, record
from tinygrad_mnist.kernels import Pair, convolved
from tinygrad_mnist.ops.shapes import mT, reshape
from tinygrad_mnist.ops.table import T, operand

# ---- matrix products

_MATMUL = define(
    "matmul",
    {
        "x": lambda dZ, y: _matmul(dZ, mT(y)),
        "y": lambda dZ, x: _matmul(mT(x), dZ),
    },
)
_LINEAR: Op = define(
    "linear",
    {
        "x": lambda dY, weight: _matmul(dY, weight),
        "weight": lambda dY, x: record(_LINEAR_DW, (dY, x)),
        "bias": lambda dY: dY,
    },
)
_LINEAR_DW: Op = define(
    "linear_dw",
    {
        "dY": lambda dZ, x: record(_LINEAR, (x, dZ)),
        "x": lambda dZ, dY: _matmul(dY, dZ),
    },
)


def _matmul(x: Any, y: Any) -> Any:
    return record(_MATMUL, (x, y))


def matmul(x: Any, y: Any) -> Any:
    """The matrix product of (…, n, k) and (…, k, m), leading dims broadcast: (…, n, m).

    A 1-D operand is a row (left) or a column (right) and its dim is dropped from the result.
    ValueError where the inner sizes differ; TypeError for differing dtypes.
    """
    like = x if isinstance(x, Value) else y
    _tensor("matmul", like)
    x, y = operand("matmul", like, x), operand("matmul", like, y)
    a, b = _tensor("matmul", x), _tensor("matmul", y)
    _same_dtype("matmul", x=a, y=b)
    if a.ndim == 0 or b.ndim == 0:
        raise ValueError(
            "matmul: expected at least 1 dim each, "
            f"got shapes {tuple(a.shape)} and {tuple(b.shape)}"
        )
    if a.shape[-1] != b.shape[-2 if b.ndim > 1 else 0]:
        raise ValueError(
            f"matmul: the inner sizes of shapes {tuple(a.shape)} and {tuple(b.shape)} differ: "
            f"{a.shape[-1]} and {b.shape[-2 if b.ndim > 1 else 0]}"
        )
    if not broadcasts([tuple(a.shape[:-2]), tuple(b.shape[:-2])]):
        raise ValueError(
            f"matmul: the leading dims of shapes {tuple(a.shape)} and {tuple(b.shape)} do not "
            "broadcast; sizes must be equal or 1"
        )
    left = reshape(x, (1, -1)) if a.ndim == 1 else x
    right = reshape(y, (-1, 1)) if b.ndim == 1 else y
    z = _matmul(left, right)
    rows, columns = z.array.shape[-2:]
    kept = (() if a.ndim == 1 else (rows,)) + (() if b.ndim == 1 else (columns,))
    return z if len(kept) == 2 else reshape(z, (*z.array.shape[:-2], *kept))


def linear(x: T, weight: T, bias: T | None = None) -> T:
    """x (…, in) · weight (out, in)ᵀ + bias (out,): (…, out).

    ValueError where the shapes do not fit; TypeError for differing dtypes.
    """
    a, w = _tensor("linear", x), _tensor("linear", weight)
    _same_dtype("linear", x=a, weight=w, bias=None if bias is None else bias.array)
    if w.ndim != 2 or a.ndim < 1 or a.shape[-1] != w.shape[1]:
        raise ValueError(
            f"linear: expected x (…, in) and weight (out, in), "
            f"got shapes {tuple(a.shape)} and {tuple(w.shape)}"
        )
    if bias is not None and bias.array.shape != (w.shape[0],):
        raise ValueError(
            f"linear: expected bias ({w.shape[0]},), got shape {tuple(bias.array.shape)}"
        )
    inputs = (weight,) if bias is None else (weight, bias)
    if a.ndim == 2:
        return record(_LINEAR, (x, *inputs))
    rows = reshape(x, (int(np.prod(a.shape[:-1])), a.shape[-1]))
    return reshape(record(_LINEAR, (rows, *inputs)), (*a.shape[:-1], w.shape[0]))


# ---- convolution

_CONV2D = define(
    "conv2d",
    {
        "x": lambda dY, weight, x_shape, stride, padding, dilation, groups: record(
            _CONV2D_DX, (dY, weight), _conv(x_shape, stride, padding, dilation, groups)
        ),
        "weight": lambda dY, x, weight_shape, stride, padding, dilation, groups: record(
            _CONV2D_DW, (dY, x), _conv(weight_shape, stride, padding, dilation, groups)
        ),
        "bias": lambda dY: dY.sum((0, 2, 3)),
    },
)
_CONV2D_DX: Op = define(
    "conv2d_dx",
    {
        "dY": lambda dZ, weight, stride, padding, dilation, groups: conv2d(
            dZ, weight, None, stride, padding, dilation, groups
        ),
        "weight": lambda dZ, dY, weight_shape, stride, padding, dilation, groups: record(
            _CONV2D_DW, (dY, dZ), _conv(weight_shape, stride, padding, dilation, groups)
        ),
    },
)
_CONV2D_DW: Op = define(
    "conv2d_dw",
    {
        "dY": lambda dZ, x, stride, padding, dilation, groups: conv2d(
            x, dZ, None, stride, padding, dilation, groups
        ),
        "x": lambda dZ, dY, x_shape, stride, padding, dilation, groups: record(
            _CONV2D_DX, (dY, dZ), _conv(x_shape, stride, padding, dilation, groups)
        ),
    },
)


def _conv(shape: Any, stride: Pair, padding: Pair, dilation: Pair, groups: int) -> dict[str, Any]:
    return {
        "shape": shape,
        "stride": stride,
        "padding": padding,
        "dilation": dilation,
        "groups": groups,
    }


def conv2d(
    x: T,
    weight: T,
    bias: T | None = None,
    stride: int | Pair = 1,
    padding: int | Pair = 0,
    dilation: int | Pair = 1,
    groups: int = 1,
) -> T:
    """Cross-correlation of x (N, C, H, W) with weight (O, C/groups, kh, kw): (N, O, H', W').

    H' = ⌊(H + 2·padding − dilation·(kh−1) − 1) / stride⌋ + 1, W' likewise; bias (O,) is added.
    ValueError where the shapes do not fit; TypeError for differing dtypes.
    """
    a, w = _tensor("conv2d", x), _tensor("conv2d", weight)
    _same_dtype("conv2d", x=a, weight=w, bias=None if bias is None else bias.array)
    if a.ndim != 4 or w.ndim != 4:
        raise ValueError(
            "conv2d: expected x (N, C, H, W) and weight (O, C/groups, kh, kw), "
            f"got shapes {tuple(a.shape)} and {tuple(w.shape)}"
        )
    if groups < 1 or a.shape[1] != w.shape[1] * groups or w.shape[0] % groups:
        raise ValueError(
            f"conv2d: weight of shape {tuple(w.shape)} with groups={groups} takes "
            f"{w.shape[1] * groups} channels, x of shape {tuple(a.shape)} has {a.shape[1]}"
        )
    if bias is not None and bias.array.shape != (w.shape[0],):
        raise ValueError(
            f"conv2d: expected bias ({w.shape[0]},), got shape {tuple(bias.array.shape)}"
        )
    static: dict[str, Any] = {
        "stride": pair("conv2d", "stride", stride, 1),
        "padding": pair("conv2d", "padding", padding, 0),
        "dilation": pair("conv2d", "dilation", dilation, 1),
        "groups": groups,
    }
    _check_window("conv2d", a, w.shape[2:], static["stride"], static["padding"], static["dilation"])
    inputs = (x, weight) if bias is None else (x, weight, bias)
    return record(_CONV2D, inputs, static)


# ---- pooling

_MAX_POOL2D = define(
    "max_pool2d",
    {
        "x": lambda dY, out_1, x_shape, size, stride, padding: record(
            _MAX_POOL2D_GRAD, (dY, out_1), _pool(size, stride, padding) | {"shape": x_shape}
        )
    },
)
_MAX_POOL2D_GRAD: Op = define(
    "max_pool2d_grad",
    {
        "dY": lambda dZ, index, size, stride, padding: record(
            _MAX_POOL2D_TAKE, (dZ, index), _pool(size, stride, padding)
        )
    },
)
_MAX_POOL2D_TAKE: Op = define(
    "max_pool2d_take",
    {
        "x": lambda dY, index, x_shape, size, stride, padding: record(
            _MAX_POOL2D_GRAD, (dY, index), _pool(size, stride, padding) | {"shape": x_shape}
        )
    },
)


def _pool(size: Pair, stride: Pair, padding: Pair) -> dict[str, Any]:
    return {"size": size, "stride": stride, "padding": padding}


def max_pool2d(
    x: T,
    kernel_size: int | Pair,
    stride: int | Pair | None = None,
    padding: int | Pair = 0,
) -> T:
    """The maximum of each window of x (N, C, H, W): (N, C, H', W').

    H' = ⌊(H + 2·padding − kernel_size) / stride⌋ + 1; ``stride`` is ``kernel_size`` by default.
    The first of equal cells gets the gradient; a NaN is the maximum of its window.
    ValueError where the shapes do not fit or padding exceeds half of the window.
    """
    a = _tensor("max_pool2d", x)
    if a.ndim != 4 or a.dtype.kind != "f":
        raise ValueError(
            "max_pool2d: expected a float tensor (N, C, H, W), "
            f"got {a.dtype} of shape {tuple(a.shape)}"
        )
    size = pair("max_pool2d", "kernel_size", kernel_size, 1)
    step = size if stride is None else pair("max_pool2d", "stride", stride, 1)
    margin = pair("max_pool2d", "padding", padding, 0)
    if any(2 * m > s for m, s in zip(margin, size, strict=True)):
        raise ValueError(f"max_pool2d: padding {margin} is above half of kernel_size {size}")
    _check_window("max_pool2d", a, size, step, margin, (1, 1))
    return record(_MAX_POOL2D, (x,), _pool(size, step, margin))[0]


# ---- checks


def pair(name: str, what: str, value: int | Pair, least: int) -> Pair:
    """A number or a pair of them as a pair. ValueError for one below ``least``."""
    found = tuple(value) if isinstance(value, tuple | list) else (value, value)
    if len(found) != 2 or any(not isinstance(v, int) or v < least for v in found):
        raise ValueError(
            f"{name}: {what} must be an integer of at least {least} or a pair, got {value!r}"
        )
    return found


def _check_window(
    name: str, x: Any, size: Any, stride: Pair, padding: Pair, dilation: Pair
) -> None:
    padded = (x.shape[2] + 2 * padding[0], x.shape[3] + 2 * padding[1])
    if min(convolved(padded, size, stride, dilation)) < 1:
        raise ValueError(
            f"{name}: a window of {tuple(size)} (dilation {dilation}) is larger than the padded "
            f"image of {padded}, x has shape {tuple(x.shape)}"
        )


def _tensor(name: str, x: Any) -> Any:
    if not isinstance(x, Value):
        raise TypeError(
            f"{name}: expected a tensor, got {type(x).__name__}; make one with tensor(x)"
        )
    return x.array


def _same_dtype(name: str, **arrays: Any) -> None:
    dtypes = {key: array.dtype for key, array in arrays.items() if array is not None}
    if len(set(dtypes.values())) > 1:
        given = ", ".join(f"{key} {dtype}" for key, dtype in dtypes.items())
        raise TypeError(f"{name}: dtypes differ ({given}); cast one, for example with .to(dtype)")
