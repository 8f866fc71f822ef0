"""The rows of the op table on every backend, beside NumPy's."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np

from tinygrad_mnist.autograd.backward import grad
from tinygrad_mnist.autograd.graph import wrap
from tinygrad_mnist.backend import use_backend
from tinygrad_mnist.dispatch import call
from tinygrad_mnist.jit import jit
from tinygrad_mnist.kernels import Backend
from tinygrad_mnist.random import manual_seed
from tinygrad_mnist.tensor import Tensor
from tinygrad_mnist.verification.cases import (
    BY_FAMILY,
    Case,
    Row,
    array_on,
    cases_of,
    several,
    tensors,
)
from tinygrad_mnist.verification.cases.direct import Direct
from tinygrad_mnist.verification.differences import magnitude
from tinygrad_mnist.verification.extremes import extremes, flushes, without_denormals
from tinygrad_mnist.verification.outcomes import (
    F32,
    F64,
    REFERENCE,
    Column,
    NotRecordableError,
    Outcome,
    Pair,
    compare,
)

Arrays = list[np.ndarray]

# What is left of huge numbers of both signs in a sum depends on the order in which it is added.
SUMS = {row.name for family in ("reductions", "products", "images") for row in BY_FAMILY[family]}


# ---- ops


def compare_op(row: Row, outcomes: Sequence[Outcome]) -> None:
    """Each case of an op, in float64 and float32: its results and its first gradients.

    The gradients are those of a random projection of the results. Of ``extremes`` there are the
    results alone.
    """
    cases = cases_of(row)
    for found in cases:
        for dtype in _dtypes(found):
            case = f"{row.name} of {_shapes(found)} in {dtype}"
            pairs = partial(_pairs, row, found, dtype)
            compare(outcomes, row.name, case, dtype, partial(_run, row, found, dtype), pairs)
    for found, ordinary, dtype in _special(extremes(row.name, cases), outcomes):
        like = [ordinary, _without_signs(found)] if row.name in SUMS else [ordinary]
        _compare_extreme(
            outcomes,
            row.name,
            f"{row.name} of {_shapes(found)} with special values in {dtype}",
            dtype,
            partial(_run_forward, row, found, dtype),
            [partial(_run_forward, row, each, dtype) for each in like],
        )


def _projection(row: Row, found: Case, dtype: np.dtype) -> Arrays:
    """A random weight for each number in the results that have a gradient."""
    draw = np.random.default_rng(zlib.crc32(row.name.encode()))
    results = several(row.op(*tensors(row, found, REFERENCE, dtype), **found.static))
    return [np.asarray(draw.standard_normal(y.shape), y.dtype) for y in results if y.requires_grad]


def _run(row: Row, found: Case, dtype: np.dtype, column: Column) -> tuple[Arrays, Arrays]:
    """The results of a case and its gradients. NotRecordableError where it cannot be recorded."""
    backend = column.backend
    weights = [
        wrap(Tensor, backend.asarray(w.copy()), backend) for w in _projection(row, found, dtype)
    ]

    def function(*inputs: Any) -> tuple[Any, Any]:
        results = several(row.op(*inputs, **found.static))
        outputs = [y for y in results if y.requires_grad]
        targets = [x for x in inputs if isinstance(x, Tensor) and x.requires_grad]
        return results, grad(outputs, targets, weights) if outputs else ()

    results, gradients = _call(function, row, found, dtype, column)
    return _on_host(results), _on_host(gradients)


def _run_forward(row: Row, found: Case, dtype: np.dtype, column: Column) -> Arrays:
    """The results of a case. NotRecordableError where it cannot be recorded."""

    def function(*inputs: Any) -> Any:
        return several(row.op(*inputs, **found.static))

    return _on_host(_call(function, row, found, dtype, column))


def _call(
    function: Callable[..., Any], row: Row, found: Case, dtype: np.dtype, column: Column
) -> Any:
    """``function`` of the case's tensors on the column's backend, recorded where the column is."""

    def called(function: Callable[..., Any]) -> Any:
        manual_seed(found.static.get("seed", 0))
        return function(*tensors(row, found, column.backend, dtype))

    with use_backend(column.backend):
        return _replayed(function, called) if column.jit else called(function)


def _replayed(function: Callable[..., Any], called: Callable[..., Any]) -> Any:
    """What the third call of the recorded function gives."""
    recorded = jit(function)
    try:
        called(recorded)
    except RuntimeError as error:
        if str(error).startswith("jit: "):  # refused at the first call: it cannot be recorded
            raise NotRecordableError(str(error)) from None
        raise
    called(recorded)
    if not recorded.programs:
        raise NotRecordableError
    return called(recorded)


def _on_host(found: Sequence[Tensor]) -> Arrays:
    return [y.backend.to_numpy(y.array) for y in found]


def _pairs(
    row: Row,
    case: Case,
    dtype: np.dtype,
    found: tuple[Arrays, Arrays],
    expected: tuple[Arrays, Arrays],
) -> Iterator[Pair]:
    """Each array beside NumPy's; gradients are measured by the largest of the case's.

    A sum is measured by what it would be if nothing cancelled, if that is larger.
    """
    sizes = [magnitude(y) for y in expected[0]]
    if row.name in SUMS:
        unsigned = _run_forward(row, _without_signs(case), dtype, Column(REFERENCE, jit=False))
        sizes = [max(size, magnitude(y)) for size, y in zip(sizes, unsigned, strict=True)]
    for i, (y, reference, size) in enumerate(zip(found[0], expected[0], sizes, strict=True), 1):
        yield Pair(f"result {i}", y, reference, size)
    size = max(map(magnitude, expected[1]), default=0.0)
    for i, (dX, reference) in enumerate(zip(found[1], expected[1], strict=True), 1):
        yield Pair(f"gradient {i}", dX, reference, size)


def _pairs_whole(found: Arrays, expected: Arrays) -> Iterator[Pair]:
    """Each array beside NumPy's, measured by its largest number."""
    for i, (y, reference) in enumerate(zip(found, expected, strict=True), 1):
        yield Pair(f"result {i}", y, reference)


