"""Views, joins and creation of tensors: NumPy's functions of these names, for values of a declared graph.

Shapes may hold dimension symbols. Where a size must be known at declaration the error says so.
"""

from __future__ import annotations

import operator
from collections.abc import Sequence
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
    move_axis,
    normalise_axes,
    one_axis,
    promote,
    reshape,
    transpose,
    where,
)
from graphc.dsl.origin import here
from graphc.errors import AttributeValueError, ShapeError
from graphc.ir.builder import explain
from graphc.ir.dims import Dim, Poly, as_dim, divide
from graphc.ir.graph import Value
from graphc.ir.types import DType, as_dtype, bool_, f32, i64

Shape = int | str | Poly | Sequence[int | str | Poly]


# Views.


def expand_dims(x: Operand, axis: int | Sequence[int]) -> Value:
    """New axes of size 1 at the positions `axis` of the result."""
    value = as_value(x)
    given = [axis] if not isinstance(axis, Sequence) else list(axis)
    rank = value.type.rank + len(given)
    found = sorted(a + rank if a < 0 else a for a in map(operator.index, given))
    if len(set(found)) != len(found) or any(not 0 <= a < rank for a in found):
        reason = f"axis {axis} does not name different positions among the {rank} axes of the result"
        raise ShapeError(explain("expand_dims", [value.type], reason, here()))
    dims = iter(value.type.shape)
    return reshape(value, tuple(1 if k in found else next(dims) for k in range(rank)))


def squeeze(x: Operand, axis: int | Sequence[int] | None = None) -> Value:
    """The tensor without axes of size 1: those named, or all of them. ShapeError if a named one has another size."""
    value = as_value(x)
    shape = value.type.shape
    ones = [k for k, d in enumerate(shape) if d == 1]
    axes = ones if axis is None else normalise_axes("squeeze", value, axis)
    for k in axes:
        if shape[k] != 1:
            reason = f"axis {k} has size {shape[k]}; only axes of size 1 can be left out"
            raise ShapeError(explain("squeeze", [value.type], reason, here()))
    return reshape(value, tuple(d for k, d in enumerate(shape) if k not in axes))


def swapaxes(x: Operand, axis1: int, axis2: int) -> Value:
    """Two axes exchanged."""
    value = as_value(x)
    (a,), (b,) = (normalise_axes("swapaxes", value, axis) for axis in (axis1, axis2))
    order = list(range(value.type.rank))
    order[a], order[b] = order[b], order[a]
    return transpose(value, order)


def moveaxis(x: Operand, source: int, destination: int) -> Value:
    """One axis moved to another position; the others keep their order."""
    value = as_value(x)
    (start,), (end,) = (normalise_axes("moveaxis", value, axis) for axis in (source, destination))
    return move_axis(value, start, end)


def ravel(x: Operand) -> Value:
    """All elements along one axis, in row-major order."""
    return reshape(x, (-1,))


def flip(x: Operand, axis: int | Sequence[int] | None = None) -> Value:
    """The elements in reverse order along `axis`, along all axes for None."""
    value = as_value(x)
    axes, shape = normalise_axes("flip", value, axis), value.type.shape
    if not axes:
        return value
    start = tuple(d - 1 if k in axes and d != 0 else 0 for k, d in enumerate(shape))
    steps = tuple(-1 if k in axes else 1 for k in range(len(shape)))
    return apply("slice", value, start=start, shape=shape, step=steps)


def roll(x: Operand, shift: int | Sequence[int], axis: int | Sequence[int] | None = None) -> Value:
    """Elements moved by `shift` along `axis`, round the end; for None along the flattened tensor."""
    value = as_value(x)
    if axis is None:
        return reshape(roll(ravel(value), shift, 0), value.type.shape)
    axes = [axis] if not isinstance(axis, Sequence) else list(axis)
    shifts = [shift] * len(axes) if not isinstance(shift, Sequence) else list(shift)
    given = {"shifts": tuple(map(operator.index, shifts)), "axes": tuple(map(operator.index, axes))}
    return apply("roll", value, **given)


