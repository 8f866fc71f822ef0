"""One page that shows a training: what is on it. How it looks stands in ``page.html``."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from tinygrad_mnist import profiler
from tinygrad_mnist.optional import needed
from tinygrad_mnist.report import pixels
from tinygrad_mnist.report.figures import draw_panels
from tinygrad_mnist.utils.files import write_whole

GRID = 64  # images shown, 8×8
WORST = 32
MOST_WEIGHTS = 64
UNKNOWN = "–"  # a number that is not there, or not finite
_FULL_COLOUR = 0.995  # so large a part of the weights is below the limit of the colours
_LARGE = 1e5  # from here on, a number is written with its power of ten
_DETAILS = ("calls", "mean us", "MB", "GFLOP/s")  # columns of the profile
_SHADES = 0.08, 0.5  # of a cell of the confusion matrix: how opaque the least and the most is


@dataclass(frozen=True, eq=False)
class Report:
    """What the page is made of.

    ``history`` is what ``plot_history`` takes; whatever else stands in it as a single value is
    listed. ``weight`` is the first layer's: (out, 1, h, w) of a convolution, or (out, H·W) of a
    linear layer; another one is not shown. ``images`` (N, H, W) uint8 are those of the test,
    ``labels`` (N,) their classes, ``probabilities`` (N, classes) what the trained model gives
    them, and ``classes`` the names. ``rows`` are the profile of ``steps`` training steps, each of
    ``batch`` images. ``about`` is listed as it is: the command line, versions, the machine.

    ValueError where images, labels, probabilities and classes do not fit each other.
    """

    history: dict[str, Any]
    weight: npt.NDArray[np.floating[Any]] | None
    images: npt.NDArray[np.uint8]
    labels: npt.NDArray[np.integer[Any]]
    probabilities: npt.NDArray[np.floating[Any]]
    classes: tuple[str, ...]
    rows: Sequence[profiler.Row] | None
    about: Mapping[str, str]
    steps: int = 1
    batch: int = 1

    def __post_init__(self) -> None:
        count, names = len(self.images), len(self.classes)
        got = self.images.ndim, self.labels.shape, self.probabilities.shape
        if got != (3, (count,), (count, names)):
            raise ValueError(
                "Report: expected images (N, H, W), labels (N,) and probabilities (N, "
                f"{names}) for {names} classes, got {self.images.shape}, {self.labels.shape} and "
                f"{self.probabilities.shape}"
            )
        if count and not 0 <= self.labels.min() <= self.labels.max() < names:
            raise ValueError(
                f"Report: expected labels from 0 to {names - 1}, got {self.labels.min()} to "
                f"{self.labels.max()}"
            )


def write_report(path: str | Path, report: Report) -> None:
    """Write the page: one HTML file that needs no other, no script and no network.

    A section whose data are missing is left out, and a number that is not finite is a dash.
    Replaces what is at ``path``, in one go. OSError where it cannot be written.
    """
    page = _render(_contents(report))
    write_whole(path, page.encode(errors="backslashreplace"))  # names of files may be no text


def _render(contents: dict[str, Any]) -> str:
    with needed("a report"):
        from jinja2 import Environment, StrictUndefined  # noqa: PLC0415

    environment = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    source = resources.files(__package__).joinpath("page.html").read_text("utf-8")
    return environment.from_string(source).render(contents)


def _contents(report: Report) -> dict[str, Any]:
    """Every name that the template uses."""
    history = report.history
    said = report.probabilities.argmax(1)
    mistakes = int((said != report.labels).sum())
    return {
        "title": f"{history['model']} on {history['dataset']}",
        "subtitle": _subtitle(history),
        "facts": _facts(history, mistakes, len(said)),
        "curves": _curves(history),
        "epochs": _epochs(history),
        "classes": report.classes,
        "long_names": max(map(len, report.classes), default=0) > 2,
        "many_classes": len(report.classes) > 10,
        "matrix": _matrix(report, said),
        "per_class": _per_class(report, said),
        "grid": [_digit(report, said, i) for i in range(min(GRID, len(said)))],
        "worst": [_digit(report, said, i) for i in _worst(report, said)],
        "mistakes": mistakes,
        "weights": _weights(report),
        "below": _css(pixels.BELOW),
        "zero": _css(pixels.ZERO),
        "above": _css(pixels.ABOVE),
        "profile": _profile(report),
        "about": _about(report),
    }


# ---- the head


class Fact(NamedTuple):
    """A number of the head, and what it counts."""

    label: str
    value: str
    more: str


def _subtitle(history: dict[str, Any]) -> str:
    epochs = len(history["epochs"])
    many = "" if epochs == 1 else "s"
    return f"{epochs} epoch{many}, backend {history['backend']}, seed {history['seed']}"


def _facts(history: dict[str, Any], mistakes: int, images: int) -> list[Fact]:
    facts = []
    if history["epochs"]:
        last = history["epochs"][-1]
        facts += [
            Fact(
                "Test accuracy",
                _percent(last["test_accuracy"]),
                f"in training {_percent(last['train_accuracy'])}",
            ),
            Fact(
                "Test loss",
                _number(last["test_loss"]),
                f"in training {_number(last['train_loss'])}",
            ),
        ]
    if images:
        facts.insert(1, Fact("Mistakes", f"{mistakes:,}", f"of {images:,} test images"))
    if history["epochs"]:
        seconds = math.fsum(epoch["seconds"] for epoch in history["epochs"])
        facts.append(Fact("Time", f"{seconds:,.1f} s", "training and testing"))
    return facts


def _number(value: float | None, digits: int = 4) -> str:
    if value is None or not math.isfinite(value):
        return UNKNOWN
    if abs(value) >= _LARGE:
        return f"{value:.3g}"
    return f"{value:.{digits}f}" if abs(value) < 1e3 else f"{value:.0f}"


def _percent(value: float | None, digits: int = 2) -> str:
    return UNKNOWN if value is None or not math.isfinite(value) else f"{value:.{digits}%}"


# ---- epochs


class Curves(NamedTuple):
    """A picture of curves, and what can be read from it."""

    source: str
    alt: str
    caption: str


def _curves(history: dict[str, Any]) -> list[Curves]:
    if not history["epochs"]:
        return []
    loss, accuracy = map(pixels.data_uri, draw_panels(history))
    return [
        Curves(loss, f"Loss by epoch: {_course(history, 'loss', _number)}", "Loss"),
        Curves(
            accuracy,
            f"Accuracy by epoch: {_course(history, 'accuracy', _percent)}",
            "Accuracy, %",
        ),
    ]


def _course(history: dict[str, Any], name: str, text: Callable[[float | None], str]) -> str:
    """The first and the last value of training and test, in words."""
    first, last = history["epochs"][0], history["epochs"][-1]
    parts = []
    for which in ("train", "test"):
        begin, end = text(first[f"{which}_{name}"]), text(last[f"{which}_{name}"])
        parts.append(f"{which} {end}" if first is last else f"{which} from {begin} to {end}")
    return ", ".join(parts)


class EpochRow(NamedTuple):
    """A line of the table of epochs; ``part`` is its time by that of the longest."""

    epoch: int
    train_loss: str
    train_accuracy: str
    test_loss: str
    test_accuracy: str
    seconds: str
    part: float


def _epochs(history: dict[str, Any]) -> list[EpochRow]:
    longest = max((epoch["seconds"] for epoch in history["epochs"]), default=0.0)
    return [
        EpochRow(
            epoch["epoch"],
            _number(epoch["train_loss"]),
            _percent(epoch["train_accuracy"]),
            _number(epoch["test_loss"]),
            _percent(epoch["test_accuracy"]),
            f"{epoch['seconds']:.2f} s",
            round(epoch["seconds"] / longest, 3) if longest else 0.0,
        )
        for epoch in history["epochs"]
    ]


# ---- what is right and wrong


class Cell(NamedTuple):
    """``images`` of one class were taken for one; ``opacity`` is of the cell's shade."""

    images: int
    right: bool
    opacity: float


