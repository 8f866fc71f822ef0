"""Recorded steps as CUDA graphs, on the stand-in for a card, ``cuda_on_cpu``."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import cuda_on_cpu
import numpy as np
import pytest

import tinygrad_mnist as tg
import tinygrad_mnist.nn.functional as F
from tinygrad_mnist import nn, optim
from tinygrad_mnist.kernels import Backend

Run = Callable[..., Any]


@pytest.fixture
def gpu() -> Iterator[Backend]:
    found = cuda_on_cpu.load()
    if isinstance(found, str):
        pytest.skip(found)
    with tg.use_backend(found):
        yield found


def batch(seed: int, rows: int = 8) -> tuple[tg.Tensor, tg.Tensor]:
    draw = np.random.default_rng(seed)
    x = draw.standard_normal((rows, 6)).astype(np.float32)
    return tg.tensor(x), tg.tensor(draw.integers(0, 4, rows))


class Task:
    """A small network in training, with random numbers and a learning rate that moves."""

    def __init__(self) -> None:
        tg.manual_seed(3)
        self.model = nn.Sequential(
            nn.Linear(6, 5), nn.ReLU(), nn.Dropout(0.4), nn.BatchNorm1d(5), nn.Linear(5, 4)
        )
        self.optimizer = optim.Adam(self.model.parameters(), lr=0.05)
        self.schedule = optim.lr_scheduler.OneCycleLR(self.optimizer, 0.1, 40)

    def step(self, x: tg.Tensor, y: tg.Tensor) -> tg.Tensor:
        loss = F.cross_entropy(self.model(x), y)
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        self.schedule.step()
        return loss.detach()

    def state(self) -> list[np.ndarray]:
        tensors = [*self.model.state_dict().values()]
        moments = [v for s in self.optimizer.state.values() for v in s.values()]
        tensors += [v for v in moments if isinstance(v, tg.Tensor)]
        return [x.cpu().numpy() for x in tensors]


def trained(record: Callable[[Run], Run], batches: list[Any]) -> tuple[list[np.ndarray], Run]:
    """The losses and the state after a step on each of ``batches``, and the step."""
    task = Task()
    step = record(task.step)
    losses = [step(x, y) for x, y in batches]
    return [np.array([loss.item() for loss in losses]), *task.state()], step


def same(found: list[np.ndarray], expected: list[np.ndarray]) -> None:
    for a, b in zip(found, expected, strict=True):
        assert a.dtype == b.dtype
        assert a.tobytes() == b.tobytes()


def exact(function: Run) -> Run:
    return tg.jit(passes=())(function)


def test_a_step_becomes_one_graph_with_the_same_bits(gpu: Backend) -> None:
    batches = [batch(0)] * 9
    found, step = trained(tg.jit, batches)
    same(found, trained(exact, batches)[0])
    last = str(step.program).splitlines()[-1]
    kernels = len(step.program.instructions())
    assert last == f"a CUDA graph of {kernels} kernels"
    assert "calls from Python: 1;" in str(step.program)


def test_a_graph_reads_its_arguments_wherever_they_lie(gpu: Backend) -> None:
    """At the capture's place, elsewhere, there again, and written over in between."""
    kept = [batch(seed) for seed in range(4)]
    order = [0, 0, 0, 0, 1, 0, 2, 1, 0, 3, 3, 0]
    found, _ = trained(tg.jit, [kept[i] for i in order])
    same(found, trained(exact, [kept[i] for i in order])[0])

    x, y = batch(7)
    task, other = Task(), Task()
    recorded, plain = tg.jit(task.step), exact(other.step)
    for i in range(8):
        x.copy_(batch(i)[0])
        tg.manual_seed(i)
        loss = recorded(x, y).item()
        tg.manual_seed(i)
        assert loss == plain(x, y).item()


def test_numbers_of_the_host_are_new_at_each_launch(gpu: Backend) -> None:
    """Dropout's stream, the schedule's rate and Adam's corrections, as on NumPy."""
    batches = [batch(0)] * 12
    found, _ = trained(tg.jit, batches)
    with tg.use_backend("numpy"):
        expected, _ = trained(lambda function: function, [batch(0)] * 12)
    for a, b in zip(found, expected, strict=True):
        np.testing.assert_allclose(a, b, 2e-4, 1e-5)


def test_nothing_crosses_in_a_step(gpu: Backend) -> None:
    task = Task()
    x, y = batch(0)
    with cuda_on_cpu.transfers() as crossed:
        task.step(x, y)
        task.step(x, y)
    assert crossed == []
    recorded = tg.jit(task.step)
    for _ in range(4):  # plain, recorded and compared, and run until there is a graph
        recorded(x, y)
    recorded(x, y)
    with cuda_on_cpu.transfers() as crossed:
        for _ in range(3):
            loss = recorded(x, y)
    assert crossed == []
    with cuda_on_cpu.transfers() as crossed:
        loss.item()
    assert len(crossed) == 1


