"""Outer and dot contractions, lane sums and packed tiles against NumPy; and their registers, read from the assembly."""

from __future__ import annotations

import numpy as np
import pytest

from graphc.codegen.host import host
from graphc.errors import CompileError

LANES = host().lanes


def normal(*shape: int, dtype: str = "float32") -> np.ndarray:
    return np.random.default_rng(sum(shape)).standard_normal(shape).astype(dtype)


@pytest.mark.parametrize(("rows", "vectors"), [(1, 1), (4, 4), (8, 2), (3, 2)])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_outer_product_with_bias_and_relu(run, rows, vectors, dtype):
    m, k, n = 2 * rows, 37, 2 * vectors * LANES
    x, w, b, y = normal(m, k, dtype=dtype), normal(k, n, dtype=dtype), normal(n, dtype=dtype), np.zeros((m, n), dtype)
    name = "f32" if dtype == "float32" else "f64"
    run(f"""
        for j in range(0, {n}, {vectors * LANES}):
            for i in range(0, {m}, {rows}):
                acc = tile_zeros_{name}({rows}, {vectors})
                for k in range({k}):
                    acc = tile_fma_outer(acc, p0, i * {k} + k, {k}, tile_load(p1, k * {n} + j, 0, 1, {vectors}))
                tile_store(p3, i * {n} + j, {n}, tile_maximum(acc + tile_load(p2, j, 0, 1, {vectors}), 0.0))
        """, x, w, b, y)
    expected = np.maximum(x.astype(np.float64) @ w + b, 0)
    tolerance = 1e-5 if name == "f32" else 1e-13
    np.testing.assert_allclose(y, expected, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize(("rows", "columns"), [(1, 1), (4, 4), (2, 8), (3, 5), (6, 4), (1, 7)])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_dot_product_with_bias_and_relu(run, rows, columns, dtype):
    m, k, n = 2 * rows, 3 * LANES + 5, 3 * columns
    x, w, b, y = normal(m, k, dtype=dtype), normal(n, k, dtype=dtype), normal(n, dtype=dtype), np.zeros((m, n), dtype)
    name, whole = "f32" if dtype == "float32" else "f64", k // LANES * LANES
    run(f"""
        for j in range(0, {n}, {columns}):
            for i in range(0, {m}, {rows}):
                acc = tile_zeros_{name}({rows}, {columns})
                for k in range(0, {whole}, {LANES}):
                    acc = tile_fma_dot(acc, tile_load(p0, i * {k} + k, {k}, {rows}, 1),
                                       tile_load(p1, j * {k} + k, {k}, {columns}, 1))
                acc = tile_fma_dot(acc, tile_load_masked(p0, i * {k} + {whole}, {k}, {rows}, 1, {k - whole}),
                                   tile_load_masked(p1, j * {k} + {whole}, {k}, {columns}, 1, {k - whole}))
                s = tile_lane_sums(acc) + tile_load_packed(p2, j, 0, 1, {rows}, {columns})
                tile_store_packed(p3, i * {n} + j, {n}, 1, {rows}, {columns}, tile_maximum(s, 0.0))
        """, x, w, b, y)
    expected = np.maximum(x.astype(np.float64) @ w.T + b, 0)
    tolerance = 1e-5 if name == "f32" else 1e-13
    np.testing.assert_allclose(y, expected, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize(("rows", "columns"), [(1, 3), (4, 4), (3, 8), (5, 3), (2, 17), (1, 40), (2, 50)])
def test_packed_loads_and_stores(run, rows, columns):
    x = normal(4000)
    size = rows * columns
    length = -(-size // LANES) * LANES
    packed, y, z = np.ones((2, length), np.float32), np.zeros(4000, np.float32), np.zeros(4000, np.float32)
    shape = f"{rows}, {columns}"
    run(f"""
        a = tile_load_packed(p0, 3, 60, 1, {shape})
        tile_store(p1, 0, 0, a)
        tile_store_packed(p2, 7, 70, 1, {shape}, a)
        b = tile_load_packed(p0, 3, 2, 11, {shape})
        tile_store(p1, {length}, 0, b)
        tile_store_packed(p3, 7, 1, 9, {shape}, b)
        """, x, packed, y, z)
    r, c = np.arange(rows)[:, None], np.arange(columns)
    near, far = x[3 + r * 60 + c], x[3 + r * 2 + c * 11]
    np.testing.assert_array_equal(packed[:, :size], [near.ravel(), far.ravel()])
    assert (packed[:, size:] == 0).all()
    expected_y, expected_z = np.zeros(4000, np.float32), np.zeros(4000, np.float32)
    expected_y[7 + r * 70 + c], expected_z[7 + r + c * 9] = near, far
    np.testing.assert_array_equal(y, expected_y)
    np.testing.assert_array_equal(z, expected_z)


def test_a_full_register_tile_does_not_spill(run):
    if LANES != 16:
        pytest.skip("looks for AVX-512 instructions, which this processor has not")
    x, w, y = normal(128, 64), normal(64, 128), np.zeros((128, 128), np.float32)
    for rows, vectors in ((4, 4), (8, 2), (8, 3), (12, 2), (24, 1)):
        code = run(f"""
            acc = tile_zeros_f32({rows}, {vectors})
            for k in range(64):
                acc = tile_fma_outer(acc, p0, k, 64, tile_load(p1, k * 128, 0, 1, {vectors}))
            tile_store(p2, 0, 128, acc)
            """, x, w, y)
        stack = [line for line in code.asm.splitlines() if "zmm" in line and ("(%rsp" in line or "(%rbp" in line)]
        assert "vfmadd" in code.asm and not stack, (rows, vectors)


@pytest.mark.parametrize(("body", "message"), [
    ("tile_fma_outer(tile_zeros_f32(2, 2), p0, 0, 0, tile_zeros_f32(1, 1))", "do not fit"),
    ("tile_fma_outer(tile_zeros_f64(2, 2), p0, 0, 0, tile_zeros_f64(1, 2))", "do not fit"),
    ("tile_fma_dot(tile_zeros_f32(2, 2), tile_zeros_f32(2, 1), tile_zeros_f32(3, 1))", "do not fit"),
    ("tile_store_packed(p0, 0, 2, 1, 40, 40, tile_zeros_f32(1, 1))", "is no packed"),
])
def test_misuse_says_what_is_wrong(run, body, message):
    with pytest.raises(CompileError, match=message):
        run(body, np.zeros(100, np.float32))
