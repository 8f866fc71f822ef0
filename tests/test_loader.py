"""What the loader makes of datasets: batches, orders, threads, and what it refuses."""

from __future__ import annotations

import gc
import os
import signal
import subprocess
import sys
import threading
import time
import traceback
from collections import namedtuple
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from strict_backend import StrictBackend, transfers

import tinygrad_mnist as tg
from tinygrad_mnist import backend as backends
from tinygrad_mnist import random
from tinygrad_mnist.utils.data import (
    DataError,
    DataLoader,
    Dataset,
    ImageDataset,
    Subset,
    TensorDataset,
    default_collate,
    random_split,
)

Pair = namedtuple("Pair", "x y")
WORKERS = [0, 1, 2, 5]


def images(labels: Any = (0, 1, 2)) -> ImageDataset:
    labels = np.asarray(labels)
    return ImageDataset(np.zeros((len(labels), 2, 2), np.uint8), labels)


class Items(Dataset):
    """Item by item: the position, and whatever ``give`` says of it."""

    def __init__(self, count: int, give: Any = lambda i: i) -> None:
        self.count = count
        self.give = give

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> Any:
        return self.give(index)


@pytest.fixture(autouse=True)
def no_thread_is_left() -> Iterator[None]:
    yield
    assert [t.name for t in threading.enumerate() if t.name.startswith("DataLoader")] == []


# ---- batches


@pytest.mark.parametrize("kind", [int, np.int64, np.int32, np.uint8])
def test_a_batch_size_is_any_integer(kind: Any) -> None:
    loader = DataLoader(images(), kind(2))
    assert [len(y) for _, y in loader] == [2, 1]
    assert len(loader) == 2


def test_a_loader_shows_its_settings() -> None:
    assert repr(DataLoader(images(), 2, shuffle=True)) == (
        "DataLoader(3 items of ImageDataset, batch_size=2, shuffle=True, num_workers=0, "
        "drop_last=False)"
    )


@pytest.mark.parametrize("num_workers", WORKERS)
@pytest.mark.parametrize("drop_last", [False, True])
def test_items_come_in_order_whoever_makes_them(num_workers: int, drop_last: bool) -> None:
    slow_first = Items(23, lambda i: time.sleep(0.002 * (i < 8)) or i)
    loader = DataLoader(slow_first, 4, num_workers=num_workers, drop_last=drop_last)
    found = [batch.tolist() for batch in loader]
    assert found == [list(range(i, min(i + 4, 23))) for i in range(0, 20 if drop_last else 23, 4)]
    assert len(loader) == len(found)


@pytest.mark.parametrize("num_workers", WORKERS)
def test_whole_batches_are_those_of_the_items(num_workers: int) -> None:
    pixels = np.arange(40, dtype=np.uint8).reshape(10, 2, 2)
    dataset = ImageDataset(pixels, np.arange(10) % 3, 0.3, 0.7)
    whole = DataLoader(dataset, 4, shuffle=True, seed=3, num_workers=num_workers)
    single = DataLoader(dataset, 4, shuffle=True, seed=3, collate_fn=default_collate)
    for found, expected in zip(whole, single, strict=True):
        assert type(found) is type(expected)
        for a, b in zip(found, expected, strict=True):
            assert a.dtype == b.dtype
            assert a.numpy().tobytes() == b.numpy().tobytes()


def test_a_list_is_a_dataset() -> None:
    assert [b.tolist() for b in DataLoader([5, 6, 7], 2)] == [[5, 6], [7]]


def test_a_collate_fn_gets_the_items() -> None:
    assert list(DataLoader(Items(3), 2, collate_fn=tuple)) == [(0, 1), (2,)]
    (batch,) = DataLoader(TensorDataset(tg.arange(2)), 2, collate_fn=len)
    assert batch == 2


def test_drop_last_may_leave_nothing() -> None:
    loader = DataLoader(Items(3), 10, drop_last=True)
    assert len(loader) == 0
    assert list(loader) == []


