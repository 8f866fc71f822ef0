"""The cache of compiled kernels, in processes of their own: what is kept, lost, damaged, shared."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

numba = pytest.importorskip("numba")

ROOT = Path(__file__).resolve().parents[1]
# relu for the dtypes given, checked; what was compiled and loaded goes to stdout.
PROGRAM = """
import sys
import numpy as np
from tinygrad_mnist.backends.numba_backend import NumbaBackend

backend = NumbaBackend()
for dtype in sys.argv[1:]:
    x = np.linspace(-2, 3, 50).astype(dtype)
    np.testing.assert_array_equal(backend.relu(x), x.clip(0), strict=True)
for name, text in backend.details().items():
    print(name, "=", text)
"""
PATIENCE = "from tinygrad_mnist.backends.numba_kernels import cache\ncache.PATIENCE = {}\n"
IMPATIENT = PATIENCE.format(0.0)
ONE = "1 kernel"


def environment(cache: Path | str, **variables: str) -> dict[str, str]:
    clean = {k: v for k, v in os.environ.items() if not k.startswith(("NUMBA_", "TINYGRAD_"))}
    return {**clean, "PYTHONPATH": str(ROOT), "NUMBA_CACHE_DIR": str(cache), **variables}


def python(code: str, cache: Path | str, *dtypes: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-W", "error", "-c", code, *dtypes],
        env=environment(cache),
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def finished(process: subprocess.Popen[str]) -> tuple[dict[str, str], list[str]]:
    """What a program that agreed printed of the backend, and the lines of its error stream."""
    out, errors = process.communicate(timeout=300)
    assert process.returncode == 0, errors
    pairs = (line.split(" = ") for line in out.splitlines())
    return dict(pairs), errors.splitlines()


def run(cache: Path | str, *dtypes: str, first: str = "") -> tuple[dict[str, str], list[str]]:
    """The program on a cache, after ``first``; that something is compiled is not told of."""
    code = PATIENCE.format(1e9) + first + PROGRAM
    return finished(python(code, cache, *(dtypes or ("float32",))))


def files(cache: Path, kind: str) -> list[Path]:
    return sorted(cache.rglob(f"*.{kind}"))


def test_what_is_compiled_is_kept_in_a_folder_that_is_made(tmp_path: Path) -> None:
    cache = tmp_path / "not" / "yet"
    found, errors = run(cache, "float32", "float64")
    assert errors == []
    assert found["compiled"].startswith("2 kernels in ")
    assert found["compiled"].endswith(": relu (2)")
    assert found["loaded"] == "0 kernels"
    assert found["cache"].startswith(f"{cache}{os.sep}")
    assert found["cache"].endswith(": warm, 2 kernels")
    again, errors = run(cache, "float32", "float64")
    assert errors == []
    assert (again["compiled"], again["loaded"]) == ("0 kernels", "2 kernels: relu (2)")


def test_a_cold_cache_is_said_to_be_cold(tmp_path: Path) -> None:
    done = python(PROGRAM, tmp_path)
    found, errors = finished(done)
    assert errors == []
    assert (found["compiled"], found["loaded"]) == ("0 kernels", "0 kernels")
    assert found["cache"].endswith(": cold, 0 kernels")


def test_who_waits_is_told_once_for_what_and_how_to_have_it_done_before(tmp_path: Path) -> None:
    _, errors = finished(python(IMPATIENT + PROGRAM, tmp_path, "float32", "float64"))
    (line,) = errors
    assert line.startswith("tinygrad_mnist: compiling Numba kernels, each at its first use, now ")
    assert f"relu; this happens once: they are kept in {tmp_path}" in line
    assert line.endswith("'python -m tinygrad_mnist warmup' does it beforehand")
    _, errors = finished(python(IMPATIENT + PROGRAM, tmp_path, "float32", "float64"))
    assert errors == []


@pytest.mark.skipif(
    not hasattr(numba.config, "CACHE_LOCATOR_CLASSES"), reason="this Numba always finds a folder"
)
def test_who_waits_where_nothing_is_kept_is_told_that_it_happens_each_time() -> None:
    nowhere = (
        "from numba import config\nconfig.CACHE_LOCATOR_CLASSES = 'UserProvidedCacheLocator'\n"
    )
    found, errors = finished(python(nowhere + IMPATIENT + PROGRAM, "/dev/null/x", "float32"))
    assert found["cache"].startswith("none")
    assert len(errors) == 2
    assert "compiled kernels cannot be kept for the next start: " in errors[0]
    assert "now relu; this happens at each start." in errors[1]


# ---- trouble


DAMAGES = {
    "cut": lambda content: content[: len(content) // 2],
    "empty": lambda content: b"",
    "zeros": lambda content: content[:20] + bytes(len(content) - 20),
    "text": lambda content: b"I am no kernel",
}


@pytest.mark.parametrize("kind", ["nbi", "nbc"], ids=["index", "code"])
@pytest.mark.parametrize(
    "damage",
    [pytest.param(d, marks=() if d == "cut" else pytest.mark.slow) for d in DAMAGES],
)
def test_a_damaged_file_is_told_of_and_made_anew(tmp_path: Path, damage: str, kind: str) -> None:
    run(tmp_path)
    (file,) = files(tmp_path, kind)
    file.write_bytes(DAMAGES[damage](file.read_bytes()))
    found, errors = run(tmp_path)
    assert found["compiled"].startswith(ONE)
    (line,) = errors
    assert line.startswith("tinygrad_mnist: compiled kernels in the cache are damaged")
    assert str(tmp_path) in line
    found, errors = run(tmp_path)
    assert errors == []
    assert (found["compiled"], found["loaded"]) == ("0 kernels", f"{ONE}: relu")


def test_the_code_of_another_signature_is_not_run(tmp_path: Path) -> None:
    """What two processes can leave that each fill the first place of a kernel's index."""
    single, double = tmp_path / "single", tmp_path / "double"
    run(single, "float32")
    run(double, "float64")
    (wrong,), (right,) = files(single, "nbc"), files(double, "nbc")
    right.write_bytes(wrong.read_bytes())
    found, errors = run(double, "float64")
    assert errors == []
    assert found["compiled"].startswith(ONE)
    assert run(double, "float64")[0]["loaded"] == f"{ONE}: relu"


