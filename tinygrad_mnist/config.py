"""Every environment variable this package reads; no other module reads one.

Each function reads the variable when it is called, so a change made before the first use counts.
"""

import os

BACKEND = "TINYGRAD_MNIST_BACKEND"
DATA = "TINYGRAD_MNIST_DATA"
REQUIRE = "TINYGRAD_MNIST_REQUIRE"

_PREFIX = "TINYGRAD_MNIST_"
# Of other libraries: how many threads they take, and for which processor their kernels are.
_STEERING: tuple[str, ...]
_STEERING = ("OPENBLAS_", "GOTO_", "OMP_", "GOMP_", "KMP_", "MKL_", "BLIS_", "VECLIB_", "ONEDNN_")
_STEERING += ("NPY_DISABLE_", "NPY_ENABLE_", "NUMBA_NUM_", "NUMBA_THREADING_", "NUMBA_CPU_")
_STEERING += ("NUMBA_DISABLE_JIT", "NUMBA_OPT", "ATEN_CPU_", "TF_NUM_", "TF_ENABLE_", "XLA_FLAGS")
_STEERING += ("KERAS_BACKEND",)
KNOWN = frozenset({BACKEND, DATA, REQUIRE})


def backend() -> str:
    """The backend asked for by ``TINYGRAD_MNIST_BACKEND``; ``"auto"`` where unset or empty."""
    return os.environ.get(BACKEND, "").strip() or "auto"


def data_folder() -> str | None:
    """The folder named by ``TINYGRAD_MNIST_DATA``, or None where unset or empty."""
    return os.environ.get(DATA, "").strip() or None


def required_backends() -> tuple[str, ...]:
    """The comma-separated backends in ``TINYGRAD_MNIST_REQUIRE``: a test run must not skip them."""
    names = os.environ.get(REQUIRE, "").split(",")
    return tuple(name.strip() for name in names if name.strip())


def steering_variables() -> dict[str, str]:
    """Variables by which other libraries choose threads and kernels, and so the speed of ours."""
    return {name: os.environ[name] for name in sorted(os.environ) if name.startswith(_STEERING)}


def unknown_variables() -> tuple[str, ...]:
    """Variables that begin with ``TINYGRAD_MNIST_`` and mean nothing here: probably misspelt."""
    return tuple(
        sorted(name for name in os.environ if name.startswith(_PREFIX) and name not in KNOWN)
    )
