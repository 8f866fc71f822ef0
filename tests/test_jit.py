"""How ``jit`` behaves: what it takes and gives, what it refuses, what may change between calls."""

from __future__ import annotations

import collections
import copy
import gc
import threading
import tracemalloc
import warnings
import weakref
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from typing import Any

import numpy as np
import pytest
from strict_backend import StrictBackend, transfers

import tinygrad_mnist as tg
from tinygrad_mnist import dispatch, nn, optim
from tinygrad_mnist.jit import program as programs
from tinygrad_mnist.nn import functional as F
from tinygrad_mnist.testing import assert_close

HERE = __file__


@pytest.fixture(params=["numpy", "numba"], autouse=True)
def backend(request: pytest.FixtureRequest) -> Iterator[str]:
    pytest.importorskip(request.param)
    with tg.use_backend(request.param):
        tg.manual_seed(0)
        yield request.param


class World:
    """A small network, its optimizer and its step, which counts how often Python runs it."""

    def __init__(self, make: Callable[..., optim.Optimizer] | None = None) -> None:
        tg.manual_seed(0)
        self.model = nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Dropout(0.2), nn.Linear(5, 3))
        self.optimizer = (make or optim.Adam)(self.model.parameters(), lr=0.05)
        self.x, self.y = tg.randn(6, 4), tg.tensor([0, 1, 2, 2, 1, 0])
        self.runs = 0

    def step(self, x: Any, y: Any) -> Any:
        self.runs += 1
        loss = F.cross_entropy(self.model(x), y)
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        return loss

    def state(self) -> list[Any]:
        """Weights, gradients and the optimizer's memory, as lists."""
        grads = [None if p.grad is None else p.grad.tolist() for p in self.model.parameters()]
        state = self.optimizer.state_dict()["state"].values()
        return [
            [p.tolist() for p in self.model.parameters()],
            grads,
            [[v.tolist() if isinstance(v, tg.Tensor) else v for v in s.values()] for s in state],
        ]


def both(make: Callable[..., optim.Optimizer] | None = None) -> tuple[World, World, Any]:
    """A world to be trained plainly, one to be trained by the jitted step, and that step."""
    plain, jitted = World(make), World(make)
    return plain, jitted, tg.jit(jitted.step, passes=())


def together(calls: int, plain: World, jitted: World, step: Any) -> None:
    """Both trained alike, and alike afterwards."""
    keys = tg.random.current()._keys
    expected = [plain.step(plain.x, plain.y).item() for _ in range(calls)]
    tg.random.current()._keys = keys
    assert [step(jitted.x, jitted.y).item() for _ in range(calls)] == expected
    assert plain.state() == jitted.state()


# ---- when Python runs


def test_python_runs_twice_for_each_kind_of_arguments() -> None:
    seen: list[tuple[int, ...]] = []

    @tg.jit
    def double(x: Any) -> Any:
        seen.append(tuple(x.shape))
        return x * 2

    for size in (3, 3, 3, 2, 3, 2, 2):
        assert double(tg.ones(size)).tolist() == [2.0] * size
    assert seen == [(3,), (3,), (2,), (2,)]
    assert len(double.programs) == 2
    assert repr(double) == "<jit double: 2 programs>"
    assert double.__name__ == "double"


def test_dtypes_strides_and_modes_have_programs_of_their_own() -> None:
    model = nn.Dropout(0.5)
    step = tg.jit(model)
    x = tg.ones(3, 3)
    for given in (x, x.double(), tg.ones(3, 3).T[::2].T):
        for _ in range(3):
            step(given)
    assert len(step.programs) == 3
    with tg.no_grad():
        for _ in range(3):
            step(x)
    assert len(step.programs) == 4
    model.eval()
    for _ in range(3):
        assert step(x).tolist() == x.tolist()
    model.train()
    assert any(0.0 in step(x).reshape(-1).tolist() for _ in range(3))


def test_clear_forgets_all_programs() -> None:
    world = World()
    step = tg.jit(world.step)
    for _ in range(3):
        step(world.x, world.y)
    assert world.runs == 2
    step.clear()
    assert step.programs == []
    with pytest.raises(RuntimeError, match="no program yet: its second call records one"):
        step.program  # noqa: B018
    step(world.x, world.y)
    assert world.runs == 3


def test_a_program_says_what_it_does() -> None:
    world = World()
    step = tg.jit(world.step)
    for _ in range(2):
        step(world.x, world.y)
    text = str(step.program)
    assert "linear" in text and "adam" in text
    assert "loss.backward()" in text and "test_jit.py:" in text
    assert "memory of its own:" in text


