"""The steps that examples/compare_with_peers.py times: as fast as they are, are they right?"""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import tinygrad_mnist as tg

STEPS = 50
EXAMPLE = Path(__file__).parents[1] / "examples" / "compare_with_peers.py"


@pytest.fixture(scope="module")
def peers() -> Any:
    spec = importlib.util.spec_from_file_location("compare_with_peers", EXAMPLE)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


WORKLOADS = ("sgd-10", "mlp-32", "mlp-128", "full-32-16", "full-100", "cnn-64", "cnn-512")


def digits(rows: int) -> tuple[np.ndarray, np.ndarray]:
    """Ten patterns under noise. On noise alone, rounding decides what a network learns."""
    draw = np.random.default_rng(0)
    labels = draw.integers(0, 10, rows)
    patterns = draw.random((10, 784), np.float32)
    return (patterns[labels] + draw.random((rows, 784), np.float32)) / 2, labels


def losses(peers: Any, workload: str, backend: str) -> list[float]:
    with tg.use_backend(backend):
        step = peers.pytorch_step(workload, tg)
        return [step().item() for _ in range(STEPS)]


def test_these_are_the_steps(peers: Any) -> None:
    assert tuple(peers.STEPS) == WORKLOADS


@pytest.mark.parametrize("rows", (6_000, pytest.param(60_000, marks=pytest.mark.slow)))
@pytest.mark.parametrize("workload", WORKLOADS)
def test_losses_are_numpys(
    peers: Any, workload: str, rows: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("numba")
    whole = workload.startswith("full")
    images, labels = digits(rows if whole else peers.STEPS[workload][1])
    images = images.reshape(-1, 1, 28, 28) if workload.startswith("cnn") else images
    onehot = np.eye(10, dtype=np.float32)[labels]
    monkeypatch.setattr(peers, "data", lambda step: (images, labels, onehot))
    expected = losses(peers, workload, "numpy")
    assert losses(peers, workload, "numba") == pytest.approx(expected, rel=1e-4)
    assert len(set(expected)) > STEPS // 2, "nothing was learnt"
