"""The primitives of the scalar language: one row each, with arity, dtype rule, NumPy meaning and notation.

The NumPy functions are the meaning: they are stable over the whole range of their dtype, pass NaN on, and keep the
dtype of their operands. Emitters provide the same functions for each target, within a stated error.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from graphc.errors import VerifyError
from graphc.ir.types import DType, bool_, f32, i64
from graphc.kernel import philox

# What a primitive accepts, and what it returns. The condition of `where` is checked apart.
RULES = {
    "numeric": "numbers of one dtype, which is the result's",
    "float": "floats of one dtype, which is the result's",
    "compare": "numbers of one dtype; the result is bool",
    "equate": "values of one dtype; the result is bool",
    "classify": "a float; the result is bool",
    "logic": "bools; the result is bool",
    "select": "a bool and two values of one dtype, which is the result's",
    "random": "five i64: seed, step, stream, loop, element; the result is f32",
}


@dataclass(frozen=True)
class Primitive:
    """One primitive. `rule` is a key of RULES, `infix` its operator in text; a higher `precedence` binds tighter."""

    name: str
    arity: int
    rule: str
    numpy: Callable[..., Any]
    doc: str
    infix: str = ""
    precedence: int = 0

    def result(self, dtypes: Sequence[DType]) -> DType:
        """The dtype of the result. Raises VerifyError when the number or the dtypes of operands do not fit."""
        if len(dtypes) != self.arity:
            raise VerifyError(f"{self.name} takes {self.arity} operand(s), it has {len(dtypes)}")
        given, operands = ", ".join(map(str, dtypes)), list(dtypes)
        if self.rule == "select" and operands.pop(0) != bool_:
            raise VerifyError(f"{self.name}: the condition must be bool, it is {dtypes[0]}")
        if len(set(operands)) > 1:
            raise VerifyError(f"{self.name}: operands have different dtypes {given}; cast them")
        if not _ACCEPTS[self.rule](operands[0]):
            raise VerifyError(f"{self.name} takes {RULES[self.rule]}; it is given {given}")
        if self.rule == "random":
            return f32
        return bool_ if self.rule in ("compare", "equate", "classify", "logic") else operands[0]


_ACCEPTS: dict[str, Callable[[DType], bool]] = {
    "numeric": lambda d: d.is_float or d.is_integer,
    "float": lambda d: d.is_float,
    "compare": lambda d: d.is_float or d.is_integer,
    "equate": lambda d: True,
    "classify": lambda d: d.is_float,
    "logic": lambda d: d == bool_,
    "select": lambda d: True,
    "random": lambda d: d == i64,
}


def _sigmoid(x: Any) -> Any:
    z = np.exp(-np.abs(x))  # in (0, 1]: neither branch can overflow, and small results keep their digits
    return np.where(x >= 0, 1, z).astype(np.asarray(x).dtype) / (1 + z)


def _softplus(x: Any) -> Any:
    return np.maximum(x, 0) + np.log1p(np.exp(-np.abs(x)))


def _erf(x: Any) -> Any:
    array = np.asarray(x)
    return np.array([math.erf(v) for v in array.ravel().tolist()], array.dtype).reshape(array.shape)


def _rsqrt(x: Any) -> Any:
    return 1 / np.sqrt(x)


def _fma(a: Any, b: Any, c: Any) -> Any:
    """`a*b + c`: products of f32 are exact in f64, so f32 is rounded once but for rare double rounding."""
    dtype = np.asarray(a).dtype
    return np.asarray(np.asarray(a, np.float64) * b + c).astype(dtype)


def _uniform(seed: Any, step: Any, stream: Any, loop: Any, element: Any) -> Any:
    """float32 draws of the recipe in `graphc.kernel.philox`; all operands may be arrays."""
    *keys, elements = np.broadcast_arrays(seed, step, stream, loop, element)
    drawn = np.empty(elements.shape, np.float32)
    rows, which = np.unique(np.stack([k.ravel() for k in keys], axis=-1), axis=0, return_inverse=True)
    which = which.reshape(elements.shape)
    for number, (a_seed, a_step, a_stream, a_loop) in enumerate(rows.tolist()):
        chosen = which == number
        drawn[chosen] = philox.uniform(a_seed, a_stream, a_step, a_loop, elements[chosen])
    return drawn


_ROWS = (
    Primitive("or", 2, "logic", np.logical_or, "logical or", "or", 1),
    Primitive("and", 2, "logic", np.logical_and, "logical and", "and", 2),
    Primitive("not", 1, "logic", np.logical_not, "logical not", "not", 3),
    Primitive("lt", 2, "compare", np.less, "less; false if either is NaN", "<", 4),
    Primitive("le", 2, "compare", np.less_equal, "less or equal; false if either is NaN", "<=", 4),
    Primitive("gt", 2, "compare", np.greater, "greater; false if either is NaN", ">", 4),
    Primitive("ge", 2, "compare", np.greater_equal, "greater or equal; false if either is NaN", ">=", 4),
    Primitive("eq", 2, "equate", np.equal, "equal; false if either is NaN", "==", 4),
    Primitive("ne", 2, "equate", np.not_equal, "not equal; true if either is NaN", "!=", 4),
    Primitive("add", 2, "numeric", np.add, "sum; integers wrap around", "+", 5),
    Primitive("sub", 2, "numeric", np.subtract, "difference; integers wrap around", "-", 5),
    Primitive("mul", 2, "numeric", np.multiply, "product; integers wrap around", "*", 6),
    Primitive("div", 2, "float", np.divide, "quotient", "/", 6),
    Primitive("floordiv", 2, "numeric", np.floor_divide, "quotient rounded down", "//", 6),
    Primitive("mod", 2, "numeric", np.mod, "remainder of floordiv: it has the divisor's sign", "%", 6),
    Primitive("neg", 1, "numeric", np.negative, "negative", "-", 7),
    Primitive("max", 2, "numeric", np.maximum, "the greater; NaN if either is NaN"),
    Primitive("min", 2, "numeric", np.minimum, "the lesser; NaN if either is NaN"),
    Primitive("abs", 1, "numeric", np.abs, "absolute value"),
    Primitive("sign", 1, "numeric", np.sign, "-1, 0 or 1; NaN of NaN"),
    Primitive("exp", 1, "float", np.exp, "exponential"),
    Primitive("expm1", 1, "float", np.expm1, "exp(x) - 1, exact near 0"),
    Primitive("log", 1, "float", np.log, "natural logarithm; -inf at 0, NaN below"),
    Primitive("log1p", 1, "float", np.log1p, "log(1 + x), exact near 0"),
    Primitive("tanh", 1, "float", np.tanh, "hyperbolic tangent"),
    Primitive("sigmoid", 1, "float", _sigmoid, "1 / (1 + exp(-x))"),
    Primitive("softplus", 1, "float", _softplus, "log(1 + exp(x)); x where x is large"),
    Primitive("erf", 1, "float", _erf, "error function"),
    Primitive("sqrt", 1, "float", np.sqrt, "square root; NaN below 0"),
    Primitive("rsqrt", 1, "float", _rsqrt, "1 / sqrt(x); inf at 0"),
    Primitive("log2", 1, "float", np.log2, "logarithm to base 2; -inf at 0, NaN below"),
    Primitive("sin", 1, "float", np.sin, "sine"),
    Primitive("cos", 1, "float", np.cos, "cosine"),
    Primitive("tan", 1, "float", np.tan, "tangent"),
    Primitive("asin", 1, "float", np.arcsin, "inverse sine; NaN outside -1 ... 1"),
    Primitive("acos", 1, "float", np.arccos, "inverse cosine; NaN outside -1 ... 1"),
    Primitive("atan", 1, "float", np.arctan, "inverse tangent"),
    Primitive("sinh", 1, "float", np.sinh, "hyperbolic sine"),
    Primitive("cosh", 1, "float", np.cosh, "hyperbolic cosine"),
    Primitive("pow", 2, "float", np.power, "power; NaN for a negative base with a fractional exponent"),
    Primitive("floor", 1, "float", np.floor, "greatest whole number not above x"),
    Primitive("ceil", 1, "float", np.ceil, "least whole number not below x"),
    Primitive("round", 1, "float", np.rint, "nearest whole number, ties to even"),
    Primitive("fma", 3, "float", _fma, "a*b + c, rounded once"),
    Primitive("isnan", 1, "classify", np.isnan, "is NaN"),
    Primitive("isinf", 1, "classify", np.isinf, "is infinite"),
    Primitive("isfinite", 1, "classify", np.isfinite, "is neither infinite nor NaN"),
    Primitive("where", 3, "select", np.where, "the second operand where the first is true, else the third"),
    Primitive("uniform", 5, "random", _uniform, "a number in [0, 1) of the counter-based generator"),
)

PRIMITIVES: dict[str, Primitive] = {row.name: row for row in _ROWS}
COMPARISONS = frozenset(row.name for row in _ROWS if row.rule in ("compare", "equate"))


def primitive(name: str) -> Primitive:
    """The primitive called `name`. Raises VerifyError if there is none."""
    if name not in PRIMITIVES:
        raise VerifyError(f"primitive {name!r} does not exist; there are: {', '.join(sorted(PRIMITIVES))}")
    return PRIMITIVES[name]
