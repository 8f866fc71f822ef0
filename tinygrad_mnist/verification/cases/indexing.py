"""Rows of ``ops.indexing``, of indexing with arrays, and of what is composed of them."""

from __future__ import annotations

from typing import Any

import numpy as np

from tinygrad_mnist.autograd.graph import no_grad
from tinygrad_mnist.nn import functional as F
from tinygrad_mnist.ops import indexing
from tinygrad_mnist.tensor import Tensor
from tinygrad_mnist.verification.cases.draws import (
    COARSE,
    Case,
    Draw,
    Fill,
    Rng,
    Row,
    Shape,
    case,
    coin,
    gaps,
    normal,
    one,
    turned,
    whole,
)

Index = tuple[Any, ...]

# ---- x[index]: the letters stand for the inputs after x

INTEGERS: list[tuple[Shape, Index, tuple[Any, ...]]] = [
    ((5,), np.s_["a",], ([3, 0, -1, 3],)),
    ((5,), np.s_["a",], ([[0, 4], [-5, 4]],)),
    ((3, 4), np.s_["a",], ([],)),
    ((0, 3), np.s_["a",], ([],)),
    ((3, 4), np.s_[:, "a"], ([2, 2, -4],)),
    ((3, 4), np.s_["a", "b"], ([0, 2, 2], [-1, 1, 1])),
    ((3, 4), np.s_["a", "b"], ([[0], [2]], [1, 1, 3])),
    ((3, 4), np.s_["a", 1:], ([2, -2],)),
    ((3, 4), np.s_[None, "a", None], ([2, -2],)),
    ((2, 3, 4), np.s_[0, :, "a"], ([1, 1],)),
    ((2, 3, 4), np.s_["a", 1, "b"], ([0, 1, 1], [3, 0, 0])),
    ((2, 3, 4), np.s_["a", :, "b"], ([0, 1, 1], [3, 0, 0])),
    ((2, 3, 4), np.s_["a", ::2, "b"], ([[0], [1]], [3, 0])),
    ((2, 3, 4), np.s_["a", None, "b"], ([1, -1], [2, 0])),
    ((2, 3, 4), np.s_[:, "a", "b"], ([0, 1, 1], [3, 0, 0])),
    ((2, 3, 4), np.s_[1:, "a", "b"], ([0, 1, 1], [3, 0, 0])),
    ((2, 3, 4), np.s_["a", 2, "b", None], ([[1]], [[3, 0]])),
    ((2, 1, 3, 2), np.s_["a", :, 1:, "b"], ([0, 1, 1], [1, 0, 0])),
    ((3, 2, 4), np.s_["a", "b", "c"], ([0, 2], [1, 1], [-1, 2])),
]


def indexed(rng: Rng) -> list[Case]:
    cases = [
        case(normal(rng, shape), *(np.array(a, np.int64) for a in arrays), index=index)
        for shape, index, arrays in INTEGERS
    ]
    cases += [layout(c, f) for c, f in zip(cases[4:], [gaps, turned] * 8, strict=False)]
    large = whole(1000)(rng, (5000,))
    return [*cases, case(normal(rng, (1000, 8)), large, index=np.s_["a",], smooth=False)]


def layout(found: Case, to: Any) -> Case:
    """The same case with the arrays laid out otherwise."""
    return Case(tuple(map(to, found.inputs)), found.static, found.smooth)


MASKS: list[tuple[Shape, Index, tuple[Shape, ...]]] = [
    ((5,), np.s_["a",], ((5,),)),
    ((0, 3), np.s_["a",], ((0,),)),
    ((3, 4), np.s_["a",], ((3,),)),
    ((3, 4), np.s_["a",], ((3, 4),)),
    ((3, 4), np.s_[:, "a"], ((4,),)),
    ((3, 4), np.s_[1:, "a"], ((4,),)),
    ((3, 4), np.s_[None, 2, "a"], ((4,),)),
    ((2, 3, 4), np.s_["a", 1], ((2, 3),)),
    ((2, 3, 4), np.s_["a", None, ::2], ((2, 3),)),
    ((2, 3, 4), np.s_[:, "a"], ((3, 4),)),
    ((2, 3, 4), np.s_[1, "a"], ((3, 4),)),
]


