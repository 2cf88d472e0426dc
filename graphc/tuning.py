"""Schedules of kernels by measurement: what code generation proposes, compiled and timed on this machine."""

from __future__ import annotations

import math
from collections.abc import Sequence

from graphc.codegen.analysis import sizes_in_memory
from graphc.codegen.build import compile_kernel
from graphc.codegen.host import host
from graphc.codegen.lower import label_sources
from graphc.ir.dims import evaluate
from graphc.kernel.form import Kernel, Operand
from graphc.kernel.schedule import Schedule
from graphc.runtime.timing import ROUNDS, SAMPLE_SECONDS, Memory, least_seconds


def measure(
    kernel: Kernel,
    schedules: Sequence[Schedule],
    *,
    rounds: int = ROUNDS,
    sample_seconds: float = SAMPLE_SECONDS,
) -> list[float]:
    """Seconds that a kernel takes at its capacities under each schedule: on one thread, the least of `rounds` rounds.

    Each sample takes at least `sample_seconds`. Raises CompileError for a schedule that there is no code for.
    """
    compiled = [compile_kernel(kernel, host(), schedule=schedule) for schedule in schedules]
    codes = {code.symbol: code.machine_code for code in compiled}  # equal schedules share their code
    counts = [kernel.capacities[name] for name in kernel.runtime_extents]
    seconds = least_seconds(codes, memories(kernel), counts, rounds=rounds, sample_seconds=sample_seconds)
    by_symbol = dict(zip(codes, seconds, strict=True))
    return [by_symbol[code.symbol] for code in compiled]


def memories(kernel: Kernel) -> list[Memory]:
    """What the operands of a kernel are filled with: integers that are indices are within all bounds declared."""
    bounds = {operand.name: (0, 2) for operand in kernel.operands}
    indices: dict[str, list[tuple[int, int]]] = {}
    for name, constant, index in label_sources(kernel):
        low, high = (evaluate(bound, kernel.capacities) - constant for bound in (index.lower, index.upper))
        indices.setdefault(name, []).append((low, high))
    bounds |= {name: (max(low for low, _ in found), min(high for _, high in found)) for name, found in indices.items()}
    return [_memory(kernel, operand, bounds[operand.name]) for operand in kernel.operands]


def _memory(kernel: Kernel, operand: Operand, bounds: tuple[int, int]) -> Memory:
    elements = math.prod(sizes_in_memory(operand, kernel.capacities))
    return Memory(operand.dtype, elements, *bounds, written=operand.role == "inout")
