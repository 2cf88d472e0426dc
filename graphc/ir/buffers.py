"""Memory that kernels may read past the end of: aligned to a cache line, with slack after the last element.

A kernel works on whole vectors and whole register tiles, so it may load (never store) beyond the last element of
an operand. Whoever owns an operand's memory allocates it here.
"""

from __future__ import annotations

import itertools
import math
import operator
import re
from typing import Any

import numpy as np

from graphc.errors import InputError, MemoryLimitError
from graphc.ir.types import DType, as_dtype

ALIGNMENT = 64  # a cache line, and the widest vector there is
SLACK_BYTES = 4096  # more than any register tile reaches beyond the end
UNITS = ("bytes", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB")


def aligned_empty(shape: tuple[int, ...], dtype: DType | str | type | np.dtype[Any]) -> np.ndarray:
    """An uninitialised row-major array at a multiple of 64 bytes, readable for 4096 bytes after its end.

    `dtype` is one of graphc's. Raises DTypeError for any other, MemoryLimitError where there is no room for it.
    """
    return _aligned(np.empty, shape, as_dtype(dtype))


def aligned_zeros(shape: tuple[int, ...], dtype: DType | str | type | np.dtype[Any]) -> np.ndarray:
    """Like `aligned_empty`, all zeros, the slack included (pages are only taken when touched)."""
    return _aligned(np.zeros, shape, as_dtype(dtype))


def aligned_copy(array: np.ndarray) -> np.ndarray:
    """A row-major copy of `array` in memory as `aligned_empty` gives it."""
    copy = aligned_empty(array.shape, array.dtype)
    np.copyto(copy, array)
    return copy


class Elements:
    """The elements of a variable, which programs share, and a count of their changes.

    `array` is writable memory as `aligned_empty` gives it, the same for life. Python writes to it by `write` alone.
    Programs count their own updates, natively, in `changes[0]`, each step one; `changes[1]` is
    Python's, so neither ever loses a count of the other. A program that keeps something computed from the elements
    compares both with what they were.
    """

    __slots__ = ("array", "changes", "_numbers")

    def __init__(self, array: np.ndarray, version: int = 0) -> None:
        self.array = array
        self.changes = aligned_zeros((2,), "i64")
        self.changes[0] = version
        self._numbers = itertools.count(1)  # no number is given twice, also if two threads write

    @property
    def version(self) -> int:
        """How often the elements were written since they had their first values."""
        return int(self.changes.sum())

    def write(self, values: Any) -> None:
        """Write all elements, and count it."""
        number = next(self._numbers)
        try:
            self.array[...] = values
        finally:  # counted afterwards, so that what is computed from half of it is stale, and with no call before that
            self.changes[1] = number  # in which a signal handler could raise

    def view(self) -> np.ndarray:
        """The live elements as an array that cannot be written, and cannot be made so."""
        return np.asarray(self.array.data.toreadonly())


def format_bytes(nbytes: int) -> str:
    """`512 bytes`, `1.5 MiB`: at most four digits."""
    size, unit = float(nbytes), 0
    while size >= 1024 and unit < len(UNITS) - 1:
        size, unit = size / 1024, unit + 1
    return f"{nbytes} bytes" if unit == 0 else f"{size:.4g} {UNITS[unit]}"


def parse_bytes(size: int | str) -> int:
    """Bytes from a number, or from text with a unit: `64 MiB`, `1.5 GiB`, `500 MB`, `4096 bytes`.

    Raises InputError for anything else, and for negative sizes.
    """
    if not isinstance(size, str) and hasattr(size, "__index__") and not isinstance(size, bool):
        if size >= 0:
            return operator.index(size)
    elif isinstance(size, str) and (match := re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([A-Za-z]+)\s*", size)):
        units = {unit.lower(): 1024**power for power, unit in enumerate(UNITS)} | {"b": 1, "byte": 1}
        units |= {f"{letter}b": 1000 ** (power + 1) for power, letter in enumerate("kmgtpe")}
        factor = units.get(match[2].lower())
        if factor is not None:
            return int(float(match[1]) * factor)
    raise InputError(f"{size!r} is no size in memory: give bytes as an integer, or text such as '64 MiB' or '500 MB'")


def address(array: np.ndarray) -> int:
    """Where the elements begin. (`array.ctypes.data` is the address of something else when there are none.)"""
    return int(array.__array_interface__["data"][0])


def is_aligned(array: np.ndarray) -> bool:
    """True if `array` is row-major and starts at a multiple of 64 bytes. (Slack cannot be seen.)"""
    return bool(array.flags.c_contiguous) and address(array) % ALIGNMENT == 0


def _aligned(allocate: Any, shape: tuple[int, ...], dtype: DType) -> np.ndarray:
    nbytes = math.prod(shape) * dtype.itemsize
    try:
        raw = allocate(nbytes + ALIGNMENT + SLACK_BYTES, np.uint8)
    except (MemoryError, ValueError, OverflowError) as error:  # NumPy's own for what no index can count
        what = f"{dtype}[{','.join(map(str, shape))}]"
        raise MemoryLimitError(f"there is no room for {what}, {format_bytes(nbytes)}") from error
    return np.ndarray(shape, dtype.numpy, buffer=raw, offset=-address(raw) % ALIGNMENT)
