"""Optimizers: one kernel call for all parameters of a group."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Any

from tinygrad_mnist.autograd import enable_grad
from tinygrad_mnist.dispatch import call, host
from tinygrad_mnist.tensor import Tensor, full

Group = dict[str, Any]


class Optimizer:
    """Base: parameter groups, per-parameter state, ``step`` and ``zero_grad``.

    ``param_groups`` is a list of dicts with ``params`` and the options, read at every step, so
    that a schedule may change them. ``state`` maps each parameter to its tensors and step count.
    """

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

        TypeError, ValueError for what is no leaf that requires grad, is there already, or for an
        option that is unknown or out of range.
        """
        name = type(self).__name__
        unknown = set(group) - {"params", *self.defaults}
        if unknown:
            raise TypeError(f"{name}: unknown options {sorted(unknown)}; known: {[*self.defaults]}")
        params = group["params"]
        group = {**self.defaults, **group}
        group["params"] = [params] if isinstance(params, Tensor) else list(params)
        known = {id(p) for g in self.param_groups for p in g["params"]}
        for p in group["params"]:
            if not isinstance(p, Tensor):
                raise TypeError(f"{name}: expected tensors, got {type(p).__name__}")
            if not p.is_leaf or p.dtype.kind != "f":
                raise ValueError(f"{name}: can only train float leaves, got {p!r}")
            if id(p) in known:
                raise ValueError(f"{name}: a parameter of shape {p.shape} is given twice")
            known.add(id(p))
        self._check(group)
        self.param_groups.append(group)

    def _check(self, group: Group) -> None:
        """ValueError for an option out of range."""
        for option in ("lr", "weight_decay", "eps", "momentum"):
            value = group.get(option, 0.0)
            if not (math.isfinite(value) and value >= 0):
                raise ValueError(
                    f"{type(self).__name__}: {option} must be a finite number of at least 0, "
                    f"got {value}"
                )

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
        for group in self.param_groups:
            for params in self._alike(group["params"]):
                self._update(group, params)
                for p in params:
                    p.version[0] += 1
        return loss

    def _alike(self, params: Iterable[Tensor]) -> list[list[Tensor]]:
        """The parameters that have a gradient, together those at the same step and backend."""
        batches: dict[Any, list[Tensor]] = {}
        for p in params:
            if p.grad is not None:
                state = self.state.get(p)
                if state is None:
                    state = self.state[p] = {"step": 0, **self._fresh(p)}
                batches.setdefault((state["step"], p.backend, p.dtype), []).append(p)
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
        arrays += [[self.state[p][m].array for p in params] for m in moments] or [[]]
        static = {option: host(_reader(group, option)) for option in options}
        static["step"] = host(lambda: self._next_step(params))
        call(params[0].backend, kernel, arrays, static)

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

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take over what ``state_dict`` gave. ValueError where the groups differ in size."""
        sizes = [len(g["params"]) for g in self.param_groups]
        given = [len(g["params"]) for g in state["param_groups"]]
        if sizes != given:
            raise ValueError(f"the state is of groups of {given} parameters, expected {sizes}")
        for group, loaded in zip(self.param_groups, state["param_groups"], strict=True):
            group.update({k: v for k, v in loaded.items() if k != "params"})
        for i, p in enumerate(self._params()):
            if i in state["state"]:
                own = self.state.setdefault(p, {"step": 0, **self._fresh(p)})
                for key, value in state["state"][i].items():
                    if isinstance(value, Tensor) and key in own:
                        own[key].copy_(value)
                    else:
                        own[key] = value.clone() if isinstance(value, Tensor) else value

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


def zeros_like(p: Tensor) -> Tensor:
    """Zeros of the shape, dtype and backend of ``p``."""
    return full(p.shape, 0, p.dtype, p.backend)


class SGD(Optimizer):
    """g ← g + weight_decay·p;  b ← momentum·b + (1 − dampening)·g;  p ← p − lr·b.

    Without momentum p ← p − lr·g; with ``nesterov`` the step is g + momentum·b. The first b is g
    (Sutskever et al. 2013, in PyTorch's form).
    """

    def __init__(
        self,
        params: Any,
        lr: float = 1e-3,
        momentum: float = 0.0,
        dampening: float = 0.0,
        weight_decay: float = 0.0,
        nesterov: bool = False,
    ) -> None:
        if nesterov and (momentum <= 0 or dampening != 0):
            raise ValueError("SGD: nesterov needs a momentum above 0 and no dampening")
        defaults = {
            "lr": lr,
            "momentum": momentum,
            "dampening": dampening,
            "weight_decay": weight_decay,
            "nesterov": nesterov,
        }
        super().__init__(params, defaults)

    def _fresh(self, p: Tensor) -> dict[str, Tensor]:
        return {}

    def _update(self, group: Group, params: list[Tensor]) -> None:
        moments = ("momentum_buffer",) if group["momentum"] else ()
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
        if len(group["betas"]) != 2 or not all(0 <= beta < 1 for beta in group["betas"]):
            raise ValueError(f"Adam: betas must be two numbers in [0, 1), got {group['betas']}")

    def _fresh(self, p: Tensor) -> dict[str, Tensor]:
        return {"exp_avg": zeros_like(p), "exp_avg_sq": zeros_like(p)}

    def _update(self, group: Group, params: list[Tensor]) -> None:
        options = ("lr", "beta1", "beta2", "eps", "weight_decay")
        self._run("adam_", params, group, ("exp_avg", "exp_avg_sq"), options)
