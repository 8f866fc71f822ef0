"""A backend as strict as a GPU's: its arrays refuse whatever would reach for the host unasked.

``StrictArray`` wraps a NumPy array and takes operands of its own kind and scalars, nothing else.
``StrictBackend`` copies on the way in and out and writes down each of these transfers.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import Any, NoReturn

import numpy as np

from tinygrad_mnist.kernels import Backend

SCALARS = (bool, int, float, np.generic)


class Sync(TypeError):
    """Something asked a device array for a value that only the host could look at."""


def _refuses(what: str) -> Callable[..., NoReturn]:
    def refuse(self: Any, *args: Any, **kwargs: Any) -> NoReturn:
        raise Sync(f"{what} of a StrictArray of shape {self.shape} would wait for the device")

    return refuse


def _binary(name: str) -> Callable[[Any, Any], Any]:
    function = getattr(operator, name)

    def apply(self: StrictArray, other: Any) -> Any:
        return self._run(function, self, _operand(other))

    return apply


def _reflected(name: str) -> Callable[[Any, Any], Any]:
    function = getattr(operator, name)

    def apply(self: StrictArray, other: Any) -> Any:
        return self._run(function, _operand(other), self)

    return apply


def _in_place(name: str) -> Callable[[Any, Any], Any]:
    function = getattr(operator, name)

    def apply(self: StrictArray, other: Any) -> StrictArray:
        self._write(function, self, _operand(other))  # writes: it is no NumPy scalar
        return self

    return apply


def _unary(name: str) -> Callable[[Any], Any]:
    function = getattr(operator, name)
    return lambda self: self._run(function, self)


def _method(name: str) -> Callable[..., Any]:
    function = getattr(np.ndarray, name)

    def apply(self: StrictArray, *args: Any, **kwargs: Any) -> Any:
        return self._run(function, self, *args, **kwargs)

    return apply


class StrictArray:
    """A NumPy array behind glass."""

    __slots__ = ("_a",)
    __array_ufunc__ = None  # NumPy's scalars leave their operators to ours, its functions raise
    __hash__ = None  # type: ignore[assignment]

    def __init__(self, array: np.ndarray) -> None:
        self._a = array

    # Through these two goes whatever reads or writes arrays: a subclass may do more.

    @classmethod
    def _run(cls, function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """``function`` of what is behind the glass; its results are behind glass, too."""
        return wrapped(function(*unwrapped(args), **unwrapped(kwargs)))

    @classmethod
    def _write(cls, function: Callable[..., Any], target: StrictArray, *args: Any) -> None:
        """``function`` of what is behind the glass, of which it writes ``target``."""
        function(*unwrapped((target, *args)))

    shape = property(lambda self: self._a.shape)
    dtype = property(lambda self: self._a.dtype)
    ndim = property(lambda self: self._a.ndim)
    size = property(lambda self: self._a.size)
    strides = property(lambda self: self._a.strides)
    nbytes = property(lambda self: self._a.nbytes)
    flags = property(lambda self: self._a.flags)
    T = property(lambda self: self._run(np.transpose, self))

    __array__ = _refuses("__array__")
    __array_function__ = _refuses("a NumPy function")
    __bool__ = _refuses("bool()")
    __float__ = _refuses("float()")
    __int__ = _refuses("int()")
    __index__ = _refuses("an index made")
    __iter__ = _refuses("iteration")
    __contains__ = _refuses("`in`")
    item = _refuses("item()")
    tolist = _refuses("tolist()")

    __add__, __radd__, __iadd__ = _binary("add"), _reflected("add"), _in_place("iadd")
    __sub__, __rsub__, __isub__ = _binary("sub"), _reflected("sub"), _in_place("isub")
    __mul__, __rmul__, __imul__ = _binary("mul"), _reflected("mul"), _in_place("imul")
    __pow__, __rpow__, __ipow__ = _binary("pow"), _reflected("pow"), _in_place("ipow")
    __truediv__, __rtruediv__ = _binary("truediv"), _reflected("truediv")
    __itruediv__ = _in_place("itruediv")
    __mod__, __rmod__ = _binary("mod"), _reflected("mod")
    __floordiv__, __rfloordiv__ = _binary("floordiv"), _reflected("floordiv")
    __matmul__ = _binary("matmul")
    __and__, __rand__, __iand__ = _binary("and_"), _reflected("and_"), _in_place("iand")
    __or__, __ror__, __ior__ = _binary("or_"), _reflected("or_"), _in_place("ior")
    __xor__, __rxor__, __ixor__ = _binary("xor"), _reflected("xor"), _in_place("ixor")
    __lshift__, __rshift__ = _binary("lshift"), _binary("rshift")
    __ilshift__, __irshift__ = _in_place("ilshift"), _in_place("irshift")
    __lt__, __le__, __gt__, __ge__ = _binary("lt"), _binary("le"), _binary("gt"), _binary("ge")
    __eq__, __ne__ = _binary("eq"), _binary("ne")
    __neg__, __pos__, __abs__ = _unary("neg"), _unary("pos"), _unary("abs")
    __invert__ = _unary("invert")

    reshape, transpose, swapaxes = _method("reshape"), _method("transpose"), _method("swapaxes")
    astype, copy, view = _method("astype"), _method("copy"), _method("view")
    min, max, sum, ravel = _method("min"), _method("max"), _method("sum"), _method("ravel")

    def __len__(self) -> int:
        return len(self._a)

    def __getitem__(self, index: Any) -> Any:
        parts = index if isinstance(index, tuple) else (index,)
        if any(isinstance(p, StrictArray) and p.dtype == np.bool_ for p in parts):
            raise Sync("the shape of x[mask] depends on data")
        return self._run(_get, self, index)

    def __setitem__(self, index: Any, value: Any) -> None:
        self._write(_set, self, index, _operand(value))

    def fill(self, value: Any) -> None:
        self._write(np.ndarray.fill, self, value)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.dtype}{self.shape})"


def _operand(x: Any) -> Any:
    if isinstance(x, (StrictArray, *SCALARS)):
        return x
    raise Sync(f"a StrictArray meets StrictArrays and scalars, not {type(x).__name__}")


def wrapping(array: np.ndarray, index: Any) -> Any:
    """``index``, whose integer arrays wrap round beyond the end, as on a GPU."""
    if not isinstance(index, tuple):
        return wrapping(array, (index,))[0]
    return tuple(
        part % max(1, array.shape[dim])
        if isinstance(part, np.ndarray) and part.dtype != np.bool_
        else part
        for dim, part in enumerate(index)
    )


def _get(array: np.ndarray, index: Any) -> Any:
    return array[wrapping(array, index)]


def _set(array: np.ndarray, index: Any, value: Any) -> None:
    array[wrapping(array, index)] = value


def wrapped(x: Any) -> Any:
    """NumPy's arrays and scalars as StrictArrays, also in tuples and lists; the rest as it is."""
    if isinstance(x, np.ndarray | np.generic):
        return StrictArray(np.asarray(x))
    return type(x)(wrapped(v) for v in x) if isinstance(x, tuple | list) else x


