"""What a call is made of, and how its parts are drawn."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

Shape = tuple[int, ...]

OMIT: Any = object()  # stands for an argument that is left out
SPOILT = "spoilt"  # a value that no argument takes

FLOATS = ("float32", "float64")
INTEGERS = ("int64", "int32", "uint8", "int16", "int8")
LAYOUTS = ("contiguous", "transposed", "strided", "expanded")


# ---- what a call is made of


@dataclass(frozen=True)
class Array:
    """A tensor of a call: its values, how they lie in memory, and whether it requires grad."""

    values: np.ndarray
    layout: str = "contiguous"
    requires_grad: bool = False

    @property
    def shape(self) -> Shape:
        return self.values.shape

    @property
    def ndim(self) -> int:
        return self.values.ndim

    @property
    def dtype(self) -> str:
        return str(self.values.dtype)

    @property
    def is_float(self) -> bool:
        return self.values.dtype.kind == "f"

    def laid_out(self) -> tuple[np.ndarray, np.ndarray]:
        """New memory, and the values as a view of it."""
        if self.layout == "transposed":
            memory = self.values.T.copy()
            return memory, memory.T
        if self.layout == "strided":
            memory = np.repeat(self.values, 2, -1)
            return memory, memory[..., ::2]
        if self.layout == "expanded":
            memory = self.values[:1].copy()
            strides = (0, *memory.strides[1:])
            return memory, np.lib.stride_tricks.as_strided(memory, self.shape, strides)
        memory = self.values.copy()
        return memory, memory

    def code(self) -> str:
        """The view as a NumPy expression."""
        if self.layout == "transposed":
            return f"{written(self.values.T)}.T"
        if self.layout == "strided":
            return f"np.repeat({written(self.values)}, 2, -1)[..., ::2]"
        if self.layout == "expanded":
            return f"np.broadcast_to({written(self.values[:1])}, {self.shape})"
        return written(self.values)


def written(values: np.ndarray) -> str:
    """An array as Python."""
    if values.size == 0:
        return f"np.zeros({values.shape}, {str(values.dtype)!r})"
    with np.printoptions(threshold=10**6, linewidth=10**6, floatmode="unique"):
        text = np.array2string(values, separator=", ").replace("\n", "")
    return f"np.array({text}, {str(values.dtype)!r})"


@dataclass(frozen=True)
class Dtype:
    """A dtype as an argument: each side has its own object for it."""

    name: str


@dataclass(frozen=True)
class Call:
    """One call: what it is given and how."""

    args: tuple[Any, ...] = ()
    kwargs: dict[str, Any] = field(default_factory=dict)
    no_grad: bool = False
    values: bool = True  # False: the result is random or not initialised
    gradients: bool = True
    spoilt: bool = False  # given what no op takes

    def arrays(self) -> list[Array]:
        """Its tensors in order."""
        return [part for part in parts((self.args, self.kwargs)) if isinstance(part, Array)]

    def first(self) -> Any:
        return self.args[0] if self.args else next(iter(self.kwargs.values()), None)


def parts(value: Any) -> list[Any]:
    """The leaves of nested tuples, lists, dicts and slices."""
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, slice):
        value = [value.start, value.stop, value.step]
    if isinstance(value, list | tuple):
        return [leaf for item in value for leaf in parts(item)]
    return [value]


# ---- how they are drawn


class Dice:
    """A generator of shapes, arrays, dims and forms of calls; a share of them is wrong on purpose.

    Every ``wrong`` is the probability of something that PyTorch refuses, or that lies at the edge.
    """

    def __init__(self, rng: np.random.Generator) -> None:
        self.rng = rng

    def chance(self, probability: float) -> bool:
        return bool(self.rng.random() < probability)

    def pick(self, *options: Any) -> Any:
        return options[int(self.rng.integers(len(options)))]

    def integer(self, low: int, high: int) -> int:
        """An integer from ``low`` to ``high``, both included."""
        return int(self.rng.integers(low, high + 1)) if high > low else low

    def maybe(self, value: Any, probability: float = 0.5) -> Any:
        """``value``, or nothing at all."""
        return value if self.chance(probability) else OMIT

    # -- shapes

    def size(self) -> int:
        return self.pick(0, 1, 1, 1, 1, 2, 2, 2, 2, 2, 3, 3, 3, 3, 4, 4)

    def some(self) -> int:
        """A size that is not 0."""
        return self.pick(1, 1, 2, 2, 3, 3, 4)

    def shape(self, low: int = 0, high: int = 4) -> Shape:
        ndim = min(high, max(low, self.pick(0, 1, 1, 1, 2, 2, 2, 2, 3, 3, 4)))
        return tuple(self.size() for _ in range(ndim))

    def full_shape(self, low: int = 0, high: int = 4) -> Shape:
        """A shape without a 0."""
        return tuple(max(1, size) for size in self.shape(low, high))

    def broadcast(self, count: int, wrong: float = 0.06, high: int = 4) -> list[Shape]:
        """Shapes that broadcast against each other, except for some that do not."""
        whole = self.shape(high=high)
        shapes = [self.narrowed(whole) for _ in range(count)]
        if self.chance(0.3):
            shapes = [whole] * count
        if self.chance(wrong):
            at = self.integer(0, count - 1)
            shapes[at] = self.misfit(shapes[at])
        return shapes

    def narrowed(self, shape: Shape, drop: float = 0.3) -> Shape:
        """A shape that broadcasts to ``shape``."""
        if self.chance(drop):
            shape = shape[self.integer(0, len(shape)) :]
        return tuple(1 if self.chance(0.25) else size for size in shape)

    def misfit(self, shape: Shape) -> Shape:
        """Another shape: a size more, a dim more or less."""
        if not shape or self.chance(0.2):
            return (*shape, 2)
        if self.chance(0.2):
            return shape[1:]
        at = self.integer(0, len(shape) - 1)
        return (*shape[:at], shape[at] + self.integer(1, 2), *shape[at + 1 :])

    def refit(self, shape: Shape, wrong: float = 0.07) -> Shape:
        """``shape``, or sometimes a misfit."""
        return self.misfit(shape) if self.chance(wrong) else shape

    # -- values

    def dtype(self, kinds: str = "any") -> str:
        """A dtype's name: ``float``, ``integer``, or ``any`` with floats the most frequent."""
        if kinds == "float" or (kinds == "any" and self.chance(0.7)):
            return self.pick("float32", "float32", "float32", "float64", "float64")
        if kinds == "integer" or self.chance(0.75):
            return self.pick("int64", "int64", "int64", "int32", "uint8", "uint8", "int16", "int8")
        return "bool"

    def values(self, shape: Shape, dtype: str, fill: Any = None) -> np.ndarray:
        kind = np.dtype(dtype)
        if callable(fill):
            found = np.asarray(fill(self.rng, shape))
            if kind.kind in "iu":  # what these do not hold is cast differently on each machine
                found = np.nan_to_num(found, posinf=3, neginf=-3)
            return np.asarray(np.abs(found) if kind.kind == "u" else found).astype(kind)
        if kind.kind == "b":
            return np.asarray(self.rng.random(shape) < 0.5)
        if kind.kind == "u":
            return np.asarray(self.rng.integers(0, 255 if self.chance(0.1) else 6, shape), kind)
        if kind.kind == "i":
            return np.asarray(self.rng.integers(-4, 6, shape), kind)
        return np.asarray(self.pick(*FILLS)(self.rng, shape)).astype(kind)

    def array(
        self, shape: Shape | None = None, dtype: str = "", fill: Any = None, grad: float = 0.75
    ) -> Array:
        """An array in any layout; ``fill(rng, shape)`` where the op's domain asks for one."""
        shape = self.shape() if shape is None else shape
        values = self.values(shape, dtype or self.dtype("float"), fill)
        layout = self.pick("contiguous", "contiguous", *LAYOUTS)
        if layout == "expanded" and values.size:
            values = np.ascontiguousarray(np.broadcast_to(values[:1], shape)) if shape else values
        if not shape or not values.size:
            layout = "contiguous"
        return Array(values, layout, values.dtype.kind == "f" and self.chance(grad))

    def index(self, shape: Shape, size: int, wrong: float = 0.07, dtype: str = "int64") -> Array:
        """Integers from 0 to ``size`` - 1, sometimes beyond or of another dtype."""
        values = self.rng.integers(0, max(size, 1), shape)
        if self.chance(wrong) and values.size:
            values = values.copy()
            values.flat[self.integer(0, values.size - 1)] = self.pick(size, size + 3, -size - 2, -1)
        if self.chance(wrong / 2):
            dtype = self.pick("float32", "int32", "bool", "uint8")
        made = self.array(shape, "int64", lambda rng, shape: values, grad=0)
        return Array(made.values.astype(dtype), made.layout)

    def number(self, floats: bool = True) -> Any:
        """A Python number, special ones included."""
        if self.chance(0.1):
            return self.pick(True, False)
        if not floats or self.chance(0.5):
            return self.integer(-3, 4)
        if self.chance(0.1):
            return self.pick(float("inf"), float("-inf"), float("nan"), -0.0, 1e3)
        return round(float(self.rng.normal(0, 2)), 1)

    # -- dims

    def dim(self, ndim: int, wrong: float = 0.08) -> Any:
        """One dim, negative or not, sometimes out of range."""
        if self.chance(wrong):
            return self.pick(ndim, -ndim - 1, ndim + 3, 1.5, "0")
        return self.integer(-max(ndim, 1), max(ndim, 1) - 1)

    def dims(self, ndim: int, wrong: float = 0.08) -> Any:
        """None, one dim or several; sometimes out of range or repeated."""
        if self.chance(0.12):
            return self.pick(None, (), OMIT, OMIT)
        if self.chance(0.5) or not ndim:
            return self.dim(ndim, wrong)
        found = self.some_dims(ndim)
        if self.chance(wrong):
            again = found[0] - ndim if found[0] >= 0 else found[0] + ndim
            found = (*found, self.pick(found[0], again, ndim, -ndim - 1))
        return list(found) if self.chance(0.15) else found

    def some_dims(self, ndim: int) -> Shape:
        """Several different dims in any order, counted from either end."""
        count = self.integer(1, ndim)
        chosen = self.rng.permutation(ndim)[:count]
        return tuple(int(d) - ndim if self.chance(0.4) else int(d) for d in chosen)

    # -- forms

    def call(self, *fixed: Any, only: dict[str, Any] | None = None, **named: Any) -> Call:
        """A call with ``fixed`` by position, the ``named`` by position as far as chance has it.

        ``named`` are in the order of PyTorch's signature, ``only`` those it takes by keyword.
        """
        args, kwargs = list(fixed), {}
        positional = self.integer(0, len(named))
        for i, (name, value) in enumerate(named.items()):
            if value is OMIT:
                positional = min(positional, i)
            elif i < positional:
                args.append(value)
            else:
                kwargs[name] = value
        kwargs |= {name: value for name, value in (only or {}).items() if value is not OMIT}
        return Call(tuple(args), kwargs)


