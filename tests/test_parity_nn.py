"""Every layer beside PyTorch's: the same state, the same outputs, gradients and training.

A state goes through the bytes of a safetensors file, from PyTorch's layer into ours and back.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import safetensors.numpy

import tinygrad_mnist as tg
from tinygrad_mnist import nn

torch: Any = pytest.importorskip("torch", reason="PyTorch is not installed")
files: Any = pytest.importorskip("safetensors.torch", reason="PyTorch is not installed")

Rng = np.random.Generator
Draw = Callable[[Rng], list[np.ndarray]]
Difference = Callable[[str, str, float], None]

# Of max(1, |PyTorch's|). In float32, sums of 200 products differ by their order.
TOLERANCE = {"float64": 1e-10, "float32": 2e-5}
BACKENDS = ["numpy", "numba"]
STEPS = 3


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    """With more, PyTorch is slower at layers as small as these."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(params=BACKENDS)
def on_backend(request: pytest.FixtureRequest) -> Iterator[str]:
    with tg.use_backend(request.param):
        yield request.param


# ---- the table


@dataclass(frozen=True)
class Case:
    """A layer, its settings (arrays become tensors) and how its inputs are drawn."""

    name: str
    args: tuple[Any, ...]
    options: dict[str, Any]
    draw: Draw

    def __str__(self) -> str:
        given = [*map(_brief, self.args), *(f"{k}={_brief(v)}" for k, v in self.options.items())]
        return f"{self.name}({', '.join(given)})".replace(" ", "")

    def make(self, layers: Any, tensor: Callable[[np.ndarray], Any]) -> Any:
        def made(value: Any) -> Any:
            return tensor(value) if isinstance(value, np.ndarray) else value

        options = {key: made(value) for key, value in self.options.items()}
        return getattr(layers, self.name)(*map(made, self.args), **options)


def _brief(value: Any) -> str:
    return f"array{value.shape}" if isinstance(value, np.ndarray) else str(value)


def case(name: str, *args: Any, of: tuple[int, ...] | Draw, **options: Any) -> Case:
    """``of``: the shape of the one input, normal numbers, or what draws the inputs."""
    return Case(name, args, options, of if callable(of) else lambda rng: [rng.normal(size=of)])


def integers(high: int, *shape: int) -> Draw:
    return lambda rng: [rng.integers(0, high, shape)]


def alike(*shape: int) -> Draw:
    return lambda rng: [rng.normal(size=shape), rng.normal(size=shape)]


def classes(*shape: int, ignored: int | None = None) -> Draw:
    """Logits of ``shape`` (N, C, …) or (C,) and a class for each row."""
    dim = min(1, len(shape) - 1)

    def draw(rng: Rng) -> list[np.ndarray]:
        target = rng.integers(0, shape[dim], shape[:dim] + shape[dim + 1 :])
        if ignored is not None:
            target.flat[0] = ignored
        return [rng.normal(0, 3, shape), np.asarray(target)]

    return draw


def shares(*shape: int) -> Draw:
    """Logits and probabilities of classes, both (N, C)."""
    return lambda rng: [rng.normal(size=shape), rng.dirichlet(np.ones(shape[1]), shape[0])]


def chances(*shape: int) -> Draw:
    """Two arrays of numbers in 0 … 1."""
    return lambda rng: [rng.uniform(0.01, 0.99, shape), rng.uniform(0, 1, shape)]


def logits(*shape: int) -> Draw:
    return lambda rng: [rng.normal(0, 5, shape), rng.integers(0, 2, shape).astype(float)]


def divergences(*shape: int, log: bool = False) -> Draw:
    """Log-probabilities, and probabilities or their logarithms."""

    def draw(rng: Rng) -> list[np.ndarray]:
        x, target = (rng.dirichlet(np.ones(shape[-1]), shape[:-1]) for _ in range(2))
        return [np.log(x), np.log(target) if log else target]

    return draw


WEIGHTS = np.array([0.5, 2.0, 1.5, 0.25])

