"""Derivatives as ops that are promised at declaration and expanded by the first pass; and gradients of a user's own.

`grad` (in `graphc.ops.control`) is one more of them. Operands come in groups: outputs, what to differentiate by, and
vectors; `outputs=n` says how many operands the first group has.
"""

from __future__ import annotations

from collections.abc import Sequence

from graphc.errors import DTypeError, ShapeError
from graphc.ir.builder import Builder
from graphc.ir.graph import Graph, Node, Value, inlined
from graphc.ir.op import Attribute, Attributes, Op, define
from graphc.ir.types import TensorType
from graphc.ops.rules import FLOATS, expect_dtype

_OUTPUTS = {"outputs": Attribute("int", "how many of the operands are outputs to differentiate")}


def vjp_groups(operands: Sequence[Value], outputs: int) -> tuple[Sequence[Value], ...]:
    """The operands of a `vjp` node: outputs, their cotangents, and the values to differentiate by."""
    return operands[:outputs], operands[outputs : 2 * outputs], operands[2 * outputs :]


def jvp_groups(operands: Sequence[Value], outputs: int) -> tuple[Sequence[Value], ...]:
    """The operands of a `jvp` node: outputs, the values to differentiate by, and their tangents."""
    wrt = (len(operands) - outputs) // 2
    return operands[:outputs], operands[outputs : outputs + wrt], operands[outputs + wrt :]


def differentiated(node: Node) -> tuple[Value, ...]:
    """The values that a node differentiates with respect to; none for a node that is no deferred derivative."""
    if node.op.name in ("grad", "jacobian"):
        return node.inputs[1:]
    if node.op.name == "vjp":
        return tuple(vjp_groups(node.inputs, node.attributes["outputs"])[2])
    return tuple(jvp_groups(node.inputs, node.attributes["outputs"])[1]) if node.op.name == "jvp" else ()


def _expect_vectors(values: Sequence[TensorType], vectors: Sequence[TensorType], what: str) -> None:
    for position, (value, vector) in enumerate(zip(values, vectors, strict=True)):
        expect_dtype(value, FLOATS, f"value {position}")
        if vector.dtype != value.dtype:
            raise DTypeError(f"{what} {position} is {vector}; it must be {value}, like what it belongs to: cast it")
        if vector.shape != value.shape:
            raise ShapeError(f"{what} {position} is {vector}; it must be {value}, like what it belongs to: reshape it")


def _infer_vjp(types: Sequence[TensorType], attributes: Attributes) -> tuple[TensorType, ...]:
    count = attributes["outputs"]
    if count < 1 or len(types) <= 2 * count:
        raise ShapeError("takes outputs, a cotangent for each, and at least one value to differentiate by")
    _expect_vectors(types[:count], types[count : 2 * count], "cotangent")
    for position, type_ in enumerate(types[2 * count :]):
        expect_dtype(type_, FLOATS, f"value {position} to differentiate by")
    return tuple(types[2 * count :])


def _infer_jvp(types: Sequence[TensorType], attributes: Attributes) -> tuple[TensorType, ...]:
    count = attributes["outputs"]
    if count < 1 or len(types) < count + 2 or (len(types) - count) % 2:
        raise ShapeError("takes outputs, at least one value to differentiate by, and a tangent for each value")
    middle = count + (len(types) - count) // 2
    for position, type_ in enumerate(types[:count]):
        expect_dtype(type_, FLOATS, f"output {position}")
    _expect_vectors(types[count:middle], types[middle:], "tangent")
    return tuple(types[:count])


def _infer_jacobian(types: Sequence[TensorType], attributes: Attributes) -> tuple[TensorType, ...]:
    if len(types) < 2:
        raise ShapeError("takes an output and at least one value to differentiate by")
    output, *wrt = types
    for type_ in types:
        expect_dtype(type_, FLOATS, "an operand")
        if not all(isinstance(dim, int) for dim in type_.shape):
            reason = "a Jacobian has one derivative pass for each element, so all sizes must be integers"
            raise ShapeError(f"{reason}, got {type_}; declare integer sizes, or take products by vjp or jvp")
    return tuple(TensorType(output.dtype, (*output.shape, *type_.shape)) for type_ in wrt)


VJP = define(
    Op(
        "vjp",
        "The cotangents of values for given cotangents of outputs that depend on them; expanded by reverse mode.",
        latex=r"\bar x = J^{\top} \bar y",
        attributes=_OUTPUTS,
        infer=_infer_vjp,
        expanded=True,
    )
)

JVP = define(
    Op(
        "jvp",
        "The tangents of outputs for given tangents of values that they depend on; expanded by forward mode.",
        latex=r"\dot y = J \dot x",
        attributes=_OUTPUTS,
        infer=_infer_jvp,
        expanded=True,
    )
)

JACOBIAN = define(
    Op(
        "jacobian",
        "The derivative of every element of an output by every element of values: shape output + value.",
        latex=r"J_{ij} = \frac{\partial y_i}{\partial x_j}",
        infer=_infer_jacobian,
        expanded=True,
    )
)


def _infer_custom(types: Sequence[TensorType], attributes: Attributes) -> tuple[TensorType, ...]:
    backward: Graph = attributes["backward"]
    count = attributes["outputs"]
    if count < 1 or len(types) < count:
        raise ShapeError("takes at least one output")
    given = (*types[:count], *types)
    if tuple(v.type for v in backward.inputs) != given:
        takes = ", ".join(str(v.type) for v in backward.inputs)
        raise ShapeError(f"the gradient's graph takes {takes}; it must take the cotangents, then the operands")
    return tuple(types[:count])


def _custom_gradient(node: Node, cotangents: Sequence[Value | None], b: Builder) -> Sequence[Value | None]:
    """The user's graph, which returns one cotangent for each of the last operands but those it closed over."""
    count, backward = node.attributes["outputs"], node.attributes["backward"]
    given = [b.full(0, v.type) if g is None else g for g, v in zip(cotangents, node.outputs, strict=True)]
    found = inlined(backward, (*given, *node.outputs, *node.inputs[count:]))
    closed_over = len(node.inputs) - count - len(found)
    return [*[None] * count, *found, *[None] * closed_over]


CUSTOM_VJP = define(
    Op(
        "custom_vjp",
        "The first operands themselves, with a gradient of the user's own by the operands after them.",
        latex=r"y, \quad \bar x = b\left(\bar y, y, x\right)",
        attributes={
            **_OUTPUTS,
            "backward": Attribute("graph", "from cotangents, outputs and the other operands to cotangents"),
        },
        infer=_infer_custom,
        gradient=_custom_gradient,
        expanded=True,
    )
)
