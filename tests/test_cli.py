"""The command line as a user runs it: its own process, another folder, files on a disk."""

from __future__ import annotations

import json
import os
import pty
import re
import shutil
import signal
import subprocess
import sys
import termios
import textwrap
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from safetensors import safe_open
from safetensors.numpy import load_file, save_file

import tinygrad_mnist
from tinygrad_mnist import Tensor, cli, models, nn, runs, training
from tinygrad_mnist.backend import use_backend
from tinygrad_mnist.training import ModelInfo
from tinygrad_mnist.training.loop import Profiled
from tinygrad_mnist.utils.data.idx import idx_header

ROOT = Path(tinygrad_mnist.__file__).parents[1]
MODULE = [sys.executable, "-m", "tinygrad_mnist"]
ACCURACY = re.compile(r"test accuracy: \d+\.\d\d%")
EPOCH = re.compile(
    r"epoch (\d+)/\d+: train loss \d+\.\d{4} accuracy \d+\.\d\d%, "
    r"test loss \d+\.\d{4} accuracy \d+\.\d\d%, \d+\.\d s"
)
MODEL = "model.safetensors"
FILES = ["checkpoints", "curves.png", "history.json", MODEL, "report.html"]
STOPPED = r"interrupted after step (\d+) of epoch (\d+); the same with --resume goes on"
# What a folder of files other than the published ones brings on the error stream
NOTE = "tinygrad_mnist: "
TIMEOUT = 300
MODELS, BACKENDS = ("cnn", "mlp"), ("numpy", "numba")
EPOCHS = 3
ONE, PLAIN = {"NUMBA_NUM_THREADS": "1"}, {"NUMBA_DISABLE_JIT": "1"}


# ---- a dataset that can be learnt: the digits of a seven-segment display, shifted, under noise


SEGMENTS = ["abcdef", "bc", "abged", "abgcd", "fgbc", "afgcd", "afgedc", "abc", "abcdefg", "abcdfg"]
BARS = {
    "a": (slice(0, 3), slice(0, 12)),
    "b": (slice(0, 11), slice(9, 12)),
    "c": (slice(9, 20), slice(9, 12)),
    "d": (slice(17, 20), slice(0, 12)),
    "e": (slice(9, 20), slice(0, 3)),
    "f": (slice(0, 11), slice(0, 3)),
    "g": (slice(9, 12), slice(0, 12)),
}


def glyph(digit: int) -> np.ndarray:
    """The digit in a box of at most 20×20 pixels, light on 0, as MNIST has them."""
    strokes = np.zeros((20, 12), np.uint8)
    for segment in SEGMENTS[digit]:
        strokes[BARS[segment]] = 255
    return strokes[:, strokes.any(axis=0)]


def placed(digit: int) -> np.ndarray:
    """The digit in 28×28 with its centre of mass in the middle."""
    strokes = glyph(digit)
    image = np.zeros((28, 28), np.uint8)
    centre = [np.average(np.arange(n), weights=strokes.sum(axis=1 - i)) for i, n in
              enumerate(strokes.shape)]  # fmt: skip
    top, left = (round(14 - c) for c in centre)
    top = min(top, 28 - strokes.shape[0])
    image[top : top + strokes.shape[0], left : left + strokes.shape[1]] = strokes
    return image


