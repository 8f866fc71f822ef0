"""Packages that only some of what this one does needs, and that a machine may be without."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

INSTALLED = {"PIL": "Pillow", "jinja2": "Jinja2"}  # under another name than imported


class MissingPackage(ModuleNotFoundError):
    """A package that is not installed, and the line that installs it."""


@contextmanager
def needed(purpose: str) -> Iterator[None]:
    """MissingPackage where an import in the ``with`` block finds no package for ``purpose``."""
    try:
        yield
    except ModuleNotFoundError as error:
        top = (error.name or "").partition(".")[0]
        package = INSTALLED.get(top, top)
        raise MissingPackage(
            f"{purpose} needs the package {package}, which is not installed; mend it with: "
            f"pip install {package}",
            name=error.name,
        ) from error
