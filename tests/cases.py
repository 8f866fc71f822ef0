"""One row per op: how to draw its inputs, a NumPy reference, where it is not differentiable.

``test_ops`` and ``test_contract`` make every test of an op from its row. To add an op: its
definition in ``ops``, its kernel's default in ``kernels``, and a row in ``ROWS``. A kernel that no
op reaches (an optimizer's update) gets a row in ``DIRECT``.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from tinygrad_mnist import ops, random
from tinygrad_mnist.autograd import record, wrap
from tinygrad_mnist.kernels import Backend
from tinygrad_mnist.ops import networks, pointwise, products, shapes
from tinygrad_mnist.tensor import Tensor

Rng = np.random.Generator
Shape = tuple[int, ...]
Fill = Callable[[Rng, Shape], np.ndarray]


@dataclass(frozen=True)
class Case:
    """One call: arrays (float64, or integers and booleans), numbers or None; then keywords."""

    inputs: tuple[Any, ...]
    static: dict[str, Any] = field(default_factory=dict)
    smooth: bool = True  # False: a kink, a tie or a large array, for the forward tests only


Draw = Callable[[Rng], list[Case]]


@dataclass(frozen=True)
class Row:
    """An op and all that its tests need to know."""

    name: str  # the op's, and what is special after a colon
    op: Callable[..., Any]
    kernels: tuple[str, ...]  # those it stands for: its forward pass must call them
    draw: Draw
    reference: Callable[..., Any]
    differentiable: tuple[int, ...] | None = None  # which inputs; None: all float arrays
    kinks: str = ""  # where it is not differentiable; smooth cases keep away
    second: str | None = None  # why no second gradient is claimed
    aliases: bool = False  # the result may share memory with the input
    check: dict[str, float] = field(default_factory=dict)  # gradcheck's tolerances
    rtol: float = 1e-10
    rtol32: float = 1e-5  # of float32, relative to the largest expected number


# ---- numbers


def normal(rng: Rng, shape: Shape) -> np.ndarray:
    return np.asarray(rng.standard_normal(shape))


def between(low: float, high: float) -> Fill:
    return lambda rng, shape: np.asarray(rng.uniform(low, high, shape))


def off_zero(rng: Rng, shape: Shape) -> np.ndarray:
    return np.asarray(rng.uniform(0.2, 2, shape) * rng.choice([-1.0, 1.0], shape))


def spaced(rng: Rng, shape: Shape) -> np.ndarray:
    """Distinct numbers at least 0.1 apart, none near 0."""
    count = int(np.prod(shape))
    return ((rng.permutation(count) - count // 2) * 0.1 + 0.05).reshape(shape)


def tied(rng: Rng, shape: Shape) -> np.ndarray:
    return np.asarray(rng.integers(-1, 2, shape), np.float64)


def integral(rng: Rng, shape: Shape) -> np.ndarray:
    return np.asarray(rng.integers(-3, 4, shape), np.float64)


def halves(rng: Rng, shape: Shape) -> np.ndarray:
    """Numbers that no ``integral`` one is near."""
    return np.asarray(integral(rng, shape) + 0.5)


def sigmoids(rng: Rng, shape: Shape) -> np.ndarray:
    return np.asarray(sigmoid_of(normal(rng, shape)))


def relus(rng: Rng, shape: Shape) -> np.ndarray:
    return relu_of(normal(rng, shape))


def coin(rng: Rng, shape: Shape) -> np.ndarray:
    return np.asarray(rng.random(shape) < 0.5)


def whole(high: int, dtype: Any = np.int64) -> Fill:
    return lambda rng, shape: np.asarray(rng.integers(0, high, shape), dtype)


# ---- memory layouts


def gaps(x: np.ndarray) -> np.ndarray:
    """``x`` with unused elements between its own."""
    wide = np.zeros((*x.shape, 2), x.dtype)
    wide[..., 0] = x
    return wide[..., 0]


def turned(x: np.ndarray) -> np.ndarray:
    """``x`` as a transposed view: column-major."""
    return np.asfortranarray(x)


# ---- draws


def case(*inputs: Any, smooth: bool = True, **static: Any) -> Case:
    return Case(inputs, static, smooth)


def one(fill: Fill, **static: Any) -> Draw:
    """One array in every layout."""
    return lambda rng: [
        case(fill(rng, ()), **static),
        case(fill(rng, (0, 3)), **static),
        case(fill(rng, (5,)), **static),
        case(fill(rng, (3, 4)), **static),
        case(gaps(fill(rng, (3, 4))), **static),
        case(turned(fill(rng, (2, 3, 4))), **static),
        case(np.broadcast_to(fill(rng, (3, 1)), (3, 4)), **static),
        case(fill(rng, (257, 401)), smooth=False, **static),
    ]


def two(x: Fill, y: Fill | None = None, numbers: bool = True) -> Draw:
    """Two arrays, broadcast against each other, and an array with a number."""
    second = y or x

    def draw(rng: Rng) -> list[Case]:
        pairs = [
            ((), ()),
            ((0, 3), (1, 3)),
            ((3, 4), (3, 4)),
            ((3, 4), (4,)),
            ((3, 1), (2, 1, 4)),
            ((), (3, 4)),
        ]
        cases = [case(x(rng, a), second(rng, b)) for a, b in pairs]
        cases.append(case(gaps(x(rng, (3, 4))), turned(second(rng, (3, 4)))))
        cases.append(case(x(rng, (257, 401)), second(rng, (401,)), smooth=False))
        if numbers:
            cases.append(case(x(rng, (3, 4)), float(second(rng, ()))))
            cases.append(case(float(x(rng, ())), gaps(second(rng, (3, 4)))))
        return cases

    return draw


def alike(x: Fill, y: Fill) -> Draw:
    """Two arrays of one shape, in every layout."""
    return lambda rng: [
        case(*a.inputs, *b.inputs, smooth=a.smooth)
        for a, b in zip(one(x)(rng), one(y)(rng), strict=True)
    ]


def powers(rng: Rng) -> list[Case]:
    """An array and a number, either way round."""
    return [
        case(off_zero(rng, (3, 4)), 3),
        case(off_zero(rng, (3, 4)), -1),
        case(off_zero(rng, ()), 3.0),
        case(off_zero(rng, (0, 2)), -2),
        case(gaps(between(0.3, 3)(rng, (5,))), 1.5),
        case(2.0, normal(rng, (3, 4))),
        case(3, normal(rng, ())),
    ]


def reduced(fill: Fill, empty: Shape = (0, 3)) -> Draw:
    """One array reduced over None, one or several dims, negative ones too, with keepdim."""
    return lambda rng: [
        case(fill(rng, ())),
        case(fill(rng, empty), dim=0),
        case(fill(rng, (3, 4))),
        case(fill(rng, (3, 4)), keepdim=True),
        case(fill(rng, (3, 4)), dim=-1),
        case(gaps(fill(rng, (3, 4))), dim=0, keepdim=True),
        case(turned(fill(rng, (2, 3, 4))), dim=(0, -1)),
        case(fill(rng, (2, 3, 4)), dim=(-2,), keepdim=True),
        case(np.broadcast_to(fill(rng, (3, 1)), (3, 4)), dim=0),
        case(fill(rng, (257, 401)), dim=0, smooth=False),
        case(fill(rng, (257, 401)), dim=-1, smooth=False),
    ]


def along(fill: Fill) -> Draw:
    """One array and one dim."""
    return lambda rng: [
        case(fill(rng, (4,)), dim=0),
        case(fill(rng, (0, 3)), dim=1),
        case(fill(rng, (3, 4)), dim=-1),
        case(fill(rng, (3, 4)), dim=0),
        case(gaps(fill(rng, (2, 3, 4))), dim=1),
        case(turned(fill(rng, (3, 4))), dim=-2),
        case(fill(rng, (3, 1)), dim=1),
        case(fill(rng, (130, 300)), dim=1, smooth=False),
    ]


def matrices(rng: Rng) -> list[Case]:
    shapes = [
        ((3, 4), (4, 2)),
        ((4,), (4,)),
        ((4,), (4, 2)),
        ((3, 4), (4,)),
        ((2, 3, 4), (4, 2)),
        ((5, 1, 3, 4), (2, 4, 2)),
        ((0, 4), (4, 2)),
        ((3, 0), (0, 2)),
    ]
    cases = [case(normal(rng, a), normal(rng, b)) for a, b in shapes]
    cases.append(case(gaps(normal(rng, (3, 4))), turned(normal(rng, (4, 2)))))
    cases.append(case(normal(rng, (130, 70)), turned(normal(rng, (70, 90))), smooth=False))
    return cases


def layers(rng: Rng) -> list[Case]:
    """x (…, 4), weight (2, 4) and bias (2,) or none."""
    weight, bias = normal(rng, (2, 4)), normal(rng, (2,))
    return [
        case(normal(rng, (3, 4)), weight, bias),
        case(normal(rng, (3, 4)), weight),
        case(normal(rng, (4,)), weight, bias),
        case(normal(rng, (2, 3, 4)), weight, bias),
        case(normal(rng, (0, 4)), weight, bias),
        case(gaps(normal(rng, (3, 4))), turned(weight), gaps(bias)),
        case(normal(rng, (1, 4)), weight, None),
        case(normal(rng, (70, 130)), normal(rng, (33, 130)), normal(rng, (33,)), smooth=False),
    ]


def layer_gradients(rng: Rng) -> list[Case]:
    """dY (N, out) and x (N, in) of a linear layer."""
    return [
        case(normal(rng, (3, 2)), normal(rng, (3, 4))),
        case(normal(rng, (1, 2)), normal(rng, (1, 4))),
        case(normal(rng, (0, 2)), normal(rng, (0, 4))),
        case(normal(rng, (3, 1)), normal(rng, (3, 1))),
        case(gaps(normal(rng, (3, 2))), turned(normal(rng, (3, 4)))),
        case(normal(rng, (5, 3)), normal(rng, (5, 2))),
        case(normal(rng, (70, 33)), normal(rng, (70, 130)), smooth=False),
    ]


@dataclass(frozen=True)
class Geometry:
    """A convolution's shapes and settings."""

    x: Shape
    weight: Shape
    stride: Any = 1
    padding: Any = 0
    dilation: Any = 1
    groups: int = 1

    def pairs(self) -> dict[str, Any]:
        """The settings as the kernels take them."""
        both = {key: _pair(getattr(self, key)) for key in ("stride", "padding", "dilation")}
        return {**both, "groups": self.groups}

    def result(self) -> Shape:
        s, p, d = (_pair(v) for v in (self.stride, self.padding, self.dilation))
        spots = [
            (self.x[2 + i] + 2 * p[i] - d[i] * (self.weight[2 + i] - 1) - 1) // s[i] + 1
            for i in (0, 1)
        ]
        return (self.x[0], self.weight[0], *spots)


