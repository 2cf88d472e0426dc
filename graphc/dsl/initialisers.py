"""Initial values of parameters: `gc.param("W", (784, 10), init=gc.init.glorot_uniform())`.

An initialiser is a function of a shape and a NumPy generator; those made here can be pickled. A variable's generator is
Philox keyed by its seed and its name (`graphc.dsl.variables` says which name), so its start depends on nothing else:
not on the order of declaration, nor on other parameters.

Fans. A weight has `fan_in` inputs to each output and `fan_out` outputs to each input. `layout` says where they are:
"out_in" for PyTorch's weights `[out, in, *window]` (the default), "in_out" for `x @ W` with W `[in, out]`. Window
positions count in both fans.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, TypeAlias

import numpy as np

from graphc.errors import AttributeValueError

Array: TypeAlias = np.ndarray[Any, Any]
Initialiser: TypeAlias = Callable[[tuple[int, ...], np.random.Generator], Any]

__all__ = [
    "constant", "fans", "generator", "glorot_normal", "glorot_uniform", "he_normal", "he_uniform", "kaiming_uniform",
    "normal", "ones", "uniform", "zeros",
]  # fmt: skip


def generator(seed: int, name: str) -> np.random.Generator:
    """The generator that initialises the variable `name` under `seed`: Philox keyed by the seed and the name's hash."""
    digest = hashlib.blake2b(name.encode(), digest_size=8).digest()
    key = np.array([seed % 2**64, int.from_bytes(digest, "little")], np.uint64)
    return np.random.Generator(np.random.Philox(key=key))


def constant(value: Any) -> Initialiser:
    """Every element `value`, or an array-like of the variable's shape."""
    return partial(_constant, array=np.asarray(value))


def zeros() -> Initialiser:
    """Every element 0."""
    return constant(0)


def ones() -> Initialiser:
    """Every element 1."""
    return constant(1)


def normal(mean: float = 0.0, std: float = 1.0) -> Initialiser:
    """Normally distributed with the given mean and standard deviation."""
    return partial(_normal, mean=mean, std=std)


def uniform(low: float = 0.0, high: float = 1.0) -> Initialiser:
    """Uniformly distributed in [low, high)."""
    return partial(_uniform, low=low, high=high)


def glorot_uniform(gain: float = 1.0, layout: str = "out_in") -> Initialiser:
    """Uniform in +-gain sqrt(6 / (fan_in + fan_out)); for tanh and sigmoid nets.

    Source: X. Glorot, Y. Bengio, Understanding the difficulty of training deep feedforward neural networks, 2010, (16).
    """
    return partial(_scaled_uniform, bound_of=partial(_glorot, gain=gain, number=6), layout=layout)


def glorot_normal(gain: float = 1.0, layout: str = "out_in") -> Initialiser:
    """Normal with standard deviation gain sqrt(2 / (fan_in + fan_out)). Source: see `glorot_uniform`."""
    return partial(_scaled_normal, std_of=partial(_glorot, gain=gain, number=2), layout=layout)


def he_uniform(layout: str = "out_in") -> Initialiser:
    """Uniform in +-sqrt(6 / fan_in); for relu nets.

    Source: K. He, X. Zhang, S. Ren, J. Sun, Delving deep into rectifiers, 2015, (10).
    """
    return kaiming_uniform(0.0, layout)


def he_normal(layout: str = "out_in") -> Initialiser:
    """Normal with standard deviation sqrt(2 / fan_in). Source: see `he_uniform`."""
    return partial(_scaled_normal, std_of=partial(_he, number=2), layout=layout)


def kaiming_uniform(a: float = 0.0, layout: str = "out_in") -> Initialiser:
    """Uniform in +-sqrt(6 / ((1 + a^2) fan_in)) for a leaky relu of slope `a`.

    With a = sqrt(5) the bound is 1 / sqrt(fan_in): what `torch.nn.Linear` starts weights and biases with.
    Source: He et al. 2015, (15); torch.nn.init.kaiming_uniform_.
    """
    return partial(_scaled_uniform, bound_of=partial(_he, number=6, slope=a), layout=layout)


def fans(shape: Sequence[int], layout: str = "out_in") -> tuple[int, int]:
    """(fan_in, fan_out) of a weight of at least two axes; see the module docstring."""
    if layout not in ("out_in", "in_out"):
        raise AttributeValueError(f"layout {layout!r} is not 'out_in' or 'in_out'")
    if len(shape) < 2:
        raise AttributeValueError(f"a weight of shape {tuple(shape)} has no fans; use gc.init.uniform or zeros")
    window = math.prod(shape[2:])
    first, second = shape[0] * window, shape[1] * window
    return (second, first) if layout == "out_in" else (first, second)


# Functions of this module, not lambdas, so that variables can be pickled.


def _constant(shape: tuple[int, ...], rng: np.random.Generator, array: Array) -> Array:
    return np.full(shape, array) if array.ndim == 0 else array


def _normal(shape: tuple[int, ...], rng: np.random.Generator, mean: float, std: float) -> Array:
    return rng.normal(mean, std, shape)


def _uniform(shape: tuple[int, ...], rng: np.random.Generator, low: float, high: float) -> Array:
    return rng.uniform(low, high, shape)


def _scaled_normal(
    shape: tuple[int, ...], rng: np.random.Generator, std_of: Callable[[int, int], float], layout: str
) -> Array:
    return rng.normal(0.0, std_of(*_positive_fans(shape, layout)), shape)


def _scaled_uniform(
    shape: tuple[int, ...], rng: np.random.Generator, bound_of: Callable[[int, int], float], layout: str
) -> Array:
    bound = bound_of(*_positive_fans(shape, layout))
    return rng.uniform(-bound, bound, shape)


def _positive_fans(shape: tuple[int, ...], layout: str) -> tuple[int, int]:
    fan_in, fan_out = fans(shape, layout)
    return max(fan_in, 1), max(fan_out, 1)


def _glorot(fan_in: int, fan_out: int, gain: float, number: float) -> float:
    return gain * math.sqrt(number / (fan_in + fan_out))


def _he(fan_in: int, fan_out: int, number: float, slope: float = 0.0) -> float:
    return math.sqrt(number / ((1 + slope * slope) * fan_in))
