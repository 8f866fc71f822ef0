"""What is wrong with this installation, and the line that mends it.

What enters are the folders of a training, what leaves are lines for people and whether a training
could run; the command line calls it. Each check stands by itself: whatever breaks in one is its
finding, so nothing is imported here that may be missing.
"""

from __future__ import annotations

import importlib.metadata
import io
import platform
import re
import shutil
import sys
import tempfile
import textwrap
import tomllib
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import redirect_stderr
from dataclasses import dataclass
from functools import partial
from itertools import chain
from pathlib import Path

import numpy as np

from tinygrad_mnist import __version__, config, driver, machine
from tinygrad_mnist.backend import BackendError, resolve, statuses
from tinygrad_mnist.command import FAILED, reason, writable_folder
from tinygrad_mnist.creation import from_numpy
from tinygrad_mnist.nn import functional
from tinygrad_mnist.optional import MissingPackage
from tinygrad_mnist.utils.data import DataError, sources

OK, HINT, WRONG = "ok", "--", "!!"
WIDTHS = 60, 100  # of the lines, at least and at most
SPACE = 50e6  # bytes that a training may write

KEPT = f"put the files into a folder; train --data FOLDER, or export {config.DATA}=FOLDER"

# The Numba backend's own: NumPy's does without them.
NUMBAS = {"numba", "llvmlite", "scipy", "threadpoolctl", "tbb"}
# What is needed only for data that is fetched, for a progress bar, for predict.
AT_TIMES = {"pooch", "tqdm"}
MODULES = {"Pillow": "PIL", "Jinja2": "jinja2"}  # imported by another name than installed


@dataclass(frozen=True, slots=True)
class Finding:
    """A line of the report. ``mend`` is the line that mends it; ``stops``: no training can run.

    ``provided`` is what a training that can run still depends on.
    """

    mark: str
    what: str
    text: str
    mend: str = ""
    stops: bool = False
    provided: str = ""


Check = Callable[[], Iterable[Finding]]


def examine(data: str | None, out: str, files: Sequence[str] = ()) -> int:
    """Print what each check finds; 1 if a training with these folders could not run, else 0.

    ``data`` and ``out`` are those of ``train``, ``files`` what it writes into ``out``.
    """
    checks = [
        _findings("Python", _python),
        _findings("packages", _packages),
        _findings("variables", _variables),
        _findings("backend", _backends, needed=True),
        _findings("CUDA", _cuda),
        _findings("CuPy", _cupy),
        _findings("data", lambda: _data(data), needed=True),
        _findings("--out", lambda: _out(out, files), needed=True),
        _findings("cache", _caches),
    ]
    stopping: list[str] = []
    provided = ""
    for found in chain.from_iterable(checks):
        print(_shown(found), flush=True)
        provided += found.provided
        if found.stops and found.what not in stopping:
            stopping.append(found.what)
    if stopping:
        print(f"'train' cannot run here; in its way: {', '.join(stopping)}")
        return FAILED
    print(f"'train' can run here{provided}")
    return 0


def _findings(name: str, check: Check, needed: bool = False) -> Iterator[Finding]:
    """What the check finds; what it warns of or says on the error stream is a hint.

    What it raises is wrong.

    ``needed``: a training that met the same error would end.
    """
    said = io.StringIO()
    found: list[Finding] = []
    try:
        with redirect_stderr(said), warnings.catch_warnings(record=True) as warned:
            warnings.simplefilter("always")
            for each in check():
                found.append(each)
    except MissingPackage as error:
        text, _, mend = reason(error).partition("; mend it with: ")
        found.append(Finding(WRONG, name, text, mend, needed))
    except Exception as error:  # noqa: BLE001  in a broken installation anything may be raised
        text = f"this check broke off: {type(error).__name__}: {reason(error)}"
        found.append(Finding(WRONG, name, text, _mended_by(error), needed))
    yield from found
    yield from dict.fromkeys(_warning(name, str(each.message)) for each in warned)
    lines = (line.removeprefix("tinygrad_mnist: ") for line in said.getvalue().splitlines())
    yield from (Finding(HINT, name, line) for line in lines if line)


