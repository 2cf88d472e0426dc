"""Joining nodes of a fused graph: units of nodes that become one `fusion` node each."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from graphc.ir.graph import Graph, Node, Origin, Value, reading, with_inputs
from graphc.ir.op import OPS


class Units:
    """The nodes of a graph in units, at first each by itself; `join` makes one of several, `graph` the new graph."""

    def __init__(self, graph: Graph) -> None:
        self.before = graph
        self._unit: dict[Node, tuple[Node, ...]] = {node: (node,) for node in graph.nodes}

    def of(self, node: Node) -> tuple[Node, ...]:
        """The unit of a node, its members in the order of the graph."""
        return self._unit[node]

    def all(self) -> list[tuple[Node, ...]]:
        """Every unit once, by first member."""
        return list(dict.fromkeys(self._unit[node] for node in self.before.nodes))

    def join(self, first: tuple[Node, ...], second: tuple[Node, ...]) -> tuple[Node, ...]:
        """Make two units one."""
        members = {*first, *second}
        joined = tuple(node for node in self.before.nodes if node in members)
        self._unit.update(dict.fromkeys(joined, joined))
        return joined

    def lie_between(self, first: tuple[Node, ...], second: tuple[Node, ...]) -> bool:
        """True if some third unit depends on one of the two and the other depends on it: they cannot be one."""
        return self._leads_to(first, second) or self._leads_to(second, first)

    def _leads_to(self, start: tuple[Node, ...], end: tuple[Node, ...]) -> bool:
        stack = [self._unit[n] for n in _producers(end) if self._unit[n] not in (start, end)]
        seen = set(stack)
        while stack:
            for node in _producers(stack.pop()):
                unit = self._unit[node]
                if unit == start:
                    return True
                if unit not in seen and unit != end:
                    seen.add(unit)
                    stack.append(unit)
        return False

    def outside(self, unit: tuple[Node, ...]) -> tuple[Value, ...]:
        """The values of a unit that others read or that are results."""
        results = set(self.before.outputs)
        values = (v for node in unit for v in node.outputs)
        return tuple(v for v in values if v in results or any(r not in unit for r in self.before.readers.get(v, ())))

    @property
    def graph(self) -> Graph:
        """The graph with a `fusion` node for every unit of several nodes."""
        new: dict[Value, Value] = {value: value for value in self.before.inputs}
        for unit in self._in_order():
            if len(unit) == 1:
                (node,) = unit
                copy = reading(node, tuple(new[v] for v in node.inputs))
                new.update(zip(node.outputs, copy.outputs, strict=True))
            else:
                outputs = self.outside(unit)
                fused = joined_node(unit, outputs)
                new.update(zip(outputs, moved(fused, new).outputs, strict=True))
        return Graph(self.before.name, self.before.inputs, tuple(new[v] for v in self.before.outputs))

    def _in_order(self) -> Iterator[tuple[Node, ...]]:
        """Units, those that a unit depends on before it, else in the order of the graph."""
        done: set[tuple[Node, ...]] = set()
        for first in self.all():
            stack = [(first, False)]
            while stack:
                unit, expanded = stack.pop()
                if unit in done:
                    continue
                if expanded:
                    done.add(unit)
                    yield unit
                else:
                    stack.append((unit, True))
                    needed = dict.fromkeys(self._unit[n] for n in _producers(unit))
                    stack.extend((u, False) for u in reversed(needed) if u != unit)


def moved(node: Node, new: dict[Value, Value]) -> Node:
    """The node applied to the new values."""
    return with_inputs(node, tuple(new[v] for v in node.inputs))


def _producers(unit: Sequence[Node]) -> Iterator[Node]:
    return (v.producer for node in unit for v in node.inputs if v.producer is not None)


def joined_node(nodes: Sequence[Node], outputs: Sequence[Value]) -> Node:
    """One `fusion` node that computes `outputs` of `nodes`, which are in topological order; anchors of all stay."""
    leaves = dict.fromkeys(v for n in nodes for v in n.inputs if v.producer not in nodes)
    parameters = {v: Value(v.type, name=f"p{i}") for i, v in enumerate(leaves)}
    local: dict[Value, Value] = dict(parameters)
    anchors: list[Node] = []
    for node in nodes:
        if node.op.name != "fusion":
            copy = moved(node, local)
            local.update(zip(node.outputs, copy.outputs, strict=True))
            anchors.append(copy)
            continue
        body: Graph = node.attributes["body"]
        inner = {v: local[given] for v, given in zip(body.inputs, node.inputs, strict=True)}
        copies = {}
        for member in body.nodes:
            copies[member] = moved(member, inner)
            inner.update(zip(member.outputs, copies[member].outputs, strict=True))
        local.update((given, inner[v]) for v, given in zip(body.outputs, node.outputs, strict=True))
        anchors += [copies[body.nodes[k]] for k in node.attributes["anchors"]]
    body = Graph("_and_".join(map(_called, nodes)), tuple(parameters.values()), tuple(local[v] for v in outputs))
    fusion = OPS["fusion"]
    places = tuple(body.nodes.index(anchor) for anchor in anchors)
    attributes = fusion.complete({"body": body, "anchors": places})
    return Node(fusion, tuple(leaves), attributes, tuple(v.type for v in outputs), joint_origin(nodes))


def _called(node: Node) -> str:
    return str(node.attributes["body"].name) if node.op.name == "fusion" else node.op.name


def joint_origin(nodes: Iterable[Node]) -> Origin:
    """The origin of the first node that has one."""
    return next((n.origin for n in nodes if n.origin.module or n.origin.file), Origin())
