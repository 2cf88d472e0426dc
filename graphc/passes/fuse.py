"""Fusion: nodes that run in one kernel become one `fusion` node whose body is a graph.

Maps are inlined into the loads of their readers or computed as epilogues where a reduction or contraction
stores its result (`graphc.passes.grouping` decides, `graphc.kernel.compose` does it to kernel forms).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from graphc.ir.graph import Graph, Node, Origin, Value, topological, with_inputs
from graphc.ir.op import OPS
from graphc.passes.grouping import Group, Grouping
from graphc.passes.manager import PassResult, Rewrite


@dataclass(frozen=True)
class Fuse:
    """Group nodes into kernels. Nodes that stay alone stay as they are; remarks say what could not join and why."""

    name: str = "fuse"

    def __call__(self, graph: Graph) -> PassResult:
        """A graph of `fusion` nodes, single ops and views, each of the first two one kernel."""
        grouping = Grouping(graph)
        new: dict[Value, Value] = {value: value for value in graph.inputs}
        rewrites: list[Rewrite] = []
        stored = grouping.stored()
        for unit in _in_order(grouping):
            if isinstance(unit, Node):
                copy = with_inputs(unit, tuple(new[v] for v in unit.inputs))
                new.update(zip(unit.outputs, copy.outputs, strict=True))
                continue
            node, members = _fused_node(grouping, unit, stored, new)
            if node.op.name == "fusion":
                rewrites.append(_record(node, members))
        fused = Graph(graph.name, graph.inputs, tuple(new[v] for v in graph.outputs))
        return PassResult(fused, tuple(rewrites), tuple(dict.fromkeys(map(str, grouping.remarks))))


def _record(node: Node, members: tuple[Node, ...]) -> Rewrite:
    names = ", ".join(member.op.name for member in members)
    anchor = node.attributes["body"].nodes[node.attributes["anchors"][0]].op.name
    why = f"one kernel around {anchor}: {len(node.outputs)} of {len(members)} values reach memory"
    return Rewrite("fuse", names, f"fusion {node.attributes['body'].name}", why, node.origin)


def _dependencies(grouping: Grouping, unit: Group | Node) -> list[Group | Node]:
    nodes = unit.nodes if isinstance(unit, Group) else [unit]
    found: dict[int, Group | Node] = {}
    for node in nodes:
        for value in node.inputs:
            for leaf in grouping.leaves(value):
                if leaf.producer is not None:
                    other = grouping.group_of.get(leaf.producer, leaf.producer)
                    if other is not unit:
                        found[id(other)] = other
    return list(found.values())


def _in_order(grouping: Grouping) -> list[Group | Node]:
    """Groups and views, operands first: depth first over their dependencies, in the order of the graph."""
    order: list[Group | Node] = []
    done: set[int] = set()
    for node in grouping.graph.nodes:
        if node in grouping.floating:
            continue
        stack: list[tuple[Group | Node, bool]] = [(grouping.group_of.get(node, node), False)]
        while stack:
            unit, expanded = stack.pop()
            if id(unit) in done:
                continue
            if expanded:
                done.add(id(unit))
                order.append(unit)
            else:
                stack.append((unit, True))
                stack.extend((d, False) for d in reversed(_dependencies(grouping, unit)) if id(d) not in done)
    return order


def _fused_node(
    grouping: Grouping, group: Group, stored: set[Value], new: dict[Value, Value]
) -> tuple[Node, tuple[Node, ...]]:
    """The node for a group: the op itself if it is alone and all its values are stored, else a `fusion`."""
    outputs = [v for node in group.nodes for v in node.outputs if v in stored]
    inside = _members(grouping, group)
    if len(inside) == 1 and len(outputs) == len(inside[0].outputs):
        (node,) = inside
        copy = with_inputs(node, tuple(new[v] for v in node.inputs))
        new.update(zip(node.outputs, copy.outputs, strict=True))
        return copy, inside
    leaves = list(dict.fromkeys(v for n in inside for v in n.inputs if v.producer not in inside))
    parameters = {v: Value(v.type, name=f"p{i}") for i, v in enumerate(leaves)}
    local: dict[Value, Value] = dict(parameters)
    copies: dict[Node, Node] = {}
    for node in inside:
        copies[node] = with_inputs(node, tuple(local[v] for v in node.inputs))
        local.update(zip(node.outputs, copies[node].outputs, strict=True))
    body = Graph(_body_name(group), tuple(parameters.values()), tuple(local[v] for v in outputs))
    types = tuple(v.type for v in outputs)
    fusion = OPS["fusion"]
    attributes = fusion.complete({"body": body, "anchors": (body.nodes.index(copies[group.nodes[0]]),)})
    fused = Node(fusion, tuple(new[v] for v in leaves), attributes, types, _joint_origin(group.nodes))
    new.update(zip(outputs, fused.outputs, strict=True))
    return fused, inside


def _members(grouping: Grouping, group: Group) -> tuple[Node, ...]:
    """The group's nodes and the floating maps that they read, operands first."""
    wanted: dict[Node, None] = {}
    stack = list(group.nodes)
    while stack:
        node = stack.pop()
        if node not in wanted:
            wanted[node] = None
            stack.extend(v.producer for v in node.inputs if v.producer in grouping.floating and v.producer)
    return tuple(n for n in topological(v for node in group.nodes for v in node.outputs) if n in wanted)


def _body_name(group: Group) -> str:
    return "_".join(dict.fromkeys(_called(node) for node in group.nodes[:4]))


def _called(node: Node) -> str:
    """The node's op, or what a user's function is called."""
    return str(node.attributes["name"]) if node.op.name == "scalar_function" else node.op.name


def _joint_origin(nodes: Iterable[Node]) -> Origin:
    """The origin of the first node that has one."""
    return next((n.origin for n in nodes if n.origin.module or n.origin.file), Origin())
