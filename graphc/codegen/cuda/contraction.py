"""Kernel source for contractions: a block computes a tile of rows x columns, both factors come through shared memory.

The threads of a block fill two shared tiles, depth x rows and depth x columns, and each adds the products for its own
part of the sums, which it holds in registers: rows and columns that lie a block's width apart, so that neighbouring
threads read and write neighbouring elements.
"""

from __future__ import annotations

from contextlib import ExitStack

from graphc.codegen.analysis import coefficient
from graphc.codegen.cpu.values import Context, Value
from graphc.codegen.cuda.expressions import NUMBA, Scope, number
from graphc.codegen.cuda.nest import Points
from graphc.codegen.cuda.products import find_product
from graphc.codegen.cuda.schedule import GridSchedule, other_axes
from graphc.errors import CompileError
from graphc.ir.dims import product
from graphc.kernel.expr import Expr, loads
from graphc.kernel.form import Axis, Kernel


class Tiles(Points):
    """Writes the body of a contraction."""

    def __init__(self, kernel: Kernel, context: Context, schedule: GridSchedule) -> None:
        super().__init__(kernel, context)
        found = find_product(kernel)
        if found is None:
            raise CompileError(f"kernel {kernel.name!r} is no contraction; schedule it otherwise")
        (width, height), (rows, columns) = schedule.threads, schedule.tile
        if rows % height or columns % width or not schedule.depth:
            raise CompileError(f"a block of {width} x {height} threads cannot share out {schedule}")
        self.found = found
        self.schedule = schedule
        (stage,), (scope,) = kernel.stages, self.scopes
        self.stage = stage
        (self.sum,) = stage.accumulates[0].names
        self.dtype = scope.names[self.sum]
        name = context.names.fresh
        self.left, self.right, self.sums = name("left"), name("right"), name("sums")
        self.column, self.row, self.thread = name("column"), name("row"), name("worker")
        self.i, self.j, self.step = name("i"), name("j"), name("step")

    def write(self) -> None:
        """The loop over tiles with everything in it."""
        line, found = self.source.line, self.found
        (width, height), (rows, columns), depth = self.schedule.threads, self.schedule.tile, self.schedule.depth
        line(f"{self.left} = cuda.shared.array({depth * rows}, {NUMBA[self.dtype]})")
        line(f"{self.right} = cuda.shared.array({depth * columns}, {NUMBA[self.dtype]})")
        line(f"{self.sums} = cuda.local.array({rows // height * (columns // width)}, {NUMBA[self.dtype]})")
        line(f"{self.column} = cuda.threadIdx.x")
        line(f"{self.row} = cuda.threadIdx.y")
        line(f"{self.thread} = {self.row} * {width} + {self.column}")
        others = other_axes(self.kernel, found)
        first_row, first_column = self._first(found.rows), self._first(found.columns)
        with ExitStack() as loops:
            if others:
                loops.enter_context(self.shared_loop(others, "cuda.blockIdx.z", "cuda.gridDim.z"))
            for axis, first, block, size in (
                (found.rows, first_row, "y", rows),
                (found.columns, first_column, "x", columns),
            ):
                assert axis.extent is not None
                stop, step = self.context.dim(axis.extent), f"cuda.gridDim.{block} * {size}"
                span = f"cuda.blockIdx.{block} * {size}, {stop}, {step}"
                loops.enter_context(self.source.block(f"for {first} in range({span}):"))
            with self.source.block(f"for {self.i} in range({rows // height * (columns // width)}):"):
                line(f"{self.sums}[{self.i}] = {number(0.0, self.dtype)}")
            with self.plain_loops(found.around):
                self._reduction(first_row, first_column)
            self._epilogue(first_row, first_column)

    def _first(self, axis: Axis) -> str:
        return self.context.names.fresh(f"first_{axis.name}")

    def _reduction(self, first_row: str, first_column: str) -> None:
        """Depth by depth: fill the shared tiles, then add their products."""
        line, found = self.source.line, self.found
        (width, height), (rows, columns), depth = self.schedule.threads, self.schedule.tile, self.schedule.depth
        total = self.context.dim(product(axis.extent for axis in found.shared if axis.extent is not None))
        start = self.context.names.fresh("start")
        with self.source.block(f"for {start} in range(0, {total}, {depth}):"):
            self._fill(self.left, found.left, found.rows, first_row, rows, start, total)
            self._fill(self.right, found.right, found.columns, first_column, columns, start, total)
            line("cuda.syncthreads()")
            across, down = columns // width, rows // height
            with self.source.block(f"for {self.step} in range({depth}):"):
                with self.source.block(f"for {self.i} in range({down}):"):
                    factor = self.context.names.fresh("factor")
                    line(f"{factor} = {self.left}[{self.step} * {rows} + {self.row} + {self.i} * {height}]")
                    with self.source.block(f"for {self.j} in range({across}):"):
                        other = f"{self.right}[{self.step} * {columns} + {self.column} + {self.j} * {width}]"
                        line(f"{self.sums}[{self.i} * {across} + {self.j}] += {factor} * {other}")
            line("cuda.syncthreads()")  # before the tiles are filled again

    def _fill(self, tile: str, factor: Expr, axis: Axis, first: str, size: int, start: str, total: str) -> None:
        """Fill a shared tile, zeros beyond the extents; neighbouring threads take what lies side by side."""
        depth, line, fresh = self.schedule.depth, self.source.line, self.context.names.fresh
        assert axis.extent is not None
        cell, threads = fresh("cell"), self.schedule.threads[0] * self.schedule.threads[1]
        inner = self.found.shared[-1].name
        point = self.context.axis(inner) if len(self.found.shared) == 1 else fresh("point")
        along_sum = any(coefficient(load.index[0], inner) == 1 for load in loads(factor))
        with self.source.block(f"for {cell} in range({self.thread}, {depth * size}, {threads}):"):
            across, down = (f"{cell} // {depth}", f"{cell} % {depth}") if along_sum else (
                f"{cell} % {size}", f"{cell} // {size}")  # fmt: skip
            line(f"{self.context.axis(axis.name)} = {first} + {across}")
            line(f"{point} = {start} + {down}")
            place = f"{tile}[{down} * {size} + {across}]" if along_sum else f"{tile}[{cell}]"
            stop = self.context.dim(axis.extent)
            with self.source.block(f"if {self.context.axis(axis.name)} < {stop} and {point} < {total}:"):
                self.split(point, self.found.shared)
                self.count(self.stage)
                line(f"{place} = {Scope(self.context).value(factor).text}")
            with self.source.block("else:"):
                line(f"{place} = {number(0.0, self.dtype)}")

    def _epilogue(self, first_row: str, first_column: str) -> None:
        """Results and stores for each of a thread's sums that lies inside the extents."""
        found, line = self.found, self.source.line
        (width, height), (rows, columns), _ = self.schedule.threads, self.schedule.tile, self.schedule.depth
        row, column = self.context.axis(found.rows.name), self.context.axis(found.columns.name)
        assert found.rows.extent is not None and found.columns.extent is not None
        with self.source.block(f"for {self.i} in range({rows // height}):"):
            line(f"{row} = {first_row} + {self.row} + {self.i} * {height}")
            with self.source.block(f"for {self.j} in range({columns // width}):"):
                line(f"{column} = {first_column} + {self.column} + {self.j} * {width}")
                inside = f"{row} < {self.context.dim(found.rows.extent)}"
                with self.source.block(f"if {inside} and {column} < {self.context.dim(found.columns.extent)}:"):
                    scope = Scope(self.context)
                    self.count(self.stage)
                    total = Value(f"{self.sums}[{self.i} * {columns // width} + {self.j}]", self.dtype)
                    scope.lets[self.sum] = scope.define(self.sum, total)
                    self.lets(self.stage.results, scope)
                    self.stores(self.stage.stores, scope)
