"""Arithmetic, comparisons, logic, selection and casts: elementwise ops of one scalar expression each.

Other families: `transcendental`, `rounding`, `activations`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from graphc.errors import DTypeError
from graphc.ir.builder import Builder
from graphc.ir.graph import Node, Value
from graphc.ir.op import Attribute, Attributes, Op, Sample, define
from graphc.ir.types import TensorType, bool_, f32, f64, i32
from graphc.kernel.expr import Cast
from graphc.ops import forms, scalar
from graphc.ops.maps import FLOAT1, FLOAT2, NUMBER1, NUMBER2, TRUTH, binary, booleans, scalar_op, unary
from graphc.ops.rules import (
    EVERYTHING,
    NUMBERS,
    ORDERED,
    elementwise_rule,
    expect_dtype,
    expect_equal,
    expect_equal_shapes,
    expect_operands,
)

_compare = elementwise_rule(2, ORDERED, bool_)


def divided() -> Sequence[Sample]:
    """Samples of // and %: signs, exact quotients, zero divisors; slopes away from the jumps."""
    a, b = np.linspace(-7.3, 6.1, 12).reshape(3, 4), np.where(np.arange(12) % 2, 1.7, -2.6).reshape(3, 4)
    edges = np.array([7.5, -7.5, 6.0, -6.0, 1.0, 0.0, np.inf]), np.array([2.5, 2.5, -3.0, 3.0, 0.0, -2.0, 2.0])
    counts = np.array([7, -7, 7, -7, 5, 0]), np.array([3, 3, -3, -3, 0, 2])
    return [
        Sample((a, b), differentiable=(0, 1)),
        Sample((a.astype(np.float32), b.astype(np.float32))),
        Sample(edges),
        *(Sample(tuple(v.astype(t) for v in counts)) for t in (np.int32, np.int64)),
    ]


ADD = define(scalar_op("add", "a + b", lambda a, b: a + b, NUMBER2, binary(), 2, commutative=True))
SUB = define(scalar_op("sub", "a - b", lambda a, b: a - b, NUMBER2, binary(), 2))
MUL = define(scalar_op("mul", "a * b", lambda a, b: a * b, NUMBER2, binary(), 2, commutative=True))
DIV = define(scalar_op("div", "a / b, floats only", scalar.div, FLOAT2, binary(True, integers=False), 2))
NEG = define(scalar_op("neg", "-x", lambda x: -x, NUMBER1, unary(kinks=(0.0, np.inf, np.nan), integers=True)))

FLOORDIV = define(
    scalar_op(
        "floordiv",
        "a / b rounded down, as Python's //; 0 for an integer divided by 0. Its derivative is 0 everywhere.",
        scalar.floordiv,
        NUMBER2,
        divided,
        2,
    )
)
MOD = define(
    scalar_op(
        "mod",
        "The remainder of floordiv: it has the divisor's sign, as Python's % and torch.remainder",
        scalar.mod,
        NUMBER2,
        divided,
        2,
    )
)
SQUARE = define(scalar_op("square", "x * x", lambda x: x**2, NUMBER1, unary(kinks=(np.inf, np.nan), integers=True)))
RECIPROCAL = define(
    scalar_op("reciprocal", "1 / x; infinite at 0", scalar.reciprocal, FLOAT1, unary(0.3, 3.0, kinks=(-0.0, np.inf)))
)
POW = define(
    scalar_op(
        "pow",
        "a to the power b; NaN for a negative base and a fractional exponent, 1 for exponent 0",
        scalar.pow,
        FLOAT2,
        lambda: [
            Sample((np.linspace(0.2, 2.5, 12).reshape(3, 4), np.cos(np.arange(12.0)).reshape(3, 4)), {}, (0, 1)),
            Sample((np.array([-1.5, 2.0, -0.3]), np.array([3.0, -2.0, 4.0])), {}, (0,)),
            Sample((np.array([0, -8, -8, 2], np.float32), np.array([0, 0.5, 3, 20], np.float32))),
            Sample((np.array([0.0, 0.0, np.inf, np.nan, -0.0]), np.array([0.0, 2.0, -1.0, 0.0, -1.0]))),
        ],
        2,
    )
)

MAXIMUM = define(
    scalar_op(
        "maximum",
        "The greater of a and b; NaN wins. At a tie each operand gets half of the gradient.",
        scalar.maximum,
        NUMBER2,
        binary(),
        2,
        commutative=True,
    )
)
MINIMUM = define(
    scalar_op(
        "minimum",
        "The lesser of a and b; NaN wins. At a tie each operand gets half of the gradient.",
        scalar.minimum,
        NUMBER2,
        binary(),
        2,
        commutative=True,
    )
)


def _clip_samples() -> Sequence[Sample]:
    x = np.linspace(-2, 2, 12).reshape(3, 4) + 0.01
    low, high = np.full((3, 4), -0.7), np.linspace(0.4, 1.2, 12).reshape(3, 4)
    return [
        Sample((x, low, high), differentiable=(0, 1, 2)),
        Sample(tuple(v.astype(np.float32) for v in (x, low, high))),
        Sample((np.array([-1.0, 1.0, np.nan, 3.0]), np.full(4, -1.0), np.array([1.0, 1.0, 1.0, -2.0]))),
        Sample((np.arange(4, dtype=np.int32), np.full(4, 1, np.int32), np.full(4, 2, np.int32))),
    ]