def normal(rng: np.random.Generator, shape: Shape) -> Any:
    return np.round(rng.normal(0, 1.5, shape), 2)


def whole(rng: np.random.Generator, shape: Shape) -> Any:
    """Integers: kinks and ties."""
    return rng.integers(-2, 4, shape)


def special(rng: np.random.Generator, shape: Shape) -> Any:
    """Some of what is not finite, and both zeros."""
    odd = rng.choice([np.nan, np.inf, -np.inf, 0.0, -0.0], shape)
    return np.where(rng.random(shape) < 0.3, odd, normal(rng, shape))


def wide(rng: np.random.Generator, shape: Shape) -> Any:
    return np.round(rng.normal(0, 30, shape), 1)


def unit(rng: np.random.Generator, shape: Shape) -> Any:
    """Numbers in [-1, 1], the ends included."""
    return np.clip(np.round(rng.uniform(-1.1, 1.1, shape), 2), -1, 1)


def positive(rng: np.random.Generator, shape: Shape) -> Any:
    return np.round(rng.uniform(0.1, 3, shape), 2)


def probability(rng: np.random.Generator, shape: Shape) -> Any:
    """Numbers in [0, 1], the ends included."""
    return np.clip(np.round(rng.uniform(-0.1, 1.1, shape), 2), 0, 1)


