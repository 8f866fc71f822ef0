"""``cupy_backends.cuda.libs.cublas``, and what its library's products do."""

from __future__ import annotations

import ctypes
from functools import cache
from types import ModuleType
from typing import Any

import numpy as np

from cuda_on_cpu import compiling, memory
from cuda_on_cpu.runtime import Stream, machine

EXECUTION_FAILED = 13
CONSTANTS = {
    "CUBLAS_OP_N": 0,
    "CUBLAS_OP_T": 1,
    "CUBLAS_OP_C": 2,
    "CUBLAS_POINTER_MODE_HOST": 0,
    "CUBLAS_POINTER_MODE_DEVICE": 1,
    "CUBLAS_DEFAULT_MATH": 0,
    "CUBLAS_TENSOR_OP_MATH": 1,
    "CUBLAS_PEDANTIC_MATH": 2,
    "CUBLAS_TF32_TENSOR_OP_MATH": 3,
}


class CUBLASError(RuntimeError):
    """What CuPy raises for a status of cuBLAS."""

    def __init__(self, status: int) -> None:
        self.status = status
        super().__init__(f"CUBLAS_STATUS {status}")


class Handle(ctypes.Structure):
    """The library's handle, for tests to look at."""

    _fields_ = (
        ("stream", ctypes.c_void_p),
        ("workspace", ctypes.c_void_p),
        ("workspace_size", ctypes.c_ulong),
        ("math_mode", ctypes.c_int),
        ("pointer_mode", ctypes.c_int),
        ("device", ctypes.c_int),
    )


_SIZES = ["ta", "tb", "m", "n", "k", "lda", "ldb", "ldc", "sa", "sb", "sc", "count", "size"]


class _Product(ctypes.Structure):
    _fields_ = (
        ("handle", ctypes.POINTER(Handle)),
        *((name, ctypes.c_longlong) for name in _SIZES),
        *((name, ctypes.c_void_p) for name in ("alpha", "a", "b", "beta", "c")),
    )


_RUN = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.POINTER(_Product))
_DEVICE = ctypes.CFUNCTYPE(ctypes.c_int)

problems: list[str] = []  # why a product gave no SUCCESS, the last one last
handles: set[int] = set()  # that are there


@_RUN
def _run(pointer: Any) -> int:
    try:
        return _checked(pointer.contents)
    except Exception as error:  # noqa: BLE001  nothing can be raised through C
        problems.append(f"{type(error).__name__}: {error}")
        return EXECUTION_FAILED


@_DEVICE
def _current_device() -> int:
    return machine.local.device


def _checked(p: Any) -> int:
    """Runs the product, or writes it down where the handle's stream is captured."""
    handle = p.handle.contents
    if handle.device != machine.local.device:
        raise ValueError(f"the handle is of device {handle.device}")
    stream = machine.streams.get(handle.stream) if handle.stream else Stream.null
    if stream is None:
        raise ValueError("the handle's stream is no more")
    dtype = np.dtype(np.float32 if p.size == 4 else np.float64)
    # op(A) is (m, k): A's numbers lie column by column, lda apart.
    a = _matrix(p.a, dtype, (p.count, p.m, p.k), (p.sa, *_steps(p.ta, p.lda)), "A")
    b = _matrix(p.b, dtype, (p.count, p.k, p.n), (p.sb, *_steps(p.tb, p.ldb)), "B")
    c = _matrix(p.c, dtype, (p.count, p.m, p.n), (p.sc, 1, p.ldc), "C")
    on_device = handle.pointer_mode == 1
    alpha = _number(p.alpha, dtype, on_device)
    beta = _number(p.beta, dtype, on_device)
    if on_device:
        for address in (p.alpha, p.beta):
            if not memory.within(address, dtype.itemsize):
                raise ValueError("alpha or beta is not on the device")

    def product() -> None:
        with np.errstate(all="ignore"):
            found = dtype.type(alpha[()]) * np.matmul(a, b)
            # With beta = 0 what C held does not count, not even NaN.
            c[...] = found if beta[()] == 0 else found + beta[()] * c

    capture = stream._capture
    if capture is None:
        machine.launched("gemm")
        product()
    else:
        if not handle.workspace:
            raise ValueError("a product is captured with no workspace but cuBLAS's own")
        capture.add("gemm", product, memory.chunks(p.a, p.b, p.c, handle.workspace))
    return 0


def _steps(transposed: int, ld: int) -> tuple[int, int]:
    return (ld, 1) if transposed else (1, ld)


def _number(address: int, dtype: np.dtype, on_device: bool) -> np.ndarray:
    """alpha or beta: of the host as it is now, of the device as it will be."""
    found = _view(address, dtype, (), ())
    return found if on_device else found.copy()


def _matrix(
    address: int, dtype: np.dtype, shape: tuple[int, ...], steps: tuple[int, ...], name: str
) -> np.ndarray:
    """The matrices at ``address``, which must lie in one piece of memory."""
    if 0 in shape:
        return np.zeros(shape, dtype)
    size = dtype.itemsize
    last = sum((n - 1) * step for n, step in zip(shape, steps, strict=True))
    if not memory.within(address or 0, (last + 1) * size):
        raise ValueError(f"{name} of shape {shape} does not lie in one piece of the device")
    return _view(address, dtype, shape, tuple(step * size for step in steps))


def _view(address: int, dtype: np.dtype, shape: Any, strides: Any) -> np.ndarray:
    interface = {
        "version": 3,
        "data": (address, False),
        "shape": shape,
        "strides": strides,
        "typestr": dtype.str,
    }
    return np.asarray(type("_View", (), {"__array_interface__": interface})())


@cache
def library() -> ctypes.CDLL:
    source = (compiling.FOLDER / "cublas.cpp").read_text("utf-8")
    path = compiling.library(source)
    loaded = ctypes.CDLL(str(path))
    loaded.cuda_on_cpu_use(_run, _current_device)
    return loaded


def module() -> ModuleType:
    """The module, whose ``__file__`` is a library that has cuBLAS's functions."""
    made = ModuleType("cupy_backends.cuda.libs.cublas")
    loaded = library()
    made.__file__ = loaded._name
    made.__dict__.update(CONSTANTS, CUBLASError=CUBLASError)

    def create() -> int:
        handle = ctypes.c_void_p()
        _check(loaded.cublasCreate_v2(ctypes.byref(handle)))
        handles.add(made := int(handle.value or 0))
        return made

    def destroy(handle: int) -> None:
        _check(loaded.cublasDestroy_v2(ctypes.c_void_p(handle)))
        handles.remove(handle)

    def setMathMode(handle: int, mode: int) -> None:
        _check(loaded.cublasSetMathMode(ctypes.c_void_p(handle), mode))

    def getMathMode(handle: int) -> int:
        return Handle.from_address(handle).math_mode

    def setPointerMode(handle: int, mode: int) -> None:
        _check(loaded.cublasSetPointerMode_v2(ctypes.c_void_p(handle), mode))

    def setStream(handle: int, stream: int) -> None:
        found = machine.streams.get(stream)
        if found is not None and found.is_capturing():
            raise NotImplementedError(
                "calling cuBLAS API during stream capture is currently unsupported"
            )
        _check(loaded.cublasSetStream_v2(ctypes.c_void_p(handle), ctypes.c_void_p(stream)))

    def getVersion(handle: int) -> int:
        return 130000

    functions = (create, destroy, setMathMode, getMathMode, setPointerMode, setStream, getVersion)
    made.__dict__.update({each.__name__: each for each in functions})
    return made


def _check(status: int) -> None:
    if status:
        raise CUBLASError(status)
