"""The data of the seven steps; the steps themselves are those that ``verify`` compares, too."""

import numpy as np

from tinygrad_mnist.verification.steps import STEPS


def data(step):
    """Images (N, 784), or (N, 1, 28, 28) for the CNN, labels (N,) and one-hot labels (N, 10)."""
    draw, rows = np.random.default_rng(0), STEPS[step][1]
    x = draw.random((rows, 1, 28, 28) if step.startswith("cnn") else (rows, 784), np.float32)
    y = draw.integers(0, 10, rows)
    return x, y, np.eye(10, dtype=np.float32)[y]
