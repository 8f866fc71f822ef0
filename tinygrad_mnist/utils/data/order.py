"""The order of a pass over a dataset, which goes to a device once and not batch by batch."""

from __future__ import annotations

import threading

import numpy as np

from tinygrad_mnist.creation import from_host
from tinygrad_mnist.dispatch import tell
from tinygrad_mnist.kernels import Backend
from tinygrad_mnist.tensor import Tensor, of_host


class Order:
    """Positions of a whole pass, int64 (n,): ``indices`` at those of ``before``, or themselves."""

    def __init__(self, indices: np.ndarray, before: Order | None = None) -> None:
        self._indices, self._before = indices, before
        self._positions = indices if before is None else None
        self._there: dict[Backend, Tensor] = {}
        self._through: dict[int, Order] = {}  # by the id of the indices, which it keeps
        self._lock = threading.Lock()

    def batch(self, start: int, stop: int) -> Places:
        """Those of a batch."""
        assert self._positions is not None
        return _places(self._positions[start:stop].copy(), self, start)

    def through(self, indices: np.ndarray) -> Order:
        """The order of ``indices`` at these positions."""
        return self._through.setdefault(id(indices), Order(indices, self))

    def on(self, backend: Backend, start: int, found: np.ndarray) -> Tensor | None:
        """Those from ``start`` on that are ``found``, a view; None where they are others."""
        with self._lock:
            positions = self._whole()
            stop = start + len(found)
            if not np.array_equal(positions[start:stop], found):
                return None  # somebody wrote into them
            if backend not in self._there:
                self._there[backend] = from_host(positions, backend, copy=False)
            return self._there[backend][start:stop]

    def _whole(self) -> np.ndarray:
        before = self._before
        if before is not None:
            self._positions = self._indices[before._whole()]
            self._before = None  # which knows of this one
        assert self._positions is not None
        return self._positions


class Places(np.ndarray):
    """The positions of a batch, which know where in the order of their pass they are.

    Arrays made of them do not.
    """

    order: Order | None = None
    start = 0


def _places(index: np.ndarray, order: Order, start: int) -> Places:
    made = index.view(Places)
    made.order, made.start = order, start
    return made


def mapped(index: np.ndarray, indices: np.ndarray) -> np.ndarray:
    """``indices[index]``, which knows where in a pass it is if ``index`` does."""
    found: np.ndarray = indices[np.asarray(index)]
    order = getattr(index, "order", None)
    return found if order is None else _places(found, order.through(indices), index.start)  # type: ignore[attr-defined]


def on_backend(index: np.ndarray, backend: Backend) -> Tensor:
    """The int64 ``index`` (n,) of the host on ``backend``: a part of the pass's order there."""
    order = getattr(index, "order", None)
    plain = np.asarray(index)
    if order is not None and not of_host(backend):
        tell("host_data", "a NumPy array")
        found: Tensor | None = order.on(backend, index.start, plain)  # type: ignore[attr-defined]
        if found is not None:
            return found
    return from_host(plain, backend, copy=False)
