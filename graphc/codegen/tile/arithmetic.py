"""Operators on tiles: + - * / // % unary -, comparisons, & | ~ on masks; select, minimum, maximum, rounding, casts.

Operands of an operator are two tiles of one dtype, or a tile and a scalar, which is converted to the tile's dtype
(so that Python literals are weakly typed). Shapes are equal, or broadcast where one has 1 row or 1 vector.
Nothing is reassociated or contracted: a product and a sum fuse only in `tile_fma`.
"""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any

from llvmlite import ir

from graphc.codegen.tile.registry import TileFunction, tile_function, tile_operator
from graphc.codegen.tile.signatures import (
    F32,
    F64,
    I32,
    I64,
    MASK,
    Definition,
    Literal,
    Scalar,
    Type,
    TypingError,
    is_scalar,
    without_literal,
)
from graphc.codegen.tile.types import (
    LLVM_ELEMENT,
    TileType,
    call_intrinsic,
    constant_like,
    float_intrinsic,
    splat,
    type_suffix,
)

_FLOATS, _INTEGERS = (F32, F64), (I32, I64)


def broadcast_shape(a: TileType, b: TileType, dtype: Scalar, what: str) -> TileType:
    """The shape of an elementwise result: equal sizes, or 1 against any."""
    if any(m != n and 1 not in (m, n) for m, n in ((a.rows, b.rows), (a.vectors, b.vectors))):
        raise TypingError(f"{what}: shapes of {a} and {b} do not fit")
    return TileType(dtype, max(a.rows, b.rows), max(a.vectors, b.vectors), a.lanes)


def operand_type(ty: Type, partner: TileType) -> Type:
    """What an operand is converted to: a tile stays, a scalar takes the dtype of its partner."""
    return ty if isinstance(ty, TileType) else partner.dtype


def spread(builder: ir.IRBuilder, value: ir.Value, ty: Type, shape: TileType) -> list[ir.Value]:
    """The vectors of an operand, broadcast to `shape`."""
    if not isinstance(ty, TileType):
        return [splat(builder, value, shape.lanes)] * shape.count
    return [value[(r if ty.rows > 1 else 0) * ty.vectors + (v if ty.vectors > 1 else 0)]
            for r in range(shape.rows) for v in range(shape.vectors)]


Emitter = Callable[..., Any]


def elementwise(what: str, emit: Emitter, *arguments: Type, result: Scalar | None = None,
                dtypes: tuple[Scalar, ...] = (), together: bool = False) -> Definition:
    """Signature and code of an elementwise function of tiles and scalars of one dtype; of scalars alone, a scalar.

    `result` is the dtype of the result where it is not that of the arguments; `dtypes` those that are allowed.
    `emit(builder, vector, ...)` gives a vector; if `together`, it takes and gives lists of all vectors instead.
    """
    tiles = [a for a in arguments if isinstance(a, TileType)]
    if not tiles:
        return _scalar(what, emit, *arguments, result=result, dtypes=dtypes, together=together)
    shape = tiles[0]
    for other in tiles[1:]:
        if other.dtype != shape.dtype:
            raise TypingError(f"{what}: dtypes of {shape} and {other} differ; cast one of them")
        shape = broadcast_shape(shape, other, shape.dtype, what)
    if dtypes and shape.dtype not in dtypes:
        raise TypingError(f"{what} is not defined on {shape}")
    converted = [operand_type(a, shape) for a in arguments]
    out = shape.with_dtype(result or shape.dtype)

    def code(builder: ir.IRBuilder, values: Any) -> Any:
        operands = [spread(builder, value, ty, shape) for value, ty in zip(values, converted, strict=True)]
        if together:
            return emit(builder, *operands)
        return [emit(builder, *vectors) for vectors in zip(*operands, strict=True)]

    return out(*converted), code


def _scalar(what: str, emit: Emitter, *arguments: Type, result: Scalar | None,
            dtypes: tuple[Scalar, ...], together: bool) -> Definition:
    """`elementwise` where no argument is a tile: all have the dtype of the first, but for integer literals."""
    dtype = without_literal(arguments[0])
    if any(without_literal(a) != dtype and not isinstance(a, Literal) for a in arguments):
        raise TypingError(f"{what}: scalars {', '.join(map(str, arguments))} differ in dtype; convert by f32(...) etc.")
    if dtype not in (dtypes or LLVM_ELEMENT):
        raise TypingError(f"{what} is not defined on {dtype}")

    def code(builder: ir.IRBuilder, values: Any) -> Any:
        return emit(builder, *([v] for v in values))[0] if together else emit(builder, *values)

    return (result or dtype)(*[dtype] * len(arguments)), code


# ---- emitters: LLVM values of scalar or vector type ----------------------------------------------------------------

