"""What every room of the contract stands on: markers of kernels, the host and the device."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar, Literal, Self

import numpy as np

Array = Any
Shape = tuple[int, ...]
Pair = tuple[int, int]
Kernel = Callable[..., Any]

# What other kernels take as ``act``: elementwise kernels whose gradient needs their result alone.
Act = Literal["relu", "sigmoid", "tanh"] | None
ACTIVATIONS = ("relu", "sigmoid", "tanh")


def elementwise(kernel: Kernel) -> Kernel:
    """Mark a kernel whose ``out`` may be one of its inputs."""
    kernel.kind = "elementwise"  # type: ignore[attr-defined]
    return kernel


def view(kernel: Kernel) -> Kernel:
    """Mark a kernel that returns an alias of its input."""
    kernel.kind = "view"  # type: ignore[attr-defined]
    return kernel


def writes(*names: str) -> Callable[[Kernel], Kernel]:
    """Mark an in-place kernel and name the arguments that it writes."""

    def mark(kernel: Kernel) -> Kernel:
        kernel.kind = "inplace"  # type: ignore[attr-defined]
        kernel.writes = names  # type: ignore[attr-defined]
        return kernel

    return mark


@dataclass(slots=True, eq=False)
class Step:
    """A kernel call that is made again and again, on the same memory.

    ``arrays`` and ``static`` are what the kernel takes, ``out`` is what it fills, None for a kernel
    in place. Between two runs the arrays at the places ``moving`` may be replaced by others of the
    same shape, dtype and strides, and the static arguments ``hosted`` by other numbers.
    """

    kernel: str
    arrays: list[Any]
    static: dict[str, Any]
    out: Any = None
    moving: tuple[int, ...] = ()
    hosted: tuple[str, ...] = ()
    line: str = ""  # of the user's code, for errors

    def run(self, backend: Base) -> None:
        """Make the call; an error of the kernel notes the line."""
        given = self.static if self.out is None else {**self.static, "out": self.out}
        try:
            getattr(backend, self.kernel)(*self.arrays, **given)
        except Exception as error:
            if isinstance(error, MemoryError):
                backend.explain(error)
            error.add_note(f"in {self.kernel}, recorded at {self.line}")
            raise


class Base:
    """An array namespace ``xp`` with its way to and from the host, and what kernels share."""

    name: ClassVar[str]
    xp: ClassVar[Any]
    array_type: ClassVar[type]

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        return self  # there is one of each: operands are compared by identity

    def __repr__(self) -> str:
        return f"<backend {self.name}>"

    # ---- the host and the device

    @classmethod
    def unusable(cls) -> str | None:
        """Why this backend cannot run here and the line that mends it; None if it can."""
        return None

    @classmethod
    def at(cls, device: int) -> type[Self] | str:
        """The class for that device, counted from 0, or why there is none."""
        return f"the backend {cls.name!r} has no devices to choose from" if device else cls

    def details(self) -> dict[str, str]:
        """What a user may want to know of this backend here, such as its threads, by name.

        One that compiles has an entry ``"compiled"``: what this process has compiled so far.
        """
        return {}

    def here(self) -> AbstractContextManager[Any]:
        """``with backend.here():`` what ``xp`` makes lies where this backend's arrays do."""
        return nullcontext()

    def explain(self, error: MemoryError) -> None:
        """Note on an error of a kernel what there is to know of this backend's memory."""

    def asarray(self, x: np.ndarray) -> Array:
        """A NumPy array as this backend's array; shares memory where it can."""
        return self.xp.asarray(x)

    def to_numpy(self, x: Array) -> np.ndarray:
        """This backend's array as a NumPy array; shares memory where it can."""
        return np.asarray(x)

    def check_index(self, index: Array, size: int, kernel: str, low: int = 0) -> None:
        """Raise IndexError if an entry of ``index`` lies outside ``low … size-1``.

        A device that would have to wait for the answer may raise at its next synchronisation.
        """
        if index.size and (index.min() < low or index.max() >= size):
            worst = index.max() if index.max() >= size else index.min()
            raise IndexError(f"{kernel}: found index {worst}, expected {low} to {size - 1}")

    def prepared(self, steps: Sequence[Step]) -> list[Callable[[], None]]:
        """Functions that, called one after the other, run ``steps``: as often as one likes.

        A backend that can run several steps at once returns fewer functions than there are steps.
        What an attribute ``about`` of one says of how it runs is shown with the program.
        """
        return [partial(step.run, self) for step in steps]

    # ---- what the defaults share

    def _into(self, out: Any, value: Any) -> Any:
        """``value``, copied into ``out`` where one is given."""
        if out is None:
            return value
        if isinstance(value, tuple):
            return tuple(self._into(o, v) for o, v in zip(out, value, strict=True))
        out[...] = value
        return out

    def _filled(self, out: Array, shape: Shape, dtype: np.dtype, value: float) -> Array:
        if out is None:
            return self.xp.full(shape, value, dtype)
        out.fill(value)
        return out

    def _activated(self, x: Array, act: Act) -> Array:
        """``x`` after the kernel ``act``, one of ``ACTIVATIONS``, in place; None for none."""
        return x if act is None else getattr(self, act)(x, out=x)

    def _masked(self, x: Array, mask: Array) -> Array:
        """``x`` where ``mask`` holds, else 0: by the bits, which is 15 times faster than where.

        A product with the mask would be as fast, but make NaN of infinities that are masked out.
        """
        bits = np.int32 if x.dtype.itemsize == 4 else np.int64
        return (x.view(bits) & -mask.astype(bits)).view(x.dtype)
