"""Which nodes run together in one kernel: the decision behind the `fuse` pass.

Every node becomes one of
    anchor    a reduction, contraction or multi-stage op: starts a group
    joined    a map computed where a group stores one of its operands, at the same point (an epilogue)
    floating  a map computed again in every reader: index maps, cheap maps, and maps with one reader
    root      a map that must be stored and can join nothing: starts a group
    view      the same elements in the same order: no kernel at all
The kinds follow from the kernel form of each op; no op is named here.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property

from graphc.ir.graph import Graph, Node, Value
from graphc.kernel.compose import map_expression, stage_of_value, times_read
from graphc.kernel.expr import Affine, Apply, Load, loads, walk
from graphc.kernel.form import Kernel

# Primitives that cost about one instruction a vector; the others are polynomials, divisions or counters.
CHEAP_PRIMITIVES = frozenset(
    "add sub mul neg max min abs lt le gt ge eq ne and or not where sign floor".split()
    + "ceil round isnan isinf isfinite".split()
)
CHEAP_COST = 4  # a map of so few cheap primitives is computed again rather than stored
EXPENSIVE = 20
MOST_NODES = 48  # of one kernel: source that is read, and compiled in reasonable time
MOST_FLOATING = 24  # maps computed again in one expression
MOST_REPEATED = 16  # cost of a cheap map that is computed again for each tap of a small window


@dataclass(frozen=True)
class Remark:
    """Why a map was not fused with its producer: shown by `program.remarks`."""

    node: Node
    reason: str

    def __str__(self) -> str:
        place = f" ({self.node.origin})" if str(self.node.origin) else ""
        return f"{self.node.op.name}{place} not fused: {self.reason}"


@dataclass
class Group:
    """Nodes of one kernel: `nodes[0]` is the anchor or root. `stage` tells for each value where it is computed."""

    nodes: list[Node]
    kernel: Kernel
    stage: dict[Value, int | None] = field(default_factory=dict)


class Grouping:
    """Assigns every node of a graph; `groups`, `floating` and `views` hold the result. Nodes in topological order."""

    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self.groups: list[Group] = []
        self.group_of: dict[Node, Group] = {}
        self.floating: set[Node] = set()
        self.views: set[Node] = set()
        self.remarks: list[Remark] = []
        self._reasons: dict[Node, list[str]] = {}  # why a map could not join or float
        self._cost: dict[Node | None, int] = {}
        self._size: dict[Node | None, int] = {}
        self._leaves: dict[Value, frozenset[Value]] = {}
        self._transposed: set[Value] = set()  # stored in another order of axes than the kernel's points have
        for node in graph.nodes:
            self._assign(node)
        self._repeat_cheap_epilogues()

    @cached_property
    def _results(self) -> frozenset[Value]:
        return frozenset(self.graph.outputs)

    @cached_property
    def _kernels(self) -> dict[Node, Kernel]:
        return {node: node.op.lower(node) for node in self.graph.nodes if node.op.lower is not None}

    def leaves(self, value: Value) -> frozenset[Value]:
        """The stored values (graph inputs, views, groups' values) that `value` depends on through floating maps."""
        if value not in self._leaves:
            node = value.producer
            if node is None or node not in self.floating:
                self._leaves[value] = frozenset({value})
            else:
                self._leaves[value] = frozenset().union(*(self.leaves(v) for v in node.inputs))
        return self._leaves[value]

    def _assign(self, node: Node) -> None:
        kernel = self._kernels.get(node)
        if kernel is None or (kernel.inputs and not node.inputs):  # an array constant: memory, no kernel
            self.views.add(node)
        elif node.op.view and not _is_index_map(kernel):
            self.views.add(node)
        elif not kernel.is_map:
            self._start(node, kernel)
        elif self._is_number(node) and self._can_float(node, kernel):
            self.floating.add(node)
        elif not self._join(node, kernel):
            if self._can_float(node, kernel):
                self.floating.add(node)
            elif node.op.view and node.inputs[0].producer not in self.floating:
                self.views.add(node)
            elif not self._store_transposed(node, kernel):
                self._start(node, kernel)
                self.remarks.extend(Remark(of, reason) for of, reason in self._reasons_for(node))

    def _reasons_for(self, node: Node) -> list[tuple[Node, str]]:
        """Why a map has a kernel of its own: the reasons of the floating maps that it computes, then its own."""
        floating = [v.producer for v in node.inputs if v.producer is not None and v.producer in self.floating]
        found = [reason for other in floating for reason in self._reasons_for(other)]
        return list(dict.fromkeys([*found, *((node, reason) for reason in self._reasons.get(node, ()))]))

    def _repeat_cheap_epilogues(self) -> None:
        """Let a cheap map of stored values float to its readers in other kernels, such as a ReLU's mask.

        Computing it there costs less than writing it here and reading it back.
        """
        for group in self.groups:
            for node in group.nodes[:0:-1]:
                readers = self.graph.readers.get(node.output, ())
                outside = not any(r in self.views or self.group_of.get(r) is group for r in readers)
                sources = {v for v in node.inputs if v in group.stage}
                floats = outside and sources <= self.stored() and self._can_float(node, self._kernels[node])
                if floats and self._cost[node] <= CHEAP_COST:
                    group.nodes.remove(node)
                    del group.stage[node.output], self.group_of[node]
                    self.floating.add(node)
                    self._leaves.clear()

    def stored(self) -> set[Value]:
        """Values that must be in memory: results, operands of views, and what another group reads."""
        stored = set(self.graph.outputs)
        for node in self.views:
            stored.update(node.inputs)
        for group in self.groups:
            for node in group.nodes:
                for value in node.inputs:
                    stored.update(leaf for leaf in self.leaves(value) if leaf not in group.stage)
        return stored

    def _start(self, node: Node, kernel: Kernel) -> None:
        stages = {value: stage_of_value(kernel, f"out{value.index}") for value in node.outputs}
        group = Group([node], kernel, stages)
        self.groups.append(group)
        self.group_of[node] = group

    def _join(self, node: Node, kernel: Kernel) -> bool:
        """Join the latest group that computes an operand of `node` at the same point; False if there is none."""
        candidates = {}
        for position, value in enumerate(node.inputs):
            group = self.group_of.get(value.producer) if value.producer else None
            if group is not None and _reads_own_point(kernel, f"in{position}"):
                candidates[self.groups.index(group)] = group
        for index in sorted(candidates, reverse=True):
            reason = self._refusal(node, kernel, candidates[index])
            if reason is None:
                group = candidates[index]
                stage = next(group.stage[v] for v in node.inputs if v in group.stage)
                group.nodes.append(node)
                group.stage[node.output] = stage
                self.group_of[node] = group
                return True
            self._reasons.setdefault(node, []).append(reason)
        return False

    def _store_transposed(self, node: Node, kernel: Kernel) -> bool:
        """Let the group that computes the operand of a transposition store it so; rows must stay contiguous."""
        if len(node.inputs) != 1 or not _permutes_rows(kernel):
            return False
        (value,) = node.inputs
        group = self.group_of.get(value.producer) if value.producer else None
        stage = group.stage.get(value) if group else None
        if group is None or stage is None or value in self._transposed or len(group.nodes) >= MOST_NODES:
            return False
        group.nodes.append(node)
        group.stage[node.output] = stage
        self.group_of[node] = group
        self._transposed.add(node.output)
        return True

    def _refusal(self, node: Node, kernel: Kernel, group: Group) -> str | None:
        """Why `node` cannot be computed in `group`, or None if it can."""
        anchor = group.nodes[0].op.name
        if len(group.nodes) >= MOST_NODES:
            return f"the {anchor} kernel has {MOST_NODES} nodes already"
        inside = [(p, v) for p, v in enumerate(node.inputs) if v in group.stage]
        if any(not _reads_own_point(kernel, f"in{p}") for p, _ in inside):
            return f"it reads a value of the {anchor} kernel at other points too"
        stages = {group.stage[v] for _, v in inside}
        if None in stages or len(stages) > 1:
            return f"the {anchor} kernel does not store its operands in one plain stage"
        if any(leaf not in group.stage and self._depends(leaf, group) for v in node.inputs for leaf in self.leaves(v)):
            return f"an operand depends on the {anchor} kernel through another kernel"
        if self._draws(node) and not group.kernel.is_map:
            return f"random numbers are drawn by whole blocks in a map, and one by one in the {anchor} kernel"
        through = self._read_through(node, group)
        if through is None or any(group.stage[v] not in stages or v in self._transposed for v in through):
            return f"it reads a value of the {anchor} kernel through a change of shape"
        return None

    def _read_through(self, node: Node, group: Group) -> list[Value] | None:
        """Values of `group` that `node` reads through floating maps; None if one of them is read at another point."""
        found: list[Value] = []
        stack = [(node, True)]
        while stack:
            reader, here = stack.pop()
            for position, value in enumerate(reader.inputs):
                own_point = here and _reads_own_point(self._kernels[reader], f"in{position}")
                if value in group.stage:
                    if not own_point:
                        return None
                    found.append(value)
                elif value.producer in self.floating and value.producer is not None:
                    stack.append((value.producer, own_point))
        return found

    def _draws(self, node: Node) -> bool:
        """True if `node` draws random numbers, by itself or through floating maps."""
        if any(isinstance(e, Apply) and e.primitive == "uniform" for e in walk(map_expression(self._kernels[node]))):
            return True
        return any(v.producer in self.floating and self._draws(v.producer) for v in node.inputs if v.producer)

    def _depends(self, value: Value, group: Group) -> bool:
        """True if `value` is computed from a value of `group`, through any path."""
        stack, seen = [value], set()
        while stack:
            v = stack.pop()
            if v in group.stage:
                return True
            node = v.producer
            if node is None or node in seen:
                continue
            other = self.group_of.get(node)
            members = other.nodes if other else [node]
            seen.update(members)
            stack.extend(operand for member in members for operand in member.inputs)
        return False

    def _can_float(self, node: Node, kernel: Kernel) -> bool:
        if node.output in self._results:
            return False
        readers = dict.fromkeys(self.graph.readers.get(node.output, ()))
        self._cost[node] = self._expanded_cost(node, kernel)
        self._size[node] = 1 + sum(self._size[v.producer] for v in node.inputs if v.producer in self.floating)
        if self._size[node] > MOST_FLOATING:
            return False
        index_map = _is_index_map(kernel) and all(self._cost.get(v.producer, 0) == 0 for v in node.inputs if v.producer)
        if len(readers) > 1 and self._cost[node] > CHEAP_COST:
            reason = f"it has {len(readers)} readers and is too dear to compute in each"
            self._reasons.setdefault(node, []).append(reason)
            return False
        return all(self._accepts(reader, node.output, index_map) for reader in readers)

    def _accepts(self, reader: Node, value: Value, index_map: bool) -> bool:
        kernel = self._kernels.get(reader)
        if kernel is None or (reader.op.view and not _is_index_map(kernel)):
            return False
        if index_map or kernel.is_map:
            return True
        positions = [p for p, v in enumerate(reader.inputs) if v is value]
        times = times_read(kernel, f"in{positions[0]}") if len(positions) == 1 else None
        cost = self._cost[value.producer]
        return times is not None and (times == 1 or (cost <= CHEAP_COST and times * cost <= MOST_REPEATED))

    def _is_number(self, node: Node) -> bool:
        """True for a map to one element that does not depend on a reduction of the same graph."""
        makers = (self.group_of.get(v.producer) for v in node.inputs if v.producer)
        return all(dim == 1 for dim in node.type.shape) and all(g is None or g.kernel.is_map for g in makers)

    def _expanded_cost(self, node: Node, kernel: Kernel) -> int:
        """Cost of computing `node` at one point from stored values, floating producers included.

        What has one element for all points costs nothing: kernels compute it before their loops.
        """
        if self._is_number(node):
            return 0
        floating = (v.producer for v in node.inputs if v.producer and v.producer in self.floating)
        return _map_cost(kernel) + sum(self._cost[producer] for producer in floating)


def cost_of_a_point(node: Node) -> int:
    """Cost of computing one element of what a node makes; `EXPENSIVE` or more where it is no map."""
    kernel = node.op.lower(node) if node.op.lower is not None else None
    return EXPENSIVE if kernel is None or not kernel.is_map else _map_cost(kernel)


def _map_cost(kernel: Kernel) -> int:
    applied = (e for e in walk(map_expression(kernel)) if isinstance(e, Apply))
    return sum(1 if e.primitive in CHEAP_PRIMITIVES else EXPENSIVE for e in applied)


def _is_index_map(kernel: Kernel) -> bool:
    """A map that moves or repeats elements, or fills: no arithmetic, affine index."""
    if not kernel.is_map:
        return False
    body = map_expression(kernel)
    if any(isinstance(e, Apply) for e in walk(body)):
        return False
    return all(isinstance(i, Affine) for load in loads(body) for i in load.index)


def _permutes_rows(kernel: Kernel) -> bool:
    """True for a map that is its whole operand with axes permuted, but for the last."""
    body = map_expression(kernel)
    if not isinstance(body, Load) or len(kernel.inputs) != 1:
        return False
    extents = {Affine.axis(axis.name): axis.extent for axis in kernel.space}
    index = [i for i in body.index if isinstance(i, Affine) and i in extents]
    last = index[-1:] == list(extents)[-1:]
    whole = tuple(extents[i] for i in index) == kernel.inputs[0].shape
    return last and whole and len(set(index)) == len(body.index) == len(extents) > 1


def _reads_own_point(kernel: Kernel, operand: str) -> bool:
    """True if the map reads `operand` only at the point that it stores, and at all points that the operand has."""
    (shape,) = (o.shape for o in kernel.operands if o.name == operand)
    if shape != tuple(axis.extent for axis in kernel.space):
        return False  # the first elements alone
    identity = tuple(Affine.axis(axis.name) for axis in kernel.space)
    sites = [load for load in loads(map_expression(kernel)) if load.operand == operand]
    return bool(sites) and all(isinstance(load, Load) and load.index == identity for load in sites)
