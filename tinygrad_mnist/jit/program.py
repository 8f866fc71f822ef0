"""A recorded step: the memory that it uses, its kernel calls in order, and their replay."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import groupby
from typing import Any, Literal

from tinygrad_mnist import dispatch
from tinygrad_mnist.contract import label, spec
from tinygrad_mnist.jit.memory import laid_out, span
from tinygrad_mnist.kernels import Backend, Step
from tinygrad_mnist.lines import Line, Origin, shortened

Fn = Callable[[], Any]
_WIDTH = 32  # characters of a column of shapes


@dataclass(slots=True, eq=False)
class Place:
    """Memory: an argument's, the state's, what a kernel makes, or a view of one of these.

    ``array`` is what lies there now: at first what was recorded, then the program's own.
    """

    kind: Literal["input", "state", "made", "view"]
    array: Any
    base: Place | None = None  # of a view, which ``seen`` makes of it
    seen: Callable[[Any], Any] | None = None
    block: int | None = None  # places with the same one share memory, one after the other

    @property
    def root(self) -> Place:
        """What it is a view of, or itself."""
        place = self
        while place.base is not None:
            place = place.base
        return place


@dataclass(slots=True, eq=False)
class Instruction:
    """A kernel call on places."""

    kernel: str
    inputs: list[Any]  # places, lists of places, numbers, None
    static: dict[str, Any]
    hosts: Mapping[str, Fn]  # of the static ones that the host computes anew
    out: Any  # a place, a tuple of them, or None for a kernel in place
    line: Line
    phase: str
    origin: Origin | None  # the op that it is, or whose gradient it helps to make

    def read(self) -> Iterator[Place]:
        """What it reads, and for a kernel in place what it writes, too."""
        return _places(self.inputs)

    def written(self) -> Iterator[Place]:
        """What it writes."""
        if self.out is not None:
            return _places([self.out])
        contract = spec(self.kernel)
        return _places(
            [x for n, x in zip(contract.inputs, self.inputs, strict=False) if n in contract.writes]
        )


@dataclass(slots=True, eq=False)
class Action:
    """Python work of the host: ``late``, after the kernels, or before them to draw a number."""

    fn: Fn
    late: bool = True


Item = Instruction | Action


@dataclass(slots=True)
class _Segment:
    """Numbers of the host, the kernels that need them, and work that comes after these."""

    hosts: list[tuple[dict[str, Any], str, Fn]] = field(default_factory=list)
    steps: list[Step] = field(default_factory=list)
    actions: list[Fn] = field(default_factory=list)
    runs: list[Fn] = field(default_factory=list)


class Program:
    """What a function did in one call, to be done again.

    ``items`` in order; ``inputs`` the places of its tensor arguments, ``outputs`` those of its
    results; ``grads`` each leaf whose gradient it sets, with the place of that, or None.
    """

    def __init__(
        self,
        backend: Backend,
        items: list[Item],
        places: list[Place],
        inputs: list[Place],
        outputs: list[Place],
        grads: list[tuple[Any, Place | None]],
    ) -> None:
        self.backend = backend
        self.items = items
        self.places = places
        self.inputs = inputs
        self.outputs = outputs
        self.grads = grads
        self.constants: list[Instruction] = []  # run once, before the first replay
        self.together = False  # whether the backend may run several calls as one
        self._segments: list[_Segment] = []
        self._bound: list[Any] = []
        self._moving: list[Place] = []  # views of arguments
        self._uses: dict[Place, list[Callable[[Any], None]]] = {}

    def instructions(self) -> list[Instruction]:
        """The kernel calls in order."""
        return [item for item in self.items if isinstance(item, Instruction)]

    def kept(self) -> set[Place]:
        """The roots of what is wanted after the last call: results and gradients."""
        grads = [place for _, place in self.grads if place is not None]
        return {place.root for place in (*self.outputs, *grads)}

    def touched(self) -> set[Place]:
        """The roots of what its kernels read or write."""
        return {p.root for item in self.instructions() for p in (*item.read(), *item.written())}

    # ---- memory

    def build(self) -> None:
        """Give every place memory of its own, or its block's, and prepare the calls."""
        self._uses, self._bound = {}, []
        with self.backend.here():
            self._allocate()
        for constant in self.constants:
            self._step(constant).run(self.backend)
        segment = _Segment()
        self._segments = [segment]
        for item in self.items:
            hosted = bool(item.hosts) if isinstance(item, Instruction) else not item.late
            if hosted and segment.actions:  # which may decide what the host gives here
                segment = _Segment()
                self._segments.append(segment)
            self._add(segment, item)
        for segment in self._segments:
            segment.runs = self._prepared(segment.steps)

    def _allocate(self) -> None:
        used = {place.root for item in self._calls() for place in (*item.read(), *item.written())}
        used |= self.kept()
        self.places = [place for place in self.places if place.root in used]
        sizes: dict[int, int] = {}
        for place in self.places:
            if place.block is not None:
                sizes[place.block] = max(sizes.get(place.block, 0), span(place.array))
        blocks: dict[Any, Any] = {i: self._bytes(size) for i, size in sizes.items()}
        for place in self.places:
            if place.kind == "made":
                like = place.array
                if place.block is None and like.flags.c_contiguous:
                    place.array = self.backend.xp.empty_like(like)
                else:
                    own = place.block is None
                    memory = self._bytes(span(like)) if own else blocks[place.block]
                    place.array = laid_out(memory, like)
            elif place.base is not None and place.root.kind == "made":
                assert place.seen is not None
                place.array = place.seen(place.base.array)
        self._moving = [p for p in self.places if p.kind == "view" and p.root.kind == "input"]

    def _bytes(self, size: int) -> Any:
        return self.backend.xp.empty(size, "uint8")

    def _calls(self) -> Iterable[Instruction]:
        return (*self.constants, *self.instructions())

    # ---- calls

    def _add(self, segment: _Segment, item: Item) -> None:
        if isinstance(item, Action):
            if item.late:
                segment.actions.append(item.fn)
            else:
                segment.hosts.append(({}, "", item.fn))
            return
        step = self._step(item)
        segment.hosts += [(step.static, name, fn) for name, fn in item.hosts.items()]
        segment.steps.append(step)

    def _step(self, item: Instruction) -> Step:
        arrays = [_arrays(x) for x in item.inputs]
        moving = []
        for i, x in enumerate(item.inputs):
            places = [*_places([x])]
            if any(place.root.kind == "input" for place in places):
                moving.append(i)
                inner = arrays[i] if isinstance(x, list) else arrays
                for j, place in enumerate(places):
                    at = j if isinstance(x, list) else i
                    self._uses.setdefault(place, []).append(partial(inner.__setitem__, at))
        step = Step(
            item.kernel, arrays, dict(item.static), _arrays(item.out), tuple(moving),
            tuple(item.hosts), str(item.line),
        )  # fmt: skip
        if isinstance(item.out, Place) and item.out.root.kind == "input":
            self._uses.setdefault(item.out, []).append(partial(setattr, step, "out"))
        return step

    def _prepared(self, steps: Sequence[Step]) -> list[Fn]:
        """``steps`` as they are run; one that writes to an argument by itself."""
        if not self.together:
            return [partial(step.run, self.backend) for step in steps]
        runs: list[Fn] = []
        for fixed, group in groupby(steps, self._is_fixed):
            found = list(group)
            single = [partial(step.run, self.backend) for step in found]
            runs += self.backend.prepared(found) if fixed else single
        return runs

    def _is_fixed(self, step: Step) -> bool:
        """Whether it writes where it did at the last run, and no list has an argument."""
        lists = any(isinstance(step.arrays[i], list) for i in step.moving)
        inputs = {id(p.array) for p in self.places if p.root.kind == "input"}
        return not lists and not (step.out is not None and id(step.out) in inputs)

    # ---- replay

    def replay(self, arrays: Sequence[Any]) -> None:
        """Run it on other arguments of the same kind."""
        self.bind(arrays)
        for segment in self._segments:
            for static, name, fn in segment.hosts:
                static[name] = fn()
            for run in segment.runs:
                run()
            for action in segment.actions:
                action()

    def repeat(self) -> None:
        """Run the kernels on the arguments and with the numbers of the last time."""
        for segment in self._segments:
            for run in segment.runs:
                run()

    def replay_at_the_door(self, arrays: Sequence[Any]) -> None:
        """``replay``, kernel by kernel, where observers see each call."""
        self.bind(arrays)
        for item in self.items:
            if isinstance(item, Action):
                item.fn()
                continue
            static = {**item.static, **{name: dispatch.host(fn) for name, fn in item.hosts.items()}}
            with dispatch.phase(item.phase, item):
                given = [_arrays(x) for x in item.inputs]
                dispatch.call(self.backend, item.kernel, given, static, _arrays(item.out))

    def bind(self, arrays: Sequence[Any]) -> None:
        """Put the arrays of the arguments where they are used, and views of them."""
        if len(arrays) == len(self._bound) and all(map(_same, arrays, self._bound)):
            return
        self._bound = list(arrays)
        for place, array in zip(self.inputs, arrays, strict=True):
            self._place(place, array)
        for place in self._moving:
            assert place.base is not None and place.seen is not None
            self._place(place, place.seen(place.base.array))

    def _place(self, place: Place, array: Any) -> None:
        place.array = array
        for put in self._uses.get(place, ()):
            put(array)

    # ---- display

    def __str__(self) -> str:
        """A line for each kernel call: what it takes and makes, bytes moved, whose line it was."""
        rows: list[tuple[str, ...]] = [("", "kernel", "takes", "makes", "bytes", "line")]
        rows += [_row("once", item) for item in self.constants]
        rows += [_row(str(i), item) for i, item in enumerate(self.instructions(), 1)]
        widths = [max(len(row[i]) for row in rows) for i in range(5)]
        lines = ["  ".join([*map(str.ljust, row[:5], widths), row[5]]).rstrip() for row in rows]
        runs = self.runs()
        end = f"calls from Python: {len(runs)}; memory of its own: {self.nbytes():,} bytes"
        return "\n".join([*lines, end, *(run.about for run in runs if hasattr(run, "about"))])

    def runs(self) -> list[Fn]:
        """What a replay calls, in order: kernels, or what the backend made of several."""
        return [run for segment in self._segments for run in segment.runs]

    def nbytes(self) -> int:
        """The memory that it holds for results between replays."""
        sizes: dict[Any, int] = {}
        for place in self.places:
            if place.kind == "made":
                key = place if place.block is None else place.block
                sizes[key] = max(sizes.get(key, 0), span(place.array))
        return sum(sizes.values())


