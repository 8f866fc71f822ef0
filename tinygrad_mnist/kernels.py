"""The contract: every kernel a backend has, each with a default written on its array namespace.

A kernel is ``kernel(*arrays, out=None, **static)``. Arrays (and Python numbers) are positional,
everything else is a keyword. Four kinds exist, and the decorators below say which is which:

- a plain kernel fills all of ``out`` (a tuple if it has several results), never reads it, and
  returns it; ``out`` overlaps no input;
- an *elementwise* kernel is a plain kernel whose ``out`` may be one of its inputs;
- a *view* returns an alias of its input and takes no ``out``;
- an *in-place* kernel ends in ``_``, writes the arguments it declares and returns nothing.

Shapes and dtypes have been checked and made equal before a kernel is called (see ``ops``).
Indices into data are checked here, because a device can only do it without waiting for the host.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, ClassVar

import numpy as np

from tinygrad_mnist.special import blocked as blocked
from tinygrad_mnist.special import erf as erf_of

Array = Any
Shape = tuple[int, ...]
Pair = tuple[int, int]
Kernel = Callable[..., Any]

MANY = 2**14  # elements, from which on a few more calls are worth a faster loop

# splitmix64: Steele, Lea, Flood, "Fast splittable pseudorandom number generators", 2014.
GOLDEN, MIX_1, MIX_2 = 0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9, 0x94D049BB133111EB


def elementwise(kernel: Kernel) -> Kernel:
    """Mark a kernel whose ``out`` may be one of its inputs."""
    kernel.kind = "elementwise"  # type: ignore[attr-defined]
    return kernel


def view(kernel: Kernel) -> Kernel:
    """Mark a kernel that returns an alias of its input."""
    kernel.kind = "view"  # type: ignore[attr-defined]
    return kernel


def writes(*names: str) -> Callable[[Kernel], Kernel]:
    """Mark an in-place kernel and name the arguments that it writes."""

    def mark(kernel: Kernel) -> Kernel:
        kernel.kind = "inplace"  # type: ignore[attr-defined]
        kernel.writes = names  # type: ignore[attr-defined]
        return kernel

    return mark


def _unary(name: str) -> Kernel:
    @elementwise
    def kernel(self: Backend, x: Array, *, out: Array = None) -> Array:
        return getattr(self.xp, name)(x, out=out)

    return kernel


def _binary(name: str) -> Kernel:
    @elementwise
    def kernel(self: Backend, x: Array, y: Array, *, out: Array = None) -> Array:
        return getattr(self.xp, name)(x, y, out=out)

    return kernel


def _reduction(name: str) -> Kernel:
    def kernel(self: Backend, x: Array, *, dim: Shape, keepdim: bool, out: Array = None) -> Array:
        return getattr(self.xp, name)(x, axis=dim, keepdims=keepdim, out=out)

    return kernel


class Backend:
    """An array engine: a namespace ``xp`` and the kernels below.

    A subclass sets ``name``, ``xp`` and ``array_type`` and overrides the kernels it can do better,
    with the same signature; ``return super().kernel(...)`` serves what its own does not cover.
    """

    name: ClassVar[str]
    xp: ClassVar[Any]
    array_type: ClassVar[type]

    def __deepcopy__(self, memo: dict[int, Any]) -> Backend:
        return self  # there is one of each: operands are compared by identity

    def __repr__(self) -> str:
        return f"<backend {self.name}>"

    # ---- the host and the device

    @classmethod
    def unusable(cls) -> str | None:
        """Why this backend cannot run here and the line that mends it; None if it can."""
        return None

    def asarray(self, x: np.ndarray) -> Array:
        """A NumPy array as this backend's array; shares memory where it can."""
        return self.xp.asarray(x)

    def to_numpy(self, x: Array) -> np.ndarray:
        """This backend's array as a NumPy array; shares memory where it can."""
        return np.asarray(x)

    def check_index(self, index: Array, size: int, kernel: str, low: int = 0) -> None:
        """Raise IndexError if an entry of ``index`` lies outside ``low … size-1``.

        A device that would have to wait for the answer may raise at its next synchronisation.
        """
        if index.size and (index.min() < low or index.max() >= size):
            worst = index.max() if index.max() >= size else index.min()
            raise IndexError(f"{kernel}: found index {worst}, expected {low} to {size - 1}")

    # ---- pointwise

    add = _binary("add")
    subtract = _binary("subtract")
    multiply = _binary("multiply")
    divide = _binary("divide")
    floor_divide = _binary("floor_divide")
    remainder = _binary("remainder")
    pow = _binary("power")
    maximum = _binary("maximum")
    minimum = _binary("minimum")
    equal = _binary("equal")
    not_equal = _binary("not_equal")
    less = _binary("less")
    less_equal = _binary("less_equal")
    greater = _binary("greater")
    greater_equal = _binary("greater_equal")
    bitwise_and = _binary("bitwise_and")
    bitwise_or = _binary("bitwise_or")
    bitwise_xor = _binary("bitwise_xor")
    bitwise_invert = _unary("invert")

    negative = _unary("negative")
    abs = _unary("absolute")
    sign = _unary("sign")
    exp = _unary("exp")
    expm1 = _unary("expm1")
    log = _unary("log")
    log1p = _unary("log1p")
    sqrt = _unary("sqrt")
    square = _unary("square")
    sin = _unary("sin")
    cos = _unary("cos")
    tan = _unary("tan")
    asin = _unary("arcsin")
    acos = _unary("arccos")
    atan = _unary("arctan")
    sinh = _unary("sinh")
    cosh = _unary("cosh")
    tanh = _unary("tanh")
    floor = _unary("floor")
    ceil = _unary("ceil")
    trunc = _unary("trunc")
    round = _unary("rint")
    isnan = _unary("isnan")
    isinf = _unary("isinf")
    isfinite = _unary("isfinite")

    @elementwise
    def erf(self, x: Array, *, out: Array = None) -> Array:
        """2/√π · ∫ e^(−t²) dt from 0 to x."""
        return self._into(out, erf_of(self.xp, x))

    @elementwise
    def clamp(self, x: Array, min: Array = None, max: Array = None, *, out: Array = None) -> Array:
        """min(max(x, min), max); a bound may be None."""
        return self._into(out, self.xp.clip(x, min, max))

    @elementwise
    def sigmoid(self, x: Array, *, out: Array = None) -> Array:
        """1 / (1 + e⁻ˣ), as e^min(x, 0) / (1 + e^−|x|), which neither overflows nor cancels."""
        top = self.xp.exp(self.xp.minimum(x, 0))
        out = self.xp.empty_like(x) if out is None else out
        self.xp.negative(self.xp.absolute(x, out=out), out=out)
        self.xp.exp(out, out=out)
        self.xp.add(out, 1, out=out)
        return self.xp.divide(top, out, out=out)

    @elementwise
    def sigmoid_grad(self, dY: Array, y: Array, *, out: Array = None) -> Array:
        """dY · y · (1 − y)."""
        slope = self.xp.multiply(self.xp.subtract(1, y), y)
        return self.xp.multiply(dY, slope, out=out)

    @elementwise
    def relu(self, x: Array, *, out: Array = None) -> Array:
        """max(x, 0); NaN stays NaN."""
        return self.xp.maximum(x, 0, out=out)

    @elementwise
    def relu_grad(self, dY: Array, y: Array, *, out: Array = None) -> Array:
        """dY where y > 0 (or NaN), else 0."""
        return self._into(out, self._masked(dY, ~(y <= 0)))

    @elementwise
    def where(self, condition: Array, x: Array, y: Array, *, out: Array = None) -> Array:
        """``x`` where ``condition`` holds, else ``y``.

        Many floats are chosen by their bits, 5 to 20 times as fast where the condition is random.
        """
        like = x if hasattr(x, "dtype") else y
        if condition.size < MANY or like.dtype.kind != "f":
            return self._into(out, self.xp.where(condition, x, y))
        bits = np.int32 if like.dtype.itemsize == 4 else np.int64
        a, b = ((v if hasattr(v, "dtype") else like.dtype.type(v)).view(bits) for v in (x, y))
        return self._into(out, ((a ^ b) & -condition.astype(bits) ^ b).view(like.dtype))

    @elementwise
    def cast(self, x: Array, *, dtype: np.dtype, out: Array = None) -> Array:
        return self._into(out, x.astype(dtype))

    # ---- views and copies

    @view
    def reshape(self, x: Array, *, shape: Shape) -> Array:
        """``x`` must lie so that the result is a view, as C-contiguous arrays do."""
        return x.reshape(shape)

    @view
    def permute(self, x: Array, *, dims: Shape) -> Array:
        return x.transpose(dims)

    @view
    def expand(self, x: Array, *, shape: Shape) -> Array:
        """``x`` repeated, read-only; where nothing repeats, a reshape, which can be written."""
        if math.prod(shape) == x.size:
            return x.reshape(shape)
        return self.xp.broadcast_to(x, shape)

    @view
    def getitem(self, x: Array, *, index: tuple[Any, ...]) -> Array:
        """Basic indexing: integers, slices, None and ``...``."""
        return x[(*index, ...)] if ... not in index else x[index]

    def getitem_grad(
        self, dY: Array, *, index: tuple[Any, ...], shape: Shape, out: Array = None
    ) -> Array:
        """Zeros of ``shape`` with ``dY`` written at ``index``."""
        out = self._filled(out, shape, dY.dtype, 0)
        out[index] = dY
        return out

    def copy(self, x: Array, *, out: Array = None) -> Array:
        """A C-contiguous copy."""
        return self._into(out, x.copy(order="C"))

    def concat(self, *arrays: Array, dim: int, out: Array = None) -> Array:
        """The arrays one after the other along ``dim``."""
        return self.xp.concatenate(arrays, axis=dim, out=out)

    @view
    def split(self, x: Array, *, sizes: Shape, dim: int) -> tuple[Array, ...]:
        """``x`` cut into pieces of ``sizes`` along ``dim``."""
        ends = np.cumsum(sizes).tolist()
        lead = (slice(None),) * dim
        return tuple(x[(*lead, slice(e - s, e))] for s, e in zip(sizes, ends, strict=True))

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

    def arange(
        self, *, start: float, step: float, size: int, dtype: np.dtype, out: Array = None
    ) -> Array:
        """start + step · (0, 1, …, size−1)."""
        numbers = self.xp.arange(size, dtype=np.float64 if dtype.kind == "f" else np.int64)
        return self._into(out, (start + step * numbers).astype(dtype))

    def full(self, *, shape: Shape, value: float, dtype: np.dtype, out: Array = None) -> Array:
        """An array of ``shape`` that holds ``value`` everywhere."""
        return self._filled(out, shape, dtype, value)

    @writes("x")
    def copy_(self, x: Array, y: Array) -> None:
        x[...] = y

    @writes("x")
    def fill_(self, x: Array, *, value: float) -> None:
        x.fill(value)

    @writes("x")
    def lerp_(self, x: Array, end: Array, *, weight: float) -> None:
        """x ← x + weight · (end − x)."""
        x += weight * (end - x)

    # ---- at indices

    def take(self, x: Array, index: Array, *, dim: int, out: Array = None) -> Array:
        """``x`` at the int64 ``index``, of any shape, along ``dim``, whose place its dims take."""
        self.check_index(index, x.shape[dim], f"take: dim {dim}")
        if x.flags.c_contiguous:
            return self._into(out, self.xp.take(x, index, axis=dim))
        taken = x[(*(slice(None),) * dim, index)]  # take would copy the whole of x
        return self._into(out, taken.copy(order="C"))

    def take_grad(
        self, dY: Array, index: Array, *, shape: Shape, dim: int, out: Array = None
    ) -> Array:
        """Zeros of ``shape`` with ``dY`` added at ``index`` along ``dim``.

        Element by element in one flat array: NumPy's ``add.at`` is five times slower on rows.
        """
        self.check_index(index, shape[dim], f"take_grad: dim {dim}")
        before, after = math.prod(shape[:dim]), math.prod(shape[dim + 1 :])
        places = index.reshape(-1)
        if after != 1:
            places = places[:, None] * after + self.xp.arange(after)
        if before != 1:
            starts = self.xp.arange(before) * (shape[dim] * after)
            places = starts[:, None] + places.reshape(1, -1)
        total = self.xp.zeros(math.prod(shape), dY.dtype)
        self.xp.add.at(total, places.reshape(-1), dY.reshape(-1))
        return self._into(out, total.reshape(shape))

    def put(self, x: Array, index: Array, y: Array, *, out: Array = None) -> Array:
        """A copy of ``x`` with ``y`` at ``index``, as ``put_`` writes it."""
        self.check_index(index, len(x), "put")
        out = self._into(out, x.copy(order="C"))
        out[index] = y
        return out

    @writes("x")
    def put_(self, x: Array, index: Array, y: Array) -> None:
        """x[index] ← y with an int64 ``index`` along dim 0; of repeated indices any one wins.

        ``y`` broadcasts to the dims of ``index`` and then those of ``x`` after the first.
        """
        self.check_index(index, len(x), "put_")
        x[index] = y

    def wrap_index(
        self, x: Array, *, size: int, low: int, step: int, what: str, out: Array = None
    ) -> Array:
        """int64 ``x``, of which negative ones count from the end of ``size``, times ``step``.

        IndexError, saying ``what`` is indexed, outside ``low`` … size−1; ``low`` is 0 or −size.
        """
        self.check_index(x, size, f"index: {what}", low)
        if low == 0:
            return self.xp.multiply(x, step, out=out)
        wrapped = x >> 63  # −1 where x < 0, else 0: ten times as fast as where
        wrapped &= size
        wrapped += x
        wrapped *= step
        return self._into(out, wrapped)

    def nonzero(self, x: Array, *, out: Array = None) -> Array:
        """The indices of what is not 0, (count, ndim) int64, in row-major order."""
        return self._into(out, self.xp.argwhere(x))

    # ---- reductions

    def sum(self, x: Array, *, dim: Shape, keepdim: bool, out: Array = None) -> Array:
        x = blocked(self.xp, x, dim) if x.size > MANY else x
        return self.xp.sum(x, axis=dim, keepdims=keepdim, out=out)

    max = _reduction("max")
    min = _reduction("min")
    any = _reduction("any")
    all = _reduction("all")

    def argmax(self, x: Array, *, dim: int, keepdim: bool, out: Array = None) -> Array:
        return self._into(out, self.xp.argmax(x, axis=dim, keepdims=keepdim))

    def argmin(self, x: Array, *, dim: int, keepdim: bool, out: Array = None) -> Array:
        return self._into(out, self.xp.argmin(x, axis=dim, keepdims=keepdim))

    def argsort(self, x: Array, *, dim: int, out: Array = None) -> Array:
        """The order that sorts ``x`` along ``dim``, equal elements as they came; NaN last."""
        return self._into(out, self.xp.argsort(x, axis=dim, kind="stable"))

    def cumsum(self, x: Array, *, dim: int, out: Array = None) -> Array:
        """The sums so far; of floats in float64, since they are added one after the other."""
        wide = np.float64 if x.dtype.kind == "f" else None
        return self._into(out, self.xp.cumsum(x, axis=dim, dtype=wide).astype(x.dtype, copy=False))

    # ---- products

    def matmul(self, x: Array, y: Array, *, out: Array = None) -> Array:
        return self.xp.matmul(x, y, out=out)

    def linear(self, x: Array, weight: Array, bias: Array = None, *, out: Array = None) -> Array:
        """x (N, in) · weight (out, in)ᵀ + bias (out,)."""
        out = self.xp.matmul(x, weight.T, out=out)
        return out if bias is None else self.xp.add(out, bias, out=out)

    def linear_dw(self, dY: Array, x: Array, *, out: Array = None) -> Array:
        """Gradient of linear by its weight: dY (N, out)ᵀ · x (N, in)."""
        return self.xp.matmul(dY.T, x, out=out)

    def conv2d(
        self,
        x: Array,
        weight: Array,
        bias: Array = None,
        *,
        stride: Pair,
        padding: Pair,
        dilation: Pair,
        groups: int,
        out: Array = None,
    ) -> Array:
        """x (N, C, H, W) with weight (O, C/groups, kh, kw): im2col and a product per image."""
        columns, (height, width) = self._im2col(x, weight.shape, stride, padding, dilation, groups)
        kernel = weight.reshape(groups, weight.shape[0] // groups, -1)
        y = self.xp.matmul(kernel, columns).reshape(len(x), weight.shape[0], height, width)
        if bias is None:
            return self._into(out, y)
        return self.xp.add(y, bias[:, None, None], out=out)

    def conv2d_dx(
        self,
        dY: Array,
        weight: Array,
        *,
        shape: Shape,
        stride: Pair,
        padding: Pair,
        dilation: Pair,
        groups: int,
        out: Array = None,
    ) -> Array:
        """Gradient of conv2d by its input, of ``shape`` (N, C, H, W): a product and col2im."""
        (n, c, h, w), (o, _, kh, kw), (ph, pw) = shape, weight.shape, padding
        kernel = weight.reshape(groups, o // groups, -1).swapaxes(1, 2)
        spots = dY.shape[2] * dY.shape[3]
        columns = self.xp.matmul(kernel, dY.reshape(n, groups, o // groups, spots))
        columns = columns.reshape(n, c, kh, kw, *dY.shape[2:])
        padded = self.windows_grad(
            columns, shape=(n, c, h + 2 * ph, w + 2 * pw), stride=stride, dilation=dilation
        )
        return self._into(out, padded[:, :, ph : ph + h, pw : pw + w])

    def conv2d_dw(
        self,
        dY: Array,
        x: Array,
        *,
        shape: Shape,
        stride: Pair,
        padding: Pair,
        dilation: Pair,
        groups: int,
        out: Array = None,
    ) -> Array:
        """Gradient of conv2d by its weight, of ``shape`` (O, C/groups, kh, kw)."""
        columns, _ = self._im2col(x, shape, stride, padding, dilation, groups)
        rows = dY.reshape(len(x), groups, shape[0] // groups, columns.shape[-1])
        per_image = self.xp.matmul(rows, columns.swapaxes(2, 3))
        return self._into(out, self.xp.sum(per_image, axis=0).reshape(shape))

    def max_pool2d(
        self, x: Array, *, size: Pair, stride: Pair, padding: Pair, out: Any = None
    ) -> tuple[Array, Array]:
        """x (N, C, H, W) to its windows' maxima and, int32, which of the window's cells it was.

        The first of equal cells wins; a NaN wins over numbers.
        """
        padded = self._pad(x, padding, lowest(x.dtype))
        spots = convolved(padded.shape[2:], size, stride, (1, 1))
        best = self.xp.full((*padded.shape[:2], *spots), lowest(x.dtype), x.dtype)
        index = self.xp.zeros(best.shape, np.int32)
        if padding != (0, 0):
            index += self._first_cells(spots, size, stride, padding)
        for i, j, rows, cols in _offsets(size, spots, stride, (1, 1)):
            cell = padded[:, :, rows, cols].copy(order="C")
            better = (cell > best) | (cell != cell)
            self.xp.maximum(best, cell, out=best)
            self.xp.maximum(index, better * np.int32(i * size[1] + j), out=index)
        return self._into(out, (best, index))

    def max_pool2d_grad(
        self,
        dY: Array,
        index: Array,
        *,
        shape: Shape,
        size: Pair,
        stride: Pair,
        padding: Pair,
        out: Array = None,
    ) -> Array:
        """``dY`` added to the cells of zeros of ``shape`` that ``index`` names."""
        (n, c, h, w), (ph, pw) = shape, padding
        padded = self.xp.zeros((n, c, h + 2 * ph, w + 2 * pw), dY.dtype)
        for i, j, rows, cols in _offsets(size, dY.shape[2:], stride, (1, 1)):
            padded[:, :, rows, cols] += self._masked(dY, index == i * size[1] + j)
        return self._into(out, padded[:, :, ph : ph + h, pw : pw + w])

    def max_pool2d_take(
        self,
        x: Array,
        index: Array,
        *,
        size: Pair,
        stride: Pair,
        padding: Pair,
        out: Array = None,
    ) -> Array:
        """The cells of ``x`` (N, C, H, W) that ``index`` names: the transpose of the gradient."""
        padded = self._pad(x, padding, 0)
        taken = self.xp.zeros(index.shape, x.dtype)
        for i, j, rows, cols in _offsets(size, index.shape[2:], stride, (1, 1)):
            cell = padded[:, :, rows, cols].copy(order="C")
            taken += self._masked(cell, index == i * size[1] + j)
        return self._into(out, taken)

    # ---- networks

    def batch_norm(
        self, x: Array, weight: Array, bias: Array, *, eps: float, out: Any = None
    ) -> tuple[Array, Array, Array]:
        """x (N, C, …) to weight · (x − mean) / √(var + eps) + bias, mean (C,), biased var (C,)."""
        dims, per_channel = _channel(x.ndim)
        mean = self.xp.mean(x, axis=dims, keepdims=True)
        centred = x - mean
        var = self.xp.mean(centred * centred, axis=dims)
        scale = weight / self.xp.sqrt(var + eps)
        y = centred * scale[per_channel] + bias[per_channel]
        return self._into(out, (y, mean.reshape(-1), var))

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

    def cross_entropy(
        self, x: Array, target: Array, *, ignore_index: int, out: Any = None
    ) -> tuple[Array, Array]:
        """x (N, C), int64 target (N,) to −log softmax(x)[target], (N,), and how many count.

        Rows whose target is ``ignore_index`` do not count and give 0. Where none counts, the count
        is NaN.
        """
        target, counted = self._labels(target, x.shape[1], ignore_index, "cross_entropy")
        shifted = x - self.xp.max(x, axis=1, keepdims=True)
        losses = self.xp.log(self.xp.sum(self.xp.exp(shifted), axis=1))
        losses -= shifted[self.xp.arange(len(x)), target]
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
        out = self.xp.subtract(x, self.xp.max(x, axis=1, keepdims=True), out=out)
        self.xp.exp(out, out=out)
        out *= (dY / self.xp.sum(out, axis=1))[:, None]
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

    # ---- optimizers: lists of arrays, one call per parameter group

    @writes("params", "buffers")
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
        step: int,
    ) -> None:
        """g ← g + weight_decay·p; b ← momentum·b + (1−dampening)·g; p ← p − lr·b (or g + μb).

        At ``step`` 1, b ← g. Without momentum ``buffers`` is empty.
        """
        for i, (p, g) in enumerate(zip(params, grads, strict=True)):
            if weight_decay:
                g = g + weight_decay * p
            if momentum:
                buffers[i] *= momentum
                buffers[i] += g if step == 1 else (1 - dampening) * g
                self._flush(buffers[i])
                g = g + momentum * buffers[i] if nesterov else buffers[i]
            p -= lr * g

    @writes("params", "exp_avgs", "exp_avg_sqs")
    def adam_(
        self,
        params: list[Array],
        grads: list[Array],
        exp_avgs: list[Array],
        exp_avg_sqs: list[Array],
        *,
        lr: float,
        beta1: float,
        beta2: float,
        eps: float,
        weight_decay: float,
        step: int,
    ) -> None:
        """Adam with bias correction at ``step`` = 1, 2, … (Kingma, Ba 2015)."""
        step_size = lr / (1 - beta1**step)
        correction = (1 - beta2**step) ** 0.5
        for p, g, m, v in zip(params, grads, exp_avgs, exp_avg_sqs, strict=True):
            if weight_decay:
                g = g + weight_decay * p
            m *= beta1
            m += (1 - beta1) * g
            v *= beta2
            v += (1 - beta2) * (g * g)
            self._flush(m)
            root = self.xp.sqrt(v)
            root /= correction
            root += eps
            p -= step_size * (m / root)

    # ---- what the defaults share

    def _into(self, out: Any, value: Any) -> Any:
        """``value``, copied into ``out`` where one is given."""
        if out is None:
            return value
        if isinstance(value, tuple):
            return tuple(self._into(o, v) for o, v in zip(out, value, strict=True))
        out[...] = value
        return out

    def _filled(self, out: Array, shape: Shape, dtype: np.dtype, value: float) -> Array:
        if out is None:
            return self.xp.full(shape, value, dtype)
        out.fill(value)
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

    def _masked(self, x: Array, mask: Array) -> Array:
        """``x`` where ``mask`` holds, else 0: by the bits, which is 15 times faster than where.

        A product with the mask would be as fast, but make NaN of infinities that are masked out.
        """
        bits = np.int32 if x.dtype.itemsize == 4 else np.int64
        return (x.view(bits) & -mask.astype(bits)).view(x.dtype)

    def _flush(self, x: Array) -> None:
        """Denormal numbers to zero: a moment that decays into them slows every later step."""
        x *= self.xp.abs(x) >= np.finfo(x.dtype).tiny

    def _pad(self, x: Array, padding: Pair, value: float) -> Array:
        if padding == (0, 0):
            return x
        (n, c, h, w), (ph, pw) = x.shape, padding
        padded = self.xp.full((n, c, h + 2 * ph, w + 2 * pw), value, x.dtype)
        padded[:, :, ph : ph + h, pw : pw + w] = x
        return padded

    def _first_cells(self, spots: Pair, size: Pair, stride: Pair, padding: Pair) -> Array:
        """The first cell of each window that is not padding, (H', W'): it wins if all are −∞."""
        top = self.xp.maximum(padding[0] - stride[0] * self.xp.arange(spots[0]), 0)
        left = self.xp.maximum(padding[1] - stride[1] * self.xp.arange(spots[1]), 0)
        return (top[:, None] * size[1] + left).astype(np.int32)

    def _im2col(
        self,
        x: Array,
        weight_shape: Shape,
        stride: Pair,
        padding: Pair,
        dilation: Pair,
        groups: int,
    ) -> tuple[Array, Pair]:
        """Columns (N, groups, C/groups·kh·kw, H'·W') of the padded ``x``, and (H', W')."""
        kh, kw = weight_shape[2:]
        found = self.windows(
            self._pad(x, padding, 0), size=(kh, kw), stride=stride, dilation=dilation
        )
        n, c, spots = found.shape[0], found.shape[1], found.shape[4:]
        return found.reshape(n, groups, c // groups * kh * kw, spots[0] * spots[1]), spots

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


def _channel(ndim: int) -> tuple[Shape, tuple[Any, ...]]:
    """The dims that batch norm reduces, and the index that lines (C,) up with (N, C, …)."""
    return (0, *range(2, ndim)), (slice(None), *(None,) * (ndim - 2))