def images(count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """``count`` images with noise, moved by up to a pixel, and their labels."""
    random = np.random.default_rng(seed)
    labels = random.permutation(np.arange(count) % 10).astype(np.uint8)
    shifts = random.integers(-1, 2, (count, 2))
    drawn = [np.roll(placed(int(d)), tuple(s), (0, 1)) for d, s in zip(labels, shifts, strict=True)]
    noise = random.normal(0, 50, (count, 28, 28))
    return (np.stack(drawn) + noise).clip(0, 255).astype(np.uint8), labels


def write_folder(folder: Path, train: int, test: int) -> Path:
    """A folder with the four IDX files."""
    folder.mkdir()
    parts = zip(["train", "t10k"], [images(train, 0), images(test, 1)], strict=True)
    for name, (pictures, labels) in parts:
        write_idx(folder / f"{name}-images-idx3-ubyte", pictures)
        write_idx(folder / f"{name}-labels-idx1-ubyte", labels)
    return folder


def write_idx(path: Path, array: np.ndarray) -> None:
    path.write_bytes(idx_header(array.shape) + array.tobytes())


@pytest.fixture(scope="session")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_folder(tmp_path_factory.mktemp("data") / "digits", 600, 100)


# ---- running it


def environment(**changes: str) -> dict[str, str]:
    """This process's variables with none of the program's but the NumPy backend."""
    inherited = {k: v for k, v in os.environ.items() if not k.startswith("TINYGRAD_MNIST_")}
    return {**inherited, "PYTHONPATH": str(ROOT), "TINYGRAD_MNIST_BACKEND": "numpy", **changes}


Done = subprocess.CompletedProcess[str]


def run(cwd: Path, *arguments: object, **variables: str) -> Done:
    return subprocess.run(
        [*MODULE, *map(str, arguments)],
        cwd=cwd,
        env=environment(**variables),
        capture_output=True,
        text=True,
        timeout=TIMEOUT,
        check=False,
    )


def errors(done: Done) -> list[str]:
    """The lines of the error stream but for the one about the files' sums."""
    return [line for line in done.stderr.splitlines() if not line.startswith(NOTE)]


def failure(done: Done) -> str:
    """The one line of a command that failed as it should."""
    assert done.returncode == 1, (done.stdout, done.stderr)
    lines = errors(done)
    assert len(lines) == 1, done.stderr
    assert lines[0].startswith("error: ")
    return lines[0]


def accuracy(done: Done) -> str:
    """The last line of a command that tested a model."""
    assert done.returncode == 0, done.stderr
    last = done.stdout.splitlines()[-1]
    assert ACCURACY.fullmatch(last)
    return last


def percent(line: str) -> float:
    return float(line.split()[-1].rstrip("%"))


def quick(data: Path, *more: object) -> tuple[object, ...]:
    """The arguments of a training that takes a second."""
    return ("train", "--data", data, "--model", "mlp", "--epochs", 1, *more)


@pytest.fixture(scope="session")
def train(
    data: Path, tmp_path_factory: pytest.TempPathFactory
) -> Callable[[str, str], tuple[Done, Path]]:
    """Train a model on a backend, once each: what it printed, and its folder."""
    made: dict[tuple[str, str], tuple[Done, Path]] = {}

    def trained(model: str, backend: str) -> tuple[Done, Path]:
        if (model, backend) not in made:
            home = tmp_path_factory.mktemp(f"{model}-{backend}")
            arguments = ["--model", model, "--epochs", EPOCHS, "--batch-size", 20, "--data", data]
            done = run(home, "train", *arguments, "--out", "out", TINYGRAD_MNIST_BACKEND=backend)
            made[model, backend] = (done, home / "out")
        return made[model, backend]

    return trained


@pytest.fixture
def model(train: Callable[[str, str], tuple[Done, Path]], tmp_path: Path) -> Path:
    """A copy of a trained model in a folder of its own, with nothing beside it."""
    _, out = train("mlp", "numpy")
    return Path(shutil.copy(out / MODEL, tmp_path / "moved.safetensors"))


# ---- train


@pytest.mark.parametrize(("model", "backend"), list(product(MODELS, BACKENDS)))
def test_train_learns_says_so_and_writes_its_files(
    train: Any, data: Path, model: str, backend: str
) -> None:
    done, out = train(model, backend)
    assert percent(accuracy(done)) >= 90
    lines = done.stdout.splitlines()
    assert lines[0].startswith(f"training {model} on mnist: 600 images, {EPOCHS} epochs of 30 ")
    assert f"backend {backend}" in lines[0]
    matches = [EPOCH.fullmatch(line) for line in lines[1:-2]]
    assert [match and match[1] for match in matches] == [str(i + 1) for i in range(EPOCHS)]
    assert lines[-2].endswith(" to out")
    assert sorted(path.name for path in out.iterdir()) == FILES
    # no progress bar, no warning: the error stream has the note about the files and no more
    assert done.stderr.startswith(f"{NOTE}{data}: ")
    assert [e for e in errors(done) if "font cache" not in e and "compil" not in e] == []


@pytest.mark.parametrize(("model", "backend"), list(product(MODELS, BACKENDS)))
def test_history_tells_the_course(train: Any, model: str, backend: str) -> None:
    done, out = train(model, backend)
    history = json.loads((out / "history.json").read_text())
    about = {"model": model, "dataset": "mnist", "backend": backend, "seed": 0, "batch_size": 20}
    assert {key: history[key] for key in about} == about
    assert history["optimizer"] == "adam"
    assert history["steps_per_epoch"] == 30
    assert [epoch["epoch"] for epoch in history["epochs"]] == list(range(1, EPOCHS + 1))
    assert history["steps"]["step"] == list(range(1, 30 * EPOCHS + 1))
    losses = history["steps"]["loss"]
    assert len(losses) == 30 * EPOCHS
    assert np.isfinite(losses).all()
    first = history["epochs"][0]
    # batches of one size: the epoch's loss is their mean
    assert first["train_loss"] == pytest.approx(np.mean(losses[:30]), rel=1e-6)
    assert f"{history['epochs'][-1]['test_accuracy']:.2%}" == accuracy(done).split()[-1]


@pytest.mark.parametrize("model", MODELS)
def test_the_curves_are_a_picture(train: Any, model: str) -> None:
    with Image.open(train(model, "numpy")[1] / "curves.png") as picture:
        picture.load()
        assert picture.format == "PNG"
        assert min(picture.size) >= 200
        assert len(np.unique(np.asarray(picture.convert("L")))) > 2


def test_the_same_seed_gives_the_same_model_and_another_seed_another(
    data: Path, tmp_path: Path
) -> None:
    for out, seed in [("a", 5), ("b", 5), ("c", 6)]:
        assert run(tmp_path, *quick(data), "--seed", seed, "--out", out).returncode == 0
    # not the files' bytes: the library writes the metadata in any order
    a, b, c = (load_file(tmp_path / out / MODEL) for out in "abc")
    assert a.keys() == b.keys() == c.keys()
    assert all(a[name].tobytes() == b[name].tobytes() for name in a)
    assert not any((a[name] == c[name]).all() for name in a)


def test_options_reach_the_training(data: Path, tmp_path: Path) -> None:
    options = ["--batch-size", 100, "--optimizer", "sgd", "--lr", 0.02, "--seed", 7]
    accuracy(run(tmp_path, *quick(data), *options, "--backend", "numba", "--dataset", "kmnist"))
    history = json.loads(tmp_path.joinpath("mnist-out", "history.json").read_text())
    found = {k: history[k] for k in ("batch_size", "optimizer", "lr", "seed", "backend", "dataset")}
    assert found == {
        "batch_size": 100,
        "optimizer": "sgd",
        "lr": 0.02,
        "seed": 7,
        "backend": "numba",  # the option goes before the variable
        "dataset": "kmnist",
    }


def test_no_jit_runs_the_python_code_of_every_step(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """And changes no figure; without it the code runs for two steps of each kind."""
    calls: list[str] = []
    forward = nn.Sequential.forward

    def noted(self: nn.Sequential, x: Tensor) -> Tensor:
        calls.append("train" if self.training else "test")
        return forward(self, x)

    def main(*arguments: object) -> tuple[Counter[str], str]:
        calls.clear()
        assert cli.main([*map(str, arguments), "--data", str(data)]) == 0
        return Counter(calls), capsys.readouterr().out.splitlines()[-1]

    monkeypatch.setattr(nn.Sequential, "forward", noted)
    monkeypatch.setattr(runs, "EVALUATION_BATCH", 20)
    # the report's profile runs as many more as it has time for
    monkeypatch.setattr(runs.Training, "profile", lambda _: Profiled([], 1, 1))
    train = ("train", "--model", "mlp", "--batch-size", 100, "--epochs", 2, "--out", tmp_path)
    evaluate = ("evaluate", tmp_path / MODEL)
    with use_backend("numpy"):
        accuracies = set()
        for jit, expected in (
            ((), ({"train": 2, "test": 2}, {"test": 2})),
            (("--no-jit",), ({"train": 12, "test": 10}, {"test": 5})),
        ):
            for command, count in zip((train, evaluate), expected, strict=True):
                found, last = main(*command, *jit)
                assert found == count
                accuracies.add(last)
            assert json.loads((tmp_path / "history.json").read_text())["jit"] == (not jit)
    assert len(accuracies) == 1


@pytest.mark.parametrize("size", [10_000, 300, 150])
def test_a_training_of_very_few_steps(data: Path, tmp_path: Path, size: int) -> None:
    """The schedule's rise is a quarter of them: less than one step, a part of one, one."""
    accuracy(run(tmp_path, *quick(data), "--model", "cnn", "--batch-size", size))


def test_train_twice_into_one_folder_leaves_the_second(data: Path, tmp_path: Path) -> None:
    accuracy(run(tmp_path, *quick(data), "--out", "out"))
    second = run(tmp_path, *quick(data), "--out", "out", "--seed", 1, "--epochs", 2)
    out = tmp_path / "out"
    assert sorted(path.name for path in out.iterdir()) == FILES
    assert json.loads((out / "history.json").read_text())["seed"] == 1
    assert accuracy(run(tmp_path, "evaluate", out / MODEL, "--data", data)) == accuracy(second)


def test_out_may_have_parents_to_make_and_names_of_any_kind(data: Path, tmp_path: Path) -> None:
    out = tmp_path / "new parent" / "größe-数字"
    accuracy(run(tmp_path, *quick(data), "--out", out))
    assert sorted(path.name for path in out.iterdir()) == FILES


def test_data_may_come_from_the_variable(data: Path, tmp_path: Path) -> None:
    command = ("train", "--model", "mlp", "--epochs", 1)
    accuracy(run(tmp_path, *command, TINYGRAD_MNIST_DATA=str(data)))


# ---- evaluate


@pytest.mark.parametrize(("model", "backend"), list(product(MODELS, BACKENDS)))
def test_evaluate_gives_exactly_what_train_printed(
    train: Any, data: Path, tmp_path: Path, model: str, backend: str
) -> None:
    done, out = train(model, backend)
    moved = shutil.copy(out / MODEL, tmp_path / "elsewhere.safetensors")
    again = run(tmp_path, "evaluate", moved, "--data", data, TINYGRAD_MNIST_BACKEND=backend)
    assert accuracy(again) == accuracy(done)
    assert re.fullmatch(r"test loss: \d+\.\d{4}", again.stdout.splitlines()[0])


@pytest.mark.parametrize("model", MODELS)
def test_a_model_trained_on_one_backend_works_on_another(
    train: Any, data: Path, tmp_path: Path, model: str
) -> None:
    done, out = train(model, "numba")
    again = run(tmp_path, "evaluate", out / MODEL, "--data", data, "--backend", "numpy")
    assert percent(accuracy(again)) == pytest.approx(percent(accuracy(done)), abs=1.01)


def test_evaluate_uses_the_models_statistics_not_the_datasets(
    model: Path, data: Path, tmp_path: Path
) -> None:
    on_its_own = run(tmp_path, "evaluate", model, "--data", data)
    as_another = run(tmp_path, "evaluate", model, "--data", data, "--dataset", "fashion")
    assert as_another.stdout == on_its_own.stdout


# ---- predict


def draw(path: Path, digit: int, light_on_dark: bool) -> Path:
    """A big picture of the digit with a margin."""
    strokes = np.kron(np.pad(glyph(digit), 6), np.ones((9, 9), np.uint8))
    Image.fromarray(strokes if light_on_dark else 255 - strokes).save(path)
    return path


def predicted(line: str) -> int:
    found = re.fullmatch(r".*: (\d) \((\d+\.\d)%\)", line)
    assert found, line
    assert 10 < float(found[2]) <= 100
    return int(found[1])


@pytest.mark.parametrize(("model", "backend"), list(product(MODELS, BACKENDS)))
def test_predict_names_the_digits_of_any_polarity_and_format(
    train: Any, tmp_path: Path, model: str, backend: str
) -> None:
    file = shutil.copy(train(model, backend)[1] / MODEL, tmp_path / "m.safetensors")
    kinds = list(product(range(10), ["png", "jpg"], [True, False]))
    paths = [draw(tmp_path / f"{d}-{light}.{kind}", d, light) for d, kind, light in kinds]
    # with no data to be had: the model file is all that it needs
    variables = {"TINYGRAD_MNIST_BACKEND": backend, "TINYGRAD_MNIST_DATA": "nowhere"}
    done = run(tmp_path, "predict", file, *paths, **variables)
    assert (done.returncode, done.stderr) == (0, "")
    lines = done.stdout.splitlines()
    assert [line.partition(": ")[0] for line in lines] == [str(path) for path in paths]
    right = [predicted(line) == d for line, (d, _, _) in zip(lines, kinds, strict=True)]
    assert np.mean(right) >= 0.9, done.stdout


def test_predict_goes_on_after_a_bad_picture(model: Path, tmp_path: Path) -> None:
    first, last = (draw(tmp_path / f"{d}.png", d, True) for d in (3, 4))
    bad = tmp_path / "bad.png"
    bad.write_bytes(b"no picture")
    done = run(tmp_path, "predict", model, first, bad, tmp_path / "none.png", last)
    assert done.returncode == 1
    assert [line.partition(": ")[0] for line in done.stdout.splitlines()] == [str(first), str(last)]
    lines = done.stderr.splitlines()
    assert len(lines) == 2
    assert all(line.startswith("error: ") for line in lines)
    assert "bad.png" in lines[0]
    assert "none.png" in lines[1]


@pytest.mark.parametrize("content", [b"", b"\x89PNG\r\n\x1a\n", b"hello"])
def test_predict_on_no_picture_fails_with_one_line(
    model: Path, tmp_path: Path, content: bytes
) -> None:
    path = tmp_path / "seven.png"
    path.write_bytes(content)
    assert str(path) in failure(run(tmp_path, "predict", model, path))


# ---- backends


def test_backends_lists_them_and_marks_the_chosen(tmp_path: Path) -> None:
    done = run(tmp_path, "backends")
    assert (done.returncode, done.stderr) == (0, "")
    lines = done.stdout.splitlines()
    assert [line.split() for line in lines if line.startswith("*") and "what" not in line] == [
        ["*", "numpy", "usable"]
    ]
    assert any(line.split()[:2] == ["numba", "usable"] for line in lines)
    assert "TINYGRAD_MNIST_BACKEND" in lines[-1]


def test_backends_lists_them_where_the_variable_is_wrong(tmp_path: Path) -> None:
    done = run(tmp_path, "backends", TINYGRAD_MNIST_BACKEND="numpi")
    assert "Did you mean 'numpy'?" in failure(done)
    assert re.search(r"^ +numpy +usable$", done.stdout, re.M)


# ---- terminals, Ctrl-C, closed pipes


def in_terminal(cwd: Path, *arguments: object, ctrl_c_at: str | None = None) -> tuple[int, str]:
    """The exit code and all that a terminal of 100 columns is sent.

    ``ctrl_c_at``: press Ctrl-C when something that matches has come up.
    """
    ours, theirs = pty.openpty()
    termios.tcsetwinsize(theirs, (24, 100))
    process = subprocess.Popen(
        [*MODULE, *map(str, arguments)],
        cwd=cwd,
        env=environment(),
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        preexec_fn=_at_the_terminal,
    )
    os.close(theirs)
    shown = b""
    with os.fdopen(ours, "r+b", buffering=0) as stream:
        while chunk := _read(stream):
            shown += chunk
            if ctrl_c_at is not None and re.search(ctrl_c_at, shown.decode(errors="ignore")):
                stream.write(b"\x03")
                ctrl_c_at = None
    return process.wait(TIMEOUT), shown.decode()


def _at_the_terminal() -> None:
    """In the new process: its terminal's Ctrl-C counts, also where these tests ignore theirs."""
    os.login_tty(0)
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def _read(stream: Any) -> bytes:
    try:
        return stream.read(4096) or b""
    except OSError:  # what Linux says where the other end has closed
        return b""


def remaining(shown: str) -> list[str]:
    """The lines that stay on the screen: what was written over is gone."""
    lines = shown.replace("\r\n", "\n").rstrip("\n").split("\n")
    return [line.rstrip().rpartition("\r")[2] for line in lines]


def test_a_terminal_shows_a_progress_bar_and_then_the_line(data: Path, tmp_path: Path) -> None:
    code, shown = in_terminal(tmp_path, *quick(data))
    assert code == 0
    assert re.search(r"epoch 1/1: +\d+%\|.*\| \d+/19 \[", shown)
    lines = remaining(shown)
    assert [line for line in lines if EPOCH.fullmatch(line)]
    assert ACCURACY.fullmatch(lines[-1])
    assert not [line for line in lines if "%|" in line], "the bar stays"


def test_ctrl_c_in_a_terminal_wipes_the_bar(data: Path, tmp_path: Path) -> None:
    command = (*quick(data), "--epochs", 100_000, "--out", "out")
    code, shown = in_terminal(tmp_path, *command, ctrl_c_at=r"epoch 3/100000: train.*s\r\n")
    assert code == 130
    # a terminal itself shows the key that was pressed as ^C
    last = remaining(shown)[-1].removeprefix("^C")
    assert re.fullmatch(STOPPED, last), shown[-500:]


@contextmanager
def started(cwd: Path, *arguments: object) -> Iterator[subprocess.Popen[str]]:
    """The running command, for which SIGINT means Ctrl-C; ended at the latest here."""
    process = subprocess.Popen(
        [*MODULE, *map(str, arguments)],
        cwd=cwd,
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # where the tests run in the background, it may have been ignored
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def interrupted(process: subprocess.Popen[str], after: str) -> list[str]:
    """Press Ctrl-C when a line begins with ``after``; the error stream."""
    assert process.stdout is not None
    assert any(line.startswith(after) for line in process.stdout)
    process.send_signal(signal.SIGINT)
    _, stderr = process.communicate(timeout=TIMEOUT)
    assert process.returncode == 130, stderr
    return [line for line in stderr.splitlines() if not line.startswith(NOTE)]


def test_ctrl_c_keeps_the_model_of_the_last_full_epoch(data: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    with started(tmp_path, *quick(data), "--epochs", 100_000, "--out", out) as process:
        lines = interrupted(process, "epoch 2/")
    assert len(lines) == 1, lines
    found = re.fullmatch(STOPPED, lines[0])
    assert found
    kept = ["checkpoints", "history.json", MODEL]
    assert sorted(path.name for path in out.iterdir()) == kept
    history = json.loads((out / "history.json").read_text())
    assert len(history["epochs"]) == int(found[2]) - 1
    assert percent(accuracy(run(tmp_path, "evaluate", out / MODEL, "--data", data))) > 50


def test_ctrl_c_in_the_first_epoch_leaves_a_checkpoint(tmp_path: Path) -> None:
    many = write_folder(tmp_path / "many", 20_000, 10)
    out = tmp_path / "out"
    options = ["--model", "cnn", "--batch-size", 1, "--out", out]
    with started(tmp_path, "train", "--data", many, *options) as process:
        lines = interrupted(process, "training cnn")
    found = re.fullmatch(STOPPED, *lines)
    assert found
    assert found[2] == "1"
    *_, file = sorted((out / "checkpoints").glob("step-*"))
    assert int(file.stem.removeprefix("step-")) == int(found[1])
    assert sorted(path.name for path in out.iterdir()) == ["checkpoints"]


# Presses Ctrl-C while the program is being imported, and while it reads its arguments
EARLY = {
    "import": """
        class Finder:
            def find_spec(self, name, *_):
                if name == "tinygrad_mnist.cli":
                    raise KeyboardInterrupt
        sys.meta_path.insert(0, Finder())""",
    "arguments": """
        def parse_args(self, arguments):
            raise KeyboardInterrupt
        argparse.ArgumentParser.parse_args = parse_args""",
}


@pytest.mark.parametrize("when", EARLY)
def test_ctrl_c_before_the_command_begins_is_one_line(tmp_path: Path, when: str) -> None:
    start = 'runpy.run_module("tinygrad_mnist", run_name="__main__")'
    code = f"import argparse, runpy, sys\n{textwrap.dedent(EARLY[when])}\n{start}"
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        env=environment(),
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "interrupted\n")


def test_a_reader_that_goes_away_ends_training_quietly(data: Path, tmp_path: Path) -> None:
    with started(tmp_path, *quick(data), "--epochs", 100_000) as process:
        assert process.stdout is not None
        assert process.stdout.readline().startswith("training mlp")
        process.stdout.close()
        assert process.wait(TIMEOUT) == 1
        assert process.stderr is not None
        stderr = process.stderr.read()
    assert [line for line in stderr.splitlines() if not line.startswith(NOTE)] == []
    # the epoch that it could not tell of is kept all the same
    assert (tmp_path / "mnist-out" / MODEL).is_file()


@pytest.mark.parametrize("command", [["backends"], ["--help"], ["train", "--help"]])
def test_head_gets_its_line_and_no_traceback(tmp_path: Path, command: list[str]) -> None:
    line = " ".join([*MODULE, *command, "| head -n 1"])
    shell = ["bash", "-c", line]
    done = subprocess.run(
        shell, cwd=tmp_path, env=environment(), capture_output=True, text=True, check=False
    )
    assert (len(done.stdout.splitlines()), done.stderr) == (1, "")


UNPRINTABLE = os.fsdecode(b"\xff")


def test_a_name_that_the_terminal_cannot_show_is_escaped(
    model: Path, data: Path, tmp_path: Path
) -> None:
    strict = {"PYTHONIOENCODING": "utf-8:strict"}
    picture = draw(tmp_path / f"{UNPRINTABLE}.png", 1, True).name
    done = run(tmp_path, "predict", model, picture, "none.png", **strict)
    assert predicted(done.stdout.strip()) in range(10)
    assert done.stdout.startswith(r"\udcff.png: ")
    assert "none.png" in failure(done)
    done = run(tmp_path, *quick(data), "--out", f"o{UNPRINTABLE}", **strict)
    accuracy(done)
    assert done.stdout.splitlines()[-2].endswith(r" to o\udcff")
    assert sorted(path.name for path in (tmp_path / f"o{UNPRINTABLE}").iterdir()) == FILES


@pytest.mark.parametrize("closed", [">&-", "2>&-", ">&- 2>&-", "<&-"])
def test_closed_streams_do_not_matter(data: Path, tmp_path: Path, closed: str) -> None:
    words = " ".join(f"'{word}'" for word in (*MODULE, *quick(data)))
    shell = ["bash", "-c", f"{words} {closed}"]
    done = subprocess.run(
        shell, cwd=tmp_path, env=environment(), capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert errors(done) == []
    assert (tmp_path / "mnist-out" / MODEL).is_file()


def test_a_full_disk_under_the_output_is_one_line(tmp_path: Path) -> None:
    if not Path("/dev/full").exists():
        pytest.skip("this system has no /dev/full")
    done = subprocess.run(
        ["bash", "-c", f"{' '.join(MODULE)} backends > /dev/full"],
        cwd=tmp_path,
        env=environment(),
        capture_output=True,
        text=True,
        check=False,
    )
    assert "No space left" in failure(done)


def test_backends_verbose_tells_of_threads_blas_and_cache(tmp_path: Path) -> None:
    done = run(tmp_path, "backends", "--verbose", NUMBA_CACHE_DIR=str(tmp_path / "cache"))
    assert (done.returncode, done.stderr) == (0, "")
    plain = run(tmp_path, "backends").stdout.splitlines()
    lines = done.stdout.splitlines()
    assert [line for line in lines if line in plain] == plain
    row = re.compile(r"^( {4}(\S+(?: \S+)*)  +)\S", re.M)
    numpy, others = done.stdout.split(" numba ")
    numpy, numba = (row.findall(part) for part in (numpy, others.partition("\n  cupy ")[0]))
    assert [name for _, name in numpy] == ["BLAS"]
    assert [name for _, name in numba] == [
        "NumPy's BLAS", "BLAS in kernels", "threading layer", "threads",
        "compiled", "loaded", "cache", "cache size",
    ]  # fmt: skip
    assert len({len(before) for before, _ in numba}) == 1
    assert str(tmp_path / "cache") in done.stdout
    assert "cold" in done.stdout
    usable = [line for line in lines if str(tmp_path) not in line and "mend it with" not in line]
    assert max(map(len, usable)) <= 100


def test_backends_verbose_says_why_one_is_not_usable(tmp_path: Path) -> None:
    tmp_path.joinpath("numba.py").write_text("raise ImportError('no llvmlite')")
    variables = {"PYTHONPATH": f"{tmp_path}{os.pathsep}{ROOT}"}
    done = run(tmp_path, "backends", "--verbose", **variables)
    assert done.returncode == 0
    assert re.search(r"^ +numba +loading .* failed: ImportError: no llvmlite$", done.stdout, re.M)
    assert "threading layer" not in done.stdout


# ---- warmup


@pytest.fixture(scope="session", params=["mlp", pytest.param("", marks=pytest.mark.slow)])
def warmed(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Done, Path, list[str]]:
    """What ``warmup`` said, the cache that it filled, and for which models."""
    home = tmp_path_factory.mktemp("warm")
    cache = home / "cache"
    variables = {"NUMBA_CACHE_DIR": str(cache), "TINYGRAD_MNIST_DATA": "nowhere"}
    only = ["--model", request.param] if request.param else []
    done = run(home, "warmup", *only, "--backend", "numba", **variables)
    return done, cache, only[1:] or list(MODELS)


def test_warmup_says_what_it_compiled_and_where_that_is(
    warmed: tuple[Done, Path, list[str]],
) -> None:
    done, cache, models = warmed
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(f"warming up {' and '.join(models)} on the backend numba\n")
    number = len(list(cache.rglob("*.nbc")))
    assert re.search(rf"^compiled  {number} kernels in \d+\.\d s: adam, ", done.stdout, re.M)
    assert re.search(r"^cache     ", done.stdout, re.M)
    assert " ".join(done.stdout.split()).endswith(f": warm, {number} kernels")
    assert list(cache.parent.iterdir()) == [cache]  # nothing else was written


def test_after_warmup_nothing_is_compiled(
    warmed: tuple[Done, Path, list[str]], data: Path, tmp_path: Path
) -> None:
    _, cache, models = warmed
    kept = {path: path.stat().st_mtime_ns for path in cache.rglob("*.nb?")}
    variables = {"NUMBA_CACHE_DIR": str(cache), "TINYGRAD_MNIST_BACKEND": "numba"}
    picture = draw(tmp_path / "1.png", 1, True)
    options = ("--data", data, "--epochs", 1)
    for model, optimizer, threads in (
        ("cnn", "adam", {}),
        ("mlp", "sgd", ONE),
        ("mlp", "adam", {}),
    ):
        if model not in models:
            continue
        more = (*options, "--model", model, "--optimizer", optimizer)
        accuracy(run(tmp_path, "train", *more, **variables, **threads))
        file = tmp_path / "mnist-out" / MODEL
        accuracy(run(tmp_path, "evaluate", file, "--data", data, **variables, **threads))
        assert run(tmp_path, "predict", file, picture, **variables, **threads).stderr == ""
    assert {path: path.stat().st_mtime_ns for path in cache.rglob("*.nb?")} == kept
    again = run(tmp_path, "warmup", "--model", "mlp", **variables)
    assert (again.returncode, again.stderr) == (0, "")
    assert re.search(r"^compiled  0 kernels\nloaded    [1-9]\d* kernels: ", again.stdout, re.M)


@pytest.mark.parametrize(("backend", "variables"), [("numpy", {}), ("numba", PLAIN)])
def test_warmup_where_nothing_is_compiled(
    tmp_path: Path, backend: str, variables: dict[str, str]
) -> None:
    done = run(tmp_path, "warmup", "--backend", backend, **variables)
    said = f"the backend {backend} compiles nothing: there is nothing to warm up\n"
    assert (done.returncode, done.stdout, done.stderr) == (0, said, "")


# ---- help and wrong usage: exit codes 0 and 2


@pytest.mark.parametrize(
    "command", ["train", "evaluate", "predict", "backends", "warmup", "doctor"]
)
def test_help_has_an_example(tmp_path: Path, command: str) -> None:
    done = run(tmp_path, command, "--help")
    assert (done.returncode, done.stderr) == (0, "")
    _, title, examples = done.stdout.partition("example")
    assert title
    assert f"python -m tinygrad_mnist {command}" in examples
    assert max(map(len, done.stdout.splitlines())) <= 100


def test_help_and_version(tmp_path: Path) -> None:
    done = run(tmp_path, "--help")
    assert (done.returncode, done.stderr) == (0, "")
    for command in ("train", "evaluate", "predict", "backends", "warmup", "doctor"):
        assert re.search(rf"^ +{command} +[A-Z]", done.stdout, re.MULTILINE)
    done = run(tmp_path, "--version")
    assert (done.returncode, done.stdout) == (0, f"tinygrad_mnist {tinygrad_mnist.__version__}\n")


WRONG = {
    (): "COMMAND",
    ("trian",): "trian",
    ("train", "--model", "resnet"): "resnet",
    ("train", "--dataset", "cifar"): "cifar",
    ("train", "--optimizer", "adamw"): "adamw",
    ("train", "--batch-size", "0"): "'0'",
    ("train", "--batch-size", "-1"): "'-1'",
    ("train", "--batch-size", "x"): "'x'",
    ("train", "--batch-size", "1.5"): "'1.5'",
    ("train", "--batch-size", "²"): "'²'",
    ("train", "--lr", "nan"): "'nan'",
    ("train", "--lr", "inf"): "'inf'",
    ("train", "--lr", "0"): "'0'",
    ("train", "--lr", "-1"): "'-1'",
    ("train", "--epochs", "0"): "'0'",
    ("train", "--seed", "-1"): "'-1'",
    ("train", "--seed", str(2**64)): str(2**64),
    ("train", "--fast"): "--fast",
    ("train", "--out"): "--out",
    ("evaluate",): "MODEL",
    ("evaluate", "m.safetensors", "--dataset", "cifar"): "cifar",
    ("predict", "m.safetensors"): "IMAGE",
    ("warmup", "--model", "resnet"): "resnet",
}


@pytest.mark.parametrize("arguments", WRONG, ids=" ".join)
def test_wrong_usage_shows_the_usage_and_one_line(
    tmp_path: Path, arguments: tuple[str, ...]
) -> None:
    done = run(tmp_path, *arguments)
    assert (done.returncode, done.stdout) == (2, "")
    usage, *_, line = done.stderr.splitlines()
    assert usage.startswith("usage: python -m tinygrad_mnist")
    assert line.startswith("python -m tinygrad_mnist")
    assert ": error: " in line
    assert WRONG[arguments] in line
    assert list(tmp_path.iterdir()) == []


# ---- what goes wrong in a command: exit code 1 and one line


@pytest.mark.parametrize("below", ["file", "file/sub", "file/sub/sub"])
def test_out_that_cannot_be_written(data: Path, tmp_path: Path, below: str) -> None:
    tmp_path.joinpath("file").write_text("in the way")
    line = failure(run(tmp_path, *quick(data), "--out", below))
    assert f"cannot write to --out {below}" in line
    assert tmp_path.joinpath("file").read_text() == "in the way"


@pytest.mark.parametrize("name", FILES[1:])
def test_a_folder_where_a_file_goes_is_named_before_the_training(
    data: Path, tmp_path: Path, name: str
) -> None:
    tmp_path.joinpath("out", name).mkdir(parents=True)
    done = run(tmp_path, *quick(data), "--out", "out")
    assert f"cannot write to --out out: {name} is a folder there" in failure(done)
    assert done.stdout == ""
    assert [path.name for path in (tmp_path / "out").iterdir()] == [name]


@pytest.mark.parametrize("out", ["out", "new/parents/out"])
def test_data_that_is_not_there_and_no_folder_left_for_it(tmp_path: Path, out: str) -> None:
    assert "nowhere" in failure(run(tmp_path, *quick(tmp_path / "nowhere"), "--out", out))
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_was_there_stays(tmp_path: Path) -> None:
    tmp_path.joinpath("mine").mkdir()
    failure(run(tmp_path, *quick(tmp_path / "nowhere"), "--out", "mine/out"))
    failure(run(tmp_path, *quick(tmp_path / "nowhere"), "--out", "mine"))
    assert list(tmp_path.rglob("*")) == [tmp_path / "mine"]


def test_data_folder_without_the_files(tmp_path: Path) -> None:
    line = failure(run(tmp_path, *quick(tmp_path)))
    assert "train-images-idx3-ubyte" in line


def _cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-100])


def _nothing(path: Path) -> None:
    path.write_bytes(b"")


def _no_images(path: Path) -> None:
    write_idx(path, np.zeros((0, 28, 28), np.uint8))
    write_idx(
        path.with_name(path.name.replace("images-idx3", "labels-idx1")), np.zeros(0, np.uint8)
    )


def _wrong_size(path: Path) -> None:
    write_idx(path, np.zeros((600, 32, 32), np.uint8))


@pytest.mark.parametrize("part", ["train", "t10k"])
@pytest.mark.parametrize(
    ("damage", "word"),
    [(_cut, "truncated"), (_nothing, "empty"), (_no_images, "empty"), (_wrong_size, "32")],
)
def test_damaged_data(
    data: Path, tmp_path: Path, damage: Callable[[Path], None], word: str, part: str
) -> None:
    folder = shutil.copytree(data, tmp_path / "damaged")
    damage(folder / f"{part}-images-idx3-ubyte")
    line = failure(run(tmp_path, *quick(folder), "--out", "out"))
    assert word in line
    assert str(folder) in line
    assert not tmp_path.joinpath("out").exists()


@pytest.mark.parametrize("command", ["train", "evaluate", "predict"])
def test_an_unknown_backend(model: Path, data: Path, tmp_path: Path, command: str) -> None:
    picture = draw(tmp_path / "1.png", 1, True)
    arguments = {
        "train": quick(data),
        "evaluate": ("evaluate", model, "--data", data),
        "predict": ("predict", model, picture),
    }[command]
    line = failure(run(tmp_path, *arguments, "--backend", "nunba"))
    assert "--backend is 'nunba'" in line
    assert "Did you mean 'numba'?" in line
    line = failure(run(tmp_path, *arguments, TINYGRAD_MNIST_BACKEND="nunpy"))
    assert "TINYGRAD_MNIST_BACKEND" in line
    assert "Did you mean 'numpy'?" in line


def test_a_misspelt_variable_is_named(model: Path, data: Path, tmp_path: Path) -> None:
    done = run(tmp_path, "evaluate", model, "--data", data, TINYGRAD_MNIST_BACKENT="numba")
    accuracy(done)
    assert "TINYGRAD_MNIST_BACKENT" in done.stderr
    assert "did you mean TINYGRAD_MNIST_BACKEND?" in done.stderr


# ---- model files


def rewritten(path: Path, change: Callable[[dict[str, Any], dict[str, str]], None]) -> None:
    """Change the tensors and the metadata of a model file."""
    with safe_open(path, framework="numpy") as file:
        metadata = file.metadata()
        arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    del metadata["tinygrad_mnist.crc32"]  # of what it was
    change(arrays, metadata)
    save_file(arrays, path, metadata)


def _text(path: Path) -> None:
    path.write_text("I am no model")


def _truncated(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1000])


def _header_only(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:20])


