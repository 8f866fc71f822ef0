"""Regions on threads: the same results as without, in forks, among threads, on every layer."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import sysconfig
from collections.abc import Iterator
from importlib import metadata, util
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("numba")

import numba
import numpy as np
from test_numba_kernels import (
    NUMBA,
    OVERRIDES,
    as_tuple,
    assert_close,
    assert_same,
    cases_of,
    copied,
    run,
)

from tinygrad_mnist.backends.numba_kernels import cache, threads
from tinygrad_mnist.contract import spec
from tinygrad_mnist.kernels import Step
from tinygrad_mnist.machine import cores

ROOT = Path(__file__).resolve().parents[1]
# How the work is divided decides how these round: sums by parts, products of other sizes, other
# elements at the end of a vectorised loop.
DIVIDED = {"sum", "matmul", "linear", "linear_dw", "conv2d_dw", "cross_entropy_grad"}
DIVIDED |= {"softmax", "softmax_grad", "log_softmax", "log_softmax_grad"}
TBB = util.find_spec("tbb") is not None or any(d.name == "tbb" for d in metadata.distributions())
OMP = util.find_spec("numba.np.ufunc.omppool") is not None
needs_tbb = pytest.mark.skipif(not TBB, reason="the package tbb is not installed")
needs_omp = pytest.mark.skipif(not OMP, reason="this Numba has no OpenMP")


# ---- any number of threads, in this process


def results(name: str) -> Iterator[tuple[Any, ...]]:
    """What the kernel gives, or has written, in each of its cases."""
    for arrays, static in cases_of(name, "float32"):
        given = copied(arrays)
        result = run(NUMBA, name, given, static)
        if spec(name).kind == "inplace":
            result = tuple(array for arrays in given for array in arrays)
        yield as_tuple(result)


@pytest.mark.parametrize("name", OVERRIDES)
def test_any_number_of_threads_gives_the_serial_result(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(threads, "WORTH", 0)
    monkeypatch.setattr(threads, "count", lambda: 1)
    serial = list(results(name))
    for count in (2, 3, 7):
        monkeypatch.setattr(threads, "count", lambda count=count: count)
        for found, again, expected in zip(results(name), results(name), serial, strict=True):
            assert_same(again, found)
            if name in DIVIDED:
                assert_close(found, expected, "float32")
            else:
                assert_same(found, expected)


@pytest.mark.skipif(bool(numba.config.DISABLE_JIT), reason="NUMBA_DISABLE_JIT is set")
def test_every_region_has_a_case(monkeypatch: pytest.MonkeyPatch) -> None:
    """A kernel that gets a region needs one in ``test_numba_kernels`` that reaches it."""
    monkeypatch.setattr(threads, "WORTH", 0)
    monkeypatch.setattr(threads, "count", lambda: 2)
    for name in OVERRIDES:
        list(results(name))
    x = np.ones(9, np.float32)
    (function,) = NUMBA.prepared([Step("relu", [x], {}, x)])
    function()  # the region of all programs
    regions = [each for each in cache.kernels if each.targetoptions.get("parallel")]
    assert len(regions) > 10
    assert [each.__name__ for each in regions if not each.signatures] == []


# ---- Numba's variables and layers, each in a process of its own

PROGRAM = """
import json, os
import numpy as np
from threadpoolctl import threadpool_info
from tinygrad_mnist.backends.numba_backend import NumbaBackend
from tinygrad_mnist.backends.numba_kernels import threads
from tinygrad_mnist.backends.numpy_backend import NumpyBackend

random = np.random.default_rng(0)
x, weight, dY, bias = (
    random.standard_normal(shape).astype(np.float32)
    for shape in ((600, 300), (128, 300), (600, 128), 128)
)
NUMBA, NUMPY = NumbaBackend(), NumpyBackend()

def results(backend):
    yield "relu", backend.relu(x)
    yield "linear", backend.linear(x, weight, bias)
    yield "linear_dw", backend.linear_dw(dY, x)
    yield "sum", backend.sum(x, dim=(0,), keepdim=False)
    yield "uniform", backend.uniform(shape=x.shape, key=7, dtype=x.dtype)

