"""The whole comparison, its table, and its verdict."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import numpy as np

from tinygrad_mnist.kernels import Backend
from tinygrad_mnist.machine import described
from tinygrad_mnist.verification import FAMILIES, TRAININGS
from tinygrad_mnist.verification.cases import BY_FAMILY, DIRECT
from tinygrad_mnist.verification.ops import compare_direct, compare_op
from tinygrad_mnist.verification.outcomes import (
    F32,
    F64,
    OPS,
    REFERENCE,
    Column,
    Outcome,
    units,
)
from tinygrad_mnist.verification.workloads import compare_training, tolerances_of

Progress = Callable[[Iterable[Any], str, str], Iterable[Any]]  # of items, their title and unit

FAILED, NOTHING = 1, 2  # exit codes
SHOWN = 5  # failures of a line of the table
HEAD = ("", "backend", "cases", "no jit", "float32", "float64", "", "nearest its tolerance")


def verify(backends: Sequence[Backend], names: Sequence[str], progress: Progress) -> int:
    """Compare ``backends`` with NumPy, print a table, and return the exit code.

    ``names``: families of ops and trainings, all of them if empty. 0: every difference is within
    its tolerance; 1: one is not, or a backend raised; 2: there was no backend but NumPy.
    """
    others = [backend for backend in backends if backend is not REFERENCE]
    if not others:
        print("nothing was compared: there is no other backend than numpy to compare with it")
        return NOTHING
    columns = [Column(REFERENCE, jit=True)]
    columns += [Column(backend, jit) for backend in others for jit in (False, True)]
    print(described("numpy"))
    print("largest differences to numpy, in units in the last place:\n")
    print(_line(HEAD, columns))
    found: list[Outcome] = []
    for made in outcomes(columns, names or (*FAMILIES, *TRAININGS), progress):
        found += made
        for outcome in made:
            print(_line(_cells(outcome), columns), flush=True)
    for outcome in found:
        _print_failures(outcome)
    failed = [outcome for outcome in found if outcome.failures]
    print()
    total = f"{sum(outcome.compared for outcome in found):,} comparisons with numpy"
    if failed:
        print(f"fail: {total}, {len(failed)} of {len(found)} lines of the table failed")
        return FAILED
    print(f"pass: {total}, all within tolerance")
    return 0


def outcomes(
    columns: Sequence[Column], names: Iterable[str], progress: Progress
) -> Iterator[list[Outcome]]:
    """Of each family or training, once it is compared, an outcome for each column."""
    for name in dict.fromkeys(names):
        with np.errstate(all="ignore"):
            made = _compared(name, columns, progress)
        yield made


def _compared(name: str, columns: Sequence[Column], progress: Progress) -> list[Outcome]:
    """A family or a training, an outcome for each column."""
    if name in TRAININGS:
        made = [Outcome(name, column, tolerances_of(name)) for column in columns]
        for _ in progress([name], name, "training"):
            compare_training(name, made)
        return made
    # A kernel called by hand is called the same way where what runs is recorded.
    columns = [column for column in columns if name != "direct" or not column.jit]
    made = [Outcome(name, column, OPS) for column in columns]
    if name == "direct":
        for kernel in progress(DIRECT, name, "kernel"):
            compare_direct(kernel, made)
    else:
        for row in progress(BY_FAMILY[name], name, "op"):
            compare_op(row, made)
    return made


def _print_failures(outcome: Outcome) -> None:
    """The first of each op, of few ops: one broken kernel breaks many."""
    lines = list(outcome.failures.values())
    for line in lines[:SHOWN]:
        print(f"{outcome.column}: {line}")
    if len(lines) > SHOWN:
        print(f"{outcome.column}: and {len(lines) - SHOWN} more of {outcome.name}")


def _cells(outcome: Outcome) -> tuple[str, ...]:
    largest = [outcome.largest.get(dtype) for dtype in (F32, F64)]
    return (
        outcome.name,
        str(outcome.column),
        f"{outcome.compared:,}",
        f"{outcome.unrecorded:,}" if outcome.column.jit else "",
        *("" if ulps is None else units(ulps) for ulps in largest),
        "FAIL" if outcome.failures else "pass",
        outcome.worst,
    )


def _line(cells: Sequence[str], columns: Sequence[Column]) -> str:
    name, column, *numbers, verdict, worst = cells
    width = max(len(str(each)) for each in columns)
    figures = "".join(f"{each:>11}" for each in numbers)
    return f"{name:<13}{column:<{width}}{figures}  {verdict:<4}  {worst}".rstrip()
