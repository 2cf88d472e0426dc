"""Recognising contractions in kernel forms, and choosing their register tiles.

A contraction is a kernel with one stage that sums products of two factors, one of which does not change along the
columns and the other not along the rows; it may add and subtract several products at each point. `outer` has its
vector lanes along the columns: a column of one factor times a row of the other. `dot` has them along a reduce axis,
along which both factors are contiguous.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from dataclasses import dataclass

from graphc.codegen.analysis import capacity, coefficient, is_idempotent, is_runtime
from graphc.codegen.host import Host
from graphc.codegen.lanes import rows_possible, space_lanes_possible, uses_index
from graphc.kernel.expr import Apply, AxisIndex, Computed, Expr, Load, loads, walk
from graphc.kernel.form import Axis, Kernel
from graphc.kernel.schedule import Schedule
from graphc.kernel.scope import stage_scopes

SHORTEST_REDUCTION = 4
ROWS_ONE_BY_ONE = 4
ROW_REUSE = {1: 0.48, 2: 0.9, 3: 0.97}  # share of the peak when a loaded row is used so often; measured


@dataclass(frozen=True)
class Contraction:
    """rows and columns are axes of the kernel's space; of each product's factors the first does not change along the
    columns, the second not along the rows."""

    rows: Axis
    columns: Axis
    factors: tuple[tuple[Expr, Expr], ...]


def contraction_schedule(kernel: Kernel, host: Host) -> Schedule | None:
    """The schedule of a flat kernel that is a contraction, else None. Without its parallel axis."""
    found = list(_contractions(kernel))
    lanes, registers = host.lanes, host.registers
    if any(d.itemsize == 8 for d in {o.dtype for o in kernel.operands}):
        registers //= 2  # 64-bit tiles take two hardware vectors each
    for c in found:
        if _contiguous(kernel, c):
            rows, vectors = outer_tile(kernel, c, lanes, registers)
            order = tuple(a.name for a in kernel.space if a not in (c.rows, c.columns)) + (c.columns.name, c.rows.name)
            outer = ((c.rows.name, rows), (c.columns.name, vectors * lanes))
            return Schedule("outer", c.columns.name, outer, order)
    for c in found:
        axis = _dot_axis(kernel, c)
        if axis is not None:
            rows, columns = dot_tile(kernel, c, registers)
            order = tuple(a.name for a in kernel.space if a not in (c.rows, c.columns)) + (c.columns.name, c.rows.name)
            dot = ((c.rows.name, rows), (c.columns.name, columns), (axis.name, lanes))
            return Schedule("dot", axis.name, dot, order)
    return None


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
    if others or not (isinstance(left, Load) and isinstance(right, Load) and rows_possible(kernel, c.columns)):
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


# ---- register tiles -------------------------------------------------------------------------------------------------


def outer_tile(kernel: Kernel, c: Contraction, lanes: int, registers: int) -> tuple[int, int]:
    """Rows and vectors of the register tile that covers the extents with the least waste at the best speed."""
    extent, twice = capacity(c.columns, kernel.capacities) or 1, is_idempotent(kernel)
    # What needs the index of the row is written once for each row.
    most = ROWS_ONE_BY_ONE if uses_index(kernel.stages[0], c.rows.name) else 24

    def cost(rows: int, vectors: int) -> float:
        return sum(
            n * m * r * v / _outer_speed(r, v, len(c.factors))
            for n, r in _cover(kernel, c.rows, rows, twice)
            for m, v in _cover_vectors(extent, vectors, lanes, twice)
        )

    sizes = itertools.product(range(1, most + 1), range(1, 9))
    fitting = [(r, v) for r, v in sizes if r * v <= registers * 3 // 4 and r * v + v + 2 <= registers]
    return min(fitting, key=lambda t: (round(cost(*t), 6), abs(t[0] * t[1] - 16), abs(t[1] - 4), t[0]))


def _outer_speed(rows: int, vectors: int, products: int = 1) -> float:
    """Share of the peak: eight independent sums hide the latency of the multiply-adds.

    The columns of several products compete for the first-level cache, so they want more rows to each (measured).
    """
    crowded = 1.0 if products == 1 else min(1.0, 0.5 + rows / 16)
    return crowded * min(1.0, rows * vectors / 8) * ROW_REUSE.get(rows, 1.0 if vectors > 1 or rows >= 12 else 0.99)


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


def dot_tile(kernel: Kernel, c: Contraction, registers: int) -> tuple[int, int]:
    """Rows and columns of the tile of sums: 4 x 4 or 2 x 8 unless the extents fit another better."""
    twice = is_idempotent(kernel)

    def cost(rows: int, columns: int) -> float:
        return sum(
            n * m * r * v / _dot_speed(r, v)
            for n, r in _cover(kernel, c.rows, rows, twice)
            for m, v in _cover(kernel, c.columns, columns, twice)
        )

    sizes = itertools.product(range(1, 9), range(1, 9))
    fitting = [(r, v) for r, v in sizes if r * v <= registers * 3 // 4 and r * v + r + v <= registers]
    return min(fitting, key=lambda t: (round(cost(*t), 6), abs(t[0] * t[1] - 16), abs(t[0] - 4), t[1]))


def _dot_speed(rows: int, columns: int) -> float:
    """Share of the peak; each step loads rows + columns vectors for rows x columns multiply-adds (measured)."""
    fed = rows * columns / (rows + columns)
    packed = 1.0 if columns & (columns - 1) == 0 else 0.99
    return min(0.87 * fed, 0.97 if fed >= 1.5 else 0.93) * packed
