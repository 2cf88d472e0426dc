"""Where a program's time goes: the driver's clock around every kernel call."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from graphc.errors import InputError
from graphc.ir.buffers import address, aligned_zeros
from graphc.runtime.driver import TIMES
from graphc.runtime.executable import Executable


@dataclass(frozen=True)
class KernelTime:
    """One call site of a plan: `kernel` is its symbol, `calls` how often a step calls it (loops).

    `seconds` is the time it takes in a step, all its calls together, the median of the steps timed; `best` the
    shortest. Both include the clock's own 20 to 50 ns a call. `threads` is how many share the kernel; its time is then
    that of the longest share.
    """

    kernel: str
    operands: tuple[str, ...]
    calls: int
    seconds: float
    best: float
    threads: int = 1


def profile(executable: Executable, inputs: Mapping[str, Any], *, repeats: int = 20,
            warmup: int = 2) -> list[KernelTime]:
    """Time each kernel of a step on `inputs`, in the order of the plan.

    Variables and the random state are as before afterwards. Raises InputError as a call does, and for repeats < 1.
    """
    if repeats < 1:
        raise InputError(f"a profile needs at least one timed step, got repeats={repeats}")
    values = executable.ordered(inputs)
    sites = executable.table.sites
    threads = executable.threads_for(values)
    times = aligned_zeros((threads, len(executable.table.rows), 2), "i64")
    nanoseconds = np.zeros((repeats, len(sites)), np.int64)
    rows = [row for row, _ in sites]
    with executable.lock:
        saved, steps = [variable.array.copy() for variable in executable.changed], executable.steps
        executable.control[TIMES] = address(times)
        try:
            for turn in range(-warmup, repeats):
                times[:] = 0
                executable.step(list(values), threads=threads)
                if turn >= 0:
                    nanoseconds[turn] = times[:, rows, 1].max(axis=0)
        finally:
            executable.control[TIMES] = 0
            executable.steps = steps
            for variable, array in zip(executable.changed, saved, strict=True):
                variable.write(array)
    seconds, best = np.median(nanoseconds, axis=0) * 1e-9, nanoseconds.min(axis=0) * 1e-9
    return [KernelTime(call.kernel, call.operands, int(times[0, row, 0]), float(s), float(b),
                       threads if call.shared else 1)
            for (row, call), s, b in zip(sites, seconds, best, strict=True)]
