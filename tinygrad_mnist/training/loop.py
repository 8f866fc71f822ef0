"""The loop that trains a classifier, and its evaluation."""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, TypeVar

import numpy as np

from tinygrad_mnist import nn, optim, profiler, random
from tinygrad_mnist.anomaly import detect_anomaly
from tinygrad_mnist.tensor import Tensor
from tinygrad_mnist.training.steps import (
    Evaluation,
    Rehearsed,
    Scheduler,
    Snapshot,
    Step,
    evaluated,
    test_step,
    train_step,
    weighted,
)
from tinygrad_mnist.utils.data import DataLoader

T = TypeVar("T")
OnEpoch = Callable[["Epoch", "History"], None]
READ = 100  # steps from one look at the losses to the next: to look is to wait for a device


@dataclass
class Epoch:
    """What one pass over the training data gave."""

    epoch: int
    train_loss: float
    train_accuracy: float
    test_loss: float
    test_accuracy: float
    seconds: float


@dataclass
class History:
    """The course of a training: what ``history.json`` holds."""

    steps_per_epoch: int
    epochs: list[Epoch] = field(default_factory=list)
    losses: list[float] = field(default_factory=list)  # of each step

    def as_dict(self, **about: Any) -> dict[str, Any]:
        """Plain data for JSON and pictures, with ``about`` first."""
        steps = {"step": list(range(1, len(self.losses) + 1)), "loss": self.losses}
        epochs = [asdict(epoch) for epoch in self.epochs]
        return {**about, "steps_per_epoch": self.steps_per_epoch, "epochs": epochs, "steps": steps}


@dataclass
class _Pass:
    """The epoch under way."""

    began: list[dict[str, Any]] = field(default_factory=list)  # streams before its first batch
    batch: int = 0  # so many are done
    hits: int = 0
    counts: list[int] = field(default_factory=list)  # images of each batch
    seconds: float = 0.0


