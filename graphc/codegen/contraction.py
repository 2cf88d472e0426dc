"""Recognising contractions in kernel forms, and choosing their schedules.

A contraction is a kernel with one stage that sums products of two factors, one of which does not change along the
columns and the other not along the rows; it may add and subtract several products at each point. `outer` has its
vector lanes along the columns: a column of one factor times a row of the other. `dot` has them along a reduce axis,
along which both factors are contiguous; its columns may be the taps of a window, whose bounds depend on them.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

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
from graphc.codegen.lanes import rows_possible, space_lanes_possible, uses_index, whole_vectors
from graphc.codegen.tiles import (
    CROSSING,
    FAR_PANEL,
    NEAR_PANEL,
    Choice,
    Feed,
    Stream,
    dot_tiles,
    outer_tiles,
    unknown_memory,
)
from graphc.codegen.traffic import (
    LINE_BYTES,
    Side,
    Traffic,
    aligned,
    axis_points,
    moved_by,
    reduced_points,
    slides,
)
from graphc.ir.dims import evaluate
from graphc.kernel.expr import Affine, Apply, AxisIndex, Computed, Expr, Index, Load, loads, walk
from graphc.kernel.form import Axis, Kernel
from graphc.kernel.schedule import Schedule
from graphc.kernel.scope import stage_scopes

SHORTEST_REDUCTION = 4
ROWS_ONE_BY_ONE = 4
PIECE = "piece"  # the loop over pieces of a reduction
MASKS = 1.2  # cycles of a step of an outer product that masks its columns, and of each of its vectors


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
    found = (cheapest(way) for way in ways(kernel, host, cut=cut))
    return min(found, key=lambda plan: round(plan.cost, 3), default=None)


def cheapest(way: Outer | Dot) -> Plan:
    """A way of running a contraction with its cheapest tile."""
    return way.plan(min(way.tiles(), key=lambda choice: choice.rank), way.order())


def ways(kernel: Kernel, host: Host, *, cut: bool) -> Iterator[Outer | Dot]:
    """Every way of running a flat kernel as a contraction, but for tiles and orders."""
    for c in contractions(kernel):
        if _contiguous(kernel, c):
            yield Outer(kernel, c, host)
        axis = next((a for a in kernel.stages[0].reduce if _steps_by_one(c, a)), None)
        if axis is not None and dot_possible(kernel, c, axis):
            yield Dot(kernel, c, axis, host, cut=cut)


class Outer:
    """A contraction with lanes along the columns, which the factors must be contiguous along.

    placed: operands lie as the kernel says; otherwise their layouts are still to be chosen, and nothing is known of
    what they fetch from where.
    """

    def __init__(self, kernel: Kernel, c: Contraction, host: Host, *, placed: bool = True) -> None:
        self.kernel, self.contraction, self.host = kernel, c, host
        (stage,) = kernel.stages
        results = (*(let.expr for let in stage.results), *(store.value for store in stage.stores))
        moving = {load.operand for e in results for load in loads(e) if _depends(load, c.rows.name)}
        self.feed = Feed(
            reduced_points(kernel, c.columns.name) * len(c.factors),
            len(c.factors),
            len(moving) + len(stage.stores),
            Panels(kernel, c, self.order(), host).cycles if placed else unknown_memory,
            MASKS if clips(kernel, c.columns.name) else 0.0,
        )

    def tiles(self) -> Iterator[Choice]:
        """The tiles to choose from, with the cycles of all rows and columns."""
        kernel, c, lanes = self.kernel, self.contraction, self.host.lanes
        extent, twice = capacity(c.columns, kernel.capacities) or 1, is_idempotent(kernel)
        # What needs the index of the row is written once for each row.
        most = ROWS_ONE_BY_ONE if uses_index(kernel.stages[0], c.rows.name) else 24
        return outer_tiles(
            lambda size: _cover(kernel, c.rows, size, twice),
            lambda size: _cover_vectors(extent, size, lanes, twice),
            (min(most, capacity(c.rows, kernel.capacities) or 1), min(8, max(1, -(-extent // lanes)))),
            _registers(kernel, self.host),
            self.feed,
        )

    def order(self) -> tuple[str, ...]:
        """The loops around a tile, as the chooser has them."""
        return _outer_order(self.kernel, self.contraction)

    def plan(self, choice: Choice, order: tuple[str, ...]) -> Plan:
        """This way with a tile, and with loops around it."""
        c = self.contraction
        tile = ((c.rows.name, choice.rows), (c.columns.name, choice.columns * self.host.lanes))
        cost = choice.cost * _outside(self.kernel, c)
        return Plan(cost, Schedule("outer", c.columns.name, tile, order), c)


class Dot:
    """A contraction with lanes along a reduce axis, which both factors must be contiguous along."""

    def __init__(self, kernel: Kernel, c: Contraction, axis: Axis, host: Host, *, cut: bool) -> None:
        self.kernel, self.contraction, self.axis, self.host = kernel, c, axis, host
        self.streams = Streams(kernel, c, axis, host, cut)

    def tiles(self) -> Iterator[Choice]:
        """The tiles to choose from, with the cycles of all rows and columns."""
        kernel, c, twice = self.kernel, self.contraction, is_idempotent(self.kernel)
        return dot_tiles(
            lambda size: _cover(kernel, c.rows, size, twice),
            lambda size: _cover(kernel, c.columns, size, twice),
            (capacity(c.rows, kernel.capacities) or 1, capacity(c.columns, kernel.capacities) or 1),
            _registers(kernel, self.host),
            self.streams.options,
        )

    def order(self) -> tuple[str, ...]:
        """The loops around a tile, as the chooser has them."""
        return dot_order(self.kernel, self.contraction)

    def plan(self, choice: Choice, order: tuple[str, ...]) -> Plan:
        """This way with a tile and a stream of operands, and with loops around it."""
        c, axis, streams, stream = self.contraction, self.axis.name, self.streams, choice.stream
        assert stream is not None
        tile = ((c.rows.name, choice.rows), (c.columns.name, choice.columns), (axis, self.host.lanes))
        cost = choice.cost * _outside(self.kernel, c)
        return Plan(cost, Schedule("dot", axis, tile, order), c, streams.split_of(stream))


def _registers(kernel: Kernel, host: Host) -> int:
    """Registers for tiles: 64-bit ones take two hardware vectors each."""
    return host.registers // 2 if any(o.dtype.itemsize == 8 for o in kernel.operands) else host.registers


def _outer_order(kernel: Kernel, c: Contraction) -> tuple[str, ...]:
    """Loops around a tile: along an axis that moves the columns alone, its factors of the rows stay in the cache."""
    others = [a.name for a in kernel.space if a not in (c.rows, c.columns)]
    ((left, _), *_) = c.factors
    still = [name for name in others if not _depends(left, name)]
    inner = still[-1:] if len(others) > 1 else []
    pair = (c.columns.name, c.rows.name)
    factors = {load.operand for f in c.factors for side in f for load in loads(side)}
    sizes = {o.name: evaluate(o.shape[0], {}) for o in kernel.operands}
    if sum(size for name, size in sizes.items() if name not in factors) > 2 * sum(sizes[name] for name in factors):
        pair = pair[::-1]  # an update of long rows: memory is walked in order
    return (*(name for name in others if name not in inner), *pair, *inner)


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


def _depends(expr: Expr, axis: str) -> bool:
    return any(index_depends(load.index[0], (axis,)) for load in loads(expr))


def contractions(kernel: Kernel) -> Iterator[Contraction]:
    """Every way of seeing a flat kernel as a contraction."""
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
    moving = {id(f): _moving(f, kernel) for product, _ in products for f in product.args}
    for swapped in (False, True):
        for rows in kernel.space:
            for columns in kernel.space:
                factors = [_factors(product, rows.name, columns.name, moving) for product, _ in products]
                first = (products[0][0].args[::-1] if swapped else products[0][0].args) == factors[0]
                if first and None not in factors and rows_possible(kernel, rows):
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


def _factors(product: Apply, rows: str, columns: str, moving: Mapping[int, set[str]]) -> tuple[Expr, Expr] | None:
    """The factor that changes along the rows alone, then the one that changes along the columns alone."""
    for left, right in (product.args, product.args[::-1]):
        across, along = moving[id(left)], moving[id(right)]
        if rows in across and columns in along and columns not in across and rows not in along:
            return left, right
    return None


def _moving(expr: Expr, kernel: Kernel) -> set[str]:
    """The axes of the kernel's space along which an expression changes."""
    used = {e.axis for e in walk(expr) if isinstance(e, AxisIndex)}
    indices = [load.index[0] for load in loads(expr)]
    return used | {a.name for a in kernel.space if any(coefficient(i, a.name) != 0 for i in indices)}


