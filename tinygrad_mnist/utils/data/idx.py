"""Readers for the two formats MNIST comes in: IDX files (raw or gzip) and Keras's ``mnist.npz``.

An IDX file is two zero bytes, a byte for the element type, a byte for the number of dimensions,
each dimension as a big-endian uint32, and then the elements in C order.
"""

import gzip
import hashlib
import math
import struct
import zipfile
import zlib
from pathlib import Path

import numpy as np
import numpy.typing as npt

UInt8Array = npt.NDArray[np.uint8]

NPZ_NAMES = ("x_train", "y_train", "x_test", "y_test")

_GZIP_MAGIC = b"\x1f\x8b"
_UNSIGNED_BYTE = 0x08
_MAX_DIMS = 3


class DataError(ValueError):
    """Data that is not what it should be; the message names it and says what to do."""


def read_idx(path: str | Path) -> UInt8Array:
    """Read one IDX file of unsigned bytes with 1 to 3 dimensions, raw or gzip.

    A file is taken for gzip where its content begins like gzip or its name ends in ``.gz``.

    Returns a new uint8 array of the shape in the header: C-contiguous, writable, not shared.
    Raises DataError where the content is no such file, OSError where it cannot be read.
    """
    content = np.fromfile(path, dtype=np.uint8)
    if content[:2].tobytes() == _GZIP_MAGIC or str(path).endswith(".gz"):
        # bytearray: an array over bytes would be read-only
        content = np.frombuffer(bytearray(_gunzip(content.tobytes(), path)), dtype=np.uint8)
    return _parse_idx(content, path)


def read_npz(path: str | Path) -> tuple[UInt8Array, UInt8Array, UInt8Array, UInt8Array]:
    """Read Keras's ``mnist.npz``: the arrays ``x_train``, ``y_train``, ``x_test`` and ``y_test``.

    Returns the four in that order, all uint8, C-contiguous and writable: images (N, H, W) and
    labels (N,). Raises DataError where the file is no such archive, OSError where it cannot be
    read. Never unpickles anything.
    """
    with open(path, "rb") as stream:
        if not zipfile.is_zipfile(stream):
            raise DataError(
                f"{path}: not an .npz archive; expected Keras's mnist.npz; get the file again"
            )
    try:
        with np.load(path, allow_pickle=False) as archive:
            missing = [name for name in NPZ_NAMES if name not in archive.files]
            if missing:
                raise DataError(
                    f"{path}: has no {', '.join(missing)} (found: "
                    f"{', '.join(archive.files) or 'nothing'}); expected {', '.join(NPZ_NAMES)}; "
                    "use Keras's mnist.npz"
                )
            found = {name: archive[name] for name in NPZ_NAMES}
    except DataError:
        raise
    # RuntimeError: an encrypted or unknown compression; ValueError: an array of objects
    except (ValueError, RuntimeError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise DataError(
            f"{path}: damaged or not plain arrays ({_brief(error)}); expected Keras's mnist.npz; "
            "get the file again"
        ) from error
    x_train, y_train, x_test, y_test = (
        _checked_npz_array(found[name], name, path) for name in NPZ_NAMES
    )
    return x_train, y_train, x_test, y_test


def idx_header(shape: tuple[int, ...]) -> bytes:
    """The IDX header of an unsigned-byte array of this shape."""
    return struct.pack(f">HBB{len(shape)}I", 0, _UNSIGNED_BYTE, len(shape), *shape)


def idx_sha256(array: UInt8Array) -> str:
    """The SHA-256, in hex, of the raw IDX file that holds this C-contiguous uint8 array.

    An IDX file has one encoding only, so this is also the sum of the file it was read from.
    """
    digest = hashlib.sha256(idx_header(array.shape))
    digest.update(array.data)
    return digest.hexdigest()


def _gunzip(data: bytes, path: str | Path) -> bytes:
    if not data:
        raise DataError(f"{path}: the file is empty; expected gzip; get the file again")
    if not data.startswith(_GZIP_MAGIC):
        raise DataError(
            f"{path}: begins with {data[:2].hex(' ')}, which is not gzip (1f 8b); "
            "drop .gz from the name of an unpacked file, or get the file again"
        )
    try:
        return gzip.decompress(data)
    except EOFError as error:
        raise DataError(
            f"{path}: the gzip data ends early, after {len(data)} bytes; get the file again"
        ) from error
    except (gzip.BadGzipFile, zlib.error) as error:
        raise DataError(
            f"{path}: the gzip data is corrupt ({_brief(error)}); get the file again"
        ) from error


def _parse_idx(content: UInt8Array, path: str | Path) -> UInt8Array:
    """The array in the bytes of a raw IDX file: a view of them."""
    if not content.size:
        raise DataError(f"{path}: the file is empty; expected an IDX file; get the file again")
    magic = content[:4].tobytes()
    if len(magic) < 4 or magic[:2] != b"\0\0":
        raise DataError(
            f"{path}: begins with {magic.hex(' ')}, which is not an IDX file (00 00 08 and the "
            "number of dimensions); get the file again"
        )
    kind, dims = magic[2:]
    if kind != _UNSIGNED_BYTE or not 1 <= dims <= _MAX_DIMS:
        raise DataError(
            f"{path}: holds IDX type 0x{kind:02x} in {dims} dimensions; expected unsigned bytes "
            f"(0x08) in 1 to {_MAX_DIMS}; use one of the original MNIST files"
        )
    start = 4 + 4 * dims
    if content.size < start:
        raise DataError(
            f"{path}: truncated, {content.size} bytes found and {start} expected for the header "
            "alone; get the file again"
        )
    shape: tuple[int, ...] = struct.unpack(f">{dims}I", content[4:start].tobytes())
    expected = start + math.prod(shape)
    if content.size != expected:
        fault = "truncated" if content.size < expected else "bytes after the end"
        raise DataError(
            f"{path}: {fault}, {content.size} bytes found and {expected} expected from the "
            f"header (shape {shape}); get the file again"
        )
    try:
        return content[start:].reshape(shape)
    except ValueError as error:  # a size of 0 beside one that no array can have
        raise DataError(
            f"{path}: no array can have the shape in its header, {shape}; get the file again"
        ) from error


def _checked_npz_array(array: object, name: str, path: str | Path) -> UInt8Array:
    dims = 3 if name.startswith("x_") else 1
    # an archive may hold files that are no arrays: np.load gives their bytes
    if not isinstance(array, np.ndarray):
        raise DataError(f"{path}: {name} is no NumPy array; use Keras's mnist.npz")
    if array.dtype != np.uint8 or array.ndim != dims:
        raise DataError(
            f"{path}: {name} is {array.dtype} of shape {array.shape}; expected uint8 in "
            f"{dims} dimension{'s' if dims > 1 else ''}; use Keras's mnist.npz"
        )
    return np.ascontiguousarray(array)


def _brief(error: BaseException) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:200]
