"""The modules that the backend imports, made of the stand-in's parts, and the backend on them."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from types import ModuleType
from typing import Any

import numpy as np

from cuda_on_cpu import arrays, compiling, cublas, launching, memory, runtime
from cuda_on_cpu.runtime import CUDARuntimeError, Device, Stream

BACKEND = "tinygrad_mnist.backends.cupy_backend"
OURS = (BACKEND, "tinygrad_mnist.backends.cupy_kernels")
CREATION = ["empty", "empty_like", "full", "full_like", "zeros", "zeros_like", "ones", "ones_like"]
CREATION += ["ndarray", "array", "asarray", "ascontiguousarray", "arange", "asnumpy"]

_last: dict[str, ModuleType] = {}  # the modules of the backend that was loaded last


def load(*arguments: Any) -> Any:
    """A ``CupyBackend`` on the stand-in, or why there can be none: no compiler.

    RuntimeError where it finds itself not usable, so that a fault of it skips no test. Its modules
    are its own: those under ``sys.modules`` are as before.
    """
    if compiling.compiler() is None:
        return "g++ was not found, which compiles the CUDA sources for the CPU"
    with installed():
        _last.clear()
        kind = importlib.import_module(BACKEND).CupyBackend
        wrong = kind.unusable()
        if wrong is not None:
            raise RuntimeError(f"the backend is not usable on the stand-in: {wrong}")
        found = kind(*arguments)
        _last.update({name: sys.modules[name] for name in sys.modules if _ours(name)})
    return found


def module(name: str) -> ModuleType:
    """A module of the backend that was loaded last: ``module("cupy_kernels.launching")``."""
    return _last[f"tinygrad_mnist.backends.{name}"]


@contextmanager
def installed() -> Iterator[None]:
    """``import cupy`` gives the stand-in, and the backend's modules are to be imported anew."""
    before = {name: sys.modules.pop(name) for name in list(sys.modules) if _hidden(name)}
    package = importlib.import_module("tinygrad_mnist.backends")
    attributes = {name: vars(package)[name] for name in _children() if name in vars(package)}
    sys.modules.update(stand_in())
    try:
        yield
    finally:
        for name in [name for name in sys.modules if _hidden(name)]:
            del sys.modules[name]
        sys.modules.update(before)
        for name in _children():
            vars(package).pop(name, None)
        vars(package).update(attributes)


def _children() -> list[str]:
    return [name.rpartition(".")[2] for name in OURS]


def _ours(name: str) -> bool:
    return name in OURS or name.startswith(OURS[1] + ".")


def _hidden(name: str) -> bool:
    return _ours(name) or name.partition(".")[0] in ("cupy", "cupy_backends", "cupyx")


# ---- the modules


@cache
def stand_in() -> dict[str, ModuleType]:
    """Every module of CuPy's that is there, by name."""
    cupy = ModuleType("cupy")
    cupy.__dict__.update({n: getattr(np, n) for n in dir(np) if isinstance(getattr(np, n), type)})
    cupy.__dict__.update({n: getattr(np, n) for n in ("inf", "nan", "pi", "e", "newaxis")})
    cupy.__dict__.update(dtype=np.dtype, finfo=np.finfo, iinfo=np.iinfo)
    cupy.__dict__.update(result_type=np.result_type, can_cast=np.can_cast)
    names = [*arrays.UFUNCS, *arrays.FUNCTIONS, *arrays.WAITING, *arrays.PRODUCTS]
    cupy.__dict__.update({name: arrays.function_of(name) for name in names})
    cupy.__dict__.update(abs=cupy.absolute, bitwise_invert=cupy.invert, pow=cupy.power)
    cupy.__dict__.update({name: getattr(arrays, name) for name in CREATION})
    cupy.__dict__.update(RawModule=launching.RawModule, RawKernel=launching.RawKernel)
    cupy.__dict__.update(get_default_memory_pool=memory.get_default_memory_pool)
    cupy.__dict__.update(is_available=_is_available, __version__="14.2.0")
    found = {"cupy": cupy}
    _add(found, "cupy.lib")
    _add(found, "cupy.lib.stride_tricks", as_strided=arrays.as_strided)
    _add(found, "cupy.cuda", **_cuda())
    _add(found, "cupy.cuda.runtime", **_runtime())
    _add(found, "cupy.cuda.memory", OutOfMemoryError=memory.OutOfMemoryError, **_memory())
    _add(found, "cupy.cuda.device", Device=Device)
    _add(found, "cupy.cuda.stream", Stream=Stream, Event=runtime.Event)
    _add(found, "cupy.cuda.compiler", CompileException=compiling.CompileError)
    found["cupy_backends"] = ModuleType("cupy_backends")
    for name in ("", ".api", ".libs"):
        _add(found, f"cupy_backends.cuda{name}")
    _add(found, "cupy_backends.cuda.api.runtime", **_runtime())
    found["cupy_backends.cuda.libs.cublas"] = cublas.module()
    found["cupy_backends.cuda.libs"].cublas = found["cupy_backends.cuda.libs.cublas"]  # type: ignore[attr-defined]
    return found


def _add(found: dict[str, ModuleType], name: str, **members: Any) -> None:
    made = ModuleType(name)
    made.__dict__.update(members)
    found[name] = made
    parent, _, child = name.rpartition(".")
    setattr(found[parent], child, made)
    for each in (parent, name):
        found[each].__path__ = []  # type: ignore[attr-defined]  # a package: it has modules


def _is_available() -> bool:
    return runtime.machine.devices > 0


def _memory() -> dict[str, Any]:
    names = ("MemoryPool", "MemoryPointer", "alloc", "get_allocator", "using_allocator")
    return {"Memory": memory.unpooled} | {name: getattr(memory, name) for name in names}


def _cuda() -> dict[str, Any]:
    def set_allocator(allocator: Any = None) -> None:
        runtime.machine.local.allocator = allocator

    return {
        **_memory(),
        "alloc_pinned_memory": memory.alloc_pinned_memory,
        "set_allocator": set_allocator,
        "Device": Device,
        "Stream": Stream,
        "Event": runtime.Event,
        "Graph": runtime.Graph,
        "get_current_stream": runtime.get_current_stream,
        "get_elapsed_time": runtime.get_elapsed_time,
        "get_device_id": lambda: runtime.machine.local.device,
        "is_available": _is_available,
    }


def _runtime() -> dict[str, Any]:
    def getDeviceCount() -> int:
        if not runtime.machine.devices:
            raise CUDARuntimeError(100)
        return runtime.machine.devices

    def getDeviceProperties(device: int) -> dict[str, Any]:
        if not 0 <= device < runtime.machine.devices:
            raise CUDARuntimeError(101)
        return {
            "name": b"A CPU that stands in for a GPU",
            "totalGlobalMem": runtime.machine.memory,
            "multiProcessorCount": 132,
            "major": 9,
            "minor": 0,
        }

    return {
        "CUDARuntimeError": CUDARuntimeError,
        "getDevice": lambda: runtime.machine.local.device,
        "setDevice": runtime.set_device,
        "getDeviceCount": getDeviceCount,
        "getDeviceProperties": getDeviceProperties,
        "deviceSynchronize": runtime.device_synchronize,
        "driverGetVersion": lambda: 13000,
        "runtimeGetVersion": lambda: 13000,
        "memGetInfo": lambda: (runtime.machine.memory, runtime.machine.memory),
        "streamCaptureModeGlobal": 0,
        "streamCaptureModeThreadLocal": 1,
        "streamCaptureModeRelaxed": 2,
        "is_hip": False,
    }
