"""Convolution and pooling of images."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tinygrad_mnist.checks import fit, shown
from tinygrad_mnist.creation import zeros
from tinygrad_mnist.kernels import Pair, Shape
from tinygrad_mnist.nn import functional as F
from tinygrad_mnist.nn.functional.windows import (
    check_divisor,
    check_named_padding,
    pair,
    part_counts,
    pooling,
)
from tinygrad_mnist.nn.layers.checks import checked_float, checked_size, clearer
from tinygrad_mnist.nn.layers.linear import uniform_by_fan
from tinygrad_mnist.nn.module import Module, Parameter
from tinygrad_mnist.tensor import Tensor

# ---- convolution


class _Conv(Module):
    """What both convolutions have: their settings, as pairs, and weight and bias."""

    bias: Parameter | None

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int | Pair,
        stride: int | Pair,
        padding: int | Pair | str,
        dilation: int | Pair,
        output_padding: int | Pair,
        groups: int,
        padding_mode: str,
    ) -> None:
        super().__init__()
        name = type(self).__name__
        self.in_channels = checked_size(name, "in_channels", in_channels)
        self.out_channels = checked_size(name, "out_channels", out_channels)
        self.groups = checked_size(name, "groups", groups)
        if in_channels % groups or out_channels % groups:
            raise ValueError(
                f"{name}: in_channels {in_channels} and out_channels {out_channels} must be "
                f"multiples of groups {groups}"
            )
        if padding_mode != "zeros":
            raise ValueError(
                f'{name}: padding_mode must be "zeros", got {shown(padding_mode)}; for another '
                "pad the input with F.pad"
            )
        self.kernel_size = pair(name, "kernel_size", kernel_size, 1)
        self.stride = pair(name, "stride", stride, 1)
        self.padding: Any = padding  # a word, or else a pair
        if isinstance(padding, str):
            check_named_padding(name, padding, self.stride)
        else:
            self.padding = pair(name, "padding", padding, 0)
        self.dilation = pair(name, "dilation", dilation, 1)
        self.output_padding = pair(name, "output_padding", output_padding, 0)
        self.padding_mode = padding_mode

    def _fill(self, shape: Shape, bias: bool, dtype: Any, backend: Any) -> None:
        """Make weight and bias."""
        given = {"dtype": checked_float(type(self).__name__, dtype), "backend": backend}
        self.weight = Parameter(zeros(shape, **given))
        self.register_parameter(
            "bias", Parameter(zeros(self.out_channels, **given)) if bias else None
        )
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw weight and bias anew."""
        uniform_by_fan(self.weight, self.bias)

    def _shapes(self) -> tuple[str, str]:
        """The inputs it takes."""
        return f"N, {self.in_channels}, H, W", f"{self.in_channels}, H, W"

    def extra_repr(self) -> str:
        given = f"kernel_size={self.kernel_size}, stride={self.stride}"
        usual = {"padding": (0, 0), "dilation": (1, 1), "output_padding": (0, 0), "groups": 1}
        parts = [f"{self.in_channels}, {self.out_channels}, {given}"]
        parts += [f"{k}={getattr(self, k)}" for k, x in usual.items() if getattr(self, k) != x]
        return ", ".join(parts if self.bias is not None else [*parts, "bias=False"])


