"""Dropout."""

from __future__ import annotations

from tinygrad_mnist.nn import functional as F
from tinygrad_mnist.nn.functional.activations import check_inplace
from tinygrad_mnist.nn.functional.dropouts import check_p
from tinygrad_mnist.nn.module import Module
from tinygrad_mnist.tensor import Tensor


class _Dropout(Module):
    """``p``, checked: TypeError for no number, ValueError outside 0 … 1."""

    def __init__(self, p: float = 0.5, inplace: bool = False) -> None:
        super().__init__()
        check_p(type(self).__name__, "p", p)
        check_inplace(type(self).__name__, inplace)
        self.p = p
        self.inplace = inplace

    def extra_repr(self) -> str:
        return f"p={self.p}, inplace={self.inplace}"


class Dropout(_Dropout):
    """In training, zero each element with probability ``p`` and divide the others by 1 − p."""

    def forward(self, input: Tensor) -> Tensor:
        """Of the shape of ``input``."""
        return F.dropout(input, self.p, self.training)


class Dropout2d(_Dropout):
    """In training, zero whole channels with probability ``p`` and divide the others by 1 − p."""

    def forward(self, input: Tensor) -> Tensor:
        """Of the shape of ``input``, (N, C, H, W)."""
        return F.dropout2d(input, self.p, self.training)
