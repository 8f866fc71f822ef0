"""What makes a program faster: each pass changes it and keeps what it computes.

All but the last keep it bit for bit; ``checking`` states the tolerance of that.

A pass is a function of a program that is not built yet. Memory that is there before the step (an
argument's, the state's) may overlap other such memory; what a kernel makes overlaps nothing but
its own views.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from tinygrad_mnist.contract import spec
from tinygrad_mnist.jit.memory import span
from tinygrad_mnist.jit.program import Action, Instruction, Item, Place, Program
from tinygrad_mnist.kernels import ACTIVATIONS

Pass = Callable[[Program], None]

LARGE = 2**20  # bytes from which on memory counts for more than a loop's speed
_MAKERS = {"full", "arange"}  # kernels without inputs that always make the same
_TAKES_ACT = {"linear", "conv2d", "batch_norm"}


def hoist(program: Program) -> None:
    """Run once what depends on neither arguments nor state: numbers made of nothing.

    Not what is wanted afterwards: whoever holds a gradient may write over it.
    """
    writes = _count(place.root for item in program.instructions() for place in item.written())
    constant: set[Place] = set()
    kept: list[Item] = []
    for item in program.items:
        if isinstance(item, Instruction) and _is_constant(item, constant, writes, program.kept()):
            constant.update(place.root for place in item.written())
            program.constants.append(item)
        else:
            kept.append(item)
    program.items = kept


def _is_constant(
    item: Instruction, constant: set[Place], writes: dict[Place, int], wanted: set[Place]
) -> bool:
    roots = {place.root for place in item.read()}
    return (
        spec(item.kernel).kind != "inplace"
        and not item.hosts
        and (bool(roots) or item.kernel in _MAKERS)
        and roots <= constant
        and all(p.kind == "made" and writes[p] == 1 and p not in wanted for p in item.written())
    )


def write_directly(program: Program) -> None:
    """Have a kernel write where its result would be copied to, if nobody else reads the result."""
    readers = _readers(program)
    for item in program.instructions():
        if item.kernel != "copy" or not isinstance(item.out, Place) or item.out.kind != "made":
            continue
        source = item.inputs[0]
        maker = _maker(program, source)
        if maker is None or readers[source] != [item] or source in program.kept():
            continue
        if _views(program, source) or _first(program, item.out) is not item:
            continue
        maker.out = _replaced(maker.out, source, item.out)
        program.items.remove(item)


def fold(program: Program) -> None:
    """Give a kernel the activation, or the pooling, of its result as an option of its own."""
    readers = _readers(program)
    for item in program.instructions():
        follower = _follower(program, readers, item)
        while follower is not None:
            _merge(item, follower)
            program.items.remove(follower)
            readers = _readers(program)
            follower = _follower(program, readers, item)


def _follower(
    program: Program, readers: dict[Place, list[Instruction]], item: Instruction
) -> Instruction | None:
    """What may be folded into ``item``: the only reader of its first result."""
    if item.kernel not in _TAKES_ACT or item.static.get("act") is not None:
        return None
    made = item.out[0] if isinstance(item.out, tuple) else item.out
    if made.kind != "made" or made in program.kept() or _views(program, made):
        return None
    found = readers[made]
    if len(found) != 1 or not _fits(item, found[0]):
        return None
    new = found[0].out[0] if isinstance(found[0].out, tuple) else found[0].out
    return found[0] if new.kind == "made" and _first(program, new) is found[0] else None


def _fits(item: Instruction, follower: Instruction) -> bool:
    if follower.kernel == "max_pool2d":
        return item.kernel == "conv2d" and item.static.get("pool") is None
    return follower.kernel in ACTIVATIONS


def _merge(item: Instruction, follower: Instruction) -> None:
    if follower.kernel == "max_pool2d":
        item.static = {**item.static, "pool": follower.static["pool"]}
        item.out = follower.out
    else:
        item.static = {**item.static, "act": follower.kernel}
        item.out = (follower.out, *item.out[1:]) if isinstance(item.out, tuple) else follower.out


def drop_unread(program: Program) -> None:
    """Leave out what neither the results, the gradients nor the state depend on.

    Numbers of the host are drawn all the same: those that come after them depend on it.
    """
    wanted = program.kept()
    kept: list[Item] = []
    for item in reversed(program.items):
        if isinstance(item, Action):
            kept.append(item)
        elif any(p.root in wanted or p.root.kind in ("input", "state") for p in item.written()):
            wanted.update(place.root for place in item.read())
            kept.append(item)
        else:
            kept += [Action(fn, late=False) for fn in reversed([*item.hosts.values()])]
    program.items = kept[::-1]


def share_memory(program: Program) -> None:
    """Let results lie, one after the other, in the same blocks of memory.

    A large result of an elementwise kernel lies where an input does that nobody reads afterwards;
    a small one does not: compiled loops do not vectorise then.
    """
    constant = {place.root for item in program.constants for place in item.written()}
    apart = program.kept() | constant
    items = list(enumerate(program.instructions()))
    last = {p.root: i for i, item in items for p in (*item.read(), *item.written())}
    blocks = _Blocks()
    for i, item in items:
        ending = [p for p in dict.fromkeys(p.root for p in item.read()) if last[p] == i]
        for place in item.written():
            if place.kind == "made" and place not in apart and place.block is None:
                over = _overwritten(item, place, ending)
                place.block = blocks.take(span(place.array)) if over is None else over.block
                ending = [p for p in ending if p is not over]
        ending += [p.root for p in item.written() if last[p.root] == i]
        for place in dict.fromkeys(ending):
            if place.block is not None:
                blocks.give_back(place.block)


def _overwritten(item: Instruction, new: Place, ending: list[Place]) -> Place | None:
    """The input, of those that nobody reads afterwards, in whose memory ``new`` may lie."""
    if spec(item.kernel).kind != "elementwise" or span(new.array) < LARGE:
        return None
    given = [*item.read()]
    for place in ending:
        alone = [p for p in given if p.root is place] == [place]
        if alone and place.block is not None and _alike(place.array, new.array):
            return place
    return None


def _alike(x: Any, y: Any) -> bool:
    return bool(x.shape == y.shape and x.dtype == y.dtype and x.strides == y.strides)


class _Blocks:
    """Blocks of memory, of which the free one that fits best is taken."""

    def __init__(self) -> None:
        self.sizes: list[int] = []
        self.free: set[int] = set()

    def take(self, size: int) -> int:
        fitting = [i for i in self.free if self.sizes[i] >= size]
        if fitting:
            chosen = min(fitting, key=lambda i: self.sizes[i])
        elif self.free:
            chosen = max(self.free, key=lambda i: self.sizes[i])
            self.sizes[chosen] = size
        else:
            self.sizes.append(size)
            return len(self.sizes) - 1
        self.free.remove(chosen)
        return chosen

    def give_back(self, block: int) -> None:
        self.free.add(block)


def run_together(program: Program) -> None:
    """Let the backend run several calls as one, as Numba's does: sums may round otherwise."""
    program.together = True


