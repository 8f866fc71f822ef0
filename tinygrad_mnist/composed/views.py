"""Views made of reshapes, permutations and slices."""

from __future__ import annotations

from functools import lru_cache
from typing import Any, Self

from tinygrad_mnist.checks import checked_dim, checked_dims, filled_in, shape_of
from tinygrad_mnist.kernels import Shape
from tinygrad_mnist.ops.products import Products
from tinygrad_mnist.ops.shapes import dims_of, lies_as, sliced


class Views(Products):
    """The same elements, laid out otherwise."""

    __slots__ = ()

    def view(self, size: Any = (), *more: int) -> Self:
        """``reshape`` that never copies: RuntimeError where it would have to."""
        sizes = filled_in("view", shape_of((size, *more), "view"), self.array.shape)
        if not lies_as(self.array, sizes):
            raise RuntimeError(
                f"view: the tensor of shape {tuple(self.array.shape)} is not contiguous and "
                f"{sizes} takes a copy; use .reshape()"
            )
        return self._seen_as(sizes)

    def transpose(self, dim0: int, dim1: int) -> Self:
        """Two dims swapped: a view."""
        order = list(range(self.array.ndim))
        a = checked_dim("transpose", dim0, self.array.ndim)
        b = checked_dim("transpose", dim1, self.array.ndim)
        if order:
            order[a], order[b] = order[b], order[a]
        return self._turned(tuple(order))

    @property
    def T(self) -> Self:
        """The dims in reverse order: a view."""
        return self._turned(tuple(reversed(range(self.array.ndim))))

    def expand(self, size: Any = (), *more: int) -> Self:
        """Repeated along its dims of size 1, and along new first ones: a view.

        A size of -1 keeps the dim. ValueError where the shapes do not fit.
        """
        sizes = shape_of((size, *more), "expand")
        return self._broadcast(_expanded(sizes, self.array.shape))

    def unsqueeze(self, dim: int) -> Self:
        """With a new dim of size 1 at ``dim``: a view."""
        shape = self.array.shape
        at = checked_dim("unsqueeze", dim, len(shape) + 1)
        return self._seen_as((*shape[:at], 1, *shape[at:]))

    def flip(self, dims: Any, *more: int) -> Self:
        """A copy with the order along ``dims`` reversed. ValueError for a repeated dim."""
        ndim = self.array.ndim
        given = dims_of((dims, *more))
        chosen = checked_dims("flip", given, ndim) if given else ()
        back = slice(None, None, -1)
        index = tuple([back if d in chosen else slice(None) for d in range(ndim)])
        return sliced(self, index).clone()


@lru_cache(maxsize=4096)
def _expanded(sizes: Shape, old: Shape) -> Shape:
    """``sizes`` with each -1 replaced. ValueError where ``old`` does not expand to it."""
    new = len(sizes) - len(old)
    kept = [o if s == -1 else s for s, o in zip(sizes[new:], old, strict=False)]
    fits = new >= 0 and all(k == o or o == 1 for k, o in zip(kept, old, strict=True))
    if not fits or min(sizes[:new], default=0) < 0 or min(kept, default=0) < 0:
        raise ValueError(f"expand: shape {tuple(old)} does not expand to {sizes}")
    return (*sizes[:new], *kept)
