"""Rows of ``ops.networks``."""

from __future__ import annotations

from typing import Any

import numpy as np

from tinygrad_mnist import random
from tinygrad_mnist.nn import functional as F
from tinygrad_mnist.ops import networks
from tinygrad_mnist.verification.cases.draws import (
    Case,
    Rng,
    Row,
    along,
    between,
    case,
    gaps,
    normal,
    one,
    turned,
    whole,
)
from tinygrad_mnist.verification.cases.reductions import log_softmax_of, softmax_of


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
    """x (N, C) and target (N,), some of them ignored."""
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
    cases.append(case(normal(rng, (5, 3)), np.array([0, -100, 2, -100, 1])))
    cases.append(case(normal(rng, (5, 3)), np.array([0, 1, 2, 1, 1]), ignore_index=1))
    cases.append(case(normal(rng, (2, 3)), np.array([7, 7]), ignore_index=7))
    return cases


def class_gradients(rng: Rng) -> list[Case]:
    """dY (N,), x and target."""
    return [
        case(normal(rng, c.inputs[0].shape[:1]), *c.inputs, smooth=c.smooth, **c.static)
        for c in classes(rng)
    ]


def batches(rng: Rng) -> list[Case]:
    """Rows of uint8 and an index."""
    shapes = [((5, 4), 3), ((5, 2, 3), 7), ((5,), 2), ((1, 4), 1), ((5, 4), 0), ((5, 0), 2)]
    static: dict[str, Any] = {"scale": 1 / 255, "shift": -0.5}
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


def dropout(x: Any, *, p: float, seed: int) -> Any:
    random.manual_seed(seed)
    return F.dropout(x, p)


def cross_entropy_grad(dY: Any, x: Any, target: Any, *, ignore_index: int = -100) -> Any:
    return networks.cross_entropy_grad(dY, x, target, ignore_index=ignore_index)


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


def cross_entropy_of(x: np.ndarray, target: np.ndarray, ignore_index: int = -100) -> Any:
    losses, counted = np.zeros(len(x)), target != ignore_index
    chosen = log_softmax_of(x[counted], 1)[np.arange(np.sum(counted)), target[counted]]
    losses[counted] = -chosen
    return losses, np.float64(np.sum(counted) or np.nan)


def cross_entropy_grad_of(
    dY: np.ndarray, x: np.ndarray, target: np.ndarray, ignore_index: int = -100
) -> np.ndarray:
    dX, counted = np.zeros(x.shape), target != ignore_index
    slopes = softmax_of(x[counted], 1) - np.eye(x.shape[1])[target[counted]]
    dX[counted] = dY[counted, None] * slopes
    return dX


def softmaxes(rng: Rng, logarithm: bool = False) -> list[Case]:
    """dY and the softmax of as many numbers, or its logarithm, along a dim."""
    reference = log_softmax_of if logarithm else softmax_of
    return [
        case(
            normal(rng, c.inputs[0].shape),
            np.asarray(reference(*c.inputs, **c.static)),
            smooth=c.smooth,
            dim=c.static["dim"] % c.inputs[0].ndim,
        )
        for c in along(normal)(rng)
    ]


def softmax_grad_of(dY: np.ndarray, y: np.ndarray, dim: int) -> np.ndarray:
    return y * (dY - np.sum(dY * y, axis=dim, keepdims=True))


def log_softmax_grad_of(dY: np.ndarray, y: np.ndarray, dim: int) -> np.ndarray:
    return dY - np.exp(y) * np.sum(dY, axis=dim, keepdims=True)


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


ROWS = [
    # networks
    Row("batch_norm", networks.batch_norm, ("batch_norm",), channels, batch_norm_of, rtol32=1e-4),
    Row(
        "batch_norm_grad",
        networks.batch_norm_grad,
        ("batch_norm_grad",),
        channel_gradients,
        batch_norm_grad_of,
        rtol32=1e-4,
    ),
    Row("cross_entropy", networks.cross_entropy, ("cross_entropy",), classes, cross_entropy_of),
    Row(
        "cross_entropy_grad",
        cross_entropy_grad,
        ("cross_entropy_grad",),
        class_gradients,
        cross_entropy_grad_of,
    ),
    Row("softmax_grad", networks.softmax_grad, ("softmax_grad",), softmaxes, softmax_grad_of),
    Row(
        "log_softmax_grad",
        networks.log_softmax_grad,
        ("log_softmax_grad",),
        lambda rng: softmaxes(rng, logarithm=True),
        log_softmax_grad_of,
    ),
    Row("dropout", dropout, (), masked, dropout_of, aliases=True),
    Row(
        "take_scaled",
        networks.take_scaled,
        ("take_scaled",),
        batches,
        take_scaled_of,
        (),
        rtol=1e-6,
    ),
]