class Training:
    """A training of a classifier on cross-entropy, with a test after each epoch.

    ``run`` does the steps. Between any two, ``state_dict`` has all that decides how it goes on: a
    new ``Training`` of the same parts that loads it goes on to the same bits, on the same backend
    with as many threads. ``scheduler`` goes one step on after each batch. The steps of training and
    of testing are recorded once for all epochs, as ``tg.jit`` does, before they count: the Python
    code in ``forward`` runs a few times for each shape, and no more. For a model that counts, draws
    from Python's ``random`` or reads values there, ``jit=False``. ValueError where ``train`` gives
    no batch.
    """

    def __init__(
        self,
        model: nn.Module,
        optimizer: optim.Optimizer,
        train: DataLoader,
        test: DataLoader,
        epochs: int,
        scheduler: Scheduler = None,
        jit: bool = True,
    ) -> None:
        if not len(train):
            raise ValueError(
                f"fit: no batch of {train.batch_size} in {len(train.dataset)} images with "
                "drop_last; use a smaller batch_size"
            )
        self.model, self.optimizer, self.scheduler = model, optimizer, scheduler
        self.train, self.test = train, test
        self.epochs = epochs
        self.history = History(len(train))
        self.evaluation: Evaluation | None = None  # of the last epoch's end
        self._step = train_step(model, optimizer, scheduler)
        self._train_step = Rehearsed(self._step, self._before_step) if jit else self._step
        self._test_step = _test_step(model, jit)
        self._pass = _Pass()
        self._unread: list[tuple[Tensor, ...]] = []  # losses and hits of the last steps

    @property
    def finished(self) -> bool:
        """Whether all epochs are done."""
        return len(self.history.epochs) >= self.epochs

    @property
    def steps(self) -> int:
        """How many steps are done."""
        return len(self.history.epochs) * len(self.train) + self._pass.batch

    def run(
        self, on_epoch: OnEpoch | None = None, stop: Callable[[], object] | None = None
    ) -> History:
        """Go on to the end of the last epoch, or until ``stop``, asked after each step, is true.

        A progress bar is shown where the error stream is a terminal; ``on_epoch`` is called after
        each epoch. FloatingPointError, which names the op, where a loss is not finite.
        """
        while not self.finished and self._to_the_last_batch(stop):
            epoch = self._end()
            if on_epoch is not None:
                on_epoch(epoch, self.history)
        return self.history

    def evaluate(self) -> Evaluation:
        """Test the model as it is."""
        return evaluated(self.model, self.test, self._test_step)

    def profile(self, steps: int = 10) -> list[profiler.Row]:
        """Where so many training steps spend their time, run by Python kernel after kernel.

        They are of the first batch of an epoch, and what they change is put back.
        """
        snapshot, streams = self._snapshot(), self._streams()
        step = train_step(self.model, self.optimizer, None)  # a schedule may have ended
        self.model.train()
        x, y = next(iter(self.train))
        step(x, y)
        with profiler.profile() as profile:
            for _ in range(steps):
                step(x, y)
        snapshot.put_back()
        self._set_streams(streams)
        return profile.rows()

    def state_dict(self) -> dict[str, Any]:
        """The states of its parts, of the random streams, and where it is; ``tg.save`` takes it."""
        self._read()
        return {
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "scheduler": None if self.scheduler is None else self.scheduler.state_dict(),
            "streams": self._streams(),
            "pass": {**asdict(self._pass), "counts": np.array(self._pass.counts, np.int64)},
            "epochs": [asdict(epoch) for epoch in self.history.epochs],
            "losses": np.array(self.history.losses, np.float64),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from ``state``. ValueError, TypeError or KeyError where it does not fit."""
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        if (self.scheduler is None) != (state["scheduler"] is None):
            raise ValueError("load_state_dict: only one of the state and this has a scheduler")
        if self.scheduler is not None:
            self.scheduler.load_state_dict(state["scheduler"])
        self._pass = _Pass(**{**state["pass"], "counts": state["pass"]["counts"].tolist()})
        self.history.epochs[:] = [Epoch(**epoch) for epoch in state["epochs"]]
        self.history.losses[:] = state["losses"].tolist()
        self._set_streams(state["streams"])
        self._unread.clear()

    # ---- an epoch

    def _to_the_last_batch(self, stop: Callable[[], object] | None) -> bool:
        """Whether the epoch's steps are all done, and nobody asked to stop."""
        here = self._pass
        title = f"epoch {len(self.history.epochs) + 1}/{self.epochs}"
        started = time.perf_counter() - here.seconds
        self._start = here.batch, self._snapshot(), self._streams()
        batches = self._batches()
        self.model.train()
        stopped = False
        for x, y in progress(batches, title, total=len(self.train), initial=here.batch):
            self._unread.append(self._train_step(x, y))
            here.counts.append(len(y))
            here.batch += 1
            if here.batch % READ == 0:
                self._read()
            if stop is not None and stop():
                stopped = True
                break
        self._read()
        here.seconds = time.perf_counter() - started
        return not stopped

    def _end(self) -> Epoch:
        """Test the model, and write the epoch down."""
        here, number = self._pass, len(self.history.epochs) + 1
        started = time.perf_counter() - here.seconds
        self.evaluation = self.evaluate()
        if not math.isfinite(self.evaluation.loss):  # the last step alone can spoil the weights
            what = f"test loss became {self.evaluation.loss} after epoch {number}"
            raise self._diverged(what, here.batch)
        epoch = Epoch(
            epoch=number,
            train_loss=weighted(self.history.losses[-here.batch :], here.counts),
            train_accuracy=here.hits / sum(here.counts),
            test_loss=self.evaluation.loss,
            test_accuracy=self.evaluation.accuracy,
            seconds=time.perf_counter() - started,
        )
        self.history.epochs.append(epoch)
        self._pass = _Pass()
        return epoch

    def _batches(self) -> Iterator[Any]:
        """Those of the epoch that are not done yet."""
        now = self._streams()
        if not self._pass.batch:
            self._pass.began = now
            return iter(self.train)
        self._set_streams(self._pass.began)
        batches = self.train.from_batch(self._pass.batch)
        self._set_streams(now)
        return batches

    def _read(self) -> None:
        """Take the losses and hits of the last steps from the device."""
        first = self._pass.batch - len(self._unread) + 1
        unread, self._unread = self._unread, []
        for step, (loss, hits) in enumerate(unread, first):
            value = loss.item()
            if not math.isfinite(value):
                number = len(self.history.epochs) + 1
                raise self._diverged(f"loss became {value} at step {step} of epoch {number}", step)
            self.history.losses.append(value)
            self._pass.hits += hits.item()

    def _diverged(self, what: str, step: int) -> FloatingPointError:
        """The error that says where, found by doing the epoch again up to ``step``."""
        try:
            self._again(step)
        except FloatingPointError as error:
            notes = getattr(error, "__notes__", ())
            return FloatingPointError("; ".join([f"the {what}: {error}", *notes, _ADVICE]))
        return FloatingPointError(f"the {what}; {_ADVICE}")

    def _again(self, last: int) -> None:
        """Do the epoch's steps once more, with an eye on every number of the last two and a test.

        The step before the one whose loss is not finite may have spoilt the weights.
        """
        self._pass.batch, snapshot, streams = self._start
        snapshot.put_back()
        self._set_streams(streams)
        self.model.train()
        for step, (x, y) in enumerate(self._batches(), self._pass.batch + 1):
            if step < last - 1:
                self._train_step(x, y)
                continue
            with detect_anomaly():
                self._step(x, y)
            if step == last:
                break
        with detect_anomaly():
            evaluated(self.model, self.test, test_step(self.model))

    # ---- state

    def _snapshot(self) -> Snapshot:
        return Snapshot(self.model, self.optimizer, self.scheduler)

    def _before_step(self) -> Callable[[], None] | None:
        """How a rehearsal is undone; before the very first step there is none."""
        return self._snapshot().put_back if self.steps else None

    def _generators(self) -> list[random.Generator]:
        own = (self.train.generator, self.test.generator)
        return [random.current(), *(each for each in own if each is not None)]

    def _streams(self) -> list[dict[str, Any]]:
        return [each.get_state() for each in self._generators()]

    def _set_streams(self, states: list[dict[str, Any]]) -> None:
        for each, state in zip(self._generators(), states, strict=True):
            each.set_state(state)


_ADVICE = "try a smaller learning rate"


def fit(
    model: nn.Module,
    optimizer: optim.Optimizer,
    train: DataLoader,
    test: DataLoader,
    epochs: int,
    scheduler: Scheduler = None,
    on_epoch: OnEpoch | None = None,
    jit: bool = True,
) -> History:
    """Train a classifier from the beginning to the end: ``Training(…).run(on_epoch)``."""
    return Training(model, optimizer, train, test, epochs, scheduler, jit).run(on_epoch)


def evaluate(model: nn.Module, loader: DataLoader, jit: bool = True) -> tuple[float, float]:
    """Mean cross-entropy and accuracy (0 to 1) of a classifier; leaves it in its mode.

    With ``jit``, a batch is recorded, and all of its shape are replayed.
    """
    found = evaluated(model, loader, _test_step(model, jit))
    return found.loss, found.accuracy


def _test_step(model: nn.Module, jit: bool) -> Step:
    step = test_step(model)
    return Rehearsed(step, lambda: _nothing_to_undo) if jit else step


def _nothing_to_undo() -> None:
    """A test changes no state."""


def progress(
    items: Iterable[T],
    title: str,
    unit: str = "batch",
    total: int | None = None,
    initial: int = 0,
) -> Iterable[T]:
    """``items`` under a progress bar where the error stream is a terminal.

    ``total`` are to come, where ``items`` has no length, and ``initial`` are done.
    """
    if sys.stderr is None or not sys.stderr.isatty():
        return items
    from tqdm import tqdm  # type: ignore[import-untyped]  # noqa: PLC0415

    return tqdm(items, desc=title, unit=unit, leave=False, total=total, initial=initial)
