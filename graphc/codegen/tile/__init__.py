"""The tile vocabulary that generated CPU kernels are written in."""

from __future__ import annotations

from graphc.codegen.tile.arithmetic import (
    tile_abs,
    tile_cast_f32,
    tile_cast_f64,
    tile_cast_i32,
    tile_cast_i64,
    tile_cast_mask,
    tile_ceil,
    tile_floor,
    tile_floordiv,
    tile_fma,
    tile_maximum,
    tile_minimum,
    tile_mod,
    tile_round,
    tile_select,
    tile_sqrt,
)
from graphc.codegen.tile.contraction import (
    tile_fma_dot,
    tile_fma_outer,
    tile_lane_sums,
    tile_load_packed,
    tile_store_packed,
)
from graphc.codegen.tile.maths import (
    tile_acos,
    tile_asin,
    tile_atan,
    tile_cos,
    tile_cosh,
    tile_erf,
    tile_exp,
    tile_expm1,
    tile_log,
    tile_log1p,
    tile_log2,
    tile_pow,
    tile_sigmoid,
    tile_sin,
    tile_sinh,
    tile_softplus,
    tile_tan,
    tile_tanh,
)
from graphc.codegen.tile.memory import (
    tile_broadcast,
    tile_broadcast_column,
    tile_gather,
    tile_iota,
    tile_load,
    tile_load_masked,
    tile_load_strided,
    tile_row,
    tile_rows,
    tile_store,
    tile_store_masked,
    tile_store_strided,
    tile_zeros_f32,
    tile_zeros_f64,
    tile_zeros_i32,
    tile_zeros_i64,
    tile_zeros_mask,
)
from graphc.codegen.tile.random import tile_philox_block_f32, tile_philox_uniform_f32, tile_philox_uniform_f64
from graphc.codegen.tile.reduce import (
    tile_all,
    tile_any,
    tile_max,
    tile_max_rows,
    tile_min,
    tile_prod,
    tile_sum,
    tile_sum_rows,
)
from graphc.codegen.tile.registry import TileFunction
from graphc.codegen.tile.rows import tile_load_lanes, tile_load_rows, tile_store_rows, tile_transpose
from graphc.codegen.tile.scalars import (
    extent,
    f32,
    f64,
    i32,
    i64,
    load_scalar,
    offset_ptr,
    operand_bool,
    operand_f32,
    operand_f64,
    operand_i32,
    operand_i64,
    operand_u8,
    store_scalar,
)

VOCABULARY = (
    extent, f32, f64, i32, i64, load_scalar, offset_ptr, operand_bool, operand_f32, operand_f64, operand_i32,
    operand_i64, operand_u8, store_scalar, tile_abs, tile_all, tile_any, tile_broadcast, tile_broadcast_column,
    tile_cast_f32, tile_cast_f64, tile_cast_i32, tile_cast_i64, tile_cast_mask, tile_ceil, tile_cos, tile_erf,
    tile_exp, tile_expm1, tile_floor, tile_fma, tile_fma_dot, tile_fma_outer, tile_gather, tile_iota, tile_lane_sums,
    tile_load, tile_load_lanes, tile_load_masked, tile_load_packed, tile_load_rows, tile_load_strided, tile_log,
    tile_log1p, tile_max,
    tile_max_rows,
    tile_maximum, tile_min, tile_minimum, tile_philox_block_f32, tile_philox_uniform_f32, tile_philox_uniform_f64,
    tile_acos, tile_asin, tile_atan, tile_cosh, tile_floordiv, tile_log2, tile_mod, tile_pow, tile_prod, tile_round,
    tile_sinh, tile_tan,
    tile_row, tile_rows, tile_select, tile_sigmoid, tile_sin, tile_softplus, tile_sqrt, tile_store,
    tile_store_masked, tile_store_packed, tile_store_rows, tile_store_strided, tile_sum, tile_sum_rows, tile_tanh,
    tile_transpose, tile_zeros_f32,
    tile_zeros_f64, tile_zeros_i32, tile_zeros_i64, tile_zeros_mask)


def vocabulary() -> dict[str, TileFunction]:
    """The functions that kernel source may call, by name."""
    return {function.__name__: function for function in VOCABULARY}
