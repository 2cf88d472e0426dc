from __future__ import annotations

import numpy as np
import pytest

import graphc as gc
from graphc.errors import AttributeValueError, GradientError, ShapeError


def test_uniform_lies_in_its_range_and_depends_on_the_seed(compute) -> None:
    u, v = gc.random.uniform((1000,)), gc.random.uniform((1000,), low=-2, high=3)
    a, b = compute([u, v], {})
    assert a.dtype == np.float32 and 0 <= a.min() < 0.01 and 0.99 < a.max() < 1
    assert -2 <= b.min() < -1.95 and 2.95 < b.max() < 3
    assert abs(np.corrcoef(a, b)[0, 1]) < 0.1  # two streams
    assert not np.array_equal(compute([u], {}, seed=1)[0], a)
    np.testing.assert_array_equal(compute([u], {})[0], a)


def test_bernoulli_of_a_number_and_of_a_symbol(compute) -> None:
    p = gc.input("p", ("N",), "float64")
    (a,) = compute([gc.random.bernoulli(0.3, (2000,))], {})
    (b,) = compute([gc.random.bernoulli(p)], {p: np.repeat([0.0, 0.25, 1.0], 1000)})
    assert a.dtype == b.dtype == np.float32 and set(np.unique(a)) == {0, 1}
    assert abs(a.mean() - 0.3) < 0.04
    np.testing.assert_allclose(b.reshape(3, 1000).mean(1), [0, 0.25, 1], atol=0.04)


def test_samples_have_no_gradient_by_the_probability(compute) -> None:
    p = gc.param("p", (3,), init=0.5)
    sample = gc.random.bernoulli(p)
    (g,) = compute([gc.grad(gc.sum(sample * p), p)], {})
    assert set(np.unique(g)) <= {0, 1}
    with pytest.raises(GradientError, match="depends on p only through"):
        gc.grad(gc.sum(sample), p)


def test_shapes_may_hold_symbols_and_must_be_given() -> None:
    x = gc.input("x", ("N", 4))
    assert gc.random.uniform(x.shape).shape == x.shape
    assert gc.random.bernoulli(0.5, ("N", 2)).shape[1] == 2
    with pytest.raises(ShapeError, match="needs a shape"):
        gc.random.bernoulli(0.5)
    with pytest.raises(ShapeError, match="x.shape"):
        gc.random.uniform(x)


def test_uniform_never_returns_its_upper_bound(compute) -> None:
    low, high = 1.0, float(np.nextafter(np.float32(1), np.float32(2)))  # nothing lies between, half would be rounded up
    (u,) = compute([gc.random.uniform((1000,), low, high)], {})
    assert set(u) == {np.float32(low)}
    (v,) = compute([gc.random.uniform((10,), 2.0, 2.0)], {})
    assert set(v) == {2.0}


@pytest.mark.parametrize(("low", "high"), [(1.0, 0.0), (0.0, float("nan")), (-1.0, gc.input("h", ()))])
def test_bounds_must_be_numbers_in_order(low, high) -> None:
    with pytest.raises(AttributeValueError, match="low must be a number of at most high"):
        gc.random.uniform((3,), low, high)
