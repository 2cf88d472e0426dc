"""Gradients that lecture slides state as formulas, against graphc's, at numbers that were worked out by hand or NumPy.

All in float64 on the reference interpreter; compiled programs are compared with it in other files.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pytest

import graphc as gc
from graphc.autodiff.expand import expand_derivatives
from graphc.dsl.collect import collect
from graphc.interpret import evaluate


def at(outputs: Sequence[gc.Symbol], inputs: Mapping[Any, Any]) -> list[np.ndarray]:
    declared = collect(list(inputs), outputs)
    arrays = {symbol.name: np.asarray(value, np.float64) for symbol, value in inputs.items()}
    return evaluate(expand_derivatives(declared.graph), arrays)


def vector(name: str, *shape: int) -> gc.Input:
    return gc.input(name, shape, "float64")


X, Y = np.array([0.5, -1.0, 2.0]), np.array([1.0, 0.25, -3.0])
W = np.array([[0.2, -0.4, 0.1], [0.7, 0.3, -0.6]])


def test_c_is_the_sum_of_x_y_plus_z() -> None:
    """c = sum(a + z), a = x y: dc/dx = y, dc/dy = x, dc/dz = 1, and dc/da = 1 of what lies between."""
    x, y, z = vector("x", 3), vector("y", 3), vector("z", 3)
    a = x * y
    c = gc.sum(a + z)
    value, dx, dy, dz, da = at([c, *gc.grad(c, [x, y, z, a])], {x: X, y: Y, z: [1.0, 2.0, 3.0]})
    assert value == (X * Y).sum() + 6
    np.testing.assert_array_equal(dx, Y)
    np.testing.assert_array_equal(dy, X)
    np.testing.assert_array_equal(dz, np.ones(3))
    np.testing.assert_array_equal(da, np.ones(3))


def test_tanh_prime_is_one_minus_tanh_squared() -> None:
    x = vector("x", 3)
    y = gc.tanh(x)
    first = gc.grad(gc.sum(y), x)
    second = gc.grad(gc.sum(first), x)
    third = gc.grad(gc.sum(second), x)
    t = np.tanh(X)
    for found, expected in zip(
        at([first, gc.jvp(y, x, 1.0), second, third], {x: X}),
        [1 - t**2, 1 - t**2, -2 * t * (1 - t**2), (1 - t**2) * (6 * t**2 - 2)],
        strict=True,
    ):
        np.testing.assert_allclose(found, expected, rtol=1e-13)


def test_sigmoid_prime_is_y_times_one_minus_y() -> None:
    x = vector("x", 3)
    y = 1 / (1 + np.exp(-X))
    np.testing.assert_allclose(at([gc.grad(gc.sum(gc.sigmoid(x)), x)], {x: X})[0], y * (1 - y), rtol=1e-13)


def test_a_layer_passes_v_x_transposed_and_w_transposed_v() -> None:
    """h = W x with the cotangent v: dL/dW = v x^T and dL/dx = W^T v; in forward mode the tangent is W dx + dW x."""
    x, w = vector("x", 3), vector("w", 2, 3)
    v, t = np.array([2.0, -5.0]), np.array([0.1, 0.2, -0.3])
    h = w @ x
    dw, dx = gc.vjp(h, [w, x], v)
    found = at([dw, dx, gc.jvp(h, [x, w], [t, W + 1])], {x: X, w: W})
    np.testing.assert_allclose(found[0], np.outer(v, X), rtol=1e-14)
    np.testing.assert_allclose(found[1], W.T @ v, rtol=1e-14)
    np.testing.assert_allclose(found[2], W @ t + (W + 1) @ X, rtol=1e-14)


def test_binary_cross_entropy() -> None:
    """By the prediction (y - t) / (y (1 - y)); through the sigmoid y - t is left."""
    y, t, z = vector("y", 3), vector("t", 3), vector("z", 3)
    loss = gc.sum(-t * gc.log(y) - (1.0 - t) * gc.log(1.0 - y))
    p, target = np.array([0.2, 0.9, 0.6]), np.array([0.0, 1.0, 1.0])
    (found,) = at([gc.grad(loss, y)], {y: p, t: target})
    np.testing.assert_allclose(found, (p - target) / (p * (1 - p)), rtol=1e-13)
    logits = np.log(p / (1 - p))
    loss = gc.binary_cross_entropy_with_logits(z, t, reduction="sum")
    (found,) = at([gc.grad(loss, z)], {z: logits, t: target})
    np.testing.assert_allclose(found, p - target, rtol=1e-12)


def test_the_delta_rule_of_an_output_neuron() -> None:
    """E = |y - d|^2 with y = f(s), s = W^T u: delta = 2 (y - d) f'(s) and dE/dW_ij = u_i delta_j."""
    u, w, d = vector("u", 3), vector("w", 3, 2), vector("d", 2)
    s = u @ w
    e = gc.sum((gc.tanh(s) - d) ** 2)
    target = np.array([0.3, -0.8])
    delta, dw = at([*gc.grad(e, [s, w])], {u: X, w: W.T, d: target})
    y = np.tanh(X @ W.T)
    np.testing.assert_allclose(delta, 2 * (y - target) * (1 - y**2), rtol=1e-13)
    np.testing.assert_allclose(dw, np.outer(X, delta), rtol=1e-13)


