"""What a step cannot be faster than: the bytes that it must move, and its products.

Bytes: inputs read once; parameters, gradients and moments each read once and written once. At the
rate of a large copy on the card. Operations: two for each multiply-add of the products and
convolutions that the plain step does, at the rate of a large float32 product by the backend's own
``matmul``. The floor is the larger of the two. What small networks move stays in the card's cache,
whose rate is higher: the floor by bytes is then no floor, and told apart. Beside it stands what
as many nodes of a graph take as the step has kernels, if none does anything.
"""

import numpy as np
from peers.clocks import clock_of
from peers.floor import optimizer_size
from peers.workloads import data

from on_gpu.work import Found, Work, first_lines
from tinygrad_mnist.dispatch import Call, Observer, observe
from tinygrad_mnist.flops import multiply_adds
from tinygrad_mnist.verification.steps import ONE_HOT

COPIED, WIDTH, NODES = 2**30, 8192, 1000  # bytes, rows of a product, nodes of an empty graph
QUICK = 2**22, 256, 10
REPEATS = 10

EMPTY = 'extern "C" __global__ void nothing() {}'


class Operations(Observer):
    """Counts those of products and convolutions."""

    def __init__(self) -> None:
        self.count = 0

    def after(self, call: Call, result: object) -> None:
        self.count += 2 * multiply_adds(call, result)


def rates(work: Work) -> Found:
    """What the card does at its best, as measured: bytes, operations, and nodes."""
    copied, width, nodes = QUICK if work.quick else (COPIED, WIDTH, NODES)
    xp, clock = work.backend.xp, clock_of(work.backend)
    a, b = (xp.zeros(copied // 4, np.float32) for _ in range(2))

    def copy() -> None:
        work.backend.copy_(a, b)

    x, y, z = (work.backend.asarray(each) for each in square(width))

    def product() -> None:
        work.backend.matmul(x, y, out=z)

    found = {
        "bytes per second": 2 * copied / best(clock, copy),
        "operations per second": 2 * width**3 / best(clock, product),
    }
    if hasattr(xp, "cuda"):
        try:
            found["seconds per empty node"] = empty_node(xp, clock, nodes)
        except Exception as error:  # noqa: BLE001  it stands beside the floor, no more
            found["empty node"] = first_lines(error)
    return found


def square(width: int) -> list[np.ndarray]:
    """Two factors and room for their product."""
    draw = np.random.default_rng(0)
    return [draw.standard_normal((width, width), np.float32) for _ in range(3)]


def best(clock, run) -> float:
    """The seconds of the fastest of some calls, after one."""
    run()
    return min(clock.time(run, 1).device for _ in range(REPEATS)) * 1e-6


def empty_node(xp, clock, nodes: int) -> float:
    """The seconds that a graph takes for a kernel that does nothing, one after the other."""
    kernel = xp.RawModule(code=EMPTY).get_function("nothing")
    kernel((1,), (1,), ())
    stream = xp.cuda.Stream(non_blocking=True)
    with stream:
        stream.begin_capture()
        for _ in range(nodes):
            kernel((1,), (1,), ())
        graph = stream.end_capture()
        graph.launch(stream)
        return best(clock, lambda: graph.launch(stream)) / nodes


def floor_of(step: str, run, rates: Found, kernels: int) -> Found:
    """The floor of a step, in microseconds; ``run`` does it plain."""
    operations = Operations()
    with observe(operations):
        run()
    x, y, onehot = data(step)
    inputs = x.nbytes + (onehot if step in ONE_HOT else y).nbytes
    moved = inputs + 2 * 4 * optimizer_size(step)
    found = {
        "bytes": moved,
        "operations": operations.count,
        "by bytes, µs": moved / rates["bytes per second"] * 1e6,
        "by operations, µs": operations.count / rates["operations per second"] * 1e6,
    }
    found["µs"] = max(found["by bytes, µs"], found["by operations, µs"])
    found["kernels"] = kernels  # each of them one node of the graph, or a few
    if "seconds per empty node" in rates:
        found["as many empty nodes, µs"] = kernels * rates["seconds per empty node"] * 1e6
    return found
