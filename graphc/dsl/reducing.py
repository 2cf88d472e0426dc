"""Reductions and running totals of values over axes. `axis` is an axis, several, or None for all of them.

Negative axes count from the end. The functions with NumPy's or PyTorch's names have their meaning; ties follow PyTorch:
`amax` and `amin` share the gradient of equal elements evenly, `max` and `min` along an axis give it to one of them.

An axis of a fixed size 0 has no extremum, which is an error when it is declared. A batch of `N` rows can have none at a
call: then `max` is the least number of its dtype (-inf), `min` the greatest, and `argmax` and `argmin` are the greatest
int64, an index of no row. Sums of integers are in the operand's dtype, and wrap around when they leave its range.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeAlias

from graphc.dsl.declare import (
    Operand,
    apply,
    as_value,
    cast,
    elementwise,
    normalise_axes,
    one_axis,
    power,
    reduce,
    reshape,
    where,
)
from graphc.dsl.origin import here
from graphc.errors import AttributeValueError, ShapeError
from graphc.ir.builder import explain
from graphc.ir.graph import Value
from graphc.ir.types import bool_, f32, i64

Axes: TypeAlias = int | Sequence[int] | None


def _extreme(op: str, x: Operand, axis: Axes, keepdims: bool, one: bool) -> Value:
    value = as_value(x)
    if value.type.dtype == bool_:
        return reduce("any" if op == "max" else "all", value, axis, keepdims)
    axes = normalise_axes(op, value, axis)
    picks = one and axis is not None and len(axes) == 1
    return reduce(op, value, axes, keepdims, ties="first" if picks else "even")


def max(x: Operand, axis: Axes = None, keepdims: bool = False) -> Value:
    """The largest element over `axis`; NaN wins. Along one axis the first of equal ones has the gradient."""
    return _extreme("max", x, axis, keepdims, one=True)


def min(x: Operand, axis: Axes = None, keepdims: bool = False) -> Value:
    """The smallest element over `axis`; NaN wins. Along one axis the first of equal ones has the gradient."""
    return _extreme("min", x, axis, keepdims, one=True)


def amax(x: Operand, axis: Axes = None, keepdims: bool = False) -> Value:
    """The largest element over `axis`; NaN wins. Equal largest elements share the gradient evenly."""
    return _extreme("max", x, axis, keepdims, one=False)


def amin(x: Operand, axis: Axes = None, keepdims: bool = False) -> Value:
    """The smallest element over `axis`; NaN wins. Equal smallest elements share the gradient evenly."""
    return _extreme("min", x, axis, keepdims, one=False)


def argmax(x: Operand, axis: int | None = None, keepdims: bool = False) -> Value:
    """The position of the first largest element along `axis` (None: when flattened), int64; it has no gradient."""
    return _position("argmax", x, axis, keepdims)


def argmin(x: Operand, axis: int | None = None, keepdims: bool = False) -> Value:
    """The position of the first smallest element along `axis` (None: when flattened), int64; it has no gradient."""
    return _position("argmin", x, axis, keepdims)


def _position(op: str, x: Operand, axis: int | None, keepdims: bool) -> Value:
    value = as_value(x)
    shape = value.type.shape
    if value.type.dtype == bool_:
        value = cast(value, "uint8")
    if axis is None:
        found = apply(op, reshape(value, (-1,)), axis=0)
        return reshape(found, (1,) * len(shape)) if keepdims else found
    one = one_axis(op, value, axis)
    found = apply(op, value, axis=one)
    return reshape(found, (*shape[:one], 1, *shape[one + 1 :])) if keepdims else found


def prod(x: Operand, axis: Axes = None, keepdims: bool = False) -> Value:
    """The product over `axis`; bools are multiplied in int64. Its gradient, right at zeros, takes n^2 steps."""
    value = as_value(x)
    return reduce("prod", cast(value, i64) if value.type.dtype == bool_ else value, axis, keepdims)


def var(x: Operand, axis: Axes = None, keepdims: bool = False, *, correction: int = 1) -> Value:
    """The variance over `axis`, unbiased unless `correction=0`; float32 for integers."""
    return _moment("var", x, axis, keepdims, correction)


def std(x: Operand, axis: Axes = None, keepdims: bool = False, *, correction: int = 1) -> Value:
    """The standard deviation over `axis`, of the unbiased variance unless `correction=0`; where it is 0 so is its
    gradient."""
    return _moment("std", x, axis, keepdims, correction)


def _moment(op: str, x: Operand, axis: Axes, keepdims: bool, correction: int) -> Value:
    value = _real(x)
    return apply(op, value, axes=normalise_axes(op, value, axis), keepdims=keepdims, correction=correction)


def logsumexp(x: Operand, axis: Axes = -1, keepdims: bool = False) -> Value:
    """log(sum(exp(x))) over `axis`, the last one by default, without overflow."""
    value = _real(x)
    return apply("logsumexp", value, axes=normalise_axes("logsumexp", value, axis), keepdims=keepdims)


def norm(x: Operand, ord: float | str | None = 2, axis: Axes = None, keepdims: bool = False) -> Value:
    """The vector norm over `axis`: (sum |x|^ord)^(1/ord), Euclidean by default; also ord 0 (count), inf and -inf.

    At 0 the gradient is 0. Raises AttributeValueError for other orders: norms of matrices are not available.
    """
    value = _real(x)
    order = 2.0 if ord in ("fro", None) else ord
    if not isinstance(order, int | float) or order != order or -float("inf") < order < 0:
        reason = f"ord={ord!r} is no vector norm; use 0, a positive number, inf or -inf"
        raise AttributeValueError(explain("norm", [value.type], reason, here()))
    if order == 2:
        return apply("norm", value, axes=normalise_axes("norm", value, axis), keepdims=keepdims)
    magnitude = elementwise("abs", value)
    if abs(order) == float("inf"):
        return amax(magnitude, axis, keepdims) if order > 0 else amin(magnitude, axis, keepdims)
    if order == 0:
        return reduce("sum", cast(elementwise("ne", value, 0.0), value.type.dtype), axis, keepdims)
    total = reduce("sum", power(magnitude, order), axis, keepdims)
    if order == 1:
        return total
    vanishes = elementwise("eq", total, 0.0)
    return where(vanishes, 0.0, power(where(vanishes, 1.0, total), 1 / order))


def any(x: Operand, axis: Axes = None, keepdims: bool = False) -> Value:
    """Whether an element over `axis` is true or not 0; false for none."""
    return reduce("any", _truth(x), axis, keepdims)


def all(x: Operand, axis: Axes = None, keepdims: bool = False) -> Value:
    """Whether all elements over `axis` are true or not 0; true for none."""
    return reduce("all", _truth(x), axis, keepdims)


def cumsum(x: Operand, axis: int | None = None, reverse: bool = False) -> Value:
    """The running sum along `axis` (None: of the flattened tensor), from the end if `reverse`; n^2 steps for n."""
    return _running("cumsum", x, axis, reverse)


def cumprod(x: Operand, axis: int | None = None, reverse: bool = False) -> Value:
    """The running product along `axis` (None: of the flattened tensor); n^2 steps for n, and n^3 for its gradient."""
    return _running("cumprod", x, axis, reverse)


def _running(op: str, x: Operand, axis: int | None, reverse: bool) -> Value:
    value = as_value(x)
    if value.type.dtype == bool_:
        value = cast(value, i64)
    if axis is None:
        value, axis = reshape(value, (-1,)), 0
    one = one_axis(op, value, axis)
    return apply(op, value, axis=one, reverse=reverse)


def searchsorted(a: Operand, v: Operand, side: str = "left") -> Value:
    """For each element of v the position at which it keeps the vector `a` sorted: before equal ones, or after them.

    int64 with the shape of v. It counts elements of `a`, so n times m steps. Raises ShapeError unless `a` has one axis.
    """
    from_left = {"left": "ge", "right": "gt"}
    if side not in from_left:
        raise AttributeValueError(f"searchsorted: side={side!r} is neither 'left' nor 'right'")
    values, wanted = as_value(a), as_value(v)
    if values.type.rank != 1:
        reason = f"the sorted operand has {values.type.rank} axes; it must be a vector"
        raise ShapeError(explain("searchsorted", [values.type, wanted.type], reason, here()))
    column = reshape(wanted, (*wanted.type.shape, 1))
    stays_behind = elementwise(from_left[side], values, column)  # false for a NaN that is sought: it goes last
    return reduce("sum", cast(elementwise("logical_not", stays_behind), i64), -1, False)


def _real(x: Operand) -> Value:
    value = as_value(x)
    return value if value.type.dtype.is_float else cast(value, f32)


def _truth(x: Operand) -> Value:
    value = as_value(x)
    return value if value.type.dtype == bool_ else elementwise("ne", value, 0)
