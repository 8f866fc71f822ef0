"""The known datasets, ready for a ``DataLoader``: as one ``load``, and as PyTorch names them."""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from tinygrad_mnist.checks import INT
from tinygrad_mnist.creation import as_tensor
from tinygrad_mnist.kernels import Backend
from tinygrad_mnist.optional import needed
from tinygrad_mnist.tensor import Tensor, of_host
from tinygrad_mnist.utils.data import sources
from tinygrad_mnist.utils.data.dataset import (
    Dataset,
    ImageDataset,
    checked_flag,
    checked_position,
    rows,
)
from tinygrad_mnist.utils.data.fetch import Report
from tinygrad_mnist.utils.data.transforms import Transform, takes_batches, transformed_rows

# Mean and deviation of the training pixels, scaled to 0 … 1.
STATISTICS = {"mnist": (0.1307, 0.3081), "fashion": (0.2860, 0.3530), "kmnist": (0.1918, 0.3483)}


def load(
    name: str = "mnist",
    folder: str | Path | None = None,
    *,
    backend: str | Backend | None = None,
    report: Report = sources.to_stderr,
) -> tuple[ImageDataset, ImageDataset]:
    """The training and the test part of "mnist", "fashion" or "kmnist", normalised.

    ``folder`` is where the files are; without one the cache and then the network are tried. See
    ``sources.load`` for the errors.
    """
    arrays = sources.load(name, folder, report=report)
    mean, std = STATISTICS[name]
    return (
        ImageDataset(arrays.train_images, arrays.train_labels, mean, std, backend),
        ImageDataset(arrays.test_images, arrays.test_labels, mean, std, backend),
    )


class MNIST(Dataset):
    """MNIST (LeCun, Bottou, Bengio, Haffner 1998): item i is a PIL image and its label as int.

    ``transform`` and ``target_transform`` are applied to them. The loader gets whole batches where
    there is no ``target_transform`` and the transforms take batches, ``ToTensor`` among them.
    ``data`` (N, 28, 28) uint8 and ``targets`` (N,) int64 are tensors on the current backend, from
    which all items are made; ``classes`` are the labels' names.

    The files are those in ``root`` or in its folder MNIST/raw, where PyTorch puts them; where there
    are none, which a line on stderr says, ``TINYGRAD_MNIST_DATA``'s, the cache's or, with
    ``download``, the network's: what is fetched is kept in the cache. DataError where there is no
    usable data.
    """

    name: ClassVar[str] = "mnist"
    classes: ClassVar[list[str]] = [
        f"{i} - {word}"
        for i, word in enumerate(
            ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
        )
    ]

    def __init__(
        self,
        root: str | Path | None = None,
        train: bool = True,
        transform: Callable[[Any], Any] | None = None,
        target_transform: Callable[[Any], Any] | None = None,
        download: bool = True,
    ) -> None:
        self.train = checked_flag(type(self).__name__, "train", train)
        folder = None if root is None else self._folder(Path(os.path.expanduser(root)))
        arrays = sources.load(self.name, folder, download=download)
        images, labels = (
            (arrays.train_images, arrays.train_labels)
            if self.train
            else (arrays.test_images, arrays.test_labels)
        )
        self.transform = transform
        self.target_transform = target_transform
        self.data = as_tensor(images)
        self.targets = as_tensor(labels, dtype=INT)

    def _folder(self, root: Path) -> Path | None:
        """Where under ``root`` the files are, if they are there."""
        folders = (root, root / type(self).__name__ / "raw")
        found = next((folder for folder in folders if sources.holds(folder, self.name)), None)
        if found is None:
            _note_elsewhere(root, type(self).__name__)
        return found

    def __len__(self) -> int:
        return len(self.data)

    def __getitem__(self, index: int) -> tuple[Any, Any]:
        with needed("an item of MNIST, a picture,"):
            from PIL import Image  # noqa: PLC0415

        at = checked_position(type(self).__name__, index, len(self))
        image: Any = Image.fromarray(self.data[at].numpy())
        label: Any = self.targets[at].item()
        return (
            image if self.transform is None else self.transform(image),
            label if self.target_transform is None else self.target_transform(label),
        )

    @property
    def batch_at(self) -> Any:
        """Whole batches, where the transforms make them."""
        transform = self.transform
        if not takes_batches(transform) or self.target_transform is not None:
            return None
        return self._batch_at if transform.scales else None

    @property
    def _on_device(self) -> bool:  # type: ignore[override]
        return not of_host(self.data.backend)

    def _batch_at(self, index: np.ndarray) -> list[Tensor]:
        assert isinstance(self.transform, Transform)
        images = transformed_rows(self.transform, self.data.unsqueeze(1), index)
        return [images, rows(self.targets, index)]

    def __repr__(self) -> str:
        kind = type(self).__name__
        return f"{kind}({len(self)} images, train={self.train}, transform={self.transform!r})"


@cache
def _note_elsewhere(root: Path, dataset: str) -> None:
    """Say once, not for each part, that the files are looked for elsewhere."""
    sources.to_stderr(f"{root}: no {dataset} files there; looking where they are kept otherwise")


class FashionMNIST(MNIST):
    """Fashion-MNIST (Xiao, Rasul, Vollgraf 2017): clothes; used as ``MNIST`` is."""

    name = "fashion"
    classes: ClassVar[list[str]] = [
        "T-shirt/top",
        "Trouser",
        "Pullover",
        "Dress",
        "Coat",
        "Sandal",
        "Shirt",
        "Sneaker",
        "Bag",
        "Ankle boot",
    ]


class KMNIST(MNIST):
    """Kuzushiji-MNIST (Clanuwat et al. 2018): cursive Japanese; used as ``MNIST`` is."""

    name = "kmnist"
    classes: ClassVar[list[str]] = ["o", "ki", "su", "tsu", "na", "ha", "ma", "ya", "re", "wo"]


def class_names(name: str) -> tuple[str, ...]:
    """What the labels of "mnist", "fashion" or "kmnist" stand for; of MNIST, the digits."""
    if name == "mnist":
        return tuple("0123456789")
    return tuple({"fashion": FashionMNIST, "kmnist": KMNIST}[name].classes)