PASSES: tuple[Pass, ...] = (
    hoist, write_directly, fold, drop_unread, share_memory, run_together,
)  # fmt: skip


# ---- what they ask of a program


def _readers(program: Program) -> dict[Place, list[Instruction]]:
    """Of each place that a kernel makes, the calls that read it or views of it, in order."""
    found: dict[Place, list[Instruction]] = {p: [] for p in program.places}
    for item in program.instructions():
        for place in dict.fromkeys(p.root for p in item.read()):
            found.setdefault(place, []).append(item)
    return found


def _maker(program: Program, place: Any) -> Instruction | None:
    """The one call that writes a place, which is made; None where others write it, too."""
    if not isinstance(place, Place) or place.kind != "made":
        return None
    found = [
        item for item in program.instructions() if any(p.root is place for p in item.written())
    ]
    return found[0] if len(found) == 1 else None


def _first(program: Program, place: Place) -> Instruction | None:
    """The first call that writes a place or a view of it."""
    writers = (i for i in program.instructions() if any(p.root is place for p in i.written()))
    return next(writers, None)


def _views(program: Program, place: Place) -> bool:
    return any(p.base is place for p in program.places)


def _replaced(out: Any, old: Place, new: Place) -> Any:
    if isinstance(out, tuple):
        return tuple(new if p is old else p for p in out)
    return new


def _count(places: Iterator[Place]) -> dict[Place, int]:
    counts: dict[Place, int] = {}
    for place in places:
        counts[place] = counts.get(place, 0) + 1
    return counts
