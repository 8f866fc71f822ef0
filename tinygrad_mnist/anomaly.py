"""The first NaN or infinity: which kernel made it, of what, and at whose line."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any, NamedTuple, Self

import numpy as np

from tinygrad_mnist.contract import label, spec
from tinygrad_mnist.dispatch import Call, Observer, observe
from tinygrad_mnist.kernels import Backend
from tinygrad_mnist.lines import Line, Origin, Origins, shortened, users_line

# What these write a user has given: numbers and data, which are no one's mistake yet.
_GIVEN = {"full", "fill_", "copy", "copy_", "put_"}


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

    Every kernel's results are looked at, in the forward pass, in the backward pass and in updates.
    A NaN is an anomaly wherever it comes up: either the kernel has made it, or an input has had it
    before, as data may have; the error says which. An infinity is one where all inputs are finite,
    as in log 0, x/0 or an exp that overflows, even if it would be masked out later: mask the input
    instead. Infinities that are given pass on, such as the -inf of an attention mask. Tensors that
    are made of numbers or data, copied or written by ``x[i] = v`` may hold anything.

    Any other error in the backward pass gets a note of that op, too; with ``check_nan=False`` that
    is all. It watches the thread that it is entered in, may be nested, and costs nothing outside of
    its blocks; in them each result is read once more, and on a device waited for, and NumPy's own
    warnings of NaN and infinities are silent. PyTorch's ``torch.autograd.detect_anomaly`` looks at
    the backward pass only, and not for infinities.
    """

    def __init__(self, check_nan: bool = True) -> None:
        self._check_nan = check_nan
        self._open: list[tuple[_Watcher, ExitStack]] = []

    def __enter__(self) -> Self:
        detector = _Detector() if self._check_nan else _Watcher()
        block = ExitStack()
        block.enter_context(observe(detector))
        if self._check_nan:
            block.enter_context(np.errstate(all="ignore"))  # warnings of what is looked at here
        self._open.append((detector, block))
        return self

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        detector, block = self._open.pop()
        block.close()
        if error is not None and not isinstance(error, FloatingPointError):
            detector.note(error)


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


class _Watcher(Observer):
    """Knows of which op the gradient is being made."""

    def __init__(self) -> None:
        self._origins = Origins()

    def differentiated(self, node: Any) -> None:
        self._origins.differentiated(node)

    def after(self, call: Call, result: Any) -> None:
        self._origins.of(call)

    def note(self, error: BaseException) -> None:
        """Note on ``error`` the op, if it left a backward pass."""
        origin = self._origins.now
        if origin is not None:
            error.add_note(f"in the gradient of {_ran(origin)}")
            _note_layer(error, origin)


class _Detector(_Watcher):
    """Looks at what each kernel call of one block has made, too."""

    def __init__(self) -> None:
        super().__init__()
        self._given: list[_Bad] | None = None  # in what a call takes, where it may write over it

    def before(self, call: Call) -> None:
        overwrites = call.out is not None or spec(call.kernel).writes
        self._given = _bad_inputs(call) if overwrites else None

    def after(self, call: Call, result: Any) -> None:
        origin = self._origins.of(call)
        if call.kernel in _GIVEN or spec(call.kernel).kind == "view":
            return
        made = _bad_results(call, result)
        if not made:
            return
        given = _bad_inputs(call) if self._given is None else self._given
        found = _anomaly(label(call.kernel, call.static), made, given)
        if found:
            raise _error(f"{found}{_where(call, origin)}; inputs: {_shown(call)}", call, origin)


def _bad_inputs(call: Call) -> list[_Bad]:
    return [bad for name, x in _inputs(call) for bad in _bad(call.backend, name, x)]


def _bad_results(call: Call, result: Any) -> list[_Bad]:
    """Those of a kernel in place are among its inputs."""
    writes = spec(call.kernel).writes
    made = [(name, x) for name, x in _inputs(call) if name in writes]
    made.append(("results" if isinstance(result, tuple) else "", result))
    return [bad for name, x in made for bad in _bad(call.backend, name, x)]


