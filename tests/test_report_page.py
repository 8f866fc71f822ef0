"""The page that shows a training: valid, for everybody, and true to the numbers it is made of."""

from __future__ import annotations

import base64
import io
import math
import os
import re
import subprocess
import sys
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tinygrad_mnist import profiler
from tinygrad_mnist.report import Report, figures, write_report

ROWS = (
    profiler.Row("conv2d", "forward", False, "", 2, 2e-3, 0.5, 1_000_000, 4_000_000),
    profiler.Row("adam_", "update", False, "", 1, 1e-3, 0.25, 500_000, 0),
    profiler.Row(profiler.OUTSIDE, "", False, "", 0, 1e-3, 0.25, 0, 0),
)
VOID = {"meta", "img", "br", "hr", "link", "input"}


def history(epochs: int = 3, **changes: Any) -> dict[str, Any]:
    each = {"train_loss": 0.2, "train_accuracy": 0.95, "test_loss": 0.1, "test_accuracy": 0.97}
    return {
        "model": "cnn",
        "dataset": "mnist",
        "backend": "numpy",
        "seed": 7,
        "jit": True,
        "steps_per_epoch": 5,
        "epochs": [{"epoch": i + 1, **each, "seconds": 1.5 + i} for i in range(epochs)],
        "steps": {"step": list(range(1, 5 * epochs + 1)), "loss": [0.5] * 5 * epochs},
    } | changes


def report(count: int = 200, wrong: int = 40, **changes: Any) -> Report:
    """Images of noise; the first ``wrong`` of them are taken for the class that follows theirs."""
    random = np.random.default_rng(0)
    labels = np.arange(count) % 10
    said = np.where(np.arange(count) < wrong, (labels + 1) % 10, labels)
    probabilities = random.uniform(0, 0.05, (count, 10)).astype(np.float32)
    probabilities[np.arange(count), said] = random.uniform(0.5, 0.9, count)
    whole = Report(
        history=history(),
        weight=random.normal(size=(10, 1, 5, 5)).astype(np.float32),
        images=random.integers(0, 256, (count, 28, 28), np.uint8),
        labels=labels,
        probabilities=probabilities,
        classes=tuple("0123456789"),
        rows=ROWS,
        about={"command line": "python -m tinygrad_mnist train --out '<b>&amp;'"},
    )
    return replace(whole, **changes)


