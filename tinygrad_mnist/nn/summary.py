"""What a model consists of: a row for each layer, as ``Module.summary`` prints them.

What enters is a model and the shapes of its inputs; what leaves is plain data, and a table of it.
The model runs on a batch of two and on one of three: what differs between the runs is the batch's,
in shapes as in counts.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from itertools import zip_longest
from typing import TYPE_CHECKING, Any

import numpy as np

from tinygrad_mnist.autograd.graph import no_grad
from tinygrad_mnist.creation import rand, zeros
from tinygrad_mnist.dispatch import Call, Observer, changed, observe
from tinygrad_mnist.flops import multiply_adds
from tinygrad_mnist.random import Generator, drawing_from
from tinygrad_mnist.tensor import Tensor

if TYPE_CHECKING:
    from tinygrad_mnist.nn.module import Module

Shape = tuple[int | None, ...]  # None: the batch, and what it is a part of

BATCHES = (2, 3)  # not 1, which some models squeeze away
MOST = 4  # outputs of one layer that the table shows


@dataclass(frozen=True, slots=True)
class Row:
    """A layer: its calls that gave outputs of the same shapes.

    Its parameters are those that it holds itself and no row above has counted; ``multiply_adds``
    and ``output_bytes`` are those of all these calls for one sample, without those of layers in it.
    """

    path: str  # in the model; "" for itself
    layer: str  # its class
    calls: int  # 0: the model did not call it
    outputs: tuple[Shape, ...]
    parameters: int
    trainable: int
    parameter_bytes: int
    shared: bool  # it holds parameters, and rows above have counted them all
    multiply_adds: int
    output_bytes: int


@dataclass(frozen=True, slots=True)
class Summary:
    """A model, as rows whose sums are its totals."""

    model: str  # its class
    inputs: tuple[tuple[Shape, str], ...]  # with their dtypes
    outputs: tuple[Shape, ...]
    rows: tuple[Row, ...]


def summarize(model: Module, input_shape: Any, dtype: Any = None) -> Summary:
    """The layers of ``model`` in the order of their calls, and then those that it does not call.

    Rows are for layers without others in them, and for those that hold parameters or multiply
    themselves. Arguments and errors as of ``Module.summary``.
    """
    shapes = _shapes(input_shape)
    dtypes = _dtypes(dtype, len(shapes))
    with no_grad(), drawing_from(Generator(), 0), _as_it_was(model):
        given = [_inputs(model, batch, shapes, dtypes) for batch in BATCHES]
        two, three = (_traced(model, inputs) for inputs in given)
    pairs = list(zip_longest(two, three))
    if any(a is None or b is None or a.module is not b.module for a, b in pairs):
        raise RuntimeError(
            f"summary: {type(model).__name__} calls other layers for a batch of {BATCHES[1]} than "
            f"for one of {BATCHES[0]}; its layers have no shapes of their own"
        )
    return Summary(
        type(model).__name__,
        tuple((_between(x.shape, y.shape), str(x.dtype)) for x, y in zip(*given, strict=True)),
        _outputs(two[0], three[0]),
        tuple(_rows(model, pairs)),
    )


# ---- what enters


def _shapes(given: Any) -> list[tuple[int, ...]]:
    """One shape or several, without the batch. TypeError or ValueError for what are none."""
    if isinstance(given, list | tuple) and any(isinstance(each, list | tuple) for each in given):
        return [_shape(each) for each in given]
    return [_shape((given,) if _is_size(given) else given)]


def _shape(given: Any) -> tuple[int, ...]:
    if not isinstance(given, list | tuple) or not all(map(_is_size, given)):
        raise TypeError(
            "summary: expected a shape of integers without the batch, such as (1, 28, 28), or a "
            f"list of shapes, got {given!r}"
        )
    shape = tuple(map(int, given))
    if any(size < 1 for size in shape):
        raise ValueError(f"summary: expected sizes of at least 1, got the shape {shape}")
    return shape


def _is_size(given: Any) -> bool:
    return type(given) is int or isinstance(given, np.integer)


def _dtypes(given: Any, count: int) -> list[Any]:
    """One for each input. ValueError where there are more or fewer of them."""
    if not isinstance(given, list | tuple):
        return [given] * count
    if len(given) != count:
        raise ValueError(f"summary: expected a dtype for each of {count} inputs, got {len(given)}")
    return list(given)


def _inputs(
    model: Module, batch: int, shapes: Sequence[tuple[int, ...]], dtypes: Sequence[Any]
) -> list[Tensor]:
    """Floats are random numbers from 0 to 1, integers zeros: an index that every layer knows."""
    held = [x for x in (*model.parameters(), *model.buffers()) if x.is_floating_point()]
    usual, backend = (held[0].dtype, held[0].backend) if held else ("float32", None)
    made = []
    for shape, dtype in zip(shapes, dtypes, strict=True):
        x = zeros(batch, *shape, dtype=usual if dtype is None else dtype, backend=backend)
        made.append(rand(*x.shape, dtype=x.dtype, backend=backend) if x.is_floating_point() else x)
    return made


# ---- a run


@dataclass(slots=True, eq=False)
class _Called:
    """A call of a module, with the multiply-adds of its own: not those of calls inside it."""

    module: Module
    outputs: list[Tensor] = field(default_factory=list)
    multiply_adds: int = 0


class _Trace(Observer):
    """The calls of a model's modules in the order in which they began."""

    def __init__(self) -> None:
        self.calls: list[_Called] = []
        self._open: list[_Called] = []

    def enter(self, module: Module, args: Any) -> None:
        """A hook before each forward."""
        self._open.append(_Called(module))
        self.calls.append(self._open[-1])

    def leave(self, module: Module, args: Any, output: Any) -> None:
        """A hook after each forward."""
        self._open.pop().outputs = list(_tensors(output))

    def after(self, call: Call, result: Any) -> None:
        self._open[-1].multiply_adds += multiply_adds(call, result)


