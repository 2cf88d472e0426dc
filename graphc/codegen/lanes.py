"""Which axes of a kernel form can have vector lanes, and what that costs."""

from __future__ import annotations

import math
from collections.abc import Mapping

from graphc.codegen.analysis import (
    all_axes,
    bound_axes,
    capacity,
    coefficient,
    depends,
    is_runtime,
    kernel_loads,
    kernel_stores,
    largest_extent,
    reads_own_element_only,
)
from graphc.ir.types import bool_, u8
from graphc.kernel import philox
from graphc.kernel.expr import Affine, Apply, AxisIndex, Expr, Index, Load, affine_of, loads, walk
from graphc.kernel.form import Axis, Kernel, Stage, Store
from graphc.kernel.scope import StageScope

LANE_COMBINERS = ("sum", "prod", "max", "min")
BROADCAST, STRIDED, GATHERED, LANE_REDUCTION, CHAIN = 0.5, 0.8, 1.0, 10.0, 4.0  # cycles; the second two for each lane
TRANSPOSED = 5.0  # cycles of loading or storing a vector, and its share of transposing the tile that it is part of
SCATTERED, ALIASED = 1.5, 6.0  # cycles for each lane in a line of its own; the same where lines compete for one place
PICKED, NEAR = 2.0, 4  # cycles of each vector that elements are picked from, for steps up to
LINE, PAGE = 16, 1024  # float32 elements of a cache line, and of what the first-level cache maps to one place
FEW_VECTORS = 16  # of a reduction with a runtime extent: up to so many are all masked
SLOW = {
    *("exp", "log", "log1p", "expm1", "tanh", "sigmoid", "softplus", "erf", "pow", "sin", "cos", "uniform"),
    *("log2", "tan", "asin", "acos", "atan", "sinh", "cosh"),
}
SLOW_CYCLES = 12.0
DRAWS = philox.WORDS * philox.POSITIONS  # float32 draws that share one evaluation of the counter-based generator


def space_lanes_possible(kernel: Kernel, axis: Axis, clipped: bool = False) -> bool:
    """True if all stages can run with lanes along an axis of the kernel's space; `clipped`: bounds may depend on it."""
    exprs = tuple(e for s in kernel.stages for e in s.expressions())
    return reads_own_element_only(kernel) and lanes_possible(kernel, axis, exprs, tuple(kernel_stores(kernel)), clipped)


def stage_lanes_possible(kernel: Kernel, stage: Stage, scope: StageScope, axis: Axis) -> bool:
    """True if one stage can run with lanes along one of its own axes."""
    if not reads_own_element_only(kernel) or not lanes_possible(kernel, axis, tuple(stage.expressions()), ()):
        return False
    if axis in stage.space:
        return all(_stores_lanes(s, axis.name) for s in stage.stores)
    dtypes = [scope.names[n] for a in stage.accumulates for n in a.names]
    return all(a.combiner in LANE_COMBINERS for a in stage.accumulates) and not {bool_, u8} & set(dtypes)


def lanes_possible(
    kernel: Kernel, axis: Axis, exprs: tuple[Expr, ...], stores: tuple[Store, ...], clipped: bool = False
) -> bool:
    """True if expressions and stores have code with lanes along an axis."""
    if axis.sequential or axis.extent is None:
        return False
    if not clipped and any(axis.name in bound_axes(a) for a in all_axes(kernel)):
        return False
    return all(_stores_lanes(s, axis.name) for s in stores) and not any(_one_key(e, axis.name) for e in exprs)


def _stores_lanes(store: Store, axis: str) -> bool:
    factor = coefficient(store.index[0], axis)
    return factor == 1 or (bool(factor) and store.mode == "=")


def _one_key(expr: Expr, axis: str) -> bool:
    """True if a random draw's key changes along the axis: the vector code draws many elements of one key."""
    draws = [e for e in walk(expr) if isinstance(e, Apply) and e.primitive == "uniform"]
    return any(depends(a, (axis,)) for e in draws for a in e.args[:4])


def starts_blocks(element: Affine, axis: str) -> bool:
    """True if the numbers of draws along an axis begin a block wherever the axis is at a multiple of `DRAWS`."""
    if element.coefficients.get(axis) != 1 or not isinstance(element.const, int) or element.const % DRAWS:
        return False
    return all(factor % DRAWS == 0 for name, factor in element.terms if name != axis)


def draws_blocks(kernel: Kernel, axis: Axis) -> bool:
    """True if tiles of `DRAWS` points along an axis draw whole blocks of random numbers."""
    exprs = [e for stage in kernel.stages for top in stage.expressions() for e in walk(top)]
    elements = [affine_of(e.args[4]) for e in exprs if isinstance(e, Apply) and e.primitive == "uniform"]
    return bool(elements) and all(e is not None and starts_blocks(e, axis.name) for e in elements)


def whole_vectors(axis: Axis, lanes: int, capacities: Mapping[str, int]) -> int | None:
    """The capacity of a short reduce axis with a runtime extent if that is whole vectors, which need no masks."""
    size = capacity(axis, capacities) or 0
    return size if is_runtime(axis) and 0 < size <= FEW_VECTORS * lanes and size % lanes == 0 else None


def rows_possible(kernel: Kernel, axis: Axis) -> bool:
    """True if register tiles can have rows along an axis: reductions use it in affine indices only."""
    if axis.sequential or axis.extent is None or any(axis.name in bound_axes(a) for a in all_axes(kernel)):
        return False
    reduced = [e for stage in kernel.stages for a in stage.accumulates for top in a.exprs for e in walk(top)]
    if any(isinstance(e, AxisIndex) and e.axis == axis.name for e in reduced):
        return False
    exprs = [e for stage in kernel.stages for e in stage.expressions()]
    return reads_own_element_only(kernel) and not any(_one_key(e, axis.name) for e in exprs) and all(
        bool(coefficient(s.index[0], axis.name)) for s in kernel_stores(kernel)
    )  # fmt: skip


