"""How a tensor prints: its numbers, of many only the outer ones, and what it is."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

WIDTH = 100  # characters of a line
_MANY = 100  # numbers: of more only the outer ones are shown
_ROWS = 20  # the same of rows
_LINES = 30  # of what takes more even so, the first row is
_HEAD = "tensor("
# All that NumPy has, so that what a user has set for arrays leaves tensors alone.
_OPTIONS: dict[str, Any] = {
    "precision": 4,
    "linewidth": WIDTH,
    "suppress": False,
    "sign": "-",
    "floatmode": "maxprec",
    "nanstr": "nan",
    "infstr": "inf",
    "formatter": None,
    "legacy": False,
}


def display(values: np.ndarray, backend: str, grad_fn: object, requires_grad: bool) -> str:
    """``tensor([1., 2.], shape=(2,), dtype=float32, backend=numpy, grad_fn=<multiply>)``.

    A leaf has no ``grad_fn``, but may have ``requires_grad=True``. Lines are at most ``WIDTH``
    characters wide, unless what follows the numbers is longer.
    """
    about = [f"shape={values.shape}", f"dtype={values.dtype}", f"backend={backend}"]
    if grad_fn is not None:
        about.append(f"grad_fn={grad_fn!r}")
    elif requires_grad:
        about.append("requires_grad=True")
    told = ", ".join(about) + ")"
    numbers = _numbers(values)
    text = f"{_HEAD}{numbers}, "
    if len(text.rpartition("\n")[2]) + len(told) <= WIDTH:
        return text + told
    return f"{_HEAD}{numbers},\n{' ' * len(_HEAD)}{told}"


def _numbers(values: np.ndarray) -> str:
    """All of them, or the outer ones, or those of the first row."""
    few = values.size <= _MANY and math.prod(values.shape[:-1]) <= _ROWS
    edge = max(1, min(3, 5 - values.ndim))  # a row and a column more double the lines
    for threshold in (values.size, 0) if few else (0,):
        text = _text(values, threshold, edge)
        if text.count("\n") < _LINES:
            return text
    outer = values.ndim - 1
    return f"{'[' * outer}{_text(values[(0,) * outer], 0, 2)}, ...{']' * outer}"


def _text(values: np.ndarray, threshold: int, edge: int) -> str:
    """All of them up to ``threshold``, of more the first and the last ``edge`` in each dim."""
    with np.printoptions(**{**_OPTIONS, "threshold": threshold, "edgeitems": edge}):
        return np.array2string(values, separator=", ", prefix=_HEAD)
