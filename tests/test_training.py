"""The training loop, model files, the loader, and step-by-step parity with PyTorch."""

from __future__ import annotations

import math
import os
import stat
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

import tinygrad_mnist as tg
from tinygrad_mnist import models, nn, optim, training
from tinygrad_mnist.backend import use_backend
from tinygrad_mnist.nn.functional import cross_entropy
from tinygrad_mnist.training import Epoch, History, ModelFileError, ModelInfo
from tinygrad_mnist.utils.data import DataError, DataLoader, ImageDataset
from tinygrad_mnist.utils.files import write_whole

BACKENDS = ("numpy", "numba")


def make_dataset(count: int, seed: int = 0, backend: str | None = None) -> ImageDataset:
    """Random pictures, in which a bright row tells the class."""
    random = np.random.default_rng(seed)
    images = random.integers(0, 100, (count, 28, 28)).astype(np.uint8)
    labels = random.integers(0, 10, count)
    images[np.arange(count), 4 + 2 * labels] += 150
    return ImageDataset(images, labels, 0.1307, 0.3081, backend)


class Trained:
    """A short training and what it gave."""

    def __init__(
        self,
        architecture: str = "mlp",
        backend: str = "numpy",
        seed: int = 0,
        epochs: int = 2,
        lr: float = 0.001,
        on_epoch: Callable[[Epoch, History], None] | None = None,
        jit: bool = True,
    ) -> None:
        with use_backend(backend):
            tg.manual_seed(seed)
            recipe = models.RECIPES[architecture]
            self.model = models.ARCHITECTURES[architecture](**recipe.arguments)
            self.train = DataLoader(make_dataset(170), 32, shuffle=True)
            self.test = DataLoader(make_dataset(50, 1), 20)
            optimizer = models.make_optimizer("adam", self.model, lr)
            self.history = training.fit(
                self.model, optimizer, self.train, self.test, epochs, on_epoch=on_epoch, jit=jit
            )


@pytest.fixture(scope="module")
def trained() -> Trained:
    return Trained()


# ---- fit and evaluate


def test_history_has_each_step_and_each_epoch(trained: Trained) -> None:
    history = trained.history
    assert history.steps_per_epoch == 6
    assert len(history.losses) == 12
    assert [epoch.epoch for epoch in history.epochs] == [1, 2]
    assert all(map(math.isfinite, history.losses))
    assert np.mean(history.losses[-6:]) < np.mean(history.losses[:6])
    assert all(epoch.seconds > 0 for epoch in history.epochs)
    assert trained.model.training


def test_an_epochs_loss_weighs_the_short_batch_by_its_images(trained: Trained) -> None:
    sizes = [32] * 5 + [10]
    for i, epoch in enumerate(trained.history.epochs):
        losses = trained.history.losses[6 * i : 6 * i + 6]
        assert epoch.train_loss == pytest.approx(np.average(losses, weights=sizes), rel=1e-12)
        assert epoch.train_loss != pytest.approx(np.mean(losses), rel=1e-6)
        # so many images of 170 were right: a count, not a mean of the batches' means
        assert epoch.train_accuracy * 170 == pytest.approx(round(epoch.train_accuracy * 170))


def test_evaluate_is_the_mean_over_all_images_whatever_the_batches(trained: Trained) -> None:
    last = trained.history.epochs[-1]
    dataset = trained.test.dataset
    logits, labels = _logits(trained.model, dataset)
    accuracy = np.mean(logits.argmax(1) == labels)
    shifted = logits - logits.max(1, keepdims=True)
    losses = np.log(np.exp(shifted).sum(1)) - shifted[np.arange(50), labels]
    for size in (1, 7, 20, 50, 100):
        loss, found = training.evaluate(trained.model, DataLoader(dataset, size))
        assert found == accuracy == last.test_accuracy
        assert loss == pytest.approx(losses.mean(), rel=1e-5)
        assert loss == pytest.approx(last.test_loss, rel=1e-5)


