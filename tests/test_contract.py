"""The kernels keep the contract on every backend: ``out``, aliasing, what is written, signatures.

The calls are those that the op table makes, seen at the door, so that a new op is tested here too.
"""

from __future__ import annotations

import inspect
from collections import defaultdict
from collections.abc import Callable, Iterator
from functools import cache
from typing import Any

import cuda_on_cpu
import numpy as np
import pytest

from tinygrad_mnist.autograd.backward import grad
from tinygrad_mnist.backend import resolve
from tinygrad_mnist.contract import kernel_names, spec
from tinygrad_mnist.creation import tensor
from tinygrad_mnist.dispatch import Call, Observer, call, observe
from tinygrad_mnist.kernels import Backend
from tinygrad_mnist.kernels.base import Base
from tinygrad_mnist.tensor import Tensor
from tinygrad_mnist.verification.cases import (
    DIRECT,
    ROWS,
    array_on,
    cases_of,
    several,
    splitmix64,
    tensors,
)

PER_KERNEL = 60  # calls kept of each kernel; more add time and nothing else

REACHED = {kernel for row in ROWS for kernel in row.kernels} | {d.kernel for d in DIRECT}
PLAIN = [n for n in kernel_names() if spec(n).kind in ("plain", "elementwise")]
ELEMENTWISE = [n for n in kernel_names() if spec(n).kind == "elementwise"]
VIEWS = [n for n in kernel_names() if spec(n).kind == "view"]
IN_PLACE = [n for n in kernel_names() if spec(n).kind == "inplace"]


class Collector(Observer):
    """Calls of unlike arguments, at most ``PER_KERNEL`` of each kernel."""

    def __init__(self) -> None:
        self.calls: dict[str, list[Call]] = defaultdict(list)
        self.seen: set[tuple[Any, ...]] = set()

    def after(self, call: Call, result: Any) -> None:
        static = dict(call.static)
        look = (call.kernel, *(_look(x) for x in call.arrays), repr(static))
        if look not in self.seen and len(self.calls[call.kernel]) < PER_KERNEL:
            self.seen.add(look)
            arrays = tuple(call.arrays)
            self.calls[call.kernel].append(Call(call.backend, call.kernel, arrays, static, None))


def _look(x: Any) -> Any:
    return (x.shape, str(x.dtype), x.strides) if hasattr(x, "shape") else x


def collected(backend: Backend) -> dict[str, list[Call]]:
    """What the op table calls on ``backend``: forward, backward and once more."""
    found = _collected(backend)
    if isinstance(found, Exception):
        raise found
    return found


@cache
def _collected(backend: Backend) -> dict[str, list[Call]] | Exception:
    """The calls, or what went wrong: once for all the tests that want them."""
    try:
        return _calls(backend)
    except Exception as error:  # noqa: BLE001  raised again by each test
        return error


def _calls(backend: Backend) -> dict[str, list[Call]]:
    collector = Collector()
    with observe(collector), np.errstate(over="ignore", under="ignore"):
        for row in ROWS:
            for found in cases_of(row):
                inputs = tensors(row, found, backend)
                results = several(row.op(*inputs, **found.static))
                targets = [x for x in inputs if isinstance(x, Tensor) and x.requires_grad]
                if found.smooth and targets:
                    _twice(results, targets)
    for direct in DIRECT:
        for found in direct.draw(np.random.default_rng(0)):
            arrays = tuple(on(backend, x) for x in found.inputs)
            collector.calls[direct.kernel].append(
                Call(backend, direct.kernel, arrays, found.static, None)
            )
    return collector.calls


def _twice(results: tuple[Any, ...], targets: list[Tensor]) -> None:
    loss = sum(y.square().sum() for y in results if y.requires_grad)
    once = grad(loss, targets, create_graph=True)
    again = sum(dX.square().sum() for dX in once)
    if again.requires_grad:
        grad(again, targets, allow_unused=True)


def on(backend: Backend, x: Any) -> Any:
    """The arrays in ``x``, a list perhaps, on ``backend``."""
    if isinstance(x, list):
        return [on(backend, v) for v in x]
    return array_on(backend, x) if isinstance(x, np.ndarray) else x


def host(backend: Backend, x: Any) -> Any:
    """The reverse, as copies."""
    if isinstance(x, list | tuple):
        return [host(backend, v) for v in x]
    return backend.to_numpy(x).copy() if isinstance(x, backend.array_type) else x


