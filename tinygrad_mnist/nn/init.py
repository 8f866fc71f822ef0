"""Initial values, drawn on the host from the seeded generator."""

from __future__ import annotations

import math

import numpy as np

from tinygrad_mnist import random
from tinygrad_mnist.autograd.graph import no_grad
from tinygrad_mnist.tensor import Tensor, from_numpy


def uniform_(x: Tensor, a: float = 0.0, b: float = 1.0) -> Tensor:
    """Fill with uniform numbers in [a, b)."""
    values = random.generator().uniform(a, b, x.shape)
    with no_grad():
        return x.copy_(from_numpy(np.asarray(values), backend=x.backend).to(x.dtype))


def fan_in(x: Tensor) -> int:
    """How many inputs feed one output of a weight (out, in, …)."""
    if x.ndim < 2:
        raise ValueError(f"fan_in: expected a weight of at least 2 dims, got shape {x.shape}")
    return math.prod(x.shape[1:])


def kaiming_uniform_(x: Tensor, a: float = 0.0) -> Tensor:
    """Fill with U(−b, b), b = √(6 / ((1 + a²) · fan_in)), for leaky ReLU of slope ``a``.

    He et al. 2015, "Delving deep into rectifiers".
    """
    bound = math.sqrt(6 / ((1 + a * a) * fan_in(x)))
    return uniform_(x, -bound, bound)
