"""A program's own NumPy products between our kernels: what each threading layer makes of a pair.

    python tests/benchmarks/mixed_products.py

NumPy's BLAS and Numba's regions each have a pool of threads. For each layer, in a process of its
own, the medians of a product alone, of a kernel alone, and of both in turns; a pair should not take
much longer than its parts. The threads of NumPy's BLAS go on spinning after a product, so a kernel
beside it is about as fast as on one thread: that is the last column.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable

import numpy as np

from tinygrad_mnist.machine import described

LAYERS = ("tbb", "omp", "workqueue")
CALLS = 300
REST = 0.3  # seconds, until the threads of the last measurement sleep


def main() -> None:
    print(described("numpy", "numba"))
    titles = ("product", "kernel", "pair", "pair / parts", "kernel, 1")
    head = "".join(f"{title:>14}" for title in titles)
    print(f"\n{'µs':<28}{head}")
    for layer in LAYERS:
        variables = {**os.environ, "NUMBA_THREADING_LAYER": layer}
        subprocess.run([sys.executable, __file__, "--layer"], env=variables, check=True)


def measure() -> None:
    """The rows of this process's layer."""
    from tinygrad_mnist.backends.numba_backend import NumbaBackend
    from tinygrad_mnist.backends.numba_kernels import threads
    from tinygrad_mnist.kernels import Conv

    backend, draw = NumbaBackend(), np.random.default_rng(0)

    def floats(*shape: int) -> np.ndarray:
        return draw.standard_normal(shape, dtype=np.float32)

    a, b = floats(256, 784), floats(784, 128)
    x, weight, bias = floats(256, 784), floats(128, 784), floats(128)
    images, filters = floats(64, 10, 12, 12), floats(20, 10, 5, 5)
    conv = Conv(stride=(1, 1), padding=(0, 0), dilation=(1, 1), groups=1)
    hidden = floats(60_000, 10)
    kernels: dict[str, Callable[[], object]] = {
        "linear 256 × 784, 128": lambda: backend.linear(x, weight, bias),
        "conv2d 64 × 10 × 12 × 12": lambda: backend.conv2d(images, filters, conv=conv),
        "relu 60,000 × 10": lambda: backend.relu(hidden),
    }

    def product() -> object:
        return np.matmul(a, b)

    print(threads.layer().name or f"one thread: {threads.layer().reason}")
    for name, kernel in kernels.items():

        def pair(kernel: Callable[[], object] = kernel) -> None:
            product()
            kernel()

        alone = [median(each) for each in (product, kernel)]
        both = median(pair)
        single = on_one_thread(kernel)
        cells = f"{alone[0]:>14.0f}{alone[1]:>14.0f}{both:>14.0f}{both / sum(alone):>14.2f}"
        print(f"  {name:<26}{cells}{single:>14.0f}", flush=True)


def on_one_thread(kernel: Callable[[], object]) -> float:
    import numba

    threads = numba.get_num_threads()
    numba.set_num_threads(1)
    try:
        return median(kernel)
    finally:
        numba.set_num_threads(threads)


def median(call: Callable[[], object]) -> float:
    """Microseconds of a call, after a rest and a few calls that do not count."""
    time.sleep(REST)
    found = []
    for i in range(CALLS + 10):
        start = time.perf_counter()
        call()
        if i >= 10:
            found.append((time.perf_counter() - start) * 1e6)
    return statistics.median(found)


if __name__ == "__main__":
    measure() if "--layer" in sys.argv else main()
