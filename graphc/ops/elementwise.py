"""Elementwise ops: each is one scalar expression, from which its reference, kernel, gradient and LaTeX are printed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from graphc.errors import DTypeError
from graphc.ir.builder import Builder
from graphc.ir.graph import Node, Value
from graphc.ir.op import Attribute, Attributes, Infer, NotDifferentiable, Op, Sample, define
from graphc.ir.types import TensorType, bool_, f32, f64, i32
from graphc.kernel.expr import Cast
from graphc.kernel.form import Kernel
from graphc.ops import forms, scalar
from graphc.ops.rules import (
    EVERYTHING,
    FLOATS,
    NUMBERS,
    ORDERED,
    elementwise_rule,
    expect_dtype,
    expect_equal,
    expect_equal_shapes,
    expect_operands,
)

Samples = Callable[[], Sequence[Sample]]


def scalar_op(
    name: str,
    doc: str,
    function: scalar.Scalar,
    infer: Infer,
    samples: Samples,
    arity: int = 1,
    commutative: bool = False,
    gradient: NotDifferentiable | None = None,
) -> Op:
    """The op of a scalar function: reference, gradient, kernel and LaTeX are printed from its SymPy expression."""

    def reference(arrays: Sequence[Any], attributes: Attributes) -> tuple[Any, ...]:
        return (scalar.numpy_value(scalar.expression(function, arity), scalar.operand_symbols(arity), arrays),)

    def differentiate(node: Node, cotangents: Sequence[Value | None], builder: Builder) -> Sequence[Value | None]:
        (cotangent,) = cotangents
        return [None] * arity if cotangent is None else scalar.gradient_nodes(node, function, cotangent, builder)

    def lower(node: Node) -> Kernel:
        loads = [forms.load(node, k) for k in range(arity)]
        known = dict(zip(scalar.operand_symbols(arity), loads, strict=True))
        lets, (value,) = scalar.kernel_value([scalar.expression(function, arity)], known, node.inputs[-1].type.dtype)
        return forms.map_kernel(node, value, lets)

    return Op(
        name,
        doc,
        latex=lambda: scalar.latex(scalar.expression(function, arity)),
        infer=infer,
        reference=reference,
        gradient=gradient or differentiate,
        lower=lower,
        samples=samples,
        scalar=function,
        commutative=commutative,
    )


def _unary(low: float = -2.0, high: float = 2.0, kinks: Sequence[float] = (), integers: bool = False) -> Samples:
    """Smooth samples between `low` and `high` (f64, f32, a scalar, size-1 axes), and kinks, without slopes."""

    def samples() -> Sequence[Sample]:
        smooth = np.linspace(low, high, 12).reshape(3, 4) + 0.01
        found = [
            Sample((smooth,), differentiable=(0,)),
            Sample((smooth.astype(np.float32).reshape(2, 1, 6),)),
            Sample((np.array(0.5 * (low + high) + 0.3),), differentiable=(0,)),
        ]
        found += [Sample((np.array(kinks),))] if kinks else []
        return found + ([Sample((np.arange(-3, 3, dtype=t),)) for t in (np.int32, np.int64)] if integers else [])

    return samples


def _binary(positive_divisor: bool = False, integers: bool = True, smooth: bool = True) -> Samples:
    """Two operands: f64, f32, size-1 axes, scalars, ties, and integers where they are legal."""

    def samples() -> Sequence[Sample]:
        a = np.linspace(-2, 2, 12).reshape(3, 4)
        b = np.linspace(0.7, 1.6, 12).reshape(3, 4) if positive_divisor else np.sin(7 * a + 0.4)
        both = (0, 1) if smooth else ()
        ties = (np.array([[1.0], [-2.0], [0.5]]), np.array([[1.0], [2.0], [0.5]]))
        found = [
            Sample((a, b), differentiable=both),
            Sample((a.astype(np.float32), b.astype(np.float32))),
            Sample((np.array(1.5), np.array(-0.25)), differentiable=both),
            Sample(ties),
        ]
        counts = [(np.arange(6, dtype=t), np.array([3, -1, 2, 2, 4, -7], t)) for t in (np.int32, np.int64)]
        return found + ([Sample(c) for c in counts] if integers else [])

    return samples


def _booleans(arity: int) -> Samples:
    rows = np.array([[False, False, True, True], [False, True, False, True]])
    return lambda: [Sample(tuple(rows[:arity])), Sample(tuple(r.reshape(2, 1, 2) for r in rows[:arity]))]


_float1, _number1 = elementwise_rule(1, FLOATS), elementwise_rule(1, NUMBERS)
_float2, _number2 = elementwise_rule(2, FLOATS), elementwise_rule(2, NUMBERS)
_compare = elementwise_rule(2, ORDERED, bool_)

ADD = define(scalar_op("add", "a + b", lambda a, b: a + b, _number2, _binary(), 2, commutative=True))
SUB = define(scalar_op("sub", "a - b", lambda a, b: a - b, _number2, _binary(), 2))
MUL = define(scalar_op("mul", "a * b", lambda a, b: a * b, _number2, _binary(), 2, commutative=True))
DIV = define(scalar_op("div", "a / b, floats only", scalar.div, _float2, _binary(True, integers=False), 2))
NEG = define(scalar_op("neg", "-x", lambda x: -x, _number1, _unary(kinks=(0.0, np.inf, np.nan), integers=True)))

MAXIMUM = define(
    scalar_op(
        "maximum",
        "The greater of a and b; NaN wins. At a tie each operand gets half of the gradient.",
        scalar.maximum,
        _number2,
        _binary(),
        2,
        commutative=True,
    )
)
MINIMUM = define(
    scalar_op(
        "minimum",
        "The lesser of a and b; NaN wins. At a tie each operand gets half of the gradient.",
        scalar.minimum,
        _number2,
        _binary(),
        2,
        commutative=True,
    )
)


def _float_function(name: str, doc: str, function: scalar.Primitive, low: float = -2.0, high: float = 2.0) -> Op:
    """The op of a smooth primitive of floats, sampled between `low` and `high`."""
    return scalar_op(name, doc, function, _float1, _unary(low, high))


EXP = define(_float_function("exp", "The exponential e^x", scalar.exp))
LOG = define(_float_function("log", "The natural logarithm; -inf at 0, NaN below", scalar.log, 0.2, 3.0))
LOG1P = define(_float_function("log1p", "log(1 + x), accurate near 0", scalar.log1p, -0.7, 2.0))
EXPM1 = define(_float_function("expm1", "exp(x) - 1, accurate near 0", scalar.expm1))
SQRT = define(_float_function("sqrt", "The square root; NaN below 0", scalar.sqrt, 0.2, 4.0))
TANH = define(_float_function("tanh", "The hyperbolic tangent", scalar.tanh))
SIGMOID = define(_float_function("sigmoid", "The logistic function 1 / (1 + exp(-x))", scalar.sigmoid, -4.0, 4.0))
SOFTPLUS = define(_float_function("softplus", "log(1 + exp(x)), without overflow", scalar.softplus, -4.0, 4.0))

_kinked = _unary(kinks=(-0.0, 0.0, np.inf, np.nan), integers=True)
RELU = define(scalar_op("relu", "max(x, 0); its derivative at 0 is 0", scalar.relu, _number1, _kinked))
ABS = define(scalar_op("abs", "The absolute value; its derivative at 0 is 0", scalar.abs, _number1, _kinked))
SIGN = define(scalar_op("sign", "-1, 0 or 1; its derivative is 0 everywhere", scalar.sign, _number1, _kinked))

_TRUTH = NotDifferentiable("its result is a truth value")


def _comparison(name: str, doc: str, function: scalar.Primitive) -> Op:
    commutative = name in ("eq", "ne")
    return scalar_op(name, doc, function, _compare, _binary(smooth=False), 2, commutative, _TRUTH)


LT = define(_comparison("lt", "a < b, a truth value", scalar.lt))
LE = define(_comparison("le", "a <= b, a truth value", scalar.le))
GT = define(_comparison("gt", "a > b, a truth value", scalar.gt))
GE = define(_comparison("ge", "a >= b, a truth value", scalar.ge))
EQ = define(_comparison("eq", "a == b, a truth value; NaN equals nothing", scalar.eq))
NE = define(_comparison("ne", "a != b, a truth value; true for NaN", scalar.ne))


def _logical(name: str, doc: str, function: scalar.Primitive) -> Op:
    arity = function.arity
    rule = elementwise_rule(arity, (bool_,))
    return scalar_op(name, doc, function, rule, _booleans(arity), arity, commutative=arity == 2, gradient=_TRUTH)


AND = define(_logical("logical_and", "a and b, of truth values", scalar.logical_and))
OR = define(_logical("logical_or", "a or b, of truth values", scalar.logical_or))
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
        "Convert to another dtype; floats to integers truncate toward 0, and to bool test for non-zero.",
        latex=r"\operatorname{cast}\left(x\right)",
        attributes={"dtype": Attribute("dtype", "the dtype of the result")},
        infer=_infer_cast,
        reference=_cast_reference,
        gradient=_cast_gradient,
        lower=lambda node: forms.map_kernel(node, Cast(forms.load(node, 0), node.type.dtype)),
        samples=_cast_samples,
    )
)
