"""Reductions over axes: sum, mean, prod, max, min, argmax, argmin, any, all."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from graphc.errors import AttributeValueError, ShapeError
from graphc.ir.builder import Builder
from graphc.ir.dims import Dim, product
from graphc.ir.graph import Node, Value
from graphc.ir.op import Attribute, Attributes, Infer, NotDifferentiable, Op, Sample, define
from graphc.ir.types import DType, TensorType, bool_, i32, i64
from graphc.kernel.expr import Apply, AxisIndex, Cast, Const, Expr, Extent, Name
from graphc.kernel.form import Accumulate, Kernel, Let
from graphc.ops import forms
from graphc.ops.rules import FLOATS, NUMBERS, ORDERED, expect_dtype, expect_operands, normalise_axes, normalise_axis

TIES = ("even", "first")

AXES = {
    "axes": Attribute("ints", "the axes that are reduced; negative ones count from the back"),
    "keepdims": Attribute("bool", "keep the reduced axes, with size 1", False),
}
_TIES = {"ties": Attribute("str", "who gets the gradient of equal elements: 'even' (shared) or 'first'", "even")}


def reduced_axes(node: Node) -> tuple[int, ...]:
    """The axes that a node with the attribute `axes` reduces, counted from the front and sorted."""
    return normalise_axes(node.attributes["axes"], node.inputs[0].type.rank)


def _kept_shape(shape: Sequence[Dim], axes: Sequence[int]) -> tuple[Dim, ...]:
    return tuple(1 if k in axes else dim for k, dim in enumerate(shape))


def reduction_rule(allowed: Sequence[DType], needs_elements: bool = False) -> Infer:
    """The rule of a reduction over `axes` that keeps the dtype, which is one of `allowed`."""

    def infer(types: Sequence[TensorType], attributes: Attributes) -> tuple[TensorType, ...]:
        expect_operands(types, 1)
        expect_dtype(types[0], allowed)
        shape = types[0].shape
        axes = normalise_axes(attributes["axes"], len(shape))
        if needs_elements and any(shape[k] == 0 for k in axes):
            raise ShapeError("an axis of size 0 has no greatest or least element; reduce only axes that have elements")
        if "ties" in attributes:
            _check_ties(attributes["ties"], axes)
        kept = _kept_shape(shape, axes)
        left = kept if attributes["keepdims"] else tuple(d for k, d in enumerate(shape) if k not in axes)
        return (TensorType(types[0].dtype, left),)

    return infer


def _check_ties(ties: str, axes: Sequence[int]) -> None:
    if ties not in TIES:
        raise AttributeValueError(f"ties={ties!r} is not one of {TIES}")
    if ties == "first" and len(axes) != 1:
        raise AttributeValueError(f"ties='first' picks an index along one axis, not {tuple(axes)}; use ties='even'")


def _reference(function: Callable[..., Any], **options: Any) -> Callable[..., tuple[Any, ...]]:
    def reference(arrays: Sequence[Any], attributes: Attributes) -> tuple[Any, ...]:
        x = np.asarray(arrays[0])
        keep = {name: x.dtype for name in options}
        with np.errstate(all="ignore"):
            return (np.asarray(function(x, axis=tuple(attributes["axes"]), keepdims=attributes["keepdims"], **keep)),)

    return reference


def _extremum_reference(function: Callable[..., Any], greatest: bool) -> Callable[..., tuple[Any, ...]]:
    """Of no elements (a runtime axis may be empty) it is the least number for `max`, the greatest for `min`."""

    def reference(arrays: Sequence[Any], attributes: Attributes) -> tuple[Any, ...]:
        x = np.asarray(arrays[0])
        limits = (-np.inf, np.inf) if x.dtype.kind == "f" else (np.iinfo(x.dtype).min, np.iinfo(x.dtype).max)
        options = {"axis": tuple(attributes["axes"]), "keepdims": attributes["keepdims"]}
        with np.errstate(all="ignore"):
            found = function(x, **options, initial=limits[not greatest])
        return (np.asarray(found),)

    return reference


def spread(value: Value, node: Node, b: Builder) -> Value:
    """A value of the node's output shape, broadcast over the reduced axes of the operand."""
    shape = node.inputs[0].type.shape
    kept = _kept_shape(shape, reduced_axes(node))
    return b.broadcast(value if value.type.shape == kept else b.reshape(value, shape=kept), shape)


