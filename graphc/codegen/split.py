"""Long reductions in pieces: a contraction whose operands exceed the caches becomes sums of pieces, and a map.

A weight gradient of a convolution sums over images and pixels, for each pair of channels and each tap. Taken tile by
tile it would read the activations from memory again for every tile. Cut along an axis of the reduction into pieces, the
rows that a tile reads stay in the first-level cache for the next taps and the next tile; the sums of a piece are added
to a buffer. What was to be done with the sums, say an optimiser's update, is the second kernel.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, replace

from graphc.codegen.analysis import index_depends, largest_extent, sizes_in_memory
from graphc.codegen.choose import parallel_axis
from graphc.codegen.contraction import best_plan
from graphc.codegen.cpu.emit import schedulable
from graphc.codegen.host import Host
from graphc.codegen.regions import Region
from graphc.codegen.storage import Storage
from graphc.ir.types import TensorType
from graphc.kernel.compose import bind_kernel, change_expressions, rename_operands
from graphc.kernel.expr import Affine, Expr, Index, Load, Name, loads, transform
from graphc.kernel.form import Axis, Kernel, Operand, Stage, Store
from graphc.kernel.schedule import Schedule

HALO = 1.0  # what windows read beyond a piece, as a share of it: two rows
FULL = 0.8  # share of the second-level cache that pieces may fill


@dataclass(frozen=True)
class Split:
    """The kernel that adds up pieces, its schedule, the kernel that does the rest, and the buffer of sums between."""

    summing: Kernel
    schedule: Schedule
    finishing: Kernel
    sums: Operand


def split_reduction(kernel: Kernel, host: Host) -> Split | None:
    """The kernel cut in two if that is estimated to be faster, else None.

    The first kernel is called `<name>_sums` like the buffer, the second keeps the name.
    """
    plan = best_plan(schedulable(kernel), host, cut=True)
    if plan is None or plan.split is None:
        return None
    (axis, size), tile = plan.split, (plan.contraction.rows, plan.contraction.columns)
    (stage,) = kernel.stages
    merged = any(a not in kernel.space for a in tile) or axis not in {a.name for a in stage.reduce}
    return None if merged else _cut(kernel, axis, size, tile, plan.schedule, host)


def split_reductions(region: Region, storage: Storage, host: Host) -> dict[str, Schedule]:
    """Split the kernels of a region that are worth it. Returns the schedules of the new kernels by name."""
    schedules, items = {}, list(region.items)
    for item in items:
        split = split_reduction(item, host) if isinstance(item, Kernel) else None
        if split is None or not isinstance(item, Kernel):
            continue
        sums = storage.add(split.sums.name, TensorType(split.sums.dtype, split.sums.shape))
        summing = rename_operands(split.summing, {split.sums.name: sums})
        summing = replace(summing, name=storage.names.kernel(summing.name))
        position = region.items.index(item)
        region.items[position : position + 1] = [summing, rename_operands(split.finishing, {split.sums.name: sums})]
        storage.home[sums] = region
        schedules[summing.name] = split.schedule
    return schedules


def _cut(
    kernel: Kernel, axis: str, size: int, tile: tuple[Axis, Axis], schedule: Schedule, host: Host
) -> Split:
    (stage,) = kernel.stages
    (accumulate,) = stage.accumulates
    rows, columns = tile
    others = [a for a in kernel.space if a not in tile]
    kept = (rows, *others, columns)
    sums, piece = _free_name(kernel, f"{kernel.name}_sums"), _free_name(kernel, "piece")
    place = tuple(Affine.axis(a.name) for a in kept)
    dtype = kernel.operand(stage.stores[0].operand).dtype
    buffer = Operand(sums, dtype, tuple(a.extent if a.extent is not None else 0 for a in kept), "out", 0.0)

    cut = next(a for a in stage.reduce if a.name == axis)
    count = -(-largest_extent(cut, kernel.capacities) // size)
    reduce = tuple(_piece_of(a, piece, size) if a == cut else a for a in stage.reduce)
    store = Store(sums, place, Name(accumulate.names[0]), mode="sum")
    summing = replace(stage, reduce=reduce, results=(), stores=(store,))
    # A thread that owns rows owns their sums. Taps innermost: they read the same lines.
    pieces = Axis.range(piece, count, sequential=True)
    outer = (pieces, rows) if _pieces_stay(kernel, columns, buffer, count, host) else (rows, pieces)
    space = (*outer, *others[:-1], columns, *others[-1:])

    total = Load(sums, place)

    def finished(expr: Expr) -> Expr:
        return transform(expr, lambda e: total if e == Name(accumulate.names[0]) else None)

    finishing = change_expressions(Stage(results=stage.results, stores=stage.stores), finished)
    adding = _kernel(kernel, sums, space, summing, buffer)
    schedule = replace(schedule, order=tuple(a.name for a in space))
    return Split(
        adding,
        replace(schedule, parallel=parallel_axis(schedulable(adding), adding, schedule)),
        _kernel(kernel, kernel.name, kernel.space, finishing, replace(buffer, role="in", init=None)),
        buffer,
    )


def _pieces_stay(kernel: Kernel, columns: Axis, sums: Operand, count: int, host: Host) -> bool:
    """True if pieces are better walked one by one than once for each tile of rows: the operands exceed the second-level
    cache, and one of `count` pieces of that which each tile of rows reads, with what windows reach beyond it, stays
    there beside the sums. Then operands come from farther away once."""
    moving = {load.operand for a in kernel.stages[0].accumulates for e in a.exprs for load in loads(e)}
    ahead = {n for n in moving if any(index_depends(i, (columns.name,)) for i in _indices(kernel, n))}
    read = {o.name: _bytes(o, kernel) for o in kernel.operands if o.name in moving}
    piece = (1 + HALO) * sum(read[name] for name in ahead) / count
    return piece + _bytes(sums, kernel) <= FULL * host.second_level < sum(read.values())


def _indices(kernel: Kernel, operand: str) -> list[Index]:
    """The indices of all loads of an operand that is summed up."""
    found = [load for a in kernel.stages[0].accumulates for e in a.exprs for load in loads(e)]
    return [index for load in found if load.operand == operand for index in load.index]


def _bytes(operand: Operand, kernel: Kernel) -> int:
    return operand.dtype.itemsize * math.prod(sizes_in_memory(operand, kernel.capacities))


def _piece_of(axis: Axis, piece: str, size: int) -> Axis:
    """The points of an axis in piece number `piece`."""
    start = Affine.of({piece: size})
    return replace(axis, lower=(start, *axis.lower), upper=(start + size, *axis.upper))


def _kernel(kernel: Kernel, name: str, space: tuple[Axis, ...], stage: Stage, buffer: Operand) -> Kernel:
    """A kernel of one stage with those operands that it uses."""
    used = {load.operand for expr in stage.expressions() for load in loads(expr)} | {s.operand for s in stage.stores}
    own = [o for o in kernel.operands if o.name in used]
    operands = (buffer, *own) if buffer.role == "in" else (*own, buffer)
    found = replace(kernel, name=name, operands=operands, space=space, stages=(stage,))
    return bind_kernel(found, {}, kernel.capacities)


def _free_name(kernel: Kernel, wanted: str) -> str:
    taken = {a.name for a in kernel.space} | {a.name for s in kernel.stages for a in (*s.space, *s.reduce)}
    taken |= {o.name for o in kernel.operands} | set(kernel.runtime_extents) | _values(kernel.stages)
    while wanted in taken:
        wanted += "_"
    return wanted


def _values(stages: Iterable[Stage]) -> set[str]:
    found = {let.name for s in stages for let in (*s.lets, *s.results)}
    return found | {name for s in stages for a in s.accumulates for name in a.names}
