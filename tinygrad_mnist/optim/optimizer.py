"""Optimizers: one kernel call for all parameters of a group."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from numbers import Integral, Real
from typing import Any

import numpy as np

from tinygrad_mnist.autograd.graph import enable_grad, no_grad
from tinygrad_mnist.creation import full
from tinygrad_mnist.dispatch import call, host
from tinygrad_mnist.tensor import Tensor

Group = dict[str, Any]


class Optimizer:
    """Base: parameter groups, per-parameter state, ``step`` and ``zero_grad``.

    ``param_groups`` is a list of dicts with ``params`` and the options, read at every step, so
    that a schedule may change them. ``state`` maps each parameter to its tensors and step count.
    """

    _moments: tuple[str, ...] = ()  # the tensors a parameter's state may have

    def __init__(self, params: Any, defaults: Group) -> None:
        self.defaults = defaults
        self.param_groups: list[Group] = []
        self.state: dict[Tensor, dict[str, Any]] = {}
        groups: list[Any] = list(params) if not isinstance(params, Tensor) else [params]
        if not groups:
            raise ValueError(f"{type(self).__name__}: got no parameters")
        for group in groups if isinstance(groups[0], dict) else [{"params": groups}]:
            self.add_param_group(group)

    def add_param_group(self, group: Group) -> None:
        """Train the tensors ``group["params"]`` too, with the group's own options.

        TypeError, ValueError for what is no float leaf, is there already, or for an option that
        is unknown, of a wrong type or out of range. A leaf that does not require grad is taken,
        and left as it is while it has no gradient.
        """
        name = type(self).__name__
        params = group["params"]
        group = self._checked({**self.defaults, **group})
        group["params"] = [params] if isinstance(params, Tensor) else list(params)
        known = {id(p) for p in self._params()}
        for p in group["params"]:
            if not isinstance(p, Tensor):
                raise TypeError(f"{name}: expected tensors, got {type(p).__name__}")
            if not p.is_leaf or p.dtype.kind != "f":
                raise ValueError(f"{name}: can only train float leaves, got {p!r}")
            if id(p) in known:
                raise ValueError(f"{name}: a parameter of shape {p.shape} is given twice")
            known.add(id(p))
        self.param_groups.append(group)

    def _checked(self, group: Group) -> Group:
        """``group``, whose options are known and in range; else TypeError or ValueError."""
        unknown = set(group) - {"params", *self.defaults}
        if unknown:
            raise TypeError(
                f"{type(self).__name__}: unknown options {sorted(unknown)}; "
                f"known: {[*self.defaults]}"
            )
        self._check(group)
        return group

    def _check(self, group: Group) -> None:
        """TypeError, ValueError for an option of a wrong type or out of range."""
        for option in ("lr", "weight_decay", "eps", "momentum"):
            value = self._number(group, option)
            if not (math.isfinite(value) and value >= 0):
                raise ValueError(
                    f"{type(self).__name__}: {option} must be a finite number of at least 0, "
                    f"got {value}"
                )

    def _number(self, group: Group, option: str) -> float:
        """An option that is a number; 0 where this optimizer has none of that name."""
        value = group.get(option, 0.0)
        if not isinstance(value, Real):
            raise TypeError(
                f"{type(self).__name__}: {option} must be a number, got {_with_type(value)}"
            )
        return float(value)

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Forget every parameter's gradient, or set it to zeros."""
        for p in self._params():
            p.grad = None if set_to_none or p.grad is None else p.grad.detach().zero_()

    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Update every parameter that has a gradient.

        ``closure`` computes the loss and its gradients anew; what it returns is returned.
        """
        loss = None
        if closure is not None:
            with enable_grad():
                loss = closure()
        # Every gradient is looked at before the first update.
        batches = [(group, self._alike(group["params"])) for group in self.param_groups]
        for group, alike in batches:
            for params in alike:
                self._update(group, params)
                for p in params:
                    p.version[0] += 1
        return loss

    def _alike(self, params: Iterable[Tensor]) -> list[list[Tensor]]:
        """The parameters that have a gradient, together those at the same step and backend.

        TypeError, ValueError for a gradient that does not fit its parameter.
        """
        batches: dict[Any, list[Tensor]] = {}
        for p in params:
            g = p.grad
            if g is not None:
                if not isinstance(g, Tensor):
                    raise _unfit(p, g)
                x, dx = p.array, g.array
                if x.shape != dx.shape or x.dtype != dx.dtype or p.backend is not g.backend:
                    raise _unfit(p, g)
                state = self.state.get(p)
                if state is None:
                    state = self.state[p] = {"step": 0, **self._fresh(p)}
                batches.setdefault((state["step"], p.backend, x.dtype), []).append(p)
        return list(batches.values())

    def _next_step(self, params: list[Tensor]) -> int:
        """Count one more step of ``params``."""
        for p in params:
            self.state[p]["step"] += 1
        return int(self.state[params[0]]["step"])

    def _run(
        self,
        kernel: str,
        params: list[Tensor],
        group: Group,
        moments: tuple[str, ...],
        options: tuple[str, ...],
    ) -> None:
        """One kernel call on the parameters, their gradients and their state."""
        arrays = [[p.array for p in params], [p.grad.array for p in params if p.grad is not None]]
        arrays += [[self._moment(p, m).array for p in params] for m in moments] or [[]]
        static = {option: host(_reader(group, option)) for option in options}
        static["step"] = host(lambda: self._next_step(params))
        call(params[0].backend, kernel, arrays, static)

    def _moment(self, p: Tensor, name: str) -> Tensor:
        """A tensor of the state, following its parameter where the module was moved since."""
        value: Tensor = self.state[p][name]
        if value.backend is not p.backend or value.dtype != p.dtype:
            value = self.state[p][name] = value.to(dtype=p.dtype, backend=p.backend)
        return value

    def _fresh(self, p: Tensor) -> dict[str, Tensor]:
        """The state of a parameter at its first step."""
        raise NotImplementedError

    def _update(self, group: Group, params: list[Tensor]) -> None:
        raise NotImplementedError

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
            "state": {order[p]: dict(state) for p, state in self.state.items()},
            "param_groups": groups,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take over what ``state_dict`` gave; what it has no state of starts afresh.

        ValueError, TypeError where groups, options or moments do not fit; nothing is changed then.
        """
        if not {"state", "param_groups"} <= set(state):
            raise ValueError(
                "the state must have 'state' and 'param_groups', as state_dict() gives it; "
                f"got keys {list(state)}"
            )
        sizes = [len(g["params"]) for g in self.param_groups]
        given = [len(g["params"]) for g in state["param_groups"]]
        if sizes != given:
            raise ValueError(f"the state is of groups of {given} parameters, expected {sizes}")
        groups = [
            self._checked({**own, **loaded, "params": own["params"]})
            for own, loaded in zip(self.param_groups, state["param_groups"], strict=True)
        ]
        params = self._params()
        for i, entry in state["state"].items():
            if i not in range(len(params)):
                raise ValueError(
                    f"the state has an entry for parameter {i!r}, expected positions 0 to "
                    f"{len(params) - 1}"
                )
            self._check_entry(i, params[i], entry)
        for own, group in zip(self.param_groups, groups, strict=True):
            own.update(group)
        for i, p in enumerate(params):
            if i in state["state"]:
                self._take_over(p, state["state"][i])
            else:
                self.state.pop(p, None)

    def _check_entry(self, i: int, p: Tensor, entry: Mapping[str, Any]) -> None:
        """ValueError, TypeError for a loaded state that is none of ``p``'s, at position ``i``."""
        name = type(self).__name__
        missing = [key for key in ("step", *self._fresh(p)) if key not in entry]
        if missing:
            raise ValueError(f"{name}: the state of parameter {i} lacks {missing}")
        unknown = sorted(set(entry) - {"step", *self._moments})
        if unknown:
            raise ValueError(
                f"{name}: the state of parameter {i} has unknown entries {unknown}; known: "
                f"{['step', *self._moments]}"
            )
        step = entry["step"]
        if not isinstance(step, Integral) or step < 0:
            raise ValueError(
                f"{name}: step of parameter {i} must be an integer of at least 0, "
                f"got {_with_type(step)}"
            )
        for key in sorted(set(entry) - {"step"}):
            value = entry[key]
            if not isinstance(value, Tensor | np.ndarray):
                raise TypeError(
                    f"{name}: {key} of parameter {i} must be a tensor or NumPy array, "
                    f"got {type(value).__name__}"
                )
            if value.dtype.kind != "f":
                raise TypeError(
                    f"{name}: {key} of parameter {i} must be of floats, got {value.dtype}"
                )
            if tuple(value.shape) != tuple(p.shape):
                raise ValueError(
                    f"{name}: {key} of parameter {i} has shape {tuple(value.shape)}, "
                    f"expected {tuple(p.shape)}"
                )

    def _take_over(self, p: Tensor, entry: Mapping[str, Any]) -> None:
        """Copy a loaded state, in place where ``p`` has one."""
        old = self.state.get(p, {})
        moments = {}
        with no_grad():
            for key in entry.keys() - {"step"}:
                own = old.get(key)
                if own is None or own.backend is not p.backend or own.dtype != p.dtype:
                    own = zeros_like(p)
                moments[key] = own.copy_(entry[key])
        self.state[p] = {"step": int(entry["step"]), **moments}

    def _params(self) -> list[Tensor]:
        return [p for group in self.param_groups for p in group["params"]]

    def __repr__(self) -> str:
        groups = [
            ", ".join(f"{k}={v}" for k, v in g.items() if k != "params") for g in self.param_groups
        ]
        return f"{type(self).__name__}({'; '.join(groups)})"


