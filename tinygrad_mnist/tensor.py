"""Tensor: what people script with. Its methods are the ops, bound in the class body."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator
from typing import Any, Self

import numpy as np

from tinygrad_mnist import autograd, ops, random
from tinygrad_mnist.autograd import (
    Function,
    Hook,
    Node,
    RemovableHandle,
    Value,
    broadcasts_to,
    wrap,
)
from tinygrad_mnist.backend import registered, resolve
from tinygrad_mnist.dispatch import call
from tinygrad_mnist.kernels import Backend, Shape
from tinygrad_mnist.ops.shapes import shape_of
from tinygrad_mnist.ops.table import DTYPES, FLOAT, INT, checked_dim, checked_dtype, operands


class Tensor(Value):
    """An array of numbers that remembers how it was computed.

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
        return self.shape if dim is None else self.shape[checked_dim("size", dim, self.ndim)]

    def dim(self) -> int:
        """The number of dims."""
        return self.ndim

    def numel(self) -> int:
        """The number of elements."""
        return math.prod(self.shape)

    def is_contiguous(self) -> bool:
        """Whether the elements lie in row-major order without gaps."""
        return bool(self.array.flags.c_contiguous)

    def __len__(self) -> int:
        if not self.shape:
            raise TypeError("len() of a 0-d tensor")
        return self.shape[0]

    def __iter__(self) -> Iterator[Tensor]:
        return (self[i] for i in range(len(self)))

    def __repr__(self) -> str:
        return _display(self)

    # ---- its values on the host

    def numpy(self) -> np.ndarray:
        """The values as a NumPy array, sharing memory where the backend can.

        RuntimeError where it requires grad: ``detach()`` it first.
        """
        if self.tracked:
            raise RuntimeError("numpy() of a tensor that requires grad: use x.detach().numpy()")
        return self.backend.to_numpy(self.array)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        return np.array(self.numpy(), dtype=dtype, copy=copy)

    def item(self) -> Any:
        """The only element as a Python number. ValueError where there are more."""
        if self.numel() != 1:
            raise ValueError(f"item: expected one element, got a tensor of shape {self.shape}")
        return self.backend.to_numpy(self.array).item()

    def tolist(self) -> Any:
        """The values as nested lists of Python numbers."""
        return self.backend.to_numpy(self.array).tolist()

    def __index__(self) -> int:
        if self.dtype.kind not in "iu":
            raise TypeError(f"only an integer tensor can be an index, this one is {self.dtype}")
        return int(self.item())

    def __bool__(self) -> bool:
        if self.numel() != 1:
            raise ValueError(
                f"the truth of a tensor of shape {self.shape} is ambiguous; reduce it first, for "
                "example with (x != 0).sum() > 0"
            )
        return bool(self.item())

    def __float__(self) -> float:
        return float(self.item())

    def __int__(self) -> int:
        return int(self.item())

    def __format__(self, form: str) -> str:
        return format(self.item(), form) if form else repr(self)

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
        array = self.backend.to_numpy(self.array)
        return _unpickled, (type(self), array, self.backend.name, self.tracked)

    # ---- gradients

    def backward(
        self,
        gradient: Tensor | None = None,
        retain_graph: bool | None = None,
        create_graph: bool = False,
    ) -> None:
        """Add the gradient of this tensor by each leaf to the leaf's ``grad``.

        See ``autograd.backward`` for the arguments and errors.
        """
        autograd.backward(self, gradient, retain_graph, create_graph)

    def requires_grad_(self, requires_grad: bool = True) -> Tensor:
        """Record ops on this leaf from now on, or no more; returns itself.

        RuntimeError for a tensor an op made, or one of integers.
        """
        if self.node is not None and not requires_grad:
            raise RuntimeError("only leaves can be taken off the graph: use x.detach()")
        if requires_grad and self.dtype.kind != "f":
            raise RuntimeError(f"only float tensors can require grad, this one is {self.dtype}")
        self.tracked = bool(requires_grad)
        return self

    def detach(self) -> Tensor:
        """The same memory outside the graph."""
        return wrap(self.result_type, self.array, self.backend, self.version)

    def register_hook(self, hook: Hook) -> RemovableHandle:
        """Call ``hook(gradient)`` when its gradient is complete; it may return another.

        It must not change the gradient in place: others may be reading it.
        """
        return autograd.register_hook(self, hook)

    def retain_grad(self) -> None:
        """Have ``backward`` fill ``grad`` of a tensor that an op made."""
        autograd.retain_grad(self)

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

    # ---- in place: under no_grad, or where no gradient is involved

    def copy_(self, other: Any) -> Tensor:
        """Overwrite the elements with those of ``other``, broadcast and cast to this dtype."""
        other = other if isinstance(other, Tensor) else tensor(other, backend=self.backend)
        if other.backend is not self.backend:
            other = other.to(self.backend)
        self._writable("copy_", other)
        call(self.backend, "copy_", (self.array, other.array))
        return self._written()

    def fill_(self, value: float) -> Tensor:
        """Set every element to a number."""
        self._writable("fill_")
        call(self.backend, "fill_", (self.array,), {"value": value})
        return self._written()

    def zero_(self) -> Tensor:
        """Set every element to 0."""
        return self.fill_(0)

    def lerp_(self, end: Tensor, weight: float) -> Tensor:
        """x ← x + weight · (end − x), of equal dtypes."""
        self._writable("lerp_", end)
        if end.dtype != self.dtype or self.dtype.kind != "f":
            raise TypeError(f"lerp_: expected float tensors alike, got {self.dtype}, {end.dtype}")
        call(self.backend, "lerp_", (self.array, end.array), {"weight": weight})
        return self._written()

    def add_(self, other: Any) -> Tensor:
        """x ← x + other."""
        return self._compute_("add", other)

    def sub_(self, other: Any) -> Tensor:
        """x ← x − other."""
        return self._compute_("subtract", other)

    def mul_(self, other: Any) -> Tensor:
        """x ← x · other."""
        return self._compute_("multiply", other)

    def div_(self, other: Any) -> Tensor:
        """x ← x / other."""
        return self._compute_("divide", other)

    __iadd__ = add_
    __isub__ = sub_
    __imul__ = mul_
    __itruediv__ = div_

    def __setitem__(self, index: Any, value: Any) -> None:
        with autograd.no_grad():
            part = self[index]
        self._writable("x[i] = v")
        if isinstance(value, Tensor) and value.tracked and autograd.is_grad_enabled():
            value._writable("x[i] = v")  # says what to do instead
        with autograd.no_grad():
            value = as_tensor(value, backend=self.backend)
            while value.ndim > part.ndim and value.shape[0] == 1:
                value = value[0]
            if not broadcasts_to(value.shape, part.shape):
                raise ValueError(
                    f"x[i] = v: shape {value.shape} does not broadcast to {part.shape}"
                )
            part.copy_(value)

    def _compute_(self, kernel: str, other: Any) -> Tensor:
        self._writable(kernel, *([other] if isinstance(other, Tensor) else []))
        with autograd.no_grad():
            x, y = operands(kernel, self, other, floats=kernel == "divide")
        if x is not self and x.dtype.kind == self.dtype.kind == "f":
            x, y = self, y.to(self.dtype)  # as copy_ does; a wider operand does not widen this
        if x is not self:
            raise TypeError(
                f"in-place {kernel}: the result has dtype {x.dtype}, the tensor {self.dtype}; "
                "write x = x … y, or cast first"
            )
        array = y.array if isinstance(y, Value) else y
        if isinstance(y, Value):
            self._check_fits(f"in-place {kernel}", y)
        call(self.backend, kernel, (self.array, array), out=self.array)
        return self._written()

    def _writable(self, name: str, *others: Value) -> None:
        if autograd.is_grad_enabled() and (self.tracked or any(o.tracked for o in others)):
            raise RuntimeError(
                f"{name} in place where gradients are recorded: put it under "
                "`with no_grad():`, or make a new tensor, such as x = x + y"
            )
        repeats = (s == 0 and n > 1 for s, n in zip(self.array.strides, self.shape, strict=True))
        if self.array.size and any(repeats):
            raise RuntimeError(
                f"{name} in place on an expanded tensor of shape {self.shape}: several elements "
                "share memory; clone() it first"
            )
        for other in others:
            self._check_fits(name, other)

    def _check_fits(self, name: str, other: Value) -> None:
        if other.backend is not self.backend:
            raise RuntimeError(
                f"{name}: one operand is on the backend {self.backend.name!r} and one on "
                f'{other.backend.name!r}; move it: y.to("{self.backend.name}")'
            )
        shape = tuple(other.array.shape)
        if shape != self.shape and not broadcasts_to(shape, self.shape):
            raise ValueError(f"{name}: shape {shape} does not broadcast to {self.shape}")

    def _written(self) -> Tensor:
        self.version[0] += 1
        return self

    # ---- elsewhere, or of another dtype

    def to(self, *args: Any, dtype: Any = None, backend: Any = None) -> Tensor:
        """On another backend, as another dtype, or both: ``x.to("numba")``, ``x.to(float64)``.

        Itself where nothing changes. BackendError or TypeError for what is neither.
        """
        for arg in args:
            if isinstance(arg, Backend) or (isinstance(arg, str) and arg in registered()):
                backend = arg
            elif isinstance(arg, str) and arg not in [str(d) for d in DTYPES]:
                backend = resolve(arg, "the argument of to()")
            else:
                dtype = arg
        moved = self if dtype is None else ops.cast(self, checked_dtype(dtype))
        target = self.backend if backend is None else resolve(backend, "the argument of to()")
        return moved if target is self.backend else _To.apply(moved, target)

    def float(self) -> Tensor:
        """As float32."""
        return self.to("float32")

    def double(self) -> Tensor:
        """As float64."""
        return self.to("float64")

    def long(self) -> Tensor:
        """As int64."""
        return self.to("int64")

    def bool(self) -> Tensor:
        """As booleans: whether an element is not 0."""
        return self.to("bool")

    # ---- the ops

    __add__ = add = ops.add
    __sub__ = sub = ops.subtract
    __mul__ = mul = ops.multiply
    __truediv__ = div = ops.divide
    __pow__ = pow = ops.pow
    __matmul__ = matmul = ops.matmul
    __neg__ = neg = ops.negative
    __abs__ = abs = ops.abs
    __getitem__ = ops.getitem
    __lt__ = lt = ops.less
    __le__ = le = ops.less_equal
    __gt__ = gt = ops.greater
    __ge__ = ge = ops.greater_equal
    eq = ops.equal
    ne = ops.not_equal
    maximum = ops.maximum
    minimum = ops.minimum
    sign = ops.sign
    square = ops.square
    exp = ops.exp
    log = ops.log
    sqrt = ops.sqrt
    sin = ops.sin
    cos = ops.cos
    tanh = ops.tanh
    sigmoid = ops.sigmoid
    relu = ops.relu
    sum = ops.sum
    mean = ops.mean
    amax = ops.amax
    argmax = ops.argmax
    sum_to_size = ops.sum_to_size
    unbroadcast = ops.unbroadcast
    softmax = ops.softmax
    log_softmax = ops.log_softmax
    reshape = ops.reshape
    view = ops.view
    flatten = ops.flatten
    permute = ops.permute
    transpose = ops.transpose
    expand = ops.expand
    squeeze = ops.squeeze
    unsqueeze = ops.unsqueeze
    clone = ops.clone
    contiguous = ops.contiguous

    def __radd__(self, other: Any) -> Tensor:
        return ops.add(other, self)

    def __rsub__(self, other: Any) -> Tensor:
        return ops.subtract(other, self)

    def __rmul__(self, other: Any) -> Tensor:
        return ops.multiply(other, self)

    def __rtruediv__(self, other: Any) -> Tensor:
        return ops.divide(other, self)

    def __rpow__(self, other: Any) -> Tensor:
        return ops.pow(other, self)

    def __rmatmul__(self, other: Any) -> Tensor:
        return ops.matmul(tensor(other, backend=self.backend), self)

    def __eq__(self, other: object) -> Any:
        return ops.equal(self, other) if _comparable(other) else NotImplemented

    def __ne__(self, other: object) -> Any:
        return ops.not_equal(self, other) if _comparable(other) else NotImplemented

    @property
    def T(self) -> Tensor:
        """The dims in reverse order: a view."""
        return ops.permute(self, tuple(reversed(range(self.ndim))))


