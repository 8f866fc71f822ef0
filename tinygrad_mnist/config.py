"""Every environment variable this package reads or sets; no other module does.

Each function reads the variable when it is called, so a change made before the first use counts;
``given`` alone tells what there was when the package was imported.
"""

import os

BACKEND = "TINYGRAD_MNIST_BACKEND"
DATA = "TINYGRAD_MNIST_DATA"
PROFILE = "TINYGRAD_MNIST_PROFILE"
REQUIRE = "TINYGRAD_MNIST_REQUIRE"
TF32 = "TINYGRAD_MNIST_TF32"

_PREFIX = "TINYGRAD_MNIST_"
KNOWN = frozenset({BACKEND, DATA, PROFILE, REQUIRE, TF32})
_GIVEN = dict(os.environ)  # before this package's backends and their libraries add to it


def backend() -> str:
    """The backend asked for by ``TINYGRAD_MNIST_BACKEND``; ``"auto"`` where unset or empty."""
    return os.environ.get(BACKEND, "").strip() or "auto"


def data_folder() -> str | None:
    """The folder named by ``TINYGRAD_MNIST_DATA``, or None where unset or empty."""
    return os.environ.get(DATA, "").strip() or None


def profile() -> bool:
    """Whether ``TINYGRAD_MNIST_PROFILE`` asks for a profile: 1; 0, unset or empty do not.

    ValueError for anything else.
    """
    return _switch(PROFILE)


def tf32() -> bool:
    """Whether ``TINYGRAD_MNIST_TF32`` lets a GPU round the factors of float32 products to 11 bits.

    As for ``profile``: 1 or 0, ValueError for anything else.
    """
    return _switch(TF32)


def _switch(name: str) -> bool:
    value = os.environ.get(name, "").strip()
    if value not in ("", "0", "1"):
        raise ValueError(f"the variable {name} is {value!r}: expected 1, or 0 or nothing")
    return value == "1"


def required_backends() -> tuple[str, ...]:
    """The comma-separated backends in ``TINYGRAD_MNIST_REQUIRE``: a test run must not skip them."""
    names = os.environ.get(REQUIRE, "").split(",")
    return tuple(name.strip() for name in names if name.strip())


def beginning_with(prefixes: str | tuple[str, ...]) -> dict[str, str]:
    """The variables whose names begin so, of other libraries too, in the order of their names."""
    return {name: os.environ[name] for name in sorted(os.environ) if name.startswith(prefixes)}


def given(prefixes: tuple[str, ...]) -> dict[str, str]:
    """``beginning_with``, of what the user set: not this package, nor a library that it loads."""
    return {name: _GIVEN[name] for name in sorted(_GIVEN) if name.startswith(prefixes)}


def rest_openmp() -> None:
    """Let idle threads of an OpenMP not yet loaded rest soon, where nobody told it otherwise."""
    os.environ.setdefault("GOMP_SPINCOUNT", "1000")


def unknown_variables() -> tuple[str, ...]:
    """Variables that begin with ``TINYGRAD_MNIST_`` and mean nothing here: probably misspelt."""
    return tuple(name for name in beginning_with(_PREFIX) if name not in KNOWN)
