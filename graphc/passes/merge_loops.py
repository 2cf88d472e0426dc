"""Loops that compute what another one computes become one.

Differentiation makes a loop that saves what the backward loop needs beside the loop that the user wrote, and forward
mode one that carries tangents beside the values. Each computes all that the first one does. Two carried values are
equal if they start equal and, taken to be equal, become equal in a turn: the coarsest partition with that property is
found by refining the one by first values. (Hopcroft, "An n log n algorithm for minimizing states in a finite
automaton", 1971.)
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

from graphc.ir.graph import Graph, Node, Value, inlined, reached_from, reading, with_inputs
from graphc.ops.nested import Parameters
from graphc.passes.everywhere import with_bodies
from graphc.passes.manager import Rewrite
from graphc.passes.numbering import Numbering, numbered


@dataclass(frozen=True)
class _Loop:
    """A `scan` or `while_loop` node with its operands in their groups."""

    node: Node

    @property
    def body(self) -> Graph:
        graph: Graph = self.node.attributes["body"]
        return graph

    @property
    def carried(self) -> int:
        count: int = self.node.attributes["carried"]
        return count

    @property
    def sequences(self) -> int:
        return int(self.node.attributes.get("sequences", 0))

    @property
    def kind(self) -> tuple[object, ...]:
        """What loops that turn together have in common."""
        given = self.node.attributes
        return self.node.op.name, *(given.get(name) for name in ("length", "reverse", "bound"))


def with_own_values(graph: Graph) -> Graph:
    """The graph with no value in two of the graphs that its ops run: a loop and its derivative may share some."""
    seen: set[Value] = set()

    def separate(body: Graph) -> Graph:
        values = {*body.inputs, *(v for node in body.nodes for v in node.outputs)}
        if seen.isdisjoint(values):
            seen.update(values)
            return body
        inputs = tuple(Value(v.type, name=v.name) for v in body.inputs)
        return Graph(body.name, inputs, inlined(body, inputs))

    return with_bodies(graph, separate)


def merge_loops(graph: Graph) -> tuple[Graph, list[Rewrite]]:
    """The graph with such loops merged, and a record of each. Bodies must have values of their own."""
    rewrites: list[Rewrite] = []
    while True:
        merged = _merge_one(graph)
        if merged is None:
            return graph, rewrites
        graph, record = merged
        rewrites.append(record)


def _merge_one(graph: Graph) -> tuple[Graph, Rewrite] | None:
    loops = [_Loop(node) for node in graph.nodes if node.op.name in ("scan", "while_loop")]
    if len(loops) < 2:
        return None
    numbers = numbered(graph.inputs, graph.nodes)
    for position, later in enumerate(loops):
        for earlier in loops[:position]:
            if earlier.kind != later.kind or _depends(later.node, earlier.node, graph):
                continue
            if _inner(earlier) & _inner(later) and not _same_operands(earlier, later, numbers):
                continue  # a value that stands in both cannot have two numbers
            for small, large in ((earlier, later), (later, earlier)):
                known = _merged(small, large, numbers)
                if known is not None:
                    return replaced(graph, known), _record(small, large)
    return None


def _inner(loop: _Loop) -> set[Value]:
    """The inputs of a loop's graphs; loops that were declared with the same graphs share them."""
    return {v for value in loop.node.attributes.values() if isinstance(value, Graph) for v in value.inputs}


def _same_operands(first: _Loop, second: _Loop, numbers: Numbering) -> bool:
    return [numbers[v] for v in first.node.inputs] == [numbers[v] for v in second.node.inputs]


def _depends(node: Node, other: Node, graph: Graph) -> bool:
    return not reached_from(other.outputs, graph.nodes).isdisjoint(node.inputs)


def _record(small: _Loop, large: _Loop) -> Rewrite:
    texts = [f"{loop.node.op.name} {loop.body.name} of {loop.carried} carried values" for loop in (small, large)]
    why = "the second loop carries all that the first one does"
    return Rewrite("merged_loops", ", ".join(texts), texts[1], why, small.node.origin)


def _merged(small: _Loop, large: _Loop, numbers: Numbering) -> dict[Value, Value] | None:
    """What stands for the outputs of both, if all carried values of the small loop are carried by the large one."""
    inner, classes = _classes((small, large), numbers)
    of_large = {classes[large.body.inputs[j]]: j for j in reversed(range(large.carried))}
    mine = [classes[v] for v in small.body.inputs[: small.carried]]
    if any(c not in of_large for c in mine):
        return None
    if small.node.op.name == "while_loop":
        test, other = (loop.node.attributes["test"].outputs[0] for loop in (small, large))
        if inner[test] != inner[other]:
            return None
    if not small.carried and not _computes(large.body, small.body, inner):
        return None
    return _joined(small, large, [of_large[c] for c in mine], inner)