class Conv2d(_Conv):
    """Cross-correlation of input (N, in_channels, H, W) or (in_channels, H, W): ``F.conv2d``.

    weight (out_channels, in_channels / groups, kh, kw) and bias (out_channels,) begin as
    U(−b, b), b = 1 / √(in_channels / groups · kh · kw). ``padding`` may be "same" or "valid";
    ``padding_mode`` is "zeros". ValueError for settings that make no convolution.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int | Pair,
        stride: int | Pair = 1,
        padding: int | Pair | str = 0,
        dilation: int | Pair = 1,
        groups: int = 1,
        bias: bool = True,
        padding_mode: str = "zeros",
        *,
        dtype: Any = None,
        backend: Any = None,
    ) -> None:
        super().__init__(
            in_channels, out_channels, kernel_size,
            stride, padding, dilation, 0, groups, padding_mode,
        )  # fmt: skip
        shape = (self.out_channels, self.in_channels // self.groups, *self.kernel_size)
        self._fill(shape, bias, dtype, backend)

    def forward(self, input: Tensor) -> Tensor:
        """(N, in_channels, H, W) to (N, out_channels, H', W'), or without N."""
        settings = (self.stride, self.padding, self.dilation, self.groups)
        try:
            return F.conv2d(input, self.weight, self.bias, *settings)
        except ValueError as error:
            raise clearer(error, self, input, *self._shapes()) from None


class ConvTranspose2d(_Conv):
    """The transpose of ``Conv2d``: its gradient by its input, as ``F.conv_transpose2d``.

    weight (in_channels, out_channels / groups, kh, kw) and bias (out_channels,) begin as
    U(−b, b), b = 1 / √(out_channels / groups · kh · kw). ``padding_mode`` is "zeros". ValueError
    for settings that make no convolution.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int | Pair,
        stride: int | Pair = 1,
        padding: int | Pair = 0,
        output_padding: int | Pair = 0,
        groups: int = 1,
        bias: bool = True,
        dilation: int | Pair = 1,
        padding_mode: str = "zeros",
        *,
        dtype: Any = None,
        backend: Any = None,
    ) -> None:
        margin = pair("ConvTranspose2d", "padding", padding, 0)
        super().__init__(
            in_channels, out_channels, kernel_size,
            stride, margin, dilation, output_padding, groups, padding_mode,
        )  # fmt: skip
        shape = (self.in_channels, self.out_channels // self.groups, *self.kernel_size)
        self._fill(shape, bias, dtype, backend)

    def forward(self, input: Tensor, output_size: Sequence[int] | None = None) -> Tensor:
        """(N, in_channels, H, W) to (N, out_channels, H', W'), or without N.

        ``output_size``: H' and W', last of its sizes, of those that several of H and W give; it
        takes the place of ``output_padding``. ValueError for sizes that none gives.
        """
        try:
            extra = self.output_padding if output_size is None else self._extra(input, output_size)
            return F.conv_transpose2d(
                input, self.weight, self.bias,
                self.stride, self.padding, extra, self.groups, self.dilation,
            )  # fmt: skip
        except ValueError as error:
            raise clearer(error, self, input, *self._shapes()) from None

    def _extra(self, input: Tensor, output_size: Sequence[int]) -> Pair:
        """The output padding that gives ``output_size``."""
        fit("ConvTranspose2d", "input (…, H, W)", input)
        last = output_size[-2:] if isinstance(output_size, tuple | list) else output_size
        wanted = pair("ConvTranspose2d", "output_size", last, 1)
        settings = zip(self.stride, self.padding, self.dilation, self.kernel_size, strict=True)
        sizes = zip(input.shape[-2:], settings, strict=True)
        least = [(n - 1) * s - 2 * p + d * (k - 1) + 1 for n, (s, p, d, k) in sizes]
        most = [size + s - 1 for size, s in zip(least, self.stride, strict=True)]
        if not all(a <= w <= b for a, w, b in zip(least, wanted, most, strict=True)):
            raise ValueError(
                f"ConvTranspose2d: output_size must lie between {tuple(least)} and {tuple(most)} "
                f"for input {input.shape}, got {wanted}"
            )
        return wanted[0] - least[0], wanted[1] - least[1]


# ---- pooling


class _Pool(Module):
    """A function of images, with or without a batch."""

    def forward(self, input: Tensor) -> Tensor:
        """(N, C, H, W) to (N, C, H', W'), or without N."""
        try:
            return self._pooled(input)
        except ValueError as error:
            raise clearer(error, self, input, "N, C, H, W", "C, H, W") from None

    def _pooled(self, input: Tensor) -> Tensor:
        raise NotImplementedError


class MaxPool2d(_Pool):
    """The maximum of each window of input (N, C, H, W) or (C, H, W): ``F.max_pool2d``.

    ``stride`` is ``kernel_size`` by default. ValueError for settings that make no windows, and for
    ``return_indices``.
    """

    def __init__(
        self,
        kernel_size: int | Pair,
        stride: int | Pair | None = None,
        padding: int | Pair = 0,
        dilation: int | Pair = 1,
        return_indices: bool = False,
        ceil_mode: bool = False,
    ) -> None:
        super().__init__()
        pooling("MaxPool2d", kernel_size, stride, padding)
        pair("MaxPool2d", "dilation", dilation, 1)
        if return_indices:
            raise ValueError("MaxPool2d: return_indices=True is not supported")
        self.kernel_size = kernel_size
        self.stride = kernel_size if stride is None else stride
        self.padding = padding
        self.dilation = dilation
        self.ceil_mode = ceil_mode

    def _pooled(self, input: Tensor) -> Tensor:
        return F.max_pool2d(
            input, self.kernel_size, self.stride, self.padding, self.dilation, self.ceil_mode
        )

    def extra_repr(self) -> str:
        return (
            f"kernel_size={self.kernel_size}, stride={self.stride}, padding={self.padding}, "
            f"dilation={self.dilation}, ceil_mode={self.ceil_mode}"
        )


class AvgPool2d(_Pool):
    """The mean of each window of input (N, C, H, W) or (C, H, W): ``F.avg_pool2d``.

    ``stride`` is ``kernel_size`` by default. ValueError for settings that make no windows, and for
    divisor 0.
    """

    def __init__(
        self,
        kernel_size: int | Pair,
        stride: int | Pair | None = None,
        padding: int | Pair = 0,
        ceil_mode: bool = False,
        count_include_pad: bool = True,
        divisor_override: int | None = None,
    ) -> None:
        super().__init__()
        pooling("AvgPool2d", kernel_size, stride, padding)
        check_divisor("AvgPool2d", divisor_override)
        self.kernel_size = kernel_size
        self.stride = kernel_size if stride is None else stride
        self.padding = padding
        self.ceil_mode = ceil_mode
        self.count_include_pad = count_include_pad
        self.divisor_override = divisor_override

    def _pooled(self, input: Tensor) -> Tensor:
        counting = (self.ceil_mode, self.count_include_pad, self.divisor_override)
        return F.avg_pool2d(input, self.kernel_size, self.stride, self.padding, *counting)

    def extra_repr(self) -> str:
        return f"kernel_size={self.kernel_size}, stride={self.stride}, padding={self.padding}"


class AdaptiveAvgPool2d(_Pool):
    """The means of H'×W' parts of input (N, C, H, W) or (C, H, W): ``F.adaptive_avg_pool2d``.

    ``output_size``: a number or a pair, of which None keeps a dim. ValueError for a negative one.
    """

    def __init__(self, output_size: int | tuple[int | None, int | None] | None) -> None:
        super().__init__()
        part_counts("AdaptiveAvgPool2d", output_size, (1, 1))
        self.output_size = output_size

    def _pooled(self, input: Tensor) -> Tensor:
        return F.adaptive_avg_pool2d(input, self.output_size)

    def extra_repr(self) -> str:
        return f"output_size={self.output_size}"