# ---- samplers and seeds


@pytest.mark.parametrize("whole", [False, True])
def test_a_sampler_gives_the_positions(whole: bool) -> None:
    dataset = TensorDataset(tg.arange(10)) if whole else Items(10, lambda i: (i,))
    loader = DataLoader(dataset, 3, sampler=[9, 0, 0, 4])
    assert [batch.tolist() for (batch,) in loader] == [[9, 0, 0], [4]]
    assert len(loader) == 2


def test_a_sampler_may_have_no_end() -> None:
    class Forever:
        def __iter__(self) -> Iterator[int]:
            while True:
                yield int(random.generator().integers(10))

    def first(num_workers: int) -> list[list[int]]:
        tg.manual_seed(2)
        loader = DataLoader(Items(10), 3, sampler=Forever(), num_workers=num_workers)
        found = []
        for batch in loader:
            found.append(batch.tolist())
            random.generator().random()  # what the loop draws does not change the order
            if len(found) == 4:
                break
        return found

    assert first(0) == first(3)
    with pytest.raises(TypeError, match="Forever"):
        len(DataLoader(Items(10), 3, sampler=Forever()))


@pytest.mark.parametrize("position", [10, -11])
@pytest.mark.parametrize("num_workers", [0, 2])
def test_a_position_out_of_range_is_an_error(position: int, num_workers: int) -> None:
    loader = DataLoader(Items(10), 2, sampler=[1, 2, position], num_workers=num_workers)
    with pytest.raises(IndexError, match=f"sampler: found index {position}, expected -10 to 9"):
        list(loader)


@pytest.mark.parametrize("dataset", [Items(10, lambda i: [i]), TensorDataset(tg.arange(10))])
def test_a_negative_position_is_counted_from_the_end(dataset: Any) -> None:
    ((batch,),) = DataLoader(dataset, 3, sampler=[-1, 0, -10])
    assert batch.tolist() == [9, 0, 0]


def drawn(dataset: Any, **settings: Any) -> list[Any]:
    """Two passes, while the loop draws numbers of its own."""
    found = []
    loader = DataLoader(dataset, 4, shuffle=True, **settings)
    for _ in range(2):
        for batch in loader:
            found.append([x.tolist() for x in batch])
            random.generator().random()
            tg.rand(2)
    return found


def noisy(index: int) -> tuple[float, Any, int]:
    return random.generator().random(), tg.randn(2), index


@pytest.mark.parametrize("given", ["seed", "generator", "program"])
def test_the_same_seed_gives_the_same_numbers_for_any_workers(given: str) -> None:
    def settings(seed: int) -> dict[str, Any]:
        tg.manual_seed(seed if given == "program" else 99)
        if given == "program":
            return {}
        return {given: seed if given == "seed" else tg.Generator().manual_seed(seed)}

    dataset = Items(17, noisy)
    first = drawn(dataset, **settings(1))
    for num_workers in WORKERS:
        assert drawn(dataset, num_workers=num_workers, **settings(1)) == first
    assert drawn(dataset, **settings(2)) != first
    assert first[:5] != first[5:]  # each pass has its own
    noise = [x for batch in first for x in batch[0]]
    assert len(set(noise)) == len(noise)


def test_making_batches_draws_nothing_of_the_program_but_the_order() -> None:
    tg.manual_seed(3)
    expected = random.generator().random()
    tg.manual_seed(3)
    list(DataLoader(Items(6, noisy), 2, num_workers=2))
    assert random.generator().random() == expected


# ---- threads


@pytest.mark.parametrize("num_workers", [0, 3])
def test_the_modes_of_the_loop_hold_where_items_are_made(num_workers: int) -> None:
    def modes(index: int) -> tuple[bool, str]:
        return tg.is_grad_enabled(), tg.zeros(1).backend.name

    dataset = Items(4, modes)
    with tg.use_backend("numpy"), tg.no_grad():
        found = list(DataLoader(dataset, 2, num_workers=num_workers))
    assert [(g.tolist(), b) for g, b in found] == [([False, False], ["numpy", "numpy"])] * 2
    assert found[0][0].backend.name == "numpy"
    (batch, _), *_ = DataLoader(dataset, 2, num_workers=num_workers)
    assert batch.tolist() == [True, True]
    assert batch.backend is backends.current()


