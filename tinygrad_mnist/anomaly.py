"""The first NaN or infinity: which kernel made it, of what, and at whose line."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack
from typing import Any, NamedTuple, Self

import numpy as np

from tinygrad_mnist.contract import label, spec
from tinygrad_mnist.dispatch import Call, Observer, at, observe
from tinygrad_mnist.kernels import Backend
from tinygrad_mnist.lines import Line, Origin, Origins, shortened, users_function, users_line

# What these write a user has given, under this name: numbers and data, no one's mistake yet.
_GIVEN = {"full": "value", "fill_": "value", "copy": "x", "copy_": "y", "put_": "y"}


class detect_anomaly:
    """Raises FloatingPointError at the first NaN or infinity that the ``with`` block computes::

        with tg.detect_anomaly():
            loss = F.cross_entropy(model(x), y)
            loss.backward()
            optimizer.step()

    The error names the kernel, the shapes and dtypes of its inputs and the line of the user's code;
    in the backward pass also the op whose gradient it is, with the line and as a note the layer
    where that ran, if it ran in the block. A recorded step replays kernel by kernel, and its lines
    are those that it was recorded at.

    Every kernel's results are looked at, in the forward pass, in the backward pass and in updates;
    so is what a ``Function``'s forward and backward return, and what hooks and ``backward(g)``
    bring. A NaN is an anomaly wherever it comes up: either the kernel has made it, or an input has
    had it before, as data may have; the error says which. An infinity is one where all inputs are
    finite, as in log 0, x/0 or an exp that overflows, even if it would be masked out later: mask
    the input instead. Infinities that are given pass on, such as the -inf of an attention mask; in
    an elementwise op, one made beside them is an anomaly all the same. Tensors that are made of
    numbers or data, copied or written by ``x[i] = v`` may hold what they are given, but no infinity
    that a narrower dtype makes of it.

    Any other error in the backward pass gets a note of that op, too; with ``check_nan=False`` that
    is all. It watches the thread that it is entered in, may be nested, and costs nothing outside of
    its blocks; in them each result is read once more, and on a device waited for, and NumPy's own
    warnings of NaN and infinities are silent. PyTorch's ``torch.autograd.detect_anomaly`` looks at
    the backward pass only, and not for infinities.
    """

    def __init__(self, check_nan: bool = True) -> None:
        self._check_nan = check_nan
        self._open: list[ExitStack] = []

    def __enter__(self) -> Self:
        block = ExitStack()
        block.enter_context(observe(_Detector() if self._check_nan else _Watcher()))
        if self._check_nan:
            block.enter_context(np.errstate(all="ignore"))  # warnings of what is looked at here
        self._open.append(block)
        return self

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        self._open.pop().close()


class _Bad(NamedTuple):
    """What of an array is no finite number."""

    name: str  # "" for a kernel's only result
    nan: int
    infinite: int
    size: int

    @property
    def found(self) -> str:
        """``3 NaN and 1 infinity``."""
        found = [f"{self.nan:,} NaN"] if self.nan else []
        if self.infinite:
            found.append(f"{self.infinite:,} {'infinity' if self.infinite == 1 else 'infinities'}")
        return " and ".join(found)

    @property
    def numbers(self) -> str:
        """Among how many."""
        return f"{self.size:,} number{'s' if self.size != 1 else ''}"


class _Given(NamedTuple):
    """What was taken, as it was before: it may be written over."""

    bad: list[_Bad]
    finite: Any = None  # where all inputs of an elementwise kernel are, if some are infinite

    def having(self, what: str) -> _Bad | None:
        """The first input with numbers that are ``nan`` or ``infinite``."""
        return next((bad for bad in self.bad if getattr(bad, what)), None)


class _Watcher(Observer):
    """Knows of which op the gradient is being made."""

    def __init__(self) -> None:
        self._origins = Origins()

    def differentiated(self, node: Any) -> None:
        self._origins.differentiated(node)

    def after(self, call: Call, result: Any) -> None:
        self._origins.of(call)

    def applied(self, name: str, results: Any, args: Any) -> None:
        self._origins.applied(name)

    def ended(self, error: BaseException | None) -> None:
        """Note the op on an error that leaves a backward pass."""
        origin = self._origins.now
        if error is None or origin is None:
            return
        if not isinstance(error, FloatingPointError):
            error.add_note(f"in the gradient of {_ran(origin)}")
            _note_layer(error, origin)
        self._origins.differentiated(None)


class _Detector(_Watcher):
    """Looks at what each kernel call of one block has made, too, and at what users' code has."""

    def __init__(self) -> None:
        super().__init__()
        self._given: _Given | None = None  # what a call takes, where it may write over it
        self._number: Any = None  # the array that a function made of ops has last filled with NaN

    def before(self, call: Call) -> None:
        overwrites = call.out is not None or spec(call.kernel).writes
        with call.backend.here():
            self._given = _taken(call) if overwrites else None

    def after(self, call: Call, result: Any) -> None:
        origin = self._origins.of(call)
        with call.backend.here():
            found = self._found(call, result)
        if found:
            line = users_line() if call.instruction is None else call.instruction.line
            at_work = call.instruction is None and call.phase != "backward"
            takes = [f"{name} {_outline(x)}" for name, x in _inputs(call) if x is not None]
            raise _error(f"{found}{_where(line, call.phase, origin)}", takes, origin, at_work)

    def applied(self, name: str, results: Any, args: Any) -> None:
        origin = self._origins.applied(name)
        phase, _, _ = at()
        self._look_at(name, results, args, phase, origin)

    def supplied(self, name: str, dX: Any, given: Any) -> None:
        self._look_at(name, [dX], given, "backward", self._origins.now)

    def _found(self, call: Call, result: Any) -> str:
        """The anomaly in what a kernel has made, or ""."""
        kernel = label(call.kernel, call.static)
        if spec(call.kernel).kind == "view":
            return ""
        if call.kernel in _GIVEN:
            self._remember(call, result)
            return _anomaly(kernel, _overflowed(call, result), _Given([]))
        made = _bad_results(call, result)
        if not made:
            return ""
        given = self._given or _taken(call)
        made = _own(made, given, _beside(call, result, given))
        return self._made_of_a_number(call, made) or _anomaly(kernel, made, given)

    def _remember(self, call: Call, result: Any) -> None:
        value = call.static.get("value")
        if call.kernel == "full" and isinstance(value, float) and math.isnan(value):
            self._number = result if users_function() else None

    def _made_of_a_number(self, call: Call, made: list[_Bad]) -> str:
        """Of a function that is made of ops and itself brings the NaN, such as mean for no numbers.

        "" for all else: then the kernel was given it, or has made it.
        """
        name = users_function() if call.instruction is None else ""
        literal = any(
            x is self._number if hasattr(x, "dtype") else isinstance(x, float) and math.isnan(x)
            for x in call.arrays
        )
        if not name or not literal or not made:
            return ""
        return f"{_made(name, made[0])} (in {call.kernel})"

    def _look_at(self, name: str, values: Any, args: Any, phase: str, origin: Any) -> None:
        """Raise for an anomaly in what a user's code, ``name``, has made of ``args``."""
        made = _bad_tensors("results", values)
        if not made:
            return
        given = _Given(_bad_tensors("its inputs", args))
        found = _anomaly(name, _own(made, given), given)
        if found:
            where = _where(users_line(), phase, origin)
            raise _error(f"{found}{where}", map(_outline, args), origin, phase != "backward")


