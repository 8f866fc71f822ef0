"""Matrix products by cuBLAS, through a handle of our own.

CuPy's ``matmul`` sets its stream on its handle at each call and refuses one that is capturing a
graph. So every product of floats, plain or captured, is one call here, and has the same bits. The
library is the one that CuPy itself has loaded.
"""

from __future__ import annotations

import ctypes
import math
import sys
import threading
from collections.abc import Callable
from functools import cache
from typing import Any, NamedTuple

import cupy
import numpy as np

from tinygrad_mnist import config
from tinygrad_mnist.kernels import Array, Shape

N, T = 0, 1  # cublasOperation_t
DEFAULT_MATH, TF32_MATH = 0, 3  # cublasMath_t
WORKSPACE = 32 * 2**20  # bytes: what NVIDIA advises on Hopper; in a graph cuBLAS may make none
LARGEST = 2**31 - 1  # of a size, for cuBLAS

_STATUS = {
    1: "not initialized",
    3: "out of memory",
    7: "invalid value",
    8: "architecture mismatch",
    11: "mapping error",
    13: "execution failed",
    14: "internal error",
    15: "not supported",
}
_SUFFIX = {"f": "Sgemm", "d": "Dgemm"}  # by dtype.char
_NUMBER = {"f": ctypes.c_float, "d": ctypes.c_double}
_ONE = {char: ctypes.byref(kind(1)) for char, kind in _NUMBER.items()}
_ZERO = {char: ctypes.byref(kind(0)) for char, kind in _NUMBER.items()}

_local = threading.local()


class _Matrix(NamedTuple):
    """A matrix, or equally spaced ones, as cuBLAS takes them."""

    array: Array
    transposed: int
    leading: int  # numbers from a row, or column, to the next
    spacing: int  # numbers from a matrix to the next


class _Handle:
    """cuBLAS for one thread and device."""

    def __init__(self) -> None:
        self._library = _library()
        self.pointer = _module().create()
        mode = TF32_MATH if config.tf32() else DEFAULT_MATH
        _check("cublasSetMathMode", self._library.cublasSetMathMode(self.pointer, mode))
        self._stream: int | None = None
        self.workspaces: dict[int, Any] = {}

    def __del__(self, ending: Callable[[], bool] = sys.is_finalizing) -> None:
        if hasattr(self, "pointer") and not ending():  # its thread has ended
            _module().destroy(self.pointer)

    def on(self, stream: int) -> Any:
        """The handle, for calls that are to run on ``stream``."""
        if stream != self._stream:
            self._set(stream)
        return self.pointer

    def _set(self, stream: int) -> None:
        self._stream = None
        _check("cublasSetStream", self._library.cublasSetStream_v2(self.pointer, stream))
        memory = self.workspaces.get(stream)
        if memory is None:  # of its own: products on two streams may run at once
            memory = self.workspaces[stream] = cupy.cuda.Memory(WORKSPACE)
        # Setting the stream has put back cuBLAS's own.
        status = self._library.cublasSetWorkspace_v2(self.pointer, memory.ptr, WORKSPACE)
        _check("cublasSetWorkspace", status)
        self._stream = stream


def workspace(stream: int) -> Any:
    """What products of this thread on ``stream`` may write to; a graph of them must keep it."""
    return _handle().workspaces.get(stream)


def matmul(x: Array, y: Array, out: Array = None) -> Array:
    """x (…, n, k) · y (…, k, m), of floats of one dtype, leading dims broadcast.

    A 1-D operand is a row (left) or a column (right), whose dim the result lacks.
    """
    shape = _shape(x.shape, y.shape)
    rows = x.reshape(1, -1) if x.ndim == 1 else x
    columns = y.reshape(-1, 1) if y.ndim == 1 else y
    whole = (*np.broadcast_shapes(rows.shape[:-2], columns.shape[:-2]), rows.shape[-2])
    whole = (*whole, columns.shape[-1])
    fits = out is not None and out.flags.c_contiguous
    made = out if fits else cupy.empty(shape, x.dtype)
    if 0 in x.shape or 0 in y.shape:
        made.fill(0)
    else:
        _multiply(rows, columns, made.reshape(whole))
    if out is None or fits:
        return made
    out[...] = made
    return out


def _shape(x: Shape, y: Shape) -> Shape:
    """The shape of the product."""
    batch = np.broadcast_shapes(x[:-2], y[:-2])
    return (*batch, *x[-2:-1], *(y[-1:] if len(y) > 1 else ()))


