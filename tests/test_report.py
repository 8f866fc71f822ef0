"""The pictures are there, whole, whatever the training came to."""

import copy
import math
import os
import resource
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tinygrad_mnist.report import Curve, figures, plot_curves, plot_digits, plot_history

PER_EPOCH = 50
TRAIN_BLUE, TEST_VERMILION = (0x00, 0x72, 0xB2), (0xD5, 0x5E, 0x00)


def history(epochs: int) -> dict[str, Any]:
    steps = np.arange(1, epochs * PER_EPOCH + 1)
    return {
        "model": "cnn",
        "dataset": "mnist",
        "backend": "numpy",
        "seed": 0,
        "steps_per_epoch": PER_EPOCH,
        "epochs": [
            {
                "epoch": epoch,
                "train_loss": 0.3 / epoch,
                "train_accuracy": 1 - 0.05 / epoch,
                "test_loss": 0.1 / epoch,
                "test_accuracy": 1 - 0.02 / epoch,
                "seconds": 12.3,
            }
            for epoch in range(1, epochs + 1)
        ],
        "steps": {"step": steps.tolist(), "loss": (2.3 / steps).tolist()},
    }


def pixels(path: Path) -> np.ndarray:
    with Image.open(path) as image:
        assert image.format == "PNG"
        assert image.size == (990, 418)
        return np.asarray(image.convert("RGB")).astype(int)


def has(picture: np.ndarray, colour: tuple[int, int, int]) -> bool:
    return bool((np.abs(picture - colour).max(axis=2) < 8).sum() > 20)


@pytest.mark.parametrize("epochs", [1, 2, 5, 40])
def test_both_panels_show_train_and_test(tmp_path: Path, epochs: int) -> None:
    plot_history(history(epochs), tmp_path / "curves.png")
    below_the_legend = pixels(tmp_path / "curves.png")[80:]
    for panel in (below_the_legend[:, :495], below_the_legend[:, 495:]):
        assert has(panel, TRAIN_BLUE)
        assert has(panel, TEST_VERMILION)
    assert os.listdir(tmp_path) == ["curves.png"]


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, None])
@pytest.mark.parametrize("epochs", [1, 5])
def test_losses_that_are_not_finite(tmp_path: Path, value: float | None, epochs: int) -> None:
    last = history(epochs)
    last["epochs"][-1] |= {"train_loss": value, "test_loss": value}
    last["steps"]["loss"][-30:] = [value] * 30
    plot_history(last, tmp_path / "last.png")
    assert has(pixels(tmp_path / "last.png"), TEST_VERMILION)

    every = copy.deepcopy(last)
    for epoch in every["epochs"]:
        epoch |= {"train_loss": value, "test_loss": value}
    every["steps"]["loss"] = [value] * (epochs * PER_EPOCH)
    plot_history(every, tmp_path / "every.png")
    assert has(pixels(tmp_path / "every.png"), TEST_VERMILION)


@pytest.mark.parametrize("loss", [0.0, 2.3])
def test_losses_all_alike(tmp_path: Path, loss: float) -> None:
    given = history(1)
    given["epochs"][0] |= {"train_loss": loss, "test_loss": loss}
    given["epochs"][0] |= {"train_accuracy": 0.1, "test_accuracy": 0.1}
    given["steps"]["loss"] = [loss] * PER_EPOCH
    plot_history(given, tmp_path / "curves.png")
    pixels(tmp_path / "curves.png")


def with_losses(*losses: float) -> dict[str, Any]:
    """An epoch for each loss; those of the test are a little higher."""
    given = history(len(losses))
    for epoch, loss in zip(given["epochs"], losses, strict=True):
        epoch |= {"train_loss": loss, "test_loss": 1.3 * loss}
    given["steps"]["loss"] = list(np.repeat(losses, PER_EPOCH))
    return given


RANGES = [(2.3, 1e10, 1.66e28), (1.66e28,), (2.3, 5e4), (1e-12, 1e-3), (0.0, 3e28), (1e-44, 2e38)]
RANGES += [(123456.0, 150000.0), (5e5, 3e7), (2.3025851,), (2.3, 1.1), (1234.5, 1235.5)]


@pytest.mark.parametrize("losses", RANGES, ids=str)
def test_losses_of_any_range_have_ticks_and_labels_that_are_whole(
    losses: tuple[float, ...],
) -> None:
    figure = figures._panel(with_losses(*losses), figures._draw_loss)
    figure.canvas.draw()
    (axes,) = figure.axes
    low, high = axes.get_ylim()
    ticks = zip(axes.get_yticks(), axes.get_yticklabels(), strict=True)
    shown = [label for tick, label in ticks if low <= tick <= high and label.get_text()]
    assert len(shown) >= 2
    for text in (*shown, *axes.texts):
        left, _, right, _ = text.get_window_extent().extents
        assert 0 <= left < right <= figure.bbox.width, text.get_text()


def test_without_steps(tmp_path: Path) -> None:
    given = history(2)
    del given["steps"], given["steps_per_epoch"]
    plot_history(given, tmp_path / "curves.png")
    assert has(pixels(tmp_path / "curves.png"), TRAIN_BLUE)


def test_without_a_whole_epoch(tmp_path: Path) -> None:
    plot_history(history(1) | {"epochs": []}, str(tmp_path / "curves.png"))
    pixels(tmp_path / "curves.png")


def test_history_is_left_as_it_was(tmp_path: Path) -> None:
    given = history(2)
    plot_history(given, tmp_path / "curves.png")
    assert given == history(2)


