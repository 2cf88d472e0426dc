"""Counter-based random numbers: a value is a function of seed, step, stream and element, on every target and thread."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from graphc.errors import AttributeValueError, DTypeError
from graphc.ir.graph import Node
from graphc.ir.op import Attribute, Attributes, NotDifferentiable, Op, Sample, define
from graphc.ir.types import TensorType, f32, i64
from graphc.kernel.expr import Affine, Apply, Const
from graphc.kernel.form import Kernel
from graphc.kernel.philox import uniform
from graphc.ops import forms
from graphc.ops.rules import expect_operands

UNASSIGNED = -1


def _infer_uniform(types: Sequence[TensorType], attributes: Attributes) -> tuple[TensorType, ...]:
    expect_operands(types, 1)
    if types[0] != TensorType(i64, (2,)):
        raise DTypeError(f"the operand is {types[0]}; it must be the random state i64[2] = [seed, step]")
    return (TensorType(f32, attributes["shape"]),)


def _stream(attributes: Attributes) -> int:
    stream = int(attributes["stream"])
    if stream == UNASSIGNED:  # two samples with one stream would be equal
        raise AttributeValueError("uniform: the stream number is not assigned; collect the graph before running it")
    return stream


def _uniform_reference(arrays: Sequence[Any], attributes: Attributes) -> tuple[Any, ...]:
    (seed, step), shape = arrays[0], attributes["shape"]
    elements = np.arange(int(np.prod(shape)), dtype=np.int64).reshape(shape)
    return (uniform(int(seed), _stream(attributes), int(step), 0, elements, np.float32),)


def _lower_uniform(node: Node) -> Kernel:
    seed, step = (forms.load(node, 0, (Affine((), k),)) for k in (0, 1))
    stream, loop = Const(_stream(node.attributes), i64), Const(0, i64)
    return forms.map_kernel(node, Apply("uniform", (seed, step, stream, loop, forms.row_major(node.type.shape))))


UNIFORM = define(
    Op(
        "uniform",
        "Random numbers in [0, 1) from the random state; the generator's counter is the row-major element number.",
        latex=r"u \sim \mathcal{U}\left[0, 1\right)",
        attributes={
            "shape": Attribute("shape", "the shape of the sample"),
            "stream": Attribute("int", "number of the sample in its program; -1 until collected", UNASSIGNED),
        },
        infer=_infer_uniform,
        reference=_uniform_reference,
        gradient=NotDifferentiable("its operand is the random state"),
        lower=_lower_uniform,
        samples=lambda: [
            Sample((np.array([7, 3], np.int64),), {"shape": (3, 5), "stream": 2}),
            Sample((np.array([2**40 + 1, 0], np.int64),), {"shape": (130,), "stream": 0}),
            Sample((np.array([0, 1], np.int64),), {"shape": (), "stream": 1}),
        ],
    )
)
