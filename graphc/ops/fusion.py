"""A fused group of nodes: a graph that becomes one kernel, by composing the kernel forms of its nodes.

The body has one or more *anchors*, nodes that a kernel is built around: reductions, contractions, and maps that start
a kernel of their own. Maps that depend on no anchor are inlined into the loads of their readers; maps that depend on
one are computed where it stores its result; further anchors are combined with what stands there already.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from graphc.errors import DTypeError, ShapeError
from graphc.ir.graph import Graph, Node, Value, reached_from
from graphc.ir.op import Attribute, Attributes, Op, define
from graphc.ir.types import TensorType
from graphc.kernel.combine import add_up_sums, combine
from graphc.kernel.compose import append_consumer, inline_producer, keep_stores, rename_operands
from graphc.kernel.form import Kernel
from graphc.ops.rules import expect_operands


def _infer_fusion(types: Sequence[TensorType], attributes: Attributes) -> tuple[TensorType, ...]:
    body: Graph = attributes["body"]
    expect_operands(types, len(body.inputs))
    for value, given in zip(body.inputs, types, strict=True):
        if value.type.dtype != given.dtype:
            raise DTypeError(f"the body's input {value.name} is {value.type}, the operand is {given}")
        if value.type.shape != given.shape:
            raise ShapeError(f"the body's input {value.name} is {value.type}, the operand is {given}")
    return tuple(v.type for v in body.outputs)


def named_form(node: Node, name: Mapping[Value, str]) -> Kernel:
    """The kernel form of a node that is no fusion, its operands called as `name` says."""
    assert node.op.lower is not None
    inputs = {f"in{i}": name[v] for i, v in enumerate(node.inputs)}
    outputs = {f"out{i}": name[v] for i, v in enumerate(node.outputs)}
    return rename_operands(node.op.lower(node), inputs | outputs)


def fused_form(node: Node, name: Mapping[Value, str]) -> Kernel:
    """The kernel form of a `fusion` node, its operands called as `name` says.

    Raises CompileError for a body whose nodes cannot be one kernel.
    """
    body: Graph = node.attributes["body"]
    anchors = [body.nodes[position] for position in node.attributes["anchors"]]
    names = {inner: name[outer] for inner, outer in zip(body.inputs, node.inputs, strict=True)}
    names |= {inner: name[outer] for inner, outer in zip(body.outputs, node.outputs, strict=True)}
    for position, member in enumerate(body.nodes):
        for value in member.outputs:
            names.setdefault(value, f"t{position}" if value.index == 0 else f"t{position}_{value.index}")
    computed = reached_from([v for anchor in anchors for v in anchor.outputs], body.nodes)
    floating = {n for n in body.nodes if n not in anchors and n.outputs[0] not in computed}

    def with_producers(member: Node) -> Kernel:
        kernel = named_form(member, names)
        for value in dict.fromkeys(member.inputs):
            if value.producer in floating and value.producer is not None:
                kernel = inline_producer(kernel, names[value], with_producers(value.producer))
        return kernel

    kernel: Kernel | None = None
    for member in (n for n in body.nodes if n not in floating):
        form = with_producers(member)
        if kernel is None:
            kernel = form
        else:
            kernel = combine(kernel, form) if member in anchors else append_consumer(kernel, form)
    assert kernel is not None, "a body has an anchor"
    kernel = keep_stores(kernel, [names[v] for v in body.outputs])
    return add_up_sums(kernel) if len(anchors) > 1 else kernel


def _lower(node: Node) -> Kernel:
    inputs = {v: f"in{i}" for i, v in enumerate(node.inputs)}
    return fused_form(node, inputs | {v: f"out{i}" for i, v in enumerate(node.outputs)})


FUSION = define(
    Op(
        "fusion",
        "A group of nodes that becomes one kernel.",
        latex=r"f\left(x_1, x_2, \ldots\right)",
        attributes={
            "body": Attribute("graph", "the graph of the group; its inputs are the operands"),
            "anchors": Attribute("ints", "positions in the body of the nodes that the kernel is built around", (0,)),
        },
        infer=_infer_fusion,
        lower=_lower,
        expanded=True,
    )
)
