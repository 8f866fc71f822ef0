"""What the examples use of torchvision, for a PyTorch that stands alone."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import torch

from tinygrad_mnist.utils.data import sources

_Transform = Callable[..., torch.Tensor]


class _MNIST(torch.utils.data.Dataset[tuple[torch.Tensor, int]]):
    """Transformed images with their labels; ``root`` is used where there is such a folder."""

    def __init__(self, root: str, train: bool, transform: _Transform, download: bool) -> None:
        found = sources.load("mnist", root if Path(root).is_dir() else None)
        images = found.train_images if train else found.test_images
        self.labels = (found.train_labels if train else found.test_labels).tolist()
        self.images = [transform(image) for image in images]

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        return self.images[index], self.labels[index]


def _to_tensor() -> _Transform:
    def scaled(image: np.ndarray) -> torch.Tensor:
        return torch.from_numpy(image).unsqueeze(0) / 255

    return scaled


def _normalize(mean: tuple[float], std: tuple[float]) -> _Transform:
    return lambda image: (image - mean[0]) / std[0]


def _compose(steps: list[_Transform]) -> _Transform:
    def composed(image: np.ndarray) -> torch.Tensor:
        result: torch.Tensor = image
        for step in steps:
            result = step(result)
        return result

    return composed


datasets = SimpleNamespace(MNIST=_MNIST)
transforms = SimpleNamespace(Compose=_compose, Normalize=_normalize, ToTensor=_to_tensor)
