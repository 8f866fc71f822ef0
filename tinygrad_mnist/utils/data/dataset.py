"""Datasets: what has a length and gives the item at a position, or a whole batch at once."""

from __future__ import annotations

import math
import operator
from collections.abc import Sequence
from typing import Any

import numpy as np

from tinygrad_mnist import random
from tinygrad_mnist.backend import resolve
from tinygrad_mnist.checks import shown
from tinygrad_mnist.creation import as_tensor, from_host
from tinygrad_mnist.kernels import Backend
from tinygrad_mnist.ops.indexing import taken
from tinygrad_mnist.ops.networks import take_scaled
from tinygrad_mnist.tensor import Tensor, of_host
from tinygrad_mnist.utils.data.idx import DataError
from tinygrad_mnist.utils.data.order import mapped, on_backend

MAX_LABEL = 2**31 - 1


class Dataset:
    """Base of datasets: a subclass has ``__getitem__(index)`` and ``__len__()``.

    One that can make a whole batch at once, which is many times faster, also has a method
    ``batch_at(index)``: for an int64 array (n,) of positions on the host, each from 0 to len − 1,
    what ``default_collate`` would make of their items. None says that it goes item by item, and so
    does a subclass with a ``__getitem__`` of its own and no ``batch_at``.
    """

    batch_at: Any = None
    _on_device = (
        False  # whether the index is to be there, so that the loader sends a pass's at once
    )

    def __getitem__(self, index: int) -> Any:
        raise NotImplementedError(f"{type(self).__name__} has no __getitem__(index)")

    def __len__(self) -> int:
        raise NotImplementedError(f"{type(self).__name__} has no __len__()")


class TensorDataset(Dataset):
    """Tensors of one length: item i is the tuple of their rows i; so for slices and other indices.

    TypeError for what is no tensor, ValueError for none, for 0-d ones and for unequal lengths.
    """

    def __init__(self, *tensors: Tensor) -> None:
        if not tensors:
            raise ValueError("TensorDataset: expected at least one tensor")
        for i, x in enumerate(tensors):
            if not isinstance(x, Tensor):
                raise TypeError(
                    f"TensorDataset: expected tensors, got {type(x).__name__} at position {i}; "
                    "make one with tensor(…)"
                )
        shapes = [tuple(x.shape) for x in tensors]
        if len({shape[:1] for shape in shapes}) > 1 or not shapes[0]:
            raise ValueError(
                "TensorDataset: expected tensors of one length, got shapes "
                f"{', '.join(map(str, shapes))}"
            )
        self.tensors = tensors

    def __len__(self) -> int:
        return len(self.tensors[0])

    def __getitem__(self, index: Any) -> tuple[Tensor, ...]:
        several = isinstance(index, slice | list | np.ndarray | Tensor)
        at = index if several else checked_position("TensorDataset", index, len(self))
        return tuple(x[at] for x in self.tensors)

    @property
    def _on_device(self) -> bool:  # type: ignore[override]
        return not all(of_host(x.backend) for x in self.tensors)

    def batch_at(self, index: np.ndarray) -> list[Tensor]:
        """The rows ``index`` of each tensor."""
        return [rows(x, index) for x in self.tensors]

    def __repr__(self) -> str:
        return f"TensorDataset({', '.join(str(tuple(x.shape)) for x in self.tensors)})"


class Subset(Dataset):
    """The items of ``dataset`` at ``indices``, integers, in their order; −1 is its last item.

    TypeError for other indices and for what is no dataset, IndexError for such out of range.
    """

    def __init__(self, dataset: Any, indices: Sequence[int] | np.ndarray | Tensor) -> None:
        check_dataset("Subset", dataset)
        checked_indices("Subset", indices, len(dataset))
        self.dataset = dataset
        self.indices = indices

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, index: int) -> Any:
        at = checked_position("Subset", index, len(self))
        return self.dataset[checked_position("Subset", self.indices[at], len(self.dataset))]

    @property
    def batch_at(self) -> Any:
        """As the dataset's own; None where it has none."""
        whole = batch_of(self.dataset)
        if whole is None:
            return None
        indices = checked_indices("Subset", self.indices, len(self.dataset))
        return lambda index: whole(mapped(index, indices))

    @property
    def _on_device(self) -> bool:  # type: ignore[override]
        return bool(getattr(self.dataset, "_on_device", False))

    def __repr__(self) -> str:
        return f"Subset({len(self)} of {len(self.dataset)} items of {type(self.dataset).__name__})"


