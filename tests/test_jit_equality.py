"""A jitted step computes what the plain one computes: bit for bit, after many calls."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest

import tinygrad_mnist as tg
from tinygrad_mnist import models, nn, optim
from tinygrad_mnist.jit import PASSES, Jitted
from tinygrad_mnist.jit.checking import CHANGES, RESULTS
from tinygrad_mnist.nn import functional as F

BACKENDS = ["numpy", "numba"]
STEPS = 12


@dataclass
class Training:
    """A step, the arguments of its calls, and what it changes beside its results."""

    step: Callable[..., Any]
    batches: list[tuple[Any, ...]]
    changes: list[Any]  # modules, optimizers, tensors
    between: Callable[[int], None] = field(default=lambda call: None)  # what the user does there
    runs: int | None = None  # how often Python runs: None for twice for each kind of arguments


Make = Callable[[], Training]
CASES: dict[str, Make] = {}


def case(make: Make) -> Make:
    """``make``, which is a test under its own name."""
    CASES[make.__name__] = make
    return make


# ---- a plain run and a jitted one


def ran(make: Make, backend: str, jit: Callable[..., Any], steps: int) -> tuple[Any, Any]:
    """What is left after ``steps`` calls, by name, and the step."""
    with tg.use_backend(backend):
        tg.manual_seed(0)
        made = make()
        runs = 0

        def counted(*batch: Any) -> Any:
            nonlocal runs
            runs += 1
            return made.step(*batch)

        step = jit(counted)
        found: dict[str, np.ndarray] = {}
        for i, batch in enumerate(itertools.islice(itertools.cycle(made.batches), steps)):
            made.between(i)
            found.update(named(f"result {i}", detached(step(*batch))))
        for i, each in enumerate(made.changes):
            found.update(named(f"{type(each).__name__} {i}", each))
        found["next random number"] = tg.rand(1).numpy()
        if isinstance(step, Jitted):
            kinds = {str([(x.shape, x.array.strides) for x in tensors(b)]) for b in made.batches}
            assert runs == (2 * len(kinds) if made.runs is None else made.runs)
        return found, step


def tensors(x: Any) -> Iterator[tg.Tensor]:
    """Those in nests of tuples, lists and dicts."""
    if isinstance(x, tg.Tensor):
        yield x
    for each in x.values() if isinstance(x, dict) else x if isinstance(x, tuple | list) else ():
        yield from tensors(each)


def detached(x: Any) -> Any:
    """A result without what stands beside it: a jitted one is outside the graph."""
    if isinstance(x, tg.Tensor):
        return x.detach()
    if isinstance(x, dict):
        return {key: detached(value) for key, value in x.items()}
    return type(x)(map(detached, x)) if isinstance(x, tuple | list) else x


def named(name: str, x: Any) -> Iterator[tuple[str, np.ndarray]]:
    """All numbers in ``x``, gradients included, each by the name of its place."""
    if isinstance(x, tg.Tensor):
        yield name, x.detach().numpy().copy()
        if x.grad is not None:
            yield from named(f"{name}.grad", x.grad)
    elif isinstance(x, nn.Module):
        for part in (x.named_parameters(), x.named_buffers()):
            for key, value in part:
                yield from named(f"{name}.{key}", value)
    elif isinstance(x, optim.Optimizer):
        yield from named(f"{name}.state", list(x.state.values()))
        groups = [{k: v for k, v in g.items() if k != "params"} for g in x.param_groups]
        yield from named(f"{name}.groups", groups)
    elif isinstance(x, dict):
        for key, value in x.items():
            yield from named(f"{name}[{key!r}]", value)
    elif isinstance(x, tuple | list):
        for i, value in enumerate(x):
            yield from named(f"{name}[{i}]", value)
    elif isinstance(x, int | float):
        yield name, np.array(x)


# Those that keep every bit; the last one lets sums round otherwise on Numba.
EXACT = tuple(each for each in PASSES if each.__name__ != "run_together")
MODES = {"recorded": (), "exact": EXACT, "all": PASSES}


def check(make: Make, backend: str, mode: str, steps: int = STEPS) -> None:
    """Plain and jitted from one seed: the same bits, or near them where sums round otherwise."""
    pytest.importorskip(backend)
    expected, _ = ran(make, backend, lambda step: step, steps)
    found, step = ran(make, backend, tg.jit(passes=MODES[mode]), steps)
    assert step.programs, "nothing was recorded"
    assert list(found) == list(expected)
    for name, x in expected.items():
        assert (x.dtype, x.shape) == (found[name].dtype, found[name].shape), name
    if mode == "all" and backend == "numba":
        results = {name for name in expected if name.startswith("result")}
        assert distance(expected, found, results) <= RESULTS
        assert distance(expected, found, set(expected) - results) <= CHANGES
        return
    for name, x in expected.items():
        assert x.tobytes() == found[name].tobytes(), name


def distance(
    expected: dict[str, np.ndarray], found: dict[str, np.ndarray], names: set[str]
) -> float:
    """Σ|x − y| / Σ|x| over all floats of those names."""
    chosen = [name for name in names if expected[name].dtype.kind == "f"]
    apart = sum(float(np.abs(expected[name] - found[name]).sum()) for name in chosen)
    return apart / max(sum(float(np.abs(expected[name]).sum()) for name in chosen), 1e-30)


modes = pytest.mark.parametrize("mode", MODES)
backends = pytest.mark.parametrize("backend", BACKENDS)


# ---- the workloads


def digits(rows: int, shape: tuple[int, ...]) -> tuple[tg.Tensor, tg.Tensor]:
    """Ten patterns under noise, and which of them each is."""
    draw = np.random.default_rng(0)
    labels = draw.integers(0, 10, rows)
    patterns = draw.random((10, 784), np.float32)
    images = (patterns[labels] + draw.random((rows, 784), np.float32)) / 2
    return tg.tensor(images.reshape(rows, *shape)), tg.tensor(labels)


def batched(rows: int, size: int, shape: tuple[int, ...] = (784,)) -> list[tuple[Any, ...]]:
    """The batches of an epoch; the last is short where ``size`` does not divide ``rows``."""
    x, y = digits(rows, shape)
    return [(x[i : i + size], y[i : i + size]) for i in range(0, rows, size)]


def trained(
    model: nn.Module,
    optimizer: optim.Optimizer,
    batches: list[tuple[Any, ...]],
    cost: Callable[[Any, Any], Any] = F.cross_entropy,
    after: Callable[[], Any] = lambda: None,
    before: Callable[[], Any] = lambda: None,
) -> Training:
    """The usual step: ``before`` is done between backward and update, ``after`` at the end."""

    def step(x: Any, y: Any) -> Any:
        loss = cost(model(x), y)
        optimizer.zero_grad()
        loss.backward()
        before()
        optimizer.step()
        after()
        return loss

    return Training(step, batches, [model, optimizer])


def one_hot(y: tg.Tensor) -> tg.Tensor:
    return (y.reshape(-1, 1) == tg.arange(10)).float()


def quadratic() -> Training:
    model = nn.Sequential(nn.Linear(784, 15), nn.Sigmoid(), nn.Linear(15, 10), nn.Sigmoid())

    def cost(p: Any, y: Any) -> Any:
        return (p - one_hot(y)).square().sum() * (0.5 / len(p))

    return trained(model, optim.SGD(model.parameters(), lr=0.5), batched(95, 10), cost)


def mlp(size: int) -> Training:
    model = models.mlp()
    return trained(model, optim.Adam(model.parameters()), batched(5 * size - 3, size))


def full_batch(*widths: int) -> Training:
    layers: list[nn.Module] = []
    for before, after in itertools.pairwise(widths):
        layers += [nn.Linear(before, after), nn.Sigmoid()]
    model = nn.Sequential(*(layers if len(widths) > 3 else layers[:-1]))

    def cost(p: Any, y: Any) -> Any:
        return F.mse_loss(p, one_hot(y)) if len(widths) > 3 else F.cross_entropy(p, y)

    return trained(model, optim.SGD(model.parameters(), lr=0.1), batched(2000, 2000), cost)


def convolutional(size: int, dtype: str = "float32") -> Training:
    """Adagrad's first step is g/|g|: where g is nothing but rounding, that decides, and it adds up.

    Hence float64 for many steps.
    """
    model = nn.Sequential(
        nn.Conv2d(1, 10, 5), nn.MaxPool2d(2), nn.ReLU(),
        nn.Conv2d(10, 20, 5), nn.Dropout2d(), nn.MaxPool2d(2), nn.ReLU(), nn.Flatten(),
        nn.Linear(320, 50), nn.ReLU(), nn.Dropout(), nn.Linear(50, 10),
    )  # fmt: skip
    batches = [(x.to(dtype), y) for x, y in batched(3 * size - 5, size, (1, 28, 28))]
    model.to(dtype)
    return trained(model, optim.Adagrad(model.parameters()), batches)


def default_recipe(size: int, steps: int) -> Training:
    model = models.cnn()
    optimizer = models.make_optimizer("adam", model, 0.01)
    schedule = optim.lr_scheduler.OneCycleLR(optimizer, 0.01, total_steps=steps + 2)
    batches = batched(3 * size - 5, size, (1, 28, 28))
    return trained(model, optimizer, batches, after=schedule.step)


# Each with its steps in the default run and in the slow one.
WORKLOADS: dict[str, tuple[Callable[[int], Training], int, int]] = {
    "sgd-10": (lambda steps: quadratic(), 200, 600),
    "mlp-32": (lambda steps: mlp(32), 60, 400),
    "mlp-128": (lambda steps: mlp(128), 20, 300),
    "full-32-16": (lambda steps: full_batch(784, 32, 16, 10), 15, 200),
    "full-100": (lambda steps: full_batch(784, 100, 10), 10, 200),
    "cnn-64": (lambda steps: convolutional(64, "float64" if steps > 7 else "float32"), 7, 200),
    "cnn-512": (lambda steps: convolutional(512, "float64" if steps > 7 else "float32"), 7, 100),
    "default": (lambda steps: default_recipe(64, steps), 7, 200),
}


@pytest.mark.parametrize("length", ["short", pytest.param("long", marks=pytest.mark.slow)])
@modes
@backends
@pytest.mark.parametrize("workload", WORKLOADS)
def test_workloads(workload: str, backend: str, mode: str, length: str) -> None:
    make, short, long = WORKLOADS[workload]
    steps = short if length == "short" else long
    check(lambda: make(steps), backend, mode, steps)


# ---- layers


class Recurrent(nn.Module):
    """h ← tanh(W·[x, h]) along the second dim."""

    def __init__(self) -> None:
        super().__init__()
        self.cell = nn.Linear(9, 5)

    def forward(self, x: Any) -> Any:
        h = tg.zeros(x.shape[0], 5)
        for t in range(x.shape[1]):
            h = self.cell(tg.cat([x[:, t], h], dim=1)).tanh()
        return h


class Attention(nn.Module):
    """Two heads over a sequence, each token seeing those before it."""

    def __init__(self) -> None:
        super().__init__()
        self.norm, self.qkv, self.out = nn.LayerNorm(4), nn.Linear(4, 12), nn.Linear(4, 4)

    def forward(self, x: Any) -> Any:
        rows, length, _ = x.shape
        heads = self.qkv(self.norm(x)).reshape(rows, length, 3, 2, 2).permute(2, 0, 3, 1, 4)
        q, k, v = heads[0], heads[1], heads[2]
        mask = tg.ones(length, length).tril() == 0
        weights = F.softmax((q @ k.transpose(-1, -2) / 2**0.5).masked_fill(mask, -1e9), dim=-1)
        return x + self.out((weights @ v).transpose(1, 2).reshape(rows, length, 4))


IMAGES, ROWS, WORDS = (6, 3, 9, 8), (6, 5, 4), (6, 5)
LAYERS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "recurrent": (Recurrent, ROWS),
    "attention": (Attention, ROWS),
    "embedding": (lambda: nn.Sequential(nn.Embedding(7, 4), nn.Linear(4, 3)), WORDS),
    "padding_idx": (lambda: nn.Embedding(7, 4, padding_idx=2), WORDS),
    "batch_norm": (lambda: nn.Sequential(nn.Flatten(), nn.BatchNorm1d(20)), ROWS),
    "batch_norm_mean": (lambda: nn.BatchNorm2d(3, momentum=None), IMAGES),
    "batch_norm_plain": (lambda: nn.BatchNorm2d(3, affine=False), IMAGES),
    "batch_norm_untracked": (lambda: nn.BatchNorm2d(3, track_running_stats=False), IMAGES),
    "group_norm": (lambda: nn.Sequential(nn.Conv2d(3, 4, 3), nn.GroupNorm(2, 4)), IMAGES),
    "layer_norm": (lambda: nn.Sequential(nn.Linear(4, 6), nn.LayerNorm(6)), ROWS),
    "conv_transpose": (lambda: nn.ConvTranspose2d(3, 4, 3, stride=2), IMAGES),
    "grouped": (lambda: nn.Conv2d(3, 6, 3, stride=2, padding=1, groups=3, bias=False), IMAGES),
    "dilated": (lambda: nn.Conv2d(3, 2, (2, 3), dilation=2), IMAGES),
    "max_pool": (lambda: nn.Sequential(nn.Conv2d(3, 4, 3), nn.MaxPool2d(3, 2, 1)), IMAGES),
    "avg_pool": (lambda: nn.Sequential(nn.Conv2d(3, 4, 3), nn.AvgPool2d(2)), IMAGES),
    "adaptive": (lambda: nn.Sequential(nn.Conv2d(3, 4, 3), nn.AdaptiveAvgPool2d(3)), IMAGES),
    "unflatten": (
        lambda: nn.Sequential(nn.Flatten(), nn.Linear(20, 12), nn.Unflatten(1, (3, 2, 2))),
        ROWS,
    ),
    "dropouts": (
        lambda: nn.Sequential(nn.Conv2d(3, 4, 3), nn.Dropout2d(0.3), nn.Dropout(0.4)),
        IMAGES,
    ),
    **{
        name: (lambda name=name: nn.Sequential(nn.Linear(4, 6), getattr(nn, name)()), ROWS)
        for name in (
            "ELU", "GELU", "Hardtanh", "Identity", "LeakyReLU", "LogSigmoid", "Mish", "ReLU",
            "ReLU6", "SiLU", "Sigmoid", "Softplus", "Tanh",
        )
    },
    **{
        name: (lambda name=name: nn.Sequential(nn.Linear(4, 6), getattr(nn, name)(dim=-1)), ROWS)
        for name in ("LogSoftmax", "Softmax", "Softmin")
    },
}  # fmt: skip


@modes
@backends
@pytest.mark.parametrize("layer", LAYERS)
def test_layers(layer: str, backend: str, mode: str) -> None:
    make, shape = LAYERS[layer]

    def training() -> Training:
        model = make()
        batches: list[tuple[Any, ...]] = [
            (
                tg.randint(0, 7, (rows, *shape[1:]))
                if shape is WORDS
                else tg.randn(rows, *shape[1:]),
            )
            for rows in (*shape[:1] * 3, 4)
        ]
        parameters = [*model.parameters()]
        optimizer = optim.SGD(parameters, lr=0.05, momentum=0.9) if parameters else None

        def step(x: Any) -> Any:
            out = model(x)
            loss = (out * out.sigmoid()).mean()
            if optimizer is not None:
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
            return loss, out

        return Training(step, batches, [model, *([] if optimizer is None else [optimizer])])

    check(training, backend, mode)


LOSSES: dict[str, Callable[[Any, Any], Any]] = {
    "BCELoss": lambda p, y: nn.BCELoss()(p.sigmoid(), one_hot(y)),
    "BCEWithLogitsLoss": lambda p, y: nn.BCEWithLogitsLoss()(p, one_hot(y)),
    "CrossEntropyLoss": lambda p, y: nn.CrossEntropyLoss(label_smoothing=0.1)(p, y),
    "ignored": lambda p, y: nn.CrossEntropyLoss(ignore_index=3)(p, y),
    "weighted": lambda p, y: F.cross_entropy(p, y, weight=tg.arange(10).float()),
    "HuberLoss": lambda p, y: nn.HuberLoss(delta=0.3)(p, one_hot(y)),
    "KLDivLoss": lambda p, y: nn.KLDivLoss(reduction="batchmean")(
        F.log_softmax(p, dim=1), F.softmax(one_hot(y), dim=1)
    ),
    "L1Loss": lambda p, y: nn.L1Loss()(p, one_hot(y)),
    "MSELoss": lambda p, y: nn.MSELoss(reduction="none")(p, one_hot(y)).sum(),
    "NLLLoss": lambda p, y: nn.NLLLoss()(F.log_softmax(p, dim=1), y),
    "SmoothL1Loss": lambda p, y: nn.SmoothL1Loss(beta=0.5)(p, one_hot(y)),
}


def small(rows: int = 22, size: int = 6) -> list[tuple[Any, ...]]:
    """Batches of (x (6, 8), y (6,)), the last one short."""
    x, y = tg.randn(rows, 8), tg.randint(0, 10, (rows,))
    return [(x[i : i + size], y[i : i + size]) for i in range(0, rows, size)]


def network() -> nn.Sequential:
    return nn.Sequential(nn.Linear(8, 7), nn.Tanh(), nn.Linear(7, 10))


@modes
@backends
@pytest.mark.parametrize("loss", LOSSES)
def test_losses(loss: str, backend: str, mode: str) -> None:
    def make() -> Training:
        model = network()
        return trained(model, optim.SGD(model.parameters(), lr=0.1), small(), LOSSES[loss])

    check(make, backend, mode)


def test_every_layer_is_here() -> None:
    used = {type(m).__name__ for make, _ in LAYERS.values() for m in make().modules()}
    containers = {"Module", "ModuleDict", "ModuleList", "Parameter"}
    layers = {name for name in nn.__all__ if name[0].isupper()} - containers
    assert layers - used - set(LOSSES) == set()


# ---- optimizers and schedules

OPTIMIZERS: dict[str, Callable[[Any], optim.Optimizer]] = {
    "sgd": lambda p: optim.SGD(p, lr=0.1),
    "sgd-decay": lambda p: optim.SGD(p, lr=0.1, weight_decay=0.01, maximize=True),
    "momentum": lambda p: optim.SGD(p, lr=0.1, momentum=0.9, dampening=0.2),
    "nesterov": lambda p: optim.SGD(p, lr=0.1, momentum=0.9, nesterov=True),
    "adam": lambda p: optim.Adam(p, lr=0.01, weight_decay=0.01),
    "amsgrad": lambda p: optim.Adam(p, lr=0.01, amsgrad=True, maximize=True),
    "decoupled": lambda p: optim.Adam(p, lr=0.01, weight_decay=0.1, decoupled_weight_decay=True),
    "adamw": lambda p: optim.AdamW(p, lr=0.01, weight_decay=0.1, amsgrad=True),
    "adagrad": lambda p: optim.Adagrad(p, lr=0.1, lr_decay=0.1, initial_accumulator_value=0.1),
    "adagrad-decay": lambda p: optim.Adagrad(p, lr=0.1, weight_decay=0.1, maximize=True),
    "adadelta": lambda p: optim.Adadelta(p, lr=0.5, rho=0.8, weight_decay=0.1),
    "adadelta-up": lambda p: optim.Adadelta(p, maximize=True),
    "rmsprop": lambda p: optim.RMSprop(p, lr=0.01, weight_decay=0.1),
    "centered": lambda p: optim.RMSprop(p, lr=0.01, momentum=0.9, centered=True),
    "rmsprop-up": lambda p: optim.RMSprop(p, lr=0.01, momentum=0.5, maximize=True),
}
S = optim.lr_scheduler
SCHEDULES: dict[str, Callable[[Any], Any]] = {
    "step": lambda o: S.StepLR(o, 3, 0.5),
    "milestones": lambda o: S.MultiStepLR(o, [2, 5, 9], 0.5),
    "exponential": lambda o: S.ExponentialLR(o, 0.9),
    "linear": lambda o: S.LinearLR(o, 0.2, total_iters=6),
    "cosine": lambda o: S.CosineAnnealingLR(o, 5),
    "lambda": lambda o: S.LambdaLR(o, lambda epoch: 1 / (1 + epoch)),
    "one cycle": lambda o: S.OneCycleLR(o, 0.1, total_steps=40),
    "sequential": lambda o: S.SequentialLR(
        o, [S.LinearLR(o, 0.5, total_iters=3), S.ExponentialLR(o, 0.8)], milestones=[4]
    ),
}


@modes
@backends
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_optimizers(optimizer: str, backend: str, mode: str) -> None:
    def make() -> Training:
        model = network()
        return trained(model, OPTIMIZERS[optimizer](model.parameters()), small())

    check(make, backend, mode)


@modes
@backends
@pytest.mark.parametrize("kind", ["momentum", "adam"])
@pytest.mark.parametrize("schedule", SCHEDULES)
def test_schedules(schedule: str, kind: str, backend: str, mode: str) -> None:
    def make() -> Training:
        model = network()
        optimizer = OPTIMIZERS[kind](model.parameters())
        after = SCHEDULES[schedule](optimizer)
        return trained(model, optimizer, small(), after=after.step)

    check(make, backend, mode)


def test_every_optimizer_and_schedule_is_here() -> None:
    p = [tg.zeros(1, requires_grad=True)]
    made = {type(make(p)).__name__ for make in OPTIMIZERS.values()}
    assert made == set(optim.__all__) - {"Optimizer", "lr_scheduler"}
    optimizer = optim.SGD(p, lr=0.1, momentum=0.9)
    schedules = {type(make(optimizer)).__name__ for make in SCHEDULES.values()}
    known = {name for name in vars(S) if name.endswith("LR")} - {"LRScheduler"}
    assert schedules == known  # ReduceLROnPlateau reads a number: it stands outside of a step


# ---- what steps do


@case
def clipped_by_norm() -> Training:
    model = network()

    def clip() -> None:
        nn.utils.clip_grad_norm_(model.parameters(), 0.05)

    return trained(model, optim.SGD(model.parameters(), lr=0.5), small(), before=clip)


@case
def clipped_by_value() -> Training:
    model = network()

    def clip() -> None:
        nn.utils.clip_grad_value_(model.parameters(), 0.01)

    return trained(model, optim.Adam(model.parameters(), lr=0.5), small(), before=clip)


@case
def norm_returned() -> Training:
    model = network()
    optimizer = optim.SGD(model.parameters(), lr=0.5)

    def step(x: Any, y: Any) -> Any:
        optimizer.zero_grad()
        loss = F.cross_entropy(model(x), y)
        loss.backward()
        norm = nn.utils.clip_grad_norm_(model.parameters(), 0.05, norm_type=1)
        optimizer.step()
        return {"loss": loss, "norm": norm, "rows": len(x)}

    return Training(step, small(), [model, optimizer])


@case
def groups() -> Training:
    model = network()
    optimizer = optim.AdamW(
        [
            {"params": model[0].parameters(), "lr": 0.05, "betas": (0.8, 0.99)},
            {"params": model[2].parameters(), "amsgrad": True, "weight_decay": 0.3},
        ],
        lr=0.01,
    )
    after = S.LambdaLR(optimizer, [lambda n: 0.9**n, lambda n: 1 / (n + 1)])
    return trained(model, optimizer, small(), after=after.step)


@case
def schedule_outside() -> Training:
    model = network()
    optimizer = optim.SGD(model.parameters(), lr=0.1, momentum=0.5)
    schedule = S.ReduceLROnPlateau(optimizer, patience=0, factor=0.7)
    made = trained(model, optimizer, small())
    made.between = lambda call: schedule.step(float(call)) if call else None
    return made


@case
def rate_by_hand() -> Training:
    model = network()
    optimizer = optim.Adam(model.parameters(), lr=0.1)

    def between(call: int) -> None:
        optimizer.param_groups[0]["lr"] = 0.1 / (call + 1)
        optimizer.param_groups[0]["betas"] = (0.9 - call / 100, 0.99)

    made = trained(model, optimizer, small())
    made.between = between
    return made


@case
def hooks() -> Training:
    model = network()
    model[0].register_forward_pre_hook(lambda module, args: (args[0] * 1.5,))
    model[1].register_forward_hook(lambda module, args, out: out + 0.1)
    model[2].weight.register_hook(lambda dW: dW.clamp(-0.01, 0.01))
    kept: list[Any] = []

    def cost(p: Any, y: Any) -> Any:
        p.register_hook(lambda dY: dY * 2)
        kept[:] = [p]
        return F.cross_entropy(p, y)

    return trained(model, optim.SGD(model.parameters(), lr=0.3), small(), cost)


@case
def kept_gradient() -> Training:
    model = network()
    optimizer = optim.SGD(model.parameters(), lr=0.3)

    def step(x: Any, y: Any) -> Any:
        optimizer.zero_grad()
        h = model[1](model[0](x))
        h.retain_grad()
        F.cross_entropy(model[2](h), y).backward()
        optimizer.step()
        return h, h.grad

    return Training(step, small(), [model, optimizer])


class Cube(tg.autograd.Function):
    """x³."""

    @staticmethod
    def forward(ctx: Any, x: Any) -> Any:
        ctx.save_for_backward(x)
        return x * x * x

    @staticmethod
    def backward(ctx: Any, dY: Any) -> Any:
        (x,) = ctx.saved_tensors
        return dY * (3 * x * x)


@case
def custom_function() -> Training:
    model = network()
    return trained(
        model, optim.SGD(model.parameters(), lr=0.1), small(),
        lambda p, y: F.cross_entropy(Cube.apply(p), y),
    )  # fmt: skip


@case
def gradient_penalty() -> Training:
    model = network()
    optimizer = optim.Adam(model.parameters(), lr=0.05)

    def step(x: Any, y: Any) -> Any:
        x = x.detach().requires_grad_()
        loss = F.cross_entropy(model(x), y)
        (dX,) = tg.autograd.grad(loss, x, create_graph=True)
        total = loss + dX.square().sum()
        optimizer.zero_grad()
        total.backward()
        optimizer.step()
        return total

    return Training(step, small(), [model, optimizer])


@case
def second_derivative_by_backward() -> Training:
    w = tg.randn(5, requires_grad=True)

    def step(x: Any) -> Any:
        w.grad = None
        (w * x).tanh().sum().backward(create_graph=True)
        dW = w.grad
        w.grad = None
        dW.square().sum().backward()
        with tg.no_grad():
            w.sub_(0.1 * w.grad)
        return dW

    return Training(step, [(tg.randn(5),) for _ in range(3)], [w])


@case
def accumulated_inside() -> Training:
    model = network()
    optimizer = optim.SGD(model.parameters(), lr=0.2)

    def step(x: Any, y: Any) -> Any:
        optimizer.zero_grad(set_to_none=False)
        losses = [F.cross_entropy(model(part), y[:2]) for part in (x[:2], x[2:4])]
        for loss in losses:
            loss.backward()
        optimizer.step()
        return losses

    return Training(step, small(), [model, optimizer])


@case
def accumulated_over_calls() -> Training:
    model = network()
    optimizer = optim.SGD(model.parameters(), lr=0.2)

    def step(x: Any, y: Any) -> Any:
        loss = F.cross_entropy(model(x), y)
        loss.backward()
        return loss

    def between(call: int) -> None:
        if call and call % 3 == 0:
            optimizer.step()
            optimizer.zero_grad()

    return Training(step, small(), [model, optimizer], between, runs=9)


@case
def accumulated_and_zeroed() -> Training:
    model = network()
    optimizer = optim.Adam(model.parameters(), lr=0.2)

    def step(x: Any, y: Any) -> Any:
        loss = F.cross_entropy(model(x), y)
        loss.backward()
        optimizer.step()
        return loss

    def between(call: int) -> None:
        if call % 2 == 0:
            optimizer.zero_grad(set_to_none=False)

    return Training(step, small(), [model, optimizer], between)


@case
def zeroed_after_the_update() -> Training:
    model = network()
    optimizer = optim.Adam(model.parameters(), lr=0.1)

    def step(x: Any, y: Any) -> Any:
        loss = F.cross_entropy(model(x), y)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        return loss

    return Training(step, small(), [model, optimizer])


@case
def backward_twice() -> Training:
    model = network()
    optimizer = optim.SGD(model.parameters(), lr=0.1)

    def step(x: Any, y: Any) -> Any:
        loss = F.cross_entropy(model(x), y)
        optimizer.zero_grad()
        loss.backward(retain_graph=True)
        (loss * 0.5).backward()
        optimizer.step()
        return loss

    return Training(step, small(), [model, optimizer])


@case
def two_optimizers() -> Training:
    """A generator against a discriminator."""
    g = nn.Sequential(nn.Linear(3, 6), nn.ReLU(), nn.Linear(6, 8))
    d = nn.Sequential(nn.Linear(8, 6), nn.LeakyReLU(0.2), nn.Dropout(0.3), nn.Linear(6, 1))
    for_g, for_d = optim.Adam(g.parameters(), lr=0.02), optim.RMSprop(d.parameters(), lr=0.01)
    judge = nn.BCEWithLogitsLoss()

    def step(real: Any, y: Any) -> Any:
        noise = tg.randn(len(real), 3)
        fake = g(noise)
        for_d.zero_grad()
        cost_d = judge(d(real), tg.ones(len(real), 1)) + judge(
            d(fake.detach()), tg.zeros(len(real), 1)
        )
        cost_d.backward()
        for_d.step()
        for_g.zero_grad()
        cost_g = judge(d(fake), tg.ones(len(real), 1))
        cost_g.backward()
        for_g.step()
        return cost_d, cost_g

    return Training(step, small(), [g, d, for_g, for_d])


@case
def tied_weights() -> Training:
    model = nn.Sequential(nn.Linear(8, 8), nn.Tanh(), nn.Linear(8, 8))
    model[2].weight = model[0].weight

    def cost(p: Any, y: Any) -> Any:
        return (p @ model[0].weight.T[:, :5]).square().mean()

    return trained(model, optim.SGD(model.parameters(), lr=0.1, momentum=0.9), small(), cost)


@case
def in_place_inside() -> Training:
    model = network()
    optimizer = optim.SGD(model.parameters(), lr=0.1)
    counts, mean = tg.zeros(10), tg.zeros(8)

    def step(x: Any, y: Any) -> Any:
        with tg.no_grad():
            counts.add_(one_hot(y).sum(0))
            mean.mul_(0.9).add_(x.mean(0) * 0.1)
            mean[2] = 1.0
            mean[4:6] = x[0, :2]
            scratch = x.clone()
            scratch[:, 1] = mean[1]
            scratch.sub_(mean).clamp_(-2, 2)
        optimizer.zero_grad()
        loss = F.cross_entropy(model(scratch), y)
        loss.backward()
        optimizer.step()
        return loss, counts

    return Training(step, small(), [model, optimizer, counts, mean])


@case
def argument_written() -> Training:
    h = tg.zeros(3, 4)
    x = tg.randn(3, 4)

    def step(x: Any, state: Any) -> Any:
        row = state[1]
        row.add_(x[2])
        state.mul_(0.5).add_(x)
        return state.sum(), row

    return Training(step, [(x, h), (x * 2, h), (tg.randn(3, 4), h)], [h, x])


@case
def views() -> Training:
    """Of arguments and of parameters, transposed ones too."""
    w = tg.randn(4, 6, requires_grad=True)
    optimizer = optim.SGD([w], lr=0.1)

    def step(x: Any) -> Any:
        top, rest = w[:2], w.T[3:]
        y = (x.reshape(-1, 6) @ top.T).relu()
        z = x.transpose(0, 1)[::2].reshape(-1, 3) @ rest[:, :2]
        loss = y.square().sum() + z.sigmoid().sum() + x.reshape(-1)[5] * w[1, 2]
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        return loss, y.T, x[0]

    batches = [(tg.randn(4, 6),) for _ in range(3)] + [(tg.randn(6, 4).T,) for _ in range(3)]
    return Training(step, batches, [w, optimizer])


@case
def nests() -> Training:
    w = tg.randn(3, requires_grad=True)

    def step(batch: Any, *, scale: Any) -> Any:
        w.grad = None
        a, (b, c) = batch["a"], batch["rest"]
        loss = ((a * w + b) * scale[0] - c).square().sum()
        loss.backward()
        with tg.no_grad():
            w.sub_(w.grad * 0.1)
        return {"loss": loss, "more": (a + b, [c, None, "text", 3])}

    batches = [
        ({"a": tg.randn(3), "rest": (tg.randn(3), tg.randn(3))}, [tg.randn(1)]) for _ in range(4)
    ]
    return Training(lambda batch, scale: step(batch, scale=scale), batches, [w])


@case
def leaf_arguments() -> Training:
    a, b = tg.randn(4, requires_grad=True), tg.randn(4, requires_grad=True)

    def step(x: Any, y: Any) -> Any:
        x.grad = None
        loss = (x * y).tanh().sum()
        loss.backward()
        return loss

    return Training(step, [(a, tg.randn(4)), (b, tg.randn(4))], [a, b], runs=3)


@case
def same_argument_twice() -> Training:
    a, b = tg.randn(4), tg.randn(4)
    return Training(lambda x, y: (x * y, x - y), [(a, a), (a, a), (a, b), (b, a), (b, b)], [])


@case
def inference() -> Training:
    model = models.cnn()
    model.eval()

    def step(x: Any) -> Any:
        with tg.no_grad():
            logits = model(x)
            return logits.argmax(dim=1), F.softmax(logits, dim=1)

    return Training(step, [(tg.randn(n, 1, 28, 28),) for n in (3, 3, 3, 2)], [])


@case
def inference_with_gradients_on() -> Training:
    model = network()
    return Training(lambda x, y: model(x), small(), [model])


@case
def evaluated_between() -> Training:
    model = nn.Sequential(nn.Linear(8, 6), nn.BatchNorm1d(6), nn.Dropout(0.5), nn.Linear(6, 10))
    made = trained(model, optim.SGD(model.parameters(), lr=0.1), small())

    def between(call: int) -> None:
        model.train(call % 3 != 2)

    made.between = between
    made.runs = 6
    return made


@case
def random_numbers() -> Training:
    def step(x: Any) -> Any:
        y = x + tg.rand(3) + tg.randn(3) * tg.randn_like(x)
        tg.rand(2)  # nobody reads them; the next ones are others for it
        return y.uniform_(), tg.rand(3), y.normal_(1, 2)

    return Training(step, [(tg.randn(3),)], [])


@case
def integers_and_indices() -> Training:
    table = tg.randn(7, 3, requires_grad=True)

    def step(i: Any, x: Any) -> Any:
        table.grad = None
        picked = table[i] + x.gather(1, i.reshape(-1, 1) % 3)
        out = tg.where(picked > 0, picked, picked * 0.1).cumsum(0)
        out.sum().backward()
        with tg.no_grad():
            table.sub_(0.1 * table.grad)
        return out, picked.argmax(1), picked.topk(2)[0], picked.sort(1)[1]

    return Training(step, [(tg.randint(0, 7, (4,)), tg.randn(4, 3)) for _ in range(3)], [table])


@case
def wide_floats() -> Training:
    model = network().double()
    batches = [(x.double(), y) for x, y in small()]
    return trained(model, optim.Adam(model.parameters(), lr=0.01), batches)


@case
def update_by_hand() -> Training:
    model = network()

    def step(x: Any, y: Any) -> Any:
        for p in model.parameters():
            p.grad = None
        loss = F.cross_entropy(model(x), y)
        loss.backward()
        with tg.no_grad():
            for p in model.parameters():
                p -= 0.1 * p.grad
        return loss

    return Training(step, small(), [model])


@case
def own_optimizer() -> Training:
    class SignSGD(optim.Optimizer):
        def __init__(self, params: Any, lr: float = 0.01) -> None:
            super().__init__(params, {"lr": lr})

        @tg.no_grad()
        def step(self, closure: Any = None) -> None:
            for group in self.param_groups:
                for p in group["params"]:
                    p -= group["lr"] * p.grad.sign()

    model = network()
    return trained(model, SignSGD(model.parameters()), small())


@case
def own_optimizer_and_schedule() -> Training:
    """The rate of an optimizer made of tensor ops is built in, so each rate has its program."""
    made = own_optimizer()
    _, optimizer = made.changes
    schedule = S.StepLR(optimizer, 3, 0.5)

    def step(x: Any, y: Any) -> Any:
        loss = made.step(x, y)
        schedule.step()
        return loss

    return Training(step, small(24), made.changes, runs=5)


@case
def closure_of_the_optimizer() -> Training:
    model = network()
    optimizer = optim.SGD(model.parameters(), lr=0.1, momentum=0.9)

    def step(x: Any, y: Any) -> Any:
        def closure() -> Any:
            optimizer.zero_grad()
            loss = F.cross_entropy(model(x), y)
            loss.backward()
            return loss

        return optimizer.step(closure)

    return Training(step, small(), [model, optimizer])


@case
def weights_averaged() -> Training:
    """A second copy that follows the first, as in momentum contrast."""
    model, slow = network(), network()
    slow.load_state_dict(model.state_dict())
    slow.requires_grad_(False)

    def follow() -> None:
        with tg.no_grad():
            for p, q in zip(slow.parameters(), model.parameters(), strict=True):
                p.lerp_(q, 0.1)

    made = trained(model, optim.Adam(model.parameters()), small(), after=follow)
    made.changes.append(slow)
    return made


@case
def two_models_one_of_them_frozen() -> Training:
    body, head = network(), nn.Linear(10, 10)
    body.requires_grad_(False)
    optimizer = optim.SGD([*body.parameters(), *head.parameters()], lr=0.1, momentum=0.9)
    return trained(nn.Sequential(body, head), optimizer, small())


@case
def states_loaded() -> Training:
    model = network()
    optimizer = optim.Adam(model.parameters(), lr=0.05)
    made = trained(model, optimizer, small())
    kept: list[Any] = []

    def between(call: int) -> None:
        if call in (1, 5):
            kept.append(
                (
                    {k: v.clone() for k, v in model.state_dict().items()},
                    {**optimizer.state_dict(), "state": clones(optimizer.state_dict()["state"])},
                )
            )
        if call in (3, 4, 8, 10):
            weights, state = kept[call % len(kept)]
            model.load_state_dict(weights)
            optimizer.load_state_dict(state)

    made.between = between
    return made


def clones(x: Any) -> Any:
    if isinstance(x, dict):
        return {k: clones(v) for k, v in x.items()}
    return x.clone() if isinstance(x, tg.Tensor) else x


@case
def fresh_state_loaded() -> Training:
    """The state from before the first step has no moments."""
    model = network()
    optimizer = optim.RMSprop(model.parameters(), lr=0.05, momentum=0.9)
    fresh = optimizer.state_dict()
    made = trained(model, optimizer, small())

    def between(call: int) -> None:
        if call in (3, 4, 9):
            optimizer.load_state_dict(fresh)

    made.between = between
    made.runs = 9
    return made


@case
def frozen_for_a_while() -> Training:
    model = network()
    made = trained(model, optim.SGD(model.parameters(), lr=0.1, momentum=0.9), small(24))

    def between(call: int) -> None:
        model[0].requires_grad_(not 4 <= call < 8)

    made.between = between
    made.runs = 3
    return made


@case
def gradients_forgotten_by_hand() -> Training:
    model = network()
    optimizer = optim.SGD(model.parameters(), lr=0.1)

    def step(x: Any, y: Any) -> Any:
        loss = F.cross_entropy(model(x), y)
        loss.backward()
        optimizer.step()
        return loss

    def between(call: int) -> None:
        for p in model.parameters():
            p.grad = None

    return Training(step, small(24), [model, optimizer], between)


@case
def momentum_switched_on() -> Training:
    model = network()
    optimizer = optim.SGD(model.parameters(), lr=0.1)
    made = trained(model, optimizer, small(24))

    def between(call: int) -> None:
        if call == 4:
            optimizer.param_groups[0]["momentum"] = 0.9
        if call == 8:
            optimizer.param_groups[0]["nesterov"] = True

    made.between = between
    made.runs = 4
    return made


@case
def dropout_changed() -> Training:
    model = nn.Sequential(nn.Linear(8, 6), nn.Dropout(0.5), nn.Linear(6, 10))
    made = trained(model, optim.SGD(model.parameters(), lr=0.1), small(24))

    def between(call: int) -> None:
        if call % 4 == 3:
            model[1].p = call / 20

    made.between = between
    made.runs = 5
    return made


@case
def hooks_come_and_go() -> Training:
    model = network()
    made = trained(model, optim.SGD(model.parameters(), lr=0.1), small(24))
    handles: list[Any] = []

    def between(call: int) -> None:
        if call == 3:
            handles.append(model[1].register_forward_hook(lambda m, args, out: out * 2))
        if call == 5:
            handles.append(model[0].weight.register_hook(lambda dW: dW * 3))
        if call in (7, 9):
            handles.pop(0).remove()

    made.between = between
    made.runs = 5
    return made


@case
def bare_leaf_changed() -> Training:
    """A leaf that is in no module: its hooks, and whether it is trained."""
    w, v = tg.randn(8, requires_grad=True), tg.randn(8, requires_grad=True)

    def step(x: Any, y: Any) -> Any:
        w.grad = v.grad = None
        loss = (x * w * v).tanh().sum()
        loss.backward()
        return loss

    def between(call: int) -> None:
        if call == 4:
            w.register_hook(lambda dW: dW * 3)
        if call in (7, 10):
            v.requires_grad_(call == 10)

    return Training(step, small(24), [w, v], between, runs=4)


@case
def counts_its_calls() -> Training:
    """What Python does runs in the first two calls only, and the rest goes on."""

    class Counting(nn.Linear):
        calls = 0

        def forward(self, x: Any) -> Any:
            self.calls += 1
            return super().forward(x)

    model = Counting(8, 10)
    made = trained(model, optim.SGD(model.parameters(), lr=0.1), small(24))
    made.runs = 3  # the second call changes what it relied on, and is not recorded
    return made


@case
def trained_in_turns() -> Training:
    """The other part is frozen inside the step."""
    g, d = nn.Linear(3, 8), nn.Sequential(nn.Linear(8, 4), nn.ReLU(), nn.Linear(4, 1))
    for_g, for_d = optim.Adam(g.parameters()), optim.Adam(d.parameters())

    def step(x: Any, y: Any) -> Any:
        d.requires_grad_(False)
        for_g.zero_grad()
        (-d(g(tg.randn(5, 3))).mean()).backward()
        for_g.step()
        d.requires_grad_(True)
        for_d.zero_grad()
        (d(g(tg.randn(5, 3)).detach()).mean() - d(x).mean()).backward()
        for_d.step()

    return Training(step, small(24), [g, d, for_g, for_d], runs=3)


@case
def one_part_at_a_time() -> Training:
    """Moments of the parts have seen different numbers of steps."""
    model = nn.Sequential(nn.Linear(8, 8), nn.Linear(8, 8))
    optimizer = optim.Adam(model.parameters(), lr=0.1)

    def step(x: Any, part: int) -> None:
        optimizer.zero_grad()
        (model(x) if part == 2 else model[part](x)).square().mean().backward()
        optimizer.step()

    x = tg.randn(6, 8)
    parts = [2, 2, 2, 0, 0, 0, 2, 2, 1, 0, 1, 0]
    return Training(step, [(x, part) for part in parts], [model, optimizer], runs=7)


@case
def accumulated_by_a_flag() -> Training:
    model = nn.Linear(8, 3)
    optimizer = optim.SGD(model.parameters(), lr=0.1)

    def step(x: Any, last: bool) -> None:
        model(x).square().mean().backward()
        if last:
            optimizer.step()
            optimizer.zero_grad()

    batches = [(tg.randn(6, 8), i % 3 == 2) for i in range(6)]
    return Training(step, batches, [model, optimizer], runs=8)


@case
def gradients_changed_by_hand() -> Training:
    model = network()

    def change() -> None:
        for p in model.parameters():
            p.grad.mul_(0.5)
            p.grad = p.grad + 0.01 * p.detach()

    optimizer = optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    return trained(model, optimizer, small(), before=change)


@case
def parameter_replaced() -> Training:
    model = nn.Sequential(nn.Linear(8, 6), nn.Linear(6, 10))

    def step(x: Any, y: Any) -> Any:
        return F.cross_entropy(model(x), y)

    def between(call: int) -> None:
        if call == 4:
            model[0].weight = nn.Parameter(tg.ones(6, 8))
        if call == 7:
            model[1] = nn.Linear(6, 10)

    return Training(step, small(24), [model], between, runs=4)


@modes
@backends
@pytest.mark.parametrize("what", CASES)
def test_steps(what: str, backend: str, mode: str) -> None:
    check(CASES[what], backend, mode)
