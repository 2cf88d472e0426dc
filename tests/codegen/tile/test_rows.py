"""Tiles with rows missing, and transposed tiles."""

from __future__ import annotations

import numpy as np
import pytest

from graphc.codegen.host import host
from graphc.errors import CompileError

LANES = host().lanes


def numbers(dtype: str, size: int) -> np.ndarray:
    values = np.random.default_rng(0).integers(0, 200, size)
    return (values % 2 == 0) if dtype == "bool" else values.astype(dtype)


@pytest.mark.parametrize("dtype", ["float32", "float64", "int32", "int64", "uint8", "bool"])
def test_rows_outside_the_range_read_as_zeros(run, dtype):
    x = numbers(dtype, 4 * 3 * LANES)
    ranges = np.array([[0, 4], [1, 3], [2, 9], [-5, 1], [3, 3], [4, 9], [-9, 0]])
    y = np.ones((len(ranges), 2, 4, 2 * LANES), dtype)
    run(f"""
        for i in range({len(ranges)}):
            first = load_scalar(p2, i * 2)
            last = load_scalar(p2, i * 2 + 1)
            tile_store(p1, i * {16 * LANES}, {2 * LANES}, tile_load_rows(p0, 0, {3 * LANES}, 4, 2, first, last))
            tile_store(p1, i * {16 * LANES} + {8 * LANES}, {2 * LANES},
                       tile_load_rows(p0, 0, {3 * LANES}, 4, 2, first, last, {LANES + 3}))
        """, x, y, ranges)
    rows = x.reshape(4, 3 * LANES)[:, :2 * LANES]
    for i, (first, last) in enumerate(ranges):
        kept = ((np.arange(4) >= first) & (np.arange(4) < last))[:, None]
        np.testing.assert_array_equal(y[i, 0], np.where(kept, rows, 0))
        np.testing.assert_array_equal(y[i, 1], np.where(kept & (np.arange(2 * LANES) < LANES + 3), rows, 0))


@pytest.mark.parametrize("dtype", ["float32", "float64", "int64", "uint8"])
def test_elements_outside_the_range_read_as_zeros(run, dtype):
    x = numbers(dtype, 7 * LANES)
    ranges = np.array([[0, 2 * LANES], [3, LANES + 1], [-4, 2], [LANES, 99], [5, 5], [9, 4]])
    y = np.ones((len(ranges), 2, 2 * LANES), dtype)
    run(f"""
        for i in range({len(ranges)}):
            first = load_scalar(p2, i * 2)
            last = load_scalar(p2, i * 2 + 1)
            tile_store(p1, i * {4 * LANES}, {2 * LANES}, tile_load_lanes(p0, 5, {3 * LANES}, 2, 2, first, last))
        """, x, y, ranges)
    lanes = np.arange(2 * LANES)
    for i, (first, last) in enumerate(ranges):
        for r in range(2):
            wanted = x[5 + r * 3 * LANES:][:2 * LANES]
            np.testing.assert_array_equal(y[i, r], np.where((lanes >= first) & (lanes < last), wanted, 0))


def test_addresses_of_missing_rows_are_not_read(run):
    """The rows before `first` would lie gigabytes before the operand."""
    x, y = numbers("float32", LANES), np.ones(3 * LANES, "float32")
    run(f"tile_store(p1, 0, {LANES}, tile_load_rows(p0, {-2 * 2**33}, {2**33}, 3, 1, 2, 3))", x, y)
    np.testing.assert_array_equal(y, np.concatenate([np.zeros(2 * LANES, "float32"), x]))


@pytest.mark.parametrize("dtype", ["float32", "int64", "uint8"])
def test_only_rows_before_the_last_are_stored(run, dtype):
    x, y = numbers(dtype, 3 * LANES), np.full((2, 3, LANES), 7, dtype)
    run(f"""
        value = tile_load(p0, 0, {LANES}, 3, 1)
        tile_store_rows(p1, 0, {LANES}, value, 2)
        tile_store_rows(p1, {3 * LANES}, {LANES}, value, 1, 2)
        """, x, y)
    rows, kept = x.reshape(3, LANES), np.arange(3)[:, None]
    np.testing.assert_array_equal(y[0], np.where(kept < 2, rows, 7))
    np.testing.assert_array_equal(y[1], np.where((kept < 1) & (np.arange(LANES) < 2), rows, 7))


@pytest.mark.parametrize("dtype", ["float32", "float64", "int32", "int64", "uint8", "bool"])
def test_transpose(run, dtype):
    x, y = numbers(dtype, LANES * LANES), np.zeros(LANES * LANES, dtype)
    run(f"tile_store(p1, 0, {LANES}, tile_transpose(tile_load(p0, 0, {LANES}, {LANES}, 1)))", x, y)
    np.testing.assert_array_equal(y.reshape(LANES, LANES), x.reshape(LANES, LANES).T)


@pytest.mark.parametrize("count", [0, 1, 2, LANES - 1])
@pytest.mark.parametrize("store", ["tile_store_masked(p1, 0, {width}, {value}, {count})",
                                   "tile_store_rows(p1, 0, {width}, {value}, 3, {count})"])  # fmt: skip
def test_constant_counts_of_narrow_elements(run, store, count):
    """Bytes are held in 32 bits; a store of one of them must not write the bytes behind it."""
    x, width = numbers("uint8", LANES * LANES), LANES + 9
    y = np.full((LANES, width), 7, "uint8")
    value = f"tile_transpose(tile_load(p0, 0, {LANES}, {LANES}, 1))"
    run(store.format(width=width, value=value, count=count), x, y)
    expected, rows = np.full((LANES, width), 7, "uint8"), 3 if "rows" in store else LANES
    expected[:rows, :count] = x.reshape(LANES, LANES).T[:rows, :count]
    np.testing.assert_array_equal(y, expected)


def test_only_square_tiles_are_transposed(run):
    with pytest.raises(CompileError, match="tile_transpose takes"):
        run("tile_store(p0, 0, 8, tile_transpose(tile_load(p0, 0, 8, 3, 1)))", np.zeros(99, "float32"))
