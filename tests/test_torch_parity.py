"""Twenty training steps of an MLP equal PyTorch's, step by step, also with batches below the compiled capacity."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import graphc as gc
from graphc import nn, optim

torch = pytest.importorskip("torch", reason="parity needs PyTorch")

CAPACITY = 64
BATCHES = {"full": [64] * 20, "partial": [37] * 20, "last_of_one": [64] * 9 + [1] + [37] * 9 + [1]}
OPTIMIZERS: dict[str, tuple[Callable[[], Any], Callable[[Any], Any]]] = {
    "sgd": (lambda: optim.SGD(0.1), lambda p: torch.optim.SGD(p, 0.1)),
    "momentum": (lambda: optim.SGD(0.05, 0.9), lambda p: torch.optim.SGD(p, 0.05, 0.9)),
    "nesterov": (
        lambda: optim.SGD(0.05, 0.9, nesterov=True, weight_decay=0.01),
        lambda p: torch.optim.SGD(p, 0.05, 0.9, nesterov=True, weight_decay=0.01),
    ),
    "adam": (lambda: optim.Adam(0.003), lambda p: torch.optim.Adam(p, 0.003)),
    "adam_decay": (
        lambda: optim.Adam(0.003, betas=(0.8, 0.95), weight_decay=0.02),
        lambda p: torch.optim.Adam(p, 0.003, betas=(0.8, 0.95), weight_decay=0.02),
    ),
}


def step_program(optimizer: Any) -> tuple[Any, Any]:
    """A 50-33-17-5 MLP and its training step, compiled for at most CAPACITY rows."""
    model = nn.Sequential(nn.Linear(50, 33), nn.ReLU(), nn.Linear(33, 17), nn.Tanh(), nn.Linear(17, 5))
    x, t = gc.input("x", ("N", 50)), gc.input("t", ("N",), dtype="int32")
    with nn.trace(model, train=True):
        loss = gc.cross_entropy(model(x), t)
    updates = optimizer.updates(loss, model.parameters())
    return model, gc.compile([x, t], [loss], updates, dims={"N": CAPACITY})


@pytest.mark.parametrize("batches", BATCHES)
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_twenty_steps(optimizer: str, batches: str) -> None:
    mine, theirs = OPTIMIZERS[optimizer]
    model, step = step_program(mine())
    net = torch.nn.Sequential(
        torch.nn.Linear(50, 33), torch.nn.ReLU(), torch.nn.Linear(33, 17), torch.nn.Tanh(), torch.nn.Linear(17, 5)
    )
    net.load_state_dict({k: torch.tensor(v) for k, v in model.state_dict().items()})
    peer, rng = theirs(net.parameters()), np.random.default_rng(5)
    for n in BATCHES[batches]:
        x, t = rng.standard_normal((n, 50)).astype(np.float32), rng.integers(0, 5, n)
        expected = torch.nn.functional.cross_entropy(net(torch.tensor(x)), torch.tensor(t))
        peer.zero_grad()
        expected.backward()
        peer.step()
        (loss,) = step(x, t)
        np.testing.assert_allclose(loss, expected.item(), rtol=1e-4)
    for name, array in model.state_dict().items():
        np.testing.assert_allclose(array, net.state_dict()[name].numpy(), rtol=1e-4, atol=1e-6, err_msg=name)
