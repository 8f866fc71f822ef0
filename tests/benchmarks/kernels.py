"""Every kernel the Numba backend overrides against the NumPy default, at MNIST networks' shapes.

    python tests/benchmarks/kernels.py [part of a kernel's name]

Both run in turns; the table gives medians. An override that gains nothing should not exist.
"""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

import numpy as np

from tinygrad_mnist.backends.numba_backend import NumbaBackend
from tinygrad_mnist.backends.numpy_backend import NumpyBackend
from tinygrad_mnist.contract import kernel_names
from tinygrad_mnist.kernels import Conv, Pool
from tinygrad_mnist.machine import described

Row = tuple[str, str, tuple[Any, ...], dict[str, Any]]  # kernel, shape, arrays, static and out

ROUNDS = 9
SLICE = 2e-3  # seconds of calls per turn, so that the clock does not count
REST, WAKE = 0.3, 0.01  # seconds, until the threads of one BLAS sleep, and those of the other run
BLAS = ("matmul", "linear", "linear_dw", "conv2d", "conv2d_dx", "conv2d_dw")

_draw = np.random.default_rng(0)


def floats(*shape: int) -> np.ndarray:
    return _draw.standard_normal(shape, dtype=np.float32)


def rows() -> Iterator[Row]:
    """One row per kernel and shape, with ``out`` as a replayed program gives it."""
    yield from pointwise()
    yield from softmaxes()
    yield from losses()
    yield from doubles()
    yield from streams()
    yield from indices()
    yield from sums()
    yield from products()
    yield from convolutions()
    yield from poolings()
    yield from normalisations()
    yield from optimizers()


def pointwise() -> Iterator[Row]:
    for shape in ((10, 15), (32, 128), (64, 10, 12, 12), (60_000, 100)):
        x, y, out = floats(*shape), floats(*shape), floats(*shape)
        for name in ("sigmoid", "relu"):
            yield name, str(shape), (x,), {"out": out}
        for name in ("sigmoid_grad", "relu_grad", "tanh_grad"):
            yield name, str(shape), (x, y), {"out": out}
        for approximate in ("none", "tanh"):
            static = {"approximate": approximate, "out": out}
            yield "gelu", f"{shape}, {approximate}", (x,), static
            yield "gelu_grad", f"{shape}, {approximate}", (y, x), static


def losses() -> Iterator[Row]:
    for n in (10, 32, 64, 60_000):
        x, target, dY = floats(n, 10), _draw.integers(0, 10, n), np.full(n, 1 / n, np.float32)
        static, out = {"ignore_index": -100}, (np.zeros_like(dY), np.zeros((), np.float32))
        yield "cross_entropy", str(x.shape), (x, target), {**static, "out": out}
        static = {**static, "out": np.zeros_like(x)}
        yield "cross_entropy_grad", str(x.shape), (dY, x, target), static


def softmaxes() -> Iterator[Row]:
    for shape in ((10, 10), (64, 10), (60_000, 10), (8 * 4 * 49, 49)):
        x, dY = floats(*shape), floats(*shape)
        static = {"dim": 1, "out": np.zeros_like(x)}
        for name in ("softmax", "log_softmax"):
            yield name, str(shape), (x,), static
            y = getattr(NumpyBackend(), name)(x, dim=1)
            yield f"{name}_grad", str(shape), (dY, y), static


def doubles() -> Iterator[Row]:
    """Rows in float64 of what has an exponential of its own there."""
    for rows in (pointwise(), softmaxes(), losses()):
        for name, shape, arrays, keywords in rows:
            if "relu" not in name:
                wide = {k: _double(v) for k, v in keywords.items()}
                yield name, f"{shape} f64", tuple(_double(a) for a in arrays), wide


def _double(x: Any) -> Any:
    if isinstance(x, tuple):
        return tuple(_double(a) for a in x)
    single = isinstance(x, np.ndarray) and x.dtype == np.float32
    return x.astype(np.float64) if single else x


def streams() -> Iterator[Row]:
    for shape in ((32, 128), (60_000, 100)):
        static = {"shape": shape, "key": 2**63 + 1, "dtype": np.dtype(np.float32)}
        out = floats(*shape)
        yield "dropout_mask", str(shape), (), {**static, "p": 0.3, "out": out}
        yield "uniform", str(shape), (), {**static, "out": out}
    images = _draw.integers(0, 256, (60_000, 784), np.uint8)
    for n in (10, 64, 60_000):
        index = _draw.permutation(60_000)[:n]
        static = {"scale": 1 / 255, "shift": 0.0, "dtype": np.dtype(np.float32)}
        yield (
            "take_scaled",
            f"{n} of 60000 × 784",
            (images, index),
            {**static, "out": floats(n, 784)},
        )


