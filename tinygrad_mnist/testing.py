"""Checks of gradients and values, for this package's ops and for a user's own."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from tinygrad_mnist.autograd.backward import grad
from tinygrad_mnist.creation import from_numpy
from tinygrad_mnist.tensor import Tensor


def assert_close(actual: Any, expected: Any, rtol: float = 1e-5, atol: float = 1e-8) -> None:
    """AssertionError unless shapes and dtypes are equal and values are within the tolerances.

    Tensors, NumPy arrays and numbers; NaN equals NaN. |actual − expected| ≤ atol + rtol·|expected|.
    """
    a, b = _array(actual), _array(expected)
    if a.shape != b.shape:
        raise AssertionError(f"shapes differ: {a.shape} and {b.shape}")
    if isinstance(expected, Tensor | np.ndarray) and a.dtype != b.dtype:
        raise AssertionError(f"dtypes differ: {a.dtype} and {b.dtype}")
    np.testing.assert_allclose(a, b, rtol=rtol, atol=atol)


def gradcheck(
    function: Callable[..., Any],
    inputs: Sequence[Tensor],
    *,
    eps: float = 1e-6,
    rtol: float = 1e-5,
    atol: float = 1e-7,
    directions: int = 3,
    seed: int = 0,
) -> bool:
    """Compare the gradients of ``function`` with central differences along random directions.

    ``inputs`` are float64 tensors; those that require grad are checked, one at a time. The results
    of ``function`` (a tensor or several) are projected on random weights, and
    (f(x + eps·v) − f(x − eps·v)) / 2·eps is compared with ⟨gradient, v⟩ for unit directions v.
    Results that require no grad must not depend on the inputs. ValueError where no input requires
    grad. Returns True; AssertionError shows both numbers, the input and the direction.
    """
    generator = np.random.default_rng(seed)
    outputs, tracked = _outputs(function(*inputs))
    weights = [np.asarray(generator.standard_normal(y.shape)) for y in outputs]
    targets = [x for x in inputs if x.requires_grad]
    if not targets:
        raise ValueError("gradcheck: no input requires grad, so there is nothing to check")
    for x in targets:
        if x.dtype != np.float64:
            raise TypeError(f"gradcheck: inputs must be float64, got {x.dtype}; use x.double()")
    seeds = [from_numpy(w, backend=y.backend) for w, y in zip(weights, outputs, strict=True)]
    found = grad(outputs, targets, seeds, allow_unused=True) if tracked else [None] * len(targets)
    for number, (x, dX) in enumerate(zip(targets, found, strict=True)):
        analytic = np.zeros(x.shape) if dX is None else _array(dX)
        if analytic.shape != x.shape:
            raise AssertionError(f"gradient {number} has shape {analytic.shape}, not {x.shape}")
        for _ in range(directions if x.numel() else 0):
            direction = np.asarray(generator.standard_normal(x.shape))
            direction /= np.linalg.norm(direction)
            slope = _slope(function, inputs, x, direction, weights, eps)
            along = float(np.sum(analytic * direction))
            if not abs(slope - along) <= atol + rtol * max(abs(slope), abs(along)):
                raise AssertionError(
                    f"gradient by input {number}: backward says {along!r}, central differences "
                    f"{slope!r}\ninput:\n{_array(x)!r}\ndirection:\n{direction!r}"
                )
    return True


def gradgradcheck(function: Callable[..., Any], inputs: Sequence[Tensor], **options: Any) -> bool:
    """``gradcheck`` of the gradients of ``function``: by its inputs and the result's gradient."""
    generator = np.random.default_rng(options.get("seed", 0) + 1)
    outputs, tracked = _outputs(function(*inputs))
    if not tracked:
        raise ValueError("gradgradcheck: the results of the function do not require grad")
    dYs = [
        from_numpy(
            np.asarray(generator.standard_normal(y.shape)), backend=y.backend
        ).requires_grad_()
        for y in outputs
    ]
    count = len(inputs)

    def gradients(*everything: Tensor) -> Any:
        given, dYs = everything[:count], everything[count:]
        targets = [x for x in given if x.requires_grad]
        results, _ = _outputs(function(*given))
        found = grad(results, targets, dYs, create_graph=True, allow_unused=True)
        return tuple(dX for dX in found if dX is not None)

    return gradcheck(gradients, [*inputs, *dYs], **options)


def _slope(
    function: Callable[..., Any],
    inputs: Sequence[Tensor],
    x: Tensor,
    direction: np.ndarray,
    weights: list[np.ndarray],
    eps: float,
) -> float:
    """The central difference of the projected results along ``direction``."""
    values = _array(x)

    def projected(step: float) -> float:
        moved = from_numpy(np.asarray(values + step * direction), backend=x.backend)
        moved.requires_grad_()
        outputs, _ = _outputs(function(*[moved if v is x else v for v in inputs]))
        return sum(float(np.sum(_array(y) * w)) for y, w in zip(outputs, weights, strict=True))

    return (projected(eps) - projected(-eps)) / (2 * eps)


def _outputs(results: Any) -> tuple[list[Tensor], bool]:
    """The results that require grad, or, where none does, all: they must not depend on inputs."""
    several = results if isinstance(results, tuple | list) else (results,)
    tracked = [y for y in several if y.requires_grad]
    return tracked or [y for y in several if y.dtype.kind == "f"], bool(tracked)


def _array(x: Any) -> np.ndarray:
    return x.backend.to_numpy(x.array) if isinstance(x, Tensor) else np.asarray(x)
