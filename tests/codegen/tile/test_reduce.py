"""Reductions of tiles to scalars and to one row."""

from __future__ import annotations

import numpy as np
import pytest

from graphc.codegen.host import host

LANES = host().lanes


@pytest.mark.parametrize(("rows", "vectors"), [(1, 1), (2, 3), (3, 1), (5, 2)])
@pytest.mark.parametrize("dtype", ["float32", "float64", "int32", "int64"])
def test_reductions(run, dtype, rows, vectors):
    size = rows * vectors * LANES
    x = np.random.default_rng(0).integers(-3, 4, size).astype(dtype)
    ones = np.where(np.arange(size) % 7 == 3, 2, 1).astype(dtype)
    ones[size // 2:] = 1
    y, row = np.zeros(4, dtype), np.zeros((2, vectors * LANES), dtype)
    run(f"""
        a = tile_load(p0, 0, {vectors * LANES}, {rows}, {vectors})
        store_scalar(p2, 0, tile_sum(a))
        store_scalar(p2, 1, tile_max(a))
        store_scalar(p2, 2, tile_min(a))
        store_scalar(p2, 3, tile_prod(tile_load(p1, 0, {vectors * LANES}, {rows}, {vectors})))
        tile_store(p3, 0, 0, tile_sum_rows(a))
        tile_store(p3, {vectors * LANES}, 0, tile_max_rows(a))
        """, x, ones, y, row)
    assert y.tolist() == [x.sum(), x.max(), x.min(), ones.astype(np.int64).prod()]
    matrix = x.reshape(rows, -1)
    np.testing.assert_array_equal(row, [matrix.sum(0), matrix.max(0)])


def test_extrema_of_nan_are_nan(run):
    for position in (0, LANES - 1, LANES, 2 * LANES - 1):
        x, y = np.ones(2 * LANES, np.float32), np.zeros(2, np.float32)
        x[position] = np.nan
        run("""
            a = tile_load(p0, 0, 0, 1, 2)
            store_scalar(p1, 0, tile_max(a))
            store_scalar(p1, 1, tile_min(a))
            """, x, y)
        assert np.isnan(y).all()


@pytest.mark.parametrize("position", [None, 0, LANES + 3])
def test_any_and_all(run, position):
    x, y = np.zeros(2 * LANES, bool), np.zeros(4, bool)
    if position is not None:
        x[position] = True
    run("""
        a = tile_load(p0, 0, 0, 2, 1)
        b = tile_load(p0, 0, 0, 1, 2)
        store_scalar(p1, 0, tile_any(b))
        store_scalar(p1, 1, tile_all(b))
        store_scalar(p1, 2, tile_any(~b))
        store_scalar(p1, 3, tile_all(~b))
        if tile_any(a) and tile_all(a):
            store_scalar(p1, 1, True)
        """, x, y)
    assert y.tolist() == [position is not None, False, True, position is None]
