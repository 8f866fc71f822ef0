"""How an op is defined: the factories, and the one table of result dtypes."""

from __future__ import annotations

from collections.abc import Callable
from functools import reduce
from typing import Any, TypeVar

import numpy as np

from tinygrad_mnist.autograd.graph import Value, wrap
from tinygrad_mnist.autograd.record import Op, define, filled, record
from tinygrad_mnist.checks import BOOL, FLOAT, INT, checked_dtype, held, kind_names, no_tensor
from tinygrad_mnist.dispatch import call, tell
from tinygrad_mnist.kernels import Shape

T = TypeVar("T", bound=Value)
Number = bool | int | float
Rule = Callable[..., Any]


def unary(kernel: str, doc: str, x: Rule | None = None, *, kinds: str = "f") -> Callable[[T], T]:
    """An op of one tensor. ``kinds``: the dtypes' kinds it takes as they are.

    Where floats are all it takes, integers and booleans become float32 first; else TypeError.
    """
    op = define(kernel, x=x)

    def apply(x: T) -> T:
        if not isinstance(x, Value):
            raise no_tensor(kernel, "x", x)
        if x.array.dtype.kind not in kinds:
            x = _of_kind(kernel, x, kinds)
        return record(op, (x,))

    note = " Integers and booleans become float32 first." if kinds == "f" else ""
    return named(apply, kernel, f"{doc}\n\nOf the shape of ``x``.{note}")


def rounding(kernel: str, doc: str) -> Callable[[T], T]:
    """A unary op whose slope is 0 and which leaves integers as they are."""
    of_floats = unary(kernel, doc, zeros_like)

    def apply(x: T) -> T:
        return of_floats(x) if not isinstance(x, Value) or x.array.dtype.kind == "f" else x

    return named(apply, kernel, f"{doc}\n\nOf the shape of ``x``; the slope is 0.")


def binary(
    kernel: str,
    doc: str,
    x: Rule | None = None,
    y: Rule | None = None,
    *,
    kinds: str = "biuf",
) -> Callable[[Any, Any], Any]:
    """An op of two tensors, or of a tensor and a number, broadcast against each other.

    ``kinds`` as for ``unary``.
    """
    op = define(kernel, x=x, y=y)

    def apply(x: Any, other: Any) -> Any:
        if not (_alike(x, other) or _alike(other, x)) or "f" not in kinds:
            x, other = operands(kernel, x, other, kinds)
        return record(op, (x, other))

    note = (
        "x and y, which is ``other``, are tensors, or one is an array or a number; their shapes "
        "are broadcast, their dtypes promoted. ValueError for shapes that do not broadcast, "
        "TypeError for what is no number."
    )
    return named(apply, kernel, f"{doc}\n\n{note}")


def reflected(function: Callable[[Any, Any], Any]) -> Callable[[Any, Any], Any]:
    """``function`` with its operands swapped, for ``2 - x``."""
    return lambda x, other: function(other, x)


def _alike(x: Any, y: Any) -> bool:
    """Whether ``x`` is a float tensor and ``y`` one of its dtype or a number: nothing to cast."""
    if not isinstance(x, Value) or x.array.dtype.kind != "f":
        return False
    if isinstance(y, Value):
        return x.array.dtype is y.array.dtype
    return type(y) is float or type(y) is int


def named(function: Any, name: str, doc: str) -> Any:
    """``function`` with the name and docstring it is shown with."""
    function.__name__ = function.__qualname__ = name
    function.__doc__ = doc
    return function


# ---- dtypes

COMPARISONS = frozenset({"equal", "not_equal", "less", "less_equal", "greater", "greater_equal"})

_RANK = {"b": 0, "u": 1, "i": 1, "f": 2}


def result_dtype(*values: Value) -> np.dtype:
    """The dtype in which tensors meet, PyTorch's rule.

    The highest of bool < integer < float wins; within it, tensors with dims win over 0-d ones,
    and of these the dtype that holds them all.
    """
    arrays = [x.array for x in values]
    if len({a.dtype for a in arrays}) == 1:
        return arrays[0].dtype
    top = max(_RANK[a.dtype.kind] for a in arrays)
    arrays = [a for a in arrays if _RANK[a.dtype.kind] == top]
    return reduce(
        np.promote_types, [a.dtype for a in arrays if a.ndim] or [a.dtype for a in arrays]
    )


