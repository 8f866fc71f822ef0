"""``Module.summary``: what it counts, what it prints, and that nothing is left of it."""

from __future__ import annotations

from collections import Counter, deque
from typing import Any

import numpy as np
import pytest

import tinygrad_mnist as tg
import tinygrad_mnist.nn.functional as F
from tinygrad_mnist import models, nn, random
from tinygrad_mnist.dispatch import observers
from tinygrad_mnist.kernels import Backend
from tinygrad_mnist.nn.summary import Row, Summary, summarize


def row(summary: Summary, path: str) -> Row:
    (found,) = (each for each in summary.rows if each.path == path)
    return found


# ---- what it counts


def test_the_default_network(capsys: pytest.CaptureFixture[str]) -> None:
    found = summarize(models.cnn(), (1, 28, 28))
    assert [each.path for each in found.rows] == [str(i) for i in range(12)]
    first, last = found.rows[0], found.rows[-1]
    assert first == Row(
        "0",
        "Conv2d",
        calls=1,
        outputs=((None, 10, 24, 24),),
        parameters=260,
        trainable=260,
        parameter_bytes=1040,
        shared=False,
        multiply_adds=10 * 24 * 24 * 25,
        output_bytes=4 * 10 * 24 * 24,
    )
    assert (last.layer, last.outputs, last.multiply_adds) == ("Linear", ((None, 10),), 500)
    assert found.inputs == (((None, 1, 28, 28), "float32"),)
    assert found.outputs == ((None, 10),)
    assert sum(each.parameters for each in found.rows) == 21_900
    assert models.cnn().summary((1, 28, 28)) is None
    lines = capsys.readouterr().out.splitlines()
    assert lines[:3] == [
        "Model: Sequential",
        "Input: (None, 1, 28, 28) float32",
        "Output: (None, 10)",
    ]
    assert lines[4].split("  ")[0] == "Layer (type)"
    assert " ".join(lines[6].split()) == "0 (Conv2d) (None, 10, 24, 24) 260 144,000 23,040"
    assert lines[-4:] == [
        "Params: 21,900 (87,600 bytes)",
        "Trainable: 21,900, frozen: 0",
        "Multiply-adds per sample: 480,500",
        "Output bytes per sample: 51,000",
    ]
    assert max(map(len, lines)) <= 80


class Block(nn.Module):
    """A parameter and a product of its own, beside a layer."""

    def __init__(self, features: int) -> None:
        super().__init__()
        self.inner = nn.Sequential(nn.Linear(features, features, bias=False))
        self.scale = nn.Parameter(tg.ones(features))

    def forward(self, x: tg.Tensor) -> tg.Tensor:
        return x @ (self.inner(x).T @ x) * self.scale


class Net(nn.Module):
    """Blocks, one layer called on two shapes and thrice on one, a head that nothing calls."""

    def __init__(self) -> None:
        super().__init__()
        self.blocks = nn.ModuleList([Block(4), Block(4)])
        self.act = nn.ReLU()
        self.cell = nn.Linear(4, 4)
        self.head = nn.Linear(4, 2)
        self.tied = nn.Linear(4, 4, bias=False)
        self.tied.weight = self.cell.weight

    def forward(self, x: tg.Tensor) -> dict[str, Any]:
        for block in self.blocks:
            x = self.act(block(x))
        for _ in range(3):
            x = self.cell(x)
        return {"mean": self.act(x[:, :2]), "rest": (self.tied(x), [x.sum()])}


def test_nested_repeated_shared_and_uncalled_layers() -> None:
    found = summarize(Net(), (4,))
    assert [(each.path, each.calls) for each in found.rows] == [
        ("blocks.0", 1),
        ("blocks.0.inner.0", 1),
        ("act", 2),
        ("blocks.1", 1),
        ("blocks.1.inner.0", 1),
        ("cell", 3),
        ("act", 1),
        ("tied", 1),
        ("head", 0),
    ]
    assert row(found, "blocks.0").parameters == 4
    assert row(found, "blocks.0.inner.0").multiply_adds == 16
    assert row(found, "cell").multiply_adds == 3 * 16
    assert row(found, "cell").parameters == 20
    assert row(found, "tied").shared
    assert row(found, "tied").parameters == 0
    assert row(found, "head").parameters == 10
    assert found.outputs == ((None, 2), (None, 4), ())
    assert sum(each.parameters for each in found.rows) == sum(p.numel() for p in Net().parameters())


