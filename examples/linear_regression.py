"""Linear regression by gradient descent, written with tensors: inputs, parameters, a gradient, one compiled step.

    python examples/linear_regression.py
"""

from __future__ import annotations

import numpy as np

import graphc as gc


def main() -> tuple[np.ndarray, float]:
    """Recover y = 2 x0 - 3 x1 + 0.5 from noisy points; returns the weights and the bias found."""
    rng = np.random.default_rng(0)
    points = rng.standard_normal((200, 2)).astype(np.float32)
    values = points @ np.array([2.0, -3.0], np.float32) + 0.5 + 0.1 * rng.standard_normal(200).astype(np.float32)

    # Declared once: N is however many rows a call brings.
    x, y = gc.input("x", ("N", 2)), gc.input("y", ("N",))
    w, b = gc.param("w", (2,)), gc.param("b")
    loss = gc.mse_loss(x @ w + b, y)
    grad_w, grad_b = gc.grad(loss, [w, b])
    step = gc.compile([x, y], [loss], updates={w: w - 0.1 * grad_w, b: b - 0.1 * grad_b})

    for epoch in range(60):
        (error,) = step(points, values)
        if epoch % 10 == 0:
            print(f"step {epoch:2}  mean squared error {error:.4f}")
    print(f"w = {w.value.round(3)}, b = {float(b.value):.3f}; the points came from w = [2, -3], b = 0.5")
    return w.value, float(b.value)


if __name__ == "__main__":
    main()
