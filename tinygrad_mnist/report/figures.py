"""The pictures: a training's course, curves side by side, and digits with what a model says."""

from __future__ import annotations

import io
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import numpy.typing as npt

from tinygrad_mnist.optional import needed
from tinygrad_mnist.utils.files import write_whole

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

WIDTH, HEIGHT, DPI = 9.0, 3.8, 110
PANEL_WIDTH, PANEL_HEIGHT, PANEL_DPI = 4.6, 3.2, 200
_LONGEST_CURVE = 300
_LARGE = 1e5  # from here on, a number is written with its power of ten
_LETTER, _FITTING = 0.09, 4  # inches of a letter of the ticks, and how many have room

# Okabe and Ito's blue and vermilion, which colour-blind readers tell apart; the markers differ too.
_TRAIN: dict[str, Any] = {
    "color": "#0072B2",
    "marker": "o",
    "linestyle": "--",
    "label": "train, mean of the epoch",
}
_TEST: dict[str, Any] = {"color": "#D55E00", "marker": "s", "linestyle": "-", "label": "test"}
TEST_TEXT = "#B34A00"  # vermilion letters on white are too faint: a contrast of 3.9 to 1
_STEPS: dict[str, Any] = {
    "color": "#6BB0DA",
    "linewidth": 0.9,
    "label": "train, step by step",
    "zorder": 1,
}

# What several curves in one panel are drawn in, one after the other.
_CURVES: tuple[dict[str, Any], ...] = (
    {"color": "#D55E00", "marker": "s", "linestyle": "-"},
    {"color": "#0072B2", "marker": "o", "linestyle": "--"},
    {"color": "#009E73", "marker": "^", "linestyle": ":"},
)
_WRONG = "#D55E00"
_CELL, _LINE = 1.15, 0.13  # inches: a digit of 28 pixels, where there are many; a line above it
_ONE_ROW = 6  # so many images stand side by side

_Floats = npt.NDArray[np.float64]


class Curve(NamedTuple):
    """One line of a panel: its name, and its points."""

    label: str
    x: Sequence[float]
    y: Sequence[float]


def plot_history(history: dict[str, Any], path: str | Path) -> None:
    """Write a PNG of 990x418 pixels: loss and accuracy against epoch, of training and of test.

    ``history`` holds ``model``, ``dataset``, ``backend`` and ``seed``; ``epochs``, a list of dicts
    with ``epoch``, ``train_loss``, ``train_accuracy``, ``test_loss`` and ``test_accuracy``; and,
    for the curve between them, ``steps`` (``{"step": [...], "loss": [...]}``, steps from 1) and
    ``steps_per_epoch``. A loss that is not finite leaves a gap.

    Replaces what is at ``path``, in one go. Raises OSError where it cannot be written.
    """
    write_whole(path, _draw(history))


def draw_panels(history: dict[str, Any]) -> tuple[bytes, bytes]:
    """The two panels of ``plot_history``, each a PNG of 920x640 pixels on a transparent ground."""
    loss, accuracy = _panel(history, _draw_loss), _panel(history, _draw_accuracy)
    return _png(loss, PANEL_DPI, transparent=True), _png(accuracy, PANEL_DPI, transparent=True)


def plot_curves(
    panels: Mapping[str, Sequence[Curve]], path: str | Path, *, xlabel: str, title: str
) -> None:
    """Write a PNG of one panel per entry of ``panels``, whose key names the vertical axis.

    Curves of one label look alike in every panel, and one legend above names them. Values that are
    not finite leave a gap. Replaces what is at ``path``, in one go. ValueError for no panel and for
    more than three labels, OSError where it cannot be written.
    """
    labels = list(dict.fromkeys(curve.label for curves in panels.values() for curve in curves))
    if not panels or len(labels) > len(_CURVES):
        raise ValueError(
            f"plot_curves: expected a panel and at most {len(_CURVES)} labels, got {len(panels)} "
            f"panels and the labels {labels}"
        )
    styles = dict(zip(labels, _CURVES, strict=False))
    width = WIDTH * max(len(panels), 1.3) / 2
    figure = _figure(width, HEIGHT)
    figure.subplots_adjust(left=0.8 / width, right=0.985, bottom=0.13, top=0.8, wspace=0.22)
    handles: dict[str, Any] = {}
    for axes, (ylabel, curves) in zip(
        figure.subplots(1, len(panels), squeeze=False)[0], panels.items(), strict=True
    ):
        for label, x, y in curves:
            (handles[label],) = axes.plot(
                x, _finite(list(y)), label=label, markersize=4, linewidth=1.4, **styles[label]
            )
        axes.set_ylabel(ylabel)
        _finish(axes, xlabel)
    _head(figure, title, list(handles.values()), labels)
    write_whole(path, _png(figure))


