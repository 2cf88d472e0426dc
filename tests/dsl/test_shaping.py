"""Views, joins and creation: NumPy's results, symbolic sizes, and what is refused."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import graphc as gc
from graphc.errors import AttributeValueError, DTypeError, GraphcError, ShapeError

X = np.sin(np.arange(24.0)).reshape(2, 3, 4).astype(np.float32)

NUMPY: list[Callable[[Any], Any]] = [
    lambda x: np.expand_dims(x, (0, 2)), lambda x: np.squeeze(x[:1, :, :1]), lambda x: np.squeeze(x[:1], 0),
    lambda x: np.swapaxes(x, 0, -1), lambda x: np.moveaxis(x, -1, 0), np.ravel, np.flip, lambda x: np.flip(x, (0, -1)),
    lambda x: np.roll(x, 7), lambda x: np.roll(x, -1, 2), lambda x: np.roll(x, (1, 2), (1, 2)),
    lambda x: np.tile(x, 2), lambda x: np.tile(x, (3, 1, 1, 2)), lambda x: np.repeat(x, 2),
    lambda x: np.repeat(x, 3, -1),
    lambda x: np.concatenate([x, x * 2], axis=None), lambda x: np.concatenate([x, np.ones((2, 1, 4))], 1),
    lambda x: np.concatenate([x]), lambda x: np.stack([x, 0 * x], 1), lambda x: np.split(x, 2)[1],
    lambda x: np.split(x, [0, 2], axis=1)[1], lambda x: np.pad(x, 1), lambda x: np.pad(x, (0, 2)),
    lambda x: np.pad(x, ((1, 0), (0, 0), (2, 3)), constant_values=-1.5), lambda x: np.pad(x, 2, "edge"),
    lambda x: np.pad(x, ((0, 0), (2, 1), (1, 3)), "reflect"), lambda x: np.pad(x, 2, mode="symmetric"),
    lambda x: np.pad(x, ((0, 0), (4, 5), (0, 0)), mode="wrap"), lambda x: np.tril(x, 1), lambda x: np.triu(x, -1),
    lambda x: np.tril(x > 0), lambda x: np.diagonal(x, 1, 2, 1), lambda x: np.diagonal(x, 9),
    lambda x: np.trace(x, 1, 1, 2), np.zeros_like, np.ones_like, lambda x: np.full_like(x, 2.5),
    lambda x: x.swapaxes(0, 1),
    lambda x: x.ravel(), lambda x: x.repeat(2, 1), lambda x: x[:, :1].squeeze(1), lambda x: x.take([1, 0], 1),
    lambda x: x.dot(np.ones((4, 2), np.float32)), lambda x: x.cumsum(1), lambda x: x.prod(0), lambda x: (x > 0).any(1),
    lambda x: (x > 0).all(), lambda x: x.argmin(2), lambda x: np.var(x, 1), lambda x: np.std(x, ddof=1, keepdims=True),
    lambda x: np.cumprod(x), lambda x: np.sort(x, None), lambda x: np.argsort(x, axis=1), lambda x: np.prod(x > -2),
    lambda x: np.linalg.norm(x, axis=1), lambda x: np.linalg.norm(x, 0.5, 2), lambda x: np.any(x, axis=(0, 1)),
    lambda x: np.dot(x, np.ones((2, 4, 3), np.float32)), lambda x: np.tensordot(x, x, 0),
    lambda x: np.tensordot(x, x, ([1], [1])),
    lambda x: np.outer(x[0, 0], x[1]), lambda x: np.einsum("ijk->kj", x), lambda x: np.einsum("...k,k", x, np.ones(4)),
    lambda x: np.searchsorted(np.array([-1, -0.5, 0.5], np.float32), x), lambda x: np.max(x > 0, axis=1),
]  # fmt: skip


@pytest.mark.parametrize("function", NUMPY)
def test_numpy_functions(function: Callable[[Any], Any], compute: Callable[..., Any]) -> None:
    x = gc.input("x", X.shape)
    (found,) = compute([function(x)], {x: X})
    expected = np.asarray(function(X))
    assert found.shape == expected.shape
    assert found.dtype.kind == expected.dtype.kind
    np.testing.assert_allclose(found, expected, rtol=2e-5, atol=1e-6)


CREATED: list[tuple[Callable[[], Any], np.ndarray]] = [
    (lambda: gc.zeros((2, 3)), np.zeros((2, 3), np.float32)),
    (lambda: gc.ones(2, "int32"), np.ones(2, np.int32)),
    (lambda: gc.full((2,), 1.5), np.full(2, 1.5, np.float32)),
    (lambda: gc.full((2,), 3), np.full(2, 3, np.int64)),
    (lambda: gc.full((), True), np.array(True)),
    (lambda: gc.arange(5), np.arange(5)),
    (lambda: gc.arange(2, 11, 3), np.arange(2, 11, 3)),
    (lambda: gc.arange(5, 0, -2, dtype="int32"), np.arange(5, 0, -2, np.int32)),
    (lambda: gc.arange(0.0, 1.0, 0.1), np.arange(0.0, 1.0, 0.1).astype(np.float32)),
    (lambda: gc.arange(4, dtype="float64"), np.arange(4.0)),
    (lambda: gc.arange(3, 3), np.arange(3, 3)),
    (lambda: gc.linspace(0, 1, 7), np.linspace(0, 1, 7).astype(np.float32)),
    (lambda: gc.linspace(2, -1, 4, endpoint=False, dtype="float64"), np.linspace(2, -1, 4, endpoint=False)),
    (lambda: gc.eye(3), np.eye(3, dtype=np.float32)),
    (lambda: gc.eye(2, 4, 1, "int32"), np.eye(2, 4, 1, np.int32)),
    (lambda: gc.eye(4, 2, -1, "bool"), np.eye(4, 2, -1, bool)),
    (lambda: gc.tril(np.ones((3, 3))), np.tril(np.ones((3, 3)))),
    (lambda: gc.concatenate([[1, 2], [3]]), np.array([1, 2, 3])),
    (lambda: gc.einsum("ij,j", np.ones((2, 3)), [1.0, 2.0, 3.0]), np.array([6.0, 6.0])),
]  # fmt: skip


@pytest.mark.parametrize(("make", "expected"), CREATED)
def test_creation(make: Callable[[], Any], expected: np.ndarray, compute: Callable[..., Any]) -> None:
    (found,) = compute([make()], {})
    np.testing.assert_array_equal(found, expected)
    assert found.dtype == expected.dtype


def test_creation_with_symbolic_sizes(compute: Callable[..., Any]) -> None:
    x = gc.input("x", ("N", 2))
    n = x.shape[0]
    made = [gc.zeros(x.shape), gc.arange("N"), gc.arange(n) * 2 + 1, gc.eye(n), gc.linspace(-1.0, 1.0, n),
            gc.linspace(0.0, 1.0, "N", endpoint=False), gc.ones_like(x), gc.tril(x @ x.T)]  # fmt: skip
    for count in (5, 1):
        a = np.arange(2.0 * count).reshape(count, 2)
        expected = [np.zeros((count, 2)), np.arange(count), np.arange(count) * 2 + 1, np.eye(count),
                    np.linspace(-1, 1, count), np.linspace(0, 1, count, endpoint=False), np.ones((count, 2)),
                    np.tril(a @ a.T)]  # fmt: skip
        total = gc.sum(x)  # tells the interpreter what N is
        for found, wanted in zip(compute([*made, total], {x: a}), expected, strict=False):
            np.testing.assert_allclose(found, wanted, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize(
    ("use", "error", "message"),
    [
        (lambda x: gc.expand_dims(x, 4), ShapeError, "axis 4 does not name different positions among the 4 axes"),
        (lambda x: gc.expand_dims(x, (0, 0)), ShapeError, "different positions"),
        (lambda x: gc.squeeze(x, 1), ShapeError, "axis 1 has size 3; only axes of size 1"),
        (lambda x: gc.flip(x, 3), ShapeError, "axis 3 is out of range for 3 axes"),
        (lambda x: gc.roll(x, (1, 2), 0), ShapeError, "2 shifts for 1 axes"),
        (lambda x: gc.tile(x, -1), ShapeError, "a whole number from 0 on, got -1"),
        (lambda x: gc.repeat(x, 1.5), ShapeError, "a whole number from 0 on, got 1.5"),
        (lambda x: gc.concatenate([]), ShapeError, "a list of one tensor or more"),
        (lambda x: gc.concatenate(x), ShapeError, "a list of one tensor or more"),
        (lambda x: gc.concatenate([x, x[:, :2]]), ShapeError, "do not join along axis 0"),
        (lambda x: gc.concatenate([x, x.astype("float64")]), DTypeError, "float32 and float64"),
        (lambda x: gc.concatenate([x, x], 3), ShapeError, "axis 3 is out of range"),
        (lambda x: gc.stack([x, x[:1]]), ShapeError, "must have one shape; concatenate joins"),
        (lambda x: gc.split(x, 2, 1), ShapeError, "axis 1 of size 3 does not divide into 2 equal parts"),
        (lambda x: gc.split(x, 0), ShapeError, "does not divide into 0"),
        (lambda x: gc.split(x, [2, 1], 1), ShapeError, "positions 2 and 1 are out of order"),
        (lambda x: gc.split(x, [5], 1), ShapeError, "do not lie within size 3"),
        (lambda x: gc.pad(x, (1, 2, 3)), ShapeError, r"widths \(1, 2, 3\) are no whole number, pair"),
        (lambda x: gc.pad(x, 0.5), ShapeError, "widths 0.5"),
        (lambda x: gc.pad(x, 1, "linear_ramp"), AttributeValueError, "none of constant, edge, reflect"),
        (lambda x: gc.pad(x, 1, constant_values=np.nan), AttributeValueError, "NaN"),
        (lambda x: gc.pad(gc.input("n", ("N", 2)), 1, "edge"), ShapeError, "needs .* a known size along axis 0"),
        (lambda x: gc.tril(x[0, 0]), ShapeError, "two axes or more"),
        (lambda x: gc.diagonal(x, 0, 1, 1), ShapeError, "must differ"),
        (lambda x: gc.arange(0, 5, 0), AttributeValueError, "step is 0"),
        (lambda x: gc.arange(1, "N"), ShapeError, "starts at 0 with step 1"),
        (lambda x: gc.zeros(x), ShapeError, r"zeros\(x.shape\) or zeros_like\(x\)"),
        (lambda x: gc.zeros((-1,)), ShapeError, "cannot be negative"),
        (lambda x: x.reshape(5, -1), ShapeError, "24 elements do not divide"),
        (lambda x: x.reshape(-1, -1), ShapeError, "only one dimension can be -1"),
        (lambda x: gc.zeros((0, 3)).reshape(0, -1), ShapeError, r"\(0, -1\) is ambiguous: any size"),
        (lambda x: x.reshape(-2, 12), ShapeError, "reshape.*cannot be negative, got -2; one dimension may be -1"),
        (lambda x: x.reshape(2.0, 12), ShapeError, "reshape.*2.0 is not a dimension"),
        (lambda x: gc.sum(x, "rows"), AttributeValueError, "sum.*axis='rows' is neither a whole number nor a tuple"),
        (lambda x: gc.mean(x, 1.0), AttributeValueError, "axis=1.0 is neither"),
        (lambda x: gc.amax(x, (0, None)), AttributeValueError, r"axis=\(0, None\) is neither"),
        (lambda x: gc.softmax(x, (0, 1)), AttributeValueError, r"axis=\(0, 1\): it works along one axis"),
        (lambda x: gc.log_softmax(x, None), AttributeValueError, "axis=None: it works along one axis"),
        (lambda x: gc.prod(x, 3), ShapeError, "axis 3 is out of range for 3 axes"),
        (lambda x: gc.var(x, 0, correction=2), ShapeError, "2 elements less the correction 2 leave no divisor"),
        (lambda x: gc.var(x, 0, correction=-1), ShapeError, "negative"),
        (lambda x: gc.norm(x, "nuc"), AttributeValueError, "ord='nuc' is no vector norm"),
        (lambda x: gc.norm(x, -2), AttributeValueError, "ord=-2 is no vector norm"),
        (lambda x: gc.cumsum(x, 3), ShapeError, "axis 3 is out of range"),
        (lambda x: gc.searchsorted(x, 1.0), ShapeError, "must be a vector"),
        (lambda x: gc.searchsorted(x[0, 0], 1.0, side="middle"), AttributeValueError, "neither 'left' nor 'right'"),
        (lambda x: gc.logsumexp(gc.zeros((2, 0))), ShapeError, "size 0"),
        (lambda x: gc.einsum("ij,jk", x, x), AttributeValueError, "has not as many axes as 'ij'"),
        (lambda x: gc.einsum("ijk,ijl->ijm", x, x), AttributeValueError, "one that no operand has"),
        (lambda x: gc.einsum("ijk->iij", x), AttributeValueError, "names an axis twice"),
        (lambda x: gc.einsum("ijk,ikj->i", x, x), ShapeError, "axis 'k' has size 4 in one operand and 3 in another"),
        (lambda x: gc.einsum("i1k", x), AttributeValueError, "a letter for each axis"),
        (lambda x: gc.einsum("ijk,ijk", x), AttributeValueError, "it names 2 operands, 1 are given"),
        (lambda x: gc.einsum(x, "ijk"), AttributeValueError, "takes an equation"),
        (lambda x: gc.einsum("...jk,...jk->...", x, x[0, None, None].transpose(0, 2, 1, 3)[:, :2, 0][:, :, None]),
         ShapeError, "in one operand"),
        (lambda x: gc.dot(x, x), ShapeError, "axis 'c' has size 4 in one operand and 3"),
        (lambda x: gc.tensordot(x, x, ((0,), (0, 1))), ShapeError, "do not name as many axes"),
        (lambda x: gc.matmul(x, x), ShapeError, "inner sizes 4 and 3"),
        (lambda x: np.median(x), gc.errors.SymbolError, "np.median is not available"),
        (lambda x: np.concatenate([x, x], dtype="float32"), gc.errors.SymbolError, "'dtype'"),
    ],
)  # fmt: skip
def test_what_is_refused(use: Callable[..., Any], error: type[GraphcError], message: str) -> None:
    with pytest.raises(error, match=f"(?s){message}"):
        use(gc.input("x", X.shape))
