"""What datasets and loaders take and refuse."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tinygrad_mnist.utils.data import DataError, DataLoader, ImageDataset


def dataset(labels: Any = (0, 1, 2)) -> ImageDataset:
    labels = np.asarray(labels)
    return ImageDataset(np.zeros((len(labels), 2, 2), np.uint8), labels)


@pytest.mark.parametrize("kind", [int, np.int64, np.int32, np.uint8])
def test_a_batch_size_is_any_integer(kind: Any) -> None:
    loader = DataLoader(dataset(), kind(2))
    assert [len(y) for _, y in loader] == [2, 1]
    assert len(loader) == 2
    assert repr(loader) == "DataLoader(2 batches of 2, shuffle=False)"


@pytest.mark.parametrize(
    ("size", "message"),
    [
        (0, r"integer of at least 1, got 0 \(int\)"),
        (np.int64(-1), r"integer of at least 1, got np.int64\(-1\) \(int64\)"),
        (2.0, r"integer of at least 1, got 2\.0 \(float\)"),
        ("2", r"integer of at least 1, got '2' \(str\)"),
        (None, r"integer of at least 1, got None \(NoneType\)"),
    ],
)
def test_another_batch_size_is_refused_with_its_type(size: Any, message: str) -> None:
    with pytest.raises(ValueError, match=f"DataLoader: batch_size must be an {message}"):
        DataLoader(dataset(), size)


@pytest.mark.parametrize("dtype", [np.uint8, np.int8, np.int32, np.int64, np.uint64])
def test_labels_are_of_any_integer_dtype(dtype: Any) -> None:
    found = dataset(np.array([0, 5, 9], dtype)).labels
    assert found.dtype == np.int64
    assert found.tolist() == [0, 5, 9]


@pytest.mark.parametrize("labels", [[1.7, 0.0], [float("nan"), 1.0], [1.0, 2.0], [True, False]])
def test_labels_that_are_no_integers_are_refused(labels: list[Any]) -> None:
    with pytest.raises(DataError, match=r"expected integer labels, got (float64|bool); cast them"):
        dataset(labels)


@pytest.mark.parametrize("label", [-1, 2**31, np.uint64(2**63)])
def test_a_label_that_is_no_class_is_refused(label: int) -> None:
    with pytest.raises(DataError, match=f"expected labels from 0 .*got {label} at position 1"):
        dataset(np.array([0, label], getattr(label, "dtype", np.int64)))


@pytest.mark.parametrize("wrong", [[1, 2, 3], None])
def test_a_loader_takes_an_image_dataset(wrong: object) -> None:
    with pytest.raises(TypeError, match="expected an ImageDataset"):
        DataLoader(wrong, 2)  # type: ignore[arg-type]


@pytest.mark.parametrize("std", [0.0, -1.0, float("nan")])
def test_a_deviation_must_be_above_zero(std: float) -> None:
    with pytest.raises(DataError, match="std above 0"):
        ImageDataset(np.zeros((2, 3, 3), np.uint8), np.zeros(2, np.uint8), 0.0, std)