def unwrapped(x: Any) -> Any:
    """The reverse; a raw NumPy array is refused."""
    if isinstance(x, np.ndarray):
        raise Sync(f"a NumPy array of shape {x.shape} is on the host, the others on the device")
    if isinstance(x, StrictArray):
        return x._a
    if isinstance(x, dict):
        return {key: unwrapped(value) for key, value in x.items()}
    return type(x)(unwrapped(v) for v in x) if isinstance(x, tuple | list) else x


class Namespace:
    """NumPy, or a module of it, with functions that take and return StrictArrays."""

    def __init__(self, module: ModuleType) -> None:
        self._module = module

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._module, name)
        if isinstance(found, ModuleType):
            return Namespace(found)
        if isinstance(found, type) or not callable(found):
            return found  # dtypes, inf, newaxis
        return _function(found)


def _function(function: Callable[..., Any]) -> Callable[..., Any]:
    def apply(*args: Any, **kwargs: Any) -> Any:
        result = StrictArray._run(wrapped_round(function), *args, **kwargs)
        out = kwargs.get("out")
        return result if out is None else out

    apply.at = scattering(function, StrictArray)  # type: ignore[attr-defined]
    return apply


def wrapped_round(function: Callable[..., Any]) -> Callable[..., Any]:
    """``function``, with indices that wrap round where it takes any."""
    if function not in (np.take, np.take_along_axis):
        return function

    def apply(x: np.ndarray, index: Any, *args: Any, **kwargs: Any) -> Any:
        return function(x, index % max(1, x.shape[kwargs["axis"]]), *args, **kwargs)

    apply.__name__ = function.__name__
    return apply


def scattering(ufunc: Any, kind: type[StrictArray]) -> Callable[..., None]:
    """The ufunc's method ``at`` for arrays of this kind."""

    def apply(array: np.ndarray, index: Any, value: Any) -> None:
        ufunc.at(array, wrapping(array, index), value)

    apply.__name__ = f"{ufunc.__name__}.at"

    def at(x: StrictArray, index: Any, y: Any) -> None:
        kind._write(apply, x, index, _operand(y))

    return at


class StrictBackend(Backend):
    """The contract's defaults on StrictArrays; see ``transfers``."""

    name = "strict"
    xp = Namespace(np)
    array_type = StrictArray

    def __init__(self) -> None:
        self._transfers: list[str] = []
        self._pending: IndexError | None = None

    def asarray(self, x: np.ndarray) -> StrictArray:
        if isinstance(x, StrictArray):
            return x
        self._transfers.append(f"to the device: {np.shape(x)}")
        return StrictArray(np.array(x, order="C"))

    def to_numpy(self, x: StrictArray) -> np.ndarray:
        self._transfers.append(f"to the host: {x.shape}")
        pending, self._pending = self._pending, None
        if pending is not None:
            raise pending
        return x._a.copy()

    def check_index(self, index: StrictArray, size: int, kernel: str, low: int = 0) -> None:
        """Raised at the next ``to_numpy``, as a device would that does not wait here."""
        wrong = index._a[(index._a < low) | (index._a >= size)]
        if wrong.size and self._pending is None:
            self._pending = IndexError(
                f"{kernel}: found index {wrong[0]}, expected {low} to {size - 1}"
            )


@contextmanager
def transfers(backend: StrictBackend) -> Iterator[list[str]]:
    """What crosses between host and device inside the ``with`` block."""
    before, backend._transfers = backend._transfers, []
    try:
        yield backend._transfers
    finally:
        backend._transfers = before
