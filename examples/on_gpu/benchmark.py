"""A training step of seven small networks on the card: ours, PyTorch's and JAX's, and the floor.

All in float32 without TF32. Ours run here, each peer in a process of its own; the columns take
turns, for several rounds. A round is as many calls as fit into a slice, one after the other,
between two events on the stream that computes; JAX has no events, and has what the wall's clock
says from an idle card to an idle card. The figures are the medians of the rounds, ratios the
medians of the rounds' ratios. "issue" is what the host takes to ask for a step, "wall" what the
wall's clock says.
"""

import contextlib
import importlib.util
import statistics
from pathlib import Path

from peers.clocks import Clock, Times, clock_of
from peers.with_pytorch import training
from peers.worker import EXACT, SLICE, WARM_UP, Worker, on_the_card

import tinygrad_mnist as tg
from on_gpu.floor import floor_of, rates
from on_gpu.work import Found, Work, first_lines
from tinygrad_mnist.backend import use_backend
from tinygrad_mnist.verification.steps import STEPS

SCRIPT = Path(__file__).resolve().parents[1] / "verify_gpu.py"
PEERS = {"torch": "torch", "compile": "torch", "jax": "jax"}  # and its package
PLAIN, JIT = "plain", "jit"  # ours
ROUNDS = 5
PATIENCE = 150  # seconds for a step to be compiled and timed
# What is asked of the jitted step, by column: at most so many times the peer's.
TO_EAGER = {"mlp-32": 0.2, "cnn-64": 0.3}
TO_BEST = dict.fromkeys(("mlp-32", "mlp-128", "cnn-64", "cnn-512", "full-100"), 1.0)
BEST = ("compile", "jax")
ORDER = sorted(STEPS, key=lambda step: step not in TO_BEST)  # what is asked of comes first
QUICK = ("mlp-32",), 2, 0.01


class Ours:
    """A column of this process, with the interface of a ``Worker``."""

    def __init__(self, name: str, clock: Clock, seconds: float) -> None:
        self.name, self.clock, self.seconds = name, clock, seconds
        self.step, self.run, self.jitted = "", None, None

    def ask(self, step: str) -> None:
        """Make it, if it is another."""
        if step == self.step:
            return
        self.run = None  # whose arrays go before others come
        train, batch, _ = training(step, tg)
        self.jitted = train = tg.jit(train) if self.name == JIT else train
        self.step, self.run = step, lambda: train(*batch)
        for _ in range(WARM_UP):
            self.clock.wait(self.run())

    def heard(self, seconds: float | None = None) -> Times:
        return on_the_card(self.run, self.clock, self.seconds)


def benchmark(work: Work) -> None:
    """Times, ratios and floors of the steps."""
    steps, rounds, seconds = QUICK if work.quick else (ORDER, ROUNDS, SLICE)
    clock = clock_of(work.backend)
    work.found["about"] = {"float32": f"without TF32, by {EXACT} and each library's own settings"}
    with use_backend(work.backend), contextlib.ExitStack() as running:
        columns = [Ours(PLAIN, clock, seconds), Ours(JIT, clock, seconds)]
        if hasattr(work.backend.xp, "cuda") and not work.quick:
            columns += started(work, running)
        work.found["rates"] = measured = rates(work)
        work.save()
        for step in steps:
            try:
                columns, found = timed(work, columns, step, rounds)
                work.found.setdefault("steps", {})[step] = found
                plain, jitted = columns[:2]
                kernels = len(jitted.jitted.program.instructions())
                found["floor"] = floor_of(step, plain.run, measured, kernels)
                judge(work, step, found)
            except Exception as error:  # noqa: BLE001  the other steps go on
                work.fail(f"{step}: {first_lines(error)}")
            work.save()


def started(work: Work, running: contextlib.ExitStack) -> list[Worker]:
    """A process for each peer that is installed and begins."""
    workers = []
    for name, package in PEERS.items():
        if importlib.util.find_spec(package) is None:
            work.found["about"][name] = f"{package} is not installed"
            continue
        workers.append(Worker(name, str(SCRIPT), "--on-card"))
    found = []
    for worker in workers:
        try:
            found.append(running.enter_context(worker))
            work.found["about"][worker.name] = worker.about
        except OSError as error:
            work.found["about"][worker.name] = str(error)
            work.fail(str(error))
    return found


