"""Reading and writing at indices: the ops that ``composed.selections`` is made of."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

from tinygrad_mnist.autograd.graph import Value
from tinygrad_mnist.autograd.record import Op, define, record
from tinygrad_mnist.checks import INT, no_tensor
from tinygrad_mnist.dispatch import call
from tinygrad_mnist.kernels import Shape
from tinygrad_mnist.ops.reductions import Reductions
from tinygrad_mnist.ops.table import cast, full_like

_NONZERO, _WRAP_INDEX = define("nonzero"), define("wrap_index")
_TAKE: Op = define("take", x=lambda dY, index, x_shape, dim: added(dY, index, x_shape, dim))
_TAKE_GRAD: Op = define("take_grad", dY=lambda dZ, index, dim: taken(dZ, index, dim))
# a copy of x with y, of its dtype, at the int64 index along dim 0; of repeated indices one wins,
# and each gets its gradient
put: Op = define(
    "put",
    x=lambda dZ, index: put(dZ, index, full_like(dZ, 0, ())),
    y=lambda dZ, index: taken(dZ, index, 0),
)


def taken(x: Any, index: Any, dim: int) -> Any:
    """``x`` at the int64 ``index``, of any shape, along ``dim``, whose place its dims take.

    IndexError outside 0 … size−1.
    """
    return record(_TAKE, (x, index), {"dim": dim})


def added(dY: Any, index: Any, shape: Shape, dim: int) -> Any:
    """Zeros of ``shape`` with ``dY`` added at ``index`` along ``dim``: the slope of ``taken``."""
    return record(_TAKE_GRAD, (dY, index), {"shape": shape, "dim": dim})


def put_(x: Value, index: Value, y: Value) -> None:
    """``put`` in place, unrecorded; the caller counts the write."""
    call(x.backend, "put_", (x.array, index.array, y.array))


def overwrite(x: Value, y: Any) -> None:
    """``x`` ← a tensor of its dtype or a number, unrecorded; the caller counts the write."""
    if isinstance(y, Value):
        call(x.backend, "copy_", (x.array, y.array))
    else:
        call(x.backend, "fill_", (x.array,), {"value": y})


def integers(name: str, index: Any) -> Any:
    """``index`` as int64. TypeError for what is no tensor, or not one of signed integers.

    uint8 is refused because PyTorch takes it for a mask and NumPy for places.
    """
    if not isinstance(index, Value):
        raise no_tensor(name, "the index", index)
    if index.array.dtype.kind != "i":
        raise TypeError(
            f"{name}: expected an index of signed integers, got {index.array.dtype}; use .long() "
            "for places, .bool() for a mask"
        )
    return cast(index, INT)


def placed(
    name: str, index: Any, size: int, dim: int | None, wraps: bool = False, step: int = 1
) -> Any:
    """int64 ``index`` into ``dim`` of ``size``, checked, times ``step``.

    ``wraps``: negative ones count from the end. IndexError out of range, which a device may report
    at its next synchronisation.
    """
    low, what = -size if wraps else 0, _described(name, dim, size)
    if not size and index.array.size:  # said at once: a device would have nothing to read there
        raise IndexError(f"{what}: nothing to index, got {index.array.size} indices")
    static = {"size": size, "low": low, "step": step, "what": what}
    return record(_WRAP_INDEX, (index,), static)


@lru_cache(maxsize=4096)
def _described(name: str, dim: int | None, size: int) -> str:
    return name if dim is None else f"{name}: dim {dim} of size {size}"


class Indexing(Reductions):
    """Where a tensor's elements are."""

    __slots__ = ()

    def nonzero(self, as_tuple: bool = False) -> Any:
        """The indices of what is not 0, (count, ndim) int64; ``as_tuple``, one (count,) per dim.

        Its shape depends on data, for which a device must wait.
        """
        x = self.reshape(1) if as_tuple and not self.array.ndim else self
        found: Any = record(_NONZERO, (x,))
        if not as_tuple:
            return found
        columns = found.transpose(0, 1)
        return tuple(columns[dim] for dim in range(x.array.ndim))