def _matrix(report: Report, said: npt.NDArray[np.integer[Any]]) -> list[list[Cell]]:
    """By the true class, then by what the model said; nothing where there are no images."""
    if not len(said):
        return []
    counts = _counts(report, said)
    right = counts.diagonal().max()
    wrong = (counts - np.diag(counts.diagonal())).max()
    return [
        [Cell(int(n), i == j, _opacity(n, right if i == j else wrong)) for j, n in enumerate(row)]
        for i, row in enumerate(counts)
    ]


def _counts(report: Report, said: npt.NDArray[np.integer[Any]]) -> npt.NDArray[np.int64]:
    """Images by true class and by what the model said, (classes, classes)."""
    classes = len(report.classes)
    flat = report.labels.astype(np.int64) * classes + said
    return np.bincount(flat, minlength=classes**2).reshape(classes, classes)


def _opacity(count: int, most: int) -> float:
    low, high = _SHADES
    return round(float(low + (high - low) * count / most), 3) if count else 0.0


class ClassRow(NamedTuple):
    """A line of the table of classes; ``part`` is its share of mistakes by the largest such."""

    name: str
    images: int
    missed: int
    part: float
    accuracy: str
    taken_for: str


def _per_class(report: Report, said: npt.NDArray[np.integer[Any]]) -> list[ClassRow]:
    if not len(said):
        return []
    counts = _counts(report, said)
    images = counts.sum(1)
    missed = images - counts.diagonal()
    shares = missed / np.maximum(images, 1)
    most = shares.max() or 1.0
    rows = []
    for i, name in enumerate(report.classes):
        others = counts[i] * (np.arange(len(counts)) != i)
        other, times = int(others.argmax()), int(others.max())
        accuracy = _percent(1 - shares[i]) if images[i] else UNKNOWN
        taken_for = f"{report.classes[other]} ({times:,}×)" if times else UNKNOWN
        part = round(float(shares[i] / most), 3)
        rows.append(ClassRow(name, int(images[i]), int(missed[i]), part, accuracy, taken_for))
    return rows


