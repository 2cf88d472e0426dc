"""Shape and dtype rules that several families share. Each raises ShapeError or DTypeError with a plain reason."""

from __future__ import annotations

from collections.abc import Sequence

from graphc.errors import DTypeError, ShapeError
from graphc.ir.dims import format_shape
from graphc.ir.op import Attributes, Infer
from graphc.ir.types import DType, TensorType, bool_, f32, f64, i32, i64, u8

FLOATS = (f32, f64)
NUMBERS = (f32, f64, i32, i64)
ORDERED = (*NUMBERS, u8)
INTEGERS = (i32, i64, u8)
EVERYTHING = (*ORDERED, bool_)


def expect_operands(types: Sequence[TensorType], count: int) -> None:
    """Raise ShapeError unless there are `count` operands."""
    if len(types) != count:
        raise ShapeError(f"takes {count} operand{'s' if count != 1 else ''}, got {len(types)}")


def expect_dtype(type_: TensorType, allowed: Sequence[DType], what: str = "the operand") -> None:
    """Raise DTypeError unless the dtype is one of `allowed`."""
    if type_.dtype not in allowed:
        names = ", ".join(map(str, allowed))
        raise DTypeError(f"{what} has dtype {type_.dtype}, not one of {names}; convert it with .astype(...) first")


def expect_equal(types: Sequence[TensorType]) -> TensorType:
    """The common type. Raises DTypeError for mixed dtypes, ShapeError for different shapes."""
    first = types[0]
    for other in types[1:]:
        if other.dtype != first.dtype:
            raise DTypeError(f"operands have dtypes {first.dtype} and {other.dtype}; cast one to the other's dtype")
    expect_equal_shapes(types)
    return first


def expect_equal_shapes(types: Sequence[TensorType]) -> None:
    """Raise ShapeError unless all shapes are equal."""
    for other in types[1:]:
        if other.shape != types[0].shape:
            shapes = f"{format_shape(types[0].shape)} and {format_shape(other.shape)}"
            raise ShapeError(f"operands have shapes {shapes}; make them equal with broadcast_to or reshape")


def normalise_axis(axis: int, rank: int) -> int:
    """`axis` counted from the front. Raises ShapeError when it is out of range."""
    if not -rank <= axis < rank:
        allowed = f"{-rank} to {rank - 1}" if rank else "none, for the operand is a scalar"
        raise ShapeError(f"axis {axis} is out of range for {rank} axes (allowed: {allowed})")
    return axis % rank


def normalise_axes(axes: Sequence[int], rank: int) -> tuple[int, ...]:
    """`axes` counted from the front and sorted. Raises ShapeError for one out of range or named twice."""
    found = sorted(normalise_axis(axis, rank) for axis in axes)
    if len(set(found)) != len(found):
        raise ShapeError(f"axes {tuple(axes)} name an axis twice")
    return tuple(found)


def elementwise_rule(count: int, allowed: Sequence[DType], result: DType | None = None) -> Infer:
    """The rule of an elementwise op: `count` operands of one type; the result has it too, or the dtype `result`."""

    def infer(types: Sequence[TensorType], attributes: Attributes) -> tuple[TensorType, ...]:
        expect_operands(types, count)
        for position, type_ in enumerate(types):
            expect_dtype(type_, allowed, "the operand" if count == 1 else f"operand {position}")
        common = expect_equal(types)
        return (common.with_dtype(result or common.dtype),)

    return infer
