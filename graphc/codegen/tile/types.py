"""The Numba tile type, and the LLVM building blocks that every tile function is made of.

A tile has `rows` rows of `vectors` SIMD vectors of `lanes` elements. Its LLVM value is an array of
`rows * vectors` vectors, row after row; LLVM's SROA pass keeps the array in registers. A mask is a
tile of dtype boolean, an array of `<lanes x i1>` vectors.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from llvmlite import ir
from numba.core import types
from numba.core.errors import TypingError
from numba.extending import models, register_model

from graphc.codegen.host import host

F32, F64, I32, I64, U8, MASK = (
    types.float32, types.float64, types.int32, types.int64, types.uint8, types.boolean)

LLVM_ELEMENT = {F32: ir.FloatType(), F64: ir.DoubleType(), I32: ir.IntType(32), I64: ir.IntType(64),
                MASK: ir.IntType(1)}
LLVM_MEMORY = {**LLVM_ELEMENT, U8: ir.IntType(8), MASK: ir.IntType(8)}
BYTES = {F32: 4, F64: 8, I32: 4, I64: 8, U8: 1, MASK: 1}
INDEX = ir.IntType(64)
INT32 = ir.IntType(32)


class TileType(types.Type):
    """`rows` x `vectors` SIMD vectors of `lanes` elements of the Numba scalar type `dtype`."""

    def __init__(self, dtype: types.Type, rows: int, vectors: int, lanes: int) -> None:
        self.dtype, self.rows, self.vectors, self.lanes = dtype, rows, vectors, lanes
        super().__init__(name=f"tile({dtype}, {rows}x{vectors}, {lanes} lanes)")

    @property
    def count(self) -> int:
        """The number of vectors."""
        return self.rows * self.vectors

    @property
    def llvm_vector(self) -> ir.VectorType:
        """The LLVM type of one vector."""
        return ir.VectorType(LLVM_ELEMENT[self.dtype], self.lanes)

    def with_dtype(self, dtype: types.Type) -> TileType:
        """A tile of the same shape and another dtype."""
        return TileType(dtype, self.rows, self.vectors, self.lanes)


@register_model(TileType)
class TileModel(models.PrimitiveModel):
    """The LLVM value of a tile: an array of vectors."""

    def __init__(self, dmm: Any, fe_type: TileType) -> None:
        super().__init__(dmm, fe_type, ir.ArrayType(fe_type.llvm_vector, fe_type.count))


def tile_type(dtype: types.Type, rows: int, vectors: int) -> TileType:
    """The tile type of the host's lane count."""
    return TileType(dtype, rows, vectors, host().lanes)


def literal(ty: types.Type, name: str) -> int:
    """The value of an argument that must be an integer literal, at least 1."""
    if not isinstance(ty, types.IntegerLiteral) or ty.literal_value < 1:
        raise TypingError(f"{name} must be a positive integer literal, not {ty}")
    return int(ty.literal_value)


def pointee(ptr: types.Type) -> types.Type:
    """The dtype a pointer argument points to."""
    if not isinstance(ptr, types.CPointer) or ptr.dtype not in LLVM_MEMORY:
        raise TypingError(f"expected a typed pointer made by operand_<dtype>, not {ptr}")
    return ptr.dtype


def loaded_dtype(ptr: types.Type) -> types.Type:
    """The tile dtype that loading from `ptr` gives: uint8 widens to int32, everything else stays."""
    dtype = pointee(ptr)
    return I32 if dtype == U8 else dtype


def expect_tile(ty: types.Type, name: str, *dtypes: types.Type) -> TileType:
    """Check that an argument is a tile (of one of `dtypes`, where given)."""
    if not isinstance(ty, TileType) or (dtypes and ty.dtype not in dtypes):
        wanted = " or ".join(map(str, dtypes))
        raise TypingError(f"{name} must be a tile{' of ' + wanted if wanted else ''}, not {ty}")
    return ty


# ---- LLVM values --------------------------------------------------------------------------------------------------

def unpack(builder: ir.IRBuilder, tile: ir.Value, count: int) -> list[ir.Value]:
    """The vectors of a tile value, row after row."""
    return [builder.extract_value(tile, i) for i in range(count)]


def pack(builder: ir.IRBuilder, vectors: Sequence[ir.Value]) -> ir.Value:
    """The tile value made of `vectors`."""
    tile = ir.Constant(ir.ArrayType(vectors[0].type, len(vectors)), ir.Undefined)
    for i, vector in enumerate(vectors):
        tile = builder.insert_value(tile, vector, i)
    return tile