def _warning(name: str, text: str) -> Finding:
    """The first line of a warning; it may be about a variable."""
    first = text.strip().partition("\n")[0]
    mend = next((f"unset {each}" for each in config.beginning_with("NUMBA_") if each in first), "")
    return Finding(HINT, name, first, mend)


def _mended_by(error: Exception) -> str:
    if isinstance(error, ModuleNotFoundError) and error.name:
        return f"pip install {error.name.partition('.')[0]}"
    return "install the package anew, or report it"


def _shown(found: Finding) -> str:
    """The finding's lines: its text with an indent, and below it what mends it."""
    first = f"{found.mark}  {found.what:<13}  "
    width = max(WIDTHS[0], min(WIDTHS[1], shutil.get_terminal_size((WIDTHS[1], 24)).columns))
    lines = _wrapped(found.text, width - len(first))
    if found.mend:
        lines += _wrapped(f"mend it: {found.mend}", width - len(first))
    return first + f"\n{' ' * len(first)}".join(lines)


def _wrapped(text: str, width: int) -> list[str]:
    return textwrap.wrap(text, width, break_long_words=False, break_on_hyphens=False)


# ---- the checks


def _python() -> Iterator[Finding]:
    yield Finding(OK, "Python", f"{sys.executable} on {machine.described()}")
    yield Finding(OK, "package", f"tinygrad_mnist {__version__} in {Path(__file__).parent}")


def _packages() -> Iterator[Finding]:
    """Those that this one depends on, by what its own metadata say."""
    good = []
    for name, least in _requirements():
        stops = name not in NUMBAS | AT_TIMES
        mend = f"pip install '{name}>={least}'" if least else f"pip install {name}"
        try:
            version = _version(name)
        except ModuleNotFoundError:
            yield Finding(WRONG, name, "not installed", mend, stops)
        except Exception as error:  # noqa: BLE001  a broken package may raise anything
            text = f"importing it fails: {type(error).__name__}: {error}"
            yield Finding(WRONG, name, text, f"{mend} --force-reinstall", stops)
        else:
            if _numbers(version) < _numbers(least):
                text = f"{version}, expected {least} or later"
                yield Finding(WRONG, name, text, mend, stops)
            else:
                good.append(f"{name} {version}")
    yield Finding(OK, "packages", ", ".join(good))


def _version(name: str) -> str:
    """The version of an installed package. ModuleNotFoundError where it is not there."""
    version = importlib.metadata.version(name)
    if name != "tbb":  # a library
        importlib.import_module(MODULES.get(name, name))
    return version


def _numbers(version: str) -> list[int]:
    """``[2, 1, 3]`` for ``2.1.3rc1``."""
    return [int(part) for part in re.findall(r"(?:^|\.)(\d+)", version)]


def _requirements() -> list[tuple[str, str]]:
    """Name and least version of what is needed on this machine, without the extras."""
    found = (
        re.match(r"([\w.-]+)[^;>]*(?:>=([\d.]+))?[^;]*(?:;(.*))?", line) for line in _declared()
    )
    needed = [match.groups("") for match in found if match]
    return [
        (name, least)
        for name, least, marker in needed
        if "extra ==" not in marker
        and (
            "platform_machine" not in marker
            or f"'{platform.machine()}'" in marker.replace('"', "'")
        )
    ]


def _declared() -> list[str]:
    """As in the metadata, or in a checkout that is not installed in its project file."""
    try:
        return importlib.metadata.requires("tinygrad_mnist") or []
    except importlib.metadata.PackageNotFoundError:
        text = (Path(__file__).parents[1] / "pyproject.toml").read_text("utf-8")
        declared: list[str] = tomllib.loads(text)["project"]["dependencies"]
        return declared


