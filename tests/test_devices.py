"""Several devices of one backend: ``name:N``, and what asking NVIDIA's driver costs and says."""

from __future__ import annotations

import ctypes
import importlib.util
import inspect
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import cuda_on_cpu
import numpy as np
import pytest
from test_backend import NAME, python

import tinygrad_mnist as tg
from tinygrad_mnist import backend as choice
from tinygrad_mnist import config, driver
from tinygrad_mnist.backend import BackendError, resolve
from tinygrad_mnist.backends.numpy_backend import NumpyBackend
from tinygrad_mnist.contract import kernel_names
from tinygrad_mnist.kernels import Step


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


class OfDevice1:
    """What another library has on the second GPU."""

    def __dlpack_device__(self) -> tuple[int, int]:
        return 2, 1

    def __dlpack__(self, **more: Any) -> Any:
        raise AssertionError("it is CuPy that reads it")


def test_a_gpus_memory_comes_to_that_gpus_backend(monkeypatch: pytest.MonkeyPatch) -> None:
    class Second(NumpyBackend):
        name = "cupy:1"
        xp = SimpleNamespace(from_dlpack=lambda x: np.arange(3.0), asarray=np.asarray)

    if not choice.is_usable("cupy:1"):
        with pytest.raises(BackendError, match="from_dlpack: the device of the OfDevice1 is 'cupy"):
            tg.from_dlpack(OfDevice1())
    monkeypatch.setitem(choice._loaded, "cupy:1", Second())
    assert tg.from_dlpack(OfDevice1()).backend.name == "cupy:1"


@pytest.mark.parametrize(("value", "on"), [("", False), ("0", False), (" 1 ", True)])
def test_tf32_is_off_unless_it_is_asked_for(
    monkeypatch: pytest.MonkeyPatch, value: str, on: bool
) -> None:
    monkeypatch.delenv(config.TF32, raising=False)
    assert config.tf32() is False
    monkeypatch.setenv(config.TF32, value)
    assert config.tf32() is on
    assert config.TF32 not in config.unknown_variables()
    monkeypatch.setenv(config.TF32, "on")
    with pytest.raises(ValueError, match="TINYGRAD_MNIST_TF32 is 'on': expected 1, or 0"):
        config.tf32()


# ---- CuPy's devices, on the stand-in


@pytest.fixture
def cupy_kind(monkeypatch: pytest.MonkeyPatch) -> Any:
    """The class ``CupyBackend`` on a machine with two devices."""
    monkeypatch.setattr(cuda_on_cpu.machine, "devices", 2)
    found = cuda_on_cpu.load()
    if isinstance(found, str):
        pytest.skip(found)
    return type(found)


def raises(error: Exception) -> Any:
    def fails(*arguments: Any, **more: Any) -> Any:
        raise error

    return fails


def runtime() -> Any:
    return cuda_on_cpu.module("cupy_kernels.devices").runtime


def test_a_class_for_each_of_several_devices(cupy_kind: Any) -> None:
    first, second = cupy_kind.at(0), cupy_kind.at(1)
    assert (first.name, second.name) == ("cupy", "cupy:1")
    assert cupy_kind.at(1) is second
    assert first.unusable() is None
    assert second.unusable() is None
    for kind, device in ((first, 0), (second, 1)):
        backend = kind()
        a = backend.asarray(np.ones((2, 3), np.float32))
        made = backend.add(a, backend.full(shape=(2, 3), dtype=a.dtype, value=2.0))
        assert (a.device.id, made.device.id) == (device, device)
        assert backend.reshape(made, shape=(3, 2)).device.id == device
        assert backend.to_numpy(made).tolist() == [[3.0] * 3] * 2
        assert cuda_on_cpu.machine.local.device == 0
        assert backend.details()["device"].startswith("A CPU that stands in for a GPU")


def test_the_methods_of_a_device_are_as_the_contract_has_them(cupy_kind: Any) -> None:
    second = cupy_kind.at(1)
    for name in (*kernel_names(), "asarray", "to_numpy", "prepared", "check_index", "explain"):
        ours, contracts = getattr(second, name), getattr(cupy_kind, name)
        assert inspect.signature(ours) == inspect.signature(contracts), name
        for mark in ("kind", "writes"):
            assert getattr(ours, mark, None) == getattr(contracts, mark, None), (name, mark)


def test_what_lies_on_another_device_is_brought(cupy_kind: Any) -> None:
    first, second = cupy_kind.at(0)(), cupy_kind.at(1)()
    x = first.asarray(np.arange(3.0))
    moved = second.asarray(x)
    assert (x.device.id, moved.device.id) == (0, 1)
    assert second.to_numpy(moved).tolist() == [0.0, 1.0, 2.0]
    assert second.asarray(moved) is moved


def test_one_device_has_no_class_of_its_own(
    cupy_kind: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cuda_on_cpu.machine, "devices", 1)
    assert cupy_kind.at(0) is cupy_kind
    assert cupy_kind.at(1) == (
        "there is no device 1; mend it with: 'cupy:0' (A CPU that stands in for a GPU)"
    )


def test_steps_that_are_prepared_run_on_their_device(cupy_kind: Any) -> None:
    backend = cupy_kind.at(1)()
    x, y = (backend.asarray(np.ones(3, np.float32)) for _ in "xy")
    for run in backend.prepared([Step("add", [x, x], {}, y)]):
        run()
    assert backend.to_numpy(y).tolist() == [2.0] * 3


