"""Every test that takes ``backend`` runs on all of them; what cannot run here says why."""

from __future__ import annotations

import importlib.util
import re
from collections import Counter
from collections.abc import Callable, Generator
from functools import cache
from pathlib import Path
from typing import Any

import parity
import pytest
from strict_backend import StrictBackend

from tinygrad_mnist import config
from tinygrad_mnist.backend import BackendError, registered, resolve
from tinygrad_mnist.kernels import Backend
from tinygrad_mnist.machine import described
from tinygrad_mnist.verification.cases import ROWS

NAMES = list(dict.fromkeys(["numpy", "numba", "cupy", *registered(), "strict"]))
BACKENDS = [pytest.param(n, marks=pytest.mark.gpu if n == "cupy" else ()) for n in NAMES]

# What a machine with a GPU may be without; what needs it is skipped.
OPTIONAL = {"filelock", "hypothesis", "jinja2", "llvmlite", "matplotlib", "numba", "PIL", "pooch"}
OPTIONAL |= {"safetensors", "scipy", "threadpoolctl", "torch", "tqdm"}

KINDS = ("forward", "gradient", "second")
_drawn: Counter[tuple[str, str, str]] = Counter()  # (row, backend, kind) → cases compared
_differences: dict[tuple[str, str], float] = {}  # (part, name) → the largest difference


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--op-table", metavar="FILE", help="write the table of ops × backends to FILE (Markdown)"
    )
    parser.addoption(
        "--parity-table",
        metavar="FILE",
        help="write the differences to PyTorch of layers and optimizers to FILE (Markdown)",
    )


def pytest_configure() -> None:
    """A required backend that is misspelt would be required of no test."""
    unknown = [name for name in config.required_backends() if name not in NAMES]
    if unknown:
        raise pytest.UsageError(
            f"{config.REQUIRE} names {', '.join(map(repr, unknown))}; "
            f"expected some of {', '.join(NAMES)}"
        )


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report(collector: pytest.Collector) -> Generator[None, Any, Any]:
    """A module of tests that imports what is not installed is skipped, and says so."""
    report = yield
    needed = _needed(str(report.longrepr)) if report.failed else None
    if needed is not None:
        report.outcome = "skipped"
        report.longrepr = (str(collector.path), 1, f"Skipped: {needed}")
    return report


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Generator[None, Any, Any]:
    """And so is a test that comes to need it."""
    try:
        return (yield)
    except ImportError as error:
        needed = _needed(f"No module named '{error.name}'")
        if needed is None:
            raise
    pytest.skip(needed)


def _needed(error: str) -> str | None:
    """What says that an optional package is not installed, if that is the error."""
    names = re.findall(r"No module named '(\w+)", error)
    if not names or names[-1] not in OPTIONAL or importlib.util.find_spec(names[-1]) is not None:
        return None
    return f"the package {names[-1]} is not installed"


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
def drawn() -> Counter[tuple[str, str, str]]:
    """Where the op tests count what they compared, for the summary."""
    return _drawn


@pytest.fixture
def difference() -> Callable[[str, str, float], None]:
    """Where the parity tests say how far they are from PyTorch: (part, name, difference)."""

    def record(part: str, name: str, found: float) -> None:
        _differences[part, name] = max(found, _differences.get((part, name), 0.0))

    return record


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """How much the op table and the comparison with PyTorch covered in this run."""
    if parity.summary():
        terminalreporter.write_sep("-", "parity with PyTorch")
        terminalreporter.write_line(parity.summary())
    if _differences:
        _parity_summary(terminalreporter)
    if not _drawn:
        return
    backends = sorted({backend for _, backend, _ in _drawn})
    terminalreporter.write_sep("-", "op table")
    summary = _summary(backends)
    terminalreporter.write_line(summary)
    file = terminalreporter.config.getoption("--op-table")
    if file:
        command = "command: pytest tests/test_ops.py --op-table"
        text = f"{described('numpy', 'numba')}, {command}\n\n{summary}\n\n{_table(backends)}"
        Path(file).write_text(text, encoding="utf-8")
        terminalreporter.write_line(f"wrote {file}")


def _parity_summary(terminalreporter: Any) -> None:
    parts = Counter(part for part, _ in _differences)
    terminalreporter.write_sep("-", "largest differences to PyTorch")
    for part, count in parts.items():
        worst = max((d, name) for (p, name), d in _differences.items() if p == part)
        terminalreporter.write_line(f"{count} {part}: at most {worst[0]:.1e} ({worst[1]})")
    file = terminalreporter.config.getoption("--parity-table")
    if file:
        rows = [f"| {p} | {name} | {d:.1e} |" for (p, name), d in sorted(_differences.items())]
        table = ["| part | name | largest difference |", "| --- | --- | --- |", *rows]
        command = "command: pytest -k parity --parity-table"
        about = f"{described('numpy', 'numba', 'torch')}, {command}"
        Path(file).write_text("\n".join([about, "", *table, ""]), "utf-8")
        terminalreporter.write_line(f"wrote {file}")


def _summary(backends: list[str]) -> str:
    pairs = {(row, backend) for row, backend, _ in _drawn}
    counts = {kind: sum(n for (_, _, k), n in _drawn.items() if k == kind) for kind in KINDS}
    waived = [f"{row.name} ({row.second})" for row in ROWS if row.second is not None]
    return (
        f"{len(pairs)} rows × backends ({len(ROWS)} rows; {', '.join(backends)}), "
        f"{counts['forward']} cases, {counts['gradient']} with gradients, {counts['second']} with "
        f"second gradients; {len(waived)} rows claim no second gradient"
        f"{': ' if waived else ''}{', '.join(waived)}"
    )


def _table(backends: list[str]) -> str:
    """One line per row of the table; a cell has the cases compared: values, gradients, second."""
    lines = [f"| op | {' | '.join(backends)} |", f"| --- |{' --- |' * len(backends)}"]
    for row in (r for r in ROWS if any(_drawn[r.name, b, KINDS[0]] for b in backends)):
        cells = [" / ".join(str(_drawn[row.name, b, kind]) for kind in KINDS) for b in backends]
        lines.append(f"| {row.name} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"
