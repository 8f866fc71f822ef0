"""What a PyTorch script asks about GPUs before it chooses a device."""

from __future__ import annotations

from tinygrad_mnist.backend import BackendError, resolve


def is_available() -> bool:
    """Whether the backend ``cupy`` can run here."""
    try:
        resolve("cupy", "cuda.is_available()")
    except BackendError:
        return False
    return True