GEOMETRIES = [
    Geometry((2, 3, 5, 6), (4, 3, 3, 2)),
    Geometry((2, 3, 5, 6), (4, 3, 1, 1)),
    Geometry((1, 2, 7, 6), (3, 2, 3, 3), stride=2, padding=1),
    Geometry((2, 4, 6, 5), (6, 2, 3, 2), groups=2),
    Geometry((1, 2, 8, 7), (2, 2, 2, 3), stride=(2, 1), padding=(0, 2), dilation=(3, 2)),
    Geometry((2, 3, 5, 5), (3, 1, 2, 2), stride=3, groups=3),
    Geometry((0, 3, 5, 6), (4, 3, 3, 2)),
]


def images(rng: Rng) -> list[Case]:
    cases = [
        case(normal(rng, g.x), normal(rng, g.weight), bias, **_settings(g))
        for i, g in enumerate(GEOMETRIES)
        for bias in ([normal(rng, g.weight[:1])] if i % 2 == 0 else [None])
    ]
    x, weight = gaps(normal(rng, (2, 3, 5, 6))), turned(normal(rng, (4, 3, 3, 2)))
    return [
        *cases,
        case(x, weight, gaps(normal(rng, (4,)))),
        case(normal(rng, (9, 3, 14, 14)), normal(rng, (8, 3, 5, 5)), smooth=False),
    ]