def test_how_these_are_printed(capsys: pytest.CaptureFixture[str]) -> None:
    Net().summary((4,))
    said = capsys.readouterr().out
    assert "Output: (None, 2), (None, 4), ()\n" in said
    lines = {line.split("  ")[0]: line.split("  ") for line in said.splitlines()}
    assert "cell (Linear) ×3" in lines
    assert "shared" in "".join(lines["tied (Linear)"])
    assert "not called" in "".join(lines["head (Linear)"])


def test_several_inputs_and_outputs(capsys: pytest.CaptureFixture[str]) -> None:
    class Both(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.words = nn.Embedding(10, 3)
            self.split = Split()

        def forward(self, index: tg.Tensor, x: tg.Tensor) -> Any:
            return self.split(self.words(index).sum(1) + x)

    class Split(nn.Module):
        def forward(self, x: tg.Tensor) -> Any:
            return tuple(x.expand(6, *x.shape).unbind(0))

    found = summarize(Both(), [(5,), (3,)], ["int64", None])
    assert found.inputs == (((None, 5), "int64"), ((None, 3), "float32"))
    assert row(found, "words").outputs == ((None, 5, 3),)
    assert row(found, "split").outputs == ((None, 3),) * 6
    Both().summary([(5,), (3,)], dtype=["int64", "float32"])
    assert "and 3 more" in capsys.readouterr().out


def test_the_batch_may_be_elsewhere_or_part_of_a_size() -> None:
    class Turned(nn.Module):
        def forward(self, x: tg.Tensor) -> Any:
            return x.transpose(0, 1), x.flatten(), x.squeeze(1), tg.zeros(2, 3)

    assert summarize(Turned(), (1, 5)).outputs == ((1, None, 5), (None,), (None, 5), (2, 3))


def test_frozen_parameters_and_those_of_the_module_itself(
    capsys: pytest.CaptureFixture[str],
) -> None:
    class Line(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(tg.ones(3, 2))

        def forward(self, x: tg.Tensor) -> tg.Tensor:
            return F.linear(x, self.weight)

    model = Line().requires_grad_(False)
    (only,) = summarize(model, (2,)).rows
    assert (only.path, only.layer, only.parameters, only.trainable) == ("", "Line", 6, 0)
    assert only.multiply_adds == 6
    model.summary((2,))
    assert "Trainable: 0, frozen: 6" in capsys.readouterr().out


def test_without_layers_or_parameters(capsys: pytest.CaptureFixture[str]) -> None:
    nn.Sequential().summary(())
    said = capsys.readouterr().out
    assert "Input: (None,) float32" in said
    assert "Params: 0 (0 bytes)" in said


def test_float64_on_every_backend(backend: Backend) -> None:
    model = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.Flatten()).double()
    model.to(backend=backend)
    found = summarize(model, (1, 5, 5))
    assert found.inputs == (((None, 1, 5, 5), "float64"),)
    assert row(found, "0").parameter_bytes == 8 * 20
    assert row(found, "2").output_bytes == 8 * 18


def test_a_size_alone_and_those_of_numpy_are_shapes() -> None:
    expected = summarize(models.mlp(), (784,))
    sizes = np.array([784])
    for shape in (784, sizes[0], (sizes[0],), [sizes[0]], [tuple(sizes)]):
        assert summarize(models.mlp(), shape) == expected


# ---- what it leaves


class Noted(nn.Module):
    """Writes to all that a forward may write to."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.BatchNorm1d(3)
        self.drop = nn.Dropout(0.5)
        self.calls = 0
        self.register_buffer("seen", tg.zeros(3))
        self.register_buffer("last", tg.zeros(1))
        self.fails = False

    def forward(self, x: tg.Tensor) -> tg.Tensor:
        self.calls += 1
        self.seen += x.sum(0)
        self.last = x.detach()
        x = self.drop(self.norm(x)) + tg.randn(3) + float(random.generator().random())
        if self.fails:
            raise ValueError("no")
        return x


@pytest.mark.parametrize("fails", [False, True])
def test_it_leaves_everything_as_it_was(fails: bool) -> None:
    model = Noted()
    model.drop.eval()
    hooked: list[str] = []
    model.norm.register_forward_hook(lambda *_: hooked.append("called"))
    model(tg.ones(2, 3)).sum().backward()
    model.fails = fails

    def state() -> Any:
        return (
            [m.training for m in model.modules()],
            [(dict(vars(m)), dict(m._places)) for m in model.modules()],
            [x.numpy().tolist() for x in model.buffers()],
            [(id(p.grad), p.version[0]) for p in model.parameters()],
            [dict(m._hooks.after) if m._hooks else None for m in model.modules()],
            [dict(m._hooks.before) if m._hooks else None for m in model.modules()],
            (observers(), tg.is_grad_enabled()),
        )

    before = state()
    tg.manual_seed(3)
    if fails:
        with pytest.raises(ValueError, match="no"):
            model.summary((3,))
    else:
        model.summary((3,))
    drawn = tg.rand(3).tolist(), tg.randperm(5).tolist(), random.generator().random()
    tg.manual_seed(3)
    assert drawn == (tg.rand(3).tolist(), tg.randperm(5).tolist(), random.generator().random())
    after = state()
    assert [str(x) for x in after] == [str(x) for x in before]
    assert vars(model.drop)["training"] is False
    assert len(hooked) == (2 if fails else 3)  # the user's hooks are a part of the model


class Keeping(nn.Module):
    """Writes to what it holds in place: parameters, tensors, lists, dicts and sets, nested ones."""

    def __init__(self) -> None:
        super().__init__()
        self.w = nn.Parameter(tg.ones(3))
        self.tied = self.w
        self.scale = tg.ones(3)
        self.seen: list[Any] = []
        self.stats: dict[str, Any] = {"n": 0, "shapes": [{"first"}], "sum": (tg.zeros(3),)}
        self.last = deque([1, 2], maxlen=2)
        self.counts = Counter("aab")
        self.stats["self"] = self.stats

    def forward(self, x: tg.Tensor) -> tg.Tensor:
        with tg.no_grad():
            self.w.mul_(0.5)
            self.scale.add_(1)
            self.stats["sum"][0].add_(x.sum(0))
        self.seen.append(x)
        self.stats["n"] += 1
        self.stats["shapes"][0].add(x.shape)
        self.last.append(3)
        self.counts.update("b")
        return x * self.w

    def state(self) -> str:
        attributes = (self.stats, self.seen, self.last, self.counts)
        return str((self.w.tolist(), self.scale.tolist(), attributes, list(map(id, attributes))))


def test_what_a_forward_writes_in_place_is_put_back() -> None:
    model = nn.Sequential(Keeping())
    before, held = model[0].state(), model[0].w
    model.summary((3,))
    assert model[0].state() == before
    assert model[0].w is held is model[0].tied
    model[0].train()(tg.ones(2, 3)).sum().backward()
    assert held.grad is not None


def test_running_statistics_that_a_backward_pass_needs_are_not_written() -> None:
    model = nn.Sequential(nn.BatchNorm1d(3))
    loss = model.eval()(tg.ones(2, 3, requires_grad=True)).sum()
    model.summary((3,))
    loss.backward()


def test_a_recorded_step_goes_on(capsys: pytest.CaptureFixture[str]) -> None:
    model = nn.Sequential(nn.Linear(3, 2), nn.ReLU())
    step = tg.jit(lambda x: model(x).sum())
    x = tg.ones(4, 3)
    for _ in range(3):
        expected = step(x).item()
    model.summary((3,))
    assert step(x).item() == expected
    assert np.isfinite(expected)


# ---- what does not fit


@pytest.mark.parametrize(
    "shape", [784.0, True, (None, 784), (2.0,), [(1, 2), 3], "784", None, (True,)]
)
def test_what_is_no_shape_is_refused(shape: Any) -> None:
    with pytest.raises(TypeError, match="expected a shape of integers without the batch"):
        models.mlp().summary(shape)


def test_sizes_and_dtypes_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ValueError, match="at least 1, got the shape"):
        models.mlp().summary((0, 28))
    with pytest.raises(ValueError, match="a dtype for each of 1 inputs, got 2"):
        models.mlp().summary((784,), dtype=["float32", "int64"])


def test_an_error_of_the_model_names_the_layer_and_the_batch() -> None:
    with pytest.raises(ValueError, match="Linear: expected") as raised:
        models.mlp().summary((27,))
    layer, note = raised.value.__notes__
    assert layer.startswith("in 1: Linear(")
    assert note.endswith("a batch of 2 before the shape: (2, 27) float32")


def test_layers_that_depend_on_the_batch_are_refused() -> None:
    class Each(nn.Sequential):
        def forward(self, x: tg.Tensor) -> tg.Tensor:
            return tg.stack([self[0](row) for row in x])

    with pytest.raises(RuntimeError, match="Each calls other layers for a batch of 3"):
        Each(nn.Linear(2, 2)).summary((2,))
