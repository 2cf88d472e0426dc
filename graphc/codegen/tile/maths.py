"""Elementary functions on tiles and scalars: polynomials at full vector width in float32, the C library in float64.

A scalar argument gives a scalar by the same formula, so the same bits. The polynomials are weighted minimax fits
(Lawson's iteration) in the classical forms after Cody and Waite, "Software Manual for the Elementary Functions"
(1980): exp(r) = 1 + r + r^2 P(r), log(1 + f) = f - f^2/2 + f^3 Q(f). Largest errors in float32, against
exact values, over every number with 2^-12 <= |x| < 110 and samples elsewhere (1 ulp = one unit in the last place):

    exp 1.0   log 1.0   expm1 1.5   log1p 1.5   tanh 1.5   sigmoid 1.6   softplus 1.8   erf 1.2
    log2 1.5   sinh 1.7   cosh 1.5   sin 1.5   cos 1.5
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from typing import Any

from llvmlite import ir

from graphc.codegen.host import host
from graphc.codegen.tile.arithmetic import elementwise
from graphc.codegen.tile.expression import Expression
from graphc.codegen.tile.registry import TileFunction, tile_function
from graphc.codegen.tile.signatures import F32, F64
from graphc.codegen.tile.types import INT32, call_intrinsic, shared_function

_FLOAT = ir.FloatType()
_LOG2_E = 1.44269504
_TWO_OVER_PI = 0.63661975
_HALF_PI = (1.5707964, -4.371139e-08, -1.7151245e-15)  # pi/2 as a sum; n times the first is exact for |n| < 2^16
_SIN_S = (-0.16666667, 0.0083333291, -0.00019839304, 2.7180465e-06)  # sin(r) = r + r^3 S(r^2), |r| <= pi/4
_COS_C = (0.041666646, -0.0013887309, 2.4432413e-05)  # cos(r) = 1 - r^2/2 + r^4 C(r^2)
_LOG2_E_LOW = 1.9259629911e-08  # log2(e) = _LOG2_E in float32 + this
_SINH_NEAR = (0.16666667, 0.008333334, 0.00019841270, 2.7557319e-06, 2.5052108e-08)
_LN2_HIGH, _LN2_LOW = 0.693145751953125, 1.428606765330187e-06  # ln 2 = high + low; n * high is exact for small n
_EXP_P = (0.49999994, 0.16666515, 0.041668456, 0.008369419, 0.0013813142)
_LOG_Q = (0.33333313, -0.2500001, 0.20002119, -0.16667996, 0.14219551, -0.124055915, 0.11888175, -0.11675641,
          0.06746601)
_TANH_NEAR = (-0.33333296, 0.13331836, -0.053775575, 0.020765608, -0.0058571147)
_ERF_NEAR = (0.12837917, -0.37612626, 0.112835854, -0.026853811, 0.0051883277, -0.00080101925, 7.853858e-05)
_LOG_ERFC = (0.00018246059, -1.129552, -0.6332724, -0.10836156, 0.025171813, -0.0041908575, 0.0004385303,
             -2.1445598e-05)
_ROUND_MAGIC = 12582912.0  # 1.5 * 2**23: adding it rounds to an integer, which lies in the low bits of the sum
_SQRT_HALF_BITS = 0x3F3504F3

_GROUP = 4  # vectors computed together

Formula = Callable[..., Expression]


# ---- float32 -------------------------------------------------------------------------------------------------------

def _reduce(x: Expression) -> tuple[Expression, Expression]:
    """x = n ln 2 + r with |r| <= ln(2)/2: the sum whose low bits are n, and r."""
    shifted = x.fma(_LOG2_E, _ROUND_MAGIC)
    n = shifted - _ROUND_MAGIC
    return shifted, n.fma(-_LN2_LOW, n.fma(-_LN2_HIGH, x))


def _expm1_core(r: Expression) -> Expression:
    """e^r - 1."""
    return (r * r).fma(r.polynomial(*_EXP_P), r)


def _exp_core(r: Expression) -> Expression:
    """e^r: what 1 + r loses in rounding is added to the polynomial."""
    first = r + 1.0
    lost = r - (first - 1.0)
    return first + (r * r).fma(r.polynomial(*_EXP_P), lost)


def _power_of_two(shifted: Expression, offset: int) -> Expression:
    """2**(n + offset) as a normal number, from the sum whose low bits are n."""
    return ((shifted.bits() << 23) + ((127 + offset) << 23)).as_float(_FLOAT)


def _scale(y: Expression, shifted: Expression) -> Expression:
    """y * 2**n, rounded once, for |n| up to 252: denormal and infinite results included."""
    if host().lanes == 16 and y.type == ir.VectorType(_FLOAT, 16):
        ones, current_rounding = ir.IntType(16)(-1), INT32(4)
        return y.map(lambda value, n: call_intrinsic(  # one instruction for what follows below
            y.builder, "llvm.x86.avx512.mask.scalef.ps.512", y.type, [value, n, value, ones, current_rounding]),
            shifted - _ROUND_MAGIC)
    n = shifted.bits() - 0x4B400000  # the bits of the magic number
    half = n >> 1
    first, second = ((((e + 127) << 23).as_float(_FLOAT)) for e in (half, n - half))
    return y * first * second  # the first product is exact


def _exp(x: Expression) -> Expression:
    return _exp_negative(x.at_most(89.0))


def _exp_negative(x: Expression) -> Expression:
    """e^x for x <= 89."""
    shifted, r = _reduce(x.at_least(-104.0))
    return _scale(_exp_core(r), shifted)


def _expm1(x: Expression) -> Expression:
    shifted, r = _reduce(x.at_least(-18.0).at_most(89.0))
    half = _power_of_two(shifted, -1)  # 2**128 would not be a number
    result = half.fma(_expm1_core(r), half - 0.5) * 2.0
    return (x.call("fabs") < 1e-30).select(x, result)


def _split(bits: Expression) -> tuple[Expression, Expression]:
    """A positive normal number, given by its bits, as 2**k (1 + f) with 1 + f in sqrt(1/2) .. sqrt(2): k and f."""
    k = (bits - _SQRT_HALF_BITS) >> 23
    return k, (bits - (k << 23)).as_float(_FLOAT) - 1.0


def _log_sum(k: Expression, f: Expression) -> Expression:
    """k ln 2 + log(1 + f)."""
    n, square = k.to_float(_FLOAT), f * f
    tail = n.fma(_LN2_LOW, f * square * f.polynomial(*_LOG_Q))
    return n.fma(_LN2_HIGH, f + square.fma(-0.5, tail))


def _log(x: Expression) -> Expression:
    denormal = x < 2.0 ** -126
    k, f = _split(denormal.select(x * 2.0 ** 23, x).bits())
    shift = denormal.select(k.constant(-23), k.constant(0))
    return _log_edges(x, _log_sum(k + shift, f))


def _log_edges(u: Expression, result: Expression) -> Expression:
    """log u where u is 0 (-inf), negative or NaN (NaN), or infinite."""
    result = (u > 0.0).select(result, u.compare("==", 0.0).select(-math.inf, u.constant(math.nan)))
    return u.compare("==", math.inf).select(math.inf, result)


def _log1p_sum(u: Expression, lost: Expression) -> Expression:
    """log(u + lost) for a finite u > 0 and what its rounding has lost."""
    k, f = _split(u.bits())
    inverse_power = ((k * -1 + 127).at_least(0) << 23).as_float(_FLOAT)
    return _log_sum(k, lost.fma(inverse_power, f))


def _log1p(x: Expression) -> Expression:
    u = x + 1.0
    lost = (x < 1.0).select(x - (u - 1.0), x.constant(1.0) - (u - x))
    result = _log_edges(u, _log1p_sum(u, lost))
    return (x.call("fabs") < 1e-30).select(x, result)


def _tanh(x: Expression) -> Expression:
    magnitude = x.call("fabs")
    square = x * x
    near = magnitude.fma(square * square.polynomial(*_TANH_NEAR), magnitude)
    shifted, r = _reduce((magnitude * -2.0).at_least(-20.0))
    e = _exp_core(r) * _power_of_two(shifted, 0)
    far = (e / (e + 1.0)).fma(-2.0, 1.0)
    return (magnitude < 0.55).select(near, far).call("copysign", x)


def _sigmoid(x: Expression) -> Expression:
    e = _exp_negative(-x.call("fabs"))
    numerator = (x < 0.0).select(e, e.constant(1.0))
    quotient = e / (e + 1.0)  # 1 / (1 + e) = 1 - e / (1 + e), whose rounding is that of the smaller term
    return numerator.fma(-quotient, numerator)


def _softplus(x: Expression) -> Expression:
    e = _exp_negative(-x.call("fabs"))
    u = e + 1.0
    return x.at_least(0.0) + _log1p_sum(u, e - (u - 1.0))


def _log2(x: Expression) -> Expression:
    denormal = x < 2.0 ** -126
    k, f = _split(denormal.select(x * 2.0 ** 23, x).bits())
    shift = denormal.select(k.constant(-23), k.constant(0))
    square = f * f
    tail = square.fma(-0.5, f * square * f.polynomial(*_LOG_Q))  # log(1 + f) = f + tail
    low = f.fma(_LOG2_E_LOW, tail * _LOG2_E)
    return _log_edges(x, f.fma(_LOG2_E, low) + (k + shift).to_float(_FLOAT))


def _half_exp(x: Expression) -> Expression:
    """e^x / 2, which is finite a little longer than e^x, for x >= 0."""
    shifted, r = _reduce(x.at_most(90.0))
    return _scale(_exp_core(r), shifted - 1.0)


def _cosh(x: Expression) -> Expression:
    half = _half_exp(x.call("fabs"))
    return half + half.constant(0.25) / half


def _sinh(x: Expression) -> Expression:
    magnitude, square = x.call("fabs"), x * x
    near = magnitude.fma(square * square.polynomial(*_SINH_NEAR), magnitude)
    half = _half_exp(magnitude)
    far = half - half.constant(0.25) / half
    return (magnitude < 1.0).select(near, far).call("copysign", x)


def _circular(x: Expression, name: str) -> Expression:
    """The sine or cosine: x = n pi/2 + r by three fused steps, exact enough for |x| < 1e5; beyond, the C library."""
    shifted = x.fma(_TWO_OVER_PI, _ROUND_MAGIC)
    n, r = shifted - _ROUND_MAGIC, x
    for part in _HALF_PI:
        r = n.fma(-part, r)
    square = r * r
    sine = (r * square).fma(square.polynomial(*_SIN_S), r)
    half = square * 0.5
    whole = -half + 1.0
    lost = -(whole - 1.0) - half  # what 1 - r^2/2 loses in rounding
    cosine = whole + (square * square).fma(square.polynomial(*_COS_C), lost)
    quadrant = shifted.bits() if name == "sin" else shifted.bits() + 1
    odd = (quadrant & 1).compare("==", 1)
    value = odd.select(cosine, sine)
    value = (value.bits() ^ ((quadrant & 2) << 30)).as_float(_FLOAT)
    if name == "sin":
        value = x.compare("==", 0.0).select(x, value)  # -0
    return _where_any(x.call("fabs") > 1e5, value, lambda v: _library(name, Expression(x.builder, (v,))).value, x)


def _where_any(mask: Expression, usual: Expression, rare: Callable[[ir.Value], ir.Value], x: Expression) -> Expression:
    """`usual`, and where `mask` holds `rare` of x, which is computed for those vectors only that have such a lane."""
    def choose(holds: ir.Value, value: ir.Value, argument: ir.Value) -> ir.Value:
        builder, before = mask.builder, mask.builder.block
        any_lane = holds
        if isinstance(holds.type, ir.VectorType):
            bits = builder.bitcast(holds, ir.IntType(holds.type.count))
            any_lane = builder.icmp_unsigned("!=", bits, bits.type(0))
        with builder.if_then(any_lane, likely=False):
            replaced = builder.select(holds, rare(argument), value)
            inside = builder.block
        result = builder.phi(value.type)
        result.add_incoming(value, before)
        result.add_incoming(replaced, inside)
        return result

    return mask.map(choose, usual, x)


def _sin(x: Expression) -> Expression:
    return _circular(x, "sin")


def _cos(x: Expression) -> Expression:
    return _circular(x, "cos")


def _erf(x: Expression) -> Expression:
    near = x.fma((x * x).polynomial(*_ERF_NEAR), x)
    magnitude = x.call("fabs").at_most(4.0)
    shifted, r = _reduce(magnitude.polynomial(*_LOG_ERFC))
    far = -(_exp_core(r) * _power_of_two(shifted, 0)) + 1.0
    return (magnitude < 0.975).select(near, far.call("copysign", x))


# ---- float64, and what has no polynomial ---------------------------------------------------------------------------

def _library(name: str, *arguments: Expression) -> Expression:
    """The C library's function, lane by lane (`f` appended to its name in float32)."""
    builder, ty, element = arguments[0].builder, arguments[0].type, arguments[0].element
    symbol = name + ("f" if isinstance(element, ir.FloatType) else "")

    def apply(*values: ir.Value) -> ir.Value:
        if not isinstance(ty, ir.VectorType):
            return call_intrinsic(builder, symbol, element, values)
        result = ir.Constant(ty, ir.Undefined)
        for lane in range(ty.count):
            lanes = [builder.extract_element(value, INT32(lane)) for value in values]
            result = builder.insert_element(result, call_intrinsic(builder, symbol, element, lanes), INT32(lane))
        return result

    return arguments[0].map(apply, *arguments[1:])


