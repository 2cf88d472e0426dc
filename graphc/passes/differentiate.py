"""Replace `grad` nodes by the nodes that compute the gradients."""

from __future__ import annotations

from dataclasses import dataclass

from graphc.autodiff.reverse import expand_grad
from graphc.ir.graph import Graph
from graphc.passes.manager import PassResult, Rewrite, label


@dataclass(frozen=True)
class Differentiate:
    """Expand every `grad` node by symbolic reverse mode; gradients of gradients too."""

    @property
    def name(self) -> str:
        """`differentiate`."""
        return "differentiate"

    def __call__(self, graph: Graph) -> PassResult:
        """The graph without `grad` nodes. Raises GradientError where a gradient does not exist."""
        grads = [node for node in graph.nodes if node.op.name == "grad"]
        if not grads:
            return PassResult(graph)
        rewrites = []
        for node in grads:
            before = f"grad({', '.join(map(label, node.inputs))})"
            rewrites.append(Rewrite("grad", before, "reverse mode", "gradients are ordinary nodes", node.origin))
        return PassResult(expand_grad(graph), tuple(rewrites))
