"""Dropout. ``inplace=`` is taken as in ``activations``: a new tensor is made either way."""

from __future__ import annotations

from tinygrad_mnist.checks import check_scalars, fit
from tinygrad_mnist.kernels import Shape
from tinygrad_mnist.nn.functional.activations import check_inplace
from tinygrad_mnist.ops import networks
from tinygrad_mnist.tensor import Tensor


def dropout(input: Tensor, p: float = 0.5, training: bool = True, inplace: bool = False) -> Tensor:
    """``input`` with each element zero with probability ``p``, the others divided by 1 − p.

    ``input`` itself where not ``training``. ValueError for p outside 0 … 1, TypeError for others
    than floats in training. Srivastava et al. 2014.
    """
    check_p("dropout", "p", p)
    check_inplace("dropout", inplace)
    fit("dropout", "input float (…)" if training else "input (…)", input)
    return dropped(input, p, input.shape) if training else input


def dropout2d(
    input: Tensor, p: float = 0.5, training: bool = True, inplace: bool = False
) -> Tensor:
    """``dropout`` of whole channels of (N, C, H, W): all of input[n, c] is zero, or none.

    Three dims are (N, C, L), as in PyTorch. ValueError for other dims and for p outside 0 … 1,
    TypeError for others than floats in training. Tompson et al. 2015.
    """
    check_p("dropout2d", "p", p)
    check_inplace("dropout2d", inplace)
    fit("dropout2d", "input float (N, C, L, …)" if training else "input (N, C, L, …)", input)
    if input.ndim > 4:
        raise ValueError(
            f"dropout2d: expected input (N, C, H, W) or (N, C, L), got {tuple(input.shape)}"
        )
    channels = (*input.shape[:2], *(1,) * (input.ndim - 2))
    return dropped(input, p, channels) if training else input


def dropped(x: Tensor, p: float, shape: Shape) -> Tensor:
    """``x`` · a mask of ``shape``."""
    if p == 0:
        return x
    return x * (networks.dropout_mask(x, p, shape) if p < 1 else 0.0)


def check_p(name: str, what: str, p: float) -> None:
    """ValueError for a probability outside 0 … 1, TypeError for no number."""
    check_scalars(name, **{what: p})
    if not 0 <= p <= 1:
        raise ValueError(f"{name}: {what} must lie in 0 to 1, got {p}")