class Page(HTMLParser):
    """A page taken apart, and held to what HTML and its readers expect of any."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str]]] = []
        self.texts: dict[str, list[str]] = {}  # of each kind of innermost tag
        self.lines: list[list[str]] = []  # the cells of each line of a table
        self.section = ""
        self.sections: dict[str, list[dict[str, str]]] = {}  # the images of each
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = {name: value or "" for name, value in attrs}
        assert len(found) == len(attrs), f"an attribute twice: {attrs}"
        self.tags.append((tag, found))
        if tag not in VOID:
            self.open.append(tag)
        if tag == "section":
            self.section = found["aria-labelledby"]
            self.sections[self.section] = []
        if tag == "img" and "li" in self.open:
            self.sections[self.section].append(found)
        if tag == "tr":
            self.lines.append([])
        if tag in ("td", "th"):
            self.lines[-1].append("")

    def handle_endtag(self, tag: str) -> None:
        assert self.open, f"</{tag}> closes nothing"
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and data.strip():
            self.texts.setdefault(self.open[-1], []).append(data.strip())
            if self.open[-1] in ("td", "th"):
                self.lines[-1][-1] += data

    def all(self, tag: str) -> list[dict[str, str]]:
        return [attributes for name, attributes in self.tags if name == tag]


def written(folder: Path, given: Report) -> str:
    write_report(folder / "report.html", given)
    return (folder / "report.html").read_text("utf-8")


def checked(folder: Path, given: Report) -> Page:
    """The page, after what holds of every one."""
    text = written(folder, given)
    assert text.startswith("<!DOCTYPE html>")
    assert not re.search(r"https?:|<script|@import|url\(", text)
    assert "nan" not in re.sub(r"base64,[^\"]*", "", text).lower()
    page = Page(text)
    assert page.all("html") == [{"lang": "en"}]
    assert {"name": "viewport", "content": "width=device-width, initial-scale=1"} in page.all(
        "meta"
    )
    for image in page.all("img"):
        assert image["alt"].strip()
        assert image["src"].startswith("data:image/png;base64,")
        picture(image)
    ids = [attributes["id"] for _, attributes in page.tags if "id" in attributes]
    assert len(ids) == len(set(ids))
    for tag, attributes in page.tags:
        for name in ("aria-labelledby", "aria-describedby"):
            assert attributes.get(name, ids[0]) in ids
        if tag == "a":
            assert attributes["href"].removeprefix("#") in ids
        if tag == "th":
            assert attributes["scope"] in ("row", "col")
    headings = [tag for tag, _ in page.tags if re.fullmatch(r"h\d", tag)]
    assert headings == ["h1", *["h2"] * (len(headings) - 1)]
    # What scrolls can be scrolled by the keyboard.
    assert all(a.get("tabindex") == "0" for a in page.all("div") if "scroll" in a.get("class", ""))
    return page


def picture(image: dict[str, str]) -> np.ndarray:
    data = base64.b64decode(image["src"].partition(",")[2], validate=True)
    with Image.open(io.BytesIO(data)) as opened:
        assert opened.format == "PNG"
        return np.asarray(opened)


# ---- what it says


def test_the_head(tmp_path: Path) -> None:
    page = checked(tmp_path, report())
    assert page.texts["title"] == ["cnn on mnist: training report"]
    assert page.texts["h1"] == ["cnn on mnist"]
    assert page.texts["strong"] == ["97.00%", "40", "0.1000", "7.5 s"]
    assert "of 200 test images" in page.texts["dd"]
    assert page.texts["p"][0] == "3 epochs, backend numpy, seed 7"


def test_numbers_of_any_size_are_short(tmp_path: Path) -> None:
    given = history()
    given["epochs"][-1] |= {"train_loss": 54321.1234, "test_loss": 1.6612345e28}
    page = checked(tmp_path, report(history=given))
    assert page.texts["strong"][2] == "1.66e+28"
    assert "in training 54321" in page.texts["dd"]
    assert any("1.66e+28" in line for line in page.lines)


def test_every_epoch_has_its_line_and_its_time(tmp_path: Path) -> None:
    page = checked(tmp_path, report())
    numbers = ["0.2000", "95.00%", "0.1000", "97.00%"]
    for epoch in ("1", "2", "3"):
        assert [epoch, *numbers, f"{int(epoch) + 0.5:.2f} s"] in page.lines
    loss, accuracy = (a for a in page.all("img") if a["width"] == "920")
    assert loss["alt"] == "Loss by epoch: train from 0.2000 to 0.2000, test from 0.1000 to 0.1000"
    assert "test from 97.00% to 97.00%" in accuracy["alt"]
    for curves in (loss, accuracy):
        assert picture(curves).shape == (640, 920, 4)
        assert picture(curves)[0, 0, 3] == 0  # the page's own ground shows through


def test_the_confusion_matrix_and_the_classes(tmp_path: Path) -> None:
    page = checked(tmp_path, report(count=200, wrong=41))  # four of each class, five of the 0
    for i in range(10):
        wrong = 5 if i == 0 else 4
        row = [0] * 10
        row[i], row[(i + 1) % 10] = 20 - wrong, wrong
        assert [str(i), *map(str, row)] in page.lines
        accuracy = f"{1 - wrong / 20:.2%}"
        assert [str(i), "20", str(wrong), accuracy, f"{(i + 1) % 10} ({wrong}×)"] in page.lines


def test_the_grid_shows_the_first_images_and_marks_what_is_wrong(tmp_path: Path) -> None:
    given = report(wrong=3)
    page = checked(tmp_path, given)
    shown = page.sections["images"]
    assert len(shown) == 64
    for i in (0, 1, 63):
        assert (picture(shown[i]) == given.images[i]).all()
    chances = given.probabilities.max(1)
    assert shown[0]["alt"] == f"0 taken for 1, {chances[0]:.1%}"
    assert shown[63]["alt"] == f"3, {chances[63]:.1%}"
    marked = [a for a in page.all("li") if a.get("class") == "wrong"]
    assert len(marked) == 3 + 3  # here and among the mistakes
    assert page.texts["b"].count("✗ 1") == 2


def test_the_worst_mistakes_come_first(tmp_path: Path) -> None:
    given = report(wrong=40)
    page = checked(tmp_path, given)
    of_the_truth = given.probabilities[np.arange(200), given.labels]
    worst = sorted(range(40), key=lambda i: of_the_truth[i])[:32]
    shown = page.sections["worst"]
    assert len(shown) == 32
    for image, i in zip(shown, worst, strict=True):
        assert (picture(image) == given.images[i]).all()
    assert "The 32 worst mistakes of 40" in page.texts["h2"]
    fewer = checked(tmp_path, report(wrong=5))
    assert len(fewer.sections["worst"]) == 5
    assert "All mistakes, the worst first" in fewer.texts["h2"]


def test_weights_of_a_convolution(tmp_path: Path) -> None:
    weight = np.zeros((2, 1, 5, 5), np.float32)
    weight[0, 0, 0, 0], weight[1, 0, 4, 4] = 0.25, -0.25
    page = checked(tmp_path, report(weight=weight))
    first, second = page.sections["weights"]
    assert first["alt"] == "filter 1: weights from 0.00 to 0.25"
    red, _, blue = picture(first)[0, 0].astype(int)
    assert red > blue + 100
    red, _, blue = picture(second)[4, 4].astype(int)
    assert blue > red + 100
    assert (picture(first)[1:] == 255).all()


def test_weights_of_a_linear_layer_are_cut_to_64(tmp_path: Path) -> None:
    weight = np.random.default_rng(0).normal(size=(128, 784)).astype(np.float32)
    page = checked(tmp_path, report(weight=weight))
    assert len(page.sections["weights"]) == 64
    assert picture(page.sections["weights"][0]).shape == (28, 28, 3)
    assert any("The first 64 of 128 are shown." in text for text in page.texts["p"])


@pytest.mark.parametrize("shape", [(8, 100), (4, 3, 5, 5), (5,), (0, 784)])
def test_weights_that_are_no_images_are_left_out(tmp_path: Path, shape: tuple[int, ...]) -> None:
    page = checked(tmp_path, report(weight=np.ones(shape, np.float32)))
    assert "weights" not in page.sections


def test_the_profile_is_the_table_that_is_printed(tmp_path: Path) -> None:
    page = checked(tmp_path, report())
    for line in profiler.cells(ROWS):
        assert line in page.lines
    assert any("which took 4.00 ms" in text for text in page.texts["p"])
    hidden_on_a_phone = [a for a in page.all("th") if "detail" in a.get("class", "")]
    assert len(hidden_on_a_phone) == 4


def test_how_it_was_made(tmp_path: Path) -> None:
    page = checked(tmp_path, report())
    for line in (["backend", "numpy"], ["seed", "7"], ["jit", "yes"], ["steps per epoch", "5"]):
        assert line in page.lines
    assert ["command line", "python -m tinygrad_mnist train --out '<b>&amp;'"] in page.lines


def test_names_are_text_not_markup(tmp_path: Path) -> None:
    names = ('<i>"T-shirt"</i>', "a & b", *"23456789")
    changed = history(model="<cnn>")
    page = checked(tmp_path, report(classes=names, history=changed, wrong=1))
    assert page.texts["h1"] == ["<cnn> on mnist"]
    assert page.sections["images"][0]["alt"].startswith('<i>"T-shirt"</i> taken for a & b, ')
    assert not page.all("i")


# ---- what is missing

NOT_FINITE = history()
NOT_FINITE["epochs"][1] |= {"train_loss": math.nan, "test_loss": math.inf}
NOT_FINITE["epochs"][2] |= {"train_loss": None, "test_loss": math.nan}
NOT_FINITE["steps"]["loss"][4:] = [math.nan] * 11


@pytest.mark.parametrize(
    ("changes", "missing"),
    [
        ({"history": history(1)}, set()),
        ({"history": history(0)}, {"course"}),
        ({"history": history(40)}, set()),
        ({"history": {k: v for k, v in history().items() if not k.startswith("steps")}}, set()),
        ({"history": NOT_FINITE}, set()),
        ({"wrong": 0}, {"worst"}),
        ({"wrong": 200}, set()),
        ({"count": 5, "wrong": 1}, set()),  # and half of the classes are absent
        ({"count": 0}, {"confusion", "classes", "images", "worst"}),
        ({"probabilities": np.full((200, 10), np.nan, np.float32)}, set()),
        ({"weight": None}, {"weights"}),
        ({"weight": np.zeros((2, 784))}, set()),
        ({"weight": np.full((2, 784), np.nan)}, set()),
        ({"rows": None}, {"profile"}),
        ({"rows": ()}, {"profile"}),
        ({"about": {}}, set()),
    ],
)
def test_what_is_missing_is_left_out(
    tmp_path: Path, changes: dict[str, Any], missing: set[str]
) -> None:
    page = checked(tmp_path, report(**changes))
    every = {"course", "confusion", "classes", "images", "worst", "weights", "profile", "about"}
    assert set(page.sections) == every - missing


def test_a_number_that_is_not_there_is_a_dash(tmp_path: Path) -> None:
    page = checked(tmp_path, report(history=NOT_FINITE, count=5, wrong=1))
    assert ["2", "–", "95.00%", "–", "97.00%", "2.50 s"] in page.lines
    assert ["9", "0", "0", "–", "–"] in page.lines


# ---- how it can be read


def schemes(text: str) -> list[dict[str, str]]:
    """The colours in the light and in the dark."""
    light, dark = re.findall(r":root \{(.*?)\}", text, re.DOTALL)
    return [dict(re.findall(r"--([a-z-]+): ([^;]+);", block)) for block in (light, dark)]


def rgb(colour: str) -> np.ndarray:
    if colour.startswith("#"):
        return np.array([int(colour[i : i + 2], 16) for i in (1, 3, 5)], np.float64)
    return np.array(colour.split(), np.float64)


def luminance(colour: np.ndarray) -> float:
    """https://www.w3.org/TR/WCAG22/#dfn-relative-luminance"""
    part = colour / 255
    linear = np.where(part <= 0.04045, part / 12.92, ((part + 0.055) / 1.055) ** 2.4)
    return float(linear @ [0.2126, 0.7152, 0.0722])


