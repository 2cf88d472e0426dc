"""What a schedule and an emitter must know about a kernel form: flat offsets, strides along axes, dependences.

Everything here works on *flat* kernels: `flatten` turns every operand into one dimension, so that an index is a
single element offset, affine in the axes or computed. `collapse` then merges axes that every operand walks in step.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace

from graphc.ir.dims import Dim, evaluate, product, symbols
from graphc.ir.types import i64
from graphc.kernel.compose import change_expressions
from graphc.kernel.expr import (
    Affine,
    Apply,
    AxisIndex,
    Cast,
    Computed,
    Const,
    Expr,
    Index,
    Load,
    Name,
    affine_of,
    as_expr,
    loads,
    replace_axes,
    replace_index,
    transform,
    walk,
)
from graphc.kernel.form import Axis, Bound, Kernel, Operand, Stage, Store, Table
from graphc.kernel.layout import Layout


def size_in_memory(operand: Operand, capacities: Mapping[str, int]) -> int:
    """Elements of an operand's memory at the capacity of its shape, its padding counted."""
    return _layout(operand).size([evaluate(dim, capacities) for dim in operand.shape])


def strides(operand: Operand, capacities: Mapping[str, int]) -> tuple[int, ...]:
    """Elements of an operand's memory from an index of each axis to the next."""
    return _layout(operand).strides([evaluate(dim, capacities) for dim in operand.shape])


def _layout(operand: Operand) -> Layout:
    return Layout(tuple(range(len(operand.shape))), padding=operand.padding)


def flatten(kernel: Kernel) -> Kernel:
    """The kernel with one-dimensional operands: every load and store has one index, its element offset."""
    steps, sizes = _in_memory(kernel)
    stages = []
    for stage in kernel.stages:
        changed = change_expressions(stage, lambda e: _flat(e, steps, sizes))
        stores = (replace(s, index=(_flat_index(s.index, steps[s.operand], sizes[s.operand]),)) for s in changed.stores)
        stages.append(replace(changed, stores=tuple(stores)))
    operands = tuple(replace(o, shape=(sizes[o.name],), padding=()) for o in kernel.operands)
    return replace(kernel, operands=operands, stages=tuple(stages))


def flat_loads(kernel: Kernel) -> dict[Load, Expr]:
    """Each load of a kernel, and what it is in `flatten(kernel)`: the same for several where an axis has one point."""
    steps, sizes = _in_memory(kernel)
    return {load: _flat(load, steps, sizes) for load in kernel_loads(kernel)}


def _in_memory(kernel: Kernel) -> tuple[dict[str, tuple[int, ...]], dict[str, int]]:
    """Strides and number of elements of each operand."""
    steps = {o.name: strides(o, kernel.capacities) for o in kernel.operands}
    return steps, {o.name: size_in_memory(o, kernel.capacities) for o in kernel.operands}


def _flat(expr: Expr, steps: Mapping[str, tuple[int, ...]], sizes: Mapping[str, int]) -> Expr:
    def change(e: Expr) -> Expr | None:
        if not isinstance(e, Load):
            return None
        return Load(e.operand, (_flat_index(e.index, steps[e.operand], sizes[e.operand]),))

    return transform(expr, change)


def _flat_index(index: tuple[Index, ...], steps: tuple[int, ...], size: int) -> Index:
    """One index over all elements; computed if any part is."""
    affine = Affine()
    computed: Expr | None = None
    for part, step in zip(index, steps, strict=True):
        if isinstance(part, Affine):
            affine = affine + part.scale(step)
        else:
            term = part.expr if step == 1 else Apply("mul", (part.expr, Const(step, i64)))
            computed = term if computed is None else Apply("add", (computed, term))
    if computed is None:
        return affine
    whole = computed if affine == Affine() else Apply("add", (computed, as_expr(affine)))
    return Computed(whole, 0, size)


def index_depends(index: Index, axes: Iterable[str]) -> bool:
    """True if an index changes with one of `axes` (named lets are taken to depend on everything)."""
    wanted = set(axes)
    if isinstance(index, Affine):
        return any(a in wanted for a, _ in index.terms)
    return depends(index.expr, wanted)


def depends(expr: Expr, axes: Iterable[str]) -> bool:
    """True if an expression's value changes with one of `axes` (named lets are taken to depend on everything)."""
    wanted = set(axes)
    for e in walk(expr):
        if isinstance(e, Name) or (isinstance(e, AxisIndex) and e.axis in wanted):
            return True
        if isinstance(e, Load) and any(isinstance(i, Affine) and index_depends(i, wanted) for i in e.index):
            return True
    return False


def coefficient(index: Index, axis: str) -> int | None:
    """Elements that a flat index moves by for one step of `axis`; None where that is not the same everywhere."""
    if isinstance(index, Affine):
        return index.coefficients.get(axis, 0)
    total = 0
    for term in _summands(index.expr):
        affine = affine_of(term)
        if affine is not None:
            total += affine.coefficients.get(axis, 0)
        elif depends(term, (axis,)):
            return None
    return total


