"""Several devices of one backend: ``name:N``, and what asking NVIDIA's driver costs and says."""

from __future__ import annotations

import ctypes
import importlib.util
import subprocess
import sys
import time
from collections.abc import Iterator
from typing import Any

import pytest
from test_backend import NAME, python

import tinygrad_mnist as tg
from tinygrad_mnist import backend as choice
from tinygrad_mnist import driver
from tinygrad_mnist.backend import BackendError, resolve
from tinygrad_mnist.backends.numpy_backend import NumpyBackend


class Several(NumpyBackend):
    """NumPy on two devices; those of ``_broken`` cannot be used."""

    name = "several"
    _broken: tuple[str, ...] = ()

    @classmethod
    def at(cls, device: int) -> Any:
        if device > 1:
            return f"there is no device {device}; mend it with: 'several:0', 'several:1'"
        return type("Second", (cls,), {"name": "several:1"}) if device else cls

    @classmethod
    def unusable(cls) -> str | None:
        return "it is broken; mend it with: glue" if cls.name in cls._broken else None


@pytest.fixture(autouse=True)
def several(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(choice._BUILTIN, "several", "test_devices:Several")
    monkeypatch.setattr(choice, "_loaded", dict(choice._loaded))


# ---- name:N


def test_each_device_is_a_backend() -> None:
    first, second = resolve("several"), resolve("several:1")
    assert (first.name, second.name) == ("several", "several:1")
    assert resolve("several:0") is first
    assert resolve("several:01") is resolve("several:1") is second
    assert tg.tensor([1.0], backend="several:1").backend is second
    assert tg.ones(2).to("several:1").backend is second
    with tg.use_backend("several:1"):
        assert tg.zeros(1).backend is second
    assert resolve("numpy:0") is resolve("numpy")


@pytest.mark.parametrize("number", ["", "x", "-1", "1.0", "1:1", " 1", "²", "9" * 5000, "+1"])
def test_a_number_that_is_none(number: str) -> None:
    with pytest.raises(BackendError) as caught:
        resolve(f"several:{number}", "the test")
    assert str(caught.value) == (
        f"the test is {'several:' + number!r}: expected the number of a device behind the colon, "
        "as in 'several:1', or 'several'"
    )


def test_a_device_that_is_not_there() -> None:
    with pytest.raises(BackendError) as caught:
        tg.zeros(1, backend="several:2")
    said = str(caught.value)
    assert said.startswith(
        "the backend argument is 'several:2', which cannot run here: there is no device 2; "
        "mend it with: 'several:0', 'several:1'. Usable here: "
    )
    assert "'several'" in said.partition("Usable here")[2]


def test_a_backend_without_devices() -> None:
    with pytest.raises(BackendError, match="the backend 'numpy' has no devices to choose from"):
        resolve("numpy:1")


def test_a_device_that_cannot_be_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Several, "_broken", ("several:1",))
    assert resolve("several").name == "several"
    assert not choice.is_usable("several:1")
    with pytest.raises(BackendError, match="'several:1', which cannot run here: it is broken"):
        resolve("several:1")


def test_an_unknown_name_with_a_device() -> None:
    with pytest.raises(BackendError, match=r"'severel:1': there is no such.*mean 'several'"):
        resolve("severel:1")


def test_operands_of_two_devices() -> None:
    x, y = tg.ones(2, backend="several"), tg.ones(2, backend="several:1")
    with pytest.raises(RuntimeError, match=r"backend 'several:1', expected 'several'"):
        x + y
    assert (x + y.to(x)).backend is x.backend


def test_a_gradient_comes_back_to_its_device() -> None:
    x = tg.tensor([1.0, 2.0], requires_grad=True, backend="several:1")
    (x.to("several") * 3).sum().backward()
    assert x.grad is not None
    assert x.grad.backend.name == "several:1"


def test_the_variable_names_a_device() -> None:
    done = python(NAME, TINYGRAD_MNIST_BACKEND="cupy:-1")
    assert "TINYGRAD_MNIST_BACKEND is 'cupy:-1': expected the number" in done.stderr
    done = python(NAME, TINYGRAD_MNIST_BACKEND="numpy:0")
    assert (done.stdout, done.stderr) == ("numpy\n", "")


