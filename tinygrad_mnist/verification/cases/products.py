"""Rows of ``ops.products`` and of what is composed of it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

import tinygrad_mnist as tg
from tinygrad_mnist.kernels import Conv, Pool
from tinygrad_mnist.nn import functional as F
from tinygrad_mnist.ops import products
from tinygrad_mnist.verification.cases.draws import (
    TIES,
    Case,
    Draw,
    Rng,
    Row,
    Shape,
    case,
    gaps,
    normal,
    spaced,
    tied,
    turned,
    whole,
)


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


def products_of(*pairs: tuple[Shape, Shape]) -> Draw:
    """Two arrays of each pair of shapes; the first pair also with gaps and turned."""

    def draw(rng: Rng) -> list[Case]:
        cases = [case(normal(rng, a), normal(rng, b)) for a, b in pairs]
        a, b = pairs[0]
        strided = [
            case(gaps(normal(rng, a)), turned(normal(rng, b))),
            case(turned(normal(rng, a)), gaps(normal(rng, b))),
            case(np.broadcast_to(normal(rng, (*a[:-1], 1)), a), normal(rng, b)),
        ]
        return [*cases, *strided]

    return draw


def integer_matrices(rng: Rng) -> list[Case]:
    pairs = [((3, 4), (4, 2)), ((4,), (4,)), ((2, 3, 4), (4,)), ((0, 4), (4, 2)), ((3, 0), (0, 2))]
    cases = [case(fill(rng, a), fill(rng, b)) for fill in FILLS for a, b in pairs]
    return [*cases, case(gaps(whole(5)(rng, (3, 4))), turned(whole(5)(rng, (4, 2))))]


FILLS = (whole(9), whole(9, np.int32), whole(200, np.uint8))


def sums(*shapes: tuple[Shape, Shape, Shape]) -> Draw:
    """What is added, and the two factors, with each beta and alpha."""
    factors: list[dict[str, Any]] = [{}, {"beta": 0.5}, {"alpha": -2.0}, {"beta": 0, "alpha": 3}]

    def draw(rng: Rng) -> list[Case]:
        cases = [
            case(*(normal(rng, shape) for shape in three), **factors[i % len(factors)])
            for i, three in enumerate(shapes)
        ]
        x, a, b = (normal(rng, shape) for shape in shapes[0])
        return [*cases, case(turned(x), gaps(a), turned(b)), case(gaps(x), turned(a), gaps(b))]

    return draw


def sum_of(
    x: np.ndarray, a: np.ndarray, b: np.ndarray, beta: float = 1, alpha: float = 1
) -> np.ndarray:
    product = alpha * np.einsum("...ik,...kj->...ij", a, b)
    return product + beta * x if beta else product


EQUATIONS: list[tuple[str, tuple[Shape, ...]]] = [
    ("ij,jk->ik", ((3, 4), (4, 2))),
    ("ij,kj", ((3, 4), (2, 4))),
    ("bij,bjk->bki", ((2, 3, 4), (2, 4, 2))),
    ("aibj,bkaj->kbi", ((2, 3, 2, 3), (2, 2, 2, 3))),
    ("i,i->", ((4,), (4,))),
    ("i,j", ((3,), (2,))),
    ("ij,i->ij", ((3, 4), (3,))),
    ("ij,ij->ij", ((3, 1), (3, 4))),
    ("ij,jk->k", ((3, 4), (4, 2))),
    ("ii->i", ((3, 3),)),
    ("iij,jj", ((3, 3, 2), (2, 2))),
    ("...ij,...jk->...ik", ((2, 1, 3, 2), (4, 2, 3))),
    ("i...,...->...i", ((3, 2), ())),
    (" b a -> a b ", ((3, 4),)),
    ("Ba", ((3, 4),)),
    ("->", ((),)),
    ("ij->", ((3, 4),)),
    ("ij,jk,kl->il", ((2, 3), (3, 4), (4, 2))),
    ("i,ij,j", ((2,), (2, 3), (3,))),
    ("ij,jk->ik", ((3, 0), (0, 2))),
    ("ij,jk->ik", ((0, 3), (3, 2))),
    ("ii", ((0, 0),)),
]


def equations(rng: Rng) -> list[Case]:
    cases = [case(*(normal(rng, s) for s in shapes), equation=e) for e, shapes in EQUATIONS]
    for equation, shapes in EQUATIONS[:3]:
        x, y = (normal(rng, shape) for shape in shapes)
        cases.append(case(gaps(x), turned(y), equation=equation))
    return [*cases, case(turned(normal(rng, (3, 3, 2))), equation="iij->ij")]


def einsum(*operands: Any, equation: str) -> Any:
    return tg.einsum(equation, *operands)


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

    def conv(self) -> Conv:
        """The settings as the kernels take them."""
        return Conv(_pair(self.stride), _pair(self.padding), _pair(self.dilation), self.groups)

    def result(self) -> Shape:
        s, p, d, _ = self.conv()
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
        case(normal(rng, g.result()), normal(rng, g.weight), shape=g.x, conv=g.conv())
        for g in GEOMETRIES
    ]
    g = GEOMETRIES[0]
    dY, weight = turned(normal(rng, g.result())), gaps(normal(rng, g.weight))
    return [*cases, case(dY, weight, shape=g.x, conv=g.conv())]


def weight_gradients(rng: Rng) -> list[Case]:
    """dY and x."""
    cases = [
        case(normal(rng, g.result()), normal(rng, g.x), shape=g.weight, conv=g.conv())
        for g in GEOMETRIES
    ]
    g = GEOMETRIES[0]
    dY, x = gaps(normal(rng, g.result())), turned(normal(rng, g.x))
    return [*cases, case(dY, x, shape=g.weight, conv=g.conv())]


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
        case(normal(rng, index.shape), index, shape=shape, pool=pool)
        for shape, index, pool in _pool_indices(rng)
    ]
    return [*cases, _with_gaps(cases[2])]


def pool_takes(rng: Rng) -> list[Case]:
    """x and the index that max_pool2d returned for one of its shape."""
    cases = [
        case(normal(rng, shape), index, pool=pool) for shape, index, pool in _pool_indices(rng)
    ]
    return [*cases, _with_gaps(cases[2])]


def _with_gaps(found: Case) -> Case:
    return Case(tuple(gaps(x) for x in found.inputs), found.static)


def _pool_indices(rng: Rng) -> Iterator[tuple[Shape, np.ndarray, Pool]]:
    for shape, size, stride, padding in POOLS:
        pool = Pool(_pair(size), _pair(size if stride is None else stride), _pair(padding))
        windows = pool_windows(spaced(rng, shape), *pool)
        yield shape, np.argmax(windows, axis=-1).astype(np.int32), pool


def _pair(x: Any) -> tuple[int, int]:
    return x if isinstance(x, tuple) else (x, x)


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


def conv2d_dx_of(dY: np.ndarray, weight: np.ndarray, shape: Shape, conv: Conv) -> np.ndarray:
    stride, padding, dilation, groups = conv
    dX = _padded(np.zeros(shape), padding)
    for i, j, rows, cols in _cells(weight.shape, stride, dilation, dY.shape[2:]):
        for inside, outside in _groups(weight.shape, groups):
            cell = weight[outside, :, i, j]
            dX[:, inside, rows, cols] += np.einsum("nohw,oc->nchw", dY[:, outside], cell)
    return _cropped(dX, shape, padding)


def conv2d_dw_of(dY: np.ndarray, x: np.ndarray, shape: Shape, conv: Conv) -> np.ndarray:
    stride, padding, dilation, groups = conv
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


def _pool_cells(index: np.ndarray, pool: Pool) -> Iterator[tuple[Any, Any]]:
    """Each spot of the result with the cell of the padded image that ``index`` names."""
    for n, c, i, j in np.ndindex(index.shape):
        row, column = divmod(int(index[n, c, i, j]), pool.size[1])
        yield (n, c, i, j), (n, c, i * pool.stride[0] + row, j * pool.stride[1] + column)


def max_pool2d_grad_of(dY: np.ndarray, index: np.ndarray, shape: Shape, pool: Pool) -> np.ndarray:
    dX = _padded(np.zeros(shape), pool.padding)
    for spot, cell in _pool_cells(index, pool):
        dX[cell] += dY[spot]
    return _cropped(dX, shape, pool.padding)


def max_pool2d_take_of(x: np.ndarray, index: np.ndarray, pool: Pool) -> np.ndarray:
    y, x = np.zeros(index.shape), _padded(x, pool.padding)
    for spot, cell in _pool_cells(index, pool):
        y[spot] = x[cell]
    return y


ROWS = [
    # products
    Row("matmul", products.matmul, ("matmul",), matrices, np.matmul),
    Row("matmul:integers", tg.matmul, ("matmul",), integer_matrices, np.matmul, differentiable=()),
    Row(
        "mm",
        tg.mm,
        ("matmul",),
        products_of(((3, 4), (4, 2)), ((1, 1), (1, 1)), ((0, 4), (4, 2)), ((3, 0), (0, 2))),
        np.matmul,
    ),
    Row(
        "bmm",
        tg.bmm,
        ("matmul",),
        products_of(
            ((2, 3, 4), (2, 4, 2)),
            ((1, 1, 1), (1, 1, 1)),
            ((0, 3, 4), (0, 4, 2)),
            ((2, 3, 0), (2, 0, 2)),
        ),
        np.matmul,
    ),
    Row(
        "mv",
        tg.mv,
        ("matmul",),
        products_of(((3, 4), (4,)), ((1, 1), (1,)), ((0, 4), (4,)), ((3, 0), (0,))),
        np.matmul,
    ),
    Row(
        "dot",
        tg.dot,
        ("matmul",),
        products_of(((4,), (4,)), ((1,), (1,)), ((0,), (0,)), ((3,), (3,))),
        lambda x, y: np.sum(x * y),
    ),
    Row(
        "outer",
        tg.outer,
        ("multiply",),
        products_of(((4,), (3,)), ((1,), (1,)), ((0,), (3,)), ((3,), (0,))),
        np.outer,
    ),
    Row(
        "addmm",
        tg.addmm,
        ("matmul", "add", "where"),
        sums(
            ((3, 2), (3, 4), (4, 2)),
            ((2,), (3, 4), (4, 2)),
            ((3, 1), (3, 4), (4, 2)),
            ((3, 2), (3, 4), (4, 2)),
            ((), (3, 0), (0, 2)),
            ((1, 2), (0, 4), (4, 2)),
        ),
        sum_of,
    ),
    Row(
        "baddbmm",
        tg.baddbmm,
        ("matmul", "add", "where"),
        sums(
            ((2, 3, 2), (2, 3, 4), (2, 4, 2)),
            ((2,), (2, 3, 4), (2, 4, 2)),
            ((3, 1), (2, 3, 4), (2, 4, 2)),
            ((1, 3, 2), (2, 3, 4), (2, 4, 2)),
            ((), (2, 3, 0), (2, 0, 2)),
            ((1, 2), (0, 3, 4), (0, 4, 2)),
        ),
        sum_of,
    ),
    Row(
        "einsum",
        einsum,
        ("matmul", "multiply", "sum", "permute"),
        equations,
        lambda *operands, equation: np.einsum(equation, *operands),
        aliases=True,
    ),
    Row("linear", products.linear, ("linear",), layers, linear_of),
    Row("linear_dw", products.linear_dw, ("linear_dw",), layer_gradients, lambda dY, x: dY.T @ x),
    Row("conv2d", F.conv2d, ("conv2d",), images, conv2d_of),
    Row("conv2d_dx", products.conv2d_dx, ("conv2d_dx",), image_gradients, conv2d_dx_of),
    Row("conv2d_dw", products.conv2d_dw, ("conv2d_dw",), weight_gradients, conv2d_dw_of),
    Row("max_pool2d", F.max_pool2d, ("max_pool2d",), pooled, max_pool2d_of, kinks=TIES),
    Row(
        "max_pool2d_grad",
        products.max_pool2d_grad,
        ("max_pool2d_grad",),
        pool_gradients,
        max_pool2d_grad_of,
    ),
    Row(
        "max_pool2d_take",
        products.max_pool2d_take,
        ("max_pool2d_take",),
        pool_takes,
        max_pool2d_take_of,
    ),
]
