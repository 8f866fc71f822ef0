"""nn.utils: clipped gradients, and parameters as one vector."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from strict_backend import StrictBackend, transfers

import tinygrad_mnist as tg
from tinygrad_mnist import nn
from tinygrad_mnist.kernels import Backend
from tinygrad_mnist.nn import utils

SHAPES = [(3, 4), (5,), (), (0,), (2, 1, 3)]
NORMS = [1, 2, 3, 0.5, math.inf]


def arrays(seed: int = 0) -> list[np.ndarray]:
    rng = np.random.default_rng(seed)
    return [np.asarray(rng.normal(size=shape)) for shape in SHAPES]


def parameters(grads: list[np.ndarray], backend: Any = "numpy") -> list[nn.Parameter]:
    """Parameters with these gradients, and one without."""
    found = [nn.Parameter(tg.zeros(g.shape, dtype=g.dtype, backend=backend)) for g in grads]
    for p, g in zip(found, grads, strict=True):
        p.grad = tg.tensor(g, backend=backend)
    return [*found, nn.Parameter(tg.zeros(2, backend=backend))]


def gradients(params: list[Any]) -> list[np.ndarray]:
    return [p.grad.numpy() for p in params if p.grad is not None]


@pytest.mark.parametrize("max_norm", [0.0, 0.7, 100.0])
@pytest.mark.parametrize("norm_type", NORMS)
def test_clipped_norms_are_pytorchs(norm_type: float, max_norm: float) -> None:
    torch = pytest.importorskip("torch", reason="PyTorch is not installed")
    ours = parameters(arrays())
    theirs = [torch.nn.Parameter(torch.zeros(shape, dtype=torch.float64)) for shape in SHAPES]
    for p, g in zip(theirs, arrays(), strict=True):
        p.grad = torch.tensor(g)
    if norm_type == math.inf:  # PyTorch takes no largest element of an empty gradient
        del theirs[SHAPES.index((0,))]
        del ours[SHAPES.index((0,))]
    found = utils.clip_grad_norm_(ours, max_norm, norm_type)
    expected = torch.nn.utils.clip_grad_norm_(theirs, max_norm, norm_type)
    assert found.shape == ()
    assert found.item() == pytest.approx(expected.item(), rel=1e-12)
    for x, y in zip(gradients(ours), gradients(theirs), strict=True):
        np.testing.assert_allclose(x, y, rtol=1e-12, atol=0)
    rest = [x for x in arrays() if x.shape != (0,)]
    assert utils.get_total_norm([tg.tensor(x) for x in rest], norm_type).item() == found.item()


def test_clipping_writes_into_the_same_arrays(backend: Backend) -> None:
    params = parameters([x.astype("float32") for x in arrays()], backend)
    before = [(p.grad.array, p.grad.version[0]) for p in params if p.grad is not None]
    utils.clip_grad_norm_(iter(params), 0.5)
    utils.clip_grad_value_(iter(params), 0.01)
    for p, (array, version) in zip(params, before, strict=False):
        assert p.grad is not None
        assert p.grad.array is array
        assert p.grad.version[0] == version + 2
        assert np.abs(p.grad.numpy()).max(initial=0) <= np.float32(0.01)


def test_clipping_waits_for_no_device(strict: StrictBackend) -> None:
    params = parameters(arrays(), strict)
    with transfers(strict) as crossed:
        utils.clip_grad_norm_(params, 0.5)
        utils.clip_grad_value_(params, 0.5)
        utils.clip_grad_norm_(params, 0.5, "inf")
        vector = utils.parameters_to_vector(params)
        utils.vector_to_parameters(vector, params)
    assert crossed == []


def test_one_tensor_is_enough() -> None:
    (p, _) = parameters([np.array([3.0, 4.0])])
    assert utils.clip_grad_norm_(p, 1).item() == 5.0
    np.testing.assert_allclose(p.grad.numpy(), [0.6, 0.8], rtol=1e-6)
    utils.clip_grad_value_(p, 0.7)
    assert p.grad.numpy().max() == 0.7
    assert utils.get_total_norm(tg.tensor([3.0, 4.0])).item() == 5.0


@pytest.mark.parametrize("params", [[], [nn.Parameter(tg.ones(2))]])
def test_without_gradients_the_norm_is_0(params: list[nn.Parameter]) -> None:
    assert utils.clip_grad_norm_(params, 1.0, error_if_nonfinite=True).item() == 0.0
    utils.clip_grad_value_(params, 1.0)
    assert all(p.grad is None for p in params)


def test_gradients_of_two_dtypes_keep_theirs() -> None:
    params = parameters([np.array([3.0], np.float32), np.array([4.0])])
    assert utils.clip_grad_norm_(params, 1.0).dtype == np.float64
    assert [g.dtype for g in gradients(params)] == [np.float32, np.float64]
    np.testing.assert_allclose(np.concatenate(gradients(params)), [0.6, 0.8], rtol=1e-6)


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_norm_that_is_not_finite(value: float) -> None:
    params = parameters([np.array([1.0, value])])
    with pytest.raises(RuntimeError, match=r"clip_grad_norm_: the norm of order 2\.0 is (nan|inf)"):
        utils.clip_grad_norm_(params, 1.0, error_if_nonfinite=True)
    assert gradients(params)[0][0] == 1.0
    with np.errstate(invalid="ignore"):  # 0 · inf
        assert not math.isfinite(utils.clip_grad_norm_(params, 1.0).item())


@pytest.mark.parametrize(
    ("use", "error", "message"),
    [
        (lambda p: utils.clip_grad_norm_(p, -1.0), ValueError, "max_norm .* at least 0, got -1.0"),
        (lambda p: utils.clip_grad_norm_(p, math.nan), ValueError, "max_norm .* got nan"),
        (lambda p: utils.clip_grad_norm_(p, "1"), TypeError, "a number as max_norm, got str"),
        (lambda p: utils.clip_grad_norm_(p, 1.0, 0), ValueError, "norm_type .* got 0"),
        (lambda p: utils.clip_grad_norm_([*p, 3], 1.0), TypeError, "expected tensors, .* got int"),
        (lambda p: utils.clip_grad_norm_(p, 1.0, "two"), TypeError, "number as norm_type, got str"),
        (lambda p: utils.clip_grad_norm_(nn.Module(), 1.0), TypeError, "got Module"),
        (lambda p: utils.clip_grad_value_(p, -1), ValueError, "clip_value .* got -1"),
        (
            lambda p: utils.clip_grad_value_([None], 1),
            TypeError,
            r"such as model.parameters\(\), got NoneType",
        ),
        (lambda p: utils.parameters_to_vector([]), ValueError, "at least one parameter, got none"),
        (lambda p: utils.vector_to_parameters(np.ones(2), p), TypeError, "as vec, got ndarray"),
        (
            lambda p: utils.vector_to_parameters(tg.ones(27), p),
            ValueError,
            r"expected vec of shape \(26,\) for these parameters, got \(27,\)",
        ),
    ],
)
def test_a_wrong_use_changes_nothing(
    use: Callable[[Any], Any], error: type[Exception], message: str
) -> None:
    params = parameters(arrays())
    with pytest.raises(error, match=message):
        use(params)
    for x, y in zip(gradients(params), arrays(), strict=True):
        np.testing.assert_array_equal(x, y)
    assert all(not p.detach().numpy().any() for p in params)


def test_two_backends_are_named() -> None:
    params = [*parameters(arrays(), "numpy"), *parameters(arrays(), "numba")]
    message = r"one backend, found 'numpy' and 'numba'; move the module with \.to\(\"numpy\"\)"
    for use in (lambda p: utils.clip_grad_norm_(p, 1.0), utils.parameters_to_vector):
        with pytest.raises(RuntimeError, match=message):
            use(params)


def test_a_vector_of_parameters_there_and_back(backend: Backend) -> None:
    model = nn.Sequential(nn.Linear(2, 3), nn.Linear(3, 1)).to(backend)
    vector = utils.parameters_to_vector(model.parameters())
    joined = np.concatenate([p.detach().numpy().ravel() for p in model.parameters()])
    np.testing.assert_array_equal(vector.detach().numpy(), joined)
    (vector * vector).sum().backward()
    np.testing.assert_array_equal(
        model[0].weight.grad.numpy(), 2 * model[0].weight.detach().numpy()
    )
    before = [p.array for p in model.parameters()]
    utils.vector_to_parameters(vector.detach() + 1, model.parameters())
    assert all(p.array is array for p, array in zip(model.parameters(), before, strict=True))
    found = utils.parameters_to_vector(model.parameters()).detach().numpy()
    np.testing.assert_array_equal(found, joined + 1)
