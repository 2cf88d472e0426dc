"""Random tensors: counter-based, so that the same seed gives the same bits on every device and thread count.

A random op reads the program's `[seed, step]` (an implicit graph input named `rng`) and a stream number of its own,
which is assigned when the declared graph is collected; so every call of these functions draws other numbers, in every
step of the program again, and inside `gc.scan` and `gc.while_loop` in every turn.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from graphc.dsl import declare, indexing, reducing
from graphc.dsl.declare import Operand
from graphc.dsl.elementwise import clip
from graphc.dsl.origin import here
from graphc.dsl.regions import RNG, random_state
from graphc.dsl.symbol import Symbol, elementwise, unwrap, where
from graphc.errors import AttributeValueError, DTypeError, ShapeError
from graphc.ir.builder import explain
from graphc.ir.dims import Dim, Poly, as_dim
from graphc.ir.graph import Value
from graphc.ir.types import as_dtype

__all__ = ["RNG", "bernoulli", "categorical", "gumbel", "normal", "permutation", "truncated_normal", "uniform"]

Shape = Sequence[int | str | Poly] | int | str | Poly


def uniform(shape: Shape | Operand = (), low: float = 0.0, high: float = 1.0) -> Symbol:
    """Independent float32 numbers in [low, high). `shape` may hold dimension symbols: `uniform(x.shape)`.

    Raises AttributeValueError for bounds that are no numbers in this order; equal bounds give that number.
    """
    dims = _shape(shape)
    if isinstance(low, Symbol) or isinstance(high, Symbol) or not low <= high:
        raise AttributeValueError(f"gc.random.uniform: low must be a number of at most high, got {low!r}, {high!r}")
    value = Symbol(declare.apply("uniform", random_state(), shape=dims))
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


def normal(shape: Shape = (), mean: Operand = 0.0, std: Operand = 1.0) -> Symbol:
    """Independent normal numbers, float32; `mean` and `std` may be symbols, which have gradients.

    Two uniform numbers u, v with 24 bits give sqrt(-2 log(1 - u)) cos(2 pi v), so none is beyond 5.77 deviations.
    (Box, Muller, "A note on the generation of random normal deviates", 1958.)
    """
    radius = elementwise("sqrt", -2.0 * elementwise("log", 1.0 - uniform(shape)))
    return radius * elementwise("cos", 2 * math.pi * uniform(shape)) * std + mean


def truncated_normal(
    shape: Shape = (), mean: float = 0.0, std: float = 1.0, low: float = -2.0, high: float = 2.0
) -> Symbol:
    """Independent normal numbers that lie between `low` and `high`, float32, as in `torch.nn.init.trunc_normal_`.

    Uniform numbers go through the inverse of the distribution function, so none is rejected. Raises
    AttributeValueError for a range whose probability is below 0.001: 24 bits would not resolve it.
    """
    if not std > 0 or not low < high:
        raise AttributeValueError(f"truncated_normal: std={std} must be positive and low={low} below high={high}")
    first, last = (math.erf((bound - mean) / (std * math.sqrt(2))) for bound in (low, high))
    if last - first < 2e-3:
        reason = f"the range {low} to {high} has probability {(last - first) / 2:.2g} around mean {mean}, std {std}"
        raise AttributeValueError(f"truncated_normal: {reason}; widen it to 0.001 or more")
    limit = 1 - 2.0**-24  # the greatest float32 below 1, where the inverse is still finite
    spread = clip(uniform(shape, first, last), -limit, limit)
    return clip(std * math.sqrt(2) * _inverse_erf(spread) + mean, low, high)


# Polynomials in w = -log(1 - x^2), about 2.5 for the middle and in sqrt(w) about 3 for the tails; highest power first.
_MIDDLE = (2.81022636e-08, 3.43273939e-07, -3.5233877e-06, -4.39150654e-06, 0.00021858087, -0.00125372503,
           -0.00417768164, 0.246640727, 1.50140941)  # fmt: skip
_TAILS = (-0.000200214257, 0.000100950558, 0.00134934322, -0.00367342844, 0.00573950773, -0.0076224613, 0.00943887047,
          1.00167406, 2.83297682)  # fmt: skip


def _inverse_erf(x: Symbol) -> Symbol:
    """The inverse of erf to single precision, for -1 < x < 1. (Giles, "Approximating the erfinv function", 2011.)"""
    w = -elementwise("log", (1.0 - x) * (1.0 + x))
    middle, tails = _polynomial(_MIDDLE, w - 2.5), _polynomial(_TAILS, elementwise("sqrt", w) - 3.0)
    return where(w < 5.0, middle, tails) * x


def _polynomial(coefficients: Sequence[float], x: Symbol) -> Symbol:
    total: Symbol | float = coefficients[0]
    for coefficient in coefficients[1:]:
        total = total * x + coefficient
    assert isinstance(total, Symbol)
    return total


def gumbel(shape: Shape = ()) -> Symbol:
    """Independent numbers of the standard Gumbel distribution, -log(-log(u)), float32, between -2.9 and 16.7."""
    least = 2.0**-25  # half of the smallest step of u: a 0 must not become -inf
    return -elementwise("log", -elementwise("log", elementwise("maximum", uniform(shape), least)))


def categorical(logits: Operand, axis: int = -1) -> Symbol:
    """A class drawn for each row with probabilities softmax(logits) along `axis`, which is dropped; int64.

    It is the greatest of logits plus Gumbel noise, so that no probability is computed. (Gumbel, "Statistical Theory of
    Extreme Values", 1954; Maddison, Tarlow, Minka, "A* sampling", NeurIPS 2014.)
    """
    scores = declare.as_value(unwrap(logits))
    if not scores.type.dtype.is_float:
        reason = f"logits must be floating, got {scores.type}; for probabilities p write categorical(gc.log(p))"
        raise DTypeError(explain("categorical", [scores.type], reason, here()))
    noise = declare.cast(gumbel(scores.type.shape).ir, scores.type.dtype)
    total = declare.elementwise("add", declare.apply("stop_gradient", scores), noise)
    one = declare.one_axis("categorical", total, axis)
    return Symbol(reducing.argmax(total, one))


def permutation(x: int | str | Poly | Operand) -> Symbol:
    """The numbers 0 .. n-1 in random order, int64; or the rows of a tensor in random order.

    The positions are the ranks of n uniform numbers of 24 bits, equal ones (rare below some thousands) in order; so it
    takes n^2 steps.
    """
    given = unwrap(x)
    rows = given if isinstance(given, Value) else None
    if rows is not None and rows.type.rank == 0:
        raise ShapeError("gc.random.permutation: a scalar symbol has no rows; give a size or a tensor")
    count = rows.type.shape[0] if rows is not None else as_dim(given)
    order = declare.apply("ranks", uniform((count,)).ir, axis=0, descending=False)
    return Symbol(order if rows is None else indexing.take(rows, order, 0))


def _shape(shape: Sequence[int | str | Poly] | Operand) -> tuple[Dim, ...]:
    if isinstance(shape, Symbol):
        raise ShapeError("gc.random.uniform takes a shape, got a symbol; write uniform(x.shape)")
    sizes = shape if isinstance(shape, (tuple, list)) else (shape,)
    return tuple(as_dim(size) for size in sizes)