def _variables() -> Iterator[Finding]:
    unknown = config.unknown_variables()
    for name in unknown:
        text = f"{name} means nothing here; expected one of {', '.join(sorted(config.KNOWN))}"
        yield Finding(WRONG, "variables", text, f"unset {name}")
    for name, switch in {config.PROFILE: config.profile, config.TF32: config.tf32}.items():
        try:
            switch()
        except ValueError as error:
            yield Finding(WRONG, "variables", str(error), f"unset {name}")
    prefixes = ("TINYGRAD_MNIST_", "NUMBA_")
    known = {k: v for k, v in config.beginning_with(prefixes).items() if k not in unknown}
    set_here = " ".join(f"{name}={value}" for name, value in known.items())
    yield Finding(OK, "variables", set_here or "none of TINYGRAD_MNIST_*, NUMBA_* is set")


def _backends() -> Iterator[Finding]:
    """The one that a training would take, and each that is known, with a product."""
    chosen = None
    try:
        chosen = resolve(config.backend(), f"the variable {config.BACKEND}").name
    except BackendError as error:
        yield Finding(WRONG, "backend", reason(error), f"export {config.BACKEND}=auto", stops=True)
    else:
        text = f"{chosen}, as {config.BACKEND} is {config.backend()!r}"
        yield Finding(OK, "backend", text)
    for status in statuses():
        if status.problem:
            problem, _, mend = status.problem.partition("; mend it with: ")
            absent = status.name == "cupy" and not driver.cupy_may_run()  # it is for a GPU
            mark = HINT if absent and chosen is not None else WRONG
            yield Finding(mark, status.name, f"not usable: {problem}", mend or "install it anew")
        else:
            needed = status.name == chosen
            yield from _findings(status.name, partial(_product, status.name, needed), needed)
            yield from _findings(status.name, partial(_details, status.name))


def _product(name: str, chosen: bool) -> Iterator[Finding]:
    worst = _off(name)
    rounded = name == "cupy" and config.tf32()  # factors of 11 bits
    if worst > (1e-2 if rounded else 1e-5):
        text = f"its products are wrong, by up to {worst:.2g}"
        package = "cupy" if name == "cupy" else "numpy scipy numba"
        mend = f"pip install --force-reinstall {package}"
        yield Finding(WRONG, name, text, mend, chosen)
    else:
        yield Finding(OK, name, "usable, its products are right")


def _details(name: str) -> Iterator[Finding]:
    for key, text in resolve(name).details().items():
        if key in ("compiled", "loaded"):  # by these checks
            continue
        lacks = text.startswith("none") or "cannot be written" in text
        mend = _mended_detail(key, text) if lacks else ""
        yield Finding(HINT if lacks else OK, name, f"{key}: {text}", mend)


def _mended_detail(key: str, text: str) -> str:
    if key == "cache":
        return "export NUMBA_CACHE_DIR=FOLDER, one that can be written"
    if key != "threading layer":
        return ""
    if "NUMBA_DISABLE_JIT" in text:
        return "unset NUMBA_DISABLE_JIT"
    chosen = config.beginning_with("NUMBA_THREADING_LAYER")  # or its _PRIORITY
    return f"unset {' '.join(chosen)}" if chosen else "pip install --force-reinstall numba"


def _off(name: str) -> float:
    """How far a product with a sigmoid is at most from NumPy's in float64."""
    random = np.random.default_rng(0)
    x, weight = (random.uniform(-1, 1, (64, 64)).astype(np.float32) for _ in "xw")
    tensors = (from_numpy(array, backend=name) for array in (x, weight))
    found = functional.linear(*tensors).sigmoid().cpu().numpy()
    expected = 1 / (1 + np.exp(-(x.astype(np.float64) @ weight.T.astype(np.float64))))
    return float(np.abs(found - expected).max())


