"""Bad input to the ops on each element."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

import tinygrad_mnist as tg
from errors.table import Bad, bad, each

ARITHMETIC = ("add", "sub", "mul", "div", "floor_divide", "remainder", "pow", "maximum", "minimum")
COMPARISONS = ("eq", "ne", "lt", "le", "gt", "ge")
OF_BITS = ("bitwise_and", "bitwise_or", "bitwise_xor")
LOGIC = ("logical_and", "logical_or", "logical_xor")


def _of_two(name: str) -> list[Bad]:
    """What every op of two tensors refuses."""
    op: Callable[..., Any] = getattr(tg, name)
    kind = "int64" if name in OF_BITS else "float32"
    return [
        bad(name, lambda t: op(t(2, 3).to(kind), t(4).to(kind)), ValueError, "(2, 3) and (4,)"),
        bad(name, lambda t: op(t(2), np.ones(3, np.int64)), *OF_ARRAYS[name in OF_BITS]),
        bad(name, lambda t: op(t(2), [1.0, 2.0]), TypeError, "list"),
        bad(name, lambda t: op(t(2), None), TypeError, "NoneType"),
        bad(name, lambda t: op(t(2), "2"), TypeError, "str"),
        bad(name, lambda t: op(t(2), 2j), TypeError, "complex"),
        bad(name, lambda t: op(t(2), np.array([1j, 2])), TypeError, "complex128"),
        bad(name, lambda t: op([1.0], t(1)), TypeError, "list"),
        bad(name, lambda t: op(1.0, 2.0), TypeError, "float"),
    ]


OF_ARRAYS: dict[bool, tuple[Any, ...]] = {
    False: (ValueError, "(2,) and (3,)"),
    True: (TypeError, "float32"),
}

OPERATORS = [
    bad("add", lambda t: t(2) + t(3), ValueError, "(2,) and (3,)"),
    bad("sub", lambda t: t(2) - t(3), ValueError, "(2,) and (3,)"),
    bad("mul", lambda t: np.ones(3) * t(2), ValueError, "(3,)", "(2,)"),
    bad("div", lambda t: [1.0] / t(2), TypeError, "list"),
    bad("floor_divide", lambda t: t(2) // None, TypeError, "NoneType"),
    bad("remainder", lambda t: None % t(2), TypeError, "NoneType"),
    bad("pow", lambda t: None ** t(2), TypeError, "NoneType"),
    bad("lt", lambda t: t(2) < t(3), ValueError, "(2,) and (3,)"),
    bad("le", lambda t: t(2) <= None, TypeError, "NoneType"),
    bad("gt", lambda t: t(2) > "a", TypeError, "str"),
    bad("ge", lambda t: t(2) >= [1], TypeError, "list"),
    bad("eq", lambda t: t(2) == t(3), ValueError, "(2,) and (3,)"),
    bad("ne", lambda t: t(2) != t(3), ValueError, "(2,) and (3,)"),
    bad("bitwise_and", lambda t: t(2) & True, TypeError, "booleans or integers", "float32"),
    bad("bitwise_or", lambda t: t(2).bool() | 0.5, TypeError, "float32"),
    bad("bitwise_xor", lambda t: t(2).long() ^ t(2), TypeError, "float32"),
    bad("bitwise_not", lambda t: ~t(2), TypeError, "booleans or integers", "float32"),
    bad("neg", lambda t: -t(2).bool(), TypeError, "integers or floats", "bool"),
]

CLOSENESS = [
    *each(("isclose", "allclose"), lambda op, t: op(t(2), t(3)), ValueError, "(2,) and (3,)"),
    *each(("isclose", "allclose"), lambda op, t: op(t(2), [1.0]), TypeError, "list"),
    *each(("isclose", "allclose"), lambda op, t: op(t(2), t(2), -1.0), ValueError, "-1.0"),
    *each(("isclose", "allclose"), lambda op, t: op(t(2), t(2), "a"), TypeError, "rtol", "str"),
    *each(("isclose", "allclose"), lambda op, t: op(t(2), t(2), atol=math.nan), ValueError, "nan"),
    *each(("isclose", "allclose"), lambda op, t: op(t(2), t(2), math.inf), ValueError, "inf"),
    bad("equal", lambda t: tg.equal(t(2), 1.0), TypeError, "expected a tensor as other", "1.0"),
    bad("equal", lambda t: tg.equal([1.0], t(2)), TypeError, "list"),
]

DTYPES = [
    *each(OF_BITS, lambda op, t: op(t(2), t(2)), TypeError, "float32"),
    *each(
        ("neg", "sign", "abs", "square", "relu"), lambda op, t: op(t(2).bool()), TypeError, "bool"
    ),
    *each(
        ("sub", "floor_divide", "remainder", "pow"),
        lambda op, t: op(t(2).bool(), t(2).bool()),
        TypeError,
        "expected integers or floats, got bool",
    ),
    *each(
        ("add", "sub", "mul", "floor_divide", "remainder", "pow", "maximum", "minimum"),
        lambda op, t: op(t(2, dtype="uint8"), 256),
        OverflowError,
        "256",
        "uint8",
    ),
    bad("add", lambda t: t(2, dtype="int8") + -129, OverflowError, "-129", "int8"),
    bad("add", lambda t: t(2).bool() + 2**63, OverflowError, str(2**63), "int64"),
    bad("add", lambda t: t(2).long() + 2**63, OverflowError, str(2**63), "int64"),
    bad("bitwise_and", lambda t: t(2, dtype="uint8") & -1, OverflowError, "-1", "uint8"),
    bad("pow", lambda t: t(2).long() ** -1, ValueError, "-1"),
    bad("pow", lambda t: 2 ** t.of([1, -1]), ValueError, "integers to negative powers"),
    bad("pow", lambda t: t(2).long() ** t.of([1, -1]), ValueError, "integers to negative powers"),
]

CHOICES = [
    bad("where", lambda t: tg.where(t(3).bool(), t(2), t(3)), ValueError, "(3,)", "(2,)"),
    bad("where", lambda t: tg.where(t(3).bool(), t(2), 0.0), ValueError, "(3,)", "(2,)"),
    bad("where", lambda t: t(2).where(t(3).bool(), 0.0), ValueError, "(3,)", "(2,)"),
    bad("where", lambda t: tg.where(t(2), 1.0, 2.0), TypeError, "bool condition", "float32"),
    bad("where", lambda t: tg.where(t(2, dtype="uint8"), t(2), 2.0), TypeError, "uint8"),
    bad("where", lambda t: tg.where(True, t(2), 2.0), TypeError, "condition", "bool"),
    bad("where", lambda t: tg.where([True, False], t(2), 2.0), TypeError, "condition", "list"),
    bad("where", lambda t: tg.where(t(2).bool(), [1.0, 2.0], t(2)), TypeError, "list"),
    bad("where", lambda t: tg.where(t(2).bool(), t(2), None), TypeError, "NoneType"),
    bad("where", lambda t: tg.where(t(2).bool(), None, None), TypeError, "NoneType"),
    bad("where", lambda t: tg.where(t(2).bool(), "a", 1.0), TypeError, "str"),
    bad("where", lambda t: tg.where(t(2).bool(), 1.0, (1.0, 2.0)), TypeError, "tuple"),
    bad("where", lambda t: tg.where(t(2).bool(), 1.0, np.ones(3)), ValueError, "(2,)", "(3,)"),
    bad("clamp", lambda t: t(2).clamp(), ValueError, "neither"),
    bad("clamp", lambda t: t(2).clamp("a"), TypeError, "str"),
    bad("clamp", lambda t: t(2).clamp(0, [1.0]), TypeError, "list"),
    bad("clamp", lambda t: t(2).clamp(t(3)), ValueError, "(2,)", "(3,)"),
    bad("clamp", lambda t: t(2).clamp(t(2), t(3)), ValueError, "(2,)", "(3,)"),
    bad("clamp", lambda t: t(2).clamp(t(1, 2), t(3, 1, 3)), ValueError, "(1, 2)", "(3, 1, 3)"),
    bad("clamp", lambda t: t(2, dtype="uint8").clamp(-1, 300), OverflowError, "-1", "uint8"),
    bad("clamp_min", lambda t: t(2).clamp_min(None), TypeError, "NoneType"),
    bad("clamp_min", lambda t: t(2).clamp_min("a"), TypeError, "str"),
    bad("clamp_min", lambda t: t(2).clamp_min(t(3)), ValueError, "(2,)", "(3,)"),
    bad("clamp_max", lambda t: t(2).clamp_max(None), TypeError, "NoneType"),
    bad("clamp_max", lambda t: t(2).clamp_max([1]), TypeError, "list"),
    bad("clamp_max", lambda t: t(2).clamp_max(t(3)), ValueError, "(2,)", "(3,)"),
    bad("masked_fill", lambda t: t(2).masked_fill(t(2), 0), TypeError, "bool mask", "float32"),
    bad("masked_fill", lambda t: t(2).masked_fill([True, False], 0), TypeError, "mask", "list"),
    bad("masked_fill", lambda t: t(2).masked_fill(t(3).bool(), 0), ValueError, "(2,)", "(3,)"),
    bad("masked_fill", lambda t: t(2).masked_fill(t(2).bool(), "a"), TypeError, "str"),
    bad("masked_fill", lambda t: t(2).masked_fill(t(2).bool(), None), TypeError, "NoneType"),
    bad("masked_fill", lambda t: t(2).masked_fill(t(2).bool(), t(2)), ValueError, "value (2,)"),
    bad(
        "masked_fill",
        lambda t: t(2).long().masked_fill(t(2).bool(), float("inf")),
        OverflowError,
        "inf",
        "int64",
    ),
    bad(
        "masked_fill",
        lambda t: t(2, dtype="uint8").masked_fill(t(2).bool(), 256),
        OverflowError,
        "256",
        "uint8",
    ),
]

CASES = [
    *(case for name in (*ARITHMETIC, *COMPARISONS, *OF_BITS, *LOGIC) for case in _of_two(name)),
    *OPERATORS,
    *CLOSENESS,
    *DTYPES,
    *CHOICES,
]
