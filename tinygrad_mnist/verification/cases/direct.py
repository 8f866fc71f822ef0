"""Kernels that no op reaches: an optimizer's, in place, to make an array; ``act`` and ``pool``."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from tinygrad_mnist.kernels import ACTIVATIONS, Conv, Pool
from tinygrad_mnist.verification.cases.draws import (
    Case,
    Draw,
    Rng,
    Shape,
    alike,
    between,
    case,
    gaps,
    normal,
    turned,
    whole,
)


@dataclass(frozen=True)
class Direct:
    """A kernel called by hand, as an optimizer or ``jit`` calls it."""

    kernel: str
    draw: Draw


def updates(moments: str, *settings: dict[str, Any]) -> Draw:
    """An optimizer's parameters, gradients and moments, for each of the settings.

    ``moments`` has a letter for each list of them: "m", or "-" for one that is empty.
    """

    def draw(rng: Rng) -> list[Case]:
        sizes: list[Shape] = [(3, 4), (5,), (), (0, 2), (130, 257)]
        lists = [[] if m == "-" else sizes for m in f"pg{moments}"]
        return [
            case(*[[between(0.1, 2)(rng, s) for s in shapes] for shapes in lists], **static)
            for static in settings
        ]

    return draw


def centred(rng: Rng) -> list[Case]:
    """The average of the gradients small, so that its square lies below the squares' average."""
    cases = [
        *updates("mm-", RMSPROP)(rng),
        *updates("mmm", {**RMSPROP, "momentum": 0.9, "maximize": True})(rng),
    ]
    for c in cases:
        for mean in c.inputs[3]:
            mean *= 0.01
    return cases


def written(rng: Rng) -> list[Case]:
    """An array and what goes into it."""
    shapes: list[tuple[Shape, Shape]] = [((), ()), ((0, 3), (3,)), ((3, 4), (4,)), ((3, 4), ())]
    cases = [case(normal(rng, x), normal(rng, y)) for x, y in shapes]
    cases.append(case(gaps(normal(rng, (3, 4))), turned(normal(rng, (3, 4)))))
    return [*cases, case(normal(rng, (3, 4)), whole(9)(rng, (3, 4)))]


def put(rng: Rng) -> list[Case]:
    """An array, indices along its first dim, none twice, and what goes there."""
    shapes: list[tuple[Shape, Shape, Shape]] = [
        ((5,), (3,), (3,)),
        ((5,), (2, 2), ()),
        ((0, 3), (0,), (3,)),
        ((5, 3), (4,), (4, 3)),
        ((300, 2), (200,), (2,)),
    ]
    cases = []
    for x, index, y in shapes:
        places = rng.permutation(x[0])[: int(np.prod(index))].reshape(index)
        cases.append(case(normal(rng, x), places, normal(rng, y)))
    return [*cases, case(*(turned(gaps(a)) for a in cases[3].inputs))]


def moved(rng: Rng) -> list[Case]:
    """An array and where it moves to, of one shape."""
    return [
        case(*c.inputs, weight=0.3)
        for c in alike(normal, normal)(rng)
        if 0 not in c.inputs[0].strides  # an expanded array is not for writing
    ]


def linear(rng: Rng) -> list[Case]:
    """Layouts, a bias of what is no number, no bias; ``act`` each."""
    special = np.array([np.nan, np.inf, -np.inf, 0.0])
    cases = []
    for act in ACTIVATIONS:
        for n, inputs in ((5, 3), (0, 3), (2, 0), (70, 1100)):
            x, weight = normal(rng, (n, inputs)), normal(rng, (4, inputs))
            weight /= max(1, inputs) ** 0.5  # what act takes is of the size of what it gives
            cases.append(case(x, weight, special, act=act))
            cases.append(case(x.astype(F32), weight.astype(F32), act=act))
        cases.append(case(gaps(x), turned(weight), normal(rng, (4,)), act=act))
    return cases


def conv2d(rng: Rng) -> list[Case]:
    """Groups, strides, padding, dilation, odd sizes; each with ``act``, a ``pool``, and both."""
    plain = Conv(stride=(1, 1), padding=(0, 0), dilation=(1, 1), groups=1)
    spread = Conv(stride=(2, 1), padding=(1, 2), dilation=(1, 2), groups=2)
    halves = Pool(size=(2, 2), stride=(2, 2), padding=(0, 0))
    overlapping = Pool(size=(3, 2), stride=(2, 1), padding=(1, 1))
    shapes: list[tuple[Shape, Shape, Conv]] = [
        ((3, 2, 9, 10), (4, 2, 3, 2), plain),
        ((2, 4, 14, 13), (6, 2, 3, 3), spread),
        ((0, 2, 9, 9), (4, 2, 3, 3), plain),
        ((2, 1, 4, 4), (3, 1, 3, 3), plain),
    ]
    folds = [(act, pool) for act in (None, *ACTIVATIONS) for pool in (None, halves, overlapping)]
    cases = []
    for image, kernel, conv in shapes:
        x, weight, bias = normal(rng, image), normal(rng, kernel), normal(rng, kernel[:1])
        bias[0] = np.nan
        for act, pool in folds[1:]:
            cases.append(case(x, weight, bias, conv=conv, act=act, pool=pool))
        single = [a.astype(F32) for a in (x, weight)]
        cases.append(case(*single, conv=conv, act="relu", pool=halves))
        cases.append(case(gaps(x), weight, bias, conv=conv, act="relu", pool=halves))
    return cases


