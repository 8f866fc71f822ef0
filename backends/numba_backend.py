"""NumPy arrays with compiled loops where those were measured faster than NumPy's.

Each override serves non-empty C-contiguous float arrays and leaves the rest to the default.
``tests/benchmarks/kernels.py`` measures them all. Products stay with NumPy's BLAS.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any, ClassVar

import numpy as np

from tinygrad_mnist.backends.numba_kernels import (
    convolution,
    exponentials,
    indexing,
    normalisation,
    optimizers,
    pointwise,
    pooling,
    streams,
)
from tinygrad_mnist.kernels import Array, Backend, Conv, Pool, Shape, convolved

FLOAT32, FLOAT64 = np.dtype(np.float32), np.dtype(np.float64)
INT32, INT64, UINT8 = np.dtype(np.int32), np.dtype(np.int64), np.dtype(np.uint8)
TINY = {dtype: float(np.finfo(dtype).tiny) for dtype in (FLOAT32, FLOAT64)}

HALVES = Pool(size=(2, 2), stride=(2, 2), padding=(0, 0))  # the pooling that is compiled
COLUMNS = 2**18  # numbers of a convolution's columns in memory at a time


class NumbaBackend(Backend):
    """The default kernels, and compiled ones in their place where that pays."""

    name = "numba"
    xp: ClassVar[Any] = np
    array_type = np.ndarray

    def check_index(self, index: Array, size: int, kernel: str, low: int = 0) -> None:
        if _is(index, INT64):
            least, most = streams.bounds(index.ravel())
            if least >= low and most < size:
                return
        super().check_index(index, size, kernel, low)

    # ---- pointwise

    def sigmoid(self, x: Array, *, out: Array = None) -> Array:
        if not _alike(x, out):
            return super().sigmoid(x, out=out)
        out = _or_empty(out, x.shape, x.dtype)
        exponentials.sigmoid(x.ravel(), out.ravel())
        return out

    def sigmoid_grad(self, dY: Array, y: Array, *, out: Array = None) -> Array:
        if not _alike(y, dY, out):
            return super().sigmoid_grad(dY, y, out=out)
        out = _or_empty(out, y.shape, y.dtype)
        pointwise.sigmoid_grad(dY.ravel(), y.ravel(), out.ravel())
        return out

    def tanh_grad(self, dY: Array, y: Array, *, out: Array = None) -> Array:
        if not _alike(y, dY, out):
            return super().tanh_grad(dY, y, out=out)
        out = _or_empty(out, y.shape, y.dtype)
        pointwise.tanh_grad(dY.ravel(), y.ravel(), out.ravel())
        return out

    def gelu(self, x: Array, *, approximate: str, out: Array = None) -> Array:
        if not _alike(x, out):
            return super().gelu(x, approximate=approximate, out=out)
        out = _or_empty(out, x.shape, x.dtype)
        kernel = exponentials.gelu_tanh if approximate == "tanh" else exponentials.gelu
        kernel(x.ravel(), out.ravel())
        return out

    def gelu_grad(self, dY: Array, x: Array, *, approximate: str, out: Array = None) -> Array:
        if not _alike(x, dY, out):
            return super().gelu_grad(dY, x, approximate=approximate, out=out)
        out = _or_empty(out, x.shape, x.dtype)
        kernel = exponentials.gelu_tanh_grad if approximate == "tanh" else exponentials.gelu_grad
        kernel(dY.ravel(), x.ravel(), out.ravel())
        return out

    def relu(self, x: Array, *, out: Array = None) -> Array:
        if not _alike(x, out):
            return super().relu(x, out=out)
        out = _or_empty(out, x.shape, x.dtype)
        pointwise.relu(x.ravel(), out.ravel())
        return out

    def relu_grad(self, dY: Array, y: Array, *, out: Array = None) -> Array:
        if not _alike(y, dY, out):
            return super().relu_grad(dY, y, out=out)
        out = _or_empty(out, y.shape, y.dtype)
        pointwise.relu_grad(dY.ravel(), y.ravel(), out.ravel())
        return out

    # ---- at indices

    def take_grad(
        self, dY: Array, index: Array, *, shape: Shape, dim: int, out: Array = None
    ) -> Array:
        dY = np.ascontiguousarray(dY).reshape(dY.shape)  # a sum's gradient is one number, expanded
        if not (_is_float(dY) and _is(index, INT64) and _takes(out, dY.dtype)):
            return super().take_grad(dY, index, shape=shape, dim=dim, out=out)
        self.check_index(index, shape[dim], f"take_grad: dim {dim}")
        out = self._filled(out, shape, dY.dtype, 0)
        before, after = math.prod(shape[:dim]), math.prod(shape[dim + 1 :])
        rows = dY.reshape(before, index.size, after)
        indexing.take_grad(rows, index.ravel(), out.reshape(before, shape[dim], after))
        return out

    # ---- convolution: compiled copies around a product per image

    def conv2d(
        self, x: Array, weight: Array, bias: Array = None, *, conv: Conv, out: Array = None
    ) -> Array:
        if not (_dense(conv) and _are(x.dtype, x, weight) and _takes(out, x.dtype)):
            return super().conv2d(x, weight, bias, conv=conv, out=out)
        stride, padding, dilation, groups = conv
        x = self._pad(x, padding, 0)
        spots = convolved(x.shape[2:], weight.shape[2:], stride, dilation)
        out = _or_empty(out, (len(x), len(weight), *spots), x.dtype)
        kernel = weight.reshape(groups, len(weight) // groups, -1)
        products = out.reshape(len(x), *kernel.shape[:2], -1)
        for block, columns in _blocks(x.shape, weight.shape[2:], spots, x.dtype):
            convolution.im2col(x[block], columns)
            np.matmul(kernel, _matrices(columns, groups), out=products[block])
            if bias is not None:
                out[block] += bias[:, None, None]
        return out

    def conv2d_dx(
        self, dY: Array, weight: Array, *, shape: Shape, conv: Conv, out: Array = None
    ) -> Array:
        if not (_dense(conv) and _are(dY.dtype, dY, weight) and _takes(out, dY.dtype)):
            return super().conv2d_dx(dY, weight, shape=shape, conv=conv, out=out)
        padding, groups = conv.padding, conv.groups
        (n, c, h, w), (ph, pw) = shape, padding
        padded_shape = (n, c, h + 2 * ph, w + 2 * pw)
        padded = _or_empty(out if padding == (0, 0) else None, padded_shape, dY.dtype)
        kernel = weight.reshape(groups, len(weight) // groups, -1)
        rows = dY.reshape(n, *kernel.shape[:2], -1)
        for block, columns in _blocks(padded_shape, weight.shape[2:], dY.shape[2:], dY.dtype):
            np.matmul(kernel.swapaxes(1, 2), rows[block], out=_matrices(columns, groups))
            convolution.col2im(columns, padded[block])
        if padding == (0, 0):
            return padded
        out = _or_empty(out, shape, dY.dtype)
        out[...] = padded[:, :, ph : ph + h, pw : pw + w]
        return out

    def conv2d_dw(
        self, dY: Array, x: Array, *, shape: Shape, conv: Conv, out: Array = None
    ) -> Array:
        if not (_dense(conv) and _are(x.dtype, dY, x) and _takes(out, x.dtype)):
            return super().conv2d_dw(dY, x, shape=shape, conv=conv, out=out)
        groups, x = conv.groups, self._pad(x, conv.padding, 0)
        rows = dY.reshape(len(x), groups, shape[0] // groups, -1)
        # Transposed: BLAS then reads the columns, the larger operand, as they lie.
        total = np.zeros((groups, math.prod(shape[1:]), shape[0] // groups), x.dtype)
        for block, columns in _blocks(x.shape, shape[2:], dY.shape[2:], x.dtype):
            convolution.im2col(x[block], columns)
            per_image = np.matmul(_matrices(columns, groups), rows[block].swapaxes(2, 3))
            total += per_image.sum(axis=0)
        return self._into(out, total.swapaxes(1, 2).reshape(shape))

    # ---- pooling

    def max_pool2d(self, x: Array, *, pool: Pool, out: Any = None) -> tuple[Array, Array]:
        y, index = (None, None) if out is None else out
        covered = pool == HALVES and _takes(y, x.dtype) and _takes(index, INT32)
        if not (covered and _is_float(x)):
            return super().max_pool2d(x, pool=pool, out=out)
        n, c, h, w = x.shape
        shape = (n, c, h // 2, w // 2)
        y, index = _or_empty(y, shape, x.dtype), _or_empty(index, shape, INT32)
        pooling.max_pool2d(x, y, index)
        return y, index

    def max_pool2d_grad(
        self, dY: Array, index: Array, *, shape: Shape, pool: Pool, out: Array = None
    ) -> Array:
        covered = pool == HALVES and _is(index, INT32) and _takes(out, dY.dtype)
        if not (covered and _is_float(dY)):
            return super().max_pool2d_grad(dY, index, shape=shape, pool=pool, out=out)
        out = _or_empty(out, shape, dY.dtype)
        pooling.max_pool2d_grad(dY, index, out)
        return out

    def max_pool2d_take(self, x: Array, index: Array, *, pool: Pool, out: Array = None) -> Array:
        covered = pool == HALVES and _is(index, INT32) and _takes(out, x.dtype)
        if not (covered and _is_float(x)):
            return super().max_pool2d_take(x, index, pool=pool, out=out)
        out = _or_empty(out, index.shape, x.dtype)
        pooling.max_pool2d_take(x, index, out)
        return out

    # ---- networks

    def batch_norm(
        self, x: Array, weight: Array, bias: Array, *, eps: float, out: Any = None
    ) -> tuple[Array, Array, Array]:
        y, mean, var = (None, None, None) if out is None else out
        given = _takes(y, x.dtype) and _takes(mean, x.dtype) and _takes(var, x.dtype)
        if not (x.ndim > 2 and _are(x.dtype, x, weight, bias) and given):
            return super().batch_norm(x, weight, bias, eps=eps, out=out)
        y = _or_empty(y, x.shape, x.dtype)
        mean, var = (_or_empty(a, weight.shape, x.dtype) for a in (mean, var))
        planes = (*x.shape[:2], -1)
        normalisation.batch_norm(
            x.reshape(planes), weight, bias, float(eps), y.reshape(planes), mean, var
        )
        return y, mean, var

    def batch_norm_grad(
        self, dY: Array, x: Array, weight: Array, *, eps: float, out: Any = None
    ) -> tuple[Array, Array, Array]:
        dX, dweight, dbias = (None, None, None) if out is None else out
        given = _takes(dX, x.dtype) and _takes(dweight, x.dtype) and _takes(dbias, x.dtype)
        if not (x.ndim > 2 and _are(x.dtype, dY, x, weight) and given):
            return super().batch_norm_grad(dY, x, weight, eps=eps, out=out)
        dX = _or_empty(dX, x.shape, x.dtype)
        dweight, dbias = (_or_empty(a, weight.shape, x.dtype) for a in (dweight, dbias))
        planes = (*x.shape[:2], -1)
        normalisation.batch_norm_grad(
            dY.reshape(planes), x.reshape(planes), weight, float(eps),
            dX.reshape(planes), dweight, dbias,
        )  # fmt: skip
        return dX, dweight, dbias

    def softmax(self, x: Array, *, dim: int, out: Array = None) -> Array:
        if not (_alike(x, out) and dim == x.ndim - 1):
            return super().softmax(x, dim=dim, out=out)
        out = _or_empty(out, x.shape, x.dtype)
        exponentials.softmax(_rows(x), _rows(out))
        return out

    def softmax_grad(self, dY: Array, y: Array, *, dim: int, out: Array = None) -> Array:
        dY = np.ascontiguousarray(dY)  # a sum's gradient is one number, expanded
        if not (_alike(y, dY, out) and dim == y.ndim - 1):
            return super().softmax_grad(dY, y, dim=dim, out=out)
        out = _or_empty(out, y.shape, y.dtype)
        exponentials.softmax_grad(_rows(dY), _rows(y), _rows(out))
        return out

    def log_softmax(self, x: Array, *, dim: int, out: Array = None) -> Array:
        if not (_alike(x, out) and dim == x.ndim - 1):
            return super().log_softmax(x, dim=dim, out=out)
        out = _or_empty(out, x.shape, x.dtype)
        exponentials.log_softmax(_rows(x), _rows(out))
        return out

    def log_softmax_grad(self, dY: Array, y: Array, *, dim: int, out: Array = None) -> Array:
        dY = np.ascontiguousarray(dY)
        if not (_alike(y, dY, out) and dim == y.ndim - 1):
            return super().log_softmax_grad(dY, y, dim=dim, out=out)
        out = _or_empty(out, y.shape, y.dtype)
        exponentials.log_softmax_grad(_rows(dY), _rows(y), _rows(out))
        return out

    def cross_entropy(
        self, x: Array, target: Array, *, ignore_index: int, out: Any = None
    ) -> tuple[Array, Array]:
        losses, count = (None, None) if out is None else out
        given = _takes(losses, x.dtype) and _takes(count, x.dtype)
        if given and _is_float(x) and _is(target, INT64):
            losses = _or_empty(losses, target.shape, x.dtype)
            counted = exponentials.cross_entropy(x, target, ignore_index, losses)
            if counted >= 0:
                count = _or_empty(count, (), x.dtype)
                count[()] = counted or math.nan
                return losses, count
        return super().cross_entropy(x, target, ignore_index=ignore_index, out=out)

    def cross_entropy_grad(
        self, dY: Array, x: Array, target: Array, *, ignore_index: int, out: Array = None
    ) -> Array:
        dY = np.ascontiguousarray(dY)  # the mean's gradient is one number, expanded
        if _are(x.dtype, dY, x) and _is(target, INT64) and _takes(out, x.dtype):
            dX = _or_empty(out, x.shape, x.dtype)
            if exponentials.cross_entropy_grad(dY, x, target, ignore_index, dX) >= 0:
                return dX
        return super().cross_entropy_grad(dY, x, target, ignore_index=ignore_index, out=out)

    def dropout_mask(
        self, *, shape: Shape, p: float, key: int, dtype: np.dtype, out: Array = None
    ) -> Array:
        mask = _or_empty(out, shape, dtype)
        if not _is_float(mask):
            return super().dropout_mask(shape=shape, p=p, key=key, dtype=dtype, out=out)
        threshold = np.uint64(min(round(p * 2**32), 2**32 - 1))
        streams.dropout_mask(np.uint64(key), threshold, 1 / (1 - p), mask.ravel())
        return mask

    def uniform(
        self, *, shape: Shape, key: int, dtype: np.dtype, out: Array = None
    ) -> Array:  # fmt: skip
        drawn = _or_empty(out, shape, dtype)
        if not _is_float(drawn):
            return super().uniform(shape=shape, key=key, dtype=dtype, out=out)
        streams.uniform(np.uint64(key), drawn.ravel())
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
        if not (_is(x, UINT8) and _is(index, INT64) and _takes(out, dtype) and dtype in TINY):
            return super().take_scaled(x, index, scale=scale, shift=shift, dtype=dtype, out=out)
        self.check_index(index, len(x), "take_scaled")
        out = _or_empty(out, (*index.shape, *x.shape[1:]), dtype)
        rows = out.reshape(index.size, -1)
        streams.take_scaled(x.reshape(len(x), -1), index.ravel(), float(scale), float(shift), rows)
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
        undamped = 1.0 if first else 1.0 - dampening
        for arrays in _aligned(params, grads, buffers if momentum else []):
            if not _alike(*arrays):
                super().sgd_(
                    *_lists(arrays), lr=lr, momentum=momentum, dampening=dampening,
                    weight_decay=weight_decay, nesterov=nesterov, maximize=maximize, first=first,
                )  # fmt: skip
            elif momentum:
                optimizers.sgd_momentum(
                    *_flat(arrays), lr, momentum, undamped, weight_decay, nesterov, maximize,
                    TINY[arrays[0].dtype],
                )  # fmt: skip
            else:
                p, g, _ = arrays
                optimizers.sgd(p.ravel(), g.ravel(), lr, weight_decay, maximize)

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
        shrink, coupled = 1.0, weight_decay
        if decoupled_weight_decay:
            shrink, coupled = 1.0 - lr * weight_decay, 0.0
        step_size, correction = lr / (1 - beta1**step), (1 - beta2**step) ** 0.5
        for arrays in _aligned(params, grads, exp_avgs, exp_avg_sqs, max_exp_avg_sqs):
            if _alike(*arrays):
                optimizers.adam(
                    *_flat(arrays), beta1, beta2, eps, coupled, shrink, maximize, step_size,
                    correction, TINY[arrays[0].dtype],
                )  # fmt: skip
            else:
                super().adam_(
                    *_lists(arrays), lr=lr, beta1=beta1, beta2=beta2, eps=eps,
                    weight_decay=weight_decay, decoupled_weight_decay=decoupled_weight_decay,
                    maximize=maximize, step=step,
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
        rate = lr / (1 + (step - 1) * lr_decay)
        for arrays in _aligned(params, grads, sums):
            if _alike(*arrays):
                optimizers.adagrad(*_flat(arrays), rate, eps, weight_decay, maximize)
            else:
                super().adagrad_(
                    *_lists(arrays), lr=lr, lr_decay=lr_decay, eps=eps, weight_decay=weight_decay,
                    maximize=maximize, step=step,
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
        for arrays in _aligned(params, grads, square_avgs, acc_deltas):
            if _alike(*arrays):
                optimizers.adadelta(
                    *_flat(arrays), lr, rho, eps, weight_decay, maximize, TINY[arrays[0].dtype]
                )
            else:
                super().adadelta_(
                    *_lists(arrays), lr=lr, rho=rho, eps=eps, weight_decay=weight_decay,
                    maximize=maximize, step=step,
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
        for arrays in _aligned(params, grads, square_avgs, grad_avgs, buffers):
            if _alike(*arrays):
                optimizers.rmsprop(
                    *_flat(arrays), lr, alpha, eps, momentum, weight_decay, maximize,
                    TINY[arrays[0].dtype],
                )  # fmt: skip
            else:
                super().rmsprop_(
                    *_lists(arrays), lr=lr, alpha=alpha, eps=eps, momentum=momentum,
                    weight_decay=weight_decay, maximize=maximize, step=step,
                )  # fmt: skip


def _rows(x: Array) -> Array:
    """(…, size) as (n, size)."""
    return x.reshape(-1, x.shape[-1])


def _aligned(*lists: list[Array]) -> Iterator[tuple[Any, ...]]:
    """The arrays of each parameter; None stands where a list of moments is empty."""
    count = len(lists[0])
    return zip(*(arrays or [None] * count for arrays in lists), strict=True)


def _flat(arrays: tuple[Any, ...]) -> list[Any]:
    return [None if x is None else x.ravel() for x in arrays]


def _lists(arrays: tuple[Any, ...]) -> list[list[Array]]:
    """One parameter's arrays as the lists that the default takes."""
    return [[] if x is None else [x] for x in arrays]


