"""Fusion as algebra on kernel forms: inlining a map into the loads or the stores of another kernel.

Both operations work on kernels whose operands are named by the values they hold, so that two kernels that
name the same operand mean the same tensor. They state equalities: the composed kernel stores what running
the two kernels one after the other would store.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace

from graphc.errors import CompileError
from graphc.ir.dims import Dim, substitute
from graphc.kernel.expr import (
    Affine,
    Apply,
    AxisIndex,
    Cast,
    Computed,
    Const,
    Expr,
    Extent,
    Index,
    Load,
    Name,
    bind_extents,
    loads,
    replace_axes,
    transform,
    walk,
)
from graphc.kernel.form import Accumulate, Axis, Bound, Kernel, Let, Operand, Stage, Store

WITHOUT_INDEX = {"argmax": "max", "argmin": "min", "firstmax": "max"}  # combiners of a value and its index


def map_stages(kernel: Kernel, change: Mapping[int, Stage]) -> Kernel:
    """The kernel with the stages at the given positions replaced."""
    return replace(kernel, stages=tuple(change.get(i, stage) for i, stage in enumerate(kernel.stages)))


def change_expressions(
    stage: Stage, change: Callable[[Expr], Expr], index: Callable[[str, Index], Index] | None = None
) -> Stage:
    """The stage with `change` applied to every expression, guards included, and to the computed indices of stores.

    With `index` that is called with the operand and each index of a store instead.
    """

    def of_store(operand: str, i: Index) -> Index:
        if index is not None:
            return index(operand, i)
        return Computed(change(i.expr), i.lower, i.upper) if isinstance(i, Computed) else i

    def store(s: Store) -> Store:
        guard = None if s.guard is None else change(s.guard)
        return replace(s, index=tuple(of_store(s.operand, i) for i in s.index), value=change(s.value), guard=guard)

    return replace(
        stage,
        lets=tuple(Let(let.name, change(let.expr)) for let in stage.lets),
        accumulates=tuple(Accumulate(a.names, a.combiner, tuple(map(change, a.exprs))) for a in stage.accumulates),
        results=tuple(Let(let.name, change(let.expr)) for let in stage.results),
        stores=tuple(store(s) for s in stage.stores),
    )


def rename_operands(kernel: Kernel, names: Mapping[str, str]) -> Kernel:
    """Operands renamed; two operands given one name become one (`inout` if one is read and the other written)."""

    def renamed(e: Expr) -> Expr | None:
        return Load(names.get(e.operand, e.operand), e.index) if isinstance(e, Load) else None

    def change(expr: Expr) -> Expr:
        return transform(expr, renamed)

    stages = []
    for stage in kernel.stages:
        changed = change_expressions(stage, change)
        stores = tuple(replace(s, operand=names.get(s.operand, s.operand)) for s in changed.stores)
        stages.append(replace(changed, stores=stores))
    operands = [replace(o, name=names.get(o.name, o.name)) for o in kernel.operands]
    return replace(kernel, operands=merge_operands(operands), stages=tuple(stages))


def merge_operands(operands: Iterable[Operand]) -> tuple[Operand, ...]:
    """Operands of equal name joined: first position kept, roles united."""
    merged: dict[str, Operand] = {}
    for operand in operands:
        known = merged.get(operand.name)
        if known is None:
            merged[operand.name] = operand
        elif known.role != operand.role:
            merged[operand.name] = replace(known, role="inout")
    return tuple(merged.values())


def rename_axes(kernel: Kernel, names: Mapping[str, str]) -> Kernel:
    """Axes of the kernel's space and stages renamed."""
    axes: dict[str, Index] = {old: Affine.axis(new) for old, new in names.items()}
    affine = {old: Affine.axis(new) for old, new in names.items()}

    def bound(b: Bound) -> Bound:
        return b.replace(affine) if isinstance(b, Affine) else replace(b, axis=names.get(b.axis, b.axis))

    def axis(a: Axis) -> Axis:
        lower, upper = tuple(bound(b) for b in a.lower), tuple(bound(b) for b in a.upper)
        return Axis(names.get(a.name, a.name), lower, upper, a.sequential)

    def stage(s: Stage) -> Stage:
        changed = change_expressions(s, lambda e: replace_axes(e, axes))
        stores = tuple(
            replace(t, index=tuple(i.replace(affine) if isinstance(i, Affine) else i for i in t.index))
            for t in changed.stores
        )
        space, reduce = tuple(axis(a) for a in s.space), tuple(axis(a) for a in s.reduce)
        return replace(changed, space=space, reduce=reduce, stores=stores)

    return replace(kernel, space=tuple(axis(a) for a in kernel.space), stages=tuple(stage(s) for s in kernel.stages))


