"""``cupy.ndarray``, and NumPy's functions as CuPy has them.

A function's result lies in memory of the current device. While the current stream is captured
nothing is written: the call is noted, and made again whenever the graph is launched.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import numpy as np
from strict_backend import StrictArray, scattering, unwrapped, wrapped_round

from cuda_on_cpu import memory
from cuda_on_cpu.memory import MemoryPointer, PooledMemory
from cuda_on_cpu.runtime import Device, Stream, get_current_stream, machine

# NumPy's functions that CuPy has too and that the contract uses; add what else it comes to use.
_UFUNCS = """
    add subtract multiply divide true_divide floor_divide remainder power maximum minimum fmax fmin
    equal not_equal less less_equal greater greater_equal bitwise_and bitwise_or bitwise_xor invert
    left_shift right_shift negative absolute sign exp exp2 expm1 log log2 log1p sqrt square
    reciprocal sin cos tan arcsin arccos arctan arctan2 sinh cosh tanh floor ceil trunc rint isnan
    isinf isfinite logical_and logical_or logical_not logical_xor copysign signbit hypot
"""
_FUNCTIONS = """
    sum prod max min amax amin mean any all argmax argmin argsort sort cumsum cumprod clip where
    take take_along_axis concatenate stack broadcast_to reshape transpose swapaxes moveaxis
    expand_dims squeeze ravel repeat tile roll flip copyto
"""
UFUNCS, FUNCTIONS = _UFUNCS.split(), _FUNCTIONS.split()
WAITING = ["argwhere", "nonzero", "flatnonzero", "count_nonzero", "unique"]  # for a shape
PRODUCTS = ["matmul", "dot", "tensordot", "einsum", "inner", "vdot"]


class ndarray(StrictArray):
    """cupy.ndarray."""

    __slots__ = ("__weakref__",)

    def __init__(
        self,
        shape: Any,
        dtype: Any = float,
        memptr: Any = None,
        strides: Any = None,
        order: str = "C",
    ) -> None:
        shape = (shape,) if isinstance(shape, int) else tuple(shape)
        dtype = np.dtype(dtype)
        if memptr is None:
            super().__init__(_allocated(shape, dtype, order))
            return
        raw = np.asarray(memptr.mem)
        offset = memptr.ptr - memptr.mem.ptr
        super().__init__(np.ndarray(shape, dtype, raw, offset, strides, order))

    @classmethod
    def _run(cls, function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        return run(function, args, kwargs)

    @classmethod
    def _write(cls, function: Callable[..., Any], target: StrictArray, *args: Any) -> None:
        run(function, (target, *args), {}, writes=target)

    itemsize = property(lambda self: self._a.itemsize)
    device = property(lambda self: Device(_memory(self._a).device_id))

    @property
    def flags(self) -> Any:
        found = self._a.flags
        return SimpleNamespace(c_contiguous=found.c_contiguous, f_contiguous=found.f_contiguous)

    @property
    def data(self) -> MemoryPointer:
        owner = _memory(self._a)
        return MemoryPointer(owner, address(self._a) - owner.ptr)

    def get(
        self, stream: Stream | None = None, order: str = "C", out: Any = None, blocking: bool = True
    ) -> np.ndarray:
        """A copy on the host: waits for the stream."""
        stream = get_current_stream() if stream is None else stream
        machine.refuse_to_wait([stream], "an array is copied to the host")
        machine.note(f"to the host: {self._a.dtype}{self._a.shape}")
        memory.check_fences()
        _memory(self._a).check("something")
        if out is None:
            return np.array(self._a, order="C" if order == "A" else order)
        out[...] = self._a
        return out

    def set(self, array: np.ndarray, stream: Stream | None = None) -> None:
        """A copy of an array of the host."""
        if array.shape != self.shape or array.dtype != self.dtype:
            raise ValueError(f"set: {array.dtype}{array.shape} for {self.dtype}{self.shape}")
        _from_host(array)
        self._a[...] = array

    def astype(self, dtype: Any, order: str = "K", copy: bool = True) -> ndarray:
        return self._run(_astype, self, dtype, order=order, copy=copy)

    def copy(self, order: str = "C") -> ndarray:
        if self.device.id != machine.local.device:
            return _from_another_device(self, order)
        return self._run(np.ndarray.copy, self, order=order)

    def item(self, *index: int) -> Any:
        return StrictArray.item(self)


def _astype(array: np.ndarray, dtype: Any, order: Any, copy: bool) -> np.ndarray:
    return array.astype(dtype, order=order, copy=copy)


# ---- memory


def address(array: np.ndarray) -> int:
    return array.__array_interface__["data"][0]


def memory_of(array: np.ndarray) -> PooledMemory | None:
    """The memory of a device that a NumPy array lies in."""
    base: Any = array
    while base is not None and not isinstance(base, PooledMemory):
        base = getattr(base, "base", None)
    return base


def _memory(array: np.ndarray) -> PooledMemory:
    found = memory_of(array)
    assert found is not None
    return found


def _allocated(shape: tuple[int, ...], dtype: np.dtype, order: str = "C") -> np.ndarray:
    """An array full of NaN bytes on the current device."""
    size = int(np.prod(shape, dtype=np.int64)) * dtype.itemsize
    return np.ndarray(shape, dtype, np.asarray(memory.alloc(size).mem), order=order)  # type: ignore[call-overload]


def behind_glass(array: np.ndarray) -> ndarray:
    """A NumPy array that lies on a device, as an array of CuPy."""
    made = object.__new__(ndarray)
    made._a = array
    return made


def loose(array: np.ndarray) -> np.ndarray:
    """The same memory, which may be freed and be somebody else's: as a graph knows it."""
    return np.asarray(_Loose(dict(array.__array_interface__, strides=array.strides)))


