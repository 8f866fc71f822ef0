"""Memory in which an array lies as another one does, gaps between its rows included.

A kernel's result that is a part of a larger array has them, and the kernels that read it may take
another way than for one without.
"""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Any


def span(like: Any) -> int:
    """The bytes in which ``like`` lies."""
    return math.prod(_extents(like)) * int(like.dtype.itemsize)


def _extents(like: Any) -> list[int]:
    """The sizes of a contiguous array of which ``like`` is a part."""
    dims = _by_step(like)
    steps = [like.strides[dim] // like.dtype.itemsize for dim in dims]
    inner = [outer // step for outer, step in pairwise(steps)]
    return [like.shape[dims[0]], *inner, steps[-1]] if dims else [like.size, 1]


def _by_step(like: Any) -> list[int]:
    """The dims of more than one element, those of the longest steps first."""
    dims = [dim for dim in range(like.ndim) if like.shape[dim] > 1 and like.size]
    return sorted(dims, key=lambda dim: -like.strides[dim])


def laid_out(memory: Any, like: Any) -> Any:
    """The bytes ``memory`` as an array of the shape, dtype and strides of ``like``."""
    dims, extents = _by_step(like), _extents(like)
    whole = memory[: span(like)].view(like.dtype).reshape(extents)
    if not dims:
        return whole.reshape(like.shape)
    part = whole[(*(slice(like.shape[dim]) for dim in dims), 0)]
    ordered = part.transpose([dims.index(dim) for dim in sorted(dims)])
    return ordered[tuple(slice(None) if dim in dims else None for dim in range(like.ndim))]
