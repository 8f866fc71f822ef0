"""NumPy arrays with compiled loops where those were measured faster than NumPy's.

Each override serves non-empty C-contiguous float arrays and leaves the rest to the default.
``tests/benchmarks/kernels.py`` measures them all. Small products stay with NumPy's BLAS.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any, ClassVar

import numpy as np

from tinygrad_mnist.backends.numba_kernels import (
    cache,
    convolution,
    exponentials,
    indexing,
    normalisation,
    optimizers,
    planning,
    pointwise,
    pooling,
    products,
    programs,
    streams,
    threads,
)
from tinygrad_mnist.backends.numba_kernels.launching import Launching, Total
from tinygrad_mnist.backends.numba_kernels.launching import or_empty as _or_empty
from tinygrad_mnist.backends.numbers import (
    adadelta_numbers,
    adagrad_numbers,
    adam_numbers,
    mask_numbers,
    rmsprop_numbers,
    sgd_numbers,
    uniform_numbers,
)
from tinygrad_mnist.kernels import Act, Array, Backend, Conv, Pair, Pool, Shape, Step, convolved

FLOAT32, FLOAT64 = np.dtype(np.float32), np.dtype(np.float64)
INT32, INT64, UINT8 = np.dtype(np.int32), np.dtype(np.int64), np.dtype(np.uint8)
TINY = {dtype: float(np.finfo(dtype).tiny) for dtype in (FLOAT32, FLOAT64)}

SMALL = 2**18  # multiplications up to which NumPy's BLAS keeps to one thread
FEW = 16  # rows up to which threads that divide them would each read all of the other matrix
WIDE = 2**20  # numbers of a gradient that is too large for one sum on each thread
MANY = 256  # samples from which on the threads divide them in a product that sums over them
LONG = 2**14  # numbers from which on a compiled sum or plain SGD is worth its call
SPOTS = 32  # pixels of a result below which one product per image is too small
HALVES = Pool(size=(2, 2), stride=(2, 2), padding=(0, 0))  # the pooling with loops of its own


class NumbaBackend(Launching, Backend):
    """The default kernels, and compiled ones in their place where that pays."""

    name = "numba"
    xp: ClassVar[Any] = np
    array_type = np.ndarray

    _small = False  # whether small products and updates are compiled: in a program

    def details(self) -> dict[str, str]:
        return threads.details() | cache.compilation()

    def prepared(self, steps: Sequence[Step]) -> list[Callable[[], None]]:
        if not threads.compiles():
            return super().prepared(steps)
        return programs.prepared(self, _Planner, steps)

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
        return self._each(exponentials.sigmoid, x.size, x, out=out)

    def sigmoid_grad(self, dY: Array, y: Array, *, out: Array = None) -> Array:
        if not _alike(y, dY, out):
            return super().sigmoid_grad(dY, y, out=out)
        return self._each(pointwise.sigmoid_grad, y.size // 4, dY, y, out=out)

    def tanh_grad(self, dY: Array, y: Array, *, out: Array = None) -> Array:
        if not _alike(y, dY, out):
            return super().tanh_grad(dY, y, out=out)
        return self._each(pointwise.tanh_grad, y.size // 4, dY, y, out=out)

    def gelu(self, x: Array, *, approximate: str, out: Array = None) -> Array:
        if not _alike(x, out):
            return super().gelu(x, approximate=approximate, out=out)
        kernel = exponentials.gelu_tanh if approximate == "tanh" else exponentials.gelu
        return self._each(kernel, 2 * x.size, x, out=out)

    def gelu_grad(self, dY: Array, x: Array, *, approximate: str, out: Array = None) -> Array:
        if not _alike(x, dY, out):
            return super().gelu_grad(dY, x, approximate=approximate, out=out)
        kernel = exponentials.gelu_tanh_grad if approximate == "tanh" else exponentials.gelu_grad
        return self._each(kernel, 2 * x.size, dY, x, out=out)

    def relu(self, x: Array, *, out: Array = None) -> Array:
        if not _alike(x, out):
            return super().relu(x, out=out)
        return self._each(pointwise.relu, x.size // 4, x, out=out)

    def relu_grad(self, dY: Array, y: Array, *, out: Array = None) -> Array:
        if not _alike(y, dY, out):
            return super().relu_grad(dY, y, out=out)
        return self._each(pointwise.relu_grad, y.size // 4, dY, y, out=out)

    # ---- reductions

    def sum(self, x: Array, *, dim: Shape, keepdim: bool, out: Array = None) -> Array:
        if x.size < LONG:  # as np.sum does, after 0.4 µs
            return np.add.reduce(x, axis=dim, keepdims=keepdim, out=out)
        kept = [d for d in range(x.ndim) if d not in dim]
        # What is kept lies together, behind a summed dim; other sums are as fast with NumPy.
        together = kept and kept[0] > 0 and kept[-1] - kept[0] < len(kept)
        if not (together and _is_float(x) and _takes(out, x.dtype)):
            return super().sum(x, dim=dim, keepdim=keepdim, out=out)
        shape = tuple(1 if d in dim else size for d, size in enumerate(x.shape))
        out = _or_empty(out, shape if keepdim else tuple(x.shape[d] for d in kept), x.dtype)
        self._sum(x.reshape(math.prod(x.shape[: kept[0]]), out.size, -1), out)
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

    # ---- products on all threads

    def matmul(self, x: Array, y: Array, *, out: Array = None) -> Array:
        if not (self._small or _is_large(x, y.shape[-1])):
            return super().matmul(x, y, out=out)
        fits = _is_matrix(x) and _is_matrix(y) and x.shape[1] == y.shape[0]
        fits = fits and (self._small or len(x) >= FEW)
        if not (fits and x.dtype is y.dtype and _takes(out, x.dtype)):
            return super().matmul(x, y, out=out)
        out = _or_empty(out, (len(x), y.shape[1]), x.dtype)
        work = _product(x, y.shape[1]) if len(x) >= FEW else 0
        self._run(products.matmul, len(x), work, self._contiguous(x), y, out)
        return out

    def linear(
        self, x: Array, weight: Array, bias: Array = None, *, act: Act = None, out: Array = None
    ) -> Array:
        large = self._small or _is_large(x, len(weight))
        if not (large and _are(x.dtype, x, weight) and _takes(out, x.dtype)):
            return super().linear(x, weight, bias, act=act, out=out)
        out = _or_empty(out, (len(x), len(weight)), x.dtype)
        work = _product(x, len(weight))
        if bias is None:
            self._run(products.matmul, len(x), work, x, weight.T, out)
            return self._activated(out, act)
        floor, act = _floor(act)
        arguments = x, weight, self._contiguous(bias), floor, out
        if 2 * len(x) <= len(weight):
            self._run(products.linear_outputs, len(weight), work, *arguments)
        else:
            self._run(products.linear, len(x), work, *arguments)
        return self._activated(out, act)

    def linear_dw(self, dY: Array, x: Array, *, out: Array = None) -> Array:
        large = self._small or _is_large(x, dY.shape[1])
        if not (large and _are(x.dtype, dY, x) and _takes(out, x.dtype)):
            return super().linear_dw(dY, x, out=out)
        shape = (dY.shape[1], x.shape[1])
        out = _or_empty(out, shape, x.dtype)
        work = _product(x, len(out))
        parts = threads.split(len(x), work)
        if len(x) <= MANY or out.size > WIDE or parts == 1:
            self._run(products.linear_dw_rows, len(out), work, dY, x, out)
            return out
        totals = np.empty((parts, *shape), x.dtype)
        self._run_totals(products.linear_dw_sum, len(x), dY, x, Total(totals))
        self._join(totals, out)
        return out

    # ---- convolution, image by image

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
        spots = _spots(x.shape, weight.shape, conv)
        y, index = (out, None) if pool is None or out is None else out
        covered = _are(x.dtype, x, weight) and _takes(y, x.dtype) and _takes(index, INT32)
        pools = pool is None or (pool == HALVES and min(spots) > 1)
        if not (covered and pools) or math.prod(spots) < SPOTS:
            return super().conv2d(x, weight, bias, conv=conv, act=act, pool=pool, out=out)
        work = len(x) * math.prod(spots) * math.prod(weight.shape[1:])
        x, groups = self._pad(x, conv.padding, 0), conv.groups
        bias = np.zeros(len(weight), x.dtype) if bias is None else self._contiguous(bias)
        (floor, act), steps = _floor(act), _steps(weight.shape, spots, conv)
        arguments = x, _by_group(weight, groups), bias.reshape(groups, -1), floor
        if pool is None:
            y = _or_empty(y, (len(x), len(weight), *spots), x.dtype)
            images = _images_by_group(y, groups)
            self._run(convolution.conv2d, len(x), work, *arguments, images, *steps)
            return self._activated(y, act)
        shape = len(x), len(weight), spots[0] // 2, spots[1] // 2
        y, index = _or_empty(y, shape, x.dtype), _or_empty(index, shape, INT32)
        self._run(convolution.conv2d_pooled, len(x), work, *arguments, y, index, *steps)
        return self._activated(y, act), index

    def conv2d_dx(
        self, dY: Array, weight: Array, *, shape: Shape, conv: Conv, out: Array = None
    ) -> Array:
        covered = _are(dY.dtype, dY, weight) and _takes(out, dY.dtype)
        if not covered or math.prod(dY.shape[2:]) < SPOTS:
            return super().conv2d_dx(dY, weight, shape=shape, conv=conv, out=out)
        (n, c, h, w), (ph, pw) = shape, conv.padding
        padded_shape = (n, c, h + 2 * ph, w + 2 * pw)
        padded = _or_empty(out if (ph, pw) == (0, 0) else None, padded_shape, dY.dtype)
        self._run(
            convolution.conv2d_dx, n, _columns(dY, weight),
            _images_by_group(dY, conv.groups), _by_group(weight, conv.groups), padded,
            *_steps(weight.shape, dY.shape[2:], conv),
        )  # fmt: skip
        if (ph, pw) == (0, 0):
            return padded
        out = _or_empty(out, shape, dY.dtype)
        self._copied(padded[:, :, ph : ph + h, pw : pw + w], out)
        return out

    def conv2d_dw(
        self, dY: Array, x: Array, *, shape: Shape, conv: Conv, out: Array = None
    ) -> Array:
        if not (_are(x.dtype, dY, x) and _takes(out, x.dtype)):
            return super().conv2d_dw(dY, x, shape=shape, conv=conv, out=out)
        groups, x = conv.groups, self._pad(x, conv.padding, 0)
        out = _or_empty(out, shape, x.dtype)
        parts = threads.split(len(x), _columns(dY, out))
        steps = _steps(shape, dY.shape[2:], conv)
        by_group, dY = _by_group(out, groups).swapaxes(1, 2), _images_by_group(dY, groups)
        totals = np.empty((parts, *by_group.shape), x.dtype)
        self._run_totals(convolution.conv2d_dw, len(x), dY, x, Total(totals), *steps)
        total = np.empty(by_group.shape, x.dtype)
        self._join(totals, total)
        self._copied(total, by_group)
        return out

    # ---- pooling

    def max_pool2d(self, x: Array, *, pool: Pool, out: Any = None) -> tuple[Array, Array]:
        y, index = (None, None) if out is None else out
        if not (_is_float(x) and _takes(y, x.dtype) and _takes(index, INT32)):
            return super().max_pool2d(x, pool=pool, out=out)
        spots = _pooled(x.shape, pool)
        if min(spots) < 1:
            return super().max_pool2d(x, pool=pool, out=out)
        shape = (*x.shape[:2], *spots)
        y, index = _or_empty(y, shape, x.dtype), _or_empty(index, shape, INT32)
        if pool == HALVES:
            self._run(pooling.max_pool2d, len(x), x.size // 2, x, y, index)
        else:
            self._run(pooling.max_pool2d_any, len(x), _met(y, pool), x, y, index, *_window(pool))
        return y, index

    def max_pool2d_grad(
        self, dY: Array, index: Array, *, shape: Shape, pool: Pool, out: Array = None
    ) -> Array:
        if not (_is_float(dY) and _is(index, INT32) and _takes(out, dY.dtype)):
            return super().max_pool2d_grad(dY, index, shape=shape, pool=pool, out=out)
        out = _or_empty(out, shape, dY.dtype)
        if pool == HALVES:
            if 4 * dY.size < out.size:
                self._run(pooling.clear_edges, 1, 0, dY, out)
            self._run(pooling.max_pool2d_grad, len(dY), out.size // 2, dY, index, out)
        else:
            kernel, work = pooling.max_pool2d_any_grad, 4 * dY.size + out.size
            self._run(kernel, len(dY), work, dY, index, out, *_window(pool))
        return out

    def max_pool2d_take(self, x: Array, index: Array, *, pool: Pool, out: Array = None) -> Array:
        if not (_is_float(x) and _is(index, INT32) and _takes(out, x.dtype)):
            return super().max_pool2d_take(x, index, pool=pool, out=out)
        out = _or_empty(out, index.shape, x.dtype)
        if pool == HALVES:
            self._run(pooling.max_pool2d_take, len(x), 4 * out.size, x, index, out)
        else:
            kernel = pooling.max_pool2d_any_take
            self._run(kernel, len(x), 4 * out.size, x, index, out, *_window(pool))
        return out

    # ---- networks

    def batch_norm(
        self, x: Array, weight: Array, bias: Array, *, eps: float, act: Act = None, out: Any = None
    ) -> tuple[Array, Array, Array]:
        y, mean, var = (None, None, None) if out is None else out
        given = _takes(y, x.dtype) and _takes(mean, x.dtype) and _takes(var, x.dtype)
        if not (_are(x.dtype, x, weight, bias) and given):
            return super().batch_norm(x, weight, bias, eps=eps, act=act, out=out)
        y = _or_empty(y, x.shape, x.dtype)
        mean, var = (_or_empty(a, weight.shape, x.dtype) for a in (mean, var))
        kernel, shape = normalisation.batch_norm, (*x.shape[:2], -1)
        if x.size == len(x) * x.shape[1]:
            kernel, shape = normalisation.batch_norm_rows, x.shape[:2]
        floor, act = _floor(act)
        self._run(
            kernel, x.shape[1], 2 * x.size,
            x.reshape(shape), weight, bias, float(eps), floor, y.reshape(shape), mean, var,
        )  # fmt: skip
        return self._activated(y, act), mean, var

    def batch_norm_grad(
        self, dY: Array, x: Array, weight: Array, *, eps: float, out: Any = None
    ) -> tuple[Array, Array, Array]:
        dX, dweight, dbias = (None, None, None) if out is None else out
        given = _takes(dX, x.dtype) and _takes(dweight, x.dtype) and _takes(dbias, x.dtype)
        if not (_are(x.dtype, dY, x, weight) and given):
            return super().batch_norm_grad(dY, x, weight, eps=eps, out=out)
        dX = _or_empty(dX, x.shape, x.dtype)
        dweight, dbias = (_or_empty(a, weight.shape, x.dtype) for a in (dweight, dbias))
        kernel, shape = normalisation.batch_norm_grad, (*x.shape[:2], -1)
        if x.size == len(x) * x.shape[1]:
            kernel, shape = normalisation.batch_norm_rows_grad, x.shape[:2]
        self._run(
            kernel, x.shape[1], 3 * x.size,
            dY.reshape(shape), x.reshape(shape), weight, float(eps),
            dX.reshape(shape), dweight, dbias,
        )  # fmt: skip
        return dX, dweight, dbias

    def softmax(self, x: Array, *, dim: int, out: Array = None) -> Array:
        if not (_alike(x, out) and dim == x.ndim - 1):
            return super().softmax(x, dim=dim, out=out)
        return self._each_row(exponentials.softmax, x, out=out)

    def softmax_grad(self, dY: Array, y: Array, *, dim: int, out: Array = None) -> Array:
        dY = self._contiguous(dY)  # a sum's gradient is one number, expanded
        if not (_alike(y, dY, out) and dim == y.ndim - 1):
            return super().softmax_grad(dY, y, dim=dim, out=out)
        return self._each_row(exponentials.softmax_grad, dY, y, out=out)

    def log_softmax(self, x: Array, *, dim: int, out: Array = None) -> Array:
        if not (_alike(x, out) and dim == x.ndim - 1):
            return super().log_softmax(x, dim=dim, out=out)
        return self._each_row(exponentials.log_softmax, x, out=out)

    def log_softmax_grad(self, dY: Array, y: Array, *, dim: int, out: Array = None) -> Array:
        dY = self._contiguous(dY)
        if not (_alike(y, dY, out) and dim == y.ndim - 1):
            return super().log_softmax_grad(dY, y, dim=dim, out=out)
        return self._each_row(exponentials.log_softmax_grad, dY, y, out=out)

    def cross_entropy(
        self, x: Array, target: Array, *, ignore_index: int, out: Any = None
    ) -> tuple[Array, Array]:
        losses, count = (None, None) if out is None else out
        given = _takes(losses, x.dtype) and _takes(count, x.dtype)
        if not (given and _is_float(x) and _is(target, INT64)):
            return super().cross_entropy(x, target, ignore_index=ignore_index, out=out)
        count = _or_empty(count, (), x.dtype)
        if not self._counted(target, x.shape[1], ignore_index, count):  # the default says which
            return super().cross_entropy(x, target, ignore_index=ignore_index, out=out)
        losses = _or_empty(losses, target.shape, x.dtype)
        self._run(exponentials.cross_entropy, len(x), 4 * x.size, x, target, ignore_index, losses)
        return losses, count

    def cross_entropy_grad(
        self, dY: Array, x: Array, target: Array, *, ignore_index: int, out: Array = None
    ) -> Array:
        dY = self._contiguous(dY)  # the mean's gradient is one number, expanded
        given = _are(x.dtype, dY, x) and _is(target, INT64) and _takes(out, x.dtype)
        if not given or not self._counted(target, x.shape[1], ignore_index):
            return super().cross_entropy_grad(dY, x, target, ignore_index=ignore_index, out=out)
        dX = _or_empty(out, x.shape, x.dtype)
        arguments = dY, x, target, ignore_index, dX
        self._run(exponentials.cross_entropy_grad, len(x), 4 * x.size, *arguments)
        return dX

    def dropout_mask(
        self, *, shape: Shape, p: float, key: int, dtype: np.dtype, out: Array = None
    ) -> Array:
        mask = _or_empty(out, shape, dtype)
        if not _is_float(mask):
            return super().dropout_mask(shape=shape, p=p, key=key, dtype=dtype, out=out)
        numbers = self._numbers(mask_numbers, shape=shape, p=p, key=key, dtype=dtype)
        pairs = (mask.size + 1) // 2
        self._run(streams.dropout_mask, pairs, mask.size, *numbers, mask.ravel())
        return mask

    def uniform(self, *, shape: Shape, key: int, dtype: np.dtype, out: Array = None) -> Array:
        drawn = _or_empty(out, shape, dtype)
        if not _is_float(drawn):
            return super().uniform(shape=shape, key=key, dtype=dtype, out=out)
        (stream,) = self._numbers(uniform_numbers, shape=shape, key=key, dtype=dtype)
        pairs = (drawn.size + 1) // 2
        self._run(streams.uniform, pairs, drawn.size, stream, drawn.ravel())
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
        arguments = x.reshape(len(x), -1), index.ravel(), float(scale), float(shift), rows
        self._run(streams.take_scaled, len(rows), out.size // 2, *arguments)
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
        few = not self._small and max((p.size for p in params), default=0) < LONG
        if not momentum and few:
            super().sgd_(
                params, grads, buffers, lr=lr, momentum=momentum, dampening=dampening,
                weight_decay=weight_decay, nesterov=nesterov, maximize=maximize, first=first,
            )  # fmt: skip
            return
        *numbers, rate, decay, turned = self._numbers(
            sgd_numbers, guard="momentum", lr=lr, momentum=momentum,
            dampening=dampening, weight_decay=weight_decay, nesterov=nesterov, maximize=maximize,
            first=first,
        )  # fmt: skip
        for arrays in _aligned(params, grads, buffers if momentum else []):
            if not _alike(*arrays):
                super().sgd_(
                    *_lists(arrays), lr=lr, momentum=momentum, dampening=dampening,
                    weight_decay=weight_decay, nesterov=nesterov, maximize=maximize, first=first,
                )  # fmt: skip
            elif momentum:
                self._update(
                    optimizers.sgd_momentum, arrays, rate, *numbers[:2], decay, numbers[2], turned,
                    TINY[arrays[0].dtype],
                )  # fmt: skip
            else:
                self._update(optimizers.sgd, arrays[:2], rate, decay, turned)

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
        numbers = self._numbers(
            adam_numbers, lr=lr, beta1=beta1, beta2=beta2, eps=eps,
            weight_decay=weight_decay, decoupled_weight_decay=decoupled_weight_decay,
            maximize=maximize, step=step,
        )  # fmt: skip
        for arrays in _aligned(params, grads, exp_avgs, exp_avg_sqs, max_exp_avg_sqs):
            if _alike(*arrays):
                self._update(optimizers.adam, arrays, *numbers, TINY[arrays[0].dtype])
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
        numbers = self._numbers(
            adagrad_numbers, lr=lr, lr_decay=lr_decay, eps=eps,
            weight_decay=weight_decay, maximize=maximize, step=step,
        )  # fmt: skip
        for arrays in _aligned(params, grads, sums):
            if _alike(*arrays):
                self._update(optimizers.adagrad, arrays, *numbers)
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
        numbers = self._numbers(
            adadelta_numbers, lr=lr, rho=rho, eps=eps, weight_decay=weight_decay,
            maximize=maximize, step=step,
        )  # fmt: skip
        for arrays in _aligned(params, grads, square_avgs, acc_deltas):
            if _alike(*arrays):
                self._update(optimizers.adadelta, arrays, *numbers, TINY[arrays[0].dtype])
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
        numbers = self._numbers(
            rmsprop_numbers, lr=lr, alpha=alpha, eps=eps, momentum=momentum,
            weight_decay=weight_decay, maximize=maximize, step=step,
        )  # fmt: skip
        for arrays in _aligned(params, grads, square_avgs, grad_avgs, buffers):
            if _alike(*arrays):
                self._update(optimizers.rmsprop, arrays, *numbers, TINY[arrays[0].dtype])
            else:
                super().rmsprop_(
                    *_lists(arrays), lr=lr, alpha=alpha, eps=eps, momentum=momentum,
                    weight_decay=weight_decay, maximize=maximize, step=step,
                )  # fmt: skip


class _Planner(planning.Planning, NumbaBackend, planning.Refusing):
    """What the kernels above would run, and nothing of what the defaults would."""


def _aligned(*lists: list[Array]) -> Iterator[tuple[Any, ...]]:
    """The arrays of each parameter; None stands where a list of moments is empty."""
    count = len(lists[0])
    return zip(*(arrays or [None] * count for arrays in lists), strict=True)


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


def _is_matrix(x: Any) -> bool:
    """Whether a product takes ``x``: a float matrix that lies by rows or by columns."""
    return (
        type(x) is np.ndarray
        and x.ndim == 2
        and x.dtype in TINY
        and (x.flags.c_contiguous or x.flags.f_contiguous)
    )


def _is_large(x: Array, width: int) -> bool:
    """Whether NumPy's BLAS would put a product of ``x`` (N, K) with ``width`` columns on threads.

    They spin for a while afterwards, and keep a core from the regions.
    """
    return x.size * width > SMALL and threads.count() > 1


def _floor(act: Act) -> tuple[float, Act]:
    """What smaller results become: 0 for a ReLU, −∞ for none; and what then remains of ``act``."""
    return (0.0, None) if act == "relu" else (-math.inf, act)


def _product(x: Array, width: int) -> int:
    """The work of a product of ``x`` (N, K) with ``width`` columns."""
    return x.size * width // 4


def _columns(y: Array, weight: Array) -> int:
    """The numbers in the columns of a convolution with the result ``y``."""
    return math.prod(weight.shape[1:]) * len(y) * math.prod(y.shape[2:])


def _by_group(weight: Array, groups: int) -> Array:
    """A kernel (O, C / groups, kh, kw) as (groups, O / groups, C / groups · kh · kw)."""
    return weight.reshape(groups, len(weight) // groups, -1)


def _images_by_group(y: Array, groups: int) -> Array:
    """Images (N, O, H, W) as (N, groups, O / groups, H · W)."""
    return y.reshape(len(y), groups, y.shape[1] // groups, -1)


def _steps(shape: Shape, spots: Shape, conv: Conv) -> tuple[Any, ...]:
    """The steps between pixels, and the sizes of a kernel of ``shape`` and of the result.

    As numbers and an array, since a region takes no tuples.
    """
    steps = (*conv.stride, *conv.dilation)
    return None if steps == (1, 1, 1, 1) else np.array(steps), *shape[2:], *spots


def _window(pool: Pool) -> tuple[int, ...]:
    """Size, stride and padding, as numbers: a region takes no tuples."""
    return *pool.size, *pool.stride, *pool.padding


def _met(y: Array, pool: Pool) -> int:
    """The cells that the windows of a pooling with the result ``y`` meet."""
    return y.size * math.prod(pool.size)


def _pooled(shape: Shape, pool: Pool) -> Pair:
    """Height and width of what pooling makes of images of ``shape`` (N, C, H, W)."""
    return convolved(_padded(shape, pool.padding), pool.size, pool.stride, (1, 1))


def _spots(shape: Shape, kernel: Shape, conv: Conv) -> Pair:
    """Height and width of what a convolution makes of images of ``shape``."""
    size = kernel[2], kernel[3]
    return convolved(_padded(shape, conv.padding), size, conv.stride, conv.dilation)


def _padded(shape: Shape, padding: Pair) -> Pair:
    return shape[2] + 2 * padding[0], shape[3] + 2 * padding[1]
