"""The machine that the stand-in pretends to be: its devices, streams, graphs, and what is counted.

Everything runs at once, in the order of the calls, whatever the stream; but a stream that is
captured runs nothing and writes down what its graph is to do.
"""

from __future__ import annotations

import itertools
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

NAMES = {
    1: "cudaErrorInvalidValue: invalid argument",
    2: "cudaErrorMemoryAllocation: out of memory",
    101: "cudaErrorInvalidDevice: invalid device ordinal",
    400: "cudaErrorInvalidResourceHandle: invalid resource handle",
    401: "cudaErrorIllegalState: the operation cannot be performed in the present state",
    700: "cudaErrorIllegalAddress: an illegal memory access was encountered",
    719: "cudaErrorLaunchFailure: unspecified launch failure",
    900: "cudaErrorStreamCaptureUnsupported: operation not permitted when stream is capturing",
    901: "cudaErrorStreamCaptureInvalidated: operation failed due to a previous error during "
    "capture",
}


class CUDARuntimeError(RuntimeError):
    """What CuPy raises for an error of CUDA."""

    def __init__(self, status: int, detail: str = "") -> None:
        self.status = status
        super().__init__(NAMES.get(status, str(status)) + (f" ({detail})" if detail else ""))


class Seen(list[str]):
    """What crossed between host and device and what waited, a line each."""

    def __init__(self) -> None:
        super().__init__()
        self.launches: list[str] = []  # names of kernels, CuPy's functions, "gemm", "graph"


class Machine:
    """What tests may set, and what is there once."""

    def __init__(self) -> None:
        self.devices = 2
        self.memory = 8 << 30  # bytes of each device
        self.backwards = False  # whether blocks and threads run from the last to the first
        self.seen: list[Seen] = []  # who watches
        self.streams: weakref.WeakValueDictionary[int, Stream] = weakref.WeakValueDictionary()
        self.local = _Local()

    def note(self, line: str) -> None:
        """Something crossed, or waited."""
        for each in self.seen:
            each.append(line)

    def launched(self, name: str) -> None:
        for each in self.seen:
            each.launches.append(name)

    def capturing(self) -> Capture | None:
        """The capture of the current stream."""
        return get_current_stream()._capture

    def refuse_to_wait(self, streams: list[Stream], what: str) -> None:
        """A device that is to be waited for must not be capturing: that breaks the capture."""
        broken = [s._capture for s in streams if s._capture is not None]
        for capture in broken:
            capture.broken = what
        if broken:
            raise CUDARuntimeError(900, what)


class _Local(threading.local):
    """What each thread has of its own."""

    def __init__(self) -> None:
        self.device = 0
        self.current: dict[int, Stream] = {}  # by device
        self.allocator: Callable[[int], Any] | None = None


@contextmanager
def transfers() -> Iterator[Seen]:
    """What crosses between host and devices, and what waits for them, inside the ``with`` block."""
    seen = Seen()
    machine.seen.append(seen)
    try:
        yield seen
    finally:
        machine.seen.remove(seen)


# ---- devices


class Device:
    """cupy.cuda.Device."""

    def __init__(self, device: Any = None) -> None:
        found = machine.local.device if device is None else int(getattr(device, "id", device))
        self.id = found
        self._before: list[int] = []

    def __int__(self) -> int:
        return self.id

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Device) and other.id == self.id

    def __hash__(self) -> int:
        return hash(self.id)

    def __repr__(self) -> str:
        return f"<CUDA Device {self.id}>"

    def use(self) -> None:
        set_device(self.id)

    def __enter__(self) -> Device:
        before = machine.local.device
        set_device(self.id)
        self._before.append(before)
        return self

    def __exit__(self, *error: object) -> None:
        set_device(self._before.pop())

    def synchronize(self) -> None:
        with self:
            device_synchronize()

    compute_capability = "90"

    @property
    def mem_info(self) -> tuple[int, int]:
        return machine.memory, machine.memory

    @property
    def attributes(self) -> dict[str, int]:
        return {"MultiProcessorCount": 132, "MaxSharedMemoryPerBlock": 48 * 1024, "WarpSize": 32}


def set_device(device: int) -> None:
    if not 0 <= device < machine.devices:
        raise CUDARuntimeError(101)
    machine.local.device = device


def device_synchronize() -> None:
    """Waits for all streams of the current device."""
    here = [s for s in machine.streams.values() if s.device_id == machine.local.device]
    machine.refuse_to_wait(here, "the device is waited for")
    machine.note(f"waited for device {machine.local.device}")


# ---- streams and events

_handles = itertools.count(0x5000, 0x10)


