"""Recognising contractions in kernel forms, and choosing their schedules.

A contraction is a kernel with one stage that sums products of two factors, one of which does not change along the
columns and the other not along the rows; it may add and subtract several products at each point. `outer` has its
vector lanes along the columns: a column of one factor times a row of the other. `dot` has them along a reduce axis,
along which both factors are contiguous; its columns may be the taps of a window, whose bounds depend on them.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

from graphc.codegen.analysis import (
    capacity,
    coefficient,
    index_depends,
    is_idempotent,
    is_runtime,
    largest_extent,
)
from graphc.codegen.clips import clips
from graphc.codegen.host import Host
from graphc.codegen.lanes import rows_possible, space_lanes_possible, uses_index
from graphc.codegen.tiles import Stream, best_dot, best_outer
from graphc.ir.dims import evaluate
from graphc.kernel.expr import Apply, AxisIndex, Computed, Expr, Index, Load, loads, walk
from graphc.kernel.form import Axis, Kernel
from graphc.kernel.schedule import Schedule
from graphc.kernel.scope import stage_scopes

SHORTEST_REDUCTION = 4
ROWS_ONE_BY_ONE = 4


@dataclass(frozen=True)
class Contraction:
    """rows and columns are axes of the kernel's space; of each product's factors the first does not change along the
    columns, the second not along the rows."""

    rows: Axis
    columns: Axis
    factors: tuple[tuple[Expr, Expr], ...]


@dataclass(frozen=True)
class Plan:
    """A way of running a contraction, with its estimated cycles at capacity.

    split: the outermost reduce axis that is worth cutting into pieces of so many points, see `graphc.codegen.split`.
    """

    cost: float
    schedule: Schedule
    contraction: Contraction
    split: tuple[str, int] | None = None


def contraction_schedule(kernel: Kernel, host: Host) -> Schedule | None:
    """The schedule of a flat kernel that is a contraction, else None. Without its parallel axis."""
    best = best_plan(kernel, host, cut=False)
    return None if best is None else best.schedule


def best_plan(kernel: Kernel, host: Host, *, cut: bool) -> Plan | None:
    """The cheapest way of running a flat kernel as a contraction, if it is one. `cut`: its reduction may be split."""
    found: list[Plan] = []
    registers = host.registers
    if any(d.itemsize == 8 for d in {o.dtype for o in kernel.operands}):
        registers //= 2  # 64-bit tiles take two hardware vectors each
    for c in _contractions(kernel):
        if rows_possible(kernel, c.rows):
            found += _outer_plans(kernel, c, host.lanes, registers)
            found += _dot_plans(kernel, c, host, registers, cut)
    return min(found, key=lambda plan: round(plan.cost, 3), default=None)


def _outer_plans(kernel: Kernel, c: Contraction, lanes: int, registers: int) -> Iterator[Plan]:
    if not _contiguous(kernel, c):
        return
    extent, twice = capacity(c.columns, kernel.capacities) or 1, is_idempotent(kernel)
    # What needs the index of the row is written once for each row.
    most = ROWS_ONE_BY_ONE if uses_index(kernel.stages[0], c.rows.name) else 24
    cost, rows, vectors = best_outer(
        lambda size: _cover(kernel, c.rows, size, twice),
        lambda size: _cover_vectors(extent, size, lanes, twice),
        most,
        min(8, max(1, -(-extent // lanes))),
        registers,
        len(c.factors),
    )
    tile = ((c.rows.name, rows), (c.columns.name, vectors * lanes))
    cost *= _outside(kernel, c) * _reduced(kernel) * len(c.factors)
    yield Plan(cost, Schedule("outer", c.columns.name, tile, _outer_order(kernel, c)), c)


def _outer_order(kernel: Kernel, c: Contraction) -> tuple[str, ...]:
    """Loops around a tile: along an axis that moves the columns alone, its factors of the rows stay in the cache."""
    others = [a.name for a in kernel.space if a not in (c.rows, c.columns)]
    ((left, _), *_) = c.factors
    still = [name for name in others if not _depends(left, name)]
    inner = still[-1:] if len(others) > 1 else []
    return (*(name for name in others if name not in inner), c.columns.name, c.rows.name, *inner)


def _dot_plans(kernel: Kernel, c: Contraction, host: Host, registers: int, cut: bool) -> Iterator[Plan]:
    axis = _dot_axis(kernel, c)
    if axis is None:
        return
    twice = is_idempotent(kernel)
    streams = Streams(kernel, c, axis, host, cut)
    cost, rows, columns, stream = best_dot(
        lambda size: _cover(kernel, c.rows, size, twice),
        lambda size: _cover(kernel, c.columns, size, twice),
        registers,
        streams.options,
    )
    tile = ((c.rows.name, rows), (c.columns.name, columns), (axis.name, host.lanes))
    split = streams.split_of(stream)
    pieces = streams.reduced / stream.steps if split else 1.0
    yield Plan(cost * _outside(kernel, c) * pieces, Schedule("dot", axis.name, tile, dot_order(kernel, c)), c, split)


def dot_order(kernel: Kernel, c: Contraction) -> tuple[str, ...]:
    """Loops around a tile: taps of windows innermost, which read what the tile before them read; else the larger
    operand is walked once, and the smaller one comes from the second-level cache again and again."""
    if any(a.sequential for a in kernel.space):  # the form says in which order it wants to run
        return tuple(a.name for a in kernel.space)
    others = tuple(a.name for a in kernel.space if a not in (c.rows, c.columns))
    left, right = _sizes(kernel, c)
    rows_first = left > right or (left == right and bool(others))
    pair = (c.rows.name, c.columns.name) if rows_first else (c.columns.name, c.rows.name)
    batches = tuple(name for name in others if all(_depends(f, name) for f in c.factors[0]))
    return (*batches, *pair, *(name for name in others if name not in batches))


def _sizes(kernel: Kernel, c: Contraction) -> tuple[int, int]:
    """Elements of memory of the two factors of a dot product."""
    (left, right), *_ = c.factors
    assert isinstance(left, Load) and isinstance(right, Load)
    first, second = (evaluate(kernel.operand(f.operand).shape[0], {}) for f in (left, right))  # operands are flat
    return first, second


def _outside(kernel: Kernel, c: Contraction) -> float:
    """Points of the space that are no rows and columns."""
    return math.prod(largest_extent(a, kernel.capacities) for a in kernel.space if a not in (c.rows, c.columns))


def _reduced(kernel: Kernel) -> float:
    return math.prod(largest_extent(a, kernel.capacities) for a in kernel.stages[0].reduce)


def _depends(expr: Expr, axis: str) -> bool:
    return any(index_depends(load.index[0], (axis,)) for load in loads(expr))


def _contractions(kernel: Kernel) -> Iterator[Contraction]:
    """Every way of seeing a kernel as a contraction."""
    if len(kernel.stages) != 1:
        return
    (stage,) = kernel.stages
    if stage.space or len(stage.accumulates) != 1 or stage.accumulates[0].combiner != "sum" or stage.lets:
        return
    (accumulate,) = stage.accumulates
    (expr,) = accumulate.exprs
    reduced = math.prod(capacity(a, kernel.capacities) or SHORTEST_REDUCTION for a in stage.reduce)
    (scope,) = stage_scopes(kernel)
    if not scope.names[accumulate.names[0]].is_float or reduced < SHORTEST_REDUCTION:
        return
    products = added_products(expr)
    if products is None or any(store.guard is not None for store in stage.stores):
        return
    for swapped in (False, True):
        for rows in kernel.space:
            for columns in kernel.space:
                factors = [_factors(product, rows, columns) for product, _ in products]
                first = (products[0][0].args[::-1] if swapped else products[0][0].args) == factors[0]
                if first and None not in factors:
                    yield Contraction(rows, columns, tuple(f for f in factors if f))


def added_products(expr: Expr) -> list[tuple[Apply, bool]] | None:
    """The products that an expression adds and subtracts, each with whether it is subtracted; None for others."""
    if not isinstance(expr, Apply) or expr.primitive not in ("mul", "add", "sub"):
        return None
    if expr.primitive == "mul":
        return [(expr, False)]
    left, right = (added_products(arg) for arg in expr.args)
    if left is None or right is None:
        return None
    negated = expr.primitive == "sub"
    return [*left, *((product, minus != negated) for product, minus in right)]


def _factors(product: Apply, rows: Axis, columns: Axis) -> tuple[Expr, Expr] | None:
    """The factor that changes along the rows alone, then the one that changes along the columns alone."""
    for left, right in (product.args, product.args[::-1]):
        separate = rows != columns and _moves(left, rows) and _moves(right, columns)
        if separate and not _moves(left, columns) and not _moves(right, rows):
            return left, right
    return None


def _moves(expr: Expr, axis: Axis) -> bool:
    """True if an expression changes along an axis."""
    if any(isinstance(e, AxisIndex) and e.axis == axis.name for e in walk(expr)):
        return True
    return any(coefficient(load.index[0], axis.name) != 0 for load in loads(expr))


def _contiguous(kernel: Kernel, c: Contraction) -> bool:
    """True if lanes along the columns load and store whole vectors."""
    factors = [coefficient(load.index[0], c.columns.name) for _, right in c.factors for load in loads(right)]
    stores = [coefficient(s.index[0], c.columns.name) for s in kernel.stages[0].stores]
    return space_lanes_possible(kernel, c.columns) and all(f in (0, 1) for f in factors) and 1 in stores


def _dot_axis(kernel: Kernel, c: Contraction) -> Axis | None:
    """The reduce axis along which both factors are contiguous, if the epilogue has code for packed tiles."""
    (left, right), *others = c.factors
    if others or not (isinstance(left, Load) and isinstance(right, Load)):
        return None
    if not rows_possible(kernel, c.columns) and clips(kernel, c.columns.name) is None:
        return None
    (stage,) = kernel.stages
    floats = all(kernel.operand(s.operand).dtype.is_float for s in stage.stores)
    if not floats or any(isinstance(load.index[0], Computed) for load in (left, right)):
        return None
    for axis in stage.reduce:
        steps = {coefficient(load.index[0], axis.name) for load in (left, right)}
        if steps == {1} and axis.extent is not None and not axis.sequential:
            return axis
    return None


# ---- what a tile is fed from ----------------------------------------------------------------------------------------


class Streams:
    """The ways in which the reduction of a dot product can be walked: in one piece, or cut along its outermost axis.

    A piece is so short that the rows and columns of a tile stay in the first-level cache, where the next tiles find
    them; the sums of a piece are added to memory.
    """

    def __init__(self, kernel: Kernel, c: Contraction, vector: Axis, host: Host, cut: bool) -> None:
        (stage,), ((left, right), *_) = kernel.stages, c.factors
        assert isinstance(left, Load) and isinstance(right, Load)
        self.host, self.cut, self.columns = host, cut, c.columns.name
        self.left, self.right = left.index[0], right.index[0]
        self.extents = {a.name: max(1, largest_extent(a, kernel.capacities)) for a in stage.reduce}
        self.extents[vector.name] = -(-self.extents[vector.name] // host.lanes)
        self.reduced = math.prod(self.extents.values())
        self.axis = next((a.name for a in stage.reduce if a != vector), None)  # which pieces are cut along
        self.masked = bool(clips(kernel, self.columns)) or is_runtime(vector)
        inner = dot_order(kernel, c)[-1]
        self.inner = next((a.name, largest_extent(a, kernel.capacities)) for a in kernel.space if a.name == inner)
        self.bytes = 4 * sum(_sizes(kernel, c))

    def options(self, rows: int, columns: int) -> Iterator[Stream]:
        """Streams for a tile of this size: the whole reduction, and pieces that fit the first-level cache."""
        far = self.bytes > self.host.second_level
        if self._vectors(rows, columns, self.extents) * self._vector_bytes <= self.host.first_level:
            yield Stream(self.reduced, self._lines(rows, columns, None), far, self.masked)
            return
        shared = self._tap(self.right, self.columns, None)
        taps = {**self.extents, shared: 1} if shared else {}
        close = shared and self._vectors(rows, columns, taps) * self._vector_bytes <= self.host.first_level
        yield Stream(self.reduced, rows + (1 + columns / 8 if close else columns), far, self.masked)
        if self.cut and self.axis is not None and self.extents[self.axis] > 1:
            size = self._piece(rows, columns)
            if size:
                far = self.bytes * size > 0.7 * self.host.second_level * self.extents[self.axis]
                steps = self.reduced / self.extents[self.axis] * size
                yield Stream(steps, self._lines(rows, columns, self.axis), far, self.masked)

    def split_of(self, stream: Stream) -> tuple[str, int] | None:
        """The axis to cut, and the points of a piece, if a stream is one of pieces."""
        if stream.steps >= self.reduced or self.axis is None:
            return None
        return self.axis, round(stream.steps / (self.reduced / self.extents[self.axis]))

    @property
    def _vector_bytes(self) -> int:
        return 4 * self.host.lanes

    def _piece(self, rows: int, columns: int) -> int:
        """The most points along the cut axis that keep a tile in the first-level cache."""
        assert self.axis is not None
        for size in range(min(16, self.extents[self.axis]), 0, -1):
            if self._vectors(rows, columns, {**self.extents, self.axis: size}) * self._vector_bytes <= (
                0.7 * self.host.first_level
            ):
                return size
        return 0

    def _vectors(self, rows: int, columns: int, extents: dict[str, int]) -> float:
        """Vectors of both operands that a tile reads in these extents."""
        steps = math.prod(extents.values())
        tap = self._tap(self.right, self.columns, None)
        wide = steps / extents[tap] * (extents[tap] + columns - 1) if tap else steps * columns
        return steps * rows + wide

    def _lines(self, rows: int, columns: int, cut: str | None) -> float:
        """Lines that a step fetches where tiles that follow each other find what they share in the cache."""
        name, extent = self.inner
        found = 0.0
        taps = self._tap(self.right, self.columns, cut) is not None
        for index, count in ((self.left, rows), (self.right, 1 if taps else columns)):
            again = coefficient(index, name) == 0 or self._tap(index, name, cut) is not None
            found += count / (extent if again else 1)
        return found

    def _tap(self, index: Index, axis: str, cut: str | None) -> str | None:
        """The reduce axis that an operand moves along just as along `axis`: a window slides; not one that is cut."""
        step = coefficient(index, axis)
        return next((a for a in self.extents if step and a != cut and coefficient(index, a) == step), None)


# ---- covering -------------------------------------------------------------------------------------------------------


def _cover(kernel: Kernel, axis: Axis, size: int, twice: bool) -> list[tuple[int, int]]:
    """(number, size) of the tiles that cover an axis."""
    extent = capacity(axis, kernel.capacities) or 1
    if extent < size and not is_runtime(axis):
        return [(1, extent)]
    if twice and extent >= size:
        return [(-(-extent // size), size)]
    rest = extent % size
    if is_runtime(axis):
        return [(extent // size, size), (rest, 1)]
    return [(extent // size, size), *([(1, rest)] if rest else [])]


def _cover_vectors(extent: int, vectors: int, lanes: int, twice: bool) -> list[tuple[int, int]]:
    size = vectors * lanes
    if extent < size:
        return [(1, -(-extent // lanes))]
    if twice:
        return [(-(-extent // size), vectors)]
    rest = extent % size
    return [(extent // size, vectors), *([(1, -(-rest // lanes))] if rest else [])]
