"""What happens around a module's forward: its hooks, and on an error the name of the layer."""

from __future__ import annotations

import sys
import threading
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any, Literal

from tinygrad_mnist.autograd.backward import RemovableHandle
from tinygrad_mnist.autograd.graph import Value
from tinygrad_mnist.dispatch import Guard, Observer, changed, enter, observers, tell

if TYPE_CHECKING:
    from tinygrad_mnist.nn.module import Module


@dataclass(slots=True, eq=False)
class Hook:
    """A function that a module calls before or after its forward."""

    function: Callable[..., Any]
    with_kwargs: bool
    always_call: bool = False


@dataclass(slots=True)
class Hooks:
    """A module's hooks in the order of their calls: the keys of these dicts."""

    before: dict[Hook, None] = field(default_factory=dict)
    after: dict[Hook, None] = field(default_factory=dict)

    def copy(self) -> Hooks:
        """The same hooks; those registered later are not shared."""
        return Hooks(dict(self.before), dict(self.after))


def register(
    module: Module, when: Literal["before", "after"], hook: Hook, prepend: bool
) -> RemovableHandle:
    """``hook`` as the last of the module's, or as the first."""
    if not callable(hook.function):
        raise TypeError(
            f"{type(module).__name__}: expected a function as hook, got "
            f"{type(hook.function).__name__}"
        )
    if module._hooks is None:
        module._hooks = Hooks()
    hooks: dict[Hook, None] = getattr(module._hooks, when)
    others = list(hooks) if prepend else []
    hooks[hook] = None
    for other in others:
        hooks[other] = hooks.pop(other)
    changed()
    return RemovableHandle(hooks, hook)


def call_with_hooks(module: Module, hooks: Hooks, args: Any, kwargs: dict[str, Any]) -> Any:
    """The result of ``module.forward`` between its hooks.

    Where one of them raises, the hooks with ``always_call`` that have not run yet run all the same;
    what these raise then becomes a warning.
    """
    result = None
    always = [hook for hook in hooks.after if hook.always_call]
    try:
        for hook in list(hooks.before):
            args, kwargs = _before(hook, module, args, kwargs)
        result = module.forward(*args, **kwargs)
        for hook in list(hooks.after):
            if hook in always:
                always.remove(hook)
            result = _after(hook, module, args, kwargs, result)
    except Exception:
        for hook in always:
            try:
                result = _after(hook, module, args, kwargs, result)
            except Exception as error:  # noqa: BLE001  the first error is the one to raise
                warnings.warn(f"a forward hook with always_call raised {error!r}", stacklevel=3)
        raise
    return result


def _before(
    hook: Hook, module: Module, args: Any, kwargs: dict[str, Any]
) -> tuple[Any, dict[str, Any]]:
    """The arguments as a pre-hook leaves them. TypeError for what are none."""
    given = hook.function(module, args, *((kwargs,) if hook.with_kwargs else ()))
    if given is None:
        return args, kwargs
    if not hook.with_kwargs:
        return given if isinstance(given, tuple) else (given,), kwargs
    if not (isinstance(given, tuple) and len(given) == 2):
        raise TypeError(
            f"{type(module).__name__}: a forward pre-hook with_kwargs must return None or "
            f"(args, kwargs), got {type(given).__name__}"
        )
    return given


def _after(hook: Hook, module: Module, args: Any, kwargs: dict[str, Any], result: Any) -> Any:
    """The result as a forward hook leaves it."""
    given = (args, kwargs, result) if hook.with_kwargs else (args, result)
    changed = hook.function(module, *given)
    return result if changed is None else changed


# ---- what a recorded step relies on


class _Told(threading.local):
    """Of which modules the observers of this thread were told in the calls at work, and the layer
    whose call is the innermost.
    """

    observers: tuple[Observer, ...] = ()
    modules: frozenset[int] = frozenset()
    layer: Layer | None = None


_told = _Told()
Above = tuple[tuple[Observer, ...], frozenset[int], "Layer | None"]


def tell_of(module: Module) -> Above:
    """Say what the forward of ``module`` relies on, unless the call of a module above has said it.

    That is how it and all modules below are, called or not. Observers see in its kernel calls which
    layer they are of. ``leave`` takes what is returned.
    """
    outer = _told.layer
    above = _told.observers, _told.modules, outer
    if not _is_told(module):
        _told.observers = observers()
        _told.modules = frozenset(map(id, module.modules()))
        tell("relied", Guard(partial(_course, module)))
        whose = f"an attribute of {type(module).__name__}, or of a module in it,"
        tell("relied", Guard(partial(_arrays, module), keeps=whose))
    _told.layer = Layer(module if outer is None else outer.outermost, module)
    enter(_told.layer)
    return above


