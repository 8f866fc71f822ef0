"""Transforms: their values, of one image and of many, and their random numbers."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from PIL import Image
from strict_backend import StrictBackend, transfers

import tinygrad_mnist as tg
from tinygrad_mnist.kernels import Backend
from tinygrad_mnist.utils.data import DataLoader, transforms
from tinygrad_mnist.utils.data.transforms import (
    Compose,
    Lambda,
    Normalize,
    RandomAffine,
    ToTensor,
    transformed_rows,
)

AFFINE = RandomAffine(30, (0.1, 0.2), (0.7, 1.4))
MEANS = ((0.1, 0.2, 0.3), (0.5, 0.6, 0.7))


def pixels(*shape: int) -> np.ndarray:
    return np.random.default_rng(sum(shape)).integers(0, 256, shape, dtype=np.uint8)


# ---- values


@pytest.mark.parametrize(
    ("image", "planes"),
    [
        (pixels(5, 4), pixels(5, 4)[None]),
        (pixels(5, 4, 3), pixels(5, 4, 3).transpose(2, 0, 1)),
        (Image.fromarray(pixels(5, 4)), pixels(5, 4)[None]),
        (Image.fromarray(pixels(5, 4, 3)), pixels(5, 4, 3).transpose(2, 0, 1)),
    ],
)
def test_pixels_become_numbers_from_0_to_1(image: Any, planes: np.ndarray) -> None:
    found = ToTensor()(image)
    assert (found.dtype, found.shape) == (np.float32, planes.shape)
    np.testing.assert_allclose(found.numpy(), planes / 255, rtol=1e-7)


def test_no_pixel_leaves_0_to_1(backend: Backend) -> None:
    with tg.use_backend(backend):
        found = ToTensor()(np.arange(256, dtype=np.uint8).reshape(16, 16)).numpy()
    assert (found.min(), found.max()) == (0, 1)


@pytest.mark.parametrize(("mean", "std"), [(0.5, 0.25), ([0.5], [0.25]), MEANS])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_channels_are_normalised(mean: Any, std: Any, dtype: Any) -> None:
    x = np.random.default_rng(0).random((4, 3, 5, 6)).astype(dtype)
    found = Normalize(mean, std).batch(tg.tensor(x)).numpy()
    columns = (np.array(v, dtype).reshape(-1, 1, 1) for v in (mean, std))
    expected = (x - next(columns)) / next(columns)
    assert found.dtype == dtype
    np.testing.assert_allclose(found, expected, rtol=1e-6)


def test_scaling_and_normalising_are_one_kernel(backend: Backend) -> None:
    with tg.use_backend(backend):
        x = tg.tensor(pixels(6, 1, 4, 4))
        chain = Compose([ToTensor(), Normalize((0.1307,), (0.3081,))])
        found = transformed_rows(chain, x, np.array([5, 0, 0])).numpy()
        expected = (pixels(6, 1, 4, 4)[[5, 0, 0]] / 255 - 0.1307) / 0.3081
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)
        apart = Normalize(0.1307, 0.3081).batch(ToTensor().batch(x)).numpy()
        np.testing.assert_allclose(chain.batch(x).numpy(), apart, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    "transform",
    [
        ToTensor(),
        AFFINE,
        Compose([]),
        Compose([ToTensor(), Normalize((0.1307,), (0.3081,))]),
        Compose([ToTensor(), Normalize(*MEANS)]),
        Compose([AFFINE, ToTensor(), Normalize(0.1, 0.3)]),
        Compose([ToTensor(), AFFINE, Normalize(0.1, 0.3), RandomAffine(90)]),
        Compose([AFFINE, Compose([RandomAffine(5), ToTensor()])]),
    ],
    ids=repr,
)
def test_one_image_and_many_give_the_same_bits(transform: Any, backend: Backend) -> None:
    with tg.use_backend(backend):
        x = tg.tensor(pixels(7, 3, 9, 8))
        tg.manual_seed(4)
        many = transform.batch(x).numpy()
        tg.manual_seed(4)
        single = [transform(image).numpy() for image in x]
        assert [row.tobytes() for row in many] == [row.tobytes() for row in single]
        tg.manual_seed(4)
        taken = transformed_rows(transform, x, np.arange(7)).numpy()
        assert taken.tobytes() == many.tobytes()
        tg.manual_seed(4)
        arrays = [transform(planes.transpose(1, 2, 0)) for planes in pixels(7, 3, 9, 8)]
        if many.dtype == np.uint8:
            assert np.array_equal(np.stack(arrays).transpose(0, 3, 1, 2), many)
        else:
            assert np.array_equal(np.stack([a.numpy() for a in arrays]), many)


@pytest.mark.parametrize("num_workers", [0, 3])
def test_a_loader_augments_the_same_item_by_item_and_whole(num_workers: int) -> None:
    class Rows(list[np.ndarray]):
        def __getitem__(self, i: Any) -> Any:
            return chain(super().__getitem__(i))

    chain = Compose([AFFINE, ToTensor(), RandomAffine(5)])
    x = pixels(10, 12, 12)
    tg.manual_seed(2)
    found = [b.numpy() for b in DataLoader(Rows(x), 4, num_workers=num_workers)]
    tg.manual_seed(2)
    streams = tg.Generator().manual_seed(tg.initial_seed()).spawn()
    for i, batch in enumerate(found, 1):
        tg.manual_seed(streams.child(i).initial_seed())
        expected = chain.batch(tg.tensor(x[4 * i - 4 : 4 * i, None])).numpy()
        assert batch.tobytes() == expected.tobytes()


# ---- turning, shifting, scaling


def drawn_by_pillow(image: np.ndarray, angle: float, scale: float) -> np.ndarray:
    """The same by Pillow, from the matrix of the movement."""
    height, width = image.shape
    turn = np.radians(angle)
    move = np.array([[np.cos(turn), -np.sin(turn), 0], [np.sin(turn), np.cos(turn), 0], [0, 0, 1]])
    centre, back = np.eye(3), np.eye(3)
    centre[:2, 2] = width / 2, height / 2
    back[:2, 2] = -width / 2, -height / 2
    inverse = np.linalg.inv(centre @ move @ np.diag([scale, scale, 1]) @ back)
    picture = Image.fromarray(image.astype(np.float32))
    method, kernel = Image.Transform.AFFINE, Image.Resampling.BILINEAR
    return np.asarray(picture.transform(picture.size, method, inverse[:2].ravel(), kernel))


@pytest.mark.parametrize("angle", [0, 10, -75, 180])
@pytest.mark.parametrize("scale", [1, 0.6, 1.2])
@pytest.mark.parametrize("size", [(28, 28), (20, 33)])
def test_the_movement_is_pillows(
    angle: float, scale: float, size: tuple[int, int], backend: Backend
) -> None:
    image = np.zeros(size, np.float32)
    image[6:-6, 6:-6] = np.random.default_rng(0).random(image[6:-6, 6:-6].shape)  # away from edges
    with tg.use_backend(backend):
        found = RandomAffine((angle, angle), None, (scale, scale))(tg.tensor(image[None]))
    np.testing.assert_allclose(found.numpy()[0], drawn_by_pillow(image, angle, scale), atol=2e-5)


def test_it_is_scipys_up_to_the_edges() -> None:
    ndimage = pytest.importorskip("scipy.ndimage", reason="SciPy is not installed")
    x = np.random.default_rng(1).random((2, 15, 22))
    found = RandomAffine((25, 25), None, (1.3, 1.3), fill=0.5)(tg.tensor(x)).numpy()
    a, b = np.cos(np.radians(25)) / 1.3, np.sin(np.radians(25)) / 1.3
    matrix = np.array([[a, -b], [b, a]])
    centre = np.array([7, 10.5])
    for plane, result in zip(x, found, strict=True):
        expected = ndimage.affine_transform(
            plane, matrix, centre - matrix @ centre, order=1, mode="grid-constant", cval=0.5
        )
        np.testing.assert_allclose(result, expected, atol=1e-12)


@pytest.mark.parametrize("dtype", [np.uint8, np.float32, np.float64])
def test_no_movement_gives_the_image_back(dtype: Any, backend: Backend) -> None:
    x = tg.tensor(pixels(3, 2, 7, 8).astype(dtype), backend=backend)
    assert np.array_equal(RandomAffine(0).batch(x).numpy(), x.numpy())


@pytest.mark.parametrize("dtype", [np.int8, np.int16, np.int32, np.int64])
def test_integers_move_as_floats_do_and_are_rounded(dtype: Any) -> None:
    turn = RandomAffine((30, 30), None, (1.2, 1.2), fill=-5)
    x = np.random.default_rng(0).integers(-128, 128, (2, 1, 9, 9))
    if np.dtype(dtype).itemsize > 2:
        x = x * 2**20 + 1  # more digits than float32 has
    expected = np.rint(turn.batch(tg.tensor(x.astype(np.float64))).numpy())
    found = turn.batch(tg.tensor(x.astype(dtype)))
    assert found.dtype == dtype
    assert np.array_equal(RandomAffine(0).batch(tg.tensor(x.astype(dtype))).numpy(), x)
    differs = found.numpy() != expected
    assert differs.mean() < 0.02
    assert np.abs(found.numpy() - expected).max() <= 1  # a half, rounded the other way


def test_shifts_are_whole_pixels_within_their_shares() -> None:
    x = np.zeros((400, 1, 21, 41), np.float32)
    x[:, 0, 10, 20] = 1
    tg.manual_seed(0)
    found = RandomAffine(0, (0.1, 0.3)).batch(tg.tensor(x)).numpy()
    assert np.array_equal(np.sort(found.reshape(400, -1), axis=1)[:, -2:], [[0, 1]] * 400)
    _, _, down, across = np.nonzero(found)
    assert set(across - 20) == set(range(-4, 5))
    assert set(down - 10) == set(range(-6, 7))


def test_angles_and_factors_are_of_their_ranges() -> None:
    rows, columns = np.mgrid[-25:26, -25:26]
    blob = np.exp(-(rows**2 + (columns - 10) ** 2) / 8).astype(np.float32)  # right of the centre
    x = np.tile(blob, (500, 1, 1, 1))
    tg.manual_seed(0)
    found = RandomAffine((0, 90), None, (0.5, 1.5)).batch(tg.tensor(x)).numpy()[:, 0]
    mass = found.sum((1, 2))
    down, across = ((found * axis).sum((1, 2)) / mass for axis in (rows, columns))
    angle, distance = np.degrees(np.arctan2(down, across)), np.hypot(down, across)
    assert -0.1 < angle.min() < 2  # clockwise: the rows go down
    assert 88 < angle.max() < 90.1
    assert 4.9 < distance.min() < 5.2
    assert 14.8 < distance.max() < 15.1
    assert abs(angle.mean() - 45) < 4


def test_the_outside_is_filled() -> None:
    found = RandomAffine((45, 45), fill=7)(np.full((9, 9), 100, np.uint8))
    assert (found.dtype, found[0, 0], found[4, 4]) == (np.uint8, 7, 100)
    far = RandomAffine(0, None, (1e-3, 1e-3), fill=-1)(tg.ones(1, 5, 5)).numpy()
    assert far[0, 0].tolist() == [-1] * 5


def test_a_picture_stays_a_picture_until_it_is_a_tensor() -> None:
    seen: list[Any] = []
    chain = Compose([AFFINE, Lambda(lambda x: seen.append(x) or x), ToTensor()])
    for image in (Image.fromarray(pixels(8, 9)), Image.fromarray(pixels(8, 9, 3))):
        assert isinstance(chain(image), tg.Tensor)
        assert isinstance(seen[-1], Image.Image)
        assert (seen[-1].mode, seen[-1].size) == (image.mode, image.size)


def test_no_pixel_comes_to_the_host(strict: StrictBackend) -> None:
    with tg.use_backend(strict):
        x = tg.tensor(pixels(8, 1, 12, 12))
        chain = Compose([AFFINE, ToTensor(), Normalize(0.1, 0.3)])
        with transfers(strict) as crossed:
            transformed_rows(chain, x, np.array([3, 1, 2]))
    assert not [line for line in crossed if "to the host" in line]
    assert len(crossed) < 15


# ---- composing


def test_a_chain_applies_each_in_order() -> None:
    chain = Compose([np.flipud, ToTensor(), Lambda(lambda x: x * 2)])
    found = chain(pixels(4, 4))
    np.testing.assert_allclose(found.numpy()[0], pixels(4, 4)[::-1] / 255 * 2, rtol=1e-6)


def test_a_chain_may_be_changed() -> None:
    normalize = Normalize(0.0, 1.0)
    chain = Compose([ToTensor(), normalize])
    x = pixels(2, 1, 4, 4)

    def check(expected: np.ndarray) -> None:
        np.testing.assert_allclose(chain.batch(tg.tensor(x)).numpy(), expected, atol=1e-6)
        rows = transformed_rows(chain, tg.tensor(x), np.array([1])).numpy()
        np.testing.assert_allclose(rows, expected[1:], atol=1e-6)
        np.testing.assert_allclose(chain(x[0, 0]).numpy(), expected[0], atol=1e-6)

    check(x / 255)
    normalize.mean = [0.5]
    check(x / 255 - 0.5)
    chain.transforms.insert(0, RandomAffine((180, 180)))
    check(x[:, :, ::-1, ::-1] / 255 - 0.5)
    chain.transforms = [ToTensor()]
    check(x / 255)
    chain.transforms.append(lambda image: image * 2)
    assert np.allclose(chain(x[0, 0]).numpy(), x[0] / 255 * 2)
    with pytest.raises(TypeError, match="takes single images only"):
        chain.batch(tg.tensor(x))


class Inverted(ToTensor):
    def __call__(self, image: Any) -> Any:
        return 1 - super().__call__(image)


@pytest.mark.parametrize("number", [10, np.float32(10), np.array(10), np.int64(10), tg.tensor(10)])
def test_numbers_may_be_numpys_and_tensors(number: Any) -> None:
    assert RandomAffine(number).degrees == (-10, 10)
    assert RandomAffine((0, number)).degrees == (0, 10)
    assert RandomAffine(np.array([1, 2]), scale=tg.tensor([0.5, 2])).scale == (0.5, 2)
    assert RandomAffine(0, fill=number).fill == 10
    assert RandomAffine(0, fill=None).fill == 0
    for means in (number, [number], np.array([10.0]), (10,)):
        assert Normalize(means, means).mean == [10.0]


def double(x: Any) -> Any:
    return x * 2


@pytest.mark.parametrize(
    ("transform", "shown"),
    [
        (ToTensor(), "ToTensor()"),
        (Normalize(0.5, (0.25,)), "Normalize(mean=[0.5], std=[0.25])"),
        (
            RandomAffine(10, (0.1, 0.2)),
            "RandomAffine(degrees=(-10, 10), translate=(0.1, 0.2), scale=(1, 1), fill=0)",
        ),
        (Lambda(double), "Lambda(double)"),
        (
            Compose([ToTensor(), Normalize(0.5, 1)]),
            "Compose([ToTensor(), Normalize(mean=[0.5], std=[1.0])])",
        ),
    ],
)
def test_transforms_show_their_settings(transform: Any, shown: str) -> None:
    assert repr(transform) == shown


@pytest.mark.parametrize(
    ("attempt", "error", "message"),
    [
        (lambda: Normalize((0, 0), (1,)), ValueError, "got 2 means and 1 stds"),
        (lambda: Normalize(0, 0), ValueError, "Normalize: expected stds above 0"),
        (lambda: Normalize(float("nan"), 1), ValueError, "mean must be finite numbers, got nan"),
        (lambda: Normalize([], []), ValueError, "mean must be finite numbers"),
        (lambda: Normalize((0, 0), (1, 1))(tg.zeros(3, 2, 2)), ValueError, "2 means .* 3 channels"),
        (lambda: Normalize(0, 1)(pixels(2, 2)), TypeError, r"got uint8; put ToTensor\(\) before"),
        (
            lambda: ToTensor()(tg.zeros(1, 2, 2)),
            TypeError,
            "uint8 pixels, got float32; use it once",
        ),
        (lambda: ToTensor()(np.zeros((2, 2))), TypeError, "uint8 pixels, got float64; convert"),
        (lambda: ToTensor()(3), TypeError, "a PIL image, an array or a tensor, got int"),
        (lambda: ToTensor()(pixels(2)), ValueError, r"\(H, W\) or \(H, W, C\), got \(2,\)"),
        (lambda: ToTensor()(tg.zeros(2, 2)), ValueError, r"an image \(C, H, W\), got \(2, 2\)"),
        (lambda: ToTensor().batch(tg.zeros(2, 2)), ValueError, r"batch \(n, C, H, W\), got \(2, 2"),
        (lambda: ToTensor().batch(pixels(1, 1, 2, 2)), TypeError, "a batch is a tensor, got nda"),
        (lambda: RandomAffine(-1), ValueError, "degrees must be at least 0, or a pair, got -1"),
        (lambda: RandomAffine((3, 1)), ValueError, "degrees must go from a lower to a higher"),
        (lambda: RandomAffine((1, 2, 3)), ValueError, "degrees must be two finite numbers"),
        (lambda: RandomAffine("9"), TypeError, "degrees must be finite numbers, got '9'"),
        (lambda: RandomAffine(None), TypeError, "degrees must be finite numbers, got None"),
        (lambda: RandomAffine(True), TypeError, "degrees must be finite numbers"),
        (lambda: RandomAffine((1, float("inf"))), ValueError, "degrees must be finite numbers"),
        (lambda: RandomAffine(0, fill="a"), TypeError, "RandomAffine: fill must be a number, got"),
        (lambda: RandomAffine(0, fill=True), TypeError, "fill must be a number, got True"),
        (
            lambda: RandomAffine(0)(tg.zeros(1, 2, 2, dtype=bool)),
            TypeError,
            r"RandomAffine: expected numbers as pixels, got bool; cast them with \.to\(dtype\)",
        ),
        (
            lambda: RandomAffine(0, fill=200)(tg.zeros(1, 2, 2, dtype=np.int8)),
            ValueError,
            "200 is no int8 pixel",
        ),
        (lambda: Normalize(None, 1), TypeError, "Normalize: mean must be finite numbers, got None"),
        (lambda: Normalize(True, True), TypeError, "mean must be finite numbers, got True"),
        (lambda: Normalize(0, [True]), TypeError, r"std must be finite numbers, got \[True\]"),
        (lambda: Compose(ToTensor()), TypeError, "expected a list of transforms, got ToTensor"),
        (lambda: Compose(None), TypeError, "Compose: expected a list of transforms, got NoneType"),
        (
            lambda: Inverted().batch(tg.zeros(1, 1, 2, 2)),
            TypeError,
            r"Inverted: Inverted\(\) takes single images only",
        ),
        (lambda: RandomAffine(0, (0, 2)), ValueError, r"translate must be from 0 to 1, got \(0, 2"),
        (lambda: RandomAffine(0, 0.1), ValueError, "translate must be two finite numbers, got 0.1"),
        (lambda: RandomAffine(0, None, (0, 1)), ValueError, "scale must be above 0"),
        (lambda: RandomAffine(0, fill=300)(pixels(2, 2)), ValueError, "300 is no uint8 pixel"),
        (lambda: Compose([3]), TypeError, "Compose: expected transforms, got int at position 0"),
        (lambda: Lambda(3), TypeError, "Lambda: expected a function, got int"),
        (
            lambda: Compose([ToTensor(), double]).batch(tg.zeros(1, 1, 2, 2)),
            TypeError,
            "Compose: one of .* takes single images only",
        ),
        (lambda: transforms.Transform()(pixels(2, 2)), NotImplementedError, "no apply"),
    ],
)
def test_what_cannot_be_is_refused(attempt: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        attempt()
