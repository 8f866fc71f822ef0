"""The layers: what they begin with, what they refuse, and the corners of each.

That they compute what PyTorch's do is in ``test_parity_nn``.
"""

from __future__ import annotations

import copy
import inspect
import pickle
import re
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from strict_backend import StrictBackend, transfers

import tinygrad_mnist as tg
from tinygrad_mnist import nn
from tinygrad_mnist.kernels import Backend
from tinygrad_mnist.nn import functional as F
from tinygrad_mnist.testing import assert_close

# ---- every function has its layer

MODULES = {
    "relu": nn.ReLU,
    "relu6": nn.ReLU6,
    "sigmoid": nn.Sigmoid,
    "tanh": nn.Tanh,
    "elu": nn.ELU,
    "gelu": nn.GELU,
    "hardtanh": nn.Hardtanh,
    "leaky_relu": nn.LeakyReLU,
    "logsigmoid": nn.LogSigmoid,
    "mish": nn.Mish,
    "silu": nn.SiLU,
    "softplus": nn.Softplus,
    "softmax": nn.Softmax,
    "log_softmax": nn.LogSoftmax,
    "softmin": nn.Softmin,
    "binary_cross_entropy": nn.BCELoss,
    "binary_cross_entropy_with_logits": nn.BCEWithLogitsLoss,
    "cross_entropy": nn.CrossEntropyLoss,
    "huber_loss": nn.HuberLoss,
    "kl_div": nn.KLDivLoss,
    "l1_loss": nn.L1Loss,
    "mse_loss": nn.MSELoss,
    "nll_loss": nn.NLLLoss,
    "smooth_l1_loss": nn.SmoothL1Loss,
    "linear": nn.Linear,
    "conv2d": nn.Conv2d,
    "conv_transpose2d": nn.ConvTranspose2d,
    "max_pool2d": nn.MaxPool2d,
    "avg_pool2d": nn.AvgPool2d,
    "adaptive_avg_pool2d": nn.AdaptiveAvgPool2d,
    "batch_norm": nn.BatchNorm2d,
    "layer_norm": nn.LayerNorm,
    "group_norm": nn.GroupNorm,
    "embedding": nn.Embedding,
    "dropout": nn.Dropout,
    "dropout2d": nn.Dropout2d,
}
# Neither activations nor losses, and for scripts that want a function.
FUNCTIONS_ALONE = {
    "conv1d", "fold", "one_hot", "pad", "scaled_dot_product_attention", "unfold",
}  # fmt: skip


def test_every_function_has_its_layer() -> None:
    public = {name for name, f in vars(F).items() if inspect.isfunction(f) and name[0] != "_"}
    assert public == set(MODULES) | FUNCTIONS_ALONE


@pytest.mark.parametrize("name", MODULES)
def test_layers_have_the_options_and_defaults_of_their_functions(name: str) -> None:
    function = inspect.signature(getattr(F, name)).parameters
    layer = inspect.signature(MODULES[name]).parameters
    own = {"bias", "return_indices", "dim"}  # of another meaning, or without a default
    shared = [option for option in layer if option in function and option not in own]
    assert [layer[option].default for option in shared] == [
        function[option].default for option in shared
    ]


# ---- one of each

LAYERS: list[tuple[Callable[[], nn.Module], tuple[int, ...]]] = [
    (lambda: nn.Identity(3), (2, 3)),
    (lambda: nn.Linear(3, 4), (2, 3)),
    (lambda: nn.Conv2d(3, 4, 3), (2, 3, 5, 5)),
    (lambda: nn.ConvTranspose2d(3, 4, 3), (2, 3, 5, 5)),
    (lambda: nn.MaxPool2d(2), (2, 3, 4, 4)),
    (lambda: nn.AvgPool2d(2), (2, 3, 4, 4)),
    (lambda: nn.AdaptiveAvgPool2d(1), (2, 3, 4, 4)),
    (lambda: nn.BatchNorm1d(3), (4, 3)),
    (lambda: nn.BatchNorm2d(3), (2, 3, 4, 4)),
    (lambda: nn.LayerNorm(3), (2, 3)),
    (lambda: nn.GroupNorm(1, 3), (2, 3, 4)),
    (lambda: nn.Flatten(), (2, 3, 4)),
    (lambda: nn.Unflatten(1, (3, 2)), (2, 6)),
    *((lambda c=MODULES[name]: c(), (2, 3)) for name in list(MODULES)[:12]),
    *((lambda c=MODULES[name]: c(1), (2, 3)) for name in list(MODULES)[12:15]),
]


