"""CUDA C++ that is compiled when it is first needed, and its launch.

A kernel takes pointers (arrays; None is null), i64 (Python's integers and bools), double (floats)
and structs (0-d NumPy arrays of a structured dtype). Nothing here waits for the device.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import cupy
import numpy as np

from tinygrad_mnist.backends.cupy_kernels import faults
from tinygrad_mnist.kernels import ACTIVATIONS, Act, Array, Shape

FOLDER = Path(__file__).parent
FILES = tuple(sorted(path.stem for path in FOLDER.glob("*.cu") if path.stem != "common"))
REAL = {"f": "float", "d": "double"}  # by dtype.char
THREADS = 256  # of a block, where a kernel computes element by element
MOST = 16  # numbers of the host that a kernel may take
NUMBERS = np.dtype([("at", np.float64, (MOST,))])
ACTS = {None: 0} | {name: i for i, name in enumerate(ACTIVATIONS, 1)}

Fn = Callable[..., tuple[float, ...]]

capture = threading.local()  # .numbers: of the graph that this thread captures, where they will lie


def source(file: str) -> str:
    """The CUDA C++ of a file of kernels, with what all of them begin with."""
    return "\n".join((FOLDER / f"{name}.cu").read_text("utf-8") for name in ("common", file))


def options(char: str) -> tuple[str, ...]:
    """What the compiler is told for arrays of the dtype ``char``."""
    return ("--std=c++17", f"-Dreal={REAL[char]}")


@cache
def function(file: str, name: str, char: str) -> Any:
    """The kernel ``name`` for arrays of the dtype ``char``; CuPy compiles it for each device."""
    return _module(file, char).get_function(name)


@cache
def _module(file: str, char: str) -> Any:
    return cupy.RawModule(code=source(file), options=options(char))


class Launching:
    """Launches kernels on CuPy's current stream."""

    def _each(self, file: str, name: str, size: int, dtype: np.dtype, *arguments: Any) -> None:
        """The kernel ``name`` of ``file``, one thread for each of ``size`` elements."""
        if size:
            grid = (-(-size // THREADS),)
            function(file, name, dtype.char)(grid, (THREADS,), arguments)

    def _grid(
        self, file: str, name: str, grid: Shape, block: Shape, dtype: np.dtype, *arguments: Any
    ) -> None:
        """The kernel ``name`` of ``file`` on a grid of blocks; nothing where that is empty."""
        if math.prod(grid):
            function(file, name, dtype.char)(grid, block, arguments)

    def _numbers(self, fn: Fn, **static: Any) -> tuple[Any, Any]:
        """``fn(**static)`` as a kernel takes it: ``Numbers``, and where fresh ones lie, or None.

        A kernel whose static arguments may be computed anew for each call takes them so alone.
        """
        fresh = getattr(capture, "numbers", None)
        return packed(fn(**static)), None if fresh is None else fresh.place(fn, static)

    def _faults(self, what: str) -> np.ndarray:
        """The struct ``Faults``, for indices into ``what``."""
        return faults.argument(what)

    def _contiguous(self, x: Array) -> Array:
        return x if x.flags.c_contiguous else cupy.ascontiguousarray(x)


def packed(values: tuple[float, ...]) -> np.ndarray:
    """The struct ``Numbers``."""
    made = np.zeros((), NUMBERS)
    made["at"][: len(values)] = values
    return made


def bits(key: int) -> float:
    """A stream's key, an integer of 64 bits, as the double of the same bits."""
    return float(np.uint64(key).view(np.float64))


def act_of(act: Act) -> int:
    """The activation as a kernel takes it."""
    return ACTS[act]


def or_empty(out: Any, shape: Shape, dtype: np.dtype) -> Array:
    """``out``, or a new array where there is none."""
    return cupy.empty(shape, dtype) if out is None else out
