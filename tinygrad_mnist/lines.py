"""Whose call this is: the user's line, the layer, and in the backward pass the forward op."""

from __future__ import annotations

import linecache
import os
import sys
from array import array
from bisect import bisect
from pathlib import Path
from types import FrameType
from typing import Any, NamedTuple

from tinygrad_mnist.dispatch import Call, at, sequence

_PACKAGE = str(Path(__file__).parent) + os.sep
_OF_OPS = tuple(  # functions that are made of ops
    _PACKAGE + os.path.join(*folder, "")
    for folder in [("composed",), ("nn", "functional"), ("nn", "utils")]
)
_LOOP, _COMMANDS = f"{_PACKAGE}training{os.sep}", f"{_PACKAGE}cli.py"


class Line(NamedTuple):
    """A line of a source file."""

    file: str
    number: int

    def __str__(self) -> str:
        """``train.py:31  loss.backward()``, with the text where it can be had."""
        return f"{Path(self.file).name}:{self.number}  {self.text}".rstrip()

    @property
    def text(self) -> str:
        """``loss.backward()``, where it can be had."""
        return shortened(linecache.getline(self.file, self.number).strip(), 60)

    @property
    def place(self) -> str:
        """``/home/me/train.py:31``, as editors find it."""
        return f"{self.file}:{self.number}"


def shortened(text: str, width: int) -> str:
    """``text``, of which what is beyond ``width`` characters is left out."""
    return text if len(text) <= width else f"{text[: width - 1]}…"


def users_line() -> Line:
    """Where the user's code is now: the innermost line on the stack that is not this package's.

    Under a command there is none, and that of the training loop stands for it.
    """
    frame = sys._getframe(1)
    loop: FrameType | None = None
    while frame.f_back is not None and frame.f_code.co_filename.startswith(_PACKAGE):
        if loop is None and frame.f_code.co_filename.startswith(_LOOP):
            loop = frame
        if loop is not None and frame.f_code.co_filename == _COMMANDS:
            return _line_of(loop)
        frame = frame.f_back
    return _line_of(frame)


def users_function() -> str:
    """The function of the package that the user's code is in now, if it is one made of ops.

    "" where it is an op itself, or in a gradient.
    """
    frame = sys._getframe(1)
    found = ""
    while frame.f_back is not None and frame.f_code.co_filename.startswith(_PACKAGE):
        name = frame.f_code.co_name
        if frame.f_code.co_filename.startswith(_OF_OPS) and not name.startswith(("_", "<")):
            found = name
        frame = frame.f_back
    return found


def _line_of(frame: FrameType) -> Line:
    return Line(frame.f_code.co_filename, frame.f_lineno)


class Origin(NamedTuple):
    """An op of the forward pass: its name, where the user called it, and in which layer."""

    op: str
    line: Line | None  # None where nobody watched
    layer: Any  # None outside of all; str() names it


class Origins:
    """Of each call that is observed the op that it belongs to; 16 bytes for each op.

    It takes a number for each op: nodes take theirs from the same row, so that the number of an
    op's node lies between that of its call and that of the next one.
    """

    def __init__(self) -> None:
        self._numbers = array("q")
        self._places = array("q")  # of each number, where its origin is in _origins
        self._known: dict[Origin, int] = {}
        self._origins: list[Origin] = []  # the keys of _known
        self.now: Origin | None = None  # of the calls of the backward pass

    def differentiated(self, node: Any) -> None:
        """The calls of the backward pass are for the gradient of ``node`` from here on, or of
        nothing for None.
        """
        if node is None:
            self.now = None
            return
        at = bisect(self._numbers, node.seq)
        origin = self._origins[self._places[at - 1]] if at else Origin("", None, None)
        self.now = origin._replace(op=node.name)

    def of(self, call: Call) -> Origin | None:
        """The op that ``call`` is, or whose gradient it helps to make, if any."""
        if call.instruction is not None:
            found: Origin | None = call.instruction.origin
            return found
        if call.phase == "backward":
            return self.now
        return self._added(Origin(call.kernel, users_line(), call.layer))

    def applied(self, name: str) -> Origin | None:
        """The custom op ``name``, whose node comes next, or whose gradient it helps to make."""
        phase, _, layer = at()
        return self.now if phase == "backward" else self._added(Origin(name, users_line(), layer))

    def _added(self, origin: Origin) -> Origin:
        if origin not in self._known:
            self._known[origin] = len(self._origins)
            self._origins.append(origin)
        self._numbers.append(next(sequence))
        self._places.append(self._known[origin])
        return origin
