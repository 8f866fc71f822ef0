"""What crosses between host and device in a training step, and what waits: nothing may.

Two ways, neither of which the package knows of:

- counted: each of CUDA's calls, through CUPTI (``calls.py``), where that can be had. A copy by a
  kernel from memory of the host that is mapped would not be seen; the package's faults are written
  so, the other way.
- the gate: a kernel holds the stream back until the host lets go. A step that returns meanwhile has
  not waited for the device; one that waits is let go after a second, and told from the others by
  that. It sees every wait of the host, also one inside an allocation, and no copy that nobody waits
  for.

Where CUPTI cannot be had, one plain step is captured in CUDA's global mode in its place, which
refuses waits, copies of ordinary memory of the host, and allocations.
"""

import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import numpy as np
from peers.clocks import clock_of

import tinygrad_mnist as tg
from on_gpu.calls import Calls, sorted_out
from on_gpu.work import Found, Work, first_lines
from tinygrad_mnist import models
from tinygrad_mnist.backend import use_backend
from tinygrad_mnist.training.steps import train_step
from tinygrad_mnist.utils.data import DataLoader, ImageDataset, datasets

WARM_UP, STEPS = 6, 20  # steps before the count, and in it: all of one pass
QUICK = ("mlp",), 3, 4
HELD = 1.0  # seconds that the gate stays closed for a step that waits

GATE = """
extern "C" __global__ void gate(volatile int* open, long long most) {
    long long start, now;
    asm volatile("mov.u64 %0, %%globaltimer;" : "=l"(start));
    do {
        asm volatile("mov.u64 %0, %%globaltimer;" : "=l"(now));
    } while (!*open && now - start < most);
}
"""


def transfers(work: Work) -> None:
    """A plain and a jitted training step over a DataLoader of MNIST."""
    with use_backend(work.backend):
        names, warm_up, steps = QUICK if work.quick else (models.RECIPES, WARM_UP, STEPS)
        for name in names:
            for jit in (False, True):
                told = work.found[f"{name}{', jit' if jit else ''}"] = {}
                run = Training(name, jit, training_set(work))
                for _ in range(warm_up):
                    run.step(*run.batch())
                count(work, run, told, steps)
                gate(work, run, told)
                work.save()


def training_set(work: Work) -> ImageDataset:
    """MNIST's, or where the part is quick, noise of its shape."""
    if work.quick:
        draw = np.random.default_rng(0)
        images = draw.integers(0, 256, (1024, 28, 28), np.uint8)
        return ImageDataset(images, draw.integers(0, 10, 1024), 0.5, 0.5)
    return datasets.load("mnist", work.data)[0]


class Training:
    """The recipe of a model, a step at a time; none is the last, short batch."""

    def __init__(self, name: str, jit: bool, train_set: ImageDataset) -> None:
        tg.manual_seed(0)
        recipe = models.RECIPES[name]
        model = models.ARCHITECTURES[name](**recipe.arguments)
        optimizer = models.make_optimizer("adam", model, recipe.lr)
        step = train_step(model, optimizer, None)
        self.step: Callable[..., Any] = tg.jit(step) if jit else step
        self.name, self.jit = name, jit
        self._loader = DataLoader(train_set, recipe.batch_size, shuffle=True, drop_last=True)
        self._batches = iter(self._loader)

    def batch(self) -> Any:
        """The next, of a new pass where one has ended."""
        try:
            return next(self._batches)
        except StopIteration:
            self._batches = iter(self._loader)
            return next(self._batches)


# ---- counted


def count(work: Work, run: Training, told: Found, most: int) -> None:
    """The calls of so many steps, and apart from them, of making their batches."""
    with counter(work) as (about, counted):
        told["counted by"] = about
        if counted is None:
            if not run.jit and hasattr(work.backend.xp, "cuda"):
                told["captured"] = captured(work, run)
                if told["captured"] != "yes":
                    work.fail(f"{run.name}: a plain step cannot be captured: {told['captured']}")
            return
        steps, batches = Counter(), Counter()
        for _ in range(most):
            with counted() as found:
                batch = run.batch()
            batches.update(found)
            with counted() as found:
                run.step(*batch)
            steps.update(found)
    told[f"{most} steps"], told[f"{most} batches"] = dict(steps), dict(batches)
    crossed = ("to the device", "to the host", "direction unknown")
    for what, total in (("steps", steps), ("batches", batches)):
        judge(work, run, what, {name: total[name] for name in (*crossed, "waits")})


