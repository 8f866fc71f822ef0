"""``read_digit``: any picture of a digit comes out the way MNIST has its own."""

import io
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image, ImageChops, ImageDraw, ImageOps

from tinygrad_mnist.utils.data.images import ImageError, read_digit

SIZES = [(9, 9), (28, 28), (30, 200), (400, 300), (3000, 2000)]
Picture = npt.NDArray[np.uint8]


def draw(size: tuple[int, int], ink: int = 0, paper: int = 255) -> Image.Image:
    """A 4 off the centre, its edges soft."""
    width, height = size
    enlarged = 4 if max(size) < 1000 else 1
    image = Image.new("L", (width * enlarged, height * enlarged), paper)
    side = min(width, height) * enlarged
    pen = max(1, round(side * 0.1))
    for stroke in ([(0.5, 0.15), (0.2, 0.6), (0.8, 0.6)], [(0.62, 0.35), (0.55, 0.85)]):
        points = [(x * side, y * side) for x, y in stroke]
        ImageDraw.Draw(image).line(points, fill=ink, width=pen, joint="curve")
    return image.resize(size, Image.Resampling.BOX)


def save(image: Image.Image, path: Path, **options: Any) -> Path:
    image.save(path, **options)
    return path


def mnist_like() -> Picture:
    """A 4 on 0 within 20x20 pixels, its centre of mass at (14, 14) to the nearest pixel."""
    small = np.asarray(draw((20, 20), ink=255, paper=0).crop((3, 2, 17, 18)))
    down, across = np.indices(small.shape)
    top = round(14 - float(np.average(down, weights=small)))
    left = round(14 - float(np.average(across, weights=small)))
    picture = np.zeros((28, 28), dtype=np.uint8)
    picture[top : top + small.shape[0], left : left + small.shape[1]] = small
    return picture


def check_like_mnist(digit: Picture) -> None:
    assert digit.shape == (28, 28)
    assert digit.dtype == np.uint8
    for edge in (digit[0], digit[-1], digit[:, 0], digit[:, -1]):
        assert not edge.any()
    assert digit.max() >= 250
    assert 0.03 < digit.mean() / 255 < 0.3
    rows, columns = np.flatnonzero(digit.any(axis=1)), np.flatnonzero(digit.any(axis=0))
    height, width = rows[-1] - rows[0] + 1, columns[-1] - columns[0] + 1
    assert 19 <= max(height, width) <= 20
    down, across = np.indices(digit.shape)
    assert abs(np.average(down, weights=digit) - 14) < 1
    assert abs(np.average(across, weights=digit) - 14) < 1


def distance(first: Picture, second: Picture) -> float:
    """The mean difference over 20x20 pixels, of 255, where a pixel's shift does not count.

    The centre of mass is rounded to whole pixels, so the least change may move the digit by one.
    """
    steps = (-1, 0, 1)
    shifted = [np.roll(first.astype(float), (i, j), axis=(0, 1)) for i in steps for j in steps]
    return min(float(np.abs(image - second).sum() / 400) for image in shifted)


@pytest.fixture
def reference(tmp_path: Path) -> Picture:
    return read_digit(save(draw((400, 300)), tmp_path / "reference.png"))


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize(("ink", "paper"), [(0, 255), (255, 0), (60, 200), (190, 70)])
def test_sizes_and_polarities(
    tmp_path: Path, size: tuple[int, int], ink: int, paper: int, reference: Picture
) -> None:
    digit = read_digit(save(draw(size, ink, paper), tmp_path / "digit.png"))
    check_like_mnist(digit)
    assert distance(digit, reference) < (40 if min(size) < 20 else 18)


@pytest.mark.parametrize("size", SIZES)
def test_inverted_is_the_same(tmp_path: Path, size: tuple[int, int]) -> None:
    image = draw(size)
    digit = read_digit(save(image, tmp_path / "digit.png"))
    inverted = read_digit(save(ImageOps.invert(image), tmp_path / "inverted.png"))
    assert distance(digit, inverted) < 1


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "LA", "P", "1", "CMYK", "I", "F"])
def test_modes(tmp_path: Path, mode: str, reference: Picture) -> None:
    path = tmp_path / ("digit.tiff" if mode in ("CMYK", "F", "I") else "digit.png")
    digit = read_digit(save(draw((400, 300)).convert(mode), path))
    check_like_mnist(digit)
    assert distance(digit, reference) < 8


@pytest.mark.parametrize("white", [65535, 4095])
def test_sixteen_bits(tmp_path: Path, white: int, reference: Picture) -> None:
    deep = np.asarray(draw((400, 300))) / 255 * white
    image = Image.fromarray(np.rint(deep).astype(np.uint16))
    assert image.mode == "I;16"
    assert distance(read_digit(save(image, tmp_path / "digit.png")), reference) < 1


