"""Gradients kept within bounds, and parameters as one vector."""

from __future__ import annotations

import math
from collections.abc import Iterable
from functools import reduce
from itertools import pairwise
from operator import add
from typing import Any

import numpy as np

from tinygrad_mnist.autograd.graph import no_grad
from tinygrad_mnist.checks import check_scalars, no_tensor
from tinygrad_mnist.composed.arrangements import stack
from tinygrad_mnist.creation import zeros
from tinygrad_mnist.ops.shapes import cat
from tinygrad_mnist.tensor import Tensor

Tensors = Tensor | Iterable[Tensor]


def clip_grad_norm_(
    parameters: Tensors,
    max_norm: float,
    norm_type: float | str = 2.0,
    error_if_nonfinite: bool = False,
) -> Tensor:
    """g ← g · min(1, max_norm / (‖g‖ + 10⁻⁶)) for all gradients g, ‖g‖ the norm of all of them.

    Returns ‖g‖ as it was, of shape (). Written in place, without a look at the values unless
    ``error_if_nonfinite``. Parameters without a gradient are left out. The errors are those of
    ``get_total_norm``, and ValueError for a ``max_norm`` below 0. Pascanu, Mikolov, Bengio 2013.
    """
    name = "clip_grad_norm_"
    grads = _gradients(name, parameters)
    limit = _bound(name, "max_norm", max_norm)
    total = _total_norm(name, grads, norm_type, error_if_nonfinite)
    with no_grad():
        scale = (limit / (total + 1e-6)).clamp(max=1.0)
        for grad in grads:
            grad.mul_(scale.to(grad.dtype))
    return total


def clip_grad_value_(parameters: Tensors, clip_value: float) -> None:
    """Every element of every gradient to within ±``clip_value``, in place.

    Parameters without a gradient are left out. ValueError for a ``clip_value`` below 0, TypeError
    for what is no tensor.
    """
    grads = _gradients("clip_grad_value_", parameters)
    limit = _bound("clip_grad_value_", "clip_value", clip_value)
    with no_grad():
        for grad in grads:
            grad.clamp_(-limit, limit)


def get_total_norm(
    tensors: Tensors, norm_type: float | str = 2.0, error_if_nonfinite: bool = False
) -> Tensor:
    """(Σ |x|ᵖ)^(1/p) over all elements of all tensors, for p inf the largest |x|; shape ().

    p is ``norm_type``, above 0; without tensors the norm is 0. ValueError for another p, TypeError
    for what is no tensor, RuntimeError for tensors on two backends and, if ``error_if_nonfinite``,
    for a norm that is inf or NaN.
    """
    name = "get_total_norm"
    return _total_norm(name, _tensors(name, tensors), norm_type, error_if_nonfinite)


def _total_norm(name: str, tensors: list[Tensor], norm_type: Any, strict: bool) -> Tensor:
    p = math.inf if norm_type == "inf" else norm_type
    check_scalars(name, norm_type=p)
    if not p > 0:
        raise ValueError(f"{name}: norm_type must be a number above 0 or inf, got {norm_type}")
    _check_together(name, tensors)
    filled = [x for x in tensors if x.numel()]
    with no_grad():
        total = _norm(filled, p) if filled else zeros()
    if strict and not math.isfinite(total.item()):
        raise RuntimeError(
            f"{name}: the norm of order {p} is {total.item()}; look for the first step whose loss "
            "is not finite, or take error_if_nonfinite=False"
        )
    return total


def _norm(tensors: list[Tensor], p: float) -> Tensor:
    """One root over the sums of all: the root of a small tensor takes longer than its sum."""
    if p == math.inf:
        largest: Tensor = stack([x.abs().amax() for x in tensors]).amax()
        return largest
    if p == 2:
        return reduce(add, [x.square().sum() for x in tensors]).sqrt()
    return reduce(add, [(x.abs() ** p).sum() for x in tensors]) ** (1 / p)


def parameters_to_vector(parameters: Iterable[Tensor]) -> Tensor:
    """All elements of all parameters one after the other, as a tensor (n,) in the graph.

    ValueError for no parameters, TypeError for what is no tensor, RuntimeError for two backends.
    """
    found = _tensors("parameters_to_vector", parameters)
    if not found:
        raise ValueError("parameters_to_vector: expected at least one parameter, got none")
    _check_together("parameters_to_vector", found)
    joined: Tensor = cat([x.reshape(-1) for x in found])
    return joined


def vector_to_parameters(vec: Tensor, parameters: Iterable[Tensor]) -> None:
    """Copy the elements of ``vec`` (n,) into the parameters, which have n elements together.

    ValueError for another n, TypeError for what is no tensor; nothing is copied then.
    """
    name = "vector_to_parameters"
    if not isinstance(vec, Tensor):
        raise no_tensor(name, "vec", vec)
    found = _tensors(name, parameters)
    ends = np.cumsum([0, *(x.numel() for x in found)]).tolist()
    if vec.shape != (ends[-1],):
        raise ValueError(
            f"{name}: expected vec of shape {(ends[-1],)} for these parameters, got {vec.shape}"
        )
    with no_grad():
        for x, (start, end) in zip(found, pairwise(ends), strict=True):
            x.copy_(vec[start:end].reshape(x.shape))


def _gradients(name: str, parameters: Tensors) -> list[Tensor]:
    return [x.grad for x in _tensors(name, parameters) if x.grad is not None]


def _tensors(name: str, tensors: Any) -> list[Tensor]:
    """One tensor or several as a list. TypeError for what is none."""
    found = [tensors] if isinstance(tensors, Tensor) else tensors
    found = list(found) if isinstance(found, Iterable) else [found]
    for x in found:
        if not isinstance(x, Tensor):
            raise TypeError(
                f"{name}: expected tensors, such as model.parameters(), got {type(x).__name__}"
            )
    return found


def _check_together(name: str, tensors: list[Tensor]) -> None:
    """RuntimeError for tensors that are not on one backend."""
    backends = list(dict.fromkeys(x.backend.name for x in tensors))
    if len(backends) > 1:
        raise RuntimeError(
            f"{name}: expected tensors on one backend, found {' and '.join(map(repr, backends))}; "
            f'move the module with .to("{backends[0]}")'
        )


def _bound(name: str, what: str, value: Any) -> float:
    check_scalars(name, **{what: value})
    if not value >= 0:
        raise ValueError(f"{name}: {what} must be a number of at least 0, got {value}")
    return float(value)
