"""Kernel forms as memory wants them: operands in other layouts than row-major, loops in their order; conversions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from graphc.codegen.analysis import bound_axes, size_in_memory
from graphc.codegen.lower import copy_kernel
from graphc.ir.dims import Dim, evaluate, symbols
from graphc.kernel.compose import change_expressions
from graphc.kernel.expr import Affine, Computed, Expr, Index, Load, loads, replace_axes, replace_index, transform
from graphc.kernel.form import Axis, Bound, Kernel, Operand, Stage, Table
from graphc.kernel.layout import Layout

REORDERED = ("sum", "prod", "max", "min")  # combiners that may take their elements in any order


def innermost(shape: Sequence[Dim], axis: int, capacities: Mapping[str, int], lanes: int) -> Layout:
    """The layout with one axis innermost and the others in order; a runtime extent is padded to whole vectors."""
    order = (*(k for k in range(len(shape)) if k != axis), axis)
    padding = -evaluate(shape[axis], capacities) % lanes if symbols(shape[axis]) else 0
    return Layout(order, padding=(*(0 for _ in order[1:]), padding))


def laid_out(kernel: Kernel, layouts: Mapping[str, Layout]) -> Kernel:
    """The kernel with operands in layouts without splits, its loops in the order of memory."""
    if not any(o.name in layouts for o in kernel.operands):
        return kernel
    if all(layouts[o.name] == _padded(o, layouts[o.name].padding) for o in kernel.operands if o.name in layouts):
        return replace(kernel, operands=tuple(_moved_operand(o, layouts.get(o.name)) for o in kernel.operands))

    def moved(operand: str, index: tuple[Index, ...]) -> tuple[Index, ...]:
        layout = layouts.get(operand)
        return index if layout is None else tuple(index[k] for k in layout.permutation)

    def change(expr: Expr) -> Expr:
        def one(e: Expr) -> Expr | None:
            return Load(e.operand, moved(e.operand, e.index)) if isinstance(e, Load) else None

        return transform(expr, one)

    def inside(_: str, index: Index) -> Index:
        return replace(index, expr=change(index.expr)) if isinstance(index, Computed) else index

    stages = []
    for stage in kernel.stages:
        changed = change_expressions(stage, change, inside)
        stores = tuple(replace(s, index=moved(s.operand, s.index)) for s in changed.stores)
        stages.append(_with_ordered_reduction(replace(changed, stores=stores)))
    operands = tuple(_moved_operand(o, layouts.get(o.name)) for o in kernel.operands)
    return _with_ordered_space(replace(kernel, operands=operands, stages=tuple(stages)))


def _padded(operand: Operand, padding: tuple[int, ...]) -> Layout:
    """The row-major layout of an operand with padding."""
    return Layout(tuple(range(len(operand.shape))), padding=padding)


def _moved_operand(operand: Operand, layout: Layout | None) -> Operand:
    if layout is None:
        return operand
    return replace(operand, shape=tuple(operand.shape[k] for k in layout.permutation), padding=layout.padding)


def conversion(
    name: str, source: Operand, target: str, layouts: Mapping[str, Layout], capacities: Mapping[str, int]
) -> Kernel:
    """The kernel that copies a tensor to `target`, each in its layout."""
    return laid_out(copy_kernel(name, source, target, capacities), layouts)


# ---- loops in the order of memory -----------------------------------------------------------------------------------


def _with_ordered_space(kernel: Kernel) -> Kernel:
    """Loops over the space as its largest output lies in memory, where their order means nothing."""
    stores = [s for stage in kernel.stages for s in stage.stores]
    fixed = any(a.sequential or bound_axes(a) for a in kernel.space) or any(s.partials for s in stores)
    if fixed or not stores:
        return kernel
    order = _order([s.index for s in stores], {a.name for a in kernel.space})
    position = {name: k for k, name in enumerate(order)}
    return replace(kernel, space=tuple(sorted(kernel.space, key=lambda a: position.get(a.name, -1))))


def _with_ordered_reduction(stage: Stage) -> Stage:
    """Loops of a reduction as its largest operand lies in memory, where their order means nothing."""
    names = {a.name for a in stage.reduce}
    fixed = any(a.sequential or bound_axes(a) & names for a in stage.reduce)
    if fixed or any(a.combiner not in REORDERED for a in stage.accumulates):
        return stage
    indices = [load.index for a in stage.accumulates for e in a.exprs for load in loads(e)]
    position = {name: k for k, name in enumerate(_order(indices, names))}
    return replace(stage, reduce=tuple(sorted(stage.reduce, key=lambda a: position.get(a.name, -1))))


def _order(indices: Sequence[tuple[Index, ...]], names: set[str]) -> list[str]:
    """The axes among `names` in the order in which the index that has most of them walks through them."""
    found: list[list[str]] = [[]]
    for index in indices:
        axes: dict[str, None] = {}
        for part in index:
            if isinstance(part, Affine):
                terms = sorted(part.terms, key=lambda t: -abs(t[1]))
                axes.update(dict.fromkeys(name for name, _ in terms if name in names))
        found.append(list(axes))
    return max(found, key=len)


# ---- reductions that walk forwards ----------------------------------------------------------------------------------


def ascending(kernel: Kernel) -> Kernel:
    """The kernel with reductions turned round that walk backwards through their largest operand.

    An input gradient reads `G[.., y-ky+1, x-kx+1, ..]`: with `2-ky` for `ky` it walks through memory forwards, as
    caches expect it; backwards it can take seven times as long (measured).
    """
    return replace(kernel, stages=tuple(_ascending_stage(kernel, stage) for stage in kernel.stages))


def _ascending_stage(kernel: Kernel, stage: Stage) -> Stage:
    if any(a.combiner not in REORDERED for a in stage.accumulates):
        return stage
    for axis in stage.reduce:
        extent = next((b.const for b in axis.upper if isinstance(b, Affine) and not b.terms), None)
        if isinstance(extent, int) and not axis.sequential and _walks_backwards(kernel, stage, axis.name):
            stage = _turned(stage, axis.name, extent)
    return stage


def _walks_backwards(kernel: Kernel, stage: Stage, axis: str) -> bool:
    """True if the largest operand that an axis indexes is walked backwards along it."""
    found = []
    for load in {load: None for a in stage.accumulates for e in a.exprs for load in loads(e)}:
        signs = {t[1] > 0 for i in load.index if isinstance(i, Affine) for t in i.terms if t[0] == axis}
        if signs:
            size = size_in_memory(kernel.operand(load.operand), kernel.capacities)
            found.append((size, load.operand, signs == {False}))
    return max(found, default=(0, "", False))[2]


def _turned(stage: Stage, axis: str, extent: int) -> Stage:
    """The stage with `extent - 1 - axis` in place of a reduce axis."""
    last = Affine.of({axis: -1}, extent - 1)
    axes: dict[str, Index] = {axis: last}

    def bound(b: Bound, own: bool) -> Bound:
        if isinstance(b, Table):
            turned = tuple(extent - v for v in b.values) if own else tuple(reversed(b.values))
            return replace(b, values=turned) if own or b.axis == axis else b
        return b.scale(-1) + extent if own else b.replace({axis: last})

    def turned(a: Axis) -> Axis:
        own = a.name == axis
        lower, upper = ([bound(b, own) for b in side] for side in (a.lower, a.upper))
        return replace(a, lower=tuple(upper if own else lower), upper=tuple(lower if own else upper))

    changed = change_expressions(stage, lambda e: replace_axes(e, axes), lambda _, i: replace_index(i, axes))
    return replace(changed, reduce=tuple(map(turned, stage.reduce)))
