"""Maps and reductions with vector lanes at sizes around the vector width, dtype by dtype."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from graphc.codegen.host import host
from graphc.kernel.schedule import Schedule

LANES = host().lanes
CAPACITY = 5 * LANES + 3
COUNTS = st.sampled_from([0, 1, 2, 3, LANES - 1, LANES, LANES + 1, 2 * LANES + 1, 4 * LANES, 4 * LANES + 1, CAPACITY])
ADD = {"f32": "x[n] * 2.0", "f64": "x[n] * 2.0f64", "i32": "x[n] * 2i32", "i64": "x[n] * 2", "u8": "x[n] * 200u8",
       "bool": "not x[n]"}  # fmt: skip


def values(dtype: str, *shape: int) -> Any:
    rng = np.random.default_rng(0)
    if dtype in ("f32", "f64"):
        return rng.standard_normal(shape).astype("f4" if dtype == "f32" else "f8")
    numpy = {"i32": "int32", "i64": "int64", "u8": "uint8", "bool": "bool"}[dtype]
    return rng.integers(0, 2 if dtype == "bool" else 100, shape).astype(numpy)


@pytest.mark.parametrize("dtype", ADD)
def test_map_of_every_dtype(build: Callable[..., Any], dtype: str) -> None:
    kernel = build(
        f"kernel double(x: {dtype}[N]) -> (y: {dtype}[N], z: f32[N]) where N <= {CAPACITY} {{ space n < N stage {{"
        f" y[n] = {ADD[dtype]} z[n] = {'x[n]' if dtype == 'f32' else 'f32(x[n])'} }} }}"
    )
    assert kernel.schedule.kind == "vector"

    @given(COUNTS)
    def every_count(n: int) -> None:
        kernel.check({"x": values(dtype, n)}, {"N": n})

    every_count()


@pytest.mark.parametrize("source", ["f32", "f64", "i32", "i64", "u8", "bool"])
def test_casts(build: Callable[..., Any], source: str) -> None:
    targets = [t for t in ("f32", "f64", "i32", "i64", "bool") if t != source]
    outputs = ", ".join(f"y_{t}: {t}[37]" for t in targets)
    stores = " ".join(f"y_{t}[n] = {t}(x[n])" for t in targets)
    text = f"kernel casts(x: {source}[37]) -> ({outputs}) {{ space n < 37 stage {{ {stores} }} }}"
    for schedule in (None, Schedule("scalar")):
        x = values(source, 37)
        build(text, schedule).check({"x": x * 3 if source in ("f32", "f64") else x})


@pytest.mark.parametrize("combiner", ["sum", "max", "min"])
def test_reduction_along_the_lanes(build: Callable[..., Any], combiner: str) -> None:
    kernel = build(
        f"kernel total(x: f32[3,N]) -> (y: f32[3]) where N <= {CAPACITY} {{ space i < 3 stage {{ reduce n < N"
        f" a: f32 = {combiner}(exp(x[i, n])) y[i] = a }} }}",
        Schedule("vector", "n", (("n", 4 * LANES),)),
    )

    @given(COUNTS)
    def every_count(n: int) -> None:
        kernel.check({"x": values("f32", 3, n)}, {"N": n}, rtol=1e-4)

    every_count()


@settings(max_examples=12)
@given(rows=st.integers(0, 9), columns=st.integers(0, 70), extent=st.integers(0, 9))
def test_reduction_across_the_lanes(build: Callable[..., Any], rows: int, columns: int, extent: int) -> None:
    kernel = build(
        f"kernel across(x: f32[{rows},{extent},{columns}], b: f32[{columns}]) -> (y: f32[{rows},{columns}]) {{"
        f" space i < {rows}, c < {columns} stage {{ reduce k < {extent} a: f32 = sum(x[i, k, c])"
        " y[i, c] = a - b[c] } }"
    )
    kernel.check({"x": values("f32", rows, extent, columns), "b": values("f32", columns)})


def test_nan_and_infinity_go_through(build: Callable[..., Any]) -> None:
    kernel = build(
        "kernel edges(x: f32[5,20]) -> (y: f32[5], z: f32[5,20], k: i64[5]) { space n < 5"
        " stage { reduce c < 20 m: f32 = max(x[n, c]) v: f32, i: i64 = argmax(x[n, c], c) y[n] = m k[n] = i }"
        " stage { space d < 20 z[n, d] = where(x[n, d] > 0.0, inf, min(x[n, d], 1.0)) } }"
    )
    x = values("f32", 5, 20)
    x[0, 3], x[1, 19], x[2, :], x[3, 5] = np.nan, np.inf, -np.inf, -np.inf
    kernel.check({"x": x})


@pytest.mark.parametrize("columns, first, blocks", [(784, 0, True), (128, 64, True), (50, 0, True), (128, 10, False)])
def test_random_numbers_come_by_whole_blocks(build: Callable[..., Any], columns: int, first: int, blocks: bool) -> None:
    kernel = build(
        f"kernel noisy(x: f32[N,{columns}], rng: i64[2]) -> (y: f32[N,{columns}]) where N <= 5 {{"
        f" space n < N, c < {columns} stage {{"
        f" y[n, c] = x[n, c] + uniform(rng[0], rng[1], 3, 0, n * extent({columns}) + c + {first}) }} }}"
    )
    assert ("tile_philox_block_f32" in kernel.source) == blocks
    for n in range(6):
        kernel.check({"x": values("f32", n, columns), "rng": np.array([7, 2], np.int64)}, {"N": n}, rtol=1e-6)
