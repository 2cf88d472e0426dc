"""NumPy's indexing syntax: results and gradients as NumPy's, and what is refused with advice."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import graphc as gc
from graphc.errors import DTypeError, GraphcError, ShapeError, SymbolError

X = np.sin(np.arange(60.0)).reshape(3, 4, 5)
INDEX = np.array([[2, 0], [1, 1]])

KEYS: list[Any] = [
    np.s_[1], np.s_[-1], np.s_[:, 2], np.s_[1, -1, 0], np.s_[...], np.s_[..., 0], np.s_[..., None],
    np.s_[None, :, None],
    np.s_[1:], np.s_[:, 1:], np.s_[:-1], np.s_[-2:], np.s_[::2], np.s_[::-1], np.s_[:, ::-2], np.s_[2:0:-1, 3:0:-2],
    np.s_[1:100], np.s_[5:], np.s_[2:1], np.s_[:, -100:2], np.s_[1:, ..., :2], np.s_[:, 1:3, None, -1],
    np.s_[[0, 2]], np.s_[[-1, 0, -1]], np.s_[:, [3, 0]], np.s_[INDEX], np.s_[:, INDEX], np.s_[..., INDEX],
    np.s_[[0, 1], [1, -1]], np.s_[:, INDEX, INDEX], np.s_[[0, 2], [1], [[4], [0]]], np.s_[0, [1, 2]], np.s_[[1, 2], 0],
    np.s_[1:, [0, 3], 2], np.s_[None, [0, 1], None], np.s_[:, [1, 2], None], np.s_[[]], np.s_[np.int64(1)],
    np.s_[np.array(2)], np.s_[:, np.array([0, 3], np.uint8)],
]  # fmt: skip


@pytest.mark.parametrize("key", KEYS, ids=str)
def test_index_and_its_gradient_agree_with_numpy(key: Any, compute: Callable[..., Any]) -> None:
    x = gc.input("x", X.shape, "float64")
    y = x[key]
    slope = gc.grad(gc.sum(y * y), x)
    value, found = compute([y, slope], {x: X})

    np.testing.assert_array_equal(value, X[key])
    expected = np.zeros(X.size)
    np.add.at(expected, np.arange(X.size).reshape(X.shape)[key], 2 * X[key])
    np.testing.assert_allclose(found, expected.reshape(X.shape), rtol=1e-12)


def test_symbols_as_indices(compute: Callable[..., Any]) -> None:
    x, i = gc.input("x", (5, 3)), gc.input("i", ("N",), "int32")
    table, tokens = np.arange(15.0).reshape(5, 3), np.array([4, 0, 4, 1])
    rows, columns, pairs = compute(
        [x[i], x[1:, 0][i - 1 + gc.equal(i, 0).astype("int32")], x[i, i % 3]], {x: table, i: tokens}
    )
    np.testing.assert_array_equal(rows, table[tokens])
    np.testing.assert_array_equal(columns, table[1:, 0][[3, 0, 3, 0]])
    np.testing.assert_array_equal(pairs, table[tokens, tokens % 3])


def test_the_batch_axis(compute: Callable[..., Any]) -> None:
    x = gc.input("x", ("N", 3))
    array = np.arange(12.0).reshape(4, 3)
    keys = [np.s_[1:], np.s_[:-1], np.s_[0], np.s_[-1], np.s_[::-1], np.s_[:, 1:], np.s_[:1], np.s_[[0, 0]]]
    for key, found in zip(keys, compute([x[k] for k in keys], {x: array}), strict=True):
        np.testing.assert_array_equal(found, array[key])
    assert str(x[1:].shape[0]) == "N-1"


@pytest.mark.parametrize(
    ("use", "error", "message"),
    [
        (lambda x, n: x[3], ShapeError, "index 3 is out of range for axis 0 of size 3"),
        (lambda x, n: x[:, -5], ShapeError, "index -5 is out of range for axis 1 of size 4"),
        (lambda x, n: x[:, :, :, 0], ShapeError, "4 indices for 3 axes"),
        (lambda x, n: x[..., 0, ...], ShapeError, "3 indices for 3 axes"),
        (lambda x, n: x[::0], ShapeError, "step of a slice is 0"),
        (lambda x, n: x[1.5], DTypeError, "1.5 is none of: whole number, slice"),
        (lambda x, n: x[True], SymbolError, "a mask"),
        (lambda x, n: x[x > 0], SymbolError, r"mask \(bool\[3,4,5\]\).*where\(mask, x, 0\)"),
        (lambda x, n: x[x], DTypeError, "indices must be integers.*astype"),
        (lambda x, n: x["a"], DTypeError, "'a' is none of"),
        (lambda x, n: x[[0, 3]], ShapeError, "indices 0 to 3 are out of range for axis 0 of size 3"),
        (lambda x, n: x[[0, 1], :, [0, 1]], ShapeError, "side by side"),
        (lambda x, n: x[0, :, [0, 1]], ShapeError, "side by side"),
        (lambda x, n: x[[0, 1], None, [0, 1]], ShapeError, "side by side"),
        (lambda x, n: x[[0, 1], [0, 1, 2]], ShapeError, "do not broadcast"),
        (lambda x, n: x[: gc.argmax(x)], ShapeError, r"no whole number; pick computed positions with x\[start"),
        (lambda x, n: n[1], ShapeError, "index 1 is out of range for axis 0 of size N for every size from 1 on"),
        (lambda x, n: n[2:], ShapeError, "positions 2 to N by 1 along axis 0 of size N.*as small as 1"),
        (lambda x, n: n[::2], ShapeError, "depend on what the size is"),
        (lambda x, n: n[[0, 1]], ShapeError, "depend on what the size is"),
        (lambda x, n: gc.take(x, [0], axis=3), ShapeError, "axis 3 is out of range for 3 axes"),
        (lambda x, n: gc.take(x, [0.5], axis=0), DTypeError, "integer array"),
        (lambda x, n: gc.take_along_axis(x, [0], 0), ShapeError, "as many axes as the tensor, 3"),
        (lambda x, n: gc.take_along_axis(x, np.zeros((2, 2, 2), int), 0), ShapeError, "do not broadcast"),
        (lambda x, n: gc.topk(x, 6), ShapeError, "k=6 must be a whole number from 0 to the size of axis 2, 5"),
        (lambda x, n: gc.topk(n, 2, axis=0), ShapeError, "the size of axis 0, N"),
        (lambda x, n: gc.sort(x, 3), ShapeError, "axis 3 is out of range"),
        (lambda x, n: gc.scatter_add(x, [0, 1], gc.zeros((3,))), ShapeError, "does not broadcast"),
    ],
)
def test_what_is_refused(use: Callable[..., Any], error: type[GraphcError], message: str) -> None:
    x, n = gc.input("x", X.shape), gc.input("n", ("N", 3))
    with pytest.raises(error, match=f"(?s){message}") as caught:
        use(x, n)
    assert "test_indexing.py:" in str(caught.value)


def test_an_index_out_of_range_is_found_at_the_call() -> None:
    x, i = gc.input("x", (5, 3)), gc.input("i", (2,), "int32")
    program = gc.compile([x, i], [x[i]], cache=False)
    with pytest.raises(gc.errors.InputError, match="5"):
        program(np.zeros((5, 3), np.float32), np.array([0, 5], np.int32))