def _logits(model: nn.Module, dataset: ImageDataset) -> tuple[np.ndarray, np.ndarray]:
    """In evaluation mode, all at once, in float64."""
    model.eval()
    x, y = next(iter(DataLoader(dataset, len(dataset))))
    with tg.no_grad():
        found = model(x).numpy().astype(np.float64)
    model.train()
    return found, y.numpy()


@pytest.mark.parametrize("mode", [True, False])
def test_evaluate_tests_without_dropout_and_leaves_the_mode(mode: bool) -> None:
    model = models.mlp().train(mode)
    loader = DataLoader(make_dataset(40), 20)
    assert training.evaluate(model, loader) == training.evaluate(model, loader)
    assert all(module.training == mode for module in model.modules())


def test_evaluate_leaves_the_mode_where_it_fails() -> None:
    model = nn.Sequential(nn.Flatten(), nn.Linear(5, 10)).train()
    with pytest.raises(ValueError, match="5"):
        training.evaluate(model, DataLoader(make_dataset(3)))
    assert model.training


def test_evaluate_changes_no_state_of_batch_norm() -> None:
    model = models.cnn()
    before = {name: value.numpy().copy() for name, value in model.state_dict().items()}
    training.evaluate(model, DataLoader(make_dataset(40), 20))
    after = model.state_dict()
    assert all((after[name].numpy() == value).all() for name, value in before.items())


@pytest.mark.parametrize("architecture", ["mlp", "cnn"])
@pytest.mark.parametrize("backend", BACKENDS)
def test_the_same_seed_gives_the_same_bits(architecture: str, backend: str) -> None:
    first, second = (Trained(architecture, backend, seed=3) for _ in range(2))
    assert first.history.losses == second.history.losses
    states = first.model.state_dict(), second.model.state_dict()
    for name in states[0]:
        assert states[0][name].numpy().tobytes() == states[1][name].numpy().tobytes()
    assert Trained(architecture, backend, seed=4).history.losses != first.history.losses


@pytest.mark.parametrize("architecture", ["mlp", "cnn"])
def test_a_jitted_fit_gives_the_bits_of_a_plain_one(architecture: str) -> None:
    jitted, plain = (Trained(architecture, epochs=3, jit=jit) for jit in (True, False))
    assert jitted.history.losses == plain.history.losses
    for epoch, expected in zip(jitted.history.epochs, plain.history.epochs, strict=True):
        assert replace(epoch, seconds=0) == replace(expected, seconds=0)
    found, state = jitted.model.state_dict(), plain.model.state_dict()
    for name in state:
        assert found[name].numpy().tobytes() == state[name].numpy().tobytes()


class Counting(nn.Module):
    """A classifier that notes the rows, the mode and the grad mode of each call of its code."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(784, 10)
        self.calls: list[tuple[int, bool]] = []

    def forward(self, x: tg.Tensor) -> tg.Tensor:
        self.calls.append((len(x), self.training))
        assert tg.is_grad_enabled() == self.training
        return self.linear(x.flatten(1))


@pytest.mark.parametrize("jit", [True, False])
def test_the_steps_of_a_fit_are_recorded_once_for_all_epochs(jit: bool) -> None:
    """A program is made in the second call for its batch size, and no Python code runs after it."""
    model = Counting()
    optimizer = models.make_optimizer("sgd", model, 0.1)
    scheduler = optim.lr_scheduler.OneCycleLR(optimizer, 0.1, 20)
    train, test = DataLoader(make_dataset(170), 50), DataLoader(make_dataset(70, 1), 20)
    training.fit(model, optimizer, train, test, 5, scheduler, jit=jit)
    plain = {(50, True): 15, (20, True): 5, (20, False): 15, (10, False): 5}
    assert Counter(model.calls) == (dict.fromkeys(plain, 2) if jit else plain)
    assert scheduler.last_epoch == 20
    model.calls.clear()
    training.evaluate(model, test, jit=jit)
    assert Counter(model.calls) == {(20, False): 2 if jit else 3, (10, False): 2 if jit else 1}


class Reading(nn.Module):
    """A classifier that looks at a value, which no program can."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(784, 10)

    def forward(self, x: tg.Tensor) -> tg.Tensor:
        return self.linear(x.flatten(1) / max(1.0, x.abs().max().item()))


