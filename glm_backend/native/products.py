"""Products of rounded activations (rounding.py) by weights of 8 and 4 bits.

What is in a group of columns adds up in whole numbers, groups among each other in float32 and in
order, for one row as for many.

Weights lie in tiles of 64 rows. In a tile, of four vectors each has 16 rows beside each other and
four columns of each; of four bits the lower halves have four columns and the upper ones the next
four. Scales and zeros of a group of columns lie behind it.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor

from glm_backend.native.code import (
    BYTES,
    F32,
    FLOATS,
    I32,
    I64,
    LANES,
    PAIRS,
    PTR,
    SMALL,
    VECTOR,
    VOID,
    Code,
    Operation,
    Value,
    Variable,
    number,
    of_lanes,
)
from glm_backend.native.compiled import compiled
from glm_backend.native.functions import wide_numbers
from glm_backend.native.processor import is_wide

#: Vectors of a tile, and rows of weights in it.
_VECTORS = 4
TILE = _VECTORS * LANES
#: Rows of activations that share what was loaded of a tile; more do not fit the registers.
_ROWS_AT_ONCE = (4, 2, 1)
#: Passes over a tile in which the next one is asked for, while there are rows enough to compute
#: meanwhile: some 5 % of the time of 128 rows. Of four bits there is half as much to wait for, and
#: it took longer.
_FETCHING = 8
#: Bytes that few rows, which wait for memory, ask for ahead: 5 % more of eight bits; of four none.
_SOON = 2048
#: Blocks ahead of which few rows ask for a line, of four bits: processors fetch ahead by themselves
#: within a page of 4 KB, which a block is about, and this begins the next pages. 1 to 4 % more.
_PAGES = 4
#: Names of LLVM's for where a line is wanted.
_FIRST_CACHE, _SECOND_CACHE = I32(3), I32(2)


class Form(NamedTuple):
    """How weights are kept: weight = (q - zero) * scale + middle.

    bits: of q, from 0. group: columns of activations that share a scale. span: columns of weights
    that share a scale and a zero or a middle, in the type of `scales`; 0 for all of a row, with a
    float32 scale. zero: the same for all; None for one of a span, uint8. middle: of a span.
    """

    name: str
    bits: int
    group: int
    span: int = 0
    zero: int | None = None
    scales: torch.dtype = torch.float32
    middle: bool = False

    @property
    def columns(self) -> int:
        """What the columns of a weight are a multiple of."""
        return max(self.group, self.span)

    @property
    def block_bytes(self) -> int:
        """Of a tile's `columns`, with what is behind them."""
        behind = 0 if not self.span else 4 if self.middle else 3
        return TILE * (self.columns * self.bits // 8 + behind)

    @property
    def fetched_bytes(self) -> int:
        """Of the next tile's, that a pass asks for beside each block."""
        return self.block_bytes // _FETCHING


#: By 32 the starter model is as good with uneven activations in one part as by 64 with two.
INT8 = Form("int8", bits=8, group=32, zero=128)
#: Where activations are even: a sixth quicker for prompts, and as good.
LARGE_INT8 = Form("large_int8", bits=8, group=128, zero=128)
#: The authors' own, which is signed.
ROW_INT4 = Form("row_int4", bits=4, group=64, zero=8)
LARGE_INT4 = Form("large_int4", bits=4, group=64, span=128, scales=torch.float16)
SMALL_INT4 = Form(
    "small_int4", bits=4, group=32, span=32, zero=8, scales=torch.bfloat16, middle=True
)


class Laid(NamedTuple):
    """A weight as `product` reads it.

    parts: of how many parts activations are to be, see rounding.py. rows, columns: padded. flat:
    uint8. scale: float32 [rows] where each row has one, else empty.
    """

    form: Form
    parts: int
    rows: int
    columns: int
    flat: Tensor
    scale: Tensor

    @property
    def nbytes(self) -> int:
        return self.flat.nbytes + self.scale.nbytes

    def rounded_sizes(self) -> tuple[int, int]:
        """Columns and groups of a row of rounded activations, all its parts together."""
        columns = self.columns * self.parts
        return columns, columns // self.form.group

    def sizes(self) -> tuple[int, int]:
        """What `product` is told: blocks of columns, and tiles."""
        return self.columns // self.form.columns, self.rows // TILE


def padded_rows(rows: int) -> int:
    """Rows of weights, filled up to whole tiles."""
    return -(-rows // TILE) * TILE


def padded_columns(columns: int, form: Form) -> int:
    """Columns of weights, filled up to whole groups."""
    return -(-columns // form.columns) * form.columns


def laid_out(
    levels: Callable[[slice], Tensor],
    shape: tuple[int, int],
    form: Form,
    scale: Tensor | None = None,
    offset: Tensor | None = None,
) -> Tensor:
    """The weights as `product` reads them: uint8, flat.

    levels: q of some rows, uint8 [rows, columns]. shape: of the weight; columns are whole groups.
    scale, offset (the zero or the middle): of spans, [rows, spans].
    """
    rows, columns = shape
    blocks, tiles = columns // form.columns, padded_rows(rows) // TILE
    flat = torch.empty(tiles, blocks, form.block_bytes, dtype=torch.uint8)
    for tile in range(tiles):
        some = slice(tile * TILE, min((tile + 1) * TILE, rows))
        parts = [_in_tiles(levels(some), form)]
        if scale is not None and offset is not None:
            parts += [_beside(part[some]) for part in (scale, offset)]
        flat[tile] = torch.cat(parts, -1)
    return flat.flatten()


def _in_tiles(levels: Tensor, form: Form) -> Tensor:
    """[rows, columns] -> [tiles, blocks, bytes], uint8."""
    halves = 8 // form.bits
    levels = _filled(levels)
    cut = levels.view(-1, _VECTORS, LANES, levels.shape[1] // form.columns, form.columns // 4, 4)
    tiled = cut.permute(0, 3, 4, 1, 2, 5)  # tile, block, four columns, vector, lane, column
    if halves == 2:
        tiled = tiled[:, :, ::2] | (tiled[:, :, 1::2] << 4)
    return tiled.flatten(2)


def _beside(numbers: Tensor) -> Tensor:
    """Scales or the like, [rows, spans] -> their bytes, [tiles, spans, bytes]."""
    tiled = _filled(numbers).view(-1, TILE, numbers.shape[1]).transpose(1, 2)
    return tiled.contiguous().view(torch.uint8)


def _filled(rows: Tensor) -> Tensor:
    """With rows of zeros up to whole tiles."""
    missing = padded_rows(len(rows)) - len(rows)
    return (
        torch.cat([rows, rows.new_zeros(missing, rows.shape[1])]) if missing else rows.contiguous()
    )


@functools.cache
def product(form: Form, parts: int, *, adds: bool = False) -> int:
    """The address of the operation that multiplies what was rounded, in so many parts, by weights.

    Buffers: q, scales, sums as rounding.py writes them; y, float32 [rows, padded rows of the
    weights], which it `adds` to or writes. Fixed: the weights (`laid_out`); their scales, float32
    [padded rows], where a row has one; what is added to each row of y, [padded rows]. Sizes: blocks
    of columns, tiles.
    """
    kind = _Kind(form, parts, adds)
    return compiled(functools.partial(_write_product, kind), kind.name)


class _Kind(NamedTuple):
    """What a product is of, and what becomes of its result."""

    form: Form
    parts: int
    adds: bool

    @property
    def name(self) -> str:
        return f"{self.form.name}_{self.parts}{'_adds' if self.adds else ''}"


def _write_product(kind: _Kind, module: Any) -> None:
    form, parts, _ = kind
    tiles_at_once = {n: _Tile(module, kind, n) for n in _ROWS_AT_ONCE if n >= parts}
    for tile in tiles_at_once.values():
        tile.write()
    code = Operation(module, kind.name)
    b = code.b
    q, scales, sums, y = (code.buffer() for _ in range(4))
    weights, row_scales, bias = (code.fixed() for _ in range(3))
    blocks, tiles = code.size(), code.size()
    group_bytes = code.product(blocks, form.columns // form.group * 4 * parts)  # of a row's scales
    row_bytes = code.product(blocks, form.columns * parts)
    y_bytes = code.product(tiles, TILE * 4)
    tile_bytes = code.product(blocks, form.block_bytes)
    fetched = code.product(blocks, form.fetched_bytes)
    with code.helping(tiles) as place:
        weight = code.at(weights, code.product(place, tile_bytes))
        along = code.product(place, TILE * 4)
        done = code.variable(number(0))
        for at_once, tile in tiles_at_once.items():
            step = at_once // parts
            with code.loop(done.get(), b.sub(code.rows, number(step - 1)), step) as row:
                groups = code.product(row, group_bytes)
                turn = b.srem(b.sdiv(row, number(step)), number(_FETCHING))
                given = (
                    code.at(q, code.product(row, row_bytes)),
                    code.at(scales, groups),
                    code.at(sums, groups),
                    weight,
                    code.at(row_scales, along),
                    code.at(bias, along),
                    code.at(y, code.sum(code.product(row, y_bytes), along)),
                    code.at(weight, code.sum(tile_bytes, code.product(turn, fetched))),
                    blocks,
                    y_bytes,
                )
                b.call(tile.function, given)
                done.set(code.sum(row, step))
    code.done()


class _Tile(Code):
    """Some rows of activations by a tile of weights: y[row] = the sum over its blocks.

    rows: of what was rounded, so with two parts there are half as many of y.
    """

    def __init__(self, module: Any, kind: _Kind, rows: int) -> None:
        super().__init__(module, f"{kind.name}_tile_{rows}", [PTR] * 8 + [I64] * 2)
        self.function.attributes.add("noinline")
        self._form, self._parts, self._adds = kind
        waits = self._form.bits == 8
        self._many, self._few = (
            waits and rows == _ROWS_AT_ONCE[0],
            waits and rows < _ROWS_AT_ONCE[0],
        )
        self._begins_pages = not waits and rows < _ROWS_AT_ONCE[0]
        self._places = [(row, vector) for row in range(rows) for vector in range(_VECTORS)]
        self._rows = range(rows)
        self._q, self._scales, self._sums, self._weight = self.arguments[:4]
        self._row_scale, self._bias, self._y, self._ahead = self.arguments[4:8]
        self._blocks, self._y_bytes = self.arguments[8:]

    def write(self) -> None:
        form, b = self._form, self.b
        zeros = of_lanes(FLOATS, 0.0)
        y = {place: self.variable(zeros) for place in self._places}
        per_block = form.columns // form.group
        with self.loop(number(0), self._blocks) as block:
            weight = self.at(self._weight, self.product(block, form.block_bytes))
            if self._many:
                self._fetch(block)
            if self._begins_pages:
                self._ask_for(weight, _PAGES * form.block_bytes, _FIRST_CACHE)
            totals = {place: zeros if form.span else y[place].get() for place in self._places}
            shifts = dict.fromkeys(self._rows, zeros)
            for part in range(per_block):
                group = self.sum(self.product(block, per_block), part)
                tile = self.at(weight, part * TILE * form.group * form.bits // 8)
                self._add_group(group, tile, totals, shifts)
            if form.span:
                self._add_span(weight, totals, shifts, y)
            else:
                for place in self._places:
                    y[place].set(totals[place])
        for row in self._rows[:: self._parts]:
            for vector in range(_VECTORS):
                value = y[row, vector].get()
                if self._parts == 2:
                    value = b.fadd(value, y[row + 1, vector].get())
                self._store(value, row // self._parts, vector)
        self.done()

    def _fetch(self, block: Value) -> None:
        """Asks for some of the next tile."""
        fetched = self._form.fetched_bytes
        begin = self.at(self._ahead, self.product(block, fetched))
        for place in range(0, fetched, VECTOR):
            self._ask_for(begin, place, _SECOND_CACHE)

    def _ask_for(self, pointer: Value, offset: int, cache: Value) -> None:
        """Has the line of an address brought from memory, to be read."""
        self.call("llvm.prefetch.p0", VOID, self.at(pointer, offset), I32(0), cache, I32(1))

    def _store(self, value: Value, row: int, vector: int) -> None:
        b, along = self.b, vector * VECTOR
        if not self._form.span:
            value = b.fmul(value, self.load(FLOATS, self._row_scale, along))
        value = b.fadd(value, self.load(FLOATS, self._bias, along))
        place = self.sum(self.product(self._y_bytes, row), along)
        if self._adds:
            value = b.fadd(self.load(FLOATS, self._y, place), value)
        self.store(value, self._y, place)

    def _add_group(
        self,
        group: Value,
        tile: Value,
        totals: dict[tuple[int, int], Value],
        shifts: dict[int, Value],
    ) -> None:
        """One group of columns, in whole numbers, then times the scales of the activations.

        shifts: of each row the sum of its activations, which zeros and middles are multiplied by.
        """
        form, b = self._form, self.b
        scale: dict[int, Value] = {}
        starts: dict[int, Value] = {}
        for row in self._rows:
            groups = self.product(self._blocks, form.columns // form.group)
            place = self.product(self.sum(self.product(groups, row), group), 4)
            scale[row] = self.splat(self.load(F32, self._scales, place))
            whole = self.load(I32, self._sums, place)
            starts[row] = self.splat(b.mul(whole, I32(-(form.zero or 0))))
            if form.span:
                activations = b.fmul(scale[row], b.sitofp(self.splat(whole), FLOATS))
                shifts[row] = b.fadd(shifts[row], activations)
        at_once = _VECTORS if is_wide() else 1  # whose sums fit the registers
        for first in range(0, _VECTORS, at_once):
            vectors = range(first, first + at_once)
            sums = {(row, v): self.variable(starts[row]) for row in self._rows for v in vectors}
            self._dot(group, tile, vectors, sums)
            for place, total in sums.items():
                whole = b.sitofp(total.get(), FLOATS)
                totals[place] = self.fma(whole, scale[place[0]], totals[place])

    def _dot(
        self, group: Value, tile: Value, vectors: range, sums: dict[tuple[int, int], Variable]
    ) -> None:
        """The whole numbers of a group, of some vectors of the tile."""
        form, b = self._form, self.b
        halves = 8 // form.bits
        columns = 4 * halves
        with self.loop(number(0), number(form.group // columns)) as step:
            weights = self.at(tile, self.product(step, TILE * 4))
            place = self.sum(self.product(group, form.group), self.product(step, columns))
            fours = {}
            for row in self._rows:
                q = self.at(self._q, self.sum(self.product(self._blocks, form.columns, row), place))
                for half in range(halves):
                    four = self.splat(self.load(I32, q, half * 4))
                    fours[row, half] = b.bitcast(four, BYTES)
            for vector in vectors:
                if self._few:
                    self._ask_for(weights, vector * VECTOR + _SOON, _FIRST_CACHE)
                loaded = self.load(BYTES, weights, vector * VECTOR)
                for half, levels in enumerate(self._halves(loaded)):
                    for row in self._rows:
                        total = sums[row, vector]
                        total.set(self.dot_bytes(total.get(), levels, fours[row, half], form.bits))

    def _halves(self, loaded: Value) -> list[Value]:
        """The levels of a vector: bytes, or the lower and the upper halves of bytes."""
        if self._form.bits == 8:
            return [loaded]
        b = self.b
        lower, four = of_lanes(BYTES, 15), of_lanes(PAIRS, 4)
        shifted = b.bitcast(b.lshr(b.bitcast(loaded, PAIRS), four), BYTES)
        return [b.and_(loaded, lower), b.and_(shifted, lower)]

    def _add_span(
        self,
        weight: Value,
        totals: dict[tuple[int, int], Value],
        shifts: dict[int, Value],
        y: dict[tuple[int, int], Variable],
    ) -> None:
        """A span's sums times the scales of the weights; less the zeros, or with the middles."""
        form, b = self._form, self.b
        behind = self.at(weight, TILE * form.columns * form.bits // 8)
        offsets = self.at(behind, TILE * 2)
        for vector in range(_VECTORS):
            along = vector * LANES * 2
            scale = wide_numbers(self, form.scales, behind, along)
            if form.middle:
                offset = wide_numbers(self, form.scales, offsets, along)
            else:
                narrow = self.load(SMALL, offsets, vector * LANES)
                offset = b.uitofp(narrow, FLOATS)
            for row in self._rows:
                total = totals[row, vector]
                if not form.middle:
                    total = self.fma(b.fneg(offset), shifts[row], total)
                sum_ = self.fma(scale, total, y[row, vector].get())
                if form.middle:
                    sum_ = self.fma(offset, shifts[row], sum_)
                y[row, vector].set(sum_)
