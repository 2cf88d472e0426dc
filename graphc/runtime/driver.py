"""The native program driver: what `driver.ll`, `team.ll` and `signals.ll` say, made callable."""

from __future__ import annotations

import ctypes
import functools
import platform
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from graphc.ir.buffers import aligned_zeros
from graphc.runtime.loader import LoadedCode, assemble, define, load

ROW = 8  # int64 columns of a table row
CALL, BARRIER, LOOP, NEXT, COPY, ADD, BRANCH, JUMP, CALL_ALONE, WRITES = range(10)  # a row's first column

STOP, STEPS_WANTED = 0, 1  # places in the control block
TIMES, CLOCK, PLACE, WATCHES, WATCHED = 4, 5, 6, 7, 8
WATCH = 4  # int64 columns of a watch
STATE, COARSE_CLOCK, PERIOD, GRACE = range(9, 13)
_CONTROL_CELLS = 24
STOPPED, STOPPED_LATE = 3, 4  # values of STATE: before any variable was written, and after that
LOOK_NANOSECONDS = 50_000_000  # from one look for Ctrl-C to the next, within a step
GRACE_NANOSECONDS = 1_000_000_000  # that a step is given to end by itself when it has begun to write variables
CLOCK_MONOTONIC = 6 if sys.platform == "darwin" else 1
CLOCK_COARSE = {"darwin": 5, "linux": 6}.get(sys.platform, CLOCK_MONOTONIC)  # milliseconds, for a quarter of the cost

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

    `run(jobs, threads, team)` takes int64 addresses and a count and returns the steps done. Python's global lock is
    free meanwhile; what a signal handler raises is raised, and -1 is returned if a handler runs inside of a step.
    `stop()` ends the step under way, if there is one, in its middle.
    `rouse(team, threads, ahead)` announces a job in so many nanoseconds, `order(event, job)` gives it to a worker, and
    `worker` is the address of what worker threads do.
    `outside[dtype](values, count, lower, upper)` is the first place outside `lower <= value < upper`, or -1.
    """

    run: Callable[..., int]
    stop: Callable[[], int]
    rouse: Callable[..., int]
    order: Callable[..., int]
    worker: int
    outside: Mapping[str, Callable[..., int]]
    code: LoadedCode


_ENTRIES = {"run": 3, "stop": 0, "rouse": 3, "order": 2}  # arguments of each
_HOLDING = {"run", "stop"}  # called with Python's global lock
_PYTHON = ("PyEval_SaveThread", "PyEval_RestoreThread", "PyOS_InterruptOccurred", "PyErr_SetInterrupt",
           "PyErr_CheckSignals")
_FILES = ("driver.ll", "team.ll", "signals.ll")


@functools.cache
def driver() -> Driver:
    """The driver, assembled and loaded at its first use in a process, which takes about 8 ms."""
    define({name: _address(getattr(ctypes.pythonapi, name)) for name in _PYTHON})
    texts = [Path(__file__).with_name(name).read_text(encoding="utf-8") for name in _FILES]
    texts.append(_RELAX.get(platform.machine(), _NO_RELAX))
    texts += [_SCAN.format(name=name, type=type_, widen=widen) for name, (type_, widen) in _WIDEN.items()]
    code = load({"graphc_run": assemble("".join(texts))})
    outside = {name: _function(code, f"graphc_outside_{name}", 4) for name in _WIDEN}
    worker = code.engine.get_function_address("graphc_worker")
    entries = {name: _function(code, f"graphc_{name}", count, name in _HOLDING) for name, count in _ENTRIES.items()}
    return Driver(**entries, worker=worker, outside=outside, code=code)


def control_block(place: int = 0) -> np.ndarray:
    """A fresh control block that asks for one step, i64[24]; `place` is the event where several threads meet."""
    control = aligned_zeros((_CONTROL_CELLS,), "i64")
    control[STEPS_WANTED], control[CLOCK], control[PLACE] = 1, CLOCK_MONOTONIC, place
    control[COARSE_CLOCK], control[PERIOD], control[GRACE] = CLOCK_COARSE, LOOK_NANOSECONDS, GRACE_NANOSECONDS
    return control


def _function(code: LoadedCode, symbol: str, arguments: int, holding: bool = False) -> Any:
    """A function of int64 arguments; Python's global lock is released for the call unless `holding`."""
    kind = ctypes.PYFUNCTYPE if holding else ctypes.CFUNCTYPE
    return kind(ctypes.c_int64, *[ctypes.c_int64] * arguments)(code.engine.get_function_address(symbol))


def _address(function: Any) -> int:
    found = ctypes.cast(function, ctypes.c_void_p).value
    assert found is not None
    return found