def image_gradients(rng: Rng) -> list[Case]:
    """dY and weight."""
    cases = [
        case(normal(rng, g.result()), normal(rng, g.weight), shape=g.x, **g.pairs())
        for g in GEOMETRIES
    ]
    g = GEOMETRIES[0]
    dY, weight = turned(normal(rng, g.result())), gaps(normal(rng, g.weight))
    return [*cases, case(dY, weight, shape=g.x, **g.pairs())]


def weight_gradients(rng: Rng) -> list[Case]:
    """dY and x."""
    cases = [
        case(normal(rng, g.result()), normal(rng, g.x), shape=g.weight, **g.pairs())
        for g in GEOMETRIES
    ]
    g = GEOMETRIES[0]
    dY, x = gaps(normal(rng, g.result())), turned(normal(rng, g.x))
    return [*cases, case(dY, x, shape=g.weight, **g.pairs())]


def _settings(g: Geometry) -> dict[str, Any]:
    return {key: getattr(g, key) for key in ("stride", "padding", "dilation", "groups")}


POOLS = [  # shape of x, kernel_size, stride, padding
    ((2, 3, 4, 6), 2, None, 0),
    ((1, 2, 5, 5), 3, 2, 0),
    ((2, 1, 5, 6), (3, 2), (1, 2), (1, 0)),
    ((1, 2, 4, 4), 2, 1, 1),
    ((2, 2, 7, 5), 2, 3, 0),
    ((0, 2, 4, 4), 2, 2, 0),
]


def pooled(rng: Rng) -> list[Case]:
    cases = [
        case(spaced(rng, shape), kernel_size=size, stride=stride, padding=padding)
        for shape, size, stride, padding in POOLS
    ]
    return [
        *cases,
        case(gaps(spaced(rng, (2, 2, 4, 6))), kernel_size=2),
        case(turned(spaced(rng, (2, 2, 4, 6))), kernel_size=(2, 3)),
        case(tied(rng, (2, 2, 5, 5)), kernel_size=3, stride=2, padding=1, smooth=False),
        case(normal(rng, (33, 10, 24, 24)), kernel_size=2, smooth=False),
    ]


def pool_gradients(rng: Rng) -> list[Case]:
    """dY and the index that max_pool2d returned with it."""
    cases = [
        case(normal(rng, index.shape), index, shape=shape, **settings)
        for shape, index, settings in _pool_indices(rng)
    ]
    return [*cases, _with_gaps(cases[2])]


def pool_takes(rng: Rng) -> list[Case]:
    """x and the index that max_pool2d returned for one of its shape."""
    cases = [
        case(normal(rng, shape), index, **settings) for shape, index, settings in _pool_indices(rng)
    ]
    return [*cases, _with_gaps(cases[2])]


def _with_gaps(found: Case) -> Case:
    return Case(tuple(gaps(x) for x in found.inputs), found.static)


def _pool_indices(rng: Rng) -> Iterator[tuple[Shape, np.ndarray, dict[str, Any]]]:
    for shape, size, stride, padding in POOLS:
        settings = {
            "size": _pair(size),
            "stride": _pair(size if stride is None else stride),
            "padding": _pair(padding),
        }
        windows = pool_windows(spaced(rng, shape), **settings)
        yield shape, np.argmax(windows, axis=-1).astype(np.int32), settings


def channels(rng: Rng) -> list[Case]:
    """x (N, C, …), weight and bias."""
    inputs = [
        normal(rng, (4, 3)),
        normal(rng, (4, 3, 5)),
        normal(rng, (2, 3, 4, 5)),
        normal(rng, (5, 1)) + 3,
        gaps(normal(rng, (4, 3))),
        turned(normal(rng, (2, 3, 2, 2))),
    ]
    cases = [
        case(x, between(0.5, 2)(rng, x.shape[1:2]), normal(rng, x.shape[1:2]), eps=1e-3)
        for x in inputs
    ]
    large = normal(rng, (16, 20, 12, 12)) * 3 + 100
    ones = np.ones(20)
    return [*cases, Case((large, ones, 0 * ones), {"eps": 1e-5}, smooth=False)]


def channel_gradients(rng: Rng) -> list[Case]:
    """dY, x and weight."""
    return [
        case(normal(rng, c.inputs[0].shape), *c.inputs[:2], smooth=c.smooth, **c.static)
        for c in channels(rng)
    ]


