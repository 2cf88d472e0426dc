"""Tiles and memory: loads, masked loads, gathers, stores, broadcasts.

Offsets and strides are int64 counts of elements. Element (r, v, l) of a tile is element
`off + r * row_stride + v * lanes + l` of memory. A `count` is the number of valid elements of a row;
what lies behind it is neither read nor written, and reads as 0.
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba.core import types
from numba.core.errors import TypingError

from graphc.codegen.tile.registry import tile_function
from graphc.codegen.tile.types import (
    BYTES,
    F32,
    I32,
    I64,
    INDEX,
    INT32,
    LLVM_MEMORY,
    MASK,
    U8,
    TileType,
    call_intrinsic,
    constant_like,
    element_pointer,
    expect_tile,
    lane_indices,
    literal,
    loaded_dtype,
    pack,
    pointee,
    row_offset,
    splat,
    tile_type,
    type_suffix,
    unpack,
)

_Definition = Any  # (signature, codegen), see graphc.codegen.tile.registry


def widen(builder: ir.IRBuilder, vector: ir.Value, dtype: types.Type) -> ir.Value:
    """A vector as it lies in memory to a vector as tiles hold it (uint8 to int32, bool bytes to bits)."""
    if dtype == U8:
        return builder.zext(vector, ir.VectorType(INT32, vector.type.count))
    if dtype == MASK:
        return builder.icmp_unsigned("!=", vector, constant_like(vector.type, 0))
    return vector


def narrow(builder: ir.IRBuilder, vector: ir.Value, dtype: types.Type) -> ir.Value:
    """The inverse of `widen`."""
    memory = ir.VectorType(LLVM_MEMORY[dtype], vector.type.count)
    if dtype == U8:
        return builder.trunc(vector, memory)
    if dtype == MASK:
        return builder.zext(vector, memory)
    return vector


def valid_lanes(builder: ir.IRBuilder, count: ir.Value, vector: int, lanes: int) -> ir.Value:
    """The bit mask of the lanes of a row's vector number `vector` that lie before `count`."""
    bound = builder.trunc(_clamp(builder, count, vector, lanes), INT32)
    return builder.icmp_signed("<", lane_indices(lanes, 0, 32), splat(builder, bound, lanes))


def _clamp(builder: ir.IRBuilder, count: ir.Value, vector: int, lanes: int) -> ir.Value:
    """count - vector * lanes, clamped to 0..lanes so that it fits 32 bits."""
    left = builder.sub(count, INDEX(vector * lanes))
    left = call_intrinsic(builder, "llvm.smax.i64", INDEX, [left, INDEX(0)])
    return call_intrinsic(builder, "llvm.smin.i64", INDEX, [left, INDEX(lanes)])


def load_vector(builder: ir.IRBuilder, ptr: ir.Value, offset: ir.Value, dtype: types.Type, lanes: int,
                mask: ir.Value | None = None) -> ir.Value:
    """Load one vector of consecutive elements (unmasked lanes are 0), widened."""
    memory = ir.VectorType(LLVM_MEMORY[dtype], lanes)
    address = element_pointer(builder, ptr, offset, dtype)
    if mask is None:
        return widen(builder, builder.load(address, align=BYTES[dtype], typ=memory), dtype)
    loaded = call_intrinsic(builder, f"llvm.masked.load.{type_suffix(memory)}.p0", memory,
                            [address, INT32(BYTES[dtype]), mask, constant_like(memory, 0)])
    return widen(builder, loaded, dtype)


def store_vector(builder: ir.IRBuilder, ptr: ir.Value, offset: ir.Value, dtype: types.Type, vector: ir.Value,
                 mask: ir.Value | None = None) -> None:
    """Store one vector of consecutive elements, narrowed; only the lanes of `mask`."""
    vector = narrow(builder, vector, dtype)
    address = element_pointer(builder, ptr, offset, dtype)
    if mask is None:
        builder.store(vector, builder.bitcast(address, vector.type.as_pointer()), align=BYTES[dtype])
        return
    call_intrinsic(builder, f"llvm.masked.store.{type_suffix(vector.type)}.p0", ir.VoidType(),
                   [vector, address, INT32(BYTES[dtype]), mask])


