"""The text of users' expressions: written, read back, and refused where it is anything else."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import sympy

from graphc.errors import AttributeValueError, DefinitionError, ShapeError
from graphc.interpret import evaluate
from graphc.ir.builder import Builder
from graphc.ir.graph import Graph, Value
from graphc.ir.types import tensor
from graphc.ops import scalar
from graphc.ops.scalar_function import expression_text, parse_expression

(x,) = scalar.operand_symbols(1)
a, b = scalar.operand_symbols(2)
EXPRESSIONS = [
    (x * scalar.sigmoid(x), "x*sigmoid(x)"),
    (x**3 / 3 - sympy.pi * x, "x**3/3 - pi*x"),
    (sympy.sqrt(2) * x / 2 + sympy.E, "sqrt(2)*x/2 + E"),
    (sympy.Float(0.1) * x + sympy.Float(1 / 3), "0.1*x + 0.3333333333333333"),
    (x ** sympy.Rational(5, 3), "x**(5/3)"),
    (-x, "-x"),
    (sympy.Integer(1), "1"),
    (scalar.where(scalar.logical_and(scalar.gt(x, 0), scalar.le(x, 1)), x, 0),
     "where(logical_and(gt(x, 0), le(x, 1)), x, 0)"),
    (a * scalar.maximum(a, b) - scalar.pow(a, b), "x*maximum(x, y) - pow(x, y)"),
    (scalar.logical_not(scalar.eq(a, b)), "logical_not(eq(x, y))"),
    (scalar.sqrt(a**2 + b**2) + scalar.abs(b), "abs(y) + sqrt(x**2 + y**2)"),
    (sympy.Float(1e-30) * x, "1e-30*x"),
]  # fmt: skip


@pytest.mark.parametrize(("expr", "text"), EXPRESSIONS, ids=[text for _, text in EXPRESSIONS])
def test_text_and_back(expr: Any, text: str) -> None:
    assert expression_text(expr) == text
    arity = 2 if "y" in text else 1
    assert parse_expression(text, arity) == expr


@pytest.mark.parametrize(
    "text",
    ["__import__('os')", "x.real", "x if x else 1", "gamma(x)", "tanh(x, x)", "z", "x +", "'x'", "True", "x < 1",
     "[x]", "(lambda: x)()", "tanh(x=x)", "1j", "x @ x", "inf", "1e999", "x(x)"],
)  # fmt: skip
def test_other_text_is_refused(text: str) -> None:
    with pytest.raises(DefinitionError, match="scalar expression"):
        parse_expression(text, 1)


def test_attributes_are_checked_with_the_types() -> None:
    value = Value(tensor("f32", (3,)), name="v")
    apply = Builder().scalar_function
    with pytest.raises(ShapeError, match="reads 'y', which 1 operands do not give"):
        apply(value, name="f", expression="x*y")
    with pytest.raises(AttributeValueError, match="no identifier"):
        apply(value, name="f g", expression="x")
    with pytest.raises(AttributeValueError, match="no scalar expression"):
        apply(value, name="f", expression="x +")


def test_three_operands_and_more() -> None:
    for count, expression in ((3, "c*x + y"), (4, "x0*x1 + x2*x3")):
        values = tuple(Value(tensor("f64", (2,)), name=f"v{k}") for k in range(count))
        output = Builder().scalar_function(*values, name="f", expression=expression)
        arrays = {f"v{k}": np.array([k + 1.0, k - 2.0]) for k in range(count)}
        (found,) = evaluate(Graph("f", values, (output,)), arrays)
        rest = arrays["v2"] * (arrays["v3"] if count == 4 else 1)
        np.testing.assert_allclose(found, arrays["v0"] * arrays["v1"] + rest)