def contrast(one: np.ndarray, other: np.ndarray) -> float:
    low, high = sorted([luminance(one), luminance(other)])
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize("scheme", [0, 1], ids=["light", "dark"])
def test_text_stands_out_from_its_ground(tmp_path: Path, scheme: int) -> None:
    colours = schemes(written(tmp_path, report()))[scheme]
    ground = rgb(colours["ground"])
    for text in ("ink", "muted", "right", "wrong"):
        assert contrast(rgb(colours[text]), ground) >= 4.5, text
    for text in ("ink", "muted"):
        assert contrast(rgb(colours[text]), rgb(colours["raised"])) >= 4.5, text
    for shade in ("right-shade", "wrong-shade"):
        strongest = 0.5 * rgb(colours[shade]) + 0.5 * ground
        assert contrast(rgb(colours["ink"]), strongest) >= 4.5, shade


def test_no_shade_is_stronger_than_was_tried(tmp_path: Path) -> None:
    text = written(tmp_path, report(count=200, wrong=41))
    opacities = [float(each) for each in re.findall(r"--opacity: ([\d.]+)", text)]
    assert len(opacities) == 20
    assert max(opacities) == 0.5
    assert min(opacities) > 0
    assert max(map(float, re.findall(r"rgb\(var\(--shade\) / ([\d.]+)\)", text))) <= 0.5