def test_a_model_that_reads_values_is_refused_with_its_line_and_trains_without_jit() -> None:
    model, batches = Reading(), DataLoader(make_dataset(40), 20)
    optimizer = models.make_optimizer("sgd", model, 0.1)
    with pytest.raises(RuntimeError, match=r"reads values on the host .* at .*test_training\.py:"):
        training.fit(model, optimizer, batches, batches, 1)
    history = training.fit(model, optimizer, batches, batches, 1, jit=False)
    assert len(history.losses) == 2


@pytest.mark.parametrize("jit", [True, False])
@pytest.mark.parametrize("batch", [0, 1, 2])
@pytest.mark.parametrize("backend", BACKENDS)
def test_a_label_out_of_range_is_an_error_in_any_step(backend: str, batch: int, jit: bool) -> None:
    with use_backend(backend):
        dataset = make_dataset(60)
        dataset.labels[20 * batch] = 10
        model = models.mlp()
        optimizer = models.make_optimizer("sgd", model, 0.1)
        batches = DataLoader(dataset, 20)
        with pytest.raises(IndexError, match="10"):
            training.fit(model, optimizer, batches, batches, 1, jit=jit)
        with pytest.raises(IndexError, match="10"):
            training.evaluate(model, batches, jit=jit)


@pytest.mark.parametrize("architecture", ["mlp", "cnn"])
def test_backends_agree_for_the_first_twenty_steps(architecture: str) -> None:
    numpy, numba = (Trained(architecture, backend, epochs=4) for backend in BACKENDS)
    np.testing.assert_allclose(numba.history.losses[:20], numpy.history.losses[:20], rtol=1e-4)


def test_on_epoch_sees_the_history_up_to_then() -> None:
    seen: list[tuple[int, int, int]] = []

    def on_epoch(epoch: Epoch, history: History) -> None:
        assert history.epochs[-1] is epoch
        seen.append((epoch.epoch, len(history.epochs), len(history.losses)))

    Trained(epochs=3, on_epoch=on_epoch)
    assert seen == [(1, 1, 6), (2, 2, 12), (3, 3, 18)]


def test_the_history_is_plain_data_with_the_facts_first(trained: Trained) -> None:
    found = trained.history.as_dict(model="mlp", seed=0)
    assert list(found) == ["model", "seed", "steps_per_epoch", "epochs", "steps"]
    assert found["steps"]["step"] == list(range(1, 13))
    assert found["steps"]["loss"] == trained.history.losses
    assert set(found["epochs"][0]) == {
        "epoch", "train_loss", "train_accuracy", "test_loss", "test_accuracy", "seconds",
    }  # fmt: skip


def test_the_scheduler_goes_on_once_a_batch() -> None:
    model = models.mlp()
    optimizer = models.make_optimizer("sgd", model, 0.1)
    scheduler = optim.lr_scheduler.OneCycleLR(optimizer, 0.1, 12)
    train, test = DataLoader(make_dataset(170), 32), DataLoader(make_dataset(10, 1), 10)
    training.fit(model, optimizer, train, test, 2, scheduler)
    assert scheduler.last_epoch == 12


@pytest.mark.parametrize("jit", [True, False])
@pytest.mark.parametrize("architecture", ["mlp", "cnn"])
@pytest.mark.parametrize("backend", BACKENDS)
def test_a_loss_that_is_not_finite_ends_the_training(
    backend: str, architecture: str, jit: bool
) -> None:
    called: list[Epoch] = []
    with np.errstate(all="ignore"), pytest.raises(FloatingPointError, match="smaller learning"):
        Trained(
            architecture, backend, lr=1e30, on_epoch=lambda epoch, _: called.append(epoch), jit=jit
        )
    assert called == []


