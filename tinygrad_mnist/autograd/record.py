"""Ops and the recording of them.

A node keeps alive only what the rules that will run name. An op's own result is kept without its
node and joined to it again when a rule asks, so that no reference cycle exists and memory goes as
soon as the last tensor does.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from itertools import repeat
from typing import Any

from tinygrad_mnist import dispatch
from tinygrad_mnist.autograd.graph import (
    Edge,
    Node,
    Value,
    broadcast,
    edge_to,
    elsewhere,
    freed,
    mode,
    overwritten,
    wrap,
)
from tinygrad_mnist.contract import Spec, spec
from tinygrad_mnist.dispatch import sequence
from tinygrad_mnist.kernels import Backend, Shape

Rule = Callable[..., Any]
Getter = Callable[[Any], Any]  # from a node, what a rule's parameter names

RESULTS = ("out", "out_1", "out_2")
EVERY = sys.maxsize  # every result is differentiable, however many there are
DEFINED: list[Op] = []  # every op there is, for the test that each has a row
_NO_STATIC: dict[str, Any] = {}
_new = object.__new__


@dataclass(slots=True)
class Op:
    """A kernel with its gradients; called, it records: inputs by place, static arguments by name.

    ``rules`` holds per input a function of the result's gradient and of what its parameters name:
    an input or a static argument of the kernel, ``out`` for the result (``out_1``, ``out_2`` for
    further ones), ``<input>_shape``, ``shapes`` for those of all inputs.
    ``joint`` is one such function for all inputs at once, taking one gradient per differentiable
    result (None where nothing flows back; a list where ``differentiable`` is ``EVERY``) and
    returning one per input. The inputs of a kernel that takes any number (``*arrays``) have a
    ``joint`` rule, which names their shapes only.
    """

    kernel: str
    contract: Spec
    rules: tuple[Rule | None, ...]
    joint: Rule | None
    differentiable: int  # how many results carry a gradient: the first ones
    view: bool
    plans: dict[int, Plan] = field(default_factory=dict)

    def __call__(self, *inputs: Any, **static: Any) -> Any:
        return record(self, inputs, static)

    def plan(self, mask: int) -> Plan:
        """What backward does where the inputs with a bit in ``mask`` take a gradient."""
        if mask not in self.plans:
            self.plans[mask] = _planned(self, mask)
        return self.plans[mask]


@dataclass(slots=True)
class Plan:
    """What a node runs and keeps: it depends on which inputs take a gradient."""

    op: Op
    runs: tuple[tuple[int, Rule, tuple[Getter, ...]], ...]  # input, its rule, the rule's arguments
    keeps: Iterable[bool]  # per input, whether a rule that runs names it
    kept: tuple[int, ...]  # the inputs for which that is so
    results: tuple[int, ...]  # the results that such a rule names


def define(
    kernel: str, *, joint: Rule | None = None, differentiable: int = 1, **rules: Rule | None
) -> Op:
    """An ``Op`` from its kernel and a rule per input, None for none; see ``Op``.

    ValueError for a rule that names what is not there.
    """
    contract = spec(kernel)
    unknown = set(rules) - set(contract.inputs)
    if unknown:
        raise ValueError(f"{kernel}: rules for {sorted(unknown)}, inputs are {contract.inputs}")
    ordered = tuple(rules.get(i) for i in contract.inputs)
    op = Op(kernel, contract, ordered, joint, differentiable, contract.kind == "view")
    op.plan(2 ** len(ordered) - 1)  # meets every rule, so that a wrong name shows here
    DEFINED.append(op)
    return op


def _planned(op: Op, mask: int) -> Plan:
    tracked = [i for i in range(mask.bit_length()) if mask >> i & 1]
    chosen = [(i, rule) for i in tracked if (rule := op.joint or op.rules[i]) is not None]
    skip = 1 if op.differentiable == EVERY else op.differentiable  # the gradients it takes
    names = {n for _, rule in chosen for n in _parameters(rule)[skip:]}
    keeps = tuple(name in names for name in op.contract.inputs)
    results = tuple(i for i, name in enumerate(RESULTS) if name in names)
    return Plan(
        op=op,
        runs=tuple(
            (i, rule, tuple(_getter(n, op) for n in _parameters(rule)[skip:])) for i, rule in chosen
        ),
        keeps=repeat(False) if op.contract.variadic else keeps,
        kept=tuple(i for i, keep in enumerate(keeps) if keep),
        results=results,
    )


def _parameters(function: Rule) -> tuple[str, ...]:
    code = function.__code__
    return tuple(code.co_varnames[: code.co_argcount])


def _getter(name: str, op: Op) -> Getter:
    inputs = op.contract.inputs
    if name in RESULTS:
        output = RESULTS.index(name)
        return lambda node: node.result(output)
    if name in inputs:
        place = inputs.index(name)
        return lambda node: node.inputs[place]
    if name in op.contract.static:
        return lambda node: node.static[name]
    if name == "shapes":
        return lambda node: [_shape_of(x) for x in node.inputs]
    stem, _, suffix = name.rpartition("_")
    if suffix == "shape" and stem in inputs:
        place = inputs.index(stem)
        return lambda node: _shape_of(node.inputs[place])
    raise ValueError(
        f"{op.kernel}: a rule names {name!r}; it may name out, {inputs}, "
        f"their _shape, shapes, or {op.contract.static}"
    )


def record(op: Op, inputs: Sequence[Any], static: dict[str, Any] = _NO_STATIC) -> Any:
    """Run ``op`` on values, Python numbers and None; link the result to its inputs.

    Returns a value, or a tuple of values for a kernel with several results.
    """
    # One long function: half of a small op's time is Python's calls, so it makes few.
    first = None
    mask = 0  # a bit for each input that takes a gradient
    bit = 1
    arrays: list[Any] = []
    for x in inputs:
        if isinstance(x, Value):
            if first is None:
                first = x
            elif x.backend is not first.backend:
                raise elsewhere(f"{op.kernel}: found an operand", x, first.backend)
            if x.tracked:
                mask += bit
            arrays.append(x.array)
        else:
            arrays.append(x)
        bit += bit
    assert first is not None, f"{op.kernel}: called without a value"
    backend = first.backend
    try:
        result = dispatch.call(backend, op.kernel, arrays, static)
    except (ValueError, IndexError, TypeError) as error:
        raise _explained(op, arrays, static, error) from error
    node = None
    if mask and mode.enabled:
        plan = op.plans.get(mask) or op.plan(mask)
        if plan.runs:
            node = _node(plan, inputs, static)
    if type(result) is tuple:
        return _several(op, node, result, first)
    value = wrap(first.result_type, result, backend, first.version if op.view else None)
    if node is not None:
        value.node = node
        value.tracked = True
        if node.plan.results:
            node.kept = {0: _entry(value)}
    return value


def _node(plan: Plan, inputs: Sequence[Any], static: dict[str, Any]) -> OpNode:
    """A node over ``inputs``, keeping what its rules name."""
    node = _new(OpNode)  # as in wrap: a class with __init__ costs twice as much to call
    node.plan = plan
    node.static = static
    node.results = plan.op.differentiable
    node.hooks = None
    node.kept = None
    node.seq = next(sequence)
    node.inputs = found = []
    writes = 0
    for x, keeps in zip(inputs, plan.keeps):  # noqa: B905  the last inputs may be left out
        if not isinstance(x, Value):
            found.append(x)
        elif keeps:
            found.append(x)
            writes += x.version[0]
        elif not x.tracked:
            found.append((None, x.array.shape))
        elif x.node is None:
            found.append(x)
        else:
            found.append(((x.node, x.output), x.array.shape))
    node.writes = writes
    return node


def _entry(value: Value) -> tuple[Any, ...]:
    """What a node keeps of its result: all but the node, so that no cycle arises."""
    return value.array, value.backend, value.version, value.version[0], type(value)


def _several(op: Op, node: OpNode | None, results: Any, first: Value) -> Any:
    version = first.version if op.view else None
    values = tuple([wrap(first.result_type, r, first.backend, version) for r in results])
    if node is not None:
        node.results = min(op.differentiable, len(values))
        for i, value in enumerate(values[: node.results]):
            value.node, value.output, value.tracked = node, i, True
        node.kept = {i: _entry(values[i]) for i in node.plan.results}
    return values


class OpNode(Node):
    """A node made by ``record``.

    ``inputs`` has per input the value itself where a rule names it or it is a leaf, else where its
    gradient goes, or None, and its shape.
    """

    __slots__ = ("inputs", "kept", "plan", "results", "static", "writes")

    plan: Plan
    inputs: list[Any] | None  # None: freed
    static: dict[str, Any]
    kept: dict[int, tuple[Any, ...]] | None  # results, see _entry
    writes: int  # to the inputs that rules name, when they were recorded; backward wants the same
    results: int

    @property
    def name(self) -> str:
        return self.plan.op.kernel

    def result(self, output: int) -> Any:
        """A result that was kept, joined to this node again."""
        assert self.kept is not None
        array, backend, version, count, kind = self.kept[output]
        if version[0] != count:
            raise overwritten(self, f"its result of shape {tuple(array.shape)}")
        value = wrap(kind, array, backend, version)
        if output < self.results:
            value.node, value.output, value.tracked = self, output, True
        return value

    def edges(self) -> Sequence[Edge]:
        if self.inputs is None:
            raise freed(self)
        return [_edge(self.inputs[i]) for i, _, _ in self.plan.runs]

    def gradients(
        self, dYs: list[Any], wanted: Callable[[Edge], bool] | None
    ) -> Sequence[tuple[Edge, Any]]:
        plan, inputs = self.plan, self.inputs
        if inputs is None:
            raise freed(self)
        if plan.kept:
            self._check_unwritten(inputs)
        if plan.op.joint is not None:
            return self._together(dYs, inputs, wanted)
        dY = dYs[0]
        found = []
        for i, rule, getters in plan.runs:
            x = inputs[i]
            edge, shape = x if type(x) is tuple else (edge_to(x), x.array.shape)
            if wanted is None or wanted(edge):
                dX = rule(dY, *[getter(self) for getter in getters]) if getters else rule(dY)
                if dX.array.shape != shape:
                    dX = dX.unbroadcast(shape)
                found.append((edge, dX))
        return found

    def _together(
        self, dYs: list[Any], inputs: list[Any], wanted: Callable[[Edge], bool] | None
    ) -> Sequence[tuple[Edge, Any]]:
        _, joint, getters = self.plan.runs[0]
        given = (dYs,) if self.plan.op.differentiable == EVERY else dYs
        dXs = joint(*given, *[getter(self) for getter in getters])
        found = [(_edge(inputs[i]), dXs[i]) for i, _, _ in self.plan.runs]
        return [
            (edge, dX) for edge, dX in found if dX is not None and (wanted is None or wanted(edge))
        ]

    def _check_unwritten(self, inputs: list[Any]) -> None:
        writes = 0
        for i in self.plan.kept:
            if i < len(inputs) and isinstance(inputs[i], Value):
                writes += inputs[i].version[0]
        if writes != self.writes:
            names = [self.plan.op.contract.inputs[i] for i in self.plan.kept]
            shapes = [tuple(inputs[i].array.shape) for i in self.plan.kept]
            raise overwritten(self, f"{' and '.join(names)} (shapes {shapes})")

    def free(self) -> None:
        if self.plan.kept or self.plan.results:
            self.inputs = self.kept = None


def _edge(x: Any) -> Edge:
    edge: Edge = x[0] if type(x) is tuple else edge_to(x)
    return edge


def _shape_of(x: Any) -> Shape:
    shape: Shape = x[1] if type(x) is tuple else x.array.shape
    return shape


def filled(kind: type[Value], backend: Backend, shape: Shape, value: Any, dtype: Any) -> Any:
    """A value of ``shape`` that holds a number everywhere, outside the graph."""
    static = {"shape": shape, "value": value, "dtype": dtype}
    return wrap(kind, dispatch.call(backend, "full", (), static), backend)


def _explained(
    op: Op, arrays: Sequence[Any], static: dict[str, Any], error: Exception
) -> Exception:
    """The kernel's error, with the op's name or ``what`` stands for it, and what it was given."""
    if op.contract.kind == "elementwise":
        broadcast(op.kernel, *(tuple(a.shape) for a in arrays if hasattr(a, "shape")))
    name = static.get("what", op.kernel)
    given = ", ".join(
        f"{a.dtype}{tuple(a.shape)}" if hasattr(a, "shape") else repr(a) for a in arrays
    )
    message = str(error).removeprefix(f"{name}: ")
    kind = next(k for k in (IndexError, TypeError, ValueError) if isinstance(error, k))
    return kind(f"{name}: {message} (operands: {given})")
