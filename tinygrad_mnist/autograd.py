"""The graph and its backward pass.

A ``Value`` is an array with a gradient and the ``Node`` that made it. ``record`` runs one op and
links its result to its inputs; ``backward`` walks the links from the newest node to the oldest.

A node keeps alive only what the op's rules name. An op's own result is kept without its node (it
is joined to it again when a rule asks), so that no reference cycle exists and memory goes as soon
as the last tensor does.
"""

from __future__ import annotations

import functools
import heapq
import itertools
import threading
import weakref
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, ClassVar, TypeVar

from tinygrad_mnist import dispatch
from tinygrad_mnist.kernels import Backend, Shape, Spec, spec

Hook = Callable[[Any], Any]
Edge = tuple["Node | Value", int]  # a node and which of its results, or a leaf
F = TypeVar("F", bound=Callable[..., Any])

_sequence = itertools.count()


class Value:
    """An array in the graph: what ``Tensor`` is without its methods.

    ``version`` counts the writes to the memory; it is one list shared by all views of it.
    """

    __slots__ = (
        "__weakref__",
        "array",
        "backend",
        "grad",
        "hooks",
        "node",
        "output",
        "tracked",
        "version",
    )

    result_type: ClassVar[type[Value]]  # what an op on this class returns

    array: Any
    backend: Backend
    grad: Any
    hooks: dict[int, Hook] | None
    node: Node | None
    output: int
    tracked: bool  # an op on it is recorded: Tensor calls it requires_grad
    version: list[int]

    # What the backward pass itself asks of a value; Tensor binds both.

    def __add__(self, other: Any) -> Any:
        raise NotImplementedError(f"{type(self).__name__} does not add")

    def sum_to_size(self, shape: Shape) -> Any:
        raise NotImplementedError(f"{type(self).__name__} does not sum")


Value.result_type = Value
_new = object.__new__


def wrap(kind: type[Value], array: Any, backend: Backend, version: list[int] | None = None) -> Any:
    """``array`` as a new value of class ``kind``, outside the graph."""
    value = _new(kind)
    value.array = array
    value.backend = backend
    value.version = [0] if version is None else version
    value.grad = None
    value.hooks = None
    value.node = None
    value.output = 0
    value.tracked = False
    return value


# ---- grad mode


class _Mode(threading.local):
    enabled: bool = True


_mode = _Mode()


def is_grad_enabled() -> bool:
    """Whether ops on this thread are recorded."""
    return _mode.enabled


class set_grad_enabled:  # noqa: N801  lower case as in PyTorch
    """Record ops, or do not: at once, and as a context manager until its end."""

    def __init__(self, mode: bool) -> None:
        self._previous = _mode.enabled
        _mode.enabled = bool(mode)

    def __enter__(self) -> None:
        pass

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        _mode.enabled = self._previous


class _GradMode:
    """A context manager and decorator that sets the mode on entry and puts it back on exit."""

    _target: ClassVar[bool]

    def __init__(self) -> None:
        self._previous: list[bool] = []

    def __enter__(self) -> None:
        self._previous.append(_mode.enabled)
        _mode.enabled = self._target

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        _mode.enabled = self._previous.pop()

    def __call__(self, function: F) -> F:
        @functools.wraps(function)
        def wrapped(*args: Any, **kwargs: Any) -> Any:
            with type(self)():
                return function(*args, **kwargs)

        return wrapped  # type: ignore[return-value]


class no_grad(_GradMode):  # noqa: N801
    """``with no_grad():`` ops are not recorded; also a decorator, ``@no_grad()``."""

    _target = False


class enable_grad(_GradMode):  # noqa: N801
    """``with enable_grad():`` ops are recorded again inside a ``no_grad`` block."""

    _target = True


# ---- ops


@dataclass(slots=True)
class Op:
    """A kernel with its gradients.

    ``rules`` holds per input a function of the result's gradient and of what its parameters name:
    an input or a static argument of the kernel, ``out`` for the result (``out_1``, ``out_2``
    for further ones), ``<input>_shape`` or ``<input>_dtype``.
    ``joint`` is one such function for all inputs at once, taking one gradient per differentiable
    result (None where nothing flows back) and returning one per input.
    """

    kernel: str
    name: str
    rules: tuple[Callable[..., Any] | None, ...]
    joint: Callable[..., Any] | None = None
    differentiable: int = 1  # how many results carry a gradient: the first ones
    view: bool = False
    saves: tuple[int, ...] = ()  # the inputs kept for backward
    saves_out: tuple[int, ...] = ()  # the results kept for backward
    saves_dtypes: bool = False
    takes: tuple[bool, ...] = ()  # which inputs have a gradient
    wants: dict[Any, tuple[Callable[[Any], Any], ...]] = field(default_factory=dict)