def masked(rng: Rng) -> list[Case]:
    cases = [
        case(normal(rng, shape), *(coin(rng, s) for s in masks), index=index)
        for shape, index, masks in MASKS
    ]
    cases += [layout(c, f) for c, f in zip(cases[2:], [gaps, turned] * 4, strict=False)]
    none = np.zeros(4, np.bool_)
    return [*cases, case(normal(rng, (4, 3)), none, index=np.s_["a",])]


def mixed(rng: Rng) -> list[Case]:
    """A mask with two places, and integers."""
    mask, pair = np.array([True, False, True]), np.array([3, -4])
    grid = np.array([[True, False], [False, False], [False, True]])
    return [
        case(normal(rng, (3, 4)), mask, pair, index=np.s_["a", "b"]),
        case(normal(rng, (4, 3)), pair, mask, index=np.s_["a", "b"]),
        case(normal(rng, (3, 2, 4)), mask, pair, index=np.s_["a", 1, "b"]),
        case(normal(rng, (3, 2, 4)), mask, pair, index=np.s_["a", :, "b"]),
        case(normal(rng, (3, 2, 4)), grid, pair, index=np.s_["a", "b"]),
        case(gaps(normal(rng, (3, 2, 4))), grid, pair, index=np.s_["a", "b"]),
        case(turned(normal(rng, (2, 3, 4))), mask, pair, index=np.s_[1:, "a", "b"]),
    ]


def filled(index: Index, arrays: tuple[Any, ...]) -> Index:
    return tuple(arrays["abc".index(p)] if isinstance(p, str) else p for p in index)


def getitem(x: Tensor, *arrays: Tensor, index: Index) -> Tensor:
    return x[filled(index, arrays)]


def getitem_of(x: np.ndarray, *arrays: np.ndarray, index: Index) -> np.ndarray:
    return np.asarray(x.reshape(-1)[numbers_of(x.shape, arrays, index)])


def numbers_of(shape: Shape, arrays: tuple[np.ndarray, ...], index: Index) -> np.ndarray:
    """Which elements of a flat array are chosen: of a view first, whose dims the arrays index."""
    first: list[Any] = []
    second: list[Any] = []
    for part in filled(index, arrays):
        if isinstance(part, np.ndarray):
            first += [slice(None)] * (part.ndim if part.dtype == np.bool_ else 1)
            second.append(part)
        else:
            first.append(part)
            second += [] if isinstance(part, int) else [slice(None)]
    return np.asarray(np.arange(np.prod(shape)).reshape(shape)[tuple(first)][tuple(second)], int)


WRITES: list[tuple[Shape, Index, tuple[Any, ...], Shape]] = [
    ((5,), np.s_["a",], ([3, 0, -1],), ()),
    ((5,), np.s_["a",], ([[3, 0], [-1, 2]],), (2,)),
    ((0, 3), np.s_["a",], ([],), (3,)),
    ((3, 4), np.s_[:, "a"], ([2, -4],), (3, 1)),
    ((3, 4), np.s_[:, "a"], ([2, -4],), (1, 1, 3, 2)),
    ((3, 4), np.s_["a", "b"], ([0, 2, 2], [-1, 1, 2]), (3,)),
    ((2, 3, 4), np.s_[0, :, "a"], ([1, 3],), (3, 2)),
    ((2, 3, 4), np.s_["a", 1, "b"], ([0, 1, 1], [3, 0, 1]), (3,)),
    ((2, 3, 4), np.s_["a", :, "b"], ([0, 1, 1], [3, 0, 1]), (3, 3)),
    ((2, 3, 4), np.s_["a", ::2, "b"], ([[0], [1]], [3, 0]), (2, 1, 2)),
    ((2, 3, 4), np.s_[1:, "a", "b"], ([0, 1, 1], [3, 0, 1]), (1, 3)),
    ((3, 4), np.s_["a",], ([True, False, True],), ()),
    ((3, 4), np.s_["a",], ([True, False, True],), (2, 4)),
    ((3, 4), np.s_["a",], ([True, False, True],), (1, 4)),
    ((4, 3), np.s_[:, "a"], ([True, False, True],), (4, 1)),
    ((2, 3, 4), np.s_["a", 1:], ([[True, False, True], [False, True, False]],), (1, 3)),
    ((2, 3, 4), np.s_["a", None], ([[True, False, True], [False, True, False]],), (4,)),
    ((2, 3), np.s_["a",], ([[True, False, True], [False, True, False]],), (3,)),
    ((2, 3), np.s_["a", "b"], ([True, False], [0, 1]), (2,)),
    ((3, 4), np.s_[1:, ::2], (), (2,)),
    ((3, 4), np.s_[1,], (), ()),
]


