"""How a kernel form runs on a GPU: blocks, threads, and the tile of a contraction.

    map        a thread for each point of the grid axes, which it strides over; whatever else is left is its own loop
    reduce     a block for each point of the kernel's space; its threads share out reductions, and add up together
    contract   a block for each rows x columns tile of a contraction, whose factors come through shared memory; each
               thread has rows x columns / threads of the sums in registers
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from graphc.codegen.analysis import collapse, flatten, largest_extent, with_unique_axes
from graphc.codegen.cuda.products import Product, find_product
from graphc.errors import CompileError
from graphc.ir.dims import evaluate, product
from graphc.kernel.expr import Apply, walk
from graphc.kernel.form import Axis, Kernel

KINDS = ("map", "reduce", "contract")
THREADS = 256
SHORTEST_REDUCTION = 64  # elements, for which a block is better than a thread
MOST_BLOCKS = 65535  # of a grid's second and third dimension; the first has more, but threads stride anyway
# Without code: they would need a second kernel, or functions that CUDA's Python has not.
MISSING = {"floor", "ceil", "round", "uniform", "fma"}


@dataclass(frozen=True)
class GridSchedule:
    """A GPU schedule.

    kind: one of KINDS. threads: of a block, in x and y (y is 1 but for `contract`). tile, depth, of `contract` only:
    rows and columns of a block's tile, and how much of the reduction is in shared memory at a time.
    """

    kind: str = "map"
    threads: tuple[int, int] = (THREADS, 1)
    tile: tuple[int, int] = (0, 0)
    depth: int = 0

    def __str__(self) -> str:
        x, y = self.threads
        text = f"{self.kind}; block {x} x {y}" if y > 1 else f"{self.kind}; block {x}"
        return f"{text}; tile {self.tile[0]} x {self.tile[1]}; depth {self.depth}" if self.depth else text


def choose(kernel: Kernel) -> GridSchedule:
    """The schedule of a verified kernel form. Raises CompileError for a form that has no CUDA code yet."""
    check(kernel)
    flat = schedulable(kernel)
    if find_product(flat) is not None:
        return GridSchedule("contract", (16, 16), (64, 64), 16)
    longest = max((_reduced(kernel, stage.reduce) for stage in flat.stages if not stage.space), default=1)
    return GridSchedule("reduce" if longest >= SHORTEST_REDUCTION else "map")


def check(kernel: Kernel) -> None:
    """Raise CompileError, with the reason, for a form that has no CUDA code yet."""
    for operand in kernel.operands:
        if operand.init is not None:
            raise CompileError(_no_code(kernel, f"{operand.name!r} is filled before the kernel runs"))
    for stage in kernel.stages:
        if any(store.partials for store in stage.stores):
            raise CompileError(_no_code(kernel, "a store goes through partial buffers"))
        for expr in {e for top in stage.expressions() for e in walk(top)}:
            if isinstance(expr, Apply) and expr.primitive in MISSING:
                raise CompileError(_no_code(kernel, f"it computes {expr.primitive!r}"))


def _no_code(kernel: Kernel, reason: str) -> str:
    return f"kernel {kernel.name!r} has no CUDA code yet: {reason}"


def schedulable(kernel: Kernel) -> Kernel:
    """The form that schedules are about: flat operands, dense neighbouring axes merged."""
    return collapse(flatten(with_unique_axes(kernel)))


def _reduced(kernel: Kernel, axes: tuple[Axis, ...]) -> int:
    return math.prod(largest_extent(axis, kernel.capacities) for axis in axes)


def grid_axes(kernel: Kernel) -> tuple[Axis, ...]:
    """The axes of a schedulable kernel's space that are shared out: those that run from 0, in any order."""
    return tuple(axis for axis in kernel.space if axis.extent is not None and not axis.sequential)


def other_axes(kernel: Kernel, found: Product) -> tuple[Axis, ...]:
    """The axes of the space beside a contraction's rows and columns."""
    return tuple(axis for axis in grid_axes(kernel) if axis not in (found.rows, found.columns))


Extents = tuple[int, int, int]


def launch(kernel: Kernel, schedule: GridSchedule, counts: Mapping[str, int]) -> tuple[Extents, Extents]:
    """Blocks of the grid and threads of a block, both in x, y and z, for these runtime counts."""
    flat, (x, y) = schedulable(kernel), schedule.threads
    sizes = {axis.name: evaluate(axis.extent, counts) for axis in grid_axes(flat) if axis.extent is not None}
    blocks = (_blocks(evaluate(product(sizes.values()), counts), x if schedule.kind == "map" else 1), 1, 1)
    if schedule.kind == "contract":
        found = find_product(flat)
        if found is None:
            raise CompileError(f"kernel {kernel.name!r} is no contraction; schedule it otherwise")
        others = math.prod(sizes[axis.name] for axis in other_axes(flat, found))
        across = _blocks(sizes[found.columns.name], schedule.tile[1])
        blocks = (across, _blocks(sizes[found.rows.name], schedule.tile[0]), _blocks(others, 1))
    return blocks, (x, y, 1)


def _blocks(points: int, each: int) -> int:
    return max(1, min(-(-points // each), MOST_BLOCKS))
