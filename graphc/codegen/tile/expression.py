"""LLVM values with Python operators, so that polynomials and bit tricks read as formulas."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from llvmlite import ir

from graphc.codegen.tile.types import constant_like, float_intrinsic, type_suffix

_INTEGER_OF = {"f32": ir.IntType(32), "f64": ir.IntType(64)}


@dataclass(frozen=True, eq=False)
class Expression:
    """One or several LLVM scalars or vectors of one type; a Python number stands for a constant.

    Each operation is emitted for all `values` before the next one: a processor looks ahead only so far, and
    finds independent work only if neighbouring instructions belong to different values.
    """

    builder: ir.IRBuilder
    values: tuple[ir.Value, ...]

    @property
    def value(self) -> ir.Value:
        """The value, where there is one only."""
        (value,) = self.values
        return value

    @property
    def type(self) -> ir.Type:
        """The LLVM type of each value."""
        return self.values[0].type

    @property
    def element(self) -> ir.Type:
        """The LLVM type of one lane."""
        return getattr(self.type, "element", self.type)

    @property
    def is_float(self) -> bool:
        """Whether the lanes are floating-point numbers."""
        return not isinstance(self.element, ir.IntType)

    def like(self, element: ir.Type) -> ir.Type:
        """The type with as many lanes and another element."""
        return ir.VectorType(element, self.type.count) if isinstance(self.type, ir.VectorType) else element

    def constant(self, value: float) -> Expression:
        """A constant of this type."""
        return Expression(self.builder, (constant_like(self.type, value),) * len(self.values))

    def map(self, function: Callable[..., ir.Value], *others: Expression | float) -> Expression:
        """`function` of each value and the corresponding values of `others`."""
        operands = [o.values if isinstance(o, Expression) else self.constant(o).values for o in others]
        return Expression(self.builder, tuple(function(*v) for v in zip(self.values, *operands, strict=True)))

    def __add__(self, other: Expression | float) -> Expression:
        return self.map(self.builder.fadd if self.is_float else self.builder.add, other)

    def __sub__(self, other: Expression | float) -> Expression:
        return self.map(self.builder.fsub if self.is_float else self.builder.sub, other)

    def __mul__(self, other: Expression | float) -> Expression:
        return self.map(self.builder.fmul if self.is_float else self.builder.mul, other)

    def __truediv__(self, other: Expression | float) -> Expression:
        return self.map(self.builder.fdiv, other)

    def __neg__(self) -> Expression:
        return self.map(self.builder.fneg if self.is_float else self.builder.neg)

    def __and__(self, other: Expression | int) -> Expression:
        return self.map(self.builder.and_, other)

    def __or__(self, other: Expression | int) -> Expression:
        return self.map(self.builder.or_, other)

    def __xor__(self, other: Expression | int) -> Expression:
        return self.map(self.builder.xor, other)

    def __lshift__(self, other: int) -> Expression:
        return self.map(self.builder.shl, other)

    def __rshift__(self, other: int) -> Expression:
        """Arithmetic shift; `shift_right_logical` is the other one."""
        return self.map(self.builder.ashr, other)

    def shift_right_logical(self, other: int) -> Expression:
        """Shift in zeros."""
        return self.map(self.builder.lshr, other)

    def compare(self, symbol: str, other: Expression | float) -> Expression:
        """An ordered comparison (False for NaN), signed for integers."""
        build = self.builder.fcmp_ordered if self.is_float else self.builder.icmp_signed
        return self.map(lambda a, b: build(symbol, a, b), other)

    def __lt__(self, other: Expression | float) -> Expression:
        return self.compare("<", other)

    def __gt__(self, other: Expression | float) -> Expression:
        return self.compare(">", other)

    def select(self, then: Expression | float, otherwise: Expression) -> Expression:
        """`then` where this condition holds, else `otherwise`."""
        chosen = then if isinstance(then, Expression) else otherwise.constant(then)
        return self.map(self.builder.select, chosen, otherwise)

    def call(self, intrinsic: str, *others: Expression | float) -> Expression:
        """An LLVM intrinsic of this type: `floor`, `fabs`, `sqrt`, `copysign`, ..."""
        return self.map(lambda *values: float_intrinsic(self.builder, intrinsic, *values), *others)

    def fma(self, factor: Expression | float, summand: Expression | float) -> Expression:
        """self * factor + summand, rounded once."""
        return self.call("fma", factor, summand)

    def at_least(self, bound: float) -> Expression:
        """max(self, bound); NaN stays NaN (one instruction)."""
        return (self < bound).select(bound, self)

    def at_most(self, bound: float) -> Expression:
        """min(self, bound); NaN stays NaN (one instruction)."""
        return (self > bound).select(bound, self)

    def polynomial(self, *coefficients: float) -> Expression:
        """The polynomial with `coefficients`, constant term first, by Horner's rule with fused steps."""
        result = self.constant(coefficients[-1])
        for coefficient in reversed(coefficients[:-1]):
            result = result.fma(self, coefficient)
        return result

    def bits(self) -> Expression:
        """The bit pattern as integers of the same width."""
        target = self.like(_INTEGER_OF[type_suffix(self.element)])
        return self.map(lambda value: self.builder.bitcast(value, target))

    def as_float(self, element: ir.Type) -> Expression:
        """A bit pattern as floating-point numbers."""
        return self.map(lambda value: self.builder.bitcast(value, self.like(element)))

    def to_float(self, element: ir.Type) -> Expression:
        """Signed integers converted to floating-point numbers."""
        return self.map(lambda value: self.builder.sitofp(value, self.like(element)))

    def truncated(self, element: ir.Type) -> Expression:
        """The low bits of integers."""
        return self.map(lambda value: self.builder.trunc(value, self.like(element)))
