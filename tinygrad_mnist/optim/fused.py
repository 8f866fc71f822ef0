"""Optimizers whose step is one kernel call for all alike parameters of a group."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from numbers import Real
from typing import Any, ClassVar

import numpy as np

from tinygrad_mnist.autograd.graph import written
from tinygrad_mnist.checks import shown
from tinygrad_mnist.creation import full
from tinygrad_mnist.dispatch import Guard, act, call, changed, host, observers, tell
from tinygrad_mnist.optim.optimizer import Group, Optimizer, evaluated, is_array, is_number
from tinygrad_mnist.tensor import Tensor

_FLAGS = {"amsgrad", "centered", "decoupled_weight_decay", "maximize", "nesterov"}
_UP_TO_1 = {"alpha", "rho"}
_BETAS = {"beta1": 0, "beta2": 1}


class FusedOptimizer(Optimizer):
    """Base of the optimizers here: a class names its kernel and what that takes.

    The kernel's lists are the parameters, their gradients and one for each moment, empty where the
    options do without it. Each option is a host number, read anew at every call.
    """

    _kernel: ClassVar[str]
    _options: ClassVar[tuple[str, ...]]  # the kernel's, without step; betas as beta1 and beta2
    _moments: ClassVar[dict[str, str]]  # tensors of the state: name → the option it needs, if any
    _counts: ClassVar[bool] = True  # whether steps are counted, or only the first is known
    _counted: Sequence[Tensor] = ()  # by the last step

    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Update every parameter that has a gradient.

        ``closure`` computes the loss and its gradients anew; what it returns is returned.
        TypeError, ValueError for a gradient of another shape, dtype or backend; nothing is
        updated then.
        """
        loss = evaluated(closure)
        # Every gradient is looked at before the first update.
        batches = [(group, self._alike(group["params"])) for group in self.param_groups]
        for group, alike in batches:
            for params in alike:
                self._update(group, params)
                for p in params:
                    written(p)
        if self._counts:
            act(partial(self._count, [p for _, alike in batches for ps in alike for p in ps]))
        return loss

    def _alike(self, params: list[Tensor]) -> list[list[Tensor]]:
        """Those that have a gradient, together those of one backend, dtype and number of steps.

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
                batches.setdefault((self._age(p), p.backend, x.dtype), []).append(p)
        return list(batches.values())

    def _age(self, p: Tensor) -> int:
        """How many steps ``p`` has had; where they are not counted, 1 for any number of them."""
        state = self.state.get(p)
        return state.get("step", 1) if state else 0

    def _are_of_an_age(self, params: list[Tensor]) -> bool:
        """Whether ``params``, which are updated together, have still had equally many steps."""
        return len(set(map(self._age, params))) == 1

    def _update(self, group: Group, params: list[Tensor]) -> None:
        """One kernel call on the parameters, their gradients and their state."""
        static: dict[str, Any] = {o: host(partial(_number, group, o)) for o in self._options}
        static.update(self._when(params))
        arrays = [[p.array for p in params], [p.grad.array for p in params if p.grad is not None]]
        for moment, needs in self._moments.items():
            used = params if not needs or group[needs] else []
            arrays.append([self._moment(group, p, moment).array for p in used])
        if observers():
            tell("relied", Guard(partial(self._are_of_an_age, params)))
        call(params[0].backend, self._kernel, arrays, static)

    def _when(self, params: list[Tensor]) -> dict[str, Any]:
        """What the kernel is told of the time: the step's number, or whether it is the first."""
        if self._counts:
            return {"step": host(lambda: self.state[params[0]].get("step", 0) + 1)}
        return {"first": not self._age(params[0])}

    def _count(self, params: list[Tensor]) -> None:
        """One step more for ``params``."""
        for p in params:
            state = self.state[p]
            state["step"] = state.get("step", 0) + 1
        if params is not self._counted:
            if list(map(id, params)) != list(map(id, self._counted)):
                changed()  # others stay behind
            self._counted = params

    def _moment(self, group: Group, p: Tensor, name: str) -> Tensor:
        """A tensor of the state, following its parameter where the module was moved since."""
        state = self.state[p]
        value: Tensor | None = state.get(name)
        if value is None:
            value = state[name] = full(
                p.shape, self._initial(group), dtype=p.dtype, backend=p.backend
            )
        elif value.backend is not p.backend or value.dtype != p.dtype:
            value = state[name] = value.to(dtype=p.dtype, backend=p.backend)
        return value

    def _options_now(self) -> list[Any]:
        """Which moments the options need; all else about them is read at each replay."""
        needs = [option for option in self._moments.values() if option]
        return [bool(group[option]) for group in self.param_groups for option in needs]

    def _initial(self, group: Group) -> float:
        """What a moment holds before the first step."""
        return 0.0

    # ---- options

    def _check_types(self, group: Group) -> None:
        for option in self.defaults:
            value = group[option]
            if option in _FLAGS:
                if not isinstance(value, Real | np.bool_) or value not in (True, False):
                    raise TypeError(f"{self._name}: {option} must be a bool, got {shown(value)}")
            elif option == "betas":
                self._check_betas(value)
            elif not is_number(value):
                raise TypeError(f"{self._name}: {option} must be a number, got {shown(value)}")

    def _check_betas(self, betas: Any) -> None:
        expected = f"{self._name}: betas must be two numbers in [0, 1), got {shown(betas)}"
        if not isinstance(betas, tuple | list) or not all(map(is_number, betas)):
            raise TypeError(expected)
        if len(betas) != 2:
            raise ValueError(expected)

    def _check_ranges(self, group: Group) -> None:
        for option in self.defaults:
            if option in _FLAGS:
                continue
            value = group[option]
            if option == "betas":
                fits, expected = all(0 <= beta < 1 for beta in value), "two numbers in [0, 1)"
            elif option in _UP_TO_1:
                fits, expected = 0 <= value <= 1, "in 0 to 1"
            elif option == "dampening":
                fits, expected = math.isfinite(value), "a finite number"
            else:
                fits = math.isfinite(value) and value >= 0
                expected = "a finite number of at least 0"
            if not fits:
                raise ValueError(f"{self._name}: {option} must be {expected}, got {value}")

    # ---- a loaded state

    def _checked_entry(self, i: int, p: Tensor, entry: Mapping[str, Any]) -> dict[str, Any]:
        where = f"parameter {i}"
        counted = ["step"] if self._counts else []
        needed = [*counted, *(m for m, needs in self._moments.items() if not needs)]
        entry = {key: value for key, value in entry.items() if value is not None}
        missing = [key for key in needed if key not in entry]
        if missing:
            raise ValueError(f"{self._name}: the state of {where} lacks {missing}")
        unknown = sorted(set(entry) - {*counted, *self._moments})
        if unknown:
            raise ValueError(
                f"{self._name}: the state of {where} has unknown entries {unknown}; known: "
                f"{[*counted, *self._moments]}"
            )
        for key, value in entry.items():
            if key == "step":
                entry[key] = self._checked_count(where, value)
            else:
                self._check_moment(f"{key} of {where}", p, value)
        return entry

    def _checked_count(self, where: str, step: Any) -> int:
        """A step count as an int; PyTorch's is a 0-d tensor of a float."""
        number = isinstance(step, Real) or getattr(step, "shape", None) == ()
        if not number or not float(step).is_integer() or step < 0:
            raise ValueError(
                f"{self._name}: step of {where} must be an integer of at least 0, got {shown(step)}"
            )
        return int(step)

    def _check_moment(self, what: str, p: Tensor, value: Any) -> None:
        if not is_array(value):
            raise TypeError(
                f"{self._name}: {what} must be a tensor or NumPy array, got {type(value).__name__}"
            )
        if "float" not in str(value.dtype):
            raise TypeError(f"{self._name}: {what} must be of floats, got {value.dtype}")
        if tuple(value.shape) != tuple(p.shape):
            raise ValueError(
                f"{self._name}: {what} has shape {tuple(value.shape)}, expected {tuple(p.shape)}"
            )


def _number(group: Group, option: str) -> float | bool:
    """The option as it is when a step asks; betas are named beta1 and beta2."""
    value = group["betas"][_BETAS[option]] if option in _BETAS else group[option]
    return value if type(value) is bool else float(value)


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
