"""The loop that goes on while a test is true.

Reverse mode needs a bound on the number of turns: with it the loop is a scan whose turns stand still after the last.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from graphc.errors import AttributeValueError, GradientError, ShapeError
from graphc.ir.builder import Builder, explain
from graphc.ir.graph import Graph, Node, Value, inlined
from graphc.ir.op import Attribute, Attributes, Forward, Nested, Op, Reverse, Sample, define
from graphc.ir.types import TensorType, f32, i64
from graphc.ops import scan
from graphc.ops.branch import PREDICATE, expect_predicate
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
    pushed_body,
)

UNBOUNDED = -1
NO_REVERSE_MODE = (
    "reverse mode saves every turn, and this loop may take any number of them; declare the largest "
    "number of turns, gc.while_loop(..., bound=100), or take forward mode (gc.jvp)"
)


@dataclass(frozen=True)
class While:
    """The parts of a `while_loop` node, or of one to be made."""

    init: tuple[Value, ...]
    captured: tuple[Value, ...]
    test: Graph
    body: Graph
    bound: int

    @staticmethod
    def of(node: Node) -> While:
        """The parts of a node."""
        k, given = node.attributes["carried"], node.attributes
        return While(node.inputs[:k], node.inputs[k:], given["test"], given["body"], given["bound"])

    def apply(self, b: Builder) -> tuple[Value, ...]:
        """The outputs of a node of these parts."""
        operands, graphs = (*self.init, *self.captured), {"test": self.test, "body": self.body}
        return apply_nested(b, "while_loop", operands, carried=len(self.init), bound=self.bound, **graphs)


def _infer(types: Sequence[TensorType], attributes: Attributes) -> tuple[TensorType, ...]:
    k, test, body, bound = (attributes[name] for name in ("carried", "test", "body", "bound"))
    if not 1 <= k <= len(types):
        raise ShapeError(f"has {len(types)} operands; it takes at least one carried value and carried={k}")
    if bound < UNBOUNDED:
        raise AttributeValueError(f"bound={bound} is no number of turns; leave it out, or give one of 0 or more")
    expect_inputs(test, types, "the test")
    expect_inputs(body, types, "the body")
    if len(test.outputs) != 1:
        raise ShapeError(f"the test gives {len(test.outputs)} values; it must give one, bool[]")
    expect_predicate(test.outputs[0].type, "the test's result")
    expect_types(output_types(body), types[:k], "the body", "the loop starts with")
    return tuple(types[:k])


def as_scan(node: Node, b: Builder) -> tuple[Value, ...]:
    """The results of a `while_loop` that has a bound, by a `scan` of so many turns that stand still after the last.

    Carried beside the values is whether the loop still runs: a test that was false once is not asked again.
    """
    loop = While.of(node)
    inner, parameters = Builder(b.origin), Parameters()
    running = parameters.add("running", PREDICATE)
    values = parameters.like(loop.body.inputs)
    goes_on = inner.logical_and(running, *inlined(loop.test, values))
    still = Graph("stay", loop.body.inputs, loop.body.inputs[: len(loop.init)])
    results = apply_nested(inner, "cond", (goes_on, *values), then=loop.body, orelse=still)
    body = Graph(f"{loop.body.name}_bounded", (running, *values), (goes_on, *results))
    init = (b.constant(True), *loop.init)
    return scan.Scan(init, (), loop.captured, body, loop.bound, reverse=False).apply(b)[1:]


def _pull_back(node: Node, cotangents: Sequence[Value | None], b: Builder, reverse: Reverse) -> Sequence[Value | None]:
    if node.attributes["bound"] == UNBOUNDED:
        raise GradientError(explain(node.op.name, [v.type for v in node.inputs], NO_REVERSE_MODE, node.origin))
    first = next(iter(as_scan(node, b)))
    assert first.producer is not None
    found = scan.pull_back(first.producer, [None, *cotangents], b, reverse)
    return found[1:]


def _push_forward(node: Node, tangents: Sequence[Value | None], b: Builder, forward: Forward) -> list[Value | None]:
    """One loop that carries the values and their tangents; the test reads the values."""
    loop, k = While.of(node), len(While.of(node).init)
    moving = [i for i, t in enumerate(tangents) if t is not None and i >= k]

    def turn(active: Sequence[int]) -> Pushed:
        return pushed_body(loop.body, (*active, *moving), Builder(b.origin), forward)

    active = closure(
        (i for i in range(k) if tangents[i] is not None),
        lambda active: (i for i, part in enumerate(turn(active)[3]) if part is not None),
    )
    if not active:
        return [None] * k
    values, vectors, outputs, found = turn(active)
    inner, n = Builder(b.origin), len(active)
    inputs = (*values[:k], *vectors[:n], *values[k:], *vectors[n:])
    derived = While(
        init=(*loop.init, *(filled(tangents[i], loop.init[i].type, b) for i in active)),
        captured=(*loop.captured, *(given(tangents[i]) for i in moving)),
        test=Graph(loop.test.name, inputs, inlined(loop.test, values)),
        body=Graph(
            f"{loop.body.name}_tangent",
            inputs,
            (*outputs, *(filled(found[i], values[i].type, inner) for i in active)),
        ),
        bound=loop.bound,
    )
    by_place = dict(zip(active, derived.apply(b)[k:], strict=True))
    return [by_place.get(i) for i in range(k)]


def _samples() -> list[Sample]:
    b = Builder()
    row, number = TensorType(f32, (3,)), TensorType(f32, ())
    x, limit = Value(row, name="x"), Value(number, name="limit")
    test = Graph("below", (x, limit), (b.lt(b.sum(x, axes=(0,)), limit),))
    body = Graph("grow", (x, limit), (b.add(b.mul(x, x), b.sin(x)),))
    growing = {"carried": 1, "test": test, "body": body}
    n = Value(TensorType(i64, ()), name="n")
    halving = {
        "carried": 1,
        "test": Graph("even", (n,), (b.eq(b.mod(n, b.constant(np.int64(2))), b.constant(np.int64(0))),)),
        "body": Graph("halve", (n,), (b.floordiv(n, b.constant(np.int64(2))),)),
    }
    s = Value(number, name="s")
    forever = {
        "carried": 1,
        "test": Graph("always", (s,), (b.constant(True),)),
        "body": Graph("double", (s,), (b.add(s, s),)),
    }
    start = np.array([0.5, 0.9, 0.7], np.float32)
    return [
        Sample((start, np.array(20, np.float32)), {**growing, "bound": 6}, differentiable=(0,)),
        Sample((start, np.array(1, np.float32)), {**growing, "bound": 6}, differentiable=(0,)),
        Sample((start, np.array(1e9, np.float32)), {**growing, "bound": 2}, differentiable=(0,)),
        Sample((np.array(48),), halving),
        Sample((np.array(1.5, np.float32),), {**forever, "bound": 4}),
    ]


WHILE_LOOP = define(
    Op(
        "while_loop",
        "A loop that maps carried values to new ones while a test of them is true, at most `bound` times.",
        latex=r"c_{t+1} = f\left(c_t\right) \text{ while } p\left(c_t\right)",
        attributes={
            "carried": Attribute("int", "how many operands come first that are the first carried values"),
            "bound": Attribute("int", "the most turns that are taken; -1 for any number", UNBOUNDED),
            "test": Attribute("graph", "whether there is another turn: from all operands to bool[]"),
            "body": Attribute("graph", "a turn: from all operands to new carried values"),
        },
        infer=_infer,
        samples=_samples,
        nested=Nested(_pull_back, _push_forward),
    )
)