def random_split(
    dataset: Any, lengths: Sequence[float], generator: random.Generator | None = None
) -> list[Subset]:
    """``dataset`` in parts without common items, drawn at random.

    ``lengths`` are integers whose sum is its length, or fractions whose sum is 1; what rounding
    them down leaves goes to the first parts, one item each. ValueError for other sums and for
    negative ones, TypeError for what is no number, no dataset or no generator.
    """
    check_dataset("random_split", dataset)
    check_generator("random_split", generator)
    if not hasattr(lengths, "__iter__"):
        raise TypeError(f"random_split: expected a list of lengths, got {shown(lengths)}")
    counts = _counts(list(lengths), len(dataset))
    order = (generator or random.current()).numpy().permutation(len(dataset))
    parts = np.split(order, np.cumsum(counts)[:-1])
    return [Subset(dataset, part.tolist()) for part in parts]


def _counts(lengths: list[float], total: int) -> list[int]:
    if not all(is_number(n) for n in lengths):
        raise TypeError(f"random_split: expected integers or fractions, got {lengths}")
    if not lengths or min(lengths) < 0:
        raise ValueError(f"random_split: expected lengths of at least 0, got {lengths}")
    if all(isinstance(n, int | np.integer) for n in lengths):
        if sum(lengths) != total:
            raise ValueError(
                f"random_split: the lengths sum to {sum(lengths)}, the dataset has {total} items"
            )
        return [int(n) for n in lengths]
    if not math.isclose(sum(lengths), 1):
        raise ValueError(f"random_split: the fractions sum to {sum(lengths)}, expected 1")
    counts = [math.floor(total * n) for n in lengths]
    for i in range(total - sum(counts)):
        counts[i % len(counts)] += 1
    return counts


class ImageDataset(Dataset):
    """Images (N, H, W) uint8 with labels (N,), kept as they are on a backend.

    Item i is a float32 image (1, H, W), of pixels (value/255 − mean) / std, and its label as int.
    A device has a copy of the labels: to change some, assign a new array to ``labels``.
    DataError for an empty dataset, one whose images and labels do not belong together, and labels
    that are no classes.
    """

    def __init__(
        self,
        images: np.ndarray,
        labels: np.ndarray,
        mean: float = 0.0,
        std: float = 1.0,
        backend: str | Backend | None = None,
    ) -> None:
        if images.ndim != 3 or images.dtype != np.uint8:
            raise DataError(f"expected uint8 images (N, H, W), got {images.dtype} {images.shape}")
        if labels.shape != images.shape[:1]:
            raise DataError(f"expected labels ({len(images)},), got shape {labels.shape}")
        if not (math.isfinite(mean) and math.isfinite(std) and std > 0):
            raise DataError(f"expected a finite mean and a std above 0, got {mean} and {std}")
        if not len(images):
            raise DataError("the dataset is empty; expected at least one image")
        _check_labels(labels)
        self.mean = mean
        self.std = std
        self.backend = resolve(backend)
        self.labels = np.asarray(labels, np.int64)
        self._copied: tuple[np.ndarray, Tensor] | None = None  # of the labels, to a device
        self.images = as_tensor(images[:, None], backend=self.backend)

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        at = checked_position("ImageDataset", index, len(self))
        images, _ = self.batch_at(np.array([at]))
        return images[0], int(self.labels[at])

    def batch_at(self, index: np.ndarray) -> list[Tensor]:
        """The images (n, 1, H, W) float32 and labels (n,) int64 at ``index``."""
        places = on_backend(index, self.backend)
        scale = 1 / (255 * self.std)
        images = take_scaled(self.images, places, scale, -self.mean / self.std)
        if self._on_device:
            return [images, taken(self._labels(), places, 0)]
        return [images, from_host(self.labels[index], self.backend, copy=False)]

    @property
    def _on_device(self) -> bool:  # type: ignore[override]
        return not of_host(self.backend)

    def _labels(self) -> Tensor:
        """The labels on the device."""
        if self._copied is None or self._copied[0] is not self.labels:
            self._copied = self.labels, from_host(self.labels, self.backend, copy=False)
        return self._copied[1]

    def __repr__(self) -> str:
        shape = tuple(self.images.shape)
        return f"ImageDataset({shape}, mean={self.mean}, std={self.std}, {self.backend!r})"


