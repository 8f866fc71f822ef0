"""Making tensors: of data, of numbers and at random.

Everywhere: ``dtype``, ``requires_grad`` (of floats only: RuntimeError) and ``backend`` as keywords;
sizes as integers or as one tuple. TypeError for sizes that are no integers and for dtypes that are
not supported, ValueError for negative sizes, OverflowError for numbers that the dtype cannot hold.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, Protocol

import numpy as np

from tinygrad_mnist import random
from tinygrad_mnist.autograd.graph import wrap
from tinygrad_mnist.autograd.record import filled
from tinygrad_mnist.backend import resolve
from tinygrad_mnist.checks import (
    FLOAT,
    INT,
    check_holds,
    checked_dtype,
    checked_integer,
    no_tensor,
    own_dtype,
    shape_of,
    shown,
)
from tinygrad_mnist.dispatch import call, observers, tell
from tinygrad_mnist.in_place import normal, uniform
from tinygrad_mnist.kernels import Backend, Shape
from tinygrad_mnist.ops.shapes import cat
from tinygrad_mnist.ops.table import named
from tinygrad_mnist.tensor import Tensor, dtypes_in, host_array

F64 = np.dtype(np.float64)
CPU, CUDA = 1, 2  # DLPack's kinds of devices

# ---- of data


def tensor(
    data: Any, dtype: Any = None, requires_grad: bool = False, backend: Any = None
) -> Tensor:
    """A new tensor with a copy of ``data``: a number, a NumPy array, a tensor or nested lists.

    Python floats become float32, integers int64; arrays and tensors keep their dtypes, also in
    lists. TypeError for dtypes that are not supported, ValueError for ragged lists, RuntimeError
    for tensors in a list that require grad (``stack`` keeps their graph).
    """
    if isinstance(data, Tensor):
        made = as_tensor(data.detach(), dtype, backend).clone()
    else:
        made = from_host(host_array("tensor", data, dtype), backend, copy=True, data=data)
    return made.requires_grad_() if requires_grad else made


def as_tensor(data: Any, dtype: Any = None, backend: Any = None) -> Tensor:
    """``data`` as a tensor, sharing memory where dtype and backend allow."""
    if isinstance(data, Tensor):
        return data.to(dtype=dtype, backend=backend)
    return from_host(host_array("tensor", data, dtype), backend, copy=False, data=data)


def from_numpy(array: np.ndarray, backend: Any = None) -> Tensor:
    """A NumPy array as a tensor that shares its memory on backends of the host.

    TypeError for anything else.
    """
    if not isinstance(array, np.ndarray):
        raise TypeError(f"from_numpy: expected a NumPy array, got {type(array).__name__}")
    return from_host(host_array("from_numpy", array), backend, copy=False)


def from_dlpack(x: Any, backend: Any = None) -> Tensor:
    """An array or tensor of any library that has ``__dlpack__``, sharing its memory.

    Memory of the host is shared on backends of the host, a GPU's on that GPU's backend, the default
    for it. TypeError for anything else and for dtypes that are not supported, BufferError where
    memory cannot be had, BackendError for a GPU that cannot be used.
    """
    if not hasattr(x, "__dlpack__") or not hasattr(x, "__dlpack_device__"):
        raise TypeError(f"from_dlpack: expected what has __dlpack__, got {type(x).__name__}")
    kind, number = x.__dlpack_device__()
    if kind == CUDA and backend is None:
        target = resolve(f"cupy:{number}", f"from_dlpack: the device of the {type(x).__name__}")
    else:
        target = resolve(backend)
    try:
        array = (np if kind == CPU else target.xp).from_dlpack(x)
    except RuntimeError as error:  # NumPy's for a dtype or a device that it does not know
        raise TypeError(f"from_dlpack: {error} The backend is {target.name!r}.") from error
    checked_dtype(array.dtype, "from_dlpack")
    tell("host_data", "from_dlpack")
    made: Tensor = wrap(Tensor, target.asarray(array), target)
    return made


def from_host(array: np.ndarray, backend: Any, copy: bool, data: Any = None) -> Tensor:
    """A NumPy array of a supported dtype on the chosen backend; ``data`` is what it was made of."""
    target = resolve(backend)
    if observers() and (data is None or dtypes_in(data)):
        tell("host_data", "a NumPy array")
    array = np.array(array, order="C") if copy else array
    made = target.asarray(own_dtype(array))
    if observers():  # a recorded step makes it anew at each replay: it may be written over
        made = call(target, "copy", (made,))
    return wrap(Tensor, made, target)


# ---- of a size, and like a tensor

Make = Callable[[str, Shape, np.dtype, Backend], Tensor]  # the first is what errors begin with


class OfSize(Protocol):
    """``zeros(2, 3)``, ``zeros((2, 3))``."""

    def __call__(
        self,
        size: Any = (),
        *more: int,
        dtype: Any = None,
        requires_grad: bool = False,
        backend: Any = None,
    ) -> Tensor: ...


class LikeTensor(Protocol):
    """``zeros_like(x)``."""

    def __call__(
        self, x: Tensor, *, dtype: Any = None, requires_grad: bool = False, backend: Any = None
    ) -> Tensor: ...


def _of_size(name: str, make: Make, doc: str) -> OfSize:
    def of_size(
        size: Any = (),
        *more: int,
        dtype: Any = None,
        requires_grad: bool = False,
        backend: Any = None,
    ) -> Tensor:
        shape, kind = _sizes(name, (size, *more)), checked_dtype(dtype or FLOAT, name)
        return make(name, shape, kind, resolve(backend)).requires_grad_(requires_grad)

    made: OfSize = named(of_size, name, doc)
    return made


def _like(name: str, make: Make) -> LikeTensor:
    def like(
        x: Tensor, *, dtype: Any = None, requires_grad: bool = False, backend: Any = None
    ) -> Tensor:
        kind, target = _kind_like(name, x, dtype, backend)
        return make(name, x.shape, kind, target).requires_grad_(requires_grad)

    doc = f"``{name[:-5]}`` of the shape of ``x``, by default of its dtype, on its backend."
    made: LikeTensor = named(like, name, doc)
    return made


def _kind_like(name: str, x: Any, dtype: Any, backend: Any) -> tuple[np.dtype, Backend]:
    """The dtype and backend that are given, else those of ``x``. TypeError for no tensor."""
    if not isinstance(x, Tensor):
        raise no_tensor(name, "the first argument", x)
    return checked_dtype(dtype or x.dtype, name), resolve(backend or x.backend)


# ---- of one number


def full(
    size: Any,
    fill_value: float,
    *,
    dtype: Any = None,
    requires_grad: bool = False,
    backend: Any = None,
) -> Tensor:
    """A tensor of ``size`` that holds ``fill_value`` everywhere, by default of its dtype."""
    _check_fill("full", fill_value)
    shape, kind = _sizes("full", (size,)), checked_dtype(dtype or type(fill_value), "full")
    return _full("full", shape, fill_value, kind, resolve(backend)).requires_grad_(requires_grad)


def full_like(
    x: Tensor,
    fill_value: float,
    *,
    dtype: Any = None,
    requires_grad: bool = False,
    backend: Any = None,
) -> Tensor:
    """``full`` of the shape of ``x``, by default of its dtype, on its backend."""
    kind, target = _kind_like("full_like", x, dtype, backend)
    _check_fill("full_like", fill_value)
    return _full("full_like", x.shape, fill_value, kind, target).requires_grad_(requires_grad)


def _check_fill(name: str, value: Any) -> None:
    if not isinstance(value, int | float | np.integer | np.floating | np.bool_):
        raise TypeError(f"{name}: fill_value must be a number, got {shown(value)}")


def _full(name: str, shape: Shape, value: Any, dtype: np.dtype, backend: Backend) -> Tensor:
    check_holds(name, dtype, value, value)
    return filled(Tensor, backend, shape, value, dtype)


def _zeros(name: str, shape: Shape, dtype: np.dtype, backend: Backend) -> Tensor:
    return _full(name, shape, 0, dtype, backend)


def _ones(name: str, shape: Shape, dtype: np.dtype, backend: Backend) -> Tensor:
    return _full(name, shape, 1, dtype, backend)


zeros = _of_size("zeros", _zeros, "A tensor of zeros, float32 by default.")
ones = _of_size("ones", _ones, "A tensor of ones, float32 by default.")
empty = _of_size(
    "empty", _zeros, "A tensor whose elements nobody should read before writing them; here 0."
)
zeros_like = _like("zeros_like", _zeros)
ones_like = _like("ones_like", _ones)
empty_like = _like("empty_like", _zeros)

# ---- of many


def arange(
    start: float | None = None,
    end: float | None = None,
    step: float = 1,
    *,
    dtype: Any = None,
    requires_grad: bool = False,
    backend: Any = None,
) -> Tensor:
    """``arange(end)`` or ``arange(start, end, step)``: start + step·i for i < ⌈(end − start)/step⌉.

    int64 of integers, else float32; an integer dtype takes the integer parts of the three.
    ValueError for a step of 0 or one that leads away from ``end``, TypeError for what is no number.
    """
    first, last = (start, end) if end is not None else (0, start)
    given = {"start": 0 if first is None else first, "end": last, "step": step}
    whole = all(isinstance(x, int | np.integer) for x in given.values())
    kind = checked_dtype(dtype or (INT if whole else FLOAT), "arange")
    if kind.kind == "b":
        raise TypeError("arange: expected a dtype of integers or floats, got bool")
    first, last, step = (_number("arange", name, x, kind) for name, x in given.items())
    if step == 0 or (last - first) * step < 0:
        raise ValueError(f"arange: a step of {step} does not lead from {first} to {last}")
    size = math.ceil((last - first) / step) if kind.kind == "f" else -((first - last) // step)
    check_holds("arange", kind, *sorted((first, first + step * max(0, size - 1))))
    static = {"start": first, "step": step, "size": size, "dtype": kind}
    return _made("arange", static, requires_grad, backend)


def linspace(
    start: float,
    end: float,
    steps: int,
    *,
    dtype: Any = None,
    requires_grad: bool = False,
    backend: Any = None,
) -> Tensor:
    """``steps`` numbers at equal distances from ``start`` to ``end``, both included.

    The first half is counted from ``start``, the second from ``end``, so that both are exact.
    """
    (size,) = _sizes("linspace", (checked_integer("linspace", "steps", steps),))
    kind = checked_dtype(dtype or FLOAT, "linspace")
    first = _number("linspace", "start", start, F64)
    last = _number("linspace", "end", end, F64)
    check_holds("linspace", kind, *sorted((int(first), int(last))))
    step = (last - first) / (size - 1) if size > 1 else 0.0
    half = size // 2 if size > 1 else size
    up = {"start": first, "step": step, "size": half, "dtype": kind}
    down = {"start": last, "step": -step, "size": size - half, "dtype": kind}
    halves = _made("arange", up, False, backend), _made("arange", down, False, backend).flip(0)
    made: Tensor = cat(halves)
    return made.requires_grad_(requires_grad)


def eye(
    n: int,
    m: int | None = None,
    *,
    dtype: Any = None,
    requires_grad: bool = False,
    backend: Any = None,
) -> Tensor:
    """Zeros of shape (n, m), or (n, n), with ones on the diagonal; float32 by default."""
    rows, columns = _sizes("eye", (n, n if m is None else m))
    down = arange(rows, backend=backend).unsqueeze(1)
    found: Tensor = down == arange(columns, backend=backend)
    return found.to(checked_dtype(dtype or FLOAT, "eye")).requires_grad_(requires_grad)


# ---- at random


def _uniform(name: str, shape: Shape, dtype: np.dtype, backend: Backend) -> Tensor:
    return uniform(name, Tensor, shape, dtype, backend)


def _normal(name: str, shape: Shape, dtype: np.dtype, backend: Backend) -> Tensor:
    return normal(name, Tensor, shape, dtype, backend)


rand = _of_size(
    "rand",
    _uniform,
    "Uniform numbers in [0, 1) from the seeded stream, the same bits on every backend.\n\n"
    "TypeError for a dtype that is not float.",
)
randn = _of_size(
    "randn",
    _normal,
    "Normal numbers, mean 0 and deviation 1, from the seeded stream.\n\n"
    "TypeError for a dtype that is not float.",
)
rand_like = _like("rand_like", _uniform)
randn_like = _like("randn_like", _normal)


def randint(
    low: int = 0,
    high: Any = None,
    size: Any = None,
    *,
    dtype: Any = None,
    requires_grad: bool = False,
    backend: Any = None,
) -> Tensor:
    """Integers in [low, high) from the seeded stream, int64 by default, the same on every backend.

    ``randint(high, size)`` starts at 0. low + ⌊u·(high − low)⌋ with u of 48 bits: the chances of
    two integers differ by at most (high − low)·2⁻⁴⁸ of themselves, and high − low is at most 2³².
    ValueError for an empty or a larger range, TypeError for bounds that are no integers.
    """
    if size is None and isinstance(high, tuple | list):
        high, size = None, high
    if size is None:
        raise TypeError("randint: expected a size, as in randint(0, 10, (2, 3))")
    bounds = (0, low) if high is None else (low, high)
    first, last = (checked_integer("randint", "a bound", bound) for bound in bounds)
    if not 0 < last - first <= 2**32:
        raise ValueError(f"randint: expected 0 < high - low ≤ 2**32, got {first} and {last}")
    shape, kind = _sizes("randint", (size,)), checked_dtype(dtype or INT, "randint")
    check_holds("randint", kind, first, last - 1)
    high_bits, low_bits = (rand(shape, dtype=F64, backend=backend) for _ in range(2))  # 24 each
    u = high_bits + low_bits * 2.0**-24
    drawn: Tensor = (u * (last - first)).floor().long() + first
    return drawn.to(kind).requires_grad_(requires_grad)


def randperm(
    n: int, *, dtype: Any = None, requires_grad: bool = False, backend: Any = None
) -> Tensor:
    """0 … n−1 in random order, int64 by default: drawn on the host, as all shuffles are."""
    (size,) = _sizes("randperm", (checked_integer("randperm", "n", n),))
    kind = checked_dtype(dtype or INT, "randperm")
    check_holds("randperm", kind, 0, max(0, size - 1))
    tell("host_data", "randperm(), which is drawn on the host")
    order = random.generator().permutation(size).astype(kind)
    return from_host(order, backend, copy=False).requires_grad_(requires_grad)


# ---- what they share


def _sizes(name: str, size: tuple[Any, ...]) -> Shape:
    sizes = shape_of(size, name)
    if min(sizes, default=0) < 0:
        raise ValueError(f"{name}: sizes must not be negative, got {sizes}")
    return sizes


def _number(name: str, what: str, x: Any, kind: np.dtype) -> Any:
    """A finite number as Python's float or int, whichever ``kind`` is."""
    if not isinstance(x, int | float | np.integer | np.floating):
        raise TypeError(f"{name}: {what} must be a number, got {shown(x)}")
    if not math.isfinite(x):
        raise ValueError(f"{name}: {what} must be finite, got {x}")
    return float(x) if kind.kind == "f" else int(x)


def _made(kernel: str, static: dict[str, Any], requires_grad: bool, backend: Any) -> Tensor:
    """What a kernel without inputs makes on the chosen backend."""
    target = resolve(backend)
    made: Tensor = wrap(Tensor, call(target, kernel, (), static), target)
    return made.requires_grad_(requires_grad)
