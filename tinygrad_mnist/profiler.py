"""Where the time goes: a table of the kernels that ran, and a trace of them.

``profile`` observes the door for a ``with`` block, ``profile_program`` for a whole program.
"""

from __future__ import annotations

import atexit
import json
import math
import os
import sys
import threading
from array import array
from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter_ns
from typing import Any, Self

from tinygrad_mnist import config
from tinygrad_mnist.contract import label, spec
from tinygrad_mnist.dispatch import Call, Observer, observe, observe_everywhere
from tinygrad_mnist.flops import multiply_adds
from tinygrad_mnist.utils.files import write_whole

OUTSIDE = "outside of kernels (Python)"


@dataclass(frozen=True, slots=True)
class Row:
    """A line of the table: the calls of one kernel in one phase, or the time outside of them all.

    ``bytes`` were read and written, ``flops`` computed, by all calls together; ``flops`` is 0 where
    nobody counts them. ``shapes`` are those of the inputs, where the table is by shape.
    """

    kernel: str
    phase: str
    replayed: bool
    shapes: str
    calls: int
    seconds: float
    share: float  # of the whole time
    bytes: int
    flops: int


@dataclass(slots=True, eq=False)
class _Kind:
    """Calls that differ in nothing but their numbers; ``bytes`` and ``flops`` are of one call."""

    number: int
    kernel: str
    phase: str
    replayed: bool
    shapes: str
    bytes: int
    flops: int
    calls: int = 0
    ns: int = 0


class _Thread:
    """The kernel calls of one thread."""

    def __init__(self) -> None:
        self.kinds: dict[Any, _Kind] = {}
        self.first = 0  # perf_counter_ns at the first call and after the last
        self.last = 0
        self.own = 0  # nanoseconds that writing the calls down took

    def add(self, call: Call, result: Any) -> _Kind:
        """Write down a call that has run."""
        layouts = _layout(call.arrays), _layout(result)
        key = (label(call.kernel, call.static), call.phase, call.replayed, layouts)
        kind = self.kinds.get(key)
        if kind is None:
            kind = self.kinds[key] = _kind(len(self.kinds), call, result)
        kind.calls += 1
        kind.ns += call.ended - call.started
        self.first = self.first or call.started
        self.last = call.ended
        return kind


class profile(Observer):
    """Times every kernel that the ``with`` block runs in its thread::

        with tg.profile() as p:
            step(x, y)
        print(p)
        p.export_chrome_trace("trace.json")

    A kernel's time is that of its call alone, without what observers do around it. The rest of
    the block is the table's last line; the profile's own work is left out, but not the microsecond
    by which the door takes longer for a call that is observed. The first call of a kernel may
    compile it: run the block once before. On a device that computes while Python goes on, the time
    is that of the launch. A recorded step replays kernel by kernel.

    The table can be had inside the block, too, and after an error. To enter a profile again adds
    to it; RuntimeError while it runs. Where one is inside another, both count the calls of the
    inner block. Each call takes 32 bytes of memory.
    """

    def __init__(self) -> None:
        self._thread = _Thread()
        self._events = array("q")  # number of the kind, start, end and thread of each call
        self._ended = 0  # nanoseconds in the blocks that are over
        self._started: int | None = None  # perf_counter_ns where a block runs
        self._entering = threading.Lock()
        self._observing: AbstractContextManager[Observer]
        self._id = 0

    def __enter__(self) -> Self:
        with self._entering:
            if self._started is not None:
                raise RuntimeError("this profile is running already; make another one")
            self._started = perf_counter_ns()
        self._id = threading.get_native_id()
        self._observing = observe(self)
        self._observing.__enter__()
        return self

    def __exit__(self, *error: object) -> None:
        self._ended = self._elapsed()
        self._started = None
        self._observing.__exit__(None, None, None)

    def after(self, call: Call, result: Any) -> None:
        kind = self._thread.add(call, result)
        self._events.extend((kind.number, call.started, call.ended, self._id))
        self._thread.own += perf_counter_ns() - call.ended

    def _elapsed(self) -> int:
        running = 0 if self._started is None else perf_counter_ns() - self._started
        return self._ended + running

    def rows(self, by_shape: bool = False) -> list[Row]:
        """The lines of the table, the longest time first; the last is what is outside of kernels.

        The shares add up to 1.
        """
        return _rows(self._thread.kinds.values(), self._elapsed() - self._thread.own, by_shape)

    def table(self, by_shape: bool = False) -> str:
        """A line per kernel and phase, or with ``by_shape`` per shapes of its inputs, too.

        Bytes are those of the arrays read and written, each once, none for a view; GFLOP/s count
        multiply-adds of products and convolutions as two. Replayed calls have lines of their own.
        """
        return _table(self.rows(by_shape))

    def __str__(self) -> str:
        return self.table()

    def __repr__(self) -> str:
        calls = len(self._events) // 4
        return f"<profile of {calls} kernel calls in {self._elapsed() / 1e6:.3f} ms>"

    def export_chrome_trace(self, path: str | Path) -> None:
        """Write every call for chrome://tracing or https://ui.perfetto.dev, as JSON.

        The file is whole or not there. OSError where it cannot be written.
        """
        kinds = list(self._thread.kinds.values())
        events = self._events.tolist()
        calls = zip(events[::4], events[1::4], events[2::4], events[3::4], strict=True)
        traced = [_event(kinds[number], *times) for number, *times in calls]
        text = json.dumps({"traceEvents": traced, "displayTimeUnit": "ns"})
        write_whole(path, text.encode())