@pytest.mark.parametrize(
    ("status", "newest", "built", "said"),
    [
        (
            35,
            0,
            13020,
            "there is no NVIDIA driver; mend it with: NVIDIA's driver, if there is a GPU",
        ),
        (
            35,
            12040,
            13020,
            "NVIDIA's driver is for CUDA 12.4, and CuPy for CUDA 13.2; mend it with: a new NVIDIA "
            "driver, or pip uninstall cupy-cuda13x, then pip install 'tinygrad_mnist[cuda12]'",
        ),
        (
            35,
            11040,
            12080,
            "NVIDIA's driver is for CUDA 11.4, and CuPy for CUDA 12.8; mend it with: a new NVIDIA "
            "driver",
        ),
        (100, 13000, 13020, "CUDA finds no device; mend it with: an NVIDIA GPU"),
        (999, 13000, 13020, "CUDA does not start: 999; mend it with: nvidia-smi"),
    ],
)
def test_why_cupy_reaches_no_device(
    cupy_kind: Any,
    monkeypatch: pytest.MonkeyPatch,
    status: int,
    newest: int,
    built: int,
    said: str,
) -> None:
    there = runtime()
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setattr(there, "getDeviceCount", raises(there.CUDARuntimeError(status)))
    monkeypatch.setattr(there, "driverGetVersion", lambda: newest)
    monkeypatch.setattr(there, "runtimeGetVersion", lambda: built)
    assert cupy_kind.unusable().startswith(said)
    assert cupy_kind.at(1) == cupy_kind.unusable()


def test_devices_that_are_hidden(cupy_kind: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cuda_on_cpu.machine, "devices", 0)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "7")
    assert cupy_kind.unusable() == (
        "CUDA finds no device while CUDA_VISIBLE_DEVICES is '7'; mend it with: unset "
        "CUDA_VISIBLE_DEVICES"
    )


def test_a_cupy_that_is_too_old(cupy_kind: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    cupy = cuda_on_cpu.module("cupy_kernels.devices").cupy
    monkeypatch.setattr(cupy, "__version__", "13.6.0")
    assert cupy_kind.unusable() == (
        "CuPy is 13.6.0, expected 14 or later; mend it with: pip install -U "
        "'tinygrad_mnist[cuda13]'"
    )


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (ImportError("libcublas.so.13: cannot open"), "a product fails: ImportError: libcublas"),
        (RuntimeError("\nno nvrtc\nmore"), "a product fails: RuntimeError: no nvrtc; mend it"),
    ],
)
def test_libraries_that_are_missing(
    cupy_kind: Any, monkeypatch: pytest.MonkeyPatch, error: Exception, said: str
) -> None:
    monkeypatch.setattr(cupy_kind, "matmul", raises(error))
    found = cupy_kind.unusable()
    assert found.startswith(said)
    assert found.endswith("; mend it with: pip install 'tinygrad_mnist[cuda13]'")


def test_a_product_that_fails_or_is_wrong(cupy_kind: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    busy = runtime().CUDARuntimeError(46)
    monkeypatch.setattr(cupy_kind, "matmul", raises(busy))
    assert cupy_kind.unusable() == "a product fails: 46; mend it with: nvidia-smi, which says more"
    monkeypatch.setattr(
        cupy_kind, "matmul", lambda self, a, b: self.asarray(np.ones((2, 4), a.dtype))
    )
    found = cupy_kind.unusable()
    assert found.startswith("a product is wrong, it gives [[2.0,")


def test_memory_that_runs_out_is_explained(cupy_kind: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    backend = cupy_kind()
    monkeypatch.setitem(choice._loaded, "cupy", backend)
    x = tg.ones(1000, 1000, backend="cupy")
    monkeypatch.setattr(cuda_on_cpu.machine, "memory", 1 << 20)
    pool = cuda_on_cpu.module("cupy_kernels.devices").cupy.get_default_memory_pool()
    pool.set_limit(5 << 20)
    try:
        for makes in (lambda: x + x, lambda: tg.tensor(np.ones((2000, 1000)), backend="cupy")):
            with pytest.raises(MemoryError) as caught:
                makes()
            (note,) = caught.value.__notes__
            assert "Out of memory allocating" in str(caught.value)
            assert re.search(r"this program's pool holds [0-9.]+ GiB", note)
            assert "mend it with: a smaller batch, or drop tensors" in note
    finally:
        pool.set_limit(0)


# ---- what a PyTorch script asks


def test_a_device_is_its_name() -> None:
    assert tg.device("cuda", 1) == "cuda:1"
    assert tg.device("cpu") == tg.ones(1, backend="numpy").device
    assert isinstance(tg.device("cuda:1"), str)
    assert tg.ones(1, backend="numpy").to(tg.device("cpu", 0)).device == "cpu"


def test_waiting_for_a_gpu_raises_what_it_has_met(
    cupy_kind: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(choice._loaded, "cupy", cupy_kind())
    rows = tg.ones(3, 2, backend="cupy")
    wrong = rows[tg.tensor([0, 3], backend="cupy")]
    with pytest.raises(IndexError, match="found index 3, expected"):
        tg.cuda.synchronize()
    tg.cuda.synchronize("cuda:0")
    assert wrong.shape == (2, 2)


def test_waiting_for_no_gpu_is_an_error() -> None:
    if tg.cuda.is_available():
        pytest.skip("there is a GPU")
    assert tg.cuda.device_count() == 0
    with pytest.raises(BackendError, match=r"cuda\.synchronize: the device 3 is 'cupy:3'"):
        tg.cuda.synchronize(3)