def written(rng: Rng) -> list[Case]:
    """x, the value and the arrays of the index."""
    cases = []
    for shape, index, arrays, value in WRITES:
        kinds = [np.bool_ if np.array(a).dtype == np.bool_ else np.int64 for a in arrays]
        given: list[Any] = [np.array(a, kind) for a, kind in zip(arrays, kinds, strict=True)]
        inputs = (normal(rng, shape), normal(rng, value), *given)
        cases.append(case(*inputs, index=index))
    return [*cases, *(layout(c, turned) for c in cases[3:]), *(layout(c, gaps) for c in cases)]


def setitem(x: Tensor, value: Tensor, *arrays: Tensor, index: Index) -> Tensor:
    """A copy, with gaps where ``x`` has some, written at the index."""
    with no_grad():
        y = x.clone()
        if not x.is_contiguous():
            y = x.unsqueeze(-1).expand(*x.shape, 2).clone()[..., 0]
        y[filled(index, arrays)] = value
    return y


def setitem_of(x: np.ndarray, value: np.ndarray, *arrays: np.ndarray, index: Index) -> np.ndarray:
    y = x.copy(order="C")
    numbers = numbers_of(x.shape, arrays, index)
    while value.ndim > numbers.ndim:
        value = value[0]
    y.reshape(-1)[numbers] = value
    return y


# ---- along one dim

ALONG: list[tuple[Shape, Shape, int]] = [
    ((), (), 0),
    ((), (3,), -1),
    ((4,), (6,), 0),
    ((4,), (), 0),
    ((0, 3), (0, 2), 1),
    ((3, 0), (2, 0), 0),
    ((3, 4), (3, 2), -1),
    ((3, 4), (2, 3), 1),
    ((3, 4), (5, 4), 0),
    ((2, 3, 4), (2, 5, 3), 1),
    ((2, 3, 4), (1, 3, 2), -1),
    ((2, 1, 4), (3, 1, 4), -3),
]


def along(rng: Rng) -> list[Case]:
    """x, and indices of places along a dim, some of them repeated."""
    return laid_out(
        case(normal(rng, shape), whole((*shape, 1)[dim] if shape else 1)(rng, index), dim=dim)
        for shape, index, dim in ALONG
    )


def along_once(rng: Rng) -> list[Case]:
    """The same with no place named twice: which of two comes last is anyone's guess."""
    cases = []
    for shape, index, dim in ALONG:
        size = shape[dim] if shape else 1
        wide = [*index]
        if wide:
            wide[dim] = size
        order = np.argsort(rng.random(wide), axis=dim) if wide else np.zeros((), np.int64)
        kept = tuple(slice(n) for n in index)
        cases.append(case(normal(rng, shape), np.array(order[kept]), dim=dim))
    return laid_out(cases)