def _another_architecture(path: Path) -> None:
    rewritten(path, lambda _, metadata: metadata.update(architecture="resnet"))


def _says_cnn(path: Path) -> None:
    arguments = json.dumps({"channels": 1, "classes": 10})
    rewritten(path, lambda _, metadata: metadata.update(architecture="cnn", arguments=arguments))


def _other_version(path: Path) -> None:
    rewritten(path, lambda _, metadata: metadata.update(version="99"))


def _from_elsewhere(path: Path) -> None:
    rewritten(path, lambda _, metadata: metadata.clear())


def _bfloat16(path: Path) -> None:
    """As PyTorch writes them: a dtype that NumPy has not."""
    header = {
        "__metadata__": {"format": "pt"},
        "w": {"dtype": "BF16", "shape": [2], "data_offsets": [0, 4]},
    }
    text = json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + bytes(4))


def _bfloat16_as_ours(path: Path) -> None:
    with safe_open(path, framework="numpy") as file:
        metadata = file.metadata()
    _bfloat16(path)
    content = path.read_bytes()
    length = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + length])
    text = json.dumps({**header, "__metadata__": metadata}).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + content[8 + length :])


def _wrong_shapes(path: Path) -> None:
    rewritten(path, lambda arrays, _: arrays.update({"1.bias": np.zeros(3, np.float32)}))


