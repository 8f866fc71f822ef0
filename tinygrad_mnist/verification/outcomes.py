"""What comparisons came to: each a line of the table."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, TypeVar

import numpy as np

from tinygrad_mnist.backend import resolve
from tinygrad_mnist.kernels import Backend
from tinygrad_mnist.verification.differences import Difference, difference

T = TypeVar("T")

F32, F64 = np.dtype(np.float32), np.dtype(np.float64)
REFERENCE = resolve("numpy")

Tolerances = Mapping[np.dtype, float]  # in units in the last place, at most

# The largest differences of ops are batch norm's of numbers around 100, and sums that cancel.
OPS: Tolerances = {F32: 128, F64: 512}
# In a training they add up.
TRAININGS: Tolerances = {F32: 1_000, F64: 10_000}
# Adam's steps are g/|g| or nearly: where g is 0 but for rounding, rounding decides.
ADAM: Tolerances = {F32: 10_000, F64: 100_000}


class Column(NamedTuple):
    """A backend, plain or with what runs on it recorded."""

    backend: Backend
    jit: bool

    def __str__(self) -> str:
        return f"{self.backend.name} jit" if self.jit else self.backend.name


class Pair(NamedTuple):
    """An array, NumPy's, what it is, and the magnitudes by which it is measured, or its own."""

    what: str
    found: np.ndarray
    expected: np.ndarray
    size: float | np.ndarray | None = None


class NotRecordableError(Exception):
    """A function that reads values on the host, or whose results' shapes depend on data."""


@dataclass
class Outcome:
    """A family of ops, or a training, on one backend, against NumPy's."""

    name: str
    column: Column
    tolerances: Tolerances
    compared: int = 0
    unrecorded: int = 0
    largest: dict[np.dtype, float] = field(default_factory=dict)  # ulps, by dtype
    worst: str = ""  # what is nearest to its tolerance, or furthest beyond it
    share: float = 0.0  # of the tolerance, there
    failures: dict[str, str] = field(default_factory=dict)  # by op: the first, as a line

    def compare(self, op: str, case: str, dtype: np.dtype, pairs: Iterable[Pair]) -> None:
        """Count a case of ``op`` that was run in ``dtype``, with all that it gave."""
        given = list(pairs)
        self.compared += 1
        for pair in given:
            kind = pair.expected.dtype if pair.expected.dtype in self.tolerances else dtype
            self._take(op, case, kind, pair.what, difference(*pair[1:]))

    def _take(self, op: str, case: str, kind: np.dtype, what: str, found: Difference) -> None:
        self.largest[kind] = max(found.ulps, self.largest.get(kind, 0.0))
        share = found.ulps / self.tolerances[kind]
        if share > self.share:
            self.share, self.worst = share, what if op == self.name else op
        if share > 1:
            apart = f"{units(found.ulps)} units apart, at most {units(self.tolerances[kind])}"
            apart = apart if np.isfinite(found.ulps) else "no rounding explains it"
            self.failures.setdefault(op, f"{case}: {what} is {found.numbers} on numpy; {apart}")

    def fail(self, op: str, case: str, error: Exception) -> None:
        """Count a case that raised."""
        self.compared += 1
        self.share, self.worst = np.inf, op
        first = next(iter(str(error).splitlines()), "")
        self.failures.setdefault(op, f"{case}: {type(error).__name__}: {first}")


def units(count: float) -> str:
    """As text, of a width for a table."""
    return f"{count:,.1f}" if count < 100_000 else f"{count:.1e}"


def compare(
    outcomes: Sequence[Outcome],
    op: str,
    case: str,
    dtype: np.dtype,
    run: Callable[[Column], T],
    pairs: Callable[[T, T], Iterable[Pair]],
) -> None:
    """Run a case of ``op`` on NumPy, plain, and on each outcome's column; take what comes of it.

    ``run`` may raise NotRecordableError; ``pairs`` puts results beside NumPy's.
    """
    try:
        expected = run(Column(REFERENCE, jit=False))
    except Exception as error:  # noqa: BLE001 - whatever it is, it is a line below the table
        for outcome in outcomes:
            outcome.fail(op, f"{case}, on numpy itself", error)
        return
    for outcome in outcomes:
        try:
            outcome.compare(op, case, dtype, pairs(run(outcome.column), expected))
        except NotRecordableError:
            outcome.unrecorded += 1
        except Exception as error:  # noqa: BLE001 - a third party's kernel may raise anything
            outcome.fail(op, case, error)
