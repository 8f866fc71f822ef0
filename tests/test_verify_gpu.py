"""``examples/verify_gpu.py`` before it meets a card: on a stand-in for one, and on NumPy."""

from __future__ import annotations

import importlib
import json
import os
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import cuda_on_cpu
import numpy as np
import pytest

from tinygrad_mnist import cuda
from tinygrad_mnist.backends.numpy_backend import NumpyBackend
from tinygrad_mnist.kernels import Backend
from tinygrad_mnist.optional import MissingPackage, needed

ROOT = Path(__file__).resolve().parent.parent
SCRIPT = ROOT / "examples" / "verify_gpu.py"
PARTS = ["equality", "transfers", "capture", "trainings", "benchmark"]  # what can run in a process


@pytest.fixture(scope="module")
def script() -> Iterator[Any]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "path", [str(SCRIPT.parent), *sys.path])
        yield importlib.import_module("verify_gpu")


def run(*arguments: object, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, SCRIPT, *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=300,
        env=os.environ | {"OPENBLAS_NUM_THREADS": "1"} | environment,
    )


def read(path: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(path.read_text("utf-8"))
    return found


# ---- a card


@pytest.mark.skipif(cuda.is_available(), reason="there is a card")
def test_without_a_card_it_says_so_in_one_line(tmp_path: Path) -> None:
    done = run("--out", tmp_path / "found.json")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("verify_gpu: ")
    assert "'cupy'" in done.stderr
    assert done.stderr.count("\n") == 1
    assert not list(tmp_path.iterdir())


@contextmanager
def counted(backend: Backend) -> Iterator[dict[str, int]]:
    """What the stand-in sees."""
    found: dict[str, int] = {}
    with cuda_on_cpu.transfers() as seen:
        yield found
    for line in seen:
        kind = next(kind for kind in ("to the host", "to the device", "wait") if kind in line)
        kind = "waits" if kind == "wait" else kind
        found[kind] = found.get(kind, 0) + 1


def test_the_parts_on_a_stand_in(script: Any, tmp_path: Path, capsys: Any) -> None:
    backend = cuda_on_cpu.load()
    if isinstance(backend, str):
        pytest.skip(backend)
    out = tmp_path / "found.json"
    script.main(["--quick", "--out", str(out), "--parts", *PARTS], backend, counted=counted)
    found = read(out)
    told = capsys.readouterr().out
    assert list(found) == ["machine", *PARTS]
    assert found["machine"]["card"]["name"] == "A CPU that stands in for a GPU"
    for name in set(PARTS) - {"capture"}:
        assert found[name]["failures"] == [], told
    families, trainings = found["equality"]["families"], found["equality"]["trainings"]
    assert list(families) == ["products, cupy", "products, cupy jit"]
    assert all(each["cases"] > 300 for each in families.values())
    assert all(each["loss"] < 1e-4 for each in trainings.values())
    for name in ("mlp", "mlp, jit"):
        assert found["transfers"][name]["counted by"] == "the backend's own count"
        assert found["transfers"][name]["4 steps"] == {}
        assert found["transfers"][name]["4 batches"] == {}
    step = found["capture"]["mlp-32"]
    assert step["not equal"] == []
    assert step["graphs"] + len(step["outside"]) > 0
    for name in ("cnn", "mlp"):
        assert found["trainings"][name]["seconds"] > 0
    timed = found["benchmark"]["steps"]["mlp-32"]
    assert set(timed["columns"]) == {"plain", "jit"}
    assert timed["floor"]["operations"] == 2 * 32 * (2 * 784 * 128 + 3 * 128 * 10)
    assert timed["floor"]["as many empty nodes, µs"] > 0
    assert all(len(line) <= 200 for line in told.splitlines())
    assert len(told.splitlines()) < 60


# ---- its processes, on NumPy


def test_parts_run_in_processes_of_their_own(tmp_path: Path) -> None:
    """And what the file holds of others stays."""
    out = tmp_path / "found.json"
    out.write_text(json.dumps({"tests": {"totals": {"passed": 7}}}), "utf-8")
    done = run("--backend", "numpy", "--quick", "--out", out, "--parts", "equality", "capture")
    assert done.returncode == 0, done.stdout + done.stderr
    found = read(out)
    assert set(found) == {"machine", "tests", "equality", "capture"}
    assert found["tests"]["totals"] == {"passed": 7}
    assert set(found["equality"]["families"]) == {"products, numpy", "products, numpy jit"}
    assert found["capture"]["mlp-32"]["not equal"] == []
    assert found["capture"]["at"] and "under way" not in found["capture"]
    assert done.stdout.endswith("\npass\n")
    assert [path.name for path in tmp_path.iterdir()] == ["found.json"]


def test_the_suite_is_counted(tmp_path: Path) -> None:
    out = tmp_path / "found.json"
    done = run("--backend", "numpy", "--quick", "--out", out, "--parts", "tests")
    assert done.returncode == 0, done.stdout + done.stderr
    found = read(out)["tests"]
    assert found["totals"]["passed"] + found["totals"]["skipped"] == found["collected"] > 5
    assert found["failed"] == {}


def test_a_part_that_takes_too_long_is_stopped_and_told_of(tmp_path: Path) -> None:
    out = tmp_path / "found.json"
    parts = ("--limit", 3, "--parts", "equality", "capture")  # all of it: minutes
    done = run("--backend", "numpy", "--out", out, *parts)
    assert done.returncode == 1
    found = read(out)
    assert found["equality"]["failures"] == ["stopped after 3 s, its limit or what was left"]
    assert found["equality"]["seconds"] < 20
    assert found["capture"]["failures"] == ["not begun: there was no time left"]
    assert done.stdout.splitlines()[-1].startswith("fail: ")


class Broken(NumpyBackend):
    name = "broken"

    def relu(self, x: Any, *, out: Any = None) -> Any:
        raise MemoryError("no room")


def test_what_fails_stops_nothing_else(script: Any, tmp_path: Path, capsys: Any) -> None:
    out = tmp_path / "found.json"
    code = script.main(["--quick", "--out", str(out), "--parts", *PARTS], Broken())
    assert code == 1
    found = read(out)
    assert all(found[name]["failures"] for name in ("equality", "capture", "transfers"))
    assert "no room" in found["transfers"]["failures"][0]
    assert found["equality"]["families"]["products, broken"]["cases"] > 300
    assert capsys.readouterr().out.splitlines()[-1].startswith("fail: ")


def test_the_file_is_asked_for_first(tmp_path: Path) -> None:
    done = run("--backend", "numpy", "--quick", "--out", tmp_path / "none" / "found.json")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.endswith("found.json: No such file or directory\n")
    assert done.stderr.count("\n") == 1


def test_a_command_without_its_packages_fails_nothing(
    script: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A machine with a GPU may have NumPy and CuPy alone."""
    trainings = importlib.import_module("on_gpu.trainings")
    with pytest.raises(MissingPackage) as missing, needed("a checkpoint"):
        raise ModuleNotFoundError(name="filelock")
    work = script.Work(NumpyBackend())
    for said, failures in ((f"error: {missing.value}", 0), ("error: another", 1)):
        done = subprocess.CompletedProcess([], 1, "", said)
        monkeypatch.setattr(trainings.subprocess, "run", lambda *_, done=done, **__: done)
        assert trainings.as_command(work, "mlp")["output"] == [said]
        assert len(work.found.get("failures", ())) == failures


def test_shares_are_put_together(script: Any) -> None:
    shares = [
        {"totals": {"passed": 2}, "failures": ["a"]},
        {},
        {"totals": {"passed": 3, "failed": 1}},
    ]
    assert script.together(shares) == {"totals": {"passed": 5, "failed": 1}, "failures": ["a"]}
    made = json.loads(script.as_json({"x": [np.float32(1), float("nan")], "y": {1: np.int64(2)}}))
    assert made == {"x": [1.0, "nan"], "y": {"1": 2}}


# ---- counting CUDA's calls

CUPTI = r"""
#include <cstdint>
#include <cstddef>
extern "C" {
struct Data { int site; const char* name; const void* params; void* result; const char* symbol; };
struct Copy { void* to; const void* of; size_t count; int kind; void* stream; };
typedef void (*Callback)(void*, int, uint32_t, const Data*);
static Callback callback; static void* user; static int domains;
int cuptiSubscribe(void** subscriber, Callback c, void* u) { callback = c; user = u; return 0; }
int cuptiEnableDomain(uint32_t enable, void*, int domain) { domains |= enable << domain; return 0; }
int cuptiUnsubscribe(void*) { callback = 0; return 0; }
int cuptiGetResultString(int, const char** text) { *text = "?"; return 0; }
static void call(int domain, const char* name, const void* params, const char* inner) {
    Data data = {0, name, params, 0, 0};
    callback(user, domain, 0, &data);
    if (inner) call(1, inner, 0, 0);
    data.site = 1;
    callback(user, domain, 0, &data);
}
int some_work() {
    if (domains != 6) return 1;
    Copy up = {0, 0, 8, 1, 0}, down = {0, 0, 8, 2, 0};
    Copy across = {0, 0, 8, 3, 0}, any = {(void*)16, (void*)32, 8, 4, 0};
    Copy given = {(void*)16, (void*)48, 8, 4, 0};
    call(2, "cudaMemcpyAsync", &up, "cuMemcpyHtoDAsync_v2");
    call(2, "cudaMemcpyAsync", &down, "cuMemcpyDtoHAsync_v2");
    call(2, "cudaMemcpy", &across, 0);
    call(2, "cudaMemcpyAsync", &any, "cuMemcpyAsync");
    call(2, "cudaMemcpyAsync", &given, "cuMemcpyAsync");
    call(1, "cuMemcpyAsync", 0, 0);
    call(2, "cudaStreamSynchronize", 0, "cuStreamSynchronize");
    call(2, "cudaGraphLaunch", 0, 0);
    call(1, "cuMemcpyDtoH_v2", 0, 0);
    call(1, "cuLaunchKernel", 0, 0);
    return 0;
}
}
"""


def test_calls_are_counted_once_each(
    script: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By a library that calls back as CUPTI does."""
    if shutil.which("g++") is None:
        pytest.skip("g++ is not found")
    source, library = tmp_path / "cupti.cpp", tmp_path / "lib64" / "libcupti.so"
    library.parent.mkdir()
    source.write_text(CUPTI)
    subprocess.run(["g++", "-shared", "-fPIC", "-o", library, source], check=True)
    calls = importlib.import_module("on_gpu.calls")
    monkeypatch.setenv("CUDA_PATH", str(tmp_path))
    monkeypatch.setattr(calls.importlib.util, "find_spec", lambda name: None)
    monkeypatch.setattr(calls, "on_device", lambda pointer: pointer in (16, 32))
    counter = calls.Calls()
    assert counter.path == str(library)
    with counter.counted() as found:
        assert counter._library.some_work() == 0
    assert counter._library.some_work() == 0  # outside
    counter.close()
    assert found["cudaMemcpyAsync: to the device"] == 2
    assert calls.sorted_out(found) == {
        "to the device": 2, "to the host": 2, "direction unknown": 1, "waits": 1,
        "on the device": 2,
    }  # fmt: skip
    assert Counter(found).total() == 10


def test_without_cupti_it_says_why(
    script: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = importlib.import_module("on_gpu.calls")
    monkeypatch.setattr(calls, "_paths", lambda: iter([str(tmp_path / "libcupti.so")]))
    with pytest.raises(OSError, match=r"libcupti\.so: cannot open shared object file"):
        calls.Calls()


@pytest.mark.skipif(shutil.which("nvcc") is None, reason="nvcc is not found")
@pytest.mark.parametrize(("module", "name"), [("transfers", "GATE"), ("floor", "EMPTY")])
def test_its_own_kernels_compile(script: Any, module: str, name: str, tmp_path: Path) -> None:
    source = tmp_path / "own.cu"
    source.write_text(getattr(importlib.import_module(f"on_gpu.{module}"), name))
    out = str(tmp_path / "own.cubin")
    subprocess.run(["nvcc", "-cubin", "-arch=sm_90", "-o", out, str(source)], check=True)
