"""Random tensors: counter-based, so that the same seed gives the same bits on every device and thread count.

A random op reads the program's `[seed, step]` (an implicit graph input named `rng`) and a stream number of its own,
which is assigned when the declared graph is collected; so every call of these functions draws other numbers, in every
step of the program again.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from graphc.dsl import declare
from graphc.dsl.declare import Operand
from graphc.dsl.symbol import Symbol, elementwise, unwrap
from graphc.errors import AttributeValueError, ShapeError
from graphc.ir.dims import Dim, Poly, as_dim
from graphc.ir.graph import Value
from graphc.ir.types import TensorType, as_dtype, i64

__all__ = ["RNG", "bernoulli", "uniform"]

RNG = Value(TensorType(i64, (2,)), name="rng")
"""The graph input that holds `[seed, step]`; the runtime gives its value."""


def uniform(shape: Sequence[int | str | Poly] | Operand = (), low: float = 0.0, high: float = 1.0) -> Symbol:
    """Independent float32 numbers in [low, high). `shape` may hold dimension symbols: `uniform(x.shape)`.

    Raises AttributeValueError for bounds that are no numbers in this order; equal bounds give that number.
    """
    dims = _shape(shape)
    if isinstance(low, Symbol) or isinstance(high, Symbol) or not low <= high:
        raise AttributeValueError(f"gc.random.uniform: low must be a number of at most high, got {low!r}, {high!r}")
    value = Symbol(declare.apply("uniform", RNG, shape=dims))
    if (low, high) == (0.0, 1.0):
        return value
    # u (high - low) + low is rounded, and may be rounded up to `high`.
    largest = np.nextafter(np.float32(high), np.float32(low))
    return elementwise("minimum", value * (high - low) + low, float(largest))


def bernoulli(p: Operand, shape: Sequence[int | str | Poly] | None = None) -> Symbol:
    """Ones with probability `p`, else zeros, float32. `p` is a symbol, or a number together with `shape`.

    A sample has no gradient with respect to `p`.
    """
    probability = unwrap(p)
    if shape is None:
        if not isinstance(probability, Value):
            raise ShapeError("gc.random.bernoulli: a constant probability needs a shape: bernoulli(0.5, (3, 4))")
        shape = probability.type.shape
    if isinstance(p, (int, float)) and not 0 <= p <= 1:
        raise AttributeValueError(f"gc.random.bernoulli: a probability lies in 0 ... 1, got {p}")
    if isinstance(probability, Value):
        probability = declare.apply("stop_gradient", probability)
        if probability.type.dtype.name == "f64":
            probability = declare.cast(probability, as_dtype("float32"))
        probability = declare.broadcast_to(probability, shape)
    drawn = uniform(shape)
    return (drawn < Symbol(probability) if isinstance(probability, Value) else drawn < probability).astype("float32")


def _shape(shape: Sequence[int | str | Poly] | Operand) -> tuple[Dim, ...]:
    if isinstance(shape, Symbol):
        raise ShapeError("gc.random.uniform takes a shape, got a symbol; write uniform(x.shape)")
    sizes = shape if isinstance(shape, (tuple, list)) else (shape,)
    return tuple(as_dim(size) for size in sizes)
