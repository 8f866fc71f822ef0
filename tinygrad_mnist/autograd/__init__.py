"""Reverse-mode differentiation: values, ops, the backward pass, custom functions."""

from tinygrad_mnist.autograd.backward import (
    RemovableHandle,
    backward,
    grad,
    register_hook,
    retain_grad,
    vjp,
)
from tinygrad_mnist.autograd.function import Context, Function
from tinygrad_mnist.autograd.graph import (
    Hook,
    Node,
    Value,
    broadcasts_to,
    enable_grad,
    is_grad_enabled,
    no_grad,
    set_grad_enabled,
    wrap,
)
from tinygrad_mnist.autograd.record import DEFINED, Op, broadcasts, define, filled, record

__all__ = [
    "DEFINED",
    "Context",
    "Function",
    "Hook",
    "Node",
    "Op",
    "RemovableHandle",
    "Value",
    "backward",
    "broadcasts",
    "broadcasts_to",
    "define",
    "enable_grad",
    "filled",
    "grad",
    "is_grad_enabled",
    "no_grad",
    "record",
    "register_hook",
    "retain_grad",
    "set_grad_enabled",
    "vjp",
    "wrap",
]
