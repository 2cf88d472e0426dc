"""Scalar maths as SymPy expressions over numerically stable primitives, and everything printed from them.

An elementwise op is one expression: `scalar=lambda x, y: x / y`, or a primitive of this module such as
`scalar=sigmoid`. From it come the NumPy reference (`numpy_value`), the kernel code (`KernelTarget`), LaTeX
(`latex`), and the gradient as graph nodes (`gradient_nodes`). Each primitive states its derivatives in terms of
its *output* where that is stable, so a gradient reads the forward result instead of computing it again.
Derivatives are SymPy's `diff` followed by `cse`, never `simplify`, which would expand to bare exponentials.

SymPy is imported by the functions that need it, not by this module.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Any, TypeVar

import numpy as np

from graphc.errors import DefinitionError, GradientError
from graphc.ir.builder import Builder
from graphc.ir.graph import Node, Value
from graphc.ir.op import OPS
from graphc.ir.types import DType
from graphc.kernel.expr import Apply, Const, Expr, Name
from graphc.kernel.form import Let
from graphc.kernel.primitives import PRIMITIVES
from graphc.ops import tape
from graphc.ops.tape import Target

SymPy = Any  # a SymPy expression; SymPy has no type stubs
Scalar = Callable[..., SymPy]  # from operands, and settings as keywords
T = TypeVar("T")


@dataclass(frozen=True)
class Primitive:
    """A scalar function that SymPy leaves alone: it is differentiated by its own rule and never rewritten.

    `rule(y, *x)` gives the derivative by each argument, where `y` is the function's value at arguments `x`.
    `latex` is a template with `{0} {1} ...` for the arguments. `expansion` writes the function in the kernel's
    primitives when it is none itself.
    """

    name: str
    rule: Callable[..., tuple[SymPy, ...]]
    latex: str
    arity: int = 1
    expansion: Callable[..., SymPy] | None = None

    def __call__(self, *args: SymPy) -> SymPy:
        """The function applied to SymPy expressions or numbers."""
        return _sympy_class(self)(*args)


@cache
def _sympy_class(primitive: Primitive) -> Any:
    import sympy

    def fdiff(self: Any, argindex: int = 1) -> SymPy:
        return sympy.sympify(primitive.rule(self, *self.args)[argindex - 1])

    def differentiate(self: Any, symbol: SymPy) -> SymPy:
        slopes = [(k, arg.diff(symbol)) for k, arg in enumerate(self.args, start=1)]
        return sympy.Add(*(times(self.fdiff(k), slope) for k, slope in slopes if slope != 0))

    def _latex(self: Any, printer: Any, exp: str | None = None) -> str:
        text = primitive.latex.format(*(printer._print(arg) for arg in self.args))
        return text if exp is None else rf"\left({text}\right)^{{{exp}}}"

    members = {"primitive": primitive, "nargs": primitive.arity, "fdiff": fdiff, "_latex": _latex}
    members["_eval_derivative"] = differentiate  # the chain rule, without inf * 0 in a branch that is not taken
    return type(primitive.name, (sympy.Function,), members)


def half() -> SymPy:
    """One half, exactly."""
    import sympy

    return sympy.Rational(1, 2)


def _two_over_root_pi() -> SymPy:
    import sympy

    return 2 / sympy.sqrt(sympy.pi)


def _log2_of_e() -> SymPy:
    import sympy

    return 1 / sympy.log(2)


def _power_slopes(y: SymPy, a: SymPy, b: SymPy) -> tuple[SymPy, SymPy]:
    if getattr(b, "is_number", False):
        return b * pow(a, b - 1) if b != 0 else 0, y * log(a)
    by_base = where(eq(b, 0), 0, b * pow(a, b - 1))
    return by_base, where(logical_and(eq(a, 0), ge(b, 0)), 0, y * log(a))


def _call(name: str) -> str:
    return rf"\operatorname{{{{{name}}}}}\left({{0}}\right)"


def _comparison(name: str, sign: str) -> Primitive:
    return Primitive(name, lambda y, a, b: (0, 0), rf"\left[{{0}} {sign} {{1}}\right]", 2)


exp = Primitive("exp", lambda y, x: (y,), "e^{{{0}}}")
log = Primitive("log", lambda y, x: (1 / x,), r"\log\left({0}\right)")
log1p = Primitive("log1p", lambda y, x: (1 / (1 + x),), r"\log\left(1 + {0}\right)")
expm1 = Primitive("expm1", lambda y, x: (y + 1,), r"\left(e^{{{0}}} - 1\right)")
tanh = Primitive("tanh", lambda y, x: (1 - y**2,), r"\tanh\left({0}\right)")
sigmoid = Primitive("sigmoid", lambda y, x: (y * (1 - y),), r"\sigma\left({0}\right)")
softplus = Primitive("softplus", lambda y, x: (sigmoid(x),), r"\log\left(1 + e^{{{0}}}\right)")
erf = Primitive("erf", lambda y, x: (_two_over_root_pi() * exp(-(x**2)),), _call("erf"))
sqrt = Primitive("sqrt", lambda y, x: (half() / y,), r"\sqrt{{{0}}}")
rsqrt = Primitive("rsqrt", lambda y, x: (-half() * y / x,), r"\frac{{1}}{{\sqrt{{{0}}}}}")
sin = Primitive("sin", lambda y, x: (cos(x),), r"\sin\left({0}\right)")
cos: Primitive = Primitive("cos", lambda y, x: (-sin(x),), r"\cos\left({0}\right)")
tan = Primitive("tan", lambda y, x: (1 + y**2,), r"\tan\left({0}\right)")
# (1 - x)(1 + x) keeps the digits of 1 - x that 1 - x**2 loses near +-1.
asin = Primitive("asin", lambda y, x: (rsqrt((1 - x) * (1 + x)),), r"\arcsin\left({0}\right)")
acos = Primitive("acos", lambda y, x: (-rsqrt((1 - x) * (1 + x)),), r"\arccos\left({0}\right)")
atan = Primitive("atan", lambda y, x: (1 / (1 + x**2),), r"\arctan\left({0}\right)")
sinh: Primitive = Primitive("sinh", lambda y, x: (cosh(x),), r"\sinh\left({0}\right)")
cosh: Primitive = Primitive("cosh", lambda y, x: (sinh(x),), r"\cosh\left({0}\right)")
log2 = Primitive("log2", lambda y, x: (_log2_of_e() / x,), r"\log_2\left({0}\right)")
reciprocal = Primitive("reciprocal", lambda y, x: (-(y**2),), r"\frac{{1}}{{{0}}}", expansion=lambda x: div(1, x))
# As in PyTorch: abs'(0) = 0; the sign and the roundings are flat.
abs = Primitive("abs", lambda y, x: (sign(x),), r"\left|{0}\right|")
sign: Primitive = Primitive("sign", lambda y, x: (0,), _call("sign"))
floor = Primitive("floor", lambda y, x: (0,), r"\left\lfloor {0} \right\rfloor")
ceil = Primitive("ceil", lambda y, x: (0,), r"\left\lceil {0} \right\rceil")
round = Primitive("round", lambda y, x: (0,), _call("round"))
# A quotient as one function, so that its derivative by the divisor reuses it: no b**2 that overflows.
div: Primitive = Primitive("div", lambda y, a, b: (1 / b, -y / b), r"\frac{{{0}}}{{{1}}}", 2)
# Flat where the exponent is 0, and in the exponent where the base is 0, as in PyTorch: no 0 * inf.
pow: Primitive = Primitive("pow", lambda y, a, b: _power_slopes(y, a, b), r"{{{0}}}^{{{1}}}", 2)
# The remainder of the division rounded down has the divisor's sign; its slopes are those almost everywhere.
floordiv = Primitive("floordiv", lambda y, a, b: (0, 0), r"\left\lfloor \frac{{{0}}}{{{1}}} \right\rfloor", 2)
mod = Primitive("mod", lambda y, a, b: (1, -floordiv(a, b)), r"{0} \bmod {1}", 2)

lt, le = _comparison("lt", "<"), _comparison("le", r"\le")
gt, ge = _comparison("gt", ">"), _comparison("ge", r"\ge")
eq, ne = _comparison("eq", "="), _comparison("ne", r"\ne")
logical_and = Primitive("and", lambda y, a, b: (0, 0), r"{0} \wedge {1}", 2)
logical_or = Primitive("or", lambda y, a, b: (0, 0), r"{0} \vee {1}", 2)
logical_not = Primitive("not", lambda y, a: (0,), r"\neg {0}")
isnan = Primitive("isnan", lambda y, x: (0,), _call("isnan"))
isinf = Primitive("isinf", lambda y, x: (0,), _call("isinf"))
isfinite = Primitive("isfinite", lambda y, x: (0,), _call("isfinite"))
where: Primitive = Primitive(
    "where",
    lambda y, c, a, b: (0, where(c, 1, 0), where(c, 0, 1)),
    r"\left({1} \text{{ if }} {0} \text{{ else }} {2}\right)",
    3,
)
# Ties share the gradient evenly, a NaN lets it through to both, as in PyTorch's maximum and minimum.
maximum = Primitive(
    "max",
    lambda y, a, b: (_unless(lt(a, b), eq(a, b)), _unless(lt(b, a), eq(a, b))),
    r"\max\left({0}, {1}\right)",
    2,
)
minimum = Primitive(
    "min",
    lambda y, a, b: (_unless(gt(a, b), eq(a, b)), _unless(gt(b, a), eq(a, b))),
    r"\min\left({0}, {1}\right)",
    2,
)
# Inside the bounds and on them the gradient passes, as in PyTorch's clamp; it is the bound's that x lies beyond.
clip = Primitive(
    "clip",
    lambda y, x, low, high: (
        where(logical_and(ge(x, low), le(x, high)), 1, 0),
        where(logical_and(lt(x, low), lt(low, high)), 1, 0),
        where(logical_or(gt(x, high), lt(high, low)), 1, 0),
    ),
    r"\min\left(\max\left({0}, {1}\right), {2}\right)",
    3,
    expansion=lambda x, low, high: minimum(maximum(x, low), high),
)
# relu'(0) = 0 and NaN stays NaN, as in PyTorch; the derivative reads the output, so the operand need not be kept.
relu = Primitive(
    "relu", lambda y, x: (where(le(y, 0), 0, 1),), r"\max\left({0}, 0\right)", expansion=lambda x: maximum(x, 0)
)


def _unless(loses: SymPy, ties: SymPy) -> SymPy:
    return where(loses, 0, where(ties, half(), 1))


def fold(expr: SymPy, target: Target[T], known: Mapping[SymPy, T]) -> T:
    """Print `expr` to a target; `known` holds the symbols' values. Equal sub-expressions are printed once.

    Raises DefinitionError for a function or constant that has no primitive.
    """
    done: dict[SymPy, T] = dict(known)

    def visit(e: SymPy) -> T:
        if e not in done:
            done[e] = _print_one(e, target, visit)
        return done[e]

    return visit(expr)


def fold_shared(expr: SymPy, target: Target[T], known: Mapping[SymPy, T]) -> T:
    """As `fold`, with what occurs more than once (`cse`) named by the target."""
    import sympy

    shared, (reduced,) = sympy.cse([expr], symbols=sympy.numbered_symbols("t"))
    scope = dict(known)
    for name, value in shared:
        scope[name] = target.let(str(name), fold(value, target, scope))
    return fold(reduced, target, scope)


def _print_one(e: SymPy, target: Target[T], visit: Callable[[SymPy], T]) -> T:
    primitive = getattr(type(e), "primitive", None)
    if isinstance(primitive, Primitive):
        if primitive.expansion and not target.has(primitive.name):
            return visit(primitive.expansion(*e.args))
        return target.apply(primitive.name, [visit(a) for a in e.args])
    if e.is_number and e.is_extended_real:
        return target.constant(int(e) if e.is_Integer else float(e))
    if e.is_Add:
        return _print_sum(e, target, visit)
    if e.is_Mul:
        return _print_product(e, target, visit)
    if e.is_Pow:
        return _print_power(e, target, visit)
    raise DefinitionError(f"{e} has no scalar primitive; use the functions of graphc.ops.scalar")


def _join(primitive: str, parts: Sequence[T], target: Target[T]) -> T:
    total = parts[0]
    for part in parts[1:]:
        total = target.apply(primitive, [total, part])
    return total


def _print_sum(e: SymPy, target: Target[T], visit: Callable[[SymPy], T]) -> T:
    plus = [visit(a) for a in e.args if not _is_negative(a)]
    minus = [visit(-a) for a in e.args if _is_negative(a)]
    if not plus:
        return target.apply("neg", [_join("add", minus, target)])
    return _join("sub", [_join("add", plus, target), *minus], target)


def _is_negative(e: SymPy) -> bool:
    return bool(e.as_coeff_Mul()[0] < 0)


def _print_product(e: SymPy, target: Target[T], visit: Callable[[SymPy], T]) -> T:
    coefficient, rest = e.as_coeff_Mul()
    over: list[T] = []
    under: list[T] = []
    for factor in rest.args if rest.is_Mul else (rest,):
        divides = factor.is_Pow and factor.exp.is_Rational and factor.exp.is_negative
        (under if divides else over).append(visit(1 / factor if divides else factor))
    negative = bool(coefficient < 0)
    size = -coefficient if negative else coefficient
    if size != 1 or not over:
        over.insert(0, visit(size))
    value = _join("mul", over, target)
    if under:
        value = target.apply("div", [value, _join("mul", under, target)])
    return target.apply("neg", [value]) if negative else value


def _print_power(e: SymPy, target: Target[T], visit: Callable[[SymPy], T]) -> T:
    base, exponent = e.args
    if exponent.is_Rational and exponent.is_negative:
        return target.apply("div", [target.constant(1), visit(1 / e)])
    if exponent.is_Integer:
        root = visit(base ** (exponent // 2)) if exponent > 3 else visit(base)
        square = target.apply("mul", [root, root])
        return target.apply("mul", [square, visit(base)]) if exponent % 2 else square
    if exponent == half():
        return target.apply("sqrt", [visit(base)])
    return target.apply("pow", [visit(base), visit(exponent)])


@dataclass(frozen=True)
class NumpyTarget(Target[Any]):
    """Evaluates with NumPy; constants take `dtype`."""

    dtype: Any

    def constant(self, value: float) -> Any:
        return np.dtype(self.dtype).type(value)

    def apply(self, primitive: str, args: Sequence[Any]) -> Any:
        return PRIMITIVES[primitive].numpy(*args)


@dataclass(frozen=True)
class KernelTarget(Target[Expr]):
    """Writes kernel expressions; constants take `dtype`, and `lets` collects what is named."""

    dtype: DType
    lets: list[Let] = field(default_factory=list)

    def constant(self, value: float) -> Expr:
        return Const(float(value) if self.dtype.is_float else int(value), self.dtype)

    def apply(self, primitive: str, args: Sequence[Expr]) -> Expr:
        return Apply(primitive, tuple(args))

    def let(self, name: str, value: Expr) -> Expr:
        self.lets.append(Let(name, value))
        return Name(name)


# Ops whose name is not that of their primitive.
OP_NAMES = {"max": "maximum", "min": "minimum", "and": "logical_and", "or": "logical_or", "not": "logical_not"}


@dataclass(frozen=True)
class GraphTarget(Target[Value]):
    """Makes graph nodes; constants take `dtype` and are broadcast by the builder."""

    dtype: DType
    builder: Builder

    def constant(self, value: float) -> Value:
        return self.builder.constant(value, self.dtype)

    def apply(self, primitive: str, args: Sequence[Value]) -> Value:
        name = OP_NAMES.get(primitive, primitive)
        if name not in OPS:
            raise GradientError(f"the derivative needs the scalar function {primitive!r}, and no op is called {name!r}")
        return self.builder.elementwise(name, *args)

    def has(self, primitive: str) -> bool:
        return primitive in OPS


@cache
def operand_symbols(count: int) -> tuple[SymPy, ...]:
    """SymPy symbols for the operands: `x`; `x y`; `c x y`."""
    import sympy

    return tuple(sympy.Symbol(name) for name in operand_names(count))


def operand_names(count: int) -> tuple[str, ...]:
    """What `operand_symbols` are called."""
    return {1: ("x",), 2: ("x", "y"), 3: ("c", "x", "y")}.get(count, tuple(f"x{k}" for k in range(count)))


@cache
def expression(scalar: Scalar, arity: int) -> SymPy:
    """The expression of a scalar function of `arity` operands, over `operand_symbols(arity)`."""
    import sympy

    return sympy.sympify(scalar(*operand_symbols(arity)))


@cache
def derivative(scalar: Scalar, arity: int, position: int) -> SymPy:
    """The derivative of a scalar function by one operand."""
    return expression(scalar, arity).diff(operand_symbols(arity)[position])


@dataclass(frozen=True)
class Bound:
    """A scalar function with its settings; equal ones are the same function, differentiated and printed once."""

    function: Scalar
    settings: tuple[tuple[str, Any], ...]

    def __call__(self, *operands: SymPy) -> SymPy:
        """The function of the operands at these settings."""
        return self.function(*operands, **dict(self.settings))


def bound(function: Scalar, settings: Mapping[str, Any]) -> Scalar:
    """The scalar function of a node: `bound(node.op.scalar, node.attributes)`."""
    return Bound(function, tuple(sorted(settings.items()))) if settings else function


def latex(expr: SymPy) -> str:
    """LaTeX of an expression."""
    import sympy

    return str(sympy.latex(expr))


def numpy_value(expr: SymPy, symbols: Sequence[SymPy], arrays: Sequence[Any], dtype: Any = None) -> Any:
    """The value of `expr` for NumPy arrays, broadcast and in their dtype; IEEE infinities and NaN without warnings."""
    target = numpy_target(arrays, dtype)
    with np.errstate(all="ignore"):
        return np.asarray(fold(expr, target, dict(zip(symbols, arrays, strict=True))))


def numpy_target(arrays: Sequence[Any], dtype: Any = None) -> NumpyTarget:
    """The target whose constants have `dtype`, else that of the last array that holds numbers."""
    return NumpyTarget(dtype or next((a.dtype for a in reversed(arrays) if a.dtype != bool), np.dtype(bool)))


def gradient_nodes(node: Node, scalar: Scalar, cotangent: Value, builder: Builder) -> list[Value | None]:
    """Cotangents of an elementwise node's operands as graph nodes; what equals the node's output reads it.

    `scalar` is the node's function with its attributes bound: `bound(node.op.scalar, node.attributes)`.
    """
    result: list[Value | None] = []
    operands = dict(zip(operand_names(len(node.inputs)), node.inputs, strict=True))
    for position, value in enumerate(node.inputs):
        if not value.type.dtype.is_float:
            result.append(None)
            continue
        target = GraphTarget(value.type.dtype, builder)
        recorded = recorded_for(node, scalar, f"slope{position}")
        if recorded is not None:
            known = {**operands, "f": node.output, "g": cotangent}
            result.append(None if recorded == tape.FLAT else tape.replay(recorded, target, known))
        else:
            result.append(_slope(scalar, position, target, node, cotangent))
    return result


def recorded_for(node: Node, scalar: Scalar, use: str) -> str | None:
    """The tape of a node, if `scalar` is the function of its op."""
    own = node.op.scalar is not None and scalar == bound(node.op.scalar, node.attributes)
    return tape.find(node.op, node.attributes, use) if own else None


def _slope(scalar: Scalar, position: int, target: GraphTarget, node: Node, cotangent: Value) -> Value | None:
    arity = len(node.inputs)
    expr = slope_expression(scalar, arity, position)
    if expr == 0:
        return None
    known: dict[SymPy, Value] = dict(zip(operand_symbols(arity), node.inputs, strict=True))
    output, factor = slope_symbols()
    return fold_shared(expr, target, {**known, output: node.output, factor: cotangent})


def slope_expression(scalar: Scalar, arity: int, position: int) -> SymPy:
    """The cotangent of an operand as an expression of the operands, the output `f` and its cotangent `g`."""
    output, factor = slope_symbols()
    slope = derivative(scalar, arity, position)
    return 0 if slope == 0 else times(slope.xreplace({expression(scalar, arity): output}), factor)


@cache
def slope_symbols() -> tuple[SymPy, SymPy]:
    """The symbols of an op's output and of its cotangent: `f` and `g`."""
    import sympy

    return sympy.Symbol("f"), sympy.Symbol("g")


def times(slope: SymPy, factor: SymPy) -> SymPy:
    """slope * factor, taken into the branches of `where`: so the branch not taken is 0 even if the factor is inf."""
    if slope != 0 and getattr(type(slope), "primitive", None) == where:
        condition, yes, no = slope.args
        return where(condition, times(yes, factor), times(no, factor))
    return slope * factor
