"""Operators and elementwise functions against NumPy."""

from __future__ import annotations

import operator

import numpy as np
import pytest

from graphc.codegen.host import host
from graphc.errors import CompileError

LANES = host().lanes
NUMBERS = ("float32", "float64", "int32", "int64")
FLOATS = ("float32", "float64")
OPERATORS = {"+": operator.add, "-": operator.sub, "*": operator.mul, "//": operator.floordiv, "%": operator.mod,
             "/": operator.truediv, "<": operator.lt, "<=": operator.le, ">": operator.gt, ">=": operator.ge,
             "==": operator.eq, "!=": operator.ne}


def pair(dtype: str) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    x, y = (rng.integers(-9, 10, LANES).astype(dtype) for _ in range(2))
    y[y == 0] = 3
    if dtype in FLOATS:
        x, y = x * np.asarray(1.25, dtype), y * np.asarray(0.7, dtype)
        x[:3], y[2:5] = np.nan, np.nan
    return x, y


@pytest.mark.parametrize("dtype", NUMBERS)
def test_binary_operators(run, dtype):
    x, y = pair(dtype)
    symbols = [s for s in OPERATORS if not (s == "/" and dtype not in FLOATS or s == "%" and dtype in FLOATS)]
    out = {s: np.zeros(LANES, bool if OPERATORS[s](1, 1) is True or OPERATORS[s](1, 1) is False else dtype)
           for s in symbols}
    lines = ["a = tile_load(p0, 0, 0, 1, 1)", "b = tile_load(p1, 0, 0, 1, 1)"]
    lines += [f"tile_store(p{i + 2}, 0, 0, a {s} b)" for i, s in enumerate(symbols)]
    run("\n".join(lines), x, y, *out.values())
    for symbol, result in out.items():
        np.testing.assert_array_equal(result, OPERATORS[symbol](x, y), err_msg=symbol)


@pytest.mark.parametrize("dtype", NUMBERS)
def test_scalars_are_weak_and_shapes_broadcast(run, dtype):
    x = np.arange(4 * LANES).astype(dtype)
    out = np.zeros((3, 2, 2 * LANES), dtype)
    run(f"""
        a = tile_load(p0, 0, {2 * LANES}, 2, 2)
        tile_store(p1, 0, {2 * LANES}, 3 - a * 2.0)
        tile_store(p1, {4 * LANES}, {2 * LANES}, a + tile_load(p0, 5, 0, 1, 2))
        tile_store(p1, {8 * LANES}, {2 * LANES}, -a + tile_broadcast_column(p0, 1, 2, 2, 1))
        """, x, out)
    a = x.reshape(2, -1)
    np.testing.assert_array_equal(out[0], 3 - a * 2)
    np.testing.assert_array_equal(out[1], a + x[5:5 + 2 * LANES])
    np.testing.assert_array_equal(out[2], -a + x[[1, 3], None])


@pytest.mark.parametrize("dtype", NUMBERS)
def test_extrema_select_and_absolute_value(run, dtype):
    x, y = pair(dtype)
    out = np.zeros((5, LANES), dtype)
    run(f"""
        a = tile_load(p0, 0, 0, 1, 1)
        b = tile_load(p1, 0, 0, 1, 1)
        tile_store(p2, 0, 0, tile_maximum(a, b))
        tile_store(p2, {LANES}, 0, tile_minimum(a, b))
        tile_store(p2, {2 * LANES}, 0, tile_maximum(a, 0.0))
        tile_store(p2, {3 * LANES}, 0, tile_select((a > b) | ~(b < 2), a, 7))
        tile_store(p2, {4 * LANES}, 0, tile_abs(a))
        """, x, y, out)
    expected = [np.maximum(x, y), np.minimum(x, y), np.maximum(x, 0), np.where((x > y) | ~(y < 2), x, 7), np.abs(x)]
    np.testing.assert_array_equal(out, np.array(expected, dtype))


def test_relu_is_one_instruction(run):
    if LANES != 16:
        pytest.skip("looks for AVX-512 instructions, which this processor has not")
    x, y = np.zeros(LANES, np.float32), np.zeros(LANES, np.float32)
    code = run("tile_store(p1, 0, 0, tile_maximum(tile_load(p0, 0, 0, 1, 1), 0.0))", x, y)
    assert "vmaxps" in code.asm and "vcmp" not in code.asm


@pytest.mark.parametrize("dtype", FLOATS)
def test_rounding_root_and_fma(run, dtype):
    x = np.linspace(-3, 3, LANES).astype(dtype)
    x[:4] = [-2.5, 0.5, 0.1, -0.0]
    out = np.zeros((5, LANES), dtype)
    run(f"""
        a = tile_load(p0, 0, 0, 1, 1)
        tile_store(p1, 0, 0, tile_floor(a))
        tile_store(p1, {LANES}, 0, tile_ceil(a))
        tile_store(p1, {2 * LANES}, 0, tile_round(a))
        tile_store(p1, {3 * LANES}, 0, tile_sqrt(tile_abs(a)))
        tile_store(p1, {4 * LANES}, 0, tile_fma(a, a, -(a * a)))
        """, x, out)
    np.testing.assert_array_equal(out[:4], [np.floor(x), np.ceil(x), np.round(x), np.sqrt(np.abs(x))])
    assert np.any(out[4] != 0) and np.all(np.abs(out[4]) <= np.finfo(dtype).eps * x * x)  # the rounding error of a * a


