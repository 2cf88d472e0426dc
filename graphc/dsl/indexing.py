"""Picking elements: NumPy's indexing syntax, indices that are arrays or symbols, and sorting.

Index arrays that are symbols must hold 0 .. size-1, which a call checks if they are inputs; constant ones may be
negative, and are checked at once. A mask has no place here: its number of elements is no shape that a program knows.
"""

from __future__ import annotations

import operator
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from graphc.dsl.declare import (
    Operand,
    apply,
    as_value,
    broadcast_to,
    cast,
    constant,
    elementwise,
    one_axis,
    promote,
    reshape,
)
from graphc.dsl.origin import here
from graphc.errors import DTypeError, ShapeError, SymbolError
from graphc.ir.builder import broadcast_shapes, explain
from graphc.ir.dims import Dim, Poly, divide
from graphc.ir.graph import Value
from graphc.ir.types import bool_, i32, i64
from graphc.ops.movement import is_surely_at_least

# NumPy's syntax.


@dataclass
class _Selection:
    """What a key asks for: positions along each axis, index arrays by axis, and the shape when it is done."""

    start: list[Dim] = field(default_factory=list)
    size: list[Dim] = field(default_factory=list)
    step: list[int] = field(default_factory=list)
    arrays: dict[int, Value] = field(default_factory=dict)
    layout: list[int | None] = field(default_factory=list)  # axes that stay, in order; None is a new one of size 1
    order: list[str] = field(default_factory=list)  # what each key was: "array", "number" or "other"

    def add(self, start: Dim, size: Dim, step: int = 1) -> None:
        """Positions along the next axis."""
        self.start.append(start)
        self.size.append(size)
        self.step.append(step)


def index(value: Value, key: Any) -> Value:
    """`value[key]`: numbers, slices, `...`, `None` and integer arrays (lists, NumPy arrays, symbols).

    Several index arrays broadcast against each other and must stand side by side. Raises ShapeError for positions that
    do not exist, DTypeError for indices that are no integers, SymbolError for masks.
    """
    keys = list(key) if isinstance(key, tuple) else [key]
    chosen = _selection(value, _without_ellipsis(value, keys))
    whole = (0,) * len(chosen.start), value.type.shape, (1,) * len(chosen.start)
    places = tuple(chosen.start), tuple(chosen.size), tuple(chosen.step)
    picked = value if places == whole else apply("slice", value, start=places[0], shape=places[1], step=places[2])
    if chosen.arrays:
        return _with_arrays(picked, chosen)
    return reshape(picked, tuple(1 if k is None else chosen.size[k] for k in chosen.layout))


def _without_ellipsis(value: Value, keys: list[Any]) -> list[Any]:
    """Keys with `...` written out as whole slices."""
    rank = value.type.rank
    named = sum(k is not None and k is not Ellipsis for k in keys)
    dots = [position for position, k in enumerate(keys) if k is Ellipsis]
    if named > rank or len(dots) > 1:
        raise ShapeError(explain("index", [value.type], f"{len(keys)} indices for {rank} axes", here()))
    place = dots[0] if dots else len(keys)
    return [*keys[:place], *[slice(None)] * (rank - named), *keys[place + 1 :]]


def _selection(value: Value, keys: Sequence[Any]) -> _Selection:
    chosen = _Selection()
    for key in keys:
        axis = len(chosen.start)
        if key is None:
            chosen.layout.append(None)
            chosen.order.append("other")
        elif isinstance(key, slice):
            chosen.add(*_positions(value, axis, key))
            chosen.layout.append(axis)
            chosen.order.append("other")
        elif isinstance(key, int | np.integer) and not isinstance(key, bool):
            chosen.add(_position(value, axis, int(key)), 1)
            chosen.order.append("number")
        else:
            chosen.arrays[axis] = index_array(value, axis, key)
            chosen.add(0, value.type.shape[axis])
            chosen.layout.append(axis)
            chosen.order.append("array")
    return chosen


def _fail(value: Value, reason: str) -> ShapeError:
    return ShapeError(explain("index", [value.type], reason, here()))


def _position(value: Value, axis: int, number: int) -> Dim:
    """A number as a position counted from the front."""
    size = value.type.shape[axis]
    found: Dim = number if number >= 0 else size + number
    if not (is_surely_at_least(found, 0) and is_surely_at_least(size - found, 1)):
        symbolic = " for every size from 1 on" if isinstance(size, Poly) else ""
        raise _fail(value, f"index {number} is out of range for axis {axis} of size {size}{symbolic}")
    return found


