"""CuPy arrays on a GPU, with CUDA kernels of our own where CuPy's would be several or slow.

Each override serves non-empty C-contiguous float arrays and leaves the rest to the default, which
CuPy's own functions compute.
"""

from __future__ import annotations

import math
from typing import Any, ClassVar

import cupy
import numpy as np

from tinygrad_mnist.backends.cupy_kernels import faults, updates
from tinygrad_mnist.backends.cupy_kernels.launching import THREADS, Fn, Launching, bits, or_empty
from tinygrad_mnist.backends.numbers import (
    adadelta_numbers,
    adagrad_numbers,
    adam_numbers,
    mask_numbers,
    rmsprop_numbers,
    sgd_numbers,
    uniform_numbers,
)
from tinygrad_mnist.kernels import Array, Backend, Shape

FLOAT32, FLOAT64 = FLOATS = np.dtype(np.float32), np.dtype(np.float64)
INT32, INT64, UINT8 = np.dtype(np.int32), np.dtype(np.int64), np.dtype(np.uint8)
BOOL = np.dtype(np.bool_)

LONG_ROW = 1024  # columns from which on a block works on each row, and not a part of a warp
MANY_ROWS = 4096  # from which on cross-entropy has large blocks: one of them counts the rows
FEW = 2**13  # indices that each element of a gradient may look through
LITTLE = 2**28  # and looks of all its elements


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

    def check_index(self, index: Array, size: int, kernel: str, low: int = 0) -> None:
        index = self._contiguous(index)
        self._each(
            "indexing", "check_index", index.size, FLOAT64,
            index, index.size, low, size, self._faults(kernel),
        )  # fmt: skip

    # ---- pointwise

    def sigmoid(self, x: Array, *, out: Array = None) -> Array:
        if not _floats(x):
            return super().sigmoid(x, out=out)
        return self._pointwise("sigmoid", x, out=out)

    def sigmoid_grad(self, dY: Array, y: Array, *, out: Array = None) -> Array:
        if not _floats(y, dY):
            return super().sigmoid_grad(dY, y, out=out)
        return self._pointwise("sigmoid_grad", dY, y, out=out)

    def tanh(self, x: Array, *, out: Array = None) -> Array:
        if not _floats(x):
            return super().tanh(x, out=out)
        return self._pointwise("tanh_each", x, out=out)

    def tanh_grad(self, dY: Array, y: Array, *, out: Array = None) -> Array:
        if not _floats(y, dY):
            return super().tanh_grad(dY, y, out=out)
        return self._pointwise("tanh_grad", dY, y, out=out)

    def gelu(self, x: Array, *, approximate: str, out: Array = None) -> Array:
        if not _floats(x):
            return super().gelu(x, approximate=approximate, out=out)
        return self._pointwise("gelu_tanh" if approximate == "tanh" else "gelu", x, out=out)

    def gelu_grad(self, dY: Array, x: Array, *, approximate: str, out: Array = None) -> Array:
        if not _floats(x, dY):
            return super().gelu_grad(dY, x, approximate=approximate, out=out)
        name = "gelu_tanh_grad" if approximate == "tanh" else "gelu_grad"
        return self._pointwise(name, dY, x, out=out)

    def relu(self, x: Array, *, out: Array = None) -> Array:
        if not _floats(x):
            return super().relu(x, out=out)
        return self._pointwise("relu", x, out=out)

    def relu_grad(self, dY: Array, y: Array, *, out: Array = None) -> Array:
        if not _floats(y, dY):
            return super().relu_grad(dY, y, out=out)
        return self._pointwise("relu_grad", dY, y, out=out)

    def erf(self, x: Array, *, out: Array = None) -> Array:
        if not _floats(x):
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
        if not _has_floats(x, y):
            return super().floor_divide(x, y, out=out)
        return self._of_two("floor_divide", x, y, out)

    def remainder(self, x: Array, y: Array, *, out: Array = None) -> Array:
        if not _has_floats(x, y):
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
        given = ((v, 0) if hasattr(v, "dtype") else (None, int(v)) for v in (x, y))
        failing = self._faults(faults.NEGATIVE_POWER)
        pairs = (each for pair in given for each in pair)
        self._each("pointwise", "power", made.size, FLOAT64, *pairs, made, made.size, failing)
        return self._into(out, made.astype(dtype, copy=False))

    def where(self, condition: Array, x: Array, y: Array, *, out: Array = None) -> Array:
        like = x if hasattr(x, "dtype") else y
        arrays = [v for v in (x, y) if hasattr(v, "dtype")]
        fits = _alike(like, out, *arrays) and _is(condition, BOOL)
        if not (fits and condition.shape == like.shape and _apart(out, *arrays)):
            return self._into(out, self.xp.where(condition, x, y))
        out = or_empty(out, like.shape, like.dtype)
        given = condition, *_operand(x), *_operand(y), out, out.size
        self._each("pointwise", "where", out.size, out.dtype, *given)
        return out

    def cast(self, x: Array, *, dtype: np.dtype, out: Array = None) -> Array:
        if out is None:
            return x.astype(dtype)
        out[...] = x  # as astype does, without a copy in between
        return out

    def copy(self, x: Array, *, out: Array = None) -> Array:
        return x.copy(order="C") if out is None else self._into(out, x)

    def copy_(self, x: Array, y: Array) -> None:
        # What is contiguous CuPy copies as memory, in which order none can tell.
        x[...] = y if _apart(x, y) else y.copy()

    def lerp_(self, x: Array, end: Array, *, weight: float) -> None:
        if _alike(x, end) and _apart(x, end):
            numbers = self._numbers(_weight, weight=weight)
            self._each("pointwise", "lerp", x.size, x.dtype, x, end, x.size, *numbers)
        else:
            super().lerp_(x, end, weight=weight)

    def _pointwise(self, name: str, *arrays: Array, out: Array) -> Array:
        """The kernel ``name`` of arrays of floats, however they lie: its bits are then the same."""
        x = arrays[0]
        made = or_empty(out if _takes(out, x.dtype) else None, x.shape, x.dtype)
        given = [self._contiguous(each) for each in arrays]
        self._each("pointwise", name, x.size, x.dtype, *given, made, x.size)
        return made if out is None or made is out else self._into(out, made)

    def _of_two(self, name: str, x: Array, y: Array, out: Array) -> Array:
        """The kernel ``name`` of two arrays of floats, one of which may be a number."""
        x, y, shape = self._broadcast(x, y)
        dtype = (x if hasattr(x, "dtype") else y).dtype
        fits = _takes(out, dtype) and _apart(out, x, y)
        made = or_empty(out if fits else None, shape, dtype)
        self._each("pointwise", name, made.size, dtype, *_operand(x), *_operand(y), made, made.size)
        return made if fits else self._into(out, made)

    def _broadcast(self, *operands: Any) -> tuple[Any, Any, Shape]:
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
        given = x.flags.c_contiguous and _takes(out, x.dtype)
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
        fits = _takes(out, dtype)
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
        if not _takes(out, INT64):
            return super().wrap_index(x, size=size, low=low, step=step, what=what, out=out)
        out = or_empty(out, x.shape, INT64)
        self._each(
            "indexing", "wrap_index", x.size, FLOAT64,
            self._contiguous(x), out, x.size, low, size, step, self._faults(what),
        )  # fmt: skip
        return out

    # ---- reductions

    # ---- products

    # ---- convolution

    # ---- pooling

    # ---- batch norm

    # ---- softmax and cross-entropy

    def softmax(self, x: Array, *, dim: int, out: Array = None) -> Array:
        if dim != x.ndim - 1 or not _alike(x := self._contiguous(x), out):
            return super().softmax(x, dim=dim, out=out)
        return self._rows("softmax", x, out=out)

    def softmax_grad(self, dY: Array, y: Array, *, dim: int, out: Array = None) -> Array:
        dY = self._contiguous(dY)
        if dim != y.ndim - 1 or not _alike(y, dY, out):
            return super().softmax_grad(dY, y, dim=dim, out=out)
        return self._rows("softmax_grad", dY, y, out=out)

    def log_softmax(self, x: Array, *, dim: int, out: Array = None) -> Array:
        if dim != x.ndim - 1 or not _alike(x := self._contiguous(x), out):
            return super().log_softmax(x, dim=dim, out=out)
        return self._rows("log_softmax", x, out=out)

    def log_softmax_grad(self, dY: Array, y: Array, *, dim: int, out: Array = None) -> Array:
        dY = self._contiguous(dY)
        if dim != y.ndim - 1 or not _alike(y, dY, out):
            return super().log_softmax_grad(dY, y, dim=dim, out=out)
        return self._rows("log_softmax_grad", dY, y, out=out)

    def cross_entropy(
        self, x: Array, target: Array, *, ignore_index: int, out: Any = None
    ) -> tuple[Array, Array]:
        x, target = self._contiguous(x), self._contiguous(target)
        losses, count = (None, None) if out is None else out
        given = _takes(losses, x.dtype) and _takes(count, x.dtype)
        if not (given and _is_float(x) and _is(target, INT64)):
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
        if not (_alike(x, out) and dY.dtype == x.dtype and _is(target, INT64)):
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
        if dtype not in FLOATS or not _takes(out, dtype):
            return super().dropout_mask(shape=shape, p=p, key=key, dtype=dtype, out=out)
        mask = or_empty(out, shape, dtype)
        numbers = self._numbers(_mask, shape=shape, p=p, key=key, dtype=dtype)
        pairs = (mask.size + 1) // 2
        self._each("streams", "dropout_mask", pairs, mask.dtype, mask, mask.size, *numbers)
        return mask

    def uniform(self, *, shape: Shape, key: int, dtype: np.dtype, out: Array = None) -> Array:
        if dtype not in FLOATS or not _takes(out, dtype):
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
        if not (_is(x, UINT8) and _is(index, INT64) and dtype in FLOATS and _takes(out, dtype)):
            return super().take_scaled(x, index, scale=scale, shift=shift, dtype=dtype, out=out)
        out = or_empty(out, (*index.shape, *x.shape[1:]), dtype)
        self._each(
            "indexing", "take_scaled", out.size, out.dtype, x, index, out, out.size, len(x),
            math.prod(x.shape[1:]), float(scale), float(shift), self._faults("take_scaled"),
        )  # fmt: skip
        return out

    # ---- optimizers

    def sgd_(
        self,
        params: list[Array],
        grads: list[Array],
        buffers: list[Array],
        *,
        lr: float,
        momentum: float,
        dampening: float,
        weight_decay: float,
        nesterov: bool,
        maximize: bool,
        first: bool,
    ) -> None:
        self._update(
            "sgd", sgd_numbers, params, grads, buffers, lr=lr, momentum=momentum,
            dampening=dampening, weight_decay=weight_decay, nesterov=nesterov, maximize=maximize,
            first=first,
        )  # fmt: skip

    def adam_(
        self,
        params: list[Array],
        grads: list[Array],
        exp_avgs: list[Array],
        exp_avg_sqs: list[Array],
        max_exp_avg_sqs: list[Array],
        *,
        lr: float,
        beta1: float,
        beta2: float,
        eps: float,
        weight_decay: float,
        decoupled_weight_decay: bool,
        maximize: bool,
        step: int,
    ) -> None:
        self._update(
            "adam", adam_numbers, params, grads, exp_avgs, exp_avg_sqs, max_exp_avg_sqs,
            lr=lr, beta1=beta1, beta2=beta2, eps=eps, weight_decay=weight_decay,
            decoupled_weight_decay=decoupled_weight_decay, maximize=maximize, step=step,
        )  # fmt: skip

    def adagrad_(
        self,
        params: list[Array],
        grads: list[Array],
        sums: list[Array],
        *,
        lr: float,
        lr_decay: float,
        eps: float,
        weight_decay: float,
        maximize: bool,
        step: int,
    ) -> None:
        self._update(
            "adagrad", adagrad_numbers, params, grads, sums, lr=lr, lr_decay=lr_decay, eps=eps,
            weight_decay=weight_decay, maximize=maximize, step=step,
        )  # fmt: skip

    def adadelta_(
        self,
        params: list[Array],
        grads: list[Array],
        square_avgs: list[Array],
        acc_deltas: list[Array],
        *,
        lr: float,
        rho: float,
        eps: float,
        weight_decay: float,
        maximize: bool,
        step: int,
    ) -> None:
        self._update(
            "adadelta", adadelta_numbers, params, grads, square_avgs, acc_deltas, lr=lr, rho=rho,
            eps=eps, weight_decay=weight_decay, maximize=maximize, step=step,
        )  # fmt: skip

    def rmsprop_(
        self,
        params: list[Array],
        grads: list[Array],
        square_avgs: list[Array],
        grad_avgs: list[Array],
        buffers: list[Array],
        *,
        lr: float,
        alpha: float,
        eps: float,
        momentum: float,
        weight_decay: float,
        maximize: bool,
        step: int,
    ) -> None:
        self._update(
            "rmsprop", rmsprop_numbers, params, grads, square_avgs, grad_avgs, buffers, lr=lr,
            alpha=alpha, eps=eps, momentum=momentum, weight_decay=weight_decay, maximize=maximize,
            step=step,
        )  # fmt: skip

    def _update(self, name: str, fn: Fn, *lists: list[Array], **static: Any) -> None:
        """The kernel ``name`` for all parameters, in one launch of up to ``updates.MOST``.

        An array that is not contiguous is updated as a copy.
        """
        if not lists[0]:
            return
        given = [[self._contiguous(x) for x in arrays] for arrays in lists]
        numbers = self._numbers(fn, **static)
        for tensors, size in updates.groups(given):
            self._each("optimizers", name, size, lists[0][0].dtype, tensors, *numbers)
        for arrays, copies in zip(lists[:1] + lists[2:], given[:1] + given[2:], strict=True):
            for x, copy in zip(arrays, copies, strict=True):
                if copy is not x:
                    x[...] = copy


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


