"""Forward mode: every op of the registry against central differences and against reverse mode."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

import graphc.ops  # noqa: F401  (fills the registry)
from graphc.autodiff.check import STEP
from graphc.autodiff.forward import push_forward
from graphc.autodiff.reverse import gradients
from graphc.errors import GradientError
from graphc.interpret import evaluate
from graphc.ir.builder import Builder
from graphc.ir.graph import Graph, Origin, Value, topological
from graphc.ir.op import OPS, NotDifferentiable, Op, Sample
from graphc.ir.types import TensorType, as_dtype, f32, f64, tensor

CASES = [
    pytest.param(op, sample, id=f"{op.name}-{k}")
    for op in OPS.values()
    if not op.expanded and op.samples and not isinstance(op.gradient, NotDifferentiable)
    for k, sample in enumerate(op.samples())
]
SMOOTH = [case for case in CASES if case.values[1].differentiable]


def applied(op: Op, sample: Sample) -> tuple[dict[str, np.ndarray], list[Value], list[Value]]:
    """Arrays by name, the inputs and the float outputs of an op at a sample."""
    arrays = {f"x{k}": np.asarray(a) for k, a in enumerate(sample.inputs)}
    inputs = [Value(TensorType(as_dtype(a.dtype), a.shape), name=name) for name, a in arrays.items()]
    found = Builder().apply(op, inputs, dict(sample.attributes))
    outputs = [v for v in (found if isinstance(found, tuple) else (found,)) if v.type.dtype.is_float]
    return arrays, inputs, outputs


def direction(array: np.ndarray, phase: float) -> np.ndarray:
    return np.cos(np.arange(array.size) * 1.7 + phase).reshape(array.shape)


@pytest.mark.parametrize(("op", "sample"), SMOOTH)
def test_tangents_are_central_differences(op: Op, sample: Sample) -> None:
    arrays, inputs, outputs = applied(op, sample)
    wrt = [inputs[k] for k in sample.differentiable]
    tangents = [Value(v.type, name=f"t{v.name}") for v in wrt]
    given = {t.name: direction(arrays[v.name], k) for k, (v, t) in enumerate(zip(wrt, tangents, strict=True))}
    b = Builder()
    found = push_forward(outputs, wrt, tangents, b)
    filled = tuple(b.full(0, v.type) if t is None else t for v, t in zip(outputs, found, strict=True))
    symbolic = evaluate(Graph("jvp", (*inputs, *tangents), filled), arrays | given)

    def moved(h: float) -> list[np.ndarray]:
        at = {v.name: arrays[v.name].astype(np.float64) + h * given[f"t{v.name}"] for v in wrt}
        return evaluate(Graph("g", tuple(inputs), tuple(outputs)), arrays | at)

    for s, up, down in zip(symbolic, moved(STEP), moved(-STEP), strict=True):
        np.testing.assert_allclose(s, (up - down) / (2 * STEP), rtol=1e-6, atol=1e-6)


def is_floating(op: Op, sample: Sample) -> bool:
    """Whether some operand and some result of a sample are floating: others have no derivatives."""
    _, inputs, outputs = applied(op, sample)
    return bool(outputs) and any(v.type.dtype.is_float for v in inputs)


@pytest.mark.parametrize(("op", "sample"), [case for case in CASES if is_floating(*case.values)])
def test_forward_is_the_transpose_of_reverse_at_kinks_too(op: Op, sample: Sample) -> None:
    """<u, J t> = <J^T u, t> at every sample, where the numbers are finite."""
    arrays, inputs, outputs = applied(op, sample)
    wrt = [v for v in inputs if v.type.dtype.is_float]
    tangents = [Value(v.type, name=f"t{v.name}") for v in wrt]
    covectors = [Value(v.type, name=f"u{k}") for k, v in enumerate(outputs)]
    b = Builder()
    pushed = push_forward(outputs, wrt, tangents, b)
    pulled = gradients(outputs, covectors, wrt, b)
    asked = [v for v in (*pushed, *pulled) if v is not None]
    # Not every `wrt` is differentiable, such as where's branches when the condition is a float comparison.
    values = evaluate(Graph("outputs", tuple(inputs), tuple(outputs)), arrays)
    given = {t.name: direction(arrays[v.name], k) for k, (v, t) in enumerate(zip(wrt, tangents, strict=True))}
    given |= {u.name: direction(value, k + 0.5) for k, (u, value) in enumerate(zip(covectors, values, strict=True))}
    graph = Graph("both", (*inputs, *tangents, *covectors), tuple(asked))
    found = iter(evaluate(graph, arrays | given))
    left = sum((given[u.name] * next(found)).sum() for u, p in zip(covectors, pushed, strict=True) if p is not None)
    right = sum((given[t.name] * next(found)).sum() for t, p in zip(tangents, pulled, strict=True) if p is not None)
    if np.isfinite(right) and np.isfinite(left):
        np.testing.assert_allclose(left, right, rtol=1e-9, atol=1e-9)
    else:
        assert not np.isfinite(right) and not np.isfinite(left)


def test_the_tangent_of_a_product_is_two_products() -> None:
    """What only the unknown cotangents needed is not there: no transpose, no zeros, no sum."""
    b = Builder(Origin("fc", "net.py", 3))
    x, w = Value(tensor("f32", ("N", 4)), name="x"), Value(tensor("f32", (4, 3)), name="w")
    tx, tw = Value(x.type, name="tx"), Value(w.type, name="tw")
    (found,) = push_forward([b.matmul(x, w)], [x, w], [tx, tw], b)
    assert found is not None
    nodes = topological([found])
    assert sorted(n.op.name for n in nodes) == ["add", "matmul", "matmul"]
    assert all(n.attributes == b.matmul(x, w).producer.attributes for n in nodes if n.op.name == "matmul")
    assert {n.origin for n in nodes} == {Origin("fc.jvp", "net.py", 3)}


def test_slopes_held_back_by_where_make_no_nan() -> None:
    """elu(1000): the slope exp(1000) of the branch not taken is infinite in float64."""
    import sympy

    from graphc.ops import scalar
    from graphc.ops.elementwise import scalar_op

    like = OPS["tanh"]
    elu = scalar_op(
        "elu_of_a_test", "elu", lambda x: scalar.where(scalar.gt(x, 0), x, scalar.expm1(x)), like.infer, like.samples
    )
    assert sympy and like.samples is not None
    x, t = Value(tensor("f64", (2,)), name="x"), Value(tensor("f64", (2,)), name="t")
    b = Builder()
    y = b.apply(elu, (x,), {})
    assert isinstance(y, Value)
    (found,) = push_forward([y], [x], [t], b)
    assert found is not None
    (slopes,) = evaluate(Graph("g", (x, t), (found,)), {"x": [1000.0, -1.0], "t": [1.0, 1.0]})
    np.testing.assert_allclose(slopes, [1.0, np.exp(-1)], rtol=1e-15)


def test_zero_by_structure_and_held_constant() -> None:
    b = Builder()
    x, y = Value(tensor("f64", (2,)), name="x"), Value(tensor("f64", (2,)), name="y")
    t = Value(x.type, name="t")
    outputs = [b.exp(y), b.mul(b.stop_gradient(x), y), x]
    assert push_forward(outputs, [x], [t], b) == [None, None, t]


def test_an_intermediate_value_varies_by_itself() -> None:
    """d(x h)/d(x, h) in the direction (1, 10), with h = 2 x: h's own tangent is added to what x brings."""
    b = Builder()
    x, t, th = (Value(tensor("f64", ()), name=n) for n in ("x", "t", "th"))
    h = b.add(x, x)
    (found,) = push_forward([b.mul(x, h)], [x, h], [t, th], b)
    assert found is not None
    at = {"x": 3.0, "t": 1.0, "th": 10.0}
    assert evaluate(Graph("g", (x, t, th), (found,)), at)[0] == 4 * 3.0 + 10 * 3.0


