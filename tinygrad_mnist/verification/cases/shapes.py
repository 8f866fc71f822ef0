"""Rows of ``ops.shapes``, of basic indexing, and of what is composed of them."""

from __future__ import annotations

from typing import Any

import numpy as np

from tinygrad_mnist.composed.arrangements import pad, split, stack
from tinygrad_mnist.ops import shapes
from tinygrad_mnist.tensor import Tensor
from tinygrad_mnist.verification.cases.draws import (
    Case,
    Rng,
    Row,
    Shape,
    _parts,
    case,
    coin,
    contiguous_only,
    gaps,
    normal,
    one,
    shaped,
    spread,
    turned,
    whole,
)

INDICES: list[tuple[Shape, Any]] = [
    ((5,), 2),
    ((5,), -1),
    ((3, 4), (slice(None), -2)),
    ((3, 4), (slice(0, 0),)),
    ((3, 4), (None, 1, slice(None, None, 2))),
    ((2, 3, 4), (..., 1)),
    ((2, 3, 4), (1, ..., slice(1, 3), None)),
    ((), (None,)),
    ((0, 3), (slice(None), 1)),
    ((3, 4), ()),
]


def indexed(rng: Rng) -> list[Case]:
    cases = [case(normal(rng, shape), index=index) for shape, index in INDICES]
    return [*cases, case(gaps(normal(rng, (3, 4))), index=(slice(1, None), 0))]


def index_gradients(rng: Rng) -> list[Case]:
    """The gradient of getitem's result."""
    cases = [
        case(normal(rng, np.zeros(shape)[index].shape), index=_parts(index), shape=shape)
        for shape, index in INDICES
    ]
    return [
        *cases,
        case(gaps(normal(rng, (2, 3))), index=(slice(1, None), ..., 0), shape=(3, 3, 2)),
    ]


def flatten_of(x: np.ndarray, args: tuple[int, int]) -> np.ndarray:
    start, end = (a % max(1, x.ndim) for a in args)
    middle = int(np.prod(x.shape[start : end + 1]))
    return x.reshape(*x.shape[:start], middle, *x.shape[end + 1 :])


def reshape_of(x: np.ndarray, args: Shape) -> np.ndarray:
    return np.reshape(x, args)


def permute_of(x: np.ndarray, args: Shape) -> np.ndarray:
    return np.transpose(x, args)


def squeeze_of(x: np.ndarray, args: Any) -> np.ndarray:
    dims = args[0] if args and isinstance(args[0], tuple) else args
    return np.squeeze(x, tuple(d for d in dims if x.shape[d] == 1) if args else None)


def getitem_grad_of(dY: np.ndarray, index: Any, shape: Shape) -> np.ndarray:
    dX = np.zeros(shape)
    dX[index] = dY
    return dX


RESHAPES = shaped(
    ((), (1, 1)),
    ((0, 3), (3, 0, 2)),
    ((1, 1), ()),
    ((3, 4), (-1,)),
    ((3, 4), (2, 6)),
    ((2, 3, 4), (4, -1, 2)),
)


def views(rng: Rng) -> list[Case]:
    """Contiguous arrays, and others of which no dim of the result takes a copy."""
    return [
        *contiguous_only(RESHAPES)(rng),
        case(gaps(normal(rng, (4, 3))), args=(2, 6)),
        case(turned(normal(rng, (2, 4, 3))), args=(2, 2, 1, 2, 3)),
        case(normal(rng, (4, 3)).T, args=(3, 2, 2)),
    ]


FLATTENS = shaped(
    ((), (0, -1)),
    ((0, 3), (0, -1)),
    ((5,), (0, 0)),
    ((3, 4), (0, 1)),
    ((2, 3, 4), (1, -1)),
    ((2, 3, 4), (-3, -2)),
)


