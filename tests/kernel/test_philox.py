"""The reference random bits: the published known answers, the recipe's layout, and that the numbers look uniform."""

from __future__ import annotations

import numpy as np
import pytest

from graphc.kernel.philox import philox4x32, uniform


@pytest.mark.parametrize(("counter", "key", "expected"), [  # kat_vectors of the Random123 library
    ([0] * 4, [0] * 2, [0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8]),
    ([0xFFFFFFFF] * 4, [0xFFFFFFFF] * 2, [0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD]),
    ([0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344], [0xA4093822, 0x299F31D0],
     [0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1]),
])
def test_known_answers(counter, key, expected):
    assert philox4x32(np.array(counter, np.uint32), np.array(key, np.uint32)).tolist() == expected


def test_counters_and_keys_broadcast():
    counters = np.arange(24, dtype=np.uint32).reshape(3, 2, 4)
    keys = np.arange(4, dtype=np.uint32).reshape(2, 2)
    words = philox4x32(counters, keys)
    assert words.shape == (3, 2, 4) and words.dtype == np.uint32
    np.testing.assert_array_equal(words[2, 1], philox4x32(counters[2, 1], keys[1]))


def test_the_recipe_of_float32():
    seed, stream, step, loop = (5 << 32) + 9, 3, 17, 2
    for element in (0, 15, 16, 63, 64, 64 * 1000 + 37, 2 ** 34 - 1):
        block, word, lane = element // 64, element // 16 % 4, element % 16
        counter = np.array([16 * block + lane, stream, step, loop], np.uint32)
        expected = philox4x32(counter, np.array([9, 5], np.uint32))[word] >> 8
        assert uniform(seed, stream, step, loop, np.array(element)) == np.float32(expected / 2 ** 24)


def test_the_recipe_of_float64():
    words = philox4x32(np.array([11, 3, 17, 2], np.uint32), np.array([9, 0], np.uint32)).astype(int)
    expected = ((words[0] >> 5) * 2 ** 26 + (words[1] >> 6)) / 2 ** 53
    assert uniform(9, 3, 17, 2, np.array(11), np.float64) == expected


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_numbers_are_uniform_and_streams_unrelated(dtype):
    elements = np.arange(100_000)
    draws = [uniform(*names, elements, dtype) for names in
             ((0, 0, 0, 0), (1, 0, 0, 0), (0, 1, 0, 0), (0, 0, 1, 0), (0, 0, 0, 1), (1 << 32, 0, 0, 0))]
    for x in draws:
        assert x.dtype == dtype and x.min() >= 0 and x.max() < 1
        counts = np.histogram(x, 50, (0, 1))[0]
        assert ((counts - 2000) ** 2 / 2000).sum() < 100  # chi squared, 49 degrees of freedom: p = 2e-5
        assert abs(np.corrcoef(x[:-1], x[1:])[0, 1]) < 0.015
    correlations = np.corrcoef(np.array(draws, np.float64)) - np.eye(len(draws))
    assert np.abs(correlations).max() < 0.015


def test_only_the_named_element_matters():
    elements = np.random.default_rng(0).permutation(1000)
    np.testing.assert_array_equal(uniform(1, 2, 3, 4, elements), uniform(1, 2, 3, 4, np.arange(1000))[elements])


def test_bad_arguments():
    with pytest.raises(ValueError, match="float32 or float64"):
        uniform(0, 0, 0, 0, np.arange(3), np.int32)
    with pytest.raises(ValueError, match="element indices"):
        uniform(0, 0, 0, 0, np.array([-1]))
    with pytest.raises(ValueError, match="element indices"):
        uniform(0, 0, 0, 0, np.array([2 ** 34]))
    with pytest.raises(ValueError, match="counters"):
        philox4x32(np.zeros(3, np.uint32), np.zeros(2, np.uint32))
