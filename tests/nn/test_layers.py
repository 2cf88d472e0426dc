from __future__ import annotations

import numpy as np
import pytest

import graphc as gc
from graphc import nn
from graphc.errors import AttributeValueError, ShapeError

X = np.random.default_rng(0).normal(size=(6, 4)).astype(np.float32)


@pytest.mark.parametrize(
    ("layer", "function"),
    [
        (nn.ReLU(), lambda a: np.maximum(a, 0)),
        (nn.Tanh(), np.tanh),
        (nn.Sigmoid(), lambda a: 1 / (1 + np.exp(-a))),
        (nn.Flatten(), lambda a: a.reshape(len(a), -1)),
        (nn.Dropout(0.5), lambda a: a),
        (nn.Sequential(nn.Tanh(), nn.ReLU()), lambda a: np.maximum(np.tanh(a), 0)),
    ],
)
def test_layers_without_parameters(layer, function) -> None:
    for x in (X, X.reshape(3, 2, 4)):
        np.testing.assert_allclose(layer.predict(x), function(x), rtol=1e-5, atol=1e-6)


def test_linear_of_two_and_more_axes() -> None:
    for layer in (nn.Linear(4, 3), nn.Linear(4, 3, bias=False)):
        w, b = layer.weight.value, layer.bias.value if layer.bias is not None else 0
        np.testing.assert_allclose(layer.predict(X), X @ w.T + b, rtol=1e-5, atol=1e-6)
        x = X.reshape(3, 2, 4)
        np.testing.assert_allclose(layer.predict(x), x @ w.T + b, rtol=1e-5, atol=1e-6)


def test_flatten_from_another_axis() -> None:
    x = gc.input("x", ("N", 2, 3, 4))
    assert nn.Flatten(2)(x).shape[1:] == (2, 12)
    assert nn.Flatten()(x).shape[1:] == (24,)


def test_dropout_zeros_a_share_and_scales_the_rest_in_training_only() -> None:
    x = gc.input("x", ("N", 500))
    layer = nn.Dropout(0.3)
    with nn.trace(layer, train=True):
        y = layer(x)
    with nn.trace(layer):
        assert layer(x) is x
    program = gc.compile([x], [y])
    ones = np.ones((20, 500), np.float32)
    (a,), (b,) = program(ones), program(ones)
    assert set(np.unique(a)) == {np.float32(0), np.float32(1 / 0.7)}
    assert abs((a == 0).mean() - 0.3) < 0.02
    assert not np.array_equal(a, b)  # every step draws anew
    (c,) = gc.compile([x], [y])(ones)
    np.testing.assert_array_equal(a, c)  # and the same seed the same


def test_dropout_of_all_and_of_nothing() -> None:
    x = gc.input("x", ("N", 4))
    with nn.trace(train=True):
        assert nn.Dropout(0.0)(x) is x
        nothing = nn.Dropout(1.0)(x)
    (found,) = gc.compile([x], [nothing])(X)
    assert not found.any()


@pytest.mark.parametrize("p", [-0.1, 1.1, float("nan")])
def test_bad_probability(p) -> None:
    with pytest.raises(AttributeValueError, match="0 ... 1"):
        nn.Dropout(p)


def test_bad_sizes_and_shapes() -> None:
    with pytest.raises(ShapeError, match="at least 1"):
        nn.Linear(0, 3)
    with pytest.raises(ShapeError, match=r"matmul\(f32\[N,5\], f32\[3,4\]\)"):
        nn.Linear(4, 3)(gc.input("x", ("N", 5)))
    with pytest.raises(AttributeValueError, match="holds modules"):
        nn.Sequential(nn.Linear(4, 3), gc.relu)