def separate_names(kernel: Kernel) -> Kernel:
    """Rename axes, lets and accumulators that have the name of an operand (or of an extent)."""
    taken = {o.name for o in kernel.operands} | set(kernel.runtime_extents)
    axes = [a.name for s in kernel.stages for a in (*s.space, *s.reduce)] + [a.name for a in kernel.space]
    values = value_names(kernel.stages)
    used = taken | set(axes) | set(values)
    new: dict[str, str] = {}
    for name in dict.fromkeys((*axes, *values)):
        if name in taken:
            new[name] = next(n for k in range(len(used) + 1) if (n := f"{name}_{k}") not in used)
            used.add(new[name])
    if not new:
        return kernel
    renamed = rename_axes(kernel, {a: new[a] for a in axes if a in new})
    return replace(renamed, stages=tuple(rename_values(stage, new) for stage in renamed.stages))


def anonymous(kernel: Kernel) -> Kernel:
    """The kernel with operands, lets and accumulators named by position: equal kernels become equal."""
    operands = {o.name: f"operand{i}" for i, o in enumerate(kernel.operands)}
    new = {name: f"value{i}" for i, name in enumerate(value_names(kernel.stages))}
    renamed = rename_operands(replace(kernel, name="kernel", origins=()), operands)
    return replace(renamed, stages=tuple(rename_values(stage, new) for stage in renamed.stages))


def value_names(stages: Iterable[Stage]) -> dict[str, None]:
    """Names of lets, results and accumulators, in this order."""
    stages = tuple(stages)
    names = [let.name for s in stages for let in (*s.lets, *s.results)]
    return dict.fromkeys([*names, *(name for s in stages for a in s.accumulates for name in a.names)])


def rename_values(stage: Stage, new: Mapping[str, str]) -> Stage:
    """Lets, results and accumulators renamed, where they are defined and where they are used."""
    def change(expr: Expr) -> Expr:
        return transform(expr, lambda e: Name(new[e.id]) if isinstance(e, Name) and e.id in new else None)

    changed = change_expressions(stage, change)
    return replace(
        changed,
        lets=tuple(Let(new.get(let.name, let.name), let.expr) for let in changed.lets),
        results=tuple(Let(new.get(let.name, let.name), let.expr) for let in changed.results),
        accumulates=tuple(replace(a, names=tuple(new.get(n, n) for n in a.names)) for a in changed.accumulates),
    )


def map_expression(kernel: Kernel) -> Expr:
    """The value of a map as one expression of its axes and loads, lets expanded. CompileError if it is no map."""
    if not kernel.is_map:
        raise CompileError(f"kernel {kernel.name!r} is no plain map; only maps can be inlined")
    (stage,) = kernel.stages
    known: dict[str, Expr] = {}

    def expand(e: Expr) -> Expr | None:
        return known.get(e.id) if isinstance(e, Name) else None

    for let in (*stage.lets, *stage.results):
        known[let.name] = transform(let.expr, expand)
    return transform(stage.stores[0].value, expand)


def inline_producer(kernel: Kernel, operand: str, producer: Kernel) -> Kernel:
    """Replace every load of `operand` in `kernel` by the value that the map `producer` gives it."""
    body, axes = map_expression(producer), [axis.name for axis in producer.space]

    def change(expr: Expr) -> Expr:
        def one(e: Expr) -> Expr | None:
            if isinstance(e, Load) and e.operand == operand:
                return replace_axes(body, dict(zip(axes, e.index, strict=True)))
            return None

        return transform(expr, one)

    stages = tuple(change_expressions(stage, change) for stage in kernel.stages)
    operands = [o for o in kernel.operands if o.name != operand]
    capacities = {**kernel.capacities, **producer.capacities}
    return replace(
        kernel, operands=ordered_operands([*operands, *producer.inputs]), stages=stages, capacities=capacities
    )


