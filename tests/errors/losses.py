"""Bad input to the losses."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from errors.table import Bad, bad
from tinygrad_mnist.nn import functional as F

OF_PAIRS = ("mse_loss", "l1_loss", "smooth_l1_loss", "huber_loss", "kl_div")
OF_PROBABILITIES = ("binary_cross_entropy", "binary_cross_entropy_with_logits")
OF_CLASSES = ("cross_entropy", "nll_loss")


def _of_numbers(name: str) -> list[Bad]:
    op: Callable[..., Any] = getattr(F, name)
    return [
        bad(name, lambda t: op([1.0], t(1)), TypeError, "list"),
        bad(name, lambda t: op(None, t(1)), TypeError, "None"),
        bad(name, lambda t: op(t(1), 1.0), TypeError, "float"),
        bad(name, lambda t: op(t(1), None), TypeError, "None"),
        bad(name, lambda t: op(t(2, 3), t(2)), ValueError, "(2, 3)", "(2,)"),
        bad(name, lambda t: op(t(2), t(2, 1)), ValueError, "(2,)", "(2, 1)"),
        bad(name, lambda t: op(t(2), t()), ValueError, "(2,)", "()"),
        bad(name, lambda t: op(t(2).long(), t(2).long()), TypeError, "float", "int64"),
        bad(name, lambda t: op(t(2).bool(), t(2).bool()), TypeError, "float", "bool"),
        bad(name, lambda t: op(t(2), t(2), reduction="avg"), ValueError, "'avg'", "'mean'"),
        bad(name, lambda t: op(t(2), t(2), reduction=None), ValueError, "None", "'mean'"),
        bad(name, lambda t: op(t(2), t(2), reduction=t(2, 2)), ValueError, "(2, 2)"),
        bad(name, lambda t: op(t(2), t(2), reduction=["mean"]), ValueError, "['mean']"),
    ]


def _weighted(name: str, *, spreads: bool) -> list[Bad]:
    op: Callable[..., Any] = getattr(F, name)
    found = [
        bad(name, lambda t: op(t(2), t(2), weight=[1.0]), TypeError, "weight", "list"),
        bad(name, lambda t: op(t(2), t(2), weight=1.0), TypeError, "weight", "float"),
        bad(name, lambda t: op(t(2), t(2), weight=t(3)), ValueError, "(2,)", "(3,)"),
        bad(name, lambda t: op(t(2), t(2), weight=t(2, 2)), ValueError, "(2,)", "(2, 2)"),
    ]
    if not spreads:
        found.append(bad(name, lambda t: op(t(2), t(2), weight=t(1)), ValueError, "(2,)", "(1,)"))
    return found


def _of_classes(name: str) -> list[Bad]:
    op: Callable[..., Any] = getattr(F, name)
    return [
        *(
            bad(name, lambda t, c=c: op(t(2, 3), t.of([0, c])), IndexError, str(c), "0 to 2")
            for c in (3, -1, 100)
        ),
        bad(name, lambda t: op(t(2, 3, 2), t.of([[0, 1], [2, 3]])), IndexError, "3", "0 to 2"),
        bad(name, lambda t: op(t(3), t.of(3)), IndexError, "3", "0 to 2"),
        bad(name, lambda t: op(t(2, 3), t.of([0, 3]), t(3)), IndexError, "3", "0 to 2"),
        bad(
            name,
            lambda t: op(t(2, 3), t.of([0, 3]), ignore_index=-1),
            IndexError,
            "3",
            "0 to 2",
        ),
        bad(name, lambda t: op(t(2, 3), t(3).long()), ValueError, "(2, 3)", "(3,)"),
        bad(name, lambda t: op(t(2, 3), t(2, 1).long()), ValueError, "(2, 3)", "(2, 1)"),
        bad(name, lambda t: op(t(2, 3, 4), t(2, 3).long()), ValueError, "(2, 3, 4)", "(2, 3)"),
        bad(name, lambda t: op(t(), t().long()), ValueError, "()"),
        bad(name, lambda t: op(t(2, 0), t(2).long()), ValueError, "(2, 0)"),
        bad(name, lambda t: op(t(2, 3), t(2)), TypeError, "int64", "float32"),
        bad(name, lambda t: op(t(2, 3), t(2).bool()), TypeError, "int64", "bool"),
        bad(name, lambda t: op(t(2, 3).long(), t(2).long()), TypeError, "float", "int64"),
        bad(name, lambda t: op([[1.0]], t(1).long()), TypeError, "list"),
        bad(name, lambda t: op(None, t(1).long()), TypeError, "NoneType"),
        bad(name, lambda t: op(t(2, 3), [0, 1]), TypeError, "list"),
        bad(name, lambda t: op(t(2, 3), None), TypeError, "NoneType"),
        bad(name, lambda t: op(t(2, 3), t(2).long(), t(2)), ValueError, "weight (2,)"),
        bad(name, lambda t: op(t(2, 3), t(2).long(), t(3, 1)), ValueError, "weight (3, 1)"),
        bad(name, lambda t: op(t(3), t().long(), t(2)), ValueError, "weight (2,)"),
        bad(name, lambda t: op(t(2, 3), t(2).long(), t(3).double()), TypeError, "float64"),
        bad(name, lambda t: op(t(2, 3), t(2).long(), t(3).long()), TypeError, "int64"),
        bad(name, lambda t: op(t(2, 3), t(2).long(), [1.0]), TypeError, "weight", "list"),
        bad(name, lambda t: op(t(2, 3), t(2).long(), reduction="avg"), ValueError, "'avg'"),
        bad(name, lambda t: op(t(2, 3), t(2).long(), ignore_index=0.5), TypeError, "0.5"),
        bad(name, lambda t: op(t(2, 3), t(2).long(), ignore_index=None), TypeError, "None"),
    ]


SETTINGS = [
    bad("smooth_l1_loss", lambda t: F.smooth_l1_loss(t(2), t(2), beta=-1), ValueError, "-1"),
    bad("smooth_l1_loss", lambda t: F.smooth_l1_loss(t(2), t(2), beta="a"), TypeError, "beta"),
    bad("huber_loss", lambda t: F.huber_loss(t(2), t(2), delta=0), ValueError, "0"),
    bad("huber_loss", lambda t: F.huber_loss(t(2), t(2), delta=-1.0), ValueError, "-1.0"),
    bad("huber_loss", lambda t: F.huber_loss(t(2), t(2), delta=None), TypeError, "delta"),
    bad(
        "cross_entropy",
        lambda t: F.cross_entropy(t(2, 3), t(2).long(), label_smoothing=1.5),
        ValueError,
        "label_smoothing",
        "1.5",
    ),
    bad(
        "cross_entropy",
        lambda t: F.cross_entropy(t(2, 3), t(2).long(), label_smoothing=-0.1),
        ValueError,
        "label_smoothing",
        "-0.1",
    ),
    bad(
        "cross_entropy",
        lambda t: F.cross_entropy(t(2, 3), t(2).long(), label_smoothing="a"),
        TypeError,
        "label_smoothing",
    ),
    bad(
        "cross_entropy",
        lambda t: F.cross_entropy(t(2, 3), t(2, 3), ignore_index=1),
        ValueError,
        "ignore_index=1",
    ),
    bad("cross_entropy", lambda t: F.cross_entropy(t(2, 3), t(2, 3).long()), TypeError, "int64"),
    bad("cross_entropy", lambda t: F.cross_entropy(t(2, 3), t(2, 3), t(2)), ValueError, "(2,)"),
    bad("kl_div", lambda t: F.kl_div(t(2), t(2), "average"), ValueError, "'batchmean'"),
    bad(
        "binary_cross_entropy_with_logits",
        lambda t: F.binary_cross_entropy_with_logits(t(2), t(2), pos_weight=t(3)),
        ValueError,
        "pos_weight",
        "(3,)",
    ),
    bad(
        "binary_cross_entropy_with_logits",
        lambda t: F.binary_cross_entropy_with_logits(t(2), t(2), pos_weight=[1.0]),
        TypeError,
        "pos_weight",
        "list",
    ),
    bad(
        "binary_cross_entropy",
        lambda t: F.binary_cross_entropy(t(2), t(2).double()),
        TypeError,
        "float64",
    ),
]

CASES = [
    *(case for name in (*OF_PAIRS, *OF_PROBABILITIES) for case in _of_numbers(name)),
    *(case for n in ("mse_loss", "l1_loss", "huber_loss") for case in _weighted(n, spreads=False)),
    *(case for name in OF_PROBABILITIES for case in _weighted(name, spreads=True)),
    *(case for name in OF_CLASSES for case in _of_classes(name)),
    *SETTINGS,
]
