"""XOR with a hidden layer, written with modules: no line separates its classes, so a linear model cannot learn it.

    python examples/xor.py
"""

from __future__ import annotations

import numpy as np

import graphc as gc
from graphc import nn, optim


def main() -> np.ndarray:
    """Train on the four cases; returns the four probabilities of a 1."""
    cases = np.array([[0, 0], [0, 1], [1, 0], [1, 1]], np.float32)
    answers = np.array([[0], [1], [1], [0]], np.float32)

    model = nn.Sequential(nn.Linear(2, 8), nn.Tanh(), nn.Linear(8, 1))
    model.compile(loss="binary_cross_entropy_with_logits", optimizer=optim.Adam(lr=0.05), seed=1)
    history = model.fit(cases, answers, epochs=200, batch_size=4, verbose=0).history
    print(f"loss {history['loss'][0]:.3f} before, {history['loss'][-1]:.4f} after 200 epochs")

    # The same parameters in a program of one's own, here with the sigmoid that the loss has built in.
    x = gc.input("x", ("N", 2))
    (probabilities,) = gc.compile([x], [gc.sigmoid(model(x))])(cases)
    for case, probability in zip(cases, probabilities[:, 0], strict=True):
        print(f"{case[0]:.0f} xor {case[1]:.0f}: {probability:.3f}")
    return probabilities[:, 0]


if __name__ == "__main__":
    main()
