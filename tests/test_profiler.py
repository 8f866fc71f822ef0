"""The profiler: what it counts, what it does not, and where it says so."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import threading
import time
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import tinygrad_mnist as tg
import tinygrad_mnist.nn.functional as F
from tinygrad_mnist import dispatch, nn, optim
from tinygrad_mnist.backends.numpy_backend import NumpyBackend
from tinygrad_mnist.kernels import Backend, Conv
from tinygrad_mnist.profiler import OUTSIDE, Row

ROOT = Path(__file__).resolve().parent.parent


class Kernels(dispatch.Observer):
    """Counts what passes the door."""

    def __init__(self) -> None:
        self.calls: Counter[tuple[str, str]] = Counter()

    def after(self, call: dispatch.Call, result: Any) -> None:
        self.calls[call.kernel, call.phase] += 1


def trained(backend: Backend, steps: int = 3) -> tuple[tg.profile, Kernels]:
    """The profile of training steps, and what the door saw of them."""
    with tg.use_backend(backend), dispatch.observe(Kernels()) as seen, tg.profile() as p:
        model = nn.Sequential(nn.Linear(6, 5), nn.ReLU(), nn.Linear(5, 3))
        optimizer = optim.Adam(model.parameters())
        x, target = tg.ones(4, 6), tg.zeros(4).long()
        for _ in range(steps):
            loss = F.cross_entropy(model(x), target)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    assert isinstance(seen, Kernels)
    return p, seen


def row(p: tg.profile, kernel: str, phase: str = "forward") -> Row:
    (found,) = (r for r in p.rows() if (r.kernel, r.phase) == (kernel, phase))
    return found


def numbers(*shape: int, dtype: type = np.float32) -> np.ndarray:
    return np.arange(np.prod(shape), dtype=dtype).reshape(shape)


def called(kernel: str, *arrays: Any, **static: Any) -> Row:
    """The profile's row of one call, on raw arrays."""
    with tg.profile() as p:
        dispatch.call(NumpyBackend(), kernel, arrays, static)
    return row(p, kernel)


# ---- what is counted


def test_every_call_is_counted_in_its_phase(backend: Backend) -> None:
    p, seen = trained(backend)
    *rows, outside = p.rows()
    assert {(r.kernel, r.phase): r.calls for r in rows} == dict(seen.calls)
    assert seen.calls["linear", "forward"] == 6
    assert seen.calls["linear_dw", "backward"] == 6
    assert seen.calls["adam_", "update"] == 3
    assert (outside.kernel, outside.calls) == (OUTSIDE, 0)


def test_shares_add_up_and_the_longest_comes_first(backend: Backend) -> None:
    p, _ = trained(backend)
    *rows, outside = p.rows()
    assert sum(r.share for r in (*rows, outside)) == pytest.approx(1)
    assert all(r.share > 0 for r in (*rows, outside))
    assert rows == sorted(rows, key=lambda r: r.seconds, reverse=True)
    assert rows[0].share / rows[-1].share == pytest.approx(rows[0].seconds / rows[-1].seconds)


CONV = Conv(stride=(2, 1), padding=(1, 0), dilation=(1, 2), groups=2)  # 9 × 8 becomes 5 × 4
IMAGES, WEIGHT, GRADIENT = numbers(3, 4, 9, 8), numbers(6, 2, 3, 3), numbers(3, 6, 5, 4)
CONVOLVED = 2 * (3 * 6 * 5 * 4) * (2 * 3 * 3)


