"""Combiners are associative, have their identity, and reduce to what NumPy gives."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from graphc.errors import VerifyError
from graphc.ir.types import bool_, f32, f64, i32, i64, u8
from graphc.kernel.combiners import COMBINERS, check_components, combiner, identity_values
from graphc.kernel.expr import Apply, Const, Expr, Name
from graphc.kernel.primitives import PRIMITIVES

Tuple = Sequence[float]
INDEXED = {"argmax": (f64, i64), "argmin": (f64, i64), "firstmax": (f64, i32)}
DTYPES = {**INDEXED, "welford": (f64,) * 3, "logsumexp": (f64,) * 2}
NAMES = sorted(COMBINERS)


def dtypes(name: str) -> tuple:
    return DTYPES.get(name, (f64,))


def combine(name: str, left: Tuple, right: Tuple) -> tuple[float, ...]:
    values = {f"{side}{k}": np.asarray(v, d.numpy) for side, t in (("a", left), ("b", right))
              for k, (v, d) in enumerate(zip(t, dtypes(name), strict=True))}  # fmt: skip

    def value(e: Expr) -> np.ndarray:
        if isinstance(e, Name):
            return values[e.id]
        if isinstance(e, Const):
            return np.asarray(e.value, e.dtype.numpy)
        assert isinstance(e, Apply)
        return PRIMITIVES[e.primitive].numpy(*map(value, e.args))

    with np.errstate(all="ignore"):
        return tuple(value(e).item() for e in COMBINERS[name].combine)


def element(name: str, value: float, index: int) -> tuple[float, ...]:
    if name in INDEXED:
        return (value, index)
    return {"welford": (value, 0.0, 1.0), "logsumexp": (value, 1.0)}.get(name, (value,))


def reduce(name: str, values: Sequence[float], start: int = 0) -> tuple[float, ...]:
    total: tuple[float, ...] = identity_values(COMBINERS[name], dtypes(name))
    for index, value in enumerate(values, start=start):
        total = combine(name, total, element(name, value, index))
    return total


def same(a: Tuple, b: Tuple) -> None:
    np.testing.assert_allclose(np.array(a, float), np.array(b, float), rtol=1e-9, atol=1e-9)


numbers = st.one_of(st.sampled_from([0.0, 1.0, -1.0, 700.0, -math.inf]), st.floats(-20, 20))
anything = st.one_of(numbers, st.sampled_from([math.nan, math.inf]))


def allowed(name: str) -> st.SearchStrategy[float]:
    """Sums and variances of infinities are NaN in any order but not the same one; the others take anything."""
    return anything if name in ("max", "min", "argmax", "argmin", "firstmax", "logsumexp") else st.floats(-20, 20)


@pytest.mark.parametrize("name", NAMES)
def test_identity_is_neutral_on_both_sides(name: str) -> None:
    @given(numbers if name == "logsumexp" else allowed(name))  # NaN is its maximum, and its sum then means nothing
    def check(value: float) -> None:
        identity, one = identity_values(COMBINERS[name], dtypes(name)), element(name, value, 3)
        same(combine(name, identity, one), one)
        same(combine(name, one, identity), one)
        same(combine(name, identity, identity), identity)

    check()


@pytest.mark.parametrize("name", NAMES)
def test_combination_is_associative(name: str) -> None:
    values = st.lists(allowed(name), max_size=4)

    @given(values, values, values)
    def check(x: list[float], y: list[float], z: list[float]) -> None:
        a, b, c = reduce(name, x), reduce(name, y, len(x)), reduce(name, z, len(x) + len(y))
        left, right = combine(name, combine(name, a, b), c), combine(name, a, combine(name, b, c))
        same(left, right)
        same(left, reduce(name, x + y + z))

    check()


@given(st.lists(st.floats(-20, 20), min_size=1, max_size=20))
def test_welford_gives_mean_and_variance(values: list[float]) -> None:
    mean, m2, count = reduce("welford", values)
    same((mean, m2 / count, count), (np.mean(values).item(), np.var(values).item(), len(values)))


@given(st.lists(anything, min_size=1, max_size=10))
def test_logsumexp_is_the_logarithm_of_the_sum(values: list[float]) -> None:
    greatest, total = reduce("logsumexp", values)
    with np.errstate(all="ignore"):
        same((greatest + np.log(total),), (np.logaddexp.reduce(values),))


@given(st.lists(anything, min_size=1, max_size=10))
def test_argmax_is_numpys_first_one(values: list[float]) -> None:
    assert reduce("argmax", values)[1] == np.argmax(values)
    assert reduce("argmin", values)[1] == np.argmin(values)
    assert reduce("firstmax", values)[1] == np.argmax(values)


def test_argmax_keeps_the_first_index_in_whatever_order_parts_come() -> None:
    first, second = (3.0, 1), (3.0, 4)
    assert combine("argmax", second, first) == (3.0, 1) == combine("argmax", first, second)


def test_welford_of_far_away_values_is_stable_in_float32() -> None:
    rule, state = COMBINERS["welford"], [np.float32(0)] * 3
    values = np.float32(1e4) + np.arange(-2, 3, dtype=np.float32)
    for value in values:
        components = [*state, value, np.float32(0), np.float32(1)]
        names = dict(zip(("a0", "a1", "a2", "b0", "b1", "b2"), components, strict=True))

        def at(e: Expr, names: dict = names) -> np.float32:
            if isinstance(e, Name):
                return names[e.id]
            assert isinstance(e, Apply)
            return PRIMITIVES[e.primitive].numpy(*map(at, e.args))

        with np.errstate(all="ignore"):
            state = [at(e) for e in rule.combine]
    assert state[1] / state[2] == pytest.approx(2.0, rel=1e-4)


def test_identities_follow_the_dtype() -> None:
    assert identity_values(COMBINERS["max"], (u8,)) == (0,)
    assert identity_values(COMBINERS["min"], (i32,)) == (2**31 - 1,)
    assert identity_values(COMBINERS["argmax"], (f32, i64)) == (-math.inf, 2**63 - 1)


def test_argmax_takes_integers_too() -> None:
    check_components(COMBINERS["argmax"], (i32, i64))


def test_wrong_components_are_refused() -> None:
    with pytest.raises(VerifyError, match="1 component"):
        check_components(COMBINERS["sum"], (f32, f32))
    with pytest.raises(VerifyError, match="takes numbers"):
        check_components(COMBINERS["sum"], (bool_,))
    with pytest.raises(VerifyError, match="combiner 'median' does not exist"):
        combiner("median")
