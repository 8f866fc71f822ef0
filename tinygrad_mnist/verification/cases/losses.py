"""Rows of the losses of ``nn.functional``."""

from __future__ import annotations

from itertools import cycle
from typing import Any

import numpy as np

from tinygrad_mnist.nn import functional as F
from tinygrad_mnist.verification.cases.draws import (
    POSITIVE,
    Case,
    Draw,
    Fill,
    Rng,
    Row,
    Shape,
    between,
    case,
    gaps,
    halves,
    integral,
    normal,
    one,
    tied,
    turned,
    whole,
)
from tinygrad_mnist.verification.cases.reductions import log_softmax_of

REDUCTIONS = ("none", "mean", "sum")


def alike(*fills: Fill, reductions: tuple[str, ...] = REDUCTIONS, **options: Any) -> Draw:
    """Arrays of one shape in every layout; reductions and the options' values in turn."""

    def draw(rng: Rng) -> list[Case]:
        drawn = zip(*(one(fill)(rng) for fill in fills), strict=True)
        turns = [(key, cycle(values)) for key, values in options.items()]
        return [
            case(
                *(c.inputs[0] for c in found),
                smooth=found[0].smooth and some(found[0].inputs[0], reduction),
                reduction=reduction,
                **{key: next(values) for key, values in turns},
            )
            for found, reduction in zip(drawn, cycle(reductions), strict=False)
        ]

    return draw


def some(x: np.ndarray, reduction: str) -> bool:
    """Whether the result is a number: a mean of nothing is NaN, and so are its differences."""
    return x.size > 0 or reduction not in ("mean", "batchmean")


def inputs(rng: Rng) -> list[np.ndarray]:
    """Logits or log-probabilities, with the classes in dim 1, or the only one."""
    return [
        normal(rng, (4, 3)),
        normal(rng, (5,)),
        normal(rng, (2, 3, 4)),
        gaps(normal(rng, (2, 4, 3, 2))),
        turned(normal(rng, (5, 3))),
        normal(rng, (1, 1)),
        normal(rng, (0, 3)),
        normal(rng, (2, 3, 0)),
        turned(normal(rng, (2, 3, 2))) * 50,
    ]


def targets(rng: Rng, x: np.ndarray) -> np.ndarray:
    shape = np.delete(x.shape, min(1, x.ndim - 1))
    return whole(x.shape[min(1, x.ndim - 1)])(rng, tuple(shape))


def of_classes(weighted: bool, *options: dict[str, Any]) -> Draw:
    """The inputs with classes, a third of them ignored; reductions and options in turn."""

    def draw(rng: Rng) -> list[Case]:
        cases = []
        turns = [{**o, "reduction": r} for r in REDUCTIONS for o in options]
        for x, static in zip(inputs(rng) * 2, cycle(turns), strict=False):
            target = targets(rng, x)
            ignored = rng.random(target.shape) < (0.3 if target.size > 1 else 0)
            target = np.where(ignored, static.get("ignore_index", -100), target)
            weight = POSITIVE(rng, (x.shape[min(1, x.ndim - 1)],)) if weighted else None
            smooth = some(target, static["reduction"])
            cases.append(case(x, target, weight, smooth=smooth, **static))
        return [*cases, case(normal(rng, (1030, 10)), whole(10)(rng, (1030,)), None, smooth=False)]

    return draw


def of_probabilities(weighted: bool) -> Draw:
    def draw(rng: Rng) -> list[Case]:
        turns: list[dict[str, Any]]
        turns = [{"reduction": r, "label_smoothing": s} for r in REDUCTIONS for s in (0.0, 0.2)]
        return [
            case(
                x,
                gaps(between(0.1, 1)(rng, x.shape)),
                POSITIVE(rng, (x.shape[min(1, x.ndim - 1)],)) if weighted else None,
                smooth=some(x, static["reduction"]),
                **static,
            )
            for x, static in zip(inputs(rng), cycle(turns), strict=False)
        ]

    return draw


def broadcast(x: Fill, target: Fill, *others: Shape) -> Draw:
    """Input, target and positive weights of the ``others``' shapes, or with some left out."""

    def draw(rng: Rng) -> list[Case]:
        cases = []
        for kept in ((True, True), (True, False), (False, True)):
            for reduction in REDUCTIONS:
                weights = [
                    POSITIVE(rng, shape) if keep else None
                    for keep, shape in zip(kept, others, strict=False)
                ]
                given = (turned(x(rng, (2, 3, 4))), target(rng, (2, 3, 4)), *weights)
                cases.append(case(*given, reduction=reduction))
        return cases

    return draw


