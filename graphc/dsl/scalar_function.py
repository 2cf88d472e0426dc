"""Elementwise functions of a user's own, from one SymPy expression: `gc.scalar_function`."""

from __future__ import annotations

import inspect
import keyword
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from graphc.dsl.declare import Operand
from graphc.dsl.elementwise import pair, single
from graphc.dsl.symbol import Symbol, elementwise, unwrap
from graphc.errors import DefinitionError
from graphc.ops import scalar, stability
from graphc.ops.scalar_function import expression_text, parse_expression

__all__ = ["ScalarFunction", "scalar_function"]


@dataclass(frozen=True)
class ScalarFunction:
    """An elementwise function, called with as many symbols as it has operands, which broadcast.

    `expression` is its text over stable primitives and the operands `x`; `x, y`; `c, x, y`; `x0, x1, ...`.
    """

    name: str
    expression: str
    arity: int

    def __call__(self, *operands: Operand) -> Symbol:
        """The function of symbols, numbers and arrays, of which one at least is a symbol."""
        if len(operands) != self.arity:
            raise DefinitionError(f"{self.name} takes {self.arity} operand(s), it is given {len(operands)}")
        values: Any = map(unwrap, operands)
        if self.arity <= 2:
            values = pair(*operands) if self.arity == 2 else (single(*operands),)
        return elementwise("scalar_function", *values, name=self.name, expression=self.expression)

    @property
    def latex(self) -> str:
        """Its LaTeX."""
        return scalar.latex(parse_expression(self.expression, self.arity))

    def derivative(self, position: int = 0) -> str:
        """The derivative by one operand, as text in the same language."""
        expr = parse_expression(self.expression, self.arity)
        return expression_text(expr.diff(scalar.operand_symbols(self.arity)[position]))

    def __str__(self) -> str:
        return f"{self.name}({', '.join(scalar.operand_names(self.arity))}) = {self.expression}"


def scalar_function(name: str, function: Callable[..., Any], *, check: bool = True) -> ScalarFunction:
    """An elementwise function from SymPy: `swish = gc.scalar_function("swish", lambda z: z / (1 + sympy.exp(-z)))`.

    `function` takes SymPy symbols, one for each operand, and returns an expression. It is brought to stable
    primitives (this one becomes z * sigmoid(z)) and gets gradients of any order, LaTeX, and a place in fused kernels.
    Value and first derivatives are checked in float32 at +-1e2 and +-1e4; `check=False` leaves that out.

    Raises DefinitionError for an expression with a free symbol, one that is not elementwise, is no real number or
    has no primitive, and for one that float32 spoils, which names the point.
    """
    if not (isinstance(name, str) and name.isidentifier() and name.isascii()) or keyword.iskeyword(name):
        raise DefinitionError(f"scalar_function: the name must be an identifier such as 'swish', got {name!r}")
    parameters = _parameters(name, function)
    expr = _expression(name, function, parameters)
    _check_elementwise(name, expr, parameters)
    stable = _stable(name, expr, dict(zip(parameters, scalar.operand_symbols(len(parameters)), strict=True)))
    found = ScalarFunction(name, expression_text(stable), len(parameters))
    if check:
        _check_float32(found)
    return found


def _parameters(name: str, function: Callable[..., Any]) -> list[Any]:
    """A real SymPy symbol for each parameter of the function."""
    import sympy

    if not callable(function):
        raise DefinitionError(f"{name}: expected a function of SymPy symbols such as lambda z: z**2, got {function!r}")
    parameters = inspect.signature(function).parameters.values()
    required = [p for p in parameters if p.default is p.empty]
    if not required or any(p.kind not in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD) for p in required):
        raise DefinitionError(f"{name}: the function must take a fixed number of operands, such as lambda z, a: a * z")
    return [sympy.Symbol(p.name, real=True) for p in required]


def _expression(name: str, function: Callable[..., Any], parameters: list[Any]) -> Any:
    """What the function returns, as a SymPy expression."""
    import sympy

    try:
        expr = sympy.sympify(function(*parameters), strict=True)
    except (TypeError, AttributeError, ValueError, sympy.SympifyError) as error:
        advice = "write it with SymPy's functions, sympy.exp and not np.exp or math.exp, and sympy.Piecewise for if"
        raise DefinitionError(f"{name}: no SymPy expression comes of it ({error}); {advice}") from error
    if isinstance(expr, (sympy.logic.boolalg.Boolean, sympy.logic.boolalg.BooleanAtom)):
        raise DefinitionError(f"{name}: {expr} is a truth value; write sympy.Piecewise((1, {expr}), (0, True))")
    return expr


def _check_elementwise(name: str, expr: Any, parameters: list[Any]) -> None:
    """Raise DefinitionError for whole arrays, sums over an index, unknown functions, free symbols, complex numbers."""
    import sympy
    from sympy.core.function import AppliedUndef, Subs
    from sympy.matrices import MatrixBase, MatrixExpr

    over_many = (sympy.Sum, sympy.Product, sympy.Integral, sympy.Limit, sympy.Derivative, sympy.Indexed, Subs)
    whole = (MatrixBase, MatrixExpr, sympy.NDimArray)
    bad = [part for part in sympy.preorder_traversal(expr) if isinstance(part, (*over_many, *whole, AppliedUndef))]
    if bad or not isinstance(expr, sympy.Expr):
        part = bad[0] if bad else expr
        raise DefinitionError(
            f"{name}: {part} ({type(part).__name__}) is not elementwise; each element of the result may depend on the "
            "same element of the operands only: reduce with gc.sum, gc.max ... outside"
        )
    free = sorted(expr.free_symbols - set(parameters), key=str)
    if free:
        known = ", ".join(map(str, parameters))
        raise DefinitionError(
            f"{name}: {expr} has the free symbol {free[0]}; give it a number, or make it an operand: "
            f"lambda {known}, {free[0]}: ..."
        )
    if expr.has(sympy.I, sympy.zoo, sympy.nan):
        raise DefinitionError(f"{name}: {expr} is no real number; graphc computes with real numbers")


def _stable(name: str, expr: Any, names: dict[Any, Any]) -> Any:
    """The expression over stable primitives and the operands' symbols."""
    try:
        return stability.from_sympy(expr).xreplace(names)
    except DefinitionError as error:
        raise DefinitionError(f"{name}: {error}") from None


def _check_float32(function: ScalarFunction) -> None:
    """Raise DefinitionError where float32 spoils the value or a first derivative."""
    settings = {"name": function.name, "expression": function.expression}
    text = scalar.bound(_evaluated, settings)
    points = stability.unstable_points(text, function.arity)
    if points:
        raise DefinitionError(
            f"{function} fails in float32: {'; '.join(map(str, points[:3]))}. Write it so that nothing overflows, with "
            "sympy.tanh, 1/(1 + sympy.exp(-z)), sympy.log(1 + sympy.exp(z)) or sympy.Piecewise, or pass check=False"
        )


def _evaluated(*operands: Any, name: str, expression: str) -> Any:
    return parse_expression(expression, len(operands))