class Stream:
    """cupy.cuda.Stream."""

    null: Stream

    def __init__(
        self, null: bool = False, non_blocking: bool = False, ptds: bool = False, priority: Any = 0
    ) -> None:
        self.ptr = 0 if null else next(_handles)
        self.device_id = -1 if null else machine.local.device
        self.is_non_blocking = non_blocking
        self._capture: Capture | None = None
        self._before: list[Stream] = []
        if not null:
            machine.streams[self.ptr] = self

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Stream) and other.ptr == self.ptr

    def __hash__(self) -> int:
        return self.ptr

    def __repr__(self) -> str:
        return f"<Stream {self.ptr} (device {self.device_id})>"

    def _check(self) -> None:
        if self.device_id not in (-1, machine.local.device):
            raise RuntimeError(
                f"the stream is of device {self.device_id}, the current one is "
                f"{machine.local.device}"
            )

    def use(self) -> Stream:
        self._check()
        machine.local.current[machine.local.device] = self
        return self

    def __enter__(self) -> Stream:
        self._check()
        self._before.append(get_current_stream())
        return self.use()

    def __exit__(self, *error: object) -> None:
        before = self._before.pop()
        device = machine.local.device if self.device_id < 0 else self.device_id
        machine.local.current[device] = before

    def synchronize(self) -> None:
        machine.refuse_to_wait([self], "a stream is waited for")
        machine.note(f"waited for stream {self.ptr}")

    @property
    def done(self) -> bool:
        machine.refuse_to_wait([self], "a stream is asked")
        return True

    def record(self, event: Event | None = None) -> Event:
        event = Event() if event is None else event
        event.record(self)
        return event

    def wait_event(self, event: Event) -> None:
        """Everything runs in order anyway."""
        if event._capture is not None and event._capture is not self._capture:
            raise NotImplementedError("the stand-in captures one stream at a time")

    def begin_capture(self, mode: int | None = None) -> None:
        if self.ptr in (0, 1):
            raise RuntimeError("cannot capture on the default (legacy) stream")
        if self._capture is not None:
            raise CUDARuntimeError(401, "the stream is capturing already")
        self._capture = Capture(machine.local.device)

    def end_capture(self) -> Graph:
        capture, self._capture = self._capture, None
        if capture is None:
            raise CUDARuntimeError(401, "the stream is not capturing")
        if capture.broken:
            raise CUDARuntimeError(901, capture.broken)
        return Graph(capture)

    def is_capturing(self) -> bool:
        if self._capture is not None and self._capture.broken:
            raise RuntimeError(
                "the stream was capturing, but an error has invalidated the capture sequence"
            )
        return self._capture is not None


def get_current_stream(device_id: int = -1) -> Stream:
    device = machine.local.device if device_id == -1 else device_id
    return machine.local.current.get(device, Stream.null)


class Event:
    """cupy.cuda.Event."""

    def __init__(self, block: bool = False, disable_timing: bool = False) -> None:
        self.ptr = next(_handles)
        self._timed = not disable_timing
        self._at: float | None = None
        self._capture: Capture | None = None

    def record(self, stream: Stream | None = None) -> None:
        stream = get_current_stream() if stream is None else stream
        self._at, self._capture = time.perf_counter(), stream._capture

    @property
    def done(self) -> bool:
        return True

    def synchronize(self) -> None:
        if self._capture is not None:
            self._capture.broken = "an event of the capture is waited for"
            raise CUDARuntimeError(900, self._capture.broken)
        machine.note("waited for an event")


def get_elapsed_time(start: Event, end: Event) -> float:
    """In milliseconds."""
    for event in (start, end):
        if event._at is None or not event._timed or event._capture is not None:
            raise CUDARuntimeError(400, "the event has no time")
    assert start._at is not None and end._at is not None
    return (end._at - start._at) * 1e3


# ---- graphs


class Capture:
    """What a stream was asked to do while it was captured."""

    def __init__(self, device: int) -> None:
        self.device = device
        self.broken = ""  # what it was asked that no graph can do
        self.nodes: list[Callable[[], None]] = []
        self.names: list[str] = []
        self.chunks: dict[int, Any] = {}  # weak references to the memory it uses, by address

    def add(self, name: str, node: Callable[[], None], chunks: Any = ()) -> None:
        """One more node; ``chunks`` are the pieces of memory that it is known to use."""
        self.nodes.append(node)
        self.names.append(name)
        for chunk in chunks:
            self.chunks[chunk.address] = weakref.ref(chunk)


class Graph:
    """cupy.cuda.Graph: uses the very memory that was named at the capture, whoever has it now."""

    def __init__(self, capture: Capture) -> None:
        self._capture = capture
        self.names = capture.names  # of the nodes, for tests

    def upload(self, stream: Stream | None = None) -> None:
        """Nothing to do."""

    def launch(self, stream: Stream | None = None) -> None:
        stream = get_current_stream() if stream is None else stream
        if stream.is_capturing():
            raise NotImplementedError("the stand-in has no graph within a graph")
        if machine.local.device != self._capture.device:
            raise CUDARuntimeError(400, f"the graph is of device {self._capture.device}")
        self._check()
        machine.launched("graph")
        for node in self._capture.nodes:
            node()

    def _check(self) -> None:
        """A card would write into memory that is nobody's, or somebody else's by now."""
        for address, reference in self._capture.chunks.items():
            chunk = reference()
            if chunk is None:
                raise CUDARuntimeError(700, f"the graph uses memory at {address:#x}, given back")
            if chunk.free and chunk.common:
                raise RuntimeError(
                    f"the graph uses {chunk.size} bytes at {address:#x} that went back to the pool "
                    "of all: others may have them"
                )


machine = Machine()
Stream.null = Stream(null=True)
