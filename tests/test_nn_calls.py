"""Hooks around a module's forward, and the name of the layer on an error."""

from __future__ import annotations

import copy
import gc
import pickle
import traceback
import weakref
from collections.abc import Callable
from typing import Any

import pytest

import tinygrad_mnist as tg
from tinygrad_mnist import nn


class Scale(nn.Module):
    """Times a number, which can be given by name."""

    def forward(self, x: Any, times: int = 2) -> Any:
        return x * times


class Net(nn.Module):
    """Layers reached in each way there is."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(nn.Sequential(nn.Conv2d(3, 10, 5), nn.BatchNorm2d(10)))
        self.heads = nn.ModuleList([nn.ReLU(), nn.Linear(4, 2)])
        self.named = nn.ModuleDict({"out": nn.Linear(4, 2)})
        self.again = self.heads[1]
        self.hidden = [nn.Linear(4, 2)]  # in a plain list: no part of the module

    def forward(self, x: tg.Tensor, part: Callable[[Net], nn.Module]) -> tg.Tensor:
        return part(self)(x)


# ---- hooks


def test_pre_hooks_change_arguments_in_their_order() -> None:
    module = Scale()
    module.register_forward_pre_hook(lambda m, args: args[0] + 1)
    module.register_forward_pre_hook(lambda m, args: (args[0] * 10,))
    assert module(1) == 40
    module.register_forward_pre_hook(lambda m, args: (args[0] + 4,), prepend=True)
    assert module(1) == 120
    module.register_forward_pre_hook(lambda m, args: None)
    assert module(1) == 120


def test_pre_hooks_with_kwargs_change_both() -> None:
    module = Scale()
    module.register_forward_pre_hook(
        lambda m, args, kwargs: (args, {"times": kwargs["times"] + 1}), with_kwargs=True
    )
    assert module(5, times=2) == 15
    module.register_forward_pre_hook(lambda m, args, kwargs: args, with_kwargs=True)
    with pytest.raises(TypeError, match=r"Scale: .* None or \(args, kwargs\), got tuple"):
        module(5, times=2)


def test_hooks_see_and_change_the_output() -> None:
    module, seen = Scale(), []
    module.register_forward_hook(lambda m, args, output: seen.append((m, args, output)))
    module.register_forward_hook(lambda m, args, kwargs, y: y + kwargs["times"], with_kwargs=True)
    module.register_forward_hook(lambda m, args, output: output * 100, prepend=True)
    assert module(1, times=3) == 303
    assert seen == [(module, (1,), 300)]


def test_a_handle_takes_its_hook_off() -> None:
    module = Scale()
    handle = module.register_forward_hook(lambda m, args, output: -output)
    with module.register_forward_pre_hook(lambda m, args: args[0] + 1) as inner:
        assert module(1) == -4
    assert module(1) == -2
    handle.remove()
    module.register_forward_hook(lambda m, args, output: output + 1)
    handle.remove()
    inner.remove()  # a second time: nothing happens
    assert module(1) == 3


def test_a_hook_may_remove_itself() -> None:
    module, calls = Scale(), []

    def once(m: nn.Module, args: Any, output: Any) -> None:
        calls.append(output)
        handle.remove()

    handle = module.register_forward_hook(once)
    assert (module(1), module(2), calls) == (2, 4, [2])


def test_always_called_hooks_run_once_when_forward_or_a_hook_raises() -> None:
    module, seen = Scale(), []
    module.register_forward_hook(
        lambda m, args, kwargs, y: seen.append((args, kwargs, y)),
        with_kwargs=True,
        always_call=True,
    )
    module.register_forward_hook(lambda m, args, y: [][0])
    module.register_forward_hook(lambda m, args, y: seen.append(y))
    with pytest.raises(IndexError):
        module(1)
    with pytest.raises(TypeError, match="unsupported operand"):
        module(1, times=None)
    assert seen == [((1,), {}, 2), ((1,), {"times": None}, None)]


def test_what_an_always_called_hook_raises_hides_no_error() -> None:
    module = Scale()
    module.register_forward_hook(lambda m, args, y: [][0], always_call=True)
    with (
        pytest.raises(TypeError, match="unsupported operand"),
        pytest.warns(UserWarning, match="always_call raised IndexError"),
    ):
        module(1, times=None)


def test_a_hook_is_something_to_call() -> None:
    with pytest.raises(TypeError, match="Scale: expected a function as hook, got int"):
        Scale().register_forward_hook(3)  # type: ignore[arg-type]


def negate(module: nn.Module, args: Any, output: Any) -> Any:
    return -output


@pytest.mark.parametrize(
    "copied", [copy.deepcopy, lambda module: pickle.loads(pickle.dumps(module))]
)
def test_a_copy_has_hooks_of_its_own(copied: Callable[[Scale], Scale]) -> None:
    module = Scale()
    handle = module.register_forward_hook(negate)
    twin = copied(module)
    handle.remove()
    twin.register_forward_hook(lambda m, args, output: output * 10)
    assert (module(1), twin(1)) == (2, -20)


# ---- the layer on an error


@pytest.mark.parametrize(
    ("part", "shape", "got", "takes", "place"),
    [
        (lambda net: net.features, (2, 4, 9, 9), "(2, 4, 9, 9)", "3", "features.0.0: Conv2d(3, 10"),
        (lambda net: net.features, (9, 9), "(9, 9)", "3", "features.0.0: Conv2d(3, 10"),
        (lambda net: net.features[0][1], (2, 4, 9, 9), "(2, 4, 9, 9)", "10", "features.0.1: Batch"),
        (lambda net: net.features[0][1], (2, 10), "(2, 10)", "10", "features.0.1: BatchNorm2d(10"),
        (lambda net: net.heads[1], (2, 5), "(2, 5)", "4", "heads.1: Linear(in_features=4"),
        (lambda net: net.again, (2, 5), "(2, 5)", "4", "heads.1: Linear("),  # its first name
        (lambda net: net.named["out"], (), "()", "4", "named.out: Linear("),
        (lambda net: net.hidden[0], (2, 5), "(2, 5)", "4", "Linear("),  # no name
    ],
)
def test_an_error_shows_the_layer_what_it_got_and_what_it_takes(
    part: Callable[[Net], nn.Module], shape: tuple[int, ...], got: str, takes: str, place: str
) -> None:
    model = nn.Sequential()
    model.add_module("net", Net())
    with pytest.raises(ValueError) as caught:
        model.net(tg.ones(*shape), part)
    lines = "".join(traceback.format_exception(caught.value)).rstrip().split("\n")
    assert got in lines[-2]
    assert takes in lines[-2].replace(got, "")
    assert lines[-1].startswith(f"in {place}")


def test_the_name_is_as_seen_from_the_outermost_module() -> None:
    model = nn.Sequential(nn.ReLU(), nn.Sequential(nn.Linear(2, 2)))
    for called, place in ((model, "1.0: "), (model[1], "0: "), (model[1][0], "")):
        with pytest.raises(ValueError, match="Linear") as caught:
            called(tg.ones(3))
        expected = f"in {place}Linear(in_features=2, out_features=2, bias=True)"
        assert caught.value.__notes__ == [expected]


class Coder(nn.Module):
    """A model that is called by methods of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.Sequential(nn.Linear(4, 2))
        self.decoder = nn.Sequential(nn.Linear(2, 4))

    def decode(self, z: tg.Tensor) -> Any:
        return self.decoder(z)

    def forward(self, x: tg.Tensor) -> Any:
        return self.decode(self.encoder(x))