def _contiguous(kernel: Kernel, c: Contraction) -> bool:
    """True if lanes along the columns load and store whole vectors."""
    factors = [coefficient(load.index[0], c.columns.name) for _, right in c.factors for load in loads(right)]
    stores = [coefficient(s.index[0], c.columns.name) for s in kernel.stages[0].stores]
    return columns_possible(kernel, c) and all(f in (0, 1) for f in factors) and 1 in stores


def columns_possible(kernel: Kernel, c: Contraction) -> bool:
    """True if there is code for lanes along the columns, given contiguous factors.

    Where windows stick out, bounds of the reduction depend on the columns: lanes that have no such point read zeros.
    """
    if space_lanes_possible(kernel, c.columns):
        return True
    plain = all(isinstance(right, Load) and isinstance(right.index[0], Affine) for _, right in c.factors)
    return plain and bool(clips(kernel, c.columns.name)) and space_lanes_possible(kernel, c.columns, clipped=True)


def _steps_by_one(c: Contraction, axis: Axis) -> bool:
    """True if both factors are contiguous along an axis."""
    return {coefficient(load.index[0], axis.name) for f in c.factors[0] for load in loads(f)} == {1}


def dot_possible(kernel: Kernel, c: Contraction, axis: Axis) -> bool:
    """True if there is code for lanes along a reduce axis, given contiguous factors, and for what is done with sums."""
    (left, right), *others = c.factors
    if others or not (isinstance(left, Load) and isinstance(right, Load)):
        return False
    if not rows_possible(kernel, c.columns) and clips(kernel, c.columns.name) is None:
        return False
    floats = all(kernel.operand(s.operand).dtype.is_float for s in kernel.stages[0].stores)
    if not floats or any(isinstance(load.index[0], Computed) for load in (left, right)):
        return False
    return axis.extent is not None and not axis.sequential


