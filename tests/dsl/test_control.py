"""gc.cond, gc.while_loop and gc.scan: values, gradients, what is captured, what is refused."""

from __future__ import annotations

import math

import numpy as np
import pytest

import graphc as gc
from graphc import nn
from graphc.dsl.collect import collect
from graphc.errors import AttributeValueError, DTypeError, GradientError, InputError, ShapeError, SymbolError
from graphc.ir.graph import Graph, Node
from graphc.ir.text import parse
from graphc.ir.verify import verify

AT = np.array([1.0, -2.0, 4.0])


@pytest.fixture
def x():
    return gc.input("x", (3,))


@pytest.fixture
def s():
    return gc.input("s", ())


def nodes_of(*outputs: gc.Symbol, inputs=()) -> tuple[Node, ...]:
    graph = collect(inputs, outputs).graph
    verify(graph)
    assert parse(str(graph)) == graph
    return graph.nodes


# ------------------------------------------------------------------------------------------------ cond


def test_cond_chooses_a_branch(x, compute) -> None:
    y = gc.cond(gc.sum(x) > 0, lambda: x / gc.sum(x), lambda: gc.zeros_like(x))
    np.testing.assert_allclose(compute([y], {x: AT})[0], AT / 3, rtol=1e-6)
    np.testing.assert_array_equal(compute([y], {x: -AT})[0], [0, 0, 0])


def test_branches_hold_all_that_only_they_need(x, s) -> None:
    """What a function declares is computed only where its branch runs, also if it depends on no operand."""
    outside = gc.exp(x)
    (node,) = [
        n
        for n in nodes_of(
            gc.cond(s > 0, lambda v: gc.sum(gc.sin(x) * v + outside), lambda v: gc.sum(outside), gc.cos(x)),
            inputs=[x, s],
        )
        if n.op.name == "cond"
    ]
    then, orelse = node.attributes["then"], node.attributes["orelse"]
    assert [n.op.name for n in then.nodes if n.inputs] == ["sin", "mul", "add", "sum"]
    assert [n.op.name for n in orelse.nodes] == ["sum"]
    assert [v.name for v in then.inputs] == ["x", "cos", "exp"] == [v.name for v in orelse.inputs]


def test_cond_hands_structures_on_and_back(x, s, compute) -> None:
    pair = (x, {"not": "looked into"})
    a, (b, c) = gc.cond(s > 0, lambda p, k: (p[0] * k, [p[0], 1]), lambda p, k: (0.0, [gc.flip(p[0], 0), 2]), pair, 2.0)
    found = compute([a, b, c], {x: AT, s: 1.0})
    for mine, expected in zip(found, (2 * AT, AT, 1), strict=True):
        np.testing.assert_array_equal(mine, expected)
    found = compute([a, b, c], {x: AT, s: -1.0})
    for mine, expected in zip(found, (0 * AT, AT[::-1], 2), strict=True):
        np.testing.assert_array_equal(mine, expected)


def test_the_gradient_of_cond_is_that_of_the_branch_taken(x, compute) -> None:
    w = gc.param("w", (3,), init=np.array([1.0, 2, 3]))
    y = gc.cond(gc.sum(x) > 0, lambda: gc.sum(w * x**3), lambda: gc.sum(gc.sin(x)))
    gw, gx = gc.grad(y, [w, x])
    (hx,) = gc.hvp(y, [x], [np.ones(3)])
    found = compute([gw, gx, hx], {x: AT})
    for mine, expected in zip(found, (AT**3, 3 * w.value * AT**2, 6 * w.value * AT), strict=True):
        np.testing.assert_allclose(mine, expected, rtol=1e-6)
    found = compute([gw, gx, hx], {x: -AT})
    for mine, expected in zip(found, (0 * AT, np.cos(AT), np.sin(AT)), strict=True):
        np.testing.assert_allclose(mine, expected, rtol=1e-6, atol=1e-7)
    for order in (1, 2):
        gc.check_gradients(y, [w, x], {x: AT}, order=order)