def _missing_tensor(path: Path) -> None:
    rewritten(path, lambda arrays, _: arrays.pop("1.bias"))


def _absurd_arguments(path: Path) -> None:
    rewritten(path, lambda _, metadata: metadata.update(arguments='{"colour": "blue"}'))


def _arguments_no_json(path: Path) -> None:
    rewritten(path, lambda _, metadata: metadata.update(arguments="{"))


def _zero_deviation(path: Path) -> None:
    rewritten(path, lambda _, metadata: metadata.update(std="0.0"))


def _folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


BAD_MODELS = {
    _text: "safetensors",
    _truncated: "safetensors",
    _header_only: "safetensors",
    _another_architecture: "resnet",
    _says_cnn: "does not fit",
    _other_version: "99",
    _from_elsewhere: "no model of this program",
    _bfloat16: "no model of this program",
    _bfloat16_as_ours: "'w' is of BF16",
    _wrong_shapes: "1.bias",
    _missing_tensor: "1.bias",
    _absurd_arguments: "colour",
    _arguments_no_json: "damaged metadata",
    _zero_deviation: "std 0.0",
    _folder: "directory",
    Path.unlink: "No such file",
}


@pytest.mark.parametrize("damage", BAD_MODELS, ids=lambda d: d.__name__.strip("_"))
def test_a_file_that_is_no_model(
    model: Path, data: Path, tmp_path: Path, damage: Callable[[Path], None]
) -> None:
    damage(model)
    picture = draw(tmp_path / "1.png", 1, True)
    for arguments in (("predict", model, picture), ("evaluate", model, "--data", data)):
        line = failure(run(tmp_path, *arguments))
        assert str(model) in line
        assert BAD_MODELS[damage] in line


