"""Replacing deferred derivatives (`grad vjp jvp jacobian`) by the nodes that compute them."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from graphc.autodiff.forward import push_forward
from graphc.autodiff.reverse import carries, gradients
from graphc.errors import GradientError
from graphc.ir.builder import Builder, explain
from graphc.ir.dims import Dim, product
from graphc.ir.graph import Graph, Node, Value, reached_from, rebuild, topological, with_changed_bodies, with_inputs
from graphc.ir.types import TensorType
from graphc.ops.derivatives import differentiated, jvp_groups, vjp_groups
from graphc.ops.while_loop import UNBOUNDED, as_scan

JACOBIAN_LIMIT = 256  # derivative passes; each adds nodes to the graph and kernels to compile


def expand_derivatives(graph: Graph) -> Graph:
    """The graph with every deferred derivative replaced by its own nodes, nested ones inside out.

    Nested graphs too. What gave an operation its own gradient (`custom_vjp`) is gone afterwards. Raises GradientError
    for a loss that is no float scalar, for a value that no output depends on, and for what cannot be differentiated.
    """
    return _plain(_expanded(graph))


def _expanded(graph: Graph) -> Graph:
    """The graph without deferred derivatives, but with gradients of the users' own: an outer graph may need them."""
    graph = _with_walked_back_as_scans(graph)

    def replace(node: Node, inputs: tuple[Value, ...]) -> Sequence[Value] | None:
        if node.op.name in DEFERRED:
            _check_reached(node)
            return DEFERRED[node.op.name](node, inputs)
        return _with_bodies(node, inputs, _expanded)

    return rebuild(graph, replace)


def _with_walked_back_as_scans(graph: Graph) -> Graph:
    """The graph with a `scan` for each `while_loop` that reverse mode walks back, so that both use the same turns."""
    walked: set[Node] = set()
    for node in graph.nodes:
        if node.op.name in ("grad", "vjp", "jacobian"):
            between = topological(node.inputs[: node.attributes.get("outputs", 1)])
            reached = {v for v in reached_from(differentiated(node), between) if v.type.dtype.is_float}
            walked.update(n for n in between if n.op.name == "while_loop" and not reached.isdisjoint(n.outputs))
    if not any(node.attributes["bound"] != UNBOUNDED for node in walked):
        return graph

    def replace(node: Node, inputs: tuple[Value, ...]) -> Sequence[Value] | None:
        if node not in walked or node.attributes["bound"] == UNBOUNDED:
            return None
        return as_scan(with_inputs(node, inputs), Builder(node.origin))

    return rebuild(graph, replace)


def _plain(graph: Graph) -> Graph:
    """The graph without `custom_vjp`: its outputs are its first operands."""

    def replace(node: Node, inputs: tuple[Value, ...]) -> Sequence[Value] | None:
        if node.op.name == "custom_vjp":
            return inputs[: node.attributes["outputs"]]
        return _with_bodies(node, inputs, _plain)

    return rebuild(graph, replace)


def _with_bodies(node: Node, inputs: tuple[Value, ...], change: Callable[[Graph], Graph]) -> Sequence[Value] | None:
    """A node's outputs with the graphs in its attributes changed; None if none is."""
    after = with_changed_bodies(node, inputs, change)
    return None if after is None else after.outputs


def _filled(found: Sequence[Value | None], like: Sequence[Value], builder: Builder) -> list[Value]:
    """Zeros where a value was reached but no derivative is left: an inner derivative can be free of it."""
    return [builder.full(0, v.type) if g is None else g for v, g in zip(like, found, strict=True)]


def _grad(node: Node, inputs: tuple[Value, ...]) -> list[Value]:
    loss, *wrt = inputs
    builder = Builder(node.origin)
    return _filled(gradients([loss], [builder.constant(1, loss.type.dtype)], wrt, builder), wrt, builder)


def _vjp(node: Node, inputs: tuple[Value, ...]) -> list[Value]:
    outputs, cotangents, wrt = vjp_groups(inputs, node.attributes["outputs"])
    builder = Builder(node.origin)
    return _filled(gradients(outputs, cotangents, wrt, builder), wrt, builder)


