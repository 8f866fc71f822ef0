"""How sums, convolutions and poolings are laid out over a grid of blocks: found once a shape.

What is here as a structure of numbers has its twin of the same name in a file of kernels.
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import NamedTuple

import numpy as np

from tinygrad_mnist.kernels import Conv, Pair, Pool, Shape, convolved

THREADS = 256
BLOCKS = 264  # that fill a card of 132 multiprocessors
MANY = 384  # that keep it busy while some wait for memory
LARGEST = 2**31  # kernels count elements in 32 bits
ALONE = 32  # elements that a thread adds up before others are asked to help
MEMORY = 40960  # bytes of a block for the operands of a convolution
DEEPEST, WIDEST = 256, 256  # terms and columns of a convolution that a block looks up

Groups = tuple[int, int, int, int]


def _struct(fields: str) -> np.dtype:
    return np.dtype([(name, np.int32) for name in fields.split()])


SPAN = _struct("count length between run width helpers by_rows chunk")
POOL = _struct("planes height width down across kh kw step_y step_x pad_y pad_x")
CONV = _struct(
    "images groups depth height width rows down across kh kw"
    " step_y step_x shift_y shift_x tap_y tap_x divide_y divide_x weight_row weight_depth"
)
TILE = _struct("rows columns splits chunk share")
WINDOWS = _struct(
    "planes height width kh kw down across step_y step_x tap_y tap_x"
    " by_plane by_row by_column by_y by_x"
)


def _made(dtype: np.dtype, *values: int) -> np.ndarray:
    return np.array(tuple(values), dtype)


# ---- sums


class Sums(NamedTuple):
    """A launch that sums, and into how many slices."""

    span: np.ndarray
    grid: Pair

    @property
    def slices(self) -> int:
        return self.grid[1]


@lru_cache(1024)
def groups_of(shape: Shape, dims: Shape) -> Groups | None:
    """``shape`` as (A, R, B, S), of which R and S are summed; None if it has more such groups."""
    if not 0 < math.prod(shape) < LARGEST:
        return None
    dims = tuple(d % len(shape) for d in dims)
    found, at = [1, 1, 1, 1], 0
    for dim, size in enumerate(shape):
        if size == 1:
            continue
        if (at % 2 == 1) != (dim in dims):
            at += 1
        if at > 3:
            return None
        found[at] *= size
    a, r, b, s = found
    return a, r, b, s


@lru_cache(1024)
def sums(groups: Groups, widest: int = THREADS, most: int = 2 * BLOCKS) -> Sums:
    """How an array of the shape (A, R, B, S) is summed over R and S.

    A block has at most ``widest`` results where they lie side by side, and ``most`` blocks share
    what one would sum for long.
    """
    a, r, b, s = groups
    count, length = a * b, r * s
    by_rows = s > 1 or b == 1
    if by_rows:
        helpers = min(THREADS, 1 << (-(-length // 4) - 1).bit_length())
        width = THREADS // helpers
    else:
        width = THREADS // min(64, -(-length // 8))
        if count * length > 2**22:  # whole rows, since memory decides
            width = max(width, _even(count, THREADS))
        width = min(width, widest, count)
        helpers = min(THREADS // width, length)
    tiles, slices = -(-count // width), 1
    if length > ALONE * helpers:
        slices = max(1, min(-(-length // (ALONE // 2 * helpers)), most // tiles))
    chunk = -(-length // slices)
    span = _made(SPAN, count, length, b, s, width, helpers, by_rows, chunk)
    return Sums(span, (tiles, -(-length // chunk)))


def channels(shape: Shape) -> Sums | None:
    """How batch norm sums images (N, C, …) over all dims but the second; None as above."""
    if not 0 < math.prod(shape) < LARGEST:
        return None
    return sums((1, shape[0], shape[1], math.prod(shape[2:])), widest=16)


def _even(size: int, most: int) -> int:
    """The size of the fewest parts of ``size``, at most ``most`` each, that are all alike."""
    return -(-size // -(-size // most))


# ---- convolutions


class Convolution(NamedTuple):
    """The launch of a convolution or of a gradient."""

    conv: np.ndarray
    tile: np.ndarray
    grid: Shape
    threads: int
    shape: Shape  # of the result


@lru_cache(1024)
def convolution(x: Shape, weight: Shape, conv: Conv, itemsize: int) -> Convolution | None:
    """conv2d of the shapes ``x`` and ``weight``; None if the kernel does not serve it."""
    (n, c, h, w), (o, _, kh, kw) = x, weight
    (sh, sw), (ph, pw), (dh, dw), groups = conv
    down, across = spots((h, w), (kh, kw), conv)
    depth, rows, cells = c // groups, o // groups, kh * kw
    if not _counted(x, weight, (n, o, down, across)):
        return None
    made = _made(
        CONV, n, groups, depth, h, w, rows, down, across, kh, kw,
        sh, sw, -ph, -pw, dh, dw, 1, 1, depth * cells, cells,
    )  # fmt: skip
    laid = _tiled(rows, n * down * across, depth * cells, groups, itemsize)
    return None if laid is None else Convolution(made, *laid, (n, o, down, across))


@lru_cache(1024)
def convolution_dx(dY: Shape, weight: Shape, x: Shape, conv: Conv, size: int) -> Convolution | None:
    """The gradient by an input of the shape ``x``: a convolution of dY, with steps for divisors."""
    (n, o, down, across), (_, _, kh, kw), (_, c, h, w) = dY, weight, x
    (sh, sw), (ph, pw), (dh, dw), groups = conv
    depth, rows, cells = o // groups, c // groups, kh * kw
    if not _counted(x, weight, dY):
        return None
    made = _made(
        CONV, n, groups, depth, down, across, rows, h, w, kh, kw,
        1, 1, ph, pw, -dh, -dw, sh, sw, cells, rows * cells,
    )  # fmt: skip
    laid = _tiled(rows, n * h * w, depth * cells, groups, size)
    return None if laid is None else Convolution(made, *laid, x)


@lru_cache(1024)
def convolution_dw(dY: Shape, x: Shape, weight: Shape, conv: Conv, size: int) -> Convolution | None:
    """The gradient by a weight of that shape, in the slices that the grid's last size counts."""
    forward = convolution(x, weight, conv, size)
    if forward is None or forward.shape != dY:
        return None
    rows, taps = weight[0] // conv.groups, math.prod(weight[1:])
    pixels = dY[0] * dY[2] * dY[3]
    laid = _tiled(rows, taps, pixels, conv.groups, size, sliced=True)
    return None if laid is None else Convolution(forward.conv, *laid, weight)