def distinct(rng: np.random.Generator, shape: Shape) -> Any:
    """No two alike."""
    count = int(np.prod(shape))
    return (rng.permutation(count) - count // 2).reshape(shape)


def tame(rng: np.random.Generator, shape: Shape) -> Any:
    """Finite numbers near 1, for what amplifies rounding."""
    return np.round(rng.normal(0, 1, shape), 2)


FILLS: list[Callable[..., Any]] = [normal, normal, normal, whole, whole, special, wide]


# ---- ops


@dataclass(frozen=True)
class Op:
    """An op under one or several paths, such as ``torch.var`` and ``Tensor.var``."""

    name: str
    paths: tuple[str, ...]
    draw: Callable[[Dice], Call]
    says: tuple[str, ...] = ()  # further names that our errors may call it
    inplace: bool = False  # the result must be the first argument itself
    rough: float = 1.0  # how many times the usual rounding is allowed
    spoils: bool = True  # False: not a function, such as the property ``Tensor.shape``


def at(path: str, draw: Callable[[Dice], Call], **more: Any) -> Op:
    """An op under one path."""
    return Op(path, (path,), draw, **more)


def both(name: str, draw: Callable[[Dice], Call], *aliases: str, **more: Any) -> Op:
    """A function that is a method too, and perhaps has further paths."""
    return Op(name, (f"torch.{name}", f"Tensor.{name}", *aliases), draw, **more)


def drawn(op: Op, seed: tuple[int, ...]) -> tuple[str, Call]:
    """The path and the call of one case; a few calls are spoilt."""
    dice = Dice(np.random.default_rng(seed))
    path = dice.pick(*op.paths)
    call = op.draw(dice)
    reflected = path.startswith("operator.") and not isinstance(call.args[0], Array)
    spoil = dice.chance(0.04) and op.spoils and not reflected
    return path, spoilt(dice, path, call) if spoil else call


def spoilt(dice: Dice, path: str, call: Call) -> Call:
    """The call with an unknown keyword, an argument too many or too few, or of the wrong type."""
    args, kwargs = list(call.args), dict(call.kwargs)
    method = path.startswith(("Tensor.", "operator."))
    free = range(1 if method else 0, len(args))
    how = dice.pick("unknown", "more", "less", "type", "type")
    if how == "unknown" and not path.startswith(("operator.", "builtins.")):
        kwargs["unknown"] = 1
    elif how == "more":
        args.append(SPOILT)
    elif how == "less" and free:
        args.pop()
    elif free:
        args[dice.pick(*free)] = dice.pick(SPOILT, [SPOILT], {})
    return replace(call, args=tuple(args), kwargs=kwargs, spoilt=True)
