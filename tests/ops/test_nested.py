"""Ops that run graphs: values, type rules, derivatives, text."""

from __future__ import annotations

import numpy as np
import pytest

import graphc.ops  # noqa: F401  (fills the registry)
from graphc.autodiff.check import check_gradients
from graphc.autodiff.forward import push_forward
from graphc.autodiff.reverse import gradients
from graphc.errors import AttributeValueError, DTypeError, GradientError, ShapeError
from graphc.interpret import evaluate
from graphc.ir.builder import Builder
from graphc.ir.graph import Graph, Origin, Value
from graphc.ir.text import parse
from graphc.ir.types import TensorType, tensor
from graphc.ir.verify import verify
from graphc.ops.scan import Scan
from graphc.ops.while_loop import While

b = Builder()
NUMBER = tensor("f32")
ROW = tensor("f32", (3,))
P, X, Y = Value(tensor("bool"), name="p"), Value(ROW, name="x"), Value(ROW, name="y")
XS = Value(tensor("f32", ("T", 3)), name="xs")


def body(name: str, types: list[TensorType], make: object) -> Graph:
    inputs = tuple(Value(t, name=f"a{k}") for k, t in enumerate(types))
    return Graph(name, inputs, tuple(make(*inputs)))  # type: ignore[operator]


def branches(**graphs: Graph) -> Value:
    defaults = {
        "then": body("then", [ROW, ROW], lambda x, y: [b.mul(x, y)]),
        "orelse": body("orelse", [ROW, ROW], lambda x, y: [b.sub(x, y)]),
    }
    found = Builder(Origin("net", "train.py", 3)).cond(P, X, Y, **(defaults | graphs))
    assert isinstance(found, Value)
    return found


def test_cond_runs_one_branch() -> None:
    graph = Graph("g", (P, X, Y), (branches(),))
    verify(graph)
    assert parse(str(graph)) == graph
    at = {"x": np.array([1.0, 2, 3]), "y": np.array([4.0, 5, 6])}
    np.testing.assert_array_equal(evaluate(graph, at | {"p": True})[0], [4, 10, 18])
    np.testing.assert_array_equal(evaluate(graph, at | {"p": False})[0], [-3, -3, -3])


def test_branches_that_differ_name_both_types_and_the_position() -> None:
    with pytest.raises(ShapeError, match=r"'then' gives f32\[3\] at position 0, the branch 'orelse' f32\[\]"):
        branches(orelse=body("orelse", [ROW, ROW], lambda x, y: [b.sum(x, axes=(0,))]))
    with pytest.raises(DTypeError, match=r"f32\[3\] at position 0, the branch 'orelse' f64\[3\]; convert"):
        branches(orelse=body("orelse", [ROW, ROW], lambda x, y: [b.cast(x, dtype=tensor("f64").dtype)]))
    with pytest.raises(ShapeError, match=r"train\.py:3") as error:
        branches(orelse=body("orelse", [ROW, ROW], lambda x, y: [x, y]))
    assert "'then' gives 1 values, the branch 'orelse' 2" in str(error.value)
    with pytest.raises(ShapeError, match="the branch 'then' takes 1 values, it is given 2"):
        branches(then=body("then", [ROW], lambda x: [x]))
    with pytest.raises(DTypeError, match=r"the predicate is f32\[3\]; it must be bool\[\]"):
        b.cond(X, X, then=body("t", [ROW], lambda x: [x]), orelse=body("e", [ROW], lambda x: [x]))


def cumulative(reverse: bool = False) -> tuple[Value, Value, Value]:
    """The running sum of rows, scaled by a captured number; the last one, all of them, and the captured number."""
    scale = Value(NUMBER, name="scale")

    def turn(s: Value, x: Value, c: Value) -> list[Value]:
        new = b.add(s, b.elementwise("mul", x, c))
        return [new, b.tanh(new)]

    step = body("turn", [ROW, ROW, NUMBER], turn)
    last, stacked = Scan((X,), (XS,), (scale,), step, XS.type.shape[0], reverse).apply(b)
    return last, stacked, scale


@pytest.mark.parametrize("reverse", [False, True])
def test_scan_walks_sequences(reverse: bool) -> None:
    last, stacked, scale = cumulative(reverse)
    graph = Graph("g", (X, XS, scale), (last, stacked))
    verify(graph)
    assert parse(str(graph)) == graph
    xs = np.arange(12.0).reshape(4, 3)
    found = evaluate(graph, {"x": [1, 2, 3], "xs": xs, "scale": 0.1})
    turns = xs[::-1] if reverse else xs
    sums = np.array([1.0, 2, 3]) + 0.1 * np.cumsum(turns, axis=0)
    np.testing.assert_allclose(found[0], sums[-1], rtol=1e-12)
    np.testing.assert_allclose(found[1], np.tanh(sums[::-1] if reverse else sums), rtol=1e-12)