def timed(work: Work, columns: list, step: str, rounds: int) -> tuple[list, Found]:
    """The columns that are still there, and the times of a step."""
    rounds_of: dict[str, list[Times]] = {column.name: [] for column in columns}
    for column in columns:
        column.ask(step)  # they compile at the same time
    columns = [column for column in columns if answered(work, column, step) is not None]
    for _ in range(rounds):
        for column in list(columns):
            column.ask(step)
            found = answered(work, column, step)
            if found is None:
                columns.remove(column)
            else:
                rounds_of[column.name].append(found)
    made: Found = {"columns": {}, "ratios": {}}
    devices = {name: [each.device for each in found] for name, found in rounds_of.items()}
    for name, found in rounds_of.items():
        if len(found) == rounds:
            medians = (statistics.median(each) for each in zip(*found, strict=True))
            made["columns"][name] = dict(zip(Times._fields, medians, strict=True))
            made["columns"][name]["rounds"] = devices[name]
            ratios = map(float.__truediv__, devices[JIT], devices[name])
            made["ratios"][name] = statistics.median(ratios)
    best = [name for name in BEST if name in made["ratios"]]
    if best:
        fastest = min(best, key=lambda name: made["columns"][name]["device"])
        made["best"], made["ratios"]["best"] = fastest, made["ratios"][fastest]
    return columns, made


def answered(work: Work, column: Ours | Worker, step: str) -> Times | None:
    """A column's next times; None where it has failed."""
    try:
        return Times(*map(float, column.heard(PATIENCE)))
    except OSError as error:
        work.found["about"][column.name] = f"{error} (at {step})"
        work.fail(f"{step}: {error}")
        return None


def judge(work: Work, step: str, found: Found) -> None:
    """Fail where a ratio is above what is asked, or what it is to be compared with is not there."""
    if not hasattr(work.backend.xp, "cuda") or work.quick:
        return
    for name, most in (("torch", TO_EAGER.get(step)), ("best", TO_BEST.get(step))):
        ratio = found["ratios"].get(name)
        if most is not None and ratio is None:
            work.fail(f"{step}: nothing to compare with: no {name}")
        elif most is not None and ratio > most:
            work.fail(f"{step}: {ratio:.2f} times {found.get(name, name)}'s, at most {most}")
    for name, told in found["columns"].items():
        if told["device"] < 0.5 * told["wall"] and name in (PLAIN, JIT):
            work.fail(f"{step}: the events of {name} do not see its stream")


def lines(found: Found) -> list[str]:
    """For the end of the output: a table of microseconds on the device, and ratios."""
    steps = found.get("steps", {})
    names = list(dict.fromkeys(name for each in steps.values() for name in each["columns"]))
    about = found.get("about", {})
    shown = [f"{name}: {about[name]}" for name in PEERS if name in about]
    head = "".join(f"{name:>10}" for name in (*names, "floor", "issue", "/ torch", "/ best"))
    shown.append(f"{'µs':<11}{head}")
    for step, told in steps.items():
        cells = [
            f"{told['columns'][n]['device']:,.1f}" if n in told["columns"] else "" for n in names
        ]
        cells.append(f"{told['floor']['µs']:,.1f}" if "floor" in told else "")
        cells.append(f"{told['columns'][JIT]['issue']:,.1f}" if JIT in told["columns"] else "")
        for name, most in (("torch", TO_EAGER.get(step)), ("best", TO_BEST.get(step))):
            ratio = told["ratios"].get(name)
            mark = "!" if ratio and most and ratio > most else ""
            cells.append("" if ratio is None else f"{ratio:.2f}{mark}")
        shown.append(f"{step:<11}" + "".join(f"{cell:>10}" for cell in cells))
    if steps:
        shown.append("! above what is asked; issue: what the host takes to ask for a jitted step")
    return shown
