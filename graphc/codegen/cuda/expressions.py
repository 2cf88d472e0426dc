"""Scalar expressions of a kernel form as the Python that numba.cuda compiles: one thread computes one value."""

from __future__ import annotations

import math
from collections.abc import Callable

from graphc.codegen.cpu.values import Context, Value
from graphc.errors import CompileError
from graphc.ir.types import DType, bool_, f32, f64, i32, i64, u8
from graphc.kernel.expr import Affine, Apply, Cast, Const, Expr, Extent, Index, Load, Name, affine_of
from graphc.kernel.primitives import COMPARISONS

LONGEST = 88  # characters of an expression before a part of it gets a name
NUMBA = {f32: "float32", f64: "float64", i32: "int32", i64: "int64", u8: "uint8", bool_: "uint8"}  # in memory
INFIX = {
    "add": "+", "sub": "-", "mul": "*", "div": "/", "pow": "**", "and": "and", "or": "or",
    "lt": "<", "le": "<=", "gt": ">", "ge": ">=", "eq": "==", "ne": "!=",
}  # fmt: skip
MATHS = ("exp", "expm1", "log", "log1p", "log2", "tanh", "erf", "sqrt", "sin", "cos", "tan", "asin", "acos", "atan",
         "sinh", "cosh")  # fmt: skip


def number(value: float | int | bool, dtype: DType) -> str:
    """A constant as source."""
    if dtype.is_float:
        text = repr(float(value))
        if not math.isfinite(value):
            text = "math.nan" if math.isnan(value) else "math.inf" if value > 0 else "-math.inf"
        return f"{NUMBA[dtype]}({text})"
    if dtype == bool_:
        return str(bool(value))
    return f"int32({int(value)})" if dtype == i32 else str(int(value))


class Scope:
    """Writes expressions at one place of the source; names found in outer scopes stay known."""

    def __init__(self, context: Context, outer: Scope | None = None) -> None:
        self.context = context
        self.values: dict[Expr, Value] = dict(outer.values) if outer else {}
        self.lets: dict[str, Value] = dict(outer.lets) if outer else {}

    def inner(self) -> Scope:
        """A scope for a block inside this one."""
        return Scope(self.context, self)

    def define(self, hint: str, value: Value) -> Value:
        """Give a value a name."""
        name = self.context.names.fresh(hint)
        self.context.source.line(f"{name} = {value.text}")
        return Value(name, value.dtype)

    def value(self, expr: Expr) -> Value:
        """The value of an expression; parts that are used twice, or long, are named in the lines before."""
        if isinstance(expr, Name):
            return self.lets[expr.id]
        if expr not in self.values:
            result = self._write(expr)
            shared = self.context.uses[expr] > 1 and isinstance(expr, Load | Apply | Cast)
            if shared or (not result.atom and len(result.text) > LONGEST):
                result = self.define(_hint(expr), result)
            self.values[expr] = result
        return self.values[expr]

    def _write(self, expr: Expr) -> Value:
        if isinstance(expr, Const):
            text = number(expr.value, expr.dtype)
            return Value(text, expr.dtype, atom=not text.startswith("-"), literal=text)
        affine = affine_of(expr)
        if affine is not None:
            return _index_value(self.context.affine(affine))
        if isinstance(expr, Extent):
            return _index_value(self.context.dim(expr.dim))
        if isinstance(expr, Load):
            return self.load(expr)
        if isinstance(expr, Cast):
            return _cast(self.value(expr.arg), expr.dtype)
        assert isinstance(expr, Apply)
        return self._apply(expr)

    def offset(self, index: Index) -> str:
        """A flat index as source."""
        return self.context.affine(index) if isinstance(index, Affine) else self.value(index.expr).text

    def load(self, load: Load) -> Value:
        """An element; bytes of truth values and of uint8 become what they mean."""
        dtype, (index,) = self.context.dtypes[load.operand], load.index
        text = f"{self.context.operand(load.operand)}[{self.offset(index)}]"
        if dtype == bool_:
            return Value(f"{text} != 0", dtype, atom=False)
        return Value(f"int64({text})" if dtype == u8 else text, dtype)

    # ---- operations

    def _apply(self, expr: Apply) -> Value:
        primitive, args = expr.primitive, [self.value(arg) for arg in expr.args]
        dtype = bool_ if primitive in COMPARISONS else args[-1].dtype
        if primitive in COMPOSED:
            args = [self._again(value) for value in args]
            text = COMPOSED[primitive](self, *args)
            return Value(text, bool_ if primitive.startswith("is") else dtype, atom=False)
        if primitive in ("floordiv", "mod"):
            return self._division(primitive, *args)
        if primitive in MATHS:
            return Value(f"math.{primitive}({args[0].text})", dtype)
        if primitive in ("max", "min"):
            return self._extremum(primitive, *args)
        if primitive == "where":
            condition, yes, no = args
            return Value(f"{yes.inner} if {condition.text} else {no.inner}", dtype, atom=False)
        if primitive == "abs":
            return Value(*_wrapped(f"abs({args[0].text})", dtype, atom=True))
        if primitive in ("neg", "not"):
            sign = "-" if primitive == "neg" else "not "
            return Value(*_wrapped(f"{sign}{args[0].inner}", dtype))
        if primitive not in INFIX:
            raise CompileError(f"the primitive {primitive!r} has no CUDA code yet")
        text = f"{args[0].inner} {INFIX[primitive]} {args[1].inner}"
        return Value(text, dtype, atom=False) if primitive in COMPARISONS else Value(*_wrapped(text, dtype))

    def _again(self, value: Value) -> Value:
        """A value that stands for itself more than once: an identifier or a literal."""
        return value if value.text.isidentifier() or value.literal else self.define("x", value)

    def _extremum(self, primitive: str, *args: Value) -> Value:
        """NaN if either is NaN."""
        dtype = args[0].dtype
        if not dtype.is_float:
            return Value(*_wrapped(f"{primitive}({args[0].text}, {args[1].text})", dtype, atom=True))
        a, b = map(self._again, args)
        sign = ">" if primitive == "max" else "<"
        return Value(f"{a.text} if {a.text} {sign} {b.text} or {a.text} != {a.text} else {b.text}", dtype, atom=False)

    def _division(self, primitive: str, a: Value, b: Value) -> Value:
        """Of integers, rounded down; 0 where the divisor is 0."""
        if a.dtype.is_float:
            raise CompileError(f"the primitive {primitive!r} of floats has no CUDA code yet")
        sign = "//" if primitive == "floordiv" else "%"
        if b.literal and b.literal not in ("0", "int32(0)"):
            return Value(*_wrapped(f"{a.inner} {sign} {b.inner}", a.dtype))
        a, b = self._again(a), self._again(b)
        return Value(*_wrapped(f"({a.text} {sign} {b.text} if {b.text} != 0 else 0)", a.dtype))


