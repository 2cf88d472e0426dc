"""Roots, exponentials, logarithms, and trigonometric, hyperbolic and error functions: smooth ops of floats."""

from __future__ import annotations

from graphc.ir.op import define
from graphc.ops import scalar
from graphc.ops.maps import float_function

SQRT = define(float_function("sqrt", "The square root; NaN below 0", scalar.sqrt, 0.2, 4.0))
RSQRT = define(float_function("rsqrt", "1 / sqrt(x); infinite at 0, NaN below", scalar.rsqrt, 0.2, 4.0))

EXP = define(float_function("exp", "The exponential e^x", scalar.exp))
EXPM1 = define(float_function("expm1", "exp(x) - 1, accurate near 0", scalar.expm1))
LOG = define(float_function("log", "The natural logarithm; -inf at 0, NaN below", scalar.log, 0.2, 3.0))
LOG1P = define(float_function("log1p", "log(1 + x), accurate near 0", scalar.log1p, -0.7, 2.0))
LOG2 = define(float_function("log2", "The logarithm to base 2; -inf at 0, NaN below", scalar.log2, 0.2, 3.0))

SIN = define(float_function("sin", "The sine of an angle in radians", scalar.sin, -4.0, 4.0))
COS = define(float_function("cos", "The cosine of an angle in radians", scalar.cos, -4.0, 4.0))
TAN = define(float_function("tan", "The tangent of an angle in radians", scalar.tan, -1.2, 1.2))
ASIN = define(float_function("asin", "The inverse sine, in radians; NaN outside -1 ... 1", scalar.asin, -0.8, 0.8))
ACOS = define(float_function("acos", "The inverse cosine, in radians; NaN outside -1 ... 1", scalar.acos, -0.8, 0.6))
ATAN = define(float_function("atan", "The inverse tangent, in radians", scalar.atan))

SINH = define(float_function("sinh", "The hyperbolic sine", scalar.sinh))
COSH = define(float_function("cosh", "The hyperbolic cosine", scalar.cosh))
TANH = define(float_function("tanh", "The hyperbolic tangent", scalar.tanh))
ERF = define(float_function("erf", "The error function: 2/sqrt(pi) times the integral of exp(-t^2) to x", scalar.erf))
