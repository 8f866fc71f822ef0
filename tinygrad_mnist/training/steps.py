"""What a training repeats: a step, a test, and the state that a step changes."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from tinygrad_mnist import nn, optim, random
from tinygrad_mnist.autograd.graph import no_grad
from tinygrad_mnist.composed.arrangements import stack
from tinygrad_mnist.jit import jit as jitted
from tinygrad_mnist.nn.functional import cross_entropy
from tinygrad_mnist.ops.shapes import cat
from tinygrad_mnist.tensor import Tensor
from tinygrad_mnist.utils.data import DataLoader

Scheduler = optim.lr_scheduler.LRScheduler | None
# Of a batch: its mean loss and its hits, and in a test the probabilities (N, classes).
Step = Callable[[Tensor, Tensor], tuple[Tensor, ...]]


class Snapshot:
    """The numbers that a training step changes, as they are when this is made."""

    def __init__(self, model: nn.Module, optimizer: optim.Optimizer, scheduler: Scheduler) -> None:
        self._tensors = [(x, x.detach().clone()) for x in (*model.parameters(), *model.buffers())]
        self._stateful = [each for each in (optimizer, scheduler) if each is not None]
        self._states = [copy.deepcopy(each.state_dict()) for each in self._stateful]
        self._streams = random.get_rng_state()

    def put_back(self) -> None:
        """Write them where they were, in the same memory."""
        with no_grad():
            for x, kept in self._tensors:
                x.copy_(kept)
        for each, state in zip(self._stateful, self._states, strict=True):
            each.load_state_dict(state)
        random.set_rng_state(self._streams)


class Rehearsed:
    """A step that is recorded before it counts, so that each call that counts is a replay.

    A replay may round otherwise than the Python code does, and a training that goes on from a
    checkpoint should not depend on where that was. So before the first batch of each kind two calls
    on it are made, and what they changed is put back by what ``keep`` gave before them. Where that
    is None, as before the very first step of a training, when an optimizer has no moments yet, the
    call counts as it is.
    """

    def __init__(self, step: Step, keep: Callable[[], Callable[[], None] | None]) -> None:
        self._step = jitted(step)
        self._keep = keep
        self._known: set[Any] = set()

    def __call__(self, x: Tensor, y: Tensor) -> tuple[Tensor, ...]:
        kind = (x.shape, x.dtype, y.shape, y.dtype)
        if kind not in self._known and (put_back := self._keep()) is not None:
            for _ in range(2):  # the second records
                try:
                    self._step(x, y)
                finally:
                    put_back()  # each time: a schedule may end with the step that is to come
            self._known.add(kind)
        return self._step(x, y)


def train_step(model: nn.Module, optimizer: optim.Optimizer, scheduler: Scheduler) -> Step:
    """A step on the cross-entropy of a batch."""

    def train_step(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        logits = model(x)
        loss = cross_entropy(logits, y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if scheduler is not None:
            scheduler.step()
        return loss.detach(), _hits(logits, y)

    return train_step


def test_step(model: nn.Module) -> Step:
    """A test of a batch."""

    def test_step(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        logits = model(x)
        return cross_entropy(logits, y), _hits(logits, y), logits.softmax(1)

    return test_step


def _hits(logits: Tensor, y: Tensor) -> Tensor:
    return (logits.detach().argmax(1) == y).sum()


@dataclass(frozen=True)
class Evaluation:
    """What a classifier makes of a dataset."""

    loss: float  # mean cross-entropy
    accuracy: float  # 0 to 1
    probabilities: np.ndarray  # (images, classes), in the loader's order


def evaluated(model: nn.Module, loader: DataLoader, step: Step) -> Evaluation:
    """The results of ``step`` on all batches; the model is left in its mode."""
    training = model.training
    model.eval()
    found, counts = [], []
    try:
        with no_grad():
            for x, y in loader:
                found.append(step(x, y))
                counts.append(len(y))
    finally:
        model.train(training)
    losses, hits, probabilities = zip(*found, strict=True)
    accuracy = sum(read(hits)) / sum(counts)
    return Evaluation(weighted(read(losses), counts), accuracy, cat(probabilities).numpy())


def read(numbers: Sequence[Tensor]) -> list[float]:
    """Python's numbers of tensors of one each, for which a device is waited for once."""
    found: list[float] = stack(numbers).tolist() if numbers else []
    return found


def weighted(values: list[float], counts: list[int]) -> float:
    """The mean of ``values`` that are means of so many."""
    return math.fsum(v * n for v, n in zip(values, counts, strict=True)) / sum(counts)
