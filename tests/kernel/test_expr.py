"""Scalar expressions: dtypes, affine forms, replacement of axes."""

from __future__ import annotations

import pytest

from graphc.errors import VerifyError
from graphc.ir.dims import parse_dim
from graphc.ir.types import bool_, f32, i32, i64
from graphc.kernel.expr import (
    Affine,
    Apply,
    AxisIndex,
    Cast,
    Computed,
    Const,
    Expr,
    Extent,
    Load,
    Name,
    affine_of,
    as_expr,
    dtype_of,
    loads,
    replace_axes,
    replace_index,
    walk,
)

AT_I, AT_J = AxisIndex("i"), AxisIndex("j")


def add(*args: Expr) -> Apply:
    return Apply("add", args)


def test_dtypes() -> None:
    operands, names = {"x": f32, "t": i32}, {"a": f32}
    at_i = (Affine.axis("i"),)
    assert dtype_of(add(Load("x", at_i), Name("a")), operands, names) == f32
    assert dtype_of(Apply("lt", (AT_I, Extent(parse_dim("N")))), operands, names) == bool_
    assert dtype_of(Load("x", (Computed(Cast(Load("t", at_i), i64), 0, 3),)), operands, names) == f32


@pytest.mark.parametrize(
    ("expr", "message"),
    [
        (Name("b"), "name 'b' is not defined here; defined: a"),
        (Load("z", ()), "operand 'z' is not defined here"),
        (add(Name("a"), AT_I), "different dtypes f32, i64"),
        (add(AT_I), "takes 2 operand"),
        (Apply("gelu", (Name("a"),)), "primitive 'gelu' does not exist"),
        (Load("x", (Computed(Load("t", ()), 0, 3),)), "a computed index of 'x' is i32"),
        (Load("x", (Computed(add(AT_I, Name("a")), 0, 3),)), "different dtypes"),
    ],
)
def test_ill_typed_expressions(expr: Expr, message: str) -> None:
    with pytest.raises(VerifyError, match=message):
        dtype_of(expr, {"x": f32, "t": i32}, {"a": f32})


def test_shared_expressions_take_linear_time() -> None:
    expr: Expr = Name("a")
    for _ in range(60):
        expr = add(expr, expr)
    assert dtype_of(expr, {}, {"a": f32}) == f32
    assert len(list(walk(expr))) == 61


@pytest.mark.parametrize(
    "affine", [Affine(), Affine.of({"i": 2, "j": -1}, 3), Affine.of({"i": 1}, parse_dim("2*N-1")), Affine((), 7)]
)
def test_affine_indices_as_expressions_and_back(affine: Affine) -> None:
    assert affine_of(as_expr(affine)) == affine


def test_affine_forms() -> None:
    double = Apply("mul", (Const(2, i64), Apply("sub", (AT_I, Apply("neg", (AT_J,))))))
    assert affine_of(double) == Affine.of({"i": 2, "j": 2})
    assert affine_of(Apply("mul", (AT_I, AT_J))) is None
    assert affine_of(Apply("mul", (AT_I, Extent(parse_dim("N"))))) is None
    assert affine_of(Apply("floordiv", (AT_I, Const(2, i64)))) is None
    assert affine_of(Const(2, i32)) is None
    assert affine_of(Name("a")) is None


def test_affine_arithmetic() -> None:
    a = Affine.of({"i": 2}, 1)
    assert a + a.scale(-1) == Affine()
    assert a.replace({"i": Affine.of({"j": 3}, 1)}) == Affine.of({"j": 6}, 3)


def test_replacing_an_axis_by_a_computed_index() -> None:
    computed = Computed(Load("t", (Affine.axis("n"),)), 0, 5)
    assert replace_index(Affine.axis("i"), {"i": computed}) == computed
    moved = replace_index(Affine.of({"i": 2}, 1), {"i": computed})
    assert isinstance(moved, Computed) and (moved.lower, moved.upper) == (1, 10)
    assert [load.operand for load in loads(moved.expr)] == ["t"]
    with pytest.raises(VerifyError, match="mixes a computed axis with 'j'"):
        replace_index(Affine.of({"i": 1, "j": 1}), {"i": computed})


def test_axes_are_replaced_at_once_inside_computed_indices_too() -> None:
    """`i` becomes `j` while `j` becomes `k`: an index inside an index must not go on to `k`."""
    inner = Load("numbers", (Affine.axis("i"),))
    table = Load("table", (Computed(inner, 0, 5), Affine.axis("j")))
    moved = replace_axes(table, {"i": Affine.axis("j"), "j": Affine.axis("k")})
    assert moved == Load("table", (Computed(Load("numbers", (Affine.axis("j"),)), 0, 5), Affine.axis("k")))
