"""Programs: runs of steps whose kernels are compiled loops, as one native call each.

What enters is a list of ``Step`` and a ``Planning`` backend to plan each with; what leaves is the
list of functions that ``NumbaBackend.prepared`` returns. A step that is not covered stays a call
from Python in its place.

Arrays have their addresses in the program, which holds on to them; the addresses of those that move
and the numbers that the host computes are in a table, written before each run.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import cache, partial
from inspect import signature
from itertools import groupby
from struct import Struct
from typing import Any, NamedTuple

import numba
import numpy as np
from numba import types

from tinygrad_mnist.backends.numba_kernels import native, products, threads
from tinygrad_mnist.backends.numba_kernels.launching import Total
from tinygrad_mnist.backends.numba_kernels.native import Argument, Launch, Native, Stage
from tinygrad_mnist.backends.numba_kernels.planning import (
    Numbers,
    Planned,
    Slot,
    Strided,
    Uncovered,
)
from tinygrad_mnist.kernels import Array, Backend, Step

_numba: Any = numba  # typed or not, as the version has it

LETTERS = {float: "d", int: "q", bool: "q", np.uint64: "Q"}  # of cells, as struct names them


Span = tuple[int, int]  # of memory: the address of its first byte, and of the one after its last


class Plan(NamedTuple):
    """The launches of a step, and what is written to the table before they run."""

    step: Step
    launches: list[Launch]
    beside: bool  # all launches may run at once
    numbers: Numbers | None
    moving: list[_Place]
    written: list[Span]
    keep: list[Planned]  # whose arrays the launches read and write


def prepared(
    backend: Backend, planner: Callable[..., Any], steps: Sequence[Step]
) -> list[Callable[[], None]]:
    """Functions that run ``steps``: a program for each run of steps that are covered."""
    cells, plans = 0, []
    for number, step in enumerate(steps):
        plan = _plan(planner, step, number, cells)
        plans.append(plan)
        if plan is not None:
            cells += len(plan.moving) + (len(plan.numbers.values) if plan.numbers else 0)
    table = np.zeros(max(1, cells), np.int64)
    functions: list[Callable[[], None]] = []
    for covered, group in groupby(zip(steps, plans, strict=True), lambda pair: pair[1] is not None):
        pairs = list(group)
        made = _program(backend, [plan for _, plan in pairs if plan], table) if covered else None
        functions += [made] if made else [partial(step.run, backend) for step, _ in pairs]
    return functions


def _program(backend: Backend, plans: list[Plan], table: np.ndarray) -> Program | None:
    """None where LLVM does not take what is written for it."""
    try:
        return Program(backend, plans, table)
    except RuntimeError as error:
        _say_once(f"LLVM of Numba {_numba.__version__} refuses a program: {error}".splitlines()[0])
        return None


class Program:
    """Steps in one native call; one thread of Python calls it at a time."""

    def __init__(self, backend: Backend, plans: list[Plan], table: np.ndarray) -> None:
        self._backend, self._plans = backend, plans
        self._native = Native(list(_stages(plans)), table, _threads(plans))
        cells = memoryview(table.data)
        self._refresh: list[Callable[[], bool]] = []
        for plan in plans:
            self._refresh += [_Moving(plan, each, cells) for each in plan.moving]
            if plan.numbers:
                self._refresh.append(_Hosted(plan.step, plan.numbers, table))
        self._first = plans[0].launches[0].step
        wide = any(
            products.calls_blas(each.kernel, each.arguments) for p in plans for each in p.keep
        )
        self._count = threads.count if wide else threads.awake

    def __call__(self) -> None:
        for refresh in self._refresh:
            if not refresh():
                self._in_python(0)
                return
        failed = self._native(self._count())
        if failed:
            self._in_python(failed - 1 - self._first)

    def _in_python(self, first: int) -> None:
        """The steps from ``first`` on, of which the first one may raise what is to be raised."""
        for plan in self._plans[first:]:
            plan.step.run(self._backend)


class _Moving:
    """Writes the address of an array of a step where it is another one than before.

    False where it overlaps what the step writes, which loops read as they write it.
    """

    def __init__(self, plan: Plan, place: _Place, cells: Any) -> None:
        self._arrays, self._place = plan.step.arrays, place.place
        self._cell, self._cells, self._written = place.cell, cells, plan.written
        self._before, self._after = place.address - place.low, place.high - place.address
        self._last = None

    def __call__(self) -> bool:
        array = self._arrays[self._place]
        if array is not self._last:
            address = _address(array)
            for low, high in self._written:
                if low < address + self._after and address - self._before < high:
                    return False
            self._cells[self._cell] = address
            self._last = array
        return True


class _Hosted:
    """Writes the numbers of a step; False where they are no numbers for its plan."""

    def __init__(self, step: Step, numbers: Numbers, table: np.ndarray) -> None:
        self._step, self._fn, self._guard = step, numbers.fn, numbers.guard
        self._cells = memoryview(table.data)
        self._offset = 8 * numbers.cell
        self._pack = Struct("".join(LETTERS[type(each)] for each in numbers.values)).pack_into
        self._held = bool(step.static[self._guard]) if self._guard else None

    def __call__(self) -> bool:
        static = self._step.static
        if self._guard and bool(static[self._guard]) is not self._held:
            return False
        self._pack(self._cells, self._offset, *self._fn(**static))
        return True


# ---- a step's plan


def _plan(planner: Callable[..., Any], step: Step, number: int, cell: int) -> Plan | None:
    """None for a step that is more than compiled loops."""
    try:
        written = _written(step)
        places = _places(step, cell)
        chosen = planner(hosted=bool(step.hosted), cell=cell + len(places))
        given = step.static if step.out is None else {**step.static, "out": step.out}
        result = getattr(chosen, step.kernel)(*step.arrays, **given)
        _require(_is_filled(result, step.out) and len(chosen.launches) > 0)
        _require(not step.hosted or chosen.numbers is not None)
        launches = [_launch(each, number, places) for each in chosen.launches]
    except Uncovered:
        return None
    beside = all(each.beside for each in chosen.launches)
    return Plan(step, launches, beside, chosen.numbers, places, written, chosen.launches)


def _is_filled(result: Any, out: Any) -> bool:
    """Whether a kernel's result is in ``out``, and not in an array of its own."""
    if isinstance(result, tuple) and isinstance(out, tuple | list):
        return all(r is o for r, o in zip(result, out, strict=True))
    return result is out