def _tiled(
    rows: int, columns: int, terms: int, groups: int, itemsize: int, sliced: bool = False
) -> tuple[np.ndarray, Shape, int] | None:
    """The tile, grid and threads of a product (rows, terms) · (terms, columns) of each group.

    ``sliced``: of which slices of the terms are left to be added.
    """
    down = _even(-(-rows // 4), 16)
    across = _even(-(-columns // 4), 16)
    others = -(-rows // (4 * down)) * groups
    if not sliced:
        at_once = min(terms, 64)
        fits = (w for w in (WIDEST // 4, 32, 16, 8) if _deepest(down, w, itemsize) >= at_once)
        fits = (w for w in fits if w * down <= THREADS)
        across = next((w for w in fits if others * -(-columns // (4 * w)) >= MANY), 4)
    blocks = others * -(-columns // (4 * across))
    slices = max(1, min(-(-terms // 32), BLOCKS // blocks)) if sliced else 1
    share = -(-terms // slices)
    slices = -(-terms // share)
    chunk = _even(share, min(DEEPEST, _deepest(down, across, itemsize)))
    splits = max(1, min(THREADS // (across * down), chunk // 4))
    threads = max(across * down * splits, 4 * across, THREADS // 2)
    if others >= 2**16:
        return None
    tile = _made(TILE, 4 * down, 4 * across, splits, chunk, share)
    return tile, (-(-columns // (4 * across)), others, slices), -(-threads // 32) * 32


def _deepest(down: int, across: int, itemsize: int) -> int:
    """How many terms of a tile of fours, ``down`` by ``across``, a block's memory holds.

    Rows in it are odd numbers of fours.
    """
    return MEMORY // itemsize // (4 * (down | 1) + 4 * (across | 1))


def _counted(*shapes: Shape) -> bool:
    """Whether arrays of these shapes are not empty, and kernels can count their elements."""
    return all(0 < math.prod(shape) < LARGEST for shape in shapes)


def spots(image: Pair, size: Pair, conv: Conv) -> Pair:
    """Height and width of what a convolution makes of images of that size."""
    h, w = (i + 2 * p for i, p in zip(image, conv.padding, strict=True))
    return convolved((h, w), size, conv.stride, conv.dilation)


# ---- pooling


@lru_cache(1024)
def pooling(shape: Shape, pool: Pool) -> tuple[np.ndarray, Shape] | None:
    """The pooling of images of ``shape``, and the shape of its result; None as above."""
    n, c, h, w = shape
    conv = Conv(pool.stride, pool.padding, (1, 1), 1)
    result = n, c, *spots((h, w), pool.size, conv)
    if not _counted(shape, result):
        return None
    made = _made(POOL, n * c, h, w, *result[2:], *pool.size, *pool.stride, *pool.padding)
    return made, result


@lru_cache(1024)
def windows_grad(
    dY: Shape, strides: Shape, shape: Shape, stride: Pair, dilation: Pair
) -> np.ndarray | None:
    """The sum of windows ``dY``, with ``strides`` between elements, in images of ``shape``.

    None where the kernel does not serve them. The fewer of cells and windows are gone through.
    """
    by_image, by_plane, *by = strides
    unmerged = dY[0] > 1 and by_image != dY[1] * by_plane
    largest = sum(abs(b) * (size - 1) for b, size in zip(strides, dY, strict=True))
    if unmerged or largest >= LARGEST or not _counted(dY, shape):
        return None
    cells, spots, by_cell, by_spot = dY[2:4], dY[4:], by[:2], by[2:]
    if math.prod(spots) < math.prod(cells):
        cells, spots, by_cell, by_spot = spots, cells, by_spot, by_cell
        stride, dilation = dilation, stride
    numbers = *cells, *spots, *stride, *dilation, by_plane, *by_cell, *by_spot
    return _made(WINDOWS, shape[0] * shape[1], *shape[2:], *numbers)
