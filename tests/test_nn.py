"""Modules as trees, their state, and the layers' corners."""

import numpy as np
import pytest

import tinygrad_mnist as tg
import tinygrad_mnist.nn.functional as F
from tinygrad_mnist import nn, optim
from tinygrad_mnist.testing import assert_close

BACKENDS = ["numpy", "numba"]


class Block(nn.Module):
    """Two layers that share a parameter, a buffer, and a nested module."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(2, 2)
        self.second = nn.Linear(2, 2, bias=False)
        self.second.weight = self.first.weight
        self.register_buffer("count", tg.zeros(1))

    def forward(self, x: tg.Tensor) -> tg.Tensor:
        return self.second(self.first(x).relu())


def test_names_in_the_order_of_definition_and_shared_ones_once() -> None:
    model = nn.Sequential(Block(), nn.Linear(2, 1))
    names = [name for name, _ in model.named_parameters()]
    assert names == ["0.first.weight", "0.first.bias", "1.weight", "1.bias"]
    assert [name for name, _ in model.named_buffers()] == ["0.count"]
    assert "0.second.weight" in model.state_dict()
    assert [name for name, _ in model.named_modules()] == ["", "0", "0.first", "0.second", "1"]


def test_a_shared_parameter_gets_both_gradients() -> None:
    block = Block()
    x = tg.ones(1, 2)
    block(x).sum().backward()
    weight = block.first.weight.detach().clone().requires_grad_()
    hidden = F.linear(x, weight, block.first.bias.detach()).relu()
    F.linear(hidden, weight).sum().backward()
    assert_close(block.first.weight.grad, weight.grad)


def test_train_and_eval_reach_every_module() -> None:
    model = nn.Sequential(nn.Sequential(nn.Dropout(0.5)), nn.BatchNorm1d(3))
    model.eval()
    assert not any(module.training for module in model.modules())
    model.train()
    assert all(module.training for module in model.modules())


def test_state_goes_from_one_model_to_another() -> None:
    source, target = nn.Sequential(Block()), nn.Sequential(Block())
    before = target[0].first.weight.array
    target.load_state_dict(source.state_dict())
    assert target[0].first.weight.array is before  # written in place
    for key, value in source.state_dict().items():
        assert_close(target.state_dict()[key], value, rtol=0, atol=0)


def test_a_state_that_does_not_fit_names_every_key_and_copies_nothing() -> None:
    model = nn.Linear(2, 3)
    before = model.weight.tolist()
    wrong = {"weight": np.zeros((3, 3), np.float32), "extra": np.zeros(1, np.float32)}
    with pytest.raises(ValueError, match=r"missing 'bias'.*unexpected 'extra'.*'weight' has shape"):
        model.load_state_dict(wrong)
    assert model.weight.tolist() == before


def test_without_strict_keys_may_differ() -> None:
    model = nn.Linear(2, 3)
    model.load_state_dict({"bias": np.ones(3, np.float32), "other": 1}, strict=False)
    assert model.bias.tolist() == [1.0, 1.0, 1.0]


def test_repr_is_a_tree() -> None:
    expected = """\
