"""Operands of a kernel, typed scalars, and loading and storing one element."""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba.core import types
from numba.core.errors import TypingError

from graphc.codegen.tile.registry import tile_function
from graphc.codegen.tile.types import F32, F64, I32, I64, LLVM_MEMORY, MASK, U8, TileType, element_pointer, pointee

_Definition = Any  # (signature, codegen), see graphc.codegen.tile.registry


def _operand(name: str, dtype: types.Type) -> Any:
    """The intrinsic `operand_<name>(args, k)`: operand k's address as a typed pointer."""

    def define(typing: Any, args: types.Type, k: types.Type) -> _Definition:
        result = types.CPointer(dtype)

        def codegen(context: Any, builder: ir.IRBuilder, sig: Any, values: Any) -> ir.Value:
            address = builder.load(builder.gep(values[0], [values[1]]))
            return builder.inttoptr(address, context.get_value_type(result))

        return result(types.CPointer(types.int64), types.int64), codegen

    define.__name__ = define.__qualname__ = f"operand_{name}"
    define.__doc__ = f"operand_{name}(args, k): the address args[k] as a pointer to {dtype} (uint8 memory for bool)."
    return tile_function(define)


operand_f32 = _operand("f32", F32)
operand_f64 = _operand("f64", F64)
operand_i32 = _operand("i32", I32)
operand_i64 = _operand("i64", I64)
operand_u8 = _operand("u8", U8)
operand_bool = _operand("bool", MASK)


@tile_function
def extent(typing: Any, args: types.Type, k: types.Type) -> _Definition:
    """extent(args, k): the runtime count `*(int64 *)args[k]`, an int64."""

    def codegen(context: Any, builder: ir.IRBuilder, sig: Any, values: Any) -> ir.Value:
        address = builder.load(builder.gep(values[0], [values[1]]))
        return builder.load(builder.inttoptr(address, values[0].type))

    return types.int64(types.CPointer(types.int64), types.int64), codegen


@tile_function
def offset_ptr(typing: Any, ptr: types.Type, off: types.Type) -> _Definition:
    """offset_ptr(ptr, off): the pointer `off` elements further."""
    dtype = pointee(ptr)

    def codegen(context: Any, builder: ir.IRBuilder, sig: Any, values: Any) -> ir.Value:
        moved = element_pointer(builder, values[0], values[1], dtype)
        return builder.bitcast(moved, values[0].type)

    return ptr(ptr, types.int64), codegen


@tile_function
def load_scalar(typing: Any, ptr: types.Type, off: types.Type) -> _Definition:
    """load_scalar(ptr, off): element `off`; a uint8 widens to int64, a stored bool gives a bool."""
    dtype = pointee(ptr)
    result = types.int64 if dtype == U8 else dtype

    def codegen(context: Any, builder: ir.IRBuilder, sig: Any, values: Any) -> ir.Value:
        value = builder.load(element_pointer(builder, values[0], values[1], dtype), typ=LLVM_MEMORY[dtype])
        if dtype == U8:
            return builder.zext(value, ir.IntType(64))
        if dtype == MASK:
            return builder.icmp_unsigned("!=", value, value.type(0))
        return value

    return result(ptr, types.int64), codegen


@tile_function
def store_scalar(typing: Any, ptr: types.Type, off: types.Type, value: types.Type) -> _Definition:
    """store_scalar(ptr, off, value): store one element, converted to the pointer's dtype as NumPy's astype."""
    dtype = pointee(ptr)
    if not isinstance(value, (types.Number, types.Boolean)):
        raise TypingError(f"store_scalar stores a scalar, not {value}")

    def codegen(context: Any, builder: ir.IRBuilder, sig: Any, values: Any) -> ir.Value:
        stored = values[2]
        if dtype == MASK:
            stored = builder.zext(stored, LLVM_MEMORY[MASK])
        builder.store(stored, element_pointer(builder, values[0], values[1], dtype))
        return context.get_dummy_value()

    return types.none(ptr, types.int64, dtype), codegen


def _typed_scalar(name: str, dtype: types.Type) -> Any:
    """The intrinsic `<name>(x)`: x converted to a scalar of `dtype`."""

    def define(typing: Any, x: types.Type) -> _Definition:
        if isinstance(x, TileType):
            raise TypingError(f"{name} converts scalars; use tile_cast_{name} for a tile")

        def codegen(context: Any, builder: ir.IRBuilder, sig: Any, values: Any) -> ir.Value:
            return values[0]  # Numba has cast the argument

        return dtype(dtype), codegen

    define.__name__ = define.__qualname__ = name
    define.__doc__ = f"{name}(x): the scalar x as {dtype}; in kernel source every float literal is written {name}(...)."
    return tile_function(define)


f32 = _typed_scalar("f32", F32)
f64 = _typed_scalar("f64", F64)
i32 = _typed_scalar("i32", I32)
i64 = _typed_scalar("i64", I64)
