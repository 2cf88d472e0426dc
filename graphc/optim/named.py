"""Optimisers by name, for `model.compile(optimizer="adam")`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from graphc.errors import AttributeValueError
from graphc.optim.adam import Adam
from graphc.optim.optimizer import Optimizer
from graphc.optim.sgd import SGD

OPTIMIZERS: dict[str, Callable[[], Optimizer]] = {"adam": Adam, "sgd": SGD}


def find_optimizer(optimizer: Any) -> Optimizer:
    """The optimiser itself, or a new one with default settings for a name. Raises AttributeValueError for others."""
    if isinstance(optimizer, Optimizer):
        return optimizer
    if isinstance(optimizer, str) and optimizer.lower() in OPTIMIZERS:
        return OPTIMIZERS[optimizer.lower()]()
    names = ", ".join(OPTIMIZERS)
    if isinstance(optimizer, type) and issubclass(optimizer, Optimizer):
        name = optimizer.__name__
        raise AttributeValueError(f"optimizer is the class {name}; make one: optim.{name}()")
    raise AttributeValueError(
        f"optimizer must be one of graphc.optim, such as optim.SGD(0.1), or a name ({names}), got {optimizer!r}"
    )