# ---- what a tile is fed from ----------------------------------------------------------------------------------------


class Panels:
    """The vectors of both factors that the tiles of an outer product stream past, and from which cache they come.

    A panel is what a tile reads of a factor along the whole reduction. Nothing is known of windows, whose neighbours
    read the same lines: they count as if they were in the first-level cache.
    """

    def __init__(self, kernel: Kernel, c: Contraction, order: tuple[str, ...], host: Host) -> None:
        (stage,), ((left, right), *_) = kernel.stages, c.factors
        self.traffic: Traffic | None = None
        if not (isinstance(left, Load) and isinstance(right, Load) and stage.reduce) or any(
            slides(kernel, f.index[0]) for f in (left, right)
        ):
            return
        along = stage.reduce[-1].name
        indices = (left.index[0], right.index[0])
        steps = [coefficient(i, name) for i, name in zip(indices, (c.rows.name, c.columns.name), strict=True)]
        strides = [coefficient(i, along) for i in indices]
        if steps[0] is None or steps[1] != 1 or None in strides:
            return
        self.steps = math.prod(max(1, largest_extent(a, kernel.capacities)) for a in stage.reduce)
        self.step, self.strides, self.lanes = abs(steps[0]), [abs(s or 0) for s in strides], host.lanes
        loops = [(name, axis_points(kernel, name)) for name in reversed(order)]
        sides = [Side(moved_by(kernel, i), s) for i, s in zip(indices, self.strides, strict=True)]
        self.traffic = Traffic(loops, {c.rows.name: 1, c.columns.name: host.lanes}, sides, host)

    def cycles(self, rows: int, vectors: int) -> float:
        """Cycles of fetching what one step reads and the first-level cache does not have."""
        if self.traffic is None:
            return 0.0
        left = rows * min(1.0, self.strides[0] / self.lanes)
        if self.step < self.lanes <= self.strides[0]:
            left = 1 + (rows - 1) * self.step / self.lanes
        near, far = self.traffic.fetched((rows, vectors), (left * self.steps, vectors * self.steps))
        lines = 4 * self.lanes / LINE_BYTES  # of a vector
        return lines * (near * NEAR_PANEL + far * (FAR_PANEL - NEAR_PANEL)) / self.steps


