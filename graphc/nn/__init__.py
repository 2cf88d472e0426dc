"""Modules: layers with PyTorch's names and weight layouts, training with Keras' verbs."""

from __future__ import annotations

from graphc.nn.layers import Dropout, Flatten, Linear, ModuleList, ReLU, Sequential, Sigmoid, Tanh
from graphc.nn.module import LoadResult, Module
from graphc.train.tracing import Trace, is_training, trace, update_state

__all__ = [
    "Dropout", "Flatten", "Linear", "LoadResult", "Module", "ModuleList", "ReLU", "Sequential", "Sigmoid", "Tanh",
    "Trace", "is_training", "trace", "update_state",
]  # fmt: skip
