"""Ops that move elements to other positions: slice, pad, concatenate, roll; and iota, the positions themselves."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from graphc.errors import AttributeValueError, DTypeError, ShapeError
from graphc.ir.builder import Builder
from graphc.ir.dims import Dim, format_shape, symbols
from graphc.ir.graph import Node, Value
from graphc.ir.op import Attribute, Attributes, NotDifferentiable, Op, Sample, define
from graphc.ir.types import TensorType, f32, f64, i32, i64
from graphc.kernel.expr import Affine, Apply, AxisIndex, Cast, Computed, Const, Expr, Extent, Index, as_expr
from graphc.kernel.form import Axis, Kernel, Stage, Store
from graphc.kernel.ranges import least_value
from graphc.ops import forms
from graphc.ops.rules import EVERYTHING, expect_dtype, expect_operands, normalise_axis

LARGEST = 1 << 62  # of a dimension symbol, which is at least 1


def is_surely_at_least(dim: Dim, least: int) -> bool:
    """True if `dim >= least` for all sizes of its symbols from 1 on, as far as can be told."""
    return least_value(dim - least, {name: LARGEST for name in symbols(dim)}) >= 0


_PLACES = {
    "start": Attribute("shape", "the first position along each axis, counted from the front"),
    "shape": Attribute("shape", "the shape of the result"),
    "step": Attribute("ints", "the distance of positions along each axis; negative runs backwards"),
}


def _check_places(attributes: Attributes, small: Sequence[Dim], large: Sequence[Dim]) -> None:
    """Raise unless `small` fits into `large` at `start + step * i` along each axis."""
    start, step = attributes["start"], attributes["step"]
    if len({len(start), len(step), len(small), len(large)}) != 1:
        counts = f"{len(start)} starts, {len(step)} steps and a shape of {len(attributes['shape'])} axes"
        raise ShapeError(f"{counts}; give one of each for each axis of the operand")
    for axis, (first, by, size, room) in enumerate(zip(start, step, small, large, strict=True)):
        if by == 0:
            raise ShapeError(f"the step along axis {axis} is 0; it must be positive or negative")
        last = first + (size - 1) * by
        reaches = last if by > 0 else first
        lowest = first if by > 0 else last
        inside = is_surely_at_least(lowest, 0) and is_surely_at_least(room - reaches, 1)
        if size == 0 or (inside and is_surely_at_least(size, 0)):
            continue
        places = f"positions {first} to {last} by {by} along axis {axis}"
        raise ShapeError(f"{places} do not lie within size {room} for every size; take fewer, or another start")


def _places(node: Node) -> tuple[Affine, ...]:
    """The index `start + step * i` along each axis."""
    start, step = node.attributes["start"], node.attributes["step"]
    return tuple(Affine.of({f"i{k}": by}, first) for k, (first, by) in enumerate(zip(start, step, strict=True)))


def _slices(start: Sequence[int], step: Sequence[int], sizes: Sequence[int]) -> tuple[slice, ...]:
    """NumPy's slices of the same positions; a negative stop would count from the back, so it is None then."""
    ends = [first + by * size for first, by, size in zip(start, step, sizes, strict=True)]
    return tuple(
        slice(first, end if end >= 0 else None, by) if size else slice(0, 0)
        for first, by, size, end in zip(start, step, sizes, ends, strict=True)
    )


def _infer_slice(types: Sequence[TensorType], attributes: Attributes) -> tuple[TensorType, ...]:
    expect_operands(types, 1)
    _check_places(attributes, attributes["shape"], types[0].shape)
    return (TensorType(types[0].dtype, attributes["shape"]),)


def _slice_reference(arrays: Sequence[Any], attributes: Attributes) -> tuple[Any, ...]:
    return (arrays[0][_slices(attributes["start"], attributes["step"], attributes["shape"])],)


def _slice_gradient(node: Node, cotangents: Sequence[Value | None], b: Builder) -> Sequence[Value | None]:
    (g,), attributes = cotangents, node.attributes
    shape = node.inputs[0].type.shape
    return [None if g is None else b.pad(g, start=attributes["start"], shape=shape, step=attributes["step"])]


