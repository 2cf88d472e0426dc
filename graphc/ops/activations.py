"""Activation functions, each one scalar expression; derivatives are stated in terms of the output where that is better.

Ties (the kinks) are those of PyTorch's function of the same name, and are told op by op.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache

import numpy as np

from graphc.errors import AttributeValueError
from graphc.ir.op import Attribute, Attributes, Sample, define
from graphc.ir.types import TensorType
from graphc.ops import scalar
from graphc.ops.maps import FLOAT1, FLOAT2, NUMBER1, float_function, scalar_op, unary
from graphc.ops.scalar import Primitive, SymPy, where

_EDGES = (-np.inf, -1.0, -0.0, 0.0, 1.0, np.inf, np.nan)

SIGMOID = define(float_function("sigmoid", "The logistic function 1 / (1 + exp(-x))", scalar.sigmoid, -4.0, 4.0))
SOFTPLUS = define(float_function("softplus", "log(1 + exp(x)), without overflow", scalar.softplus, -4.0, 4.0))

RELU = define(
    scalar_op(
        "relu",
        "max(x, 0); its derivative at 0 is 0",
        scalar.relu,
        NUMBER1,
        unary(kinks=(-0.0, 0.0, np.inf, np.nan), integers=True),
    )
)


def _heaviside(x: SymPy, at_zero: float = 1.0) -> SymPy:
    return where(scalar.eq(x, 0), at_zero, (scalar.sign(x) + 1) / 2)


HEAVISIDE = define(
    scalar_op(
        "heaviside",
        "0 below 0, 1 above, `at_zero` at 0, NaN of NaN; its derivative is 0 everywhere",
        _heaviside,
        FLOAT1,
        unary(kinks=_EDGES, settings=({}, {"at_zero": 0.5})),
        attributes={"at_zero": Attribute("float", "the value at 0", 1.0)},
    )
)


def _leaky_relu(x: SymPy, negative_slope: float = 0.01) -> SymPy:
    return where(scalar.gt(x, 0), x, negative_slope * x)


LEAKY_RELU = define(
    scalar_op(
        "leaky_relu",
        "x above 0, else negative_slope * x; its derivative at 0 is negative_slope",
        _leaky_relu,
        FLOAT1,
        unary(kinks=_EDGES, settings=({}, {"negative_slope": 0.1})),
        attributes={"negative_slope": Attribute("float", "the slope below 0", 0.01)},
    )
)


def _prelu_samples() -> Sequence[Sample]:
    x, slope = np.linspace(-2, 2, 12).reshape(3, 4) + 0.01, np.sin(np.arange(12.0)).reshape(3, 4)
    return [
        Sample((x, slope), differentiable=(0, 1)),
        Sample((x.astype(np.float32), slope.astype(np.float32))),
        Sample((np.array(_EDGES), np.full(len(_EDGES), 0.25))),
    ]


PRELU = define(
    scalar_op(
        "prelu",
        "x above 0, else a * x; its derivative at 0 is a",
        lambda x, a: where(scalar.gt(x, 0), x, a * x),
        FLOAT2,
        _prelu_samples,
        2,
    )
)


@cache
def _exponential_unit(alpha: float, scale: float) -> Primitive:
    """scale * (x, or alpha (e^x - 1) below 0); the slope below 0 is y + scale * alpha: no second exponential."""

    def slope(y: SymPy, x: SymPy) -> tuple[SymPy, ...]:
        below = scalar.le(y if alpha > 0 else x, 0)
        return (where(below, y + scale * alpha, scale),)

    def expansion(x: SymPy) -> SymPy:
        return where(scalar.gt(x, 0), scale * x, scale * alpha * scalar.expm1(x))

    name = "selu" if scale != 1 else "elu"
    return Primitive(name, slope, rf"\operatorname{{{{{name}}}}}\left({{0}}\right)", expansion=expansion)


def _elu(x: SymPy, alpha: float = 1.0) -> SymPy:
    return _exponential_unit(float(alpha), 1)(x)


# Klambauer et al., "Self-Normalizing Neural Networks", 2017: the fixed point has mean 0 and variance 1.
_SELU_ALPHA, _SELU_SCALE = 1.6732632423543772848170429916717, 1.0507009873554804934193349852946

ELU = define(
    scalar_op(
        "elu",
        "x above 0, else alpha * (exp(x) - 1); its derivative at 0 is alpha",
        _elu,
        FLOAT1,
        unary(kinks=_EDGES, settings=({}, {"alpha": 0.3}, {"alpha": -0.5})),
        attributes={"alpha": Attribute("float", "minus the limit at minus infinity", 1.0)},
        latex=r"\left(x \text{ if } x > 0 \text{ else } \alpha \left(e^{x} - 1\right)\right)",
    )
)
SELU = define(
    scalar_op(
        "selu",
        "The self-normalising ELU: 1.0507 * elu(x, alpha=1.67326)",
        lambda x: _exponential_unit(_SELU_ALPHA, _SELU_SCALE)(x),
        FLOAT1,
        unary(kinks=_EDGES),
        latex=r"\lambda \left(x \text{ if } x > 0 \text{ else } \alpha \left(e^{x} - 1\right)\right)",
    )
)

# The quotient rule would subtract two numbers that are nearly equal where |x| is large.
_softsign = Primitive(
    "softsign",
    lambda y, x: (1 / (1 + scalar.abs(x)) ** 2,),
    r"\frac{{{0}}}{{1 + \left|{0}\right|}}",
    expansion=lambda x: scalar.div(x, 1 + scalar.abs(x)),
)
SOFTSIGN = define(scalar_op("softsign", "x / (1 + |x|)", _softsign, FLOAT1, unary(-3.1, 2.9, kinks=(-0.0, 0.0))))

SILU = define(
    scalar_op("silu", "x * sigmoid(x), also called swish", lambda x: x * scalar.sigmoid(x), FLOAT1, unary(-4.0, 4.0))
)


def _gelu(x: SymPy, approximate: str = "none") -> SymPy:
    import sympy

    if approximate == "tanh":
        return x * (1 + scalar.tanh(sympy.sqrt(2 / sympy.pi) * (x + sympy.Float("0.044715") * x**3))) / 2
    return x * (1 + scalar.erf(x / sympy.sqrt(2))) / 2


def _infer_gelu(types: Sequence[TensorType], attributes: Attributes) -> tuple[TensorType, ...]:
    result = FLOAT1(types, attributes)
    if attributes["approximate"] not in ("none", "tanh"):
        raise AttributeValueError(f"approximate={attributes['approximate']!r}; it is 'none' or 'tanh'")
    return result


GELU = define(
    scalar_op(
        "gelu",
        "x times the normal distribution's probability of less than x; `tanh` approximates it within 5e-4",
        _gelu,
        _infer_gelu,
        unary(-3.0, 3.0, settings=({}, {"approximate": "tanh"})),
        attributes={"approximate": Attribute("str", "'none', or 'tanh' for its approximation", "none")},
    )
)


@cache
def _saturation(low: float, high: float) -> Primitive:
    """x between two bounds; on them the slope is 0, of NaN it is 1."""
    return Primitive(
        "saturate",
        lambda y, x: (where(scalar.logical_or(scalar.le(x, low), scalar.ge(x, high)), 0, 1),),
        r"\operatorname{{saturate}}\left({0}\right)",
        expansion=lambda x: scalar.minimum(scalar.maximum(x, low), high),
    )


def _hardtanh(x: SymPy, min_val: float = -1.0, max_val: float = 1.0) -> SymPy:
    return _saturation(float(min_val), float(max_val))(x)


def _hardsigmoid_slope(y: SymPy, x: SymPy) -> tuple[SymPy, ...]:
    import sympy

    return (where(scalar.logical_and(scalar.gt(x, -3), scalar.lt(x, 3)), sympy.Rational(1, 6), 0),)


_hardsigmoid = Primitive(
    "hardsigmoid",
    _hardsigmoid_slope,
    r"\operatorname{{hardsigmoid}}\left({0}\right)",
    expansion=lambda x: scalar.minimum(scalar.maximum(x, -3), 3) / 6 + scalar.half(),
)


HARDTANH = define(
    scalar_op(
        "hardtanh",
        "x between min_val and max_val, and those beyond them: saturation; its derivative at them is 0",
        _hardtanh,
        FLOAT1,
        unary(kinks=_EDGES, settings=({}, {"min_val": -0.5, "max_val": 0.25})),
        attributes={
            "min_val": Attribute("float", "the least value", -1.0),
            "max_val": Attribute("float", "the greatest value", 1.0),
        },
        latex=r"\min\left(\max\left(x, -1\right), 1\right)",
    )
)
HARDSIGMOID = define(
    scalar_op(
        "hardsigmoid",
        "x / 6 + 1/2 between -3 and 3, 0 below and 1 above; its derivative at +-3 is 0",
        _hardsigmoid,
        FLOAT1,
        unary(-4.1, 3.9, kinks=(*_EDGES, -3.0, 3.0)),
        latex=r"\min\left(\max\left(\frac{x}{6} + \frac{1}{2}, 0\right), 1\right)",
    )
)
GAUSSIAN = define(
    scalar_op("gaussian", "exp(-x^2)", lambda x: scalar.exp(-(x**2)), FLOAT1, unary(kinks=(-0.0, 1e20, np.nan)))
)