def tile(x: Operand, reps: int | Sequence[int]) -> Value:
    """The tensor repeated as a whole, `reps` times along each axis; missing axes are added in front."""
    value = as_value(x)
    counts = [reps] if not isinstance(reps, Sequence) else list(reps)
    rank = max(len(counts), value.type.rank)
    shape = (*(1,) * (rank - value.type.rank), *value.type.shape)
    times = (*(1,) * (rank - len(counts)), *map(_count, counts))
    between = tuple(d for size in shape for d in (1, size))
    wide = tuple(d for count, size in zip(times, shape, strict=True) for d in (count, size))
    result = tuple(count * size for count, size in zip(times, shape, strict=True))
    return reshape(broadcast_to(reshape(value, between), wide), result)


def repeat(x: Operand, repeats: int, axis: int | None = None) -> Value:
    """Each element `repeats` times in a row along `axis`; for None along the flattened tensor."""
    value = as_value(x)
    if axis is None:
        value, axis = ravel(value), 0
    one = one_axis("repeat", value, axis)
    shape, count = value.type.shape, _count(repeats)
    head, tail = shape[: one + 1], shape[one + 1 :]
    wide = broadcast_to(reshape(value, (*head, 1, *tail)), (*head, count, *tail))
    return reshape(wide, (*shape[:one], shape[one] * count, *tail))


def _count(repeats: Any) -> int:
    try:
        count = operator.index(repeats)
    except TypeError:
        count = -1
    if count < 0:
        raise ShapeError(f"a number of repeats must be a whole number from 0 on, got {repeats!r}")
    return count


# Joins.


def concatenate(arrays: Sequence[Operand], axis: int | None = 0) -> Value:
    """Tensors one behind the other along `axis`; for None their flattened elements."""
    values = _tensors("concatenate", arrays)
    if axis is None:
        values, axis = [ravel(v) for v in values], 0
    return values[0] if len(values) == 1 else apply("concatenate", *values, axis=operator.index(axis))


def stack(arrays: Sequence[Operand], axis: int = 0) -> Value:
    """Tensors of one shape along a new axis."""
    values = _tensors("stack", arrays)
    if any(v.type.shape != values[0].type.shape for v in values):
        reason = "tensors that are stacked must have one shape; concatenate joins along an axis that they have"
        raise ShapeError(explain("stack", [v.type for v in values], reason, here()))
    wide = [expand_dims(v, axis) for v in values]
    return concatenate(wide, axis)


def _tensors(op: str, arrays: Sequence[Operand]) -> list[Value]:
    if isinstance(arrays, Value) or not len(arrays):
        raise ShapeError(f"{op}: give a list of one tensor or more, such as {op}([x, y])")
    given = list(arrays)
    if not any(isinstance(a, Value) for a in given):
        given[0] = as_value(given[0])
    return promote(op, given)


def split(x: Operand, indices_or_sections: int | Sequence[int], axis: int = 0) -> tuple[Value, ...]:
    """Parts along `axis`: so many equal ones, or those between given positions, as in `np.split`."""
    value = as_value(x)
    one = one_axis("split", value, axis)
    size = value.type.shape[one]
    if isinstance(indices_or_sections, Sequence):
        ends: list[Dim] = [as_dim(i) for i in indices_or_sections]
    else:
        sections = operator.index(indices_or_sections)
        part = divide(size, sections) if sections > 0 else None
        if part is None:
            reason = f"axis {one} of size {size} does not divide into {indices_or_sections} equal parts"
            raise ShapeError(explain("split", [value.type], reason, here()))
        ends = [part * k for k in range(1, sections)]
    borders = [0, *ends, size]
    return tuple(_part(value, one, a, b) for a, b in zip(borders, borders[1:], strict=False))


def _part(value: Value, axis: int, start: Dim, stop: Dim) -> Value:
    shape = value.type.shape
    size = stop - start
    if isinstance(size, int) and size < 0:
        raise ShapeError(explain("split", [value.type], f"positions {start} and {stop} are out of order", here()))
    starts = tuple(start if k == axis else 0 for k in range(len(shape)))
    sizes = tuple(size if k == axis else d for k, d in enumerate(shape))
    return apply("slice", value, start=starts, shape=sizes, step=(1,) * len(shape))


# Padding and triangles.


