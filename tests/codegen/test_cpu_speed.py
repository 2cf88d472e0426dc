"""Generated contractions against this machine's multiply-add peak. Slow tests: they need a quiet core."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from graphc.codegen.host import host
from graphc.codegen.tile.peak import fma_peak_source
from graphc.ir.dims import evaluate

SHAPES = {
    "hidden": "(x: f32[N,784], W: f32[784,512], b: f32[512]) -> (y: f32[N,512]) where N <= 128 { space n < N, o < 512"
    " stage { reduce k < 784 acc: f32 = sum(x[n, k] * W[k, o]) y[n, o] = max(acc + b[o], 0.0) } }",
    "linear": "(x: f32[N,784], W: f32[512,784], b: f32[512]) -> (y: f32[N,512]) where N <= 128 { space n < N, o < 512"
    " stage { reduce k < 784 acc: f32 = sum(x[n, k] * W[o, k]) y[n, o] = max(acc + b[o], 0.0) } }",
    "weight_gradient": "(g: f32[N,512], x: f32[N,784]) -> (W: f32[512,784]) where N <= 128 { space o < 512, k < 784"
    " stage { reduce n < N acc: f32 = sum(g[n, o] * x[n, k]) W[o, k] = acc } }",
}


def seconds(entry: Callable[..., None], arrays: list[Any], count: int, repeats: int) -> float:
    """The least time of one call."""
    counts = np.array([count], np.int64)
    addresses = np.array([a.ctypes.data for a in (*arrays, counts)], np.int64)
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        entry(addresses.ctypes.data, 0, 1)
        times.append(time.perf_counter() - start)
    return min(times)


def peak(link: Callable[..., Any]) -> float:
    """FLOP/s of independent multiply-adds on one thread."""
    rows, steps = min(8, host().accumulators // 2), 200_000
    entry = link(fma_peak_source(), "fma_peak")
    buffer = np.zeros(rows * 2 * host().lanes, np.float32)
    return 2 * rows * 2 * host().lanes * steps / seconds(entry, [buffer], steps, 30)


@pytest.mark.slow
@pytest.mark.parametrize("name", SHAPES)
def test_share_of_peak(build: Callable[..., Any], link: Callable[..., Any], name: str) -> None:
    kernel = build(f"kernel {name} {SHAPES[name]}")
    rng = np.random.default_rng(0)
    shapes = [tuple(evaluate(d, kernel.form.capacities) for d in o.shape) for o in kernel.form.operands]
    arrays = [rng.standard_normal(shape).astype(np.float32) for shape in shapes]
    best = max(2 * 128 * 784 * 512 / seconds(kernel.entry, arrays, 128, 200) for _ in range(3))
    assert best / peak(link) > 0.9
