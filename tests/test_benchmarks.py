"""The benchmark that starts whole trainings: both sides train the same, and what is printed."""

import importlib
import re
import sys
from pathlib import Path
from typing import Any

import pytest
from test_examples import run, write_dataset

from tinygrad_mnist import models

BENCHMARKS = Path(__file__).parent / "benchmarks"
WHOLE = BENCHMARKS / "whole_training.py"
ROWS = ["numpy --no-jit", "numpy", "numba --no-jit", "numba"]


@pytest.fixture
def in_pytorch(monkeypatch: pytest.MonkeyPatch) -> Any:
    pytest.importorskip("torch", reason="PyTorch is not installed")
    monkeypatch.syspath_prepend(BENCHMARKS)
    return importlib.import_module("training_in_pytorch")


def test_the_networks_are_the_same(in_pytorch: Any) -> None:
    assert list(in_pytorch.MODELS) == list(models.RECIPES)
    for name, recipe in models.RECIPES.items():
        ours = models.ARCHITECTURES[name](**recipe.arguments)
        theirs = in_pytorch.MODELS[name]()
        assert [type(layer).__name__ for layer in ours] == [type(x).__name__ for x in theirs]
        assert {key: value.shape for key, value in ours.state_dict().items()} == {
            key: tuple(value.shape) for key, value in theirs.state_dict().items()
        }


@pytest.mark.slow
def test_whole_trainings_are_timed(tmp_path: Path) -> None:
    data = write_dataset(tmp_path / "squares", 150, test=1000)
    done = run("numpy", "--models", "mlp", "--rounds", 1, "--data", data, script=WHOLE)
    assert done.returncode == 0, done.stderr
    machine, empty, head, *rows = done.stdout.splitlines()
    assert re.search(r" \d+ cores, \w+, \d{4}-\d\d-\d\d, Python \d", machine)
    assert (empty, head.split()[-4:]) == ("", ["seconds", "ratio", "test", "accuracy"])
    found = [re.fullmatch(r"(.*\S) +(\d+\.\d)( +\d+\.\d\d| +)  +(\d+\.\d\d)%", row) for row in rows]
    assert all(found), done.stdout
    names = [match[1] for match in found if match]
    if "PyTorch" in names:
        assert rows[-1].split()[2] == "1.00"
    assert [name for name in names if name != "PyTorch"] == ROWS
    assert all(float(match[2]) > 0 and float(match[4]) > 95 for match in found if match)


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["--rounds", "0"], 2, "expected a whole number of at least 1, got '0'"),
        (["--models", "lenet"], 2, "invalid choice: 'lenet'"),
        (["--data", "nowhere"], 1, "error: nowhere: no such folder; name one that holds "),
    ],
)
def test_what_cannot_be_timed_is_one_line(
    arguments: list[str], code: int, message: str, tmp_path: Path
) -> None:
    done = run("numpy", *arguments, script=WHOLE, folder=tmp_path)
    assert done.returncode == code
    assert message in done.stderr.splitlines()[-1]


@pytest.mark.parametrize(
    ("code", "message"),
    [
        ("raise SystemExit('no room')", "ended with 1: no room"),
        ("print('test accuracy: 99.00')", "ended with 0"),
    ],
)
def test_a_training_that_fails_is_named(
    code: str, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(BENCHMARKS)
    trained = importlib.import_module("whole_training").trained
    with pytest.raises(OSError, match=f"{message}$"):
        trained([sys.executable, "-c", code])