def classes(rng: Rng) -> list[Case]:
    """x (N, C) and target (N,)."""
    inputs = [
        normal(rng, (4, 3)),
        normal(rng, (1, 5)),
        normal(rng, (0, 3)),
        normal(rng, (3, 1)),
        gaps(normal(rng, (4, 3))),
        turned(normal(rng, (4, 3))),
        normal(rng, (4, 3)) * 300,
    ]
    cases = [case(x, whole(x.shape[1])(rng, x.shape[:1])) for x in inputs]
    cases.append(case(normal(rng, (1030, 10)), whole(10)(rng, (1030,)), smooth=False))
    return cases


def class_gradients(rng: Rng) -> list[Case]:
    """dY (N,), x and target."""
    return [
        case(normal(rng, c.inputs[0].shape[:1]), *c.inputs, smooth=c.smooth) for c in classes(rng)
    ]


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


def _parts(index: Any) -> tuple[Any, ...]:
    return index if isinstance(index, tuple) else (index,)


def shaped(*calls: tuple[Shape, Any]) -> Draw:
    """An array and the op's further positional arguments; the last two also strided."""

    def draw(rng: Rng) -> list[Case]:
        cases = [case(normal(rng, shape), args=_parts(args)) for shape, args in calls]
        (a, first), (b, second) = calls[-2:]
        cases.append(case(gaps(normal(rng, a)), args=_parts(first)))
        return [*cases, case(turned(normal(rng, b)), args=_parts(second))]

    return draw


def contiguous_only(draw: Draw) -> Draw:
    return lambda rng: [c for c in draw(rng) if c.inputs[0].flags.c_contiguous]


def argmaxes(fill: Fill) -> Draw:
    """Without several dims and without empty arrays, which have no largest element."""
    return lambda rng: (
        [c for c in reduced(fill, empty=(3, 1))(rng) if not isinstance(c.static.get("dim"), tuple)]
        + [case(gaps(fill(rng, (2, 3, 4))), dim=-2, keepdim=True)]
    )


def chosen(rng: Rng) -> list[Case]:
    """A condition and two choices."""
    shapes = [
        ((), (), ()),
        ((0, 3), (0, 3), (3,)),
        ((3, 4), (3, 4), (3, 4)),
        ((3, 1), (4,), ()),
        ((4,), (3, 1), (3, 4)),
    ]
    cases = [case(coin(rng, c), normal(rng, x), normal(rng, y)) for c, x, y in shapes]
    return [
        *cases,
        case(gaps(coin(rng, (3, 4))), turned(normal(rng, (3, 4))), normal(rng, (4,))),
        case(coin(rng, (3, 4)), normal(rng, (3, 4)), 0.5),
        case(coin(rng, (3, 4)), -1.5, normal(rng, (3, 4))),
    ]


def batches(rng: Rng) -> list[Case]:
    """Rows of uint8 and an index."""
    shapes = [((5, 4), 3), ((5, 2, 3), 7), ((5,), 2), ((1, 4), 1), ((5, 4), 0), ((5, 0), 2)]
    static = {"scale": 1 / 255, "shift": -0.5}
    cases = [
        case(whole(256, np.uint8)(rng, shape), whole(shape[0])(rng, (count,)), **static)
        for shape, count in shapes
    ]
    images = gaps(whole(256, np.uint8)(rng, (9, 28, 28)))
    return [*cases, case(images, gaps(whole(9)(rng, (70,))), **static)]


def masked(rng: Rng) -> list[Case]:
    return [
        case(*c.inputs, smooth=c.smooth, p=p, seed=7)
        for c, p in zip(one(normal)(rng), (0.5, 0.5, 0.1, 0.9, 0.25, 0.5, 0.75, 0.2), strict=True)
    ] + [case(normal(rng, (3,)), p=0.0, seed=1), case(normal(rng, (3,)), p=1.0, seed=1)]


# ---- ops that the package spells otherwise


def dropout(x: Any, *, p: float, seed: int) -> Any:
    random.manual_seed(seed)
    return ops.dropout(x, p)


def linear_dw(dY: Any, x: Any) -> Any:
    return record(products._LINEAR_DW, (dY, x))


def conv2d_dx(dY: Any, weight: Any, **static: Any) -> Any:
    return record(products._CONV2D_DX, (dY, weight), static)


def conv2d_dw(dY: Any, x: Any, **static: Any) -> Any:
    return record(products._CONV2D_DW, (dY, x), static)


def max_pool2d_grad(dY: Any, index: Any, **static: Any) -> Any:
    return record(products._MAX_POOL2D_GRAD, (dY, index), static)


def max_pool2d_take(x: Any, index: Any, **static: Any) -> Any:
    return record(products._MAX_POOL2D_TAKE, (x, index), static)


def batch_norm_grad(dY: Any, x: Any, weight: Any, *, eps: float) -> Any:
    return networks._batch_norm_grad(dY, x, weight, eps)


def there_and_back(x: Any) -> Any:
    """float64 → float32 → float64, so that both directions are differentiated."""
    return ops.cast(ops.cast(x, np.dtype(np.float32)), np.dtype(np.float64))


def to_int(x: Any) -> Any:
    return ops.cast(x, np.dtype(np.int64))


def to_bool(x: Any) -> Any:
    return ops.cast(x, np.dtype(np.bool_))


def spread(function: Callable[..., Any]) -> Callable[..., Any]:
    """``function(x, *args)`` as a function of x and a static ``args``."""
    return lambda x, *, args: function(x, *args)


# ---- references


def _pair(x: Any) -> tuple[int, int]:
    return x if isinstance(x, tuple) else (x, x)


def sigmoid_of(x: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-x))


def relu_of(x: np.ndarray) -> np.ndarray:
    return np.where(x < 0, 0.0, x)


def relu_grad_of(dY: np.ndarray, y: np.ndarray) -> np.ndarray:
    return np.where(y <= 0, 0.0, dY)


