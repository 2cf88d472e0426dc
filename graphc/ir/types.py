"""Tensor types: a dtype and a shape whose dimensions are integers or symbols."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from graphc.errors import DTypeError
from graphc.ir.dims import Dim, Poly, as_dim, format_shape, product, substitute


@dataclass(frozen=True)
class DType:
    """An element type: its short name in dumps, NumPy's name, its size in bytes and its kind (f, i, u, b)."""

    name: str
    numpy_name: str
    itemsize: int
    kind: str

    @property
    def numpy(self) -> np.dtype[Any]:
        """The NumPy dtype."""
        return np.dtype(self.numpy_name)

    @property
    def is_float(self) -> bool:
        """True for f32 and f64, the dtypes that have gradients."""
        return self.kind == "f"

    @property
    def is_integer(self) -> bool:
        """True for i32, i64 and u8 (not for bool)."""
        return self.kind in "iu"

    def __str__(self) -> str:
        return self.name

    __repr__ = __str__


f32 = DType("f32", "float32", 4, "f")
f64 = DType("f64", "float64", 8, "f")
i32 = DType("i32", "int32", 4, "i")
i64 = DType("i64", "int64", 8, "i")
u8 = DType("u8", "uint8", 1, "u")
bool_ = DType("bool", "bool", 1, "b")

DTYPES: tuple[DType, ...] = (f32, f64, i32, i64, u8, bool_)
_BY_NAME = {dtype.name: dtype for dtype in DTYPES} | {dtype.numpy_name: dtype for dtype in DTYPES}


def as_dtype(value: str | DType | type | np.dtype[Any]) -> DType:
    """A DType from a DType, its short or NumPy name, or a NumPy dtype. Raises DTypeError for any other."""
    if isinstance(value, DType):
        return value
    try:
        name = value if isinstance(value, str) and value in _BY_NAME else np.dtype(value).name
    except TypeError:
        name = str(value)
    if name not in _BY_NAME:
        raise DTypeError(f"dtype {value!r} is not supported; use one of {', '.join(d.numpy_name for d in DTYPES)}")
    return _BY_NAME[name]


@dataclass(frozen=True)
class TensorType:
    """The type of a value: `f32[N,784]`."""

    dtype: DType
    shape: tuple[Dim, ...] = ()

    @property
    def rank(self) -> int:
        """Number of axes."""
        return len(self.shape)

    @property
    def size(self) -> Dim:
        """Number of elements, a polynomial when the shape has symbols."""
        return product(self.shape)

    @property
    def nbytes(self) -> Dim:
        """Bytes of the elements."""
        return self.size * self.dtype.itemsize

    def bind(self, sizes: dict[str, Dim]) -> TensorType:
        """This type with the dimension symbols named in `sizes` replaced."""
        return TensorType(self.dtype, tuple(substitute(d, sizes) for d in self.shape))

    def with_dtype(self, dtype: DType) -> TensorType:
        """This shape with another dtype."""
        return TensorType(dtype, self.shape)

    def __str__(self) -> str:
        return f"{self.dtype}{format_shape(self.shape)}"

    __repr__ = __str__


def tensor(dtype: str | DType, shape: tuple[int | str | Poly, ...] = ()) -> TensorType:
    """A TensorType from names: `tensor("f32", ("N", 784))`."""
    return TensorType(as_dtype(dtype), tuple(as_dim(d) for d in shape))
