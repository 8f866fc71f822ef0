"""Bad input to reductions, orders and the softmax."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import tinygrad_mnist as tg
from errors.table import Bad, bad, each

OVER_SEVERAL = ("sum", "mean", "amax", "amin", "any", "all", "var", "std", "prod", "logsumexp")
OVER_ONE = ("max", "min", "argmax", "argmin", "cumsum", "sort", "argsort", "softmax", "log_softmax")


def _along(name: str) -> list[Bad]:
    """What every op along a dim refuses."""
    op: Callable[..., Any] = getattr(tg, name)
    return [
        bad(name, lambda t: op(t(2, 3), dim=2), IndexError, "dim 2", "2 dims", "-2 to 1"),
        bad(name, lambda t: op(t(2, 3), dim=-3), IndexError, "dim -3", "2 dims", "-2 to 1"),
        bad(name, lambda t: op(t(), dim=1), IndexError, "dim 1", "0 dims", "-1 to 0"),
        bad(name, lambda t: op(t(), dim=-2), IndexError, "dim -2", "0 dims", "-1 to 0"),
        bad(name, lambda t: op(t(0, 3), dim=2), IndexError, "dim 2", "2 dims"),
        bad(name, lambda t: op(t(2, 3), dim=1.0), TypeError, "dim", "1.0"),
        bad(name, lambda t: op(t(2, 3), dim="0"), TypeError, "dim", "'0'"),
    ]


def _along_several(name: str) -> list[Bad]:
    op: Callable[..., Any] = getattr(tg, name)
    return [
        bad(name, lambda t: op(t(2, 3), dim=(0, 0)), ValueError, "(0, 0)", "twice"),
        bad(name, lambda t: op(t(2, 3), dim=[1, -1]), ValueError, "[1, -1]", "twice"),
        bad(name, lambda t: op(t(2, 3), dim=(0, 2)), IndexError, "dim 2", "2 dims"),
        bad(name, lambda t: op(t(), dim=(0, 1)), IndexError, "dim 1", "0 dims"),
        bad(name, lambda t: op(t(), dim=(0, -1)), ValueError, "twice"),
        bad(name, lambda t: op(t(2, 3), dim=(0, 1.5)), TypeError, "dim", "1.5"),
        bad(name, lambda t: op(t(2, 3), dim=(0, None)), TypeError, "dim", "None"),
    ]


def _along_one(name: str) -> list[Bad]:
    op: Callable[..., Any] = getattr(tg, name)
    return [
        bad(name, lambda t: op(t(2, 3), dim=(0, 1)), TypeError, "dim", "(0, 1)"),
        bad(name, lambda t: op(t(2, 3), dim=[0]), TypeError, "dim", "[0]"),
    ]


CHOOSING = ("amax", "amin", "max", "min", "argmax", "argmin")
NOTHING = [
    *each(CHOOSING, lambda op, t: op(t(0)), ValueError, "size 0", "(0,)"),
    *each(CHOOSING, lambda op, t: op(t(0, 3), 0), ValueError, "size 0", "(0, 3)"),
    *each(CHOOSING, lambda op, t: op(t(3, 0), -1), ValueError, "size 0", "(3, 0)"),
    *each(CHOOSING, lambda op, t: op(t(3, 0)), ValueError, "size 0", "(3, 0)"),
    bad("norm", lambda t: t(0).norm(math.inf), ValueError, "(0,)"),
    bad("norm", lambda t: t(0, 2).norm(-1, 0), ValueError, "(0, 2)"),
]

OF_FLOATS = ("mean", "var", "std", "norm")
DTYPES = [
    *each(OF_FLOATS, lambda op, t: op(t(2).long()), TypeError, "float", "int64"),
    *each(OF_FLOATS, lambda op, t: op(t(2).bool()), TypeError, "float", "bool"),
]

MATRIX = "a tensor of shape (2, 2)"  # said without its values, which take lines and a transfer
SETTINGS = [
    *each(
        tuple(name for name in (*OVER_SEVERAL, *OVER_ONE) if name not in ("max", "min")),
        lambda op, t: op(t(2, 3), dim=t(2, 2)),
        TypeError,
        MATRIX,
    ),
    bad("norm", lambda t: t(2).norm(t(2, 2)), ValueError, MATRIX),
    bad("var", lambda t: t(2).var(correction=t(2, 2)), TypeError, MATRIX),
    bad("topk", lambda t: t(2).topk(t(2, 2)), TypeError, MATRIX),
    bad("var", lambda t: t(2).var(unbiased=2), TypeError, "unbiased=2"),
    bad("var", lambda t: t(2).var(correction="1"), TypeError, "correction='1'"),
    bad("var", lambda t: t(2).var(0, True, correction=1), TypeError, "unbiased=True, correction=1"),
    bad("std", lambda t: t(2).std(0, "yes"), TypeError, "unbiased='yes'"),
    bad("std", lambda t: t(2).std(correction=[1]), TypeError, "correction=[1]"),
    bad("norm", lambda t: t(2).norm("nuc"), ValueError, "'nuc'"),
    bad("norm", lambda t: t(2).norm(math.nan), ValueError, "nan"),
    bad("norm", lambda t: t(2).norm(t(1)), ValueError, "p must be"),
    bad("norm", lambda t: t(2, 3).norm(2, 2), IndexError, "dim 2", "2 dims"),
    bad("norm", lambda t: t(2, 3).norm(2, (0, 0)), ValueError, "twice"),
    bad("norm", lambda t: t(2, 3).norm(dim=0.5), TypeError, "dim", "0.5"),
    bad("max", lambda t: t(2).max(t(3)), ValueError, "(2,)", "(3,)"),
    bad("max", lambda t: t(2).max(other=[1.0]), TypeError, "list"),
    bad("max", lambda t: t(2).max(0, other=t(2)), TypeError, "dim", "other"),
    bad("min", lambda t: t(2).min(t(3)), ValueError, "(2,)", "(3,)"),
    bad("min", lambda t: t(2).min(other="a"), TypeError, "str"),
    bad("min", lambda t: t(2).min(0, other=t(2)), TypeError, "dim", "other"),
    bad("topk", lambda t: t(2, 3).topk(4), ValueError, "0 to 3", "got 4"),
    bad("topk", lambda t: t(2, 3).topk(3, 0), ValueError, "0 to 2", "got 3"),
    bad("topk", lambda t: t(2, 3).topk(-1), ValueError, "0 to 3", "got -1"),
    bad("topk", lambda t: t().topk(2), ValueError, "0 to 1", "got 2"),
    bad("topk", lambda t: t(2, 3).topk(1.0), TypeError, "1.0"),
    bad("topk", lambda t: t(2, 3).topk(True), TypeError, "True"),
    bad("topk", lambda t: t(2, 3).topk(None), TypeError, "None"),
    bad("topk", lambda t: t(2, 3).topk(1, 2), IndexError, "dim 2", "2 dims"),
    bad("topk", lambda t: t(2, 3).topk(1, "0"), TypeError, "'0'"),
    bad("sum_to_size", lambda t: t(2, 3).sum_to_size(2), ValueError, "(2, 3)", "(2,)"),
    bad("sum_to_size", lambda t: t(3).sum_to_size(2, 3), ValueError, "(3,)", "(2, 3)"),
    bad("sum_to_size", lambda t: t(2, 3).sum_to_size(0, 3), ValueError, "(2, 3)", "(0, 3)"),
    bad("sum_to_size", lambda t: t(2, 3).sum_to_size(-1, 3), ValueError, "(2, 3)", "(-1, 3)"),
    bad("sum_to_size", lambda t: t(2, 3).sum_to_size(1.0, 3), TypeError, "1.0"),
    bad("cumsum", lambda t: t(2, 3).cumsum(None), TypeError, "None"),
    bad("softmax", lambda t: t(2, 3).softmax(None), TypeError, "None"),
    bad("log_softmax", lambda t: t(2, 3).log_softmax(None), TypeError, "None"),
    bad("sort", lambda t: t(2, 3).sort(None), TypeError, "None"),
    bad("argsort", lambda t: t(2, 3).argsort(None), TypeError, "None"),
]

CASES = [
    *(case for name in (*OVER_SEVERAL, *OVER_ONE) for case in _along(name)),
    *(case for name in OVER_SEVERAL for case in _along_several(name)),
    *(case for name in OVER_ONE for case in _along_one(name)),
    *NOTHING,
    *DTYPES,
    *SETTINGS,
]
