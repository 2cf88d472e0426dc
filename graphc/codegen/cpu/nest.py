"""Kernel source as one loop nest: space, then stages one after the other, each with its reduction and its stores.

The same code serves plain scalar loops, loops with lanes along an axis, and register tiles of a contraction: the
schedule says which axes are tiled, and expressions of a tile are written by `expressions.Scope`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import replace

from graphc.codegen.analysis import capacity, coefficient, index_depends, is_idempotent, is_runtime, kernel_loads
from graphc.codegen.clips import clips, widened
from graphc.codegen.contraction import added_products
from graphc.codegen.cpu.accumulators import bind, combined, identities, multiply_add, rows_first, same_size, zero_behind
from graphc.codegen.cpu.expressions import Scope
from graphc.codegen.cpu.loops import Freedom, Segment, extreme, plain_loop, segments, share, tiled_loop
from graphc.codegen.cpu.values import Context, Tile, Value, constant, identity_value, register
from graphc.codegen.lanes import FEW_VECTORS, uses_index, whole_vectors
from graphc.errors import CompileError
from graphc.ir.types import bool_, u8
from graphc.kernel.combiners import COMBINERS
from graphc.kernel.expr import Affine, Apply, Computed, Const, Expr, Load
from graphc.kernel.form import Accumulate, Axis, Kernel, Let, Operand, Stage, Store
from graphc.kernel.schedule import Schedule
from graphc.kernel.scope import StageScope, stage_scopes

LANE_REDUCTIONS = {"sum": "tile_sum", "prod": "tile_prod", "max": "tile_max", "min": "tile_min"}
REGISTERS_KEPT = 4  # for constants, and for what a result is computed from
Accumulators = dict[Tile, list[list[Value]]]  # for each size of tile, the values of every accumulate


class Nest:
    """Writes the body of a flat kernel under a schedule."""

    def __init__(self, kernel: Kernel, schedule: Schedule, context: Context) -> None:
        self.kernel = kernel
        self.schedule = schedule
        self.context = context
        self.source = context.source
        self.lanes = context.lanes
        self.sizes = dict(schedule.tile)
        # Axes whose tiles are rows or columns of single elements. `tile` names rows first, then columns.
        tiled = schedule.kind in ("transposed", "outer", "dot")
        self.element_axes = [a for a in self.sizes if a != schedule.vector_axis] if tiled else []
        self.square = schedule.kind == "transposed"
        self.scopes = stage_scopes(kernel)
        self.idempotent = is_idempotent(kernel)
        self.filling_rows = False

    def write(self) -> None:
        """The loops over the kernel's space, with everything in them."""
        order = self.schedule.order or tuple(a.name for a in self.kernel.space)
        named = {a.name: a for a in self.kernel.space}
        axes = [named[n] for n in order if n in named] + [a for a in self.kernel.space if a.name not in order]
        self.fill_all(axes)
        self.loops(axes, Tile(), self.stages)

    # ---- initial values

    def fill_all(self, axes: Sequence[Axis]) -> None:
        """Fill operands that have an initial value, unless the outermost loop fills its own rows of them.

        A thread fills what it owns (`choose` has checked that it owns it): slices of all rows, if not whole rows.
        """
        filled = [o for o in self.kernel.operands if o.init is not None]
        shared = next((a for a in axes if a.name == self.schedule.parallel), None)
        self.filling_rows = shared is not None and shared == axes[0] and all(self._has_rows(o, shared) for o in filled)
        if filled and shared is not None and not self.filling_rows:
            self._fill_slices(filled, shared)
        elif shared is None:
            for operand in filled:
                self._fill(operand.name, f"{operand.shape[0]}")

    def fill_rows(self, axis: Axis, rows: str) -> None:
        """Inside the parallel, outermost loop: fill the rows of its points."""
        name = self.context.axis(axis.name)
        for operand in self.kernel.operands:
            if operand.init is not None and self.filling_rows:
                stride = self._stride(operand, axis)
                self._fill(operand.name, f"{name} * {stride}, ({name} + {rows}) * {stride}")

    def _fill_slices(self, operands: Sequence[Operand], axis: Axis) -> None:
        """Fill this thread's points of an axis, of static extent, in every row: the axis is not that of the rows."""
        assert isinstance(axis.extent, int)
        step = self.sizes.get(axis.name, 1)
        span = share(str(-(-axis.extent // step)), step).split(", ")
        first, last = (self.context.names.fresh(f"{axis.name}_{end}") for end in ("begin", "end"))
        self.source.line(f"{first} = {span[0]}")
        self.source.line(f"{last} = tile_minimum({span[1]}, {axis.extent})")
        for operand in operands:
            stride, row = self._stride(operand, axis), self.context.names.fresh("row")
            with self.source.block(f"for {row} in range(0, {operand.shape[0]}, {stride * axis.extent}):"):
                self._fill(operand.name, f"{row} + {first} * {stride}, {row} + {last} * {stride}")

    def _stride(self, operand: Operand, axis: Axis) -> int:
        """Elements of an operand from a point of an axis to the next."""
        stores = (store for stage in self.kernel.stages for store in stage.stores if store.operand == operand.name)
        return next(factor for store in stores if (factor := coefficient(store.index[0], axis.name)))

    def _has_rows(self, operand: Operand, axis: Axis) -> bool:
        """True if the points of an axis are rows of an operand, and no slices of rows."""
        size = operand.shape[0]
        return not isinstance(axis.extent, int) or self._stride(operand, axis) * axis.extent == size

    def _fill(self, operand: str, span: str) -> None:
        init = self.kernel.operand(operand).init
        assert init is not None
        value = constant(Const(init, self.context.dtypes[operand])).text
        element = self.context.names.fresh("element")
        with self.source.block(f"for {element} in range({span}):"):
            self.source.line(f"store_scalar({self.context.operand(operand)}, {element}, {value})")

    # ---- loops

    def loops(self, axes: Sequence[Axis], tile: Tile, body: Callable[[Tile], None]) -> None:
        """Loops over `axes`, outermost first, around `body`, which is written once for each size of tile."""
        if not axes:
            body(tile)
            return
        axis, *rest = axes
        shared = axis.name == self.schedule.parallel
        if axis.name not in self.sizes:
            with plain_loop(axis, shared, self.context, self.schedule.unit):
                if shared:
                    self.fill_rows(axis, "1")
                self.loops(rest, tile, body)
            return
        for segment in self.segments(axis):
            with tiled_loop(axis, segment, shared, self.context, self.schedule.unit):
                if shared:
                    size = str(segment.size)
                    self.fill_rows(axis, size if segment.count is None else f"tile_minimum({size}, {segment.count})")
                self.loops(rest, self.with_axis(tile, axis.name, segment), body)

    def segments(self, axis: Axis) -> list[Segment]:
        """The tiles that cover an axis."""
        lanes = 1 if axis.name in self.element_axes and not self.square else self.lanes
        in_space = axis.name in {a.name for a in self.kernel.space}
        filled = any(o.init is not None for o in self.kernel.operands)  # what is not stored must keep its value
        garbage = in_space and is_runtime(axis) and not filled and not self._counted_on(axis.name)
        twice = in_space and self.idempotent and bool(self.element_axes) and not self.square
        twice = twice and not (self.schedule.unit and axis.name == self.schedule.parallel)  # into another's rows
        few = (capacity(axis, self.kernel.capacities) or 0) <= FEW_VECTORS * lanes
        masked = not in_space and few and self.schedule.kind == "dot"
        return segments(axis, self.sizes[axis.name], lanes, Freedom(twice, garbage, masked), self.context)

    def _counted_on(self, axis: str) -> bool:
        """True if an index of the axis is right up to the runtime count only: computed ones, and such as `N-1-n`."""
        indices = [load.index[0] for load in kernel_loads(self.kernel)]
        indices += [s.index[0] for stage in self.kernel.stages for s in stage.stores]
        moving = [i for i in indices if index_depends(i, (axis,))]
        return any(isinstance(i, Computed) or not isinstance(i.const, int) for i in moving)

    def with_axis(self, tile: Tile, axis: str, segment: Segment) -> Tile:
        """The tile with one more axis in it."""
        if self.square:
            size = {"row_axis": axis, "rows": self.lanes, "row_count": segment.count}
            lanes = {"vector_axis": axis, "vectors": 1, "count": segment.count}
            return replace(tile, square=True, **(size if axis in self.element_axes else lanes))  # type: ignore[arg-type]
        if axis in self.element_axes[:1]:
            return replace(tile, row_axis=axis, rows=segment.size, packed=self.schedule.kind == "dot")
        if axis in self.element_axes:
            return replace(tile, vector_axis=axis, vectors=segment.size, packed=True)
        return Tile(
            axis, segment.size // self.lanes, tile.row_axis, tile.rows, segment.count, aligned=segment.aligned
        )

    # ---- stages

    def stages(self, tile: Tile) -> None:
        """All stages at the points of one tile of the kernel's space."""
        scope = Scope(self.context, tile)
        for stage, visible in zip(self.kernel.stages, self.scopes, strict=True):
            self.context.uses = Counter()
            self.context.count_uses(stage.expressions())
            if not stage.space:
                self.point(stage, visible, scope)
            else:

                def body(inner: Tile, stage: Stage = stage, visible: StageScope = visible) -> None:
                    self.point(stage, visible, scope.inner(inner))

                self.loops(stage.space, tile, body)
            scope.forget({store.operand for store in stage.stores})  # a later stage may read what this one has stored

    def point(self, stage: Stage, visible: StageScope, scope: Scope) -> None:
        """A stage at one tile of its space: reduce, then results, then stores."""
        if stage.reduce:
            self.reduce(stage, visible, scope)
            if scope.tile.row_axis and not scope.tile.packed:
                one_by_one = uses_index(stage, scope.tile.row_axis)
                rows = 1 if one_by_one else self._rows_at_once(stage, scope.tile)
                if one_by_one or rows < scope.tile.rows:
                    self.by_rows(stage, scope, rows)
                    return
        else:
            self.lets(stage.lets, scope)
            for accumulate in stage.accumulates:
                self._bind_once(accumulate, scope)
        self.lets(stage.results, scope)
        self.stores(stage.stores, scope)

    def _rows_at_once(self, stage: Stage, tile: Tile) -> int:
        """Rows of a register tile whose results the registers hold beside the sums.

        All reads of a stage come before its writes, and LLVM keeps that order. With several stores, as of an update,
        the results of all but the first need registers of their own.
        """
        wide = 2 if any(o.dtype.itemsize == 8 for o in self.kernel.operands) else 1
        free = self.context.registers // wide - REGISTERS_KEPT - tile.rows * tile.vectors
        room = free // (tile.vectors * max(1, len(stage.stores) - 1))
        parts = -(-tile.rows // max(1, room)) if len(stage.stores) > 1 else 1
        return -(-tile.rows // parts)

    def by_rows(self, stage: Stage, scope: Scope, size: int) -> None:
        """Results and stores of a register tile, so many rows at a time; one, where the index of the row is needed."""
        tile, names = scope.tile, self.context.names
        assert tile.row_axis is not None
        first = self.context.axis(tile.row_axis)
        for row in range(0, tile.rows, size):
            rows = min(size, tile.rows - row)
            inner = scope.inner(replace(tile, row_axis=None, rows=1) if size == 1 else replace(tile, rows=rows))
            if row:
                variable = names.fresh(f"{first}_row")
                self.source.line(f"{variable} = {first} + {row}")
                names.rename("axis", tile.row_axis, variable)
            for name in (n for a in stage.accumulates for n in a.names):
                whole = scope.lets[name]
                part = f"tile_row({whole.text}, {row})" if size == 1 else f"tile_rows({whole.text}, {row}, {rows})"
                inner.lets[name] = replace(whole, text=part, rows=size > 1)
            self.lets(stage.results, inner)
            self.stores(stage.stores, inner)
        names.rename("axis", tile.row_axis, first)

    def lets(self, lets: Sequence[Let], scope: Scope) -> None:
        """Name scalars; what is an identifier or a literal already keeps its text."""
        for let in lets:
            value = scope.assigned(let.expr)
            plain = value.text.isidentifier() or bool(value.literal)
            scope.lets[let.name] = value if plain else scope.define(let.name, value)

    # ---- reductions

    def _bind_once(self, accumulate: Accumulate, scope: Scope) -> None:
        """An accumulator of a stage that reduces over no axes holds its one element."""
        for name, expr in zip(accumulate.names, accumulate.exprs, strict=True):
            scope.lets[name] = scope.define(name, scope.assigned(expr))

    def reduce(self, stage: Stage, visible: StageScope, scope: Scope) -> None:
        """Accumulators, the loops over the reduce axes, and what the lanes of the accumulators come to."""
        if scope.tile.packed:
            self.dot(stage, visible, scope)
            return
        tiles = self._reduction_tiles(stage, scope.tile)
        accumulators: Accumulators = {
            t: [self._start(a, visible, t, t != tiles[0]) for a in stage.accumulates] for t in tiles
        }

        column, clipped = scope.tile.vector_axis or "", False
        if self.schedule.kind == "outer":
            clipped = bool(clips(self.kernel, column))

        def body(tile: Tile) -> None:
            present = self._present_columns(column, tile.vectors * self.lanes, tile.count) if clipped else None
            inner = scope.inner(replace(tile, present=", ".join(present or ())))
            self.lets(stage.lets, inner)
            key = next(t for t in tiles if same_size(t, tile))
            for accumulate, values in zip(stage.accumulates, accumulators[key], strict=True):
                self._combine(accumulate, values, inner)

        size = scope.tile.vectors * self.lanes
        axes = [widened(a, column, size) if clipped else a for a in stage.reduce]
        self.loops(axes, scope.tile, body)
        for number, accumulate in enumerate(stage.accumulates):
            values = accumulators[tiles[0]][number]
            if tiles[0] != scope.tile:
                values = [self._reduce_lanes(accumulate, [accumulators[t][number][0] for t in tiles], scope)]
            for name, value in zip(accumulate.names, values, strict=True):
                scope.lets[name] = value

    def dot(self, stage: Stage, visible: StageScope, scope: Scope) -> None:
        """Sums of products along the vector axis, rows x columns of them at once; their lanes are summed at the end."""
        (accumulate,) = stage.accumulates
        (name,), (product,), tile = accumulate.names, accumulate.exprs, scope.tile
        assert isinstance(product, Apply) and tile.row_axis and tile.vector_axis
        dtype, variable = visible.names[name], self.context.names.fresh(name)
        self.source.line(f"{variable} = tile_zeros_{dtype}({tile.shape})")
        column, vector = tile.vector_axis, self.schedule.vector_axis

        *around, lanes = sorted(stage.reduce, key=lambda a: a.name == vector)  # lanes along the innermost loop

        def along(lanes: Axis, present: str = "") -> None:
            def body(inner: Tile) -> None:
                rows, columns = rows_first(product, tile.row_axis)
                parts = [self._dot_operand(rows, tile, inner.count)]
                parts.append(self._dot_operand(columns, tile, inner.count, present))
                self.source.line(f"{variable} = tile_fma_dot({variable}, {', '.join(parts)})")

            self.loops([lanes], Tile(), body)

        def clipped(lanes: Axis) -> None:
            present = self._present_columns(column, tile.vectors)
            if present is None:
                along(lanes)
                return
            with self.source.block(f"if {present[1]} - {present[0]} == {tile.vectors}:"):
                along(lanes)
            with self.source.block("else:"):
                along(lanes, ", ".join(present))

        def walk(lanes: Axis) -> None:
            self.loops([widened(a, column, tile.vectors) for a in around], Tile(), lambda _: clipped(lanes))

        whole = whole_vectors(lanes, self.lanes, self.kernel.capacities)
        if whole is None:
            walk(lanes)
        else:  # masks cost a tenth of the time, and most batches are full
            assert lanes.extent is not None
            with self.source.block(f"if {self.context.dim(lanes.extent)} == {whole}:"):
                walk(Axis.range(lanes.name, whole))
            with self.source.block("else:"):
                walk(lanes)
        scope.lets[name] = scope.define(f"{name}_sums", Value(f"tile_lane_sums({variable})", dtype, True, True))

    def _present_columns(self, column: str, size: int, count: str | None = None) -> tuple[str, str] | None:
        """`first, last`: the columns that have the reduction's point, where windows stick out; None if all have."""
        found = clips(self.kernel, column) or ()
        if not found:
            return None
        first = [self.context.affine(f) for clip in found for f in clip.first]
        last = [self.context.affine(f) for clip in found for f in clip.last]
        names = [self.context.names.fresh(f"{side}_{column}") for side in ("first", "last")]
        self.source.line(f"{names[0]} = {extreme('tile_maximum', ['0', *first])}")
        self.source.line(f"{names[1]} = {extreme('tile_minimum', [count or str(size), *last])}")
        return names[0], names[1]

    def _dot_operand(self, load: Expr, tile: Tile, count: str | None, present: str = "") -> str:
        """Rows, or columns, of an operand that is contiguous along the reduction."""
        assert isinstance(load, Load) and isinstance(load.index[0], Affine)
        factors, ptr = load.index[0].coefficients, self.context.operand(load.operand)
        by_row = bool(factors.get(tile.row_axis or "", 0))
        stride = factors.get((tile.row_axis if by_row else tile.vector_axis) or "", 0)
        shape = f"{tile.rows if by_row else tile.vectors}, 1"
        masked, rest = ("_masked", f", {count}") if count else ("", "")
        if present:
            masked, rest = "_rows", f", {present}{rest}"
        return f"tile_load{masked}({ptr}, {self.context.affine(load.index[0])}, {stride}, {shape}{rest})"

    def _reduction_tiles(self, stage: Stage, tile: Tile) -> list[Tile]:
        """The tile sizes in which a reduction adds up; several where a reduce axis is the vector axis."""
        for axis in stage.reduce:
            if axis.name in self.sizes:
                if axis.extent is None:
                    raise CompileError(f"kernel {self.kernel.name}: the clipped reduce axis {axis.name!r} has no lanes")
                return [self.with_axis(tile, axis.name, s) for s in self.segments(axis)] or [tile]
        return [tile]

    def _start(self, accumulate: Accumulate, visible: StageScope, tile: Tile, rest: bool) -> list[Value]:
        found = []
        for name, kind in zip(accumulate.names, COMBINERS[accumulate.combiner].identity, strict=True):
            dtype = visible.names[name]
            start = constant(identity_value(kind, dtype))
            text = start.text
            if tile.axes:
                zeros = start.literal in ("0", "0.0") and dtype not in (bool_, u8)
                text = f"tile_broadcast({register(start)}, {tile.shape})"
                text = f"tile_zeros_{dtype}({tile.shape})" if zeros else text
            variable = self.context.names.fresh(f"{name}_rest" if rest else name)
            self.source.line(f"{variable} = {text}")
            found.append(Value(variable, dtype, bool(tile.row_axis), tile.vector_axis is not None))
        return found

    def _combine(self, accumulate: Accumulate, accumulators: list[Value], scope: Scope) -> None:
        """accumulators = combine(accumulators, element)."""
        combiner = COMBINERS[accumulate.combiner]
        (first, *others), tile = accumulators, scope.tile
        if combiner.name == "sum" and first.is_tile and first.dtype.is_float and not self._masked(accumulate, scope):
            products = added_products(accumulate.exprs[0])
            if products is not None:
                for product, minus in products:
                    self.source.line(f"{first.text} = {multiply_add(first, product, minus, scope)}")
                return
        elements = [scope.value(e) for e in accumulate.exprs]
        if self._masked(accumulate, scope):
            mask = f"tile_iota(0, 1, {tile.vectors}) < {tile.count}"
            elements = [
                Value(f"tile_select({mask}, {e.literal or e.text}, {identity.literal})", e.dtype, e.rows, True)
                for e, identity in zip(elements, identities(combiner.identity, elements), strict=True)
            ]
        if not others:
            (expr,) = combiner.combine
            bound = bind(scope, accumulators, elements)
            self.source.line(f"{first.text} = {bound.assigned(expr).text}")
            return
        elements = [e if e.text.isidentifier() or e.literal else scope.define("element", e) for e in elements]
        bound = bind(scope, accumulators, elements)
        bound.context.count_uses(combiner.combine)
        values = [bound.value(expr) for expr in combiner.combine]
        values = [
            v if v.text.isidentifier() else scope.define(f"{a.text}_next", v)
            for a, v in zip(accumulators, values, strict=True)
        ]
        for accumulator, value in zip(accumulators, values, strict=True):
            self.source.line(f"{accumulator.text} = {value.text}")

    def _masked(self, accumulate: Accumulate, scope: Scope) -> bool:
        """True if lanes behind the count would add something to a reduction along the lanes."""
        tile = scope.tile
        reduced = {a.name for stage in self.kernel.stages for a in stage.reduce}
        if tile.count is None or tile.vector_axis not in reduced:
            return False
        return not (accumulate.combiner == "sum" and all(zero_behind(e, tile) for e in accumulate.exprs))

    def _reduce_lanes(self, accumulate: Accumulate, tiles: list[Value], scope: Scope) -> Value:
        """One scalar from accumulator tiles of several sizes."""
        function = LANE_REDUCTIONS[accumulate.combiner]
        parts = [Value(f"{function}({t.text})", t.dtype) for t in tiles]
        total = parts[0]
        for part in parts[1:]:
            (expr,) = COMBINERS[accumulate.combiner].combine
            total = bind(scope, [total], [part]).value(expr)
        return scope.define(accumulate.names[0], total)

    # ---- stores

    def stores(self, stores: Sequence[Store], scope: Scope) -> None:
        """All reads of a stage come before its writes."""
        values = []
        for store in stores:
            value = scope.value(store.value)
            if not value.text.isidentifier() and len(stores) > 1:
                value = scope.define(f"{store.operand}_new", value)
            values.append(value)
        guards = [None if s.guard is None else scope.value(s.guard) for s in stores]
        for store, value, guard in zip(stores, values, guards, strict=True):
            if not scope.tile.axes:
                self._store_scalar(store, value, guard, scope)
            else:
                self._store_tile(store, value, guard, scope)

    def _store_scalar(self, store: Store, value: Value, guard: Value | None, scope: Scope) -> None:
        with self.source.block(f"if {guard.text}:" if guard else None):
            inner = scope.inner()
            if store.mode != "=":
                old = inner.load(Load(store.operand, store.index))
                value = combined(store.mode, old, value, inner)
            ptr = self.context.operand(store.operand)
            self.source.line(f"store_scalar({ptr}, {inner.offset(store.index[0])}, {value.text})")

    def _store_tile(self, store: Store, value: Value, guard: Value | None, scope: Scope) -> None:
        (index,), tile, ptr = store.index, scope.tile, self.context.operand(store.operand)
        steps = scope.steps(index)
        if steps is None:
            raise CompileError(f"kernel {self.kernel.name}: a computed store has no lanes; schedule it scalar")
        row, lane = steps
        with ExitStack() as stack:
            if guard is not None and not guard.is_tile:
                stack.enter_context(self.source.block(f"if {guard.text}:"))
            inner = scope.inner()
            lanewise = guard is not None and guard.is_tile
            if store.mode != "=" or lanewise:
                old = inner.load(Load(store.operand, store.index))
                if store.mode != "=":
                    value = combined(store.mode, old, value, inner)
                if guard is not None and lanewise:
                    chosen = f"tile_select({guard.text}, {value.literal or value.text}, {old.text})"
                    value = Value(chosen, value.dtype, value.rows or guard.rows or old.rows, True)
            text, offset = inner.spread(value), inner.offset(index)
            count = f", {tile.count}" if tile.count else ""
            if tile.packed:
                self.source.line(f"tile_store_packed({ptr}, {offset}, {row}, {lane}, {tile.shape}, {text})")
            elif tile.square and (lane != 1 or tile.row_count):
                self._store_square(ptr, offset, (row, lane), text, tile)
            elif lane == 1:
                masked = "_masked" if count else ""
                self.source.line(f"tile_store{masked}({ptr}, {offset}, {row}, {text}{count})")
            else:
                self.source.line(f"tile_store_strided({ptr}, {offset}, {row}, {lane}, {text}{count})")


    def _store_square(self, ptr: str, offset: str, steps: tuple[int, int], text: str, tile: Tile) -> None:
        """Store a square tile whose rows are not all there, or lie across."""
        stride, rows, count = steps[0], tile.row_count, tile.count
        if steps[1] != 1:
            stride, rows, count, text = steps[1], tile.count, tile.row_count, f"tile_transpose({text})"
        behind = f", {count}" if count else ""
        if rows:
            self.source.line(f"tile_store_rows({ptr}, {offset}, {stride}, {text}, {rows}{behind})")
        else:
            self.source.line(f"tile_store{'_masked' if count else ''}({ptr}, {offset}, {stride}, {text}{behind})")
