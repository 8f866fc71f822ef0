"""``verify``: what it calls a difference, its table, its exit codes, and that it finds a bug."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import tinygrad_mnist as tg
from tinygrad_mnist import cli, models, verification
from tinygrad_mnist.backend import resolve
from tinygrad_mnist.backends.numpy_backend import NumpyBackend
from tinygrad_mnist.kernels import Backend
from tinygrad_mnist.verification.cases import BY_FAMILY, ROWS, cases_of
from tinygrad_mnist.verification.differences import difference
from tinygrad_mnist.verification.extremes import LEFT_OUT, extremes
from tinygrad_mnist.verification.ops import _replayed, compare_op
from tinygrad_mnist.verification.outcomes import OPS, Column, Outcome
from tinygrad_mnist.verification.run import SHOWN, verify
from tinygrad_mnist.verification.steps import STEPS

OPTIONAL = ("numba", "scipy", "safetensors", "tqdm", "pooch", "matplotlib", "PIL", "pytest")
Capture = pytest.CaptureFixture[str]


def silent(items: Iterable[Any], title: str, unit: str) -> Iterable[Any]:
    return items


# ---- differences


def ulps(found: Any, expected: Any, dtype: Any = np.float32) -> float:
    return difference(np.array(found, dtype), np.array(expected, dtype)).ulps


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_a_unit_is_the_spacing_at_the_largest_magnitude(dtype: Any) -> None:
    eps = float(np.finfo(dtype).eps)
    assert ulps([1, 2], [1, 2], dtype) == 0
    assert ulps([1, 2 + 6 * eps], [1, 2], dtype) == 3
    assert ulps([eps, 1], [0, 1], dtype) == 1  # a sum that cancels, beside one that does not
    assert ulps(eps * eps * eps, 0.0, dtype) < 1
    assert ulps(1e-3, 0.0, dtype) > 1e6


def test_what_no_rounding_explains_is_infinite() -> None:
    nan, inf = np.nan, np.inf
    assert ulps([nan, inf, -inf, 1], [nan, inf, -inf, 1]) == 0
    for found in ([inf, inf, -inf, 1], [nan, -inf, -inf, 1], [nan, inf, -inf, nan], [1, 1, 1, 1]):
        assert ulps(found, [nan, inf, -inf, 1]) == np.inf
    assert ulps([1, 2], [1, 2], np.int64) == 0
    assert ulps([1, 2], [1, 3], np.int64) == np.inf
    assert ulps(True, False, np.bool_) == np.inf
    assert ulps(np.ones((0, 3)), np.ones((0, 3))) == 0
    assert difference(np.ones(2), np.ones(3)) == (np.inf, "float64 (2,) for float64 (3,)")
    assert difference(np.ones(2), np.ones(2, np.float32)).ulps == np.inf


def test_a_difference_has_the_two_numbers_furthest_apart() -> None:
    found = difference(np.array([[1.0, 2.0], [3.5, 4.0]]), np.array([[1.0, 2.0], [3.0, 4.5]]))
    assert found.numbers == "3.5 for 3.0"


# ---- what is compared


def test_the_names_are_those_of_what_there_is() -> None:
    files = Path(verification.__file__).parent.glob("cases/*.py")
    assert set(verification.FAMILIES) == {path.stem for path in files} - {"__init__", "draws"}
    assert (*BY_FAMILY, "direct") == verification.FAMILIES
    assert (*STEPS, *(f"train-{name}" for name in models.RECIPES)) == verification.TRAININGS


def test_only_what_depends_on_data_cannot_be_recorded() -> None:
    found = {}
    for row in BY_FAMILY["indexing"]:
        outcome = Outcome(row.name, Column(resolve("numpy"), jit=True), OPS)
        compare_op(row, [outcome])
        assert not outcome.failures
        found[row.name] = outcome.unrecorded
    assert {name for name, count in found.items() if count} == {
        "getitem:mask", "getitem:mixed", "setitem", "masked_select",
        "nonzero", "nonzero:int", "nonzero:bool", "nonzero:tuple",
    }  # fmt: skip


def test_a_recorded_case_is_a_replay() -> None:
    calls = []

    def function(x: tg.Tensor) -> tg.Tensor:
        calls.append(x)
        return x + 1

    assert _replayed(function, lambda f: f(tg.ones(3))).tolist() == [2, 2, 2]
    assert len(calls) == 2


# ---- backends that are wrong


class Broken(NumpyBackend):
    """A kernel off by a thousandth in float32, one that raises, and an update that is off."""

    name = "broken"

    def softmax_grad(self, dY: Any, y: Any, *, dim: int, out: Any = None) -> Any:
        dX = super().softmax_grad(dY, y, dim=dim, out=out)
        if dX.dtype == np.float32:
            dX *= 1.001
        return dX

    def dropout_mask(self, **static: Any) -> Any:
        raise NotImplementedError("no such\nkernel")

    def adam_(self, *lists: Any, beta2: float, **static: Any) -> None:
        super().adam_(*lists, beta2=beta2 * 0.999, **static)


def said(backend: Backend, names: list[str], capsys: Capture) -> tuple[int, list[str]]:
    code = verify([backend], names, silent)
    return code, capsys.readouterr().out.splitlines()


def cells(lines: list[str], *begin: str) -> list[str]:
    """What follows in the line of the table that begins so."""
    table = [re.split(r"\s{2,}", line) for line in lines]
    (found,) = (row for row in table if row[: len(begin)] == [*begin])
    return found[len(begin) :]


def test_a_broken_kernel_fails_and_is_named(capsys: Capture) -> None:
    code, lines = said(Broken(), ["networks"], capsys)
    assert code == 1
    assert cells(lines, "networks", "numpy jit")[-1] == "pass"
    cases, single, double, verdict, *_ = cells(lines, "networks", "broken")[:4]
    assert int(cases) > 100
    assert verdict == "FAIL"
    assert float(single.replace(",", "")) > 10 * OPS[np.dtype(np.float32)]
    assert double == "0.0"
    (line,) = (line for line in lines if line.startswith("broken: softmax_grad of ("))
    assert " in float32: result 1 is " in line
    assert line.endswith(" units apart, at most 128.0")
    assert "broken jit: softmax_grad of" in "\n".join(lines)
    assert lines[-1].startswith("fail: ")
    assert lines[-1].endswith(" 2 of 3 lines of the table failed")


def test_a_kernel_that_raises_is_one_line(capsys: Capture) -> None:
    _, lines = said(Broken(), ["networks"], capsys)
    (line,) = (line for line in lines if line.startswith("broken: dropout of"))
    assert line.endswith(": NotImplementedError: no such")
    assert not any("Traceback" in line for line in lines)


def test_a_broken_update_fails_by_hand_and_in_a_training(capsys: Capture) -> None:
    code, lines = said(Broken(), ["direct", "mlp-32", "sgd-10"], capsys)
    assert code == 1
    assert cells(lines, "direct", "broken")[-2:] == ["FAIL", "dropout_mask"]
    assert any(line.startswith("broken: adam_ of ") for line in lines)
    assert any(line.startswith("broken: mlp-32, after 50 steps: NotImpl") for line in lines)
    assert cells(lines, "sgd-10", "broken") == ["1", "0.0", "pass"]


def test_many_broken_ops_are_not_all_told(capsys: Capture) -> None:
    class Blank(NumpyBackend):
        name = "blank"

        def asarray(self, array: Any) -> Any:
            raise OSError("gone")

    code, lines = said(Blank(), ["products"], capsys)
    assert code == 1
    assert len([line for line in lines if line.startswith("blank: ")]) == SHOWN + 1
    assert any(line.startswith("blank: and ") for line in lines)


def swallowing(kernel: str, found: Any) -> Backend:
    """NumPy's, but for one kernel, which gives finite numbers where it should not."""

    def method(self: Any, x: Any, *, out: Any = None, **static: Any) -> Any:
        y = np.asarray(found(x, **static), x.dtype)
        return y if out is None else self.copy(y, out=out)

    return type("Swallowing", (NumpyBackend,), {"name": "swallowing", kernel: method})()