class Streams:
    """The ways in which the reduction of a dot product can be walked: in one piece, or cut along its outermost axis.

    A piece is so short that the rows and columns of a tile stay in the first-level cache, where the next tiles find
    them; the sums of a piece are added to memory.
    """

    def __init__(self, kernel: Kernel, c: Contraction, vector: Axis, host: Host, cut: bool) -> None:
        (stage,), ((left, right), *_) = kernel.stages, c.factors
        assert isinstance(left, Load) and isinstance(right, Load)
        self.kernel, self.contraction, self.host = kernel, c, host
        self.extents = {a.name: max(1, largest_extent(a, kernel.capacities)) for a in stage.reduce}
        self.extents[vector.name] = -(-self.extents[vector.name] // host.lanes)
        self.reduced = math.prod(self.extents.values())
        axis = next((a.name for a in stage.reduce if a != vector), None)
        self.axis = axis if cut and axis is not None and self.extents[axis] > 1 else None  # pieces are cut along it
        clipped = bool(clips(kernel, c.columns.name))
        whole = whole_vectors(vector, host.lanes, kernel.capacities) is not None
        scattered = any(coefficient(s.index[0], c.columns.name) != 1 for s in stage.stores)
        self.edges = (clipped or (is_runtime(vector) and not whole), clipped, scattered)
        self.indices = (left.index[0], right.index[0])
        first, second = (aligned(kernel, index, vector.name, host.lanes) for index in self.indices)
        self.loads = (1.0 if first else CROSSING, 1.0 if second else CROSSING)
        self.taps = self._taps(right.index[0], c.columns.name)

    def options(self, rows: int, columns: int) -> Iterator[Stream]:
        """Streams for a tile of this size: the whole reduction, and pieces that fit the first-level cache."""
        first = self.host.first_level / (4 * self.host.lanes)
        whole = self._stream(rows, columns, self.extents, None)
        if sum(self._vectors(rows, columns, self.extents)) <= first:
            yield whole
            return
        if any(sum(self._vectors(rows, columns, {**self.extents, tap: 1})) <= first for tap in self.taps[:1]):
            lines = min(whole.lines, rows + 1)  # a window fetches what is new to it
            whole = replace(whole, lines=lines, far=min(whole.far, lines))
        yield whole
        if self.axis is not None:
            one = sum(self._vectors(rows, columns, {**self.extents, self.axis: 1}))
            size = min(16, self.extents[self.axis], int(0.7 * first / one))
            if size >= 1:
                yield self._stream(rows, columns, {**self.extents, self.axis: size}, size)

    def split_of(self, stream: Stream) -> tuple[str, int] | None:
        """The axis to cut, and the points of a piece, if a stream is one of pieces."""
        if stream.steps >= self.reduced or self.axis is None:
            return None
        return self.axis, round(stream.steps / (self.reduced / self.extents[self.axis]))

    def _stream(self, rows: int, columns: int, extents: Mapping[str, int], piece: int | None) -> Stream:
        """The stream of a tile that sums up over these extents; `piece`: they are pieces of so many points."""
        steps, vectors = math.prod(extents.values()), self._vectors(rows, columns, extents)
        near, far = min(traffic.fetched((rows, columns), vectors) for traffic in self._traffic(piece))
        lines = 4 * self.host.lanes / LINE_BYTES / steps  # of a vector, in each step
        return Stream(steps, near * lines, far * lines, *self.edges, self.reduced / steps, self.loads)

    @functools.cache  # noqa: B019 - a stream lives as long as the choice of one schedule
    def _traffic(self, piece: int | None) -> list[Traffic]:
        """What tiles fetch; of pieces, which are walked inside the rows or around them (see `split`), both."""
        kernel, c = self.kernel, self.contraction
        loops = [(name, axis_points(kernel, name)) for name in reversed(dot_order(kernel, c))]
        moved = [moved_by(kernel, i) - self._slid(i, piece) for i in self.indices]
        orders = [loops]
        if piece is not None and self.axis is not None:
            others = [loop for loop in loops if loop[0] not in (c.rows.name, c.columns.name)]
            rows, columns = ((a.name, axis_points(kernel, a.name)) for a in (c.rows, c.columns))
            pieces = (PIECE, -(-self.extents[self.axis] // piece))
            orders = [[*others[:1], columns, *others[1:], *pair] for pair in ((pieces, rows), (rows, pieces))]
            moved = [m | {PIECE} for m in moved]
        sides = [Side(frozenset(m)) for m in moved]
        return [Traffic(order, {c.rows.name: 1, c.columns.name: 1}, sides, self.host) for order in orders]

    def _vectors(self, rows: int, columns: int, extents: Mapping[str, int]) -> tuple[float, float]:
        """Vectors of the two operands that a tile reads in these extents."""
        steps = math.prod(extents.values())
        wide = steps / extents[self.taps[0]] * (extents[self.taps[0]] + columns - 1) if self.taps else steps * columns
        return steps * rows, wide

    def _slid(self, index: Index, piece: int | None) -> set[str]:
        """Axes of the space along which an operand's window slides, so that most of it is read again."""
        cut = self.axis if piece is not None else None
        return {a.name for a in self.kernel.space if any(tap != cut for tap in self._taps(index, a.name))}

    def _taps(self, index: Index, axis: str) -> list[str]:
        """The reduce axes that an operand moves along just as along `axis`: there a window slides."""
        step = coefficient(index, axis)
        return [a for a in self.extents if step and coefficient(index, a) == step]


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
