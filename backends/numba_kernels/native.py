"""One native function for many launches of compiled kernels: calls in a row, and no Python.

``programs`` hands over stages, one after the other in time: each is a few pieces of work that may
run at once. What leaves is a ``Native`` that runs them, on as many threads as enter it. LLVM comes
with Numba; a function is written through its builder and compiled in a few milliseconds, since the
kernels are called where Numba has put them.

A stage has two counters in memory, of pieces claimed and of pieces done. A thread claims pieces
until there are none, waits until all are done, and goes on: so one that comes late finds everything
claimed and passes through, and no thread waits for one that is asleep.
"""

from __future__ import annotations

import platform
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import llvmlite.binding as llvm
import numpy as np
from llvmlite import ir
from numba import prange, types
from numba.extending import intrinsic

from tinygrad_mnist.backends.numba_kernels.compile import compiled, region_of

_intrinsic: Any = intrinsic

LINE = 8  # counters in a cache line
SPINS = 2000  # looks at a counter, after which a thread offers its core to others
_X86 = platform.machine().lower() in ("x86_64", "amd64", "i686")
_I32, _I64 = ir.IntType(32), ir.IntType(64)
_ZERO, _ONE = ir.Constant(_I64, 0), ir.Constant(_I64, 1)


class Argument(NamedTuple):
    """One of the numbers and addresses that a compiled kernel takes.

    ``value`` is a constant; with a ``cell`` it is added to what the cell of the table holds, and
    with a ``step`` a piece's number times this is added as well. ``bound`` 0 and 1 stand for the
    first item of the piece and for the one after its last.
    """

    value: Any = 0
    cell: int | None = None
    step: int = 0
    bound: int | None = None


class Launch(NamedTuple):
    """A kernel at ``address``, of the LLVM type ``function``, on all ``items`` in ``parts``."""

    address: int
    function: Any
    arguments: list[Argument]
    items: int
    parts: int
    step: int  # whose launch it is, for errors


Piece = list[Launch]  # one after the other; several have one part each
Stage = list[Piece]


class Native:
    """A compiled program. It reads ``table`` and ends at the first kernel that reports an error.

    ``failed`` is then one more than the number of its step, else 0.
    """

    def __init__(self, stages: Sequence[Stage], table: np.ndarray, threads: int) -> None:
        self.threads = threads
        counters = np.zeros(LINE * (len(stages) + 2), np.int64)  # one line before, one behind
        self._keep = counters, table
        self._failed = memoryview(counters.data)[LINE : LINE + 1]
        writer = _Writer(counters[LINE:].ctypes.data, table.ctypes.data)
        self._engine = _engine(str(writer.module(stages, threads > 1)))
        self._reset, self._run = map(self._engine.get_function_address, ("reset", "run"))

    def __call__(self, threads: int) -> int:
        """Run on as many threads as it was made for, or alone if there are fewer."""
        if threads >= self.threads > 1:
            alone.region(self.threads, 0, self._reset, self._run)
        else:
            alone(0, 0, self._reset, self._run)
        return self._failed[0]


