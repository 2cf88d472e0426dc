"""A user's schedules: which of them a kernel has code for. The chooser's and a tuner's need no such check."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import NoReturn

from graphc.codegen.analysis import all_axes, capacity, reads_own_element_only
from graphc.codegen.choose import shareable_axes
from graphc.codegen.contraction import Dot, Outer, ways
from graphc.codegen.cpu.emit import schedulable, unit_problem
from graphc.codegen.host import Host
from graphc.codegen.lanes import space_lanes_possible, stage_lanes_possible, transposed_cost
from graphc.errors import CompileError
from graphc.kernel.form import Axis, Kernel
from graphc.kernel.schedule import KINDS, Schedule
from graphc.kernel.scope import stage_scopes

MOST_VECTORS = 64  # of a register tile: several times what any registers hold; more would only take long to compile


def check_override(kernel: Kernel, schedule: Schedule, host: Host) -> str:
    """Check that a kernel can run as a user's schedule says. Returns a remark on what will be slow about it, or ''.

    Raises CompileError, with the kernel, the schedule, what is wrong with it and what is possible.
    """
    return _Check(kernel, schedule, host).remark()


class _Check:
    def __init__(self, kernel: Kernel, schedule: Schedule, host: Host) -> None:
        self.kernel, self.schedule, self.host = kernel, schedule, host
        self.flat = schedulable(kernel)
        self.space = {a.name: a for a in self.flat.space}

    def remark(self) -> str:
        """Refuse what there is no code for; what spills registers is worth a remark."""
        schedule = self.schedule
        known = {a.name for a in all_axes(self.flat)}
        named = [*([schedule.vector_axis] if schedule.vector_axis else []), *dict(schedule.tile), *schedule.order]
        for name in [*named, *([schedule.parallel] if schedule.parallel else [])]:
            if name not in known:
                self._refuse(f"the kernel has no axis {name!r}, its axes are {', '.join(sorted(known)) or 'none'}")
        if schedule.kind not in KINDS:
            self._refuse(f"there is no kind {schedule.kind!r}")
        if schedule.blocks:
            self._refuse("there is no code for cache blocks")
        if len(dict(schedule.tile)) != len(schedule.tile):
            self._refuse("its tile names an axis twice")
        self._check_order()
        {"scalar": self._scalar, "vector": self._vector, "transposed": self._transposed}.get(
            schedule.kind, self._contraction
        )()
        shareable = [a.name for a in shareable_axes(self.flat, self.kernel, schedule)]
        if schedule.parallel is not None and schedule.parallel not in shareable:
            can = f"they can share {', '.join(shareable)}" if shareable else "they can share none of this kernel's"
            self._refuse(f"threads cannot share out the axis {schedule.parallel!r}; {can}")
        if problem := unit_problem(self.flat, schedule):
            self._refuse(problem)
        return self._spills()

    def _check_order(self) -> None:
        order = self.schedule.order
        if not order:
            return
        if sorted(order) != sorted(self.space):
            self._refuse(f"its order must name each axis of the space once: {', '.join(self.space)}")
        if not reads_own_element_only(self.flat) and order != tuple(self.space):
            self._refuse(f"points read what others write, so the order must be {' '.join(self.space)}")
        sequential = [name for name, axis in self.space.items() if axis.sequential]
        if [name for name in order if name in sequential] != sequential:
            self._refuse(f"sequential axes must keep their order: {', '.join(sequential)}")

    # -- kinds -----------------------------------------------------------------------------------------------

    def _scalar(self) -> None:
        if self.schedule.tile or self.schedule.vector_axis:
            self._refuse("a scalar schedule has neither a vector axis nor a tile")

    def _vector(self) -> None:
        sizes = dict(self.schedule.tile)
        if self.schedule.vector_axis not in sizes:
            self._refuse("its vector axis needs a tile")
        for size in sizes.values():
            self._check_vectors(size)
        if self.schedule.vector_axis in self.space:
            if len(sizes) > 1:
                self._refuse("lanes along an axis of the space leave no other axis to tile")
            if not space_lanes_possible(self.flat, self.space[self.schedule.vector_axis]):
                self._refuse(f"there is no code with lanes along {self.schedule.vector_axis!r}")
            return
        for axes in self._stage_axes():
            tiled = [axis for axis in axes if axis in sizes]
            if len(tiled) > 1:
                self._refuse(f"a stage can have lanes along one of {', '.join(tiled)} only")
            sizes = {axis: size for axis, size in sizes.items() if axis not in tiled}
        if sizes:
            self._refuse(f"no stage has code with lanes along {', '.join(sizes)}")

    def _stage_axes(self) -> Iterator[list[str]]:
        """The axes of each stage that can have lanes."""
        for stage, scope in zip(self.flat.stages, stage_scopes(self.flat), strict=True):
            own = (*stage.space, *stage.reduce)
            yield [a.name for a in own if stage_lanes_possible(self.flat, stage, scope, a)]

    def _transposed(self) -> None:
        sizes, lane = dict(self.schedule.tile), self.schedule.vector_axis
        (row,) = [name for name in sizes if name != lane] if len(sizes) == 2 and lane in sizes else (None,)
        if row is None or set(sizes.values()) != {self.host.lanes} or [*sizes] != [row, lane]:
            lanes = self.host.lanes
            self._refuse(f"square tiles are {lanes} of the row axis, then {lanes} of the vector axis")
        if row not in self.space or lane not in self.space:
            self._refuse("square tiles are of two axes of the space")
        if transposed_cost(self.flat, self.space[row], self.space[lane], self.host.lanes) is None:
            self._refuse(f"nothing is to transpose between {row!r} and {lane!r}, or there is no code for it")

    def _contraction(self) -> None:
        tile, lanes = self.schedule.tile, self.host.lanes
        for way in ways(self.flat, self.host, cut=False):
            if _axes_of(way) != (self.schedule.kind, self.schedule.vector_axis, *dict(tile)):
                continue
            (rows, height), (columns, width), *_ = tile
            self._check_extent(rows, height, 1)
            self._check_extent(columns, width, lanes if isinstance(way, Outer) else 1)
            if isinstance(way, Dot) and tile[2][1] != lanes:
                self._refuse(f"a dot schedule reads {lanes} elements of {tile[2][0]!r} at a time")
            if isinstance(way, Outer):
                self._check_vectors(width)
            if height * (width // lanes if isinstance(way, Outer) else width) > MOST_VECTORS:
                self._refuse(f"a register tile has at most {MOST_VECTORS} vectors of sums")
            return
        self._refuse("the factors are not contiguous along these lanes, or these axes are not its rows and columns")

    def _check_extent(self, axis: str, size: int, unit: int) -> None:
        most = -(-max(1, capacity(self.space[axis], self.flat.capacities) or 1) // unit) * unit
        if size > most:
            self._refuse(f"the axis {axis!r} has {capacity(self.space[axis], self.flat.capacities)} points: its tile "
                         f"can have {most} at most")

    def _check_vectors(self, size: int) -> None:
        lanes = self.host.lanes
        if size % lanes or size > MOST_VECTORS * lanes:
            self._refuse(f"a tile along lanes is a multiple of {lanes} elements, {MOST_VECTORS * lanes} at most")

    def _spills(self) -> str:
        """A remark if the sums and what they are fed from exceed the registers."""
        if self.schedule.kind not in ("outer", "dot"):
            return ""
        (_, rows), (_, columns), *_ = self.schedule.tile
        outer = self.schedule.kind == "outer"
        columns = columns // self.host.lanes if outer else columns
        needed = rows * columns + (columns + 2 if outer else min(rows, columns) + 1)
        needed *= 2 if any(o.dtype.itemsize == 8 for o in self.kernel.operands) else 1
        if needed <= self.host.registers:
            return ""
        return (f"schedule: the tile of {self.kernel.name} ({self.schedule}) needs {needed} vector registers of "
                f"{self.host.registers}: sums are spilled to memory")

    def _refuse(self, reason: str) -> NoReturn:
        raise CompileError(f"kernel {self.kernel.name!r} cannot run as {str(self.schedule)!r}: {reason}. Possible are: "
                           f"{'; or '.join(self._possible())}")

    def _possible(self) -> Iterator[str]:
        """Schedules there is code for, but for the sizes of tiles and orders."""
        lanes = self.host.lanes
        for way in ways(self.flat, self.host, cut=False):
            kind, vector, rows, columns, *_ = _axes_of(way)
            unit, last = (f"{lanes}, {2 * lanes}, ...", "") if kind == "outer" else ("1, 2, ...", f" {vector}:{lanes}")
            yield f"{kind}; vector {vector}; tile {rows}:(1, 2, ...) {columns}:({unit}){last}"
        yield from (f"vector; vector {a.name}; tile {a.name}:({lanes}, {2 * lanes}, ...)" for a in self._lane_axes())
        for row, lane in itertools.permutations(self.flat.space, 2):
            if transposed_cost(self.flat, row, lane, lanes) is not None:
                yield f"transposed; vector {lane.name}; tile {row.name}:{lanes} {lane.name}:{lanes}"
        yield "scalar"

    def _lane_axes(self) -> Iterator[Axis]:
        yield from (a for a in self.flat.space if space_lanes_possible(self.flat, a))
        named = {a.name: a for a in all_axes(self.flat)}
        yield from (named[name] for axes in self._stage_axes() for name in axes)


def _axes_of(way: Outer | Dot) -> tuple[str, ...]:
    """The kind, vector axis and tiled axes of a way of running a contraction."""
    rows, columns = way.contraction.rows.name, way.contraction.columns.name
    return ("outer", columns, rows, columns) if isinstance(way, Outer) else (
        "dot", way.axis.name, rows, columns, way.axis.name)  # fmt: skip
