"""The backward pass: gradients from a value to the leaves it was computed from."""

from __future__ import annotations

import heapq
import weakref
from collections.abc import Iterable, Sequence
from typing import Any

from tinygrad_mnist import dispatch
from tinygrad_mnist.autograd.graph import (
    Edge,
    Hook,
    Node,
    Value,
    checked,
    edge_to,
    is_grad_enabled,
    kind_of,
    set_grad_enabled,
    written,
)
from tinygrad_mnist.autograd.record import filled


class _Pass:
    """One backward pass: gradients on their way, newest node first.

    A node's number is above that of every node it was computed from, so popping the highest
    number first meets each node after all gradients into it have arrived.
    """

    def __init__(self) -> None:
        self.heap: list[tuple[int, Node]] = []
        self.arrived: dict[Node, list[Any]] = {}
        self.leaves: dict[int, tuple[Value, Any]] = {}
        self.taken: set[int] = set()  # memory, by its version, that is or may be somebody's

    def hooked(self, owner: Node | Value, output: int, dY: Any) -> Any:
        """A complete gradient after its hooks, each given what the one before made of it.

        Those that only look at it come last.
        """
        for _, (place, hook) in sorted((owner.hooks or {}).items(), key=lambda item: item[0] < 0):
            if place == output and dY is not None:
                replaced = hook(dY)
                if replaced is not None:
                    dY = checked("a hook", replaced, kind_of(dY), [dY])
                self.taken.add(id(dY.version))  # a hook may have kept it
        return dY

    def deliver(self, edge: Edge, dX: Any) -> None:
        target, output = edge
        if isinstance(target, Value):
            known = self.leaves.get(id(target))
            self.leaves[id(target)] = (target, dX if known is None else known[1] + dX)
            return
        slots = self.arrived.get(target)
        if slots is None:
            slots = self.arrived[target] = [None] * target.results
            heapq.heappush(self.heap, (-target.seq, target))
        slots[output] = dX if slots[output] is None else slots[output] + dX

    def run(self, retain_graph: bool, asked: _Asked | None = None) -> None:
        """Pass every gradient on, or only those that ``asked`` wants."""
        deliver, observed = self.deliver, bool(dispatch.observers())
        while self.heap:
            node = heapq.heappop(self.heap)[1]
            dYs = self.arrived.pop(node)
            if observed:
                dispatch.tell("differentiated", node)
            if node.hooks:
                dYs = [self.hooked(node, output, dY) for output, dY in enumerate(dYs)]
            if asked is None:
                found = node.gradients(dYs, None)
            else:
                asked.collect(node, dYs)
                if node not in asked.nodes:
                    continue
                found = node.gradients(dYs, asked.wants)
            if node.foreign:
                self.taken.update(id(dX.version) for _, dX in found)
            if not retain_graph:
                node.free()
            for edge, dX in found:
                deliver(edge, dX)
        dispatch.tell("differentiated", None)

    def accumulate(self, leaf: Value, dX: Any) -> None:
        """Add to ``leaf.grad``: in place, as in PyTorch, unless the pass itself is recorded.

        A new one is contiguous and shares memory with nobody.
        """
        if leaf.hooks:
            dX = self.hooked(leaf, 0, dX)
        dispatch.tell("graded", leaf)
        if leaf.grad is not None:
            leaf.grad = _sum(leaf.grad, dX)
            return
        if id(dX.version) in self.taken or not dX.array.flags.c_contiguous:
            dX = dX.clone()
        self.taken.add(id(dX.version))
        leaf.grad = dX


class _Asked:
    """What ``grad`` was asked for: the target edges and the nodes on the way to them."""

    def __init__(self, roots: Iterable[Edge], targets: Sequence[Edge]) -> None:
        self.found: dict[Edge, Any] = dict.fromkeys(targets)
        self.nodes = _on_the_way(roots, self.found)

    def wants(self, edge: Edge) -> bool:
        return edge[0] in self.nodes or edge in self.found

    def collect(self, node: Node, dYs: list[Any]) -> None:
        for output, dY in enumerate(dYs):
            if (node, output) in self.found:
                self.found[node, output] = dY


def backward(
    root: Value, gradient: Any = None, retain_graph: bool | None = None, create_graph: bool = False
) -> None:
    """Add the gradient of ``root`` by each leaf it depends on to the leaf's ``grad``.

    ``gradient`` (shape of ``root``) multiplies it; only a ``root`` of one element may omit it.
    ``create_graph`` records the pass, so that it can be differentiated again. What the graph kept
    is freed unless ``retain_graph`` (by default what ``create_graph`` is).
    Raises RuntimeError for a root outside the graph, a freed graph, or a value changed in place.
    """
    run = _Pass()
    with dispatch.phase("backward"), set_grad_enabled(create_graph):
        seed = _seed(root, gradient)
        run.deliver(_start(root), seed)
        run.run(create_graph if retain_graph is None else retain_graph)
        run.taken.add(id(seed.version))
        for leaf, dX in run.leaves.values():
            run.accumulate(leaf, dX)