def largest_number(x: np.ndarray, *, dim: tuple[int, ...], keepdim: bool) -> Any:
    return np.fmax.reduce(x, dim, keepdims=keepdim)


@pytest.mark.parametrize(
    ("family", "kernel", "found", "numbers"),
    [
        ("pointwise", "relu", lambda x: np.where(x > 0, x, 0), "0.0 for nan"),
        ("pointwise", "sign", lambda x: np.nan_to_num(np.sign(x)), "0.0 for nan"),
        ("pointwise", "sqrt", lambda x: np.sqrt(abs(x)), "for nan"),
        ("pointwise", "log", lambda x: np.where(x <= 0, -80, np.log(abs(x))), "-80.0 for "),
        ("pointwise", "exp", lambda x: np.exp(np.clip(x, -80, 80)), "for inf"),
        ("pointwise", "abs", lambda x: np.where(x < -1e3, -1.01 * x, abs(x)), "1010000000000000.0"),
        ("reductions", "max", largest_number, "for nan"),
    ],
    ids=["relu", "sign", "sqrt", "log", "exp", "abs", "max"],
)  # fmt: skip
def test_kernels_that_swallow_what_is_not_finite_are_named(
    family: str, kernel: str, found: Any, numbers: str
) -> None:
    row = next(row for row in BY_FAMILY[family] if row.kernels == (kernel,) and ":" not in row.name)
    outcome = Outcome(family, Column(swallowing(kernel, found), jit=False), OPS)
    with np.errstate(all="ignore"):
        compare_op(row, [outcome])
    failure = outcome.failures[row.name]
    assert " with special values in float" in failure
    assert numbers in failure


