"""Tensor: what people script with. Its methods are the ops."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator
from typing import Any, Self

import numpy as np

from tinygrad_mnist import autograd
from tinygrad_mnist.autograd.backward import register_hook, retain_grad
from tinygrad_mnist.autograd.function import Function
from tinygrad_mnist.autograd.graph import Node, Value, wrap
from tinygrad_mnist.backend import BackendError, current, resolve
from tinygrad_mnist.checks import FLOAT, INT, check_holds, checked_dtype, own_dtype
from tinygrad_mnist.composed.selections import write_at
from tinygrad_mnist.dispatch import call, changed, fetch, tell
from tinygrad_mnist.display import display
from tinygrad_mnist.in_place import InPlace
from tinygrad_mnist.kernels import Backend, Shape
from tinygrad_mnist.ops.table import beside, cast


class Tensor(InPlace):
    """An array of numbers that remembers how it was computed; its ops are those it inherits.

    Made by ``tensor``, ``zeros``, … and by the ops; ``requires_grad=True`` makes it a leaf whose
    ``grad`` the ``backward`` of anything computed from it fills.
    """

    __slots__ = ()
    __array_ufunc__ = None  # so that ndarray * tensor is the tensor's business
    __hash__ = object.__hash__

    grad: Tensor | None

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        raise TypeError("make a tensor with tensor(data), from_numpy(array) or zeros(shape)")

    # ---- what it is

    @property
    def shape(self) -> Shape:
        """The size of each dim."""
        return self.array.shape

    @property
    def ndim(self) -> int:
        """The number of dims."""
        return self.array.ndim

    @property
    def dtype(self) -> np.dtype:
        """The NumPy dtype of the elements."""
        return self.array.dtype

    @property
    def requires_grad(self) -> bool:
        """Whether ops on it are recorded."""
        return self.tracked

    @requires_grad.setter
    def requires_grad(self, value: bool) -> None:
        self.requires_grad_(value)

    @property
    def is_leaf(self) -> bool:
        """Whether no recorded op made it."""
        return self.node is None

    @property
    def grad_fn(self) -> Node | None:
        """The node of the op that made it; None for a leaf."""
        return self.node

    def size(self, dim: int | None = None) -> Any:
        """The shape, or the size of ``dim``. IndexError for a dim that is not there."""
        return self.shape if dim is None else self.shape[self._own_dim("size", dim)]

    @property
    def device(self) -> str:
        """Where it lies, as PyTorch names it: "cpu" or "cuda:N"; else its backend's name."""
        name = self.backend.name
        return "cpu" if of_host(self.backend) else name.replace("cupy", "cuda")

    def dim(self) -> int:
        """The number of dims."""
        return self.ndim

    def numel(self) -> int:
        """The number of elements."""
        return math.prod(self.shape)

    def is_floating_point(self) -> bool:
        """Whether the elements are floats."""
        return bool(self.dtype.kind == "f")

    def is_contiguous(self) -> bool:
        """Whether the elements lie in row-major order without gaps."""
        return bool(self.array.flags.c_contiguous)

    def __len__(self) -> int:
        if not self.shape:
            raise TypeError("len() of a 0-d tensor")
        return self.shape[0]

    def __iter__(self) -> Iterator[Tensor]:
        if not self.ndim:
            raise TypeError("iteration over a 0-d tensor")
        return iter(self.unbind())

    def __repr__(self) -> str:
        values = fetch(self.backend, self.array, "print")
        return display(values, self.backend.name, self.node, self.tracked)

    # ---- its values on the host

    def numpy(self) -> np.ndarray:
        """The values as a NumPy array, sharing memory where the backend can.

        RuntimeError where it requires grad: ``detach()`` it first.
        """
        if self.tracked:
            raise RuntimeError(
                "numpy: a tensor that requires grad becomes no NumPy array: use x.detach().numpy()"
            )
        return fetch(self.backend, self.array, ".numpy()")

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        if copy is False and not of_host(self.backend):
            raise ValueError(f"an array of the backend {self.backend.name!r} is copied to the host")
        return np.array(self.numpy(), dtype=dtype, copy=copy)

    def __dlpack__(self, **kwargs: Any) -> Any:
        """The memory for another library. BufferError where it cannot be had."""
        if self.tracked:
            raise BufferError("__dlpack__ of a tensor that requires grad: detach() it first")
        return self._exchangeable().__dlpack__(**kwargs)

    def __dlpack_device__(self) -> tuple[int, int]:
        kind, number = self._exchangeable().__dlpack_device__()
        return kind, number

    def _exchangeable(self) -> Any:
        if not hasattr(self.array, "__dlpack__"):
            raise BufferError(f"the backend {self.backend.name!r} has no DLPack: use x.cpu()")
        tell("host_read", "another library")
        return self.array

    def item(self) -> Any:
        """The only element as a Python number. ValueError where there are more."""
        return self._number(".item()")

    def _number(self, what: str) -> Any:
        """``item`` for ``what``, which observers hear of."""
        if self.numel() != 1:
            raise ValueError(f"item: expected one element, got a tensor of shape {self.shape}")
        return fetch(self.backend, self.array, what).item()

    def tolist(self) -> Any:
        """The values as nested lists of Python numbers."""
        return fetch(self.backend, self.array, ".tolist()").tolist()

    def __index__(self) -> int:
        if self.dtype.kind not in "iu":
            raise TypeError(f"index: only an integer tensor can be one, this one is {self.dtype}")
        return int(self._number("an index"))

    def __bool__(self) -> bool:
        if self.numel() != 1:
            raise ValueError(
                f"the truth of a tensor of shape {self.shape} is ambiguous; reduce it first, for "
                "example with (x != 0).sum() > 0"
            )
        return bool(self._number("bool, as `if` asks for"))

    def __float__(self) -> float:
        return float(self._number("float()"))

    def __int__(self) -> int:
        return int(self._number("int()"))

    def __format__(self, form: str) -> str:
        return format(self._number("a format"), form) if form else repr(self)

    # ---- copies of its own

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        """A leaf with memory of its own, ``grad`` included. RuntimeError for an op's result."""
        if self.node is not None:
            raise RuntimeError("deepcopy of a tensor that an op made: detach() it first")
        array = call(self.backend, "copy", (self.array,))
        made: Self = wrap(type(self), array, self.backend)
        memo[id(self)] = made
        made.tracked = self.tracked
        made.grad = copy.deepcopy(self.grad, memo)
        return made

    def __reduce__(self) -> Any:
        """Pickled as a NumPy array and the backend's name. RuntimeError for an op's result."""
        if self.node is not None:
            raise RuntimeError("pickling a tensor that an op made: detach() it first")
        array = fetch(self.backend, self.array, "pickle")
        return _unpickled, (type(self), array, self.backend.name, self.tracked)

    # ---- gradients

    backward = autograd.backward
    register_hook = register_hook
    retain_grad = retain_grad

    def requires_grad_(self, requires_grad: bool = True) -> Tensor:
        """Record ops on this leaf from now on, or no more; returns itself.

        RuntimeError for a tensor an op made, or one of integers.
        """
        if self.node is not None and not requires_grad:
            raise RuntimeError("requires_grad_: only leaves leave the graph: use x.detach()")
        if requires_grad and self.dtype.kind != "f":
            raise RuntimeError(
                f"requires_grad_: only float tensors can require grad, this one is {self.dtype}"
            )
        if self.tracked is not bool(requires_grad):
            self.tracked = bool(requires_grad)
            changed()
        return self

    def detach(self) -> Tensor:
        """The same memory outside the graph."""
        return wrap(self.result_type, self.array, self.backend, self.version)

    @property
    def data(self) -> Tensor:
        """The same memory outside the graph; assigning copies into it what has its shape."""
        return self.detach()

    @data.setter
    def data(self, value: Tensor) -> None:
        if not isinstance(value, Tensor) or value.shape != self.shape or value.dtype != self.dtype:
            found = f"{value.dtype}{value.shape}" if isinstance(value, Tensor) else repr(value)
            raise ValueError(
                f"data: expected a tensor {self.dtype}{self.shape}, got {found}; "
                "make a new parameter for another shape or dtype"
            )
        with autograd.no_grad():
            self.copy_(value)

    def __setitem__(self, index: Any, value: Any) -> None:
        """Write ``value`` (a tensor, an array, numbers), broadcast and cast, where ``x[index]`` is.

        Of repeated indices one wins, on the host the last. RuntimeError where gradients are
        recorded, ValueError for a shape that does not fit, and the errors of ``x[index]``: all
        before anything is written.
        """
        self._writable("x[i] = v")
        if isinstance(value, Tensor) and value.tracked and autograd.is_grad_enabled():
            value._writable("x[i] = v")  # says what to do instead
        with autograd.no_grad():
            if isinstance(value, Tensor):
                value = value.to(self.dtype, self.backend)
            elif not isinstance(value, int | float | np.number | np.bool_):
                if dtypes_in(value):
                    tell("host_data", "a NumPy array")
                value = beside(self, host_array("x[i] = v", value, self.dtype))
            write_at(self, index, value)
        self._written()

    def __contains__(self, value: Any) -> bool:
        """Whether an element equals the number, or one the tensor it is broadcast against."""
        if not _comparable(value):
            raise TypeError(f"in: expected a number or a tensor, got {type(value).__name__}")
        return bool((self == value).any())

    # ---- elsewhere, or of another dtype

    def to(self, *args: Any, dtype: Any = None, backend: Any = None, device: Any = None) -> Tensor:
        """As another dtype, on another backend or device, or both; itself where nothing changes.

        ``x.to(float64)``, ``x.to("numba")``, ``x.to("cuda:1", "float64")``, ``x.to(other)`` for the
        dtype and backend of another tensor. "cpu" leaves a tensor of the host where it is and moves
        one of a device to the current backend, or where that is no host's, to numba, else to numpy.
        "cuda:1" is the backend "cupy:1". BackendError or TypeError for what is none of these.
        """
        backend = device if backend is None else backend
        for arg in args:
            if isinstance(arg, Tensor):
                dtype, backend = arg.dtype, arg.backend
            elif isinstance(arg, Backend) or (isinstance(arg, str) and arg not in _DTYPES):
                backend = arg
            elif arg is not None:
                dtype = arg
        moved = self if dtype is None else cast(self, checked_dtype(dtype, "to"))
        target = self.backend if backend is None else _target(backend, self.backend)
        return moved if target is self.backend else _To.apply(moved, target)

    def cpu(self) -> Tensor:
        """On the host: ``x.to("cpu")``."""
        return self.to("cpu")

    def cuda(self, device: Any = None) -> Tensor:
        """On a GPU, by its number or as ``"cuda:1"``: ``x.to("cuda")``."""
        number = isinstance(device, int) and not isinstance(device, bool)
        return self.to("cuda" if device is None else f"cuda:{device}" if number else device)

    def float(self) -> Tensor:
        """As float32."""
        return self.to("float32")

    def double(self) -> Tensor:
        """As float64."""
        return self.to("float64")

    def long(self) -> Tensor:
        """As int64."""
        return self.to("int64")

    def int(self) -> Tensor:
        """As int32."""
        return self.to("int32")

    def bool(self) -> Tensor:
        """As booleans: whether an element is not 0."""
        return self.to("bool")

    def __eq__(self, other: object) -> Any:
        return Tensor.eq(self, other) if _comparable(other) else NotImplemented

    def __ne__(self, other: object) -> Any:
        return Tensor.ne(self, other) if _comparable(other) else NotImplemented


