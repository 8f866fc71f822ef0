"""Whether a replay computes what the recorded call computed."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np

from tinygrad_mnist.jit.program import Instruction, Place, Program
from tinygrad_mnist.kernels import Backend

# Of a program whose kernels were folded or run as one: differences, to the largest number there.
TOLERANCE = {4: 1e-4, 8: 1e-9}  # by the bytes of a float


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
    program.build(exact=True)
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
    name: str, program: Program, exact: dict[Place, Any], before: Snapshot, after: Snapshot
) -> None:
    """Replay a program after its passes; RuntimeError where it is not near the ``exact`` results.

    The places are those of its results, gradients and state.
    """
    before.put_back()
    program.build()
    program.repeat()
    found = {place: place.array for place, _ in after.kept}
    for place, expected in [*after.kept, *exact.items()]:
        got = found.get(place, place.array)
        if not _near(program, expected, got):
            writers = [i for i in program.instructions() if place in {p.root for p in i.written()}]
            raise _differs(name, program, writers[-1] if writers else None, expected, got)
    after.put_back()


def _equal(program: Program, x: Any, y: Any) -> bool:
    a, b = (np.ascontiguousarray(program.backend.to_numpy(each)) for each in (x, y))
    return a.shape == b.shape and a.tobytes() == b.tobytes()


def _near(program: Program, x: Any, y: Any) -> bool:
    a, b = (program.backend.to_numpy(each) for each in (x, y))
    if a.dtype.kind != "f":
        return bool((a == b).all())
    finite = np.abs(a[np.isfinite(a)])
    scale = float(finite.max()) if finite.size else 0.0
    with np.errstate(invalid="ignore"):
        near = (np.abs(a - b) <= TOLERANCE[a.itemsize] * scale) | (a == b) | ((a != a) & (b != b))
    return bool(near.all())


def _differs(name: str, program: Program, item: Instruction | None, x: Any, y: Any) -> RuntimeError:
    a, b = (program.backend.to_numpy(each).reshape(-1) for each in (x, y))
    place = int(np.argmax(~((a == b) | ((a != a) & (b != b))))) if a.size else 0
    where = f"{item.kernel} at {item.line}" if item is not None else "a result"
    return RuntimeError(
        f"jit: a replay of {name} differs from its recorded call: {where} gave {b[place]}, and "
        f"{a[place]} when it was recorded (element {place} of {a.size}); does the step depend on "
        "anything but its arguments, parameters and optimizer? jit(check=False) leaves this out"
    )