def is_float(value: ir.Value) -> bool:
    """Whether a scalar or vector value has floating-point elements."""
    return isinstance(getattr(value.type, "element", value.type), (ir.FloatType, ir.DoubleType))


def _arithmetic(float_name: str, integer_name: str) -> Emitter:
    def emit(builder: ir.IRBuilder, a: ir.Value, b: ir.Value) -> ir.Value:
        return getattr(builder, float_name if is_float(a) else integer_name)(a, b)
    return emit


def _comparison(symbol: str) -> Emitter:
    def emit(builder: ir.IRBuilder, a: ir.Value, b: ir.Value) -> ir.Value:
        if not is_float(a):
            return builder.icmp_signed(symbol, a, b)
        return (builder.fcmp_unordered if symbol == "!=" else builder.fcmp_ordered)(symbol, a, b)
    return emit


def emit_maximum(builder: ir.IRBuilder, a: ir.Value, b: ir.Value) -> ir.Value:
    """The larger element; NaN if either is NaN."""
    return _extremum(builder, ">", a, b)


def emit_minimum(builder: ir.IRBuilder, a: ir.Value, b: ir.Value) -> ir.Value:
    """The smaller element; NaN if either is NaN."""
    return _extremum(builder, "<", a, b)


def _extremum(builder: ir.IRBuilder, symbol: str, a: ir.Value, b: ir.Value) -> ir.Value:
    if not is_float(a):
        return builder.select(builder.icmp_signed(symbol, a, b), a, b)
    # x86's own max gives b if either operand is NaN; the second select, for a NaN `a`, folds away for a constant.
    chosen = builder.select(builder.fcmp_ordered(symbol, a, b), a, b)
    return builder.select(builder.fcmp_unordered("uno", a, a), a, chosen)


def _negative(builder: ir.IRBuilder, a: ir.Value) -> ir.Value:
    return builder.fneg(a) if is_float(a) else builder.neg(a)


def floor_divide(builder: ir.IRBuilder, a: ir.Value, b: ir.Value) -> ir.Value:
    """Python's //: rounds towards minus infinity; by integer 0 it is 0, as in NumPy."""
    if is_float(a):
        return _floor_divide_floats(builder, a, b)
    one, zero = constant_like(a.type, 1), constant_like(a.type, 0)
    safe, by_zero, by_minus_one = _safe_divisor(builder, b)
    quotient = builder.sdiv(a, safe)
    inexact = builder.icmp_signed("!=", builder.mul(quotient, safe), a)
    opposite = builder.icmp_signed("<", builder.xor(a, safe), zero)
    floor = builder.sub(quotient, builder.select(builder.and_(inexact, opposite), one, zero))
    return builder.select(by_zero, zero, builder.select(by_minus_one, builder.neg(a), floor))


def _safe_divisor(builder: ir.IRBuilder, b: ir.Value) -> tuple[ir.Value, ir.Value, ir.Value]:
    """The divisor with 1 in the place of 0 and -1, which the processor traps on (-1 for the least integer); where."""
    by_zero = builder.icmp_signed("==", b, constant_like(b.type, 0))
    by_minus_one = builder.icmp_signed("==", b, constant_like(b.type, -1))
    trap = builder.or_(by_zero, by_minus_one)
    return builder.select(trap, constant_like(b.type, 1), b), by_zero, by_minus_one


def _floor_divide_floats(builder: ir.IRBuilder, a: ir.Value, b: ir.Value) -> ir.Value:
    """floor(a / b) of the exact quotient: a minus the remainder is a multiple of b but for rounding."""
    zero, one = constant_like(a.type, 0.0), constant_like(a.type, 1.0)
    remainder, opposite = _remainder(builder, a, b)
    whole = float_intrinsic(builder, "roundeven", builder.fdiv(builder.fsub(a, remainder), b))
    floor = builder.select(opposite, builder.fsub(whole, one), whole)
    plain = builder.fdiv(a, b)  # the infinity or NaN of a division by 0
    return builder.select(builder.fcmp_ordered("==", b, zero), plain, floor)


def _remainder(builder: ir.IRBuilder, a: ir.Value, b: ir.Value) -> tuple[ir.Value, ir.Value]:
    """The exact remainder of floats, with the sign of a, and whether it is not 0 and b has the other sign."""
    remainder, zero = builder.frem(a, b), constant_like(a.type, 0.0)
    signs = (builder.fcmp_ordered("<", remainder, zero), builder.fcmp_ordered("<", b, zero))
    return remainder, builder.and_(builder.fcmp_ordered("!=", remainder, zero), builder.xor(*signs))