def _reader(group: Group, option: str) -> Callable[[], Any]:
    """The option as it is when a step asks; betas are named beta1 and beta2."""
    if option in ("beta1", "beta2"):
        return lambda: group["betas"][int(option[-1]) - 1]
    return lambda: group[option]


def _with_type(value: Any) -> str:
    return f"{value!r} ({type(value).__name__})"


def _unfit(p: Tensor, g: Any) -> Exception:
    """The error of a gradient that is not of its parameter's shape, dtype and backend."""
    name = f"step: the parameter of shape {tuple(p.shape)}"
    if not isinstance(g, Tensor):
        return TypeError(
            f"{name} has a gradient that is none: expected a tensor or None, got {type(g).__name__}"
        )
    if p.shape != g.shape:
        return ValueError(f"{name} has a gradient of shape {tuple(g.shape)}; set one of its shape")
    if p.dtype != g.dtype:
        return TypeError(
            f"{name} is {p.dtype} and has a gradient of {g.dtype}; cast it with .to({p.dtype})"
        )
    return ValueError(
        f"{name} is on backend {p.backend.name!r}, its gradient on {g.backend.name!r}; "
        f"move it with .to({p.backend.name!r})"
    )


def zeros_like(p: Tensor) -> Tensor:
    """Zeros of the shape, dtype and backend of ``p``."""
    return full(p.shape, 0, dtype=p.dtype, backend=p.backend)


