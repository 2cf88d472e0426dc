"""Elementwise ops defined by one scalar expression, and their samples: what the families of such ops share."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from graphc.ir.builder import Builder
from graphc.ir.graph import Node, Value
from graphc.ir.op import OPS, Attribute, Attributes, Infer, NotDifferentiable, Op, Sample
from graphc.ir.types import bool_
from graphc.kernel.form import Kernel
from graphc.ops import forms, scalar, tape
from graphc.ops.rules import FLOATS, NUMBERS, elementwise_rule

Samples = Callable[[], Sequence[Sample]]

FLOAT1, NUMBER1 = elementwise_rule(1, FLOATS), elementwise_rule(1, NUMBERS)
FLOAT2, NUMBER2 = elementwise_rule(2, FLOATS), elementwise_rule(2, NUMBERS)
TRUTH = NotDifferentiable("its result is a truth value")


def scalar_op(
    name: str,
    doc: str,
    function: scalar.Scalar,
    infer: Infer,
    samples: Samples,
    arity: int = 1,
    commutative: bool = False,
    gradient: NotDifferentiable | None = None,
    attributes: Mapping[str, Attribute] | None = None,
    latex: str = "",
) -> Op:
    """The op of a scalar function: reference, gradient, kernel and LaTeX are printed from its SymPy expression.

    `function` takes the operands, and the op's attributes as keywords, which have defaults in both places.
    """

    def reference(arrays: Sequence[Any], given: Attributes) -> tuple[Any, ...]:
        recorded = tape.find(OPS.get(name), given, "value")
        if recorded is not None:
            value = _replayed(recorded, arrays)
        else:
            expression = scalar.expression(scalar.bound(function, given), len(arrays))
            value = scalar.numpy_value(expression, scalar.operand_symbols(len(arrays)), arrays)
        return (value if value.shape else np.full(arrays[0].shape, value),)  # a constant function reads nothing

    def differentiate(node: Node, cotangents: Sequence[Value | None], builder: Builder) -> Sequence[Value | None]:
        (cotangent,) = cotangents
        if cotangent is None:
            return [None] * len(node.inputs)
        return scalar.gradient_nodes(node, scalar.bound(function, node.attributes), cotangent, builder)

    def lower(node: Node) -> Kernel:
        return lower_scalar(node, scalar.bound(function, node.attributes))

    return Op(
        name,
        doc,
        latex=latex or (lambda: scalar.latex(scalar.expression(function, arity))),
        infer=infer,
        reference=reference,
        gradient=gradient or differentiate,
        lower=lower,
        samples=samples,
        scalar=function,
        commutative=commutative,
        attributes=attributes or {},
    )


def _replayed(recorded: str, arrays: Sequence[Any]) -> Any:
    known = dict(zip(scalar.operand_names(len(arrays)), arrays, strict=True))
    with np.errstate(all="ignore"):
        return np.asarray(tape.replay(recorded, scalar.numpy_target(arrays), known))


def lower_scalar(node: Node, function: scalar.Scalar) -> Kernel:
    """The map of a scalar function of all operands of a node."""
    arity = len(node.inputs)
    loads = [forms.load(node, k) for k in range(arity)]
    target = scalar.KernelTarget(node.inputs[-1].type.dtype)
    recorded = scalar.recorded_for(node, function, "kernel")
    if recorded is not None:
        value = tape.replay(recorded, target, dict(zip(scalar.operand_names(arity), loads, strict=True)))
    else:
        known = dict(zip(scalar.operand_symbols(arity), loads, strict=True))
        value = scalar.fold_shared(scalar.expression(function, arity), target, known)
    return forms.map_kernel(node, value, tuple(target.lets))


def unary(
    low: float = -2.0,
    high: float = 2.0,
    kinks: Sequence[float] = (),
    integers: bool = False,
    settings: Sequence[Mapping[str, Any]] = ({},),
) -> Samples:
    """Smooth samples between `low` and `high` (f64, f32, a scalar, size-1 axes), and kinks, without slopes.

    `settings` are the attributes to sample with; the first ones serve all samples.
    """

    def samples() -> Sequence[Sample]:
        smooth = np.linspace(low, high, 12).reshape(3, 4) + 0.01
        first, *others = settings
        found = [
            Sample((smooth,), first, differentiable=(0,)),
            Sample((smooth.astype(np.float32).reshape(2, 1, 6),), first),
            Sample((np.array(0.5 * (low + high) + 0.3),), first, differentiable=(0,)),
            *(Sample((smooth,), other, differentiable=(0,)) for other in others),
        ]
        found += [Sample((np.array(kinks),), setting) for setting in settings] if kinks else []
        return found + ([Sample((np.arange(-3, 3, dtype=t),), first) for t in (np.int32, np.int64)] if integers else [])

    return samples


def binary(positive_divisor: bool = False, integers: bool = True, smooth: bool = True) -> Samples:
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


def booleans(arity: int) -> Samples:
    rows = np.array([[False, False, True, True], [False, True, False, True]])
    return lambda: [Sample(tuple(rows[:arity])), Sample(tuple(r.reshape(2, 1, 2) for r in rows[:arity]))]


def float_function(name: str, doc: str, function: scalar.Scalar, low: float = -2.0, high: float = 2.0) -> Op:
    """The op of a smooth function of floats, sampled between `low` and `high`."""
    return scalar_op(name, doc, function, FLOAT1, unary(low, high))


def classification(name: str, doc: str, function: scalar.Scalar) -> Op:
    """The op of a truth value of one float."""
    numbers = np.array([[-np.inf, -1.5, -0.0], [0.0, np.nan, np.inf]])
    samples = [Sample((numbers,)), Sample((numbers.astype(np.float32).reshape(3, 1, 2),)), Sample((np.array(np.nan),))]
    return scalar_op(name, doc, function, elementwise_rule(1, FLOATS, bool_), lambda: samples, gradient=TRUTH)
