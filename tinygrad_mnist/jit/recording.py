"""Watching a call of a function at the door: what it may not do, and what it did."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from typing import Any, NamedTuple

from tinygrad_mnist import dispatch
from tinygrad_mnist.autograd.graph import Value
from tinygrad_mnist.backend import current
from tinygrad_mnist.contract import spec
from tinygrad_mnist.dispatch import Call, Guard
from tinygrad_mnist.jit.program import Action, Instruction, Item, Place, Program
from tinygrad_mnist.kernels import Backend
from tinygrad_mnist.lines import Line, Origins, users_line

# The shapes of what these make depend on data.
_SHAPED_BY_DATA = {"nonzero"}


class Scout(dispatch.Observer):
    """Refuses what a replay could not repeat; a step's first call has this alone."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.leaves: dict[int, Value] = {}  # whose gradients the call may have touched

    def before(self, call: Call) -> None:
        if call.kernel in _SHAPED_BY_DATA:
            raise self._refused(
                "picks elements by a boolean mask: how many depends on data",
                "choose by where(), or multiply by the mask",
            )

    def host_read(self, what: str) -> None:
        raise self._refused(
            f"reads values on the host ({what})", "return the tensor, and read it outside"
        )

    def host_data(self, what: str) -> None:
        raise self._refused(
            f"makes a tensor of {what}, which a replay would not see change",
            "pass the tensor as an argument, or make it outside",
        )

    def graded(self, leaf: Any) -> None:
        self.leaves.setdefault(id(leaf), leaf)

    forgotten = graded

    def written(self, value: Any) -> None:
        if value.tracked:
            self.graded(value)

    def _refused(self, does: str, instead: str) -> RuntimeError:
        return RuntimeError(f"jit: {self.name} {does} at {users_line().place}; {instead}")


