"""Multilayer perceptrons: their layers, parameters and values."""

from __future__ import annotations

import numpy as np
import pytest

import graphc as gc
from graphc import nn
from graphc.errors import ShapeError
from graphc.models import mlp


def test_layers_and_names() -> None:
    model = mlp(5, 4, 3, activation=nn.Tanh)
    assert [type(layer) for layer in model] == [nn.Linear, nn.Tanh, nn.Linear]
    assert {name: array.shape for name, array in model.state_dict().items()} == {
        "0.weight": (4, 5),
        "0.bias": (4,),
        "2.weight": (3, 4),
        "2.bias": (3,),
    }


def test_no_hidden_layer_is_linear() -> None:
    assert [type(layer) for layer in mlp(5, 3)] == [nn.Linear]


def test_values_equal_numpy() -> None:
    model = mlp(3, 4, 2)
    x = gc.input("x", ("N", 3))
    rows = np.random.default_rng(0).standard_normal((5, 3)).astype(np.float32)
    (got,) = gc.compile([x], [model(x)])(rows)
    w0, b0, w1, b1 = model.state_dict().values()
    np.testing.assert_allclose(got, np.maximum(rows @ w0.T + b0, 0) @ w1.T + b1, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("sizes", [(), (3,), (3, 0, 2), (-1, 2)])
def test_bad_sizes(sizes: tuple[int, ...]) -> None:
    with pytest.raises(ShapeError, match="number of inputs"):
        mlp(*sizes)
