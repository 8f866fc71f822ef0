"""Modules as trees, their state, and the layers' corners."""

from __future__ import annotations

import copy
import pickle

import numpy as np
import pytest
import safetensors.numpy

import tinygrad_mnist as tg
import tinygrad_mnist.nn.functional as F
from tinygrad_mnist import nn, optim
from tinygrad_mnist.ops import networks
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


def test_a_state_may_lack_the_count_of_batches_as_in_pytorch() -> None:
    model = nn.Sequential(nn.BatchNorm1d(2))
    state = model.state_dict()
    del state["0.num_batches_tracked"]
    assert repr(model.load_state_dict(state)) == "<All keys matched successfully>"


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
        (
            lambda: nn.BatchNorm2d(3)(tg.ones(2, 4, 5, 5)),
            r"expected input \(N, 3, H, W\), got \(2, 4, 5, 5\)",
        ),
        (lambda: nn.Linear(3, 4)(tg.ones(2, 5)), r"Linear: expected input \(…, 3\), got \(2, 5\)"),
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
            optimizer.step()
            schedule.step()
        with pytest.raises(ValueError, match="step 9 of a schedule of 8 steps"):
            schedule.step()


# ---- attributes and names


@pytest.mark.parametrize("value", [tg.zeros(2, 2), np.zeros((2, 2)), 1.0, nn.ReLU()])
def test_only_a_parameter_or_none_takes_a_parameters_place(value: object) -> None:
    layer = nn.Linear(2, 2)
    with pytest.raises(
        TypeError, match=r"cannot assign \w+ as parameter 'weight'.*a Parameter or None"
    ):
        layer.weight = value  # type: ignore[assignment]
    assert [name for name, _ in layer.named_parameters()] == ["weight", "bias"]
    layer.weight = nn.Parameter(tg.ones(2, 2))
    layer.bias = None
    assert layer(tg.ones(1, 2)).tolist() == [[2.0, 2.0]]
    assert [name for name, _ in layer.named_parameters()] == ["weight"]


def test_a_parameters_place_stays_one_without_a_parameter() -> None:
    layer = nn.Linear(2, 2)
    layer.bias = None
    layer.register_parameter("scale", None)
    for name in ("bias", "scale"):
        with pytest.raises(TypeError, match=f"cannot assign Tensor as parameter '{name}'"):
            setattr(layer, name, tg.ones(2))
    assert list(layer.state_dict()) == ["weight"]
    layer.scale = layer.bias = nn.Parameter(tg.ones(2))
    assert list(layer.state_dict()) == ["weight", "bias", "scale"]  # in the order of registration


def test_a_buffers_place_takes_tensors_and_modules_places_take_modules() -> None:
    block = Block()
    block.count = tg.ones(3)
    block.note = tg.ones(3)
    block.note = "free"  # a plain attribute takes anything
    assert [(name, x.tolist()) for name, x in block.named_buffers()] == [("count", [1.0] * 3)]
    with pytest.raises(TypeError, match="Block: cannot assign int as buffer 'count'"):
        block.count = 1
    with pytest.raises(TypeError, match="Block: cannot assign str as module 'first'"):
        block.first = "layer"
    block.first = nn.Parameter(tg.ones(1))
    block.count = nn.ReLU()
    assert [name for name, _ in block.named_parameters()] == ["first", "second.weight"]
    assert [name for name, _ in block.named_children()] == ["second", "count"]
    assert not list(block.buffers())


def test_what_is_deleted_is_gone() -> None:
    block = Block()
    del block.first, block.count
    assert list(block.state_dict()) == ["second.weight"]
    block.count = 3  # no buffer's place any more
    with pytest.raises(AttributeError, match="'Block' object has no attribute 'first'"):
        block.first  # noqa: B018
    assert "first" not in dir(block)
    assert "second" in dir(block)


def test_what_comes_into_a_plain_attribute_is_registered_then() -> None:
    module = nn.Module()
    module.late = None
    module.early = nn.Parameter(tg.ones(1))
    module.late = nn.Parameter(tg.ones(1))
    assert [name for name, _ in module.named_parameters()] == ["early", "late"]