def _dtypes(found: Case) -> tuple[np.dtype, ...]:
    """float64 as drawn, and float32 where that is another case."""
    return (F64, F32) if any(x.dtype == F64 for x in _flat(found.inputs)) else (F64,)


def _shapes(found: Case) -> str:
    """The inputs' shapes, or what they are, and the keywords."""
    given = [_shape(x) for x in found.inputs]
    return f"({', '.join([*given, *(f'{name}={x}' for name, x in found.static.items())])})"


def _shape(x: Any) -> str:
    return f"[{', '.join(map(_shape, x))}]" if isinstance(x, list) else str(getattr(x, "shape", x))


# ---- special values


def _special(
    made: Sequence[tuple[Case, Case]], outcomes: Sequence[Outcome]
) -> Iterator[tuple[Case, Case, np.dtype]]:
    """Each case in each dtype, with the ordinary one; for all, what one of them makes of it."""
    flushed = any(flushes(outcome.column.backend) for outcome in outcomes)
    for found, ordinary in made:
        for dtype in _dtypes(found):
            without = flushed and dtype == F32
            yield without_denormals(found) if without else found, ordinary, dtype


def _without_signs(found: Case) -> Case:
    """The case with |x| for each array of floats: what sums would be if nothing cancelled."""

    def made(x: Any) -> Any:
        if isinstance(x, list):
            return [made(each) for each in x]
        return np.asarray(np.abs(x)) if isinstance(x, np.ndarray) and x.dtype == F64 else x

    return replace(found, inputs=tuple(map(made, found.inputs)))


def _compare_extreme(
    outcomes: Sequence[Outcome],
    op: str,
    case: str,
    dtype: np.dtype,
    run: Callable[[Column], Arrays],
    like: Sequence[Callable[[Column], Arrays]],
) -> None:
    """A case with special values; the first of ``like`` runs it as it was.

    Each number is measured by itself, as what is huge excuses no other, but at least by the largest
    of the ordinary results, and by what the second of ``like`` gives in its place, as sums cancel.
    """

    def pairs(found: Arrays, expected: Arrays) -> Iterator[Pair]:
        ordinary, *unsigned = [each(Column(REFERENCE, jit=False)) for each in like]
        for i, (y, reference) in enumerate(zip(found, expected, strict=True)):
            sizes = [_magnitudes(each) for each in (reference, *(made[i] for made in unsigned))]
            size = np.maximum.reduce([*sizes, np.full(y.shape, magnitude(ordinary[i]))])
            yield Pair(f"result {i + 1}", y, reference, size)

    with np.errstate(all="ignore"):
        compare(outcomes, op, case, dtype, run, pairs)


def _magnitudes(x: np.ndarray) -> np.ndarray:
    """Each |x|; 0 for what is not finite, and for what is not of floats."""
    return np.where(np.isfinite(x), np.abs(x), 0) if x.dtype.kind == "f" else np.zeros(x.shape)


# ---- kernels that no op reaches


def compare_direct(row: Direct, outcomes: Sequence[Outcome]) -> None:
    """Each case of a kernel called by hand, in both dtypes: its results, or what it wrote."""
    cases = row.draw(np.random.default_rng(zlib.crc32(row.kernel.encode())))
    for found in cases:
        for dtype in _dtypes(found):
            case = f"{row.kernel} of {_shapes(found)} in {dtype}"
            run = partial(_called, row, found, dtype)
            compare(outcomes, row.kernel, case, dtype, run, _pairs_whole)
    # The rest of an optimizer's lists is what its earlier updates left: averages of squares, say.
    for found, ordinary, dtype in _special(extremes(row.kernel, cases, inputs=2), outcomes):
        _compare_extreme(
            outcomes,
            row.kernel,
            f"{row.kernel} of {_shapes(found)} with special values in {dtype}",
            dtype,
            partial(_called, row, found, dtype),
            [partial(_called, row, ordinary, dtype)],
        )


def _called(row: Direct, found: Case, dtype: np.dtype, column: Column) -> Arrays:
    backend = column.backend
    arrays = [_on(backend, x, dtype) for x in found.inputs]
    result = call(backend, row.kernel, arrays, found.static)
    given = arrays if result is None else several(result)
    return [backend.to_numpy(y) for y in _flat(given)]


def _on(backend: Backend, x: Any, dtype: np.dtype) -> Any:
    if isinstance(x, list):
        return [_on(backend, each, dtype) for each in x]
    return array_on(backend, x, dtype) if isinstance(x, np.ndarray) else x


def _flat(found: Sequence[Any]) -> Iterator[Any]:
    """The arrays, those in lists too."""
    for x in found:
        if isinstance(x, list):
            yield from _flat(x)
        elif hasattr(x, "dtype"):
            yield x
