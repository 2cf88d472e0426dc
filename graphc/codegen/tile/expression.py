"""LLVM values with Python operators, so that polynomials and bit tricks read as formulas."""

from __future__ import annotations

from dataclasses import dataclass

from llvmlite import ir

from graphc.codegen.tile.types import constant_like, float_intrinsic, type_suffix

_INTEGER_OF = {"f32": ir.IntType(32), "f64": ir.IntType(64)}


@dataclass(frozen=True, eq=False)
class Expression:
    """An LLVM scalar or vector and the builder that extends its block; a Python number stands for a constant."""

    builder: ir.IRBuilder
    value: ir.Value

    @property
    def type(self) -> ir.Type:
        """The LLVM type."""
        return self.value.type

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
        return Expression(self.builder, constant_like(self.type, value))

    def _of(self, other: Expression | float) -> ir.Value:
        return other.value if isinstance(other, Expression) else constant_like(self.type, other)

    def _new(self, value: ir.Value) -> Expression:
        return Expression(self.builder, value)

    def __add__(self, other: Expression | float) -> Expression:
        build = self.builder.fadd if self.is_float else self.builder.add
        return self._new(build(self.value, self._of(other)))

    def __sub__(self, other: Expression | float) -> Expression:
        build = self.builder.fsub if self.is_float else self.builder.sub
        return self._new(build(self.value, self._of(other)))

    def __mul__(self, other: Expression | float) -> Expression:
        build = self.builder.fmul if self.is_float else self.builder.mul
        return self._new(build(self.value, self._of(other)))

    def __truediv__(self, other: Expression | float) -> Expression:
        return self._new(self.builder.fdiv(self.value, self._of(other)))

    def __neg__(self) -> Expression:
        return self._new(self.builder.fneg(self.value) if self.is_float else self.builder.neg(self.value))

    def __and__(self, other: Expression | int) -> Expression:
        return self._new(self.builder.and_(self.value, self._of(other)))

    def __or__(self, other: Expression | int) -> Expression:
        return self._new(self.builder.or_(self.value, self._of(other)))

    def __xor__(self, other: Expression | int) -> Expression:
        return self._new(self.builder.xor(self.value, self._of(other)))

    def __lshift__(self, other: int) -> Expression:
        return self._new(self.builder.shl(self.value, self._of(other)))

    def __rshift__(self, other: int) -> Expression:
        """Arithmetic shift; `shift_right_logical` for the other one."""
        return self._new(self.builder.ashr(self.value, self._of(other)))

    def shift_right_logical(self, other: int) -> Expression:
        """Shift in zeros."""
        return self._new(self.builder.lshr(self.value, self._of(other)))

    def compare(self, symbol: str, other: Expression | float) -> Expression:
        """An ordered comparison (False for NaN), signed for integers."""
        build = self.builder.fcmp_ordered if self.is_float else self.builder.icmp_signed
        return self._new(build(symbol, self.value, self._of(other)))

    def __lt__(self, other: Expression | float) -> Expression:
        return self.compare("<", other)

    def __gt__(self, other: Expression | float) -> Expression:
        return self.compare(">", other)

    def select(self, then: Expression | float, otherwise: Expression) -> Expression:
        """`then` where this condition holds, else `otherwise`."""
        chosen = then.value if isinstance(then, Expression) else constant_like(otherwise.type, then)
        return self._new(self.builder.select(self.value, chosen, otherwise.value))

    def fma(self, factor: Expression | float, summand: Expression | float) -> Expression:
        """self * factor + summand, rounded once."""
        return self._new(float_intrinsic(self.builder, "fma", self.value, self._of(factor), self._of(summand)))

    def call(self, intrinsic: str, *others: Expression | float) -> Expression:
        """An LLVM intrinsic of this type: `floor`, `fabs`, `sqrt`, `copysign`, ..."""
        return self._new(float_intrinsic(self.builder, intrinsic, self.value, *map(self._of, others)))

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
        return self._new(self.builder.bitcast(self.value, self.like(_INTEGER_OF[type_suffix(self.element)])))

    def as_float(self, element: ir.Type) -> Expression:
        """A bit pattern as floating-point numbers."""
        return self._new(self.builder.bitcast(self.value, self.like(element)))

    def to_float(self, element: ir.Type) -> Expression:
        """Signed integers converted to floating-point numbers."""
        return self._new(self.builder.sitofp(self.value, self.like(element)))

    def to_integer(self, element: ir.Type) -> Expression:
        """Floating-point numbers truncated to signed integers."""
        return self._new(self.builder.fptosi(self.value, self.like(element)))