@pytest.mark.parametrize(
    ("register", "error", "message"),
    [
        (lambda m: m.register_buffer("a.b", tg.ones(1)), ValueError, "without dots .* 'a.b'"),
        (lambda m: m.register_parameter("", None), ValueError, "without dots .* ''"),
        (lambda m: m.add_module("forward", nn.ReLU()), ValueError, "'forward' already"),
        (lambda m: m.register_buffer("first", tg.ones(1)), ValueError, "'first' already"),
        (lambda m: m.register_parameter("count", None), ValueError, "'count' already"),
        (lambda m: m.add_module(0, nn.ReLU()), TypeError, "string as name of a module, got 0"),
        (lambda m: m.add_module("new", Block), TypeError, "cannot assign type as module 'new'"),
        (lambda m: m.register_buffer("new", 1.0), TypeError, "cannot assign float as buffer"),
        (
            lambda m: m.register_buffer("new", nn.Parameter(tg.ones(1))),
            TypeError,
            "cannot assign Parameter as buffer",
        ),
        (
            lambda m: m.register_parameter("new", tg.ones(1)),
            TypeError,
            "cannot assign Tensor as parameter",
        ),
    ],
)
def test_what_cannot_be_registered_is_not(register, error: type[Exception], message: str) -> None:
    block = Block()
    before = dict(vars(block)), dict(block._places)
    with pytest.raises(error, match=f"Block.*{message}|{message}.*Block"):
        register(block)
    assert (vars(block), block._places) == before


def test_a_buffer_that_is_not_persistent_is_in_no_state() -> None:
    block = Block()
    block.register_buffer("mask", tg.ones(2), persistent=False)
    assert [name for name, _ in block.named_buffers()] == ["count", "mask"]
    assert "mask" not in block.state_dict()
    assert block.load_state_dict(block.state_dict()) == ([], [])
    assert block.double().mask.dtype == np.float64
    block.mask = tg.zeros(2)
    assert "mask" not in block.state_dict()  # nor is what takes its place
    block.register_buffer("mask", block.mask)
    assert "mask" in block.state_dict()


# ---- the tree


def test_names_with_a_prefix_alone_or_every_one() -> None:
    model = nn.Sequential(Block(), nn.BatchNorm1d(2))
    first = model[0]
    assert next(model.named_parameters("net"))[0] == "net.0.first.weight"
    assert [n for n, _ in first.named_parameters(recurse=False)] == []
    assert next(model[1].named_buffers(recurse=False))[0] == "running_mean"
    every = [n for n, _ in first.named_parameters(remove_duplicate=False)]
    assert every == ["first.weight", "first.bias", "second.weight"]
    tied = nn.Sequential(first, first)
    assert [n for n, _ in tied.named_modules(prefix="net")] == [
        "net",
        "net.0",
        "net.0.first",
        "net.0.second",
    ]
    assert [n for n, _ in tied.named_modules(remove_duplicate=False)][4:] == [
        "1",
        "1.first",
        "1.second",
    ]
    seen = {first.first}
    names = [n for n, _ in tied.named_modules(seen, "net")]
    assert names == ["net", "net.0", "net.0.second"]
    assert seen == set(tied.modules())
    assert [n for n, _ in tied.named_modules({first}, "net", False)] == ["net"]
    assert list(tied.named_modules({tied})) == []
    with pytest.raises(TypeError, match="named_modules: expected a set of modules as memo, got st"):
        next(tied.named_modules("net"))  # type: ignore[arg-type]
    assert list(tied.children()) == [first]
    assert len(tied) == 2
    assert list(first.state_dict(prefix="block.")) == [
        f"block.{name}" for name in first.state_dict()
    ]
    assert first.state_dict(keep_vars=True)["first.bias"] is first.first.bias


def test_parts_by_their_dotted_names() -> None:
    model = nn.Sequential(Block())
    assert model.get_submodule("") is model
    assert model.get_submodule("0.first") is model[0].first
    assert model.get_parameter("0.first.bias") is model[0].first.bias
    assert model.get_buffer("0.count") is model[0].count


@pytest.mark.parametrize(
    ("find", "message"),
    [
        (
            lambda m: m.get_submodule("0.frist"),
            "get_submodule: no module 'frist' in Block for '0.frist'; there: 'first', 'second'",
        ),
        (lambda m: m.get_parameter("0.count"), "get_parameter: no parameter 'count' in Block"),
        (lambda m: m.get_buffer("0.first.bias"), "get_buffer: no buffer 'bias' in Linear"),
        (lambda m: m.get_parameter("1.first.bias"), "no module '1' in Sequential"),
    ],
)
def test_a_dotted_name_that_is_not_there(find, message: str) -> None:
    with pytest.raises(AttributeError, match=message):
        find(nn.Sequential(Block()))


