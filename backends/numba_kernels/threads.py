"""How many threads a kernel's parallel region has, and the libraries that decide it.

A region's ``prange`` gives each thread a range of a kernel's work. What enters is how much work
there is, what leaves is how many threads divide it; only the Numba backend asks.

Regions run on tbb where PyPI's package is installed, else on OpenMP. There is one thread where
Numba has only workqueue, which aborts when two threads of the program call it; where other code
started OpenMP, whose idle threads then never rest and which kills a forked child; and where SciPy's
BLAS, whose products the regions call, cannot be held at one thread apart from NumPy's: two pools
inside each other wait for each other.
"""

from __future__ import annotations

import ctypes
import os
from contextlib import suppress
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any, NamedTuple

import numba
import scipy  # noqa: F401 - here, so that a backend without it says so at once
from threadpoolctl import ThreadpoolController, threadpool_info

from tinygrad_mnist import config

_numba: Any = numba  # typed or not, as the version has it

# Steps of work, about 0.2 ns each, from which on a region pays: it costs 2 µs, and 15 until a
# thread wakes up. Those of a kernel are its elements times what one of them takes.
WORTH = 2**16
_TBB = {"libtbb.so.12", "libtbb.12.dylib", "tbb12.dll"}


_held: list[Any] = []  # SciPy's BLAS, as threadpoolctl has it


class Layer(NamedTuple):
    """What regions run on, "tbb" or "omp"; or None and the ``reason``."""

    name: str | None
    reason: str = ""
    pid: int = 0


def compiles() -> bool:
    """Whether Numba compiles at all."""
    return not _numba.config.DISABLE_JIT


def count() -> int:
    """Threads of a region: as many as Numba is told to use, and no more than there are cores."""
    threads = awake()
    if threads > 1:
        for blas in _held:
            if blas.get_num_threads() != 1:  # a threadpool_limits of the program ended, or began
                blas.set_num_threads(1)
    return threads


def awake() -> int:
    """``count`` for regions whose kernels call no BLAS: to look after that takes a microsecond."""
    name, _, pid = layer()
    if name is None or (name == "omp" and pid != os.getpid()):  # OpenMP kills a forked child
        return 1
    return min(_numba.get_num_threads(), _numba.config.NUMBA_DEFAULT_NUM_THREADS)


def split(items: int, work: int) -> int:
    """Threads that divide ``items``, which take ``work`` steps together; 1 if those are few."""
    return min(count(), items) if work >= WORTH else 1


@cache
def layer() -> Layer:
    """What regions run on. The first call starts it, and holds SciPy's BLAS at one thread."""
    if _numba.config.DISABLE_JIT:
        return Layer(None, "NUMBA_DISABLE_JIT is set")
    if min(_numba.config.NUMBA_NUM_THREADS, _numba.config.NUMBA_DEFAULT_NUM_THREADS) == 1:
        return Layer(None, "there is one core, or Numba is told to use one thread")
    started = _started()
    try:
        _numba.get_num_threads()  # starts it
    except ValueError as error:
        return Layer(None, str(error).partition("\n")[0])
    name = _numba.threading_layer()
    if name not in ("tbb", "omp"):
        return Layer(None, f"Numba runs on {name} here; install tbb, and unset its variables")
    if name == "omp" and started:
        return Layer(None, "other code started OpenMP; use this backend before it, or install tbb")
    if not _hold_blas():
        return Layer(None, "SciPy's BLAS is no OpenBLAS of its own")
    return Layer(name, pid=os.getpid())


def _started() -> bool:
    """Whether a region of other code has run, on whatever there was."""
    try:
        _numba.threading_layer()
    except ValueError:
        return False
    return True


def details() -> dict[str, str]:
    """The two BLAS of this process, and what regions run on."""
    import scipy.linalg.cython_blas  # noqa: F401, PLC0415 - else one of them is not there yet

    name, reason, _ = layer()
    return {
        "NumPy's BLAS": _blas(scipys=False),
        "BLAS in kernels": _blas(scipys=True),
        "threading layer": name or f"none: {reason}",
        "threads": f"{count()}, on {_numba.config.NUMBA_DEFAULT_NUM_THREADS} cores",
    }


def _blas(scipys: bool) -> str:
    found = [
        f"{each['internal_api']} {each['version']} (threads: {each['num_threads']})"
        for each in threadpool_info()
        if each["user_api"] == "blas" and _is_scipys(each) is scipys
    ]
    return "; ".join(found) or "not known"


def _load_tbb() -> None:
    """Load the library of PyPI's package, which is where the system's loader does not look."""
    with suppress(metadata.PackageNotFoundError):
        for file in metadata.files("tbb") or []:
            if file.name in _TBB:
                with suppress(OSError):
                    ctypes.CDLL(str(file.locate()), mode=ctypes.RTLD_GLOBAL)


def _hold_blas() -> bool:
    """One thread for SciPy's own BLAS; False if it has none, and NumPy's is left as it is."""
    import scipy.linalg.cython_blas  # noqa: F401, PLC0415 - the limit misses what is not loaded

    _held[:] = [each for each in ThreadpoolController().lib_controllers if _is_scipys(each.info())]
    for blas in _held:
        blas.set_num_threads(1)
    return bool(_held)


def _is_scipys(library: dict[str, Any]) -> bool:
    """Whether a wheel of SciPy brought it, for itself alone."""
    path = Path(library["filepath"])
    return "scipy.libs" in path.parts or path.parent.parent.name == "scipy"


# Before any region runs, the program's own included: Numba takes what it finds then.
_load_tbb()
config.rest_openmp()  # its idle threads would take the cores from others