def _event(kind: _Kind, started: int, ended: int, thread: int) -> dict[str, Any]:
    """A call in the Trace Event Format of Chrome: a complete event, in microseconds."""
    return {
        "name": kind.kernel,
        "cat": kind.phase,
        "ph": "X",
        "ts": started / 1000,
        "dur": (ended - started) / 1000,
        "pid": os.getpid(),
        "tid": thread,
        "args": {
            "shapes": kind.shapes,
            "bytes": kind.bytes,
            "flops": kind.flops,
            "replayed": kind.replayed,
        },
    }


# ---- the whole program


class _Program(Observer):
    """Times every kernel of every thread."""

    def __init__(self) -> None:
        self._started = perf_counter_ns()
        self._process = os.getpid()
        self._local = threading.local()
        self._here = self._local.seen = _Thread()
        self._threads = [self._here]

    def after(self, call: Call, result: Any) -> None:
        seen: _Thread | None = getattr(self._local, "seen", None)
        if seen is None:
            seen = self._local.seen = _Thread()
            self._threads.append(seen)
        seen.add(call, result)
        seen.own += perf_counter_ns() - call.ended

    def show(self) -> None:
        """Print the table, unless no kernel ran; a fork leaves it to its parent."""
        elapsed = perf_counter_ns() - self._started
        # Of the other threads only this much is known: from their first kernel to their last.
        elapsed += sum(t.last - t.first for t in self._threads if t is not self._here)
        kinds = [kind for t in self._threads for kind in list(t.kinds.values())]
        if kinds and sys.stderr is not None and os.getpid() == self._process:
            own = sum(t.own for t in self._threads)
            print(_table(_rows(kinds, elapsed - own, by_shape=False)), file=sys.stderr)


_program: _Program | None = None


def profile_program() -> None:
    """If ``TINYGRAD_MNIST_PROFILE`` says so, profile all that follows, and show it at the end.

    A value that means nothing is told in a line, and nothing is profiled.
    """
    global _program
    try:
        wanted = config.profile()
    except ValueError as error:
        print(f"tinygrad_mnist: {error}", file=sys.stderr)
        return
    if wanted and _program is None:
        _program = _Program()
        observe_everywhere(_program)
        atexit.register(_program.show)


# ---- the table


def _rows(kinds: Iterable[_Kind], elapsed: int, by_shape: bool) -> list[Row]:
    """One row for the kinds that are alike, and one for what of ``elapsed`` they leave."""
    alike: dict[tuple[str, str, bool, str], list[_Kind]] = {}
    for kind in list(kinds):
        key = (kind.kernel, kind.phase, kind.replayed, kind.shapes if by_shape else "")
        alike.setdefault(key, []).append(kind)
    rows = [_row(*key, group, elapsed) for key, group in alike.items()]
    rows.sort(key=lambda row: -row.seconds)
    left = elapsed - sum(kind.ns for group in alike.values() for kind in group)
    share = left / elapsed if elapsed else 0.0
    return [*rows, Row(OUTSIDE, "", False, "", 0, left / 1e9, share, 0, 0)]


