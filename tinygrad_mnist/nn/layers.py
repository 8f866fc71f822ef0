"""The layers: modules around ``nn.functional``, with PyTorch's names and initial values."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

from tinygrad_mnist.creation import ones, zeros
from tinygrad_mnist.kernels import Pair
from tinygrad_mnist.nn import functional as F
from tinygrad_mnist.nn import init
from tinygrad_mnist.nn.functional.windows import pair
from tinygrad_mnist.nn.module import Module, Parameter
from tinygrad_mnist.tensor import Tensor


class Sequential(Module):
    """Modules one after the other: ``Sequential(Linear(2, 3), ReLU())``."""

    def __init__(self, *layers: Module) -> None:
        super().__init__()
        for i, layer in enumerate(layers):
            if not isinstance(layer, Module):
                raise TypeError(f"Sequential: layer {i} is no module but {type(layer).__name__}")
            setattr(self, str(i), layer)

    def forward(self, x: Any) -> Any:
        """``x`` through each layer in turn."""
        for layer in self.children():
            x = layer(x)
        return x

    def __len__(self) -> int:
        return len(list(self.children()))

    def __iter__(self) -> Iterator[Module]:
        return self.children()

    def __getitem__(self, index: int) -> Module:
        return list(self.children())[index]


class Linear(Module):
    """y = x · weightᵀ + bias: x (…, in_features), weight (out_features, in_features)."""

    def __init__(self, in_features: int, out_features: int, bias: bool = True) -> None:
        super().__init__()
        self.in_features = in_features
        self.out_features = out_features
        self.weight = Parameter(zeros(out_features, in_features))
        self.bias = Parameter(zeros(out_features)) if bias else None
        _initialise(self.weight, self.bias)

    def forward(self, x: Tensor) -> Tensor:
        """x (…, in_features) to (…, out_features)."""
        return F.linear(x, self.weight, self.bias)

    def extra_repr(self) -> str:
        bias = self.bias is not None
        return f"in_features={self.in_features}, out_features={self.out_features}, bias={bias}"


class Conv2d(Module):
    """Cross-correlation of x (N, in_channels, H, W); see ``nn.functional.conv2d``."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int | Pair,
        stride: int | Pair = 1,
        padding: int | Pair = 0,
        dilation: int | Pair = 1,
        groups: int = 1,
        bias: bool = True,
    ) -> None:
        super().__init__()
        if groups < 1 or in_channels % groups or out_channels % groups:
            raise ValueError(
                f"Conv2d: in_channels {in_channels} and out_channels {out_channels} must be "
                f"multiples of groups {groups}"
            )
        self.in_channels = in_channels
        self.out_channels = out_channels
        self.kernel_size = pair("Conv2d", "kernel_size", kernel_size, 1)
        self.stride = stride
        self.padding = padding
        self.dilation = dilation
        self.groups = groups
        self.weight = Parameter(zeros(out_channels, in_channels // groups, *self.kernel_size))
        self.bias = Parameter(zeros(out_channels)) if bias else None
        _initialise(self.weight, self.bias)

    def forward(self, x: Tensor) -> Tensor:
        """x (N, in_channels, H, W) to (N, out_channels, H', W')."""
        return F.conv2d(
            x, self.weight, self.bias, self.stride, self.padding, self.dilation, self.groups
        )

    def extra_repr(self) -> str:
        parts = [f"{self.in_channels}, {self.out_channels}, kernel_size={self.kernel_size}"]
        defaults = {"stride": 1, "padding": 0, "dilation": 1, "groups": 1}
        parts += [f"{k}={getattr(self, k)}" for k, d in defaults.items() if getattr(self, k) != d]
        return ", ".join(parts if self.bias is not None else [*parts, "bias=False"])


def _initialise(weight: Parameter, bias: Parameter | None) -> None:
    """PyTorch's default: weight and bias from U(−1/√fan_in, 1/√fan_in)."""
    init.kaiming_uniform_(weight, a=math.sqrt(5))
    if bias is not None:
        bound = 1 / math.sqrt(init.fan_in(weight))
        init.uniform_(bias, -bound, bound)


class MaxPool2d(Module):
    """The maximum of each window of x (N, C, H, W)."""

    def __init__(
        self,
        kernel_size: int | Pair,
        stride: int | Pair | None = None,
        padding: int | Pair = 0,
    ) -> None:
        super().__init__()
        self.kernel_size = kernel_size
        self.stride = stride
        self.padding = padding

    def forward(self, x: Tensor) -> Tensor:
        """x (N, C, H, W) to (N, C, H', W')."""
        return F.max_pool2d(x, self.kernel_size, self.stride, self.padding)

    def extra_repr(self) -> str:
        stride = self.kernel_size if self.stride is None else self.stride
        return f"kernel_size={self.kernel_size}, stride={stride}, padding={self.padding}"


class _BatchNorm(Module):
    """Batch norm over all dims but the second; see ``nn.functional.batch_norm``."""

    _ndims: tuple[int, ...]

    def __init__(self, num_features: int, eps: float = 1e-5, momentum: float = 0.1) -> None:
        super().__init__()
        self.num_features = num_features
        self.eps = eps
        self.momentum = momentum
        self.weight = Parameter(ones(num_features))
        self.bias = Parameter(zeros(num_features))
        self.running_mean: Tensor
        self.running_var: Tensor
        self.num_batches_tracked: Tensor
        self.register_buffer("running_mean", zeros(num_features))
        self.register_buffer("running_var", ones(num_features))
        self.register_buffer("num_batches_tracked", zeros(dtype="int64"))

    def forward(self, x: Tensor) -> Tensor:
        """Of the shape of ``x``, (N, num_features, …)."""
        if x.ndim not in self._ndims or x.shape[1] != self.num_features:
            dims = " or ".join(str(d) for d in self._ndims)
            raise ValueError(
                f"{type(self).__name__}: expected {dims} dims with {self.num_features} channels, "
                f"got shape {tuple(x.shape)}"
            )
        y = F.batch_norm(
            x, self.running_mean, self.running_var, self.weight, self.bias,
            self.training, self.momentum, self.eps,
        )  # fmt: skip
        if self.training:
            self.num_batches_tracked.add_(1)
        return y

    def extra_repr(self) -> str:
        return f"{self.num_features}, eps={self.eps}, momentum={self.momentum}"


class BatchNorm1d(_BatchNorm):
    """Batch norm of x (N, C) or (N, C, L)."""

    _ndims = (2, 3)


class BatchNorm2d(_BatchNorm):
    """Batch norm of x (N, C, H, W)."""

    _ndims = (4,)


class Dropout(Module):
    """In training, zero each element with probability ``p`` and divide the others by 1 − p."""

    def __init__(self, p: float = 0.5) -> None:
        super().__init__()
        if not 0 <= p <= 1:
            raise ValueError(f"Dropout: p must lie in 0 to 1, got {p}")
        self.p = p

    def forward(self, x: Tensor) -> Tensor:
        """Of the shape of ``x``."""
        return F.dropout(x, self.p, self.training)

    def extra_repr(self) -> str:
        return f"p={self.p}"


class Flatten(Module):
    """The dims from ``start_dim`` to ``end_dim`` as one."""

    def __init__(self, start_dim: int = 1, end_dim: int = -1) -> None:
        super().__init__()
        self.start_dim = start_dim
        self.end_dim = end_dim

    def forward(self, x: Tensor) -> Tensor:
        """x (N, …) to (N, features) by default."""
        return x.flatten(self.start_dim, self.end_dim)

    def extra_repr(self) -> str:
        return f"start_dim={self.start_dim}, end_dim={self.end_dim}"


class ReLU(Module):
    """max(x, 0)."""

    def forward(self, x: Tensor) -> Tensor:
        """Of the shape of ``x``."""
        return F.relu(x)


class Sigmoid(Module):
    """1 / (1 + e⁻ˣ)."""

    def forward(self, x: Tensor) -> Tensor:
        """Of the shape of ``x``."""
        return F.sigmoid(x)


class Tanh(Module):
    """The hyperbolic tangent."""

    def forward(self, x: Tensor) -> Tensor:
        """Of the shape of ``x``."""
        return F.tanh(x)


class CrossEntropyLoss(Module):
    """−log softmax(x)[target]; see ``nn.functional.cross_entropy``."""

    def __init__(self, reduction: str = "mean") -> None:
        super().__init__()
        self.reduction = reduction

    def forward(self, x: Tensor, target: Tensor) -> Tensor:
        """Logits x (N, C) and classes target (N,) int64 to a scalar, or (N,) unreduced."""
        return F.cross_entropy(x, target, reduction=self.reduction)


class MSELoss(Module):
    """(x − target)²; see ``nn.functional.mse_loss``."""

    def __init__(self, reduction: str = "mean") -> None:
        super().__init__()
        self.reduction = reduction

    def forward(self, x: Tensor, target: Tensor) -> Tensor:
        """Equal shapes to a scalar, or that shape unreduced."""
        return F.mse_loss(x, target, self.reduction)