def outside(model: Coder, z: tg.Tensor) -> Any:
    return model.decoder(z)


@pytest.mark.parametrize("entry", [Coder.decode, Coder.forward, Coder.__call__, outside])
def test_the_model_need_not_be_called_as_such(entry: Callable[[Coder, tg.Tensor], Any]) -> None:
    with pytest.raises(ValueError, match="Linear") as caught:
        entry(Coder(), tg.ones(1, 3))
    part = "encoder" if entry in (Coder.forward, Coder.__call__) else "decoder"
    assert [note.split(":")[0] for note in caught.value.__notes__] == [f"in {part}.0"]


def test_an_error_handled_outside_keeps_its_layer() -> None:
    class Fallback(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.wrong = nn.Linear(2, 2)

        def forward(self, x: Any) -> Any:
            try:
                return self.wrong(x)
            except ValueError as error:
                nn.ReLU()(x)
                raise error

    with pytest.raises(ValueError, match="Linear") as caught:
        nn.Sequential(Fallback())(tg.ones(3))
    assert [note[:12] for note in caught.value.__notes__] == ["in 0.wrong: "]


def test_what_holds_modules_is_named_without_them() -> None:
    model = nn.Sequential(nn.ModuleList([nn.ReLU()]))
    with pytest.raises(
        NotImplementedError, match=r"ModuleList has no method forward\(\)"
    ) as caught:
        model(1)
    assert caught.value.__notes__ == ["in 0: ModuleList(…)"]


def test_an_error_in_a_hook_names_its_module() -> None:
    model = nn.Sequential(Scale(), Scale())
    for register in (model[1].register_forward_hook, model[1].register_forward_pre_hook):
        with register(lambda *given: [][0]), pytest.raises(IndexError) as caught:
            model(1)
        assert caught.value.__notes__ == ["in 1: Scale()"]


def test_other_notes_stay_and_copies_have_the_text() -> None:
    class Noting(nn.Module):
        def forward(self, x: Any) -> None:
            error = KeyError("x")
            error.add_note("mine")
            raise error

    with pytest.raises(KeyError) as caught:
        nn.Sequential(Noting())(1)
    assert caught.value.__notes__ == ["mine", "in 0: Noting()"]
    notes = pickle.loads(pickle.dumps(caught.value)).__notes__
    assert notes == ["mine", "in 0: Noting()"]
    assert [type(note) for note in notes] == [str, str]


def test_a_module_without_init_keeps_its_own_error() -> None:
    class Bare(nn.Module):
        def __init__(self) -> None:
            pass

        def forward(self, x: Any) -> Any:
            return x["a"]

    with pytest.raises(TypeError, match="not subscriptable") as caught:
        Bare()(1)
    assert caught.value.__notes__ == ["in Bare()"]


def test_a_wrong_extra_repr_hides_no_error() -> None:
    class Odd(Scale):
        def extra_repr(self) -> str:
            return self.unknown

    with pytest.raises(TypeError, match="unsupported operand") as caught:
        Odd()(1, times=None)
    assert caught.value.__notes__ == ["in Odd(…)"]


def test_an_error_and_its_module_go_with_their_last_names() -> None:
    class Wrong(Exception):
        pass

    class Raising(nn.Module):
        def forward(self, x: Any) -> None:
            raise Wrong

    def failed() -> tuple[weakref.ref[Wrong], weakref.ref[nn.Module]]:
        model = nn.Sequential(nn.Sequential(Raising()))
        try:
            model(1)
        except Wrong as error:
            return weakref.ref(error), weakref.ref(model)
        raise AssertionError

    gc.collect()
    gc.disable()
    try:
        assert [found() for found in failed()] == [None, None]
    finally:
        gc.enable()
