"""Layers, with PyTorch's names, arguments, weight layouts and initial values."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from typing import Any

from graphc.dsl import functions, initialisers, random
from graphc.dsl.symbol import Symbol
from graphc.dsl.variables import Param, param
from graphc.errors import AttributeValueError, ShapeError
from graphc.nn.module import Module
from graphc.train.tracing import is_training

__all__ = ["Dropout", "Flatten", "Linear", "ModuleList", "Sequential"]


class ModuleList(Module):
    """A list of modules, named "0", "1", ...; it has no `forward` of its own.

    The modules are given one by one, or as one list: `ModuleList(a, b)` or `ModuleList([a, b])`.
    """

    def __init__(self, *modules: Module | Iterable[Module]) -> None:
        one = modules[0] if len(modules) == 1 else modules
        for module in (one,) if isinstance(one, Module) or not isinstance(one, Iterable) else one:
            self.append(module)

    def append(self, module: Any) -> None:
        """Add a module at the end."""
        if not isinstance(module, Module):
            raise AttributeValueError(f"{type(self).__name__} holds modules, got {module!r}; wrap it in an nn.Module")
        setattr(self, str(len(self)), module)

    def __len__(self) -> int:
        return len(self.named_children())

    def __iter__(self) -> Iterator[Module]:
        return iter([module for _, module in self.named_children()])

    def __getitem__(self, index: int) -> Module:
        return self.named_children()[index][1]


class Sequential(ModuleList):
    """Modules one after another: the output of each is the input of the next."""

    def forward(self, x: Any) -> Any:
        """The last module's output for input `x`."""
        for module in self:
            x = module(x)
        return x


class Linear(Module):
    """`x W^T + b`: `[..., in]` -> `[..., out]`, with weight `[out, in]` and bias `[out]`.

    Both start uniform in +-1/sqrt(in): `kaiming_uniform(a=sqrt(5))` for the weight. Source: torch.nn.Linear.
    """

    bias: Param | None

    def __init__(self, in_features: int, out_features: int, bias: bool = True) -> None:
        if in_features < 1 or out_features < 1:
            raise ShapeError(f"Linear({in_features}, {out_features}): both sizes must be at least 1")
        self.in_features, self.out_features = in_features, out_features
        bound = 1 / math.sqrt(in_features)
        self.weight = param("weight", (out_features, in_features), initialisers.kaiming_uniform(math.sqrt(5)))
        self.bias = param("bias", (out_features,), initialisers.uniform(-bound, bound)) if bias else None

    def forward(self, x: Symbol) -> Symbol:
        """`[..., in]` -> `[..., out]`."""
        rows = x if x.ndim <= 2 else functions.reshape(x, (-1, x.shape[-1]))
        y = functions.matmul(rows, self.weight, transpose_b=True)
        if self.bias is not None:
            y = y + self.bias
        return y if x.ndim <= 2 else functions.reshape(y, (*x.shape[:-1], self.out_features))

    def extra_repr(self) -> str:
        """`784, 10, bias=True`."""
        return f"{self.in_features}, {self.out_features}, bias={self.bias is not None}"


class Dropout(Module):
    """In training, each element is zero with probability `p` and else divided by 1 - p; in evaluation, x itself.

    Source: N. Srivastava et al., Dropout, 2014, in its inverted form, as torch.nn.Dropout.
    """

    def __init__(self, p: float = 0.5) -> None:
        if not 0 <= p <= 1:
            raise AttributeValueError(f"Dropout: the probability must lie in 0 ... 1, got {p}")
        self.p = p

    def forward(self, x: Symbol) -> Symbol:
        """Elementwise."""
        if not is_training() or self.p == 0:
            return x
        if self.p == 1:
            return x * 0.0
        kept = random.bernoulli(1 - self.p, x.shape)
        scaled = kept * (1 / (1 - self.p))
        return x * (scaled if x.dtype == scaled.dtype else scaled.astype(x.dtype))

    def extra_repr(self) -> str:
        """`p=0.5`."""
        return f"p={self.p}"


class Flatten(Module):
    """The axes from `start_dim` on as one: `[N, ...]` -> `[N, rest]`."""

    def __init__(self, start_dim: int = 1) -> None:
        self.start_dim = start_dim

    def forward(self, x: Symbol) -> Symbol:
        """`[N, ...]` -> `[N, rest]`."""
        return functions.flatten(x, self.start_dim)

    def extra_repr(self) -> str:
        """`start_dim=1`."""
        return f"start_dim={self.start_dim}"