class _Writer:
    """Writes the functions ``reset`` and ``run`` of a program."""

    def __init__(self, counters: int, table: int) -> None:
        self.counters, self.table = counters, table
        self.ir = ir.Module("program")
        self.ir.triple = llvm.get_process_triple()
        self.launches = 0

    def module(self, stages: Sequence[Stage], shared: bool) -> Any:
        self._write_reset(len(stages))
        function = ir.Function(self.ir, ir.FunctionType(ir.VoidType(), []), "run")
        builder = ir.IRBuilder(function.append_basic_block())
        for number, stage in enumerate(stages):
            if shared:
                self._write_stage(builder, self._claimed(number), stage)
            else:
                self._write_alone(builder, stage)
        builder.ret_void()
        return self.ir

    def _write_reset(self, stages: int) -> None:
        function = ir.Function(self.ir, ir.FunctionType(ir.VoidType(), []), "reset")
        builder = ir.IRBuilder(function.append_basic_block())
        builder.store(_ZERO, _pointer(builder, self.counters))
        for number in range(stages):
            for counter in (self._claimed(number), self._claimed(number) + 8):
                builder.store(_ZERO, _pointer(builder, counter))
        builder.ret_void()

    def _claimed(self, stage: int) -> int:
        """The address of a stage's first counter; the second stands behind it."""
        return self.counters + 8 * LINE * (stage + 1)

    def _write_alone(self, builder: Any, stage: Stage) -> None:
        """All pieces, one after the other."""
        for function, parts in map(self._piece, stage):
            for part in range(parts):
                status = builder.call(function, [ir.Constant(_I64, part)])
                with builder.if_then(builder.icmp_unsigned("!=", status, _ZERO), likely=False):
                    builder.store(status, _pointer(builder, self.counters))
                    builder.ret_void()

    def _write_stage(self, builder: Any, claimed: int, stage: Stage) -> None:
        """Claim a piece and run it, or wait until all are done."""
        pieces = [self._piece(piece) for piece in stage]
        total = sum(parts for _, parts in pieces)
        claim, work, wait = (builder.append_basic_block(name) for name in ("claim", "work", "wait"))
        after, leave = builder.append_basic_block("next"), builder.append_basic_block("leave")
        builder.branch(claim)

        builder.position_at_end(claim)
        pointer = _pointer(builder, claimed)
        mine = builder.atomic_rmw("add", pointer, _ONE, "monotonic")
        free = builder.icmp_signed("<", mine, ir.Constant(_I64, total))
        builder.cbranch(free, work, wait)

        builder.position_at_end(work)
        self._write_choice(builder, mine, pieces)
        builder.atomic_rmw("add", _pointer(builder, claimed + 8), _ONE, "acq_rel")
        builder.branch(claim)

        builder.position_at_end(wait)
        self._write_wait(builder, _pointer(builder, claimed + 8), total)
        failed = builder.load_atomic(_pointer(builder, self.counters), "monotonic", 8)
        builder.cbranch(builder.icmp_unsigned("==", failed, _ZERO), after, leave)
        builder.position_at_end(leave)
        builder.ret_void()
        builder.position_at_end(after)

    def _write_choice(self, builder: Any, mine: Any, pieces: list[tuple[Any, int]]) -> None:
        """Run part ``mine`` of all parts of all ``pieces``."""
        done, first = builder.append_basic_block("done"), 0
        for function, parts in pieces:
            last = ir.Constant(_I64, first + parts)
            with builder.if_then(builder.icmp_signed("<", mine, last)):
                part = builder.sub(mine, ir.Constant(_I64, first))
                status = builder.call(function, [part])
                with builder.if_then(builder.icmp_unsigned("!=", status, _ZERO), likely=False):
                    pointer = _pointer(builder, self.counters)
                    builder.store_atomic(status, pointer, "monotonic", 8)
                builder.branch(done)
            first += parts
        builder.branch(done)
        builder.position_at_end(done)

    def _write_wait(self, builder: Any, done: Any, total: int) -> None:
        """Look at the counter ``done`` until it is ``total``."""
        start = builder.block
        look, rest, tired, again, out = (
            builder.append_basic_block(name) for name in ("look", "rest", "tired", "again", "out")
        )
        builder.branch(look)
        builder.position_at_end(look)
        looks = builder.phi(_I64)
        looks.add_incoming(_ZERO, start)
        found = builder.load_atomic(done, "acquire", 8)
        enough = builder.icmp_signed(">=", found, ir.Constant(_I64, total))
        builder.cbranch(enough, out, rest)
        builder.position_at_end(rest)
        more = builder.add(looks, _ONE)
        if _X86:
            pause = ir.FunctionType(ir.VoidType(), [])
            builder.call(_declared(self.ir, "llvm.x86.sse2.pause", pause), [])
        over = builder.icmp_signed(">", more, ir.Constant(_I64, SPINS))
        builder.cbranch(over, tired, again)
        builder.position_at_end(tired)
        if llvm.address_of_symbol("sched_yield"):
            builder.call(_declared(self.ir, "sched_yield", ir.FunctionType(_I32, [])), [])
        builder.branch(again)
        builder.position_at_end(again)
        looks.add_incoming(more, again)
        builder.branch(look)
        builder.position_at_end(out)

    def _piece(self, piece: Piece) -> tuple[Any, int]:
        """A function of a part's number that runs it, and how many parts there are.

        It returns 0, or one more than the step that failed.
        """
        self.launches += 1
        name = f"piece{self.launches}"
        function = ir.Function(self.ir, ir.FunctionType(_I64, [_I64]), name)
        function.linkage = "internal"
        builder = ir.IRBuilder(function.append_basic_block())
        results = builder.alloca(_I64, LINE), builder.alloca(_I64, LINE)
        for launch in piece:
            status = self._call(builder, launch, function.args[0], results)
            with builder.if_then(status, likely=False):
                builder.ret(ir.Constant(_I64, launch.step + 1))
        builder.ret(_ZERO)
        return function, piece[0].parts

    def _call(self, builder: Any, launch: Launch, part: Any, results: tuple[Any, ...]) -> Any:
        """Whether the kernel reported an error; -2 is Numba's word for a result of None."""
        expected = launch.function.args
        given = [builder.bitcast(r, t) for r, t in zip(results, expected, strict=False)]
        for argument, kind in zip(launch.arguments, expected[2:], strict=True):
            given.append(self._value(builder, argument, kind, part, launch))
        pointer = launch.function.as_pointer()
        kernel = builder.inttoptr(ir.Constant(_I64, launch.address), pointer)
        status = builder.call(kernel, given)
        fine = builder.icmp_signed("==", status, ir.Constant(_I32, 0))
        none = builder.icmp_signed("==", status, ir.Constant(_I32, -2))
        return builder.not_(builder.or_(fine, none))

    def _value(self, builder: Any, each: Argument, kind: Any, part: Any, launch: Launch) -> Any:
        if isinstance(kind, (ir.FloatType, ir.DoubleType)):
            if each.cell is None:
                return ir.Constant(kind, each.value)
            return builder.load(_pointer(builder, self.table + 8 * each.cell, kind))
        if each.bound is not None:
            place = builder.add(part, ir.Constant(_I64, each.bound))
            product = builder.mul(place, ir.Constant(_I64, launch.items))
            return builder.udiv(product, ir.Constant(_I64, launch.parts))
        value = ir.Constant(_I64, each.value)
        if each.cell is not None:
            held = builder.load(_pointer(builder, self.table + 8 * each.cell))
            value = builder.add(held, value)
        if each.step:
            value = builder.add(value, builder.mul(part, ir.Constant(_I64, each.step)))
        if isinstance(kind, ir.PointerType):
            return builder.inttoptr(value, kind)
        return value if kind.width == 64 else builder.trunc(value, kind)


