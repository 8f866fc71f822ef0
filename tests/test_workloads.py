"""The steps that examples/compare_with_peers.py times: as fast as they are, are they right?"""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import SimpleNamespace
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


def test_these_are_the_steps(peers: Any) -> None:
    assert tuple(peers.STEPS) == WORKLOADS


@pytest.mark.parametrize("rows", (6_000, pytest.param(60_000, marks=pytest.mark.slow)))
@pytest.mark.parametrize("workload", WORKLOADS)
def test_losses_are_numpys(
    peers: Any, workload: str, rows: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The CNN in float64: Adagrad's first step is g/|g|, so that where a gradient is 0 but for
    rounding, the rounding decides. In float32 NumPy's own losses differ from one BLAS to another.
    """
    pytest.importorskip("numba")
    convolution = workload.startswith("cnn")
    images, labels = digits(rows if workload.startswith("full") else peers.STEPS[workload][1])
    onehot = np.eye(10, dtype=np.float32)[labels]
    if convolution:
        images = images.reshape(-1, 1, 28, 28).astype(np.float64)
    monkeypatch.setattr(peers, "data", lambda step: (images, labels, onehot))
    expected = losses(peers, workload, "numpy")
    found = losses(peers, workload, "numba")
    assert found == pytest.approx(expected, rel=1e-9 if convolution else 1e-4)
    assert len(set(expected)) > STEPS // 2, "nothing was learnt"
