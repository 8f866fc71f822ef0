"""Losses: from predictions and targets to a number, or with ``reduction="none"`` to one for each.

The others are ``"mean"`` and ``"sum"``; anything else is a ValueError.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from tinygrad_mnist.autograd.function import Function
from tinygrad_mnist.autograd.graph import broadcasts_to
from tinygrad_mnist.checks import INT, check_scalars, checked_integer, fit, no_tensor, shown
from tinygrad_mnist.ops import networks
from tinygrad_mnist.ops.indexing import placed
from tinygrad_mnist.ops.pointwise import where
from tinygrad_mnist.ops.table import cast
from tinygrad_mnist.tensor import Tensor

_CLASSES = (INT, np.dtype(np.uint8))

# ---- of numbers


def mse_loss(
    input: Tensor, target: Tensor, reduction: str = "mean", weight: Tensor | None = None
) -> Tensor:
    """(input − target)², times ``weight``; the mean then divides by the weights' sum.

    All of one shape; for others a ValueError, where PyTorch broadcasts ``target`` with a warning:
    (N,) beside (N, 1) would become (N, N). TypeError where neither is of floats.
    """
    _check_pair("mse_loss", input, target, reduction)
    return _weighted("mse_loss", (input - target).square(), weight, reduction)


def l1_loss(
    input: Tensor, target: Tensor, reduction: str = "mean", weight: Tensor | None = None
) -> Tensor:
    """|input − target|, times ``weight``; the mean then divides by the weights' sum.

    The slope at 0 is 0. All of one shape, else ValueError: see ``mse_loss``. TypeError where
    neither is of floats.
    """
    _check_pair("l1_loss", input, target, reduction)
    return _weighted("l1_loss", (input - target).abs(), weight, reduction)


def smooth_l1_loss(
    input: Tensor, target: Tensor, reduction: str = "mean", beta: float = 1.0
) -> Tensor:
    """With d = |input − target|: d² / (2·beta) where d < beta, else d − beta/2.

    Both of one shape, else ValueError: see ``mse_loss``; so for beta < 0. TypeError where neither
    is of floats. Girshick 2015.
    """
    _check_pair("smooth_l1_loss", input, target, reduction)
    check_beta("smooth_l1_loss", beta)
    if beta == 0:
        return l1_loss(input, target, reduction)
    return _reduced(_huber(input - target, beta) / beta, reduction)


def huber_loss(
    input: Tensor,
    target: Tensor,
    reduction: str = "mean",
    delta: float = 1.0,
    weight: Tensor | None = None,
) -> Tensor:
    """With d = |input − target|: d²/2 where d ≤ delta, else delta·(d − delta/2); times ``weight``.

    The mean divides by their number, as in PyTorch. All of one shape, else ValueError: see
    ``mse_loss``; so for delta ≤ 0. TypeError where neither is of floats. Huber 1964.
    """
    _check_pair("huber_loss", input, target, reduction)
    check_delta("huber_loss", delta)
    losses = _huber(input - target, delta)
    if weight is not None:
        losses = _weighted("huber_loss", losses, weight, "none")
    return _reduced(losses, reduction)


def _huber(difference: Tensor, delta: float) -> Tensor:
    """c·(d − c/2) with c = d clamped: no square of a large d, and the slope at 0 is smooth."""
    inner = difference.clamp(-delta, delta)
    return inner * (difference - 0.5 * inner)


# ---- of classes


def cross_entropy(
    input: Tensor,
    target: Tensor,
    weight: Tensor | None = None,
    ignore_index: int = -100,
    reduction: str = "mean",
    label_smoothing: float = 0.0,
) -> Tensor:
    """−log softmax(input)[target] of logits ``input``, over their dim of classes.

    ``input`` (N, C, …) or (C,). ``target``: classes int64 (N, …) or (), or probabilities of the
    shape of ``input``. Unreduced the result has the shape of the classes. A class c counts
    ``weight[c]`` (C,), and the mean divides by what the rows count; of probabilities, by their
    number. Rows of the class ``ignore_index`` do not count: 0 unreduced, NaN the mean where there
    are no others. With ``label_smoothing`` ε a target becomes (1 − ε) · target + ε/C.

    IndexError for another class outside 0 … C−1, TypeError for dtypes, ValueError for shapes, and
    for label_smoothing outside 0 … 1. Szegedy et al. 2016.
    """
    _check_options("cross_entropy", reduction, ignore_index, label_smoothing)
    if weight is None and _plain(input, target):
        rows, classes = input, target
    else:
        _check_classes("cross_entropy", input, target, weight, probabilities=True)
        if target.dtype.kind == "f":
            losses = _of_probabilities(input, target, weight, ignore_index, label_smoothing)
            return _reduced(losses, reduction)
        rows, classes = _rows(input), cast(target.reshape(-1), INT)
    losses, total = networks.cross_entropy(rows, classes, ignore_index)
    if weight is not None:
        shares = _shares(weight, classes, ignore_index)
        losses, total = losses * shares, _or_nan(shares.sum())
    if label_smoothing:
        even = where(classes != ignore_index, _even(rows, weight), 0.0)
        losses = losses * (1 - label_smoothing) + even * label_smoothing
    if reduction == "none":
        return losses.reshape(target.shape)
    return _reduced(losses, reduction, total)


def _plain(input: Tensor, target: Tensor) -> bool:
    """Whether these are (N, C) and (N,) int64, as the kernel takes them."""
    return (
        isinstance(input, Tensor)
        and isinstance(target, Tensor)
        and input.array.ndim == 2
        and target.array.shape == input.array.shape[:1]
        and target.array.dtype == INT
    )


def _rows(input: Tensor) -> Tensor:
    """(N, C, …) or (C,) as (M, C)."""
    if input.ndim > 2:
        input = input.permute(0, *range(2, input.ndim), 1)
    return input.reshape(math.prod(input.shape[:-1]), input.shape[-1])


def _even(rows: Tensor, weight: Tensor | None) -> Tensor:
    """The loss of each row if its target were all classes alike."""
    logs = rows.log_softmax(1)
    return -((logs if weight is None else logs * weight).sum(1) / rows.shape[1])


def _of_probabilities(
    input: Tensor,
    target: Tensor,
    weight: Tensor | None,
    ignore_index: int,
    label_smoothing: float,
) -> Tensor:
    """The cross entropy where ``target`` has a share of each class, unreduced."""
    if ignore_index >= 0:
        raise ValueError(
            f"cross_entropy: ignore_index={ignore_index} is for a target of classes, got "
            f"probabilities, {target.dtype}"
        )
    dim = min(1, input.ndim - 1)
    if label_smoothing:
        target = target * (1 - label_smoothing) + label_smoothing / input.shape[dim]
    parts = input.log_softmax(dim) * target
    if weight is not None:
        parts = parts * weight.reshape((-1,) + (1,) * (input.ndim - dim - 1))
    return -parts.sum(dim)


def nll_loss(
    input: Tensor,
    target: Tensor,
    weight: Tensor | None = None,
    ignore_index: int = -100,
    reduction: str = "mean",
) -> Tensor:
    """−input[target] of log-probabilities ``input`` over their dim of classes.

    ``input`` (N, C, …) or (C,), ``target`` classes int64 (N, …) or (). ``weight``,
    ``ignore_index``, the result's shape and errors: as ``cross_entropy``.
    """
    _check_options("nll_loss", reduction, ignore_index)
    _check_classes("nll_loss", input, target, weight)
    rows, classes = _rows(input), cast(target.reshape(-1), INT)
    counted = classes != ignore_index
    chosen = placed("nll_loss", where(counted, classes, 0), rows.shape[1], dim=1)
    losses: Tensor = where(counted, -rows.gather(1, chosen.unsqueeze(1)).squeeze(1), 0.0)
    shares = cast(counted, input.dtype)
    if weight is not None:
        shares = _shares(weight, classes, ignore_index)
        losses = losses * shares
    if reduction == "none":
        return losses.reshape(target.shape)
    return _reduced(losses, reduction, _or_nan(shares.sum()))


def _shares(weight: Tensor, classes: Tensor, ignore_index: int) -> Tensor:
    """The weight of each row's class, 0 for those that do not count."""
    counted = classes != ignore_index
    return where(counted, weight.gather(0, where(counted, classes, 0)), 0.0)


