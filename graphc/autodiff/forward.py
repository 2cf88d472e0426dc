"""Forward-mode differentiation of graphs: tangents of outputs from tangents of what they depend on.

Each node turns tangents of its operands into tangents of its outputs. No op states that rule; it follows from what it
states already, so that the two modes cannot disagree:

- an elementwise op multiplies by the slopes of its scalar expression, those that reverse mode multiplies by;
- an op that runs graphs states its own rule, with the tangents of what the graphs compute;
- any other op's rule is the transpose of its pull-back, which is linear in the cotangents: the pull-back is written
  down for unknown cotangents and differentiated by them. The transpose of a transpose is the map itself, the unknowns
  drop out, and what only they needed is never reached: the tangent of a matrix product is two products.

Transposing elementwise ops would be right too, but a slope that a `where` holds back at a point would be multiplied
by a masked tangent there, and infinity times 0 is NaN. (Griewank, Walther, "Evaluating Derivatives", 2nd edition,
SIAM 2008, chapter 3; Radul, Paszke, Frostig, Johnson, Maclaurin, "You Only Linearize Once", POPL 2023.)
"""

from __future__ import annotations

from collections.abc import Sequence

from graphc.autodiff.reverse import carries, gradients, pull_back
from graphc.errors import GradientError
from graphc.ir.builder import Builder, derived, explain
from graphc.ir.graph import Node, Value, topological
from graphc.ir.op import NotDifferentiable
from graphc.ops.scalar import bound, gradient_nodes


def push_forward(
    outputs: Sequence[Value], wrt: Sequence[Value], tangents: Sequence[Value], builder: Builder
) -> list[Value | None]:
    """The sum over `wrt` of derivative times tangent, for each output; None where it is zero by structure.

    Tangents have the types of `wrt`, results those of the outputs. Nothing flows through integers, truth values and
    `stop_gradient`; what `wrt` holds varies by itself, whatever computes it. Raises GradientError for values that are
    not floating, for an op on the way that has no gradient rule, and for a custom gradient that is not linear.
    """
    for value in (*wrt, *outputs):
        if not value.type.dtype.is_float:
            raise GradientError(f"{value!r} has dtype {value.type.dtype}; only floats have tangents")
    total: dict[Value, Value] = {}
    for value, tangent in zip(wrt, tangents, strict=True):
        if tangent.type != value.type:
            raise GradientError(f"the tangent {tangent!r} does not have the type of its value {value!r}")
        _accumulate(total, value, tangent, builder)
    nodes = topological(outputs)
    wanted = _wanted(outputs, nodes)
    for node in nodes:
        given = [total.get(v) for v in node.inputs]
        if any(t is not None for t in given) and any(v in wanted and carries(v) for v in node.outputs):
            with builder.at(derived(node.origin, "jvp")):
                for value, part in zip(node.outputs, _push(node, given, builder), strict=True):
                    if part is not None and value.type.dtype.is_float:
                        _accumulate(total, value, part, builder)
    return [total.get(value) for value in outputs]


def _accumulate(total: dict[Value, Value], value: Value, part: Value, builder: Builder) -> None:
    total[value] = builder.elementwise("add", total[value], part) if value in total else part


def _wanted(outputs: Sequence[Value], nodes: Sequence[Node]) -> set[Value]:
    """Float values whose tangents can reach an output."""
    wanted = set(outputs)
    for node in reversed(nodes):
        if any(v in wanted and carries(v) for v in node.outputs):
            wanted.update(v for v in node.inputs if v.type.dtype.is_float)
    return wanted


def _push(node: Node, tangents: Sequence[Value | None], builder: Builder) -> list[Value | None]:
    """Tangents of a node's outputs."""
    if node.op.nested:
        return list(node.op.nested.push_forward(node, tangents, builder, push_forward))
    if node.op.scalar is not None and not isinstance(node.op.gradient, NotDifferentiable):
        return [_elementwise(node, tangents, builder)]
    return _transposed(node, tangents, builder)


def _elementwise(node: Node, tangents: Sequence[Value | None], builder: Builder) -> Value | None:
    """The sum of slope times tangent over the operands."""
    assert node.op.scalar is not None
    total: Value | None = None
    for position, tangent in enumerate(tangents):
        if tangent is not None:
            part = gradient_nodes(node, bound(node.op.scalar, node.attributes), tangent, builder)[position]
            if part is not None:
                total = part if total is None else builder.elementwise("add", total, part)
    return total


def _transposed(node: Node, tangents: Sequence[Value | None], builder: Builder) -> list[Value | None]:
    """The pull-back for unknown cotangents, transposed by reverse mode; only the new nodes are walked."""
    unknown = [Value(v.type, name=f"cotangent{k}") for k, v in enumerate(node.outputs)]
    floats = [v for v in unknown if v.type.dtype.is_float]
    pulled = pull_back(node, [v if v.type.dtype.is_float else None for v in unknown], builder)
    pairs = [(p, t) for p, t in zip(pulled, tangents, strict=True) if p is not None and t is not None]
    if not pairs:
        return [None] * len(unknown)
    known = {*node.inputs, *node.outputs, *(t for _, t in pairs)}
    parts, given = zip(*pairs, strict=True)
    found = gradients(parts, given, floats, builder, until=known, note="")
    results = [value for value in found if value is not None]
    if any(v in floats for v in (*results, *(i for n in topological(results, known) for i in n.inputs))):
        reason = "its gradient is not linear in the cotangent, so it has no forward mode; take vjp"
        raise GradientError(explain(node.op.name, [v.type for v in node.inputs], reason, node.origin))
    by_unknown = dict(zip(floats, found, strict=True))
    return [by_unknown.get(value) for value in unknown]
