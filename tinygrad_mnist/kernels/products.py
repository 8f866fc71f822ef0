"""Products, convolution and pooling."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np

from tinygrad_mnist.kernels.base import Act, Array, Pair, Shape, view
from tinygrad_mnist.kernels.indexing import Indexing


class Conv(NamedTuple):
    """The settings of a convolution and of its gradients."""

    stride: Pair
    padding: Pair
    dilation: Pair
    groups: int


class Pool(NamedTuple):
    """The settings of a pooling and of its gradient."""

    size: Pair
    stride: Pair
    padding: Pair


class Products(Indexing):
    """Images are (N, C, H, W)."""

    def matmul(self, x: Array, y: Array, *, out: Array = None) -> Array:
        return self.xp.matmul(x, y, out=out)

    def linear(
        self, x: Array, weight: Array, bias: Array = None, *, act: Act = None, out: Array = None
    ) -> Array:
        """x (N, in) · weight (out, in)ᵀ + bias (out,), then ``act``."""
        out = self.xp.matmul(x, weight.T, out=out)
        out = out if bias is None else self.xp.add(out, bias, out=out)
        return self._activated(out, act)

    def linear_dw(self, dY: Array, x: Array, *, out: Array = None) -> Array:
        """Gradient of linear by its weight: dY (N, out)ᵀ · x (N, in)."""
        return self.xp.matmul(dY.T, x, out=out)

    @view
    def windows(self, x: Array, *, size: Pair, stride: Pair, dilation: Pair) -> Array:
        """Windows of x (N, C, H, W), read-only: (N, C, kh, kw, H', W')."""
        n, c, h, w = x.shape
        spots = convolved((h, w), size, stride, dilation)
        s0, s1, s2, s3 = x.strides
        strides = (s0, s1, s2 * dilation[0], s3 * dilation[1], s2 * stride[0], s3 * stride[1])
        return self.xp.lib.stride_tricks.as_strided(x, (n, c, *size, *spots), strides)

    def windows_grad(
        self, dY: Array, *, shape: Shape, stride: Pair, dilation: Pair, out: Array = None
    ) -> Array:
        """``dY`` (N, C, kh, kw, H', W') added up where its windows lie: ``shape`` (N, C, H, W)."""
        out = self._filled(out, shape, dY.dtype, 0)
        size, spots = dY.shape[2:4], dY.shape[4:]
        if 4 * math.prod(spots) < math.prod(size):  # few large windows: one after the other
            dY = dY.transpose(0, 1, 4, 5, 2, 3)
            size, spots, stride, dilation = spots, size, dilation, stride
        for i, j, rows, cols in _offsets(size, spots, stride, dilation):
            out[:, :, rows, cols] += dY[:, :, i, j]
        return out

    def conv2d(
        self,
        x: Array,
        weight: Array,
        bias: Array = None,
        *,
        conv: Conv,
        act: Act = None,
        pool: Pool | None = None,
        out: Any = None,
    ) -> Any:
        """x (N, C, H, W) with weight (O, C/groups, kh, kw): im2col and a product per image.

        Given a ``pool``, both results of max_pool2d of that. ``act`` comes last.
        """
        if pool is not None:
            y = self.conv2d(x, weight, bias, conv=conv)
            y, index = self.max_pool2d(y, pool=pool, out=out)
            return self._activated(y, act), index
        columns, (height, width) = self._im2col(x, weight.shape, conv)
        kernel = weight.reshape(conv.groups, weight.shape[0] // conv.groups, -1)
        y = self.xp.matmul(kernel, columns).reshape(len(x), weight.shape[0], height, width)
        if bias is None:
            return self._activated(self._into(out, y), act)
        return self._activated(self.xp.add(y, bias[:, None, None], out=out), act)

    def conv2d_dx(
        self, dY: Array, weight: Array, *, shape: Shape, conv: Conv, out: Array = None
    ) -> Array:
        """Gradient of conv2d by its input, of ``shape`` (N, C, H, W): a product and col2im."""
        stride, (ph, pw), dilation, groups = conv
        (n, c, h, w), (o, _, kh, kw) = shape, weight.shape
        kernel = weight.reshape(groups, o // groups, -1).swapaxes(1, 2)
        spots = dY.shape[2] * dY.shape[3]
        columns = self.xp.matmul(kernel, dY.reshape(n, groups, o // groups, spots))
        columns = columns.reshape(n, c, kh, kw, *dY.shape[2:])
        padded = self.windows_grad(
            columns, shape=(n, c, h + 2 * ph, w + 2 * pw), stride=stride, dilation=dilation
        )
        return self._into(out, padded[:, :, ph : ph + h, pw : pw + w])

    def conv2d_dw(
        self, dY: Array, x: Array, *, shape: Shape, conv: Conv, out: Array = None
    ) -> Array:
        """Gradient of conv2d by its weight, of ``shape`` (O, C/groups, kh, kw)."""
        columns, _ = self._im2col(x, shape, conv)
        rows = dY.reshape(len(x), conv.groups, shape[0] // conv.groups, columns.shape[-1])
        # Transposed: BLAS then reads the columns, the larger operand, as they lie.
        per_image = self.xp.matmul(columns, rows.swapaxes(2, 3))
        total = self.xp.sum(per_image, axis=0).swapaxes(1, 2)
        return self._into(out, total.reshape(shape))

    def max_pool2d(self, x: Array, *, pool: Pool, out: Any = None) -> tuple[Array, Array]:
        """x (N, C, H, W) to its windows' maxima and, int32, which of the window's cells it was.

        The first of equal cells wins; a NaN wins over numbers.
        """
        size, stride, padding = pool
        padded = self._pad(x, padding, lowest(x.dtype))
        spots = convolved(padded.shape[2:], size, stride, (1, 1))
        best = self.xp.full((*padded.shape[:2], *spots), lowest(x.dtype), x.dtype)
        index = self.xp.zeros(best.shape, np.int32)
        if padding != (0, 0):
            index += self._first_cells(spots, pool)
        for i, j, rows, cols in _offsets(size, spots, stride, (1, 1)):
            cell = padded[:, :, rows, cols].copy(order="C")
            better = (cell > best) | (cell != cell)
            self.xp.maximum(best, cell, out=best)
            self.xp.maximum(index, better * np.int32(i * size[1] + j), out=index)
        return self._into(out, (best, index))

    def max_pool2d_grad(
        self, dY: Array, index: Array, *, shape: Shape, pool: Pool, out: Array = None
    ) -> Array:
        """``dY`` added to the cells of zeros of ``shape`` that ``index`` names."""
        (n, c, h, w), (size, stride, (ph, pw)) = shape, pool
        padded = self.xp.zeros((n, c, h + 2 * ph, w + 2 * pw), dY.dtype)
        for i, j, rows, cols in _offsets(size, dY.shape[2:], stride, (1, 1)):
            padded[:, :, rows, cols] += self._masked(dY, index == i * size[1] + j)
        return self._into(out, padded[:, :, ph : ph + h, pw : pw + w])

    def max_pool2d_take(self, x: Array, index: Array, *, pool: Pool, out: Array = None) -> Array:
        """The cells of ``x`` (N, C, H, W) that ``index`` names: the transpose of the gradient."""
        size, stride, padding = pool
        padded = self._pad(x, padding, 0)
        taken = self.xp.zeros(index.shape, x.dtype)
        for i, j, rows, cols in _offsets(size, index.shape[2:], stride, (1, 1)):
            cell = padded[:, :, rows, cols].copy(order="C")
            taken += self._masked(cell, index == i * size[1] + j)
        return self._into(out, taken)

    def _pad(self, x: Array, padding: Pair, value: float) -> Array:
        if padding == (0, 0):
            return x
        (n, c, h, w), (ph, pw) = x.shape, padding
        padded = self.xp.full((n, c, h + 2 * ph, w + 2 * pw), value, x.dtype)
        padded[:, :, ph : ph + h, pw : pw + w] = x
        return padded

    def _first_cells(self, spots: Pair, pool: Pool) -> Array:
        """The first cell of each window that is not padding, (H', W'): it wins if all are −∞."""
        size, stride, padding = pool
        top = self.xp.maximum(padding[0] - stride[0] * self.xp.arange(spots[0]), 0)
        left = self.xp.maximum(padding[1] - stride[1] * self.xp.arange(spots[1]), 0)
        return (top[:, None] * size[1] + left).astype(np.int32)

    def _im2col(self, x: Array, weight_shape: Shape, conv: Conv) -> tuple[Array, Pair]:
        """Columns (N, groups, C/groups·kh·kw, H'·W') of the padded ``x``, and (H', W')."""
        stride, padding, dilation, groups = conv
        kh, kw = weight_shape[2:]
        found = self.windows(
            self._pad(x, padding, 0), size=(kh, kw), stride=stride, dilation=dilation
        )
        n, c, spots = found.shape[0], found.shape[1], found.shape[4:]
        return found.reshape(n, groups, c // groups * kh * kw, spots[0] * spots[1]), spots


def lowest(dtype: np.dtype) -> float:
    """What is below every number of ``dtype``, or its least integer."""
    return -math.inf if dtype.kind == "f" else int(np.iinfo(dtype).min)


def convolved(image: Pair, kernel: Pair, stride: Pair, dilation: Pair) -> Pair:
    """Height and width of a convolution's or a pooling's result over a padded image."""
    height, width = (
        (i - d * (k - 1) - 1) // s + 1
        for i, k, s, d in zip(image, kernel, stride, dilation, strict=True)
    )
    return height, width


def _offsets(kernel: Pair, spots: Shape, stride: Pair, dilation: Pair) -> Any:
    """Each cell (i, j) of a kernel with the rows and columns of the image that it meets."""
    for i in range(kernel[0]):
        for j in range(kernel[1]):
            top, left = i * dilation[0], j * dilation[1]
            rows = slice(top, top + spots[0] * stride[0], stride[0])
            cols = slice(left, left + spots[1] * stride[1], stride[1])
            yield i, j, rows, cols
