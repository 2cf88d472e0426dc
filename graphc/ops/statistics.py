"""Reductions with a formula of their own: var, std, norm and logsumexp over axes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from graphc.errors import ShapeError
from graphc.ir.builder import Builder
from graphc.ir.dims import Dim
from graphc.ir.graph import Node, Value
from graphc.ir.op import Attribute, Attributes, Op, Sample, define
from graphc.ir.types import DType, TensorType
from graphc.kernel.expr import Apply, Cast, Const, Expr, Extent, Name
from graphc.kernel.form import Accumulate, Kernel, Let, Stage, Store
from graphc.ops import forms
from graphc.ops.reduction import AXES, reduced_axes, reduced_count, reduction_rule, spread
from graphc.ops.rules import FLOATS

_MOMENT_ATTRIBUTES = {
    **AXES,
    "correction": Attribute("int", "what the divisor is less than the count: 1 unbiased, 0 of a population", 1),
}


def _infer_moment(types: Sequence[TensorType], attributes: Attributes) -> tuple[TensorType, ...]:
    result = reduction_rule(FLOATS)(types, attributes)
    count: Dim = 1
    for axis in attributes["axes"]:
        count = count * types[0].shape[axis]
    correction = attributes["correction"]
    if correction < 0:
        raise ShapeError(f"correction={correction} is negative; it is 1 for an unbiased estimate, 0 for a population")
    if isinstance(count, int) and count <= correction:
        advice = "reduce more elements, or give correction=0"
        raise ShapeError(f"{count} elements less the correction {correction} leave no divisor; {advice}")
    return result


def _variance(arrays: Sequence[Any], attributes: Attributes) -> Any:
    x, axes, keepdims = arrays[0], tuple(attributes["axes"]), attributes["keepdims"]
    count = int(np.prod([x.shape[k] for k in axes], dtype=np.int64))
    with np.errstate(all="ignore"):
        deviation = x - np.sum(x, axis=axes, keepdims=True) / np.asarray(count, x.dtype)
        total = np.sum(deviation * deviation, axis=axes, keepdims=keepdims)
        return np.asarray(total / np.asarray(count - attributes["correction"], x.dtype))


def _divisor(count: Dim, correction: int, dtype: DType) -> Expr:
    return Cast(Extent(count - correction), dtype)


def _lower_moment(node: Node) -> Kernel:
    """Two passes: the mean, then the sum of squared deviations from it, which cancels no digits."""
    axes, dtype, count = reduced_axes(node), node.type.dtype, reduced_count(node)
    x, reduce = forms.reduce_load(node, axes, node.attributes["keepdims"]), _reduce_axes(node)
    mean = Let("mean", Apply("div", (Name("total"), _divisor(count, 0, dtype))))
    first = Stage(reduce=reduce, accumulates=(Accumulate(("total",), "sum", (x,)),), results=(mean,))
    deviation = Apply("sub", (x, Name("mean")))
    value: Expr = Apply("div", (Name("squares"), _divisor(count, node.attributes["correction"], dtype)))
    second = Stage(
        reduce=reduce,
        accumulates=(Accumulate(("squares",), "sum", (Apply("mul", (deviation, deviation)),)),),
        stores=(
            Store(
                "out0",
                forms.identity(node.type.rank),
                Apply("sqrt", (value,)) if node.op.name == "std" else value,
            ),
        ),
    )
    return Kernel(forms.kernel_name(node), forms.operands(node), forms.axes(node.type.shape), (first, second))


def _reduce_axes(node: Node) -> Any:
    return forms.axes([node.inputs[0].type.shape[k] for k in reduced_axes(node)], "r")


def _scaled_deviation(node: Node, factor: Value, scale: float, b: Builder) -> Value:
    """`factor * scale * (x - mean) / (count - correction)` with `factor` of the node's output shape."""
    (x,), dtype = node.inputs, node.type.dtype
    count = reduced_count(node) - node.attributes["correction"]
    number = b.constant(count, dtype) if isinstance(count, int) else b.cast(b.size(dim=count), dtype=dtype)
    factor = b.elementwise("mul", factor, b.elementwise("div", b.constant(scale, dtype), number))
    mean = b.mean(x, axes=reduced_axes(node), keepdims=True)
    return b.mul(spread(factor, node, b), b.elementwise("sub", x, mean))


def _var_gradient(node: Node, cotangents: Sequence[Value | None], b: Builder) -> Sequence[Value | None]:
    (g,) = cotangents
    return [None if g is None else _scaled_deviation(node, g, 2.0, b)]


def _std_gradient(node: Node, cotangents: Sequence[Value | None], b: Builder) -> Sequence[Value | None]:
    (g,) = cotangents
    return [None if g is None else _scaled_deviation(node, _over_output(node, g, b), 1.0, b)]


def _over_output(node: Node, g: Value, b: Builder) -> Value:
    """`g / y`, and 0 where the output y is 0: a subgradient there, as in PyTorch."""
    y, dtype = node.output, node.type.dtype
    zero, one = b.constant(0, dtype), b.constant(1, dtype)
    vanishes = b.elementwise("eq", y, zero)
    return b.elementwise("where", vanishes, zero, b.div(g, b.elementwise("where", vanishes, one, y)))


def _grid() -> np.ndarray:
    return np.sin(np.arange(24.0) * 1.7).reshape(2, 3, 4)


