"""Adding at indices."""

from __future__ import annotations

from typing import Any

from tinygrad_mnist.backends.numba_kernels.compile import compiled

Array = Any


@compiled
def take_grad(dY: Array, index: Array, dX: Array) -> None:
    """dY (B, count, W) added to dX (B, N, W), which is zeros, at the rows ``index`` (count,)."""
    width = dX.shape[2]
    for b in range(dX.shape[0]):
        for i in range(index.size):
            row = index[i]
            if width == 1:
                dX[b, row, 0] += dY[b, i, 0]
            else:
                for j in range(width):
                    dX[b, row, j] += dY[b, i, j]