def rounded(x: np.ndarray) -> np.ndarray:
    return x.astype(np.float32).astype(np.float64)


def flatten_of(x: np.ndarray, args: tuple[int, int]) -> np.ndarray:
    start, end = (a % max(1, x.ndim) for a in args)
    middle = int(np.prod(x.shape[start : end + 1]))
    return x.reshape(*x.shape[:start], middle, *x.shape[end + 1 :])


def reshape_of(x: np.ndarray, args: Shape) -> np.ndarray:
    return np.reshape(x, args)


def permute_of(x: np.ndarray, args: Shape) -> np.ndarray:
    return np.transpose(x, args)


def squeeze_of(x: np.ndarray, args: Any) -> np.ndarray:
    return np.squeeze(x, tuple(d for d in args if x.shape[d] == 1) if args else None)


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


def amax_of(x: np.ndarray, dim: Any = None, keepdim: bool = False) -> np.ndarray:
    return np.max(x, axis=dim, keepdims=keepdim)


def argmax_of(x: np.ndarray, dim: Any = None, keepdim: bool = False) -> np.ndarray:
    return np.argmax(x, axis=dim, keepdims=keepdim)


def sum_to_size_of(x: np.ndarray, args: Shape) -> np.ndarray:
    x = x.sum(axis=tuple(range(x.ndim - len(args))))
    return x.sum(axis=tuple(i for i, s in enumerate(args) if s != x.shape[i]), keepdims=True)


def linear_of(x: np.ndarray, weight: np.ndarray, bias: np.ndarray | None = None) -> np.ndarray:
    y = np.einsum("...i,oi->...o", x, weight)
    return y if bias is None else y + bias


def _cells(
    weight: Shape, stride: Any, dilation: Any, spots: Shape
) -> Iterator[tuple[int, int, slice, slice]]:
    """Each cell of a kernel with the rows and columns of the image it meets."""
    (sh, sw), (dh, dw), (height, width) = _pair(stride), _pair(dilation), spots
    for i in range(weight[2]):
        for j in range(weight[3]):
            rows = slice(i * dh, i * dh + (height - 1) * sh + 1, sh)
            yield i, j, rows, slice(j * dw, j * dw + (width - 1) * sw + 1, sw)


def _padded(x: np.ndarray, padding: Any, value: float = 0) -> np.ndarray:
    ph, pw = _pair(padding)
    return np.pad(x, ((0, 0), (0, 0), (ph, ph), (pw, pw)), constant_values=value)


def conv2d_of(
    x: np.ndarray,
    weight: np.ndarray,
    bias: np.ndarray | None = None,
    stride: Any = 1,
    padding: Any = 0,
    dilation: Any = 1,
    groups: int = 1,
) -> np.ndarray:
    y = np.zeros(Geometry(x.shape, weight.shape, stride, padding, dilation).result())
    x = _padded(x, padding)
    for i, j, rows, cols in _cells(weight.shape, stride, dilation, y.shape[2:]):
        for inside, outside in _groups(weight.shape, groups):
            part, cell = x[:, inside, rows, cols], weight[outside, :, i, j]
            y[:, outside] += np.einsum("nchw,oc->nohw", part, cell)
    return y if bias is None else y + bias[:, None, None]


def conv2d_dx_of(
    dY: np.ndarray,
    weight: np.ndarray,
    shape: Shape,
    stride: Any,
    padding: Any,
    dilation: Any,
    groups: int,
) -> np.ndarray:
    dX = _padded(np.zeros(shape), padding)
    for i, j, rows, cols in _cells(weight.shape, stride, dilation, dY.shape[2:]):
        for inside, outside in _groups(weight.shape, groups):
            cell = weight[outside, :, i, j]
            dX[:, inside, rows, cols] += np.einsum("nohw,oc->nchw", dY[:, outside], cell)
    return _cropped(dX, shape, padding)


def conv2d_dw_of(
    dY: np.ndarray,
    x: np.ndarray,
    shape: Shape,
    stride: Any,
    padding: Any,
    dilation: Any,
    groups: int,
) -> np.ndarray:
    dW, x = np.zeros(shape), _padded(x, padding)
    for i, j, rows, cols in _cells(shape, stride, dilation, dY.shape[2:]):
        for inside, outside in _groups(shape, groups):
            part = x[:, inside, rows, cols]
            dW[outside, :, i, j] = np.einsum("nohw,nchw->oc", dY[:, outside], part)
    return dW


def _groups(weight: Shape, groups: int) -> Iterator[tuple[slice, slice]]:
    """The channels of the image and of the result that belong together."""
    outputs, inputs = weight[0] // groups, weight[1]
    for g in range(groups):
        yield slice(g * inputs, (g + 1) * inputs), slice(g * outputs, (g + 1) * outputs)


def _cropped(x: np.ndarray, shape: Shape, padding: Any) -> np.ndarray:
    ph, pw = _pair(padding)
    return x[:, :, ph : ph + shape[2], pw : pw + shape[3]]


def pool_windows(x: np.ndarray, size: Any, stride: Any, padding: Any) -> np.ndarray:
    """The windows of x, cells flattened: (N, C, H', W', kh·kw)."""
    (sh, sw), padded = _pair(stride), _padded(x, padding, -np.inf)
    windows = sliding_window_view(padded, _pair(size), (2, 3))[:, :, ::sh, ::sw]
    return windows.reshape(*windows.shape[:4], int(np.prod(_pair(size))))


def max_pool2d_of(
    x: np.ndarray, kernel_size: Any, stride: Any = None, padding: Any = 0
) -> np.ndarray:
    stride = kernel_size if stride is None else stride
    return np.max(pool_windows(x, kernel_size, stride, padding), axis=-1)


