"""The native program driver: what `driver.ll` says, made callable. Calls release Python's global lock."""

from __future__ import annotations

import ctypes
import functools
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from graphc.ir.buffers import aligned_zeros
from graphc.runtime.loader import LoadedCode, assemble, load

ROW = 8  # int64 columns of a table row
CALL, BARRIER, LOOP, NEXT, COPY, ADD, BRANCH, JUMP = range(8)  # a row's first column

STOP, STEPS_WANTED, STEPS_DONE = 0, 1, 2  # places in the control block
TIMES, CLOCK = 4, 5
_CONTROL_CELLS = 32
_CLOCK_MONOTONIC = 6 if sys.platform == "darwin" else 1

# The first place in an array of integers that is outside lower <= value < upper, or -1.
_SCAN = """
define i64 @graphc_outside_{name}(ptr %values, i64 %count, i64 %lower, i64 %upper) {{
entry:
  br label %check
check:
  %i = phi i64 [ 0, %entry ], [ %i.next, %inside ]
  %more = icmp slt i64 %i, %count
  br i1 %more, label %look, label %clean
look:
  %at = getelementptr {type}, ptr %values, i64 %i
  %raw = load {type}, ptr %at
  %value = {widen}
  %enough = icmp sge i64 %value, %lower
  %below = icmp slt i64 %value, %upper
  %in = and i1 %enough, %below
  br i1 %in, label %inside, label %outside
inside:
  %i.next = add i64 %i, 1
  br label %check
outside:
  ret i64 %i
clean:
  ret i64 -1
}}
"""
_WIDEN = {
    "i32": ("i32", "sext i32 %raw to i64"),
    "i64": ("i64", "add i64 %raw, 0"),
    "u8": ("i8", "zext i8 %raw to i64"),
}


@dataclass(frozen=True)
class Driver:
    """The loaded driver.

    `run(table, rows, thread, threads, control)` takes int64 addresses and counts and returns the steps done;
    `outside[dtype](values, count, lower, upper)` is the first place outside `lower <= value < upper`, or -1.
    """

    run: Callable[..., int]
    outside: Mapping[str, Callable[..., int]]
    code: LoadedCode


@functools.cache
def driver() -> Driver:
    """The driver, assembled and loaded at its first use in a process, which takes about 8 ms."""
    text = Path(__file__).with_name("driver.ll").read_text(encoding="utf-8")
    scans = [_SCAN.format(name=name, type=type_, widen=widen) for name, (type_, widen) in _WIDEN.items()]
    code = load({"graphc_run": assemble(text + "".join(scans))})
    outside = {name: _function(code, f"graphc_outside_{name}", 4) for name in _WIDEN}
    return Driver(_function(code, "graphc_run", 5), outside, code)


def control_block() -> np.ndarray:
    """A fresh control block that asks for one step; i64[32], a cache line for each cell that threads fight over."""
    control = aligned_zeros((_CONTROL_CELLS,), "i64")
    control[STEPS_WANTED], control[CLOCK] = 1, _CLOCK_MONOTONIC
    return control


def _function(code: LoadedCode, symbol: str, arguments: int) -> Any:
    prototype = ctypes.CFUNCTYPE(ctypes.c_int64, *[ctypes.c_int64] * arguments)
    return prototype(code.engine.get_function_address(symbol))
