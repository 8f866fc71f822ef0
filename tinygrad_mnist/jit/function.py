"""``jit``: which call of a function runs it, which records it, and which replays a program."""

from __future__ import annotations

import copy
import functools
import threading
import warnings
import weakref
from collections.abc import Callable, Sequence
from typing import Any, Generic, ParamSpec, TypeVar, overload

from tinygrad_mnist import dispatch
from tinygrad_mnist.autograd.graph import Value, is_grad_enabled, wrap
from tinygrad_mnist.backend import current
from tinygrad_mnist.dispatch import Guard, observe
from tinygrad_mnist.jit.checking import Snapshot, check_close, check_exact
from tinygrad_mnist.jit.passes import PASSES, Pass
from tinygrad_mnist.jit.program import Place, Program
from tinygrad_mnist.jit.recording import Recorder, Reliance, Scout, gradient

P = ParamSpec("P")
R = TypeVar("R")
MOST = 16  # programs of one function


class Recorded:
    """A program, what it relies on, and how its results become those of the function."""

    def __init__(self, recorder: Recorder, program: Program, result: Any) -> None:
        self.program = program
        self.result = result  # of the recorded call: nests of tensors and of what stays as it is
        self.reliances = recorder.relies_on(program)
        self.always = [r for r in self.reliances if r.guard.always]
        self.changes = dispatch.changes()
        places = {id(x): i for i, x in enumerate(recorder.arguments)}
        self.begins = [
            (i, recorder.begin(x))
            for i, x in enumerate(recorder.arguments)
            if id(x) in recorder.leaves and recorder.matters(x, program)
        ]
        self.grads = [(places.get(id(leaf)), *self._gradient(leaf, p)) for leaf, p in program.grads]
        self.versions = recorder.written_state()
        self.versions += [grad.version for _, _, grad in self.grads if grad is not None]
        self.written = recorder.written_arguments()
        self.tracked = [i for i, x in enumerate(recorder.arguments) if x.tracked]

    def _gradient(self, leaf: Value, place: Place | None) -> tuple[Value, Value | None]:
        """The leaf, and what its ``grad`` is after a replay."""
        if place is None or place.root.kind != "made":
            return leaf, leaf.grad
        return leaf, wrap(type(leaf.grad), place.array, self.program.backend)

    def holds(self, name: str, arguments: Sequence[Value]) -> bool:
        """Whether a replay is right now; RuntimeError where what changed forbids one."""
        if any(gradient(arguments[i]) != expected for i, expected in self.begins):
            return False
        changes = dispatch.changes()
        for reliance in self.always if self.changes == changes else self.reliances:
            if not reliance.holds():
                _forbid(name, reliance)
                return False
        self.changes = changes
        return True

    def replay(self, arguments: Sequence[Value]) -> Any:
        """What the function does and returns."""
        for version in self.versions:
            version[0] += 1
        for i in self.written:
            arguments[i].version[0] += 1
        for i in self.tracked:  # by requires_grad_() in the step
            arguments[i].tracked = True
        arrays = [x.array for x in arguments]
        if dispatch.observers():
            self.program.replay_at_the_door(arrays)
        else:
            self.program.replay(arrays)
        for at, leaf, grad in self.grads:
            if at is None:
                leaf.grad = grad
            elif grad is None:
                arguments[at].grad = None
            elif grad is not leaf.grad:  # other leaves may come, so each gets memory of its own
                arguments[at].grad = detached(grad)
        return self.copied()

    def copied(self) -> Any:
        """The results, as tensors of their own outside the graph."""
        backend: Any = self.program.backend
        if isinstance(self.result, Value):
            kind = self.result.result_type
            return wrap(kind, backend.copy(self.program.outputs[0].array), backend)
        places = iter(self.program.outputs)
        return rebuilt(
            self.result, lambda x: wrap(x.result_type, backend.copy(next(places).array), backend)
        )


def _forbid(name: str, reliance: Reliance) -> None:
    if reliance.guard.error:
        raise RuntimeError(
            f"jit: {reliance.guard.error} since {name} was recorded ({reliance.line.place}); "
            f"call {name}.clear() to have it recorded anew"
        )


