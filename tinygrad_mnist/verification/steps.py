"""The training steps of seven small networks, as a PyTorch user writes them.

``verify`` compares the backends on them, and ``examples/compare_with_peers.py`` times them. ``lib``
is ``tinygrad_mnist``, or ``torch``: nothing but the imports differs.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

# Each step, and its rows.
STEPS = {
    "sgd-10": ("784-15-10 sigmoid, quadratic, SGD, batch 10", 10),
    "mlp-32": ("784-128-10 ReLU, dropout, Adam, batch 32", 32),
    "mlp-128": ("784-128-10 ReLU, dropout, Adam, batch 128", 128),
    "full-32-16": ("784-32-16-10 sigmoid, MSE, 60,000 rows", 60_000),
    "full-100": ("784-100-10 sigmoid, cross-entropy, 60,000 rows", 60_000),
    "cnn-64": ("CNN 10-20 5×5, Adagrad, batch 64", 64),
    "cnn-512": ("CNN 10-20 5×5, Adagrad, batch 512", 512),
}

# The widths of those that are linear layers alone.
WIDTHS = {
    "sgd-10": (784, 15, 10),
    "mlp-32": (784, 128, 10),
    "mlp-128": (784, 128, 10),
    "full-32-16": (784, 32, 16, 10),
    "full-100": (784, 100, 10),
}
ONE_HOT = ("sgd-10", "full-32-16")  # whose targets are one-hot labels (N, 10), not (N,)


def network(step: str, lib: Any) -> tuple[Any, Any]:
    """The network of a step, for images (N, 784), or (N, 1, 28, 28) for a CNN; its optimizer."""
    nn, optim = lib.nn, lib.optim
    if step.startswith("cnn"):
        model = nn.Sequential(
            nn.Conv2d(1, 10, 5), nn.MaxPool2d(2), nn.ReLU(),
            nn.Conv2d(10, 20, 5), nn.Dropout2d(), nn.MaxPool2d(2), nn.ReLU(), nn.Flatten(),
            nn.Linear(320, 50), nn.ReLU(), nn.Dropout(), nn.Linear(50, 10),
        )  # fmt: skip
        return model, optim.Adagrad(model.parameters())
    if step.startswith("mlp"):
        model = nn.Sequential(nn.Linear(784, 128), nn.ReLU(), nn.Dropout(0.2), nn.Linear(128, 10))
        return model, optim.Adam(model.parameters())
    layers: list[Any] = []
    for before, after in itertools.pairwise(WIDTHS[step]):
        layers += [nn.Linear(before, after), nn.Sigmoid()]
    model = nn.Sequential(*(layers[:-1] if step == "full-100" else layers))
    return model, optim.SGD(model.parameters(), lr=0.1)


def cost_of(step: str, lib: Any) -> Callable[[Any, Any], Any]:
    """The loss of a step as a function of the network's output and the target."""
    if step == "sgd-10":
        return lambda output, onehot: (output - onehot).square().sum() * (0.5 / len(output))
    if step == "full-32-16":
        return lib.nn.functional.mse_loss
    return lib.nn.functional.cross_entropy
