"""What ``x[index]`` and its kin read and write: elements chosen by their places.

Integers, slices and None make a view. Arrays are then brought to one int64 index along one dim of
it, or of the whole tensor laid flat, at which the op ``taken`` reads and ``put_`` writes.
"""

from __future__ import annotations

import math
import operator
from functools import reduce
from typing import Any, NamedTuple, Self

import numpy as np

from tinygrad_mnist.autograd.graph import Value, broadcast, broadcasts_to
from tinygrad_mnist.checks import BOOL, INT, checked_dim, fit, held
from tinygrad_mnist.composed.views import Views
from tinygrad_mnist.dispatch import tell
from tinygrad_mnist.kernels import Shape
from tinygrad_mnist.ops.indexing import added, integers, overwrite, placed, put, put_, taken
from tinygrad_mnist.ops.pointwise import where
from tinygrad_mnist.ops.shapes import sliced
from tinygrad_mnist.ops.table import beside, full_like, operand, range_like

_BASIC = frozenset({int, np.int64, slice, type(None), type(...)})
_ALL = slice(None)
_KINDS = "integers, slices, None, ..., and tensors, arrays or lists of integers or booleans"


class Place(NamedTuple):
    """Dims of a view that an array indexes."""

    at: int  # the first of them
    span: int  # how many
    index: Any  # int64, into these dims as if they were one
    dim: int | None  # the tensor's, where the index has not been checked against it


class Selections(Views):
    """A tensor's elements by their places."""

    __slots__ = ()

    def __getitem__(self, index: Any) -> Self:
        """``x[index]``: a view for integers, slices, None and ``...``, else a copy.

        Arrays (tensors, NumPy arrays, lists) of integers are broadcast against each other; one of
        booleans stands for the places where it is True. Integers are applied first. The arrays'
        dims come where the arrays stand, or first if something stands between them. IndexError out
        of range, for too many indices, for arrays that do not broadcast and a mask of another
        shape; TypeError for anything else; ValueError for a step below 1.
        """
        parts = index if isinstance(index, tuple) else (index,)
        for part in parts:
            if type(part) not in _BASIC:
                return _selected(self, parts)
            if type(part) is slice and part.step is not None:
                _check_step(part)
        return sliced(self, parts)

    def index_select(self, dim: int, index: Any) -> Self:
        """The slices at ``index`` (count,) along ``dim``.

        IndexError outside 0 … size−1, ValueError for an index of more dims.
        """
        at = checked_dim("index_select", dim, self.array.ndim)
        places = integers("index_select", index)
        if places.array.ndim > 1 or (not self.array.ndim and places.array.size != 1):
            raise ValueError(
                "index_select: expected an index (count,), of one for a 0-d tensor, got "
                f"{tuple(places.array.shape)}"
            )
        x = self if self.array.ndim else self.reshape(1)
        places = placed("index_select", places.reshape(-1), x.array.shape[at], at)
        found: Any = taken(x, places, at)
        return found if self.array.ndim else found.reshape(())

    def take(self, index: Any) -> Self:
        """The elements at ``index``, of its shape, of the tensor laid flat.

        Negative ones count from the end; IndexError out of range.
        """
        flat = self.reshape(-1)
        places = placed("take", integers("take", index), self.array.size, 0, wraps=True)
        return taken(flat, places, 0)

    def gather(self, dim: int, index: Any) -> Self:
        """y[i, j, k] = x[i, index[i, j, k], k] for ``dim`` 1: of the shape of ``index``.

        ``index`` has as many dims as x and is no larger outside ``dim``, else ValueError.
        IndexError outside 0 … size−1.
        """
        return taken(self.reshape(-1), _along("gather", self, dim, index), 0)

    def take_along_dim(self, indices: Any, dim: int | None = None) -> Self:
        """``gather`` with both broadcast against each other outside ``dim``; None: laid flat.

        Negative indices count from the end.
        """
        places = integers("take_along_dim", indices)
        if dim is None:
            size, flat = self.array.size, places.reshape(-1)
            flat = placed("take_along_dim", flat, size, None, wraps=True)
            return taken(self.reshape(-1), flat, 0)
        at = checked_dim("take_along_dim", dim, self.array.ndim)
        old, wanted = tuple(self.array.shape), tuple(places.array.shape)
        if len(old) != len(wanted):
            raise ValueError(
                f"take_along_dim: expected indices of {len(old)} dims, x has shape {old}, got "
                f"{wanted}"
            )
        outside = [(*shape[:at], 1, *shape[at + 1 :]) for shape in (old, wanted)]
        sizes = broadcast("take_along_dim", *outside, of=(old, wanted))
        places = _flat("take_along_dim", self, at, places, sizes, wraps=True)
        return taken(self.reshape(-1), places, 0)

    def scatter(self, dim: int, index: Any, src: Any = None, *, value: Any = None) -> Self:
        """A copy with y[i, index[i, j, k], k] = src[i, j, k] for ``dim`` 1, or all = ``value``.

        ``src`` is a tensor of the same dtype, or a number. ``index`` has as many dims as x and
        ``src`` and is no larger, but for ``dim`` of x. Where several indices name one place one of
        them wins; each gets its gradient. IndexError outside 0 … size−1.
        """
        if (src is None) == (value is None):
            raise TypeError("scatter: expected either src or value")
        given = operand("scatter", self, value if src is None else src)
        places = _along("scatter", self, dim, index)
        if isinstance(given, Value):
            given = _source("scatter", self, given, index).reshape(places.array.shape)
        else:
            given = full_like(self, held("scatter", given, self.array.dtype), ())
        return put(self.reshape(-1), places, given).reshape(self.array.shape)

    def scatter_add(self, dim: int, index: Any, src: Any) -> Self:
        """A copy with src[i, j, k] added to y[i, index[i, j, k], k] for ``dim`` 1.

        Shapes as for ``scatter``; what meets at one place is summed.
        """
        places = _along("scatter_add", self, dim, index)
        source = _source("scatter_add", self, src, index).reshape(-1)
        total: Any = added(source, places.reshape(-1), (self.array.size,), 0)
        return self + total.reshape(self.array.shape)

    def masked_select(self, mask: Any) -> Self:
        """The elements where the boolean ``mask`` is True, (count,); both are broadcast.

        Its shape depends on data, for which a device must wait.
        """
        fit("masked_select", "mask bool (…)", mask)
        shape = broadcast("masked_select", self.array.shape, mask.array.shape)
        return taken(self.expand(shape).reshape(-1), _true(mask.expand(shape)), 0)


