"""The loader, which makes batches of a dataset."""

from __future__ import annotations

import contextvars
import difflib
import inspect
import itertools
import operator
import threading
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import Any

import numpy as np

from tinygrad_mnist import random
from tinygrad_mnist.random import Generator, drawing_from
from tinygrad_mnist.utils.data import workers
from tinygrad_mnist.utils.data.collate import default_collate
from tinygrad_mnist.utils.data.dataset import (
    batch_of,
    check_dataset,
    check_generator,
    checked_flag,
    checked_indices,
)
from tinygrad_mnist.utils.data.order import Order

# What PyTorch's loader needs for its processes, and for copies to a device.
_FOR_PROCESSES = {
    "in_order",
    "multiprocessing_context",
    "persistent_workers",
    "pin_memory",
    "pin_memory_device",
    "timeout",
    "worker_init_fn",
}


class DataLoader:
    """Batches of ``dataset``, which has ``__getitem__`` and ``__len__``.

    ``shuffle`` draws a new order for each pass; ``sampler``, an iterable of positions, gives one
    instead. The last batch may be smaller, or is left out with ``drop_last``. A dataset that makes
    whole batches is asked for them (see ``Dataset``); with others, and where a ``collate_fn`` is
    given, the list of items goes through ``collate_fn``, else ``default_collate``.

    All random numbers come from ``generator``, or one of ``seed``, or else those of
    ``manual_seed``. Each batch has streams of its own, for the transforms and whatever else draws
    numbers while it is made, so that the numbers are the same for any ``num_workers``. Those are
    threads, which begin up to ``num_workers · prefetch_factor`` batches in advance, on the backend
    and in the grad mode of the loop; they end with it. A ``prefetch_factor`` of None is 2.

    TypeError for settings of another type and for unknown ones, ValueError for such out of range.
    """

    def __init__(
        self,
        dataset: Any,
        batch_size: int = 1,
        shuffle: bool | None = False,
        *,
        sampler: Iterable[int] | None = None,
        num_workers: int = 0,
        collate_fn: Callable[[list[Any]], Any] | None = None,
        drop_last: bool = False,
        generator: Generator | None = None,
        seed: int | None = None,
        prefetch_factor: int | None = None,
        **unknown: Any,
    ) -> None:
        _refuse(unknown)
        _check_items(dataset, sampler, collate_fn)
        check_generator("DataLoader", generator)
        self.dataset = dataset
        self.batch_size = _whole("batch_size", batch_size, 1)
        self.shuffle = checked_flag("DataLoader", "shuffle", shuffle)
        self.sampler = sampler
        self.num_workers = _whole("num_workers", num_workers, 0)
        self.collate_fn = collate_fn
        self.drop_last = checked_flag("DataLoader", "drop_last", drop_last)
        self.prefetch_factor = _whole(
            "prefetch_factor", 2 if prefetch_factor is None else prefetch_factor, 1
        )
        if sampler is not None and self.shuffle:
            raise ValueError("DataLoader: shuffle orders the items, and so does sampler; give one")
        if generator is not None and seed is not None:
            raise ValueError("DataLoader: got both a generator and a seed; give one")
        self.generator = generator if seed is None else Generator().manual_seed(seed)

    def __len__(self) -> int:
        """The number of batches of a pass; TypeError where the sampler has no length."""
        items: Any = self.dataset if self.sampler is None else self.sampler
        full, rest = divmod(len(items), self.batch_size)
        return full + bool(rest and not self.drop_last)

    def __iter__(self) -> Iterator[Any]:
        return self.from_batch(0)

    def from_batch(self, start: int) -> Iterator[Any]:
        """A pass without its first ``start`` batches, which are not made; the rest is the same.

        ValueError for a ``start`` below 0. A ``sampler`` that draws from a generator of its own
        gives other positions at each pass.
        """
        start = _whole("start", start, 0)
        generator = self.generator or random.current()
        streams = generator.spawn()
        indices = itertools.islice(enumerate(self._indices(generator, streams), 1), start, None)
        stop = threading.Event()
        make = self._maker(stop)
        jobs = (partial(make, index, streams, i) for i, index in indices)
        if not self.num_workers:
            return map(operator.call, jobs)  # which goes on after an error, unlike a generator
        context = contextvars.copy_context()
        apart = (partial(context.copy().run, job) for job in jobs)
        ahead = self.num_workers * self.prefetch_factor
        return workers.in_order(apart, self.num_workers, ahead, stop)

    def __repr__(self) -> str:
        settings = {
            "batch_size": self.batch_size,
            "shuffle": self.shuffle,
            "num_workers": self.num_workers,
            "drop_last": self.drop_last,
        }
        what = f"{len(self.dataset)} items of {type(self.dataset).__name__}"
        return f"DataLoader({what}, {', '.join(f'{k}={v}' for k, v in settings.items())})"

    def _indices(self, generator: Generator, streams: Generator) -> Iterator[np.ndarray]:
        """The positions of each batch, int64 (n,), which know their order if a device asks for it.

        A sampler is asked batch by batch, and so is the order of a batch all that is known then.
        """
        ahead = getattr(self.dataset, "_on_device", False)
        if self.sampler is not None:
            sampled = self._sampled(self.sampler, drawing_from(streams, 0))
            return (Order(part).batch(0, len(part)) for part in sampled) if ahead else sampled
        order = np.arange(len(self.dataset), dtype=np.int64)
        if self.shuffle:
            generator.numpy().shuffle(order)
        size = self.batch_size
        parts = ((i * size, (i + 1) * size) for i in range(len(self)))
        if ahead:
            return itertools.starmap(Order(order).batch, parts)
        return (order[start:stop] for start, stop in parts)

    def _sampled(self, sampler: Iterable[int], stream: drawing_from) -> Iterator[np.ndarray]:
        """Those that ``sampler`` gives; it draws from ``stream``, as it is asked in advance."""
        least = self.batch_size if self.drop_last else 1
        with stream:
            positions = iter(sampler)
        while True:
            with stream:
                part = list(itertools.islice(positions, self.batch_size))
            if len(part) < least:
                return
            yield checked_indices("DataLoader: sampler", part, len(self.dataset))

    def _maker(self, stop: threading.Event) -> Callable[[np.ndarray, Generator, int], Any]:
        """What makes batch i of the positions ``index``, drawing from child i of ``streams``."""
        whole = batch_of(self.dataset) if self.collate_fn is None else None
        fetch = whole or partial(self._collated, stop=stop)

        def make(index: np.ndarray, streams: Generator, i: int) -> Any:
            if stop.is_set():
                return None
            with drawing_from(streams, i):
                return fetch(index)

        return make

    def _collated(self, index: np.ndarray, stop: threading.Event) -> Any:
        items = []
        for i in index.tolist():
            if stop.is_set():
                return None
            try:
                items.append(self.dataset[i])
            except Exception as error:
                error.add_note(f"DataLoader: at item {i} of the {type(self.dataset).__name__}")
                raise
        return (self.collate_fn or default_collate)(items)


