"""CuPy arrays on a GPU, with CUDA kernels of our own where CuPy's would be several or slow.

Each override serves non-empty C-contiguous float arrays and leaves the rest to the default, which
CuPy's own functions compute.
"""

from __future__ import annotations

from typing import Any, ClassVar

import cupy
import numpy as np

from tinygrad_mnist.backends.cupy_kernels import faults, layouts
from tinygrad_mnist.backends.cupy_kernels.launching import Launching, act_of, or_empty
from tinygrad_mnist.kernels import Act, Array, Backend, Conv, Pair, Pool, Shape

FLOAT32, FLOAT64 = np.dtype(np.float32), np.dtype(np.float64)
INT32, INT64, UINT8 = np.dtype(np.int32), np.dtype(np.int64), np.dtype(np.uint8)
BLOCK = (layouts.THREADS,)  # of sums


class CupyBackend(Launching, Backend):
    """The default kernels, and CUDA kernels in their place."""

    name = "cupy"
    xp: ClassVar[Any] = cupy
    array_type: ClassVar[type] = cupy.ndarray

    # ---- the host and the device

    def to_numpy(self, x: Array) -> np.ndarray:
        """A copy on the host, once the device has computed it."""
        found = x.get()
        faults.check()
        return found

    # ---- pointwise

    # ---- at indices

    # ---- reductions

    def sum(self, x: Array, *, dim: Shape, keepdim: bool, out: Array = None) -> Array:
        groups = layouts.groups_of(x.shape, dim) if _is_float(x) else None
        if groups is None or not _takes(out, x.dtype):
            return super().sum(x, dim=dim, keepdim=keepdim, out=out)
        out = or_empty(out, _kept(x.shape, dim, keepdim), x.dtype)
        self._sum(x, groups, out)
        return out

    def _sum(self, x: Array, groups: layouts.Groups, out: Array) -> None:
        """``out`` ← the sums over R and S of ``x`` as (A, R, B, S)."""
        span, grid = layouts.sums(groups)
        if grid[1] == 1:
            self._grid("reductions", "sum", grid, BLOCK, x.dtype, x, out, span)
            return
        slices = cupy.empty((grid[1], out.size), FLOAT64)
        self._grid("reductions", "sum_slices", grid, BLOCK, x.dtype, x, slices, span)
        span, grid = layouts.sums((1, grid[1], out.size, 1), most=1)
        self._grid("reductions", "sum_of_slices", grid, BLOCK, x.dtype, slices, out, span)

    def argmax(self, x: Array, *, dim: int, keepdim: bool, out: Array = None) -> Array:
        found = self._place(x, True, dim, keepdim, out)
        return super().argmax(x, dim=dim, keepdim=keepdim, out=out) if found is None else found

    def argmin(self, x: Array, *, dim: int, keepdim: bool, out: Array = None) -> Array:
        found = self._place(x, False, dim, keepdim, out)
        return super().argmin(x, dim=dim, keepdim=keepdim, out=out) if found is None else found

    def _place(self, x: Array, larger: bool, dim: int, keepdim: bool, out: Array) -> Array | None:
        """Where the largest element along ``dim`` is, or the smallest; None if not served.

        CuPy finds any of several NaN, this the first.
        """
        groups = layouts.groups_of(x.shape, (dim,)) if x.ndim and _floats(x) else None
        if groups is None or not _takes(out, INT64):
            return None
        out = or_empty(out, _kept(x.shape, (dim,), keepdim), INT64)
        span, grid = layouts.sums(groups, most=1)
        arguments = self._contiguous(x), out, int(larger), span
        self._grid("reductions", "place_of_extreme", grid, BLOCK, x.dtype, *arguments)
        return out

    # ---- products

    # ---- convolution

    def windows_grad(
        self, dY: Array, *, shape: Shape, stride: Pair, dilation: Pair, out: Array = None
    ) -> Array:
        laid = None
        if _floats(dY) and _takes(out, dY.dtype):
            strides = tuple(s // dY.dtype.itemsize for s in dY.strides)
            laid = layouts.windows_grad(dY.shape, strides, shape, stride, dilation)
        if laid is None:
            return super().windows_grad(dY, shape=shape, stride=stride, dilation=dilation, out=out)
        out = or_empty(out, shape, dY.dtype)
        self._each("convolution", "windows_grad", out.size, dY.dtype, dY, out, laid)
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
        laid = None
        if _floats(x, weight, bias) and (pool is not None or _takes(out, x.dtype)):
            laid = layouts.convolution(x.shape, weight.shape, conv, x.dtype.itemsize)
        if laid is None:
            return super().conv2d(x, weight, bias, conv=conv, act=act, pool=pool, out=out)
        if pool is None:
            return self._convolve("conv2d", weight, x, bias, act, laid, out)
        y = self._convolve("conv2d", weight, x, bias, None, laid, None)
        return self._max_pool2d(y, pool, act, out)

    def conv2d_dx(
        self, dY: Array, weight: Array, *, shape: Shape, conv: Conv, out: Array = None
    ) -> Array:
        laid = None
        if _floats(dY, weight) and _takes(out, dY.dtype):
            size = dY.dtype.itemsize
            laid = layouts.convolution_dx(dY.shape, weight.shape, shape, conv, size)
        if laid is None:
            return super().conv2d_dx(dY, weight, shape=shape, conv=conv, out=out)
        kernel = "conv2d" if conv.stride == (1, 1) else "conv2d_divided"
        return self._convolve(kernel, weight, dY, None, None, laid, out)

    def conv2d_dw(
        self, dY: Array, x: Array, *, shape: Shape, conv: Conv, out: Array = None
    ) -> Array:
        laid = None
        if _floats(dY, x) and _takes(out, dY.dtype):
            laid = layouts.convolution_dw(dY.shape, x.shape, shape, conv, dY.dtype.itemsize)
        if laid is None:
            return super().conv2d_dw(dY, x, shape=shape, conv=conv, out=out)
        dY, x = self._contiguous(dY), self._contiguous(x)
        out = or_empty(out, shape, dY.dtype)
        slices = laid.grid[2]
        parts = out if slices == 1 else cupy.empty((slices, *shape), dY.dtype)
        arguments = dY, x, parts, laid.conv, laid.tile
        self._grid("convolution", "conv2d_dw", laid.grid, (laid.threads,), dY.dtype, *arguments)
        if slices > 1:
            self._sum(parts, (1, slices, out.size, 1), out)
        return out

    def _convolve(
        self,
        kernel: str,
        weight: Array,
        source: Array,
        bias: Array,
        act: Act,
        laid: layouts.Convolution,
        out: Array,
    ) -> Array:
        """The kernel ``kernel`` of convolutions, laid out so, into ``out`` or a new array."""
        out = or_empty(out, laid.shape, source.dtype)
        weight, source = self._contiguous(weight), self._contiguous(source)
        bias = None if bias is None else self._contiguous(bias)
        arguments = weight, source, bias, out, laid.conv, laid.tile, act_of(act)
        self._grid("convolution", kernel, laid.grid, (laid.threads,), source.dtype, *arguments)
        return out

    # ---- pooling

    def max_pool2d(self, x: Array, *, pool: Pool, out: Any = None) -> tuple[Array, Array]:
        if not _is_float(x) or layouts.pooling(x.shape, pool) is None:
            return super().max_pool2d(x, pool=pool, out=out)
        return self._max_pool2d(x, pool, None, out)

    def _max_pool2d(self, x: Array, pool: Pool, act: Act, out: Any) -> tuple[Array, Array]:
        """max_pool2d, then ``act``; by the kernel where it serves."""
        best, index = (None, None) if out is None else out
        laid = layouts.pooling(x.shape, pool)
        if laid is None or not (_takes(best, x.dtype) and _takes(index, INT32)):
            best, index = super().max_pool2d(x, pool=pool, out=out)
            return self._activated(best, act), index
        numbers, shape = laid
        best, index = or_empty(best, shape, x.dtype), or_empty(index, shape, INT32)
        arguments = x, best, index, numbers, act_of(act)
        self._each("pooling", "max_pool2d", best.size, x.dtype, *arguments)
        return best, index

    def max_pool2d_grad(
        self, dY: Array, index: Array, *, shape: Shape, pool: Pool, out: Array = None
    ) -> Array:
        laid = layouts.pooling(shape, pool)
        if laid is None or not (_floats(dY) and _is(index, INT32) and _takes(out, dY.dtype)):
            return super().max_pool2d_grad(dY, index, shape=shape, pool=pool, out=out)
        dX = or_empty(out, shape, dY.dtype)
        arguments = self._contiguous(dY), index, dX, laid[0]
        self._each("pooling", "max_pool2d_grad", dX.size, dY.dtype, *arguments)
        return dX

    def max_pool2d_take(self, x: Array, index: Array, *, pool: Pool, out: Array = None) -> Array:
        laid = layouts.pooling(x.shape, pool)
        if laid is None or not (_floats(x) and _is(index, INT32) and _takes(out, x.dtype)):
            return super().max_pool2d_take(x, index, pool=pool, out=out)
        taken = or_empty(out, index.shape, x.dtype)
        arguments = self._contiguous(x), index, taken, laid[0]
        self._each("pooling", "max_pool2d_take", taken.size, x.dtype, *arguments)
        return taken

    # ---- batch norm

    def batch_norm(
        self, x: Array, weight: Array, bias: Array, *, eps: float, act: Act = None, out: Any = None
    ) -> tuple[Array, Array, Array]:
        y, mean, var = (None, None, None) if out is None else out
        laid = layouts.channels(x.shape) if _are(x.dtype, x, weight, bias) else None
        if laid is None or not all(_takes(o, x.dtype) for o in (y, mean, var)):
            return super().batch_norm(x, weight, bias, eps=eps, act=act, out=out)
        y = or_empty(y, x.shape, x.dtype)
        mean, var = (or_empty(o, weight.shape, x.dtype) for o in (mean, var))
        moments = self._moments("moments", laid, x)
        arguments = x, weight, bias, moments, float(eps), act_of(act), y, mean, var, laid.span
        self._grid("reductions", "batch_norm", laid.grid, BLOCK, x.dtype, *arguments)
        return y, mean, var

    def batch_norm_grad(
        self, dY: Array, x: Array, weight: Array, *, eps: float, out: Any = None
    ) -> tuple[Array, Array, Array]:
        dX, dweight, dbias = (None, None, None) if out is None else out
        laid = layouts.channels(x.shape) if _are(x.dtype, x, weight) and _floats(dY, x) else None
        if laid is None or not all(_takes(o, x.dtype) for o in (dX, dweight, dbias)):
            return super().batch_norm_grad(dY, x, weight, eps=eps, out=out)
        dY = self._contiguous(dY)
        dX = or_empty(dX, x.shape, x.dtype)
        dweight, dbias = (or_empty(o, weight.shape, x.dtype) for o in (dweight, dbias))
        moments = self._moments("moments_grad", laid, x, dY)
        arguments = dY, x, weight, moments, float(eps), dX, dweight, dbias, laid.span
        self._grid("reductions", "batch_norm_grad", laid.grid, BLOCK, x.dtype, *arguments)
        return dX, dweight, dbias

    def _moments(self, kernel: str, laid: layouts.Sums, x: Array, *others: Array) -> Array | None:
        """The moments of each slice of each channel; None for one slice, which needs none."""
        if laid.slices == 1:
            return None
        moments = cupy.empty((laid.slices, x.shape[1], 4), FLOAT64)
        arguments = x, *others, moments, laid.span
        self._grid("reductions", kernel, laid.grid, BLOCK, x.dtype, *arguments)
        return moments

    # ---- softmax and cross-entropy

    # ---- random streams, batches

    # ---- optimizers


def _is_float(x: Any) -> bool:
    """Whether a kernel serves ``x``: not empty, contiguous, of floats."""
    return bool(x.dtype in (FLOAT32, FLOAT64) and x.flags.c_contiguous and x.size)


def _alike(x: Any, *others: Any) -> bool:
    """Whether a kernel serves ``x``, and the others are like it, or None."""
    return _is_float(x) and all(
        y is None or (y.dtype == x.dtype and y.shape == x.shape and y.flags.c_contiguous)
        for y in others
    )


def _are(dtype: np.dtype, *arrays: Any) -> bool:
    """Whether a kernel serves ``arrays``, all of ``dtype``."""
    return all(x.dtype == dtype and _is_float(x) for x in arrays)


def _floats(x: Any, *others: Any) -> bool:
    """Whether a kernel serves these arrays once they are contiguous; None stands for no array."""
    kind = x.dtype
    return kind in (FLOAT32, FLOAT64) and all(y is None or y.dtype == kind for y in others)


def _is(x: Any, dtype: np.dtype) -> bool:
    """Whether ``x`` is contiguous and of ``dtype``."""
    return bool(x.dtype == dtype and x.flags.c_contiguous)


def _takes(out: Any, dtype: np.dtype) -> bool:
    """Whether a kernel can fill ``out``, or make it."""
    return out is None or _is(out, dtype)


def _kept(shape: Shape, dims: Shape, keepdim: bool) -> Shape:
    """What a sum over ``dims`` leaves of ``shape``."""
    gone = {d % len(shape) for d in dims}
    kept = enumerate(shape)
    return tuple(1 if i in gone else size for i, size in kept if keepdim or i not in gone)
