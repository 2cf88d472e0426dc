"""A restricted Boltzmann machine on handwritten digits: energy, sampling and contrastive divergence as one graph.

    python examples/rbm_cd1.py [--epochs 5] [--hidden 128] [--pictures FOLDER]

The machine has binary visible units v and hidden units h and the energy

    E(v, h) = - a.v - b.h - v W h        (a: biases of the visible units, b: of the hidden)

so that p(h = 1 | v) = sigmoid(b + v W) and p(v = 1 | h) = sigmoid(a + W h). Contrastive divergence (Hinton, "Training
products of experts by minimizing contrastive divergence", Neural Computation 14(8), 2002) lowers the energy of the
data and raises that of a reconstruction one Gibbs step away. With the samples held constant, the gradient of that
difference of energies is the rule that textbooks state, v h - v' h'; here `gc.grad` finds it.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

import graphc as gc


@dataclass(frozen=True)
class RBM:
    """The parameters, and what the energy says of them."""

    weights: gc.Param
    visible_bias: gc.Param
    hidden_bias: gc.Param

    @staticmethod
    def of(visible: int, hidden: int, pixel_means: np.ndarray) -> RBM:
        """Small weights; visible biases at which a machine without weights has the data's means."""
        p = np.clip(pixel_means, 0.01, 0.99)
        return RBM(
            gc.param("W", (visible, hidden), init=gc.init.normal(0.0, 0.01)),
            gc.param("a", (visible,), init=np.log(p / (1 - p))),
            gc.param("b", (hidden,)),
        )

    @property
    def parameters(self) -> list[gc.Param]:
        """W, a and b."""
        return [self.weights, self.visible_bias, self.hidden_bias]

    def energy(self, v: gc.Symbol, h: gc.Symbol) -> gc.Symbol:
        """E(v, h) of each row: v `[N, visible]`, h `[N, hidden]` -> `[N]`."""
        return -(v @ self.visible_bias) - h @ self.hidden_bias - gc.sum((v @ self.weights) * h, axis=1)

    def hidden(self, v: gc.Symbol) -> gc.Symbol:
        """p(h = 1 | v), `[N, hidden]`."""
        return gc.sigmoid(v @ self.weights + self.hidden_bias)

    def visible(self, h: gc.Symbol) -> gc.Symbol:
        """p(v = 1 | h), `[N, visible]`."""
        return gc.sigmoid(h @ self.weights.T + self.visible_bias)

    def divergence(self, v: gc.Symbol) -> tuple[gc.Symbol, gc.Symbol]:
        """The difference of energies that CD-1 descends, and the mean squared error of the reconstruction.

        Samples carry no gradient, and the last hidden probabilities (used as they are, which is less noisy than a
        sample) are held, so that only the energy's own parameters are differentiated.
        """
        h = gc.random.bernoulli(self.hidden(v))
        v_model = gc.random.bernoulli(self.visible(h))
        h_model = gc.stop_gradient(self.hidden(v_model))
        return gc.mean(self.energy(v, h) - self.energy(v_model, h_model)), gc.mean((v - v_model) ** 2)


def train(rbm: RBM, images: np.ndarray, epochs: int, rate: float = 0.05, batch_size: int = 50) -> list[float]:
    """CD-1 with momentum 0.5; returns the mean reconstruction error of each epoch."""
    v = gc.input("v", ("N", images.shape[1]))
    difference, error = rbm.divergence(v)
    updates: dict[gc.Variable, gc.Symbol] = {}
    for parameter, gradient in zip(rbm.parameters, gc.grad(difference, rbm.parameters), strict=True):
        velocity = gc.state(f"velocity.{parameter.name}", parameter.static_shape)
        updates[velocity] = 0.5 * velocity - rate * gradient
        updates[parameter] = parameter + updates[velocity]
    step = gc.compile([v], [error], updates, seed=1)

    order = np.random.default_rng(0)
    history = []
    for epoch in range(epochs):
        errors = []
        shuffled = order.permutation(len(images))
        for start in range(0, len(images), batch_size):
            errors.append(float(step(images[shuffled[start : start + batch_size]])[0]))
        history.append(float(np.mean(errors)))
        print(f"epoch {epoch + 1}: reconstruction error {history[-1]:.4f}")
    return history


def save_pictures(rbm: RBM, digits: np.ndarray, folder: Path) -> tuple[Path, Path]:
    """Rows of digits over their reconstructions, and the filters: each hidden unit's weights as an image."""
    v = gc.input("v", ("N", digits.shape[1]))
    reconstruct = gc.compile([v], [rbm.visible(gc.random.bernoulli(rbm.hidden(v)))])
    both = np.concatenate([digits, reconstruct(digits)[0]]).reshape(-1, 28, 28)
    filters = rbm.weights.value.T.reshape(-1, 28, 28)
    folder.mkdir(parents=True, exist_ok=True)
    return (
        gc.data.write_png(folder / "rbm_reconstructions.png", gc.data.tiled(both, len(digits))),
        gc.data.write_png(folder / "rbm_filters.png", gc.data.tiled(filters, 16, each=True)),
    )


def main(argv: Sequence[str] | None = None) -> list[float]:
    """Train on digits made black and white; returns the reconstruction errors."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--hidden", type=int, default=128)
    parser.add_argument("--images", type=int, default=10_000)
    parser.add_argument("--pictures", type=Path, default=Path("pictures"))
    arguments = parser.parse_args(argv)

    (x_train, _), (x_test, _) = gc.data.mnist()
    binary = (x_train[: arguments.images].reshape(-1, 784) > 127).astype(np.float32)
    rbm = RBM.of(784, arguments.hidden, binary.mean(axis=0))
    history = train(rbm, binary, arguments.epochs)

    digits = (x_test[:16].reshape(-1, 784) > 127).astype(np.float32)
    for file in save_pictures(rbm, digits, arguments.pictures):
        print(f"wrote {file}")
    return history


if __name__ == "__main__":
    main()