def _cuda() -> Iterator[Finding]:
    """The driver, asked itself."""
    if driver.library() is None:
        yield Finding(HINT, "CUDA", "no CUDA driver: no GPU backend")
        return
    code = driver.started()
    if code == driver.NO_DEVICE:
        yield Finding(HINT, "CUDA", "a CUDA driver, but no device: no GPU backend")
        return
    if code:
        text = f"the CUDA driver does not start (cuInit gives {code}): no GPU backend"
        yield Finding(WRONG, "CUDA", text, "restart, or install NVIDIA's driver anew")
        return
    major, minor = driver.version() or (0, 0)
    devices = "; ".join(f"device {i}: {what}" for i, what in enumerate(driver.devices()))
    yield Finding(OK, "CUDA", f"driver for CUDA {major}.{minor}; {devices}")


def _cupy() -> Iterator[Finding]:
    """Its version where it is installed; the backend says where it should be."""
    if driver.has_cupy():
        yield Finding(OK, "CuPy", importlib.import_module("cupy").__version__)


def _data(folder: str | None) -> Iterator[Finding]:
    """MNIST read as ``train`` reads it, but that nothing is fetched."""
    chosen = folder if folder is not None else config.data_folder()
    said: list[str] = []
    try:
        found = sources.load("mnist", chosen, report=said.append, download=False)
    except (DataError, OSError) as error:
        problem, _, mend = reason(error).partition("; ")
        if chosen is None:
            text = f"{problem}: 'train' would fetch it"
            refusal = _refusal(sources._cache_folder("mnist"))
            if refusal:
                text += f", and could not keep it ({refusal})"
            mend = (
                f"put the files into a folder, and export {config.DATA}=FOLDER" if refusal else ""
            )
            yield Finding(HINT, "data", text, mend, provided=", if it can fetch the data")
        else:
            yield Finding(WRONG, "data", problem, mend or "name another folder", stops=True)
        return
    counts = f"{len(found.train_labels)} and {len(found.test_labels)} images"
    yield Finding(OK, "data", f"{found.source}: {counts}" + (", as published" if not said else ""))
    yield from (Finding(HINT, "data", line) for line in said)


def _out(out: str, files: Sequence[str]) -> Iterator[Finding]:
    try:
        with writable_folder(out, files) as folder:
            free = shutil.disk_usage(folder).free
            where = folder.resolve()
    except OSError as error:
        problem, _, mend = reason(error).partition("; ")
        mend = mend or "name another --out, which you can write"
        yield Finding(WRONG, "--out", problem, mend, stops=True)
        return
    text = f"{where} can be written, {free / 1e9:,.1f} GB are free"
    if free < SPACE:
        yield Finding(WRONG, "--out", text, "make space there, or name another --out", stops=True)
    else:
        yield Finding(OK, "--out", text)


def _caches() -> Iterator[Finding]:
    """The user's folder for what was fetched, and one that was chosen for compiled kernels."""
    fetched = sources._cache_folder("mnist").parent
    refusal = _refusal(fetched)
    if refusal:
        text = f"{fetched} cannot keep what is fetched: {refusal}"
        mend = f"make it writable, or export {config.DATA}=FOLDER, one with the files"
        yield Finding(HINT, "cache", text, mend)
    else:
        yield Finding(OK, "cache", f"{fetched} keeps what is fetched")
    for name, folder in config.beginning_with("NUMBA_CACHE_DIR").items():
        refusal = _refusal(Path(folder))
        if refusal:
            text = f"{name} is {folder}, which cannot be written: {refusal}"
            yield Finding(WRONG, "cache", text, f"unset {name}")


def _refusal(folder: Path) -> str:
    """Why the folder cannot be written, or made; empty where it can."""
    try:
        there = next(each for each in (folder, *folder.absolute().parents) if each.exists())
        with tempfile.TemporaryFile(dir=there):
            return ""
    except OSError as error:
        return error.strerror or str(error)