# ---- reading


def _selected(x: Any, parts: tuple[Any, ...]) -> Any:
    """``x`` at an index that is not of integers, slices, None and ``...`` alone."""
    found = _parsed(x, parts)
    basic, places = _located(x, found)
    if not places:
        return sliced(x, basic)
    source, index, dim = _along_one_dim(x, basic, places)
    return taken(source, index, dim)


def _parsed(x: Any, parts: tuple[Any, ...]) -> list[Any]:
    """One integer, slice, boolean or tensor for each of the dims of ``x``, and None between."""
    found = [_part(x, part) for part in parts]
    shape = tuple(x.array.shape)
    used = sum([_dims(part) for part in found])
    dots = [i for i, part in enumerate(found) if part is ...]
    if used > len(shape) or len(dots) > 1:
        what = "more than one ..." if len(dots) > 1 else f"{used} indices"
        raise IndexError(f"index: got {what} for a tensor of {len(shape)} dims, shape {shape}")
    at = dots[0] if dots else len(found)
    return [*found[:at], *[_ALL] * (len(shape) - used), *found[at + 1 :]]


def _part(x: Any, part: Any) -> Any:
    """One index as None, ``...``, a slice, int, bool or a tensor (int64 or boolean) with dims."""
    if isinstance(part, slice):
        _check_step(part)
        return part
    if part is None or part is ... or isinstance(part, bool):
        return part
    if isinstance(part, np.bool_):
        return bool(part)
    if isinstance(part, int | np.integer):
        return int(part)
    if isinstance(part, np.ndarray | list | tuple | range):
        part = _from_host(x, part)
    if not isinstance(part, Value):
        raise TypeError(f"index: expected {_KINDS}, got {type(part).__name__}")
    if part.array.dtype != BOOL:
        part = integers("index", part)
    return part if part.array.ndim else part.item()


