"""Positions of elements in sorted order, from which sort, argsort and topk are made.

A position is a count of the elements that come before, over all elements of the axis: n results take n^2 steps, all of
them independent, so that they have vector lanes along any axis. For axes of up to some thousands that is no drawback.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from graphc.ir.graph import Node
from graphc.ir.op import Attribute, Attributes, NotDifferentiable, Op, Sample, define
from graphc.ir.types import TensorType, i64
from graphc.kernel.expr import Apply, AxisIndex, Const, Expr
from graphc.kernel.form import Kernel
from graphc.ops import forms
from graphc.ops.rules import ORDERED, expect_dtype, expect_operands, normalise_axis

_AXIS = Attribute("int", "the axis; a negative one counts from the back")


def _axis(node: Node) -> int:
    return normalise_axis(node.attributes["axis"], node.inputs[0].type.rank)


def _infer_ranks(types: Sequence[TensorType], attributes: Attributes) -> tuple[TensorType, ...]:
    expect_operands(types, 1)
    expect_dtype(types[0], ORDERED)
    normalise_axis(attributes["axis"], types[0].rank)
    return (types[0].with_dtype(i64),)


def _stable_order(x: Any, axis: int, descending: bool) -> Any:
    """Indices that sort; equal elements keep their order, and a NaN is the greatest."""
    if not descending:
        return np.argsort(x, axis=axis, kind="stable")
    last = x.shape[axis] - 1
    return np.flip(last - np.argsort(np.flip(x, axis), axis=axis, kind="stable"), axis)


def _ranks_reference(arrays: Sequence[Any], attributes: Attributes) -> tuple[Any, ...]:
    order = _stable_order(arrays[0], attributes["axis"], attributes["descending"])
    return (np.argsort(order, axis=attributes["axis"], kind="stable").astype(np.int64),)


def _less(a: Expr, b: Expr) -> Expr:
    """a < b, where a NaN is greater than every number (`x != x` is the test for it, for integers too)."""
    number_before_nan = Apply("and", (Apply("ne", (b, b)), Apply("eq", (a, a))))
    return Apply("or", (Apply("lt", (a, b)), number_before_nan))


def _lower_ranks(node: Node) -> Kernel:
    """An element's position is the number of elements before it: those less, and equal ones with a smaller index."""
    axis = _axis(node)
    own, other = forms.load(node, 0), forms.along(node, axis)
    before, after = _less(other, own), _less(own, other)
    if node.attributes["descending"]:
        before, after = after, before
    earlier = Apply("lt", (AxisIndex("r0"), AxisIndex(f"i{axis}")))
    counts = Apply("or", (before, Apply("and", (earlier, Apply("not", (after,))))))
    return forms.along_kernel(node, axis, "sum", Apply("where", (counts, Const(1, i64), Const(0, i64))))


def _ranks_samples() -> Sequence[Sample]:
    x = np.sin(np.arange(24.0) * 1.7).reshape(2, 3, 4)
    ties = np.array([[2.0, 1.0, 2.0, np.nan, 1.0, np.inf], [np.nan, -np.inf, 0.0, -0.0, np.nan, 0.0]])
    found = [Sample((x,), {"axis": axis}) for axis in (0, 1, -1)]
    return [
        *found,
        *(Sample((ties,), {"axis": 1, "descending": turned}) for turned in (False, True)),
        Sample((x.astype(np.float32).reshape(24),), {"axis": 0}),
        Sample((np.array([3, 1, 3, 1, 2], np.int32),), {"axis": 0, "descending": True}),
        Sample((np.array([3, 1, 3, 1, 2], np.uint8),), {"axis": 0}),
    ]


RANKS = define(
    Op(
        "ranks",
        "Each element's position in sorted order along an axis, stable, a NaN the greatest; n elements take n^2 steps.",
        latex=r"y_i = \left|\left\{j : x_j \prec x_i\right\}\right|",
        attributes={"axis": _AXIS, "descending": Attribute("bool", "the greatest element comes first", False)},
        infer=_infer_ranks,
        reference=_ranks_reference,
        gradient=NotDifferentiable("its result is a position; sort and topk have gradients"),
        lower=_lower_ranks,
        samples=_ranks_samples,
    )
)


def _infer_inverse(types: Sequence[TensorType], attributes: Attributes) -> tuple[TensorType, ...]:
    expect_operands(types, 1)
    expect_dtype(types[0], (i64,))
    axis = normalise_axis(attributes["axis"], types[0].rank)
    return (TensorType(i64, tuple(attributes["size"] if k == axis else d for k, d in enumerate(types[0].shape))),)


def _inverse_reference(arrays: Sequence[Any], attributes: Attributes) -> tuple[Any, ...]:
    order = np.argsort(arrays[0], axis=attributes["axis"], kind="stable")
    return (np.take(order, np.arange(attributes["size"]), axis=attributes["axis"]),)


def _lower_inverse(node: Node) -> Kernel:
    axis = _axis(node)
    here = Apply("eq", (forms.along(node, axis), AxisIndex(f"i{axis}")))
    return forms.along_kernel(node, axis, "sum", Apply("where", (here, AxisIndex("r0"), Const(0, i64))))


def _inverse_samples() -> Sequence[Sample]:
    rows = np.array([[2, 0, 1, 3], [3, 2, 1, 0], [1, 2, 3, 0]])
    return [
        Sample((rows,), {"axis": 1, "size": 4}),
        Sample((rows.T.copy(),), {"axis": 0, "size": 2}),
        Sample((np.arange(17)[::-1].copy(),), {"axis": -1, "size": 17}),
        Sample((np.array([[1], [0]]),), {"axis": 0, "size": 2}),
    ]


INVERSE_PERMUTATION = define(
    Op(
        "inverse_permutation",
        "For permutations of 0 .. n-1 along an axis, the index of the numbers below `size`; it takes n * size steps.",
        latex=r"y_{p_i} = i",
        attributes={"axis": _AXIS, "size": Attribute("dim", "how many numbers, from 0 on")},
        infer=_infer_inverse,
        reference=_inverse_reference,
        gradient=NotDifferentiable("its result is an index"),
        lower=_lower_inverse,
        samples=_inverse_samples,
    )
)