def run(c: Call, arrays: Any = None, out: Any = None) -> Any:
    return call(c.backend, c.kernel, c.arrays if arrays is None else arrays, c.static, out)


def kernels(names: list[str]) -> Callable[..., Any]:
    return pytest.mark.parametrize("kernel", names)


def calls_of(backend: Backend, kernel: str) -> list[Call]:
    found = collected(backend)[kernel]
    assert found, f"no case reaches the kernel {kernel}"
    return found


def same_bits(backend: Backend, x: Any, y: Any, what: str) -> None:
    for a, b in zip(host(backend, several(x)), host(backend, several(y)), strict=True):
        assert (a.dtype, a.shape) == (b.dtype, b.shape), what
        assert a.tobytes() == b.tobytes(), f"{what}\n{a}\n{b}"


def spoilt(backend: Backend, result: Any) -> Iterator[Any]:
    """Arrays like ``result`` full of what must not be seen: NaN, or two different numbers."""
    for value in (np.nan, 77.0) if _is_float(result) else (1, 0):
        made = tuple(
            call(
                backend, "full", (), {"shape": r.shape, "value": _like(value, r), "dtype": r.dtype}
            )
            for r in several(result)
        )
        yield made if isinstance(result, tuple) else made[0]


def _is_float(result: Any) -> bool:
    return bool(several(result)[0].dtype.kind == "f")


def _like(value: float, array: Any) -> Any:
    return value if array.dtype.kind == "f" else 77 if value != value else int(value)


def described(c: Call) -> str:
    return f"{c.kernel} of {[_look(x) for x in c.arrays]} with {dict(c.static)}"


# ---- every backend


def test_every_kernel_is_reached(backend: Backend) -> None:
    missing = {name for name in kernel_names() if not collected(backend)[name]}
    assert not missing, f"no case in verification/cases reaches {sorted(missing)}"


@kernels(PLAIN)
def test_out_is_filled_and_returned(kernel: str, backend: Backend) -> None:
    """With ``out`` full of NaN the same bits come out, in ``out``; the inputs stay as they are."""
    for c in calls_of(backend, kernel):
        before = host(backend, c.arrays)
        expected = run(c)
        for out in spoilt(backend, expected):
            got = run(c, out=out)
            for g, o in zip(several(got), several(out), strict=True):
                assert g is o, described(c)
            same_bits(backend, out, expected, described(c))
        for x, y in zip(host(backend, c.arrays), before, strict=True):
            np.testing.assert_array_equal(x, y, err_msg=f"{described(c)} wrote an input")


@kernels(PLAIN)
def test_results_are_new_memory(kernel: str, backend: Backend) -> None:
    """Only views alias: writing to a kernel's result leaves its inputs alone."""
    for c in calls_of(backend, kernel):
        before = host(backend, c.arrays)
        for result in several(run(c)):
            if result.dtype.kind != "b":
                call(backend, "fill_", (result,), {"value": 77})
        for x, y in zip(host(backend, c.arrays), before, strict=True):
            np.testing.assert_array_equal(x, y, err_msg=f"{described(c)} returned its input")


@kernels(ELEMENTWISE)
def test_out_may_be_an_input(kernel: str, backend: Backend) -> None:
    tried = 0
    for c in calls_of(backend, kernel):
        expected = run(c)
        for i, x in enumerate(c.arrays):
            fits = isinstance(x, backend.array_type) and (
                (x.shape, x.dtype) == (expected.shape, expected.dtype)
            )
            if fits:
                arrays = [*c.arrays]
                arrays[i] = out = writable(backend, x)
                assert run(c, arrays, out) is out
                same_bits(backend, out, expected, described(c))
                tried += 1
    assert tried or expected.dtype.kind == "b" or kernel == "cast"


def writable(backend: Backend, x: Any) -> Any:
    """A copy of ``x`` with gaps where ``x`` is not contiguous."""
    if x.flags.c_contiguous:
        return call(backend, "copy", (x,))
    wide = {"shape": (*x.shape, 2), "value": 0, "dtype": x.dtype}
    apart = call(backend, "getitem", (call(backend, "full", (), wide),), {"index": (..., 0)})
    call(backend, "copy_", (apart, x))
    return apart


