"""Every op of the table on every backend: forward, gradients, float32, NaN, memory."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from strict_backend import StrictArray, StrictBackend, Sync, transfers

import tinygrad_mnist as tg
from tinygrad_mnist import functions, nn, optim
from tinygrad_mnist.autograd.backward import grad
from tinygrad_mnist.autograd.graph import wrap
from tinygrad_mnist.autograd.record import DEFINED
from tinygrad_mnist.backend import resolve, use_backend
from tinygrad_mnist.contract import kernel_names
from tinygrad_mnist.dispatch import Call, Observer, call, observe
from tinygrad_mnist.kernels import Backend
from tinygrad_mnist.nn import functional as F
from tinygrad_mnist.ops import networks, products
from tinygrad_mnist.tensor import Tensor
from tinygrad_mnist.testing import gradcheck, gradgradcheck
from tinygrad_mnist.verification.cases import (
    DIRECT,
    ROWS,
    Case,
    Row,
    array_on,
    cases_of,
    differentiable,
    several,
    tensors,
)

Drawn = Counter[tuple[str, str, str]]

NUMPY = resolve("numpy")
# Methods of Tensor that look at it or move it: test_tensor has them.
NOT_OPS = {"backward", "cpu", "cuda", "detach", "dim", "is_contiguous", "is_floating_point", "item"}
NOT_OPS |= {"numel", "numpy", "register_hook", "result_type", "retain_grad", "size", "to", "tolist"}
NOT_OPS |= {"bool", "double", "float", "int", "long", "allclose"}
F32, F64 = np.dtype(np.float32), np.dtype(np.float64)

rows = pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
smooth_rows = pytest.mark.parametrize(
    "row", [r for r in ROWS if r.differentiable != ()], ids=lambda row: row.name
)


class Kernels(Observer):
    """The names of the kernels that ran."""

    def __init__(self) -> None:
        self.names: set[str] = set()

    def before(self, call: Call) -> None:
        self.names.add(call.kernel)


def on_host(y: Tensor) -> np.ndarray:
    return y.backend.to_numpy(y.array)


def expected(row: Row, found: Case) -> tuple[np.ndarray, ...]:
    with np.errstate(all="ignore"):
        return tuple(map(np.asarray, several(row.reference(*found.inputs, **found.static))))


def function_of(row: Row, found: Case, backend: Backend) -> tuple[Callable[..., Any], list[Tensor]]:
    """The row's op as a function of tensors only, and these."""
    inputs = tensors(row, found, backend)
    places = [i for i, x in enumerate(inputs) if isinstance(x, Tensor)]

    def function(*given: Tensor) -> Any:
        filled = [*inputs]
        for i, x in zip(places, given, strict=True):
            filled[i] = x
        return row.op(*filled, **found.static)

    return function, [inputs[i] for i in places]


def described(row: Row, found: Case) -> str:
    inputs = [x.shape if isinstance(x, np.ndarray) else x for x in found.inputs]
    return f"{row.name} of {inputs} with {found.static}"


# ---- the table is complete


def test_every_op_has_a_row() -> None:
    covered = {kernel for row in ROWS for kernel in row.kernels}
    missing = {op.kernel for op in DEFINED} - covered
    assert not missing, f"no row in verification/cases names the kernels {sorted(missing)}"


def test_every_public_op_has_a_row() -> None:
    """Whatever people reach as a method, a function or in ``nn.functional``."""
    named = {row.name.partition(":")[0] for row in ROWS}
    public = {**public_functions(Tensor), **public_functions(functions), **public_functions(F)}
    missing = {name for name, f in public.items() if f.__name__ not in named} - NOT_OPS
    missing = {name for name in missing if not name.endswith("_")}  # in place: test_tensor
    assert not missing, f"no row in verification/cases for {sorted(missing)}"


def public_functions(where: Any) -> dict[str, Callable[..., Any]]:
    return {n: getattr(where, n) for n in dir(where) if n[0] != "_" and callable(getattr(where, n))}


def test_every_kernel_has_a_row() -> None:
    covered = {kernel for row in ROWS for kernel in row.kernels} | {d.kernel for d in DIRECT}
    assert covered == set(kernel_names())


