"""Seeds and streams: the same numbers on every backend.

Weights and shuffles are drawn on the host from one generator. Masks and random tensors inside a
step come from a counter-based stream: each draw takes the next key, and the backend computes the
stream of that key (splitmix64, see ``kernels``) without a transfer.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from contextvars import ContextVar, Token
from typing import Any, Self

import numpy as np

from tinygrad_mnist.dispatch import Host, host
from tinygrad_mnist.kernels import GOLDEN, MIX_1, MIX_2

_MASK = 2**64 - 1


class Generator:
    """The streams of one seed, 0 until ``manual_seed``: the host's numbers and the backends' keys.

    Keys count up from the mixed seed and the seeds of children down, so that they never meet.
    """

    __slots__ = ("_children", "_host", "_keys", "_seed")

    _host: np.random.Generator | None  # made at the first draw

    def __init__(self) -> None:
        self.manual_seed(0)

    def manual_seed(self, seed: int) -> Self:
        """Start every stream again from ``seed``, an integer from 0 to 2⁶⁴−1.

        TypeError or ValueError for anything else.
        """
        if not isinstance(seed, int | np.integer) or isinstance(seed, bool):
            raise TypeError(f"manual_seed: expected an integer, got {seed!r}")
        if not 0 <= seed <= _MASK:
            raise ValueError(f"manual_seed: expected 0 to 2**64 - 1, got {seed}")
        self._seed, self._host = int(seed), None
        self._keys = self._children = 0
        return self

    def initial_seed(self) -> int:
        """The seed that the streams started from."""
        return self._seed

    def numpy(self) -> np.random.Generator:
        """NumPy's generator of this seed, from which the host draws."""
        if self._host is None:
            self._host = np.random.Generator(np.random.PCG64(self._seed))
        return self._host

    def next_key(self) -> int:
        """The key of the next stream that a backend computes."""
        self._keys += 1
        return _mixed(_mixed(self._seed) + self._keys)

    def get_state(self) -> dict[str, Any]:
        """Where its streams are, as plain data: numbers and strings in dicts."""
        host = self._host and self._host.bit_generator.state
        return {"seed": self._seed, "keys": self._keys, "children": self._children, "host": host}

    def set_state(self, state: Mapping[str, Any]) -> Self:
        """Go on as one from which ``get_state`` gave ``state``.

        ValueError where it is none; nothing is changed then.
        """
        try:
            made = Generator().manual_seed(state["seed"])
            made._keys, made._children = int(state["keys"]), int(state["children"])
            if state["host"] is not None:
                made.numpy().bit_generator.state = copy.deepcopy(state["host"])
        except (KeyError, TypeError, ValueError) as error:
            raise ValueError(
                f"set_state: expected what get_state() gives, got {state!r}"
            ) from error
        self._seed, self._host = made._seed, made._host
        self._keys, self._children = made._keys, made._children
        return self

    def child(self, number: int) -> Generator:
        """The generator ``number`` of those that hang on this seed; nothing is drawn of it."""
        return Generator().manual_seed(_mixed(_mixed(self._seed) - number))

    def spawn(self) -> Generator:
        """The next of its children, from 1."""
        self._children += 1
        return self.child(self._children)

    def __repr__(self) -> str:
        return f"Generator(seed={self._seed})"


class drawing_from:
    """``with drawing_from(generator, 3):`` every draw of this context is of that child.

    The child is made when something draws: most batches draw nothing.
    """

    __slots__ = ("_child", "_number", "_parent", "_token")

    _token: Token[drawing_from | None]

    def __init__(self, parent: Generator, number: int) -> None:
        self._parent = parent
        self._number = number
        self._child: Generator | None = None

    def generator(self) -> Generator:
        """The child, the same one at each call."""
        if self._child is None:
            self._child = self._parent.child(self._number)
        return self._child

    def __enter__(self) -> None:
        self._token = _scope.set(self)

    def __exit__(self, *error: object) -> None:
        _scope.reset(self._token)


_default = Generator()
_scope: ContextVar[drawing_from | None] = ContextVar("generator", default=None)


def current() -> Generator:
    """The generator in use: a batch's own while it is made, else that of the program."""
    scope = _scope.get()
    return _default if scope is None else scope.generator()


def manual_seed(seed: int) -> Generator:
    """Start every stream again from ``seed``, an integer from 0 to 2⁶⁴−1; the generator in use.

    TypeError or ValueError for anything else.
    """
    return current().manual_seed(seed)


def initial_seed() -> int:
    """The seed in use."""
    return current().initial_seed()


def get_rng_state() -> dict[str, Any]:
    """Where the streams in use are; ``set_rng_state`` takes it."""
    return current().get_state()


def set_rng_state(state: Mapping[str, Any]) -> None:
    """Go on from where ``get_rng_state`` was called. ValueError for anything else."""
    current().set_state(state)


def generator() -> np.random.Generator:
    """The host's generator in use, for weights and shuffles."""
    return current().numpy()


def next_key() -> Host:
    """The key of the next stream, drawn anew at every replay of a recorded step."""
    return host(lambda: current().next_key())


def _mixed(z: int) -> int:
    """One output of splitmix64: neighbouring numbers become unrelated ones."""
    z = (z + GOLDEN) & _MASK
    z = ((z ^ (z >> 30)) * MIX_1) & _MASK
    z = ((z ^ (z >> 27)) * MIX_2) & _MASK
    return z ^ (z >> 31)