def pad(x: Operand, pad_width: Any, mode: str = "constant", constant_values: float = 0.0) -> Value:
    """Elements added before and after each axis: a number, a pair, or a pair for each axis, as in `np.pad`.

    Modes: "constant", and "edge", "reflect", "symmetric" and "wrap" along axes of known size. A negative width takes
    elements away ("constant" only).
    """
    value = as_value(x)
    widths = _widths(value, pad_width)
    if mode != "constant":
        return _pad_by_index(value, widths, mode)
    kept = tuple((max(-a, 0), max(-b, 0)) for a, b in widths)
    shape = tuple(d - a - b for d, (a, b) in zip(value.type.shape, kept, strict=True))
    steps = (1,) * len(shape)
    if shape != value.type.shape:
        value = apply("slice", value, start=tuple(a for a, _ in kept), shape=shape, step=steps)
    added = [(max(a, 0), max(b, 0)) for a, b in widths]
    if not any(map(any, added)):
        return value
    whole = tuple(d + a + b for d, (a, b) in zip(shape, added, strict=True))
    start = tuple(a for a, _ in added)
    return apply("pad", value, start=start, shape=whole, step=steps, value=float(constant_values))


def _widths(value: Value, pad_width: Any) -> list[tuple[int, int]]:
    try:
        found = np.broadcast_to(np.asarray(pad_width), (value.type.rank, 2))
        exact = found.dtype.kind in "iu"
    except (ValueError, TypeError):
        exact = False
    if not exact:
        reason = f"widths {pad_width!r} are no whole number, pair, or pair for each of its {value.type.rank} axes"
        raise ShapeError(explain("pad", [value.type], reason, here()))
    return [(int(a), int(b)) for a, b in found]


def _pad_by_index(value: Value, widths: Sequence[tuple[int, int]], mode: str) -> Value:
    """Padding that repeats elements, as picking by constant indices."""
    if mode not in ("edge", "reflect", "symmetric", "wrap"):
        raise AttributeValueError(f"pad: mode {mode!r} is none of constant, edge, reflect, symmetric, wrap")
    for axis, width in enumerate(widths):
        size = value.type.shape[axis]
        if width == (0, 0):
            continue
        if not isinstance(size, int) or size == 0 or min(width) < 0:
            reason = f"mode {mode!r} needs widths from 0 on and a known size along axis {axis}, which has {size}"
            raise ShapeError(explain("pad", [value.type], reason, here()))
        numbers = np.pad(np.arange(size), width, mode=mode)  # type: ignore[call-overload]
        value = apply("take", value, constant(numbers, i64), axis=axis)
    return value


def tril(x: Operand, k: int = 0) -> Value:
    """The last two axes' elements on and below diagonal number k, zeros above."""
    return _triangle("tril", x, k)


def triu(x: Operand, k: int = 0) -> Value:
    """The last two axes' elements on and above diagonal number k, zeros below."""
    return _triangle("triu", x, k)


def _triangle(name: str, x: Operand, k: int) -> Value:
    value = as_value(x)
    if value.type.rank < 2:
        raise ShapeError(explain(name, [value.type], "it needs two axes or more", here()))
    rows, columns = value.type.shape[-2:]
    return where(_beside_diagonal("le" if name == "tril" else "ge", rows, columns, k), value, zeros_like(value))


def _beside_diagonal(comparison: str, rows: Dim, columns: Dim, k: int) -> Value:
    """Truth values [rows, columns] of `column - row <comparison> k`."""
    row, column = iota(rows), iota(columns)
    moved = elementwise("add", row, operator.index(k)) if k else row
    return elementwise(comparison, reshape(column, (1, columns)), reshape(moved, (rows, 1)))


def diagonal(x: Operand, offset: int = 0, axis1: int = 0, axis2: int = 1) -> Value:
    """The elements [i, i + offset] of two axes of known size, as a new last axis."""
    value = as_value(x)
    (a,), (b,) = (normalise_axes("diagonal", value, axis) for axis in (axis1, axis2))
    sizes = value.type.shape[a], value.type.shape[b]
    if a == b or not all(isinstance(d, int) for d in sizes):
        reason = f"axes {axis1} and {axis2} must differ and have known sizes; they have {sizes[0]} and {sizes[1]}"
        raise ShapeError(explain("diagonal", [value.type], reason, here()))
    rows, columns = (d for d in sizes if isinstance(d, int))
    rest = [k for k in range(value.type.rank) if k not in (a, b)]
    flat = reshape(transpose(value, (*rest, a, b)), (*(value.type.shape[k] for k in rest), rows * columns))
    first = offset if offset >= 0 else -offset * columns
    count = max(0, min(rows + min(offset, 0), columns - max(offset, 0)))
    lead = flat.type.shape[:-1]
    start = (*(0,) * len(lead), first if count else 0)
    return apply("slice", flat, start=start, shape=(*lead, count), step=(*(1,) * len(lead), columns + 1))


