"""Products of matrices in registers: a tile of the result is summed up before it is written.

What BLAS does for large matrices, without the copies that it makes of them first: for the narrow
layers of small networks those take longer than the product. A tile is LLVM's own vectors, which
compiled loops do not come to by themselves; ``dot_rows`` and ``add_product`` cut a product into
tiles, and products and convolutions call them. A sum's order depends on the shapes alone.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import llvmlite.binding as llvm
import numba
from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from tinygrad_mnist.backends.numba_kernels.compile import compiled

Array = Any
_numba: Any = numba  # typed or not, as the version has it
Code = Any  # a value in LLVM's code

# Bytes of a register; rows of a tile of dots and of one of add_product, whose sums and factors the
# processor's 32 registers hold, or 16.
REGISTER, HIGH, TALL = (64, 6, 4) if llvm.get_host_cpu_features().get("avx512f") else (32, 2, 2)
BROAD = 4  # rows of the right matrix in a tile of dots, registers in one of add_product

_INT, _PLACE = ir.IntType(64), ir.IntType(32)


class _Vectors:
    """LLVM's code on vectors of ``lanes`` floats, at addresses; of one lane, on floats."""

    def __init__(self, builder: Any, like: Any, lanes: int) -> None:
        self.builder = builder
        self.size = like.bitwidth // 8
        self.lanes = lanes
        self.float = ir.FloatType() if self.size == 4 else ir.DoubleType()
        self.type = ir.VectorType(self.float, lanes) if lanes > 1 else self.float
        self.zero = ir.Constant(self.type, [0.0] * lanes if lanes > 1 else 0.0)

    def after(self, address: Code, count: int, step: Code | int) -> Code:
        """The address ``count`` steps of bytes further on."""
        step = ir.Constant(_INT, step) if isinstance(step, int) else step
        return self.builder.add(address, self.builder.mul(step, ir.Constant(_INT, count)))

    def load(self, address: Code) -> Code:
        pointer = self.builder.inttoptr(address, self.type.as_pointer())
        return self.builder.load(pointer, align=self.size)

    def store(self, value: Code, address: Code) -> None:
        pointer = self.builder.inttoptr(address, value.type.as_pointer())
        self.builder.store(value, pointer, align=self.size)

    def spread(self, number: Code) -> Code:
        """A vector full of one number."""
        if self.lanes == 1:
            return number
        none = ir.Constant(self.type, ir.Undefined)
        first = self.builder.insert_element(none, number, ir.Constant(_PLACE, 0))
        return self.picked(first, first, [0] * self.lanes)

    def picked(self, a: Code, b: Code, lanes: list[int]) -> Code:
        """A vector of the ``lanes`` of a and, counted on, of b."""
        order = ir.Constant(ir.VectorType(_PLACE, len(lanes)), lanes)
        return self.builder.shuffle_vector(a, b, order)

    def totals(self, vectors: list[Code]) -> list[Code]:
        """Vectors of the sums of the lanes of each, in order: half of the lanes at a time."""
        part = self.lanes
        while part > 1:
            part //= 2
            lows = [i for i in range(2 * self.lanes) if i // part % 2 == 0]
            highs = [i + part for i in lows]
            if len(vectors) % 2:
                vectors = [*vectors, vectors[-1]]  # whose sums come twice
            vectors = [
                self.builder.fadd(self.picked(a, b, lows), self.picked(a, b, highs))
                for a, b in zip(vectors[::2], vectors[1::2], strict=True)
            ]
        return vectors

    def multiplied(
        self,
        sums: list[list[Code]],
        rounds: Code,
        lefts: Callable[[Code], list[Code]],
        rights: Callable[[Code], list[Code]],
    ) -> list[list[Code]]:
        """``sums`` (rows, columns) plus all ``lefts(i)`` times all ``rights(i)`` for each round i.

        A loop that holds the sums in registers.
        """
        builder, before = self.builder, self.builder.block
        head, body, after = (builder.append_basic_block() for _ in range(3))
        builder.branch(head)
        builder.position_at_end(head)
        i = builder.phi(_INT)
        i.add_incoming(ir.Constant(_INT, 0), before)
        held = [[builder.phi(self.type) for _ in row] for row in sums]
        for phis, row in zip(held, sums, strict=True):
            for phi, first in zip(phis, row, strict=True):
                phi.add_incoming(first, before)
        builder.cbranch(builder.icmp_signed("<", i, rounds), body, after)
        builder.position_at_end(body)
        a, b = lefts(i), rights(i)
        for left, phis in zip(a, held, strict=True):
            for right, phi in zip(b, phis, strict=True):
                product = builder.fmul(left, right, flags=("contract",))
                phi.add_incoming(builder.fadd(product, phi, flags=("contract",)), body)
        i.add_incoming(builder.add(i, ir.Constant(_INT, 1)), body)
        builder.branch(head)
        builder.position_at_end(after)
        return held


def _dots(rows: int, columns: int) -> Any:
    """z = x @ yᵀ, for ``rows`` of x and ``columns`` of y's rows, over whole registers of them."""

    @intrinsic
    def dots(
        typing: Any, x: Any, dx: Any, y: Any, dy: Any, z: Any, dz: Any, n: Any, like: Any
    ) -> Any:
        def generate(context: Any, builder: Any, signature: Any, given: Any) -> Any:
            x, dx, y, dy, z, dz, n, _ = given
            code = _Vectors(builder, like, REGISTER * 8 // like.bitwidth)
            lefts = [code.after(x, row, dx) for row in range(rows)]
            rights = [code.after(y, column, dy) for column in range(columns)]

            def at(places: list[Code]) -> Callable[[Code], list[Code]]:
                wide = ir.Constant(_INT, REGISTER)
                return lambda i: [code.load(builder.add(p, builder.mul(i, wide))) for p in places]

            none = [[code.zero] * columns for _ in lefts]
            rounds = builder.udiv(n, ir.Constant(_INT, code.lanes))
            sums = code.multiplied(none, rounds, at(lefts), at(rights))
            totals = code.totals([each for row in sums for each in row])
            _store_rows(code, totals, rows, columns, z, dz)
            return context.get_dummy_value()

        return types.void(*[types.intp] * 7, like), generate

    return dots


def _store_rows(
    code: _Vectors, totals: list[Code], rows: int, columns: int, z: Code, dz: Code
) -> None:
    """Write numbers that fill ``totals`` row by row."""
    for row in range(rows):
        vector, first = divmod(row * columns, code.lanes)
        following = totals[min(vector + 1, len(totals) - 1)]
        lanes = list(range(first, first + columns))
        code.store(code.picked(totals[vector], following, lanes), code.after(z, row, dz))


def _outer(rows: int, registers: int, lanes_of: Callable[[Any], int]) -> Any:
    """z = x @ y, or with ``keep`` added to z: ``rows`` of x, ``registers`` of y's columns."""

    @intrinsic
    def outer(
        typing: Any, x: Any, dx: Any, step: Any, y: Any, dy: Any, z: Any, dz: Any, n: Any,
        keep: Any, like: Any,
    ) -> Any:  # fmt: skip
        def generate(context: Any, builder: Any, signature: Any, given: Any) -> Any:
            x, dx, step, y, dy, z, dz, n, keep, _ = given
            code, single = _Vectors(builder, like, lanes_of(like)), _Vectors(builder, like, 1)
            wide = code.lanes * code.size
            ends = [code.after(z, row, dz) for row in range(rows)]
            places = [[code.after(end, i, wide) for i in range(registers)] for end in ends]
            kept = builder.icmp_signed("!=", keep, ir.Constant(_INT, 0))
            first = [[builder.select(kept, code.load(p), code.zero) for p in row] for row in places]

            def lefts(i: Code) -> list[Code]:
                column = builder.add(x, builder.mul(i, step))
                return [code.spread(single.load(code.after(column, r, dx))) for r in range(rows)]

            def rights(i: Code) -> list[Code]:
                line = builder.add(y, builder.mul(i, dy))
                return [code.load(code.after(line, r, wide)) for r in range(registers)]

            for ends, sums in zip(places, code.multiplied(first, n, lefts, rights), strict=True):
                for place, total in zip(ends, sums, strict=True):
                    code.store(total, place)
            return context.get_dummy_value()

        return types.void(*[types.intp] * 9, like), generate

    return outer


def _whole(like: Any) -> int:
    return REGISTER * 8 // int(like.bitwidth)


def _quarter(like: Any) -> int:
    return _whole(like) // 4


def _one(like: Any) -> int:
    return 1


_dots_tile, _dots_row = _dots(HIGH, BROAD), _dots(1, BROAD)
_broad, _broad_row = _outer(TALL, BROAD, _whole), _outer(1, BROAD, _whole)
_narrow, _narrow_row = _outer(TALL, 1, _whole), _outer(1, 1, _whole)
_few, _few_row = _outer(TALL, 1, _quarter), _outer(1, 1, _quarter)
_last, _last_row = _outer(TALL, 1, _one), _outer(1, 1, _one)


@compiled
def dot_rows(x: Array, y: Array, z: Array) -> None:
    """z = x @ yᵀ: x (rows, n), y (columns, n), z (rows, columns).

    The numbers of a row are neighbours, in all three.
    """
    rows, columns, n, like = len(x), len(y), x.shape[1], z.dtype.type(0)
    dx, dy, dz, size = x.strides[0], y.strides[0], z.strides[0], z.itemsize
    whole = 0 if columns < BROAD else n - n % (REGISTER // size)
    for row in range(0, rows if whole else 0, HIGH if rows >= HIGH else 1):
        r = min(row, rows - HIGH) if rows >= HIGH else row  # the last tiles overlap those before
        left = x.ctypes.data + r * dx
        for column in range(0, columns, BROAD):
            c = min(column, columns - BROAD)
            right, into = y.ctypes.data + c * dy, z.ctypes.data + r * dz + c * size
            if rows >= HIGH:
                _dots_tile(left, dx, right, dy, into, dz, n, like)
            else:
                _dots_row(left, dx, right, dy, into, dz, n, like)
    if whole < n or not n:
        for r in range(rows):
            for c in range(columns):
                total = z[r, c] if whole else like
                for i in range(whole, n):
                    total += x[r, i] * y[c, i]
                z[r, c] = total


@compiled
def add_product(x: Array, y: Array, z: Array, keep: bool) -> None:
    """z = x @ y, or z + x @ y to ``keep`` it: x (rows, n), y (n, columns), z (rows, columns).

    The numbers of a row are neighbours in y and z; x lies in any order.
    """
    rows, columns, n, like, held = len(x), y.shape[1], len(y), z.dtype.type(0), int(keep)
    dx, step, dy, dz, size = x.strides[0], x.strides[1], y.strides[0], z.strides[0], z.itemsize
    tall, lanes = rows - rows % TALL, REGISTER // size
    c = 0
    while c < columns:
        left, over, into = x.ctypes.data, y.ctypes.data + c * size, z.ctypes.data + c * size
        if columns - c >= BROAD * lanes:
            for r in range(0, tall, TALL):
                _broad(left + r * dx, dx, step, over, dy, into + r * dz, dz, n, held, like)
            for r in range(tall, rows):
                _broad_row(left + r * dx, dx, step, over, dy, into + r * dz, dz, n, held, like)
            c += BROAD * lanes
        elif columns - c >= lanes:
            for r in range(0, tall, TALL):
                _narrow(left + r * dx, dx, step, over, dy, into + r * dz, dz, n, held, like)
            for r in range(tall, rows):
                _narrow_row(left + r * dx, dx, step, over, dy, into + r * dz, dz, n, held, like)
            c += lanes
        elif columns - c >= lanes // 4 > 1:
            for r in range(0, tall, TALL):
                _few(left + r * dx, dx, step, over, dy, into + r * dz, dz, n, held, like)
            for r in range(tall, rows):
                _few_row(left + r * dx, dx, step, over, dy, into + r * dz, dz, n, held, like)
            c += lanes // 4
        else:
            for r in range(0, tall, TALL):
                _last(left + r * dx, dx, step, over, dy, into + r * dz, dz, n, held, like)
            for r in range(tall, rows):
                _last_row(left + r * dx, dx, step, over, dy, into + r * dz, dz, n, held, like)
            c += 1


if _numba.config.DISABLE_JIT:  # then there is nothing that could run LLVM's code

    def dot_rows(x: Array, y: Array, z: Array) -> None:
        z[:] = x @ y.T

    def add_product(x: Array, y: Array, z: Array, keep: bool) -> None:
        z[:] = z + x @ y if keep else x @ y
