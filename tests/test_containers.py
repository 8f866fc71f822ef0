"""Sequential, ModuleList and ModuleDict, and how they are shown, beside PyTorch's."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from typing import Any

import pytest

import tinygrad_mnist as tg
from tinygrad_mnist import nn

LISTS = [lambda layers: nn.Sequential(*layers), nn.ModuleList]


def layers(count: int) -> list[nn.Module]:
    return [nn.Linear(i + 1, i + 2) for i in range(count)]


def names(module: nn.Module) -> list[str]:
    return [name for name, _ in module.named_children()]


def named(**modules: nn.Module) -> nn.Sequential:
    return nn.Sequential(OrderedDict(modules))


# ---- as lists


@pytest.mark.parametrize("make", LISTS)
def test_reading_as_a_list(make: Callable[..., Any]) -> None:
    parts = layers(4)
    model = make(parts)
    assert (len(model), list(model)) == (4, parts)
    assert (model[0], model[-1]) == (parts[0], parts[3])
    assert parts[2] in model
    assert type(model[1:3]) is type(model)
    assert list(model[1:3]) == parts[1:3]  # the same layers
    assert list(model[::-2]) == parts[::-2]
    assert not make([])[:]


@pytest.mark.parametrize("make", LISTS)
def test_writing_as_a_list(make: Callable[..., Any]) -> None:
    parts, new = layers(4), nn.ReLU()
    model = make(parts)
    model[-1] = parts[3] = new
    assert list(model) == parts
    assert model.append(new) is model
    assert list(model.extend(layers(0)).insert(1, parts[2])) == [
        *(parts[0], parts[2]),
        *(*parts[1:], new),
    ]
    assert names(model[:2]) == names(model)[:2] == ["0", "1"]
    assert model.pop(1) is parts[2]
    assert list(model.pop(slice(4, None))) == [new]
    del model[::2]
    assert list(model) == [parts[1], parts[3]]
    assert list(dict(model.named_modules())) == ["", "0", "1"]  # numbered anew
    model += [parts[0]]
    assert list(model.insert(-1, parts[2])) == [parts[1], parts[3], parts[2], parts[0]]


@pytest.mark.parametrize("make", LISTS)
@pytest.mark.parametrize(
    ("spoil", "error", "message"),
    [
        (lambda m: m[2], IndexError, "index 2 is out of range for 2 modules"),
        (lambda m: m.pop(-3), IndexError, "index -3 is out of range for 2 modules"),
        (lambda m: m.__delitem__(2), IndexError, "index 2 is out of range"),
        (lambda m: m.insert(3, nn.ReLU()), IndexError, "insert: index 3 is out of range"),
        (lambda m: m["0"], TypeError, "'str' object cannot be interpreted as an integer"),
        (lambda m: m.append("x"), TypeError, "expected modules, number 0 is str"),
        (lambda m: m.extend([nn.ReLU(), tg.relu]), TypeError, "number 1 is function"),
        (lambda m: m.extend(nn.ReLU()), TypeError, "expected modules, got ReLU; put them in"),
        (lambda m: m.insert(0, None), TypeError, "number 0 is NoneType"),
        (lambda m: m.__setitem__(0, 1), TypeError, "number 0 is int"),
        (lambda m: m + 1, TypeError, "unsupported operand|expected modules, got int"),
    ],
)
def test_a_wrong_use_changes_nothing(
    spoil: Callable[[Any], Any], error: type[Exception], message: str, make: Callable[..., Any]
) -> None:
    parts = layers(2)
    model = make(parts)
    with pytest.raises(error, match=message):
        spoil(model)
    assert list(model) == parts


@pytest.mark.parametrize("make", LISTS)
def test_an_empty_place_is_a_position(make: Callable[..., Any]) -> None:
    parts = layers(3)
    model = make(parts)
    setattr(model, "0", None)
    assert (len(model), list(model)) == (3, [None, *parts[1:]])
    assert (model[0], model[1], model[-1]) == (None, parts[1], parts[2])
    assert list(model[:2]) == [None, parts[1]]
    assert names(model) == ["1", "2"]
    model[0] = parts[0]
    assert list(model) == parts
    setattr(model, "1", None)
    assert model.pop(1) is None
    assert list(model.append(parts[1])) == [parts[0], parts[2], parts[1]]
    assert names(model) == ["0", "1", "2"]


def test_addition() -> None:
    first, second = layers(2), layers(3)
    joined = nn.Sequential(*first) + named(a=second[0], b=second[1])
    assert list(joined) == [*first, *second[:2]]
    assert names(joined) == ["0", "1", "2", "3"]
    listed = nn.ModuleList(first) + second
    assert (type(listed), list(listed)) == (nn.ModuleList, [*first, *second])


# ---- Sequential


def test_sequential_runs_its_modules_in_order() -> None:
    class Add(nn.Module):
        def __init__(self, text: str) -> None:
            super().__init__()
            self.text = text

        def forward(self, x: str) -> str:
            return x + self.text

    model = nn.Sequential(*map(Add, "abcd"))
    assert (model(">"), model[1:3](">"), nn.Sequential()(">")) == (">abcd", ">bc", ">")
    model.insert(1, Add("A"))
    assert model(">") == ">aAbcd"


def test_names_of_a_sequential() -> None:
    model = named(first=nn.Linear(1, 2), act=nn.ReLU(), last=nn.Linear(2, 1))
    assert model.first is model[0]
    assert names(model[1:]) == ["act", "last"]
    assert names(model.append(nn.ReLU())) == ["first", "act", "last", "3"]
    model[1] = nn.Tanh()
    assert isinstance(model.act, nn.Tanh)
    assert [name for name in dir(model) if name in ("act", "3")] == ["act"]


def test_what_is_appended_to_a_slice_replaces_nothing() -> None:
    model = nn.Sequential(*layers(3))[1:]
    assert names(model) == ["1", "2"]
    assert names(model.append(nn.ReLU())) == ["1", "2", "3"]


# ---- ModuleDict


def test_a_dict_of_modules() -> None:
    up, down = layers(2)
    model = nn.ModuleDict({"up": up})
    model["down"] = down
    assert list(model) == list(model.keys()) == ["up", "down"]
    assert list(model.items()) == [("up", up), ("down", down)]
    assert list(model.values()) == [up, down]
    assert (model["up"], len(model), "down" in model, "keys" in model) == (up, 2, True, False)
    model.update([("up", down), ("new", up)])
    assert list(model.items()) == [("up", down), ("down", down), ("new", up)]
    assert model.pop("up") is down
    del model["down"]
    model.update(nn.ModuleDict({"more": down}))
    assert list(model.state_dict()) == ["new.weight", "new.bias", "more.weight", "more.bias"]
    model.add_module("empty", None)
    assert (len(model), model["empty"], "empty" in model) == (3, None, True)
    model.clear()
    assert not model


@pytest.mark.parametrize(
    ("spoil", "error", "message"),
    [
        (lambda m: m["b"], KeyError, "b"),
        (lambda m: m.pop("training"), KeyError, "training"),
        (lambda m: m.__delitem__("training"), KeyError, "training"),
        (lambda m: m.update({"b": nn.ReLU(), "c": 1}), TypeError, "int as module 'c'"),
        (lambda m: m.update({"b": nn.ReLU(), "keys": nn.ReLU()}), ValueError, "'keys' already"),
        (lambda m: m.update(3), TypeError, "ModuleDict: expected a mapping or pairs"),
        (lambda m: m.update([("b",)]), ValueError, "ModuleDict: expected a mapping or pairs"),
        (lambda m: m.__setitem__("b.c", nn.ReLU()), ValueError, "without dots"),
        (lambda m: m.__setitem__(1, nn.ReLU()), TypeError, "expected a string"),
        (lambda m: m(1), NotImplementedError, r"ModuleDict has no method forward\(\)"),
    ],
)
def test_a_wrong_use_of_a_dict_changes_nothing(
    spoil: Callable[[Any], Any], error: type[Exception], message: str
) -> None:
    layer = nn.Linear(1, 1)
    model = nn.ModuleDict({"a": layer})
    with pytest.raises(error, match=message):
        spoil(model)
    assert list(model.items()) == [("a", layer)]


# ---- beside PyTorch's


def _described(n: Any, extra: str, **children: Any) -> Any:
    """A module of the library ``n`` whose ``extra_repr`` is ``extra``."""

    class Described(n.Module):  # type: ignore[name-defined]
        def extra_repr(self) -> str:
            return extra

    made = Described()
    for name, child in children.items():
        made.add_module(name, child)
    return made


SHOWN: dict[str, Callable[[Any], Any]] = {
    "empty": lambda n: n.Sequential(n.Sequential(), n.ModuleList(), n.ModuleDict(), n.Module()),
    "nested": lambda n: n.Sequential(n.Sequential(n.Linear(2, 3), n.ReLU()), n.Tanh()),
    "named": lambda n: n.Sequential(OrderedDict(a=n.Tanh(), b=n.Sequential(n.Tanh()))),
    "slice": lambda n: n.Sequential(n.Tanh(), n.ReLU(), n.Sigmoid())[1:],
    "after del": lambda n: _without(n.Sequential(OrderedDict(a=n.Tanh(), b=n.ReLU())), 0),
    "equal": lambda n: n.ModuleList([n.Linear(2, 2) for _ in range(3)]),
    "equal runs": lambda n: n.ModuleList([n.ReLU(), n.Tanh(), n.Tanh(), n.ReLU(), n.ReLU()]),
    "equal blocks": lambda n: n.ModuleList([n.Sequential(n.Linear(1, 1), n.Tanh())] * 2),
    "none": lambda n: _emptied(n.Sequential(n.Tanh(), n.ReLU())),
    "none in a list": lambda n: _emptied(n.ModuleList([n.Tanh(), n.ReLU()])),
    "dict": lambda n: n.ModuleDict({"x": n.Linear(1, 2), "y": n.ModuleList([n.Tanh()] * 2)}),
    "one line": lambda n: _described(n, "size=3"),
    "one line and more": lambda n: _described(n, "size=3", a=n.Tanh()),
    "several lines": lambda n: _described(n, "size=3\nwidth=4"),
    "several inside": lambda n: n.Sequential(_described(n, "a\nb", c=n.Tanh(), none=None)),
}


def _without(module: Any, index: int) -> Any:
    del module[index]
    return module


def _emptied(module: Any) -> Any:
    setattr(module, "0", None)
    return module


@pytest.mark.parametrize("name", SHOWN)
def test_repr_is_pytorchs_to_the_character(name: str) -> None:
    torch = pytest.importorskip("torch", reason="PyTorch is not installed")
    assert repr(SHOWN[name](nn)) == repr(SHOWN[name](torch.nn))


KEPT: dict[str, Callable[[Any], Any]] = {
    "sequential append": lambda n: n.Sequential(OrderedDict(a=n.Tanh())).append(n.Linear(1, 1)),
    "sequential insert": lambda n: n.Sequential(n.Tanh(), n.Tanh()).insert(-1, n.Linear(1, 1)),
    "sequential slice": lambda n: n.Sequential(n.Tanh(), n.Linear(1, 1), n.Linear(1, 2))[-2:],
    "sequential sum": lambda n: n.Sequential(n.Linear(1, 1)) + n.Sequential(n.Linear(1, 2)),
    "sequential del": lambda n: _without(n.Sequential(*(n.Linear(1, 1) for _ in range(3))), 1),
    "list slice": lambda n: n.ModuleList([n.Tanh(), n.Linear(1, 1), n.Linear(1, 2)])[1:],
    "list sum": lambda n: n.ModuleList([n.Linear(1, 1)]) + n.ModuleList([n.Tanh()]),
    "list del": lambda n: _without(n.ModuleList([n.Tanh(), n.Tanh(), n.Linear(1, 1)]), 0),
    "shared": lambda n: n.Sequential(*[n.Linear(1, 1)] * 2),
    "none": lambda n: _emptied(n.Sequential(n.Tanh(), n.Linear(1, 1))).append(n.Linear(1, 1)),
    "none in a list": lambda n: _emptied(n.ModuleList([n.Tanh(), n.Linear(1, 1)]))[:2],
    "norm": lambda n: n.ModuleDict({"norm": n.BatchNorm1d(2), "last": n.Linear(1, 1)}),
}


@pytest.mark.parametrize("name", KEPT)
def test_names_and_order_are_pytorchs(name: str) -> None:
    torch = pytest.importorskip("torch", reason="PyTorch is not installed")
    ours, theirs = KEPT[name](nn), KEPT[name](torch.nn)
    for view in (
        lambda m: list(m.state_dict()),
        lambda m: [n for n, _ in m.named_modules()],
        lambda m: [n for n, _ in m.named_modules(remove_duplicate=False)],
        lambda m: [n for n, _ in m.named_children()],
        lambda m: [n for n, _ in m.named_parameters("net", remove_duplicate=False)],
        lambda m: [n for n, _ in m.named_parameters()],
        lambda m: [n for n, _ in m.named_buffers()],
        lambda m: [d for d in dir(m) if d[0].isdigit()],
    ):
        assert view(ours) == view(theirs)
