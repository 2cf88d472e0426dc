"""Elementary functions against multiple-precision values: errors in units in the last place, and edges."""

from __future__ import annotations

import math

import mpmath
import numpy as np
import pytest

from graphc.codegen.host import host

LANES = host().lanes
BOUNDS = {"exp": 1.0, "log": 1.0, "expm1": 1.5, "log1p": 1.5, "tanh": 1.5, "sigmoid": 1.6, "softplus": 1.8, "erf": 1.2,
          "log2": 1.5, "sinh": 1.7, "cosh": 1.5, "sin": 1.5, "cos": 1.5}
EXACT = {
    "exp": mpmath.exp, "log": mpmath.log, "expm1": mpmath.expm1, "log1p": mpmath.log1p, "tanh": mpmath.tanh,
    "sigmoid": lambda x: 1 / (1 + mpmath.exp(-x)), "softplus": lambda x: mpmath.log1p(mpmath.exp(x)),
    "erf": mpmath.erf, "log2": lambda x: mpmath.log(x, 2), "sinh": mpmath.sinh, "cosh": mpmath.cosh,
    "sin": mpmath.sin, "cos": mpmath.cos}
EDGES = [0.0, -0.0, 1e-45, -1e-45, 1e-39, -1e-39, 1.1754944e-38, -1.1754944e-38, 1e-30, -1e-30, 1e-8, -1e-8, 1e-4,
         -1e-4, 0.5, -0.5, 0.55, 1.0, -1.0, -0.99999994, 0.975, 4.0, -4.0, 17.0, -17.0, 20.0, -20.0, 88.72, 88.7228,
         88.72284, 88.73, -87.33655, -87.4, -103.0, -103.97, -104.0, -105.0, 1e2, -1e2, 1e4, -1e4, 2.4e38,
         3.4028235e38, -3.4028235e38, 3.1415927, -3.1415927, 1.5707964, 355.0, 710.0, 22.0, 103993.0, 99999.99,
         1.00001e5]


def arguments(dtype: str, random: int) -> np.ndarray:
    """Edges, numbers near the functions' turning points, and numbers of every magnitude."""
    rng = np.random.default_rng(0)
    bits = rng.integers(0, 2 ** 32, random, dtype=np.uint64).astype(np.uint32).view(np.float32)
    near = rng.uniform(-1, 1, 2 * random), rng.uniform(-6, 6, random), rng.uniform(-105, 90, random)
    x = np.concatenate([EDGES, bits[np.isfinite(bits)], *near]).astype(dtype)
    return np.concatenate([x, np.ones(-len(x) % LANES, dtype)])


def ulps(values: np.ndarray, exact: list) -> np.ndarray:
    """The distances in units in the last place; 0 where an overflow or NaN is as it must be, inf where it is not."""
    information = np.finfo(values.dtype)
    result = np.zeros(len(values))
    for i, (value, reference) in enumerate(zip(values.tolist(), exact, strict=True)):
        if not isinstance(reference, mpmath.mpf):
            result[i] = 0.0 if math.isnan(value) else math.inf
        elif abs(reference) >= mpmath.mpf(float(information.max)) * (1 + float(information.epsneg) / 2):
            result[i] = 0.0 if value == (math.inf if reference > 0 else -math.inf) else math.inf
        elif math.isnan(value) or math.isinf(value):
            result[i] = math.inf
        else:
            exponent = int(mpmath.floor(mpmath.log(abs(reference), 2))) if reference else information.minexp
            unit = mpmath.ldexp(1, max(exponent, information.minexp) - information.nmant)
            result[i] = float(abs(mpmath.mpf(value) - reference) / unit)
    return result


def exact_values(name: str, x: np.ndarray) -> list:
    """Exact values; complex or infinite ones as they come."""
    with mpmath.workprec(200):
        return [_exact(name, float(v)) for v in x]


def _exact(name: str, x: float) -> object:
    if name in ("log", "log2") and x == 0 or name == "log1p" and x == -1:
        return mpmath.mpf("-inf")
    if name in ("exp", "expm1", "softplus", "sigmoid", "sinh", "cosh") and abs(x) > 2000:  # far beyond overflow
        low, high = {"exp": (0, "inf"), "expm1": (-1, "inf"), "softplus": (0, x), "sigmoid": (0, 1),
                     "sinh": ("-inf", "inf"), "cosh": ("inf", "inf")}[name]
        return mpmath.mpf(high if x > 0 else low)
    return EXACT[name](mpmath.mpf(x))


