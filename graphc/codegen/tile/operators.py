"""Python's operators on scalars, and conversions between scalars, with Numba's rules.

Integers compute in 64 bits (a literal converts to any number), float32 with float32 stays, and any other mix with a
float is float64. Integer `//` and `%` round down; by 0 they are 0.
"""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any

import numpy as np
from llvmlite import ir

from graphc.codegen.tile.arithmetic import floor_divide, is_float, modulo
from graphc.codegen.tile.signatures import (
    F32,
    F64,
    I64,
    MASK,
    Definition,
    Scalar,
    Type,
    TypingError,
    is_scalar,
)
from graphc.codegen.tile.types import INDEX, LLVM_ELEMENT

Operator = Callable[..., Any]
_ARITHMETIC: dict[Operator, tuple[str, str]] = {
    operator.add: ("add", "fadd"), operator.sub: ("sub", "fsub"), operator.mul: ("mul", "fmul")}  # fmt: skip
_COMPARISONS: dict[Operator, str] = {
    operator.lt: "<", operator.le: "<=", operator.gt: ">", operator.ge: ">=", operator.eq: "==", operator.ne: "!="}
_BITS: dict[Operator, str] = {operator.and_: "and_", operator.or_: "or_", operator.xor: "xor"}
_SHIFTS: dict[Operator, str] = {operator.lshift: "shl", operator.rshift: "ashr"}


def scalar_operation(function: Operator, *arguments: Type) -> Definition:
    """Signature and code of an operator on scalars. Raises TypingError where kernel source has no such operator."""
    found = None
    if all(is_scalar(a) for a in arguments):
        found = _unary(function, *arguments) if len(arguments) == 1 else _binary(function, *arguments)
    if found is None:
        raise TypingError(f"{function.__name__} is not defined for {', '.join(map(str, arguments))}")
    return found


def _unary(function: Operator, a: Type) -> Definition | None:
    if function is operator.not_ and a == MASK:
        return MASK(MASK), lambda builder, values: builder.not_(values[0])
    if function is operator.neg and a != MASK:
        result = a if isinstance(a, Scalar) and a.kind == "f" else I64
        return result(result), lambda builder, values: _negated(builder, values[0])
    return None


def _binary(function: Operator, a: Type, b: Type) -> Definition | None:
    common = _common(a, b)
    if function in _BITS and a == b == MASK:
        return MASK(MASK, MASK), lambda builder, values: getattr(builder, _BITS[function])(*values)
    if common is None:
        return None
    if function in _COMPARISONS:
        return MASK(common, common), lambda builder, values: _compared(builder, _COMPARISONS[function], *values)
    if function is operator.truediv:
        quotient = F32 if common == F32 else F64
        return quotient(quotient, quotient), lambda builder, values: builder.fdiv(*values)
    if function in _ARITHMETIC:
        integer, floating = _ARITHMETIC[function]
        if common.kind == "f":
            return common(common, common), lambda builder, values: getattr(builder, floating)(*values)
        return I64(I64, I64), lambda builder, values: _integer(builder, integer, *values)
    if common.kind == "f":
        return None
    if function is operator.floordiv:
        return I64(I64, I64), lambda builder, values: _divided(builder, *values)
    if function is operator.mod:
        return I64(I64, I64), lambda builder, values: _remainder(builder, *values)
    name = (_BITS | _SHIFTS).get(function)
    return None if name is None else (I64(I64, I64), lambda builder, values: getattr(builder, name)(*values))


def _common(a: Type, b: Type) -> Scalar | None:
    """The type that two numbers compute in; None for truth values beside floats."""
    floats = [t for t in (a, b) if isinstance(t, Scalar) and t.kind == "f"]
    if not floats:
        return I64
    if MASK in (a, b):
        return None
    return F32 if floats == [F32, F32] else F64


# ---- LLVM values ---------------------------------------------------------------------------------------------------


def constant_integer(value: ir.Value) -> int | None:
    """The number that an integer value is known to be, or None."""
    known = isinstance(value, ir.Constant) and isinstance(value.constant, int)
    return value.constant if known else None


def _integer(builder: ir.IRBuilder, name: str, a: ir.Value, b: ir.Value) -> ir.Value:
    """a + b, a - b or a * b of integers, folded where that is easy: indices are full of `* 1` and `+ 0`."""
    left, right = constant_integer(a), constant_integer(b)
    if left is not None and right is not None:
        exact = {"add": left + right, "sub": left - right, "mul": left * right}[name]
        return INDEX((exact + 2**63) % 2**64 - 2**63)
    if name == "mul" and 0 in (left, right):
        return INDEX(0)
    neutral = 1 if name == "mul" else 0
    if right == neutral:
        return a
    if left == neutral and name != "sub":
        return b
    return getattr(builder, name)(a, b)


def _divided(builder: ir.IRBuilder, a: ir.Value, b: ir.Value) -> ir.Value:
    known, divisor = constant_integer(a), constant_integer(b)
    if known is not None and divisor:
        return INDEX(known // divisor)
    if divisor is not None and divisor > 0 and divisor & (divisor - 1) == 0:
        return builder.ashr(a, INDEX(divisor.bit_length() - 1))
    return floor_divide(builder, a, b)


def _remainder(builder: ir.IRBuilder, a: ir.Value, b: ir.Value) -> ir.Value:
    known, divisor = constant_integer(a), constant_integer(b)
    if known is not None and divisor:
        return INDEX(known % divisor)
    if divisor is not None and divisor > 0 and divisor & (divisor - 1) == 0:
        return builder.and_(a, INDEX(divisor - 1))
    return modulo(builder, a, b)


def _negated(builder: ir.IRBuilder, a: ir.Value) -> ir.Value:
    return builder.fneg(a) if is_float(a) else _integer(builder, "sub", INDEX(0), a)


def _compared(builder: ir.IRBuilder, symbol: str, a: ir.Value, b: ir.Value) -> ir.Value:
    if is_float(a):
        return (builder.fcmp_unordered if symbol == "!=" else builder.fcmp_ordered)(symbol, a, b)
    return builder.icmp_signed(symbol, a, b)


def literal_value(number: float | int | bool, ty: Scalar) -> ir.Constant:
    """A number as a constant of a scalar type."""
    if ty.kind == "f":
        return ir.Constant(LLVM_ELEMENT[ty], float(np.float32(number)) if ty == F32 else float(number))
    return ir.Constant(LLVM_ELEMENT.get(ty, ir.IntType(ty.bits)), bool(number) if ty == MASK else int(number))


def converted(builder: ir.IRBuilder, value: ir.Value, source: Scalar, target: Scalar) -> ir.Value:
    """A scalar converted as C does it: integers wrap, floats truncate towards 0; a number is true if it is not 0."""
    if source == target:
        return value
    llvm = LLVM_ELEMENT.get(target, ir.IntType(target.bits))
    if target == MASK:
        zero = ir.Constant(value.type, 0.0 if source.kind == "f" else 0)
        return _compared(builder, "!=", value, zero)
    if source.kind == "f":
        if target.kind != "f":
            return builder.fptosi(value, llvm)
        if isinstance(value, ir.Constant):
            return literal_value(value.constant, target)
        return builder.fpext(value, llvm) if target == F64 else builder.fptrunc(value, llvm)
    if target.kind == "f":
        return builder.uitofp(value, llvm) if source == MASK else builder.sitofp(value, llvm)
    if target.bits < source.bits:
        return builder.trunc(value, llvm)
    return builder.zext(value, llvm) if source == MASK else builder.sext(value, llvm)
