"""Elementwise functions of a user's own: values, gradients of any order, kernels, text, and what is refused."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import sympy

import graphc as gc
from graphc.errors import DefinitionError
from graphc.ir.parser import parse
from graphc.ir.text import print_graph
from graphc.ops import scalar

X = np.linspace(-3, 3, 24).reshape(6, 4).astype(np.float32)


def swish() -> gc.ScalarFunction:
    return gc.scalar_function("swish", lambda z: z / (1 + sympy.exp(-z)))


def test_what_it_says_of_itself() -> None:
    found = swish()
    assert str(found) == "swish(x) = x*sigmoid(x)"
    assert found.latex == r"x \sigma\left(x\right)"
    assert found.derivative() == "x*(1 - sigmoid(x))*sigmoid(x) + sigmoid(x)"


def test_values_gradients_and_second_derivatives_are_those_of_the_op(compute: Any) -> None:
    x = gc.input("x", (6, 4))
    found = []
    for function in (swish(), gc.silu):
        value = function(x)
        slope = gc.grad(gc.sum(value), x)
        found.append([value, slope, gc.grad(gc.sum(slope * slope), x)])
    mine, theirs = np.split(np.array(compute(found[0] + found[1], {x: X})), 2)
    np.testing.assert_allclose(mine, theirs, rtol=2e-5, atol=1e-6)
    np.testing.assert_allclose(mine[0], X / (1 + np.exp(-X)), rtol=1e-5)


def test_it_fuses_and_names_its_kernel() -> None:
    x, w = gc.input("x", ("N", 4)), gc.param("w", (4, 3), init=gc.init.normal())
    program = gc.compile([x], [swish()(x @ w)], dims={"N": 6})
    assert list(program.kernels) == ["matmul_swish"]
    (found,) = program(X)
    z = X @ w.value
    np.testing.assert_allclose(found, z / (1 + np.exp(-z)), rtol=1e-4, atol=1e-6)


def test_the_graph_text_holds_the_expression() -> None:
    x = gc.input("x", ("N", 4))
    program = gc.compile([x], [swish()(x)], dims={"N": 6})
    text = print_graph(program.graph)
    assert 'scalar_function(%x, name="swish", expression="x*sigmoid(x)")' in text
    assert print_graph(parse(text)) == text


def test_another_function_of_the_same_name_is_another_program() -> None:
    x = gc.input("x", (4,))
    data = np.arange(4, dtype=np.float32)
    for factor in (2, 3):
        scaled = gc.scalar_function("scaled", lambda z, factor=factor: factor * z)
        (found,) = gc.compile([x], [scaled(x)])(data)
        np.testing.assert_array_equal(found, factor * data)


def test_operands_broadcast_and_numbers_and_integers_convert(compute: Any) -> None:
    power = gc.scalar_function("bump", lambda z, a: sympy.exp(-a * z**2) + sympy.Mod(z, 2))
    x, a = gc.input("x", (6, 4)), gc.input("a", (4,), dtype="int32")
    counts = np.arange(4, dtype=np.int32)
    found = compute([power(x, 0.5), power(x, a.astype("float32")), power(a, 1.5)], {x: X, a: counts})
    expected = [np.exp(-v * u**2) + u % 2 for u, v in ((X, 0.5), (X, counts), (counts, 1.5))]
    for mine, theirs in zip(found, expected, strict=True):
        np.testing.assert_allclose(mine, theirs, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("function", "expected"),
    [
        (lambda z: sympy.sin(z) * sympy.cos(2 * z), lambda v: np.sin(v) * np.cos(2 * v)),
        (lambda z: sympy.atan(z) + sympy.sinh(z / 9), lambda v: np.arctan(v) + np.sinh(v / 9)),
        (lambda z: sympy.Piecewise((z, z > 0), (sympy.exp(z) - 1, True)), lambda v: np.where(v > 0, v, np.expm1(v))),
        (lambda z: sympy.Max(sympy.Min(z, 1), -1), lambda v: np.clip(v, -1, 1)),
        (lambda z: sympy.Heaviside(z) * z**2, lambda v: np.heaviside(v, 0.5) * v**2),
        (lambda z: sympy.exp(z) / (1 + sympy.exp(z)), lambda v: 1 / (1 + np.exp(-v))),
        (lambda z: z * sympy.tanh(sympy.log(1 + sympy.exp(z))), lambda v: v * np.tanh(np.log1p(np.exp(v)))),
        (lambda z: z * scalar.sigmoid(z), lambda v: v / (1 + np.exp(-v))),
        (lambda z: sympy.sqrt(1 + z**2) / 3, lambda v: np.sqrt(1 + v**2) / 3),
        (lambda z: 2, lambda v: np.full_like(v, 2)),
        (sympy.floor, np.floor),
    ],
)
def test_what_can_be_written(function: Any, expected: Any, compute: Any) -> None:
    x = gc.input("x", (6, 4))
    (found,) = compute([gc.scalar_function("f", function)(x)], {x: X})
    np.testing.assert_allclose(found, expected(X.astype(np.float64)), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (lambda z: sympy.Symbol("beta") * z, "free symbol beta; give it a number, or make it an operand: lambda z, be"),
        (lambda z: sympy.Sum(z, (sympy.Symbol("i"), 1, 3)), r"Sum\) is not elementwise.*gc.sum"),
        (lambda z: sympy.Integral(z, z), "not elementwise"),
        (lambda z: sympy.Function("g")(z), "not elementwise"),
        (lambda z: sympy.Matrix([z]), "not elementwise"),
        (lambda z: sympy.IndexedBase("z")[0] + z, "not elementwise"),
        (lambda z: sympy.gamma(z), "gamma in gamma.* has no stable primitive; there are: "),
        (lambda z: np.exp(z), "sympy.exp and not np.exp"),
        (lambda z: math.exp(z), "sympy.exp and not np.exp"),
        (lambda z: z if z > 0 else 0, "sympy.Piecewise for if"),
        (lambda z: [z, z], "no SymPy expression"),
        (lambda z: None, "no SymPy expression"),
        (lambda z: z > 0, "truth value; write sympy.Piecewise"),
        (lambda z: sympy.Piecewise((z, z > 0)), "no condition holds"),
        (lambda z: sympy.sqrt(-1) * z, "no real number"),
        (lambda z: z + sympy.zoo, "no real number"),
        (lambda *z: z[0], "fixed number of operands"),
        (lambda: 1, "fixed number of operands"),
        (3, "expected a function"),
        (lambda z: (sympy.exp(z) - sympy.exp(-z)) / (sympy.exp(z) + sympy.exp(-z)), "nan in float32, exactly"),
        (lambda z: sympy.log(1 + sympy.exp(z) + sympy.exp(2 * z)), r"\(100.0,\) is inf in float32, exactly 200"),
    ],
)
def test_what_cannot_be_written(function: Any, message: str) -> None:
    with pytest.raises(DefinitionError, match=f"(?s)^f.*{message}"):
        gc.scalar_function("f", function)


def test_the_check_can_be_left_out() -> None:
    found = gc.scalar_function("f", lambda z: sympy.log(1 + sympy.exp(z) + sympy.exp(2 * z)), check=False)
    assert "log1p" in str(found)


@pytest.mark.parametrize("name", ["two words", "", "lambda", 3, "größe"])
def test_names_are_identifiers(name: Any) -> None:
    with pytest.raises(DefinitionError, match="must be an identifier"):
        gc.scalar_function(name, lambda z: z)


@pytest.mark.parametrize("name", ["where", "kernel", "max", "f32", "tile_load", "swish"])
def test_any_identifier_compiles(name: str) -> None:
    x = gc.input("x", (3,))
    (found,) = gc.compile([x], [gc.scalar_function(name, lambda z: z**2)(x)])(np.arange(3, dtype=np.float32))
    np.testing.assert_array_equal(found, [0, 1, 4])


def test_the_number_of_operands_is_checked() -> None:
    with pytest.raises(DefinitionError, match=r"swish takes 1 operand\(s\), it is given 2"):
        swish()(gc.input("x", (3,)), 1.0)
