"""Values, the nodes that made them, and whether ops are recorded."""

from __future__ import annotations

import functools
import inspect
import threading
from collections.abc import Callable, Sequence
from typing import Any, ClassVar, TypeVar

import numpy as np

from tinygrad_mnist.dispatch import tell
from tinygrad_mnist.kernels import Backend, Shape

Hook = Callable[[Any], Any]
Edge = tuple["Node | Value", int]  # a node and which of its results, or a leaf and 0
Hooks = dict[int, tuple[int, Hook]]  # key → (which result, function)
Kind = tuple[Shape, Any, Backend]  # shape, dtype and backend
F = TypeVar("F", bound=Callable[..., Any])


class Value:
    """An array in the graph: what ``Tensor`` is without its methods.

    ``version`` counts the writes to the memory; it is one list shared by all views of it. The
    backward pass takes ``+``, ``clone`` and ``unbroadcast`` from the ops.
    """

    __slots__ = (
        "__weakref__",
        "array",
        "backend",
        "grad",
        "hooks",
        "node",
        "output",
        "tracked",
        "version",
    )

    result_type: ClassVar[type[Value]]  # what an op on this class returns

    array: Any
    backend: Backend
    grad: Any
    hooks: Hooks | None
    node: Node | None
    output: int
    tracked: bool  # an op on it is recorded: Tensor calls it requires_grad
    version: list[int]


Value.result_type = Value
_new = object.__new__


def wrap(kind: type[Value], array: Any, backend: Backend, version: list[int] | None = None) -> Any:
    """``array`` as a new value of class ``kind``, outside the graph."""
    value = _new(kind)
    value.array = array
    value.backend = backend
    value.version = [0] if version is None else version
    value.grad = None
    value.hooks = None
    value.node = None
    value.output = 0
    value.tracked = False
    return value


def written(value: Value) -> None:
    """Count a write to the memory of ``value``."""
    value.version[0] += 1
    tell("written", value)


def edge_to(x: Value) -> Edge:
    """Where a gradient of ``x`` goes."""
    return (x, 0) if x.node is None else (x.node, x.output)


class Node:
    """One step of the graph: how to turn its results' gradients into its inputs'.

    ``seq`` is above that of every node it was computed from.
    """

    __slots__ = ("hooks", "seq")

    foreign: ClassVar[bool] = False  # whether a user's code makes its gradients, and may keep them
    hooks: Hooks | None
    seq: int
    results: int  # how many carry a gradient

    @property
    def name(self) -> str:
        """The op's name."""
        raise NotImplementedError

    def edges(self) -> Sequence[Edge]:
        """Where its gradients go."""
        raise NotImplementedError

    def gradients(
        self, dYs: list[Any], wanted: Callable[[Edge], bool] | None
    ) -> Sequence[tuple[Edge, Any]]:
        """The gradients for its inputs, all of them or those that are ``wanted``.

        ``dYs`` has one gradient per result, None where none arrived.
        """
        raise NotImplementedError

    def free(self) -> None:
        """Forget what was kept for ``gradients``."""
        raise NotImplementedError

    def __repr__(self) -> str:
        return f"<{self.name}>"


def broadcast(
    name: str, *shapes: Shape, of: Sequence[Shape] = (), error: type[Exception] = ValueError
) -> Shape:
    """The shape of all broadcast against each other; an error where they do not.

    The error names the shapes ``of`` which these are parts, too.
    """
    try:
        return np.broadcast_shapes(*shapes)
    except ValueError:
        parts, wholes = (" and ".join(str(tuple(s)) for s in group) for group in (shapes, of))
        raise error(
            f"{name}: shapes {parts}{f', of {wholes},' if of else ''} do not broadcast; counted "
            "from the last dim, sizes must be equal or 1"
        ) from None


def broadcasts_to(shape: Shape, larger: Shape) -> bool:
    """Whether an array of ``shape`` broadcasts to exactly ``larger``."""
    ends = larger[len(larger) - len(shape) :]
    fits = all(a in (b, 1) for a, b in zip(shape, ends, strict=False))
    return len(shape) <= len(larger) and fits