class Jitted(Generic[P, R]):
    """A function that ``jit`` made."""

    def __init__(self, function: Callable[P, R], check: bool, passes: Sequence[Pass]) -> None:
        functools.update_wrapper(self, function)
        self._function = function
        self._check = check
        self._passes = tuple(passes)
        self._known: dict[Any, list[Recorded]] = {}  # by signature, the last used last
        self._last: Recorded | None = None
        self._unsettled: set[Any] = set()  # signatures of calls that could not be recorded
        self._leaves: dict[int, weakref.ref[Value]] = {}  # whose gradients calls have touched
        self._methods: weakref.WeakKeyDictionary[Any, Any] = weakref.WeakKeyDictionary()
        self._lock = threading.RLock()
        self._name = getattr(function, "__name__", repr(function))

    def __deepcopy__(self, memo: dict[int, Any]) -> Jitted[P, R]:
        """The same function without programs, so that a model that has one can be copied."""
        return Jitted(self._function, self._check, self._passes)

    def __get__(self, instance: Any, owner: Any = None) -> Any:
        """As a method: of each instance another function, which goes with it."""
        if instance is None:
            return self
        if instance not in self._methods:
            itself, function = weakref.ref(instance), self._function

            @functools.wraps(function)
            def method(*args: Any, **kwargs: Any) -> Any:
                return function(itself(), *args, **kwargs)  # type: ignore[arg-type]

            self._methods[instance] = Jitted(method, self._check, self._passes)
        return self._methods[instance]

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        if any(isinstance(observer, Scout) for observer in dispatch.observers()):
            return self._function(*args, **kwargs)  # a part of the step that is being recorded
        given = (args, kwargs)
        tensors: list[Any] = []
        form: list[Any] = [is_grad_enabled()]
        flatten(given, tensors, form)
        signature = self._hashable(form)
        with self._lock:
            known = self._known.pop(signature, None)
            if known is None:
                _check_leaves(self._name, tensors)
                self._known[signature] = []
                self._bound()
                return self._first(given)
            self._known[signature] = known
            recorded = next((each for each in known if each.holds(self._name, tensors)), None)
            if recorded is None:
                made = self._recorded(given, tensors, signature)
                self._bound()
                return made
            self._last = recorded
            result: R = recorded.replay(tensors)
            return result

    @property
    def program(self) -> Program:
        """The program used last. RuntimeError where there is none: the second call records."""
        if self._last is None:
            raise RuntimeError(f"jit: {self._name} has no program yet: its second call records one")
        return self._last.program

    @property
    def programs(self) -> list[Program]:
        """All programs, one for each kind of arguments and mode."""
        return [each.program for known in self._known.values() for each in known]

    def clear(self) -> None:
        """Forget all programs; the next two calls run the function again."""
        with self._lock:
            self._known.clear()
            self._last = None

    def __repr__(self) -> str:
        return f"<jit {self._name}: {len(self.programs)} programs>"

    # ---- its calls

    def _hashable(self, form: list[Any]) -> Any:
        signature = tuple(form)
        try:
            hash(signature)
        except TypeError:
            wrong = next(x for x in form if not _hashes(x))
            kind = type(wrong[1] if isinstance(wrong, tuple) else wrong).__name__
            raise TypeError(
                f"jit: {self._name} got a {kind} as argument, which would be built in; give "
                "tensors, numbers, strings, objects, and tuples, lists or dicts of them"
            ) from None
        return signature

    def _first(self, given: Any) -> R:
        """A plain call, in which what could not be replayed is refused already."""
        scout = Scout(self._name)
        with observe(scout):
            args, kwargs = given
            result = self._function(*args, **kwargs)
        _check_result(self._name, result)
        self._met(scout)
        return rebuilt(result, detached)

    def _recorded(self, given: Any, tensors: list[Any], signature: Any) -> R:
        """A call that becomes a program, unless it changes what it relies on."""
        arguments = [_stand_in(x) for x in tensors]
        leaves = {id(x): made for x, made in zip(tensors, arguments, strict=True) if x.tracked}
        arguments = [leaves.get(id(x), made) for x, made in zip(tensors, arguments, strict=True)]
        stand_ins = iter(arguments)
        args, kwargs = rebuilt(given, lambda _: next(stand_ins))
        known = [leaf for ref in self._leaves.values() if (leaf := ref()) is not None]
        recorder = Recorder(self._name, arguments, known)
        with observe(recorder):
            recorder.relied(Guard(current, "the current backend is another", always=True))
            result = self._function(*args, **kwargs)
        if any(id(x) in recorder.leaves for x in tensors):
            raise RuntimeError(
                f"jit: {self._name} got a leaf that it also uses by another name, so that its "
                "gradient would come in two parts; give it as an argument only"
            )
        _check_result(self._name, result)
        for x, stand_in in zip(tensors, arguments, strict=True):
            x.grad, x.tracked = stand_in.grad, stand_in.tracked or x.node is not None
        outputs: list[Any] = []
        flatten(result, outputs, [])
        ends = [recorder.place(x.array) for x in outputs]
        copied = rebuilt(result, detached)
        result = rebuilt(result, _outline)
        del outputs  # and with them the graph and its leaves, if nobody else keeps them
        recorder.let_go()
        self._met(recorder)
        settled = recorder.is_settled() or signature in self._unsettled
        if not settled:
            self._unsettled.add(signature)
        else:
            self._unsettled.discard(signature)
            program = recorder.program(ends)
            recorder.check_kept(program)
            self._finish(recorder, program)
            self._last = Recorded(recorder, program, result)
            self._known[signature].append(self._last)
        return copied

    def _met(self, scout: Scout) -> None:
        """Remember whose gradients a call touched: at the next ones they are looked at first."""
        self._leaves.update((key, weakref.ref(leaf)) for key, leaf in scout.leaves.items())

    def _finish(self, recorder: Recorder, program: Program) -> None:
        """Check the program, and take it through the passes."""
        if not self._check:
            for each in self._passes:
                each(program)
            program.build()
            return
        before = Snapshot(program.backend, recorder.saved)
        after = Snapshot.of(program.backend, [place for place, _ in recorder.saved])
        check_exact(self._name, program, before, after)
        if self._passes:
            exact = Snapshot.of(program.backend, program.kept())
            for each in self._passes:
                each(program)
            check_close(self._name, program, exact, before, after)

    def _bound(self) -> None:
        """Forget the programs that were not used for the longest time, if there are too many."""
        while sum(max(1, len(known)) for known in self._known.values()) > MOST:
            oldest = next(iter(self._known))
            if len(self._known[oldest]) > 1:
                self._known[oldest].pop(0)
            else:
                del self._known[oldest]
            warnings.warn(
                f"jit: {self._name} has more than {MOST} programs, and the oldest goes; does an "
                "argument that is no tensor, or a shape, differ at each call?",
                RuntimeWarning,
                stacklevel=3,
            )