# ---- auto, and the driver


class Driver:
    """NVIDIA's library as far as it is asked: what ``cuInit`` answers, the CUDA it is for."""

    def __init__(self, answer: int = 0, version: int = 13000) -> None:
        self.answer, self.version = answer, version

    def cuInit(self, flags: int) -> int:
        return self.answer

    def cuDriverGetVersion(self, found: Any) -> int:
        ctypes.cast(found, ctypes.POINTER(ctypes.c_int))[0] = self.version
        return 0


@pytest.fixture
def without_cupy(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setitem(sys.modules, "cupy", None)
    monkeypatch.setattr(choice, "_loaded", {})
    module = "tinygrad_mnist.backends.cupy_backend"
    monkeypatch.delitem(sys.modules, module, raising=False)
    yield
    sys.modules.pop(module, None)


@pytest.mark.parametrize(
    ("there", "said"),
    [
        (None, "there is no NVIDIA driver; mend it with: NVIDIA's driver, if there is a GPU"),
        (Driver(version=13010), "mend it with: pip install 'tinygrad_mnist[cuda13]'"),
        (Driver(version=14000), "mend it with: pip install 'tinygrad_mnist[cuda13]'"),
        (Driver(version=12080), "mend it with: pip install 'tinygrad_mnist[cuda12]'"),
        (
            Driver(version=11040),
            "NVIDIA's driver is for CUDA 11.4, expected 12 or later; mend it with: a new NVIDIA "
            "driver",
        ),
    ],
)
def test_without_cupy_the_line_that_brings_it(
    without_cupy: None, monkeypatch: pytest.MonkeyPatch, there: Driver | None, said: str
) -> None:
    monkeypatch.setattr(driver, "library", lambda: there)
    with pytest.raises(BackendError) as caught:
        resolve("cupy")
    assert f"cannot run here: the package cupy is not installed; {said}. Usable" in str(
        caught.value
    )
    assert not tg.cuda.is_available()


@pytest.mark.parametrize(
    ("installed", "there", "asked"),
    [
        (False, Driver(), False),
        (True, None, False),
        (True, Driver(answer=driver.NO_DEVICE), False),
        (True, Driver(), True),
        (True, Driver(answer=999), True),
    ],
)
def test_auto_asks_cupy_only_where_there_may_be_a_gpu(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    installed: bool,
    there: Driver | None,
    asked: bool,
) -> None:
    names, other = [], resolve("numpy")

    def refuses(name: str, who: str) -> Any:
        names.append(name)
        return "it is broken" if name == "cupy" else other

    monkeypatch.setattr(importlib.util, "find_spec", lambda name: installed or None)
    monkeypatch.setattr(driver, "library", lambda: there)
    monkeypatch.setattr(choice, "_loaded", {})
    monkeypatch.setattr(choice, "_found", refuses)
    choice._auto()
    assert names == (["cupy", "numba"] if asked else ["numba"])
    line = "tinygrad_mnist: using numba; cupy cannot run here: it is broken\n"
    assert capsys.readouterr().err == (line if asked else "")


def test_asking_costs_little_where_there_is_no_gpu() -> None:
    if driver.started() != driver.NO_DEVICE:
        pytest.skip("there is a GPU")
    times = []
    for _ in range(5):
        driver.library.cache_clear()
        start = time.perf_counter()
        assert not driver.cupy_may_run()
        times.append(time.perf_counter() - start)
    assert min(times) < 1e-3


def test_auto_does_not_import_cupy_without_a_driver() -> None:
    code = (
        "import sys, tinygrad_mnist as tg; from tinygrad_mnist import driver\n"
        "driver.library = lambda: None\n"
        "tg.zeros(1); print('cupy' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"


def test_the_driver_as_it_is_here() -> None:
    if driver.library() is None:
        assert (driver.started(), driver.version()) == (driver.NO_DEVICE, None)
        assert driver.devices() == []
    else:
        assert driver.version() > (0, 0)
