"""Kernels that share work become one: equal reductions, one walk through an operand, sums that are only added up.

It runs on the graph that `fuse` leaves, where each node is a kernel, and looks at pairs over the same points. A loss
and the gradient of its logits need one maximum and one sum of exponentials of each row; mean and variance read the same
rows; `x^T h - y^T g` is one sum over the batch, and the first product never goes to memory.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import combinations

from graphc.errors import CompileError
from graphc.ir.graph import Graph, Node, Value
from graphc.kernel.combine import share_loads, share_reduction, sum_in_step
from graphc.kernel.form import Kernel
from graphc.ops.fusion import fused_form, named_form
from graphc.passes.grouping import MOST_NODES
from graphc.passes.manager import PassResult, Rewrite
from graphc.passes.units import Units, joined_node

Unit = tuple[Node, ...]


@dataclass(frozen=True)
class Combine:
    """Join kernels over the same points where that saves work; remarks say what stood in the way."""

    name: str = "combine"

    def __call__(self, graph: Graph) -> PassResult:
        """The graph with such kernels joined."""
        units = Units(graph)
        forms = _Forms(units, {v: f"v{i}" for i, v in enumerate(_values(graph))})
        rewrites, remarks = [], []
        tried: set[frozenset[Unit]] = set()
        while (found := _next_pair(units, forms, tried)) is not None:
            first, second, why = found
            if units.lie_between(first, second):
                remarks.append(f"{_told(second)} not combined with {_told(first)} ({why}): a third kernel lies between")
                continue
            joined = units.join(first, second)
            rewrites.append(Rewrite("combine", f"{_told(first)}, {_told(second)}", _told(joined), why,
                                    joined_node(joined, units.outside(joined)).origin))
        if not rewrites:
            return PassResult(graph, remarks=tuple(remarks))
        return PassResult(units.graph, tuple(rewrites), tuple(remarks))


class _Forms:
    """The kernel forms of units, each composed once: every unit is compared with many others."""

    def __init__(self, units: Units, names: dict[Value, str]) -> None:
        self._units = units
        self._names = names
        self._known: dict[tuple[Unit, tuple[Value, ...]], Kernel] = {}

    def of(self, unit: Unit) -> Kernel:
        """The form of a unit; that of several nodes depends on which of their values others read."""
        outputs = () if len(unit) == 1 else tuple(self._units.outside(unit))
        if (unit, outputs) not in self._known:
            self._known[unit, outputs] = self._composed(unit, outputs)
        return self._known[unit, outputs]

    def _composed(self, unit: Unit, outputs: tuple[Value, ...]) -> Kernel:
        if len(unit) == 1:
            (node,) = unit
            return (fused_form if node.op.name == "fusion" else named_form)(node, self._names)
        node = joined_node(unit, outputs)
        inside = dict(zip(node.outputs, (self._names[v] for v in outputs), strict=True))
        return fused_form(node, self._names | inside)


def _values(graph: Graph) -> Iterator[Value]:
    yield from graph.inputs
    for node in graph.nodes:
        yield from node.outputs


def _next_pair(units: Units, forms: _Forms, tried: set[frozenset[Unit]]) -> tuple[Unit, Unit, str] | None:
    """The next two units that share work, and what they share."""
    by_space: dict[object, list[Unit]] = {}
    for unit in units.all():
        space = _space(unit[0])
        if space is not None:
            by_space.setdefault(space, []).append(unit)
    for candidates in by_space.values():
        for pair in combinations(candidates, 2):
            if frozenset(pair) in tried:
                continue
            tried.add(frozenset(pair))
            why = _shared(units, pair, forms)
            if why is not None:
                return (*pair, why)
    return None


def _space(node: Node) -> object:
    """What the points of a node's kernel are; None for views and array constants."""
    if node.op.name == "fusion":
        body = node.attributes["body"]
        return _space(body.nodes[node.attributes["anchors"][0]])
    if node.op.lower is None or node.op.view or not node.inputs:
        return None
    return tuple((a.lower, a.upper, a.sequential) for a in node.op.lower(node).space)


def _shared(units: Units, pair: tuple[Unit, Unit], forms: _Forms) -> str | None:
    first, second = pair
    joined = tuple(n for n in units.before.nodes if n in {*first, *second})
    if sum(_size(n) for n in joined) > MOST_NODES:
        return None
    if any(v.producer in first for n in second for v in n.inputs):
        return _added_up(units, joined, forms)
    if any(v.producer in second for n in first for v in n.inputs):
        return _added_up(units, joined, forms)
    common = {v for n in first for v in n.inputs} & {v for n in second for v in n.inputs}
    if not any(v.type.shape for v in common) and _space(first[0]):
        return None  # nothing in common, or learning rates and the like: most pairs, and not worth two forms
    a, b = map(forms.of, pair)
    if share_reduction(a, b):
        return "both need the same reduction"
    return "one walk through what both read" if share_loads(a, b) else None


def _added_up(units: Units, joined: Unit, forms: _Forms) -> str | None:
    """Of two kernels, one of which reads the other's sum where it stores its own: whether one sum does."""
    if len(joined) != 2:
        return None
    first, second = (forms.of((n,)) for n in joined)
    inner = joined[0].outputs
    if not sum_in_step(first, second) or len(inner) != 1 or inner[0] in units.outside(joined):
        return None
    if not _added_at_own_point(joined[1], inner[0]):
        return None
    try:
        (stage, *more) = forms.of(joined).stages
    except CompileError:
        return None  # sums over different ranges stay two stages
    return "two sums are only added up" if not more and len(stage.accumulates) == 1 else None


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