def test_ops_without_gradient_are_named_where_they_stand_in_the_way() -> None:
    b = Builder(Origin("net", "net.py", 7))
    x, t = Value(tensor("f32", (2, 3)), name="x"), Value(tensor("f32", (2, 3)), name="t")
    stuck = replace(OPS["tanh"], gradient=NotDifferentiable("a test says so"))
    y = b.apply(stuck, (x,), {})
    assert isinstance(y, Value)
    with pytest.raises(GradientError, match=r"(?s)tanh.*a test says so.*stop_gradient.*net.py:7"):
        push_forward([b.exp(y)], [x], [t], b)
    held = b.mul(b.stop_gradient(y), x)
    assert push_forward([held], [x], [t], b) != [None]  # nothing flows through what is held


def test_bad_arguments() -> None:
    b = Builder()
    x, whole = Value(tensor("f32", (2,)), name="x"), Value(tensor("i32", (2,)), name="i")
    with pytest.raises(GradientError, match="only floats have tangents"):
        push_forward([x], [whole], [whole], b)
    with pytest.raises(GradientError, match="does not have the type of its value"):
        push_forward([x], [x], [Value(TensorType(f64, (2,)), name="t")], b)


def test_gradients_that_are_not_linear_have_no_forward_mode() -> None:
    clipping = replace(
        OPS["stop_gradient"],
        name="clipping",
        gradient=lambda node, cotangents, b: [b.mul(cotangents[0], cotangents[0])],
    )
    b = Builder(Origin("", "net.py", 9))
    x, t = Value(TensorType(f32, (2,)), name="x"), Value(TensorType(f32, (2,)), name="t")
    y = b.apply(clipping, (x,), {})
    assert isinstance(y, Value)
    with pytest.raises(GradientError, match=r"(?s)clipping.*not linear in the cotangent.*net.py:9"):
        push_forward([y], [x], [t], b)