DEFINED: list[Op] = []  # every op there is, for the test that each has a row


def define(
    kernel: str,
    rules: dict[str, Callable[..., Any]],
    *,
    joint: Callable[..., Any] | None = None,
    differentiable: int = 1,
    name: str | None = None,
) -> Op:
    """An ``Op`` from its kernel and rules; ValueError for a rule that names what is not there."""
    contract = spec(kernel)
    unknown = set(rules) - set(contract.inputs)
    if unknown:
        raise ValueError(f"{kernel}: rules for {sorted(unknown)}, inputs are {contract.inputs}")
    op = Op(
        kernel=kernel,
        name=name or kernel,
        rules=tuple(rules.get(i) for i in contract.inputs),
        joint=joint,
        differentiable=differentiable,
        view=contract.kind == "view",
    )
    functions = [joint] if joint else [r for r in op.rules if r is not None]
    names = [n for f in functions for n in _parameters(f)[differentiable if joint else 1 :]]
    kept = {n for n in names if n in contract.inputs}
    op.saves = tuple(i for i, n in enumerate(contract.inputs) if n in kept)
    op.saves_out = tuple(i for i, n in enumerate(_RESULTS) if n in names)
    op.saves_dtypes = any(n.endswith("_dtype") for n in names)
    for function in functions:
        skip = differentiable if joint else 1
        op.wants[function] = tuple(_want(n, op, contract) for n in _parameters(function)[skip:])
    op.takes = tuple(joint is not None or rule is not None for rule in op.rules)
    DEFINED.append(op)
    return op


def _parameters(function: Callable[..., Any]) -> tuple[str, ...]:
    code = function.__code__  # type: ignore[attr-defined]
    return tuple(code.co_varnames[: code.co_argcount])


def _want(name: str, op: Op, contract: Spec) -> Callable[[Any], Any]:
    """How a rule's parameter is had from a node."""
    if name in _RESULTS:
        output = _RESULTS.index(name)
        return lambda node: node._result(output)
    if name in contract.inputs:
        place = contract.inputs.index(name)
        return lambda node: node._input(place)
    if name in contract.static:
        return lambda node: node.static[name]
    stem, _, suffix = name.rpartition("_")
    if suffix in ("shape", "dtype") and stem in contract.inputs:
        place = contract.inputs.index(stem)
        if suffix == "shape":
            return lambda node: node.shapes[place]
        return lambda node: node.dtypes[place]
    raise ValueError(
        f"{op.kernel}: a rule names {name!r}; it may name out, {contract.inputs}, "
        f"their _shape or _dtype, or {contract.static}"
    )


_RESULTS = ("out", "out_1", "out_2")
_NO_STATIC: dict[str, Any] = {}


def record(op: Op, inputs: Sequence[Any], static: dict[str, Any] = _NO_STATIC) -> Any:
    """Run ``op`` on values, Python numbers and None; link the result to its inputs.

    Returns a value, or a tuple of values for a kernel with several results.
    """
    first = None
    tracked = False
    arrays: list[Any] = []
    for x in inputs:
        if isinstance(x, Value):
            if first is None:
                first = x
            elif x.backend is not first.backend:
                raise _two_backends(op.name, first, x)
            if x.tracked:
                tracked = True
            arrays.append(x.array)
        else:
            arrays.append(x)
    assert first is not None, f"{op.name}: called without a value"
    backend = first.backend
    try:
        result = dispatch.call(backend, op.kernel, arrays, static)
    except (ValueError, IndexError, TypeError) as error:
        raise _explained(op, arrays, error) from error
    kind = first.result_type
    node = OpNode(op, inputs, static, kind) if tracked and _mode.enabled else None
    if type(result) is tuple:
        return _several(op, node, result, kind, backend)
    value = wrap(kind, result, backend, first.version if op.view else None)
    if node is not None and node.edges:
        value.node = node
        value.tracked = True
        if op.saves_out:
            node.out[0] = (result, backend, value.version, value.version[0])
    return value


