"""``cupy.RawModule``: kernels compiled for the CPU, and launches with arguments as CuPy packs them.

An argument that a card would read as garbage is a TypeError here.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from cuda_on_cpu import compiling, memory
from cuda_on_cpu.arrays import _memory, address, ndarray
from cuda_on_cpu.compiling import CompileError, Kernel, Parameter
from cuda_on_cpu.memory import MemoryPointer, PooledMemory
from cuda_on_cpu.runtime import CUDARuntimeError, machine

GRID = (2**31 - 1, 65535, 65535)
BLOCK = (1024, 1024, 64)
THREADS = 1024
ARGUMENTS = 4096  # bytes
OPTIONS = ("-D", "--std=", "-std=", "-I", "--fmad", "-lineinfo", "--use_fast_math")  # NVRTC's


class RawModule:
    """cupy.RawModule."""

    def __init__(self, code: str | None = None, *, options: tuple[str, ...] = (), **other: Any):
        if code is None or other.keys() - {"backend", "name_expressions", "jitify"}:
            raise TypeError("the stand-in's RawModule takes code and options")
        if not isinstance(code, str) or not isinstance(options, tuple):
            raise TypeError("RawModule takes a str, and a tuple of str")
        for option in options:
            if not option.startswith(OPTIONS):
                raise CompileError(f"nvrtc: error: unrecognized option {option}")
        self.code, self.options = code, options
        self._kernels: dict[str, Kernel] | None = None

    def compile(self, log_stream: Any = None) -> None:
        if self._kernels is None:
            self._kernels = compiling.kernels(self.code, self.options)

    def get_function(self, name: str) -> Function:
        self.compile()
        assert self._kernels is not None
        if name not in self._kernels:
            raise RuntimeError(f"CUDA_ERROR_NOT_FOUND: named symbol not found ({name})")
        return Function(self._kernels[name])


class RawKernel:
    """cupy.RawKernel."""

    def __init__(self, code: str, name: str, options: tuple[str, ...] = (), **other: Any) -> None:
        self._module, self.name = RawModule(code, options=options, **other), name

    def __call__(self, grid: tuple, block: tuple, args: tuple, *, shared_mem: int = 0) -> None:
        self._module.get_function(self.name)(grid, block, args, shared_mem=shared_mem)


class Function:
    """A kernel, as CuPy's RawModule gives it."""

    def __init__(self, kernel: Kernel) -> None:
        self._kernel = kernel
        self.name = kernel.name
        self.shared_size_bytes = kernel.shared
        self.max_threads_per_block = THREADS

    def __call__(
        self, grid: tuple[int, ...], block: tuple[int, ...], args: Any, *, shared_mem: int = 0
    ) -> None:
        kernel = self._kernel
        if not isinstance(grid, tuple) or not isinstance(block, tuple):
            raise TypeError(f"{kernel.name}: grid and block are tuples")
        sizes = _sizes(kernel, grid, block, shared_mem)
        if len(args) != len(kernel.parameters):
            raise TypeError(
                f"{kernel.name} takes {len(kernel.parameters)} arguments, {len(args)} were given"
            )
        packed, places, used, at = bytearray(), [], [], 0
        for i, (x, parameter) in enumerate(zip(args, kernel.parameters, strict=True)):
            value = _packed(x, parameter, f"{kernel.name}: argument {i}", used)
            places.append(at)
            packed += value + bytes(-len(value) % 16)
            at = len(packed)
        if sum(parameter.size for parameter in kernel.parameters) > ARGUMENTS:
            raise CUDARuntimeError(1, f"{kernel.name}: more than {ARGUMENTS} bytes of arguments")
        launch = _launch(kernel, sizes, bytes(packed), places)
        capture = machine.capturing()
        if capture is not None:
            capture.add(kernel.name, launch, [each.chunk for each in used])
            return
        machine.launched(kernel.name)
        launch()
        for each in used:
            each.check(f"the kernel {kernel.name} (or one before)")


def _launch(
    kernel: Kernel, sizes: tuple[int, ...], packed: bytes, places: list[int]
) -> Callable[[], None]:
    """The kernel with these very arguments, as often as one likes."""
    buffer = np.frombuffer(packed, np.uint8).copy()  # aligned for structs
    start = buffer.ctypes.data
    addresses = [start + place for place in places]

    def launch(keep: np.ndarray = buffer) -> None:
        kernel.run(sizes, addresses, machine.backwards)

    return launch


