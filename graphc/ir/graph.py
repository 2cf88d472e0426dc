"""Graphs: immutable values and nodes in static single assignment form.

    Graph  = name, inputs: Value*, outputs: Value*     (nodes follow: whatever the outputs need)
    Node   = op, inputs: Value*, attributes, where it came from -> outputs: Value*
    Value  = type, and either a graph input's name or (producer node, output index)

Values and nodes compare by identity; two graphs are equal when they have the same structure
(origins, that is modules and source lines, are not compared). Rewriting builds new nodes.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import numpy as np

from graphc.ir.printer import print_graph
from graphc.ir.types import TensorType, as_dtype

if TYPE_CHECKING:
    from graphc.ir.op import Op


@dataclass(frozen=True)
class Origin:
    """Where a node was declared: the module path (`encoder.fc1`) and the user's file and line; empty if unknown."""

    module: str = ""
    file: str = ""
    line: int = 0

    @property
    def place(self) -> str:
        """`train.py:12`, or an empty string."""
        return f"{self.file}:{self.line}" if self.file else ""

    def __str__(self) -> str:
        return "  ".join(part for part in (self.module, self.place) if part)


NOWHERE = Origin()


@dataclass(frozen=True)
class Literal:
    """A constant array as an attribute: hashable, immutable, row-major bytes."""

    dtype: str
    shape: tuple[int, ...]
    data: bytes

    @staticmethod
    def of(array: Any) -> Literal:
        """The literal of an array-like whose dtype graphc supports."""
        value = np.asarray(array)
        dtype = as_dtype(value.dtype)
        return Literal(dtype.name, value.shape, np.ascontiguousarray(value, dtype.numpy).tobytes())

    @property
    def array(self) -> np.ndarray:
        """A read-only NumPy array of the constant."""
        return np.frombuffer(self.data, as_dtype(self.dtype).numpy).reshape(self.shape)


@dataclass(frozen=True, eq=False)
class Value:
    """A tensor in a graph: a named graph input (`producer is None`) or output `index` of a node.

    `watches` is what the user wants to see of it at each call (`dsl/watch.py`); copies of a value have none.
    """

    type: TensorType
    producer: Node | None = None
    index: int = 0
    name: str = ""
    watches: tuple[object, ...] = field(default=(), init=False, repr=False)

    @property
    def origin(self) -> Origin:
        """Where the value was declared."""
        return self.producer.origin if self.producer else NOWHERE

    def __repr__(self) -> str:
        label = self.name or (f"{self.producer.op.name}#{self.index}" if self.producer else "?")
        return f"Value({label}: {self.type})"


_numbers = itertools.count()


def next_number() -> int:
    """A number greater than those of all nodes made before, and less than those of nodes made from now on."""
    return next(_numbers)


@dataclass(frozen=True, eq=False)
class Node:
    """One application of an op. `attributes` are complete (defaults filled in) and in the op's order.

    `number` tells which of two nodes was made first, and means nothing else.
    """

    op: Op
    inputs: tuple[Value, ...]
    attributes: Mapping[str, Any]
    output_types: tuple[TensorType, ...]
    origin: Origin = NOWHERE
    outputs: tuple[Value, ...] = field(init=False)
    number: int = field(init=False, repr=False, default_factory=next_number)

    def __post_init__(self) -> None:
        outputs = tuple(Value(type_, self, index) for index, type_ in enumerate(self.output_types))
        object.__setattr__(self, "outputs", outputs)

    @property
    def output(self) -> Value:
        """The only output of a one-output node."""
        (value,) = self.outputs
        return value

    @property
    def type(self) -> TensorType:
        """The type of the only output."""
        return self.output.type

    def __repr__(self) -> str:
        return f"Node({self.op.name}: {', '.join(map(str, self.output_types))})"


