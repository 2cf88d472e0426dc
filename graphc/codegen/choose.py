"""Default schedules: how a kernel form runs on a CPU, decided from its indices and extents alone."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace

from graphc.codegen.analysis import (
    capacity,
    coefficient,
    index_depends,
    kernel_loads,
    kernel_stores,
    points,
    reads_own_element_only,
)
from graphc.codegen.contraction import contraction_schedule
from graphc.codegen.cpu.emit import schedulable
from graphc.codegen.host import Host
from graphc.codegen.lanes import (
    DRAWS,
    contiguous_along,
    draws_blocks,
    is_heavy,
    space_lanes_possible,
    stage_cost,
    stage_lanes_possible,
    transposed_cost,
)
from graphc.ir.dims import evaluate
from graphc.kernel.expr import Affine
from graphc.kernel.form import Axis, Kernel
from graphc.kernel.schedule import Schedule
from graphc.kernel.scope import stage_scopes

SMALLEST_SHARED = 1 << 14  # scalar points of work below which threads cost more than they save
ENOUGH_TILES = 8  # units of work that most numbers of threads share evenly


def choose(kernel: Kernel, host: Host) -> Schedule:
    """The schedule that `emit` is given by default. It names axes of `schedulable(kernel)`."""
    flat = schedulable(kernel)
    schedule = contraction_schedule(flat, host) or _lane_schedule(flat, host)
    return replace(schedule, parallel=parallel_axis(flat, kernel, schedule))


# ---- maps and reductions --------------------------------------------------------------------------------------------


def _lane_schedule(flat: Kernel, host: Host) -> Schedule:
    """Lanes along an axis of the space, or along one axis in each stage, or none: whichever is estimated cheapest."""
    lanes = host.lanes
    scalar = sum(stage_cost(flat, stage, None, lanes) for stage in flat.stages)
    options = [(scalar, 2, Schedule("scalar"))]
    for axis in flat.space:
        if space_lanes_possible(flat, axis):
            cost = sum(stage_cost(flat, stage, axis, lanes) for stage in flat.stages)
            order = tuple(a.name for a in flat.space if a != axis) + (axis.name,)
            schedule = Schedule("vector", axis.name, ((axis.name, _vectors(flat, axis, lanes) * lanes),), order)
            options.append((cost, 0, schedule))
    options.append(_stage_lanes(flat, lanes))
    options += [(cost, 4, schedule) for cost, schedule in _transposed(flat, lanes)]
    return min(options, key=lambda option: option[:2])[2]


def _transposed(flat: Kernel, lanes: int) -> Iterator[tuple[float, Schedule]]:
    """Square tiles along each pair of axes that operands are contiguous along."""
    contiguous = [a for a in flat.space if contiguous_along(flat, a.name)]
    for lane in contiguous:
        for row in contiguous:
            cost = transposed_cost(flat, row, lane, lanes) if row != lane else None
            if cost is not None:
                order = (*(a.name for a in flat.space if a not in (row, lane)), row.name, lane.name)
                yield cost, Schedule("transposed", lane.name, ((row.name, lanes), (lane.name, lanes)), order)


def _stage_lanes(flat: Kernel, lanes: int) -> tuple[float, int, Schedule]:
    """Each stage with lanes along the best of its own axes."""
    total, tile = 0.0, {}
    for stage, scope in zip(flat.stages, stage_scopes(flat), strict=True):
        choices: list[tuple[float, Axis | None]] = [(stage_cost(flat, stage, None, lanes), None)]
        for axis in (*stage.space, *stage.reduce):
            known = axis.name in tile  # one size for one name: stages may use a name again
            if not known and stage_lanes_possible(flat, stage, scope, axis):
                choices.append((stage_cost(flat, stage, axis, lanes), axis))
        cost, best = min(choices, key=lambda choice: choice[0])
        total += cost
        if best is not None:
            tile[best.name] = _vectors(flat, best, lanes) * lanes
    if not tile:
        return total, 3, Schedule("scalar")
    return total, 1, Schedule("vector", next(iter(tile)), tuple(tile.items()))


def _vectors(flat: Kernel, axis: Axis, lanes: int) -> int:
    """Vectors of a tile along an axis: four hide latencies, fewer for wide values, long expressions, short extents.

    Random numbers are drawn by whole blocks where possible, which costs a quarter of drawing them one by one.
    """
    if axis in flat.space and draws_blocks(flat, axis) and (capacity(axis, flat.capacities) or 0) >= DRAWS:
        return DRAWS // lanes
    most = 4 if all(o.dtype.itemsize < 8 for o in flat.operands) and not is_heavy(flat) else 2
    extent = capacity(axis, flat.capacities) or 1
    if extent <= most * lanes:
        return max(1, -(-extent // lanes))
    return next((v for v in range(most, 1, -1) if extent % (v * lanes) == 0), most)


# ---- threads --------------------------------------------------------------------------------------------------------


def parallel_axis(flat: Kernel, original: Kernel, schedule: Schedule) -> str | None:
    """The axis of the space whose tiles threads share out, None if none may be.

    Of those with enough tiles it is the one that leaves a thread the least memory to go through, so that its part of
    the larger operand stays in its cache. What is updated in place is shared by rows: those of one thread lie together.
    """
    if points(flat) < SMALLEST_SHARED:
        return None
    axes = shareable_axes(flat, original, schedule)
    tiles = {a.name: tile_count(flat, a.name, schedule) for a in axes}
    enough = [a for a in axes if tiles[a.name] >= ENOUGH_TILES]
    if not enough:
        best = min(tiles, key=lambda name: [unevenness(tiles[name], n) for n in (2, 4, 3)], default=None)
        return best if best is not None and tiles[best] > 1 else None
    if any(o.role == "inout" for o in flat.operands):
        return max(enough, key=lambda axis: _row_size(flat, axis)).name
    return min(enough, key=lambda axis: touched(flat, axis)).name


def shareable_axes(flat: Kernel, original: Kernel, schedule: Schedule) -> list[Axis]:
    """The axes of the space whose tiles threads may share out, in the order of the loops."""
    if not reads_own_element_only(flat):
        return []
    named = {a.name: a for a in flat.space}
    axes = [named[n] for n in schedule.order] or list(flat.space)
    if any(o.init is not None for o in flat.operands):
        axes = [a for a in axes if _owns_slices(original, a, rows=a == axes[0])]
    return [a for a in axes if is_shareable(flat if a not in original.space else original, a)]


def tile_count(flat: Kernel, axis: str, schedule: Schedule) -> int:
    """How many tiles cover an axis of the space at its capacity."""
    extent = next(capacity(a, flat.capacities) or 0 for a in flat.space if a.name == axis)
    return -(-extent // dict(schedule.tile).get(axis, 1))


def unevenness(tiles: int, threads: int) -> float:
    """The longest share of so many threads, in even shares."""
    return -(-tiles // threads) * threads / max(tiles, 1)


def _row_size(flat: Kernel, axis: Axis) -> int:
    """Elements from a point of an axis to the next in what is stored."""
    return max(abs(coefficient(store.index[0], axis.name) or 0) for store in kernel_stores(flat))


def touched(flat: Kernel, axis: Axis | None) -> float:
    """Bytes that one of two threads goes through if they share an axis (None: if it does all)."""
    total = 0.0
    for operand in flat.operands:
        indices = [load.index for load in kernel_loads(flat) if load.operand == operand.name]
        indices += [store.index for store in kernel_stores(flat) if store.operand == operand.name]
        parted = axis is not None and all(any(index_depends(i, (axis.name,)) for i in index) for index in indices)
        size = math.prod(evaluate(d, flat.capacities) for d in operand.shape) * operand.dtype.itemsize
        total += size / 2 if parted else size
    return total


def is_shareable(kernel: Kernel, axis: Axis) -> bool:
    """True if points of the axis can run in any order, each storing to elements of its own.

    Points of an axis store to different elements if an index holds the axis: the verifier has shown that indices are
    injective in the axes that they hold.
    """
    if axis.sequential or axis.extent is None:
        return False
    return all(
        not s.partials and any(isinstance(i, Affine) and index_depends(i, (axis.name,)) for i in s.index)
        for s in kernel_stores(kernel)
    )


def _owns_slices(kernel: Kernel, axis: Axis, *, rows: bool) -> bool:
    """True if a point of the axis has a slice of every operand with an initial value to itself, which it can fill.

    Slices of the first dimension are rows, which the outermost loop can fill (`rows`); others need a static extent.
    """
    if axis not in kernel.space:
        return False  # a merged axis: its points are no slices
    for store in kernel_stores(kernel):
        operand = kernel.operand(store.operand)
        if operand.init is None:
            continue
        moving = [d for d, index in enumerate(store.index) if index_depends(index, (axis.name,))]
        if len(moving) != 1 or store.index[moving[0]] != Affine.axis(axis.name):
            return False
        if operand.padding and operand.padding[moving[0]]:
            return False  # slices are not as far apart as they are long
        if operand.shape[moving[0]] != axis.extent or not (isinstance(axis.extent, int) or (rows and moving == [0])):
            return False
    return True