def _classes(loops: Sequence[_Loop], numbers: Numbering) -> tuple[Numbering, dict[Value, int]]:
    """Numbers for the values of the bodies (and tests), and the class of equal ones of each carried value."""
    classes = {
        v: numbers[operand]
        for loop in loops
        for v, operand in zip(loop.body.inputs[: loop.carried], loop.node.inputs, strict=False)
    }
    while True:
        inner = Numbering()
        for loop in loops:
            for graph in (value for value in loop.node.attributes.values() if isinstance(value, Graph)):
                for place, (v, operand) in enumerate(zip(graph.inputs, loop.node.inputs, strict=True)):
                    if place < loop.carried:
                        inner.name(v, ("carried", classes[loop.body.inputs[place]]))
                    else:
                        group = "sequence" if place < loop.carried + loop.sequences else "captured"
                        inner.name(v, (group, numbers[operand]))
                inner.add(graph.nodes)
        table: dict[tuple[int, int], int] = {}
        finer = {
            v: table.setdefault((classes[v], inner[end]), len(table))
            for loop in loops
            for v, end in zip(loop.body.inputs[: loop.carried], loop.body.outputs, strict=False)
        }
        if len(table) == len(set(classes.values())):
            return inner, classes
        classes = finer


def _computes(large: Graph, small: Graph, inner: Numbering) -> bool:
    """Whether all that the small graph gives is computed by the large one."""
    known = {inner[v] for node in large.nodes for v in node.outputs}
    return all(inner[v] in known for v in small.outputs)


def _joined(small: _Loop, large: _Loop, places: Sequence[int], inner: Numbering) -> dict[Value, Value]:
    """The large loop with what only the small one gives; `places` says which of its carried values it carries."""
    k, m = large.carried, large.carried + large.sequences
    operands = list(large.node.inputs)
    groups = [operands[:k], operands[k:m], operands[m:]]
    inputs = [list(large.body.inputs[:k]), list(large.body.inputs[k:m]), list(large.body.inputs[m:])]
    by_number = {inner[v]: v for node in reversed(large.body.nodes) for v in node.outputs}
    by_number |= {inner[v]: v for v in reversed(large.body.inputs)}
    known = {v: large.body.inputs[j] for v, j in zip(small.body.inputs, places, strict=False)}
    parameters = Parameters(v.name for v in large.body.inputs)
    for place in range(small.carried, len(small.node.inputs)):
        v, group = small.body.inputs[place], 1 if place < small.carried + small.sequences else 2
        if inner[v] not in by_number:
            by_number[inner[v]] = fresh = parameters.add(v.name, v.type)
            groups[group].append(small.node.inputs[place])
            inputs[group].append(fresh)
        known[v] = by_number[inner[v]]
    for node in small.body.nodes:
        if any(inner[v] not in by_number for v in node.outputs):
            copy = with_inputs(node, tuple(known[v] for v in node.inputs))
            by_number |= {inner[v]: new for v, new in zip(node.outputs, copy.outputs, strict=True)}
        known |= {v: by_number[inner[v]] for v in node.outputs}
    outputs = list(large.body.outputs)
    position = {inner[v]: j for j, v in reversed(list(enumerate(outputs))) if j >= k}
    for v in small.body.outputs[small.carried :]:
        if inner[v] not in position:
            position[inner[v]] = len(outputs)
            outputs.append(known[v])
    node = _made(small, large, groups, inputs, outputs)
    ends = [*places, *(position[inner[v]] for v in small.body.outputs[small.carried :])]
    same = {v: node.outputs[j] for v, j in zip(small.node.outputs, ends, strict=True)}
    return same | dict(zip(large.node.outputs, node.outputs, strict=False))


def _made(
    small: _Loop,
    large: _Loop,
    groups: Sequence[Sequence[Value]],
    inputs: Sequence[Sequence[Value]],
    outputs: Sequence[Value],
) -> Node:
    taken = tuple(v for group in inputs for v in group)
    attributes = {**large.node.attributes, "body": Graph(large.body.name, taken, tuple(outputs))}
    if "sequences" in attributes:
        attributes["sequences"] = len(groups[1])
    if "test" in attributes:
        test: Graph = attributes["test"]
        added = tuple(Value(v.type, name=v.name) for v in taken[len(test.inputs) :])
        attributes["test"] = Graph(test.name, (*test.inputs, *added), test.outputs)
    stacked = large.node.op.infer([v.type for group in groups for v in group], attributes)
    operands = tuple(v for group in groups for v in group)
    first = small if small.node.number < large.node.number else large  # the user's line rather than a gradient's
    return Node(large.node.op, operands, MappingProxyType(attributes), stacked, first.node.origin)


def replaced(graph: Graph, known: Mapping[Value, Value]) -> Graph:
    """The graph with values put in the places of others; those read values of the graph as it was."""
    new: dict[Value, Value] = {v: v for v in graph.inputs}

    def standing(value: Value) -> Value:
        return known.get(value, value)

    stack = [standing(v) for v in reversed(graph.outputs)]
    while stack:
        value = stack[-1]
        node = value.producer
        if value in new or node is None:
            new.setdefault(value, value)
            stack.pop()
            continue
        operands = [standing(v) for v in node.inputs]
        waiting = [v for v in operands if v not in new]
        if waiting:
            stack.extend(waiting)
            continue
        new.update(zip(node.outputs, reading(node, tuple(new[v] for v in operands)).outputs, strict=True))
    return Graph(graph.name, graph.inputs, tuple(new[standing(v)] for v in graph.outputs))
