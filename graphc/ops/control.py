"""Ops that steer the compiler: stop_gradient and a deferred gradient."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from graphc.errors import ShapeError
from graphc.ir.op import Attributes, Op, Sample, define
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
