"""Programs with branches and loops, compiled: values, first and second derivatives against the interpreter."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import graphc as gc
from graphc import nn, optim
from graphc.autodiff.expand import expand_derivatives
from graphc.dsl.collect import collect
from graphc.interpret import evaluate
from graphc.passes.manager import run
from graphc.passes.pipeline import default_pipeline

Arrays = dict[str, np.ndarray]
Model = Callable[[dict[str, gc.Input]], gc.Symbol]
RNG = np.random.default_rng(0)


def drawn(*shape: int) -> np.ndarray:
    return RNG.normal(size=shape).astype(np.float32) / 2


def check(
    inputs: list[gc.Input], outputs: list[gc.Symbol], arrays: Arrays, steps: int = 1, **options: Any
) -> gc.Program:
    """Compile and compare with the interpreter, in some steps."""
    program = gc.compile(inputs, outputs, seed=3, **options)
    graph = expand_derivatives(program.graph)
    known = arrays | {name: v.value for name, v in program.declared.named_variables.items()}
    for step in range(steps):
        if program.declared.uses_rng:
            known["rng"] = np.array([3, step])
        found = program(**arrays)
        for k, (mine, oracle) in enumerate(zip(found, evaluate(graph, known), strict=True)):
            scale = np.abs(oracle).max(initial=1.0)
            np.testing.assert_allclose(mine, oracle, rtol=1e-3, atol=2e-5 * scale, err_msg=f"output {k}, step {step}")
    return program


# ------------------------------------------------------------------------------------------------- models


def branch(x: dict[str, gc.Input]) -> gc.Symbol:
    v = x["v"]
    return gc.sum(gc.cond(gc.sum(v) > 0, lambda: v * gc.sum(v), lambda: gc.sin(v) @ x["m"]))


def nested_branches(x: dict[str, gc.Input]) -> gc.Symbol:
    v = x["v"]

    def outer() -> gc.Symbol:
        return gc.cond(v[0] > 0, lambda: gc.exp(v), lambda: v**3) * 2

    return gc.sum(gc.cond(gc.sum(v) < 100, outer, lambda: v))


def rnn(x: dict[str, gc.Input]) -> gc.Symbol:
    def cell(h: gc.Symbol, v: gc.Symbol) -> tuple[gc.Symbol, gc.Symbol]:
        h = gc.tanh(v @ x["u"] + h @ x["m"] + x["v"])
        return h, h

    last, hs = gc.scan(cell, [x["xs"]], [gc.zeros((2, 3))])
    return gc.sum(last**2) + gc.sum(gc.sin(hs))


def lstm(x: dict[str, gc.Input]) -> gc.Symbol:
    def cell(h: gc.Symbol, c: gc.Symbol, v: gc.Symbol) -> tuple[gc.Symbol, ...]:
        i, f, g, o = gc.split(v @ x["u4"] + h @ x["m4"], 4, axis=1)
        c = gc.sigmoid(f + 1) * c + gc.sigmoid(i) * gc.tanh(g)
        h = gc.sigmoid(o) * gc.tanh(c)
        return h, c, h

    *_, hs = gc.scan(cell, [x["xs"]], [gc.zeros((2, 3)), gc.zeros((2, 3))], reverse=True)
    return gc.mean(hs**2)


def maps_and_sums(x: dict[str, gc.Input]) -> gc.Symbol:
    products, sums = gc.scan(lambda v: (v @ x["u"], gc.sum(v, axis=1)), [x["xs"]])
    total = gc.scan(lambda s, v: s * 0.9 + gc.sum(v), [products], [0.0])
    return total * gc.sum(sums**2)


def scan_in_scan(x: dict[str, gc.Input]) -> gc.Symbol:
    def outer(total: gc.Symbol, rows: gc.Symbol) -> gc.Symbol:
        return total * gc.scan(lambda p, row: p + gc.sum(gc.sin(row)) * total, [rows], [1.0])

    return gc.scan(outer, [x["xs"]], [0.5])


def bounded_loop(x: dict[str, gc.Input]) -> gc.Symbol:
    def body(v: gc.Symbol, n: gc.Symbol) -> tuple[gc.Symbol, gc.Symbol]:
        return gc.tanh(v @ x["m"]) * 2 + x["v"], n + 1

    v, n = gc.while_loop(lambda v, n: gc.sum(v**2) < 8, body, (x["v"], 0), bound=12)
    return gc.sum(v) * n.astype("float32")


def branch_in_scan(x: dict[str, gc.Input]) -> gc.Symbol:
    def cell(h: gc.Symbol, v: gc.Symbol) -> gc.Symbol:
        return gc.cond(gc.sum(v) > 0, lambda: gc.tanh(h @ x["m"]) + v @ x["u"], lambda: h * 0.5)

    return gc.sum(gc.scan(cell, [x["xs"]], [gc.ones((2, 3))]) ** 2)


def noisy(x: dict[str, gc.Input]) -> gc.Symbol:
    def cell(h: gc.Symbol, v: gc.Symbol) -> gc.Symbol:
        mask = gc.random.bernoulli(0.5, h.shape)
        return gc.tanh(v @ x["u"] + (h * mask) @ x["m"]) + 0.1 * gc.random.normal(h.shape)

    return gc.sum(gc.scan(cell, [x["xs"]], [gc.ones((2, 3))]) ** 2)


MODELS = [
    branch, nested_branches, rnn, lstm, maps_and_sums, scan_in_scan, bounded_loop, branch_in_scan, noisy,
]  # fmt: skip
SHAPES = {"v": (3,), "m": (3, 3), "u": (4, 3), "xs": (5, 2, 4), "u4": (4, 12), "m4": (3, 12)}
ARRAYS = {name: drawn(*shape) for name, shape in SHAPES.items()}


def declared(model: Model) -> tuple[list[gc.Input], gc.Symbol]:
    inputs = {name: gc.input(name, shape) for name, shape in SHAPES.items()}
    loss = model(inputs)
    read, stack = set(), [loss.ir]
    while stack:
        value = stack.pop()
        if value.producer is None:
            read.add(value)
        elif value not in read:
            read.add(value)
            stack.extend(value.producer.inputs)
    return [i for i in inputs.values() if i.ir in read], loss


@pytest.mark.parametrize("sign", [1, -1])
@pytest.mark.parametrize("model", MODELS)
def test_values_and_gradients(model: Model, sign: int) -> None:
    inputs, loss = declared(model)
    arrays = {i.name: sign * ARRAYS[i.name] for i in inputs}
    check(inputs, [loss, *gc.grad(loss, inputs)], arrays, steps=2)


@pytest.mark.parametrize("name", "loops hoist algebra stability canonicalise fold cse combine dce".split())
def test_each_pass_can_be_left_out(name: str) -> None:
    for model in (lstm, branch_in_scan, bounded_loop):
        inputs, loss = declared(model)
        arrays = {i.name: ARRAYS[i.name] for i in inputs}
        graph = collect(inputs, [loss, *gc.grad(loss, inputs)]).graph
        final, stages = run(graph, default_pipeline({}, without=(name,)), verify=True)
        assert name not in [stage.name for stage in stages]
        for mine, oracle in zip(evaluate(final, arrays), evaluate(expand_derivatives(graph), arrays), strict=True):
            np.testing.assert_allclose(mine, oracle, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("model", MODELS)
def test_second_derivatives_and_forward_mode(model: Model) -> None:
    inputs, loss = declared(model)
    arrays = {i.name: ARRAYS[i.name] for i in inputs}
    directions = [np.cos(np.arange(a.size, dtype=np.float32)).reshape(a.shape) for a in arrays.values()]
    again = gc.grad(sum(gc.sum(gc.sin(g)) for g in gc.grad(loss, inputs)), inputs)
    check(inputs, [gc.jvp(loss, inputs, directions), *gc.hvp(loss, inputs, directions), *again], arrays)


# ----------------------------------------------------------------------------------------------- programs


def test_random_numbers_are_those_of_the_interpreter() -> None:
    """In scans, while loops, branches and loops in loops, step after step."""
    x = gc.input("x")

    def cell(h: gc.Symbol) -> tuple[gc.Symbol, ...]:
        inner = gc.scan(lambda: gc.random.uniform((3,)), length=2)
        chosen = gc.cond(x > 0, lambda: gc.random.uniform((2,)), lambda: gc.random.normal((2,)))
        n, u = gc.while_loop(lambda n, u: n < 3, lambda n, u: (n + 1, gc.random.uniform((2,))), (0, gc.zeros(2)))
        return h + n, inner, chosen, u

    _, *drawn = gc.scan(cell, init=[0], length=3)
    for sign in (1, -1):
        check([x], [*drawn, gc.random.uniform((2,))], {"x": np.float32(sign)}, steps=2)


def test_a_recurrent_network_learns_as_in_torch() -> None:
    """Five steps of gradient descent on the last state of a tanh cell, its weights in the loop."""
    torch = pytest.importorskip("torch")
    xs, t = gc.input("xs", (6, 8, 4)), gc.input("t", (8, 3))
    layer, hidden = nn.Linear(4, 3), nn.Linear(3, 3, bias=False)
    last = gc.scan(lambda h, x: gc.tanh(layer(x) + hidden(h)), [xs], [gc.zeros((8, 3))])
    loss = gc.mse_loss(last, t)
    params = [layer.weight, layer.bias, hidden.weight]
    step = gc.compile([xs, t], [loss], updates=optim.SGD(lr=0.5).updates(loss, params))
    data, target = drawn(6, 8, 4), drawn(8, 3)

    theirs = [torch.tensor(p.value, requires_grad=True) for p in params]
    optimizer = torch.optim.SGD(theirs, lr=0.5)
    for _ in range(5):
        (mine,) = step(data, target)
        h = torch.zeros((8, 3))
        for x in torch.tensor(data):
            h = torch.tanh(x @ theirs[0].T + theirs[1] + h @ theirs[2].T)
        expected = torch.nn.functional.mse_loss(h, torch.tensor(target))
        optimizer.zero_grad()
        expected.backward()
        optimizer.step()
        np.testing.assert_allclose(mine, expected.item(), rtol=1e-4)
    for param, tensor in zip(params, theirs, strict=True):
        np.testing.assert_allclose(param.value, tensor.detach(), rtol=1e-3, atol=1e-5)


def test_loops_over_a_runtime_count() -> None:
    """The batch in the carried values and sequences differs from call to call."""
    xs, w = gc.input("xs", (4, "N", 3)), gc.param("w", (3, 3), seed=0)
    last, hs = gc.scan(lambda h, x: [gc.tanh(h @ w + x)] * 2, [xs], [gc.zeros(("N", 3))])
    loss = gc.mean(last**2) + gc.sum(hs)
    program = gc.compile([xs], [last, hs, gc.grad(loss, w)], dims={"N": 6})
    for count in (6, 5, 1):
        at = {"xs": drawn(4, count, 3)}
        expected = evaluate(expand_derivatives(program.graph), at | {"w": w.value})
        for mine, oracle in zip(program(**at), expected, strict=True):
            np.testing.assert_allclose(mine, oracle, rtol=1e-3, atol=1e-5)


def test_counters_and_stacks_of_constants() -> None:
    counted, sevens = gc.scan(lambda n: (n + 1, 7.0), init=[0], length=3)
    total, before = gc.scan(lambda s: (s + gc.sum(gc.ones((2, 2))), s), init=[0.0], length=3)
    check([], [counted, sevens, total, before], {})


@pytest.mark.parametrize("without", [(), ("dce", "loops", "canonicalise")])
@pytest.mark.parametrize("length", [0, 2])
def test_two_loops_from_one_value_that_the_second_hands_on(length: int, without: tuple[str, ...]) -> None:
    """The first loop must not write over the value where what reads the second one's result reads it."""
    x = gc.input("x", (3,))
    v = gc.sin(x)
    a = gc.scan(lambda h: h * 2, init=[v], length=3)
    b, c = gc.scan(lambda h, u: (h, u * h), init=[v, x], length=length)
    d = gc.scan(lambda h: h + x, init=[v], length=0)
    check([x], [a * b + c * d], {"x": ARRAYS["v"]}, without=without)


def test_branches_that_are_not_taken_do_not_run() -> None:
    """A branch of 2000 turns that is not taken costs no time; the loop in it would add up its turns."""
    x = gc.input("x")

    def long() -> gc.Symbol:
        return gc.while_loop(lambda n: n < 2000 * gc.abs(x), lambda n: n + 1.0, 0.0)

    y = gc.cond(x > 0, long, lambda: x)
    program = gc.compile([x], [y])
    assert program(-1.0)[0] == -1
    assert program(1.0)[0] == 2000
