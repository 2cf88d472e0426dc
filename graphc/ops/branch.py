"""Choice between two graphs by a truth value: only the chosen one runs."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from graphc.errors import DTypeError, ShapeError
from graphc.ir.builder import Builder
from graphc.ir.graph import Graph, Node, Value, inlined
from graphc.ir.op import Attribute, Attributes, Forward, Nested, Op, Reverse, Sample, define
from graphc.ir.types import TensorType, bool_, f32
from graphc.ops.nested import (
    Parameters,
    apply_nested,
    expect_inputs,
    expect_types,
    filled,
    output_types,
    pulled_back,
    pushed_forward,
)

PREDICATE = TensorType(bool_, ())
BRANCHES = ("then", "orelse")


def expect_predicate(type_: TensorType, what: str) -> None:
    """Raise DTypeError or ShapeError unless the type is bool[]."""
    if type_.dtype != bool_:
        raise DTypeError(f"{what} is {type_}; it must be bool[]: compare, as in x > 0")
    if type_ != PREDICATE:
        raise ShapeError(f"{what} is {type_}; it must be a scalar, bool[]: take gc.any or gc.all of it")


def _infer_cond(types: Sequence[TensorType], attributes: Attributes) -> tuple[TensorType, ...]:
    if not types:
        raise ShapeError("takes a predicate and the operands of the branches")
    expect_predicate(types[0], "the predicate")
    then, orelse = (attributes[name] for name in BRANCHES)
    for name in BRANCHES:
        expect_inputs(attributes[name], types[1:], f"the branch {name!r}")
    expect_types(output_types(then), output_types(orelse), "the branch 'then'", "the branch 'orelse'")
    return output_types(then)


# derive(branch, its inputs, vectors, builder) -> derivatives or None for zero, as many in both branches
_Derive = Callable[[Graph, Sequence[Value], Sequence[Value], Builder], Sequence["Value | None"]]


def _derived(node: Node, vectors: Sequence[Value], note: str, b: Builder, derive: _Derive) -> list[Value | None]:
    """A `cond` of the derivatives of each branch, zeros where only the other one has any."""
    inner = Builder(b.origin)
    inputs: list[tuple[Value, ...]] = []
    found: list[Sequence[Value | None]] = []
    for name in BRANCHES:
        parameters, body = Parameters(), node.attributes[name]
        values = parameters.like(body.inputs)
        given = [parameters.add(f"{note}{k}", v.type) for k, v in enumerate(vectors)]
        inputs.append((*values, *given))
        found.append(derive(body, values, given, inner))
    types = [next((v.type for v in pair if v is not None), None) for pair in zip(*found, strict=True)]
    wanted = [k for k, type_ in enumerate(types) if type_ is not None]
    if not wanted:
        return [None] * len(types)
    graphs = {}
    for name, taken, parts in zip(BRANCHES, inputs, found, strict=True):
        outputs = tuple(filled(parts[k], type_, inner) for k, type_ in enumerate(types) if type_ is not None)
        graphs[name] = Graph(f"{node.attributes[name].name}_{note}", taken, outputs)
    by_place = dict(zip(wanted, apply_nested(b, "cond", (*node.inputs, *vectors), **graphs), strict=True))
    return [by_place.get(k) for k in range(len(types))]


def _pull_back(node: Node, cotangents: Sequence[Value | None], b: Builder, reverse: Reverse) -> list[Value | None]:
    """Each branch computes again what it did, and pulls back from there; the predicate is the same."""
    places = [k for k, g in enumerate(cotangents) if g is not None]
    vectors = [g for g in cotangents if g is not None]

    def derive(body: Graph, inputs: Sequence[Value], given: Sequence[Value], inner: Builder) -> list[Value | None]:
        return pulled_back(body, inputs, places, given, inner, reverse)

    return [None, *_derived(node, vectors, "cotangent", b, derive)]


def _push_forward(node: Node, tangents: Sequence[Value | None], b: Builder, forward: Forward) -> list[Value | None]:
    """Each branch with the tangents of its results; the predicate is the same."""
    places = [k for k, t in enumerate(tangents[1:]) if t is not None]
    vectors = [t for t in tangents[1:] if t is not None]

    def derive(body: Graph, inputs: Sequence[Value], given: Sequence[Value], inner: Builder) -> list[Value | None]:
        return pushed_forward(inlined(body, inputs), [inputs[k] for k in places], given, inner, forward)

    return _derived(node, vectors, "tangent", b, derive)


def _samples() -> list[Sample]:
    b = Builder()

    def branch(name: str, dtype: TensorType, make: Callable[[Value, Value], tuple[Value, ...]]) -> Graph:
        x, y = (Value(dtype, name=n) for n in ("x", "y"))
        return Graph(name, (x, y), make(x, y))

    rows, single = TensorType(f32, (2, 3)), TensorType(f32, (4,))
    smooth = {
        "then": branch("product", rows, lambda x, y: (b.mul(b.sin(x), y),)),
        "orelse": branch("square", rows, lambda x, y: (b.mul(x, x),)),
    }
    plain = {
        "then": branch("first", single, lambda x, y: (x,)),
        "orelse": branch("zeros", single, lambda x, y: (b.full(0, single),)),
    }
    x, y = (np.linspace(a, c, 6, dtype=np.float32).reshape(2, 3) for a, c in ((-1, 1), (0.3, 2)))
    z = np.arange(4, dtype=np.float32)
    yes, no = np.array(True), np.array(False)
    return [
        Sample((yes, x, y), smooth, differentiable=(1, 2)),
        Sample((no, x, y), smooth, differentiable=(1, 2)),
        Sample((yes, z, z), plain),
        Sample((no, z, z), plain),
    ]


COND = define(
    Op(
        "cond",
        "The results of one of two graphs, by a truth value (operand 0); the graphs take the other operands.",
        latex=r"\begin{cases} t(x) & p \\ e(x) & \neg p \end{cases}",
        attributes={
            "then": Attribute("graph", "what is computed where the predicate is true"),
            "orelse": Attribute("graph", "what is computed where it is false; results of the same types"),
        },
        infer=_infer_cond,
        samples=_samples,
        nested=Nested(_pull_back, _push_forward),
    )
)