def _from_host(x: Any, part: Any) -> Any:
    """An array or a sequence as a tensor beside ``x``; an empty sequence is one of integers."""
    if isinstance(part, np.ndarray):
        tell("host_data", "a NumPy array")
    try:
        found = np.asarray(part)
    except ValueError as error:
        raise TypeError(f"index: expected {_KINDS}, got a list: {error}") from error
    if not found.size and not isinstance(part, np.ndarray):
        found = found.astype(INT)
    if found.dtype.kind not in "biu":
        raise TypeError(f"index: expected {_KINDS}, got {type(part).__name__} of {found.dtype}")
    if found.dtype.kind == "u" and found.dtype.itemsize > 1:
        found = found.astype(INT)
    return beside(x, found)


def _check_step(part: slice) -> None:
    if hasattr(part.step, "__index__") and part.step < 1:  # NumPy's error for others is clear
        raise ValueError(f"index: a slice's step must be positive, got {part.step}")


def _dims(part: Any) -> int:
    """How many dims of the tensor an index takes up."""
    if isinstance(part, Value):
        return part.array.ndim if part.array.dtype == BOOL else 1
    return 0 if part is None or part is ... or isinstance(part, bool) else 1


def _located(x: Any, parts: list[Any]) -> tuple[tuple[Any, ...], list[Place]]:
    """The basic index that is left with ``:`` for each array, and where the arrays stand in it.

    A boolean stands for a new dim that is taken or not.
    """
    basic: list[Any] = []
    places: list[Place] = []
    dim = at = 0
    for part in parts:
        if isinstance(part, Value):
            span = _dims(part)
            if part.array.dtype == BOOL:
                _check_mask(part, tuple(x.array.shape), dim)
                places.append(Place(at, span, _true(part), None))
            else:
                places.append(Place(at, span, part, dim))
            basic += [_ALL] * span
            dim, at = dim + span, at + span
        elif isinstance(part, bool):
            places.append(Place(at, 1, range_like(x, int(part)), None))
            basic.append(None)
            at += 1
        else:
            basic.append(part)
            dim += part is not None
            at += part is None or isinstance(part, slice)
    return tuple(basic), places


def _check_mask(mask: Any, shape: Shape, dim: int) -> None:
    wanted = shape[dim : dim + mask.array.ndim]
    if tuple(mask.array.shape) != wanted:
        raise IndexError(
            f"index: expected a mask {wanted} at dim {dim} of a tensor {shape}, got "
            f"{tuple(mask.array.shape)}"
        )


def _true(mask: Any) -> Any:
    """Where the mask laid flat is True: (count,)."""
    return mask.reshape(-1).nonzero().reshape(-1)


def _along_one_dim(x: Any, basic: tuple[Any, ...], places: list[Place]) -> tuple[Any, Any, int]:
    """A source, an int64 index and a dim at which it holds what the whole index chooses.

    The source shares the memory of ``x``, unless several dims are indexed of one not contiguous.
    """
    shapes = [place.index.array.shape for place in places]
    inner = len(broadcast("index: arrays", *shapes, error=IndexError))
    view = x if basic.count(_ALL) == len(basic) else sliced(x, basic)
    shape = tuple(view.array.shape)
    first, last = places[0].at, places[-1].at + places[-1].span
    if last - first == 1:
        return view, _offsets(x, places, [1] * last), first
    adjacent = sum(place.span for place in places) == last - first
    if adjacent and view.array.flags.c_contiguous:
        merged = view.reshape((*shape[:first], math.prod(shape[first:last]), *shape[last:]))
        return merged, _offsets(x, places, [0] * first + list(_steps(shape[first:last]))), first
    return x.reshape(-1), _flat_index(x, basic, places, shape, first if adjacent else 0, inner), 0