def _sigmoid64(x: Expression) -> Expression:
    e = _library("exp", -x.call("fabs"))
    return (x < 0.0).select(e, e.constant(1.0)) / (e + 1.0)


def _softplus64(x: Expression) -> Expression:
    return x.at_least(0.0) + _library("log1p", _library("exp", -x.call("fabs")))


def _define(name: str, single: Formula | None, double: Formula | None, doc: str, arity: int = 1) -> TileFunction:
    """The tile function `tile_<name>`; a formula that is None is the C library's function of that name."""
    def emit(builder: ir.IRBuilder, *arguments: Sequence[ir.Value]) -> list[ir.Value]:
        element = getattr(arguments[0][0].type, "element", arguments[0][0].type)
        formula = (single if isinstance(element, ir.FloatType) else double) or functools.partial(_library, name)
        group = _GROUP if formula is single else 1
        results = []
        for first in range(0, len(arguments[0]), group):
            results += shared_function(builder, f"graphc_{name}",
                                       lambda inner, *values: formula(*(Expression(inner, v) for v in values)).values,
                                       *(tuple(a[first:first + group]) for a in arguments))
        return results

    def unary(a: Any) -> Any:
        return elementwise(f"tile_{name}", emit, a, dtypes=(F32, F64), together=True)

    def binary(a: Any, b: Any) -> Any:
        return elementwise(f"tile_{name}", emit, a, b, dtypes=(F32, F64), together=True)

    definition = unary if arity == 1 else binary
    definition.__name__, definition.__doc__ = f"tile_{name}", f"tile_{name}{doc}"
    return tile_function(definition)


