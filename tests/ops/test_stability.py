"""float32 checks of scalar functions, and users' SymPy expressions over the stable primitives."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import sympy

from graphc.errors import DefinitionError
from graphc.ops import scalar, stability

z = sympy.Symbol("z")
erf_gelu = z * (1 + sympy.erf(z / sympy.sqrt(2))) / 2
EXPRESSIONS = [
    (z / (1 + sympy.exp(-z)), "z*sigmoid(z)"),
    (1 / (1 + sympy.exp(-2 * z)) ** 2, "sigmoid(2*z)**2"),
    (sympy.log(1 + sympy.exp(z)), "softplus(z)"),
    (z * sympy.tanh(sympy.log(1 + sympy.exp(z))), "z*tanh(softplus(z))"),
    (sympy.log(1 + sympy.Abs(z)), "log1p(abs(z))"),
    (sympy.exp(z) - 1, "expm1(z)"),
    (sympy.log(z), "log(z)"),
    (erf_gelu, "z*(erf(sqrt(2)*z/2) + 1)/2"),
    (sympy.Piecewise((z, z > 0), (sympy.exp(z) - 1, True)), "where(gt(z, 0), z, expm1(z))"),
    (sympy.Max(0, z, 1 - z), "max(max(0, z), 1 - z)"),
    (1 / sympy.sqrt(z**2 + 1), "rsqrt(z**2 + 1)"),
    (sympy.sqrt(z**2 + 1), "sqrt(z**2 + 1)"),
]


@pytest.mark.parametrize(("expr", "text"), EXPRESSIONS, ids=[text for _, text in EXPRESSIONS])
def test_from_sympy(expr: Any, text: str) -> None:
    stable = stability.from_sympy(expr)
    assert str(stable) == text
    points = np.array([0.3, 1.7])
    expected = [float(expr.subs(z, v)) for v in points]
    np.testing.assert_allclose(scalar.numpy_value(stable, (z,), [points]), expected, rtol=1e-14)
    assert stability.unstable_points(lambda v: stable.subs(z, v), 1) == []


def test_functions_without_a_primitive_are_named() -> None:
    with pytest.raises(DefinitionError, match="gamma in gamma"):
        stability.from_sympy(1 + sympy.gamma(z))
    with pytest.raises(DefinitionError, match="no condition holds"):
        stability.from_sympy(sympy.Piecewise((z, z > 0)))


@pytest.mark.parametrize(
    ("function", "derivative"),
    [
        (lambda v: v / (1 + scalar.exp(-v)), 0),  # silu: inf/inf in the derivative
        (lambda v: scalar.log(1 + scalar.exp(v)), None),  # softplus: infinite although about 100
        (lambda v: scalar.exp(v) / (1 + scalar.exp(v)), None),
        (lambda v: scalar.sqrt(v**2 * v**10), None),
    ],
)
def test_naive_forms_are_found(function: Callable[[Any], Any], derivative: int | None) -> None:
    points = stability.unstable_points(function, 1)
    assert derivative in [p.derivative for p in points]
    assert "in float32, exactly" in str(points[0])


def test_points_outside_the_domain_do_not_count() -> None:
    assert stability.unstable_points(scalar.log, 1) == []
    assert stability.unstable_points(lambda v: scalar.sqrt(v) + 1 / (v - 100), 1) == []
