"""Datasets: of tensors, parts of others, and the known ones as PyTorch names them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import tinygrad_mnist as tg
from tinygrad_mnist import config, nn, training
from tinygrad_mnist.kernels import Backend
from tinygrad_mnist.utils.data import (
    DataError,
    DataLoader,
    Dataset,
    ImageDataset,
    Subset,
    TensorDataset,
    datasets,
    default_collate,
    random_split,
    sources,
    transforms,
)
from tinygrad_mnist.utils.data.idx import idx_header

CLASSES = [datasets.MNIST, datasets.FashionMNIST, datasets.KMNIST]
COUNTS = {"train": 12, "t10k": 5}


def arrays(part: str) -> tuple[np.ndarray, np.ndarray]:
    count = COUNTS[part]
    images = np.random.default_rng(count).integers(0, 256, (count, 28, 28), dtype=np.uint8)
    return images, (np.arange(count) * 3 % 10).astype(np.uint8)


def write(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for part in COUNTS:
        for array, name in zip(arrays(part), ("images-idx3", "labels-idx1"), strict=True):
            path = folder / f"{part}-{name}-ubyte"
            path.write_bytes(idx_header(array.shape) + array.tobytes())
    return folder


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with tiny files, and no other place with any."""
    monkeypatch.setattr(sources, "_cache_folder", lambda name: tmp_path / "no cache")
    monkeypatch.delenv(config.DATA, raising=False)
    return write(tmp_path / "files")


# ---- the known ones


@pytest.mark.parametrize("kind", CLASSES)
@pytest.mark.parametrize(("train", "part"), [(True, "train"), (False, "t10k")])
def test_items_are_pictures_and_labels(kind: Any, train: bool, part: str, root: Path) -> None:
    images, labels = arrays(part)
    found = kind(root, train=train, download=False)
    assert len(found) == len(images)
    for i in (0, 3, -1):
        image, label = found[i]
        assert isinstance(image, Image.Image)
        assert (image.mode, np.asarray(image).tolist()) == ("L", images[i].tolist())
        assert type(label) is int
        assert label == labels[i]
    assert (found.data.dtype, found.data.shape) == (np.uint8, images.shape)
    assert (found.targets.dtype, found.targets.tolist()) == (np.int64, labels.tolist())
    assert len(set(found.classes)) == 10


def test_a_dataset_shows_what_it_is(root: Path) -> None:
    found = datasets.KMNIST(root, train=False, transform=transforms.ToTensor())
    assert repr(found) == "KMNIST(5 images, train=False, transform=ToTensor())"


@pytest.mark.parametrize("place", [".", "MNIST/raw"])
def test_the_root_may_be_as_pytorch_leaves_it(place: str, root: Path, tmp_path: Path) -> None:
    write(tmp_path / "data" / place)
    assert len(datasets.MNIST(str(tmp_path / "data"), download=False)) == 12


