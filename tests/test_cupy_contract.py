"""The contract and the op table on the CuPy backend, on the stand-in for a card.

The tests are those that every backend has; a card runs them as ``backend[cupy]``.
"""

from __future__ import annotations

import cuda_on_cpu
import pytest
from test_contract import (  # noqa: F401
    test_act_and_pool_are_the_separate_kernels,
    test_agrees_with_numpy,
    test_every_kernel_is_reached,
    test_in_place_kernels_write_what_they_declare,
    test_out_is_filled_and_returned,
    test_out_may_be_an_input,
    test_overlapping_operands,
    test_results_are_new_memory,
    test_uniform_is_splitmix64,
    test_views_share_memory,
)

from tinygrad_mnist.kernels import Backend


@pytest.fixture(scope="module")
def backend() -> Backend:
    found = cuda_on_cpu.load()
    if isinstance(found, str):
        pytest.skip(found)
    return found
