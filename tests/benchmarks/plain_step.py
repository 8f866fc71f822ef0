"""What a small training step costs beside PyTorch eager, on the NumPy backend.

    python tests/benchmarks/plain_step.py

784-15-10, sigmoid, quadratic cost, SGD, batch 10: forward, backward and update. The two run in
turn in one process, 40 rounds of 30 steps each. Each round has its median; shown are the median of
these, their 10th and 90th percentiles, and the ratio of the medians. "kernels" is the same list of
kernel calls without the engine around it. Without PyTorch its row is left out. Where another
program runs, the two sides' threads wait for each other: rounds that differ much bring a warning.
"""

import statistics
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np

import tinygrad_mnist as tg
from tinygrad_mnist import dispatch, nn, optim
from tinygrad_mnist.machine import described

ROUNDS, STEPS = 40, 30
BATCH, RATE = 10, 0.1
NOISY = 3  # the 90th percentile of the rounds over the 10th


def our_step() -> Callable[[], Any]:
    """One step on the current backend."""
    model = nn.Sequential(nn.Linear(784, 15), nn.Sigmoid(), nn.Linear(15, 10), nn.Sigmoid())
    optimizer = optim.SGD(model.parameters(), lr=RATE)
    x, target = tg.rand(BATCH, 784), tg.rand(BATCH, 10)

    def step() -> Any:
        loss = (model(x) - target).square().sum() * (0.5 / BATCH)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        return loss

    return step


def torch_step(torch: Any) -> Callable[[], Any]:
    """The same step in PyTorch, eager."""
    model = torch.nn.Sequential(
        torch.nn.Linear(784, 15), torch.nn.Sigmoid(), torch.nn.Linear(15, 10), torch.nn.Sigmoid()
    )
    optimizer = torch.optim.SGD(model.parameters(), lr=RATE)
    x, target = torch.rand(BATCH, 784), torch.rand(BATCH, 10)

    def step() -> Any:
        loss = (model(x) - target).square().sum() * (0.5 / BATCH)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        return loss

    return step


class Recorder(dispatch.Observer):
    """Keeps the kernel calls of a step."""

    def __init__(self) -> None:
        self.calls: list[Callable[[], Any]] = []

    def after(self, call: dispatch.Call, result: Any) -> None:
        static = dict(call.static)
        kernel = getattr(call.backend, call.kernel)
        self.calls.append(lambda: kernel(*call.arrays, **static))


def kernels_only(step: Callable[[], Any]) -> tuple[Callable[[], Any], int]:
    """The kernel calls of a step, and how many they are."""
    recorder = Recorder()
    with dispatch.observe(recorder):
        step()

    def replay() -> None:
        for call in recorder.calls:
            call()

    return replay, len(recorder.calls)


def interleaved(steps: dict[str, Callable[[], Any]]) -> dict[str, list[float]]:
    """The median microseconds of each round of each, taken in turn."""
    rounds: dict[str, list[float]] = {name: [] for name in steps}
    for _ in range(ROUNDS + 3):
        for name, step in steps.items():
            rounds[name].append(statistics.median(timed(step) for _ in range(STEPS)))
    return {name: medians[3:] for name, medians in rounds.items()}


def timed(step: Callable[[], Any]) -> float:
    """Microseconds of one step."""
    start = time.perf_counter()
    step()
    return (time.perf_counter() - start) * 1e6


def main() -> None:
    """Print the table."""
    tg.set_backend("numpy")
    step = our_step()
    kernels, count = kernels_only(step)
    steps = {"tinygrad_mnist, plain": step, f"its {count} kernels alone": kernels}
    packages = ["numpy"]
    try:
        import torch
    except ImportError:
        print("PyTorch is not installed: its row is left out", file=sys.stderr)
    else:
        steps["torch eager"] = torch_step(torch)
        packages.append("torch")
    rounds = interleaved(steps)
    print("784-15-10 sigmoid, quadratic, SGD, batch 10, NumPy backend: one whole step")
    print(described(*packages))
    print("python tests/benchmarks/plain_step.py")
    print(f"{'µs':<24} {'median':>8} {'p10':>8} {'p90':>8} {'ratio':>6}")
    base = statistics.median(rounds["torch eager"]) if "torch eager" in rounds else None
    spreads = []
    for name, medians in rounds.items():
        p10, median, p90 = np.percentile(medians, [10, 50, 90])
        ratio = f"{median / base:.2f}" if base else ""
        print(f"{name:<24} {median:>8.1f} {p10:>8.1f} {p90:>8.1f} {ratio:>6}")
        spreads.append(p90 / p10)
    if max(spreads) > NOISY:
        print(f"noisy machine: run again (p90/p10 is {max(spreads):.1f}, expected {NOISY} at most)")


if __name__ == "__main__":
    main()
