"""Activation modules, with PyTorch's names and arguments where PyTorch has them."""

from __future__ import annotations

from graphc.dsl import activations, elementwise, functions, initialisers
from graphc.dsl.symbol import Symbol
from graphc.dsl.variables import param
from graphc.errors import AttributeValueError, ShapeError
from graphc.nn.layers import Linear
from graphc.nn.module import Module
from graphc.train.tracing import is_training

__all__ = [
    "ELU", "GELU", "Gaussian", "Hardsigmoid", "Hardtanh", "Heaviside", "Identity", "LeakyReLU", "LogSoftmax", "Maxout",
    "NoisyReLU", "PReLU", "ReLU", "SELU", "SiLU", "Sigmoid", "Sign", "Softmax", "Softplus", "Softsign", "Tanh",
]  # fmt: skip


class Identity(Module):
    """`x` itself: a linear neuron."""

    def forward(self, x: Symbol) -> Symbol:
        """The operand."""
        return x


class ReLU(Module):
    """`max(x, 0)`."""

    def forward(self, x: Symbol) -> Symbol:
        """Elementwise."""
        return activations.relu(x)


class Tanh(Module):
    """The hyperbolic tangent."""

    def forward(self, x: Symbol) -> Symbol:
        """Elementwise."""
        return elementwise.tanh(x)


class Sigmoid(Module):
    """`1 / (1 + exp(-x))`."""

    def forward(self, x: Symbol) -> Symbol:
        """Elementwise."""
        return activations.sigmoid(x)


class Heaviside(Module):
    """The threshold: 0 below 0, 1 above, `at_zero` at 0. Its gradient is 0."""

    def __init__(self, at_zero: float = 1.0) -> None:
        self.at_zero = at_zero

    def forward(self, x: Symbol) -> Symbol:
        """Elementwise."""
        return activations.heaviside(x, self.at_zero)

    def extra_repr(self) -> str:
        """`at_zero=1.0`."""
        return f"at_zero={self.at_zero}"


class Sign(Module):
    """The threshold with values -1, 0 (at 0) and 1. Its gradient is 0."""

    def forward(self, x: Symbol) -> Symbol:
        """Elementwise."""
        return elementwise.sign(x)


class LeakyReLU(Module):
    """`x` above 0, else `negative_slope * x`."""

    def __init__(self, negative_slope: float = 0.01) -> None:
        self.negative_slope = negative_slope

    def forward(self, x: Symbol) -> Symbol:
        """Elementwise."""
        return activations.leaky_relu(x, self.negative_slope)

    def extra_repr(self) -> str:
        """`negative_slope=0.01`."""
        return f"negative_slope={self.negative_slope}"


class PReLU(Module):
    """`x` above 0, else `weight * x` with a trainable weight `[num_parameters]`, one or one for each channel (axis 1).

    Source: K. He et al., "Delving Deep into Rectifiers", 2015; as torch.nn.PReLU. Raises ShapeError when x does not
    have as many channels as there are weights.
    """

    def __init__(self, num_parameters: int = 1, init: float = 0.25) -> None:
        if num_parameters < 1:
            raise ShapeError(f"PReLU({num_parameters}): there must be at least 1 weight")
        self.num_parameters = num_parameters
        self.weight = param("weight", (num_parameters,), initialisers.constant(init))

    def forward(self, x: Symbol) -> Symbol:
        """Elementwise; `[N, C, ...]` if there are C > 1 weights."""
        if self.num_parameters == 1:
            return activations.prelu(x, self.weight)
        if x.ndim < 2 or x.shape[1] != self.num_parameters:
            raise ShapeError(f"PReLU({self.num_parameters}): axis 1 of {x!r} must have size {self.num_parameters}")
        return activations.prelu(x, functions.reshape(self.weight, (self.num_parameters, *[1] * (x.ndim - 2))))

    def extra_repr(self) -> str:
        """`num_parameters=1`."""
        return f"num_parameters={self.num_parameters}"


class NoisyReLU(Module):
    """In training `max(0, x + e)` with normal noise e of variance sigmoid(x), in evaluation `max(0, x)`.

    Source: V. Nair and G. Hinton, "Rectified Linear Units Improve Restricted Boltzmann Machines", 2010.
    """

    def forward(self, x: Symbol) -> Symbol:
        """Elementwise."""
        return activations.noisy_relu(x) if is_training() else activations.relu(x)


class ELU(Module):
    """`x` above 0, else `alpha * (exp(x) - 1)`."""

    def __init__(self, alpha: float = 1.0) -> None:
        self.alpha = alpha

    def forward(self, x: Symbol) -> Symbol:
        """Elementwise."""
        return activations.elu(x, self.alpha)

    def extra_repr(self) -> str:
        """`alpha=1.0`."""
        return f"alpha={self.alpha}"


