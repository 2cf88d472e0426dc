"""Value numbering: equal numbers for values that are computed alike from equal values."""

from __future__ import annotations

from collections.abc import Hashable, Iterable

from graphc.ir.graph import Node, Value
from graphc.passes.cse import attributes_key


class Numbering:
    """Numbers for values of one or several graphs, all by the same table.

    A node's outputs get the numbers of an equal node: same op, attributes and operands (in either order where the op
    is commutative). Random samples without a stream number are equal to nothing.
    """

    def __init__(self) -> None:
        self._known: dict[Hashable, int] = {}
        self._number: dict[Value, int] = {}

    def __getitem__(self, value: Value) -> int:
        return self._number[value]

    def __contains__(self, value: Value) -> bool:
        return value in self._number

    def key(self, key: Hashable) -> int:
        """The number of what the key stands for."""
        return self._known.setdefault(key, len(self._known))

    def name(self, value: Value, key: Hashable) -> None:
        """Give a value that no node makes the number of its key."""
        self._number[value] = self.key(key)

    def equate(self, value: Value, other: Value) -> None:
        """Give a value that no node makes the number of another."""
        self._number[value] = self._number[other]

    def add(self, nodes: Iterable[Node]) -> None:
        """Number the outputs of nodes whose operands have numbers."""
        for node in nodes:
            if node.attributes.get("stream", 0) < 0:
                key: Hashable = node
            else:
                operands = [self._number[v] for v in node.inputs]
                ordered = sorted(operands) if node.op.commutative else operands
                key = (node.op.name, attributes_key(node), tuple(ordered))
            for value in node.outputs:
                self._number[value] = self.key((key, value.index))


def numbered(inputs: Iterable[Value], nodes: Iterable[Node]) -> Numbering:
    """Numbers for the values of a graph; its inputs are equal to nothing but themselves."""
    numbering = Numbering()
    for value in inputs:
        numbering.name(value, value)
    numbering.add(nodes)
    return numbering
