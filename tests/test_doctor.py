"""The doctor: what it finds in sound and in broken installations, and how these are mended."""

from __future__ import annotations

import ctypes
import importlib.util
import os
import subprocess
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NoReturn

import pytest
from test_cli import MODULE, ROOT, TIMEOUT, environment
from test_datasets import write
from test_packaging import DEPENDENCIES

from tinygrad_mnist import backend, cli, config, doctor, driver, runs
from tinygrad_mnist.backend import Status
from tinygrad_mnist.backends.numpy_backend import NumpyBackend
from tinygrad_mnist.doctor import HINT, OK, WRONG, Finding
from tinygrad_mnist.optional import needed
from tinygrad_mnist.utils.data import fetch, sources


@pytest.fixture
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with tiny files; none in a cache, and no network."""

    def refuse(*arguments: object) -> NoReturn:
        raise AssertionError("something was fetched")

    monkeypatch.setattr(sources, "_cache_folder", lambda name: tmp_path / "home" / name)
    monkeypatch.setattr(fetch, "from_mirrors", refuse)
    monkeypatch.setattr(fetch, "from_npm", refuse)
    for name in config.beginning_with("TINYGRAD_MNIST_"):
        monkeypatch.delenv(name)
    return write(tmp_path / "files")


def marks(found: Iterator[Finding]) -> list[tuple[str, str]]:
    return [(each.mark, each.what) for each in found]


def wrong(found: Any) -> Finding:
    """The only one that is wrong; it says how to mend it."""
    (only,) = (each for each in found if each.mark == WRONG)
    assert only.mend
    return only


# ---- as a whole


def test_a_sound_installation(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "new" / "out"
    assert cli.main(["doctor", "--data", str(data), "--out", str(out)]) == 0
    said = capsys.readouterr()
    assert said.err == ""
    lines = said.out.splitlines()
    assert lines[-1] == "'train' can run here"
    assert not [line for line in lines if line.startswith(WRONG)]
    found = [line.split()[1] for line in lines if line.startswith(OK)]
    assert found[:5] == ["Python", "package", "packages", "variables", "backend"]
    assert found[-3:] == ["data", "--out", "cache"]
    assert {"numpy", "numba"} <= set(found)
    assert any("  numba          threading layer: " in line for line in lines)
    assert any("  numba          cache size: " in line for line in lines)
    assert not out.parent.exists()


BLOCKED = """
import os, sys
for name in os.environ["BLOCKED"].split():
    sys.modules[name] = None  # importing it fails
