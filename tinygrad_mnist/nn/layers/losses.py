"""The losses of ``nn.functional`` as layers.

``reduction`` is "mean", "sum" or "none" (the loss of each element); a ValueError for another.
Weights are buffers: they move with the layer and are part of its state. PyTorch's outdated
``size_average`` and ``reduce`` are left out.
"""

from __future__ import annotations

from tinygrad_mnist.nn import functional as F
from tinygrad_mnist.nn.functional.losses import (
    check_beta,
    check_class_options,
    check_delta,
    check_reduction,
)
from tinygrad_mnist.nn.module import Module
from tinygrad_mnist.tensor import Tensor


class _Loss(Module):
    """``reduction``, checked."""

    _reductions: tuple[str, ...] = ()  # that it takes beside the usual ones

    def __init__(self, reduction: str = "mean") -> None:
        super().__init__()
        check_reduction(type(self).__name__, reduction, *self._reductions)
        self.reduction = reduction


class _WeightedLoss(_Loss):
    """A loss with a buffer ``weight``."""

    weight: Tensor | None

    def __init__(self, weight: Tensor | None = None, reduction: str = "mean") -> None:
        super().__init__(reduction)
        self.register_buffer("weight", weight)


# ---- of numbers


class MSELoss(_Loss):
    """(input − target)²: ``F.mse_loss``."""

    def forward(self, input: Tensor, target: Tensor) -> Tensor:
        """Two of one shape to a number, or unreduced to that shape."""
        return F.mse_loss(input, target, self.reduction)


class L1Loss(_Loss):
    """|input − target|: ``F.l1_loss``."""

    def forward(self, input: Tensor, target: Tensor) -> Tensor:
        """Two of one shape to a number, or unreduced to that shape."""
        return F.l1_loss(input, target, self.reduction)


class SmoothL1Loss(_Loss):
    """With d = |input − target|: d² / (2·beta) where d < beta, else d − beta/2.

    ``F.smooth_l1_loss``. ValueError for a negative beta. Girshick 2015.
    """

    def __init__(self, reduction: str = "mean", beta: float = 1.0) -> None:
        super().__init__(reduction)
        check_beta("SmoothL1Loss", beta)
        self.beta = beta

    def forward(self, input: Tensor, target: Tensor) -> Tensor:
        """Two of one shape to a number, or unreduced to that shape."""
        return F.smooth_l1_loss(input, target, self.reduction, self.beta)


class HuberLoss(_Loss):
    """With d = |input − target|: d²/2 where d ≤ delta, else delta·(d − delta/2).

    ``F.huber_loss``. ValueError for delta ≤ 0. Huber 1964.
    """

    def __init__(self, reduction: str = "mean", delta: float = 1.0) -> None:
        super().__init__(reduction)
        check_delta("HuberLoss", delta)
        self.delta = delta

    def forward(self, input: Tensor, target: Tensor) -> Tensor:
        """Two of one shape to a number, or unreduced to that shape."""
        return F.huber_loss(input, target, self.reduction, self.delta)


# ---- of classes


class CrossEntropyLoss(_WeightedLoss):
    """−log softmax(input)[target]: ``F.cross_entropy``.

    ``weight`` (C,) is what each class counts; targets of the class ``ignore_index`` do not count;
    ``label_smoothing`` in 0 … 1 is the share of a target that goes to all classes alike.
    """

    def __init__(
        self,
        weight: Tensor | None = None,
        ignore_index: int = -100,
        reduction: str = "mean",
        label_smoothing: float = 0.0,
    ) -> None:
        super().__init__(weight, reduction)
        check_class_options("CrossEntropyLoss", ignore_index, label_smoothing)
        self.ignore_index = ignore_index
        self.label_smoothing = label_smoothing

    def forward(self, input: Tensor, target: Tensor) -> Tensor:
        """Logits (N, C, …) or (C,), and classes int64 (N, …) or (), or probabilities, to a number.

        Unreduced, to the shape of the classes.
        """
        options = (self.weight, self.ignore_index, self.reduction, self.label_smoothing)
        return F.cross_entropy(input, target, *options)


class NLLLoss(_WeightedLoss):
    """−input[target] of log-probabilities: ``F.nll_loss``, with options as ``CrossEntropyLoss``."""

    def __init__(
        self, weight: Tensor | None = None, ignore_index: int = -100, reduction: str = "mean"
    ) -> None:
        super().__init__(weight, reduction)
        check_class_options("NLLLoss", ignore_index)
        self.ignore_index = ignore_index

    def forward(self, input: Tensor, target: Tensor) -> Tensor:
        """Log-probabilities (N, C, …) or (C,) and classes int64 (N, …) or () to a number.

        Unreduced, to the shape of the classes.
        """
        return F.nll_loss(input, target, self.weight, self.ignore_index, self.reduction)


# ---- of probabilities


class BCELoss(_WeightedLoss):
    """−(t·log p + (1 − t)·log(1 − p)), times ``weight``: ``F.binary_cross_entropy``."""

    def forward(self, input: Tensor, target: Tensor) -> Tensor:
        """Probabilities and targets of one shape to a number, or unreduced to that shape."""
        return F.binary_cross_entropy(input, target, self.weight, self.reduction)


class BCEWithLogitsLoss(_WeightedLoss):
    """``BCELoss`` of sigmoid(input), for any input: ``F.binary_cross_entropy_with_logits``.

    ``weight`` is what each element counts, ``pos_weight`` what its share t = 1 counts.
    """

    pos_weight: Tensor | None

    def __init__(
        self,
        weight: Tensor | None = None,
        reduction: str = "mean",
        pos_weight: Tensor | None = None,
    ) -> None:
        super().__init__(weight, reduction)
        self.register_buffer("pos_weight", pos_weight)

    def forward(self, input: Tensor, target: Tensor) -> Tensor:
        """Logits and targets of one shape to a number, or unreduced to that shape."""
        return F.binary_cross_entropy_with_logits(
            input, target, self.weight, self.reduction, self.pos_weight
        )


class KLDivLoss(_Loss):
    """t·(log t − input) of log-probabilities: ``F.kl_div``.

    ``log_target``: the target is log t. ``reduction`` may also be "batchmean", the divergence
    itself. Kullback, Leibler 1951.
    """

    _reductions = ("batchmean",)

    def __init__(self, reduction: str = "mean", log_target: bool = False) -> None:
        super().__init__(reduction)
        self.log_target = log_target

    def forward(self, input: Tensor, target: Tensor) -> Tensor:
        """Two of one shape to a number, or unreduced to that shape."""
        return F.kl_div(input, target, self.reduction, self.log_target)
