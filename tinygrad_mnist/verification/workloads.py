"""Seeded trainings on every backend, beside NumPy's."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any, NamedTuple

import numpy as np

import tinygrad_mnist as lib
from tinygrad_mnist import models
from tinygrad_mnist.backend import use_backend
from tinygrad_mnist.verification.outcomes import (
    ADAM,
    F32,
    F64,
    TRAININGS,
    Column,
    Outcome,
    Pair,
    Tolerances,
    compare,
)
from tinygrad_mnist.verification.steps import ONE_HOT, STEPS, cost_of, network

Arrays = dict[str, np.ndarray]  # by what each is

MOST_ROWS = 2_000
# Biases that the batch norm after them takes out again, so that their gradients are nothing but
# rounding, and the means of what they are in.
WITHOUT_EFFECT = {"train-cnn": ("0.bias", "2.running_mean", "4.bias", "6.running_mean")}
LONG, SHORT = 50, 10  # steps; few where each takes NumPy long


class Training(NamedTuple):
    """A network, what changes it, and the data of each step."""

    model: Any
    optimizer: Any
    cost: Callable[[Any, Any], Any]
    scheduler: Any
    images: np.ndarray
    targets: np.ndarray


def compare_training(name: str, outcomes: Sequence[Outcome]) -> None:
    """The losses of a training, and the state that it ends with."""
    case = f"{name}, after {steps_of(name)} steps"
    compare(outcomes, name, case, dtype_of(name), partial(trained, name, steps_of(name)), _pairs)


def _pairs(found: Arrays, expected: Arrays) -> Iterator[Pair]:
    return (Pair(what, found[what], y) for what, y in expected.items())


def steps_of(name: str) -> int:
    """How many steps a training has."""
    return SHORT if name == "cnn-512" else LONG


def tolerances_of(name: str) -> Tolerances:
    """What the losses and the state may differ by."""
    return ADAM if name.startswith(("mlp", "train")) else TRAININGS


def dtype_of(name: str) -> np.dtype:
    """float64 for convolutions.

    With these and Adagrad or Adam, NumPy's own losses in float32 differ from one BLAS to another.
    """
    return F64 if "cnn" in name else F32


def trained(name: str, steps: int, column: Column) -> Arrays:
    """The losses of so many steps of a training, as "loss", and the state that it ends with."""
    with use_backend(column.backend):
        lib.manual_seed(0)
        training = _training(name)
        x, target = lib.tensor(training.images), lib.tensor(training.targets)

        def step(x: Any, target: Any) -> Any:
            loss = training.cost(training.model(x), target)
            training.optimizer.zero_grad()
            loss.backward()
            training.optimizer.step()
            if training.scheduler is not None:
                training.scheduler.step()
            return loss.detach()

        run = lib.jit(step) if column.jit else step
        losses = [run(x, target).item() for _ in range(steps)]
    left_out = WITHOUT_EFFECT.get(name, ())
    state = {k: v.numpy() for k, v in training.model.state_dict().items() if k not in left_out}
    return {"loss": np.array(losses, dtype_of(name)), **state}


def _training(name: str) -> Training:
    """On the current backend."""
    dtype = dtype_of(name)
    if name in STEPS:
        model, optimizer = network(name, lib)
        rows, cost, scheduler = STEPS[name][1], cost_of(name, lib), None
    else:
        recipe = models.RECIPES[name.removeprefix("train-")]
        model = models.ARCHITECTURES[name.removeprefix("train-")](**recipe.arguments)
        optimizer, rows = models.make_optimizer("adam", model, recipe.lr), recipe.batch_size
        cost = lib.nn.functional.cross_entropy
        scheduler = (
            lib.optim.lr_scheduler.OneCycleLR(optimizer, recipe.lr, LONG, pct_start=0.25)
            if recipe.one_cycle
            else None
        )
    images, labels = digits(min(rows, MOST_ROWS))
    if "cnn" in name:
        images = images.reshape(-1, 1, 28, 28)
    targets = np.eye(10, dtype=dtype)[labels] if name in ONE_HOT else labels
    model.to(dtype)  # the parameters keep their identity, and the optimizer has no moments yet
    return Training(model, optimizer, cost, scheduler, images.astype(dtype), targets)


def digits(rows: int) -> tuple[np.ndarray, np.ndarray]:
    """Ten patterns under noise (rows, 784), and which each is (rows,).

    On noise alone, rounding decides what a network learns.
    """
    draw = np.random.default_rng(0)
    labels = draw.integers(0, 10, rows)
    patterns = draw.random((10, 784), np.float32)
    return (patterns[labels] + draw.random((rows, 784), np.float32)) / 2, labels