def test_names_are_unique() -> None:
    assert len({row.name for row in ROWS}) == len(ROWS)


@rows
def test_draws_enough(row: Row) -> None:
    cases = cases_of(row)
    assert len(cases) >= 6
    assert row.differentiable == () or sum(c.smooth for c in cases) >= 6
    assert row.second is None or len(row.second) > 10, "give the reason"
    arrays = [x for c in cases for x in c.inputs if isinstance(x, np.ndarray)]
    assert any(not x.flags.c_contiguous for x in arrays) or row.name == "view"


@pytest.mark.parametrize(
    "row",
    [r for r in ROWS if r.differentiable == () and ":" not in r.name],
    ids=lambda row: row.name,
)
def test_a_row_without_gradient_is_an_op_without(row: Row) -> None:
    """No row hides a gradient: the op records nothing even for inputs that require grad."""
    for found in cases_of(row):
        results = row.op(*tensors(replace(row, differentiable=None), found, NUMPY), **found.static)
        assert not any(y.requires_grad for y in several(results)), described(row, found)


# ---- forward


@rows
def test_forward(row: Row, backend: Backend, drawn: Drawn) -> None:
    """float64 against the reference; the kernels that the row names do run."""
    seen = Kernels()
    for found in cases_of(row):
        with np.errstate(over="ignore", under="ignore"), observe(seen):
            results = several(row.op(*tensors(row, found, backend), **found.static))
        for y, reference in zip(results, expected(row, found), strict=True):
            assert type(y) is Tensor
            assert (y.dtype, y.shape) == (reference.dtype, reference.shape), described(row, found)
            np.testing.assert_allclose(
                on_host(y), reference, row.rtol, row.rtol, err_msg=described(row, found)
            )
        drawn[row.name, backend.name, "forward"] += 1
    assert seen.names >= set(row.kernels)


@rows
def test_float32(row: Row, backend: Backend) -> None:
    """float32 stays float32, in results and gradients, and agrees with float64."""
    for found in cases_of(row):
        single = tensors(row, found, backend, F32)
        with np.errstate(over="ignore", under="ignore"):
            results = several(row.op(*single, **found.static))
        for y, reference in zip(results, expected(row, found), strict=True):
            widened = reference.dtype != F64 or row.name == "cast"
            assert y.dtype == (reference.dtype if widened else F32), described(row, found)
            compare_float32(row, found, on_host(y), reference)
        if found.smooth and any(y.requires_grad for y in results):
            compare_gradients(row, found, backend, single, results)


def compare_gradients(
    row: Row, found: Case, backend: Backend, single: list[Any], results: tuple[Any, ...]
) -> None:
    double = tensors(row, found, backend)
    exact = weighted_gradients(double, several(row.op(*double, **found.static)))
    for x, dX in zip(exact, weighted_gradients(single, results), strict=True):
        assert dX.dtype == F32, f"the gradient of {described(row, found)} is {dX.dtype}"
        compare_float32(row, found, on_host(dX), on_host(x))


def weighted_gradients(inputs: list[Any], results: tuple[Any, ...]) -> tuple[Any, ...]:
    targets = [x for x in inputs if isinstance(x, Tensor) and x.requires_grad]
    outputs = [y for y in results if y.requires_grad]
    seeds = [
        wrap(
            Tensor,
            array_on(y.backend, np.cos(np.arange(y.numel())).reshape(y.shape), y.dtype),
            y.backend,
        )
        for y in outputs
    ]
    return grad(outputs, targets, seeds)


def compare_float32(row: Row, found: Case, y: np.ndarray, reference: np.ndarray) -> None:
    largest = np.max(np.abs(reference), initial=1) if reference.dtype.kind == "f" else 0
    tolerance = 10 * row.rtol32
    np.testing.assert_allclose(
        y, reference, tolerance, row.rtol32 * largest, err_msg=described(row, found)
    )


@rows
def test_nan(row: Row, backend: Backend) -> None:
    """A NaN in an input turns up where the reference has it, and nowhere else."""
    rng = np.random.default_rng(1)
    for found in cases_of(row):
        for i, x in enumerate(found.inputs):
            if not isinstance(x, np.ndarray) or x.dtype != F64 or x.size == 0:
                continue
            spoilt = x.copy(order="K")
            spoilt[tuple(rng.integers(0, n) for n in x.shape)] = np.nan
            inputs = (*found.inputs[:i], spoilt, *found.inputs[i + 1 :])
            compare_nan(row, Case(inputs, found.static), backend)


