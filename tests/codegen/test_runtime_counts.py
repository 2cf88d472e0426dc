"""Compiled array functions over a batch axis whose count is known at the call: counts below and at the capacity."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import graphc as gc
from graphc.autodiff.expand import expand_derivatives
from graphc.interpret import evaluate

X = np.sin(np.arange(180.0) * 1.3).reshape(9, 4, 5).astype(np.float32)
FUNCTIONS: dict[str, Callable[[Any], Any]] = {
    "prod": lambda x: gc.prod(x, 0),
    "var": lambda x: gc.var(x, 0, correction=0),
    "std of all": lambda x: gc.std(x, (0, 1)),
    "norm": lambda x: gc.norm(x, axis=0),
    "logsumexp": lambda x: gc.logsumexp(x, 0),
    "max": lambda x: gc.max(x, 0),
    "argmin": lambda x: gc.argmin(x, 0),
    "any": lambda x: gc.any(x > 0.99, 0),
    "all": lambda x: gc.all(x > -0.9, 0),
    "cumsum": lambda x: gc.cumsum(x, 0),
    "cumprod": lambda x: gc.cumprod(x, 0),
    "flip": lambda x: gc.flip(x, 0),
    "tail": lambda x: x[1:],
    "head": lambda x: x[:-1],
    "last": lambda x: x[-1],
    "backwards": lambda x: x[::-1, 1:3],
    "column": lambda x: x[:, 2],
    "differences": lambda x: x[1:] - x[:-1],
    "concatenate": lambda x: gc.concatenate([x, x * 2, gc.ones((2, 4, 5))]),
    "concatenate columns": lambda x: gc.concatenate([x, x[:, :2]], 1),
    "stack": lambda x: gc.stack([x, -x]),
    "stack rows": lambda x: gc.stack([x, -x], 1),
    "pad": lambda x: gc.pad(x, ((1, 2), (0, 0), (0, 0))),
    "pad columns": lambda x: gc.pad(x, ((0, 0), (1, 1), (0, 3)), constant_values=2.0),
    "roll": lambda x: gc.roll(x, 2, 0),
    "roll all": lambda x: gc.roll(x, -3),
    "tile": lambda x: gc.tile(x, (2, 1, 1)),
    "repeat": lambda x: gc.repeat(x, 2, 0),
    "tril": gc.tril,
    "take": lambda x: gc.take(x, [3, 0, 3], 1),
    "take rows": lambda x: gc.take(x, gc.argmax(x[:, :, 0], 0), 0),
    "sort": lambda x: gc.sort(x, 0),
    "sort columns": lambda x: gc.sort(x, 1),
    "argsort": lambda x: gc.argsort(x, 0),
    "permutation": lambda x: gc.sum(gc.random.permutation(x), 0),
    "batched matmul": lambda x: gc.einsum("nij,nkj->nik", x, x),
    "einsum": lambda x: gc.einsum("nij,nkj->ik", x, x),
    "outer": lambda x: gc.outer(x[:, 0, 0], x[:, 0, 1]),
}


@pytest.fixture(scope="module")
def compiled() -> tuple[list[str], Any]:
    """Names of the results (values, then gradients of sums of squares) and one program of all of them."""
    x = gc.input("x", ("N", 4, 5))
    values = {name: function(x) for name, function in FUNCTIONS.items()}
    slopes = {f"{name}'": gc.grad(gc.sum(gc.square(y)), x) for name, y in values.items() if y.dtype.is_float}
    named = values | slopes
    return list(named), gc.compile([x], list(named.values()), dims={"N": 9}, cache=False)


@pytest.mark.parametrize("count", [9, 5, 2, 1])
def test_results_do_not_depend_on_the_capacity(count: int, compiled: tuple[list[str], Any]) -> None:
    names, program = compiled
    rows = X[:count]
    found = program(rows)
    inputs = {"x": rows} | ({"rng": np.array([0, 0], np.int64)} if program.declared.uses_rng else {})
    expected = evaluate(expand_derivatives(program.graph), inputs)
    for name, mine, oracle in zip(names, found, expected, strict=True):
        if name.startswith("permutation"):
            continue  # another step of the generator: only that sums of all rows agree is checked
        assert mine.shape == oracle.shape, name
        scale = np.abs(np.nan_to_num(oracle)).max(initial=1.0)
        np.testing.assert_allclose(mine, oracle, rtol=1e-3, atol=2e-5 * scale, err_msg=f"{name}, {count} rows")
    np.testing.assert_allclose(found[names.index("permutation")], rows.sum(0), rtol=1e-4, atol=1e-5)