def test_work_runs_ahead_by_so_many_batches() -> None:
    started: list[int] = []
    loader = DataLoader(Items(100, lambda i: started.append(i) or i), num_workers=2)
    batches = iter(loader)
    assert started == []
    next(batches)
    deadline = time.monotonic() + 10
    while len(started) < 5 and time.monotonic() < deadline:
        time.sleep(0.001)
    time.sleep(0.02)
    assert sorted(started) == [0, 1, 2, 3, 4]  # the one given and 2 · prefetch_factor
    del batches


def test_threads_work_at_the_same_time() -> None:
    together = threading.Barrier(3)
    loader = DataLoader(Items(6, lambda i: together.wait(10)), num_workers=3)
    assert sorted(int(batch.item()) for batch in loader) == [0, 0, 1, 1, 2, 2]


def fails(index: int) -> int:
    if index == 5:
        raise LookupError("no such digit")
    return index


@pytest.mark.parametrize("num_workers", WORKERS)
def test_an_error_comes_in_its_turn_with_its_trace_and_item(num_workers: int) -> None:
    found = []
    with pytest.raises(LookupError, match="no such digit") as caught:
        for batch in DataLoader(Items(20, fails), 2, num_workers=num_workers):
            found += batch.tolist()
    assert found == [0, 1, 2, 3]
    assert caught.value.__notes__ == ["DataLoader: at item 5 of the Items"]
    assert "fails" in [frame.name for frame in traceback.extract_tb(caught.value.__traceback__)]


@pytest.mark.parametrize("num_workers", WORKERS)
def test_who_asks_again_after_an_error_gets_the_next_batch(num_workers: int) -> None:
    found: list[Any] = []
    batches = iter(DataLoader(Items(9, fails), 2, num_workers=num_workers))
    for _ in range(5):
        try:
            found.append(next(batches).tolist())
        except LookupError:
            found.append("error")
    assert found == [[0, 1], [2, 3], "error", [6, 7], [8]]
    assert next(batches, None) is None


def leave_by_break(loader: DataLoader) -> None:
    for _ in loader:
        break


def leave_by_error(loader: DataLoader) -> None:
    with pytest.raises(ZeroDivisionError):
        for _ in loader:
            _ = 1 / 0


def leave_by_forgetting(loader: DataLoader) -> None:
    next(iter(loader))


@pytest.mark.parametrize("leave", [leave_by_break, leave_by_error, leave_by_forgetting])
def test_leaving_the_loop_ends_the_threads_at_once(leave: Any) -> None:
    made: list[int] = []
    leave(
        DataLoader(
            Items(5000, lambda i: time.sleep(0.001) or made.append(i) or i), 5, num_workers=2
        )
    )
    assert [t for t in threading.enumerate() if t.name.startswith("DataLoader")] == []
    count = len(made)
    time.sleep(0.02)
    assert len(made) == count < 100


@pytest.mark.skipif(os.name != "posix", reason="a wait is interrupted by POSIX signals only")
def test_an_interrupt_ends_a_wait_and_the_batches_half_made() -> None:
    signal.signal(signal.SIGINT, signal.default_int_handler)  # in the background it is ignored
    made: list[int] = []

    def give(index: int) -> int:
        if index == 10:
            os.kill(os.getpid(), signal.SIGINT)
        time.sleep(0.001)
        made.append(index)
        return index

    with pytest.raises(KeyboardInterrupt):
        next(iter(DataLoader(Items(20_000, give), 10_000, num_workers=2)))
    assert len(made) < 1000