def test_where_a_division_would_be_refused_the_other_branch_has_a_gradient(s, compute) -> None:
    """`where` multiplies 0 by the infinite slope of what is not chosen; a branch not taken has none."""
    y = gc.cond(s > 0, lambda: gc.sqrt(s), lambda: s * 0.0)
    assert compute([gc.grad(y, s)], {s: 0.0})[0] == 0


# ------------------------------------------------------------------------------------------- while_loop


def taylor_sine(x: gc.Symbol, bound: int | None = 20) -> gc.Symbol:
    def more(total: gc.Symbol, term: gc.Symbol, i: gc.Symbol) -> gc.Symbol:
        return gc.abs(term) > 0.001

    def add_term(total: gc.Symbol, term: gc.Symbol, i: gc.Symbol) -> tuple[gc.Symbol, ...]:
        term = -term * x**2 / ((2 * i + 3) * (2 * i + 2))
        return total + term, term, i + 1

    return gc.while_loop(more, add_term, (x, x, 0.0), bound=bound)[0]


def test_the_taylor_series_of_sine(s, compute) -> None:
    y = taylor_sine(s)
    first = gc.grad(y, s)
    third = gc.grad(gc.grad(first, s), s)
    values = [float(v) for v in compute([y, first, third], {s: math.pi})]
    assert f"{values[1]:.6f}" == "-0.999900"
    np.testing.assert_allclose(values, [0, -1, 1], atol=3e-2)
    for at in (0.3, 2.0, 5.0):
        assert abs(compute([y], {s: at})[0] - math.sin(at)) < 1e-3
        gc.check_gradients(y, [s], {s: at}, order=2)


def test_what_only_decides_has_no_gradient(s, x) -> None:
    """As `where` by its condition: it is an error rather than zero, at declaration."""
    for y in (
        gc.cond(s > 0, lambda: gc.sum(x), lambda: gc.sum(2 * x)),
        gc.scan(lambda h, v: gc.where(s > h, h + v, h), x, 0.0),
        gc.while_loop(lambda v: v < s, lambda v: v * 2 + x[0], 1.0, bound=5),
        gc.scan(lambda h, v: (h + v, s * v), x, 0.0)[0],
    ):
        gc.grad(y, x)
        with pytest.raises(GradientError, match=r"does not depend on s|depends on s only through"):
            gc.grad(y, s)
    twice = gc.scan(lambda a, b: (b, s * 1.0), init=[0.0, 0.0], length=3)[0]  # a turn later
    gc.grad(twice, s)


def test_forward_mode_needs_no_bound(s, compute) -> None:
    y = taylor_sine(s, None)
    np.testing.assert_allclose(compute([gc.jvp(y, s, 1.0)], {s: math.pi})[0], -0.9999, atol=1e-6)
    with pytest.raises(GradientError, match=r"grad: gc.while_loop .*test_control.py.*gc.while_loop\(..., bound=100\)"):
        gc.grad(y, s)
    with pytest.raises(GradientError, match="bound=100"):
        gc.hvp(y, s, 1.0)


def test_a_loop_without_bound_beside_the_path_is_no_obstacle(s, compute) -> None:
    (n,) = gc.while_loop(lambda n: n < 10, lambda n: [n * 2], [1])
    assert compute([gc.grad(s * n.astype("float32"), s)], {s: 3.0})[0] == 16


def test_a_loop_of_one_tensor_and_of_structures(x, compute) -> None:
    doubled = gc.while_loop(lambda v: gc.max(v) < 100, lambda v: 2 * v, x)
    np.testing.assert_array_equal(compute([doubled], {x: AT})[0], 32 * AT)
    n, (a, b) = gc.while_loop(lambda n, p: n < 3, lambda n, p: (n + 1, [p[1], p[0] + 1]), (0, [x, gc.zeros(3)]))
    found = compute([n, a, b], {x: AT})
    for mine, expected in zip(found, (3, [1, 1, 1], AT + 2), strict=True):
        np.testing.assert_array_equal(mine, expected)


def test_a_bound_ends_a_loop(s, compute) -> None:
    y = gc.while_loop(lambda v: True, lambda v: v * s, 1.0, bound=3)
    np.testing.assert_allclose(compute([y, gc.grad(y, s)], {s: 2.0}), [8, 12])
    y = gc.while_loop(lambda v: True, lambda v: v * s, s, bound=0)
    np.testing.assert_allclose(compute([y, gc.grad(y, s)], {s: 2.0}), [2, 1])


