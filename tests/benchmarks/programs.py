"""What whole training steps cost on the Numba backend: kernel by kernel, and as native programs.

    python tests/benchmarks/programs.py [STEP …]

The steps are those of ``examples/compare_with_peers.py``. One plain step is watched at the door;
its kernel calls are then made again, one by one from Python and as ``NumbaBackend.prepared`` gives
them. The two run in turn in one process, 30 rounds; each round has its median, shown are the
median and the least of these. Programs whose kernels run on threads need idle cores: where other
programs run, a thread waits for one that is not there.
"""

import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import tinygrad_mnist as tg
from tinygrad_mnist import dispatch
from tinygrad_mnist.backend import resolve
from tinygrad_mnist.contract import spec
from tinygrad_mnist.kernels import Step
from tinygrad_mnist.machine import described

ROUNDS, SECONDS = 30, 0.05
STEPS = "sgd-10", "mlp-32", "mlp-128", "cnn-64"


class Recorder(dispatch.Observer):
    """Keeps the kernel calls of a step."""

    def __init__(self) -> None:
        self.steps: list[Step] = []

    def after(self, call: dispatch.Call, result: Any) -> None:
        if spec(call.kernel).kind == "view":
            return
        hosts = {k: v.fn() for k, v in call.static.items() if isinstance(v, dispatch.Host)}
        static = {**call.static, **hosts}
        self.steps.append(Step(call.kernel, list(call.arrays), static, result, hosted=tuple(hosts)))


def recorded(run: Callable[[], Any]) -> list[Step]:
    """The kernel calls of the third step."""
    run()
    run()
    recorder = Recorder()
    with dispatch.observe(recorder):
        run()
    return recorder.steps


def round_of(functions: list[Callable[[], None]]) -> float:
    """The median microseconds of a run of all ``functions``."""
    times, end = [], time.perf_counter() + SECONDS
    while len(times) < 3 or time.perf_counter() < end:
        start = time.perf_counter()
        for function in functions:
            function()
        times.append((time.perf_counter() - start) * 1e6)
    return statistics.median(times)


def measure(name: str, pytorch_step: Callable[..., Callable[[], Any]]) -> str:
    """A line of the table."""
    backend = resolve("numba")
    steps = recorded(pytorch_step(name, tg))
    plain = [lambda step=step: step.run(backend) for step in steps]
    start = time.perf_counter()
    prepared = backend.prepared(steps)
    seconds = time.perf_counter() - start
    rounds = [(round_of(plain), round_of(prepared)) for _ in range(ROUNDS)]
    ones, programs = zip(*rounds, strict=True)
    return (
        f"{name:<9} {len(steps):>5} {len(prepared):>9} {seconds * 1e3:>9.0f} "
        f"{statistics.median(ones):>9.1f} {min(ones):>8.1f} "
        f"{statistics.median(programs):>9.1f} {min(programs):>8.1f}"
    )


def main() -> None:
    """Print the table."""
    sys.path.insert(0, str(Path(__file__).parents[2] / "examples"))
    from compare_with_peers import pytorch_step

    tg.set_backend("numba")
    print(described("numpy", "numba"))
    print(f"{'':<9} {'':>5} {'':>9} {'prepared':>9} {'one by one':>18} {'program':>18}")
    print(f"{'step':<9} {'calls':>5} {'functions':>9} {'ms':>9} {'µs':>9} {'least':>8}", end=" ")
    print(f"{'µs':>9} {'least':>8}")
    for name in sys.argv[1:] or STEPS:
        print(measure(name, pytorch_step), flush=True)


if __name__ == "__main__":
    main()
