"""A backend of another package: the contract's own kernels on NumPy, each call of them counted."""

from __future__ import annotations

import atexit
import functools
import sys
from collections import Counter
from collections.abc import Callable
from typing import Any

import numpy as np

from tinygrad_mnist.contract import kernel_names
from tinygrad_mnist.kernels import Backend

SHOWN = 10


CALLS: Counter[str] = Counter()  # how often each kernel was called, by ops or by other kernels


class CountingBackend(Backend):
    """The contract's kernels on NumPy, which count their calls in ``CALLS``.

    At the end of the process, those called most are printed to the error stream.
    """

    name = "counting"
    xp = np
    array_type = np.ndarray


@atexit.register
def _report() -> None:
    if not CALLS or sys.stderr is None:
        return
    print(f"counting backend: {CALLS.total():,} kernel calls", file=sys.stderr)
    for name, count in CALLS.most_common(SHOWN):
        print(f"{count:>12,}  {name}", file=sys.stderr)


def _counted(name: str) -> Callable[..., Any]:
    """The kernel of that name, counted; with its signature and its marks, as the contract asks."""
    kernel = getattr(Backend, name)

    @functools.wraps(kernel)
    def counted(self: CountingBackend, *arrays: Any, **options: Any) -> Any:
        CALLS[name] += 1
        return kernel(self, *arrays, **options)

    return counted


for _name in kernel_names():
    setattr(CountingBackend, _name, _counted(_name))