def test_weights_that_only_the_last_step_spoils_are_noticed() -> None:
    with use_backend("numpy"):
        model = models.mlp()
        optimizer = models.make_optimizer("sgd", model, 1e38)
        one_batch = DataLoader(make_dataset(32), 32)
        with np.errstate(all="ignore"), pytest.raises(FloatingPointError, match="test loss"):
            training.fit(model, optimizer, one_batch, one_batch, 1)


def test_a_loader_without_batches_is_an_error() -> None:
    model = models.mlp()
    train = DataLoader(make_dataset(5), 8, drop_last=True)
    with pytest.raises(ValueError, match="drop_last"):
        training.fit(model, models.make_optimizer("adam", model, 0.1), train, train, 1)


def test_an_unknown_optimizer_is_an_error() -> None:
    with pytest.raises(ValueError, match="'adam' or 'sgd'"):
        models.make_optimizer("adamw", models.mlp(), 0.1)


# ---- model files

INFO = ModelInfo("cnn", {"channels": 1, "classes": 10}, "fashion", 0.25, 1 / 3)


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_model_comes_back_bit_for_bit(tmp_path: Path, backend: str) -> None:
    path = tmp_path / "model.safetensors"
    with use_backend(backend):
        model = Trained("cnn", backend).model
        training.save_model(path, model, INFO)
        loaded, info = training.load_model(path)
    assert info == INFO
    saved, found = model.state_dict(), loaded.state_dict()
    assert list(saved) == list(found)
    for name in saved:
        assert saved[name].dtype == found[name].dtype
        assert saved[name].numpy().tobytes() == found[name].numpy().tobytes()
    assert found["2.num_batches_tracked"].item() == 12
    assert not any(module.training for module in loaded.modules())
    dataset = make_dataset(20, 5, backend)
    assert (_logits(model, dataset)[0] == _logits(loaded, dataset)[0]).all()


def test_a_model_of_other_sizes_comes_back(tmp_path: Path) -> None:
    info = ModelInfo("mlp", {"features": 784, "hidden": 3, "classes": 2}, "mnist", 0.1, 0.3)
    training.save_model(tmp_path / "m", models.mlp(hidden=3, classes=2), info)
    assert training.load_model(tmp_path / "m")[0].state_dict()["1.weight"].shape == (3, 784)