def _flat_index(
    x: Any, basic: tuple[Any, ...], places: list[Place], shape: Shape, before: int, inner: int
) -> Any:
    """The whole index as one into ``x`` laid flat, of the shape of the result.

    ``shape``: the view's, of which the dims that no array indexes are counted through. The
    ``inner`` dims of the arrays come after ``before`` of these.
    """
    start, steps = _layout(tuple(x.array.shape), basic)
    covered = {d for place in places for d in range(place.at, place.at + place.span)}
    rest = [d for d in range(len(shape)) if d not in covered]
    index = _offsets(x, places, steps)
    index = index.reshape((*(1,) * before, *index.array.shape, *(1,) * (len(rest) - before)))
    lines = [
        _counted(x, shape[d], steps[d], i if i < before else i + inner, len(rest) + inner)
        for i, d in enumerate(rest)
        if shape[d] != 1
    ]
    return reduce(operator.add, lines, index + start if start else index)


def _offsets(x: Any, places: list[Place], steps: list[int]) -> Any:
    """Σ index · step of the last dim that it stands for."""
    terms = []
    for at, span, index, dim in places:
        step = steps[at + span - 1]
        if dim is not None:
            index = placed("index", index, x.array.shape[dim], dim, wraps=True, step=step)
        elif step != 1:
            index = index * step
        terms.append(index)
    return reduce(operator.add, terms)


def _layout(shape: Shape, basic: tuple[Any, ...]) -> tuple[Any, list[int]]:
    """Where a basic index of a contiguous tensor begins, and the step along each dim it leaves."""
    start, dim = 0, 0
    steps, own = [], _steps(shape)
    for part in basic:
        if part is None:
            steps.append(0)
            continue
        if isinstance(part, slice):
            begin, _, step = part.indices(shape[dim])
            steps.append(step * own[dim])
        else:
            begin = part % shape[dim]
        start += begin * own[dim]
        dim += 1
    return start, steps


def _steps(shape: Shape) -> Shape:
    """How far apart the neighbours along each dim of a contiguous tensor are, in elements."""
    return tuple(math.prod(shape[d + 1 :]) for d in range(len(shape)))


def _counted(x: Any, size: int, step: int, at: int, ndim: int) -> Any:
    """0, step, 2·step, … along dim ``at`` of ``ndim``."""
    line: Any = range_like(x, size, 0, step)
    return line if at == ndim - 1 else line.reshape((*(1,) * at, size, *(1,) * (ndim - at - 1)))


# ---- writing


def write_at(x: Any, index: Any, value: Any) -> None:
    """x[index] ← ``value``, a number or a tensor of the dtype of ``x``, unrecorded.

    Indices and shapes are checked before anything is written; the caller counts the write.
    """
    if not isinstance(value, Value):
        value = held("x[i] = v", value, x.array.dtype)
    parts = index if isinstance(index, tuple) else (index,)
    if all(type(part) in _BASIC for part in parts):
        return _write_view(x[parts], value)
    found = _parsed(x, parts)
    if any(isinstance(part, Value | bool) for part in found):
        value = value if isinstance(value, Value) else full_like(x, value, ())
        if not _write_masked(x, found, value):
            _write_places(x, *_along_one_dim(x, *_located(x, found)), value)
        return None
    return _write_view(sliced(x, tuple(found)), value)


def _write_view(view: Any, value: Any) -> None:
    if isinstance(value, Value):
        value = _fitting(value, tuple(view.array.shape))
    overwrite(view, value)


def _write_masked(x: Any, parts: list[Any], value: Any) -> bool:
    """Whether the index is one mask and ``value`` fits whatever the mask chooses: then it is done.

    A choice between old and new needs no count of what is chosen, so that no device is waited for.
    """
    arrays = [i for i, part in enumerate(parts) if isinstance(part, Value | bool)]
    mask = parts[arrays[0]]
    if len(arrays) > 1 or isinstance(mask, bool) or mask.array.dtype != BOOL:
        return False
    head, tail = parts[: arrays[0]], parts[arrays[0] + 1 :]
    _check_mask(mask, tuple(x.array.shape), sum(map(_dims, head)))
    view = sliced(x, (*head, *[_ALL] * mask.array.ndim, *tail))
    after = sum(part is None or isinstance(part, slice) for part in tail)
    value = _without_ones(value, view.array.ndim - mask.array.ndim + 1)
    shape = tuple(value.array.shape)
    kept = max(0, len(shape) - after)  # dims of the value up to that of the count
    if kept and shape[kept - 1] != 1:
        return False
    if kept:
        shape = (*shape[: kept - 1], *(1,) * mask.array.ndim, *shape[kept:])
    _check_fit(value, shape, tuple(view.array.shape))
    condition = mask.reshape((*mask.array.shape, *(1,) * after))
    overwrite(view, where(condition, value.reshape(shape), view))
    return True