def modulo(builder: ir.IRBuilder, a: ir.Value, b: ir.Value) -> ir.Value:
    """Python's %: the sign of the divisor; by integer 0 it is 0, by float 0 NaN, as in NumPy. Exact for floats."""
    if is_float(a):
        remainder, opposite = _remainder(builder, a, b)
        return builder.select(opposite, builder.fadd(remainder, b), remainder)
    safe, by_zero, by_minus_one = _safe_divisor(builder, b)
    remainder, zero = builder.srem(a, safe), constant_like(a.type, 0)
    adjust = builder.and_(builder.icmp_signed("!=", remainder, zero),
                          builder.icmp_signed("<", builder.xor(remainder, safe), zero))
    exact = builder.or_(by_zero, by_minus_one)
    return builder.select(exact, zero, builder.select(adjust, builder.add(remainder, safe), remainder))


# ---- operators -----------------------------------------------------------------------------------------------------

def _operator(function: Callable[..., Any], emit: Emitter, dtypes: tuple[Scalar, ...],
              result: Scalar | None = None) -> None:
    """Define an operator on tiles of `dtypes`."""
    def unary(a: Type) -> Definition | None:
        return elementwise(function.__name__, emit, a, result=result, dtypes=dtypes)

    def binary(a: Type, b: Type) -> Definition | None:
        if not any(isinstance(t, TileType) for t in (a, b)):
            return None
        if not all(isinstance(t, TileType) or is_scalar(t) for t in (a, b)):
            return None
        return elementwise(function.__name__, emit, a, b, result=result, dtypes=dtypes)

    def either(*arguments: Type) -> Definition | None:
        if len(arguments) == 1:
            return unary(*arguments) if isinstance(arguments[0], TileType) else None
        return binary(*arguments)

    tile_operator(function, either)


_operator(operator.add, _arithmetic("fadd", "add"), _FLOATS + _INTEGERS)
_operator(operator.sub, _arithmetic("fsub", "sub"), _FLOATS + _INTEGERS)
_operator(operator.mul, _arithmetic("fmul", "mul"), _FLOATS + _INTEGERS)
_operator(operator.truediv, _arithmetic("fdiv", "fdiv"), _FLOATS)
_operator(operator.floordiv, floor_divide, _FLOATS + _INTEGERS)
_operator(operator.mod, modulo, _FLOATS + _INTEGERS)
_operator(operator.neg, _negative, _FLOATS + _INTEGERS)
_operator(operator.and_, _arithmetic("", "and_"), _INTEGERS + (MASK,))
_operator(operator.or_, _arithmetic("", "or_"), _INTEGERS + (MASK,))
_operator(operator.xor, _arithmetic("", "xor"), _INTEGERS + (MASK,))
_operator(operator.invert, lambda builder, a: builder.not_(a), _INTEGERS + (MASK,))
_operator(operator.lshift, _arithmetic("", "shl"), _INTEGERS)
_operator(operator.rshift, _arithmetic("", "ashr"), _INTEGERS)
for _function, _symbol in ((operator.lt, "<"), (operator.le, "<="), (operator.gt, ">"), (operator.ge, ">="),
                           (operator.eq, "=="), (operator.ne, "!=")):
    _operator(_function, _comparison(_symbol), _FLOATS + _INTEGERS, result=MASK)


@tile_function
def tile_maximum(a: Type, b: Type) -> Definition:
    """tile_maximum(a, b): the larger element; NaN if either is NaN. A scalar is best given second."""
    return elementwise("tile_maximum", lambda builder, x, y: emit_maximum(builder, y, x), a, b,
                       dtypes=_FLOATS + _INTEGERS)


@tile_function
def tile_minimum(a: Type, b: Type) -> Definition:
    """tile_minimum(a, b): the smaller element; NaN if either is NaN. A scalar is best given second."""
    return elementwise("tile_minimum", lambda builder, x, y: emit_minimum(builder, y, x), a, b,
                       dtypes=_FLOATS + _INTEGERS)


@tile_function
def tile_floordiv(a: Type, b: Type) -> Definition:
    """tile_floordiv(a, b): a / b rounded down, from the exact quotient; of scalars too. By integer 0 it is 0."""
    return elementwise("tile_floordiv", floor_divide, a, b, dtypes=_FLOATS + _INTEGERS)


@tile_function
def tile_mod(a: Type, b: Type) -> Definition:
    """tile_mod(a, b): the remainder of tile_floordiv, exact, with the sign of b; by integer 0 it is 0, by 0.0 NaN."""
    return elementwise("tile_mod", modulo, a, b, dtypes=_FLOATS + _INTEGERS)


@tile_function
def tile_fma(a: Type, b: Type, c: Type) -> Definition:
    """tile_fma(a, b, c): a * b + c, rounded once; tiles of one float dtype, or scalars."""
    return elementwise("tile_fma", lambda builder, *x: float_intrinsic(builder, "fma", *x), a, b, c, dtypes=_FLOATS)


