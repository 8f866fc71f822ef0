"""The registry of backends and the choice between them.

A backend is named ``module:Class``; it is imported when it is first asked for. Third parties
register theirs under the entry-point group ``tinygrad_mnist.backends``. ``"cupy:1"`` is the backend
``"cupy"`` on its device 1, another backend than ``"cupy"``, which is on device 0.
"""

from __future__ import annotations

import difflib
import importlib
import importlib.metadata
import re
import sys
import threading
from contextvars import ContextVar
from dataclasses import dataclass

from tinygrad_mnist import config, driver
from tinygrad_mnist.kernels import Backend

ENTRY_POINTS = "tinygrad_mnist.backends"

_BUILTIN = {
    "numpy": "tinygrad_mnist.backends.numpy_backend:NumpyBackend",
    "numba": "tinygrad_mnist.backends.numba_backend:NumbaBackend",
    "cupy": "tinygrad_mnist.backends.cupy_backend:CupyBackend",
}
_AUTO = ("cupy", "numba", "numpy")  # the first usable one

_loaded: dict[str, Backend] = {}
_lock = threading.RLock()
_default: Backend | None = None  # set_backend's, or what the variable resolved to
_scoped: ContextVar[tuple[Backend, ...]] = ContextVar("backend", default=())  # the innermost last


class BackendError(RuntimeError):
    """A backend that was asked for and cannot be had, or two backends where one is expected."""


@dataclass(frozen=True)
class Status:
    """One line of ``python -m tinygrad_mnist backends``."""

    name: str
    problem: str | None  # None: usable


def registered() -> dict[str, str]:
    """Every known backend's name and ``module:Class``: our own first, then other packages'."""
    others = {entry.name: entry.value for entry in _entry_points() if entry.name not in _BUILTIN}
    return _BUILTIN | others


def statuses() -> list[Status]:
    """Every known backend, usable or why not and the line that would mend it."""
    found = {name: _loaded.get(name) or _attempt(t) for name, t in registered().items()}
    return [Status(name, it if isinstance(it, str) else None) for name, it in found.items()]


def resolve(backend: str | Backend | None = None, asked: str = "the backend argument") -> Backend:
    """The backend of that name, or the current one for None.

    Raises BackendError where it is unknown or cannot run here; ``asked`` says who asked.
    """
    if backend is None:
        return current()
    if isinstance(backend, Backend):
        return backend
    if not isinstance(backend, str):
        raise BackendError(
            f"{asked} is {backend!r}: expected a backend's name, one of {_names()} or 'auto'"
        )
    return _auto() if backend == "auto" else _load(backend, asked)


def current() -> Backend:
    """The backend new tensors get: ``use_backend``'s, else ``set_backend``'s, else the variable's.

    The variable is read at the first call that needs it. Raises BackendError as ``resolve`` does.
    """
    global _default
    scoped = _scoped.get()
    if scoped:
        return scoped[-1]
    if _default is None:
        _warn_of_unknown_variables()
        _default = resolve(config.backend(), f"the variable {config.BACKEND}")
    return _default


def set_backend(backend: str | Backend) -> None:
    """Make ``backend`` the one new tensors get; existing tensors stay where they are."""
    global _default
    _default = resolve(backend, "set_backend()")


class use_backend:
    """``with use_backend("numba"):`` new tensors of this thread or task are made there."""

    def __init__(self, backend: str | Backend) -> None:
        self._backend = resolve(backend, "use_backend()")

    def __enter__(self) -> Backend:
        _scoped.set((*_scoped.get(), self._backend))
        return self._backend

    def __exit__(self, *error: object) -> None:
        _scoped.set(_scoped.get()[:-1])


def _entry_points() -> importlib.metadata.EntryPoints:
    return importlib.metadata.entry_points(group=ENTRY_POINTS)


def _names() -> str:
    return ", ".join(repr(name) for name in registered())


def is_usable(name: str) -> bool:
    """Whether the backend of that name can run here. BackendError where there is none."""
    return isinstance(_found(name, "is_usable()"), Backend)


def _load(name: str, asked: str) -> Backend:
    found = _found(name, asked)
    if isinstance(found, str):
        raise BackendError(
            f"{asked} is {name!r}, which cannot run here: {found}. "
            f"Usable here: {', '.join(repr(s.name) for s in statuses() if not s.problem)}"
        )
    return found


def _found(name: str, asked: str) -> Backend | str:
    """The backend, made if it is not there, or why it cannot run here and what would mend it."""
    base, colon, number = name.partition(":")
    with _lock:
        if name not in _loaded:
            known = registered() if base not in _BUILTIN else _BUILTIN
            if base not in known:
                raise BackendError(_unknown(name, asked))
            if colon and not re.fullmatch("[0-9]{1,9}", number):
                raise BackendError(
                    f"{asked} is {name!r}: expected the number of a device behind the colon, as in "
                    f"'{base}:1', or {base!r}"
                )
            device = int(number or 0)
            own = f"{base}:{device}" if device else base
            found = _loaded.get(own) or _attempt(known[base], device)
            if isinstance(found, str):
                return found
            _loaded[own] = _loaded[name] = found
        return _loaded[name]


def _attempt(target: str, device: int = 0) -> Backend | str:
    """The backend ``module:Class``, or why it cannot run here and the line that mends it."""
    module, _, attribute = target.partition(":")
    try:
        kind: type[Backend] = getattr(importlib.import_module(module), attribute)
        found = kind.at(device)
        return found if isinstance(found, str) else found.unusable() or found()
    except ModuleNotFoundError as error:
        package = (error.name or module).partition(".")[0]
        if package == __name__.partition(".")[0]:
            return f"importing {target} failed: {error}"
        line = driver.brings_cupy() if package == "cupy" else f"mend it with: pip install {package}"
        return f"the package {package} is not installed; {line}"
    except Exception as error:  # noqa: BLE001  a third party's module may raise anything
        return f"loading {target} failed: {type(error).__name__}: {error}"


def _auto() -> Backend:
    """The best one. One that is there and broken is told of; a GPU that is not there is none."""
    problems = []
    for name in _AUTO:
        if name == "cupy" and name not in _loaded and not driver.cupy_may_run():
            continue
        found = _found(name, "auto")
        if isinstance(found, str):
            problems.append(f"{name} cannot run here: {found}")
            continue
        if problems:
            print(f"tinygrad_mnist: using {name}; {'; '.join(problems)}", file=sys.stderr)
        return found
    raise BackendError("no backend can run here: " + "; ".join(problems))


def _unknown(name: str, asked: str) -> str:
    base, colon, number = name.partition(":")
    close = difflib.get_close_matches(base, [*registered(), "auto"], n=1)
    if base in ("cuda", "gpu"):
        close = [f"cupy{colon}{number}"]
    hint = f" Did you mean {close[0]!r}?" if close else ""
    return f"{asked} is {name!r}: there is no such backend, expected {_names()} or 'auto'.{hint}"


def _warn_of_unknown_variables() -> None:
    for name in config.unknown_variables():
        close = difflib.get_close_matches(name, config.KNOWN, n=1)
        hint = f"; did you mean {close[0]}?" if close else ""
        print(f"tinygrad_mnist: the variable {name} means nothing here{hint}", file=sys.stderr)