PERMUTES = shaped(
    ((), ()),
    ((0, 3), (1, 0)),
    ((4,), (0,)),
    ((3, 4), (-1, 0)),
    ((2, 3, 4), (2, 0, 1)),
    ((2, 3, 4), (0, 2, 1)),
)


SWAPS = shaped(
    ((4,), (0, -1)),
    ((0, 3), (0, 1)),
    ((3, 4), (-1, -2)),
    ((3, 4), (1, 1)),
    ((2, 3, 4), (0, 2)),
    ((2, 3, 4), (-1, 1)),
)


EXPANSIONS = shaped(
    ((), ((2, 3),)),
    ((), ((1,),)),
    ((1,), ((1,),)),
    ((1, 3), ((0, 3),)),
    ((3, 4), ((3, 4),)),
    ((3, 1), ((2, 3, 4),)),
    ((1, 4), ((3, 4),)),
)


SQUEEZES = shaped(
    ((), ()),
    ((1,), (0,)),
    ((0, 1), (-1,)),
    ((3, 4), (0,)),
    ((1, 3, 1), ()),
    ((1, 3, 1), ((0, -1),)),
    ((1, 3, 1), ((0, 1),)),
    ((1, 3, 1), ((),)),
    ((1, 3, 1), (-1,)),
    ((2, 1, 3, 1), (1,)),
)


PLACES = shaped(
    ((), (0,)),
    ((0, 3), (1,)),
    ((5,), (-1,)),
    ((5,), (-2,)),
    ((3, 4), (1,)),
    ((3, 4), (2,)),
)


# ---- put together


def cat_of(*arrays: np.ndarray, dim: int) -> np.ndarray:
    parts = [x for x in arrays if x.shape != (0,)] or list(arrays)
    dtype = np.result_type(*(x.dtype for x in arrays))
    return np.concatenate(parts, dim).astype(dtype)


def stack_of(*arrays: np.ndarray, dim: int) -> np.ndarray:
    return np.stack(arrays, dim)


CATS: list[tuple[list[Shape], int]] = [
    ([(3,)], 0),
    ([(0,), (2,), (1,)], -1),
    ([(3, 4), (3, 2)], 1),
    ([(3, 4), (1, 4), (0, 4), (2, 4)], -2),
    ([(2, 3, 4), (2, 1, 4)], 1),
    ([(0, 3), (0, 2)], 1),
    ([(0,), (2, 3), (0,), (2, 1)], 1),
]


def pieces(rng: Rng) -> list[Case]:
    """One to four arrays that differ along ``dim``, those of shape (0,) among them."""
    cases = [case(*(normal(rng, s) for s in shapes), dim=dim) for shapes, dim in CATS]
    cases.append(case(gaps(normal(rng, (3, 4))), turned(normal(rng, (2, 4))), dim=0))
    cases.append(case(np.broadcast_to(normal(rng, (3, 1)), (3, 2)), normal(rng, (3, 1)), dim=-1))
    cases.append(case(whole(9)(rng, (3, 2)), normal(rng, (3, 4)), dim=1))
    return [*cases, case(normal(rng, (2, 3)), coin(rng, (1, 3)), whole(9)(rng, (2, 3)), dim=0)]


def integers(rng: Rng) -> list[Case]:
    """Integers and booleans of several dtypes, which meet in one that holds them all."""
    dtypes = [
        (np.int64, np.bool_),
        (np.int8, np.uint8),
        (np.uint8, np.bool_),
        (np.int16, np.int16, np.int32),
        (np.bool_, np.bool_),
        (np.uint8, np.uint8),
    ]
    cases = [case(*(whole(2, d)(rng, (2, 3)) for d in found), dim=-1) for found in dtypes]
    return [*cases, case(turned(whole(9)(rng, (2, 3))), coin(rng, (2, 3)), dim=0)]


STACKS: list[tuple[int, Shape, int]] = [
    (3, (), 0),
    (2, (), -1),
    (1, (4,), 1),
    (2, (0, 3), -1),
    (3, (0,), 0),
    (4, (3, 4), -2),
    (2, (2, 3, 4), 1),
]


