"""The process that times the steps of one library, and how another talks to it."""

import importlib
import importlib.metadata
import json
import os
import select
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import Any, NamedTuple

from peers.clocks import Clock, clock_of, clock_of_torch

PLAIN = ("numpy", "numba")
CARD = ("cupy",)  # where it is usable
FLOOR = "floor"
WARM_UP, SLICE = 5, 0.25  # calls before the first round; seconds of calls in a round

# Without TF32: products and convolutions in float32 all the way, as ours are.
EXACT = {"NVIDIA_TF32_OVERRIDE": "0", "JAX_DEFAULT_MATMUL_PRECISION": "highest"}
# JAX takes most of a card's memory at its start, unless told otherwise.
SHARING = {"XLA_PYTHON_CLIENT_PREALLOCATE": "false"}

Run = Callable[[], Any]
HOST = Clock(lambda result: None)


class Library(NamedTuple):
    """What makes a step of a name, how it describes itself, and what waits for its results."""

    make: Callable[[str], Run]
    about: str
    clock: Clock = HOST


class Worker:
    """A process that times the steps of one column. OSError where its library fails."""

    def __init__(self, name, script, option="--worker", advice=""):
        self.name = name
        self.advice = advice
        self.process = subprocess.Popen(
            [sys.executable, script, option, name],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, **EXACT, **SHARING} if option == "--on-card" else None,
        )

    def __enter__(self):
        self.about = self.heard()
        return self

    def __exit__(self, kind, *_):
        if kind is not None:
            self.process.kill()  # it may be compiling for minutes
        with suppress(BrokenPipeError):
            self.process.stdin.close()
        self.process.wait()

    def time(self, step):
        """Microseconds; on a card, those of ``Times``."""
        self.ask(step)
        return self.heard()

    def ask(self, step):
        """``time`` without its answer, which is to be ``heard``."""
        with suppress(BrokenPipeError):  # what it said at its end tells more
            print(step, file=self.process.stdin, flush=True)

    def heard(self, seconds=None):
        """Its next answer; OSError, and its end, where that takes more than so many ``seconds``."""
        if seconds is not None and not select.select([self.process.stdout], [], [], seconds)[0]:
            self.process.kill()
            raise OSError(f"{self.name}: no answer in {seconds} s{self.advice}")
        line = self.process.stdout.readline()
        said = json.loads(line) if line else {"error": f"stopped with {self.process.wait()}"}
        if isinstance(said, dict):
            raise OSError(f"{self.name}: {said['error']}{self.advice}")
        return said


def ours_here():
    """The columns of this library that can be timed here: each backend, plain and recorded."""
    cuda = importlib.import_module("tinygrad_mnist").cuda
    names = (*PLAIN, *(CARD if cuda.is_available() else ()))
    return [f"{name}{jit}" for name in names for jit in ("", "+jit")]


def work(name, on_card=False):
    """Time steps as the parent asks for them, one name a line; answer with microseconds.

    The first answer says what library this is. Where a peer fails, the last one is why.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent says it, and ends this process
    ours = name.partition("+")[0] in (*PLAIN, *CARD)
    try:
        library = peer_on_card(name) if on_card else library_of(name)
        answer(library.about)
        serve(library, on_the_card if on_card else on_the_wall)
    except Exception as error:
        if ours:
            raise
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        answer({"error": ": ".join([type(error).__name__, *lines[:1]])})
        return 1
    return 0


def serve(library, measured):
    current = run = None
    for line in sys.stdin:
        step = line.strip()
        if step != current:
            run = None  # whose arrays go before others come
            current, run = step, library.make(step)
            for _ in range(WARM_UP):
                library.clock.wait(run())
        answer(measured(run, library.clock))


def answer(value):
    print(json.dumps(value), flush=True)


def on_the_wall(run, clock):
    """The median microseconds of the calls that fit into a slice, at least three."""
    found, stop = [], time.perf_counter() + SLICE
    while len(found) < 3 or time.perf_counter() < stop:
        start = time.perf_counter()
        clock.wait(run())
        found.append((time.perf_counter() - start) * 1e6)
    return statistics.median(found)


def on_the_card(run, clock, seconds=SLICE):
    """The mean times of as many calls, one after the other, as fit into a slice."""
    return clock.time(run, clock.fitting(run, seconds))


# ---- libraries


def library_of(name):
    """The column of that name."""
    if name == FLOOR:
        make = importlib.import_module("peers.floor").floor_step
        return Library(
            make, f"products alone on NumPy {importlib.metadata.version('numpy')}, and a copy"
        )
    if name == "jax":
        return jax()
    if name == "keras":
        make = importlib.import_module("peers.with_keras").keras_step
        return Library(make, f"Keras {importlib.metadata.version('keras')}")
    if name in ("torch", "compile"):
        torch = importlib.import_module("torch")
        about = f"PyTorch {torch.__version__}, {torch.get_num_threads()} threads"
        return pytorch(name, torch, about)
    return ours(name)


def ours(name):
    """This library on a backend, as it is or with the step recorded."""
    lib = importlib.import_module("tinygrad_mnist")
    backend, _, jit = name.partition("+")
    lib.set_backend(backend)
    version = importlib.import_module(backend).__version__
    about = f"tinygrad_mnist on {backend} {version}{', jit' if jit else ''}"
    make = importlib.import_module("peers.with_pytorch").pytorch_step
    current = importlib.import_module("tinygrad_mnist.backend").current()
    return Library(
        partial(make, lib=lib, compiled=lib.jit if jit else None), about, clock_of(current)
    )


def pytorch(name, torch, about, device=None, clock=HOST):
    """PyTorch as it is, or with the step compiled: as a whole, which is faster than in parts."""
    compiled, how = None, "eager"
    if name == "compile":
        mode = {} if device is None else {"mode": "reduce-overhead"}  # CUDA graphs
        compiled, how = partial(torch.compile, **mode), "torch.compile"
        how += "".join(f"({key}={value!r})" for key, value in mode.items())
    make = importlib.import_module("peers.with_pytorch").pytorch_step
    return Library(
        partial(make, lib=torch, compiled=compiled, device=device), f"{about}, {how}", clock
    )


def jax():
    """JAX where it computes by default."""
    make = importlib.import_module("peers.with_jax").jax_step
    clock = Clock(lambda result: None if result is None else result.block_until_ready())
    return Library(make, f"JAX {importlib.metadata.version('jax')} jit", clock)


def peer_on_card(name):
    """A peer on its first card, without TF32. OSError where it has none."""
    if name == "jax":
        library = jax()
        device = importlib.import_module("jax").devices()[0]
        if device.platform not in ("gpu", "cuda"):
            raise OSError(f"JAX computes on {device.platform}, not on a card")
        return library._replace(about=f"{library.about} on {device.device_kind}")
    torch = importlib.import_module("torch")
    if not torch.cuda.is_available():
        raise OSError("PyTorch finds no card")
    torch.set_float32_matmul_precision("highest")
    torch.backends.cudnn.allow_tf32 = False
    about = f"PyTorch {torch.__version__} on {torch.cuda.get_device_name()}"
    return pytorch(name, torch, about, "cuda", clock_of_torch(torch))
