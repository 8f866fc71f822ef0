"""Bad input to nn.functional: activations, normalisation, attention, dropout."""

from __future__ import annotations

from typing import Any

from errors.table import Bad, bad
from tinygrad_mnist.nn import functional as F

OF_FLOATS = (
    "softmin",
    "logsigmoid",
    "softplus",
    "leaky_relu",
    "elu",
    "gelu",
    "silu",
    "mish",
    "dropout",
)
LIMITED = ("hardtanh", "relu6")


def _activation(name: str) -> list[Bad]:
    def op(x: Any) -> Any:
        return F.softmin(x, 0) if name == "softmin" else getattr(F, name)(x)

    found = [
        bad(name, lambda t: op([1.0]), TypeError, "list"),
        bad(name, lambda t: op(None), TypeError, "None"),
        bad(name, lambda t: op(1.0), TypeError, "float"),
        bad(name, lambda t: op(t(2).bool()), TypeError, "bool"),
    ]
    if name not in LIMITED:
        found.append(bad(name, lambda t: op(t(2).long()), TypeError, "float", "int64"))
    return found


ACTIVATIONS = [
    bad("softmin", lambda t: F.softmin(t(2, 3), 2), IndexError, "dim 2", "2 dims"),
    bad("softmin", lambda t: F.softmin(t(2, 3), -3), IndexError, "dim -3", "2 dims"),
    bad("softmin", lambda t: F.softmin(t(), 1), IndexError, "dim 1", "0 dims"),
    bad("softmin", lambda t: F.softmin(t(2), None), TypeError, "None"),
    bad("softplus", lambda t: F.softplus(t(2), "1"), TypeError, "beta", "str"),
    bad("softplus", lambda t: F.softplus(t(2), threshold=None), TypeError, "threshold", "NoneType"),
    bad("leaky_relu", lambda t: F.leaky_relu(t(2), t(1)), TypeError, "negative_slope", "Tensor"),
    bad("elu", lambda t: F.elu(t(2), [1.0]), TypeError, "alpha", "list"),
    bad("gelu", lambda t: F.gelu(t(2), "fast"), ValueError, "'fast'"),
    bad("gelu", lambda t: F.gelu(t(2), True), ValueError, "True"),
    bad("hardtanh", lambda t: F.hardtanh(t(2), 1.0, -1.0), ValueError, "1.0 and -1.0"),
    bad("hardtanh", lambda t: F.hardtanh(t(2), "a"), TypeError, "min_val", "str"),
    bad("hardtanh", lambda t: F.hardtanh(t(2), 0, None), TypeError, "max_val", "NoneType"),
    bad("hardtanh", lambda t: F.hardtanh(t(2, dtype="uint8")), TypeError, "uint8"),
]

DROPOUTS = [
    *(
        case
        for name in ("dropout", "dropout2d")
        for op in (getattr(F, name),)
        for case in (
            bad(name, lambda t, op=op: op(t(1, 2, 3, 4), 1.5), ValueError, "0 to 1", "1.5"),
            bad(name, lambda t, op=op: op(t(1, 2, 3, 4), -0.5), ValueError, "0 to 1", "-0.5"),
            bad(name, lambda t, op=op: op(t(1, 2, 3, 4), float("nan")), ValueError, "nan"),
            bad(name, lambda t, op=op: op(t(1, 2, 3, 4), 2, False), ValueError, "0 to 1", "2"),
            bad(name, lambda t, op=op: op(t(1, 2, 3, 4), "0.5"), TypeError, "str"),
            bad(name, lambda t, op=op: op(t(1, 2, 3, 4), None), TypeError, "NoneType"),
            bad(name, lambda t, op=op: op(t(1, 2, 3, 4).long()), TypeError, "int64"),
            bad(name, lambda t, op=op: op([[1.0]], 0.5), TypeError, "list"),
            bad(name, lambda t, op=op: op([[1.0]], 0.5, False), TypeError, "list"),
            bad(name, lambda t, op=op: op(None), TypeError, "None"),
        )
    ),
    bad("dropout2d", lambda t: F.dropout2d(t(2, 3)), ValueError, "(2, 3)"),
    bad("dropout2d", lambda t: F.dropout2d(t(1, 2, 3, 4, 5)), ValueError, "(1, 2, 3, 4, 5)"),
]


