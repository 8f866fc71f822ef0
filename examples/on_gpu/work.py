"""What a part of the verification is given, and where it puts what it finds."""

import json
import math
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from tinygrad_mnist.kernels import Backend

Found = dict[str, Any]  # plain data, for JSON


@dataclass
class Work:
    """A part under way: ``found`` is what it has found so far, ``save`` keeps that."""

    backend: Backend
    data: str | None = None  # a folder with MNIST's files
    quick: bool = False
    share: tuple[int, int] = (0, 1)  # which of how many processes that divide the part
    found: Found = field(default_factory=dict)
    save: Callable[[], None] = lambda: None
    # What counts transfers and synchronisations: given a backend, a context that gives a dict.
    counted: Callable[[Backend], AbstractContextManager[dict[str, Any]]] | None = None

    def fail(self, line: str) -> None:
        """Something is not as it must be."""
        self.found.setdefault("failures", []).append(line)
        self.save()

    def mine(self, names: Any) -> list[Any]:
        """Those of ``names`` that are of this share."""
        number, of = self.share
        return list(names)[number::of]


def together(found: list[Found]) -> Found:
    """What several shares found, as one: numbers add up, lists and dicts are joined."""
    made: Found = {}
    for each in found:
        for key, value in each.items():
            if key not in made:
                made[key] = value
            elif isinstance(value, dict):
                made[key] = together([made[key], value])
            elif isinstance(value, list | int | float):
                made[key] = made[key] + value
    return made


def as_json(found: Any) -> bytes:
    """As a file; what JSON has no numbers for, NaN and infinities, as text."""
    return (json.dumps(_plain(found), indent=1, ensure_ascii=False) + "\n").encode()


def _plain(x: Any) -> Any:
    if isinstance(x, dict):
        return {str(key): _plain(value) for key, value in x.items()}
    if isinstance(x, list | tuple):
        return [_plain(each) for each in x]
    if isinstance(x, np.generic):
        x = x.item()
    return str(x) if isinstance(x, float) and not math.isfinite(x) else x


def first_lines(error: BaseException) -> str:
    """An error as one line."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    notes = [str(note) for note in getattr(error, "__notes__", ())]
    return "; ".join([": ".join([type(error).__name__, *lines[:1]]), *notes])
