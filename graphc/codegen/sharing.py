"""Which calls of a plan threads share, by what sharing saves and what its barriers cost."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from graphc.codegen.analysis import capacity, coefficient, kernel_loads, kernel_stores, points
from graphc.codegen.barriers import FIRST_THREAD, Part, Touch, conflict, place_barriers
from graphc.codegen.choose import touched
from graphc.codegen.cpu.emit import tiles_of
from graphc.codegen.host import Host
from graphc.codegen.lanes import stage_cost
from graphc.codegen.rows import Scheduled, Units, in_units, part_of_units
from graphc.codegen.tiles import FAR_LINE, LINE
from graphc.kernel.expr import Affine, Index
from graphc.kernel.form import Axis, Kernel
from graphc.kernel.plan import Barrier, Buffer, Call, Entry, Loop, Plan, While, nested, walk, with_nested
from graphc.kernel.schedule import Schedule

SMALLEST_SHARED = (1_500, 4_000, 10_000, 40_000)  # nanoseconds from which calls are shared, to choose from
MEETING = 700  # nanoseconds that a barrier costs: its own 300, and data that lies in another core's cache
TURNS = 16  # of a loop that ends by a test, expected
CYCLE = 0.25  # nanoseconds of a cycle; an estimate for all machines
LEAST_GAIN = 1_000  # nanoseconds of a step for which schedules are changed
LINE_BYTES = 64
FMA_VECTORS = 1.5  # vectors of multiply-adds in a cycle that contractions reach


@dataclass(frozen=True)
class Sharing:
    """A plan whose calls and barriers say what threads share, and the schedules that differ from those given."""

    plan: Plan
    schedules: Mapping[str, Schedule]


def share_work(
    plan: Plan, kernels: Mapping[str, Scheduled], host: Host, fixed: Collection[str] = frozenset()
) -> Sharing:
    """The plan with its shared calls marked and the barriers that they need; `kernels` by the names that it calls.

    Calls with enough work are shared: how much that is, is chosen for two threads. Threads do not share a program in
    which that saves nothing. In a loop they share rows instead if that saves more, see `graphc.codegen.rows`; schedules
    of kernels in `fixed` stay as they are.
    """
    best = _choose(plan, kernels, {}, host)
    changed: dict[str, Schedule] = {}
    work = {name: estimated_work(kernel, host) for name, kernel in kernels.items()}
    for loop in (entry for entry in walk(plan.entries) if isinstance(entry, Loop | While)):
        inside = {e.kernel: kernels[e.kernel] for e in walk([loop]) if isinstance(e, Call) and e.kernel not in fixed}
        if inside.keys() & changed.keys():
            continue  # a loop within one whose rows are shared
        latest: Mapping[str, Schedule] = {}
        before = best.gains
        for units in in_units(inside, work, host):
            others = {n: replace(kernels[n], schedule=s) for n, s in (changed | dict(units.schedules)).items()}
            gains = before | _gains(units, inside, work, host)
            found = _choose(plan, {**kernels, **others}, gains, host)
            if found.saved > best.saved + LEAST_GAIN:
                best, latest = found, units.schedules
        changed |= latest
    ahead = (_choose(plan, kernels, {}, host, preparation.entries).entries for preparation in plan.preparations)
    preparations = tuple(replace(p, entries=found) for p, found in zip(plan.preparations, ahead, strict=True))
    return Sharing(replace(plan, entries=best.entries, preparations=preparations), changed)


@dataclass(frozen=True)
class _Choice:
    """Entries with barriers, and the nanoseconds that two threads save. gains: of calls shared whatever their work."""

    entries: tuple[Entry, ...]
    saved: float
    gains: dict[str, float]


def _choose(
    plan: Plan,
    kernels: Mapping[str, Scheduled],
    gains: dict[str, float],
    host: Host,
    ahead: tuple[Entry, ...] | None = None,
) -> _Choice:
    """The best of the least amounts of work from which calls are shared. `gains` are those of calls shared anyway.

    The entries are those of the step, or `ahead` of it those of a preparation, which ends with a barrier anyway.
    """
    entries = plan.entries if ahead is None else ahead
    work = {name: work_estimate(kernel, host) for name, kernel in kernels.items()}
    saves = {name: ns / 2 for name, ns in work.items()} | gains
    touches = Touches(plan, kernels, host)
    after = touches.after_step() if ahead is None else ()
    best = _Choice(entries, 0.0, {})
    tried: set[frozenset[str]] = {frozenset()}
    for least in SMALLEST_SHARED:
        shared = {name: max(ns, 1) for name, ns in work.items() if ns >= least or name in gains}
        if frozenset(shared) in tried:
            continue
        tried.add(frozenset(shared))
        placed, pending = place_barriers(_marked(entries, shared), touches)
        end = (Barrier(),) if conflict(pending, after) else ()
        if (saving := _saved((*placed, *end), saves)) > best.saved:
            best = _Choice((*placed, *end), saving, gains)
    return best


def _saved(entries: Iterable[Entry], saves: Mapping[str, float]) -> float:
    """Nanoseconds that two threads save, given what they save in a call of each kernel."""
    total = 0.0
    for entry in entries:
        if isinstance(entry, Call):
            total += saves[entry.kernel] if entry.shared else 0.0
        elif isinstance(entry, Barrier):
            total -= MEETING
        else:
            turns = entry.count if isinstance(entry, Loop) else TURNS if isinstance(entry, While) else 1
            total += turns * sum(_saved(inner, saves) for inner in nested(entry))
    return total


def _gains(
    units: Units, kernels: Mapping[str, Scheduled], work: Mapping[str, float], host: Host
) -> dict[str, float]:
    """Nanoseconds that two threads save in a call of each kernel that they share by units of rows."""
    after = {name: replace(kernels[name], schedule=schedule) for name, schedule in units.schedules.items()}
    old, new = (_fetching({name: known[name] for name in after}, host) for known in (kernels, after))
    return {name: work[name] * (1 - units.slower[name] * units.share) - (new[name] - old[name]) for name in after}


def _fetching(kernels: Mapping[str, Scheduled], host: Host) -> dict[str, float]:
    """Nanoseconds that a thread, one of two, waits for memory in a call of each kernel of a loop."""
    nbytes = {}
    for name, kernel in kernels.items():
        axis = next((a for a in kernel.flat.space if a.name == kernel.schedule.parallel), None)
        nbytes[name] = touched(kernel.flat, axis)
    everything = sum(nbytes.values())
    line = 0.0 if everything <= host.first_level else FAR_LINE if everything > host.second_level else LINE
    return {name: size / LINE_BYTES * line * CYCLE for name, size in nbytes.items()}


def work_estimate(kernel: Scheduled, host: Host) -> int:
    """Nanoseconds that one thread takes at all capacities, estimated, if threads can share the kernel; else 0."""
    return int(estimated_work(kernel, host)) if kernel.schedule.parallel is not None else 0


def estimated_work(kernel: Scheduled, host: Host) -> float:
    """Nanoseconds that one thread takes at all capacities, estimated."""
    schedule, flat = kernel.schedule, kernel.flat
    if schedule.kind in ("outer", "dot"):
        return points(flat) / (host.lanes * FMA_VECTORS) * CYCLE
    tiled = dict(schedule.tile)
    cycles = 0.0
    for stage in flat.stages:
        lanes_along = next((a for a in (*stage.space, *stage.reduce, *flat.space) if a.name in tiled), None)
        cycles += stage_cost(flat, stage, lanes_along, host.lanes)
    return cycles * CYCLE


def _marked(entries: Iterable[Entry], work: Mapping[str, int]) -> tuple[Entry, ...]:
    found: list[Entry] = []
    for entry in entries:
        if isinstance(entry, Call):
            found.append(replace(entry, shared=work.get(entry.kernel, 0)))
        else:
            found.append(with_nested(entry, [_marked(inner, work) for inner in nested(entry)]))
    return tuple(found)


# ---- what calls touch -----------------------------------------------------------------------------------------------


class Touches:
    """What the entries of a plan touch."""

    def __init__(self, plan: Plan, kernels: Mapping[str, Scheduled], host: Host) -> None:
        self._plan = plan
        self._buffers = {buffer.name: buffer for buffer in plan.buffers}
        self._kernels = kernels
        self._host = host
        self._parts: dict[str, list[Part | None]] = {}

    def of_call(self, call: Call, loops: Sequence[Loop]) -> list[Touch]:
        """The bytes of each operand, in all turns of the loops around the call."""
        kernel = self._kernels[call.kernel].form
        parts = self._parts_of(call.kernel) if call.shared else [FIRST_THREAD] * len(call.operands)
        return [self._touch(name, loops, operand.role != "in", part)
                for name, operand, part in zip(call.operands, kernel.operands, parts, strict=True)]

    def of_predicate(self, name: str, loops: Sequence[Loop]) -> list[Touch]:
        """All threads read it, to go the same way."""
        return [self._touch(name, loops, False, None)]

    def after_step(self) -> list[Touch]:
        """What thread 0 does after the last entry: copies of updates, and counting the step."""
        copies = [touch for update in self._plan.updates for touch in
                  (self._touch(update.source, (), False, FIRST_THREAD),
                   self._touch(update.target, (), True, FIRST_THREAD))]
        rng = [self._touch(b.name, (), True, FIRST_THREAD) for b in self._plan.buffers if b.region == "rng"]
        return copies + rng

    def _touch(self, name: str, loops: Sequence[Loop], writes: bool, part: Part | None) -> Touch:
        buffer = self._buffers[name]
        memory, begin = _place(buffer)
        first, last = begin, begin + max(buffer.nbytes, 1)
        frame: tuple[int, ...] = (first, last)
        for loop in loops:
            step = dict(loop.strides).get(name, 0)
            if step:
                moved = step * max(loop.count - 1, 0)
                first, last = min(first, first + moved), max(last, last + moved)
                # Slices that do not overlap, of one loop: equal rows of different slices are different bytes.
                apart = len(frame) == 2 and abs(step) >= buffer.nbytes
                frame = (abs(step), begin % abs(step), buffer.nbytes) if apart else ()
                part = part if frame or part == FIRST_THREAD else None
        return Touch(memory, first, last, writes, part, frame)

    def _parts_of(self, kernel: str) -> list[Part | None]:
        if kernel not in self._parts:
            self._parts[kernel] = parts(self._kernels[kernel], self._host)
        return self._parts[kernel]


def _place(buffer: Buffer) -> tuple[str, int]:
    if buffer.region in ("variable", "constant", "rng"):
        return f"{buffer.region} {buffer.offset}", buffer.start
    return "arena", buffer.offset


def parts(kernel: Scheduled, host: Host) -> list[Part | None]:
    """How a shared kernel cuts each of its operands, None where that is not known.

    Known are shares of whole rows: the parallel axis counts them, all else in the index stays within a row.
    """
    flat, unit = kernel.flat, kernel.schedule.unit
    axis = next(a for a in flat.space if a.name == kernel.schedule.parallel)
    tiles = tiles_of(kernel.form, flat, kernel.schedule, host, axis.name)
    if any(segment.limit is not None for segment in tiles):  # a tile may reach into another thread's
        return [None] * len(flat.operands)
    text = re.sub(rf"\b{re.escape(axis.name)}\b", "axis", " then ".join(map(str, tiles)))
    text = f"{axis.extent} points, {text}"
    indices: dict[str, list[Index]] = {operand.name: [] for operand in flat.operands}
    for load in kernel_loads(flat):
        indices[load.operand].extend(load.index)
    for store in kernel_stores(flat):
        indices[store.operand].extend(store.index)
    found: list[Part | None] = []
    for operand in flat.operands:
        strides = {_row(flat, index, axis) for index in indices[operand.name]}
        stride = strides.pop() * operand.dtype.itemsize if len(strides) == 1 else 0
        part = Part(text, stride)
        if unit and axis.extent is not None:
            part = Part(*part_of_units(axis.extent, unit, stride))
        found.append(part if stride and operand.init is None else None)
    return found


def _row(flat: Kernel, index: Index, axis: Axis) -> int:
    """The size of the rows that `axis` counts in a flat index; 0 if it counts none."""
    if not isinstance(index, Affine) or not isinstance(index.const, int):
        return 0
    stride = coefficient(index, axis.name)
    axes = {a.name: a for a in (*flat.space, *(a for s in flat.stages for a in (*s.space, *s.reduce)))}
    within = index.const
    for name, factor in index.terms:
        if name == axis.name:
            continue
        most = capacity(axes[name], flat.capacities) if name in axes else None
        if most is None or not isinstance(factor, int) or factor < 0:
            return 0  # a clipped axis, or one that moves backwards
        within += factor * (most - 1)
    return stride if isinstance(stride, int) and 0 <= within < stride and index.const >= 0 else 0