def _or_nan(total: Tensor) -> Tensor:
    """NaN for 0: what is divided by it is NaN, and NumPy does not warn."""
    return where(total == 0, math.nan, total)


def _check_options(
    name: str, reduction: str, ignore_index: int, label_smoothing: float = 0.0
) -> None:
    check_reduction(name, reduction)
    check_class_options(name, ignore_index, label_smoothing)


def check_class_options(name: str, ignore_index: int, label_smoothing: float = 0.0) -> None:
    """TypeError or ValueError for settings of ``cross_entropy`` that mean nothing."""
    if type(ignore_index) is not int:
        checked_integer(name, "ignore_index", ignore_index)
    check_scalars(name, label_smoothing=label_smoothing)
    if not 0 <= label_smoothing <= 1:
        raise ValueError(f"{name}: label_smoothing must lie in 0 to 1, got {label_smoothing}")


def _check_classes(
    name: str, input: Tensor, target: Tensor, weight: Tensor | None, probabilities: bool = False
) -> None:
    """TypeError or ValueError where they do not fit: ``target`` has classes, or probabilities."""
    _check_tensors(name, input, target)
    if input.dtype.kind != "f":
        raise TypeError(f"{name}: expected float input, got {input.dtype}")
    dim = min(1, input.ndim - 1)
    if input.ndim == 0 or input.shape[dim] == 0:
        raise ValueError(
            f"{name}: expected input (N, C, …) or (C,) of at least one class, got {input.shape}"
        )
    rows = input.shape[:dim] + input.shape[dim + 1 :]
    if probabilities and target.shape == input.shape:
        if target.dtype.kind != "f":
            raise TypeError(
                f"{name}: expected float target of the shape of input, got {target.dtype}; "
                "use target.float()"
            )
    elif target.shape != rows:
        either = f" or probabilities {input.shape}" if probabilities else ""
        raise ValueError(
            f"{name}: expected target of classes {rows}{either} for input {input.shape}, "
            f"got {target.shape}"
        )
    elif target.dtype not in _CLASSES:
        raise TypeError(
            f"{name}: expected int64 target of classes, got {target.dtype}; use target.long()"
        )
    if weight is not None:
        pattern = "input float (N, C, …), weight float (C)"
        fit(name, pattern if dim else "input float (C), weight float (C)", input, weight)