# ---- what arrays hold


def _taken(call: Call) -> _Given:
    """What a call takes."""
    given = _Given([bad for name, x in _inputs(call) for bad in _bad(call.backend, name, x)])
    if spec(call.kernel).kind != "elementwise" or given.having("infinite") is None:
        return given
    xp, finite = call.backend.xp, True
    for _, x in _inputs(call):
        if isinstance(x, float) or (hasattr(x, "dtype") and x.dtype.kind == "f"):
            finite = xp.logical_and(xp.isfinite(x), finite)
    return given._replace(finite=finite)


def _inputs(call: Call) -> Iterator[tuple[str, Any]]:
    """What a call takes, by the names in the contract."""
    contract = spec(call.kernel)
    if contract.variadic:
        return iter([(contract.inputs[0], call.arrays)])
    return zip(contract.inputs, call.arrays, strict=False)  # the last may be left out


def _bad_results(call: Call, result: Any) -> list[_Bad]:
    """Those of a kernel in place are among its inputs."""
    writes = spec(call.kernel).writes
    made = [(name, x) for name, x in _inputs(call) if name in writes]
    made.append(("results" if isinstance(result, tuple) else "", result))
    return [bad for name, x in made for bad in _bad(call.backend, name, x)]


def _bad_tensors(name: str, values: Sequence[Any]) -> list[_Bad]:
    """Of what a user's code takes or has made, the tensors."""
    single = len(values) == 1
    made: list[_Bad] = []
    for i, x in enumerate(values):
        if hasattr(x, "array"):
            with x.backend.here():
                made += _bad(x.backend, "" if single else f"{name}[{i}]", x.array)
    return made


