"""Back-propagation as pictures: two circuits with values above the wires and gradients below them, step by step.

    python examples/circuits.py [FOLDER]

prints the circuits as text and, with `pip install "graphc[draw]"` and a folder, draws them and every step as SVG.
"""

from __future__ import annotations

import sys
from pathlib import Path

import graphc as gc
from graphc.errors import MissingExtraError
from graphc.inspect.circuit import Circuit


def product_of_sum() -> Circuit:
    """f = (x + y) z: an addition hands its gradient on, a product exchanges its operands."""
    x, y, z = gc.input("x", ()), gc.input("y", ()), gc.input("z", ())
    return gc.circuit((x + y) * z, at={x: -2, y: 5, z: -4})


def neuron() -> Circuit:
    """A sigmoid neuron in single steps: f = 1 / (1 + exp(-(w0 x0 + w1 x1 + w2)))."""
    w0, w1, w2 = (gc.input(f"w{k}", ()) for k in range(3))
    x0, x1 = gc.input("x0", ()), gc.input("x1", ())
    f = 1 / (1 + gc.exp(-(w0 * x0 + w1 * x1 + w2)))
    return gc.circuit(f, at={w0: 2, w1: -3, w2: -3, x0: -1, x1: -2})


def compact_neuron() -> Circuit:
    """The same neuron with its sigmoid as one gate, whose derivative f (1 - f) needs the result only."""
    w0, w1, w2 = (gc.input(f"w{k}", ()) for k in range(3))
    x0, x1 = gc.input("x0", ()), gc.input("x1", ())
    s = w0 * x0 + w1 * x1 + w2
    return gc.circuit(gc.sigmoid(s), at={w0: 2, w1: -3, w2: -3, x0: -1, x1: -2}, names={s: "s"})


def layer() -> Circuit:
    """A layer with its loss: gates of arrays show the rule that passes the gradient back, such as `grad h @ Wᵀ`."""
    x, t, W = gc.input("x", (1, 2)), gc.input("t", (1, 3)), gc.param("W", (2, 3))
    W.value = [[0.5, -0.25, 0], [1, 0.5, -1]]
    h = x @ W
    return gc.circuit(gc.mse_loss(gc.tanh(h), t), at={x: [[1, -1]], t: [[0, 0, 1]]}, names={h: "h"})


CIRCUITS = {"product_of_sum": product_of_sum, "neuron": neuron, "compact_neuron": compact_neuron, "layer": layer}


def main(folder: str | None = None) -> dict[str, Circuit]:
    """Print every circuit, and the steps of the first; draw them into `folder`. Returns them by name."""
    circuits = {name: make() for name, make in CIRCUITS.items()}
    for name, circuit in circuits.items():
        print(f"{name}\n\n{circuit}\n")
    print("product_of_sum, backward step by step\n")
    for step in circuits["product_of_sum"].frames():
        print(f"{step}\n")
    if folder is not None:
        draw(circuits, Path(folder))
    return circuits


def draw(circuits: dict[str, Circuit], folder: Path) -> None:
    """Save each circuit as `NAME.svg` and its steps as `NAME-0.svg`, `NAME-1.svg`, ..."""
    folder.mkdir(parents=True, exist_ok=True)
    try:
        for name, circuit in circuits.items():
            circuit.save(folder / f"{name}.svg")
            for number, step in enumerate(circuit.frames()):
                step.save(folder / f"{name}-{number}.svg")
        print(f"pictures are in {folder}")
    except MissingExtraError as error:
        print(f"no pictures: {error}")


if __name__ == "__main__":
    main(*sys.argv[1:2])
