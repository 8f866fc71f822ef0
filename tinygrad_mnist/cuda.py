"""What a PyTorch script asks about GPUs before it chooses a device, and before it reads a clock."""

from __future__ import annotations

from typing import Self

import numpy as np

from tinygrad_mnist import driver
from tinygrad_mnist.backend import is_usable, resolve


class device(str):
    """A device's name, as ``x.device`` gives it: ``device("cuda", 1)`` is ``"cuda:1"``."""

    __slots__ = ()

    def __new__(cls, name: str, index: int | None = None) -> Self:
        return super().__new__(cls, name if index is None else f"{name}:{index}")


def is_available() -> bool:
    """Whether the backend ``cupy`` can run here."""
    return is_usable("cupy")


def device_count() -> int:
    """How many GPUs the backend ``cupy`` can run on; 0 where it cannot run here."""
    return len(driver.devices()) if is_available() else 0


def synchronize(device: int | str | None = None) -> None:
    """Wait until a GPU has done all that it was asked, the first one or that of a number or name.

    An error that it has met by then is raised, such as a label out of range. BackendError where
    there is no such GPU.
    """
    number = "" if device is None else str(device).removeprefix("cuda").removeprefix(":")
    name = f"cupy:{number}" if number else "cupy"
    backend = resolve(name, f"cuda.synchronize: the device {device!r}")
    backend.to_numpy(backend.asarray(np.zeros(1, np.float32)))
