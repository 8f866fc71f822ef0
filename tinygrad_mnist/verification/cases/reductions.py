"""Rows of ``ops.reductions`` and of what is composed of it."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from tinygrad_mnist.tensor import Tensor
from tinygrad_mnist.verification.cases.draws import (
    TIES,
    Case,
    Draw,
    Fill,
    Rng,
    Row,
    Shape,
    along,
    case,
    coin,
    gaps,
    halves,
    integral,
    normal,
    off_zero,
    reduced,
    shaped,
    spaced,
    spread,
    tied,
    turned,
    two,
    whole,
)


def argmaxes(fill: Fill) -> Draw:
    """Without several dims and without empty arrays, which have no largest element."""
    return lambda rng: (
        [c for c in reduced(fill, empty=(3, 1))(rng) if not isinstance(c.static.get("dim"), tuple)]
        + [case(gaps(fill(rng, (2, 3, 4))), dim=-2, keepdim=True)]
    )


def sorting(fill: Fill) -> Draw:
    """One array and a dim, the last where none is given, upwards and downwards."""
    return lambda rng: [
        case(fill(rng, ())),
        case(fill(rng, (0, 3)), dim=0),
        case(fill(rng, (5,))),
        case(fill(rng, (3, 4)), dim=0, descending=True),
        case(gaps(fill(rng, (3, 4))), dim=-1),
        case(turned(fill(rng, (2, 3, 4))), dim=-2, descending=True),
        case(np.broadcast_to(fill(rng, (3, 1)), (3, 4)), dim=0),
        case(fill(rng, (3, 1)), dim=1, descending=True),
        case(fill(rng, (130, 30)), dim=0, smooth=False),
    ]


def chosen(fill: Fill) -> Draw:
    """The ``k`` largest or smallest."""
    return lambda rng: [
        case(fill(rng, ()), k=1),
        case(fill(rng, (0, 3)), k=2),
        case(fill(rng, (5,)), k=3),
        case(fill(rng, (3, 4)), k=0),
        case(fill(rng, (3, 4)), k=3, dim=0, largest=False),
        case(gaps(fill(rng, (3, 4))), k=4, dim=-1),
        case(turned(fill(rng, (2, 3, 4))), k=2, dim=-2, largest=False),
        case(fill(rng, (3, 1)), k=1, dim=1),
        case(fill(rng, (130, 30)), k=7, dim=0, smooth=False),
    ]


def extremes(fill: Fill) -> Draw:
    """Along one dim, with and without keepdim."""
    return lambda rng: [
        case(fill(rng, ()), dim=0),
        case(fill(rng, (3, 0)), dim=0, keepdim=True),
        case(fill(rng, (5,)), dim=0),
        case(fill(rng, (3, 4)), dim=-1),
        case(fill(rng, (3, 4)), dim=0, keepdim=True),
        case(gaps(fill(rng, (3, 4))), dim=1),
        case(turned(fill(rng, (2, 3, 4))), dim=-2, keepdim=True),
        case(np.broadcast_to(fill(rng, (3, 1)), (3, 4)), dim=0),
        case(fill(rng, (130, 30)), dim=0, smooth=False),
    ]


def whole_arrays(fill: Fill) -> Draw:
    """Without a dim."""
    return lambda rng: [
        case(fill(rng, ())),
        case(fill(rng, (1,)), keepdim=True),
        case(fill(rng, (3, 4))),
        case(fill(rng, (3, 4)), keepdim=True),
        case(gaps(fill(rng, (3, 4)))),
        case(turned(fill(rng, (2, 3, 4)))),
        case(fill(rng, (257, 401)), smooth=False),
    ]


def varied(rng: Rng) -> list[Case]:
    """Over enough elements for a variance."""
    return [
        case(normal(rng, (4,))),
        case(normal(rng, (3, 0)), dim=0),
        case(normal(rng, (3, 4)), keepdim=True),
        case(normal(rng, (3, 4)), dim=-1, correction=0),
        case(normal(rng, (3, 4)), dim=1, unbiased=False, keepdim=True),
        case(gaps(normal(rng, (3, 4))), dim=0, unbiased=True),
        case(turned(normal(rng, (2, 3, 4))), dim=(0, -1), correction=2.5),
        case(normal(rng, (2, 3, 4)), dim=[-2], keepdim=True),
        case(normal(rng, (257, 401)), dim=0, smooth=False),
        case(normal(rng, ()), correction=0, smooth=False),  # a root without a slope
    ]


def too_few(rng: Rng) -> list[Case]:
    """Fewer elements than the correction, or none."""
    return [
        case(normal(rng, ())),
        case(normal(rng, (0,))),
        case(normal(rng, (0, 3)), dim=0),
        case(normal(rng, (3, 1)), dim=1, keepdim=True),
        case(gaps(normal(rng, (3, 2))), dim=1, correction=2),
        case(normal(rng, (3, 2)), dim=1, correction=5),
    ]


def norms(*powers: Any) -> Draw:
    """Of each ``p`` over one, several and all dims."""
    return lambda rng: [
        case(*c.inputs, p=p, smooth=c.smooth, **c.static)
        for p in powers
        for c in reduced(nudged, empty=(3, 0))(rng)
    ]


def nudged(rng: Rng, shape: Shape) -> np.ndarray:
    """Numbers off zero, no two of one size."""
    return np.asarray(spaced(rng, shape) + 0.02)


def some_zero(rng: Rng, shape: Shape) -> np.ndarray:
    return np.asarray(off_zero(rng, shape) * (rng.random(shape) < 0.7))


def far(rng: Rng, shape: Shape) -> np.ndarray:
    """What overflows in eˣ, or vanishes."""
    return np.asarray(rng.choice([-1001.0, -1000.0, 0.0, 1000.0, 1001.0], shape))


def infinite(rng: Rng, shape: Shape) -> np.ndarray:
    return np.asarray(rng.choice([-np.inf, -np.inf, -np.inf, 1.0, np.inf], shape))


def unbounded(function: Any) -> Any:
    """Whether what ``function`` gives is ∞, −∞ or NaN: the table compares finite numbers."""

    def look(*args: Any, **how: Any) -> Any:
        y = function(*args, **how)
        return y == math.inf, y == -math.inf, y != y

    return look


def near_one(rng: Rng, shape: Shape) -> np.ndarray:
    """So that many of them make no huge or tiny product."""
    return np.asarray(rng.uniform(0.95, 1.05, shape) * rng.choice([-1.0, 1.0], shape))


def small(fill: Fill) -> Draw:
    return lambda rng: [c for c in reduced(fill)(rng) if c.smooth]


def softmax_of(x: np.ndarray, dim: int) -> np.ndarray:
    top = np.max(x, axis=dim, keepdims=True, initial=-np.inf)
    powers = np.exp(x - np.where(np.isinf(top), 0, top))
    return powers / np.sum(powers, axis=dim, keepdims=True)


def log_softmax_of(x: np.ndarray, dim: int) -> np.ndarray:
    top = np.max(x, axis=dim, keepdims=True, initial=-np.inf)
    return x - top - np.log(np.sum(np.exp(x - top), axis=dim, keepdims=True))


def sum_of(x: np.ndarray, dim: Any = None, keepdim: bool = False) -> np.ndarray:
    return np.sum(x, axis=dim, keepdims=keepdim)


def mean_of(x: np.ndarray, dim: Any = None, keepdim: bool = False) -> np.ndarray:
    return np.mean(x, axis=dim, keepdims=keepdim)


def var_of(
    x: np.ndarray,
    dim: Any = None,
    unbiased: bool = True,
    keepdim: bool = False,
    correction: float | None = None,
) -> np.ndarray:
    axis = tuple(dim) if isinstance(dim, list) else dim
    count = x.size // max(1, np.sum(x, axis=axis).size) if x.size else 0
    centred = x - np.sum(x, axis=axis, keepdims=True) / np.float64(count)
    freedom = count - (int(unbiased) if correction is None else correction)
    return np.sum(centred**2, axis=axis, keepdims=keepdim) / np.float64(max(0, freedom))


def norm_of(x: np.ndarray, p: Any = 2, dim: Any = None, keepdim: bool = False) -> np.ndarray:
    size = np.abs(x)
    if p == np.inf:
        return np.max(size, axis=dim, keepdims=keepdim)
    if p == -np.inf:
        return np.min(size, axis=dim, keepdims=keepdim)
    if p == 0:
        return np.sum(np.where(x == 0, 0.0, 1.0), axis=dim, keepdims=keepdim)
    p = 2 if p in ("fro", None) else p
    return np.sum(size**p, axis=dim, keepdims=keepdim) ** (1 / p)


def logsumexp_of(x: np.ndarray, dim: Any = None, keepdim: bool = False) -> np.ndarray:
    return np.log(np.sum(np.exp(x), axis=dim, keepdims=keepdim))


def float32_logsumexp_of(x: np.ndarray, **how: Any) -> np.ndarray:
    return logsumexp_of(x, **how).astype(np.float32)


def far_logsumexp_of(x: np.ndarray, dim: Any = None, keepdim: bool = False) -> np.ndarray:
    """By pairs, as ``logaddexp`` has it."""
    found = x
    for axis in range(x.ndim) if dim is None else np.atleast_1d(dim):
        found = np.logaddexp.reduce(found, axis=axis, keepdims=True)
    return found if keepdim else found.reshape(np.sum(x, axis=dim).shape)


def prod_of(x: np.ndarray, dim: Any = None, keepdim: bool = False) -> np.ndarray:
    return np.prod(x, axis=dim, keepdims=keepdim)


def any_of(x: np.ndarray, dim: Any = None, keepdim: bool = False) -> np.ndarray:
    return np.sum(x != 0, axis=dim, keepdims=keepdim) > 0


def all_of(x: np.ndarray, dim: Any = None, keepdim: bool = False) -> np.ndarray:
    return np.sum(x == 0, axis=dim, keepdims=keepdim) == 0


def amin_of(x: np.ndarray, dim: Any = None, keepdim: bool = False) -> np.ndarray:
    return np.min(x, axis=dim, keepdims=keepdim)


def argmin_of(x: np.ndarray, dim: Any = None, keepdim: bool = False) -> np.ndarray:
    return np.argmin(x, axis=dim, keepdims=keepdim)


def max_of(x: np.ndarray, dim: int, keepdim: bool = False) -> tuple[np.ndarray, np.ndarray]:
    return amax_of(x, dim, keepdim), argmax_of(x, dim, keepdim)


def min_of(x: np.ndarray, dim: int, keepdim: bool = False) -> tuple[np.ndarray, np.ndarray]:
    return amin_of(x, dim, keepdim), argmin_of(x, dim, keepdim)


def cumsum_of(x: np.ndarray, dim: int) -> np.ndarray:
    return np.cumsum(x, axis=dim)


def argsort_of(x: np.ndarray, dim: int = -1, descending: bool = False) -> np.ndarray:
    """By counting: an element's place is how many come before it."""
    x = np.atleast_1d(x) if x.ndim == 0 else x
    rows = np.moveaxis(x, dim, -1)
    rank = np.where(np.isnan(rows), np.inf, rows) * (-1.0 if descending else 1.0)
    at = np.arange(rows.shape[-1])
    before = rank[..., None, :] < rank[..., :, None]
    ties = (rank[..., None, :] == rank[..., :, None]) & (at[None, :] < at[:, None])
    order = np.empty(rows.shape, np.int64)
    np.put_along_axis(order, np.sum(before | ties, axis=-1), np.broadcast_to(at, rows.shape), -1)
    return np.moveaxis(order, -1, dim)