@pytest.mark.parametrize("order", [1, 2])
@pytest.mark.parametrize("reverse", [False, True])
def test_scan_has_derivatives_by_all_operands(reverse: bool, order: int) -> None:
    last, stacked, scale = cumulative(reverse)
    at = {"x": [0.1, -0.2, 0.3], "xs": np.cos(np.arange(12.0)).reshape(4, 3), "scale": 0.7}
    check_gradients(Graph("g", (X, XS, scale), (last, stacked)), at, ["x", "xs", "scale"], order)
    check_gradients(Graph("g", (X, XS, scale), (last,)), at, ["x", "xs", "scale"], order)


def test_third_derivative_of_a_scan() -> None:
    """x^4 by repeated products: 24 x."""
    x = Value(NUMBER, name="x")
    product = body("product", [NUMBER, NUMBER], lambda p, x: [b.mul(p, x)])
    (y,) = Scan((b.constant(1, NUMBER.dtype),), (), (x,), product, 4, False).apply(b)
    for _ in range(3):
        (found,) = gradients([y], [b.constant(1, NUMBER.dtype)], [x], b)
        assert found is not None
        y = found
    np.testing.assert_allclose(evaluate(Graph("g", (x,), (y,)), {"x": 1.5})[0], 36, rtol=1e-12)


def doubling(bound: int) -> tuple[Value, Value]:
    """n and x, with x doubled and n counted while x < 10, and x itself at the start."""
    x, n = Value(NUMBER, name="x"), b.constant(np.int64(0))
    types = [n.type, NUMBER]
    test = body("test", types, lambda n, x: [b.lt(x, b.constant(10, NUMBER.dtype))])
    turn = body("turn", types, lambda n, x: [b.add(n, b.constant(np.int64(1))), b.mul(x, b.add(x, x))])
    return While((n, x), (), test, turn, bound).apply(b)  # type: ignore[return-value]


@pytest.mark.parametrize(("bound", "turns"), [(-1, 2), (5, 2), (2, 2), (1, 1), (0, 0)])
def test_while_loop_stops_at_its_test_or_bound(bound: int, turns: int) -> None:
    n, y = doubling(bound)
    leaf = next(v for node in Graph("g", (), (n, y)).nodes for v in node.inputs if v.producer is None)
    graph = Graph("g", (leaf,), (n, y))
    verify(graph)
    assert parse(str(graph)) == graph
    count, value = evaluate(graph, {"x": 1.1})
    expected = 1.1
    for _ in range(turns):
        expected = 2 * expected**2
    assert count == turns
    np.testing.assert_allclose(value, expected, rtol=1e-12)
    if bound > 0:
        assert check_gradients(graph, {"x": 1.1}, ["x"], order=2) < 1e-6


def test_a_loop_without_bound_has_forward_mode_only() -> None:
    _, y = doubling(-1)
    assert y.producer is not None
    x = y.producer.inputs[1]
    with pytest.raises(GradientError, match=r"declare the largest number of turns, gc.while_loop\(..., bound=100\)"):
        gradients([y], [b.constant(1, NUMBER.dtype)], [x], b)
    (tangent,) = push_forward([y], [x], [b.constant(1, NUMBER.dtype)], b)
    assert tangent is not None
    found = evaluate(Graph("g", (x,), (y, tangent)), {"x": 1.1})
    np.testing.assert_allclose(found, [8 * 1.1**4, 32 * 1.1**3], rtol=1e-12)


def test_wrong_loops_are_refused() -> None:
    same = body("same", [ROW], lambda x: [x])
    number = body("number", [ROW], lambda x: [b.sum(x, axes=(0,))])
    with pytest.raises(ShapeError, match=r"sequence 0 is f32\[T,3\]; its axis 0 must have the length of the loop, 4"):
        Scan((), (XS,), (), same, 4, False).apply(b)
    with pytest.raises(ShapeError, match=r"the body gives f32\[\] at position 0, the loop starts with f32\[3\]"):
        Scan((X,), (), (), number, 4, False).apply(b)
    with pytest.raises(ShapeError, match="has 1 operands, not 1 carried values and 1 sequences"):
        b.scan(X, carried=1, sequences=1, length=2, body=same)
    with pytest.raises(DTypeError, match=r"the test's result is f32\[\]; it must be bool\[\]"):
        While((X,), (), number, same, -1).apply(b)
    with pytest.raises(ShapeError, match="the test gives 2 values"):
        While((X,), (), body("two", [ROW], lambda x: [x, x]), same, -1).apply(b)
    with pytest.raises(AttributeValueError, match="bound=-2 is no number of turns"):
        While((X,), (), same, same, -2).apply(b)