def gather_vector(builder: ir.IRBuilder, ptr: ir.Value, indices: ir.Value, dtype: types.Type,
                  mask: ir.Value | None = None) -> ir.Value:
    """Load the elements at a vector of indices (unmasked lanes are 0), widened."""
    lanes = indices.type.count
    memory = ir.VectorType(LLVM_MEMORY[dtype], lanes)
    pointers = _lane_pointers(builder, ptr, indices, dtype)
    if mask is None:
        mask = constant_like(ir.VectorType(ir.IntType(1), lanes), 1)
    loaded = call_intrinsic(builder, f"llvm.masked.gather.{type_suffix(memory)}.v{lanes}p0", memory,
                            [pointers, INT32(BYTES[dtype]), mask, constant_like(memory, 0)])
    return widen(builder, loaded, dtype)


def scatter_vector(builder: ir.IRBuilder, ptr: ir.Value, indices: ir.Value, dtype: types.Type, vector: ir.Value,
                   mask: ir.Value | None = None) -> None:
    """Store elements at a vector of indices, narrowed; of equal indices the last lane wins."""
    vector = narrow(builder, vector, dtype)
    lanes = indices.type.count
    if mask is None:
        mask = constant_like(ir.VectorType(ir.IntType(1), lanes), 1)
    call_intrinsic(builder, f"llvm.masked.scatter.{type_suffix(vector.type)}.v{lanes}p0", ir.VoidType(),
                   [vector, _lane_pointers(builder, ptr, indices, dtype), INT32(BYTES[dtype]), mask])


def _lane_pointers(builder: ir.IRBuilder, ptr: ir.Value, indices: ir.Value, dtype: types.Type) -> ir.Value:
    # llvmlite's gep does not know that a vector of indices gives a vector of pointers; integers do as well.
    lanes = indices.type.count
    if indices.type.element.width != 64:
        indices = builder.sext(indices, ir.VectorType(INDEX, lanes))
    base = splat(builder, builder.ptrtoint(ptr, INDEX), lanes)
    size = constant_like(base.type, BYTES[dtype])
    return builder.inttoptr(builder.add(base, builder.mul(indices, size)), ir.VectorType(ir.PointerType(), lanes))


def _count_type(count: types.Type | None) -> types.Type:
    return types.none if count is None or isinstance(count, (types.NoneType, types.Omitted)) else types.int64


def _load(ptr: types.Type, rows: types.Type, vectors: types.Type, masked: bool) -> tuple[TileType, Any]:
    """The tile type of a load, and code that emits it; the last value is the count if `masked`."""
    dtype = pointee(ptr)
    result = tile_type(loaded_dtype(ptr), literal(rows, "rows"), literal(vectors, "vectors"))

    def codegen(context: Any, builder: ir.IRBuilder, sig: Any, values: Any) -> ir.Value:
        base, offset, stride = values[:3]
        masks = [valid_lanes(builder, values[5], v, result.lanes) if masked else None for v in range(result.vectors)]
        loaded = []
        for r in range(result.rows):
            row = row_offset(builder, offset, stride, r)
            for v in range(result.vectors):
                at = builder.add(row, INDEX(v * result.lanes), flags=("nsw",))
                loaded.append(load_vector(builder, base, at, dtype, result.lanes, masks[v]))
        return pack(builder, loaded)

    return result, codegen


@tile_function
def tile_load(typing: Any, ptr: Any, off: Any, row_stride: Any, rows: Any, vectors: Any) -> _Definition:
    """tile_load(ptr, off, row_stride, R, V): R rows of V vectors of consecutive elements."""
    result, codegen = _load(ptr, rows, vectors, masked=False)
    return result(ptr, types.int64, types.int64, rows, vectors), codegen


@tile_function
def tile_load_masked(typing: Any, ptr: Any, off: Any, row_stride: Any, rows: Any, vectors: Any,
                     count: Any) -> _Definition:
    """tile_load_masked(ptr, off, row_stride, R, V, count): as tile_load; elements from `count` on are 0, unread."""
    result, codegen = _load(ptr, rows, vectors, masked=True)
    return result(ptr, types.int64, types.int64, rows, vectors, types.int64), codegen


def _store(ptr: types.Type, tile: types.Type, masked: bool) -> Any:
    dtype = pointee(ptr)
    stored = expect_tile(tile, "the stored value", loaded_dtype(ptr))

    def codegen(context: Any, builder: ir.IRBuilder, sig: Any, values: Any) -> ir.Value:
        base, offset, stride, value = values[:4]
        masks = [valid_lanes(builder, values[4], v, stored.lanes) if masked else None for v in range(stored.vectors)]
        vectors = unpack(builder, value, stored.count)
        for r in range(stored.rows):
            row = row_offset(builder, offset, stride, r)
            for v in range(stored.vectors):
                at = builder.add(row, INDEX(v * stored.lanes), flags=("nsw",))
                store_vector(builder, base, at, dtype, vectors[r * stored.vectors + v], masks[v])
        return context.get_dummy_value()

    return codegen