def test_a_root_without_files_leaves_the_other_places(
    root: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    empty = tmp_path / "empty"
    with pytest.raises(DataError, match=r"MNIST is not on this computer \(cache.*download=True"):
        datasets.MNIST(empty, download=False)
    monkeypatch.setenv(config.DATA, str(root))
    assert len(datasets.MNIST(empty)) == 12
    assert len(datasets.MNIST()) == 12
    said = capsys.readouterr().err
    assert said.count(f"{empty}: no MNIST files there") == 1, "once, not for each part"


def test_the_cache_is_asked_without_a_download(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sources, "_cache_folder", lambda name: root)
    sums = {
        f"{part}-{name}-ubyte": sources.idx_sha256(array)
        for part in COUNTS
        for array, name in zip(arrays(part), ("images-idx3", "labels-idx1"), strict=True)
    }
    (root / "SHA256SUMS").write_text("".join(f"{v}  {k}\n" for k, v in sums.items()))
    assert len(datasets.FashionMNIST(download=False)) == 12
    with pytest.raises(DataError, match=r"MNIST is not on this computer .*expected ba8910"):
        datasets.MNIST(download=False)  # whose published sums these files have not


def test_transforms_are_applied_to_items(root: Path) -> None:
    found = datasets.MNIST(root, transform=np.asarray, target_transform=lambda label: -label)
    image, label = found[1]
    assert np.array_equal(image, arrays("train")[0][1])
    assert label == -3


CHAIN = transforms.Compose([transforms.ToTensor(), transforms.Normalize((0.1307,), (0.3081,))])


def test_whole_batches_have_the_items_values(root: Path, backend: Backend) -> None:
    with tg.use_backend(backend):
        found = datasets.MNIST(root, transform=CHAIN)
        whole = DataLoader(found, 5, shuffle=True, seed=1)
        single = DataLoader(found, 5, shuffle=True, seed=1, collate_fn=default_collate)
        for (x, y), (a, b) in zip(whole, single, strict=True):
            assert x.backend is y.backend is backend
            assert (x.dtype, x.shape[1:]) == (np.float32, (1, 28, 28))
            assert x.numpy().tobytes() == a.numpy().tobytes()
            assert (y.dtype, y.tolist()) == (np.int64, b.tolist())


def test_a_normalised_dataset_is_what_load_gives(root: Path) -> None:
    expected, _ = datasets.load("mnist", root)
    x, y = expected.batch_at(np.arange(12))
    a, b = datasets.MNIST(root, transform=CHAIN).batch_at(np.arange(12))
    assert x.numpy().tobytes() == a.numpy().tobytes()
    assert y.tolist() == b.tolist()
    image, label = expected[2]
    assert (image.tolist(), label) == (x[2].tolist(), y[2].item())


@pytest.mark.parametrize(
    ("settings", "whole"),
    [
        ({}, False),
        ({"transform": transforms.RandomAffine(3)}, False),  # pictures still
        ({"transform": transforms.ToTensor()}, True),
        ({"transform": CHAIN}, True),
        ({"transform": transforms.Compose([transforms.RandomAffine(3), CHAIN])}, True),
        ({"transform": transforms.Compose([CHAIN, transforms.Lambda(abs)])}, False),
        ({"transform": transforms.Lambda(CHAIN)}, False),
        ({"transform": CHAIN, "target_transform": abs}, False),
    ],
)
def test_which_transforms_make_whole_batches(
    settings: dict[str, Any], whole: bool, root: Path
) -> None:
    assert (datasets.MNIST(root, **settings).batch_at is not None) == whole


class Numbered(datasets.MNIST):
    def __getitem__(self, index: Any) -> Any:
        return *super().__getitem__(index), index


class Inverted(transforms.ToTensor):
    def __call__(self, image: Any) -> Any:
        return 1 - super().__call__(image)


class Darkened(transforms.ToTensor):
    def apply(self, images: tg.Tensor, u: np.ndarray) -> tg.Tensor:
        return super().apply(images, u) / 2


def test_a_subclass_gives_the_loader_its_own_items(root: Path) -> None:
    _, y, i = next(iter(DataLoader(Numbered(root, transform=CHAIN), 4)))
    assert (i.tolist(), y.tolist()) == ([0, 1, 2, 3], [0, 3, 6, 9])


@pytest.mark.parametrize("chain", [False, True])
@pytest.mark.parametrize(("kind", "whole"), [(Inverted, False), (Darkened, True)])
def test_a_transforms_subclass_has_its_say(kind: Any, whole: bool, chain: bool, root: Path) -> None:
    transform = transforms.Compose([kind()]) if chain else kind()
    found = datasets.MNIST(root, transform=transform)
    assert (found.batch_at is not None) == whole
    pixels = arrays("train")[0][:4, None] / 255
    expected = 1 - pixels if kind is Inverted else pixels / 2
    x, _ = next(iter(DataLoader(found, 4)))
    np.testing.assert_allclose(x.numpy(), expected, atol=1e-6)
    np.testing.assert_allclose(found[1][0].numpy(), expected[1], atol=1e-6)


def test_pictures_make_no_batch(root: Path) -> None:
    with pytest.raises(TypeError, match=r"found PIL.Image.Image, .* end in ToTensor\(\)"):
        next(iter(DataLoader(datasets.MNIST(root), 2)))


def test_data_and_targets_may_be_replaced(root: Path) -> None:
    found = datasets.MNIST(root, transform=CHAIN)
    found.data, found.targets = found.data[[3, 4]], found.targets[[3, 4]]
    assert len(found) == 2
    ((x, y),) = DataLoader(found, 2)
    assert y.tolist() == [9, 2]
    assert x.shape[0] == 2
    assert found[1][1] == 2


# ---- of tensors, and parts


def test_rows_of_tensors_are_items(backend: Backend) -> None:
    x = tg.tensor(np.arange(12.0).reshape(4, 3), backend=backend)
    y = tg.tensor([0, 1, 2, 3], backend=backend)
    dataset = TensorDataset(x, y)
    assert len(dataset) == 4
    assert repr(dataset) == "TensorDataset((4, 3), (4,))"
    assert [t.tolist() for t in dataset[-1]] == [[9, 10, 11], 3]
    single = list(DataLoader(dataset, 3, collate_fn=default_collate))
    whole = list(DataLoader(dataset, 3))
    for found, expected in zip(whole, single, strict=True):
        assert type(found) is type(expected) is list
        assert [t.tolist() for t in found] == [t.tolist() for t in expected]
        assert all(t.backend is backend for t in found)


@pytest.mark.parametrize(
    "index", [slice(None), slice(0, 2), [2, 0], np.array([1, 1]), tg.tensor([3]), tg.tensor(1)]
)
def test_an_index_may_be_whatever_a_tensor_takes(index: Any) -> None:
    x, y = tg.arange(12).reshape(4, 3), tg.arange(4)
    found = TensorDataset(x, y)[index]
    assert [t.tolist() for t in found] == [x[index].tolist(), y[index].tolist()]


@pytest.mark.parametrize("index", [tg.tensor(1), np.array(1), np.int64(1)])
def test_a_position_may_be_a_tensor(index: Any, root: Path) -> None:
    assert datasets.MNIST(root)[index][1] == 3
    assert Subset([5, 6], [1, 0])[index] == 5
    assert _images()[index][1] == 1


def test_a_gradient_flows_through_whole_batches() -> None:
    x = tg.zeros(3, 2, requires_grad=True)
    (batch,) = next(iter(DataLoader(TensorDataset(x), 2, sampler=[2, 2])))
    batch.sum().backward()
    assert x.grad is not None
    assert x.grad.tolist() == [[0, 0], [0, 0], [2, 2]]


def test_a_classifier_is_evaluated_on_any_pairs() -> None:
    scores = tg.tensor([[9.0, 0.0], [0.0, 9.0], [9.0, 0.0]])
    pairs = [(row, label) for row, label in zip(scores, [0, 1, 1], strict=True)]
    for dataset in (pairs, TensorDataset(scores, tg.tensor([0, 1, 1]))):
        _, accuracy = training.evaluate(nn.Identity(), DataLoader(dataset, 2))
        assert accuracy == 2 / 3


def test_a_subset_has_the_items_at_its_indices() -> None:
    subset = Subset([10, 11, 12, 13], [3, 1])
    assert len(subset) == 2
    assert list(subset) == [13, 11]
    assert subset[-1] == 11
    assert repr(subset) == "Subset(2 of 4 items of list)"


@pytest.mark.parametrize(
    "indices", [[-1, 0], (-1, 0), range(-1, 1), np.array([-1, 0]), tg.tensor([-1, 0])]
)
def test_a_subset_keeps_its_indices_as_given(indices: Any) -> None:
    whole, single = Subset(TensorDataset(tg.arange(4)), indices), Subset([0, 1, 2, 3], indices)
    assert whole.indices is single.indices is indices
    assert list(single) == [3, 0]
    assert [x.tolist() for (x,) in DataLoader(whole, 2)] == [[3, 0]]


def test_a_subsets_indices_may_be_changed_and_added() -> None:
    a, b = random_split(TensorDataset(tg.arange(4)), [1, 3])
    assert sorted(a.indices + b.indices) == [0, 1, 2, 3]
    a.indices.append(-1)
    a.indices[0] = 2
    assert len(a) == 2
    assert [x.tolist() for (x,) in DataLoader(a, 2)] == [[2, 3]]
    assert [x.tolist() for (x,) in a] == [2, 3]


SPLITS: list[Any] = [
    [6, 4],
    np.array([6, 4]),
    [0, 10],
    [0.7, 0.3],
    [0.33, 0.33, 0.34],
    [0.5, 0.25, 0.25],
    [0.55, 0.45],
    [1.0],
]


@pytest.mark.parametrize("lengths", SPLITS, ids=str)
def test_a_split_has_every_item_once_and_pytorchs_lengths(lengths: list[float]) -> None:
    parts = random_split(range(10), lengths, tg.Generator().manual_seed(1))
    assert sorted(i for part in parts for i in part) == list(range(10))
    again = random_split(range(10), lengths, tg.Generator().manual_seed(1))
    assert [list(part) for part in again] == [list(part) for part in parts]
    tg.manual_seed(1)
    assert [list(part) for part in random_split(range(10), lengths)] == [list(p) for p in parts]
    torch = pytest.importorskip("torch.utils.data", reason="PyTorch is not installed")
    assert [len(p) for p in parts] == [len(p) for p in torch.random_split(range(10), lengths)]


@pytest.mark.parametrize(
    ("lengths", "error", "message"),
    [
        ([5, 4], ValueError, "the lengths sum to 9, the dataset has 10 items"),
        ([0.5, 0.4], ValueError, r"the fractions sum to 0\.9, expected 1"),
        ([-1, 11], ValueError, r"lengths of at least 0, got \[-1, 11\]"),
        ([], ValueError, "lengths of at least 0"),
        (["a"], TypeError, r"expected integers or fractions, got \['a'\]"),
    ],
)
def test_a_split_that_cannot_be_is_refused(
    lengths: Any, error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=f"random_split: .*{message}"):
        random_split(range(10), lengths)


def _images() -> ImageDataset:
    return ImageDataset(np.zeros((3, 2, 2), np.uint8), np.arange(3))


@pytest.mark.parametrize(
    ("attempt", "error", "message"),
    [
        (lambda: TensorDataset(), ValueError, "TensorDataset: expected at least one tensor"),
        (lambda: TensorDataset(tg.zeros(2), tg.zeros(3)), ValueError, r"shapes \(2,\), \(3,\)"),
        (lambda: TensorDataset(tg.zeros(())), ValueError, r"TensorDataset: .* shapes \(\)"),
        (lambda: TensorDataset(np.zeros(2)), TypeError, "got ndarray at position 0; make one"),
        (lambda: TensorDataset(tg.zeros(2))[2], IndexError, "index 2 is out of range, it has 2"),
        (lambda: TensorDataset(tg.zeros(2))[0.5], TypeError, "an item is at an integer, got 0.5"),
        (lambda: _images()[3], IndexError, "ImageDataset: index 3 is out of range"),
        (lambda: _images()[-4], IndexError, "ImageDataset: index -4 is out of range"),
        (lambda: Subset([1, 2], [2]), IndexError, "Subset: found index 2, expected -2 to 1"),
        (lambda: Subset([1, 2], [-3]), IndexError, "Subset: found index -3"),
        (lambda: Subset([1, 2], None), TypeError, "Subset: expected a sequence .*got NoneType"),
        (lambda: Subset([1, 2], [[0], [0, 1]]), TypeError, "Subset: .*got sequences of several"),
        (lambda: Subset(5, [1]), TypeError, "Subset: expected a dataset .*got int"),
        (lambda: random_split(5, [1]), TypeError, "random_split: expected a dataset .*got int"),
        (lambda: random_split([1], 1), TypeError, "random_split: expected a list of lengths, got"),
        (
            lambda: random_split([1], [1], generator=3),
            TypeError,
            "random_split: expected a tinygrad_mnist.Generator, got int",
        ),
        (
            lambda: random_split([1], [1], np.random.default_rng(0)),
            TypeError,
            "random_split: expected a tinygrad_mnist.Generator, got Generator",
        ),
        (lambda: datasets.MNIST(train="train"), TypeError, "MNIST: train must be True or False"),
        (lambda: TensorDataset(tg.zeros(2))[True], TypeError, "at an integer, got True"),
        (lambda: _images()[tg.zeros(2)], TypeError, r"an integer, got a tensor of shape \(2,\)"),
        (lambda: Subset([1, 2], [0.5]), TypeError, "Subset: expected a sequence of integers"),
        (lambda: Subset([1, 2], [0])[1], IndexError, "Subset: index 1 is out of range"),
        (lambda: Dataset()[0], NotImplementedError, r"Dataset has no __getitem__\(index\)"),
    ],
)
def test_what_cannot_be_is_refused(attempt: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        attempt()


def test_indexing_a_known_dataset_out_of_range_is_an_error(root: Path) -> None:
    with pytest.raises(IndexError, match="MNIST: index 12 is out of range, it has 12 items"):
        datasets.MNIST(root)[12]
