"""Checks of what people pass: operands, dtypes, dims, shapes.

Each raises one error that names the op, what it got and what it takes.
"""

from __future__ import annotations

import math
import re
from functools import cache, lru_cache
from typing import Any

import numpy as np

from tinygrad_mnist.autograd.graph import Value
from tinygrad_mnist.kernels import Shape

FLOAT, INT, BOOL = np.dtype(np.float32), np.dtype(np.int64), np.dtype(np.bool_)
DOUBLE = np.dtype(np.float64)
_PYTHON = {bool: BOOL, int: INT, float: FLOAT}
DTYPES = tuple(
    np.dtype(name)
    for name in ("bool", "uint8", "int8", "int16", "int32", "int64", "float32", "float64")
)


def own_dtype(array: np.ndarray) -> np.ndarray:
    """``array`` with NumPy's own dtype: a pickled one equals it, and kernels ask which it is."""
    dtype = np.dtype(array.dtype.str)
    return array if array.dtype is dtype else array.view(dtype)


# ---- operands


def fit(name: str, pattern: str, *values: Any) -> None:
    """Check ``values`` against ``pattern``, such as ``"x float (…, in), weight float (out, in)"``.

    Sizes of one name are equal, ``…`` is any dims. Operands without a dtype word are of one dtype,
    those marked ``float`` of one float dtype; ``bool``, ``int64`` and ``uint8`` are themselves.
    None fits where the name has a question mark: ``"bias? (out)"``. TypeError for what is no tensor
    and for dtypes, ValueError for shapes.
    """
    shapes, dtypes = [], []
    for x in values:
        if isinstance(x, Value):
            shapes.append(x.array.shape)
            dtypes.append(x.array.dtype)
        else:
            what = _operands_of(pattern)[len(shapes)][0]
            if x is not None or not what.endswith("?"):
                raise no_tensor(name, what.rstrip("?"), x)
            shapes.append(None)
            dtypes.append(None)
    wrong = _misfit(pattern, tuple(shapes), tuple(dtypes))
    if wrong is not None:
        raise wrong[0](f"{name}: {wrong[1]}")


def no_tensor(name: str, what: str, x: Any) -> TypeError:
    """The error of an operand that is no tensor."""
    return TypeError(
        f"{name}: expected a tensor as {what}, got {type(x).__name__}; make one with tensor(…)"
    )


def shown(x: Any) -> str:
    """``x`` as an error says it: in one line, and without looking at a tensor's values."""
    found = f"a tensor of shape {tuple(x.array.shape)}" if isinstance(x, Value) else repr(x)
    return " ".join(found.split())


def listed(name: str, tensors: Any) -> list[Any]:
    """A list or tuple of tensors, at least one; else ValueError, or TypeError for what is none."""
    if not isinstance(tensors, tuple | list):
        raise TypeError(f"{name}: expected a list or tuple, got {type(tensors).__name__}")
    if not tensors:
        raise ValueError(f"{name}: expected at least one tensor, got none")
    for i, x in enumerate(tensors):
        if not isinstance(x, Value):
            raise no_tensor(name, f"number {i}", x)
    return list(tensors)


def check_numbers(name: str, x: Any) -> None:
    """TypeError for booleans, of which NumPy would make a product of "and" and "or"."""
    if x.array.dtype.kind == "b":
        raise TypeError(f"{name}: expected integers or floats, got bool; cast it with .to(dtype)")


def check_scalars(name: str, **settings: Any) -> None:
    """TypeError for a setting that is no number."""
    for what, x in settings.items():
        if not isinstance(x, int | float | np.number):
            raise TypeError(f"{name}: expected a number as {what}, got {type(x).__name__}")


def checked_integer(name: str, what: str, x: Any) -> int:
    """``x`` as Python's int; TypeError for what is no integer, a bool included."""
    if type(x) is not int and not isinstance(x, np.integer):
        raise TypeError(f"{name}: {what} must be an integer, got {shown(x)}")
    return int(x)


def kind_names(kinds: str) -> str:
    """``"biu"`` in words."""
    names = {"b": "booleans", "i": "integers", "f": "floats"}
    return " or ".join(word for kind, word in names.items() if kind in kinds)


@cache
def _operands_of(pattern: str) -> list[tuple[str, str, tuple[str, ...]]]:
    """The name, with ? where it may be None, the dtype word and the sizes of each operand."""
    found = re.findall(r"(\w+\??) (\w*) ?\(([^)]*)\)", pattern)
    return [(what, word, tuple(sizes.replace(",", " ").split())) for what, word, sizes in found]


@lru_cache(maxsize=4096)
def _misfit(pattern: str, shapes: Any, dtypes: Any) -> tuple[type[Exception], str] | None:
    """The error for operands that do not fit; None where they do."""
    parts = list(zip(_operands_of(pattern), shapes, dtypes, strict=True))
    given = [
        (what.rstrip("?"), word, sizes, shape, dtype)
        for (what, word, sizes), shape, dtype in parts
        if shape is not None
    ]
    known: dict[str, int] = {}
    if not all(_sizes_fit(sizes, shape, known) for _, _, sizes, shape, _ in given):
        got = ", ".join(f"{what} {tuple(shape)}" for what, _, _, shape, _ in given)
        return ValueError, f"expected {pattern.replace('?', '')}, got {got}"
    got = ", ".join(f"{what} {dtype}" for what, _, _, _, dtype in given)
    for what, word, _, _, dtype in given:
        if not (dtype.kind == "f" if word == "float" else word in ("", str(dtype))):
            return TypeError, f"expected {word} {what}, got {got}; cast it with .to(dtype)"
    for group in ("", "float"):
        if len({dtype for _, word, _, _, dtype in given if word == group}) > 1:
            return TypeError, f"dtypes differ: {got}; cast one, for example with .to(dtype)"
    return None


