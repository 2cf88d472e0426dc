"""What a kernel costs with its operands in given layouts, in cycles, estimated without scheduling it.

Which axes are rows and columns of a contraction does not depend on layouts, nor does what its register tiles cost: they
are found once. Layouts decide by their strides which of these tiles can load whole vectors.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from graphc.codegen.analysis import (
    flat_loads,
    flatten,
    kernel_stores,
    largest_extent,
    reads_own_element_only,
)
from graphc.codegen.contraction import (
    Contraction,
    Dot,
    Outer,
    Plan,
    cheapest,
    columns_possible,
    contractions,
    dot_possible,
)
from graphc.codegen.crowding import fetched_again, longer
from graphc.codegen.host import Host
from graphc.codegen.lanes import (
    CHAIN,
    LANE_REDUCTION,
    SLOW,
    SLOW_CYCLES,
    STRIDED,
    TRANSPOSED,
    lanes_possible,
    step_cost,
)
from graphc.codegen.split import PIECE, cut_into_rows
from graphc.ir.dims import evaluate
from graphc.kernel.expr import Affine, Apply, Computed, Expr, Index, loads, walk
from graphc.kernel.form import Axis, Kernel, Operand, Stage
from graphc.kernel.layout import Layout

Strides = Mapping[str, tuple[int, ...]]  # operand -> elements between neighbours along each of its axes


def strides_in(operand: Operand, layout: Layout | None, capacities: Mapping[str, int]) -> tuple[int, ...]:
    """Elements between neighbours along each axis of an operand in a layout without splits (None: row-major)."""
    sizes = [evaluate(dim, capacities) for dim in operand.shape]
    if layout is None:
        layout = Layout.row_major(len(sizes))
    in_memory = layout.strides(sizes)
    return tuple(in_memory[layout.permutation.index(axis)] for axis in range(len(sizes)))


@dataclass(frozen=True)
class Access:
    """A load or a store. steps: for each axis of the operand, what its index moves by along axes of the kernel.

    A computed index depends on the axes in `irregular`.
    """

    operand: str
    steps: tuple[Mapping[str, int], ...]
    irregular: frozenset[str]
    stored: bool = False

    def step(self, axis: str, strides: Strides) -> int | None:
        """Elements that the access moves by in one step of an axis; None where that differs."""
        if axis in self.irregular:
            return None
        return sum(steps.get(axis, 0) * s for steps, s in zip(self.steps, strides[self.operand], strict=True))


def _access(operand: str, index: tuple[Index, ...], stored: bool = False) -> Access:
    irregular: set[str] = set()
    for i in index:
        if isinstance(i, Computed):
            inner = [j for load in loads(i.expr) for j in load.index]
            irregular |= {axis for j in inner if isinstance(j, Affine) for axis, _ in j.terms}
            irregular |= {e.axis for e in walk(i.expr) if hasattr(e, "axis")}
    steps = tuple(dict(i.terms) if isinstance(i, Affine) else {} for i in index)
    return Access(operand, steps, frozenset(irregular), stored)


@dataclass(frozen=True)
class Work:
    """Part of a stage, run at every point of `axes`: cycles of arithmetic, and accesses."""

    axes: tuple[Axis, ...]
    arithmetic: float
    accesses: tuple[Access, ...]

    @staticmethod
    def of(axes: tuple[Axis, ...], exprs: list[Expr], more: list[Access]) -> Work:
        """The work of computing expressions, with more accesses."""
        primitives = [e.primitive for top in exprs for e in walk(top) if isinstance(e, Apply)]
        cycles = sum(SLOW_CYCLES if p in SLOW else 0.5 for p in primitives)
        read = [_access(load.operand, load.index) for top in exprs for load in loads(top)]
        return Work(axes, cycles, (*read, *more))


class Estimate:
    """The cost of one kernel under any layouts of its operands."""

    def __init__(self, kernel: Kernel, host: Host) -> None:
        self.kernel, self.host, self.lanes = kernel, host, host.lanes
        axes = {a.name: a for s in kernel.stages for a in (*kernel.space, *s.space, *s.reduce)}
        self.extents = {name: max(1, largest_extent(a, kernel.capacities)) for name, a in axes.items()}
        self.works = [self._works(stage) for stage in kernel.stages]
        flat = flatten(kernel)
        self.flat, own = flat, reads_own_element_only(flat)
        everywhere = tuple(e for s in kernel.stages for e in s.expressions())
        # Where code for lanes exists, whatever the layout.
        self.space = [a.name for a in kernel.space if own and lanes_possible(flat, a, everywhere, ())]
        self.inner = [
            [a for a in (*s.space, *s.reduce) if own and lanes_possible(flat, a, tuple(s.expressions()), ())]
            for s in kernel.stages
        ]
        self.stores = [_access(s.operand, s.index) for s in kernel_stores(kernel)]
        self.contractions = list(contractions(flat))
        self.columns = [columns_possible(flat, c) for c in self.contractions]
        by_index = {flat_load: _access(load.operand, load.index) for load, flat_load in flat_loads(kernel).items()}
        self.factors = [
            [[by_index[load] for f in side for load in loads(f)] for side in zip(*c.factors, strict=True)]
            for c in self.contractions
        ]
        self._outer: dict[int, Plan] = {}
        self.itemsizes = {o.name: o.dtype.itemsize for o in kernel.operands}
        self._dot: dict[tuple[int, str], float] = {}

    def cycles(self, strides: Strides, *, crowds: bool = False) -> float:
        """Estimated cycles at capacity, in the best way of running the kernel in these layouts.

        crowds: with waiting for lines that strides put into few places of the caches.
        """
        best = min(self._contraction_costs(strides, crowds), default=math.inf)
        return self._lane_cost(strides) if best == math.inf else best

    @property
    def ideal(self) -> float | None:
        """Cycles of a contraction in the layout that suits it best; None for other kernels."""
        return min((self._outer_cost(i) for i in range(len(self.contractions)) if self.columns[i]), default=None)

    # -- contractions ----------------------------------------------------------------------------------------

    def _contraction_costs(self, strides: Strides, crowds: bool) -> Iterator[float]:
        for number, c in enumerate(self.contractions):
            left, right = self.factors[number]
            column = c.columns.name
            if self.columns[number]:
                read = {a.step(column, strides) for a in right}
                if read <= {0, 1} and 1 in {a.step(column, strides) for a in self.stores}:
                    yield self._outer_cost(number) + (self._crowding(number, strides) if crowds else 0.0)
            for axis in self.kernel.stages[0].reduce:
                if {a.step(axis.name, strides) for a in (*left, *right)} == {1}:
                    yield self._dot_cost(number, c, axis)

    def _outer_cost(self, number: int) -> float:
        return self._outer_plan(number).cost

    def _outer_plan(self, number: int) -> Plan:
        if number not in self._outer:
            self._outer[number] = cheapest(Outer(self.flat, self.contractions[number], self.host, placed=False))
        return self._outer[number]

    def _crowding(self, number: int, strides: Strides) -> float:
        """Cycles that tiles wait for lines which strides put into too few places of the caches.

        Dot products are left out: a dot product's operands are contiguous along its reduction and use all places.
        """
        plan = self._outer_plan(number)
        sizes = dict(plan.schedule.tile)
        count = math.prod(-(-self.extents[a.name] // sizes.get(a.name, 1)) for a in self.kernel.space)
        inside, pieces = self._piece(strides)
        inside |= sizes
        waiting = 0.0
        for access in (access for side in self.factors[number] for access in side):
            size, steps = self.itemsizes[access.operand], {n: access.step(n, strides) for n in inside}
            waiting += fetched_again(tuple((s * size, inside[n]) for n, s in steps.items() if s), self.host)
        return count * longer(plan.cost / count, pieces * waiting)

    def _piece(self, strides: Strides) -> tuple[dict[str, int], float]:
        """The extents of the reduction that a tile walks at a time, and how many such pieces there are."""
        reduce = self.kernel.stages[0].reduce
        extents = {a.name: self.extents[a.name] for a in reduce}
        if not cut_into_rows(self.kernel):
            return extents, 1.0
        left = PIECE
        for name in sorted(
            extents, key=lambda n: max(abs(a.step(n, strides) or 0) for s in self.factors[0] for a in s)
        ):
            extents[name] = min(extents[name], max(1, left))
            left //= extents[name]
        return extents, math.prod(self.extents[n] / size for n, size in extents.items())

    def _dot_cost(self, number: int, c: Contraction, axis: Axis) -> float:
        if (number, axis.name) not in self._dot:
            possible = dot_possible(self.flat, c, axis)
            cost = cheapest(Dot(self.flat, c, axis, self.host, cut=True)).cost if possible else math.inf
            self._dot[number, axis.name] = cost
        return self._dot[number, axis.name]

    # -- lanes -----------------------------------------------------------------------------------------------

    def _works(self, stage: Stage) -> tuple[Work, Work]:
        """What a stage does at each point of its reduction, and what at each point of its space."""
        outer = (*self.kernel.space, *stage.space)
        inside = [*(let.expr for let in stage.lets), *(e for a in stage.accumulates for e in a.exprs)]
        after = [*(let.expr for let in stage.results), *(s.value for s in stage.stores)]
        stored = [_access(s.operand, s.index, stored=True) for s in stage.stores]
        return Work.of((*outer, *stage.reduce), inside, []), Work.of(outer, after, stored)

    def _lane_cost(self, strides: Strides) -> float:
        """Scalar loops, lanes along an axis of the space, lanes in each stage of its own, or transposed tiles."""
        stages = range(len(self.works))
        options = [sum(self._stage_cost(i, None, strides) for i in stages)]
        for name in self.space:
            if all(a.step(name, strides) for a in self.stores):
                options.append(sum(self._stage_cost(i, name, strides) for i in stages))
        options.append(
            sum(min(self._stage_cost(i, a, strides) for a in (None, *(b.name for b in self.inner[i]))) for i in stages)
        )
        return min([*options, *self._transposed_costs(strides)])

    def _stage_cost(self, number: int, axis: str | None, strides: Strides) -> float:
        stage, (inside, after) = self.kernel.stages[number], self.works[number]
        along = axis in {a.name for a in stage.reduce}
        visits = self._visits(inside.axes, axis)
        cost = visits * self._work_cost(inside, axis, strides)
        points = self._visits(after.axes, axis)
        cost += points * self._work_cost(after, None if along else axis, strides)
        if along:
            cost += points * LANE_REDUCTION * len(stage.accumulates)
        elif stage.reduce:
            cost += visits * CHAIN * len(stage.accumulates) * (1.0 if axis is None else 0.25)
        return cost

    def _visits(self, axes: tuple[Axis, ...], axis: str | None) -> float:
        return math.prod(-(-self.extents[a.name] // (self.lanes if a.name == axis else 1)) for a in axes)

    def _work_cost(self, work: Work, axis: str | None, strides: Strides) -> float:
        if axis is None:
            return work.arithmetic + len(work.accesses)
        return work.arithmetic + sum(step_cost(a.step(axis, strides), self.lanes, a.stored) for a in work.accesses)

    def _transposed_costs(self, strides: Strides) -> Iterator[float]:
        """Square tiles of a map: some operands are contiguous along one of two axes, the others along the other."""
        if len(self.works) != 1 or self.kernel.stages[0].space or self.kernel.stages[0].reduce:
            return
        (_, work), *_ = self.works
        ones = {n for n in self.space if any(a.step(n, strides) == 1 for a in work.accesses)}
        for lane in ones:
            for row in ones - {lane}:
                cost = work.arithmetic
                for access in work.accesses:
                    across, along = access.step(row, strides), access.step(lane, strides)
                    if along == 1 or (across == along == 0):
                        cost += 1.0
                    else:
                        cost += TRANSPOSED if across == 1 and along else STRIDED * self.lanes
                yield self._visits(work.axes, lane) * cost
