"""Activation functions of symbols, named and parametrised as in PyTorch; their ties are PyTorch's too."""

from __future__ import annotations

from graphc.dsl import random
from graphc.dsl.declare import Operand
from graphc.dsl.elementwise import pair, single, sqrt
from graphc.dsl.functions import stop_gradient
from graphc.dsl.symbol import Symbol, elementwise

__all__ = [
    "elu", "gaussian", "gelu", "hardsigmoid", "hardtanh", "heaviside", "leaky_relu", "noisy_relu", "prelu", "relu",
    "selu", "sigmoid", "silu", "softplus", "softsign",
]  # fmt: skip


def sigmoid(x: Operand) -> Symbol:
    """1 / (1 + exp(-x)), without overflow."""
    return elementwise("sigmoid", single(x))


def relu(x: Operand) -> Symbol:
    """max(x, 0); the gradient at 0 is 0, as in PyTorch."""
    return elementwise("relu", single(x))


def softplus(x: Operand) -> Symbol:
    """log(1 + exp(x)), without overflow."""
    return elementwise("softplus", single(x))


def heaviside(x: Operand, at_zero: float = 1.0) -> Symbol:
    """The threshold: 0 below 0, 1 above, `at_zero` at 0. Its gradient is 0: train with a smooth function instead."""
    return elementwise("heaviside", single(x), at_zero=float(at_zero))


def leaky_relu(x: Operand, negative_slope: float = 0.01) -> Symbol:
    """x above 0, else `negative_slope * x`; the gradient at 0 is the negative slope."""
    return elementwise("leaky_relu", single(x), negative_slope=float(negative_slope))


def prelu(x: Operand, weight: Operand) -> Symbol:
    """x above 0, else `weight * x`, which broadcast; the gradient at 0 is the weight."""
    return elementwise("prelu", *pair(x, weight))


def noisy_relu(x: Operand) -> Symbol:
    """max(0, x + e) with normal noise e of variance sigmoid(x), other noise in every step; a constant to the gradient.

    Source: V. Nair and G. Hinton, "Rectified Linear Units Improve Restricted Boltzmann Machines", 2010.
    """
    value = Symbol(single(x))
    drawn = random.normal(value.shape)
    noise = stop_gradient(sqrt(sigmoid(value))) * (drawn if drawn.dtype == value.dtype else drawn.astype(value.dtype))
    return relu(value + noise)


def elu(x: Operand, alpha: float = 1.0) -> Symbol:
    """x above 0, else `alpha * (exp(x) - 1)`; the gradient at 0 is alpha."""
    return elementwise("elu", single(x), alpha=float(alpha))


def selu(x: Operand) -> Symbol:
    """The self-normalising ELU: 1.0507 times x above 0, else times 1.67326 (exp(x) - 1)."""
    return elementwise("selu", single(x))


def softsign(x: Operand) -> Symbol:
    """x / (1 + |x|)."""
    return elementwise("softsign", single(x))


def gelu(x: Operand, approximate: str = "none") -> Symbol:
    """x times the probability that a normal number is less than x; "tanh" takes tanh instead of erf."""
    return elementwise("gelu", single(x), approximate=approximate)


def silu(x: Operand) -> Symbol:
    """x * sigmoid(x), also called swish."""
    return elementwise("silu", single(x))


def hardtanh(x: Operand, min_val: float = -1.0, max_val: float = 1.0) -> Symbol:
    """x between two values and those beyond them (saturation); the gradient at them is 0."""
    return elementwise("hardtanh", single(x), min_val=float(min_val), max_val=float(max_val))


def hardsigmoid(x: Operand) -> Symbol:
    """x / 6 + 1/2 between -3 and 3, 0 below and 1 above; the gradient at +-3 is 0."""
    return elementwise("hardsigmoid", single(x))


def gaussian(x: Operand) -> Symbol:
    """exp(-x^2)."""
    return elementwise("gaussian", single(x))
