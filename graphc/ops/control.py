"""Ops that steer the compiler: stop_gradient, a deferred gradient, and a fused group of nodes."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from graphc.errors import DTypeError, ShapeError
from graphc.ir.graph import Graph
from graphc.ir.op import Attribute, Attributes, Op, Sample, define
from graphc.ir.types import TensorType
from graphc.ops import forms
from graphc.ops.rules import EVERYTHING, FLOATS, expect_dtype, expect_operands


def _infer_same(types: Sequence[TensorType], attributes: Attributes) -> tuple[TensorType, ...]:
    expect_operands(types, 1)
    expect_dtype(types[0], EVERYTHING)
    return (types[0],)


STOP_GRADIENT = define(
    Op(
        "stop_gradient",
        "The operand itself, through which no gradient flows.",
        latex=r"\operatorname{stop}\left(x\right)",
        infer=_infer_same,
        reference=lambda arrays, attributes: (arrays[0],),
        gradient=lambda node, cotangents, builder: [None],
        lower=lambda node: forms.copy_kernel(node.op.name, node.type),
        samples=lambda: [
            Sample((np.linspace(-1, 1, 6).reshape(2, 3),)),
            Sample((np.array(1.5, np.float32),)),
            Sample((np.array([1, 2], np.int32),)),
        ],
        view=True,
    )
)


def _infer_grad(types: Sequence[TensorType], attributes: Attributes) -> tuple[TensorType, ...]:
    if len(types) < 2:
        raise ShapeError("takes a loss and at least one value to differentiate by")
    loss, *wrt = types
    if loss.shape != ():
        raise ShapeError(f"the loss is {loss}; it must be a scalar: take its mean or sum over all axes first")
    expect_dtype(loss, FLOATS, "the loss")
    for position, type_ in enumerate(wrt):
        expect_dtype(type_, FLOATS, f"value {position} to differentiate by")
    return tuple(wrt)


GRAD = define(
    Op(
        "grad",
        "The gradients of a scalar loss (first operand) by values it depends on; expanded by reverse mode.",
        latex=r"\frac{\partial L}{\partial x_k}",
        infer=_infer_grad,
        expanded=True,
    )
)


def _infer_fusion(types: Sequence[TensorType], attributes: Attributes) -> tuple[TensorType, ...]:
    body: Graph = attributes["body"]
    expect_operands(types, len(body.inputs))
    for value, given in zip(body.inputs, types, strict=True):
        if value.type.dtype != given.dtype:
            raise DTypeError(f"the body's input {value.name} is {value.type}, the operand is {given}")
        if value.type.shape != given.shape:
            raise ShapeError(f"the body's input {value.name} is {value.type}, the operand is {given}")
    return tuple(v.type for v in body.outputs)


FUSION = define(
    Op(
        "fusion",
        "A group of nodes that becomes one kernel.",
        latex=r"f\left(x_1, x_2, \ldots\right)",
        attributes={
            "body": Attribute("graph", "the graph of the group; its inputs are the operands"),
            "anchor": Attribute("int", "position in the body of the node that the kernel is built around", 0),
        },
        infer=_infer_fusion,
        expanded=True,
    )
)
