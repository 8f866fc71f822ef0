"""The IDX and npz readers on files written here byte by byte."""

import gzip
import hashlib
import struct
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tinygrad_mnist.utils.data.idx import (
    DataError,
    UInt8Array,
    idx_header,
    idx_sha256,
    read_idx,
    read_npz,
)

SHAPES = [(5,), (2, 3), (2, 3, 4), (0,), (0, 28, 28)]


def encode(array: UInt8Array) -> bytes:
    """An IDX file, written without the package's own header function."""
    sizes = b"".join(struct.pack(">I", size) for size in array.shape)
    return bytes([0, 0, 8, array.ndim]) + sizes + array.tobytes()


def numbers(*shape: int) -> UInt8Array:
    return np.arange(int(np.prod(shape)), dtype=np.uint8).reshape(shape)


def put(folder: Path, content: bytes, name: str = "some-idx") -> Path:
    path = folder / name
    path.write_bytes(content)
    return path


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("name", ["raw-idx", "packed-idx.gz", "packed-without-suffix"])
def test_reads_every_shape_raw_and_gzip(tmp_path: Path, shape: tuple[int, ...], name: str) -> None:
    array = numbers(*shape)
    content = encode(array) if name.startswith("raw") else gzip.compress(encode(array))

    result = read_idx(put(tmp_path, content, name))

    assert result.dtype == np.uint8
    assert result.shape == shape
    np.testing.assert_array_equal(result, array)
    assert result.flags.c_contiguous
    assert result.flags.writeable


@pytest.mark.parametrize("shape", SHAPES)
def test_header_and_sum_are_those_of_the_raw_file(shape: tuple[int, ...]) -> None:
    array = numbers(*shape)
    raw = encode(array)
    assert idx_header(shape) + array.tobytes() == raw
    assert idx_sha256(array) == hashlib.sha256(raw).hexdigest()


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "is empty; expected an IDX file"),
        (b"\0\0", "begins with 00 00, which is not an IDX file"),
        (b"<!DOCTYPE html>", "begins with 3c 21 44 4f, which is not an IDX file"),
        (encode(numbers(5))[1:], "begins with 00 08 01 00"),
        (b"\0\0\x0d\x01" + struct.pack(">I", 0), "IDX type 0x0d in 1 dimensions"),
        (b"\0\0\x08\x00", "type 0x08 in 0 dimensions; expected unsigned bytes"),
        (b"\0\0\x08\x04" + bytes(16), "in 4 dimensions; expected .* in 1 to 3"),
        (encode(numbers(2, 3, 4))[:15], "truncated, 15 bytes found and 16 expected for the header"),
        (encode(numbers(2, 3, 4))[:-1], "truncated, 39 bytes found and 40 expected"),
        (encode(numbers(2, 3, 4)) + b"\0", "bytes after the end, 41 bytes found and 40 expected"),
        (b"\0\0\x08\x03" + b"\xff" * 12, "truncated, 16 bytes found and 79228162458924105"),
        (b"\0\0\x08\x03" + bytes(4) + b"\xff" * 8, "no array can have the shape"),
    ],
)
@pytest.mark.parametrize("packed", [False, True])
def test_wrong_content_is_named(tmp_path: Path, content: bytes, said: str, packed: bool) -> None:
    path = put(tmp_path, gzip.compress(content) if packed else content)
    with pytest.raises(DataError, match=said) as caught:
        read_idx(path)
    assert str(path) in str(caught.value)


def corrupt_gzip() -> bytes:
    content = bytearray(gzip.compress(encode(numbers(100, 9))))
    content[-6] ^= 0xFF  # in the CRC
    return bytes(content)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "is empty; expected gzip"),
        (encode(numbers(5)), r"begins with 00 00, which is not gzip \(1f 8b\)"),
        (gzip.compress(encode(numbers(100, 9)))[:-12], "ends early, after"),
        (gzip.compress(encode(numbers(5)))[:5], "ends early, after 5 bytes"),
        (corrupt_gzip(), "gzip data is corrupt"),
        (gzip.compress(encode(numbers(5)))[:10] + b"\xff" * 20, "gzip data is corrupt"),
        (gzip.compress(encode(numbers(5))) + b"junk", "gzip data is corrupt"),
    ],
)
def test_wrong_gzip_is_named(tmp_path: Path, content: bytes, said: str) -> None:
    with pytest.raises(DataError, match=said):
        read_idx(put(tmp_path, content, "some-idx.gz"))


