"""Dead code: what no output of the graph needs.

The nodes of a graph are those that its outputs reach, so a node that a rewrite leaves unread is gone by itself.
What reachability does not see are outputs that nobody reads of nodes that make several: gradients that are not
asked for, and results and operands of a `fusion`. This pass removes those, and with them all that only they needed.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from types import MappingProxyType

from graphc.ir.graph import Graph, Node, Value, with_inputs
from graphc.passes.manager import PassResult, Rewrite


@dataclass(frozen=True)
class DCE:
    """Remove unread outputs of `grad` and `fusion` nodes, and operands that a fusion's body does not read."""

    @property
    def name(self) -> str:
        """`dce`."""
        return "dce"

    def __call__(self, graph: Graph) -> PassResult:
        """The graph without dead outputs; the same graph if there are none. Each removal is recorded."""
        rewrites: list[Rewrite] = []
        while True:
            after, found = _sweep(graph)
            if not found:
                return PassResult(graph, tuple(rewrites))
            rewrites += found
            graph = after


def _sweep(graph: Graph) -> tuple[Graph, list[Rewrite]]:
    live = set(graph.outputs) | set(graph.readers)
    new: dict[Value, Value] = {value: value for value in graph.inputs}
    made: dict[Node, Node] = {}
    rewrites: list[Rewrite] = []
    for node in graph.nodes:
        inputs = tuple(new[v] for v in node.inputs)
        kept = [k for k, value in enumerate(node.outputs) if value in live]
        copy = _pruned(node, inputs, kept)
        if copy is None:
            same = all(a is b for a, b in zip(inputs, node.inputs, strict=True))
            copy, kept = (node if same else with_inputs(node, inputs)), list(range(len(node.outputs)))
        else:
            rewrites.append(_record(node, copy))
        made[node] = copy
        new.update((node.outputs[k], value) for k, value in zip(kept, copy.outputs, strict=True))
    after = Graph(graph.name, graph.inputs, tuple(new[v] for v in graph.outputs))
    left = set(after.nodes)
    dropped = [node for node in graph.nodes if made[node] not in left]
    rewrites += [Rewrite("dead_node", node.op.name, "nothing", "no output needs it", node.origin) for node in dropped]
    return after, rewrites


def _pruned(node: Node, inputs: tuple[Value, ...], kept: list[int]) -> Node | None:
    """The node with the outputs `kept` only; None if there is nothing to remove."""
    types = tuple(node.output_types[k] for k in kept)
    if node.op.name == "grad" and len(kept) < len(node.outputs):
        return Node(node.op, (inputs[0], *(inputs[k + 1] for k in kept)), node.attributes, types, node.origin)
    if node.op.name != "fusion":
        return None
    body: Graph = node.attributes["body"]
    outputs = tuple(body.outputs[k] for k in kept)
    read = set(outputs) | set(Graph(body.name, body.inputs, outputs).readers)
    wanted = [k for k, value in enumerate(body.inputs) if value in read]
    if len(kept) == len(node.outputs) and len(wanted) == len(inputs):
        return None
    smaller = Graph(body.name, tuple(body.inputs[k] for k in wanted), outputs)
    attributes = {**node.attributes, "body": smaller}
    anchors = [body.nodes[k] for k in attributes["anchors"]]  # the nodes that decide the kernel's shape
    left = tuple(smaller.nodes.index(anchor) for anchor in anchors if anchor in smaller.nodes)
    if not left:
        return None
    attributes["anchors"] = left
    return Node(node.op, tuple(inputs[k] for k in wanted), MappingProxyType(attributes), types, node.origin)


def _record(before: Node, after: Node) -> Rewrite:
    def shape(node: Node) -> str:
        return f"{node.op.name} of {len(node.inputs)} operands with {len(node.outputs)} outputs"

    nodes = ""
    if "body" in before.attributes:
        count = Counter(n.op.name for n in before.attributes["body"].nodes)
        count -= Counter(n.op.name for n in after.attributes["body"].nodes)
        nodes = f"; gone from its body: {', '.join(sorted(count.elements())) or 'nothing'}"
    return Rewrite("dead_output", shape(before), shape(after), f"nothing reads the others{nodes}", before.origin)
