"""One line per call that must fail: ``bad("sum", lambda t: t(2).sum(1), IndexError, "dim 1")``."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import tinygrad_mnist as tg
from tinygrad_mnist.kernels import Backend
from tinygrad_mnist.tensor import Tensor


@dataclass(frozen=True)
class Maker:
    """Makes the inputs of a call: ``t(2, 3)`` ones, ``t.of([0, 5])`` what is given."""

    backend: Backend

    def __call__(self, *shape: int, dtype: Any = None) -> Tensor:
        return tg.ones(*shape, dtype=dtype, backend=self.backend)

    def of(self, data: Any, dtype: Any = None) -> Tensor:
        return tg.tensor(data, dtype, backend=self.backend)

    def leaf(self, *shape: int) -> Tensor:
        return self(*shape).requires_grad_()


@dataclass(frozen=True)
class Bad:
    """A call that must fail, with which error, and what its message must say."""

    op: str  # the public name of a method or a function
    attempt: Callable[[Maker], Any]
    error: type[Exception]
    says: tuple[str, ...]


def bad(op: str, attempt: Callable[[Maker], Any], error: type[Exception], *says: str) -> Bad:
    return Bad(op, attempt, error, says)


def each(
    ops: tuple[str, ...],
    attempt: Callable[[Callable[..., Any], Maker], Any],
    error: type[Exception],
    *says: str,
) -> list[Bad]:
    """The same call, ``lambda op, t: op(t(2), t(3))``, of several functions."""
    return [Bad(name, partial(attempt, getattr(tg, name)), error, says) for name in ops]
