"""Tiles of which only some rows lie in memory, and transposed tiles.

Offsets, strides and counts are as in `graphc.codegen.tile.memory`. Rows outside `first <= r < last` are neither read
nor written, whatever their address, and read as 0: windows that stick out over an edge, and tiles that do.
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir

from graphc.codegen.tile.memory import load_vector, store_vector, valid_lanes
from graphc.codegen.tile.registry import tile_function
from graphc.codegen.tile.signatures import I64, NONE, Definition, Type, TypingError
from graphc.codegen.tile.types import (
    INDEX,
    expect_tile,
    literal,
    loaded_dtype,
    pointee,
    row_offset,
    shuffle,
    splat,
    tile_type,
)


def _row_masks(builder: ir.IRBuilder, rows: int, first: ir.Value, last: ir.Value, lanes: list[ir.Value | None],
               width: int) -> list[list[ir.Value | None]]:  # fmt: skip
    """For each row in first .. last the masks of its vectors, `lanes` if it is there for sure; all zeros elsewhere."""
    nothing = ir.Constant(ir.VectorType(ir.IntType(1), width), [0] * width)
    masks: list[list[ir.Value | None]] = []
    for r in range(rows):
        if isinstance(first, ir.Constant) and isinstance(last, ir.Constant):
            masks.append(list(lanes) if first.constant <= r < last.constant else [nothing] * len(lanes))
            continue
        inside = builder.and_(builder.icmp_signed("<=", first, INDEX(r)), builder.icmp_signed("<", INDEX(r), last))
        here = splat(builder, inside, width)
        masks.append([here if lane is None else builder.and_(here, lane) for lane in lanes])
    return masks


@tile_function
def tile_load_rows(ptr: Type, off: Type, row_stride: Type, rows: Type, vectors: Type, first: Type, last: Type,
                   count: Type | None = None) -> Definition:
    """tile_load_rows(ptr, off, row_stride, R, V, first, last[, count]): as tile_load; rows outside first .. last, and
    elements from `count` on, are 0 and not read."""
    dtype, masked = pointee(ptr), count is not None
    result = tile_type(loaded_dtype(ptr), literal(rows, "rows"), literal(vectors, "vectors"))

    def code(builder: ir.IRBuilder, values: Any) -> Any:
        base, offset, stride = values[:3]
        lanes = [valid_lanes(builder, values[7], v, result.lanes) if masked else None for v in range(result.vectors)]
        loaded = []
        for r, masks in enumerate(_row_masks(builder, result.rows, values[5], values[6], lanes, result.lanes)):
            row = row_offset(builder, offset, stride, r)
            for v, mask in enumerate(masks):
                at = builder.add(row, INDEX(v * result.lanes), flags=("nsw",))
                loaded.append(load_vector(builder, base, at, dtype, result.lanes, mask))
        return loaded

    counted = (I64,) if masked else ()
    return result(ptr, I64, I64, rows, vectors, I64, I64, *counted), code


@tile_function
def tile_load_lanes(ptr: Type, off: Type, row_stride: Type, rows: Type, vectors: Type, first: Type,
                    last: Type) -> Definition:
    """tile_load_lanes(ptr, off, row_stride, R, V, first, last): as tile_load; elements of a row outside first .. last
    are 0 and not read."""
    dtype = pointee(ptr)
    result = tile_type(loaded_dtype(ptr), literal(rows, "rows"), literal(vectors, "vectors"))

    def code(builder: ir.IRBuilder, values: Any) -> Any:
        base, offset, stride = values[:3]
        first_lane, last_lane = values[5:7]
        masks = []
        for v in range(result.vectors):
            before = valid_lanes(builder, first_lane, v, result.lanes)
            masks.append(builder.and_(valid_lanes(builder, last_lane, v, result.lanes), builder.not_(before)))
        loaded = []
        for r in range(result.rows):
            row = row_offset(builder, offset, stride, r)
            for v, mask in enumerate(masks):
                at = builder.add(row, INDEX(v * result.lanes), flags=("nsw",))
                loaded.append(load_vector(builder, base, at, dtype, result.lanes, mask))
        return loaded

    return result(ptr, I64, I64, rows, vectors, I64, I64), code


@tile_function
def tile_store_rows(ptr: Type, off: Type, row_stride: Type, tile: Type, last: Type,
                    count: Type | None = None) -> Definition:
    """tile_store_rows(ptr, off, row_stride, tile, last[, count]): store the rows before `last`, and of them the
    elements before `count`."""
    dtype, masked = pointee(ptr), count is not None
    stored = expect_tile(tile, "the stored value", loaded_dtype(ptr))

    def code(builder: ir.IRBuilder, values: Any) -> Any:
        base, offset, stride, value = values[:4]
        lanes = [valid_lanes(builder, values[5], v, stored.lanes) if masked else None for v in range(stored.vectors)]
        for r, masks in enumerate(_row_masks(builder, stored.rows, INDEX(0), values[4], lanes, stored.lanes)):
            row = row_offset(builder, offset, stride, r)
            for v, mask in enumerate(masks):
                at = builder.add(row, INDEX(v * stored.lanes), flags=("nsw",))
                store_vector(builder, base, at, dtype, value[r * stored.vectors + v], mask)
        return None

    counted = (I64,) if masked else ()
    return NONE(ptr, I64, I64, tile, I64, *counted), code


@tile_function
def tile_transpose(tile: Type) -> Definition:
    """tile_transpose(tile): the square tile (as many rows as lanes, one vector each) with rows and lanes exchanged."""
    source = expect_tile(tile, "tile")
    if source.vectors != 1 or source.rows != source.lanes:
        raise TypingError(f"tile_transpose takes {source.lanes} rows of one vector, not {source}")

    def code(builder: ir.IRBuilder, values: Any) -> Any:
        return transpose(builder, values[0])

    return source(source), code


def transpose(builder: ir.IRBuilder, vectors: list[ir.Value]) -> list[ir.Value]:
    """As many vectors as lanes, transposed in log2(lanes) steps that exchange ever smaller off-diagonal blocks."""
    lanes = len(vectors)
    half = lanes // 2
    while half:
        # Lane l of the result comes from vector `a` where bit `half` of l is 0, else from `a`'s partner.
        first = [lane if not lane & half else lanes + (lane ^ half) for lane in range(lanes)]
        second = [lane | half if not lane & half else lanes + lane for lane in range(lanes)]
        exchanged = list(vectors)
        for row in range(lanes):
            if not row & half:
                a, b = vectors[row], vectors[row | half]
                exchanged[row] = shuffle(builder, a, b, first)
                exchanged[row | half] = shuffle(builder, a, b, second)
        vectors, half = exchanged, half // 2
    return vectors