def write_model(path: Path, architecture: str, arguments: dict[str, int]) -> Path:
    """A model that nobody trained."""
    with use_backend("numpy"):
        made = models.ARCHITECTURES[architecture](**arguments)
        training.save_model(path, made, ModelInfo(architecture, arguments, "mnist", 0.1, 0.3))
    return path


@pytest.mark.parametrize(
    ("command", "architecture", "arguments", "needed"),
    [
        ("predict", "cnn", {"channels": 3}, "{'channels': 1}"),
        ("predict", "mlp", {"features": 100, "hidden": 8}, "{'features': 784}"),
        ("evaluate", "cnn", {"channels": 3}, "{'channels': 1, 'classes': 10}"),
        ("evaluate", "mlp", {"features": 100}, "{'features': 784, 'classes': 10}"),
        ("evaluate", "mlp", {"classes": 5}, "{'features': 784, 'classes': 10}"),
        ("evaluate", "cnn", {"classes": 11}, "{'channels': 1, 'classes': 10}"),
    ],
)
def test_a_model_that_does_not_fit_the_images(
    data: Path,
    tmp_path: Path,
    command: str,
    architecture: str,
    arguments: dict[str, int],
    needed: str,
) -> None:
    file = write_model(tmp_path / "m.safetensors", architecture, arguments)
    picture = draw(tmp_path / "1.png", 1, True)
    more = [picture] if command == "predict" else ["--data", data]
    line = failure(run(tmp_path, command, file, *more))
    assert str(file) in line
    assert f"its arguments are {arguments}" in line
    assert f"needed: {needed}" in line


