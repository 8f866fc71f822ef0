"""What went wrong under jit once."""

from __future__ import annotations

import copy
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

import tinygrad_mnist as tg
import tinygrad_mnist.nn.functional as F
from tinygrad_mnist import nn, optim
from tinygrad_mnist.backend import use_backend
from tinygrad_mnist.jit.memory import laid_out, span

BACKENDS = ("numpy", "numba")


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize(
    "f",
    [
        lambda x: x / 20.0,
        lambda x: (x * 1.5) / 20.0,
        lambda x: 2.0 - x,
        lambda x: x * x + x,
    ],
)
def test_a_tensor_of_no_dims_is_read_anew_at_each_replay(
    backend: str, f: Callable[[tg.Tensor], tg.Tensor]
) -> None:
    with use_backend(backend):
        step = tg.jit(f)
        for number in (1.0, 2.0, 3.0, 4.0):
            x = tg.tensor(number)
            assert step(x).item() == f(x).item()


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("count", [20, 1000])
def test_a_sum_is_recorded_and_checked_by_the_kernels_of_a_plain_call(
    backend: str, count: int
) -> None:
    """The backend's own way of running several at once may round otherwise."""
    random = np.random.default_rng(0)
    with use_backend(backend):

        def mean(x: tg.Tensor) -> tg.Tensor:
            return x.sum() / 20.0

        exact, fast = tg.jit(passes=())(mean), tg.jit(mean)
        for _ in range(20):
            x = tg.tensor(3 * random.random(count, np.float32))
            assert exact(x).item() == mean(x).item()
            assert fast(x).item() == pytest.approx(mean(x).item(), rel=1e-6)


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_tensor_of_a_literal_is_made_anew_by_each_replay(backend: str) -> None:
    def summed(x: tg.Tensor) -> tg.Tensor:
        total = tg.tensor(0.0)
        total += x.sum()
        return total

    with use_backend(backend):
        step = tg.jit(summed)
        assert [step(tg.ones(3)).item() for _ in range(5)] == [3.0] * 5


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_gradient_that_depends_on_nothing_is_computed_at_each_replay(backend: str) -> None:
    """Its holder may write over it."""
    with use_backend(backend):
        w = tg.ones(3, requires_grad=True)

        @tg.jit
        def step() -> None:
            w.grad = None
            w.sum().backward()

        for _ in range(5):
            step()
            assert w.grad is not None and w.grad.tolist() == [1.0, 1.0, 1.0]
            w.grad.mul_(0.5)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("act", [nn.GELU, nn.Tanh, lambda: nn.BatchNorm2d(8)])
def test_a_result_with_gaps_is_replayed_with_gaps(backend: str, act: Callable[[], Any]) -> None:
    """That of a padded convolution's gradient, on few pixels, is a part of a larger array."""
    with use_backend(backend):
        tg.manual_seed(0)
        model = nn.Sequential(
            nn.Conv2d(1, 8, 3, padding=1), act(), nn.Conv2d(8, 8, 3, padding=1), nn.Flatten(),
            nn.Linear(128, 10),
        )  # fmt: skip
        optimizer = optim.SGD(model.parameters(), lr=0.1)
        x, y = tg.randn(32, 1, 4, 4), tg.randint(0, 10, (32,))

        @tg.jit
        def step(x: tg.Tensor, y: tg.Tensor) -> tg.Tensor:
            loss = F.cross_entropy(model(x), y)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            return loss

        losses = [step(x, y).item() for _ in range(5)]
    assert losses == sorted(losses, reverse=True)


@pytest.mark.parametrize(
    "like",
    [
        np.zeros((3, 4, 5)),
        np.zeros((3, 4, 5)).transpose(2, 0, 1),
        np.zeros((2, 3, 8, 9), np.float32)[:, :, 1:-1, 2:-2],
        np.zeros((2, 3, 8, 9), np.float32)[:, :, ::2, ::3],
        np.zeros((4, 6))[:, :1],
        np.zeros((4, 6))[:1].T,
        np.zeros((0, 3)),
        np.zeros(()),
        np.zeros((5, 1, 7), np.int64)[::2],
    ],
    ids=lambda x: f"{x.shape}{x.strides}",
)
def test_memory_is_laid_out_like_an_array(like: np.ndarray) -> None:
    made = laid_out(np.zeros(span(like), np.uint8), like)
    assert (made.shape, made.dtype) == (like.shape, like.dtype)
    steps = zip(like.shape, like.strides, made.strides, strict=True)
    assert all(a == b for size, a, b in steps if size > 1 and like.size)


@dataclass
class Pair:
    x: Any
    y: Any = None


@pytest.mark.parametrize(
    "kind", [Pair, lambda x: SimpleNamespace(x=x), lambda x: iter([x]), object]
)
def test_a_result_that_could_hide_a_tensor_is_refused_at_once(kind: Callable[..., Any]) -> None:
    step = tg.jit(lambda x: kind(x) if kind is not object else object())
    with pytest.raises(TypeError, match=r"jit: <lambda> returned a .* return tensors"):
        step(tg.ones(1))


def test_an_argument_that_holds_other_tensors_than_before_is_no_replay() -> None:
    class Holder:
        x: tg.Tensor

    step = tg.jit(lambda holder: holder.x * 2)
    pair = Holder()
    found = []
    for number in range(5):
        pair.x = tg.full((1,), float(number))
        found.append(step(pair).item())
    assert found == [0.0, 2.0, 4.0, 6.0, 8.0]


def test_nests_keep_their_types() -> None:
    class Named(dict):  # type: ignore[type-arg]
        __getattr__ = dict.__getitem__

    step = tg.jit(lambda given: Named(y=given.x * 2))
    counts = tg.jit(lambda given: given["x"] + given["missing"])
    for number in range(4):
        x = tg.full((1,), float(number))
        assert step(Named(x=x)).y.item() == 2 * number
        assert counts(defaultdict(lambda: 1.0, x=x)).item() == number + 1


def test_an_argument_may_be_told_to_require_grad_inside() -> None:
    def attacked(x: tg.Tensor) -> tg.Tensor:
        x.requires_grad_()
        loss = (x * x).sum()
        loss.backward()
        return loss

    step = tg.jit(attacked)
    for number in range(5):
        x = tg.full((2,), float(number))
        step(x)
        assert x.requires_grad
        assert x.grad is not None and x.grad.tolist() == [2.0 * number] * 2


def test_a_model_with_a_jitted_function_can_be_copied() -> None:
    model = nn.Linear(2, 2)
    model.fast = tg.jit(model.forward)
    for _ in range(3):
        model.fast(tg.ones(1, 2))
    assert copy.deepcopy(model).fast(tg.ones(1, 2)).tolist() == model(tg.ones(1, 2)).tolist()


def test_versions_are_told_apart_by_whose_they_are() -> None:
    """Not by how often each was written: a parameter and an argument may be equal in that."""
    w = tg.ones(3, requires_grad=True)

    @tg.jit
    def step(x: tg.Tensor) -> None:
        with tg.no_grad():
            w.add_(1.0)
            x.add_(1.0)

    x = tg.zeros(3)
    for _ in range(3):
        step(x)
    kept = (w * w).sum()
    step(x)
    with pytest.raises(RuntimeError, match="changed in place"):
        kept.backward()
    assert w.version == x.version == [4]