@pytest.mark.parametrize("target", NUMBERS + ("bool",))
@pytest.mark.parametrize("source", NUMBERS + ("bool",))
def test_casts(run, source, target):
    name = {"float32": "f32", "float64": "f64", "int32": "i32", "int64": "i64", "bool": "mask"}[target]
    x = np.random.default_rng(0).integers(-9, 10, LANES)
    x = x.astype(source) * np.asarray(1.3, source) if source in FLOATS else x.astype(source)
    y = np.zeros(LANES, target)
    run(f"tile_store(p1, 0, 0, tile_cast_{name}(tile_load(p0, 0, 0, 1, 1)))", x, y)
    np.testing.assert_array_equal(y, x.astype(target))


def test_casts_to_integers_saturate(run):
    x, y = np.zeros(LANES, np.float32), np.zeros(LANES, np.int32)
    x[:4] = [np.inf, -np.inf, np.nan, 3e9]
    run("tile_store(p1, 0, 0, tile_cast_i32(tile_load(p0, 0, 0, 1, 1)))", x, y)
    assert y[:4].tolist() == [2 ** 31 - 1, -2 ** 31, 0, 2 ** 31 - 1]


def test_elementwise_functions_of_scalars(run):
    y = np.zeros(8, np.float32)
    run("""
        a = load_scalar(p0, 0) + f32(1.5)
        store_scalar(p0, 0, tile_maximum(a, f32(2.0)))
        store_scalar(p0, 1, tile_minimum(a, 1))
        store_scalar(p0, 2, tile_select(a > f32(1.0), a, f32(9.0)))
        store_scalar(p0, 3, tile_abs(-a))
        store_scalar(p0, 4, tile_floor(a))
        store_scalar(p0, 5, tile_fma(a, a, a))
        store_scalar(p0, 6, tile_cast_i32(-a))
        store_scalar(p0, 7, tile_cast_f32(a > f32(9.0)))
        """, y)
    assert y.tolist() == [2, 1, 1.5, 1.5, 1, 3.75, -1, 0]


def test_shifts_and_bit_operators(run):
    x, y = np.arange(-4, LANES - 4).astype(np.int32), np.zeros((3, LANES), np.int32)
    run(f"""
        a = tile_load(p0, 0, 0, 1, 1)
        tile_store(p1, 0, 0, a << 3)
        tile_store(p1, {LANES}, 0, a >> 1)
        tile_store(p1, {2 * LANES}, 0, (a & 6) ^ ~a)
        """, x, y)
    np.testing.assert_array_equal(y, [x << 3, x >> 1, (x & 6) ^ ~x])


@pytest.mark.parametrize(("body", "message"), [
    ("tile_zeros_f32(1, 1) + tile_zeros_f64(1, 1)", "dtypes of .* differ"),
    ("tile_zeros_f32(2, 1) + tile_zeros_f32(3, 1)", "shapes of .* do not fit"),
    ("tile_zeros_i32(1, 1) / tile_zeros_i32(1, 1)", "truediv is not defined"),
    ("tile_select(tile_zeros_f32(1, 1), f32(1.0), f32(2.0))", "mask tile or a bool"),
    ("tile_maximum(f32(1.0), f64(2.0))", "differ in dtype"),
])
def test_misuse_says_what_is_wrong(run, body, message):
    with pytest.raises(CompileError, match=message):
        run(body)


@pytest.mark.parametrize("dtype", ["float32", "float64", "int32", "int64"])
def test_quotients_rounded_down_and_their_remainders_are_those_of_numpy(run, dtype):
    """Signs, zeros, the least integer by -1, infinities, and quotients that rounding would push to the next whole."""
    floats = [7.5, -7.5, 1.0, 1e4, 0.0, -0.0, np.inf, -np.inf, np.nan, 1.0, -1.0, 8388609.0, 0.3]
    wholes = [7, -7, 1, 10**4, 0, 0, 2**31 - 1, -(2**31), 5, -5, -1, 8388609, 3]
    numbers = np.array(floats if dtype.startswith("f") else wholes, dtype)
    divisors = np.array([0.1, 3, -3, 1, -1, 0, np.inf] if dtype.startswith("f") else [2, 3, -3, 1, -1, 0, 7], dtype)
    a, b = (v.ravel().copy() for v in np.meshgrid(numbers, divisors))
    if dtype == "int64":
        a[0], b[0] = np.iinfo(np.int64).min, -1
    a, b = (np.concatenate([v, np.ones(-len(v) % LANES, dtype)]) for v in (a, b))
    found = np.zeros((4, len(a)), dtype)
    run(f"""
        for i in range(0, {len(a)}, {LANES}):
            tile_store(p2, i, 0, tile_floordiv(tile_load(p0, i, 0, 1, 1), tile_load(p1, i, 0, 1, 1)))
            tile_store(p2, i + {len(a)}, 0, tile_mod(tile_load(p0, i, 0, 1, 1), tile_load(p1, i, 0, 1, 1)))
        for i in range({len(a)}):
            store_scalar(p2, i + {2 * len(a)}, tile_floordiv(load_scalar(p0, i), load_scalar(p1, i)))
            store_scalar(p2, i + {3 * len(a)}, tile_mod(load_scalar(p0, i), load_scalar(p1, i)))
        """, a, b, found)
    with np.errstate(all="ignore"):
        expected = [np.floor_divide(a, b), np.mod(a, b)] * 2
    np.testing.assert_array_equal(found, expected)
