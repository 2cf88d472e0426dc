"""Every op of the registry at every one of its samples: types, values, kernels, derivatives, LaTeX."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest

import graphc.ops  # noqa: F401  (fills the registry)
from graphc.autodiff.check import check_gradients
from graphc.errors import DefinitionError, ShapeError
from graphc.interpret import evaluate
from graphc.ir.builder import Builder
from graphc.ir.graph import Graph, Node, Value
from graphc.ir.op import OPS, Attribute, NotDifferentiable, Op, Sample, define
from graphc.ir.types import TensorType, as_dtype
from graphc.kernel.interpret import run
from graphc.kernel.verify import verify
from graphc.ops import scalar, stability

CASES = [
    pytest.param(op, sample, id=f"{op.name}-{k}")
    for op in OPS.values()
    if not op.expanded and op.samples
    for k, sample in enumerate(op.samples())
]
PLAIN = [case for case in CASES if not case.values[0].nested]  # the others have no reference and no kernel form
SMOOTH = [case for case in CASES if case.values[1].differentiable]
# The spine's ops: a missing one is noticed here.
SPINE = """
    constant size add sub mul div neg maximum minimum exp log log1p expm1 sqrt tanh sigmoid relu softplus abs sign
    lt le gt ge eq ne logical_and logical_or logical_not where matmul sum mean max min argmax reshape transpose
    broadcast_to gather one_hot log_softmax cross_entropy cast uniform stop_gradient grad fusion