def _slice_samples() -> Sequence[Sample]:
    x = np.sin(np.arange(60.0)).reshape(3, 4, 5)

    def places(start: Any, shape: Any, step: Any) -> dict[str, Any]:
        return {"start": start, "shape": shape, "step": step}

    return [
        Sample((x,), places((1, 0, 2), (2, 4, 3), (1, 1, 1)), differentiable=(0,)),
        Sample((x,), places((2, 1, 4), (3, 2, 3), (-1, 2, -2)), differentiable=(0,)),
        Sample((x,), places((0, 0, 0), (3, 4, 5), (1, 1, 1)), differentiable=(0,)),
        Sample((x[0].astype(np.float32),), places((3, 0), (1, 5), (1, 1))),
        Sample((np.arange(7, dtype=np.int32),), places((6,), (7,), (-1,))),
        Sample((np.array([True, False, True]),), places((0,), (2,), (2,))),
        Sample((x[0],), places((0, 0), (0, 5), (1, 1))),
    ]


SLICE = define(
    Op(
        "slice",
        "The elements at positions start + step * i along each axis.",
        latex=r"y_i = x_{s + t i}",
        attributes=_PLACES,
        infer=_infer_slice,
        reference=_slice_reference,
        gradient=_slice_gradient,
        lower=lambda node: forms.map_kernel(node, forms.load(node, 0, _places(node))),
        samples=_slice_samples,
    )
)


def _infer_pad(types: Sequence[TensorType], attributes: Attributes) -> tuple[TensorType, ...]:
    expect_operands(types, 1)
    expect_dtype(types[0], EVERYTHING)
    _check_places(attributes, types[0].shape, attributes["shape"])
    value = attributes["value"]
    if value != value:
        raise AttributeValueError("the value is NaN; pad with a number, or write NaN with where")
    if not types[0].dtype.is_float and not float(value).is_integer():
        raise DTypeError(f"the value {value} is none of {types[0].dtype}; give a whole number, or cast the operand")
    return (TensorType(types[0].dtype, attributes["shape"]),)


def _pad_reference(arrays: Sequence[Any], attributes: Attributes) -> tuple[Any, ...]:
    (x,) = arrays
    result = np.full(attributes["shape"], attributes["value"], x.dtype)
    result[_slices(attributes["start"], attributes["step"], x.shape)] = x
    return (result,)


def _pad_gradient(node: Node, cotangents: Sequence[Value | None], b: Builder) -> Sequence[Value | None]:
    (g,), attributes = cotangents, node.attributes
    shape = node.inputs[0].type.shape
    return [None if g is None else b.slice(g, start=attributes["start"], shape=shape, step=attributes["step"])]


def _lower_pad(node: Node) -> Kernel:
    """Every element is stored at its place; what no element covers keeps the initial value."""
    source, result = forms.operands(node)
    filled = replace(result, init=float(node.attributes["value"]))
    stage = Stage(stores=(Store("out0", _places(node), forms.load(node, 0)),))
    return Kernel(forms.kernel_name(node), (source, filled), forms.axes(source.shape), (stage,))


def _pad_samples() -> Sequence[Sample]:
    x = np.sin(np.arange(12.0)).reshape(3, 4) + 2

    def places(start: Any, shape: Any, step: Any, value: float = 0.0) -> dict[str, Any]:
        return {"start": start, "shape": shape, "step": step, "value": value}

    return [
        Sample((x,), places((1, 0), (5, 6), (1, 1)), differentiable=(0,)),
        Sample((x,), places((0, 7), (6, 9), (2, -2), 0.5), differentiable=(0,)),
        Sample((x.astype(np.float32),), places((2, 1), (7, 6), (1, 1), -np.inf)),
        Sample((np.arange(5, dtype=np.int32),), places((2,), (8,), (1,), 7.0)),
        Sample((np.array([True, False]),), places((1,), (4,), (2,), 1.0)),
        Sample((np.array(1.5),), places((), (), ())),
        Sample((x[:0],), places((0, 0), (2, 4), (1, 1), 3.0)),
    ]


PAD = define(
    Op(
        "pad",
        "The elements at positions start + step * i of a larger tensor that holds `value` elsewhere.",
        latex=r"y_{s + t i} = x_i",
        attributes={**_PLACES, "value": Attribute("float", "the number elsewhere", 0.0)},
        infer=_infer_pad,
        reference=_pad_reference,
        gradient=_pad_gradient,
        lower=_lower_pad,
        samples=_pad_samples,
    )
)


