"""NVIDIA's driver, asked by itself: its library comes with it, and with nothing else.

What leaves are numbers and lines for people. No CUDA package is imported, so that asking costs
little where there is no GPU: a tenth of a millisecond without a driver.
"""

from __future__ import annotations

import ctypes
import importlib.util
import os
from functools import cache

NO_DEVICE = 100  # what the driver answers where there is none


@cache
def library() -> ctypes.CDLL | None:
    """The driver's library; None where there is no driver."""
    try:
        return ctypes.CDLL("nvcuda.dll" if os.name == "nt" else "libcuda.so.1")
    except OSError:
        return None


def started() -> int:
    """What the driver answers when it is to start: 0, ``NO_DEVICE``, or another error's number."""
    driver = library()
    return NO_DEVICE if driver is None else int(driver.cuInit(0))


def version() -> tuple[int, int] | None:
    """The newest CUDA that the driver runs, such as (13, 0); None where there is no driver."""
    driver, found = library(), ctypes.c_int()
    if driver is None or driver.cuDriverGetVersion(ctypes.byref(found)):
        return None
    return found.value // 1000, found.value % 1000 // 10


def devices() -> list[str]:
    """The name and the memory of each device; none where the driver does not start."""
    driver, count = library(), ctypes.c_int()
    if driver is None or started() or driver.cuDeviceGetCount(ctypes.byref(count)):
        return []
    return [_described(driver, number) for number in range(count.value)]


def cupy_may_run() -> bool:
    """Whether it is worth while to import CuPy, which takes 0.2 s."""
    return has_cupy() and started() != NO_DEVICE


def has_cupy() -> bool:
    """Whether CuPy is installed."""
    return importlib.util.find_spec("cupy") is not None


def brings_cupy() -> str:
    """What is missing besides CuPy, and the line that mends it, by the driver that is there."""
    newest = version()
    if newest is None:
        return "there is no NVIDIA driver; mend it with: NVIDIA's driver, if there is a GPU"
    if newest < (12, 0):
        old = f"NVIDIA's driver is for CUDA {newest[0]}.{newest[1]}, expected 12 or later"
        return f"{old}; mend it with: a new NVIDIA driver"
    extra = "cuda12" if newest < (13, 0) else "cuda13"
    return f"mend it with: pip install 'tinygrad_mnist[{extra}]'"


def _described(driver: ctypes.CDLL, number: int) -> str:
    device, name, size = ctypes.c_int(), ctypes.create_string_buffer(100), ctypes.c_size_t()
    driver.cuDeviceGet(ctypes.byref(device), number)
    driver.cuDeviceGetName(name, len(name), device)
    driver.cuDeviceTotalMem_v2(ctypes.byref(size), device)
    return f"{name.value.decode(errors='replace')}, {size.value / 2**30:.0f} GiB"
