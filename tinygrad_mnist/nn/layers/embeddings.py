"""Embedding: rows of a table."""

from __future__ import annotations

from typing import Any, Self

from tinygrad_mnist.autograd.graph import no_grad
from tinygrad_mnist.checks import checked_integer, fit
from tinygrad_mnist.creation import zeros
from tinygrad_mnist.nn import functional as F
from tinygrad_mnist.nn import init
from tinygrad_mnist.nn.layers.checks import checked_float, checked_size
from tinygrad_mnist.nn.module import Module, Parameter
from tinygrad_mnist.tensor import Tensor


class Embedding(Module):
    """The rows of weight (num_embeddings, embedding_dim) at integers: ``F.embedding``.

    They begin as normal numbers; the row ``padding_idx``, which may count from the end, as zeros,
    and it gets no gradient. ValueError for sizes below 1 and a row that is not there.
    """

    def __init__(
        self,
        num_embeddings: int,
        embedding_dim: int,
        padding_idx: int | None = None,
        *,
        _weight: Parameter | None = None,
        dtype: Any = None,
        backend: Any = None,
    ) -> None:
        super().__init__()
        name = type(self).__name__
        self.num_embeddings = checked_size(name, "num_embeddings", num_embeddings)
        self.embedding_dim = checked_size(name, "embedding_dim", embedding_dim)
        self.padding_idx = self._row(padding_idx)
        shape = (self.num_embeddings, self.embedding_dim)
        if _weight is None:
            dtype = checked_float(name, dtype)
            self.weight = Parameter(zeros(shape, dtype=dtype, backend=backend))
            self.reset_parameters()
        else:
            self.weight = _weight

    @classmethod
    def from_pretrained(
        cls, embeddings: Tensor, freeze: bool = True, padding_idx: int | None = None
    ) -> Self:
        """A layer around ``embeddings`` (rows, features), sharing its memory; not to be trained.

        ``freeze=False`` trains it. ValueError for another shape, TypeError for no tensor of floats.
        """
        fit("from_pretrained", "embeddings float (rows, features)", embeddings)
        weight = Parameter(embeddings, requires_grad=not freeze)
        rows, features = embeddings.shape
        return cls(rows, features, padding_idx, _weight=weight)

    def _row(self, padding_idx: int | None) -> int | None:
        """``padding_idx`` counted from 0."""
        if padding_idx is None:
            return None
        name, count = type(self).__name__, self.num_embeddings
        row = checked_integer(name, "padding_idx", padding_idx)
        if not -count <= row < count:
            raise ValueError(f"{name}: padding_idx must lie in {-count} to {count - 1}, got {row}")
        return row % count

    def reset_parameters(self) -> None:
        """Draw the rows anew."""
        init.normal_(self.weight)
        if self.padding_idx is not None:
            with no_grad():
                self.weight[self.padding_idx] = 0.0

    def forward(self, input: Tensor) -> Tensor:
        """Integers (…) to (…, embedding_dim)."""
        return F.embedding(input, self.weight, self.padding_idx)

    def extra_repr(self) -> str:
        sizes = f"{self.num_embeddings}, {self.embedding_dim}"
        return sizes if self.padding_idx is None else f"{sizes}, padding_idx={self.padding_idx}"
