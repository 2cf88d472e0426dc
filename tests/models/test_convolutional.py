"""Convolutional models: their layers, and training steps that equal PyTorch's."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import graphc as gc
from graphc import nn, optim
from graphc.models import lenet, vgg_small

CAPACITY = 8


def test_layers_and_names() -> None:
    shapes = {name: array.shape for name, array in lenet().state_dict().items()}
    assert shapes["0.weight"] == (6, 1, 5, 5) and shapes["3.weight"] == (16, 6, 5, 5) and shapes["11.bias"] == (10,)
    assert sum(np.prod(shape) for shape in shapes.values()) == 61_706
    kinds = [type(layer).__name__ for layer in vgg_small(7)]
    assert kinds == [*(["Conv2d", "ReLU"] * 2 + ["MaxPool2d"]) * 2, "Flatten", "Linear", "ReLU", "Linear"]
    assert vgg_small(7).state_dict()["13.weight"].shape == (7, 256)


def test_vgg_small_takes_images() -> None:
    x = gc.input("x", ("N", 3, 32, 32))
    assert str(vgg_small()(x).shape) == "(N, 10)"


def torch_lenet(torch: Any) -> Any:
    layers = torch.nn
    return layers.Sequential(
        layers.Conv2d(1, 6, 5, padding=2), layers.ReLU(), layers.MaxPool2d(2),
        layers.Conv2d(6, 16, 5), layers.ReLU(), layers.MaxPool2d(2), layers.Flatten(),
        layers.Linear(400, 120), layers.ReLU(), layers.Linear(120, 84), layers.ReLU(), layers.Linear(84, 10),
    )  # fmt: skip


def test_three_training_steps_of_lenet_equal_those_of_torch() -> None:
    torch = pytest.importorskip("torch", reason="parity needs PyTorch")
    model = lenet()
    x, t = gc.input("x", ("N", 1, 28, 28)), gc.input("t", ("N",), dtype="int32")
    with nn.trace(model, train=True):
        loss = gc.cross_entropy(model(x), t)
    updates = optim.SGD(0.01, 0.9).updates(loss, model.parameters())
    step = gc.compile([x, t], [loss], updates, dims={"N": CAPACITY}, cache=False)
    net = torch_lenet(torch)
    net.load_state_dict({k: torch.tensor(v) for k, v in model.state_dict().items()})
    peer, rng = torch.optim.SGD(net.parameters(), 0.01, 0.9), np.random.default_rng(5)
    for n in (CAPACITY, 3, CAPACITY):
        images, labels = rng.standard_normal((n, 1, 28, 28)).astype(np.float32), rng.integers(0, 10, n)
        expected = torch.nn.functional.cross_entropy(net(torch.tensor(images)), torch.tensor(labels))
        peer.zero_grad()
        expected.backward()
        peer.step()
        (value,) = step(images, labels)
        np.testing.assert_allclose(value, expected.item(), rtol=1e-4)
    for name, array in model.state_dict().items():
        np.testing.assert_allclose(array, net.state_dict()[name].numpy(), rtol=1e-4, atol=1e-6, err_msg=name)


def test_lenet_fits_digits() -> None:
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 4, 64)
    images = rng.normal(0, 0.3, (64, 1, 28, 28)).astype(np.float32)
    for image, label in zip(images, labels, strict=True):  # a bright quarter each
        image[0, 14 * (label // 2) : 14 * (label // 2) + 14, 14 * (label % 2) : 14 * (label % 2) + 14] += 1
    model = lenet(4)
    model.compile(loss="cross_entropy", optimizer=optim.Adam(0.003), metrics=["accuracy"])
    history = model.fit(images, labels, epochs=8, batch_size=16, seed=0, verbose=0)
    assert history.history["loss"][-1] < 0.3 * history.history["loss"][0]
    assert history.history["accuracy"][-1] > 0.9