def indices() -> Iterator[Row]:
    for n, shape in (
        (60_000, (1000, 64)),
        (1_000_000, (1000,)),
        (32, (10_000, 128)),
        (512, (1000, 64)),
        (128, (1280,)),
    ):
        dY, index = floats(n, *shape[1:]), _draw.integers(0, shape[0], n)
        static = {"shape": shape, "dim": 0, "out": floats(*shape)}
        yield "take_grad", f"{n} into {shape}", (dY, index), static


def sums() -> Iterator[Row]:
    """Gradients of biases."""
    for shape in ((32, 128), (128, 128), (60_000, 10), (60_000, 100), (64, 10, 24, 24)):
        dim = (0, *range(2, len(shape)))
        static = {"dim": dim, "keepdim": False, "out": floats(shape[1])}
        yield "sum", f"{shape} over {dim}", (floats(*shape),), static


def products() -> Iterator[Row]:
    """NumPy's rows are on its own threads."""
    for n, inputs, outputs in (
        (10, 784, 15),
        (32, 784, 128),
        (128, 784, 128),
        (64, 320, 50),
        (512, 320, 50),
        (60_000, 784, 32),
        (60_000, 784, 100),
        (60_000, 100, 10),
    ):
        x, weight, bias = floats(n, inputs), floats(outputs, inputs), floats(outputs)
        dY, shape = floats(n, outputs), f"{n} × {inputs}, {outputs}"
        yield "linear", shape, (x, weight, bias), {"out": np.empty_like(dY)}
        yield "linear_dw", shape, (dY, x), {"out": np.empty_like(weight)}
        yield "matmul", f"{n} × {outputs}, {inputs}", (dY, weight), {"out": np.empty_like(x)}


def convolutions() -> Iterator[Row]:
    plain = Conv(stride=(1, 1), padding=(0, 0), dilation=(1, 1), groups=1)
    halving = plain._replace(stride=(2, 2), padding=(1, 1))
    for n, image, kernel, conv in (
        (64, (1, 28, 28), (10, 1, 5, 5), plain),
        (64, (10, 12, 12), (20, 10, 5, 5), plain),
        (512, (10, 12, 12), (20, 10, 5, 5), plain),
        (64, (16, 28, 28), (32, 16, 3, 3), halving),
    ):
        x, weight, bias = floats(n, *image), floats(*kernel), floats(kernel[0])
        dY = NumpyBackend().conv2d(x, weight, conv=conv)
        shape = f"{n} × {image}, {kernel}" + ", stride 2" * (conv is halving)
        static = {"conv": conv}
        yield "conv2d", shape, (x, weight, bias), {**static, "out": np.empty_like(dY)}
        dx = {**static, "shape": x.shape, "out": np.empty_like(x)}
        yield "conv2d_dx", shape, (dY, weight), dx
        dw = {**static, "shape": weight.shape, "out": np.empty_like(weight)}
        yield "conv2d_dw", shape, (dY, x), dw


def poolings() -> Iterator[Row]:
    halves = Pool(size=(2, 2), stride=(2, 2), padding=(0, 0))
    overlapping = Pool(size=(3, 3), stride=(2, 2), padding=(1, 1))
    for shape, pool in (
        ((64, 10, 24, 24), halves),
        ((64, 20, 8, 8), halves),
        ((64, 10, 24, 24), overlapping),
        ((64, 20, 12, 12), overlapping),
        ((64, 20, 8, 8), Pool(size=(8, 8), stride=(8, 8), padding=(0, 0))),
    ):
        x, static = floats(*shape), {"pool": pool}
        label = f"{shape}, {pool.size[0]}/{pool.stride[0]}/{pool.padding[0]}"
        y, index = NumpyBackend().max_pool2d(x, **static)
        yield "max_pool2d", label, (x,), {**static, "out": (y, index)}
        dx = {**static, "shape": shape, "out": np.empty_like(x)}
        yield "max_pool2d_grad", label, (y, index), dx
        yield "max_pool2d_take", label, (x, index), {**static, "out": np.empty_like(y)}


