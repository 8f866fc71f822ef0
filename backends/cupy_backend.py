"""CuPy arrays on a GPU, with CUDA kernels of our own where CuPy's would be several or slow.

Each override serves non-empty C-contiguous float arrays and leaves the rest to the default, which
CuPy's own functions compute.
"""

from __future__ import annotations

from typing import Any, ClassVar, Self

import cupy
import numpy as np

from tinygrad_mnist.backends.cupy_kernels import devices, faults
from tinygrad_mnist.backends.cupy_kernels.launching import Launching
from tinygrad_mnist.kernels import Array, Backend

FLOAT32, FLOAT64 = np.dtype(np.float32), np.dtype(np.float64)
INT32, INT64, UINT8 = np.dtype(np.int32), np.dtype(np.int64), np.dtype(np.uint8)


class CupyBackend(Launching, Backend):
    """The default kernels, and CUDA kernels in their place."""

    name = "cupy"
    xp: ClassVar[Any] = cupy
    array_type: ClassVar[type] = cupy.ndarray

    # ---- the host and the device

    @classmethod
    def unusable(cls) -> str | None:
        return devices.problem() or devices.failure(cls())

    @classmethod
    def at(cls, device: int) -> type[Self] | str:
        return devices.at(cls, device)

    def details(self) -> dict[str, str]:
        return devices.details()

    def explain(self, error: MemoryError) -> None:
        if not getattr(error, "__notes__", ()):
            error.add_note(devices.memory())

    def asarray(self, x: np.ndarray) -> Array:
        try:
            return cupy.asarray(x)
        except MemoryError as error:
            self.explain(error)
            raise

    def to_numpy(self, x: Array) -> np.ndarray:
        """A copy on the host, once the device has computed it."""
        found = x.get()
        faults.check()
        return found

    # ---- pointwise

    # ---- at indices

    # ---- reductions

    # ---- products

    # ---- convolution

    # ---- pooling

    # ---- batch norm

    # ---- softmax and cross-entropy

    # ---- random streams, batches

    # ---- optimizers


def _is_float(x: Any) -> bool:
    """Whether a kernel serves ``x``: not empty, contiguous, of floats."""
    return bool(x.dtype in (FLOAT32, FLOAT64) and x.flags.c_contiguous and x.size)


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
