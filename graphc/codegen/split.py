"""Long reductions in pieces: a contraction whose operands exceed the caches becomes sums of pieces, and a map.

A weight gradient of a convolution sums over images and pixels, for each pair of channels and each tap. Taken tile by
tile it would read the activations from memory again for every tile. Cut along an axis of the reduction into pieces, the
rows that a tile reads stay in the first-level cache for the next taps and the next tile; the sums of a piece are added
to a buffer. What was to be done with the sums, say an optimiser's update, is the second kernel.

A dense layer's weight gradient over very many rows, those of all time steps, is cut the same way, into pieces that fit
the second-level cache. As its sums have a buffer of their own, lanes may run along either axis of the weights.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace

from graphc.codegen.analysis import (
    coefficient,
    flatten,
    index_depends,
    is_runtime,
    kernel_loads,
    largest_extent,
    size_in_memory,
)
from graphc.codegen.choose import parallel_axis, unevenness
from graphc.codegen.contraction import Contraction, best_plan, contractions
from graphc.codegen.cpu.emit import schedulable
from graphc.codegen.host import Host
from graphc.codegen.lanes import PAGE
from graphc.codegen.regions import Region
from graphc.codegen.storage import Storage
from graphc.codegen.tiles import outer_speed
from graphc.ir.dims import evaluate
from graphc.ir.types import TensorType, f32
from graphc.kernel.compose import bind_kernel, change_expressions, rename_operands
from graphc.kernel.expr import Affine, Expr, Index, Load, Name, loads, transform
from graphc.kernel.form import Axis, Kernel, Operand, Stage, Store
from graphc.kernel.ranges import Box
from graphc.kernel.schedule import Schedule

HALO = 1.0  # what windows read beyond a piece, as a share of it: two rows
FULL = 0.8  # share of the second-level cache that pieces may fill
LONG = 512  # rows from which a sum of outer products is worth cutting
PIECE = 128  # of its rows in a piece: the sums of a tile then cost a fiftieth of the products


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
    if plan is None:
        return None
    if plan.split is None:
        return _split_outer(kernel, host) if plan.schedule.kind == "outer" else None
    (axis, size), (rows, columns) = plan.split, (plan.contraction.rows, plan.contraction.columns)
    (stage,) = kernel.stages
    if rows not in kernel.space or columns not in kernel.space or axis not in {a.name for a in stage.reduce}:
        return None  # merged axes
    others = [a for a in kernel.space if a not in (rows, columns)]
    kept = (rows, *others, columns)
    taps = (rows, *others[:-1], columns, *others[-1:])  # innermost: they read the same lines
    return _cut(kernel, axis, size, kept, taps, plan.schedule,
                lambda sums, count: _pieces_stay(kernel, columns, sums, count, host))


# ---- outer products -------------------------------------------------------------------------------------------------


def cut_into_rows(kernel: Kernel) -> bool:
    """True if a sum of outer products has so many rows that it is cut into pieces of `PIECE` rows where they fit no
    cache: a matrix of weights whose extents, and those of the reduction, are known."""
    (stage,) = kernel.stages
    points = math.prod(largest_extent(a, kernel.capacities) for a in stage.reduce)
    bounded = any(a.extent is None or a.sequential for a in stage.reduce)
    return len(kernel.space) == 2 and not bounded and points >= LONG and not any(is_runtime(a) for a in kernel.space)


def _split_outer(kernel: Kernel, host: Host) -> Split | None:
    """A sum of outer products of rows, whose operands are too large for the second-level cache."""
    if not cut_into_rows(kernel):
        return None
    (stage,), flat = kernel.stages, schedulable(kernel)
    found = []
    for c in contractions(flat):
        rows, columns = _of_rows(flat, c)
        if rows + columns > host.second_level // 2 and {c.rows, c.columns} == set(kernel.space):
            cost, tile = _tile(kernel, c, host)
            found.append((cost, c.columns != kernel.space[-1], c, tile))
    if not found:
        return None
    *_, c, tile = min(found, key=lambda entry: entry[:2])
    reduce = _in_order(kernel, stage)
    cut, *inner = reduce
    size = max(1, PIECE // math.prod(largest_extent(a, kernel.capacities) for a in inner))
    if size >= largest_extent(cut, kernel.capacities):
        return None
    schedule = Schedule("outer", c.columns.name, tile)
    ordered = replace(kernel, stages=(replace(stage, reduce=reduce),))
    return _cut(ordered, cut.name, size, (c.rows, c.columns), (c.rows, c.columns), schedule, lambda *_: True)


def _of_rows(flat: Kernel, c: Contraction) -> tuple[int, int]:
    """Bytes of the two factors if each is contiguous along its own axis, else zeros."""
    ((left, right), *others) = c.factors
    if others or not (isinstance(left, Load) and isinstance(right, Load)):
        return 0, 0
    steps = {coefficient(left.index[0], c.rows.name), coefficient(right.index[0], c.columns.name)}
    first, second = (flat.operand(f.operand) for f in (left, right))
    if steps != {1} or {first.dtype, second.dtype} != {f32}:
        return 0, 0
    return 4 * evaluate(first.shape[0], {}), 4 * evaluate(second.shape[0], {})


def _tile(kernel: Kernel, c: Contraction, host: Host) -> tuple[float, tuple[tuple[str, int], ...]]:
    """A large register tile of two vectors to a row, which reads few lines, and the cost of covering all evenly."""
    height, width = (largest_extent(a, kernel.capacities) for a in (c.rows, c.columns))
    whole = -(-width // host.lanes)
    vectors = min(2, whole)
    most = min(host.accumulators // vectors, 16, height)
    found = []
    for rows in range(most, min(most - 1, 7), -1):
        tiles, rest = divmod(height, rows)
        cost = tiles * rows / outer_speed(rows, vectors) + (rest / outer_speed(rest, vectors) if rest else 0.0)
        found.append((round(cost * whole * unevenness(tiles + bool(rest), 2), 3), -rows))
    cost, rows = min(found)
    return cost, ((c.rows.name, -rows), (c.columns.name, vectors * host.lanes))


def _in_order(kernel: Kernel, stage: Stage) -> tuple[Axis, ...]:
    """The axes of a reduction, those innermost along which operands lie densest.

    Steps of a page, or of many of them, map all rows of a piece to one place in the first-level cache.
    """
    indices = [load.index[0] for load in kernel_loads(flatten(kernel))]

    def far(axis: Axis) -> tuple[bool, int, int]:
        steps = [abs(coefficient(i, axis.name) or 0) for i in indices]
        pages = sum((step >= PAGE) + 2 * (step > 0 and step % PAGE == 0) for step in steps)
        return largest_extent(axis, kernel.capacities) > 1, pages, sum(steps)

    return tuple(sorted(stage.reduce, key=far, reverse=True))


# ---- pieces ---------------------------------------------------------------------------------------------------------


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
    kernel: Kernel, axis: str, size: int, kept: Sequence[Axis], around: Sequence[Axis], schedule: Schedule,
    pieces_first: Callable[[Operand, int], bool],
) -> Split:  # fmt: skip
    """Cut a reduction along an axis into pieces of `size` points.

    The sums lie in memory in the order of the axes `kept`. `around` is the order of the loops; those over pieces come
    first, or second, so that a thread which owns rows owns their sums, as the sums and the number of pieces tell.
    """
    (stage,) = kernel.stages
    (accumulate,) = stage.accumulates
    sums, piece = _free_name(kernel, f"{kernel.name}_sums"), _free_name(kernel, "piece")
    place = tuple(Affine.axis(a.name) for a in kept)
    dtype = kernel.operand(stage.stores[0].operand).dtype
    buffer = Operand(sums, dtype, tuple(a.extent if a.extent is not None else 0 for a in kept), "out", 0.0)

    cut = next(a for a in stage.reduce if a.name == axis)
    # All its points, at whatever point of the space: clipped bounds leave each tap fewer, and not the same.
    first, last = Box((*kernel.space, *stage.reduce), kernel.capacities).span(axis)
    count = max(1, -(-(last + 1 - first) // size))
    reduce = tuple(_piece_of(a, piece, size, first) if a == cut else a for a in stage.reduce)
    store = Store(sums, place, Name(accumulate.names[0]), mode="sum")
    summing = replace(stage, reduce=reduce, results=(), stores=(store,))
    pieces = Axis.range(piece, count, sequential=True)
    space = (pieces, *around) if pieces_first(buffer, count) else (around[0], pieces, *around[1:])

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
    return operand.dtype.itemsize * size_in_memory(operand, kernel.capacities)


def _piece_of(axis: Axis, piece: str, size: int, first: int) -> Axis:
    """The points of an axis in piece number `piece`, if those of the first begin at `first`."""
    start = Affine.of({piece: size}) + first
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
