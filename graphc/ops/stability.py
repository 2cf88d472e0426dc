"""Numerical stability of scalar functions: checking them in float32, and taking in users' SymPy expressions.

SymPy's own `exp` and `log` do not know that `1/(1 + exp(-x))` overflows; `from_sympy` writes such patterns with the
stable primitives, and `unstable_points` finds what is left: values or derivatives that float32 spoils although they
exist. SymPy and mpmath are imported by the functions that need them.
"""

from __future__ import annotations

import operator
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from itertools import product
from typing import Any

import numpy as np

from graphc.errors import DefinitionError
from graphc.ops import scalar
from graphc.ops.scalar import Primitive, Scalar, SymPy, Target

POINTS = (-1e4, -1e2, 1e2, 1e4)


@dataclass(frozen=True)
class UnstablePoint:
    """A function (`derivative` None) or its derivative by one operand that float32 gets wrong at `point`."""

    point: tuple[float, ...]
    derivative: int | None
    float32: float
    exact: float

    def __str__(self) -> str:
        what = "the value" if self.derivative is None else f"the derivative by operand {self.derivative}"
        return f"{what} at {self.point} is {self.float32} in float32, exactly {self.exact:.6g}"


def unstable_points(function: Scalar, arity: int, kinds: str = "") -> list[UnstablePoint]:
    """Where a scalar function or a first derivative is NaN, or infinite without need, in float32 at ±1e2 and ±1e4.

    Points outside the domain (the logarithm of a negative number) are left out: the judge is a computation with
    50 digits and unlimited exponents. `kinds` gives an operand's kind by position, `b` for a truth value.
    """
    symbols = scalar.operand_symbols(arity)
    values = [(False, True) if kinds[k : k + 1] == "b" else POINTS for k in range(arity)]
    found = []
    for point in product(*values):
        arrays = [np.array(v, bool if isinstance(v, bool) else np.float32) for v in point]
        for position in (None, *range(arity)):
            expr = scalar.expression(function, arity)
            if position is not None:
                expr = scalar.derivative(function, arity, position)
            single = scalar.numpy_value(expr, symbols, arrays, np.float32)
            exact = _exact(expr, symbols, point)
            if exact is not None and _spoiled(single, exact):
                found.append(UnstablePoint(tuple(float(v) for v in point), position, float(single), exact))
    return found


def _spoiled(single: Any, exact: float) -> bool:
    if single.dtype == bool:
        return False
    overflows = abs(exact) > float(np.finfo(np.float32).max)
    return bool(np.isnan(single) or (np.isinf(single) and not overflows))


def _exact(expr: SymPy, symbols: Sequence[SymPy], point: Sequence[Any]) -> float | None:
    """The value with 50 digits, as a float (inf when too great), or None where it is undefined or complex."""
    import mpmath

    with mpmath.workdps(50):
        known = {s: v if isinstance(v, bool) else mpmath.mpf(v) for s, v in zip(symbols, point, strict=True)}
        try:
            value = scalar.fold(expr, _MpmathTarget(), known)
        except ZeroDivisionError:
            return None
        if isinstance(value, bool):
            return float(value)
        undefined = isinstance(value, mpmath.mpc) or not mpmath.isfinite(value)
        return None if undefined else float(value)


class _MpmathTarget(Target[Any]):
    """Evaluates with mpmath at its current precision."""

    def constant(self, value: float) -> Any:
        import mpmath

        return mpmath.mpf(value)

    def apply(self, primitive: str, args: Sequence[Any]) -> Any:
        return _mpmath_functions()[primitive](*args)


@cache
def _mpmath_functions() -> dict[str, Any]:
    import mpmath

    names = (
        *("exp", "log", "log1p", "expm1", "sqrt", "tanh", "erf"),
        *("sin", "cos", "tan", "asin", "acos", "atan", "sinh", "cosh", "isnan", "isinf", "isfinite"),
    )
    real = {name: getattr(mpmath, name) for name in names}
    exact = {"add": operator.add, "sub": operator.sub, "mul": operator.mul, "div": operator.truediv}
    compare = {name: getattr(operator, name) for name in ("lt", "le", "gt", "ge", "eq", "ne")}
    return {
        **real,
        **exact,
        **compare,
        **{"neg": operator.neg, "pow": mpmath.power, "floor": mpmath.floor, "ceil": mpmath.ceil, "round": mpmath.nint},
        **{"and": lambda a, b: a and b, "or": lambda a, b: a or b, "not": operator.not_},
        **{"max": max, "min": min, "abs": abs, "sign": mpmath.sign, "where": lambda c, a, b: a if c else b},
        **{"log2": lambda x: mpmath.log(x, 2), "mod": lambda a, b: a - b * mpmath.floor(a / b)},
        "floordiv": lambda a, b: mpmath.floor(a / b),
        "rsqrt": lambda x: 1 / mpmath.sqrt(x),
        "sigmoid": lambda x: 1 / (1 + mpmath.exp(-x)),
        "softplus": lambda x: mpmath.log1p(mpmath.exp(x)),
    }


