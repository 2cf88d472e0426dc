"""An activation function of one's own, from one SymPy expression, trained on digits.

    python examples/custom_activation.py

It gets a stable form, gradients of any order, LaTeX, and a place in the fused kernels. What float32 would spoil, and
what is not elementwise, is refused where it is declared.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence

import numpy as np
import sympy

import graphc as gc
from graphc import nn, optim

# D. Misra, "Mish: A Self Regularized Non-Monotonic Activation Function", 2019. log(1 + exp(z)) overflows in float32
# as it stands here; graphc writes it with its softplus, which does not.
mish = gc.scalar_function("mish", lambda z: z * sympy.tanh(sympy.log(1 + sympy.exp(z))))
# One with a second operand, which can be a trained parameter: swish with slope `beta`.
swish = gc.scalar_function("swish", lambda z, beta: z / (1 + sympy.exp(-beta * z)))


class Swish(nn.Module):
    """swish with a trained slope."""

    def __init__(self) -> None:
        self.beta = gc.param("beta", (1,), init=gc.init.ones())

    def forward(self, x: gc.Symbol) -> gc.Symbol:
        """Elementwise."""
        return swish(x, self.beta)


class Mish(nn.Module):
    """mish, as a module."""

    def forward(self, x: gc.Symbol) -> gc.Symbol:
        """Elementwise."""
        return mish(x)


def refused() -> str:
    """What graphc says to a tanh that overflows."""
    try:
        gc.scalar_function("my_tanh", lambda z: (sympy.exp(2 * z) - 1) / (sympy.exp(2 * z) + 1))
    except gc.errors.DefinitionError as error:
        return str(error)
    raise AssertionError("an overflowing function was not refused")


def main(arguments: Sequence[str] | None = None) -> float:
    """Train a small network with both functions on the digits; returns its accuracy on the test digits."""
    parser = argparse.ArgumentParser(description="Activation functions from SymPy expressions.")
    parser.add_argument("--epochs", type=int, default=3)
    options = parser.parse_args(arguments)
    for function in (mish, swish):
        print(function)
        print("  LaTeX:", function.latex)
        print("  derivative:", function.derivative())
    print("refused:", refused())

    (x_train, y_train), (x_test, y_test) = gc.data.mnist()
    x_train, x_test = x_train.astype(np.float32) / 255, x_test.astype(np.float32) / 255
    model = nn.Sequential(nn.Flatten(), nn.Linear(784, 32), Mish(), nn.Linear(32, 32), Swish(), nn.Linear(32, 10))
    model.compile(loss="cross_entropy", optimizer=optim.Adam(lr=0.002), metrics=["accuracy"], seed=1)
    model.fit(x_train, y_train, epochs=options.epochs, batch_size=64, verbose=0)
    accuracy = float(model.evaluate(x_test, y_test)["accuracy"])
    beta = float(model.state_dict()["4.beta"][0])
    print(f"accuracy {accuracy:.3f} after {options.epochs} epochs, beta {beta:.3f}")
    print("kernels of a training step:", ", ".join(model.program("train").kernels))
    return accuracy


if __name__ == "__main__":
    main()
