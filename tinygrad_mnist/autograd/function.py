"""Custom ops: a ``forward`` and its ``backward``."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from tinygrad_mnist.autograd.graph import (
    Edge,
    Kind,
    Node,
    Value,
    broadcasts_to,
    checked,
    edge_to,
    freed,
    is_grad_enabled,
    kind_of,
    no_grad,
    overwritten,
    wrap,
)
from tinygrad_mnist.autograd.record import filled
from tinygrad_mnist.dispatch import sequence, tell


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
        returned = (results,) if isinstance(results, Value) else results
        values = tuple([_own(v) for v in returned])
        tell("applied", cls.__name__, values, args)
        if any(needs) and is_grad_enabled():
            FunctionNode(cls, ctx, args, values, returned)
        return values if returned is results else values[0]


def _own(result: Any) -> Any:
    """A result under an identity of its own: forward may return an argument, or some other leaf."""
    if not isinstance(result, Value):
        raise TypeError(f"forward must return tensors, got {type(result).__name__}")
    return wrap(result.result_type, result.array, result.backend, result.version)


class FunctionNode(Node):
    """A node made by ``Function.apply``."""

    __slots__ = ("arguments", "ctx", "function", "outputs", "results", "saved")

    foreign = True
    arguments: list[tuple[Edge, Kind] | None]  # where its gradient goes; None: takes none
    outputs: list[tuple[type[Value], Kind]]
    saved: list[tuple[Any, int | None, int]] | None  # value, which result it is, its version

    def __init__(
        self,
        function: type[Function],
        ctx: Context,
        args: Sequence[Any],
        values: Sequence[Any],
        returned: Sequence[Any],
    ) -> None:
        self.function = function
        self.ctx = ctx
        self.hooks = None
        self.seq = next(sequence)
        self.arguments = [
            (edge_to(x), kind_of(x)) if isinstance(x, Value) and x.tracked else None for x in args
        ]
        self.outputs = [(v.result_type, kind_of(v)) for v in values]
        self.results = len(values)
        no_grad_ids = {id(v) for v in ctx._no_grad}
        places = {id(v): i for i, v in enumerate(returned)}
        self.saved = [self._kept(x, places.get(id(x))) for x in ctx._saved]
        ctx._saved = ()
        ctx._no_grad = ()
        for i, (value, original) in enumerate(zip(values, returned, strict=True)):
            if id(original) not in no_grad_ids and value.array.dtype.kind == "f":
                value.node, value.output, value.tracked = self, i, True

    @property
    def name(self) -> str:
        return self.function.__name__

    def edges(self) -> Sequence[Edge]:
        return [taken[0] for taken in self.arguments if taken is not None]

    def gradients(
        self, dYs: list[Any], wanted: Callable[[Edge], bool] | None
    ) -> Sequence[tuple[Edge, Any]]:
        if self.saved is None:
            raise freed(self)
        dYs = [self._zeros(i) if dY is None else dY for i, dY in enumerate(dYs)]
        self.ctx._load = self._load
        try:
            dXs = self.function.backward(self.ctx, *dYs)
        finally:
            self.ctx._load = None  # it holds this node, which holds ctx
        dXs = dXs if isinstance(dXs, tuple | list) else (dXs,)
        if len(dXs) != len(self.arguments):
            raise RuntimeError(
                f"{self.name}.backward returned {len(dXs)} gradients, forward took "
                f"{len(self.arguments)} arguments; return one for each, None for no tensor"
            )
        return [
            (taken[0], self._fitted(dX, i, taken[1], dYs))
            for i, (dX, taken) in enumerate(zip(dXs, self.arguments, strict=True))
            if taken is not None and dX is not None and (wanted is None or wanted(taken[0]))
        ]

    def free(self) -> None:
        self.saved = None

    def _kept(self, x: Any, result: int | None) -> tuple[Any, Any, int]:
        """What to keep of ``x``, which result it is if it is one, and its version."""
        if not isinstance(x, Value):
            return x, None, 0
        bare = x if result is None else wrap(x.result_type, x.array, x.backend, x.version)
        return bare, result, x.version[0]

    def _zeros(self, i: int) -> Any:
        """The gradient of a result that nothing was computed from."""
        result_type, (shape, dtype, backend) = self.outputs[i]
        return filled(result_type, backend, shape, 0, dtype)

    def _fitted(self, dX: Any, i: int, kind: Kind, dYs: list[Any]) -> Any:
        """A gradient that backward made of ``dYs``, summed where it broadcast the argument."""
        wider = isinstance(dX, Value) and broadcasts_to(kind[0], dX.array.shape)
        dX = dX.unbroadcast(kind[0]) if wider else dX
        return checked(f"{self.name}.backward for argument {i}", dX, kind, dYs)

    def _load(self) -> tuple[Any, ...]:
        if self.saved is None:
            raise freed(self)
        loaded = []
        for value, result, version in self.saved:
            if isinstance(value, Value) and value.version[0] != version:
                raise overwritten(self, f"a saved tensor of shape {tuple(value.array.shape)}")
            if result is not None:
                value = wrap(value.result_type, value.array, value.backend, value.version)
                value.node, value.output, value.tracked = self, result, True
            loaded.append(value)
        return tuple(loaded)
