"""Optimisers, with PyTorch's names and arithmetic, written in the public DSL."""

from __future__ import annotations

from graphc.optim.adam import Adam
from graphc.optim.optimizer import Optimizer
from graphc.optim.sgd import SGD

__all__ = ["SGD", "Adam", "Optimizer"]
