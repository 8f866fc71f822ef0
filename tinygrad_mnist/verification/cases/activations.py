"""Rows of the activations, normalisations, dropout and attention of ``nn.functional``."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from tinygrad_mnist import random
from tinygrad_mnist.autograd.backward import grad
from tinygrad_mnist.nn import functional as F
from tinygrad_mnist.ops import pointwise
from tinygrad_mnist.ops.table import full_like
from tinygrad_mnist.verification.cases.draws import (
    Case,
    Draw,
    Fill,
    Rng,
    Row,
    Shape,
    alike,
    along,
    between,
    case,
    coin,
    gaps,
    normal,
    off_zero,
    one,
    turned,
    whole,
)
from tinygrad_mnist.verification.cases.networks import dropout_of
from tinygrad_mnist.verification.cases.pointwise import sigmoid_of
from tinygrad_mnist.verification.cases.reductions import softmax_of

# ---- activations


def logsigmoid_of(x: np.ndarray) -> np.ndarray:
    return -np.logaddexp(0, -x)


def softplus_of(x: np.ndarray, beta: float = 1, threshold: float = 20) -> np.ndarray:
    return np.where(beta * x > threshold, x, np.logaddexp(0, beta * x) / beta)


def leaky_relu_of(x: np.ndarray, negative_slope: float = 0.01) -> np.ndarray:
    return np.where(x > 0, x, negative_slope * x)


def elu_of(x: np.ndarray, alpha: float = 1.0) -> np.ndarray:
    return np.where(x > 0, x, alpha * np.expm1(x))


def gelu_of(x: np.ndarray) -> np.ndarray:
    return x * (1 + np.vectorize(math.erf, [float])(x / math.sqrt(2))) / 2


def gelu_tanh_of(x: np.ndarray, approximate: str) -> np.ndarray:
    return x * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3))) / 2


def mish_of(x: np.ndarray) -> np.ndarray:
    return x * np.tanh(softplus_of(x))


def hardtanh_of(x: np.ndarray, min_val: float = -1, max_val: float = 1) -> np.ndarray:
    return np.clip(x, np.asarray(min_val, x.dtype), np.asarray(max_val, x.dtype))


def relu6_of(x: np.ndarray) -> np.ndarray:
    return hardtanh_of(x, 0, 6)


def split_by(*kinks: float) -> Fill:
    """Numbers around the kinks, none near one."""

    def fill(rng: Rng, shape: Shape) -> np.ndarray:
        middle = rng.choice(np.array(kinks), shape)
        return np.asarray(middle + off_zero(rng, shape) * 0.4)

    return fill


FAR = between(-700, 700)


def marked(rng: Rng, shape: Shape) -> np.ndarray:
    """Where the activations have their kinks, and where their powers overflow."""
    return np.asarray(rng.choice([-1e4, -1e3, -90.0, -1, 0, 1, 6, 20, 21, 90, 1e3, 1e4], shape))


def slope(name: str, slope_of: Callable[[np.ndarray], np.ndarray], **settings: Any) -> Row:
    """A row whose op is the slope of an activation at such places."""

    def slopes(x: Any) -> Any:
        leaf = x.detach().requires_grad_()
        return grad(getattr(F, name)(leaf, **settings).sum(), leaf)[0]

    return Row(
        ":".join((name, *settings.values(), "slope")),
        slopes,
        (),
        one(marked),
        slope_of,
        (),
        rtol=1e-8,
    )


def softplus_slope_of(x: np.ndarray) -> np.ndarray:
    return np.where(x > 20, 1.0, sigmoid_of(x))


def elu_slope_of(x: np.ndarray) -> np.ndarray:
    return np.where(x <= 0, np.exp(x), 1.0)


def gelu_slope_of(x: np.ndarray) -> np.ndarray:
    density = np.exp(-x * x / 2) / np.sqrt(2 * np.pi)
    return (1 + np.vectorize(math.erf, [float])(x / np.sqrt(2))) / 2 + x * density


def gelu_tanh_slope_of(x: np.ndarray) -> np.ndarray:
    inner = np.sqrt(2 / np.pi) * (x + 0.044715 * x**3)
    slope = np.sqrt(2 / np.pi) * (1 + 3 * 0.044715 * x**2)
    return (1 + np.tanh(inner) + x * slope / np.cosh(np.minimum(abs(inner), 300)) ** 2) / 2


def silu_slope_of(x: np.ndarray) -> np.ndarray:
    return sigmoid_of(x) * (1 + x * sigmoid_of(-x))


def mish_slope_of(x: np.ndarray) -> np.ndarray:
    wave = np.tanh(np.logaddexp(0, x))
    return wave + x * (1 - wave * wave) * sigmoid_of(x)


def inside(low: float, high: float) -> Callable[[np.ndarray], np.ndarray]:
    """1 between the bounds, 0 at and beyond them."""
    return lambda x: ((x > low) & (x < high)).astype(float)


# ---- dropout of channels


def channel_masks(rng: Rng) -> list[Case]:
    inputs = [
        normal(rng, (4, 3, 5)),
        normal(rng, (4, 3, 2, 5)),
        normal(rng, (0, 3, 2, 2)),
        normal(rng, (2, 3, 0)),
        gaps(normal(rng, (4, 3, 2))),
        turned(normal(rng, (3, 4, 2, 2))),
        np.broadcast_to(normal(rng, (3, 1, 1, 4)), (3, 7, 2, 4)),
    ]
    ps = (0.5, 0.5, 0.1, 0.9, 0.3, 0.25, 0.75)
    cases = [case(x, p=p, seed=7) for x, p in zip(inputs, ps, strict=True)]
    return [*cases, *[case(normal(rng, (2, 3, 4)), p=p, seed=1) for p in (0.0, 1.0)]]


def dropout2d(x: Any, *, p: float, seed: int) -> Any:
    random.manual_seed(seed)
    return F.dropout2d(x, p)


def dropout2d_of(x: np.ndarray, p: float, seed: int) -> np.ndarray:
    channels = np.ones(x.shape[:2] + (1,) * (x.ndim - 2))
    return x * dropout_of(channels, p, seed)


# ---- normalisation


def standard(x: np.ndarray, dims: Shape, eps: float) -> np.ndarray:
    if not x.size:
        return x
    mean, var = x.mean(dims, keepdims=True), x.var(dims, keepdims=True)
    return (x - mean) / np.sqrt(var + eps)


def affine(y: np.ndarray, weight: Any, bias: Any) -> np.ndarray:
    """Per channel of y (N, C, …)."""
    lined_up = (-1,) + (1,) * (y.ndim - 2)
    y = y if weight is None else y * weight.reshape(lined_up)
    return y if bias is None else y + bias.reshape(lined_up)


def layers(rng: Rng) -> list[Case]:
    """x (…, *normalized_shape), weight and bias of that shape, or None."""
    shapes: list[tuple[Shape, Shape]] = [
        ((5,), (5,)),
        ((4, 3), (3,)),
        ((2, 3, 4), (3, 4)),
        ((2, 1, 4), (2, 1, 4)),
        ((0, 3), (3,)),
        ((3, 0), (0,)),
    ]
    cases = [layer(rng, normal(rng, x), sizes) for x, sizes in shapes]
    return [
        *cases,
        layer(rng, gaps(normal(rng, (4, 3))), (3,)),
        layer(rng, turned(normal(rng, (2, 3, 4))), (4,)),
        layer(rng, np.broadcast_to(normal(rng, (1, 4)), (3, 4)), (4,)),
        case(normal(rng, (4, 3)), (3,), None, normal(rng, (3,))),
        case(normal(rng, (4, 3)), [3], normal(rng, (3,))),
        case(normal(rng, (2, 3, 4)), (3, 4)),
        layer(rng, normal(rng, (300, 130)) * 3 + 50, (130,), smooth=False),
    ]


def layer(rng: Rng, x: np.ndarray, sizes: Shape, smooth: bool = True) -> Case:
    weight, bias = between(0.5, 2)(rng, sizes), normal(rng, sizes)
    return case(x, sizes, weight, bias, smooth=smooth, eps=1e-3)


def layer_norm_of(
    x: np.ndarray, sizes: Any, weight: Any = None, bias: Any = None, eps: float = 1e-5
) -> np.ndarray:
    y = standard(x, tuple(range(-len(sizes), 0)), eps)
    return (y if weight is None else y * weight) + (0 if bias is None else bias)


def groups(rng: Rng) -> list[Case]:
    """x (N, C, …), num_groups, weight and bias (C,) or None."""
    drawn: list[tuple[np.ndarray, int]] = [
        (normal(rng, (3, 4)), 2),
        (normal(rng, (2, 6, 5)), 3),
        (normal(rng, (2, 4, 2, 3)), 1),
        (normal(rng, (2, 4, 2, 3)), 4),
        (normal(rng, (0, 4, 2)), 2),
        (normal(rng, (2, 4, 0)), 2),
        (gaps(normal(rng, (3, 4))), 2),
        (turned(normal(rng, (2, 4, 3))), 2),
    ]
    cases = [
        case(x, count, between(0.5, 2)(rng, x.shape[1:2]), normal(rng, x.shape[1:2]), eps=1e-3)
        for x, count in drawn
    ]
    return [*cases, case(normal(rng, (2, 4, 3)), 2), case(normal(rng, (16, 8, 9)), 2, smooth=False)]


def group_norm_of(
    x: np.ndarray, count: int, weight: Any = None, bias: Any = None, eps: float = 1e-5
) -> np.ndarray:
    parts = x.reshape(len(x), count, x.shape[1] // count, *x.shape[2:])
    y = standard(parts, tuple(range(2, parts.ndim)), eps)
    return affine(y.reshape(x.shape), weight, bias)


def batches(rng: Rng) -> list[Case]:
    """x (N, C, …), weight and bias (C,), or None."""
    inputs = [
        normal(rng, (4, 3)),
        normal(rng, (4, 3, 5)),
        normal(rng, (2, 3, 4, 5)),
        normal(rng, (0, 3)),
        gaps(normal(rng, (4, 3))),
        turned(normal(rng, (2, 3, 2, 2))),
    ]
    settings: list[tuple[Any, ...]]
    settings = [(x, between(0.5, 2)(rng, x.shape[1:2]), normal(rng, x.shape[1:2])) for x in inputs]
    x = normal(rng, (4, 3, 2))
    settings += [(x, None, normal(rng, (3,))), (x, between(0.5, 2)(rng, (3,)), None)]
    return [case(*inputs, eps=1e-3) for inputs in [*settings, (x, None, None)]]


def running(rng: Rng) -> list[Case]:
    """``batches`` with running mean and variance."""
    return [
        case(x, normal(rng, x.shape[1:2]), between(0.5, 2)(rng, x.shape[1:2]), *rest, **c.static)
        for c in batches(rng)
        for x, *rest in [c.inputs]
    ]


def batch_norm_training(x: Any, weight: Any, bias: Any, *, eps: float) -> Any:
    return F.batch_norm(x, None, None, weight, bias, True, eps=eps)


def batch_norm_training_of(x: np.ndarray, weight: Any, bias: Any, eps: float) -> np.ndarray:
    return affine(standard(x, (0, *range(2, x.ndim)), eps), weight, bias)


def batch_norm_running_of(
    x: np.ndarray, mean: np.ndarray, var: np.ndarray, weight: Any, bias: Any, eps: float
) -> np.ndarray:
    return affine(affine(affine(x, None, -mean), (var + eps) ** -0.5, None), weight, bias)


# ---- embedding and attention


def looked_up(padding_idx: int | None = None) -> Draw:
    """An index of any shape and weight (rows, features)."""

    def draw(rng: Rng) -> list[Case]:
        shapes: list[tuple[Shape, Shape]] = [
            ((), (5, 4)),
            ((7,), (5, 4)),
            ((2, 3), (5, 1)),
            ((0, 2), (5, 4)),
            ((2, 3, 1), (2, 3)),
        ]
        static: dict[str, Any] = {} if padding_idx is None else {"padding_idx": padding_idx}
        drawn = [(whole(w[0])(rng, i), normal(rng, w)) for i, w in shapes]
        drawn.append((gaps(whole(3)(rng, (4, 3))), gaps(normal(rng, (3, 4)))))
        drawn.append((turned(whole(3)(rng, (4, 3))), turned(normal(rng, (3, 4)))))
        return [case(index, weight, **static) for index, weight in drawn]

    return draw


def embedding_of(index: np.ndarray, weight: np.ndarray) -> np.ndarray:
    return weight[index]


def looked_up_gradients(rng: Rng) -> list[Case]:
    """An index, the gradient of what it finds, and the number of rows."""
    return [
        case(index, normal(rng, index.shape + weight.shape[1:]), rows=len(weight), padding_idx=-1)
        for c in looked_up()(rng)
        for index, weight in [c.inputs]
    ]


def padded_gradient(index: Any, dY: Any, *, rows: int, padding_idx: int) -> Any:
    """The gradient of embedding by its weight, linear in ``dY``."""
    weight = full_like(dY, 0, (rows, dY.shape[-1])).requires_grad_()
    y = F.embedding(index, weight, padding_idx)
    return grad(y, weight, dY, create_graph=True)[0]


def padded_gradient_of(
    index: np.ndarray, dY: np.ndarray, rows: int, padding_idx: int
) -> np.ndarray:
    total = np.zeros((rows, dY.shape[-1]))
    for place in np.ndindex(index.shape):
        total[index[place]] += dY[place]
    total[padding_idx] = 0
    return total


def attended(rng: Rng, *, mask: Any = None, **static: Any) -> list[Case]:
    """query (…, L, E), key (…, S, E), value (…, S, V), and a mask where ``mask`` draws one."""
    shapes: list[tuple[Shape, Shape, Shape]] = [
        ((3, 4), (5, 4), (5, 2)),
        ((2, 3, 4), (2, 5, 4), (2, 5, 4)),
        ((2, 1, 3, 4), (3, 2, 4), (1, 1, 2, 1)),
        ((0, 3, 4), (0, 5, 4), (0, 5, 2)),
        ((3, 4), (0, 4), (0, 2)),
        ((1, 1), (1, 1), (1, 1)),
        ((2, 3, 0), (2, 5, 0), (2, 5, 4)),
    ]
    drawn = [tuple(normal(rng, s) for s in several) for several in shapes]
    q, k, v = drawn[1]
    drawn.append((gaps(q), turned(k), np.broadcast_to(v[:1], v.shape)))
    if mask is None:
        return [case(*inputs, **static) for inputs in drawn]
    return [case(*inputs, mask(rng, inputs), **static) for inputs in drawn]


def allowed(rng: Rng, inputs: Any) -> np.ndarray:
    """Booleans (L, S); a query may take no key at all."""
    mask = coin(rng, (inputs[0].shape[-2], inputs[1].shape[-2]))
    mask[:1] = False
    return mask


def added(rng: Rng, inputs: Any) -> np.ndarray:
    return normal(rng, (inputs[0].shape[-2], 1))


def added_per_key(rng: Rng, inputs: Any) -> np.ndarray:
    return normal(rng, (inputs[1].shape[-2],))


def attention_of(
    q: np.ndarray,
    k: np.ndarray,
    v: np.ndarray,
    mask: Any = None,
    is_causal: bool = False,
    scale: float | None = None,
) -> np.ndarray:
    size = q.shape[-1]
    scores = np.einsum("...le,...se->...ls", q, k) * (scale or 1 / math.sqrt(size or 1))
    if is_causal:
        mask = np.tril(np.ones(scores.shape[-2:], bool))
    if mask is not None and mask.dtype == bool:
        scores = np.where(mask, scores, -np.inf)
    elif mask is not None:
        scores = scores + mask
    weights = np.where(np.all(scores == -np.inf, -1, keepdims=True), 0, softmax_of(scores, -1))
    return np.einsum("...ls,...sv->...lv", weights, v)


def attention(**settings: Any) -> Draw:
    return lambda rng: attended(rng, **settings)


ATTENTION = F.scaled_dot_product_attention


ROWS: list[Row] = [
    # activations
    Row("softmin", F.softmin, ("softmax",), along(normal), lambda x, dim: softmax_of(-x, dim)),
    Row("logsigmoid", F.logsigmoid, ("log1p",), one(normal), logsigmoid_of),
    Row("logsigmoid:far", F.logsigmoid, ("log1p",), one(FAR), logsigmoid_of),
    Row("softplus", F.softplus, ("log1p",), one(normal), softplus_of),
    Row("softplus:far", F.softplus, ("where",), one(FAR), softplus_of),
    Row("softplus:beta", F.softplus, (), one(normal, beta=-2.0, threshold=0.3), softplus_of),
    Row("leaky_relu", F.leaky_relu, (), one(off_zero), leaky_relu_of, kinks="at 0"),
    Row(
        "leaky_relu:negative",
        F.leaky_relu,
        (),
        one(split_by(0), negative_slope=-0.5),
        leaky_relu_of,
        kinks="at 0",
    ),
    Row("elu", F.elu, ("expm1",), one(off_zero), elu_of, kinks="at 0, of the second slope"),
    Row("elu:alpha", F.elu, ("expm1",), one(off_zero, alpha=0.3), elu_of, kinks="at 0"),
    Row("gelu", F.gelu, ("gelu",), one(normal), gelu_of),
    Row("gelu:tanh", F.gelu, ("gelu",), one(normal, approximate="tanh"), gelu_tanh_of),
    Row(
        "gelu_grad",
        pointwise.gelu_grad,
        ("gelu_grad",),
        alike(normal, normal, approximate="none"),
        lambda dY, x, approximate: dY * gelu_slope_of(x),
    ),
    Row(
        "gelu_grad:tanh",
        pointwise.gelu_grad,
        ("gelu_grad",),
        alike(normal, normal, approximate="tanh"),
        lambda dY, x, approximate: dY * gelu_tanh_slope_of(x),
    ),
    Row("silu", F.silu, ("sigmoid",), one(normal), lambda x: x * sigmoid_of(x)),
    Row("mish", F.mish, ("tanh",), one(normal), mish_of),
    Row("hardtanh", F.hardtanh, ("clamp",), one(split_by(-1, 1)), hardtanh_of, kinks="at ±1"),
    Row("hardtanh:int", F.hardtanh, ("clamp",), one(whole(5)), hardtanh_of, ()),
    Row(
        "hardtanh:bounds",
        F.hardtanh,
        ("clamp",),
        one(split_by(-2, 0.5), min_val=-2.0, max_val=0.5),
        hardtanh_of,
        kinks="at the bounds",
    ),
    Row("relu6", F.relu6, ("clamp",), one(split_by(0, 6)), relu6_of, kinks="at 0 and 6"),
    Row("relu6:int", F.relu6, ("clamp",), one(whole(9)), relu6_of, ()),
    # their slopes at kinks and far out
    slope("logsigmoid", lambda x: sigmoid_of(-x)),
    slope("softplus", softplus_slope_of),
    slope("leaky_relu", lambda x: np.where(x > 0, 1, 0.01)),
    slope("elu", elu_slope_of),
    slope("gelu", gelu_slope_of),
    slope("gelu", gelu_tanh_slope_of, approximate="tanh"),
    slope("silu", silu_slope_of),
    slope("mish", mish_slope_of),
    slope("hardtanh", inside(-1, 1)),
    slope("relu6", inside(0, 6)),
    # dropout
    Row("dropout2d", dropout2d, (), channel_masks, dropout2d_of, aliases=True),
    # normalisation
    Row("layer_norm", F.layer_norm, ("batch_norm",), layers, layer_norm_of, rtol32=1e-4),
    Row("group_norm", F.group_norm, ("batch_norm",), groups, group_norm_of, rtol32=1e-4),
    Row(
        "batch_norm:training",
        batch_norm_training,
        ("batch_norm",),
        batches,
        batch_norm_training_of,
        rtol32=1e-4,
    ),
    Row("batch_norm:running", F.batch_norm, (), running, batch_norm_running_of),
    # embedding and attention
    Row("embedding", F.embedding, ("take",), looked_up(), embedding_of),
    Row(
        "embedding:padding",
        F.embedding,
        ("take",),
        looked_up(padding_idx=-1),
        lambda index, weight, padding_idx: weight[index],
        (),
    ),
    Row(
        "embedding:padding_grad",
        padded_gradient,
        ("take_grad",),
        looked_up_gradients,
        padded_gradient_of,
    ),
    Row("scaled_dot_product_attention", ATTENTION, ("matmul",), attention(), attention_of),
    Row(
        "scaled_dot_product_attention:bool",
        ATTENTION,
        ("where", "all"),
        attention(mask=allowed, scale=0.7),
        attention_of,
    ),
    Row(
        "scaled_dot_product_attention:float",
        ATTENTION,
        ("matmul",),
        attention(mask=added),
        attention_of,
    ),
    Row(
        "scaled_dot_product_attention:keys",
        ATTENTION,
        ("matmul",),
        attention(mask=added_per_key),
        attention_of,
    ),
    Row(
        "scaled_dot_product_attention:causal",
        ATTENTION,
        ("matmul",),
        attention(is_causal=True),
        attention_of,
    ),
]