def _write_places(x: Any, source: Any, index: Any, dim: int, value: Any) -> None:
    shape = tuple(source.array.shape)
    target = (*shape[:dim], *index.array.shape, *shape[dim + 1 :])
    value = _fitting(value, target).expand(target)
    if value.version is x.version:
        value = value.clone()  # a device writes in any order
    put_(_first(source, dim, 1), index, _first(value, dim, index.array.ndim))
    if source.version is not x.version:
        overwrite(x, source.reshape(x.array.shape))


def _first(x: Any, dim: int, count: int) -> Any:
    """With ``count`` dims from ``dim`` on before the others."""
    if not dim:
        return x
    return x.permute((*range(dim, dim + count), *range(dim), *range(dim + count, x.array.ndim)))


def _fitting(value: Any, shape: Shape) -> Any:
    """``value`` without the leading dims of size 1 that ``shape`` lacks; ValueError if unfit."""
    value = _without_ones(value, len(shape))
    _check_fit(value, tuple(value.array.shape), shape)
    return value


def _without_ones(value: Any, ndim: int) -> Any:
    """Without the leading dims of size 1 that make it more than ``ndim``."""
    shape = tuple(value.array.shape)
    while len(shape) > ndim and shape[0] == 1:
        shape = shape[1:]
    return value if len(shape) == value.array.ndim else value.reshape(shape)


def _check_fit(value: Any, lined_up: Shape, shape: Shape) -> None:
    if not broadcasts_to(lined_up, shape):
        raise ValueError(
            f"x[i] = v: shape {tuple(value.array.shape)} does not broadcast to {shape}"
        )


# ---- along one dim


def _along(name: str, x: Any, dim: int, index: Any) -> Any:
    """The places in ``x`` laid flat that ``index`` names along ``dim``, of its shape.

    ValueError where it is larger than ``x`` in another dim; 0-d tensors count as of one element.
    """
    places = integers(name, index)
    shape, wanted = tuple(x.array.shape) or (1,), tuple(places.array.shape) or (1,)
    at = checked_dim(name, dim, len(shape))
    if len(wanted) != len(shape) or any(
        w > s for d, (w, s) in enumerate(zip(wanted, shape, strict=True)) if d != at
    ):
        raise ValueError(
            f"{name}: expected an index of {len(shape)} dims, no larger than {shape} outside dim "
            f"{at}, got {tuple(places.array.shape)}"
        )
    return _flat(name, x, at, places, wanted)


def _flat(name: str, x: Any, dim: int, index: Any, sizes: Shape, wraps: bool = False) -> Any:
    """Places in ``x`` laid flat: ``index`` along ``dim``, counting up to ``sizes`` elsewhere."""
    shape = tuple(x.array.shape) or (1,)
    steps = _steps(shape)
    lines = [
        _counted(x, size, steps[d], d, len(sizes))
        for d, size in enumerate(sizes)
        if d != dim and size != 1 and shape[d] != 1
    ]
    places = placed(name, index, shape[dim], dim, wraps, steps[dim])
    return places + reduce(operator.add, lines) if lines else places


def _source(name: str, x: Any, src: Any, index: Any) -> Any:
    """As much of ``src`` as ``index`` takes. ValueError where that is more than there is."""
    fit(name, "x (…), src (…)", x, src)
    shape, wanted = tuple(src.array.shape) or (1,), tuple(index.array.shape) or (1,)
    if len(wanted) != len(shape) or any(w > s for w, s in zip(wanted, shape, strict=True)):
        raise ValueError(
            f"{name}: expected src of as many dims as the index {wanted}, no smaller, got {shape}"
        )
    src = src.reshape(shape)
    return src if shape == wanted else sliced(src, tuple(slice(size) for size in wanted))
