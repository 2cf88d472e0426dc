"""Alignment and slack of memory that kernels work on."""

from __future__ import annotations

import ctypes

import numpy as np
import pytest

from graphc.errors import DTypeError
from graphc.ir.buffers import (
    SLACK_BYTES,
    Elements,
    address,
    aligned_copy,
    aligned_empty,
    aligned_zeros,
    is_aligned,
)
from graphc.ir.types import f32


@pytest.mark.parametrize("shape", [(), (1,), (3, 5), (0, 4), (1000, 17)])
@pytest.mark.parametrize("dtype", ["f32", "f64", "i32", "i64", "u8", "bool"])
def test_arrays_are_aligned_and_of_the_asked_type(shape: tuple[int, ...], dtype: str) -> None:
    for array in (aligned_empty(shape, dtype), aligned_zeros(shape, dtype)):
        assert array.shape == shape and address(array) % 64 == 0
        assert is_aligned(array) and array.flags.writeable
    assert not aligned_zeros(shape, dtype).any()


def test_the_slack_belongs_to_the_array() -> None:
    array = aligned_zeros((7,), f32)
    after = (ctypes.c_uint8 * SLACK_BYTES).from_address(array.ctypes.data + array.nbytes)
    assert bytes(after) == bytes(SLACK_BYTES)
    owner = array.base
    while owner.base is not None:
        owner = owner.base
    assert owner.ctypes.data + owner.nbytes >= array.ctypes.data + array.nbytes + SLACK_BYTES


def test_copies_are_row_major() -> None:
    source = np.arange(12.0).reshape(3, 4).T
    copy = aligned_copy(source)
    assert copy.flags.c_contiguous and copy.ctypes.data % 64 == 0
    np.testing.assert_array_equal(copy, source)


def test_is_aligned_sees_offsets_and_strides() -> None:
    array = aligned_zeros((32, 16), "f32")
    assert is_aligned(array[1:])
    assert not is_aligned(array.reshape(-1)[1:])
    assert not is_aligned(array[:, :8])


def test_other_dtypes_are_refused() -> None:
    with pytest.raises(DTypeError, match="complex"):
        aligned_empty((2,), np.complex64)


def test_a_write_that_an_interrupt_ends_is_counted() -> None:
    """Elements may hold the new values then, and what was computed from the old ones is stale."""

    class Interrupting:
        shape = (2,)

        def __array__(self, dtype: object = None, copy: object = None) -> np.ndarray:
            raise KeyboardInterrupt

    elements = Elements(aligned_zeros((2,), f32))
    with pytest.raises(KeyboardInterrupt):
        elements.write(Interrupting())
    assert elements.version == 1
    elements.write(3)
    assert elements.version == 2 and elements.array.tolist() == [3, 3]
