"""The one door through which every kernel call goes.

Observers of this thread see each call before and after it runs; no op and no kernel knows of them.
They are also told of what happens beside the kernels and bears on a replay: memory that is written,
gradients that are set, values that go to the host or come from there, Python work to be repeated.
"""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from time import perf_counter_ns
from typing import Any

import numpy as np

from tinygrad_mnist.kernels import Backend

Fn = Callable[[], Any]

sequence = itertools.count()  # the nodes of the graph have numbers of it, in order


@dataclass(slots=True)
class Host:
    """A number that the host computes anew for every call, such as a learning rate."""

    fn: Fn


def host(fn: Fn) -> Host:
    """A static argument that is evaluated at each call of the kernel, replays included."""
    return Host(fn)


@dataclass(slots=True)
class Call:
    """One pass through the door, as observers see it."""

    backend: Backend
    kernel: str
    arrays: Sequence[Any]
    static: Mapping[str, Any]
    out: Any
    hosts: Mapping[str, Fn] = field(default_factory=dict)  # of the static ones that the host gives
    phase: str = "forward"  # or "backward", "update"
    instruction: Any = None  # of the recorded step that makes the call; it knows the user's line
    layer: Any = None  # at work; str() names it
    started: int = 0  # perf_counter_ns before the kernel and after it, for ``after``
    ended: int = 0

    @property
    def replayed(self) -> bool:
        """Whether a recorded step makes it."""
        return self.instruction is not None


@dataclass(slots=True)
class Guard:
    """What a recorded step relies on: ``fn`` gives what it gave when the step was recorded.

    Where it gives something else, the step is recorded anew, or if there is an ``error``, which
    says what changed, that is raised. It is looked at where ``changed`` was called since, or if
    ``always``, before each replay. ``keeps``: it gives the ids of arrays, and whose they are; the
    step may not read one and put another in its place.
    """

    fn: Fn
    error: str = ""
    always: bool = False
    keeps: str = ""


class Observer:
    """Sees every kernel call of the thread in which ``observe`` entered it."""

    def before(self, call: Call) -> None:
        """Called before the kernel runs."""

    def after(self, call: Call, result: Any) -> None:
        """Called with what the kernel returned."""

    def host_read(self, what: str) -> None:
        """Called before values are read on the host by ``what``, such as ``.item()``."""

    def host_data(self, what: str) -> None:
        """Called before ``what`` makes a tensor of an array of the host."""

    def written(self, value: Any) -> None:
        """Called after a value's memory was written over."""

    def differentiated(self, node: Any) -> None:
        """Called before a backward pass makes the gradients that ``node`` of the graph gives.

        With None, at its end.
        """

    def applied(self, name: str, results: Any, args: Any) -> None:
        """Called after the forward of the custom op ``name``, before its node has a number."""

    def supplied(self, name: str, dX: Any, given: Any) -> None:
        """Called with a gradient that a user's code, which ``name`` names, made of ``given``."""

    def ended(self, error: BaseException | None) -> None:
        """Called at the end of a ``phase``, with the error that leaves it, if any."""

    def graded(self, leaf: Any) -> None:
        """Called before a backward pass sets ``leaf.grad`` or adds to it, or it is set to zeros."""

    def forgotten(self, leaf: Any) -> None:
        """Called before ``leaf.grad`` is set to None, whatever it was."""

    def acted(self, action: Fn) -> None:
        """Called after Python work that every replay repeats."""

    def relied(self, guard: Guard) -> None:
        """Called with what the step relies on."""


class _Local(threading.local):
    observers: tuple[Observer, ...] = ()
    phase: str = "forward"
    instruction: Any = None
    layer: Any = None
    acting: bool = False


_local = _Local()
_NOTHING: Mapping[str, Any] = {}


@contextmanager
def observe(observer: Observer) -> Iterator[Observer]:
    """Show ``observer`` every kernel call of this thread inside the ``with`` block."""
    previous = _local.observers
    _local.observers = (*previous, observer)
    try:
        yield observer
    finally:
        _local.observers = previous