def _pointer(builder: Any, address: int, kind: Any = _I64) -> Any:
    return builder.inttoptr(ir.Constant(_I64, address), kind.as_pointer())


def _declared(module: Any, name: str, function: Any) -> Any:
    return module.globals.get(name) or ir.Function(module, function, name)


def matches(arguments: Iterable[Argument], function: Any) -> bool:
    """Whether a compiled kernel of the LLVM type ``function`` takes these: as this file knows it.

    Numba may come to hand over arrays in another way.
    """
    arguments, kinds = list(arguments), function.args[2:]
    if function.return_type != _I32 or len(arguments) != len(kinds):
        return False
    return all(
        isinstance(kind, (ir.FloatType, ir.DoubleType, ir.PointerType, ir.IntType))
        and (isinstance(each.value, float) == isinstance(kind, (ir.FloatType, ir.DoubleType)))
        for each, kind in zip(arguments, kinds, strict=True)
    )


def _engine(text: str) -> Any:
    """The compiled module ``text``, in memory as long as this lives."""
    llvm.initialize_native_target()
    llvm.initialize_native_asmprinter()
    module = llvm.parse_assembly(text)
    module.verify()
    machine = llvm.Target.from_default_triple().create_target_machine(opt=1, jit=True)
    engine = llvm.create_mcjit_compiler(module, machine)
    engine.finalize_object()
    return engine


# ---- the way in


@_intrinsic
def enter(typing: Any, address: Any) -> Any:
    """Call the function without arguments at ``address``."""

    def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        pointer = ir.FunctionType(ir.VoidType(), []).as_pointer()
        builder.call(builder.inttoptr(arguments[0], pointer), [])
        return context.get_dummy_value()

    return types.void(types.intp), codegen


@compiled
def alone(start: int, stop: int, reset: int, run: int) -> None:
    """A program on this thread; ``start`` and ``stop`` are there as in all kernels."""
    enter(reset)
    enter(run)


@region_of(alone)
def alone_region(threads: int, items: int, reset: int, run: int) -> None:
    enter(reset)
    for _ in prange(threads):
        enter(run)
