"""Passes inside the graphs that ops run: bodies of loops, branches."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from types import MappingProxyType

from graphc.ir.graph import Graph, Node, Value, rebuild
from graphc.passes.manager import Pass, PassResult, Rewrite


@dataclass(frozen=True)
class Everywhere:
    """A pass over a graph and over the graphs that its ops run, innermost first. Its name is that of the pass."""

    step: Pass

    @property
    def name(self) -> str:
        """The name of the pass."""
        return self.step.name

    def __call__(self, graph: Graph) -> PassResult:
        """The graph with the pass applied everywhere; the same graph if nothing changed."""
        rewrites: list[Rewrite] = []
        remarks: list[str] = []

        def inside(body: Graph) -> Graph:
            result = self(body)
            rewrites.extend(result.rewrites)
            remarks.extend(result.remarks)
            return result.graph

        after = self.step(with_bodies(graph, inside))
        return PassResult(after.graph, (*rewrites, *after.rewrites), (*remarks, *after.remarks))


def with_bodies(graph: Graph, change: Callable[[Graph], Graph]) -> Graph:
    """The graph with `change` applied to the graphs that its ops run; the same graph if none changed."""
    if not any(node.op.nested for node in graph.nodes):
        return graph
    changed = False

    def replace(node: Node, inputs: tuple[Value, ...]) -> tuple[Value, ...] | None:
        nonlocal changed
        after = with_changed_bodies(node, inputs, change)
        changed = changed or after is not None
        return after.outputs if after is not None else None

    after = rebuild(graph, replace)
    return after if changed else graph


def with_changed_bodies(node: Node, inputs: tuple[Value, ...], change: Callable[[Graph], Graph]) -> Node | None:
    """The node on `inputs` with `change` applied to the graphs that it runs; None if none changed."""
    if not node.op.nested:
        return None
    bodies = {name: value for name, value in node.attributes.items() if isinstance(value, Graph)}
    new = {name: change(body) for name, body in bodies.items()}
    if all(new[name] is body for name, body in bodies.items()):
        return None
    return Node(node.op, inputs, MappingProxyType({**node.attributes, **new}), node.output_types, node.origin)