def _sizes(kernel: Kernel, grid: Any, block: Any, shared_mem: int) -> tuple[int, ...]:
    """Grid and block of three dims each, as CuPy makes them: an empty one has a block, too."""
    grid = tuple(max(1, int(n)) for n in (*grid, 1, 1)[:3])
    block = tuple(max(1, int(n)) for n in (*block, 1, 1)[:3])
    too_large = [n > most for n, most in zip((*grid, *block), (*GRID, *BLOCK), strict=True)]
    if any(too_large) or math.prod(block) > min(THREADS, kernel.bound or THREADS):
        raise CUDARuntimeError(1, f"{kernel.name}: grid {grid}, block {block}")
    if kernel.shared + shared_mem > compiling.SHARED:
        raise CUDARuntimeError(
            1, f"{kernel.name}: {kernel.shared + shared_mem} bytes of shared memory"
        )
    return (*grid, *block)


def _packed(x: Any, parameter: Parameter, where: str, used: list[PooledMemory]) -> bytes:
    """The argument's bytes; what lies on the device is added to ``used``."""
    given = _bytes(x, where)
    if parameter.kind == "p":
        _check_pointer(x, parameter, where, used)
    elif isinstance(x, ndarray | MemoryPointer) or x is None:
        raise TypeError(f"{where} is a pointer, the kernel takes {_text(parameter)}")
    elif parameter.kind == "i" and isinstance(x, bool):
        given = np.int64(x).tobytes()[: parameter.size]  # CuPy's bool is followed by zeros
    elif _kind(x) != parameter.kind or len(given) != parameter.size:
        raise TypeError(f"{where} is {_described(x)}, the kernel takes {_text(parameter)}")
    return given


def _bytes(x: Any, where: str) -> bytes:
    """What CuPy hands over: integers of 64 bits, floats of 64, NumPy's numbers as they are."""
    if x is None:
        return bytes(8)
    if isinstance(x, ndarray):
        return np.int64(address(x._a)).tobytes()
    if isinstance(x, MemoryPointer):
        return np.int64(x.ptr).tobytes()
    if isinstance(x, bool | int | float):
        large = type(x) is int and x >= 2**63
        return (np.uint64(x) if large else np.asarray(x)).tobytes()
    if isinstance(x, np.ndarray):
        if x.size != 1:
            raise TypeError(f"{where} is a NumPy array of shape {x.shape}, not cupy's")
        return x.tobytes()
    if isinstance(x, np.generic) and not isinstance(x, np.void):  # which CuPy 14.0 refuses
        return x.tobytes()
    raise TypeError(f"{where}: Unsupported type {type(x)}")


def _check_pointer(x: Any, parameter: Parameter, where: str, used: list[PooledMemory]) -> None:
    if x is None:
        return
    if isinstance(x, ndarray):
        owner = _memory(x._a)
        used.append(owner)
        if owner.device_id != machine.local.device:
            raise ValueError(
                f"{where} resides on device {owner.device_id}, the current device is "
                f"{machine.local.device}"
            )
        wrong = parameter.to_size and x.dtype.itemsize != parameter.to_size
        if wrong or (parameter.to == "f" and x.dtype.kind != "f"):
            to = _text(Parameter(parameter.to, parameter.to_size))
            raise TypeError(f"{where} is of {x.dtype}, the kernel takes a pointer to {to}")
    elif isinstance(x, MemoryPointer):
        used.append(x.mem)
    elif isinstance(x, bool) or not isinstance(x, int | np.integer):
        raise TypeError(f"{where} is {_described(x)}, the kernel takes a pointer")
    elif x and not memory.within(int(x)):
        raise CUDARuntimeError(700, f"{where}: there is nothing at {int(x):#x}")


def _kind(x: Any) -> str:
    if isinstance(x, np.ndarray | np.generic):
        return {"b": "i", "i": "i", "u": "i", "f": "f"}.get(x.dtype.kind, "s")
    return "i" if isinstance(x, int) else "f"


def _described(x: Any) -> str:
    if isinstance(x, np.ndarray | np.generic):
        return f"a {x.dtype if x.dtype.names is None else 'struct'} of {x.nbytes} bytes"
    return f"a Python {type(x).__name__}"


def _text(parameter: Parameter) -> str:
    kinds = {"p": "a pointer", "i": "an integer", "f": "a float", "s": "a struct"}
    return f"{kinds[parameter.kind]} of {parameter.size} bytes"
