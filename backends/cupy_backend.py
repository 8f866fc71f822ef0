"""CuPy arrays on a GPU, with CUDA kernels of our own where CuPy's would be several or slow.

Each override serves non-empty C-contiguous float arrays and leaves the rest to the default, which
CuPy's own functions compute.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, ClassVar

import cupy
import numpy as np

from tinygrad_mnist.backends.cupy_kernels import faults, gemm, graphs
from tinygrad_mnist.backends.cupy_kernels.launching import Launching, act_of
from tinygrad_mnist.kernels import Act, Array, Backend, Step

FLOAT32, FLOAT64 = np.dtype(np.float32), np.dtype(np.float64)
INT32, INT64, UINT8 = np.dtype(np.int32), np.dtype(np.int64), np.dtype(np.uint8)


class CupyBackend(Launching, Backend):
    """The default kernels, and CUDA kernels in their place."""

    name = "cupy"
    xp: ClassVar[Any] = cupy
    array_type: ClassVar[type] = cupy.ndarray

    # ---- the host and the device

    def to_numpy(self, x: Array) -> np.ndarray:
        """A copy on the host, once the device has computed it."""
        found = x.get()
        faults.check()
        return found

    def prepared(self, steps: Sequence[Step]) -> list[Callable[[], None]]:
        return graphs.prepared(self, steps)

    # ---- pointwise

    # ---- at indices

    # ---- reductions

    # ---- products

    def matmul(self, x: Array, y: Array, *, out: Array = None) -> Array:
        if not (_is_of_floats(x) and x.dtype == y.dtype and _takes(out, x.dtype)):
            return super().matmul(x, y, out=out)
        return gemm.matmul(x, y, out)

    def linear(
        self, x: Array, weight: Array, bias: Array = None, *, act: Act = None, out: Array = None
    ) -> Array:
        if not (_is_of_floats(x) and x.dtype == weight.dtype and _takes(out, x.dtype)):
            return super().linear(x, weight, bias, act=act, out=out)
        out = gemm.matmul(x, weight.T, out)
        if bias is None:
            return self._activated(out, act)
        bias = self._contiguous(bias)
        self._each(
            "pointwise",
            "bias_act",
            out.size,
            out.dtype,
            out,
            bias,
            out.size,
            len(bias),
            act_of(act),
        )
        return out

    def linear_dw(self, dY: Array, x: Array, *, out: Array = None) -> Array:
        return self.matmul(dY.T, x, out=out)

    # ---- convolution

    # ---- pooling

    # ---- batch norm

    # ---- softmax and cross-entropy

    # ---- random streams, batches

    # ---- optimizers


def _is_of_floats(x: Any) -> bool:
    return x.dtype in (FLOAT32, FLOAT64)


def _is_float(x: Any) -> bool:
    """Whether a kernel serves ``x``: not empty, contiguous, of floats."""
    return bool(_is_of_floats(x) and x.flags.c_contiguous and x.size)


def _alike(x: Any, *others: Any) -> bool:
    """Whether a kernel serves ``x``, and the others are like it, or None."""
    return _is_float(x) and all(
        y is None or (y.dtype == x.dtype and y.shape == x.shape and y.flags.c_contiguous)
        for y in others
    )


def _are(dtype: np.dtype, *arrays: Any) -> bool:
    """Whether a kernel serves ``arrays``, all of ``dtype``."""
    return all(x.dtype == dtype and _is_float(x) for x in arrays)


def _is(x: Any, dtype: np.dtype) -> bool:
    """Whether ``x`` is contiguous and of ``dtype``."""
    return bool(x.dtype == dtype and x.flags.c_contiguous)


def _takes(out: Any, dtype: np.dtype) -> bool:
    """Whether a kernel can fill ``out``, or make it."""
    return out is None or _is(out, dtype)