def reduced_count(node: Node) -> Dim:
    """The number of elements that are reduced to one."""
    return product(node.inputs[0].type.shape[k] for k in reduced_axes(node))


def _sum_gradient(node: Node, cotangents: Sequence[Value | None], b: Builder) -> Sequence[Value | None]:
    return [None if cotangents[0] is None else spread(cotangents[0], node, b)]


def _mean_gradient(node: Node, cotangents: Sequence[Value | None], b: Builder) -> Sequence[Value | None]:
    (g,), count, dtype = cotangents, reduced_count(node), node.type.dtype
    if g is None:
        return [None]
    number = b.constant(count, dtype) if isinstance(count, int) else b.cast(b.size(dim=count), dtype=dtype)
    return [spread(b.elementwise("div", g, number), node, b)]


def _extremum_gradient(node: Node, cotangents: Sequence[Value | None], b: Builder) -> Sequence[Value | None]:
    """The gradient goes to the extreme elements: shared evenly, or all to the first of them (`ties`)."""
    (g,), (x,), axes = cotangents, node.inputs, reduced_axes(node)
    if g is None:
        return [None]
    if node.attributes["ties"] == "first":
        zero = b.constant(0, x.type.dtype)
        return [b.elementwise("where", _first(node, axes[0], b), spread(g, node, b), zero)]
    chosen = b.cast(b.eq(x, spread(node.output, node, b)), dtype=x.type.dtype)
    ties = b.sum(chosen, axes=axes, keepdims=node.attributes["keepdims"])
    return [b.mul(chosen, spread(b.div(g, ties), node, b))]  # where NaN won there are no ties, and all is NaN: 0 * inf


def _first(node: Node, axis: int, b: Builder) -> Value:
    """Truth values: true at the first extreme element along the axis."""
    (x,), rank = node.inputs, node.inputs[0].type.rank
    index = b.argmax(x, axis=axis) if node.op.name == "max" else b.argmin(x, axis=axis)
    marks = b.one_hot(index, depth=x.type.shape[axis], dtype=bool_)
    order = [k for k in range(rank) if k != axis]
    back = tuple(order.index(k) if k != axis else rank - 1 for k in range(rank))
    return marks if back == tuple(range(rank)) else b.transpose(marks, permutation=back)


def _lower(combiner: str, mean: bool = False) -> Callable[[Node], Kernel]:
    def lower(node: Node) -> Kernel:
        axes, dtype = reduced_axes(node), node.type.dtype
        accumulate = Accumulate(("acc",), combiner, (forms.reduce_load(node, axes, node.attributes["keepdims"]),))
        count: Expr = Cast(Extent(reduced_count(node)), dtype)
        results = (Let("mean", Apply("div", (Name("acc"), count))),) if mean else ()
        return forms.reduce_kernel(node, axes, accumulate, results)

    return lower


def _samples(integers: bool, ties: bool) -> Callable[[], Sequence[Sample]]:
    def samples() -> Sequence[Sample]:
        x = np.sin(np.arange(24.0) * 1.7).reshape(2, 3, 4)
        choices = [(0,), (1,), (-1,), (0, 2), (-2, -1), (0, 1, 2), ()]
        found = [Sample((x,), {"axes": axes}, differentiable=(0,)) for axes in choices]
        found += [Sample((x,), {"axes": axes, "keepdims": True}, differentiable=(0,)) for axes in ((1,), (0, -1))]
        found.append(Sample((x.astype(np.float32).reshape(1, 6, 4),), {"axes": (0,)}))
        found.append(Sample((np.array(2.5),), {"axes": ()}))
        if integers:
            found += [Sample((np.arange(-3, 3, dtype=t).reshape(2, 3),), {"axes": (1,)}) for t in (np.int32, np.int64)]
        if ties:
            even = np.array([[2.0, 2.0, 1.0, 2.0], [-1.0, -3.0, -3.0, -1.0]])
            found += [Sample((even,), {"axes": (1,), "ties": how}) for how in TIES]
            found += [Sample((x,), {"axes": (k,), "keepdims": k == 1, "ties": "first"}, (0,)) for k in (0, 1, -1)]
        return found

    return samples