def _several(op: Op, node: OpNode | None, results: Any, kind: type[Value], backend: Backend) -> Any:
    values = tuple(wrap(kind, r, backend) for r in results)
    if node is not None and node.edges:
        for i, value in enumerate(values):
            node.join(value, i)
    return values


def _two_backends(name: str, x: Value, y: Value) -> RuntimeError:
    return RuntimeError(
        f"{name}: one operand is on the backend {x.backend.name!r} and one on {y.backend.name!r}; "
        f'move one of them: x.to("{x.backend.name}")'
    )


def _explained(op: Op, arrays: Sequence[Any], error: Exception) -> Exception:
    """The kernel's error, with the op and what it was given."""
    given = ", ".join(
        f"{a.dtype}{tuple(a.shape)}" if hasattr(a, "shape") else repr(a) for a in arrays
    )
    message = str(error)
    prefix = "" if message.startswith(f"{op.name}: ") else f"{op.name}: "
    return type(error)(f"{prefix}{message} (operands: {given})")


# ---- nodes


class Node:
    """One step of the graph: how to turn its results' gradients into its inputs'."""

    __slots__ = ("edges", "hooks", "kind", "name", "results", "seq")

    edges: Sequence[Edge | None]  # one per input; empty where none takes a gradient
    hooks: dict[int, tuple[int, Hook]] | None  # key → (which result, function)
    kind: type[Value]
    name: str
    results: int
    seq: int

    def gradients(self, dYs: list[Any], edges: Sequence[Edge | None]) -> Sequence[Any]:
        """One gradient per edge, None where there is nothing to pass on.

        ``edges`` is ``self.edges``, or that with None where nobody asks for the gradient.
        """
        raise NotImplementedError

    def free(self) -> None:
        """Forget what was kept for ``gradients``."""
        raise NotImplementedError

    def __repr__(self) -> str:
        return f"<{self.name}>"


def _edge(x: Any) -> Edge | None:
    if not isinstance(x, Value) or not x.tracked:
        return None
    return (x, 0) if x.node is None else (x.node, x.output)


class OpNode(Node):
    """A node made by ``record``."""

    __slots__ = ("dtypes", "op", "out", "saved", "shapes", "static")

    saved: dict[int, tuple[Any, int]] | None  # input → (value, its version); None: freed
    out: dict[int, tuple[Any, Backend, list[int], int]]  # array, backend, version, its count
    static: dict[str, Any]

    def __init__(
        self, op: Op, inputs: Sequence[Any], static: dict[str, Any], kind: type[Value]
    ) -> None:
        self.op = op
        self.name = op.name
        self.kind = kind
        self.static = static
        self.results = op.differentiable
        self.hooks = None
        self.out = {}
        self.seq = next(_sequence)
        edges: list[Edge | None] = []
        self.shapes = shapes = []
        reached = False
        for x, takes in zip(inputs, op.takes):  # noqa: B905  the last inputs may be left out
            if isinstance(x, Value):
                shapes.append(x.array.shape)
                if takes and x.tracked:
                    reached = True
                    edges.append((x, 0) if x.node is None else (x.node, x.output))
                    continue
            else:
                shapes.append(None)
            edges.append(None)
        self.edges = edges if reached else []
        self.dtypes = [x.array.dtype for x in inputs] if op.saves_dtypes else None
        self.saved = saved = {}
        for i in op.saves:
            if i < len(inputs):
                x = inputs[i]
                saved[i] = (x, x.version[0] if isinstance(x, Value) else 0)

    def join(self, value: Value, output: int) -> None:
        """Make ``value`` this node's result number ``output``."""
        if output < self.results:
            value.node = self
            value.output = output
            value.tracked = True
        if output in self.op.saves_out:
            kept = (value.array, value.backend, value.version, value.version[0])
            self.out[output] = kept

    def gradients(self, dYs: list[Any], edges: Sequence[Edge | None]) -> Sequence[Any]:
        op = self.op
        if self.saved is None:
            raise _freed(self)
        if op.joint is not None:
            found = op.joint(*dYs, *[want(self) for want in op.wants[op.joint]])
            return [
                dX if edge is None else _fitted(dX, shape)
                for dX, edge, shape in zip(found, edges, self.shapes)  # noqa: B905
            ]
        dY = dYs[0]
        fitted = []
        for rule, edge, shape in zip(op.rules, edges, self.shapes):  # noqa: B905
            if edge is None or rule is None:
                fitted.append(None)
            else:
                dX = rule(dY, *[want(self) for want in op.wants[rule]])
                fitted.append(dX if dX.array.shape == shape else dX.sum_to_size(shape))
        return fitted

    def _input(self, i: int) -> Any:
        assert self.saved is not None
        value, version = self.saved.get(i, (None, 0))
        if isinstance(value, Value) and value.version[0] != version:
            raise _overwritten(self, spec(self.op.kernel).inputs[i], value.array)
        return value

    def _result(self, output: int) -> Any:
        array, backend, version, count = self.out[output]
        if version[0] != count:
            raise _overwritten(self, "result", array)
        value = wrap(self.kind, array, backend, version)
        if output < self.results:
            value.node, value.output, value.tracked = self, output, True
        return value

    def free(self) -> None:
        if self.op.saves or self.op.saves_out:
            self.saved = None
            self.out = {}


