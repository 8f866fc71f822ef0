"""Cases with numbers that ordinary draws leave out: undefined, infinite, huge, tiny, of any sign.

What enters is a row's cases, what leaves are at most two made of these. ``verification.ops`` runs
them forward: the places of NaN and infinities are then NumPy's, and what is finite is near it.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np

from tinygrad_mnist.kernels import Backend
from tinygrad_mnist.verification.cases.draws import Case, Rng

# The last two are denormal, in float32 and in float64.
VALUES = (np.nan, np.inf, -np.inf, 0.0, -0.0, 1.0, -1.0, 2.5, -2.5, 1e-40, 1e-310)
# Their squares are finite in float32, too. Beside them, others are but their rounding.
HUGE = (1e15, -1e15)
SMALL = 1000  # elements of a case that is crowded, at most

# Rows without, beside those without an input of floats.
LEFT_OUT = {
    "cast:int": "what NaN and infinities are as integers is the processor's affair",
    "log_softmax_grad": "its second input is logarithms of probabilities, never above 0",
}

# Rows of which the first inputs alone get them.
FIRST = {"conv_transpose2d": 1}  # beside an image, a backend may multiply an infinite weight by 0


def extremes(
    name: str, cases: Sequence[Case], inputs: int | None = None
) -> list[tuple[Case, Case]]:
    """The largest of the small cases, crowded with such numbers, and the largest, with a few.

    In the first they meet each other; in the second each stands alone in its row, so that a sum or
    a maximum shows which it was. They are put into every array of floats among the first ``inputs``
    inputs, or all. With each comes the case as it was.
    """
    if name in LEFT_OUT:
        return []
    inputs = FIRST.get(name, inputs)
    draw = np.random.default_rng(zlib.crc32(name.encode()))
    by_size = {_size(list(found.inputs[:inputs])): found for found in cases}
    by_size.pop(0, None)
    small = max((size for size in by_size if size <= SMALL), default=None)
    large = max(by_size, default=None)
    made = []
    if small is not None:
        crowded = _with_values(by_size[small], inputs, (*VALUES, *HUGE), small // 2, draw)
        made.append((crowded, by_size[small]))
    if large is not None and large != small:
        made.append((_with_values(by_size[large], inputs, VALUES, 0, draw), by_size[large]))
    return made


@cache
def flushes(backend: Backend) -> bool:
    """Whether the backend takes denormal numbers of float32 for 0, as CuPy compiles kernels to."""
    try:
        x = backend.asarray(np.full(1, 1e-40, np.float32))
        return not backend.to_numpy(backend.add(x, x)).any()
    except Exception:  # noqa: BLE001  the comparisons tell of it
        return False


def without_denormals(found: Case) -> Case:
    """The case with 0 for what float32 has as a denormal number: what it is where they flush."""

    def flushed(x: Any) -> Any:
        if isinstance(x, list):
            return [flushed(each) for each in x]
        if not _size(x):
            return x
        made = x.copy(order="K")
        made[np.abs(x) < np.finfo(np.float32).tiny] *= 0.0  # of the same sign
        return made

    return replace(found, inputs=tuple(map(flushed, found.inputs)))


def _size(x: Any) -> int:
    """The elements of an array of floats, or of the largest in a list."""
    if isinstance(x, list):
        return max(map(_size, x), default=0)
    return x.size if getattr(x, "dtype", None) == np.float64 else 0


def _with_values(
    found: Case, inputs: int | None, values: tuple[float, ...], count: int, draw: Rng
) -> Case:
    """With ``count`` numbers of each array replaced, at random places, or one by each value."""

    def filled(x: Any) -> Any:
        if isinstance(x, list):
            return [filled(each) for each in x]
        if not _size(x):
            return x
        made = x.copy(order="K")
        places = draw.permutation(x.size)[: max(len(values), count)]
        made.flat[places] = np.resize(values, places.size)  # in a small array, the first
        return made

    rest = found.inputs[len(found.inputs[:inputs]) :]
    return replace(found, inputs=(*map(filled, found.inputs[:inputs]), *rest))
