"""The loop that trains a classifier, its evaluation, and model files."""

from __future__ import annotations

import json
import math
import sys
import time
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from tinygrad_mnist import __version__, nn, optim
from tinygrad_mnist.autograd.graph import no_grad
from tinygrad_mnist.jit import jit as jitted
from tinygrad_mnist.models import ARCHITECTURES
from tinygrad_mnist.nn.functional import cross_entropy
from tinygrad_mnist.tensor import Tensor
from tinygrad_mnist.utils.data import DataLoader
from tinygrad_mnist.utils.files import write_whole

T = TypeVar("T")
Step = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]  # of a batch: its mean loss, and its hits

FORMAT = "tinygrad_mnist"
VERSION = "1"


class ModelFileError(ValueError):
    """A model file that is none, is damaged, or holds another model."""


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


def fit(
    model: nn.Module,
    optimizer: optim.Optimizer,
    train: DataLoader,
    test: DataLoader,
    epochs: int,
    scheduler: optim.lr_scheduler.LRScheduler | None = None,
    on_epoch: Callable[[Epoch, History], None] | None = None,
    jit: bool = True,
) -> History:
    """Train a classifier on cross-entropy, and test it after each epoch.

    ``scheduler`` goes one step on after each batch. A progress bar is shown where the error stream
    is a terminal; ``on_epoch`` is called after each epoch. The steps of training and of testing are
    recorded once for all epochs, as ``tg.jit`` does: Python code in ``forward`` runs in the first
    two of each. For a model that counts, draws from Python's ``random`` or reads values there,
    ``jit=False``. FloatingPointError where a loss of the epoch was not finite; ValueError where
    ``train`` gives no batch.
    """
    if not len(train):
        raise ValueError(
            f"fit: no batch of {train.batch_size} in {len(train.dataset)} images with drop_last; "
            "use a smaller batch_size"
        )
    train_step, test_step = _train_step(model, optimizer, scheduler, jit), _test_step(model, jit)
    history = History(len(train))
    for number in range(1, epochs + 1):
        start = time.perf_counter()
        model.train()
        losses, counts, hits = [], [], []
        for x, y in progress(train, f"epoch {number}/{epochs}"):
            loss, right = train_step(x, y)
            losses.append(loss)
            counts.append(len(y))
            hits.append(right)
        values = [loss.item() for loss in losses]
        history.losses += values
        if not all(map(math.isfinite, values)):
            step, value = next((i, v) for i, v in enumerate(values, 1) if not math.isfinite(v))
            raise FloatingPointError(_diverged(f"loss became {value} at step {step} of", number))
        test_loss, test_accuracy = _evaluate(model, test, test_step)
        if not math.isfinite(test_loss):  # the last step alone can spoil the weights
            raise FloatingPointError(_diverged(f"test loss became {test_loss} after", number))
        epoch = Epoch(
            epoch=number,
            train_loss=_weighted(values, counts),
            train_accuracy=_total(hits) / sum(counts),
            test_loss=test_loss,
            test_accuracy=test_accuracy,
            seconds=time.perf_counter() - start,
        )
        history.epochs.append(epoch)
        if on_epoch is not None:
            on_epoch(epoch, history)
    return history


def evaluate(model: nn.Module, loader: DataLoader, jit: bool = True) -> tuple[float, float]:
    """Mean cross-entropy and accuracy (0 to 1) of a classifier; leaves it in its mode.

    With ``jit``, its second batch is recorded, and replayed on the others.
    """
    return _evaluate(model, loader, _test_step(model, jit))


def _evaluate(model: nn.Module, loader: DataLoader, step: Step) -> tuple[float, float]:
    training = model.training
    model.eval()
    losses, counts, hits = [], [], []
    try:
        with no_grad():
            for x, y in loader:
                loss, right = step(x, y)
                losses.append(loss)
                counts.append(len(y))
                hits.append(right)
    finally:
        model.train(training)
    return _weighted([loss.item() for loss in losses], counts), _total(hits) / sum(counts)


def progress(items: Iterable[T], title: str, unit: str = "batch") -> Iterable[T]:
    """``items`` under a progress bar where the error stream is a terminal."""
    if sys.stderr is None or not sys.stderr.isatty():
        return items
    from tqdm import tqdm  # type: ignore[import-untyped]  # noqa: PLC0415

    return tqdm(items, desc=title, unit=unit, leave=False)


