"""Ops that read or mark one element per row: gather and one_hot."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from graphc.errors import DTypeError, InputError, ShapeError
from graphc.ir.builder import Builder
from graphc.ir.dims import Dim, format_shape
from graphc.ir.graph import Node, Value
from graphc.ir.op import Attribute, Attributes, NotDifferentiable, Op, Sample, define
from graphc.ir.types import DType, TensorType, bool_, f32, f64, i32, i64
from graphc.kernel.expr import Apply, AxisIndex, Cast, Computed, Const, Expr, Load
from graphc.kernel.form import Kernel
from graphc.ops import forms
from graphc.ops.rules import INTEGERS, expect_operands


def expect_labels(rows: TensorType, labels: TensorType) -> None:
    """Raise unless `labels` holds one integer for each row of `rows`, that is for all but its last axis."""
    if labels.dtype not in INTEGERS:
        raise DTypeError(f"indices have dtype {labels.dtype}; they must be integers: cast them to int32 or int64")
    if rows.rank < 1:
        raise ShapeError("the first operand is a scalar; it needs an axis to pick from")
    if labels.shape != rows.shape[:-1]:
        shapes = f"{format_shape(rows.shape)} needs indices of shape {format_shape(rows.shape[:-1])}"
        raise ShapeError(f"{shapes}, one for each row of its last axis, got {format_shape(labels.shape)}")


def check_range(labels: Any, count: int) -> None:
    """Raise InputError unless 0 <= label < count for every label."""
    if labels.size and not (labels.min() >= 0 and labels.max() < count):
        found = f"{labels.min()} to {labels.max()}"
        raise InputError(f"indices are {found}; with {count} classes they must be 0 to {count - 1}")


def picked(node: Node) -> Load:
    """A load of `in0[i..., in1[i...]]`, within the declared bounds of the last axis."""
    rank, classes = node.inputs[1].type.rank, node.inputs[0].type.shape[-1]
    return forms.load(node, 0, (*forms.identity(rank), Computed(Cast(forms.load(node, 1), i64), 0, classes)))


def _infer_gather(types: Sequence[TensorType], attributes: Attributes) -> tuple[TensorType, ...]:
    expect_operands(types, 2)
    expect_labels(*types)
    return (TensorType(types[0].dtype, types[1].shape),)


def _gather_reference(arrays: Sequence[Any], attributes: Attributes) -> tuple[Any, ...]:
    x, index = arrays
    check_range(index, x.shape[-1])
    return (np.take_along_axis(x, index[..., None].astype(np.int64), -1)[..., 0],)


def _gather_gradient(node: Node, cotangents: Sequence[Value | None], b: Builder) -> Sequence[Value | None]:
    (g,), (x, index) = cotangents, node.inputs
    if g is None:
        return [None, None]
    marks = b.one_hot(index, depth=x.type.shape[-1], dtype=bool_)
    column = b.reshape(g, shape=(*g.type.shape, 1))
    return [b.elementwise("where", marks, column, b.constant(0, g.type.dtype)), None]


def _gather_samples() -> Sequence[Sample]:
    x = np.sin(np.arange(12.0)).reshape(3, 4)
    return [
        Sample((x, np.array([3, 0, 2], np.int32)), differentiable=(0,)),
        Sample((x.astype(np.float32), np.array([1, 1, 1], np.int64))),
        Sample((x, np.array([0, 3, 1], np.uint8)), differentiable=(0,)),
        Sample((np.arange(6, dtype=np.int32).reshape(1, 2, 3), np.array([[2, 1]], np.int32))),
        Sample((x[0], np.array(2, np.int64)), differentiable=(0,)),
    ]


GATHER = define(
    Op(
        "gather",
        "One element of each row along the last axis: y[n] = x[n, index[n]]. Indices must be in range.",
        latex=r"y_n = x_{n, i_n}",
        infer=_infer_gather,
        reference=_gather_reference,
        gradient=_gather_gradient,
        lower=lambda node: forms.map_kernel(node, picked(node)),
        samples=_gather_samples,
    )
)


def _infer_one_hot(types: Sequence[TensorType], attributes: Attributes) -> tuple[TensorType, ...]:
    expect_operands(types, 1)
    if types[0].dtype not in INTEGERS:
        raise DTypeError(f"indices have dtype {types[0].dtype}; they must be integers: cast them to int32 or int64")
    depth: Dim = attributes["depth"]
    if isinstance(depth, int) and depth < 0:
        raise ShapeError(f"the depth is {depth}; it cannot be negative")
    return (TensorType(attributes["dtype"], (*types[0].shape, depth)),)


def _one_hot_reference(arrays: Sequence[Any], attributes: Attributes) -> tuple[Any, ...]:
    marks = np.asarray(arrays[0])[..., None] == np.arange(attributes["depth"])
    return (marks.astype(attributes["dtype"].numpy),)


def _lower_one_hot(node: Node) -> Kernel:
    dtype: DType = node.type.dtype
    index = Cast(forms.load(node, 0), i64)
    mark: Expr = Apply("eq", (index, AxisIndex(f"i{node.type.rank - 1}")))
    one, zero = (Const(float(v) if dtype.is_float else v, dtype) for v in (1, 0))
    return forms.map_kernel(node, mark if dtype == bool_ else Apply("where", (mark, one, zero)))


ONE_HOT = define(
    Op(
        "one_hot",
        "1 where the new last axis equals the index, else 0; an index out of range gives a row of zeros.",
        latex=r"y_{n,c} = \left[i_n = c\right]",
        attributes={
            "depth": Attribute("dim", "the size of the new last axis"),
            "dtype": Attribute("dtype", "the dtype of the result", f32),
        },
        infer=_infer_one_hot,
        reference=_one_hot_reference,
        gradient=NotDifferentiable("its operand is an index"),
        lower=_lower_one_hot,
        samples=lambda: [
            Sample((np.array([2, 0, 3], np.int32),), {"depth": 4}),
            Sample((np.array([[1], [-1]], np.int64),), {"depth": 2, "dtype": f64}),
            Sample((np.array([1, 5], np.uint8),), {"depth": 3, "dtype": bool_}),
            Sample((np.array(1, np.int32),), {"depth": 2, "dtype": i32}),
        ],
    )
)