def _summands(expr: Expr) -> Iterator[Expr]:
    if isinstance(expr, Apply) and expr.primitive == "add" and affine_of(expr) is None:
        for arg in expr.args:
            yield from _summands(arg)
    else:
        yield expr


def all_axes(kernel: Kernel) -> Iterator[Axis]:
    """The axes of the kernel's space, then of every stage."""
    yield from kernel.space
    for stage in kernel.stages:
        yield from stage.space
        yield from stage.reduce


def kernel_loads(kernel: Kernel) -> list[Load]:
    """All distinct loads of a kernel."""
    return list({load: None for stage in kernel.stages for e in stage.expressions() for load in loads(e)})


def kernel_stores(kernel: Kernel) -> list[Store]:
    """All stores of a kernel."""
    return [store for stage in kernel.stages for store in stage.stores]


def bound_axes(axis: Axis) -> set[str]:
    """Axes that an axis's bounds depend on."""
    found: set[str] = set()
    for bound in (*axis.lower, *axis.upper):
        found |= {bound.axis} if isinstance(bound, Table) else set(bound.coefficients)
    return found


def capacity(axis: Axis, capacities: Mapping[str, int]) -> int | None:
    """The greatest extent of an unclipped axis, else None."""
    return None if axis.extent is None else evaluate(axis.extent, capacities)


def largest_extent(axis: Axis, capacities: Mapping[str, int]) -> int:
    """An estimate of an axis's extent for costs: a clipped axis counts with its loosest constant bounds, and bounds
    that move together (a piece of an axis, `16*piece .. 16*piece + 16`) with their distance."""
    uppers = [evaluate(b.const, capacities) for b in axis.upper if not isinstance(b, Table) and not b.terms]
    lowers = [evaluate(b.const, capacities) for b in axis.lower if not isinstance(b, Table) and not b.terms]
    tables = [max(b.values, default=0) for b in axis.upper if isinstance(b, Table)]
    moving = [(low, high) for low in axis.lower for high in axis.upper
              if isinstance(low, Affine) and isinstance(high, Affine) and low.terms and low.terms == high.terms]
    pieces = [evaluate(high.const, capacities) - evaluate(low.const, capacities) for low, high in moving]
    return max(0, min([min([*uppers, *tables], default=16) - max(lowers, default=0), *pieces]))


def points(kernel: Kernel) -> int:
    """Scalar points that a kernel visits at capacity, over all stages: its work."""
    outer = product(largest_extent(a, kernel.capacities) for a in kernel.space)
    total: Dim = 0
    for stage in kernel.stages:
        inner = product(largest_extent(a, kernel.capacities) for a in (*stage.space, *stage.reduce))
        total = total + outer * inner
    assert isinstance(total, int)
    return total


def reads_own_element_only(kernel: Kernel) -> bool:
    """True if what the kernel both reads and writes is read at the very element that is written."""
    written: dict[str, set[tuple[Index, ...]]] = {}
    for store in kernel_stores(kernel):
        written.setdefault(store.operand, set()).add(store.index)
    return all(written.get(load.operand, {load.index}) == {load.index} for load in kernel_loads(kernel))


def is_idempotent(kernel: Kernel) -> bool:
    """True if computing a point twice changes nothing: plain stores, and nothing read that is written."""
    stores = kernel_stores(kernel)
    written = {store.operand for store in stores}
    return all(s.mode == "=" for s in stores) and not any(load.operand in written for load in kernel_loads(kernel))


def is_runtime(axis: Axis) -> bool:
    """True if the axis runs to a runtime extent."""
    return axis.extent is not None and bool(symbols(axis.extent))


def rooms(kernel: Kernel) -> dict[Axis, int]:
    """For axes with a runtime extent, up to which point the kernel's memory can be read and written at all.

    That is the axis's capacity, or more where all operands that it indexes are rows along it with padding.
    """
    found: dict[Axis, int] = {}
    for axis in kernel.space:
        capacity_ = capacity(axis, kernel.capacities)
        if not is_runtime(axis) or capacity_ is None:
            continue
        paddings = []
        for name, index in [(e.operand, e.index) for e in kernel_loads(kernel)] + [
            (s.operand, s.index) for s in kernel_stores(kernel)
        ]:
            here = [k for k, i in enumerate(index) if index_depends(i, (axis.name,))]
            along = here == [len(index) - 1] and index[-1] == Affine.axis(axis.name)
            if here:
                padding = kernel.operand(name).padding
                paddings.append(padding[-1] if along and padding else 0)
        found[axis] = capacity_ + min(paddings, default=0)
    return found


