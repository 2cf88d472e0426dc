"""Operands of a kernel, typed scalars, and loading and storing one element."""

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
    Pointer,
    Scalar,
    Type,
    TypingError,
    is_scalar,
)
from graphc.codegen.tile.types import LLVM_MEMORY, TileType, element_pointer, llvm_pointer, pointee


def _operand(name: str, dtype: Scalar) -> Any:
    """The function `operand_<name>(args, k)`: operand k's address as a typed pointer."""

    def define(args: Type, k: Type) -> Definition:
        result = Pointer(dtype)

        def code(builder: ir.IRBuilder, values: Any) -> Any:
            address = builder.load(builder.gep(values[0], [values[1]]))
            return builder.inttoptr(address, llvm_pointer(dtype))

        return result(Pointer(I64), I64), code

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
def extent(args: Type, k: Type) -> Definition:
    """extent(args, k): the runtime count `*(int64 *)args[k]`, an int64."""

    def code(builder: ir.IRBuilder, values: Any) -> Any:
        address = builder.load(builder.gep(values[0], [values[1]]))
        return builder.load(builder.inttoptr(address, values[0].type))

    return I64(Pointer(I64), I64), code


@tile_function
def offset_ptr(ptr: Type, off: Type) -> Definition:
    """offset_ptr(ptr, off): the pointer `off` elements further."""
    dtype = pointee(ptr)

    def code(builder: ir.IRBuilder, values: Any) -> Any:
        moved = element_pointer(builder, values[0], values[1], dtype)
        return builder.bitcast(moved, values[0].type)

    return ptr(ptr, I64), code


@tile_function
def load_scalar(ptr: Type, off: Type) -> Definition:
    """load_scalar(ptr, off): element `off`; a uint8 widens to int64, a stored bool gives a bool."""
    dtype = pointee(ptr)
    result = I64 if dtype == U8 else dtype

    def code(builder: ir.IRBuilder, values: Any) -> Any:
        value = builder.load(element_pointer(builder, values[0], values[1], dtype), typ=LLVM_MEMORY[dtype])
        if dtype == U8:
            return builder.zext(value, ir.IntType(64))
        if dtype == MASK:
            return builder.icmp_unsigned("!=", value, value.type(0))
        return value

    return result(ptr, I64), code


@tile_function
def store_scalar(ptr: Type, off: Type, value: Type) -> Definition:
    """store_scalar(ptr, off, value): store one element, converted to the pointer's dtype as NumPy's astype."""
    dtype = pointee(ptr)
    if not is_scalar(value):
        raise TypingError(f"store_scalar stores a scalar, not {value}")

    def code(builder: ir.IRBuilder, values: Any) -> Any:
        stored = values[2]
        if dtype == MASK:
            stored = builder.zext(stored, LLVM_MEMORY[MASK])
        builder.store(stored, element_pointer(builder, values[0], values[1], dtype))
        return None

    return NONE(ptr, I64, dtype), code


def _typed_scalar(name: str, dtype: Scalar) -> Any:
    """The function `<name>(x)`: x converted to a scalar of `dtype`."""

    def define(x: Type) -> Definition:
        if isinstance(x, TileType):
            raise TypingError(f"{name} converts scalars; use tile_cast_{name} for a tile")

        def code(builder: ir.IRBuilder, values: Any) -> Any:
            return values[0]  # converted to the signature's type already

        return dtype(dtype), code

    define.__name__ = define.__qualname__ = name
    define.__doc__ = f"{name}(x): the scalar x as {dtype}; in kernel source every float literal is written {name}(...)."
    return tile_function(define)


f32 = _typed_scalar("f32", F32)
f64 = _typed_scalar("f64", F64)
i32 = _typed_scalar("i32", I32)
i64 = _typed_scalar("i64", I64)
