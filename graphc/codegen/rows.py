"""Loops that each thread walks with rows of its own: where no row needs another one, no turn needs a barrier.

In a recurrent network a sequence's state depends on its own earlier state alone. So if every kernel of a turn is shared
by rows of the batch, in equal units, a thread finds all that it reads where it wrote it itself, and goes through all
turns at its own pace. Here such schedules are made. Whether they part anything is told by `barriers`, and whether they
pay by `sharing`: all threads then read all of the weights, and a unit is never parted.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property

from graphc.codegen.analysis import capacity, is_runtime, kernel_stores, reads_own_element_only
from graphc.codegen.choose import is_shareable
from graphc.codegen.cpu.emit import schedulable
from graphc.codegen.host import Host
from graphc.codegen.tiles import outer_speed
from graphc.ir.dims import Dim, Poly, divide, evaluate
from graphc.kernel.expr import Affine
from graphc.kernel.form import Axis, Kernel
from graphc.kernel.schedule import Schedule

UNITS = (1, 4, 8, 16)  # rows that stay together: tried beside the tiles that kernels have anyway
SMALLER_TILE = 0.05  # how much slower a tile of half the rows is, where both keep all units busy
MOST_COUNTS = 2  # numbers of rows that are tried: the batch, and another at most


@dataclass(frozen=True)
class Scheduled:
    """A kernel form with its schedule, and the form that the schedule is about."""

    form: Kernel
    schedule: Schedule

    @cached_property
    def flat(self) -> Kernel:
        """The form with flat operands and merged axes."""
        return schedulable(self.form)


@dataclass(frozen=True)
class Units:
    """Kernels shared by equal units of rows.

    slower: by name, what all rows cost by the schedule, in what they cost by the old one. share: the longer share of
    two threads, of all rows.
    """

    schedules: Mapping[str, Schedule]
    slower: Mapping[str, float]
    share: float


def in_units(kernels: Mapping[str, Scheduled], work: Mapping[str, float], host: Host) -> Iterator[Units]:
    """Ways of sharing `kernels` by equal units of rows, those of them that can be; `work` is what each costs."""
    counts: Counter[Dim] = Counter()
    for name, kernel in kernels.items():
        for rows in set(_counts_of_rows(kernel.form)):
            counts[rows] += 1 + int(work.get(name, 0))
    capacities = {name: size for kernel in kernels.values() for name, size in kernel.form.capacities.items()}
    for rows, _ in counts.most_common(MOST_COUNTS):
        most = evaluate(rows, capacities)
        along = ((dict(k.schedule.tile), axis) for k in kernels.values() for axis in k.flat.space)
        for unit in sorted({*UNITS, *(tile.get(axis.name, 1) for tile, axis in along if axis.extent == rows)}):
            units = -(-most // unit)
            if units < 2:
                continue
            found = {name: s for name, k in kernels.items() if (s := shared_by(k, rows, unit, host)) is not None}
            schedules, slower = ({name: pair[i] for name, pair in found.items()} for i in (0, 1))
            yield Units(schedules, slower, min(1.0, -(-units // 2) * unit / most))  # type: ignore[arg-type]


def _counts_of_rows(kernel: Kernel) -> Iterator[Dim]:
    """The extents of axes that count the rows of what is stored."""
    for store in kernel_stores(kernel):
        for axis in kernel.space:
            if store.index and store.index[0] == Affine.axis(axis.name) and axis.extent is not None:
                yield axis.extent


def shared_by(kernel: Scheduled, rows: Dim, unit: int, host: Host) -> tuple[Schedule, float] | None:
    """The schedule that shares a kernel by units of so many rows, and how much slower it is; None if none can."""
    flat, form, given = kernel.flat, kernel.form, kernel.schedule
    if any(o.init is not None for o in flat.operands) or not reads_own_element_only(flat):
        return None
    for axis in flat.space:
        each = None if axis.extent is None else divide(axis.extent, rows)  # points of a row: axes may be merged
        if not isinstance(each, int) or not is_shareable(flat if axis not in form.space else form, axis):
            continue
        points, tile = unit * each, dict(given.tile)
        usual = tile.pop(axis.name, None)
        if usual is None:
            return replace(given, parallel=axis.name, unit=points), 1.0
        lanes = host.lanes if axis.name == given.vector_axis or given.kind == "transposed" else 1
        vectors = max(1, math.prod(tile.values()) // host.lanes)
        sizes = [size for size in range(lanes, usual + 1, lanes) if points % size == 0]
        if sizes:
            cost, size = min((_cost(flat, axis, size, lanes, vectors), -size) for size in sizes)
            sized = tuple((name, -size if name == axis.name else s) for name, s in given.tile)
            slower = max(1.0, cost / _cost(flat, axis, usual, lanes, vectors, moved=True))
            slower += SMALLER_TILE * (usual / -size - 1)
            return replace(given, tile=sized, parallel=axis.name, unit=points), slower
    return None


def _cost(kernel: Kernel, axis: Axis, size: int, lanes: int, vectors: int, *, moved: bool = False) -> float:
    """All points of an axis in tiles of a size. Tiles of a unit are not `moved` back to fit: what is left of runtime
    rows is done one by one."""
    most = capacity(axis, kernel.capacities) or 1
    if lanes > 1:
        return most * (1 + 0.1 * lanes / size)
    rest = most % size
    if not rest or moved:
        return -(-most // size) * size / outer_speed(size, vectors)
    left = rest / outer_speed(1, vectors) if is_runtime(axis) else rest / outer_speed(rest, vectors)
    return (most - rest) / outer_speed(size, vectors) + left


def part_of_units(extent: Dim, unit: int, stride: int) -> tuple[str, int]:
    """A text that is the same for the same units, and the bytes of a row: 128*N points of 4 bytes are N of 512."""
    factors = [abs(factor) for _, factor in extent.terms] if isinstance(extent, Poly) else [extent]
    common = math.gcd(unit, *factors)
    return f"{divide(extent, common)} points by {unit // common}", stride * common
