"""A denoising autoencoder: it sees digits with pixels knocked out and learns to draw them whole.

    python examples/autoencoder.py [--epochs 5] [--hidden 128] [--pictures FOLDER]

(Vincent, Larochelle, Bengio, Manzagol, "Extracting and composing robust features with denoising autoencoders", ICML
2008.) The noise is part of the model and is drawn in the compiled step, by `gc.random`, while training only.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import numpy as np

import graphc as gc
from graphc import nn, optim


class DenoisingAutoencoder(nn.Module):
    """784 pixels to `hidden` features and back; returns logits, so that the loss can be computed without overflow."""

    def __init__(self, hidden: int, knocked_out: float = 0.5) -> None:
        super().__init__()
        self.knocked_out = knocked_out
        self.encoder = nn.Sequential(nn.Linear(784, hidden), nn.ReLU())
        self.decoder = nn.Linear(hidden, 784)

    def forward(self, x: gc.Symbol) -> gc.Symbol:
        """Pixels `[N, 784]` in 0 ... 1 to logits `[N, 784]`."""
        if nn.is_training():
            x = self.corrupted(x)
        return self.decoder(self.encoder(x))

    def corrupted(self, x: gc.Symbol) -> gc.Symbol:
        """Each pixel is 0 with probability `knocked_out`."""
        return x * gc.random.bernoulli(1 - self.knocked_out, x.shape)


def denoised(model: DenoisingAutoencoder, digits: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Digits with pixels knocked out, and what the model makes of them: a program over the trained parameters."""
    x = gc.input("x", ("N", 784))
    noisy = model.corrupted(x)
    before, after = gc.compile([x], [noisy, gc.sigmoid(model(noisy))], seed=7)(digits)
    return before, after


def main(argv: Sequence[str] | None = None) -> tuple[float, float]:
    """Train; returns the mean squared errors of the noisy and of the denoised test digits."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--hidden", type=int, default=128)
    parser.add_argument("--images", type=int, default=10_000)
    parser.add_argument("--pictures", type=Path, default=Path("pictures"))
    arguments = parser.parse_args(argv)

    (x_train, _), (x_test, _) = gc.data.mnist()
    train, test = (x.reshape(-1, 784).astype(np.float32) / 255 for x in (x_train[: arguments.images], x_test))

    model = DenoisingAutoencoder(arguments.hidden)
    model.compile(loss="binary_cross_entropy_with_logits", optimizer=optim.Adam(lr=2e-3))
    model.fit(train, epochs=arguments.epochs, batch_size=64, seed=0)  # no targets: the clean digits are the targets

    noisy, clean = denoised(model, test)
    errors = [float(np.mean((x - test) ** 2)) for x in (noisy, clean)]
    print(f"mean squared error of the test digits: {errors[0]:.4f} noisy, {errors[1]:.4f} denoised")
    arguments.pictures.mkdir(parents=True, exist_ok=True)
    rows = np.concatenate([x[:16] for x in (test, noisy, clean)]).reshape(-1, 28, 28)
    print("wrote", gc.data.write_png(arguments.pictures / "denoised.png", gc.data.tiled(rows, 16)))
    return errors[0], errors[1]


if __name__ == "__main__":
    main()
