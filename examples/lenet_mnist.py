"""LeNet on handwritten digits: train, look at the filters, and at what the compiler made of a convolution.

    python examples/lenet_mnist.py [--epochs 3] [--images 10000]
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence

import numpy as np

import graphc as gc
from graphc import models, optim


def images(pixels: np.ndarray) -> np.ndarray:
    """uint8 `[n, 28, 28]` as float32 `[n, 1, 28, 28]` from 0 to 1: one channel."""
    return pixels[:, None].astype(np.float32) / 255


def shade(values: np.ndarray) -> list[str]:
    """A filter as characters, dark to light."""
    levels = " .:-=+*#%@"
    scaled = (values - values.min()) / (values.max() - values.min())
    return ["".join(2 * levels[int(v * (len(levels) - 1))] for v in row) for row in scaled]


def main(argv: Sequence[str] | None = None) -> float:
    """Train; returns the test accuracy."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--images", type=int, default=10_000)
    arguments = parser.parse_args(argv)

    (x_train, y_train), (x_test, y_test) = gc.data.mnist()
    model = models.lenet()
    model.compile(loss="cross_entropy", optimizer=optim.Adam(lr=0.002), metrics=["accuracy"])
    model.fit(images(x_train[: arguments.images]), y_train[: arguments.images], epochs=arguments.epochs,
              batch_size=64, seed=0)  # fmt: skip
    scores = model.evaluate(images(x_test), y_test)
    print(f"test accuracy {scores['accuracy']:.2%}")

    filters = [shade(kernel) for kernel in model.state_dict()["0.weight"][:, 0]]
    print("\nthe six filters of the first layer:")
    print("\n".join("   ".join(row) for row in zip(*filters, strict=True)))

    # A convolution is a sum of products over affine indices. So are its gradients: the same three tensors, exchanged.
    print("\nconvolutions of a training step:")
    nodes = next(stage for stage in model.program("train").stages if stage.name == "differentiate").after.nodes
    contractions = [node for node in nodes if node.op.name == "contract"]
    for module, equation in dict.fromkeys((node.origin.module, node.attributes["equation"]) for node in contractions):
        print(f"{module:8} {equation}")
    return scores["accuracy"]


if __name__ == "__main__":
    main()
