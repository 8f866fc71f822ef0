"""What bad input gets, op by op; ``test_errors_ops`` runs every line of it on every backend.

A module per kind of op, as in ``cases``, with the line format of ``table``. Two of them are made by
rule: what each function says to a first argument that is no tensor, and which ops there are.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import tinygrad_mnist as tg
from errors import (
    losses,
    networks,
    pointwise,
    products,
    reductions,
    selections,
    shapes,
    tensors,
)
from errors.table import Bad as Bad
from errors.table import Maker as Maker
from errors.table import bad
from tinygrad_mnist import creation, functions
from tinygrad_mnist.nn import functional
from tinygrad_mnist.tensor import Tensor

# The words with which a message begins where it is not the op's own name.
_GRAD = ("requires_grad_",)
SHOWN = {
    **dict.fromkeys(("zeros", "ones", "empty", "full", "eye", "arange", "randint"), _GRAD),
    **dict.fromkeys(("tensor", "requires_grad"), (*_GRAD, "numpy")),
    "mul": ("multiply",),
    "sub": ("subtract",),
    "div": ("divide",),
    "eq": ("equal",),
    "ne": ("not_equal",),
    "lt": ("less",),
    "le": ("less_equal",),
    "gt": ("greater",),
    "ge": ("greater_equal",),
    "neg": ("negative",),
    "bitwise_not": ("bitwise_invert",),
    "concat": ("cat",),
    "concatenate": ("cat",),
    "clamp_min": ("clamp",),
    "clamp_max": ("clamp",),
    "max": ("maximum",),
    "min": ("minimum",),
    "view_as": ("view",),
    "reshape_as": ("reshape",),
    "expand_as": ("expand",),
    "broadcast_to": ("expand",),
    "zeros_like": _GRAD,
    "as_tensor": ("tensor", "numpy"),
    "cuda": ("to",),
    "__getitem__": ("index", "getitem"),
    "__setitem__": ("x[i] = v", "index", "getitem"),
    "__contains__": ("in", "equal"),
    "__bool__": ("the truth of a tensor",),
    "__int__": ("item",),
    "__float__": ("item",),
    "__format__": ("item",),
    "__index__": ("item", "index"),
    "__len__": ("len()",),
    "__iter__": ("iteration",),
    "__array__": ("numpy",),
    "__dlpack__": ("__dlpack__",),
    "__deepcopy__": ("deepcopy",),
    "__reduce__": ("pickling",),
    "__init__": ("make a tensor",),
}

_METADATA = "reads what any tensor has"
_COPIES = "takes any tensor and nothing else"
CANNOT_FAIL = {
    **dict.fromkeys(("shape", "ndim", "dim", "numel", "dtype", "device"), _METADATA),
    **dict.fromkeys(("is_leaf", "grad_fn", "is_contiguous", "is_floating_point"), _METADATA),
    **dict.fromkeys(("T", "contiguous", "detach", "cpu", "tolist", "__repr__"), _COPIES),
    **dict.fromkeys(("float", "double", "long", "int", "bool"), _COPIES),
    "unbroadcast": "is the engine's, of shapes that it knows to fit; sum_to_size checks",
    "__dlpack_device__": "fails only where the backend has no DLPack",
}


def _functions() -> dict[str, Callable[..., Any]]:
    """The functions on tensors, by name."""
    found = {}
    for module in (functions, functional):
        for name, value in vars(module).items():
            if not name.startswith("_") and inspect.isfunction(value):
                found[name] = value
    return found


def _first(name: str, function: Callable[..., Any]) -> Bad:
    """A list as the first argument."""
    empty, positional = inspect.Parameter.empty, inspect.Parameter.POSITIONAL_OR_KEYWORD
    parameters = list(inspect.signature(function).parameters.values())
    more = [p for p in parameters[1:] if p.default is empty and p.kind is positional]
    return bad(name, lambda t: function([1.0], *[t(2, 2)] * len(more)), TypeError, "got ")


CASES = [
    *pointwise.CASES,
    *reductions.CASES,
    *shapes.CASES,
    *selections.CASES,
    *products.CASES,
    *networks.CASES,
    *losses.CASES,
    *tensors.CASES,
    *(_first(name, function) for name, function in _functions().items()),
]


_OPERATORS = {"__matmul__": "matmul", "__eq__": "eq", "__ne__": "ne"}  # each calls the method


def public_ops() -> dict[Any, set[str]]:
    """Every public op with the names it goes by."""
    found: dict[Any, set[str]] = {}
    for name, value in _functions().items():
        found.setdefault(inspect.unwrap(value), set()).add(name)
    for module in (creation, inspect.getmodule(Tensor)):
        for name, value in vars(module).items():
            if inspect.isfunction(value) and getattr(tg, name, None) is value:
                found.setdefault(value, set()).add(name)
    for name in dir(Tensor):
        value = inspect.getattr_static(Tensor, _OPERATORS.get(name, name))
        swapped = name.startswith("__r") and hasattr(Tensor, name.replace("__r", "__", 1))
        private = name.startswith("_") and not name.startswith("__")
        if (inspect.isfunction(value) or isinstance(value, property)) and not (swapped or private):
            found.setdefault(value, set()).add(name)
    return found
