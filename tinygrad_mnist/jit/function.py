"""``jit``: which call of a function runs it, which records it, and which replays a program."""

from __future__ import annotations

import functools
import threading
import types
import warnings
from collections.abc import Callable, Sequence
from typing import Any, Generic, ParamSpec, TypeVar, overload

from tinygrad_mnist import dispatch
from tinygrad_mnist.autograd.graph import Value, is_grad_enabled, wrap
from tinygrad_mnist.backend import current
from tinygrad_mnist.dispatch import Guard, observe
from tinygrad_mnist.jit.checking import Snapshot, check_close, check_exact
from tinygrad_mnist.jit.passes import PASSES, Pass
from tinygrad_mnist.jit.program import Place, Program
from tinygrad_mnist.jit.recording import Recorder, Reliance, Scout

P = ParamSpec("P")
R = TypeVar("R")
MOST = 16  # programs of one function


class Recorded:
    """A program, what it relies on, and how its results become those of the function."""

    def __init__(self, recorder: Recorder, program: Program, result: Any) -> None:
        self.program = program
        self.result = result  # of the recorded call: nests of tensors and of what stays as it is
        self.reliances = recorder.relies_on()
        self.always = [r for r in self.reliances if r.guard.always]
        self.changes = dispatch.changes()
        places = {id(x): i for i, x in enumerate(recorder.arguments)}
        self.grads = [(places.get(id(leaf)), *self._gradient(leaf, p)) for leaf, p in program.grads]
        self.versions = [v for v in recorder.versions.values() if v not in recorder.own_versions()]
        self.versions += [grad.version for _, _, grad in self.grads if grad is not None]
        self.written = recorder.written_arguments()

    def _gradient(self, leaf: Value, place: Place | None) -> tuple[Value, Value | None]:
        """The leaf, and what its ``grad`` is after a replay."""
        if place is None or place.root.kind != "made":
            return leaf, leaf.grad
        return leaf, wrap(type(leaf.grad), place.array, self.program.backend)

    def holds(self, name: str) -> bool:
        """Whether a replay is right now; RuntimeError where what changed forbids one."""
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
        arrays = [x.array for x in arguments]
        if dispatch.observers():
            self.program.replay_at_the_door(arrays)
        else:
            self.program.replay(arrays)
        for at, leaf, grad in self.grads:
            (leaf if at is None else arguments[at]).grad = grad
        return self.copied()

    def copied(self) -> Any:
        """The results, as tensors of their own outside the graph."""
        backend: Any = self.program.backend
        if isinstance(self.result, Value):
            return wrap(type(self.result), backend.copy(self.program.outputs[0].array), backend)
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
        self._lock = threading.RLock()
        self._name = getattr(function, "__name__", repr(function))

    def __get__(self, instance: Any, owner: Any = None) -> Any:
        return self if instance is None else types.MethodType(self, instance)

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
                self._known[signature] = []
                self._bound()
                return self._first(given)
            self._known[signature] = known
            recorded = next((each for each in known if each.holds(self._name)), None)
            if recorded is None:
                return self._recorded(given, tensors, known)
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
        with observe(Scout(self._name)):
            args, kwargs = given
            result = self._function(*args, **kwargs)
        return rebuilt(result, _detached)

    def _recorded(self, given: Any, tensors: list[Any], known: list[Recorded]) -> R:
        """A call that becomes a program."""
        arguments = [_stand_in(self._name, x) for x in tensors]
        stand_ins = iter(arguments)
        args, kwargs = rebuilt(given, lambda _: next(stand_ins))
        recorder = Recorder(self._name, arguments)
        with observe(recorder):
            recorder.relied(Guard(current, "the current backend is another", always=True))
            result = self._function(*args, **kwargs)
        for x, stand_in in zip(tensors, arguments, strict=True):
            x.grad = stand_in.grad
        outputs: list[Any] = []
        flatten(result, outputs, [])
        program = recorder.program(outputs)
        made = rebuilt(result, _detached)
        self._finish(recorder, program)
        self._last = Recorded(recorder, program, result)
        known.append(self._last)
        self._bound()
        return made

    def _finish(self, recorder: Recorder, program: Program) -> None:
        """Check the program, and take it through the passes."""
        if not self._check:
            for each in self._passes:
                each(program)
            program.build(exact=not self._passes)
            return
        before = Snapshot(program.backend, recorder.saved)
        after = Snapshot.of(program.backend, [place for place, _ in recorder.saved])
        check_exact(self._name, program, before, after)
        if self._passes:
            exact = Snapshot.of(program.backend, program.kept())
            for each in self._passes:
                each(program)
            check_close(self._name, program, dict(exact.kept), before, after)

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
                stacklevel=4,
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
    training or evaluation): its prints and its assignments do not repeat, and numbers in it are
    built in. State is what it writes in place: parameters, moments, running statistics. Results
    are copies outside the graph. ``check`` replays the program once and compares it with the
    recorded call. ``passes`` make it faster; ``jit(passes=())`` replays exactly the same kernels.

    Raises RuntimeError where the function reads values on the host (``item()``, ``print``), makes
    tensors of NumPy arrays or picks by a mask, where its replay differs, and where a replay would
    be wrong because the optimizer's parameters or the backend have changed since; TypeError for
    arguments that cannot be compared. A RuntimeWarning tells of more than 16 programs.
    """
    if function is None:
        return functools.partial(jit, check=check, passes=passes)
    if not callable(function):
        raise TypeError(f"jit: expected a function, got {type(function).__name__}")
    return Jitted(function, check, passes)


# ---- arguments and results


def flatten(x: Any, tensors: list[Any], form: list[Any]) -> None:
    """Put the tensors in nests of tuples, lists and dicts into a list, and all else into ``form``.

    Equal forms have tensors of equal kinds at equal places.
    """
    if isinstance(x, Value):
        tensors.append(x)
        array = x.array
        trained = x.tracked and (None if x.grad is None else id(x.grad.array))
        form.append((array.shape, array.dtype, array.strides, x.backend, trained))
    elif isinstance(x, tuple | list):
        form.append((type(x), len(x)))
        for each in x:
            flatten(each, tensors, form)
    elif isinstance(x, dict):
        form.append((dict, tuple(x)))
        for each in x.values():
            flatten(each, tensors, form)
    else:
        form.append((type(x), x))


def rebuilt(x: Any, made: Callable[[Any], Any]) -> Any:
    """The nest ``x`` with what is ``made`` of each tensor in its place."""
    if isinstance(x, Value):
        return made(x)
    if isinstance(x, tuple | list):
        parts = [rebuilt(each, made) for each in x]
        return type(x)(*parts) if hasattr(x, "_fields") else type(x)(parts)
    if isinstance(x, dict):
        return {key: rebuilt(each, made) for key, each in x.items()}
    return x


def _detached(x: Value) -> Value:
    backend: Any = x.backend
    copied: Value = wrap(x.result_type, backend.copy(x.array), backend)
    return copied


def _stand_in(name: str, x: Value) -> Value:
    """The argument ``x`` under an identity of its own, so that it is told from what is captured."""
    if x.node is not None and is_grad_enabled():
        raise RuntimeError(
            f"jit: {name} got a tensor that {x.node!r} made: its gradient would end there; compute "
            "it inside, or detach() it"
        )
    backend: Any = x.backend
    array = backend.reshape(x.array, shape=x.array.shape)
    made: Value = wrap(type(x), array, backend, x.version)
    made.tracked, made.grad = x.tracked, x.grad
    return made


def _hashes(x: Any) -> bool:
    try:
        hash(x)
    except TypeError:
        return False
    return True