def _sizes_fit(sizes: tuple[str, ...], shape: Shape, known: dict[str, int]) -> bool:
    if "…" in sizes:
        free = len(shape) - len(sizes) + 1
        if free < 0:
            return False
        at = sizes.index("…")
        shape = (*shape[:at], *shape[at + free :])
        sizes = (*sizes[:at], *sizes[at + 1 :])
    if len(shape) != len(sizes):
        return False
    return all(
        size == int(name) if name.isdigit() else known.setdefault(name, size) == size
        for name, size in zip(sizes, shape, strict=True)
    )


# ---- dtypes


def checked_dtype(dtype: Any, name: str) -> np.dtype:
    """``dtype`` (a NumPy dtype, its name, or Python's bool, int, float) as one of the supported.

    TypeError for others.
    """
    if isinstance(dtype, type) and dtype in _PYTHON:
        return _PYTHON[dtype]
    try:
        found = np.dtype(dtype)
    except TypeError as error:
        raise _no_dtype(name, f"{shown(dtype)} is no dtype") from error
    if found not in DTYPES:
        raise _no_dtype(name, f"the dtype {found} is not supported")
    return found


def summed_dtype(name: str, dtype: Any) -> np.dtype:
    """A dtype in which to sum: float32, float64 or int64. TypeError for others."""
    found = checked_dtype(dtype, name)
    if found.kind != "f" and found != INT:
        raise TypeError(f"{name}: dtype must be int64 or a float one, got {found}")
    return found


_limits = cache(np.iinfo)  # which takes half a microsecond


def held(name: str, x: Any, dtype: np.dtype) -> Any:
    """The number ``x`` as ``dtype`` holds it, without its fraction in integers.

    OverflowError where it is too large for it.
    """
    if dtype.kind in "bf":
        return bool(x) if dtype.kind == "b" else x
    if not math.isfinite(x):
        raise OverflowError(f"{name}: found {x}, which {dtype} does not hold")
    check_holds(name, dtype, int(x), int(x))
    return int(x)


def check_holds(name: str, dtype: np.dtype, least: Any, most: Any) -> None:
    """OverflowError where an integer ``dtype`` does not hold numbers from ``least`` to ``most``."""
    if dtype.kind in "iu":
        limits = _limits(dtype)
        if least < limits.min or most > limits.max:
            found = least if least == most else f"{least} to {most}"
            raise OverflowError(
                f"{name}: found {found}, {dtype} holds {limits.min} to {limits.max}"
            )


def _no_dtype(name: str, what: str) -> TypeError:
    return TypeError(f"{name}: {what}; expected one of {', '.join(map(str, DTYPES))}")


# ---- dims and shapes


def checked_dim(name: str, dim: Any, ndim: int) -> int:
    """``dim`` counted from 0. IndexError where it lies outside -ndim … ndim-1."""
    if type(dim) is not int:
        dim = checked_integer(name, "dim", dim)
    most = ndim or 1
    if not -most <= dim < most:
        raise IndexError(
            f"{name}: dim {dim} is out of range for a tensor of {ndim} dims, "
            f"expected {-most} to {most - 1}"
        )
    return dim % most


def checked_dims(name: str, dim: Any, ndim: int) -> tuple[int, ...]:
    """``dim``, None or () (all) or several as a tuple from 0; ValueError for a repeated one."""
    several = isinstance(dim, tuple | list)
    if dim is None or (several and not dim):
        return tuple(range(ndim))
    dims = tuple([checked_dim(name, d, ndim) for d in (dim if several else (dim,))])
    if len(set(dims)) != len(dims):
        raise ValueError(f"{name}: dim {dim} names the same dim twice")
    return dims if ndim else ()


def shape_of(args: tuple[Any, ...], name: str) -> Shape:
    """``f(2, 3)`` and ``f((2, 3))`` alike: the sizes as a tuple. TypeError for non-integers."""
    sizes = args[0] if len(args) == 1 and isinstance(args[0], tuple | list) else args
    for size in sizes:
        if type(size) is not int and not isinstance(size, np.integer):
            raise TypeError(f"{name}: a shape is made of integers, got {shown(size)}")
    return tuple([int(size) for size in sizes])


@lru_cache(maxsize=4096)
def filled_in(name: str, shape: Shape, old: Shape) -> Shape:
    """``shape`` with its -1 replaced. ValueError where it does not hold what ``old`` holds."""
    size = math.prod(old)
    if shape.count(-1) == 1:
        known = math.prod(s for s in shape if s != -1)
        if known and size % known == 0:
            shape = tuple(size // known if s == -1 else s for s in shape)
    if min(shape, default=0) < 0 or math.prod(shape) != size:
        raise ValueError(f"{name}: the {size} elements of shape {tuple(old)} do not fit {shape}")
    return shape
