"""Sums of products over shared axes: the matrix product."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from graphc.errors import DTypeError, ShapeError
from graphc.ir.builder import Builder
from graphc.ir.dims import Dim, format_shape
from graphc.ir.graph import Node, Value
from graphc.ir.op import Attribute, Attributes, Op, Sample, define
from graphc.ir.types import TensorType
from graphc.kernel.expr import Affine, Apply, Name
from graphc.kernel.form import Accumulate, Axis, Kernel, Stage, Store
from graphc.ops import forms
from graphc.ops.rules import NUMBERS, expect_dtype, expect_operands


def _swapped(shape: tuple[Dim, ...], transposed: bool) -> tuple[Dim, ...]:
    return (*shape[:-2], shape[-1], shape[-2]) if transposed else shape


def _infer_matmul(types: Sequence[TensorType], attributes: Attributes) -> tuple[TensorType, ...]:
    expect_operands(types, 2)
    for position, type_ in enumerate(types):
        expect_dtype(type_, NUMBERS, f"operand {position}")
    a, b = types
    if a.dtype != b.dtype:
        raise DTypeError(f"operands have dtypes {a.dtype} and {b.dtype}; cast one to the other's dtype")
    if a.rank < 2 or b.rank < 2:
        shapes = f"{format_shape(a.shape)} and {format_shape(b.shape)}"
        raise ShapeError(f"operands have shapes {shapes}; both need two axes or more: reshape a vector to a matrix")
    left, right = _swapped(a.shape, attributes["transpose_a"]), _swapped(b.shape, attributes["transpose_b"])
    if left[:-2] != right[:-2]:
        batches = f"{format_shape(left[:-2])} and {format_shape(right[:-2])}"
        raise ShapeError(f"leading (batch) axes {batches} differ; make them equal with broadcast_to")
    if left[-1] != right[-2]:
        shapes = f"{format_shape(left)} and {format_shape(right)}"
        note = " (after transposing)" if attributes["transpose_a"] or attributes["transpose_b"] else ""
        sizes = f"inner sizes {left[-1]} and {right[-2]} of {shapes}{note}"
        raise ShapeError(f"{sizes} differ; transpose an operand or fix a size")
    return (TensorType(a.dtype, (*left[:-1], right[-1])),)


def _matmul_reference(arrays: Sequence[Any], attributes: Attributes) -> tuple[Any, ...]:
    flags = (attributes["transpose_a"], attributes["transpose_b"])
    a, b = (np.swapaxes(x, -1, -2) if flag else x for x, flag in zip(arrays, flags, strict=True))
    with np.errstate(all="ignore"):
        return (np.matmul(a, b),)


def _matmul_gradient(node: Node, cotangents: Sequence[Value | None], builder: Builder) -> Sequence[Value | None]:
    """Y = A' B' with A' = A or A^T: dA' = dY B'^T and dB' = A'^T dY, written without a transpose node."""
    (g,), (a, b) = cotangents, node.inputs
    if g is None:
        return [None, None]
    ta, tb = node.attributes["transpose_a"], node.attributes["transpose_b"]

    def product(x: Value, y: Value, tx: bool, ty: bool) -> Value:
        value = builder.matmul(x, y, transpose_a=tx, transpose_b=ty)
        assert isinstance(value, Value)
        return value

    da = product(b, g, tb, True) if ta else product(g, b, False, not tb)
    db = product(g, a, True, ta) if tb else product(a, g, not ta, False)
    return [da, db]


def _lower_matmul(node: Node) -> Kernel:
    a, rank = node.inputs[0].type, node.type.rank
    ta, tb = node.attributes["transpose_a"], node.attributes["transpose_b"]
    batch = forms.identity(rank - 2)
    row, column, inner = Affine.axis(f"i{rank - 2}"), Affine.axis(f"i{rank - 1}"), Affine.axis("r0")
    left = forms.load(node, 0, (*batch, inner, row) if ta else (*batch, row, inner))
    right = forms.load(node, 1, (*batch, column, inner) if tb else (*batch, inner, column))
    stage = Stage(
        reduce=(Axis.range("r0", a.shape[-2] if ta else a.shape[-1]),),
        accumulates=(Accumulate(("acc",), "sum", (Apply("mul", (left, right)),)),),
        stores=(Store("out0", forms.identity(rank), Name("acc")),),
    )
    return Kernel(forms.kernel_name(node), forms.operands(node), forms.axes(node.type.shape), (stage,))


def _matmul_samples() -> Sequence[Sample]:
    a = np.sin(np.arange(12.0)).reshape(3, 4)
    b = np.cos(np.arange(20.0)).reshape(4, 5)
    found = []
    for ta in (False, True):
        for tb in (False, True):
            flags = {"transpose_a": ta, "transpose_b": tb}
            found.append(Sample((a.T if ta else a, b.T if tb else b), flags, differentiable=(0, 1)))
            batch = (np.stack([a, 2 * a]), np.stack([b, b - 1]))
            turned = tuple(np.swapaxes(x, 1, 2) if t else x for x, t in zip(batch, (ta, tb), strict=True))
            found.append(Sample(tuple(x.astype(np.float32) for x in turned), flags))
    whole = np.arange(6, dtype=np.int32).reshape(2, 3)
    return [
        *found,
        Sample((np.stack([a, 2 * a]), np.stack([b, b - 1])), differentiable=(0, 1)),
        Sample((whole, whole), {"transpose_b": True}),
        Sample((a[:1], b[:, :1]), differentiable=(0, 1)),
        Sample((a[:, :1], b[:1]), differentiable=(0, 1)),
    ]


MATMUL = define(
    Op(
        "matmul",
        "The matrix product of the last two axes; axes before them are a batch and must be equal.",
        latex=r"Y_{ij} = \sum_k A_{ik} B_{kj}",
        attributes={
            "transpose_a": Attribute("bool", "swap the last two axes of the first operand", False),
            "transpose_b": Attribute("bool", "swap the last two axes of the second operand", False),
        },
        infer=_infer_matmul,
        reference=_matmul_reference,
        gradient=_matmul_gradient,
        lower=_lower_matmul,
        samples=_matmul_samples,
    )
)
