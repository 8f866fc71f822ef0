"""Which arrays the CUDA kernels serve: C-contiguous ones of floats; CuPy's own serve the others."""

from __future__ import annotations

from typing import Any

import numpy as np

FLOAT32, FLOAT64 = FLOATS = np.dtype(np.float32), np.dtype(np.float64)
INT32, INT64, UINT8 = np.dtype(np.int32), np.dtype(np.int64), np.dtype(np.uint8)
BOOL = np.dtype(np.bool_)


def floats(x: Any, *others: Any) -> bool:
    """Whether ``x`` is of floats, and the others of its dtype; None stands for no array."""
    return x.dtype in FLOATS and all(y is None or y.dtype == x.dtype for y in others)


def same_floats(x: Any, *others: Any) -> bool:
    """Whether ``x`` is of floats, and the others of its dtype and shape."""
    return x.dtype in FLOATS and all((y.dtype, y.shape) == (x.dtype, x.shape) for y in others)


def either_floats(x: Any, y: Any) -> bool:
    """Whether the array among two, of which one may be a number, is of floats."""
    return (x if hasattr(x, "dtype") else y).dtype in FLOATS


def is_float(x: Any) -> bool:
    """Whether a kernel serves ``x``: not empty, contiguous, of floats."""
    return bool(x.dtype in FLOATS and x.flags.c_contiguous and x.size)


def alike(x: Any, *others: Any) -> bool:
    """Whether a kernel serves ``x``, and the others are like it, or None."""
    return is_float(x) and all(
        y is None or (y.dtype == x.dtype and y.shape == x.shape and y.flags.c_contiguous)
        for y in others
    )


def are(dtype: np.dtype, *arrays: Any) -> bool:
    """Whether a kernel serves ``arrays``, all of ``dtype``."""
    return all(x.dtype == dtype and is_float(x) for x in arrays)


def is_of(x: Any, dtype: np.dtype) -> bool:
    """Whether ``x`` is contiguous and of ``dtype``."""
    return bool(x.dtype == dtype and x.flags.c_contiguous)


def takes(out: Any, dtype: np.dtype) -> bool:
    """Whether a kernel can fill ``out``, or make it."""
    return out is None or is_of(out, dtype)


def operand(x: Any) -> tuple[Any, float]:
    """An array, or the number in its stead, as a kernel takes it."""
    return (x, 0.0) if hasattr(x, "dtype") else (None, float(x))


def apart(out: Any, *inputs: Any) -> bool:
    """Whether a kernel can fill ``out``, if any, as it reads: no input overlaps it in part."""
    if out is None:
        return True
    start, end = out.data.ptr, out.data.ptr + out.nbytes
    arrays = [x for x in inputs if hasattr(x, "dtype")]
    return all(
        x.data.ptr == start or x.data.ptr >= end or x.data.ptr + x.nbytes <= start for x in arrays
    )