def _check_labels(labels: np.ndarray) -> None:
    """DataError for labels that are no classes: no integers, or not from 0 to 2³¹ − 1."""
    if labels.dtype.kind not in "iu":
        raise DataError(
            f"expected integer labels, got {labels.dtype}; cast them with .astype(np.int64)"
        )
    wrong = np.flatnonzero((labels < 0) | (labels > MAX_LABEL))
    if wrong.size:
        raise DataError(
            f"expected labels from 0 to {MAX_LABEL}, got {labels[wrong[0]]} at position {wrong[0]}"
        )


# ---- what datasets and the loader share


def batch_of(dataset: Any) -> Any:
    """The method that makes whole batches of ``dataset``; None where it goes item by item."""
    whole = isinstance(dataset, Dataset) and stands_for(dataset, "__getitem__", "batch_at")
    found = dataset.batch_at if whole else None
    return found if callable(found) else None


def stands_for(x: Any, single: str, *whole: str) -> bool:
    """Whether the methods ``whole`` of ``x`` do for many what ``single`` does for one.

    They do not where a subclass overrides that one alone.
    """
    for kind in type(x).__mro__:
        if any(name in vars(kind) for name in whole):
            return True
        if single in vars(kind):
            return False
    return False


def rows(x: Tensor, index: np.ndarray) -> Tensor:
    """The rows of ``x`` at an int64 ``index`` (n,) of the host."""
    found: Tensor = taken(x, on_backend(index, x.backend), 0)
    return found


def check_dataset(name: str, dataset: Any) -> None:
    """TypeError for what has no items or no length."""
    if not (hasattr(dataset, "__getitem__") and hasattr(dataset, "__len__")):
        raise TypeError(
            f"{name}: expected a dataset with __getitem__ and __len__, got "
            f"{type(dataset).__name__}; TensorDataset(x, y) makes one of tensors"
        )


def check_generator(name: str, generator: Any) -> None:
    """TypeError for what is neither None nor the package's generator."""
    if generator is not None and not isinstance(generator, random.Generator):
        raise TypeError(
            f"{name}: expected a tinygrad_mnist.Generator, got {type(generator).__name__}"
        )


def is_number(x: Any) -> bool:
    """Whether ``x`` is a number of Python's or NumPy's, and no bool."""
    return isinstance(x, int | float | np.integer | np.floating) and not isinstance(x, bool)


def checked_flag(name: str, what: str, value: Any) -> bool:
    """``value`` as a bool, None as False; TypeError for what is none, and no number either."""
    if value is not None and not isinstance(value, int | np.bool_):
        raise TypeError(f"{name}: {what} must be True or False, got {shown(value)}")
    return bool(value)


def checked_position(name: str, index: Any, size: int) -> int:
    """``index`` counted from 0, as in a list. TypeError for no integer, IndexError out of range."""
    try:
        at = operator.index(index)
    except (TypeError, ValueError):
        at = None
    if at is None or isinstance(index, bool):
        raise TypeError(f"{name}: an item is at an integer, got {shown(index)}")
    if not -size <= at < size:
        raise IndexError(f"{name}: index {at} is out of range, it has {size} items")
    return at % size


def checked_indices(name: str, indices: Any, size: int) -> np.ndarray:
    """``indices`` as an int64 array, counted from 0.

    TypeError for what is no sequence of integers, IndexError outside −size … size − 1.
    """
    expected = f"{name}: expected a sequence of integers as indices, got"
    if not isinstance(indices, Sequence | np.ndarray | Tensor):
        raise TypeError(f"{expected} {type(indices).__name__}")
    try:
        found = np.asarray(indices)
    except ValueError as error:
        raise TypeError(f"{expected} sequences of several lengths") from error
    if found.ndim != 1 or (found.size and found.dtype.kind not in "iu"):
        raise TypeError(f"{expected} {found.dtype} of shape {found.shape}")
    wrong = found[(found < -size) | (found >= size)]
    if wrong.size:
        raise IndexError(f"{name}: found index {wrong[0]}, expected {-size} to {size - 1}")
    at = found.astype(np.int64, copy=False)
    return np.where(at < 0, at + size, at)
