"""How the kernels are compiled: when first called, kept on disk, to keep NaN and infinity."""

from __future__ import annotations

import pickle
import sys
from collections.abc import Callable
from typing import Any, TypeVar, cast

import numba
import numpy as np

F = TypeVar("F", bound=Callable[..., Any])

_UNREADABLE = (OSError, EOFError, pickle.UnpicklingError)
_said: set[str] = set()


def compiled(function: F) -> F:
    """Compile ``function`` for each set of argument types at its first call with them.

    Multiplications and additions may be fused; nothing else changes a result.
    """
    return _compiled(function, {"contract"})


def compiled_sums(function: F) -> F:
    """As ``compiled``, and sums may be taken in another order, which lets them vectorise."""
    return _compiled(function, {"contract", "reassoc"})


def _compiled(function: F, fastmath: set[str]) -> F:
    if numba.config.DISABLE_JIT:
        # Scalars in Python warn where compiled ones wrap around or give infinity.
        return cast(F, np.errstate(all="ignore")(function))
    # error_model="numpy": a division by zero is infinite, not an exception that stops
    # vectorisation.
    options = {"error_model": "numpy", "fastmath": fastmath, "nogil": True}
    try:
        kernel = numba.njit(cache=True, **options)(function)
    except (RuntimeError, OSError) as error:  # nowhere to write: a read-only install
        _say(f"compiled kernels are not kept for the next start: {error}")
        return cast(F, numba.njit(**options)(function))
    return cast(F, _guarded(kernel))


def _guarded(kernel: Any) -> Any:
    """``kernel``, which goes on without its cache where that cannot be read or written."""
    compile_for = kernel.compile

    def guarded(signature: Any) -> Any:
        if not kernel.stats.cache_hits and not kernel.overloads:
            pass
        try:
            return compile_for(signature)
        except _UNREADABLE as error:
            _say(f"compiled kernels are not kept for the next start: {error}")
            kernel._cache.disable()
            return compile_for(signature)

    kernel.compile = guarded
    return kernel


def _say(message: str) -> None:
    """A line on stderr, the first of its kind only."""
    kind = message.partition(":")[0]
    if kind not in _said:
        _said.add(kind)
        print(f"tinygrad_mnist: {message}", file=sys.stderr)
