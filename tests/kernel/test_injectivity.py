"""Determined axes, disjoint indices and coverage against brute force."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from graphc.ir.dims import parse_dim
from graphc.ir.types import f32
from graphc.kernel.expr import Affine
from graphc.kernel.form import Axis, Operand
from graphc.kernel.injectivity import covers, determined_axes, disjoint, left_out
from graphc.kernel.points import Points
from graphc.kernel.ranges import Box

boxes = st.lists(st.integers(1, 4), min_size=3, max_size=3).map(
    lambda sizes: Box(tuple(Axis.range(name, n) for name, n in zip("abc", sizes, strict=True)), {})
)
coefficients = st.dictionaries(st.sampled_from("abc"), st.integers(-4, 4), max_size=2)
affine = st.builds(Affine.of, coefficients, st.integers(0, 4))
indices = st.lists(affine, min_size=2, max_size=2).map(tuple)


def reached(index: Sequence[Affine], box: Box) -> tuple[list[tuple[int, ...]], Points]:
    points, _ = Points.single().expand(box.axes, {})
    return list(zip(*(points.affine(i, {}).tolist() for i in index), strict=True)), points


@given(boxes, indices)
def test_determined_axes_follow_from_the_index(box: Box, index: tuple[Affine, ...]) -> None:
    elements, points = reached(index, box)
    for name in determined_axes(index, box):
        known: dict[tuple[int, ...], int] = {}
        for element, value in zip(elements, points.axes[name].tolist(), strict=True):
            assert known.setdefault(element, value) == value


@pytest.mark.parametrize(
    ("terms", "known"),
    [
        ([{"a": 2, "b": 1}], {"a", "b"}),
        ([{"a": 1, "b": 1}], set()),
        ([{"a": 1, "b": 1}, {"b": 3}], {"a", "b"}),
        ([{"a": -2, "b": 1}], {"a", "b"}),
        ([{"a": 1}], {"a"}),
    ],
)
def test_usual_indices(terms: list[dict[str, int]], known: set[str]) -> None:
    box = Box((Axis.range("a", 3), Axis.range("b", 2), Axis.range("u", 1)), {})
    index = [Affine.of(t) for t in terms]
    assert determined_axes(index, box) == known | {"u"}
    assert {axis.name for axis in left_out(index, box)} == {"a", "b"} - known


@given(boxes, indices, boxes, indices)
def test_disjoint_indices_never_meet(box: Box, index: tuple, other_box: Box, other: tuple) -> None:
    assume(disjoint(index, box, other, other_box))
    assert not set(reached(index, box)[0]) & set(reached(other, other_box)[0])


def test_usual_disjoint_indices() -> None:
    box = Box((Axis.range("a", parse_dim("N")),), {"N": 8})
    even, odd, next_, a = (Affine.of({"a": c}, k) for c, k in ((2, 0), (2, 1), (1, parse_dim("N")), (1, 0)))
    assert disjoint([even], box, [odd], box)
    assert disjoint([a], box, [next_], box)
    assert not disjoint([a], box, [even], box)
    assert disjoint([a, Affine((), 0)], box, [a, Affine((), 1)], box)


@given(st.lists(st.tuples(indices, boxes), min_size=1, max_size=2), st.tuples(st.integers(1, 8), st.integers(1, 8)))
def test_coverage(stores: list, shape: tuple[int, int]) -> None:
    everything = set(np.ndindex(*shape))
    found: set = set()
    for index, box in stores:
        found |= set(reached(index, box)[0])
    assume(found <= {(i, j) for i in range(shape[0]) for j in range(shape[1])})
    assert covers(Operand("y", f32, shape, "out"), stores) == (found == everything)


def axes(**extents: str | int) -> Box:
    made = {name: parse_dim(n) if isinstance(n, str) else n for name, n in extents.items()}
    return Box(tuple(Axis.range(name, n) for name, n in made.items()), {"N": 8})


@pytest.mark.parametrize(
    ("shape", "stores", "covered"),
    [
        ("N 4", [("a b", axes(a="N", b=4))], True),
        ("N 4", [("a b", axes(a="N", b=3))], False),
        ("N 4", [("a b", axes(a="N-1", b=4))], False),
        ("N 5", [("a b", axes(a="N", b=3)), ("a b+3", axes(a="N", b=2))], True),
        ("N 5", [("a b", axes(a="N", b=3)), ("a b+4", axes(a="N", b=1))], False),
        ("2*N 4", [("a+2*c b", axes(a=2, c="N", b=4))], True),
        ("2*N 4", [("a+c b", axes(a="N", c="N", b=4))], False),
        ("N N", [("a a", axes(a="N"))], False),
        ("N N", [("a c", axes(a="N", c="N"))], True),
        ("0 N", [], True),
        ("N N", [], False),
        ("4000000 N", [("a b", axes(a=4000000, b="N"))], True),
        ("9000000 1", [("a b", axes(a=8999999, b=1))], False),
    ],
)
def test_coverage_with_extents(shape: str, stores: list, covered: bool) -> None:
    operand = Operand("y", f32, tuple(map(parse_dim, shape.split())), "out")
    found = [(tuple(_affine(part) for part in index.split()), box) for index, box in stores]
    assert covers(operand, found) == covered


@pytest.mark.parametrize(
    ("size", "runs", "covered"),
    [
        ("2*N", [("0", "N"), ("N", "N")], True),
        ("2*N+3", [("N", "3"), ("0", "N"), ("N+3", "N")], True),
        ("N+3", [("0", "N"), ("N", "2")], False),
        ("N+3", [("0", "N"), ("N+1", "2")], False),
        ("2*N", [("0", "N"), ("0", "0")], False),
        ("N+M", [("0", "N"), ("M", "N")], False),
    ],
)
def test_runs_that_follow_each_other_cover(size: str, runs: list[tuple[str, str]], covered: bool) -> None:
    operand = Operand("y", f32, (parse_dim(size), 4), "out")
    stores = [
        ((Affine.of({"a": 1}, parse_dim(start)), Affine.axis("b")), axes(a=extent, b=4)) for start, extent in runs
    ]
    assert covers(operand, stores) == covered


def test_clipped_axes_do_not_cover() -> None:
    axis = Axis("b", (Affine(),), (Affine.of({"a": 1}, 1),))
    index = (Affine.axis("a"), Affine.axis("b"))
    assert not covers(Operand("y", f32, (3, 3), "out"), [(index, Box((Axis.range("a", 3), axis), {}))])


def _affine(text: str) -> Affine:
    terms: dict[str, int] = {}
    const = 0
    for term in text.split("+"):
        *factor, name = term.split("*")
        if name.isdigit():
            const += int(name)
        else:
            terms[name] = int(factor[0]) if factor else 1
    return Affine.of(terms, const)