class Recorder(Scout):
    """Writes down a call: its kernels, the memory they use, and what Python did beside them."""

    def __init__(self, name: str, arguments: Sequence[Value], known: Iterable[Value] = ()) -> None:
        """``known``: leaves whose gradients earlier calls touched."""
        super().__init__(name)
        self.backend: Backend | None = None
        self.items: list[Item] = []
        self.saved: list[tuple[Place, Any]] = []  # what lay there before the first write
        self.guards: list[tuple[Guard, Any, Line]] = []  # with what each gave when it was told
        self.versions: dict[int, list[int]] = {}  # of what was there before and is written
        self.fresh: set[int] = set()  # leaves whose gradients were forgotten first of all
        self.begins = {id(x): x.grad for x in (*known, *arguments)}  # gradients at the beginning
        self.inputs = [Place("input", x.array) for x in arguments]
        self.arguments = arguments
        self._origins = Origins()
        self._places = {id(place.array): place for place in self.inputs}

    # ---- kernels

    def before(self, call: Call) -> None:
        super().before(call)
        self._check_backend(call.backend)
        contract = spec(call.kernel)
        given = [
            x for n, x in zip(contract.inputs, call.arrays, strict=False) if n in contract.writes
        ]
        for array in _flat([*given, call.out]):
            root = self.place(array).root
            if root.kind in ("input", "state") and all(root is not kept for kept, _ in self.saved):
                self.saved.append((root, call.backend.copy(root.array)))

    def after(self, call: Call, result: Any) -> None:
        contract, origin = spec(call.kernel), self._origins.of(call)
        if contract.kind == "view":
            self._seen(call, result)
            return
        inputs = [self._operand(x) for x in call.arrays]
        out = self._made(result) if call.out is None else self._operand(call.out)
        static, at = dict(call.static), (users_line(), call.phase, origin)
        self.items.append(Instruction(call.kernel, inputs, static, call.hosts, out, *at))

    def place(self, array: Any) -> Place:
        """The place of an array; one not met before is the state's."""
        known = self._places.get(id(array))
        if known is None:
            known = self._places[id(array)] = Place("state", array)
        return known

    def _operand(self, x: Any) -> Any:
        if isinstance(x, list | tuple):
            return type(x)([self._operand(each) for each in x])
        return self.place(x) if hasattr(x, "strides") else x

    def _made(self, result: Any) -> Any:
        if isinstance(result, tuple):
            return tuple(map(self._made, result))
        if result is None:
            return None
        place = self._places[id(result)] = Place("made", result)
        return place

    def _seen(self, call: Call, result: Any) -> None:
        """A view, or several of one array."""
        view: Callable[[Any], Any] = partial(getattr(call.backend, call.kernel), **call.static)
        base = self.place(call.arrays[0])
        if not isinstance(result, tuple):
            self._places[id(result)] = Place("view", result, base, view)
            return
        for i, part in enumerate(result):
            self._places[id(part)] = Place("view", part, base, partial(_part, view, i))

    def _check_backend(self, backend: Backend) -> None:
        if self.backend is None:
            self.backend = backend
        elif self.backend is not backend:
            raise self._refused(
                f"computes on two backends, {self.backend.name!r} and {backend.name!r},",
                "keep a step on one",
            )

    # ---- beside the kernels

    def acted(self, action: Callable[[], Any]) -> None:
        self.items.append(Action(action))

    def relied(self, guard: Guard) -> None:
        self.guards.append((guard, guard.fn(), users_line()))

    def written(self, value: Any) -> None:
        super().written(value)
        if self.place(value.array).root.kind in ("input", "state"):
            self.versions[id(value.version)] = value.version

    def differentiated(self, node: Any) -> None:
        self._origins.differentiated(node)

    def applied(self, name: str, results: Any, args: Any) -> None:
        self._origins.applied(name)

    def graded(self, leaf: Any) -> None:
        super().graded(leaf)
        self.begins.setdefault(id(leaf), leaf.grad)

    def forgotten(self, leaf: Any) -> None:
        if id(leaf) not in self.leaves:
            self.fresh.add(id(leaf))
        self.graded(leaf)

    # ---- what comes of it

    def let_go(self) -> None:
        """Forget the leaves that were there during the call only."""
        found = [weakref.ref(leaf) for leaf in self.leaves.values()]
        self.leaves.clear()
        self.leaves = {id(leaf): leaf for ref in found if (leaf := ref()) is not None}

    def written_state(self) -> list[list[int]]:
        """The versions of the state that was written over."""
        own = {id(x.version) for x in self.arguments}  # equal lists may be of different memory
        return [version for key, version in self.versions.items() if key not in own]

    def written_arguments(self) -> list[int]:
        """Which arguments were written over."""
        return [i for i, x in enumerate(self.arguments) if id(x.version) in self.versions]

    def program(self, ends: list[Place]) -> Program:
        """The program of the call, whose results lie at ``ends``."""
        grads = [
            (leaf, None if leaf.grad is None else self.place(leaf.grad.array))
            for leaf in self.leaves.values()
        ]
        backend = current() if self.backend is None else self.backend  # where nothing is computed
        places = list(self._places.values())
        return Program(backend, self.items, places, self.inputs, ends, grads)

    def is_settled(self) -> bool:
        """Whether the call left all that it relied on as it was.

        The first step of an optimizer does not: it makes the moments.
        """
        return all(guard.fn() == told for guard, told, _ in self.guards)

    def check_kept(self, program: Program) -> None:
        """RuntimeError where a replay would read what the call has replaced."""
        read = {id(place.array) for place in program.touched() if place.kind == "state"}
        for guard, told, line in self.guards:
            if guard.keeps and read & (set(told) - set(guard.fn())):
                raise RuntimeError(
                    f"jit: {self.name} reads {guard.keeps} and puts another tensor in its place "
                    f"({line.place}), which a replay would not see; write it in place, as by "
                    "copy_() under no_grad()"
                )

    def relies_on(self, program: Program) -> list[Reliance]:
        """What has to be so again for a replay to be right."""
        here = users_line()
        found = [
            Reliance(guard, told if guard.always else guard.fn(), line)
            for guard, told, line in self.guards
        ]
        for leaf in self._own_leaves():
            found.append(Reliance.now(Guard(partial(_course, leaf)), here))
            if self.matters(leaf, program):
                guard = Guard(partial(gradient, leaf), always=True)
                found.append(Reliance(guard, self.begin(leaf), here))
        return found

    def _own_leaves(self) -> list[Value]:
        arguments = {id(x) for x in self.arguments}
        return [leaf for key, leaf in self.leaves.items() if key not in arguments]

    def begin(self, leaf: Value) -> int | None:
        """Which array its gradient was at first."""
        return _identity(self.begins[id(leaf)])

    def matters(self, leaf: Value, program: Program) -> bool:
        """Whether the program is right for that gradient only which the leaf had at first.

        It is not where the call forgot it without a look.
        """
        grad = self.begins[id(leaf)]
        if grad is None:
            return id(leaf) not in self.fresh
        return self.place(grad.array).root in program.touched()


class Reliance(NamedTuple):
    """A guard, what it is to give, and where the step came to rely on it."""

    guard: Guard
    expected: Any
    line: Line

    @classmethod
    def now(cls, guard: Guard, line: Line) -> Reliance:
        """With what the guard gives now."""
        return cls(guard, guard.fn(), line)

    def holds(self) -> bool:
        """Whether it gives that."""
        return bool(self.guard.fn() == self.expected)


def gradient(leaf: Value) -> int | None:
    """Which array a leaf's gradient is."""
    return _identity(leaf.grad)


def _identity(x: Value | None) -> int | None:
    return None if x is None else id(x.array)


def _course(leaf: Value) -> tuple[Any, ...]:
    """What decides how a leaf's gradient is made."""
    return leaf.tracked, tuple(leaf.hooks or ())


def _part(view: Callable[[Any], Any], number: int, array: Any) -> Any:
    return view(array)[number]


def _flat(found: Sequence[Any]) -> Iterator[Any]:
    """The arrays in nested lists."""
    for x in found:
        if isinstance(x, list | tuple):
            yield from _flat(x)
        elif x is not None:
            yield x