def _pool_cells(index: np.ndarray, size: Any, stride: Any) -> Iterator[tuple[Any, Any]]:
    """Each spot of the result with the cell of the padded image that ``index`` names."""
    for n, c, i, j in np.ndindex(index.shape):
        row, column = divmod(int(index[n, c, i, j]), size[1])
        yield (n, c, i, j), (n, c, i * stride[0] + row, j * stride[1] + column)


def max_pool2d_grad_of(
    dY: np.ndarray, index: np.ndarray, shape: Shape, size: Any, stride: Any, padding: Any
) -> np.ndarray:
    dX = _padded(np.zeros(shape), padding)
    for spot, cell in _pool_cells(index, size, stride):
        dX[cell] += dY[spot]
    return _cropped(dX, shape, padding)


def max_pool2d_take_of(
    x: np.ndarray, index: np.ndarray, size: Any, stride: Any, padding: Any
) -> np.ndarray:
    y, x = np.zeros(index.shape), _padded(x, padding)
    for spot, cell in _pool_cells(index, size, stride):
        y[spot] = x[cell]
    return y


def batch_norm_of(x: np.ndarray, weight: np.ndarray, bias: np.ndarray, eps: float) -> Any:
    dims, lined_up = (0, *range(2, x.ndim)), (-1,) + (1,) * (x.ndim - 2)
    mean, var = x.mean(dims), x.var(dims)
    normal = (x - mean.reshape(lined_up)) / np.sqrt(var + eps).reshape(lined_up)
    return normal * weight.reshape(lined_up) + bias.reshape(lined_up), mean, var


def batch_norm_grad_of(dY: np.ndarray, x: np.ndarray, weight: np.ndarray, eps: float) -> Any:
    """Ioffe and Szegedy 2015, section 3, step by step."""
    dims, lined_up = (0, *range(2, x.ndim)), (-1,) + (1,) * (x.ndim - 2)
    count = x.size // x.shape[1]
    deviation = np.sqrt(x.var(dims) + eps).reshape(lined_up)
    centred = x - x.mean(dims, keepdims=True)
    dnormal = dY * weight.reshape(lined_up)
    dvar = np.sum(dnormal * centred, dims, keepdims=True) * -0.5 / deviation**3
    dmean = -np.sum(dnormal, dims, keepdims=True) / deviation
    dX = dnormal / deviation + dvar * 2 * centred / count + dmean / count
    return dX, np.sum(dY * centred / deviation, dims), np.sum(dY, dims)


def cross_entropy_of(x: np.ndarray, target: np.ndarray) -> np.ndarray:
    return -log_softmax_of(x, 1)[np.arange(len(x)), target]


def cross_entropy_grad_of(dY: np.ndarray, x: np.ndarray, target: np.ndarray) -> np.ndarray:
    return dY[:, None] * (softmax_of(x, 1) - np.eye(x.shape[1])[target])


def getitem_grad_of(dY: np.ndarray, index: Any, shape: Shape) -> np.ndarray:
    dX = np.zeros(shape)
    dX[index] = dY
    return dX


def take_scaled_of(x: np.ndarray, index: np.ndarray, scale: float, shift: float) -> np.ndarray:
    return (x[index] * scale + shift).astype(np.float32)


def dropout_of(x: np.ndarray, p: float, seed: int) -> np.ndarray:
    if p in (0, 1):
        return x * (1 - p)
    random.manual_seed(seed)
    key = random.next_key().fn()
    numbers = [half for i in range((x.size + 1) // 2) for half in _halves(splitmix64(key, i))]
    kept = np.array(numbers[: x.size], np.uint64).reshape(x.shape) >= round(p * 2**32)
    return x * kept / (1 - p)


def splitmix64(key: int, i: int) -> int:
    """Number ``i`` of the stream ``key`` (Steele, Lea, Flood 2014), in Python's integers."""
    z = (key + (i + 1) * 0x9E3779B97F4A7C15) % 2**64
    z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) % 2**64
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) % 2**64
    return z ^ (z >> 31)


def _halves(z: int) -> tuple[int, int]:
    return z % 2**32, z >> 32


# ---- the table

POSITIVE = between(0.3, 3)
TIES = "where two elements are equal"
COARSE = {"eps": 0.5, "rtol": 1e-5, "atol": 1e-5}  # for float32 in the middle of a linear op

