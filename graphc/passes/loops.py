"""Loops as a whole: no loop computes what another has computed, and none carries or stacks what nobody reads."""

from __future__ import annotations

from dataclasses import dataclass

from graphc.ir.graph import Graph
from graphc.passes.dce import DCE
from graphc.passes.manager import PassResult
from graphc.passes.merge_loops import merge_loops, with_own_values
from graphc.passes.save import save_turns


@dataclass(frozen=True)
class Loops:
    """Merge loops, save what backward loops would compute again, and remove what is dead in them.

    It runs while the loops of a derivative are still written as the loop that they come from.
    """

    @property
    def name(self) -> str:
        """`loops`."""
        return "loops"

    def __call__(self, graph: Graph) -> PassResult:
        """The graph with fewer and smaller loops; the same graph if it has no loops and branches."""
        if not any(node.op.nested for node in graph.nodes):
            return PassResult(graph)
        alive = DCE()(graph)
        merged, merges = merge_loops(with_own_values(alive.graph))
        saving, saves = save_turns(merged)
        left = DCE()(saving)
        return PassResult(left.graph, (*alive.rewrites, *merges, *saves, *left.rewrites))
