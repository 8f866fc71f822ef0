"""Each pass by itself: what it makes of a small program, which goes on to compute the same bits."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

import tinygrad_mnist as tg
from tinygrad_mnist import nn, optim
from tinygrad_mnist.jit import passes
from tinygrad_mnist.jit.program import Program
from tinygrad_mnist.nn import functional as F
from tinygrad_mnist.testing import assert_close


@pytest.fixture(params=["numpy", "numba"], autouse=True)
def backend(request: pytest.FixtureRequest) -> Iterator[str]:
    pytest.importorskip(request.param)
    with tg.use_backend(request.param):
        yield request.param


def kernels(program: Program) -> list[str]:
    return [item.kernel for item in program.instructions()]


def after(
    make: Callable[[], Callable[..., Any]], *chosen: passes.Pass, args: tuple[Any, ...], near: bool
) -> tuple[Program, Program]:
    """The program of the function as recorded and after the passes, which compute the same."""
    found, programs = [], []
    for given in ((), chosen):
        tg.manual_seed(3)
        step = tg.jit(make(), passes=given)
        results = [step(*args) for _ in range(5)]
        found.append(
            [[x.tolist() for x in r] if isinstance(r, tuple) else r.tolist() for r in results]
        )
        programs.append(step.program)
    if near:
        for x, y in zip(*found, strict=True):
            assert_close(tg.tensor(y), tg.tensor(x), rtol=1e-5, atol=1e-6)
    else:
        assert found[0] == found[1]
    return programs[0], programs[1]


def exactly(
    make: Callable[[], Callable[..., Any]], *chosen: passes.Pass, args: tuple[Any, ...]
) -> tuple[Program, Program]:
    return after(make, *chosen, args=args, near=False)


# ---- hoist


def test_hoist_runs_once_what_is_made_of_nothing() -> None:
    def make() -> Callable[..., Any]:
        return lambda x: x * (tg.arange(4).float() * 2 + 1)

    before, hoisted = exactly(make, passes.hoist, args=(tg.randn(4),))
    assert kernels(before) == ["arange", "cast", "multiply", "add", "multiply"]
    assert kernels(hoisted) == ["multiply"]
    assert [item.kernel for item in hoisted.constants] == kernels(before)[:-1]


def test_hoist_leaves_what_is_written_or_drawn() -> None:
    def make() -> Callable[..., Any]:
        def step(x: Any) -> Any:
            total = tg.zeros(4)
            total += x
            return total, tg.rand(4), tg.ones(4) + x

        return step

    before, hoisted = exactly(make, passes.hoist, args=(tg.randn(4),))
    assert [item.kernel for item in hoisted.constants] == ["full"]  # the ones
    assert len(kernels(hoisted)) == len(kernels(before)) - 1
    assert "uniform" in kernels(hoisted)


# ---- write_directly


def test_write_directly_leaves_out_copies() -> None:
    def make() -> Callable[..., Any]:
        return lambda x: (x * 2).clone() + 1

    before, direct = exactly(make, passes.write_directly, args=(tg.randn(4),))
    assert kernels(before) == ["multiply", "copy", "add"]
    assert kernels(direct) == ["multiply", "add"]


@pytest.mark.parametrize("reader", ["result", "other", "view", "argument", "state"])
def test_write_directly_leaves_what_others_read(reader: str) -> None:
    def make() -> Callable[..., Any]:
        state = tg.ones(4)

        def step(x: Any) -> Any:
            y = {"argument": x, "state": state}.get(reader, x * 2)
            z = y.clone()
            if reader == "view":
                y = y[1:]
            z += 1
            return (z, y) if reader in ("result", "view") else (z, y + 1)

        return step

    before, direct = exactly(make, passes.write_directly, args=(tg.randn(4),))
    assert kernels(before) == kernels(direct)
    assert "copy" in kernels(direct)


# ---- drop_unread


def test_drop_unread_leaves_out_what_nobody_wants() -> None:
    def make() -> Callable[..., Any]:
        def step(x: Any) -> Any:
            (x.exp().sum() * 3).tanh()
            return x + 1

        return step

    before, dropped = exactly(make, passes.drop_unread, args=(tg.randn(4),))
    assert kernels(before) == ["exp", "sum", "multiply", "tanh", "add"]
    assert kernels(dropped) == ["add"]


def test_drop_unread_keeps_writes_gradients_and_draws() -> None:
    def make() -> Callable[..., Any]:
        w, count = tg.ones(4, requires_grad=True), tg.zeros(4)

        def step(x: Any) -> Any:
            w.grad = None
            tg.rand(4)
            (w * x).sum().backward()
            with tg.no_grad():
                count.add_(w.grad)
            return count, tg.rand(4)

        return step

    before, dropped = exactly(make, passes.drop_unread, args=(tg.randn(4),))
    assert kernels(before).count("uniform") == 2
    assert kernels(dropped).count("uniform") == 1  # the other's key is drawn all the same
    assert "sum" not in kernels(dropped)  # the loss
    assert "add" in kernels(dropped)


# ---- share_memory


def test_share_memory_lets_results_follow_each_other() -> None:
    def make() -> Callable[..., Any]:
        def step(x: Any) -> Any:
            for _ in range(6):
                x = (x @ x).tanh()
            return x

        return step

    before, shared = exactly(make, passes.share_memory, args=(tg.randn(8, 8),))
    assert kernels(before) == kernels(shared)
    blocks = {place.block for place in shared.places if place.kind == "made"} - {None}
    assert len(blocks) == 2  # a product's factor and result; tanh writes over its input
    assert before.nbytes() == 12 * 8 * 8 * 4
    assert shared.nbytes() == 3 * 8 * 8 * 4  # and the result


def test_share_memory_keeps_what_is_read_later() -> None:
    def make() -> Callable[..., Any]:
        w = tg.randn(6, 6, requires_grad=True)
        optimizer = optim.SGD([w], lr=0.01)

        def step(x: Any) -> Any:
            h = (x @ w).tanh()
            early = h[1:3]
            y = ((h @ w).sigmoid() * h + h.T).relu()
            optimizer.zero_grad()
            loss = (y @ w).square().mean() + early.sum()
            loss.backward()
            optimizer.step()
            return loss, early, y.T

        return step

    before, shared = exactly(make, passes.share_memory, args=(tg.randn(6, 6),))
    assert shared.nbytes() < before.nbytes() / 2


def test_share_memory_of_other_dtypes_and_layouts() -> None:
    def make() -> Callable[..., Any]:
        def step(x: Any) -> Any:
            chosen = x.argmax(1)
            y = (x.T * 2).double() @ x.double()
            return (y.float() + chosen[:1].float() + (x > 0).T.float()[:, :1]).sum(0)

        return step

    before, shared = exactly(make, passes.share_memory, args=(tg.randn(7, 5),))
    assert shared.nbytes() < before.nbytes()


# ---- fold


def images() -> tuple[Any, ...]:
    return (tg.randn(3, 2, 9, 9),)


def convolutional(*layers: Callable[[], nn.Module]) -> Callable[[], Callable[..., Any]]:
    """Makes a step that trains a convolution before ``layers``."""

    def make() -> Callable[..., Any]:
        model = nn.Sequential(nn.Conv2d(2, 4, 3), *(each() for each in layers))
        optimizer = optim.SGD(model.parameters(), lr=0.01)

        def step(x: Any) -> Any:
            loss = model(x).square().mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            return loss

        return step

    return make


@pytest.mark.parametrize("act", ["relu", "sigmoid", "tanh"])
def test_fold_puts_activations_into_products(act: str) -> None:
    def make() -> Callable[..., Any]:
        w, b = tg.randn(5, 4, requires_grad=True), tg.randn(5, requires_grad=True)
        optimizer = optim.SGD([w, b], lr=0.01)

        def step(x: Any) -> Any:
            loss = getattr(F.linear(x, w, b), act)().square().sum()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            return loss

        return step

    before, folded = after(make, passes.fold, args=(tg.randn(6, 4),), near=False)
    assert kernels(before)[:2] == ["linear", act]
    assert act not in kernels(folded)
    assert len(kernels(folded)) == len(kernels(before)) - 1
    assert folded.instructions()[0].static["act"] == act
    assert f"linear + {act}" in str(folded)


@pytest.mark.parametrize("layers", ["pool", "act", "both"])
def test_fold_puts_pooling_into_convolutions(layers: str) -> None:
    def pool() -> nn.Module:
        return nn.MaxPool2d(2)

    chosen = {"pool": [pool], "act": [nn.Tanh], "both": [pool, nn.ReLU]}
    before, folded = after(convolutional(*chosen[layers]), passes.fold, args=images(), near=False)
    first = folded.instructions()[0]
    assert first.kernel == "conv2d"
    assert len(kernels(before)) - len(kernels(folded)) == len(chosen[layers])
    assert (first.static.get("pool") is None) == (layers == "act")
    assert first.static.get("act") == {"pool": None, "act": "tanh", "both": "relu"}[layers]


def test_fold_puts_relu_into_batch_norm() -> None:
    make = convolutional(lambda: nn.BatchNorm2d(4), nn.ReLU)
    before, folded = after(make, passes.fold, args=images(), near=False)
    assert "relu" in kernels(before)
    assert "relu" not in kernels(folded)
    assert any(i.static.get("act") == "relu" for i in folded.instructions())


def test_fold_leaves_what_others_read() -> None:
    def make() -> Callable[..., Any]:
        w = tg.randn(5, 4)

        def step(x: Any) -> Any:
            y, z = F.linear(x, w), F.linear(x, w) * 2
            return y.relu(), y, z.relu(), F.linear(x, w).exp()

        return step

    before, folded = exactly(make, passes.fold, args=(tg.randn(6, 4),))
    assert kernels(before) == kernels(folded)


# ---- all of them


def test_all_passes_together_and_in_any_order() -> None:
    def make() -> Callable[..., Any]:
        model = nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Dropout(0.3), nn.Linear(6, 3))
        optimizer = optim.Adam(model.parameters(), lr=0.05)

        def step(x: Any) -> Any:
            loss = F.cross_entropy(model(x), tg.arange(3))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            return loss

        return step

    x = tg.randn(3, 4)
    first, last = passes.PASSES[:-2], passes.PASSES[-2:]  # memory is shared when all else is done
    for chosen in ((*first, *last), (*first[::-1], *last), (*first, *first, *last)):
        before, fast = after(make, *chosen, args=(x,), near=True)
        assert len(kernels(fast)) < len(kernels(before))
        assert fast.nbytes() <= before.nbytes()