def _batch_norm(t: Any, **given: Any) -> Any:
    own = {"input": t(4, 3), "running_mean": t(3), "running_var": t(3), "training": True}
    return F.batch_norm(**{**own, **given})


NORMALISATION = [
    *(
        case
        for what in ("running_mean", "running_var", "weight", "bias")
        for case in (
            bad(
                "batch_norm",
                lambda t, w=what: _batch_norm(t, **{w: t(2)}),
                ValueError,
                f"{what} (2,)",
            ),
            bad(
                "batch_norm", lambda t, w=what: _batch_norm(t, **{w: t(3, 1)}), ValueError, "(3, 1)"
            ),
            bad(
                "batch_norm",
                lambda t, w=what: _batch_norm(t, **{w: [1.0]}),
                TypeError,
                what,
                "list",
            ),
            bad(
                "batch_norm",
                lambda t, w=what: _batch_norm(t, **{w: t(3).double()}),
                TypeError,
                f"{what} float64",
            ),
            bad(
                "batch_norm",
                lambda t, w=what: _batch_norm(t, **{w: t(3).long()}),
                TypeError,
                f"{what} int64",
            ),
        )
    ),
    bad("batch_norm", lambda t: _batch_norm(t, input=None), TypeError, "None"),
    bad("batch_norm", lambda t: _batch_norm(t, input=[1.0]), TypeError, "list"),
    bad("batch_norm", lambda t: _batch_norm(t, input=t(3)), ValueError, "input (3,)"),
    bad("batch_norm", lambda t: _batch_norm(t, input=t(4, 3).long()), TypeError, "int64"),
    bad("batch_norm", lambda t: _batch_norm(t, input=t(1, 3)), ValueError, "(1, 3)"),
    bad("batch_norm", lambda t: _batch_norm(t, running_mean=None), ValueError, "running_mean"),
    bad("batch_norm", lambda t: _batch_norm(t, running_var=None), ValueError, "running_var"),
    bad("batch_norm", lambda t: F.batch_norm(t(4, 3), None, None), ValueError, "training=False"),
    bad("batch_norm", lambda t: _batch_norm(t, eps="a"), TypeError, "eps"),
    bad("batch_norm", lambda t: _batch_norm(t, momentum="a"), TypeError, "momentum"),
    bad("batch_norm", lambda t: _batch_norm(t, eps=None, training=False), TypeError, "eps"),
    bad("layer_norm", lambda t: F.layer_norm(t(2, 3), 3), TypeError, "normalized_shape", "3"),
    bad("layer_norm", lambda t: F.layer_norm(t(2, 3), (3.0,)), TypeError, "3.0"),
    bad("layer_norm", lambda t: F.layer_norm(t(2, 3), ()), ValueError, "()"),
    bad("layer_norm", lambda t: F.layer_norm(t(2, 3), (-3,)), ValueError, "(-3,)"),
    bad("layer_norm", lambda t: F.layer_norm(t(2, 3), (2,)), ValueError, "input (2, 3)"),
    bad("layer_norm", lambda t: F.layer_norm(t(3), (2, 3)), ValueError, "input (3,)"),
    bad("layer_norm", lambda t: F.layer_norm(t(2, 3), (3,), t(2)), ValueError, "weight (2,)"),
    bad("layer_norm", lambda t: F.layer_norm(t(2, 3), (3,), None, t(2)), ValueError, "bias (2,)"),
    bad("layer_norm", lambda t: F.layer_norm(t(2, 3), (3,), t(3).double()), TypeError, "float64"),
    bad("layer_norm", lambda t: F.layer_norm(t(2, 3), (3,), [1.0]), TypeError, "weight", "list"),
    bad("layer_norm", lambda t: F.layer_norm(t(2, 3).long(), (3,)), TypeError, "int64"),
    bad("layer_norm", lambda t: F.layer_norm([1.0], (1,)), TypeError, "list"),
    bad("layer_norm", lambda t: F.layer_norm(None, (1,)), TypeError, "None"),
    bad("layer_norm", lambda t: F.layer_norm(t(2, 3), (3,), eps="a"), TypeError, "eps"),
    bad("group_norm", lambda t: F.group_norm(t(2, 4), 3), ValueError, "4 channels", "3"),
    bad("group_norm", lambda t: F.group_norm(t(2, 4), 0), ValueError, "4 channels", "0"),
    bad("group_norm", lambda t: F.group_norm(t(2, 4), -2), ValueError, "4 channels", "-2"),
    bad("group_norm", lambda t: F.group_norm(t(2, 4), 2.0), TypeError, "2.0"),
    bad("group_norm", lambda t: F.group_norm(t(4), 2), ValueError, "input (4,)"),
    bad("group_norm", lambda t: F.group_norm(t(1, 2), 2), ValueError, "(1, 2)"),
    bad("group_norm", lambda t: F.group_norm(t(2, 4), 2, t(2)), ValueError, "weight (2,)"),
    bad("group_norm", lambda t: F.group_norm(t(2, 4), 2, None, t(4, 1)), ValueError, "bias (4, 1)"),
    bad("group_norm", lambda t: F.group_norm(t(2, 4), 2, t(4).double()), TypeError, "float64"),
    bad("group_norm", lambda t: F.group_norm(t(2, 4).long(), 2), TypeError, "int64"),
    bad("group_norm", lambda t: F.group_norm([1.0], 1), TypeError, "list"),
    bad("group_norm", lambda t: F.group_norm(None, 1), TypeError, "None"),
    bad("group_norm", lambda t: F.group_norm(t(2, 4), 2, eps="a"), TypeError, "eps"),
]


