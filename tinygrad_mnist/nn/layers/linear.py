"""Linear layers."""

from __future__ import annotations

import math
from typing import Any

from tinygrad_mnist.creation import zeros
from tinygrad_mnist.nn import functional as F
from tinygrad_mnist.nn import init
from tinygrad_mnist.nn.layers.checks import checked_float, checked_size, clearer
from tinygrad_mnist.nn.module import Module, Parameter
from tinygrad_mnist.tensor import Tensor


class Identity(Module):
    """Its input. Any arguments are taken, so that it can stand where another layer stood."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__()

    def forward(self, input: Any) -> Any:
        """``input`` itself."""
        return input


class Linear(Module):
    """y = x · weightᵀ + bias: x (…, in_features), weight (out_features, in_features).

    They begin as U(−1/√in_features, 1/√in_features). ValueError for sizes below 1.
    """

    bias: Parameter | None

    def __init__(
        self,
        in_features: int,
        out_features: int,
        bias: bool = True,
        *,
        dtype: Any = None,
        backend: Any = None,
    ) -> None:
        super().__init__()
        name = type(self).__name__
        self.in_features = checked_size(name, "in_features", in_features)
        self.out_features = checked_size(name, "out_features", out_features)
        shape = (self.out_features, self.in_features)
        dtype = checked_float(name, dtype)
        self.weight = Parameter(zeros(shape, dtype=dtype, backend=backend))
        shift = Parameter(zeros(shape[:1], dtype=dtype, backend=backend)) if bias else None
        self.register_parameter("bias", shift)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw weight and bias anew."""
        uniform_by_fan(self.weight, self.bias)

    def forward(self, input: Tensor) -> Tensor:
        """input (…, in_features) to (…, out_features)."""
        try:
            return F.linear(input, self.weight, self.bias)
        except ValueError as error:
            raise clearer(error, self, input, f"…, {self.in_features}") from None

    def extra_repr(self) -> str:
        bias = self.bias is not None
        return f"in_features={self.in_features}, out_features={self.out_features}, bias={bias}"


def uniform_by_fan(weight: Tensor, bias: Tensor | None) -> None:
    """Draw from U(−b, b) with b = 1/√(inputs of one output): what PyTorch's layers begin with."""
    bound = 1 / math.sqrt(math.prod(weight.shape[1:]))
    init.uniform_(weight, -bound, bound)
    if bias is not None:
        init.uniform_(bias, -bound, bound)
