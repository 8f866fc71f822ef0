"""Datasets and the loader that makes batches of them.

``datasets`` (the known ones, from a folder, the cache or the network) is imported when asked for:
``from tinygrad_mnist.utils.data import datasets``.
"""

from tinygrad_mnist.utils.data.idx import DataError
from tinygrad_mnist.utils.data.loader import DataLoader, ImageDataset

__all__ = ["DataError", "DataLoader", "ImageDataset"]
