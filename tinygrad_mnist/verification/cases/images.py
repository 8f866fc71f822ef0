"""Rows of convolution, pooling and windows as ``nn.functional`` has them."""

from __future__ import annotations

import math
from collections.abc import Iterator
from itertools import product
from typing import Any

import numpy as np

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
from tinygrad_mnist.verification.cases.products import conv2d_of

Settings = dict[str, Any]


def _pair(x: Any) -> tuple[Any, Any]:
    return tuple(x) if isinstance(x, tuple | list) else (x, x)


def places(
    n: int, k: int, s: int = 1, p: int = 0, d: int = 1, ceil: bool = False
) -> list[list[int]]:
    """Of each window along a dim of size ``n`` its cells' places, some of them in the padding."""
    room = (n + 2 * p - d * (k - 1) - 1) / s
    count = (math.ceil(room) if ceil else math.floor(room)) + 1
    if ceil and (count - 1) * s >= n + p:
        count -= 1
    return [[i * s - p + j * d for j in range(k)] for i in range(count)]


def inside(cells: list[int], n: int) -> list[int]:
    return [c for c in cells if 0 <= c < n]


def grid(shape: Shape, kernel_size: Any, **settings: Any) -> list[list[list[int]]]:
    """``places`` of the rows and of the columns of an image."""
    each = {key: _pair(value) for key, value in settings.items()}
    return [
        places(shape[-2 + i], _pair(kernel_size)[i], **{key: v[i] for key, v in each.items()})
        for i in (0, 1)
    ]


# ---- windows


WINDOWS: list[tuple[Shape, Settings]] = [
    ((2, 2, 4, 5), {"size": (2, 3), "stride": (1, 1), "dilation": (1, 1)}),
    ((1, 2, 5, 5), {"size": (3, 2), "stride": (2, 1), "dilation": (1, 2)}),
    ((2, 1, 6, 6), {"size": (2, 2), "stride": (2, 2), "dilation": (1, 1)}),
    ((1, 1, 7, 6), {"size": (2, 2), "stride": (1, 3), "dilation": (3, 1)}),
    ((2, 1, 3, 3), {"size": (3, 3), "stride": (1, 1), "dilation": (1, 1)}),
    ((0, 2, 4, 4), {"size": (2, 2), "stride": (1, 1), "dilation": (1, 1)}),
    ((1, 1, 4, 4), {"size": (1, 1), "stride": (3, 2), "dilation": (1, 1)}),
    ((2, 1, 7, 5), {"size": (3, 4), "stride": (3, 2), "dilation": (2, 1)}),
]


def windowed(rng: Rng) -> list[Case]:
    cases = [case(normal(rng, shape), **settings) for shape, settings in WINDOWS]
    (a, first), (b, second) = WINDOWS[:2]
    return [
        *cases,
        case(gaps(normal(rng, a)), **first),
        case(turned(normal(rng, b)), **second),
        case(normal(rng, (9, 3, 20, 21)), **first, smooth=False),
    ]


def window_gradients(rng: Rng) -> list[Case]:
    cases = []
    for i, (shape, settings) in enumerate(WINDOWS):
        dY = normal(rng, windows_of(np.zeros(shape), **settings).shape)
        rest = {"shape": shape, "stride": settings["stride"], "dilation": settings["dilation"]}
        cases.append(case(dY, **rest))
        if i < 2:
            cases.append(case((gaps, turned)[i](dY), **rest))
    return cases


def windows_of(x: np.ndarray, size: Any, stride: Any, dilation: Any) -> np.ndarray:
    rows, columns = grid(x.shape, size, s=stride, d=dilation)
    taken = x[:, :, np.array(rows).T[:, None, :, None], np.array(columns).T[None, :, None, :]]
    return np.asarray(taken)


def windows_grad_of(dY: np.ndarray, shape: Shape, stride: Any, dilation: Any) -> np.ndarray:
    dX = np.zeros(shape)
    rows, columns = grid(shape, dY.shape[2:4], s=stride, d=dilation)
    for (i, top), (j, left) in product(enumerate(rows), enumerate(columns)):
        dX[:, :, np.array(top)[:, None], left] += dY[:, :, :, :, i, j]
    return dX