def alike_pieces(rng: Rng) -> list[Case]:
    """One to four arrays of one shape."""
    cases = [case(*(normal(rng, s) for _ in range(n)), dim=dim) for n, s, dim in STACKS]
    cases.append(case(gaps(normal(rng, (3, 4))), turned(normal(rng, (3, 4))), dim=2))
    return [*cases, case(whole(9)(rng, (3, 4)), normal(rng, (3, 4)), dim=0)]


# ---- taken apart


def split_of(x: np.ndarray, args: tuple[Any, int]) -> tuple[np.ndarray, ...]:
    size, dim = args
    if isinstance(size, int):
        ends = list(range(size, x.shape[dim], size)) if size else []
    else:
        ends = np.cumsum(size)[:-1].tolist()
    return tuple(np.split(x, ends, dim))


def chunk_of(x: np.ndarray, args: tuple[int, int]) -> tuple[np.ndarray, ...]:
    chunks, dim = args
    each = -(-x.shape[dim] // chunks)
    return split_of(x, (each, dim)) if each else (x,) * chunks


def unbind_of(x: np.ndarray, args: tuple[int]) -> tuple[np.ndarray, ...]:
    return tuple(np.moveaxis(x, args[0], 0))


def narrow_of(x: np.ndarray, args: tuple[int, int, int]) -> np.ndarray:
    dim, start, length = args
    return np.take(x, range(start % (x.shape[dim] + 1) - (start < 0), 99)[:length], dim)


SPLITS = shaped(
    ((5,), (2, 0)),
    ((0, 3), (2, 0)),
    ((0, 3), (0, 0)),
    ((3, 4), (10, -1)),
    ((3, 4), ((1, 0, 3), 1)),
    ((3, 4), ([3], -2)),
    ((2, 3, 5), (2, 2)),
    ((2, 3, 4), ((1, 2), 1)),
)


CHUNKS = shaped(
    ((5,), (4, 0)),
    ((5,), (7, 0)),
    ((0, 3), (2, 0)),
    ((3, 4), (1, -1)),
    ((6, 4), (4, -2)),
    ((2, 3, 5), (2, 2)),
)


UNBOUND = shaped(
    ((5,), (0,)),
    ((1,), (-1,)),
    ((3, 0), (0,)),
    ((3, 4), (-1,)),
    ((2, 3, 4), (0,)),
    ((2, 3, 4), (1,)),
)


STARTS = shaped(
    ((5,), (0, 1, 3)),
    ((5,), (-1, 0, 5)),
    ((0, 3), (0, 0, 0)),
    ((3, 4), (0, 3, 0)),
    ((3, 4), (1, -2, 2)),
    ((2, 3, 4), (-2, 1, 2)),
)


SELECTED = shaped(
    ((5,), (0, 2)),
    ((5,), (-1, -5)),
    ((0, 3), (1, 2)),
    ((3, 4), (0, -1)),
    ((3, 4), (1, 0)),
    ((2, 3, 4), (-2, 1)),
)


# ---- in another order, in another shape


def moved_of(x: np.ndarray, args: tuple[Any, Any]) -> np.ndarray:
    return np.moveaxis(x, *args) if x.ndim else x


MOVES = shaped(
    ((), (0, -1)),
    ((), ((), ())),
    ((4,), (0, 0)),
    ((0, 3), (0, 1)),
    ((3, 4), (-1, 0)),
    ((2, 3, 4), ((0, 1), (-1, 0))),
    ((2, 3, 4), ([2], [0])),
    ((1, 2, 3, 4), (1, -1)),
)


def unflatten_of(x: np.ndarray, args: tuple[int, Any]) -> np.ndarray:
    dim, sizes = args
    return x.reshape(*x.shape[:dim], *sizes, *x.shape[dim:][1:])


UNFLATTENED = shaped(
    ((6,), (0, (2, 3))),
    ((0, 3), (0, (0, 2))),
    ((3, 4), (0, (-1,))),
    ((3, 4), (1, (2, -1))),
    ((3, 4), (0, (1, 3, 1))),
    ((2, 6, 4), (1, [3, -1])),
)


MATRICES = shaped(((), ()), ((4,), ()), ((0, 3), ()), ((1, 3), ()), ((3, 1), ()), ((3, 4), ()))


STACKED = shaped(*(((*batch, 3, 4), ()) for batch in [(), (0,), (1,), (2,), (2, 3), (1, 2)]))


def as_another(*shapes: tuple[Shape, Shape], copies: bool = True) -> Any:
    """An array and one whose shape it takes, also strided; ``copies``: and where that is a copy."""

    def draw(rng: Rng) -> list[Case]:
        cases = [case(normal(rng, a), normal(rng, b)) for a, b in shapes]
        (a, b), (c, d) = shapes[-2:]
        cases.append(case(gaps(normal(rng, a)), turned(normal(rng, b))))
        return [*cases, case(turned(normal(rng, c)), normal(rng, d))] if copies else cases

    return draw


OTHERS = [
    ((), (1, 1)),
    ((0, 3), (3, 0, 2)),
    ((1, 1), ()),
    ((3, 4), (12,)),
    ((3, 4), (2, 6)),
    ((2, 3, 4), (4, 3, 2)),
]


LARGER = [
    ((), (2, 3)),
    ((1,), (1,)),
    ((1, 3), (0, 3)),
    ((3, 4), (3, 4)),
    ((3, 1), (2, 3, 4)),
    ((1, 4), (3, 4)),
]


def repeated_of(x: np.ndarray, args: Any) -> np.ndarray:
    return np.tile(x, args[0] if isinstance(args[0], tuple) else args)


REPEATS = shaped(
    ((), ((),)),
    ((), (2, 3)),
    ((0, 3), (2, 1)),
    ((3, 4), (0, 2)),
    ((3,), (1,)),
    ((3, 4), (2, 3)),
    ((2, 3, 1), ((2, 1, 1, 3),)),
)


# ---- moved, or in part zero


def flip_of(x: np.ndarray, args: Any) -> np.ndarray:
    dims = args[0] if isinstance(args[0], tuple) else args
    return np.flip(x, dims) if x.ndim else x


FLIPS = shaped(
    ((), (0,)),
    ((5,), (-1,)),
    ((0, 3), (0,)),
    ((3, 4), ((),)),
    ((3, 4), ((0, -1),)),
    ((2, 3, 4), (1,)),
    ((2, 3, 4), (0, 2)),
)


ROLLS = shaped(
    ((), (1,)),
    ((5,), (2,)),
    ((0, 3), (1, 0)),
    ((3, 4), (-5,)),
    ((3, 4), (1, -1)),
    ((3, 4), (-3, 0)),
    ((3, 4), ((1, 2), (0, 0))),
    ((2, 3, 4), ((-1, 2), (2, -2))),
)


TRIANGLES = shaped(
    ((3, 3), ()),
    ((0, 3), (1,)),
    ((3, 0), ()),
    ((3, 4), (-1,)),
    ((4, 3), (2,)),
    ((3, 4), (-9,)),
    ((1, 1), (1,)),
    ((2, 3, 4), (1,)),
)


def triangles_of_integers(rng: Rng) -> list[Case]:
    """Of each dtype the 0 is its own."""
    fills = [whole(9), whole(9, np.uint8), whole(9, np.int16), coin]
    cases = [case(fill(rng, (3, 4)), args=(1,)) for fill in fills]
    cases.append(case(turned(coin(rng, (2, 3, 4))), args=()))
    return [*cases, case(gaps(whole(9)(rng, (3, 3))), args=(-1,))]


# ---- padding


def pad_of(x: np.ndarray, pad: Any, mode: str = "constant", value: Any = None) -> np.ndarray:
    pairs = [(0, 0)] * (x.ndim - len(pad) // 2)
    pairs += list(zip(pad[::2], pad[1::2], strict=True))[::-1]
    if not pairs:
        return x.copy()
    wide = [(max(b, 0), max(a, 0)) for b, a in pairs]
    if mode == "constant":
        made = np.pad(x, wide, constant_values=value or 0)
    else:
        made = np.pad(x, wide, mode="reflect" if mode == "reflect" else "edge")
    ends = zip(made.shape, pairs, strict=True)
    return made[tuple(slice(max(-b, 0), n - max(-a, 0)) for n, (b, a) in ends)]


def pads(fill: Any, *calls: tuple[Shape, Any], **static: Any) -> Any:
    """An array and its margins; the last two also strided."""

    def draw(rng: Rng) -> list[Case]:
        cases = [case(fill(rng, shape), pad=margins, **static) for shape, margins in calls]
        (a, first), (b, second) = calls[-2:]
        cases.append(case(gaps(fill(rng, a)), pad=first, **static))
        return [*cases, case(turned(fill(rng, b)), pad=second, **static)]

    return draw


MARGINS: list[tuple[Shape, Any]] = [
    ((), ()),
    ((4,), (0, 0)),
    ((4,), [2, 0]),
    ((0, 3), (1, 1)),
    ((0, 3), (0, 1, 2, 0)),
    ((3, 4), (-1, 2)),
    ((3, 4), (-1, -2, 0, -1)),
    ((3, 4), (1, 2, 0, 3)),
    ((2, 3, 4), (1, 0, -1, 2, 1, 1)),
]


EDGES: list[tuple[Shape, Any]] = [
    ((4,), (3, 1)),
    ((4,), (0, 2)),
    ((0, 3), (1, 2)),
    ((2, 4), (0, 0)),
    ((3, 4), (-1, 2)),
    ((3, 4), (2, -3, -1, 0)),
    ((3, 4), (1, 2, 2, 0)),
    ((2, 3, 4), (1, 3, 2, 1, 1, 0)),
]


ROWS = [
    # views and copies
    Row("reshape", spread(Tensor.reshape), ("reshape",), RESHAPES, reshape_of, aliases=True),
    Row("view", spread(Tensor.view), ("reshape",), views, reshape_of, aliases=True),
    Row("flatten", spread(Tensor.flatten), ("reshape",), FLATTENS, flatten_of, aliases=True),
    Row("permute", spread(Tensor.permute), ("permute",), PERMUTES, permute_of, aliases=True),
    Row(
        "transpose",
        spread(Tensor.transpose),
        ("permute",),
        SWAPS,
        spread(np.swapaxes),
        aliases=True,
    ),
    Row(
        "expand",
        spread(Tensor.expand),
        ("expand",),
        EXPANSIONS,
        spread(np.broadcast_to),
        aliases=True,
    ),
    Row("squeeze", spread(Tensor.squeeze), ("reshape",), SQUEEZES, squeeze_of, aliases=True),
    Row(
        "unsqueeze",
        spread(Tensor.unsqueeze),
        ("reshape",),
        PLACES,
        spread(np.expand_dims),
        aliases=True,
    ),
    Row(
        "getitem",
        Tensor.__getitem__,
        ("getitem",),
        indexed,
        lambda x, index: x[index],
        aliases=True,
    ),
    Row(
        "getitem_grad",
        lambda dY, *, index, shape: shapes.sliced_grad(dY, index, shape),
        ("getitem_grad",),
        index_gradients,
        getitem_grad_of,
    ),
    Row(
        "unflatten",
        spread(Tensor.unflatten),
        ("reshape",),
        UNFLATTENED,
        unflatten_of,
        aliases=True,
    ),
    Row(
        "view_as",
        Tensor.view_as,
        ("reshape",),
        as_another(*OTHERS, copies=False),
        lambda x, other: x.reshape(other.shape),
        differentiable=(0,),
        aliases=True,
    ),
    Row(
        "reshape_as",
        Tensor.reshape_as,
        ("reshape",),
        as_another(*OTHERS),
        lambda x, other: x.reshape(other.shape),
        differentiable=(0,),
        aliases=True,
    ),
    Row(
        "expand_as",
        Tensor.expand_as,
        ("expand",),
        as_another(*LARGER),
        lambda x, other: np.broadcast_to(x, other.shape),
        differentiable=(0,),
        aliases=True,
    ),
    Row(
        "broadcast_to",
        spread(Tensor.broadcast_to),
        ("expand",),
        EXPANSIONS,
        spread(np.broadcast_to),
        aliases=True,
    ),
    Row("movedim", spread(Tensor.movedim), ("permute",), MOVES, moved_of, aliases=True),
    Row("t", spread(Tensor.t), ("permute",), MATRICES, lambda x, args: x.T, aliases=True),
    Row("T", lambda x, args: x.T, ("permute",), MATRICES, lambda x, args: x.T, aliases=True),
    Row(
        "mT",
        lambda x, args: x.mT,
        ("permute",),
        STACKED,
        lambda x, args: np.swapaxes(x, -1, -2),
        aliases=True,
    ),
    Row("split", spread(split), ("split",), SPLITS, split_of, aliases=True),
    Row("chunk", spread(Tensor.chunk), ("split",), CHUNKS, chunk_of, aliases=True),
    Row("unbind", spread(Tensor.unbind), ("split", "reshape"), UNBOUND, unbind_of, aliases=True),
    Row("narrow", spread(Tensor.narrow), ("getitem",), STARTS, narrow_of, aliases=True),
    Row(
        "select",
        spread(Tensor.select),
        ("getitem",),
        SELECTED,
        lambda x, args: np.take(x, args[1], args[0]),
        aliases=True,
    ),
    Row("cat", lambda *xs, dim: shapes.cat(xs, dim), ("concat",), pieces, cat_of),
    Row(
        "cat:int",
        lambda *xs, dim: shapes.cat(xs, dim),
        ("concat",),
        integers,
        cat_of,
        differentiable=(),
    ),
    Row("stack", lambda *xs, dim: stack(xs, dim), ("concat",), alike_pieces, stack_of),
    Row("repeat", spread(Tensor.repeat), ("expand", "copy"), REPEATS, repeated_of),
    Row("flip", spread(Tensor.flip), ("getitem", "copy"), FLIPS, flip_of),
    Row("roll", spread(Tensor.roll), ("split", "concat"), ROLLS, spread(np.roll)),
    Row("tril", spread(Tensor.tril), ("arange", "where"), TRIANGLES, spread(np.tril)),
    Row("triu", spread(Tensor.triu), ("arange", "where"), TRIANGLES, spread(np.triu)),
    Row(
        "tril:int",
        spread(Tensor.tril),
        ("where",),
        triangles_of_integers,
        spread(np.tril),
        differentiable=(),
    ),
    Row("pad", pad, ("getitem_grad",), pads(normal, *MARGINS), pad_of),
    Row("pad:value", pad, ("concat",), pads(normal, *MARGINS, value=-1.5), pad_of),
    Row(
        "pad:int",
        pad,
        ("getitem_grad",),
        pads(whole(9), *MARGINS, value=0),
        pad_of,
        differentiable=(),
    ),
    Row("pad:reflect", pad, ("concat",), pads(normal, *EDGES, mode="reflect"), pad_of),
    Row("pad:replicate", pad, ("concat",), pads(normal, *EDGES, mode="replicate"), pad_of),
    Row("clone", Tensor.clone, ("copy",), one(normal), np.copy),
    Row("contiguous", Tensor.contiguous, (), one(normal), np.copy, aliases=True),
]