def test_what_cannot_be_captured_runs_between_graphs(
    gpu: Backend, capsys: pytest.CaptureFixture[str]
) -> None:
    """Products of integers are CuPy's own, which refuses a stream that captures."""
    a = tg.tensor(np.arange(6).reshape(2, 3))

    def function(x: tg.Tensor) -> tg.Tensor:
        return ((x * 2).long() @ a.T).float().exp() - x.sum()

    recorded = tg.jit(function)
    for seed in range(6):
        x = tg.tensor(np.random.default_rng(seed).standard_normal((4, 3)).astype(np.float32) / 9)
        np.testing.assert_array_equal(recorded(x).cpu().numpy(), function(x).cpu().numpy())
    said = capsys.readouterr().err.splitlines()
    assert len(said) == 1
    assert said[0].startswith("tinygrad_mnist: matmul runs outside of CUDA graphs: ")
    (run,) = recorded.program.runs()
    graph, alone, other = run.parts()
    assert (graph.about, other.about) == ("a CUDA graph of 2 kernels", "a CUDA graph of 4 kernels")
    assert not hasattr(alone, "about")
    about = str(recorded.program).splitlines()[-1]
    assert "a CUDA graph of 2 kernels; a CUDA graph of" in about
    assert "matmul by itself (" in about


def test_a_kernel_that_breaks_the_capture_runs_by_itself(
    gpu: Backend, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    exp = type(gpu).exp

    def waits(self: Backend, x: Any, *, out: Any = None) -> Any:
        self.xp.cuda.get_current_stream().synchronize()
        return exp(self, x, out=out)

    monkeypatch.setattr(type(gpu), "exp", waits)
    recorded = tg.jit(lambda x: (x * 2).exp() - 1)
    for seed in range(6):
        x = tg.tensor(np.random.default_rng(seed).standard_normal((4, 3)))
        expected = np.exp(x.cpu().numpy() * 2) - 1
        np.testing.assert_allclose(recorded(x).cpu().numpy(), expected, rtol=1e-12)
    assert "tinygrad_mnist: exp runs outside of CUDA graphs: " in capsys.readouterr().err
    (run,) = recorded.program.runs()
    assert len(run.parts()) == 3


def test_what_cupy_does_otherwise_is_in_the_graph(gpu: Backend) -> None:
    """The minimum into memory that is there, and more than 8 arrays put together."""
    recorded = tg.jit(lambda x: tg.cat([x * i for i in range(12)], 1).min(1)[0].sum())
    for seed in range(6):
        x = tg.tensor(np.random.default_rng(seed).standard_normal((4, 3)).astype(np.float32))
        expected = np.concatenate([x.cpu().numpy() * i for i in range(12)], 1).min(1).sum()
        np.testing.assert_allclose(recorded(x).cpu().numpy(), expected, rtol=1e-6)
    with cuda_on_cpu.transfers() as crossed:
        recorded(x)
    assert (list(crossed), crossed.launches.count("graph")) == ([], 1)


def test_two_programs_do_not_share_memory(gpu: Backend) -> None:
    """Graphs go on writing to their memory, whatever else is made and freed between them."""
    x, y = batch(0)

    def run(record: Callable[[Run], Run]) -> list[np.ndarray]:
        first, second = Task(), Task()
        one, two = record(first.step), record(second.step)
        losses = []
        for _ in range(9):
            a, b = one(x, y), two(x, y)
            for size in (8, 40, 48, 64, 256, 1000):  # what a pool in common would hand out
                tg.full((size,), 77.0).exp()
            losses += [a, b]
        return [np.array([loss.item() for loss in losses]), *first.state(), *second.state()]

    same(run(tg.jit), run(exact))


def test_an_argument_that_a_step_writes_is_written_where_it_lies(gpu: Backend) -> None:
    def function(x: tg.Tensor) -> tg.Tensor:
        y = x * 2
        with tg.no_grad():
            x += y
        return (x * y).sum()

    recorded = tg.jit(function)
    for seed in range(7):
        x = tg.tensor(np.random.default_rng(seed).standard_normal(5).astype(np.float32))
        z = x.clone()
        assert recorded(x).item() == function(z).item()
        assert x.tolist() == z.tolist()


def test_a_wrong_label_in_a_graph_is_an_error_at_the_next_read(gpu: Backend) -> None:
    task = Task()
    recorded = tg.jit(task.step)
    x, y = batch(0)
    for _ in range(6):
        recorded(x, y)
    loss = recorded(x, tg.tensor(np.full(8, 4)))
    with pytest.raises(IndexError, match="found index 4, expected 0 to 3"):
        loss.item()
    recorded(x, y).item()


def test_a_graph_on_another_stream_comes_in_order(gpu: Backend) -> None:
    stream = type(gpu).xp.cuda.Stream(non_blocking=True)
    batches = [batch(0)] * 9
    with stream:
        found, _ = trained(tg.jit, batches)
    same(found, trained(exact, batches)[0])


def test_many_numbers_are_carried_in_several_launches(gpu: Backend) -> None:
    def function(x: tg.Tensor) -> tg.Tensor:
        for _ in range(67):
            x = F.dropout(x, 0.1)
        return x

    x = tg.ones(300)
    recorded = tg.jit(function)
    for seed in range(6):
        tg.manual_seed(seed)
        found = recorded(x).cpu().numpy()
        tg.manual_seed(seed)
        np.testing.assert_array_equal(found, function(x).cpu().numpy())