def sort_of(
    x: np.ndarray, dim: int = -1, descending: bool = False
) -> tuple[np.ndarray, np.ndarray]:
    order = argsort_of(x, dim, descending)
    found = np.take_along_axis(np.atleast_1d(x), order, dim)
    return found.reshape(x.shape), order.reshape(x.shape)


def topk_of(
    x: np.ndarray, k: int, dim: int = -1, largest: bool = True
) -> tuple[np.ndarray, np.ndarray]:
    values, order = sort_of(x, dim, largest)
    if x.ndim == 0:
        return values, order
    return np.take(values, range(k), axis=dim), np.take(order, range(k), axis=dim)


def amax_of(x: np.ndarray, dim: Any = None, keepdim: bool = False) -> np.ndarray:
    return np.max(x, axis=dim, keepdims=keepdim)


def argmax_of(x: np.ndarray, dim: Any = None, keepdim: bool = False) -> np.ndarray:
    return np.argmax(x, axis=dim, keepdims=keepdim)


def sum_to_size_of(x: np.ndarray, args: Shape) -> np.ndarray:
    x = x.sum(axis=tuple(range(x.ndim - len(args))))
    return x.sum(axis=tuple(i for i, s in enumerate(args) if s != x.shape[i]), keepdims=True)


SIZES = shaped(
    ((), ()),
    ((0, 3), (1, 3)),
    ((3, 4), ()),
    ((3, 4), (3, 4)),
    ((3, 4), (4,)),
    ((2, 3, 4), (3, 1)),
    ((2, 3, 4), (1, 1, 4)),
)