@pytest.mark.parametrize("quality", [30, 90])
def test_jpeg(tmp_path: Path, quality: int, reference: Picture) -> None:
    digit = read_digit(save(draw((400, 300)), tmp_path / "digit.jpg", quality=quality))
    check_like_mnist(digit)
    assert distance(digit, reference) < 3


@pytest.mark.parametrize("ink", [0, 255])
@pytest.mark.parametrize("hidden", [0, 255])
def test_transparent_background(tmp_path: Path, ink: int, hidden: int, reference: Picture) -> None:
    image = Image.new("L", (400, 300), hidden)
    strokes = draw((400, 300), ink=255, paper=0)
    image.paste(ink, mask=strokes.point(lambda value: 255 * (value > 0)))
    image.putalpha(strokes)
    assert distance(read_digit(save(image, tmp_path / "digit.png")), reference) < 1


@pytest.mark.parametrize(("ink", "paper"), [(0, 255), (255, 0)])
def test_paper_with_a_transparent_margin(
    tmp_path: Path, ink: int, paper: int, reference: Picture
) -> None:
    image = Image.new("RGBA", (500, 380))
    image.paste(draw((400, 300), ink, paper).convert("RGBA"), (60, 50))
    assert distance(read_digit(save(image, tmp_path / "digit.png")), reference) < 1


def test_palette_with_transparency(tmp_path: Path, reference: Picture) -> None:
    image = draw((400, 300)).convert("P")
    paper = image.getpixel((399, 299))
    digit = read_digit(save(image, tmp_path / "digit.png", transparency=paper))
    assert distance(digit, reference) < 3


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation(tmp_path: Path, orientation: int, reference: Picture) -> None:
    turned = {
        2: Image.Transpose.FLIP_LEFT_RIGHT,
        3: Image.Transpose.ROTATE_180,
        4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE,
        6: Image.Transpose.ROTATE_90,
        7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_270,
    }
    image = draw((400, 300))
    if orientation in turned:
        image = image.transpose(turned[orientation])
    exif = Image.Exif()
    exif[0x0112] = orientation
    digit = read_digit(save(image, tmp_path / "digit.jpg", quality=95, exif=exif))
    assert distance(digit, reference) < 4


def photo(size: tuple[int, int], seed: int = 0, noise: float = 6.0) -> Image.Image:
    """Dark ink on grey paper that is brighter to one side and darker in the corners."""
    width, height = size
    x, y = np.meshgrid(np.linspace(-1, 1, width), np.linspace(-1, 1, height))
    light = 170 + 45 * x + 15 * y - 15 * (x * x + y * y)
    reflected = 0.35 + 0.65 * np.asarray(draw(size)) / 255
    grain = np.random.default_rng(seed).normal(0, noise, light.shape)
    return Image.fromarray((light * reflected + grain).clip(0, 255).astype(np.uint8))


@pytest.mark.parametrize("noise", [0.0, 6.0])
def test_uneven_light(tmp_path: Path, noise: float, reference: Picture) -> None:
    image = photo((400, 300), noise=noise)
    digit = read_digit(save(image, tmp_path / "digit.jpg", quality=60))
    check_like_mnist(digit)
    assert distance(digit, reference) < 10


def test_hard_shadow(tmp_path: Path, reference: Picture) -> None:
    grey = np.array(draw((400, 300), ink=30, paper=210))
    grey[:, 330:] -= np.minimum(grey[:, 330:], 50)
    digit = read_digit(save(Image.fromarray(grey), tmp_path / "digit.png"))
    check_like_mnist(digit)
    assert distance(digit, reference) < 10


def test_specks_and_ruled_lines_are_not_the_digit(tmp_path: Path, reference: Picture) -> None:
    lines = Image.new("L", (400, 300), 230)
    for height in range(15, 300, 30):
        ImageDraw.Draw(lines).line([(0, height), (400, height)], fill=190)
    image = ImageChops.darker(lines, draw((400, 300), ink=30))
    pen = ImageDraw.Draw(image)
    for x, y in ((20, 20), (380, 30), (350, 280), (15, 290)):
        pen.ellipse([x, y, x + 4, y + 4], fill=0)
    digit = read_digit(save(image, tmp_path / "digit.png"))
    check_like_mnist(digit)
    assert distance(digit, reference) < 10


@pytest.mark.parametrize("ink", [0, 255])
def test_digit_up_to_the_edge(tmp_path: Path, ink: int, reference: Picture) -> None:
    image = draw((400, 300), ink, 255 - ink)
    cut = image.crop((44, 36, 241, 258))
    assert distance(read_digit(save(cut, tmp_path / "digit.png")), reference) < 6


