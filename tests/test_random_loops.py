"""Random programs of branches and loops in each other, compiled, with gradients, against the interpreter; by seed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np
import pytest

import graphc as gc
from graphc.autodiff.expand import expand_derivatives
from graphc.errors import GradientError
from graphc.interpret import evaluate
from graphc.ir.graph import Graph, topological

SHAPES = {"a": (2, 3), "b": (2, 3), "m": (3, 3), "xs": (3, 2, 3)}
DEPTH = 2  # of branches and loops in each other
DEFAULT_SEEDS, MORE_SEEDS = (1, 2, 5, 7), range(10, 110)


class Author:
    """Writes random expressions of [2, 3] tensors."""

    def __init__(self, inputs: dict[str, gc.Input]) -> None:
        self.m, self.xs = inputs["m"], inputs["xs"]

    def write(self, seed: int, values: Sequence[gc.Symbol], depth: int) -> gc.Symbol:
        """An expression of the values, with `depth` branches and loops in each other at most."""
        rng, known = np.random.default_rng(seed), list(values)
        for _ in range(rng.integers(1, 4)):
            x, y = (known[rng.integers(len(known))] for _ in range(2))
            writers = (self.plain, self.branch, self.sequence, self.search) if depth else (self.plain,)
            known.append(writers[rng.integers(len(writers))](rng, x, y, known, depth))
        return known[-1]

    def plain(self, rng: np.random.Generator, x: gc.Symbol, y: gc.Symbol, known: list, depth: int) -> gc.Symbol:
        """One or two ops."""
        choices = (
            lambda: gc.tanh(x + y),
            lambda: x * y * 0.5,
            lambda: gc.sin(x) - y,
            lambda: x @ self.m + y,
            lambda: gc.tanh(x) * gc.random.uniform((2, 3)),
        )
        return choices[rng.integers(len(choices))]()

    def branch(self, rng: np.random.Generator, x: gc.Symbol, y: gc.Symbol, known: list, depth: int) -> gc.Symbol:
        """A branch, of which both sides know all that there is."""
        values, seeds = tuple(known), rng.integers(1 << 30, size=2)
        first, second = (lambda seed=seed: self.write(seed, values, depth - 1) for seed in seeds)
        return gc.cond(gc.sum(x) > 0, first, second)

    def sequence(self, rng: np.random.Generator, x: gc.Symbol, y: gc.Symbol, known: list, depth: int) -> gc.Symbol:
        """A scan, of which the last carried value and the sum of the outputs count."""
        values, seeds = tuple(known), rng.integers(1 << 30, size=2)

        def cell(h: gc.Symbol, v: gc.Symbol) -> tuple[gc.Symbol, gc.Symbol]:
            carried = self.write(seeds[0], (*values, h, v), depth - 1)
            return gc.tanh(carried), gc.tanh(self.write(seeds[1], (h, v), depth - 1))

        last, outputs = gc.scan(cell, [self.xs], [x], reverse=bool(rng.integers(2)))
        return last + gc.sum(outputs, axis=0)

    def search(self, rng: np.random.Generator, x: gc.Symbol, y: gc.Symbol, known: list, depth: int) -> gc.Symbol:
        """A loop until the values are large, with a bound."""
        values, seed = tuple(known), rng.integers(1 << 30)

        def body(h: gc.Symbol, n: gc.Symbol) -> tuple[gc.Symbol, gc.Symbol]:
            return gc.tanh(self.write(seed, (*values, h), depth - 1)) * 1.5 + 0.3, n + 1

        h, n = gc.while_loop(lambda h, n: gc.sum(h * h) < 3.0, body, (x, 0), bound=4)
        return h * (n + 1).astype("float32")


def differentiable(loss: gc.Symbol, inputs: Sequence[gc.Input]) -> list[gc.Input]:
    """The inputs that the loss depends on otherwise than by what it decides."""
    found = []
    for symbol in inputs:
        try:
            gc.grad(loss, symbol)
        except GradientError:
            continue
        found.append(symbol)
    return found


def nested_ops(graph: Graph) -> Counter[str]:
    found: Counter[str] = Counter()
    for node in graph.nodes:
        found[node.op.name] += node.op.nested is not None
        for body in (value for value in node.attributes.values() if isinstance(value, Graph)):
            found += nested_ops(body)
    return +found


def check(seed: int, second: bool = False) -> Counter[str]:
    """Compile a random program and compare it with the interpreter; the ops in it that run graphs."""
    inputs = {name: gc.input(name, shape) for name, shape in SHAPES.items()}
    loss = gc.sum(gc.sin(Author(inputs).write(seed, (inputs["a"], inputs["b"]), DEPTH)))
    read = {v for node in topological([loss.ir]) for v in node.inputs}
    used = [symbol for symbol in inputs.values() if symbol.ir in read]
    wrt = differentiable(loss, used)
    outputs = [loss, *(gc.grad(loss, wrt) if wrt else [])]
    if wrt and second:
        outputs += gc.hvp(loss, wrt, [np.ones(SHAPES[s.name], np.float32) for s in wrt])
    program = gc.compile(used, outputs, cache=False, seed=1, threads=1 + seed % 2)
    rng = np.random.default_rng(seed)
    arrays = {s.name: rng.normal(size=SHAPES[s.name]).astype(np.float32) / 2 for s in used}
    random = {"rng": np.array([1, 0])} if program.declared.uses_rng else {}
    expected = evaluate(expand_derivatives(program.graph), arrays | random)
    for k, (mine, oracle) in enumerate(zip(program(**arrays), expected, strict=True)):
        scale = np.abs(oracle).max(initial=1.0)
        message = f"seed {seed}, output {k} of\n{program.graph}"
        np.testing.assert_allclose(mine, oracle, rtol=3e-3, atol=1e-4 * scale, err_msg=message)
    return nested_ops(program.graph)


def test_random_loops() -> None:
    found: Counter[str] = Counter()
    for seed in DEFAULT_SEEDS:
        found += check(seed)
    assert set(found) == {"cond", "scan", "while_loop"} and found.total() >= 8


@pytest.mark.slow
@pytest.mark.parametrize("seed", MORE_SEEDS)
def test_more_random_loops(seed: int) -> None:
    check(seed, second=seed % 3 == 0)