def test_what_is_no_model_is_named(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    path.write_bytes(b"{}")
    with pytest.raises(ModelFileError, match=r"model\.safetensors is no safetensors file"):
        training.load_model(path)
    with pytest.raises(FileNotFoundError):
        training.load_model(tmp_path / "none")
    training.save_model(path, models.cnn(), ModelInfo("mlp", {"hidden": 8}, "mnist", 0.1, 0.3))
    with pytest.raises(ModelFileError, match=r"does not fit.*unexpected .*'0\.weight'"):
        training.load_model(path)


@pytest.mark.parametrize(
    "arguments",
    [
        {"hidden": -1},
        {"hidden": 0},
        {"hidden": "8"},
        {"hidden": 10**17},
        {"hidden": 10**400},
        {"features": 0},
        {"depth": 2},
    ],
)
def test_absurd_arguments_in_a_file_are_no_traceback(tmp_path: Path, arguments: Any) -> None:
    path = tmp_path / "model.safetensors"
    training.save_model(path, models.mlp(), ModelInfo("mlp", arguments, "mnist", 0.1, 0.3))
    with pytest.raises(ModelFileError, match=r"model\.safetensors") as caught:
        training.load_model(path)
    assert str(arguments) in str(caught.value)


@pytest.mark.parametrize(("mean", "std"), [(0.1, 0.0), (0.1, -1.0), (math.nan, 1), (0, math.inf)])
def test_statistics_that_cannot_be_are_refused(tmp_path: Path, mean: float, std: float) -> None:
    training.save_model(tmp_path / "m", models.mlp(), ModelInfo("mlp", {}, "mnist", mean, std))
    with pytest.raises(ModelFileError, match="std"):
        training.load_model(tmp_path / "m")


def test_write_whole_replaces_a_file_and_heeds_the_umask(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"old")
    mask = os.umask(0o027)
    try:
        write_whole(path, b"new")
    finally:
        os.umask(mask)
    assert path.read_bytes() == b"new"
    assert stat.S_IMODE(path.stat().st_mode) == 0o640
    assert os.listdir(tmp_path) == ["file"]


def test_write_whole_leaves_nothing_where_it_fails(tmp_path: Path) -> None:
    target = tmp_path / "target"
    target.mkdir()
    with pytest.raises(OSError, match="target"):
        write_whole(target, b"data")  # a folder is in the way
    with pytest.raises(TypeError):
        write_whole(tmp_path / "other", "text")  # type: ignore[arg-type]
    with pytest.raises(FileNotFoundError):
        write_whole(tmp_path / "none" / "file", b"data")
    assert os.listdir(tmp_path) == ["target"]
    assert os.listdir(target) == []


def test_write_whole_keeps_the_old_file_where_it_fails(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"old")
    with pytest.raises(TypeError):
        write_whole(path, "text")  # type: ignore[arg-type]
    assert path.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["file"]


# ---- the loader


def numbered(count: int) -> ImageDataset:
    """Images that carry their number in their first pixel and as their label."""
    images = np.zeros((count, 2, 2), np.uint8)
    images[:, 0, 0] = np.arange(count)
    return ImageDataset(images, np.arange(count))


def numbers(loader: DataLoader) -> list[int]:
    """The images' numbers in the order given; the labels must be theirs."""
    found = []
    for x, y in loader:
        assert np.rint(x[:, 0, 0, 0].numpy() * 255).tolist() == y.tolist()
        found += y.tolist()
    return found


def test_every_image_comes_once_in_order_or_shuffled() -> None:
    dataset = numbered(50)
    assert numbers(DataLoader(dataset, 7)) == list(range(50))
    shuffled = numbers(DataLoader(dataset, 7, shuffle=True, seed=0))
    assert shuffled != list(range(50))
    assert sorted(shuffled) == list(range(50))


def test_the_seed_decides_the_order_and_each_pass_has_its_own() -> None:
    dataset = numbered(50)
    a, b, c = (DataLoader(dataset, 8, shuffle=True, seed=seed) for seed in (1, 1, 2))
    passes = [numbers(a), numbers(a)]
    assert [numbers(b), numbers(b)] == passes
    assert passes[0] != passes[1]
    assert numbers(c) != passes[0]


def test_manual_seed_decides_the_order_where_the_loader_has_no_seed() -> None:
    loader = DataLoader(numbered(50), 8, shuffle=True)
    tg.manual_seed(9)
    first = numbers(loader)
    tg.manual_seed(9)
    assert numbers(loader) == first
    assert numbers(loader) != first


@pytest.mark.parametrize(
    ("count", "size", "drop_last", "lengths"),
    [
        (10, 4, False, [4, 4, 2]),
        (10, 4, True, [4, 4]),
        (8, 4, False, [4, 4]),
        (8, 4, True, [4, 4]),
        (3, 10, False, [3]),
        (3, 10, True, []),
        (1, 1, False, [1]),
    ],
)
def test_batches_and_the_last_one(
    count: int, size: int, drop_last: bool, lengths: list[int]
) -> None:
    loader = DataLoader(numbered(count), size, drop_last=drop_last)
    assert [len(y) for _, y in loader] == lengths
    assert len(loader) == len(lengths)


@pytest.mark.parametrize("size", [0, -1, 2.5, "3"])
def test_a_batch_size_that_is_none_is_an_error(size: Any) -> None:
    with pytest.raises(ValueError, match="batch_size"):
        DataLoader(numbered(3), size)


@pytest.mark.parametrize(
    ("images", "labels", "message"),
    [
        (np.zeros((0, 28, 28), np.uint8), np.zeros(0), "empty"),
        (np.zeros((3, 28, 28), np.uint8), np.zeros(2), r"labels \(3,\)"),
        (np.zeros((3, 28, 28), np.float32), np.zeros(3), "uint8"),
        (np.zeros((3, 28 * 28), np.uint8), np.zeros(3), r"\(N, H, W\)"),
    ],
)
def test_a_dataset_that_cannot_be_is_an_error(
    images: np.ndarray, labels: np.ndarray, message: str
) -> None:
    with pytest.raises(DataError, match=message):
        ImageDataset(images, labels)


@pytest.mark.parametrize("backend", BACKENDS)
def test_pixels_are_normalised_and_kept_as_bytes(backend: str) -> None:
    images = np.arange(256, dtype=np.uint8).reshape(1, 16, 16).repeat(3, 0)
    dataset = ImageDataset(images, np.arange(3), 0.1307, 0.3081, backend)
    x, y = next(iter(DataLoader(dataset, 3)))
    assert (x.dtype, x.shape, x.backend.name) == (np.float32, (3, 1, 16, 16), backend)
    assert (y.dtype, y.tolist()) == (np.int64, [0, 1, 2])
    exact = (np.arange(256) / 255 - 0.1307) / 0.3081
    found = x.numpy().reshape(3, -1)
    np.testing.assert_allclose(found, np.tile(exact, (3, 1)), rtol=2e-7, atol=1e-7)
    assert dataset.images.dtype == np.uint8
    assert dataset.images.numpy().nbytes == images.nbytes


def test_the_dataset_does_not_copy_the_images() -> None:
    images = np.zeros((4, 28, 28), np.uint8)
    with use_backend("numpy"):
        assert np.shares_memory(ImageDataset(images, np.zeros(4, np.uint8)).images.numpy(), images)


# ---- parity with PyTorch, in float64


@pytest.fixture
def torch() -> Any:
    found = pytest.importorskip("torch", reason="PyTorch, the second reference, is not installed")
    found.manual_seed(0)
    return found


@pytest.fixture(params=BACKENDS)
def on_backend(request: pytest.FixtureRequest) -> Iterable[str]:
    with use_backend(request.param):
        yield request.param


def close(ours: tg.Tensor, theirs: Any) -> None:
    """Equal to 1e-10, dtype and shape included."""
    found, expected = ours.detach().numpy(), theirs.detach().numpy()
    assert (found.shape, found.dtype) == (expected.shape, expected.dtype)
    np.testing.assert_allclose(found, expected, rtol=1e-10, atol=1e-10)


def both(array: np.ndarray, torch: Any, requires_grad: bool = False) -> tuple[tg.Tensor, Any]:
    ours = tg.tensor(array, requires_grad=requires_grad)
    return ours, torch.tensor(array, requires_grad=requires_grad)


def compare_gradients(ours: nn.Module, theirs: Any) -> None:
    found, expected = dict(ours.named_parameters()), dict(theirs.named_parameters())
    assert list(found) == list(expected)
    for name in found:
        close(found[name].grad, expected[name].grad)


def compare_states(ours: nn.Module, theirs: Any) -> None:
    found, expected = ours.state_dict(), theirs.state_dict()
    assert list(found) == list(expected)
    for name in found:
        close(found[name], expected[name])


def test_batch_norm_follows_the_batches_as_pytorchs_does(torch: Any, on_backend: str) -> None:
    ours = nn.BatchNorm2d(3).to(dtype="float64")
    theirs = torch.nn.BatchNorm2d(3).double()
    for seed in range(20):
        x, x_theirs = both(np.random.default_rng(seed).normal(seed, 2, (4, 3, 5, 5)), torch)
        close(ours(x), theirs(x_theirs))
    compare_states(ours, theirs)
    close(ours.eval()(x), theirs.eval()(x_theirs))


@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
def test_cross_entropy_is_pytorchs(torch: Any, on_backend: str, reduction: str) -> None:
    random = np.random.default_rng(0)
    x, x_theirs = both(random.normal(0, 20, (6, 10)), torch, requires_grad=True)
    y, y_theirs = both(random.integers(0, 10, 6), torch)
    loss = cross_entropy(x, y, reduction=reduction)
    expected = torch.nn.functional.cross_entropy(x_theirs, y_theirs, reduction=reduction)
    close(loss, expected)
    loss.sum().backward()
    expected.sum().backward()
    close(x.grad, x_theirs.grad)


def torch_model(architecture: str, torch: Any) -> Any:
    """The same layers in PyTorch; dropout, whose stream is each library's own, is off."""
    layers = torch.nn
    if architecture == "mlp":
        return layers.Sequential(
            layers.Flatten(), layers.Linear(784, 128), layers.ReLU(), layers.Dropout(0.0),
            layers.Linear(128, 10),
        )  # fmt: skip
    return layers.Sequential(
        layers.Conv2d(1, 10, 5), layers.MaxPool2d(2), layers.BatchNorm2d(10), layers.ReLU(),
        layers.Conv2d(10, 20, 5), layers.MaxPool2d(2), layers.BatchNorm2d(20), layers.ReLU(),
        layers.Flatten(), layers.Linear(320, 50), layers.ReLU(), layers.Linear(50, 10),
    )  # fmt: skip


def our_model(architecture: str) -> nn.Module:
    model = models.ARCHITECTURES[architecture]().to(dtype="float64")
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
    return model


@pytest.mark.parametrize("architecture", ["mlp", "cnn"])
@pytest.mark.parametrize("direction", ["to PyTorch", "from PyTorch"])
def test_a_whole_model_trains_as_in_pytorch_from_one_file(
    torch: Any, on_backend: str, tmp_path: Path, architecture: str, direction: str
) -> None:
    torch_files = pytest.importorskip("safetensors.torch")
    ours, theirs = our_model(architecture), torch_model(architecture, torch).double()
    path = tmp_path / "state.safetensors"
    if direction == "to PyTorch":
        save_file({k: v.contiguous().numpy() for k, v in ours.state_dict().items()}, path)
        theirs.load_state_dict(torch_files.load_file(path))
    else:
        torch_files.save_file(theirs.state_dict(), path)
        ours.load_state_dict(load_file(path))
    compare_states(ours, theirs)
    train_side_by_side(ours, theirs, torch)
    compare_states(ours, theirs)


def train_side_by_side(ours: nn.Module, theirs: Any, torch: Any) -> None:
    """Three steps on the same batches, compared at each.

    Of SGD: a bias before batch norm has no gradient but rounding, which Adam would scale up.
    """
    optimizer = optim.SGD(ours.parameters(), lr=0.1, momentum=0.9)
    optimizer_theirs = torch.optim.SGD(theirs.parameters(), lr=0.1, momentum=0.9)
    for seed in range(3):
        random = np.random.default_rng(seed)
        x, x_theirs = both(random.standard_normal((8, 1, 28, 28)), torch, requires_grad=True)
        y, y_theirs = both(random.integers(0, 10, 8), torch)
        logits, logits_theirs = ours(x), theirs(x_theirs)
        close(logits, logits_theirs)
        loss = cross_entropy(logits, y)
        loss_theirs = torch.nn.functional.cross_entropy(logits_theirs, y_theirs)
        close(loss, loss_theirs)
        optimizer.zero_grad()
        optimizer_theirs.zero_grad()
        loss.backward()
        loss_theirs.backward()
        close(x.grad, x_theirs.grad)
        compare_gradients(ours, theirs)
        optimizer.step()
        optimizer_theirs.step()
