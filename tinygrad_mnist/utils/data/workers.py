"""Threads that work ahead of a loop and hand over their results in order."""

from __future__ import annotations

import sys
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from queue import SimpleQueue
from typing import Any

from tinygrad_mnist.autograd.graph import is_grad_enabled, set_grad_enabled

Job = Callable[[], Any]
Answer = SimpleQueue[tuple[Any, BaseException | None]]  # takes one
Todo = SimpleQueue[tuple[Job, Answer] | None]


def in_order(jobs: Iterable[Job], threads: int, ahead: int, stop: threading.Event) -> Iterator[Any]:
    """The result of each job in the order of ``jobs``, of which ``ahead`` are begun in advance.

    What a job raises is raised here, in its turn; who asks again gets the next one's result.
    However the loop ends, by a break, an error or the end of the iterator's life, ``stop`` is set,
    on which a job should return, and the threads have ended before the program goes on.
    """
    # mapped, as a generator would end with the first error
    return map(_result, _answers(jobs, threads, ahead, stop))


def _answers(
    jobs: Iterable[Job], threads: int, ahead: int, stop: threading.Event
) -> Iterator[Answer]:
    """Where the result of each job is, or will be."""
    todo: Todo = SimpleQueue()
    pending: deque[Answer] = deque()
    grad = is_grad_enabled()
    team = [
        threading.Thread(target=_work, args=(todo, grad), name=f"DataLoader-{i}", daemon=True)
        for i in range(threads)
    ]
    try:
        for thread in team:
            thread.start()
        for job in jobs:
            answer: Answer = SimpleQueue()
            todo.put((job, answer))
            pending.append(answer)
            if len(pending) > ahead:
                yield pending.popleft()
        while pending:
            yield pending.popleft()
    finally:
        stop.set()
        _end(team, todo)


def _work(todo: Todo, grad: bool) -> None:
    set_grad_enabled(grad)
    while (entry := todo.get()) is not None:
        job, answer = entry
        try:
            answer.put((job(), None))
        except BaseException as error:  # noqa: BLE001  the loop raises it
            answer.put((None, error))


def _result(answer: Answer) -> Any:
    value, error = answer.get()
    if error is None:
        return value
    try:
        raise error
    finally:
        del error  # which would keep this frame, and this frame it


def _end(team: list[threading.Thread], todo: Todo) -> None:
    """Let the threads finish what they have begun, and wait for them."""
    for _ in team:
        todo.put(None)
    if sys.is_finalizing():
        return  # at the program's end they stand still
    for thread in team:
        # the garbage collector may end the loop in any thread, in one of these too
        if thread.ident is not None and thread is not threading.current_thread():
            thread.join()