def _is(x: Any, dtype: np.dtype) -> bool:
    """Whether the loops take ``x``: a non-empty C-contiguous NumPy array of ``dtype``.

    Every call asks this, so it compares dtypes by identity; an equal one takes the default.
    """
    return type(x) is np.ndarray and x.dtype is dtype and x.flags.c_contiguous and x.size > 0


def _is_float(x: Any) -> bool:
    return _is(x, FLOAT32) or _is(x, FLOAT64)


def _are(dtype: np.dtype, *arrays: Any) -> bool:
    return dtype in TINY and all(_is(x, dtype) for x in arrays)


def _alike(x: Any, *others: Any) -> bool:
    """Whether the loops take ``x`` and arrays of its dtype and shape; None stands for no ``out``.

    One function for all of them: on a small array the checks take as long as the loop.
    """
    if not _is_float(x):
        return False
    dtype, shape = x.dtype, x.shape
    for y in others:
        if y is not None and (
            type(y) is not np.ndarray
            or y.dtype is not dtype
            or y.shape != shape
            or not y.flags.c_contiguous
        ):
            return False
    return True


def _takes(out: Any, dtype: np.dtype) -> bool:
    return out is None or _is(out, dtype)


def _or_empty(out: Any, shape: Shape, dtype: np.dtype) -> Array:
    return np.empty(shape, dtype) if out is None else out


def _dense(conv: Conv) -> bool:
    """Whether a convolution meets every pixel, and a kernel's cells are neighbours."""
    return conv.stride == conv.dilation == (1, 1)


def _blocks(
    shape: Shape, kernel: Shape, spots: Shape, dtype: np.dtype
) -> Iterator[tuple[slice, Array]]:
    """Blocks of images of ``shape`` (N, C, H, W), each with room for its columns.

    The columns (n, C, kh, kw, H', W') of a block stay in the cache between the copy and the
    product; those of all images may not even fit in memory.
    """
    n, c = shape[:2]
    room = (c, *kernel, *spots)
    step = min(n, max(1, COLUMNS // math.prod(room)))
    columns = np.empty((step, *room), dtype)
    for start in range(0, n, step):
        stop = min(start + step, n)
        yield slice(start, stop), columns[: stop - start]


def _matrices(columns: Array, groups: int) -> Array:
    """Columns (n, C, kh, kw, H', W') as a view (n, groups, C/groups·kh·kw, H'·W')."""
    n, c, kh, kw, height, width = columns.shape
    return columns.reshape(n, groups, c // groups * kh * kw, height * width)
