"""The process that times the steps of one library."""

import importlib
import importlib.metadata
import json
import signal
import statistics
import sys
import time

OURS = ("numpy", "numba")
FLOOR = "floor"
WARM_UP, SLICE = 5, 0.25  # calls before the first round; seconds of calls in a round


def work(name):
    """Time steps as the parent asks for them, one name a line; answer with microseconds.

    The first answer says what library this is. Where a peer fails, the last one is why.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent says it, and ends this process
    try:
        make, about = steps_of(name)
        answer(about)
        serve(make)
    except Exception as error:
        if name in OURS:
            raise
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        answer({"error": ": ".join([type(error).__name__, *lines[:1]])})
        return 1
    return 0


def serve(make):
    current = run = None
    for line in sys.stdin:
        step = line.strip()
        if step != current:
            run = None  # whose arrays go before others come
            current, run = step, make(step)
            for _ in range(WARM_UP):
                run()
        answer(timed(run))


def answer(value):
    print(json.dumps(value), flush=True)


def timed(run):
    """The median microseconds of the calls that fit into a slice, at least three."""
    found, stop = [], time.perf_counter() + SLICE
    while len(found) < 3 or time.perf_counter() < stop:
        start = time.perf_counter()
        run()
        found.append((time.perf_counter() - start) * 1e6)
    return statistics.median(found)


def steps_of(name):
    """The function that makes a step for the column of that name, and how it describes itself."""
    if name == FLOOR:
        make = importlib.import_module("peers.floor").floor_step
        return make, f"products alone on NumPy {importlib.metadata.version('numpy')}, and a copy"
    if name == "jax":
        make = importlib.import_module("peers.with_jax").jax_step
        return make, f"JAX {importlib.metadata.version('jax')} jit"
    if name == "keras":
        make = importlib.import_module("peers.with_keras").keras_step
        return make, f"Keras {importlib.metadata.version('keras')}"
    pytorch_step = importlib.import_module("peers.with_pytorch").pytorch_step
    if name in OURS:
        lib, compiled, about = ours(name)
    else:
        lib, compiled, about = pytorch(name)
    return lambda step: pytorch_step(step, lib, compiled), about


def ours(name):
    """This library on a backend."""
    lib = importlib.import_module("tinygrad_mnist")
    lib.set_backend(name)
    return lib, None, f"tinygrad_mnist on {name} {importlib.metadata.version(name)}"


def pytorch(name):
    """PyTorch as it is, or with the step compiled: as a whole, which is faster than in parts."""
    torch = importlib.import_module("torch")
    about = f"PyTorch {torch.__version__}, {torch.get_num_threads()} threads"
    if name == "torch":
        return torch, None, f"{about}, eager"
    return torch, torch.compile, f"{about}, torch.compile"