class Digit(NamedTuple):
    """An image, and what the model says of it."""

    source: str
    alt: str
    said: str
    probability: str
    label: str
    wrong: bool


def _digit(report: Report, said: npt.NDArray[np.integer[Any]], index: int) -> Digit:
    best, label = report.classes[said[index]], report.classes[report.labels[index]]
    wrong = bool(said[index] != report.labels[index])
    probability = _percent(float(report.probabilities[index, said[index]]), 1)
    probability = probability.replace("100.0%", "100%")  # fits below a digit on a phone
    alt = f"{label} taken for {best}, {probability}" if wrong else f"{label}, {probability}"
    source = pixels.data_uri(pixels.png(report.images[index]))
    return Digit(source, alt, best, probability, label, wrong)


def _worst(report: Report, said: npt.NDArray[np.integer[Any]]) -> list[int]:
    """The mistakes with the least probability for the true class, the worst first."""
    (wrong,) = (said != report.labels).nonzero()
    of_the_truth = report.probabilities[wrong, report.labels[wrong]]
    return wrong[of_the_truth.argsort(kind="stable")][:WORST].tolist()


# ---- weights


class Weight(NamedTuple):
    """What one output of the first layer looks for, and what is said of it."""

    source: str
    alt: str


class Weights(NamedTuple):
    """The first layer: ``kind`` is what one of its outputs is called."""

    pictures: list[Weight]
    kind: str
    total: int
    limit: str


def _weights(report: Report) -> Weights | None:
    """None for a layer whose weights are no images of one channel."""
    weight, (height, width) = report.weight, report.images.shape[1:]
    if weight is None or not weight.size:
        return None
    if weight.ndim == 4 and weight.shape[1] == 1:
        kind, images = "filter", weight[:, 0]
    elif weight.ndim == 2 and weight.shape[1] == height * width:
        kind, images = "unit", weight.reshape(-1, height, width)
    else:
        return None
    finite = np.abs(images[np.isfinite(images)])
    # A few large weights would leave all others pale.
    limit = float(np.quantile(finite, _FULL_COLOUR)) if finite.size else 0.0
    limit = limit or 1.0
    pictures = [
        Weight(
            pixels.data_uri(pixels.png(pixels.diverging(image, limit))),
            f"{kind} {number}: weights from {_number(image.min(), 2)} to {_number(image.max(), 2)}",
        )
        for number, image in enumerate(images[:MOST_WEIGHTS], 1)
    ]
    return Weights(pictures, kind, len(images), _number(limit, 2))


def _css(colour: tuple[int, int, int]) -> str:
    return " ".join(map(str, colour))


# ---- the step, and what else is known


class ProfileRow(NamedTuple):
    """A line of the profile: the texts of its cells; ``part`` is its time by the longest."""

    texts: list[str]
    part: float


class Profile(NamedTuple):
    """The kernels of training steps.

    ``words`` are the columns of text, not of numbers, ``details`` those a phone has no room for.
    """

    titles: list[str]
    words: Sequence[str]
    details: Sequence[str]
    rows: list[ProfileRow]
    steps: int
    batch: int
    milliseconds: str  # of a step


def _profile(report: Report) -> Profile | None:
    rows = report.rows
    if not rows:
        return None
    titles, *texts = profiler.cells(rows)
    longest = max(row.seconds for row in rows) or 1.0
    parts = [round(max(row.seconds, 0.0) / longest, 3) for row in rows]
    return Profile(
        titles,
        profiler.WORDS,
        _DETAILS,
        [ProfileRow(*pair) for pair in zip(texts, parts, strict=True)],
        report.steps,
        report.batch,
        f"{math.fsum(row.seconds for row in rows) / report.steps * 1e3:.2f}",
    )


def _about(report: Report) -> dict[str, str]:
    """The single values of the history, then what the caller adds."""
    yes_no = {True: "yes", False: "no"}
    single = {
        name.replace("_", " "): yes_no[value] if isinstance(value, bool) else str(value)
        for name, value in report.history.items()
        if isinstance(value, str | int | float)
    }
    return {**single, **report.about}
