"""Building nodes: type inference, weak Python scalars and explicit broadcasting, in one place.

The same `Op.infer` serves here and in the verifier. Elementwise ops take operands of equal shape only;
`Builder.elementwise` inserts the `broadcast_to` and `reshape` nodes that NumPy's rules ask for, so that
gradients of broadcasts are ordinary nodes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from graphc.errors import GraphcError, ShapeError
from graphc.ir.dims import Dim, format_shape
from graphc.ir.graph import NOWHERE, Literal, Node, Origin, Value
from graphc.ir.op import OPS, Op
from graphc.ir.types import DType, TensorType


@dataclass
class Builder:
    """Makes nodes that carry `origin`. `builder.add(x, y)` applies the op `add`; errors name op, shapes and origin."""

    origin: Origin = NOWHERE

    def __getattr__(self, name: str) -> Callable[..., Any]:
        if name.startswith("_") or name not in OPS:
            raise AttributeError(f"no op is called {name!r}")
        op = OPS[name]

        def apply_op(*inputs: Value, **attributes: Any) -> Any:
            return self.apply(op, inputs, attributes)

        return apply_op

    def apply(self, op: Op, inputs: Sequence[Value], attributes: dict[str, Any]) -> Value | tuple[Value, ...]:
        """Apply `op`: one Value for one output, else a tuple. Raises the op's error with operands and origin added."""
        types = [value.type for value in inputs]
        try:
            full = op.complete(attributes)
            output_types = op.infer(types, full)
        except GraphcError as error:
            raise type(error)(explain(op.name, types, str(error), self.origin)) from None
        node = Node(op, tuple(inputs), full, output_types, self.origin)
        return node.outputs[0] if len(node.outputs) == 1 else node.outputs

    @contextmanager
    def at(self, origin: Origin) -> Iterator[Builder]:
        """Give nodes made inside the `with` block another origin."""
        before, self.origin = self.origin, origin
        try:
            yield self
        finally:
            self.origin = before

    def constant(self, value: Any, dtype: DType | None = None) -> Value:
        """A constant of an array-like, cast to `dtype` when given."""
        array = np.asarray(value) if dtype is None else np.asarray(value).astype(dtype.numpy)
        return self._one("constant", (), {"value": Literal.of(array)})

    def full(self, value: float, type_: TensorType) -> Value:
        """A tensor of `type_` filled with one number."""
        return self.broadcast(self.constant(value, type_.dtype), type_.shape)

    def broadcast(self, value: Value, shape: tuple[Dim, ...]) -> Value:
        """`value` broadcast to `shape` by NumPy's rules; the value itself when the shape is that already."""
        if value.type.shape == shape:
            return value
        return self._one("broadcast_to", (value,), {"shape": shape})

    def elementwise(self, name: str, /, *inputs: Value, **attributes: Any) -> Value:
        """Apply an elementwise op after broadcasting its operands against each other."""
        types = [value.type for value in inputs]
        try:
            shape = broadcast_shapes([t.shape for t in types])
        except ShapeError as error:
            raise ShapeError(explain(name, types, str(error), self.origin)) from None
        return self._one(name, tuple(self.broadcast(v, shape) for v in inputs), attributes)

    def _one(self, name: str, inputs: tuple[Value, ...], attributes: dict[str, Any]) -> Value:
        result = self.apply(OPS[name], inputs, attributes)
        assert isinstance(result, Value)
        return result


def broadcast_shapes(shapes: Sequence[tuple[Dim, ...]]) -> tuple[Dim, ...]:
    """The common shape by NumPy's rules (align right; equal or 1). Raises ShapeError naming the first clash."""
    rank = max((len(s) for s in shapes), default=0)
    result: list[Dim] = [1] * rank
    for shape in shapes:
        for position, dim in enumerate(shape, start=rank - len(shape)):
            if dim == 1 or dim == result[position]:
                continue
            if result[position] != 1:
                joined = " and ".join(format_shape(s) for s in shapes)
                raise ShapeError(
                    f"shapes {joined} do not broadcast: axis {position - rank} has {result[position]} and {dim}; "
                    "they must be equal or 1"
                )
            result[position] = dim
    return tuple(result)


def explain(op: str, types: Sequence[TensorType], reason: str, origin: Origin) -> str:
    """An error message that names the op, its operands' types, the module path and the user's line."""
    operands = ", ".join(map(str, types))
    module = f" in module {origin.module}" if origin.module else ""
    place = f"\n  declared at {origin.place}" if origin.place else ""
    return f"{op}({operands}){module}: {reason}{place}"


def derived(origin: Origin, note: str) -> Origin:
    """The origin of a node that the compiler made out of one at `origin`, such as its gradient."""
    return replace(origin, module=f"{origin.module}.{note}" if origin.module else note)