def test_the_garbage_collector_may_end_a_loop_in_one_of_its_threads() -> None:
    go = threading.Event()

    def give(index: int) -> int:
        if index > 0:
            go.wait(10)
            gc.collect()
        return index

    batches = iter(DataLoader(Items(50, give), num_workers=2))
    next(batches)
    cycle: list[Any] = [batches]
    cycle.append(cycle)
    gc.disable()
    try:
        del batches, cycle
        go.set()
        deadline = time.monotonic() + 10
        while time.monotonic() < deadline:
            if not any(t.name.startswith("DataLoader") for t in threading.enumerate()):
                break
            time.sleep(0.001)
    finally:
        gc.enable()


def test_a_program_ends_with_a_loop_half_done() -> None:
    script = (
        "import time\n"
        "from tinygrad_mnist.utils.data import DataLoader\n"
        "class Slow(list):\n"
        "    def __getitem__(self, i):\n"
        "        time.sleep(0.01 if i < 2 else 30)\n"
        "        return i\n"
        "batches = iter(DataLoader(Slow(range(20)), num_workers=2))\n"
        "print(next(batches).item())\n"
    )
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", script],
        env={**os.environ, "TINYGRAD_MNIST_BACKEND": "numpy"},
        capture_output=True,
        text=True,
        timeout=25,
        check=True,
    )
    assert (done.stdout, done.stderr) == ("0\n", "")


# ---- collating

STRUCTURES = [
    [1, 2],
    [True, False],
    [1.5, 2.5],
    ["a", "b"],
    [b"a", b"b"],
    [np.float32(1), np.float32(2)],
    [np.int64(1), np.int64(2)],
    [np.ones((2, 3), np.float32), np.zeros((2, 3), np.float32)],
    [np.arange(3), np.arange(3)],
    [(1, 2.0), (3, 4.0)],
    [[1, 2.0], [3, 4.0]],
    [Pair(1, "a"), Pair(2, "b")],
    [{"x": 1, "y": (np.ones(2), "s")}, {"x": 2, "y": (np.zeros(2), "t")}],
    [(np.ones((1, 4), np.float32), 3), (np.ones((1, 4), np.float32), 4)],
]


@pytest.mark.parametrize("batch", STRUCTURES, ids=str)
def test_items_are_collated_as_in_pytorch(batch: list[Any]) -> None:
    pytest.importorskip("torch", reason="PyTorch is not installed")
    from torch.utils.data import default_collate as torchs  # noqa: PLC0415

    _assert_same(default_collate(batch), torchs(batch))


def _assert_same(found: Any, expected: Any) -> None:
    if hasattr(expected, "numpy"):
        assert isinstance(found, tg.Tensor)
        assert found.dtype == expected.numpy().dtype
        assert found.tolist() == expected.tolist()
    elif isinstance(expected, dict):
        assert list(found) == list(expected)
        _assert_same(list(found.values()), list(expected.values()))
    elif isinstance(expected, list | tuple) and not isinstance(expected[0], str | bytes):
        assert type(found) is type(expected)
        for a, b in zip(found, expected, strict=True):
            _assert_same(a, b)
    else:
        assert list(found) == list(expected)


def test_tensors_are_stacked_with_their_gradients() -> None:
    x = tg.ones(3, requires_grad=True)
    batch = default_collate([x, 2 * x])
    batch.sum().backward()
    assert x.grad is not None
    assert x.grad.tolist() == [3, 3, 3]


