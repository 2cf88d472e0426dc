"""Tiles and memory: loads, masked loads, gathers, stores, broadcasts.

Offsets and strides are int64 counts of elements. Element (r, v, l) of a tile is element
`off + r * row_stride + v * lanes + l` of memory. A `count` is the number of valid elements of a row;
what lies behind it is neither read nor written, and reads as 0.
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir

from graphc.codegen.tile.registry import tile_function
from graphc.codegen.tile.signatures import (
    F32,
    F64,
    I32,
    I64,
    MASK,
    NONE,
    U8,
    Definition,
    Literal,
    Scalar,
    Type,
    TypingError,
    without_literal,
)
from graphc.codegen.tile.types import (
    BYTES,
    INDEX,
    INT32,
    LLVM_MEMORY,
    TileType,
    call_intrinsic,
    constant_like,
    element_pointer,
    expect_tile,
    lane_indices,
    literal,
    loaded_dtype,
    pointee,
    row_offset,
    shuffle,
    splat,
    tile_type,
    type_suffix,
)

NEAR = 4  # strides up to which elements are picked out of whole vectors


def widen(builder: ir.IRBuilder, vector: ir.Value, dtype: Scalar) -> ir.Value:
    """A vector as it lies in memory to a vector as tiles hold it (uint8 to int32, bool bytes to bits)."""
    if dtype == U8:
        return builder.zext(vector, ir.VectorType(INT32, vector.type.count))
    if dtype == MASK:
        return builder.icmp_unsigned("!=", vector, constant_like(vector.type, 0))
    return vector


def narrow(builder: ir.IRBuilder, vector: ir.Value, dtype: Scalar) -> ir.Value:
    """The inverse of `widen`."""
    memory = ir.VectorType(LLVM_MEMORY[dtype], vector.type.count)
    if dtype == U8:
        return builder.trunc(vector, memory)
    if dtype == MASK:
        return builder.zext(vector, memory)
    return vector


def valid_lanes(builder: ir.IRBuilder, count: ir.Value, vector: int, lanes: int) -> ir.Value:
    """The bit mask of the lanes of a row's vector number `vector` that lie before `count`."""
    if isinstance(count, ir.Constant):
        valid = [int(vector * lanes + lane < count.constant) for lane in range(lanes)]
        return ir.Constant(ir.VectorType(ir.IntType(1), lanes), valid)
    clamped = _clamp(builder, count, vector, lanes)
    if lanes == 16:  # AVX-512 has mask registers: their bits are made beside the vector units, which are busy
        ones = ir.Constant(INDEX, -1)
        bits = builder.trunc(builder.not_(builder.shl(ones, clamped)), ir.IntType(lanes))
        return builder.bitcast(bits, ir.VectorType(ir.IntType(1), lanes))
    bound = builder.trunc(clamped, INT32)
    return builder.icmp_signed("<", lane_indices(lanes, 0, 32), splat(builder, bound, lanes))


def _clamp(builder: ir.IRBuilder, count: ir.Value, vector: int, lanes: int) -> ir.Value:
    """count - vector * lanes, clamped to 0..lanes so that it fits 32 bits."""
    left = builder.sub(count, INDEX(vector * lanes))
    left = call_intrinsic(builder, "llvm.smax.i64", INDEX, [left, INDEX(0)])
    return call_intrinsic(builder, "llvm.smin.i64", INDEX, [left, INDEX(lanes)])


def load_vector(builder: ir.IRBuilder, ptr: ir.Value, offset: ir.Value, dtype: Scalar, lanes: int,
                mask: ir.Value | None = None) -> ir.Value:
    """Load one vector of consecutive elements (unmasked lanes are 0), widened."""
    memory = ir.VectorType(LLVM_MEMORY[dtype], lanes)
    address = element_pointer(builder, ptr, offset, dtype)
    if mask is None:
        return widen(builder, builder.load(address, align=BYTES[dtype], typ=memory), dtype)
    loaded = call_intrinsic(builder, f"llvm.masked.load.{type_suffix(memory)}.p0", memory,
                            [address, INT32(BYTES[dtype]), mask, constant_like(memory, 0)])
    return widen(builder, loaded, dtype)


