"""Images of a few pixels as text that stands in a page: digits and weights."""

from __future__ import annotations

import base64
import io
from typing import Any

import numpy as np
import numpy.typing as npt

from tinygrad_mnist.optional import needed

# From one to the other through white, which colour-blind readers tell apart.
BELOW, ZERO, ABOVE = (33, 102, 172), (255, 255, 255), (217, 95, 2)
_UNKNOWN = (128, 128, 128)


def data_uri(png: bytes) -> str:
    """The address of a picture that lies in the page itself."""
    return f"data:image/png;base64,{base64.b64encode(png).decode()}"


def png(pixels: npt.NDArray[np.uint8]) -> bytes:
    """A PNG of greys (H, W) or of red, green, blue (H, W, 3)."""
    with needed("a picture"):
        from PIL import Image  # noqa: PLC0415

    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


def diverging(values: npt.NDArray[np.floating[Any]], limit: float) -> npt.NDArray[np.uint8]:
    """Values (H, W) as colours (H, W, 3): white at 0, ``BELOW`` at -limit, ``ABOVE`` at limit.

    What is beyond the limit has the colour of the limit; NaN is grey.
    """
    part = np.clip(values / limit, -1, 1)[..., None]
    ends = np.where(part < 0, BELOW, ABOVE)
    colours = np.where(np.isnan(part), _UNKNOWN, ZERO + np.abs(part) * (ends - np.array(ZERO)))
    return np.rint(colours).astype(np.uint8)
