from __future__ import annotations

import numpy as np
import pytest

import graphc as gc
from graphc.errors import GradientError, InputError

X = np.linspace(-1, 1, 6).reshape(2, 3)


@pytest.fixture
def x():
    return gc.input("x", (2, 3), "float64")


def test_one_symbol_gives_one_gradient_and_a_list_a_list(x, compute) -> None:
    w = gc.param("w", (3,), dtype="float64", init=[1.0, 2.0, 3.0])
    loss = gc.sum(x * x * w)
    single, both = gc.grad(loss, x), gc.grad(loss, [w, x])
    assert isinstance(both, list) and gc.grad(loss, []) == []
    value, again = gc.value_and_grad(loss, (w,))
    assert value is loss and isinstance(again, list)
    dx, dw, dx2 = compute([single, *both], {x: X})
    np.testing.assert_allclose(dx, 2 * X * w.value)
    np.testing.assert_allclose(dw, (X * X).sum(0))
    np.testing.assert_array_equal(dx, dx2)


def test_gradients_of_gradients_and_of_intermediate_results(x, compute) -> None:
    y = gc.tanh(x)
    loss = gc.sum(y * y)
    g = gc.grad(loss, x)
    (h,) = compute([gc.grad(gc.sum(g), x)], {x: X})
    t = np.tanh(X)
    np.testing.assert_allclose(h, 2 * (1 - t**2) ** 2 - 4 * t**2 * (1 - t**2), rtol=1e-12)
    np.testing.assert_allclose(compute([gc.grad(loss, y)], {x: X})[0], 2 * t)


def test_paths_through_truth_values_carry_nothing_but_are_no_error(x, compute) -> None:
    loss = gc.sum(gc.where(x > 0, x, 0) * (x > -0.5))
    np.testing.assert_array_equal(compute([gc.grad(loss, x)], {x: X})[0], X > 0)


def test_stop_gradient(x, compute) -> None:
    loss = gc.sum(gc.stop_gradient(x) * x)
    np.testing.assert_array_equal(compute([gc.grad(loss, x)], {x: X})[0], X)


@pytest.mark.parametrize(
    ("loss", "wrt", "words"),
    [
        (lambda x, w: x, lambda x, w: x, ["must be a scalar", "f64[2,3]", "sum or mean"]),
        (lambda x, w: gc.sum(x > 0), lambda x, w: x, ["float32 or float64", "test_transforms.py"]),
        (lambda x, w: gc.sum(x), lambda x, w: w, ["does not depend on w", "test_transforms.py"]),
        (lambda x, w: gc.sum(x), lambda x, w: [x, w], ["does not depend on w"]),
        (lambda x, w: gc.sum(x), lambda x, w: x * 2, ["does not depend on the f64[2,3]"]),
        (lambda x, w: gc.mean(gc.argmax(x, 1)), lambda x, w: x, ["argmax (its result is an index)", "stop_gradient"]),
        (lambda x, w: gc.sum(gc.stop_gradient(w)), lambda x, w: w, ["depends on w only through stop_gradient"]),
        (lambda x, w: gc.sum(x), lambda x, w: gc.input("i", (2,), "int32"), ["not floating", "input i"]),
        (lambda x, w: 3.0, lambda x, w: x, ["must be a symbol, got float"]),
        (lambda x, w: gc.sum(x), lambda x, w: ["x"], ["got str"]),
    ],
)  # fmt: skip
def test_gradients_that_do_not_exist(loss, wrt, words, x) -> None:
    w = gc.param("w", (3,), dtype="float64")
    with pytest.raises(GradientError) as caught:
        gc.grad(loss(x, w), wrt(x, w))
    for word in words:
        assert word in str(caught.value)


def test_an_op_without_gradient_on_the_way_is_named(x, monkeypatch) -> None:
    from dataclasses import replace

    from graphc.ir.op import OPS, NotDifferentiable

    monkeypatch.setitem(OPS, "tanh", replace(OPS["tanh"], gradient=NotDifferentiable("a test says so")))
    w = gc.param("w", (3,), dtype="float64")
    loss = gc.sum(gc.tanh(x) * w)
    assert gc.grad(loss, w).shape == (3,)  # the way to w does not pass it
    with pytest.raises(GradientError, match=r"tanh has no gradient \(a test says so\)(.|\n)*gc.stop_gradient"):
        gc.grad(loss, [w, x])
    assert gc.grad(gc.sum(gc.stop_gradient(gc.tanh(x)) * x), x).shape == (2, 3)


def test_check_gradients(x) -> None:
    w = gc.param("w", (3,), init=gc.init.normal())
    loss = gc.sum(gc.sigmoid(x.astype("float32") * w) * gc.random.uniform((2, 3)))
    assert gc.check_gradients(loss, [w], {x: X}) < 1e-6
    assert gc.check_gradients(gc.sum(gc.exp(x) * x), [x], {x: X}, order=2) < 1e-5
    with pytest.raises(GradientError, match="relative error"):  # a jump, which is no gradient
        gc.check_gradients(gc.sum(gc.sign(x) * x + gc.relu(x)), [x], {x: np.zeros((2, 3))})
    with pytest.raises(InputError, match="'x'"):
        gc.check_gradients(loss, [w], {})
    with pytest.raises(GradientError, match="no input, parameter or state"):
        gc.check_gradients(gc.sum(gc.exp(x)), [gc.exp(x)], {x: X})