LAYERS = [
    case("Identity", 54, unused=True, of=(2, 3)),
    case("Linear", 5, 3, of=(4, 5)),
    case("Linear", 5, 3, of=(5,)),
    case("Linear", 5, 3, bias=False, of=(2, 4, 5)),
    case("Conv2d", 2, 3, 3, of=(2, 2, 7, 6)),
    case("Conv2d", 2, 3, 3, of=(2, 7, 6)),
    case("Conv2d", 4, 6, (3, 2), stride=(2, 1), padding=1, groups=2, of=(2, 4, 7, 6)),
    case("Conv2d", 2, 3, 3, dilation=2, bias=False, padding=(2, 1), of=(1, 2, 9, 8)),
    case("Conv2d", 2, 4, (3, 2), padding="same", dilation=(1, 3), of=(2, 2, 6, 7)),
    case("Conv2d", 3, 3, 5, padding="valid", groups=3, of=(2, 3, 6, 7)),
    case("Conv2d", 1, 10, 5, of=(3, 1, 12, 12)),
    case("ConvTranspose2d", 2, 3, 3, of=(2, 2, 5, 4)),
    case("ConvTranspose2d", 2, 3, 3, of=(2, 5, 4)),
    case("ConvTranspose2d", 4, 6, (3, 2), 2, 1, 1, 2, of=(2, 4, 5, 4)),
    case("ConvTranspose2d", 2, 4, 3, stride=(1, 3), dilation=2, bias=False, of=(1, 2, 4, 5)),
    case("MaxPool2d", 2, of=(2, 3, 6, 8)),
    case("MaxPool2d", 3, stride=2, padding=1, of=(2, 3, 7, 9)),
    case("MaxPool2d", (2, 3), stride=(1, 2), of=(3, 6, 7)),
    case("MaxPool2d", 2, dilation=2, ceil_mode=True, of=(2, 3, 7, 8)),
    case("AvgPool2d", 2, of=(2, 3, 6, 8)),
    case("AvgPool2d", (3, 2), stride=2, padding=1, count_include_pad=False, of=(2, 3, 7, 9)),
    case("AvgPool2d", 3, 2, ceil_mode=True, of=(3, 6, 7)),
    case("AvgPool2d", 2, divisor_override=3, of=(2, 3, 5, 5)),
    case("AdaptiveAvgPool2d", 1, of=(2, 3, 6, 8)),
    case("AdaptiveAvgPool2d", (3, 5), of=(2, 3, 7, 8)),
    case("AdaptiveAvgPool2d", (None, 4), of=(3, 7, 8)),
    case("BatchNorm1d", 5, of=(7, 5)),
    case("BatchNorm1d", 5, momentum=0.3, eps=1e-3, of=(4, 5, 6)),
    case("BatchNorm1d", 5, momentum=None, of=(4, 5, 6)),
    case("BatchNorm1d", 5, affine=False, of=(4, 5)),
    case("BatchNorm2d", 3, of=(4, 3, 5, 6)),
    case("BatchNorm2d", 3, track_running_stats=False, of=(4, 3, 5, 6)),
    case("BatchNorm2d", 3, 1e-4, None, False, False, of=(4, 3, 2, 2)),
    case("LayerNorm", 5, of=(4, 5)),
    case("LayerNorm", (3, 5), eps=1e-3, of=(2, 3, 5)),
    case("LayerNorm", [5], bias=False, of=(2, 3, 5)),
    case("LayerNorm", 5, elementwise_affine=False, of=(4, 5)),
    case("GroupNorm", 2, 6, of=(3, 6, 4, 5)),
    case("GroupNorm", 3, 6, eps=1e-3, affine=False, of=(3, 6, 4)),
    case("GroupNorm", 1, 4, of=(3, 4)),
    case("Embedding", 7, 4, of=integers(7, 3, 5)),
    case("Embedding", 7, 4, padding_idx=-2, of=integers(7, 20)),
    case("Flatten", of=(2, 3, 4)),
    case("Flatten", 0, -2, of=(2, 3, 4)),
    case("Unflatten", 1, (2, 3), of=(4, 6)),
    case("Unflatten", -1, (-1, 2), of=(4, 3, 6)),
    case("Dropout", 0.0, of=(4, 5)),
    case("Dropout2d", 0.0, inplace=True, of=(2, 4, 3, 3)),
]

ACTIVATIONS = [
    *(case(name, of=(3, 40)) for name in ("Sigmoid", "Tanh", "LogSigmoid", "GELU", "Softplus")),
    *(
        case(name, inplace=inplace, of=(3, 40))
        for name in ("ReLU", "ReLU6", "SiLU", "Mish", "LeakyReLU", "ELU", "Hardtanh")
        for inplace in (False, True)
    ),
    case("LeakyReLU", 0.2, of=(3, 40)),
    case("ELU", 0.7, of=(3, 40)),
    case("Hardtanh", -0.5, 2, of=(3, 40)),
    case("GELU", "tanh", of=(3, 40)),
    case("Softplus", 2, 1.5, of=(3, 40)),
    *(
        case(name, dim, of=(3, 4, 5))
        for name in ("Softmax", "LogSoftmax", "Softmin")
        for dim in (0, -1)
    ),
]