def _row(
    kernel: str, phase: str, replayed: bool, shapes: str, kinds: Sequence[_Kind], elapsed: int
) -> Row:
    calls = sum(kind.calls for kind in kinds)
    ns = sum(kind.ns for kind in kinds)
    moved = sum(kind.calls * kind.bytes for kind in kinds)
    flops = sum(kind.calls * kind.flops for kind in kinds)
    return Row(kernel, phase, replayed, shapes, calls, ns / 1e9, ns / elapsed, moved, flops)


_COLUMNS: dict[str, Callable[[Row], str]] = {
    "kernel": lambda row: row.kernel,
    "phase": lambda row: row.phase,
    "run": lambda row: "replayed" if row.replayed else "plain" if row.calls else "",
    "calls": lambda row: f"{row.calls:,}" if row.calls else "",
    "total ms": lambda row: f"{row.seconds * 1e3:,.3f}",
    "mean us": lambda row: f"{row.seconds * 1e6 / row.calls:,.1f}" if row.calls else "",
    "share": lambda row: f"{row.share:.1%}",
    "MB": lambda row: f"{row.bytes / 1e6:,.3f}" if row.bytes else "",
    "GFLOP/s": lambda row: (
        f"{row.flops / row.seconds / 1e9:,.1f}" if row.flops and row.seconds else ""
    ),
    "shapes": lambda row: row.shapes,
}
WORDS = ("kernel", "phase", "run", "shapes")  # these columns begin at the left


def cells(rows: Sequence[Row]) -> list[list[str]]:
    """The table's texts, the titles first; columns that nobody needs are left out."""
    titles = list(_COLUMNS)
    if not any(row.replayed for row in rows):
        titles.remove("run")
    if not any(row.shapes for row in rows):
        titles.remove("shapes")
    return [titles] + [[_COLUMNS[title](row) for title in titles] for row in rows]


def _table(rows: Sequence[Row]) -> str:
    """Lines of columns under a heading."""
    texts = cells(rows)
    widths = [max(map(len, column)) for column in zip(*texts, strict=True)]
    lines = []
    for line in texts:
        columns = zip(texts[0], line, widths, strict=True)
        padded = [c.ljust(w) if title in WORDS else c.rjust(w) for title, c, w in columns]
        lines.append("  ".join(padded).rstrip())
    return "\n".join(lines)


# ---- what a call reads, writes and computes

_AT_INDICES = {"take", "take_scaled", "put_"}  # of the first array only what is at the second's
_OVERWRITING = {"copy_", "fill_", "put_"}  # what they write they do not read


def _layout(x: Any) -> Any:
    """What tells calls apart: shape, strides and dtype of arrays, in lists and tuples of them."""
    if isinstance(x, list | tuple):
        return tuple([_layout(each) for each in x])
    return (x.shape, x.strides, x.dtype) if hasattr(x, "shape") else None


def _kind(number: int, call: Call, result: Any) -> _Kind:
    shapes = " ".join(_shapes(x) for x in call.arrays if x is not None)
    flops = 2 * multiply_adds(call, result)
    moved = _moved(call, result)
    return _Kind(
        number, label(call.kernel, call.static), call.phase, call.replayed, shapes, moved, flops
    )


def _shapes(x: Any) -> str:
    if isinstance(x, list | tuple):
        return f"[{' '.join(map(_shapes, x))}]"
    return str(tuple(x.shape)) if hasattr(x, "shape") else str(x)


def _moved(call: Call, result: Any) -> int:
    """The bytes a call reads and writes."""
    contract = spec(call.kernel)
    if contract.kind == "view":
        return 0
    touched = [_bytes(x) for x in call.arrays]
    if call.kernel in _AT_INDICES:
        x, index = call.arrays[:2]
        row = x.size // max(1, x.shape[call.static.get("dim", 0)])
        touched[0] = index.size * row * x.dtype.itemsize
    written = _bytes(result)
    if contract.kind == "inplace":
        named = zip(contract.inputs, touched, strict=False)
        written = sum(size for name, size in named if name in contract.writes)
    read = sum(touched) - (written if call.kernel in _OVERWRITING else 0)
    return read + written


def _bytes(x: Any) -> int:
    """Of an array, or of all in a list or tuple; what is repeated by a stride of 0 counts once."""
    if isinstance(x, list | tuple):
        return sum(map(_bytes, x))
    if not hasattr(x, "shape"):
        return 0
    lengths = (n for n, stride in zip(x.shape, x.strides, strict=True) if stride or not n)
    size: int = math.prod(lengths) * x.dtype.itemsize
    return size
