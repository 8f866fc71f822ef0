"""What the op table cannot say of views and copies: whose memory it is, what they cost, errors."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import tinygrad_mnist as tg
from tinygrad_mnist.dispatch import Call, Observer, observe
from tinygrad_mnist.kernels import Backend
from tinygrad_mnist.nn import functional as F
from tinygrad_mnist.tensor import Tensor


class Counts(Observer):
    """How often each kernel ran."""

    def __init__(self) -> None:
        self.calls: Counter[str] = Counter()

    def before(self, call: Call) -> None:
        self.calls[call.kernel] += 1


def strided(backend: Backend) -> tuple[Tensor, Tensor]:
    """A tensor, and a view of it (3, 1, 4) that is not contiguous."""
    base = tg.zeros(4, 6, backend=backend)
    return base, base.narrow(1, 2, 3).t().unsqueeze(1)


VIEWS: dict[str, Callable[[Tensor], Any]] = {
    "squeeze": lambda x: x.squeeze(),
    "squeeze dims": lambda x: x.squeeze((1,)),
    "squeeze nothing": lambda x: x.squeeze(0),
    "unsqueeze": lambda x: x.unsqueeze(-1),
    "transpose": lambda x: x.transpose(0, 2),
    "permute": lambda x: x.permute(2, 0, 1),
    "movedim": lambda x: x.movedim(0, -1),
    "T": lambda x: x.T,
    "mT": lambda x: x.mT,
    "t": lambda x: x.squeeze().t(),
    "unflatten": lambda x: x.unflatten(2, (2, 2)),
    "flatten": lambda x: x.flatten(0, 1),
    "reshape": lambda x: x.reshape(1, 3, 2, 2),
    "view": lambda x: x.view(3, 2, 2),
    "narrow": lambda x: x.narrow(2, 1, 2),
    "select": lambda x: x.select(0, -1),
    "split": lambda x: x.split(3, 2)[1],
    "chunk": lambda x: x.chunk(2)[0],
    "unbind": lambda x: x.unbind()[1],
    "unbind last": lambda x: x.unbind(-1)[3],
    "iteration": lambda x: list(x)[2],
    "broadcast_to its own shape": lambda x: x.broadcast_to(3, 1, 4),
}

COPIES: dict[str, Callable[[Tensor], Any]] = {
    "reshape": lambda x: x.reshape(-1),
    "flatten": lambda x: x.flatten(),
    "flip": lambda x: x.flip(()),
    "roll": lambda x: x.roll(0, 0),
    "roll flat": lambda x: x.squeeze().t().roll(0),
    "repeat": lambda x: x.repeat(1, 1, 1),
    "tril": lambda x: x.tril(9),
    "cat": lambda x: tg.cat([x]),
    "pad": lambda x: F.pad(x, (0, 0)),
    "pad crops": lambda x: F.pad(x, (-1, 0)),
    "pad reflects nothing": lambda x: F.pad(x, (0, -1), "reflect"),
}


@pytest.mark.parametrize("name", VIEWS)
def test_views_write_through(name: str, backend: Backend) -> None:
    """Also of a tensor that is not contiguous: a write reaches the original, and it is counted."""
    base, x = strided(backend)
    view = VIEWS[name](x)
    view += 1
    assert base.sum().item() == view.numel()
    assert view.version is base.version


@pytest.mark.parametrize("name", COPIES)
def test_copies_do_not(name: str, backend: Backend) -> None:
    base, x = strided(backend)
    made = COPIES[name](x)
    made += 1
    assert base.sum().item() == 0


def test_view_refuses_a_copy(backend: Backend) -> None:
    _, x = strided(backend)
    with pytest.raises(RuntimeError, match=r"view: .*\(3, 1, 4\).*\(12,\).*reshape"):
        x.view(-1)


def test_rows_take_one_gradient_together(backend: Backend) -> None:
    """Not one of the tensor's size for each row: iterating costs its size, and no more."""
    for shape in ((50, 3), (50,)):
        x = tg.ones(*shape, requires_grad=True, backend=backend)
        loss = sum(row * i for i, row in enumerate(x)).sum()
        counts = Counts()
        with observe(counts):
            loss.backward()
        assert (counts.calls["concat"], counts.calls["getitem_grad"]) == (1, 0)
        assert x.grad is not None
        assert (
            x.grad.tolist()
            == (
                x.detach() * tg.arange(50, backend=backend).reshape(-1, *[1] * (x.ndim - 1))
            ).tolist()
        )


def test_a_row_alone(backend: Backend) -> None:
    """The others' gradients are 0, and one array of zeros stands for all of them."""
    x = tg.ones(50, 3, requires_grad=True, backend=backend)
    loss = x.unbind()[1].sum()
    counts = Counts()
    with observe(counts):
        loss.backward()
    assert counts.calls["full"] <= 2
    assert x.grad is not None
    assert x.grad.sum(1).tolist() == [0, 3] + [0] * 48