# https://www.w3.org/TR/filter-effects-1/#huerotateEquivalent at 180 degrees
HALF_TURN = np.array([[-0.574, 1.430, 0.144], [0.426, 0.430, 0.144], [0.426, 1.430, -0.856]])


@pytest.mark.parametrize("colour", ["#000000", "#0072B2", figures.TEST_TEXT])
def test_letters_in_the_curves_stand_out(tmp_path: Path, colour: str) -> None:
    text = written(tmp_path, report())
    light, dark = schemes(text)
    assert contrast(rgb(colour), rgb(light["ground"])) >= 4.5
    assert ".curves img { filter: invert(1) hue-rotate(180deg); }" in text
    turned = np.clip(HALF_TURN @ (255 - rgb(colour)), 0, 255)
    assert contrast(turned, rgb(dark["ground"])) >= 4.5


# ---- the file


def test_same_report_same_bytes(tmp_path: Path) -> None:
    assert written(tmp_path, report()) == written(tmp_path, report())
    assert os.listdir(tmp_path) == ["report.html"]


def test_where_it_cannot_be_written(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        write_report(tmp_path / "missing" / "report.html", report())
    (tmp_path / "report.html").mkdir()
    with pytest.raises(OSError, match=r"report\.html"):
        write_report(tmp_path / "report.html", report())
    assert os.listdir(tmp_path) == ["report.html"]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"labels": np.zeros(3, int)}, r"got \(200, 28, 28\), \(3,\) and \(200, 10\)"),
        ({"classes": ("a", "b")}, r"\(N, 2\) for 2 classes"),
        ({"images": np.zeros((200, 784), np.uint8)}, r"images \(N, H, W\)"),
        ({"labels": np.full(200, 10)}, "expected labels from 0 to 9, got 10 to 10"),
    ],
)
def test_what_does_not_fit_is_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        report(**changes)


def test_what_draws_is_loaded_late() -> None:
    """Importing the module loads none of the libraries that a page needs."""
    program = (
        "import sys; from tinygrad_mnist import report;"
        "late = {'matplotlib', 'jinja2', 'PIL'} & {n.partition('.')[0] for n in sys.modules};"
        "assert not late, late"
    )
    subprocess.run([sys.executable, "-c", program], check=True, cwd=Path(__file__).parents[1])
