"""Loading a state: what of it fits a module, and what does not."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import numpy as np

from tinygrad_mnist.autograd.graph import no_grad
from tinygrad_mnist.creation import as_tensor
from tinygrad_mnist.tensor import Tensor


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
    given = _arrays(state, (key for key in own if key in state))
    keys = _IncompatibleKeys(
        [key for key in own if key not in state], [key for key in state if key not in own]
    )
    problems = [
        *(_listed("missing", keys.missing_keys) if strict else ()),
        *(_listed("unexpected", keys.unexpected_keys) if strict else ()),
        *(problem for key, x in given.items() for problem in _misfits(key, own[key], x)),
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


def _arrays(state: Mapping[str, Any], keys: Iterable[str]) -> dict[str, Any]:
    """The values of ``keys`` as tensors or NumPy arrays; TypeError names all that are none."""
    found, wrong = {}, []
    for key in keys:
        try:
            found[key] = _array(state[key])
        except (TypeError, RuntimeError) as error:  # another library's, of a device for example
            wrong.append(f"{error} for {key!r}")
    if wrong:
        raise TypeError(
            f"load_state_dict: expected tensors or NumPy arrays of numbers, got {'; '.join(wrong)}"
        )
    return found


def _array(value: Any) -> Any:
    """``value`` itself if a tensor, else as a NumPy array; TypeError says what it is instead."""
    if not isinstance(value, Tensor):
        if not hasattr(value, "__array__"):
            raise TypeError(type(value).__name__)
        value = np.asarray(value)
    if value.dtype.kind not in "biuf":
        raise TypeError(f"an array of {value.dtype}")
    return value


def _misfits(key: str, own: Tensor, given: Any) -> list[str]:
    """Why ``given`` cannot be copied into ``own``."""
    found = []
    if tuple(given.shape) != tuple(own.shape):
        found.append(f"{key!r} has shape {tuple(given.shape)}, expected {tuple(own.shape)}")
    if not np.can_cast(given.dtype, own.dtype, "same_kind"):
        found.append(f"{key!r} is of {given.dtype}, which {own.dtype} does not hold")
    return found


def _listed(what: str, keys: list[str]) -> list[str]:
    return [f"{what} {', '.join(map(repr, keys))}"] if keys else []
