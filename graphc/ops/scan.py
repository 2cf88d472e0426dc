"""The loop of known length, whose turns are a graph over slices of sequences.

Reverse mode saves the carried values at the start of each turn, in one stack for each, and goes back over them: each
turn of the backward loop computes the turn again from these and pulls back through it. Cotangents of captured values
are carried as running sums. (Griewank, Walther, "Evaluating Derivatives", 2nd edition, SIAM 2008, chapter 12.)
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

import numpy as np

from graphc.errors import ShapeError
from graphc.ir.builder import Builder
from graphc.ir.dims import Dim, symbols
from graphc.ir.graph import Graph, Node, Value
from graphc.ir.op import Attribute, Attributes, Forward, Nested, Op, Reverse, Sample, define
from graphc.ir.types import TensorType, f32
from graphc.ops.nested import (
    Parameters,
    Pushed,
    apply_nested,
    closure,
    expect_inputs,
    expect_types,
    filled,
    given,
    output_types,
    pulled_back,
    pushed_body,
    stacked_on,
    used_by,
    without_axis,
)

T = TypeVar("T")


@dataclass(frozen=True)
class Scan:
    """The parts of a `scan` node, or of one to be made: operands in their groups, and attributes."""

    init: tuple[Value, ...]
    sequences: tuple[Value, ...]
    captured: tuple[Value, ...]
    body: Graph
    length: Dim
    reverse: bool

    @staticmethod
    def of(node: Node) -> Scan:
        """The parts of a node."""
        k, m = node.attributes["carried"], node.attributes["sequences"]
        groups = node.inputs[:k], node.inputs[k : k + m], node.inputs[k + m :]
        return Scan(*groups, node.attributes["body"], node.attributes["length"], node.attributes["reverse"])

    def apply(self, b: Builder) -> tuple[Value, ...]:
        """The outputs of a node of these parts: the last carried values, then the stacked outputs."""
        counts = {"carried": len(self.init), "sequences": len(self.sequences)}
        shape = {"length": self.length, "reverse": self.reverse}
        operands = (*self.init, *self.sequences, *self.captured)
        return apply_nested(b, "scan", operands, **counts, **shape, body=self.body)

    def split(self, items: Sequence[T]) -> tuple[Sequence[T], Sequence[T], Sequence[T]]:
        """What belongs to the operands, in their order (such as the body's inputs), as their three groups."""
        k, m = len(self.init), len(self.sequences)
        return items[:k], items[k : k + m], items[k + m :]


def length_symbols(graph: Graph) -> frozenset[str]:
    """The dimension symbols that lengths of loops in a graph depend on, in graphs of its nodes too."""
    found: set[str] = set()
    for node in graph.nodes:
        if node.op.name == "scan":
            found |= symbols(node.attributes["length"])
        for value in node.attributes.values():
            if isinstance(value, Graph):
                found |= length_symbols(value)
    return frozenset(found)


def _infer(types: Sequence[TensorType], attributes: Attributes) -> tuple[TensorType, ...]:
    k, m, body, length = (attributes[name] for name in ("carried", "sequences", "body", "length"))
    if k < 0 or m < 0 or k + m > len(types):
        raise ShapeError(f"has {len(types)} operands, not {k} carried values and {m} sequences")
    init, sequences, captured = types[:k], types[k : k + m], types[k + m :]
    for position, type_ in enumerate(sequences):
        if not type_.shape or type_.shape[0] != length:
            raise ShapeError(f"sequence {position} is {type_}; its axis 0 must have the length of the loop, {length}")
    expect_inputs(body, (*init, *map(without_axis, sequences), *captured), "the body")
    found = output_types(body)
    expect_types(found[:k], init, "the body", "the loop starts with")
    return (*init, *(stacked_on(t, length) for t in found[k:]))


def pull_back(node: Node, cotangents: Sequence[Value | None], b: Builder, reverse: Reverse) -> list[Value | None]:
    """Cotangents of a scan's operands: a backward loop over the carried values that the forward one saves."""
    scan = Scan.of(node)
    k, body = len(scan.init), scan.body
    stacked = [j for j in range(k, len(node.outputs)) if cotangents[j] is not None]

    def turn(active: Sequence[int]) -> tuple[list[Value], list[Value], list[Value | None]]:
        """The body's inputs, cotangents of its outputs, and what the inputs get, in inputs of a new graph."""
        parameters = Parameters()
        inputs, outputs = parameters.like(body.inputs), (*active, *stacked)
        names = [f"{body.inputs[i].name}.cotangent" if i < k else f"cotangent{i - k}" for i in outputs]
        vectors = [parameters.add(name, body.outputs[i].type) for name, i in zip(names, outputs, strict=True)]
        return inputs, vectors, pulled_back(body, inputs, outputs, vectors, Builder(b.origin), reverse)

    active = closure(
        (i for i in range(k) if cotangents[i] is not None),
        lambda active: (i for i, part in enumerate(turn(active)[2][:k]) if part is not None),
    )
    inputs, vectors, found = turn(active)
    groups = [[i for i, part in enumerate(group) if part is not None] for group in scan.split(found)]
    carries, slices, captured = scan.split(inputs)
    of_carries, of_slices, of_captured = scan.split(found)
    names = {v.name for v in (*inputs, *vectors)}
    sums = Parameters(names).like((captured[c] for c in groups[2]), "sum")
    inner = Builder(b.origin)
    outputs = (
        *(filled(of_carries[i], carries[i].type, inner) for i in active),
        *(inner.add(total, given(of_captured[c])) for c, total in zip(groups[2], sums, strict=True)),
        *(given(of_slices[j]) for j in groups[1]),
    )
    used = used_by(outputs)
    saved, read, kept = ([i for i, v in enumerate(group) if v in used] for group in (carries, slices, captured))
    n = len(active)
    backward = Scan(
        init=(*(filled(cotangents[i], carries[i].type, b) for i in active), *(b.full(0, v.type) for v in sums)),
        sequences=(
            *_saved(scan, saved, b),
            *(scan.sequences[j] for j in read),
            *(given(cotangents[j]) for j in stacked),
        ),
        captured=tuple(scan.captured[c] for c in kept),
        body=Graph(
            f"{body.name}_backward",
            (
                *vectors[:n],
                *sums,
                *(carries[i] for i in saved),
                *(slices[j] for j in read),
                *vectors[n:],
                *(captured[c] for c in kept),
            ),
            outputs,
        ),
        length=scan.length,
        reverse=not scan.reverse,
    )
    places = [*active, *(k + len(slices) + c for c in groups[2]), *(k + j for j in groups[1])]
    by_place = dict(zip(places, backward.apply(b), strict=True))
    return [by_place.get(i) for i in range(len(node.inputs))]


def _saved(scan: Scan, saved: Sequence[int], b: Builder) -> tuple[Value, ...]:
    """The carried values `saved` at the start of each turn, stacked, by the same loop with more outputs."""
    if not saved:
        return ()
    body = Graph(scan.body.name, scan.body.inputs, (*scan.body.outputs, *(scan.body.inputs[i] for i in saved)))
    return replace(scan, body=body).apply(b)[-len(saved) :]


def _push_forward(node: Node, tangents: Sequence[Value | None], b: Builder, forward: Forward) -> list[Value | None]:
    """One loop that carries the values and their tangents."""
    scan = Scan.of(node)
    k, body = len(scan.init), scan.body
    of_carries, of_sequences, of_captured = scan.split(tangents)
    moving = [i for i, t in enumerate(tangents) if t is not None and i >= k]

    def turn(active: Sequence[int]) -> Pushed:
        return pushed_body(body, (*active, *moving), Builder(b.origin), forward)

    active = closure(
        (i for i, t in enumerate(of_carries) if t is not None),
        lambda active: (i for i, part in enumerate(turn(active)[3][:k]) if part is not None),
    )
    inputs, vectors, outputs, found = turn(active)
    stacked = [j for j in range(k, len(node.outputs)) if found[j] is not None]
    if not active and not stacked:
        return [None] * len(node.outputs)
    carries, slices, captured = scan.split(inputs)
    n, inner = len(active), Builder(b.origin)
    m = n + sum(i < k + len(slices) for i in moving)
    derived = Scan(
        init=(*scan.init, *(filled(of_carries[i], carries[i].type, b) for i in active)),
        sequences=(*scan.sequences, *(t for t in of_sequences if t is not None)),
        captured=(*scan.captured, *(t for t in of_captured if t is not None)),
        body=Graph(
            f"{body.name}_tangent",
            (*carries, *vectors[:n], *slices, *vectors[n:m], *captured, *vectors[m:]),
            (
                *outputs[:k],
                *(filled(found[i], carries[i].type, inner) for i in active),
                *(given(found[j]) for j in stacked),
            ),
        ),
        length=scan.length,
        reverse=scan.reverse,
    )
    by_place = dict(zip((*active, *stacked), derived.apply(b)[k:], strict=True))
    return [by_place.get(j) for j in range(len(node.outputs))]


def _samples() -> list[Sample]:
    b = Builder()

    def body(name: str, inputs: Sequence[tuple[str, TensorType]], make: Callable[..., Sequence[Value]]) -> Graph:
        values = tuple(Value(type_, name=n) for n, type_ in inputs)
        return Graph(name, values, tuple(make(*values)))

    row, weights, number = TensorType(f32, (2, 3)), TensorType(f32, (3, 3)), TensorType(f32, ())
    cell = body(
        "cell",
        [("h", row), ("x", row), ("w", weights)],
        lambda h, x, w: (b.tanh(b.add(b.matmul(h, w), x)),),
    )
    running = body("running", [("s", number), ("x", number)], lambda s, x: (b.add(s, x), b.add(s, x)))
    squares = body("squares", [("x", row)], lambda x: (b.mul(x, x),))
    h, xs = (
        np.linspace(-0.5, 0.5, 6, dtype=np.float32).reshape(2, 3),
        np.sin(np.arange(24, dtype=np.float32)).reshape(4, 2, 3),
    )
    w = np.cos(np.arange(9, dtype=np.float32)).reshape(3, 3)
    rnn = {"carried": 1, "sequences": 1, "length": 4, "body": cell}
    return [
        Sample((h, xs, w), rnn, differentiable=(0, 1, 2)),
        Sample((h, xs, w), {**rnn, "reverse": True}, differentiable=(0, 1, 2)),
        Sample((xs,), {"carried": 0, "sequences": 1, "length": 4, "body": squares}, differentiable=(0,)),
        Sample(
            (np.array(1, np.float32), np.arange(5, dtype=np.float32)),
            {"carried": 1, "sequences": 1, "length": 5, "body": running},
        ),
        Sample((h, xs[:0], w), {**rnn, "length": 0}),
    ]


SCAN = define(
    Op(
        "scan",
        "A loop over axis 0 of sequences: each turn maps carried values and slices to new ones and to outputs.",
        latex=r"\left(c_{t+1}, y_t\right) = f\left(c_t, x_t\right)",
        attributes={
            "carried": Attribute("int", "how many operands come first that are the first carried values"),
            "sequences": Attribute("int", "how many operands follow that are walked along axis 0"),
            "length": Attribute("dim", "the number of turns"),
            "reverse": Attribute("bool", "whether the sequences are walked from their end", False),
            "body": Attribute("graph", "a turn: carried values, slices, other operands to carried values and outputs"),
        },
        infer=_infer,
        samples=_samples,
        nested=Nested(pull_back, _push_forward),
    )
)
