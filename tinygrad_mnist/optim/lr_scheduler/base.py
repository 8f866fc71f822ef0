"""What all schedules share: the count of steps, the rates they set, their states."""

from __future__ import annotations

import copy
import functools
import warnings
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from tinygrad_mnist.checks import checked_integer, shown
from tinygrad_mnist.dispatch import act, observers
from tinygrad_mnist.optim.optimizer import Group, Optimizer, is_number

# What PyTorch keeps in its states besides.
_PYTORCHS = {"_get_lr_called_within_step", "_is_initial", "mode_worse", "use_beta1", "verbose"}


class LRScheduler:
    """Base: counts the steps, and at each sets the rates that ``get_lr`` of a subclass computes.

    Made, it takes the first step: ``last_epoch`` goes from -1 to 0, and the groups' rates at that
    time are kept as their ``initial_lr`` and in ``base_lrs``. With another ``last_epoch`` it goes
    on from there in groups that have an ``initial_lr``, as those of a loaded optimizer have; else
    ValueError. TypeError for what is no optimizer.
    """

    _initial = False  # whether this is the step that it is made with

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if "step" in vars(cls):
            cls.step = repeated(cls.step)  # type: ignore[method-assign]

    def __init__(self, optimizer: Optimizer, last_epoch: int = -1) -> None:
        check_optimizer(self, optimizer)
        for i, group in enumerate(optimizer.param_groups):
            if last_epoch == -1:
                group.setdefault("initial_lr", group["lr"])
            elif "initial_lr" not in group:
                raise ValueError(
                    f"{name_of(self)}: group {i} has no initial_lr to go on from at last_epoch "
                    f"{last_epoch}; load the optimizer's state first, or leave last_epoch out"
                )
        self.base_lrs: list[float] = [group["initial_lr"] for group in optimizer.param_groups]
        self.last_epoch = last_epoch
        self._attach(optimizer)
        self._begin()

    def get_lr(self) -> list[float]:
        """The rate of each group at ``last_epoch``; it is called by ``step`` alone."""
        raise NotImplementedError(f"{name_of(self)}: a subclass must have get_lr()")

    def get_last_lr(self) -> list[float]:
        """The learning rate of each group as this schedule last set it."""
        return self._last_lr

    def step(self) -> None:
        """Go one step on; call it after ``optimizer.step()``.

        UserWarning where it is called before the optimizer's first step: the first rate would go
        unused.
        """
        if self._step_count == 1:
            self._warn_unless_stepped()
        self._go_to(self.last_epoch + 1, self.get_lr)
        self._step_count += 1

    def state_dict(self) -> dict[str, Any]:
        """Everything but the optimizer, which has a state of its own."""
        return copy.deepcopy({k: v for k, v in vars(self).items() if k != "optimizer"})

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Go on from a ``state_dict``, or PyTorch's; the rates are in the optimizer's state.

        TypeError, ValueError, and nothing is changed, where the state is none, or of another
        schedule or number of groups.
        """
        self._check_state(state_dict)
        self._load(copy.deepcopy(dict(state_dict)))

    def _check_state(self, state: Any) -> None:
        if not isinstance(state, Mapping):
            raise TypeError(f"{name_of(self)}: expected a state_dict, got {shown(state)}")
        own, given = set(vars(self)) - {"optimizer"}, set(state)
        lacking = own - given - {"base_lrs"}  # which PyTorch's have not all
        besides = given - own - _PYTORCHS
        if lacking or besides:
            raise ValueError(
                f"{name_of(self)}: the state is of another schedule: it lacks "
                f"{sorted(lacking)} and has {sorted(besides, key=str)} besides"
            )
        rates = state.get("base_lrs", state.get("_last_lr"))
        check_length(self, "groups", rates, len(self.base_lrs))

    def _load(self, state: dict[str, Any]) -> None:
        own = vars(self)
        own.update({key: value for key, value in state.items() if key in own})

    def _attach(self, optimizer: Optimizer) -> None:
        """Set the rates of ``optimizer``, and notice whether it steps from here on."""
        self.optimizer = optimizer
        if optimizer._stepped is None:
            optimizer._stepped = False

    def _warn_unless_stepped(self) -> None:
        """UserWarning, at the line that called step, where the optimizer has not stepped."""
        if not self.optimizer._stepped:
            warnings.warn(
                f"{name_of(self)}: step() before optimizer.step() skips the first learning rate; "
                "call optimizer.step() first",
                UserWarning,
                stacklevel=4,
            )

    def _begin(self) -> None:
        """Take the first step."""
        self._step_count = 0
        self._initial = True
        try:
            self.step()
        finally:
            del self._initial

    def _restart(self) -> None:
        """Go to step 0, from rates that another schedule has set."""
        self._go_to(0, self._first_lr)

    def _first_lr(self) -> list[float]:
        """The rates at step 0 whatever they are now."""
        return self.get_lr()

    def _go_to(self, epoch: int, rates: Callable[[], list[float]]) -> None:
        """Set the ``rates`` of step ``epoch``; where they raise an error, all stays as it was."""
        before, self.last_epoch = self.last_epoch, epoch
        try:
            found = self._floats(rates())
        except BaseException:
            self.last_epoch = before
            raise
        for group, rate in zip(self.optimizer.param_groups, found, strict=True):
            group["lr"] = rate
        self._last_lr = found

    def _floats(self, rates: Any) -> list[float]:
        """The rates as floats; TypeError, ValueError for what is not a number for each group."""
        count = len(self.optimizer.param_groups)
        found = list(rates) if isinstance(rates, Iterable) else []
        if len(found) != count:
            raise ValueError(
                f"{name_of(self)}: get_lr must give a rate for each of the {count} groups, got "
                f"{shown(rates)}"
            )
        return [as_float(self, "a rate", rate) for rate in found]

    def _lrs(self) -> list[float]:
        """The groups' rates as they are."""
        return [group["lr"] for group in self.optimizer.param_groups]

    def _scaled(self, factor: float) -> list[float]:
        return [group["lr"] * factor for group in self.optimizer.param_groups]

    def _with_bases(self) -> list[tuple[Group, float]]:
        """Each group and its first rate; ValueError where groups have been added."""
        groups = self.optimizer.param_groups
        if len(groups) != len(self.base_lrs):
            raise ValueError(
                f"{name_of(self)}: the optimizer has {len(groups)} groups, and had "
                f"{len(self.base_lrs)} when the schedule was made; make a new one"
            )
        return list(zip(groups, self.base_lrs, strict=True))


