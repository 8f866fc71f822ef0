"""What a table cannot say of the losses: ignored classes, ends of the scale, bad input."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import tinygrad_mnist as tg
import tinygrad_mnist.nn.functional as F
from tinygrad_mnist.autograd.backward import grad
from tinygrad_mnist.kernels import Backend
from tinygrad_mnist.tensor import Tensor

DTYPES = ["float32", "float64"]
OF_CLASSES = [F.cross_entropy, F.nll_loss]
OF_PAIRS = [
    F.mse_loss,
    F.l1_loss,
    F.smooth_l1_loss,
    F.huber_loss,
    F.binary_cross_entropy,
    F.binary_cross_entropy_with_logits,
    F.kl_div,
]


def by_name(function: Any) -> str:
    return getattr(function, "__name__", str(function))


def slopes(loss: Tensor, x: Tensor) -> Any:
    return grad(loss.sum(), [x])[0].tolist()


# ---- classes that do not count


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("loss", OF_CLASSES, ids=by_name)
def test_an_ignored_row_adds_nothing(
    loss: Callable[..., Tensor], dtype: str, backend: Backend
) -> None:
    """Not even where its input is NaN; the mean is that of the other rows."""
    values = np.random.default_rng(0).standard_normal((4, 3))
    values[1] = np.nan
    x = tg.tensor(values, dtype, requires_grad=True, backend=backend)
    target = tg.tensor([2, -100, 0, -100], backend=backend)
    others = loss(x.detach()[::2], target[::2], reduction="none").tolist()
    each = loss(x, target, reduction="none")
    assert each.tolist() == pytest.approx([others[0], 0, others[1], 0], rel=1e-6, abs=0)
    assert loss(x, target).item() == pytest.approx(sum(others) / 2, rel=1e-6)
    assert loss(x, target, reduction="sum").item() == pytest.approx(sum(others), rel=1e-6)
    found = slopes(each, x)
    assert found[1] == found[3] == [0, 0, 0]
    assert np.isfinite(found).all()


@pytest.mark.parametrize("ignore_index", [-100, -1, 0, 3])
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("loss", OF_CLASSES, ids=by_name)
def test_all_rows_ignored(
    loss: Callable[..., Tensor], weighted: bool, ignore_index: int, backend: Backend
) -> None:
    """0 by sum, NaN by mean, as in PyTorch, and no warning from NumPy; no slope either."""
    x = tg.rand(2, 3, requires_grad=True, backend=backend)
    weight = tg.ones(3, backend=backend) if weighted else None
    target = tg.full((2,), ignore_index, dtype="int64", backend=backend)
    static = {"ignore_index": ignore_index}
    assert np.isnan(loss(x, target, weight, **static).item())
    total = loss(x, target, weight, reduction="sum", **static)
    assert total.item() == 0
    assert slopes(total, x) == [[0, 0, 0], [0, 0, 0]]


def test_all_rows_ignored_with_smoothing(backend: Backend) -> None:
    x = tg.rand(2, 3, backend=backend)
    target = tg.full((2,), -100, dtype="int64", backend=backend)
    assert np.isnan(F.cross_entropy(x, target, label_smoothing=0.1).item())
    assert F.cross_entropy(x, target, reduction="sum", label_smoothing=0.1).item() == 0


@pytest.mark.parametrize("label", [3, -1, -99, 100])
@pytest.mark.parametrize("loss", OF_CLASSES, ids=by_name)
def test_other_classes_are_still_out_of_range(
    loss: Callable[..., Tensor], label: int, backend: Backend
) -> None:
    x, target = tg.rand(3, 3, backend=backend), tg.tensor([0, -100, label], backend=backend)
    with pytest.raises(IndexError, match=rf"{loss.__name__}.*{label}.*0 to 2"):
        loss(x, target).item()
    with pytest.raises(IndexError, match=rf"{loss.__name__}.*-100.*0 to 2"):
        loss(x, tg.tensor([0, -100, 1], backend=backend), ignore_index=2).item()


def test_bytes_are_classes_too(backend: Backend) -> None:
    x, target = tg.rand(2, 3, 4, backend=backend), np.random.default_rng(0).integers(0, 3, (2, 4))
    for loss in OF_CLASSES:
        whole = loss(x, tg.tensor(target, backend=backend))
        assert loss(x, tg.tensor(target.astype(np.uint8), backend=backend)).item() == whole.item()


# ---- the ends of the scale


@pytest.mark.parametrize("dtype", DTYPES)
def test_cross_entropy_of_far_logits(dtype: str, backend: Backend) -> None:
    x = tg.tensor([[1e4, -1e4], [-1e4, 1e4]], dtype, requires_grad=True, backend=backend)
    target = tg.tensor([0, 0], backend=backend)
    each = F.cross_entropy(x, target, reduction="none")
    assert each.tolist() == [0, 2e4]
    assert slopes(each, x) == [[0, 0], [-1, 1]]
    smoothed = F.cross_entropy(x, target, reduction="none", label_smoothing=0.5)
    assert smoothed.tolist() == pytest.approx([5e3, 1.5e4])


@pytest.mark.parametrize("dtype", DTYPES)
def test_binary_cross_entropy_of_far_logits(dtype: str, backend: Backend) -> None:
    logits = [1e4, 1e4, -1e4, -1e4, 20.0, -20.0, 0.0]
    x = tg.tensor(logits, dtype, requires_grad=True, backend=backend)
    target = tg.tensor([1.0, 0.0, 1.0, 0.0, 1.0, 0.0, 1.0], dtype, backend=backend)
    each = F.binary_cross_entropy_with_logits(x, target, reduction="none")
    tail = float(np.log1p(np.exp(-20)))
    assert each.tolist() == pytest.approx([0, 1e4, 1e4, 0, tail, tail, np.log(2)], rel=1e-6, abs=0)
    small = 1 / (1 + np.exp(20))  # lost to rounding where it is computed as sigmoid − target
    found = slopes(each, x)
    assert found == pytest.approx([0, 1, -1, 0, -small, small, -0.5], rel=1e-6, abs=0)


@pytest.mark.parametrize("pos_weight", [None, 3.0])
def test_the_logits_loss_is_smooth_at_zero(pos_weight: float | None, backend: Backend) -> None:
    """Zeros are what a layer that starts with zeros gives: slopes of both orders are exact."""
    target = tg.tensor([0.0, 0.25, 1.0], "float64", backend=backend)
    x = tg.zeros(3, dtype="float64", requires_grad=True, backend=backend)
    weight = None if pos_weight is None else tg.tensor(pos_weight, "float64", backend=backend)
    loss = F.binary_cross_entropy_with_logits(x, target, reduction="sum", pos_weight=weight)
    (first,) = grad(loss, [x], create_graph=True)
    t, w = np.array([0.0, 0.25, 1.0]), pos_weight or 1.0
    assert first.tolist() == pytest.approx(list((1 - t - w * t) / 2))
    assert slopes(first, x) == pytest.approx(list((1 - t + w * t) / 4))


def test_binary_cross_entropy_at_its_ends(backend: Backend) -> None:
    """Logarithms are at least −100, slopes those of a divisor of at least 10⁻¹²."""
    x = tg.tensor([0.0, 0.0, 1.0, 1.0], requires_grad=True, backend=backend)
    target = tg.tensor([0.0, 1.0, 0.0, 1.0], requires_grad=True, backend=backend)
    each = F.binary_cross_entropy(x, target, reduction="none")
    assert each.tolist() == [0, 100, 100, 0]
    by_x, by_target = grad(each.sum(), [x, target])
    assert by_x.tolist() == pytest.approx([0, -1e12, 1e12, 0])
    assert by_target.tolist() == [100, 100, -100, -100]


def test_binary_cross_entropy_outside_of_its_range(backend: Backend) -> None:
    x = tg.tensor([-0.5, 1.5, np.nan, 0.5], backend=backend)
    with np.errstate(invalid="ignore"):
        each = F.binary_cross_entropy(x, tg.full((4,), 0.5, backend=backend), reduction="none")
    assert np.isnan(each.tolist()).tolist() == [True, True, True, False]


@pytest.mark.parametrize("dtype", DTYPES)
def test_huber_of_what_overflows_squared(dtype: str, backend: Backend) -> None:
    x = tg.tensor([1e30, -np.inf, 0.0], dtype, requires_grad=True, backend=backend)
    for loss in (F.huber_loss, F.smooth_l1_loss):
        each = loss(x, tg.zeros(3, dtype=dtype, backend=backend), reduction="none")
        assert each.tolist() == pytest.approx([1e30, np.inf, 0])
        assert slopes(each, x) == [1, -1, 0]


@pytest.mark.parametrize("beta", [0.5, 2.0])
def test_smooth_l1_is_smooth_at_zero(beta: float, backend: Backend) -> None:
    x = tg.zeros(2, requires_grad=True, backend=backend)
    loss = F.smooth_l1_loss(x, tg.zeros(2, backend=backend), reduction="sum", beta=beta)
    (first,) = grad(loss, [x], create_graph=True)
    assert slopes(first, x) == [1 / beta, 1 / beta]


def test_slopes_of_l1_at_its_kink(backend: Backend) -> None:
    x = tg.tensor([1.0, 2.0, 3.0], requires_grad=True, backend=backend)
    target = tg.full((3,), 2.0, backend=backend)
    for loss in (F.l1_loss(x, target), F.smooth_l1_loss(x, target, beta=0)):
        assert slopes(loss * 3, x) == [-1, 0, 1]


def test_kl_div_of_certain_targets(backend: Backend) -> None:
    """What cannot happen adds nothing, whatever was expected of it."""
    x = tg.tensor([-1.0, -2.0, -3.0], requires_grad=True, backend=backend)
    target = tg.tensor([0.0, 1.0, 0.0], requires_grad=True, backend=backend)
    each = F.kl_div(x, target, reduction="none")
    assert each.tolist() == [0, 2, 0]
    by_x, by_target = grad(each.sum(), [x, target])
    assert by_x.tolist() == [0, -1, 0]
    assert by_target.tolist() == [1, 3, 3]


def test_a_mean_of_nothing_is_nan(backend: Backend) -> None:
    none = tg.zeros(0, 3, backend=backend)
    for loss in OF_PAIRS:
        assert np.isnan(loss(none, none).item())
        assert loss(none, none, reduction="sum").item() == 0
    for of_classes in OF_CLASSES:
        target = tg.zeros(0, dtype="int64", backend=backend)
        assert np.isnan(of_classes(none, target).item())
    assert np.isnan(F.kl_div(none, none, reduction="batchmean").item())


# ---- dtypes


@pytest.mark.parametrize("loss", OF_PAIRS[:4], ids=by_name)
def test_targets_may_be_integers(loss: Callable[..., Tensor], backend: Backend) -> None:
    x, target = tg.rand(3, backend=backend), tg.tensor([0, 1, 2], backend=backend)
    y = loss(x, target)
    assert (y.dtype, y.item()) == (np.float32, loss(x, target.float()).item())
    assert loss(x, target.double()).dtype == np.float64


@pytest.mark.parametrize("loss", OF_PAIRS, ids=by_name)
def test_integers_alone_are_refused(loss: Callable[..., Tensor], backend: Backend) -> None:
    x = tg.tensor([0, 1, 2], backend=backend)
    with pytest.raises(TypeError, match=rf"{loss.__name__}: expected .*int64.*cast .*float|\.to\("):
        loss(x, x)


# ---- bad input


@pytest.mark.parametrize("loss", [*OF_PAIRS, *OF_CLASSES], ids=by_name)
def test_unknown_reductions(loss: Callable[..., Tensor], backend: Backend) -> None:
    x = tg.rand(2, 3, backend=backend)
    target = tg.tensor([0, 1], backend=backend) if loss in OF_CLASSES else x
    for reduction in ("average", "batchmean", None, ""):
        if (loss, reduction) != (F.kl_div, "batchmean"):
            with pytest.raises(ValueError, match=rf"{loss.__name__}: reduction .*{reduction!r}"):
                loss(x, target, reduction=reduction)


@pytest.mark.parametrize("loss", OF_PAIRS, ids=by_name)
def test_shapes_that_would_broadcast(loss: Callable[..., Tensor], backend: Backend) -> None:
    """A column beside a row is a mistake that trains, badly: both shapes are named."""
    x, target = tg.rand(4, 1, backend=backend), tg.rand(4, backend=backend)
    with pytest.raises(ValueError, match=rf"{loss.__name__}: .*\(4, 1\), target \(4,\)"):
        loss(x, target)


@pytest.mark.parametrize("loss", [*OF_PAIRS, *OF_CLASSES], ids=by_name)
def test_what_is_no_tensor(loss: Callable[..., Tensor], backend: Backend) -> None:
    x = tg.rand(2, 3, backend=backend)
    for given, named in (((x, [0, 1]), "target, got list"), ((1.0, x), "input, got float")):
        with pytest.raises(TypeError, match=rf"{loss.__name__}: .*{named}; make one with tensor"):
            loss(*given)


WRONG = [
    ("float classes", (2, 3), ("float32", 2), None, TypeError, r"got float32; use target.long\(\)"),
    ("int32 classes", (2, 3), ("int32", 2), None, TypeError, r"got int32; use target.long\(\)"),
    ("too few", (2, 3), ("int64", 1), None, ValueError, r"classes \(2,\).*\(2, 3\), got \(1,\)"),
    ("too many", (3,), ("int64", 1), None, ValueError, r"classes \(\).*\(3,\), got \(1,\)"),
    (
        "planes",
        (2, 3, 4),
        ("int64", 2, 5),
        None,
        ValueError,
        r"\(2, 4\).*\(2, 3, 4\), got \(2, 5\)",
    ),
    ("a column", (2, 3, 4), ("int64", 2, 1), None, ValueError, r"classes \(2, 4\).*got \(2, 1\)"),
    ("no classes", (2, 0), ("int64", 2), None, ValueError, r"at least one class, got .*\(2, 0\)"),
    ("0-d", (), ("int64",), None, ValueError, r"\(N, C, …\) or \(C,\).*got \(\)"),
    ("weights", (2, 3), ("int64", 2), ("float32", 2), ValueError, r"weight float \(C\).*\(2,\)"),
    ("a weight", (3,), ("int64",), ("float32",), ValueError, r"weight float \(C\).*weight \(\)"),
    ("wide", (2, 3), ("int64", 2), ("float64", 3), TypeError, r"dtypes differ.*weight float64"),
]


@pytest.mark.parametrize("loss", OF_CLASSES, ids=by_name)
@pytest.mark.parametrize(
    ("shape", "target", "weight", "error", "says"),
    [wrong[1:] for wrong in WRONG],
    ids=[wrong[0].replace(" ", "_") for wrong in WRONG],
)
def test_classes_that_do_not_fit(
    loss: Callable[..., Tensor],
    shape: Any,
    target: Any,
    weight: Any,
    error: type[Exception],
    says: str,
    backend: Backend,
) -> None:
    def zeros(given: Any) -> Tensor | None:
        if given is None:
            return None
        dtype, *sizes = given
        return tg.zeros(tuple(sizes), dtype=dtype, backend=backend)

    x = zeros(("float32", *shape))
    with pytest.raises(error, match=rf"{loss.__name__}: .*{says}"):
        loss(x, zeros(target), zeros(weight))


def test_probabilities_that_do_not_fit(backend: Backend) -> None:
    x = tg.rand(2, 3, backend=backend)
    with pytest.raises(TypeError, match=r"cross_entropy: .*int64; use target.float\(\)"):
        F.cross_entropy(x, x.long())
    with pytest.raises(ValueError, match=r"cross_entropy: ignore_index=1 .*classes"):
        F.cross_entropy(x, x, ignore_index=1)
    with pytest.raises(ValueError, match=r"or probabilities \(2, 3\).*got \(2, 2\)"):
        F.cross_entropy(x, tg.rand(2, 2, backend=backend))
    for given in (x, tg.rand(2, backend=backend)):
        with pytest.raises((TypeError, ValueError), match=r"nll_loss: expected .*target"):
            F.nll_loss(x, given)
    with pytest.raises(TypeError, match=r"cross_entropy: expected float input, got .*int64"):
        F.cross_entropy(x.long(), tg.tensor([0, 1], backend=backend), label_smoothing=0.1)


@pytest.mark.parametrize("share", [-0.1, 1.1, float("nan")])
def test_label_smoothing_outside_of_its_range(share: float, backend: Backend) -> None:
    x, target = tg.rand(2, 3, backend=backend), tg.tensor([0, 1], backend=backend)
    with pytest.raises(ValueError, match=rf"cross_entropy: label_smoothing .*0 to 1, got {share}"):
        F.cross_entropy(x, target, label_smoothing=share)


def test_other_numbers_out_of_range(backend: Backend) -> None:
    x = tg.rand(3, backend=backend)
    with pytest.raises(ValueError, match=r"smooth_l1_loss: expected beta .*-1"):
        F.smooth_l1_loss(x, x, beta=-1)
    with pytest.raises(ValueError, match=r"huber_loss: expected delta above 0, got 0"):
        F.huber_loss(x, x, delta=0)
    for loss in OF_CLASSES:
        with pytest.raises(TypeError, match=rf"{loss.__name__}: ignore_index .*integer, got 'sum'"):
            loss(tg.rand(2, 3, backend=backend), tg.arange(2, backend=backend), None, "sum")


def test_weights_that_do_not_fit(backend: Backend) -> None:
    x, wide = tg.rand(2, 3, backend=backend), tg.rand(4, 2, 3, backend=backend)
    attempts: list[Callable[[Any], Any]] = [
        lambda w: F.mse_loss(x, x, weight=w),
        lambda w: F.l1_loss(x, x, weight=w),
        lambda w: F.huber_loss(x, x, weight=w),
        lambda w: F.binary_cross_entropy(x, x, w),
        lambda w: F.binary_cross_entropy_with_logits(x, x, w),
        lambda w: F.binary_cross_entropy_with_logits(x, x, pos_weight=w),
    ]
    for attempt in attempts:
        with pytest.raises(
            ValueError, match=r"\w+: expected \w*weight .*\(2, 3\), got \(4, 2, 3\)"
        ):
            attempt(wide)
        with pytest.raises(TypeError, match=r"\w+: expected a tensor as \w*weight, got float"):
            attempt(2.0)
