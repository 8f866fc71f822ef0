"""Products of matrices on threads: each takes a range of rows or columns, or of what is summed.

Narrow ones, as small networks have them, are cut into tiles; wide ones are SciPy's BLAS, on one
thread each. NumPy's own BLAS would run them on a pool of its own, whose threads spin for a while
after each product and take the cores from the regions that come next.

``floor`` is what smaller results become: 0 for a ReLU, −∞ for none.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import prange

from tinygrad_mnist.backends.numba_kernels.compile import compiled, region_of
from tinygrad_mnist.backends.numba_kernels.tiles import add_product, dot_rows

Array = Any

NARROW = 2**18  # numbers of the matrix that all rows meet, up to which tiles are faster than BLAS
ROWS = 1024  # of a block of a wide product that is still in the cache when the bias is added
TILED = 64  # rows of a block of a narrow one


@compiled
def matmul(start: int, stop: int, x: Array, y: Array, out: Array) -> None:
    """Rows start … stop of x @ y."""
    if y.size > NARROW:
        np.dot(x[start:stop], y, out[start:stop])
    elif y.strides[1] == y.itemsize:
        add_product(x[start:stop], y, out[start:stop], False)
    else:
        dot_rows(x[start:stop], y.T, out[start:stop])


@compiled
def linear(
    start: int, stop: int, x: Array, weight: Array, bias: Array, floor: float, y: Array
) -> None:
    """Rows start … stop of x @ weightᵀ + bias."""
    least, narrow = y.dtype.type(floor), weight.size <= NARROW
    rows = TILED if narrow else ROWS
    for row in range(start, stop, rows):
        end = min(row + rows, stop)
        if narrow:
            dot_rows(x[row:end], weight, y[row:end])
        else:
            np.dot(x[row:end], weight.T, y[row:end])
        for i in range(row, end):
            for o in range(bias.size):
                value = y[i, o] + bias[o]
                y[i, o] = least if value <= least else value


@compiled
def linear_outputs(
    start: int, stop: int, x: Array, weight: Array, bias: Array, floor: float, y: Array
) -> None:
    """Columns start … stop of x @ weightᵀ + bias, for few rows: no thread reads all of weight."""
    least = y.dtype.type(floor)
    columns = y[:, start:stop]
    if weight.size <= NARROW:
        dot_rows(x, weight[start:stop], columns)
    else:
        product = np.empty((stop - start, len(x)), x.dtype)
        np.dot(weight[start:stop], x.T, product)
        columns[:] = product.T
    for i in range(len(x)):
        for o in range(stop - start):
            value = columns[i, o] + bias[start + o]
            columns[i, o] = least if value <= least else value


@compiled
def linear_dw_rows(start: int, stop: int, dY: Array, x: Array, dW: Array) -> None:
    """Rows (outputs) start … stop of dYᵀ @ x."""
    if dW.size <= NARROW:
        for row in range(0, len(x), TILED):
            end = min(row + TILED, len(x))
            add_product(dY[row:end, start:stop].T, x[row:end], dW[start:stop], row > 0)
        return
    columns = np.empty((stop - start, len(dY)), dY.dtype)
    for i in range(len(dY)):
        for o in range(start, stop):
            columns[o - start, i] = dY[i, o]
    np.dot(columns, x, dW[start:stop])


@compiled
def linear_dw_sum(start: int, stop: int, dY: Array, x: Array, total: Array) -> None:
    """dYᵀ @ x over the samples start … stop."""
    if total.size <= NARROW:
        for row in range(start, stop, TILED):
            end = min(row + TILED, stop)
            add_product(dY[row:end].T, x[row:end], total, row > start)
        return
    product = np.empty_like(total)
    total[:] = 0
    for row in range(start, stop, ROWS):
        end = min(row + ROWS, stop)
        np.dot(dY[row:end].T, x[row:end], product)
        for o in range(len(total)):
            for i in range(total.shape[1]):
                total[o, i] += product[o, i]


def calls_blas(kernel: Any, arguments: Any) -> bool:
    """Whether a call of one of these kernels, or of another, may come to a wide product."""
    sizes = (x.size for x in arguments if isinstance(x, np.ndarray))
    return kernel in _PRODUCTS and max(sizes) > NARROW


_PRODUCTS = (matmul, linear, linear_outputs, linear_dw_rows, linear_dw_sum)


@region_of(matmul)
def matmul_region(threads: int, items: int, *arguments: Any) -> None:
    for t in prange(threads):
        matmul(items * t // threads, items * (t + 1) // threads, *arguments)


@region_of(linear)
def linear_region(threads: int, items: int, *arguments: Any) -> None:
    for t in prange(threads):
        linear(items * t // threads, items * (t + 1) // threads, *arguments)


@region_of(linear_outputs)
def linear_outputs_region(threads: int, items: int, *arguments: Any) -> None:
    for t in prange(threads):
        linear_outputs(items * t // threads, items * (t + 1) // threads, *arguments)


@region_of(linear_dw_rows)
def linear_dw_rows_region(threads: int, items: int, *arguments: Any) -> None:
    for t in prange(threads):
        linear_dw_rows(items * t // threads, items * (t + 1) // threads, *arguments)


@region_of(linear_dw_sum)
def linear_dw_sum_region(threads: int, items: int, dY: Array, x: Array, totals: Array) -> None:
    """``totals`` (threads, out, in): one for each thread, which nobody else writes."""
    for t in prange(threads):
        linear_dw_sum(items * t // threads, items * (t + 1) // threads, dY, x, totals[t])
