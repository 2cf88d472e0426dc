"""Loads, stores, gathers and broadcasts of tiles, for every dtype, and never a touch of memory behind a count."""

from __future__ import annotations

import ctypes
import mmap

import numpy as np
import pytest

from graphc.codegen.host import host
from graphc.errors import CompileError

LANES = host().lanes
DTYPES = ("float32", "float64", "int32", "int64", "uint8", "bool")


def numbers(dtype: str, size: int) -> np.ndarray:
    values = np.random.default_rng(0).integers(0, 200, size)
    return (values % 2 == 0) if dtype == "bool" else values.astype(dtype)


@pytest.mark.parametrize("dtype", DTYPES)
def test_rows_keep_their_strides(run, dtype):
    x, y = numbers(dtype, 1000), np.zeros(1000, dtype)
    run("tile_store(p1, 5, 300, tile_load(p0, 3, 200, 3, 2))", x, y)
    expected = np.zeros(1000, dtype)
    for r in range(3):
        expected[5 + r * 300:][:2 * LANES] = x[3 + r * 200:][:2 * LANES]
    np.testing.assert_array_equal(y, expected)


@pytest.mark.parametrize("dtype", DTYPES)
def test_masks_read_zeros_and_write_nothing_behind_the_count(run, dtype):
    counts = [-3, 0, 1, LANES - 1, LANES, LANES + 1, 2 * LANES, 2 * LANES + 7, 2 ** 40]
    x = numbers(dtype, 2 * LANES) if dtype != "bool" else np.ones(2 * LANES, bool)
    size = 2 * LANES
    y = np.ones((len(counts), 2, size), dtype)
    run(f"""
        for i in range({len(counts)}):
            count = load_scalar(p2, i)
            tile_store(p1, i * {2 * size}, 0, tile_load_masked(p0, 0, 0, 1, 2, count))
            tile_store_masked(p1, i * {2 * size} + {size}, 0, tile_load(p0, 0, 0, 1, 2), count)
        """, x, y, np.array(counts))
    for i, count in enumerate(counts):
        valid = np.arange(size) < count
        np.testing.assert_array_equal(y[i, 0], np.where(valid, x, 0))
        np.testing.assert_array_equal(y[i, 1], np.where(valid, x, 1))


@pytest.mark.parametrize("load", ["tile_load_masked(p0, 0, 0, 1, 1, 3)", "tile_load_strided(p0, 0, 0, 1, 1, 1, 3)",
                                  "tile_load_lanes(p0, 0, 0, 1, 1, 0, 3)",
                                  "tile_gather(p0, tile_iota(0, 1, 1), 3)"])
@pytest.mark.parametrize("dtype", ["float32", "uint8"])
def test_masked_loads_do_not_touch_the_next_page(run, load, dtype):
    if not hasattr(mmap, "PROT_NONE") and not hasattr(ctypes.CDLL(None), "mprotect"):
        pytest.skip("this system has no mprotect, which makes a page unreadable")
    memory = mmap.mmap(-1, 2 * mmap.PAGESIZE)
    bytes_ = np.frombuffer(memory, np.uint8)
    library = ctypes.CDLL(None, use_errno=True)
    second = ctypes.c_void_p(bytes_.ctypes.data + mmap.PAGESIZE)
    assert library.mprotect(second, ctypes.c_size_t(mmap.PAGESIZE), 0) == 0
    try:
        x = bytes_[:mmap.PAGESIZE].view(dtype)[-3:]
        x[:] = [1, 2, 3]
        y = np.full(LANES, 9, "int32" if dtype == "uint8" else dtype)
        run(f"tile_store(p1, 0, 0, {load})", x, y)
        np.testing.assert_array_equal(y, [1, 2, 3] + [0] * (LANES - 3))
    finally:
        assert library.mprotect(second, ctypes.c_size_t(mmap.PAGESIZE), 3) == 0


@pytest.mark.parametrize("dtype", DTYPES)
def test_strided_loads_and_stores(run, dtype):
    x, y, z = numbers(dtype, 4000), np.zeros(2 * 2 * LANES, dtype), np.zeros(4000, dtype)
    run(f"""
        a = tile_load_strided(p0, 2, 7, 30, 2, 2)
        tile_store(p1, 0, {2 * LANES}, a)
        tile_store_strided(p2, 1, 5, 40, a, {LANES + 2})
        """, x, y, z)
    index = 2 + np.arange(2)[:, None] * 7 + np.arange(2 * LANES) * 30
    np.testing.assert_array_equal(y.reshape(2, -1), x[index])
    expected = np.zeros(4000, dtype)
    expected[1 + np.arange(2)[:, None] * 5 + np.arange(LANES + 2) * 40] = x[index][:, :LANES + 2]
    np.testing.assert_array_equal(z, expected)