def uses_index(stage: Stage, axis: str) -> bool:
    """True if results or stores use an axis as a number, or in a computed index."""
    exprs = [*(let.expr for let in stage.results), *(s.value for s in stage.stores)]
    return any(isinstance(e, AxisIndex) and e.axis == axis for top in exprs for e in walk(top))


def access_cost(index: Index, axis: str, lanes: int, stored: bool = False) -> float:
    """Cycles of loading or storing one vector along an axis."""
    return step_cost(coefficient(index, axis), lanes, stored)


def step_cost(step: int | None, lanes: int, stored: bool = False) -> float:
    """Cycles of loading or storing one vector whose elements lie `step` apart (None: irregularly)."""
    if step is None:
        return GATHERED * lanes
    if step in (0, 1):
        return (BROADCAST, 1.0)[step]
    if 1 < step <= NEAR and not stored:
        return PICKED * step
    if abs(step) < LINE:
        return STRIDED * lanes
    return (ALIASED if step % PAGE == 0 else SCATTERED) * lanes


def stage_cost(kernel: Kernel, stage: Stage, axis: Axis | None, lanes: int) -> float:
    """Estimated cycles of a stage with lanes along `axis`, or with scalars (None)."""
    around = (*kernel.space, *stage.space, *stage.reduce)
    visits = math.prod(math.ceil(largest_extent(a, kernel.capacities) / (lanes if a == axis else 1)) for a in around)
    outer = math.prod(
        math.ceil(largest_extent(a, kernel.capacities) / (lanes if a == axis else 1)) for a in around
        if a not in stage.reduce
    )  # fmt: skip
    inner = [*(let.expr for let in stage.lets), *(e for a in stage.accumulates for e in a.exprs)]
    rest = [*(let.expr for let in stage.results), *(s.value for s in stage.stores)]
    store_cost = sum(_touch(s.index[0], axis, lanes, stored=True) for s in stage.stores)
    along = stage.reduce and axis in stage.reduce
    cost = visits * sum(_cost(e, axis, lanes) for e in inner)
    cost += outer * (sum(_cost(e, None if along else axis, lanes) for e in rest) + store_cost)
    if along:
        cost += outer * LANE_REDUCTION * len(stage.accumulates)
    elif stage.reduce:
        cost += visits * CHAIN * len(stage.accumulates) * (1.0 if axis is None else 0.25)
    return cost


def _touch(index: Index, axis: Axis | None, lanes: int, stored: bool = False) -> float:
    return 1.0 if axis is None else access_cost(index, axis.name, lanes, stored)


def _cost(expr: Expr, axis: Axis | None, lanes: int) -> float:
    work = [e.primitive for e in walk(expr) if isinstance(e, Apply)]
    total = sum(SLOW_CYCLES if p in SLOW else 0.5 for p in work)
    return total + sum(_touch(load.index[0], axis, lanes) for load in loads(expr))


def is_heavy(kernel: Kernel) -> bool:
    """True if a kernel computes long expressions, of which few vectors fit the registers at once."""
    exprs = {e for stage in kernel.stages for top in stage.expressions() for e in walk(top)}
    return sum(isinstance(e, Apply) and e.primitive in SLOW for e in exprs) + sum(
        isinstance(e, Load) for e in exprs) // 4 > 1  # fmt: skip


# ---- square tiles ---------------------------------------------------------------------------------------------------


def contiguous_along(kernel: Kernel, axis: str) -> bool:
    """True if an operand of a flat kernel is contiguous along an axis."""
    indices = [load.index[0] for load in kernel_loads(kernel)] + [s.index[0] for s in kernel_stores(kernel)]
    return any(coefficient(i, axis) == 1 for i in indices)


def transposed_cost(kernel: Kernel, row: Axis, lane: Axis, lanes: int) -> float | None:
    """Cycles of a flat map in square tiles; None if there is no code for that, or nothing to transpose."""
    if len(kernel.stages) != 1 or not (space_lanes_possible(kernel, lane) and space_lanes_possible(kernel, row)):
        return None
    (stage,) = kernel.stages
    if stage.space or stage.reduce or uses_index(stage, row.name) or any(o.dtype.itemsize > 4 for o in kernel.operands):
        return None
    stores = [(s.index[0], s.mode, s.guard) for s in stage.stores]
    if any(mode != "=" or guard is not None for _, mode, guard in stores):
        return None
    indices = [load.index[0] for load in kernel_loads(kernel)] + [index for index, _, _ in stores]
    steps = [(coefficient(i, row.name), coefficient(i, lane.name)) for i in indices]
    across = [s for s in steps if s[0] == 1 and s[1] not in (0, 1, None)]
    usual = [s for s in steps if s == (0, 0) or (s[1] == 1 and s[0] != 1 and s[0] is not None)]
    if not across or len(across) + len(usual) != len(steps):
        return None
    work = [e.primitive for top in stage.expressions() for e in walk(top) if isinstance(e, Apply)]
    cost = sum(SLOW_CYCLES if p in SLOW else 0.5 for p in work) + TRANSPOSED * len(across) + len(usual)
    extents = {a.name: largest_extent(a, kernel.capacities) for a in kernel.space}
    whole = {row.name: -(-extents[row.name] // lanes) * lanes, lane.name: -(-extents[lane.name] // lanes)}
    return cost * math.prod((extents | whole).values())