def _is(x: Any, dtype: np.dtype) -> bool:
    """Whether ``x`` is contiguous and of ``dtype``."""
    return bool(x.dtype == dtype and x.flags.c_contiguous)


def _takes(out: Any, dtype: np.dtype) -> bool:
    """Whether a kernel can fill ``out``, or make it."""
    return out is None or _is(out, dtype)


def _floats(x: Any, *others: Any) -> bool:
    """Whether ``x`` is of floats, and the others of its dtype and shape."""
    return bool(x.dtype in FLOATS) and all((y.dtype, y.shape) == (x.dtype, x.shape) for y in others)


def _has_floats(x: Any, y: Any) -> bool:
    """Whether the array among two, of which one may be a number, is of floats."""
    return (x if hasattr(x, "dtype") else y).dtype in FLOATS


def _operand(x: Any) -> tuple[Any, float]:
    """An array, or the number in its stead, as a kernel takes it."""
    return (x, 0.0) if hasattr(x, "dtype") else (None, float(x))


def _apart(out: Any, *inputs: Any) -> bool:
    """Whether a kernel can fill ``out``, if any, as it reads: no input overlaps it in part."""
    if out is None:
        return True
    start, end = out.data.ptr, out.data.ptr + out.nbytes
    arrays = [x for x in inputs if hasattr(x, "dtype")]
    return all(
        x.data.ptr == start or x.data.ptr >= end or x.data.ptr + x.nbytes <= start for x in arrays
    )


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
