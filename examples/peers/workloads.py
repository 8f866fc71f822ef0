"""The seven steps: their networks, rows and data."""

import numpy as np

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


def data(step):
    """Images (N, 784), or (N, 1, 28, 28) for the CNN, labels (N,) and one-hot labels (N, 10)."""
    draw, rows = np.random.default_rng(0), STEPS[step][1]
    x = draw.random((rows, 1, 28, 28) if step.startswith("cnn") else (rows, 784), np.float32)
    y = draw.integers(0, 10, rows)
    return x, y, np.eye(10, dtype=np.float32)[y]
