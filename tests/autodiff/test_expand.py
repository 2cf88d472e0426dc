"""Deferred derivatives in graphs: vjp, jvp, Jacobians, nesting, nested graphs, higher orders."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

import graphc.ops  # noqa: F401  (fills the registry)
from graphc.autodiff import expand
from graphc.autodiff.check import check_gradients
from graphc.autodiff.expand import expand_derivatives
from graphc.errors import DTypeError, GradientError, ShapeError
from graphc.interpret import evaluate
from graphc.ir.builder import Builder
from graphc.ir.graph import Graph, Value
from graphc.ir.text import parse, print_graph
from graphc.ir.types import tensor
from graphc.ir.verify import verify

X = np.linspace(-0.9, 1.1, 6).reshape(2, 3)
A = np.cos(np.arange(12.0)).reshape(3, 4)
LAYER = """graph layer(%x: f64[2,3], %a: f64[3,4], %u: f64[2,4], %tx: f64[2,3]) -> (f64[2,3], f64[3,4], f64[2,4]) {
  %0 = matmul(%x, %a)
  %1 = tanh(%0)
  %2, %3 = vjp(%1, %u, %x, %a, outputs=1)
  %4 = jvp(%1, %x, %tx, outputs=1)
  return %2, %3, %4
}"""


def slope(x: np.ndarray, a: np.ndarray) -> np.ndarray:
    return 1 - np.tanh(x @ a) ** 2


def test_vjp_and_jvp_of_a_layer() -> None:
    graph = parse(LAYER)
    assert parse(print_graph(graph)) == graph
    verify(graph)
    expanded = expand_derivatives(graph)
    verify(expanded, allow_expanded=False)
    u, t = np.sin(np.arange(8.0)).reshape(2, 4), np.sin(np.arange(6.0)).reshape(2, 3)
    dx, da, dy = evaluate(expanded, {"x": X, "a": A, "u": u, "tx": t})
    delta = u * slope(X, A)
    np.testing.assert_allclose(dx, delta @ A.T, rtol=1e-12)
    np.testing.assert_allclose(da, X.T @ delta, rtol=1e-12)
    np.testing.assert_allclose(dy, slope(X, A) * (t @ A), rtol=1e-12)
    assert (u * dy).sum() == pytest.approx((dx * t).sum(), rel=1e-12)


def jacobian_graph(shape: tuple[int, ...], outputs: int) -> tuple[Graph, Callable[[np.ndarray], np.ndarray]]:
    """Of y = tanh(x) @ a with a fixed a[3, outputs], by x; and the same in NumPy."""
    b = Builder()
    x = Value(tensor("f64", shape), name="x")
    a = A[:, :outputs]
    y = b.matmul(b.tanh(x), b.constant(a))
    j = b.jacobian(y, x)

    def expected(at: np.ndarray) -> np.ndarray:
        rows, columns = np.eye(shape[0]), 1 - np.tanh(at) ** 2
        return np.einsum("im,mk,kj->ijmk", rows, columns, a)

    return Graph("j", (x,), (j,)), expected


@pytest.mark.parametrize(("shape", "outputs"), [((1, 3), 1), ((2, 3), 1), ((1, 3), 4), ((2, 3), 4)])
def test_jacobians_by_rows_and_by_columns(shape: tuple[int, ...], outputs: int) -> None:
    graph, expected = jacobian_graph(shape, outputs)
    at = X[: shape[0]]
    (found,) = evaluate(expand_derivatives(graph), {"x": at})
    np.testing.assert_allclose(found, expected(at), rtol=1e-12, atol=1e-15)


def test_jacobians_take_the_fewer_passes(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[str] = []
    for name in ("gradients", "push_forward"):
        real = getattr(expand, name)
        monkeypatch.setattr(expand, name, lambda *args, _n=name, _r=real: (calls.append(_n), _r(*args))[1])
    expand_derivatives(jacobian_graph((2, 3), 1)[0])
    expand_derivatives(jacobian_graph((1, 3), 4)[0])
    assert calls == ["gradients"] * 2 + ["push_forward"] * 3


def test_an_infinity_in_one_row_leaves_the_others() -> None:
    b = Builder()
    x = Value(tensor("f64", (2,)), name="x")
    (found,) = evaluate(expand_derivatives(Graph("g", (x,), (b.jacobian(b.sqrt(x), x),))), {"x": [0.0, 4.0]})
    assert found[0, 0] == np.inf and found[1, 1] == 0.25 and found[0, 1] == 0


def test_jacobians_without_elements() -> None:
    b = Builder()
    x = Value(tensor("f64", (0, 2)), name="x")
    y = Value(tensor("f64", (2,)), name="y")
    total = b.sum(b.elementwise("mul", x, y), axes=(0,))
    asked = (b.jacobian(b.exp(x), x), b.jacobian(total, x), b.jacobian(b.elementwise("mul", x, y), y))
    found = evaluate(expand_derivatives(Graph("g", (x, y), asked)), {"x": np.zeros((0, 2)), "y": [1.0, 2.0]})
    assert [array.shape for array in found] == [(0, 2, 0, 2), (2, 0, 2), (0, 2, 2)]


def test_jacobians_that_are_too_large() -> None:
    b = Builder()
    x = Value(tensor("f32", (2000,)), name="x")
    with pytest.raises(GradientError, match=r"2000 by 2000 .* more than 256 .* take vjp or jvp"):
        expand_derivatives(Graph("g", (x,), (b.jacobian(b.exp(x), x),)))
    n = Value(tensor("f32", ("N",)), name="x")
    with pytest.raises(ShapeError, match="all sizes must be integers"):
        b.jacobian(b.exp(n), n)


@pytest.mark.parametrize("mode", ["grad", "jvp", "mixed"])
@pytest.mark.parametrize("op", ["tanh", "exp", "sigmoid", "softplus", "expm1", "sqrt", "log", "log1p"])
def test_third_derivatives(op: str, mode: str) -> None:
    """In reverse over reverse over reverse, forward over forward over forward, and forward over reverse twice."""
    import sympy

    b = Builder()
    x = Value(tensor("f64", (3,)), name="x")
    y = getattr(b, op)(x)
    one = b.full(1, x.type)
    for order in range(3):
        forward = mode == "jvp" or (mode == "mixed" and order % 2)
        y = b.jvp(y, x, one, outputs=1) if forward else b.grad(b.sum(y, axes=(0,)), x)
    at = np.array([0.3, 0.9, 2.0])
    (found,) = evaluate(expand_derivatives(Graph("third", (x,), (y,))), {"x": at})
    s = sympy.Symbol("x")
    plain = {
        "sigmoid": 1 / (1 + sympy.exp(-s)),
        "softplus": sympy.log(1 + sympy.exp(s)),
        "expm1": sympy.exp(s) - 1,
        "log1p": sympy.log(1 + s),
    }
    function = plain[op] if op in plain else getattr(sympy, op)(s)
    expected = [float(function.diff(s, 3).subs(s, v)) for v in at]
    np.testing.assert_allclose(found, expected, rtol=1e-9)


def test_third_derivatives_of_a_loss_by_differences() -> None:
    """grad of (grad . v): its own second derivative is checked by `check_gradients`, so third derivatives are."""
    b = Builder()
    x, a = Value(tensor("f64", (2, 3)), name="x"), Value(tensor("f64", (3, 4)), name="a")
    loss = b.sum(b.log_softmax(b.tanh(b.matmul(x, a))), axes=(0, 1))
    g = b.grad(loss, a)
    h = b.jvp(g, a, b.constant(np.sin(np.arange(12.0)).reshape(3, 4)), outputs=1)
    assert check_gradients(Graph("hvp", (x, a), (h,)), {"x": X, "a": A}, ["x", "a"]) < 1e-6
    assert check_gradients(Graph("grad", (x, a), (g,)), {"x": X, "a": A}, ["x", "a"], order=2) < 1e-6


def test_derivatives_free_of_what_they_are_by_are_zero() -> None:
    b = Builder()
    x, t = Value(tensor("f64", (3,)), name="x"), Value(tensor("f64", (3,)), name="t")
    g = b.grad(b.sum(x, axes=(0,)), x)  # all ones
    graph = Graph("g", (x, t), (b.jvp(g, x, t, outputs=1), b.jacobian(g, x), b.vjp(g, t, x, outputs=1)))
    for found in evaluate(expand_derivatives(graph), {"x": X[0], "t": X[1]}):
        assert not found.any()


@pytest.mark.parametrize("op", ["vjp", "jvp", "jacobian"])
def test_values_that_no_output_depends_on(op: str) -> None:
    b = Builder()
    x, y = Value(tensor("f64", (2,)), name="x"), Value(tensor("f64", (2,)), name="y")
    apply = {
        "vjp": lambda out: b.vjp(out, x, y, outputs=1),
        "jvp": lambda out: b.jvp(out, y, x, outputs=1),
        "jacobian": lambda out: b.jacobian(out, y),
    }[op]
    with pytest.raises(GradientError, match=f"{op}.*does not depend on y"):
        expand_derivatives(Graph("g", (x, y), (apply(b.exp(x)),)))
    with pytest.raises(GradientError, match="only through 'stop_gradient'"):
        expand_derivatives(Graph("g", (x, y), (apply(b.mul(x, b.stop_gradient(y))),)))


def test_operands_are_checked() -> None:
    b = Builder()
    x, t = Value(tensor("f64", (2,)), name="x"), Value(tensor("f64", (3,)), name="t")
    y = b.exp(x)
    with pytest.raises(ShapeError, match=r"tangent 0 is f64\[3\]; it must be f64\[2\]"):
        b.jvp(y, x, t, outputs=1)
    with pytest.raises(DTypeError, match="cotangent 0 is f32"):
        b.vjp(y, Value(tensor("f32", (2,)), name="u"), x, outputs=1)
    with pytest.raises(ShapeError, match="at least one value"):
        b.vjp(y, t, outputs=1)
    with pytest.raises(ShapeError, match="a tangent for each"):
        b.jvp(y, x, x, x, outputs=1)


CUSTOM = """graph g(%x: f64[3]) -> (f64[3], f64[3]) {
  %0 = exp(%x)
  %1 = stop_gradient(%0)
  %2 = custom_vjp(%1, %x, outputs=1, backward=graph b(%g: f64[3], %y: f64[3], %x: f64[3]) -> f64[3] {
      %0 = mul(%g, %y)
      %1 = mul(%0, %x)
      return %1
    })
  %3 = sum(%2, axes=[0])
  %4 = grad(%3, %x)
  %5 = sum(%4, axes=[0])
  %6 = grad(%5, %x)
  return %4, %6
}"""


def test_custom_gradients_hold_in_higher_derivatives() -> None:
    """y' = x y by decree, so y'' = y + x y' = y + x^2 y."""
    graph = parse(CUSTOM)
    verify(graph)
    assert parse(print_graph(graph)) == graph
    expanded = expand_derivatives(graph)
    verify(expanded, allow_expanded=False)
    first, second = evaluate(expanded, {"x": X[0]})
    y = np.exp(X[0])
    np.testing.assert_allclose(first, X[0] * y, rtol=1e-12)
    np.testing.assert_allclose(second, (1 + X[0] ** 2) * y, rtol=1e-12)


def test_derivatives_inside_nested_graphs_are_expanded() -> None:
    b = Builder()
    x = Value(tensor("f64", (3,)), name="x")
    inner = Value(tensor("f64", (3,)), name="v")
    body = Graph("body", (inner,), (b.grad(b.sum(b.tanh(inner), axes=(0,)), inner),))
    graph = Graph("g", (x,), (b.fusion(x, body=body),))
    expanded = expand_derivatives(graph)
    (nested,) = expanded.nodes
    assert {n.op.name for n in nested.attributes["body"].nodes}.isdisjoint(expand.DEFERRED)
    np.testing.assert_allclose(evaluate(expanded, {"x": X[0]})[0], 1 - np.tanh(X[0]) ** 2, rtol=1e-12)
    assert expand_derivatives(expanded) is expanded
