"""Reverse mode on graphs: small nets against central differences, nested gradients, and what has no gradient."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import graphc.ops  # noqa: F401  (fills the registry)
from graphc.autodiff.check import check_gradients
from graphc.autodiff.expand import expand_derivatives
from graphc.autodiff.reverse import gradients
from graphc.errors import GradientError
from graphc.interpret import evaluate
from graphc.ir.builder import Builder
from graphc.ir.graph import Graph, Node, Origin, Value
from graphc.ir.op import NotDifferentiable, Op
from graphc.ir.types import f32, f64, i32, tensor

RNG = np.random.default_rng(0)
DATA = {
    "x": RNG.standard_normal((5, 4)),
    "t": np.array([0, 2, 1, 1, 2], np.int32),
    "w1": RNG.standard_normal((6, 4)),
    "b1": RNG.standard_normal(6),
    "w2": RNG.standard_normal((6, 3)),
}
VECTORS = {f"v{name}": RNG.standard_normal(DATA[name].shape) for name in ("w1", "b1", "w2")}
PARAMETERS = ("w1", "b1", "w2")


def mlp(activation: str) -> tuple[Builder, dict[str, Value], Value]:
    """Inputs and loss: mean cross-entropy of a two-layer net."""
    b = Builder(Origin("net", "train.py", 1))
    shapes: dict[str, tuple[Any, ...]] = {"x": ("N", 4), "t": ("N",), "w1": (6, 4), "b1": (6,), "w2": (6, 3)}
    values = {n: Value(tensor("i32" if n == "t" else "f32", s), name=n) for n, s in shapes.items()}
    hidden = b.elementwise("add", b.matmul(values["x"], values["w1"], transpose_b=True), values["b1"])
    rows = b.cross_entropy(b.matmul(getattr(b, activation)(hidden), values["w2"]), values["t"])
    return b, values, b.mean(rows, axes=(0,))


def graph(values: dict[str, Value], *outputs: Value) -> Graph:
    return Graph("net", tuple(values.values()), outputs)


@pytest.mark.parametrize("activation", ["tanh", "sigmoid", "relu", "softplus"])
@pytest.mark.parametrize("order", [1, 2])
def test_mlp(activation: str, order: int) -> None:
    _, values, loss = mlp(activation)
    assert check_gradients(graph(values, loss), DATA, ("x", *PARAMETERS), order) < 1e-6


def test_grad_node_equals_gradients() -> None:
    b, values, loss = mlp("tanh")
    wrt = [values[n] for n in PARAMETERS]
    deferred = expand_derivatives(graph(values, *b.grad(loss, *wrt)))
    direct = graph(values, *gradients([loss], [b.constant(1.0, f32)], wrt, b))
    assert all(node.op.name != "grad" for node in deferred.nodes)
    for found, expected in zip(evaluate(deferred, DATA), evaluate(direct, DATA), strict=True):
        np.testing.assert_array_equal(found, expected)


def test_hessian_vector_product_of_nested_grad_nodes() -> None:
    """H v by `grad` of (grad . v), against differences of the gradient along v."""
    b, values, loss = mlp("tanh")
    wrt = [values[n] for n in PARAMETERS]
    values |= {f"v{n}": Value(values[n].type, name=f"v{n}") for n in PARAMETERS}
    first = b.grad(loss, *wrt)
    terms = [
        b.sum(b.mul(g, values[f"v{n}"]), axes=tuple(range(g.type.rank))) for n, g in zip(PARAMETERS, first, strict=True)
    ]
    total = b.add(b.add(terms[0], terms[1]), terms[2])
    products = evaluate(expand_derivatives(graph(values, *b.grad(total, *wrt))), DATA | VECTORS)

    gradient, h = expand_derivatives(graph(values, *first)), 1e-5
    ends = [{n: DATA[n] + s * h * VECTORS[f"v{n}"] for n in PARAMETERS} for s in (1, -1)]
    up, down = (evaluate(gradient, DATA | VECTORS | end) for end in ends)
    for found, high, low in zip(products, up, down, strict=True):
        np.testing.assert_allclose(found, (high - low) / (2 * h), rtol=1e-6, atol=1e-8)


def test_third_derivative() -> None:
    b = Builder()
    x = Value(tensor("f64"), name="x")
    y = b.mul(b.mul(x, x), b.mul(x, x))
    for _ in range(3):
        y = b.grad(y, x)
    assert evaluate(expand_derivatives(Graph("g", (x,), (y,))), {"x": 1.5})[0] == pytest.approx(24 * 1.5)


def test_shared_value_sums_its_uses_and_intermediate_values_have_gradients() -> None:
    b = Builder()
    x = Value(tensor("f64"), name="x")
    y = b.exp(x)
    z = b.add(b.mul(y, y), b.mul(y, x))
    outputs = gradients([z], [b.constant(1.0)], [x, y, z], b)
    dx, dy, dz = evaluate(Graph("g", (x,), tuple(v for v in outputs if v)), {"x": 0.5})
    e = np.exp(0.5)
    assert (dx, dy, dz) == pytest.approx((2 * e * e + e * 0.5 + e, 2 * e + 0.5, 1.0))


def test_several_outputs_with_cotangents() -> None:
    b = Builder()
    x = Value(tensor("f64", (3,)), name="x")
    c = b.constant(np.array([1.0, 2.0, 3.0]))
    (dx,) = gradients([b.exp(x), x], [c, c], [x], b)
    assert dx is not None
    np.testing.assert_allclose(evaluate(Graph("g", (x,), (dx,)), {"x": np.zeros(3)})[0], [2.0, 4.0, 6.0])


def test_deep_graph_needs_no_recursion() -> None:
    b = Builder()
    x = Value(tensor("f64"), name="x")
    y = x
    for _ in range(5000):
        y = b.neg(y)
    assert evaluate(expand_derivatives(Graph("g", (x,), (b.grad(y, x),))), {"x": 2.0})[0] == 1.0


def test_origins_of_new_nodes() -> None:
    b = Builder()
    x = Value(tensor("f32", (3, 2)), name="x")
    with b.at(Origin("net.fc", "net.py", 7)):
        y = b.tanh(x)
    with b.at(Origin("loss", "net.py", 8)):
        loss = b.sum(y, axes=(0, 1))
    expanded = expand_derivatives(Graph("g", (x,), (b.grad(loss, x),)))
    origins = {node.op.name: str(node.origin) for node in expanded.nodes}
    assert origins["tanh"] == "net.fc  net.py:7"
    assert origins["sub"] == "net.fc.grad  net.py:7"
    assert any(node.origin.module == "loss.grad" for node in expanded.nodes)


def test_nothing_flows_through_integers_and_stop_gradient() -> None:
    b = Builder()
    x = Value(tensor("f64", (4,)), name="x")
    whole = b.cast(b.cast(x, dtype=i32), dtype=f64)
    mask = b.where(b.gt(x, b.full(0.5, x.type)), x, b.full(0.0, x.type))
    y = b.add(b.mul(b.stop_gradient(x), x), b.add(whole, mask))
    (dx,) = gradients([y], [b.full(1.0, y.type)], [x], b)
    assert dx is not None
    at = np.array([-1.0, 0.4, 0.6, 2.5])
    np.testing.assert_allclose(evaluate(Graph("g", (x,), (dx,)), {"x": at})[0], at + (at > 0.5))
    assert gradients([whole], [b.full(1.0, whole.type)], [x], b) == [None]


def expand(values: tuple[Value, ...], output: Any) -> Graph:
    return expand_derivatives(Graph("g", values, (output,)))


def test_value_that_the_loss_does_not_reach() -> None:
    b = Builder(Origin("net", "train.py", 9))
    x, w = Value(tensor("f32", (2,)), name="x"), Value(tensor("f32", (2,)), name="w")
    loss = b.sum(x, axes=(0,))
    with pytest.raises(GradientError, match=r"(?s)the loss does not depend on w.*train.py:9"):
        expand((x, w), b.grad(loss, x, w)[1])
    blocked = b.sum(b.mul(x, b.stop_gradient(w)), axes=(0,))
    with pytest.raises(GradientError, match=r"on w only through 'stop_gradient' \(net  train.py:9\)"):
        expand((x, w), b.grad(blocked, w))
    chosen = b.sum(b.cast(b.argmax(w, axis=0), dtype=f32), axes=())
    with pytest.raises(GradientError, match="on w only through 'argmax'"):
        expand((x, w), b.grad(chosen, w))


def test_value_that_only_an_inner_gradient_lost_has_gradient_zero() -> None:
    """d(x.w)/dx = w is free of x, so its derivative by x is 0, and no mistake of the user's."""
    b = Builder()
    x, w = Value(tensor("f64", (2,)), name="x"), Value(tensor("f64", (2,)), name="w")
    inner = b.grad(b.sum(b.mul(x, w), axes=(0,)), x)
    outer = expand((x, w), b.grad(b.sum(inner, axes=(0,)), x))
    np.testing.assert_array_equal(evaluate(outer, {"x": np.ones(2), "w": np.ones(2)})[0], [0, 0])