def bits():
    return {name: result.tobytes() for name, result in results(NUMBA)}

def blas():
    pools = [each for each in threadpool_info() if each["user_api"] == "blas"]
    return {each["filepath"]: each["num_threads"] for each in pools}

def state():
    for (name, ours), (_, theirs) in zip(results(NUMBA), results(NUMPY), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-3, err_msg=name)
    assert bits() == bits()
    name, reason, _ = threads.layer()
    return {"layer": name, "reason": reason, "threads": threads.count()}

def say(value):
    print(json.dumps(value), flush=True)
"""


def program(code: str, *options: str, path: str = str(ROOT), **variables: str) -> list[Any]:
    """What the program, followed by ``code``, says."""
    ours = ("NUMBA_NUM_THREADS", "NUMBA_THREADING_", "NUMBA_DISABLE_JIT", "OPENBLAS_NUM_THREADS")
    clean = {k: v for k, v in os.environ.items() if not k.startswith(ours)}
    done = subprocess.run(
        [sys.executable, *options, "-c", PROGRAM + code],
        env={**clean, "PYTHONPATH": path, **variables}, cwd=ROOT, capture_output=True, text=True,
        check=False, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert [
        line for line in done.stderr.splitlines() if "compiling Numba kernels" not in line
    ] == []
    return [json.loads(line) for line in done.stdout.splitlines()]


SAY = "say(state())\n"
FORK = """
say(state())
before = bits()
if not (child := os.fork()):
    same = bits()
    say({**state(), "same": [name for name in same if same[name] == before[name]]})
    os._exit(0)
assert os.waitpid(child, 0)[1] == 0
assert bits() == before
"""


@needs_tbb
def test_tbb_is_taken_and_as_many_threads_as_cores() -> None:
    assert program(SAY) == [{"layer": "tbb", "reason": "", "threads": cores()}]


@pytest.mark.parametrize(("asked", "given"), [(1, 1), (64, cores())])
def test_numba_num_threads_is_the_most(asked: int, given: int) -> None:
    (found,) = program(SAY, NUMBA_NUM_THREADS=str(asked))
    assert found["threads"] == given


@pytest.mark.parametrize("layer", ["workqueue", "nonsense"])
def test_a_layer_that_regions_do_not_run_on_leaves_one_thread(layer: str) -> None:
    (found,) = program(SAY, NUMBA_THREADING_LAYER=layer)
    assert (found["layer"], found["threads"]) == (None, 1)
    assert layer in found["reason"]


def test_without_compiling_there_is_one_thread() -> None:
    (found,) = program(SAY, NUMBA_DISABLE_JIT="1")
    assert found == {"layer": None, "reason": "NUMBA_DISABLE_JIT is set", "threads": 1}


@needs_tbb
def test_a_fork_has_the_threads_of_tbb_and_its_results() -> None:
    parent, child = program(FORK)
    assert child.pop("same") == ["relu", "linear", "linear_dw", "sum", "uniform"]
    assert child == parent


@needs_omp
def test_a_fork_under_openmp_goes_on_with_one_thread() -> None:
    """With more, OpenMP would end it."""
    parent, child = program(FORK, NUMBA_THREADING_LAYER="omp")
    assert (parent["layer"], parent["threads"]) == ("omp", cores())
    assert child["threads"] == 1
    assert {"relu", "uniform"} <= set(child["same"])


@needs_omp
def test_openmp_is_taken_where_tbb_is_not_installed(tmp_path: Path) -> None:
    """The installed packages but for tbb's, in a folder that takes the place of site-packages."""
    for folder in {sysconfig.get_path("purelib"), sysconfig.get_path("platlib")}:
        for entry in Path(folder).iterdir():
            if not entry.name.startswith(("tbb", "__pycache__")):
                tmp_path.joinpath(entry.name).symlink_to(entry)
    (found,) = program(SAY, "-S", path=f"{ROOT}{os.pathsep}{tmp_path}")
    assert (found["layer"], found["threads"]) == ("omp", cores())


