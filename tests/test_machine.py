"""The line over each table of figures."""

import datetime
import os
import platform
import subprocess
import sys

import numpy as np
import pytest

from tinygrad_mnist import config, machine


@pytest.fixture(autouse=True)
def nothing_steers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(config, "_GIVEN", {})


def test_it_says_where_when_and_with_what() -> None:
    found = machine.described("numpy", "pytest")
    parts = found.split(", ")
    assert parts[0] == machine.processor()
    assert parts[1] == f"{machine.cores()} cores"
    assert parts[2:] == [
        platform.system(),
        datetime.date.today().isoformat(),
        f"Python {platform.python_version()}",
        f"NumPy {np.__version__}",
        f"pytest {pytest.__version__}",
    ]


def test_it_says_what_the_environment_changes(monkeypatch: pytest.MonkeyPatch) -> None:
    given = {"OPENBLAS_CORETYPE": "Haswell", "OMP_NUM_THREADS": "3"}
    given |= {"NUMBA_CACHE_DIR": "/home/somebody"}  # where, not how
    monkeypatch.setattr(config, "_GIVEN", given)
    assert machine.described().endswith("; with OMP_NUM_THREADS=3 OPENBLAS_CORETYPE=Haswell")


def test_it_leaves_out_what_the_backends_and_their_libraries_set() -> None:
    pytest.importorskip("numba")
    script = """
import os
from tinygrad_mnist import ones
from tinygrad_mnist.machine import described
ones(300, 300, backend="numba").exp() @ ones(300, 300, backend="numba")
print(os.environ["GOMP_SPINCOUNT"], described())
"""
    steered = {
        name: os.environ[name] for name in os.environ if not name.startswith(machine.STEERING)
    }
    steered["OMP_NUM_THREADS"] = "2"
    said = subprocess.run(
        [sys.executable, "-c", script], env=steered, capture_output=True, text=True, check=True
    ).stdout
    assert said.startswith("1000 ")
    assert said.strip().endswith("; with OMP_NUM_THREADS=2")


def test_without_proc(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*arguments: object) -> str:
        raise FileNotFoundError

    monkeypatch.setattr(machine.Path, "read_text", refuse)
    monkeypatch.setattr(platform, "processor", lambda: "")
    assert machine.processor() == platform.machine()


def test_versions_by_title() -> None:
    assert machine.versions() == {"Python": platform.python_version()}
    found = machine.versions("numpy", "pytest")
    assert found == machine.versions() | {"NumPy": np.__version__, "pytest": pytest.__version__}