class _Loose:
    def __init__(self, interface: dict[str, Any]) -> None:
        self.__array_interface__ = interface


# ---- calls


def run(
    function: Callable[..., Any],
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    writes: StrictArray | None = None,
) -> Any:
    """``function`` of arrays of the current device; ``writes`` or ``out`` are what it fills."""
    writes = kwargs.get("out") if writes is None else writes
    raw, named = unwrapped(args), unwrapped(kwargs)
    arrays = list(_arrays((raw, named)))
    _same_device(arrays, function)
    capture = machine.capturing()
    if capture is not None and writes is not None:
        _note(function, raw, named, None, arrays)
        return writes
    with np.errstate(all="ignore"):  # a device warns of nothing
        result = function(*raw, **named)
    if writes is not None:
        machine.launched(_name(function))
        return writes
    found, copied = _kept(result)
    if copied:
        if capture is None:
            machine.launched(_name(function))
        else:
            _note(function, raw, named, copied, arrays)
    return found


def _kept(result: Any) -> tuple[Any, list[np.ndarray]]:
    """The result behind glass, and what of it was copied to the device: all that is no view."""
    if isinstance(result, tuple | list):
        parts = [_kept(each) for each in result]
        return type(result)(part for part, _ in parts), [a for _, copied in parts for a in copied]
    if not isinstance(result, np.ndarray | np.generic):
        return result, []
    array = np.asarray(result)
    if memory_of(array) is not None:
        return behind_glass(array), []
    fortran = array.flags.f_contiguous and not array.flags.c_contiguous
    made = _allocated(array.shape, array.dtype, "F" if fortran else "C")
    made[...] = array
    return behind_glass(made), [made]


def _note(
    function: Callable[..., Any],
    raw: tuple[Any, ...],
    named: dict[str, Any],
    results: list[np.ndarray] | None,
    arrays: list[np.ndarray],
) -> None:
    """Writes the call down for the graph; ``results`` are to be filled, where ``out`` is not."""
    raw, named = _map(loose, raw), _map(loose, named)
    filled = None if results is None else [loose(each) for each in results]

    def node() -> None:
        with np.errstate(all="ignore"):
            found = function(*raw, **named)
        if filled is not None:
            several = found if isinstance(found, tuple | list) else [found]
            for target, value in zip(filled, several, strict=True):
                target[...] = value

    for each in results or ():  # it is to be seen that they are not computed yet
        _memory(each).chunk.poison()
    capture = machine.capturing()
    assert capture is not None
    capture.add(_name(function), node, [_memory(a).chunk for a in (*arrays, *(results or ()))])


def _map(change: Callable[[np.ndarray], np.ndarray], x: Any) -> Any:
    if isinstance(x, np.ndarray):
        return change(x)
    if isinstance(x, dict):
        return {key: _map(change, value) for key, value in x.items()}
    return type(x)(_map(change, v) for v in x) if type(x) in (tuple, list) else x


def _arrays(x: Any) -> Iterator[np.ndarray]:
    if isinstance(x, np.ndarray):
        yield x
    elif isinstance(x, dict):
        yield from _arrays(tuple(x.values()))
    elif isinstance(x, tuple | list):
        for each in x:
            yield from _arrays(each)


def _same_device(arrays: list[np.ndarray], function: Any) -> None:
    for array in arrays:
        found = _memory(array).device_id
        if found != machine.local.device:
            raise ValueError(
                f"{_name(function)}: the array resides on device {found}, the current device is "
                f"{machine.local.device}"
            )


def _name(function: Any) -> str:
    return f"cupy.{getattr(function, '__name__', function).strip('_')}"


def _from_host(array: Any) -> None:
    """A synchronous copy from pageable memory."""
    if machine.capturing() is not None:
        raise RuntimeError(
            "the current stream is capturing, so synchronous API calls are disallowed"
        )
    machine.note(f"to the device: {array.dtype}{array.shape}")


def _from_another_device(x: ndarray, order: str) -> ndarray:
    if machine.capturing() is not None:
        raise NotImplementedError("the stand-in captures no copy between devices")
    machine.note(f"between devices: {x.dtype}{x.shape}")
    made = _allocated(x.shape, x.dtype, "F" if order == "F" else "C")
    made[...] = x._a
    return behind_glass(made)


