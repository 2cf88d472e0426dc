"""Counter-based random numbers: a value is a function of seed, step, loop turn, stream and element, on every target.

The random state is [seed, step]; inside loops it is [seed, step, turn], with one number for the turns of all loops
around.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from graphc.errors import AttributeValueError, DTypeError, ShapeError
from graphc.ir.graph import Node
from graphc.ir.op import Attribute, Attributes, NotDifferentiable, Op, Sample, define
from graphc.ir.types import TensorType, f32, i64
from graphc.kernel.expr import Affine, Apply, AxisIndex, Computed, Const, Expr, Extent, Load
from graphc.kernel.form import Kernel
from graphc.kernel.philox import uniform
from graphc.ops import forms
from graphc.ops.rules import expect_operands

UNASSIGNED = -1
STATE, TURN_STATE = TensorType(i64, (2,)), TensorType(i64, (3,))

# Turns of a loop in a loop of unknown length are told apart by this multiplier: 2^32 / golden ratio^2. Multiples of it
# modulo 2^32 keep far from each other, so that i * MULTIPLIER + j differ for all i < m, j < n while m * n < 1.9e9.
# (Knuth, "The Art of Computer Programming", volume 3, section 6.4.)
MULTIPLIER = 1640531527


def _expect_state(type_: TensorType) -> None:
    if type_ not in (STATE, TURN_STATE):
        reason = "i64[2] = [seed, step] or, in a loop, i64[3] = [seed, step, turn]"
        raise DTypeError(f"operand 0 is {type_}; it must be the random state, {reason}")


def _infer_uniform(types: Sequence[TensorType], attributes: Attributes) -> tuple[TensorType, ...]:
    expect_operands(types, 1)
    _expect_state(types[0])
    return (TensorType(f32, attributes["shape"]),)


def _stream(attributes: Attributes) -> int:
    stream = int(attributes["stream"])
    if stream == UNASSIGNED:  # two samples with one stream would be equal
        raise AttributeValueError("uniform: the stream number is not assigned; collect the graph before running it")
    return stream


def _uniform_reference(arrays: Sequence[Any], attributes: Attributes) -> tuple[Any, ...]:
    (seed, step, *turns), shape = arrays[0], attributes["shape"]
    turn = int(turns[0]) if turns else 0
    elements = np.arange(int(np.prod(shape)), dtype=np.int64).reshape(shape)
    return (uniform(int(seed), _stream(attributes), int(step), turn, elements, np.float32),)


def _lower_uniform(node: Node) -> Kernel:
    seed, step = (forms.load(node, 0, (Affine((), k),)) for k in (0, 1))
    turn = forms.load(node, 0, (Affine((), 2),)) if node.inputs[0].type == TURN_STATE else Const(0, i64)
    element = forms.row_major(node.type.shape)
    return forms.map_kernel(node, Apply("uniform", (seed, step, Const(_stream(node.attributes), i64), turn, element)))


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
            Sample((np.array([7, 3, 5], np.int64),), {"shape": (3, 5), "stream": 2}),
        ],
    )
)


def _infer_turn_state(types: Sequence[TensorType], attributes: Attributes) -> tuple[TensorType, ...]:
    expect_operands(types, 2)
    _expect_state(types[0])
    if types[1] != TensorType(i64, ()):
        raise ShapeError(f"operand 1 is {types[1]}; it must be the number of the turn, i64[]")
    return (TURN_STATE,)


def _turn_state_reference(arrays: Sequence[Any], attributes: Attributes) -> tuple[Any, ...]:
    (seed, step, *turns), turn = arrays[0], arrays[1]
    around = int(turns[0]) if turns else 0
    number = around * (attributes["turns"] or MULTIPLIER) + int(turn)
    return (np.array([seed, step, (number + 2**63) % 2**64 - 2**63], np.int64),)  # wrapped, as kernels do


def _lower_turn_state(node: Node) -> Kernel:
    """Elements 0 and 1 are those of operand 0."""
    turns = node.attributes["turns"]
    number: Expr = forms.load(node, 1)
    if node.inputs[0].type == TURN_STATE:
        factor: Expr = Extent(turns) if turns else Const(MULTIPLIER, i64)
        around = forms.load(node, 0, (Affine((), 2),))
        number = Apply("add", (Apply("mul", (around, factor)), number))  # the generator takes it modulo 2^32
    own = AxisIndex("i0")
    inside = Computed(Apply("min", (own, Const(1, i64))), 0, 2)
    return forms.map_kernel(node, Apply("where", (Apply("lt", (own, Const(2, i64))), Load("in0", (inside,)), number)))


TURN_STATE_OP = define(
    Op(
        "turn_state",
        "The random state of a turn of a loop: operand 0 is that around the loop, operand 1 the number of the turn.",
        latex=r"\left(s, t, n i + j\right)",
        attributes={"turns": Attribute("dim", "the number of turns that the loop takes; 0 if it is not known", 0)},
        infer=_infer_turn_state,
        reference=_turn_state_reference,
        gradient=NotDifferentiable("its operands are the random state and a number"),
        lower=_lower_turn_state,
        samples=lambda: [
            Sample((np.array([7, 3], np.int64), np.array(5)), {"turns": 10}),
            Sample((np.array([7, 3, 4], np.int64), np.array(5)), {"turns": 10}),
            Sample((np.array([2**40, 1, 2], np.int64), np.array(1)), {}),
        ],
    )
)