# ---- of probabilities


def binary_cross_entropy(
    input: Tensor, target: Tensor, weight: Tensor | None = None, reduction: str = "mean"
) -> Tensor:
    """−(t·log p + (1 − t)·log(1 − p)) of probabilities p = ``input``, times ``weight``.

    A logarithm below −100 is taken as −100, and the slope by p, (p − t) / (p·(1 − p)), as if its
    divisor were at least 10⁻¹². ``input`` and ``target`` of one shape and float dtype, to which
    ``weight`` broadcasts. A p outside 0 … 1 gives NaN (in PyTorch an error, for which the host
    would have to wait for the device); a t is not looked at.

    ValueError for shapes, TypeError for dtypes.
    """
    check_reduction("binary_cross_entropy", reduction)
    fit("binary_cross_entropy", "input float (…), target float (…)", input, target)
    _check_shapes("binary_cross_entropy", input, target)
    losses = _BinaryCrossEntropy.apply(input, target)
    return _reduced(_spread("binary_cross_entropy", losses, weight), reduction)


class _BinaryCrossEntropy(Function):
    """Its gradient does not follow from the value's logarithms, which are flat below −100."""

    @staticmethod
    def forward(ctx: Any, p: Tensor, target: Tensor) -> Tensor:
        ctx.save_for_backward(p, target)
        return (target - 1) * _log_of_rest(p) - target * _log(p)

    @staticmethod
    def backward(ctx: Any, dY: Tensor) -> tuple[Tensor | None, Tensor | None]:
        p, target = ctx.saved_tensors
        by_p, by_target = ctx.needs_input_grad
        return (
            dY * (p - target) / (p * (1 - p)).clamp(min=1e-12) if by_p else None,
            dY * (_log_of_rest(p) - _log(p)) if by_target else None,
        )


def _log(p: Tensor) -> Tensor:
    """max(log p, −100) without NumPy's warning of a 0."""
    none = p == 0
    return where(none, -100.0, where(none, 1.0, p).log()).clamp(min=-100)


def _log_of_rest(p: Tensor) -> Tensor:
    """max(log(1 − p), −100)."""
    none = p == 1
    return where(none, -100.0, (-where(none, 0.0, p)).log1p()).clamp(min=-100)


def binary_cross_entropy_with_logits(
    input: Tensor,
    target: Tensor,
    weight: Tensor | None = None,
    reduction: str = "mean",
    pos_weight: Tensor | None = None,
) -> Tensor:
    """``binary_cross_entropy`` of p = sigmoid(x) from the logits x = ``input``, for any x.

    −(w·t·log p + (1 − t)·log(1 − p)), times ``weight``, with w = ``pos_weight`` or 1. ``input`` and
    ``target`` of one shape and of floats; ``weight`` and ``pos_weight`` broadcast to it.

    ValueError for shapes, TypeError for dtypes.
    """
    name = "binary_cross_entropy_with_logits"
    check_reduction(name, reduction)
    _check_tensors(name, input, target)
    _check_floats(name, input, target)
    _check_shapes(name, input, target)
    likely = _spread(name, target, pos_weight, "pos_weight")
    positive = input > 0
    # log(1 + e^−|x|), in which −|x| has the slope 1 at 0: with that the sum is smooth there
    smooth = where(positive, -input, input).exp().log1p()
    if pos_weight is not None:
        smooth = (1 - target + likely) * smooth
    losses = where(positive, 1 - target, -likely) * input + smooth
    return _reduced(_spread(name, losses, weight), reduction)


