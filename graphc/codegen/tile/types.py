"""The tile type, and the LLVM building blocks that every tile function is made of.

A tile has `rows` rows of `vectors` SIMD vectors of `lanes` elements. Its value is the list of its
`rows * vectors` LLVM vectors, row after row. A mask is a tile of dtype bool, of `<lanes x i1>` vectors.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from llvmlite import ir

from graphc.codegen.host import host
from graphc.codegen.tile.signatures import F32, F64, I32, I64, MASK, U8, Literal, Pointer, Scalar, Type, TypingError

LLVM_ELEMENT = {F32: ir.FloatType(), F64: ir.DoubleType(), I32: ir.IntType(32), I64: ir.IntType(64),
                MASK: ir.IntType(1)}
LLVM_MEMORY = {**LLVM_ELEMENT, U8: ir.IntType(8), MASK: ir.IntType(8)}
BYTES = {F32: 4, F64: 8, I32: 4, I64: 8, U8: 1, MASK: 1}
INDEX = ir.IntType(64)
INT32 = ir.IntType(32)


@dataclass(frozen=True)
class TileType(Type):
    """`rows` x `vectors` SIMD vectors of `lanes` elements of a scalar type."""

    dtype: Scalar
    rows: int
    vectors: int
    lanes: int

    def __str__(self) -> str:
        return f"tile({self.dtype}, {self.rows}x{self.vectors}, {self.lanes} lanes)"

    @property
    def count(self) -> int:
        """The number of vectors."""
        return self.rows * self.vectors

    @property
    def llvm_vector(self) -> ir.VectorType:
        """The LLVM type of one vector."""
        return ir.VectorType(LLVM_ELEMENT[self.dtype], self.lanes)

    def with_dtype(self, dtype: Scalar) -> TileType:
        """A tile of the same shape and another dtype."""
        return TileType(dtype, self.rows, self.vectors, self.lanes)


def tile_type(dtype: Scalar, rows: int, vectors: int) -> TileType:
    """The tile type of the host's lane count."""
    return TileType(dtype, rows, vectors, host().lanes)


def literal(ty: Type, name: str) -> int:
    """The value of an argument that must be an integer literal, at least 1."""
    if not isinstance(ty, Literal) or ty.value < 1:
        raise TypingError(f"{name} must be a positive integer literal, not {ty}")
    return ty.value


def pointee(ptr: Type) -> Scalar:
    """The dtype a pointer argument points to."""
    if not isinstance(ptr, Pointer):
        raise TypingError(f"expected a typed pointer made by operand_<dtype>, not {ptr}")
    return ptr.dtype


def loaded_dtype(ptr: Type) -> Scalar:
    """The tile dtype that loading from `ptr` gives: uint8 widens to int32, everything else stays."""
    dtype = pointee(ptr)
    return I32 if dtype == U8 else dtype


def expect_tile(ty: Type, name: str, *dtypes: Type) -> TileType:
    """Check that an argument is a tile (of one of `dtypes`, where given)."""
    if not isinstance(ty, TileType) or (dtypes and ty.dtype not in dtypes):
        wanted = " or ".join(map(str, dtypes))
        raise TypingError(f"{name} must be a tile{' of ' + wanted if wanted else ''}, not {ty}")
    return ty


# ---- LLVM values --------------------------------------------------------------------------------------------------

def aggregate(builder: ir.IRBuilder, vectors: Sequence[ir.Value]) -> ir.Value:
    """One LLVM value, an array, made of `vectors`."""
    array = ir.Constant(ir.ArrayType(vectors[0].type, len(vectors)), ir.Undefined)
    for i, vector in enumerate(vectors):
        array = builder.insert_value(array, vector, i)
    return array


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


def llvm_pointer(dtype: Scalar) -> ir.PointerType:
    """The LLVM type of a pointer to elements in memory."""
    return LLVM_MEMORY[dtype].as_pointer()


def element_pointer(builder: ir.IRBuilder, ptr: ir.Value, offset: ir.Value, dtype: Scalar) -> ir.Value:
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
        inner.ret(aggregate(inner, body(inner, *groups)))
    called = builder.call(function, [value for group in arguments for value in group])
    return [builder.extract_value(called, i) for i in range(size)]
