"""Ops that read or add to elements chosen by index arrays: take and scatter_add, and both along an axis.

`scatter_add` is the adjoint of `take`, and each is linear in its values, so gradients of any order are these ops again.
An element that several indices name is added to in the order of the indices, on every target and thread count.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from graphc.errors import DTypeError, InputError, ShapeError
from graphc.ir.builder import Builder
from graphc.ir.dims import Dim, format_shape
from graphc.ir.graph import Node, Value
from graphc.ir.op import Attribute, Attributes, Op, Sample, define
from graphc.ir.types import TensorType, i64
from graphc.kernel.expr import Cast, Computed, Expr, Index, Load
from graphc.kernel.form import Axis, Kernel, Stage, Store
from graphc.ops import forms
from graphc.ops.rules import INTEGERS, NUMBERS, expect_dtype, expect_operands, normalise_axis

_AXIS = {"axis": Attribute("int", "the axis that the indices count along")}
_SIZED = {**_AXIS, "size": Attribute("dim", "the size of that axis in the result")}


def expect_indices(type_: TensorType) -> None:
    """Raise DTypeError unless the operand of indices holds integers."""
    if type_.dtype not in INTEGERS:
        raise DTypeError(f"indices have dtype {type_.dtype}; they must be integers: cast them to int32 or int64")


def check_positions(indices: Any, size: int) -> None:
    """Raise InputError unless 0 <= index < size for every index."""
    if indices.size and not (indices.min() >= 0 and indices.max() < size):
        found = f"{indices.min()} to {indices.max()}"
        raise InputError(f"indices are {found}; along an axis of size {size} they must be 0 to {size - 1}")


def _expect_elements(size: Dim, indices: TensorType) -> None:
    if size == 0 and indices.size != 0:
        raise ShapeError("an axis of size 0 has no elements to pick; index an axis that has elements")


def _number(node: Node, index: Sequence[Index] | None = None) -> Expr:
    """An index that operand 1 holds, as i64."""
    element: Expr = forms.load(node, 1, index)
    return element if node.inputs[1].type.dtype == i64 else Cast(element, i64)


# take: whole slices along an axis, and its adjoint


def _infer_take(types: Sequence[TensorType], attributes: Attributes) -> tuple[TensorType, ...]:
    expect_operands(types, 2)
    values, indices = types
    axis = normalise_axis(attributes["axis"], values.rank)
    expect_indices(indices)
    _expect_elements(values.shape[axis], indices)
    return (TensorType(values.dtype, (*values.shape[:axis], *indices.shape, *values.shape[axis + 1 :])),)


def _take_reference(arrays: Sequence[Any], attributes: Attributes) -> tuple[Any, ...]:
    values, indices = arrays
    check_positions(indices, values.shape[attributes["axis"]])
    return (np.take(values, indices.astype(np.int64), axis=attributes["axis"]),)


def _take_gradient(node: Node, cotangents: Sequence[Value | None], b: Builder) -> Sequence[Value | None]:
    (g,), (values, indices) = cotangents, node.inputs
    if g is None:
        return [None, None]
    axis = normalise_axis(node.attributes["axis"], values.type.rank)
    return [b.scatter_add(g, indices, axis=axis, size=values.type.shape[axis]), None]


def _lower_take(node: Node) -> Kernel:
    values, indices = (v.type for v in node.inputs)
    axis = normalise_axis(node.attributes["axis"], values.rank)
    own: tuple[Index, ...] = forms.identity(node.type.rank)
    number = _number(node, own[axis : axis + indices.rank])
    index = (*own[:axis], Computed(number, 0, values.shape[axis]), *own[axis + indices.rank :])
    return forms.map_kernel(node, forms.load(node, 0, index))


def _take_samples() -> Sequence[Sample]:
    x = np.sin(np.arange(24.0)).reshape(2, 3, 4)
    return [
        Sample((x, np.array([1, 0, 1, 1])), {"axis": 0}, differentiable=(0,)),
        Sample((x, np.array([[2, 0], [2, 1]], np.int32)), {"axis": 1}, differentiable=(0,)),
        Sample((x, np.array(3)), {"axis": -1}, differentiable=(0,)),
        Sample((x.astype(np.float32), np.array([0, 3, 3], np.uint8)), {"axis": 2}),
        Sample((np.arange(5), np.array([4, 4, 0])), {"axis": 0}),
        Sample((np.array([True, False]), np.array([1, 1, 0])), {"axis": 0}),
        Sample((x, np.zeros((0,), np.int32)), {"axis": 0}),
    ]


TAKE = define(
    Op(
        "take",
        "The slices of x that indices name along an axis, such as rows of an embedding table.",
        latex=r"y_{i \ldots} = x_{k_i \ldots}",
        attributes=_AXIS,
        infer=_infer_take,
        reference=_take_reference,
        gradient=_take_gradient,
        lower=_lower_take,
        samples=_take_samples,
    )
)


def _infer_scatter(types: Sequence[TensorType], attributes: Attributes) -> tuple[TensorType, ...]:
    expect_operands(types, 2)
    updates, indices = types
    expect_dtype(updates, NUMBERS, "the operand of updates")
    expect_indices(indices)
    rank = updates.rank - indices.rank + 1
    if rank < 1:
        raise ShapeError(f"updates {format_shape(updates.shape)} have fewer axes than the indices")
    axis = normalise_axis(attributes["axis"], rank)
    named = updates.shape[axis : axis + indices.rank]
    if named != indices.shape:
        shapes = f"axes {format_shape(named)} of the updates and indices {format_shape(indices.shape)}"
        raise ShapeError(f"{shapes} differ; there must be one update for each index")
    _expect_elements(attributes["size"], indices)
    rest = updates.shape[axis + indices.rank :]
    return (TensorType(updates.dtype, (*updates.shape[:axis], attributes["size"], *rest)),)


def _scatter_reference(arrays: Sequence[Any], attributes: Attributes) -> tuple[Any, ...]:
    updates, indices = arrays
    axis = attributes["axis"] % (updates.ndim - indices.ndim + 1)
    check_positions(indices, attributes["size"])
    shape = (*updates.shape[:axis], attributes["size"], *updates.shape[axis + indices.ndim :])
    result = np.zeros(shape, updates.dtype)
    np.add.at(result, (*(slice(None),) * axis, indices.astype(np.int64)), updates)
    return (result,)


def _scatter_gradient(node: Node, cotangents: Sequence[Value | None], b: Builder) -> Sequence[Value | None]:
    (g,) = cotangents
    axis = normalise_axis(node.attributes["axis"], node.type.rank)
    return [None if g is None else b.take(g, node.inputs[1], axis=axis), None]


def _lower_scatter(node: Node) -> Kernel:
    """Sequential over the indices, parallel over the other axes; the index of the store is computed."""
    updates, indices = (v.type for v in node.inputs)
    axis = normalise_axis(node.attributes["axis"], node.type.rank)
    count = indices.rank
    own: tuple[Index, ...] = forms.identity(updates.rank)
    whole = forms.axes(updates.shape)
    ordered = tuple(replace(a, sequential=True) for a in whole[axis : axis + count])
    number = Computed(_number(node, own[axis : axis + count]), 0, node.type.shape[axis])
    index = (*own[:axis], number, *own[axis + count :])
    return _adding(node, (*whole[:axis], *whole[axis + count :]), ordered, index)


def _adding(node: Node, space: tuple[Axis, ...], ordered: tuple[Axis, ...], index: tuple[Index, ...]) -> Kernel:
    """The kernel that adds operand 0 to elements of a zero result."""
    *read, result = forms.operands(node)
    stage = Stage(space=ordered, stores=(Store("out0", index, forms.load(node, 0), mode="sum"),))
    return Kernel(forms.kernel_name(node), (*read, replace(result, init=0.0)), space, (stage,))


def _scatter_samples() -> Sequence[Sample]:
    g = np.sin(np.arange(24.0)).reshape(2, 3, 4)
    return [
        Sample((g, np.array([3, 0])), {"axis": 0, "size": 5}, differentiable=(0,)),
        Sample((g, np.array([1, 1, 0], np.int32)), {"axis": 1, "size": 2}, differentiable=(0,)),
        Sample((g, np.array([[1, 0, 1], [1, 1, 0]])), {"axis": 0, "size": 3}, differentiable=(0,)),
        Sample((g[0, 0], np.array([2, 2, 0, 2])), {"axis": 0, "size": 3}, differentiable=(0,)),
        Sample((g.astype(np.float32), np.array(2, np.int32)), {"axis": 1, "size": 3}),
        Sample((np.arange(3), np.array([1, 1, 1], np.uint8)), {"axis": 0, "size": 2}),
        Sample((g[:0], np.zeros((0,), np.int32)), {"axis": 0, "size": 2}),
    ]


SCATTER_ADD = define(
    Op(
        "scatter_add",
        "Zeros to which each update is added at its index along an axis: the adjoint of take.",
        latex=r"y_{k \ldots} = \sum_{i : k_i = k} x_{i \ldots}",
        attributes=_SIZED,
        infer=_infer_scatter,
        reference=_scatter_reference,
        gradient=_scatter_gradient,
        lower=_lower_scatter,
        samples=_scatter_samples,
    )
)


# take_along_axis: one element for each index, and its adjoint


def _expect_beside(first: TensorType, indices: TensorType, axis: int) -> None:
    sides = [[d for k, d in enumerate(t.shape) if k != axis] for t in (first, indices)]
    if first.rank != indices.rank or sides[0] != sides[1]:
        shapes = f"{format_shape(first.shape)} and indices {format_shape(indices.shape)}"
        raise ShapeError(f"{shapes} differ in more than axis {axis}; all other axes must be equal")


def _infer_along(types: Sequence[TensorType], attributes: Attributes) -> tuple[TensorType, ...]:
    expect_operands(types, 2)
    values, indices = types
    expect_indices(indices)
    axis = normalise_axis(attributes["axis"], values.rank)
    _expect_beside(values, indices, axis)
    _expect_elements(values.shape[axis], indices)
    return (TensorType(values.dtype, indices.shape),)


def _along_reference(arrays: Sequence[Any], attributes: Attributes) -> tuple[Any, ...]:
    values, indices = arrays
    check_positions(indices, values.shape[attributes["axis"]])
    return (np.take_along_axis(values, indices.astype(np.int64), attributes["axis"]),)


def _along_gradient(node: Node, cotangents: Sequence[Value | None], b: Builder) -> Sequence[Value | None]:
    (g,), (values, indices) = cotangents, node.inputs
    if g is None:
        return [None, None]
    axis = normalise_axis(node.attributes["axis"], values.type.rank)
    return [b.scatter_along_axis(g, indices, axis=axis, size=values.type.shape[axis]), None]


def _along_index(node: Node, axis: int, size: Dim) -> tuple[Index, ...]:
    """The point of operand 1, with its element in place of `axis`."""
    index: list[Index] = list(forms.identity(node.inputs[1].type.rank))
    index[axis] = Computed(_number(node), 0, size)
    return tuple(index)


def _lower_along(node: Node) -> Kernel:
    values = node.inputs[0].type
    axis = normalise_axis(node.attributes["axis"], values.rank)
    return forms.map_kernel(node, Load("in0", _along_index(node, axis, values.shape[axis])))


def _along_samples() -> Sequence[Sample]:
    x = np.sin(np.arange(24.0)).reshape(2, 3, 4)
    order = np.argsort(x, axis=1)
    return [
        Sample((x, order), {"axis": 1}, differentiable=(0,)),
        Sample((x, order[:1, :, :] * 0), {"axis": 0}, differentiable=(0,)),
        Sample((x, np.array([[[3, 0, 3, 1, 2]] * 3] * 2, np.int32)), {"axis": -1}, differentiable=(0,)),
        Sample((x[0, 0].astype(np.float32), np.array([2, 2, 1], np.uint8)), {"axis": 0}),
        Sample((np.arange(4), np.array([3, 0])), {"axis": 0}),
    ]


TAKE_ALONG_AXIS = define(
    Op(
        "take_along_axis",
        "For each index the element of x at that index along an axis, and at the same place on the other axes.",
        latex=r"y_{n,i} = x_{n,k_{n,i}}",
        attributes=_AXIS,
        infer=_infer_along,
        reference=_along_reference,
        gradient=_along_gradient,
        lower=_lower_along,
        samples=_along_samples,
    )
)


def _infer_scatter_along(types: Sequence[TensorType], attributes: Attributes) -> tuple[TensorType, ...]:
    expect_operands(types, 2)
    updates, indices = types
    expect_dtype(updates, NUMBERS, "the operand of updates")
    expect_indices(indices)
    if updates.shape != indices.shape:
        shapes = f"updates {format_shape(updates.shape)} and indices {format_shape(indices.shape)}"
        raise ShapeError(f"{shapes} differ; there must be one update for each index")
    axis = normalise_axis(attributes["axis"], updates.rank)
    _expect_elements(attributes["size"], indices)
    shape = tuple(attributes["size"] if k == axis else d for k, d in enumerate(updates.shape))
    return (TensorType(updates.dtype, shape),)


def _scatter_along_reference(arrays: Sequence[Any], attributes: Attributes) -> tuple[Any, ...]:
    updates, indices = arrays
    axis, size = attributes["axis"] % updates.ndim, attributes["size"]
    check_positions(indices, size)
    result = np.zeros((*updates.shape[:axis], size, *updates.shape[axis + 1 :]), updates.dtype)
    place = list(np.indices(updates.shape, sparse=True))
    place[axis] = indices.astype(np.int64)
    np.add.at(result, tuple(place), updates)
    return (result,)


def _scatter_along_gradient(node: Node, cotangents: Sequence[Value | None], b: Builder) -> Sequence[Value | None]:
    (g,) = cotangents
    axis = normalise_axis(node.attributes["axis"], node.type.rank)
    return [None if g is None else b.take_along_axis(g, node.inputs[1], axis=axis), None]


def _lower_scatter_along(node: Node) -> Kernel:
    whole = forms.axes(node.inputs[0].type.shape)
    axis = normalise_axis(node.attributes["axis"], node.type.rank)
    ordered = (replace(whole[axis], sequential=True),)
    index = _along_index(node, axis, node.type.shape[axis])
    return _adding(node, (*whole[:axis], *whole[axis + 1 :]), ordered, index)


def _scatter_along_samples() -> Sequence[Sample]:
    g = np.cos(np.arange(6.0)).reshape(2, 3)
    return [
        Sample((g, np.array([[1, 1, 0], [2, 0, 2]])), {"axis": 1, "size": 4}, differentiable=(0,)),
        Sample((g, np.array([[1, 1, 0], [1, 0, 0]])), {"axis": 0, "size": 2}, differentiable=(0,)),
        Sample((np.ones(4, np.float32), np.array([2, 2, 0, 2], np.int32)), {"axis": -1, "size": 3}),
        Sample((np.arange(4), np.array([1, 1, 0, 2], np.uint8)), {"axis": 0, "size": 3}),
    ]


SCATTER_ALONG_AXIS = define(
    Op(
        "scatter_along_axis",
        "Zeros to which each update is added at its index along an axis: the adjoint of take_along_axis.",
        latex=r"y_{n,k} = \sum_{i : k_{n,i} = k} x_{n,i}",
        attributes=_SIZED,
        infer=_infer_scatter_along,
        reference=_scatter_along_reference,
        gradient=_scatter_along_gradient,
        lower=_lower_scatter_along,
        samples=_scatter_along_samples,
    )
)
