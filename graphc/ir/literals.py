"""Constants as text and back: `0.1` for a number, `f32 0.5`, `i64[2] [1, 2]` or base64 for arrays."""

from __future__ import annotations

import base64
import re
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from graphc.ir.dims import format_shape
from graphc.ir.types import DType

if TYPE_CHECKING:
    from graphc.ir.graph import Literal

LIST_LIMIT = 32  # literals with more elements are written as base64


def format_literal(literal: Literal) -> str:
    """`f32 0.5`, `i64[2] [1, 2]` or `f32[100] base64 "..."`: exact, down to the bits of a NaN."""
    kind = literal.dtype + (format_shape(literal.shape) if literal.shape else "")
    array = literal.array
    if array.size <= LIST_LIMIT:
        text = _nested_list(array)
        if read_elements(re.findall(r"[^][, ]+", text), array).tobytes() == literal.data:
            return f"{kind} {text}"
    return f'{literal.dtype}{format_shape(literal.shape)} base64 "{base64.b64encode(literal.data).decode()}"'


def float_text(value: float, dtype: DType) -> str:
    """The shortest number that `dtype` rounds to the bits of `value`: `0.1` for the float32 0.10000000149011612."""
    if dtype.name == "f32":
        with np.errstate(over="ignore"):
            rounded = np.float32(value)
            text = repr(float(str(rounded)))  # as Python writes it
            if np.float32(float(text)).tobytes() == rounded.tobytes():  # it is rounded twice: to f64, then to f32
                return text
    return repr(float(value))


def _nested_list(array: np.ndarray) -> str:
    if array.ndim:
        return "[" + ", ".join(_nested_list(part) for part in array) + "]"
    if array.dtype.kind == "b":
        return "true" if array else "false"
    return str(array[()]) if array.dtype.kind == "f" else str(int(array))


def read_elements(texts: list[str], like: np.ndarray) -> np.ndarray:
    """The array of `like`'s dtype and shape that elements of a literal, written as text, stand for."""
    read: Callable[[str], Any] = {"b": lambda t: t == "true", "f": float}.get(like.dtype.kind, int)
    return np.array([read(text) for text in texts], like.dtype).reshape(like.shape)
