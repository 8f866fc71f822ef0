"""What the contract says of each kernel, read from its definition in ``kernels.Backend``."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

from tinygrad_mnist.kernels import Backend


@dataclass(frozen=True, slots=True)
class Spec:
    """What the contract says of a kernel, read from its definition."""

    name: str
    kind: str  # "plain", "elementwise", "view" or "inplace"
    inputs: tuple[str, ...]  # positional parameters: arrays
    variadic: bool  # whether the one in inputs stands for any number of arrays
    static: tuple[str, ...]  # keyword parameters, without out
    writes: tuple[str, ...]  # the inputs an in-place kernel writes


_NOT_KERNELS = frozenset({"unusable", "at", "details", "here", "explain"})
_NOT_KERNELS |= {"asarray", "to_numpy", "check_index", "prepared"}


@cache
def spec(name: str) -> Spec:
    """The contract's entry for the kernel ``name``; KeyError if there is none."""
    if name not in kernel_names():
        raise KeyError(f"the contract has no kernel {name!r}; see tinygrad_mnist/kernels/")
    kernel = getattr(Backend, name)
    parameters = list(inspect.signature(kernel).parameters.values())[1:]
    return Spec(
        name=name,
        kind=getattr(kernel, "kind", "plain"),
        inputs=tuple(p.name for p in parameters if p.kind is not p.KEYWORD_ONLY),
        variadic=any(p.kind is p.VAR_POSITIONAL for p in parameters),
        static=tuple(p.name for p in parameters if p.kind is p.KEYWORD_ONLY and p.name != "out"),
        writes=getattr(kernel, "writes", ()),
    )


@cache
def kernel_names() -> tuple[str, ...]:
    """Every kernel of the contract, in the order of its definition."""
    return tuple(
        name
        for room in reversed(Backend.__mro__[:-1])
        for name, value in vars(room).items()
        if not name.startswith("_") and callable(value) and name not in _NOT_KERNELS
    )


def label(name: str, static: Mapping[str, Any]) -> str:
    """A kernel's name with those of the kernels that are options of it: ``linear + relu``."""
    pool = name == "conv2d" and static.get("pool") is not None
    act = [static["act"]] if static.get("act") else []
    return " + ".join([name, *(["max_pool2d"] if pool else []), *act])