def plot_digits(
    images: npt.NDArray[np.uint8],
    labels: npt.NDArray[np.integer[Any]],
    probabilities: npt.NDArray[np.floating[Any]],
    path: str | Path,
    *,
    classes: Sequence[str] = tuple("0123456789"),
    headings: Sequence[str] = (),
) -> None:
    """Write a PNG of images in rows, each below its likeliest class and the probability of that.

    ``images`` (N, H, W) uint8, ``labels`` (N,) and ``probabilities`` (N, classes), or what else a
    model gives from 0 to 1. An image whose label is another class is drawn in another colour, with
    that class's name. ``headings`` (N) are put above. Replaces what is at ``path``, in one go.
    ValueError for no image, OSError where it cannot be written.
    """
    if not len(images):
        raise ValueError("plot_digits: expected at least one image, got none")
    best = probabilities.argmax(1)
    wrong = best != labels
    texts = [
        "\n".join(
            [
                *headings[i : i + 1],
                f"{classes[best[i]]}  {probabilities[i].max():.1%}",
                *([f"is {classes[labels[i]]}"] if wrong[i] else []),
            ]
        )
        for i in range(len(images))
    ]
    lines = 1 + max(text.count("\n") for text in texts)

    columns = len(images) if len(images) <= _ONE_ROW else math.ceil(math.sqrt(len(images)))
    rows = math.ceil(len(images) / columns)
    above = _LINE * lines
    cell = max(_CELL, 2.4 / columns)
    figure = _figure(cell * columns, (cell + above) * rows)
    figure.subplots_adjust(
        left=0.01,
        right=0.99,
        bottom=0.01,
        top=1 - above / (cell + above) / rows,
        wspace=0.06,
        hspace=above / cell,
    )
    grid = figure.subplots(rows, columns, squeeze=False).ravel()
    for axes in grid:
        axes.axis("off")
    for axes, image, text, bad in zip(grid, images, texts, wrong, strict=False):
        axes.imshow(_coloured(image, bad))
        axes.set_title(text, fontsize=7, pad=2, color=_WRONG if bad else "black")
    write_whole(path, _png(figure))


def _coloured(image: npt.NDArray[np.uint8], wrong: bool) -> npt.NDArray[np.uint8]:
    """The image (H, W) as red, green, blue (H, W, 3): grey, or orange where it is wrong."""
    full = np.array([255, 150, 60] if wrong else [255, 255, 255])
    return (image[..., None] / 255 * full).astype(np.uint8)


def _figure(width: float, height: float) -> Figure:
    """An empty figure of so many inches."""
    # Without pyplot: it is slow to import, and may look for a display.
    with needed("a picture"):
        from matplotlib.backends.backend_agg import FigureCanvasAgg  # noqa: PLC0415
        from matplotlib.figure import Figure  # noqa: PLC0415

    figure = Figure(figsize=(width, height), dpi=DPI)
    FigureCanvasAgg(figure)
    return figure


def _png(figure: Figure, dpi: int = DPI, transparent: bool = False) -> bytes:
    """The picture, whose bytes depend on what is drawn and matplotlib's version alone."""
    png = io.BytesIO()
    figure.savefig(png, format="png", dpi=dpi, transparent=transparent, metadata={"Software": None})
    return png.getvalue()


def _head(figure: Figure, title: str, handles: list[Any], labels: list[str]) -> None:
    """The title, and the legend above the panels, where it hides no point."""
    left = figure.subplotpars.left
    figure.text(left, 0.925, title, fontsize=12, fontweight="bold")
    figure.legend(
        handles,
        labels,
        loc="center left",
        bbox_to_anchor=(left - 0.007, 0.865),
        ncols=3,
        fontsize=9,
        frameon=False,
        borderpad=0,
    )


def _draw(history: dict[str, Any]) -> bytes:
    figure = _figure(WIDTH, HEIGHT)
    figure.subplots_adjust(left=0.09, right=0.985, bottom=0.13, top=0.8, wspace=0.22)
    loss, accuracy = figure.subplots(1, 2)
    _draw_loss(loss, history)
    _draw_accuracy(accuracy, history)
    for axes in (loss, accuracy):
        _finish(axes, "epoch")
    _make_room(figure, loss)
    _head(figure, _title(history), *loss.get_legend_handles_labels())
    return _png(figure)


def _panel(history: dict[str, Any], draw: Callable[[Axes, dict[str, Any]], None]) -> Figure:
    figure = _figure(PANEL_WIDTH, PANEL_HEIGHT)
    figure.subplots_adjust(left=0.115, right=0.985, bottom=0.14, top=0.9)
    axes = figure.subplots()
    draw(axes, history)
    axes.set_ylabel("")  # the page names the panel
    _finish(axes, "epoch")
    _make_room(figure, axes)
    figure.legend(loc="upper left", ncols=3, fontsize=8.5, frameon=False, columnspacing=1.2)
    return figure


def _title(history: dict[str, Any]) -> str:
    title = "{model} on {dataset}, {backend}, seed {seed}".format(**history)
    if history["epochs"]:
        title += f": test accuracy {history['epochs'][-1]['test_accuracy']:.2%}"
    return title


