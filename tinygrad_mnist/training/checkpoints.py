"""The last checkpoints of a training, in a folder of their own."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import fields
from pathlib import Path
from typing import Any, NamedTuple

from tinygrad_mnist.optional import needed
from tinygrad_mnist.serialization import ModelFileError, read, read_metadata, save
from tinygrad_mnist.training.loop import Epoch
from tinygrad_mnist.utils.files import remove_unfinished

FORMAT, VERSION = "tinygrad_mnist checkpoint", "1"
KEPT = 3
EPOCH = {each.name for each in fields(Epoch)}
STATE = {"model", "optimizer", "scheduler", "streams", "pass", "epochs", "losses"}
_NAME = re.compile(r"step-(\d+)\.safetensors")
_LOCK = ".lock"


class Checkpoint(NamedTuple):
    """A training's state, and what it is a training of."""

    path: Path
    settings: dict[str, Any]
    state: dict[str, Any]


class Checkpoints:
    """The checkpoints in ``folder``, of which the last three are kept.

    One program at a time may write there: ``with checkpoints.reserved():``.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)

    @contextmanager
    def reserved(self) -> Iterator[None]:
        """Make the folder, and keep others from writing there until the block ends.

        OSError where another does already. A killed program leaves nothing that hinders the next.
        """
        with needed("a folder of checkpoints"):
            from filelock import FileLock, Timeout  # noqa: PLC0415  it takes a while

        self.folder.mkdir(exist_ok=True)
        lock = FileLock(self.folder / _LOCK)
        try:
            lock.acquire(timeout=0)
        except Timeout:
            raise OSError(
                f"another training is writing to {self.folder.parent}; wait for its end, or name "
                "another --out"
            ) from None
        try:
            remove_unfinished(self.folder, "step-*")
            yield
        finally:
            if not self._numbered():
                with suppress(OSError):  # Windows removes no open file
                    (self.folder / _LOCK).unlink()
                    self.folder.rmdir()
            lock.release()

    def save(self, step: int, settings: Mapping[str, Any], state: Mapping[str, Any]) -> Path:
        """Write the checkpoint after ``step``, whole or not at all; older ones than the last go.

        So do those of later steps, which are damaged, and with step 0, where a training begins, all
        others. OSError where it cannot be written; the others are there then as they were.
        """
        path = self.folder / f"step-{step:08d}.safetensors"
        about = {"format": FORMAT, "version": VERSION, "settings": json.dumps(settings)}
        save(state, path, about)
        numbered = self._numbered()
        steps = sorted(numbered)
        old = steps[: max(0, steps.index(step) + 1 - KEPT)]
        for other in (*old, *(s for s in steps if s > step)):
            numbered[other].unlink(missing_ok=True)
        return path

    def drop_beginning(self) -> None:
        """Remove the checkpoint from which a training began that came to nothing."""
        if beginning := self._numbered().get(0):
            beginning.unlink()

    def newest(self, say: Callable[[str], None]) -> Checkpoint | None:
        """The last checkpoint that can be read; None where there is none at all.

        ``say`` is told in a line of each that is damaged. ModelFileError where all are, or the last
        is of another version of this program; OSError where one cannot be read.
        """
        numbered = self._numbered()
        steps = sorted(numbered, reverse=True)
        for step in steps:
            try:
                return _read(numbered[step])
            except _Damaged as error:
                say(f"{error}; taking the one before it" if step != steps[-1] else str(error))
        if numbered:
            raise ModelFileError(
                f"no checkpoint in {self.folder} can be read; train without --resume to begin anew"
            )
        return None

    def _numbered(self) -> dict[int, Path]:
        """The checkpoints by their steps."""
        paths = self.folder.iterdir() if self.folder.is_dir() else ()
        found = (_NAME.fullmatch(path.name) for path in paths if path.is_file())
        return {int(match[1]): self.folder / match[0] for match in found if match}


def _are_epochs(x: Any) -> bool:
    return isinstance(x, list) and all(isinstance(each, dict) and set(each) == EPOCH for each in x)


class _Damaged(ValueError):
    """A file that is no whole checkpoint."""


def _read(path: Path) -> Checkpoint:
    """The checkpoint in a file. _Damaged; ModelFileError where it is of another version."""
    try:
        version = read_metadata(path).get("version", VERSION)
        state, about = read(path) if version == VERSION else ({}, {})
    except ModelFileError as error:
        raise _Damaged(str(error)) from error
    if version != VERSION:
        raise ModelFileError(
            f"{path} is of checkpoint version {version!r}, expected {VERSION!r}; go on with the "
            "tinygrad_mnist that wrote it, or train without --resume"
        )
    try:
        settings = json.loads(about.get("settings", "{}"))
    except (ValueError, RecursionError):
        settings = None
    fits = isinstance(settings, dict) and isinstance(state, dict) and set(state) >= STATE
    if about.get("format") != FORMAT or not fits or not _are_epochs(state["epochs"]):
        raise _Damaged(f"{path} is no checkpoint of a training")
    return Checkpoint(path, settings, state)
