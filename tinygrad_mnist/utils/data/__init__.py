"""Datasets and the loader that makes batches of them.

``datasets`` (the known ones, from a folder, the cache or the network) and ``transforms`` are
imported when asked for: ``from tinygrad_mnist.utils.data import datasets, transforms``.
"""

from tinygrad_mnist.utils.data.collate import default_collate
from tinygrad_mnist.utils.data.dataset import (
    Dataset,
    ImageDataset,
    Subset,
    TensorDataset,
    random_split,
)
from tinygrad_mnist.utils.data.idx import DataError
from tinygrad_mnist.utils.data.loader import DataLoader

__all__ = ["DataError", "DataLoader", "Dataset", "ImageDataset", "Subset", "TensorDataset"]
__all__ += ["default_collate", "random_split"]
