"""What an op costs beyond its kernels: from the call of the method to its result, gradients on.

    python tests/benchmarks/op_overhead.py [part of an op's name] [--backend numpy]

Each row of the op table gives one call on small arrays. Its kernels are recorded at the door and
timed on their own, with the same arrays; the difference is what the graph, the checks and the
dispatch cost. A composition runs several kernels: the last column is per kernel. Both run in
turns; the table gives medians.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from tinygrad_mnist.backend import resolve
from tinygrad_mnist.dispatch import Call, Observer, observe
from tinygrad_mnist.kernels import Backend
from tinygrad_mnist.machine import described
from tinygrad_mnist.verification.cases import ROWS, Case, Row, cases_of, tensors

ROUNDS = 15
SLICE = 2e-3  # seconds of calls per turn, so that the clock does not count
BOUND = 4.0  # microseconds over the kernel that an op of one kernel may cost


class Recorder(Observer):
    """The kernel calls of one op, ready to be made again."""

    def __init__(self) -> None:
        self.calls: list[tuple[Callable[..., Any], tuple[Any, ...], dict[str, Any]]] = []

    def before(self, call: Call) -> None:
        static = dict(call.static)
        kernel = getattr(call.backend, call.kernel)
        self.calls.append((kernel, tuple(call.arrays), static))


@dataclass(frozen=True)
class Measured:
    """One op's times in microseconds."""

    name: str
    kernels: int
    op: float
    alone: float

    @property
    def over(self) -> float:
        return self.op - self.alone


def small(row: Row) -> Case:
    """The case with most dims among those of at most 1,000 elements."""
    return max(
        cases_of(row),
        key=lambda c: max(
            (x.ndim for x in c.inputs if isinstance(x, np.ndarray) and 0 < x.size <= 1000),
            default=-1,
        ),
    )


def measured(row: Row, backend: Backend) -> Measured:
    """The op's time and its kernels', in turns."""
    found = small(row)
    inputs = tensors(row, found, backend, np.float32)
    recorder = Recorder()
    with observe(recorder):
        row.op(*inputs, **found.static)

    def op() -> None:
        row.op(*inputs, **found.static)

    def alone() -> None:
        for kernel, arrays, static in recorder.calls:
            kernel(*arrays, **static)

    times: dict[Callable[[], None], list[float]] = {op: [], alone: []}
    counts = {function: calls_in_a_slice(function) for function in times}
    for _ in range(ROUNDS):
        for function, seen in times.items():
            seen.append(per_call(function, counts[function]))
    op_time, alone_time = (statistics.median(seen) * 1e6 for seen in times.values())
    return Measured(row.name, len(recorder.calls), op_time, alone_time)


def per_call(function: Callable[[], None], count: int) -> float:
    start = time.perf_counter()
    for _ in range(count):
        function()
    return (time.perf_counter() - start) / count


def calls_in_a_slice(function: Callable[[], None]) -> int:
    function()
    return max(1, int(SLICE / max(per_call(function, 10), 1e-7)))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("part", nargs="?", default="", help="only ops with this in their name")
    parser.add_argument("--backend", default="numpy", help="default: numpy")
    arguments = parser.parse_args()
    backend = resolve(arguments.backend, "--backend")
    print(f"{described('numpy')}\nbackend {backend.name}; microseconds")
    chosen = [row for row in ROWS if arguments.part in row.name]
    with np.errstate(all="ignore"):
        results = [measured(row, backend) for row in chosen]
    print(f"{'op':<34}{'kernels':>8}{'op':>9}{'alone':>9}{'over':>9}{'each':>9}")
    for m in results:
        each = f"{m.over / m.kernels:9.2f}" if m.kernels else " " * 9
        print(f"{m.name:<34}{m.kernels:>8}{m.op:9.2f}{m.alone:9.2f}{m.over:9.2f}{each}")
    single = [m for m in results if m.kernels == 1]
    several = [m for m in results if m.kernels > 1]
    if single:
        worst = max(single, key=lambda m: m.over)
        print(
            f"\n{len(single)} ops of one kernel: median {middle(m.over for m in single)} over it, "
            f"most {worst.over:.2f} ({worst.name}), "
            f"{sum(m.over > BOUND for m in single)} above {BOUND}"
        )
    if several:
        worst = max(several, key=lambda m: m.over / m.kernels)
        print(
            f"{len(several)} of several: per kernel median "
            f"{middle(m.over / m.kernels for m in several)}, "
            f"most {worst.over / worst.kernels:.2f} ({worst.name})"
        )


def middle(values: Any) -> str:
    return f"{statistics.median(values):.2f}"


if __name__ == "__main__":
    main()
