"""Classes as vectors."""

from __future__ import annotations

from tinygrad_mnist.checks import INT, checked_integer
from tinygrad_mnist.ops.indexing import integers, placed
from tinygrad_mnist.ops.table import cast, range_like
from tinygrad_mnist.tensor import Tensor


def one_hot(tensor: Tensor, num_classes: int = -1) -> Tensor:
    """1 at the class and 0 elsewhere: int64 (…, num_classes) for integers ``tensor`` (…).

    Where ``num_classes`` is -1 it is the largest class + 1, for which a device must wait.
    IndexError for a class outside 0 … num_classes−1; ValueError for num_classes below 1, or where
    there is nothing to infer it from; TypeError for others than integers.
    """
    classes: Tensor = integers("one_hot", tensor)
    if checked_integer("one_hot", "num_classes", num_classes) == -1 and tensor.numel():
        num_classes = max(0, int(classes.amax().item())) + 1
    if num_classes < 1:
        raise ValueError(
            f"one_hot: expected num_classes above 0, or -1 and a class to infer it from, got "
            f"{num_classes} and a tensor {tuple(tensor.shape)}"
        )
    found = placed("one_hot", classes, num_classes, None).unsqueeze(-1)
    return cast(found == range_like(found, num_classes), INT)