def kind_of(x: Value) -> Kind:
    """What a gradient of ``x`` shares with it: shape, dtype and backend."""
    return x.array.shape, x.array.dtype, x.backend


def checked(who: str, dX: Any, wanted: Kind, given: Sequence[Value] = ()) -> Any:
    """A gradient that a user's code made, of what is ``given``, if it is what its place takes.

    TypeError for no tensor or another dtype, ValueError for another shape, RuntimeError for
    another backend.
    """
    if not isinstance(dX, Value):
        raise TypeError(f"{who}: found {type(dX).__name__}, expected a tensor or None")
    shape, dtype, backend = wanted
    x = dX.array
    if x.shape != shape:
        raise ValueError(
            f"{who}: found a gradient of shape {tuple(x.shape)}, expected {tuple(shape)}"
        )
    if x.dtype != dtype:
        raise TypeError(
            f"{who}: found a gradient of {x.dtype}, expected {dtype}; cast it with .to()"
        )
    if dX.backend is not backend:
        raise elsewhere(f"{who}: found a gradient", dX, backend)
    if given:
        tell("supplied", who, dX, given)
    return dX


def elsewhere(found: str, x: Value, backend: Backend) -> RuntimeError:
    """The error of a value on another backend than what it meets."""
    return RuntimeError(
        f"{found} on the backend {x.backend.name!r}, expected {backend.name!r}; "
        f'move it with .to("{backend.name}")'
    )


def freed(node: Node) -> RuntimeError:
    """The error of a second pass."""
    return RuntimeError(
        f"backward through {node.name} a second time: what it kept was freed by the first pass; "
        "give backward(retain_graph=True) the first time"
    )


def overwritten(node: Node, what: str) -> RuntimeError:
    """The error of a value that changed since the forward pass."""
    return RuntimeError(
        f"backward of {node.name} needs {what} as in the forward pass, but it was changed in "
        "place since; change a clone() instead"
    )


# ---- grad mode


class _Mode(threading.local):
    enabled: bool = True


mode = _Mode()


def is_grad_enabled() -> bool:
    """Whether ops on this thread are recorded."""
    return mode.enabled


class set_grad_enabled:
    """Record ops, or do not: at once, and as a context manager until its end."""

    def __init__(self, enabled: bool) -> None:
        self._previous = mode.enabled
        mode.enabled = bool(enabled)

    def __enter__(self) -> None:
        pass

    def __exit__(self, *error: object) -> None:
        mode.enabled = self._previous


class _GradMode:
    """A context manager and decorator that sets the mode on entry and puts it back on exit."""

    _target: ClassVar[bool]
    _previous: list[bool]

    def __new__(cls, function: Any = None) -> Any:
        """A context manager, or ``function`` decorated: ``@no_grad`` works as ``@no_grad()``."""
        made = super().__new__(cls)
        made._previous = []
        return made if function is None else made(function)

    def __enter__(self) -> None:
        self._previous.append(mode.enabled)
        mode.enabled = self._target

    def __exit__(self, *error: object) -> None:
        mode.enabled = self._previous.pop()

    def __call__(self, function: F) -> F:
        kind = type(self)

        @functools.wraps(function)
        def wrapped(*args: Any, **kwargs: Any) -> Any:
            with kind():
                return function(*args, **kwargs)

        @functools.wraps(function)
        def generating(*args: Any, **kwargs: Any) -> Any:
            values = function(*args, **kwargs)
            while True:
                with kind():  # around each step of the generator, not around its caller's
                    try:
                        value = next(values)
                    except StopIteration as end:
                        return end.value
                yield value

        return generating if inspect.isgeneratorfunction(function) else wrapped  # type: ignore[return-value]


class no_grad(_GradMode):
    """``with no_grad():`` ops are not recorded; also a decorator, ``@no_grad()``."""

    _target = False


class enable_grad(_GradMode):
    """``with enable_grad():`` ops are recorded again inside a ``no_grad`` block."""

    _target = True