def _fitted(dX: Any, shape: Shape | None) -> Any:
    return dX if dX is None or dX.array.shape == shape else dX.sum_to_size(shape)


def _freed(node: Node) -> RuntimeError:
    return RuntimeError(
        f"backward through {node.name} a second time: what it kept was freed by the first pass; "
        "give backward(retain_graph=True) the first time"
    )


def _overwritten(node: Node, what: str, array: Any) -> RuntimeError:
    return RuntimeError(
        f"backward of {node.name} needs its {what} of shape {tuple(array.shape)} as it was in the "
        "forward pass, but it was changed in place since; change a clone() instead"
    )


# ---- backward


class _Pass:
    """One backward pass: gradients on their way, newest node first.

    A node's number is above that of every node it was computed from, so popping the highest
    number first meets each node after all gradients into it have arrived.
    """

    def __init__(self) -> None:
        self.heap: list[tuple[int, Node]] = []
        self.arrived: dict[Node, list[Any]] = {}
        self.leaves: dict[int, tuple[Value, Any]] = {}

    def deliver(self, edge: Edge, dX: Any) -> None:
        target, output = edge
        if not isinstance(target, Node):
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
        while self.heap:
            node = heapq.heappop(self.heap)[1]
            dYs = self.arrived.pop(node)
            if node.hooks:
                dYs = _hooked(node, dYs)
            edges: Sequence[Edge | None] = node.edges
            if asked is not None:
                asked.collect(node, dYs)
                edges = [e if e is not None and asked.wants(e) else None for e in edges]
                if not any(edges):
                    continue
            dXs = node.gradients(dYs, edges)
            if not retain_graph:
                node.free()
            for edge, dX in zip(edges, dXs):  # noqa: B905  a node gives one for each
                if edge is not None and dX is not None:
                    self.deliver(edge, dX)


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


def _hooked(node: Node, dYs: list[Any]) -> list[Any]:
    for output, hook in (node.hooks or {}).values():
        if dYs[output] is not None:
            replaced = hook(dYs[output])
            dYs[output] = dYs[output] if replaced is None else replaced
    return dYs


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
    with set_grad_enabled(create_graph):
        seed = _seed(root, gradient)
        run.deliver(_start(root), seed)
        run.run(create_graph if retain_graph is None else retain_graph)
        taken = {id(seed.version)}
        for leaf, dX in run.leaves.values():
            _accumulate(leaf, dX, taken)


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
    roots, targets = _sequence_of(outputs), _sequence_of(inputs)
    seeds = _sequence_of(grad_outputs) if grad_outputs is not None else [None] * len(roots)
    if len(seeds) != len(roots):
        raise ValueError(f"grad: {len(seeds)} grad_outputs for {len(roots)} outputs")
    edges = [_target(x, i) for i, x in enumerate(targets)]
    starts = [_start(root) for root in roots]
    asked = _Asked(starts, edges)
    run = _Pass()
    with set_grad_enabled(create_graph):
        for start, root, seed in zip(starts, roots, seeds, strict=True):
            if asked.wants(start):
                run.deliver(start, _seed(root, seed))
        run.run(create_graph if retain_graph is None else retain_graph, asked)
        for leaf, dX in run.leaves.values():
            asked.found[leaf, 0] = _leaf_hooked(leaf, dX)
    found = [asked.found[edge] for edge in edges]
    if not allow_unused and any(dX is None for dX in found):
        raise RuntimeError(
            f"grad: input {[dX is None for dX in found].index(True)} was not used to compute the "
            "outputs; give allow_unused=True to get None for it"
        )
    return tuple(found)


