"""Bad input to products, convolution and pooling."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

import tinygrad_mnist as tg
from errors.table import Bad, bad
from tinygrad_mnist.nn import functional as F

# Per op: shapes that fit its operands, the first one's dims being wrong with one more.
OPERANDS: dict[str, tuple[tuple[int, ...], ...]] = {
    "mm": ((2, 3), (3, 2)),
    "bmm": ((2, 2, 3), (2, 3, 2)),
    "mv": ((2, 3), (3,)),
    "dot": ((2,), (2,)),
    "outer": ((2,), (3,)),
    "addmm": ((2,), (3, 2), (2, 2)),
    "baddbmm": ((2,), (1, 3, 2), (1, 2, 2)),
    "matmul": ((2, 3), (3, 2)),
    "linear": ((2, 3), (4, 3), (4,)),
    "conv1d": ((1, 2, 5), (3, 2, 2), (3,)),
    "conv2d": ((1, 2, 5, 5), (3, 2, 2, 2), (3,)),
    "conv_transpose2d": ((1, 2, 5, 5), (2, 3, 2, 2), (3,)),
}
PROMOTING = ("outer",)  # takes operands of two dtypes, and booleans


def _operands(name: str) -> list[Bad]:
    """Each operand in turn as what is no tensor, of another dtype, and of other dims."""
    op: Callable[..., Any] = getattr(tg, name, None) or getattr(F, name)
    shapes = OPERANDS[name]
    found = []
    for i in range(len(shapes)):

        def call(t: Any, change: Callable[[Any], Any], i: int = i) -> Any:
            given = [t(*shape) for shape in shapes]
            return op(*given[:i], change(given[i]), *given[i + 1 :])

        found += [
            bad(name, lambda t, call=call: call(t, lambda x: [1.0]), TypeError, "list"),
            bad(name, lambda t, call=call: call(t, lambda x: "a"), TypeError, "str"),
        ]
        if name != "matmul":
            found += [
                bad(name, lambda t, call=call: call(t, lambda x: 2.0), TypeError, "float"),
                bad(name, lambda t, call=call: call(t, lambda x: x.numpy()), TypeError, "ndarray"),
            ]
        if name not in ("linear", "conv1d", "conv2d", "conv_transpose2d") or i < 2:
            found.append(bad(name, lambda t, call=call: call(t, lambda x: None), TypeError, "None"))
        if name not in PROMOTING:
            two = ("float32", "float64")
            found += [
                bad(name, lambda t, call=call: call(t, lambda x: x.double()), TypeError, *two),
                bad(name, lambda t, call=call: call(t, lambda x: x.long()), TypeError, "int64"),
            ]
        wide = (1, 1, 1, *shapes[i])
        if not (i == 0 and name in ("linear", "addmm", "baddbmm")) and name != "matmul":
            found.append(
                bad(
                    name,
                    lambda t, call=call, wide=wide: call(t, lambda x: x.reshape(wide)),
                    ValueError,
                    str(wide),
                )
            )
        if not (i == 0 and name in ("addmm", "baddbmm")):
            found.append(
                bad(name, lambda t, call=call: call(t, lambda x: x.sum()), ValueError, "()")
            )
    if name not in PROMOTING:
        found.append(
            bad(name, lambda t: op(*[t(*shape).bool() for shape in shapes]), TypeError, "bool")
        )
    return found


PRODUCTS = [
    bad("mm", lambda t: t(2, 3).mm(t(2, 3)), ValueError, "x (2, 3)", "mat2 (2, 3)"),
    bad("bmm", lambda t: t(2, 2, 3).bmm(t(3, 3, 2)), ValueError, "(2, 2, 3)", "(3, 3, 2)"),
    bad("bmm", lambda t: t(2, 2, 3).bmm(t(1, 3, 2)), ValueError, "(2, 2, 3)", "(1, 3, 2)"),
    bad("mv", lambda t: t(2, 3).mv(t(2)), ValueError, "(2, 3)", "(2,)"),
    bad("dot", lambda t: t(2).dot(t(3)), ValueError, "(2,)", "(3,)"),
    bad("dot", lambda t: t(2).dot(t(1)), ValueError, "(2,)", "(1,)"),
    bad("matmul", lambda t: t(2, 3) @ t(2, 3), ValueError, "(2, 3)"),
    bad("matmul", lambda t: t(2, 3) @ t(2), ValueError, "(2, 3)", "(2,)"),
    bad("matmul", lambda t: t(2) @ t(3, 2), ValueError, "(2,)", "(3, 2)"),
    bad("matmul", lambda t: t() @ t(3), ValueError, "()", "(3,)"),
    bad("matmul", lambda t: t(2, 1, 1) @ t(3, 1, 1), ValueError, "(2, 1, 1)", "(3, 1, 1)"),
    bad("matmul", lambda t: t(2, 2) @ 2.0, TypeError, "float"),
    bad("matmul", lambda t: np.ones((2, 3)) @ t(2, 2), TypeError, "float64", "float32"),
    bad("matmul", lambda t: t(2, 2) @ None, TypeError, "None"),
    bad("addmm", lambda t: t(3).addmm(t(2, 2), t(2, 2)), ValueError, "(3,)", "(2, 2)"),
    bad("addmm", lambda t: t(2).addmm(t(2, 3), t(2, 2)), ValueError, "(2, 3)", "(2, 2)"),
    bad("addmm", lambda t: t(2, 2, 2).addmm(t(2, 2), t(2, 2)), ValueError, "(2, 2, 2)"),
    bad(
        "addmm",
        lambda t: t(2).long().addmm(t(2, 2).long(), t(2, 2).long(), beta=0.5),
        TypeError,
        "0.5",
        "int64",
    ),
    bad("addmm", lambda t: t(2).addmm(t(2, 2), t(2, 2), alpha="2"), TypeError, "alpha", "str"),
    bad("addmm", lambda t: t(2).addmm(t(2, 2), t(2, 2), beta=None), TypeError, "None"),
    bad("baddbmm", lambda t: t(3).baddbmm(t(1, 2, 2), t(1, 2, 2)), ValueError, "(3,)"),
    bad("baddbmm", lambda t: t(2).baddbmm(t(1, 2, 2), t(2, 2, 2)), ValueError, "(2, 2, 2)"),
    bad(
        "baddbmm",
        lambda t: t(2).baddbmm(t(1, 2, 2), t(1, 2, 2), beta=[1]),
        TypeError,
        "beta",
        "list",
    ),
    bad("linear", lambda t: F.linear(t(2, 3), t(4, 5)), ValueError, "(2, 3)", "(4, 5)"),
    bad("linear", lambda t: F.linear(t(2, 3), t(4, 3), t(3)), ValueError, "(4, 3)", "(3,)"),
    bad("linear", lambda t: F.linear(t(2, 3), t(4, 3), t(4, 1)), ValueError, "(4, 1)"),
]

EINSUM = [
    bad("einsum", lambda t: tg.einsum("ij,jk", t(2, 2)), ValueError, "2 operands, got 1"),
    bad("einsum", lambda t: tg.einsum("i"), ValueError, "1 operand", "got 0"),
    bad("einsum", lambda t: tg.einsum("ij", t(2)), ValueError, "'ij'", "1 dims"),
    bad("einsum", lambda t: tg.einsum("i", t(2, 2)), ValueError, "'i'", "2 dims"),
    bad("einsum", lambda t: tg.einsum("i1", t(2)), ValueError, "'i1'"),
    bad("einsum", lambda t: tg.einsum("i->k", t(2)), ValueError, "'i->k'"),
    bad("einsum", lambda t: tg.einsum("i->ii", t(2)), ValueError, "'i->ii'"),
    bad("einsum", lambda t: tg.einsum("i->i->i", t(2)), ValueError, "i->i"),
    bad("einsum", lambda t: tg.einsum("i..", t(2)), ValueError, "'i..'"),
    bad("einsum", lambda t: tg.einsum("i,i", t(2), t(3)), ValueError, "'i'", "2 and 3"),
    bad("einsum", lambda t: tg.einsum("...,...", t(2), t(3)), ValueError, "'...'", "2 and 3"),
    bad("einsum", lambda t: tg.einsum("ii", t(2, 3)), ValueError, "'i'", "2 and 3"),
    bad("einsum", lambda t: tg.einsum(t(2), [0]), TypeError, "equation", "Tensor"),
    bad("einsum", lambda t: tg.einsum("i,i", t(2), t(2).double()), TypeError, "float64"),
    bad("einsum", lambda t: tg.einsum("i,i->", t(2).bool(), t(2).bool()), TypeError, "bool"),
    bad("einsum", lambda t: tg.einsum("i,i", t(2), 3.0), TypeError, "operand 1", "float"),
    bad("einsum", lambda t: tg.einsum("i", np.ones(2)), TypeError, "operand 0", "ndarray"),
    bad("einsum", lambda t: tg.einsum("i,i", [t(2), None]), TypeError, "operand 1", "NoneType"),
]


def _settings(
    name: str, call: Callable[..., Any], least: dict[str, int], one: bool = False
) -> list[Bad]:
    """Settings of windows that are too small, no integers, or too many."""
    many = (1, 1) if one else (1, 1, 1)
    return [
        bad(name, lambda t, s=s, wrong=wrong: call(t, **{s: wrong}), ValueError, s, repr(wrong))
        for s, low in least.items()
        for wrong in (low - 1, 1.5, "a", many, (low - 1,), True)
        if not (s == "padding" and wrong == "a")
    ]


CONVOLUTIONS = [
    *_settings(
        "conv1d",
        lambda t, **k: F.conv1d(t(1, 2, 5), t(3, 2, 2), **k),
        {"stride": 1, "padding": 0, "dilation": 1},
        one=True,
    ),
    *_settings(
        "conv2d",
        lambda t, **k: F.conv2d(t(1, 2, 5, 5), t(3, 2, 2, 2), **k),
        {"stride": 1, "padding": 0, "dilation": 1},
    ),
    *_settings(
        "conv_transpose2d",
        lambda t, **k: F.conv_transpose2d(t(1, 2, 5, 5), t(2, 3, 2, 2), **k),
        {"stride": 1, "padding": 0, "dilation": 1, "output_padding": 0},
    ),
    bad(
        "conv2d",
        lambda t: F.conv2d(t(1, 1, 3, 3), t(1, 1, 2, 2), stride=t(2, 2)),
        ValueError,
        "(2, 2)",
    ),
    bad("conv1d", lambda t: F.conv1d(t(1, 2, 5), t(3, 1, 2)), ValueError, "(3, 1, 2)", "(1, 2, 5)"),
    bad("conv1d", lambda t: F.conv1d(t(1, 2, 3), t(3, 2, 4)), ValueError, "3", "4"),
    bad("conv1d", lambda t: F.conv1d(t(1, 2, 5), t(3, 2, 2), t(2)), ValueError, "bias (2,)"),
    bad("conv1d", lambda t: F.conv1d(t(1, 2, 5), t(3, 2, 2), padding="full"), ValueError, "'full'"),
    bad(
        "conv1d",
        lambda t: F.conv1d(t(1, 2, 5), t(3, 2, 2), stride=2, padding="same"),
        ValueError,
        '"same"',
        "stride 1",
    ),
    bad("conv1d", lambda t: F.conv1d(t(1, 2, 5), t(3, 1, 2), groups=2), ValueError, "groups=2"),
    bad("conv1d", lambda t: F.conv1d(t(1, 2, 5), t(3, 2, 2), groups=0), ValueError, "groups=0"),
    bad("conv1d", lambda t: F.conv1d(t(1, 2, 5), t(3, 2, 2), groups=1.0), TypeError, "1.0"),
    bad("conv2d", lambda t: F.conv2d(t(1, 3, 5, 5), t(4, 2, 3, 3)), ValueError, "(4, 2, 3, 3)"),
    bad("conv2d", lambda t: F.conv2d(t(1, 2, 2, 5), t(3, 2, 3, 3)), ValueError, "(3, 3)", "(2, 5)"),
    bad("conv2d", lambda t: F.conv2d(t(1, 2, 5, 5), t(3, 2, 2, 2), t(2)), ValueError, "bias (2,)"),
    bad(
        "conv2d",
        lambda t: F.conv2d(t(1, 1, 5, 5), t(1, 1, 3, 3), dilation=3),
        ValueError,
        "(3, 3)",
        "(5, 5)",
    ),
    bad("conv2d", lambda t: F.conv2d(t(1, 1, 5, 5), t(1, 1, 0, 3)), ValueError, "(0, 3)"),
    bad("conv2d", lambda t: F.conv2d(t(1, 1, 0, 5), t(1, 1, 1, 1)), ValueError, "(1, 1, 0, 5)"),
    bad(
        "conv2d",
        lambda t: F.conv2d(t(1, 1, 5, 5), t(1, 1, 2, 2), padding="reflect"),
        ValueError,
        "'reflect'",
    ),
    bad(
        "conv2d",
        lambda t: F.conv2d(t(1, 1, 5, 5), t(1, 1, 2, 2), None, (1, 2), "same"),
        ValueError,
        '"same"',
        "(1, 2)",
    ),
    bad(
        "conv2d",
        lambda t: F.conv2d(t(1, 4, 5, 5), t(3, 2, 2, 2), groups=2),
        ValueError,
        "groups=2",
    ),
    bad("conv2d", lambda t: F.conv2d(t(1, 2, 5, 5), t(3, 2, 2, 2), groups=-1), ValueError, "-1"),
    bad("conv2d", lambda t: F.conv2d(t(1, 2, 5, 5), t(3, 2, 2, 2), groups="1"), TypeError, "'1'"),
    bad(
        "conv_transpose2d",
        lambda t: F.conv_transpose2d(t(1, 2, 5, 5), t(3, 1, 2, 2)),
        ValueError,
        "(1, 2, 5, 5)",
        "(3, 1, 2, 2)",
    ),
    bad(
        "conv_transpose2d",
        lambda t: F.conv_transpose2d(t(1, 2, 3, 3), t(2, 1, 2, 2), padding=5),
        ValueError,
        "padding (5, 5)",
    ),
    bad(
        "conv_transpose2d",
        lambda t: F.conv_transpose2d(t(1, 2, 3, 3), t(2, 1, 2, 2), output_padding=1),
        ValueError,
        "output_padding",
        "(1, 1)",
    ),
    bad(
        "conv_transpose2d",
        lambda t: F.conv_transpose2d(t(1, 2, 3, 3), t(2, 1, 2, 2), t(3)),
        ValueError,
        "bias (3,)",
    ),
    bad(
        "conv_transpose2d",
        lambda t: F.conv_transpose2d(t(1, 2, 3, 3), t(2, 1, 2, 2), groups=3),
        ValueError,
        "groups=3",
    ),
    bad(
        "conv_transpose2d",
        lambda t: F.conv_transpose2d(t(1, 2, 3, 3), t(2, 1, 2, 2), groups=1.0),
        TypeError,
        "1.0",
    ),
    bad(
        "conv_transpose2d",
        lambda t: F.conv_transpose2d(t(1, 2, 3, 3), t(2, 1, 2, 2), padding="same"),
        ValueError,
        "padding",
        "'same'",
    ),
]


def _pooling(name: str) -> list[Bad]:
    op: Callable[..., Any] = getattr(F, name)
    return [
        *_settings(
            name,
            lambda t, kernel_size=2, **k: op(t(1, 1, 4, 4), kernel_size, **k),
            {"kernel_size": 1, "stride": 1, "padding": 0},
        ),
        bad(name, lambda t: op(t(4, 4), 2), ValueError, "(4, 4)"),
        bad(name, lambda t: op(t(1, 1, 1, 4, 4), 2), ValueError, "(1, 1, 1, 4, 4)"),
        bad(name, lambda t: op(t(1, 1, 4, 4), 5), ValueError, "(5, 5)", "(4, 4)"),
        bad(name, lambda t: op(t(1, 1, 4, 4), 2, padding=2), ValueError, "(2, 2)", "half"),
        bad(name, lambda t: op(t(1, 1, 0, 4), 1), ValueError, "(1, 1, 0, 4)"),
        bad(name, lambda t: op(t(1, 1, 4, 4).bool(), 2), TypeError, "bool"),
        bad(name, lambda t: op([[1.0]], 1), TypeError, "list"),
        bad(name, lambda t: op(None, 1), TypeError, "None"),
    ]


POOLING = [
    *_pooling("max_pool2d"),
    *_pooling("avg_pool2d"),
    *_settings("max_pool2d", lambda t, **k: F.max_pool2d(t(1, 1, 4, 4), 2, **k), {"dilation": 1}),
    bad(
        "max_pool2d",
        lambda t: F.max_pool2d(t(1, 1, 4, 4), 2, dilation=4),
        ValueError,
        "(2, 2)",
        "(4, 4)",
    ),
    bad(
        "max_pool2d",
        lambda t: F.max_pool2d(t(1, 1, 4, 4), 2, return_indices=True),
        ValueError,
        "return_indices=True",
    ),
    bad("avg_pool2d", lambda t: F.avg_pool2d(t(1, 1, 4, 4).long(), 2), TypeError, "int64"),
    bad(
        "avg_pool2d",
        lambda t: F.avg_pool2d(t(1, 1, 4, 4), 2, divisor_override=0),
        ValueError,
        "0",
    ),
    bad(
        "avg_pool2d",
        lambda t: F.avg_pool2d(t(1, 1, 4, 4), 2, divisor_override=1.5),
        TypeError,
        "1.5",
    ),
    bad(
        "avg_pool2d",
        lambda t: F.avg_pool2d(t(1, 1, 4, 4), 2, divisor_override="a"),
        TypeError,
        "'a'",
    ),
    *_settings(
        "adaptive_avg_pool2d",
        lambda t, **k: F.adaptive_avg_pool2d(t(1, 1, 4, 4), **k),
        {"output_size": 0},
    ),
    bad("adaptive_avg_pool2d", lambda t: F.adaptive_avg_pool2d(t(4, 4), 2), ValueError, "(4, 4)"),
    bad(
        "adaptive_avg_pool2d",
        lambda t: F.adaptive_avg_pool2d(t(1, 1, 0, 4), 2),
        ValueError,
        "(1, 1, 0, 4)",
    ),
    bad(
        "adaptive_avg_pool2d",
        lambda t: F.adaptive_avg_pool2d(t(1, 4, 4).long(), 2),
        TypeError,
        "int64",
    ),
    bad("adaptive_avg_pool2d", lambda t: F.adaptive_avg_pool2d([1.0], 2), TypeError, "list"),
    bad("adaptive_avg_pool2d", lambda t: F.adaptive_avg_pool2d(None, 2), TypeError, "None"),
]

WINDOWS = [
    *_settings(
        "unfold",
        lambda t, kernel_size=2, **k: F.unfold(t(1, 1, 4, 4), kernel_size, **k),
        {"kernel_size": 1, "dilation": 1, "padding": 0, "stride": 1},
    ),
    *_settings(
        "fold",
        lambda t, output_size=3, kernel_size=2, **k: F.fold(
            t(1, 4, 4), output_size, kernel_size, **k
        ),
        {"output_size": 1, "kernel_size": 1, "dilation": 1, "padding": 0, "stride": 1},
    ),
    bad("unfold", lambda t: F.unfold(t(4, 4), 2), ValueError, "(4, 4)"),
    bad("unfold", lambda t: F.unfold(t(1, 1, 4, 4), 5), ValueError, "(5, 5)", "(4, 4)"),
    bad("unfold", lambda t: F.unfold([1.0], 1), TypeError, "list"),
    bad("unfold", lambda t: F.unfold(None, 1), TypeError, "None"),
    bad("fold", lambda t: F.fold(t(1, 5, 4), 3, 2), ValueError, "(1, 5, 4)"),
    bad("fold", lambda t: F.fold(t(1, 4, 5), 3, 2), ValueError, "(1, 4, 5)"),
    bad("fold", lambda t: F.fold(t(1, 4, 4), 1, 2), ValueError, "(1, 4, 4)"),
    bad("fold", lambda t: F.fold(t(1, 1, 4, 4), 3, 2), ValueError, "(1, 1, 4, 4)"),
    bad("fold", lambda t: F.fold(t(1, 4, 4).long(), 3, 2), TypeError, "int64"),
    bad("fold", lambda t: F.fold([1.0], 3, 2), TypeError, "list"),
    bad("fold", lambda t: F.fold(None, 3, 2), TypeError, "None"),
]

CASES = [
    *(case for name in OPERANDS for case in _operands(name)),
    *PRODUCTS,
    *EINSUM,
    *CONVOLUTIONS,
    *POOLING,
    *WINDOWS,
]