"""


NEEDED = sorted(DEPENDENCIES - doctor.NUMBAS - {"numpy", "tqdm"})


@pytest.mark.parametrize(
    ("missing", "code"), [(["numba", "scipy", "threadpoolctl", "tqdm"], 0), (NEEDED, 1)]
)
def test_without_packages(tmp_path: Path, missing: list[str], code: int) -> None:
    """NumPy alone is not among them: without it the package itself cannot be imported."""
    (tmp_path / "sitecustomize.py").write_text(BLOCKED)
    blocked = " ".join(doctor.MODULES.get(name, name) for name in missing)
    variables = {"PYTHONPATH": f"{tmp_path}{os.pathsep}{ROOT}", "BLOCKED": blocked}
    done = subprocess.run(
        [*MODULE, "doctor", "--data", write(tmp_path / "data")],
        cwd=tmp_path,
        env=environment(**variables),
        capture_output=True,
        text=True,
        timeout=TIMEOUT,
        check=False,
    )
    assert (done.returncode, done.stderr) == (code, "")
    lines = done.stdout.splitlines()
    assert f"{OK}  numpy          usable, its products are right" in lines
    for name in missing:
        (line,) = (i for i, text in enumerate(lines) if text == f"!!  {name:<13}  not installed")
        assert lines[line + 1].strip().startswith(f"mend it: pip install '{name}>=")
    stopping = set(lines[-1].partition("in its way: ")[2].split(", ")) if code else set()
    assert stopping == (set(missing) - doctor.AT_TIMES if code else set())


def test_a_check_that_breaks_is_its_own_finding(capfd: pytest.CaptureFixture[str]) -> None:
    def breaks() -> Iterator[Finding]:
        yield Finding(OK, "first", "fine")
        print("tinygrad_mnist: a line", file=sys.stderr)
        raise ModuleNotFoundError("No module named 'a.b'", name="a.b")

    first, broken, said = doctor._findings("check", breaks, needed=True)
    assert first.what == "first"
    text = "this check broke off: ModuleNotFoundError: No module named 'a.b'"
    assert broken == Finding(WRONG, "check", text, "pip install a", stops=True)
    assert said == Finding(HINT, "check", "a line")
    assert capfd.readouterr().err == ""


def test_a_check_that_needs_a_missing_package() -> None:
    def breaks() -> Iterator[Finding]:
        with needed("a picture"):
            raise ModuleNotFoundError("No module named 'PIL'", name="PIL")
        yield

    (found,) = doctor._findings("check", breaks)
    text = "a picture needs the package Pillow, which is not installed"
    assert found == Finding(WRONG, "check", text, "pip install Pillow")


def test_a_warning_is_one_finding() -> None:
    def warns() -> Iterator[Finding]:
        for _ in range(2):
            warnings.warn("odd\nTraceback\n  File", stacklevel=1)
        yield Finding(OK, "first", "fine")

    assert list(doctor._findings("check", warns))[1:] == [Finding(HINT, "check", "odd")]


@pytest.mark.parametrize(
    ("variable", "begin"),
    [
        ("NUMBA_NUM_THREADS=abc", "--  packages       Environment variable 'NUMBA_NUM_THREADS' is"),
        ("NUMBA_THREADING_LAYER=foo", "--  numba          threading layer: none: The threading"),
        ("NUMBA_DISABLE_JIT=1", "--  numba          threading layer: none: NUMBA_DISABLE_JIT is"),
    ],
)
def test_numbas_variables_that_are_in_its_way(tmp_path: Path, variable: str, begin: str) -> None:
    pytest.importorskip("numba")
    name, _, value = variable.partition("=")
    done = subprocess.run(
        [*MODULE, "doctor", "--data", write(tmp_path / "data")],
        cwd=tmp_path,
        env=environment(**{name: value}),
        capture_output=True,
        text=True,
        timeout=TIMEOUT,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    lines = done.stdout.splitlines()
    (first,) = (i for i, line in enumerate(lines) if line.startswith(begin))
    mends = (line.strip() for line in lines[first + 1 : first + 4])
    assert f"mend it: unset {name}" in mends
    assert "Traceback" not in done.stdout


def test_lines_fit_a_narrow_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "60")
    shown = doctor._shown(Finding(WRONG, "what", "word " * 30, "do this"))
    lines = shown.split("\n")
    assert max(map(len, lines)) <= 60
    assert lines[0].startswith("!!  what           word word")
    assert lines[-1] == " " * 19 + "mend it: do this"


# ---- packages and variables


def test_the_packages_are_those_that_it_declares() -> None:
    assert {name for name, _ in doctor._requirements()} == DEPENDENCIES
    assert dict(doctor._requirements())["numpy"] == "2.0"
    known = DEPENDENCIES | {"tbb"}  # which is for some machines only
    assert known >= doctor.NUMBAS | doctor.AT_TIMES


def test_a_package_that_is_too_old(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "_declared", lambda: ["numpy>=99.1", 'tbb>=1; extra == "x"'])
    found = wrong(doctor._packages())
    assert (found.what, found.stops, found.mend) == ("numpy", True, "pip install 'numpy>=99.1'")
    assert found.text.endswith(", expected 99.1 or later")
    assert doctor._numbers("2.10.0rc1") > doctor._numbers("2.9")


def test_variables_that_mean_nothing(monkeypatch: pytest.MonkeyPatch, data: Path) -> None:
    monkeypatch.setenv("TINYGRAD_MNIST_BAKEND", "numpy")
    found = wrong(doctor._variables())
    assert found.mend == "unset TINYGRAD_MNIST_BAKEND"
    assert config.BACKEND in found.text
    monkeypatch.delenv("TINYGRAD_MNIST_BAKEND")
    for switch in (config.PROFILE, config.TF32):
        monkeypatch.setenv(switch, "yes")
        assert wrong(doctor._variables()).mend == f"unset {switch}"
        monkeypatch.delenv(switch)


# ---- backends


def test_a_backend_that_cannot_be_had(
    data: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv(config.BACKEND, "numpi")
    assert doctor.examine(str(data), str(data.parent)) == 1
    said = capsys.readouterr().out
    assert "Did you mean 'numpy'?" in " ".join(said.split())
    assert f"mend it: export {config.BACKEND}=auto" in said
    assert said.endswith("'train' cannot run here; in its way: backend\n")


class WrongBackend(NumpyBackend):
    """Its products are off by a thousandth, and its details fail."""

    name = "wrong"

    def linear(self, *arrays: Any, **static: Any) -> Any:
        return super().linear(*arrays, **static) * 1.001

    def details(self) -> dict[str, str]:
        raise OSError("no details")


@pytest.mark.parametrize("chosen", ["wrong", "numpy"])
def test_a_backend_with_wrong_products(
    monkeypatch: pytest.MonkeyPatch, data: Path, chosen: str
) -> None:
    monkeypatch.setitem(backend._BUILTIN, "wrong", "test_doctor:WrongBackend")
    monkeypatch.setattr(backend, "_loaded", dict(backend._loaded))
    monkeypatch.setenv(config.BACKEND, chosen)
    products, details = (f for f in doctor._backends() if f.mark == WRONG)
    assert products.text.startswith("its products are wrong, by up to 0.00")
    assert products.stops == (chosen == "wrong")
    assert (details.text, details.stops) == (
        "this check broke off: OSError: no details",
        False,
    )


def test_what_a_backend_lacks_is_a_hint(monkeypatch: pytest.MonkeyPatch) -> None:
    def details(self: NumpyBackend) -> dict[str, str]:
        return {"compiled": "0", "threads": "2", "cache": "none, so each start compiles again"}

    monkeypatch.setattr(NumpyBackend, "details", details)
    threads, cache = doctor._details("numpy")
    assert threads == Finding(OK, "numpy", "threads: 2")
    assert (cache.mark, cache.mend.split("=")[0]) == (HINT, "export NUMBA_CACHE_DIR")


def test_cuda_is_told_of_and_no_fault() -> None:
    first, *_ = doctor._cuda()
    try:
        ctypes.CDLL("libcuda.so.1")
    except OSError:
        assert (first.mark, first.text) == (HINT, "no CUDA driver: no GPU backend")
    else:
        assert first.mark in (OK, HINT)
    assert not first.stops


@pytest.mark.parametrize(
    ("installed", "answer", "mark"),
    [(True, None, HINT), (True, driver.NO_DEVICE, HINT), (False, 0, HINT), (True, 0, WRONG)],
)
def test_cupy_is_wrong_only_where_it_is_and_a_gpu_too(
    monkeypatch: pytest.MonkeyPatch, data: Path, installed: bool, answer: int | None, mark: str
) -> None:
    there = None if answer is None else SimpleNamespace(cuInit=lambda flags: answer)
    monkeypatch.setattr(driver, "library", lambda: there)
    monkeypatch.setattr(driver, "has_cupy", lambda: installed)
    monkeypatch.setattr(
        doctor, "statuses", lambda: [Status("cupy", "it is broken; mend it with: glue")]
    )
    monkeypatch.setenv(config.BACKEND, "numpy")
    chosen, found = doctor._backends()
    assert chosen.mark == OK
    assert found == Finding(mark, "cupy", "not usable: it is broken", "glue")


def test_devices_that_are_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(driver, "library", lambda: object())
    monkeypatch.setattr(driver, "started", lambda: 0)
    monkeypatch.setattr(driver, "version", lambda: (13, 1))
    monkeypatch.setattr(driver, "devices", lambda: ["NVIDIA A, 80 GiB", "NVIDIA B, 24 GiB"])
    text = "driver for CUDA 13.1; device 0: NVIDIA A, 80 GiB; device 1: NVIDIA B, 24 GiB"
    assert list(doctor._cuda()) == [Finding(OK, "CUDA", text)]
    monkeypatch.setattr(driver, "started", lambda: 999)
    assert "(cuInit gives 999)" in wrong(doctor._cuda()).text
    monkeypatch.setattr(driver, "started", lambda: driver.NO_DEVICE)
    assert marks(doctor._cuda()) == [(HINT, "CUDA")]


def test_cupy_is_told_of_where_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if importlib.util.find_spec("cupy") is not None:
        pytest.skip("CuPy is installed, and not to be replaced")
    assert list(doctor._cupy()) == []
    (tmp_path / "cupy.py").write_text("__version__ = '14.0'")
    monkeypatch.syspath_prepend(tmp_path)
    assert list(doctor._cupy()) == [Finding(OK, "CuPy", "14.0")]
    sys.modules.pop("cupy")


# ---- folders


def test_data_of_a_chosen_folder(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    good, note = doctor._data(str(data))
    assert good == Finding(OK, "data", f"folder {data}: 12 and 5 images")
    assert (note.mark, "differ from the published" in note.text) == (HINT, True)
    monkeypatch.setenv(config.DATA, str(data))
    assert next(doctor._data(None)) == good
    (data / "t10k-labels-idx1-ubyte").write_bytes(b"\0\0\x08\x01\0\0")
    found = wrong(doctor._data(None))
    assert "truncated" in found.text
    assert (found.mend, found.stops) == ("get the file again", True)
    (data / "t10k-labels-idx1-ubyte").unlink()
    found = wrong(doctor._data(str(data)))
    assert "t10k-labels-idx1-ubyte" in found.text
    assert (found.mend, found.stops) == ("put them there, or name another folder", True)


def test_data_that_would_be_fetched_is_not_fetched(data: Path) -> None:
    (found,) = doctor._data(None)
    assert (found.mark, found.stops) == (HINT, False)
    assert found.text.endswith("does not hold the files): 'train' would fetch it")
    assert (found.mend, found.provided) == ("", ", if it can fetch the data")


def test_data_that_would_be_fetched_and_not_kept(
    data: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    file = data / "t10k-labels-idx1-ubyte"
    monkeypatch.setattr(sources, "_cache_folder", lambda name: file / name)
    assert doctor.examine(None, str(data.parent)) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "'train' would fetch it, and could not keep it (Not a directory) mend it: " in said
    assert f"export {config.DATA}=FOLDER" in said
    assert said.endswith("'train' can run here, if it can fetch the data")


def test_an_output_folder_that_cannot_be_written(
    data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = data / "t10k-labels-idx1-ubyte"
    found = wrong(doctor._out(str(file / "out"), ()))
    assert (found.mend, found.stops) == ("name another --out, which you can write", True)
    (data / "model.safetensors").mkdir()
    found = wrong(doctor._out(str(data), runs.FILES))
    assert (found.mend, found.stops) == ("remove it or name another --out", True)
    monkeypatch.setattr(doctor, "SPACE", 1e30)
    found = wrong(doctor._out(str(data), ()))
    assert (found.mend.split(",")[0], found.stops) == ("make space there", True)


def test_caches_that_cannot_be_written(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("NUMBA_CACHE_DIR", raising=False)
    assert marks(doctor._caches()) == [(OK, "cache")]
    file = data / "t10k-labels-idx1-ubyte"
    monkeypatch.setattr(sources, "_cache_folder", lambda name: file / "x" / name)
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(file / "y"))
    fetched, compiled = doctor._caches()
    assert (fetched.mark, fetched.text) == (
        HINT,
        f"{file / 'x'} cannot keep what is fetched: Not a directory",
    )
    assert config.DATA in fetched.mend
    assert (compiled.mark, compiled.mend) == (WRONG, "unset NUMBA_CACHE_DIR")
    assert not (fetched.stops or compiled.stops)