def test_two_processes_that_fill_the_cache_at_once_are_both_right(tmp_path: Path) -> None:
    dtypes = ["float32", "float64"]
    both = [python(PROGRAM, tmp_path, *order) for order in (dtypes, dtypes[::-1])]
    for process in both:
        _, errors = finished(process)
        assert [line for line in errors if "compiling Numba kernels" not in line] == []
    run(tmp_path, *dtypes)
    found, errors = run(tmp_path, *dtypes)
    assert errors == []
    assert found["loaded"] == "2 kernels: relu (2)"


def test_a_disk_that_takes_no_more_is_one_line(tmp_path: Path) -> None:
    """The limit on a file's size: the index has room, the code has none."""
    limit = "import resource\nresource.setrlimit(resource.RLIMIT_FSIZE, (2000, 2000))\n"
    found, errors = run(tmp_path, "float32", "float64", first=limit)
    (line,) = errors
    assert line.startswith("tinygrad_mnist: compiled kernels cannot be kept for the next start: ")
    assert found["compiled"].startswith("2 kernels")
    assert found["cache"].endswith("cold, 0 kernels")


def test_code_of_older_sources_is_never_taken(tmp_path: Path) -> None:
    """Numba writes the index before the code; on a full disk the old code would stay beside it."""
    edited = (
        "from tinygrad_mnist.backends.numba_kernels import cache\ncache.SOURCES.append('new')\n"
    )
    limit = "import resource\nresource.setrlimit(resource.RLIMIT_FSIZE, (2000, 2000))\n"
    run(tmp_path, "float32")
    found, _ = run(tmp_path, "float32", first=limit + edited)
    assert found["compiled"].startswith("1 kernel")
    for kind in ("compiled", "loaded"):
        found, errors = run(tmp_path, "float32", first=edited)
        assert found[kind].startswith("1 kernel"), found
        assert errors == []
    found, errors = run(tmp_path, "float32")
    assert errors == []
    assert found["cache"].endswith(f"warm, {ONE}")


@pytest.mark.parametrize("kind", ["below a file", "read-only"])
def test_a_folder_that_cannot_be_written_is_one_line(tmp_path: Path, kind: str) -> None:
    cache = tmp_path / "cache"
    if kind == "below a file":
        tmp_path.joinpath("file").touch()
        cache = tmp_path / "file" / "cache"
    elif not hasattr(os, "geteuid") or os.geteuid() == 0:
        pytest.skip("root may write all")
    else:
        cache.mkdir()
        cache.chmod(0o500)
    found, errors = run(cache)
    (line,) = errors
    assert line.startswith(f"tinygrad_mnist: NUMBA_CACHE_DIR cannot be written: {cache}; ")
    folder, _, _ = found["cache"].partition(": ")
    assert line.endswith(f"compiled kernels are kept in {folder}")