@pytest.mark.parametrize(
    "layer",
    [pytest.param("tbb", marks=needs_tbb), pytest.param("omp", marks=needs_omp), "workqueue"],
)
def test_threads_of_the_program_get_the_bits_that_each_gets_alone(layer: str) -> None:
    code = """
from concurrent.futures import ThreadPoolExecutor

alone = bits()
with ThreadPoolExecutor(6) as pool:
    together = list(pool.map(lambda _: bits(), range(60)))
say([found == alone for found in together])
"""
    assert program(code, NUMBA_THREADING_LAYER=layer) == [[True] * 60]


def test_threads_that_come_first_at_once_agree() -> None:
    """Two threads that start the layer, and load or compile the kernels, at the same time."""
    code = """
import threading

barrier, found = threading.Barrier(4), []
def first():
    barrier.wait()
    found.append(bits())
started = [threading.Thread(target=first) for _ in range(4)]
[each.start() for each in started], [each.join() for each in started]
say([each == bits() for each in found])
"""
    assert program(code) == [[True] * 4]


def test_spawned_processes_agree(tmp_path: Path) -> None:
    script = tmp_path / "spawned.py"
    script.write_text(
        PROGRAM + "import multiprocessing\n"
        "def work(_):\n    return state(), bits()\n"
        "if __name__ == '__main__':\n"
        "    here = state(), bits()\n"
        "    with multiprocessing.get_context('spawn').Pool(2) as pool:\n"
        "        say([found == here for found in pool.map(work, range(4))])\n"
    )
    done = subprocess.run(
        [sys.executable, str(script)],
        env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True,
        check=False, timeout=300,
    )  # fmt: skip
    assert json.loads(done.stdout) == [True] * 4, done.stderr


def test_only_scipys_blas_is_held_at_one_thread() -> None:
    (before, after) = program(
        "import scipy.linalg.cython_blas\nsay(blas())\nbits()\nsay(blas())\n",
        OPENBLAS_NUM_THREADS="2",
    )
    held = {file for file in after if after[file] != before[file]}
    assert before.keys() == after.keys()
    assert held == {file for file in before if "scipy.libs" in file}
    assert {after[file] for file in held} == {1}


OTHER = """
import numba

@numba.njit(parallel=True)
def other(x):
    for i in numba.prange(x.size):
        x[i] += 1

"""


@needs_omp
def test_openmp_that_other_code_started_is_left_alone() -> None:
    """Its threads would spin between our regions, and it ends a forked child that uses them."""
    first = f"{OTHER}other(np.zeros(9))\n"
    code = "say(state())\nif not (child := os.fork()):\n    bits()\n    os._exit(0)\n"
    code += "say(os.waitpid(child, 0)[1])\n"
    (found, ended) = program(first + code, NUMBA_THREADING_LAYER="omp")
    assert (found["layer"], found["threads"], ended) == (None, 1, 0)
    assert "other code started OpenMP" in found["reason"]


@needs_tbb
def test_other_parallel_code_finds_tbb_too() -> None:
    (found,) = program(f"{OTHER}other(np.zeros(9))\nsay(state())\n")
    assert (found["layer"], found["threads"]) == ("tbb", cores())


def test_a_limit_of_the_programs_own_does_not_undo_the_hold() -> None:
    code = """
from threadpoolctl import threadpool_limits
import scipy.linalg.cython_blas

with threadpool_limits(1):
    bits()
bits()
say(blas())
with threadpool_limits(2):
    bits()
    say(blas())
"""
    for found in program(code, OPENBLAS_NUM_THREADS="2"):
        assert {found[file] for file in found if "scipy.libs" in file} == {1}


def test_openmps_threads_are_told_to_rest() -> None:
    assert program("say(os.environ['GOMP_SPINCOUNT'])\n") == ["1000"]
    assert program("say(os.environ['GOMP_SPINCOUNT'])\n", GOMP_SPINCOUNT="7") == ["7"]