def _draw_loss(axes: Axes, history: dict[str, Any]) -> None:
    epochs, steps = _step_curve(history)
    if epochs.size:
        axes.plot(epochs, steps, **_STEPS)
    train, test = _column(history, "train_loss"), _column(history, "test_loss")
    _draw_pair(
        axes, history, train, test, lambda loss: _short(loss, ".3f" if loss < 1e3 else ".0f")
    )
    axes.set_ylabel("loss")
    axes.margins(y=0.15)
    every = np.concatenate([steps, train, test])
    every = every[np.isfinite(every)]
    if every.size and every.max() > 10 * every.min() > 0:
        _scale_by_logarithm(axes, every.max() / every.min())
    elif every.size and every.max() >= _LARGE:
        axes.yaxis.set_major_formatter(lambda value, _: _short(value, ".3g"))
    axes.set_xlim(0, 1.19 * _last_epoch(history))


def _draw_accuracy(axes: Axes, history: dict[str, Any]) -> None:
    train, test = _column(history, "train_accuracy"), _column(history, "test_accuracy")
    _draw_pair(axes, history, 100 * train, 100 * test, "{:.2f}%".format)
    axes.set_ylabel("accuracy, %")
    axes.margins(y=0.15)
    axes.set_xlim(0.5, max(1.19 * _last_epoch(history), _last_epoch(history) + 0.5))
    low, high = axes.get_ylim()
    room = max(0.0, 1 - (high - low)) / 2  # at least one percent in all: less is but noise
    axes.set_ylim(low - room, high + room)


def _draw_pair(
    axes: Axes,
    history: dict[str, Any],
    train: _Floats,
    test: _Floats,
    text: Callable[[float], str],
) -> None:
    """Both lines, with the last value of each to the right, the higher one's a little higher."""
    epochs = _column(history, "epoch")
    for values, other, style in ((train, test, _TRAIN), (test, train, _TEST)):
        axes.plot(epochs, values, markersize=5, linewidth=1.6, **style)
        if not values.size or np.isnan(values[-1]):
            continue
        above = values[-1] > other[-1] or (style is _TEST and not values[-1] < other[-1])
        axes.annotate(
            text(values[-1]),
            (epochs[-1], values[-1]),
            xytext=(7, 0 if above else -2),
            textcoords="offset points",
            va="bottom" if above else "top",
            color=TEST_TEXT if style is _TEST else style["color"],
            fontsize=10,
        )


def _finish(axes: Axes, xlabel: str) -> None:
    """Whole numbers below, a faint grid and no box."""
    from matplotlib.ticker import MaxNLocator  # noqa: PLC0415

    axes.set_xlabel(xlabel)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1, steps=[1, 2, 5, 10]))
    axes.grid(color="#888888", alpha=0.25, linewidth=0.7)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)


def _scale_by_logarithm(axes: Axes, ratio: float) -> None:
    from matplotlib.ticker import LogLocator, NullFormatter  # noqa: PLC0415

    axes.set_yscale("log")
    # Where there is no room for every power, it would leave out those between, and all the powers.
    axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5) if ratio < 1e4 else (1,)))
    # Plain numbers; powers of ten would also need matplotlib's parser of formulas.
    axes.yaxis.set_major_formatter(lambda value, _: _short(value, "g"))
    axes.yaxis.set_minor_formatter(NullFormatter())


def _short(value: float, pattern: str) -> str:
    """As ``pattern`` has it; what is large as 1.7e28."""
    return format(value, pattern if abs(value) < _LARGE else ".2g").replace("e+", "e")


def _loss_text(loss: float) -> str:
    return _short(loss, ".3f" if loss < 1e3 else ".0f")


def _make_room(figure: Figure, axes: Axes) -> None:
    """To the left, for long labels of the ticks."""
    longest = max((len(label.get_text()) for label in axes.get_yticklabels()), default=0)
    more = _LETTER * max(0, longest - _FITTING) / figure.get_figwidth()
    figure.subplots_adjust(left=figure.subplotpars.left + more)


def _step_curve(history: dict[str, Any]) -> tuple[_Floats, _Floats]:
    """Epochs gone by and loss, (points,) each: means of equal spans where there are many steps."""
    steps = _finite(history.get("steps", {}).get("step", []))
    losses = _finite(history.get("steps", {}).get("loss", []))
    if not steps.size:
        return steps, losses
    parts = min(_LONGEST_CURVE, steps.size)
    means = [[part.mean() for part in np.array_split(row, parts)] for row in (steps, losses)]
    return np.array(means[0]) / history["steps_per_epoch"], np.array(means[1])


def _column(history: dict[str, Any], name: str) -> _Floats:
    return _finite([epoch[name] for epoch in history["epochs"]])


def _finite(values: list[float | None]) -> _Floats:
    """The values, NaN for those that are infinite or None, (values,)."""
    numbers = np.array(values, dtype=np.float64)
    return np.where(np.isfinite(numbers), numbers, np.nan)


def _last_epoch(history: dict[str, Any]) -> float:
    return float(history["epochs"][-1]["epoch"]) if history["epochs"] else 1.0
