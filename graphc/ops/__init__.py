"""The ops, by family. Importing this package enters them all into the registry `graphc.ir.op.OPS`."""

from __future__ import annotations

from graphc.ops import (
    activations,
    contraction,
    control,
    cumulative,
    derivatives,
    einsum,
    elementwise,
    indexing,
    loss,
    movement,
    picking,
    random,
    reduction,
    rounding,
    scalar_function,
    shape,
    sorting,
    statistics,
    transcendental,
)

__all__ = [
    "activations",
    "contraction",
    "control",
    "cumulative",
    "derivatives",
    "einsum",
    "elementwise",
    "indexing",
    "loss",
    "movement",
    "picking",
    "random",
    "reduction",
    "rounding",
    "scalar_function",
    "shape",
    "sorting",
    "statistics",
    "transcendental",
]
