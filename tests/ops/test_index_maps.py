"""Equations of windows: what their text means, sizes of axes, and what is refused."""

from __future__ import annotations

import pytest

from graphc.errors import AttributeValueError, ShapeError
from graphc.ir.dims import symbol
from graphc.kernel.expr import Affine
from graphc.ops.index_maps import (
    axes_of,
    axis_sizes,
    extremes,
    is_not_negative,
    normalised,
    parse_equation,
    plain_axis,
)

N = symbol("N")


def test_an_equation_is_three_maps_of_affine_indices() -> None:
    equation = parse_equation("[n, 2*y+ky-1, 0] [k, ky] -> [n,-k + 2 , y] where k < 3, n<5")
    assert equation.maps[0] == (Affine.axis("n"), Affine.of({"y": 2, "ky": 1}, -1), Affine())
    assert equation.maps[2] == (Affine.axis("n"), Affine.of({"k": -1}, 2), Affine.axis("y"))
    assert equation.axes == ("n", "y", "ky", "k")
    assert equation.given == {"k": 3, "n": 5}
    assert parse_equation("[] [i] -> [i]").maps[0] == ()


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("ij,jk->ik", "not of the form"),
        ("[i] -> [i]", "not of the form"),
        ("[i] [i] [i] -> [i]", "not of the form"),
        ("[i,] [i] -> [i]", "'' is not an index"),
        ("[i j] [i] -> [i]", "'i j' is not an index"),
        ("[i*j] [i] -> [j]", "'i\\*j' is not an index"),
        ("[i*2] [i] -> [i]", "'i\\*2' is not an index"),
        ("[i] [space] -> [i]", "'space' cannot name an axis"),
        ("[i] [i] -> [i] where j < 3", "'j < 3' is not the size of one of its axes"),
        ("[i] [i] -> [i] where i <= 3", "is not the size"),
    ],
)
def test_bad_text_is_refused(text: str, reason: str) -> None:
    with pytest.raises(AttributeValueError, match=reason):
        parse_equation(text)


def test_sizes_come_from_where_an_axis_stands_alone() -> None:
    equation = parse_equation("[n, 2*g+c, y+k] [g, c, k] -> [n, g, y]")
    assert axis_sizes(equation, [(N, 6, 9), (3, 2, 4), (N, 3, 6)]) == {"n": N, "g": 3, "c": 2, "y": 6, "k": 4}


@pytest.mark.parametrize(
    ("text", "shapes", "reason"),
    [
        ("[n] [n, k] -> [k]", [(2,), (3, 4), (4,)], "axis 'n' has size 2 in operand 0 and 3 in operand 1"),
        ("[n] [n, k] -> [k]", [(2,), (2, 4), (5,)], "axis 'k' has size 4 in operand 1 and 5 in the result"),
        ("[n] [n] -> [n] where n < 3", [(2,)] * 3, "size 3 in the equation and 2 in operand 0"),
        ("[n] [n] -> [n]", [(2, 1), (2,), (2,)], r"operand 0 of shape \[2,1\] has not the 1 axes"),
        ("[2*g+o] [o] -> [2*g+o]", [(4,), (2,), (4,)], "nothing tells the size of axis 'g'; .* where g < 3"),
    ],
)
def test_sizes_that_do_not_fit_are_refused(text: str, shapes: list[tuple[int, ...]], reason: str) -> None:
    with pytest.raises(ShapeError, match=reason):
        axis_sizes(parse_equation(text), shapes)


def test_axes_of_size_one_leave_compound_indices() -> None:
    equation = parse_equation("[g+c, y+k] [g, c, k] -> [g, y]")
    sizes = axis_sizes(equation, [(4, 5), (4, 1, 1), (4, 5)])
    first, second, _ = normalised(equation, sizes)
    assert [plain_axis(i) for i in first] == ["g", "y"]
    assert [plain_axis(i) for i in second] == ["g", "c", "k"]


def test_extremes_of_an_index() -> None:
    index = Affine.of({"y": 2, "k": -1}, 3)
    assert extremes(index, {"y": 4, "k": 3}) == (1, 9)
    assert extremes(Affine.axis("n"), {"n": N}) == (0, N - 1)
    assert axes_of([index, Affine.axis("n")]) == {"y", "k", "n"}


def test_dimensions_that_are_never_negative() -> None:
    assert is_not_negative(0) and not is_not_negative(-1)
    assert is_not_negative(N - 1) and is_not_negative(2 * N + 1)
    assert not is_not_negative(N - 2) and not is_not_negative(3 - N)