# ---- arguments


def test_numbers_that_change_are_bounded_and_told_of() -> None:
    step = tg.jit(lambda x, i: x * i)
    x = tg.ones(2)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for i in range(16):
            step(x, i)
    with pytest.warns(RuntimeWarning, match="more than 16 programs") as found:
        for i in range(16, 60):
            assert step(x, i).tolist() == [i, i]
    assert found[0].filename == HERE
    assert len(step._known) <= 16


def test_numbers_strings_none_and_tuples_select_the_program() -> None:
    Pair = collections.namedtuple("Pair", "left right")

    @tg.jit
    def step(pair: Any, how: str, extra: Any, *, scale: float = 1.0) -> Any:
        y = pair.left + pair.right if how == "add" else pair.left - pair.right
        return Pair(y * scale, extra)

    a, b = tg.tensor([5.0]), tg.tensor([2.0])
    for _ in range(3):
        assert step(Pair(a, b), "add", None).left.tolist() == [7]
        assert step(Pair(b, a), "sub", None).left.tolist() == [-3]
        found = step(Pair(a, b), "sub", True, scale=2.0)
        assert (type(found), found.left.tolist(), found.right) == (Pair, [6], True)
        assert step(Pair(a, a), "sub", (1, "x"), scale=-1.0).right == (1, "x")
    assert len(step.programs) == 4


def test_true_is_not_1() -> None:
    step = tg.jit(lambda x, flag: x + 1 if flag is True else x)
    x = tg.zeros(1)
    for _ in range(3):
        assert step(x, 1).tolist() == [0]
        assert step(x, True).tolist() == [1]
        assert step(x, 1.0).tolist() == [0]


def test_numpy_arrays_and_other_mutable_arguments_are_refused() -> None:
    step = tg.jit(lambda x, y: x)
    with pytest.raises(TypeError, match=r"got a ndarray as argument.*give tensors"):
        step(tg.ones(1), np.ones(3))
    with pytest.raises(TypeError, match="got a set as argument"):
        step(tg.ones(1), {1})


def test_results_of_ops_are_refused_where_gradients_are_on() -> None:
    step = tg.jit(lambda x: x * 2)
    w = tg.ones(2, requires_grad=True)
    step(tg.ones(2))
    with tg.no_grad():
        for _ in range(3):
            assert step(w * 3).tolist() == [6, 6]
    for _ in range(2):
        with pytest.raises(RuntimeError, match=r"got a tensor that <multiply> made.*detach"):
            step(w * 3)


@pytest.mark.parametrize("shape", [(), (0,), (1,), (0, 3), (2, 0, 3)])
def test_odd_shapes(shape: tuple[int, ...]) -> None:
    step = tg.jit(lambda x: ((x * 2).sum(), x + 1, x.reshape(-1)))
    for i in range(4):
        x = tg.full(shape, float(i))
        total, more, flat = step(x)
        assert total.item() == 2 * i * x.numel()
        assert more.tolist() == (x + 1).tolist()
        assert flat.shape == (x.numel(),)


def test_arrangements_of_memory() -> None:
    step = tg.jit(lambda x, y: (x @ y, x.T, y[1:], x.sum(1)))
    for i in range(4):
        x, y = tg.randn(4, 6).T, tg.randn(8, 5)[::2] + i
        expected = (x @ y, x.T, y[1:], x.sum(1))
        for a, b in zip(step(x, y), expected, strict=True):
            assert_close(a, b, rtol=1e-6, atol=1e-6)
    wide = tg.ones(1, 3).expand(4, 3)
    for _ in range(3):
        assert tg.jit(lambda x: x + x)(wide).tolist() == [[2.0] * 3] * 4


def test_leaves_as_arguments_have_gradients_of_their_own() -> None:
    a, b = tg.ones(2, requires_grad=True), tg.full((2,), 3.0, requires_grad=True)

    @tg.jit
    def step(x: Any) -> Any:
        x.grad = None
        loss = (x * x).sum()
        loss.backward()
        return loss

    for _ in range(4):
        step(a)
        step(b)
        assert (a.grad.tolist(), b.grad.tolist()) == ([2, 2], [6, 6])
    assert len(step.programs) <= 2


def test_gradients_of_arguments_add_up_as_in_a_plain_call() -> None:
    a = tg.ones(2, requires_grad=True)
    step = tg.jit(lambda x: (x * x).sum().backward())
    for i in range(6):
        step(a)
        assert a.grad.tolist() == [2 * (i + 1)] * 2


