"""How the kernels are compiled: when first called, kept on disk, and so that NaN survives."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar, cast

import numba
import numpy as np
from numba.extending import overload

from tinygrad_mnist.backends.numba_kernels import cache

F = TypeVar("F", bound=Callable[..., Any])

_numba: Any = numba  # typed or not, as the version has it
_overload: Any = overload


def compiled(function: F) -> F:
    """Compile ``function`` for each set of argument types at its first call with them.

    A multiplication and an addition may become one instruction; no other rule of IEEE 754 gives.
    """
    return _compiled(function, {"contract"})


def inlined(function: F) -> F:
    """As ``compiled``, and set into its callers however long it is: their loops vectorise."""
    return _compiled(function, {"contract"}, forceinline=True)


def compiled_sums(function: F) -> F:
    """As ``compiled``, and sums may be taken in another order, which lets them vectorise."""
    return _compiled(function, {"contract", "reassoc"})


def region_of(kernel: Any) -> Callable[[F], F]:
    """Compile a function whose ``prange`` runs ``kernel`` on threads, and keep it: kernel.region.

    It should only call compiled kernels: then it compiles in a quarter of a second. Each is written
    out, because Numba keeps no function on disk that was made around another one.
    """

    def mark(function: F) -> F:
        kernel.region = _compiled(function, {"contract"}, parallel=True)
        return cast(F, kernel.region)

    return mark


def by_dtype(single: F, double: F, doc: str | None) -> F:
    """A function of one float that is ``single`` of a float32 and ``double`` of a float64.

    Compiled code knows which when it is compiled; Python asks.
    """

    def chosen(x: Any) -> Any:
        return single(x) if x.dtype.itemsize == 4 else double(x)

    def of_single(x: Any) -> Any:
        return single(x)

    def of_double(x: Any) -> Any:
        return double(x)

    @_overload(chosen)
    def choose(x: Any) -> Any:
        return of_single if x.bitwidth == 32 else of_double

    chosen.__doc__ = doc
    return cast(F, chosen)


def _compiled(function: F, fastmath: set[str], **options: bool) -> F:
    if _numba.config.DISABLE_JIT:
        # Python's scalars warn where compiled ones wrap around or become infinite.
        return np.errstate(all="ignore")(function)
    # With Numba's own error model a division checks for zero, which stops vectorisation.
    settings = {"error_model": "numpy", "fastmath": fastmath, "nogil": True, **options}
    try:
        kernel = cache.guarded(_numba.njit(cache=True, **settings)(function))
    except (RuntimeError, OSError) as error:  # no folder to write to: a read-only install
        cache.say_uncached(error)
        kernel = _numba.njit(**settings)(function)
    cache.kernels.append(kernel)
    return cast(F, kernel)