tile_exp = _define("exp", _exp, None, "(a): e**a; inf above 88.72 (float32).")
tile_log = _define("log", _log, None, "(a): the natural logarithm; -inf at 0, NaN below.")
tile_expm1 = _define("expm1", _expm1, None, "(a): e**a - 1, accurate near 0.")
tile_log1p = _define("log1p", _log1p, None, "(a): log(1 + a), accurate near 0; -inf at -1, NaN below.")
tile_tanh = _define("tanh", _tanh, None, "(a): the hyperbolic tangent.")
tile_sigmoid = _define("sigmoid", _sigmoid, _sigmoid64, "(a): 1 / (1 + e**-a), accurate in both tails.")
tile_softplus = _define("softplus", _softplus, _softplus64, "(a): log(1 + e**a), accurate in both tails.")
tile_erf = _define("erf", _erf, None, "(a): the error function.")
tile_sin = _define("sin", _sin, None, "(a): the sine; fast for |a| < 1e5.")
tile_cos = _define("cos", _cos, None, "(a): the cosine; fast for |a| < 1e5.")
tile_tan = _define("tan", None, None, "(a): the tangent (C library, lane by lane).")
tile_asin = _define("asin", None, None, "(a): the inverse sine (C library, lane by lane); NaN outside -1 ... 1.")
tile_acos = _define("acos", None, None, "(a): the inverse cosine (C library, lane by lane); NaN outside -1 ... 1.")
tile_atan = _define("atan", None, None, "(a): the inverse tangent (C library, lane by lane).")
tile_sinh = _define("sinh", _sinh, None, "(a): the hyperbolic sine, accurate near 0; infinite above 89.41 (float32).")
tile_cosh = _define("cosh", _cosh, None, "(a): the hyperbolic cosine; infinite above 89.41 (float32).")
tile_log2 = _define("log2", _log2, None, "(a): the logarithm to base 2, exact at powers of 2; -inf at 0, NaN below.")
tile_pow = _define("pow", None, None, "(a, b): a**b (C library, lane by lane).", arity=2)
