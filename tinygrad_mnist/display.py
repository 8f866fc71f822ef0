"""How a tensor prints: its numbers, of many only the outer ones, and what it is."""

from __future__ import annotations

import math

import numpy as np

WIDTH = 100  # characters of a line
_MANY = 100  # numbers: of more only the outer ones are shown
_ROWS = 20  # the same of rows
_LINES = 30  # what takes more even so is not shown at all
_HEAD = "tensor("


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
    """All of them, or the outer ones, or none."""
    few = values.size <= _MANY and math.prod(values.shape[:-1]) <= _ROWS
    for threshold in (values.size, 0) if few else (0,):
        text = np.array2string(
            values,
            separator=", ",
            prefix=_HEAD,
            max_line_width=WIDTH,
            precision=4,
            threshold=threshold,
            edgeitems=max(1, min(3, 5 - values.ndim)),  # a row and a column more double the lines
        )
        if text.count("\n") < _LINES:
            return text
    return "..."