def test_denormals_are_left_out_where_a_backend_takes_them_for_0() -> None:
    """As all of CuPy's kernels do in float32: of 1e-40, log is then −∞."""

    def flushed(x: Any) -> Any:
        if getattr(x, "dtype", None) != np.float32:
            return x
        return np.where(np.abs(x) < np.finfo(np.float32).tiny, x * np.float32(0), x)

    def method(name: str) -> Any:
        def kernel(self: Any, *arrays: Any, out: Any = None, **static: Any) -> Any:
            y = getattr(NumpyBackend, name)(self, *map(flushed, arrays), **static)
            return y if out is None else self.copy(y, out=out)

        return kernel

    names = ("add", "log", "divide", "multiply")
    kernels = {name: method(name) for name in names}
    backend = type("Flushing", (NumpyBackend,), {"name": "flushing", **kernels})()
    for name in names:
        row = next(row for row in BY_FAMILY["pointwise"] if row.name == name)
        outcome = Outcome("pointwise", Column(backend, jit=False), OPS)
        with np.errstate(all="ignore"):
            compare_op(row, [outcome])
        assert not outcome.failures


def test_every_row_of_floats_has_special_values_or_says_why_not() -> None:
    for row in ROWS:
        cases = cases_of(row)
        floats = [x for c in cases for x in c.inputs if getattr(x, "dtype", None) == np.float64]
        found = extremes(row.name, cases)
        assert bool(found) == (bool(floats) and row.name not in LEFT_OUT), row.name
        for special, ordinary in found:
            assert any(c is ordinary for c in cases)
            assert any(np.isnan(x).any() for x in special.inputs if isinstance(x, np.ndarray))


# ---- the command


def test_numba_agrees_with_numpy(capsys: Capture) -> None:
    pytest.importorskip("numba")
    names = ["networks", "direct", "sgd-10"]
    assert cli.main(["verify", "--backend", "numba", "--only", *names]) == 0
    lines = capsys.readouterr().out.splitlines()
    for name in names:
        for column in ("numpy jit", "numba", "numba jit") if name != "direct" else ("numba",):
            assert "pass" in cells(lines, name, column)
    assert lines[-1].startswith("pass: ")


@pytest.mark.slow
def test_everything_agrees_with_numpy(capsys: Capture) -> None:
    pytest.importorskip("numba")
    assert cli.main(["verify"]) == 0
    assert capsys.readouterr().out.splitlines()[-1].startswith("pass: ")


def test_with_numpy_alone_nothing_is_compared(capsys: Capture) -> None:
    assert cli.main(["verify", "--backend", "numpy"]) == 2
    assert capsys.readouterr().out.startswith("nothing was compared: ")
    script = "import sys; sys.modules['numba'] = None; from tinygrad_mnist import cli; "
    done = subprocess.run(
        [sys.executable, "-c", script + "sys.exit(cli.main(['verify']))"],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert (done.returncode, done.stderr) == (2, "")
    *left_out, last = done.stdout.splitlines()
    assert left_out[0].startswith("left out: numba: ")
    assert all(line.startswith("left out: cupy: ") for line in left_out[1:])
    assert last.startswith("nothing was compared: ")


def test_a_machine_with_numpy_alone_can_verify_a_backend_of_its_own() -> None:
    """What a script needs that compares another backend, on a machine without the rest."""
    script = f"""
import sys
for name in {OPTIONAL}:
    sys.modules[name] = None
from tinygrad_mnist.backends.numpy_backend import NumpyBackend
from tinygrad_mnist.verification.run import verify
other = type("Other", (NumpyBackend,), {{"name": "other"}})
sys.exit(verify([other()], ["networks"], lambda items, title, unit: items))
"""
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=120, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines()[-1].startswith("pass: ")


def test_a_name_given_twice_is_compared_once(capsys: Capture) -> None:
    code, lines = said(Broken(), ["losses", "losses"], capsys)
    assert code == 0
    assert cells(lines, "losses", "broken")[3] == "pass"


def test_bad_names(capsys: Capture) -> None:
    assert cli.main(["verify", "--backend", "nunba"]) == 1
    assert "--backend is 'nunba'" in capsys.readouterr().err
    with pytest.raises(SystemExit, match="2"):
        cli.main(["verify", "--only", "relu"])
    assert "invalid choice: 'relu'" in capsys.readouterr().err


def test_the_op_table_is_loaded_for_this_command_alone() -> None:
    script = "import sys, tinygrad_mnist.cli; print([n for n in sys.modules if '.cases' in n])"
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=120, check=True
    )
    assert done.stdout == "[]\n"
