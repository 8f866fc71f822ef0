"""Files that are whole or not there."""

from __future__ import annotations

import contextlib
import os
import tempfile
from pathlib import Path

_UNFINISHED = ".unfinished"  # ends the names of temporary files


def write_whole(path: str | Path, data: bytes) -> None:
    """Write a file through a temporary one beside it, so that it is never half there.

    It is on the disk when this returns. OSError, with the file's own name, where it cannot be.
    """
    path = Path(path)
    try:
        _replace(path, data)
    except OSError as error:  # which names the temporary file, or none
        raise OSError(error.errno, error.strerror or str(error), str(path)) from error


def _replace(path: Path, data: bytes) -> None:
    handle, temporary = tempfile.mkstemp(_UNFINISHED, f".{path.name}.", path.parent)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, 0o666 & ~_umask())
        os.replace(temporary, path)
        _flush(path.parent)
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(temporary)
        raise


def _flush(folder: Path) -> None:
    """Have the names in ``folder`` on the disk, where the system can."""
    if os.name != "posix":
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        with contextlib.suppress(OSError):  # not every file system does
            os.fsync(handle)
    finally:
        os.close(handle)


def remove_unfinished(folder: Path, name: str) -> None:
    """Remove what a killed program left of ``name``, a pattern, while it wrote it into ``folder``.

    For who knows that nobody writes there now.
    """
    for left in folder.glob(f".{name}.*{_UNFINISHED}"):
        left.unlink(missing_ok=True)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
