"""The native program driver: what `driver.ll` and `team.ll` say, made callable. Calls release Python's global lock."""

from __future__ import annotations

import ctypes
import functools
import platform
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from graphc.ir.buffers import address, aligned_zeros
from graphc.runtime.loader import LoadedCode, assemble, load

ROW = 8  # int64 columns of a table row
CALL, BARRIER, LOOP, NEXT, COPY, ADD, BRANCH, JUMP, CALL_ALONE = range(9)  # a row's first column

STOP, STEPS_WANTED = 0, 1  # places in the control block
TIMES, CLOCK, PLACE, WATCHES, WATCHED = 4, 5, 6, 7, 8
WATCH = 4  # int64 columns of a watch
_CONTROL_CELLS = 16
CLOCK_MONOTONIC = 6 if sys.platform == "darwin" else 1

# A thread that spins tells the core so: it saves power, and leaves the other hardware thread of the core its units.
_RELAX = {
    "x86_64": "declare void @llvm.x86.sse2.pause()\n"
              "define internal void @relax() {\n  call void @llvm.x86.sse2.pause()\n  ret void\n}\n",
    "aarch64": "declare void @llvm.aarch64.isb(i32)\n"
               "define internal void @relax() {\n  call void @llvm.aarch64.isb(i32 15)\n  ret void\n}\n",
}
_RELAX |= {"AMD64": _RELAX["x86_64"], "arm64": _RELAX["aarch64"]}
_NO_RELAX = "define internal void @relax() {\n  ret void\n}\n"

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

    `run(jobs, threads, team)` takes int64 addresses and a count and returns the steps done.
    `rouse(team, threads, ahead)` announces a job in so many nanoseconds, `order(event, job)` gives it to a worker, and
    `worker` is the address of what worker threads do.
    `outside[dtype](values, count, lower, upper)` is the first place outside `lower <= value < upper`, or -1.
    """

    run: Callable[..., int]
    rouse: Callable[..., int]
    order: Callable[..., int]
    worker: int
    outside: Mapping[str, Callable[..., int]]
    code: LoadedCode


_ENTRIES = {"run": 3, "rouse": 3, "order": 2}  # arguments of each


@functools.cache
def driver() -> Driver:
    """The driver, assembled and loaded at its first use in a process, which takes about 8 ms."""
    texts = [Path(__file__).with_name(name).read_text(encoding="utf-8") for name in ("driver.ll", "team.ll")]
    texts.append(_RELAX.get(platform.machine(), _NO_RELAX))
    texts += [_SCAN.format(name=name, type=type_, widen=widen) for name, (type_, widen) in _WIDEN.items()]
    code = load({"graphc_run": assemble("".join(texts))})
    outside = {name: _function(code, f"graphc_outside_{name}", 4) for name in _WIDEN}
    worker = code.engine.get_function_address("graphc_worker")
    run, rouse, order = (_function(code, f"graphc_{name}", count) for name, count in _ENTRIES.items())
    return Driver(run, rouse, order, worker, outside, code)


def control_block(place: int = 0) -> np.ndarray:
    """A fresh control block that asks for one step, i64[16]; `place` is the event where several threads meet."""
    control = aligned_zeros((_CONTROL_CELLS,), "i64")
    control[STEPS_WANTED], control[CLOCK], control[PLACE] = 1, CLOCK_MONOTONIC, place
    return control


def job_list(tables: Sequence[np.ndarray], control: np.ndarray) -> np.ndarray:
    """Jobs for one thread a table, i64[threads, 5]. Tables and control must outlive it."""
    threads = len(tables)
    jobs = [(address(rows), len(rows), thread, threads, address(control)) for thread, rows in enumerate(tables)]
    return np.array(jobs, np.int64)


def _function(code: LoadedCode, symbol: str, arguments: int) -> Any:
    prototype = ctypes.CFUNCTYPE(ctypes.c_int64, *[ctypes.c_int64] * arguments)
    return prototype(code.engine.get_function_address(symbol))
