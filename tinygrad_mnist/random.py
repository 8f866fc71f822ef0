"""Seeds and streams: the same numbers on every backend.

Weights and shuffles are drawn on the host from one generator. Masks and random tensors inside a
step come from a counter-based stream: each draw takes the next key, and the backend computes the
stream of that key (splitmix64, see ``kernels``) without a transfer.
"""

from __future__ import annotations

import numpy as np

from tinygrad_mnist.dispatch import Host, host
from tinygrad_mnist.kernels import GOLDEN, MIX_1, MIX_2

_MASK = 2**64 - 1


class _State:
    """The seed, the host's generator, and how many keys have been drawn."""

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self.generator = np.random.Generator(np.random.PCG64(seed))
        self.drawn = 0


_state = _State(0)


def manual_seed(seed: int) -> None:
    """Start every stream again from ``seed``, an integer from 0 to 2⁶⁴−1.

    TypeError or ValueError for anything else.
    """
    global _state
    if not isinstance(seed, int | np.integer) or isinstance(seed, bool):
        raise TypeError(f"manual_seed: expected an integer, got {seed!r}")
    if not 0 <= seed <= _MASK:
        raise ValueError(f"manual_seed: expected 0 to 2**64 - 1, got {seed}")
    _state = _State(int(seed))


def initial_seed() -> int:
    """The seed in use."""
    return _state.seed


def generator() -> np.random.Generator:
    """The host's generator, for weights and shuffles."""
    return _state.generator


def next_key() -> Host:
    """The key of the next stream, drawn anew at every replay of a recorded step."""
    return host(_draw_key)


def _draw_key() -> int:
    _state.drawn += 1
    return _mixed(_mixed(_state.seed) + _state.drawn)


def _mixed(z: int) -> int:
    """One output of splitmix64: neighbouring numbers become unrelated ones."""
    z = (z + GOLDEN) & _MASK
    z = ((z ^ (z >> 30)) * MIX_1) & _MASK
    z = ((z ^ (z >> 27)) * MIX_2) & _MASK
    return z ^ (z >> 31)