def _moment_samples() -> Sequence[Sample]:
    x = _grid()
    found = [Sample((x,), {"axes": axes}, differentiable=(0,)) for axes in ((0,), (-1,), (0, 2), (0, 1, 2))]
    return [
        *found,
        Sample((x,), {"axes": (1,), "keepdims": True, "correction": 0}, differentiable=(0,)),
        Sample((x.astype(np.float32).reshape(1, 6, 4) + 100,), {"axes": (1,)}),
        Sample((np.full((2, 3), 2.5),), {"axes": (1,), "correction": 0}),
    ]


VAR = define(
    Op(
        "var",
        "The variance over axes: the mean squared deviation, with `correction` taken from the count.",
        latex=r"\frac{1}{n - c} \sum_i \left(x_i - \bar{x}\right)^2",
        attributes=_MOMENT_ATTRIBUTES,
        infer=_infer_moment,
        reference=lambda arrays, attributes: (_variance(arrays, attributes),),
        gradient=_var_gradient,
        lower=_lower_moment,
        samples=_moment_samples,
    )
)
STD = define(
    Op(
        "std",
        "The standard deviation over axes; where it is 0 so is its gradient.",
        latex=r"\sqrt{\frac{1}{n - c} \sum_i \left(x_i - \bar{x}\right)^2}",
        attributes=_MOMENT_ATTRIBUTES,
        infer=_infer_moment,
        reference=lambda arrays, attributes: (np.sqrt(_variance(arrays, attributes)),),
        gradient=_std_gradient,
        lower=_lower_moment,
        samples=_moment_samples,
    )
)


def _norm_reference(arrays: Sequence[Any], attributes: Attributes) -> tuple[Any, ...]:
    x = arrays[0]
    with np.errstate(all="ignore"):
        return (np.sqrt(np.sum(x * x, axis=tuple(attributes["axes"]), keepdims=attributes["keepdims"])),)


def _norm_gradient(node: Node, cotangents: Sequence[Value | None], b: Builder) -> Sequence[Value | None]:
    (g,) = cotangents
    return [None if g is None else b.mul(spread(_over_output(node, g, b), node, b), node.inputs[0])]


def _lower_norm(node: Node) -> Kernel:
    axes = reduced_axes(node)
    x = forms.reduce_load(node, axes, node.attributes["keepdims"])
    root = Let("root", Apply("sqrt", (Name("squares"),)))
    return forms.reduce_kernel(node, axes, Accumulate(("squares",), "sum", (Apply("mul", (x, x)),)), (root,))


NORM = define(
    Op(
        "norm",
        "The Euclidean norm over axes; where it is 0 so is its gradient.",
        latex=r"\sqrt{\sum_i x_i^2}",
        attributes=AXES,
        infer=reduction_rule(FLOATS),
        reference=_norm_reference,
        gradient=_norm_gradient,
        lower=_lower_norm,
        samples=lambda: [
            *(Sample((_grid(),), {"axes": axes}, differentiable=(0,)) for axes in ((0,), (-1,), (0, 1, 2))),
            Sample((_grid(),), {"axes": (0, 2), "keepdims": True}, differentiable=(0,)),
            Sample((_grid().astype(np.float32),), {"axes": (1,)}),
            Sample((np.zeros((2, 3)),), {"axes": (1,)}),
        ],
    )
)


def _logsumexp_reference(arrays: Sequence[Any], attributes: Attributes) -> tuple[Any, ...]:
    x, axes = arrays[0], tuple(attributes["axes"])
    with np.errstate(all="ignore"):
        shift = np.max(x, axis=axes, keepdims=True)
        shift = np.where(np.isfinite(shift), shift, np.zeros_like(shift))  # exp handles infinite maxima itself
        total = np.log(np.sum(np.exp(x - shift), axis=axes, keepdims=True)) + shift
    return (total if attributes["keepdims"] else np.squeeze(total, axes),)


def _logsumexp_gradient(node: Node, cotangents: Sequence[Value | None], b: Builder) -> Sequence[Value | None]:
    """The softmax exp(x - y) times the cotangent."""
    (g,), (x,) = cotangents, node.inputs
    if g is None:
        return [None]
    return [b.mul(spread(g, node, b), b.exp(b.sub(x, spread(node.output, node, b))))]


def _lower_logsumexp(node: Node) -> Kernel:
    axes, dtype = reduced_axes(node), node.type.dtype
    x = forms.reduce_load(node, axes, node.attributes["keepdims"])
    value = Let("log_total", Apply("add", (Name("m"), Apply("log", (Name("s"),)))))
    return forms.reduce_kernel(node, axes, Accumulate(("m", "s"), "logsumexp", (x, Const(1.0, dtype))), (value,))


LOGSUMEXP = define(
    Op(
        "logsumexp",
        "The logarithm of the sum of exponentials over axes, without overflow.",
        latex=r"\log \sum_i e^{x_i}",
        attributes=AXES,
        infer=reduction_rule(FLOATS, needs_elements=True),
        reference=_logsumexp_reference,
        gradient=_logsumexp_gradient,
        lower=_lower_logsumexp,
        samples=lambda: [
            *(Sample((_grid(),), {"axes": axes}, differentiable=(0,)) for axes in ((0,), (-1,), (0, 2), (0, 1, 2))),
            Sample((_grid(),), {"axes": (1,), "keepdims": True}, differentiable=(0,)),
            Sample(((100 * _grid()).astype(np.float32),), {"axes": (1,)}),
            Sample((1e4 * _grid(),), {"axes": (0, 1)}),
            Sample((np.array([[-np.inf, -np.inf], [np.inf, 0.0], [-np.inf, 1.0]]),), {"axes": (1,)}),
        ],
    )
)