def _bad(backend: Backend, name: str, x: Any) -> Iterator[_Bad]:
    """An entry for ``x``, or for each array in a list or tuple, that is not finite all over."""
    if isinstance(x, list | tuple):
        for i, each in enumerate(x):
            yield from _bad(backend, f"{name}[{i}]", each)
    elif isinstance(x, float):
        if not math.isfinite(x):
            yield _Bad(name, int(math.isnan(x)), int(math.isinf(x)), 1)
    elif hasattr(x, "dtype") and x.dtype.kind == "f":
        xp = backend.xp
        if _count(backend, xp.isfinite(x)) != x.size:
            yield _Bad(name, _count(backend, xp.isnan(x)), _count(backend, xp.isinf(x)), x.size)


def _overflowed(call: Call, result: Any) -> list[_Bad]:
    """An entry where what is given is finite, but infinite in the dtype that it is written in."""
    name, xp = _GIVEN[call.kernel], call.backend.xp
    given: Any = dict(_inputs(call)).get(name, call.static.get(name))
    x = np.float64(given) if isinstance(given, float) else given
    dtype = (call.arrays[0] if result is None else result).dtype
    if not hasattr(x, "dtype") or x.dtype == dtype or x.dtype.kind != "f" or dtype.kind != "f":
        return []
    infinite = xp.logical_and(xp.isfinite(x), xp.isinf(x.astype(dtype)))
    count = _count(call.backend, infinite)
    return [_Bad(name, 0, count, x.size)] if count else []


def _beside(call: Call, result: Any, given: _Given) -> int:
    """How many infinities an elementwise kernel has made of finite numbers, beside given ones."""
    if given.finite is None:
        return 0
    xp = call.backend.xp
    return _count(call.backend, xp.logical_and(xp.isinf(result), given.finite))


def _count(backend: Backend, which: Any) -> int:
    """How many of ``which`` are true."""
    return int(backend.to_numpy(backend.xp.count_nonzero(which)))


# ---- what is said of it


def _own(made: list[_Bad], given: _Given, beside: int = 0) -> list[_Bad]:
    """``made`` with all of its infinities if none were given, and else with those ``beside``."""
    if given.having("infinite") is None:
        return made
    return [bad._replace(infinite=beside) for bad in made if bad.nan or beside]


def _anomaly(kernel: str, made: list[_Bad], given: _Given) -> str:
    """What ``kernel`` did, taking what is in ``given`` and making what is in ``made``.

    "" where that is no anomaly.
    """
    if not made:
        return ""
    first = next((bad for bad in made if bad.nan), made[0])
    nan, infinite = given.having("nan"), given.having("infinite")
    if first.nan and nan is not None:
        what = nan.name or "its input"
        return f"{kernel} was given NaN: {what} has {nan.found} among its {nan.numbers}"
    if first.nan and infinite is not None:
        return f"{_made(kernel, first)}, of the infinities in {infinite.name or 'its input'}"
    return _made(kernel, first)


def _made(name: str, bad: _Bad) -> str:
    among = f"the {bad.numbers} of {bad.name}" if bad.name else f"its {bad.numbers}"
    return f"{name} made {bad.found} among {among}"


_PHASES = {"forward": "", "backward": " in the backward pass", "update": " in the update"}


def _where(line: Line, phase: str, origin: Origin | None) -> str:
    """At which line, and in the backward pass, of which op's gradient."""
    here = f"at {_shown_line(line)}"
    if phase != "backward" or origin is None:
        return f"{_PHASES[phase]}, {here}"
    return f" in the gradient of {_ran(origin)}; backward {here}"


def _ran(origin: Origin) -> str:
    where = "outside of the block" if origin.line is None else f"at {_shown_line(origin.line)}"
    return f"{origin.op}, which ran {where}"


def _shown_line(line: Line) -> str:
    return f"{line.place} ({line.text})" if line.text else line.place


def _error(
    found: str, takes: Iterable[str], origin: Origin | None, at_work: bool
) -> FloatingPointError:
    """With the layer as a note, unless it is ``at_work`` and notes it by itself."""
    error = FloatingPointError(f"{found}; inputs: {shortened(', '.join(takes), 200) or 'none'}")
    if not at_work and origin is not None:
        _note_layer(error, origin)
    return error


def _note_layer(error: BaseException, origin: Origin) -> None:
    if origin.layer is not None:
        error.add_note(f"in {origin.layer}")


def _outline(x: Any) -> str:
    """The dtype and shape of an array or a tensor, or of each in a list."""
    if isinstance(x, list | tuple):
        return f"[{', '.join(map(_outline, x))}]"
    return f"{x.dtype}{tuple(x.shape)}" if hasattr(x, "shape") else str(x)
