"""How tensors are put together and taken apart."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache
from typing import Any, Self

import numpy as np

from tinygrad_mnist.checks import (
    checked_dim,
    checked_dims,
    checked_integer,
    filled_in,
    fit,
    listed,
    shape_of,
    shown,
)
from tinygrad_mnist.composed.selections import Selections
from tinygrad_mnist.kernels import Pair, Shape
from tinygrad_mnist.ops.pointwise import where
from tinygrad_mnist.ops.shapes import cat, cut, lies_as, sliced, sliced_grad
from tinygrad_mnist.ops.table import full_like, range_like


class Arrangements(Selections):
    """Shapes made of other shapes."""

    __slots__ = ()

    # ---- the same elements in another shape

    def view_as(self, other: Any) -> Self:
        """``view`` of the shape of ``other``."""
        fit("view_as", "other (…)", other)
        return self.view(tuple(other.array.shape))

    def reshape_as(self, other: Any) -> Self:
        """``reshape`` to the shape of ``other``."""
        fit("reshape_as", "other (…)", other)
        return self.reshape(tuple(other.array.shape))

    def flatten(self, start_dim: int = 0, end_dim: int = -1) -> Self:
        """The dims from ``start_dim`` to ``end_dim``, both included, as one."""
        shape = self.array.shape
        start = checked_dim("flatten", start_dim, len(shape))
        end = checked_dim("flatten", end_dim, len(shape))
        if start > end:
            raise ValueError(f"flatten: start_dim {start_dim} comes after end_dim {end_dim}")
        middle = math.prod(shape[start : end + 1])
        return self.reshape((*shape[:start], middle, *shape[end + 1 :]))

    def unflatten(self, dim: int, sizes: Any) -> Self:
        """``dim`` as several dims of ``sizes``, one of which may be -1: a view.

        ValueError for no sizes, or where they do not come to the size of ``dim``.
        """
        at, shape = self._own_dim("unflatten", dim), self.array.shape
        given = shape_of((sizes,), "unflatten")
        if not given:
            raise ValueError("unflatten: expected at least one size, got none")
        parts = filled_in(f"unflatten: dim {at} of {shape}", given, shape[at : at + 1])
        return self.reshape((*shape[:at], *parts, *shape[at + 1 :]))

    def squeeze(self, dim: int | Sequence[int] | None = None) -> Self:
        """Without those dims of size 1 that are among ``dim``: one, several or (None) all; a view.

        ValueError for a repeated dim.
        """
        shape = self.array.shape
        none = isinstance(dim, tuple | list) and not dim
        dims = () if none else checked_dims("squeeze", dim, len(shape))
        return self.reshape([s for i, s in enumerate(shape) if s != 1 or i not in dims])

    # ---- the dims in another order

    def t(self) -> Self:
        """A matrix transposed, or a tensor of fewer dims as it is: a view.

        ValueError for more than two dims.
        """
        if self.array.ndim > 2:
            raise ValueError(f"t: expected at most 2 dims, got shape {tuple(self.array.shape)}")
        return self.T

    def movedim(self, source: int | Sequence[int], destination: int | Sequence[int]) -> Self:
        """The dims ``source`` at the places ``destination``, the others in their order: a view.

        ValueError where one repeats a dim or they are not equally many.
        """
        ndim = self.array.ndim
        given, wanted = _several(source), _several(destination)
        if len(given) != len(wanted):
            raise ValueError(
                f"movedim: expected as many dims in source as in destination, got {shown(source)} "
                f"and {shown(destination)}"
            )
        old = checked_dims("movedim", given, ndim)
        moved = dict(zip(checked_dims("movedim", wanted, ndim), old, strict=True))
        rest = iter([d for d in range(ndim) if d not in old])
        return self._turned(tuple([moved[d] if d in moved else next(rest) for d in range(ndim)]))

    # ---- the same elements several times

    def expand_as(self, other: Any) -> Self:
        """``expand`` to the shape of ``other``."""
        fit("expand_as", "other (…)", other)
        return self.expand(tuple(other.array.shape))

    def broadcast_to(self, size: Any = (), *more: int) -> Self:
        """``expand``."""
        return self.expand(size, *more)

    def repeat(self, repeats: Any = (), *more: int) -> Self:
        """A copy with the whole tensor ``repeats`` times along each dim, new first dims included.

        ValueError for fewer repeats than dims or negative ones.
        """
        counts, shape = shape_of((repeats, *more), "repeat"), tuple(self.array.shape)
        if len(counts) < len(shape) or min(counts, default=0) < 0:
            raise ValueError(
                f"repeat: expected a count of at least 0 for each dim of {shape}, got {counts}"
            )
        pairs = list(zip(counts, (1,) * (len(counts) - len(shape)) + shape, strict=True))
        apart = self.reshape([size for _, old in pairs for size in (1, old)])
        wide = apart._broadcast(tuple([size for pair in pairs for size in pair]))
        return wide.clone().reshape([count * old for count, old in pairs])

    # ---- in pieces

    def split(self, split_size: int | Sequence[int], dim: int = 0) -> tuple[Self, ...]:
        """Views of ``split_size`` along ``dim``, the last one shorter; or of these sizes.

        ValueError for negative sizes, or where they do not add up to the size of ``dim``.
        """
        at = self._own_dim("split", dim)
        size = self.array.shape[at]
        if isinstance(split_size, tuple | list):
            sizes = shape_of((split_size,), "split")
        else:
            each = checked_integer("split", "split_size", split_size)
            if each > 0:
                return cut(self, _pieces(size, each), at)
            sizes = (each,)
        if min(sizes, default=0) < 0 or sum(sizes) != size:
            raise ValueError(f"split: a dim of size {size} does not split into {split_size}")
        return cut(self, sizes, at)

    def chunk(self, chunks: int, dim: int = 0) -> tuple[Self, ...]:
        """At most ``chunks`` views of one size along ``dim``, the last one shorter.

        ValueError for fewer than one.
        """
        at = self._own_dim("chunk", dim)
        size = self.array.shape[at]
        if checked_integer("chunk", "chunks", chunks) < 1:
            raise ValueError(f"chunk: expected at least 1 chunk, got {chunks}")
        return cut(self, _pieces(size, -(-size // chunks)) if size else (0,) * chunks, at)

    def unbind(self, dim: int = 0) -> tuple[Self, ...]:
        """The views at each index of ``dim``, without that dim."""
        at, shape = self._own_dim("unbind", dim), self.array.shape
        rest = (*shape[:at], *shape[at + 1 :])
        if at < len(rest):
            joined = (*shape[:at], shape[at] * shape[at + 1], *shape[at + 2 :])
            if lies_as(self.array, joined):  # then it takes a view, and not one for each piece
                return cut(self.reshape(joined), (shape[at + 1],) * shape[at], at)
        return tuple([part.reshape(rest) for part in cut(self, (1,) * shape[at], at)])

    def narrow(self, dim: int, start: int, length: int) -> Self:
        """The ``length`` indices from ``start`` on along ``dim``: a view.

        IndexError for a start outside −size … size; ValueError for a negative length, or one that
        reaches over the end.
        """
        at = self._own_dim("narrow", dim)
        size, first = self.array.shape[at], checked_integer("narrow", "start", start)
        if not -size <= first <= size:
            raise IndexError(f"narrow: start {start} is out of range, expected {-size} to {size}")
        first += size if first < 0 else 0
        if not 0 <= checked_integer("narrow", "length", length) <= size - first:
            raise ValueError(
                f"narrow: length {length} from {start} on does not lie in a dim of size {size}"
            )
        return sliced(self, _along(at, slice(first, first + length)))

    def select(self, dim: int, index: int) -> Self:
        """What lies at ``index`` of ``dim``, without that dim: a view. IndexError out of range."""
        at = self._own_dim("select", dim)
        size, place = self.array.shape[at], checked_integer("select", "index", index)
        if not -size <= place < size:
            raise IndexError(
                f"select: index {index} is out of range for dim {dim} of shape "
                f"{tuple(self.array.shape)}"
            )
        return sliced(self, _along(at, place))

    def _own_dim(self, name: str, dim: int) -> int:
        """``dim`` from 0; IndexError where it is not there, as none is in a 0-d tensor."""
        if not self.array.ndim:
            raise IndexError(f"{name}: expected a tensor of at least 1 dim, got a 0-d one")
        return checked_dim(name, dim, self.array.ndim)

    # ---- moved, or in part zero

    def roll(self, shifts: int | Sequence[int], dims: int | Sequence[int] | None = None) -> Self:
        """A copy moved by ``shifts`` along ``dims``, what leaves at an end entering at the other.

        Without dims the flattened tensor is moved. ValueError where there is not one shift for
        each dim.
        """
        steps, along = shape_of((shifts,), "roll"), () if dims is None else _several(dims)
        if not along and len(steps) == 1:
            return self.reshape(-1).roll(steps, 0).reshape(self.array.shape)
        if len(steps) != len(along) or not steps:
            raise ValueError(
                f"roll: expected one shift for each dim, got {shown(shifts)} and {shown(dims)}"
            )
        moved = self
        for step, dim in zip(steps, along, strict=True):
            at = self._own_dim("roll", dim)
            size = self.array.shape[at]
            if size and step % size:
                moved = cat(cut(moved, (size - step % size, step % size), at)[::-1], at)
        return self.clone() if moved is self else moved

    def tril(self, diagonal: int = 0) -> Self:
        """A copy with 0 above a diagonal, ``diagonal`` places above the main one."""
        rows, columns = self._places("tril", diagonal)
        return where(rows >= columns, self, full_like(self, 0, ()))

    def triu(self, diagonal: int = 0) -> Self:
        """A copy with 0 below a diagonal, ``diagonal`` places above the main one."""
        rows, columns = self._places("triu", diagonal)
        return where(rows <= columns, self, full_like(self, 0, ()))

    def _places(self, name: str, diagonal: int) -> tuple[Any, Any]:
        """For each row of a matrix the column in which the diagonal meets it, and the columns."""
        shape = tuple(self.array.shape)
        if len(shape) < 2:
            raise ValueError(f"{name}: expected at least 2 dims, got shape {shape}")
        first = checked_integer(name, "diagonal", diagonal)
        return range_like(self, shape[-2], first).unsqueeze(1), range_like(self, shape[-1])


def stack(tensors: Sequence[Any], dim: int = 0) -> Any:
    """Tensors of one shape side by side along a new ``dim``; dtypes are promoted.

    ValueError for none or for shapes that differ; TypeError for what is no tensor.
    """
    parts = listed("stack", tensors)
    shapes = [tuple(x.array.shape) for x in parts]
    if any(shape != shapes[0] for shape in shapes):
        raise ValueError(f"stack: expected equal shapes, got {', '.join(map(str, shapes))}")
    shape = shapes[0]
    at = checked_dim("stack", dim, len(shape) + 1)
    if at < len(shape):  # joined with the dim that follows, they take no view each
        return cat(parts, at).reshape((*shape[:at], len(parts), *shape[at:]))
    return cat([x.unsqueeze(at) for x in parts], at)


def split(
    tensor: Any, split_size_or_sections: int | Sequence[int], dim: int = 0
) -> tuple[Any, ...]:
    """Views of a size along ``dim``, the last one shorter, or of several; see ``Tensor.split``."""
    fit("split", "tensor (…)", tensor)
    return tensor.split(split_size_or_sections, dim)


# ---- padding

MODES = ("constant", "reflect", "replicate")


def pad(input: Any, pad: Sequence[int], mode: str = "constant", value: float | None = None) -> Any:
    """A copy with more elements before and after each dim, ``pad`` counting from the last dim back.

    They are ``value`` (0), or (``"reflect"``) those that lie as far inside of the edge, or
    (``"replicate"``) the edge itself. Negative numbers take elements away.
    ValueError for an odd count of numbers or more than two for each dim, where a dim is too small,
    for a mode that is none, and for a value that the mode or the dtype does not take.
    """
    fit("pad", "input (…)", input)
    margins = _margins(tuple(input.array.shape), pad)
    if mode not in MODES:
        raise ValueError(f"pad: expected a mode of {', '.join(MODES)}, got {shown(mode)}")
    if mode == "constant":
        return _framed(_cropped(input, margins), margins, _filling(input, value))
    if value:
        raise ValueError(f"pad: the mode {mode!r} takes no value, got {value}")
    widened = _reflected if mode == "reflect" else _replicated
    x = input
    for dim, (before, after) in enumerate(margins):
        if max(before, after) > 0:
            x = widened(x, dim, max(before, 0), max(after, 0))
    x = _cropped(x, margins)
    return x.clone() if x.version is input.version else x  # no view of the input


def _margins(shape: Shape, pad: Any) -> list[Pair]:
    """``pad`` as a pair (before, after) for each dim, the first dim first."""
    if not isinstance(pad, tuple | list):
        raise TypeError(f"pad: expected a tuple of integers, got {type(pad).__name__}")
    sizes = shape_of((pad,), "pad")
    if len(sizes) % 2 or len(sizes) > 2 * len(shape):
        raise ValueError(
            f"pad: expected two numbers for each padded dim, the last dim first, got {pad} for "
            f"shape {shape}"
        )
    pairs = list(zip(sizes[::2], sizes[1::2], strict=True))
    return [(0, 0)] * (len(shape) - len(pairs)) + pairs[::-1]


def _filling(x: Any, value: Any) -> Any:
    """The number to pad ``x`` with. ValueError where its dtype does not hold it."""
    if value is None:
        return 0
    if not isinstance(value, bool | int | float | np.generic):
        raise TypeError(f"pad: expected a number as value, got {type(value).__name__}")
    dtype = x.array.dtype
    if dtype.kind != "f":
        with np.errstate(invalid="ignore"):
            held = np.asarray(value).astype(dtype)
        if held != value:
            raise ValueError(f"pad: the value {value} does not fit the dtype {dtype}")
    return value


def _cropped(x: Any, margins: list[Pair]) -> Any:
    """``x`` without what negative margins take away: a view. ValueError where that is too much."""
    if not margins or min(map(min, margins)) >= 0:
        return x
    index = []
    for size, (before, after) in zip(x.array.shape, margins, strict=True):
        first, last = max(-before, 0), size - max(-after, 0)
        if first > last:
            raise ValueError(
                f"pad: {before} and {after} take more away than shape {tuple(x.array.shape)} has"
            )
        index.append(slice(first, last))
    return sliced(x, tuple(index))


def _framed(x: Any, margins: list[Pair], value: Any) -> Any:
    """A copy of ``x`` with ``value`` in the margins that are positive."""
    grown = [(max(before, 0), max(after, 0)) for before, after in margins]
    shape = tuple(x.array.shape)
    if not any(map(any, grown)):
        return x.clone()
    if value == 0:
        inside = tuple([slice(b, b + n) for n, (b, _) in zip(shape, grown, strict=True)])
        whole = tuple([b + n + a for n, (b, a) in zip(shape, grown, strict=True)])
        return sliced_grad(x, inside, whole)
    for dim, ends in enumerate(grown):
        if any(ends):
            first, last = (full_like(x, value, _resized(x, dim, n)) for n in ends)
            x = cat([first, x, last], dim)
    return x


def _reflected(x: Any, dim: int, before: int, after: int) -> Any:
    if max(before, after) >= x.array.shape[dim]:
        raise ValueError(
            f"pad: to reflect {before} and {after} elements takes a dim of more than these, got "
            f"shape {tuple(x.array.shape)}"
        )
    backwards = slice(before, 0, -1), slice(-2, -2 - after, -1)
    first, last = (sliced(x, _along(dim, index)) for index in backwards)
    return cat([*([first] if before else []), x, *([last] if after else [])], dim)


def _replicated(x: Any, dim: int, before: int, after: int) -> Any:
    size = x.array.shape[dim]
    if not size:
        raise ValueError(f"pad: no edge to replicate in shape {tuple(x.array.shape)}")
    if size == 1:
        return x._broadcast(_resized(x, dim, before + 1 + after)).clone()
    first, middle, last = cut(x, (1, size - 2, 1), dim)
    first = first._broadcast(_resized(x, dim, 1 + before))
    last = last._broadcast(_resized(x, dim, 1 + after))
    return cat([first, middle, last], dim)


def _resized(x: Any, dim: int, size: int) -> Shape:
    shape = tuple(x.array.shape)
    return (*shape[:dim], size, *shape[dim + 1 :])


# ---- arguments


def _along(dim: int, index: int | slice) -> tuple[Any, ...]:
    """``index`` in ``dim`` and everything in the others."""
    return (*(slice(None),) * dim, index)


@lru_cache(maxsize=4096)
def _pieces(size: int, each: int) -> Shape:
    """``size`` in parts of ``each``, the last one smaller; of size 0 a single one."""
    whole = (each,) * (size // each) if size else (0,)
    return whole if not size or size % each == 0 else (*whole, size % each)


def _several(dims: Any) -> tuple[Any, ...]:
    return tuple(dims) if isinstance(dims, tuple | list) else (dims,)