def stage_of_value(kernel: Kernel, operand: str) -> int | None:
    """Position of the stage that plainly stores `operand` (every element once, "=", no guard), else None."""
    found = [
        (position, store)
        for position, stage in enumerate(kernel.stages)
        for store in stage.stores
        if store.operand == operand
    ]
    if len(found) != 1 or found[0][1].mode != "=" or found[0][1].guard is not None:
        return None
    return None if kernel.operand(operand).init is not None else found[0][0]


def append_consumer(kernel: Kernel, consumer: Kernel) -> Kernel:
    """Compute the map `consumer` where `kernel` stores what it reads; its result is one more store of that stage.

    Raises CompileError if the consumer reads values of the kernel anywhere but at its own point, or all of them at one
    permutation of it.
    """
    written = {store.operand for stage in kernel.stages for store in stage.stores}
    (result,) = consumer.outputs
    body = map_expression(consumer)
    read = [o.name for o in consumer.inputs if o.name in written]
    positions = {stage_of_value(kernel, name) for name in read}
    if len(positions) != 1 or None in positions:
        raise CompileError(f"{consumer.name!r} reads values of different stages of {kernel.name!r}: {', '.join(read)}")
    position = positions.pop()
    assert position is not None
    stage = kernel.stages[position]
    for name in read:
        stage = _name_stored_value(stage, name)
    stores = {s.operand: s for s in stage.stores if s.operand in read}
    axes = [axis.name for axis in consumer.space]
    sites = [load for load in loads(body) if load.operand in stores]
    points = [dict(zip(load.index, stores[load.operand].index, strict=True)) for load in sites]
    if any(point != points[0] or set(point) != {Affine.axis(axis) for axis in axes} for point in points):
        raise CompileError(f"{consumer.name!r} reads {', '.join(read)} away from its own point")
    point = {axis: points[0][Affine.axis(axis)] for axis in axes}

    def use_value(e: Expr) -> Expr | None:
        return stores[e.operand].value if isinstance(e, Load) and e.operand in stores else None

    value = replace_axes(transform(body, use_value), point)
    stage = replace(stage, stores=(*stage.stores, Store(result.name, tuple(point.values()), value)))
    new_inputs = [o for o in consumer.inputs if o.name not in written]
    joined = map_stages(kernel, {position: stage})
    capacities = {**kernel.capacities, **consumer.capacities}
    return replace(joined, operands=ordered_operands([*kernel.operands, *new_inputs, result]), capacities=capacities)


def _name_stored_value(stage: Stage, operand: str) -> Stage:
    """Make the value stored to `operand` a let, so that consumers can use it by name."""
    store = next(s for s in stage.stores if s.operand == operand)
    if isinstance(store.value, Name | Const):
        return stage
    let = Let(f"{operand}_", store.value)
    stores = tuple(replace(s, value=Name(let.name)) if s is store else s for s in stage.stores)
    if stage.reduce or stage.accumulates:
        return replace(stage, results=(*stage.results, let), stores=stores)
    return replace(stage, lets=(*stage.lets, let), stores=stores)


def keep_stores(kernel: Kernel, kept: Iterable[str]) -> Kernel:
    """Drop stores of operands not in `kept`, then all that nothing uses any more; inline lets used once."""
    names = set(kept)
    stages = tuple(replace(s, stores=tuple(t for t in s.stores if t.operand in names)) for s in kernel.stages)
    stages = tuple(_inline_lets(stage, _later_names(stages[i + 1 :])) for i, stage in enumerate(stages))
    stages = tuple(_drop_indices(stage, _later_names(stages[i + 1 :])) for i, stage in enumerate(stages))
    read = {load.operand for s in stages for e in s.expressions() for load in loads(e)}
    written = {t.operand for s in stages for t in s.stores}
    operands = tuple(o for o in kernel.operands if o.name in read | written)
    return replace(kernel, operands=operands, stages=stages)


def _later_names(stages: tuple[Stage, ...]) -> set[str]:
    return {e.id for stage in stages for expr in stage.expressions() for e in walk(expr) if isinstance(e, Name)}


def names_in(expr: Expr) -> list[str]:
    """Names in `expr`, once for each place where they stand."""
    found = []
    stack = [expr]
    while stack:
        e = stack.pop()
        if isinstance(e, Name):
            found.append(e.id)
        elif isinstance(e, Apply):
            stack.extend(e.args)
        elif isinstance(e, Cast):
            stack.append(e.arg)
        elif isinstance(e, Load):
            stack.extend(i.expr for i in e.index if isinstance(i, Computed))
    return found


