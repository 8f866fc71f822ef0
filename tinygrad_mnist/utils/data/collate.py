"""Batches of items: the same structure, with tensors of all items' values."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from tinygrad_mnist.composed.arrangements import stack
from tinygrad_mnist.creation import F64, from_numpy, tensor
from tinygrad_mnist.tensor import Tensor


def default_collate(batch: Sequence[Any]) -> Any:
    """The items of ``batch``, all of one structure, with a first dim of their number.

    Tensors and arrays are stacked; bools become a bool tensor, integers int64 and floats float64,
    as in PyTorch; strings and bytes stay a list. A dict becomes a dict, a named tuple one of its
    kind, a tuple or list a list, each of what its members give.

    TypeError for items of other or of several kinds, ValueError for no items and for shapes, keys
    or lengths that differ.
    """
    if not len(batch):
        raise ValueError("default_collate: expected at least one item, got none")
    first = batch[0]
    for kind, collate in _RULES:
        if isinstance(first, kind):
            _check_alike(batch, kind)
            return collate(batch)
    raise TypeError(
        f"default_collate: found {_type(first)}, expected tensors, arrays, numbers, strings, "
        "dicts, tuples or lists; let the dataset's transform end in ToTensor(), or give the "
        "DataLoader a collate_fn"
    )


def _check_alike(batch: Sequence[Any], kind: Any) -> None:
    for i, item in enumerate(batch):
        if not isinstance(item, kind):
            raise _differs(f"item {i} of the batch is {_type(item)}, the first {_type(batch[0])}")


def _differs(what: str, error: type[Exception] = TypeError) -> Exception:
    return error(f"default_collate: {what}; give the DataLoader a collate_fn")


def _type(item: Any) -> str:
    return f"{type(item).__module__}.{type(item).__qualname__}".removeprefix("builtins.")


def _check_shapes(batch: Sequence[Any]) -> None:
    expected = tuple(batch[0].shape)
    for i, item in enumerate(batch):
        if tuple(item.shape) != expected:
            raise _differs(
                f"item {i} of the batch has shape {tuple(item.shape)}, the first has {expected}",
                ValueError,
            )


def _tensors(batch: Sequence[Tensor]) -> Tensor:
    _check_shapes(batch)
    return stack(batch)


def _arrays(batch: Sequence[Any]) -> Tensor:
    _check_shapes(batch)
    return from_numpy(np.stack(batch))


def _numbers(batch: Sequence[float]) -> Tensor:
    return tensor(batch, F64 if any(isinstance(x, float) for x in batch) else None)


def _mappings(batch: Sequence[Mapping[Any, Any]]) -> Any:
    first = batch[0]
    for i, item in enumerate(batch):
        if item.keys() != first.keys():
            raise _differs(
                f"item {i} of the batch has keys {list(item)}, the first has {list(first)}",
                ValueError,
            )
    return {key: default_collate([item[key] for item in batch]) for key in first}


def _sequences(batch: Sequence[Sequence[Any]]) -> Any:
    first = batch[0]
    for i, item in enumerate(batch):
        if len(item) != len(first):
            raise _differs(
                f"item {i} of the batch has {len(item)} members, the first has {len(first)}",
                ValueError,
            )
    members = [default_collate(member) for member in zip(*batch, strict=True)]
    return type(first)(*members) if hasattr(first, "_fields") else members


# NumPy's float64 is a float, and a string is a sequence: the first kind that fits counts.
_RULES: list[tuple[Any, Any]] = [
    (Tensor, _tensors),
    (np.ndarray | np.generic, _arrays),
    (int | float, _numbers),
    (str | bytes, list),
    (Mapping, _mappings),
    (Sequence, _sequences),
]