def test_a_leaf_given_twice_has_one_gradient() -> None:
    a, b = tg.ones(2, requires_grad=True), tg.full((2,), 3.0, requires_grad=True)

    @tg.jit
    def step(x: Any, y: Any) -> None:
        x.grad = y.grad = None
        (x * y).sum().backward()

    for _ in range(4):
        step(a, a)
        assert a.grad.tolist() == [2, 2]
        step(a, b)
        assert (a.grad.tolist(), b.grad.tolist()) == ([3, 3], [1, 1])


# ---- results


def test_results_are_copies_outside_the_graph() -> None:
    w = tg.ones(3, requires_grad=True)

    @tg.jit
    def step(x: Any) -> Any:
        return w, x, w[1:], x * w, (x.T, 5, None, "text")

    x = tg.ones(3)
    found = [step(x) for _ in range(4)]
    with tg.no_grad():
        w.fill_(7)
        x.fill_(8)
    for each in found:
        assert each[0].tolist() == each[1].tolist() == each[3].tolist() == [1, 1, 1]
        assert each[2].tolist() == [1, 1]
        assert each[4][1:] == (5, None, "text")
        assert not any(r.requires_grad for r in each[:4])
        assert type(each[0]) is tg.Tensor
    assert step(x)[3].tolist() == [56, 56, 56]


def test_backward_on_a_result_says_where_it_belongs() -> None:
    w = tg.ones(3, requires_grad=True)
    step = tg.jit(lambda: (w * 2).sum())
    for _ in range(3):
        with pytest.raises(RuntimeError, match="jit"):
            step().backward()


# ---- what is refused, at the first call already


def reads(x: Any) -> dict[str, Callable[[], Any]]:
    return {
        "item": lambda: x.sum().item(),
        "numpy": lambda: x.numpy(),
        "bool": lambda: bool(x.sum() > 0),
        "float": lambda: float(x.sum()),
        "int": lambda: int(x.sum()),
        "repr": lambda: repr(x),
        "print": lambda: print(x),
        "format": lambda: f"{x.sum():.2f}",
        "tolist": lambda: x.tolist(),
        "mask": lambda: x[x > 0],
        "nonzero": lambda: x.nonzero(),
        "array": lambda: np.asarray(x),
        "tensor": lambda: tg.tensor(np.ones(3)),
        "from_numpy": lambda: tg.from_numpy(np.ones(3)),
        "as_tensor": lambda: tg.as_tensor(np.ones(3, np.float32)),
        "operand": lambda: x[np.array([0, 1])],
        "randperm": lambda: tg.randperm(3),
        "index": lambda: [1, 2, 3][x.sum().long()],
        "iteration": lambda: [v.item() for v in x],
        "contains": lambda: 3.0 in x,
        "allclose": lambda: x.allclose(x),
        "equal": lambda: x.equal(x),
    }


@pytest.mark.parametrize("what", reads(None))
def test_what_reads_values_is_refused_at_once(what: str) -> None:
    step = tg.jit(lambda x: reads(x)[what]())
    for _ in range(2):
        with pytest.raises(RuntimeError, match=r"jit: <lambda> .* at .*test_jit\.py:\d+; "):
            step(tg.ones(3))
    assert step.programs == []


def test_other_backends_are_refused(backend: str) -> None:
    other = "numpy" if backend == "numba" else "numba"
    pytest.importorskip("numba")
    step = tg.jit(lambda x: x.to(other) + 1)
    with pytest.raises(RuntimeError, match=r"jit: <lambda> .*test_jit\.py:\d+"):
        step(tg.ones(3))
        step(tg.ones(3))


def test_what_a_replay_computes_otherwise_is_found() -> None:
    h = tg.zeros(3)

    @tg.jit
    def step(x: Any) -> Any:
        y = x + h
        h.array[...] += 1  # behind the engine's back
        return y

    step(tg.ones(3))
    with pytest.raises(RuntimeError, match=r"differs .*: add at test_jit\.py:.* gave 3.0, and 2.0"):
        step(tg.ones(3))