def _infer_concatenate(types: Sequence[TensorType], attributes: Attributes) -> tuple[TensorType, ...]:
    if not types:
        raise ShapeError("there is nothing to join; give one tensor or more")
    first = types[0]
    axis = normalise_axis(attributes["axis"], first.rank)
    total: Dim = 0
    for position, other in enumerate(types):
        if other.dtype != first.dtype:
            raise DTypeError(f"operands have dtypes {first.dtype} and {other.dtype}; cast one to the other's dtype")
        sides = [[d for k, d in enumerate(t.shape) if k != axis] for t in (first, other)]
        if other.rank != first.rank or sides[0] != sides[1]:
            shapes = f"{format_shape(first.shape)} and operand {position} of {format_shape(other.shape)}"
            raise ShapeError(f"{shapes} do not join along axis {axis}: all other axes must be equal")
        total = total + other.shape[axis]
    return (TensorType(first.dtype, tuple(total if k == axis else d for k, d in enumerate(first.shape))),)


def _joined_axis(node: Node) -> int:
    return normalise_axis(node.attributes["axis"], node.type.rank)


def _offsets(node: Node) -> list[Dim]:
    """Where each operand begins along the joined axis."""
    axis = _joined_axis(node)
    found: list[Dim] = [0]
    for value in node.inputs[:-1]:
        found.append(found[-1] + value.type.shape[axis])
    return found


def _concatenate_gradient(node: Node, cotangents: Sequence[Value | None], b: Builder) -> Sequence[Value | None]:
    (g,), axis, rank = cotangents, _joined_axis(node), node.type.rank
    if g is None:
        return [None] * len(node.inputs)
    starts = [tuple(first if k == axis else 0 for k in range(rank)) for first in _offsets(node)]
    return [
        b.slice(g, start=start, shape=value.type.shape, step=(1,) * rank)
        for start, value in zip(starts, node.inputs, strict=True)
    ]


def _lower_concatenate(node: Node) -> Kernel:
    """One stage for each operand, stored behind those before it."""
    axis, rank = _joined_axis(node), node.type.rank
    stages = []
    for position, (value, offset) in enumerate(zip(node.inputs, _offsets(node), strict=True)):
        own = tuple(Axis.range(f"i{k}", value.type.shape[k]) for k in range(axis, rank))
        place = [Affine.of({f"i{k}": 1}, offset if k == axis else 0) for k in range(rank)]
        stages.append(Stage(space=own, stores=(Store("out0", tuple(place), forms.load(node, position)),)))
    return Kernel(forms.kernel_name(node), forms.operands(node), forms.axes(node.type.shape[:axis]), tuple(stages))


def _concatenate_samples() -> Sequence[Sample]:
    x = np.sin(np.arange(12.0)).reshape(3, 4)
    whole = np.arange(4, dtype=np.int32)
    return [
        Sample((x, x[:1] + 1), {"axis": 0}, differentiable=(0, 1)),
        Sample((x, x[:, :2] * 2, x + 3), {"axis": -1}, differentiable=(0, 1, 2)),
        Sample((x.reshape(3, 1, 4), np.ones((3, 2, 4))), {"axis": 1}, differentiable=(0, 1)),
        Sample((x.astype(np.float32),), {"axis": 1}),
        Sample((whole, whole[:0], whole), {"axis": 0}),
        Sample((whole > 1, whole < 1), {"axis": 0}),
    ]


CONCATENATE = define(
    Op(
        "concatenate",
        "Tensors one behind the other along an axis.",
        latex=r"\left[x_1; x_2; \ldots\right]",
        attributes={"axis": Attribute("int", "the axis along which they are joined")},
        infer=_infer_concatenate,
        reference=lambda arrays, attributes: (np.concatenate(arrays, axis=attributes["axis"]),),
        gradient=_concatenate_gradient,
        lower=_lower_concatenate,
        samples=_concatenate_samples,
    )
)