SUM = define(
    Op(
        "sum",
        "The sum over axes, in the operand's dtype.",
        latex=r"\sum_i x_i",
        attributes=AXES,
        infer=reduction_rule(NUMBERS),
        reference=_reference(np.sum, dtype=True),
        gradient=_sum_gradient,
        lower=_lower("sum"),
        samples=_samples(integers=True, ties=False),
    )
)
MEAN = define(
    Op(
        "mean",
        "The arithmetic mean over axes, floats only.",
        latex=r"\frac{1}{n} \sum_i x_i",
        attributes=AXES,
        infer=reduction_rule(FLOATS),
        reference=_reference(np.mean, dtype=True),
        gradient=_mean_gradient,
        lower=_lower("sum", mean=True),
        samples=_samples(integers=False, ties=False),
    )
)
MAX = define(
    Op(
        "max",
        "The greatest element over axes; NaN wins. Equal ones share the gradient, or the first one has it (`ties`).",
        latex=r"\max_i x_i",
        attributes=AXES | _TIES,
        infer=reduction_rule(ORDERED, needs_elements=True),
        reference=_extremum_reference(np.max, greatest=True),
        gradient=_extremum_gradient,
        lower=_lower("max"),
        samples=_samples(integers=True, ties=True),
    )
)
MIN = define(
    Op(
        "min",
        "The least element over axes; NaN wins. Equal ones share the gradient, or the first one has it (`ties`).",
        latex=r"\min_i x_i",
        attributes=AXES | _TIES,
        infer=reduction_rule(ORDERED, needs_elements=True),
        reference=_extremum_reference(np.min, greatest=False),
        gradient=_extremum_gradient,
        lower=_lower("min"),
        samples=_samples(integers=True, ties=True),
    )
)


def _infer_index(types: Sequence[TensorType], attributes: Attributes) -> tuple[TensorType, ...]:
    expect_operands(types, 1)
    expect_dtype(types[0], ORDERED)
    axis = normalise_axis(attributes["axis"], types[0].rank)
    if types[0].shape[axis] == 0:
        raise ShapeError("an axis of size 0 has no greatest or least element; take an axis that has elements")
    return (TensorType(i64, tuple(d for k, d in enumerate(types[0].shape) if k != axis)),)


def _lower_index(combiner: str) -> Callable[[Node], Kernel]:
    def lower(node: Node) -> Kernel:
        axis = normalise_axis(node.attributes["axis"], node.inputs[0].type.rank)
        exprs = (forms.reduce_load(node, (axis,), keepdims=False), AxisIndex("r0"))
        return forms.reduce_kernel(node, (axis,), Accumulate(("best", "index"), combiner, exprs))

    return lower


def _index_samples() -> Sequence[Sample]:
    x = np.sin(np.arange(24.0) * 1.7).reshape(2, 3, 4)
    ties = np.array([[1.0, 3.0, 3.0], [np.nan, 5.0, np.nan], [-np.inf, -np.inf, -np.inf]])
    found = [Sample((x,), {"axis": axis}) for axis in (0, 1, -1)]
    return [
        *found,
        Sample((ties,), {"axis": 1}),
        Sample((-ties,), {"axis": 1}),
        Sample((x.astype(np.float32).reshape(24, 1),), {"axis": 1}),
        Sample((np.array([3, 9, 1, 9, 1], np.int32),), {"axis": 0}),
        Sample((np.array([3, 9, 1, 9, 1], np.uint8),), {"axis": 0}),
    ]


def _index_reference(function: Callable[..., Any]) -> Callable[..., tuple[Any, ...]]:
    def reference(arrays: Sequence[Any], attributes: Attributes) -> tuple[Any, ...]:
        (x,), axis = arrays, attributes["axis"]
        if x.shape[axis]:
            return (np.asarray(function(x, axis=axis)),)
        return (np.full(np.delete(x.shape, axis), np.iinfo(np.int64).max),)  # no element: no index

    return reference


def _index_op(name: str, extreme: str, latex: str, function: Callable[..., Any]) -> Op:
    """The op of `argmax` or `argmin`, whose NumPy function and combiner have its name."""
    return Op(
        name,
        f"The index of the {extreme} element along an axis, the first of equal ones; a NaN is the {extreme}.",
        latex=latex,
        attributes={"axis": Attribute("int", "the axis; a negative one counts from the back")},
        infer=_infer_index,
        reference=_index_reference(function),
        gradient=NotDifferentiable("its result is an index"),
        lower=_lower_index(name),
        samples=_index_samples,
    )


