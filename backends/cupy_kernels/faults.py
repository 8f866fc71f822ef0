"""Indices out of range: found on the device, raised when the host next waits for it.

So are negative powers of integers. A kernel that meets one writes it into memory of the host, which
the device reaches by itself; so looking costs the host nothing, and no kernel waits.
"""

from __future__ import annotations

import threading

import cupy
import numpy as np

FIELDS = 5  # found, low, size, what, there
FAULTS = np.dtype([("taken", np.uint64), ("record", np.uint64), ("what", np.int64)])
NEGATIVE_POWER = "pow: integers to negative powers are no integers; use x.to(float) ** y"

_names: list[str] = []  # what indices go into; kernels are given its place here
_records: dict[int, _Record] = {}  # by device
_arguments: dict[tuple[int, str], np.ndarray] = {}  # by device and name
_lock = threading.Lock()


class _Record:
    """Where the kernels of one device write."""

    def __init__(self) -> None:
        # Of no pool: it outlives every program, and the first call may be made in one's own.
        self.taken = cupy.ndarray(1, np.int32, cupy.cuda.MemoryPointer(cupy.cuda.Memory(4), 0))
        self.taken.fill(0)
        self.memory = cupy.cuda.alloc_pinned_memory(FIELDS * 8)
        self.fields = np.frombuffer(self.memory, np.int64, FIELDS)
        self.fields[:] = 0


def argument(what: str) -> np.ndarray:
    """The struct ``Faults`` of the current device, for indices into ``what``."""
    device = cupy.cuda.runtime.getDevice()
    found = _arguments.get((device, what))
    return _made(device, what) if found is None else found


def _made(device: int, what: str) -> np.ndarray:
    with _lock:
        record = _records[device] = _records.get(device) or _Record()
        if what not in _names:
            _names.append(what)
        made = np.zeros((), FAULTS)
        made[()] = (record.taken.data.ptr, record.memory.ptr, _names.index(what))
        return _arguments.setdefault((device, what), made)


def check() -> None:
    """IndexError for the first index out of range since the last call, ValueError for a power.

    The current device has been waited for.
    """
    record = _records.get(cupy.cuda.runtime.getDevice())
    if record is None or not record.fields[4]:
        return
    found, low, size, number, _ = record.fields.tolist()
    record.fields[:] = 0
    record.taken.fill(0)
    what = _names[number]
    if what == NEGATIVE_POWER:
        raise ValueError(what)
    raise IndexError(f"{what}: found index {found}, expected {low} to {size - 1}")
