"""Combiners: associative combinations of tuples, with which kernels accumulate, each stated in the scalar language.

A reduction over no points gives the identity. The element of `argmax` and `firstmax` is (value, index), of `welford`
(value, 0, 1), of `logsumexp` (value, 1).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from graphc.errors import VerifyError
from graphc.ir.types import DType, i32
from graphc.kernel.expr import Apply, Const, Expr, Name, dtype_of
from graphc.kernel.form import Combiner


def _apply(primitive: str, *args: Expr | str) -> Expr:
    return Apply(primitive, tuple(Name(a) if isinstance(a, str) else a for a in args))


def _takes_right(comparison: str) -> Expr:
    """The right pair wins if strictly better, or equal (or both NaN) with the smaller index; a NaN beats a number."""
    a_nan, b_nan = _apply("ne", "a0", "a0"), _apply("ne", "b0", "b0")  # as isnan, but for integers too
    a_number = _apply("not", a_nan)
    better = _apply("and", _apply(comparison, "b0", "a0"), a_number)
    only_b_nan = _apply("and", b_nan, a_number)
    tie = _apply("or", _apply("eq", "a0", "b0"), _apply("and", a_nan, b_nan))
    earlier = _apply("and", tie, _apply("lt", "b1", "a1"))
    return _apply("or", better, _apply("or", only_b_nan, earlier))


def _extremum(name: str, comparison: str, identity: str) -> Combiner:
    right = _takes_right(comparison)
    doc = f"{name}: the extreme value and its first index; NaN wins, as in NumPy"
    combine = (_apply("where", right, "b0", "a0"), _apply("where", right, "b1", "a1"))
    return Combiner(name, (identity, "max"), combine, doc)


def _first_maximum() -> Combiner:
    """Half the work of `argmax`: in order, the left of two equal values is the first. Index -1 marks no element."""
    greater = _apply("not", _apply("le", "b0", "a0"))  # or one of them is a NaN
    right = _apply("or", _apply("and", greater, _apply("eq", "a0", "a0")), _apply("lt", "a1", Const(0, i32)))
    doc = "firstmax: the greatest value and the i32 index of its first element, elements in order; NaN wins"
    combine = (_apply("where", right, "b0", "a0"), _apply("where", right, "b1", "a1"))
    return Combiner("firstmax", ("min", -1), combine, doc)


def _welford() -> Combiner:
    """Chan, Golub, LeVeque, "Updating formulae and a pairwise algorithm for computing sample variances" (1979).

    Adding an empty part (count 0) changes nothing; testing for that also keeps 0/0 out of the identity.
    """
    count = _apply("add", "a2", "b2")
    nonempty = _apply("ne", count, "a2")
    delta = _apply("sub", "b0", "a0")
    share = _apply("mul", delta, _apply("div", "b2", count))
    mean = _apply("where", nonempty, _apply("add", "a0", share), "a0")
    spread = _apply("mul", share, _apply("mul", delta, "a2"))
    m2 = _apply("where", nonempty, _apply("add", _apply("add", "a1", "b1"), spread), "a1")
    return Combiner("welford", (0, 0, 0), (mean, m2, count), "mean, sum of squared deviations from it, count")


def _logsumexp() -> Combiner:
    """Milakov, Gimelshein, "Online normalizer calculation for softmax" (2018): m = max x, s = sum of exp(x - m).

    The side that holds the maximum keeps its sum as it is, so that infinite maxima give no `inf - inf`.
    """
    greatest = _apply("max", "a0", "b0")

    def rescaled(value: str, total: str) -> Expr:
        factor = _apply("exp", _apply("sub", value, greatest))
        return _apply("where", _apply("eq", value, greatest), total, _apply("mul", total, factor))

    total = _apply("add", rescaled("a0", "a1"), rescaled("b0", "b1"))
    return Combiner("logsumexp", ("min", 0), (greatest, total), "running maximum m and sum of exp(x - m)")


COMBINERS: dict[str, Combiner] = {
    combiner.name: combiner
    for combiner in (
        Combiner("sum", (0,), (_apply("add", "a0", "b0"),), "sum"),
        Combiner("prod", (1,), (_apply("mul", "a0", "b0"),), "product"),
        Combiner("max", ("min",), (_apply("max", "a0", "b0"),), "maximum; NaN wins"),
        Combiner("min", ("max",), (_apply("min", "a0", "b0"),), "minimum; NaN wins"),
        _extremum("argmax", "gt", "min"),
        _extremum("argmin", "lt", "max"),
        _first_maximum(),
        _welford(),
        _logsumexp(),
    )
}


def combiner(name: str) -> Combiner:
    """The combiner called `name`. Raises VerifyError if there is none."""
    if name not in COMBINERS:
        raise VerifyError(f"combiner {name!r} does not exist; there are: {', '.join(COMBINERS)}")
    return COMBINERS[name]


def check_components(combiner: Combiner, dtypes: Sequence[DType]) -> None:
    """Raise VerifyError unless the combiner has one component for each dtype and gives each of them its dtype back."""
    if len(dtypes) != combiner.arity:
        raise VerifyError(f"combiner {combiner.name!r} has {combiner.arity} component(s), it is given {len(dtypes)}")
    names = {f"{side}{k}": dtype for side in "ab" for k, dtype in enumerate(dtypes)}
    for k, (expr, dtype) in enumerate(zip(combiner.combine, dtypes, strict=True)):
        found = dtype_of(expr, {}, names)
        if found != dtype:
            raise VerifyError(f"combiner {combiner.name!r} makes component {k} {found}, it is given {dtype}")


def identity_values(combiner: Combiner, dtypes: Sequence[DType]) -> tuple[float | int, ...]:
    """The neutral components for the given dtypes: "min" and "max" are the infinities of a float dtype."""
    return tuple(_identity_value(v, dtype) for v, dtype in zip(combiner.identity, dtypes, strict=True))


def _identity_value(value: float | str, dtype: DType) -> float | int:
    if not isinstance(value, str):
        return float(value) if dtype.is_float else int(value)
    if dtype.is_float:
        return float("-inf" if value == "min" else "inf")
    limits = np.iinfo(dtype.numpy)
    return int(limits.min if value == "min" else limits.max)
