"""Module: a tree of layers with their parameters and buffers."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any, Self

import numpy as np

from tinygrad_mnist.autograd.graph import no_grad, wrap
from tinygrad_mnist.tensor import Tensor


class Parameter(Tensor):
    """A tensor that a module trains: assigned to one of its attributes, it is registered there."""

    __slots__ = ()

    def __new__(cls, data: Tensor, requires_grad: bool = True) -> Self:
        if not isinstance(data, Tensor):
            raise TypeError(f"Parameter: expected a tensor, got {type(data).__name__}")
        made: Self = wrap(cls, data.array, data.backend, data.version)
        made.requires_grad_(requires_grad)
        return made

    def __init__(self, data: Tensor, requires_grad: bool = True) -> None:
        """``data`` as a parameter, sharing its memory."""

    def __repr__(self) -> str:
        return f"Parameter containing:\n{super().__repr__()}"


class Module:
    """Base of all layers and models. A subclass sets its layers in ``__init__`` and defines
    ``forward``.

    Its parameters and layers are those of its attributes that are a Parameter or a Module; its
    buffers those named by ``register_buffer``. Where an attribute is a Parameter, only another one
    or None takes its place.
    """

    training: bool = True

    def __init__(self) -> None:
        self._buffers: set[str] = set()

    def __setattr__(self, name: str, value: Any) -> None:
        if isinstance(value, Parameter | Module) and "_buffers" not in vars(self):
            raise AttributeError(
                f"{type(self).__name__}.{name} is set before super().__init__() was called"
            )
        if (
            value is not None
            and not isinstance(value, Parameter)
            and isinstance(vars(self).get(name), Parameter)
        ):
            raise TypeError(
                f"cannot assign {type(value).__name__} as parameter {name!r} of "
                f"{type(self).__name__}; use Parameter(…) or None"
            )
        super().__setattr__(name, value)

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """What the module computes. A subclass defines it."""
        raise NotImplementedError(f"{type(self).__name__} needs a method forward()")

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self.forward(*args, **kwargs)

    def register_buffer(self, name: str, value: Tensor | None) -> None:
        """A tensor that is part of the state but not trained, such as a running mean."""
        setattr(self, name, value)
        self._buffers.add(name)

    # ---- the tree

    def named_children(self) -> Iterator[tuple[str, Module]]:
        """The modules directly below, with their names."""
        for name, value in vars(self).items():
            if isinstance(value, Module):
                yield name, value

    def children(self) -> Iterator[Module]:
        """The modules directly below."""
        for _, child in self.named_children():
            yield child

    def named_modules(self, prefix: str = "") -> Iterator[tuple[str, Module]]:
        """This module and all below, each once, with dotted names."""
        seen: set[int] = set()
        stack: list[tuple[str, Module]] = [(prefix, self)]
        while stack:
            name, module = stack.pop()
            if id(module) not in seen:
                seen.add(id(module))
                yield name, module
                below = list(module.named_children())
                stack.extend((_dotted(name, key), child) for key, child in reversed(below))

    def _every_name(self, prefix: str, above: tuple[Module, ...]) -> Iterator[tuple[str, Module]]:
        """This module and all below by each of their names; none within itself."""
        yield prefix, self
        above = (*above, self)
        for name, child in self.named_children():
            if child not in above:
                yield from child._every_name(_dotted(prefix, name), above)

    def modules(self) -> Iterator[Module]:
        """This module and all below, each once."""
        for _, module in self.named_modules():
            yield module

    def named_parameters(self) -> Iterator[tuple[str, Parameter]]:
        """All parameters, each once, with dotted names."""
        yield from _once(
            _tensors(
                self.named_modules(),
                lambda module, name: isinstance(vars(module)[name], Parameter),
            )
        )

    def parameters(self) -> Iterator[Parameter]:
        """All parameters, each once."""
        for _, parameter in self.named_parameters():
            yield parameter

    def named_buffers(self) -> Iterator[tuple[str, Tensor]]:
        """All buffers, each once, with dotted names."""
        yield from _once(
            _tensors(self.named_modules(), lambda module, name: name in module._buffers)
        )

    def buffers(self) -> Iterator[Tensor]:
        """All buffers, each once."""
        for _, buffer in self.named_buffers():
            yield buffer

    # ---- modes

    def train(self, mode: bool = True) -> Self:
        """Training mode here and below: dropout drops, batch norm follows the batches."""
        for module in self.modules():
            module.training = mode
        return self

    def eval(self) -> Self:
        """Evaluation mode: ``train(False)``."""
        return self.train(False)

    def requires_grad_(self, requires_grad: bool = True) -> Self:
        """Train all parameters, or freeze them."""
        for parameter in self.parameters():
            parameter.requires_grad_(requires_grad)
        return self

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Forget every parameter's gradient, or set it to zeros."""
        for p in self.parameters():
            p.grad = None if set_to_none or p.grad is None else p.grad.detach().zero_()

    def to(self, *args: Any, dtype: Any = None, backend: Any = None) -> Self:
        """Move parameters and buffers to another backend or float dtype; see ``Tensor.to``.

        The parameters keep their identity, so an optimizer made before still knows them.
        """
        with no_grad():
            for value in (*self.parameters(), *self.buffers()):
                keep = value.dtype.kind != "f"  # integers, such as counts, keep their dtype
                moved = value.detach().to(*args, dtype=dtype, backend=backend)
                moved = moved.to(value.dtype) if keep else moved
                value.array, value.backend, value.version = (
                    moved.array,
                    moved.backend,
                    moved.version,
                )
                value.grad = (
                    None
                    if value.grad is None
                    else value.grad.to(*args, dtype=dtype, backend=backend)
                )
        return self

    # ---- state

    def state_dict(self) -> dict[str, Tensor]:
        """Every parameter and buffer by its dotted name: the tensors themselves, detached.

        A shared one is there under each of its names.
        """
        state = _tensors(
            self._every_name("", ()),
            lambda module, name: (
                name in module._buffers or isinstance(vars(module)[name], Parameter)
            ),
        )
        return {name: value.detach() for name, value in state}

    def load_state_dict(self, state: Mapping[str, Any], strict: bool = True) -> None:
        """Copy ``state`` (tensors or NumPy arrays by dotted name) into parameters and buffers.

        ValueError names every missing, unexpected and mis-shaped key, and then nothing is copied;
        ``strict=False`` lets keys be missing or unexpected. TypeError for a value that is no array.
        """
        own = self.state_dict()
        for key in own:
            if key in state:
                _check_array(key, state[key])
        problems = []
        if strict:
            problems += [f"missing {key!r}" for key in own if key not in state]
            problems += [f"unexpected {key!r}" for key in state if key not in own]
        problems += [
            f"{key!r} has shape {tuple(state[key].shape)}, expected {tuple(own[key].shape)}"
            for key in own
            if key in state and tuple(state[key].shape) != tuple(own[key].shape)
        ]
        if problems:
            raise ValueError(f"the state does not fit {type(self).__name__}: {'; '.join(problems)}")
        with no_grad():
            for key in own:
                if key in state:
                    own[key].copy_(state[key])

    # ---- display

    def extra_repr(self) -> str:
        """What ``repr`` shows between the parentheses of a layer."""
        return ""

    def __repr__(self) -> str:
        lines = [f"({name}): {_indented(repr(child))}" for name, child in self.named_children()]
        head = self.extra_repr()
        if not lines:
            return f"{type(self).__name__}({head})"
        body = "\n  ".join([head, *lines] if head else lines)
        return f"{type(self).__name__}(\n  {body}\n)"


def _tensors(
    modules: Iterator[tuple[str, Module]], chosen: Callable[[Module, str], bool]
) -> Iterator[tuple[str, Any]]:
    """The chosen tensors of each module, with dotted names."""
    for prefix, module in modules:
        for name, value in vars(module).items():
            if isinstance(value, Tensor) and chosen(module, name):
                yield _dotted(prefix, name), value


def _check_array(key: str, value: Any) -> None:
    """TypeError for a loaded value that is neither a tensor nor a NumPy array of numbers."""
    array = isinstance(value, Tensor | np.ndarray | np.generic)
    if not array or value.dtype.kind not in "biuf":
        got = f"an array of {value.dtype}" if array else type(value).__name__
        raise TypeError(
            f"the state's {key!r} must be a tensor or NumPy array of numbers, got {got}"
        )


def _once(named: Iterator[tuple[str, Any]]) -> Iterator[tuple[str, Any]]:
    seen: set[int] = set()
    for name, value in named:
        if id(value) not in seen:
            seen.add(id(value))
            yield name, value


def _dotted(prefix: str, name: str) -> str:
    return f"{prefix}.{name}" if prefix else name


def _indented(text: str) -> str:
    return text.replace("\n", "\n  ")