@tile_function
def tile_store(typing: Any, ptr: Any, off: Any, row_stride: Any, tile: Any) -> _Definition:
    """tile_store(ptr, off, row_stride, tile): the inverse of tile_load; dtypes must agree (int32 for uint8)."""
    return types.none(ptr, types.int64, types.int64, tile), _store(ptr, tile, masked=False)


@tile_function
def tile_store_masked(typing: Any, ptr: Any, off: Any, row_stride: Any, tile: Any, count: Any) -> _Definition:
    """tile_store_masked(ptr, off, row_stride, tile, count): store the first `count` elements of every row."""
    return types.none(ptr, types.int64, types.int64, tile, types.int64), _store(ptr, tile, masked=True)


@tile_function
def tile_load_strided(typing: Any, ptr: Any, off: Any, row_stride: Any, lane_stride: Any, rows: Any, vectors: Any,
                      count: Any = None) -> _Definition:
    """tile_load_strided(ptr, off, row_stride, lane_stride, R, V[, count]): element e of row r lies at
    off + r * row_stride + e * lane_stride (a gather); elements from `count` on are 0, unread."""
    dtype = pointee(ptr)
    result = tile_type(loaded_dtype(ptr), literal(rows, "rows"), literal(vectors, "vectors"))
    counted = _count_type(count)

    def codegen(context: Any, builder: ir.IRBuilder, sig: Any, values: Any) -> ir.Value:
        base, offset, row_stride, lane_stride = values[:4]
        step = splat(builder, lane_stride, result.lanes)
        loaded = []
        for r in range(result.rows):
            start = splat(builder, row_offset(builder, offset, row_stride, r), result.lanes)
            for v in range(result.vectors):
                lanes = lane_indices(result.lanes, v * result.lanes)
                indices = builder.add(start, builder.mul(lanes, step))
                mask = valid_lanes(builder, values[6], v, result.lanes) if counted == types.int64 else None
                loaded.append(gather_vector(builder, base, indices, dtype, mask))
        return pack(builder, loaded)

    int64 = types.int64
    return result(ptr, int64, int64, int64, rows, vectors, counted), codegen


@tile_function
def tile_store_strided(typing: Any, ptr: Any, off: Any, row_stride: Any, lane_stride: Any, tile: Any,
                       count: Any = None) -> _Definition:
    """tile_store_strided(ptr, off, row_stride, lane_stride, tile[, count]): the inverse of tile_load_strided."""
    dtype = pointee(ptr)
    stored = expect_tile(tile, "the stored value", loaded_dtype(ptr))
    counted = _count_type(count)

    def codegen(context: Any, builder: ir.IRBuilder, sig: Any, values: Any) -> ir.Value:
        base, offset, row_stride, lane_stride, value = values[:5]
        step = splat(builder, lane_stride, stored.lanes)
        vectors = unpack(builder, value, stored.count)
        for r in range(stored.rows):
            start = splat(builder, row_offset(builder, offset, row_stride, r), stored.lanes)
            for v in range(stored.vectors):
                lanes = lane_indices(stored.lanes, v * stored.lanes)
                indices = builder.add(start, builder.mul(lanes, step))
                mask = valid_lanes(builder, values[5], v, stored.lanes) if counted == types.int64 else None
                scatter_vector(builder, base, indices, dtype, vectors[r * stored.vectors + v], mask)
        return context.get_dummy_value()

    int64 = types.int64
    return types.none(ptr, int64, int64, int64, tile, counted), codegen


@tile_function
def tile_gather(typing: Any, ptr: Any, index: Any, count: Any = None) -> _Definition:
    """tile_gather(ptr, index_tile[, count]): ptr[index] element by element (int32 or int64 indices);
    in every row, elements from `count` on are 0 and their indices are not used."""
    dtype = pointee(ptr)
    indices = expect_tile(index, "the index of tile_gather", I32, I64)
    result = indices.with_dtype(loaded_dtype(ptr))
    counted = _count_type(count)

    def codegen(context: Any, builder: ir.IRBuilder, sig: Any, values: Any) -> ir.Value:
        loaded = []
        for i, vector in enumerate(unpack(builder, values[1], indices.count)):
            mask = None
            if counted == types.int64:
                mask = valid_lanes(builder, values[2], i % indices.vectors, indices.lanes)
            loaded.append(gather_vector(builder, values[0], vector, dtype, mask))
        return pack(builder, loaded)

    return result(ptr, index, counted), codegen


