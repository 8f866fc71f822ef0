"""The losses of ``nn.functional`` with all their options."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from parity.draws import OMIT, Array, Call, Dice, Op, Shape, at, positive, probability, tame

Draw = Callable[[Dice], Call]


def reduction(dice: Dice, *more: str) -> Any:
    """Left out, one of PyTorch's, or seldom none of them."""
    if dice.chance(0.04):
        return dice.pick("avg", None, 1)
    return dice.maybe(dice.pick("mean", "sum", "none", "none", *more), 0.8)


def alike(dice: Dice, x: Any = None, y: Any = None, wrong: float = 0.06) -> list[Array]:
    """Two float tensors of one shape, or of shapes that broadcast."""
    shape = dice.shape()
    shapes = [shape, dice.refit(shape, wrong)]
    if dice.chance(0.08):
        shapes = dice.broadcast(2)
    dtype = dice.dtype("float")
    other = dtype if dice.chance(0.93) else dice.dtype()
    return [dice.array(shapes[0], dtype, x), dice.array(shapes[1], other, y)]


def distance(**options: tuple[Any, ...]) -> Draw:
    """A loss of an input and a target alike."""

    def draw(dice: Dice) -> Call:
        x, y = alike(dice)
        only = {name: dice.maybe(dice.pick(*values)) for name, values in options.items()}
        return dice.call(x, target=y, only={"reduction": reduction(dice), **only})

    return draw


def cross_entropy_(dice: Dice, x: Array, probable: bool) -> tuple[Any, int]:
    """A target for ``x`` and the number of classes: indices or probabilities."""
    classes = x.shape[0] if x.ndim == 1 else x.shape[1]
    inner: Shape = () if x.ndim == 1 else (x.shape[0], *x.shape[2:])
    if probable:
        return dice.array(dice.refit(x.shape, 0.04), x.dtype, probability), classes
    return dice.index(dice.refit(inner, 0.05), classes, 0.06), classes


def scores(dice: Dice) -> Array:
    """(C), (N, C) or (N, C, d1, …)."""
    classes = dice.pick(1, 2, 3, 4)
    batch = dice.pick(0, 1, 2, 3, 3, 4)
    more = tuple(dice.pick(1, 2, 3) for _ in range(dice.pick(0, 0, 0, 1, 2)))
    shape = (classes,) if dice.chance(0.12) else (batch, classes, *more)
    return dice.array(shape, dice.dtype("float" if dice.chance(0.96) else "any"), tame)


def ignored(dice: Dice, target: Any, classes: int) -> Any:
    """An ``ignore_index``; the default one is planted into some targets."""
    index = dice.pick(OMIT, OMIT, OMIT, -100, 0, classes - 1, -1)
    if target.dtype == "int64" and target.values.size and dice.chance(0.3):
        chosen = dice.rng.random(target.shape) < 0.4
        target.values[chosen] = -100 if index is OMIT else index
    return index


def class_weight(dice: Dice, x: Array, classes: int) -> Any:
    if dice.chance(0.6):
        return dice.pick(OMIT, None)
    shape = dice.refit((classes,), 0.08)
    return dice.array(shape, x.dtype if x.is_float else "float32", positive, grad=0)


def cross_entropy(dice: Dice) -> Call:
    x = scores(dice)
    target, classes = cross_entropy_(dice, x, dice.chance(0.3))
    target = Array(target.values.copy(), requires_grad=target.requires_grad)
    smoothing = dice.pick(0.0, 0.1, 0.5, 1.0, 1.5 if dice.chance(0.2) else 0.2)
    only = {
        "ignore_index": ignored(dice, target, classes) if target.dtype == "int64" else OMIT,
        "reduction": reduction(dice),
        "label_smoothing": dice.maybe(smoothing, 0.4),
    }
    return dice.call(x, target=target, weight=class_weight(dice, x, classes), only=only)


def nll(dice: Dice) -> Call:
    x = scores(dice)
    target, classes = cross_entropy_(dice, x, False)
    target = Array(target.values.copy())
    only = {"ignore_index": ignored(dice, target, classes), "reduction": reduction(dice)}
    return dice.call(x, target=target, weight=class_weight(dice, x, classes), only=only)


def inside(rng: np.random.Generator, shape: Shape) -> Any:
    """Probabilities that are neither 0 nor 1."""
    return np.round(rng.uniform(0.05, 0.95, shape), 2)


def binary(dice: Dice) -> Call:
    x, y = alike(dice, inside, probability)
    if dice.chance(0.2):  # at 0 and 1 PyTorch's gradient is of the size of a rounded 1e12
        x = dice.array(x.shape, x.dtype, probability, grad=0)
    if dice.chance(0.03):
        x = dice.array(x.shape, x.dtype)
    return dice.call(x, target=y, weight=_weight(dice, x), only={"reduction": reduction(dice)})


def _weight(dice: Dice, x: Array) -> Any:
    if dice.chance(0.6):
        return dice.pick(OMIT, None)
    return dice.array(dice.refit(dice.narrowed(x.shape), 0.06), x.dtype, positive, grad=0)


def with_logits(dice: Dice) -> Call:
    x, y = alike(dice, None, probability)
    positives = _weight(dice, x)
    only = {"reduction": reduction(dice), "pos_weight": positives}
    return dice.call(x, target=y, weight=_weight(dice, x), only=only)


def divergence(dice: Dice) -> Call:
    x, y = alike(dice, tame, dice.pick(probability, probability, tame))
    log_target = dice.maybe(dice.pick(True, False), 0.5)
    return dice.call(
        x, target=y, only={"reduction": reduction(dice, "batchmean"), "log_target": log_target}
    )


OPS: list[Op] = [
    at("F.mse_loss", distance()),
    at("F.l1_loss", distance()),
    at("F.smooth_l1_loss", distance(beta=(1.0, 0.5, 2.0, 0.0, -1.0))),
    at("F.huber_loss", distance(delta=(1.0, 0.5, 2.0, 0.0))),
    at("F.cross_entropy", cross_entropy),
    at("F.nll_loss", nll),
    at("F.binary_cross_entropy", binary),
    at("F.binary_cross_entropy_with_logits", with_logits),
    at("F.kl_div", divergence),
]