def with_unique_axes(kernel: Kernel) -> Kernel:
    """Axes that stages name alike renamed, so that a name tells one axis."""
    taken = {a.name for a in kernel.space}
    stages = []
    for stage in kernel.stages:
        names: dict[str, str] = {}
        for axis in (*stage.space, *stage.reduce):
            name, number = axis.name, 2
            while name in taken:
                name, number = f"{axis.name}{number}", number + 1
            taken.add(name)
            if name != axis.name:
                names[axis.name] = name
        stages.append(_rename_axes(stage, names) if names else stage)
    return replace(kernel, stages=tuple(stages))


def _rename_axes(stage: Stage, names: Mapping[str, str]) -> Stage:
    affine = {old: Affine.axis(new) for old, new in names.items()}
    axes: dict[str, Index] = dict(affine)

    def bound(b: Bound) -> Bound:
        return b.replace(affine) if isinstance(b, Affine) else replace(b, axis=names.get(b.axis, b.axis))

    def axis(a: Axis) -> Axis:
        return Axis(names.get(a.name, a.name), tuple(map(bound, a.lower)), tuple(map(bound, a.upper)), a.sequential)

    changed = change_expressions(stage, lambda e: replace_axes(e, axes), lambda _, i: replace_index(i, axes))
    return replace(changed, space=tuple(map(axis, stage.space)), reduce=tuple(map(axis, stage.reduce)))


# ---- collapsing axes ------------------------------------------------------------------------------------------------


def collapse(kernel: Kernel) -> Kernel:
    """Merge neighbouring axes of a flat kernel that every operand walks in step: dense elementwise work is one loop."""
    merged = True
    while merged:
        merged = False
        for group in (kernel.space, *(g for s in kernel.stages for g in (s.space, s.reduce))):
            for outer, inner in zip(group, group[1:], strict=False):
                if _can_merge(kernel, outer, inner):
                    kernel, merged = _merge(kernel, outer, inner), True
                    break
            if merged:
                break
    return kernel


def _can_merge(kernel: Kernel, outer: Axis, inner: Axis) -> bool:
    size = inner.extent
    if outer.extent is None or not isinstance(size, int) or size == 0 or outer.sequential != inner.sequential:
        return False
    pair = (outer.name, inner.name)
    if any(bound_axes(axis) & set(pair) for axis in all_axes(kernel)):
        return False
    for index in _affine_parts(kernel, pair):
        if index is None or index.coefficients.get(pair[0], 0) != size * index.coefficients.get(pair[1], 0):
            return False
    return True


def _affine_parts(kernel: Kernel, axes: tuple[str, str]) -> Iterator[Affine | None]:
    """Every affine function of `axes` in a kernel; None for a use of one of them that is not affine."""
    for store in kernel_stores(kernel):
        for index in store.index:
            if isinstance(index, Affine):
                yield index
    for stage in kernel.stages:
        for expr in stage.expressions():
            yield from _affine_uses(expr, axes)


def _affine_uses(expr: Expr, axes: tuple[str, str]) -> Iterator[Affine | None]:
    whole = affine_of(expr)
    if whole is not None:
        yield whole
        return
    if isinstance(expr, Load):
        for index in expr.index:
            if isinstance(index, Affine):
                yield index
            else:
                yield from _affine_uses(index.expr, axes)
    for child in expr.args if isinstance(expr, Apply) else (expr.arg,) if isinstance(expr, Cast) else ():
        yield from _affine_uses(child, axes)


def _merge(kernel: Kernel, outer: Axis, inner: Axis) -> Kernel:
    """Replace `size * outer + inner` by the inner axis's name everywhere."""
    assert outer.extent is not None and isinstance(inner.extent, int)
    joined = Axis.range(inner.name, outer.extent * inner.extent, inner.sequential)

    def group(axes: tuple[Axis, ...]) -> tuple[Axis, ...]:
        return tuple(joined if a == inner else a for a in axes if a != outer)

    def affine(index: Affine) -> Affine:
        return Affine(tuple(t for t in index.terms if t[0] != outer.name), index.const)

    def change(expr: Expr) -> Expr:
        whole = affine_of(expr)
        if whole is not None:
            return expr if outer.name not in whole.coefficients else as_expr(affine(whole))
        if isinstance(expr, Load):
            return Load(expr.operand, tuple(index("", i) for i in expr.index))
        if isinstance(expr, Apply):
            return Apply(expr.primitive, tuple(change(a) for a in expr.args))
        return Cast(change(expr.arg), expr.dtype) if isinstance(expr, Cast) else expr

    def index(_: str, i: Index) -> Index:
        return affine(i) if isinstance(i, Affine) else replace(i, expr=change(i.expr))

    stages = []
    for stage in kernel.stages:
        changed = change_expressions(stage, change, index)
        stages.append(replace(changed, space=group(stage.space), reduce=group(stage.reduce)))
    return replace(kernel, space=group(kernel.space), stages=tuple(stages))
