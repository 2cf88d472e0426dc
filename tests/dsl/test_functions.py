from __future__ import annotations

import numpy as np
import pytest

import graphc as gc
from graphc.errors import ShapeError

A = np.linspace(-3, 3, 12).reshape(3, 4)
P = np.linspace(0.2, 3, 12).reshape(3, 4)
I = np.array([2, 0, 3])  # noqa: E741


@pytest.mark.parametrize(
    ("function", "expected"),
    [
        (gc.exp, np.exp), (gc.expm1, np.expm1), (gc.tanh, np.tanh), (gc.abs, np.abs), (gc.sign, np.sign),
        (gc.square, np.square), (gc.sigmoid, lambda a: 1 / (1 + np.exp(-a))), (gc.relu, lambda a: np.maximum(a, 0)),
        (gc.softplus, lambda a: np.log1p(np.exp(a))), (lambda a: gc.clip(a, -1, 2), lambda a: np.clip(a, -1, 2)),
        (lambda a: gc.maximum(a, 1), lambda a: np.maximum(a, 1)),
        (lambda a: gc.minimum(1, a), lambda a: np.minimum(1, a)),
        (gc.sum, np.sum), (lambda a: gc.mean(a, axis=0), lambda a: a.mean(0)), (gc.max, np.max), (gc.min, np.min),
        (lambda a: gc.max(a, 1, keepdims=True), lambda a: a.max(1, keepdims=True)),
        (lambda a: gc.logsumexp(a, axis=1), lambda a: np.log(np.exp(a).sum(1))),
        (lambda a: gc.logsumexp(a, axis=None), lambda a: np.log(np.exp(a).sum())),
        (lambda a: gc.logsumexp(a, axis=0, keepdims=True), lambda a: np.log(np.exp(a).sum(0, keepdims=True))),
        (lambda a: gc.softmax(a, axis=0), lambda a: np.exp(a) / np.exp(a).sum(0)),
        (gc.softmax, lambda a: np.exp(a) / np.exp(a).sum(1, keepdims=True)),
        (gc.log_softmax, lambda a: a - np.log(np.exp(a).sum(1, keepdims=True))),
        (lambda a: gc.reshape(a, (4, 3)), lambda a: a.reshape(4, 3)), (gc.flatten, np.ravel),
        (lambda a: gc.flatten(a[None], 1), lambda a: a.reshape(1, 12)), (gc.transpose, np.transpose),
        (lambda a: gc.broadcast_to(a, (2, 3, 4)), lambda a: np.broadcast_to(a, (2, 3, 4))),
        (lambda a: gc.matmul(a, a, transpose_b=True), lambda a: a @ a.T),
        (lambda a: gc.matmul(a, a, transpose_a=True), lambda a: a.T @ a),
        (lambda a: gc.gather(a, gc.constant(I)), lambda a: a[np.arange(3), I]),
        (lambda a: gc.gather(a, I), lambda a: a[np.arange(3), I]),
        (lambda a: gc.where(a > 0, a, -1), lambda a: np.where(a > 0, a, -1)),
        (gc.stop_gradient, lambda a: a), (lambda a: gc.astype(a, "int32"), lambda a: a.astype(np.int32)),
        (lambda a: gc.not_equal(a, 3), lambda a: a != 3), (gc.argmax, np.argmax),
        (lambda a: gc.argmax(a, -2), lambda a: a.argmax(0)),
        (lambda a: gc.logical_and(a > 0, gc.logical_not(a > 1)), lambda a: (a > 0) & ~(a > 1)),
        (lambda a: gc.logical_or(a > 2, a < 0), lambda a: (a > 2) | (a < 0)),
    ],
)  # fmt: skip
def test_functions_agree_with_numpy(function, expected, compute) -> None:
    x = gc.input("x", (3, 4), "float64")
    (found,) = compute([function(x)], {x: A})
    np.testing.assert_allclose(found, expected(A), rtol=1e-12, atol=1e-12)


