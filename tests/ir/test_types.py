"""Tensor types and dtypes."""

from __future__ import annotations

import numpy as np
import pytest

from graphc.errors import DTypeError
from graphc.ir.dims import symbol
from graphc.ir.types import DTYPES, TensorType, as_dtype, bool_, f32, f64, i32, i64, tensor, u8


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_dtype_agrees_with_numpy(dtype) -> None:
    assert dtype.numpy.itemsize == dtype.itemsize
    assert dtype.numpy.kind == dtype.kind
    assert as_dtype(dtype) is dtype
    assert as_dtype(dtype.name) is dtype
    assert as_dtype(dtype.numpy_name) is dtype
    assert as_dtype(dtype.numpy) is dtype
    assert as_dtype(dtype.numpy.newbyteorder(">")) is dtype


def test_kinds() -> None:
    assert [d for d in DTYPES if d.is_float] == [f32, f64]
    assert [d for d in DTYPES if d.is_integer] == [i32, i64, u8]
    assert as_dtype(bool) is bool_ and as_dtype(float) is f64


@pytest.mark.parametrize("wrong", ["float16", np.complex64, "colour", np.dtype("S3")])
def test_unsupported_dtypes_are_named(wrong) -> None:
    with pytest.raises(DTypeError, match="is not supported; use one of float32"):
        as_dtype(wrong)


def test_tensor_type() -> None:
    type_ = tensor("f32", ("N", 784))
    assert str(type_) == "f32[N,784]" and str(tensor("bool")) == "bool[]"
    assert type_ == TensorType(f32, (symbol("N"), 784)) and hash(type_) == hash(tensor("float32", ("N", 784)))
    assert type_.rank == 2
    assert type_.size == 784 * symbol("N") and type_.nbytes == 3136 * symbol("N")
    assert type_.bind({"N": 3}) == tensor("f32", (3, 784))
    assert type_.bind({"M": 3}) == type_
    assert type_.with_dtype(i32) == tensor("i32", ("N", 784))