def vjp(function: Callable[..., Any], inputs: Sequence[Any], dYs: Sequence[Any]) -> list[Any]:
    """The gradients of ``function`` at ``inputs`` along ``dYs``, by differentiating what it runs.

    This is the rule of a fused gradient: ``function`` computes the same from simpler ops. Inputs
    are re-entered as they are, so that the result is part of their graph where one is recorded.
    """
    create_graph = is_grad_enabled()
    with enable_grad():
        fresh = [_alias(x) if isinstance(x, Value) else x for x in inputs]
        results = function(*fresh)
        results = results if isinstance(results, tuple) else (results,)
        pairs = [(y, dY) for y, dY in zip(results, dYs, strict=True) if dY is not None]
        targets = [x for x in fresh if isinstance(x, Value)]
        found = iter(
            grad(
                [y for y, _ in pairs],
                targets,
                [dY for _, dY in pairs],
                create_graph=create_graph,
                allow_unused=True,
            )
        )
    return [next(found) if isinstance(x, Value) else None for x in fresh]


def _alias(x: Value) -> Any:
    """A value of its own identity over the same array, linked to ``x`` where ``x`` has a graph."""
    alias = wrap(x.result_type, x.array, x.backend, x.version)
    alias.tracked = x.array.dtype.kind == "f"
    alias.node = AliasNode(x) if alias.tracked else None
    return alias


class AliasNode(Node):
    """Passes its gradient to ``x``, if ``x`` takes one."""

    __slots__ = ()

    def __init__(self, x: Value) -> None:
        self.name = "alias"
        self.kind = x.result_type
        self.hooks = None
        self.results = 1
        self.seq = next(_sequence)
        self.edges = (_edge(x),)

    def gradients(self, dYs: list[Any], edges: Sequence[Edge | None]) -> Sequence[Any]:
        return dYs

    def free(self) -> None:
        pass


def _sequence_of(x: Any) -> list[Any]:
    return [x] if isinstance(x, Value) else list(x)


def _start(root: Value) -> Edge:
    edge = _edge(root)
    if edge is None:
        raise RuntimeError(
            "backward: this tensor does not require grad and no op recorded it; "
            "nothing it was computed from has requires_grad=True, or it was made under no_grad()"
        )
    return edge


def _seed(root: Value, gradient: Any) -> Any:
    if gradient is None:
        if root.array.size != 1:
            raise RuntimeError(
                f"backward of a tensor of shape {tuple(root.array.shape)} needs a gradient of that "
                "shape; reduce it to a scalar first, for example with .sum(), or pass one"
            )
        return _ones(root)
    if not isinstance(gradient, Value):
        raise TypeError(f"backward: the gradient must be a tensor, got {type(gradient).__name__}")
    if gradient.array.shape != root.array.shape:
        raise ValueError(
            f"backward: the gradient has shape {tuple(gradient.array.shape)}, "
            f"the tensor {tuple(root.array.shape)}"
        )
    if gradient.array.dtype != root.array.dtype:
        raise TypeError(
            f"backward: the gradient is {gradient.array.dtype}, the tensor {root.array.dtype}; "
            f"cast it with .to(dtype)"
        )
    return gradient


def _ones(root: Value) -> Any:
    static = {"shape": root.array.shape, "value": 1, "dtype": root.array.dtype}
    array = dispatch.call(root.backend, "full", (), static)
    return wrap(root.result_type, array, root.backend)


def _target(x: Any, i: int) -> Edge:
    edge = _edge(x)
    if edge is None:
        raise RuntimeError(f"grad: input {i} does not require grad")
    return edge


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
            stack.extend(e[0] for e in node.edges if e is not None)
    wanted: set[Node] = set()
    for node in sorted(seen, key=lambda n: n.seq):
        if any(e is not None and (e in ends or e[0] in wanted) for e in node.edges):
            wanted.add(node)
    return wanted


def _leaf_hooked(leaf: Value, dX: Any) -> Any:
    for hook in (leaf.hooks or {}).values():
        replaced = hook(dX)
        dX = dX if replaced is None else replaced
    return dX


