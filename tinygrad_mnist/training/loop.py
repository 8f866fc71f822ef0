"""The loop that trains a classifier, and its evaluation."""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, NamedTuple, TypeVar

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
    read,
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


class Profiled(NamedTuple):
    """The profile of so many steps of so many images."""

    rows: list[profiler.Row]
    steps: int
    images: int


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
    from Python's ``random`` or reads values there, ``jit=False``. ValueError where a loader gives
    no batch, TypeError for a schedule that steps on a metric.
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
        for loader in (train, test):
            if not len(loader):
                raise ValueError(
                    f"fit: no batch of {loader.batch_size} in {len(loader.dataset)} images with "
                    "drop_last; use a smaller batch_size"
                )
        if isinstance(scheduler, optim.lr_scheduler.ReduceLROnPlateau):
            raise TypeError(
                "fit: a ReduceLROnPlateau steps on a metric, and not after each batch; step it in "
                "on_epoch"
            )
        self.model, self.optimizer, self.scheduler = model, optimizer, scheduler
        self.train, self.test = train, test
        self.epochs = epochs
        self.history = History(len(train))
        self.evaluation: Evaluation | None = None  # of the last epoch's end
        self._step = train_step(model, optimizer, scheduler)
        self._jit = jit
        self._train_step = self._made_step()
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

    def profile(self, images: int = 512, seconds: float = 0.1) -> Profiled:
        """Where training steps spend their time, run by Python kernel after kernel.

        They are of the first batch of an epoch, or so many images of that, and are done again until
        ``seconds`` are over. What they change is put back.
        """
        snapshot, streams = self._snapshot(), self._streams()
        step = train_step(self.model, self.optimizer, None)  # a schedule may have ended
        self.model.train()
        x, y = (each[:images] for each in next(iter(self.train)))
        profile, steps = profiler.profile(), 0
        ends = time.perf_counter() + seconds
        while not steps or time.perf_counter() < ends:
            with profile:
                step(x, y)
            steps += 1
        snapshot.put_back()
        self._set_streams(streams)
        return Profiled(profile.rows(), steps, len(y))

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
        """Go on from ``state``. ValueError where it does not fit; nothing is changed then."""
        before = self._snapshot()
        try:
            here, history = self._checked(state)
            self.model.load_state_dict(state["model"])
            self.optimizer.load_state_dict(state["optimizer"])
            if self.scheduler is not None:
                self.scheduler.load_state_dict(state["scheduler"])
            self._set_streams(state["streams"])
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            before.put_back()
            reason = str(error) if isinstance(error, ValueError) else repr(error)
            raise ValueError(
                f"Training.load_state_dict: the state does not fit: {reason}"
            ) from error
        self._pass, self.history = here, history
        self._unread.clear()

    def _checked(self, state: Mapping[str, Any]) -> tuple[_Pass, History]:
        """Where ``state`` is, and its history."""
        if (self.scheduler is None) != (state["scheduler"] is None):
            raise ValueError("only one of it and this training has a scheduler")
        if len(state["streams"]) != len(self._generators()):
            raise ValueError("it is of other loaders, by the number of their generators")
        here = _Pass(**{**state["pass"], "counts": state["pass"]["counts"].tolist()})
        epochs = [Epoch(**epoch) for epoch in state["epochs"]]
        history = History(len(self.train), epochs, state["losses"].tolist())
        steps = len(epochs) * len(self.train) + here.batch
        if len(history.losses) != steps or here.batch != len(here.counts):
            raise ValueError(
                f"it has {len(history.losses)} losses after {len(epochs)} epochs and {here.batch} "
                f"batches, of which an epoch here has {len(self.train)}"
            )
        return here, history

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
        if not self._pass.began:
            self._pass.began = now
        self._set_streams(self._pass.began)
        batches = self.train.from_batch(self._pass.batch)
        if self._pass.batch:
            self._set_streams(now)
        return batches

    def _read(self) -> None:
        """Take the losses and hits of the last steps from the device."""
        first = self._pass.batch - len(self._unread) + 1
        unread, self._unread = self._unread, []
        losses, hits = (read(each) for each in zip(*unread, strict=True)) if unread else ((), ())
        for step, value in enumerate(losses, first):
            if not math.isfinite(value):
                number = len(self.history.epochs) + 1
                raise self._diverged(f"loss became {value} at step {step} of epoch {number}", step)
            self.history.losses.append(value)
        self._pass.hits += int(sum(hits))

    def _diverged(self, what: str, step: int) -> FloatingPointError:
        """The error that says where, found by doing the epoch again up to ``step``."""
        try:
            self._again(step)
        except FloatingPointError as error:
            notes = getattr(error, "__notes__", ())
            found = "; ".join([f"the {what}: {error}", *notes])
            return FloatingPointError(found if " was given NaN" in found else f"{found}; {_ADVICE}")
        return FloatingPointError(f"the {what}; {_ADVICE}")

    def _again(self, last: int) -> None:
        """Do the epoch once more, from the step before ``last`` on with an eye on every number.

        That may have spoilt the weights. Those steps are plain, which may round otherwise than the
        replays did, so that the numbers may go wrong a few steps later.
        """
        self._pass.batch, snapshot, streams = self._start
        snapshot.put_back()
        self._set_streams(streams)
        self.model.train()
        again = self._made_step()
        for x, y in self._batches():
            if self._pass.batch < last - 2:
                again(x, y)
            else:
                with detect_anomaly():
                    self._step(x, y)
            self._pass.batch += 1
        with detect_anomaly():
            evaluated(self.model, self.test, test_step(self.model))

    # ---- state

    def _made_step(self) -> Step:
        return Rehearsed(self._step, self._before_step) if self._jit else self._step

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
    """``items`` under a progress bar where the error stream is a terminal, and tqdm is installed.

    ``total`` are to come, where ``items`` has no length, and ``initial`` are done.
    """
    if sys.stderr is None or not sys.stderr.isatty():
        return items
    try:
        from tqdm import tqdm  # type: ignore[import-untyped]  # noqa: PLC0415
    except ImportError:
        return items
    return tqdm(items, desc=title, unit=unit, leave=False, total=total, initial=initial)