@pytest.mark.parametrize("index", ["int32", "int64"])
def test_gather(run, index):
    x, y = numbers("float32", 500), np.zeros(4 * LANES, np.float32)
    at = np.random.default_rng(1).integers(0, 500, 4 * LANES).astype(index)
    run(f"""
        tile_store(p2, 0, {2 * LANES}, tile_gather(p0, tile_load(p1, 0, {2 * LANES}, 2, 2), {LANES + 3}))
        """, x, at, y)
    expected = x[at].reshape(2, -1)
    expected[:, LANES + 3:] = 0
    np.testing.assert_array_equal(y.reshape(2, -1), expected)


def test_broadcasts_iota_and_rows(run):
    x, y = numbers("float32", 100), np.zeros((5, 2, LANES), np.float32)
    i64, i32 = np.zeros(2 * LANES, np.int64), np.zeros(LANES, np.int32)
    run(f"""
        column = tile_broadcast_column(p0, 3, 10, 2, 1)
        tile_store(p1, 0, {LANES}, column)
        tile_store(p1, {2 * LANES}, 0, tile_broadcast(f32(2.5), 1, 2))
        tile_store(p1, {4 * LANES}, {LANES}, tile_row(column, 1) + tile_zeros_f32(2, 1))
        tile_store(p2, 0, 0, tile_iota(7, 1, 2))
        tile_store(p3, 0, 0, tile_iota(i32(-7), 1, 1))
        """, x, y, i64, i32)
    np.testing.assert_array_equal(y[0], np.repeat(x[[3, 13]], LANES).reshape(2, LANES))
    assert (y[1] == 2.5).all() and (y[2] == x[13]).all() and (y[3:] == 0).all()
    np.testing.assert_array_equal(i64, 7 + np.arange(2 * LANES))
    np.testing.assert_array_equal(i32, -7 + np.arange(LANES))


def test_some_rows_of_a_tile(run):
    x, y = numbers("float32", 4 * LANES), np.zeros((2, LANES), np.float32)
    run(f"tile_store(p1, 0, {LANES}, tile_rows(tile_load(p0, 0, {LANES}, 4, 1), 1, 2))", x, y)
    np.testing.assert_array_equal(y, x.reshape(4, LANES)[1:3])


def test_scalars_convert_to_the_dtype_of_the_pointer(run):
    f, i, u, b = (np.array([0, 0], d) for d in ("float32", "int32", "uint8", "bool"))
    u[0], b[0] = 200, True
    run("""
        store_scalar(p0, 0, load_scalar(p2, 0) + 1)
        store_scalar(p0, 1, load_scalar(offset_ptr(p3, 0), 0))
        store_scalar(p1, 0, f32(-3.7))
        store_scalar(p2, 1, 7)
        store_scalar(p3, 1, f32(0.5))
        """, f, i, u, b)
    assert f.tolist() == [201, 1] and i.tolist() == [-3, 0] and u.tolist() == [200, 7] and b.tolist() == [True, True]


def test_extent_is_read_at_run_time(run):
    n, y = np.array([5]), np.zeros(10, np.int64)
    run("for i in range(extent(args, 0)):\n    store_scalar(p1, i, i + 1)", n, y)
    assert y.tolist() == [1, 2, 3, 4, 5, 0, 0, 0, 0, 0]


@pytest.mark.parametrize(("body", "message"), [
    ("tile_store(p0, 0, 0, tile_load(p0, 0, 0, 1, 1 + thread))", "vectors must be a positive integer literal"),
    ("tile_store(p0, 0, 0, tile_zeros_f64(1, 1))", "the stored value must be a tile of float32"),
    ("tile_store(args, 0, 0, tile_gather(p0, tile_zeros_f32(1, 1)))", "the index of tile_gather"),
    ("tile_load(thread, 0, 0, 1, 1)", "expected a typed pointer"),
    ("tile_row(tile_zeros_f32(2, 1), 2)", "literal row"),
    ("tile_rows(tile_zeros_f32(4, 1), 2, 3)", "takes 3 rows of .* from a literal row on"),
    ("tile_rows(tile_zeros_f32(4, 1), thread, 3)", "from a literal row on"),
])
def test_misuse_says_what_is_wrong(run, body, message):
    with pytest.raises(CompileError, match=message):
        run(body, np.zeros(100, np.float32))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("stride", [2, 3, 4])
def test_near_strides_pick_elements_of_whole_vectors(run, dtype, stride):
    counts = np.array([-1, 0, 1, LANES - 1, LANES, LANES + 3, 2 * LANES])
    x, y = numbers(dtype, 200 * stride), np.ones((len(counts) + 1, 2, 2 * LANES), dtype)
    run(f"""
        for i in range({len(counts)}):
            tile_store(p1, i * {4 * LANES}, {2 * LANES},
                       tile_load_strided(p0, 3, 70, {stride}, 2, 2, load_scalar(p2, i)))
        tile_store(p1, {len(counts) * 4 * LANES}, {2 * LANES}, tile_load_strided(p0, 3, 70, {stride}, 2, 2))
        """, x, y, counts)
    for i, count in enumerate([*counts, 2 * LANES]):
        for r in range(2):
            wanted = x[3 + r * 70:][:2 * LANES * stride:stride]
            np.testing.assert_array_equal(y[i, r], np.where(np.arange(2 * LANES) < count, wanted, 0))
