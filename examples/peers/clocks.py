"""How long a step takes: on a card by its events, elsewhere by the clock on the wall."""

import time
from collections.abc import Callable
from typing import Any, NamedTuple

Run = Callable[[], Any]


class Times(NamedTuple):
    """Of one call of many, in microseconds: on the device, on the wall, and to ask for it."""

    device: float
    wall: float
    issue: float


class Clock:
    """Times calls one after the other, from an idle device until it is idle again.

    Without events, what the device takes is what the wall does: with many calls the wait at the
    end is nothing beside them.
    """

    def __init__(
        self,
        wait: Callable[[Any], None],
        event: Callable[[], Any] | None = None,
        between: Any = None,
    ) -> None:
        """``wait`` waits for a call's result, ``event()`` records an event on the stream that
        computes, and ``between`` gives the microseconds from one event to another.
        """
        self.wait = wait
        self.event = event
        self.between = between

    def time(self, run: Run, repeats: int) -> Times:
        """The mean of ``repeats`` calls."""
        self.wait(None)
        first = self.event and self.event()
        started = time.perf_counter()
        for _ in range(repeats):
            result = run()
        issued = time.perf_counter()
        last = self.event and self.event()
        self.wait(result)
        ended = time.perf_counter()
        wall = (ended - started) * 1e6
        device = wall if last is None else self.between(first, last)
        return Times(device / repeats, wall / repeats, (issued - started) * 1e6 / repeats)

    def fitting(self, run: Run, seconds: float, least: int = 3) -> int:
        """How many calls fit into ``seconds``, at least so many."""
        one = self.time(run, least).wall
        return max(least, min(20_000, int(seconds * 1e6 / max(one, 1e-3))))


def clock_of_cupy(xp: Any) -> Clock:
    """The clock of CuPy's current device and stream."""

    def wait(result: Any) -> None:
        xp.cuda.Device().synchronize()

    def event() -> Any:
        made = xp.cuda.Event()
        made.record()
        return made

    def between(first: Any, last: Any) -> float:
        return xp.cuda.get_elapsed_time(first, last) * 1e3

    return Clock(wait, event, between)


def clock_of_torch(torch: Any) -> Clock:
    """The clock of PyTorch's current CUDA stream."""

    def wait(result: Any) -> None:
        torch.cuda.synchronize()

    def event() -> Any:
        made = torch.cuda.Event(enable_timing=True)
        made.record()
        return made

    def between(first: Any, last: Any) -> float:
        return first.elapsed_time(last) * 1e3

    return Clock(wait, event, between)


def clock_of(backend: Any) -> Clock:
    """The clock of a backend: by events where it has CUDA's, else by the wall."""
    if hasattr(backend.xp, "cuda"):
        return clock_of_cupy(backend.xp)
    return Clock(lambda result: None)
