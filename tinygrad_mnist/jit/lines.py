"""The user's line: the innermost on the stack that is not of this package."""

from __future__ import annotations

import linecache
import os
import sys
from pathlib import Path
from typing import NamedTuple

_PACKAGE = str(Path(__file__).parents[1]) + os.sep


class Line(NamedTuple):
    """A line of a source file."""

    file: str
    number: int

    def __str__(self) -> str:
        """``train.py:31  loss.backward()``, with the text where it can be had."""
        text = shortened(linecache.getline(self.file, self.number).strip(), 60)
        return f"{Path(self.file).name}:{self.number}  {text}".rstrip()

    @property
    def place(self) -> str:
        """``/home/me/train.py:31``, as editors find it."""
        return f"{self.file}:{self.number}"


def shortened(text: str, width: int) -> str:
    """``text``, of which what is beyond ``width`` characters is left out."""
    return text if len(text) <= width else f"{text[: width - 1]}…"


def users_line() -> Line:
    """Where the user's code is now."""
    frame = sys._getframe(1)
    while frame.f_back is not None and frame.f_code.co_filename.startswith(_PACKAGE):
        frame = frame.f_back
    return Line(frame.f_code.co_filename, frame.f_lineno)