@kernels([n for n in ELEMENTWISE if len(spec(n).inputs) == 2])
def test_both_inputs_and_out_the_same(kernel: str, backend: Backend) -> None:
    """x += x."""
    dtype = np.dtype(np.int64 if kernel.startswith("bitwise") else np.float64)
    x = backend.asarray(np.linspace(0.1, 24, 24).reshape(4, 6).astype(dtype))
    static = calls_of(backend, kernel)[0].static
    expected = call(backend, kernel, (x, x), static)
    if expected.dtype == dtype:
        same_bits(backend, call(backend, kernel, (x, x), static, out=x), expected, kernel)


@kernels(VIEWS)
def test_views_share_memory(kernel: str, backend: Backend) -> None:
    for c in calls_of(backend, kernel):
        (x,) = c.arrays
        if 0 in x.strides:
            continue  # an expanded array is read-only
        x = writable(backend, x)
        if kernel == "reshape":
            x = call(backend, "copy", (x,))
        result = run(c, (x,))
        call(backend, "fill_", (x,), {"value": 77})
        for values in host(backend, several(result)):
            assert (values == 77).all(), f"{described(c)} is a copy"


@kernels(IN_PLACE)
def test_in_place_kernels_write_what_they_declare(kernel: str, backend: Backend) -> None:
    contract = spec(kernel)
    for c in calls_of(backend, kernel):
        arrays = _copied(backend, c.arrays)
        before = [host(backend, x) for x in arrays]
        assert call(backend, kernel, arrays, c.static) is None
        for name, x, old in zip(contract.inputs, arrays, before, strict=True):
            changed = not _equal(host(backend, x), old)
            assert changed <= (name in contract.writes), f"{described(c)} wrote {name}"
    assert set(contract.writes) <= set(contract.inputs)


def _copied(backend: Backend, arrays: Any) -> list[Any]:
    return [
        _copied(backend, x)
        if isinstance(x, list | tuple)
        else writable(backend, x)
        if isinstance(x, backend.array_type)
        else x
        for x in arrays
    ]


def _equal(x: Any, y: Any) -> bool:
    if isinstance(x, list):
        return all(map(_equal, x, y))
    return bool(np.array_equal(x, y))


@kernels([n for n in kernel_names() if n not in VIEWS])
def test_agrees_with_numpy(kernel: str, backend: Backend) -> None:
    """Every result of every kernel, indices and masks included, to rounding."""
    reference = resolve("numpy")
    for c in calls_of(backend, kernel):
        arrays = _copied(backend, c.arrays)
        given = [on(reference, x) for x in host(backend, arrays)]
        result, expected = run(c, arrays), call(reference, kernel, given, c.static)
        if expected is None:
            result, expected = arrays, given
        _close(host(backend, several(result)), host(reference, several(expected)), described(c))


def _close(x: Any, y: Any, what: str) -> None:
    if isinstance(x, list):
        for a, b in zip(x, y, strict=True):
            _close(a, b, what)
    elif getattr(y, "dtype", None) is not None:
        assert (x.dtype, x.shape) == (y.dtype, y.shape), what
        exact = y.dtype.kind != "f"
        tolerance = 0 if exact else 1e-5 if y.dtype == np.float32 else 1e-12
        largest = np.max(np.abs(y[np.isfinite(y)]), initial=1) if not exact else 0
        np.testing.assert_allclose(x, y, tolerance, tolerance * largest, err_msg=what)


@kernels(["uniform", "dropout_mask"])
def test_random_bits_are_the_same_everywhere(kernel: str, usable: list[Backend]) -> None:
    first, *others = usable
    for other in others:
        for c, d in zip(calls_of(first, kernel), calls_of(other, kernel), strict=True):
            x, y = host(first, run(c)), host(other, run(d))
            assert x.tobytes() == y.tobytes(), f"{described(c)}: {first.name} and {other.name}"


def test_uniform_is_splitmix64(backend: Backend) -> None:
    """Low half first, the upper 24 bits of each 32."""
    key = 2**64 - 3
    static = {"shape": (7,), "key": key, "dtype": np.dtype(np.float64)}
    x = host(backend, call(backend, "uniform", (), static))
    numbers = [half for i in range(4) for half in reversed(divmod(splitmix64(key, i), 2**32))]
    assert x.tolist() == [(n >> 8) / 2**24 for n in numbers[:7]]