@pytest.mark.parametrize(
    ("flops", "kernel", "arrays", "static"),
    [
        (2 * 4 * 6 * 5, "linear", (numbers(4, 6), numbers(5, 6), numbers(5)), {}),
        (2 * 4 * 6 * 5, "linear_dw", (numbers(4, 5), numbers(4, 6)), {}),
        (2 * 4 * 6 * 5, "matmul", (numbers(4, 6), numbers(6, 5)), {}),
        (2 * 7 * 4 * 6 * 5, "matmul", (numbers(7, 4, 6), numbers(6, 5)), {}),
        (2 * 6, "matmul", (numbers(6), numbers(6)), {}),
        (CONVOLVED, "conv2d", (IMAGES, WEIGHT, None), {"conv": CONV}),
        (CONVOLVED, "conv2d_dx", (GRADIENT, WEIGHT), {"conv": CONV, "shape": IMAGES.shape}),
        (CONVOLVED, "conv2d_dw", (GRADIENT, IMAGES), {"conv": CONV, "shape": WEIGHT.shape}),
        (0, "exp", (numbers(3),), {}),
    ],
)
def test_multiply_adds_count_as_two(
    flops: int, kernel: str, arrays: tuple[Any, ...], static: dict[str, Any]
) -> None:
    assert called(kernel, *arrays, **static).flops == flops


X, Y, INDEX = numbers(3, 4), numbers(3, 4), np.array([2, 0])


@pytest.mark.parametrize(
    ("moved", "kernel", "arrays", "static"),
    [
        (3 * 48, "add", (X, Y), {}),
        (48 + 16 + 48, "add", (X, numbers(4)), {}),
        (48 + 4 + 48, "add", (X, np.broadcast_to(np.float32(1), (3, 4))), {}),
        (96 + 96, "exp", (numbers(3, 4, dtype=np.float64),), {}),
        (48 + 24, "clamp", (numbers(3, 2), None, numbers(3, 2)), {}),
        (12 + 4, "sum", (numbers(3),), {"dim": (0,), "keepdim": False}),
        (0, "permute", (X,), {"dims": (1, 0)}),
        (48, "full", (), {"shape": (3, 4), "value": 1, "dtype": np.dtype("f4")}),
        (48 + 48, "copy_", (X.copy(), Y), {}),
        (48, "fill_", (X.copy(),), {"value": 1}),
        (3 * 48, "lerp_", (X.copy(), Y), {"weight": 0.5}),
        (16 + 32 + 32, "put_", (X.copy(), INDEX, numbers(2, 4)), {}),
        (16 + 32 + 32, "take", (X, INDEX), {"dim": 0}),
        (16 + 24 + 24, "take", (X, INDEX), {"dim": 1}),
        (0, "exp", (np.empty((0, 3), np.float32),), {}),
        (4 + 4, "exp", (np.float32([[2]]),), {}),
    ],
)
def test_bytes_are_those_read_and_written(
    moved: int, kernel: str, arrays: tuple[Any, ...], static: dict[str, Any]
) -> None:
    assert called(kernel, *arrays, **static).bytes == moved


def test_an_update_reads_and_writes_its_lists() -> None:
    p, _ = trained(NumpyBackend(), steps=2)
    size = 4 * (6 * 5 + 5 + 5 * 3 + 3)
    assert row(p, "adam_", "update").bytes == 2 * 7 * size  # p, m, v both; the gradient is read


# ---- what is timed

SLOW = 0.05


class SlowBackend(NumpyBackend):
    """Whose exp takes a while."""

    def exp(self, x: Any, *, out: Any = None) -> Any:
        time.sleep(SLOW)
        return super().exp(x, out=out)


class SlowObserver(dispatch.Observer):
    def before(self, call: dispatch.Call) -> None:
        time.sleep(SLOW)

    def after(self, call: dispatch.Call, result: Any) -> None:
        time.sleep(SLOW)


def test_a_kernels_time_is_its_own() -> None:
    """Not that of the host's number, nor of an observer outside the profile or inside it."""
    backend = SlowBackend()

    def slowly() -> float:
        time.sleep(SLOW)
        return 1.0

    static = {"value": dispatch.host(slowly)}
    x = numbers(3)
    with dispatch.observe(SlowObserver()), tg.profile() as p, dispatch.observe(SlowObserver()):
        dispatch.call(backend, "exp", (x,))
        dispatch.call(backend, "fill_", (x,), static)
    assert SLOW <= row(p, "exp").seconds < 3 * SLOW
    assert row(p, "fill_").seconds < SLOW