def splat(builder: ir.IRBuilder, scalar: ir.Value, lanes: int) -> ir.Value:
    """A vector with `scalar` in every lane."""
    if isinstance(scalar, ir.Constant):
        return ir.Constant(ir.VectorType(scalar.type, lanes), [scalar.constant] * lanes)
    undefined = ir.Constant(ir.VectorType(scalar.type, lanes), ir.Undefined)
    first = builder.insert_element(undefined, scalar, INT32(0))
    return builder.shuffle_vector(first, undefined, ir.Constant(ir.VectorType(INT32, lanes), [0] * lanes))


def constant_like(ty: ir.Type, value: float | int) -> ir.Constant:
    """The constant `value` of a scalar or vector LLVM type, in every lane."""
    if isinstance(ty, ir.VectorType):
        return ir.Constant(ty, [value] * ty.count)
    return ir.Constant(ty, value)


def lane_indices(lanes: int, start: int = 0, bits: int = 64) -> ir.Constant:
    """The constant vector start, start+1, ..."""
    return ir.Constant(ir.VectorType(ir.IntType(bits), lanes), list(range(start, start + lanes)))


def shuffle(builder: ir.IRBuilder, a: ir.Value, b: ir.Value, lanes: Sequence[int]) -> ir.Value:
    """Pick `lanes` from the concatenation of vectors `a` and `b`."""
    return builder.shuffle_vector(a, b, ir.Constant(ir.VectorType(INT32, len(lanes)), list(lanes)))


def element_pointer(builder: ir.IRBuilder, ptr: ir.Value, offset: ir.Value, dtype: types.Type) -> ir.Value:
    """The address `offset` elements after `ptr`."""
    return builder.gep(ptr, [offset], source_etype=LLVM_MEMORY[dtype])


def row_offset(builder: ir.IRBuilder, offset: ir.Value, stride: ir.Value, row: int) -> ir.Value:
    """offset + row * stride."""
    if row == 0:
        return offset
    return builder.add(offset, builder.mul(stride, INDEX(row), flags=("nsw",)), flags=("nsw",))


def call_intrinsic(builder: ir.IRBuilder, name: str, result: ir.Type, args: Sequence[ir.Value]) -> ir.Value:
    """Call an LLVM intrinsic by its full, mangled name."""
    module = builder.module
    function = module.globals.get(name)
    if function is None:
        function = ir.Function(module, ir.FunctionType(result, [a.type for a in args]), name)
    return builder.call(function, list(args))


def type_suffix(ty: ir.Type) -> str:
    """The mangled name of a scalar or vector type in LLVM intrinsic names: `v16f32`, `f64`, `i32`."""
    if isinstance(ty, ir.VectorType):
        return f"v{ty.count}{type_suffix(ty.element)}"
    if isinstance(ty, ir.FloatType):
        return "f32"
    if isinstance(ty, ir.DoubleType):
        return "f64"
    return f"i{ty.width}"


def float_intrinsic(builder: ir.IRBuilder, name: str, *args: ir.Value) -> ir.Value:
    """Call `llvm.<name>` overloaded on the type of its arguments, which is its result type too."""
    ty = args[0].type
    return call_intrinsic(builder, f"llvm.{name}.{type_suffix(ty)}", ty, args)


def shared_function(builder: ir.IRBuilder, name: str, body: Callable[..., Sequence[ir.Value]],
                    *arguments: Sequence[ir.Value]) -> list[ir.Value]:
    """Call an internal, always-inlined function of the module, building it if the module has none yet.

    `arguments` are equally long groups of values of one type, and `body(builder, *groups)` gives such a group.
    Long vector expressions (polynomials) are built once per module instead of once per vector, because building
    LLVM IR from Python is what costs.
    """
    module, size, ty = builder.module, len(arguments[0]), arguments[0][0].type
    name = f"{name}.{size}x{type_suffix(ty)}"
    function = module.globals.get(name)
    if function is None:
        result = ir.ArrayType(ty, size)
        function = ir.Function(module, ir.FunctionType(result, [ty] * (size * len(arguments))), name)
        function.linkage = "internal"
        function.attributes.add("alwaysinline")
        inner = ir.IRBuilder(function.append_basic_block("entry"))
        groups = [function.args[i:i + size] for i in range(0, len(function.args), size)]
        inner.ret(pack(inner, body(inner, *groups)))
    called = builder.call(function, [value for group in arguments for value in group])
    return unpack(builder, called, size)
