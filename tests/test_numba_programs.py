"""Steps as native programs: the same results as the kernels one by one, in the same order."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("numba")

import numba
from test_numba_kernels import (
    CASES,
    DTYPES,
    NUMBA,
    PLAIN,
    as_tuple,
    assert_close,
    assert_same,
    cases_of,
    copied,
    filled,
    program,
    run,
)

import tinygrad_mnist as tg
from tinygrad_mnist import dispatch, nn, optim
from tinygrad_mnist.backends.numba_kernels import native, planning, programs, threads
from tinygrad_mnist.contract import spec
from tinygrad_mnist.kernels import Conv, Pool, Step

Case = tuple[tuple[Any, ...], dict[str, Any]]
FLOAT32 = np.dtype(np.float32)
# Their programs add in another order, or on another BLAS than the calls of small arrays.
ROUNDED = {"sum", "matmul", "linear", "linear_dw", "conv2d", "conv2d_dx", "conv2d_dw", "lerp_"}
ROUNDED |= {"softmax", "softmax_grad", "log_softmax", "log_softmax_grad", "cross_entropy_grad"}
ROUNDED |= {"max_pool2d_grad"}  # of images with padding, by the default
COVERED = [name for name in CASES if name != "take_grad"]
UPDATES = [name for name in COVERED if spec(name).kind == "inplace"]

needs_numba = pytest.mark.skipif(bool(numba.config.DISABLE_JIT), reason="NUMBA_DISABLE_JIT is set")
pytestmark = needs_numba


@pytest.fixture(params=(1, 3), ids=lambda count: f"{count} parts")
def parts(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> int:
    """In how many parts everything is divided, however few threads there are."""
    divide(monkeypatch, request.param)
    return int(request.param)


def divide(monkeypatch: pytest.MonkeyPatch, count: int) -> None:
    monkeypatch.setattr(threads, "count", lambda: count)
    monkeypatch.setattr(threads, "WORTH", 0 if count > 1 else 2**62)
    monkeypatch.setattr(planning, "WORTH", 1)


def outs(name: str, arrays: Any, static: Any) -> Any:
    """NaN in the place of each result."""
    return filled(as_tuple(tuple(map(np.asarray, as_tuple(run(NUMBA, name, arrays, static))))))


def is_program(functions: list[Callable[[], None]]) -> bool:
    return len(functions) == 1 and isinstance(functions[0], programs.Program)


def assert_agrees(name: str, arrays: Any, static: Any) -> bool:
    """Whether the step was a program, which gave what the kernel gives, twice."""
    step = Step(name, list(arrays), static, outs(name, arrays, static))
    functions = NUMBA.prepared([step])
    with np.errstate(all="ignore"):
        step.run(NUMBA)
        expected = copied(as_tuple(step.out))
        for _ in range(2):
            for out in as_tuple(step.out):
                out.fill(99)
            for function in functions:
                function()
            if name in ROUNDED:
                assert_close(as_tuple(step.out), tuple(expected), expected[0].dtype.name)
            else:
                assert_same(as_tuple(step.out), tuple(expected))
    return is_program(functions)


# ---- every kernel

# A float64 kernel takes a second to compile, and differs in its numbers alone.
EACH = ["float32", pytest.param("float64", marks=pytest.mark.slow)]


@pytest.mark.parametrize("dtype", EACH)
@pytest.mark.parametrize("name", [name for name in PLAIN if name in COVERED])
def test_a_program_of_one_kernel_gives_its_result(name: str, dtype: str, parts: int) -> None:
    native_ones = [assert_agrees(name, arrays, static) for arrays, static in cases_of(name, dtype)]
    assert any(native_ones)


@pytest.mark.parametrize("dtype", EACH)
@pytest.mark.parametrize("name", UPDATES)
def test_a_program_of_an_update_writes_the_same_bits(name: str, dtype: str, parts: int) -> None:
    covered = 0
    for arrays, static in cases_of(name, dtype):
        ours, theirs = copied(arrays), copied(arrays)
        functions = NUMBA.prepared([Step(name, ours, static)])
        assert_same(tuple(ours[0]), tuple(arrays[0]))  # nothing has run yet
        covered += is_program(functions)
        for _ in range(2):
            functions[0]()
            run(NUMBA, name, theirs, static)
        plain_sgd = name == "sgd_" and not static["momentum"]  # NumPy's, for small parameters
        for a, b in zip(chain(*ours), chain(*theirs), strict=True):
            assert_close(a, b, dtype) if plain_sgd else assert_same(a, b)
    assert covered


def elementwise() -> Iterator[tuple[str, Case]]:
    """Kernels that only programs compile."""
    draw = np.random.default_rng(2).standard_normal
    x, y = draw((6, 5, 3, 4)), draw((6, 5, 3, 4))
    others = [y, draw(()), draw((6, 5, 1, 1)), draw((3, 4)), draw((5, 1, 4)), 0.3, 2, y.T.copy().T]
    others += [np.broadcast_to(draw(()), x.shape), np.broadcast_to(draw((6, 1, 1, 1)), x.shape)]
    for name in ("add", "subtract", "multiply", "divide"):
        for other in others:
            yield name, ((x, other), {})
            yield name, ((other, x), {})
        yield name, ((draw((6, 1)), draw((1, 4))), {})
        yield name, ((draw(()), draw(())), {})
        yield name, ((draw(()), 0.05), {})
    for name in ("negative", "square"):
        for each in (x, x.T, draw(()), draw((700,))):
            yield name, ((each,), {})
    yield "sqrt", ((np.abs(x),), {})
    for each in (x, x.T, x[::2, :, 1:], np.broadcast_to(draw((3, 4)), x.shape), draw(())):
        yield "copy", ((each,), {})
    for dim in ((0,), (0, 1), (0, 2, 3), (0, 1, 2, 3), (3,), (1, 2)):
        for keepdim in (True, False):
            yield "sum", ((x,), {"dim": dim, "keepdim": keepdim})
            yield "sum", ((x.T,), {"dim": dim, "keepdim": keepdim})


@pytest.mark.parametrize("dtype", DTYPES)
def test_programs_have_loops_for_what_numpy_does_when_called(dtype: str, parts: int) -> None:
    for name, (arrays, static) in elementwise():
        given = [x.astype(dtype) if isinstance(x, np.ndarray) else x for x in arrays]
        given = [
            np.broadcast_to(x[(0,) * x.ndim], x.shape).astype(dtype, copy=False)
            if isinstance(x, np.ndarray) and x.ndim and not any(x.strides)
            else x
            for x in given
        ]
        assert assert_agrees(name, given, static), (name, static)
    for shape in ((), (7, 3)):
        static = {"shape": shape, "value": 1, "dtype": np.dtype(dtype)}
        assert assert_agrees("full", (), static)


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_result_may_be_written_over_an_operand(dtype: str, parts: int) -> None:
    draw = np.random.default_rng(3)
    for name, other in (("add", 0.5), ("multiply", "y"), ("subtract", "y"), ("square", None)):
        x = draw.standard_normal((40, 9)).astype(dtype)
        y = draw.standard_normal((40, 9)).astype(dtype)
        rest = [] if other is None else [y if other == "y" else other]
        expected = run(NUMBA, name, [x, *rest], {})
        functions = NUMBA.prepared([Step(name, [x, *rest], {}, x)])
        assert is_program(functions)
        functions[0]()
        assert_same(x, expected)


@pytest.mark.parametrize("dtype", DTYPES)
def test_kernels_in_place(dtype: str, parts: int) -> None:
    draw = np.random.default_rng(4)
    y = draw.standard_normal((8, 6)).astype(dtype)
    for name, arrays, static in (
        ("fill_", [], {"value": 3}),
        ("copy_", [y.T.copy().T], {}),
        ("copy_", [y[:1]], {}),
        ("lerp_", [y], {"weight": 0.1}),
    ):
        ours = draw.standard_normal((8, 6)).astype(dtype)
        theirs = ours.copy()
        functions = NUMBA.prepared([Step(name, [ours, *arrays], static)])
        assert is_program(functions)
        functions[0]()
        run(NUMBA, name, [theirs, *arrays], static)
        assert_close(ours, theirs, dtype)


# ---- what changes between runs


def test_arrays_move(parts: int) -> None:
    draw = np.random.default_rng(5).standard_normal
    weight, bias = draw((20, 30)), draw(20)
    y, dW, losses, count = np.empty((9, 20)), np.empty((20, 30)), np.empty(9), np.empty(())
    target = np.arange(9)
    steps = [
        Step("linear", [draw((9, 30)), weight, bias], {}, y, moving=(0,)),
        Step("cross_entropy", [y, target], {"ignore_index": -100}, (losses, count), moving=(1,)),
        Step("linear_dw", [y, draw((9, 30))], {}, dW, moving=(1,)),
    ]
    functions = NUMBA.prepared(steps)
    assert is_program(functions)
    for _ in range(3):
        x, target = draw((9, 30)), np.random.default_rng(6).integers(0, 20, 9)
        steps[0].arrays[0] = steps[2].arrays[1] = x
        steps[1].arrays[1] = target
        functions[0]()
        np.testing.assert_allclose(y, x @ weight.T + bias, rtol=1e-12)
        np.testing.assert_allclose(dW, y.T @ x, rtol=1e-10, atol=1e-10)
        expected = NUMBA.cross_entropy(y, target, ignore_index=-100)
        assert_close((losses, count), expected, "float64")


def test_moving_arrays_that_overlap_another_stay_a_call() -> None:
    x, y = np.ones(6, np.float32), np.empty(6, np.float32)
    step = Step("multiply", [x, x], {}, y, moving=(0, 1))
    assert not is_program(NUMBA.prepared([step]))
    assert not is_program(NUMBA.prepared([Step("multiply", [x, x], {}, y, moving=(0,))]))


def test_numbers_of_the_host_are_computed_before_each_run(parts: int) -> None:
    draw = np.random.default_rng(7).standard_normal
    arrays = [[draw((30, 4)), draw(5)] for _ in range(3)] + [[np.ones((30, 4)), np.ones(5)], []]
    theirs = copied(arrays)
    shared = {"eps": 1e-8, "weight_decay": 0.1, "decoupled_weight_decay": True, "maximize": False}
    static = {"lr": 0.1, "beta1": 0.9, "beta2": 0.99, "step": 1, **shared}
    mask = np.empty((7, 3), np.float32)
    masked = {"shape": (7, 3), "p": 0.5, "key": 3, "dtype": FLOAT32}
    steps = [
        Step("dropout_mask", [], masked, mask, hosted=("key",)),
        Step("adam_", arrays, static, hosted=tuple(static)),
    ]
    functions = NUMBA.prepared(steps)
    assert is_program(functions)
    for count in range(1, 4):
        static |= {"step": count, "lr": 0.1 * count, "beta1": 0.9 - 0.1 * count}
        static["maximize"] = count == 2
        masked["key"] = 2**64 - count
        functions[0]()
        NUMBA.adam_(*theirs, **static)
        assert_same(tuple(chain(*arrays)), tuple(chain(*theirs)))
        assert_same(mask, NUMBA.dropout_mask(**masked))


def test_momentum_that_begins_later_is_seen() -> None:
    static = {"lr": 0.1, "momentum": 0.0, "dampening": 0.5, "weight_decay": 0.0}
    static |= {"nesterov": False, "maximize": False, "first": False}
    arrays = [[np.ones(5)], [np.ones(5)], [np.ones(5)]]
    theirs = copied(arrays)
    functions = NUMBA.prepared([Step("sgd_", arrays, static, hosted=tuple(static))])
    assert is_program(functions)
    for momentum in (0.0, 0.9, 0.0):
        static["momentum"] = momentum
        functions[0]()
        NUMBA.sgd_(*theirs, **static)
        assert_close(tuple(chain(*arrays)), tuple(chain(*theirs)), "float64")


# ---- memory that is written and read


def overlapping() -> Iterator[tuple[str, list[Any], dict[str, Any], Any]]:
    """Kernel, arrays, static arguments, ``out``: what is written is read in another layout."""
    for name, static in (("copy_", {}), ("lerp_", {"weight": 0.5})):
        x, square = np.arange(400.0), np.arange(400.0).reshape(20, 20)
        yield name, [x[1:], x[:-1]], static, None
        yield name, [x[:-1], x[1:]], static, None
        yield name, [square, square.T], static, None
    x, square = np.arange(400.0), np.arange(400.0).reshape(20, 20)
    yield "copy_", [square, square[3]], {}, None
    yield "copy", [x[::-1]], {}, x
    for name in ("add", "multiply", "subtract"):
        yield name, [x[:-1], 2.0], {}, x[1:]
        yield name, [square, square.T], {}, square
        yield name, [square, square[:, :1]], {}, square
    yield "negative", [x[:-1]], {}, x[1:]
    yield "sum", [square], {"dim": (0,), "keepdim": False}, square[4]
    yield "sigmoid", [x[:-1]], {}, x[1:]
    yield "softmax", [square], {"dim": 1}, square


@pytest.mark.parametrize("case", list(overlapping()), ids=lambda case: case[0])
def test_a_step_that_reads_what_it_writes_elsewhere_stays_a_call(case: Any) -> None:
    name, arrays, static, out = case
    assert not is_program(NUMBA.prepared([Step(name, arrays, static, out)]))


def test_a_shift_in_place_moves_every_value(parts: int) -> None:
    x, square = np.arange(400.0), np.arange(400.0).reshape(20, 20)
    expected = square.T.copy()
    for function in NUMBA.prepared([
        Step("copy_", [x[1:], x[:-1]], {}), Step("copy_", [square, square.T], {}),
    ]):  # fmt: skip
        function()
    np.testing.assert_array_equal(x, [0, *range(399)])
    np.testing.assert_array_equal(square, expected)


def test_updates_of_parameters_that_overlap_stay_a_call() -> None:
    memory = np.ones(12)
    params, states = [memory[:6], memory[5:11]], [np.zeros(6), np.zeros(6)]
    static = {"lr": 0.1, "momentum": 0.9, "dampening": 0.0, "weight_decay": 0.0}
    static |= {"nesterov": False, "maximize": False, "first": False}
    grads = [np.ones(6), np.ones(6)]
    assert not is_program(NUMBA.prepared([Step("sgd_", [params, grads, states], static)]))
    params[1] = memory[6:]
    assert is_program(NUMBA.prepared([Step("sgd_", [params, grads, states], static)]))


def test_an_array_that_moves_onto_what_is_written(parts: int) -> None:
    """It may be an argument at one run and overlap the state that the step writes at another."""
    memory = np.arange(400.0)
    state, after = memory[1:], np.zeros(399)
    steps = [
        Step("copy_", [state, np.ones(399)], {}, moving=(1,)),
        Step("add", [np.ones(399), 1.0], {}, after, moving=(0,)),
    ]
    functions = NUMBA.prepared(steps)
    assert is_program(functions)
    functions[0]()
    assert (memory[1:] == 1).all()
    for x in (memory[:-1], np.full(399, 7.0), memory[:-1]):
        memory[:] = np.arange(400)
        expected = x.copy()
        steps[0].arrays[1] = x
        steps[1].arrays[0] = after
        for _ in range(2):
            state[:] = np.arange(1, 400)
            after[:] = 5
            functions[0]()
            np.testing.assert_array_equal(state, expected)
            np.testing.assert_array_equal(after, np.full(399, 6.0))


def test_a_step_that_writes_a_moving_array_stays_a_call() -> None:
    x = np.zeros(6, np.float32)
    for name, others, static in (
        ("fill_", [], {"value": 3}),
        ("copy_", [np.ones(6, np.float32)], {}),
        ("lerp_", [np.ones(6, np.float32)], {"weight": 0.1}),
    ):
        step = Step(name, [x, *others], static, moving=(0,))
        assert not is_program(NUMBA.prepared([step]))


def test_memory_that_is_read_only_is_not_written() -> None:
    x = np.zeros(6, np.float32)
    x.flags.writeable = False
    for step in (
        Step("fill_", [x], {"value": 3}),
        Step("negative", [np.ones(6, np.float32)], {}, x),
    ):
        with pytest.raises(ValueError, match="read-only"):
            NUMBA.prepared([step])[0]()
    assert (x == 0).all()


def test_a_replay_refuses_to_write_a_file_that_is_read_only(tmp_path: Path) -> None:
    np.zeros(6, np.float32).tofile(tmp_path / "zeros")

    @tg.jit
    def filled(x: tg.Tensor) -> tg.Tensor:
        x.fill_(3.0)
        return x.sum()

    with tg.use_backend("numba"):
        for _ in range(3):
            assert filled(tg.zeros(6)).item() == 18
        found = np.memmap(tmp_path / "zeros", np.float32, mode="r")
        with pytest.raises(ValueError, match="read-only"):
            filled(tg.from_numpy(found))
    assert (found == 0).all()


def test_a_replay_copies_between_arguments_that_overlap() -> None:
    @tg.jit
    def copy(x: tg.Tensor, y: tg.Tensor) -> None:
        x.copy_(y)

    with tg.use_backend("numba"):
        for _ in range(3):
            copy(tg.zeros(60)[1:], tg.ones(60)[:-1])
        x = tg.arange(60).float()
        copy(x[1:], x[:-1])
        assert x.tolist() == [0, *range(59)]


# ---- order and errors


def test_an_error_ends_the_program_at_its_step(parts: int) -> None:
    x, target = np.ones((4, 3)), np.array([0, 1, 2, 0])
    before, after = np.zeros(4), np.zeros(4)
    steps = [
        Step("full", [], {"shape": (4,), "value": 5, "dtype": before.dtype}, before),
        Step(
            "cross_entropy", [x, target], {"ignore_index": -100},
            (np.empty(4), np.empty(())), line="step.py:7",
        ),
        Step("full", [], {"shape": (4,), "value": 5, "dtype": after.dtype}, after),
    ]  # fmt: skip
    functions = NUMBA.prepared(steps)
    assert is_program(functions)
    target[2] = 3
    with pytest.raises(IndexError, match="cross_entropy: found index 3, expected 0 to 2") as caught:
        functions[0]()
    assert caught.value.__notes__ == ["in cross_entropy, recorded at step.py:7"]
    assert (before == 5).all()
    assert (after == 0).all()
    target[2] = 2
    functions[0]()
    assert (after == 5).all()


def test_what_is_not_covered_is_a_call_in_its_place() -> None:
    x = np.linspace(0.5, 2, 12, dtype=np.float32).reshape(3, 4)
    a, b, c, d = (np.empty_like(x) for _ in range(4))
    steps = [
        Step("square", [x], {}, a),
        Step("tanh", [a], {}, b),
        Step("add", [b, 1], {}, c),
        Step("negative", [c], {}, d),
    ]
    functions = NUMBA.prepared(steps)
    kinds = [isinstance(each, programs.Program) for each in functions]
    assert kinds == [True, False, True]
    for function in functions:
        function()
    np.testing.assert_array_equal(d, -(np.tanh(x * x) + 1))


@pytest.mark.parametrize("name", ("where", "take", "put_", "cast", "relu", "pow", "abs", "max"))
def test_the_defaults_never_run_while_a_program_is_made(name: str) -> None:
    x = np.arange(-1.0, 5.0)[::2]
    arrays: dict[str, list[Any]] = {
        "where": [x > 0, x, x], "take": [x, np.array([1])], "put_": [x, np.array([1]), x[:1]],
        "pow": [x, 2.0],
    }  # fmt: skip
    static: dict[str, Any] = {"take": {"dim": 0}, "cast": {"dtype": FLOAT32}}
    static["max"] = {"dim": 0, "keepdim": False}
    out = None if name == "put_" else np.full(3, 7.0)
    step = Step(name, arrays.get(name, [x]), static.get(name, {}), out)
    assert not is_program(NUMBA.prepared([step]))
    np.testing.assert_array_equal(x, [-1, 1, 3])
    assert out is None or (out == 7).all()


def test_a_numba_that_calls_kernels_in_another_way_leaves_calls(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(native, "matches", lambda arguments, function: False)
    monkeypatch.setattr(programs, "_said", set())
    x, y = np.ones(5, np.float32), np.empty(5, np.float32)
    functions = NUMBA.prepared([Step("square", [x], {}, y), Step("negative", [y], {}, x)])
    for function in functions:
        function()
    assert (x == -1).all()
    assert capsys.readouterr().err.count("\n") == 1


def test_without_a_compiler_steps_are_calls() -> None:
    done = program(
        "import numpy as np",
        "from tinygrad_mnist.backends.numba_backend import NumbaBackend",
        "from tinygrad_mnist.kernels import Step",
        "x, y = np.ones(5, np.float32), np.empty(5, np.float32)",
        "functions = NumbaBackend().prepared([Step('negative', [x], {}, y)] * 2)",
        "[function() for function in functions]",
        "assert len(functions) == 2 and (y == -1).all()",
        NUMBA_DISABLE_JIT="1",
    )
    assert done.stdout == "agreed\n", done.stderr


# ---- whole training steps


class Recorder(dispatch.Observer):
    """Keeps the kernel calls of a step, as ``jit`` does."""

    def __init__(self) -> None:
        self.steps: list[Step] = []

    def after(self, call: dispatch.Call, result: Any) -> None:
        if spec(call.kernel).kind == "view":
            return
        static, hosted = dict(call.static), tuple(call.hosts)
        self.steps.append(Step(call.kernel, list(call.arrays), static, result, hosted=hosted))


def network(kind: str) -> tuple[Any, tuple[int, ...]]:
    if kind == "dense":
        layers = nn.Linear(784, 128), nn.ReLU(), nn.Dropout(0.2), nn.Linear(128, 10)
        return nn.Sequential(*layers), (32, 784)
    layers = (
        nn.Conv2d(1, 4, 5, bias=False), nn.MaxPool2d(2), nn.BatchNorm2d(4), nn.ReLU(),
        nn.Dropout2d(), nn.Conv2d(4, 8, 3, padding=1), nn.MaxPool2d(2), nn.ReLU(),
        nn.Flatten(), nn.Linear(8 * 5 * 5, 10),
    )  # fmt: skip
    return nn.Sequential(*layers), (16, 1, 25, 25)


def recorded(kind: str) -> tuple[list[Step], list[np.ndarray]]:
    """The second step's kernel calls, and the arrays that they leave."""
    with tg.use_backend("numba"):
        tg.manual_seed(1)
        model, shape = network(kind)
        optimizer = optim.Adam(model.parameters(), lr=0.01)
        x, y = tg.rand(*shape), tg.arange(shape[0]) % 10

        def step() -> None:
            loss = nn.functional.cross_entropy(model(x), y)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()

        step()
        recorder = Recorder()
        with dispatch.observe(recorder):
            step()
        return recorder.steps, [p.detach().numpy() for p in model.parameters()]


