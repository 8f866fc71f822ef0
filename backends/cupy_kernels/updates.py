"""The tensors of a parameter group, as the kernels of ``optimizers.cu`` take them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from tinygrad_mnist.kernels import Array

MOST, LISTS = 80, 5  # what an update takes in one launch: all arguments fit in 4096 bytes
TENSORS = np.dtype(
    [
        ("count", np.int64),
        ("ends", np.int64, (MOST,)),
        ("at", np.uint64, (LISTS, MOST)),
    ]
)


def groups(lists: Sequence[Sequence[Array]]) -> Iterator[tuple[np.ndarray, int]]:
    """The struct ``Tensors`` of up to ``MOST`` tensors at a time, and the elements of these.

    A list of moments may be empty; its pointers are null. Tensors without elements are left out.
    """
    kept = [i for i, p in enumerate(lists[0]) if p.size]
    for start in range(0, len(kept), MOST):
        chosen = kept[start : start + MOST]
        made = np.zeros((), TENSORS)
        made["count"] = len(chosen)
        made["ends"][: len(chosen)] = np.cumsum([lists[0][i].size for i in chosen])
        for pointers, arrays in zip(made["at"], lists, strict=False):
            if arrays:
                pointers[: len(chosen)] = [arrays[i].data.ptr for i in chosen]
        yield made, int(made["ends"][len(chosen) - 1])