@pytest.mark.parametrize("backend", ["numpy", "numba"])
@pytest.mark.parametrize(("make", "shape"), LAYERS)
def test_copies_compute_the_same(
    make: Callable[[], nn.Module], shape: tuple[int, ...], backend: str
) -> None:
    with tg.use_backend(backend):
        layer, x = make(), tg.rand(shape)
        y = layer(x)
        for twin in (copy.deepcopy(layer), pickle.loads(pickle.dumps(layer))):
            assert repr(twin) == repr(layer)
            assert_close(twin(x), y, rtol=0, atol=0)


@pytest.mark.parametrize(
    "make",
    [
        lambda **more: nn.Linear(3, 4, **more),
        lambda **more: nn.Conv2d(3, 4, 3, **more),
        lambda **more: nn.ConvTranspose2d(3, 4, 3, **more),
        lambda **more: nn.BatchNorm1d(3, **more),
        lambda **more: nn.BatchNorm2d(3, **more),
        lambda **more: nn.LayerNorm(3, **more),
        lambda **more: nn.GroupNorm(1, 3, **more),
        lambda **more: nn.Embedding(3, 4, **more),
    ],
)
def test_dtype_and_backend_are_for_all_that_is_held(
    make: Callable[..., nn.Module], backend: Backend
) -> None:
    layer = make(dtype=tg.float64, backend=backend)
    for name, x in layer.state_dict().items():
        assert x.backend is backend
        assert x.dtype == ("int64" if name == "num_batches_tracked" else "float64")
    assert all(p.requires_grad for p in layer.parameters())


# ---- initial values

INITIAL = [
    ("Linear", (400, 300), {}),
    ("Conv2d", (4, 600, 5), {}),
    ("Conv2d", (8, 600, (3, 5)), {"groups": 4}),
    ("ConvTranspose2d", (8, 600, 3), {"groups": 2}),
    ("Embedding", (300, 40), {"padding_idx": -1}),
    ("BatchNorm1d", (5,), {}),
    ("BatchNorm2d", (5,), {}),
    ("LayerNorm", (5,), {}),
    ("GroupNorm", (1, 5), {}),
]


@pytest.mark.parametrize(("name", "args", "options"), INITIAL)
def test_initial_values_are_distributed_as_pytorchs(
    name: str, args: tuple[Any, ...], options: dict[str, Any]
) -> None:
    torch = pytest.importorskip("torch", reason="PyTorch is not installed")
    torch.manual_seed(0)
    tg.manual_seed(0)
    ours = getattr(nn, name)(*args, **options).state_dict()
    theirs = getattr(torch.nn, name)(*args, **options).state_dict()
    assert list(ours) == list(theirs)
    for key in ours:
        found, expected = ours[key].numpy(), theirs[key].numpy()
        assert (found.shape, found.dtype) == (expected.shape, expected.dtype)
        if expected.size < 10 or np.ptp(expected) == 0:
            np.testing.assert_array_equal(found, expected)  # zeros and ones
            continue
        np.testing.assert_array_equal(found == 0, expected == 0)
        few = expected.size < 1000
        assert found.std() == pytest.approx(expected.std(), rel=0.1 if few else 0.02)
        assert abs(found.mean() - expected.mean()) < (0.2 if few else 0.05) * expected.std()
        if name != "Embedding":  # of normal numbers the extremes are too rare
            assert np.abs(found).max() == pytest.approx(np.abs(expected).max(), rel=0.02)
            assert np.abs(found).max() <= 1 / np.sqrt(np.prod(ours["weight"].shape[1:]))