def observe_everywhere(observer: Observer) -> None:
    """Show ``observer`` the kernel calls of every thread, from here to the program's end.

    Not those of threads that run already and have had an observer of their own.
    """
    _Local.observers = (*_Local.observers, observer)


def observers() -> tuple[Observer, ...]:
    """Those of this thread, the innermost last."""
    return _local.observers


def tell(event: str, *subjects: Any) -> None:
    """Call the method ``event`` of every observer of this thread."""
    for observer in _local.observers:
        getattr(observer, event)(*subjects)


class phase:
    """``with phase("backward"):`` the calls of this thread are part of it.

    A recorded step gives the ``instruction`` that it follows.
    """

    __slots__ = ("_instruction", "_name", "_previous")

    def __init__(self, name: str, instruction: Any = None) -> None:
        self._name = name
        self._instruction = instruction

    def __enter__(self) -> None:
        self._previous = _local.phase, _local.instruction
        _local.phase, _local.instruction = self._name, self._instruction

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        _local.phase, _local.instruction = self._previous
        tell("ended", error)


def at() -> tuple[str, Any, Any]:
    """The phase of this thread's calls, the instruction they follow and the layer at work."""
    return _local.phase, _local.instruction, _local.layer


def enter(layer: Any) -> None:
    """The calls of this thread belong to ``layer`` from here on."""
    _local.layer = layer


def act(action: Fn) -> None:
    """Do Python work that every replay of a recorded step repeats, such as a schedule's step.

    What it calls by ``act`` in turn is a part of it.
    """
    if not _local.observers or _local.acting:
        action()
        return
    _local.acting = True
    try:
        action()
    finally:
        _local.acting = False
    tell("acted", action)


def fetch(backend: Backend, array: Any, what: str) -> np.ndarray:
    """The values of ``array`` on the host; ``what`` asks for them."""
    if _local.observers:
        tell("host_read", what)
    return backend.to_numpy(array)


# ---- what recorded steps rely on

_changes = 0


def changed() -> None:
    """Have every recorded step look at what it relies on before its next replay."""
    global _changes
    _changes += 1


def changes() -> int:
    """How often ``changed`` was called."""
    return _changes


# ---- calls


def call(
    backend: Backend,
    kernel: str,
    arrays: Sequence[Any],
    static: Mapping[str, Any] = _NOTHING,
    out: Any = None,
) -> Any:
    """Run one kernel on raw arrays and return what it returns, always arrays."""
    if _local.observers:
        return _observed(backend, kernel, arrays, static, out)
    for value in static.values():
        if type(value) is Host:
            static = {k: v.fn() if type(v) is Host else v for k, v in static.items()}
            break
    try:
        if out is None:
            result = getattr(backend, kernel)(*arrays, **static)
        else:
            result = getattr(backend, kernel)(*arrays, out=out, **static)
    except MemoryError as error:
        backend.explain(error)
        raise
    return result if type(result) is backend.array_type else _as_arrays(backend, result)


def _as_arrays(backend: Backend, result: Any) -> Any:
    """A kernel's other results: several arrays, nothing, or the scalar NumPy makes of 0-d."""
    if isinstance(result, tuple):
        return tuple(_as_arrays(backend, r) for r in result)
    return result if result is None else backend.asarray(result)


def _observed(
    backend: Backend, kernel: str, arrays: Sequence[Any], static: Mapping[str, Any], out: Any
) -> Any:
    observers = _local.observers
    hosts = {name: value.fn for name, value in static.items() if type(value) is Host}
    static = {**static, **{name: fn() for name, fn in hosts.items()}}
    seen = Call(backend, kernel, arrays, static, out, hosts, *at())
    tell("before", seen)
    run = getattr(backend, kernel)
    given = static if out is None else {**static, "out": out}
    _local.observers = ()  # the kernel runs as it does without them
    try:
        started = perf_counter_ns()
        result = run(*arrays, **given)
        ended = perf_counter_ns()
    except MemoryError as error:
        backend.explain(error)
        raise
    finally:
        _local.observers = observers
    seen.started, seen.ended = started, ended
    if type(result) is not backend.array_type:
        result = _as_arrays(backend, result)
    for observer in reversed(observers):
        observer.after(seen, result)
    return result