def test_the_delta_rule_of_a_hidden_neuron() -> None:
    """delta_j = f'(s_j) sum_k W_jk delta_k."""
    u, v, w, d = vector("u", 3), vector("v", 3, 2), vector("w", 2, 4), vector("d", 4)
    hidden = u @ v
    s = gc.sigmoid(hidden) @ w
    e = gc.sum((gc.sigmoid(s) - d) ** 2)
    second = np.array([[1.0, -0.5, 0.25, 2.0], [0.0, 0.75, -1.5, 0.5]])
    given = {u: X, v: W.T, w: second, d: np.array([0.0, 1.0, 0.5, 0.25])}
    delta_k, delta_j = at([*gc.grad(e, [s, hidden])], given)
    f = 1 / (1 + np.exp(-(X @ W.T)))
    np.testing.assert_allclose(delta_j, f * (1 - f) * (second @ delta_k), rtol=1e-12)


def test_squared_error_of_a_one_layer_net() -> None:
    """1/2 sum_m (s(w x_m) - y_m)^2: the gradient is sum_m error_m s'(w x_m) x_m."""
    x, w, y = vector("x", 4, 3), vector("w", 3), vector("y", 4)
    loss = 0.5 * gc.sum((gc.sigmoid(x @ w) - y) ** 2)
    rows, labels, weights = np.sin(np.arange(12.0)).reshape(4, 3), np.array([0.0, 1.0, 1.0, 0.0]), W[0]
    s = 1 / (1 + np.exp(-(rows @ weights)))
    (found,) = at([gc.grad(loss, w)], {x: rows, w: weights, y: labels})
    np.testing.assert_allclose(found, ((s - labels) * s * (1 - s)) @ rows, rtol=1e-12)


def test_four_points_of_logistic_regression() -> None:
    """sigma = (tanh + 1) / 2, summed loss, zero start: 2.772589 -> 0.389008 after 100 steps of 0.01."""
    x, t = gc.input("x", (4, 3), "float64"), gc.input("t", (4,), "float64")
    w = gc.param("w", (3,), dtype="float64", init=0.0)
    y = 0.5 * (gc.tanh(x @ w) + 1)
    loss = -gc.sum(gc.log(y * t + (1 - y) * (1 - t)))
    step = gc.compile([x, t], [loss], updates={w: w - 0.01 * gc.grad(loss, w)})
    points = np.array([[0.52, 1.12, 0.77], [0.88, -1.08, 0.15], [0.52, 0.06, -1.30], [0.74, -2.49, 1.39]])
    labels = np.array([1.0, 1.0, 0.0, 1.0])
    losses = [float(step(points, labels)[0]) for _ in range(101)]
    assert losses[0] == pytest.approx(4 * np.log(2), rel=1e-12)
    assert f"{losses[0]:.6f} {losses[100]:.6f}" == "2.772589 0.389008"
    w.reset()
    for _ in range(100):
        step(points, labels)
    assert [f"{v:.6f}" for v in w.value] == ["0.574141", "-0.222566", "1.136044"]
    assert gc.check_gradients(loss, [w, x], {x: points, t: labels}, order=2) < 1e-6