def store_vector(builder: ir.IRBuilder, ptr: ir.Value, offset: ir.Value, dtype: Scalar, vector: ir.Value,
                 mask: ir.Value | None = None) -> None:
    """Store one vector of consecutive elements, narrowed; only the lanes of `mask`."""
    vector = narrow(builder, vector, dtype)
    address = element_pointer(builder, ptr, offset, dtype)
    kept = [lane for lane, bit in enumerate(mask.constant) if bit.constant] if isinstance(mask, ir.Constant) else []
    if len(kept) == 1:  # LLVM 20 forgets that such a store narrows, and writes more than the element
        at = builder.gep(address, [INT32(kept[0])], source_etype=LLVM_MEMORY[dtype])
        builder.store(builder.extract_element(vector, INT32(kept[0])), at)
        return
    if mask is None:
        builder.store(vector, builder.bitcast(address, vector.type.as_pointer()), align=BYTES[dtype])
        return
    call_intrinsic(builder, f"llvm.masked.store.{type_suffix(vector.type)}.p0", ir.VoidType(),
                   [vector, address, INT32(BYTES[dtype]), mask])


def gather_vector(builder: ir.IRBuilder, ptr: ir.Value, indices: ir.Value, dtype: Scalar,
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


def scatter_vector(builder: ir.IRBuilder, ptr: ir.Value, indices: ir.Value, dtype: Scalar, vector: ir.Value,
                   mask: ir.Value | None = None) -> None:
    """Store elements at a vector of indices, narrowed; of equal indices the last lane wins."""
    vector = narrow(builder, vector, dtype)
    lanes = indices.type.count
    if mask is None:
        mask = constant_like(ir.VectorType(ir.IntType(1), lanes), 1)
    call_intrinsic(builder, f"llvm.masked.scatter.{type_suffix(vector.type)}.v{lanes}p0", ir.VoidType(),
                   [vector, _lane_pointers(builder, ptr, indices, dtype), INT32(BYTES[dtype]), mask])


def _lane_pointers(builder: ir.IRBuilder, ptr: ir.Value, indices: ir.Value, dtype: Scalar) -> ir.Value:
    # llvmlite's gep does not know that a vector of indices gives a vector of pointers; integers do as well.
    lanes = indices.type.count
    if indices.type.element.width != 64:
        indices = builder.sext(indices, ir.VectorType(INDEX, lanes))
    base = splat(builder, builder.ptrtoint(ptr, INDEX), lanes)
    size = constant_like(base.type, BYTES[dtype])
    return builder.inttoptr(builder.add(base, builder.mul(indices, size)), ir.VectorType(ir.PointerType(), lanes))


def _load(ptr: Type, rows: Type, vectors: Type, masked: bool) -> tuple[TileType, Any]:
    """The tile type of a load, and code that emits it; the last value is the count if `masked`."""
    dtype = pointee(ptr)
    result = tile_type(loaded_dtype(ptr), literal(rows, "rows"), literal(vectors, "vectors"))

    def code(builder: ir.IRBuilder, values: Any) -> Any:
        base, offset, stride = values[:3]
        masks = [valid_lanes(builder, values[5], v, result.lanes) if masked else None for v in range(result.vectors)]
        loaded = []
        for r in range(result.rows):
            row = row_offset(builder, offset, stride, r)
            for v in range(result.vectors):
                at = builder.add(row, INDEX(v * result.lanes), flags=("nsw",))
                loaded.append(load_vector(builder, base, at, dtype, result.lanes, masks[v]))
        return loaded

    return result, code


@tile_function
def tile_load(ptr: Type, off: Type, row_stride: Type, rows: Type, vectors: Type) -> Definition:
    """tile_load(ptr, off, row_stride, R, V): R rows of V vectors of consecutive elements."""
    result, code = _load(ptr, rows, vectors, masked=False)
    return result(ptr, I64, I64, rows, vectors), code


@tile_function
def tile_load_masked(ptr: Type, off: Type, row_stride: Type, rows: Type, vectors: Type,
                     count: Type) -> Definition:
    """tile_load_masked(ptr, off, row_stride, R, V, count): as tile_load; elements from `count` on are 0, unread."""
    result, code = _load(ptr, rows, vectors, masked=True)
    return result(ptr, I64, I64, rows, vectors, I64), code


def _store(ptr: Type, tile: Type, masked: bool) -> Any:
    dtype = pointee(ptr)
    stored = expect_tile(tile, "the stored value", loaded_dtype(ptr))

    def code(builder: ir.IRBuilder, values: Any) -> Any:
        base, offset, stride, value = values[:4]
        masks = [valid_lanes(builder, values[4], v, stored.lanes) if masked else None for v in range(stored.vectors)]
        for r in range(stored.rows):
            row = row_offset(builder, offset, stride, r)
            for v in range(stored.vectors):
                at = builder.add(row, INDEX(v * stored.lanes), flags=("nsw",))
                store_vector(builder, base, at, dtype, value[r * stored.vectors + v], masks[v])
        return None

    return code


@tile_function
def tile_store(ptr: Type, off: Type, row_stride: Type, tile: Type) -> Definition:
    """tile_store(ptr, off, row_stride, tile): the inverse of tile_load; dtypes must agree (int32 for uint8)."""
    return NONE(ptr, I64, I64, tile), _store(ptr, tile, masked=False)


@tile_function
def tile_store_masked(ptr: Type, off: Type, row_stride: Type, tile: Type, count: Type) -> Definition:
    """tile_store_masked(ptr, off, row_stride, tile, count): store the first `count` elements of every row."""
    return NONE(ptr, I64, I64, tile, I64), _store(ptr, tile, masked=True)


@tile_function
def tile_load_strided(ptr: Type, off: Type, row_stride: Type, lane_stride: Type, rows: Type, vectors: Type,
                      count: Type | None = None) -> Definition:
    """tile_load_strided(ptr, off, row_stride, lane_stride, R, V[, count]): element e of row r lies at
    off + r * row_stride + e * lane_stride; elements from `count` on are 0, unread. A gather, but for literal strides of
    2 to 4, where whole vectors are loaded and every second to fourth element is picked."""
    dtype = pointee(ptr)
    result = tile_type(loaded_dtype(ptr), literal(rows, "rows"), literal(vectors, "vectors"))
    counted = () if count is None else (I64,)
    near = lane_stride.value if isinstance(lane_stride, Literal) and 2 <= lane_stride.value <= NEAR else 0

    def picked(builder: ir.IRBuilder, values: Any) -> Any:
        base, offset, row_stride = values[:3]
        loaded = []
        for r in range(result.rows):
            row = row_offset(builder, offset, row_stride, r)
            for v in range(result.vectors):
                at = builder.add(row, INDEX(v * result.lanes * near), flags=("nsw",))
                valid = INDEX(result.lanes)
                if counted:
                    valid = _clamp(builder, values[6], v, result.lanes)
                # Up to the last element that is wanted: what lies behind it may be another's memory.
                reach = builder.sub(builder.mul(valid, INDEX(near)), INDEX(near - 1)) if counted else INDEX(
                    (result.lanes - 1) * near + 1)  # fmt: skip
                loaded.append(_picked(builder, base, at, dtype, result.lanes, near, reach))
        return loaded

    def code(builder: ir.IRBuilder, values: Any) -> Any:
        base, offset, row_stride, lane_stride = values[:4]
        step = splat(builder, lane_stride, result.lanes)
        loaded = []
        for r in range(result.rows):
            start = splat(builder, row_offset(builder, offset, row_stride, r), result.lanes)
            for v in range(result.vectors):
                lanes = lane_indices(result.lanes, v * result.lanes)
                indices = builder.add(start, builder.mul(lanes, step))
                mask = valid_lanes(builder, values[6], v, result.lanes) if counted else None
                loaded.append(gather_vector(builder, base, indices, dtype, mask))
        return loaded

    return result(ptr, I64, I64, I64, rows, vectors, *counted), picked if near else code


def _picked(builder: ir.IRBuilder, ptr: ir.Value, at: ir.Value, dtype: Scalar, lanes: int, stride: int,
            reach: ir.Value) -> ir.Value:  # fmt: skip
    """Every `stride`-th of the elements from `at` on, of which `reach` are read."""
    vectors = []
    for k in range(stride):
        here = builder.add(at, INDEX(k * lanes), flags=("nsw",))
        vectors.append(load_vector(builder, ptr, here, dtype, lanes, valid_lanes(builder, reach, k, lanes)))
    result = vectors[0]
    for k in range(1, stride):  # lanes of vector k are those whose elements lie in it
        first = [lane * stride if k == 1 else lane for lane in range(lanes)]
        chosen = [lanes + lane * stride - k * lanes if lane * stride // lanes == k else min(first[lane], lanes - 1)
                  for lane in range(lanes)]  # fmt: skip
        result = shuffle(builder, result, vectors[k], chosen)
    return result


@tile_function
def tile_store_strided(ptr: Type, off: Type, row_stride: Type, lane_stride: Type, tile: Type,
                       count: Type | None = None) -> Definition:
    """tile_store_strided(ptr, off, row_stride, lane_stride, tile[, count]): the inverse of tile_load_strided."""
    dtype = pointee(ptr)
    stored = expect_tile(tile, "the stored value", loaded_dtype(ptr))
    counted = () if count is None else (I64,)

    def code(builder: ir.IRBuilder, values: Any) -> Any:
        base, offset, row_stride, lane_stride, value = values[:5]
        step = splat(builder, lane_stride, stored.lanes)
        for r in range(stored.rows):
            start = splat(builder, row_offset(builder, offset, row_stride, r), stored.lanes)
            for v in range(stored.vectors):
                lanes = lane_indices(stored.lanes, v * stored.lanes)
                indices = builder.add(start, builder.mul(lanes, step))
                mask = valid_lanes(builder, values[5], v, stored.lanes) if counted else None
                scatter_vector(builder, base, indices, dtype, value[r * stored.vectors + v], mask)
        return None

    return NONE(ptr, I64, I64, I64, tile, *counted), code


@tile_function
def tile_gather(ptr: Type, index: Type, count: Type | None = None) -> Definition:
    """tile_gather(ptr, index_tile[, count]): ptr[index] element by element (int32 or int64 indices);
    in every row, elements from `count` on are 0 and their indices are not used."""
    dtype = pointee(ptr)
    indices = expect_tile(index, "the index of tile_gather", I32, I64)
    result = indices.with_dtype(loaded_dtype(ptr))
    counted = () if count is None else (I64,)

    def code(builder: ir.IRBuilder, values: Any) -> Any:
        loaded = []
        for i, vector in enumerate(values[1]):
            mask = None
            if counted:
                mask = valid_lanes(builder, values[2], i % indices.vectors, indices.lanes)
            loaded.append(gather_vector(builder, values[0], vector, dtype, mask))
        return loaded

    return result(ptr, index, *counted), code


@tile_function
def tile_broadcast(value: Type, rows: Type, vectors: Type) -> Definition:
    """tile_broadcast(value, R, V): the scalar in every element; the tile has the scalar's dtype."""
    value = without_literal(value)
    if value not in (F32, F64, I32, I64, MASK):
        raise TypingError(f"tile_broadcast takes a scalar of a tile dtype, not {value}; convert it by f32(...) etc.")
    result = tile_type(value, literal(rows, "rows"), literal(vectors, "vectors"))

    def code(builder: ir.IRBuilder, values: Any) -> Any:
        return [splat(builder, values[0], result.lanes)] * result.count

    return result(value, rows, vectors), code


@tile_function
def tile_broadcast_column(ptr: Type, off: Type, stride: Type, rows: Type, vectors: Type) -> Definition:
    """tile_broadcast_column(ptr, off, stride, R, V): row r filled with ptr[off + r * stride]."""
    dtype = pointee(ptr)
    result = tile_type(loaded_dtype(ptr), literal(rows, "rows"), literal(vectors, "vectors"))

    def code(builder: ir.IRBuilder, values: Any) -> Any:
        filled = []
        for r in range(result.rows):
            at = row_offset(builder, values[1], values[2], r)
            element = builder.load(element_pointer(builder, values[0], at, dtype), typ=LLVM_MEMORY[dtype])
            vector = widen(builder, splat(builder, element, result.lanes), dtype)
            filled += [vector] * result.vectors
        return filled

    return result(ptr, I64, I64, rows, vectors), code


def _zeros(name: str, dtype: Scalar) -> Any:
    """The function `tile_zeros_<name>(R, V)`."""

    def define(rows: Type, vectors: Type) -> Definition:
        result = tile_type(dtype, literal(rows, "rows"), literal(vectors, "vectors"))

        def code(builder: ir.IRBuilder, values: Any) -> Any:
            return [constant_like(result.llvm_vector, 0)] * result.count

        return result(rows, vectors), code

    define.__name__ = define.__qualname__ = f"tile_zeros_{name}"
    define.__doc__ = f"tile_zeros_{name}(R, V): a tile of {dtype} zeros."
    return tile_function(define)


tile_zeros_f32 = _zeros("f32", F32)
tile_zeros_f64 = _zeros("f64", F64)
tile_zeros_i32 = _zeros("i32", I32)
tile_zeros_i64 = _zeros("i64", I64)
tile_zeros_mask = _zeros("mask", MASK)


@tile_function
def tile_iota(start: Type, rows: Type, vectors: Type) -> Definition:
    """tile_iota(start, R, V): start + position in the row, every row equal; int32 if start is i32(...), else int64."""
    dtype = I32 if start == I32 else I64
    result = tile_type(dtype, literal(rows, "rows"), literal(vectors, "vectors"))

    def code(builder: ir.IRBuilder, values: Any) -> Any:
        base = splat(builder, values[0], result.lanes)
        bits = result.llvm_vector.element.width
        row = [builder.add(base, lane_indices(result.lanes, v * result.lanes, bits)) for v in range(result.vectors)]
        return row * result.rows

    return result(dtype, rows, vectors), code


@tile_function
def tile_row(tile: Type, row: Type) -> Definition:
    """tile_row(tile, r): row r (a literal) as a tile of one row."""
    source = expect_tile(tile, "tile")
    if not isinstance(row, Literal) or not 0 <= row.value < source.rows:
        raise TypingError(f"tile_row takes a literal row of {source}, not {row}")
    result = tile_type(source.dtype, 1, source.vectors)

    def code(builder: ir.IRBuilder, values: Any) -> Any:
        first = row.value * source.vectors
        return values[0][first:first + source.vectors]

    return result(tile, row), code



@tile_function
def tile_rows(tile: Type, first: Type, count: Type) -> Definition:
    """tile_rows(tile, r, count): rows r ... r + count - 1 (literals) as a tile."""
    source = expect_tile(tile, "tile")
    rows = literal(count, "count")
    if not isinstance(first, Literal) or not 0 <= first.value <= source.rows - rows:
        raise TypingError(f"tile_rows takes {rows} rows of {source} from a literal row on, not from {first}")
    start = first.value
    result = tile_type(source.dtype, rows, source.vectors)

    def code(builder: ir.IRBuilder, values: Any) -> Any:
        return values[0][start * source.vectors : (start + rows) * source.vectors]

    return result(tile, first, count), code
