"""Elementwise functions of symbols: `gc.exp(x)`, `gc.maximum(x, y)`, `gc.where(c, x, y)`; activations stand apart.

Arguments are symbols, Python numbers (weakly typed) and arrays (constants); the rules are those of
`graphc.dsl.declare`. Every function records the module and the line of its caller.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from graphc.dsl import declare
from graphc.dsl.declare import Operand
from graphc.dsl.symbol import Symbol, elementwise, unwrap, where
from graphc.ir.graph import Value
from graphc.ir.types import DType

__all__ = [
    "abs", "acos", "asin", "astype", "atan", "ceil", "clip", "cos", "cosh", "equal", "erf", "exp", "expm1", "floor",
    "floor_divide", "isfinite", "isinf", "isnan", "log", "log1p", "log2", "logical_and", "logical_not", "logical_or",
    "logical_xor", "maximum", "minimum", "mod", "not_equal", "pow", "reciprocal", "round", "rsqrt", "sign", "sin",
    "sinh", "sqrt", "square", "tan", "tanh", "where",
]  # fmt: skip


def single(x: Operand) -> Value:
    """The only operand of a function; a bare Python bool is more often a mistaken `==` than meant."""
    return declare.as_value(unwrap(x))


def pair(x: Operand, y: Operand) -> tuple[Operand, Operand]:
    """Two operands; when neither is a symbol the first becomes a constant."""
    first, second = unwrap(x), unwrap(y)
    if not isinstance(first, Value) and not isinstance(second, Value):
        first = declare.as_value(first)
    return first, second


def exp(x: Operand) -> Symbol:
    """e to the power x."""
    return elementwise("exp", single(x))


def expm1(x: Operand) -> Symbol:
    """exp(x) - 1, exact for small x."""
    return elementwise("expm1", single(x))


def log(x: Operand) -> Symbol:
    """The natural logarithm; -inf at 0, NaN below."""
    return elementwise("log", single(x))


def log1p(x: Operand) -> Symbol:
    """log(1 + x), exact for small x."""
    return elementwise("log1p", single(x))


def sqrt(x: Operand) -> Symbol:
    """The square root; NaN for negative x."""
    return elementwise("sqrt", single(x))


def square(x: Operand) -> Symbol:
    """x * x."""
    return elementwise("square", single(x))


def tanh(x: Operand) -> Symbol:
    """The hyperbolic tangent."""
    return elementwise("tanh", single(x))


def abs(x: Operand) -> Symbol:
    """The absolute value; the gradient at 0 is 0."""
    return elementwise("abs", single(x))


def sign(x: Operand) -> Symbol:
    """-1, 0 or 1."""
    return elementwise("sign", single(x))


def maximum(x: Operand, y: Operand) -> Symbol:
    """The larger of two; where they are equal each gets half of the gradient, as in PyTorch."""
    return elementwise("maximum", *pair(x, y))


def minimum(x: Operand, y: Operand) -> Symbol:
    """The smaller of two; where they are equal each gets half of the gradient, as in PyTorch."""
    return elementwise("minimum", *pair(x, y))


def clip(x: Operand, lower: Operand = None, upper: Operand = None) -> Symbol:
    """`minimum(maximum(x, lower), upper)`; a bound that is None does not bound.

    The gradient passes to x inside the bounds and on them, and beyond a bound to that bound, as in torch.clamp.
    Raises AttributeValueError when both bounds are None.
    """
    return Symbol(declare.clip(*map(unwrap, (x, lower, upper))))


def equal(x: Operand, y: Operand) -> Symbol:
    """Elementwise x == y, bool. (The operator `==` compares symbols by identity.)"""
    return elementwise("eq", *pair(x, y))


def not_equal(x: Operand, y: Operand) -> Symbol:
    """Elementwise x != y, bool."""
    return elementwise("ne", *pair(x, y))


def logical_and(x: Operand, y: Operand) -> Symbol:
    """Elementwise `and` of bools."""
    return elementwise("logical_and", unwrap(x), unwrap(y))


def logical_or(x: Operand, y: Operand) -> Symbol:
    """Elementwise `or` of bools."""
    return elementwise("logical_or", unwrap(x), unwrap(y))


def logical_not(x: Operand) -> Symbol:
    """Elementwise `not` of bools."""
    return elementwise("logical_not", unwrap(x))


def astype(x: Operand, dtype: str | DType | type | np.dtype[Any]) -> Symbol:
    """The elements of x in another dtype.

    Floats lose their fraction when they become integers; one beyond the integer's range becomes some number, not
    always the same. Integers wrap around. To bool, what is not 0 is true.
    """
    return Symbol(declare.cast(unwrap(x), dtype))


def reciprocal(x: Operand) -> Symbol:
    """1 / x; infinite at 0."""
    return elementwise("reciprocal", single(x))


def rsqrt(x: Operand) -> Symbol:
    """1 / sqrt(x); infinite at 0, NaN for negative x."""
    return elementwise("rsqrt", single(x))


def pow(x: Operand, y: Operand) -> Symbol:
    """x to the power y, as `x ** y`: a float but for whole numbers y >= 0; NaN for negative x and fractional y.

    The gradient is 0 by x where y is 0, and by y where x is 0, as in PyTorch.
    """
    return Symbol(declare.power(unwrap(x), unwrap(y)))


def floor_divide(x: Operand, y: Operand) -> Symbol:
    """x / y rounded down, as `x // y`; an integer divided by 0 gives 0. Its gradient is 0."""
    return elementwise("floordiv", *pair(x, y))


def mod(x: Operand, y: Operand) -> Symbol:
    """The remainder of `floor_divide`, as `x % y`: it has the sign of y. As torch.remainder."""
    return elementwise("mod", *pair(x, y))


def log2(x: Operand) -> Symbol:
    """The logarithm to base 2; -inf at 0, NaN below."""
    return elementwise("log2", single(x))


def erf(x: Operand) -> Symbol:
    """The error function."""
    return elementwise("erf", single(x))


def sin(x: Operand) -> Symbol:
    """The sine; x in radians."""
    return elementwise("sin", single(x))


def cos(x: Operand) -> Symbol:
    """The cosine; x in radians."""
    return elementwise("cos", single(x))


def tan(x: Operand) -> Symbol:
    """The tangent; x in radians."""
    return elementwise("tan", single(x))


def asin(x: Operand) -> Symbol:
    """The inverse sine, between -pi/2 and pi/2; NaN outside -1 ... 1."""
    return elementwise("asin", single(x))


def acos(x: Operand) -> Symbol:
    """The inverse cosine, between 0 and pi; NaN outside -1 ... 1."""
    return elementwise("acos", single(x))


def atan(x: Operand) -> Symbol:
    """The inverse tangent, between -pi/2 and pi/2."""
    return elementwise("atan", single(x))


def sinh(x: Operand) -> Symbol:
    """The hyperbolic sine."""
    return elementwise("sinh", single(x))


def cosh(x: Operand) -> Symbol:
    """The hyperbolic cosine."""
    return elementwise("cosh", single(x))


def floor(x: Operand) -> Symbol:
    """The greatest whole number not above x; its gradient is 0. Integers stay as they are."""
    return Symbol(declare.rounded("floor", unwrap(x)))


def ceil(x: Operand) -> Symbol:
    """The least whole number not below x; its gradient is 0. Integers stay as they are."""
    return Symbol(declare.rounded("ceil", unwrap(x)))


def round(x: Operand) -> Symbol:
    """The nearest whole number, halves to the even one; its gradient is 0. Integers stay as they are."""
    return Symbol(declare.rounded("round", unwrap(x)))


def isnan(x: Operand) -> Symbol:
    """Whether x is NaN, bool."""
    return elementwise("isnan", single(x))


def isinf(x: Operand) -> Symbol:
    """Whether x is infinite, bool."""
    return elementwise("isinf", single(x))


def isfinite(x: Operand) -> Symbol:
    """Whether x is neither infinite nor NaN, bool."""
    return elementwise("isfinite", single(x))


def logical_xor(x: Operand, y: Operand) -> Symbol:
    """Elementwise exclusive `or` of bools."""
    return elementwise("logical_xor", unwrap(x), unwrap(y))