def evaluate(run, name: str, x: np.ndarray) -> np.ndarray:
    y = np.zeros((2, len(x)), x.dtype)
    run(f"""
        for i in range(0, {len(x)}, {LANES}):
            tile_store(p1, i, 0, tile_{name}(tile_load(p0, i, 0, 1, 1)))
        for i in range({len(x)}):
            store_scalar(p1, {len(x)} + i, tile_{name}(load_scalar(p0, i)))
        """, x, y)
    np.testing.assert_array_equal(y[0].view(np.uint8), y[1].view(np.uint8), err_msg="scalar and tile differ")
    return y[0]


@pytest.mark.parametrize("name", BOUNDS)
def test_error_in_float32(run, name):
    x = arguments("float32", 600)
    y = evaluate(run, name, x)
    error = ulps(y, exact_values(name, x))
    worst = int(error.argmax())
    assert error[worst] <= BOUNDS[name], f"{name}({x[worst]!r}) = {y[worst]!r}: {error[worst]} ulp"


@pytest.mark.parametrize("name", BOUNDS)
def test_error_in_float64(run, name):
    x = arguments("float64", 60)
    error = ulps(evaluate(run, name, x), exact_values(name, x))
    worst = int(error.argmax())
    assert error[worst] <= 3.0, f"{name}({x[worst]!r}): {error[worst]} ulp"


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(("name", "at_minus_infinity", "at_infinity", "at_minus_zero"), [
    ("exp", 0.0, np.inf, 1.0), ("log", np.nan, np.inf, -np.inf), ("expm1", -1.0, np.inf, -0.0),
    ("log1p", np.nan, np.inf, -0.0), ("tanh", -1.0, 1.0, -0.0), ("sigmoid", 0.0, 1.0, 0.5),
    ("softplus", 0.0, np.inf, np.log(2)), ("erf", -1.0, 1.0, -0.0), ("log2", np.nan, np.inf, -np.inf),
    ("sinh", -np.inf, np.inf, -0.0), ("cosh", np.inf, np.inf, 1.0), ("atan", -np.pi / 2, np.pi / 2, -0.0),
    ("sin", np.nan, np.nan, -0.0), ("cos", np.nan, np.nan, 1.0), ("tan", np.nan, np.nan, -0.0)])
def test_infinities_nan_and_signed_zero(run, name, at_minus_infinity, at_infinity, at_minus_zero, dtype):
    x = np.zeros(LANES, dtype)
    x[:4] = [-np.inf, np.inf, -0.0, np.nan]
    y = evaluate(run, name, x)
    expected = np.array([at_minus_infinity, at_infinity, at_minus_zero, np.nan], dtype)
    np.testing.assert_array_equal(y[:4], expected)
    assert np.signbit(y[2]) == np.signbit(expected[2])


@pytest.mark.parametrize("vectors", [1, 3, 4, 5, 8])
def test_groups_of_vectors_give_the_same_bits(run, vectors):
    x = np.linspace(-5, 5, vectors * LANES).astype(np.float32)
    y = np.zeros_like(x)
    run(f"tile_store(p1, 0, 0, tile_sigmoid(tile_load(p0, 0, 0, 1, {vectors})))", x, y)
    np.testing.assert_array_equal(y, evaluate(run, "sigmoid", x))


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_library_functions(run, dtype):
    x, y = np.linspace(0.1, 5, LANES).astype(dtype), np.zeros((7, LANES), dtype)
    run(f"""
        a = tile_load(p0, 0, 0, 1, 1)
        tile_store(p1, 0, 0, tile_sin(a))
        tile_store(p1, {LANES}, 0, tile_cos(a))
        tile_store(p1, {2 * LANES}, 0, tile_pow(a, 2.5))
        tile_store(p1, {3 * LANES}, 0, tile_tan(a))
        tile_store(p1, {4 * LANES}, 0, tile_atan(a))
        tile_store(p1, {5 * LANES}, 0, tile_asin(a / 5.0))
        tile_store(p1, {6 * LANES}, 0, tile_acos(a / 5.0))
        """, x, y)
    wide = x.astype(np.float64)
    fifth = (x / np.asarray(5, dtype)).astype(np.float64)
    expected = [np.sin(wide), np.cos(wide), wide ** 2.5, np.tan(wide), np.arctan(wide), np.arcsin(fifth),
                np.arccos(fifth)]
    np.testing.assert_allclose(y, expected, rtol=2 * np.finfo(dtype).eps, atol=np.finfo(dtype).eps)
