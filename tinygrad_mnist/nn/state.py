"""Loading a state: what of it fits a module, and what does not."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from tinygrad_mnist.autograd.graph import no_grad
from tinygrad_mnist.creation import as_tensor
from tinygrad_mnist.tensor import Tensor

_NEWER = "num_batches_tracked"  # states of before PyTorch 0.4.1 lack it, and it takes them


class _IncompatibleKeys(NamedTuple):
    """The keys that a state lacks, and those that no module knows. Named and shown as PyTorch's."""

    missing_keys: list[str]
    unexpected_keys: list[str]

    def __repr__(self) -> str:
        if not any(self):
            return "<All keys matched successfully>"
        keys = f"missing_keys={self.missing_keys!r}, unexpected_keys={self.unexpected_keys!r}"
        return f"{type(self).__name__}({keys})"


def load(who: str, own: Mapping[str, Tensor], state: Any, strict: bool) -> _IncompatibleKeys:
    """Copy ``state`` into the tensors ``own``, those of the module ``who``.

    Nothing is copied before all of it is known to fit. The errors are those of
    ``Module.load_state_dict``.
    """
    if not isinstance(state, Mapping):
        raise TypeError(
            f"load_state_dict: expected a dict of arrays by name, got {type(state).__name__}"
        )
    keys = _IncompatibleKeys(
        [key for key in own if key not in state and not key.endswith(_NEWER)],
        [key for key in state if key not in own],
    )
    problems = [
        *(_listed("missing", keys.missing_keys) if strict else ()),
        *(_listed("unexpected", keys.unexpected_keys) if strict else ()),
    ]
    given: dict[str, Any] = {}
    for key in own:
        if key in state:
            given[key], found = _array(state[key])
            problems += [
                f"{key!r} {problem}" for problem in found or _misfits(own[key], given[key])
            ]
    if problems:
        raise ValueError(f"load_state_dict: the state does not fit {who}: {'; '.join(problems)}")
    with no_grad():
        ready = [(own[k], as_tensor(x, own[k].dtype, own[k].backend)) for k, x in given.items()]
        for target, _ in ready:
            target._writable("load_state_dict")
        for target, value in ready:
            target.copy_(value)
    return keys


def _array(value: Any) -> tuple[Any, list[str]]:
    """``value`` itself if a tensor, else as a NumPy array, and why it is none of numbers."""
    if isinstance(value, Tensor):
        return value, []
    what = f"is of type {type(value).__name__}"
    if hasattr(value, "__array__"):
        try:
            detached = value.detach() if hasattr(value, "detach") else value  # PyTorch's
            value = np.asarray(detached)
        except (TypeError, ValueError, RuntimeError):  # of a device, for example
            what += ", which NumPy cannot read"
        else:
            if value.dtype.kind in "biuf":
                return value, []
            what = f"is an array of {value.dtype}"
    return value, [f"{what}, expected an array of numbers on the host"]


def _misfits(own: Tensor, given: Any) -> list[str]:
    """Why ``given`` cannot be copied into ``own``."""
    found = []
    if tuple(given.shape) != tuple(own.shape):
        found.append(f"has shape {tuple(given.shape)}, expected {tuple(own.shape)}")
    if not np.can_cast(given.dtype, own.dtype, "same_kind"):
        found.append(f"is of {given.dtype}, which {own.dtype} does not hold")
    return found


def _listed(what: str, keys: list[str]) -> list[str]:
    return [f"{what} {', '.join(map(repr, keys))}"] if keys else []
