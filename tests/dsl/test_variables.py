from __future__ import annotations

import copy
import pickle

import numpy as np
import pytest

import graphc as gc
from graphc import nn
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


@pytest.mark.parametrize("shape", [(2, 3), (), (0, 3)])
def test_the_live_elements_cannot_be_written_unnoticed(shape: tuple[int, ...]) -> None:
    w = gc.param("w", shape, init=1.0)
    for array in (w.array, w.array.reshape(-1), w.array[...]):
        with pytest.raises(ValueError, match="read-only"):
            array[...] = 2
        with pytest.raises(ValueError, match="WRITEABLE"):
            array.flags.writeable = True
    assert w.array.shape == shape and (w.value == 1).all() and w.version == 0


def test_every_write_is_counted() -> None:
    w = gc.param("w", (2,), init=1.0)
    assert w.version == 0 and not w.initialised
    w.initialise()
    assert w.version == 0
    w.value = [2, 3]
    w.reset()
    w.elements.write(5)
    assert w.version == 3 and w.array.tolist() == [5, 5]
    step = gc.compile([], [w.sum()], updates={w: w + 1}, cache=False)
    for _ in range(2):
        step()
    assert w.version == 5 and w.array.tolist() == [7, 7]
    step.profile(repeats=2)  # puts the elements back
    assert w.version == 10 and w.array.tolist() == [7, 7]
    assert gc.param("v", (2,)).version == 0


def test_value_is_a_copy_and_assignment_counts_versions() -> None:
    w = gc.param("w", (2,), init=[1.0, 2.0])
    copied = w.value
    with pytest.raises(ValueError, match="read-only"):
        copied[:] = 0
    with pytest.raises(ValueError, match="read-only"):
        w.value[0] += 1
    assert w.value[0] == 1 and w.version == 0
    w.value = np.array([3.0, 4.0])  # float64 is a safe cast
    assert w.version == 1 and w.value.tolist() == [3, 4]


def test_elements_and_names_that_are_no_shape_or_initialiser() -> None:
    with pytest.raises(ShapeError, match=r"'w': the shape must be a tuple, got an array of float64 \[2,3\]; .* init="):
        gc.param("w", np.ones((2, 3)))
    with pytest.raises(InputError, match=r"init='xavier' is no initialiser; give one of gc.init"):
        gc.param("w", (2, 3), init="xavier")
    assert gc.param("w", np.array([2, 3])).shape == (2, 3)


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


def test_equal_layers_without_a_parent_start_differently() -> None:
    x = gc.input("x", (1, 4))
    a, b = nn.Linear(4, 4), nn.Linear(4, 4)
    gc.compile([x], [a(x), b(x)], seed=3)
    assert not np.array_equal(a.weight.value, b.weight.value)
    c, d = nn.Linear(4, 4), nn.Linear(4, 4)
    c.predict(np.ones((1, 4)))  # so that it has values
    model = nn.Sequential(c, d, nn.Linear(4, 4))
    starts = [model.state_dict()[f"{k}.weight"] for k in range(3)]
    assert not any(np.array_equal(starts[i], starts[k]) for i, k in ((0, 1), (0, 2), (1, 2)))


def test_the_start_of_a_model_depends_on_seed_and_paths_alone() -> None:
    def start(layers: int) -> np.ndarray:
        for _ in range(layers):
            nn.Linear(4, 4).weight.value  # noqa: B018
        model = nn.Sequential(nn.Linear(4, 4))
        return model.state_dict()["0.weight"]

    np.testing.assert_array_equal(start(0), start(3))
    np.testing.assert_array_equal(start(0), gc.param("0.weight", (4, 4), nn.Linear(4, 4).weight._initialiser).value)
    one, other = nn.Linear(4, 4), nn.Linear(4, 4)
    one.compile(seed=5), other.compile(seed=5)  # each a model itself
    np.testing.assert_array_equal(one.weight.value, other.weight.value)


def test_a_pickled_variable_has_the_same_elements_and_aligned_memory() -> None:
    made = [gc.init.glorot_uniform(), gc.init.glorot_normal(), gc.init.he_uniform(), gc.init.he_normal(),
            gc.init.kaiming_uniform(2.0), gc.init.normal(), gc.init.uniform(), gc.init.constant(3)]  # fmt: skip
    for kind in (gc.param, gc.state):
        variables = [kind(f"v{k}", (3, 5), init=init, seed=k) for k, init in enumerate(made)]
        fresh = pickle.loads(pickle.dumps(variables))  # before they have elements
        for v, w in zip(variables, fresh, strict=True):
            np.testing.assert_array_equal(v.value, w.value)
        variables[0].value = np.ones((3, 5))
        v, again = pickle.loads(pickle.dumps([variables[0]] * 2))
        assert v is again and type(v) is type(variables[0]) and v.array.ctypes.data % 64 == 0
        assert (v.name, v.seed, v.version) == ("v0", 0, 1) and v.value.all()
        v.reset()
        np.testing.assert_array_equal(v.value, fresh[0].value)
