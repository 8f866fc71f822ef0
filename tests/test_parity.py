"""The package against PyTorch, op by op, on calls drawn at random.

A failure shows each call as Python for both libraries, to be pasted after
``import numpy as np, torch, operator, builtins, tinygrad_mnist as tg; from numpy import nan, inf``
(and ``tg.set_backend("numba")`` where it says so).
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import parity
import pytest
from parity.compare import Compared, compared
from parity.differences import DIFFERENCES, Difference, stated
from parity.draws import Call, Op, drawn
from parity.sides import Side, code, side

import tinygrad_mnist as tg
from tinygrad_mnist.backend import use_backend

torch: Any = pytest.importorskip("torch", reason="PyTorch is not installed")

SHOWN = 5  # differences in a failure's message
COMPILED = 0.2  # the share of the calls that run on the Numba backend

every_op = pytest.mark.parametrize("op", parity.OPS, ids=[op.name for op in parity.OPS])


@pytest.fixture(scope="module")
def theirs() -> Iterator[Side]:
    """PyTorch; calls as small as these are fastest on one thread."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield side(torch, "torch", "bool", _quiet, force=True)
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def ours() -> Side:
    return side(tg, "tg", "bool_")


@every_op
def test_op(op: Op, theirs: Side, ours: Side) -> None:
    _check(op, range(parity.CASES), theirs, ours)


@pytest.mark.slow
@every_op
def test_op_at_length(op: Op, theirs: Side, ours: Side) -> None:
    _check(op, range(parity.CASES, 21 * parity.CASES), theirs, ours)


@pytest.mark.parametrize("difference", DIFFERENCES, ids=[d.name for d in DIFFERENCES])
def test_stated_difference_is_met(difference: Difference, theirs: Side, ours: Side) -> None:
    """What is stated of no call, or holds no longer, is to be struck off."""
    ops = [op for op in parity.OPS if re.fullmatch(difference.ops, op.name)]
    for case in range(20 * parity.CASES):
        for op in ops:
            _, call, _, outcome = next(_compared(op, [case], theirs, ours))
            found = outcome.found
            if found and stated(op, call, outcome.theirs, found.kind) is difference:
                return
    pytest.fail(f"no call differs so: {difference.reason}", pytrace=False)


@pytest.mark.slow
@every_op
def test_draws_leave_nothing_to_chance(op: Op, theirs: Side) -> None:
    """PyTorch agrees with itself: no call asks for what is undefined or random."""
    for path, call, _, outcome in _compared(op, range(parity.CASES), theirs, theirs):
        assert outcome.found is None or outcome.found.kind == "error", code("torch", path, call)


Case = tuple[str, Call, str, Compared]


def _compared(op: Op, cases: Iterable[int], torch: Side, ours: Side) -> Iterator[Case]:
    """Each case's path, call, backend and outcome."""
    for case in cases:
        seed = parity.seed(op, case)
        path, call = drawn(op, seed)
        backend = "numba" if np.random.default_rng(seed).random() < COMPILED else "numpy"
        with np.errstate(all="ignore"), use_backend(backend):
            outcome = compared(op, path, call, torch, ours, seed)
        yield path, call, backend, outcome


def _check(op: Op, cases: range, torch: Side, ours: Side) -> None:
    """Run and count the op's cases; fail with those that differ and were not meant to."""
    reports: list[tuple[str, str]] = []
    parity.counts["ops"] += 1
    for path, call, backend, outcome in _compared(op, cases, torch, ours):
        _count(outcome)
        kind, text = _judged(op, path, call, outcome)
        if text:
            reports.append((kind, f"{kind} on {backend}\n  {text}"))
    if reports:
        parity.counts["unstated"] += len(reports)
        firsts = dict(reversed(reports))  # one of each kind
        shown = [*firsts.values(), *(text for _, text in reports if text not in firsts.values())]
        head = f"{op.name}: {len(reports)} of {len(cases)} calls differ"
        pytest.fail("\n\n".join([head, *shown[:SHOWN]]), pytrace=False)


def _count(outcome: Compared) -> None:
    parity.counts["cases"] += 1
    parity.counts["errors"] += outcome.reached == "error"
    parity.counts["gradients"] += "gradient" in outcome.reached
    parity.counts["second gradients"] += outcome.reached == "second gradient"


def _judged(op: Op, path: str, call: Call, outcome: Compared) -> tuple[str, str]:
    """The kind of a difference that is not meant, and the call on both sides; or twice nothing."""
    found = outcome.found
    meant = stated(op, call, outcome.theirs, found.kind if found else None)
    if found is not None and meant is not None and re.fullmatch(meant.kind, found.kind):
        parity.counts[f"stated {found.kind}"] += 1
        return "", ""
    if found is not None:
        theirs, ours = code("torch", path, call), code("tg", path, call)
        return found.kind, f"{theirs}\n    -> {found.theirs}\n  {ours}\n    -> {found.ours}"
    if meant is not None and meant.always and not call.spoilt:
        return "none", f"{code('tg', path, call)}\n    but it is stated that {meant.reason}"
    return "", ""


@contextmanager
def _quiet() -> Iterator[None]:
    """Without PyTorch's warnings; our own are failures."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