def tell_mode(module: Module) -> None:
    """Say that the mode of ``module`` is relied on, where no call has said it."""
    if not _is_told(module):
        tell("relied", Guard(lambda: vars(module).get("training", True)))


def _is_told(module: Module) -> bool:
    return _told.observers is observers() and id(module) in _told.modules


def leave(above: Above) -> None:
    """End the call for which ``tell_of`` gave ``above``."""
    _told.observers, _told.modules, _told.layer = above
    enter(_told.layer)


def _course(module: Module) -> list[Any]:
    """What decides the course of a forward besides its arguments: modes, hooks and attributes.

    What is written into a list or dict is not seen.
    """
    found: list[Any] = []
    for each in module.modules():
        hooks = each._hooks or Hooks()
        own = [(k, _outline(v)) for k, v in vars(each).items() if k not in ("training", "_hooks")]
        found.append((each.training, [*hooks.before], [*hooks.after], own))
    return found


_PLAIN = (bool, int, float, complex, str, bytes, type(None))


class _Same:
    """What equals nothing but itself, whatever its own ``==`` says."""

    __slots__ = ("value",)

    def __init__(self, value: Any) -> None:
        self.value = value

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Same) and other.value is self.value


def _outline(x: Any, levels: int = 6) -> Any:
    """What tells of an attribute that it is another: plain values and tuples by value, tensors by
    their memory, all else by identity. A list may be a log that each forward writes.
    """
    if isinstance(x, _PLAIN):
        return type(x), x
    if isinstance(x, Value):
        return x.tracked, _Same(x.array)
    if levels and isinstance(x, tuple):
        return type(x), [_outline(each, levels - 1) for each in x]
    return _Same(x)


def _arrays(module: Module) -> list[int]:
    """Which memory the tensors have that are attributes here and below, registered or not."""
    values = (x for each in module.modules() for x in vars(each).values())
    return [id(x.array) for x in values if isinstance(x, Value)]


class _Place(str):
    """The note on an error that names the layer where it arose; copied, it is the text alone."""

    def __reduce__(self) -> Any:
        return str, (str(self),)


def note_layer(error: Exception, layer: Module) -> None:
    """Note on ``error`` that it left ``layer``, unless one further in is noted already.

    The name is that below the outermost module that is at work: the first argument of a function
    on the stack, as ``self`` is of a forward.
    """
    if any(isinstance(note, _Place) for note in getattr(error, "__notes__", ())):
        return
    name, frame = "", sys._getframe(1)
    while frame.f_back is not None:
        frame = frame.f_back
        first = frame.f_code.co_varnames[:1] if frame.f_code.co_argcount else ()
        caller: Any = frame.f_locals.get(first[0]) if first else None
        if hasattr(caller, "named_modules"):
            name = next((path for path, m in caller.named_modules() if m is layer), name)
    error.add_note(_Place(f"in {_named(name, layer)}"))


class Layer:
    """A module at work, for observers: ``str()`` names it below the outermost one that is.

    Equal where it is the same one, of whatever class.
    """

    __slots__ = ("layer", "outermost")

    def __init__(self, outermost: Module, layer: Module) -> None:
        self.outermost = outermost
        self.layer = layer

    def __eq__(self, other: object) -> bool:
        return (
            isinstance(other, Layer)
            and self.layer is other.layer
            and self.outermost is other.outermost
        )

    def __hash__(self) -> int:
        return hash((id(self.outermost), id(self.layer)))

    def __str__(self) -> str:
        names = (name for name, m in self.outermost.named_modules() if m is self.layer)
        return _named(next(names, ""), self.layer)


def _named(name: str, module: Module) -> str:
    return f"{name}: {_head(module)}" if name else _head(module)


def _head(module: Module) -> str:
    """The module in one line, without those that it holds."""
    try:
        inside = " ".join(module.extra_repr().split())
    except Exception:  # noqa: BLE001  what is wrong with it must not hide the error
        inside = "…"
    held = "…" if next(module.children(), None) is not None else ""
    return f"{type(module).__name__}({inside or held})"
