"""vjp, jvp, hvp, jacobian and hessian as users write them."""

from __future__ import annotations

import numpy as np
import pytest

import graphc as gc
from graphc.errors import DTypeError, GradientError, ShapeError

X = np.linspace(-1, 1, 6).reshape(2, 3)
W0 = np.array([[0.5, -1.0], [0.25, 2.0], [-0.75, 0.1]])


@pytest.fixture
def x():
    return gc.input("x", (2, 3), "float64")


@pytest.fixture
def w():
    return gc.param("w", (3, 2), dtype="float64", init=W0)


def test_results_are_shaped_as_asked(x, w) -> None:
    y = gc.tanh(x @ w)
    loss = gc.sum(y)
    assert isinstance(gc.vjp(y, x, np.ones((2, 2))), gc.Symbol)
    assert [s.shape for s in gc.vjp([y, loss], [x, w], [1.0, 1.0])] == [(2, 3), (3, 2)]
    assert [s.shape for s in gc.jvp([y, loss], x, X)] == [(2, 2), ()]
    assert gc.jvp(y, [x, w], [X, W0]).shape == (2, 2)
    assert [s.shape for s in gc.hvp(loss, [w], [W0])] == [(3, 2)]
    assert gc.jacobian(y, w).shape == (2, 2, 3, 2)
    assert gc.hessian(loss, w).shape == (3, 2, 3, 2)
    blocks = gc.hessian(loss, [w, x])
    assert [[b.shape for b in row] for row in blocks] == [[(3, 2, 3, 2), (3, 2, 2, 3)], [(2, 3, 3, 2), (2, 3, 2, 3)]]
    assert gc.vjp(y, [], 1.0) == [] and gc.hvp(loss, [], []) == [] and gc.jacobian(y, []) == []


def test_products_agree_with_jacobian_and_hessian(x, w, compute) -> None:
    y = gc.tanh(x @ w)
    loss = gc.sum(gc.exp(y) * y)
    u, t = np.arange(4.0).reshape(2, 2), np.cos(np.arange(6.0)).reshape(3, 2)
    asked = [gc.jacobian(y, w), gc.vjp(y, w, u), gc.jvp(y, w, t), gc.hessian(loss, w), gc.hvp(loss, w, t)]
    j, pulled, pushed, h, ht = compute(asked, {x: X})
    np.testing.assert_allclose(np.einsum("nk,nkij->ij", u, j), pulled, rtol=1e-12)
    np.testing.assert_allclose(np.einsum("nkij,ij->nk", j, t), pushed, rtol=1e-12)
    np.testing.assert_allclose(np.einsum("ijkl,kl->ij", h, t), ht, rtol=1e-12)
    np.testing.assert_allclose(h, h.transpose(2, 3, 0, 1), rtol=1e-10, atol=1e-13)


def test_compiled_programs_agree_with_the_interpreter(compute) -> None:
    x = gc.input("x", (4, 3))
    w = gc.param("w", (3, 2), init=W0)
    loss = gc.mean(gc.softplus(x @ w))
    asked = [gc.jvp(loss, [w], [1.0]), gc.hvp(loss, w, 0.5), gc.hessian(loss, w), gc.jacobian(gc.tanh(x @ w), w)]
    at = np.sin(np.arange(12.0)).reshape(4, 3).astype(np.float32)
    for found, expected in zip(gc.compile([x], asked)(at), compute(asked, {x: at}), strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)


def test_vectors_may_be_symbols_and_depend_on_the_graph(x, w, compute) -> None:
    loss = gc.sum(gc.tanh(x @ w))
    g = gc.grad(loss, w)
    along, squared = compute([gc.jvp(loss, w, g), gc.sum(g * g)], {x: X})
    np.testing.assert_allclose(along, squared, rtol=1e-12)