def judge(work: Work, run: Training, what: str, found: dict[str, int]) -> None:
    wrong = ", ".join(f"{count} {name}" for name, count in found.items() if count)
    if wrong:
        kind = "jitted" if run.jit else "plain"
        work.fail(f"{run.name}, {kind}: the {what} have {wrong}; expected none")


@contextmanager
def counter(work: Work) -> Iterator[tuple[str, Any]]:
    """By what is counted, and a context manager that gives counts; None with why there is none."""
    if work.counted is not None:
        yield "the backend's own count", partial(work.counted, work.backend)
        return
    if not hasattr(work.backend.xp, "cuda"):
        yield f"nothing, as the backend {work.backend.name} has no device", None
        return
    try:
        calls = Calls()
    except OSError as error:
        yield f"nothing, as there is no CUPTI: {error}", None
        return

    @contextmanager
    def counted() -> Iterator[Found]:
        total: Found = {}
        with calls.counted() as found:
            yield total
        total |= sorted_out(found)
        total |= {f"calls of {name}": n for name, n in sorted(found.items())}

    try:
        yield f"CUPTI, {calls.path}", counted
    finally:
        calls.close()


def captured(work: Work, run: Training) -> str:
    """Whether a plain step can be captured in global mode: "yes", or why not.

    After two steps on the same stream, whose memory its pool then has.
    """
    xp = work.backend.xp
    stream = xp.cuda.Stream(non_blocking=True)
    batch = run.batch()
    xp.cuda.Device().synchronize()
    with stream:
        for _ in range(2):
            run.step(*batch)
        stream.synchronize()
        stream.begin_capture(xp.cuda.runtime.streamCaptureModeGlobal)
        try:
            run.step(*batch)
        except Exception as error:  # noqa: BLE001  it is the answer
            return first_lines(error)
        finally:
            try:
                stream.end_capture()
            except Exception as error:  # noqa: BLE001  a capture that broke has said so already
                ended = first_lines(error)
            else:
                ended = "yes"
    return ended


# ---- the gate


def gate(work: Work, run: Training, told: Found) -> None:
    """Whether a step, and the making of its batch, return while the device is held back."""
    xp = work.backend.xp
    if work.counted is not None or not hasattr(xp, "cuda"):
        told["gate"] = "no device to hold back"
        return
    memory = xp.cuda.alloc_pinned_memory(4)
    opened = np.frombuffer(memory, np.int32, 1)
    kernel = xp.RawModule(code=GATE).get_function("gate")
    wait = clock_of(work.backend).wait
    opened[0] = 1
    kernel((1,), (1,), (memory.ptr, np.int64(0)))  # compiled and loaded, which waits
    for what in ("step", "batch"):
        batch = run.batch()
        run.step(*batch)
        wait(None)
        opened[0] = 0
        most = int(2 * HELD * 1e9)  # the kernel ends by itself, whatever happens
        kernel((1,), (1,), (memory.ptr, np.int64(most)))
        timer = threading.Timer(HELD, opened.__setitem__, (0, 1))
        timer.start()
        started = time.perf_counter()
        if what == "step":
            run.step(*batch)
        else:
            run.batch()
        seconds = time.perf_counter() - started
        waited = bool(opened[0])
        timer.cancel()
        opened[0] = 1
        wait(None)
        told.setdefault("gate", {})[what] = {"waits": waited, "ms": seconds * 1e3}
        if waited:
            work.fail(f"{run.name}{', jit' if run.jit else ''}: a {what} waits for the device")


def lines(found: Found) -> list[str]:
    """For the end of the output."""
    shown = []
    for name, told in found.items():
        if not isinstance(told, dict):
            continue
        if "counted by" not in told:
            continue  # it failed before
        parts = [told["counted by"]]
        if "captured" in told:
            parts.append(f"a step can be captured: {told['captured']}")
        for key, total in told.items():
            if key.endswith((" steps", " batches")):
                counts = [
                    f"{n} {k}" for k, n in total.items() if n and not k.startswith("calls of")
                ]
                parts.append(f"{key}: {', '.join(counts) or 'nothing'}")
        if isinstance(told.get("gate"), dict):
            said = [
                f"{what} {'waits' if t['waits'] else 'goes on'}" for what, t in told["gate"].items()
            ]
            parts.append(f"behind a gate: {', '.join(said)}")
        shown.append(f"{name}: {'; '.join(parts)}")
    return shown