def _inline_lets(stage: Stage, later: set[str]) -> Stage:
    """Drop lets that nothing uses and inline those used once; what `later` stages use stays."""
    known: dict[str, Expr] = {}
    uses = Counter(name for expr in stage.expressions() for name in names_in(expr))

    def expand(expr: Expr) -> Expr:
        return transform(expr, lambda e: known.get(e.id) if isinstance(e, Name) else None)

    def section(lets: tuple[Let, ...]) -> tuple[Let, ...]:
        kept = []
        for let in lets:
            expr = expand(let.expr)
            if uses[let.name] == 0 and let.name not in later:
                continue
            if let.name in later:
                kept.append(Let(let.name, expr))
            elif uses[let.name] == 1 or isinstance(expr, Const | Name | AxisIndex | Extent):
                known[let.name] = expr
            else:
                kept.append(Let(let.name, expr))
        return tuple(kept)

    lets = section(stage.lets)
    results = section(stage.results)
    return replace(change_expressions(replace(stage, lets=lets, results=results), expand), lets=lets, results=results)


def _drop_indices(stage: Stage, later: set[str]) -> Stage:
    """Accumulators of an extreme value and its index, without the index if nothing uses it."""
    used = later | {name for expr in stage.expressions() for name in names_in(expr)}

    def change(a: Accumulate) -> Accumulate:
        if a.combiner in WITHOUT_INDEX and a.names[1] not in used:
            return Accumulate(a.names[:1], WITHOUT_INDEX[a.combiner], a.exprs[:1])
        return a

    return replace(stage, accumulates=tuple(map(change, stage.accumulates)))


def bind_kernel(kernel: Kernel, sizes: Mapping[str, Dim], capacities: Mapping[str, int]) -> Kernel:
    """Dimension symbols in `sizes` replaced everywhere; the rest stay runtime extents with the given capacities."""

    def bound(b: Bound) -> Bound:
        return Affine(b.terms, substitute(b.const, sizes)) if isinstance(b, Affine) else b

    def axis(a: Axis) -> Axis:
        return replace(a, lower=tuple(bound(b) for b in a.lower), upper=tuple(bound(b) for b in a.upper))

    def stage(s: Stage) -> Stage:
        changed = change_expressions(s, lambda e: bind_extents(e, sizes))
        return replace(changed, space=tuple(axis(a) for a in s.space), reduce=tuple(axis(a) for a in s.reduce))

    operands = tuple(replace(o, shape=tuple(substitute(d, sizes) for d in o.shape)) for o in kernel.operands)
    bound_kernel = replace(
        kernel,
        operands=operands,
        space=tuple(axis(a) for a in kernel.space),
        stages=tuple(stage(s) for s in kernel.stages),
    )
    used = bound_kernel.runtime_extents
    return replace(bound_kernel, capacities={name: capacities[name] for name in used if name in capacities})


def ordered_operands(operands: Iterable[Operand]) -> tuple[Operand, ...]:
    """Merged operands, those that are only written last."""
    merged = merge_operands(operands)
    return tuple(o for o in merged if o.role != "out") + tuple(o for o in merged if o.role == "out")


def reads_each_element_once(kernel: Kernel, operand: str) -> bool:
    """True if one load site reads `operand`, each element at most once: its index holds every axis around it."""
    return times_read(kernel, operand) == 1


def times_read(kernel: Kernel, operand: str) -> int | None:
    """How often at most the one load site of `operand` reads an element: the points of the axes that its index lacks.

    None if there are several load sites, or axes without a fixed extent that the index lacks.
    """
    sites = []
    for stage in kernel.stages:
        axes = {a.name: a.extent for a in (*kernel.space, *stage.space, *stage.reduce) if a.extent != 1}
        for expr in {e: None for top in stage.expressions() for e in walk(top)}:
            if isinstance(expr, Load) and expr.operand == operand:
                sites.append((expr, axes))
    if len(sites) != 1:
        return None
    load, axes = sites[0]
    indexed = [t[0] for i in load.index if isinstance(i, Affine) for t in i.terms]
    left_out = [extent for name, extent in axes.items() if name not in indexed]
    if len(indexed) != len(set(indexed)) or not all(isinstance(extent, int) for extent in left_out):
        return None
    return math.prod(extent for extent in left_out if isinstance(extent, int))