def test_the_profiles_own_work_is_left_out() -> None:
    class Dawdling(tg.profile):
        def after(self, call: dispatch.Call, result: Any) -> None:
            time.sleep(SLOW)
            super().after(call, result)

    with Dawdling() as p:
        dispatch.call(NumpyBackend(), "exp", (numbers(3),))
    assert sum(r.seconds for r in p.rows()) < SLOW


def test_time_outside_of_kernels() -> None:
    with tg.profile() as p:
        time.sleep(SLOW)
        tg.ones(3, backend="numpy")
    *_, outside = p.rows()
    assert outside.seconds >= SLOW
    assert outside.share > 0.9


# ---- the table


def test_the_table() -> None:
    with tg.use_backend("numpy"), tg.profile() as p:
        for _ in range(3):
            tg.ones(4, 6) @ tg.ones(6, 5)
        tg.ones(3) + tg.ones(3)
    head, *lines = str(p).splitlines()
    titles = ["kernel", "phase", "calls", "total ms", "mean us", "share", "MB", "GFLOP/s"]
    assert re.split(r"\s\s+", head) == titles
    assert len(lines) == 4
    assert lines[-1].startswith(OUTSIDE)
    assert lines[-1].split()[-1].endswith("%")
    (line,) = (line for line in lines if line.startswith("matmul"))
    kernel, phase, calls, total, mean, share, megabytes, _ = line.split()
    assert (kernel, phase, calls, megabytes) == ("matmul", "forward", "3", "0.001")
    assert float(mean) == pytest.approx(1000 * float(total) / 3, abs=0.3)
    assert float(share.removesuffix("%")) < 100
    assert str(p) == p.table()
    assert re.fullmatch(r"<profile of 12 kernel calls in \d+\.\d+ ms>", repr(p))


def test_the_table_by_shape() -> None:
    with tg.use_backend("numpy"), tg.profile() as p:
        x, y = tg.ones(4, 6), tg.ones(6, 4)
        x + x, x + x, y + y, y.T + y.T
    assert row(p, "add").calls == 4
    by_shape = {r.shapes: r.calls for r in p.rows(by_shape=True) if r.kernel == "add"}
    assert by_shape == {"(4, 6) (4, 6)": 3, "(6, 4) (6, 4)": 1}  # strides tell none apart
    head, *lines = p.table(by_shape=True).splitlines()
    assert head.endswith("shapes")
    assert any(re.match(r"add .* \(6, 4\) \(6, 4\)$", line) for line in lines)
    assert sum(r.share for r in p.rows(by_shape=True)) == pytest.approx(1)


def test_replayed_calls_have_their_own_lines() -> None:
    backend, x = NumpyBackend(), numbers(3)
    with tg.profile() as p:
        dispatch.call(backend, "exp", (x,))
        assert "replayed" not in str(p)
        with dispatch.phase("backward", instruction=object()):
            dispatch.call(backend, "exp", (x,))
            dispatch.call(backend, "exp", (x,))
        dispatch.call(backend, "exp", (x,))
    *rows, outside = p.rows()
    assert {(r.phase, r.replayed, r.calls) for r in rows} == {
        ("forward", False, 2),
        ("backward", True, 2),
    }
    lines = str(p).splitlines()
    assert lines[0].split()[:3] == ["kernel", "phase", "run"]
    assert {tuple(line.split()[:3]) for line in lines[1:-1]} == {
        ("exp", "forward", "plain"),
        ("exp", "backward", "replayed"),
    }
    assert not outside.replayed


def test_a_profile_that_saw_nothing() -> None:
    p = tg.profile()
    assert [(r.kernel, r.seconds, r.share) for r in p.rows()] == [(OUTSIDE, 0.0, 0.0)]
    with p:
        pass
    assert [(r.kernel, r.share) for r in p.rows()] == [(OUTSIDE, 1.0)]


# ---- one in another, again, elsewhere, and errors