def compare_nan(row: Row, found: Case, backend: Backend) -> None:
    with np.errstate(all="ignore"):
        results = several(row.op(*tensors(row, found, backend), **found.static))
    for y, reference in zip(results, expected(row, found), strict=True):
        if reference.dtype.kind == "f":
            np.testing.assert_array_equal(
                np.isnan(on_host(y)), np.isnan(reference), err_msg=described(row, found)
            )
        elif not row.name.startswith("cast"):  # NaN as an integer is whatever the machine says
            np.testing.assert_array_equal(on_host(y), reference, err_msg=described(row, found))


@rows
def test_memory(row: Row, backend: Backend) -> None:
    """Inputs keep their values; a write to one shows in the result only if it is a view."""
    for found in cases_of(row):
        inputs = tensors(row, found, backend)
        results = several(row.op(*inputs, **found.static))
        given = [x for x in inputs if isinstance(x, Tensor)]
        originals = [x for x in found.inputs if isinstance(x, np.ndarray)]
        for x, original in zip(given, originals, strict=True):
            np.testing.assert_array_equal(on_host(x), original, err_msg=described(row, found))
        if not row.aliases:
            before = [on_host(y).copy() for y in results]
            overwrite(backend, given, originals)
            for y, value in zip(results, before, strict=True):
                np.testing.assert_array_equal(on_host(y), value, err_msg=described(row, found))


def overwrite(backend: Backend, given: list[Tensor], originals: list[np.ndarray]) -> None:
    for x, original in zip(given, originals, strict=True):
        if 0 not in original.strides:  # an expanded array is read-only
            call(backend, "fill_", (x.array,), {"value": 1})


# ---- gradients


@smooth_rows
def test_gradient(row: Row, backend: Backend, drawn: Drawn) -> None:
    for found in cases_of(row):
        if found.smooth:
            assert gradcheck(*function_of(row, found, backend), **row.check)
            drawn[row.name, backend.name, "gradient"] += 1


@smooth_rows
def test_second_gradient(row: Row, backend: Backend, drawn: Drawn) -> None:
    if row.second is not None:
        pytest.skip(f"no second gradient claimed: {row.second}")
    for found in cases_of(row):
        if found.smooth:
            assert gradgradcheck(*function_of(row, found, backend), **row.check)
            drawn[row.name, backend.name, "second"] += 1


@smooth_rows
def test_each_gradient_alone(row: Row, backend: Backend) -> None:
    """Asked for one gradient, an op gives the same as asked for all."""
    for found in cases_of(row):
        wanted = differentiable(row, found)
        if not found.smooth or len(wanted) < 2:
            continue
        inputs = tensors(row, found, backend)
        together = weighted_gradients(inputs, several(row.op(*inputs, **found.static)))
        for i, dX in zip(wanted, together, strict=True):
            alone = tensors(row, found, backend)
            for j in wanted:
                alone[j].requires_grad_(j == i)
            (only,) = weighted_gradients(alone, several(row.op(*alone, **found.static)))
            np.testing.assert_array_equal(on_host(only), on_host(dX))


# ---- what a table cannot say


def test_ties_share_the_gradient(backend: Backend) -> None:
    x = tg.tensor([1.0, 3.0, 3.0], requires_grad=True, backend=backend)
    x.amax().backward()
    assert x.grad is not None
    assert x.grad.tolist() == [0, 0.5, 0.5]
    y = tg.tensor([1.0, 3.0, 4.0], requires_grad=True, backend=backend)
    x.grad = None
    tg.maximum(x, y).sum().backward()
    assert (x.grad.tolist(), y.grad.tolist()) == ([0.5, 0.5, 0], [0.5, 0.5, 1])