def test_apply_reaches_what_is_below_first() -> None:
    model, seen = nn.Sequential(Block()), []
    assert model.apply(lambda module: seen.append(type(module).__name__)) is model
    assert seen == ["Linear", "Linear", "Block", "Sequential"]


def test_a_module_that_overrides_train_is_asked() -> None:
    class Frozen(nn.BatchNorm1d):
        def train(self, mode: bool = True) -> Frozen:
            return super().train(False)

    model = nn.Sequential(Frozen(2), nn.Dropout())
    model.train()
    assert [module.training for module in model] == [False, True]
    with pytest.raises(TypeError, match="train: expected True or False, got 'eval'"):
        model.train("eval")  # type: ignore[arg-type]


def test_no_module_is_moved_halfway() -> None:
    layer = nn.BatchNorm1d(2)
    layer.weight.grad = tg.ones(2)
    with pytest.raises(TypeError, match=r"BatchNorm1d\.to: expected a float dtype, got int64"):
        layer.to("int64")
    assert {x.dtype for x in layer.parameters()} == {np.dtype("float32")}
    layer.num_batches_tracked = tg.tensor(2**24 + 1)  # no float32 holds it
    moved = layer.to(device="cpu").double()
    assert moved.num_batches_tracked.item() == 2**24 + 1
    assert layer.weight.grad.dtype == layer.weight.dtype == np.float64
    assert layer.float().running_var.dtype == np.float32


# ---- the state


def test_a_shared_layer_is_in_the_state_under_each_of_its_names() -> None:
    layer = nn.Linear(2, 2)
    model = nn.Sequential(layer, nn.ReLU(), layer)
    keys = ["0.weight", "0.bias", "2.weight", "2.bias"]
    assert list(model.state_dict()) == keys
    assert [name for name, _ in model.named_parameters()] == keys[:2]
    assert len(list(model.modules())) == 3
    other = nn.Linear(2, 2)
    target = nn.Sequential(other, nn.ReLU(), other)
    target.load_state_dict(model.state_dict())
    assert_close(other.weight, layer.weight, rtol=0, atol=0)
    with pytest.raises(ValueError, match=r"missing '2\.weight', '2\.bias'"):
        target.load_state_dict({k: v for k, v in model.state_dict().items() if k[0] == "0"})


def test_the_state_of_a_module_that_knows_the_one_above_ends() -> None:
    model = nn.Sequential(nn.Linear(1, 1))
    model[0].above = model
    assert list(model.state_dict()) == ["0.weight", "0.bias"]


class Elsewhere:
    """An array that is not on the host."""

    def __array__(self, dtype: object = None, copy: bool | None = None) -> np.ndarray:
        raise RuntimeError("a sentence of another library")


UNREADABLE = [
    ([[1.0]], "of type list"),
    (1.0, "of type float"),
    (None, "of type NoneType"),
    (np.array([["a"]]), "an array of <U1"),
    (np.ones((1, 1), complex), "an array of complex128"),
    (Elsewhere(), "of type Elsewhere, which NumPy cannot read"),
]


@pytest.mark.parametrize(("value", "got"), UNREADABLE)
def test_a_state_of_other_things_than_arrays_names_the_key(value: object, got: str) -> None:
    layer = nn.Linear(1, 1)
    before = layer.bias.tolist(), layer.weight.tolist()
    state = {"bias": np.ones(1, np.float32), "weight": value}
    message = f"'weight' is {got}, expected an array of numbers on the host"
    with pytest.raises(ValueError, match=f": the state does not fit Linear: {message}$"):
        layer.load_state_dict(state)
    assert (layer.bias.tolist(), layer.weight.tolist()) == before


