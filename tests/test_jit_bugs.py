"""What went wrong under jit once."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

import tinygrad_mnist as tg
from tinygrad_mnist.backend import use_backend

BACKENDS = ("numpy", "numba")


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize(
    "f",
    [
        lambda x: x / 20.0,
        lambda x: (x * 1.5) / 20.0,
        lambda x: 2.0 - x,
        lambda x: x * x + x,
    ],
)
def test_a_tensor_of_no_dims_is_read_anew_at_each_replay(
    backend: str, f: Callable[[tg.Tensor], tg.Tensor]
) -> None:
    with use_backend(backend):
        step = tg.jit(f)
        for number in (1.0, 2.0, 3.0, 4.0):
            x = tg.tensor(number)
            assert step(x).item() == f(x).item()


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("count", [20, 1000])
def test_a_sum_is_recorded_and_checked_by_the_kernels_of_a_plain_call(
    backend: str, count: int
) -> None:
    """The backend's own way of running several at once may round otherwise."""
    random = np.random.default_rng(0)
    with use_backend(backend):

        def mean(x: tg.Tensor) -> tg.Tensor:
            return x.sum() / 20.0

        exact, fast = tg.jit(passes=())(mean), tg.jit(mean)
        for _ in range(20):
            x = tg.tensor(3 * random.random(count, np.float32))
            assert exact(x).item() == mean(x).item()
            assert fast(x).item() == pytest.approx(mean(x).item(), rel=1e-6)