UNFOLDS: list[tuple[Shape, Settings]] = [
    ((2, 2, 4, 5), {"kernel_size": 2}),
    ((2, 1, 5, 5), {"kernel_size": (3, 2), "padding": (1, 0), "stride": 2}),
    ((1, 2, 5, 6), {"kernel_size": 2, "dilation": (2, 1), "padding": 1, "stride": (1, 3)}),
    ((2, 4, 3), {"kernel_size": (2, 3)}),
    ((1, 3, 3), {"kernel_size": 3, "padding": 1}),
    ((0, 2, 4, 4), {"kernel_size": 2}),
]


def columns_of_images(rng: Rng) -> list[Case]:
    cases = [case(normal(rng, shape), **settings) for shape, settings in UNFOLDS]
    (a, first), (b, second) = UNFOLDS[:2]
    strided = [case(gaps(normal(rng, a)), **first), case(turned(normal(rng, b)), **second)]
    return [*cases, *strided]


def images_of_columns(rng: Rng) -> list[Case]:
    cases = []
    for i, (shape, settings) in enumerate(UNFOLDS):
        x = normal(rng, unfold_of(np.zeros(shape), **settings).shape)
        layouts = [x, gaps(x), turned(x)][: 3 if i < 2 else 1]
        cases += [case(layout, output_size=shape[-2:], **settings) for layout in layouts]
    return cases


def unfold_of(
    x: np.ndarray, kernel_size: Any, dilation: Any = 1, padding: Any = 0, stride: Any = 1
) -> np.ndarray:
    (ph, pw), c = _pair(padding), x.shape[-3]
    wide = np.pad(x, [(0, 0)] * (x.ndim - 2) + [(ph, ph), (pw, pw)])
    rows, columns = grid(wide.shape, kernel_size, s=stride, d=dilation)
    found = [
        wide[..., np.array(top)[:, None], left].reshape(
            *x.shape[:-3], c * len(rows[0]) * len(columns[0])
        )
        for top, left in product(rows, columns)
    ]
    return np.stack(found, -1)