def test_an_error_within_a_model_names_the_layer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    class Unread(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            raise FileNotFoundError(2, "No such file or directory", "table.bin")

    monkeypatch.setitem(models.ARCHITECTURES, "mlp", lambda: nn.Sequential(Unread()))
    file = write_model(tmp_path / "m.safetensors", "mlp", {})
    assert cli.main(["predict", str(file), str(draw(tmp_path / "1.png", 1, True))]) == 1
    expected = "error: table.bin: No such file or directory; in 0: Unread()\n"
    assert capsys.readouterr().err == expected


def test_a_model_of_another_inner_size_fits(data: Path, tmp_path: Path) -> None:
    file = write_model(tmp_path / "m.safetensors", "mlp", {"hidden": 8})
    accuracy(run(tmp_path, "evaluate", file, "--data", data))


def test_a_model_of_a_dataset_not_known_here(model: Path, data: Path, tmp_path: Path) -> None:
    rewritten(model, lambda _, metadata: metadata.update(dataset="mine"))
    line = failure(run(tmp_path, "evaluate", model, "--data", data))
    assert "'mine'" in line
    assert "--dataset" in line
    accuracy(run(tmp_path, "evaluate", model, "--data", data, "--dataset", "mnist"))


# ---- training that diverges


@pytest.mark.parametrize(("model", "backend"), list(product(MODELS, BACKENDS)))
def test_diverging_training_is_one_line_and_writes_nothing(
    data: Path, tmp_path: Path, model: str, backend: str
) -> None:
    options = ["--lr", "1e6", "--optimizer", "sgd", "--out", "out", "--backend", backend]
    done = run(tmp_path, *quick(data), "--model", model, *options)
    line = failure(done)
    assert re.search(r"loss became (nan|inf) (at step \d of|after) epoch 1: \w+ made ", line)
    # what the op was given, at which line, in which layer
    assert re.search(r"steps\.py:\d+ \(.*\); inputs: x float32\(.*; in \d+: \w+\(.*\); try", line)
    assert line.endswith("try a smaller learning rate")
    assert not tmp_path.joinpath("out").exists()


# ---- the tests' own switch


def test_a_misspelt_required_backend_ends_the_test_run() -> None:
    tests = Path(__file__).parent
    pytest_ = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "--collect-only"]
    done = subprocess.run(
        [*pytest_, "test_imports.py"],
        cwd=tests,
        env=environment(TINYGRAD_MNIST_REQUIRE="numpy,cupy,nunba"),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == pytest.ExitCode.USAGE_ERROR, done.stdout
    lines = [line for line in done.stderr.splitlines() if line]
    assert len(lines) == 1, done.stderr
    assert "TINYGRAD_MNIST_REQUIRE names 'nunba'; expected some of numpy, numba, cupy" in lines[0]
