"""Multilayer perceptrons."""

from __future__ import annotations

from collections.abc import Callable

from graphc import nn
from graphc.errors import ShapeError


def mlp(*sizes: int, activation: Callable[[], nn.Module] = nn.ReLU) -> nn.Sequential:
    """Linear layers from `sizes[0]` to `sizes[-1]` features with `activation` between them: `mlp(784, 512, 10)`.

    Takes float32 `[N, sizes[0]]` and gives `[N, sizes[-1]]`, the last layer without activation (logits). Raises
    ShapeError for fewer than two sizes, or one below 1.
    """
    if len(sizes) < 2 or min(sizes) < 1:
        raise ShapeError(f"mlp{sizes}: give the number of inputs, of outputs, and of units between, each at least 1")
    layers: list[nn.Module] = []
    for inputs, outputs in zip(sizes, sizes[1:], strict=False):
        layers += [nn.Linear(inputs, outputs), activation()]
    return nn.Sequential(*layers[:-1])