@tile_function
def tile_select(mask: Type, a: Type, b: Type) -> Definition:
    """tile_select(mask, a, b): a where the mask is true, else b. Tiles of one dtype, or scalars; the mask may be a
    bool, and if a and b are scalars of one dtype, only the mask may be a tile."""
    arguments = (mask, a, b)
    tiles = [t for t in arguments if isinstance(t, TileType)]
    if mask != MASK and getattr(mask, "dtype", None) != MASK:
        raise TypingError(f"the mask of tile_select must be a mask tile or a bool, not {mask}")
    dtype = next((t.dtype for t in (a, b) if isinstance(t, TileType)), without_literal(a))
    if dtype not in LLVM_ELEMENT or any(t.dtype != dtype for t in (a, b) if isinstance(t, TileType)):
        raise TypingError(f"tile_select: {a} and {b} must have one tile dtype; cast one of them")
    if not tiles:
        return dtype(MASK, dtype, dtype), lambda builder, values: builder.select(*values)
    shape = tiles[0].with_dtype(dtype)
    for t in tiles[1:]:
        shape = broadcast_shape(shape, t, dtype, "tile_select")
    converted = [mask if isinstance(mask, TileType) else MASK, operand_type(a, shape), operand_type(b, shape)]

    def code(builder: ir.IRBuilder, values: Any) -> Any:
        operands = [spread(builder, value, ty, shape) for value, ty in zip(values, converted, strict=True)]
        return [builder.select(*vectors) for vectors in zip(*operands, strict=True)]

    return shape(*converted), code


@tile_function
def tile_abs(a: Type) -> Definition:
    """tile_abs(a): the absolute value."""
    def emit(builder: ir.IRBuilder, x: ir.Value) -> ir.Value:
        if is_float(x):
            return float_intrinsic(builder, "fabs", x)
        return builder.select(builder.icmp_signed("<", x, constant_like(x.type, 0)), builder.neg(x), x)
    return elementwise("tile_abs", emit, a, dtypes=_FLOATS + _INTEGERS)


def _rounding(name: str, intrinsic: str, doc: str) -> TileFunction:
    def define(a: Type) -> Definition:
        return elementwise(name, lambda builder, x: float_intrinsic(builder, intrinsic, x), a, dtypes=_FLOATS)
    define.__name__, define.__doc__ = name, doc
    return tile_function(define)


tile_sqrt = _rounding("tile_sqrt", "sqrt", "tile_sqrt(a): the square root, correctly rounded; NaN below 0.")
tile_floor = _rounding("tile_floor", "floor", "tile_floor(a): rounded towards minus infinity.")
tile_ceil = _rounding("tile_ceil", "ceil", "tile_ceil(a): rounded towards plus infinity.")
tile_round = _rounding("tile_round", "roundeven", "tile_round(a): rounded to the nearest integer, ties to even.")


def _cast(name: str, dtype: Scalar) -> TileFunction:
    """The function `tile_cast_<name>`."""
    def define(a: Type) -> Definition:
        return elementwise(f"tile_cast_{name}", lambda builder, x: emit_cast(builder, x, dtype), a, result=dtype)
    define.__name__ = f"tile_cast_{name}"
    define.__doc__ = f"tile_cast_{name}(a): converted to {dtype}; floats truncate and saturate, NaN to 0."
    return tile_function(define)


def emit_cast(builder: ir.IRBuilder, x: ir.Value, dtype: Scalar) -> ir.Value:
    """A scalar or vector converted to `dtype`."""
    source = getattr(x.type, "element", x.type)
    element = LLVM_ELEMENT[dtype]
    target = ir.VectorType(element, x.type.count) if isinstance(x.type, ir.VectorType) else element
    if source == element:
        return x
    if dtype == MASK:
        zero = constant_like(x.type, 0)
        return builder.fcmp_unordered("!=", x, zero) if is_float(x) else builder.icmp_signed("!=", x, zero)
    if is_float(x):
        if dtype in _FLOATS:
            return builder.fpext(x, target) if dtype == F64 else builder.fptrunc(x, target)
        name = f"llvm.fptosi.sat.{type_suffix(target)}.{type_suffix(x.type)}"
        return call_intrinsic(builder, name, target, [x])
    if dtype in _FLOATS:
        return builder.uitofp(x, target) if source.width == 1 else builder.sitofp(x, target)
    if source.width == 1:
        return builder.zext(x, target)
    return builder.sext(x, target) if element.width > source.width else builder.trunc(x, target)


tile_cast_f32 = _cast("f32", F32)
tile_cast_f64 = _cast("f64", F64)
tile_cast_i32 = _cast("i32", I32)
tile_cast_i64 = _cast("i64", I64)
tile_cast_mask = _cast("mask", MASK)