def laid_out(cases: Any) -> list[Case]:
    cases = list(cases)
    more = [layout(c, to) for c, to in zip(cases[6:], [gaps, turned] * 3, strict=True)]
    return [*cases, *more]


def with_source(draw: Draw) -> Draw:
    """x, the index and a source, which may be larger than the index."""

    def drawn(rng: Rng) -> list[Case]:
        cases = []
        for i, c in enumerate(draw(rng)):
            x, index = c.inputs
            source = normal(rng, tuple(n + i % 2 for n in index.shape))
            cases.append(case(x, index, gaps(source) if i % 3 == 1 else source, **c.static))
        return cases

    return drawn


def gather_of(x: np.ndarray, index: np.ndarray, dim: int) -> np.ndarray:
    x, y = np.atleast_1d(x), np.zeros(index.shape)
    for place, source in pairs(index, dim):
        y[place] = x[source]
    return y


def scatter_of(x: np.ndarray, index: np.ndarray, src: Any, dim: int) -> np.ndarray:
    y = np.atleast_1d(x).copy()
    for place, target in pairs(index, dim):
        y[target] = src[place] if isinstance(src, np.ndarray) else src
    return y.reshape(x.shape)


def scatter_add_of(x: np.ndarray, index: np.ndarray, src: np.ndarray, dim: int) -> np.ndarray:
    y = np.atleast_1d(x).copy()
    for place, target in pairs(index, dim):
        y[target] += src[place]
    return y.reshape(x.shape)


def pairs(index: np.ndarray, dim: int) -> list[tuple[Index, Index]]:
    """Each place of the index, and the place in the other array that it names."""
    found = []
    for place in np.ndindex(index.shape):
        named = list(place) or [0]
        named[dim] = int(index[place])
        found.append((place, tuple(named)))
    return found


BESIDE: list[tuple[Shape, Shape, int | None]] = [
    ((4,), (6,), 0),
    ((3, 4), (2,), None),
    ((0, 3), (1, 2), 1),
    ((3, 4), (1, 2), -1),
    ((1, 4), (3, 2), 1),
    ((2, 3, 4), (1, 5, 4), 1),
    ((2, 1, 4), (1, 3, 2), -1),
]


def beside(rng: Rng) -> list[Case]:
    """x and indices, broadcast against each other outside the dim; some count from the end."""
    cases = []
    for shape, index, dim in BESIDE:
        size = int(np.prod(shape)) if dim is None else shape[dim]
        places = rng.integers(-size, size, index)
        cases.append(case(normal(rng, shape), places, dim=dim))
    return [*cases, layout(cases[4], gaps), layout(cases[5], turned)]


def take_along_dim_of(x: np.ndarray, index: np.ndarray, dim: int | None) -> np.ndarray:
    if dim is None:
        return np.asarray(x.reshape(-1)[index.reshape(-1)])
    outside = [n if d != dim % x.ndim else -1 for d, n in enumerate(x.shape)]
    if 0 in outside:
        return np.zeros((*x.shape[: dim % x.ndim], index.shape[dim], *x.shape[dim % x.ndim + 1 :]))
    return np.take_along_axis(x, index, dim)


SELECTED: list[tuple[Shape, list[int], int]] = [
    ((), [0], 0),
    ((5,), [3, 0, 3], 0),
    ((5,), [], -1),
    ((0, 3), [2, 2], 1),
    ((3, 4), [2, 0, 0, 1], 0),
    ((3, 4), [1], -1),
    ((2, 3, 4), [2, 1], 1),
]


def selected(rng: Rng) -> list[Case]:
    cases = [
        case(normal(rng, shape), np.array(index, np.int64), dim=dim)
        for shape, index, dim in SELECTED
    ]
    cases.append(case(normal(rng, (3, 4)), np.array(2), dim=1))
    return [*cases, layout(cases[4], gaps), layout(cases[6], turned)]


def index_select_of(x: np.ndarray, index: np.ndarray, dim: int) -> np.ndarray:
    return np.take(x, np.atleast_1d(index), dim) if x.ndim else x