def _attention(t: Any, **given: Any) -> Any:
    own = {"query": t(2, 3, 4), "key": t(2, 5, 4), "value": t(2, 5, 6)}
    return F.scaled_dot_product_attention(**{**own, **given})


SDPA = "scaled_dot_product_attention"
ATTENTION = [
    *(
        case
        for what in ("query", "key", "value")
        for case in (
            bad(SDPA, lambda t, w=what: _attention(t, **{w: [1.0]}), TypeError, what, "list"),
            bad(SDPA, lambda t, w=what: _attention(t, **{w: None}), TypeError, what, "None"),
            bad(SDPA, lambda t, w=what: _attention(t, **{w: t(4)}), ValueError, f"{what} (4,)"),
            bad(SDPA, lambda t, w=what: _attention(t, **{w: t(2, 9, 9)}), ValueError, "(2, 9, 9)"),
            bad(
                SDPA,
                lambda t, w=what: _attention(t, **{w: t(2, 5, 4).long()}),
                TypeError,
                "int64",
            ),
        )
    ),
    bad(SDPA, lambda t: _attention(t, key=t(2, 5, 4).double()), TypeError, "float64"),
    bad(SDPA, lambda t: _attention(t, query=t(3, 3, 4)), ValueError, "(3, 3, 4)", "(2, 5, 4)"),
    bad(SDPA, lambda t: _attention(t, attn_mask=t(2, 2).bool()), ValueError, "(2, 2)", "(2, 3, 5)"),
    bad(SDPA, lambda t: _attention(t, attn_mask=t(9, 2, 3, 5)), ValueError, "(9, 2, 3, 5)"),
    bad(SDPA, lambda t: _attention(t, attn_mask=t(3, 5).long()), TypeError, "int64"),
    bad(SDPA, lambda t: _attention(t, attn_mask=t(3, 5).double()), TypeError, "float64"),
    bad(SDPA, lambda t: _attention(t, attn_mask=[True]), TypeError, "attn_mask", "list"),
    bad(SDPA, lambda t: _attention(t, attn_mask=t(3, 5), is_causal=True), ValueError, "both"),
    bad(SDPA, lambda t: _attention(t, dropout_p=1.5), ValueError, "dropout_p", "1.5"),
    bad(SDPA, lambda t: _attention(t, dropout_p="a"), TypeError, "dropout_p", "str"),
    bad(SDPA, lambda t: _attention(t, scale="a"), TypeError, "scale", "str"),
    bad("embedding", lambda t: F.embedding(t.of([2]), t(2, 3)), IndexError, "index 2", "0 to 1"),
    bad("embedding", lambda t: F.embedding(t.of([-1]), t(2, 3)), IndexError, "index -1", "0 to 1"),
    bad("embedding", lambda t: F.embedding(t.of(0), t(0, 3)), IndexError, "size 0"),
    bad("embedding", lambda t: F.embedding(t.of([0]), t(3)), ValueError, "weight (3,)"),
    bad("embedding", lambda t: F.embedding(t.of([0]), t(2, 3, 4)), ValueError, "weight (2, 3, 4)"),
    bad("embedding", lambda t: F.embedding(t(1), t(2, 3)), TypeError, "float32"),
    bad("embedding", lambda t: F.embedding(t(1).bool(), t(2, 3)), TypeError, "bool"),
    bad("embedding", lambda t: F.embedding([0], t(2, 3)), TypeError, "list"),
    bad("embedding", lambda t: F.embedding(0, t(2, 3)), TypeError, "int"),
    bad("embedding", lambda t: F.embedding(None, t(2, 3)), TypeError, "NoneType"),
    bad("embedding", lambda t: F.embedding(t.of([0]), [[1.0]]), TypeError, "list"),
    bad("embedding", lambda t: F.embedding(t.of([0]), None), TypeError, "NoneType"),
    bad("embedding", lambda t: F.embedding(t.of([0]), t(2, 3), 2), ValueError, "-2 to 1", "2"),
    bad("embedding", lambda t: F.embedding(t.of([0]), t(2, 3), -3), ValueError, "-2 to 1", "-3"),
    bad("embedding", lambda t: F.embedding(t.of([0]), t(2, 3), 0.0), TypeError, "0.0"),
    bad("one_hot", lambda t: F.one_hot(t.of([3]), 3), IndexError, "index 3", "0 to 2"),
    bad("one_hot", lambda t: F.one_hot(t.of([-1]), 3), IndexError, "index -1", "0 to 2"),
    bad("one_hot", lambda t: F.one_hot(t.of([-1, 2])), IndexError, "index -1", "0 to 2"),
    bad("one_hot", lambda t: F.one_hot(t.of([0]), 0), ValueError, "0"),
    bad("one_hot", lambda t: F.one_hot(t.of([0]), -2), ValueError, "-2"),
    bad("one_hot", lambda t: F.one_hot(t(0).long()), ValueError, "(0,)"),
    bad("one_hot", lambda t: F.one_hot(t.of([0]), 2.0), TypeError, "2.0"),
    bad("one_hot", lambda t: F.one_hot(t.of([0]), None), TypeError, "None"),
    bad("one_hot", lambda t: F.one_hot(t(2), 3), TypeError, "float32"),
    bad("one_hot", lambda t: F.one_hot([0], 3), TypeError, "list"),
]

CASES = [
    *(case for name in (*OF_FLOATS, *LIMITED) for case in _activation(name)),
    *ACTIVATIONS,
    *DROPOUTS,
    *NORMALISATION,
    *ATTENTION,
]
