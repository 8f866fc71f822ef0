"""How far an array is from NumPy's, in units in the last place."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np


class Difference(NamedTuple):
    """Of two arrays: how far apart, and the two numbers that are furthest apart."""

    ulps: float  # ∞ where no rounding explains it
    numbers: str = ""


def difference(
    found: np.ndarray, expected: np.ndarray, size: float | np.ndarray | None = None
) -> Difference:
    """The largest |found − expected| in units in the last place of ``expected``.

    The unit is the spacing of the dtype at ``size``, of all or of each, which is the largest finite
    magnitude in ``expected`` unless it is given: an element that cancels is measured by its
    neighbours. It is at least the spacing at the dtype's eps. Integers and booleans are equal or ∞
    apart, as are other shapes, other dtypes, and NaN or infinities in other places.
    """
    if (found.shape, found.dtype) != (expected.shape, expected.dtype):
        return Difference(np.inf, f"{_kind(found)} for {_kind(expected)}")
    same = found == expected
    if expected.dtype.kind != "f":
        return _largest(np.where(same, 0.0, np.inf), found, expected)
    same |= np.isnan(found) & np.isnan(expected)
    least = np.finfo(expected.dtype).eps
    at = np.maximum(magnitude(expected) if size is None else size, least)
    unit = np.spacing(at.astype(expected.dtype)).astype(np.float64)
    with np.errstate(all="ignore"):
        apart = np.abs(found.astype(np.float64) - expected.astype(np.float64)) / unit
    apart = np.where(np.isfinite(apart), apart, np.inf)
    return _largest(np.where(same, 0.0, apart), found, expected)


def magnitude(x: np.ndarray) -> float:
    """The largest finite |x|; 0 for none, and for what is not of floats."""
    if x.dtype.kind != "f":
        return 0.0
    return float(np.max(np.abs(x), where=np.isfinite(x), initial=0))


def _largest(apart: np.ndarray, found: np.ndarray, expected: np.ndarray) -> Difference:
    if not apart.any():
        return Difference(0.0)
    place = np.unravel_index(int(apart.argmax()), apart.shape)
    return Difference(float(apart[place]), f"{found[place]} for {expected[place]}")


def _kind(x: np.ndarray) -> str:
    return f"{x.dtype} {x.shape}"