@pytest.mark.parametrize("strict", [True, False])
def test_every_misfit_is_in_one_message_and_nothing_is_copied(strict: bool) -> None:
    model = nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3))
    before = {name: x.tolist() for name, x in model.state_dict().items()}
    state = {name: x.numpy() + 1 for name, x in model.state_dict().items() if name != "0.bias"}
    state["0.weight"] = np.zeros((3, 3))
    state["1.num_batches_tracked"] = np.float32(1.5)
    state["1.weight"] = np.ones(4)
    state["1.running_var"] = [1.0]
    state["2.weight"] = np.zeros(1)
    with pytest.raises(ValueError, match="load_state_dict: the state does not fit Sequential") as e:
        model.load_state_dict(state, strict)
    problems = [
        *(["missing '0.bias'", "unexpected '2.weight'"] if strict else []),
        "'0.weight' has shape (3, 3), expected (3, 2)",
        "'1.weight' has shape (4,), expected (3,)",
        "'1.running_var' is of type list, expected an array of numbers on the host",
        "'1.num_batches_tracked' is of float32, which int64 does not hold",
    ]
    assert str(e.value).endswith(f": {'; '.join(problems)}")
    assert {name: x.tolist() for name, x in model.state_dict().items()} == before


def test_what_loading_returns_reads_as_in_pytorch() -> None:
    layer = nn.Linear(2, 2)
    assert repr(layer.load_state_dict(layer.state_dict())) == "<All keys matched successfully>"
    found = layer.load_state_dict({"weight": tg.ones(2, 2), "more": 1}, strict=False)
    assert (found.missing_keys, found.unexpected_keys) == (["bias"], ["more"])
    assert str(found) == "_IncompatibleKeys(missing_keys=['bias'], unexpected_keys=['more'])"
    with pytest.raises(TypeError, match=r"load_state_dict: expected a dict .*, got list"):
        layer.load_state_dict([("weight", tg.ones(2, 2))])  # type: ignore[arg-type]


@pytest.mark.parametrize("dtype", ["float16", ">f4", "float64", "int8", "bool"])
def test_arrays_of_other_dtypes_are_cast(dtype: str) -> None:
    layer = nn.Linear(2, 1, bias=False)
    layer.load_state_dict({"weight": np.array([[0, 1]], dtype)})
    assert (layer.weight.tolist(), layer.weight.dtype) == ([[0.0, 1.0]], np.float32)


def test_memory_that_cannot_be_written_is_seen_before_any_is() -> None:
    model = nn.Sequential(nn.Linear(1, 1), nn.Module())
    fixed = np.zeros(1, np.float32)
    fixed.flags.writeable = False
    model[1].register_buffer("fixed", tg.from_numpy(fixed, backend="numpy"))
    before = model[0].weight.tolist()
    with pytest.raises(RuntimeError, match="load_state_dict in place on read-only memory"):
        model.load_state_dict({name: x + 1 for name, x in model.state_dict().items()})
    assert model[0].weight.tolist() == before


@pytest.mark.parametrize("through", ["tensors", "parameters", "safetensors"])
def test_a_state_of_pytorch_loads(through: str) -> None:
    torch = pytest.importorskip("torch", reason="PyTorch is not installed")
    theirs = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.BatchNorm1d(4)).double()
    state = theirs.state_dict(keep_vars=through == "parameters")
    if through == "safetensors":
        files = pytest.importorskip("safetensors.torch", reason="PyTorch is not installed")
        state = safetensors.numpy.load(files.save(state))
    ours = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4)).double()
    assert ours.load_state_dict(state) == ([], [])
    for name, value in theirs.state_dict().items():
        np.testing.assert_array_equal(ours.state_dict()[name].numpy(), value.numpy())


def test_what_numpy_cannot_read_of_pytorch_is_said_in_our_words() -> None:
    torch = pytest.importorskip("torch", reason="PyTorch is not installed")
    state = torch.nn.Linear(1, 1, dtype=torch.bfloat16).state_dict()
    with pytest.raises(ValueError, match="'bias' is of type Tensor, which NumPy cannot read"):
        nn.Linear(1, 1).load_state_dict(state)


# ---- copies


def _tied() -> nn.Sequential:
    layer = nn.Linear(3, 3)
    return nn.Sequential(layer, nn.BatchNorm1d(3), nn.ReLU(), layer)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("copied", [copy.deepcopy, lambda model: pickle.loads(pickle.dumps(model))])
