"""Constant folding: nodes of constants are computed now, by the ops' own references, in their own dtype."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from graphc.ir.builder import Builder
from graphc.ir.graph import Graph, Node, Value, rebuild
from graphc.ir.text import format_attributes, format_literal
from graphc.passes.manager import PassResult, Rewrite
from graphc.passes.rewrite import constant_value, gradient_targets

# Ops that only repeat or view a constant: kernels read the operand itself, a folded copy would cost memory.
KEPT = ("constant", "broadcast_to")


@dataclass(frozen=True)
class Fold:
    """Replace nodes whose operands are all constants by their value, if that has at most `limit` elements.

    An elementwise op of constants that are one repeated number is folded at any size, symbolic ones too: its
    result is one repeated number. A graph with `grad` nodes is left alone: they may be by a constant.
    """

    limit: int = 1024

    @property
    def name(self) -> str:
        """`fold`."""
        return "fold"

    def __call__(self, graph: Graph) -> PassResult:
        """The folded graph."""
        if gradient_targets(graph):
            return PassResult(graph)
        rewrites: list[Rewrite] = []

        def fold(node: Node, inputs: tuple[Value, ...]) -> tuple[Value, ...] | None:
            if node.op.name in KEPT or node.op.reference is None:
                return None
            folded = self.value(node, inputs)
            if folded is not None:
                rewrites.append(_record(node, inputs, folded))
            return None if folded is None else (folded,)

        after = rebuild(graph, fold)
        return PassResult(after if rewrites else graph, tuple(rewrites))

    def value(self, node: Node, inputs: tuple[Value, ...]) -> Value | None:
        """The constant that `node` is on `inputs`, or None if it is none or too large."""
        if len(node.outputs) != 1:
            return None
        builder = Builder(node.origin)
        if node.op.scalar is not None:
            numbers = [constant_value(v) for v in inputs]
            if all(n is not None for n in numbers):
                return builder.full(_reference(node, [np.asarray(n) for n in numbers]).item(), node.type)
        size = node.type.size
        if not isinstance(size, int) or size > self.limit or not _is_static(node):
            return None
        arrays = [_array(v) for v in inputs]
        if any(array is None for array in arrays):
            return None
        return builder.constant(_reference(node, [a for a in arrays if a is not None]))


def _reference(node: Node, arrays: list[np.ndarray]) -> np.ndarray:
    with np.errstate(all="ignore"):
        assert node.op.reference is not None
        (result,) = node.op.reference(arrays, node.attributes)
    return np.asarray(result).astype(node.type.dtype.numpy)


def _array(value: Value) -> np.ndarray | None:
    """The array of a constant, or of a broadcast of one."""
    node = value.producer
    if node is None or not all(isinstance(dim, int) for dim in value.type.shape):
        return None
    if node.op.name == "broadcast_to":
        source = _array(node.inputs[0])
        return None if source is None else np.broadcast_to(source, value.type.shape)  # type: ignore[arg-type]
    return node.attributes["value"].array if node.op.name == "constant" else None


def _is_static(node: Node) -> bool:
    """False for the `size` of a symbolic dimension, which is known at run time only."""
    return node.op.name != "size" or isinstance(node.attributes["dim"], int)


def _record(node: Node, inputs: tuple[Value, ...], folded: Value) -> Rewrite:
    shown = [_constant_text(v) for v in inputs] + format_attributes(node)
    before = f"{node.op.name}({', '.join(shown)})"
    return Rewrite("fold", before, _constant_text(folded), "its operands are constants", node.origin)


def _constant_text(value: Value) -> str:
    number = constant_value(value)
    if number is not None:
        return str(number)
    node = value.producer
    if node is not None and node.op.name == "constant" and node.attributes["value"].array.size <= 8:
        return format_literal(node.attributes["value"])
    return f"constant {value.type}"
