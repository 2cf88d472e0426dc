"""Philox 4x32-10 on tiles and scalars: bit for bit what `graphc.kernel.philox` defines."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from llvmlite import ir

from graphc.codegen.tile.expression import Expression
from graphc.codegen.tile.registry import TileFunction, tile_function
from graphc.codegen.tile.signatures import F32, F64, I32, I64, Scalar, TypingError
from graphc.codegen.tile.types import INDEX, LLVM_ELEMENT, TileType, lane_indices, splat, tile_type
from graphc.kernel.philox import KEY_INCREMENTS, MULTIPLIERS, POSITIONS, ROUNDS, WORDS

_LOW = 0xFFFFFFFF
_BLOCK = WORDS * POSITIONS


def _spread(value: ir.Value, builder: ir.IRBuilder, like: Expression) -> Expression:
    """A scalar in every lane of a type like that of `like`."""
    wide = splat(builder, value, like.type.count) if isinstance(like.type, ir.VectorType) else value
    return Expression(builder, (wide,) * len(like.values))


def _philox(position: Expression, names: Sequence[ir.Value]) -> list[Expression]:
    """The four words at a position, in the low halves of 64-bit lanes; `names` are seed, stream, step and loop.

    The high halves hold rubbish between the rounds: only the low ones are multiplied, and that is one instruction.
    """
    builder = position.builder
    seed = Expression(builder, (names[0],))
    keys = [seed & _LOW, seed.shift_right_logical(32)]
    c = [position] + [_spread(name, builder, position) for name in names[1:]]
    for _ in range(ROUNDS):
        first, second = (c[0] & _LOW) * MULTIPLIERS[0], (c[2] & _LOW) * MULTIPLIERS[1]
        k0, k1 = (_spread(key.value, builder, position) for key in keys)
        c = [second.shift_right_logical(32) ^ c[1] ^ k0, second, first.shift_right_logical(32) ^ c[3] ^ k1, first]
        keys = [key + increment for key, increment in zip(keys, KEY_INCREMENTS, strict=True)]
    return c


def _unit_float(word: Expression) -> Expression:
    """(word >> 8) * 2**-24."""
    return word.truncated(LLVM_ELEMENT[I32]).shift_right_logical(8).to_float(LLVM_ELEMENT[F32]) * 2.0 ** -24


def _uniform_f32(element: Expression, names: Sequence[ir.Value]) -> Expression:
    words = _philox(((element >> 6) << 4) | (element & 15), names)
    number = (element >> 4) & 3
    word = words[3]
    for i in (2, 1, 0):
        word = number.compare("==", i).select(words[i], word)
    return _unit_float(word)


def _uniform_f64(element: Expression, names: Sequence[ir.Value]) -> Expression:
    words = _philox(element, names)
    high, low = (words[0] & _LOW).shift_right_logical(5), (words[1] & _LOW).shift_right_logical(6)
    return ((high << 26) | low).to_float(LLVM_ELEMENT[F64]) * 2.0 ** -53


def _uniform(name: str, dtype: Scalar, formula: Any) -> TileFunction:
    """The function `tile_philox_uniform_<name>`."""
    def define(seed: Any, stream: Any, step: Any, loop: Any, element: Any) -> Any:
        names = [I64] * 4
        if not isinstance(element, TileType):
            def scalar(builder: ir.IRBuilder, values: Any) -> Any:
                return formula(Expression(builder, (values[4],)), values[:4]).value
            return dtype(*names, I64), scalar
        if element.dtype not in (I32, I64):
            raise TypingError(f"the element index of a random draw is an integer tile, not {element}")

        def code(builder: ir.IRBuilder, values: Any) -> Any:
            vectors = values[4]
            if element.dtype == I32:
                vectors = [builder.sext(vector, ir.VectorType(INDEX, element.lanes)) for vector in vectors]
            drawn = [formula(Expression(builder, (vector,)), values[:4]).value for vector in vectors]
            return drawn

        return element.with_dtype(dtype)(*names, element), code

    define.__name__ = f"tile_philox_uniform_{name}"
    define.__doc__ = (f"tile_philox_uniform_{name}(seed, stream, step, loop, element): uniform {dtype} in [0, 1) for "
                      "an index tile, or a scalar index; see graphc.kernel.philox for the recipe.")
    return tile_function(define)


tile_philox_uniform_f32 = _uniform("f32", F32, _uniform_f32)
tile_philox_uniform_f64 = _uniform("f64", F64, _uniform_f64)


@tile_function
def tile_philox_block_f32(seed: Any, stream: Any, step: Any, loop: Any, start: Any) -> Any:
    """tile_philox_block_f32(seed, stream, step, loop, start): the draws of elements start .. start + 63 as one row;
    `start` must be a multiple of 64. The same bits as tile_philox_uniform_f32 at a quarter of the price."""
    result = tile_type(F32, 1, _BLOCK // tile_type(F32, 1, 1).lanes)

    def code(builder: ir.IRBuilder, values: Any) -> Any:
        base = builder.ashr(values[4], INDEX(2))  # 16 positions for each block of 64
        drawn: list[list[ir.Value]] = [[] for _ in range(WORDS)]
        for first in range(0, POSITIONS, result.lanes):
            lanes = lane_indices(result.lanes, first)
            position = Expression(builder, (builder.add(splat(builder, base, result.lanes), lanes),))
            for vectors, word in zip(drawn, _philox(position, values[:4]), strict=True):
                vectors.append(_unit_float(word).value)
        return [vector for vectors in drawn for vector in vectors]

    return result(*[I64] * 5), code