def _accumulate(leaf: Value, dX: Any, taken: set[int]) -> None:
    """Add to ``leaf.grad``, which stays contiguous and shares memory with nobody."""
    if leaf.hooks:
        dX = _leaf_hooked(leaf, dX)
    if leaf.grad is not None:
        dX = leaf.grad + dX
    elif id(dX.version) in taken or not dX.array.flags.c_contiguous:
        dX = dX.clone()
    taken.add(id(dX.version))
    leaf.grad = dX


class RemovableHandle:
    """What ``register_hook`` returns: ``remove()`` takes the hook off again."""

    def __init__(self, hooks: dict[int, Any], key: int) -> None:
        self._hooks = hooks
        self._key = key

    def remove(self) -> None:
        """Take the hook off; a second call does nothing."""
        self._hooks.pop(self._key, None)


def register_hook(value: Value, hook: Hook) -> RemovableHandle:
    """Call ``hook(gradient)`` when the gradient of ``value`` is complete; it may return another."""
    if not value.tracked:
        raise RuntimeError("register_hook: this tensor does not require grad")
    key = next(_sequence)
    if value.node is None:
        value.hooks = {} if value.hooks is None else value.hooks
        value.hooks[key] = hook
        return RemovableHandle(value.hooks, key)
    node = value.node
    node.hooks = {} if node.hooks is None else node.hooks
    node.hooks[key] = (value.output, hook)
    return RemovableHandle(node.hooks, key)


def retain_grad(value: Value) -> None:
    """Have ``backward`` write ``grad`` of a value that an op made, as it does for leaves."""
    if value.node is None:
        return
    holder = weakref.ref(value)  # the node must not keep its own result alive

    def keep(dY: Any) -> None:
        target = holder()
        if target is not None:
            target.grad = dY.clone() if target.grad is None else target.grad + dY

    register_hook(value, keep)


# ---- custom functions


class Context:
    """What ``forward`` hands to ``backward``; any attribute may be set on it."""

    def __init__(self, needs: tuple[bool, ...]) -> None:
        self.needs_input_grad = needs
        self._saved: tuple[Any, ...] = ()
        self._no_grad: tuple[Any, ...] = ()
        self._load: Callable[[], tuple[Any, ...]] | None = None

    def save_for_backward(self, *values: Any) -> None:
        """Keep inputs or results for ``backward``, which checks that nobody changed them since."""
        self._saved = values

    def mark_non_differentiable(self, *values: Any) -> None:
        """Say that these results carry no gradient."""
        self._no_grad = values

    @property
    def saved_tensors(self) -> tuple[Any, ...]:
        """What ``save_for_backward`` kept. RuntimeError outside of ``backward``."""
        if self._load is None:
            raise RuntimeError("saved_tensors is there for backward only")
        return self._load()


class Function:
    """A custom op: a ``forward`` and its ``backward``, called with ``apply``.

    ::

        class Cube(Function):
            @staticmethod
            def forward(ctx, x):
                ctx.save_for_backward(x)
                return x * x * x

            @staticmethod
            def backward(ctx, dY):
                (x,) = ctx.saved_tensors
                return dY * 3 * x * x

        y = Cube.apply(x)

    ``forward`` runs unrecorded; ``backward`` gets one gradient per result (zeros for one that was
    not used) and returns one per argument of ``forward`` (None for those that take none). Made of
    ops, it can be differentiated again.
    """

    @staticmethod
    def forward(ctx: Any, *args: Any, **kwargs: Any) -> Any:
        raise NotImplementedError("a Function needs a static method forward(ctx, ...)")

    @staticmethod
    def backward(ctx: Any, *dYs: Any) -> Any:
        raise NotImplementedError("a Function needs a static method backward(ctx, ...)")

    @classmethod
    def apply(cls, *args: Any, **kwargs: Any) -> Any:
        """Run ``forward`` and link its results to the tensors among ``args``."""
        needs = tuple(isinstance(x, Value) and x.tracked for x in args)
        ctx = Context(needs)
        with no_grad():
            results = cls.forward(ctx, *args, **kwargs)
        single = isinstance(results, Value)
        values = [_own(v, args) for v in ((results,) if single else results)]
        if any(needs) and is_grad_enabled():
            FunctionNode(cls, ctx, args, values, (results,) if single else results)
        return values[0] if single else tuple(values)