ROWS = [
    # reductions
    Row("sum", Tensor.sum, ("sum",), reduced(normal), sum_of),
    Row("mean", Tensor.mean, ("sum",), reduced(normal, empty=(3, 0)), mean_of),
    Row("amax", Tensor.amax, ("max",), reduced(spaced, empty=(3, 0)), amax_of, kinks=TIES),
    Row("amax:ties", Tensor.amax, ("max",), reduced(tied, empty=(3, 0)), amax_of, ()),
    Row("amin", Tensor.amin, ("min",), reduced(spaced, empty=(3, 0)), amin_of, kinks=TIES),
    Row("amin:ties", Tensor.amin, ("min",), reduced(tied, empty=(3, 0)), amin_of, ()),
    Row("sum:int", Tensor.sum, ("sum",), reduced(whole(9)), sum_of, ()),
    Row("sum:bool", Tensor.sum, ("sum",), reduced(coin), sum_of, ()),
    Row("amax:int", Tensor.amax, ("max",), reduced(whole(9), empty=(3, 0)), amax_of, ()),
    Row("amin:bool", Tensor.amin, ("min",), reduced(coin, empty=(3, 0)), amin_of, ()),
    Row("any", Tensor.any, ("any",), reduced(some_zero), any_of, ()),
    Row("any:bool", Tensor.any, ("any",), reduced(coin), any_of, ()),
    Row("all", Tensor.all, ("all",), reduced(tied), all_of, ()),
    Row("all:int", Tensor.all, ("all",), reduced(whole(9)), all_of, ()),
    # one or several dims, made of others
    Row("var", Tensor.var, ("sum",), varied, var_of),
    Row("var:few", unbounded(Tensor.var), ("sum",), too_few, unbounded(var_of), ()),
    Row("std", Tensor.std, ("sqrt",), varied, lambda x, **how: np.sqrt(var_of(x, **how))),
    Row("norm", Tensor.norm, ("sqrt",), norms(2, "fro", None), norm_of),
    Row("norm:sum", Tensor.norm, ("abs",), norms(1, 0), norm_of, kinks="at 0"),
    Row("norm:extreme", Tensor.norm, ("max", "min"), norms(np.inf, -np.inf), norm_of, kinks=TIES),
    Row("norm:power", Tensor.norm, ("pow",), norms(3, 1.5, 0.5, -1), norm_of, kinks="at 0"),
    Row("logsumexp", Tensor.logsumexp, ("log",), reduced(normal), logsumexp_of),
    Row(
        "logsumexp:far",
        Tensor.logsumexp,
        ("log",),
        reduced(far, empty=(3, 0)),
        far_logsumexp_of,
        (),
    ),
    Row(
        "logsumexp:infinite",
        unbounded(Tensor.logsumexp),
        ("log",),
        reduced(infinite),
        unbounded(logsumexp_of),
        (),
    ),
    Row(
        "logsumexp:int",
        Tensor.logsumexp,
        ("log",),
        reduced(whole(9)),
        float32_logsumexp_of,
        (),
        rtol=1e-6,
    ),
    Row("prod", Tensor.prod, ("multiply",), reduced(near_one), prod_of),
    Row("prod:zeros", Tensor.prod, ("multiply",), small(some_zero), prod_of),
    Row("prod:int", Tensor.prod, ("multiply",), small(whole(3)), prod_of, ()),
    # elements chosen by their size
    Row("max", Tensor.max, ("argmax",), extremes(spaced), max_of, kinks=TIES),
    Row("max:ties", Tensor.max, ("argmax",), extremes(tied), max_of, ()),
    Row("max:all", Tensor.max, ("max",), whole_arrays(spaced), amax_of, kinks=TIES),
    Row(
        "max:other",
        Tensor.max,
        ("maximum",),
        two(integral, halves, numbers=False),
        np.maximum,
        kinks=TIES,
    ),
    Row("min", Tensor.min, ("argmin",), extremes(spaced), min_of, kinks=TIES),
    Row("min:int", Tensor.min, ("argmin",), extremes(whole(3)), min_of, ()),
    Row("min:all", Tensor.min, ("min",), whole_arrays(spaced), amin_of, kinks=TIES),
    Row(
        "min:other",
        Tensor.min,
        ("minimum",),
        two(integral, halves, numbers=False),
        np.minimum,
        kinks=TIES,
    ),
    Row("sort", Tensor.sort, ("argsort",), sorting(spaced), sort_of, kinks=TIES),
    Row("sort:ties", Tensor.sort, ("argsort",), sorting(tied), sort_of, ()),
    Row("sort:int", Tensor.sort, ("argsort",), sorting(whole(3)), sort_of, ()),
    Row(
        "argsort",
        Tensor.argsort,
        ("argsort",),
        sorting(spaced),
        lambda x, **how: sort_of(x, **how)[1],
        (),
    ),
    Row(
        "argsort:ties",
        Tensor.argsort,
        ("argsort",),
        sorting(tied),
        lambda x, **how: sort_of(x, **how)[1],
        (),
    ),
    Row("topk", Tensor.topk, ("argsort",), chosen(spaced), topk_of, kinks=TIES),
    Row("topk:ties", Tensor.topk, ("argsort",), chosen(tied), topk_of, ()),
    Row("argmin", Tensor.argmin, ("argmin",), argmaxes(spaced), argmin_of, ()),
    Row("argmin:ties", Tensor.argmin, ("argmin",), argmaxes(tied), argmin_of, ()),
    # along one dim
    Row("cumsum", Tensor.cumsum, ("cumsum",), along(normal), cumsum_of),
    Row("cumsum:int", Tensor.cumsum, ("cumsum",), along(whole(9)), cumsum_of, ()),
    Row("argmax", Tensor.argmax, ("argmax",), argmaxes(spaced), argmax_of, ()),
    Row("argmax:ties", Tensor.argmax, ("argmax",), argmaxes(tied), argmax_of, ()),
    Row("sum_to_size", spread(Tensor.sum_to_size), (), SIZES, sum_to_size_of, aliases=True),
    Row(
        "unbroadcast",
        lambda x, *, args: Tensor.unbroadcast(x, args),
        (),
        SIZES,
        sum_to_size_of,
        aliases=True,
    ),
    Row("softmax", Tensor.softmax, ("softmax",), along(normal), softmax_of),
    Row("log_softmax", Tensor.log_softmax, ("log_softmax",), along(normal), log_softmax_of),
]