def _infer_roll(types: Sequence[TensorType], attributes: Attributes) -> tuple[TensorType, ...]:
    expect_operands(types, 1)
    expect_dtype(types[0], EVERYTHING)
    axes, shifts = attributes["axes"], attributes["shifts"]
    if len(axes) != len(shifts):
        raise ShapeError(f"{len(shifts)} shifts for {len(axes)} axes; give one shift for each axis")
    found = [normalise_axis(axis, types[0].rank) for axis in axes]
    if len(set(found)) != len(found):
        raise ShapeError(f"axes {tuple(axes)} name an axis twice")
    return (types[0],)


def _roll_gradient(node: Node, cotangents: Sequence[Value | None], b: Builder) -> Sequence[Value | None]:
    (g,), attributes = cotangents, node.attributes
    back = tuple(-shift for shift in attributes["shifts"])
    return [None if g is None else b.roll(g, shifts=back, axes=attributes["axes"])]


def _rolled(axis: int, shift: int, size: Dim) -> Index:
    """The index `(i - shift) mod size`, by a comparison where the size is known."""
    own = AxisIndex(f"i{axis}")
    if not isinstance(size, int):
        return Computed(Apply("mod", (as_expr(Affine.of({f"i{axis}": 1}, -shift)), Extent(size))), 0, size)
    shift = shift % max(size, 1)
    if shift == 0:
        return Affine.axis(f"i{axis}")
    wrapped, plain = (as_expr(Affine.of({f"i{axis}": 1}, by)) for by in (size - shift, -shift))
    return Computed(Apply("where", (Apply("lt", (own, Const(shift, i64))), wrapped, plain)), 0, size)


def _lower_roll(node: Node) -> Kernel:
    index: list[Index] = list(forms.identity(node.type.rank))
    for axis, shift in zip(node.attributes["axes"], node.attributes["shifts"], strict=True):
        axis = normalise_axis(axis, node.type.rank)
        index[axis] = _rolled(axis, shift, node.type.shape[axis])
    return forms.map_kernel(node, forms.load(node, 0, index))


ROLL = define(
    Op(
        "roll",
        "Elements moved along axes by shifts; those that leave at one end come in at the other.",
        latex=r"y_i = x_{(i - s) \bmod n}",
        attributes={
            "shifts": Attribute("ints", "how far elements move along each of the axes"),
            "axes": Attribute("ints", "the axes"),
        },
        infer=_infer_roll,
        reference=lambda arrays, attributes: (np.roll(arrays[0], attributes["shifts"], attributes["axes"]),),
        gradient=_roll_gradient,
        lower=_lower_roll,
        samples=lambda: [
            Sample((np.sin(np.arange(12.0)).reshape(3, 4),), {"shifts": (1, -1), "axes": (0, 1)}, differentiable=(0,)),
            Sample((np.sin(np.arange(12.0)).reshape(3, 4),), {"shifts": (6,), "axes": (-1,)}, differentiable=(0,)),
            Sample((np.arange(5, dtype=np.float32),), {"shifts": (-2,), "axes": (0,)}),
            Sample((np.arange(5, dtype=np.int32),), {"shifts": (5,), "axes": (0,)}),
            Sample((np.array([True, False, False]),), {"shifts": (1,), "axes": (0,)}),
        ],
    )
)


def _infer_iota(types: Sequence[TensorType], attributes: Attributes) -> tuple[TensorType, ...]:
    expect_operands(types, 0)
    return (TensorType(attributes["dtype"], (attributes["size"],)),)


def _lower_iota(node: Node) -> Kernel:
    index: Expr = AxisIndex("i0")
    return forms.map_kernel(node, index if node.type.dtype == i64 else Cast(index, node.type.dtype))


IOTA = define(
    Op(
        "iota",
        "The numbers 0, 1, 2, ... below a size.",
        latex=r"y_i = i",
        attributes={
            "size": Attribute("dim", "how many"),
            "dtype": Attribute("dtype", "the dtype of the result", i64),
        },
        infer=_infer_iota,
        reference=lambda arrays, attributes: (np.arange(attributes["size"]).astype(attributes["dtype"].numpy),),
        gradient=NotDifferentiable("it has no operands"),
        lower=_lower_iota,
        samples=lambda: [
            *(Sample((), {"size": 19, "dtype": dtype}) for dtype in (i64, i32, f32, f64)),
            Sample((), {"size": 1}),
        ],
    )
)