class SGD(Optimizer):
    """g ← g + weight_decay·p;  b ← momentum·b + (1 − dampening)·g;  p ← p − lr·b.

    Without momentum p ← p − lr·g; with ``nesterov`` the step is g + momentum·b. The first b is g
    (Sutskever et al. 2013, in PyTorch's form).
    """

    _moments = ("momentum_buffer",)

    def __init__(
        self,
        params: Any,
        lr: float = 1e-3,
        momentum: float = 0.0,
        dampening: float = 0.0,
        weight_decay: float = 0.0,
        nesterov: bool = False,
    ) -> None:
        defaults = {
            "lr": lr,
            "momentum": momentum,
            "dampening": dampening,
            "weight_decay": weight_decay,
            "nesterov": nesterov,
        }
        super().__init__(params, defaults)

    def _check(self, group: Group) -> None:
        super()._check(group)
        dampening = self._number(group, "dampening")
        if group["nesterov"] and (group["momentum"] <= 0 or dampening != 0):
            raise ValueError("SGD: nesterov needs a momentum above 0 and no dampening")

    def _fresh(self, p: Tensor) -> dict[str, Tensor]:
        return {}  # the momentum buffer comes with the first step that has momentum

    def _update(self, group: Group, params: list[Tensor]) -> None:
        moments = self._moments if group["momentum"] else ()
        for p in params if moments else ():
            if "momentum_buffer" not in self.state[p]:
                self.state[p] = {"step": 0, "momentum_buffer": zeros_like(p)}
        options = ("lr", "momentum", "dampening", "weight_decay", "nesterov")
        self._run("sgd_", params, group, moments, options)


class Adam(Optimizer):
    """m ← β₁m + (1−β₁)g;  v ← β₂v + (1−β₂)g²;  p ← p − lr · m̂ / (√v̂ + eps).

    m̂ = m / (1 − β₁ᵗ), v̂ = v / (1 − β₂ᵗ) at step t; ``weight_decay``·p is added to g first
    (Kingma, Ba 2015).
    """

    _moments = ("exp_avg", "exp_avg_sq")

    def __init__(
        self,
        params: Any,
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
    ) -> None:
        super().__init__(
            params, {"lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay}
        )

    def _check(self, group: Group) -> None:
        super()._check(group)
        betas = group["betas"]
        if not isinstance(betas, tuple | list) or not all(isinstance(b, Real) for b in betas):
            raise TypeError(f"Adam: betas must be two numbers in [0, 1), got {_with_type(betas)}")
        if len(betas) != 2 or not all(0 <= beta < 1 for beta in betas):
            raise ValueError(f"Adam: betas must be two numbers in [0, 1), got {betas}")

    def _fresh(self, p: Tensor) -> dict[str, Tensor]:
        return {"exp_avg": zeros_like(p), "exp_avg_sq": zeros_like(p)}

    def _update(self, group: Group, params: list[Tensor]) -> None:
        options = ("lr", "beta1", "beta2", "eps", "weight_decay")
        self._run("adam_", params, group, self._moments, options)