def normalisations() -> Iterator[Row]:
    images = ((64, 10, 12, 12), (64, 20, 4, 4), (512, 10, 12, 12))
    for shape in (*images, (32, 128), (128, 128), (60_000, 100), (60_000, 10)):
        x, dY, weight, bias = floats(*shape), floats(*shape), floats(shape[1]), floats(shape[1])
        out = (floats(*shape), floats(shape[1]), floats(shape[1]))
        yield "batch_norm", str(shape), (x, weight, bias), {"eps": 1e-5, "out": out}
        yield "batch_norm_grad", str(shape), (dY, x, weight), {"eps": 1e-5, "out": out}


def optimizers() -> Iterator[Row]:
    shared = {"lr": 1e-9, "weight_decay": 0.0, "maximize": False}
    sgd = {**shared, "dampening": 0.0, "nesterov": False, "first": False}
    shared = {**shared, "eps": 1e-8, "step": 2}
    adam = {**shared, "beta1": 0.9, "beta2": 0.999, "decoupled_weight_decay": False}
    rmsprop = {**shared, "alpha": 0.99}
    for name, sizes in (
        ("784-15-10", (11_760, 15, 150, 10)),
        ("784-128-10", (100_352, 128, 1_280, 10)),
        ("the cnn", (250, 10, 10, 10, 5_000, 20, 20, 20, 16_000, 50, 500, 10)),
    ):
        p, g, m = ([floats(n) for n in sizes] for _ in range(3))
        v, u, w = ([np.square(floats(n)) for n in sizes] for _ in range(3))
        yield "sgd_", name, (p, g, []), {**sgd, "momentum": 0.0}
        yield "sgd_", f"{name}, momentum", (p, g, m), {**sgd, "momentum": 0.9}
        yield "adam_", name, (p, g, m, v, []), adam
        yield "adam_", f"{name}, decay", (p, g, m, v, []), {**adam, "weight_decay": 0.01}
        decoupled = {**adam, "weight_decay": 0.01, "decoupled_weight_decay": True}
        yield "adam_", f"{name}, amsgrad, decoupled", (p, g, m, v, w), decoupled
        yield "adagrad_", name, (p, g, v), {**shared, "lr_decay": 0.0}
        yield "adadelta_", name, (p, g, v, u), {**shared, "rho": 0.9}
        yield "rmsprop_", name, (p, g, v, [], []), {**rmsprop, "momentum": 0.0}
        few = [0.1 * x for x in g]  # an average whose square lies below the squares' average
        both = (p, few, v, [0 * x for x in m], m)
        yield "rmsprop_", f"{name}, centered, momentum", both, {**rmsprop, "momentum": 0.9}


def compare(calls: Sequence[Callable[[], Any]], blas: bool) -> list[float]:
    """The median time of each call in µs; all take turns in every round.

    Those of ``blas`` rest before each turn, since its threads spin for a while after a product.
    """
    counts = []
    for call in calls:
        call()
        start = time.perf_counter()
        call()
        counts.append(max(1, int(SLICE / (time.perf_counter() - start))))
    times: list[list[float]] = [[] for _ in calls]
    for _ in range(ROUNDS):
        for call, count, measured in zip(calls, counts, times, strict=True):
            if blas:
                time.sleep(REST)
            called(call, WAKE if blas else 0)
            start = time.perf_counter()
            for _ in range(count):
                call()
            measured.append((time.perf_counter() - start) / count * 1e6)
    return [statistics.median(measured) for measured in times]


def called(call: Callable[[], Any], seconds: float) -> None:
    """``call`` once, and again until the time is up."""
    stop = time.perf_counter() + seconds
    call()
    while time.perf_counter() < stop:
        call()


def main(only: str = "") -> None:
    print(described("numpy", "numba"))
    print(f"python tests/benchmarks/kernels.py {only}\n")
    print(f"{'kernel':18} {'shape':34} {'NumPy µs':>10} {'Numba µs':>10} {'ratio':>6}")
    backends = (NumpyBackend(), NumbaBackend())
    seen = set()
    for name, shape, arrays, keywords in rows():
        seen.add(name)
        if only not in name:
            continue
        calls = [partial(getattr(backend, name), *arrays, **keywords) for backend in backends]
        reference, ours = compare(calls, name in BLAS)
        print(f"{name:18} {shape:34} {reference:10.1f} {ours:10.1f} {reference / ours:6.1f}")
    missing = [name for name in kernel_names() if name in vars(NumbaBackend) and name not in seen]
    if missing:
        sys.exit(f"not measured: {', '.join(missing)}")


if __name__ == "__main__":
    main(*sys.argv[1:])
