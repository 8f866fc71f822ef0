"""What the layers check: their settings, and what they are given."""

from __future__ import annotations

from typing import Any

import numpy as np

from tinygrad_mnist.checks import checked_dtype, checked_integer, fit
from tinygrad_mnist.nn.module import Module


def checked_size(name: str, what: str, value: Any, least: int = 1) -> int:
    """``value`` as Python's int. TypeError for no integer, ValueError for less than ``least``."""
    size = checked_integer(name, what, value)
    if size < least:
        raise ValueError(f"{name}: {what} must be at least {least}, got {size}")
    return size


def checked_float(name: str, dtype: Any) -> np.dtype | None:
    """``dtype`` of what a layer holds, None for the default. TypeError for none of floats."""
    found = None if dtype is None else checked_dtype(dtype, name)
    if found is not None and found.kind != "f":
        raise TypeError(f"{name}: dtype must be a float one, got {found}")
    return found


def clearer(error: ValueError, layer: Module, input: Any, *shapes: str) -> ValueError:
    """``error``, or a plainer one where ``input`` is of none of the ``shapes``: "N, 3, H, W"."""
    for shape in shapes:
        try:
            fit("", f"input ({shape})", input)
        except ValueError:
            continue
        return error
    return unfit(layer, input, *shapes)


def unfit(layer: Module, input: Any, *shapes: str) -> ValueError:
    """The error of an ``input`` that is of none of the ``shapes`` that ``layer`` takes."""
    takes = " or ".join(f"({shape})" for shape in shapes)
    return ValueError(f"{type(layer).__name__}: expected input {takes}, got {tuple(input.shape)}")
