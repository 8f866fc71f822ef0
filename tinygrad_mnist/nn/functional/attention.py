"""Embedding and attention."""

from __future__ import annotations

import math
from typing import Any

from tinygrad_mnist.autograd.graph import broadcast, broadcasts_to
from tinygrad_mnist.checks import check_scalars, checked_integer, fit, no_tensor
from tinygrad_mnist.nn.functional.dropouts import check_p, dropped
from tinygrad_mnist.ops.indexing import integers, placed, taken
from tinygrad_mnist.ops.pointwise import where
from tinygrad_mnist.ops.table import range_like
from tinygrad_mnist.tensor import Tensor

_NAME = "scaled_dot_product_attention"
_OPERANDS = "query float (…, L, E), key float (…, S, E), value float (…, S, V)"


def embedding(input: Tensor, weight: Tensor, padding_idx: int | None = None) -> Tensor:
    """weight[input]: the rows of weight (rows, features) at integers of any shape (…, features).

    ``padding_idx``, which may count from the end, is a row that gets no gradient. IndexError for
    an index outside 0 … rows−1, ValueError for such a padding_idx and where shapes do not fit,
    TypeError for others than integers. Bengio et al. 2003.
    """
    fit("embedding", "weight (rows, features)", weight)
    if padding_idx is not None:
        padding_idx = checked_integer("embedding", "padding_idx", padding_idx)
    count = weight.shape[0]
    index = placed("embedding", integers("embedding", input), count, 0)
    found: Tensor = taken(weight, index, 0)
    if padding_idx is None:
        return found
    if not -count <= padding_idx < count:
        raise ValueError(
            f"embedding: padding_idx must lie in {-count} to {count - 1}, got {padding_idx}"
        )
    padded = (index == padding_idx % count).unsqueeze(-1)
    return where(padded, found.detach(), found)


def scaled_dot_product_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
) -> Tensor:
    """softmax(scale · query · keyᵀ + mask) · value: (…, L, V), with ``scale`` 1/√E by default.

    query (…, L, E), key (…, S, E), value (…, S, V), leading dims broadcast. ``attn_mask``
    broadcasts to (…, L, S): booleans, True for the keys that a query may see, or numbers to
    be added; ``is_causal`` masks the keys after a query's own place. A query without any key gets
    zeros. ``dropout_p`` zeroes weights, in evaluation too. ValueError where shapes do not fit, for
    both masks at once and for dropout_p outside 0 … 1; TypeError for dtypes that differ, others
    than floats, and masks neither boolean nor of the query's dtype. Vaswani et al. 2017.
    """
    fit(_NAME, _OPERANDS, query, key, value)
    check_p(_NAME, "dropout_p", dropout_p)
    shapes = [x.shape for x in (query, key, value)]
    broadcast(_NAME, *(shape[:-2] for shape in shapes), of=shapes)
    if scale is None:
        scale = 1 / math.sqrt(max(1, query.shape[-1]))
    check_scalars(_NAME, scale=scale)
    scores = (query * scale) @ key.mT
    if is_causal:
        if attn_mask is not None:
            raise ValueError(f"{_NAME}: expected attn_mask or is_causal, got both")
        attn_mask = _causal(scores)
    weights = scores.softmax(-1) if attn_mask is None else _masked(scores, attn_mask)
    return dropped(weights, dropout_p, weights.shape) @ value


def _causal(scores: Tensor) -> Tensor:
    """Booleans (L, S): whether the key comes no later than the query."""
    queries, keys = (range_like(scores, size) for size in scores.shape[-2:])
    return queries.unsqueeze(1) >= keys


def _masked(scores: Tensor, mask: Any) -> Tensor:
    """The softmax of masked scores; 0 in a row without any key, where it would be NaN."""
    if not isinstance(mask, Tensor):
        raise no_tensor(_NAME, "attn_mask", mask)
    if mask.dtype not in (bool, scores.dtype):
        raise TypeError(
            f"{_NAME}: expected attn_mask of bool or {scores.dtype}, the query's dtype, "
            f"got {mask.dtype}"
        )
    if not broadcasts_to(tuple(mask.shape), tuple(scores.shape)):
        raise ValueError(
            f"{_NAME}: attn_mask of shape {tuple(mask.shape)} does not broadcast to "
            f"{tuple(scores.shape)}, (…, L, S)"
        )
    scores = where(mask, scores, -math.inf) if mask.dtype == bool else scores + mask
    none: Any = (scores == -math.inf).all(-1, keepdim=True)
    return where(none, 0.0, where(none, 0.0, scores).softmax(-1))