def grad(
    outputs: Any,
    inputs: Any,
    grad_outputs: Any = None,
    retain_graph: bool | None = None,
    create_graph: bool = False,
    allow_unused: bool = False,
) -> tuple[Any, ...]:
    """The gradients of the sum of ``outputs`` by each of ``inputs``; no ``grad`` is written.

    ``outputs``, ``inputs`` and ``grad_outputs`` are a value or a sequence of them. Only nodes on
    the way to ``inputs`` are visited. An input that ``outputs`` do not depend on is an error
    (RuntimeError), or None in the result with ``allow_unused``.
    """
    roots, targets = _several(outputs), _several(inputs)
    seeds = _several(grad_outputs) if grad_outputs is not None else [None] * len(roots)
    if len(seeds) != len(roots):
        raise ValueError(f"grad: {len(seeds)} grad_outputs for {len(roots)} outputs")
    edges = [_target(x, i) for i, x in enumerate(targets)]
    starts = [_start(root) for root in roots]
    asked = _Asked(starts, edges)
    run = _Pass()
    with dispatch.phase("backward"), set_grad_enabled(create_graph):
        for start, root, seed in zip(starts, roots, seeds, strict=True):
            if asked.wants(start):
                run.deliver(start, _seed(root, seed))
        run.run(create_graph if retain_graph is None else retain_graph, asked)
        for leaf, dX in run.leaves.values():
            asked.found[leaf, 0] = run.hooked(leaf, 0, dX)
    found = [asked.found[edge] for edge in edges]
    if not allow_unused and any(dX is None for dX in found):
        raise RuntimeError(
            f"grad: input {[dX is None for dX in found].index(True)} was not used to compute the "
            "outputs; give allow_unused=True to get None for it"
        )
    return tuple(found)


def _several(x: Any) -> list[Any]:
    return [x] if isinstance(x, Value) else list(x)


def _start(root: Value) -> Edge:
    if not root.tracked:
        raise RuntimeError(
            "backward: this tensor does not require grad and no op recorded it; "
            "nothing it was computed from has requires_grad=True, or it was made under no_grad(); "
            "of what a step under jit returns, call it inside the step"
        )
    return edge_to(root)


def _seed(root: Value, gradient: Any) -> Any:
    if gradient is None:
        if root.array.size != 1:
            raise RuntimeError(
                f"backward of a tensor of shape {tuple(root.array.shape)} needs a gradient of that "
                "shape; reduce it to a scalar first, for example with .sum(), or pass one"
            )
        return filled(root.result_type, root.backend, root.array.shape, 1, root.array.dtype)
    return checked("backward", gradient, kind_of(root), [gradient])


def _target(x: Any, i: int) -> Edge:
    if not isinstance(x, Value) or not x.tracked:
        raise RuntimeError(f"grad: input {i} does not require grad")
    return edge_to(x)


def _on_the_way(roots: Iterable[Edge], targets: Iterable[Edge]) -> set[Node]:
    """The nodes that lead from ``roots`` to ``targets``; older ones than all targets cannot."""
    ends = set(targets)
    oldest = min((e[0].seq if isinstance(e[0], Node) else -1 for e in ends), default=-1)
    seen: set[Node] = set()
    stack = [edge[0] for edge in roots]
    while stack:
        node = stack.pop()
        if isinstance(node, Node) and node.seq > oldest and node not in seen:
            seen.add(node)
            stack.extend(edge[0] for edge in node.edges())
    wanted: set[Node] = set()
    for node in sorted(seen, key=lambda n: n.seq):
        if any(edge in ends or edge[0] in wanted for edge in node.edges()):
            wanted.add(node)
    return wanted


def _sum(held: Any, dX: Any) -> Any:
    checked("the grad that a tensor already has", held, kind_of(dX))
    if is_grad_enabled():
        return held + dX
    dispatch.call(held.backend, "add", (held.array, dX.array), out=held.array)
    written(held)
    return held


class RemovableHandle:
    """What registers a hook returns it: ``remove()``, or the end of its ``with`` block, takes the
    hook off again.
    """

    def __init__(self, hooks: dict[Any, Any], key: Any) -> None:
        self._hooks = hooks
        self._key = key

    def __enter__(self) -> RemovableHandle:
        return self

    def __exit__(self, *error: object) -> None:
        self.remove()

    def remove(self) -> None:
        """Take the hook off; a second call does nothing."""
        self._hooks.pop(self._key, None)
        dispatch.changed()


def register_hook(value: Value, hook: Hook) -> RemovableHandle:
    """Call ``hook(gradient)`` when the gradient of ``value`` is complete; it may return another.

    It must not change the gradient in place: others may be reading it. RuntimeError for a value
    without gradients.
    """
    if not value.tracked:
        raise RuntimeError("register_hook: this tensor does not require grad")
    return _attached(value, next(dispatch.sequence), hook)


def retain_grad(value: Value) -> None:
    """Have ``backward`` write ``grad`` of a value that an op made, as it does for leaves.

    RuntimeError for a value without gradients.
    """
    if not value.tracked:
        raise RuntimeError("retain_grad: this tensor does not require grad")
    if value.node is None:
        return
    holder = weakref.ref(value)  # the node must not keep its own result alive

    def keep(dY: Any) -> None:
        target = holder()
        if target is not None:
            target.grad = dY.clone() if target.grad is None else target.grad + dY

    _attached(value, -1 - value.output, keep)  # one for each result: a second call changes nothing


def _attached(value: Value, key: int, hook: Hook) -> RemovableHandle:
    owner, output = edge_to(value)
    owner.hooks = {} if owner.hooks is None else owner.hooks
    owner.hooks[key] = output, hook
    dispatch.changed()
    return RemovableHandle(owner.hooks, key)
