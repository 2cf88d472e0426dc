"""Replace deferred derivatives (`grad vjp jvp jacobian`) by the nodes that compute them."""

from __future__ import annotations

from dataclasses import dataclass

from graphc.autodiff.expand import DEFERRED, expand_derivatives
from graphc.ir.graph import Graph, Node
from graphc.passes.manager import PassResult, Rewrite, label

_MODES = {
    "grad": "reverse mode",
    "vjp": "reverse mode",
    "jvp": "forward mode",
    "jacobian": "a derivative pass for each row or column",
    "custom_vjp": "its first operands",
}


@dataclass(frozen=True)
class Differentiate:
    """Expand every deferred derivative symbolically, derivatives of derivatives and those in nested graphs too."""

    @property
    def name(self) -> str:
        """`differentiate`."""
        return "differentiate"

    def __call__(self, graph: Graph) -> PassResult:
        """The graph without deferred derivatives. Raises GradientError where a derivative does not exist."""
        after = expand_derivatives(graph)
        if after is graph:
            return PassResult(graph)
        rewrites = []
        for node in _with_nested(graph):
            if node.op.name in DEFERRED or node.op.name == "custom_vjp":
                before = f"{node.op.name}({', '.join(map(label, node.inputs))})"
                why = "derivatives are ordinary nodes" if node.op.name in DEFERRED else "nothing differentiates it now"
                rewrites.append(Rewrite(node.op.name, before, _MODES[node.op.name], why, node.origin))
        return PassResult(after, tuple(rewrites))


def _with_nested(graph: Graph) -> list[Node]:
    """The nodes of a graph and of the graphs in their attributes."""
    found = list(graph.nodes)
    for node in graph.nodes:
        for value in node.attributes.values():
            if isinstance(value, Graph):
                found += _with_nested(value)
    return found