def _positions(value: Value, axis: int, key: slice) -> tuple[Dim, Dim, int]:
    """Start, count and step of a slice, bounds cut off at the ends as Python does."""
    size = value.type.shape[axis]
    for bound in (key.start, key.stop, key.step):
        if not (bound is None or isinstance(bound, int | np.integer | Poly)):
            reason = f"the slice bound {bound!r} is no whole number; pick computed positions with x[start + arange(n)]"
            raise _fail(value, reason)
    step = 1 if key.step is None else operator.index(key.step)
    if step == 0:
        raise _fail(value, "the step of a slice is 0; it must be positive or negative")
    if isinstance(size, int) and not isinstance(key.start, Poly) and not isinstance(key.stop, Poly):
        start, stop, step = key.indices(size)
        return (start, len(range(start, stop, step)), step) if len(range(start, stop, step)) else (0, 0, 1)
    return _symbolic_positions(value, axis, key, step)


def _symbolic_positions(value: Value, axis: int, key: slice, step: int) -> tuple[Dim, Dim, int]:
    """As `_positions` where a size or bound is an expression: nothing may depend on what its symbols are."""
    size = value.type.shape[axis]
    first, end = (0, size) if step > 0 else (size - 1, -1)
    start, stop = (
        default if bound is None else bound if isinstance(bound, Poly) or bound >= 0 else size + int(bound)
        for bound, default in ((key.start, first), (key.stop, end))
    )
    span = stop - start if step > 0 else start - stop
    count = divide(span, abs(step))
    low, high = (start, stop) if step > 0 else (stop + 1, start + 1)
    inside = is_surely_at_least(low, 0) and is_surely_at_least(size - high, 0) and is_surely_at_least(span, 0)
    if count is None or not inside:
        reason = f"positions {start} to {stop} by {step} along axis {axis} of size {size} depend on what the size is"
        raise _fail(value, f"{reason}, which may be as small as 1; slice an axis of known size")
    return start, count, step


def index_array(value: Value, axis: int, key: Any) -> Value:
    """Indices along an axis as a value; constant ones counted from the front, and checked."""
    size = value.type.shape[axis]
    if isinstance(key, Value) or hasattr(key, "ir"):
        found: Value = key if isinstance(key, Value) else key.ir
        if found.type.dtype == bool_:
            raise _no_mask(value, found.type)
        if not found.type.dtype.is_integer:
            reason = f"indices must be integers, got {found.type}; convert them with .astype('int32')"
            raise DTypeError(explain("index", [value.type], reason, here()))
        return found
    try:
        array = np.asarray(key)
    except ValueError:
        raise _fail(value, f"{key!r} is no array of indices") from None
    if array.size == 0 and array.dtype == np.float64:
        array = array.astype(np.int64)  # an empty list
    if array.dtype.kind == "b":
        raise _no_mask(value, f"bool{list(array.shape)}")
    if array.dtype.kind not in "iu":
        reason = f"the index {key!r} is none of: whole number, slice, ..., None, integer array"
        raise DTypeError(explain("index", [value.type], reason, here()))
    return constant(_counted_from_front(value, axis, size, array.astype(np.int64)), i64)


def _counted_from_front(value: Value, axis: int, size: Dim, array: Any) -> Any:
    if not isinstance(size, int):
        if array.size and (array.min() < 0 or array.max() > 0):
            reason = f"constant indices {array.min()} to {array.max()} along axis {axis} of size {size}"
            raise _fail(value, f"{reason} depend on what the size is; index an axis of known size")
        return array
    if array.size and (array.min() < -size or array.max() >= size):
        reason = f"indices {array.min()} to {array.max()} are out of range for axis {axis} of size {size}"
        raise _fail(value, reason)
    return np.where(array < 0, array + size, array)


def _no_mask(value: Value, mask: object) -> SymbolError:
    reason = f"a mask ({mask}) picks a number of elements that is not known at declaration; use where(mask, x, 0)"
    return SymbolError(explain("index", [value.type], reason, here()))


def _with_arrays(value: Value, chosen: _Selection) -> Value:
    """Pick by index arrays: neighbouring axes are joined, and their indices made one number."""
    picking = [k for k, kind in enumerate(chosen.order) if kind != "other"]
    if picking[-1] - picking[0] >= len(picking):
        raise _fail(value, "index arrays and numbers must stand side by side; index in two steps, or transpose first")
    axes = sorted(chosen.arrays)
    kept = [k for k in chosen.layout if k is not None]
    plain = reshape(value, tuple(chosen.size[k] for k in kept))
    place = kept.index(axes[0])
    flat, position = _joined(plain, place, [chosen.arrays[k] for k in axes])
    found = apply("take", flat, position, axis=place)
    return reshape(found, _final_shape(chosen, axes, position.type.shape))


def _final_shape(chosen: _Selection, axes: Sequence[int], picked: tuple[Dim, ...]) -> tuple[Dim, ...]:
    shape: list[Dim] = []
    for k in chosen.layout:
        if k is None:
            shape.append(1)
        elif k == axes[0]:
            shape += picked
        elif k not in axes:
            shape.append(chosen.size[k])
    return tuple(shape)


