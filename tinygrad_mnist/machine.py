"""Where a figure was measured: the line that stands over each table."""

from __future__ import annotations

import importlib.metadata
import os
import platform
from datetime import date
from pathlib import Path

from tinygrad_mnist import config

# By which other libraries choose threads and kernels, and so the speed of ours.
STEERING: tuple[str, ...]
STEERING = ("OPENBLAS_", "GOTO_", "OMP_", "GOMP_", "KMP_", "MKL_", "BLIS_", "VECLIB_", "ONEDNN_")
STEERING += ("NPY_DISABLE_", "NPY_ENABLE_", "NUMBA_NUM_", "NUMBA_THREADING_", "NUMBA_CPU_")
STEERING += ("NUMBA_DISABLE_JIT", "NUMBA_OPT", "ATEN_CPU_", "TF_NUM_", "TF_ENABLE_", "XLA_FLAGS")
STEERING += ("KERAS_BACKEND",)

TITLES = {"numpy": "NumPy", "numba": "Numba", "torch": "PyTorch", "jax": "JAX", "keras": "Keras"}


def described(*packages: str) -> str:
    """The processor, the cores this process may use, the date, and the versions of ``packages``.

    What the user told libraries of threads and processors by the environment follows, as it changes
    figures.
    """
    parts = [
        processor(),
        f"{cores()} cores",
        platform.system(),
        date.today().isoformat(),
        *(f"{title} {version}" for title, version in versions(*packages).items()),
    ]
    return ", ".join(parts) + _steering()


def calculating() -> str:
    """What the last digits of results depend on: processor, cores, and the environment."""
    return f"{processor()}, {cores()} cores{_steering()}"


def _steering() -> str:
    steering = [f"{name}={value}" for name, value in config.given(STEERING).items()]
    return f"; with {' '.join(steering)}" if steering else ""


def versions(*packages: str) -> dict[str, str]:
    """The versions of Python and of installed ``packages``, by their titles.

    importlib.metadata.PackageNotFoundError for one that is not installed.
    """
    found = {TITLES.get(name, name): importlib.metadata.version(name) for name in packages}
    return {"Python": platform.python_version(), **found}


def cores() -> int:
    """How many cores this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def processor() -> str:
    """The processor's name as the system has it."""
    try:
        lines = Path("/proc/cpuinfo").read_text("utf-8").splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()
