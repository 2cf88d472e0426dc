"""The contractions of the table as the compiler generates them here, as shares of the multiply-add peak.

Each kernel is compiled under the schedule that is chosen for this machine and, where the table was measured on one with
the same vectors, under the best schedule of the table. Sampled elements of their results are compared with the kernel
interpreter's in float64, then the two are timed in turns.
"""

from __future__ import annotations

import ctypes
import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from graphc.codegen.analysis import index_depends, size_in_memory, strides
from graphc.codegen.build import CompiledKernel, compile_kernel
from graphc.codegen.choose import choose
from graphc.codegen.host import Host, host
from graphc.errors import CompileError
from graphc.inspect.contractions import Row, Table, needed_flops, read_table
from graphc.inspect.peak import fma_gflops
from graphc.ir.buffers import address, aligned_zeros
from graphc.ir.dims import evaluate
from graphc.kernel import interpret
from graphc.kernel.expr import Affine, Const
from graphc.kernel.form import Axis, Kernel, Operand, Stage, Store
from graphc.runtime.loader import load
from graphc.runtime.timing import ROUNDS, SAMPLE_SECONDS
from graphc.tuning import measure

CHECKED_POINTS = 100_000  # of a kernel that the interpreter computes
ROUNDING = 1e-6  # relative to the root of the number of terms, each of about 1


@dataclass(frozen=True)
class ContractionSpeed:
    """One kernel: its chosen schedule, the GFLOP/s and the share of the peak that it reaches, and how many times as
    long it takes as under the table's best schedule (None where the table is for another kind of machine)."""

    name: str
    family: str
    schedule: str
    gflops: float
    share_of_peak: float
    behind_best: float | None

    def __str__(self) -> str:
        behind = "" if self.behind_best is None else f"  {self.behind_best:5.2f} times the best"
        speed = f"{self.gflops:6.1f} GFLOP/s  {self.share_of_peak:4.0%} of the peak"
        return f"{self.name:52s} {speed}{behind}   {self.schedule}"


@dataclass(frozen=True)
class ContractionSpeeds:
    """Speeds of all the contractions, and the peak of one thread measured before and after them."""

    peak_gflops: float
    kernels: tuple[ContractionSpeed, ...]

    @property
    def median_behind_best(self) -> float | None:
        """The median of `behind_best`."""
        known = [k.behind_best for k in self.kernels if k.behind_best is not None]
        return statistics.median(known) if known else None

    def families(self) -> dict[str, float]:
        """The median share of the peak of each family of contractions."""
        shares: dict[str, list[float]] = {}
        for kernel in self.kernels:
            shares.setdefault(kernel.family, []).append(kernel.share_of_peak)
        return {family: statistics.median(found) for family, found in sorted(shares.items())}

    def to_json(self) -> dict[str, Any]:
        """The figures, as `graphc bench --json` prints them."""
        return {
            "system": "graphc",
            "workload": "contractions",
            "peak_gflops": self.peak_gflops,
            "median_behind_best": self.median_behind_best,
            "families": self.families(),
            "kernels": [dict(k.__dict__) for k in self.kernels],
        }

    def __str__(self) -> str:
        lines = [str(kernel) for kernel in self.kernels]
        lines += [f"{family:52s} {share:24.0%} of the peak, median" for family, share in self.families().items()]
        if (median := self.median_behind_best) is not None:
            lines.append(f"{'chosen schedules against the best of the table':52s} {median:24.2f} times, median")
        return "\n".join([*lines, f"{'peak of one thread':52s} {self.peak_gflops:6.1f} GFLOP/s"])


def measure_contractions(seconds: float = 2.0, seed: int = 0, table: Table | None = None) -> ContractionSpeeds:
    """Time each contraction of the table, all for about `seconds`, and the peak before and after them.

    Compiling and checking them takes several times as long. Raises CompileError where a kernel computes something else
    than the interpreter.
    """
    table, first = table or read_table(), fma_gflops(1)
    sample = max(SAMPLE_SECONDS, seconds / len(table.rows) / 2 / ROUNDS)
    timed = [(row, *_timed(row, table.host, sample, seed)) for row in table.rows]
    peak = max(first, fma_gflops(1))
    speeds = []
    for row, schedule, chosen, best in timed:
        gflops = row.gflops(chosen)
        behind = None if best is None else chosen / best
        speeds.append(ContractionSpeed(row.name, row.family, schedule, gflops, gflops / peak, behind))
    return ContractionSpeeds(peak, tuple(speeds))


def _timed(row: Row, measured_on: Host, sample: float, seed: int) -> tuple[str, float, float | None]:
    """The chosen schedule, the seconds that a call takes under it, and under the table's best."""
    schedules = [choose(row.form, host())]
    if (measured_on.lanes, measured_on.registers) == (host().lanes, host().registers):
        schedules.append(row.best.schedule)
    for schedule in schedules:
        check_kernel(compile_kernel(row.form, host(), schedule=schedule), seed)
    chosen, *best = measure(row.form, schedules, sample_seconds=sample)
    return str(schedules[0]), chosen, best[0] if best else None


