"""Max pooling of x (N, C, H, W): by windows of 2 × 2 side by side, and by any others.

A window's cells count row by row, so those of 2 × 2 are 0 1 over 2 3. Written for this one window
the first three kernels' loops have no branch that the data decides.
Each kernel does the images ``start`` to ``stop``; ``window`` is (kh, kw, sh, sw, ph, pw): its size,
stride and padding by rows and by columns.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import prange

from tinygrad_mnist.backends.numba_kernels.compile import compiled, region_of

Array = Any

CELLS = 2**12  # of padded images in memory at a time, so that they stay in the cache


@compiled
def max_pool2d(start: int, stop: int, x: Array, y: Array, index: Array) -> None:
    _, channels, rows, cols = y.shape
    for n in range(start, stop):
        for c in range(channels):
            for row in range(rows):
                upper, lower = x[n, c, 2 * row], x[n, c, 2 * row + 1]
                best, which = y[n, c, row], index[n, c, row]
                for col in range(cols):
                    value, cell = upper[2 * col], np.int32(0)
                    other = upper[2 * col + 1]
                    if other > value or other != other:
                        value, cell = other, np.int32(1)
                    other = lower[2 * col]
                    if other > value or other != other:
                        value, cell = other, np.int32(2)
                    other = lower[2 * col + 1]
                    if other > value or other != other:
                        value, cell = other, np.int32(3)
                    best[col], which[col] = value, cell


@compiled
def max_pool2d_grad(start: int, stop: int, dY: Array, index: Array, dX: Array) -> None:
    """One line of ``dX`` at a time: writing both in one loop takes ten times as long.

    The last row or column of an odd size is left as it is.
    """
    _, channels, rows, cols = dY.shape
    zero = dX.dtype.type(0)
    for n in range(start, stop):
        for c in range(channels):
            for row in range(rows):
                slopes, which = dY[n, c, row], index[n, c, row]
                for i in range(2):
                    line = dX[n, c, 2 * row + i]
                    for col in range(cols):
                        slope, cell = slopes[col], which[col] - 2 * i
                        line[2 * col] = slope if cell == 0 else zero
                        line[2 * col + 1] = slope if cell == 1 else zero


@compiled
def clear_edges(start: int, stop: int, dY: Array, dX: Array) -> None:
    """Zeros in the last row and column of an odd size, which no window meets; of all images."""
    rows, cols = 2 * dY.shape[2], 2 * dY.shape[3]
    dX[:, :, rows:] = 0
    dX[:, :, :, cols:] = 0


@compiled
def max_pool2d_take(start: int, stop: int, x: Array, index: Array, taken: Array) -> None:
    _, channels, rows, cols = taken.shape
    for n in range(start, stop):
        for c in range(channels):
            for row in range(rows):
                for col in range(cols):
                    cell = index[n, c, row, col]
                    value = x.dtype.type(0)
                    if 0 <= cell < 4:
                        value = x[n, c, 2 * row + cell // 2, 2 * col + cell % 2]
                    taken[n, c, row, col] = value


@compiled
def max_pool2d_any(start: int, stop: int, x: Array, y: Array, index: Array, *window: int) -> None:
    """A few images at a time, laid out so that one cell of all windows is one run of numbers.

    For stride (sh, sw) row r and column c of a padded image go to grid (r % sh, c % sw), place
    (r // sh, c // sw). The same cell of the next window is then the next number of its grid, and
    the loop over windows vectorises however small the images are. The spots of a grid where no
    window begins are computed and dropped.
    """
    kh, kw, sh, sw, ph, pw = window
    x, y, index = x[start:stop], y[start:stop], index[start:stop]
    images, channels, height, width = x.shape
    rows, cols = y.shape[2:]
    planes, low = images * channels, -x.dtype.type(np.inf)
    lines, pitch = (height + 2 * ph - 1) // sh + 1, (width + 2 * pw - 1) // sw + 1
    # Strides beyond the image would make grids that nothing is in.
    down, right = min(sh, height + 2 * ph), min(sw, width + 2 * pw)
    step = max(1, min(planes, CELLS // (down * right * lines * pitch)))
    area = lines * pitch
    spots = step * area
    grids = np.empty((down * right + 1) * spots, x.dtype)  # one more: cells are read past the end
    for i in range(grids.size):
        grids[i] = low
    row_at, col_at = np.empty(height, np.uintp), np.empty(width, np.uintp)
    for row in range(height):
        row_at[row] = (row + ph) % sh * right * spots + (row + ph) // sh * pitch
    for col in range(width):
        col_at[col] = (col + pw) % sw * spots + (col + pw) // sw
    best, cell = np.empty(spots, x.dtype), np.empty(spots, np.int32)
    first = np.empty(spots, np.int32)  # cell that is not padding: it wins if all are −∞
    for image in range(step):
        for row in range(lines):
            for col in range(pitch):
                padded = max(0, ph - row * sh) * kw + max(0, pw - col * sw)
                first[image * area + row * pitch + col] = padded
    for begin in range(0, planes, step):
        end = min(begin + step, planes)
        for plane in range(begin, end):
            n, c = plane // channels, plane % channels
            for row in range(height):
                at = row_at[row] + np.uintp((plane - begin) * area)
                for col in range(width):
                    grids[at + col_at[col]] = x[n, c, row, col]
        for i in range(spots):
            best[i], cell[i] = low, first[i]
        for i in range(kh):
            for j in range(kw):
                grid = i % sh * right + j % sw
                at = grid * spots + i // sh * pitch + j // sw
                _choose(grids, np.uintp(at), np.int32(i * kw + j), best, cell)
        for plane in range(begin, end):
            n, c = plane // channels, plane % channels
            for row in range(rows):
                at = np.uintp((plane - begin) * area + row * pitch)
                for col in range(cols):
                    y[n, c, row, col] = best[at + np.uintp(col)]
                    index[n, c, row, col] = cell[at + np.uintp(col)]


@compiled
def _choose(grids: Array, start: Any, number: Any, best: Array, cell: Array) -> None:
    """Cell ``number`` of each window, from ``start`` on, where it is better than the best so far.

    Unsigned, an index needs no check for counting from the end, and the loop vectorises.
    """
    for i in range(best.size):
        value = grids[start + np.uintp(i)]
        better = value > best[i] or value != value
        best[i] = value if better else best[i]
        cell[i] = number if better else cell[i]


@compiled
def max_pool2d_any_grad(
    start: int, stop: int, dY: Array, index: Array, dX: Array, *window: int
) -> None:
    """From the last window to the first: the order in which the default adds to a cell."""
    kh, kw, sh, sw, ph, pw = window
    _, channels, height, width = dX.shape
    rows, cols = dY.shape[2:]
    row_of, col_of = _places(kh, kw)
    for n in range(start, stop):
        for c in range(channels):
            for i in range(height):
                for j in range(width):
                    dX[n, c, i, j] = 0
            for row in range(rows - 1, -1, -1):
                for col in range(cols - 1, -1, -1):
                    cell = index[n, c, row, col]
                    if 0 <= cell < kh * kw:
                        i = row * sh - ph + row_of[cell]
                        j = col * sw - pw + col_of[cell]
                        if 0 <= i < height and 0 <= j < width:
                            dX[n, c, i, j] += dY[n, c, row, col]


@compiled
def max_pool2d_any_take(
    start: int, stop: int, x: Array, index: Array, taken: Array, *window: int
) -> None:
    kh, kw, sh, sw, ph, pw = window
    _, channels, height, width = x.shape
    rows, cols = taken.shape[2:]
    row_of, col_of = _places(kh, kw)
    for n in range(start, stop):
        for c in range(channels):
            for row in range(rows):
                for col in range(cols):
                    cell, value = index[n, c, row, col], x.dtype.type(0)
                    if 0 <= cell < kh * kw:
                        i = row * sh - ph + row_of[cell]
                        j = col * sw - pw + col_of[cell]
                        if 0 <= i < height and 0 <= j < width:
                            value = x[n, c, i, j]
                    taken[n, c, row, col] = value


@compiled
def _places(kh: int, kw: int) -> tuple[Array, Array]:
    """Row and column of each of a window's cells: a table is faster than divisions."""
    row_of, col_of = np.empty(kh * kw, np.int64), np.empty(kh * kw, np.int64)
    for cell in range(kh * kw):
        row_of[cell], col_of[cell] = cell // kw, cell % kw
    return row_of, col_of


@region_of(max_pool2d)
def max_pool2d_region(threads: int, items: int, *arguments: Any) -> None:
    for t in prange(threads):
        max_pool2d(items * t // threads, items * (t + 1) // threads, *arguments)


@region_of(max_pool2d_grad)
def max_pool2d_grad_region(threads: int, items: int, *arguments: Any) -> None:
    for t in prange(threads):
        max_pool2d_grad(items * t // threads, items * (t + 1) // threads, *arguments)


@region_of(max_pool2d_take)
def max_pool2d_take_region(threads: int, items: int, *arguments: Any) -> None:
    for t in prange(threads):
        max_pool2d_take(items * t // threads, items * (t + 1) // threads, *arguments)


@region_of(max_pool2d_any)
def max_pool2d_any_region(threads: int, items: int, *arguments: Any) -> None:
    for t in prange(threads):
        max_pool2d_any(items * t // threads, items * (t + 1) // threads, *arguments)


@region_of(max_pool2d_any_grad)
def max_pool2d_any_grad_region(threads: int, items: int, *arguments: Any) -> None:
    for t in prange(threads):
        max_pool2d_any_grad(items * t // threads, items * (t + 1) // threads, *arguments)


@region_of(max_pool2d_any_take)
def max_pool2d_any_take_region(threads: int, items: int, *arguments: Any) -> None:
    for t in prange(threads):
        max_pool2d_any_take(items * t // threads, items * (t + 1) // threads, *arguments)