def _traced(model: Module, inputs: Sequence[Tensor]) -> list[_Called]:
    """The calls that ``model(*inputs)`` makes; an error notes the inputs."""
    trace = _Trace()
    handles = []
    for module in model.modules():
        handles.append(module.register_forward_pre_hook(trace.enter, prepend=True))
        handles.append(module.register_forward_hook(trace.leave, always_call=True))
    try:
        with observe(trace):
            model(*inputs)
    except Exception as error:
        given = ", ".join(f"{tuple(x.shape)} {x.dtype}" for x in inputs)
        error.add_note(
            f"in summary, which put a batch of {len(inputs[0])} before the shape: {given}"
        )
        raise
    finally:
        for handle in handles:
            handle.remove()
    return trace.calls


@contextmanager
def _as_it_was(model: Module) -> Iterator[None]:
    """The model in evaluation mode, and then everything that its modules hold as before."""
    put_back = [_putting_back(x) for x in _held(model)]
    try:
        model.eval()
        yield
    finally:
        for put in put_back:
            put()
        changed()


def _held(model: Module) -> Iterator[Any]:
    """The attributes of its modules, as dicts, and the tensors and containers among them.

    Those in containers, too; not those in objects of other classes.
    """
    seen: set[int] = set()
    left: list[Any] = [vars(module) for module in model.modules()]
    while left:
        x = left.pop()
        if id(x) in seen or not isinstance(x, Tensor | dict | list | deque | set | tuple):
            continue
        seen.add(id(x))
        if not isinstance(x, tuple):
            yield x
        if not isinstance(x, Tensor):
            left.extend(x.values() if isinstance(x, dict) else x)


def _putting_back(x: Any) -> Callable[[], None]:
    """What gives a tensor or a container back what it holds now."""
    if isinstance(x, Tensor):
        return partial(_rewrite, x, x.version[0], x.clone())
    if isinstance(x, dict):
        return partial(_refill, x, x.update, dict(x))
    if isinstance(x, set):
        return partial(_refill, x, x.update, set(x))
    return partial(_refill, x, x.extend, list(x))


def _rewrite(x: Tensor, version: int, before: Tensor) -> None:
    if x.version[0] != version:
        x.copy_(before)


def _refill(x: Any, fill: Callable[[Any], None], before: Any) -> None:
    x.clear()
    fill(before)


def _tensors(x: Any) -> Iterator[Tensor]:
    """Those in an output: itself, or in lists, tuples and dicts."""
    if isinstance(x, Tensor):
        yield x
    elif isinstance(x, dict | list | tuple):
        for each in x.values() if isinstance(x, dict) else x:
            yield from _tensors(each)


# ---- rows


def _between(a: Sequence[int], b: Sequence[int]) -> Shape:
    """A shape in which None stands for what differs."""
    return tuple(n if n == m else None for n, m in zip_longest(a, b))


def _outputs(a: _Called, b: _Called) -> tuple[Shape, ...]:
    pairs = zip(a.outputs, b.outputs, strict=False)
    return tuple(_between(x.shape, y.shape) for x, y in pairs)


