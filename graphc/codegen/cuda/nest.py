"""Kernel source for one thread a point: loops, stages, reductions and stores, which the other kinds build on."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from graphc.codegen.cpu.values import Context, Value, identity_value
from graphc.codegen.cuda.expressions import Scope, number
from graphc.codegen.cuda.schedule import grid_axes
from graphc.ir.dims import product
from graphc.ir.types import bool_, u8
from graphc.kernel.combiners import COMBINERS
from graphc.kernel.expr import Load
from graphc.kernel.form import Axis, Bound, Kernel, Let, Stage, Store, Table
from graphc.kernel.scope import StageScope, stage_scopes


class Points:
    """A thread for each point: reductions, and stages with a space of their own, are its own loops."""

    def __init__(self, kernel: Kernel, context: Context) -> None:
        self.kernel = kernel
        self.context = context
        self.source = context.source
        self.scopes = stage_scopes(kernel)

    def write(self) -> None:
        """The grid-stride loop with everything in it."""
        shared = grid_axes(self.kernel)
        with self.shared_loop(shared, "cuda.grid(1)", "cuda.gridsize(1)"):
            with self.plain_loops([axis for axis in self.kernel.space if axis not in shared]):
                self.stages()

    # ---- loops

    @contextmanager
    def shared_loop(self, axes: Sequence[Axis], first: str, step: str) -> Iterator[None]:
        """One loop over the points of several axes, of which each of those who run it takes some."""
        names = [self.context.axis(axis.name) for axis in axes]
        total = self.context.dim(product(axis.extent for axis in axes if axis.extent is not None))
        point = names[0] if len(names) == 1 else self.context.names.fresh("point")
        with self.source.block(f"for {point} in range({first}, {total}, {step}):"):
            self.split(point, axes)
            yield

    def split(self, point: str, axes: Sequence[Axis]) -> None:
        """The axes' indices from the number of a point, the last one counting fastest."""
        if len(axes) == 1 and self.context.axis(axes[0].name) == point:
            return
        for position in reversed(range(len(axes))):
            axis, rest = axes[position], [a.extent for a in axes[position + 1 :] if a.extent is not None]
            inner = self.context.dim(product(rest)) if rest else ""
            text = f"{point} // {_factor(inner)}" if inner else point
            if position:
                assert axis.extent is not None
                text += f" % {_factor(self.context.dim(axis.extent))}"
            self.source.line(f"{self.context.axis(axis.name)} = {text}")

    @contextmanager
    def plain_loops(self, axes: Sequence[Axis]) -> Iterator[None]:
        """Loops that each thread runs by itself."""
        if not axes:
            yield
            return
        lower, upper = self.bounds(axes[0])
        span = upper if lower == "0" else f"{lower}, {upper}"
        with self.source.block(f"for {self.context.axis(axes[0].name)} in range({span}):"):
            with self.plain_loops(axes[1:]):
                yield

    def bounds(self, axis: Axis) -> tuple[str, str]:
        """Lower and upper bound as source; clipped ones are what padding means."""
        lower, upper = ([self._bound(b) for b in group] for group in (axis.lower, axis.upper))
        return (
            lower[0] if len(lower) == 1 else f"max({', '.join(lower)})",
            upper[0] if len(upper) == 1 else f"min({', '.join(upper)})",
        )

    def _bound(self, bound: Bound) -> str:
        if isinstance(bound, Table):
            return f"{self.context.table(bound.values)}[{self.context.axis(bound.axis)}]"
        return self.context.affine(bound)

    # ---- stages

    def stages(self) -> None:
        """All stages at one point of the kernel's space."""
        scope = Scope(self.context)
        for stage, visible in zip(self.kernel.stages, self.scopes, strict=True):
            self.count(stage)
            with self.plain_loops(stage.space):
                self.point(stage, visible, scope.inner() if stage.space else scope)
            if stage.stores:
                scope.values.clear()  # a later stage may read what this one has stored

    def count(self, stage: Stage) -> None:
        """Note which expressions of a stage occur more than once."""
        self.context.uses = Counter()
        self.context.count_uses(stage.expressions())

    def point(self, stage: Stage, visible: StageScope, scope: Scope) -> None:
        """A stage at one point of its space."""
        if stage.reduce:
            accumulators = self.start(stage, visible)
            with self.plain_loops(stage.reduce):
                self.accumulate(stage, accumulators, scope.inner())
            self.bind(stage, accumulators, scope)
        else:
            self.bind_once(stage, scope)
        self.lets(stage.results, scope)
        self.stores(stage.stores, scope)

    def lets(self, lets: Sequence[Let], scope: Scope) -> None:
        """Name scalars."""
        for let in lets:
            value = scope.value(let.expr)
            plain = value.text.isidentifier() or bool(value.literal)
            scope.lets[let.name] = value if plain else scope.define(let.name, value)

    # ---- reductions

    def start(self, stage: Stage, visible: StageScope) -> list[list[Value]]:
        """Accumulators at their neutral elements."""
        found = []
        for accumulate in stage.accumulates:
            values = []
            for name, kind in zip(accumulate.names, COMBINERS[accumulate.combiner].identity, strict=True):
                start = identity_value(kind, visible.names[name])
                variable = self.context.names.fresh(name)
                self.source.line(f"{variable} = {number(start.value, start.dtype)}")
                values.append(Value(variable, start.dtype))
            found.append(values)
        return found

    def accumulate(self, stage: Stage, accumulators: list[list[Value]], scope: Scope) -> None:
        """Combine the element at one point into the accumulators."""
        self.lets(stage.lets, scope)
        for accumulate, values in zip(stage.accumulates, accumulators, strict=True):
            elements = [scope.value(expr) for expr in accumulate.exprs]
            if len(elements) > 1:
                elements = [e if e.text.isidentifier() or e.literal else scope.define("element", e) for e in elements]
            for value, text in zip(values, self.combined(accumulate.combiner, values, elements), strict=True):
                self.source.line(f"{value.text} = {text}")

    def combined(self, combiner: str, left: Sequence[Value], right: Sequence[Value]) -> list[str]:
        """The components of combine(left, right); of several, all are named before one of them changes."""
        combine = COMBINERS[combiner].combine
        scope = Scope(self.context)
        scope.lets |= {f"a{k}": value for k, value in enumerate(left)} | {f"b{k}": v for k, v in enumerate(right)}
        outer, self.context.uses = self.context.uses, Counter()
        self.context.count_uses(combine)
        values = [scope.value(expr) for expr in combine]
        self.context.uses = outer
        if len(values) > 1:
            values = [v if v.text.isidentifier() else scope.define("next", v) for v in values]
        return [v.text for v in values]

    def bind_once(self, stage: Stage, scope: Scope) -> None:
        """The accumulators of a stage that reduces over no axes hold its one element."""
        self.lets(stage.lets, scope)
        for accumulate in stage.accumulates:
            for name, expr in zip(accumulate.names, accumulate.exprs, strict=True):
                scope.lets[name] = scope.define(name, scope.value(expr))

    def bind(self, stage: Stage, accumulators: list[list[Value]], scope: Scope) -> None:
        """Let the accumulators' names stand for their values."""
        for accumulate, values in zip(stage.accumulates, accumulators, strict=True):
            scope.lets |= dict(zip(accumulate.names, values, strict=True))

    # ---- stores

    def stores(self, stores: Sequence[Store], scope: Scope) -> None:
        """All reads of a stage come before its writes."""
        values = [scope.value(store.value) for store in stores]
        if len(stores) > 1:
            values = [
                v if v.text.isidentifier() or v.literal else scope.define(f"{store.operand}_new", v)
                for v, store in zip(values, stores, strict=True)
            ]
        guards = [None if store.guard is None else scope.value(store.guard) for store in stores]
        for store, value, guard in zip(stores, values, guards, strict=True):
            with self.source.block(f"if {guard.text}:" if guard else None):
                self.store(store, value, scope.inner())

    def store(self, store: Store, value: Value, scope: Scope) -> None:
        """One element, converted to how it lies in memory."""
        (index,) = store.index
        text = value.text
        if store.mode != "=":
            old = scope.load(Load(store.operand, store.index))
            (text,) = self.combined(store.mode, [old], [value])
        if value.dtype in (bool_, u8):
            text = f"uint8({text})"
        self.source.line(f"{self.context.operand(store.operand)}[{scope.offset(index)}] = {text}")


def _factor(text: str) -> str:
    return text if text.isidentifier() or text.isdigit() else f"({text})"