def _refuse(unknown: dict[str, Any]) -> None:
    """TypeError for settings that the loader has not."""
    if unknown:
        hints = [f"{name!r} ({_hint(name)})" for name in unknown]
        raise TypeError(f"DataLoader: unknown settings {', '.join(hints)}")


def _hint(unknown: str) -> str:
    if unknown in _FOR_PROCESSES:
        return "the workers are threads, which need none: leave it out"
    if unknown == "batch_sampler":
        return "give a sampler and a batch_size in its place"
    known = list(inspect.signature(DataLoader).parameters)
    close = difflib.get_close_matches(unknown, known, n=1)
    return f"did you mean {close[0]!r}?" if close else f"known: {known[:-1]}"


def _check_items(dataset: Any, sampler: Any, collate_fn: Any) -> None:
    check_dataset("DataLoader", dataset)
    if sampler is None and not len(dataset):
        raise ValueError("DataLoader: the dataset is empty, expected at least one item")
    if sampler is not None and not hasattr(sampler, "__iter__"):
        raise TypeError(f"DataLoader: sampler must give positions, got {type(sampler).__name__}")
    if collate_fn is not None and not callable(collate_fn):
        raise TypeError(
            f"DataLoader: collate_fn must be a function, got {type(collate_fn).__name__}"
        )


def _whole(name: str, value: Any, least: int) -> int:
    whole = isinstance(value, int | np.integer) and not isinstance(value, bool)
    if not whole or value < least:
        raise ValueError(
            f"DataLoader: {name} must be an integer of at least {least}, got "
            f"{value!r} ({type(value).__name__})"
        )
    return int(value)
