"""What all optimizers share: parameter groups with their options, and state."""

from __future__ import annotations

import copy
import difflib
import functools
import inspect
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from numbers import Real
from operator import is_
from typing import Any, Self, TypeGuard

import numpy as np

from tinygrad_mnist.autograd.graph import enable_grad, no_grad
from tinygrad_mnist.creation import tensor
from tinygrad_mnist.dispatch import Guard, changed, observers, phase, tell
from tinygrad_mnist.in_place import forget_gradients
from tinygrad_mnist.tensor import Tensor

Group = dict[str, Any]

# What a group may hold beside the options: names, and what schedules keep there.
_KEPT = {"name", "param_names", "initial_lr", "max_lr", "min_lr", "max_momentum", "base_momentum"}
# How PyTorch runs an update; here it is always one kernel call.
_RUNS = {"foreach", "fused", "capturable", "differentiable"}


class Optimizer:
    """Base: parameter groups, per-parameter state, ``step`` and ``zero_grad``.

    ``params`` gives tensors, or (name, tensor), or groups: dicts that have such under ``params``
    and options in place of those in ``defaults``. ``param_groups`` lists the groups, whose options
    are read at every step, so that a schedule may change them; ``state`` maps each parameter to a
    dict of what is remembered of it. A subclass writes ``step`` in tensor ops::

        class SignSGD(optim.Optimizer):
            def __init__(self, params, lr=0.01):
                super().__init__(params, {"lr": lr})

            @tg.no_grad()
            def step(self):
                for group in self.param_groups:
                    for p in group["params"]:
                        if p.grad is not None:
                            p -= group["lr"] * p.grad.sign()

    TypeError, ValueError as ``add_param_group``, and where there are no parameters.
    """

    _stepped: bool | None = None  # whether step was called since the first schedule was made

    def __new__(cls, *args: Any, **options: Any) -> Self:
        """An optimizer; TypeError for an option that its ``__init__`` does not have."""
        parameters = inspect.signature(cls.__init__).parameters
        if not any(p.kind is p.VAR_KEYWORD for p in parameters.values()):
            _check_known(cls.__name__, options, [p for p in parameters if p != "self"])
        return super().__new__(cls)

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if "step" in vars(cls):
            cls.step = _noticed(cls.step)  # type: ignore[method-assign]

    def __init__(self, params: Iterable[Any], defaults: Group) -> None:
        self.defaults = defaults
        self.param_groups: list[Group] = []
        self.state: defaultdict[Tensor, dict[str, Any]] = defaultdict(dict)
        groups = self._listed(params)
        if not groups:
            used = "; was the iterator used up before?" if iter(params) is params else ""
            raise ValueError(f"{self._name}: got no parameters{used}")
        for group in groups if isinstance(groups[0], dict) else [{"params": groups}]:
            self.add_param_group(group)

    @property
    def _name(self) -> str:
        return type(self).__name__

    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Update the parameters that have a gradient; what ``closure`` returns is returned."""
        raise NotImplementedError(f"{self._name}: a subclass must have step()")

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Forget every parameter's gradient, or set it to zeros."""
        forget_gradients(self._params(), set_to_none)

    def _tell(self) -> None:
        """Say what a recorded step relies on.

        Lists and dicts that a user may write into tell nobody, so these are looked at always.
        """
        name = self._name
        trains = partial(self._trains, [[*group["params"]] for group in self.param_groups])
        tell("relied", Guard(trains, f"the parameters of {name} are others now", always=True))
        tell("relied", Guard(self._arrays, keeps=f"the state of {name}"))
        tell("relied", Guard(self._options_now, always=True))

    def _tell_state(self) -> None:
        """Say that the next step goes on from the state as this one left it."""
        known = [(p, self.state[p]) for p in self._params() if p in self.state]
        held = [(s, k, x) for _, s in known for k, x in s.items() if isinstance(x, Tensor)]
        params, states = zip(*known, strict=True) if known else ((), ())
        where, keys, tensors = zip(*held, strict=True) if held else ((), (), ())
        remembers = partial(self._remembers, params, states, where, keys, tensors)
        tell("relied", Guard(remembers, always=True))

    def _trains(self, told: list[list[Tensor]]) -> bool:
        """Whether the groups have these parameters."""
        if len(told) != len(self.param_groups):
            return False
        for group, params in zip(self.param_groups, told, strict=True):
            now = group["params"]
            if len(now) != len(params) or not all(map(is_, now, params)):
                return False
        return True

    def _remembers(
        self,
        params: Sequence[Tensor],
        states: Sequence[dict[str, Any]],
        where: Sequence[dict[str, Any]],
        keys: Sequence[str],
        tensors: Sequence[Tensor],
    ) -> bool:
        """Whether ``params`` have these states, and in them lie these tensors (where, by what key).

        It costs every replay, so the loops are those of ``map``.
        """
        return all(map(is_, map(self.state.get, params), states)) and all(
            map(is_, map(dict.get, where, keys), tensors)
        )

    def _arrays(self) -> list[int]:
        """Which memory the state has."""
        states = [self.state.get(p, {}) for p in self._params()]
        return [id(x.array) for s in states for x in s.values() if isinstance(x, Tensor)]

    def _options_now(self) -> list[Any]:
        """What a recorded step has built in: all options, where it is made of tensor ops."""
        return [{k: v for k, v in group.items() if k != "params"} for group in self.param_groups]

    # ---- groups

    def add_param_group(self, param_group: Group) -> None:
        """Train the tensors ``param_group["params"]`` too, with the group's own options.

        TypeError, ValueError for what is no float leaf, is there already, or for an option that
        is unknown, of a wrong type or out of range; no group is added then. A leaf that does not
        require grad is taken, and left as it is while it has no gradient.
        """
        where = f"{self._name}: group {len(self.param_groups)}"
        if not isinstance(param_group, dict):
            raise TypeError(f"{where} is {_kind(param_group)}, expected a dict like the others")
        if "params" not in param_group:
            raise ValueError(f"{where} has no 'params', only {list(param_group)}")
        given = param_group["params"]
        params = [given] if isinstance(given, Tensor) else self._listed(given)
        group = {**self.defaults, **param_group, **self._named(params, param_group)}
        self._check_params(group["params"])
        group = self._checked(group)
        self._check_ranges(group)
        self.param_groups.append(group)
        changed()

    def _listed(self, params: Any) -> list[Any]:
        """``params`` as a list; TypeError for what gives none, or in no fixed order."""
        if callable(getattr(params, "parameters", None)):
            instead = "use its parameters()"
        elif inspect.ismethod(params):
            instead = f"call it: {params.__name__}()"
        elif isinstance(params, Tensor):
            instead = "put it in a list"
        elif isinstance(params, Mapping):
            instead = "give its values(), or a list of groups: [{'params': …}]"
        elif isinstance(params, set | frozenset):
            instead = "its order changes from run to run: give a list"
        elif isinstance(params, Iterable):
            return list(params)
        else:
            instead = "give a list"
        raise TypeError(f"{self._name}: expected tensors, got {_kind(params)}; {instead}")

    def _named(self, params: list[Any], group: Group) -> Group:
        """The tensors under ``params``, and under ``param_names`` their names, if any."""
        pairs = [p for p in params if isinstance(p, tuple) and len(p) == 2]
        found: Group = {"params": params}
        if "param_names" in group:
            found["param_names"] = group["param_names"]
        if pairs:
            found = {"params": [p for _, p in pairs], "param_names": [name for name, _ in pairs]}
        others = {"param_names" in other for other in self.param_groups}
        if others == {"param_names" not in found} or len(found["params"]) < len(params):
            raise ValueError(f"{self._name}: name the parameters of all groups, or of none")
        return found

    def _check_params(self, params: list[Any]) -> None:
        places = {
            id(p): f"parameter {i} of group {g}"
            for g, group in enumerate(self.param_groups)
            for i, p in enumerate(group["params"])
        }
        for i, p in enumerate(params):
            place = f"parameter {i} of group {len(self.param_groups)}"
            if not isinstance(p, Tensor):
                raise TypeError(f"{self._name}: {place} is {_kind(p)}, expected a tensor")
            if p.dtype.kind != "f":
                raise ValueError(f"{self._name}: {place} is {p.dtype}; only floats can be trained")
            if not p.is_leaf:
                raise ValueError(
                    f"{self._name}: {place} was computed by {p.grad_fn}; give the leaves that it "
                    "was computed from, or p.detach().requires_grad_()"
                )
            if id(p) in places:
                raise ValueError(
                    f"{self._name}: {place}, of shape {tuple(p.shape)}, is given twice: it is "
                    f"{places[id(p)]}"
                )
            places[id(p)] = place

    def _checked(self, group: Group) -> Group:
        """``group``, whose options are known and of their types; else TypeError or ValueError."""
        options = [key for key in group if key not in {"params", *_KEPT}]
        _check_known(self._name, options, list(self.defaults))
        self._check_types(group)
        return group

    def _check_types(self, group: Group) -> None:
        """TypeError, ValueError for an option that no step could compute with."""

    def _check_ranges(self, group: Group) -> None:
        """ValueError for an option out of range; a schedule may set it so, and it is loaded so."""

    def _params(self) -> list[Tensor]:
        return [p for group in self.param_groups for p in group["params"]]

    # ---- state

    def state_dict(self) -> dict[str, Any]:
        """``state`` by the parameters' positions, and the groups with positions for parameters."""
        order = {p: i for i, p in enumerate(self._params())}
        groups, start = [], 0
        for group in self.param_groups:
            end = start + len(group["params"])
            groups.append({**group, "params": list(range(start, end))})
            start = end
        return {
            "state": {order[p]: dict(state) for p, state in self.state.items() if state},
            "param_groups": groups,
        }

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Take over what ``state_dict`` gave, or PyTorch's; what it has no state of starts afresh.

        ValueError, TypeError where groups, options or moments do not fit; nothing is changed then.
        Options are taken as a schedule has left them, out of range too.
        """
        self._check_form(state_dict)
        groups = self._loadable(state_dict["param_groups"])
        params = self._params()
        entries: dict[Tensor, dict[str, Any]] = {}
        for i, entry in state_dict["state"].items():
            if i not in range(len(params)):
                raise ValueError(
                    f"{self._name}: the state has an entry for parameter {i!r}, expected positions "
                    f"0 to {len(params) - 1}"
                )
            if not isinstance(entry, Mapping):
                raise TypeError(
                    f"{self._name}: the state of parameter {i} must be a dict, got {_kind(entry)}"
                )
            if entry:
                entries[params[i]] = self._checked_entry(i, params[i], entry)
        for own, group in zip(self.param_groups, groups, strict=True):
            own.update(group)
        for p in params:
            if p in entries:
                own_state = self.state.setdefault(p, {})  # recorded steps know the dict
                taken = _taken_over(p, entries[p], own_state)
                own_state.clear()
                own_state.update(taken)
            else:
                self.state.pop(p, None)
        changed()

    def _check_form(self, state_dict: Any) -> None:
        """TypeError, ValueError for what is not made as a state_dict is."""
        if not isinstance(state_dict, Mapping):
            raise TypeError(f"{self._name}: expected a state_dict, got {_kind(state_dict)}")
        if not {"state", "param_groups"} <= set(state_dict):
            raise ValueError(
                f"{self._name}: the state must have 'state' and 'param_groups', as state_dict() "
                f"gives it; got keys {list(state_dict)}"
            )
        state, groups = state_dict["state"], state_dict["param_groups"]
        if not isinstance(state, Mapping):
            raise TypeError(f"{self._name}: 'state' of a state must be a dict, got {_kind(state)}")
        expected = f"{self._name}: 'param_groups' of a state must be a list of dicts"
        if not isinstance(groups, list | tuple):
            raise TypeError(f"{expected}, got {_kind(groups)}")
        for i, group in enumerate(groups):
            if not isinstance(group, Mapping):
                raise TypeError(f"{expected}, got {_kind(group)} in it")
            if not isinstance(group.get("params"), list | tuple):
                raise ValueError(f"{self._name}: group {i} of a state must list its 'params'")

    def _loadable(self, loaded: list[Group]) -> list[Group]:
        """The ``loaded`` groups, checked, with the own parameters."""
        sizes = [len(group["params"]) for group in self.param_groups]
        given = [len(group["params"]) for group in loaded]
        if sizes != given:
            raise ValueError(
                f"{self._name}: the state is of groups of {given} parameters, expected {sizes}"
            )
        groups = []
        for own, other in zip(self.param_groups, loaded, strict=True):
            options = {k: v for k, v in other.items() if k != "params" and k not in _RUNS}
            groups.append(self._checked({**own, **copy.deepcopy(options)}))
        return groups

    def _checked_entry(self, i: int, p: Tensor, entry: Mapping[str, Any]) -> dict[str, Any]:
        """A loaded state of ``p``, at position ``i``; ValueError, TypeError for what is none."""
        return dict(entry)

    def __repr__(self) -> str:
        text = ""
        for i, group in enumerate(self.param_groups):
            options = [f"    {key}: {group[key]}" for key in sorted(group) if key != "params"]
            text += "\n".join(["", f"Parameter Group {i}", *options, ""])
        return f"{self._name} ({text})"


def evaluated(closure: Callable[[], Any] | None) -> Any:
    """What ``closure`` returns, called with gradients on; None without one."""
    if closure is None:
        return None
    with enable_grad():
        return closure()


def is_number(x: Any) -> bool:
    """Whether ``x`` is a Python or NumPy number, no bool."""
    return isinstance(x, Real) and not isinstance(x, bool)


def is_array(x: Any) -> bool:
    """Whether ``x`` is a tensor, PyTorch's too, or a NumPy array."""
    return isinstance(x, Tensor) or (hasattr(x, "__array__") and not isinstance(x, np.generic))


