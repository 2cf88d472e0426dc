"""The scalar primitives: dtype rules, numerics over the whole range of float32, agreement of text and table."""

from __future__ import annotations

import math

import mpmath
import numpy as np
import pytest

from graphc.errors import VerifyError
from graphc.ir.types import bool_, f32, f64, i32, i64, u8
from graphc.kernel import philox
from graphc.kernel.primitives import COMPARISONS, PRIMITIVES, primitive

EVERYWHERE = [-1e4, -100.0, -20.0, -1.0, -1e-4, 0.0, 1e-4, 1.0, 20.0, 100.0, 1e4]
EXACT = {
    "exp": mpmath.exp, "expm1": mpmath.expm1, "log": mpmath.log, "log1p": mpmath.log1p, "tanh": mpmath.tanh,
    "sigmoid": lambda x: 1 / (1 + mpmath.exp(-x)), "softplus": lambda x: mpmath.log1p(mpmath.exp(x)),
    "erf": mpmath.erf, "sqrt": mpmath.sqrt, "rsqrt": lambda x: 1 / mpmath.sqrt(x), "sin": mpmath.sin,
    "tan": mpmath.tan, "atan": mpmath.atan, "sinh": mpmath.sinh, "cosh": mpmath.cosh, "asin": mpmath.asin,
    "acos": mpmath.acos, "log2": lambda x: mpmath.log(x, 2),
    "cos": mpmath.cos, "floor": mpmath.floor, "ceil": mpmath.ceil, "abs": abs, "neg": lambda x: -x, "sign": mpmath.sign,
}  # fmt: skip
DOMAIN = {"log": lambda x: x > 0, "log1p": lambda x: x > -1, "sqrt": lambda x: x >= 0, "rsqrt": lambda x: x > 0,
          "log2": lambda x: x > 0, "asin": lambda x: abs(x) <= 1, "acos": lambda x: abs(x) <= 1}  # fmt: skip


@pytest.mark.parametrize("name", sorted(EXACT))
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_values_are_right_and_keep_their_dtype_everywhere(name: str, dtype: type) -> None:
    points = [dtype(x) for x in EVERYWHERE if DOMAIN.get(name, lambda x: True)(x)]
    with np.errstate(over="ignore", under="ignore"):
        values = PRIMITIVES[name].numpy(np.array(points, dtype))
    assert values.dtype == dtype
    with mpmath.workdps(60), np.errstate(over="ignore", under="ignore"):
        # An exact value may be far beyond the range of a float; mpmath's own float() then overflows to inf.
        expected = [dtype(float(EXACT[name](mpmath.mpf(float(x))))) for x in points]
    limits = np.finfo(dtype)
    np.testing.assert_allclose(values, np.array(expected), rtol=4 * float(limits.eps), atol=float(limits.tiny))


@pytest.mark.parametrize("name", [row.name for row in PRIMITIVES.values() if row.rule in ("numeric", "float")])
def test_nan_is_passed_on(name: str) -> None:
    row = PRIMITIVES[name]
    for position in range(row.arity):
        args = [np.array([2.0], np.float32) for _ in range(row.arity)]
        args[position] = np.array([np.nan], np.float32)
        assert np.isnan(row.numpy(*args)).all()


def test_dtype_rules() -> None:
    assert PRIMITIVES["add"].result([i32, i32]) == i32
    assert PRIMITIVES["lt"].result([u8, u8]) == bool_
    assert PRIMITIVES["eq"].result([bool_, bool_]) == bool_
    assert PRIMITIVES["where"].result([bool_, f64, f64]) == f64
    assert PRIMITIVES["isnan"].result([f32]) == bool_
    assert PRIMITIVES["uniform"].result([i64] * 5) == f32
    assert COMPARISONS == {"lt", "le", "gt", "ge", "eq", "ne"}


@pytest.mark.parametrize(
    ("name", "dtypes", "message"),
    [
        ("add", [f32, f64], "different dtypes f32, f64"),
        ("add", [bool_, bool_], "takes numbers"),
        ("exp", [i64], "takes floats"),
        ("div", [i64, i64], "takes floats"),
        ("and", [f32, f32], "takes bools"),
        ("where", [f32, f32, f32], "condition must be bool"),
        ("where", [bool_, f32, i64], "different dtypes"),
        ("uniform", [i64] * 4, "takes 5 operand"),
        ("uniform", [i32] * 5, "five i64"),
        ("add", [f32], "takes 2 operand"),
    ],
)
def test_wrong_operands_are_refused(name: str, dtypes: list, message: str) -> None:
    with pytest.raises(VerifyError, match=message):
        PRIMITIVES[name].result(dtypes)


def test_unknown_primitive() -> None:
    with pytest.raises(VerifyError, match="primitive 'gelu' does not exist"):
        primitive("gelu")


def test_integer_division_rounds_down() -> None:
    a, b = np.array([7, -7, 7, -7]), np.array([3, 3, -3, -3])
    assert PRIMITIVES["floordiv"].numpy(a, b).tolist() == [2, -3, -3, 2]
    assert PRIMITIVES["mod"].numpy(a, b).tolist() == [1, 2, -2, -1]


def test_fma_is_rounded_once() -> None:
    a, b, c = (np.array([v], np.float32) for v in (1 + 2**-12, 1 + 2**-12, -1 - 2**-11))
    assert PRIMITIVES["fma"].numpy(a, b, c)[0] == np.float32(2**-24)
    assert a[0] * b[0] + c[0] == 0
    assert PRIMITIVES["fma"].numpy(a, b, c).dtype == np.float32


def test_round_takes_ties_to_even() -> None:
    assert PRIMITIVES["round"].numpy(np.array([0.5, 1.5, 2.5, -0.5])).tolist() == [0.0, 2.0, 2.0, -0.0]


def test_erf_of_any_shape() -> None:
    assert PRIMITIVES["erf"].numpy(np.zeros((2, 0))).shape == (2, 0)
    assert PRIMITIVES["erf"].numpy(np.float32(0.5)) == np.float32(math.erf(0.5))


def test_uniform_is_the_recipe_of_philox() -> None:
    elements = np.arange(200)
    drawn = PRIMITIVES["uniform"].numpy(5, 3, 2, np.where(elements < 100, 0, 1), elements)
    assert drawn.dtype == np.float32
    np.testing.assert_array_equal(drawn[:100], philox.uniform(5, 2, 3, 0, elements[:100]))
    np.testing.assert_array_equal(drawn[100:], philox.uniform(5, 2, 3, 1, elements[100:]))