# ---- memory


def _written(step: Step) -> list[Span]:
    """The memory that a step writes, none of which it may read in another layout.

    Loops read as they write, on several threads, where NumPy reads everything first. Nor may it be
    an array that moves, which might be read-only at a later run.
    """
    kernel = getattr(Backend, step.kernel)
    places = _places_written(step.kernel)
    written = [*_found([step.out]), *_found(step.arrays[i] for i in places)]
    others = [*_found(x for i, x in enumerate(step.arrays) if i not in places)]
    if getattr(kernel, "kind", "") == "elementwise":
        others = [x for x in others if not any(_lies_as(x, y) for y in written)]
    _require(not any(i in places for i in step.moving))
    _require(all(x.flags.writeable for x in written))
    spans = [_span(x) for x in written if x.size]
    _require(not _overlap(spans, [_span(x) for x in others if x.size]))
    return spans


@cache
def _places_written(kernel: str) -> tuple[int, ...]:
    """Which of its arrays a kernel in place writes."""
    function = getattr(Backend, kernel)
    names = list(signature(function).parameters)[1:]
    return tuple(names.index(name) for name in getattr(function, "writes", ()))


def _found(values: Iterable[Any]) -> Iterator[Array]:
    """The arrays among ``values``, and in lists and tuples of them."""
    for x in values:
        if isinstance(x, np.ndarray):
            yield x
        elif isinstance(x, list | tuple):
            yield from _found(x)


def _lies_as(x: Array, y: Array) -> bool:
    """Whether ``x`` has its items where ``y`` has them."""
    return (_address(x), x.shape, x.strides) == (_address(y), y.shape, y.strides)


def _span(x: Array) -> Span:
    low, high = np.lib.array_utils.byte_bounds(x)
    return int(low), int(high)


def _overlap(written: list[Span], read: list[Span]) -> bool:
    """Whether memory that is written is also read, or written as a part of another array."""
    ends = {True: 0, False: 0}  # of the spans so far, those that are written and those that are not
    spans = [(*span, True) for span in written] + [(*span, False) for span in read]
    for low, high, writes in sorted(spans):
        if low < ends[True] or (writes and low < ends[False]):
            return True
        ends[writes] = max(ends[writes], high)
    return False


class _Place(NamedTuple):
    """A moving array of a step: what of memory it takes now, and the cell of its address."""

    place: int
    cell: int
    low: int
    high: int
    address: int


