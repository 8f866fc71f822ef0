"""What a PyTorch script asks about GPUs before it chooses a device."""

from __future__ import annotations

from tinygrad_mnist.backend import is_usable


def is_available() -> bool:
    """Whether the backend ``cupy`` can run here."""
    return is_usable("cupy")
