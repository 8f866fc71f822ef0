"""Recorded steps as CUDA graphs: one launch for all kernels of a program.

What enters are the steps of a program, what leaves are functions that run them; the backend's
``prepared`` alone calls this. A graph holds the very pointers and numbers of its capture, so:

- numbers that the host computes anew are carried to the device by one small kernel before it;
- an argument that lies elsewhere than at the capture is copied into a buffer, of which there is a
  second graph; one that lies where the graph writes must not be, so the steps run by themselves;
- memory that kernels take for themselves comes from a pool that is never used for anything else.

Everything is launched on one stream of the device, CuPy's default one: graphs may share memory.
"""

from __future__ import annotations

import sys
import threading
from bisect import bisect_left
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import cache, partial
from itertools import groupby
from typing import Any

import cupy
import numpy as np

from tinygrad_mnist.backends.cupy_kernels import gemm
from tinygrad_mnist.backends.cupy_kernels.launching import MOST, NUMBERS, THREADS, capture, function
from tinygrad_mnist.kernels import Array, Backend, Step

Fn = Callable[..., tuple[float, ...]]
Run = Callable[[], None]

WARM = 2  # runs before the capture: they compile, and fill the pool
CARRIED = 30  # kernels' numbers in one launch; ``graphs.cu`` says why
_CARRIED = np.dtype([("of", NUMBERS, (CARRIED,))])

_lock = threading.RLock()  # of the streams for captures


class UncapturableError(Exception):
    """A step that cannot be part of a graph; ``number`` says which, of those captured."""

    def __init__(self, number: int, reason: str) -> None:
        super().__init__(reason)
        self.number = number