def test_a_missing_file_is_an_os_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        read_idx(tmp_path / "absent")
    with pytest.raises(FileNotFoundError):
        read_npz(tmp_path / "absent.npz")


@given(st.binary(max_size=64))
def test_any_bytes_are_an_array_or_a_data_error(
    tmp_path_factory: pytest.TempPathFactory, content: bytes
) -> None:
    folder = tmp_path_factory.mktemp("any")
    for prefix in (b"", b"\0\0\x08", b"\x1f\x8b\x08"):
        path = put(folder, prefix + content)
        try:
            result = read_idx(path)
        except DataError as error:
            assert str(path) in str(error)
        else:
            assert encode(result) == prefix + content


def save_npz(path: Path, arrays: dict[str, Any]) -> Path:
    np.savez(path, **arrays)
    return path


def keras_arrays() -> dict[str, UInt8Array]:
    return {
        "x_train": numbers(3, 28, 28),
        "y_train": numbers(3),
        "x_test": numbers(2, 28, 28),
        "y_test": numbers(2),
    }


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_reads_npz(tmp_path: Path, save: Any) -> None:
    path = tmp_path / "mnist.npz"
    arrays = keras_arrays()
    arrays["x_train"] = np.asfortranarray(arrays["x_train"])
    save(path, **arrays)
    for found, expected in zip(read_npz(path), arrays.values(), strict=True):
        np.testing.assert_array_equal(found, expected)
        assert found.flags.c_contiguous
        assert found.flags.writeable


@pytest.mark.parametrize(
    "content", [b"", b"nothing of the kind", encode(numbers(5)), b"PK\x03\x04 cut off"]
)
def test_a_file_that_is_no_npz_is_named(tmp_path: Path, content: bytes) -> None:
    with pytest.raises(DataError, match=r"not an \.npz archive"):
        read_npz(put(tmp_path, content, "mnist.npz"))


def test_npz_without_its_arrays_lists_what_it_has(tmp_path: Path) -> None:
    path = tmp_path / "mnist.npz"
    np.savez(path, x_train=numbers(3, 28, 28), other=numbers(3))
    with pytest.raises(DataError, match=r"no y_train, x_test, y_test \(found: x_train, other\)"):
        read_npz(path)


@pytest.mark.parametrize(
    ("name", "array", "said"),
    [
        ("x_test", np.zeros((2, 28, 28)), "x_test is float64 of shape .2, 28, 28.; expected uint8"),
        ("x_train", numbers(3, 784), "x_train is uint8 of shape .3, 784.; .* in 3 dimensions"),
        ("y_train", np.zeros(3, dtype=np.int64), "y_train is int64"),
        ("y_test", numbers(2, 1), "y_test is uint8 of shape .2, 1.; .* in 1 dimension;"),
        ("y_test", np.array([{}, {}], dtype=object), "damaged or not plain arrays"),
    ],
)
def test_npz_with_a_wrong_array_is_named(tmp_path: Path, name: str, array: Any, said: str) -> None:
    path = save_npz(tmp_path / "mnist.npz", {**keras_arrays(), name: array})
    with pytest.raises(DataError, match=said):
        read_npz(path)


def test_damaged_npz_is_named(tmp_path: Path) -> None:
    path = save_npz(tmp_path / "mnist.npz", keras_arrays())
    content = bytearray(path.read_bytes())
    content[1000] ^= 0xFF  # in x_train: its CRC no longer fits
    path.write_bytes(content)
    with pytest.raises(DataError, match="damaged"):
        read_npz(path)


def test_npz_whose_member_is_no_array_is_named(tmp_path: Path) -> None:
    path = tmp_path / "mnist.npz"
    with zipfile.ZipFile(path, "w") as archive:
        for name in keras_arrays():
            archive.writestr(f"{name}.npy", "text")
    with pytest.raises(DataError, match=r"x_train is no NumPy array|damaged"):
        read_npz(path)
