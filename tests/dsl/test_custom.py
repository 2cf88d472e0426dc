"""Functions with a gradient of the user's own."""

from __future__ import annotations

import numpy as np
import pytest

import graphc as gc
from graphc.errors import GradientError

X = np.array([-2.0, 0.5, 3.0])


@pytest.fixture
def x():
    return gc.input("x", (3,), "float64")


def test_a_gradient_of_ones_own(x, compute) -> None:
    @gc.custom_vjp
    def straight_through(v):
        """1 or 0, with the gradient of the identity (Bengio, Léonard, Courville, 2013)."""
        return (v > 0).astype("float64")

    @straight_through.backward
    def _(g, y, v):
        return g

    assert straight_through.__name__ == "straight_through" and "identity" in straight_through.__doc__
    y = straight_through(x)
    value, g = compute([y, gc.grad(gc.sum(y * y * x), x)], {x: X})
    np.testing.assert_array_equal(value, X > 0)
    np.testing.assert_array_equal(g, 2 * (X > 0) * X + (X > 0))


def test_forward_mode_and_second_derivatives_follow_the_rule(x, compute) -> None:
    cube = gc.custom_vjp(lambda v: v * v * v, lambda g, y, v: 3.0 * g * v * v)
    y = cube(x)
    first = gc.grad(gc.sum(y), x)
    asked = [first, gc.grad(gc.sum(first), x), gc.jvp(y, x, 2.0), gc.jvp(first, x, 1.0), gc.jacobian(y, x)]
    g, h, t, tg, j = compute(asked, {x: X})
    np.testing.assert_allclose(g, 3 * X**2)
    np.testing.assert_allclose(h, 6 * X)
    np.testing.assert_allclose(t, 6 * X**2)
    np.testing.assert_allclose(tg, 6 * X)
    np.testing.assert_allclose(j, np.diag(3 * X**2))
    assert gc.check_gradients(y, [x], {x: X}, order=2) < 1e-6


def test_several_operands_results_and_options(x, compute) -> None:
    @gc.custom_vjp
    def sum_and_difference(a, b, scale=1.0):
        return scale * (a + b), a - b

    @sum_and_difference.backward
    def _(g, y, a, b, scale=1.0):
        total, difference = g
        assert len(y) == 2
        return scale * total + difference, None

    z = gc.input("z", (3,), "float64")
    s, d = sum_and_difference(x, z, scale=3.0)
    loss = gc.sum(s * s) + gc.sum(d * z)
    gx, gz = compute([*gc.grad(loss, [x, z])], {x: X, z: X[::-1]})
    np.testing.assert_allclose(gx, 3 * 2 * 3 * (X + X[::-1]) + X[::-1])
    np.testing.assert_allclose(gz, X - X[::-1])


def test_unused_results_have_zero_cotangents(x, compute) -> None:
    pair = gc.custom_vjp(lambda v: (v, 2.0 * v), lambda g, y, v: g[0] + 10.0 * g[1])
    first, _ = pair(x)
    np.testing.assert_array_equal(compute([gc.grad(gc.sum(first), x)], {x: X})[0], np.ones(3))


def test_what_is_closed_over_is_constant(x, compute) -> None:
    """Also a random sample, which is the same in both directions."""
    w = gc.param("w", (3,), dtype="float64", init=[1.0, 2.0, 3.0])
    noise = gc.random.uniform((3,)).astype("float64")
    noisy = gc.custom_vjp(lambda v: v * noise, lambda g, y, v: g * noise * w)
    y = noisy(x)
    value, g = compute([y, gc.grad(gc.sum(y), x)], {x: X})
    np.testing.assert_allclose(g, value / X * w.value, rtol=1e-12)
    with pytest.raises(GradientError, match="depends on w only through stop_gradient"):
        gc.grad(gc.sum(gc.custom_vjp(lambda v: v * w, lambda g, y, v: g * w)(x)), w)


def test_in_compiled_programs_with_batches() -> None:
    bounded = gc.custom_vjp(lambda v: v, lambda g, y, v: gc.clip(g, -1.0, 1.0))
    x = gc.input("x", ("N",))
    step = gc.compile([x], [gc.grad(gc.sum(bounded(x) ** 2), x)])
    for rows in (4, 3):
        at = np.linspace(-1, 1, rows).astype(np.float32)
        np.testing.assert_allclose(step(at)[0], np.clip(2 * at, -1, 1), rtol=1e-6)
    with pytest.raises(GradientError, match="not linear in the cotangent"):
        gc.compile([x], [gc.jvp(bounded(x), x, 1.0)], dims={"N": 2})


@pytest.mark.parametrize(
    ("forward", "backward", "words"),
    [
        (lambda v: v, lambda g, y, v: gc.sum(g), ["gives", "f64[]", "argument 0, which is f64[3]"]),
        (lambda v: v, lambda g, y, v: (g, g), ["one cotangent for each of its 1 positional", "got 2"]),
        (lambda v: v, lambda g, y, v: 3.0, ["gives float for argument 0"]),
        (lambda v: v > 0, lambda g, y, v: g, ["must return floating symbols", "bool"]),
        (lambda v: 1.0, lambda g, y, v: g, ["must return floating symbols", "float"]),
        (lambda v: v, lambda g, v: g, ["takes cotangents, results and operands", "called with 3 arguments: too many"]),
        (lambda v: v, None, ["has no gradient yet", ".backward"]),
    ],
)
def test_rules_that_do_not_fit(forward, backward, words, x) -> None:
    with pytest.raises(GradientError) as caught:
        gc.custom_vjp(forward, backward)(x)
    for word in words:
        assert word in str(caught.value)


def test_arguments_that_are_no_floating_symbols(x) -> None:
    scaled = gc.custom_vjp(lambda v, k: v * k, lambda g, y, v, k: (g * k, g))
    with pytest.raises(GradientError, match="argument 1 .* its cotangent is None"):
        scaled(x, 2.0)
    with pytest.raises(GradientError, match="no floating symbol as positional argument"):
        scaled(3.0, 2.0)
