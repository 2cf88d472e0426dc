"""Every activation function with its derivative, as numbers from one compiled program and as a picture.

    python examples/activations.py [--picture activations.png]

The picture needs Matplotlib: pip install matplotlib.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence

import numpy as np

import graphc as gc
from graphc import nn

X = np.linspace(-4, 4, 401, dtype=np.float32)
Curves = dict[str, tuple[np.ndarray, np.ndarray]]


def of_two_classes(function: Callable[..., gc.Symbol]) -> Callable[[gc.Symbol], gc.Symbol]:
    """The first of two outputs, where the second class has logit 0."""
    return lambda x: gc.sum(function(x[:, None] * np.array([1.0, 0.0]), axis=1) * np.array([1.0, 0.0]), axis=1)


def maxout() -> Callable[[gc.Symbol], gc.Symbol]:
    """The greater of 0.8 x - 0.5 and -0.4 x - 1."""
    module = nn.Maxout(1, 1, pieces=2)
    module.load_state_dict({"affine.weight": np.array([[0.8], [-0.4]]), "affine.bias": np.array([-0.5, -1.0])})
    return lambda x: module(x[:, None]).reshape(-1)


def functions() -> dict[str, Callable[[gc.Symbol], gc.Symbol]]:
    """The functions by name."""
    return {
        "Identity": nn.Identity(),
        "Heaviside": gc.heaviside,
        "Sign": gc.sign,
        "Sigmoid": gc.sigmoid,
        "Tanh": gc.tanh,
        "Softsign": gc.softsign,
        "Hard tanh": gc.hardtanh,
        "Hard sigmoid": gc.hardsigmoid,
        "Gaussian": gc.gaussian,
        "ReLU": gc.relu,
        "Leaky ReLU 0.01": gc.leaky_relu,
        "Leaky ReLU 0.1": lambda x: gc.leaky_relu(x, 0.1),
        "Parametric ReLU 0.25": nn.PReLU(init=0.25),
        "Noisy ReLU": gc.noisy_relu,
        "ELU": gc.elu,
        "SELU": gc.selu,
        "Softplus": gc.softplus,
        "GELU": gc.gelu,
        "GELU by tanh": lambda x: gc.gelu(x, approximate="tanh"),
        "SiLU": gc.silu,
        "Maxout": maxout(),
        "Softmax of (x, 0)": of_two_classes(gc.softmax),
        "Log-softmax of (x, 0)": of_two_classes(gc.log_softmax),
    }


def curves() -> Curves:
    """Values and derivatives at `X` by name. One program computes them all."""
    x = gc.input("x", ("N",))
    values = {name: function(x) for name, function in functions().items()}
    slopes = [gc.grad(gc.sum(value), x) for value in values.values()]  # each value depends on its own x alone
    results = gc.compile([x], [*values.values(), *slopes], dims={"N": len(X)})(X)
    pairs = zip(results[: len(values)], results[len(values) :], strict=True)
    return dict(zip(values, pairs, strict=True))


def draw(found: Curves, path: str) -> None:
    """Write a picture with one panel for each function. Raises SystemExit where Matplotlib is missing."""
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError:
        raise SystemExit("the picture needs Matplotlib: pip install matplotlib") from None
    columns = 5
    figure = Figure(figsize=(15, 2.6 * -(-len(found) // columns)), layout="constrained")
    FigureCanvasAgg(figure)
    for position, (name, (value, slope)) in enumerate(found.items()):
        panel = figure.add_subplot(-(-len(found) // columns), columns, position + 1)
        panel.axhline(0, color="0.8", linewidth=0.8)
        panel.axvline(0, color="0.8", linewidth=0.8)
        panel.plot(X, value, color="tab:blue", label="value")
        panel.plot(X, slope, color="tab:orange", linestyle="--", label="derivative")
        panel.set_title(name, fontsize=10)
        panel.set_xlim(-4, 4)
    figure.legend(*panel.get_legend_handles_labels(), loc="outside lower center", ncols=2)
    figure.savefig(path, dpi=100)


def main(arguments: Sequence[str] | None = None) -> Curves:
    """Print values and derivatives at a few points and draw the picture; returns the curves."""
    parser = argparse.ArgumentParser(description="Activation functions with their derivatives.")
    parser.add_argument("--picture", metavar="FILE", help="write the curves to FILE, such as activations.png")
    options = parser.parse_args(arguments)
    found = curves()
    shown = [int(np.abs(X - at).argmin()) for at in (-2, -1, 0, 1, 2)]
    print(f"{'value, derivative at x =':24}" + "".join(f"{X[k]:16.1f}" for k in shown))
    for name, (value, slope) in found.items():
        print(f"{name:24}" + "".join(f"{value[k]:8.3f},{slope[k]:7.3f}" for k in shown))
    if options.picture:
        draw(found, options.picture)
        print(f"written: {options.picture}")
    return found


if __name__ == "__main__":
    main()