Tensor.result_type = Tensor
_DTYPES = frozenset(np.sctypeDict) | {"bfloat16"}  # names of dtypes, most of them not supported


class _To(Function):
    """The same values on another backend."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, target: Backend) -> Tensor:
        ctx.source = x.backend
        array = target.asarray(fetch(x.backend, x.array, f".to({target.name!r})").copy())
        return wrap(Tensor, array, target)

    @staticmethod
    def backward(ctx: Any, dY: Tensor) -> Any:
        return dY.to(ctx.source), None


def of_host(backend: Backend) -> bool:
    """Whether its arrays are NumPy's."""
    return issubclass(backend.array_type, np.ndarray)


def _target(place: Any, own: Backend) -> Backend:
    """The backend that a backend's or a device's name stands for, seen from ``own``."""
    if place in ("cpu", "cpu:0"):
        return own if of_host(own) else _host()
    if isinstance(place, str) and place.partition(":")[0] == "cuda":
        return resolve("cupy" + place[4:], f"to: the backend of the device {place!r}")
    return resolve(place, "to: the argument, if no dtype,")


def _host() -> Backend:
    if of_host(current()):
        return current()
    try:
        return resolve("numba")
    except BackendError:
        return resolve("numpy")


def _unpickled(kind: type[Tensor], array: np.ndarray, backend: str, tracked: bool) -> Tensor:
    target = resolve(backend, "the backend of a pickled tensor")
    made: Tensor = wrap(kind, target.asarray(own_dtype(array)), target)
    made.tracked = tracked
    return made