def test_long_sums_keep_their_digits(backend: Backend) -> None:
    """A million float32 rows: one after the other they would lose two digits."""
    x = tg.full((1_000_000, 2), 0.1, backend=backend)
    rows = tg.full((3, 100_000, 2), 0.1, backend=backend)
    for found, expected in ((x.sum(0), 1e5), (x.mean(0), 0.1), (rows.sum(1), 1e4)):
        np.testing.assert_allclose(on_host(found), expected, rtol=1e-5)
    w = tg.zeros(2, backend=backend, requires_grad=True)
    (x + w).sum().backward()
    assert w.grad is not None
    assert w.grad.tolist() == [1e6, 1e6]
    last = tg.full((3_000_000,), 0.1, backend=backend).cumsum(0)[-1]
    np.testing.assert_allclose(on_host(last), 3e5, rtol=1e-6)


def test_slopes_at_kinks(backend: Backend) -> None:
    for op in (tg.relu, tg.abs):
        x = tg.tensor([-1.0, 0.0, 2.0], requires_grad=True, backend=backend)
        op(x).sum().backward()
        assert x.grad is not None
        assert x.grad.tolist()[1:] == [0, 1]


def test_power_at_zero(backend: Backend) -> None:
    """x⁰ is 1 with slope 0, x¹ has slope 1, 0 to a power has slope 0 by the power."""
    x = tg.tensor([0.0, 2.0], requires_grad=True, backend=backend)
    powers = [(0, [0, 0]), (1, [1, 1]), (2, [0, 4]), (3, [0, 12])]
    for power, slopes in powers:
        x.grad = None
        (x**power).sum().backward()
        assert x.grad is not None
        assert x.grad.tolist() == slopes
    y = tg.tensor([2.0, 3.0], requires_grad=True, backend=backend)
    (0 * x.detach() ** y).sum().backward()
    assert y.grad is not None
    assert y.grad.tolist() == [0, 0]


def test_number_base_is_exact_in_float64(backend: Backend) -> None:
    y = tg.tensor(np.array([1.0, 2.0]), requires_grad=True, backend=backend)
    (3**y).sum().backward()
    assert y.grad is not None
    np.testing.assert_allclose(on_host(y.grad), np.log(3) * np.array([3.0, 9.0]), rtol=1e-14)


def test_power_of_integers(backend: Backend) -> None:
    """An integer exponent keeps integers, a float one makes floats, whatever its value."""
    x = tg.tensor([1, 4], backend=backend)
    for power in (2, 3):
        assert ((x**power).dtype, (x**power).tolist()) == (np.int64, [1, 4**power])
    for exponent, expected in ((2.0, 16), (0.5, 2), (1.5, 8), (-1.0, 0.25)):
        assert ((x**exponent).dtype, (x**exponent).tolist()) == (F32, [1, expected])


def test_nan_gradients_pass(backend: Backend) -> None:
    """A NaN that comes back goes through every activation."""
    for op in (tg.relu, tg.sigmoid, tg.tanh, tg.exp):
        x = tg.tensor([1.0, 2.0], requires_grad=True, backend=backend)
        op(x).backward(tg.tensor([np.nan, 1.0], backend=backend))
        assert x.grad is not None
        assert np.isnan(x.grad.tolist()).tolist() == [True, False]


# ---- the strict backend


def test_strict_arrays_refuse_the_host(strict: StrictBackend) -> None:
    x = strict.asarray(np.arange(3.0))
    forbidden: list[Callable[[], Any]] = [
        lambda: np.asarray(x),
        lambda: float(x[0]),
        lambda: int(x[0]),
        lambda: bool(x[0] > 1),
        lambda: list(x),
        lambda: x[0].item(),
        lambda: x + np.arange(3.0),
        lambda: strict.xp.add(x, np.arange(3.0)),
        lambda: x[x > 1],
        lambda: np.sum(x),
    ]
    for attempt in forbidden:
        with pytest.raises(Sync):
            attempt()
    with pytest.raises(TypeError):
        np.add(x, 1)
    with pytest.raises(TypeError):
        np.arange(3.0) * x
    assert isinstance(np.float64(2) * x, StrictArray)