@pytest.mark.parametrize(
    "layer",
    [
        nn.Linear(3, 4),
        nn.Conv2d(1, 2, 3),
        nn.BatchNorm1d(3),
        nn.LayerNorm(3),
        nn.Embedding(3, 4, 1),
    ],
)
def test_parameters_are_reset_in_place(layer: Any) -> None:
    def reset() -> dict[str, Any]:
        tg.manual_seed(5)
        layer.reset_parameters()
        return {key: value.tolist() for key, value in layer.state_dict().items()}

    first, arrays = reset(), [value.array for value in layer.state_dict().values()]
    with tg.no_grad():
        for value in (*layer.parameters(), *layer.buffers()):
            value.add_(1)
    assert reset() == first
    for value, array in zip(layer.state_dict().values(), arrays, strict=True):
        assert value.array is array


# ---- corners


def test_identity_is_its_input() -> None:
    x = tg.ones(2)
    assert nn.Identity(1, "any", thing=None)(x) is x


@pytest.mark.parametrize(
    "layer",
    [
        *(MODULES[name](inplace=True) for name in ("relu", "relu6", "silu", "mish", "elu")),
        nn.LeakyReLU(0.1, True),
        nn.Hardtanh(inplace=True),
        nn.Dropout(0.5, inplace=True),
        nn.Dropout2d(0.5, True),
    ],
    ids=repr,
)
def test_in_place_makes_a_new_tensor(layer: nn.Module, backend: Backend) -> None:
    with tg.use_backend(backend):
        x = tg.full((3, 4, 5, 5), -2.0, requires_grad=True)  # a leaf, which PyTorch would refuse
        y = layer(x)
        assert y is not x
        assert (x.detach() == -2).all().item()
        y.sum().backward()
        assert x.grad is not None


@pytest.mark.parametrize(
    "name",
    ["relu", "relu6", "silu", "mish", "elu", "leaky_relu", "hardtanh", "dropout", "dropout2d"],
)
def test_functions_take_inplace_and_make_a_new_tensor(name: str, backend: Backend) -> None:
    with tg.use_backend(backend):
        x = tg.full((2, 3, 4, 5), -2.0, requires_grad=True)
        function = getattr(F, name)
        tg.manual_seed(0)
        y = function(x, inplace=True)
        assert y is not x
        assert (x.detach() == -2).all().item()
        tg.manual_seed(0)
        assert_close(y, function(x), rtol=0, atol=0)


def test_a_numpy_integer_is_a_size() -> None:
    assert nn.LayerNorm(np.int64(3)).normalized_shape == (3,)


def test_dropout_drops_in_training_only(backend: Backend) -> None:
    with tg.use_backend(backend):
        tg.manual_seed(0)
        x, layer = tg.ones(100, 200), nn.Dropout(0.3)
        y = backend.to_numpy(layer(x).array)
        kept = y != 0
        assert kept.mean() == pytest.approx(0.7, abs=0.01)
        np.testing.assert_array_equal(y[kept], np.float32(1 / 0.7))
        assert np.abs(np.corrcoef(kept[:, 0], kept[:, 1])[0, 1]) < 0.3
        assert layer.eval()(x) is x
        assert nn.Dropout(1.0)(x).sum().item() == 0


def test_dropout2d_drops_whole_channels(backend: Backend) -> None:
    with tg.use_backend(backend):
        tg.manual_seed(0)
        x, layer = tg.ones(50, 40, 3, 2), nn.Dropout2d(0.3)
        y = backend.to_numpy(layer(x).array)
        kept = y[:, :, 0, 0] != 0
        assert kept.mean() == pytest.approx(0.7, abs=0.04)
        expected = np.where(kept, np.float32(1 / 0.7), 0)[:, :, None, None]
        np.testing.assert_array_equal(y, np.broadcast_to(expected, y.shape))
        assert layer.eval()(x) is x