def test_what_a_step_reads_it_may_not_replace() -> None:
    """A replay would read the old one: a module's attribute, a buffer, an optimizer's state."""

    class Recurrent(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.h: Any = None

        def forward(self, x: Any) -> Any:
            h = tg.zeros(3) if self.h is None else self.h
            self.h = h * 0.5 + x
            return self.h

    class Momentum(optim.Optimizer):
        def __init__(self, params: Any) -> None:
            super().__init__(params, {"lr": 0.1})

        @tg.no_grad()
        def step(self, closure: Any = None) -> None:
            for p in self.param_groups[0]["params"]:
                state = self.state[p]
                state["m"] = state["m"] * 0.9 + p.grad if state else p.grad.clone()
                p -= 0.1 * state["m"]

    model, w = Recurrent(), tg.ones(3, requires_grad=True)
    optimizer = Momentum([w])

    def update(x: Any) -> None:
        optimizer.zero_grad()
        (w * x).sum().backward()
        optimizer.step()

    forward = tg.jit(lambda x: model(x))
    for step, whose in ((forward, "an attribute of Recurrent"), (tg.jit(update), "state of Mom")):
        with pytest.raises(RuntimeError, match=rf"{whose}.*test_jit\.py:\d+.*copy_\(\)"):
            for _ in range(4):
                step(tg.ones(3))


def test_what_a_step_only_leaves_behind_it_may_replace() -> None:
    class Seen(nn.Linear):
        def forward(self, x: Any) -> Any:
            self.last = super().forward(x)
            return self.last * 2

    model = Seen(3, 2)
    step = tg.jit(lambda x: model(x))
    for _ in range(5):
        x = tg.randn(4, 3)
        assert step(x).tolist() == (nn.Linear.forward(model, x) * 2).tolist()
    assert len(step.programs) == 1


def test_a_leaf_by_two_names_is_refused() -> None:
    w = tg.ones(3, requires_grad=True)

    @tg.jit
    def step(x: Any) -> None:
        (w * x * x).sum().backward()

    step(w)
    with pytest.raises(RuntimeError, match="a leaf that it also uses by another name"):
        step(w)


# ---- what may change between calls


@pytest.mark.parametrize("calls", [1, 2, 3, 5])
def test_load_state_dict_between_calls(calls: int) -> None:
    plain, jitted, step = both()
    fresh = copy.deepcopy((plain.model.state_dict(), plain.optimizer.state_dict()))
    together(calls, plain, jitted, step)
    for world in (plain, jitted):
        world.model.load_state_dict(fresh[0])
        world.optimizer.load_state_dict(fresh[1])
    together(4, plain, jitted, step)
    kept = copy.deepcopy((plain.model.state_dict(), plain.optimizer.state_dict()))
    together(3, plain, jitted, step)
    runs = jitted.runs
    for world in (plain, jitted):
        world.model.load_state_dict(kept[0])
        world.optimizer.load_state_dict(kept[1])
    together(3, plain, jitted, step)
    assert jitted.runs == runs, "a loaded state lies in the same arrays"


def test_state_loaded_before_the_first_call() -> None:
    trained = World()
    for _ in range(3):
        trained.step(trained.x, trained.y)
    state = trained.optimizer.state_dict()
    plain, jitted, step = both()
    for world in (plain, jitted):
        world.optimizer.load_state_dict(copy.deepcopy(state))
    together(5, plain, jitted, step)
    assert jitted.runs == 2


def test_groups_added_after_recording_are_an_error() -> None:
    world = World()
    step = tg.jit(world.step)
    for _ in range(3):
        step(world.x, world.y)
    world.optimizer.add_param_group({"params": [tg.zeros(2, requires_grad=True)]})
    with pytest.raises(
        RuntimeError, match=r"parameters of Adam are others.*test_jit\.py:\d+.*clear"
    ):
        step(world.x, world.y)
    step.clear()
    for _ in range(3):
        step(world.x, world.y)


def test_parameters_taken_from_an_optimizer_are_an_error() -> None:
    w, v = tg.ones(3, requires_grad=True), tg.ones(3, requires_grad=True)
    optimizer = optim.SGD([w, v], lr=0.1)

    @tg.jit
    def step(x: Any) -> None:
        optimizer.zero_grad()
        (w * x + v).sum().backward()
        optimizer.step()

    for _ in range(3):
        step(tg.ones(3))
    taken = optimizer.param_groups[0]["params"].pop()
    with pytest.raises(RuntimeError, match=r"parameters of SGD are others.*test_jit\.py:\d+"):
        step(tg.ones(3))
    optimizer.param_groups[0]["params"].append(taken)
    step(tg.ones(3))
    assert v.tolist() == pytest.approx([0.6] * 3)


def cleared(optimizer: Any) -> None:
    optimizer.state.clear()


def replaced(optimizer: Any) -> None:
    optimizer.state = collections.defaultdict(dict)


def one_popped(optimizer: Any) -> None:
    optimizer.state.pop(optimizer.param_groups[0]["params"][1])


def moments_replaced(optimizer: Any) -> None:
    for state in optimizer.state.values():
        for name, value in state.items():
            if isinstance(value, tg.Tensor):
                state[name] = tg.zeros(value.shape)


@pytest.mark.parametrize("make", [optim.Adam, partial(optim.SGD, momentum=0.9)])
@pytest.mark.parametrize("change", [cleared, replaced, one_popped, moments_replaced])
def test_an_optimizers_state_may_be_changed(change: Any, make: Any) -> None:
    plain, jitted, step = both(make)
    together(4, plain, jitted, step)
    for world in (plain, jitted):
        change(world.optimizer)
    together(4, plain, jitted, step)
    runs = jitted.runs
    together(3, plain, jitted, step)
    assert jitted.runs == runs


class Parts(nn.Module):
    """Uses modules and attributes without calling them."""

    def __init__(self) -> None:
        super().__init__()
        self.steps = nn.ModuleList([nn.Linear(3, 3)])
        self.tied = nn.Linear(3, 3)
        self.act = F.relu
        self.scale = [2.0]
        self.options = {"slopes": (0.5, [3.0])}
        self.masks = [tg.tensor([1.0, 0.0, 1.0])]

    def forward(self, x: Any) -> Any:
        for each in self.steps:
            x = each(x)
        x = F.linear(x, self.tied.weight) * self.options["slopes"][1][0]
        x = F.dropout(x, 0.5, training=self.tied.training)
        return self.act(x) * self.scale[0] * self.masks[0]


def changes_of_parts() -> dict[str, Callable[[Any], Any]]:
    def set_item(model: Any) -> None:
        model.steps[0] = nn.Linear(3, 3)

    def set_inside(model: Any) -> None:
        model.options["slopes"][1][0] = 7.0
        model.eval()

    return {
        "an item": set_item,
        "one more": lambda model: model.steps.append(nn.Linear(3, 3)),
        "a tied weight": lambda m: setattr(m.tied, "weight", nn.Parameter(tg.ones(3, 3))),
        "a mode": lambda model: model.tied.eval(),
        "a function": lambda model: setattr(model, "act", F.softplus),
        "a list": lambda model: setattr(model, "scale", [5.0]),
        "a dict": lambda model: setattr(model, "options", {"slopes": (0.5, [4.0])}),
        "a tensor in a list": lambda m: setattr(m, "masks", [tg.ones(3)]),
        "deep inside, with a mode": set_inside,
    }


@pytest.mark.parametrize("what", [*changes_of_parts()])
@pytest.mark.parametrize("wrapped", [False, True])
def test_changes_of_what_a_module_uses_are_seen(what: str, wrapped: bool) -> None:
    parts = Parts()
    model = nn.Sequential(parts, nn.Tanh()) if wrapped else parts
    step = tg.jit(lambda x: model(x))
    x = tg.randn(4, 3)
    for _ in range(4):
        step(x)
    changes_of_parts()[what](parts)
    for _ in range(3):
        tg.manual_seed(1)
        jitted = step(x)
        tg.manual_seed(1)
        assert_close(jitted, model(x))
    assert len(step.programs) == 2


def test_what_a_step_does_not_use_may_change() -> None:
    model = Parts()
    step = tg.jit(lambda x: model(x))
    for _ in range(3):
        step(tg.ones(2, 3))
    model.train()
    model.scale = model.scale
    model.options = model.options
    step(tg.ones(2, 3))
    assert len(step.programs) == 1, "all is as it was"


def test_modules_that_no_tree_holds_are_watched() -> None:
    class Hiding(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.hidden = [nn.Linear(2, 2)]

        def forward(self, x: Any) -> Any:
            return self.hidden[0](x)

    model = Hiding()
    step = tg.jit(lambda x: model(x))
    for _ in range(3):
        step(tg.ones(1, 2))
    model.hidden[0].weight = nn.Parameter(tg.zeros(2, 2))
    assert_close(step(tg.ones(1, 2)), model(tg.ones(1, 2)))


def test_a_mode_that_is_read_is_watched() -> None:
    """Of a module that is not called inside of the step."""

    class Own(nn.Linear):
        @tg.jit
        def forward(self, x: Any) -> Any:
            return F.dropout(super().forward(x), 0.5, training=self.training)

    model = nn.Sequential(nn.Linear(2, 2))
    step = tg.jit(lambda x: x * 2 if model.training else x)
    own, x = Own(2, 50), tg.ones(1, 2)
    for _ in range(4):
        step(x)
        own(x)
    model.eval()
    own.eval()
    assert step(x).tolist() == x.tolist()
    assert_close(own(x), F.linear(x, own.weight, own.bias))
    model.train()
    assert step(x).tolist() == (x * 2).tolist()
    assert len(step.programs) == 2


def test_a_jitted_forward_sees_its_layers_in_a_profile() -> None:
    class Fast(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(2, 2)

        @tg.jit
        def forward(self, x: Any) -> Any:
            return self.layer(x)

    model = Fast()
    with dispatch.observe(dispatch.Observer()):
        for _ in range(3):
            model(tg.ones(1, 2))
    model.layer.weight = nn.Parameter(tg.zeros(2, 2))
    assert_close(model(tg.ones(1, 2)), model.layer(tg.ones(1, 2)))


def test_another_backend_after_recording_is_an_error(backend: str) -> None:
    pytest.importorskip("numba")
    world = World()
    step = tg.jit(world.step)
    for _ in range(3):
        step(world.x, world.y)
    with (
        tg.use_backend("numpy" if backend == "numba" else "numba"),
        pytest.raises(RuntimeError, match=r"backend is another.*test_jit\.py:\d+"),
    ):
        step(world.x, world.y)
    step(world.x, world.y)


def test_a_model_of_another_dtype_is_recorded_anew() -> None:
    plain, jitted, step = both()
    together(3, plain, jitted, step)
    for world in (plain, jitted):
        world.model.to("float64")
        world.x = world.x.double()
    together(4, plain, jitted, step)
    assert jitted.model[0].weight.dtype == tg.float64


def test_a_moved_model_and_the_old_arguments() -> None:
    world = World()
    step = tg.jit(world.step)
    for _ in range(3):
        step(world.x, world.y)
    world.model.double()
    with pytest.raises(TypeError, match="float64"):
        step(world.x, world.y)


def test_a_model_copied_between_steps() -> None:
    plain, jitted, step = both()
    together(3, plain, jitted, step)
    kept = copy.deepcopy(jitted.model)
    before = [p.tolist() for p in kept.parameters()]
    together(3, plain, jitted, step)
    assert [p.tolist() for p in kept.parameters()] == before != jitted.state()[0]
    assert jitted.runs == 2


def test_gradients_held_between_steps_are_valid_until_the_next() -> None:
    world = World()
    step = tg.jit(world.step)
    for _ in range(3):
        step(world.x, world.y)
    p = world.model[0].weight
    held, copied = p.grad, p.grad.clone()
    assert held.tolist() == copied.tolist()
    version = held.version[0]
    step(world.x, world.y)
    assert held.version[0] > version
    w = tg.ones(*p.shape, requires_grad=True)
    y = (w * p.grad).sum()
    step(world.x, world.y)
    with pytest.raises(RuntimeError, match=r"in place"):
        y.backward()


def test_a_graph_over_weights_does_not_outlive_a_step() -> None:
    world = World()
    step = tg.jit(world.step)
    for i in range(4):
        w = world.model[0].weight
        y = (w * w).sum()
        step(world.x, world.y)
        with pytest.raises(RuntimeError, match="in place"):
            y.backward()
        assert world.runs == min(i + 1, 2)


def test_names_rebound_in_a_closure_are_not_seen() -> None:
    """As the docstring says: what is assigned in Python is built in."""
    scale = 2.0
    step = tg.jit(lambda x: x * scale)
    for _ in range(3):
        step(tg.ones(1))
    scale = 5.0
    assert step(tg.ones(1)).tolist() == [2]


def test_gradients_from_outside_are_seen() -> None:
    """A jitted update alone, with backward outside: its gradients are others at each call."""
    plain, jitted = World(), World()
    update = tg.jit(lambda: jitted.optimizer.step(), passes=())
    for world, step in ((plain, plain.optimizer.step), (jitted, update)):
        tg.manual_seed(1)
        for _ in range(6):
            world.optimizer.zero_grad()
            F.cross_entropy(world.model(world.x), world.y).backward()
            step()
    assert plain.state() == jitted.state()


def test_updates_by_hand_with_gradients_from_outside() -> None:
    found = []
    for jit in (lambda f: f, tg.jit):
        w = tg.ones(3, requires_grad=True)

        @tg.no_grad()
        def update() -> None:
            w.sub_(0.1 * w.grad)  # noqa: B023

        step = jit(update)
        for i in range(6):
            w.grad = None
            (w * w * (i + 1)).sum().backward()
            step()
        found.append(w.tolist())
    assert found[0] == found[1]


def test_the_gradients_of_the_last_call() -> None:
    """An update with what the call before has left."""
    plain, jitted = World(), World()

    def late(world: World) -> Any:
        def step(x: Any, y: Any) -> Any:
            world.optimizer.step()
            world.optimizer.zero_grad()
            loss = F.cross_entropy(world.model(x), y)
            loss.backward()
            return loss

        return step

    for world, step in ((plain, late(plain)), (jitted, tg.jit(late(jitted), passes=()))):
        tg.manual_seed(1)
        for _ in range(6):
            step(world.x, world.y)
    assert plain.state() == jitted.state()


# ---- where it stands


def test_methods() -> None:
    class Trainer:
        def __init__(self, factor: float) -> None:
            self.factor = factor
            self.total = tg.zeros(2)

        @tg.jit
        def step(self, x: Any) -> Any:
            self.total.add_(x * self.factor)
            return self.total

    a, b = Trainer(2.0), Trainer(3.0)
    for i in range(1, 5):
        assert a.step(tg.ones(2)).tolist() == [2 * i] * 2
        assert b.step(tg.ones(2)).tolist() == [3 * i] * 2
    assert Trainer.step(a, tg.ones(2)).tolist() == [10, 10]


def test_nested_jit_is_a_part_of_the_outer_one() -> None:
    runs: list[str] = []

    @tg.jit
    def inner(x: Any) -> Any:
        runs.append("inner")
        return x * x

    w = tg.full((2,), 3.0, requires_grad=True)

    @tg.jit
    def outer(x: Any) -> Any:
        runs.append("outer")
        w.grad = None
        y = (inner(w) * x).sum()
        y.backward()
        return y

    for i in range(4):
        assert outer(tg.full((2,), float(i))).item() == 18 * i
        assert w.grad.tolist() == [6 * i] * 2
    assert runs == ["outer", "inner"] * 2
    assert inner.programs == []


def test_recursion_is_inlined() -> None:
    @tg.jit
    def power(x: Any, n: int) -> Any:
        return x if n == 1 else x * power(x, n - 1)

    for _ in range(4):
        assert power(tg.tensor([2.0]), 5).tolist() == [32]


@pytest.mark.parametrize("bad", [0, 1, 2, 3])
def test_errors_leave_everything_as_it_was(bad: int) -> None:
    plain, jitted, step = both()
    schedules = [optim.lr_scheduler.StepLR(w.optimizer, 2, 0.5) for w in (plain, jitted)]
    plain_step = plain.step

    def scheduled(x: Any, y: Any) -> Any:
        loss = jitted.step(x, y)
        schedules[1].step()
        return loss

    def both_plain(x: Any, y: Any) -> Any:
        loss = plain_step(x, y)
        schedules[0].step()
        return loss

    plain.step = both_plain  # type: ignore[method-assign]
    step = tg.jit(scheduled, passes=())
    together(bad, plain, jitted, step)
    before = jitted.state()
    wrong = tg.tensor([0, 1, 2, 7, 1, 0])
    with pytest.raises(IndexError, match="7"):
        step(jitted.x, wrong)
    after = jitted.state()
    assert (after[0], after[2]) == (before[0], before[2])
    assert schedules[1].last_epoch == bad
    tg.manual_seed(9)
    together(4, plain, jitted, step)
    assert schedules[1].last_epoch == schedules[0].last_epoch
    assert [g["lr"] for g in jitted.optimizer.param_groups] == [
        g["lr"] for g in plain.optimizer.param_groups
    ]


def test_the_error_of_a_replay_names_the_line() -> None:
    world = World()
    step = tg.jit(world.step)
    for _ in range(3):
        step(world.x, world.y)
    with pytest.raises(IndexError) as found:
        step(world.x, tg.tensor([0, 1, 2, 7, 1, 0]))
    assert any("test_jit.py" in note for note in getattr(found.value, "__notes__", []))


# ---- threads


def test_threads_call_one_function() -> None:
    total = tg.zeros(1)

    @tg.jit
    def step(x: Any) -> Any:
        total.add_(x)
        return x * 2

    failed: list[Any] = []

    def work(i: int) -> None:
        for _ in range(50):
            if step(tg.full((1,), float(i))).item() != 2 * i:
                failed.append(i)

    run_all([lambda i=i: work(i) for i in range(4)])
    assert failed == []
    assert total.item() == 50 * (0 + 1 + 2 + 3)


def test_threads_share_a_model_under_the_users_lock() -> None:
    world, lock = World(), threading.Lock()
    steps = [tg.jit(world.step) for _ in range(2)]
    losses: list[float] = []

    def work(step: Any) -> None:
        for _ in range(30):
            with lock:
                losses.append(step(world.x, world.y).item())

    run_all([lambda s=s: work(s) for s in steps])
    assert len(losses) == 60
    assert np.mean(losses[-5:]) < np.mean(losses[:5]) / 2


def run_all(work: list[Callable[[], None]]) -> None:
    """Each in a thread of its own, on this one's backend; the first error is raised here."""
    name = tg.ones(1).backend.name

    def run(fn: Callable[[], None]) -> None:
        with tg.use_backend(name):
            fn()

    with ThreadPoolExecutor(len(work)) as pool:
        list(pool.map(run, work))


# ---- memory


@contextmanager
def no_collector() -> Iterator[None]:
    """What dies in here died by reference counting: nothing was in a cycle."""
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


def test_nothing_survives_del() -> None:
    with no_collector():
        world = World()
        step = tg.jit(world.step)
        for _ in range(4):
            loss = step(world.x, world.y)
        watched = [weakref.ref(x) for x in (loss, world.model, *world.model.parameters(), step)]
        watched += [weakref.ref(step.program)]
        del world, step, loss
        assert [ref() for ref in watched] == [None] * len(watched)
        assert [x for x in gc.get_objects() if type(x) is programs.Program] == []


def test_the_graph_of_the_recorded_call_is_let_go() -> None:
    with no_collector():
        x = tg.ones(3, requires_grad=True)
        step = tg.jit(lambda w: w.exp().tanh())
        kept = [step(x) for _ in range(3)]
        assert not any(issubclass(type(o), tg.autograd.Node) for o in gc.get_objects())
        del kept


def test_replays_allocate_next_to_nothing(backend: str) -> None:
    """What 200 replays leave, results let go, and the most that one has at a time.

    Of the latter most is the frames and arguments of one kernel's call, and NumPy's temporaries.
    """
    world = World()
    step = tg.jit(world.step)
    for _ in range(5):
        step(world.x, world.y)
    gc.collect()
    tracemalloc.start()
    try:
        for _ in range(3):
            step(world.x, world.y)
        tracemalloc.reset_peak()
        before, _ = tracemalloc.get_traced_memory()
        step(world.x, world.y)
        peak = tracemalloc.get_traced_memory()[1] - before
        gc.collect()  # Python's stock of freed tuples goes
        before, _ = tracemalloc.get_traced_memory()
        for _ in range(200):
            step(world.x, world.y)
        gc.collect()
        grown = tracemalloc.get_traced_memory()[0] - before
    finally:
        tracemalloc.stop()
    assert grown < 3_000  # an object a step would be at least 3,200
    assert peak < {"numpy": 8_000, "numba": 4_000}[backend]


def test_a_full_batch_takes_no_more_memory() -> None:
    rows = 6_000
    x, y = tg.rand(rows, 784), tg.randint(0, 10, (rows,))
    model = nn.Sequential(nn.Linear(784, 100), nn.Sigmoid(), nn.Linear(100, 10))
    optimizer = optim.SGD(model.parameters(), lr=0.1)

    def step(x: Any, y: Any) -> Any:
        loss = F.cross_entropy(model(x), y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        return loss

    def peak(step: Any, warm: int) -> int:
        tracemalloc.start()
        try:
            for _ in range(warm):
                step(x, y)
            gc.collect()
            tracemalloc.reset_peak()
            step(x, y)
            return tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()

    plain = peak(step, 3)
    for p in model.parameters():
        p.grad = None
    assert peak(tg.jit(step), 3) <= plain


# ---- a device


def test_no_transfers_in_a_step(strict: StrictBackend) -> None:
    with tg.use_backend(strict):
        world = World()
        step = tg.jit(world.step)
        for _ in range(2):  # the check of the second call compares on the host
            step(world.x, world.y)
        with transfers(strict) as moved:
            losses = [step(world.x, world.y) for _ in range(10)]
        assert moved == []
        assert losses[-1].item() < losses[0].item()
        unchecked = tg.jit(world.step, check=False)
        with transfers(strict) as moved:
            for _ in range(3):
                unchecked(world.x, world.y)
        assert moved == []
