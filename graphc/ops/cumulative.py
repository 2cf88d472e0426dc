"""Running sums and products along an axis.

Each is a reduction over all elements of the axis that keeps those that count: n results take n^2 steps, all of them
independent, so that they have vector lanes along any axis. For axes of up to some thousands that is no drawback.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from graphc.ir.builder import Builder
from graphc.ir.graph import Node, Value
from graphc.ir.op import Attribute, Attributes, Op, Sample, define
from graphc.ir.types import TensorType
from graphc.kernel.expr import Apply, AxisIndex, Const
from graphc.kernel.form import Kernel
from graphc.ops import forms
from graphc.ops.rules import NUMBERS, expect_dtype, expect_operands, normalise_axis

_AXIS = Attribute("int", "the axis; a negative one counts from the back")
_RUNNING = {"axis": _AXIS, "reverse": Attribute("bool", "run from the last element to the first", False)}


def _infer_running(types: Sequence[TensorType], attributes: Attributes) -> tuple[TensorType, ...]:
    expect_operands(types, 1)
    expect_dtype(types[0], NUMBERS)
    normalise_axis(attributes["axis"], types[0].rank)
    return (types[0],)


def _axis(node: Node) -> int:
    return normalise_axis(node.attributes["axis"], node.inputs[0].type.rank)


def _lower_running(combiner: str, neutral: int) -> Callable[[Node], Kernel]:
    def lower(node: Node) -> Kernel:
        axis, comparison = _axis(node), "ge" if node.attributes["reverse"] else "le"
        counts = Apply(comparison, (AxisIndex("r0"), AxisIndex(f"i{axis}")))
        value = Apply("where", (counts, forms.along(node, axis), Const(neutral, node.type.dtype)))
        return forms.along_kernel(node, axis, combiner, value)

    return lower


def _running_reference(function: Callable[..., Any]) -> Callable[..., tuple[Any, ...]]:
    def reference(arrays: Sequence[Any], attributes: Attributes) -> tuple[Any, ...]:
        x, axis = arrays[0], attributes["axis"]
        turned = np.flip(x, axis) if attributes["reverse"] else x
        with np.errstate(all="ignore"):
            total = function(turned, axis=axis, dtype=x.dtype)
        return (np.flip(total, axis) if attributes["reverse"] else total,)

    return reference


def _cumsum_gradient(node: Node, cotangents: Sequence[Value | None], b: Builder) -> Sequence[Value | None]:
    (g,) = cotangents
    return [None if g is None else b.cumsum(g, axis=node.attributes["axis"], reverse=not node.attributes["reverse"])]


def _cumprod_gradient(node: Node, cotangents: Sequence[Value | None], b: Builder) -> Sequence[Value | None]:
    """dx_k = sum over i of g_i times the running product without factor k, for results i that hold the factor k.

    That is right at zeros, where `y / x` is not.
    """
    (g,), (x,), axis = cotangents, node.inputs, _axis(node)
    if g is None:
        return [None]
    rank, count, dtype = x.type.rank, x.type.shape[axis], x.type.dtype
    order = (*(k for k in range(rank) if k != axis), axis)
    rows = tuple(x.type.shape[k] for k in order[:-1])
    index = b.iota(size=count)
    k, i = b.reshape(index, shape=(count, 1)), b.reshape(index, shape=(1, count))
    factors = b.reshape(b.transpose(x, permutation=order), shape=(*rows, 1, count))
    without = b.elementwise("where", b.elementwise("eq", k, i), b.constant(1, dtype), factors)
    products = b.cumprod(without, axis=rank, reverse=node.attributes["reverse"])
    held = b.elementwise("le" if node.attributes["reverse"] else "ge", i, k)
    weight = b.reshape(b.transpose(g, permutation=order), shape=(*rows, 1, count))
    parts = b.elementwise("where", held, b.elementwise("mul", weight, products), b.constant(0, dtype))
    return [b.transpose(b.sum(parts, axes=(rank,)), permutation=tuple(order.index(a) for a in range(rank)))]


def _running_samples() -> Sequence[Sample]:
    x = np.sin(np.arange(24.0) * 1.7).reshape(2, 3, 4) + 0.2
    zeros = np.array([[2.0, 0.0, 1.5], [0.0, 3.0, 0.0]])
    found = [Sample((x,), {"axis": axis, "reverse": axis == 1}, differentiable=(0,)) for axis in (0, 1, -1)]
    return [
        *found,
        Sample((zeros,), {"axis": 1}, differentiable=(0,)),
        Sample((zeros,), {"axis": 1, "reverse": True}, differentiable=(0,)),
        Sample((x.astype(np.float32).reshape(24),), {"axis": 0}),
        Sample((np.arange(-3, 3, dtype=np.int32).reshape(2, 3),), {"axis": 1}),
        Sample((np.arange(6, dtype=np.int64).reshape(2, 3),), {"axis": 0, "reverse": True}),
    ]


CUMSUM = define(
    Op(
        "cumsum",
        "The running sum along an axis, in the operand's dtype; n elements take n^2 steps.",
        latex=r"y_i = \sum_{j \le i} x_j",
        attributes=_RUNNING,
        infer=_infer_running,
        reference=_running_reference(np.cumsum),
        gradient=_cumsum_gradient,
        lower=_lower_running("sum", 0),
        samples=_running_samples,
    )
)
CUMPROD = define(
    Op(
        "cumprod",
        "The running product along an axis; n elements take n^2 steps, and their gradient n^3.",
        latex=r"y_i = \prod_{j \le i} x_j",
        attributes=_RUNNING,
        infer=_infer_running,
        reference=_running_reference(np.cumprod),
        gradient=_cumprod_gradient,
        lower=_lower_running("prod", 1),
        samples=_running_samples,
    )
)
