"""Random tiles and scalars against the reference, bit for bit."""

from __future__ import annotations

import numpy as np
import pytest

from graphc.codegen.host import host
from graphc.kernel import philox

LANES = host().lanes


@pytest.mark.parametrize("seed", [0, 12345678901234567, -1])
def test_tiles_and_scalars_have_the_bits_of_the_reference(run, seed):
    elements = np.concatenate([np.arange(256), 2 ** 31 - 8 + np.arange(16), 2 ** 32 - 16 + np.arange(16)])
    f, d, s = np.zeros(len(elements), np.float32), np.zeros(len(elements)), np.zeros(len(elements), np.float32)
    run(f"""
        for i in range(0, {len(elements)}, {LANES}):
            e = tile_load(p3, i, 0, 1, 1)
            tile_store(p0, i, 0, tile_philox_uniform_f32({seed}, 7, 5000000000, 3, e))
            tile_store(p1, i, 0, tile_philox_uniform_f64({seed}, 7, 5000000000, 3, e))
        for i in range({len(elements)}):
            store_scalar(p2, i, tile_philox_uniform_f32({seed}, 7, 5000000000, 3, load_scalar(p3, i)))
        """, f, d, s, elements)
    expected = philox.uniform(seed, 7, 5000000000, 3, elements)
    np.testing.assert_array_equal(f, expected)
    np.testing.assert_array_equal(s, expected)
    np.testing.assert_array_equal(d, philox.uniform(seed, 7, 5000000000, 3, elements, np.float64))


def test_a_block_of_64_has_the_same_bits(run):
    y = np.zeros(640, np.float32)
    run("""
        for i in range(0, 640, 64):
            tile_store(p0, i, 0, tile_philox_block_f32(99, 1, 2, 3, i))
        """, y)
    np.testing.assert_array_equal(y, philox.uniform(99, 1, 2, 3, np.arange(640)))


def test_narrow_indices(run):
    y = np.zeros(LANES, np.float32)
    run("tile_store(p0, 0, 0, tile_philox_uniform_f32(99, 1, 2, 3, tile_iota(i32(100), 1, 1)))", y)
    np.testing.assert_array_equal(y, philox.uniform(99, 1, 2, 3, 100 + np.arange(LANES)))
