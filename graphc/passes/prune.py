"""Dead code of ops that run graphs: results, carried values, sequences and operands that nothing needs.

A carried value is needed if its last value is read, or if a needed result of a turn depends on it, in this turn or a
later one. One that never changes is an operand like any other; an operand given twice is one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from types import MappingProxyType

from graphc.ir.graph import Graph, Node, Value, reading
from graphc.ops.nested import closure, used_by

Pruned = tuple[Node, dict[int, Value]]  # the smaller node, and what stands for the outputs that are kept


def pruned(node: Node, live: Sequence[int]) -> Pruned | None:
    """The node with no more than the outputs `live` need, and what stands for these; None if that is the node."""
    return _RULES[node.op.name](node, live)


def _cond(node: Node, live: Sequence[int]) -> Pruned | None:
    graphs = {name: node.attributes[name] for name in ("then", "orelse")}
    outputs = {name: [body.outputs[k] for k in live] for name, body in graphs.items()}
    used = {name: used_by(values) for name, values in outputs.items()}
    read = [
        i for i in range(len(node.inputs) - 1) if any(body.inputs[i] in used[name] for name, body in graphs.items())
    ]
    operands, merge = _distinct(node.inputs[1:], read)
    if len(live) == len(node.outputs) and len(operands) == len(node.inputs) - 1:
        return None
    attributes = {
        name: _restricted(body, [body.inputs[i] for i in operands], outputs[name], _named(body, merge))
        for name, body in graphs.items()
    }
    return _made(node, [node.inputs[0], *(node.inputs[i + 1] for i in operands)], attributes, live)


def _scan(node: Node, live: Sequence[int]) -> Pruned | None:
    body, k, m = (node.attributes[name] for name in ("body", "carried", "sequences"))
    still = [i for i in range(k) if body.outputs[i] is body.inputs[i]]
    stacked = [j for j in live if j >= k]
    wanted = [i for i in live if i < k and i not in still]
    needed = _needed(body, k, wanted, still, stacked)
    outputs = [body.outputs[i] for i in (*needed, *stacked)]
    used = used_by(outputs)
    read = [i for i in range(k, len(node.inputs)) if body.inputs[i] in used]
    constants = [i for i in still if body.inputs[i] in used]
    sequences, merged = _distinct(node.inputs, [i for i in read if i < k + m])
    captured, more = _distinct(node.inputs, [*(i for i in read if i >= k + m), *constants])
    if len(needed) == k and len(sequences) == m and len(captured) == len(node.inputs) - k - m:
        if len(stacked) == len(node.outputs) - k:
            return None
    places = [*needed, *sequences, *captured]
    attributes = {
        "body": _restricted(body, [body.inputs[i] for i in places], outputs, _named(body, merged | more)),
        "carried": len(needed),
        "sequences": len(sequences),
    }
    smaller, known = _made(node, [node.inputs[i] for i in places], attributes, [*needed, *stacked])
    return smaller, known | {i: node.inputs[i] for i in still}


def _while_loop(node: Node, live: Sequence[int]) -> Pruned | None:
    body, test, k = (node.attributes[name] for name in ("body", "test", "carried"))
    still = [i for i in range(k) if body.outputs[i] is body.inputs[i]]
    tested = used_by(test.outputs)
    wanted = [i for i in range(k) if i not in still and (i in live or test.inputs[i] in tested)]
    needed = _needed(body, k, wanted, still, [])
    if not needed:
        return None  # a loop that does nothing, or that never ends
    outputs = [body.outputs[i] for i in needed]
    used = used_by(outputs)
    read = [i for i in (*range(k, len(node.inputs)), *still) if body.inputs[i] in used or test.inputs[i] in tested]
    captured, merge = _distinct(node.inputs, read)
    if len(needed) == k and len(captured) == len(node.inputs) - k:
        return None
    places = [*needed, *captured]
    attributes = {
        "body": _restricted(body, [body.inputs[i] for i in places], outputs, _named(body, merge)),
        "test": _restricted(test, [test.inputs[i] for i in places], test.outputs, _named(test, merge)),
        "carried": len(needed),
    }
    smaller, known = _made(node, [node.inputs[i] for i in places], attributes, needed)
    return smaller, known | {i: node.inputs[i] for i in still}


_RULES: dict[str, Callable[[Node, Sequence[int]], Pruned | None]] = {
    "cond": _cond,
    "scan": _scan,
    "while_loop": _while_loop,
}


def _needed(
    body: Graph, carried: int, wanted: Iterable[int], still: Sequence[int], stacked: Sequence[int]
) -> list[int]:
    """The carried values, but those that stand still, on which the wanted ones and stacked outputs depend."""

    def read(positions: Iterable[int]) -> list[int]:
        used = used_by(body.outputs[i] for i in positions)
        return [i for i in range(carried) if body.inputs[i] in used and i not in still]

    return closure([*wanted, *read(stacked)], read)


def _distinct(operands: Sequence[Value], places: Sequence[int]) -> tuple[list[int], dict[int, int]]:
    """The first of the places of each operand, and for the others that place."""
    first: dict[Value, int] = {}
    merge = {i: first.setdefault(operands[i], i) for i in places}
    return [i for i in places if merge[i] == i], {i: j for i, j in merge.items() if i != j}


def _named(body: Graph, merge: Mapping[int, int]) -> dict[Value, Value]:
    return {body.inputs[i]: body.inputs[j] for i, j in merge.items()}


def _restricted(body: Graph, inputs: Sequence[Value], outputs: Sequence[Value], merge: dict[Value, Value]) -> Graph:
    """The part of a graph that gives `outputs`, with inputs that stand for others."""
    smaller = Graph(body.name, tuple(body.inputs), tuple(outputs))
    if merge:
        known = {v: merge.get(v, v) for v in body.inputs}
        for node in smaller.nodes:
            copy = reading(node, tuple(known[v] for v in node.inputs))
            known.update(zip(node.outputs, copy.outputs, strict=True))
        smaller = Graph(body.name, smaller.inputs, tuple(known[v] for v in outputs))
    return Graph(body.name, tuple(inputs), smaller.outputs)


def _made(node: Node, inputs: Sequence[Value], attributes: Mapping[str, object], kept: Sequence[int]) -> Pruned:
    types = tuple(node.output_types[k] for k in kept)
    smaller = Node(node.op, tuple(inputs), MappingProxyType({**node.attributes, **attributes}), types, node.origin)
    return smaller, dict(zip(kept, smaller.outputs, strict=True))