def from_sympy(expr: SymPy) -> SymPy:
    """A user's SymPy expression over the stable primitives.

    `exp log tanh erf sqrt Abs sign Max Min floor ceiling Mod Heaviside Piecewise`, trigonometric and hyperbolic
    functions and comparisons become primitives, and 1/(1 + exp(u)) becomes sigmoid(-u), exp(u)/(1 + exp(u))
    sigmoid(u), log(1 + exp(u)) softplus(u), log(1 + u) log1p(u), exp(u) - 1 expm1(u).
    Raises DefinitionError for other functions.
    """
    import sympy

    if expr.is_Atom or (expr.is_Pow and expr.is_number):
        return expr
    args = [from_sympy(a) for a in expr.args] if not isinstance(expr, sympy.Piecewise) else []
    if isinstance(expr, sympy.Piecewise):
        return _piecewise(expr)
    if expr.is_Pow:
        return _power(*args)
    if isinstance(expr, sympy.log):
        return _logarithm(args[0])
    if expr.is_Add:
        return _sum(args)
    if expr.is_Mul:
        return _product(args)
    if isinstance(expr, sympy.Heaviside):
        return scalar.where(scalar.eq(args[0], 0), args[1], (scalar.sign(args[0]) + 1) / 2)
    if isinstance(getattr(type(expr), "primitive", None), Primitive):
        return expr.func(*args)
    name = type(expr).__name__
    if name not in _FUNCTIONS:
        raise DefinitionError(f"{name} in {expr} has no stable primitive; there are: {', '.join(sorted(_FUNCTIONS))}")
    function, total = _FUNCTIONS[name], args[0]
    if function.arity == 1:
        return function(total)
    for other in args[1:]:
        total = function(total, other)
    return total


_FUNCTIONS: dict[str, Primitive] = {
    **{p.name: p for p in (scalar.exp, scalar.tanh, scalar.erf, scalar.floor, scalar.sign, scalar.sin, scalar.cos)},
    **{p.name: p for p in (scalar.tan, scalar.asin, scalar.acos, scalar.atan, scalar.sinh, scalar.cosh)},
    **{"Abs": scalar.abs, "ceiling": scalar.ceil, "Max": scalar.maximum, "Min": scalar.minimum},
    **{"StrictLessThan": scalar.lt, "LessThan": scalar.le, "StrictGreaterThan": scalar.gt, "GreaterThan": scalar.ge},
    **{"Equality": scalar.eq, "Unequality": scalar.ne, "And": scalar.logical_and, "Or": scalar.logical_or},
    **{"Not": scalar.logical_not, "Mod": scalar.mod},
}


def _is(expr: SymPy, primitive: Primitive) -> bool:
    return getattr(type(expr), "primitive", None) == primitive


def _one_plus(expr: SymPy) -> SymPy | None:
    """`u` of `1 + u`, else None (`expm1(v) + 2` counts: it is 1 + exp(v))."""
    constant, rest = expr.as_coeff_Add()
    if constant == 1:
        return rest
    return scalar.exp(rest.args[0]) if constant == 2 and _is(rest, scalar.expm1) else None


def _power(base: SymPy, exponent: SymPy) -> SymPy:
    import sympy

    inner = _one_plus(base)
    if base is sympy.E:
        return scalar.exp(exponent)
    if inner is not None and _is(inner, scalar.exp) and exponent.is_Integer and exponent < 0:
        return scalar.sigmoid(-inner.args[0]) ** (-exponent)
    if exponent.free_symbols:
        return scalar.pow(base, exponent)
    if exponent == sympy.Rational(1, 2):
        return scalar.sqrt(base)
    return scalar.rsqrt(base) if exponent == -sympy.Rational(1, 2) else base**exponent


def _logarithm(arg: SymPy) -> SymPy:
    inner = _one_plus(arg)
    if inner is None:
        return scalar.log(arg)
    return scalar.softplus(inner.args[0]) if _is(inner, scalar.exp) else scalar.log1p(inner)


def _product(factors: Sequence[SymPy]) -> SymPy:
    """The product; exp(u) sigmoid(-u) in it is sigmoid(u)."""
    import sympy

    rest = list(factors)
    for power in [f for f in factors if _is(f, scalar.exp)]:
        complement = scalar.sigmoid(-power.args[0])
        if complement in rest:
            rest.remove(complement)
            rest[rest.index(power)] = scalar.sigmoid(power.args[0])
    return sympy.Mul(*rest)


def _sum(terms: Sequence[SymPy]) -> SymPy:
    import sympy

    rest = list(terms)
    if sympy.Integer(-1) in rest:
        power = next((t for t in rest if _is(t, scalar.exp)), None)
        if power is not None:
            rest.remove(sympy.Integer(-1))
            rest[rest.index(power)] = scalar.expm1(power.args[0])
    return sympy.Add(*rest)


def _piecewise(expr: SymPy) -> SymPy:
    """Branches from the last to the first; the last must be the default."""
    *branches, (default, condition) = expr.args
    if condition != True:  # noqa: E712  (a SymPy truth value)
        raise DefinitionError(f"{expr} is undefined where no condition holds; give it a last branch (value, True)")
    total = from_sympy(default)
    for value, holds in reversed(branches):
        total = scalar.where(from_sympy(holds), from_sympy(value), total)
    return total