# ---- is it right? ---------------------------------------------------------------------------------------------------


def _elements(memory: np.ndarray, operand: Operand, form: Kernel) -> np.ndarray:
    """An operand's elements in its memory, without the padding."""
    shape = tuple(evaluate(dim, form.capacities) for dim in operand.shape)
    steps = [step * memory.itemsize for step in strides(operand, form.capacities)]
    return np.lib.stride_tricks.as_strided(memory, shape, steps)


def check_kernel(kernel: CompiledKernel, seed: int = 0) -> None:
    """Compare what the machine code stores at sampled points with the interpreter in float64.

    Raises CompileError, naming the kernel and the schedule, where they differ by more than rounding.
    """
    form, rng = kernel.form, np.random.default_rng(seed)
    memory = {o.name: aligned_zeros((size_in_memory(o, form.capacities),), o.dtype) for o in form.operands}
    for operand in form.operands:
        if operand.dtype.is_float:
            memory[operand.name][...] = rng.uniform(-1, 1, memory[operand.name].shape)
    exact = {o.name: _elements(memory[o.name], o, form) for o in form.operands}
    counts = {name: form.capacities[name] for name in form.runtime_extents}
    part = sampled(form, rng)
    given = {o.name: exact[o.name] for o in form.operands if o.role != "out"}
    wanted = interpret.run(part, given, counts, float64=True)
    marking = _marking(part)
    marks = interpret.run(marking, {}, {name: counts[name] for name in marking.runtime_extents})
    _run(kernel, list(memory.values()), list(counts.values()))
    terms = needed_flops(form) / math.prod(_size(a, form) for a in form.space)
    for name, value in wanted.items():
        there = marks[name] != 0
        found, right = exact[name][there], value[there]
        if not np.allclose(found, right, rtol=1e-4, atol=ROUNDING * (1 + terms) ** 0.5 * 10):
            worst = np.abs(found - right).max()
            raise CompileError(f"kernel {form.name} under the schedule {kernel.schedule} stores {name} wrongly: it "
                               f"deviates from the interpreter by {worst:.2g}")  # fmt: skip


def _run(kernel: CompiledKernel, memory: Sequence[np.ndarray], counts: Sequence[int]) -> None:
    """Call a kernel's machine code once, on one thread."""
    cells = np.array(counts, np.int64)
    places = [*map(address, memory), *(address(cells) + 8 * i for i in range(len(counts)))]
    args, code = np.array(places, np.int64), load({kernel.symbol: kernel.machine_code})
    prototype = ctypes.CFUNCTYPE(None, ctypes.c_int64, ctypes.c_int64, ctypes.c_int64)
    prototype(code.addresses[kernel.symbol])(address(args), 0, 1)


def sampled(form: Kernel, rng: np.random.Generator) -> Kernel:
    """The form at so few points of its space, near each other and anywhere, that the interpreter is done soon.

    Axes that a store does not move along are left whole (stores to one element add up along them), and so are those
    with a runtime extent. Other elements of what it stores are 0.
    """
    (stage,) = form.stages
    moving = [
        a for a in form.space
        if isinstance(a.extent, int) and all(any(index_depends(i, (a.name,)) for i in s.index) for s in stage.stores)
    ]  # fmt: skip
    sizes = {a.name: _size(a, form) for a in form.space}
    work = needed_flops(form) / 2
    kept = dict(sizes)
    while work > CHECKED_POINTS and any(kept[a.name] > 1 for a in moving):
        largest = max((a.name for a in moving), key=kept.__getitem__)
        work *= -(-kept[largest] // 2) / kept[largest]
        kept[largest] = -(-kept[largest] // 2)

    def part(axis: Axis) -> Axis:
        if kept[axis.name] == sizes[axis.name]:
            return axis
        start = int(rng.integers(0, sizes[axis.name] - kept[axis.name] + 1))
        return replace(axis, lower=(Affine.of({}, start),), upper=(Affine.of({}, start + kept[axis.name]),))

    operands = tuple(replace(o, init=o.init or 0.0) if o.role == "out" else o for o in form.operands)
    return replace(form, operands=operands, space=tuple(part(a) for a in form.space))


def _size(axis: Axis, form: Kernel) -> int:
    return 1 if axis.extent is None else evaluate(axis.extent, form.capacities)


def _marking(form: Kernel) -> Kernel:
    """A kernel that stores 1 wherever the form stores something, and 0 elsewhere."""
    (stage,) = form.stages
    stored = {s.operand for s in stage.stores}
    operands = tuple(replace(o, role="out", init=0.0) for o in form.operands if o.name in stored)
    stores = tuple(Store(s.operand, s.index, Const(1.0, form.operand(s.operand).dtype)) for s in stage.stores)
    axes = {a.name for s in stage.stores for a in form.space if any(index_depends(i, (a.name,)) for i in s.index)}
    space = tuple(a for a in form.space if a.name in axes)
    return replace(form, operands=operands, space=space, stages=(Stage(stores=stores),))
