"""Contractions in registers: outer products (vector axis = an output axis) and dot products (vector axis = the
reduction axis), and the packed tiles that a dot product's lane sums come in.

A *packed* tile holds a small R x C matrix in 1 row of ceil(R * C / lanes) vectors: element r * C + c of the row is
the matrix's element (r, c); what lies behind R * C is 0. Elementwise functions work on it as on any tile.
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir

from graphc.codegen.host import host
from graphc.codegen.tile.memory import gather_vector, scatter_vector
from graphc.codegen.tile.registry import tile_function
from graphc.codegen.tile.signatures import F32, F64, I64, NONE, Definition, Literal, Type, TypingError
from graphc.codegen.tile.types import (
    BYTES,
    INDEX,
    LLVM_MEMORY,
    constant_like,
    element_pointer,
    expect_tile,
    float_intrinsic,
    literal,
    loaded_dtype,
    pointee,
    row_offset,
    shuffle,
    splat,
    tile_type,
)


def multiply_add(builder: ir.IRBuilder, a: ir.Value, b: ir.Value, c: ir.Value) -> ir.Value:
    """a * b + c, fused where the host has an instruction for it."""
    return float_intrinsic(builder, "fma" if host().fused else "fmuladd", a, b, c)


@tile_function
def tile_fma_outer(acc: Type, ptr: Type, off: Type, row_stride: Type, row: Type) -> Definition:
    """tile_fma_outer(acc RxV, ptr, off, row_stride, row 1xV): acc[r][v] + ptr[off + r * row_stride] * row[v]."""
    out = expect_tile(acc, "acc", F32, F64)
    line = expect_tile(row, "row", out.dtype)
    if pointee(ptr) != out.dtype or line.rows != 1 or line.vectors != out.vectors:
        raise TypingError(f"tile_fma_outer: acc {acc}, column in {ptr} and row {row} do not fit")

    def code(builder: ir.IRBuilder, values: Any) -> Any:
        sums = values[0]
        vectors = values[4]
        result = []
        for r in range(out.rows):
            at = element_pointer(builder, values[1], row_offset(builder, values[2], values[3], r), out.dtype)
            factor = splat(builder, builder.load(at, typ=LLVM_MEMORY[out.dtype]), out.lanes)
            for v in range(out.vectors):
                result.append(multiply_add(builder, factor, vectors[v], sums[r * out.vectors + v]))
        return result

    return acc(acc, ptr, I64, I64, row), code


@tile_function
def tile_fma_dot(acc: Type, a: Type, b: Type) -> Definition:
    """tile_fma_dot(acc RxC, a Rx1, b Cx1): acc[r][c] + a[r] * b[c], lane by lane; sum the lanes after the loop."""
    out = expect_tile(acc, "acc", F32, F64)
    left, right = expect_tile(a, "a", out.dtype), expect_tile(b, "b", out.dtype)
    if (left.rows, left.vectors, right.rows, right.vectors) != (out.rows, 1, out.vectors, 1):
        raise TypingError(f"tile_fma_dot: acc {acc}, a {a} and b {b} do not fit")

    def code(builder: ir.IRBuilder, values: Any) -> Any:
        sums = values[0]
        rows, columns = values[1], values[2]
        # The longer side outermost: its vectors are then needed one at a time, which leaves registers to the sums.
        order = sorted(((r, c) for r in range(out.rows) for c in range(out.vectors)),
                       key=lambda rc: rc if out.rows >= out.vectors else rc[::-1])
        fused = {(r, c): multiply_add(builder, rows[r], columns[c], sums[r * out.vectors + c])
                 for r, c in order}
        return [fused[r, c] for r in range(out.rows) for c in range(out.vectors)]

    return acc(acc, a, b), code


def lane_sums(builder: ir.IRBuilder, vectors: list[ir.Value]) -> list[ir.Value]:
    """Lane i of the result's concatenation is the sum of the lanes of vectors[i], the rest is 0.

    A transpose-and-add tree: each step halves the number of vectors, so `lanes` vectors take `lanes - 1` additions
    and twice as many shuffles, where summing one vector alone takes log2(lanes) of each.
    """
    lanes = vectors[0].type.count
    zero = constant_like(vectors[0].type, 0.0)
    result = []
    for first in range(0, len(vectors), lanes):
        group = vectors[first:first + lanes]
        group += [zero] * (lanes - len(group))
        half = lanes // 2
        while half:
            pairs = zip(group[:len(group) // 2], group[len(group) // 2:], strict=True)
            group = [_fold(builder, a, b, half, zero) for a, b in pairs]
            half //= 2
        result.append(group[0])
    return result


def _fold(builder: ir.IRBuilder, a: ir.Value, b: ir.Value, half: int, zero: ir.Value) -> ir.Value:
    """Fold the blocks of 2 * half lanes of `a` and `b` in half, and interleave them: a, b, a, b, ... .

    Pairing vector i with vector i + n/2 in every step is what leaves the sums in order at the end.
    """
    if a is zero and b is zero:
        return zero
    lanes = a.type.count
    first, second = [], []
    for block in range(0, lanes, 2 * half):
        first += [block + i for i in range(half)] + [lanes + block + i for i in range(half)]
        second += [block + half + i for i in range(half)] + [lanes + block + half + i for i in range(half)]
    return builder.fadd(shuffle(builder, a, b, first), shuffle(builder, a, b, second))


@tile_function
def tile_lane_sums(acc: Type) -> Definition:
    """tile_lane_sums(acc RxC): the packed RxC matrix of the sums of each vector's lanes."""
    source = expect_tile(acc, "acc", F32, F64)
    result = tile_type(source.dtype, 1, -(-source.count // source.lanes))

    def code(builder: ir.IRBuilder, values: Any) -> Any:
        return lane_sums(builder, values[0])

    return result(acc), code


def _is_literal(ty: Type, value: int) -> bool:
    return isinstance(ty, Literal) and ty.value == value


def _packed_indices(builder: ir.IRBuilder, values: list[ir.Value], columns: int, lanes: int, first: int) -> ir.Value:
    """The memory indices of lanes first, first + 1, ... of a packed tile; values: offset, row and column stride."""
    lines = [ir.Constant(ir.VectorType(INDEX, lanes), [(first + i) // columns for i in range(lanes)]),
             ir.Constant(ir.VectorType(INDEX, lanes), [(first + i) % columns for i in range(lanes)])]
    index = splat(builder, values[0], lanes)
    for line, stride in zip(lines, values[1:], strict=True):
        index = builder.add(index, builder.mul(line, splat(builder, stride, lanes)))
    return index


def _packed_mask(size: int, lanes: int, first: int) -> ir.Constant:
    return ir.Constant(ir.VectorType(ir.IntType(1), lanes), [int(first + i < size) for i in range(lanes)])


def _concatenate(builder: ir.IRBuilder, parts: list[ir.Value], lanes: int) -> list[ir.Value]:
    """Equally long vectors one after the other, cut into vectors of `lanes`, padded with 0."""
    columns = parts[0].type.count
    result = []
    for first in range(0, len(parts) * columns, lanes):
        vector = constant_like(ir.VectorType(parts[0].type.element, lanes), 0.0)
        for r, part in enumerate(parts):
            wide = shuffle(builder, part, part, [min(max(first + i - r * columns, 0), columns - 1)
                                                 for i in range(lanes)])
            inside = [r * columns <= first + i < (r + 1) * columns for i in range(lanes)]
            if any(inside):
                vector = shuffle(builder, vector, wide, [lanes + i if inside[i] else i for i in range(lanes)])
        result.append(vector)
    return result


@tile_function
def tile_load_packed(ptr: Type, off: Type, row_stride: Type, col_stride: Type, rows: Type,
                     columns: Type) -> Definition:
    """tile_load_packed(ptr, off, row_stride, col_stride, R, C): the packed RxC matrix of ptr[off + r * row_stride
    + c * col_stride]. Quick where col_stride is the literal 1; a literal row_stride of 0 repeats one row (a bias)."""
    dtype, height, width = pointee(ptr), literal(rows, "R"), literal(columns, "C")
    size = height * width
    if dtype not in (F32, F64):
        raise TypingError(f"tile_load_packed loads floats, not {dtype}")
    result = tile_type(loaded_dtype(ptr), 1, -(-size // tile_type(dtype, 1, 1).lanes))
    line = ir.VectorType(LLVM_MEMORY[dtype], width)

    def by_rows(builder: ir.IRBuilder, values: Any) -> Any:
        parts = []
        for r in range(1 if _is_literal(row_stride, 0) else height):
            address = element_pointer(builder, values[0], row_offset(builder, values[1], values[2], r), dtype)
            parts.append(builder.load(address, align=BYTES[dtype], typ=line))
        parts *= height // len(parts)
        return _concatenate(builder, parts, result.lanes)

    def by_elements(builder: ir.IRBuilder, values: Any) -> Any:
        loaded = []
        for first in range(0, size, result.lanes):
            index = _packed_indices(builder, values[1:4], width, result.lanes, first)
            loaded.append(gather_vector(builder, values[0], index, dtype, _packed_mask(size, result.lanes, first)))
        return loaded

    signature = result(ptr, I64, I64, I64, rows, columns)
    return signature, by_rows if _is_literal(col_stride, 1) else by_elements


@tile_function
def tile_store_packed(ptr: Type, off: Type, row_stride: Type, col_stride: Type, rows: Type, columns: Type,
                      tile: Type) -> Definition:
    """tile_store_packed(ptr, off, row_stride, col_stride, R, C, tile): store a packed RxC matrix to ptr[off +
    r * row_stride + c * col_stride]. Quick where col_stride is the literal 1."""
    stored = expect_tile(tile, "the stored value", pointee(ptr))
    height, count = literal(rows, "R"), literal(columns, "C")
    size = height * count
    if stored.rows != 1 or stored.vectors != -(-size // stored.lanes):
        raise TypingError(f"tile_store_packed: {tile} is no packed {rows} x {columns} matrix")

    def by_rows(builder: ir.IRBuilder, values: Any) -> Any:
        vectors = values[6]
        for r in range(height):
            line = _slice(builder, vectors, r * count, count)
            address = element_pointer(builder, values[0], row_offset(builder, values[1], values[2], r), stored.dtype)
            builder.store(line, builder.bitcast(address, line.type.as_pointer()), align=BYTES[stored.dtype])
        return None

    def by_elements(builder: ir.IRBuilder, values: Any) -> Any:
        for i, vector in enumerate(values[6]):
            first = i * stored.lanes
            index = _packed_indices(builder, values[1:4], count, stored.lanes, first)
            scatter_vector(builder, values[0], index, stored.dtype, vector, _packed_mask(size, stored.lanes, first))
        return None

    signature = NONE(ptr, I64, I64, I64, rows, columns, tile)
    return signature, by_rows if _is_literal(col_stride, 1) else by_elements


def _slice(builder: ir.IRBuilder, vectors: list[ir.Value], first: int, count: int) -> ir.Value:
    """`count` consecutive elements from the concatenation of `vectors`, from element `first` on."""
    lanes = vectors[0].type.count
    start, stop = first // lanes, (first + count - 1) // lanes
    line = shuffle(builder, vectors[start], vectors[min(start + 1, stop)], _positions(first - start * lanes, count,
                                                                                     2 * lanes))
    for i in range(start + 2, stop + 1):  # a row longer than two vectors
        wide = shuffle(builder, vectors[i], vectors[i], [min(max(first + j - i * lanes, 0), lanes - 1)
                                                         for j in range(count)])
        line = shuffle(builder, line, wide, [j if first + j < i * lanes else count + j for j in range(count)])
    return line


def _positions(first: int, count: int, limit: int) -> list[int]:
    return [min(first + i, limit - 1) for i in range(count)]