def test_functions_of_positive_numbers(compute) -> None:
    x = gc.input("x", (3, 4), "float64")
    for function, expected in ((gc.log, np.log), (gc.sqrt, np.sqrt), (gc.log1p, np.log1p)):
        (found,) = compute([function(x)], {x: P})
        np.testing.assert_allclose(found, expected(P), rtol=1e-14)


def test_one_hot(compute) -> None:
    labels = gc.input("labels", ("N",), "int32")
    (found,) = compute([gc.one_hot(labels, 4)], {labels: I})
    np.testing.assert_array_equal(found, np.eye(4)[I])
    assert found.dtype == np.float32


def test_softmax_and_logsumexp_do_not_overflow(compute) -> None:
    x = gc.input("x", (2, 3))
    big = np.array([[1e4, 0, -1e4], [-1e4, -1e4, -1e4]], np.float32)
    soft, total = compute([gc.softmax(x), gc.logsumexp(x)], {x: big})
    np.testing.assert_allclose(soft, [[1, 0, 0], [1 / 3] * 3], rtol=1e-6)
    np.testing.assert_allclose(total, [1e4, -1e4 + np.log(3)], rtol=1e-6)


def test_constants_alone_become_symbols(compute) -> None:
    assert compute([gc.exp(0.0) + gc.maximum(1.0, 2.0)], {})[0] == 3


def test_bad_shapes() -> None:
    x = gc.input("x", (3, 4))
    with pytest.raises(ShapeError, match="gather"):
        gc.gather(x, np.array([0, 1]))
    with pytest.raises(ShapeError, match="broadcast_to"):
        gc.broadcast_to(x, (3, 5))


TIED = np.array([[1, 3, 3], [2, 2, 2], [3, 0, 1]], np.float32)


@pytest.mark.parametrize("sign", [1, -1])
@pytest.mark.parametrize("axis", [None, 0, 1, -1, (0,), (0, 1)])
@pytest.mark.parametrize("keepdims", [False, True])
def test_the_gradient_of_extremes_of_equal_elements_is_that_of_torch(sign, axis, keepdims, compute) -> None:
    torch = pytest.importorskip("torch")
    data, x = sign * TIED, gc.input("x", (3, 3))
    name = "max" if sign > 0 else "min"
    for find in (getattr(gc, name), lambda v, *a: getattr(v, name)(*a)):
        y = find(x, axis, keepdims)
        t = torch.tensor(data, requires_grad=True)
        one = axis[0] if axis == (0,) else axis
        theirs = getattr(torch, name)(t, one, keepdim=keepdims)[0] if isinstance(one, int) else getattr(torch, name)(t)
        theirs.sum().backward()
        value, gradient = compute([y, gc.grad(gc.sum(y), x)], {x: data})
        np.testing.assert_array_equal(value.reshape(theirs.shape), theirs.detach())
        np.testing.assert_allclose(gradient, t.grad, rtol=1e-6)
    for find in (getattr(gc, f"a{name}"), lambda v, *a: getattr(v, f"a{name}")(*a), getattr(np, f"a{name}")):
        y = find(x, axis, keepdims=keepdims) if find is getattr(np, f"a{name}") else find(x, axis, keepdims)
        t = torch.tensor(data, requires_grad=True)
        theirs = getattr(torch, f"a{name}")(t, () if axis is None else axis, keepdim=keepdims)
        theirs.sum().backward()
        value, gradient = compute([y, gc.grad(gc.sum(y), x)], {x: data})
        np.testing.assert_array_equal(value, theirs.detach())
        np.testing.assert_allclose(gradient, t.grad, rtol=1e-6)


def test_the_first_of_equal_elements_in_a_compiled_program() -> None:
    x = gc.input("x", (3, 3))
    f = gc.compile([x], [gc.grad(gc.sum(gc.max(x, axis=1)), x), gc.grad(gc.sum(gc.amax(x, axis=1)), x)])
    first, even = f(TIED)
    np.testing.assert_array_equal(first, [[0, 1, 0], [1, 0, 0], [1, 0, 0]])
    np.testing.assert_allclose(even, [[0, 0.5, 0.5], [1 / 3] * 3, [1, 0, 0]], rtol=1e-6)