LOSSES = [
    *(
        case(name, reduction=reduction, of=draw)
        for name, draw in (
            ("MSELoss", alike(4, 5)),
            ("L1Loss", alike(4, 5)),
            ("SmoothL1Loss", alike(4, 5)),
            ("HuberLoss", alike(4, 5)),
            ("CrossEntropyLoss", classes(6, 4)),
            ("NLLLoss", classes(6, 4)),
            ("BCELoss", chances(4, 5)),
            ("BCEWithLogitsLoss", logits(4, 5)),
            ("KLDivLoss", divergences(4, 5)),
        )
        for reduction in ("mean", "sum", "none")
    ),
    case("SmoothL1Loss", beta=0.3, of=alike(4, 5)),
    case("HuberLoss", delta=0.3, of=alike(4, 5)),
    case("HuberLoss", "sum", 2.0, of=alike(4, 5)),
    case("CrossEntropyLoss", of=classes(4)),
    case("CrossEntropyLoss", of=shares(6, 4)),
    case("CrossEntropyLoss", WEIGHTS, ignore_index=2, of=classes(6, 4, 3, ignored=2)),
    case("CrossEntropyLoss", weight=WEIGHTS, label_smoothing=0.1, of=classes(6, 4)),
    case("CrossEntropyLoss", weight=WEIGHTS, label_smoothing=0.2, of=shares(6, 4)),
    case("CrossEntropyLoss", label_smoothing=0.1, reduction="none", of=classes(6, 4, 2, 2)),
    case("CrossEntropyLoss", reduction="sum", of=classes(6, 4, ignored=-100)),
    case("NLLLoss", weight=WEIGHTS, of=classes(6, 4, 3)),
    case("NLLLoss", WEIGHTS, ignore_index=1, reduction="none", of=classes(6, 4, ignored=1)),
    case("BCELoss", weight=WEIGHTS, of=chances(6, 4)),
    case("BCEWithLogitsLoss", weight=WEIGHTS, of=logits(6, 4)),
    case("BCEWithLogitsLoss", pos_weight=WEIGHTS, of=logits(6, 4)),
    case("BCEWithLogitsLoss", WEIGHTS, reduction="sum", pos_weight=WEIGHTS, of=logits(6, 4)),
    case("KLDivLoss", reduction="batchmean", of=divergences(4, 5)),
    case("KLDivLoss", reduction="batchmean", log_target=True, of=divergences(4, 5, log=True)),
]

CASES = [*LAYERS, *ACTIVATIONS, *LOSSES]


def test_every_layer_is_in_the_table() -> None:
    public = [getattr(nn, name) for name in nn.__all__]
    layers = {c.__name__ for c in public if isinstance(c, type) and ".layers." in c.__module__}
    assert {c.name for c in CASES} == layers


# ---- the comparison


