"""By-products split into kernels that threads can share."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from graphc.codegen.partials import split_byproducts
from graphc.kernel import interpret
from graphc.kernel.form import Kernel
from graphc.kernel.parser import parse_kernel

BIAS_GRADIENT = (
    "kernel back(x: f32[{n},77], h: f32[{n},77]) -> (y: f32[{n},77], db: f32[77] init 0, top: f32[77] init 3)"
    " {where} {{"
    " space n < {n}, o < 77 stage {{ let d: f32 = where(h[n, o] > 0.0, x[n, o], 0.0) y[n, o] = d"
    " db[o] += d through 4 partials top[o] max= d through 4 partials }} }}"
)


def run_all(build: Callable[..., Any], kernels: tuple[Kernel, ...], values: dict[str, Any], counts: dict[str, int],
            threads: int) -> dict[str, Any]:  # fmt: skip
    values = dict(values)
    for kernel in kernels:
        compiled = build(kernel, verified=False)
        values |= compiled.run({o.name: values[o.name] for o in kernel.inputs}, counts, threads)
    return values


@pytest.mark.parametrize("runtime", [True, False])
def test_split(build: Callable[..., Any], runtime: bool) -> None:
    where = "where N <= 1000" if runtime else ""
    kernel = parse_kernel(BIAS_GRADIENT.format(n="N" if runtime else "1000", where=where))
    kernels = split_byproducts(kernel)
    assert [k.name for k in kernels] == ["back", "back_db", "back_top"]
    assert [str(d) for d in kernels[0].operand("db_partials").shape] == ["4", "77"]
    rng = np.random.default_rng(0)
    for n in (0, 1, 600, 1000) if runtime else (1000,):
        inputs = {name: rng.standard_normal((n, 77)).astype("f4") for name in ("x", "h")}
        counts = {"N": n} if runtime else {}
        wanted = interpret.run(kernel, inputs, counts, float64=True)
        one, three = (run_all(build, kernels, inputs, counts, threads) for threads in (1, 3))
        for name, value in wanted.items():
            np.testing.assert_allclose(one[name], value, rtol=1e-4, atol=1e-4)
            np.testing.assert_array_equal(one[name], three[name])


def test_kernels_without_byproducts_stay(build: Callable[..., Any]) -> None:
    kernel = parse_kernel("kernel copy(x: f32[4]) -> (y: f32[4]) { space i < 4 stage { y[i] = x[i] } }")
    assert split_byproducts(kernel) == (kernel,)