def _places(step: Step, cell: int) -> list[_Place]:
    """An argument's address tells which array it is a part of, so moving ones must not overlap."""
    found: list[_Place] = []
    others = [*_found(x for i, x in enumerate(step.arrays) if i not in step.moving)]
    others += _found([step.out])
    for i in step.moving:
        x = step.arrays[i]
        _require(type(x) is np.ndarray)
        low, high = _span(x)
        _require(not any(each.low < high and low < each.high for each in found))
        _require(not any(np.may_share_memory(x, y) for y in others))
        found.append(_Place(i, cell + len(found), low, high, _address(x)))
    return found


# ---- launches


def _launch(planned: Planned, number: int, places: list[_Place]) -> Launch:
    """``planned`` as a native call; Uncovered where Numba calls it in an unknown way."""
    given = (types.int64, types.int64, *map(_type, planned.arguments))
    kinds = tuple(planned.kernel.fold_argument_types(given, {})[1])  # of *arguments, a tuple
    planned.kernel.compile(kinds)
    compiled = planned.kernel.overloads[kinds]
    _require(compiled.fndesc.restype == types.none)
    convention = compiled.target_context.call_conv
    function = convention.get_function_type(compiled.fndesc.restype, compiled.fndesc.argtypes)
    arguments = [Argument(bound=0), Argument(bound=1)]
    for each in planned.arguments:
        arguments += _arguments(each, places)
    if not native.matches(arguments, function):
        _say_once(f"Numba {_numba.__version__} calls kernels in another way")
        raise Uncovered
    address = compiled.library.get_pointer_to_function(compiled.fndesc.llvm_func_name)
    return Launch(address, function, arguments, planned.items, planned.parts, number)


def _type(x: Any) -> Any:
    """Numba's type of an argument; arrays may be written, so that few kernels are compiled."""
    if isinstance(x, Slot):
        return _numba.typeof(x.value)
    if isinstance(x, Strided):
        return types.Array(_numba.from_dtype(x.array.dtype), x.array.ndim, "A")
    if isinstance(x, Total):
        x = x.array[0]
    if isinstance(x, np.ndarray):
        layout = _numba.typeof(x).layout
        return types.Array(_numba.from_dtype(x.dtype), x.ndim, layout)
    return _numba.typeof(x)


def _arguments(x: Any, places: list[_Place]) -> Iterator[Argument]:
    """What a compiled kernel takes for one argument."""
    if isinstance(x, Slot):
        yield Argument(0.0 if isinstance(x.value, float) else 0, cell=x.cell)
    elif isinstance(x, Total):
        yield from _array(x.array[0], [], x.array.strides[0])
    elif isinstance(x, Strided):
        yield from _array(x.array, places)
    elif isinstance(x, np.ndarray):
        yield from _array(x, places)
    elif x is None:
        yield Argument()
    elif isinstance(x, float):
        yield Argument(x)
    else:
        value = int(x)
        yield Argument(value - 2**64 if value >= 2**63 else value)


def _array(x: Array, places: list[_Place], step: int = 0) -> Iterator[Argument]:
    """An array: its owner and its parent, which nobody has to count here, sizes, data, steps."""
    address = _address(x)
    yield from (Argument(), Argument(), Argument(x.size), Argument(x.itemsize))
    place = next((each for each in places if each.low <= address < each.high), None)
    if place is None:
        yield Argument(address, step=step)
    else:
        yield Argument(address - place.address, cell=place.cell)
    yield from map(Argument, (*x.shape, *x.strides))


def _address(x: Array) -> int:
    return x.__array_interface__["data"][0]


# ---- stages


def _stages(plans: list[Plan]) -> Iterator[Stage]:
    """Launches one after the other; those with one part each are one piece, whoever runs it."""
    serial: list[Launch] = []
    for plan in plans:
        together = plan.beside and any(launch.parts > 1 for launch in plan.launches)
        for stage in [plan.launches] if together else [[each] for each in plan.launches]:
            if len(stage) == 1 and stage[0].parts == 1:
                serial += stage
                continue
            if serial:
                yield [serial]
                serial = []
            yield [[launch] for launch in stage]
    if serial:
        yield [serial]


def _threads(plans: list[Plan]) -> int:
    return max(launch.parts for plan in plans for launch in plan.launches)


_said: set[str] = set()


def _say_once(message: str) -> None:
    if message not in _said and sys.stderr is not None:
        _said.add(message)
        print(f"tinygrad_mnist: {message}: steps run from Python", file=sys.stderr)


def _require(condition: bool) -> None:
    if not condition:
        raise Uncovered