def test_a_cumulative_average_weighs_all_batches_alike(backend: Backend) -> None:
    rng = np.random.default_rng(0)
    batches = [rng.normal(i, 1 + i, (6, 3)).astype(np.float32) for i in range(4)]
    with tg.use_backend(backend):
        layer = nn.BatchNorm1d(3, momentum=None)
        for x in batches:
            layer(tg.tensor(x))
        state = {k: backend.to_numpy(v.array) for k, v in layer.state_dict().items()}
    np.testing.assert_allclose(
        state["running_mean"], np.mean([x.mean(0) for x in batches], 0), 1e-5
    )
    variance = np.mean([x.var(0, ddof=1) for x in batches], 0)
    np.testing.assert_allclose(state["running_var"], variance, 1e-5)
    assert state["num_batches_tracked"] == 4


@pytest.mark.parametrize("momentum", [0.1, None])
def test_batch_norm_does_not_wait_for_the_device(
    momentum: float | None, strict: StrictBackend
) -> None:
    with tg.use_backend(strict):
        layer, x = nn.BatchNorm1d(3, momentum=momentum), tg.rand(4, 3)
        with transfers(strict) as crossed:
            layer(x).sum().backward()
            layer.eval()(x)
        assert not crossed


@pytest.mark.parametrize("layer", [nn.BatchNorm1d(3), nn.BatchNorm1d(3, momentum=None)], ids=repr)
@pytest.mark.parametrize("shape", [(1, 3), (4, 2), (4,)])
def test_batch_norm_that_fails_has_followed_nothing(layer: Any, shape: tuple[int, ...]) -> None:
    before = [buffer.tolist() for buffer in layer.buffers()]
    with pytest.raises(ValueError, match=r"[Bb]atch_?[Nn]orm"):
        layer(tg.ones(shape))
    assert [buffer.tolist() for buffer in layer.buffers()] == before


def test_batch_norm_stops_following_when_it_is_told() -> None:
    layer, x = nn.BatchNorm1d(3), tg.rand(5, 3)
    layer.track_running_stats = False
    layer(x)
    assert layer.num_batches_tracked.item() == 0
    assert layer.running_mean.tolist() == [0.0] * 3
    layer.track_running_stats = True
    layer(x)
    assert layer.num_batches_tracked.item() == 1
    layer.reset_running_stats()
    assert [b.tolist() for b in layer.buffers()] == [[0.0] * 3, [1.0] * 3, 0]


def test_a_pretrained_embedding_shares_its_memory(backend: Backend) -> None:
    with tg.use_backend(backend):
        table = tg.rand(5, 2)
        frozen = nn.Embedding.from_pretrained(table, padding_idx=-1)
        assert (frozen.num_embeddings, frozen.embedding_dim, frozen.padding_idx) == (5, 2, 4)
        assert not frozen.weight.requires_grad
        table.zero_()
        assert frozen(tg.tensor([0, 4])).sum().item() == 0
        trained = nn.Embedding.from_pretrained(table, freeze=False)
        trained(tg.tensor([1, 1])).sum().backward()
        assert trained.weight.grad.tolist() == [[0.0] * 2, [2.0] * 2, *[[0.0] * 2] * 3]


def test_the_padding_row_begins_as_zeros_and_gets_no_gradient() -> None:
    layer = nn.Embedding(4, 3, padding_idx=1)
    assert layer.weight[1].tolist() == [0.0] * 3
    layer(tg.tensor([[0, 1], [1, 2]])).sum().backward()
    assert layer.weight.grad.sum(1).tolist() == [3.0, 0.0, 3.0, 0.0]