def opaque(value: Value) -> Value:
    """A float op without a gradient, at line 5."""
    reason = NotDifferentiable("its values are looked up")
    op = Op("lookup", "a table", "t", infer=lambda types, attributes: tuple(types), gradient=reason)
    return Node(op, (value,), {}, (value.type,), Origin("net.table", "train.py", 5)).output


def test_op_without_gradient_is_named_only_on_the_way() -> None:
    b = Builder()
    x, w = Value(tensor("f32", (2,)), name="x"), Value(tensor("f32", (2,)), name="w")
    loss = b.sum(b.mul(opaque(x), w), axes=(0,))
    (dw,) = gradients([loss], [b.constant(1.0, f32)], [w], b)
    assert dw is not None
    with pytest.raises(
        GradientError, match=r"(?s)lookup\(f32\[2\]\) in module net.table.*looked up.*stop_gradient.*train.py:5"
    ):
        gradients([loss], [b.constant(1.0, f32)], [x], b)


def test_integers_have_no_gradient() -> None:
    i = Value(tensor("i32", (2,)), name="i")
    x = Value(tensor("f32", (2,)), name="x")
    b = Builder()
    with pytest.raises(GradientError, match="i32; only floats"):
        gradients([x], [x], [i], b)
    with pytest.raises(GradientError, match="cotangent"):
        gradients([x], [b.constant(1.0, f32)], [x], b)


def test_graph_without_gradients_is_returned_as_it_is() -> None:
    x = Value(tensor("f32", (2,)), name="x")
    g = Graph("g", (x,), (Builder().exp(x),))
    assert expand_derivatives(g) is g
