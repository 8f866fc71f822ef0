"""The choice of backend: who wins, and what each failure says."""

import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

import tinygrad_mnist as tg
from tinygrad_mnist import backend as choice
from tinygrad_mnist.backend import BackendError, current, resolve, statuses

ROOT = Path(__file__).resolve().parent.parent


def python(code: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run ``code`` in a fresh interpreter with only these of our variables set."""
    clean = {k: v for k, v in os.environ.items() if not k.startswith("TINYGRAD_MNIST_")}
    return subprocess.run(
        [sys.executable, "-c", code],
        env=clean | variables,
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
    )


NAME = "import tinygrad_mnist as tg; print(tg.zeros(1).backend.name)"


@pytest.mark.parametrize("name", ["numpy", "numba"])
def test_the_variable_chooses(name: str) -> None:
    assert python(NAME, TINYGRAD_MNIST_BACKEND=name).stdout == f"{name}\n"


@pytest.mark.parametrize("variables", [{}, {"TINYGRAD_MNIST_BACKEND": "auto"}])
def test_auto_takes_the_best_usable(variables: dict[str, str]) -> None:
    assert python(NAME, **variables).stdout == "numba\n"


def test_the_variable_is_read_at_the_first_tensor() -> None:
    code = "import os, tinygrad_mnist as tg; os.environ['TINYGRAD_MNIST_BACKEND'] = 'numpy'\n"
    assert python(code + NAME, TINYGRAD_MNIST_BACKEND="nonsense").stdout == "numpy\n"


def test_auto_without_numba_says_so_in_one_line() -> None:
    code = "import sys; sys.modules['numba'] = None\n"
    result = python(code + NAME)
    assert result.stdout == "numpy\n"
    assert len(result.stderr.splitlines()) == 1
    assert "pip install numba" in result.stderr


def test_numba_asked_for_and_missing_is_an_error_that_names_the_mend() -> None:
    code = "import sys; sys.modules['numba'] = None\n"
    result = python(code + NAME, TINYGRAD_MNIST_BACKEND="numba")
    assert result.returncode
    last = result.stderr.splitlines()[-1]
    assert "the variable TINYGRAD_MNIST_BACKEND is 'numba'" in last
    assert "pip install numba" in last
    assert "Usable here: 'numpy'" in last


def test_an_unknown_name_in_the_variable() -> None:
    result = python(NAME, TINYGRAD_MNIST_BACKEND="nmupy")
    last = result.stderr.splitlines()[-1]
    assert "the variable TINYGRAD_MNIST_BACKEND is 'nmupy'" in last
    assert "Did you mean 'numpy'?" in last


def test_a_misspelt_variable_is_pointed_out() -> None:
    result = python(NAME, TINYGRAD_MNIST_BAKEND="numpy")
    assert result.returncode == 0
    assert "did you mean TINYGRAD_MNIST_BACKEND?" in result.stderr


def test_precedence() -> None:
    before = current()
    try:
        tg.set_backend("numpy")
        assert tg.zeros(1).backend.name == "numpy"
        with tg.use_backend("numba"):
            assert tg.zeros(1).backend.name == "numba"
            assert tg.zeros(1, backend="numpy").backend.name == "numpy"
            with tg.use_backend("numpy"):
                assert tg.zeros(1).backend.name == "numpy"
            assert tg.zeros(1).backend.name == "numba"
        assert tg.zeros(1).backend.name == "numpy"
    finally:
        tg.set_backend(before)


def test_use_backend_is_of_this_thread_only() -> None:
    seen = []
    with tg.use_backend("numba"):
        thread = threading.Thread(target=lambda: seen.append(choice._scoped.get()))
        thread.start()
        thread.join()
    assert seen == [()]


def test_use_backend_can_be_entered_again() -> None:
    scope = tg.use_backend("numba")
    with scope, scope:
        assert current().name == "numba"


@pytest.mark.parametrize("wrong", [3, 1.5, ["numpy"]])
def test_a_name_that_is_none(wrong: object) -> None:
    with pytest.raises(BackendError, match="expected a backend's name"):
        resolve(wrong)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("ask", "who"),
    [
        (lambda: tg.set_backend("nunba"), r"set_backend\(\)"),
        (lambda: tg.use_backend("nunba"), r"use_backend\(\)"),
        (lambda: tg.zeros(1, backend="nunba"), "the backend argument"),
        (lambda: tg.zeros(1).to("nunba"), r"to: the argument, if no dtype,"),
    ],
)
def test_an_unknown_name_says_who_asked(ask, who: str) -> None:
    with pytest.raises(BackendError, match=f"{who} is 'nunba'.*Did you mean 'numba'"):
        ask()


@pytest.mark.parametrize(("name", "meant"), [("cuda", "cupy"), ("cuda:1", "cupy:1")])
def test_a_device_in_place_of_a_backend(name: str, meant: str) -> None:
    with pytest.raises(BackendError, match=f"is '{name}'.*Did you mean '{meant}'"):
        tg.zeros(1, backend=name)


def test_one_instance_per_name() -> None:
    assert resolve("numpy") is resolve("numpy")


def test_statuses_lists_every_backend_usable_or_why_not() -> None:
    found = {status.name: status.problem for status in statuses()}
    assert found["numpy"] is None
    assert found["numba"] is None


def test_moving_between_backends_keeps_the_gradient() -> None:
    x = tg.tensor([1.0, 2.0], requires_grad=True, backend="numpy")
    y = (x * 2).to("numba")
    assert y.backend.name == "numba"
    (y * y).sum().backward()
    assert x.grad is not None
    assert x.grad.backend.name == "numpy"
    assert x.grad.tolist() == [8.0, 16.0]
