"""Dead code: what no output of the graph needs.

The nodes of a graph are those that its outputs reach, so a node that a rewrite leaves unread is gone by itself.
What reachability does not see are outputs that nobody reads of nodes that make several: gradients that are not
asked for, results and operands of a `fusion`, and those of loops and branches (`graphc.passes.prune`). This pass
removes those, and with them all that only they needed; in the graphs that loops and branches run too.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from types import MappingProxyType

from graphc.ir.graph import Graph, Node, Value, reading, with_changed_bodies
from graphc.passes.manager import PassResult, Rewrite
from graphc.passes.prune import Pruned, pruned


@dataclass(frozen=True)
class DCE:
    """Remove unread outputs of `grad`, `fusion`, `cond`, `scan` and `while_loop`, and operands that no body reads."""

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
        copy = reading(node, inputs)
        smaller = _pruned(copy, [k for k, value in enumerate(node.outputs) if value in live])
        outputs = dict(enumerate(copy.outputs))
        if smaller is not None:
            copy, outputs = smaller
            rewrites.append(_record(node, copy))
        nested = bool(copy.op.nested)
        inner = with_changed_bodies(copy, copy.inputs, lambda body: _swept(body, rewrites)) if nested else None
        if inner is not None:
            known = dict(zip(copy.outputs, inner.outputs, strict=True))
            copy, outputs = inner, {k: known.get(v, v) for k, v in outputs.items()}
        made[node] = copy
        new.update((node.outputs[k], value) for k, value in outputs.items())
    after = Graph(graph.name, graph.inputs, tuple(new[v] for v in graph.outputs))
    left = set(after.nodes)
    dropped = [node for node in graph.nodes if made[node] not in left]
    rewrites += [Rewrite("dead_node", node.op.name, "nothing", "no output needs it", node.origin) for node in dropped]
    return after, rewrites


def _swept(body: Graph, rewrites: list[Rewrite]) -> Graph:
    result = DCE()(body)
    rewrites.extend(result.rewrites)
    return result.graph


def _pruned(node: Node, kept: list[int]) -> Pruned | None:
    """The node with the outputs `kept`, and what stands for them; None if there is nothing to remove."""
    if node.op.nested:
        return pruned(node, kept)
    smaller = _smaller(node, kept)
    return None if smaller is None else (smaller, dict(zip(kept, smaller.outputs, strict=True)))


def _smaller(node: Node, kept: list[int]) -> Node | None:
    inputs = node.inputs
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

    def inside(node: Node) -> Counter[str]:
        return Counter(n.op.name for body in node.attributes.values() if isinstance(body, Graph) for n in body.nodes)

    nodes = ""
    if any(isinstance(value, Graph) for value in before.attributes.values()):
        gone = sorted((inside(before) - inside(after)).elements())
        nodes = f"; gone from its {'bodies' if before.op.name == 'cond' else 'body'}: {', '.join(gone) or 'nothing'}"
    return Rewrite("dead_output", shape(before), shape(after), f"nothing reads the others{nodes}", before.origin)
