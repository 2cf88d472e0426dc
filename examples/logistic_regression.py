"""Logistic regression on four points, written down as on a slide: data, prediction, loss, gradient, descent.

    python examples/logistic_regression.py

The slide's sigma is (tanh(a) + 1) / 2, which is the logistic function at 2a, and its loss is a sum, no mean.
"""

from __future__ import annotations

import numpy as np

import graphc as gc

POINTS = np.array([[0.52, 1.12, 0.77], [0.88, -1.08, 0.15], [0.52, 0.06, -1.30], [0.74, -2.49, 1.39]], np.float32)
LABELS = np.array([1, 1, 0, 1], np.float32)


def main(steps: int = 100, rate: float = 0.01) -> tuple[float, float, np.ndarray]:
    """Descend from zero; returns the loss before and after, and the weights."""
    x, t = gc.input("x", ("N", 3)), gc.input("t", ("N",))
    w = gc.param("w", (3,), init=0.0)

    y = 0.5 * (gc.tanh(x @ w) + 1)
    loss = -gc.sum(gc.log(y * t + (1 - y) * (1 - t)))
    gradient = gc.grad(loss, w)

    descend = gc.compile([x, t], [loss], updates={w: w - rate * gradient})
    look = gc.compile([x, t], [loss, gradient, y])

    before = float(look(POINTS, LABELS)[0])
    for _ in range(steps):
        descend(POINTS, LABELS)
    after, slope, predictions = look(POINTS, LABELS)

    print(f"loss {before:.6f} before, {float(after):.6f} after {steps} steps of {rate}")
    print("weights ", np.array2string(w.value, precision=6, suppress_small=True))
    print("gradient", np.array2string(slope, precision=6, suppress_small=True))
    for point, label, prediction in zip(POINTS, LABELS, predictions, strict=True):
        print(f"  {point} is {'in' if label else 'not in'} the class: probability {prediction:.3f}")

    # The gradient that was used is that of the loss: it agrees with central differences.
    error = gc.check_gradients(loss, [w], {x: POINTS, t: LABELS})
    print(f"largest error of the gradient against central differences: {error:.1e}")
    return before, float(after), w.value


if __name__ == "__main__":
    main()