def test_same_history_same_bytes(tmp_path: Path) -> None:
    for name in ("first.png", "second.png"):
        plot_history(history(3), tmp_path / name)
    assert (tmp_path / "first.png").read_bytes() == (tmp_path / "second.png").read_bytes()


def test_replaces_an_earlier_picture(tmp_path: Path) -> None:
    path = tmp_path / "curves.png"
    path.write_text("an earlier one")
    plot_history(history(1), path)
    pixels(path)


def test_missing_folder(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        plot_history(history(1), tmp_path / "missing" / "curves.png")


def test_a_folder_in_its_place_is_kept(tmp_path: Path) -> None:
    (tmp_path / "curves.png").mkdir()
    with pytest.raises(OSError, match=r"curves\.png"):
        plot_history(history(1), tmp_path / "curves.png")
    assert os.listdir(tmp_path) == ["curves.png"]


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may write all")
def test_unwritable_folder(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    try:
        with pytest.raises(PermissionError):
            plot_history(history(1), tmp_path / "curves.png")
        assert os.listdir(tmp_path) == []
    finally:
        tmp_path.chmod(0o700)


def test_a_picture_that_does_not_fit_leaves_the_earlier_one(tmp_path: Path) -> None:
    """A limit on the size of files stands in for a full disk: the write fails half-way."""
    path = tmp_path / "curves.png"
    path.write_text("an earlier one")

    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, limits[1]))
    try:
        with pytest.raises(OSError, match="File too large"):
            plot_history(history(1), path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert os.listdir(tmp_path) == ["curves.png"]
    assert path.read_text() == "an earlier one"


def test_without_pyplot_and_late(tmp_path: Path) -> None:
    """Importing the module loads no matplotlib; drawing loads no pyplot."""
    program = (
        "import sys; from tinygrad_mnist import report;"
        "assert not any(name.startswith('matplotlib') for name in sys.modules);"
        f"report.plot_history({history(1)!r}, sys.argv[1]);"
        "assert 'matplotlib.pyplot' not in sys.modules"
    )
    path = tmp_path / "curves.png"
    subprocess.run(
        [sys.executable, "-c", program, str(path)], check=True, cwd=Path(__file__).parent.parent
    )
    pixels(path)


# ---- curves beside each other


def picture(path: Path) -> np.ndarray:
    with Image.open(path) as image:
        assert image.format == "PNG"
        return np.asarray(image.convert("RGB")).astype(int)


def test_curves_of_one_label_look_alike_in_each_panel(tmp_path: Path) -> None:
    x = [1, 2, 3]
    panels = {
        "loss": [Curve("published", x, [3, 2, 1]), Curve("here", x, [3, math.nan, 1])],
        "accuracy": [Curve("here", x, [0.1, 0.5, 0.9])],
    }
    plot_curves(panels, tmp_path / "curves.png", xlabel="epoch", title="Two")
    found = picture(tmp_path / "curves.png")[80:]
    assert found.shape == (418 - 80, 990, 3)
    first, second = TEST_VERMILION, TRAIN_BLUE
    assert [has(found[:, :495], colour) for colour in (first, second)] == [True, True]
    assert [has(found[:, 495:], colour) for colour in (first, second)] == [False, True]
    assert os.listdir(tmp_path) == ["curves.png"]


def test_curves_that_cannot_be_told_apart_are_refused(tmp_path: Path) -> None:
    four = {"loss": [Curve(label, [1], [1.0]) for label in "abcd"]}
    for panels, got in ((four, r"\['a', 'b', 'c', 'd'\]"), ({}, "0 panels")):
        with pytest.raises(ValueError, match=f"expected a panel and at most 3 labels, got .*{got}"):
            plot_curves(panels, tmp_path / "curves.png", xlabel="epoch", title="")
    assert not os.listdir(tmp_path)


# ---- digits

ORANGE = (255, 150, 60)  # what is wrong


def digits(count: int, wrong: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """White images, their labels, and probabilities that miss those of the last ``wrong``."""
    labels = np.arange(count) % 10
    said = np.where(np.arange(count) < count - wrong, labels, (labels + 1) % 10)
    images = np.full((count, 28, 28), 255, np.uint8)
    return images, labels, 0.02 + 0.8 * np.eye(10)[said]


@pytest.mark.parametrize(
    ("count", "wrong", "rows", "columns"),
    [(1, 0, 1, 1), (1, 1, 1, 1), (5, 1, 1, 5), (7, 2, 3, 3), (64, 5, 8, 8)],
)
def test_what_is_wrong_has_another_colour(
    count: int, wrong: int, rows: int, columns: int, tmp_path: Path
) -> None:
    plot_digits(*digits(count, wrong), tmp_path / "digits.png")
    found = picture(tmp_path / "digits.png")
    height, width, _ = found.shape
    orange = (np.abs(found - ORANGE).max(axis=2) < 3).mean()
    cell = 1 / (rows * columns)
    assert 0.6 * wrong * cell <= orange <= wrong * cell
    assert height / rows >= width / columns  # there is a line above each


def test_headings_and_long_names_stay_within_the_picture(tmp_path: Path) -> None:
    names = ["an ankle boot"] * 10
    plain, full = tmp_path / "plain.png", tmp_path / "full.png"
    plot_digits(*digits(3, 3), plain)
    plot_digits(*digits(3, 3), full, classes=names, headings=["first", "second", "third"])
    assert picture(full).shape[0] > picture(plain).shape[0]
    edges = picture(full)
    assert (edges[:2] == 255).all()


def test_no_digits_at_all(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="expected at least one image, got none"):
        plot_digits(*digits(0, 0), tmp_path / "digits.png")
    assert not os.listdir(tmp_path)