CLIP = define(
    scalar_op(
        "clip",
        "min(max(x, low), high). The gradient passes inside the bounds and on them; beyond one it is that bound's.",
        scalar.clip,
        elementwise_rule(3, NUMBERS),
        _clip_samples,
        3,
        latex=r"\min\left(\max\left(x, l\right), h\right)",
    )
)


def _comparison(name: str, doc: str, function: scalar.Primitive) -> Op:
    commutative = name in ("eq", "ne")
    return scalar_op(name, doc, function, _compare, binary(smooth=False), 2, commutative, TRUTH)


LT = define(_comparison("lt", "a < b, a truth value", scalar.lt))
LE = define(_comparison("le", "a <= b, a truth value", scalar.le))
GT = define(_comparison("gt", "a > b, a truth value", scalar.gt))
GE = define(_comparison("ge", "a >= b, a truth value", scalar.ge))
EQ = define(_comparison("eq", "a == b, a truth value; NaN equals nothing", scalar.eq))
NE = define(_comparison("ne", "a != b, a truth value; true for NaN", scalar.ne))


def _logical(name: str, doc: str, function: scalar.Primitive) -> Op:
    arity = function.arity
    rule = elementwise_rule(arity, (bool_,))
    return scalar_op(name, doc, function, rule, booleans(arity), arity, commutative=arity == 2, gradient=TRUTH)


AND = define(_logical("logical_and", "a and b, of truth values", scalar.logical_and))
OR = define(_logical("logical_or", "a or b, of truth values", scalar.logical_or))
XOR = define(_logical("logical_xor", "exactly one of a and b, truth values", scalar.ne))
NOT = define(_logical("logical_not", "not a, of truth values", scalar.logical_not))


def _infer_where(types: Sequence[TensorType], attributes: Attributes) -> tuple[TensorType, ...]:
    expect_operands(types, 3)
    if types[0].dtype != bool_:
        raise DTypeError(f"the condition has dtype {types[0].dtype}; it must be bool, such as a comparison's result")
    expect_equal_shapes(types)
    return (expect_equal(types[1:]),)


def _where_samples() -> Sequence[Sample]:
    a = np.linspace(-2, 2, 12).reshape(3, 1, 4)
    whole = np.arange(4, dtype=np.int32)
    return [
        Sample((a > 0.3, a, np.cos(a)), differentiable=(1, 2)),
        Sample((a > 0.3, a.astype(np.float32), np.full((3, 1, 4), np.nan, np.float32))),
        Sample((whole > 1, whole, -whole)),
        Sample((np.array(True), np.array(False), np.array(True))),
    ]


WHERE = define(
    scalar_op(
        "where",
        "x where c is true, else y; the operand not taken gets no gradient, not even a NaN",
        scalar.where,
        _infer_where,
        _where_samples,
        3,
    )
)


def _infer_cast(types: Sequence[TensorType], attributes: Attributes) -> tuple[TensorType, ...]:
    expect_operands(types, 1)
    expect_dtype(types[0], EVERYTHING)
    return (types[0].with_dtype(attributes["dtype"]),)


def _cast_reference(arrays: Sequence[Any], attributes: Attributes) -> tuple[Any, ...]:
    with np.errstate(all="ignore"):
        return (np.asarray(arrays[0]).astype(attributes["dtype"].numpy),)


def _cast_gradient(node: Node, cotangents: Sequence[Value | None], b: Builder) -> Sequence[Value | None]:
    source = node.inputs[0].type.dtype
    smooth = cotangents[0] is not None and source.is_float and node.type.dtype.is_float
    return [b.cast(cotangents[0], dtype=source) if smooth else None]


def _cast_samples() -> Sequence[Sample]:
    fractions = np.array([[-2.7, -0.5, 0.0], [0.5, 1.0, 200.9]])
    numbers, labels = np.arange(3, dtype=np.int32), np.array([0, 7, 255], np.uint8)
    sources = (np.abs(fractions), numbers, labels, np.array([True, False]))
    return [
        *(Sample((array,), {"dtype": dtype}) for array in sources for dtype in EVERYTHING),
        Sample((fractions,), {"dtype": f64}, differentiable=(0,)),
        Sample((fractions,), {"dtype": f32}, differentiable=(0,)),
        Sample((np.array(-2.7),), {"dtype": i32}),
    ]


CAST = define(
    Op(
        "cast",
        "Convert to another dtype; floats to integers truncate toward 0 and must fit, and to bool test for non-zero.",
        latex=r"\operatorname{cast}\left(x\right)",
        attributes={"dtype": Attribute("dtype", "the dtype of the result")},
        infer=_infer_cast,
        reference=_cast_reference,
        gradient=_cast_gradient,
        lower=lambda node: forms.map_kernel(node, Cast(forms.load(node, 0), node.type.dtype)),
        samples=_cast_samples,
    )
)
