"""Programs with branches and loops, compiled: values, first and second derivatives against the interpreter."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import graphc as gc
from graphc.autodiff.expand import expand_derivatives
from graphc.interpret import evaluate

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


@pytest.mark.parametrize("model", MODELS)
def test_second_derivatives_and_forward_mode(model: Model) -> None:
    inputs, loss = declared(model)
    arrays = {i.name: ARRAYS[i.name] for i in inputs}
    directions = [np.cos(np.arange(a.size, dtype=np.float32)).reshape(a.shape) for a in arrays.values()]
    again = gc.grad(sum(gc.sum(gc.sin(g)) for g in gc.grad(loss, inputs)), inputs)
    check(inputs, [gc.jvp(loss, inputs, directions), *gc.hvp(loss, inputs, directions), *again], arrays)
