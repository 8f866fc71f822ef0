"""Kernels of the Numba backend with ``act`` and ``pool`` against the separate kernels.

    python tests/benchmarks/folds.py [part of a kernel's name]

At the shapes of ``examples/compare_with_peers.py`` and of the ``train`` command's CNN. Both run in
turns; the table gives medians.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

from kernels import BLAS, compare, floats

from tinygrad_mnist.backends.numba_backend import NumbaBackend
from tinygrad_mnist.kernels import Conv, Pool
from tinygrad_mnist.machine import described

Row = tuple[str, str, tuple[Any, ...], dict[str, Any]]  # kernel, shape, arrays, static

NUMBA = NumbaBackend()
CONV = Conv(stride=(1, 1), padding=(0, 0), dilation=(1, 1), groups=1)
HALVES = Pool(size=(2, 2), stride=(2, 2), padding=(0, 0))


def rows() -> Iterator[Row]:
    for n, inputs, outputs, act in (
        (10, 784, 15, "sigmoid"),
        (32, 784, 128, "relu"),
        (128, 784, 128, "relu"),
        (64, 320, 50, "relu"),
        (512, 320, 50, "relu"),
        (60_000, 784, 32, "sigmoid"),
        (60_000, 32, 16, "sigmoid"),
        (60_000, 784, 100, "sigmoid"),
        (60_000, 784, 100, "relu"),
    ):
        arrays = floats(n, inputs), floats(outputs, inputs), floats(outputs)
        yield "linear", f"{n} × {inputs}, {outputs}", arrays, {"act": act}
    for n in (64, 512):
        for image, kernel in (((1, 28, 28), (10, 1, 5, 5)), ((10, 12, 12), (20, 10, 5, 5))):
            arrays = floats(n, *image), floats(*kernel), floats(kernel[0])
            for fold in ({"act": "relu"}, {"pool": HALVES}, {"act": "relu", "pool": HALVES}):
                yield "conv2d", f"{n} × {image}, {kernel[0]}", arrays, {"conv": CONV, **fold}
        for shape in ((n, 10, 12, 12), (n, 20, 4, 4)):
            arrays = floats(*shape), floats(shape[1]), floats(shape[1])
            yield "batch_norm", str(shape), arrays, {"eps": 1e-5, "act": "relu"}


def separate(kernel: str, arrays: tuple[Any, ...], static: dict[str, Any]) -> Callable[[], None]:
    """The kernels one after the other, each with an ``out``, as a replayed program gives it."""
    act, pool = static.get("act"), static.get("pool")
    plain = {k: v for k, v in static.items() if k not in ("act", "pool")}
    first = getattr(NUMBA, kernel)(*arrays, **plain)
    calls = [partial(getattr(NUMBA, kernel), *arrays, **plain, out=first)]
    y = first[0] if isinstance(first, tuple) else first
    if pool is not None:
        both = NUMBA.max_pool2d(y, pool=pool)
        calls.append(partial(NUMBA.max_pool2d, y, pool=pool, out=both))
        y = both[0]
    if act is not None:
        calls.append(partial(getattr(NUMBA, act), y, out=getattr(NUMBA, act)(y)))

    def run() -> None:
        for call in calls:
            call()

    return run


def main(only: str = "") -> None:
    print(described("numba"))
    print(f"python tests/benchmarks/folds.py {only}\n")
    print(
        f"{'kernel':11} {'shape':22} {'with':10} {'separate µs':>12} {'folded µs':>12} {'ratio':>6}"
    )
    for kernel, shape, arrays, static in rows():
        if only not in kernel:
            continue
        out = getattr(NUMBA, kernel)(*arrays, **static)
        folded = partial(getattr(NUMBA, kernel), *arrays, **static, out=out)
        before, after = compare((separate(kernel, arrays, static), folded), kernel in BLAS)
        fold = ", ".join(["pool"] * ("pool" in static) + [static["act"]] * ("act" in static))
        print(
            f"{kernel:11} {shape:22} {fold:10} {before:12.1f} {after:12.1f} {before / after:6.2f}"
        )


if __name__ == "__main__":
    main(*sys.argv[1:])
