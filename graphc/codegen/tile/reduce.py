"""Reductions of a tile: all elements to a scalar, or all rows to one row.

The order is fixed: pairs of vectors, then pairs of lanes, in a balanced tree. So sums differ in rounding from a
running sum (they are more accurate), but their bits never depend on anything but the tile's shape.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from llvmlite import ir

from graphc.codegen.tile.arithmetic import emit_maximum, emit_minimum, is_float
from graphc.codegen.tile.registry import TileFunction, tile_function
from graphc.codegen.tile.signatures import F32, F64, I32, I64, MASK, Scalar
from graphc.codegen.tile.types import INT32, expect_tile, shuffle, tile_type

Combiner = Callable[[ir.IRBuilder, ir.Value, ir.Value], ir.Value]


def _add(builder: ir.IRBuilder, a: ir.Value, b: ir.Value) -> ir.Value:
    return builder.fadd(a, b) if is_float(a) else builder.add(a, b)


def _multiply(builder: ir.IRBuilder, a: ir.Value, b: ir.Value) -> ir.Value:
    return builder.fmul(a, b) if is_float(a) else builder.mul(a, b)


def _tree(builder: ir.IRBuilder, combine: Combiner, values: list[ir.Value]) -> ir.Value:
    """Combine values pairwise, neighbours first."""
    while len(values) > 1:
        pairs = [combine(builder, a, b) for a, b in zip(values[::2], values[1::2], strict=False)]
        values = pairs + values[len(pairs) * 2:]
    return values[0]


def reduce_lanes(builder: ir.IRBuilder, combine: Combiner, vector: ir.Value) -> ir.Value:
    """Fold a vector in half until one lane is left."""
    lanes = vector.type.count
    while lanes > 1:
        lanes //= 2
        low = shuffle(builder, vector, vector, list(range(lanes)))
        vector = combine(builder, low, shuffle(builder, vector, vector, list(range(lanes, 2 * lanes))))
    return builder.extract_element(vector, INT32(0))


def _reduction(name: str, combine: Combiner, dtypes: tuple[Scalar, ...], doc: str) -> TileFunction:
    """The function `tile_<name>(tile) -> scalar`."""
    def define(tile: Any) -> Any:
        source = expect_tile(tile, f"the argument of tile_{name}", *dtypes)

        def code(builder: ir.IRBuilder, values: Any) -> Any:
            vector = _tree(builder, combine, values[0])
            return reduce_lanes(builder, combine, vector)

        return source.dtype(tile), code

    define.__name__, define.__doc__ = f"tile_{name}", f"tile_{name}(tile): {doc}"
    return tile_function(define)


def _row_reduction(name: str, combine: Combiner, dtypes: tuple[Scalar, ...], doc: str) -> TileFunction:
    """The function `tile_<name>_rows(RxV) -> 1xV`."""
    def define(tile: Any) -> Any:
        source = expect_tile(tile, f"the argument of tile_{name}_rows", *dtypes)
        result = tile_type(source.dtype, 1, source.vectors)

        def code(builder: ir.IRBuilder, values: Any) -> Any:
            vectors = values[0]
            return [_tree(builder, combine, vectors[v::source.vectors]) for v in range(source.vectors)]

        return result(tile), code

    define.__name__, define.__doc__ = f"tile_{name}_rows", f"tile_{name}_rows(tile): {doc}"
    return tile_function(define)


_NUMBERS = (F32, F64, I32, I64)
tile_sum = _reduction("sum", _add, _NUMBERS, "the sum of all elements.")
tile_prod = _reduction("prod", _multiply, _NUMBERS, "the product of all elements.")
tile_max = _reduction("max", emit_maximum, _NUMBERS, "the largest element; NaN if one is NaN.")
tile_min = _reduction("min", emit_minimum, _NUMBERS, "the smallest element; NaN if one is NaN.")
tile_any = _reduction("any", lambda builder, a, b: builder.or_(a, b), (MASK,), "whether one element is true.")
tile_all = _reduction("all", lambda builder, a, b: builder.and_(a, b), (MASK,), "whether all elements are true.")
tile_sum_rows = _row_reduction("sum", _add, _NUMBERS, "the sum of the rows, as a tile of one row.")
tile_max_rows = _row_reduction("max", emit_maximum, _NUMBERS, "the largest of the rows; NaN if one is NaN.")
