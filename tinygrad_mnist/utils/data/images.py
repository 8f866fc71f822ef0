"""Reading a picture of one handwritten digit the way MNIST stores its own.

MNIST (LeCun, Bottou, Bengio and Haffner, 1998) has light digits on a dark background, each scaled
to fit a box of 20x20 pixels and placed in 28x28 with its centre of mass at the centre. A model
trained on MNIST expects just that, so ``read_digit`` makes it of any picture:

1. grey values, with transparency laid over white or black, at most 512 pixels a side;
2. the background, a smooth surface that begins as what the border shows, is subtracted: what is
   left is ink;
3. Otsu's threshold finds the strokes, and the box around them, leaving out specks;
4. the box is scaled to 20x20 and moved into place, its grey values kept.
"""

import struct
import warnings
import zlib
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from tinygrad_mnist.optional import needed

if TYPE_CHECKING:
    from PIL.Image import Image

SIZE = 28
BOX = 20
# MNIST's digits have their centre of mass at pixel (14, 14), counted from 0, give or take half.
CENTRE = 14

_LONGEST_SIDE = 512
_WHITE = 255.0
# What white may be in a picture that is not 8 bits deep: of floats, 8, 12 and 16 bits.
_DEPTHS = (1.0, 255.0, 4095.0, 65535.0)
# A difference from the background that is less than this, of 255, is not a digit.
_FAINTEST = 16.0
# Paper and JPEG artefacts: below this share of the ink's strength a pixel counts as background.
_FLOOR = 0.1
# A shadow is fainter than this share of the ink.
_SHADOW = 0.4
# A separate stroke smaller than this share of the largest one is a speck.
_SPECK = 0.05
_NEIGHBOURS = ((-1, -1), (-1, 0), (-1, 1), (0, -1), (0, 1), (1, -1), (1, 0), (1, 1))

# What Pillow's decoders raise for a damaged file, besides its own errors, which are OSErrors.
_DECODE_ERRORS = (
    OSError,
    SyntaxError,
    ValueError,
    EOFError,
    LookupError,
    TypeError,
    ArithmeticError,
    RuntimeError,
    struct.error,
    zlib.error,
)

_Floats = npt.NDArray[np.float64]
_Mask = npt.NDArray[np.bool_]


class ImageError(ValueError):
    """The file is no picture that can be read, or there is no digit in it."""


def read_digit(path: str | Path) -> npt.NDArray[np.uint8]:
    """Read the picture of one digit as MNIST would have it: (28, 28) uint8, light on 0.

    The picture may be of any size, mode and format that Pillow reads, the digit dark on light or
    light on dark; whatever fills most of the border is the background. A 28x28 picture that is
    already as MNIST has them comes back unchanged (or inverted, where it is dark on light).

    The digit should be at least a twentieth as high as the picture is long.

    Raises ``ImageError`` where the file is no picture, is damaged, is too large to be true or shows
    nothing, and ``OSError`` where it cannot be opened (``FileNotFoundError`` and so on).
    """
    grey = _read_grey(Path(path))
    for candidate in (grey, _WHITE - grey):
        if _is_mnist(candidate):
            return np.rint(candidate).astype(np.uint8)
    ink = _ink(grey)
    strokes = _strokes(ink)
    if not strokes.any():
        raise ImageError(
            f"{path}: nothing stands out from the background, expected one digit; "
            "use a picture with more contrast"
        )
    return _place(_shrink(ink[_extent(strokes)]))


# --- from a file to grey values


def _read_grey(path: Path) -> _Floats:
    """Grey values (height, width) from 0 to 255, upright, at most 512 a side."""
    with needed("reading a picture"):
        from PIL import Image, ImageOps, UnidentifiedImageError  # noqa: PLC0415

    with path.open("rb") as file, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # odd metadata is no concern of who asks for a digit
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        try:
            image = _without_colour(ImageOps.exif_transpose(Image.open(file)))
            image.thumbnail((_LONGEST_SIDE, _LONGEST_SIDE), Image.Resampling.BOX)
            return _flatten(image)
        except UnidentifiedImageError as error:
            raise ImageError(
                f"{path}: not a picture in a format that Pillow reads; use a PNG or JPEG"
            ) from error
        except (Image.DecompressionBombWarning, Image.DecompressionBombError) as error:
            raise ImageError(
                f"{path}: more than {Image.MAX_IMAGE_PIXELS} pixels, too many to be safe to read; "
                "make the picture smaller"
            ) from error
        except _DECODE_ERRORS as error:
            raise ImageError(
                f"{path}: damaged or cut off ({error}); save the picture again as PNG"
            ) from error