@tile_function
def tile_broadcast(typing: Any, value: Any, rows: Any, vectors: Any) -> _Definition:
    """tile_broadcast(value, R, V): the scalar in every element; the tile has the scalar's dtype."""
    value = types.unliteral(value)
    if value not in (F32, types.float64, I32, I64, MASK):
        raise TypingError(f"tile_broadcast takes a scalar of a tile dtype, not {value}; convert it by f32(...) etc.")
    result = tile_type(value, literal(rows, "rows"), literal(vectors, "vectors"))

    def codegen(context: Any, builder: ir.IRBuilder, sig: Any, values: Any) -> ir.Value:
        return pack(builder, [splat(builder, values[0], result.lanes)] * result.count)

    return result(value, rows, vectors), codegen


@tile_function
def tile_broadcast_column(typing: Any, ptr: Any, off: Any, stride: Any, rows: Any, vectors: Any) -> _Definition:
    """tile_broadcast_column(ptr, off, stride, R, V): row r filled with ptr[off + r * stride]."""
    dtype = pointee(ptr)
    result = tile_type(loaded_dtype(ptr), literal(rows, "rows"), literal(vectors, "vectors"))

    def codegen(context: Any, builder: ir.IRBuilder, sig: Any, values: Any) -> ir.Value:
        filled = []
        for r in range(result.rows):
            at = row_offset(builder, values[1], values[2], r)
            element = builder.load(element_pointer(builder, values[0], at, dtype), typ=LLVM_MEMORY[dtype])
            vector = widen(builder, splat(builder, element, result.lanes), dtype)
            filled += [vector] * result.vectors
        return pack(builder, filled)

    return result(ptr, types.int64, types.int64, rows, vectors), codegen


def _zeros(name: str, dtype: types.Type) -> Any:
    """The intrinsic `tile_zeros_<name>(R, V)`."""

    def define(typing: Any, rows: Any, vectors: Any) -> _Definition:
        result = tile_type(dtype, literal(rows, "rows"), literal(vectors, "vectors"))

        def codegen(context: Any, builder: ir.IRBuilder, sig: Any, values: Any) -> ir.Value:
            return ir.Constant(ir.ArrayType(result.llvm_vector, result.count), None)

        return result(rows, vectors), codegen

    define.__name__ = define.__qualname__ = f"tile_zeros_{name}"
    define.__doc__ = f"tile_zeros_{name}(R, V): a tile of {dtype} zeros."
    return tile_function(define)


tile_zeros_f32 = _zeros("f32", F32)
tile_zeros_f64 = _zeros("f64", types.float64)
tile_zeros_i32 = _zeros("i32", I32)
tile_zeros_i64 = _zeros("i64", I64)
tile_zeros_mask = _zeros("mask", MASK)


@tile_function
def tile_iota(typing: Any, start: Any, rows: Any, vectors: Any) -> _Definition:
    """tile_iota(start, R, V): start + position in the row, every row equal; int32 if start is i32(...), else int64."""
    dtype = I32 if start == I32 else I64
    result = tile_type(dtype, literal(rows, "rows"), literal(vectors, "vectors"))

    def codegen(context: Any, builder: ir.IRBuilder, sig: Any, values: Any) -> ir.Value:
        base = splat(builder, values[0], result.lanes)
        bits = result.llvm_vector.element.width
        row = [builder.add(base, lane_indices(result.lanes, v * result.lanes, bits)) for v in range(result.vectors)]
        return pack(builder, row * result.rows)

    return result(dtype, rows, vectors), codegen


@tile_function
def tile_row(typing: Any, tile: Any, row: Any) -> _Definition:
    """tile_row(tile, r): row r (a literal) as a tile of one row."""
    source = expect_tile(tile, "tile")
    if not isinstance(row, types.IntegerLiteral) or not 0 <= row.literal_value < source.rows:
        raise TypingError(f"tile_row takes a literal row of {source}, not {row}")
    result = tile_type(source.dtype, 1, source.vectors)

    def codegen(context: Any, builder: ir.IRBuilder, sig: Any, values: Any) -> ir.Value:
        first = row.literal_value * source.vectors
        return pack(builder, unpack(builder, values[0], source.count)[first:first + source.vectors])

    return result(tile, row), codegen

