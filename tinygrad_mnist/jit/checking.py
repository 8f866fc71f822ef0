"""Whether a replay computes what the recorded call computed."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np

from tinygrad_mnist.jit.program import Instruction, Place, Program
from tinygrad_mnist.kernels import Backend

# What passes may change, for sums that round otherwise: of a result or of all gradients, and of
# what the state has moved by. An optimizer divides a gradient by its size, so that one which is
# nothing but rounding moves its parameter as far as any other does.
RESULTS, CHANGES = 1e-3, 5e-2


class Snapshot:
    """What lay in some places: before a call, or after it."""

    def __init__(self, backend: Backend, kept: Iterable[tuple[Place, Any]]) -> None:
        self.backend = backend
        self.kept = list(kept)

    @classmethod
    def of(cls, backend: Any, places: Iterable[Place]) -> Snapshot:
        """A copy of what lies there now."""
        return cls(backend, [(place, backend.copy(place.array)) for place in places])

    def put_back(self) -> None:
        """Write it there again; the last first, since arrays of the state may overlap."""
        for place, array in reversed(self.kept):
            self.backend.copy_(place.array, array)


def check_exact(name: str, program: Program, before: Snapshot, after: Snapshot) -> None:
    """Replay a program as it was recorded; RuntimeError at the first kernel that differs by a bit.

    ``before`` and ``after`` are what the call wrote over. Afterwards the state is as ``after``.
    """
    recorded = {place: place.array for place in program.places if place.kind == "made"}
    before.put_back()
    program.build()
    program.repeat()
    now = Snapshot.of(program.backend, (place for place, _ in after.kept))
    recorded.update(after.kept)
    replayed = {place: place.array for place in recorded} | dict(now.kept)
    after.put_back()
    for item in program.instructions():
        for place in item.written():
            root = place.root
            if root in recorded and not _equal(program, recorded[root], replayed[root]):
                raise _differs(name, program, item, recorded[root], replayed[root])


def check_close(
    name: str, program: Program, exact: Snapshot, before: Snapshot, after: Snapshot
) -> None:
    """Replay a program after its passes; RuntimeError where it is far from the one before them.

    ``exact`` are the results and gradients of that one.
    """
    before.put_back()
    program.build()
    program.repeat()
    now = Snapshot.of(program.backend, (place for place, _ in after.kept))
    after.put_back()
    host = program.backend.to_numpy
    results = [(host(array), host(place.array)) for place, array in exact.kept]
    results = [(a, b) for a, b in results if a.dtype.kind == "f"]  # others may turn on a last digit
    old, new, got = ([host(array) for _, array in each.kept] for each in (before, after, now))
    far = [_distance(a, b) > RESULTS * _distance(a, 0) for a, b in results if not a.ndim]
    far.append(_distances(results) > RESULTS * _distances([(a, np.zeros(())) for a, _ in results]))
    moved = _distances(list(zip(old, new, strict=True)))
    held = _distances([(a, np.zeros(())) for a in new])
    far.append(_distances(list(zip(new, got, strict=True))) > CHANGES * moved + RESULTS**2 * held)
    if any(far):
        raise RuntimeError(
            f"jit: the passes changed what {name} computes; jit(passes=()) replays what was "
            "recorded. Please report it"
        )


def _distances(pairs: list[tuple[Any, Any]]) -> float:
    return sum(_distance(a, b) for a, b in pairs)


def _distance(a: Any, b: Any) -> float:
    """Σ |a − b|; ∞ where b alone is not finite. Of an ``a`` that is not, only what is counts."""
    a, b = np.broadcast_arrays(np.asarray(a, np.float64), np.asarray(b, np.float64))
    finite = np.isfinite(a)
    if not finite.all():
        finite &= np.isfinite(b)
    apart = np.abs(a[finite] - b[finite])
    return float(np.nan_to_num(apart, nan=np.inf, posinf=np.inf).sum())


def _equal(program: Program, x: Any, y: Any) -> bool:
    a, b = (np.ascontiguousarray(program.backend.to_numpy(each)) for each in (x, y))
    return a.shape == b.shape and a.tobytes() == b.tobytes()


def _differs(name: str, program: Program, item: Instruction, x: Any, y: Any) -> RuntimeError:
    a, b = (program.backend.to_numpy(each).reshape(-1) for each in (x, y))
    place = int(np.argmax(~((a == b) | ((a != a) & (b != b))))) if a.size else 0
    return RuntimeError(
        f"jit: a replay of {name} differs from its recorded call: {item.kernel} at {item.line} "
        f"gave {b[place]}, and {a[place]} when it was recorded (element {place} of {a.size}); does "
        "the step depend on anything but its arguments, parameters and optimizer? "
        "jit(check=False) leaves this out"
    )