class SELU(Module):
    """The self-normalising ELU. Source: G. Klambauer et al., "Self-Normalizing Neural Networks", 2017."""

    def forward(self, x: Symbol) -> Symbol:
        """Elementwise."""
        return activations.selu(x)


class Softplus(Module):
    """`log(1 + exp(beta * x)) / beta`, without overflow."""

    def __init__(self, beta: float = 1.0) -> None:
        if not beta > 0:
            raise AttributeValueError(f"Softplus: beta must be greater than 0, got {beta}")
        self.beta = beta

    def forward(self, x: Symbol) -> Symbol:
        """Elementwise."""
        return activations.softplus(x) if self.beta == 1 else activations.softplus(x * self.beta) / self.beta

    def extra_repr(self) -> str:
        """`beta=1.0`."""
        return f"beta={self.beta}"


class Softsign(Module):
    """`x / (1 + |x|)`."""

    def forward(self, x: Symbol) -> Symbol:
        """Elementwise."""
        return activations.softsign(x)


class GELU(Module):
    """`x` times the probability that a normal number is less than x; `approximate="tanh"` takes tanh for erf.

    Source: D. Hendrycks and K. Gimpel, "Gaussian Error Linear Units", 2016.
    """

    def __init__(self, approximate: str = "none") -> None:
        if approximate not in ("none", "tanh"):
            raise AttributeValueError(f"GELU: approximate is 'none' or 'tanh', got {approximate!r}")
        self.approximate = approximate

    def forward(self, x: Symbol) -> Symbol:
        """Elementwise."""
        return activations.gelu(x, self.approximate)

    def extra_repr(self) -> str:
        """`approximate='none'`."""
        return f"approximate={self.approximate!r}"


class SiLU(Module):
    """`x * sigmoid(x)`, also called swish."""

    def forward(self, x: Symbol) -> Symbol:
        """Elementwise."""
        return activations.silu(x)


class Hardtanh(Module):
    """Saturation: `x` between `min_val` and `max_val`, and those beyond them."""

    def __init__(self, min_val: float = -1.0, max_val: float = 1.0) -> None:
        if not min_val < max_val:
            raise AttributeValueError(f"Hardtanh: min_val must be less than max_val, got {min_val} and {max_val}")
        self.min_val, self.max_val = min_val, max_val

    def forward(self, x: Symbol) -> Symbol:
        """Elementwise."""
        return activations.hardtanh(x, self.min_val, self.max_val)

    def extra_repr(self) -> str:
        """`min_val=-1.0, max_val=1.0`."""
        return f"min_val={self.min_val}, max_val={self.max_val}"


class Hardsigmoid(Module):
    """`x / 6 + 1/2` between -3 and 3, 0 below and 1 above."""

    def forward(self, x: Symbol) -> Symbol:
        """Elementwise."""
        return activations.hardsigmoid(x)


class Gaussian(Module):
    """`exp(-x^2)`."""

    def forward(self, x: Symbol) -> Symbol:
        """Elementwise."""
        return activations.gaussian(x)


class Softmax(Module):
    """`exp(x) / sum(exp(x))` along the axis `dim`, without overflow."""

    def __init__(self, dim: int = -1) -> None:
        self.dim = dim

    def forward(self, x: Symbol) -> Symbol:
        """The shape of the operand."""
        return functions.softmax(x, self.dim)

    def extra_repr(self) -> str:
        """`dim=-1`."""
        return f"dim={self.dim}"


class LogSoftmax(Module):
    """`x - log(sum(exp(x)))` along the axis `dim`, without overflow."""

    def __init__(self, dim: int = -1) -> None:
        self.dim = dim

    def forward(self, x: Symbol) -> Symbol:
        """The shape of the operand."""
        return functions.log_softmax(x, self.dim)

    def extra_repr(self) -> str:
        """`dim=-1`."""
        return f"dim={self.dim}"


class Maxout(Module):
    """The greatest of `pieces` affine maps: `[..., in]` -> `[..., out]`; equal greatest ones share the gradient.

    `affine` is one `Linear` of out * pieces features: those of output o are o * pieces ... o * pieces + pieces - 1.
    Source: I. Goodfellow et al., "Maxout Networks", 2013.
    """

    def __init__(self, in_features: int, out_features: int, pieces: int = 2, bias: bool = True) -> None:
        if min(out_features, pieces) < 1:
            raise ShapeError(f"Maxout({in_features}, {out_features}, {pieces}): all sizes must be at least 1")
        self.out_features, self.pieces = out_features, pieces
        self.affine = Linear(in_features, out_features * pieces, bias)

    def forward(self, x: Symbol) -> Symbol:
        """`[..., in]` -> `[..., out]`."""
        y = self.affine(x)
        return functions.max(functions.reshape(y, (*y.shape[:-1], self.out_features, self.pieces)), axis=-1)

    def extra_repr(self) -> str:
        """`10, pieces=2`."""
        return f"{self.out_features}, pieces={self.pieces}"