def per_batch(rng: Rng) -> list[Case]:
    """``kl_div``'s own reduction, which takes no 0-d tensors."""
    drawn = alike(normal, POSITIVE, reductions=("batchmean",), log_target=(False, True))
    return [c for c in drawn(rng) + drawn(rng) if c.inputs[0].ndim]


def certain(rng: Rng, shape: Shape) -> np.ndarray:
    return np.asarray(rng.integers(0, 2, shape), np.float64)


def some_zeros(rng: Rng, shape: Shape) -> np.ndarray:
    return np.asarray(POSITIVE(rng, shape) * certain(rng, shape))


# ---- references


def reduced(losses: Any, reduction: str, total: float | None = None) -> Any:
    losses = np.asarray(losses)
    if reduction == "none":
        return losses
    if reduction == "sum":
        return np.sum(losses)
    if reduction == "batchmean":
        return np.sum(losses) / losses.shape[0]
    return np.sum(losses) / (losses.size if total is None else total)


def square(x: np.ndarray, y: np.ndarray, weight: Any = None, *, reduction: str) -> Any:
    return weighted((x - y) ** 2, weight, reduction)


def absolute(x: np.ndarray, y: np.ndarray, weight: Any = None, *, reduction: str) -> Any:
    return weighted(np.abs(x - y), weight, reduction)


def weighted(losses: np.ndarray, weight: Any, reduction: str) -> Any:
    if weight is None:
        return reduced(losses, reduction)
    return reduced(losses * weight, reduction, np.sum(weight))


def smooth_l1(x: np.ndarray, y: np.ndarray, *, reduction: str, beta: float = 1.0) -> Any:
    if beta == 0:
        return absolute(x, y, reduction=reduction)
    return reduced(huber(x, y, reduction="none", delta=beta) / beta, reduction)


def huber(
    x: np.ndarray, y: np.ndarray, weight: Any = 1.0, *, reduction: str, delta: float = 1.0
) -> Any:
    d = np.abs(x - y)
    return reduced(np.where(d <= delta, d**2 / 2, delta * (d - delta / 2)) * weight, reduction)


def cross_entropy(
    x: np.ndarray,
    target: np.ndarray,
    weight: np.ndarray | None = None,
    *,
    ignore_index: int = -100,
    reduction: str = "mean",
    label_smoothing: float = 0.0,
) -> Any:
    """Row by row, from the distribution that each target stands for."""
    dim = min(1, x.ndim - 1)
    size = x.shape[dim]
    weight = np.ones(size) if weight is None else weight
    logs = np.moveaxis(log_softmax_of(x, dim), dim, -1)
    given = target if target.dtype.kind == "i" else np.moveaxis(target, dim, -1)
    losses, total = np.zeros(logs.shape[:-1]), 0.0
    for place in np.ndindex(losses.shape):
        t = given[place]
        if np.ndim(t) == 0 and t == ignore_index:
            continue
        total += weight[t] if np.ndim(t) == 0 else 1
        wanted = np.eye(size)[t] if np.ndim(t) == 0 else t
        wanted = (1 - label_smoothing) * wanted + label_smoothing / size
        used = wanted != 0
        losses[place] = -np.sum((wanted * weight * logs[place])[used])
    return reduced(losses, reduction, total or np.nan)


def nll(x: np.ndarray, target: np.ndarray, weight: Any = None, **static: Any) -> Any:
    """The cross entropy of what is normalised already: each x[target] alone."""
    dim, ignored = min(1, x.ndim - 1), static.pop("ignore_index", -100)
    weight = np.ones(x.shape[dim]) if weight is None else weight
    rows = np.moveaxis(x, dim, -1)
    losses, total = np.zeros(target.shape), 0.0
    for place in np.ndindex(target.shape):
        if (t := target[place]) != ignored:
            losses[place] = -weight[t] * rows[place][t]
            total += weight[t]
    return reduced(losses, static.pop("reduction", "mean"), total or np.nan)


def binary(p: np.ndarray, t: np.ndarray, weight: Any = None, *, reduction: str) -> Any:
    logs = np.maximum(np.log(p), -100), np.maximum(np.log1p(-p), -100)
    losses = -(t * logs[0] + (1 - t) * logs[1])
    return reduced(losses if weight is None else losses * weight, reduction)


def with_logits(
    x: np.ndarray, t: np.ndarray, weight: Any = None, pos_weight: Any = None, *, reduction: str
) -> Any:
    likely = t if pos_weight is None else t * pos_weight
    losses = likely * np.logaddexp(0, -x) + (1 - t) * np.logaddexp(0, x)
    return reduced(losses if weight is None else losses * weight, reduction)


def divergence(x: np.ndarray, t: np.ndarray, *, reduction: str, log_target: bool = False) -> Any:
    t, log = (np.exp(t), t) if log_target else (t, np.log(np.where(t == 0, 1, t)))
    return reduced(t * (log - x), reduction)