ARGMAX = define(_index_op("argmax", "greatest", r"\operatorname{arg\,max}_i x_i", np.argmax))
ARGMIN = define(_index_op("argmin", "least", r"\operatorname{arg\,min}_i x_i", np.argmin))


def _prod_gradient(node: Node, cotangents: Sequence[Value | None], b: Builder) -> Sequence[Value | None]:
    """Each element gets the product of the others, which is right at zeros where `product / x` is not.

    The products run over an n by n table that is never stored; so the gradient takes n^2 steps for n factors.
    """
    (g,), (x,), axes = cotangents, node.inputs, reduced_axes(node)
    if g is None:
        return [None]
    shape, kept = x.type.shape, [k for k in range(x.type.rank) if k not in axes]
    order = (*kept, *axes)
    count = reduced_count(node)
    factors = b.reshape(b.transpose(x, permutation=order), shape=(*(shape[k] for k in kept), 1, count))
    others = b.prod(b.elementwise("where", _diagonal(count, b), b.constant(1, x.type.dtype), factors), axes=(-1,))
    back = b.reshape(others, shape=tuple(shape[k] for k in order))
    others = b.transpose(back, permutation=tuple(order.index(k) for k in range(len(order))))
    return [b.elementwise("mul", spread(g, node, b), others)]


def _diagonal(count: Dim, b: Builder) -> Value:
    """Truth values [count, count]: true where row and column are the same."""
    index = b.iota(size=count)
    row, column = b.reshape(index, shape=(count, 1)), b.reshape(index, shape=(1, count))
    return b.elementwise("eq", row, column)


def _prod_samples() -> Sequence[Sample]:
    x = np.sin(np.arange(24.0) * 1.7).reshape(2, 3, 4) + 1.3
    zeros = np.array([[2.0, 0.0, 1.5], [0.0, 3.0, 0.0], [1.0, -2.0, 0.5]])
    found = [Sample((x,), {"axes": axes}, differentiable=(0,)) for axes in ((0,), (-1,), (0, 2), (0, 1, 2), ())]
    return [
        *found,
        Sample((x,), {"axes": (1,), "keepdims": True}, differentiable=(0,)),
        Sample((zeros,), {"axes": (1,)}, differentiable=(0,)),
        Sample((x.astype(np.float32).reshape(1, 6, 4),), {"axes": (0,)}),
        Sample((np.arange(-3, 3, dtype=np.int32).reshape(2, 3),), {"axes": (1,)}),
        Sample((np.arange(1, 7, dtype=np.int64).reshape(2, 3),), {"axes": (0,)}),
    ]


PROD = define(
    Op(
        "prod",
        "The product over axes, in the operand's dtype; the gradient of n factors takes n^2 steps.",
        latex=r"\prod_i x_i",
        attributes=AXES,
        infer=reduction_rule(NUMBERS),
        reference=_reference(np.prod, dtype=True),
        gradient=_prod_gradient,
        lower=_lower("prod"),
        samples=_prod_samples,
    )
)


def _truth_op(name: str, doc: str, latex: str, function: Callable[..., Any], combiner: str) -> Op:
    """The op of `any` or `all`: the greatest or least of truth values as numbers 0 and 1, by `combiner`."""

    def lower(node: Node) -> Kernel:
        axes = reduced_axes(node)
        number = Cast(forms.reduce_load(node, axes, node.attributes["keepdims"]), i32)
        truth = Let("truth", Apply("gt", (Name("acc"), Const(0, i32))))
        return forms.reduce_kernel(node, axes, Accumulate(("acc",), combiner, (number,)), (truth,))

    rows = np.array([[False, False, True], [True, True, True], [False, False, False]])
    return Op(
        name,
        doc,
        latex=latex,
        attributes=AXES,
        infer=reduction_rule((bool_,)),
        reference=_reference(function),
        gradient=NotDifferentiable("its result is a truth value"),
        lower=lower,
        samples=lambda: [
            *(Sample((rows,), {"axes": axes}) for axes in ((0,), (-1,), (0, 1), ())),
            Sample((rows.reshape(3, 1, 3),), {"axes": (2,), "keepdims": True}),
            Sample((rows[:, :0],), {"axes": (1,)}),
        ],
    )


ANY = define(
    _truth_op("any", "Whether any truth value over axes is true; false for none.", r"\exists_i x_i", np.any, "max")
)
ALL = define(
    _truth_op("all", "Whether all truth values over axes are true; true for none.", r"\forall_i x_i", np.all, "min")
)
