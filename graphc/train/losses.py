"""Losses by name, for `model.compile(loss="cross_entropy")`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

from graphc.dsl.losses import binary_cross_entropy_with_logits, cross_entropy, mse_loss
from graphc.dsl.symbol import Symbol
from graphc.errors import AttributeValueError

Loss: TypeAlias = Callable[[Any, Any], Symbol]
"""(outputs, targets) -> scalar symbol, the mean over the batch."""

LOSSES: dict[str, Loss] = {
    "cross_entropy": cross_entropy,
    "mse": mse_loss,
    "mse_loss": mse_loss,
    "binary_cross_entropy_with_logits": binary_cross_entropy_with_logits,
}

FLOAT_TARGETS: tuple[Loss, ...] = (mse_loss, binary_cross_entropy_with_logits)
"""Losses whose targets are real numbers; integers and bools given as targets become float32 for them."""


def find_loss(loss: Loss | str) -> Loss:
    """The loss of a name; a function is its own. Raises AttributeValueError listing the names."""
    if callable(loss):
        return loss
    if loss not in LOSSES:
        raise AttributeValueError(f"loss {loss!r} is unknown; use a function or one of: {', '.join(LOSSES)}")
    return LOSSES[loss]
