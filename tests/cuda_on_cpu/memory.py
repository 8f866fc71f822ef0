"""Memory of the devices: pools whose free pieces are full of NaN, with a fence round each piece."""

from __future__ import annotations

import bisect
import ctypes
import threading
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from cuda_on_cpu.runtime import Device, machine

ALIGNMENT = 512  # of a piece's address and size, as CuPy's
FENCE = 512  # bytes on either side
POISON = 0xFF  # NaN as a float, −1 as an integer

_fences = bytes([POISON]) * (FENCE + ALIGNMENT)
_lock = threading.RLock()
_addresses: list[int] = []  # of all chunks, sorted
_sizes: dict[int, int] = {}  # what was asked for; 0 of a free chunk
_chunks: weakref.WeakValueDictionary[int, Chunk] = weakref.WeakValueDictionary()
_broken: list[str] = []  # fences found broken where nothing could be raised


class OutOfMemoryError(MemoryError):
    """cupy.cuda.memory.OutOfMemoryError."""

    def __init__(self, size: int, total: int, limit: int = 0) -> None:
        text = f"Out of memory allocating {size:,} bytes (allocated so far: {total:,} bytes"
        super().__init__(text + (f", limit set to: {limit:,} bytes)." if limit else ")."))


def _forget(start: int) -> None:
    """The piece at ``start`` went back to the machine."""
    with _lock:
        del _addresses[bisect.bisect_left(_addresses, start)]
        del _sizes[start]


