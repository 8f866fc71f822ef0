"""What a recorded step became: graphs, what runs beside them and why; and whether it is equal."""

from collections import Counter
from functools import partial

import numpy as np
from peers.with_pytorch import training

import tinygrad_mnist as tg
from on_gpu.work import Found, Work, first_lines
from tinygrad_mnist.backend import use_backend
from tinygrad_mnist.jit.program import Program
from tinygrad_mnist.kernels import Step
from tinygrad_mnist.verification.steps import STEPS

RUNS = 5  # steps, plain and jitted; from the third on a jitted one is a replay
QUICK = ("mlp-32",)
Arrays = dict[str, np.ndarray]


def capture(work: Work) -> None:
    """The seven steps of ``verification/steps.py``."""
    with use_backend(work.backend):
        for step in QUICK if work.quick else STEPS:
            work.found[step] = found = {}
            try:
                examine(work, step, found)
            except Exception as error:  # noqa: BLE001  the other steps go on
                found["error"] = first_lines(error)
                work.fail(f"{step}: {found['error']}")
            work.save()


def examine(work: Work, step: str, found: Found) -> None:
    """Put into ``found`` what its program is, and how far it is from the plain step."""
    expected, _ = results(step, jit=False)
    replayed, program = results(step, jit=True)
    assert program is not None
    found |= pieces(program)
    found["instructions"] = len(program.instructions())
    found["program"] = str(program).splitlines()
    found["not equal"] = unequal(replayed, expected)
    if found["not equal"]:
        work.fail(f"{step}: a replay is not the plain step: {', '.join(found['not equal'][:3])}")
    if hasattr(work.backend.xp, "cuda"):
        if found["graphs"] != 1:
            work.fail(f"{step}: {found['graphs']} graphs, expected 1")
        if found["outside"]:
            work.fail(f"{step}: outside of graphs: {', '.join(found['outside'])}")


def results(step: str, jit: bool) -> tuple[Arrays, Program | None]:
    """The losses of some steps and the state that they end with, and the program."""
    train, batch, model = training(step, tg)
    run = tg.jit(train) if jit else train
    losses = [run(*batch).item() for _ in range(RUNS)]
    state = {name: x.numpy() for name, x in model.state_dict().items()}
    return {"loss": np.array(losses), **state}, run.program if jit else None


def pieces(program: Program) -> Found:
    """What its replay calls: functions that run several kernels, and kernels by themselves."""
    alone: list[str] = []
    joined: Counter[str] = Counter()
    for run in program.runs():
        for part in run.parts() if hasattr(run, "parts") else [run]:
            step = getattr(part.func, "__self__", None) if isinstance(part, partial) else None
            if isinstance(step, Step):
                alone.append(step.kernel)
            else:
                joined[type(part).__name__] += 1
    return {"graphs": sum(joined.values()), "of kind": dict(joined), "outside": alone}


def unequal(found: Arrays, expected: Arrays) -> list[str]:
    """Each result that differs by a bit, with its largest relative difference."""
    wrong = []
    for name, y in expected.items():
        if found[name].tobytes() != y.tobytes():
            apart = np.abs(found[name].astype(np.float64) - y).max() / max(np.abs(y).max(), 1e-300)
            wrong.append(f"{name} by {apart:.1e}")
    return wrong


def lines(found: Found) -> list[str]:
    """For the end of the output."""
    shown = []
    for step, told in found.items():
        if not isinstance(told, dict):
            continue
        if "error" in told:
            shown.append(f"{step}: {told['error']}"[:160])
            continue
        equal = (
            "equal to the bit" if not told["not equal"] else f"NOT EQUAL: {told['not equal'][0]}"
        )
        beside = f", {len(told['outside'])} kernels outside" if told["outside"] else ""
        shown.append(
            f"{step}: {told['instructions']} kernels, {told['graphs']} graphs{beside}, {equal}"
        )
    return shown
