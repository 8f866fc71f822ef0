"""The two libraries behind one interface, and a call made on either of them."""

from __future__ import annotations

import builtins
import operator
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from parity.draws import Array, Call, Dtype

ERRORS = (Exception,)


@dataclass(frozen=True)
class Side:
    """A library: where its ops are, and how its tensors are made and differentiated."""

    name: str
    roots: dict[str, Any]
    tensor: type
    from_numpy: Callable[[np.ndarray], Any]
    to_numpy: Callable[[Any], np.ndarray]
    dtype: Callable[[str], Any]
    grad: Callable[..., Any]
    no_grad: Callable[[], Any]
    quiet: Callable[[], Any]  # what silences its warnings

    def find(self, path: str) -> Any:
        """The function under a path; of a property, the function that reads it."""
        root, name = path.split(".", 1)
        found = getattr(self.roots[root], name)
        return found if callable(found) else operator.attrgetter(name)


def side(library: Any, name: str, boolean: str, quiet: Any = nullcontext, **numpy: Any) -> Side:
    """A library laid out as PyTorch: its name for booleans, and what its ``numpy()`` is given."""
    roots = {
        "torch": library,
        "Tensor": library.Tensor,
        "F": library.nn.functional,
        "operator": operator,
        "builtins": builtins,
    }
    return Side(
        name,
        roots,
        tensor=library.Tensor,
        from_numpy=library.from_numpy,
        to_numpy=lambda x: np.asarray(x.detach().numpy(**numpy)),
        dtype=lambda kind: getattr(library, boolean if kind == "bool" else kind),
        grad=library.autograd.grad,
        no_grad=library.no_grad,
        quiet=quiet,
    )


@dataclass
class Run:
    """What a call gave on one side: the result or the error, and its arrays' memory after it."""

    result: Any = None
    error: Exception | None = None
    inputs: list[Any] = field(default_factory=list)  # the tensors, in the order of the arrays
    memory: list[np.ndarray] = field(default_factory=list)
    derivatives: list[np.ndarray] = field(default_factory=list)  # those compared last


def run(library: Side, path: str, call: Call) -> Run:
    """Make the call's tensors and call. AttributeError where the op does not exist."""
    function = library.find(path)
    done = Run()

    def made(value: Any) -> Any:
        if isinstance(value, Array):
            memory, view = value.laid_out()
            done.memory.append(memory)
            x = library.from_numpy(view)
            done.inputs.append(x.requires_grad_() if value.requires_grad else x)
            return done.inputs[-1]
        if isinstance(value, Dtype):
            return library.dtype(value.name)
        if isinstance(value, list | tuple):
            return type(value)(map(made, value))
        if isinstance(value, np.ndarray):
            return value.copy()
        return value

    args, kwargs = made(call.args), {name: made(v) for name, v in call.kwargs.items()}
    try:
        with library.quiet(), library.no_grad() if call.no_grad else nullcontext():
            done.result = function(*args, **kwargs)
    except ERRORS as error:
        done.error = error
    return done


def leaves(library: Side, result: Any) -> list[Any]:
    """The tensors of a result."""
    if isinstance(result, library.tensor):
        return [result]
    if isinstance(result, list | tuple):
        return [leaf for item in result for leaf in leaves(library, item)]
    return []


# ---- a call as Python


def code(name: str, path: str, call: Call) -> str:
    """The call as it is written with ``torch`` or ``tg``."""
    args = [_code(name, value) for value in call.args]
    named = [f"{key}={_code(name, value)}" for key, value in call.kwargs.items()]
    root, function = path.split(".", 1)
    if root == "Tensor" and args:
        path, args = f"{args[0]}.{function}", args[1:]
        if function in ("T", "mT", "shape", "ndim", "requires_grad", "is_leaf"):
            return path
    elif root == "F":
        path = f"{name}.nn.functional.{function}"
    elif root == "torch":
        path = f"{name}.{function}"
    written = f"{path}({', '.join([*args, *named])})"
    return f"with {name}.no_grad(): {written}" if call.no_grad else written


def _code(name: str, value: Any) -> str:
    if isinstance(value, Array):
        grad = ".requires_grad_()" if value.requires_grad else ""
        return f"{name}.from_numpy({value.code()}){grad}"
    if isinstance(value, Dtype):
        return f"{name}.{value.name}"
    if isinstance(value, np.ndarray):
        return Array(value).code() if value.dtype.kind in "biuf" else f"np.{value!r}"
    if isinstance(value, list):
        return f"[{', '.join(_code(name, item) for item in value)}]"
    if isinstance(value, tuple):
        inner = ", ".join(_code(name, item) for item in value)
        return f"({inner},)" if len(value) == 1 else f"({inner})"
    return "..." if value is ... else repr(value)