# Creation.


def iota(size: Dim, dtype: DType = i64) -> Value:
    """The numbers 0 .. size-1."""
    return apply("iota", size=size, dtype=dtype)


def full(shape: Shape, value: float, dtype: Any = None) -> Value:
    """A tensor filled with one number: float32 for Python floats, int64 for ints, bool for bools, or `dtype`."""
    number = constant(np.asarray(value), _named(dtype, value))
    return broadcast_to(number, _dims(shape))


def zeros(shape: Shape, dtype: Any = "float32") -> Value:
    """A tensor of zeros."""
    return full(shape, 0, dtype)


def ones(shape: Shape, dtype: Any = "float32") -> Value:
    """A tensor of ones."""
    return full(shape, 1, dtype)


def full_like(x: Operand, value: float, dtype: Any = None) -> Value:
    """A tensor of the shape and dtype of x filled with one number."""
    model = as_value(x).type
    return full(model.shape, value, model.dtype if dtype is None else dtype)


def zeros_like(x: Operand, dtype: Any = None) -> Value:
    """Zeros of the shape and dtype of x."""
    return full_like(x, 0, dtype)


def ones_like(x: Operand, dtype: Any = None) -> Value:
    """Ones of the shape and dtype of x."""
    return full_like(x, 1, dtype)


def arange(start: Any, stop: Any = None, step: Any = None, dtype: Any = None) -> Value:
    """start, start + step, ... before stop: `arange(stop)` or `arange(start, stop, step)`; int64 for whole numbers.

    `arange("N")`, with a dimension symbol, counts to a size that is known when the program runs.
    """
    first, last = (0, start) if stop is None else (start, stop)
    by = 1 if step is None else step
    if isinstance(last, str | Poly):
        if (first, by) != (0, 1):
            raise ShapeError(f"arange to the symbol {last} starts at 0 with step 1; add to it or multiply it")
        return iota(as_dim(last), i64 if dtype is None else as_dtype(dtype))
    if by == 0:
        raise AttributeValueError("arange: the step is 0; it must be positive or negative")
    numbers = np.arange(first, last, by)
    target = _named(dtype, numbers.dtype.type(0).item())
    if (first, by) == (0, 1) and numbers.dtype.kind == "i":
        return iota(len(numbers), target)
    return constant(numbers, target)


def linspace(start: float, stop: float, num: int | str | Poly = 50, endpoint: bool = True, dtype: Any = None) -> Value:
    """`num` evenly spaced numbers from start to stop, which is left out without `endpoint`; float32 by default."""
    target = f32 if dtype is None else as_dtype(dtype)
    count = as_dim(num)
    if isinstance(count, int):
        return constant(np.linspace(start, stop, count, endpoint=endpoint), target)
    gaps = apply("size", dim=count - 1 if endpoint else count)
    gap = elementwise("maximum", cast(gaps, target), 1.0)  # a single number has no gap
    return elementwise("add", elementwise("mul", elementwise("div", iota(count, target), gap), stop - start), start)


def eye(n: int | str | Poly, m: int | str | Poly | None = None, k: int = 0, dtype: Any = "float32") -> Value:
    """Ones on diagonal number k of a matrix [n, m], zeros elsewhere; square by default."""
    rows = as_dim(n)
    columns = rows if m is None else as_dim(m)
    return cast(_beside_diagonal("eq", rows, columns, k), dtype)


def _dims(shape: Shape) -> tuple[Dim, ...]:
    if isinstance(shape, Value):
        raise ShapeError("a shape is a tuple of sizes, got a tensor; write zeros(x.shape) or zeros_like(x)")
    return tuple(as_dim(d) for d in (shape if isinstance(shape, (tuple, list)) else (shape,)))  # type: ignore[arg-type]


def _named(dtype: Any, example: Any) -> DType:
    """The dtype asked for, or the one of a Python number."""
    if dtype is not None:
        return as_dtype(dtype)
    if isinstance(example, bool | np.bool_):
        return bool_
    return i64 if isinstance(example, int | np.integer) else f32
