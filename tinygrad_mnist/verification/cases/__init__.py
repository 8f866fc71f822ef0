"""The table of ops: one row per op, how to draw its inputs, a NumPy reference, its kinks.

``verify`` compares the backends by these rows, and the repository's ``test_ops`` and
``test_contract`` make every test of an op from its row. To add an op: its definition in ``ops``,
its kernel's default in ``kernels``, and a row here, in the module of its kind. A kernel that no op
reaches (an optimizer's update) gets a row in ``direct``.
"""

from __future__ import annotations

import zlib
from typing import Any

import numpy as np

from tinygrad_mnist.autograd.graph import wrap
from tinygrad_mnist.kernels import Backend
from tinygrad_mnist.tensor import Tensor
from tinygrad_mnist.verification.cases import (
    activations,
    images,
    indexing,
    losses,
    networks,
    pointwise,
    products,
    reductions,
    shapes,
)
from tinygrad_mnist.verification.cases.direct import DIRECT as DIRECT
from tinygrad_mnist.verification.cases.draws import Case as Case
from tinygrad_mnist.verification.cases.draws import Row as Row
from tinygrad_mnist.verification.cases.draws import several as several
from tinygrad_mnist.verification.cases.networks import splitmix64 as splitmix64

BY_FAMILY: dict[str, list[Row]] = {
    "pointwise": pointwise.ROWS,
    "shapes": shapes.ROWS,
    "reductions": reductions.ROWS,
    "indexing": indexing.ROWS,
    "products": products.ROWS,
    "images": images.ROWS,
    "networks": networks.ROWS,
    "activations": activations.ROWS,
    "losses": losses.ROWS,
}
ROWS = [row for rows in BY_FAMILY.values() for row in rows]


def cases_of(row: Row) -> list[Case]:
    """The row's cases, the same in every run."""
    return row.draw(np.random.default_rng(zlib.crc32(row.name.encode())))


def array_on(backend: Backend, x: np.ndarray, dtype: Any = None) -> Any:
    """``x`` as the backend's own array, with gaps, turned or expanded where ``x`` is."""
    host = x.astype(dtype) if dtype is not None and x.dtype == np.float64 else x
    if x.flags.c_contiguous and x.flags.writeable:
        return backend.asarray(host.copy())
    if 0 in x.strides and x.size:
        kept = host[tuple(slice(0, 1) if s == 0 else slice(None) for s in x.strides)]
        return backend.expand(backend.asarray(kept.copy()), shape=x.shape)
    order = sorted(range(x.ndim), key=lambda d: -abs(x.strides[d]))
    wide = np.zeros((*(x.shape[d] for d in order), 2), host.dtype)
    wide[..., 0] = host.transpose(order)
    array = backend.getitem(backend.asarray(wide), index=(..., 0))
    return backend.permute(array, dims=tuple(np.argsort(order).tolist()))


def tensors(row: Row, found: Case, backend: Backend, dtype: Any = None) -> list[Any]:
    """The case's inputs on ``backend``; those that the row differentiates require grad."""
    inputs = [
        wrap(Tensor, array_on(backend, x, dtype), backend) if isinstance(x, np.ndarray) else x
        for x in found.inputs
    ]
    for i in differentiable(row, found):
        inputs[i].requires_grad_()
    return inputs


def differentiable(row: Row, found: Case) -> list[int]:
    """Which of the case's inputs have a gradient."""
    floats = [i for i, x in enumerate(found.inputs) if getattr(x, "dtype", None) == np.float64]
    return [i for i in floats if row.differentiable is None or i in row.differentiable]