def flat(rng: Rng) -> list[Case]:
    """x and places in it laid flat, some of which count from the end."""
    shapes: list[tuple[Shape, Shape]] = [
        ((), (2,)),
        ((0, 3), (0,)),
        ((5,), ()),
        ((5,), (3, 2)),
        ((3, 4), (7,)),
        ((2, 3, 4), (2, 0)),
    ]
    cases = []
    for shape, index in shapes:
        size = int(np.prod(shape))
        cases.append(case(normal(rng, shape), rng.integers(-size, max(1, size), index)))
    return [*cases, layout(cases[4], gaps), layout(cases[4], turned)]


def chosen(rng: Rng) -> list[Case]:
    """x and a mask, broadcast against each other."""
    shapes: list[tuple[Shape, Shape]] = [
        ((), ()),
        ((0, 3), (3,)),
        ((5,), (5,)),
        ((3, 4), (4,)),
        ((3, 1), (1, 4)),
        ((4,), (3, 1)),
        ((2, 3, 4), (2, 3, 4)),
    ]
    cases = [case(normal(rng, x), coin(rng, mask)) for x, mask in shapes]
    return [*cases, layout(cases[3], gaps), layout(cases[6], turned)]


def masked_select_of(x: np.ndarray, mask: np.ndarray) -> np.ndarray:
    x, mask = np.broadcast_arrays(x, mask)
    return np.asarray(x[mask])


# ---- the ops themselves

TAKEN: list[tuple[Shape, Shape, int]] = [
    ((5,), (3,), 0),
    ((5, 3), (), 0),
    ((0, 3), (0, 2), 0),
    ((3, 5), (2, 2), 1),
    ((2, 5, 3), (40,), 1),
    ((3, 0), (2,), 0),
    ((4, 1, 2), (3,), 2),
]


def taken_gradients(rng: Rng) -> list[Case]:
    """The gradient of what ``taken`` returns, and the index."""
    cases = []
    for shape, inner, dim in TAKEN:
        index = whole(max(1, shape[dim]))(rng, inner)
        dY = normal(rng, (*shape[:dim], *inner, *shape[dim + 1 :]))
        cases.append(case(dY, index, shape=shape, dim=dim))
    large = case(
        normal(rng, (5000, 4)), whole(30)(rng, (5000,)), shape=(30, 4), dim=0, smooth=False
    )
    return [*cases, layout(cases[3], gaps), layout(cases[4], turned), large]


def taken_grad_of(dY: np.ndarray, index: np.ndarray, shape: Shape, dim: int) -> np.ndarray:
    dX = np.zeros(shape)
    for place in np.ndindex(index.shape):
        lead: tuple[Any, ...] = (slice(None),) * dim
        dX[(*lead, index[place])] += dY[(*lead, *place)]
    return dX


def puts(rng: Rng) -> list[Case]:
    """x, indices along its first dim, none twice, and what is put there."""
    shapes: list[tuple[Shape, Shape, Shape]] = [
        ((5,), (3,), (3,)),
        ((5,), (), ()),
        ((6,), (2, 2), ()),
        ((5, 3), (2,), (2, 3)),
        ((5, 3), (2,), (3,)),
        ((0, 3), (0,), (0, 3)),
        ((4, 2, 3), (3,), (3, 1, 3)),
    ]
    cases = []
    for shape, inner, source in shapes:
        index = rng.permutation(shape[0])[: int(np.prod(inner))].reshape(inner)
        cases.append(case(normal(rng, shape), index, normal(rng, source)))
    return [*cases, layout(cases[3], gaps), layout(cases[6], turned)]


def put_of(x: np.ndarray, index: np.ndarray, y: np.ndarray) -> np.ndarray:
    found = x.copy()
    y = np.broadcast_to(y, (*index.shape, *x.shape[1:]))
    for place in np.ndindex(index.shape):
        found[index[place]] = y[place]
    return found


