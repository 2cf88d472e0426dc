"""Reverse-mode differentiation of graphs: the gradient is more nodes of the same graph.

Each node turns cotangents of its outputs into cotangents of its operands by its op's rule, which makes ordinary
nodes; so gradients are differentiated, rewritten and fused like everything else. (Griewank, Walther, "Evaluating
Derivatives", 2nd edition, SIAM 2008, chapter 3.)
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence

from graphc.errors import GradientError
from graphc.ir.builder import Builder, derived, explain
from graphc.ir.graph import Node, Value, topological
from graphc.ir.op import NotDifferentiable


def gradients(
    outputs: Sequence[Value],
    cotangents: Sequence[Value],
    wrt: Sequence[Value],
    builder: Builder,
    *,
    until: Collection[Value] = (),
    note: str = "grad",
) -> list[Value | None]:
    """The sum over outputs of cotangent times derivative, by each value of `wrt`; None where it is zero by structure.

    Cotangents have the types of their outputs, results those of `wrt`. Nothing flows through integers, truth values
    and `stop_gradient`, nor beyond the values in `until`. New nodes have the forward nodes' origins with `note` added.
    Raises GradientError for a `wrt` that has no gradient (integers), and for an op on the way to `wrt` that has no
    gradient rule.
    """
    for value in wrt:
        if not value.type.dtype.is_float:
            raise GradientError(f"{value!r} has dtype {value.type.dtype}; only floats have gradients")
    nodes = topological(outputs, until)
    active = _active(wrt, nodes)
    total: dict[Value, Value] = {}
    for output, cotangent in zip(outputs, cotangents, strict=True):
        if cotangent.type != output.type:
            raise GradientError(f"the cotangent {cotangent!r} does not have the type of its output {output!r}")
        _accumulate(total, output, cotangent, active, builder)
    for node in reversed(nodes):
        given = [total.get(v) for v in node.outputs]
        if any(g is not None for g in given) and any(v in active for v in node.inputs):
            with builder.at(derived(node.origin, note) if note else node.origin):
                for value, part in zip(node.inputs, pull_back(node, given, builder), strict=True):
                    _accumulate(total, value, part, active, builder)
    return [total.get(value) for value in wrt]


def carries(value: Value) -> bool:
    """Whether a derivative may flow between the value and its producer's operands."""
    producer = value.producer
    return producer is not None and value.type.dtype.is_float and producer.op.name != "stop_gradient"


def _active(wrt: Iterable[Value], nodes: Sequence[Node]) -> set[Value]:
    """Float values through which a cotangent can reach `wrt`."""
    active = set(wrt)
    for node in nodes:
        if any(v in active for v in node.inputs):
            active.update(v for v in node.outputs if carries(v))
    return active


def _accumulate(total: dict[Value, Value], value: Value, part: Value | None, active: set[Value], b: Builder) -> None:
    if part is None or value not in active:
        return
    total[value] = b.elementwise("add", total[value], part) if value in total else part


def pull_back(node: Node, cotangents: Sequence[Value | None], builder: Builder) -> Sequence[Value | None]:
    """Cotangents of a node's operands, by its op's rule. Raises GradientError for an op that has none."""
    if node.op.nested:
        return node.op.nested.pull_back(node, cotangents, builder, gradients)
    rule = node.op.gradient
    if rule is None or isinstance(rule, NotDifferentiable):
        reason = rule.reason if isinstance(rule, NotDifferentiable) else "it must be expanded first"
        advice = f"it has no gradient ({reason}); wrap its operand in stop_gradient to leave it out"
        raise GradientError(explain(node.op.name, [v.type for v in node.inputs], advice, node.origin))
    return rule(node, cotangents, builder)
