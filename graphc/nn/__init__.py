"""Modules: layers with PyTorch's names and weight layouts, training with Keras' verbs."""

from __future__ import annotations

from typing import NoReturn

from graphc.errors import no_attribute
from graphc.nn.activations import (
    ELU,
    GELU,
    SELU,
    Gaussian,
    Hardsigmoid,
    Hardtanh,
    Heaviside,
    Identity,
    LeakyReLU,
    LogSoftmax,
    Maxout,
    NoisyReLU,
    PReLU,
    ReLU,
    Sigmoid,
    Sign,
    SiLU,
    Softmax,
    Softplus,
    Softsign,
    Tanh,
)
from graphc.nn.convolution import (
    AvgPool1d,
    AvgPool2d,
    AvgPool3d,
    Conv1d,
    Conv2d,
    Conv3d,
    MaxPool1d,
    MaxPool2d,
    MaxPool3d,
)
from graphc.nn.layers import Dropout, Flatten, Linear, ModuleList, Sequential
from graphc.nn.module import LoadResult, Module
from graphc.train.tracing import Trace, is_training, trace, update_state

__all__ = [
    "AvgPool1d", "AvgPool2d", "AvgPool3d", "Conv1d", "Conv2d", "Conv3d", "Dropout", "ELU", "Flatten", "GELU",
    "Gaussian", "Hardsigmoid", "Hardtanh", "Heaviside", "Identity", "LeakyReLU", "Linear", "LoadResult", "LogSoftmax",
    "MaxPool1d", "MaxPool2d", "MaxPool3d", "Maxout", "Module", "ModuleList", "NoisyReLU", "PReLU", "ReLU", "SELU",
    "Sequential", "SiLU", "Sigmoid", "Sign", "Softmax", "Softplus", "Softsign", "Tanh", "Trace", "is_training", "trace",
    "update_state",
]  # fmt: skip


# What other libraries have under names that users try here.
_ELSEWHERE = {
    "Dense": "write nn.Linear(in_features, out_features)",
    "CrossEntropyLoss": "losses are functions, gc.cross_entropy, or names, model.compile(loss='cross_entropy')",
    "MSELoss": "losses are functions, gc.mse_loss, or names, model.compile(loss='mse')",
    "Parameter": "write gc.param(name, shape)",
}


def __getattr__(name: str) -> NoReturn:
    if name in _ELSEWHERE:
        raise no_attribute("graphc.nn", name, (), _ELSEWHERE[name])
    note = "dir(graphc.nn) lists what there is; a layer of your own is a class with forward (nn.Module)"
    raise no_attribute("graphc.nn", name, __all__, note)