def wrapped(rng: Rng) -> list[Case]:
    """Indices, some of which count from the end."""
    shapes: list[Shape] = [(), (0, 2), (5,), (3, 4), (2, 1), (300,)]
    cases = [case(rng.integers(-7, 7, s), size=7, step=3, wraps=True) for s in shapes]
    cases += [case(rng.integers(0, 7, s), size=7, step=1, wraps=False) for s in shapes]
    return [*cases, layout(cases[3], gaps), layout(cases[9], turned)]


def classes(rng: Rng) -> list[Case]:
    shapes: list[Shape] = [(), (0,), (5,), (3, 4), (2, 0, 3), (2, 3, 4)]
    cases = [case(whole(4)(rng, shape), num_classes=4 + i % 2) for i, shape in enumerate(shapes)]
    return [*cases, layout(cases[3], gaps)]


def one_hot_of(x: np.ndarray, num_classes: int) -> np.ndarray:
    return np.eye(num_classes, dtype=np.int64)[x]


def some(fill: Fill) -> Draw:
    """Arrays of which about half are 0."""
    return one(lambda rng, shape: np.asarray(fill(rng, shape) * coin(rng, shape)))


def by_dim(method: Any) -> Any:
    """``method(x, dim, index, …)`` as a function of x, the index and a static ``dim``."""
    return lambda x, *arrays, dim: method(x, dim, *arrays)


ROWS: list[Row] = [
    Row("getitem:integers", getitem, ("wrap_index", "take"), indexed, getitem_of),
    Row("getitem:mask", getitem, ("nonzero", "take"), masked, getitem_of),
    Row("getitem:mixed", getitem, ("nonzero", "wrap_index", "take"), mixed, getitem_of),
    Row("setitem", setitem, ("put_", "copy_", "where"), written, setitem_of, ()),
    Row("index_select", by_dim(Tensor.index_select), ("take",), selected, index_select_of),
    Row("take", Tensor.take, ("take",), flat, lambda x, index: np.take(x, index)),
    Row("take_along_dim", Tensor.take_along_dim, (), beside, take_along_dim_of),
    Row("gather", by_dim(Tensor.gather), ("take",), along, gather_of),
    Row("scatter", by_dim(Tensor.scatter), ("put",), with_source(along_once), scatter_of),
    Row(
        "scatter:value",
        lambda x, index, *, dim: x.scatter(dim, index, value=2.5),
        ("put",),
        along,
        lambda x, index, dim: scatter_of(x, index, 2.5, dim),
    ),
    Row(
        "scatter_add",
        by_dim(Tensor.scatter_add),
        ("take_grad",),
        with_source(along),
        scatter_add_of,
    ),
    Row("masked_select", Tensor.masked_select, ("nonzero",), chosen, masked_select_of),
    Row("nonzero", Tensor.nonzero, ("nonzero",), some(normal), np.argwhere, ()),
    Row("nonzero:int", Tensor.nonzero, ("nonzero",), some(whole(3)), np.argwhere, ()),
    Row("nonzero:bool", Tensor.nonzero, ("nonzero",), some(coin), np.argwhere, ()),
    Row(
        "nonzero:tuple",
        lambda x: x.nonzero(as_tuple=True),
        ("nonzero",),
        some(normal),
        lambda x: np.nonzero(np.atleast_1d(x)),
        (),
    ),
    Row("one_hot", F.one_hot, ("wrap_index",), classes, one_hot_of, ()),
    Row(
        "take_grad",
        lambda dY, index, *, shape, dim: indexing.added(dY, index, shape, dim),
        ("take_grad",),
        taken_gradients,
        taken_grad_of,
        check=COARSE,
    ),
    Row("put", indexing.put, ("put",), puts, put_of),
    Row(
        "wrap_index",
        lambda x, *, size, step, wraps: indexing.placed("x", x, size, 0, wraps, step),
        ("wrap_index",),
        wrapped,
        lambda x, size, step, wraps: x % size * step,
        (),
    ),
]
