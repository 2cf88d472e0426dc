from __future__ import annotations

import numpy as np
import pytest

import graphc as gc
from graphc.errors import AttributeValueError, DTypeError, ShapeError

NAMES = ("float32", "float64", "int32", "int64", "uint8", "bool")
F32, F64, I32, I64, U8, BOOL = (gc.input(name, (3,), dtype=name) for name in NAMES)


@pytest.mark.parametrize(
    ("result", "dtype"),
    [
        (0.1 * F32, "float32"), (0.1 * F64, "float64"), (2 * F32, "float32"), (2 * I32, "int32"), (2 * I64, "int64"),
        (1.5 * I32, "float32"), (I32 / 2, "float32"), (I32 / I32, "float32"), (F64 / 2, "float64"),
        (U8 * 0.5, "float32"),
        (BOOL * F32, "float32"), (BOOL * 0.5, "float32"), (F32 * np.float64(0.5), "float32"), (BOOL * I32, "int32"),
        (F32 * np.arange(3), "float32"), (F32 * np.arange(3.0), "float32"), (F64 + np.float32(1), "float64"),
        (I32 + np.arange(3), "int32"), (I32 * np.array([0.5, 1, 2]), "float64"), (gc.exp(I32), "float32"),
        (gc.exp(U8), "float32"), (gc.mean(BOOL), "float32"), (gc.mean(I64), "float32"), (gc.mean(F64), "float64"),
        (gc.sum(BOOL), "int64"), (gc.sum(I32), "int32"), (gc.where(BOOL, 1.0, 0.0), "float32"),
        (gc.where(BOOL, F64, 0), "float64"), (gc.maximum(I32, 0), "int32"), (gc.equal(I32, 1), "bool"),
        (gc.constant(1.5), "float32"), (gc.constant(np.ones(2)), "float64"), (gc.constant([1, 2]), "int64"),
        (gc.constant(3, "uint8"), "uint8"), (gc.softmax(I32), "float32"), (F64**2, "float64"), (I32**2, "int32"),
        (F32**0.3, "float32"), (F32**1000, "float32"), (F32**F32, "float32"), ((-2) ** F64, "float64"),
        (I32**I32, "float32"), (I32 % 3, "int32"), (I32 // 2, "int32"), (7 % F64, "float64"), (I32 % 0.5, "float32"),
        (gc.floor(I32), "int32"), (gc.round(F64), "float64"), (gc.isnan(I32), "bool"), (gc.clip(I32, 0), "int32"),
        (gc.clip(F32, None, 1), "float32"), (gc.elu(I32), "float32"), (gc.prelu(F32, 0.25), "float32"),

        (I32**0.5, "float32"), (I32**2.5, "float32"), (2**F64, "float64"), (F32 + [1, 2, 3], "float32"),
    ],
)  # fmt: skip
def test_dtypes_of_mixed_operands(result, dtype) -> None:
    assert result.dtype.numpy_name == dtype


@pytest.mark.parametrize(
    ("use", "error", "words"),
    [
        (lambda: gc.clip(F32), AttributeValueError, ["clip(", "both bounds are None"]),
        (lambda: round(F32, 2), AttributeValueError, ["decimals=2", "gc.round(x * 100) / 100"]),
        (lambda: gc.gelu(F32, "sigmoid"), AttributeValueError, ["'none' or 'tanh'"]),
        (lambda: F32 ^ True, DTypeError, []),
        (lambda: F32 + F64, DTypeError, ["float32 and float64", ".astype", "add(f32[3], f64[3])", "test_declare.py"]),
        (lambda: F32 + I32, DTypeError, [".astype"]),
        (lambda: F32 @ F64, DTypeError, ["matmul"]),
        (lambda: I32 + 2**40, DTypeError, ["does not fit int32"]),
        (lambda: U8 > -1, DTypeError, ["does not fit uint8"]),
        (lambda: F32 + "text", DTypeError, ["'text'"]),
        (lambda: F32 + np.ones(3, complex), DTypeError, ["complex128"]),
        (lambda: gc.where(F32, 1, 2), DTypeError, ["must be bool", "gc.not_equal"]),
        (lambda: gc.one_hot(F32, 3), DTypeError, ["integers", "test_declare.py"]),
        (lambda: gc.gather(F32.reshape(3, 1), F32), DTypeError, ["integers"]),
        (lambda: gc.input("x", 3), ShapeError, ["tuple"]),
        (lambda: gc.input("x", (-1,)), ShapeError, ["negative"]),
        (lambda: gc.input("x", (2,), "complex64"), DTypeError, ["complex64"]),
    ],
)
def test_errors_name_what_is_wrong(use, error, words) -> None:
    with pytest.raises(error) as caught:
        use()
    for word in words:
        assert word in str(caught.value)


def test_float_scalars_keep_their_value_in_float64(compute) -> None:
    (found,) = compute([F64 * 0.1], {F64: np.ones(3)})
    assert found[0] == 0.1


def test_matmul_broadcasts_batch_axes_and_vectors(compute) -> None:
    rng = np.random.default_rng(0)
    shapes = [((2, 3, 4), (4, 5)), ((3, 4), (2, 4, 5)), ((2, 1, 3, 4), (6, 4, 5)), ((4,), (4,)), ((4,), (2, 4, 5)),
              ((2, 3, 4), (4,)), ((3, 4), (4,)), ((4,), (4, 3))]  # fmt: skip
    for a, b in shapes:
        x, y = gc.input("x", a, "float64"), gc.input("y", b, "float64")
        u, v = rng.normal(size=a), rng.normal(size=b)
        (found,) = compute([x @ y], {x: u, y: v})
        np.testing.assert_allclose(found, u @ v)
    with pytest.raises(ShapeError, match="matmul"):
        gc.input("x", (2, 3, 4)) @ gc.input("y", (3, 4, 5))
