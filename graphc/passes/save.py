"""What a backward loop computes again although the forward loop has computed it: saved, where that is the cheaper way.

Reverse mode saves the carried values at the start of each turn, and the backward loop computes the turn again from
them. Values that cost a contraction, a reduction or a transcendental function are saved in place of that; what follows
from saved values by cheap maps is still computed again, and memory holds nothing that nobody reads.
(Griewank, Walther, "Evaluating Derivatives", 2nd edition, SIAM 2008, chapter 12.)
"""

from __future__ import annotations

from dataclasses import replace

from graphc.ir.builder import Builder
from graphc.ir.graph import Graph, Node, Value, reached_from, reading
from graphc.ops.nested import Parameters
from graphc.ops.scan import Scan
from graphc.passes.grouping import CHEAP_COST, EXPENSIVE, cost_of_a_point
from graphc.passes.manager import Rewrite
from graphc.passes.merge_loops import replaced
from graphc.passes.numbering import Numbering


def save_turns(graph: Graph) -> tuple[Graph, list[Rewrite]]:
    """The graph with such values saved, and a record of each."""
    rewrites: list[Rewrite] = []
    done: set[tuple[Graph, Graph]] = set()
    while True:
        pair = next((p for p in _pairs(graph) if _bodies(p) not in done), None)
        if pair is None:
            return graph, rewrites
        done.add(_bodies(pair))
        after, records = _saved(graph, *pair)
        graph, rewrites = after, rewrites + records


def _bodies(pair: tuple[Node, Node]) -> tuple[Graph, Graph]:
    return pair[0].attributes["body"], pair[1].attributes["body"]


def _pairs(graph: Graph) -> list[tuple[Node, Node]]:
    """Loops of one length of which the second walks over what the first one stacks."""
    found = []
    for node in graph.nodes:
        if node.op.name == "scan":
            sources = dict.fromkeys(v.producer for v in Scan.of(node).sequences if v.producer is not None)
            found += [(s, node) for s in sources if s.op.name == "scan" and _length(s) == _length(node)]
    return found


def _length(node: Node) -> object:
    return node.attributes["length"]


def _saved(graph: Graph, first: Node, second: Node) -> tuple[Graph, list[Rewrite]]:
    forward, backward = Scan.of(first), Scan.of(second)
    numbers = _numbers(forward, first, backward)
    k = len(forward.init)
    carries, slices, _ = forward.split(forward.body.inputs)
    changing = reached_from([*carries, *slices], forward.body.nodes)
    source = {numbers[v]: v for v in (*(v for n in forward.body.nodes for v in n.outputs), *forward.body.inputs)}
    stacked = {numbers[v]: j for j, v in reversed(list(enumerate(forward.body.outputs))) if j >= k}
    chosen = _chosen(backward.body, numbers, {n for n, v in source.items() if v in changing}, set(stacked))
    if not chosen:
        return graph, []
    outputs, parameters = list(forward.body.outputs), Parameters(v.name for v in backward.body.inputs)
    known: dict[Value, Value] = {}
    places, added = [], []
    for value in chosen:
        number = numbers[value]
        if number not in stacked:
            stacked[number] = len(outputs)
            outputs.append(source[number])
        assert value.producer is not None
        known[value] = parameters.add(value.producer.op.name, value.type)
        places.append(stacked[number])
        added.append(known[value])
    longer = replace(forward, body=Graph(forward.body.name, forward.body.inputs, tuple(outputs)))
    results = longer.apply(Builder(first.origin))
    _, slices, captured = backward.split(backward.body.inputs)
    starts = backward.body.inputs[: len(backward.init)]
    body = _reading(backward.body, (*starts, *slices, *added, *captured), known)
    fewer = replace(backward, sequences=(*backward.sequences, *(results[j] for j in places)), body=body)
    ends = fewer.apply(Builder(second.origin))
    same = dict(zip(first.outputs, results, strict=False)) | dict(zip(second.outputs, ends, strict=True))
    records = [
        Rewrite(
            "saved_turns",
            f"{v.producer.op.name} in {backward.body.name}" if v.producer else "",
            f"a stack of {forward.body.name}",
            "the forward loop has computed it",
            v.origin,
        )
        for v in chosen
    ]
    return replaced(graph, same), records


def _numbers(forward: Scan, first: Node, backward: Scan) -> Numbering:
    """Numbers for the values of both bodies in the same turn, equal for equal values."""
    numbers = Numbering()
    for v in forward.body.inputs:
        numbers.name(v, v)
    numbers.add(forward.body.nodes)
    _, slices, captured = forward.split(forward.body.inputs)
    starts, ours, fixed = backward.split(backward.body.inputs)
    of_sequence = dict(zip(forward.sequences, slices, strict=True))
    of_sequence |= {v: forward.body.outputs[v.index] for v in first.outputs[len(forward.init) :]}
    of_captured = dict(zip(forward.captured, captured, strict=True))
    for v in starts:
        numbers.name(v, v)
    for group, operands, known in ((ours, backward.sequences, of_sequence), (fixed, backward.captured, of_captured)):
        for v, operand in zip(group, operands, strict=True):
            if operand in known:
                numbers.equate(v, known[operand])
            else:
                numbers.name(v, v)
    numbers.add(backward.body.nodes)
    return numbers


def _chosen(body: Graph, numbers: Numbering, computed: set[int], stacked: set[int]) -> list[Value]:
    """The values of the backward body to be saved: `computed` by the forward body, and read by what it does not do."""
    free, chosen = {numbers[v] for v in body.inputs}, []
    for value in _border(body, numbers, computed):
        while value.producer is not None and numbers[value] not in free and _moves(value.producer):
            value = value.producer.inputs[0]
        dear = CHEAP_COST if numbers[value] in stacked else EXPENSIVE - 1
        if numbers[value] in computed and numbers[value] not in free and _cost(value, numbers, free) > dear:
            chosen.append(value)
            free.add(numbers[value])
    return chosen


def _border(body: Graph, numbers: Numbering, computed: set[int]) -> list[Value]:
    """Values that the forward body computes and that are results here or read by nodes that it has not."""
    ends = set(body.outputs)
    ends.update(v for n in body.nodes if any(numbers[o] not in computed for o in n.outputs) for v in n.inputs)
    return [v for n in body.nodes for v in n.outputs if v in ends and numbers[v] in computed]


def _moves(node: Node) -> bool:
    """Whether the node only moves or repeats the elements of its one operand: then that is saved."""
    return len(node.inputs) == 1 and cost_of_a_point(node) == 0


def _cost(value: Value, numbers: Numbering, free: set[int]) -> int:
    """The cost of computing a value from those that are at hand."""
    if value.producer is None or numbers[value] in free:
        return 0
    total = cost_of_a_point(value.producer)
    for operand in value.producer.inputs:
        if total >= EXPENSIVE:
            break
        total += _cost(operand, numbers, free)
    return total


def _reading(body: Graph, inputs: tuple[Value, ...], known: dict[Value, Value]) -> Graph:
    """The body with new inputs in the places of values."""
    new: dict[Value, Value] = {v: v for v in inputs}
    for node in body.nodes:
        copy = reading(node, tuple(new[v] for v in node.inputs))
        new.update((v, known.get(v, c)) for v, c in zip(node.outputs, copy.outputs, strict=True))
    return Graph(body.name, inputs, tuple(new[v] for v in body.outputs))
