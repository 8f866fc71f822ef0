"""Products and sums of tensors by the names of their dims (Einstein's summation)."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Sequence
from functools import lru_cache
from typing import Any

from tinygrad_mnist.autograd.graph import Value
from tinygrad_mnist.checks import check_numbers, no_tensor
from tinygrad_mnist.ops.products import matmul
from tinygrad_mnist.ops.shapes import sliced
from tinygrad_mnist.ops.table import promoted

Labels = tuple[Any, ...]  # per dim a letter; −1, −2, … for those of "...", from the last

_TERM = re.compile(r"([a-zA-Z ]*)(\.\.\.)?([a-zA-Z ]*)")


def einsum(equation: str, *operands: Any) -> Any:
    """Σ of products over the dims named in ``equation``, such as ``"bij,bjk->bik"``.

    Per operand a letter for each dim, ``...`` for dims that are broadcast, and after ``->`` the
    result's; a letter that is not there is summed over. Without ``->`` the result has the dims of
    ``...`` and the letters named once, in alphabetical order. A letter named twice for one operand
    takes the diagonal. Dims of one letter are of one size, or of size 1. The operands, of one
    dtype, may come as one list; they are multiplied from left to right.
    ValueError for an equation or shapes that do not fit; TypeError for dtypes and for no tensors.
    """
    tensors = (
        operands[0] if len(operands) == 1 and isinstance(operands[0], list | tuple) else operands
    )
    _check(equation, tensors)
    named, output = _parsed(equation, tuple(x.array.ndim for x in tensors))
    singled = [_diagonals(x, labels) for x, labels in zip(tensors, named, strict=True)]
    sizes = _sizes(singled)
    (x, labels), *others = [_without_ones(x, labels, sizes) for x, labels in singled]
    for i, (y, more) in enumerate(others, 1):
        kept = {*output}.union(*(later for _, later in others[i:]))
        x, labels = _product(x, labels, y, more, kept)
    x, labels = _summed(x, labels, output)
    return _ordered(x, labels, output)


def _check(equation: Any, tensors: Sequence[Any]) -> None:
    if not isinstance(equation, str):
        raise TypeError(f"einsum: expected an equation first, got {type(equation).__name__}")
    for i, x in enumerate(tensors):
        if not isinstance(x, Value):
            raise no_tensor("einsum", f"operand {i}", x)
    if len({x.array.dtype for x in tensors}) > 1:
        got = ", ".join(str(x.array.dtype) for x in tensors)
        raise TypeError(f"einsum: dtypes differ: {got}; cast one, for example with .to(dtype)")


# ---- the equation


@lru_cache(maxsize=1024)
def _parsed(equation: str, ndims: tuple[int, ...]) -> tuple[list[Labels], Labels]:
    """The labels of each operand and those of the result."""
    left, arrow, right = equation.partition("->")
    terms = left.split(",")
    if len(terms) != len(ndims):
        raise ValueError(f"einsum: {equation!r} takes {len(terms)} operands, got {len(ndims)}")
    named = [_labels(equation, term, ndim) for term, ndim in zip(terms, ndims, strict=True)]
    free = [label for labels in named for label in labels if isinstance(label, int)]
    dots = tuple(range(min(free, default=0), 0))
    letters = [label for labels in named for label in labels if isinstance(label, str)]
    if not arrow:
        return named, (*dots, *sorted(c for c in letters if letters.count(c) == 1))
    before, found, after = _split(equation, right)
    output = (*before, *(dots if found else ()), *after)
    if not {*before, *after} <= {*letters} or len({*output}) < len(output):
        raise ValueError(
            f"einsum: each letter after -> must be one of those before it, once; got {equation!r}"
        )
    return named, output


def _labels(equation: str, term: str, ndim: int) -> Labels:
    before, dots, after = _split(equation, term)
    free = ndim - len(before) - len(after)
    if free < 0 or (free and not dots):
        raise ValueError(f"einsum: {term!r} in {equation!r} does not fit a tensor of {ndim} dims")
    return (*before, *range(-free, 0), *after)


def _split(equation: str, term: str) -> tuple[str, bool, str]:
    """The letters before ``...``, whether it is there, and those after it."""
    found = _TERM.fullmatch(term)
    if found is None:
        raise ValueError(
            f"einsum: expected letters, spaces and at most one ... between the commas and ->, "
            f"got {term!r} in {equation!r}"
        )
    return found[1].replace(" ", ""), found[2] is not None, found[3].replace(" ", "")


# ---- one operand


def _diagonals(x: Any, labels: Labels) -> tuple[Any, Labels]:
    """Each label once: of the dims that share one, the diagonal."""
    for label in labels:
        while labels.count(label) > 1:
            i = labels.index(label)
            j = labels.index(label, i + 1)
            shape, n = x.array.shape, x.array.shape[i]
            if shape[j] != n:
                raise ValueError(
                    f"einsum: {label!r} names dims of sizes {n} and {shape[j]} of one operand"
                )
            others = [d for d in range(len(shape)) if d not in (i, j)]
            x = x.permute(*others, i, j).reshape(*(shape[d] for d in others), n * n)
            x = sliced(x, (..., slice(None, None, n + 1)))
            labels = (*(labels[d] for d in others), label)
    return x, labels


def _sizes(terms: list[tuple[Any, Labels]]) -> dict[Any, int]:
    """The size of each label, to which those of 1 are broadcast."""
    sizes: dict[Any, int] = {}
    for x, labels in terms:
        for label, size in zip(labels, x.array.shape, strict=True):
            known = sizes.get(label, 1)
            if size != known and 1 not in (size, known):
                what = "'...'" if isinstance(label, int) else repr(label)
                raise ValueError(f"einsum: {what} names dims of sizes {known} and {size}")
            sizes[label] = size if known == 1 else known
    return sizes


def _without_ones(x: Any, labels: Labels, sizes: dict[Any, int]) -> tuple[Any, Labels]:
    """``x`` without the dims that are broadcast: as if they had not been named."""
    shape = x.array.shape
    kept = [d for d, label in enumerate(labels) if shape[d] == sizes[label]]
    if len(kept) < len(shape):
        x = x.reshape(tuple(shape[d] for d in kept))
    return x, tuple(labels[d] for d in kept)


def _summed(x: Any, labels: Labels, kept: Iterable[Any]) -> tuple[Any, Labels]:
    """``x`` summed over what is not kept."""
    dims = tuple(d for d, label in enumerate(labels) if label not in kept)
    return (x.sum(dims) if dims else x), tuple(label for label in labels if label in kept)


def _ordered(x: Any, labels: Labels, order: Labels) -> Any:
    return x if labels == order else x.permute(*(labels.index(label) for label in order))


# ---- two operands


def _product(x: Any, a: Labels, y: Any, b: Labels, kept: set[Any]) -> tuple[Any, Labels]:
    """x · y summed over the labels that are not kept, and its labels."""
    x, a = _summed(x, a, kept | {*b})
    y, b = _summed(y, b, kept | {*a})
    x, y = promoted([x, y])  # a sum of small integers has made int64 of them
    columns = tuple(label for label in b if label not in a)
    inner = tuple(label for label in a if label not in kept)
    if not inner:
        return _aligned(x, a, a + columns) * _aligned(y, b, a + columns), a + columns
    check_numbers("einsum", x)
    batch = tuple(label for label in a if label in b and label in kept)
    rows = tuple(label for label in a if label not in b)
    left = _matrices(x, a, batch, rows, inner)
    z = matmul(left, _matrices(y, b, batch, inner, columns))
    size = {**dict(zip(a, x.array.shape, strict=True)), **dict(zip(b, y.array.shape, strict=True))}
    labels = batch + rows + columns
    shape = tuple(size[label] for label in labels)
    return (z if z.array.shape == shape else z.reshape(shape)), labels


def _aligned(x: Any, labels: Labels, target: Labels) -> Any:
    """``x`` with its dims where ``target`` has them, and of size 1 where it has others."""
    x = _ordered(x, labels, tuple(label for label in target if label in labels))
    index = tuple(slice(None) if label in labels else None for label in target)
    return sliced(x, index) if None in index else x


def _matrices(x: Any, labels: Labels, batch: Labels, rows: Labels, columns: Labels) -> Any:
    """``x`` as a matrix, or as a batch of them: a view where nothing has to be joined."""
    x = _ordered(x, labels, batch + rows + columns)
    sizes, b, r = x.array.shape, len(batch), len(batch) + len(rows)
    lead = (math.prod(sizes[:b]),) if batch else ()
    shape = (*lead, math.prod(sizes[b:r]), math.prod(sizes[r:]))
    return x if sizes == shape else x.reshape(shape)