def test_the_table_is_there_inside_the_block_and_after_an_error() -> None:
    with pytest.raises(ZeroDivisionError), tg.profile() as p:
        tg.ones(3)
        assert row(p, "full").calls == 1
        tg.ones(3)
        1 / 0  # noqa: B018
    assert row(p, "full").calls == 2
    assert dispatch.observers() == ()
    tg.ones(3)
    assert row(p, "full").calls == 2


def test_a_kernel_that_fails_is_not_counted() -> None:
    with tg.profile() as p:
        x = tg.arange(3, backend="numpy")
        with pytest.raises(IndexError):
            x[tg.arange(4, backend="numpy")]
        x + x
    assert row(p, "add").calls == 1
    assert "take" not in str(p)


def test_both_of_two_profiles_count() -> None:
    with tg.profile() as outer:
        tg.ones(3)
        with tg.profile() as inner:
            tg.ones(3)
            tg.ones(3)
        tg.ones(3)
    assert (row(outer, "full").calls, row(inner, "full").calls) == (4, 2)


def test_entered_again_it_adds_up() -> None:
    p = tg.profile()
    for _ in range(2):
        with p:
            time.sleep(SLOW)
            tg.ones(3)
        time.sleep(2 * SLOW)  # is in neither
    assert row(p, "full").calls == 2
    assert 2 * SLOW <= sum(r.seconds for r in p.rows()) < 4 * SLOW


def test_entered_while_it_runs_is_refused() -> None:
    errors = []

    def enter() -> None:
        with pytest.raises(RuntimeError, match="running already") as error, p:
            pass
        errors.append(error)

    with tg.profile() as p:
        enter()
        thread = threading.Thread(target=enter)
        thread.start()
        thread.join()
        tg.ones(3)
    assert len(errors) == 2
    assert row(p, "full").calls == 1


def test_each_thread_has_its_own() -> None:
    profiles: dict[int, tg.profile] = {}
    together = threading.Barrier(3)

    def work(count: int) -> None:
        with tg.profile() as profiles[count]:
            together.wait()
            for _ in range(count):
                tg.ones(3)
            together.wait()

    threads = [threading.Thread(target=work, args=(count,)) for count in (1, 20)]
    with tg.profile() as p:
        for thread in threads:
            thread.start()
        together.wait()
        together.wait()
        for thread in threads:
            thread.join()
    assert {count: row(each, "full").calls for count, each in profiles.items()} == {1: 1, 20: 20}
    assert len(p.rows()) == 1


# ---- the trace


def test_the_trace(tmp_path: Path, backend: Backend) -> None:
    p, seen = trained(backend)
    path = tmp_path / "trace.json"
    p.export_chrome_trace(path)
    events = json.loads(path.read_text())["traceEvents"]
    assert Counter((e["name"], e["cat"]) for e in events) == seen.calls
    assert {(e["ph"], e["pid"], e["tid"]) for e in events} == {
        ("X", os.getpid(), threading.get_native_id())
    }
    ends = [e["ts"] + e["dur"] for e in events]
    assert all(e["ts"] >= end for e, end in zip(events[1:], ends, strict=False))
    *rows, _ = p.rows()
    assert sum(e["dur"] for e in events) == pytest.approx(sum(r.seconds for r in rows) * 1e6)
    linear = next(e for e in events if e["name"] == "linear")
    assert linear["args"] == {
        "shapes": "(4, 6) (5, 6) (5,)",
        "bytes": 4 * (24 + 30 + 5 + 20),
        "flops": 2 * 4 * 6 * 5,
        "replayed": False,
    }


def test_a_trace_that_cannot_be_written(tmp_path: Path) -> None:
    p, _ = trained(NumpyBackend())
    (tmp_path / "folder").mkdir()
    for path, kind in [
        (tmp_path / "missing" / "trace.json", FileNotFoundError),
        (tmp_path / "folder", IsADirectoryError),
    ]:
        with pytest.raises(kind) as error:
            p.export_chrome_trace(str(path))
        assert error.value.filename == str(path)
    assert [each.name for each in tmp_path.rglob("*")] == ["folder"]


# ---- the variable


