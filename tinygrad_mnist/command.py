"""What a command does around its job: its options, its folder, its errors as one line.

The command line and the scripts in ``examples/`` call it. ``finish`` takes a function that does the
job and returns its exit code, and gives what the process should exit with.
"""

from __future__ import annotations

import argparse
import io
import math
import os
import signal
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np

from tinygrad_mnist import config
from tinygrad_mnist.backend import BackendError, resolve, set_backend
from tinygrad_mnist.optional import MissingPackage
from tinygrad_mnist.serialization import ModelFileError
from tinygrad_mnist.utils.data import DataError
from tinygrad_mnist.utils.data.images import ImageError

FAILED, INTERRUPTED = 1, 130
# What a job can fail with; anything else is a bug and shows its traceback.
EXPECTED: tuple[type[Exception], ...] = (BackendError, DataError, ImageError, ModelFileError)
EXPECTED += (MissingPackage, FloatingPointError, MemoryError, OSError)


def finish(job: Callable[[], int]) -> int:
    """Do the job and return the exit code.

    What a job can fail with becomes the line ``error: …`` and exit code 1, Ctrl-C the line
    ``interrupted`` and 130; a pipe that nobody reads any more ends it quietly, with 1.
    """
    try:
        _escape_unprintable()
        # A loss that overflows is told once, by who trains or by the nan in a table.
        with np.errstate(all="ignore"):
            code = job()
        if sys.stdout is not None:
            sys.stdout.flush()
        return code
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return INTERRUPTED
    except BrokenPipeError:
        # Whoever read our output has gone; what is still buffered goes nowhere, quietly.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return FAILED
    except EXPECTED as error:
        print(f"error: {reason(error)}", file=sys.stderr)
        return FAILED


def reason(error: Exception) -> str:
    """What went wrong, a file's trouble as Unix tools say it, and where."""
    text = str(error)
    if isinstance(error, OSError) and error.filename is not None and error.strerror:
        text = f"{error.filename}: {error.strerror}"
    return "; ".join([text, *getattr(error, "__notes__", ())])


def _escape_unprintable() -> None:
    """A file's name may hold what the encoding of the output lacks: show it as ``\\udcff``."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper) and stream.errors == "strict":
            stream.reconfigure(errors="backslashreplace")


@contextmanager
def writable_folder(path: str | Path, files: Sequence[str] = ()) -> Iterator[Path]:
    """The output folder, made if it is not there, and gone again if nothing was put into it.

    OSError where it cannot be written, or holds a folder under the name of one of ``files``.
    """
    folder = Path(path)
    made: list[Path] = []  # the innermost first
    try:
        try:
            made += [each for each in (folder, *folder.parents) if not each.exists()]
            folder.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=folder):
                pass
        except OSError as error:
            raise OSError(f"cannot write to --out {folder}: {error.strerror or error}") from error
        for name in files:
            if (folder / name).is_dir():
                raise OSError(
                    f"cannot write to --out {folder}: {name} is a folder there; "
                    "remove it or name another --out"
                )
        yield folder
    finally:
        with suppress(OSError):  # a folder that is not empty stays, and those around it
            for each in made:
                each.rmdir()


@contextmanager
def stoppable() -> Iterator[Callable[[], int]]:
    """A function that gives the signal by which somebody asked to stop, or 0: Ctrl-C or SIGTERM.

    What runs in the block looks there where it can stop in good order. A second signal does not
    wait for that: it raises KeyboardInterrupt. A signal that is ignored stays so.
    """
    asked: list[int] = []

    def ask(number: int, frame: Any) -> None:
        if asked:
            raise KeyboardInterrupt
        asked.append(number)

    before: dict[int, Any] = {}
    if threading.current_thread() is threading.main_thread():  # no other may set handlers
        for each in (signal.SIGINT, signal.SIGTERM):
            if signal.getsignal(each) not in (signal.SIG_IGN, None):
                before[each] = signal.signal(each, ask)
    try:
        yield lambda: asked[0] if asked else 0
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


# ---- options


def add_backend(parser: argparse.ArgumentParser) -> None:
    """The option ``--backend``; ``choose_backend`` acts on it."""
    parser.add_argument(
        "--backend", metavar="NAME", help=f"default: {config.BACKEND}, else the best usable"
    )


def choose_backend(arguments: argparse.Namespace) -> None:
    """Make the backend that ``--backend`` names the current one. BackendError where it cannot."""
    if getattr(arguments, "backend", None):
        set_backend(resolve(arguments.backend, "--backend"))


def add_data(parser: argparse.ArgumentParser) -> None:
    """The option ``--data``."""
    parser.add_argument(
        "--data",
        metavar="DIR",
        help=f"a folder with the IDX files or mnist.npz; default: {config.DATA}, else fetched",
    )


def add_seed(parser: argparse.ArgumentParser, default: int | None = 0) -> None:
    """The option ``--seed``; a ``default`` of None tells who then takes 0 that it was not given."""
    parser.add_argument("--seed", type=_seed, default=default, metavar="N", help="default: 0")


def add_jit(parser: argparse.ArgumentParser, default: bool | None = True) -> None:
    """The option ``--no-jit``: ``jit`` is False with it, else the ``default``."""
    parser.add_argument(
        "--no-jit",
        dest="jit",
        action="store_false",
        default=default,
        help="run the Python code of every step, in place of replaying its kernels",
    )


def count(text: str) -> int:
    """An option's type: a whole number of at least 1."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"expected a whole number of at least 1, got {text!r}")
    return int(text)


def rate(text: str) -> float:
    """An option's type: a finite number above 0."""
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not (math.isfinite(value) and value > 0):
        raise argparse.ArgumentTypeError(f"expected a number above 0, got {text!r}")
    return value


def _seed(text: str) -> int:
    if not text.isdecimal() or int(text) >= 2**64:
        raise argparse.ArgumentTypeError(f"expected a whole number from 0 to 2**64-1, got {text!r}")
    return int(text)
