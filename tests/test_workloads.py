"""The steps that examples/compare_with_peers.py times: as fast as they are, are they right?"""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

import tinygrad_mnist as tg
from tinygrad_mnist.verification.workloads import digits

STEPS = 50
EXAMPLES = Path(__file__).parents[1] / "examples"


@pytest.fixture(scope="module")
def examples_are_found() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(EXAMPLES)
        yield


@pytest.fixture(scope="module")
def peers(examples_are_found: None) -> Any:
    return importlib.import_module("peers.with_pytorch")


@pytest.fixture(scope="module")
def workloads(examples_are_found: None) -> Any:
    return importlib.import_module("peers.workloads")


WORKLOADS = ("sgd-10", "mlp-32", "mlp-128", "full-32-16", "full-100", "cnn-64", "cnn-512")


def double() -> Any:
    """This library, with networks of float64."""

    def sequential(*layers: Any) -> Any:
        return tg.nn.Sequential(*layers).double()

    nn = SimpleNamespace(**{**vars(tg.nn), "Sequential": sequential})
    return SimpleNamespace(**{**vars(tg), "nn": nn})


def losses(peers: Any, workload: str, backend: str) -> list[float]:
    lib = double() if workload.startswith("cnn") else tg
    with tg.use_backend(backend):
        step = peers.pytorch_step(workload, lib)
        return [step().item() for _ in range(STEPS)]


def test_these_are_the_steps(workloads: Any) -> None:
    assert tuple(workloads.STEPS) == WORKLOADS


@pytest.mark.parametrize("rows", (6_000, pytest.param(60_000, marks=pytest.mark.slow)))
@pytest.mark.parametrize(
    "workload",
    [pytest.param(w, marks=pytest.mark.slow if w == "cnn-512" else ()) for w in WORKLOADS],
)
def test_losses_are_numpys(
    peers: Any, workloads: Any, workload: str, rows: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The CNN in float64: Adagrad's first step is g/|g|, so that where a gradient is 0 but for
    rounding, the rounding decides. In float32 NumPy's own losses differ from one BLAS to another.
    """
    pytest.importorskip("numba")
    convolution = workload.startswith("cnn")
    images, labels = digits(rows if workload.startswith("full") else workloads.STEPS[workload][1])
    onehot = np.eye(10, dtype=np.float32)[labels]
    if convolution:
        images = images.reshape(-1, 1, 28, 28).astype(np.float64)
    monkeypatch.setattr(peers, "data", lambda step: (images, labels, onehot))
    expected = losses(peers, workload, "numpy")
    found = losses(peers, workload, "numba")
    assert found == pytest.approx(expected, rel=1e-9 if convolution else 1e-4)
    assert len(set(expected)) > STEPS // 2, "nothing was learnt"


# ---- the floor


def test_the_floor_has_the_products_of_the_step(examples_are_found: None) -> None:
    """As (rows, inner, columns), by hand."""
    floor = importlib.import_module("peers.floor")

    def shapes(step: str) -> list[tuple[int, int, int]]:
        pairs = floor.products(step, np.random.default_rng(0))
        return [(*a.shape, b.shape[1]) for a, b in pairs]

    assert shapes("mlp-32") == [
        (32, 784, 128), (128, 32, 784),
        (32, 128, 10), (10, 32, 128), (32, 10, 128),
    ]  # fmt: skip
    assert shapes("cnn-64") == [
        (10, 25, 64 * 576), (10, 64 * 576, 25),
        (20, 250, 64 * 64), (20, 64 * 64, 250), (250, 20, 64 * 64),
        (64, 320, 50), (50, 64, 320), (64, 50, 320),
        (64, 50, 10), (10, 64, 50), (64, 10, 50),
    ]  # fmt: skip


@pytest.mark.parametrize(("step", "kept"), [("sgd-10", 0), ("mlp-128", 2), ("cnn-64", 1)])
def test_the_floor_moves_parameters_gradients_and_moments(peers: Any, step: str, kept: int) -> None:
    model, _ = peers.network(step, tg)
    parameters = sum(p.numel() for p in model.parameters())
    floor = importlib.import_module("peers.floor")
    assert floor.optimizer_size(step) == (2 + kept) * parameters
