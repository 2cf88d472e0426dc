"""Random programs against the float64 interpreter: whatever passes, fusion, planning and emission do, values stay."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import graphc as gc
from graphc.autodiff.expand import expand_derivatives
from graphc.errors import GradientError, GraphcError
from graphc.interpret import evaluate
from graphc.ir.dims import symbols
from graphc.ir.text import print_graph
from graphc.kernel.text import parse_kernel
from graphc.kernel.verify import verify
from graphc.program import Program

SIZES = (1, 2, 3, 7, 15, 16, 17, 33, 64, 65)
UNARY: tuple[Callable[[Any], Any], ...] = (
    gc.tanh, gc.sigmoid, gc.relu, gc.softplus, gc.square, gc.abs, lambda v: -v, lambda v: gc.exp(gc.tanh(v)),
    lambda v: gc.log(gc.square(v) + 1.0), lambda v: 0.5 * v, lambda v: v / (1.5 + gc.square(v)),
)  # fmt: skip
BINARY: tuple[Callable[[Any, Any], Any], ...] = (
    lambda a, b: a + b, lambda a, b: a - b, lambda a, b: a * gc.tanh(b), gc.maximum,
    lambda a, b: gc.where(a > b, a, gc.tanh(b)),
)  # fmt: skip


class Declaration:
    """A random program: two inputs over N rows, three parameters, a dozen ops, results, gradients and updates."""

    def __init__(self, seed: int) -> None:
        self.rng = np.random.default_rng(seed)
        a, b = (int(self.rng.choice(SIZES)) for _ in range(2))
        self.inputs = [gc.input("x", ("N", a)), gc.input("y", ("N", a))]
        self.params = [gc.param("W", (a, b)), gc.param("U", (b, a)), gc.param("c", (b,), init=gc.init.normal())]
        self.pool: list[Any] = [*self.inputs, *self.params]
        for _ in range(int(self.rng.integers(4, 14))):
            self._grow()

    def _pick(self) -> Any:
        recent = self.pool[-6:] if self.rng.random() < 0.7 else self.pool
        return recent[int(self.rng.integers(len(recent)))]

    def _grow(self) -> None:
        try:
            self.pool.append(self._made(str(self.rng.choice(["unary", "binary", "matmul", "reduce", "shape", "row"]))))
        except GraphcError:
            pass  # shapes that do not fit: another op next time

    def _made(self, kind: str) -> Any:
        value = self._pick()
        rank = len(value.shape)
        if kind == "unary":
            return UNARY[int(self.rng.integers(len(UNARY)))](value)
        if kind == "binary":
            return BINARY[int(self.rng.integers(len(BINARY)))](value, self._pick())
        if kind == "matmul":
            return gc.tanh(0.3 * gc.matmul(value, self._pick(), transpose_b=bool(self.rng.integers(2))))
        if kind == "reduce":
            axis = int(self.rng.integers(rank)) if rank and self.rng.random() < 0.8 else None
            reduce = (gc.sum, gc.mean, gc.max)[int(self.rng.integers(3))]
            return reduce(value, axis=axis, keepdims=bool(self.rng.integers(2)))
        if kind == "row":
            return gc.log_softmax(value)
        if rank == 2 and self.rng.random() < 0.5:
            return gc.transpose(value)
        return gc.reshape(value, (*value.shape, 1)) if self.rng.random() < 0.5 else gc.flatten(value)

    def program(self) -> Program:
        """Results, the gradients of a scalar made from the last value, and a gradient step of what it reaches."""
        results = [self._pick(), self.pool[-1]]
        loss = gc.mean(gc.square(self.pool[-1]))
        updates: dict[Any, Any] = {}
        for param in self.params:
            try:
                gradient = gc.grad(loss, param)
            except GradientError:
                continue  # the loss does not reach it
            if self.rng.random() < 0.5:
                updates[param] = param - 0.1 * gradient
            else:
                results.append(gradient)
        self.updated = list(updates)
        return gc.compile(self.inputs, [*results, loss], updates=updates, dims={"N": 24})


def check(seed: int) -> None:
    declaration = Declaration(seed)
    program = declaration.program()
    for kernel in program.kernels.values():
        verify(parse_kernel(kernel.form))
    graph = expand_derivatives(program.graph)
    width = program.declared.inputs[0].shape[1]
    needs_capacity = not any(symbols(d) for v in program.declared.inputs for d in v.shape)
    for n in (24,) if needs_capacity else (24, 5):
        arrays = {name: declaration.rng.standard_normal((n, width)).astype(np.float32) for name in ("x", "y")}
        values = {name: variable.value for name, variable in program.declared.named_variables.items()}
        expected = evaluate(graph, {**arrays, **values})
        got = [*program(**arrays), *(p.value for p in declaration.updated)]
        for position, (mine, oracle) in enumerate(zip(got, expected, strict=True)):
            scale = max(1.0, float(np.abs(oracle).max(initial=0.0)))
            message = f"seed {seed}, n {n}, output {position}\n{print_graph(program.graph)}"
            np.testing.assert_allclose(mine, oracle, rtol=2e-4, atol=2e-4 * scale, err_msg=message)


@pytest.mark.parametrize("seed", range(12))
def test_random_programs(seed: int) -> None:
    check(seed)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(100, 220))
def test_many_random_programs(seed: int) -> None:
    check(seed)
