"""Reverse-mode differentiation of graphs: the gradient is more nodes of the same graph.

Each node turns cotangents of its outputs into cotangents of its operands by its op's rule, which makes ordinary
nodes; so gradients are differentiated, rewritten and fused like everything else. (Griewank, Walther, "Evaluating
Derivatives", 2nd edition, SIAM 2008, chapter 3.)
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from graphc.errors import GradientError
from graphc.ir.builder import Builder, derived, explain
from graphc.ir.graph import Graph, Node, Value, rebuild, topological
from graphc.ir.op import NotDifferentiable


def gradients(
    outputs: Sequence[Value], cotangents: Sequence[Value], wrt: Sequence[Value], builder: Builder
) -> list[Value | None]:
    """The sum over outputs of cotangent times derivative, by each value of `wrt`; None where it is zero by structure.

    Cotangents have the types of their outputs, results those of `wrt`. Nothing flows through integers, truth values
    and `stop_gradient`. New nodes have origins derived from the forward nodes'. Raises GradientError for a `wrt`
    that has no gradient (integers), and for an op on the way to `wrt` that has no gradient rule.
    """
    for value in wrt:
        if not value.type.dtype.is_float:
            raise GradientError(f"{value!r} has dtype {value.type.dtype}; only floats have gradients")
    nodes = topological(outputs)
    active = _active(wrt, nodes)
    total: dict[Value, Value] = {}
    for output, cotangent in zip(outputs, cotangents, strict=True):
        if cotangent.type != output.type:
            raise GradientError(f"the cotangent {cotangent!r} does not have the type of its output {output!r}")
        _accumulate(total, output, cotangent, active, builder)
    for node in reversed(nodes):
        given = [total.get(v) for v in node.outputs]
        if any(g is not None for g in given) and any(v in active for v in node.inputs):
            with builder.at(derived(node.origin, "grad")):
                for value, part in zip(node.inputs, _pull_back(node, given, builder), strict=True):
                    _accumulate(total, value, part, active, builder)
    return [total.get(value) for value in wrt]


def _carries(value: Value) -> bool:
    """Whether a cotangent may flow from the value's producer to its operands."""
    producer = value.producer
    return producer is not None and value.type.dtype.is_float and producer.op.name != "stop_gradient"


def _active(wrt: Iterable[Value], nodes: Sequence[Node]) -> set[Value]:
    """Float values through which a cotangent can reach `wrt`."""
    active = set(wrt)
    for node in nodes:
        if any(v in active for v in node.inputs):
            active.update(v for v in node.outputs if _carries(v))
    return active


def _accumulate(total: dict[Value, Value], value: Value, part: Value | None, active: set[Value], b: Builder) -> None:
    if part is None or value not in active:
        return
    total[value] = b.elementwise("add", total[value], part) if value in total else part


def _pull_back(node: Node, cotangents: Sequence[Value | None], builder: Builder) -> Sequence[Value | None]:
    rule = node.op.gradient
    if rule is None or isinstance(rule, NotDifferentiable):
        reason = rule.reason if isinstance(rule, NotDifferentiable) else "it must be expanded first"
        advice = f"it has no gradient ({reason}); wrap its operand in stop_gradient to leave it out"
        raise GradientError(explain(node.op.name, [v.type for v in node.inputs], advice, node.origin))
    return rule(node, cotangents, builder)


def expand_grad(graph: Graph) -> Graph:
    """The graph with every `grad` node replaced by the gradient's own nodes, nested ones inside out.

    Raises GradientError for a loss that is no float scalar, and for a value that the loss does not reach.
    """
    if not any(node.op.name == "grad" for node in graph.nodes):
        return graph

    def replace(node: Node, inputs: tuple[Value, ...]) -> Sequence[Value] | None:
        if node.op.name != "grad":
            return None
        _check_reached(node)
        return _expand(node, inputs)

    return rebuild(graph, replace)


def _expand(node: Node, inputs: tuple[Value, ...]) -> list[Value]:
    loss, *wrt = inputs
    builder = Builder(node.origin)
    found = gradients([loss], [builder.constant(1, loss.type.dtype)], wrt, builder)
    # A value that was reached may have no gradient left: an inner gradient can be free of it, and then it is 0.
    return [builder.full(0, v.type) if g is None else g for v, g in zip(wrt, found, strict=True)]


def _check_reached(node: Node) -> None:
    """Raise GradientError unless the loss depends on every value through floats; inner gradients count as floats."""
    loss, *wrt = node.inputs
    if loss.type.shape != () or not loss.type.dtype.is_float:
        reason = f"the loss is {loss.type}; it must be a float scalar: take its mean or sum first"
        raise GradientError(explain("grad", [loss.type], reason, node.origin))
    ancestors = {loss}
    blocked: dict[Value, Node] = {}
    for inner in reversed(topological([loss])):
        open_ = any(v in ancestors and _carries(v) for v in inner.outputs)
        if open_:
            ancestors.update(inner.inputs)
        elif any(v in ancestors or v in blocked for v in inner.outputs):
            source = next((blocked[v] for v in inner.outputs if v in blocked), inner)
            blocked.update(dict.fromkeys(inner.inputs, source))
    for value in wrt:
        if value not in ancestors:
            raise GradientError(explain("grad", [value.type], _unreached(value, blocked.get(value)), node.origin))


def _unreached(value: Value, block: Node | None) -> str:
    name = value.name or repr(value)
    if block is None:
        return f"the loss does not depend on {name}; leave it out, or use it in the loss"
    place = f" ({block.origin})" if str(block.origin) else ""
    return f"the loss depends on {name} only through {block.op.name!r}{place}, which no gradient passes"
