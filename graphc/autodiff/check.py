"""Checking gradients against central differences, in float64 on the reference interpreter."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import reduce
from typing import Any

import numpy as np

from graphc.autodiff.expand import expand_derivatives
from graphc.autodiff.reverse import gradients
from graphc.errors import GradientError
from graphc.interpret import evaluate
from graphc.ir.builder import Builder
from graphc.ir.graph import Graph, Value
from graphc.ir.types import f64

# The step that balances the truncation error h^2 against the rounding error eps/h.
STEP = float(np.finfo(np.float64).eps) ** (1 / 3)


def check_gradients(
    graph: Graph, inputs: Mapping[str, Any], wrt: Sequence[str], order: int = 1, rtol: float = 1e-6
) -> float:
    """Compare the gradients of a graph by the inputs named in `wrt` with central differences; the largest error.

    Outputs of any shape are weighted with fixed numbers and summed to a scalar; `order=2` differentiates the
    weighted sum of that scalar's gradients once more. Errors are relative to the greatest of 1 and the gradient's
    largest element. Raises GradientError that names the worst element when one exceeds `rtol`. At a kink the two
    differ by nature: choose other inputs.
    """
    if order not in (1, 2):
        raise GradientError(f"order={order} is not 1 or 2")
    arrays = {name: np.asarray(array) for name, array in inputs.items()}
    arrays |= {name: arrays[name].astype(np.float64) for name in wrt}
    scalar = _scalarise(expand_derivatives(graph), arrays)
    for _ in range(order - 1):
        scalar = _scalarise(_gradient_graph(scalar, wrt), arrays)
    found = evaluate(_gradient_graph(scalar, wrt), arrays)
    return max((_compare(scalar, arrays, name, g, rtol) for name, g in zip(wrt, found, strict=True)), default=0.0)


def _scalarise(graph: Graph, arrays: dict[str, np.ndarray]) -> Graph:
    """One scalar output: the sum of all float outputs, each element times its own weight.

    Weights are further inputs, put into `arrays`: so shapes with symbols need no binding.
    """
    b = Builder()
    terms: list[Value] = []
    weights: list[Value] = []
    for value, sample in zip(graph.outputs, evaluate(graph, arrays), strict=True):
        if value.type.dtype.is_float:
            weight = Value(value.type.with_dtype(f64), name=f"{graph.name}.weight{len(weights)}")
            arrays[weight.name] = np.cos(np.arange(sample.size) + 1.0).reshape(sample.shape)
            weighted = b.elementwise("mul", b.cast(value, dtype=f64), weight)
            terms.append(b.sum(weighted, axes=tuple(range(value.type.rank))))
            weights.append(weight)
    if not terms:
        raise GradientError(f"{graph.name} has no float output to differentiate")
    total = reduce(lambda x, y: b.elementwise("add", x, y), terms)
    return Graph(graph.name, (*graph.inputs, *weights), (total,))


def _gradient_graph(scalar: Graph, wrt: Sequence[str]) -> Graph:
    by_name = {value.name: value for value in scalar.inputs}
    values, b = [by_name[name] for name in wrt], Builder()
    (loss,) = scalar.outputs
    found = gradients([loss], [b.constant(1, loss.type.dtype)], values, b)
    filled = tuple(b.full(0, v.type) if g is None else g for v, g in zip(values, found, strict=True))
    return Graph(f"{scalar.name}_gradient", scalar.inputs, filled)


def _compare(scalar: Graph, arrays: Mapping[str, np.ndarray], name: str, symbolic: np.ndarray, rtol: float) -> float:
    numeric = _central_differences(scalar, arrays, name)
    scale = max(1.0, float(np.max(np.abs(numeric), initial=0.0)))
    errors = np.abs(symbolic - numeric) / scale
    if not errors.size:
        return 0.0
    worst = np.unravel_index(int(np.argmax(errors)), errors.shape)
    if not errors[worst] <= rtol:  # a NaN fails as well
        index = ", ".join(str(int(k)) for k in worst)
        values = f"symbolic {symbolic[worst]:.9g}, central difference {numeric[worst]:.9g}"
        raise GradientError(
            f"{scalar.name}: gradient by {name}[{index}]: {values} (relative error {errors[worst]:.2g})"
        )
    return float(errors[worst])


def _central_differences(scalar: Graph, arrays: Mapping[str, np.ndarray], name: str) -> np.ndarray:
    """(L(x + h) - L(x - h)) / 2h for every element of one input."""
    base = arrays[name]
    result = np.zeros(base.shape)
    for index in np.ndindex(*base.shape):
        values = []
        moved = [base[index] + sign * STEP * max(1.0, abs(base[index])) for sign in (1, -1)]
        for position in moved:
            changed = base.copy()
            changed[index] = position
            values.append(float(evaluate(scalar, {**arrays, name: changed})[0]))
        result[index] = (values[0] - values[1]) / (moved[0] - moved[1])
    return result