class Fresh:
    """Where a graph's kernels find the numbers that the host computes for each launch."""

    def __init__(self, size: int) -> None:
        self.memory = cupy.zeros((max(1, size), MOST), np.float64)
        self.step: Step | None = None  # that is being captured
        self._given: list[tuple[Fn, Step, dict[str, Any]]] = []
        # CuPy 14.0 takes a struct as an array, and not as an element of one.
        self._carried = [np.zeros((), _CARRIED) for _ in range(0, size, CARRIED)]

    def place(self, fn: Fn, static: dict[str, Any]) -> Array | None:
        """Where ``fn`` of the step's numbers will lie; None where these never change."""
        assert self.step is not None
        if not self.step.hosted:
            return None
        if len(self._given) == len(self.memory):
            raise RuntimeError(f"{self.step.kernel} takes numbers of the host more than once")
        self._given.append((fn, self.step, static))
        return self.memory[len(self._given) - 1]

    def taken(self) -> int:
        """How many kernels' numbers there are."""
        return len(self._given)

    def carry(self) -> None:
        """Compute them and launch what carries them to the device."""
        for i, (fn, step, static) in enumerate(self._given):
            hosted = {name: step.static[name] for name in static if name in step.hosted}
            values = fn(**{**static, **hosted})
            self._carried[i // CARRIED]["of"]["at"][i % CARRIED, : len(values)] = values
        for start in range(0, self.taken(), CARRIED):
            count = min(CARRIED, self.taken() - start)
            arguments = self.memory[start:], self._carried[start // CARRIED], count
            grid = (-(-count * MOST // THREADS),)
            function("graphs", "carry", "f")(grid, (THREADS,), arguments)


def prepared(backend: Backend, steps: Sequence[Step]) -> list[Run]:
    """Functions that run ``steps``; those that may be one graph are one function."""
    runs: list[Run] = []
    for alone, group in groupby(steps, _writes_to_argument):
        found = list(group)
        if alone:
            runs += [partial(step.run, backend) for step in found]
        else:
            runs.append(Captured(backend, found, cupy.cuda.MemoryPool()))
    return runs


def _writes_to_argument(step: Step) -> bool:
    """Whether it may write to memory that lies elsewhere at the next run."""
    return step.out is None and bool(step.moving)


class Captured:
    """Steps that are launched as one CUDA graph, once they have run by themselves twice."""

    def __init__(self, backend: Backend, steps: list[Step], pool: Any, warm: int = WARM) -> None:
        self._backend = backend
        self._steps = steps
        self._warm = warm
        self._pool = pool
        self._moving = [(step, i) for step in steps for i in step.moving]
        self._at: list[Any] = []  # where arguments lay at the capture
        self._direct: _Graph | None = None  # which reads arguments there
        self._buffered: _Graph | None = None  # which reads copies of them
        self._copied: list[tuple[Array, Step, int]] = []  # buffers, and whose argument each holds
        self._written: list[tuple[int, int]] = []  # from where to where the steps may write, apart
        self._parts: list[Run] = []  # instead, where not all can be captured
        self._reason = ""

    def __call__(self) -> None:
        with self._backend.here():
            self._advance()

    def _advance(self) -> None:
        if self._parts:
            for part in self._parts:
                part()
        elif self._warm:
            self._warm -= 1
            with _Aside(self._pool):
                for step in self._steps:
                    step.run(self._backend)
        else:
            self._launch()

    @property
    def about(self) -> str:
        """How it runs, for people."""
        if self._parts:
            inner = [part.about for part in self._parts if isinstance(part, Captured)]
            return "; ".join([*inner, self._reason])
        if self._direct is None:
            return f"a CUDA graph of {len(self._steps)} kernels, captured at its third run"
        return f"a CUDA graph of {len(self._steps)} kernels"

    def parts(self) -> list[Run]:
        """What it runs: itself as one graph, or graphs and kernels in turns."""
        inner = [part.parts() if isinstance(part, Captured) else [part] for part in self._parts]
        return [each for parts in inner for each in parts] or [self]

    def _launch(self) -> None:
        try:
            graph = self._graph()
        except MemoryError as error:
            self._backend.explain(error)
            raise
        except UncapturableError as error:
            self._split(error)
            self._advance()
            return
        if graph is None:
            for step in self._steps:
                step.run(self._backend)
            return
        copied = self._copied if graph is self._buffered else []
        graph.launch([(buffer, step.arrays[i]) for buffer, step, i in copied])

    def _graph(self) -> _Graph | None:
        """The graph that reads what the arguments hold now; None where a copy may be too early."""
        at = [_lies(step.arrays[i]) for step, i in self._moving]
        if self._direct is None:
            self._direct, self._at = _Graph(self._backend, self._steps, self._pool), at
        if at == self._at:
            return self._direct
        if any(self._writes_to(step.arrays[i]) for step, i in self._moving):
            return None
        if self._buffered is None:
            self._buffered = self._with_buffers()
        return self._buffered

    def _writes_to(self, x: Array) -> bool:
        """Whether a step may write where ``x`` lies: to what is state, or a gradient, as well."""
        if not self._written:
            self._written = _joined([_bounds(x) for s in self._steps for x in _may_write(s)])
        start, end = _bounds(x)
        before = bisect_left(self._written, (end,)) - 1  # the last that begins before the end
        return before >= 0 and start < self._written[before][1]

    def _with_buffers(self) -> _Graph:
        """A graph that reads copies of the arguments, wherever these lie."""
        given = [step.arrays[i] for step, i in self._moving]
        buffers: dict[Any, Array] = {}
        copied = []
        for array, (step, i) in zip(given, self._moving, strict=True):
            if _lies(array) not in buffers:
                buffer = buffers[_lies(array)] = cupy.empty_like(array, order="K")
                copied.append((buffer, step, i))
        try:
            self._put([buffers[_lies(array)] for array in given])
            made = _Graph(self._backend, self._steps, self._pool)
        finally:
            self._put(given)
        self._copied = copied
        return made

    def _put(self, arrays: Sequence[Array]) -> None:
        for (step, i), array in zip(self._moving, arrays, strict=True):
            step.arrays[i] = array

    def _split(self, error: UncapturableError) -> None:
        """Run the step that cannot be captured by itself, between graphs of the others."""
        step = self._steps[error.number]
        before, after = self._steps[: error.number], self._steps[error.number + 1 :]
        between: list[Run] = [partial(step.run, self._backend)]
        self._parts = [*self._captured(before), *between, *self._captured(after)]
        self._reason = f"{step.kernel} by itself ({step.line}): {error}"
        _say_once(step.kernel, str(error))

    def _captured(self, steps: list[Step]) -> list[Run]:
        return [Captured(self._backend, steps, self._pool, 0)] if steps else []


class _Graph:
    """A captured graph and the numbers that it takes."""

    def __init__(self, backend: Backend, steps: Sequence[Step], pool: Any) -> None:
        self._fresh = Fresh(sum(bool(step.hosted) for step in steps))
        with _Aside(pool) as stream:
            number = 0
            stream.begin_capture()
            capture.numbers = self._fresh
            try:
                for step in steps:
                    _capture_step(backend, step, self._fresh)
                    number += 1
                self._graph = stream.end_capture()
                self._workspace = gemm.workspace(stream.ptr)  # this thread may end before the graph
            except Exception as error:
                _abandon(stream)
                if isinstance(error, MemoryError):  # there may be more of it at the next call
                    raise
                raise UncapturableError(min(number, len(steps) - 1), _first_line(error)) from error
            finally:
                capture.numbers = None

    def launch(self, copied: Sequence[tuple[Array, Array]]) -> None:
        """Fill the buffers ``copied``, each with its array, carry the host's numbers, launch it.

        All on the device's default stream, where no earlier launch reads them any more.
        """
        current, default = cupy.cuda.get_current_stream(), cupy.cuda.Stream.null
        if current == default:
            self._start(copied)
            return
        default.wait_event(current.record())
        with default:
            self._start(copied)
        current.wait_event(default.record())

    def _start(self, copied: Sequence[tuple[Array, Array]]) -> None:
        for buffer, array in copied:
            buffer[...] = array
        self._fresh.carry()
        self._graph.launch()


def _capture_step(backend: Backend, step: Step, fresh: Fresh) -> None:
    before, fresh.step = fresh.taken(), step
    step.run(backend)
    if step.hosted and fresh.taken() == before:
        raise RuntimeError(
            f"{step.kernel} has {', '.join(step.hosted)} built in, which the host may change"
        )


class _Aside:
    """``with _Aside(pool) as stream:`` what is launched goes to the device's stream for captures.

    It comes after what was launched before, and what is launched afterwards comes after it.
    """

    def __init__(self, pool: Any) -> None:
        self._stream = _stream(cupy.cuda.runtime.getDevice())
        self._allocator = cupy.cuda.using_allocator(pool.malloc)

    def __enter__(self) -> Any:
        _lock.acquire()
        self._around = cupy.cuda.get_current_stream()
        self._stream.wait_event(self._around.record())
        self._stream.__enter__()
        self._allocator.__enter__()
        return self._stream

    def __exit__(self, *error: Any) -> None:
        self._allocator.__exit__(*error)
        self._stream.__exit__(*error)
        self._around.wait_event(self._stream.record())
        _lock.release()


@cache
def _stream(device: int) -> Any:
    """The stream on which the graphs of a device are captured: the default one cannot."""
    return cupy.cuda.Stream(non_blocking=True)


def _abandon(stream: Any) -> None:
    """End a capture that failed; the error that ended it tells more than this one.

    Whether there still is one is not asked: CuPy's ``is_capturing`` raises where it is broken.
    """
    with suppress(RuntimeError):  # CuPy's are
        stream.end_capture()


def _may_write(step: Step) -> list[Array]:
    """What a step fills; of one in place all that it is given."""
    found = [step.out] if step.out is not None else step.arrays
    inner = [each if isinstance(each, list | tuple) else [each] for each in found]
    return [x for each in inner for x in each if hasattr(x, "strides")]


def _bounds(x: Array) -> tuple[int, int]:
    """The addresses from which to which ``x`` lies."""
    if not x.size:
        return 0, 0
    ways = [step * (size - 1) for size, step in zip(x.shape, x.strides, strict=True)]
    start, end = (x.data.ptr + sum(each(way, 0) for way in ways) for each in (min, max))
    return start, end + x.itemsize


def _joined(ranges: list[tuple[int, int]]) -> list[tuple[int, int]]:
    """The same addresses in ranges that do not meet, in order."""
    made: list[tuple[int, int]] = []
    for start, end in sorted(ranges):
        if made and start <= made[-1][1]:
            made[-1] = made[-1][0], max(made[-1][1], end)
        else:
            made.append((start, end))
    return made


def _lies(x: Array) -> tuple[Any, ...]:
    return (x.data.ptr, x.shape, x.strides, x.dtype)


_said: set[tuple[str, str]] = set()


def _say_once(kernel: str, reason: str) -> None:
    if (kernel, reason) not in _said:
        _said.add((kernel, reason))
        print(f"tinygrad_mnist: {kernel} runs outside of CUDA graphs: {reason}", file=sys.stderr)


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
