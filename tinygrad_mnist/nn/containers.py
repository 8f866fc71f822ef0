"""Modules that hold modules: Sequential, ModuleList, ModuleDict."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import ItemsView, Iterable, Iterator, KeysView, Mapping, ValuesView
from itertools import groupby
from operator import index as as_index
from typing import Any, Self, overload

from tinygrad_mnist.nn.module import Module


class _Positions(Module):
    """Modules by their positions, as in a list. Their names are the positions, if not given.

    A name that is set to None is a position still. IndexError for a position that is not there,
    TypeError for what is no module.
    """

    def _contents(self) -> list[Module]:
        return [module for _, module in self._placed("module")]

    def __len__(self) -> int:
        return len(self._contents())

    def __iter__(self) -> Iterator[Module]:
        return iter(self._contents())

    @overload
    def __getitem__(self, index: int) -> Any: ...  # of a class that the caller knows

    @overload
    def __getitem__(self, index: slice) -> Self: ...

    def __getitem__(self, index: int | slice) -> Any:
        """A module, or a container of this class that shares those of a slice."""
        if isinstance(index, slice):
            return self._sliced(self._placed("module")[index])
        return self._at(index)[1]

    def _sliced(self, held: list[tuple[str, Module]]) -> Self:
        raise NotImplementedError

    def _at(self, index: int) -> tuple[str, Any]:
        held = self._placed("module")
        at = as_index(index)
        if not -len(held) <= at < len(held):
            raise IndexError(
                f"{type(self).__name__}: index {at} is out of range for {len(held)} modules"
            )
        return held[at]

    def __setitem__(self, index: int, module: Module) -> None:
        name, _ = self._at(index)
        setattr(self, name, *self._checked([module]))

    def __delitem__(self, index: int | slice) -> None:
        """Take out a module or a slice; those that stay are numbered anew."""
        kept = self._contents()
        del kept[index if isinstance(index, slice) else self._position(index)]
        self._renumber(kept)

    def _position(self, index: int) -> int:
        self._at(index)
        return as_index(index)

    def append(self, module: Module) -> Self:
        """Add a module at the end."""
        return self.extend([module])

    def extend(self, modules: Iterable[Module]) -> Self:
        """Add modules at the end, all or none of them."""
        added = self._checked(modules)
        number = len(self)
        for module in added:
            while str(number) in self._places:  # as in a slice, which keeps its names
                number += 1
            self.add_module(str(number), module)
        return self

    def insert(self, index: int, module: Module) -> Self:
        """Add a module before the one at ``index``; all are numbered anew."""
        modules = self._contents()
        if not -len(modules) <= as_index(index) <= len(modules):
            raise IndexError(
                f"{type(self).__name__}.insert: index {index} is out of range for "
                f"{len(modules)} modules"
            )
        modules[index:index] = self._checked([module])
        self._renumber(modules)
        return self

    def pop(self, key: int | slice) -> Any:
        """Take out a module, or a slice as a container of its own, and return it."""
        found = self[key]
        del self[key]
        return found

    def __iadd__(self, other: Iterable[Module]) -> Self:
        return self.extend(other)

    def _renumber(self, modules: list[Module]) -> None:
        for name, _ in self._placed("module"):
            delattr(self, name)
        for i, module in enumerate(modules):
            self.add_module(str(i), module)

    def _checked(self, modules: Iterable[Module]) -> list[Module]:
        """The modules as a list, if that is what they are; else TypeError."""
        if not isinstance(modules, Iterable):
            raise TypeError(
                f"{type(self).__name__}: expected modules, got {type(modules).__name__}; put them "
                "in a list"
            )
        found = list(modules)
        for i, module in enumerate(found):
            if not isinstance(module, Module):
                raise TypeError(
                    f"{type(self).__name__}: expected modules, number {i} is "
                    f"{type(module).__name__}"
                )
        return found


class Sequential(_Positions):
    """Modules one after the other: ``Sequential(Linear(2, 3), ReLU())``.

    An OrderedDict gives them names: ``Sequential(OrderedDict(first=Linear(2, 3), act=ReLU()))``.
    """

    def __init__(self, *modules: Module | OrderedDict[str, Module]) -> None:
        super().__init__()
        if len(modules) == 1 and isinstance(modules[0], OrderedDict):
            for name, module in modules[0].items():
                self.add_module(name, module)
        else:
            self.extend(modules)  # type: ignore[arg-type]  # checked there

    def forward(self, input: Any) -> Any:
        """``input`` through each module in turn."""
        for module in self._contents():
            input = module(input)
        return input

    def _sliced(self, held: list[tuple[str, Module]]) -> Self:
        return type(self)(OrderedDict(held))

    def __add__(self, other: Sequential) -> Sequential:
        """The modules of both, numbered anew."""
        return Sequential(*self, *other) if isinstance(other, Sequential) else NotImplemented


class ModuleList(_Positions):
    """A list of modules, for a forward that calls them: ``ModuleList([Linear(2, 2)])``."""

    def __init__(self, modules: Iterable[Module] | None = None) -> None:
        super().__init__()
        if modules is not None:
            self.extend(modules)

    def _sliced(self, held: list[tuple[str, Module]]) -> Self:
        made = type(self)()
        made._renumber([module for _, module in held])
        return made

    def __add__(self, other: Iterable[Module]) -> ModuleList:
        """The modules of both."""
        return ModuleList(self).extend(other)

    def __repr__(self) -> str:
        lines, start = [], 0
        for text, group in groupby(map(repr, self)):
            count = len(list(group))
            many = f"({start}-{start + count - 1}): {count} x {text}"
            lines.append(many if count > 1 else f"({start}): {text}")
            start += count
        return self._displayed(lines)


class ModuleDict(Module):
    """Modules by name, for a forward that calls them: ``ModuleDict({"up": Linear(2, 4)})``.

    KeyError for a name that is not there.
    """

    def __init__(
        self, modules: Mapping[str, Module] | Iterable[tuple[str, Module]] | None = None
    ) -> None:
        super().__init__()
        if modules is not None:
            self.update(modules)

    def _contents(self) -> dict[str, Module]:
        return dict(self._placed("module"))

    def __len__(self) -> int:
        return len(self._contents())

    def __iter__(self) -> Iterator[str]:
        return iter(self._contents())

    def __contains__(self, key: str) -> bool:
        return key in self._contents()

    def __getitem__(self, key: str) -> Any:  # of a class that the caller knows
        return self._contents()[key]

    def __setitem__(self, key: str, module: Module) -> None:
        self.update({key: module})

    def __delitem__(self, key: str) -> None:
        if key not in self:
            raise KeyError(key)
        delattr(self, key)

    def keys(self) -> KeysView[str]:
        """The names."""
        return self._contents().keys()

    def values(self) -> ValuesView[Module]:
        """The modules."""
        return self._contents().values()

    def items(self) -> ItemsView[str, Module]:
        """The names with the modules."""
        return self._contents().items()

    def pop(self, key: str) -> Any:
        """Take out a module and return it."""
        found = self[key]
        del self[key]
        return found

    def clear(self) -> None:
        """Take out all modules."""
        for key in self:
            del self[key]

    def update(self, modules: Mapping[str, Module] | Iterable[tuple[str, Module]]) -> None:
        """Add modules by name, all or none; one replaces another of its name.

        TypeError for what is no module, and for no mapping and no pairs; ValueError for a name
        that cannot be one.
        """
        try:
            added = dict(modules)
        except (TypeError, ValueError) as error:
            raise type(error)(
                f"{type(self).__name__}: expected a mapping or pairs of a name and a module: "
                f"{error}"
            ) from error
        for key, module in added.items():
            self._check_place(key, "module", module)
        for key, module in added.items():
            self.add_module(key, module)
