"""The one door through which every kernel call goes.

Observers of this thread see each call before and after it runs; no op and no kernel knows of them.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from tinygrad_mnist.kernels import Backend


@dataclass(slots=True)
class Host:
    """A number that the host computes anew for every call, such as a learning rate."""

    fn: Callable[[], Any]


def host(fn: Callable[[], Any]) -> Host:
    """A static argument that is evaluated at each call of the kernel, replays included."""
    return Host(fn)


@dataclass(slots=True)
class Call:
    """One pass through the door, as observers see it; ``static`` still holds ``Host`` numbers."""

    backend: Backend
    kernel: str
    arrays: Sequence[Any]
    static: Mapping[str, Any]
    out: Any


class Observer:
    """Sees every kernel call of the thread in which ``observe`` entered it."""

    def before(self, call: Call) -> None:
        """Called before the kernel runs."""

    def after(self, call: Call, result: Any) -> None:
        """Called with what the kernel returned."""


class _Local(threading.local):
    observers: tuple[Observer, ...] = ()


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


def call(
    backend: Backend,
    kernel: str,
    arrays: Sequence[Any],
    static: Mapping[str, Any] = _NOTHING,
    out: Any = None,
) -> Any:
    """Run one kernel on raw arrays and return what it returns, always arrays."""
    if _local.observers:
        return _observed(Call(backend, kernel, arrays, static, out))
    for value in static.values():
        if type(value) is Host:
            static = {k: v.fn() if type(v) is Host else v for k, v in static.items()}
            break
    if out is None:
        result = getattr(backend, kernel)(*arrays, **static)
    else:
        result = getattr(backend, kernel)(*arrays, out=out, **static)
    return result if type(result) is backend.array_type else _as_arrays(backend, result)


def _as_arrays(backend: Backend, result: Any) -> Any:
    """A kernel's other results: several arrays, nothing, or the scalar NumPy makes of 0-d."""
    if isinstance(result, tuple):
        return tuple(_as_arrays(backend, r) for r in result)
    return result if result is None else backend.asarray(result)


def _observed(seen: Call) -> Any:
    observers = _local.observers
    for observer in observers:
        observer.before(seen)
    _local.observers = ()  # the kernel runs as it does without them
    try:
        result = call(seen.backend, seen.kernel, seen.arrays, seen.static, seen.out)
    finally:
        _local.observers = observers
    for observer in reversed(observers):
        observer.after(seen, result)
    return result
