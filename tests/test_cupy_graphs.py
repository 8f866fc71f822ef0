"""Recorded steps as CUDA graphs, on the stand-in for a card, ``cuda_on_cpu``."""

from __future__ import annotations

import gc
import threading
from collections.abc import Callable, Iterator
from typing import Any

import cuda_on_cpu
import numpy as np
import pytest
from cuda_on_cpu import cublas

import tinygrad_mnist as tg
import tinygrad_mnist.nn.functional as F
from tinygrad_mnist import config, nn, optim
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
            x.copy_(x.exp())  # in place by its kernel's nature, where += has an out
        return (x * y).sum()

    recorded = tg.jit(function)
    kept = []  # so that each lies elsewhere
    for seed in range(7):
        x = tg.tensor(np.random.default_rng(seed).standard_normal(5).astype(np.float32))
        z = x.clone()
        kept += [x, z]
        assert recorded(x).item() == function(z).item()
        assert x.tolist() == z.tolist()


def test_a_wrong_label_in_a_graph_is_an_error_at_the_next_read(gpu: Backend) -> None:
    task = Task()
    recorded = tg.jit(task.step)
    x, y = batch(0)
    for _ in range(6):
        recorded(x, y)
    loss = recorded(x, tg.tensor(np.full(8, 4)))
    for _ in range(2):  # each time anew, and once
        with pytest.raises(IndexError, match="found index 4, expected 0 to 3"):
            loss.item()
        recorded(x, y).item()
        loss = recorded(x, tg.tensor(np.full(8, 4)))
    with pytest.raises(IndexError, match="found index 4"):
        loss.item()


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


def test_an_argument_that_the_step_writes_by_another_name(gpu: Backend) -> None:
    """A copy made before the graph would hold what was there before the step."""

    def run(record: Callable[[Run], Run]) -> list[float]:
        kept = tg.ones(4)
        leaf = tg.ones(4, requires_grad=True)

        def function(x: tg.Tensor, state: tg.Tensor, grad: tg.Tensor) -> tg.Tensor:
            with tg.no_grad():
                kept.add_(x)
            loss = (leaf * x).sum()
            leaf.grad = None
            loss.backward()
            assert leaf.grad is not None
            return state * 2 + grad * 3 + leaf.grad

        step = record(function)
        found = []
        for i in range(12):
            x = tg.full((4,), float(i))
            grad = leaf.grad.detach() if leaf.grad is not None else tg.zeros(4)
            found.append(step(x, kept.detach(), tg.zeros(4)).tolist())
            found.append(step(x, kept.detach(), grad).tolist())
        return found

    assert run(tg.jit) == run(exact)


def test_a_graph_outlives_the_thread_that_captured_it(gpu: Backend) -> None:
    """A workspace of cuBLAS is the thread's, and the graph goes on using it."""
    weight, x = tg.randn(6, 6), tg.randn(4, 6)
    recorded = tg.jit(lambda x: (x @ weight).exp())

    def serve() -> None:
        with tg.use_backend(gpu):
            for _ in range(6):
                recorded(x)

    thread = threading.Thread(target=serve)
    thread.start()
    thread.join()
    gc.collect()
    assert "a CUDA graph" in str(recorded.program)
    np.testing.assert_array_equal(recorded(x).numpy(), (x @ weight).exp().numpy())


def test_what_a_graph_takes_for_itself_is_nobody_elses(gpu: Backend) -> None:
    """A long sum has memory for the sums of its parts, which goes back to the graph's own pool."""
    x = tg.randn(300_000)
    recorded = tg.jit(lambda x: (x * x).sum())
    expected = (x * x).sum().item()
    for _ in range(8):
        held = [tg.full((size,), 77.0) for size in (64, 128, 256, 512, 1024, 2048, 4096)]
        assert recorded(x).item() == expected
        assert all(each.min().item() == 77 for each in held)


def test_a_step_is_recorded_on_the_second_device(gpu: Backend) -> None:
    """With several devices each has a backend; its graphs tell what they are all the same."""
    for device in (0, 1):
        kind = type(gpu).at(device)
        assert not isinstance(kind, str)
        with tg.use_backend(kind()):
            batches = [batch(0)] * 7
            found, step = trained(tg.jit, batches)
            same(found, trained(exact, batches)[0])
        assert str(step.program).splitlines()[-1].startswith("a CUDA graph of ")


def test_each_thread_has_a_handle_that_goes_with_it(gpu: Backend) -> None:
    gemm = cuda_on_cpu.module("cupy_kernels.gemm")
    seen: list[int] = []

    def multiply() -> None:
        with tg.use_backend(gpu):
            assert (tg.ones(2, 3) @ tg.ones(3, 2)).tolist() == [[3, 3], [3, 3]]
            seen.append(gemm._handle().pointer)

    for _ in range(3):
        thread = threading.Thread(target=multiply)
        thread.start()
        thread.join()
    multiply()
    assert not set(seen[:3]) - {seen[3]} & cublas.handles
    assert seen[3] in cublas.handles


@pytest.mark.parametrize(("value", "mode"), [("0", 0), ("1", 3)])
def test_tf32_is_a_mode_of_the_handle(
    value: str, mode: int, gpu: Backend, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(config.TF32, value)
    handle = cuda_on_cpu.module("cupy_kernels.gemm")._Handle()
    assert cublas.Handle.from_address(handle.pointer).math_mode == mode


def test_what_cublas_refuses_is_an_error(gpu: Backend) -> None:
    gemm = cuda_on_cpu.module("cupy_kernels.gemm")
    with pytest.raises(RuntimeError, match=r"^cublasGemm: cuBLAS says invalid value \(7\)$"):
        gemm._check("cublasGemm", 7)
    x = tg.ones(2, 3)
    gemm._handle()._stream = None  # and another stream's workspace is set again
    assert (x @ x.T).tolist() == [[3, 3], [3, 3]]


def test_an_anomaly_on_the_second_device(gpu: Backend) -> None:
    kind = type(gpu).at(1)
    assert not isinstance(kind, str)
    x = tg.tensor(np.array([1.0, 0.0]), backend=kind())
    with tg.autograd.detect_anomaly(), pytest.raises(FloatingPointError, match="log"):
        x.log()