def _jvp(node: Node, inputs: tuple[Value, ...]) -> list[Value]:
    outputs, wrt, tangents = jvp_groups(inputs, node.attributes["outputs"])
    builder = Builder(node.origin)
    return _filled(push_forward(outputs, wrt, tangents, builder), outputs, builder)


def _jacobian(node: Node, inputs: tuple[Value, ...]) -> list[Value]:
    """Row by row in reverse mode, or column by column in forward mode where there are fewer columns."""
    output, *wrt = inputs
    builder = Builder(node.origin)
    rows, columns = _count(output), sum(map(_count, wrt))
    if min(rows, columns) > JACOBIAN_LIMIT:
        reason = f"{rows} by {columns} elements are more than {JACOBIAN_LIMIT} derivative passes; take vjp or jvp"
        raise GradientError(explain("jacobian", [v.type for v in node.inputs], reason, node.origin))
    if columns < rows:
        return [_by_columns(output, value, builder) for value in wrt]
    each = []
    for k in range(rows):
        found = gradients([output], [_basis(output, k, builder)], wrt, builder)
        each.append(_filled(found, wrt, builder))
    return [_joined(output, value, [row[i] for row in each], builder, rows=True) for i, value in enumerate(wrt)]


def _by_columns(output: Value, value: Value, builder: Builder) -> Value:
    columns = []
    for k in range(_count(value)):
        columns += _filled(push_forward([output], [value], [_basis(value, k, builder)], builder), [output], builder)
    return _joined(output, value, columns, builder, rows=False)


def _count(value: Value) -> int:
    size: Dim = product(value.type.shape)
    assert isinstance(size, int)
    return size


def _basis(value: Value, k: int, builder: Builder) -> Value:
    """1 at element k, in row-major order, else 0."""
    shape = [d for d in value.type.shape if isinstance(d, int)]
    return builder.constant((np.arange(_count(value)) == k).reshape(shape), value.type.dtype)


def _joined(output: Value, value: Value, parts: Sequence[Value], builder: Builder, rows: bool) -> Value:
    """A Jacobian of shape output + value from its rows (of the value's shape) or columns (of the output's)."""
    type_ = TensorType(output.type.dtype, (*output.type.shape, *value.type.shape))
    if not parts:
        return builder.full(0, type_)
    lines = [builder.reshape(part, shape=(1, *part.type.shape) if rows else (*part.type.shape, 1)) for part in parts]
    return builder.reshape(builder.concatenate(*lines, axis=0 if rows else -1), shape=type_.shape)


DEFERRED: dict[str, Callable[[Node, tuple[Value, ...]], list[Value]]] = {
    "grad": _grad,
    "vjp": _vjp,
    "jvp": _jvp,
    "jacobian": _jacobian,
}


def _check_reached(node: Node) -> None:
    """Raise GradientError unless an output depends on every value through floats; inner derivatives count as floats."""
    outputs = node.inputs[: node.attributes.get("outputs", 1)]
    if node.op.name == "grad" and (outputs[0].type.shape != () or not outputs[0].type.dtype.is_float):
        reason = f"the loss is {outputs[0].type}; it must be a float scalar: take its mean or sum first"
        raise GradientError(explain("grad", [outputs[0].type], reason, node.origin))
    ancestors = set(outputs)
    blocked: dict[Value, Node] = {}
    for inner in reversed(topological(outputs)):
        if any(v in ancestors and carries(v) for v in inner.outputs):
            ancestors.update(inner.inputs)
        elif any(v in ancestors or v in blocked for v in inner.outputs):
            source = next((blocked[v] for v in inner.outputs if v in blocked), inner)
            blocked.update(dict.fromkeys(inner.inputs, source))
    for value in differentiated(node):
        if value not in ancestors:
            reason = _unreached("loss" if node.op.name == "grad" else "output", value, blocked.get(value))
            raise GradientError(explain(node.op.name, [value.type], reason, node.origin))


def _unreached(output: str, value: Value, block: Node | None) -> str:
    name = value.name or repr(value)
    if block is None:
        return f"the {output} does not depend on {name}; leave it out, or use it in the {output}"
    place = f" ({block.origin})" if str(block.origin) else ""
    return f"the {output} depends on {name} only through {block.op.name!r}{place}, which no gradient passes"