RESHAPES = shaped(
    ((), (1, 1)),
    ((0, 3), (3, 0, 2)),
    ((1, 1), ()),
    ((3, 4), (-1,)),
    ((3, 4), (2, 6)),
    ((2, 3, 4), (4, -1, 2)),
)
VIEWS = contiguous_only(RESHAPES)
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
    ((1, 3, 1), (-1,)),
)
PLACES = shaped(
    ((), (0,)),
    ((0, 3), (1,)),
    ((5,), (-1,)),
    ((5,), (-2,)),
    ((3, 4), (1,)),
    ((3, 4), (2,)),
)
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
    # arithmetic
    Row("add", ops.add, ("add",), two(normal), np.add),
    Row("subtract", ops.subtract, ("subtract",), two(normal), np.subtract),
    Row("multiply", ops.multiply, ("multiply",), two(normal), np.multiply),
    Row("divide", ops.divide, ("divide",), two(normal, off_zero), np.divide),
    Row("pow", ops.pow, ("pow",), two(POSITIVE, between(-2, 3)), np.power),
    Row("pow:number", ops.pow, ("pow",), powers, np.power),
    Row("pow:square", lambda x: ops.pow(x, 2), ("square",), one(normal), np.square),
    Row("pow:root", lambda x: ops.pow(x, 0.5), ("sqrt",), one(POSITIVE), np.sqrt),
    Row("maximum", ops.maximum, ("maximum",), two(integral, halves), np.maximum, kinks=TIES),
    Row("maximum:ties", ops.maximum, ("maximum",), two(tied), np.maximum, ()),
    Row("minimum", ops.minimum, ("minimum",), two(integral, halves), np.minimum, kinks=TIES),
    Row("minimum:ties", ops.minimum, ("minimum",), two(tied), np.minimum, ()),
    # comparisons
    Row("equal", ops.equal, ("equal",), two(tied), np.equal, ()),
    Row("not_equal", ops.not_equal, ("not_equal",), two(tied), np.not_equal, ()),
    Row("less", ops.less, ("less",), two(tied), np.less, ()),
    Row("less_equal", ops.less_equal, ("less_equal",), two(tied), np.less_equal, ()),
    Row("greater", ops.greater, ("greater",), two(tied), np.greater, ()),
    Row("greater_equal", ops.greater_equal, ("greater_equal",), two(tied), np.greater_equal, ()),
    # functions of one tensor
    Row("negative", ops.negative, ("negative",), one(normal), np.negative),
    Row("abs", ops.abs, ("abs",), one(off_zero), np.abs, kinks="at 0"),
    Row("sign", ops.sign, ("sign",), one(tied), np.sign, ()),
    Row("square", ops.square, ("square",), one(normal), np.square),
    Row("exp", ops.exp, ("exp",), one(normal), np.exp),
    Row("log", ops.log, ("log",), one(POSITIVE), np.log),
    Row("sqrt", ops.sqrt, ("sqrt",), one(POSITIVE), np.sqrt),
    Row("sin", ops.sin, ("sin",), one(normal), np.sin),
    Row("cos", ops.cos, ("cos",), one(normal), np.cos),
    Row("tanh", ops.tanh, ("tanh",), one(normal), np.tanh),
    # activations
    Row("relu", ops.relu, ("relu",), one(off_zero), relu_of, kinks="at 0"),
    Row("relu:zeros", ops.relu, ("relu",), one(tied), relu_of, ()),
    Row("relu_grad", pointwise.relu_grad, ("relu_grad",), alike(normal, relus), relu_grad_of, (0,)),
    Row("sigmoid", ops.sigmoid, ("sigmoid",), one(normal), sigmoid_of),
    Row("sigmoid:far", ops.sigmoid, ("sigmoid",), one(between(-700, 700)), sigmoid_of, ()),
    Row(
        "sigmoid_grad",
        pointwise.sigmoid_grad,
        ("sigmoid_grad",),
        alike(normal, sigmoids),
        lambda dY, y: dY * y * (1 - y),
    ),
    # choice and dtypes
    Row("where", ops.where, ("where",), chosen, np.where, (1, 2)),
    Row("cast", there_and_back, ("cast",), one(normal), rounded, check=COARSE, rtol32=1e-6),
    Row("cast:int", to_int, ("cast",), one(between(-9, 9)), lambda x: x.astype(np.int64), ()),
    Row("cast:bool", to_bool, ("cast",), one(tied), lambda x: x.astype(np.bool_), ()),
    # views and copies
    Row("reshape", spread(ops.reshape), ("reshape",), RESHAPES, reshape_of, aliases=True),
    Row("view", spread(ops.view), ("reshape",), VIEWS, reshape_of, aliases=True),
    Row("flatten", spread(ops.flatten), ("reshape",), FLATTENS, flatten_of, aliases=True),
    Row("permute", spread(ops.permute), ("permute",), PERMUTES, permute_of, aliases=True),
    Row("transpose", spread(ops.transpose), ("permute",), SWAPS, spread(np.swapaxes), aliases=True),
    Row(
        "expand", spread(ops.expand), ("expand",), EXPANSIONS, spread(np.broadcast_to), aliases=True
    ),
    Row("squeeze", spread(ops.squeeze), (), SQUEEZES, squeeze_of, aliases=True),
    Row(
        "unsqueeze",
        spread(ops.unsqueeze),
        ("getitem",),
        PLACES,
        spread(np.expand_dims),
        aliases=True,
    ),
    Row("getitem", ops.getitem, ("getitem",), indexed, lambda x, index: x[index], aliases=True),
    Row("getitem_grad", shapes.getitem_grad, ("getitem_grad",), index_gradients, getitem_grad_of),
    Row("clone", ops.clone, ("copy",), one(normal), np.copy),
    Row("contiguous", ops.contiguous, (), one(normal), np.copy, aliases=True),
    # reductions
    Row("sum", ops.sum, ("sum",), reduced(normal), sum_of),
    Row("mean", ops.mean, ("sum",), reduced(normal, empty=(3, 0)), mean_of),
    Row("amax", ops.amax, ("max",), reduced(spaced, empty=(3, 0)), amax_of, kinks=TIES),
    Row("amax:ties", ops.amax, ("max",), reduced(tied, empty=(3, 0)), amax_of, ()),
    Row("argmax", ops.argmax, ("argmax",), argmaxes(spaced), argmax_of, ()),
    Row("argmax:ties", ops.argmax, ("argmax",), argmaxes(tied), argmax_of, ()),
    Row("sum_to_size", spread(ops.sum_to_size), (), SIZES, sum_to_size_of, aliases=True),
    Row(
        "unbroadcast",
        lambda x, *, args: ops.unbroadcast(x, args),
        (),
        SIZES,
        sum_to_size_of,
        aliases=True,
    ),
    Row("softmax", ops.softmax, ("exp",), along(normal), softmax_of),
    Row("log_softmax", ops.log_softmax, ("log",), along(normal), log_softmax_of),
    # products
    Row("matmul", ops.matmul, ("matmul",), matrices, np.matmul),
    Row("linear", ops.linear, ("linear",), layers, linear_of),
    Row("linear_dw", linear_dw, ("linear_dw",), layer_gradients, lambda dY, x: dY.T @ x),
    Row("conv2d", ops.conv2d, ("conv2d",), images, conv2d_of),
    Row("conv2d_dx", conv2d_dx, ("conv2d_dx",), image_gradients, conv2d_dx_of),
    Row("conv2d_dw", conv2d_dw, ("conv2d_dw",), weight_gradients, conv2d_dw_of),
    Row("max_pool2d", ops.max_pool2d, ("max_pool2d",), pooled, max_pool2d_of, kinks=TIES),
    Row(
        "max_pool2d_grad", max_pool2d_grad, ("max_pool2d_grad",), pool_gradients, max_pool2d_grad_of
    ),
    Row("max_pool2d_take", max_pool2d_take, ("max_pool2d_take",), pool_takes, max_pool2d_take_of),
    # networks
    Row("batch_norm", ops.batch_norm, ("batch_norm",), channels, batch_norm_of, rtol32=1e-4),
    Row(
        "batch_norm_grad",
        batch_norm_grad,
        ("batch_norm_grad",),
        channel_gradients,
        batch_norm_grad_of,
        rtol32=1e-4,
    ),
    Row("cross_entropy", ops.cross_entropy, ("cross_entropy",), classes, cross_entropy_of),
    Row(
        "cross_entropy_grad",
        networks.cross_entropy_grad,
        ("cross_entropy_grad",),
        class_gradients,
        cross_entropy_grad_of,
    ),
    Row("dropout", dropout, (), masked, dropout_of, aliases=True),
    Row("take_scaled", ops.take_scaled, ("take_scaled",), batches, take_scaled_of, (), rtol=1e-6),
]


