"""Products of vectors, matrices and windows."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from parity.draws import OMIT, Array, Call, Dice, Op, Shape, at, both, distinct, tame

Draw = Callable[[Dice], Call]


def product_dtype(dice: Dice) -> str:
    return dice.dtype("float") if dice.chance(0.85) else dice.pick("int64", "int32", "bool")


def operands(dice: Dice, *shapes: Shape, wrong: float = 0.05) -> list[Array]:
    """Tame tensors of one dtype; sometimes one has another shape or dtype."""
    dtype = product_dtype(dice)
    fill = tame if dtype.startswith("float") else None
    made = [dice.array(dice.refit(shape, wrong), dtype, fill) for shape in shapes]
    if dice.chance(0.04):
        at_ = dice.integer(0, len(made) - 1)
        made[at_] = dice.array(made[at_].shape, dice.dtype(), None)
    return made


def matmul_shapes(dice: Dice) -> tuple[Shape, Shape]:
    n, m, k = dice.size(), dice.size(), dice.size()
    if dice.chance(0.03):
        return dice.pick(((), (m,)), ((m,), ()), ((), ()))
    kind = dice.pick("vv", "vm", "mv", "mm", "mm", "batched", "batched", "batched")
    if kind == "vv":
        return (m,), (m,)
    batch = dice.broadcast(2, wrong=0.05, high=2) if kind == "batched" else [(), ()]
    left = (m,) if kind == "vm" else (*batch[0], n, m)
    right = (m,) if kind == "mv" else (*batch[1], m, k)
    if kind == "batched" and dice.chance(0.2):
        return dice.pick(((m,), right), (left, (m,)))
    return left, right


def matmul(dice: Dice) -> Call:
    x, y = operands(dice, *matmul_shapes(dice))
    return dice.call(x, other=y)


def matmul_operator(dice: Dice) -> Call:
    return Call(tuple(operands(dice, *matmul_shapes(dice))))


def fixed(name: str, letters: str) -> Draw:
    """A product of two tensors of given dims: ``"nm,mk"``."""

    def draw(dice: Dice) -> Call:
        sizes = {letter: dice.size() for letter in set(letters)}
        shapes = [tuple(sizes[c] for c in part) for part in letters.split(",")]
        x, y = operands(dice, *shapes)
        return dice.call(x, **{name: y})

    return draw


def added(batched: bool) -> Draw:
    """``beta · input + alpha · (a @ b)``; the input is broadcast."""

    def draw(dice: Dice) -> Call:
        n, m, k = dice.size(), dice.size(), dice.size()
        batch = (dice.size(),) if batched else ()
        shapes = (dice.narrowed((*batch, n, k)), (*batch, n, m), (*batch, m, k))
        x, a, b = operands(dice, *shapes)
        names = ("batch1", "batch2") if batched else ("mat1", "mat2")
        scale = [dice.maybe(dice.pick(0, 1, 2, -1, 0.5), 0.4) for _ in range(2)]
        only = {"beta": scale[0], "alpha": scale[1]}
        return dice.call(x, **dict(zip(names, (a, b), strict=True)), only=only)

    return draw


EQUATIONS = [
    *("ij,jk->ik", "ij,jk", "i,i->", "i,j->ij", "ii->i", "ii", "ii->", "bij,bjk->bik"),
    *("...ij,...jk->...ik", "ij->ji", "ij->", "ij->j", "ijk->kj", "ij,ij->ij", "ij,kj->ik"),
    *("i,ij,j->", "bhqd,bhkd->bhqk", "ab , bc -> ac", "ba", "...i->i...", ",ij->ij", "i...->..."),
    *("ij,jk,kl->il", "iij->j", "bi,bj->bij", "...,...->...", "ijj->ij", "aij,ajk", "Ab,bC->AC"),
]
WRONG_EQUATIONS = ["ij,jk->il", "i.j->ij", "ij,jk->ii", "ij->ij->i", "i1->i", "ij,jk", "ijk", "->"]


def einsum(dice: Dice) -> Call:
    equation = dice.pick(*EQUATIONS)
    extra = dice.shape(high=2)
    sizes = {c: dice.size() for c in equation if c.isalpha()}
    shapes = []
    for term in equation.split("->")[0].split(","):
        before, dots, after = term.strip().partition("...")
        own = [tuple(sizes[c] for c in part) for part in (before, after)]
        shapes.append((*own[0], *(dice.narrowed(extra) if dots else ()), *own[1]))
    if dice.chance(0.08):
        equation = dice.pick(*WRONG_EQUATIONS)
    if dice.chance(0.1):
        at_ = dice.integer(0, len(shapes) - 1)
        shapes[at_] = dice.narrowed(shapes[at_], drop=0)
    given = operands(dice, *shapes, wrong=0.04)
    return Call((equation, given) if dice.chance(0.2) else (equation, *given))


def linear(dice: Dice) -> Call:
    out, in_ = dice.size(), dice.size()
    leading = dice.shape(high=3)
    x, weight, bias = operands(dice, (*leading, in_), (out, in_), (out,))
    if dice.chance(0.06):
        weight = dice.array((in_,), x.dtype, tame)
        bias = OMIT
    return dice.call(x, weight=weight, bias=dice.pick(bias, bias, OMIT, None))


# ---- windows


def per_dim(dice: Dice, dims: int, *options: int) -> Any:
    """A number for every dim, or one for each."""
    if dice.chance(0.5) or dims == 1:
        number = dice.pick(*options)
        return number if dice.chance(0.8) else (number,) * dims
    return tuple(dice.pick(*options) for _ in range(dims))


def convolved(dice: Dice, dims: int, transposed: bool) -> tuple[Array, Array, Any, int]:
    """An input, a kernel, a bias and groups."""
    groups = dice.pick(1, 1, 1, 2)
    per_group, out = dice.pick(1, 2, 2), groups * dice.pick(1, 2)
    in_ = per_group * groups
    batch = () if dice.chance(0.12) else (dice.pick(0, 1, 2, 2, 3),)
    space = tuple(dice.pick(3, 4, 5, 6) for _ in range(dims))
    if dice.chance(0.04):
        space = (dice.pick(0, 1), *space[1:])
    window = tuple(dice.pick(1, 2, 3) for _ in range(dims))
    kernel = (in_, out // groups, *window) if transposed else (out, per_group, *window)
    found = operands(dice, (*batch, in_, *space), kernel, (out,), wrong=0.03)
    if found[0].dtype in ("int64", "int32", "bool") and dice.chance(0.9):
        found = [dice.array(x.shape, "float32", tame) for x in found]
    bias = dice.pick(found[2], found[2], OMIT, None)
    if dice.chance(0.03):
        groups = dice.pick(3, 0, 2)
    return found[0], found[1], bias, groups


def convolution(dims: int) -> Draw:
    def draw(dice: Dice) -> Call:
        x, weight, bias, groups = convolved(dice, dims, False)
        padding = per_dim(dice, dims, 0, 0, 1, 2)
        stride = dice.maybe(per_dim(dice, dims, 1, 1, 2, 3))
        if dice.chance(0.2):
            padding = dice.pick("same", "same", "valid", "valid", "other")
            stride = OMIT if dice.chance(0.9) else stride
        if dice.chance(0.05):
            padding, stride = dice.pick((-1, 1), (0, 0), (0, -1), ((1, 1, 1, 1), 1), (1.5, 1))
        return dice.call(
            x,
            weight=weight,
            bias=bias,
            stride=stride,
            padding=dice.maybe(padding, 0.6),
            dilation=dice.maybe(per_dim(dice, dims, 1, 2), 0.3),
            groups=groups if groups != 1 or dice.chance(0.3) else OMIT,
        )

    return draw


def conv_transpose2d(dice: Dice) -> Call:
    x, weight, bias, groups = convolved(dice, 2, True)
    stride = per_dim(dice, 2, 1, 1, 2, 3)
    if dice.chance(0.04):
        stride = dice.pick(0, -1, (1, 1, 1))
    return dice.call(
        x,
        weight=weight,
        bias=bias,
        stride=dice.maybe(stride),
        padding=dice.maybe(per_dim(dice, 2, 0, 0, 1, 2 if dice.chance(0.1) else 0), 0.5),
        output_padding=dice.maybe(per_dim(dice, 2, 0, 0, 1), 0.3),
        groups=groups if groups != 1 or dice.chance(0.3) else OMIT,
        dilation=dice.maybe(per_dim(dice, 2, 1, 2), 0.3),
    )


def image(dice: Dice, fill: Any = tame) -> Array:
    """A batch of images, or one."""
    batch = () if dice.chance(0.15) else (dice.pick(0, 1, 2, 2),)
    space = tuple(dice.pick(2, 3, 4, 5, 6) for _ in range(2))
    shape = dice.refit((*batch, dice.pick(1, 2, 3), *space), 0.04)
    return dice.array(shape, dice.dtype("float" if dice.chance(0.94) else "any"), fill)


def pooled(dice: Dice) -> dict[str, Any]:
    """kernel_size, stride and padding; some do not fit."""
    kernel = per_dim(dice, 2, 1, 2, 2, 3)
    small = min(kernel) if isinstance(kernel, tuple) else kernel
    padding = per_dim(dice, 2, 0, 0, small // 2)
    stride = dice.maybe(dice.pick(None, per_dim(dice, 2, 1, 2, 3)))
    if dice.chance(0.08):
        kernel, stride, padding = dice.pick((2, 0, 0), (2, 1, 2), (9, 1, 0), (0, 1, 0), (2, 1, -1))
    return {"kernel_size": kernel, "stride": stride, "padding": dice.maybe(padding, 0.6)}


def max_pool2d(dice: Dice) -> Call:
    found = pooled(dice)
    return dice.call(
        image(dice, dice.pick(distinct, distinct, None)),
        **found,
        dilation=dice.maybe(per_dim(dice, 2, 1, 1, 2), 0.3),
        only={"ceil_mode": dice.maybe(dice.pick(True, False), 0.4)},
    )


def avg_pool2d(dice: Dice) -> Call:
    return dice.call(
        image(dice),
        **pooled(dice),
        ceil_mode=dice.maybe(dice.pick(True, False), 0.5),
        count_include_pad=dice.maybe(dice.pick(True, False), 0.5),
        divisor_override=dice.maybe(dice.pick(None, 1, 2, 3, 0), 0.15),
    )


def adaptive_avg_pool2d(dice: Dice) -> Call:
    size = dice.pick(1, 2, 3, 7, (2, 3), (1, 1), (None, 2), None, (0, 1), -1, (1, 2, 3))
    return dice.call(image(dice), output_size=size)


def unfold(dice: Dice) -> Call:
    wrong = dice.chance(0.05)
    return dice.call(
        image(dice),
        kernel_size=dice.pick(9, 0) if wrong else per_dim(dice, 2, 1, 2, 2, 3),
        dilation=dice.maybe(per_dim(dice, 2, 1, 1, 2), 0.4),
        padding=dice.maybe(per_dim(dice, 2, 0, 1), 0.5),
        stride=dice.maybe(per_dim(dice, 2, 1, 2, 3), 0.5),
    )


def fold(dice: Dice) -> Call:
    """Columns of the size and number that the windows give, but for some."""
    size = (dice.pick(3, 4, 5), dice.pick(3, 4, 5))
    window = {
        "kernel_size": (dice.pick(1, 2), dice.pick(1, 2, 3)),
        "dilation": dice.pick(1, 1, 1, 2),
        "padding": dice.pick(0, 0, 1),
        "stride": dice.pick(1, 1, 2),
    }
    reach = [
        s + 2 * window["padding"] - window["dilation"] * (k - 1) - 1
        for s, k in zip(size, window["kernel_size"], strict=True)
    ]
    count = math.prod(max(0, r // window["stride"] + 1) for r in reach)
    channels = dice.pick(1, 2) * math.prod(window["kernel_size"])
    batch = () if dice.chance(0.2) else (dice.pick(0, 1, 2),)
    x = dice.array(dice.refit((*batch, channels, count), 0.1), dice.dtype("float"), tame)
    defaults = {"dilation": 1, "padding": 0, "stride": 1}
    left_out = {n: OMIT for n, d in defaults.items() if window[n] == d and dice.chance(0.4)}
    return dice.call(x, output_size=size, **(window | left_out))


OPS: list[Op] = [
    both("matmul", matmul),
    at("operator.matmul", matmul_operator),
    both("mm", fixed("mat2", "nm,mk"), says=("matmul",)),
    both("bmm", fixed("mat2", "bnm,bmk"), says=("matmul",)),
    both("mv", fixed("vec", "nm,m"), says=("matmul",)),
    both("outer", fixed("vec2", "n,m")),
    at("torch.dot", fixed("tensor", "n,n"), says=("matmul",)),
    at("Tensor.dot", fixed("tensor", "n,n"), says=("matmul",)),
    both("addmm", added(False)),
    both("baddbmm", added(True)),
    at("torch.einsum", einsum, rough=3),
    at("F.linear", linear),
    at("F.conv1d", convolution(1), rough=3),
    at("F.conv2d", convolution(2), rough=3),
    at("F.conv_transpose2d", conv_transpose2d, rough=3),
    at("F.max_pool2d", max_pool2d),
    at("F.avg_pool2d", avg_pool2d),
    at("F.adaptive_avg_pool2d", adaptive_avg_pool2d),
    at("F.unfold", unfold),
    at("F.fold", fold),
]