def test_nothing_to_iterate(backend: Backend) -> None:
    assert list(tg.zeros(0, 3, backend=backend)) == []
    assert tg.zeros(2, 0, backend=backend).unbind(1) == ()
    with pytest.raises(TypeError, match="0-d"):
        iter(tg.tensor(1.0, backend=backend))


def test_what_lies_outside_a_triangle_vanishes(backend: Backend) -> None:
    x = tg.tensor([[1.0, np.inf], [np.nan, -np.inf]], requires_grad=True, backend=backend)
    kept = x.triu(1)
    kept.backward(tg.tensor([[np.nan, 2.0], [np.inf, np.nan]], backend=backend))
    assert kept.tolist() == [[0, np.inf], [0, 0]]
    assert x.grad is not None
    assert x.grad.tolist() == [[0, 2], [0, 0]]


def test_padding_keeps_every_bit(backend: Backend) -> None:
    x = tg.tensor([-0.0, 1e-30, 16777217.0, np.inf], backend=backend)
    for value in (0, 3e38, np.nan):
        inside = F.pad(x, (1, 2), value=value).narrow(0, 1, 4)
        assert np.array(inside.tolist()).tobytes() == np.array(x.tolist()).tobytes()


def test_an_empty_piece_of_cat_has_a_gradient(backend: Backend) -> None:
    nothing = tg.zeros(0, requires_grad=True, backend=backend)
    tg.cat([nothing, tg.ones(2, 3, backend=backend)], 1).sum().backward()
    assert nothing.grad is not None
    assert nothing.grad.shape == (0,)


def test_names_of_arguments() -> None:
    """PyTorch's, of methods and functions."""
    x = tg.tensor([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]])
    pairs = [
        (x.reshape(shape=(3, 2)), tg.reshape(x, (3, 2))),
        (x.view(size=(3, 2)), x.view((3, 2))),
        (x.permute(dims=(1, 0)), tg.permute(x, (1, 0))),
        (x.transpose(dim0=0, dim1=1), tg.transpose(x, 0, 1)),
        (x.expand(size=(2, 2, 3)), tg.broadcast_to(x, size=(2, 2, 3))),
        (x.flatten(start_dim=0, end_dim=1), tg.flatten(x)),
        (x.unflatten(dim=1, sizes=(3, 1)), tg.unflatten(x, 1, (3, 1))),
        (x.movedim(source=0, destination=1), tg.movedim(x, 0, 1)),
        (x.repeat(repeats=(1, 2)), x.repeat(1, 2)),
        (x.flip(dims=(0,)), tg.flip(x, (0,))),
        (x.roll(shifts=1, dims=0), tg.roll(x, 1, 0)),
        (x.tril(diagonal=1), tg.tril(x, 1)),
        (x.narrow(dim=1, start=1, length=2), tg.narrow(x, 1, 1, 2)),
        (x.select(dim=0, index=1), tg.select(x, 0, 1)),
        (x.split(split_size=1)[0], tg.split(x, split_size_or_sections=1, dim=0)[0]),
        (x.chunk(chunks=2, dim=1)[1], tg.chunk(x, 2, 1)[1]),
        (x.unbind(dim=1)[0], tg.unbind(x, 1)[0]),
        (tg.cat(tensors=[x, x], dim=1), tg.concat([x, x], 1)),
        (tg.stack(tensors=[x, x], dim=1), tg.stack([x, x], 1)),
        (F.pad(input=x, pad=(1, 1), mode="constant", value=2.0), tg.pad(x, (1, 1), "constant", 2)),
    ]
    for a, b in pairs:
        np.testing.assert_array_equal(a.numpy(), b.numpy())