def _without_colour(image: "Image") -> "Image":
    """The picture in mode L or LA, or in mode F on the scale of 0 to 255 where it was deeper."""
    from PIL import Image  # noqa: PLC0415

    if image.mode.startswith(("I", "F")):
        return Image.fromarray(_eight_bit(np.asarray(image, dtype=np.float32)))
    if "A" in image.getbands() or "transparency" in image.info:
        return image.convert("RGBA").convert("LA")
    return image.convert("L")


def _eight_bit(deep: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Integers of any depth, or floats, on the scale of 0 to 255."""
    deep = np.nan_to_num(deep, posinf=0, neginf=0).clip(0)
    largest = float(deep.max())
    full = next((depth for depth in _DEPTHS if largest <= depth), largest)
    return deep * np.float32(_WHITE / full)


def _flatten(image: "Image") -> _Floats:
    """Grey values (height, width), what is transparent filled in so that the digit shows."""
    values = np.asarray(image, dtype=np.float64)
    if values.ndim == 2:
        return values
    grey, alpha = values[..., 0], values[..., 1] / _WHITE
    if not alpha.any():
        return grey * alpha
    if _is_picture(grey, alpha):
        rows, columns = _extent(alpha > 0.5)
        grey, alpha = grey[rows, columns], alpha[rows, columns]
        behind = float(np.median(grey[alpha > 0.5]))
    else:
        behind = _WHITE if np.average(grey, weights=alpha) < _WHITE / 2 else 0.0
    return grey * alpha + behind * (1 - alpha)


def _is_picture(grey: _Floats, alpha: _Floats) -> bool:
    """Whether the visible part is itself paper with a digit on it, not just the digit's strokes.

    Then it fills a rectangle (the rest is a transparent margin) and has both dark and light in it.
    """
    visible = alpha > 0.5
    if not visible.any():
        return False
    rows, columns = _extent(visible)
    return bool(visible[rows, columns].mean() > 0.9 and np.ptp(grey[visible]) > _WHITE / 4)


def _extent(mask: _Mask) -> tuple[slice, slice]:
    """The rows and the columns of the smallest box around what is set."""
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    return slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1)


# --- from grey values to ink


def _is_mnist(grey: _Floats) -> bool:
    """Whether the picture is 28x28, in a 20x20 box on 0, centred by its centre of mass."""
    if grey.shape != (SIZE, SIZE) or grey.max() < _WHITE / 2:
        return False
    rows, columns = _extent(grey > 0)
    if max(rows.stop - rows.start, columns.stop - columns.start) > BOX:
        return False
    return all(abs(centre - CENTRE) < 1 for centre in _centre_of_mass(grey))


def _centre_of_mass(values: _Floats) -> tuple[float, float]:
    down, across = np.indices(values.shape)
    return float(np.average(down, weights=values)), float(np.average(across, weights=values))


def _ink(grey: _Floats) -> _Floats:
    """How much each pixel differs from the background, from 0 (not at all) to 1 (ink)."""
    difference = grey - _background(grey)
    # To the fifth power, so that many pixels slightly off do not outvote the few of the digit.
    if np.sum(difference**5) < 0:
        difference = -difference
    noise = 1.4826 * float(np.median(np.abs(_border(difference))))
    darkest = float(np.percentile(difference, 99.9))
    threshold = max(_FAINTEST, 5 * noise, _SHADOW * darkest, _otsu(difference.clip(0)))
    strong = difference[difference > threshold]
    if not strong.size:
        return np.zeros_like(grey)
    level = float(np.median(strong))
    floor = max(3 * noise, _FLOOR * level)
    return ((difference - floor) / (level - floor)).clip(0, 1)


def _border(values: _Floats) -> _Floats:
    """The outermost pixels, in one row."""
    return np.concatenate([values[0], values[-1], values[1:-1, 0], values[1:-1, -1]])


def _background(grey: _Floats) -> _Floats:
    """The background's grey at each pixel: a quadratic surface, as light on paper is uneven."""
    rows, columns = (np.linspace(0, side - 1, min(side, 64)).astype(int) for side in grey.shape)
    few = grey[np.ix_(rows, columns)]
    terms = _quadratic_terms(few.shape)
    coefficients = _fit_border(few)
    for _ in range(3):
        distance = np.abs(few.ravel() - terms @ coefficients)
        paper = distance <= _otsu(distance)
        coefficients = _fit(terms[paper], few.ravel()[paper])
    return (_quadratic_terms(grey.shape) @ coefficients).reshape(grey.shape)


def _fit_border(grey: _Floats) -> _Floats:
    """Coefficients of a first surface, from the border alone: a level if most of it is even."""
    border = _border(grey)
    level = np.median(border)
    near = np.abs(border - level) <= 0.1 * np.ptp(grey)
    if near.mean() >= 0.5:
        return np.array([level, 0, 0, 0, 0, 0], dtype=np.float64)
    edge = np.ones(grey.shape, dtype=np.bool_)
    edge[1:-1, 1:-1] = False
    return _fit(_quadratic_terms(grey.shape)[edge.ravel()], grey[edge])


def _quadratic_terms(shape: tuple[int, ...]) -> _Floats:
    """1, x, y, xy, x² and y² at each pixel, (pixels, 6), with x and y from -1 to 1."""
    y, x = np.meshgrid(*(np.linspace(-1, 1, length) for length in shape), indexing="ij")
    terms = (np.ones(shape), x, y, x * y, x * x, y * y)
    return np.stack([term.ravel() for term in terms], axis=1)


def _fit(terms: _Floats, values: _Floats) -> _Floats:
    """Coefficients with the least absolute error, so a stroke across the border has little say.

    Found by least squares repeated with each pixel's weight set to 1 / its last error.
    """
    weights = np.ones_like(values)
    for _ in range(10):
        root = np.sqrt(weights)
        coefficients = np.linalg.lstsq(terms * root[:, None], values * root, rcond=None)[0]
        weights = 1 / np.maximum(np.abs(values - terms @ coefficients), 1.0)
    return np.asarray(coefficients, dtype=np.float64)


def _otsu(values: _Floats) -> float:
    """Otsu's threshold (1979) for values from 0: the two sides of it vary the least."""
    counts, edges = np.histogram(values, bins=256, range=(0, values.max() or 1))
    middles = (edges[:-1] + edges[1:]) / 2
    below = np.cumsum(counts)
    above = values.size - below
    total = np.cumsum(counts * middles)
    with np.errstate(divide="ignore", invalid="ignore"):
        gap = total / below - (total[-1] - total) / above
    between = np.nan_to_num(below * above * gap**2)
    return float(edges[int(np.argmax(between)) + 1])


# --- from ink to the digit's place


def _strokes(ink: _Floats) -> _Mask:
    """The pixels of the digit's strokes with their soft edges, without specks."""
    threshold = max(_otsu(ink), _SHADOW)
    parts = _connected(ink > threshold)
    smallest = max(_SPECK * max(map(len, parts), default=0), ink.size * 1e-4)
    strokes = np.zeros(ink.shape, dtype=np.bool_)
    for part in parts:
        if len(part) >= smallest:
            strokes[tuple(np.transpose(part))] = True
    return _widened(strokes) & (ink > threshold / 2)


def _widened(mask: _Mask) -> _Mask:
    """The mask and the pixels next to it."""
    padded = np.pad(mask, 1)
    height, width = mask.shape
    wide = mask.copy()
    for down, across in _NEIGHBOURS:
        wide |= padded[1 + down : 1 + down + height, 1 + across : 1 + across + width]
    return wide


def _connected(mask: _Mask) -> list[list[tuple[int, int]]]:
    """The pixels that are set, in groups that touch, corner to corner included."""
    left = set(zip(*(axis.tolist() for axis in np.nonzero(mask)), strict=True))
    groups = []
    while left:
        group = [left.pop()]
        for row, column in group:  # grows while it is walked
            touching = {(row + down, column + across) for down, across in _NEIGHBOURS} & left
            left -= touching
            group.extend(touching)
        groups.append(group)
    return groups


def _shrink(digit: _Floats) -> _Floats:
    """The digit scaled, up or down, to 20 pixels on its longer side, from 0 to 1.

    Thin strokes come out faint, so a quarter of the ink is brought to full strength; in MNIST
    itself it is more than a third.
    """
    from PIL import Image  # noqa: PLC0415

    scale = BOX / max(digit.shape)
    height, width = (max(1, round(side * scale)) for side in digit.shape)
    image = Image.fromarray(digit.astype(np.float32))
    small = np.asarray(image.resize((width, height), Image.Resampling.BICUBIC), dtype=np.float64)
    full = float(np.percentile(small[small > _FLOOR * small.max()], 75))
    return (small / full).clip(0, 1)


def _place(digit: _Floats) -> npt.NDArray[np.uint8]:
    """The digit, from 0 to 1, on (28, 28) with its centre of mass as near the centre as it fits."""
    top, left = (
        min(max(round(CENTRE - centre), 0), SIZE - length)
        for centre, length in zip(_centre_of_mass(digit), digit.shape, strict=True)
    )
    picture = np.zeros((SIZE, SIZE), dtype=np.uint8)
    height, width = digit.shape
    picture[top : top + height, left : left + width] = np.rint(digit * 255)
    return picture