def python(code: str, profile: str | None = "1") -> subprocess.CompletedProcess[str]:
    """Run ``code`` in a fresh interpreter, on NumPy."""
    clean = {k: v for k, v in os.environ.items() if not k.startswith("TINYGRAD_MNIST_")}
    clean |= {"TINYGRAD_MNIST_BACKEND": "numpy"}
    if profile is not None:
        clean["TINYGRAD_MNIST_PROFILE"] = profile
    return subprocess.run(
        [sys.executable, "-c", code],
        env=clean,
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def table(done: subprocess.CompletedProcess[str]) -> dict[str, list[str]]:
    """The lines of the one table in the error stream, by kernel."""
    lines = done.stderr.splitlines()
    (start,) = (i for i, line in enumerate(lines) if line.startswith("kernel "))
    assert lines[-1].startswith(OUTSIDE)
    return {line.split()[0]: line.split()[1:] for line in lines[start + 1 : -1]}


ONES = "import tinygrad_mnist as tg; tg.ones(3); tg.ones(3)\n"


# A program that was started in the background may have been told to leave interrupts alone.
INTERRUPTED = """
import os, signal, time
signal.signal(signal.SIGINT, signal.default_int_handler)
os.kill(os.getpid(), signal.SIGINT)
time.sleep(9)
"""


@pytest.mark.parametrize(
    ("end", "code"),
    [
        ("", 0),
        ("raise SystemExit(3)", 3),
        ("1 / 0", 1),
        (INTERRUPTED, -2),
    ],
)
def test_the_variable_shows_a_table_at_the_end(end: str, code: int) -> None:
    done = python(ONES + end)
    assert done.returncode == code
    assert done.stdout == ""
    assert table(done)["full"][:2] == ["forward", "2"]


def test_the_program_and_a_profile_in_it() -> None:
    code = "with tg.profile() as p:\n    tg.ones(3) + 1\nprint(p.rows()[0].calls)"
    done = python(ONES + code)
    assert done.stdout == "1\n"
    found = table(done)
    assert (found["full"][1], found["add"][1]) == ("3", "1")


def test_the_program_is_all_its_threads() -> None:
    """Their time beside each other adds up, so that what is outside of kernels is never less."""
    code = """
import threading, time
from tinygrad_mnist.backends.numpy_backend import NumpyBackend
class Slow(NumpyBackend):
    def exp(self, x, *, out=None):
        time.sleep(0.3)
        return super().exp(x, out=out)
backend = Slow()
def work():
    tg.ones(3, backend=backend).exp()
threads = [threading.Thread(target=work) for _ in range(8)]
for t in threads: t.start()
for t in threads: t.join()
"""
    done = python(ONES + code)
    found = table(done)
    assert (found["full"][1], found["exp"][1]) == ("10", "8")
    shares = [float(s) for s in re.findall(r"([\d.-]+)%", done.stderr)]
    assert all(0 <= share <= 100 for share in shares)
    assert sum(shares) == pytest.approx(100, abs=0.3)


def test_the_table_comes_once() -> None:
    code = "import importlib, os; importlib.reload(tg)\nif hasattr(os, 'fork') and os.fork():\n"
    done = python(ONES + code + "    os.wait(); tg.ones(3)")
    assert table(done)["full"][1] == "3"


@pytest.mark.parametrize("profile", [None, "", "0"])
def test_without_the_variable_there_is_none(profile: str | None) -> None:
    done = python(
        ONES + "from tinygrad_mnist import dispatch; print(dispatch.observers())", profile
    )
    assert (done.stdout, done.stderr) == ("()\n", "")


def test_a_program_without_kernels_says_nothing() -> None:
    assert python("import tinygrad_mnist").stderr == ""


def test_a_value_that_means_nothing_is_told_in_a_line() -> None:
    done = python(ONES, "yes")
    assert done.returncode == 0
    (line,) = done.stderr.splitlines()
    assert line.endswith(
        "the variable TINYGRAD_MNIST_PROFILE is 'yes': expected 1, or 0 or nothing"
    )