ERRORS: list[tuple[Callable[[Tensor], Any], type[Exception], str]] = [
    (lambda x: tg.cat([]), ValueError, "cat: expected at least one tensor"),
    (lambda x: tg.cat(x), TypeError, "cat: expected a list or tuple, got Tensor"),
    (lambda x: tg.cat([x, 2]), TypeError, "cat: expected a tensor as number 1, got int"),
    (lambda x: tg.cat([x, x.T]), ValueError, r"cat: .*dim 0, got \(2, 3\), \(3, 2\)"),
    (lambda x: tg.cat([x, x.sum()]), ValueError, "cat: .*at least 1 dim"),
    (lambda x: tg.cat([x, x], 2), IndexError, "cat: dim 2 is out of range"),
    (lambda x: tg.stack([x, x.T]), ValueError, r"stack: expected equal shapes, got \(2, 3\), "),
    (lambda x: tg.stack([x, x], 3), IndexError, "stack: dim 3 is out of range"),
    (lambda x: x.unflatten(1, (2, 2)), ValueError, r"unflatten: .*\(3,\) do not fit \(2, 2\)"),
    (lambda x: x.unflatten(1, ()), ValueError, "unflatten: expected at least one size"),
    (lambda x: x.squeeze((0, -2)), ValueError, "squeeze: .*twice"),
    (lambda x: x.unsqueeze(0).t(), ValueError, r"t: expected at most 2 dims.*\(1, 2, 3\)"),
    (lambda x: x.movedim((0, 0), (0, 1)), ValueError, "movedim: .*twice"),
    (lambda x: x.movedim((0, 1), 0), ValueError, "movedim: expected as many dims"),
    (lambda x: x.movedim(2, 0), IndexError, "movedim: dim 2 is out of range"),
    (lambda x: x.expand_as(x.T), ValueError, r"expand: .*\(2, 3\).*\(3, 2\)"),
    (lambda x: x.view_as(6), TypeError, "view_as: expected a tensor as other, got int"),
    (lambda x: x.repeat(2), ValueError, r"repeat: .*\(2, 3\), got \(2,\)"),
    (lambda x: x.repeat(1, -1), ValueError, "repeat: expected a count of at least 0"),
    (lambda x: x.repeat(1, 1.5), TypeError, "repeat: a shape is made of integers, got 1.5"),
    (lambda x: x.split(0), ValueError, "split: a dim of size 2 does not split into 0"),
    (lambda x: x.split([1, 2]), ValueError, r"split: .*size 2 .*\[1, 2\]"),
    (lambda x: x.split([3, -1]), ValueError, r"split: .*\[3, -1\]"),
    (lambda x: x.split("a"), TypeError, "split: split_size must be an integer"),
    (lambda x: x.sum().split(1), IndexError, "split: .*0-d"),
    (lambda x: x.chunk(0), ValueError, "chunk: expected at least 1 chunk, got 0"),
    (lambda x: x.unbind(2), IndexError, "unbind: dim 2 is out of range"),
    (lambda x: x.narrow(0, 3, 0), IndexError, "narrow: start 3 is out of range, expected -2 to 2"),
    (lambda x: x.narrow(0, 1, 2), ValueError, "narrow: length 2 from 1 on .*size 2"),
    (lambda x: x.narrow(0, 1, -1), ValueError, "narrow: length -1"),
    (lambda x: x.select(1, 3), IndexError, r"select: index 3 .*dim 1 of shape \(2, 3\)"),
    (lambda x: x.select(1, -4), IndexError, "select: index -4 is out of range"),
    (lambda x: x.select(1, 1.0), TypeError, "select: index must be an integer, got 1.0"),
    (lambda x: x.flip(0, -2), ValueError, "flip: .*twice"),
    (lambda x: x.roll((1, 2)), ValueError, "roll: expected one shift for each dim"),
    (lambda x: x.roll(1, 2), IndexError, "roll: dim 2 is out of range"),
    (lambda x: x.select(0, 0).tril(), ValueError, r"tril: expected at least 2 dims.*\(3,\)"),
    (lambda x: x.triu(0.5), TypeError, "triu: diagonal must be an integer, got 0.5"),
    (lambda x: F.pad(x, 1), TypeError, "pad: expected a tuple of integers, got int"),
    (lambda x: F.pad(x, (1,)), ValueError, r"pad: expected two numbers .*\(1,\).*\(2, 3\)"),
    (lambda x: F.pad(x, (0,) * 6), ValueError, "pad: expected two numbers for each padded dim"),
    (lambda x: F.pad(x, (-2, -2)), ValueError, r"pad: -2 and -2 take more away.*\(2, 3\)"),
    (lambda x: F.pad(x, (3, 0), "reflect"), ValueError, "pad: to reflect 3 and 0 elements"),
    (lambda x: F.pad(x[:, :0], (1, 0), "replicate"), ValueError, "pad: no edge to replicate"),
    (lambda x: F.pad(x, (1, 1), "mirror"), ValueError, "pad: .*constant, reflect, replicate, got"),
    (lambda x: F.pad(x, (1, 1), "reflect", 1.0), ValueError, "pad: .*'reflect' takes no value"),
    (lambda x: F.pad(x.long(), (1, 1), value=0.5), ValueError, "pad: the value 0.5 .*int64"),
    (lambda x: F.pad(x, (1, 1), value="a"), TypeError, "pad: expected a number as value, got str"),
    (lambda x: F.pad([1], (1, 1)), TypeError, "pad: expected a tensor as input, got list"),
]


@pytest.mark.parametrize(("attempt", "error", "says"), ERRORS, ids=[e[2][:24] for e in ERRORS])
def test_error(
    attempt: Callable[[Tensor], Any], error: type[Exception], says: str, backend: Backend
) -> None:
    with pytest.raises(error, match=says) as raised:
        attempt(tg.zeros(2, 3, backend=backend))
    assert "\n" not in str(raised.value)