def _taken_over(p: Tensor, entry: dict[str, Any], old: dict[str, Any]) -> dict[str, Any]:
    """A copy of a loaded state, in the memory of the ``old`` where that fits."""
    taken: dict[str, Any] = {}
    for key, value in entry.items():
        if not is_array(value):
            taken[key] = copy.deepcopy(value)
            continue
        value = value if isinstance(value, Tensor) else tensor(np.asarray(value))
        dtype = p.dtype if value.dtype.kind == "f" else value.dtype
        value = value.detach().to(dtype=dtype, backend=p.backend)
        own = old.get(key)
        with no_grad():
            taken[key] = own.copy_(value) if _alike(own, value) else value.clone()
    return taken


def _alike(own: Any, value: Tensor) -> TypeGuard[Tensor]:
    return (
        isinstance(own, Tensor)
        and own.backend is value.backend
        and (own.dtype, own.shape) == (value.dtype, value.shape)
    )


def _noticed(step: Callable[..., Any]) -> Callable[..., Any]:
    """``step``, which schedules can see that it was called."""

    @functools.wraps(step)
    def noticed(self: Optimizer, *args: Any, **kwargs: Any) -> Any:
        if self._stepped is False:
            self._stepped = True
        if observers():
            self._tell()
        with phase("update"):
            result = step(self, *args, **kwargs)
        if observers():
            self._tell_state()
        return result

    return noticed


def _check_known(name: str, options: Iterable[str], known: list[str]) -> None:
    """TypeError for options that are not among the ``known``."""
    unknown = sorted(set(options) - set(known))
    if unknown:
        hints = "".join(_hint(option, known) for option in unknown)
        options_known = [option for option in known if option != "params"]
        raise TypeError(f"{name}: unknown options {unknown}{hints}; known: {options_known}")


def _hint(unknown: str, known: list[str]) -> str:
    if unknown in _RUNS:
        return f" ({unknown!r} is PyTorch's way to run an update: leave it out)"
    close = difflib.get_close_matches(unknown.lower(), known, n=1)
    if unknown == "learning_rate" and "lr" in known:
        close = ["lr"]
    return f" (did you mean {close[0]!r}?)" if close else ""


def _kind(x: Any) -> str:
    """The type of ``x`` with its article."""
    kind = type(x).__name__
    return f"an {kind}" if kind[0] in "aeiouAEIOU" else f"a {kind}"