Sequential(
  (0): Block(
    (first): Linear(in_features=2, out_features=2, bias=True)
    (second): Linear(in_features=2, out_features=2, bias=False)
  )
  (1): ReLU()
)"""
    assert repr(nn.Sequential(Block(), nn.ReLU())) == expected


@pytest.mark.parametrize("target", BACKENDS)
def test_a_module_moves_and_its_optimizer_still_knows_it(target: str) -> None:
    with tg.use_backend("numpy"):
        model = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4))
    optimizer = optim.SGD(model.parameters(), lr=0.1)
    model.to(target)
    with tg.use_backend(target):
        before = model[0].weight.tolist()
        model(tg.rand(5, 3)).square().sum().backward()
        optimizer.step()
        assert model[0].weight.tolist() != before
    assert {p.backend.name for p in model.parameters()} == {target}
    model.to("float64")
    assert model[0].weight.dtype == np.float64
    assert model[1].num_batches_tracked.dtype == np.int64


def test_zero_grad() -> None:
    model = nn.Linear(2, 1)
    model(tg.ones(1, 2)).sum().backward()
    model.zero_grad(set_to_none=False)
    assert model.weight.grad is not None
    assert model.weight.grad.tolist() == [[0.0, 0.0]]
    model.zero_grad()
    assert model.weight.grad is None


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_window_of_minus_infinity_gives_its_gradient_to_its_first_cell(backend: str) -> None:
    x = tg.full((1, 1, 3, 3), -np.inf, backend=backend).requires_grad_()
    F.max_pool2d(x, 3, 2, 1).sum().backward()
    assert x.grad is not None
    assert x.grad.tolist() == [[[[1.0, 1.0, 0.0], [1.0, 1.0, 0.0], [0.0, 0.0, 0.0]]]]


@pytest.mark.parametrize("backend", BACKENDS)
def test_nan_goes_through_max_pooling(backend: str) -> None:
    x = tg.zeros(1, 1, 2, 2, backend=backend)
    x[0, 0, 0, 1] = float("nan")
    assert np.isnan(F.max_pool2d(x, 2).item())


@pytest.mark.parametrize("backend", BACKENDS)
def test_batch_norm_of_one_value_per_channel_is_refused_in_training(backend: str) -> None:
    with tg.use_backend(backend):
        layer = nn.BatchNorm1d(3)
        with pytest.raises(ValueError, match=r"more than one value per channel.*eval\(\)"):
            layer(tg.ones(1, 3))
        assert layer.eval()(tg.ones(1, 3)).shape == (1, 3)


@pytest.mark.parametrize("backend", BACKENDS)
def test_dropout_keeps_the_mean_and_the_seed(backend: str) -> None:
    with tg.use_backend(backend):
        x = tg.ones(200, 200)
        tg.manual_seed(3)
        y = F.dropout(x, 0.2)
        tg.manual_seed(3)
        assert_close(F.dropout(x, 0.2), y, rtol=0, atol=0)
        assert set(np.unique(y.numpy())) == {np.float32(0), np.float32(1.25)}
        assert abs(y.mean().item() - 1) < 0.01
        assert F.dropout(x, 0.2, training=False) is x
        assert F.dropout(x, 1.0).sum().item() == 0


def test_random_numbers_are_the_same_bits_on_every_backend() -> None:
    drawn = []
    for backend in BACKENDS:
        tg.manual_seed(11)
        with tg.use_backend(backend):
            drawn.append((tg.rand(7, 3).numpy(), F.dropout(tg.ones(50), 0.3).numpy()))
    for x, y in zip(*drawn, strict=True):
        np.testing.assert_array_equal(x, y)


def test_weights_are_the_same_on_every_backend() -> None:
    drawn = []
    for backend in BACKENDS:
        tg.manual_seed(5)
        with tg.use_backend(backend):
            drawn.append(nn.Conv2d(3, 4, 5).weight.detach().numpy())
    np.testing.assert_array_equal(*drawn)
    bound = 1 / np.sqrt(3 * 25)
    assert 0.9 * bound < np.abs(drawn[0]).max() <= bound


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: nn.Dropout(1.5), "p must lie in 0 to 1, got 1.5"),
        (lambda: nn.Conv2d(3, 4, 5, groups=2), "multiples of groups 2"),
        (lambda: nn.Conv2d(1, 1, 0), "kernel_size must be an integer of at least 1"),
        (lambda: nn.BatchNorm2d(3)(tg.ones(2, 4, 5, 5)), "expected 4 dims with 3 channels"),
        (lambda: nn.Linear(3, 4)(tg.ones(2, 5)), r"linear: .*\(2, 5\) and \(4, 3\)"),
        (lambda: nn.Conv2d(1, 2, 5)(tg.ones(1, 1, 3, 3)), "larger than the padded image"),
        (lambda: optim.Adam([]), "got no parameters"),
        (lambda: optim.SGD([tg.ones(1)] * 2, lr=0.1), "given twice"),
        (lambda: optim.Adam(nn.Linear(1, 1).parameters(), lr=float("nan")), "lr must be a finite"),
        (lambda: optim.Adam(nn.Linear(1, 1).parameters(), betas=(0.9, 1.0)), "betas must be"),
        (lambda: optim.SGD(nn.Linear(1, 1).parameters(), nesterov=True), "nesterov needs"),
        (
            lambda: optim.lr_scheduler.OneCycleLR(optim.SGD([tg.ones(1)]), max_lr=float("nan")),
            "give total_steps",
        ),
        (
            lambda: optim.lr_scheduler.OneCycleLR(optim.SGD([tg.ones(1)]), float("nan"), 10),
            "max_lr must be a finite number",
        ),
    ],
)
def test_wrong_settings_say_what_was_expected(make, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()


def test_one_cycle_runs_to_its_end_and_no_further() -> None:
    optimizer = optim.SGD([tg.ones(1)], lr=0.1)
    for start in (0.0, 0.25, 1.0):
        schedule = optim.lr_scheduler.OneCycleLR(optimizer, 0.1, 8, pct_start=start)
        for _ in range(8):
            schedule.step()
        with pytest.raises(ValueError, match="step 9 of a schedule of 8 steps"):
            schedule.step()
