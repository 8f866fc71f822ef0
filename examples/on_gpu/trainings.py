"""How long the two trainings of the command line take: in this process, and as commands."""

import os
import re
import subprocess
import sys
import tempfile
import time
from typing import Any

import numpy as np
from peers.clocks import clock_of

import tinygrad_mnist as tg
from on_gpu.machine import ROOT
from on_gpu.work import Found, Work, first_lines
from tinygrad_mnist import models
from tinygrad_mnist.backend import use_backend
from tinygrad_mnist.training import Training
from tinygrad_mnist.utils.data import DataLoader, ImageDataset, datasets

MOST = {"mlp": 1.0, "cnn": 0.5}  # seconds, without the start
LEAST = {"mlp": 0.97, "cnn": 0.985}  # of the test images
ROUNDS = 3
EVALUATION_BATCH = 500


def trainings(work: Work) -> None:
    """``train --model mlp`` and ``train``."""
    with use_backend(work.backend):
        data = noise() if work.quick else datasets.load("mnist", work.data)
        for name in models.RECIPES:
            work.found[name] = found = {}
            try:
                in_process(work, name, data, found)
            except Exception as error:  # noqa: BLE001  the other goes on
                found["error"] = first_lines(error)
                work.fail(f"{name}: {found['error']}")
            work.save()
    if not work.quick:
        for name in models.RECIPES:
            work.found[name]["command"] = as_command(work, name)
            work.save()


def noise() -> list[ImageDataset]:
    """A small set that no network learns."""
    draw = np.random.default_rng(0)
    sizes = (70, 20)
    images = [draw.integers(0, 256, (size, 28, 28), np.uint8) for size in sizes]
    return [ImageDataset(x, np.arange(len(x)) % 10, 0.5, 0.5) for x in images]


def prepared(name: str, data: Any) -> Training:
    """The training as ``train`` makes it."""
    tg.manual_seed(0)
    recipe = models.RECIPES[name]
    train_set, test_set = data
    batches = DataLoader(train_set, recipe.batch_size, shuffle=True)
    model = models.ARCHITECTURES[name](**recipe.arguments)
    optimizer = models.make_optimizer("adam", model, recipe.lr)
    steps = recipe.epochs * len(batches)
    schedule = tg.optim.lr_scheduler.OneCycleLR
    scheduler = schedule(optimizer, recipe.lr, steps, pct_start=0.25) if recipe.one_cycle else None
    test = DataLoader(test_set, EVALUATION_BATCH)
    return Training(model, optimizer, batches, test, recipe.epochs, scheduler)


def in_process(work: Work, name: str, data: Any, found: Found) -> None:
    """Seconds from the first step to the last test, with the data there and kernels compiled.

    What a training records is its own, and counts. The median of some, after one that compiles.
    """
    wait = clock_of(work.backend).wait
    seconds, epochs = [], []
    for _ in range(1 + (1 if work.quick else ROUNDS)):
        training = prepared(name, data)
        wait(None)
        started = time.perf_counter()
        history = training.run()
        wait(None)
        seconds.append(time.perf_counter() - started)
        epochs.append([epoch.seconds for epoch in history.epochs])
    last = history.epochs[-1]
    found |= {
        "first, seconds": seconds[0],
        "seconds": float(np.median(seconds[1:])),
        "all, seconds": seconds[1:],
        "epochs, seconds": epochs[-1],
        "steps": len(history.losses),
        "test accuracy": last.test_accuracy,
        "test loss": last.test_loss,
        "at most, seconds": MOST[name],
    }
    if work.quick:
        return
    if last.test_accuracy < LEAST[name]:
        work.fail(f"{name}: test accuracy {last.test_accuracy:.2%}, at least {LEAST[name]:.1%}")
    if hasattr(work.backend.xp, "cuda") and found["seconds"] > MOST[name]:
        work.fail(f"{name} takes {found['seconds']:.2f} s, at most {MOST[name]} s")


def as_command(work: Work, name: str) -> Found:
    """The whole command in a process of its own; its pictures need more than NumPy and CuPy."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "tinygrad_mnist", "train", "--model", name]
        command += ["--backend", work.backend.name, "--out", folder]
        command += ["--data", work.data] if work.data else []
        started = time.perf_counter()
        done = subprocess.run(
            command, cwd=ROOT, capture_output=True, text=True, errors="replace", check=False,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
        )  # fmt: skip
        seconds = time.perf_counter() - started
    accuracy = re.findall(r"^test accuracy: (\S+)%$", done.stdout, re.M)
    found = {"seconds": seconds, "code": done.returncode, "test accuracy": accuracy[:1]}
    if done.returncode:
        found["output"] = (done.stdout + done.stderr).splitlines()[-5:]
        if "is not installed" not in done.stderr:  # its checkpoints and report need others
            work.fail(f"train --model {name} ended with {done.returncode}")
    return found


def lines(found: Found) -> list[str]:
    """For the end of the output."""
    shown = []
    for name, told in found.items():
        if not isinstance(told, dict):
            continue
        if "error" in told:
            shown.append(f"{name}: {told['error']}"[:160])
            continue
        command = told.get("command", {})
        whole = ""
        if command:
            said = command.get("output", [f"{command['seconds']:.1f} s"])[-1:]
            whole = f"; the command: {' '.join(said)}"
        shown.append(
            f"{name}: {told['seconds']:.3f} s of at most {told['at most, seconds']} s on a card, "
            f"{told['steps']} steps, {told['test accuracy']:.2%}{whole}"
        )
    return shown