def test_a_straight_one_keeps_its_shape(tmp_path: Path) -> None:
    image = Image.new("L", (100, 100), 255)
    ImageDraw.Draw(image).rectangle([48, 10, 55, 89], fill=0)
    digit = read_digit(save(image, tmp_path / "digit.png"))
    check_like_mnist(digit)
    assert np.flatnonzero(digit.any(axis=0)).size == 2


@pytest.mark.parametrize("bits", [8, 16])
def test_mnist_comes_back_unchanged(tmp_path: Path, bits: int) -> None:
    picture = mnist_like()
    image = Image.fromarray(picture if bits == 8 else picture.astype(np.uint16) * 257)
    assert np.array_equal(read_digit(save(image, tmp_path / "digit.png")), picture)


def test_inverted_mnist_comes_back_as_mnist(tmp_path: Path) -> None:
    picture = mnist_like()
    path = save(Image.fromarray(255 - picture), tmp_path / "digit.png")
    assert np.array_equal(read_digit(path), picture)


def test_mnist_off_its_place_is_put_right(tmp_path: Path) -> None:
    picture = mnist_like()
    moved = np.roll(picture, (3, -3), axis=(0, 1))
    digit = read_digit(save(Image.fromarray(moved), tmp_path / "digit.png"))
    check_like_mnist(digit)


def test_path_may_be_text(tmp_path: Path) -> None:
    assert read_digit(str(save(draw((40, 30)), tmp_path / "digit.png"))).shape == (28, 28)


def blank(size: tuple[int, int], mode: str, colour: Any) -> Image.Image:
    return Image.new(mode, size, colour)


@pytest.mark.parametrize(
    "image",
    [
        blank((300, 200), "L", 255),
        blank((300, 200), "L", 0),
        blank((28, 28), "RGB", (90, 120, 200)),
        blank((1, 1), "L", 7),
        blank((50, 40), "RGBA", (0, 0, 0, 0)),
        blank((50, 40), "I;16", 30000),
        blank((50, 40), "I;16", 0),
    ],
)
def test_blank(tmp_path: Path, image: Image.Image) -> None:
    with pytest.raises(ImageError, match="nothing stands out"):
        read_digit(save(image, tmp_path / "blank.png"))


def test_blank_paper_with_grain_and_uneven_light(tmp_path: Path) -> None:
    x = np.linspace(0, 60, 400)
    grain = np.random.default_rng(0).normal(0, 8, (300, 400))
    image = Image.fromarray((150 + x + grain).clip(0, 255).astype(np.uint8))
    with pytest.raises(ImageError, match="nothing stands out"):
        read_digit(save(image, tmp_path / "blank.png"))


def test_not_an_image(tmp_path: Path) -> None:
    path = tmp_path / "notes.png"
    path.write_text("this is no picture")
    with pytest.raises(ImageError, match=r"notes\.png: not a picture"):
        read_digit(path)


def test_empty_file(tmp_path: Path) -> None:
    path = tmp_path / "empty.png"
    path.touch()
    with pytest.raises(ImageError, match="not a picture"):
        read_digit(path)


@pytest.mark.parametrize("suffix", ["PNG", "JPEG", "GIF", "TIFF", "BMP"])
def test_truncated(tmp_path: Path, suffix: str) -> None:
    buffer = io.BytesIO()
    photo((200, 150)).save(buffer, suffix)
    content = buffer.getvalue()
    path = tmp_path / f"digit.{suffix}"
    for length in range(40, len(content) * 9 // 10, len(content) // 12):
        path.write_bytes(content[:length])
        with pytest.raises(ImageError):
            read_digit(path)


def test_flipped_bytes_raise_nothing_else(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    path = tmp_path / "digit"
    for suffix in ("PNG", "JPEG", "GIF", "TIFF"):
        buffer = io.BytesIO()
        draw((60, 50)).save(buffer, suffix)
        for _ in range(40):
            content = np.frombuffer(buffer.getvalue(), dtype=np.uint8).copy()
            content[rng.integers(0, content.size, 3)] = rng.integers(0, 256, 3)
            path.write_bytes(content.tobytes())
            try:
                assert read_digit(path).shape == (28, 28)
            except ImageError as error:
                assert "\n" not in str(error)


@pytest.mark.parametrize("side", [10_000, 60_000])
def test_decompression_bomb(tmp_path: Path, side: int) -> None:
    def chunk(kind: bytes, content: bytes) -> bytes:
        checksum = struct.pack(">I", zlib.crc32(kind + content))
        return struct.pack(">I", len(content)) + kind + content + checksum

    header = struct.pack(">IIBBBBB", side, side, 8, 0, 0, 0, 0)
    path = tmp_path / "bomb.png"
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IEND", b""))
    with pytest.raises(ImageError, match="too many to be safe"):
        read_digit(path)


def test_missing_file_and_folder(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        read_digit(tmp_path / "missing.png")
    with pytest.raises(IsADirectoryError):
        read_digit(tmp_path)