def _comparable(x: object) -> bool:
    return isinstance(x, Value | int | float | np.ndarray | np.generic)


# ---- data of the host


def host_array(name: str, data: Any, dtype: Any = None) -> np.ndarray:
    """A number, an array or nested lists as a NumPy array of ``dtype``, if given, a supported one.

    TypeError for what is no number and for other dtypes, ValueError for ragged lists, OverflowError
    for integers that the dtype does not hold.
    """
    wanted = None if dtype is None else checked_dtype(dtype, name)
    try:
        array = np.asarray(data)
    except ValueError as error:
        raise ValueError(f"{name}: the nested lists are ragged or not numbers: {error}") from error
    if array.dtype.kind not in "biuf":
        raise TypeError(f"{name}: expected numbers, got {type(data).__name__} of {array.dtype}")
    if wanted is None and not hasattr(data, "dtype"):
        wanted = _dtype_of_list(array, dtypes_in(data))
    kind = checked_dtype(wanted or array.dtype, name)
    if array.dtype.kind in "iu" and array.size:
        check_holds(name, kind, array.min(), array.max())
    return array.astype(kind, copy=False)


def dtypes_in(data: Any) -> set[np.dtype]:
    """The dtypes of the arrays and tensors in nested lists."""
    if hasattr(data, "dtype"):
        return {data.dtype}
    if not isinstance(data, list | tuple) or set(map(type, data)) <= {bool, int, float}:
        return set()
    return {dtype for part in data for dtype in dtypes_in(part)}


def _dtype_of_list(array: np.ndarray, given: set[np.dtype]) -> np.dtype:
    """What nested lists become, of which NumPy made ``array``: it takes all floats for float64."""
    if array.dtype.kind == "f":
        return array.dtype if np.dtype(np.float64) in given else FLOAT
    return INT if array.dtype.kind in "iu" and not given else array.dtype