""".split()


def arrays_of(sample: Sample) -> list[np.ndarray]:
    return [np.asarray(array) for array in sample.inputs]


def graph_of(op: Op, sample: Sample) -> Graph:
    types = [TensorType(as_dtype(array.dtype), array.shape) for array in arrays_of(sample)]
    inputs = tuple(Value(type_, name=f"x{k}") for k, type_ in enumerate(types))
    found = Builder().apply(op, inputs, dict(sample.attributes))
    return Graph(op.name, inputs, found if isinstance(found, tuple) else (found,))


def node_of(op: Op, sample: Sample) -> Node:
    node = graph_of(op, sample).outputs[0].producer
    assert node is not None
    return node


def test_spine_is_complete() -> None:
    assert not set(SPINE) - set(OPS)


@pytest.mark.parametrize("op", OPS.values(), ids=OPS)
def test_definition(op: Op) -> None:
    assert op.doc and "\n" not in op.doc
    assert op.formula.count("{") == op.formula.count("}")
    assert op.formula.count(r"\left") == op.formula.count(r"\right") and op.formula.strip()
    if not op.expanded:
        assert len(op.samples()) >= 1
        assert isinstance(op.gradient, NotDifferentiable) or callable(op.nested.pull_back if op.nested else op.gradient)
    if op.commutative:
        assert len(op.samples()[0].inputs) == 2


@pytest.mark.parametrize(("op", "sample"), PLAIN)
def test_reference_has_the_inferred_type(op: Op, sample: Sample) -> None:
    node = node_of(op, sample)
    results = op.reference(arrays_of(sample), node.attributes)
    assert [(r.dtype, r.shape) for r in results] == [(t.dtype.numpy, t.shape) for t in node.output_types]


@pytest.mark.parametrize(("op", "sample"), PLAIN)
def test_kernel_equals_reference(op: Op, sample: Sample, tally: Any) -> None:
    tally("ops whose kernels were compared with their references", op.name)
    tally("samples whose kernels were compared with their references", (op.name, id(sample)))
    node, arrays = node_of(op, sample), arrays_of(sample)
    kernel = op.lower(node)
    verify(kernel)
    promoted = [a.astype(np.float64) if a.dtype == np.float32 else a for a in arrays]
    inputs = {f"in{k}": array for k, array in enumerate(promoted)}
    if not arrays and any(o.name == "in0" for o in kernel.operands):
        inputs = {"in0": node.attributes["value"].array}  # an array constant reads its own literal
    graph = graph_of(op, sample)
    results = evaluate(graph, {f"x{k}": a for k, a in enumerate(promoted)})

    found = run(kernel, inputs, float64=True)
    same_types = run(kernel, {name: a for name, a in zip(inputs, arrays or inputs.values(), strict=True)})

    for k, (expected, type_) in enumerate(zip(results, node.output_types, strict=True)):
        assert found[f"out{k}"].shape == expected.shape
        np.testing.assert_allclose(found[f"out{k}"], expected, rtol=1e-12, atol=1e-13)
        same_type = same_types[f"out{k}"]
        assert same_type.dtype == type_.dtype.numpy
        finite = np.asarray(expected, np.float64)[np.isfinite(expected)]
        np.testing.assert_allclose(same_type, expected, rtol=2e-5, atol=1e-6 * np.abs(finite).max(initial=1.0))


@pytest.mark.parametrize("order", [1, 2])
@pytest.mark.parametrize(("op", "sample"), SMOOTH)
def test_derivatives(op: Op, sample: Sample, order: int, tally: Any) -> None:
    tally(f"samples whose derivatives of order {order} were compared with differences", (op.name, id(sample)))
    inputs = {f"x{k}": array for k, array in enumerate(arrays_of(sample))}
    check_gradients(graph_of(op, sample), inputs, [f"x{k}" for k in sample.differentiable], order)


@pytest.mark.parametrize("op", [op for op in OPS.values() if op.scalar], ids=lambda op: op.name)
def test_float32_stability(op: Op, tally: Any) -> None:
    tally("elementwise ops checked in float32 at 100, 10000 and their negatives", op.name)
    for attributes, sample in {str(s.attributes): (s.attributes, s) for s in op.samples()}.values():
        kinds = "".join(array.dtype.kind for array in arrays_of(sample))
        function = scalar.bound(op.scalar, attributes)
        assert stability.unstable_points(function, len(sample.inputs), kinds) == []


@pytest.mark.parametrize("op", [op for op in OPS.values() if not op.expanded], ids=lambda op: op.name)
def test_differentiable_ops_have_smooth_samples(op: Op) -> None:
    """A gradient rule that no sample checks is not tested; exempt are rules that give zero everywhere."""
    flat = ("stop_gradient",)
    checked = any(sample.differentiable for sample in op.samples())
    assert checked == (not isinstance(op.gradient, NotDifferentiable) and op.name not in flat)


def complete_op(**changes: object) -> Op:
    return dataclasses.replace(OPS["add"], name="incomplete", **changes)


@pytest.mark.parametrize("part", ["doc", "latex", "reference", "gradient", "lower", "samples"])
def test_incomplete_definition_is_refused(part: str) -> None:
    with pytest.raises(DefinitionError, match=f"'incomplete' has no {part}"):
        define(complete_op(**{part: "" if part in ("doc", "latex") else None}))


def test_nested_ops_need_samples_only() -> None:
    for op in (op for op in OPS.values() if op.nested):
        assert op.reference is op.gradient is op.lower is None
        with pytest.raises(DefinitionError, match="'bare' has no samples"):
            define(dataclasses.replace(op, name="bare", samples=None))


def test_unknown_attribute_kind_is_refused() -> None:
    with pytest.raises(DefinitionError, match="unknown kind 'colour'"):
        define(complete_op(attributes={"a": Attribute("colour", "a colour")}))


def test_second_definition_is_refused() -> None:
    with pytest.raises(DefinitionError, match="defined twice"):
        define(OPS["add"])


@pytest.mark.parametrize("op", [op for op in OPS.values() if op.scalar], ids=lambda op: op.name)
def test_elementwise_ops_refuse_mixed_shapes_and_a_missing_operand(op: Op) -> None:
    arrays = arrays_of(op.samples()[0])
    types = [TensorType(as_dtype(a.dtype), (k + 2,)) for k, a in enumerate(arrays)]
    if len(arrays) > 1:
        with pytest.raises(ShapeError, match=r"shapes \[2\] and \[3\]"):
            op.infer(types, {})
    with pytest.raises(ShapeError, match=f"takes {len(types)} operands?, got {len(types) - 1}"):
        op.infer(types[1:], {})
