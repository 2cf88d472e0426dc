from __future__ import annotations

import copy

import numpy as np
import pytest

import graphc as gc
from graphc.errors import InputError, ShapeError, StateError


def test_a_parameter_owns_aligned_memory_for_life() -> None:
    w = gc.param("w", (3, 5))
    assert not w.initialised
    array = w.array
    assert w.initialised and array.ctypes.data % 64 == 0 and array.flags.c_contiguous and array.dtype == np.float32
    w.value = np.arange(15).reshape(3, 5)
    assert w.array is array and array[2, 4] == 14
    w.reset()
    assert w.array is array and array[2, 4] != 14


def test_value_is_a_copy_and_assignment_counts_versions() -> None:
    w = gc.param("w", (2,), init=[1.0, 2.0])
    copied = w.value
    copied[:] = 0
    assert w.value[0] == 1 and w.version == 0
    w.value = np.array([3.0, 4.0])  # float64 is a safe cast
    assert w.version == 1 and w.value.tolist() == [3, 4]


@pytest.mark.parametrize(
    ("dtype", "value", "words"),
    [
        ("float32", np.zeros(3), "shape [2], got an array of shape [3]"),
        ("float32", 1.0, "shape [2], got an array of shape []"),
        ("float32", np.zeros(2, complex), "complex128"),
        ("int32", np.zeros(2), "float64"),
        ("int32", np.array([0, 2**40]), "int64 that does not fit"),
        ("bool", np.array([0, 2]), "int64"),
        ("uint8", np.array([0, -1]), "uint8"),
    ],
)
def test_values_that_do_not_fit_leave_the_old_ones(dtype, value, words) -> None:
    s = gc.state("s", (2,), init=1, dtype=dtype)
    before = s.value
    with pytest.raises(StateError) as caught:
        s.value = value
    assert words in str(caught.value) and "s " in str(caught.value)
    np.testing.assert_array_equal(s.value, before)
    assert s.version == 0


def test_integers_that_fit_are_taken() -> None:
    s, flags = gc.state("s", (2,), dtype="int32"), gc.state("flags", (2,), dtype="bool")
    s.value = np.array([1, -5], np.int64)
    flags.value = [0, 1]
    assert s.value.tolist() == [1, -5] and flags.value.tolist() == [False, True]


def test_default_initial_values() -> None:
    assert gc.param("b", (10,)).value.sum() == 0
    assert gc.state("s", (3, 3)).value.sum() == 0
    assert gc.param("w", (30, 30)).value.std() == pytest.approx(np.sqrt(2 / 60), rel=0.1)
    rate = gc.state("lr", init=0.1)
    assert rate.shape == () and rate.value == np.float32(0.1)


def test_the_seed_of_the_first_user_counts_where_there_is_none() -> None:
    own, free = gc.param("w", (3, 3), seed=1), gc.param("w", (3, 3))
    own.initialise(7), free.initialise(7)
    np.testing.assert_array_equal(own.value, gc.param("w", (3, 3), seed=1).value)
    np.testing.assert_array_equal(free.value, gc.param("w", (3, 3), seed=7).value)
    free.initialise(8)
    np.testing.assert_array_equal(free.value, gc.param("w", (3, 3), seed=7).value)


def test_a_wrong_initial_array_is_an_error_at_first_use() -> None:
    with pytest.raises(StateError, match=r"w has shape \[3\], got an array of shape \[2\]"):
        gc.param("w", (3,), init=[1.0, 2.0]).value  # noqa: B018


def test_a_deep_copy_has_aligned_memory_of_its_own() -> None:
    w = gc.param("w", (7,), init=gc.init.normal())
    other = copy.deepcopy({"w": w})["w"]
    np.testing.assert_array_equal(other.value, w.value)
    other.value = np.zeros(7)
    assert w.value.any() and other.array.ctypes.data % 64 == 0 and other.ir is not w.ir


@pytest.mark.parametrize("name", ["", "a b", "%x", None, "x[0]"])
def test_names(name) -> None:
    with pytest.raises(InputError, match="no name for a tensor"):
        gc.input(name, (2,))


def test_reserved_name_and_symbolic_shapes() -> None:
    with pytest.raises(InputError, match="'rng' is taken"):
        gc.param("rng", (2,))
    with pytest.raises(ShapeError, match="must be integers"):
        gc.param("w", ("N", 2))
