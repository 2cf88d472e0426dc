"""Which calls of a plan threads share, and where they must meet: few barriers, none that no data asks for.

A call is shared if its schedule has a parallel axis and it has enough work; thread 0 runs the others. Two calls need
a barrier between them if one writes what the other reads or writes, unless each byte of it belongs to the same
thread in both: thread 0's, or the same share of the same axis.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TypeAlias

from graphc.codegen.analysis import capacity, coefficient, kernel_loads, kernel_stores, points
from graphc.codegen.cpu.emit import schedulable
from graphc.codegen.host import Host
from graphc.codegen.lanes import stage_cost
from graphc.kernel.expr import Affine, Index
from graphc.kernel.form import Axis, Kernel
from graphc.kernel.plan import Barrier, Branch, Buffer, Call, Entry, Loop, Plan, While, nested, walk, with_nested
from graphc.kernel.schedule import Schedule

SMALLEST_SHARED = 8_000  # nanoseconds on one thread, below which shares cost more than they save
CYCLE = 0.25  # nanoseconds of a cycle; an estimate for all machines
FMA_VECTORS = 1.5  # vectors of multiply-adds in a cycle that contractions reach

Scheduled: TypeAlias = tuple[Kernel, Schedule]


def share_work(plan: Plan, kernels: Mapping[str, Scheduled], host: Host) -> Plan:
    """The plan with its shared calls marked and the barriers that they need; `kernels` by the names that it calls."""
    work = {name: work_estimate(*scheduled, host) for name, scheduled in kernels.items()}
    entries = _marked(plan.entries, {name: ns for name, ns in work.items() if ns >= SMALLEST_SHARED})
    if not any(isinstance(entry, Call) and entry.shared for entry in walk(entries)):
        return replace(plan, entries=entries)
    touches = Touches(plan, kernels)
    placed, pending = place_barriers(entries, touches)
    if conflict(pending, touches.after_step()):
        placed = (*placed, Barrier())
    return replace(plan, entries=placed)


def work_estimate(kernel: Kernel, schedule: Schedule, host: Host) -> int:
    """Nanoseconds that one thread takes at all capacities, estimated, if threads can share the kernel; else 0."""
    if schedule.parallel is None:
        return 0
    flat = schedulable(kernel)
    if schedule.kind in ("outer", "dot"):
        return int(points(flat) / (host.lanes * FMA_VECTORS) * CYCLE)
    tiled = dict(schedule.tile)
    cycles = 0.0
    for stage in flat.stages:
        lanes_along = next((a for a in (*stage.space, *stage.reduce, *flat.space) if a.name in tiled), None)
        cycles += stage_cost(flat, stage, lanes_along, host.lanes)
    return int(cycles * CYCLE)


def _marked(entries: Iterable[Entry], work: Mapping[str, int]) -> tuple[Entry, ...]:
    found: list[Entry] = []
    for entry in entries:
        if isinstance(entry, Call):
            found.append(replace(entry, shared=work.get(entry.kernel, 0)))
        else:
            found.append(with_nested(entry, [_marked(inner, work) for inner in nested(entry)]))
    return tuple(found)


# ---- what calls touch -----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Part:
    """How a call cuts a buffer among threads: by tiles of `step` points of an axis, each `stride` bytes long."""

    axis_points: str
    step: int
    stride: int


FIRST_THREAD = Part("", 0, 0)  # all of it is thread 0's


@dataclass(frozen=True)
class Touch:
    """Bytes `first` ... `last` of a memory that are read or written; `part` is None if any thread may touch any."""

    memory: str
    first: int
    last: int
    writes: bool
    part: Part | None

    def conflicts(self, other: Touch) -> bool:
        """True if threads must meet between the two."""
        if self.memory != other.memory or not (self.writes or other.writes):
            return False
        if self.first >= other.last or other.first >= self.last:
            return False
        if self.part is None or self.part != other.part:
            return True
        return self.part != FIRST_THREAD and (self.first, self.last) != (other.first, other.last)


def conflict(earlier: Iterable[Touch], later: Sequence[Touch]) -> bool:
    """True if any of the one needs a barrier before any of the other."""
    return any(a.conflicts(b) for a in earlier for b in later)


class Touches:
    """What the entries of a plan touch."""

    def __init__(self, plan: Plan, kernels: Mapping[str, Scheduled]) -> None:
        self._plan = plan
        self._buffers = {buffer.name: buffer for buffer in plan.buffers}
        self._kernels = kernels
        self._parts: dict[str, list[Part | None]] = {}

    def of_call(self, call: Call, loops: Sequence[Loop]) -> list[Touch]:
        """The bytes of each operand, in all turns of the loops around the call."""
        kernel, _ = self._kernels[call.kernel]
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
        memory, first = _place(buffer)
        last = first + max(buffer.nbytes, 1)
        for loop in loops:
            moved = dict(loop.strides).get(name, 0) * max(loop.count - 1, 0)
            first, last = min(first, first + moved), max(last, last + moved)
        return Touch(memory, first, last, writes, part)

    def _parts_of(self, kernel: str) -> list[Part | None]:
        if kernel not in self._parts:
            self._parts[kernel] = parts(*self._kernels[kernel])
        return self._parts[kernel]


def _place(buffer: Buffer) -> tuple[str, int]:
    if buffer.region in ("scratch", "input"):
        return "arena", buffer.offset
    return f"{buffer.region} {buffer.offset}", buffer.start


def parts(kernel: Kernel, schedule: Schedule) -> list[Part | None]:
    """How a shared kernel cuts each of its operands, None where that is not known.

    Known are shares of whole rows: the parallel axis counts them, all else in the index stays within a row.
    """
    flat = schedulable(kernel)
    axis = next(a for a in flat.space if a.name == schedule.parallel)
    step = dict(schedule.tile).get(axis.name, 1)
    # With other extents the last tile may overlap another thread's, or be one thread's beyond its share.
    known = step == 1 or (isinstance(axis.extent, int) and axis.extent % step == 0)
    indices: dict[str, list[Index]] = {operand.name: [] for operand in flat.operands}
    for load in kernel_loads(flat):
        indices[load.operand].extend(load.index)
    for store in kernel_stores(flat):
        indices[store.operand].extend(store.index)
    found: list[Part | None] = []
    for operand in flat.operands:
        strides = {_row(flat, index, axis) for index in indices[operand.name]}
        stride = strides.pop() if len(strides) == 1 else 0
        stride *= operand.dtype.itemsize
        found.append(Part(str(axis.extent), step, stride) if known and stride and operand.init is None else None)
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


# ---- where threads meet ---------------------------------------------------------------------------------------------


def place_barriers(entries: Sequence[Entry], touches: Touches) -> tuple[tuple[Entry, ...], frozenset[Touch]]:
    """Entries with the fewest barriers for their order, and what has been touched since the last one.

    All threads take the same way through branches and loops: they read predicates, which nobody writes meanwhile.
    """
    return _Placement(touches).entries(tuple(entries), frozenset(), ())


class _Placement:
    """`pending` is always what may have been touched since the last barrier, on any way to this point."""

    def __init__(self, touches: Touches) -> None:
        self._touches = touches

    def entries(
        self, entries: tuple[Entry, ...], pending: frozenset[Touch], loops: tuple[Loop, ...]
    ) -> tuple[tuple[Entry, ...], frozenset[Touch]]:
        """A barrier before each entry that conflicts with what is pending."""
        placed: list[Entry] = []
        for entry in entries:
            if isinstance(entry, Barrier):
                pending = frozenset()
            elif isinstance(entry, Call):
                pending = self._met(self._touches.of_call(entry, loops), pending, placed)
            elif isinstance(entry, Branch):
                pending = self._met(self._touches.of_predicate(entry.predicate, loops), pending, placed)
                then, after_then = self.entries(entry.then, pending, loops)
                orelse, after_orelse = self.entries(entry.orelse, pending, loops)
                entry, pending = replace(entry, then=then, orelse=orelse), after_then | after_orelse
            elif isinstance(entry, Loop):
                entry, pending = self._loop(entry, pending, (*loops, entry))
            else:
                entry, pending = self._while(entry, pending, loops)
            placed.append(entry)
        return tuple(placed), pending

    def _met(self, touches: list[Touch], pending: frozenset[Touch], placed: list[Entry]) -> frozenset[Touch]:
        """What is pending after an entry that touches this; a barrier is added to `placed` if it needs one."""
        if conflict(pending, touches):
            placed.append(Barrier())
            pending = frozenset()
        return pending | frozenset(touches)

    def _loop(self, loop: Loop, pending: frozenset[Touch], loops: tuple[Loop, ...]) -> tuple[Loop, frozenset[Touch]]:
        before, ends = pending, frozenset[Touch]()
        while True:  # the end of a turn is before the next one; each round adds a barrier or is the last
            body, end = self.entries(loop.body, pending, loops)
            ends |= end
            if body == loop.body and ends <= pending:
                return loop, ends if loop.count > 0 else before
            loop, pending = replace(loop, body=body), before | ends

    def _while(self, loop: While, pending: frozenset[Touch], loops: tuple[Loop, ...]) -> tuple[While, frozenset[Touch]]:
        before, ends = pending, frozenset[Touch]()
        while True:
            test, tested = self.entries(loop.test, pending, loops)
            tail: list[Entry] = []
            tested = self._met(self._touches.of_predicate(loop.predicate, loops), tested, tail)
            body, end = self.entries(loop.body, tested, loops)
            placed = replace(loop, test=(*test, *tail), body=body)
            ends |= end
            if placed == loop and ends <= pending:
                return loop, before | tested | ends
            loop, pending = placed, before | ends