def _multiply(x: Array, y: Array, out: Array) -> None:
    """``out`` ← x · y, which are not empty. cuBLAS counts by columns: outᵀ = yᵀ · xᵀ."""
    char, batch = out.dtype.char, out.shape[:-2]
    count = math.prod(batch)
    a, b = _matrix(x, batch), _matrix(y, batch)
    (n, k), m = x.shape[-2:], y.shape[-1]
    if max(n, m, k, a.leading, b.leading, count) > LARGEST:
        raise ValueError(
            f"matmul: found sizes {x.shape} and {y.shape}, expected at most {LARGEST:,} of each"
        )
    handle = _handle().on(cupy.cuda.get_current_stream().ptr)
    sizes = b.transposed, a.transposed, m, n, k
    left, right = (b.array.data.ptr, b.leading), (a.array.data.ptr, a.leading)
    one, zero, target = _ONE[char], _ZERO[char], (out.data.ptr, m)
    many, single = _functions()[char]
    if count == 1:
        status = single(handle, *sizes, one, *left, *right, zero, *target)
    else:
        status = many(
            handle, *sizes, one, *left, b.spacing, *right, a.spacing, zero, *target, n * m, count
        )
    if status:
        _check("cublasGemm", status)


def _matrix(x: Array, batch: Shape) -> _Matrix:
    """``x`` (…, r, c) for products of leading dims ``batch``, or a copy of it that lies so."""
    layout = _layout(x)
    spacing = _spacing(x, batch)
    if layout is None or spacing is None:
        x = cupy.ascontiguousarray(cupy.broadcast_to(x, (*batch, *x.shape[-2:])))
        layout, spacing = (N, x.shape[-1]), x.shape[-2] * x.shape[-1]
    return _Matrix(x, *layout, spacing)


def _layout(x: Array) -> tuple[int, int] | None:
    """Whether the matrices lie by columns, and their leading dim; None for neither way."""
    (rows, columns), item = x.shape[-2:], x.dtype.itemsize
    down, along = (step // item for step in x.strides[-2:])
    if (along == 1 or columns == 1) and (down >= columns or rows == 1):
        return N, max(down, columns) if rows > 1 else columns
    if (down == 1 or rows == 1) and (along >= rows or columns == 1):
        return T, max(along, rows) if columns > 1 else rows
    return None


def _spacing(x: Array, batch: Shape) -> int | None:
    """Numbers from one matrix to the next over all of ``batch``; None where these differ."""
    lead = x.ndim - 2
    sizes = (1,) * (len(batch) - lead) + x.shape[:lead]
    steps = (0,) * (len(batch) - lead) + x.strides[:lead]
    spacing: int | None = None
    reach = 1
    for size, step, whole in zip(sizes[::-1], steps[::-1], batch[::-1], strict=True):
        if whole == 1:
            continue
        step = 0 if size == 1 else step // x.dtype.itemsize
        if step < 0:
            return None
        if spacing is None:
            spacing = step
        elif step != spacing * reach:
            return None
        reach *= whole
    return spacing or 0


# ---- the library


@cache
def _module() -> Any:
    from cupy_backends.cuda.libs import cublas  # noqa: PLC0415  where CUDA's are not installed

    return cublas


@cache
def _library() -> ctypes.CDLL:
    """libcublas, found through CuPy's module that is linked to it."""
    library = ctypes.CDLL(_module().__file__)
    handle, size, pointer = ctypes.c_void_p, ctypes.c_int, ctypes.c_void_p
    library.cublasSetStream_v2.argtypes = [handle, pointer]
    library.cublasSetWorkspace_v2.argtypes = [handle, pointer, ctypes.c_size_t]
    library.cublasSetMathMode.argtypes = [handle, size]
    return library


@cache
def _functions() -> dict[str, tuple[Any, Any]]:
    """By dtype.char: the product of equally spaced matrices, and that of two."""
    handle, size, long, pointer = ctypes.c_void_p, ctypes.c_int, ctypes.c_longlong, ctypes.c_void_p
    head = [handle, size, size, size, size, size, pointer]
    found = {}
    for char, name in _SUFFIX.items():
        single = getattr(_library(), f"cublas{name}_v2")
        single.argtypes = [*head, pointer, size, pointer, size, pointer, pointer, size]
        many = getattr(_library(), f"cublas{name}StridedBatched")
        many.argtypes = [
            *head, pointer, size, long, pointer, size, long, pointer, pointer, size, long, size,
        ]  # fmt: skip
        found[char] = many, single
    return found


def _handle() -> _Handle:
    handles = _local.__dict__.setdefault("handles", {})
    device = cupy.cuda.runtime.getDevice()
    if device not in handles:
        handles[device] = _Handle()
    found: _Handle = handles[device]
    return found


def _check(call: str, status: int) -> None:
    if status:
        raise RuntimeError(f"{call}: cuBLAS says {_STATUS.get(status, 'unknown')} ({status})")