def test_the_weights_of_a_loss_are_its_state_and_move_with_it(backend: Backend) -> None:
    with tg.use_backend(backend):
        weight = tg.tensor([1.0, 3.0])
        assert list(nn.CrossEntropyLoss().state_dict()) == []
        for loss in (nn.CrossEntropyLoss(weight), nn.NLLLoss(weight), nn.BCELoss(weight)):
            assert list(loss.state_dict()) == ["weight"]
            assert loss.to(tg.float64).weight.dtype == np.float64
            assert not list(loss.parameters())
        both = nn.BCEWithLogitsLoss(weight, pos_weight=weight)
        assert list(both.state_dict()) == ["weight", "pos_weight"]


# ---- bad settings


def _settings(*rows: tuple[Callable[[], Any], type[Exception], str]) -> list[Any]:
    return [pytest.param(*row, id=row[2]) for row in rows]


SETTINGS = _settings(
    (lambda: nn.Linear(-1, 2), ValueError, "Linear: in_features must be at least 1, got -1"),
    (lambda: nn.Linear(2, 0), ValueError, "Linear: out_features must be at least 1, got 0"),
    (lambda: nn.Linear(2.0, 2), TypeError, "Linear: in_features must be an integer, got 2.0"),
    (lambda: nn.Conv2d(0, 2, 3), ValueError, "Conv2d: in_channels must be at least 1, got 0"),
    (
        lambda: nn.Conv2d(3, 4, 3, groups=2),
        ValueError,
        "Conv2d: in_channels 3 and out_channels 4 must be multiples of groups 2",
    ),
    (lambda: nn.Conv2d(2, 2, 3, groups=0), ValueError, "Conv2d: groups must be at least 1, got 0"),
    (lambda: nn.Conv2d(2, 2, 0), ValueError, "kernel_size must be an integer of at least 1 or"),
    (lambda: nn.Conv2d(2, 2, (1, 2, 3)), ValueError, "or a pair, got (1, 2, 3)"),
    (lambda: nn.Conv2d(2, 2, 3, 0), ValueError, "Conv2d: stride must be"),
    (lambda: nn.Conv2d(2, 2, 3, 1, -1), ValueError, "Conv2d: padding must be"),
    (
        lambda: nn.Conv2d(2, 2, 3, 2, "same"),
        ValueError,
        'padding "same" takes stride 1, got (2, 2)',
    ),
    (lambda: nn.Conv2d(2, 2, 3, 1, "full"), ValueError, '"same" or "valid", got \'full\''),
    (
        lambda: nn.Conv2d(2, 2, 3, padding_mode="reflect"),
        ValueError,
        "Conv2d: padding_mode must be \"zeros\", got 'reflect'",
    ),
    (lambda: nn.ConvTranspose2d(2, 2, 3, 1, "same"), ValueError, "ConvTranspose2d: padding must"),
    (lambda: nn.ConvTranspose2d(2, 2, 3, 1, 0, -1), ValueError, "output_padding must be"),
    (lambda: nn.MaxPool2d(2, padding=2), ValueError, "MaxPool2d: padding (2, 2) is above half"),
    (lambda: nn.MaxPool2d(2, dilation=0), ValueError, "MaxPool2d: dilation must be"),
    (
        lambda: nn.MaxPool2d(2, return_indices=True),
        ValueError,
        "MaxPool2d: return_indices=True is not supported",
    ),
    (lambda: nn.AvgPool2d("a"), ValueError, "AvgPool2d: kernel_size must be"),
    (lambda: nn.AvgPool2d(2, divisor_override=0), ValueError, "AvgPool2d: divisor_override"),
    (lambda: nn.AdaptiveAvgPool2d((1, -1)), ValueError, "AdaptiveAvgPool2d: output_size must be"),
    (lambda: nn.BatchNorm1d(0), ValueError, "BatchNorm1d: num_features must be at least 1, got 0"),
    (lambda: nn.BatchNorm2d(3, momentum="a"), TypeError, "expected a number as momentum, got str"),
    (lambda: nn.BatchNorm2d(3, eps=None), TypeError, "BatchNorm2d: expected a number as eps"),
    (lambda: nn.LayerNorm(()), ValueError, "LayerNorm: normalized_shape must be one or more"),
    (lambda: nn.LayerNorm((3, -1)), ValueError, "of at least 0, got (3, -1)"),
    (lambda: nn.LayerNorm(2.5), TypeError, "LayerNorm: normalized_shape must be a tuple"),
    (lambda: nn.GroupNorm(3, 4), ValueError, "num_groups must divide num_channels 4, got 3"),
    (lambda: nn.GroupNorm(0, 4), ValueError, "GroupNorm: num_groups must be at least 1, got 0"),
    (lambda: nn.Embedding(3, -4), ValueError, "Embedding: embedding_dim must be at least 1"),
    (
        lambda: nn.Embedding(3, 4, 3),
        ValueError,
        "Embedding: padding_idx must lie in -3 to 2, got 3",
    ),
    (
        lambda: nn.Embedding.from_pretrained(tg.ones(3)),
        ValueError,
        "from_pretrained: expected embeddings float (rows, features), got embeddings (3,)",
    ),
    (lambda: nn.Dropout(1.5), ValueError, "Dropout: p must lie in 0 to 1, got 1.5"),
    (lambda: nn.Dropout2d("a"), TypeError, "Dropout2d: expected a number as p, got str"),
    (lambda: nn.Flatten("a"), TypeError, "Flatten: start_dim must be an integer, got 'a'"),
    (lambda: nn.Unflatten(1, 3), TypeError, "unflattened_size must be a tuple of integers, got 3"),
    (lambda: nn.Unflatten(1, (2.0,)), TypeError, "Unflatten: a shape is made of integers, got 2.0"),
    (lambda: nn.Softmax(), TypeError, "Softmax: expected a dim, as in Softmax(dim=1)"),
    (lambda: nn.LogSoftmax(1.0), TypeError, "LogSoftmax: dim must be an integer, got 1.0"),
    (lambda: nn.LeakyReLU("a"), TypeError, "LeakyReLU: expected a number as negative_slope"),
    (lambda: nn.ELU(None), TypeError, "ELU: expected a number as alpha, got NoneType"),
    (lambda: nn.Softplus(1, "a"), TypeError, "Softplus: expected a number as threshold"),
    (lambda: nn.Hardtanh(2, 1), ValueError, "Hardtanh: expected min_val <= max_val, got 2 and 1"),
    (lambda: nn.GELU("fast"), ValueError, "GELU: approximate must be 'none' or 'tanh', got 'fast'"),
    (lambda: nn.MSELoss("avg"), ValueError, "MSELoss: reduction must be 'mean', 'sum' or 'none'"),
    (lambda: nn.L1Loss("batchmean"), ValueError, "L1Loss: reduction must be"),
    (lambda: nn.KLDivLoss("all"), ValueError, "reduction must be 'batchmean', 'mean', 'sum' or"),
    (lambda: nn.SmoothL1Loss(beta=-1), ValueError, "SmoothL1Loss: expected beta of at least 0"),
    (lambda: nn.HuberLoss(delta=0), ValueError, "HuberLoss: expected delta above 0, got 0"),
    (lambda: nn.NLLLoss(ignore_index=1.0), TypeError, "NLLLoss: ignore_index must be an integer"),
    (
        lambda: nn.CrossEntropyLoss(label_smoothing=2),
        ValueError,
        "CrossEntropyLoss: label_smoothing must lie in 0 to 1, got 2",
    ),
    (lambda: nn.CrossEntropyLoss([1.0]), TypeError, "cannot assign list as buffer 'weight'"),
    *(
        (
            lambda make=make, dtype=dtype: make(dtype),
            TypeError,
            f"{name}: dtype must be a float one, got {dtype}",
        )
        for dtype in ("int64", "bool")
        for name, make in {
            "Linear": lambda dtype: nn.Linear(3, 4, dtype=dtype),
            "Conv2d": lambda dtype: nn.Conv2d(3, 4, 3, dtype=dtype),
            "ConvTranspose2d": lambda dtype: nn.ConvTranspose2d(3, 4, 3, dtype=dtype),
            "Embedding": lambda dtype: nn.Embedding(3, 4, dtype=dtype),
            "BatchNorm1d": lambda dtype: nn.BatchNorm1d(3, affine=False, dtype=dtype),
            "LayerNorm": lambda dtype: nn.LayerNorm(3, dtype=dtype),
            "GroupNorm": lambda dtype: nn.GroupNorm(1, 3, dtype=dtype),
        }.items()
    ),
    (lambda: nn.Linear(3, 4, dtype="float3"), TypeError, "Linear: 'float3' is no dtype"),
    (lambda: nn.ReLU("x"), TypeError, "ReLU: inplace must be True or False, got 'x'"),
    (lambda: nn.ELU(1.0, 2.0), TypeError, "ELU: inplace must be True or False, got 2.0"),
    (lambda: nn.Dropout2d(0.5, 1), TypeError, "Dropout2d: inplace must be True or False, got 1"),
    (lambda: F.relu(tg.ones(1), "x"), TypeError, "relu: inplace must be True or False, got 'x'"),
)