def _train_step(
    model: nn.Module,
    optimizer: optim.Optimizer,
    scheduler: optim.lr_scheduler.LRScheduler | None,
    jit: bool,
) -> Step:
    def train_step(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        logits = model(x)
        loss = cross_entropy(logits, y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if scheduler is not None:
            scheduler.step()
        return loss.detach(), _hits(logits, y)

    return jitted(train_step) if jit else train_step


def _test_step(model: nn.Module, jit: bool) -> Step:
    def test_step(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        logits = model(x)
        return cross_entropy(logits, y), _hits(logits, y)

    return jitted(test_step) if jit else test_step


def _hits(logits: Tensor, y: Tensor) -> Tensor:
    return (logits.detach().argmax(1) == y).sum()


def _total(hits: list[Tensor]) -> int:
    return sum(count.item() for count in hits)


def _diverged(what: str, epoch: int) -> str:
    return f"the {what} epoch {epoch}; try a smaller learning rate"


def _weighted(values: list[float], counts: list[int]) -> float:
    return math.fsum(v * n for v, n in zip(values, counts, strict=True)) / sum(counts)


# ---- model files


@dataclass(frozen=True)
class ModelInfo:
    """What a model file says of its model."""

    architecture: str
    arguments: dict[str, Any]
    dataset: str
    mean: float
    std: float


def save_model(path: str | Path, model: nn.Module, info: ModelInfo) -> None:
    """Write the model's state and ``info`` as one safetensors file, whole or not at all.

    OSError where it cannot be written.
    """
    from safetensors.numpy import save  # noqa: PLC0415

    metadata = {
        "format": FORMAT,
        "made_by": f"tinygrad_mnist {__version__}",
        "version": VERSION,
        "architecture": info.architecture,
        "arguments": json.dumps(info.arguments),
        "dataset": info.dataset,
        "mean": repr(info.mean),
        "std": repr(info.std),
    }
    arrays = {name: value.contiguous().numpy() for name, value in model.state_dict().items()}
    write_whole(path, save(arrays, metadata))


def load_model(path: str | Path) -> tuple[nn.Module, ModelInfo]:
    """A model that ``save_model`` wrote, in evaluation mode, on the current backend.

    OSError where the file cannot be read; ModelFileError where it is no safetensors file, no model
    of this package, of an unknown architecture or version, or does not fit its architecture.
    """
    info, arrays = _read_safetensors(Path(path))
    try:
        model = ARCHITECTURES[info.architecture](**info.arguments)
    except (ValueError, TypeError, ArithmeticError, MemoryError) as error:
        raise ModelFileError(
            f"{path}: its arguments {info.arguments} make no {info.architecture}: {error}; "
            "give a model.safetensors that 'train' wrote"
        ) from error
    try:
        model.load_state_dict(arrays)
    except (ValueError, TypeError) as error:
        raise ModelFileError(f"{path}: {error}") from error
    return model.eval(), info


def _read_safetensors(path: Path) -> tuple[ModelInfo, dict[str, Any]]:
    from safetensors import SafetensorError, safe_open  # noqa: PLC0415

    with path.open("rb"):
        pass  # the library's own message for a missing file or a folder is less clear
    try:
        with safe_open(path, framework="numpy") as file:
            info = _info(path, file.metadata() or {})  # before the tensors, which may be many
            return info, {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, TypeError) as error:  # TypeError: a dtype NumPy lacks, as bfloat16
        raise ModelFileError(f"{path} is no safetensors file, or a damaged one: {error}") from error


def _info(path: str | Path, metadata: dict[str, str]) -> ModelInfo:
    if metadata.get("format") != FORMAT:
        raise ModelFileError(
            f"{path} is no model of this program: its metadata lack format={FORMAT!r}; "
            "give a model.safetensors that 'train' wrote"
        )
    if metadata.get("version") != VERSION:
        raise ModelFileError(
            f"{path} is of format version {metadata.get('version')!r}, expected {VERSION!r}"
        )
    if metadata.get("architecture") not in ARCHITECTURES:
        raise ModelFileError(
            f"{path} holds the architecture {metadata.get('architecture')!r}, "
            f"expected one of {', '.join(ARCHITECTURES)}"
        )
    try:
        info = ModelInfo(
            architecture=metadata["architecture"],
            arguments=dict(json.loads(metadata["arguments"])),
            dataset=metadata["dataset"],
            mean=float(metadata["mean"]),
            std=float(metadata["std"]),
        )
    except (KeyError, ValueError, TypeError) as error:
        raise ModelFileError(f"{path} has damaged metadata: {error!r}") from error
    if not all(isinstance(value, int) and value > 0 for value in info.arguments.values()):
        raise ModelFileError(
            f"{path} has damaged metadata: arguments {info.arguments}, expected whole numbers "
            "above 0"
        )
    if not (math.isfinite(info.mean) and math.isfinite(info.std) and info.std > 0):
        raise ModelFileError(
            f"{path} has damaged metadata: mean {info.mean} and std {info.std}, expected finite "
            "numbers, std above 0"
        )
    return info
