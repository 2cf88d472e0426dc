"""Benchmarks of whole training steps, timed as a user would run them: NumPy arrays in, updated parameters and loss out.

A workload is declared, compiled and called once (`first_ms`), its loss and new parameters are compared with the
reference interpreter's, and only then it is timed.
"""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import cycle
from pathlib import Path
from typing import Any

from graphc.errors import CompileError, InputError
from graphc.inspect.record import StepRecord, record_step
from graphc.inspect.workloads import WORKLOADS, Workload
from graphc.program import Program, compile

WARM_UP_STEPS = 5
LEAST_STEPS = 10
SAMPLING_STEPS = 5  # of a program that samples, so many are compared before it is called wrong


@dataclass(frozen=True)
class Timing:
    """A workload's figures; `worst_deviation` is that from the interpreter, relative, before anything was timed.

    `first_ms` runs from the declared graph to the first result, compilation included; `since_start_ms` from the start
    of the process (None where the system does not tell it). `gflops` counts what the mathematics needs, and
    `share_of_peak` is of the fused multiply-add peak of `threads` threads, measured by the same process right after
    the steps. `memory_bytes` is what the program keeps besides inputs, parameters and state.
    """

    workload: str
    threads: int
    median_ms: float
    min_ms: float
    first_ms: float
    since_start_ms: float | None
    from_cache: bool
    steps: int
    gflops: float
    share_of_peak: float
    memory_bytes: int
    worst_deviation: float
    tuned: bool = False

    def to_json(self) -> dict[str, Any]:
        """The figures, as `graphc bench --json` prints them."""
        return {"system": "graphc"} | {k: _rounded(v) for k, v in self.__dict__.items()}

    def __str__(self) -> str:
        origin = "from the cache" if self.from_cache else "compiled"
        return (f"{self.workload}: median {self.median_ms:.4g} ms, least {self.min_ms:.4g} ms over {self.steps} steps; "
                f"{self.gflops:.1f} GFLOP/s, {self.share_of_peak:.0%} of the peak; "
                f"{self.memory_bytes / 2**20:.3g} MiB; first call {self.first_ms:.0f} ms "
                f"({origin}); deviates from float64 by {self.worst_deviation:.1e}")


def run(name: str, *, threads: int = 1, seconds: float = 2.0, seed: int = 0, tune: bool = False) -> Timing:
    """Time the workload `name` for about `seconds`, compiled with or without `tune`. Raises InputError for an unknown
    name, CompileError if the step computes something else than the interpreter."""
    if name not in WORKLOADS:
        raise InputError(f"unknown workload {name!r}; there are: {', '.join(WORKLOADS)}")
    workload = WORKLOADS[name]
    batches = [workload.arrays(seed + i) for i in range(2)]
    program, compiling = compiled(workload, threads=threads, seed=seed, tune=tune)
    record, calling = record_step(program, batches[0])
    since_start = _process_age()
    deviation = _checked(program, record, batches)
    times = _timed(program, batches, seconds)
    from graphc.inspect.peak import fma_gflops

    median = statistics.median(times)
    gflops = workload.flops / median / 1e9
    return Timing(
        workload=name,
        threads=threads,
        median_ms=median * 1e3,
        min_ms=min(times) * 1e3,
        first_ms=(compiling + calling) * 1e3,
        since_start_ms=None if since_start is None else since_start * 1e3,
        from_cache=program.from_cache,
        steps=len(times),
        gflops=gflops,
        share_of_peak=gflops / fma_gflops(threads),
        memory_bytes=program.plan.arena_bytes,
        worst_deviation=deviation,
        tuned=tune,
    )


def _checked(program: Program, record: StepRecord, batches: Sequence[Sequence[Any]]) -> float:
    """The step's greatest deviation from the interpreter. Raises CompileError if it is too great.

    A sample is `u < p`. Where float32 rounds p across u, a right step differs from float64 by a whole sample, which in
    100,000 samples happens now and then: steps that sample are wrong only if several in turn deviate.
    """
    from graphc.inspect.oracle import check_step

    for _ in range(SAMPLING_STEPS - 1 if program.declared.uses_rng else 0):
        try:
            return check_step(program, record)
        except CompileError:
            record = record_step(program, batches[0])[0]
    return check_step(program, record)


def compiled(workload: Workload, *, threads: int = 1, seed: int = 0,
             tune: bool = False) -> tuple[Program, float]:  # fmt: skip
    """The workload's program, and the seconds from the declared graph to it."""
    step = workload.declare()
    start = time.perf_counter()
    program = compile(step.inputs, step.results, step.updates, dims=workload.dims, threads=threads, seed=seed,
                      name=workload.name, tune=tune)
    return program, time.perf_counter() - start


def _timed(step: Callable[..., Any], batches: Sequence[tuple[Any, ...]], seconds: float) -> list[float]:
    """Seconds of each step: at least `LEAST_STEPS`, after warm-up. Batches take turns: none is converted before."""
    source = cycle(batches)
    for _ in range(WARM_UP_STEPS):
        step(*next(source))
    times: list[float] = []
    end = time.perf_counter() + seconds
    while len(times) < LEAST_STEPS or time.perf_counter() < end:
        batch = next(source)
        start = time.perf_counter()
        step(*batch)
        times.append(time.perf_counter() - start)
    return times


def _process_age() -> float | None:
    """Seconds since this process was started, Python's own start included; None where /proc does not tell."""
    try:
        fields = Path("/proc/self/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
        ticks = int(fields[19])  # field 22 of the line, the process's start since boot
        return time.clock_gettime(time.CLOCK_BOOTTIME) - ticks / os.sysconf("SC_CLK_TCK")
    except (OSError, AttributeError, IndexError, ValueError):
        return None


def _rounded(value: Any) -> Any:
    """Six significant digits of a float: more is noise."""
    return float(f"{value:.6g}") if isinstance(value, float) else value
