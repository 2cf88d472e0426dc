"""The reference interpreter of graphs."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import graphc.ops  # noqa: F401  (fills the registry)
from graphc.errors import GraphcError, InputError
from graphc.interpret import evaluate
from graphc.ir.builder import Builder
from graphc.ir.dims import symbol
from graphc.ir.graph import Graph, Origin, Value
from graphc.ir.types import f32, i32, tensor

N = symbol("N")
X = np.linspace(-1, 1, 6).reshape(3, 2)


def graph(*outputs: Any, inputs: tuple[Value, ...]) -> Graph:
    return Graph("g", inputs, outputs)


def test_small_net_in_float64() -> None:
    """0.1 in f32 differs from 0.1; the sum of squares is then computed in f64."""
    b = Builder()
    x, w = Value(tensor("f32", ("N", 2)), name="x"), Value(tensor("f32", (4, 2)), name="w")
    y = b.tanh(b.elementwise("add", b.matmul(x, w, transpose_b=True), b.constant(0.1, f32)))
    weights = np.arange(8.0).reshape(4, 2) / 3

    value, mean = evaluate(graph(y, b.mean(y, axes=(0, 1)), inputs=(x, w)), {"x": X, "w": weights})

    expected = np.tanh(X @ weights.T + np.float64(np.float32(0.1)))
    assert value.dtype == np.float64
    np.testing.assert_array_equal(value, expected)
    np.testing.assert_allclose(mean, expected.mean(), rtol=1e-15)


def test_declared_dtypes() -> None:
    b = Builder()
    x = Value(tensor("f32", (3, 2)), name="x")
    (value,) = evaluate(graph(b.exp(x), inputs=(x,)), {"x": X}, dtype64=False)
    assert value.dtype == np.float32
    np.testing.assert_array_equal(value, np.exp(X.astype(np.float32)))


def test_cast_and_one_hot_follow_the_precision() -> None:
    b = Builder()
    x, i = Value(tensor("f64", (1,)), name="x"), Value(tensor("i32", (1,)), name="i")
    outputs = (b.cast(x, dtype=f32), b.one_hot(i, depth=2), b.cast(x, dtype=i32))
    wide = evaluate(graph(*outputs, inputs=(x, i)), {"x": np.array([1 / 3]), "i": np.array([1])})
    assert [v.dtype.name for v in wide] == ["float64", "float64", "int32"]
    assert wide[0] == 1 / 3
    narrow = evaluate(graph(*outputs, inputs=(x, i)), {"x": np.array([1 / 3]), "i": np.array([1])}, dtype64=False)
    assert [v.dtype.name for v in narrow] == ["float32", "float32", "int32"]


def test_sizes_come_from_shapes() -> None:
    b = Builder()
    x = Value(tensor("f32", ("N", 2)), name="x")
    outputs = (b.size(dim=2 * N + 1), b.broadcast_to(b.constant(1.0, f32), shape=(N,)), b.reshape(x, shape=(2 * N,)))
    size, ones, flat = evaluate(graph(*outputs, inputs=(x,)), {"x": X})
    assert size == 7 and ones.shape == (3,) and flat.shape == (6,)


def test_random_numbers_depend_on_state_and_stream() -> None:
    b = Builder()
    rng = Value(tensor("i64", (2,)), name="rng")
    outputs = [b.uniform(rng, shape=(N, 50), stream=s) for s in (0, 1)]
    x = Value(tensor("f32", ("N",)), name="x")
    g = graph(*outputs, inputs=(rng, x))
    first, second = evaluate(g, {"rng": np.array([7, 0]), "x": np.zeros(4)})
    again, _ = evaluate(g, {"rng": np.array([7, 0]), "x": np.zeros(4)})
    next_step, _ = evaluate(g, {"rng": np.array([7, 1]), "x": np.zeros(4)})
    np.testing.assert_array_equal(first, again)
    assert first.shape == (4, 50) and 0 <= first.min() and first.max() < 1 and 0.4 < first.mean() < 0.6
    assert (first != second).mean() > 0.9 and (first != next_step).mean() > 0.9
    np.testing.assert_array_equal(first, first.astype(np.float32))  # the bits of the f32 generator


def test_streams_must_be_assigned() -> None:
    rng = Value(tensor("i64", (2,)), name="rng")
    with pytest.raises(GraphcError, match="stream number is not assigned"):
        evaluate(graph(Builder().uniform(rng, shape=(2,)), inputs=(rng,)), {"rng": np.array([0, 0])})


def test_fusion_runs_its_body() -> None:
    b = Builder()
    p = Value(tensor("f32", ("N", 2)), name="p")
    inner = Graph("inner", (p,), (b.exp(p), b.neg(p)))
    x = Value(tensor("f32", ("N", 2)), name="x")
    body = Graph("outer", (p,), (b.fusion(p, body=inner)[0],))
    first = b.fusion(x, body=body)
    second = b.fusion(x, body=inner)[1]
    left, right = evaluate(graph(first, second, inputs=(x,)), {"x": X})
    np.testing.assert_array_equal(left, np.exp(X))
    np.testing.assert_array_equal(right, -X)


def test_deferred_gradient_is_refused() -> None:
    b = Builder(Origin("net", "train.py", 3))
    x = Value(tensor("f32"), name="x")
    with pytest.raises(GraphcError, match=r"(?s)deferred 'grad'; expand it first.*train.py:3"):
        evaluate(graph(b.grad(b.exp(x), x), inputs=(x,)), {"x": 1.0})


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        ({}, "missing inputs x, i; it takes: x, i"),
        ({"x": X, "i": [0, 1, 2], "y": X}, "unknown inputs y; it takes: x, i"),
        ({"x": X[0], "i": [0, 1, 2]}, r"input x is f32\[N,2\], got shape \[2\]"),
        ({"x": X.T, "i": [0, 1, 2]}, r"input x is f32\[N,2\] with N=2, got shape \[2, 3\]"),
        ({"x": X, "i": [0, 1]}, r"input i is i32\[N\] with N=3, got shape \[2\]"),
        ({"x": X, "i": [0.0, 1.0, 2.0]}, r"input i is i32\[N\]; an array of float64 cannot be cast"),
        ({"x": X.astype(complex), "i": [0, 1, 1]}, "complex128 cannot be cast"),
        ({"x": X, "i": [0, 1, 2]}, r"(?s)gather.*indices are 0 to 2; with 2 classes they must be 0 to 1.*train.py:9"),
        ({"x": X, "i": [0, 1, -1]}, "indices are -1 to 1"),
    ],
)
def test_bad_inputs(inputs: dict[str, Any], message: str) -> None:
    x, i = Value(tensor("f32", ("N", 2)), name="x"), Value(tensor("i32", ("N",)), name="i")
    picked = Builder(Origin("", "train.py", 9)).gather(x, i)
    with pytest.raises(InputError, match=message):
        evaluate(graph(picked, inputs=(x, i)), inputs)


def test_size_that_no_input_tells() -> None:
    x = Value(tensor("f32", ("2*N",)), name="x")
    with pytest.raises(InputError, match=r"input x is f32\[2\*N\], got shape \[4\]"):
        evaluate(graph(x, inputs=(x,)), {"x": np.zeros(4)})