def test_a_batch_dimension_stays_a_symbol() -> None:
    x = gc.input("x", ("N", 3))
    w = gc.param("w", (3,), init=[1.0, -2.0, 0.5])
    y = gc.exp(x @ w)
    step = gc.compile([x], [gc.jvp(y, w, 1.0), gc.vjp(y, x, 1.0)])
    for rows in (5, 2):
        at = np.full((rows, 3), 0.25, np.float32)
        pushed, pulled = step(at)
        np.testing.assert_allclose(pushed, 0.75 * np.exp(at @ w.value), rtol=1e-5)
        np.testing.assert_allclose(pulled, np.exp(at @ w.value)[:, None] * w.value, rtol=1e-5)


def test_declaring_loads_no_autodiff() -> None:
    import subprocess
    import sys

    code = (
        "import sys, graphc as gc; x = gc.input('x', (2,)); y = gc.exp(x); gc.jvp(y, x, 1.0); gc.vjp(y, x, 1.0); "
        "gc.hvp(gc.sum(y), x, 1.0); gc.hessian(gc.sum(y), x); gc.custom_vjp(lambda x: x, lambda g, y, x: g)(x); "
        "print([m for m in sys.modules if m.startswith(('graphc.autodiff', 'sympy', 'numba'))])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize(
    ("declare", "error", "words"),
    [
        (lambda x, w: gc.jvp(x @ w, w, X), GradientError, ["jvp: the tangent of", "f64[3,2]", "f64[2,3]"]),
        (lambda x, w: gc.jvp(x @ w, [w], []), GradientError, ["1 tangents are needed", "got 0"]),
        (lambda x, w: gc.jvp(x @ w, [], []), GradientError, ["wrt is empty"]),
        (lambda x, w: gc.jvp(gc.sum(x), w, W0), GradientError, ["jvp: the output", "does not depend on w"]),
        (lambda x, w: gc.jvp(3.0, w, W0), GradientError, ["jvp: the output must be", "got float"]),
        (lambda x, w: gc.jvp([], w, W0), GradientError, ["no outputs"]),
        (lambda x, w: gc.vjp(x @ w, w, np.ones(3)), GradientError, ["vjp: the cotangent of", "f64[3]"]),
        (lambda x, w: gc.vjp(x @ w, gc.argmax(x, 1), 1.0), GradientError, ["not floating"]),
        (lambda x, w: gc.vjp(x > 0, x, 1.0), GradientError, ["vjp: the output must be a float"]),
        (lambda x, w: gc.vjp(gc.stop_gradient(x), x, 1.0), GradientError, ["only through stop_gradient"]),
        (lambda x, w: gc.hvp(x @ w, w, W0), GradientError, ["hvp: the loss must be a scalar"]),
        (lambda x, w: gc.hessian(x @ w, w), GradientError, ["hessian: the loss must be a scalar"]),
        (lambda x, w: gc.jacobian(gc.mean(x), w), GradientError, ["jacobian: the output", "does not depend on w"]),
        (lambda x, w: gc.jacobian(gc.input("n", ("N",)), w), GradientError, ["does not depend"]),
        (lambda x, w: gc.vjp(x @ w, w, ["a"]), DTypeError, ["cannot make a constant"]),
    ],
)  # fmt: skip
def test_derivatives_that_do_not_exist(declare, error, words, x, w) -> None:
    with pytest.raises(error) as caught:
        declare(x, w)
    for word in words:
        assert word in str(caught.value)


def test_jacobians_need_sizes() -> None:
    n = gc.input("n", ("N", 2))
    with pytest.raises(ShapeError, match=r"(?s)f32\[N,2\]; declare integer sizes.*test_derivatives.py"):
        gc.jacobian(gc.exp(n), n)


def test_check_gradients_of_several_orders_and_outputs_of_any_shape(x, w) -> None:
    y = gc.tanh(x @ w)
    at = {x: X}
    assert gc.check_gradients(y, [x, w], at) < 1e-6
    assert gc.check_gradients(y, [x, w], at, order=2) < 1e-6
    assert gc.check_gradients(gc.jvp(y, w, W0), [x, w], at, order=2) < 1e-6
    assert gc.check_gradients(gc.hvp(gc.sum(y), w, W0), [w], at) < 1e-6
