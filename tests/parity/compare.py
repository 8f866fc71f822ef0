"""One call on both sides, and what differs between the two."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from parity.draws import Call, Dtype, Op, parts
from parity.sides import Run, Side, leaves, run

KINDS = (
    "missing",  # we have no such op
    "refused",  # an error where PyTorch has a result
    "accepted",  # a result where PyTorch has an error
    "error",  # another error than the house's, or one that does not name the op
    "structure",  # a tuple, a tensor or a number where PyTorch has something else
    "dtype",
    "shape",
    "values",
    "memory",  # an input changed, or an in-place result lies elsewhere
    "gradient",
    "second gradient",
)
ERRORS = (ValueError, IndexError, TypeError, RuntimeError, OverflowError)
ROUNDING = {"float32": 2e-5, "float64": 1e-11}


@dataclass(frozen=True)
class Found:
    """A difference: of what kind, and what either side has."""

    kind: str
    theirs: str
    ours: str


@dataclass(frozen=True)
class Compared:
    """A call that ran on both sides: what differs, and what was there to compare."""

    theirs: Run
    found: Found | None
    reached: str  # "error", "result", "gradient" or "second gradient"


@dataclass(frozen=True)
class Pair:
    """A call of an op, and what it gave on both sides."""

    op: Op
    call: Call
    torch: Side
    ours: Side
    theirs: Run
    own: Run

    def close(self, expected: np.ndarray, found: np.ndarray, rough: float = 1.0) -> bool:
        """Equal but for the rounding of the call's least exact dtype; NaN equals NaN.

        Relative to the largest finite number, for where numbers cancel.
        """
        if expected.dtype.kind != "f":
            return bool(np.array_equal(expected, found))
        dtypes = {str(x.dtype) for x in [expected, *self.theirs.memory]}
        dtypes |= {x.name for x in parts((self.call.args, self.call.kwargs)) if type(x) is Dtype}
        rounding = max(ROUNDING.get(dtype, 0) for dtype in dtypes) * self.op.rough * rough
        finite = np.abs(expected[np.isfinite(expected)])
        scale = max(1.0, float(finite.max())) if finite.size else 1.0
        return bool(np.allclose(found, expected, rounding, rounding * scale, equal_nan=True))


def compared(op: Op, path: str, call: Call, torch: Side, ours: Side, seed: Any) -> Compared:
    """Run the call on both sides and compare as far as it goes."""
    theirs = run(torch, path, call)
    if call.spoilt and theirs.error is None:
        return Compared(theirs, None, "result")  # PyTorch took it for an argument of older days
    try:
        own = run(ours, path, call)
    except AttributeError as error:
        return Compared(theirs, Found("missing", "", str(error)), "result")
    if theirs.error is not None or own.error is not None:
        return Compared(theirs, _errors(op, call, theirs, own), "error")
    pair = Pair(op, call, torch, ours, theirs, own)
    found = _results(pair)
    if found is not None or not (call.values and call.gradients):
        return Compared(theirs, found, "result")
    return _derivatives(pair, seed)


# ---- errors


def _errors(op: Op, call: Call, theirs: Run, own: Run) -> Found | None:
    if theirs.error is None:
        return Found("refused", _short(theirs.result), _said(own.error))
    if own.error is None:
        return Found("accepted", _said(theirs.error), _short(own.result))
    known = isinstance(own.error, ERRORS) and "\n" not in str(own.error)
    named = rf"(?<!\w)_*({'|'.join(_names(op))})_*(?!\w)"
    if known and (call.spoilt or re.search(named, str(own.error))):
        return None  # of what is no tensor, dim or number at all, Python may speak
    return Found("error", _said(theirs.error), _said(own.error))


def _names(op: Op) -> list[str]:
    """What an error may call the op."""
    return [*(path.split(".", 1)[1].strip("_") for path in op.paths), *op.says]


def _said(error: Exception | None) -> str:
    return f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"


def _short(result: Any) -> str:
    text = re.sub(r"\s+", " ", repr(result))
    return text if len(text) < 300 else f"{text[:300]}…"


# ---- results


def _results(pair: Pair) -> Found | None:
    a, b = pair.theirs, pair.own
    for kind in _unlike(pair, a.result, b.result):
        return Found(kind, _described(pair.torch, a.result), _described(pair.ours, b.result))
    if pair.op.inplace and (a.result is a.inputs[0]) != (b.result is b.inputs[0]):
        return Found("memory", "the first argument itself", "another tensor")
    for i, (x, y) in enumerate(zip(a.memory, b.memory, strict=True)):
        if not pair.close(x, y):
            return Found("memory", f"tensor {i} is {_short(x)}", f"tensor {i} is {_short(y)}")
    return None


def _unlike(pair: Pair, a: Any, b: Any) -> Iterator[str]:
    """The kinds in which two results differ."""
    if isinstance(a, pair.torch.tensor) or isinstance(b, pair.ours.tensor):
        yield from _unlike_tensors(pair, a, b)
    elif isinstance(a, list | tuple) and isinstance(b, list | tuple):
        if isinstance(a, list) != isinstance(b, list) or len(a) != len(b) or _odd_names(a, b):
            yield "structure"
            return
        for x, y in zip(a, b, strict=True):
            yield from _unlike(pair, x, y)
    elif type(a) is not type(b):
        yield "structure"
    elif a != b and not (a != a and b != b):
        yield "values"


def _odd_names(a: Any, b: Any) -> bool:
    """Whether a named tuple lacks names or has others."""
    names = getattr(type(a), "__match_args__", ())
    return bool(names) and getattr(type(b), "__match_args__", ()) != names


def _unlike_tensors(pair: Pair, a: Any, b: Any) -> Iterator[str]:
    if not (isinstance(a, pair.torch.tensor) and isinstance(b, pair.ours.tensor)):
        yield "structure"
        return
    x, y = pair.torch.to_numpy(a), pair.ours.to_numpy(b)
    if x.dtype != y.dtype:
        yield "dtype"
    if x.shape != y.shape:
        yield "shape"
    elif pair.call.values and not pair.close(x, y):
        yield "values"


def _described(library: Side, result: Any) -> str:
    if isinstance(result, library.tensor):
        return _listed([library.to_numpy(result)])
    if isinstance(result, list | tuple):
        inner = ", ".join(_described(library, item) for item in result)
        return f"{type(result).__name__}({inner})"
    return f"{type(result).__name__} {_short(result)}"


def _listed(arrays: list[np.ndarray]) -> str:
    return "; ".join(f"{a.dtype}{a.shape} {_short(a.tolist())}" for a in arrays)


# ---- derivatives


@dataclass
class Derivatives:
    """Gradients on the host; None and the error where the library has none."""

    first: list[np.ndarray] | None = None
    second: list[np.ndarray] | None = None
    error: Exception | None = None


def _derivatives(pair: Pair, seed: Any) -> Compared:
    """The gradients of a random projection of the results, and of a projection of those."""
    torch, theirs = pair.torch, pair.theirs
    results = leaves(torch, theirs.result)
    inputs = [i for i, x in enumerate(theirs.inputs) if x.requires_grad]
    outputs = [i for i, y in enumerate(results) if y.requires_grad]
    if not inputs or not outputs or pair.op.inplace:
        return Compared(theirs, None, "result")
    rng = np.random.default_rng(seed)
    seeds = [_projection(rng, torch.to_numpy(results[i])) for i in outputs]
    along = [_projection(rng, torch.to_numpy(theirs.inputs[i])) for i in inputs]
    expected, found = (
        _differentiated(
            library,
            [leaves(library, done.result)[i] for i in outputs],
            [done.inputs[i] for i in inputs],
            [library.from_numpy(seed.copy()).requires_grad_() for seed in seeds],
            [library.from_numpy(part.copy()) for part in along],
        )
        for library, done in ((torch, theirs), (pair.ours, pair.own))
    )
    if not all(np.isfinite(x).all() for x in theirs.memory if x.dtype.kind == "f"):
        expected.second = None  # 0 · ∞ in another order is something else
    return _compared_derivatives(pair, expected, found)


def _projection(rng: np.random.Generator, like: np.ndarray) -> np.ndarray:
    return np.asarray(np.round(rng.normal(0, 1, like.shape), 2)).astype(like.dtype)


def _differentiated(
    library: Side, outputs: list[Any], inputs: list[Any], seeds: list[Any], along: list[Any]
) -> Derivatives:
    """First gradients along ``seeds``; those along ``along`` by the inputs and the seeds."""
    found = Derivatives()
    try:
        first = _grad(library, outputs, inputs, seeds)
        found.first = _arrays(library, first, inputs)
        second = _grad(library, first, [*inputs, *seeds], along)
        found.second = _arrays(library, second, [*inputs, *seeds])
    except (*ERRORS, NotImplementedError) as error:
        found.error = error
    return found


def _grad(library: Side, outputs: list[Any], inputs: list[Any], seeds: list[Any]) -> list[Any]:
    """The gradients of those outputs that have any."""
    pairs = zip(outputs, seeds, strict=True)
    tracked = [(y, seed) for y, seed in pairs if y is not None and y.requires_grad]
    if not tracked:
        return [None] * len(inputs)
    outputs, seeds = [y for y, _ in tracked], [seed for _, seed in tracked]
    with library.quiet():
        return list(library.grad(outputs, inputs, seeds, create_graph=True, allow_unused=True))


def _arrays(library: Side, gradients: list[Any], inputs: list[Any]) -> list[np.ndarray]:
    """On the host; an input that was not used has zeros."""
    return [
        np.zeros_like(library.to_numpy(x)) if g is None else library.to_numpy(g)
        for g, x in zip(gradients, inputs, strict=True)
    ]


def _compared_derivatives(pair: Pair, theirs: Derivatives, own: Derivatives) -> Compared:
    reached = "result"
    orders = (
        ("gradient", theirs.first, own.first, 5.0),
        ("second gradient", theirs.second, own.second, 25.0),
    )
    for kind, expected, found, rough in orders:
        if expected is None:
            break
        reached, pair.theirs.derivatives = kind, expected
        if found is None:
            return Compared(pair.theirs, Found(kind, _listed(expected), _said(own.error)), reached)
        for a, b in zip(expected, found, strict=True):
            if a.shape != b.shape or a.dtype != b.dtype or not pair.close(a, b, rough):
                difference = Found(kind, _listed(expected), _listed(found))
                return Compared(pair.theirs, difference, reached)
    return Compared(pair.theirs, None, reached)
