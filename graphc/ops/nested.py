"""What ops that run graphs share: their type rule, and building the graphs of their derivatives.

The graphs are attributes and closed: all that they use is an input of theirs, and so an operand of the op. Graphs of
derivatives are made of copies: no value of another graph is used in them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

from graphc.errors import DTypeError, ShapeError
from graphc.ir.builder import Builder
from graphc.ir.dims import Dim
from graphc.ir.graph import Graph, Value, inlined, topological
from graphc.ir.op import OPS, Forward, Reverse
from graphc.ir.types import TensorType


def expect_inputs(body: Graph, types: Sequence[TensorType], what: str) -> None:
    """Raise ShapeError or DTypeError unless the inputs of `body`, which messages call `what`, have these types."""
    if len(body.inputs) != len(types):
        raise ShapeError(f"{what} takes {len(body.inputs)} values, it is given {len(types)}")
    for value, given in zip(body.inputs, types, strict=True):
        if value.type != given:
            wrong = ShapeError if value.type.dtype == given.dtype else DTypeError
            raise wrong(f"{what}'s input {value.name} is {value.type}, it is given {given}")


def expect_types(found: Sequence[TensorType], wanted: Sequence[TensorType], found_by: str, wanted_by: str) -> None:
    """Raise ShapeError or DTypeError at the first difference of two lists of types, which messages name."""
    if len(found) != len(wanted):
        raise ShapeError(f"{found_by} gives {len(found)} values, {wanted_by} {len(wanted)}; they must be as many")
    for position, (one, other) in enumerate(zip(found, wanted, strict=True)):
        if one != other:
            wrong = ShapeError if one.dtype == other.dtype else DTypeError
            advice = "reshape or broadcast one" if one.dtype == other.dtype else "convert one with .astype(...)"
            raise wrong(f"{found_by} gives {one} at position {position}, {wanted_by} {other}; {advice}")


def output_types(body: Graph) -> tuple[TensorType, ...]:
    """The types of a graph's outputs."""
    return tuple(v.type for v in body.outputs)


def without_axis(type_: TensorType) -> TensorType:
    """The type of a slice along axis 0."""
    return TensorType(type_.dtype, type_.shape[1:])


def stacked_on(type_: TensorType, length: Dim) -> TensorType:
    """The type of `length` tensors stacked on a new axis 0."""
    return TensorType(type_.dtype, (length, *type_.shape))


class Parameters:
    """Makes inputs of a new graph with names of their own, none of those `taken`."""

    def __init__(self, taken: Iterable[str] = ()) -> None:
        self._names = set(taken)

    def add(self, name: str, type_: TensorType) -> Value:
        """A new input called `name`, with a number added if there is one of that name."""
        unique, count = name, 1
        while unique in self._names:
            count += 1
            unique = f"{name}_{count}"
        self._names.add(unique)
        return Value(type_, name=unique)

    def like(self, values: Iterable[Value], note: str = "") -> list[Value]:
        """New inputs of the names, with `note` added, and types of graph inputs."""
        return [self.add(f"{v.name}.{note}" if note else v.name, v.type) for v in values]


def used_by(outputs: Iterable[Value]) -> set[Value]:
    """The outputs and all values that they are computed from."""
    given = tuple(outputs)
    return {*given, *(v for node in topological(given) for v in node.inputs)}


def floats(values: Iterable[Value]) -> list[Value]:
    """The values that have derivatives."""
    return [v for v in values if v.type.dtype.is_float]


def filled(found: Value | None, type_: TensorType, builder: Builder) -> Value:
    """The value, or zeros for None."""
    return builder.full(0, type_) if found is None else found


def apply_nested(builder: Builder, op: str, operands: Sequence[Value], **attributes: Any) -> tuple[Value, ...]:
    """The outputs, however many, of a new node."""
    found = builder.apply(OPS[op], operands, attributes)
    return found if isinstance(found, tuple) else (found,)


def given(value: Value | None) -> Value:
    """The value, which is known to be there."""
    assert value is not None
    return value


def pulled_back(
    body: Graph, inputs: Sequence[Value], outputs: Sequence[int], vectors: Sequence[Value], b: Builder, reverse: Reverse
) -> list[Value | None]:
    """The cotangents that `body` on `inputs` gives each of them, for cotangents of its outputs of these positions."""
    results, wrt = inlined(body, inputs), floats(inputs)
    found = dict(zip(wrt, reverse([results[k] for k in outputs], vectors, wrt, b), strict=True))
    return [found.get(v) for v in inputs]


def pushed_forward(
    outputs: Sequence[Value], wrt: Sequence[Value], vectors: Sequence[Value], b: Builder, forward: Forward
) -> list[Value | None]:
    """The tangent of each output, for tangents of the values `wrt`."""
    of = floats(dict.fromkeys(outputs))
    found = dict(zip(of, forward(of, wrt, vectors, b), strict=True))
    return [found.get(v) for v in outputs]


Pushed = tuple[list[Value], list[Value], tuple[Value, ...], list[Value | None]]


def pushed_body(body: Graph, moving: Sequence[int], b: Builder, forward: Forward) -> Pushed:
    """Inputs for a copy of `body`, tangents of those at the positions `moving`, its outputs, and their tangents."""
    parameters = Parameters()
    inputs = parameters.like(body.inputs)
    wrt = [inputs[i] for i in moving]
    vectors, outputs = parameters.like(wrt, "tangent"), inlined(body, inputs)
    return inputs, vectors, outputs, pushed_forward(outputs, wrt, vectors, b, forward)


def closure(start: Iterable[int], reached: Callable[[list[int]], Iterable[int]]) -> list[int]:
    """The smallest set of positions with `start` to which what it reaches adds nothing, in order."""
    active = set(start)
    while True:
        more = active.union(reached(sorted(active)))
        if more == active:
            return sorted(active)
        active = more
