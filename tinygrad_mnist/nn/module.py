"""Module: a tree of layers with their parameters and buffers."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, Literal, Self

from tinygrad_mnist.autograd.backward import RemovableHandle
from tinygrad_mnist.autograd.graph import no_grad, wrap
from tinygrad_mnist.creation import zeros
from tinygrad_mnist.dispatch import changed, observers
from tinygrad_mnist.in_place import forget_gradients
from tinygrad_mnist.nn import state
from tinygrad_mnist.nn.calls import (
    Hook,
    Hooks,
    call_with_hooks,
    leave,
    note_layer,
    register,
    tell_mode,
    tell_of,
)
from tinygrad_mnist.nn.summary import summarize, table
from tinygrad_mnist.tensor import Tensor

Kind = Literal["parameter", "module", "buffer", "temporary buffer"]  # the last is in no state
Kinds = tuple[Kind, ...]


class Parameter(Tensor):
    """A tensor that a module trains: assigned to one of its attributes, it is registered there."""

    __slots__ = ()

    def __new__(cls, data: Tensor | None = None, requires_grad: bool = True) -> Self:
        data = zeros(0) if data is None else data
        if not isinstance(data, Tensor):
            raise TypeError(f"Parameter: expected a tensor, got {type(data).__name__}")
        made: Self = wrap(cls, data.array, data.backend, data.version)
        made.requires_grad_(requires_grad)
        return made

    def __init__(self, data: Tensor | None = None, requires_grad: bool = True) -> None:
        """``data`` as a parameter, sharing its memory; an empty one without.

        TypeError for what is no tensor, RuntimeError for integers that require grad.
        """

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        """A parameter with memory of its own, and as in PyTorch without the gradient."""
        made = super().__deepcopy__(memo)
        made.grad = None
        return made

    def __repr__(self) -> str:
        return f"Parameter containing:\n{super().__repr__()}"


class Module:
    """Base of all layers and models. A subclass sets its layers in ``__init__`` and defines
    ``forward``.

    Its parameters and layers are those of its attributes that are a Parameter or a Module; its
    buffers those named by ``register_buffer``. They are plain attributes, and ``_places`` has
    their names in the order of registration. A place once taken by one of a kind takes only
    another of that kind, or None; a Parameter takes any, a Module also a buffer's.
    """

    _hooks: Hooks | None = None  # None costs a call the least
    _places: dict[str, Kind]

    def __init__(self) -> None:
        self._places = {}

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """What the module computes. A subclass defines it."""
        raise NotImplementedError(
            f"{type(self).__name__} has no method forward(): define one, or call the modules that "
            "it holds"
        )

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        above = tell_of(self) if observers() else None
        try:
            if self._hooks is None:
                return self.forward(*args, **kwargs)
            return call_with_hooks(self, self._hooks, args, kwargs)
        except Exception as error:
            note_layer(error, self)
            raise
        finally:
            if above is not None:
                leave(above)

    def __setstate__(self, state: dict[str, Any]) -> None:
        """A copy's attributes; what registers them is its own, in ``copy.copy`` too."""
        own = vars(self)
        own.update(state)
        if "_places" in own:
            self._places = dict(self._places)
        if self._hooks is not None:
            self._hooks = self._hooks.copy()

    # ---- attributes

    def __setattr__(self, name: str, value: Any) -> None:
        places = vars(self).get("_places", {})
        place = places.get(name)
        kind = _kind(value)
        if kind == "parameter" or (kind == "module" and place != "parameter"):
            if "_places" not in vars(self):
                raise self._uninitialised(name)
            if place != kind:
                places.pop(name, None)  # the new kind comes after those that are there
                places[name] = kind
        elif place is not None and value is not None and not isinstance(value, _TYPES[place]):
            raise self._misplaced(name, place, value)
        super().__setattr__(name, value)
        changed()

    def __delattr__(self, name: str) -> None:
        super().__delattr__(name)
        vars(self).get("_places", {}).pop(name, None)

    def __dir__(self) -> list[str]:
        return [name for name in super().__dir__() if not name[0].isdigit()]

    def register_parameter(self, name: str, param: Parameter | None) -> None:
        """``self.name = param``; None keeps the place for a later one.

        TypeError for another value or a name that is no string, ValueError for a name with a dot,
        an empty one, or one of another attribute.
        """
        self._register(name, "parameter", param)

    def register_buffer(self, name: str, tensor: Tensor | None, persistent: bool = True) -> None:
        """A tensor that is not trained, such as a running mean; None keeps its place.

        It is part of the state if ``persistent``. Errors as of ``register_parameter``.
        """
        self._register(name, "buffer" if persistent else "temporary buffer", tensor)

    def add_module(self, name: str, module: Module | None) -> None:
        """``self.name = module``; None keeps its place. Errors as of ``register_parameter``."""
        self._register(name, "module", module)

    register_module = add_module

    def _register(self, name: str, kind: Kind, value: Any) -> None:
        self._check_place(name, kind, value)
        self._places[name] = kind
        setattr(self, name, value)

    def _check_place(self, name: str, kind: Kind, value: Any) -> None:
        """The errors of ``register_parameter``, for any kind."""
        who = type(self).__name__
        if not isinstance(name, str):
            raise TypeError(f"{who}: expected a string as name of a {kind}, got {name!r}")
        if "_places" not in vars(self):
            raise self._uninitialised(name)
        if not name or "." in name:
            raise ValueError(f"{who}: expected a name without dots for a {kind}, got {name!r}")
        place = self._places.get(name)
        if hasattr(self, name) and (place is None or _TYPES[place] is not _TYPES[kind]):
            raise ValueError(
                f"{who} has an attribute {name!r} already, which is no {kind}; take another name, "
                "or delete it first"
            )
        own = _kind(value) or kind  # a parameter is no buffer
        if value is not None and (not isinstance(value, _TYPES[kind]) or own != kind):
            raise self._misplaced(name, kind, value)

    def _uninitialised(self, name: str) -> AttributeError:
        return AttributeError(
            f"{type(self).__name__}.{name} is set before super().__init__() was called"
        )

    def _misplaced(self, name: str, place: Kind, value: Any) -> TypeError:
        return TypeError(
            f"{type(self).__name__}: cannot assign {type(value).__name__} as {place} {name!r}; "
            f"expected a {_TYPES[place].__name__} or None"
        )

    # ---- hooks

    def register_forward_pre_hook(
        self, hook: Callable[..., Any], *, prepend: bool = False, with_kwargs: bool = False
    ) -> RemovableHandle:
        """Call ``hook(module, args)`` before each forward; what it returns, if anything, replaces
        the arguments.

        ``with_kwargs``: it is ``hook(module, args, kwargs)`` and returns None or ``(args,
        kwargs)``. ``prepend``: it comes first. The handle's ``remove()`` takes it off. TypeError
        for what cannot be called.
        """
        return register(self, "before", Hook(hook, with_kwargs), prepend)

    def register_forward_hook(
        self,
        hook: Callable[..., Any],
        *,
        prepend: bool = False,
        with_kwargs: bool = False,
        always_call: bool = False,
    ) -> RemovableHandle:
        """Call ``hook(module, args, output)`` after each forward; what it returns, if anything,
        replaces the output.

        ``with_kwargs``: it is ``hook(module, args, kwargs, output)``. ``prepend``: it comes first.
        ``always_call``: it is called with output None where the forward raises, too. The handle's
        ``remove()`` takes it off. TypeError for what cannot be called.
        """
        return register(self, "after", Hook(hook, with_kwargs, always_call), prepend)

    # ---- the tree

    def _placed(self, *kinds: Kind) -> list[tuple[str, Any]]:
        """The attributes of these kinds, None included, in the order of registration."""
        own = vars(self)
        places = own.get("_places", {})
        return [(name, own.get(name)) for name, kind in places.items() if kind in kinds]

    def _held(self, *kinds: Kind) -> list[tuple[str, Any]]:
        """Those of ``_placed`` that are not None."""
        return [(name, value) for name, value in self._placed(*kinds) if value is not None]

    def named_children(self) -> Iterator[tuple[str, Module]]:
        """The modules directly below, each once, with their names."""
        yield from _once(self._held("module"))

    def children(self) -> Iterator[Module]:
        """The modules directly below, each once."""
        for _, child in self.named_children():
            yield child

    def named_modules(
        self, memo: set[Module] | None = None, prefix: str = "", remove_duplicate: bool = True
    ) -> Iterator[tuple[str, Module]]:
        """This module and all below, with dotted names that begin with ``prefix``.

        Each once, or without ``remove_duplicate`` by each of its names; none within itself. Those
        in ``memo`` are left out with what is below them; it takes up those that are given once.
        TypeError for a memo that is no set.
        """
        if not (memo is None or isinstance(memo, set)):
            raise TypeError(
                f"named_modules: expected a set of modules as memo, got {type(memo).__name__}; "
                "give the prefix by its name"
            )
        seen = set(map(id, memo or ()))
        if not remove_duplicate:
            yield from self._every_name(prefix, seen)
            return
        stack: list[tuple[str, Module]] = [(prefix, self)]
        while stack:
            name, module = stack.pop()
            if id(module) not in seen:
                seen.add(id(module))
                if memo is not None:
                    memo.add(module)
                yield name, module
                below = module._held("module")
                stack.extend((_dotted(name, key), child) for key, child in reversed(below))

    def _every_name(self, prefix: str, above: set[int]) -> Iterator[tuple[str, Module]]:
        """Of what has several names by each; those whose id is in ``above`` are left out."""
        if id(self) not in above:
            yield prefix, self
            for name, child in self._held("module"):
                yield from child._every_name(_dotted(prefix, name), {*above, id(self)})

    def modules(self, remove_duplicate: bool = True) -> Iterator[Module]:
        """This module and all below; see ``named_modules``."""
        for _, module in self.named_modules(remove_duplicate=remove_duplicate):
            yield module

    def _named_tensors(
        self, groups: Sequence[Kinds], prefix: str, recurse: bool, remove_duplicate: bool
    ) -> Iterator[tuple[str, Any]]:
        """The tensors of these kinds with dotted names: of each module one group after another."""
        below = self.named_modules(None, prefix, remove_duplicate) if recurse else [(prefix, self)]
        every = (
            (_dotted(path, name), value)
            for path, module in below
            for kinds in groups
            for name, value in module._held(*kinds)
        )
        yield from _once(every) if remove_duplicate else every

    def named_parameters(
        self, prefix: str = "", recurse: bool = True, remove_duplicate: bool = True
    ) -> Iterator[tuple[str, Parameter]]:
        """All parameters with dotted names that begin with ``prefix``, each once.

        ``recurse=False``: this module's own alone. ``remove_duplicate=False``: a shared one by
        each of its names.
        """
        yield from self._named_tensors((_PARAMETERS,), prefix, recurse, remove_duplicate)

    def parameters(self, recurse: bool = True) -> Iterator[Parameter]:
        """All parameters, each once; this module's own alone without ``recurse``."""
        for _, parameter in self.named_parameters("", recurse):
            yield parameter

    def named_buffers(
        self, prefix: str = "", recurse: bool = True, remove_duplicate: bool = True
    ) -> Iterator[tuple[str, Tensor]]:
        """All buffers; see ``named_parameters``."""
        yield from self._named_tensors((_BUFFERS,), prefix, recurse, remove_duplicate)

    def buffers(self, recurse: bool = True) -> Iterator[Tensor]:
        """All buffers, each once; this module's own alone without ``recurse``."""
        for _, buffer in self.named_buffers("", recurse):
            yield buffer

    def get_submodule(self, target: str) -> Module:
        """The module of a dotted name; itself for an empty one. AttributeError for none such."""
        found: Module = self
        for name in target.split(".") if target else ():
            found = found._get("get_submodule", target, name, "module")
        return found

    def get_parameter(self, target: str) -> Parameter:
        """The parameter of a dotted name. AttributeError for none such."""
        path, _, name = target.rpartition(".")
        found: Parameter = self.get_submodule(path)._get("get_parameter", target, name, "parameter")
        return found

    def get_buffer(self, target: str) -> Tensor:
        """The buffer of a dotted name. AttributeError for none such."""
        path, _, name = target.rpartition(".")
        found: Tensor = self.get_submodule(path)._get("get_buffer", target, name, *_BUFFERS)
        return found

    def _get(self, who: str, target: str, name: str, *kinds: Kind) -> Any:
        held = dict(self._held(*kinds))
        if name not in held:
            there = ", ".join(map(repr, held)) or "none"
            raise AttributeError(
                f"{who}: no {kinds[0]} {name!r} in {type(self).__name__} for {target!r}; "
                f"there: {there}"
            )
        return held[name]

    def apply(self, fn: Callable[[Module], Any]) -> Self:
        """Call ``fn`` on every module below, and then on this one."""
        for child in self.children():
            child.apply(fn)
        fn(self)
        return self

    # ---- modes

    @property
    def training(self) -> bool:
        """Whether it is in training mode, as modules are at first."""
        if observers():
            tell_mode(self)
        return bool(vars(self).get("training", True))

    @training.setter
    def training(self, mode: bool) -> None:
        vars(self)["training"] = mode

    def train(self, mode: bool = True) -> Self:
        """Training mode here and below: dropout drops, batch norm follows the batches.

        TypeError for what is no bool.
        """
        if not isinstance(mode, bool):
            raise TypeError(f"train: expected True or False, got {mode!r}")
        self.training = mode
        for child in self.children():
            child.train(mode)
        return self

    def eval(self) -> Self:
        """Evaluation mode: ``train(False)``."""
        return self.train(False)

    def requires_grad_(self, requires_grad: bool = True) -> Self:
        """Train all parameters, or freeze them."""
        for parameter in self.parameters():
            parameter.requires_grad_(requires_grad)
        return self

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Forget every parameter's gradient, or set it to zeros."""
        forget_gradients(self.parameters(), set_to_none)

    # ---- elsewhere, or of another dtype

    def to(self, *args: Any, dtype: Any = None, backend: Any = None, device: Any = None) -> Self:
        """Move parameters and buffers to another backend or float dtype; see ``Tensor.to``.

        The parameters keep their identity, so an optimizer made before still knows them; integers,
        such as counts, keep their dtype. TypeError for a dtype that is not of floats.
        """

        def moved(x: Tensor) -> Tensor:
            found = x.to(*args, dtype=dtype, backend=backend, device=device)
            if not x.is_floating_point():
                return x.to(backend=found.backend)
            if not found.is_floating_point():
                raise TypeError(
                    f"{type(self).__name__}.to: expected a float dtype, got {found.dtype}"
                )
            return found

        return self._moved(moved)

    def float(self) -> Self:
        """Floats as float32."""
        return self.to("float32")

    def double(self) -> Self:
        """Floats as float64."""
        return self.to("float64")

    def cpu(self) -> Self:
        """On the host: ``to("cpu")``."""
        return self._moved(lambda x: x.cpu())

    def cuda(self, device: Any = None) -> Self:
        """On a GPU; see ``Tensor.cuda``."""
        return self._moved(lambda x: x.cuda(device))

    def _moved(self, fn: Callable[[Tensor], Tensor]) -> Self:
        """All parameters, buffers and gradients through ``fn``, and only then in their places."""
        with no_grad():
            ready = [
                (value, fn(value.detach()), None if value.grad is None else fn(value.grad))
                for value in (*self.parameters(), *self.buffers())
            ]
        for value, new, grad in ready:
            value.array, value.backend, value.version = new.array, new.backend, new.version
            value.grad = grad
        changed()
        return self

    # ---- state

    def state_dict(self, *, prefix: str = "", keep_vars: bool = False) -> dict[str, Tensor]:
        """Every parameter and persistent buffer by its dotted name, with ``prefix`` before it.

        They are the tensors themselves, detached unless ``keep_vars``. A shared one is there under
        each of its names.
        """
        every = self._named_tensors((_PARAMETERS, ("buffer",)), "", True, False)
        return {prefix + name: value if keep_vars else value.detach() for name, value in every}

    def load_state_dict(
        self, state_dict: Mapping[str, Any], strict: bool = True
    ) -> state._IncompatibleKeys:
        """Copy ``state_dict``, arrays by dotted name, into the parameters and buffers.

        The arrays are tensors, NumPy arrays or another library's on the host; floats are cast.
        Returns ``missing_keys`` and ``unexpected_keys``. One ValueError names every missing,
        unexpected and mis-shaped key, every dtype that would not be held and every value that is no
        array of numbers, and then nothing is copied; ``strict=False`` lets keys be missing or
        unexpected. TypeError for what is no mapping.
        """
        return state.load(type(self).__name__, self.state_dict(), state_dict, strict)

    # ---- display

    def summary(self, input_shape: Any, *, dtype: Any = None) -> None:
        """Print a table of the layers, as Keras does, and the totals below.

        ``input_shape`` is without the batch: ``(1, 28, 28)``, or 784 for ``(784,)``; a list of
        shapes for several inputs.
        ``dtype``: the inputs', one for all or a list; that of the model's floats without. A layer
        has its path in the model, its class and ``×n`` where it is called n times; the shape of its
        output, None being the batch; its parameters, "shared" where a line above has them; the
        multiply-adds of its products and convolutions and the bytes of its output for one sample.

        The model runs in evaluation mode on made-up inputs. Afterwards its parameters, its buffers
        and its other attributes are as they were, lists, dicts and sets with what they held, and so
        are the random streams; what objects of other classes hold is not put back.
        ``nn.summary.summarize`` gives the same as data. TypeError or ValueError for what is no
        shape; what the model raises of it names the layer.
        """
        print(table(summarize(self, input_shape, dtype)))

    def extra_repr(self) -> str:
        """What ``repr`` shows between the parentheses of a layer."""
        return ""

    def __repr__(self) -> str:
        return self._displayed([f"({name}): {m!r}" for name, m in self._placed("module")])

    def _displayed(self, modules: list[str]) -> str:
        """The module with a line, or several, for each of its ``modules``."""
        extra = self.extra_repr()
        lines = [*(extra.split("\n") if extra else ()), *map(_indented, modules)]
        if not modules and len(lines) < 2:
            return f"{type(self).__name__}({extra})"
        body = "\n  ".join(lines)
        return f"{type(self).__name__}(\n  {body}\n)"


_PARAMETERS: Kinds = ("parameter",)
_BUFFERS: Kinds = ("buffer", "temporary buffer")
_TYPES: dict[Kind, type] = {
    "parameter": Parameter,
    "module": Module,
    "buffer": Tensor,
    "temporary buffer": Tensor,
}


def _kind(value: Any) -> Kind | None:
    """What a value becomes when it is assigned to an attribute, by itself."""
    if isinstance(value, Parameter):
        return "parameter"
    return "module" if isinstance(value, Module) else None


def _once(named: Iterable[tuple[str, Any]]) -> Iterator[tuple[str, Any]]:
    """The pairs whose value was not there before."""
    seen: set[int] = set()
    for name, value in named:
        if id(value) not in seen:
            seen.add(id(value))
            yield name, value


def _dotted(prefix: str, name: str) -> str:
    return f"{prefix}.{name}" if prefix else name


def _indented(text: str) -> str:
    """All lines but the first and the empty ones two columns to the right."""
    first, *others = text.split("\n")
    return "\n".join([first, *(f"  {line}" if line.strip() else "" for line in others)])