# ---- kernels that no op reaches


@dataclass(frozen=True)
class Direct:
    """A kernel called by hand: by an optimizer, in place, or to make an array."""

    kernel: str
    draw: Draw


def updates(buffers: int, *settings: dict[str, Any]) -> Draw:
    """An optimizer's parameters, gradients and ``buffers`` lists, for each of the settings."""

    def draw(rng: Rng) -> list[Case]:
        sizes: list[Shape] = [(3, 4), (5,), (), (0, 2), (130, 257)]
        return [
            case(*[[between(0.1, 2)(rng, s) for s in sizes] for _ in range(2 + buffers)], **static)
            for static in settings
        ]

    return draw


def plain_sgd(rng: Rng) -> list[Case]:
    """Without momentum there are no buffers."""
    cases = updates(0, SGD, {**SGD, "weight_decay": 0.1})(rng)
    return [case(*c.inputs, [], **c.static) for c in cases]


def written(rng: Rng) -> list[Case]:
    """An array and what goes into it."""
    shapes: list[tuple[Shape, Shape]] = [((), ()), ((0, 3), (3,)), ((3, 4), (4,)), ((3, 4), ())]
    cases = [case(normal(rng, x), normal(rng, y)) for x, y in shapes]
    cases.append(case(gaps(normal(rng, (3, 4))), turned(normal(rng, (3, 4)))))
    return [*cases, case(normal(rng, (3, 4)), whole(9)(rng, (3, 4)))]


def moved(rng: Rng) -> list[Case]:
    """An array and where it moves to, of one shape."""
    return [
        case(*c.inputs, weight=0.3)
        for c in alike(normal, normal)(rng)
        if 0 not in c.inputs[0].strides  # an expanded array is not for writing
    ]


SHAPES: list[Shape] = [(), (0, 3), (1,), (5,), (3, 4), (257, 401)]
SGD = {
    "lr": 0.1,
    "momentum": 0.0,
    "dampening": 0.0,
    "weight_decay": 0.0,
    "nesterov": False,
    "step": 1,
}
MOMENTUM = [
    {**SGD, "momentum": 0.9},
    {**SGD, "momentum": 0.9, "step": 2},
    {**SGD, "momentum": 0.9, "dampening": 0.5, "weight_decay": 0.1, "step": 2},
    {**SGD, "momentum": 0.9, "nesterov": True, "step": 3},
]
ADAM = {"lr": 0.1, "beta1": 0.9, "beta2": 0.99, "eps": 1e-8, "weight_decay": 0.0, "step": 1}
F32, F64 = np.dtype(np.float32), np.dtype(np.float64)

DIRECT = [
    Direct("full", lambda rng: [case(shape=s, value=2.5, dtype=F64) for s in SHAPES]),
    Direct("full", lambda rng: [case(shape=s, value=7, dtype=np.dtype(np.int64)) for s in SHAPES]),
    Direct("uniform", lambda rng: [case(shape=s, key=2**63 + 5, dtype=F32) for s in SHAPES]),
    Direct("uniform", lambda rng: [case(shape=s, key=3, dtype=F64) for s in SHAPES]),
    Direct("dropout_mask", lambda rng: [case(shape=s, p=0.3, key=9, dtype=F32) for s in SHAPES]),
    Direct("copy_", written),
    Direct("fill_", lambda rng: [case(*c.inputs[:1], value=0.5) for c in moved(rng)]),
    Direct("lerp_", moved),
    Direct("sgd_", plain_sgd),
    Direct("sgd_", updates(1, *MOMENTUM)),
    Direct("adam_", updates(2, ADAM, {**ADAM, "weight_decay": 0.1, "step": 7})),
]


# ---- how a row is called


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


def several(results: Any) -> tuple[Any, ...]:
    return results if isinstance(results, tuple) else (results,)
