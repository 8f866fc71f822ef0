"""Compiled kernels on disk: kept, damaged, not to be written; and what a user hears of compiling.

``compile`` hands over each kernel; the backend asks for ``compilation``.
"""

from __future__ import annotations

import os
import sys
from collections import Counter
from contextlib import suppress
from pathlib import Path
from time import perf_counter
from typing import Any
from zlib import crc32

import numba
from numba.core import event

from tinygrad_mnist import kernels as contract

_numba: Any = numba  # typed or not, as the version has it

PATIENCE = 1.0  # seconds of compiling after which a user is told what takes its time

# Numba sees edits in a kernel's own file alone. Those in others count as well: all are stamped.
_FOLDERS = (Path(__file__).parent, Path(contract.__file__).parent)
SOURCES = [
    (path.name, path.stat().st_mtime_ns) for each in _FOLDERS for path in sorted(each.glob("*.py"))
]

kernels: list[Any] = []  # as Numba has them
_said: set[str] = set()


def compilation() -> dict[str, str]:
    """What this process compiled, what it loaded from the cache, and the cache.

    A kernel counts once for each set of argument types. Empty where Numba is told not to compile.
    """
    if _numba.config.DISABLE_JIT:
        return {}
    missed, hit = _counted("cache_misses"), _counted("cache_hits")
    seconds = f" in {_watch.seconds:.1f} s" if missed else ""
    found = {"compiled": _listed(missed, seconds), "loaded": _listed(hit), "cache": _cache()}
    return found if _folder() is None else found | {"cache size": _size()}


def guarded(kernel: Any) -> Any:
    """``kernel``, which compiles what is damaged in its cache, and does without a broken one."""
    cache = kernel._cache
    load, save = cache.load_overload, cache.save_overload
    stamp = crc32(repr(SOURCES).encode())
    cache._cache_file._source_stamp = (cache._cache_file._source_stamp, stamp)

    def load_overload(signature: Any, context: Any) -> Any:
        try:
            kept = load(signature, context)
            # Processes that fill the cache at once can put one's code under the other's signature.
            if kept is None or tuple(kept.signature.args) == tuple(signature):
                return kept
        except OSError as error:
            _give_up(cache, error)
            return None
        except Exception as error:  # noqa: BLE001 - damaged bytes may raise anything
            _say(
                "compiled kernels in the cache are damaged, and compiled again",
                f": {cache.cache_path}, {type(error).__name__}",
            )
        try:
            cache.flush()
        except OSError as error:
            _give_up(cache, error)
        return None

    def save_overload(signature: Any, result: Any) -> None:
        try:
            _clear(cache)
            save(signature, result)
        except OSError as error:
            _give_up(cache, error)

    cache.load_overload, cache.save_overload = load_overload, save_overload
    wanted = _numba.config.CACHE_DIR
    if wanted and Path(wanted) not in Path(cache.cache_path).parents:
        _say(
            "NUMBA_CACHE_DIR cannot be written",
            f": {wanted}; compiled kernels are kept in {cache.cache_path}",
        )
    return kernel


def _clear(cache: Any) -> None:
    """Remove code that no index speaks of, before Numba writes an index and then the code.

    Else an index whose code was never written, on a full disk, would find the old one.
    """
    if not cache._cache_file._load_index():
        index = Path(cache._cache_file._index_path)
        for old in index.parent.glob(f"{index.stem}.*.nbc"):
            old.unlink(missing_ok=True)


def _give_up(cache: Any, error: OSError) -> None:
    cache.disable()
    say_uncached(error)


def say_uncached(error: Exception) -> None:
    _say("compiled kernels cannot be kept for the next start", f": {error}")


def _folder() -> str | None:
    """Where kernels are kept; None where they cannot be."""
    caches = (kernel._cache for kernel in kernels)
    return next((cache.cache_path for cache in caches if cache.cache_path and cache._enabled), None)


def _cache() -> str:
    folder = _folder()
    if folder is None:
        return "none, so each start compiles again"
    writable = "" if os.access(folder, os.W_OK) else ", which cannot be written"
    kept = sum(map(_kept, kernels))
    return f"{folder}{writable}: {'warm' if kept else 'cold'}, {_number(kept)}"


def _size() -> str:
    """Of the folder, with what other versions of this package, or other processors, left there."""
    found = [path.stat().st_size for path in Path(_folder() or "").glob("*.nb[ci]")]
    return f"{sum(found) / 1e6:.1f} MB in {len(found)} files"


def _kept(kernel: Any) -> int:
    """For how many sets of argument types the cache has ``kernel`` as it is, on this processor."""
    processor = kernel.targetctx.codegen().magic_tuple()
    try:
        code = kernel._cache._cache_file._load_index()
    except Exception:  # noqa: BLE001 - damaged bytes may raise anything
        return 0
    folder = Path(kernel._cache.cache_path)
    return sum(key[1] == processor and (folder / code[key]).exists() for key in code)


def _counted(what: str) -> Counter[str]:
    """How often each kernel was compiled ("cache_misses") or loaded ("cache_hits")."""
    counts: Counter[str] = Counter()
    for kernel in kernels:
        counts[kernel.__name__] += getattr(kernel.stats, what).total()
    return +counts


def _listed(counts: Counter[str], seconds: str = "") -> str:
    """``3 kernels: adam, relu (2)``."""
    names = ", ".join(
        f"{name} ({count})" if count > 1 else name for name, count in sorted(counts.items())
    )
    return f"{_number(counts.total())}{seconds}{': ' if names else ''}{names}"


def _number(kernels: int) -> str:
    return f"{kernels} kernel{'' if kernels == 1 else 's'}"


# ---- the user's time


class _Watch(event.Listener):
    """Measures what compiling takes, and says so where it is long; loading is no event."""

    def __init__(self) -> None:
        self.seconds = 0.0
        self._kernel: dict[str, Any] | None = None  # the outermost that is being compiled
        self._since = 0.0

    def on_start(self, event: Any) -> None:
        if self._kernel is None and event.data.get("dispatcher") in kernels:
            self._kernel, self._since = event.data, perf_counter()
        self._tell()

    def on_end(self, event: Any) -> None:
        self._tell()
        if event.data is self._kernel:
            self.seconds += perf_counter() - self._since
            self._kernel = None

    def _tell(self) -> None:
        if self._kernel is None or self.seconds + perf_counter() - self._since < PATIENCE:
            return
        folder = _folder()
        once = (
            f"once: they are kept in {folder}. 'python -m tinygrad_mnist warmup' does it beforehand"
        )
        name = self._kernel["dispatcher"].__name__
        _say(
            "compiling Numba kernels, each at its first use",
            f", now {name}; this happens {once if folder else 'at each start.'}",
        )


def _say(message: str, detail: str = "") -> None:
    """A line on stderr, once per message."""
    if message in _said or sys.stderr is None:
        return
    _said.add(message)
    with suppress(OSError, ValueError):  # nobody listens
        print(f"tinygrad_mnist: {message}{detail}", file=sys.stderr)


_watch = _Watch()
for _kind in ("numba:compile", "numba:run_pass"):  # the steps of a compilation are watched, too
    _numba.core.event.register(_kind, _watch)
