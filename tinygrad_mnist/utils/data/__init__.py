"""Datasets and the loader that makes batches of them."""

from tinygrad_mnist.utils.data import datasets
from tinygrad_mnist.utils.data.idx import DataError
from tinygrad_mnist.utils.data.loader import DataLoader, ImageDataset

__all__ = ["DataError", "DataLoader", "ImageDataset", "datasets"]
