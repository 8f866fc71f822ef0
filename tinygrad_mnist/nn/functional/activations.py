"""Activations: functions of each element, and softmin.

``inplace=`` is taken for the sake of scripts written for PyTorch: a new tensor is made either way.
"""

from __future__ import annotations

from typing import Any

from tinygrad_mnist import functions
from tinygrad_mnist.checks import check_scalars, checked_dim, fit, shown
from tinygrad_mnist.ops import pointwise
from tinygrad_mnist.ops.pointwise import where
from tinygrad_mnist.tensor import Tensor


def softmin(input: Tensor, dim: int, *, dtype: Any = None) -> Tensor:
    """e⁻ˣ / Σ e⁻ˣ along ``dim``: softmax(−x), computed as ``dtype``.

    TypeError for others than floats, IndexError for a dim that is not there.
    """
    if dtype is not None and isinstance(input, Tensor):
        input = input.to(dtype=dtype)
    _check("softmin", input)
    checked_dim("softmin", dim, input.ndim)
    return (-input).softmax(dim)


def logsigmoid(input: Tensor) -> Tensor:
    """log(1 / (1 + e⁻ˣ)), exact at both ends. TypeError for others than floats."""
    _check("logsigmoid", input)
    return -_log1p_exp(-input)


def softplus(input: Tensor, beta: float = 1.0, threshold: float = 20.0) -> Tensor:
    """log(1 + e^(beta·x)) / beta, and x itself where beta·x > ``threshold``.

    TypeError for others than floats. Dugas et al. 2001.
    """
    _check("softplus", input, beta=beta, threshold=threshold)
    scaled = input * beta
    return where(scaled > threshold, input, _log1p_exp(scaled) / beta)


def _log1p_exp(x: Tensor) -> Tensor:
    """log(1 + eˣ) = max(x, 0) + log(1 + e^−|x|): no power overflows."""
    top = x.relu()
    size = x.clamp(max=0.0) - top  # −|x|, but of slope 1 at 0, where the top's is 0: a smooth sum
    return top + size.exp().log1p()


def relu(input: Tensor, inplace: bool = False) -> Tensor:
    """max(x, 0), of slope 0 at 0. TypeError for booleans."""
    check_inplace("relu", inplace)
    return functions.relu(input)


def leaky_relu(input: Tensor, negative_slope: float = 0.01, inplace: bool = False) -> Tensor:
    """x where x > 0, else negative_slope · x, which is also the slope at 0.

    TypeError for others than floats. Maas, Hannun, Ng 2013.
    """
    _check("leaky_relu", input, negative_slope=negative_slope)
    check_inplace("leaky_relu", inplace)
    return input.relu() + input.clamp(max=0.0) * negative_slope


def elu(input: Tensor, alpha: float = 1.0, inplace: bool = False) -> Tensor:
    """x where x > 0, else alpha · (eˣ − 1); the slope at 0 is alpha.

    TypeError for others than floats. Clevert, Unterthiner, Hochreiter 2015.
    """
    _check("elu", input, alpha=alpha)
    check_inplace("elu", inplace)
    return input.relu() + input.clamp(max=0.0).expm1() * alpha


def gelu(input: Tensor, approximate: str = "none") -> Tensor:
    """x · Φ(x), with Φ(x) = (1 + erf(x/√2)) / 2 the normal distribution.

    ``approximate="tanh"``: Φ(x) ≈ (1 + tanh(√(2/π) · (x + 0.044715·x³))) / 2. ValueError for
    another word, TypeError for others than floats. Hendrycks, Gimpel 2016.
    """
    _check("gelu", input)
    check_approximate("gelu", approximate)
    return pointwise.gelu(input, approximate=approximate)


def check_approximate(name: str, approximate: str) -> None:
    """ValueError for another word than the two that ``gelu`` takes."""
    if approximate not in ("none", "tanh"):
        raise ValueError(f"{name}: approximate must be 'none' or 'tanh', got {shown(approximate)}")


def silu(input: Tensor, inplace: bool = False) -> Tensor:
    """x · sigmoid(x), also called swish. TypeError for others than floats.

    Elfwing, Uchibe, Doya 2017.
    """
    _check("silu", input)
    check_inplace("silu", inplace)
    return input * input.sigmoid()


def mish(input: Tensor, inplace: bool = False) -> Tensor:
    """x · tanh(log(1 + eˣ)). TypeError for others than floats. Misra 2019."""
    _check("mish", input)
    check_inplace("mish", inplace)
    return input * _log1p_exp(input).tanh()


def hardtanh(
    input: Tensor, min_val: float = -1.0, max_val: float = 1.0, inplace: bool = False
) -> Tensor:
    """x between the bounds, at which the slope is 0 already.

    The bounds of integers are cut to integers. ValueError for min_val > max_val, TypeError for
    booleans, and for unsigned integers with a negative bound. Collobert 2004.
    """
    check_inplace("hardtanh", inplace)
    return _limited("hardtanh", input, min_val, max_val)


def relu6(input: Tensor, inplace: bool = False) -> Tensor:
    """min(max(x, 0), 6); its slope at 0 and at 6 is 0.

    TypeError for booleans. Krizhevsky 2010.
    """
    check_inplace("relu6", inplace)
    return _limited("relu6", input, 0.0, 6.0)


def _limited(name: str, x: Tensor, low: float, high: float) -> Tensor:
    fit(name, "input (…)", x)
    check_bounds(name, low, high)
    kind = x.dtype.kind
    if kind == "b" or (kind == "u" and min(low, high) < 0):
        raise TypeError(f"{name}: expected floats or integers of both signs, got {x.dtype}")
    if kind != "f":
        low, high = int(low), int(high)
    inside = (x > low) & (x < high)
    return where(inside, x, x.detach().clamp(low, high))


def check_bounds(name: str, min_val: float, max_val: float) -> None:
    """ValueError for bounds of ``hardtanh`` in the wrong order, TypeError for no numbers."""
    check_scalars(name, min_val=min_val, max_val=max_val)
    if min_val > max_val:
        raise ValueError(f"{name}: expected min_val <= max_val, got {min_val} and {max_val}")


def check_inplace(name: str, inplace: bool) -> None:
    """TypeError for what is no bool."""
    if not isinstance(inplace, bool):
        raise TypeError(f"{name}: inplace must be True or False, got {shown(inplace)}")


def _check(name: str, x: Any, **numbers: Any) -> None:
    fit(name, "input float (…)", x)
    check_scalars(name, **numbers)