@dataclass(frozen=True, eq=False)
class Graph:
    """A function from named inputs to outputs. `nodes` is derived: what the outputs need, operands first."""

    name: str
    inputs: tuple[Value, ...]
    outputs: tuple[Value, ...]

    @cached_property
    def nodes(self) -> tuple[Node, ...]:
        """All nodes that the outputs depend on, in a deterministic topological order (depth first, operands first)."""
        return topological(self.outputs)

    @cached_property
    def readers(self) -> Mapping[Value, tuple[Node, ...]]:
        """For each value the nodes that read it, in order, once for each operand position."""
        found: dict[Value, list[Node]] = {}
        for node in self.nodes:
            for value in node.inputs:
                found.setdefault(value, []).append(node)
        return {value: tuple(nodes) for value, nodes in found.items()}

    @cached_property
    def _key(self) -> tuple[Any, ...]:
        number: dict[Value, int] = {value: i for i, value in enumerate(self.inputs)}
        body = []
        for node in self.nodes:
            operands = tuple(number[v] for v in node.inputs)
            body.append((node.op.name, operands, tuple(sorted(node.attributes.items())), node.output_types))
            for value in node.outputs:
                number[value] = len(number)
        heads = tuple((v.name, v.type) for v in self.inputs)
        return (self.name, heads, tuple(body), tuple(number[v] for v in self.outputs))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Graph) and self._key == other._key

    def __hash__(self) -> int:
        return hash(self._key)

    def __str__(self) -> str:
        """The graph as text; `graphc.ir.text.parse` reads it back."""
        return print_graph(self)

    def __repr__(self) -> str:
        return f"<graph {self.name}: {len(self.inputs)} inputs, {len(self.nodes)} nodes, {len(self.outputs)} outputs>"


def topological(outputs: Iterable[Value], until: Collection[Value] = ()) -> tuple[Node, ...]:
    """Nodes that `outputs` depend on, each after its operands; not those that only values in `until` need.

    Iterative, so depth is no limit.
    """
    order: dict[Node, None] = {}
    for output in outputs:
        stack: list[tuple[Node, Iterator[Value]]] = []
        if output.producer is not None and output.producer not in order and output not in until:
            stack.append((output.producer, iter(output.producer.inputs)))
        while stack:
            node, operands = stack[-1]
            waiting = next(
                (v.producer for v in operands if v.producer and v.producer not in order and v not in until), None
            )
            if waiting is not None:
                stack.append((waiting, iter(waiting.inputs)))
            else:
                stack.pop()
                order[node] = None
    return tuple(order)


def reached_from(sources: Iterable[Value], graph_nodes: Sequence[Node]) -> set[Value]:
    """The sources and every value of `graph_nodes` (topological) that depends on one of them."""
    reached = set(sources)
    for node in graph_nodes:
        if any(value in reached for value in node.inputs):
            reached.update(node.outputs)
    return reached


def rebuild(graph: Graph, replace: Callable[[Node, tuple[Value, ...]], Sequence[Value] | None]) -> Graph:
    """Copy a graph, asking `replace(node, new_inputs)` for each node's new outputs (None: keep the node as it is).

    The same graph if every node is kept.
    """
    new: dict[Value, Value] = {value: value for value in graph.inputs}
    changed = False
    for node in graph.nodes:
        inputs = tuple(new[v] for v in node.inputs)
        outputs = replace(node, inputs)
        changed = changed or outputs is not None
        new.update(zip(node.outputs, reading(node, inputs).outputs if outputs is None else outputs, strict=True))
    return Graph(graph.name, graph.inputs, tuple(new[v] for v in graph.outputs)) if changed else graph


def inlined(body: Graph, operands: Sequence[Value]) -> tuple[Value, ...]:
    """The outputs of `body` computed from `operands`, which stand for its inputs: copies of its nodes."""
    known = dict(zip(body.inputs, operands, strict=True))
    for node in body.nodes:
        copy = with_inputs(node, tuple(known[v] for v in node.inputs))
        known.update(zip(node.outputs, copy.outputs, strict=True))
    return tuple(known[v] for v in body.outputs)


def with_inputs(node: Node, inputs: tuple[Value, ...]) -> Node:
    """The same node applied to other inputs of the same types."""
    return Node(node.op, inputs, node.attributes, node.output_types, node.origin)


def reading(node: Node, inputs: tuple[Value, ...]) -> Node:
    """The node itself if it reads these inputs, else the same node applied to them."""
    same = all(a is b for a, b in zip(inputs, node.inputs, strict=True))
    return node if same else with_inputs(node, inputs)


def with_changed_bodies(node: Node, inputs: tuple[Value, ...], change: Callable[[Graph], Graph]) -> Node | None:
    """The node on `inputs` with `change` applied to the graphs in its attributes; None if none changed."""
    bodies = {name: value for name, value in node.attributes.items() if isinstance(value, Graph)}
    new = {name: change(body) for name, body in bodies.items()}
    if all(new[name] is body for name, body in bodies.items()):
        return None
    return Node(node.op, inputs, MappingProxyType({**node.attributes, **new}), node.output_types, node.origin)