class Chunk:
    """A piece of a device's memory, in use or free."""

    def __init__(self, size: int, device: int, common: bool) -> None:
        self._raw = np.empty(size + ALIGNMENT + 2 * FENCE, np.uint8)
        start = -(-(self._raw.ctypes.data + FENCE) // ALIGNMENT) * ALIGNMENT
        at = start - self._raw.ctypes.data
        self.address, self.size, self.device = start, size, device
        self.common = common  # whether others may have it when it is free
        self.free = False
        self._bytes = self._raw[at - FENCE : at + size + FENCE]
        with _lock:
            bisect.insort(_addresses, start)
            _sizes[start] = 0
        _chunks[start] = self
        weakref.finalize(self, _forget, start).atexit = False

    def poison(self) -> None:
        self._bytes[:] = POISON

    def intact(self, used: int) -> bool:
        """Whether nobody wrote before the piece, or behind its first ``used`` bytes.

        In a pool of its own, where a graph may use the piece for larger arrays too: behind it.
        """
        used = used if self.common else self.size
        before, behind = self._bytes[:FENCE], self._bytes[FENCE + used :]
        return before.tobytes() == _fences[:FENCE] and behind.tobytes() == _fences[: len(behind)]

    def untouched(self) -> bool:
        return bool((self._bytes == POISON).all())


def check_fences() -> None:
    """RuntimeError where somebody had written beside a piece when it was freed."""
    if _broken:
        found = "; ".join(dict.fromkeys(_broken))
        _broken.clear()
        raise RuntimeError(found)


class PooledMemory:
    """A chunk in use, until nobody refers to it: cupy.cuda.memory.PooledMemory."""

    def __init__(self, chunk: Chunk, size: int, pool: MemoryPool) -> None:
        self.chunk, self.size = chunk, size
        self.ptr, self.device_id = chunk.address, chunk.device
        weakref.finalize(self, _freed, chunk, size, pool).atexit = False

    @property
    def device(self) -> Device:
        return Device(self.device_id)

    @property
    def __array_interface__(self) -> dict[str, Any]:
        """So that a NumPy array can lie here and keep it in use."""
        data = (self.ptr, False)
        return {"version": 3, "data": data, "shape": (self.size,), "typestr": "|u1"}

    def check(self, who: str) -> None:
        """RuntimeError where somebody wrote beside the piece."""
        if not self.chunk.intact(self.size):
            self.chunk.poison()
            raise RuntimeError(f"{who} wrote beside {self.size} bytes of the device")


def _freed(chunk: Chunk, size: int, pool: MemoryPool) -> None:
    """A piece that nobody refers to any more goes back to its pool, full of NaN."""
    if not chunk.intact(size):
        _broken.append(f"somebody wrote beside {size} bytes of the device")
    chunk.poison()
    pool._take_back(chunk)


class MemoryPointer:
    """cupy.cuda.MemoryPointer."""

    def __init__(self, mem: PooledMemory, offset: int) -> None:
        self.mem, self.ptr, self.device_id = mem, mem.ptr + offset, mem.device_id

    @property
    def device(self) -> Device:
        return Device(self.device_id)

    def __add__(self, offset: int) -> MemoryPointer:
        return MemoryPointer(self.mem, self.ptr - self.mem.ptr + offset)

    __radd__ = __add__

    def __sub__(self, offset: int) -> MemoryPointer:
        return self + -offset

    def __int__(self) -> int:
        return self.ptr


class MemoryPool:
    """cupy.cuda.MemoryPool: hands out again what came back, and gives nothing back by itself."""

    def __init__(self, allocator: Callable[[int], Any] | None = None, *, common: bool = False):
        self.common = common  # whether everybody is served from here
        self._limit = 0
        self._free: dict[tuple[int, int], list[Chunk]] = {}  # by device and size
        self._used: dict[int, int] = {}  # bytes by device
        self._total: dict[int, int] = {}

    def malloc(self, size: int) -> MemoryPointer:
        check_fences()
        device = machine.local.device
        rounded = max(1, -(-size // ALIGNMENT)) * ALIGNMENT
        with _lock:
            waiting = self._free.get((device, rounded))
            chunk = waiting.pop() if waiting else self._new(rounded, device)
            chunk.free, _sizes[chunk.address] = False, size
            self._used[device] = self._used.get(device, 0) + rounded
        if self.common and not chunk.untouched():
            chunk.poison()
            raise RuntimeError(f"{rounded} bytes were written to after they had been freed")
        chunk.poison()
        return MemoryPointer(PooledMemory(chunk, size, self), 0)

    def _new(self, size: int, device: int) -> Chunk:
        limit = self._limit or machine.memory
        if self._total.get(device, 0) + size > limit:
            self._drop(device)
        total = self._total.get(device, 0)
        if total + size > limit:
            raise OutOfMemoryError(size, total, self._limit)
        self._total[device] = total + size
        chunk = Chunk(size, device, self.common)
        chunk.poison()
        return chunk

    def _take_back(self, chunk: Chunk) -> None:
        with _lock:
            chunk.free, _sizes[chunk.address] = True, 0
            self._used[chunk.device] -= chunk.size
            self._free.setdefault((chunk.device, chunk.size), []).append(chunk)

    def _drop(self, device: int) -> None:
        for key in [key for key in self._free if key[0] == device]:
            for chunk in self._free.pop(key):
                self._total[device] -= chunk.size

    def free_all_blocks(self, stream: Any = None) -> None:
        with _lock:
            self._drop(machine.local.device)

    def used_bytes(self) -> int:
        return self._used.get(machine.local.device, 0)

    def total_bytes(self) -> int:
        return self._total.get(machine.local.device, 0)

    def free_bytes(self) -> int:
        return self.total_bytes() - self.used_bytes()

    def n_free_blocks(self) -> int:
        here = machine.local.device
        return sum(len(chunks) for (device, _), chunks in self._free.items() if device == here)

    def get_limit(self) -> int:
        return self._limit

    def set_limit(self, size: int | None = None, fraction: float | None = None) -> None:
        self._limit = int(fraction * machine.memory) if fraction is not None else size or 0


_default = MemoryPool(common=True)


def unpooled(size: int) -> PooledMemory:
    """cupy.cuda.Memory: a piece of no pool that anybody else knows."""
    return MemoryPool().malloc(size).mem


def get_default_memory_pool() -> MemoryPool:
    return _default


def alloc(size: int) -> MemoryPointer:
    """cupy.cuda.alloc: by the allocator of this thread."""
    return (machine.local.allocator or _default.malloc)(size)


def get_allocator() -> Callable[[int], Any]:
    return machine.local.allocator or _default.malloc


@contextmanager
def using_allocator(allocator: Callable[[int], Any] | None = None) -> Iterator[None]:
    """cupy.cuda.using_allocator."""
    before, machine.local.allocator = machine.local.allocator, allocator
    try:
        yield
    finally:
        machine.local.allocator = before


def _start(address: int) -> int:
    """Where the piece begins that ``address`` is in, or may be; 0 for none."""
    at = bisect.bisect_right(_addresses, address) - 1
    return _addresses[at] if at >= 0 else 0


def within(address: int, nbytes: int = 1) -> bool:
    """Whether these bytes are a piece's, of any pool, or page-locked memory of the host."""
    with _lock:
        start = _start(address)
        return bool(start) and address + nbytes <= start + _sizes[start]


def chunks(*addresses: int) -> list[Chunk]:
    """The pieces that these addresses are in."""
    with _lock:
        found = [_chunks.get(_start(address)) for address in addresses]
    return [each for each in found if each is not None]


def alloc_pinned_memory(size: int) -> Any:
    """cupy.cuda.alloc_pinned_memory: memory of the host, which the device reaches."""
    kind = type("PinnedMemoryPointer", (ctypes.c_ubyte * size,), {"ptr": property(_address)})
    made = kind()
    with _lock:
        bisect.insort(_addresses, made.ptr)
        _sizes[made.ptr] = size
        _pinned.append(made)
    return made


_pinned: list[Any] = []  # never given back: a kernel may still know where it lies


def _address(pinned: Any) -> int:
    return ctypes.addressof(pinned)
