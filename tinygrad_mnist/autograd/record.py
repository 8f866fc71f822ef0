"""Ops and the recording of them.

A node keeps alive only what the rules that will run name. An op's own result is kept without its
node and joined to it again when a rule asks, so that no reference cycle exists and memory goes as
soon as the last tensor does.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from tinygrad_mnist import dispatch
from tinygrad_mnist.autograd.graph import (
    Edge,
    Node,
    Value,
    freed,
    mode,
    overwritten,
    sequence,
    wrap,
)
from tinygrad_mnist.kernels import Backend, Shape, Spec, spec

Rule = Callable[..., Any]
Getter = Callable[[Any], Any]  # from a node, what a rule's parameter names

RESULTS = ("out", "out_1", "out_2")
DEFINED: list[Op] = []  # every op there is, for the test that each has a row
_NO_STATIC: dict[str, Any] = {}


@dataclass(slots=True)
class Op:
    """A kernel with its gradients.

    ``rules`` holds per input a function of the result's gradient and of what its parameters name:
    an input or a static argument of the kernel, ``out`` for the result (``out_1``, ``out_2`` for
    further ones), ``<input>_shape`` or ``<input>_dtype``. ``joint`` is one such function for all
    inputs at once, taking one gradient per differentiable result (None where nothing flows back)
    and returning one per input.
    """

    kernel: str
    name: str
    contract: Spec
    rules: tuple[Rule | None, ...]
    joint: Rule | None
    differentiable: int  # how many results carry a gradient: the first ones
    view: bool
    plans: dict[int, Plan] = field(default_factory=dict)

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
    keeps: tuple[bool, ...]  # per input, whether a rule that runs names it
    results: tuple[int, ...]  # the results that such a rule names
    dtype: bool  # whether such a rule names the first input's dtype
    frees: bool  # whether anything is kept


def define(
    kernel: str,
    rules: dict[str, Rule],
    *,
    joint: Rule | None = None,
    differentiable: int = 1,
    name: str | None = None,
) -> Op:
    """An ``Op`` from its kernel and rules; ValueError for a rule that names what is not there."""
    contract = spec(kernel)
    unknown = set(rules) - set(contract.inputs)
    if unknown:
        raise ValueError(f"{kernel}: rules for {sorted(unknown)}, inputs are {contract.inputs}")
    ordered = tuple(rules.get(i) for i in contract.inputs)
    op = Op(
        kernel, name or kernel, contract, ordered, joint, differentiable, contract.kind == "view"
    )
    op.plan(2 ** len(ordered) - 1)  # meets every rule, so that a wrong name shows here
    DEFINED.append(op)
    return op


def _planned(op: Op, mask: int) -> Plan:
    tracked = [i for i in range(len(op.rules)) if mask >> i & 1]
    if op.joint is not None:
        chosen = [(i, op.joint) for i in tracked]
        skip = op.differentiable
    else:
        chosen = [(i, rule) for i in tracked if (rule := op.rules[i]) is not None]
        skip = 1
    names = {n for _, rule in chosen for n in _parameters(rule)[skip:]}
    keeps = tuple(name in names for name in op.contract.inputs)
    results = tuple(i for i, name in enumerate(RESULTS) if name in names)
    return Plan(
        op=op,
        runs=tuple(
            (i, rule, tuple(_getter(n, op) for n in _parameters(rule)[skip:])) for i, rule in chosen
        ),
        keeps=keeps,
        results=results,
        dtype=any(name.endswith("_dtype") for name in names),
        frees=any(keeps) or bool(results),
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
    stem, _, suffix = name.rpartition("_")
    if suffix == "shape" and stem in inputs:
        place = inputs.index(stem)
        return lambda node: _shape_of(node.inputs[place])
    if suffix == "dtype" and stem == inputs[0]:
        return lambda node: node.dtype
    raise ValueError(
        f"{op.kernel}: a rule names {name!r}; it may name out, {inputs}, "
        f"their _shape or _dtype, or {op.contract.static}"
    )


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
    node = _linked(op, inputs, static) if tracked and mode.enabled else None
    if type(result) is tuple:
        return _several(op, node, result, first.result_type, backend)
    value = wrap(first.result_type, result, backend, first.version if op.view else None)
    if node is not None:
        value.node = node
        value.tracked = True
        if node.plan.results:
            node.keep(value, 0)
    return value


def _linked(op: Op, inputs: Sequence[Any], static: dict[str, Any]) -> OpNode | None:
    """A node over ``inputs``; None where no rule would run."""
    mask = 0
    bit = 1
    for x in inputs:
        if isinstance(x, Value) and x.tracked:
            mask += bit
        bit += bit
    plan = op.plans.get(mask) or op.plan(mask)
    return OpNode(plan, inputs, static) if plan.runs else None


def _several(op: Op, node: OpNode | None, results: Any, kind: type[Value], backend: Backend) -> Any:
    values = tuple([wrap(kind, result, backend) for result in results])
    if node is not None:
        for i, value in enumerate(values):
            if i < op.differentiable:
                value.node, value.output, value.tracked = node, i, True
            if i in node.plan.results:
                node.keep(value, i)
    return values


class OpNode(Node):
    """A node made by ``record``.

    ``inputs`` has per input the value itself where a rule names it or it is a leaf, else
    (node, output, shape) where it takes a gradient, else nothing but its shape.
    """

    __slots__ = ("dtype", "inputs", "kept", "plan", "static", "writes")

    def __init__(self, plan: Plan, inputs: Sequence[Any], static: dict[str, Any]) -> None:
        self.plan = plan
        self.static = static
        self.hooks = None
        self.seq = next(sequence)
        self.kept: dict[int, tuple[Any, ...]] | None = None
        self.inputs: list[Any] | None
        self.inputs = found = []
        writes = 0  # what is kept must not be written to until backward
        for x, keeps in zip(inputs, plan.keeps):  # noqa: B905  the last inputs may be left out
            if not isinstance(x, Value):
                found.append(x)
            elif keeps:
                found.append(x)
                writes += x.version[0]
            elif not x.tracked:
                found.append((None, 0, x.array.shape))
            elif x.node is None:
                found.append(x)
            else:
                found.append((x.node, x.output, x.array.shape))
        self.writes = writes
        self.dtype = inputs[0].array.dtype if plan.dtype else None

    @property
    def name(self) -> str:
        return self.plan.op.name

    @property
    def results(self) -> int:
        return self.plan.op.differentiable

    def keep(self, value: Value, output: int) -> None:
        """Keep a result without its node, so that no cycle arises."""
        entry = (value.array, value.backend, value.version, value.version[0], type(value))
        self.kept = {**(self.kept or {}), output: entry}

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
        if plan.frees:
            self._check_unwritten(inputs)
        if plan.op.joint is not None:
            return self._together(dYs, inputs, wanted)
        found = []
        for i, rule, getters in plan.runs:
            x = inputs[i]
            edge = _edge(x)
            if wanted is None or wanted(edge):
                dX = rule(dYs[0], *[getter(self) for getter in getters])
                shape = x[2] if type(x) is tuple else x.array.shape
                if dX.array.shape != shape:
                    dX = dX.sum_to_size(shape)  # the op broadcast this input
                found.append((edge, dX))
        return found

    def _together(
        self, dYs: list[Any], inputs: list[Any], wanted: Callable[[Edge], bool] | None
    ) -> Sequence[tuple[Edge, Any]]:
        _, joint, getters = self.plan.runs[0]
        dXs = joint(*dYs, *[getter(self) for getter in getters])
        found = [(_edge(inputs[i]), dXs[i]) for i, _, _ in self.plan.runs if dXs[i] is not None]
        return found if wanted is None else [(e, dX) for e, dX in found if wanted(e)]

    def _check_unwritten(self, inputs: list[Any]) -> None:
        writes = 0
        for x, keeps in zip(inputs, self.plan.keeps):  # noqa: B905
            if keeps and isinstance(x, Value):
                writes += x.version[0]
        if writes != self.writes:
            names = [n for n, k in zip(self.plan.op.contract.inputs, self.plan.keeps) if k]  # noqa: B905
            shapes = [tuple(x.array.shape) for x in inputs if isinstance(x, Value)]
            raise overwritten(self, f"{' and '.join(names)} (shapes {shapes})")

    def free(self) -> None:
        if self.plan.frees:
            self.inputs = self.kept = None


def _edge(x: Any) -> Edge:
    if type(x) is tuple:
        return x[0], x[1]
    return (x, 0) if x.node is None else (x.node, x.output)


def _shape_of(x: Any) -> Shape:
    return x[2] if type(x) is tuple else x.array.shape


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
