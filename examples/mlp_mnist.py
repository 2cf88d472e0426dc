"""A multilayer perceptron on handwritten digits: train, look at the mistakes, save, load, and look inside.

    python examples/mlp_mnist.py [--epochs 5] [--hidden 256]
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np

import graphc as gc
from graphc import nn, optim


def network(hidden: int) -> nn.Sequential:
    """784 pixels, a hidden ReLU layer with dropout, ten digits."""
    return nn.Sequential(nn.Flatten(), nn.Linear(784, hidden), nn.ReLU(), nn.Dropout(0.2), nn.Linear(hidden, 10))


def main(argv: Sequence[str] | None = None) -> float:
    """Train; returns the test accuracy."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--hidden", type=int, default=256)
    arguments = parser.parse_args(argv)

    (x_train, y_train), (x_test, y_test) = gc.data.mnist()
    x_train, x_test = x_train.astype(np.float32) / 255, x_test.astype(np.float32) / 255

    model = network(arguments.hidden)
    model.compile(loss="cross_entropy", optimizer=optim.SGD(lr=0.1, momentum=0.9), metrics=["accuracy"])
    model.fit(x_train, y_train, epochs=arguments.epochs, batch_size=64, seed=0)
    model.summary()
    scores = model.evaluate(x_test, y_test)
    print(f"test accuracy {scores['accuracy']:.2%}")

    guesses = model.predict(x_test).argmax(axis=1)
    wrong = np.flatnonzero(guesses != y_test)
    print("first mistakes (digit -> guess):", ", ".join(f"{y_test[i]} -> {guesses[i]}" for i in wrong[:8]))

    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "mlp.safetensors"
        model.save(file)
        twin = network(arguments.hidden)
        twin.load(file)
        assert np.array_equal(twin.predict(x_test), model.predict(x_test))

    step = model.program("train")
    print(f"a training step is {len(step.kernels)} kernels:", ", ".join(step.kernels))
    return scores["accuracy"]


if __name__ == "__main__":
    main()
