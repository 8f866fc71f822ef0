"""nn.init: bounds, moments, gains; the same numbers on every backend."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import tinygrad_mnist as tg
from tinygrad_mnist import nn
from tinygrad_mnist.nn import init
from tinygrad_mnist.testing import assert_close

NAMES = [
    "linear", "conv1d", "conv2d", "conv3d", "conv_transpose1d", "conv_transpose2d",
    "conv_transpose3d", "sigmoid", "tanh", "relu", "leaky_relu", "selu",
]  # fmt: skip

FILL: dict[str, Callable[..., tg.Tensor]] = {
    "uniform_": lambda x, **more: init.uniform_(x, -2, 3, **more),
    "normal_": lambda x, **more: init.normal_(x, 1, 2, **more),
    "trunc_normal_": lambda x, **more: init.trunc_normal_(x, 0.5, 2, -1, 3, **more),
    "xavier_uniform_": init.xavier_uniform_,
    "xavier_normal_": init.xavier_normal_,
    "kaiming_uniform_": init.kaiming_uniform_,
    "kaiming_normal_": init.kaiming_normal_,
    "orthogonal_": init.orthogonal_,
}


def filled(fill: Callable[..., tg.Tensor], *shape: int, **more: Any) -> np.ndarray:
    tg.manual_seed(0)
    x = tg.zeros(shape, dtype=tg.float64)
    assert fill(x, **more) is x
    return x.numpy()


# ---- gains


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("param", [None, 0, 0.2])
def test_gains_are_pytorchs(name: str, param: float | None) -> None:
    torch = pytest.importorskip("torch", reason="PyTorch is not installed")
    assert init.calculate_gain(name, param) == torch.nn.init.calculate_gain(name, param)


def test_the_gain_of_a_leaky_relu_follows_its_slope() -> None:
    assert init.calculate_gain("leaky_relu", 1.0) == 1
    assert init.calculate_gain("leaky_relu", 0) == init.calculate_gain("relu") == math.sqrt(2)


# ---- distributions


@pytest.mark.parametrize(
    ("fill", "bound"),
    [
        (lambda x: init.uniform_(x, -0.5, 0.5), 0.5),
        (lambda x: init.xavier_uniform_(x, gain=2), 2 * math.sqrt(6 / (40 * 9 + 60 * 9))),
        (init.kaiming_uniform_, math.sqrt(6 / (40 * 9))),
        (lambda x: init.kaiming_uniform_(x, 0, "fan_out", "tanh"), 5 / 3 * math.sqrt(3 / 540)),
        (lambda x: init.kaiming_uniform_(x, math.sqrt(5)), 1 / math.sqrt(360)),
    ],
)
def test_uniform_numbers_fill_their_bounds(fill: Any, bound: float) -> None:
    x = filled(fill, 60, 40, 3, 3)
    assert 0.999 * bound < x.max() <= bound
    assert -bound <= x.min() < -0.999 * bound
    assert abs(x.mean()) < 0.02 * bound
    assert x.std() == pytest.approx(bound / math.sqrt(3), rel=0.01)


@pytest.mark.parametrize(
    ("fill", "mean", "std"),
    [
        (lambda x: init.normal_(x, 3, 0.5), 3, 0.5),
        (lambda x: init.xavier_normal_(x, gain=2), 0, 2 * math.sqrt(2 / (40 * 9 + 60 * 9))),
        (init.kaiming_normal_, 0, math.sqrt(2 / (40 * 9))),
        (lambda x: init.kaiming_normal_(x, 0.5, "fan_out"), 0, math.sqrt(1.6 / 540)),
        (lambda x: init.kaiming_normal_(x, nonlinearity="linear"), 0, 1 / math.sqrt(360)),
    ],
)
def test_normal_numbers_have_their_moments(fill: Any, mean: float, std: float) -> None:
    x = (filled(fill, 60, 40, 3, 3) - mean) / std
    assert abs(x.mean()) < 0.02
    assert x.std() == pytest.approx(1, rel=0.02)
    assert (x**4).mean() == pytest.approx(3, rel=0.05)


@pytest.mark.parametrize(
    ("mean", "std", "a", "b"),
    [
        (0.0, 1.0, -2.0, 2.0),
        (0.0, 0.02, -2.0, 2.0),
        (1.0, 2.0, -1.0, 1.5),
        (0.0, 1.0, 5.0, 9.0),  # only the tail
        (0.0, 1.0, -60.0, -40.0),
        (0.0, 1.0, -0.001, 0.001),
        (2.0, 3.0, -math.inf, math.inf),
        (0.0, 1.0, 1.0, 1.0),
    ],
)
def test_truncated_normal_numbers_are_those_within_the_bounds(
    mean: float, std: float, a: float, b: float
) -> None:
    x = filled(lambda t: init.trunc_normal_(t, mean, std, a, b), 40000)
    assert a <= x.min()
    assert x.max() <= b
    stats = pytest.importorskip("scipy.stats", reason="SciPy, the reference, is not installed")
    if a < b:
        expected = stats.truncnorm((a - mean) / std, (b - mean) / std, mean, std)
        assert stats.kstest(x, expected.cdf).pvalue > 0.001


@pytest.mark.parametrize("shape", [(5, 3), (3, 5), (4, 4), (6, 2, 3), (4, 3, 2, 2)])
def test_orthogonal_rows_or_columns(shape: tuple[int, ...]) -> None:
    x = filled(lambda t: init.orthogonal_(t, gain=2), *shape).reshape(shape[0], -1) / 2
    product = x @ x.T if x.shape[0] < x.shape[1] else x.T @ x
    np.testing.assert_allclose(product, np.eye(min(x.shape)), atol=1e-12)


def test_orthogonal_matrices_favour_no_sign() -> None:
    corners = [filled(init.orthogonal_, 3, 3)[0, 0]]
    corners += [init.orthogonal_(tg.zeros(3, 3))[0, 0].item() for _ in range(400)]
    assert abs(np.mean(np.array(corners) > 0) - 0.5) < 0.1


def test_of_one_number() -> None:
    x = tg.ones(2, 3)
    assert init.zeros_(x).tolist() == [[0.0] * 3] * 2
    assert init.ones_(x).tolist() == [[1.0] * 3] * 2
    assert init.constant_(x, 0.5).tolist() == [[0.5] * 3] * 2
    assert init.eye_(x).tolist() == [[1.0, 0.0, 0.0], [0.0, 1.0, 0.0]]


# ---- seeds and backends


@pytest.mark.parametrize("name", FILL)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_the_same_numbers_on_every_backend(name: str, dtype: str, usable: list[Any]) -> None:
    drawn = []
    for backend in usable:
        tg.manual_seed(3)
        x = FILL[name](tg.zeros(4, 5, dtype=dtype, backend=backend))
        assert x.backend is backend
        drawn.append(backend.to_numpy(x.array))
    assert drawn[0].std() > 0
    for other in drawn[1:]:
        np.testing.assert_array_equal(other, drawn[0])


@pytest.mark.parametrize("name", FILL)
def test_a_generator_of_its_own(name: str) -> None:
    source = tg.Generator().manual_seed(7)
    first = filled(FILL[name], 4, 5, generator=source)
    second = filled(FILL[name], 4, 5, generator=source)
    again = filled(FILL[name], 4, 5, generator=source.manual_seed(7))
    np.testing.assert_array_equal(first, again)
    assert (first != second).any()
    tg.manual_seed(0)
    untouched = tg.random.generator().random()
    tg.manual_seed(0)
    filled(FILL[name], 4, 5, generator=source)
    assert tg.random.generator().random() == untouched


@pytest.mark.parametrize("name", FILL)
def test_a_parameter_stays_a_leaf_and_its_graph_is_told(name: str) -> None:
    x = nn.Parameter(tg.ones(4, 5))
    y = (x * x).sum()
    array = x.array
    FILL[name](x)
    assert x.array is array
    assert x.is_leaf
    assert x.requires_grad
    with pytest.raises(RuntimeError, match="changed"):
        y.backward()


def test_nothing_to_fill() -> None:
    for fill in FILL.values():
        assert fill(tg.zeros(0, 3)).shape == (0, 3)


def test_a_matrix_of_one_row_is_filled_like_any() -> None:
    assert_close(init.orthogonal_(tg.zeros(1, 1)).abs(), tg.ones(1, 1))


# ---- bad input


@pytest.mark.parametrize(
    ("attempt", "error", "message"),
    [
        (
            lambda x: init.calculate_gain("leaky_rely"),
            ValueError,
            "calculate_gain: nonlinearity must be one of .*'leaky_rely'; did you mean 'leaky_relu'",
        ),
        (lambda x: init.calculate_gain("leaky_relu", "a"), TypeError, "number as param, got str"),
        (
            lambda x: init.kaiming_normal_(x, nonlinearity="Tanh"),
            ValueError,
            "did you mean 'tanh'",
        ),
        (
            lambda x: init.kaiming_uniform_(x, mode="fanin"),
            ValueError,
            "kaiming_uniform_: mode must be one of fan_in, fan_out, got 'fanin'; did you mean",
        ),
        (lambda x: init.uniform_(x, 1, 0), ValueError, "uniform_: expected a ≤ b, got 1 and 0"),
        (
            lambda x: init.uniform_(x, 0, math.inf),
            ValueError,
            "uniform_: a, b and b - a must lie within float32, got 0.0 and inf",
        ),
        (lambda x: init.uniform_(x, -3e38, 3e38), ValueError, "within float32, got -3e"),
        (lambda x: init.uniform_(x.double(), -1e308, 1e308), ValueError, "within float64, got"),
        (lambda x: init.uniform_(x, 1e300, 1e300), ValueError, "within float32, got 1e"),
        (lambda x: init.xavier_uniform_(x, math.inf), ValueError, "within float32, got -inf"),
        (lambda x: init.uniform_(x, "a"), TypeError, "uniform_: expected a number as a, got str"),
        (lambda x: init.normal_(x, 0, -1), ValueError, "normal_: std must be at least 0, got -1"),
        (lambda x: init.trunc_normal_(x, a=2, b=1), ValueError, "expected a ≤ b, got 2 and 1"),
        (lambda x: init.trunc_normal_(x, std=0), ValueError, "std must be above 0, got 0"),
        (lambda x: init.xavier_normal_(x[0]), ValueError, r"xavier_normal_: .*2 dims.*\(3,\)"),
        (lambda x: init.kaiming_normal_(x[0]), ValueError, r"kaiming_normal_: .*2 dims.*\(3,\)"),
        (lambda x: init.orthogonal_(x[0]), ValueError, r"orthogonal_: .*2 dims.*\(3,\)"),
        (lambda x: init.eye_(x[0]), ValueError, r"eye_: expected tensor \(n, m\), got .*\(3,\)"),
        (lambda x: init.uniform_(x.long()), TypeError, "expected float tensor, got tensor int64"),
        (lambda x: init.normal_(np.ones(3)), TypeError, "as tensor, got ndarray"),
        (lambda x: init.normal_(x, generator=3), TypeError, "normal_: expected a .*Generator.*int"),
    ],
)
def test_bad_input_is_named_and_nothing_is_written(
    attempt: Callable[[tg.Tensor], Any], error: type[Exception], message: str
) -> None:
    x = tg.ones(2, 3)
    with pytest.raises(error, match=message):
        attempt(x)
    assert x.tolist() == [[1.0] * 3] * 2