# ------------------------------------------------------------------------------------------------- scan


def rnn(xs: gc.Symbol, h0: gc.Symbol, w: gc.Symbol, u: gc.Symbol, **options) -> tuple[gc.Symbol, gc.Symbol]:
    def cell(h: gc.Symbol, x: gc.Symbol) -> tuple[gc.Symbol, gc.Symbol]:
        h = gc.tanh(x @ w + h @ u)
        return h, h

    return gc.scan(cell, sequences=[xs], init=[h0], **options)


SIZES = {"xs": (5, 2, 3), "h0": (2, 4), "w": (3, 4), "u": (4, 4)}


def rnn_inputs() -> tuple[list[gc.Input], dict[gc.Input, np.ndarray]]:
    inputs = [gc.input(name, shape) for name, shape in SIZES.items()]
    rng = np.random.default_rng(0)
    return inputs, {i: rng.normal(size=SIZES[i.name]).astype(np.float32) / 2 for i in inputs}


@pytest.mark.parametrize("reverse", [False, True])
def test_scan_is_a_loop(reverse, compute) -> None:
    inputs, at = rnn_inputs()
    last, hs = rnn(*inputs, reverse=reverse)
    xs, h, w, u = (at[i].astype(np.float64) for i in inputs)
    states = []
    for x in xs[::-1] if reverse else xs:
        h = np.tanh(x @ w + h @ u)
        states.append(h)
    found = compute([last, hs], at)
    np.testing.assert_allclose(found[0], h, rtol=1e-5)
    np.testing.assert_allclose(found[1], states[::-1] if reverse else states, rtol=1e-5, atol=1e-7)


