"""Signs, magnitudes, whole numbers and kinds of numbers: ops whose derivative is 0 or 1, or that have none."""

from __future__ import annotations

import numpy as np

from graphc.ir.op import Op, define
from graphc.ops import scalar
from graphc.ops.maps import FLOAT1, NUMBER1, classification, scalar_op, unary

_kinked = unary(kinks=(-0.0, 0.0, np.inf, np.nan), integers=True)
ABS = define(scalar_op("abs", "The absolute value; its derivative at 0 is 0", scalar.abs, NUMBER1, _kinked))
SIGN = define(scalar_op("sign", "-1, 0 or 1; its derivative is 0 everywhere", scalar.sign, NUMBER1, _kinked))


def _rounded(name: str, doc: str, function: scalar.Primitive) -> Op:
    """The op of a rounding, which is flat; sampled at halves and infinities too."""
    kinks = (-2.5, -1.5, -0.5, -0.0, 0.5, 1.5, 2.5, 8388609.0, np.inf, -np.inf, np.nan)
    return scalar_op(name, f"{doc}; its derivative is 0 everywhere", function, FLOAT1, unary(kinks=kinks))


FLOOR = define(_rounded("floor", "The greatest whole number not above x", scalar.floor))
CEIL = define(_rounded("ceil", "The least whole number not below x", scalar.ceil))
ROUND = define(_rounded("round", "The nearest whole number, halves to the even one", scalar.round))

ISNAN = define(classification("isnan", "x is not a number, a truth value", scalar.isnan))
ISINF = define(classification("isinf", "x is infinite, a truth value", scalar.isinf))
ISFINITE = define(classification("isfinite", "x is neither infinite nor NaN, a truth value", scalar.isfinite))
