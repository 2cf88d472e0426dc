"""Kernels that share work become one: equal reductions, one walk through an operand, sums that are only added up.

It runs on the graph that `fuse` leaves, where each node is a kernel, and looks at pairs over the same points. A loss
and the gradient of its logits need one maximum and one sum of exponentials of each row; mean and variance read the same
rows; `x^T h - y^T g` is one sum over the batch, and the first product never goes to memory.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations

from graphc.errors import CompileError
from graphc.ir.graph import Graph, Node, Value
from graphc.kernel.combine import share_loads, share_reduction, sum_in_step
from graphc.kernel.form import Kernel
from graphc.ops.fusion import fused_form, named_form
from graphc.passes.grouping import MOST_NODES
from graphc.passes.manager import PassResult, Rewrite
from graphc.passes.units import Units, joined_node, joint_origin

Unit = tuple[Node, ...]


@dataclass(frozen=True)
class Combine:
    """Join kernels over the same points where that saves work; remarks say what stood in the way."""

    name: str = "combine"

    def __call__(self, graph: Graph) -> PassResult:
        """The graph with such kernels joined."""
        units = Units(graph)
        search = _Search(units)
        rewrites, remarks = [], []
        while (found := search.next_pair()) is not None:
            first, second, why = found
            if units.lie_between(first, second):
                remarks.append(f"{_told(second)} not combined with {_told(first)} ({why}): a third kernel lies between")
                continue
            joined = units.join(first, second)
            rewrites.append(Rewrite("combine", f"{_told(first)}, {_told(second)}", _told(joined), why,
                                    joint_origin(joined)))
        if not rewrites:
            return PassResult(graph, remarks=tuple(remarks))
        return PassResult(units.graph, tuple(rewrites), tuple(remarks))


class _Search:
    """Finds pairs of units that share work. Kernel forms are made for pairs that may do so alone, and once."""

    def __init__(self, units: Units) -> None:
        self.units = units
        graph = units.before
        values = (*graph.inputs, *(v for node in graph.nodes for v in node.outputs))
        self._names = {value: f"v{i}" for i, value in enumerate(values)}
        self._spaces = {node: _space(node) for node in graph.nodes}
        self._forms: dict[Unit, Kernel] = {}
        self._tried: set[frozenset[Unit]] = set()

    def next_pair(self) -> tuple[Unit, Unit, str] | None:
        """The next two units that share work, and what they share."""
        by_space: dict[object, list[Unit]] = {}
        for unit in self.units.all():
            space = self._spaces[unit[0]]
            if space is not None:
                by_space.setdefault(space, []).append(unit)
        for candidates in by_space.values():
            for pair in combinations(candidates, 2):
                if frozenset(pair) not in self._tried:
                    self._tried.add(frozenset(pair))
                    why = self._shared(*pair)
                    if why is not None:
                        return (*pair, why)
        return None

    def _shared(self, first: Unit, second: Unit) -> str | None:
        if sum(map(_size, (*first, *second))) > MOST_NODES:
            return None
        if _reads(first, second) or _reads(second, first):
            return self._added_up(first, second)
        common = {v for n in first for v in n.inputs} & {v for n in second for v in n.inputs}
        if not any(v.type.shape for v in common) and self._spaces[first[0]]:
            return None  # nothing in common, or learning rates and the like: most pairs, and not worth two forms
        a, b = self._form(first), self._form(second)
        if share_reduction(a, b):
            return "both need the same reduction"
        return "one walk through what both read" if share_loads(a, b) else None

    def _added_up(self, *pair: Unit) -> str | None:
        """Of two kernels, one of which reads the other's sum where it stores its own: whether one sum does."""
        joined = tuple(n for n in self.units.before.nodes if any(n in unit for unit in pair))
        if len(joined) != 2 or len(joined[0].outputs) != 1 or not _added_at_own_point(joined[1], joined[0].output):
            return None
        if joined[0].output in self.units.outside(joined) or not sum_in_step(*(self._form((n,)) for n in joined)):
            return None
        try:
            (stage, *more) = self._form(joined).stages
        except CompileError:
            return None  # sums over different ranges stay two stages
        return "two sums are only added up" if not more and len(stage.accumulates) == 1 else None

    def _form(self, unit: Unit) -> Kernel:
        if unit not in self._forms:
            node, names = unit[0], self._names
            if len(unit) > 1:
                outputs = self.units.outside(unit)
                node = joined_node(unit, outputs)
                names = names | dict(zip(node.outputs, (names[v] for v in outputs), strict=True))
            self._forms[unit] = (fused_form if node.op.name == "fusion" else named_form)(node, names)
        return self._forms[unit]


def _space(node: Node) -> object:
    """What the points of a node's kernel are; None for views and array constants."""
    if node.op.name == "fusion":
        body = node.attributes["body"]
        return _space(body.nodes[node.attributes["anchors"][0]])
    if node.op.lower is None or node.op.view or not node.inputs:
        return None
    return tuple((a.lower, a.upper, a.sequential) for a in node.op.lower(node).space)


def _reads(unit: Unit, other: Unit) -> bool:
    return any(v.producer in other for node in unit for v in node.inputs)


def _added_at_own_point(node: Node, value: Value) -> bool:
    """True if additions and subtractions alone read an operand of a fusion: no kernel's reduction does."""
    if node.op.name != "fusion":
        return False
    body: Graph = node.attributes["body"]
    given = [p for p, v in zip(body.inputs, node.inputs, strict=True) if v is value]
    readers = [r for p in given for r in body.readers.get(p, ())]
    return len(readers) == 1 and readers[0].op.name in ("add", "sub") and readers[0].type == value.type


def _size(node: Node) -> int:
    return len(node.attributes["body"].nodes) if node.op.name == "fusion" else 1


def _told(unit: Unit) -> str:
    bodies = (n.attributes["body"].name if n.op.name == "fusion" else n.op.name for n in unit)
    return "_and_".join(bodies)
