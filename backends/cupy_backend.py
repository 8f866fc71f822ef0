"""CuPy arrays on a GPU, with CUDA kernels of our own where CuPy's would be several or slow.

Each override serves non-empty C-contiguous float arrays and leaves the rest to the default, which
CuPy's own functions compute.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, ClassVar, Self

import cupy
import numpy as np

from tinygrad_mnist.backends.cupy_kernels import devices, faults, gemm, graphs, layouts, served
from tinygrad_mnist.backends.cupy_kernels.launching import THREADS, act_of, bits, or_empty
from tinygrad_mnist.backends.cupy_kernels.served import (
    BOOL,
    FLOAT32,
    FLOAT64,
    FLOATS,
    INT32,
    INT64,
    UINT8,
)
from tinygrad_mnist.backends.cupy_kernels.updates import Updates
from tinygrad_mnist.backends.numbers import mask_numbers, uniform_numbers
from tinygrad_mnist.kernels import Act, Array, Backend, Conv, Pair, Pool, Shape, Step

LONG_ROW = 1024  # columns from which on a block works on each row, and not a part of a warp
MANY_ROWS = 4096  # from which on cross-entropy has large blocks: one of them counts the rows
FEW = 2**13  # indices that each element of a gradient may look through
LITTLE = 2**28  # and looks of all its elements
BLOCK = (layouts.THREADS,)  # of sums


def _reduction(name: str) -> Callable[..., Any]:
    """CuPy's, which is given no ``out``.

    Of a minimum, CuPy 14.2 takes that for the dtype (TypeError); and where it reduces an array that
    lies by columns, it gives ``out`` the strides of columns.
    """

    def kernel(self: Backend, x: Array, *, dim: int, keepdim: bool, out: Array = None) -> Array:
        return self._into(out, getattr(self.xp, name)(x, axis=dim, keepdims=keepdim))

    return kernel


class CupyBackend(Updates, Backend):
    """The default kernels, and CUDA kernels in their place."""

    name = "cupy"
    xp: ClassVar[Any] = cupy
    array_type: ClassVar[type] = cupy.ndarray

    # ---- the host and the device

    @classmethod
    def unusable(cls) -> str | None:
        return devices.problem() or devices.failure(cls())

    @classmethod
    def at(cls, device: int) -> type[Self] | str:
        return devices.at(cls, device)

    def details(self) -> dict[str, str]:
        return devices.details()

    def explain(self, error: MemoryError) -> None:
        if not getattr(error, "__notes__", ()):
            error.add_note(devices.memory())

    def asarray(self, x: np.ndarray) -> Array:
        try:
            return cupy.asarray(x)
        except MemoryError as error:
            self.explain(error)
            raise

    def to_numpy(self, x: Array) -> np.ndarray:
        """A copy on the host, once the device has computed it."""
        found = x.get()
        faults.check()
        return found

    def prepared(self, steps: Sequence[Step]) -> list[Callable[[], None]]:
        return graphs.prepared(self, steps)

    def check_index(self, index: Array, size: int, kernel: str, low: int = 0) -> None:
        index = self._contiguous(index)
        self._each(
            "indexing", "check_index", index.size, FLOAT64,
            index, index.size, low, size, self._faults(kernel),
        )  # fmt: skip

    # ---- pointwise

    def sigmoid(self, x: Array, *, out: Array = None) -> Array:
        if not served.same_floats(x):
            return super().sigmoid(x, out=out)
        return self._pointwise("sigmoid", x, out=out)

    def sigmoid_grad(self, dY: Array, y: Array, *, out: Array = None) -> Array:
        if not served.same_floats(y, dY):
            return super().sigmoid_grad(dY, y, out=out)
        return self._pointwise("sigmoid_grad", dY, y, out=out)

    def tanh(self, x: Array, *, out: Array = None) -> Array:
        if not served.same_floats(x):
            return super().tanh(x, out=out)
        return self._pointwise("tanh_each", x, out=out)

    def tanh_grad(self, dY: Array, y: Array, *, out: Array = None) -> Array:
        if not served.same_floats(y, dY):
            return super().tanh_grad(dY, y, out=out)
        return self._pointwise("tanh_grad", dY, y, out=out)

    def gelu(self, x: Array, *, approximate: str, out: Array = None) -> Array:
        if not served.same_floats(x):
            return super().gelu(x, approximate=approximate, out=out)
        return self._pointwise("gelu_tanh" if approximate == "tanh" else "gelu", x, out=out)

    def gelu_grad(self, dY: Array, x: Array, *, approximate: str, out: Array = None) -> Array:
        if not served.same_floats(x, dY):
            return super().gelu_grad(dY, x, approximate=approximate, out=out)
        name = "gelu_tanh_grad" if approximate == "tanh" else "gelu_grad"
        return self._pointwise(name, dY, x, out=out)

    def relu(self, x: Array, *, out: Array = None) -> Array:
        if not served.same_floats(x):
            return super().relu(x, out=out)
        return self._pointwise("relu", x, out=out)

    def relu_grad(self, dY: Array, y: Array, *, out: Array = None) -> Array:
        if not served.same_floats(y, dY):
            return super().relu_grad(dY, y, out=out)
        return self._pointwise("relu_grad", dY, y, out=out)

    def erf(self, x: Array, *, out: Array = None) -> Array:
        if not served.same_floats(x):
            return super().erf(x, out=out)
        return self._pointwise("erf_each", x, out=out)

    def clamp(self, x: Array, min: Array = None, max: Array = None, *, out: Array = None) -> Array:
        # CuPy's clip passes over bounds that are NaN, and over x where the bounds are crossed.
        if min is None and max is None:
            return super().clamp(x, out=out)
        if max is None:
            return self.xp.maximum(x, min, out=out)
        return self.xp.minimum(x if min is None else self.xp.maximum(x, min), max, out=out)

    def floor_divide(self, x: Array, y: Array, *, out: Array = None) -> Array:
        # Of floats, CuPy's is ⌊x / y⌋ of the rounded quotient, and NaN at infinities.
        if not served.either_floats(x, y):
            return super().floor_divide(x, y, out=out)
        return self._of_two("floor_divide", x, y, out)

    def remainder(self, x: Array, y: Array, *, out: Array = None) -> Array:
        if not served.either_floats(x, y):
            return super().remainder(x, y, out=out)
        return self._of_two("remainder_each", x, y, out)

    def pow(self, x: Array, y: Array, *, out: Array = None) -> Array:
        # CuPy's of integers gives 0 for a negative power, and no error.
        dtype = (x if hasattr(x, "dtype") else y).dtype
        if dtype.kind not in "iu":
            return super().pow(x, y, out=out)
        x, y = (v.astype(INT64, copy=False) if hasattr(v, "dtype") else v for v in (x, y))
        x, y, shape = self._broadcast(x, y)
        made = cupy.empty(shape, INT64)
        a, b = ((v, 0) if hasattr(v, "dtype") else (None, int(v)) for v in (x, y))
        failing = self._faults(faults.NEGATIVE_POWER)
        self._each("pointwise", "power", made.size, FLOAT64, *a, *b, made, made.size, failing)
        return self._into(out, made.astype(dtype, copy=False))

    def where(self, condition: Array, x: Array, y: Array, *, out: Array = None) -> Array:
        like = x if hasattr(x, "dtype") else y
        arrays = [v for v in (x, y) if hasattr(v, "dtype")]
        fits = served.alike(like, out, *arrays) and served.is_of(condition, BOOL)
        if not (fits and condition.shape == like.shape and served.apart(out, *arrays)):
            return self._into(out, self.xp.where(condition, x, y))
        out = or_empty(out, like.shape, like.dtype)
        given = condition, *served.operand(x), *served.operand(y), out, out.size
        self._each("pointwise", "where", out.size, out.dtype, *given)
        return out

    def cast(self, x: Array, *, dtype: np.dtype, out: Array = None) -> Array:
        if out is None:
            return x.astype(dtype)
        out[...] = x  # as astype does, without a copy in between
        return out

    def copy(self, x: Array, *, out: Array = None) -> Array:
        return x.copy(order="C") if out is None else self._into(out, x)

    def concat(self, *arrays: Array, dim: int, out: Array = None) -> Array:
        # CuPy's of more than 8 arrays sends their addresses from the host.
        shape = list(arrays[0].shape)
        shape[dim] = sum(x.shape[dim] for x in arrays)
        out, end, lead = or_empty(out, tuple(shape), arrays[0].dtype), 0, (slice(None),) * dim
        for x in arrays:
            start, end = end, end + x.shape[dim]
            out[(*lead, slice(start, end))] = x
        return out

    def copy_(self, x: Array, y: Array) -> None:
        # What is contiguous CuPy copies as memory, in which order none can tell.
        x[...] = y if served.apart(x, y) else y.copy()

    def lerp_(self, x: Array, end: Array, *, weight: float) -> None:
        if served.alike(x, end) and served.apart(x, end):
            numbers = self._numbers(_weight, weight=weight)
            self._each("pointwise", "lerp", x.size, x.dtype, x, end, x.size, *numbers)
        else:
            super().lerp_(x, end, weight=weight)

    def _pointwise(self, name: str, *arrays: Array, out: Array) -> Array:
        """The kernel ``name`` of arrays of floats, however they lie: its bits are then the same."""
        x = arrays[0]
        made = or_empty(out if served.takes(out, x.dtype) else None, x.shape, x.dtype)
        given = [self._contiguous(each) for each in arrays]
        self._each("pointwise", name, x.size, x.dtype, *given, made, x.size)
        return made if out is None or made is out else self._into(out, made)

    def _of_two(self, name: str, x: Array, y: Array, out: Array) -> Array:
        """The kernel ``name`` of two arrays of floats, one of which may be a number."""
        x, y, shape = self._broadcast(x, y)
        dtype = (x if hasattr(x, "dtype") else y).dtype
        fits = served.takes(out, dtype) and served.apart(out, x, y)
        made = or_empty(out if fits else None, shape, dtype)
        self._each(
            "pointwise",
            name,
            made.size,
            dtype,
            *served.operand(x),
            *served.operand(y),
            made,
            made.size,
        )
        return made if fits else self._into(out, made)

    def _broadcast(self, *operands: Array) -> tuple[Any, Any, Shape]:
        """Two operands, the arrays among them contiguous and of one shape; and that shape."""
        shape = np.broadcast_shapes(*(v.shape for v in operands if hasattr(v, "dtype")))
        x, y = (
            self._contiguous(self.xp.broadcast_to(v, shape)) if hasattr(v, "dtype") else v
            for v in operands
        )
        return x, y, shape

    def _masked(self, x: Array, mask: Array) -> Array:
        return self.xp.where(mask, x, 0)

    # ---- at indices

    def take(self, x: Array, index: Array, *, dim: int, out: Array = None) -> Array:
        given = x.flags.c_contiguous and served.takes(out, x.dtype)
        if not (given and x.dtype.itemsize in (4, 8)):
            return super().take(x, index, dim=dim, out=out)
        out = or_empty(out, (*x.shape[:dim], *index.shape, *x.shape[dim + 1 :]), x.dtype)
        self._each(
            "indexing", "take", out.size, FLOAT32 if x.dtype.itemsize == 4 else FLOAT64,
            x, self._contiguous(index), out, out.size, x.shape[dim], index.size,
            math.prod(x.shape[dim + 1 :]), self._faults(f"take: dim {dim}"),
        )  # fmt: skip
        return out

    def take_grad(
        self, dY: Array, index: Array, *, shape: Shape, dim: int, out: Array = None
    ) -> Array:
        whole = dY.dtype.kind != "f"  # added up as int64
        dtype, name = (INT64, "take_grad_whole") if whole else (dY.dtype, "take_grad")
        fits = served.takes(out, dtype)
        total = or_empty(out if fits else None, shape, dtype)
        index, rows, count = self._contiguous(index).reshape(-1), shape[dim], index.size
        few = count <= FEW and total.size * count <= LITTLE
        self._each(
            "indexing", name, max(total.size, count), FLOAT64 if whole else dtype,
            self._contiguous(dY.astype(dtype, copy=False)), index,
            None if few else self.argsort(index, dim=0), total, total.size, rows, count,
            math.prod(shape[dim + 1 :]), self._faults(f"take_grad: dim {dim}"),
        )  # fmt: skip
        return total if fits and dtype == dY.dtype else self._into(out, total.astype(dY.dtype))

    def wrap_index(
        self, x: Array, *, size: int, low: int, step: int, what: str, out: Array = None
    ) -> Array:
        if not served.takes(out, INT64):
            return super().wrap_index(x, size=size, low=low, step=step, what=what, out=out)
        out = or_empty(out, x.shape, INT64)
        self._each(
            "indexing", "wrap_index", x.size, FLOAT64,
            self._contiguous(x), out, x.size, low, size, step, self._faults(what),
        )  # fmt: skip
        return out

    # ---- reductions

    def sum(self, x: Array, *, dim: Shape, keepdim: bool, out: Array = None) -> Array:
        groups = layouts.groups_of(x.shape, dim) if x.size and served.floats(x) else None
        if groups is None or not served.takes(out, x.dtype):
            return self._into(out, super().sum(x, dim=dim, keepdim=keepdim))
        x = self._contiguous(x)  # however it lies, its sums have the same bits
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

    max = _reduction("max")
    min = _reduction("min")
    any = _reduction("any")
    all = _reduction("all")

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
        groups = layouts.groups_of(x.shape, (dim,)) if x.ndim and served.floats(x) else None
        if groups is None or not served.takes(out, INT64):
            return None
        out = or_empty(out, _kept(x.shape, (dim,), keepdim), INT64)
        span, grid = layouts.sums(groups, most=1)
        arguments = self._contiguous(x), out, int(larger), span
        self._grid("reductions", "place_of_extreme", grid, BLOCK, x.dtype, *arguments)
        return out

    # ---- products

    def matmul(self, x: Array, y: Array, *, out: Array = None) -> Array:
        if not (served.floats(x) and x.dtype == y.dtype and served.takes(out, x.dtype)):
            return super().matmul(x, y, out=out)
        return gemm.matmul(x, y, out)

    def linear(
        self, x: Array, weight: Array, bias: Array = None, *, act: Act = None, out: Array = None
    ) -> Array:
        if not (served.floats(x) and x.dtype == weight.dtype and served.takes(out, x.dtype)):
            return super().linear(x, weight, bias, act=act, out=out)
        out = gemm.matmul(x, weight.T, out)
        if bias is None:
            return self._activated(out, act)
        bias = self._contiguous(bias)
        arguments = out, bias, out.size, len(bias), act_of(act)
        self._each("pointwise", "bias_act", out.size, out.dtype, *arguments)
        return out

    def linear_dw(self, dY: Array, x: Array, *, out: Array = None) -> Array:
        return self.matmul(dY.T, x, out=out)

    # ---- convolution

    def windows_grad(
        self, dY: Array, *, shape: Shape, stride: Pair, dilation: Pair, out: Array = None
    ) -> Array:
        laid = None
        if served.floats(dY) and served.takes(out, dY.dtype):
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
        if served.floats(x, weight, bias) and (pool is not None or served.takes(out, x.dtype)):
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
        if served.floats(dY, weight) and served.takes(out, dY.dtype):
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
        if served.floats(dY, x) and served.takes(out, dY.dtype):
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
        if not served.is_float(x) or layouts.pooling(x.shape, pool) is None:
            return super().max_pool2d(x, pool=pool, out=out)
        return self._max_pool2d(x, pool, None, out)

    def _max_pool2d(self, x: Array, pool: Pool, act: Act, out: Any) -> tuple[Array, Array]:
        """max_pool2d, then ``act``; by the kernel where it serves."""
        best, index = (None, None) if out is None else out
        laid = layouts.pooling(x.shape, pool)
        if laid is None or not (served.takes(best, x.dtype) and served.takes(index, INT32)):
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
        if laid is None or not (
            served.floats(dY) and served.is_of(index, INT32) and served.takes(out, dY.dtype)
        ):
            return super().max_pool2d_grad(dY, index, shape=shape, pool=pool, out=out)
        dX = or_empty(out, shape, dY.dtype)
        arguments = self._contiguous(dY), index, dX, laid[0]
        self._each("pooling", "max_pool2d_grad", dX.size, dY.dtype, *arguments)
        return dX

    def max_pool2d_take(self, x: Array, index: Array, *, pool: Pool, out: Array = None) -> Array:
        laid = layouts.pooling(x.shape, pool)
        if laid is None or not (
            served.floats(x) and served.is_of(index, INT32) and served.takes(out, x.dtype)
        ):
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
        laid = layouts.channels(x.shape) if served.are(x.dtype, x, weight, bias) else None
        if laid is None or not all(served.takes(o, x.dtype) for o in (y, mean, var)):
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
        laid = (
            layouts.channels(x.shape)
            if served.are(x.dtype, x, weight) and served.floats(dY, x)
            else None
        )
        if laid is None or not all(served.takes(o, x.dtype) for o in (dX, dweight, dbias)):
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

    def softmax(self, x: Array, *, dim: int, out: Array = None) -> Array:
        if dim != x.ndim - 1 or not served.alike(x := self._contiguous(x), out):
            return super().softmax(x, dim=dim, out=out)
        return self._rows("softmax", x, out=out)

    def softmax_grad(self, dY: Array, y: Array, *, dim: int, out: Array = None) -> Array:
        dY = self._contiguous(dY)
        if dim != y.ndim - 1 or not served.alike(y, dY, out):
            return super().softmax_grad(dY, y, dim=dim, out=out)
        return self._rows("softmax_grad", dY, y, out=out)

    def log_softmax(self, x: Array, *, dim: int, out: Array = None) -> Array:
        if dim != x.ndim - 1 or not served.alike(x := self._contiguous(x), out):
            return super().log_softmax(x, dim=dim, out=out)
        return self._rows("log_softmax", x, out=out)

    def log_softmax_grad(self, dY: Array, y: Array, *, dim: int, out: Array = None) -> Array:
        dY = self._contiguous(dY)
        if dim != y.ndim - 1 or not served.alike(y, dY, out):
            return super().log_softmax_grad(dY, y, dim=dim, out=out)
        return self._rows("log_softmax_grad", dY, y, out=out)

    def cross_entropy(
        self, x: Array, target: Array, *, ignore_index: int, out: Any = None
    ) -> tuple[Array, Array]:
        x, target = self._contiguous(x), self._contiguous(target)
        losses, count = (None, None) if out is None else out
        given = served.takes(losses, x.dtype) and served.takes(count, x.dtype)
        if not (given and served.is_float(x) and served.is_of(target, INT64)):
            return super().cross_entropy(x, target, ignore_index=ignore_index, out=out)
        losses = or_empty(losses, target.shape, x.dtype)
        count = or_empty(count, (), x.dtype)
        lanes = _lanes(x.shape[1])
        threads = 4 * THREADS if len(x) >= MANY_ROWS and lanes < THREADS else THREADS
        self._grid(
            "rows", "cross_entropy", (-(-len(x) * lanes // threads) + 1,), (threads,), x.dtype,
            x, target, losses, count, *x.shape, lanes, ignore_index,
            self._faults("cross_entropy"),
        )  # fmt: skip
        return losses, count

    def cross_entropy_grad(
        self, dY: Array, x: Array, target: Array, *, ignore_index: int, out: Array = None
    ) -> Array:
        x, target = self._contiguous(x), self._contiguous(target)
        if not (served.alike(x, out) and dY.dtype == x.dtype and served.is_of(target, INT64)):
            return super().cross_entropy_grad(dY, x, target, ignore_index=ignore_index, out=out)
        out, lanes = or_empty(out, x.shape, x.dtype), _lanes(x.shape[1])
        self._grid(
            "rows", "cross_entropy_grad", (-(-len(x) * lanes // THREADS),), (THREADS,), x.dtype,
            dY, dY.strides[0] // dY.itemsize, x, target, out, *x.shape, lanes, ignore_index,
            self._faults("cross_entropy_grad"),
        )  # fmt: skip
        return out

    def _rows(self, name: str, *arrays: Array, out: Array) -> Array:
        """The kernel ``name`` of the rows, along the last dim, of arrays that are alike."""
        x = arrays[0]
        out, cols = or_empty(out, x.shape, x.dtype), x.shape[-1]
        rows, lanes = x.size // cols, _lanes(cols)
        grid = (-(-rows * lanes // THREADS),)
        self._grid("rows", name, grid, (THREADS,), x.dtype, *arrays, out, rows, cols, lanes)
        return out

    # ---- random streams, batches

    def dropout_mask(
        self, *, shape: Shape, p: float, key: int, dtype: np.dtype, out: Array = None
    ) -> Array:
        if dtype not in FLOATS or not served.takes(out, dtype):
            return super().dropout_mask(shape=shape, p=p, key=key, dtype=dtype, out=out)
        mask = or_empty(out, shape, dtype)
        numbers = self._numbers(_mask, shape=shape, p=p, key=key, dtype=dtype)
        pairs = (mask.size + 1) // 2
        self._each("streams", "dropout_mask", pairs, mask.dtype, mask, mask.size, *numbers)
        return mask

    def uniform(self, *, shape: Shape, key: int, dtype: np.dtype, out: Array = None) -> Array:
        if dtype not in FLOATS or not served.takes(out, dtype):
            return super().uniform(shape=shape, key=key, dtype=dtype, out=out)
        drawn = or_empty(out, shape, dtype)
        numbers = self._numbers(_uniform, shape=shape, key=key, dtype=dtype)
        pairs = (drawn.size + 1) // 2
        self._each("streams", "uniform", pairs, drawn.dtype, drawn, drawn.size, *numbers)
        return drawn

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
        index = self._contiguous(index)
        if not (
            served.is_of(x, UINT8)
            and served.is_of(index, INT64)
            and dtype in FLOATS
            and served.takes(out, dtype)
        ):
            return super().take_scaled(x, index, scale=scale, shift=shift, dtype=dtype, out=out)
        out = or_empty(out, (*index.shape, *x.shape[1:]), dtype)
        self._each(
            "indexing", "take_scaled", out.size, out.dtype, x, index, out, out.size, len(x),
            math.prod(x.shape[1:]), float(scale), float(shift), self._faults("take_scaled"),
        )  # fmt: skip
        return out


def _lanes(cols: int) -> int:
    """How many threads share a row: 2ᵏ of a warp, or a block."""
    return THREADS if cols > LONG_ROW else min(32, 1 << (cols - 1).bit_length())


# ---- numbers of the host, as kernels take them


def _weight(*, weight: float) -> tuple[float]:
    return (float(weight),)


def _mask(**static: Any) -> tuple[float, ...]:
    key, dropped, kept = mask_numbers(**static)
    return bits(key), float(dropped), kept


def _uniform(**static: Any) -> tuple[float, ...]:
    (key,) = uniform_numbers(**static)
    return (bits(key),)


def _kept(shape: Shape, dims: Shape, keepdim: bool) -> Shape:
    """What a sum over ``dims`` leaves of ``shape``."""
    gone = {d % len(shape) for d in dims}
    kept = enumerate(shape)
    return tuple(1 if i in gone else size for i, size in kept if keepdim or i not in gone)
