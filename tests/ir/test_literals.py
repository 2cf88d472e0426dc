"""Numbers as text: as short as they are exact."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from graphc.ir.literals import float_text
from graphc.ir.types import f32, f64

SINGLES = st.floats(width=32, allow_nan=False, allow_infinity=False)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.1, "0.1"),
        (0.01, "0.01"),
        (1 / 3, "0.33333334"),
        (2.0, "2.0"),
        (-0.0, "-0.0"),
        (1e-7, "1e-07"),
        (5e9, "5000000000.0"),
    ],
)
def test_float32_is_short(value: float, text: str) -> None:
    assert float_text(float(np.float32(value)), f32) == text


@given(SINGLES)
def test_float32_reads_back(value: float) -> None:
    text = float_text(value, f32)
    assert np.float32(float(text)).tobytes() == np.float32(value).tobytes()
    assert len(text) <= len(repr(value))


@given(st.floats(-1e38, 1e38))
def test_other_numbers_give_the_bits_of_their_dtype(value: float) -> None:
    assert float(float_text(value, f64)) == value
    assert np.float32(float(float_text(value, f32))).tobytes() == np.float32(value).tobytes()


def test_beyond_the_largest_float32() -> None:
    assert float_text(1e39, f32) == "inf" and float_text(1e39, f64) == "1e+39"