def _own(result: Any, args: Sequence[Any]) -> Any:
    """A result that is one of the arguments gets an identity of its own."""
    if not isinstance(result, Value):
        raise TypeError(f"forward must return tensors, got {type(result).__name__}")
    if any(result is x for x in args) or result.node is not None:
        return wrap(result.result_type, result.array, result.backend, result.version)
    return result


class FunctionNode(Node):
    """A node made by ``Function.apply``."""

    __slots__ = ("ctx", "function", "inputs", "outputs", "saved")

    saved: list[tuple[Any, Any, int]] | None
    outputs: list[tuple[Shape, Any, Backend]]  # of each result

    def __init__(
        self,
        function: type[Function],
        ctx: Context,
        args: Sequence[Any],
        values: list[Any],
        returned: Sequence[Any],
    ) -> None:
        self.function = function
        self.ctx = ctx
        self.name = function.__name__
        self.kind = next(x for x in args if isinstance(x, Value)).result_type
        self.hooks = None
        self.results = len(values)
        self.seq = next(_sequence)
        self.edges = tuple(_edge(x) for x in args)
        self.inputs = tuple(x.array.shape if isinstance(x, Value) else None for x in args)
        self.outputs = [(v.array.shape, v.array.dtype, v.backend) for v in values]
        no_grad_ids = {id(v) for v in ctx._no_grad}
        places = {id(v): i for i, v in enumerate(returned)}
        self.saved = [self._kept(x, places.get(id(x))) for x in ctx._saved]
        ctx._saved = ()
        ctx._no_grad = ()
        for i, (value, original) in enumerate(zip(values, returned, strict=True)):
            if id(original) not in no_grad_ids and value.array.dtype.kind == "f":
                value.node, value.output, value.tracked = self, i, True

    def _kept(self, x: Any, result: int | None) -> tuple[Any, Any, int]:
        """What to keep of ``x``, which result it is if it is one, and its version."""
        if not isinstance(x, Value):
            return x, None, 0
        bare = x if result is None else wrap(x.result_type, x.array, x.backend, x.version)
        return bare, result, x.version[0]

    def gradients(self, dYs: list[Any], edges: Sequence[Edge | None]) -> Sequence[Any]:
        if self.saved is None:
            raise _freed(self)
        dYs = [self._zeros(i) if dY is None else dY for i, dY in enumerate(dYs)]
        self.ctx._load = self._load
        try:
            found = self.function.backward(self.ctx, *dYs)
        finally:
            self.ctx._load = None  # it holds this node, which holds ctx
        found = found if isinstance(found, tuple | list) else (found,)
        if len(found) != len(self.edges):
            raise RuntimeError(
                f"{self.name}.backward returned {len(found)} gradients, "
                f"forward took {len(self.edges)} arguments; return one for each, None for no tensor"
            )
        return [self._checked(dX, i, dYs) for i, dX in enumerate(found)]

    def _zeros(self, i: int) -> Any:
        """The gradient of a result that nothing was computed from."""
        shape, dtype, backend = self.outputs[i]
        static = {"shape": shape, "value": 0, "dtype": dtype}
        return wrap(self.kind, dispatch.call(backend, "full", (), static), backend)

    def _checked(self, dX: Any, i: int, dYs: list[Any]) -> Any:
        if dX is None or self.edges[i] is None:
            return None
        if not isinstance(dX, Value):
            raise TypeError(f"{self.name}.backward returned {type(dX).__name__} for argument {i}")
        shape = self.inputs[i]
        if dX.array.shape != shape:
            dX = dX.sum_to_size(shape)
        held = [v for v in (*vars(self.ctx).values(), *dYs) if isinstance(v, Value)]
        held += [v for v, _, _ in self.saved or () if isinstance(v, Value)]
        return dX.clone() if any(dX.version is v.version for v in held) else dX

    def _load(self) -> tuple[Any, ...]:
        if self.saved is None:
            raise _freed(self)
        loaded = []
        for value, result, version in self.saved:
            if isinstance(value, Value) and value.version[0] != version:
                raise _overwritten(self, "saved tensor", value.array)
            if result is not None:
                value = wrap(value.result_type, value.array, value.backend, value.version)
                value.node, value.output, value.tracked = self, result, True
            loaded.append(value)
        return tuple(loaded)

    def free(self) -> None:
        self.saved = None
