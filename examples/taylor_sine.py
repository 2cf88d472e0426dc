"""The sine as a Taylor series with as many terms as its argument needs, and its gradient through the loop.

    python examples/taylor_sine.py

The number of turns depends on the data: terms are added until one is at most 0.001. In Python one would write `while`;
here the loop is part of the compiled program, and so is the loop that walks it back for the gradient.
"""

from __future__ import annotations

import math

import numpy as np

import graphc as gc


def taylor_sine(x: gc.Symbol, bound: int = 20) -> tuple[gc.Symbol, gc.Symbol]:
    """The sum of the terms, and how many were added to the first one; gradients need a bound on these."""

    def more(total: gc.Symbol, term: gc.Symbol, i: gc.Symbol) -> gc.Symbol:
        return gc.abs(term) > 0.001

    def add_term(total: gc.Symbol, term: gc.Symbol, i: gc.Symbol) -> tuple[gc.Symbol, ...]:
        term = -term * x**2 / ((2 * i + 3) * (2 * i + 2))
        return total + term, term, i + 1

    total, _, i = gc.while_loop(more, add_term, (x, x, 0.0), bound=bound)
    return total, i


def main() -> dict[float, tuple[float, float]]:
    """Print and return the value and the gradient at some points."""
    x = gc.input("x")
    value, terms = taylor_sine(x)
    slope = gc.grad(value, x)
    curvature = gc.grad(slope, x)
    program = gc.compile([x], [value, slope, curvature, terms])

    found = {}
    print("     x   terms   value      gradient   (cos x)     second     (-sin x)")
    for at in (0.5, 1.0, math.pi / 2, math.pi, 5.0):
        y, dy, ddy, n = (float(result) for result in program(at))
        print(f"{at:6.3f}   {n:5.0f}  {y:9.6f}  {dy:9.6f}  {math.cos(at):9.6f}  {ddy:9.6f}  {-math.sin(at):9.6f}")
        found[at] = y, dy
    print(f"the gradient of sin(pi) is {found[math.pi][1]:.6f}")

    error = gc.check_gradients(value, [x], {x: np.float32(math.pi)}, order=2)
    print(f"largest error of the second derivative against central differences: {error:.1e}")
    return found


if __name__ == "__main__":
    main()