def repeated(step: Callable[..., None]) -> Callable[..., None]:
    """``step``, which a replay of a recorded training step does again."""

    @functools.wraps(step)
    def repeating(self: LRScheduler, *args: Any, **kwargs: Any) -> None:
        if observers():
            act(lambda: step(self, *args, **kwargs))
        else:
            step(self, *args, **kwargs)

    return repeating


LRScheduler.step = repeated(LRScheduler.step)  # type: ignore[method-assign]

# ---- what people pass


def name_of(x: object) -> str:
    return type(x).__name__


def check_optimizer(schedule: LRScheduler, optimizer: Any) -> None:
    if not isinstance(optimizer, Optimizer):
        raise TypeError(f"{name_of(schedule)}: expected an optimizer, got {shown(optimizer)}")


def per_group(schedule: LRScheduler, what: str, given: Any, optimizer: Optimizer) -> list[Any]:
    """One value per group; ValueError for a list of another length."""
    count = len(optimizer.param_groups)
    if not isinstance(given, list | tuple):
        return [given] * count
    if len(given) != count:
        raise ValueError(
            f"{name_of(schedule)}: {what} has {len(given)} values, the optimizer {count} groups"
        )
    return list(given)


def number(schedule: LRScheduler, what: str, value: Any) -> float:
    if not is_number(value):
        raise TypeError(f"{name_of(schedule)}: {what} must be a number, got {shown(value)}")
    return value


def as_float(schedule: LRScheduler, what: str, value: Any) -> float:
    """A number, or a tensor of one, as a float."""
    try:
        if not isinstance(value, str):
            return float(value)
    except (TypeError, ValueError):
        pass
    raise TypeError(f"{name_of(schedule)}: {what} must be a number, got {shown(value)}")


def count(schedule: LRScheduler, what: str, value: Any, least: int = 1) -> int:
    count = checked_integer(name_of(schedule), what, value)
    if count < least:
        raise ValueError(f"{name_of(schedule)}: {what} must be at least {least}, got {count}")
    return count


def listed(schedule: LRScheduler, what: str, given: Any) -> list[Any]:
    if not isinstance(given, Iterable) or isinstance(given, str):
        raise TypeError(f"{name_of(schedule)}: {what} must be a list, got {shown(given)}")
    return list(given)


# ---- states


def check_length(schedule: LRScheduler, what: str, given: Any, expected: int) -> None:
    """ValueError where a list in a state is of another length, or no list."""
    found = len(given) if isinstance(given, list | tuple) else shown(given)
    if found != expected:
        raise ValueError(
            f"{name_of(schedule)}: the state is of {found} {what}, expected {expected}"
        )