Tensor.result_type = Tensor


class _To(Function):
    """The same values on another backend."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, target: Backend) -> Tensor:
        ctx.source = x.backend
        array = target.asarray(x.backend.to_numpy(x.array).copy())
        return wrap(Tensor, array, target)

    @staticmethod
    def backward(ctx: Any, dY: Tensor) -> Any:
        return dY.to(ctx.source), None


def _unpickled(kind: type[Tensor], array: np.ndarray, backend: str, tracked: bool) -> Tensor:
    target = resolve(backend, "the backend of a pickled tensor")
    made: Tensor = wrap(kind, target.asarray(array), target)
    made.tracked = tracked
    return made


def _comparable(x: object) -> bool:
    return isinstance(x, Value | int | float | np.ndarray | np.generic)


def _display(x: Tensor) -> str:
    values = np.array2string(
        x.backend.to_numpy(x.array), separator=", ", prefix="tensor(", threshold=100, precision=4
    )
    notes = [] if x.dtype in (FLOAT, INT, np.bool_) else [f"dtype={x.dtype}"]
    if x.numel() == 0 or x.numel() > 100:
        notes.append(f"shape={tuple(x.shape)}")
    notes.append(f"backend={x.backend.name}")
    if x.node is not None:
        notes.append(f"grad_fn={x.node!r}")
    elif x.tracked:
        notes.append("requires_grad=True")
    return f"tensor({values}, {', '.join(notes)})"


# ---- creation


def tensor(
    data: Any, dtype: Any = None, requires_grad: bool = False, backend: Any = None
) -> Tensor:
    """A new tensor with a copy of ``data``: numbers, nested lists, a NumPy array or a tensor.

    Python floats become float32, integers int64; a NumPy array keeps its dtype. TypeError for
    dtypes that are not supported, ValueError for ragged lists.
    """
    if isinstance(data, Tensor):
        data = data.detach().to(backend or data.backend).numpy()
    made = _from_host(_host_array(data, dtype), backend, copy=True)
    return made.requires_grad_() if requires_grad else made


def as_tensor(data: Any, dtype: Any = None, backend: Any = None) -> Tensor:
    """``data`` as a tensor, sharing memory where dtype and backend allow."""
    if isinstance(data, Tensor):
        return data.to(dtype=dtype, backend=backend)
    return _from_host(_host_array(data, dtype), backend, copy=False)


def from_numpy(array: np.ndarray, backend: Any = None) -> Tensor:
    """A NumPy array as a tensor that shares its memory on backends of the host.

    TypeError for anything else.
    """
    if not isinstance(array, np.ndarray):
        raise TypeError(f"from_numpy: expected a NumPy array, got {type(array).__name__}")
    return _from_host(_host_array(array, None), backend, copy=False)


def full(
    shape: Any, value: float, dtype: Any = None, backend: Any = None, requires_grad: bool = False
) -> Tensor:
    """A tensor of ``shape`` that holds ``value`` everywhere."""
    kind = checked_dtype(type(value) if dtype is None else dtype)
    static = {"shape": shape_of((shape,)), "value": value, "dtype": kind}
    return _made("full", static, requires_grad, backend)


def zeros(
    *shape: Any, dtype: Any = None, requires_grad: bool = False, backend: Any = None
) -> Tensor:
    """A tensor of zeros, float32 by default."""
    return full(shape_of(shape), 0, FLOAT if dtype is None else dtype, backend, requires_grad)


def ones(
    *shape: Any, dtype: Any = None, requires_grad: bool = False, backend: Any = None
) -> Tensor:
    """A tensor of ones, float32 by default."""
    return full(shape_of(shape), 1, FLOAT if dtype is None else dtype, backend, requires_grad)


def arange(*bounds: float, dtype: Any = None, backend: Any = None) -> Tensor:
    """``arange(end)``, ``arange(start, end)`` or with a step: int64 of integers, else float32."""
    whole = all(isinstance(bound, int | np.integer) for bound in bounds)
    kind = checked_dtype(dtype if dtype is not None else INT if whole else FLOAT)
    return _from_host(np.arange(*bounds).astype(kind), backend, copy=False)


def rand(
    *shape: Any, dtype: Any = None, requires_grad: bool = False, backend: Any = None
) -> Tensor:
    """Uniform numbers in [0, 1) from the seeded stream, the same bits on every backend.

    TypeError for a dtype that is not float.
    """
    kind = checked_dtype(FLOAT if dtype is None else dtype)
    if kind.kind != "f":
        raise TypeError(f"rand: expected a float dtype, got {kind}")
    static = {"shape": shape_of(shape), "key": random.next_key(), "dtype": kind}
    return _made("uniform", static, requires_grad, backend)


def randn(
    *shape: Any, dtype: Any = None, requires_grad: bool = False, backend: Any = None
) -> Tensor:
    """Normal numbers, mean 0 and deviation 1: √(−2 log u)·cos(2πv) (Box, Muller 1958)."""
    u = rand(*shape, dtype=dtype, backend=backend)
    v = rand(*shape, dtype=dtype, backend=backend)
    normal = (-2 * (1 - u).log()).sqrt() * (v * (2 * math.pi)).cos()
    return normal.requires_grad_(requires_grad)


def _made(kernel: str, static: dict[str, Any], requires_grad: bool, backend: Any) -> Tensor:
    """What a kernel without inputs makes on the chosen backend."""
    target = resolve(backend)
    made: Tensor = wrap(Tensor, call(target, kernel, (), static), target)
    return made.requires_grad_(requires_grad)


def _host_array(data: Any, dtype: Any) -> np.ndarray:
    wanted = None if dtype is None else checked_dtype(dtype)
    try:
        array = np.asarray(data)
    except ValueError as error:
        raise ValueError(f"tensor: the nested lists are ragged or not numbers: {error}") from error
    if array.dtype.kind not in "biuf":
        raise TypeError(f"tensor: expected numbers, got {type(data).__name__} of {array.dtype}")
    if wanted is None and not isinstance(data, np.ndarray | np.generic):
        kinds: dict[str, np.dtype] = {"f": FLOAT, "i": INT, "u": INT, "b": checked_dtype(bool)}
        wanted = kinds[array.dtype.kind] if array.size else FLOAT
    kind = checked_dtype(wanted or array.dtype)
    if kind.kind in "iu" and array.dtype.kind in "iu" and array.size:
        limits = np.iinfo(kind)
        if array.min() < limits.min or array.max() > limits.max:
            raise OverflowError(
                f"tensor: found {array.min()} to {array.max()}, {kind} holds {limits.min} to "
                f"{limits.max}"
            )
    return array.astype(kind, copy=False)


def _from_host(array: np.ndarray, backend: Any, copy: bool) -> Tensor:
    target = resolve(backend)
    made = target.asarray(np.array(array, order="C") if copy else array)
    return wrap(Tensor, made, target)