def _inputs(call: Call) -> Iterator[tuple[str, Any]]:
    """What a call takes, by the names in the contract."""
    contract = spec(call.kernel)
    if contract.variadic:
        return iter([(contract.inputs[0], call.arrays)])
    return zip(contract.inputs, call.arrays, strict=False)  # the last may be left out


def _bad(backend: Backend, name: str, x: Any) -> Iterator[_Bad]:
    """An entry for ``x``, or for each array in a list or tuple, that is not finite all over."""
    if isinstance(x, list | tuple):
        for i, each in enumerate(x):
            yield from _bad(backend, f"{name}[{i}]", each)
    elif isinstance(x, float):
        if not math.isfinite(x):
            yield _Bad(name, int(math.isnan(x)), int(math.isinf(x)), 1)
    elif hasattr(x, "dtype") and x.dtype.kind == "f" and _count(backend, "isfinite", x) != x.size:
        yield _Bad(name, _count(backend, "isnan", x), _count(backend, "isinf", x), x.size)


def _count(backend: Backend, what: str, x: Any) -> int:
    """Of how many elements of ``x`` this holds."""
    return int(backend.to_numpy(backend.xp.count_nonzero(getattr(backend.xp, what)(x))))


def _anomaly(kernel: str, made: list[_Bad], given: list[_Bad]) -> str:
    """What ``kernel`` did, taking what is in ``given`` and making what is in ``made``.

    "" where that is no anomaly.
    """
    nan = next((bad for bad in given if bad.nan), None)
    infinite = next((bad for bad in given if bad.infinite), None)
    first = next((bad for bad in made if bad.nan), made[0])
    if not first.nan and infinite is not None:
        return ""
    if first.nan and nan is not None:
        return f"{kernel} was given NaN: {nan.name} has {nan.found} among its {nan.numbers}"
    among = f"the {first.numbers} of {first.name}" if first.name else f"its {first.numbers}"
    made_of = f", of the infinities in {infinite.name}" if infinite else ""
    return f"{kernel} made {first.found} among {among}{made_of}"


_PHASES = {"forward": "", "backward": " in the backward pass", "update": " in the update"}


def _where(call: Call, origin: Origin | None) -> str:
    """At which line, and in the backward pass, of which op's gradient."""
    line = users_line() if call.instruction is None else call.instruction.line
    here = f"at {_shown_line(line)}"
    if call.phase != "backward" or origin is None:
        return f"{_PHASES[call.phase]}, {here}"
    return f" in the gradient of {_ran(origin)}; backward {here}"


def _ran(origin: Origin) -> str:
    where = "outside of the block" if origin.line is None else f"at {_shown_line(origin.line)}"
    return f"{origin.op}, which ran {where}"


def _shown_line(line: Line) -> str:
    return f"{line.place} ({line.text})" if line.text else line.place


def _error(message: str, call: Call, origin: Origin | None) -> FloatingPointError:
    """With the layer as a note, where that is not at work and notes it by itself."""
    error = FloatingPointError(message)
    at_work = call.instruction is None and call.phase != "backward"
    if not at_work and origin is not None:
        _note_layer(error, origin)
    return error


def _note_layer(error: BaseException, origin: Origin) -> None:
    if origin.layer is not None:
        error.add_note(f"in {origin.layer}")


def _shown(call: Call) -> str:
    """The dtypes and shapes of what a call takes."""
    given = [f"{name} {_outline(x)}" for name, x in _inputs(call) if x is not None]
    return shortened(", ".join(given), 200) or "none"


def _outline(x: Any) -> str:
    if isinstance(x, list | tuple):
        return f"[{', '.join(map(_outline, x))}]"
    return f"{x.dtype}{tuple(x.shape)}" if hasattr(x, "shape") else str(x)
