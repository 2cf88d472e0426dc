"""Metrics by name, for `model.compile(metrics=["accuracy"])`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

from graphc.dsl import elementwise, functions
from graphc.dsl.symbol import Symbol
from graphc.errors import AttributeValueError, ShapeError

Metric: TypeAlias = Callable[[Any, Any], Symbol]
"""(outputs, targets) -> scalar symbol, the mean over the batch."""


def accuracy(outputs: Symbol, targets: Symbol) -> Symbol:
    """The share of rows whose greatest output is that of the class: outputs `[N,C]`, integer labels `[N]`."""
    if not targets.dtype.is_integer or outputs.ndim != 2 or targets.ndim != 1:
        raise ShapeError(
            f"accuracy compares outputs [N,C] with integer labels [N], got {outputs!r} and {targets!r}; "
            "for targets 0 and 1 use 'binary_accuracy'"
        )
    predicted = functions.argmax(outputs, axis=1)
    return functions.mean(elementwise.equal(predicted, targets.astype(predicted.dtype)))


def binary_accuracy(outputs: Symbol, targets: Symbol) -> Symbol:
    """The share of elements whose logit has the right sign: outputs and targets (0 or 1) of the same shape."""
    if outputs.shape != targets.shape:
        raise ShapeError(f"binary_accuracy compares tensors of one shape, got {outputs!r} and {targets!r}")
    hits = elementwise.where(outputs > 0, targets > 0, elementwise.logical_not(targets > 0))
    return functions.mean(hits)


def mean_absolute_error(outputs: Symbol, targets: Symbol) -> Symbol:
    """The mean of |output - target|."""
    return functions.mean(elementwise.abs(outputs - targets))


METRICS: dict[str, Metric] = {
    "accuracy": accuracy,
    "binary_accuracy": binary_accuracy,
    "mean_absolute_error": mean_absolute_error,
    "mae": mean_absolute_error,
}


def find_metrics(metrics: Sequence[Metric | str] | Metric | str) -> dict[str, Metric]:
    """Metrics, or a single one, by the names they have in the history.

    Raises AttributeValueError for an unknown or repeated name.
    """
    found: dict[str, Metric] = {}
    for metric in [metrics] if isinstance(metrics, str) or callable(metrics) else metrics:
        if isinstance(metric, str) and metric not in METRICS:
            raise AttributeValueError(f"metric {metric!r} is unknown; use a function or one of: {', '.join(METRICS)}")
        name = metric if isinstance(metric, str) else getattr(metric, "__name__", type(metric).__name__)
        if name in found or name == "loss":
            raise AttributeValueError(f"two metrics are called {name!r}; rename a function")
        found[name] = METRICS[metric] if isinstance(metric, str) else metric
    return found