class Both:
    """A layer and PyTorch's, from the same random state; ``worst`` is how far they were apart."""

    def __init__(self, case: Case, dtype: str) -> None:
        self.dtype, self.worst = dtype, 0.0
        self.rng = np.random.default_rng(0)
        self.theirs = self._theirs(case)
        self._randomise()
        self.ours = case.make(nn, lambda x: tg.tensor(x.astype(dtype))).to(dtype=dtype)
        assert list(self.ours.state_dict()) == list(self.theirs.state_dict())
        self.ours.load_state_dict(to_ours(self.theirs.state_dict()))

    def _theirs(self, case: Case) -> Any:
        made = case.make(torch.nn, lambda x: torch.tensor(x.astype(self.dtype)))
        return made.to(getattr(torch, self.dtype))

    def _randomise(self) -> None:
        """As after some training."""
        with torch.no_grad():
            for p in self.theirs.parameters():
                p.copy_(torch.from_numpy(self.rng.normal(size=tuple(p.shape))))
            for name, buffer in self.theirs.named_buffers():
                values = self.rng.uniform(0.5, 1.5, tuple(buffer.shape))
                whole = name == "num_batches_tracked"
                buffer.copy_(torch.from_numpy(np.asarray(3 if whole else values)))

    def inputs(self, case: Case) -> tuple[list[tg.Tensor], list[Any]]:
        """The same for both; of the first the gradient is taken, if it is of floats."""
        drawn = case.draw(self.rng)
        drawn = [x.astype(self.dtype) if x.dtype.kind == "f" else x for x in drawn]
        ours, theirs = [tg.tensor(x) for x in drawn], [torch.tensor(x) for x in drawn]
        if ours[0].is_floating_point():
            ours[0].requires_grad_()
            theirs[0].requires_grad_()
        return ours, theirs

    def step(self, case: Case) -> None:
        """A step of gradient descent, with everything on the way compared."""
        ours, theirs = self.inputs(case)
        y, y_theirs = self.ours(*ours), self._applied(theirs)
        self.compare(y, y_theirs)
        slope = self.rng.normal(size=y.shape).astype(self.dtype)
        if y.requires_grad:
            y.backward(tg.tensor(slope))
            y_theirs.backward(torch.tensor(slope))
        assert y.requires_grad == y_theirs.requires_grad
        self.compare(ours[0].grad, theirs[0].grad)
        for p, p_theirs in zip(self.ours.parameters(), self.theirs.parameters(), strict=True):
            self.compare(p.grad, p_theirs.grad)
            with tg.no_grad(), torch.no_grad():
                p.sub_(0.01 * p.grad)
                p_theirs.sub_(0.01 * p_theirs.grad)
        self.ours.zero_grad()
        self.theirs.zero_grad()

    def _applied(self, inputs: list[Any]) -> Any:
        """What PyTorch's layer makes of a copy: some layers work in place, which leaves refuse."""
        return self.theirs(inputs[0].clone(), *inputs[1:])

    def compare_states(self) -> None:
        for key, value in self.theirs.state_dict().items():
            self.compare(self.ours.state_dict()[key], value)

    def start_from_ours(self, case: Case) -> None:
        """PyTorch's layer anew, with our state."""
        self.theirs = self._theirs(case)
        self.theirs.load_state_dict(to_theirs(self.ours.state_dict()), strict=True)

    def compare(self, ours: tg.Tensor | None, theirs: Any) -> None:
        if ours is None or theirs is None:
            assert ours is theirs
            return
        found, expected = ours.detach().numpy(), theirs.detach().numpy()
        assert (found.shape, found.dtype) == (expected.shape, expected.dtype)
        if expected.size:
            apart = np.abs(found - expected) / np.maximum(1, np.abs(expected))
            self.worst = max(self.worst, float(apart.max()))
        assert self.worst <= TOLERANCE[self.dtype]


def to_ours(state: dict[str, Any]) -> dict[str, np.ndarray]:
    """PyTorch's state as read from a file of its."""
    return safetensors.numpy.load(files.save(state))


def to_theirs(state: dict[str, tg.Tensor]) -> dict[str, Any]:
    """Our state as PyTorch reads it from a file."""
    arrays = {key: value.numpy() for key, value in state.items()}
    return files.load(safetensors.numpy.save(arrays))


@pytest.mark.filterwarnings("ignore:Using padding='same' with even")  # PyTorch copies the input
@pytest.mark.filterwarnings("ignore:reduction. 'mean' divides")  # PyTorch advises against it
@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("case", CASES, ids=str)
def test_layers_are_pytorchs(
    case: Case, dtype: str, on_backend: str, difference: Difference
) -> None:
    both = Both(case, dtype)
    for _ in range(STEPS):
        both.step(case)
    both.compare_states()
    both.start_from_ours(case)
    both.ours.eval()
    both.theirs.eval()
    both.step(case)
    both.compare_states()
    difference("layers" if dtype == "float64" else "layers in float32", case.name, both.worst)


@pytest.mark.parametrize("case", CASES, ids=str)
def test_layers_look_like_pytorchs(case: Case) -> None:
    if "bias" not in inspect.signature(torch.nn.GroupNorm).parameters and "Norm" in case.name:
        pytest.skip("this PyTorch's normalisations do not show their bias")
    ours, theirs = case.make(nn, tg.tensor), case.make(torch.nn, torch.tensor)
    assert repr(ours) == repr(theirs)
    assert ours.extra_repr() == theirs.extra_repr()


@pytest.mark.parametrize("size", [(9, 8), (2, 4, 10, 8), [9, 7]])
def test_the_output_size_of_a_transposed_convolution_is_pytorchs(size: Any) -> None:
    case = Case("ConvTranspose2d", (3, 4, 3, 2, 1), {}, lambda rng: [rng.normal(size=(2, 3, 5, 4))])
    both = Both(case, "float64")
    (x,), (x_theirs,) = both.inputs(case)
    both.compare(both.ours(x, output_size=size), both.theirs(x_theirs, output_size=size))
