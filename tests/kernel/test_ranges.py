"""Interval analysis against brute force: what it claims holds at every point, and the usual cases are decided."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from graphc.ir.dims import Dim, evaluate, parse_dim
from graphc.kernel.expr import Affine
from graphc.kernel.form import Axis, Table
from graphc.kernel.points import Points
from graphc.kernel.ranges import Box, guard_facts, least_value, never_negative
from graphc.kernel.text import parse_kernel

dims = st.sampled_from([0, 1, 2, 5, *map(parse_dim, ("N", "N-1", "2*N-3", "4-N"))])
bound_over = {
    "a": st.builds(Affine, st.just(()), dims),
    "b": st.builds(Affine.of, st.dictionaries(st.just("a"), st.integers(-2, 2)), dims),
    "c": st.one_of(
        st.builds(Affine.of, st.dictionaries(st.sampled_from("ab"), st.integers(-2, 2)), dims),
        st.builds(Table, st.just("a"), st.lists(st.integers(-3, 6), min_size=12, max_size=12).map(tuple)),
    ),
}


@st.composite
def boxes(draw: st.DrawFn) -> Box:
    """Axis `a` starts at 0 and has at most 12 points, so that tables over it fit."""
    bounds = {name: st.lists(bound_over[name], min_size=1, max_size=2).map(tuple) for name in "bc"}
    axes = [Axis.range("a", draw(st.sampled_from([1, 3, *map(parse_dim, ("N", "N+2"))])))]
    axes += [Axis(name, draw(bounds[name]), draw(bounds[name])) for name in "bc"]
    return Box(tuple(axes), {"N": 5})


affines = st.builds(Affine.of, st.dictionaries(st.sampled_from("abc"), st.integers(-3, 3)), dims)


def values(affine: Affine, box: Box, n: int) -> np.ndarray:
    points, _ = Points.single().expand(box.axes, {"N": n})
    return points.affine(affine, {"N": n})


@given(boxes(), affines)
def test_least_is_below_every_value(box: Box, affine: Affine) -> None:
    least = box.least(affine)
    for n in range(1, 6):
        assert (values(affine, box, n) >= least).all()


@given(boxes(), affines, affines)
def test_never_negative_where_the_facts_hold(box: Box, affine: Affine, fact: Affine) -> None:
    assume(box.never_negative(affine, [fact]))
    for n in range(1, 6):
        holds = values(fact, box, n) >= 0
        assert (values(affine, box, n)[holds] >= 0).all()


@given(st.lists(st.integers(1, 9), min_size=3, max_size=3), st.lists(st.integers(-3, 3), min_size=3, max_size=3))
def test_boxes_are_decided_exactly(extents: list[int], coefficients: list[int]) -> None:
    box = Box(tuple(Axis.range(name, n) for name, n in zip("abc", extents, strict=True)), {})
    affine = Affine.of(dict(zip("abc", coefficients, strict=True)), 2)
    found = values(affine, box, 1)
    assert box.least(affine) == found.min()
    assert box.never_negative(affine) == (found >= 0).all()
    assert box.span("b") == (0, extents[1] - 1)


@given(st.sampled_from(["N*N-N", "N*M-1", "2*N-M", "5-N", "N*N-4*N+4", "M*M*N-M"]).map(parse_dim))
def test_least_value_of_dimensions(dim: Dim) -> None:
    capacities = {"N": 5, "M": 3}
    smallest = min(evaluate(dim, {"N": n, "M": m}) for n in range(1, 6) for m in range(1, 4))
    assert least_value(dim, capacities) <= smallest
    assert never_negative(dim, capacities) <= (smallest >= 0)


@pytest.mark.parametrize(("dim", "least"), [("N*N-N", 0), ("5-N", 0), ("N*M-1", 0), ("2*N-M", -1), ("N", 1)])
def test_usual_dimensions_are_decided(dim: str, least: int) -> None:
    assert least_value(parse_dim(dim), {"N": 5, "M": 3}) == least


@pytest.mark.parametrize(
    ("guard", "facts"),
    [
        ("i < 3", [Affine.of({"i": -1}, 2)]),
        ("2 * i + 1 <= j and j > 0", [Affine.of({"i": -2, "j": 1}, -1), Affine.of({"j": 1}, -1)]),
        ("i == j", [Affine.of({"i": -1, "j": 1}), Affine.of({"i": 1, "j": -1})]),
        ("extent(N) - i >= -j", [Affine.of({"i": -1, "j": 1}, parse_dim("N"))]),
        ("i < 3 or j < 3", []),
        ("i * j < 3", []),
        ("i != 3", []),
    ],
)
def test_facts_of_guards(guard: str, facts: list[Affine]) -> None:
    kernel = parse_kernel(f"kernel k() -> () {{ space i < 9, j < 9 stage {{ y[] = 0.0 if {guard} }} }}")
    assert list(guard_facts(kernel.stages[0].stores[0].guard)) == facts


def test_a_table_over_an_axis_that_a_table_bounds() -> None:
    first = Axis("b", (Table("a", (1, 0)),), (Affine((), 3),))
    box = Box((Axis.range("a", 2), first, Axis("c", (Affine(),), (Table("b", (4, 5, 9)),))), {})
    assert box.span("c") == (0, 8)
    assert box.never_negative(Affine.of({"c": -1}, 8)) and not box.never_negative(Affine.of({"c": -1}, 7))


def test_values_that_a_fixed_bound_excludes_count_for_nothing() -> None:
    short = Axis("a", (Affine((), 1),), (Affine((), 2),))
    box = Box((short, Axis("b", (Affine(),), (Table("a", (9, 3, 9)),))), {})
    assert box.span("b") == (0, 2)
    none = Box((Axis("a", (Affine((), 2),), (Affine((), 1),)), Axis("b", (Affine(),), (Table("a", (9, 3, 9)),))), {})
    assert none.never_negative(Affine.of({"b": 1}, -100))
