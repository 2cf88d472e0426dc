"""Convolution and pooling layers: PyTorch's names, shapes, start values and results."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from graphc import nn
from graphc.errors import AttributeValueError, GraphcError, ShapeError

X = np.random.default_rng(0).normal(size=(3, 4, 9, 8)).astype(np.float32)


def test_names_shapes_and_start_values() -> None:
    layer = nn.Conv2d(64, 128, (3, 5), groups=2)
    state = layer.state_dict()
    assert {name: array.shape for name, array in state.items()} == {"weight": (128, 32, 3, 5), "bias": (128,)}
    bound = 1 / np.sqrt(32 * 15)
    for array in state.values():
        assert np.abs(array).max() <= bound and np.abs(array).max() > 0.9 * bound
        assert abs(array.mean()) < 0.2 * bound
    assert list(nn.Conv1d(3, 6, 2, bias=False).state_dict()) == ["weight"]
    assert nn.Conv3d(3, 6, 2).state_dict()["weight"].shape == (6, 3, 2, 2, 2)


@pytest.mark.parametrize(
    ("name", "arguments", "options"),
    [
        ("Conv2d", (4, 6, 3), {}),
        ("Conv2d", (4, 8, (3, 2)), {"stride": (2, 1), "padding": 1, "dilation": (1, 2), "groups": 4, "bias": False}),
        ("Conv2d", (4, 2, 3), {"padding": "same"}),
        ("MaxPool2d", (2,), {}),
        ("MaxPool2d", (3, 2, 1), {"ceil_mode": True}),
        ("AvgPool2d", (2,), {}),
        ("AvgPool2d", (3, 2, 1, False, False), {}),
    ],
)
def test_layers_are_those_of_torch(name: str, arguments: tuple[Any, ...], options: dict[str, Any]) -> None:
    torch = pytest.importorskip("torch", reason="parity with PyTorch needs torch")
    mine, theirs = getattr(nn, name)(*arguments, **options), getattr(torch.nn, name)(*arguments, **options)
    assert mine.state_dict().keys() == theirs.state_dict().keys()
    theirs.load_state_dict({key: torch.tensor(array) for key, array in mine.state_dict().items()})
    with torch.no_grad():
        expected = theirs(torch.tensor(X)).numpy()
    np.testing.assert_allclose(mine.predict(X), expected, rtol=1e-4, atol=1e-5)


def test_lines_and_volumes() -> None:
    line, volume = X[:, :, :, 0].copy(), X.reshape(3, 4, 3, 3, 8)
    assert nn.Sequential(nn.Conv1d(4, 2, 3), nn.MaxPool1d(2), nn.AvgPool1d(3)).predict(line).shape == (3, 2, 1)
    assert nn.Sequential(nn.Conv3d(4, 2, 2), nn.MaxPool3d(2), nn.AvgPool3d(1)).predict(volume).shape == (3, 2, 1, 1, 3)


def test_layers_show_their_arguments() -> None:
    assert nn.Conv2d(1, 6, 5, padding=2).extra_repr() == "1, 6, kernel_size=(5, 5), stride=(1, 1), padding=(2, 2)"
    text = nn.Conv1d(4, 4, 3, padding="same", groups=2, bias=False).extra_repr()
    assert text == "4, 4, kernel_size=(3,), stride=(1,), padding='same', groups=2, bias=False"
    assert nn.MaxPool2d(2).extra_repr() == "kernel_size=2, stride=2, padding=0, dilation=1, ceil_mode=False"
    assert nn.AvgPool2d((2, 3), 1).extra_repr() == "kernel_size=(2, 3), stride=1, padding=0"


@pytest.mark.parametrize(
    ("make", "error", "reason"),
    [
        (lambda: nn.Conv2d(0, 3, 3), ShapeError, "0 input and 3 output channels: both must be at least 1"),
        (lambda: nn.Conv2d(4, 6, 3, groups=3), ShapeError, "4 input and 6 output channels do not divide into 3 groups"),
        (lambda: nn.Conv2d(4, 6, 3, groups=0), ShapeError, "into 0 groups"),
        (lambda: nn.Conv2d(4, 6, (3, 3, 3)), AttributeValueError, "3 entries, .* 2 axes"),
        (lambda: nn.Conv2d(4, 6, 3, padding="full"), AttributeValueError, "'full' is not 'same'"),
        (lambda: nn.Conv2d(4, 6, 3, stride=2, padding="same"), AttributeValueError, "needs stride 1"),
        (lambda: nn.MaxPool2d(0), AttributeValueError, "kernel_size=0"),
        (lambda: nn.AvgPool2d(2, padding=-1), AttributeValueError, "padding=-1"),
    ],
)
def test_bad_arguments_are_refused_where_the_layer_is_made(make: Any, error: type[GraphcError], reason: str) -> None:
    with pytest.raises(error, match=reason) as caught:
        make()
    assert "test_convolution.py" in str(caught.value)


def test_an_error_inside_a_model_names_the_module() -> None:
    model = nn.Sequential(nn.ReLU(), nn.Conv2d(3, 6, 3))
    with pytest.raises(ShapeError, match=r"conv2d\(f32\[N,4,9,8\], f32\[6,3,3,3\]\) in module 1: .* 3 input channels"):
        model.predict(X)
