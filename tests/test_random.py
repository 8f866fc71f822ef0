"""Generators: their streams, their children, and which one is in use."""

from __future__ import annotations

import contextvars
from typing import Any

import numpy as np
import pytest

import tinygrad_mnist as tg
from tinygrad_mnist import random
from tinygrad_mnist.random import drawing_from


def test_the_host_draws_what_numpy_draws_from_the_seed() -> None:
    expected = np.random.default_rng(7).integers(0, 1000, 20)
    assert tg.Generator().manual_seed(7).numpy().integers(0, 1000, 20).tolist() == expected.tolist()
    tg.manual_seed(7)
    assert random.generator().integers(0, 1000, 20).tolist() == expected.tolist()


def test_the_keys_are_these() -> None:
    """Trainings are told by their seeds: other keys would be other numbers."""
    generator = tg.Generator().manual_seed(3)
    assert [generator.next_key() for _ in range(2)] == [
        13592992832856903821,
        2554043094958247610,
    ]


def test_a_seed_starts_all_streams_again() -> None:
    generator = tg.Generator().manual_seed(5)

    def draws() -> list[float]:
        spawned = generator.spawn()
        return [generator.next_key(), generator.numpy().random(), spawned.numpy().random()]

    first = draws()
    assert draws() != first
    assert generator.manual_seed(5) is generator
    assert draws() == first
    assert generator.initial_seed() == 5
    assert repr(generator) == "Generator(seed=5)"


def test_a_new_generator_starts_as_the_program_does() -> None:
    tg.manual_seed(0)
    assert tg.Generator().next_key() == random.next_key().fn()


def test_children_differ_and_leave_their_parent_alone() -> None:
    parent, other = tg.Generator().manual_seed(1), tg.Generator().manual_seed(1)
    children = [parent.child(i) for i in range(100)]
    assert len({child.initial_seed() for child in children}) == 100
    assert parent.child(3).numpy().random() == children[3].numpy().random()
    assert parent.spawn().initial_seed() == parent.child(1).initial_seed()
    assert parent.spawn().initial_seed() == parent.child(2).initial_seed()
    assert parent.numpy().random() == other.numpy().random()
    assert parent.next_key() == other.next_key()


def test_every_draw_of_a_block_is_of_the_child() -> None:
    def draws() -> list[Any]:
        return [tg.rand(3).tolist(), tg.randperm(10).tolist(), random.generator().random()]

    tg.manual_seed(0)
    outside = draws()
    tg.manual_seed(0)
    streams = tg.Generator().manual_seed(9)
    with drawing_from(streams, 4):
        inside = draws()
        assert random.current().initial_seed() == streams.child(4).initial_seed()
    assert draws() == outside  # the program's streams went on as if nothing had been
    assert inside != outside
    with drawing_from(streams, 4):
        assert draws() == inside
    with drawing_from(streams, 5):
        assert draws() != inside


def test_a_seed_inside_a_block_is_of_the_block() -> None:
    tg.manual_seed(1)
    with drawing_from(tg.Generator(), 1):
        tg.manual_seed(2)
        assert tg.initial_seed() == 2
    assert tg.initial_seed() == 1


def test_a_block_is_of_its_context_alone() -> None:
    tg.manual_seed(1)
    apart = contextvars.copy_context()
    with drawing_from(tg.Generator(), 1):
        assert apart.run(tg.initial_seed) == 1
        assert tg.initial_seed() != 1


@pytest.mark.parametrize(
    ("seed", "error"),
    [(-1, ValueError), (2**64, ValueError), (1.0, TypeError), (True, TypeError), ("1", TypeError)],
)
def test_a_seed_that_is_none_changes_nothing(seed: Any, error: type[Exception]) -> None:
    generator = tg.Generator().manual_seed(4)
    with pytest.raises(error, match="manual_seed: expected"):
        generator.manual_seed(seed)
    assert generator.initial_seed() == 4
