"""The MNIST models and how each is trained."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from tinygrad_mnist import nn, optim


def cnn(channels: int = 1, classes: int = 10) -> nn.Sequential:
    """Two 5×5 convolutions with batch norm and two linear layers, for images (N, 1, 28, 28)."""
    return nn.Sequential(
        nn.Conv2d(channels, 10, 5),
        nn.MaxPool2d(2),
        nn.BatchNorm2d(10),
        nn.ReLU(),
        nn.Conv2d(10, 20, 5),
        nn.MaxPool2d(2),
        nn.BatchNorm2d(20),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(320, 50),
        nn.ReLU(),
        nn.Linear(50, classes),
    )


def mlp(features: int = 784, hidden: int = 128, classes: int = 10) -> nn.Sequential:
    """One hidden layer of ReLU with dropout, for images (N, 1, 28, 28)."""
    return nn.Sequential(
        nn.Flatten(),
        nn.Linear(features, hidden),
        nn.ReLU(),
        nn.Dropout(0.2),
        nn.Linear(hidden, classes),
    )


ARCHITECTURES: dict[str, Callable[..., nn.Sequential]] = {"cnn": cnn, "mlp": mlp}


@dataclass(frozen=True)
class Recipe:
    """What ``train`` does with a model unless told otherwise."""

    arguments: dict[str, int]
    epochs: int
    batch_size: int
    lr: float
    one_cycle: bool  # the learning rate rises to ``lr`` in a quarter of the steps, then falls


RECIPES = {
    "cnn": Recipe(
        {"channels": 1, "classes": 10},
        epochs=1,
        batch_size=64,
        lr=0.01,
        one_cycle=True,
    ),
    "mlp": Recipe(
        {"features": 784, "hidden": 128, "classes": 10},
        epochs=5,
        batch_size=32,
        lr=0.001,
        one_cycle=False,
    ),
}


def make_optimizer(name: str, model: nn.Module, lr: float) -> optim.Optimizer:
    """ "adam", or "sgd" with momentum 0.9. ValueError for another name."""
    if name == "adam":
        return optim.Adam(model.parameters(), lr=lr)
    if name == "sgd":
        return optim.SGD(model.parameters(), lr=lr, momentum=0.9)
    raise ValueError(f"no optimizer {name!r}; expected 'adam' or 'sgd'")
