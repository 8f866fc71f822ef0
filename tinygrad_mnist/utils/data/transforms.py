"""Transforms of images: of one, ``transform(image)``, and of a batch, ``transform.batch(images)``.

One image is a PIL image, a uint8 array (H, W) or (H, W, C), or a tensor (C, H, W); a batch is a
tensor (n, C, H, W). Both give the same values, and draw the same random numbers, image by image:
those of the batch that a ``DataLoader`` makes, else of the program's generator.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, TypeGuard

import numpy as np

from tinygrad_mnist import random
from tinygrad_mnist.checks import shown
from tinygrad_mnist.composed.arrangements import pad
from tinygrad_mnist.creation import arange, from_host, tensor
from tinygrad_mnist.ops.indexing import taken
from tinygrad_mnist.ops.networks import take_scaled
from tinygrad_mnist.tensor import Tensor
from tinygrad_mnist.utils.data.dataset import is_number, rows, stands_for
from tinygrad_mnist.utils.data.order import on_backend


class Transform:
    """Base of transforms of whole batches: a subclass has ``apply(images, u)``.

    ``u`` are its random numbers, ``draws`` for each image: (n, draws) float64, uniform in [0, 1),
    on the host. A transform of single images need not be one of these: any function will do. One
    with a ``__call__`` of its own and no ``apply`` takes single images only.
    """

    draws = 0
    whole = True  # whether its parts take whole batches
    scales = False  # whether it makes float32 of uint8

    def __call__(self, image: Any) -> Any:
        result = self.apply(_batch_of_one(self, image), _uniforms(1, self.draws))[0]
        given_bytes = not isinstance(image, Tensor) and result.dtype == np.uint8
        return _as(image, result) if given_bytes else result

    def batch(self, images: Tensor) -> Tensor:
        """The images (n, C, H, W), each transformed; TypeError where it takes single ones only."""
        if not takes_batches(self):
            raise TypeError(f"{type(self).__name__}: {self} takes single images only")
        _check_batch(self, images)
        return self.apply(images, _uniforms(len(images), self.draws))

    def apply(self, images: Tensor, u: np.ndarray) -> Tensor:
        """The images (n, C, H, W) transformed by the random numbers ``u`` (n, draws)."""
        raise NotImplementedError(f"{type(self).__name__} has no apply(images, u)")

    def apply_to_rows(self, images: Tensor, index: np.ndarray, u: np.ndarray) -> Tensor:
        """``apply`` to the images at ``index``, for what can gather them at the same time."""
        return self.apply(rows(images, index), u)

    def __repr__(self) -> str:
        return f"{type(self).__name__}()"


def transformed_rows(transform: Transform, images: Tensor, index: np.ndarray) -> Tensor:
    """``transform.batch(images[index])``, without the copy in between where it scales first."""
    return _applied_to_rows(transform, images, index, _uniforms(len(index), transform.draws))


def takes_batches(transform: Any) -> TypeGuard[Transform]:
    """Whether it does with whole batches what it does with single images."""
    return (
        isinstance(transform, Transform)
        and stands_for(transform, "__call__", "apply", "apply_to_rows")
        and transform.whole
    )


class ToTensor(Transform):
    """uint8 pixels as float32 (C, H, W) from 0 to 1."""

    scales = True
    _scale, _shift = 1 / 255, 0.0

    def apply(self, images: Tensor, u: np.ndarray) -> Tensor:
        return self.apply_to_rows(images, np.arange(len(images)), u)

    def apply_to_rows(self, images: Tensor, index: np.ndarray, u: np.ndarray) -> Tensor:
        if images.dtype != np.uint8:
            raise TypeError(f"ToTensor: expected uint8 pixels, got {images.dtype}; use it once")
        places = on_backend(index, images.backend)
        return take_scaled(images, places, self._scale, self._shift)


class _Normalized(ToTensor):
    """``ToTensor`` and ``Normalize`` of one number in one: pixel / (255 std) − mean / std."""

    def __init__(self, mean: float, std: float) -> None:
        self._scale, self._shift = 1 / (255 * std), -mean / std


class Normalize(Transform):
    """(x − mean) / std of float images; a number, or one for each channel.

    ValueError for unequal lengths, for a std of 0 and below and for what is not finite, and for
    images of another number of channels; TypeError for what is no number, images not of floats.
    """

    def __init__(self, mean: float | Sequence[float], std: float | Sequence[float]) -> None:
        self.mean, self.std = (
            [float(x) for x in _numbers(f"Normalize: {what}", value)]
            for what, value in (("mean", mean), ("std", std))
        )
        if len(self.mean) != len(self.std):
            raise ValueError(
                f"Normalize: got {len(self.mean)} means and {len(self.std)} stds, expected as many"
            )
        if min(self.std) <= 0:
            raise ValueError(f"Normalize: expected stds above 0, got {self.std}")

    def apply(self, images: Tensor, u: np.ndarray) -> Tensor:
        if images.dtype.kind != "f":
            raise TypeError(
                f"Normalize: expected float images, got {images.dtype}; put ToTensor() before it"
            )
        channels = images.shape[1]
        if len(self.mean) not in (1, channels):
            raise ValueError(
                f"Normalize: got {len(self.mean)} means for images of {channels} channels"
            )
        mean, std = (
            from_host(np.array(x, images.dtype)[:, None, None], images.backend, copy=False)
            for x in (self.mean, self.std)
        )
        return (images - mean) / std

    def __repr__(self) -> str:
        return f"Normalize(mean={self.mean}, std={self.std})"


class RandomAffine(Transform):
    """Each image turned, shifted and scaled about its centre, at random.

    - ``degrees``: turned clockwise by an angle from −degrees to degrees, or of the given pair.
    - ``translate`` (a, b): shifted by whole pixels, at most a·W across and b·H down.
    - ``scale`` (a, b): a factor from a to b, larger than 1 for a larger picture.
    - ``fill``: the value outside, of the pixels as they are here: 0 is no background once
      ``Normalize`` has been.

    All are uniform. Pixels are interpolated between four (bilinear), those of integers as floats,
    then rounded. ValueError for a negative number, for a pair that is none, for shares outside
    0 … 1, for factors not above 0 and for a fill that the pixels cannot hold; TypeError for what is
    no number and for bool images.
    """

    draws = 4

    def __init__(
        self,
        degrees: float | Sequence[float],
        translate: Sequence[float] | None = None,
        scale: Sequence[float] | None = None,
        *,
        fill: float | None = 0,
    ) -> None:
        self.degrees = _range("degrees", _turn(degrees))
        self.translate = _pair("translate", (0, 0) if translate is None else translate)
        self.scale = _range("scale", (1, 1) if scale is None else scale)
        self.fill: float = _plain(0 if fill is None else fill)
        if not is_number(self.fill):
            raise TypeError(f"RandomAffine: fill must be a number, got {shown(fill)}")
        if min(self.translate) < 0 or max(self.translate) > 1:
            raise ValueError(f"RandomAffine: translate must be from 0 to 1, got {self.translate}")
        if min(self.scale) <= 0:
            raise ValueError(f"RandomAffine: scale must be above 0, got {self.scale}")

    def apply(self, images: Tensor, u: np.ndarray) -> Tensor:
        dtype, inverses = images.dtype, self._inverses(u, *images.shape[2:])
        if dtype.kind == "b":
            raise TypeError(
                "RandomAffine: expected numbers as pixels, got bool; cast them with .to(dtype)"
            )
        if dtype.kind == "f":
            return _resampled(images, inverses, self.fill)
        if not np.iinfo(dtype).min <= self.fill <= np.iinfo(dtype).max:
            raise ValueError(f"RandomAffine: a fill of {self.fill} is no {dtype} pixel")
        wide = np.result_type(dtype, np.float32)  # float64 for what float32 does not hold
        return _resampled(images.to(wide), inverses, self.fill).round().to(dtype)

    def _inverses(self, u: np.ndarray, height: int, width: int) -> np.ndarray:
        """Where the pixels come from, (n, 4) float64: a, b, c, d of ``_resampled``.

        A pixel p goes to s·R·(p − centre) + centre + shift.
        """
        low, high = self.degrees
        angle = np.radians(low + (high - low) * u[:, 0])
        across, down = (
            np.rint(most * size * (2 * v - 1))
            for most, size, v in zip(self.translate, (width, height), u.T[1:3], strict=True)
        )
        factor = self.scale[0] + (self.scale[1] - self.scale[0]) * u[:, 3]
        a, b = np.cos(angle) / factor, np.sin(angle) / factor
        x, y = (width - 1) / 2, (height - 1) / 2
        c = x - a * (x + across) - b * (y + down)
        d = y + b * (x + across) - a * (y + down)
        return np.stack([a, b, c, d], axis=1)

    def __repr__(self) -> str:
        return (
            f"RandomAffine(degrees={self.degrees}, translate={self.translate}, "
            f"scale={self.scale}, fill={self.fill})"
        )


class Lambda:
    """A function of one image as a transform; a batch goes through it image by image."""

    def __init__(self, function: Callable[[Any], Any]) -> None:
        if not callable(function):
            raise TypeError(f"Lambda: expected a function, got {type(function).__name__}")
        self.function = function

    def __call__(self, image: Any) -> Any:
        return self.function(image)

    def __repr__(self) -> str:
        return f"Lambda({getattr(self.function, '__name__', repr(self.function))})"


class Compose(Transform):
    """Transforms one after the other.

    ``ToTensor`` and a ``Normalize`` of one mean after it are computed as one. Where one of them
    takes single images only, so does this: ``batch`` is a TypeError then.
    """

    def __init__(self, transforms: Sequence[Callable[[Any], Any]]) -> None:
        if not hasattr(transforms, "__iter__"):
            raise TypeError(
                f"Compose: expected a list of transforms, got {type(transforms).__name__}"
            )
        self.transforms = list(transforms)
        for i, transform in enumerate(self.transforms):
            if not callable(transform):
                raise TypeError(
                    f"Compose: expected transforms, got {type(transform).__name__} at position {i}"
                )

    @property
    def whole(self) -> bool:  # type: ignore[override]
        return all(map(takes_batches, self.transforms))

    @property
    def scales(self) -> bool:  # type: ignore[override]
        return any(getattr(part, "scales", False) for part in self.transforms)

    @property
    def draws(self) -> int:  # type: ignore[override]
        return sum(part.draws for part in self.transforms if isinstance(part, Transform))

    def __call__(self, image: Any) -> Any:
        if self.whole:
            return super().__call__(image)
        for stage in _fused(self.transforms):
            image = stage(image)
        return image

    def batch(self, images: Tensor) -> Tensor:
        if not self.whole:
            raise TypeError(f"Compose: one of {self.transforms} takes single images only")
        return super().batch(images)

    def apply(self, images: Tensor, u: np.ndarray) -> Tensor:
        return _chained(_fused(self.transforms), images, u)

    def apply_to_rows(self, images: Tensor, index: np.ndarray, u: np.ndarray) -> Tensor:
        if not self.transforms:
            return rows(images, index)
        first, *rest = _fused(self.transforms)
        images = _applied_to_rows(first, images, index, u[:, : first.draws])
        return _chained(rest, images, u[:, first.draws :])

    def __repr__(self) -> str:
        return f"Compose([{', '.join(map(repr, self.transforms))}])"


# ---- what Compose does


def _fused(transforms: Sequence[Any]) -> list[Any]:
    """The transforms, each ToTensor with the Normalize after it in one where that is one number."""
    stages: list[Any] = []
    for transform in transforms:
        one = type(transform) is Normalize and len(transform.mean) == 1
        if one and stages and type(stages[-1]) is ToTensor:
            stages[-1] = _Normalized(transform.mean[0], transform.std[0])
        else:
            stages.append(transform)
    return stages


def _chained(stages: list[Any], images: Tensor, u: np.ndarray) -> Tensor:
    start = 0
    for stage in stages:
        images = stage.apply(images, u[:, start : start + stage.draws])
        start += stage.draws
    return images


# ---- one image and many


def _applied_to_rows(
    transform: Transform, images: Tensor, index: np.ndarray, u: np.ndarray
) -> Tensor:
    """``apply_to_rows``, but where a subclass has an ``apply`` alone that."""
    if stands_for(transform, "apply", "apply_to_rows"):
        return transform.apply_to_rows(images, index, u)
    return transform.apply(rows(images, index), u)


def _uniforms(count: int, draws: int) -> np.ndarray:
    """(count, draws) numbers in [0, 1): image by image, the same whether of one or many."""
    return random.generator().random((count, draws)) if draws else np.empty((count, 0))


def _check_batch(transform: Transform, images: Any) -> None:
    if not isinstance(images, Tensor):
        raise TypeError(
            f"{type(transform).__name__}: a batch is a tensor, got {type(images).__name__}"
        )
    if images.ndim != 4:
        raise ValueError(
            f"{type(transform).__name__}: expected a batch (n, C, H, W), got {tuple(images.shape)}"
        )


def _batch_of_one(transform: Transform, image: Any) -> Tensor:
    """One image as a tensor (1, C, H, W). TypeError, ValueError for what is none."""
    name = type(transform).__name__
    if isinstance(image, Tensor):
        if image.ndim != 3:
            raise ValueError(f"{name}: expected an image (C, H, W), got {tuple(image.shape)}")
        return image.unsqueeze(0)
    if not hasattr(image, "__array_interface__"):  # as PIL images have
        raise TypeError(
            f"{name}: expected a PIL image, an array or a tensor, got {type(image).__name__}"
        )
    pixels = np.asarray(image)
    if pixels.dtype != np.uint8:
        raise TypeError(
            f"{name}: expected uint8 pixels, got {pixels.dtype}; convert a PIL image with "
            '.convert("L"), give an array of other numbers as a tensor (C, H, W)'
        )
    if pixels.ndim not in (2, 3):
        raise ValueError(f"{name}: expected an image (H, W) or (H, W, C), got {pixels.shape}")
    planes = pixels[None] if pixels.ndim == 2 else pixels.transpose(2, 0, 1)
    return tensor(planes[None])


def _as(image: Any, result: Tensor) -> Any:
    """uint8 pixels (C, H, W) as what ``image`` is: an array (H, W[, C]) or a PIL image."""
    planes = result.numpy()
    pixels = planes[0] if np.ndim(image) == 2 else planes.transpose(1, 2, 0)
    if isinstance(image, np.ndarray):
        return np.ascontiguousarray(pixels)
    from PIL import Image  # noqa: PLC0415

    return Image.fromarray(np.ascontiguousarray(pixels))


# ---- resampling


def _resampled(images: Tensor, inverses: np.ndarray, fill: float) -> Tensor:
    """y[v, u] = x[-b·u + a·v + d, a·u + b·v + c] with (a, b, c, d) of each image, bilinear.

    The pixels are floats. What lies outside is ``fill``, into which the edge pixels fade over one
    pixel.
    """
    n, channels, height, width = images.shape
    backend = images.backend
    framed = pad(images, (1, 1, 1, 1), value=fill)
    kind = framed.dtype
    across = arange(width, dtype=kind, backend=backend)
    down = arange(height, dtype=kind, backend=backend).reshape(-1, 1)
    moves = inverses.T.astype(kind, order="C")[..., None, None, None]
    a, b, c, d = from_host(moves, backend, copy=False).unbind()
    left, right = _neighbours(a * across + (b * down + c), width)
    top, bottom = _neighbours((a * down + d) - b * across, height)
    planes = arange(n * channels, backend=backend).reshape(n, channels, 1, 1)
    corner = (top * (width + 2) + left).long() + planes * ((height + 2) * (width + 2))
    flat = framed.reshape(-1)

    def row(start: Tensor) -> Tensor:
        first = taken(flat, start, 0)
        return first + right * (taken(flat, start + 1, 0) - first)

    upper = row(corner)
    return upper + bottom * (row(corner + (width + 2)) - upper)


def _neighbours(x: Tensor, size: int) -> tuple[Tensor, Tensor]:
    """The index in a frame of one pixel of the pixel before ``x``, and the share of the next one.

    Far outside, both are of the frame.
    """
    x = x.clamp(-1, size)
    before = x.floor().clamp_max(size - 1)
    return before + 1, x - before


# ---- settings


def _numbers(name: str, value: Any) -> list[float]:
    """The numbers of a sequence, an array or a tensor, or the one that ``value`` is."""
    given = _plain(value)
    numbers = [_plain(x) for x in given] if isinstance(given, Sequence) else [given]
    if not all(map(is_number, numbers)):
        raise TypeError(f"{name} must be finite numbers, got {shown(value)}")
    if not numbers or not all(map(math.isfinite, numbers)):
        raise ValueError(f"{name} must be finite numbers, got {shown(value)}")
    return numbers


def _plain(value: Any) -> Any:
    """Python's numbers of NumPy's and of a tensor."""
    return value.tolist() if isinstance(value, np.generic | np.ndarray | Tensor) else value


def _turn(degrees: Any) -> Any:
    """The range of angles that one number says; others as they are."""
    degrees = _plain(degrees)
    if not isinstance(degrees, int | float):
        return degrees
    if degrees < 0:
        raise ValueError(f"RandomAffine: degrees must be at least 0, or a pair, got {degrees}")
    return -degrees, degrees


def _pair(what: str, value: Any) -> tuple[float, float]:
    numbers = _numbers(f"RandomAffine: {what}", value)
    if len(numbers) != 2:
        raise ValueError(f"RandomAffine: {what} must be two finite numbers, got {shown(value)}")
    return numbers[0], numbers[1]


def _range(what: str, value: Any) -> tuple[float, float]:
    low, high = _pair(what, value)
    if low > high:
        raise ValueError(f"RandomAffine: {what} must go from a lower to a higher, got {value!r}")
    return low, high