def operands(name: str, x: Any, y: Any, kinds: str = "biuf") -> tuple[Any, Any]:
    """Both operands of one dtype; a Python number stays one, and takes the tensor's dtype.

    Integers and booleans become float32 where ``kinds`` is floats alone. TypeError for what is
    neither tensor, array nor number, or of a dtype not among ``kinds``.
    """
    like = x if isinstance(x, Value) else y
    if not isinstance(like, Value):
        raise TypeError(f"{name}: expected a tensor, got {type(x).__name__} and {type(y).__name__}")
    x, y = operand(name, like, x), operand(name, like, y)
    if isinstance(x, Value) and isinstance(y, Value):
        dtype = result_dtype(x, y)
    else:
        number = y if like is x else x
        exact = kinds != "f" or like.array.dtype.kind == "f"
        dtype = _with_number(name, like.array.dtype, number) if exact else FLOAT
    if dtype.kind not in kinds and kinds == "f":
        dtype = FLOAT
    elif dtype.kind not in kinds:
        raise TypeError(f"{name}: expected {kind_names(kinds)}, got {dtype}")
    return _as(x, dtype), _as(y, dtype)


def operand(name: str, like: Value, x: Any) -> Any:
    """A tensor or Python number as it is, a NumPy array or scalar as a tensor beside ``like``.

    TypeError for anything else.
    """
    if isinstance(x, Value) or type(x) in (bool, int, float):
        return x
    if isinstance(x, np.generic):
        return x.item()
    if isinstance(x, np.ndarray):
        checked_dtype(x.dtype, name)
        tell("host_data", "a NumPy array")
        return beside(like, x)
    raise TypeError(f"{name}: expected a tensor, a NumPy array or a number, got {type(x).__name__}")


def beside(like: Value, x: np.ndarray) -> Any:
    """A NumPy array as a tensor on the backend of ``like``."""
    return wrap(like.result_type, like.backend.asarray(x), like.backend)


def _with_number(name: str, dtype: np.dtype, number: Any) -> np.dtype:
    rank = 0 if isinstance(number, bool) else 1 if isinstance(number, int) else 2
    if rank > _RANK[dtype.kind]:
        dtype = INT if rank == 1 else FLOAT
    if rank == 1 and dtype.kind in "iu" and name not in COMPARISONS:
        held(name, number, dtype)
    return dtype


def scalar(like: Value, number: Number) -> Any:
    """A Python number as a 0-d tensor beside ``like``: bool, int64 or float32."""
    dtype = BOOL if isinstance(number, bool) else INT if isinstance(number, int) else FLOAT
    return filled(like.result_type, like.backend, (), number, dtype)


def full_like(x: T, value: Number, shape: Shape) -> T:
    """A tensor of ``shape`` full of a number, of the dtype of ``x``, outside the graph."""
    return filled(x.result_type, x.backend, shape, value, x.array.dtype)


def zeros_like(x: T) -> T:
    """Zeros of the shape and dtype of ``x``, outside the graph."""
    return full_like(x, 0, x.array.shape)


def range_like(x: T, size: int, start: int = 0, step: int = 1) -> T:
    """The int64 tensor start, start + step, … (size,) beside ``x``, outside the graph."""
    static = {"start": start, "step": step, "size": size, "dtype": INT}
    return wrap(x.result_type, call(x.backend, "arange", (), static), x.backend)


def promoted(values: list[T]) -> list[T]:
    """All of the dtype in which they meet."""
    first = values[0].array.dtype
    if all(x.array.dtype is first for x in values):
        return values
    dtype = result_dtype(*values)
    return [cast(x, dtype) for x in values]


def _of_kind(name: str, x: T, kinds: str) -> T:
    if kinds != "f":
        raise TypeError(f"{name}: expected {kind_names(kinds)}, got {x.array.dtype}")
    return cast(x, FLOAT)


def _as(x: Any, dtype: np.dtype) -> Any:
    return cast(x, dtype) if isinstance(x, Value) else x


def cast(x: T, dtype: np.dtype) -> T:
    """``x`` as ``dtype``; itself where it is that already."""
    if x.array.dtype == dtype:
        return x
    op = _CASTS.get(x.array.dtype, _CUT) if dtype.kind == "f" else _CUT
    return record(op, (x,), {"dtype": dtype})


def _cast_from(source: np.dtype) -> Op:
    return define("cast", x=lambda dY: cast(dY, source))


_CASTS: dict[np.dtype, Op] = {d: _cast_from(d) for d in (FLOAT, np.dtype(np.float64))}
_CUT = define("cast")  # from or to a dtype without gradients
