"""``nn.functional``: activations, dropout, normalisation, embedding, attention."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np

from parity.draws import (
    OMIT,
    Array,
    Call,
    Dice,
    Dtype,
    Op,
    Shape,
    at,
    distinct,
    positive,
    tame,
    wide,
)

Draw = Callable[[Dice], Call]


def floats(dice: Dice, shape: Any = None, fill: Any = None) -> Array:
    """A float tensor, now and then one of integers."""
    return dice.array(shape, dice.dtype("float" if dice.chance(0.94) else "any"), fill)


def activation(**options: tuple[Any, ...]) -> Draw:
    """``f(x, **options)``: each option is one of those given, or left out."""

    def draw(dice: Dice) -> Call:
        fill = dice.pick(None, None, wide)
        named = {name: dice.maybe(dice.pick(*values)) for name, values in options.items()}
        return dice.call(floats(dice, fill=fill), **named)

    return draw


def gelu(dice: Dice) -> Call:
    kind = dice.maybe(dice.pick("none", "tanh", "tanh", "none", "none", "tanh", "other"))
    return dice.call(floats(dice), only={"approximate": kind})


def softmax(functional: bool) -> Draw:
    """Along a dim, perhaps in another dtype: ``F.softmax`` and ``x.softmax``."""

    def draw(dice: Dice) -> Call:
        x = floats(dice, fill=dice.pick(None, None, wide))
        dtype = dice.maybe(Dtype(dice.dtype("float")), 0.15)
        return dice.call(x, dim=dice.dim(x.ndim), only={"dtype": dtype})

    return draw


def dropout(images: bool) -> Draw:
    """Exact where nothing or all is dropped; elsewhere the shape and the dtype."""

    def draw(dice: Dice) -> Call:
        p = dice.pick(0.0, 0.0, 1.0, 1.0, 0.5, 0.3, OMIT, -0.1, 1.5)
        training = dice.maybe(dice.pick(True, False, False))
        shape = tuple(dice.size() for _ in range(dice.pick(3, 4, 4))) if images else dice.shape()
        inplace = dice.maybe(False)
        call = dice.call(floats(dice, shape), p=p, training=training, inplace=inplace)
        return replace(call, values=p in (0.0, 1.0) or training is False, gradients=p in (0.0, 1.0))

    return draw


# ---- normalisation


def apart(rng: np.random.Generator, shape: Shape) -> Any:
    """No two alike: the slope of normalising what is nearly constant is mostly rounding."""
    return distinct(rng, shape) * 0.25


def optional(dice: Dice, array: Array) -> Any:
    return dice.pick(array, array, array, None, OMIT)


def layer_norm(dice: Dice) -> Call:
    shape = dice.full_shape(1) if dice.chance(0.85) else dice.shape(1)
    count = dice.integer(1, len(shape))
    inner = shape[-count:]
    x = floats(dice, shape, apart)
    weight, bias = (dice.array(dice.refit(inner, 0.04), x.dtype, tame) for _ in range(2))
    sizes: Any = dice.refit(inner, 0.05)
    sizes = list(sizes) if dice.chance(0.2) else sizes
    return dice.call(
        x,
        normalized_shape=sizes,
        weight=optional(dice, weight),
        bias=optional(dice, bias),
        eps=dice.maybe(dice.pick(1e-5, 1e-3, 0.1)),
    )


def batch_norm(dice: Dice) -> Call:
    channels = dice.pick(1, 2, 3)
    batch = dice.pick(1, 2, 3, 4, 4, 0 if dice.chance(0.3) else 5)
    space = tuple(dice.pick(1, 2, 3) for _ in range(dice.pick(0, 0, 1, 2, 2)))
    x = floats(dice, (batch, channels, *space), apart)
    if x.layout == "transposed":  # PyTorch takes some of these for channels-last and adds up wrong
        x = replace(x, layout="strided")
    parts = [dice.array(dice.refit((channels,), 0.03), x.dtype, tame) for _ in range(2)]
    parts = [replace(part, layout="contiguous") for part in parts]  # of others PyTorch reads past
    running = [dice.array(dice.refit((channels,), 0.03), x.dtype, positive, 0) for _ in range(2)]
    running = [Array(r.values) for r in running]
    without = dice.chance(0.25)
    return dice.call(
        x,
        running_mean=None if without else running[0],
        running_var=None if without else running[1],
        weight=optional(dice, parts[0]),
        bias=optional(dice, parts[1]),
        training=True if without and dice.chance(0.95) else dice.maybe(dice.pick(True, False)),
        momentum=dice.maybe(dice.pick(0.1, 0.5, 0.0)),
        eps=dice.maybe(dice.pick(1e-5, 1e-3)),
    )


def group_norm(dice: Dice) -> Call:
    groups = dice.pick(1, 2, 3)
    channels = groups * dice.pick(1, 2)
    space = tuple(dice.pick(1, 2, 3) for _ in range(dice.pick(0, 1, 2, 2)))
    x = floats(dice, (dice.pick(1, 2, 3, 0), channels, *space), apart)
    weight, bias = (dice.array(dice.refit((channels,), 0.04), x.dtype, tame) for _ in range(2))
    groups = dice.pick(0, -1, groups + 1, 4) if dice.chance(0.06) else groups
    return dice.call(
        x,
        num_groups=groups,
        weight=optional(dice, weight),
        bias=optional(dice, bias),
        eps=dice.maybe(dice.pick(1e-5, 1e-2)),
    )


# ---- embedding and attention


def embedding(dice: Dice) -> Call:
    rows = dice.pick(1, 2, 4, 5)
    shape = (rows, dice.size()) if dice.chance(0.95) else (rows,)
    index = dice.index(dice.shape(high=3), rows)
    padding = dice.maybe(dice.pick(None, 0, -1, rows - 1, rows if dice.chance(0.3) else 0), 0.4)
    return dice.call(index, weight=dice.array(shape, dice.dtype("float")), padding_idx=padding)


def attention(dice: Dice) -> Call:
    batch = dice.pick((), (2,), (2, 2), (1, 3), (0, 2))
    queries, keys, width, out = (dice.pick(1, 2, 3, 4) for _ in range(4))
    dtype = dice.dtype("float")
    shapes = [(queries, width), (keys, width), (keys, out)]
    q, k, v = (dice.array(dice.refit((*batch, *s), 0.03), dtype, tame) for s in shapes)
    causal = dice.maybe(dice.pick(True, False), 0.4)
    scale = dice.maybe(dice.pick(None, 0.5, 1.0, 2.0), 0.3)
    mask = (
        dice.pick(OMIT, None, None)
        if causal is True and dice.chance(0.9)
        else _mask(dice, dice.narrowed((*batch, queries, keys), drop=0.2), dtype)
    )
    return dice.call(
        q,
        key=k,
        value=v,
        attn_mask=mask,
        dropout_p=dice.maybe(0.0, 0.4),
        is_causal=causal,
        only={"scale": scale},
    )


def _mask(dice: Dice, shape: Any, dtype: str) -> Any:
    if dice.chance(0.4):
        return dice.pick(OMIT, None)
    shape = dice.refit(shape, 0.05)
    kind = dice.pick("bool", "bool", dtype, dtype, "int64" if dice.chance(0.1) else dtype)
    return dice.array(shape, kind, None if kind == "bool" else tame)


OPS: list[Op] = [
    Op("softmax", ("F.softmax", "Tensor.softmax", "torch.softmax"), softmax(True)),
    Op("log_softmax", ("F.log_softmax", "Tensor.log_softmax", "torch.log_softmax"), softmax(True)),
    at("F.softmin", softmax(True)),
    at("F.logsigmoid", activation()),
    at("F.leaky_relu", activation(negative_slope=(0.01, 0.2, 0.0, -0.5, 2), inplace=(False,))),
    at("F.elu", activation(alpha=(1.0, 0.5, 2, -1.0), inplace=(False,))),
    at("F.gelu", gelu),
    at("F.silu", activation(inplace=(False,))),
    at("F.mish", activation(inplace=(False,))),
    at("F.softplus", activation(beta=(1, 2.0, 0.5, -1), threshold=(20, 1, 0.5))),
    at(
        "F.hardtanh",
        activation(min_val=(-1.0, -2, 0), max_val=(1.0, 0.5, 2, -3), inplace=(False,)),
    ),
    at("F.relu6", activation(inplace=(False,))),
    at("F.relu", activation(inplace=(False,))),
    at("F.sigmoid", activation()),
    at("F.tanh", activation()),
    at("F.dropout", dropout(False)),
    at("F.dropout2d", dropout(True), says=("dropout",)),
    at("F.layer_norm", layer_norm, rough=20),
    at("F.batch_norm", batch_norm, rough=20),
    at("F.group_norm", group_norm, rough=20),
    at("F.embedding", embedding),
    at("F.scaled_dot_product_attention", attention, rough=3),
]
