"""An op on slices of stacks as one op on the stacks: what a loop does turn by turn, done for all turns at once."""

from __future__ import annotations

import string
from collections.abc import Callable, Sequence
from typing import Any

from graphc.ir.builder import Builder
from graphc.ir.dims import Dim
from graphc.ir.graph import Node, Value
from graphc.ir.op import OPS
from graphc.ops.einsum import equation_of

# One operand: a stack of one slice for each turn (True), or what is the same in all turns (False).
Operand = tuple[Value, bool]


def stacked(node: Node, operands: Sequence[Operand], length: Dim, b: Builder) -> Value | None:
    """The stack of the node's results for operands of which at least one is a stack; None where there is no rule."""
    if len(node.outputs) != 1:
        return None
    if node.op.scalar is not None:
        return _apply(b, node, [_spread(operand, length, b) for operand in operands])
    rule = _RULES.get(node.op.name)
    return None if rule is None else rule(node, operands, length, b)


def _apply(b: Builder, node: Node, inputs: Sequence[Value], **changed: Any) -> Value:
    found = b.apply(OPS[node.op.name], inputs, {**node.attributes, **changed})
    assert isinstance(found, Value)
    return found


def _spread(operand: Operand, length: Dim, b: Builder) -> Value:
    """A stack: the operand, or so many of it."""
    value, is_stack = operand
    return value if is_stack else b.broadcast(value, (length, *value.type.shape))


def _matmul(node: Node, operands: Sequence[Operand], length: Dim, b: Builder) -> Value:
    return _apply(b, node, [_spread(operand, length, b) for operand in operands])


def _einsum(node: Node, operands: Sequence[Operand], length: Dim, b: Builder) -> Value:
    """The turn is one more axis of the result, and of the operands that are stacks."""
    left, right, out = equation_of(node)
    turn = next(letter for letter in string.ascii_letters if letter not in left + right)
    a, c = (turn + term if is_stack else term for term, (_, is_stack) in zip((left, right), operands, strict=True))
    return _apply(b, node, [value for value, _ in operands], equation=f"{a},{c}->{turn}{out}")


def _shaped(node: Node, operands: Sequence[Operand], length: Dim, b: Builder) -> Value:
    return _apply(b, node, [operands[0][0]], shape=(length, *node.type.shape))


def _broadcast(node: Node, operands: Sequence[Operand], length: Dim, b: Builder) -> Value:
    value = operands[0][0]
    ones = (1,) * (node.type.rank - node.inputs[0].type.rank)
    aligned = b.reshape(value, shape=(length, *ones, *value.type.shape[1:])) if ones else value
    assert isinstance(aligned, Value)
    return b.broadcast(aligned, (length, *node.type.shape))


def _transposed(node: Node, operands: Sequence[Operand], length: Dim, b: Builder) -> Value:
    rank = node.type.rank
    return _apply(b, node, [operands[0][0]], permutation=(0, *(k % rank + 1 for k in node.attributes["permutation"])))


def _sliced(node: Node, operands: Sequence[Operand], length: Dim, b: Builder) -> Value:
    start, shape, step = (node.attributes[name] for name in ("start", "shape", "step"))
    return _apply(b, node, [operands[0][0]], start=(0, *start), shape=(length, *shape), step=(1, *step))


def _reduced(node: Node, operands: Sequence[Operand], length: Dim, b: Builder) -> Value:
    rank = node.inputs[0].type.rank
    return _apply(b, node, [operands[0][0]], axes=tuple(k % rank + 1 for k in node.attributes["axes"]))


def _taken(node: Node, operands: Sequence[Operand], length: Dim, b: Builder) -> Value | None:
    """Rows of a table that is the same in all turns, by indices of each turn."""
    (table, table_is_stack), (indices, _) = operands
    return None if table_is_stack or node.attributes["axis"] != 0 else _apply(b, node, [table, indices])


_RULES: dict[str, Callable[[Node, Sequence[Operand], Dim, Builder], Value | None]] = {
    "matmul": _matmul,
    "einsum": _einsum,
    "reshape": _shaped,
    "broadcast_to": _broadcast,
    "transpose": _transposed,
    "slice": _sliced,
    "take": _taken,
    **dict.fromkeys(("sum", "mean", "max", "min"), _reduced),
}