def kl_div(
    input: Tensor, target: Tensor, reduction: str = "mean", log_target: bool = False
) -> Tensor:
    """t·(log t − input) of log-probabilities ``input``, with t = ``target``, or e^target.

    Both of one shape, else ValueError: see ``mse_loss``. A t of 0 adds −0·input; its own slope
    leaves out the logarithm, which has none there (in PyTorch it is NaN). ``reduction`` may also be
    "batchmean", the sum divided by the first size: this, unlike "mean", is the divergence itself.

    TypeError for others than floats. Kullback, Leibler 1951.
    """
    check_reduction("kl_div", reduction, "batchmean")
    _check_tensors("kl_div", input, target)
    _check_floats("kl_div", input, target)
    _check_shapes("kl_div", input, target)
    if log_target:
        losses = target.exp() * (target - input)
    else:
        logs: Tensor = where(target == 0, 1.0, target).log()
        losses = target * logs - target * input
    if reduction != "batchmean":
        return _reduced(losses, reduction)
    batch = len(input) if input.ndim else 1
    return losses.sum() * (1 / batch if batch else math.nan)


# ---- what they share


def check_reduction(name: str, reduction: str, *more: str) -> None:
    """ValueError for what is none of three words, or one ``more``."""
    if reduction not in ("mean", "sum", "none", *more):
        others = "".join(f"{other!r}, " for other in more)
        raise ValueError(
            f"{name}: reduction must be {others}'mean', 'sum' or 'none', got {shown(reduction)}"
        )


def check_beta(name: str, beta: float) -> None:
    """ValueError for a negative beta of ``smooth_l1_loss``, TypeError for no number."""
    check_scalars(name, beta=beta)
    if beta < 0:
        raise ValueError(f"{name}: expected beta of at least 0, got {beta}")


def check_delta(name: str, delta: float) -> None:
    """ValueError for a delta of ``huber_loss`` that is not above 0, TypeError for no number."""
    check_scalars(name, delta=delta)
    if delta <= 0:
        raise ValueError(f"{name}: expected delta above 0, got {delta}")


def _check_tensors(name: str, input: Tensor, target: Tensor) -> None:
    if not isinstance(input, Tensor):
        raise no_tensor(name, "input", input)
    if not isinstance(target, Tensor):
        raise no_tensor(name, "target", target)


def _check_floats(name: str, input: Tensor, target: Tensor) -> None:
    if input.dtype.kind != "f" or target.dtype.kind != "f":
        raise TypeError(
            f"{name}: expected float input and target, got {input.dtype} and {target.dtype}; "
            "cast with .float()"
        )


def _check_shapes(name: str, input: Tensor, target: Tensor) -> None:
    if input.shape != target.shape:
        raise ValueError(
            f"{name}: expected input and target of one shape, "
            f"got input {input.shape}, target {target.shape}"
        )


def _check_pair(name: str, input: Tensor, target: Tensor, reduction: str) -> None:
    """Of tensors that meet in a float dtype."""
    check_reduction(name, reduction)
    _check_tensors(name, input, target)
    _check_shapes(name, input, target)
    if input.dtype.kind != "f" and target.dtype.kind != "f":
        raise TypeError(
            f"{name}: expected floats, got input {input.dtype}, target {target.dtype}; "
            "cast with .float()"
        )


def _weighted(name: str, losses: Tensor, weight: Tensor | None, reduction: str) -> Tensor:
    """``losses`` times ``weight`` of their shape, reduced; the mean is over the weights."""
    if weight is None:
        return _reduced(losses, reduction)
    if not isinstance(weight, Tensor):
        raise no_tensor(name, "weight", weight)
    if weight.shape != losses.shape:
        raise ValueError(
            f"{name}: expected weight of the shape of input {losses.shape}, got {weight.shape}"
        )
    return _reduced(losses * weight, reduction, _or_nan(weight.sum()))


def _spread(name: str, x: Tensor, weight: Tensor | None, what: str = "weight") -> Tensor:
    """``x`` times ``weight``, which broadcasts to its shape."""
    if weight is None:
        return x
    if not isinstance(weight, Tensor):
        raise no_tensor(name, what, weight)
    if not broadcasts_to(weight.shape, x.shape):
        raise ValueError(
            f"{name}: expected {what} that broadcasts to input's shape {x.shape}, "
            f"got {weight.shape}"
        )
    return x * weight


def _reduced(losses: Tensor, reduction: str, total: Tensor | None = None) -> Tensor:
    """As ``reduction`` says; the mean divides by ``total`` where it is given."""
    if reduction == "none":
        return losses
    if reduction == "sum":
        return losses.sum()
    return losses.mean() if total is None else losses.sum() / total
