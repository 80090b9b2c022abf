"""Writes a function in LLVM's language (https://llvm.org/docs/LangRef.html), in few words.

Vectors have 16 lanes of 32 bits, what an AVX-512 register holds (processor.py). Numbers that change
are variables in memory, as a C compiler writes them; LLVM turns them into registers.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from llvmlite import ir

from glm_backend.native.processor import Processor, processor

#: Of llvmlite, whose own types are not told: a value of a function that is written, and a type.
Value = Any
Type = Any

LANES = 16
I1, I8, I16, I32, I64 = (ir.IntType(bits) for bits in (1, 8, 16, 32, 64))
F16, F32, PTR, VOID = ir.HalfType(), ir.FloatType(), ir.PointerType(), ir.VoidType()
FLOATS, INTS, BYTES = ir.VectorType(F32, LANES), ir.VectorType(I32, LANES), ir.VectorType(I8, 64)
#: As many lanes of fewer bits, and a vector of pairs of bytes.
HALVES, SHORTS, SMALL = (ir.VectorType(kind, LANES) for kind in (F16, I16, I8))
PAIRS = ir.VectorType(I16, 32)
#: Bytes of one such vector.
VECTOR = 64
#: Bytes from one count of pieces to the next: a line of the cache each.
COUNT = 64


def number(value: int) -> Value:
    """A constant of 64 bits."""
    return I64(value)


def of_lanes(type_: Type, value: float) -> Value:
    """A constant vector, the same in all lanes."""
    return ir.Constant(type_, [value] * type_.count)


def numbered() -> Value:
    """A constant of whole numbers: how many lanes there are before each."""
    return ir.Constant(INTS, list(range(LANES)))


class Code:
    """A function under way: `b` is llvmlite's builder, the rest says often needed things shorter.

    arguments: of the function, as given. gives: the type of what it returns. Offsets are in bytes.
    """

    def __init__(
        self, module: ir.Module, name: str, arguments: Sequence[Type], gives: Type | None = None
    ) -> None:
        self.module = module
        kind = ir.FunctionType(gives or VOID, arguments)
        self.function = ir.Function(module, kind, name)
        self.arguments = self.function.args
        self._entry = self.function.append_basic_block()
        self.b = ir.IRBuilder(self.function.append_basic_block())
        self._begin = self.b.block

    def done(self, result: Value | None = None) -> None:
        """Ends the function."""
        self.b.ret_void() if result is None else self.b.ret(result)
        ir.IRBuilder(self._entry).branch(self._begin)

    def variable(self, first: Value) -> Variable:
        """Something that changes; first: what it is now."""
        place = ir.IRBuilder(self._entry).alloca(first.type)
        variable = Variable(self.b, place, first.type)
        variable.set(first)
        return variable

    @contextmanager
    def loop(self, start: Value, stop: Value, step: Value | int = 1) -> Iterator[Value]:
        """Goes through numbers from `start`, as long as they are under `stop`."""
        b, current = self.b, self.variable(start)
        test, body, behind = (self.function.append_basic_block() for _ in range(3))
        b.branch(test)
        b.position_at_end(test)
        place = current.get()
        b.cbranch(b.icmp_signed("<", place, stop), body, behind)
        b.position_at_end(body)
        yield place
        current.set(self.sum(place, step))
        b.branch(test)
        b.position_at_end(behind)

    def product(self, *factors: Value | int) -> Value:
        """Of whole numbers."""
        return self._over(self.b.mul, factors)

    def sum(self, *parts: Value | int) -> Value:
        """Of whole numbers."""
        return self._over(self.b.add, parts)

    def _over(self, join: Any, parts: Sequence[Value | int]) -> Value:
        first, *others = (number(part) if isinstance(part, int) else part for part in parts)
        for other in others:
            first = join(first, other)
        return first

    def at(self, pointer: Value, offset: Value | int) -> Value:
        """The address so many bytes behind."""
        offset = number(offset) if isinstance(offset, int) else offset
        return self.b.gep(pointer, [offset], source_etype=I8)

    def load(self, type_: Type, pointer: Value, offset: Value | int = 0) -> Value:
        return self.b.load(self.at(pointer, offset), typ=type_, align=1)

    def store(self, value: Value, pointer: Value, offset: Value | int = 0) -> None:
        self.b.store(value, self.at(pointer, offset), align=1)

    def call(self, name: str, returns: Type, *arguments: Value) -> Value:
        """Calls an intrinsic, or a function of a library."""
        known = self.module.globals.get(name)
        kinds = [argument.type for argument in arguments]
        called = known or ir.Function(self.module, ir.FunctionType(returns, kinds), name)
        return self.b.call(called, arguments)

    def splat(self, value: Value) -> Value:
        """The same in all 16 lanes."""
        none = ir.Constant(ir.VectorType(value.type, LANES), ir.Undefined)
        first = self.b.insert_element(none, value, I32(0))
        return self.b.shuffle_vector(first, none, of_lanes(INTS, 0))

    def fma(self, a: Value, b: Value, c: Value) -> Value:
        """a * b + c, rounded once; of vectors."""
        return self.call("llvm.fma.v16f32", FLOATS, a, b, c)

    def largest(self, a: Value, b: Value) -> Value:
        """Of vectors, lane by lane; what is no number stays so."""
        return self.call("llvm.maximum.v16f32", FLOATS, a, b)

    def largest_lane(self, vector: Value) -> Value:
        return self.call("llvm.vector.reduce.fmaximum.v16f32", F32, vector)

    def sum_of_lanes(self, vector: Value) -> Value:
        """In one order."""
        return self.call("llvm.vector.reduce.fadd.v16f32", F32, F32(-0.0), vector)

    def dot_bytes(self, sums: Value, unsigned: Value, signed: Value, bits: int) -> Value:
        """Adds to each of 16 sums the products of four bytes, exactly. bits: of the unsigned ones.

        VNNI's vpdpbusd where it is.
        """
        kind = processor()
        if kind is Processor.WIDE:
            return self.call("llvm.x86.avx512.vpdpbusd.512", INTS, sums, unsigned, signed)
        halves = []
        for half in (0, 1):
            total, left, right = (self._half(part, half) for part in (sums, unsigned, signed))
            if kind is Processor.DOTS:
                name = "llvm.x86.avx512.vpdpbusd.256"
                halves.append(self.call(name, total.type, total, left, right))
            else:
                halves.append(self._dot_pairs(total, left, right, bits))
        return self.b.shuffle_vector(*halves, numbered())

    def _half(self, vector: Value, half: int) -> Value:
        count = vector.type.count // 2
        lanes = ir.Constant(ir.VectorType(I32, count), [half * count + n for n in range(count)])
        return self.b.shuffle_vector(vector, ir.Constant(vector.type, ir.Undefined), lanes)

    def _dot_pairs(self, sums: Value, unsigned: Value, signed: Value, bits: int) -> Value:
        """The same in 32 bytes by sums of two products of 16 bits, which AVX2 has."""
        b, pairs = self.b, ir.VectorType(I16, LANES)
        if bits < 8:  # two products of bytes fit 16 bits: 2 * 15 * 127
            twos = self.call("llvm.x86.avx2.pmadd.ub.sw", pairs, unsigned, signed)
            return b.add(sums, self._dot_shorts(twos, of_lanes(pairs, 1)))
        left, right = b.bitcast(unsigned, pairs), b.bitcast(signed, pairs)
        byte, eight = of_lanes(pairs, 255), of_lanes(pairs, 8)
        even = self._dot_shorts(b.and_(left, byte), b.ashr(b.shl(right, eight), eight))
        odd = self._dot_shorts(b.lshr(left, eight), b.ashr(right, eight))
        return b.add(sums, b.add(even, odd))

    def _dot_shorts(self, left: Value, right: Value) -> Value:
        return self.call("llvm.x86.avx2.pmadd.wd", ir.VectorType(I32, 8), left, right)


class Variable:
    """A place in memory, of a function under way."""

    def __init__(self, builder: ir.IRBuilder, place: Value, type_: Type) -> None:
        self._builder, self._place, self._type = builder, place, type_

    def get(self) -> Value:
        return self._builder.load(self._place, typ=self._type)

    def set(self, value: Value) -> None:
        self._builder.store(value, self._place)


class Operation(Code):
    """A function that a program runs (compiled.py): its part of an operation, in each thread.

    What it is given are 64 bits each, behind each other in memory, in the order in which they are
    asked for: fixed addresses and sizes, and, of what differs from step to step, the place in the
    step. That is addresses and numbers behind each other, the number of rows first.
    """

    def __init__(self, module: ir.Module, name: str) -> None:
        super().__init__(module, name, [PTR, PTR, PTR, I64, I64])
        self._given, self._step, self._taken, self.thread, self.threads = self.arguments
        self._asked = 0
        self.rows = self.load(I64, self._step)

    def fixed(self) -> Value:
        """An address."""
        return self._next(PTR)

    def size(self) -> Value:
        return self._next(I64)

    def buffer(self) -> Value:
        """The address of a buffer of the step."""
        return self.load(PTR, self._step, self.product(self._next(I64), 8))

    def number(self) -> Value:
        """A number of the step."""
        return self.load(I64, self._step, self.product(self._next(I64), 8))

    def _next(self, type_: Type) -> Value:
        self._asked += 1
        return self.load(type_, self._given, 8 * (self._asked - 1))

    @contextmanager
    def my_share(self, of: Value) -> Iterator[Value]:
        """Goes through this thread's part of so many pieces, which lie side by side.

        A static schedule, for small pieces: who is done waits for the others.
        """
        with self.loop(*self._part(of, self.thread)) as piece:
            yield piece

    @contextmanager
    def helping(self, of: Value) -> Iterator[Value]:
        """Goes through this thread's part of so many pieces, then helps others with theirs.

        Work stealing (Blumofe and Leiserson 1999), with a count for each part instead of a queue.
        Parts lie side by side, each taken from its beginning. Threads that get as much to do are
        not done at the same time: one loses its core, or has to share its way to memory. Others are
        left their last piece: who is nearly done is not to wait for the count, which is a line that
        caches hand to each other. Once in an operation, which has one count for each part.
        """
        b = self.b
        with self.loop(number(0), self.threads) as further:
            whose = b.srem(self.sum(self.thread, further), self.threads)
            first, behind = self._part(of, whose)
            spared = b.zext(b.icmp_signed(">", further, number(0)), I64)
            taken = self.at(self._taken, self.product(whose, COUNT))
            look, take, body, after = (self.function.append_basic_block() for _ in range(4))
            b.branch(look)
            b.position_at_end(look)
            next_ = self.sum(first, b.load_atomic(taken, "monotonic", 8, typ=I64))
            b.cbranch(b.icmp_signed("<", self.sum(next_, spared), behind), take, after)
            b.position_at_end(take)
            piece = self.sum(first, b.atomic_rmw("add", taken, number(1), "monotonic"))
            b.cbranch(b.icmp_signed("<", piece, behind), body, after)
            b.position_at_end(body)
            yield piece
            b.branch(look)
            b.position_at_end(after)

    def _part(self, of: Value, thread: Value) -> tuple[Value, Value]:
        """Where a thread's part of so many pieces begins and ends."""
        begin, end = (
            self.b.sdiv(self.product(of, place), self.threads)
            for place in (thread, self.sum(thread, 1))
        )
        return begin, end