def _sigmoid(scope: Scope, x: Value) -> str:
    """e^-|x| cannot overflow, and small results keep their digits."""
    e = scope.define("e", Value(f"math.exp(-abs({x.text}))", x.dtype)).text
    one = number(1, x.dtype)
    return f"({one} if {x.text} >= {number(0, x.dtype)} else {e}) / ({one} + {e})"


def _softplus(scope: Scope, x: Value) -> str:
    return f"max({x.text}, {number(0, x.dtype)}) + math.log1p(math.exp(-abs({x.text})))"


def _sign(scope: Scope, x: Value) -> str:
    zero = number(0, x.dtype)
    below = f"{number(-1, x.dtype)} if {x.text} < {zero} else {x.text}"  # 0 and NaN stay
    return f"{number(1, x.dtype)} if {x.text} > {zero} else ({below})"


COMPOSED: dict[str, Callable[[Scope, Value], str]] = {
    "sigmoid": _sigmoid,
    "softplus": _softplus,
    "sign": _sign,
    "rsqrt": lambda scope, x: f"{number(1, x.dtype)} / math.sqrt({x.text})",
    "isnan": lambda scope, x: f"{x.text} != {x.text}",
    "isinf": lambda scope, x: f"abs({x.text}) == math.inf",
    "isfinite": lambda scope, x: f"abs({x.text}) < math.inf",
}


def _index_value(text: str) -> Value:
    return Value(text, i64, atom=text.isidentifier() or text.isdigit())


def _wrapped(text: str, dtype: DType, atom: bool = False) -> tuple[str, DType, bool, bool, bool]:
    """The fields of a value, its integers kept in their dtype: Numba computes them in 64 bits."""
    if dtype == i32:
        return f"int32({text})", dtype, False, False, True
    return (f"({text}) & 255", dtype, False, False, False) if dtype == u8 else (text, dtype, False, False, atom)


def _cast(arg: Value, dtype: DType) -> Value:
    if arg.dtype == dtype:
        return arg
    if dtype == bool_:
        return Value(f"{arg.inner} != {number(0, arg.dtype)}", dtype, atom=False)
    if dtype == u8:
        return Value(f"int64({arg.text}) & 255", dtype, atom=False)
    return Value(f"{NUMBA[dtype]}({arg.text})", dtype)


def _hint(expr: Expr) -> str:
    return f"{expr.operand}_value" if isinstance(expr, Load) else getattr(expr, "primitive", "converted") + "_value"