# ---- CuPy's functions


def function_of(name: str) -> Callable[..., Any]:
    """CuPy's function of that name."""
    numpys = power if name == "power" else wrapped_round(getattr(np, name))

    def apply(*args: Any, **kwargs: Any) -> Any:
        for word in {"initial", "where", "subok"} & kwargs.keys():
            raise TypeError(f"cupy.{name} takes no {word}")
        if name in ("min", "amin") and kwargs.get("out") is not None:  # in 14.2; not for max
            raise TypeError(f"cupy.{name} takes out for dtype")
        if name == "concatenate" and len(args[0]) > 8:  # where to find them
            _from_host(np.empty(len(args[0]), np.int64))
        if name in PRODUCTS and machine.capturing() is not None:
            raise NotImplementedError(
                "calling cuBLAS API during stream capture is currently unsupported"
            )
        if name in WAITING:
            machine.refuse_to_wait([get_current_stream()], f"cupy.{name} waits for its shape")
            machine.note(f"waited for the result of cupy.{name}")
        return run(numpys, args, kwargs)

    apply.__name__ = name
    if name in UFUNCS:
        apply.at = scattering(getattr(np, name), ndarray)  # type: ignore[attr-defined]
    return apply


def power(x: Any, y: Any, *args: Any, **kwargs: Any) -> Any:
    """xʸ; of integers to a negative power what CuPy says, where NumPy raises."""
    kinds = [np.asarray(v).dtype.kind for v in (x, y)]
    if "i" not in kinds or "f" in kinds:
        return np.power(x, y, *args, **kwargs)
    dtype = np.result_type(x, y)
    a, b = np.asarray(x, dtype), np.asarray(y, dtype)
    whole = np.power(a, np.maximum(b, 0))
    odd = np.where(b & 1, -1, 1).astype(dtype)
    negative = np.where(a == -1, odd, (a == 1).astype(dtype))
    return np.positive(np.where(b < 0, negative, whole), *args, **kwargs)


def array(x: Any, dtype: Any = None, copy: bool = True, order: str = "K") -> ndarray:
    """cupy.array: of the host's array, list or number, or of a device's."""
    if isinstance(x, ndarray):
        if x.device.id != machine.local.device:
            x = _from_another_device(x, "C")
        if dtype is not None and x.dtype != dtype:
            return x.astype(dtype)
        return x.copy() if copy else x
    found = np.asarray(x, dtype)
    if found.dtype.kind not in "biufc":
        raise TypeError(f"cupy.array: {found.dtype} is no dtype of a device")
    _from_host(found)
    made = _allocated(found.shape, found.dtype)
    made[...] = found
    return behind_glass(made)


def asarray(x: Any, dtype: Any = None, order: Any = None) -> ndarray:
    return array(x, dtype, copy=False)


def ascontiguousarray(x: ndarray, dtype: Any = None) -> ndarray:
    x = asarray(x, dtype)
    return x if x._a.flags.c_contiguous else x.copy()


def empty(shape: Any, dtype: Any = float, order: str = "C") -> ndarray:
    return ndarray(shape, dtype, order=order)


def full(shape: Any, fill_value: Any, dtype: Any = None, order: str = "C") -> ndarray:
    if dtype is None:
        dtype = getattr(fill_value, "dtype", None) or np.asarray(fill_value).dtype
    made = empty(shape, dtype, order)
    if isinstance(fill_value, ndarray):
        made[...] = fill_value
    else:
        made.fill(fill_value)
    return made


def zeros(shape: Any, dtype: Any = float, order: str = "C") -> ndarray:
    return full(shape, 0, dtype, order)


def ones(shape: Any, dtype: Any = float, order: str = "C") -> ndarray:
    return full(shape, 1, dtype, order)


def _like(make: Callable[..., ndarray]) -> Callable[..., ndarray]:
    def apply(
        x: ndarray, *value: Any, dtype: Any = None, order: str = "K", shape: Any = None
    ) -> ndarray:
        dtype = x.dtype if dtype is None else dtype
        if order == "C" or shape is not None:
            return make(x.shape if shape is None else shape, *value, dtype=dtype)
        dims = sorted(range(x.ndim), key=lambda dim: -abs(x.strides[dim]))  # as NumPy's K does
        made = make(tuple(x.shape[dim] for dim in dims), *value, dtype=dtype)
        return made.transpose(tuple(dims.index(dim) for dim in range(x.ndim)))

    return apply


empty_like, zeros_like, ones_like, full_like = _like(empty), _like(zeros), _like(ones), _like(full)


def arange(*bounds: Any, dtype: Any = None) -> ndarray:
    return run(np.arange, bounds, {"dtype": dtype})


def as_strided(x: ndarray, shape: Any = None, strides: Any = None) -> ndarray:
    return run(np.lib.stride_tricks.as_strided, (x, shape, strides), {})


def asnumpy(x: Any, stream: Any = None, order: str = "C", out: Any = None) -> np.ndarray:
    return x.get(stream, order, out) if isinstance(x, ndarray) else np.asarray(x)
