"""The line over each table of figures."""

import datetime
import platform

import numpy as np
import pytest

from tinygrad_mnist import config, machine


@pytest.fixture(autouse=True)
def nothing_steers(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in config.beginning_with(machine.STEERING):
        monkeypatch.delenv(name)


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
    monkeypatch.setenv("OPENBLAS_CORETYPE", "Haswell")
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    monkeypatch.setenv("NUMBA_CACHE_DIR", "/home/somebody")  # where, not how
    assert machine.described().endswith("; with OMP_NUM_THREADS=3 OPENBLAS_CORETYPE=Haswell")


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
