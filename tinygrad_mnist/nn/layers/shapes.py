"""Layers that only change the shape."""

from __future__ import annotations

from collections.abc import Sequence

from tinygrad_mnist.checks import checked_integer, no_tensor, shape_of, shown
from tinygrad_mnist.nn.module import Module
from tinygrad_mnist.tensor import Tensor


class Flatten(Module):
    """The dims from ``start_dim`` to ``end_dim`` as one."""

    def __init__(self, start_dim: int = 1, end_dim: int = -1) -> None:
        super().__init__()
        self.start_dim = checked_integer("Flatten", "start_dim", start_dim)
        self.end_dim = checked_integer("Flatten", "end_dim", end_dim)

    def forward(self, input: Tensor) -> Tensor:
        """(N, …) to (N, features) by default."""
        if not isinstance(input, Tensor):
            raise no_tensor(type(self).__name__, "input", input)
        return input.flatten(self.start_dim, self.end_dim)

    def extra_repr(self) -> str:
        return f"start_dim={self.start_dim}, end_dim={self.end_dim}"


class Unflatten(Module):
    """``dim`` as dims of ``unflattened_size``, one of which may be -1."""

    def __init__(self, dim: int, unflattened_size: Sequence[int]) -> None:
        super().__init__()
        if not isinstance(unflattened_size, tuple | list):
            raise TypeError(
                "Unflatten: unflattened_size must be a tuple of integers, got "
                f"{shown(unflattened_size)}"
            )
        self.dim = checked_integer("Unflatten", "dim", dim)
        self.unflattened_size = shape_of((unflattened_size,), "Unflatten")

    def forward(self, input: Tensor) -> Tensor:
        """(…, n, …) to (…, *unflattened_size, …)."""
        if not isinstance(input, Tensor):
            raise no_tensor(type(self).__name__, "input", input)
        return input.unflatten(self.dim, self.unflattened_size)

    def extra_repr(self) -> str:
        return f"dim={self.dim}, unflattened_size={self.unflattened_size}"