@pytest.mark.parametrize(("make", "error", "message"), SETTINGS)
def test_bad_settings_are_refused_at_once(
    make: Callable[[], Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=re.escape(message)):
        make()


# ---- bad input


def _inputs(*rows: tuple[nn.Module, Any, type[Exception], str]) -> list[Any]:
    return [pytest.param(*row, id=f"{row[0]}-{i}") for i, row in enumerate(rows)]


CONV, LINEAR = nn.Conv2d(3, 4, 3), nn.Linear(3, 4)
UP = nn.ConvTranspose2d(3, 4, 3, 2)
INPUTS = _inputs(
    (LINEAR, tg.ones(2, 5), ValueError, "Linear: expected input (…, 3), got (2, 5)"),
    (LINEAR, tg.ones(()), ValueError, "Linear: expected input (…, 3), got ()"),
    (LINEAR, tg.ones(2, 3).long(), TypeError, "linear: dtypes differ: x int64, weight float32"),
    (LINEAR, tg.ones(2, 3).double(), TypeError, "cast one, for example with .to(dtype)"),
    (LINEAR, [[1.0, 2.0, 3.0]], TypeError, "linear: expected a tensor as x, got list"),
    (LINEAR, np.ones((2, 3)), TypeError, "linear: expected a tensor as x, got ndarray"),
    (
        CONV,
        tg.ones(4, 1, 28, 28),
        ValueError,
        "Conv2d: expected input (N, 3, H, W) or (3, H, W), got (4, 1, 28, 28)",
    ),
    (CONV, tg.ones(5, 5), ValueError, "expected input (N, 3, H, W) or (3, H, W), got (5, 5)"),
    (CONV, tg.ones(1, 3, 2, 2), ValueError, "conv2d: a window of (3, 3)"),
    (CONV, tg.ones(3, 5, 5).double(), TypeError, "dtypes differ: input float64, weight float32"),
    (CONV, None, TypeError, "conv2d: expected a tensor as input, got NoneType"),
    (
        UP,
        tg.ones(1, 2, 3, 3),
        ValueError,
        "ConvTranspose2d: expected input (N, 3, H, W) or (3, H, W), got (1, 2, 3, 3)",
    ),
    (
        nn.MaxPool2d(2),
        tg.ones(3, 3),
        ValueError,
        "MaxPool2d: expected input (N, C, H, W) or (C, H, W), got (3, 3)",
    ),
    (nn.MaxPool2d(4), tg.ones(1, 3, 3), ValueError, "max_pool2d: a window of (4, 4)"),
    (nn.AvgPool2d(2), tg.ones(3), ValueError, "AvgPool2d: expected input (N, C, H, W) or"),
    (nn.AdaptiveAvgPool2d(1), tg.ones(3), ValueError, "AdaptiveAvgPool2d: expected input (N, C,"),
    (
        nn.BatchNorm1d(3),
        tg.ones(2, 3, 4, 4),
        ValueError,
        "BatchNorm1d: expected input (N, 3) or (N, 3, L), got (2, 3, 4, 4)",
    ),
    (
        nn.BatchNorm2d(3, affine=False, track_running_stats=False),
        tg.ones(2, 4, 5, 5),
        ValueError,
        "BatchNorm2d: expected input (N, 3, H, W), got (2, 4, 5, 5)",
    ),
    (nn.BatchNorm1d(3), tg.ones(1, 3), ValueError, "more than one value per channel in training"),
    (nn.BatchNorm1d(3), tg.ones(2, 3).double(), TypeError, "batch_norm: dtypes differ"),
    (nn.BatchNorm1d(3), [1.0], TypeError, "batch_norm: expected a tensor as input, got list"),
    (nn.LayerNorm((2, 3)), tg.ones(3, 2), ValueError, "LayerNorm: expected input (…, 2, 3), got"),
    (
        nn.GroupNorm(2, 4, affine=False),
        tg.ones(2, 6, 3),
        ValueError,
        "GroupNorm: expected input (N, 4, …), got (2, 6, 3)",
    ),
    (nn.GroupNorm(2, 4), tg.ones(4), ValueError, "GroupNorm: expected input (N, 4, …), got (4,)"),
    (nn.GroupNorm(2, 2), tg.ones(1, 2), ValueError, "more than one value per group"),
    (nn.Embedding(3, 4), tg.ones(3), TypeError, "embedding: expected an index of signed integers"),
    (nn.Embedding(3, 4), tg.tensor([3]), IndexError, "found index 3, expected 0 to 2"),
    (nn.Embedding(3, 4), tg.tensor([-1]), IndexError, "found index -1, expected 0 to 2"),
    (nn.Flatten(), [1.0], TypeError, "Flatten: expected a tensor as input, got list; make one"),
    (nn.Unflatten(0, (1, 1)), np.ones(1), TypeError, "Unflatten: expected a tensor as input, got"),
    (nn.Flatten(), tg.ones(3), IndexError, "flatten: dim 1 is out of range for a tensor of 1 dims"),
    (nn.Unflatten(1, (2, 3)), tg.ones(2, 5), ValueError, "5 elements of shape (5,) do not fit"),
    (nn.Dropout2d(), tg.ones(3), ValueError, "dropout2d: expected input"),
    (nn.Softmax(2), tg.ones(2, 3), IndexError, "dim 2 is out of range for a tensor of 2 dims"),
    (nn.GELU(), tg.ones(2).long(), TypeError, "gelu: expected float input, got input int64"),
)


@pytest.mark.parametrize(("layer", "x", "error", "message"), INPUTS)
def test_bad_input_is_named_with_what_the_layer_takes(
    layer: nn.Module, x: Any, error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=re.escape(message)):
        layer(x)


@pytest.mark.parametrize(
    ("size", "error", "message"),
    [
        ((20, 20), ValueError, "output_size must lie between (7, 7) and (8, 8)"),
        ((7, 9), ValueError, "got (7, 9)"),
        ("ab", ValueError, "ConvTranspose2d: output_size must be an integer"),
    ],
)
def test_an_output_size_that_no_padding_gives(
    size: Any, error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=re.escape(message)):
        UP(tg.ones(1, 3, 3, 3), output_size=size)


def test_a_layer_of_a_users_own_is_called_by_its_name() -> None:
    class Projection(nn.Linear):
        pass

    with pytest.raises(ValueError, match=re.escape("Projection: expected input (…, 3), got (2,)")):
        Projection(3, 4)(tg.ones(2))


def test_a_weight_put_in_by_hand_is_what_counts() -> None:
    layer = nn.Linear(3, 4)
    layer.weight = nn.Parameter(tg.ones(4, 5))
    assert layer(tg.ones(2, 5)).shape == (2, 4)
    with pytest.raises(ValueError, match=r"linear: .*got x \(2, 3\), weight \(4, 5\)"):
        layer(tg.ones(2, 3))
