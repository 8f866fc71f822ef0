"""How an op is defined: the factories, and the one table of result dtypes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import numpy as np

from tinygrad_mnist.autograd import Op, Value, define, filled, record, wrap

T = TypeVar("T", bound=Value)
Number = bool | int | float
Rule = Callable[..., Any]

FLOAT, INT, BOOL = np.dtype(np.float32), np.dtype(np.int64), np.dtype(np.bool_)
_PYTHON = {bool: BOOL, int: INT, float: FLOAT}
DTYPES = tuple(
    np.dtype(name)
    for name in ("bool", "uint8", "int8", "int16", "int32", "int64", "float32", "float64")
)


def unary(kernel: str, doc: str, x: Rule | None = None, *, floats: bool = True) -> Callable[[T], T]:
    """An op of one tensor. ``floats``: integers and booleans become float32 first."""
    op = define(kernel, {} if x is None else {"x": x})

    def apply(x: T) -> T:
        if floats and x.array.dtype.kind != "f":
            x = cast(x, FLOAT)
        return record(op, (x,))

    note = " Integers and booleans become float32 first." if floats else ""
    return _named(apply, kernel, f"{doc}\n\nOf the shape of ``x``.{note}")


def binary(
    kernel: str, doc: str, x: Rule | None = None, y: Rule | None = None, *, floats: bool = False
) -> Callable[[Any, Any], Any]:
    """An op of two tensors, or of a tensor and a number, broadcast against each other.

    ``floats``: two integers or booleans become float32 first.
    """
    op = define(kernel, {name: rule for name, rule in (("x", x), ("y", y)) if rule})

    def apply(x: Any, y: Any) -> Any:
        if not (_alike(x, y) or _alike(y, x)):
            x, y = operands(kernel, x, y, floats)
        return record(op, (x, y))

    note = (
        "``x`` and ``y`` are tensors, or one is an array or a number; their shapes are broadcast, "
        "their dtypes promoted. ValueError for shapes that do not broadcast, TypeError for what is "
        "no number."
    )
    return _named(apply, kernel, f"{doc}\n\n{note}")


def _alike(x: Any, y: Any) -> bool:
    """Whether ``x`` is a float tensor and ``y`` one of its dtype or a number: nothing to cast."""
    if not isinstance(x, Value) or x.array.dtype.kind != "f":
        return False
    if isinstance(y, Value):
        return x.array.dtype is y.array.dtype
    return type(y) is float or type(y) is int


def _named(function: Any, name: str, doc: str) -> Any:
    function.__name__ = function.__qualname__ = name
    function.__doc__ = doc
    return function


# ---- dtypes

COMPARISONS = frozenset({"equal", "not_equal", "less", "less_equal", "greater", "greater_equal"})

_RANK = {"b": 0, "u": 1, "i": 1, "f": 2}


def result_dtype(x: Value, y: Value) -> np.dtype:
    """The dtype in which two tensors meet, PyTorch's rule.

    The higher of bool < integer < float wins; within one of these, tensors with dims win over 0-d
    ones, and of equals the one that holds both.
    """
    a, b = x.array.dtype, y.array.dtype
    if a is b or a == b:
        return a
    rank_a, rank_b = _RANK[a.kind], _RANK[b.kind]
    if rank_a != rank_b:
        return a if rank_a > rank_b else b
    if bool(x.array.ndim) != bool(y.array.ndim):
        return a if x.array.ndim else b
    return np.promote_types(a, b)


def operands(name: str, x: Any, y: Any, floats: bool = False) -> tuple[Any, Any]:
    """Both operands of one dtype; a Python number stays one, and takes the tensor's dtype.

    TypeError for what is neither tensor, array nor number.
    """
    like = x if isinstance(x, Value) else y
    if not isinstance(like, Value):
        raise TypeError(f"{name}: expected a tensor, got {type(x).__name__} and {type(y).__name__}")
    x, y = operand(name, like, x), operand(name, like, y)
    if isinstance(x, Value) and isinstance(y, Value):
        dtype = result_dtype(x, y)
    else:
        number = y if like is x else x
        dtype = _with_number(name, like.array.dtype, number)
    if floats and dtype.kind != "f":
        dtype = FLOAT
    return _as(x, dtype), _as(y, dtype)


def operand(name: str, like: Value, x: Any) -> Any:
    if isinstance(x, Value) or type(x) in (bool, int, float):
        return x
    if isinstance(x, np.generic):
        return x.item()
    if isinstance(x, np.ndarray):
        checked_dtype(x.dtype)
        return wrap(like.result_type, like.backend.asarray(x), like.backend)
    raise TypeError(f"{name}: expected a tensor, a NumPy array or a number, got {type(x).__name__}")


def _with_number(name: str, dtype: np.dtype, number: Any) -> np.dtype:
    rank = 0 if isinstance(number, bool) else 1 if isinstance(number, int) else 2
    if rank > _RANK[dtype.kind]:
        return INT if rank == 1 else FLOAT
    if rank == 1 and dtype.kind in "iu" and not _holds(dtype, number) and name not in COMPARISONS:
        raise OverflowError(f"{name}: {number} does not fit the tensor's dtype {dtype}")
    return dtype


def _holds(dtype: np.dtype, number: int) -> bool:
    limits = np.iinfo(dtype)
    return bool(limits.min <= number <= limits.max)


def scalar(like: Value, number: Number) -> Any:
    """A Python number as a 0-d tensor beside ``like``: bool, int64 or float32."""
    dtype = BOOL if isinstance(number, bool) else INT if isinstance(number, int) else FLOAT
    return filled(like.result_type, like.backend, (), number, dtype)


def _as(x: Any, dtype: np.dtype) -> Any:
    return cast(x, dtype) if isinstance(x, Value) else x


def cast(x: T, dtype: np.dtype) -> T:
    """``x`` as ``dtype``; itself where it is that already."""
    if x.array.dtype == dtype:
        return x
    if dtype.kind != "f" and x.array.dtype.kind == "f":
        return record(_CUT, (x,), {"dtype": dtype})
    return record(_CAST, (x,), {"dtype": dtype})


def checked_dtype(dtype: Any) -> np.dtype:
    """``dtype`` (a NumPy dtype, its name, or Python's bool, int, float) as one of the supported.

    TypeError for others.
    """
    if isinstance(dtype, type) and dtype in _PYTHON:
        return _PYTHON[dtype]
    try:
        found = np.dtype(dtype)
    except TypeError as error:
        raise TypeError(f"{dtype!r} is no dtype; expected one of {_dtype_names()}") from error
    if found not in DTYPES:
        raise TypeError(f"the dtype {found} is not supported; expected one of {_dtype_names()}")
    return found


def _dtype_names() -> str:
    return ", ".join(str(dtype) for dtype in DTYPES)


_CAST: Op = define("cast", {"x": lambda dY, x_dtype: cast(dY, x_dtype)})
_CUT: Op = define("cast", {}, name="cast to a dtype without gradients")


# ---- dims


def checked_dim(name: str, dim: int, ndim: int) -> int:
    """``dim`` counted from 0. IndexError where it lies outside -ndim … ndim-1."""
    if not isinstance(dim, int | np.integer) or isinstance(dim, bool):
        raise TypeError(f"{name}: dim must be an integer, got {dim!r}")
    if not -max(1, ndim) <= dim < max(1, ndim):
        raise IndexError(
            f"{name}: dim {dim} is out of range for a tensor of {ndim} dims, "
            f"expected {-max(1, ndim)} to {max(1, ndim) - 1}"
        )
    return int(dim) % max(1, ndim)


def checked_dims(name: str, dim: Any, ndim: int) -> tuple[int, ...]:
    """``dim``, None or () (all) or several as a tuple from 0; ValueError for a repeated one."""
    if dim is None or dim == () or dim == []:
        return tuple(range(ndim))
    dims = tuple(
        checked_dim(name, d, ndim) for d in (dim if isinstance(dim, tuple | list) else (dim,))
    )
    if len(set(dims)) != len(dims):
        raise ValueError(f"{name}: dim {dim} names the same dim twice")
    return dims if ndim else ()