def _bytes(tensors: Sequence[Tensor]) -> int:
    return sum(x.numel() * x.dtype.itemsize for x in tensors)


def _rows(model: Module, pairs: Sequence[tuple[_Called, _Called]]) -> Iterator[Row]:
    alike: dict[tuple[Module, tuple[Shape, ...]], list[tuple[_Called, _Called]]] = {}
    for a, b in pairs:
        if _is_shown(a.module) or b.multiply_adds:
            alike.setdefault((a.module, _outputs(a, b)), []).append((a, b))
    called = {a.module for a, _ in pairs}
    paths = {module: path for path, module in model.named_modules()}
    left = [each for each in paths if each not in called and _is_shown(each)]
    groups = [*alike.items(), *(((module, ()), []) for module in left)]
    counted: set[int] = set()
    for (module, outputs), calls in groups:
        held = list(module.parameters(recurse=False))
        new = [p for p in held if id(p) not in counted]
        counted.update(map(id, new))
        yield Row(
            paths[module],
            type(module).__name__,
            len(calls),
            outputs,
            sum(p.numel() for p in new),
            sum(p.numel() for p in new if p.requires_grad),
            _bytes(new),
            bool(held) and not new,
            sum(b.multiply_adds - a.multiply_adds for a, b in calls),
            sum(_bytes(b.outputs) - _bytes(a.outputs) for a, b in calls),
        )


def _is_shown(module: Module) -> bool:
    """Whether it is a layer, or holds parameters beside its layers."""
    inside = next(module.children(), None) is not None
    return not inside or next(module.parameters(recurse=False), None) is not None


# ---- the table

_COLUMNS: dict[str, Callable[[Row], list[str]]] = {
    "Layer (type)": lambda row: [_label(row)],
    "Output shape": lambda row: _listed(row.outputs) if row.calls else ["not called"],
    "Params": lambda row: ["shared" if row.shared else f"{row.parameters:,}"],
    "Multiply-adds": lambda row: [f"{row.multiply_adds:,}"],
    "Output bytes": lambda row: [f"{row.output_bytes:,}"],
}
_WORDS = ("Layer (type)", "Output shape")  # these columns begin at the left


def table(summary: Summary) -> str:
    """The summary as text: a line per row, or several for several outputs, and the totals."""
    cells = [[[title] for title in _COLUMNS]]
    cells += [[show(row) for show in _COLUMNS.values()] for row in summary.rows]
    widths = [
        max(len(text) for lines in column for text in lines) for column in zip(*cells, strict=True)
    ]
    first, *body = ("\n".join(_lines(row, widths)) for row in cells)
    width = sum(widths) + 2 * (len(widths) - 1)
    inputs = ", ".join(f"{shape} {dtype}" for shape, dtype in summary.inputs)
    return "\n".join(
        [
            f"Model: {summary.model}",
            f"Input: {inputs}",
            f"Output: {', '.join(_listed(summary.outputs))}",
            "_" * width,
            first,
            "=" * width,
            *body,
            "=" * width,
            *_totals(summary.rows),
        ]
    )


def _label(row: Row) -> str:
    name = f"{row.path} ({row.layer})" if row.path else row.layer
    return f"{name} ×{row.calls}" if row.calls > 1 else name


def _listed(shapes: Sequence[Shape]) -> list[str]:
    more = len(shapes) - MOST
    shown = [str(shape) for shape in (shapes[: MOST - 1] if more > 0 else shapes)]
    return [*shown, f"and {more + 1} more"] if more > 0 else shown or ["no tensor"]


def _lines(cells: Sequence[Sequence[str]], widths: Sequence[int]) -> Iterator[str]:
    for line in zip_longest(*cells, fillvalue=""):
        columns = zip(_COLUMNS, line, widths, strict=True)
        padded = (c.ljust(w) if title in _WORDS else c.rjust(w) for title, c, w in columns)
        yield "  ".join(padded).rstrip()


def _totals(rows: Sequence[Row]) -> list[str]:
    parameters = sum(row.parameters for row in rows)
    trainable = sum(row.trainable for row in rows)
    return [
        f"Params: {parameters:,} ({sum(row.parameter_bytes for row in rows):,} bytes)",
        f"Trainable: {trainable:,}, frozen: {parameters - trainable:,}",
        f"Multiply-adds per sample: {sum(row.multiply_adds for row in rows):,}",
        f"Output bytes per sample: {sum(row.output_bytes for row in rows):,}",
    ]