def test_a_copy_of_a_model_is_a_model_of_its_own(copied, backend: str) -> None:
    with tg.use_backend(backend):
        model, x = _tied(), tg.rand(5, 3)
        model[1].bias.requires_grad_(False)
        twin = copied(model)
        assert_close(twin.eval()(x), model.eval()(x), rtol=0, atol=0)
        assert [name for name, _ in twin.named_parameters()] == [
            name for name, _ in model.named_parameters()
        ]
        assert all(type(p) is nn.Parameter for p in twin.parameters())
        assert [p.requires_grad for p in twin.parameters()] == [True, True, True, False]
        assert twin[0] is twin[3]
        before = {name: value.tolist() for name, value in model.state_dict().items()}
        optimizer = optim.Adam(twin.parameters(), lr=0.1)
        twin.train()(x).square().sum().backward()
        optimizer.step()
        assert {name: value.tolist() for name, value in model.state_dict().items()} == before
        assert twin[0].weight.tolist() != before["0.weight"]
        assert all(p.grad is None for p in model.parameters())


def test_a_shallow_copy_has_the_same_layers_and_registers_of_its_own() -> None:
    model = nn.Sequential(nn.Linear(2, 2))
    model.register_forward_hook(lambda module, args, output: output * 2)
    twin = copy.copy(model)
    x = tg.ones(1, 2)
    assert twin[0] is model[0]
    assert_close(twin(x), model(x), rtol=0, atol=0)
    twin.append(nn.ReLU())
    twin.register_buffer("mean", tg.ones(1))
    twin.register_forward_hook(lambda module, args, output: None.missing)
    assert list(model.state_dict()) == ["0.weight", "0.bias"]
    assert_close(model(x), model[0](x) * 2, rtol=0, atol=0)
    layer = copy.copy(model[0])
    layer.weight = nn.Parameter(tg.zeros(2, 2))
    layer.extra = nn.Parameter(tg.zeros(1))
    del layer.bias
    assert [name for name, _ in model[0].named_parameters()] == ["weight", "bias"]
    assert model[0].weight is not layer.weight


def test_a_parameter_by_itself() -> None:
    assert nn.Parameter().shape == (0,)
    frozen = nn.Parameter(tg.ones(2, backend="numpy"), requires_grad=False)
    assert repr(frozen) == (
        "Parameter containing:\ntensor([1., 1.], shape=(2,), dtype=float32, backend=numpy)"
    )
    for twin in (copy.deepcopy(frozen), pickle.loads(pickle.dumps(frozen))):
        assert (type(twin), twin.requires_grad, twin.tolist()) == (nn.Parameter, False, [1.0, 1.0])
        assert not np.shares_memory(twin.numpy(), frozen.numpy())
    trained = nn.Parameter(tg.ones(2))
    trained.sum().backward()
    twin = copy.deepcopy(trained)
    assert (twin.requires_grad, twin.grad) == (True, None)
    made = nn.Parameter(trained * 2)
    assert made.is_leaf
    assert made.requires_grad
    assert type(made * 2) is tg.Tensor
    with pytest.raises(TypeError, match="Parameter: expected a tensor, got list"):
        nn.Parameter([1.0])  # type: ignore[arg-type]
    with pytest.raises(RuntimeError, match="only float tensors can require grad"):
        nn.Parameter(tg.arange(3))


# ---- dtypes and types


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("dtype", ["float64", "int64", "uint8"])
def test_batch_norm_refuses_mixed_dtypes(dtype: str, training: bool, backend: str) -> None:
    with tg.use_backend(backend):
        layer = nn.BatchNorm1d(3).train(training)
        before = [buffer.tolist() for buffer in layer.buffers()]
        wrong = "dtypes differ:" if dtype == "float64" else "expected float input, got"
        message = rf"batch_norm: {wrong} input {dtype}, .*weight float32.*\.to\(dtype\)"
        with pytest.raises(TypeError, match=message):
            layer(tg.ones(4, 3, dtype=dtype))
        assert [buffer.tolist() for buffer in layer.buffers()] == before
        layer.to("float64")
        assert layer(tg.ones(4, 3, dtype="float64")).dtype == np.float64


@pytest.mark.parametrize("training", [True, False])
def test_batch_norm_refuses_integers(training: bool) -> None:
    x, one = tg.ones(4, 3, dtype="int64"), tg.ones(3, dtype="int64")
    with pytest.raises(TypeError, match=r"batch_norm: expected float input, got input int64.*cast"):
        F.batch_norm(x, one, one, one, one, training)