def _row(number: str, item: Instruction) -> tuple[str, ...]:
    makes = [item.out] if item.out is not None else [*item.written()]
    moved = sum(p.array.nbytes for p in (*item.read(), *item.written()))
    return (
        number,
        label(item.kernel, item.static),
        shortened(" ".join(_shown(x) for x in item.inputs), _WIDTH),
        shortened(" ".join(_shown(x) for x in makes), _WIDTH),
        f"{moved:,}",
        str(item.line),
    )


def _shown(x: Any) -> str:
    if isinstance(x, list | tuple):
        return f"[{' '.join(map(_shown, x))}]"
    if not isinstance(x, Place):
        return str(x)
    shape = "×".join(map(str, x.array.shape))
    return shape if x.array.ndim > 1 else f"({shape})"  # a number stands there as it is


def _same(x: Any, y: Any) -> bool:
    return x is y


def _places(found: Iterable[Any]) -> Iterator[Place]:
    for x in found:
        if isinstance(x, Place):
            yield x
        elif isinstance(x, list | tuple):
            yield from _places(x)


def _arrays(x: Any) -> Any:
    """Places as their arrays, in lists and tuples too."""
    if isinstance(x, Place):
        return x.array
    return type(x)(map(_arrays, x)) if isinstance(x, list | tuple) else x
