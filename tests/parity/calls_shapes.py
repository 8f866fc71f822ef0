"""How elements lie: shapes, joining, cutting, moving, indexing."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np

from parity.draws import OMIT, Array, Call, Dice, Op, Shape, at, both

Draw = Callable[[Dice], Call]


def tensor(dice: Dice, low: int = 0, high: int = 4, shape: Shape | None = None) -> Array:
    """A tensor of any dtype."""
    return dice.array(dice.shape(low, high) if shape is None else shape, dice.dtype())


def apart(dice: Dice, sizes: Shape, name: str = "", method: bool = True) -> tuple[list[Any], dict]:
    """``(2, 3)`` as arguments of their own, as a tuple, as a list, or by keyword."""
    how = dice.pick("tuple", "list", *(["apart", "apart"] if method and sizes else []))
    if name and dice.chance(0.15):
        return [], {name: sizes}
    return list(sizes) if how == "apart" else [sizes if how == "tuple" else list(sizes)], {}


def sizes_of(method: bool, name: str, draw: Callable[[Dice, Array], Shape]) -> Draw:
    """An op that takes a tensor and sizes or dims."""

    def call(dice: Dice) -> Call:
        x = tensor(dice)
        args, kwargs = apart(dice, draw(dice, x), name, method)
        return Call((x, *args), kwargs)

    return call


# ---- one tensor in another shape


def new_shape(dice: Dice, x: Array) -> Shape:
    """Sizes of the same elements, one of them perhaps -1; some do not fit."""
    sizes = list(x.shape)
    for _ in range(dice.integer(0, 3)):
        if len(sizes) > 1 and dice.chance(0.5):
            i = dice.integer(0, len(sizes) - 2)
            sizes[i : i + 2] = [sizes[i] * sizes[i + 1]]
        else:
            sizes.insert(dice.integer(0, len(sizes)), 1)
    if dice.chance(0.3):
        sizes = [math.prod(sizes)]
    if sizes and dice.chance(0.4):
        sizes[dice.integer(0, len(sizes) - 1)] = -1
    if sizes and dice.chance(0.08):
        sizes[dice.integer(0, len(sizes) - 1)] = dice.pick(-1, -2, 7, 0)
    return tuple(sizes)


def flatten(dice: Dice) -> Call:
    x = tensor(dice)
    start, end = (dice.maybe(dice.dim(x.ndim), 0.6) for _ in range(2))
    return dice.call(x, start_dim=start, end_dim=end)


def unflatten(dice: Dice) -> Call:
    x = tensor(dice, 1)
    dim = dice.dim(x.ndim)
    size = x.shape[dim] if isinstance(dim, int) and -x.ndim <= dim < x.ndim else 2
    sizes = dice.pick((size,), (1, size), (size, 1), (-1, 1), (2, -1), (-1,), (size, -1), (3, 2))
    return dice.call(x, dim=dim, sizes=sizes if dice.chance(0.8) else list(sizes))


def transpose(dice: Dice) -> Call:
    x = tensor(dice)
    return dice.call(x, dim0=dice.dim(x.ndim), dim1=dice.dim(x.ndim))


def order(dice: Dice, x: Array) -> Shape:
    dims = [int(d) - (x.ndim if dice.chance(0.3) else 0) for d in dice.rng.permutation(x.ndim)]
    if dims and dice.chance(0.1):
        dims = dice.pick(dims[1:], [*dims, 0], [dims[0], *dims[:-1]], [x.ndim, *dims[1:]])
    return tuple(dims)


def movedim(dice: Dice) -> Call:
    x = tensor(dice)
    if dice.chance(0.5) or not x.ndim:
        return dice.call(x, source=dice.dim(x.ndim), destination=dice.dim(x.ndim))
    source = dice.some_dims(x.ndim)
    where = [int(d) for d in dice.rng.permutation(x.ndim)[: len(source)]]
    if dice.chance(0.1):
        where = dice.pick([*where, 0], [where[0]] * len(where), [x.ndim, *where[1:]])
    return dice.call(x, source=source, destination=tuple(where))


def one(low: int = 0, high: int = 4) -> Draw:
    return lambda dice: Call((tensor(dice, low, high),))


def squeeze(dice: Dice) -> Call:
    x = tensor(dice)
    return dice.call(x, dim=dice.dims(x.ndim) if dice.chance(0.8) else OMIT)


def unsqueeze(dice: Dice) -> Call:
    x = tensor(dice)
    return dice.call(x, dim=dice.dim(x.ndim + 1))


def wider(dice: Dice, x: Array) -> Shape:
    """A shape that ``x`` expands to; -1 keeps a size."""
    sizes = [dice.pick(1, 2, 3, 0) if size == 1 else size for size in x.shape]
    sizes = [-1 if dice.chance(0.15) else size for size in sizes]
    sizes = [*(dice.some() for _ in range(dice.pick(0, 0, 1, 2))), *sizes]
    if sizes and dice.chance(0.1):
        sizes[dice.integer(0, len(sizes) - 1)] = dice.pick(7, -1)
    return tuple(sizes[1:] if dice.chance(0.04) else sizes)


def repeats(dice: Dice, x: Array) -> Shape:
    count = x.ndim + dice.pick(0, 0, 0, 1, 2)
    found = [dice.pick(1, 1, 2, 2, 3, 0) for _ in range(count)]
    if found and dice.chance(0.1):
        found = dice.pick(found[:-1], [-1, *found[1:]])
    return tuple(found)


def view_as(dice: Dice) -> Call:
    x = tensor(dice)
    sizes = tuple(abs(size) for size in new_shape(dice, x))
    return dice.call(x, other=tensor(dice, shape=sizes))


def expand_as(dice: Dice) -> Call:
    x = tensor(dice)
    return dice.call(x, other=tensor(dice, shape=tuple(abs(size) for size in wider(dice, x))))


# ---- joined and cut


def cat(dice: Dice) -> Call:
    shape = dice.shape(1) if dice.chance(0.95) else ()
    dim = dice.dim(len(shape))
    at_ = dim % len(shape) if isinstance(dim, int) and shape else 0
    dtype = dice.dtype()
    found = []
    for _ in range(dice.pick(1, 2, 2, 3, 3)):
        own = (*shape[:at_], dice.size(), *shape[at_ + 1 :]) if shape else ()
        found.append(dice.array(dice.refit(own, 0.04), dtype if dice.chance(0.8) else dice.dtype()))
    return dice.call(_sequence(dice, found), dim=dice.maybe(dim, 0.8) if shape else OMIT)


def stack(dice: Dice) -> Call:
    shape, dtype = dice.shape(high=3), dice.dtype()
    count = dice.pick(1, 2, 2, 3)
    found = [dice.array(dice.refit(shape, 0.04), dtype) for _ in range(count)]
    if dice.chance(0.15):
        found[0] = dice.array(found[0].shape, dice.dtype())
    return dice.call(_sequence(dice, found), dim=dice.maybe(dice.dim(len(shape) + 1), 0.7))


def _sequence(dice: Dice, found: list[Array]) -> Any:
    if dice.chance(0.04):
        return dice.pick([], found[0], [*found, 1.0])
    return tuple(found) if dice.chance(0.3) else found


def split(method: bool) -> Draw:
    def draw(dice: Dice) -> Call:
        x = tensor(dice, 1)
        dim = dice.maybe(dice.dim(x.ndim), 0.7)
        along = x.shape[dim] if isinstance(dim, int) and -x.ndim <= dim < x.ndim else x.shape[0]
        first = dice.integer(0, along)
        sizes = dice.pick(1, 2, 3, along, [first, along - first], (first, along - first), [along])
        if dice.chance(0.1):
            sizes = dice.pick(0, -1, [along + 1], [-1, along + 1], 1.5)
        # the method and the function do not agree on the argument's name
        return dice.call(
            x, **{"split_size" if method else "split_size_or_sections": sizes}, dim=dim
        )

    return draw


def chunk(dice: Dice) -> Call:
    x = tensor(dice, 0 if dice.chance(0.1) else 1)
    dim = dice.maybe(dice.dim(x.ndim), 0.7)
    return dice.call(x, chunks=dice.pick(1, 2, 2, 3, 4, 7, 0, -1), dim=dim)


def unbind(dice: Dice) -> Call:
    x = tensor(dice, 0 if dice.chance(0.1) else 1)
    return dice.call(x, dim=dice.maybe(dice.dim(x.ndim), 0.7))


def pad(dice: Dice) -> Call:
    mode = dice.pick("constant", "constant", "reflect", "replicate")
    if mode == "constant":
        x = tensor(dice)
        pairs = dice.integer(0, x.ndim)
        if dice.chance(0.04):
            pairs = x.ndim + 1
    else:
        x = dice.array(dice.full_shape(2), dice.dtype("float" if dice.chance(0.9) else "any"))
        pairs = dice.pick(max(1, x.ndim - 2), max(1, x.ndim - 1), 1)
    least = -1 if mode == "constant" else 1  # PyTorch's other modes leave memory unset at < 0
    widths = tuple(dice.pick(0, 0, 1, 1, 2, least) for _ in range(2 * pairs))
    if dice.chance(0.06):
        widths = dice.pick((*widths, 1), (7, 0, *widths[2:]), (*widths[:-1], -9))
    value = dice.maybe(dice.number(), 0.4) if mode == "constant" else OMIT
    given = OMIT if mode == "constant" and value is OMIT and dice.chance(0.6) else mode
    if dice.chance(0.03):
        given = "other"
    return dice.call(x, pad=widths if dice.chance(0.7) else list(widths), mode=given, value=value)


# ---- moved


def flip(method: bool) -> Draw:
    def draw(dice: Dice) -> Call:
        x = tensor(dice)
        dims = dice.dims(x.ndim)
        dims = () if dims is OMIT or dims is None else dims
        if isinstance(dims, int) and not (method or dice.chance(0.1)):
            dims = (dims,)
        if method and isinstance(dims, tuple) and dims and dice.chance(0.4):
            return Call((x, *dims))
        return dice.call(x, dims=dims)

    return draw


def roll(dice: Dice) -> Call:
    x = tensor(dice)
    dims = dice.dims(x.ndim, 0.05) if dice.chance(0.7) else OMIT
    if isinstance(dims, list | tuple):
        shifts: Any = tuple(dice.integer(-4, 6) for _ in dims)
        shifts = (*shifts, 1) if dice.chance(0.05) else shifts
    else:
        shifts = dice.integer(-4, 6)
    return dice.call(x, shifts=shifts, dims=dims)


def triangle(dice: Dice) -> Call:
    x = tensor(dice, 2 if dice.chance(0.93) else 0)
    return dice.call(x, diagonal=dice.maybe(dice.integer(-3, 4), 0.6))


# ---- parts


def _along(dice: Dice, x: Array) -> tuple[Any, int]:
    """A dim and its size."""
    dim = dice.dim(x.ndim, 0.05)
    right = isinstance(dim, int) and -x.ndim <= dim < x.ndim
    return dim, x.shape[dim] if right else 1


def narrow(dice: Dice) -> Call:
    x = tensor(dice, 0 if dice.chance(0.05) else 1)
    dim, size = _along(dice, x)
    start = dice.integer(-size, size)
    length = dice.integer(0, size - (start if start >= 0 else start + size))
    if dice.chance(0.1):
        start, length = dice.pick((size + 1, 0), (0, size + 1), (0, -1), (-size - 1, 1))
    return dice.call(x, dim=dim, start=start, length=length)


def select(dice: Dice) -> Call:
    x = tensor(dice, 0 if dice.chance(0.05) else 1)
    dim, size = _along(dice, x)
    index = dice.integer(-size, size - 1) if dice.chance(0.88) else dice.pick(size, -size - 1, 1.5)
    return dice.call(x, dim=dim, index=index)


def index_select(dice: Dice) -> Call:
    x = tensor(dice, 0 if dice.chance(0.1) else 1)
    dim, size = _along(dice, x)
    count = dice.pick(0, 1, 2, 3, 5) if size else 0
    shape = (count,) if dice.chance(0.9) else dice.pick((), (2, 2))
    return dice.call(x, dim=dim, index=dice.index(shape, size))


def take(dice: Dice) -> Call:
    x = tensor(dice)
    size = x.values.size
    shape = dice.shape(high=3) if size else (0,)
    index = dice.index(shape, size)
    if dice.chance(0.3) and index.dtype == "int64" and index.values.size:
        index = from_end(index, size)
    return dice.call(x, index=index)


def _gathered(dice: Dice, x: Array) -> tuple[Any, Array]:
    """A dim, and indices along it of a shape that ``gather`` takes."""
    dim, size = _along(dice, x)
    right = isinstance(dim, int) and -x.ndim <= dim < x.ndim
    shape = [dice.integer(0 if dice.chance(0.1) else min(1, s), s) for s in x.shape]
    if right and shape:
        shape[dim] = dice.pick(1, 2, 4) if size else 0
    return dim, dice.index(dice.refit(tuple(shape), 0.06), size)


def from_end(index: Array, size: int) -> Array:
    """The same indices counted from the end."""
    return Array(np.asarray(index.values - size))


def masked_select(dice: Dice) -> Call:
    shapes = dice.broadcast(2)
    kind = dice.pick("bool", "bool", "bool", "bool", "bool", "uint8", "int64")
    return dice.call(tensor(dice, shape=shapes[0]), mask=dice.array(shapes[1], kind, grad=0))


def take_along_dim(dice: Dice) -> Call:
    x = tensor(dice)
    if dice.chance(0.2):
        size = x.values.size
        return dice.call(x, indices=dice.index(dice.shape(high=2) if size else (0,), size))
    dim, size = _along(dice, x)
    right = isinstance(dim, int) and -x.ndim <= dim < x.ndim
    shape = [1 if dice.chance(0.3) else s for s in x.shape]
    if right and shape:
        shape[dim] = dice.pick(1, 2, 4) if size else 0
    return dice.call(x, indices=dice.index(dice.refit(tuple(shape), 0.05), size), dim=dim)


def gather(dice: Dice) -> Call:
    x = tensor(dice)
    dim, index = _gathered(dice, x)
    return dice.call(x, dim=dim, index=index)


def _places(dice: Dice, x: Array) -> tuple[Any, Array]:
    """A dim, and indices no two of which along it are alike: who writes last is undefined."""
    dim, size = _along(dice, x)
    if not isinstance(dim, int) or not -x.ndim <= dim < x.ndim:
        return dim, dice.index(x.shape, 1, 0)
    every = np.argsort(dice.rng.random(x.shape), axis=dim) if x.ndim else np.zeros((), int)
    cut = tuple(slice(0, dice.integer(min(1, s), s)) for s in x.shape)
    values = np.asarray(every)[cut].copy()
    if values.size and dice.chance(0.07):
        values.flat[0] = dice.pick(size, -1, size + 5)
    return dim, Array(values)


def source(dice: Dice, x: Array, index: Array) -> Array:
    """A tensor that an ``index`` fits: at least as large."""
    larger = tuple(size + dice.pick(0, 0, 0, 1) for size in index.shape)
    if index.ndim and dice.chance(0.05):
        larger = dice.pick(larger[1:], tuple(max(0, size - 1) for size in index.shape))
    return dice.array(larger, x.dtype if dice.chance(0.92) else dice.dtype())


def scatter(dice: Dice) -> Call:
    x = tensor(dice)
    if dice.chance(0.35):
        dim, index = _gathered(dice, x)
        return dice.call(x, dim=dim, index=index, value=dice.number())
    dim, index = _places(dice, x)
    return dice.call(x, dim=dim, index=index, src=source(dice, x, index))


def scatter_add(dice: Dice) -> Call:
    x = tensor(dice)
    dim, index = _gathered(dice, x) if dice.chance(0.6) else _places(dice, x)
    return dice.call(x, dim=dim, index=index, src=source(dice, x, index))


# ---- indexing


def basic(dice: Dice, size: int) -> Any:
    """An integer or a slice along a dim of ``size``."""
    if dice.chance(0.35):
        wrong = dice.chance(0.06)
        return dice.pick(size, -size - 1) if wrong or not size else dice.integer(-size, size - 1)
    ends = [dice.pick(None, None, dice.integer(-size - 2, size + 2)) for _ in range(2)]
    return slice(*ends, dice.pick(None, None, None, 1, 2, 3, -1 if dice.chance(0.2) else 1))


def several(dice: Dice, size: int, shape: Shape, unique: bool) -> Any:
    """Integers as a tensor, a NumPy array or a list; repeated ones unless ``unique``."""
    if unique:
        count = min(shape[-1] if shape else 1, size)
        found = Array(dice.rng.permutation(size)[:count])
    else:
        found = dice.index(shape, size, 0.04)
    if found.values.size and dice.chance(0.25) and found.dtype == "int64":
        found = from_end(found, size)
    return _given(dice, found)


def mask(dice: Dice, shape: Shape) -> Any:
    return _given(dice, dice.array(dice.refit(shape, 0.05), "bool", grad=0))


def _given(dice: Dice, found: Array) -> Any:
    """An index as a tensor, a NumPy array or a list; not nested, PyTorch takes that for a tuple."""
    how = dice.pick("tensor", "tensor", "numpy", "list" if found.ndim == 1 else "numpy")
    return found if how == "tensor" else found.values if how == "numpy" else found.values.tolist()


def index(dice: Dice, shape: Shape, unique: bool = False) -> Any:
    """An index of a tensor of ``shape``: all that square brackets take."""
    arrays, found, at_ = 0, [], 0
    common = dice.pick((2,), (3,), (1,), (2, 2), (), (0,))
    kind = dice.pick("basic", "basic", "mixed", "mixed", "mask")
    while at_ < len(shape) and dice.chance(0.85):
        if dice.chance(0.12):
            found.append(None)
        if kind == "mask" and not arrays:
            dims = dice.integer(1, min(2, len(shape) - at_))
            found.append(mask(dice, shape[at_ : at_ + dims]))
            arrays, at_ = 1, at_ + dims
        elif kind == "mixed" and dice.chance(0.5) and not (unique and arrays):
            found.append(several(dice, shape[at_], dice.pick(common, common, (1,)), unique))
            arrays, at_ = arrays + 1, at_ + 1
        elif dice.chance(0.12) and ... not in [f for f in found if f is ...]:
            found.append(...)
            at_ += dice.integer(0, len(shape) - at_)
        else:
            found.append(basic(dice, shape[at_]))
            at_ += 1
    if dice.chance(0.05):
        found.append(dice.pick(0, None, ..., 1.5, "a", True, False))
    if len(found) == 1 and dice.chance(0.6):
        return found[0]
    return tuple(found)


def getitem(dice: Dice) -> Call:
    x = tensor(dice)
    return Call((x, index(dice, x.shape)))


def setitem(dice: Dice) -> Call:
    x = dice.array(dice.shape(), dice.dtype(), grad=0.1)
    x = replace(x, layout="contiguous") if x.layout == "expanded" and dice.chance(0.9) else x
    found = index(dice, x.shape, unique=True)
    try:
        inner = x.values[_on_host(found)].shape
    except (IndexError, TypeError, ValueError):
        inner = (1,)
    shape = dice.refit(dice.narrowed(inner), 0.05)
    dtype = x.dtype if dice.chance(0.8) else dice.dtype("float" if x.is_float else "integer")
    value = dice.number() if dice.chance(0.4) else dice.array(shape, dtype, small, grad=0.05)
    if isinstance(value, float) and not (x.is_float or math.isfinite(value)):
        value = 1
    return Call((x, found, value), no_grad=dice.chance(0.6))


def small(rng: np.random.Generator, shape: Shape) -> Any:
    """Numbers that every dtype holds."""
    return rng.integers(0, 5, shape)


def _on_host(found: Any) -> Any:
    """An index for NumPy."""
    if isinstance(found, tuple):
        return tuple(map(_on_host, found))
    return found.values if isinstance(found, Array) else found


OPS: list[Op] = [
    at("Tensor.reshape", sizes_of(True, "shape", new_shape)),
    at("torch.reshape", sizes_of(False, "shape", new_shape)),
    at("Tensor.view", sizes_of(True, "size", new_shape), says=("reshape",)),
    at("Tensor.view_as", view_as, says=("view", "reshape")),
    at("Tensor.reshape_as", view_as, says=("reshape",)),
    at("Tensor.expand_as", expand_as, says=("expand",)),
    both("flatten", flatten),
    both("unflatten", unflatten),
    both("transpose", transpose),
    at("Tensor.permute", sizes_of(True, "dims", order)),
    at("torch.permute", sizes_of(False, "dims", order)),
    both("movedim", movedim),
    at("Tensor.T", one(), spoils=False),
    at("Tensor.mT", one(), spoils=False),
    both("t", one(high=3)),
    both("squeeze", squeeze),
    both("unsqueeze", unsqueeze),
    at("Tensor.expand", sizes_of(True, "size", wider)),
    at("Tensor.broadcast_to", sizes_of(False, "size", wider), says=("expand",)),
    at("torch.broadcast_to", sizes_of(False, "size", wider), says=("expand",)),
    at("Tensor.repeat", sizes_of(True, "repeats", repeats)),
    Op("cat", ("torch.cat", "torch.concat", "torch.concatenate"), cat),
    at("torch.stack", stack),
    at("Tensor.split", split(True)),
    at("torch.split", split(False)),
    both("chunk", chunk),
    both("unbind", unbind),
    at("F.pad", pad),
    at("Tensor.flip", flip(True)),
    at("torch.flip", flip(False)),
    both("roll", roll),
    both("tril", triangle),
    both("triu", triangle),
    both("narrow", narrow),
    both("select", select),
    both("index_select", index_select),
    both("take", take),
    both("take_along_dim", take_along_dim, says=("take",)),
    both("masked_select", masked_select),
    both("gather", gather),
    both("scatter", scatter),
    both("scatter_add", scatter_add),
    at("operator.getitem", getitem, says=("index", "getitem", r"x\[i\]")),
    at("operator.setitem", setitem, says=("index", "getitem", r"x\[i\]")),
]