@rows
def test_no_transfers_in_an_op(row: Row, strict: StrictBackend) -> None:
    """Forward, backward and second backward stay on the device."""
    for found in cases_of(row):
        inputs = tensors(row, found, strict)
        targets = [x for x in inputs if isinstance(x, Tensor) and x.requires_grad]
        with transfers(strict) as crossed, np.errstate(over="ignore", under="ignore"):
            results = several(row.op(*inputs, **found.static))
            if targets:
                loss = sum(y.square().sum() for y in results if y.requires_grad)
                once = grad(loss, targets, create_graph=True)
                again = sum(dX.square().sum() for dX in once)
                if again.requires_grad:
                    grad(again, targets, allow_unused=True)
        assert crossed == [], described(row, found)


def test_training_step_without_transfers(strict: StrictBackend) -> None:
    """conv → pool → batch norm → relu → linear → cross entropy, and both optimizers."""
    parameters = [
        tg.tensor(np.random.default_rng(0).standard_normal(s), F32, True, strict)
        for s in [(4, 1, 3, 3), (4,), (4,), (4,), (10, 36), (10,)]
    ]
    kernel, bias, weight, shift, matrix, offset = parameters
    buffers = [tg.zeros(p.shape, backend=strict) for p in parameters]
    more = [tg.zeros(p.shape, backend=strict) for p in parameters]
    x = tg.rand(8, 1, 8, 8, backend=strict)
    target = tg.tensor([1, 2, 3, 4, 5, 6, 7, 8], backend=strict)

    def step() -> Tensor:
        h = F.max_pool2d(F.conv2d(x, kernel, bias), 2)
        h = F.dropout(Tensor.relu(networks.batch_norm(h, weight, shift, 1e-5)[0]), 0.1)
        losses, _ = networks.cross_entropy(products.linear(h.flatten(1), matrix, offset), target)
        loss = losses.mean()
        for p in parameters:
            p.grad = None
        loss.backward()
        lists = [[p.array for p in parameters], [p.grad.array for p in parameters]]
        lists += [[b.array for b in buffers], [b.array for b in more], []]
        adam = {"lr": 0.01, "beta1": 0.9, "beta2": 0.99, "eps": 1e-8, "weight_decay": 0.0}
        adam |= {"decoupled_weight_decay": False, "maximize": False, "step": 1}
        call(strict, "adam_", lists, adam)
        for p in parameters:
            p.version[0] += 1
        return loss

    losses = []
    for _ in range(5):
        with transfers(strict) as crossed:
            loss = step()
        assert crossed == []
        losses.append(loss.item())
    assert losses[-1] < losses[0]


OPTIMIZERS: list[Callable[[Any], optim.Optimizer]] = [
    lambda parameters: optim.SGD(parameters, lr=0.05),
    lambda parameters: optim.SGD(parameters, lr=0.05, momentum=0.9, nesterov=True),
    lambda parameters: optim.Adam(parameters, lr=0.01, weight_decay=1e-4),
    lambda parameters: optim.AdamW(parameters, lr=0.01, amsgrad=True),
    lambda parameters: optim.Adagrad(parameters, lr=0.05),
    lambda parameters: optim.Adadelta(parameters, weight_decay=1e-4),
    lambda parameters: optim.RMSprop(parameters, lr=0.001, momentum=0.9, centered=True),
]
NAMES = ["sgd", "momentum", "adam", "adamw", "adagrad", "adadelta", "rmsprop"]


@pytest.mark.parametrize("optimizer_of", OPTIMIZERS, ids=NAMES)
def test_training_of_modules_without_transfers(
    optimizer_of: Callable[[Any], optim.Optimizer], strict: StrictBackend
) -> None:
    with use_backend(strict):
        tg.manual_seed(0)
        model = nn.Sequential(
            nn.Conv2d(1, 4, 3),
            nn.MaxPool2d(2),
            nn.BatchNorm2d(4),
            nn.ReLU(),
            nn.Flatten(),
            nn.Dropout(0.1),
            nn.Linear(36, 10),
        )
        optimizer = optimizer_of(model.parameters())
        x = tg.rand(8, 1, 8, 8)
        target = tg.tensor([1, 2, 3, 4, 5, 6, 7, 8])
        losses = []
        for _ in range(10):
            with transfers(strict) as crossed:
                optimizer.zero_grad()
                loss = nn.functional.cross_entropy(model(x), target)
                loss.backward()
                optimizer.step()
            assert crossed == []
            losses.append(loss.item())
    assert losses[-1] < losses[0]
