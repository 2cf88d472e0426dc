"""What timing does with kernels: whom it calls, on what memory. How long anything takes is nobody's promise."""

from __future__ import annotations

import numpy as np
import pytest

from graphc.errors import CompileError
from graphc.ir.types import bool_, f32, i32
from graphc.runtime.loader import assemble
from graphc.runtime.timing import Memory, least_seconds

# In cells of the test's: its calls, those that find what it has not written itself, and the runtime count.
SPY = """
define void @{name}(ptr %args, i64 %thread, i64 %threads) {{
  %cells = inttoptr i64 {cells} to ptr
  %calls = load i64, ptr %cells
  %calls.next = add i64 %calls, 1
  store i64 %calls.next, ptr %cells
  %x = load ptr, ptr %args
  %old = load i32, ptr %x
  %low = icmp sge i32 %old, 5
  %high = icmp slt i32 %old, 8
  %inside = and i1 %low, %high
  %fresh = zext i1 %inside to i64
  %second = getelementptr i64, ptr %cells, i64 1
  %found = load i64, ptr %second
  %found.next = add i64 %found, %fresh
  store i64 %found.next, ptr %second
  store i32 -3, ptr %x
  %count.at = getelementptr ptr, ptr %args, i64 1
  %count.cell = load ptr, ptr %count.at
  %count = load i64, ptr %count.cell
  %third = getelementptr i64, ptr %cells, i64 2
  store i64 %count, ptr %third
  ret void
}}
"""


def spies(cells: np.ndarray) -> dict[str, bytes]:
    """Two kernels, each with a row of `cells`."""
    texts = {f"spy{k}": SPY.format(name=f"spy{k}", cells=cells[k].ctypes.data) for k in range(2)}
    return {name: assemble(text) for name, text in texts.items()}


def test_every_code_is_called_on_operands_and_counts() -> None:
    cells = np.zeros((2, 3), np.int64)
    found = least_seconds(spies(cells), [Memory(i32, 4, 5, 8, written=True)], [11], rounds=3, sample_seconds=0)
    assert len(found) == 2
    assert all(0 < seconds < 60 for seconds in found)
    # Three rounds, and one more that counts repeats: each warms up on fresh memory, then times a call.
    assert cells[:, 0].tolist() == [8, 8]
    assert cells[:, 1].tolist() == [4, 4]
    assert (cells[:, 2] == 11).all()


def test_what_is_only_read_is_filled_once() -> None:
    cells = np.zeros((2, 3), np.int64)
    least_seconds(spies(cells), [Memory(i32, 4, 5, 8)], [1], rounds=3, sample_seconds=0)
    assert cells[:, 1].tolist() == [1, 0]


def test_dtypes_and_empty_operands() -> None:
    nothing = {"nothing": assemble("define void @nothing(ptr %a, i64 %b, i64 %c) { ret void }")}
    operands = [Memory(f32, 3), Memory(bool_, 2), Memory(i32, 0), Memory(i32, 2, 4, 4)]
    assert len(least_seconds(nothing, operands, rounds=1, sample_seconds=0)) == 1
    assert len(least_seconds(nothing, [], rounds=1, sample_seconds=0)) == 1


def test_what_is_no_object_is_refused() -> None:
    with pytest.raises(CompileError, match="no object file"):
        least_seconds({"spy": b"nothing"}, [], rounds=1)
