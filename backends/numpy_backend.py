"""The reference backend: the contract's own defaults on NumPy."""

import numpy as np

from tinygrad_mnist.kernels import Backend


class NumpyBackend(Backend):
    """Every kernel as the contract writes it."""

    name = "numpy"
    xp = np
    array_type = np.ndarray