def test_uniform_is_uniform(backend: Backend) -> None:
    static = {"shape": (100_000,), "key": 12345, "dtype": np.dtype(np.float32)}
    x = host(backend, call(backend, "uniform", (), static))
    assert x.min() >= 0
    assert x.max() < 1
    counts, _ = np.histogram(x, 10, (0, 1))
    assert np.abs(counts - 10_000).max() < 500  # five standard deviations
    assert abs(np.corrcoef(x[:-1], x[1:])[0, 1]) < 0.02


def test_overlapping_operands(backend: Backend) -> None:
    """In place, a shifted view of the same memory is read as it was before the write."""
    x = np.arange(2000.0)
    t = tensor(x, backend=backend)
    t[1:] += t[:-1]
    np.testing.assert_array_equal(host(backend, t.array)[1:], x[1:] + x[:-1])
    square = np.arange(90_000.0).reshape(300, 300)
    t = tensor(square, backend=backend)
    t += t.T
    np.testing.assert_array_equal(host(backend, t.array), square + square.T)
    t = tensor(x, backend=backend)
    t[1:] = t[:-1]
    np.testing.assert_array_equal(host(backend, t.array)[1:], x[:-1])


@kernels(["linear", "conv2d", "batch_norm"])
def test_act_and_pool_are_the_separate_kernels(kernel: str, backend: Backend) -> None:
    """A fold has the bits of the kernels that it stands for."""
    folded = [c for c in calls_of(backend, kernel) if set(c.static) & {"act", "pool"}]
    assert folded
    for c in folded:
        plain = dict(c.static)
        act, pool = plain.pop("act", None), plain.pop("pool", None)
        results = several(call(backend, kernel, c.arrays, plain))
        if pool is not None:
            results = call(backend, "max_pool2d", results, {"pool": pool})
        if act is not None:
            results = (call(backend, act, results[:1]), *results[1:])
        same_bits(backend, run(c), results, described(c))


# ---- every backend's class


@pytest.fixture
def checked(usable: list[Backend]) -> list[Backend]:
    """All that run here, and the backend cupy on a stand-in for a card."""
    found = cuda_on_cpu.load()
    return usable if isinstance(found, str) else [*usable, found]


def test_no_backend_adds_a_public_name(checked: list[Backend]) -> None:
    allowed = {n for n in dir(Backend) if not n.startswith("_")} | set(Base.__annotations__)
    for backend in checked:
        for kind in _own_classes(backend):
            added = {n for n in vars(kind) if not n.startswith("_")} - allowed
            assert not added, f"{kind.__name__} adds {sorted(added)} to the contract"
        added = {n for n in vars(backend) if not n.startswith("_")}
        assert not added, f"an instance of {type(backend).__name__} has {sorted(added)}"


def test_no_backend_changes_a_signature(checked: list[Backend]) -> None:
    for backend in checked:
        for kind in _own_classes(backend):
            for name in set(vars(kind)) & set(kernel_names()):
                ours = inspect.signature(vars(kind)[name]).parameters.values()
                theirs = inspect.signature(getattr(Backend, name)).parameters.values()
                assert [(p.name, p.kind, p.default) for p in ours] == [
                    (p.name, p.kind, p.default) for p in theirs
                ], f"{kind.__name__}.{name}"


def test_no_override_forgets_its_return(checked: list[Backend]) -> None:
    """``super().kernel(...)`` as a statement on its own drops the result of the fallback."""
    for backend in checked:
        for kind in _own_classes(backend):
            for name in set(vars(kind)) & set(PLAIN):
                lines = inspect.getsource(vars(kind)[name]).splitlines()
                dropped = [line for line in lines if line.strip().startswith("super().")]
                assert not dropped, f"{kind.__name__}.{name}: {dropped}"


def _own_classes(backend: Backend) -> list[type]:
    return [k for k in type(backend).__mro__ if k not in Backend.__mro__]


def test_the_contract_is_consistent() -> None:
    assert set(kernel_names()) == REACHED
    for name in kernel_names():
        contract = spec(name)
        assert name.endswith("_") == (contract.kind == "inplace"), name
        assert bool(contract.writes) == (contract.kind == "inplace"), name
        takes_out = "out" in inspect.signature(getattr(Backend, name)).parameters
        assert takes_out == (contract.kind in ("plain", "elementwise")), name
    with pytest.raises(KeyError, match="no kernel 'frobnicate'"):
        spec("frobnicate")
