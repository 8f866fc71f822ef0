"""Batches of images from arrays that stay uint8 in memory."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np

from tinygrad_mnist import random
from tinygrad_mnist.backend import resolve
from tinygrad_mnist.kernels import Backend
from tinygrad_mnist.ops.networks import take_scaled
from tinygrad_mnist.tensor import Tensor, as_tensor
from tinygrad_mnist.utils.data.idx import DataError

MAX_LABEL = 2**31 - 1


class ImageDataset:
    """Images (N, H, W) uint8 with labels (N,), kept as they are on a backend.

    ``batch`` gives float32 pixels (value/255 − mean) / std. DataError for an empty dataset, one
    whose images and labels do not belong together, and labels that are no classes.
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
        self.images = as_tensor(images[:, None], backend=self.backend)

    def __len__(self) -> int:
        return len(self.labels)

    def __repr__(self) -> str:
        shape = tuple(self.images.shape)
        return f"ImageDataset({shape}, mean={self.mean}, std={self.std}, {self.backend!r})"

    def batch(self, index: Tensor) -> Tensor:
        """The images at ``index`` (n,) int64: float32 (n, 1, H, W)."""
        scale = 1 / (255 * self.std)
        return take_scaled(self.images, index, scale, -self.mean / self.std)


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


class DataLoader:
    """Batches (images, labels) of a dataset: float32 (n, 1, H, W) and int64 (n,).

    ``shuffle`` draws a new order for each pass, from ``seed`` or else from the generator that
    ``manual_seed`` sets. The last batch may be smaller, or is left out with ``drop_last``.
    """

    def __init__(
        self,
        dataset: ImageDataset,
        batch_size: int = 1,
        shuffle: bool = False,
        drop_last: bool = False,
        seed: int | None = None,
    ) -> None:
        if not isinstance(dataset, ImageDataset):
            raise TypeError(
                f"DataLoader: expected an ImageDataset, got {type(dataset).__name__}; "
                "datasets.load() and ImageDataset(images, labels) make one"
            )
        whole = isinstance(batch_size, int | np.integer) and not isinstance(batch_size, bool)
        if not whole or batch_size < 1:
            raise ValueError(
                "DataLoader: batch_size must be an integer of at least 1, got "
                f"{batch_size!r} ({type(batch_size).__name__})"
            )
        self.dataset = dataset
        self.batch_size = int(batch_size)
        self.shuffle = shuffle
        self.drop_last = drop_last
        self._generator = None if seed is None else np.random.default_rng(seed)

    def __len__(self) -> int:
        full, rest = divmod(len(self.dataset), self.batch_size)
        return full + bool(rest and not self.drop_last)

    def __repr__(self) -> str:
        return f"DataLoader({len(self)} batches of {self.batch_size}, shuffle={self.shuffle})"

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        order = np.arange(len(self.dataset), dtype=np.int64)
        if self.shuffle:
            (self._generator or random.generator()).shuffle(order)
        index = as_tensor(order, backend=self.dataset.backend)
        labels = as_tensor(self.dataset.labels[order], backend=self.dataset.backend)
        for i in range(len(self)):
            part = slice(i * self.batch_size, (i + 1) * self.batch_size)
            yield self.dataset.batch(index[part]), labels[part]