def fold_of(
    x: np.ndarray,
    output_size: Shape,
    kernel_size: Any,
    dilation: Any = 1,
    padding: Any = 0,
    stride: Any = 1,
) -> np.ndarray:
    (kh, kw), (ph, pw), (h, w) = _pair(kernel_size), _pair(padding), output_size
    y = np.zeros((*x.shape[:-2], x.shape[-2] // (kh * kw), h + 2 * ph, w + 2 * pw))
    rows, columns = grid(y.shape, kernel_size, s=stride, d=dilation)
    for i, (top, left) in enumerate(product(rows, columns)):
        y[..., np.array(top)[:, None], left] += x[..., i].reshape(*y.shape[:-2], kh, kw)
    return y[..., ph : ph + h, pw : pw + w]


# ---- convolution


CONVOLUTIONS: list[tuple[Shape, Shape, Settings]] = [
    ((2, 3, 5, 6), (4, 3, 3, 3), {"padding": "same"}),
    ((1, 2, 5, 6), (3, 2, 2, 4), {"padding": "same"}),
    ((2, 2, 5, 4), (2, 1, 2, 3), {"padding": "same", "dilation": (3, 2), "groups": 2}),
    ((2, 3, 5, 6), (4, 3, 3, 2), {"padding": "valid", "stride": (2, 1)}),
    ((3, 5, 6), (4, 3, 3, 2), {"padding": 1}),
    ((3, 5, 6), (2, 3, 2, 2), {"padding": "same"}),
    ((0, 3, 5, 6), (4, 3, 2, 2), {"padding": "same"}),
]

SEQUENCES: list[tuple[Shape, Shape, Settings]] = [
    ((2, 3, 7), (4, 3, 3), {}),
    ((2, 3, 7), (4, 3, 2), {"stride": 2, "padding": 1}),
    ((1, 4, 8), (2, 2, 3), {"dilation": (2,), "groups": 2, "padding": (2,)}),
    ((2, 3, 6), (2, 3, 4), {"padding": "same"}),
    ((3, 6), (2, 3, 1), {"padding": "valid", "stride": (3,)}),
    ((3, 6), (2, 3, 3), {"padding": "same", "dilation": 2}),
    ((0, 3, 6), (2, 3, 3), {}),
]

TRANSPOSED: list[tuple[Shape, Shape, Settings]] = [
    ((2, 3, 3, 4), (3, 2, 2, 3), {}),
    ((2, 3, 3, 4), (3, 2, 3, 2), {"stride": 2, "padding": 1, "output_padding": 1}),
    ((1, 4, 3, 3), (4, 2, 2, 2), {"groups": 2, "stride": (1, 2), "dilation": (2, 1)}),
    ((1, 2, 3, 3), (2, 2, 2, 2), {"dilation": 3, "output_padding": (2, 1), "padding": (1, 0)}),
    ((3, 2, 3), (3, 1, 2, 2), {"stride": 3, "output_padding": (2, 0)}),
    ((0, 3, 3, 4), (3, 2, 2, 3), {}),
    ((2, 1, 1, 1), (1, 1, 1, 1), {"stride": 2, "output_padding": 1}),
]


def convolved_with(calls: list[tuple[Shape, Shape, Settings]], outputs: int) -> Draw:
    """Each call, every other one with a bias of the weight's dim ``outputs``."""

    def draw(rng: Rng) -> list[Case]:
        cases = []
        for i, (shape, weight, settings) in enumerate(calls):
            channels = weight[outputs] * (settings.get("groups", 1) if outputs else 1)
            bias = normal(rng, (channels,)) if i % 2 == 0 else None
            x, kernel = normal(rng, shape), normal(rng, weight)
            cases.append(case(x, kernel, bias, **settings))
            if i < 2:
                cases.append(case(gaps(x), turned(kernel), bias, **settings))
        return cases

    return draw


def convolution_of(
    x: np.ndarray,
    weight: np.ndarray,
    bias: np.ndarray | None = None,
    stride: Any = 1,
    padding: Any = 0,
    dilation: Any = 1,
    groups: int = 1,
) -> np.ndarray:
    """conv2d, or of one dim less conv1d, with or without a batch."""
    ndim = weight.ndim - 2
    s, d = (_several(value, ndim) for value in (stride, dilation))
    margins = _margins(padding, weight.shape[2:], d)
    wide = np.pad(x, [(0, 0)] * (x.ndim - ndim) + margins)
    wide = wide if x.ndim == weight.ndim else wide[None]
    if ndim == 1:
        wide, weight, s, d = wide[:, :, None], weight[:, :, None], (1, *s), (1, *d)
    y = conv2d_of(wide, weight, bias, s, 0, d, groups)
    y = y[:, :, 0] if ndim == 1 else y
    return y if x.ndim == ndim + 2 else y[0]


def _several(value: Any, ndim: int) -> tuple[Any, ...]:
    found = tuple(value) if isinstance(value, tuple | list) else (value,)
    return found * ndim if len(found) == 1 else found


def _margins(padding: Any, kernel: Shape, dilation: tuple[int, ...]) -> list[tuple[int, int]]:
    if padding == "valid":
        return [(0, 0)] * len(kernel)
    if padding != "same":
        return [(p, p) for p in _several(padding, len(kernel))]
    totals = [d * (k - 1) for d, k in zip(dilation, kernel, strict=True)]
    return [(total // 2, total - total // 2) for total in totals]


def conv_transpose2d_of(
    x: np.ndarray,
    weight: np.ndarray,
    bias: np.ndarray | None = None,
    stride: Any = 1,
    padding: Any = 0,
    output_padding: Any = 0,
    groups: int = 1,
    dilation: Any = 1,
) -> np.ndarray:
    """Each pixel leaves its multiple of the kernel."""
    if x.ndim == 3:
        args = (weight, bias, stride, padding, output_padding, groups, dilation)
        return conv_transpose2d_of(x[None], *args)[0]
    (sh, sw), (ph, pw), (dh, dw) = _pair(stride), _pair(padding), _pair(dilation)
    (eh, ew), (n, c, h, w), (_, o, kh, kw) = _pair(output_padding), x.shape, weight.shape
    height, width = (h - 1) * sh + dh * (kh - 1) + 1 + eh, (w - 1) * sw + dw * (kw - 1) + 1 + ew
    y = np.zeros((n, o * groups, height, width))
    for i, j, g in product(range(h), range(w), range(groups)):
        pixels = x[:, g * c // groups : (g + 1) * c // groups, i, j]
        kernel = weight[g * c // groups : (g + 1) * c // groups]
        rows, columns = i * sh + dh * np.arange(kh), j * sw + dw * np.arange(kw)
        part = y[:, g * o : (g + 1) * o]
        part[:, :, rows[:, None], columns] += np.einsum("nc,cohw->nohw", pixels, kernel)
    y = y[:, :, ph : height - ph, pw : width - pw]
    return y if bias is None else y + bias[:, None, None]


# ---- pooling


POOLS: list[tuple[Shape, Settings]] = [
    ((2, 2, 5, 7), {"kernel_size": 2, "ceil_mode": True}),
    ((1, 2, 5, 6), {"kernel_size": (3, 2), "stride": (2, 3), "padding": 1, "ceil_mode": True}),
    ((2, 4, 4), {"kernel_size": 3, "stride": 2, "padding": (1, 0)}),
    ((1, 1, 3, 4), {"kernel_size": 5, "stride": 4, "padding": 0, "ceil_mode": True}),
    ((1, 5, 5), {"kernel_size": [2, 3], "stride": 1}),
    ((0, 2, 5, 5), {"kernel_size": 2, "ceil_mode": True}),
]

DILATED: list[tuple[Shape, Settings]] = [
    ((2, 1, 5, 6), {"kernel_size": 2, "stride": 1, "dilation": 2}),
    ((1, 2, 6, 7), {"kernel_size": 2, "stride": 2, "padding": 1, "dilation": (2, 3)}),
    ((1, 1, 6, 6), {"kernel_size": 3, "stride": 2, "dilation": (2, 1), "ceil_mode": True}),
]

MEANS: list[tuple[Shape, Settings]] = [
    ((2, 2, 4, 6), {"kernel_size": 2}),
    ((1, 2, 5, 6), {"kernel_size": 3, "stride": 2, "padding": 1, "count_include_pad": False}),
    ((1, 1, 5, 5), {"kernel_size": 2, "ceil_mode": True, "count_include_pad": False}),
    ((2, 1, 4, 5), {"kernel_size": (2, 3), "divisor_override": 4, "padding": (1, 0)}),
    ((1, 2, 6, 6), {"kernel_size": 4, "stride": 3, "padding": 2, "ceil_mode": True}),
]


def pooled(calls: list[tuple[Shape, Settings]], fill: Any) -> Draw:
    def draw(rng: Rng) -> list[Case]:
        cases = [case(fill(rng, shape), **settings) for shape, settings in calls]
        (a, first), (b, second) = calls[:2]
        return [
            *cases,
            case(gaps(fill(rng, a)), **first),
            case(turned(fill(rng, b)), **second),
            case(tied(rng, b), **second, smooth=False),
            case(normal(rng, (9, 3, 22, 23)), **first, smooth=False),
        ]

    return draw


def _cells(
    x: np.ndarray, kernel_size: Any, stride: Any, padding: Any, dilation: Any, ceil_mode: bool
) -> tuple[list[list[int]], list[list[int]]]:
    rows, columns = grid(
        x.shape,
        kernel_size,
        s=kernel_size if stride is None else stride,
        p=padding,
        d=dilation,
        ceil=ceil_mode,
    )
    return rows, columns


def _spots(
    rows: list[list[int]], columns: list[list[int]]
) -> Iterator[tuple[int, int, list[int], list[int]]]:
    for (i, top), (j, left) in product(enumerate(rows), enumerate(columns)):
        yield i, j, top, left


def max_pool2d_of(
    x: np.ndarray,
    kernel_size: Any,
    stride: Any = None,
    padding: Any = 0,
    dilation: Any = 1,
    ceil_mode: bool = False,
) -> np.ndarray:
    rows, columns = _cells(x, kernel_size, stride, padding, dilation, ceil_mode)
    y = np.zeros((*x.shape[:-2], len(rows), len(columns)))
    for i, j, top, left in _spots(rows, columns):
        cells = x[..., inside(top, x.shape[-2]), :][..., inside(left, x.shape[-1])]
        y[..., i, j] = np.max(cells, (-2, -1))
    return y


def avg_pool2d_of(
    x: np.ndarray,
    kernel_size: Any,
    stride: Any = None,
    padding: Any = 0,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
    divisor_override: int | None = None,
) -> np.ndarray:
    rows, columns = _cells(x, kernel_size, stride, padding, 1, ceil_mode)
    (h, w), (ph, pw) = x.shape[-2:], _pair(padding)
    y = np.zeros((*x.shape[:-2], len(rows), len(columns)))
    for i, j, top, left in _spots(rows, columns):
        cells = x[..., inside(top, h), :][..., inside(left, w)]
        count = cells.shape[-1] * cells.shape[-2]
        if count_include_pad:
            count = sum(r < h + ph for r in top) * sum(c < w + pw for c in left)
        y[..., i, j] = np.sum(cells, (-2, -1)) / (divisor_override or count)
    return y


ADAPTIVE: list[tuple[Shape, Any]] = [
    ((2, 2, 4, 6), 2),
    ((1, 2, 5, 7), (3, 4)),
    ((2, 1, 4, 5), (None, 2)),
    ((1, 1, 3, 2), 5),
    ((2, 4, 3), 1),
    ((0, 2, 4, 4), (3, 2)),
    ((1, 1, 4, 4), [2, None]),
]


def adapted(rng: Rng) -> list[Case]:
    cases = [case(normal(rng, shape), output_size=size) for shape, size in ADAPTIVE]
    (a, first), (b, second) = ADAPTIVE[:2]
    return [
        *cases,
        case(gaps(normal(rng, a)), output_size=first),
        case(turned(normal(rng, b)), output_size=second),
    ]


def adaptive_avg_pool2d_of(x: np.ndarray, output_size: Any) -> np.ndarray:
    h, w = x.shape[-2:]
    a, b = (n if s is None else s for n, s in zip((h, w), _pair(output_size), strict=True))
    y = np.zeros((*x.shape[:-2], a, b))
    for i, j in np.ndindex(a, b):
        rows = slice(math.floor(i * h / a), math.ceil((i + 1) * h / a))
        columns = slice(math.floor(j * w / b), math.ceil((j + 1) * w / b))
        y[..., i, j] = np.mean(x[..., rows, columns], (-2, -1))
    return y


def integer_convolutions(rng: Rng) -> list[Case]:
    cases = []
    for (shape, weight, settings), fill in zip(CONVOLUTIONS, [whole(9), U8] * 4, strict=False):
        bias = fill(rng, weight[:1])
        cases.append(case(fill(rng, shape), gaps(fill(rng, weight)), bias, **settings))
    return cases


def integer_pools(rng: Rng) -> list[Case]:
    calls, fills = [*POOLS, *DILATED], [whole(9), U8, I32] * 3
    negative = [case(I32(rng, (1, 1, 4, 4)) - 20, kernel_size=2, padding=1)]
    return negative + [
        case(gaps(fill(rng, shape)), **settings)
        for (shape, settings), fill in zip(calls, fills, strict=True)
    ]


U8, I32 = whole(200, np.uint8), whole(9, np.int32)


def integer_convolution_of(x: np.ndarray, weight: np.ndarray, bias: Any, **settings: Any) -> Any:
    y = convolution_of(x.astype(float), weight.astype(float), bias.astype(float), **settings)
    return y.astype(np.int64).astype(x.dtype)  # wraps round


ROWS = [
    Row("windows", products.windows, ("windows",), windowed, windows_of, aliases=True),
    Row(
        "windows_grad", products.windows_grad, ("windows_grad",), window_gradients, windows_grad_of
    ),
    Row("unfold", F.unfold, ("windows",), columns_of_images, unfold_of, aliases=True),
    Row("fold", F.fold, ("windows_grad",), images_of_columns, fold_of),
    Row(
        "conv2d:padding",
        F.conv2d,
        ("conv2d",),
        convolved_with(CONVOLUTIONS, 0),
        convolution_of,
    ),
    Row(
        "conv2d:integers",
        F.conv2d,
        ("conv2d",),
        integer_convolutions,
        integer_convolution_of,
        differentiable=(),
    ),
    Row("conv1d", F.conv1d, ("conv2d",), convolved_with(SEQUENCES, 0), convolution_of),
    Row(
        "conv_transpose2d",
        F.conv_transpose2d,
        ("conv2d_dx",),
        convolved_with(TRANSPOSED, 1),
        conv_transpose2d_of,
    ),
    Row(
        "max_pool2d:settings",
        F.max_pool2d,
        ("max_pool2d",),
        pooled([*POOLS, *DILATED], spaced),
        max_pool2d_of,
        kinks=TIES,
    ),
    Row(
        "max_pool2d:integers",
        F.max_pool2d,
        ("max_pool2d",),
        integer_pools,
        lambda x, **settings: max_pool2d_of(x, **settings).astype(x.dtype),
        differentiable=(),
    ),
    Row("avg_pool2d", F.avg_pool2d, ("windows",), pooled([*MEANS, *POOLS], normal), avg_pool2d_of),
    Row(
        "adaptive_avg_pool2d",
        F.adaptive_avg_pool2d,
        ("windows", "sum"),
        adapted,
        adaptive_avg_pool2d_of,
    ),
]