def test_a_recurrent_cell_has_the_gradients_of_torch(compute) -> None:
    torch = pytest.importorskip("torch")
    inputs, at = rnn_inputs()
    last, hs = rnn(*inputs)
    loss = gc.sum(last**2) + gc.sum(gc.sin(hs))
    tensors = [torch.tensor(at[i], requires_grad=True) for i in inputs]
    xs, h, w, u = tensors
    total = 0
    for x in xs:
        h = torch.tanh(x @ w + h @ u)
        total = total + torch.sin(h).sum()
    total = total + (h**2).sum()
    total.backward()
    found = compute([loss, *gc.grad(loss, inputs)], at)
    for mine, theirs in zip(found, [total, *(t.grad for t in tensors)], strict=True):
        np.testing.assert_allclose(mine, theirs.detach(), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("order", [1, 2])
def test_gradients_of_scans_are_central_differences(order) -> None:
    inputs, at = rnn_inputs()
    last, hs = rnn(*inputs, reverse=True)
    loss = gc.sum(last**3) + gc.sum(gc.sin(hs))
    small = [i for i in inputs if i.name != "u"] if order == 2 else inputs
    gc.check_gradients(loss, small, at, order=order)


def test_parameters_inside_and_gradients_between(compute) -> None:
    """The loss inside the loop is differentiated by what is carried and by a parameter of the world outside."""
    w = gc.param("w", (3,), init=np.array([1.0, -1.0, 2.0]))
    xs = gc.input("xs", (4, 3))
    scaled = 2 * w  # outside of the loop, on the way to what the inner gradient is taken by

    def descend(v: gc.Symbol, x: gc.Symbol) -> tuple[gc.Symbol, gc.Symbol]:
        loss = gc.sum((v * scaled - x) ** 2)
        gv, gw = gc.grad(loss, [v, w])
        return v - 0.1 * gv, gw

    last, gws = gc.scan(descend, [xs], gc.zeros(3))
    rng = np.random.default_rng(1)
    at = rng.normal(size=(4, 3)).astype(np.float32)
    v, expected = np.zeros(3), []
    for x in at:
        error = v * 2 * w.value - x
        expected.append(2 * error * 2 * v)
        v = v - 0.1 * 2 * error * 2 * w.value
    found = compute([last, gws], {xs: at})
    np.testing.assert_allclose(found[0], v, rtol=1e-4)
    np.testing.assert_allclose(found[1], expected, rtol=1e-4, atol=1e-6)
    gc.check_gradients(gc.sum(last**2) + gc.sum(gws), [w, xs], {xs: at}, order=2)


def test_scans_in_scans(compute) -> None:
    """x + 2 x + 6 x ...: a loop whose cell has a loop of its own, to the second derivative."""
    xs = gc.input("xs", (3, 2))

    def outer(total: gc.Symbol, row: gc.Symbol) -> gc.Symbol:
        return total * gc.scan(lambda p, x: p + x * total, row, 1.0)

    y = gc.scan(outer, xs, 1.0)
    at = np.array([[0.5, -0.2], [0.3, 0.4], [-0.6, 0.1]])
    expected = 1.0
    for row in at:
        expected *= 1 + row.sum() * expected
    np.testing.assert_allclose(compute([y], {xs: at})[0], expected, rtol=1e-6)
    gc.check_gradients(y, [xs], {xs: at}, order=2)


def test_what_does_not_change_in_a_loop_is_computed_outside(x) -> None:
    w = gc.param("w", (3, 3))
    last = gc.scan(lambda h: gc.tanh(h @ gc.exp(w.T).T) + gc.sum(w, axis=0), init=x, length=4)
    nodes = nodes_of(last, inputs=[x])
    (loop,) = [n for n in nodes if n.op.name == "scan"]
    assert "exp" in [n.op.name for n in nodes]
    body = loop.attributes["body"]
    assert [n.op.name for n in body.nodes] == ["reshape", "transpose", "matmul", "reshape", "tanh", "add"]
    assert [v.name for v in body.inputs] == ["h", "exp", "sum"]


def test_loops_without_sequences_and_without_carries(x, compute) -> None:
    power = gc.scan(lambda v: v * x, init=gc.ones(3), length=3)
    squares = gc.scan(lambda v: (v**2,), sequences=x)
    pairs = gc.scan(lambda v, w: (v * w, v + w), sequences=[x, np.arange(3, dtype=np.float32)])
    found = compute([power, squares, *pairs], {x: AT})
    for mine, expected in zip(found, (AT**3, AT**2, AT * np.arange(3), AT + np.arange(3)), strict=True):
        np.testing.assert_allclose(mine, expected, rtol=1e-6)


def test_structures_are_carried(x, compute) -> None:
    def cell(state: tuple[gc.Symbol, gc.Symbol], v: gc.Symbol) -> tuple[object, gc.Symbol, list[gc.Symbol]]:
        h, c = state
        return (c, h + v), h, [c, v]

    (h, c), hs, (cs, vs) = gc.scan(cell, x, [(0.0, 1.0)])
    found = compute([h, c, hs, cs, vs], {x: AT})
    for mine, expected in zip(found, (2 - 1, -2 + 5 - 2 + 0 - 0, [0, 1, 1], [1, 1, -1], AT), strict=True):
        np.testing.assert_array_equal(np.shape(mine), np.shape(expected))
    h0, c0, states = 0.0, 1.0, []
    for v in AT:
        states.append((h0, c0))
        h0, c0 = c0, h0 + v
    np.testing.assert_array_equal(found[:2], [h0, c0])
    np.testing.assert_array_equal(np.transpose(found[2:4]), states)


def test_symbolic_lengths(compute) -> None:
    xs = gc.input("xs", ("T", "N"))
    last, sums = gc.scan(lambda s, x: (s + x, s + x), xs, gc.zeros(("N",)))
    assert sums.ir.type == xs.ir.type
    at = np.arange(8.0).reshape(4, 2)
    np.testing.assert_array_equal(compute([sums], {xs: at})[0], np.cumsum(at, 0))
    np.testing.assert_array_equal(compute([gc.grad(gc.sum(last), xs)], {xs: at})[0], np.ones((4, 2)))


# ----------------------------------------------------------------------------------------------- random


def test_every_turn_draws_other_numbers(compute) -> None:
    outside = gc.random.uniform((2,))

    def cell(h: gc.Symbol) -> tuple[gc.Symbol, ...]:
        _, inner = gc.scan(lambda: (gc.random.uniform((2,)), gc.random.uniform((2,))), length=3)
        return h, gc.random.uniform((2,)), gc.random.uniform((2,)), inner, outside

    _, *drawn = gc.scan(cell, init=0.0, length=4)
    _, n, w = gc.while_loop(
        lambda n, v, w: n < 3 + 0 * gc.random.uniform(), lambda n, v, w: (n + 1, w, gc.random.uniform((2,))),
        (0.0, gc.zeros(2), gc.zeros(2)),
    )  # fmt: skip
    first = compute([*drawn, n, w], {}, seed=3)
    np.testing.assert_array_equal(first[3], np.broadcast_to(first[3][0], (4, 2)))
    numbers = np.concatenate([np.ravel(a) for a in (*first[:3], first[3][0], *first[4:])])
    assert len(np.unique(numbers)) == numbers.size == 8 + 8 + 24 + 2 + 2 + 2
    for mine, again in zip(first, compute([*drawn, n, w], {}, seed=3), strict=True):
        np.testing.assert_array_equal(mine, again)
    assert not np.isin(compute([drawn[0]], {}, seed=4)[0], numbers).any()


def test_the_backward_loop_sees_the_same_numbers(s, compute) -> None:
    """The product of uniform numbers times s: its gradient is 4 times its value / s only for the same numbers."""
    y = gc.scan(lambda p: p * s * gc.random.uniform(), init=1.0, length=4)
    value, slope = compute([y, gc.grad(y, s)], {s: 2.0})
    assert 0 < value < 16
    np.testing.assert_allclose(slope, 2 * value, rtol=1e-6)
    gc.check_gradients(y, [s], {s: 2.0}, order=2, seed=5)


# -------------------------------------------------------------------------------------------- bad input


def refused(error: type[Exception], match: str, declare) -> None:
    with pytest.raises(error, match=match) as caught:
        declare()
    assert "test_control.py:" in str(caught.value)


def test_wrong_branches(x, s) -> None:
    refused(
        ShapeError,
        r"differ at output 1: f32\[3\] \(test_control.py:\d+\) and f32\[\] \(test_control.py:\d+\); broadcast",
        lambda: gc.cond(s > 0, lambda: (s, x + 1), lambda: (s, s * 2)),
    )
    refused(DTypeError, r"differ at output 0: f32\[3\] .* and f64\[3\] .*astype",
            lambda: gc.cond(s > 0, lambda: x + 1, lambda: x.astype("float64")))  # fmt: skip
    refused(ShapeError, r"the branches return \(\*, \*\) and \*", lambda: gc.cond(s > 0, lambda: (x, x), lambda: x))
    refused(DTypeError, r"predicate must be a bool scalar, got .*f32\[\]", lambda: gc.cond(s, lambda: x, lambda: x))
    refused(ShapeError, "bool scalar.*gc.any or gc.all", lambda: gc.cond(x > 0, lambda: x, lambda: x))
    refused(SymbolError, "Python bool True.*write Python's if", lambda: gc.cond(True, lambda: x, lambda: x))
    refused(SymbolError, "must be a bool scalar symbol, got int", lambda: gc.cond(1, lambda: x, lambda: x))
    refused(SymbolError, "first function of gc.cond returns None", lambda: gc.cond(s > 0, lambda: None, lambda: x))
    refused(SymbolError, "second function of gc.cond returns str", lambda: gc.cond(s > 0, lambda: x, lambda: "x"))
    refused(ShapeError, "branches return no tensors", lambda: gc.cond(s > 0, lambda: (), lambda: ()))
    refused(
        DTypeError, r"differ at output 0: bool\[\] .* and f32\[\]", lambda: gc.cond(s > 0, lambda: True, lambda: 0.5)
    )
    refused(
        DTypeError, r"differ at output 0: i64\[\] .* and bool\[3\]", lambda: gc.cond(s > 0, lambda: 1, lambda: x > 0)
    )


def test_tensors_in_the_place_of_functions(x, s) -> None:
    refused(SymbolError, r"gc.cond takes functions, got .*f32\[3\].*lambda: x", lambda: gc.cond(s > 0, x, lambda: x))
    refused(SymbolError, "gc.while_loop takes functions, got bool", lambda: gc.while_loop(True, lambda v: v, s))
    refused(SymbolError, "gc.scan takes functions, got list", lambda: gc.scan([x], init=s, length=2))


def test_functions_of_other_arguments(x, s) -> None:
    refused(SymbolError, r"second function of gc.cond does not take .*<lambda>\(\) is called with 1 arguments",
            lambda: gc.cond(s > 0, lambda a: a, lambda: x, x))  # fmt: skip
    refused(SymbolError, r"test of gc.while_loop does not take .*\(\) is called with 1",
            lambda: gc.while_loop(lambda: True, lambda v: v, s, bound=2))  # fmt: skip
    refused(SymbolError, r"body of gc.while_loop does not take .*\(a, b\) is called with 1 arguments: missing",
            lambda: gc.while_loop(lambda v: v > 0, lambda a, b: a, s))  # fmt: skip
    refused(SymbolError, r"cell of gc.scan does not take .*\(h\) is called with 2 arguments: too many",
            lambda: gc.scan(lambda h: h, [x], [s]))  # fmt: skip


def test_numbers_of_branches_become_alike(x, s, compute) -> None:
    flags = gc.cond(s > 0, lambda: (True, np.ones(3, bool)), lambda: (False, False))
    numbers = gc.cond(s > 0, lambda: (1, 2, np.ones(3)), lambda: (0.5, 3, 0))
    assert [str(y.dtype) for y in (*flags, *numbers)] == ["bool", "bool", "f32", "i64", "f64"]
    found = compute([*flags, *numbers], {s: -1.0})
    for mine, wanted in zip(found, [False, [False] * 3, 0.5, 3, [0.0] * 3], strict=True):
        np.testing.assert_array_equal(mine, wanted)


def test_wrong_carries(x, s) -> None:
    refused(
        ShapeError,
        r"'v' \(carried tensor 0\) starts as f32\[\] .*and becomes f32\[3\] .*reshape",
        lambda: gc.while_loop(lambda v: v > 0, lambda v: v + x, s),
    )
    refused(DTypeError, r"'h' .*starts as i64\[\] .*and becomes f32\[3\].*start with that dtype",
            lambda: gc.scan(lambda h, v: v * x, x, 0))  # fmt: skip
    refused(DTypeError, r"starts as i64\[\].*becomes f32\[\]", lambda: gc.scan(lambda n: 0.5, init=1, length=2))
    refused(ShapeError, r"do not fit .*\(\*, \*\) for the \* that is carried",
            lambda: gc.while_loop(lambda v: v > 0, lambda v: (v, v), s))  # fmt: skip
    refused(
        ShapeError, "carries 2 tensors, and its cell returns 1", lambda: gc.scan(lambda a, b: a, init=[s, s], length=2)
    )
    refused(SymbolError, "the cell of gc.scan returns None", lambda: gc.scan(lambda a: None, init=s, length=2))


def test_wrong_loops(x, s) -> None:
    def go(**options):
        return lambda: gc.scan(lambda *args: args[0], **options)

    refused(
        ShapeError,
        r"sequence 0 is f32\[3\], sequence 1 is f32\[2,3\]; axis 0 must",
        go(sequences=[x, gc.zeros((2, 3))]),
    )
    refused(ShapeError, r"length=4, sequence 0 is f32\[3\]", go(sequences=[x], length=4))
    refused(ShapeError, "gc.scan: length=-1: .*negative", go(init=[s], length=-1))
    refused(ShapeError, "gc.scan: length=2.5: .*not a dimension", go(init=[s], length=2.5))
    refused(ShapeError, "sequence 1 is a scalar", go(sequences=[x, s]))
    refused(ShapeError, "no sequence to walk along; give sequences=.* or length=", go(init=[s]))
    refused(SymbolError, "init holds str", go(init=["s"], length=2))
    refused(ShapeError, "returns nothing and nothing is carried", lambda: gc.scan(lambda: (), length=3))
    refused(ShapeError, "init is empty", lambda: gc.while_loop(lambda: True, lambda: (), ()))
    refused(DTypeError, "result of the test must be a bool scalar", lambda: gc.while_loop(lambda v: v, lambda v: v, s))
    for bound in (-1, 2.5, True, "many"):
        with pytest.raises(AttributeValueError, match="bound must be a whole number"):
            gc.while_loop(lambda v: v > 0, lambda v: v, s, bound=bound)


def test_no_python_control_flow_inside(x) -> None:
    with pytest.raises(SymbolError, match=r"gc\.cond"):
        gc.scan(lambda h, v: h + v if v > 0 else h, x, 0.0)


def test_what_belongs_to_a_body_stays_there(x, s, compute) -> None:
    kept = []

    def cell(h: gc.Symbol, v: gc.Symbol) -> gc.Symbol:
        kept.append(h * v)
        return h + v

    last = gc.scan(cell, x, 0.0)
    with pytest.raises(SymbolError, match=r"'h', which has a value only inside the cell of gc.scan \(traced at test_"):
        compute([last + kept[0]], {x: AT})
    with pytest.raises(InputError, match="not in the list"):
        compute([gc.scan(lambda h, v: h + v * s, x, 0.0)], {x: AT})


def test_nothing_is_shown_or_asserted_inside(x, s) -> None:
    def printing(h: gc.Symbol) -> gc.Symbol:
        gc.print(h, "h")
        return h

    def asserting(h: gc.Symbol) -> gc.Symbol:
        gc.assert_(h > 0, "positive")
        return h

    for function in (printing, asserting):
        name = function.__name__.removesuffix("ing")
        with pytest.raises(SymbolError, match=f"gc.{name}_? inside the cell of gc.scan .*return the"):
            gc.scan(function, init=s, length=2)
        with pytest.raises(SymbolError, match=f"gc.{name}_? inside the functions of gc.while_loop"):
            gc.while_loop(lambda h: h < 3, function, s)
        with pytest.raises(SymbolError, match=f"gc.{name}_? inside the first function of gc.cond"):
            gc.cond(s > 0, lambda f: f(s * 2), lambda f: s, function)
    hidden = gc.scan(lambda h: gc.print(x, "x")[0] + h, init=s, length=2)
    assert [w.text for w in collect([x, s], [hidden]).watches] == ["x"]


def test_modules_cannot_update_their_state_inside(s) -> None:
    class Counter(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.seen, self.by_value = gc.state("seen"), True

        def forward(self, v: gc.Symbol) -> gc.Symbol:
            nn.update_state(self.seen, self.seen + (v if self.by_value else 1))
            return v

    module = Counter()
    for module.by_value in (True, False):  # one more in each turn is no value of a turn, and would be one more a step
        with (
            nn.trace(module, train=True),
            pytest.raises(SymbolError, match="an update of seen inside the cell of gc.scan"),
        ):
            gc.scan(module, init=s, length=2)


def test_modules_run_inside(compute) -> None:
    xs = gc.input("xs", (4, 2, 3))
    layer = nn.Linear(3, 3)
    last = gc.scan(lambda h, x: gc.tanh(layer(h) + x), xs, gc.zeros((2, 3)))
    at, h = np.random.default_rng(0).normal(size=(4, 2, 3)), np.zeros((2, 3))
    for x in at:
        h = np.tanh(h @ layer.weight.value.T + layer.bias.value + x)
    np.testing.assert_allclose(compute([last], {xs: at})[0], h, rtol=1e-5)
    gc.check_gradients(gc.sum(last**2), [layer.weight, layer.bias], {xs: at})


def test_custom_gradients_inside(x, s, compute) -> None:
    bounded = gc.custom_vjp(lambda v: v * 1.0, lambda g, y, v: gc.clip(g, -1.0, 1.0) * s)
    y = gc.scan(lambda h, v: bounded(h) + v, x, 0.0)
    np.testing.assert_allclose(compute([gc.grad(5 * y, x)], {x: AT, s: 0.5})[0], [0.25, 0.5, 5])


def test_text_names_arguments_and_captured_values(x) -> None:
    w = gc.param("w", (3,))
    (loop,) = nodes_of(gc.scan(lambda h, v: h * v + gc.sum(w), x, 0.0), inputs=[x])[-1:]
    body = loop.attributes["body"]
    assert isinstance(body, Graph)
    assert str(body).splitlines()[0] == "graph cell(%h: f32[], %v: f32[], %sum: f32[]) -> f32[] {"