@pytest.mark.parametrize("kind", ("dense", "images"))
def test_a_training_step_is_one_program(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    divide(monkeypatch, 2)
    steps, params = recorded(kind)
    functions = NUMBA.prepared(steps)
    assert is_program(functions), [f for f in functions if not isinstance(f, programs.Program)]
    (adam,) = (step for step in steps if step.kernel == "adam_")
    state = [x for arrays in adam.arrays for x in arrays]
    start = copied(state)

    def trained(run: Callable[[], None]) -> list[np.ndarray]:
        for x, old in zip(state, start, strict=True):
            x[...] = old
        for count in range(2, 4):
            adam.static["step"] = count
            run()
        return copied(params)

    def plain() -> None:
        for step in steps:
            step.run(NUMBA)

    expected = trained(plain)
    assert_close(tuple(trained(functions[0])), tuple(expected), "float32")
    again = trained(functions[0])
    assert_same(tuple(trained(functions[0])), tuple(again))
    monkeypatch.setattr(threads, "count", lambda: 1)  # the same parts, on this thread alone
    assert_same(tuple(trained(functions[0])), tuple(again))


def test_two_threads_run_two_programs_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    divide(monkeypatch, 2)
    prepared = []
    for seed in range(2):
        x = np.random.default_rng(seed).standard_normal((64, 100)).astype(np.float32)
        weight, y, total = x[:50].copy(), np.empty((64, 50), np.float32), np.empty(50, np.float32)
        steps = [
            Step("linear", [x, weight], {}, y),
            Step("sigmoid", [y], {}, y),
            Step("sum", [y], {"dim": (0,), "keepdim": False}, total),
        ]
        (function,) = NUMBA.prepared(steps)
        function()
        prepared.append((function, total, total.copy()))
    wrong = []

    def work(function: Callable[[], None], total: np.ndarray, expected: np.ndarray) -> None:
        for _ in range(500):
            total.fill(0)
            function()
            if not np.array_equal(total, expected):
                wrong.append(total.copy())

    workers = [threading.Thread(target=work, args=each) for each in prepared]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert wrong == []


def test_convolutions_with_padding_and_odd_pooling_are_programs(parts: int) -> None:
    draw = np.random.default_rng(8).standard_normal
    conv = Conv(stride=(2, 1), padding=(1, 2), dilation=(1, 1), groups=2)
    x, weight = draw((5, 4, 11, 9)), draw((6, 2, 3, 3))
    y = NUMBA.conv2d(x, weight, conv=conv)
    assert assert_agrees("conv2d", (x, weight), {"conv": conv})
    assert assert_agrees("conv2d_dx", (y, weight), {"shape": x.shape, "conv": conv})
    assert assert_agrees("conv2d_dw", (y, x), {"shape": weight.shape, "conv": conv})
    pool = Pool(size=(2, 2), stride=(2, 2), padding=(0, 0))
    y, index = NUMBA.max_pool2d(x, pool=pool)
    assert assert_agrees("max_pool2d", (x,), {"pool": pool})
    assert assert_agrees("max_pool2d_grad", (y, index), {"shape": x.shape, "pool": pool})
