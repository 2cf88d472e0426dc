"""Common subexpression elimination: nodes of equal op, attributes and operands are computed once."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass
from typing import Any

from graphc.ir.graph import Graph, Node, Value, rebuild
from graphc.ir.text import format_attributes
from graphc.passes.manager import PassResult, Rewrite, label
from graphc.passes.rewrite import gradient_targets


@dataclass(frozen=True)
class CSE:
    """Merge equal nodes; the first one's origin stays.

    Random samples differ in their `stream` and are never merged, numbered or not. Nor is a value that a `grad`
    node differentiates with respect to. Operands of commutative ops may be in either order.
    """

    @property
    def name(self) -> str:
        """`cse`."""
        return "cse"

    def __call__(self, graph: Graph) -> PassResult:
        """The graph with equal nodes merged."""
        first: dict[Hashable, tuple[Value, ...]] = {}
        number: dict[Value, int] = {}
        rewrites: list[Rewrite] = []
        protected = gradient_targets(graph)

        def merge(node: Node, inputs: tuple[Value, ...]) -> tuple[Value, ...] | None:
            if protected.intersection(node.outputs) or node.attributes.get("stream", 0) < 0:
                return None
            operands = [number.setdefault(v, len(number)) for v in inputs]
            key = (node.op.name, attributes_key(node), *(sorted(operands) if node.op.commutative else operands))
            known = first.get(key)
            if known is None:
                outputs = Node(node.op, inputs, node.attributes, node.output_types, node.origin).outputs
                same = all(a is b for a, b in zip(inputs, node.inputs, strict=True))
                first[key] = node.outputs if same else outputs
                return first[key]
            text = f"{node.op.name}({', '.join([*map(label, inputs), *format_attributes(node)])})"
            place = f", computed at {known[0].origin} already" if str(known[0].origin) else ""
            rewrites.append(
                Rewrite("cse", text, "the equal value", f"equal op, attributes and operands{place}", node.origin)
            )
            return known

        after = rebuild(graph, merge)
        return PassResult(after if rewrites else graph, tuple(rewrites))


def attributes_key(node: Node) -> Hashable:
    """A key that is equal only for equal attributes: floats by their digits, so that 0.0 is not -0.0."""
    return tuple(_exact(value) for value in node.attributes.values())


def _exact(value: Any) -> Hashable:
    return (type(value).__name__, repr(value)) if isinstance(value, (bool, int, float)) else value
