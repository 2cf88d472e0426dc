"""Passes inside the graphs that ops run: bodies of loops, branches."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from graphc.ir.graph import Graph, Node, Value, rebuild, with_changed_bodies
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

    def replace(node: Node, inputs: tuple[Value, ...]) -> tuple[Value, ...] | None:
        after = with_changed_bodies(node, inputs, change) if node.op.nested else None
        return None if after is None else after.outputs

    return rebuild(graph, replace)
