"""Optimisers, with PyTorch's names and arithmetic, written in the public DSL."""

from __future__ import annotations

from typing import NoReturn

from graphc.errors import no_attribute
from graphc.optim.adam import Adam
from graphc.optim.named import OPTIMIZERS
from graphc.optim.optimizer import Optimizer
from graphc.optim.sgd import SGD

__all__ = ["OPTIMIZERS", "SGD", "Adam", "Optimizer"]


def __getattr__(name: str) -> NoReturn:
    there = ", ".join(kind for kind in __all__ if kind not in ("OPTIMIZERS", "Optimizer"))
    raise no_attribute("graphc.optim", name, __all__, f"there are {there}; others are subclasses of optim.Optimizer")
