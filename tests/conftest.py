"""Every test that takes ``backend`` runs on all of them; what cannot run here says why."""

from __future__ import annotations

from collections import Counter
from functools import cache
from typing import Any

import pytest
from cases import ROWS
from strict_backend import StrictBackend

from tinygrad_mnist import config
from tinygrad_mnist.backend import BackendError, registered, resolve
from tinygrad_mnist.kernels import Backend

NAMES = list(dict.fromkeys(["numpy", "numba", "cupy", *registered(), "strict"]))
BACKENDS = [pytest.param(n, marks=pytest.mark.gpu if n == "cupy" else ()) for n in NAMES]

_drawn: Counter[tuple[str, str]] = Counter()  # (row, backend) → cases compared


def pytest_configure() -> None:
    """A required backend that is misspelt would be required of no test."""
    unknown = [name for name in config.required_backends() if name not in NAMES]
    if unknown:
        raise pytest.UsageError(
            f"{config.REQUIRE} names {', '.join(map(repr, unknown))}; "
            f"expected some of {', '.join(NAMES)}"
        )


@cache
def _load(name: str) -> Backend | str:
    """The backend, or why it cannot run here."""
    if name == "strict":
        return StrictBackend()
    if name not in registered():
        return f"the backend {name!r} is not registered"
    try:
        return resolve(name, "the test run")
    except BackendError as error:
        return str(error)


@pytest.fixture(params=BACKENDS)
def backend(request: pytest.FixtureRequest) -> Backend:
    """Each backend; one that ``TINYGRAD_MNIST_REQUIRE`` names must not be skipped."""
    found = _load(request.param)
    if isinstance(found, Backend):
        return found
    if request.param in config.required_backends():
        pytest.fail(f"{config.REQUIRE} names {request.param!r}: {found}")
    pytest.skip(found)


@pytest.fixture
def usable() -> list[Backend]:
    """All backends that run here."""
    return [b for b in map(_load, NAMES) if isinstance(b, Backend)]


@pytest.fixture
def strict() -> StrictBackend:
    """A strict backend of its own, with nothing pending."""
    return StrictBackend()


@pytest.fixture
def drawn() -> Counter[tuple[str, str]]:
    """Where the op tests count what they compared, for the summary."""
    return _drawn


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """How much the op table covered in this run."""
    if not _drawn:
        return
    backends = sorted({backend for _, backend in _drawn})
    waived = [row for row in ROWS if row.second is not None]
    terminalreporter.write_sep("-", "op table")
    terminalreporter.write_line(
        f"{len(_drawn)} rows × backends ({len(ROWS)} rows; {', '.join(backends)}), "
        f"{sum(_drawn.values())} cases; {len(waived)} rows claim no second gradient"
        f"{': ' if waived else ''}{', '.join(row.name for row in waived)}"
    )
