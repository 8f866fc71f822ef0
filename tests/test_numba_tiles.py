"""Products in tiles: every shape and order, beside NumPy's, on wide and on narrow registers."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("numba")

from tinygrad_mnist.backends.numba_kernels import tiles

SHAPES = [(1, 1, 1), (3, 5, 2), (5, 3, 17), (6, 4, 16), (7, 9, 33), (10, 15, 784), (32, 10, 50)]
SHAPES += [(13, 64, 16), (20, 81, 250), (64, 100, 15), (4, 130, 1), (2, 3, 0), (0, 4, 7), (4, 0, 7)]
DTYPES = [np.float32, np.float64]


def drawn(dtype: Any, *shape: int) -> np.ndarray:
    return np.random.default_rng(sum(shape)).standard_normal(shape).astype(dtype)


def near(found: np.ndarray, expected: np.ndarray) -> None:
    bound = 1e-5 if found.dtype == np.float32 else 1e-13
    np.testing.assert_allclose(found, expected, bound, bound * max(1, len(expected)) * 10)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_dot_rows(shape: tuple[int, int, int], dtype: Any) -> None:
    rows, columns, n = shape
    x, y = drawn(dtype, rows, n), drawn(dtype, columns, n)
    around = np.full((rows, columns + 2), np.nan, dtype)
    tiles.dot_rows(x, y, around[:, 1:-1])
    near(around[:, 1:-1], x @ y.T)
    assert np.isnan(around[:, [0, -1]]).all()  # nothing beside it was written


@pytest.mark.parametrize("turned", [False, True])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_add_product(shape: tuple[int, int, int], dtype: Any, turned: bool) -> None:
    rows, columns, n = shape
    x = drawn(dtype, n, rows).T if turned else drawn(dtype, rows, n)
    y = drawn(dtype, n, columns)
    around = np.full((rows, columns + 2), np.nan, dtype)
    tiles.add_product(x, y, around[:, 1:-1], False)
    near(around[:, 1:-1], x @ y)
    tiles.add_product(x, y, around[:, 1:-1], True)
    near(around[:, 1:-1], 2 * (x @ y))
    assert np.isnan(around[:, [0, -1]]).all()


def test_what_is_no_number_stays_in_its_row_and_column() -> None:
    x, y = drawn(np.float32, 13, 40), drawn(np.float32, 40, 70)
    x[3, 7], y[5, 11] = np.nan, np.inf
    found, expected = np.empty((13, 70), np.float32), x @ y
    tiles.add_product(x, y, found, False)
    assert np.array_equal(np.isfinite(found), np.isfinite(expected))
    tiles.dot_rows(x, np.ascontiguousarray(y.T), found)
    assert np.array_equal(np.isfinite(found), np.isfinite(expected))


def test_narrow_registers(tmp_path: Path) -> None:
    """As on a processor without AVX-512; with a cache of its own, as the code differs."""
    code = """
import llvmlite.binding as llvm
features = llvm.get_host_cpu_features()
features["avx512f"] = False
llvm.get_host_cpu_features = lambda: features
import pytest, sys
from tinygrad_mnist.backends.numba_kernels import tiles
assert (tiles.REGISTER, tiles.HIGH) == (32, 2)
sys.exit(pytest.main(["-q", "-p", "no:cacheprovider", *sys.argv[1:]]))
"""
    command = [sys.executable, "-c", code, __file__, "-k", "not registers"]
    environment = {**os.environ, "NUMBA_CACHE_DIR": str(tmp_path)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
