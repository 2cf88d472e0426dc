"""Sums of products of two tensors over named axes: one contraction, whatever the order of the axes."""

from __future__ import annotations

import string
from collections.abc import Sequence
from typing import Any

import numpy as np

from graphc.errors import AttributeValueError, DTypeError, ShapeError
from graphc.ir.builder import Builder
from graphc.ir.dims import Dim, format_shape
from graphc.ir.graph import Node, Value
from graphc.ir.op import Attribute, Attributes, Op, Sample, define
from graphc.ir.types import TensorType
from graphc.kernel.expr import Affine, Apply, Name
from graphc.kernel.form import Accumulate, Axis, Kernel, Stage, Store
from graphc.ops import forms
from graphc.ops.rules import NUMBERS, expect_dtype, expect_operands


def labels(equation: str) -> tuple[str, str, str]:
    """The labels of both operands and of the result of "ij,jk->ik". Raises AttributeValueError for other texts."""
    left, arrow, result = equation.partition("->")
    terms = left.split(",")
    letters = "".join((*terms, result))
    if not arrow or len(terms) != 2 or not (letters.isalpha() or not letters):
        raise AttributeValueError(f"the equation {equation!r} is not of the form 'ij,jk->ik', with letters for axes")
    return terms[0], terms[1], result


def equation_of(node: Node) -> tuple[str, str, str]:
    """The labels of both operands and of the result of an `einsum` or `matmul` node."""
    if node.op.name == "einsum":
        return labels(node.attributes["equation"])
    batch = string.ascii_lowercase[: node.type.rank - 2]
    left = batch + ("YX" if node.attributes["transpose_a"] else "XY")
    right = batch + ("ZY" if node.attributes["transpose_b"] else "YZ")
    return left, right, f"{batch}XZ"


def _check_labels(a: str, b: str, out: str) -> None:
    for term in (a, b, out):
        if len(set(term)) != len(term):
            raise AttributeValueError(f"{term!r} names an axis twice; take the diagonal first")
    for label in dict.fromkeys(a + b + out):
        if sum(label in term for term in (a, b, out)) < 2 or label not in a + b:
            reason = "it must be in two of the operands and the result: sum an axis that only one operand has first"
            raise AttributeValueError(f"the axis {label!r} of '{a},{b}->{out}' stands alone; {reason}")


def _sizes(types: Sequence[TensorType], terms: Sequence[str]) -> dict[str, Dim]:
    sizes: dict[str, Dim] = {}
    for position, (type_, term) in enumerate(zip(types, terms, strict=True)):
        if type_.rank != len(term):
            raise ShapeError(f"operand {position} of shape {format_shape(type_.shape)} has not the axes {term!r}")
        for label, dim in zip(term, type_.shape, strict=True):
            if sizes.setdefault(label, dim) != dim:
                raise ShapeError(f"the axis {label!r} has size {sizes[label]} in one operand and {dim} in the other")
    return sizes


def _infer_einsum(types: Sequence[TensorType], attributes: Attributes) -> tuple[TensorType, ...]:
    expect_operands(types, 2)
    for position, type_ in enumerate(types):
        expect_dtype(type_, NUMBERS, f"operand {position}")
    if types[0].dtype != types[1].dtype:
        raise DTypeError(f"operands have dtypes {types[0].dtype} and {types[1].dtype}; cast one to the other's dtype")
    a, b, out = labels(attributes["equation"])
    _check_labels(a, b, out)
    sizes = _sizes(types, (a, b))
    return (TensorType(types[0].dtype, tuple(sizes[label] for label in out)),)


def _einsum_reference(arrays: Sequence[Any], attributes: Attributes) -> tuple[Any, ...]:
    with np.errstate(all="ignore"):
        return (np.asarray(np.einsum(attributes["equation"], *arrays)),)


def _einsum_gradient(node: Node, cotangents: Sequence[Value | None], builder: Builder) -> Sequence[Value | None]:
    """The gradient of each operand is the cotangent contracted with the other operand."""
    (g,), (left, right) = cotangents, node.inputs
    if g is None:
        return [None, None]
    a, b, out = labels(node.attributes["equation"])
    return [
        builder.einsum(g, right, equation=f"{out},{b}->{a}"),
        builder.einsum(left, g, equation=f"{a},{out}->{b}"),
    ]


def _lower_einsum(node: Node) -> Kernel:
    a, b, out = labels(node.attributes["equation"])
    sizes = _sizes([v.type for v in node.inputs], (a, b))
    summed = [label for label in dict.fromkeys(a + b) if label not in out]
    axis = {label: Affine.axis(f"i{k}") for k, label in enumerate(out)}
    axis |= {label: Affine.axis(f"r{k}") for k, label in enumerate(summed)}
    factors = tuple(forms.load(node, k, [axis[label] for label in term]) for k, term in enumerate((a, b)))
    product = Apply("mul", factors)
    if not summed:
        return forms.map_kernel(node, product)
    stage = Stage(
        reduce=tuple(Axis.range(f"r{k}", sizes[label]) for k, label in enumerate(summed)),
        accumulates=(Accumulate(("acc",), "sum", (product,)),),
        stores=(Store("out0", forms.identity(node.type.rank), Name("acc")),),
    )
    return Kernel(forms.kernel_name(node), forms.operands(node), forms.axes(node.type.shape), (stage,))


def _einsum_samples() -> Sequence[Sample]:
    a, b = np.sin(np.arange(24.0)).reshape(2, 3, 4), np.cos(np.arange(40.0)).reshape(2, 4, 5)
    whole = np.arange(6, dtype=np.int32).reshape(2, 3)

    def sample(equation: str, *arrays: np.ndarray, smooth: bool = True) -> Sample:
        return Sample(arrays, {"equation": equation}, (0, 1) if smooth else ())

    return [
        sample("bij,bjk->bik", a, b),
        sample("bij,bjk->kib", a, b),
        sample("bij,bjk->ik", a, b),
        sample("bij,bij->", a, a + 1),
        sample("i,jk->kij", a[0, 0], a[1]),
        sample("ij,ij->ij", a[0], a[1]),
        sample("ijk,j->ki", a, b[0, :3, 0]),
        sample("bij,bkj->bik", a.astype(np.float32), (a + 1).astype(np.float32), smooth=False),
        sample("ij,ik->jk", whole, whole, smooth=False),
    ]


EINSUM = define(
    Op(
        "einsum",
        "The sum of products of two tensors over the axes that the result leaves out, such as 'ij,jk->ik'.",
        latex=r"Y_{o} = \sum_{s} A_{a} B_{b}",
        attributes={"equation": Attribute("str", "a letter for each axis of both operands and of the result")},
        infer=_infer_einsum,
        reference=_einsum_reference,
        gradient=_einsum_gradient,
        lower=_lower_einsum,
        samples=_einsum_samples,
    )
)