@overload
def jit(function: Callable[P, R]) -> Jitted[P, R]: ...
@overload
def jit(
    *, check: bool = True, passes: Sequence[Pass] = PASSES
) -> Callable[[Callable[P, R]], Jitted[P, R]]: ...
def jit(function: Any = None, *, check: bool = True, passes: Sequence[Pass] = PASSES) -> Any:
    """Record a function of tensors at its second call, and replay its kernels from then on.

    ::

        @jit
        def step(x, y):
            loss = F.cross_entropy(model(x), y)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            return loss

    It may run forward, backward and optimizer steps of whatever layers, optimizers and schedules.
    The Python code runs in the first two calls for each kind of arguments (shapes, dtypes, numbers,
    training or evaluation): its prints and its assignments do not repeat, and numbers in it, or
    that it returns, are built in. State is what it writes in place: parameters, moments, running
    statistics. Results are copies outside the graph. ``check`` replays the program once and
    compares it with the recorded call. ``passes`` make it faster; ``jit(passes=())`` replays
    exactly the same kernels.

    Raises RuntimeError where the function reads values on the host (``item()``, ``print``), makes
    tensors of NumPy arrays or picks by a mask, where its replay differs, and where a replay would
    be wrong because the optimizer's parameters or the backend have changed since; TypeError for
    arguments that cannot be compared. A RuntimeWarning tells of more than 16 programs.
    """
    if function is None:
        return functools.partial(jit, check=check, passes=passes)
    for each in (function, *passes):
        if not callable(each):
            raise TypeError(f"jit: expected a function, got {type(each).__name__}")
    return Jitted(function, check, passes)