def test_batch_norm_refuses_running_statistics_of_another_dtype() -> None:
    one, mean = tg.ones(3), tg.zeros(3, dtype="float64")
    with pytest.raises(TypeError, match=r"batch_norm: dtypes differ: .*running_mean float64"):
        F.batch_norm(tg.rand(4, 3), mean, one, one, one, training=True)


@pytest.mark.parametrize(
    ("function", "inputs", "named"),
    [
        (
            F.cross_entropy,
            (tg.ones(2, 3), np.array([0, 1])),
            "cross_entropy: .*as target, got ndarray",
        ),
        (
            F.cross_entropy,
            (np.ones((2, 3)), tg.arange(2)),
            "cross_entropy: .*as input, got ndarray",
        ),
        (F.cross_entropy, ([[1.0]], [0]), "cross_entropy: .*as input, got list"),
        (F.mse_loss, (tg.ones(2), np.ones(2)), "mse_loss: .*as target, got ndarray"),
        (F.mse_loss, (1.0, tg.ones(2)), "mse_loss: .*as input, got float"),
        (F.dropout, (np.ones(2),), "dropout: .*input.*ndarray"),
        (
            F.batch_norm,
            (np.ones((4, 3)), None, None, tg.ones(3), tg.ones(3)),
            "batch_norm: .*input.*ndarray",
        ),
        (
            F.batch_norm,
            (tg.ones(4, 3), np.ones(3), tg.ones(3), tg.ones(3), tg.ones(3)),
            "batch_norm: .*running_mean.*ndarray",
        ),
        (
            networks.take_scaled,
            (np.ones((2, 2), np.uint8), tg.arange(2)),
            "take_scaled: .*as x, got ndarray",
        ),
        (networks.take_scaled, (tg.ones(2), np.arange(2)), "take_scaled: .*as index, got ndarray"),
    ],
)
def test_an_array_where_a_tensor_belongs_is_named(function, inputs, named: str) -> None:
    with pytest.raises(TypeError, match=rf"{named}; make one with tensor\(…\)"):
        function(*inputs)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("columns", [1, 3, 10, 17])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_a_nan_logit_gives_a_nan_loss_in_any_column(dtype: str, columns: int, backend: str) -> None:
    x = np.tile(np.arange(columns, dtype=dtype), (columns + 1, 1))
    x[np.arange(columns), np.arange(columns)] = np.nan  # the last row has none
    logits = tg.tensor(x, backend=backend).requires_grad_()
    target = tg.zeros(columns + 1, dtype="int64", backend=backend)
    losses = F.cross_entropy(logits, target, reduction="none")
    losses.sum().backward()
    assert logits.grad is not None
    for found in (losses.detach().numpy()[:, None], logits.grad.numpy()):
        assert np.isnan(found[:-1]).all()
        assert np.isfinite(found[-1]).all()


def test_batch_norm_in_evaluation_keeps_what_its_backward_needs() -> None:
    layer = nn.BatchNorm1d(2).eval()
    x = tg.rand(3, 2, requires_grad=True)
    y = layer(x)
    layer.train()
    layer(x.detach())  # moves the running statistics
    y.sum().backward()
    assert x.grad is not None
    assert_close(x.grad, tg.full((3, 2), float(1 / np.sqrt(1 + 1e-5))), rtol=1e-5)


def test_a_module_without_init_says_so() -> None:
    class Forgotten(nn.Module):
        def __init__(self) -> None:
            self.layer = nn.Linear(1, 1)

    with pytest.raises(AttributeError, match=r"before super\(\).__init__\(\) was called"):
        Forgotten()


@pytest.mark.parametrize(
    "options",
    [{"div_factor": 0}, {"total_steps": 10.5}, {"max_lr": [0.1, 0.2]}, {"final_div_factor": -1}],
)
def test_one_cycle_refuses_what_makes_no_schedule(options: dict[str, object]) -> None:
    settings = {"max_lr": 0.1, "total_steps": 10} | options
    with pytest.raises((ValueError, TypeError), match="OneCycleLR"):
        optim.lr_scheduler.OneCycleLR(optim.SGD([tg.ones(1)]), **settings)  # type: ignore[arg-type]
