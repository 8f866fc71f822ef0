"""The loader, which makes batches of a dataset."""

from __future__ import annotations

import contextvars
import itertools
import threading
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import Any

import numpy as np

from tinygrad_mnist import random
from tinygrad_mnist.random import Generator, drawing_from
from tinygrad_mnist.utils.data import workers
from tinygrad_mnist.utils.data.collate import default_collate
from tinygrad_mnist.utils.data.dataset import batch_of, checked_indices


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
    and in the grad mode of the loop; they end with it.
    """

    def __init__(
        self,
        dataset: Any,
        batch_size: int = 1,
        shuffle: bool = False,
        *,
        sampler: Iterable[int] | None = None,
        num_workers: int = 0,
        collate_fn: Callable[[list[Any]], Any] | None = None,
        drop_last: bool = False,
        generator: Generator | None = None,
        seed: int | None = None,
        prefetch_factor: int = 2,
    ) -> None:
        _check_dataset(dataset, sampler)
        _check_generator(generator, seed)
        if sampler is not None and shuffle:
            raise ValueError("DataLoader: shuffle orders the items, and so does sampler; give one")
        self.dataset = dataset
        self.batch_size = _whole("batch_size", batch_size, 1)
        self.shuffle = shuffle
        self.sampler = sampler
        self.num_workers = _whole("num_workers", num_workers, 0)
        self.collate_fn = collate_fn
        self.drop_last = drop_last
        self.generator = generator if seed is None else Generator().manual_seed(seed)
        self.prefetch_factor = _whole("prefetch_factor", prefetch_factor, 1)

    def __len__(self) -> int:
        """The number of batches of a pass; TypeError where the sampler has no length."""
        items: Any = self.dataset if self.sampler is None else self.sampler
        full, rest = divmod(len(items), self.batch_size)
        return full + bool(rest and not self.drop_last)

    def __iter__(self) -> Iterator[Any]:
        generator = self.generator or random.current()
        streams = generator.spawn()
        indices = self._indices(generator, streams)
        stop = threading.Event()
        make = self._maker(stop)
        jobs = (partial(make, index, streams, i) for i, index in enumerate(indices, 1))
        if not self.num_workers:
            return (job() for job in jobs)
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
        """The positions of each batch, int64 (n,)."""
        if self.sampler is not None:
            return self._sampled(self.sampler, drawing_from(streams, 0))
        order = np.arange(len(self.dataset), dtype=np.int64)
        if self.shuffle:
            generator.numpy().shuffle(order)
        size = self.batch_size
        return (order[i * size : (i + 1) * size] for i in range(len(self)))

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


def _check_dataset(dataset: Any, sampler: Any) -> None:
    if not (hasattr(dataset, "__getitem__") and hasattr(dataset, "__len__")):
        raise TypeError(
            "DataLoader: expected a dataset with __getitem__ and __len__, got "
            f"{type(dataset).__name__}; TensorDataset(x, y) makes one of tensors"
        )
    if sampler is None and not len(dataset):
        raise ValueError("DataLoader: the dataset is empty, expected at least one item")


def _check_generator(generator: Any, seed: Any) -> None:
    if generator is not None and not isinstance(generator, Generator):
        raise TypeError(
            f"DataLoader: expected a tinygrad_mnist.Generator, got {type(generator).__name__}"
        )
    if generator is not None and seed is not None:
        raise ValueError("DataLoader: got both a generator and a seed; give one")


def _whole(name: str, value: Any, least: int) -> int:
    whole = isinstance(value, int | np.integer) and not isinstance(value, bool)
    if not whole or value < least:
        raise ValueError(
            f"DataLoader: {name} must be an integer of at least {least}, got "
            f"{value!r} ({type(value).__name__})"
        )
    return int(value)
