"""How much a kernel call computes: the multiply-adds of products and convolutions.

The profile and the summary of a model count by it.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from tinygrad_mnist.dispatch import Call
from tinygrad_mnist.kernels import convolved


def multiply_adds(call: Call, result: Any) -> int:
    """The multiplications, each with its addition, of a call that gave ``result``.

    0 for kernels other than products and convolutions.
    """
    count = _COUNTS.get(call.kernel)
    return 0 if count is None else count(call, result)


def _of_linear(call: Call, result: Any) -> int:
    x, weight = call.arrays[:2]
    return x.size * weight.shape[0]


def _of_linear_dw(call: Call, result: Any) -> int:
    dY, x = call.arrays
    return dY.size * x.shape[-1]


def _of_matmul(call: Call, result: Any) -> int:
    return result.size * call.arrays[0].shape[-1]


def _of_conv2d(call: Call, result: Any) -> int:
    x, weight = call.arrays[:2]  # of the result there may be a pooling only
    stride, padding, dilation, _ = call.static["conv"]
    height, width = (n + 2 * p for n, p in zip(x.shape[2:], padding, strict=True))
    spots = convolved((height, width), weight.shape[2:], stride, dilation)
    return len(x) * math.prod(spots) * weight.size


def _of_conv2d_dx(call: Call, result: Any) -> int:
    dY, weight = call.arrays
    return dY.size * math.prod(weight.shape[1:])


def _of_conv2d_dw(call: Call, result: Any) -> int:
    return call.arrays[0].size * math.prod(call.static["shape"][1:])


_COUNTS: dict[str, Callable[[Call, Any], int]] = {
    "linear": _of_linear,
    "linear_dw": _of_linear_dw,
    "matmul": _of_matmul,
    "conv2d": _of_conv2d,
    "conv2d_dx": _of_conv2d_dx,
    "conv2d_dw": _of_conv2d_dw,
}
