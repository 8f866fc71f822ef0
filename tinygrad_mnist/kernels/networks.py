"""Kernels that compose badly: batch norm, cross-entropy, random streams, the gather of a batch."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from tinygrad_mnist.kernels.base import Act, Array, Shape
from tinygrad_mnist.kernels.products import Products

# splitmix64: Steele, Lea, Flood, "Fast splittable pseudorandom number generators", 2014.
GOLDEN, MIX_1, MIX_2 = 0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9, 0x94D049BB133111EB


class Networks(Products):
    """What layers and losses need in one pass."""

    def batch_norm(
        self, x: Array, weight: Array, bias: Array, *, eps: float, act: Act = None, out: Any = None
    ) -> tuple[Array, Array, Array]:
        """x (N, C, …) to weight · (x − mean) / √(var + eps) + bias, mean (C,), biased var (C,).

        ``act`` is of the first.
        """
        dims, per_channel = _channel(x.ndim)
        mean = self.xp.mean(x, axis=dims, keepdims=True)
        centred = x - mean
        var = self.xp.mean(centred * centred, axis=dims)
        scale = weight / self.xp.sqrt(var + eps)
        y = centred * scale[per_channel] + bias[per_channel]
        y, mean, var = self._into(out, (y, mean.reshape(-1), var))
        return self._activated(y, act), mean, var

    def batch_norm_grad(
        self, dY: Array, x: Array, weight: Array, *, eps: float, out: Any = None
    ) -> tuple[Array, Array, Array]:
        """Gradients of batch_norm's first result by x, weight and bias.

        With x̂ = (x − mean)/σ: dX = weight/σ · (dY − mean(dY) − x̂ · mean(dY·x̂)),
        dweight = Σ dY·x̂, dbias = Σ dY (Ioffe, Szegedy 2015).
        """
        dims, per_channel = _channel(x.ndim)
        count = max(1, x.size // max(1, x.shape[1]))
        normal = x - self.xp.mean(x, axis=dims, keepdims=True)
        scale = 1 / self.xp.sqrt(self.xp.mean(normal * normal, axis=dims) + eps)
        normal *= scale[per_channel]
        dbias = self.xp.sum(dY, axis=dims)
        dweight = self.xp.sum(dY * normal, axis=dims)
        normal *= (dweight / count)[per_channel]
        dX = dY - (dbias / count)[per_channel]
        dX -= normal
        dX *= (weight * scale)[per_channel]
        return self._into(out, (dX, dweight, dbias))

    def softmax(self, x: Array, *, dim: int, out: Array = None) -> Array:
        """eˣ / Σ eˣ along ``dim``, from x − max x: nothing overflows. ``x`` is not empty."""
        out = self.xp.subtract(x, self.xp.max(x, axis=dim, keepdims=True), out=out)
        self.xp.exp(out, out=out)
        out /= self.sum(out, dim=(dim,), keepdim=True)
        return out

    def softmax_grad(self, dY: Array, y: Array, *, dim: int, out: Array = None) -> Array:
        """y · (dY − Σ dY·y)."""
        slope = self.sum(dY * y, dim=(dim,), keepdim=True)
        return self.xp.multiply(y, dY - slope, out=out)

    def log_softmax(self, x: Array, *, dim: int, out: Array = None) -> Array:
        """x − log Σ eˣ along ``dim``, from x − max x: nothing overflows. ``x`` is not empty."""
        out = self.xp.subtract(x, self.xp.max(x, axis=dim, keepdims=True), out=out)
        out -= self.xp.log(self.sum(self.xp.exp(out), dim=(dim,), keepdim=True))
        return out

    def log_softmax_grad(self, dY: Array, y: Array, *, dim: int, out: Array = None) -> Array:
        """dY − e^y · Σ dY."""
        slope = self.xp.exp(y)
        slope *= self.sum(dY, dim=(dim,), keepdim=True)
        return self.xp.subtract(dY, slope, out=out)

    def cross_entropy(
        self, x: Array, target: Array, *, ignore_index: int, out: Any = None
    ) -> tuple[Array, Array]:
        """x (N, C), int64 target (N,) to −log softmax(x)[target], (N,), and how many count.

        Rows whose target is ``ignore_index`` do not count and give 0. Where none counts, the count
        is NaN.
        """
        target, counted = self._labels(target, x.shape[1], ignore_index, "cross_entropy")
        losses = -self.log_softmax(x, dim=1)[self.xp.arange(len(x)), target]
        if counted is None:
            return self._into(out, (losses, x.dtype.type(len(x))))
        count = self.xp.sum(counted, dtype=x.dtype)
        count = self.xp.where(count == 0, math.nan, count)
        return self._into(out, (self.xp.where(counted, losses, 0), count))

    def cross_entropy_grad(
        self, dY: Array, x: Array, target: Array, *, ignore_index: int, out: Array = None
    ) -> Array:
        """dY (N,) · (softmax(x) − one-hot(target)), (N, C); 0 where target is ``ignore_index``."""
        target, counted = self._labels(target, x.shape[1], ignore_index, "cross_entropy_grad")
        out = self.softmax(x, dim=1, out=out)
        out *= dY[:, None]
        out[self.xp.arange(len(x)), target] -= dY
        return out if counted is None else self._into(out, self._masked(out, counted[:, None]))

    def dropout_mask(
        self, *, shape: Shape, p: float, key: int, dtype: np.dtype, out: Array = None
    ) -> Array:
        """0 with probability ``p``, else 1/(1−p): the stream ``key``'s 32-bit numbers ≥ p·2³²."""
        kept = self._bits(key, shape) >= min(round(p * 2**32), 2**32 - 1)
        return self.xp.multiply(kept, np.dtype(dtype).type(1 / (1 - p)), out=out)

    def uniform(self, *, shape: Shape, key: int, dtype: np.dtype, out: Array = None) -> Array:
        """Uniform numbers in [0, 1): the stream ``key``'s upper 24 bits · 2⁻²⁴."""
        fraction = self._bits(key, shape) >> 8
        return self.xp.multiply(fraction.astype(dtype), np.dtype(dtype).type(2.0**-24), out=out)

    def take_scaled(
        self,
        x: Array,
        index: Array,
        *,
        scale: float,
        shift: float,
        dtype: np.dtype,
        out: Array = None,
    ) -> Array:
        """Rows of uint8 ``x`` at int64 ``index``, as ``dtype``: row · scale + shift."""
        self.check_index(index, len(x), "take_scaled")
        rows = x[index]
        out = self.xp.multiply(rows, np.dtype(dtype).type(scale), out=out, dtype=dtype)
        out += np.dtype(dtype).type(shift)
        return out

    def _labels(
        self, target: Array, classes: int, ignore_index: int, kernel: str
    ) -> tuple[Array, Array | None]:
        """``target`` with class 0 for what is ignored, and which rows count, or None for all.

        IndexError for a target outside ``0 … classes-1`` that is not ignored.
        """
        unmet = type(target) is np.ndarray and target.size and not 0 <= ignore_index < classes
        if unmet and target.min() >= 0 and target.max() < classes:
            return target, None  # on the host a look costs less than the masks
        counted = target != ignore_index
        target = self.xp.where(counted, target, 0)
        self.check_index(target, classes, kernel)
        return target, counted

    def _bits(self, key: int, shape: Shape) -> Array:
        """The stream ``key`` of splitmix64 as uint32 of ``shape``, low half first."""
        count = int(np.prod(shape, dtype=np.int64))
        z = self.xp.arange(1, (count + 1) // 2 + 1, dtype=np.uint64)
        z *= np.uint64(GOLDEN)
        z += np.uint64(key)
        z ^= z >> np.uint64(30)
        z *= np.uint64(MIX_1)
        z ^= z >> np.uint64(27)
        z *= np.uint64(MIX_2)
        z ^= z >> np.uint64(31)
        return z.view(np.uint32)[:count].reshape(shape)


def _channel(ndim: int) -> tuple[Shape, tuple[Any, ...]]:
    """The dims that batch norm reduces, and the index that lines (C,) up with (N, C, …)."""
    return (0, *range(2, ndim)), (slice(None), *(None,) * (ndim - 2))