def batch_norm(rng: Rng) -> list[Case]:
    """Images and rows, an infinite bias; ``act`` each."""
    cases = []
    for act in ACTIVATIONS:
        for shape in ((4, 3, 5, 2), (9, 3), (1, 3, 1, 1)):
            arrays = [normal(rng, s) for s in (shape, (3,), (3,))]
            cases.append(case(*arrays, eps=1e-5, act=act))
            arrays[2][:2] = -np.inf, np.nan
            cases.append(case(*(a.astype(F32) for a in arrays), eps=1e-5, act=act))
        cases.append(case(gaps(arrays[0]), *arrays[1:], eps=1e-5, act=act))
    return cases


SHAPES: list[Shape] = [(), (0, 3), (1,), (5,), (3, 4), (257, 401)]


SHARED = {"lr": 0.1, "weight_decay": 0.0, "maximize": False}
SGD = {**SHARED, "momentum": 0.0, "dampening": 0.0, "nesterov": False, "first": False}
MOMENTUM = {**SGD, "momentum": 0.9}
ADAM = {**SHARED, "beta1": 0.9, "beta2": 0.99, "eps": 1e-8, "step": 1}
ADAM = {**ADAM, "decoupled_weight_decay": False}
ADAGRAD = {**SHARED, "lr_decay": 0.0, "eps": 1e-10, "step": 1}
ADADELTA = {**SHARED, "rho": 0.9, "eps": 1e-6, "step": 1}
RMSPROP = {**SHARED, "alpha": 0.99, "momentum": 0.0, "eps": 1e-8, "step": 1}
UPWARDS = {"weight_decay": 0.1, "maximize": True}
DECOUPLED = {"weight_decay": 0.1, "decoupled_weight_decay": True, "step": 2}


F32, F64 = np.dtype(np.float32), np.dtype(np.float64)


INT = np.dtype(np.int64)
COUNTED: list[dict[str, Any]] = [
    {"start": 0, "step": 1, "size": 0, "dtype": INT},
    {"start": 7, "step": -3, "size": 100_000, "dtype": INT},
    {"start": 250, "step": 1, "size": 6, "dtype": np.dtype(np.uint8)},
    {"start": 2**53, "step": 1, "size": 5, "dtype": INT},
    {"start": -1.0, "step": 0.1, "size": 21, "dtype": F32},
    {"start": 1e9, "step": 1 / 3, "size": 100_000, "dtype": F64},
]


DIRECT = [
    Direct("full", lambda rng: [case(shape=s, value=2.5, dtype=F64) for s in SHAPES]),
    Direct("full", lambda rng: [case(shape=s, value=7, dtype=np.dtype(np.int64)) for s in SHAPES]),
    Direct("arange", lambda rng: [case(**counted) for counted in COUNTED]),
    Direct("uniform", lambda rng: [case(shape=s, key=2**63 + 5, dtype=F32) for s in SHAPES]),
    Direct("uniform", lambda rng: [case(shape=s, key=3, dtype=F64) for s in SHAPES]),
    Direct("dropout_mask", lambda rng: [case(shape=s, p=0.3, key=9, dtype=F32) for s in SHAPES]),
    Direct("linear", linear),
    Direct("conv2d", conv2d),
    Direct("batch_norm", batch_norm),
    Direct("copy_", written),
    Direct("put_", put),
    Direct("fill_", lambda rng: [case(*c.inputs[:1], value=0.5) for c in moved(rng)]),
    Direct("lerp_", moved),
    Direct("sgd_", updates("-", SGD, {**SGD, "weight_decay": 0.1}, {**SGD, **UPWARDS})),
    Direct("sgd_", updates("m", MOMENTUM, {**MOMENTUM, "dampening": 0.5, "first": True})),
    Direct("sgd_", updates("m", {**MOMENTUM, "dampening": 0.5, **UPWARDS})),
    Direct("sgd_", updates("m", {**MOMENTUM, "nesterov": True})),
    Direct("adam_", updates("mm-", ADAM, {**ADAM, **UPWARDS, "step": 7})),
    Direct("adam_", updates("mm-", {**ADAM, **DECOUPLED})),
    Direct("adam_", updates("mmm", ADAM, {**ADAM, **DECOUPLED})),
    Direct("adagrad_", updates("m", ADAGRAD, {**ADAGRAD, **UPWARDS, "lr_decay": 0.1, "step": 7})),
    Direct("adadelta_", updates("mm", ADADELTA, {**ADADELTA, **UPWARDS})),
    Direct("rmsprop_", updates("m--", RMSPROP, {**RMSPROP, **UPWARDS})),
    Direct("rmsprop_", updates("m-m", {**RMSPROP, "momentum": 0.9})),
    Direct("rmsprop_", centred),
]