def logits_loss(x: Any, target: Any, weight: Any, pos_weight: Any, *, reduction: str) -> Any:
    return F.binary_cross_entropy_with_logits(x, target, weight, reduction, pos_weight)


def weighted_huber(x: Any, target: Any, weight: Any, *, reduction: str) -> Any:
    return F.huber_loss(x, target, reduction, weight=weight)


def weighted_loss(loss: Any) -> Any:
    return lambda x, target, weight, *, reduction: loss(x, target, reduction, weight)


CLASSES = of_classes(False, {}, {"ignore_index": 1}, {"ignore_index": 7})
WEIGHTED = of_classes(True, {}, {"ignore_index": 0})
SMOOTHED = ({"label_smoothing": 0.1}, {"label_smoothing": 1.0, "ignore_index": 1})
FAR = between(-1e4, 1e4)
TIED = "where input and target are equal"

ROWS = [
    Row("mse_loss", F.mse_loss, (), alike(normal, normal), square),
    Row(
        "mse_loss:weight",
        weighted_loss(F.mse_loss),
        (),
        alike(normal, normal, POSITIVE),
        square,
    ),
    Row("l1_loss", F.l1_loss, (), alike(integral, halves), absolute, kinks=TIED),
    Row("l1_loss:ties", F.l1_loss, (), alike(tied, tied), absolute, ()),
    Row(
        "l1_loss:weight",
        weighted_loss(F.l1_loss),
        (),
        alike(integral, halves, POSITIVE),
        absolute,
        kinks=TIED,
    ),
    Row(
        "smooth_l1_loss",
        F.smooth_l1_loss,
        (),
        alike(integral, halves, beta=(1.0, 0.3, 2, 0)),
        smooth_l1,
        kinks=TIED + ", with beta 0",
    ),
    Row("smooth_l1_loss:ties", F.smooth_l1_loss, (), alike(tied, tied, beta=(0.1, 2.5)), smooth_l1),
    Row("huber_loss", F.huber_loss, (), alike(integral, halves, delta=(1.0, 0.3, 2)), huber),
    Row("huber_loss:weight", weighted_huber, (), alike(integral, halves, POSITIVE), huber),
    Row("cross_entropy:classes", F.cross_entropy, ("cross_entropy",), CLASSES, cross_entropy),
    Row("cross_entropy:weight", F.cross_entropy, ("cross_entropy",), WEIGHTED, cross_entropy),
    Row(
        "cross_entropy:smoothing",
        F.cross_entropy,
        ("cross_entropy",),
        of_classes(False, *SMOOTHED),
        cross_entropy,
    ),
    Row(
        "cross_entropy:weighted_smoothing",
        F.cross_entropy,
        ("cross_entropy",),
        of_classes(True, *SMOOTHED),
        cross_entropy,
    ),
    Row("cross_entropy:probabilities", F.cross_entropy, (), of_probabilities(False), cross_entropy),
    Row(
        "cross_entropy:weighted_probabilities",
        F.cross_entropy,
        (),
        of_probabilities(True),
        cross_entropy,
    ),
    Row("nll_loss", F.nll_loss, (), CLASSES, nll),
    Row("nll_loss:weight", F.nll_loss, (), WEIGHTED, nll),
    Row(
        "binary_cross_entropy",
        F.binary_cross_entropy,
        (),
        alike(between(0.05, 0.95), between(0, 1)),
        binary,
    ),
    Row(
        "binary_cross_entropy:weight",
        F.binary_cross_entropy,
        (),
        broadcast(between(0.05, 0.95), certain, (3, 1)),
        binary,
    ),
    Row(
        "binary_cross_entropy:ends", F.binary_cross_entropy, (), alike(certain, certain), binary, ()
    ),
    Row(
        "binary_cross_entropy_with_logits",
        F.binary_cross_entropy_with_logits,
        (),
        alike(normal, between(0, 1)),
        with_logits,
    ),
    Row(
        "binary_cross_entropy_with_logits:weight",
        logits_loss,
        (),
        broadcast(tied, between(0, 1), (4,), (3, 1)),
        with_logits,
    ),
    Row(
        "binary_cross_entropy_with_logits:far",
        F.binary_cross_entropy_with_logits,
        (),
        alike(FAR, certain),
        with_logits,
        (),
    ),
    Row(
        "kl_div",
        F.kl_div,
        (),
        alike(normal, POSITIVE, log_target=(False, True)),
        divergence,
    ),
    Row("kl_div:zeros", F.kl_div, (), alike(normal, some_zeros), divergence, (0,)),
    Row(
        "kl_div:batchmean",
        F.kl_div,
        (),
        per_batch,
        divergence,
    ),
]