@pytest.mark.parametrize(
    ("batch", "error", "message"),
    [
        ([], ValueError, "expected at least one item, got none"),
        (
            [np.zeros(2), np.zeros(2), np.zeros(3)],
            ValueError,
            r"item 2 of the batch has shape \(3,\), the first has \(2,\); give the DataLoader a",
        ),
        ([tg.zeros(2), tg.zeros(1)], ValueError, r"item 1 of the batch has shape \(1,\)"),
        ([(1, 2), (1,)], ValueError, "item 1 of the batch has 1 members, the first has 2"),
        ([{"a": 1}, {"b": 1}], ValueError, r"item 1 of the batch has keys \['b'\]"),
        ([1, "a"], TypeError, "item 1 of the batch is str, the first int"),
        ([object()], TypeError, "found object, expected tensors, arrays"),
        ([None, None], TypeError, r"found NoneType, .*transform end in ToTensor\(\)"),
    ],
)
def test_items_that_make_no_batch_are_refused(
    batch: list[Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=f"default_collate: {message}"):
        default_collate(batch)


# ---- what is refused


@pytest.mark.parametrize(
    ("size", "message"),
    [
        (0, r"integer of at least 1, got 0 \(int\)"),
        (np.int64(-1), r"integer of at least 1, got np.int64\(-1\) \(int64\)"),
        (2.0, r"integer of at least 1, got 2\.0 \(float\)"),
        ("2", r"integer of at least 1, got '2' \(str\)"),
        (None, r"integer of at least 1, got None \(NoneType\)"),
    ],
)
def test_another_batch_size_is_refused_with_its_type(size: Any, message: str) -> None:
    with pytest.raises(ValueError, match=f"DataLoader: batch_size must be an {message}"):
        DataLoader(images(), size)


@pytest.mark.parametrize(
    ("settings", "error", "message"),
    [
        ({"num_workers": -1}, ValueError, "num_workers must be an integer of at least 0, got -1"),
        ({"num_workers": 1.5}, ValueError, "num_workers must be an integer"),
        ({"prefetch_factor": 0}, ValueError, "prefetch_factor must be an integer of at least 1"),
        ({"shuffle": True, "sampler": [0]}, ValueError, "so does sampler; give one"),
        ({"seed": -1}, ValueError, "manual_seed: expected 0 to"),
        ({"seed": 1, "generator": tg.Generator()}, ValueError, "both a generator and a seed"),
        ({"generator": np.random.default_rng()}, TypeError, "expected a tinygrad_mnist.Generator"),
        ({"dataset": None}, TypeError, "a dataset with __getitem__ and __len__, got NoneType"),
        ({"dataset": 3}, TypeError, r"got int; TensorDataset\(x, y\)"),
        ({"dataset": []}, ValueError, "the dataset is empty, expected at least one item"),
        ({"sampler": [0.5]}, TypeError, "sampler: expected a sequence of integers"),
        ({"sampler": 3}, TypeError, "DataLoader: sampler must give positions, got int"),
        ({"collate_fn": 3}, TypeError, "DataLoader: collate_fn must be a function, got int"),
        ({"shuffle": "yes"}, TypeError, "DataLoader: shuffle must be True or False, got 'yes'"),
        ({"drop_last": 0.5}, TypeError, "DataLoader: drop_last must be True or False, got 0.5"),
        ({"pin_memory": True}, TypeError, r"'pin_memory' \(the workers are threads, .* leave it"),
        ({"timeout": 3}, TypeError, "'timeout' .*leave it out"),
        ({"worker_init_fn": print}, TypeError, "'worker_init_fn' .*leave it out"),
        ({"persistent_workers": True}, TypeError, "'persistent_workers' .*leave it out"),
        ({"batch_sampler": [[0]]}, TypeError, "'batch_sampler' .*sampler and a batch_size in its"),
        ({"num_worker": 2}, TypeError, r"'num_worker' \(did you mean 'num_workers'\?\)"),
        ({"xyz": 2}, TypeError, r"'xyz' \(known: \['dataset', .*'prefetch_factor'\]\)"),
    ],
)
def test_settings_that_cannot_be_are_refused(
    settings: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        list(DataLoader(**{"dataset": Items(3), **settings}))


def test_settings_may_be_pytorchs_defaults() -> None:
    loader = DataLoader(Items(3), 2, shuffle=None, drop_last=np.bool_(True), prefetch_factor=None)
    assert (loader.shuffle, loader.drop_last, loader.prefetch_factor) == (False, True, 2)
    assert [b.tolist() for b in loader] == [[0, 1]]


@pytest.mark.parametrize("dtype", [np.uint8, np.int8, np.int32, np.int64, np.uint64])
def test_labels_are_of_any_integer_dtype(dtype: Any) -> None:
    found = images(np.array([0, 5, 9], dtype)).labels
    assert found.dtype == np.int64
    assert found.tolist() == [0, 5, 9]


@pytest.mark.parametrize("labels", [[1.7, 0.0], [float("nan"), 1.0], [1.0, 2.0], [True, False]])
def test_labels_that_are_no_integers_are_refused(labels: list[Any]) -> None:
    with pytest.raises(DataError, match=r"expected integer labels, got (float64|bool); cast them"):
        images(labels)


@pytest.mark.parametrize("label", [-1, 2**31, np.uint64(2**63)])
def test_a_label_that_is_no_class_is_refused(label: int) -> None:
    with pytest.raises(DataError, match=f"expected labels from 0 .*got {label} at position 1"):
        images(np.array([0, label], getattr(label, "dtype", np.int64)))


@pytest.mark.parametrize("std", [0.0, -1.0, float("nan")])
def test_a_deviation_must_be_above_zero(std: float) -> None:
    with pytest.raises(DataError, match="std above 0"):
        ImageDataset(np.zeros((2, 3, 3), np.uint8), np.zeros(2, np.uint8), 0.0, std)


def test_a_subset_of_whole_batches_makes_whole_batches() -> None:
    asked: list[int] = []

    class Whole(Items):
        def batch_at(self, index: np.ndarray) -> Any:
            asked.append(len(index))
            return tg.from_numpy(index)

    subset = Subset(Subset(Whole(10), [9, 7, 5, 3]), [2, 0, 1])
    assert [b.tolist() for b in DataLoader(subset, 2)] == [[5, 9], [7]]
    assert asked == [2, 1]


class Doubled(TensorDataset):
    def __getitem__(self, index: Any) -> Any:
        return super().__getitem__(index)[0] * 2


class Counted(Doubled):
    def batch_at(self, index: np.ndarray) -> Any:
        return tg.from_numpy(-index)


class Named(Subset):
    def __getitem__(self, index: Any) -> Any:
        return "item", super().__getitem__(index)


class Helped(Items):
    def batch(self, size: int) -> Any:
        raise AssertionError("a method of the user's own")


@pytest.mark.parametrize(
    ("dataset", "expected"),
    [
        (Doubled(tg.arange(3)), [0, 2, 4]),
        (Subset(Doubled(tg.arange(3)), [2, 0]), [4, 0]),
        (Named(Items(3), [2, 1]), [["item", "item"], [2, 1]]),
        (Named(TensorDataset(tg.arange(3)), [2, 1]), [["item", "item"], [[2, 1]]]),
        (Counted(tg.arange(3)), [0, -1, -2]),  # the whole batches are the last word
        (Helped(3), [0, 1, 2]),
    ],
)
def test_the_last_word_on_an_item_is_the_loaders(dataset: Any, expected: Any) -> None:
    (batch,) = DataLoader(dataset, 3)
    assert _listed(batch) == expected


def _listed(batch: Any) -> Any:
    if isinstance(batch, tg.Tensor):
        return batch.tolist()
    return [_listed(x) for x in batch] if isinstance(batch, list) else batch


def test_a_dataset_of_items_has_no_whole_batches() -> None:
    assert Subset(Items(3), [0]).batch_at is None


# ---- on a device


def _pixels(backend: Any) -> ImageDataset:
    drawn = np.random.default_rng(0)
    pixels = drawn.integers(0, 256, (50, 3, 3), dtype=np.uint8)
    return ImageDataset(pixels, drawn.integers(0, 10, 50), 0.1, 0.3, backend)


def _numbers(backend: Any) -> TensorDataset:
    return TensorDataset(tg.arange(50, backend=backend), tg.ones(50, 2, backend=backend))


def _nested(backend: Any) -> Subset:
    return Subset(Subset(_pixels(backend), np.arange(-1, -41, -1)), range(0, 40, 2))


def _part(backend: Any) -> Subset:
    return random_split(_numbers(backend), [0.7, 0.3], tg.Generator().manual_seed(3))[0]


def _passes(loader: DataLoader, start: int = 0) -> Any:
    """Two passes, the first from batch ``start`` on."""
    return [_listed(b) for b in loader.from_batch(start)], [_listed(b) for b in loader]


@pytest.mark.parametrize("settings", [{}, {"shuffle": True, "seed": 2}])
@pytest.mark.parametrize("workers", [0, 3])
@pytest.mark.parametrize("make", [_pixels, _numbers, _nested, _part])
def test_a_device_is_sent_the_order_of_a_pass_and_no_more(
    strict: StrictBackend, make: Any, workers: int, settings: Any
) -> None:
    settings = {**settings, "num_workers": workers, "drop_last": True}
    expected = _passes(DataLoader(make("numpy"), 8, **settings), 1)
    dataset = make(strict)
    loader = DataLoader(dataset, 8, **settings)
    list(loader)  # the labels go there with the first
    for _ in range(2):
        with transfers(strict) as moved:
            batches = list(loader)
        assert moved == [f"to the device: ({len(dataset)},)"]
        assert all(x.backend is strict for x in batches[0])
    assert _passes(DataLoader(dataset, 8, **settings), 1) == expected


def test_a_sampler_sends_each_batch_as_it_is_asked(strict: StrictBackend) -> None:
    loaders = [DataLoader(_numbers(b), 2, sampler=[3, 1, 2]) for b in (strict, "numpy")]
    with transfers(strict) as moved:
        batches = list(loaders[0])
    assert moved == ["to the device: (2,)", "to the device: (1,)"]  # for both tensors
    assert _listed(batches) == _listed(list(loaders[1]))


def test_an_index_that_somebody_changed_is_taken_as_it_is(strict: StrictBackend) -> None:
    class Backwards(TensorDataset):
        def batch_at(self, index: np.ndarray) -> Any:
            index[:] = index[::-1].copy()
            return super().batch_at(index)

    class Next(TensorDataset):
        def batch_at(self, index: np.ndarray) -> Any:
            return super().batch_at((index + 1) % len(self))

    for kind, expected in ((Backwards, [2, 1, 0, 5, 4, 3]), (Next, [1, 2, 3, 4, 5, 0])):
        for backend in (strict, "numpy"):
            found = DataLoader(kind(tg.arange(6, backend=backend)), 3)
            assert [i for (batch,) in found for i in batch.tolist()] == expected
            subset = DataLoader(Subset(found.dataset, range(6)), 3)
            assert [i for (batch,) in subset for i in batch.tolist()] == expected


def test_a_dataset_of_ones_own_is_given_plain_arrays(strict: StrictBackend) -> None:
    class Whole(Items):
        def batch_at(self, index: np.ndarray) -> Any:
            assert type(index) is np.ndarray
            return tg.from_numpy(index)

    with tg.use_backend(strict):
        for dataset in (Whole(4), Subset(Whole(4), range(4))):
            assert [b.tolist() for b in DataLoader(dataset, 3)] == [[0, 1, 2], [3]]


def test_labels_that_are_assigned_go_to_the_device(strict: StrictBackend) -> None:
    dataset = _pixels(strict)
    list(DataLoader(dataset, 50))
    dataset.labels = dataset.labels[::-1].copy()
    (batch,) = DataLoader(dataset, 50)
    assert batch[1].tolist() == dataset.labels.tolist()


def test_a_pass_keeps_no_memory_of_a_device(strict: StrictBackend) -> None:
    def tensors() -> int:
        return sum(type(x) is tg.Tensor for x in gc.get_objects())

    dataset = _part(strict)
    gc.collect()
    gc.disable()
    try:
        before = tensors()
        for _ in DataLoader(dataset, 8):
            pass
        del _
        assert tensors() == before
    finally:
        gc.enable()
