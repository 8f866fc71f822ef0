"""Normalisation over the batch, over an example's features, and over groups of channels."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np

from tinygrad_mnist.checks import check_scalars
from tinygrad_mnist.creation import ones, zeros
from tinygrad_mnist.kernels import Shape
from tinygrad_mnist.nn import functional as F
from tinygrad_mnist.nn import init
from tinygrad_mnist.nn.functional.normalisation import checked_sizes
from tinygrad_mnist.nn.layers.checks import checked_float, checked_size, clearer, unfit
from tinygrad_mnist.nn.module import Module, Parameter
from tinygrad_mnist.tensor import Tensor


class _Norm(Module):
    """What they share: ``eps``, and a weight of ones and a bias of zeros, where they are wanted."""

    weight: Parameter | None
    bias: Parameter | None

    def __init__(
        self, shape: Shape, eps: float, affine: bool, bias: bool, dtype: Any, backend: Any
    ) -> None:
        super().__init__()
        name = type(self).__name__
        check_scalars(name, eps=eps)
        dtype = checked_float(name, dtype)
        self.eps = eps
        self.weight = Parameter(ones(shape, dtype=dtype, backend=backend)) if affine else None
        self.bias = (
            Parameter(zeros(shape, dtype=dtype, backend=backend)) if affine and bias else None
        )

    def reset_parameters(self) -> None:
        """Set weight to ones and bias to zeros again."""
        if self.weight is not None:
            init.ones_(self.weight)
        if self.bias is not None:
            init.zeros_(self.bias)


class _BatchNorm(_Norm):
    """Batch norm of input whose second dim is ``num_features``."""

    _takes: ClassVar[dict[int, str]]  # shapes by their number of dims
    running_mean: Tensor | None
    running_var: Tensor | None
    num_batches_tracked: Tensor | None

    def __init__(
        self,
        num_features: int,
        eps: float = 1e-5,
        momentum: float | None = 0.1,
        affine: bool = True,
        track_running_stats: bool = True,
        *,
        bias: bool = True,
        dtype: Any = None,
        backend: Any = None,
    ) -> None:
        name = type(self).__name__
        shape = (checked_size(name, "num_features", num_features),)
        super().__init__(shape, eps, affine, bias, dtype, backend)
        if momentum is not None:
            check_scalars(name, momentum=momentum)
        self.num_features = shape[0]
        self.momentum = momentum
        self.affine = affine
        self.track_running_stats = track_running_stats
        buffers = {
            "running_mean": zeros(shape, dtype=dtype, backend=backend),
            "running_var": ones(shape, dtype=dtype, backend=backend),
            "num_batches_tracked": zeros(dtype="int64", backend=backend),
        }
        for key, value in buffers.items():
            self.register_buffer(key, value if track_running_stats else None)

    def reset_running_stats(self) -> None:
        """Forget the batches seen."""
        fresh = (self.running_mean, 0), (self.running_var, 1), (self.num_batches_tracked, 0)
        for buffer, value in fresh:
            if buffer is not None:
                init.constant_(buffer, value)

    def reset_parameters(self) -> None:
        """Forget the batches seen, and set weight to ones and bias to zeros again."""
        self.reset_running_stats()
        super().reset_parameters()

    def forward(self, input: Tensor) -> Tensor:
        """Of the shape of ``input``, (N, num_features, …)."""
        if isinstance(input, Tensor):
            shape = input.array.shape
            if len(shape) not in self._takes or shape[1] != self.num_features:
                raise unfit(self, input, *self._shapes())
        tracks = self.training and self.track_running_stats
        running = tracks or not self.training
        mean, var = (self.running_mean, self.running_var) if running else (None, None)
        y = F.batch_norm(
            input, mean, var, self.weight, self.bias,
            self.training or mean is None, self._share(tracks), self.eps,
        )  # fmt: skip
        if tracks and self.num_batches_tracked is not None:
            self.num_batches_tracked.add_(1)
        return y

    def _shapes(self) -> list[str]:
        return [shape.replace("C", str(self.num_features)) for shape in self._takes.values()]

    def _share(self, tracks: bool) -> float | Tensor:
        """What the batch counts in the running statistics: for all alike, 1 / its number."""
        if self.momentum is not None:
            return self.momentum
        if not tracks or self.running_mean is None or self.num_batches_tracked is None:
            return 0.0
        return (self.num_batches_tracked + 1).to(self.running_mean.dtype).reciprocal()

    def extra_repr(self) -> str:
        return (
            f"{self.num_features}, eps={self.eps}, momentum={self.momentum}, affine={self.affine}, "
            f"bias={self.bias is not None}, track_running_stats={self.track_running_stats}"
        )


class BatchNorm1d(_BatchNorm):
    """Batch norm of input (N, num_features) or (N, num_features, L), as ``F.batch_norm``.

    In training it normalises by the batch, and its running mean and variance move towards the
    batch's by ``momentum``; None weighs all batches alike. Otherwise it normalises by the running
    ones, or without ``track_running_stats`` by the batch, too. Weight (ones at first) and bias
    (zeros) are (num_features,), and there where ``affine`` and ``bias`` say so. ValueError for
    num_features below 1, and for an input of another shape. Ioffe, Szegedy 2015.
    """

    _takes: ClassVar = {2: "N, C", 3: "N, C, L"}


class BatchNorm2d(_BatchNorm):
    """Batch norm of input (N, num_features, H, W); see ``BatchNorm1d``."""

    _takes: ClassVar = {4: "N, C, H, W"}


class LayerNorm(_Norm):
    """Normalisation over the last dims, ``normalized_shape``, a size or several: ``F.layer_norm``.

    Weight (ones at first) and bias (zeros) are of that shape, and there where
    ``elementwise_affine`` and ``bias`` say so. Ba, Kiros, Hinton 2016.
    """

    def __init__(
        self,
        normalized_shape: int | Sequence[int],
        eps: float = 1e-5,
        elementwise_affine: bool = True,
        bias: bool = True,
        *,
        dtype: Any = None,
        backend: Any = None,
    ) -> None:
        if isinstance(normalized_shape, int | np.integer):
            normalized_shape = (normalized_shape,)
        shape = checked_sizes("LayerNorm", normalized_shape)
        super().__init__(shape, eps, elementwise_affine, bias, dtype, backend)
        self.normalized_shape = shape
        self.elementwise_affine = elementwise_affine

    def forward(self, input: Tensor) -> Tensor:
        """Of the shape of ``input``, (…, *normalized_shape)."""
        try:
            return F.layer_norm(input, self.normalized_shape, self.weight, self.bias, self.eps)
        except ValueError as error:
            sizes = ", ".join(map(str, self.normalized_shape))
            raise clearer(error, self, input, f"…, {sizes}") from None

    def extra_repr(self) -> str:
        return (
            f"{self.normalized_shape}, eps={self.eps}, "
            f"elementwise_affine={self.elementwise_affine}, bias={self.bias is not None}"
        )


class GroupNorm(_Norm):
    """Normalisation over groups of neighbouring channels: ``F.group_norm``.

    Weight (ones at first) and bias (zeros) are (num_channels,), and there where ``affine`` and
    ``bias`` say so. ValueError where num_groups does not divide num_channels. Wu, He 2018.
    """

    def __init__(
        self,
        num_groups: int,
        num_channels: int,
        eps: float = 1e-5,
        affine: bool = True,
        *,
        bias: bool = True,
        dtype: Any = None,
        backend: Any = None,
    ) -> None:
        groups = checked_size("GroupNorm", "num_groups", num_groups)
        channels = checked_size("GroupNorm", "num_channels", num_channels)
        if channels % groups:
            raise ValueError(
                f"GroupNorm: num_groups must divide num_channels {channels}, got {groups}"
            )
        super().__init__((channels,), eps, affine, bias, dtype, backend)
        self.num_groups = groups
        self.num_channels = channels
        self.affine = affine

    def forward(self, input: Tensor) -> Tensor:
        """Of the shape of ``input``, (N, num_channels, …)."""
        if isinstance(input, Tensor) and input.array.shape[1:2] != (self.num_channels,):
            raise unfit(self, input, f"N, {self.num_channels}, …")
        return F.group_norm(input, self.num_groups, self.weight, self.bias, self.eps)

    def extra_repr(self) -> str:
        return (
            f"{self.num_groups}, {self.num_channels}, eps={self.eps}, affine={self.affine}, "
            f"bias={self.bias is not None}"
        )
