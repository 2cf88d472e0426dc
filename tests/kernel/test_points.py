"""Lists of points come in the order of nested loops."""

from __future__ import annotations

from graphc.kernel.expr import Affine
from graphc.kernel.form import Axis, Table
from graphc.kernel.points import Points


def test_loops_with_clipped_and_tabled_bounds() -> None:
    axes = (
        Axis.range("a", 3),
        Axis("b", (Affine(), Affine.of({"a": -1}, 1)), (Table("a", (2, 0, 3)), Affine((), 2))),
    )
    points, parent = Points.single().expand(axes, {})
    expected = [(a, b) for a in range(3) for b in range(max(0, 1 - a), min((2, 0, 3)[a], 2))]
    assert list(zip(points.axes["a"].tolist(), points.axes["b"].tolist(), strict=True)) == expected
    assert parent.tolist() == [0] * len(expected)


def test_expansion_tells_the_point_each_came_from() -> None:
    outer, _ = Points.single().expand((Axis.range("a", 3),), {})
    inner, parent = outer.expand((Axis("b", (Affine.axis("a"),), (Affine((), 2),)),), {})
    assert parent.tolist() == [0, 0, 1] and inner.axes["b"].tolist() == [0, 1, 1]
    assert inner.axes["a"].tolist() == [0, 0, 1]


def test_no_axes_and_no_points() -> None:
    points, parent = Points.single().expand((), {})
    assert points.count == 1 and parent.tolist() == [0]
    assert points.expand((Axis.range("a", 0), Axis.range("b", 3)), {})[0].count == 0


def test_some_of_the_points() -> None:
    points, _ = Points.single().expand((Axis.range("a", 5),), {})
    assert points.take(slice(3, 9)).axes["a"].tolist() == [3, 4] and points.take(slice(3, 9)).count == 2
    assert Points(4, {}).take(slice(1, 3)).count == 2
