"""The known datasets, ready for a ``DataLoader``."""

from __future__ import annotations

from pathlib import Path

from tinygrad_mnist.kernels import Backend
from tinygrad_mnist.utils.data import sources
from tinygrad_mnist.utils.data.fetch import Report
from tinygrad_mnist.utils.data.loader import ImageDataset

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