# ---- arguments and results


def flatten(x: Any, tensors: list[Any], form: list[Any]) -> None:
    """Put the tensors in nests of tuples, lists and dicts into a list, and all else into ``form``.

    Equal forms have tensors of equal kinds at equal places. Of another object, the tensors that are
    its attributes count: a replay reads those that were there.
    """
    if isinstance(x, Value):
        tensors.append(x)
        array = x.array
        form.append((array.shape, array.dtype, array.strides, x.backend))
        if x.tracked:  # given twice, a leaf has one gradient
            same = next(i for i, other in enumerate(tensors) if other is x)
            form.append((same, x.node is None, *(x.hooks or ())))
    elif isinstance(x, tuple | list):
        form.append((type(x), len(x)))
        for each in x:
            flatten(each, tensors, form)
    elif isinstance(x, dict):
        form.append((type(x), tuple(x)))
        for each in x.values():
            flatten(each, tensors, form)
    else:
        held = getattr(x, "__dict__", None)
        values = held.values() if type(held) is dict else ()
        value = repr(x) if type(x) is float else x  # −0 is not 0, and NaN the same number again
        form.append((type(x), value, *(id(v.array) for v in values if isinstance(v, Value))))


def rebuilt(x: Any, made: Callable[[Any], Any]) -> Any:
    """The nest ``x`` with what is ``made`` of each tensor in its place."""
    if isinstance(x, Value):
        return made(x)
    if isinstance(x, tuple):
        parts = [rebuilt(each, made) for each in x]
        return type(x)(*parts) if hasattr(x, "_fields") else type(x)(parts)
    other: Any
    if isinstance(x, list):
        other = copy.copy(x)
        other[:] = [rebuilt(each, made) for each in x]
        return other
    if isinstance(x, dict):
        other = copy.copy(x)
        for key, each in x.items():
            other[key] = rebuilt(each, made)
        return other
    return x


def _check_result(name: str, x: Any) -> None:
    """TypeError for a result that could hold tensors where nobody looks for them."""
    if isinstance(x, dict):
        x = tuple(x.values())
    if isinstance(x, tuple | list):
        for each in x:
            _check_result(name, each)
    elif not (x is None or isinstance(x, Value | bool | int | float | complex | str | bytes)):
        raise TypeError(
            f"jit: {name} returned a {type(x).__name__}, of which replays would return the same "
            "again; return tensors, numbers, strings or None, in tuples, lists or dicts"
        )


def detached(x: Value) -> Value:
    """A copy outside the graph."""
    backend: Any = x.backend
    copied: Value = wrap(x.result_type, backend.copy(x.array), backend)
    return copied


def _outline(x: Value) -> Value:
    """What tells of a result that it is one, without its memory."""
    outline: Value = wrap(x.result_type, None, x.backend)
    return outline


def _check_leaves(name: str, tensors: list[Any]) -> None:
    """RuntimeError for an argument whose gradient would have to go on from there."""
    node = next((x.node for x in tensors if x.node is not None), None)
    if node is not None and is_grad_enabled():
        raise RuntimeError(
            f"jit: {name} got a tensor that {node!r} made: its gradient would end there; compute "
            "it inside, or detach() it"
        )


def _stand_in(x: Value) -> Value:
    """The argument ``x`` under an identity of its own, so that it is told from what is captured."""
    backend: Any = x.backend
    array = backend.reshape(x.array, shape=x.array.shape)
    made: Value = wrap(type(x), array, backend, x.version)
    made.tracked, made.grad, made.hooks = x.tracked, x.grad, x.hooks
    return made


def _hashes(x: Any) -> bool:
    try:
        hash(x)
    except TypeError:
        return False
    return True