def _joined(value: Value, place: int, arrays: Sequence[Value]) -> tuple[Value, Value]:
    """The value with the axes from `place` on, one for each index array, as one; and the index along it."""
    if len(arrays) == 1:
        return value, arrays[0]
    shape = value.type.shape
    try:
        common = broadcast_shapes([a.type.shape for a in arrays])
    except ShapeError as error:
        raise _fail(value, f"index arrays: {error}") from None
    total: Value | None = None
    for axis, array in enumerate(arrays, start=place):
        wide = broadcast_to(cast(array, i64), common)
        total = wide if total is None else elementwise("add", elementwise("mul", total, _size(shape[axis])), wide)
    assert total is not None
    joined = shape[place]
    for dim in shape[place + 1 : place + len(arrays)]:
        joined = joined * dim
    return reshape(value, (*shape[:place], joined, *shape[place + len(arrays) :])), total


def _size(dim: Dim) -> Operand:
    return dim if isinstance(dim, int) else apply("size", dim=dim)


# Functions of indices.


def take(x: Operand, indices: Operand, axis: int | None = None) -> Value:
    """The slices of x that `indices` name along `axis`; for None the elements of the flattened tensor."""
    value = as_value(x)
    if axis is None:
        value, axis = reshape(value, (-1,)), 0
    one = one_axis("take", value, axis)
    return apply("take", value, index_array(value, one, indices), axis=one)


def take_along_axis(x: Operand, indices: Operand, axis: int) -> Value:
    """For each index the element of x at that index along `axis`; the other axes broadcast (`torch.gather`)."""
    value = as_value(x)
    one = one_axis("take_along_axis", value, axis)
    position = index_array(value, one, indices)
    if position.type.rank != value.type.rank:
        raise _fail(value, f"indices {position.type} must have as many axes as the tensor, {value.type.rank}")
    sides = [[1 if k == one else d for k, d in enumerate(v.type.shape)] for v in (value, position)]
    try:
        common = broadcast_shapes([tuple(side) for side in sides])
    except ShapeError as error:
        raise _fail(value, f"indices {position.type}: {error}") from None

    def widened(v: Value) -> Value:
        return broadcast_to(v, tuple(v.type.shape[k] if k == one else d for k, d in enumerate(common)))

    return apply("take_along_axis", widened(value), widened(position), axis=one)


def scatter_add(x: Operand, indices: Operand, updates: Operand, axis: int = 0) -> Value:
    """x with each of `updates` added at its index along `axis`; an element named twice gets both.

    `updates` has the shape of `take(x, indices, axis)` and broadcasts to it.
    """
    value, added = promote("scatter_add", (x, updates)) if isinstance(x, Value) else (as_value(x), as_value(updates))
    one = one_axis("scatter_add", value, axis)
    position = index_array(value, one, indices)
    shape = value.type.shape
    wanted = (*shape[:one], *position.type.shape, *shape[one + 1 :])
    total = apply("scatter_add", broadcast_to(added, wanted), position, axis=one, size=shape[one])
    return elementwise("add", value, total)


# Sorting.


def argsort(x: Operand, axis: int | None = -1, descending: bool = False) -> Value:
    """The indices that sort x along `axis`, int64, stable; a NaN is the greatest. n elements take n^2 steps."""
    value = as_value(x)
    if axis is None:
        value, axis = reshape(value, (-1,)), 0
    one = one_axis("argsort", value, axis)
    return _order(value, one, descending, value.type.shape[one])


def sort(x: Operand, axis: int | None = -1, descending: bool = False) -> Value:
    """x sorted along `axis` (None: flattened); a NaN is the greatest. Elements keep their gradients. n^2 steps."""
    value = as_value(x)
    if axis is None:
        value, axis = reshape(value, (-1,)), 0
    return apply("take_along_axis", value, argsort(value, axis, descending), axis=operator.index(axis))


def topk(x: Operand, k: int, axis: int = -1, largest: bool = True) -> tuple[Value, Value]:
    """The k largest (or smallest) elements along `axis` in order, and their indices; of equal ones the first."""
    value = as_value(x)
    one = one_axis("topk", value, axis)
    size = value.type.shape[one]
    if isinstance(k, bool) or not isinstance(k, int | np.integer) or not 0 <= k or not is_surely_at_least(size - k, 0):
        reason = f"k={k!r} must be a whole number from 0 to the size of axis {one}, {size}"
        raise ShapeError(explain("topk", [value.type], reason, here()))
    order = _order(value, one, largest, int(k))
    return apply("take_along_axis", value, order, axis=one), order


def _order(value: Value, axis: int, descending: bool, count: Dim) -> Value:
    if value.type.dtype == bool_:
        value = cast(value, i32)
    ranks = apply("ranks", value, axis=axis, descending=descending)
    return apply("inverse_permutation", ranks, axis=axis, size=count)
