"""Two kernels in one: side by side over one space, sharing reductions, and sums that are only added up.

As in `compose`, operands are named by the values they hold, and the result stores what running the two kernels one
after the other would store.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import replace

from graphc.errors import CompileError
from graphc.kernel.compose import map_stages, names_in, ordered_operands, rename_axes, rename_values, value_names
from graphc.kernel.expr import Affine, Apply, Expr, Load, Name, loads, transform
from graphc.kernel.form import Accumulate, Axis, Kernel, Let, Stage


def combine(kernel: Kernel, other: Kernel) -> Kernel:
    """Both kernels as one. Raises CompileError if their spaces differ or one reads what the other stores."""
    reason = why_not_beside(kernel, other)
    if reason is not None:
        raise CompileError(f"kernels {kernel.name!r} and {other.name!r} cannot be one: {reason}")
    return _side_by_side(kernel, other)


def why_not_beside(kernel: Kernel, other: Kernel) -> str | None:
    """Why two kernels cannot run point by point in one space, or None if they can."""
    if [_span(a) for a in kernel.space] != [_span(a) for a in other.space]:
        return "their points differ"
    stored = [{o.name for o in k.outputs} for k in (kernel, other)]
    for one, outputs in ((other, stored[0]), (kernel, stored[1])):
        if any(o.name in outputs for o in one.inputs):
            return "one reads what the other stores"
    return "both store one value" if stored[0] & stored[1] else None


def _span(axis: Axis) -> tuple[object, ...]:
    """What an axis of a kernel's space runs over; its name aside."""
    return (axis.lower, axis.upper, axis.sequential)


# ---- what two kernels share -----------------------------------------------------------------------------------------


def share_reduction(kernel: Kernel, other: Kernel) -> bool:
    """True if both kernels, over one space, reduce the same expressions in a stage."""
    if why_not_beside(kernel, other) is not None:
        return False
    renamed = _with_axes_of(kernel, other)
    return any(_matching(s, t, {}) is not None for s in kernel.stages for t in renamed.stages)


def share_loads(kernel: Kernel, other: Kernel) -> bool:
    """True if both are single stages over the same points, reduce axes included, and load an element in common.

    Such loads see each element once: what a contraction loads often is in a cache or a register anyway.
    """
    if why_not_beside(kernel, other) is not None or not (len(kernel.stages) == len(other.stages) == 1):
        return False
    (mine,), (theirs,) = kernel.stages, _with_axes_of(kernel, other).stages
    loops = _same_loops(mine, theirs)
    if loops is None:
        return False
    theirs = rename_axes(replace(other, space=(), stages=(theirs,)), loops).stages[0]
    axes = {a.name for a in (*kernel.space, *mine.space, *mine.reduce) if a.extent != 1}
    found = [{load for e in stage.expressions() for load in loads(e)} for stage in (mine, theirs)]
    whole = [{load for load in side if _covers(load, axes)} for side in found]
    return bool(whole[0] & whole[1]) and not any(_repeats(side, axes) for side in found)


def sum_in_step(kernel: Kernel, other: Kernel) -> bool:
    """True if both are one sum each, over the same points, reduce axes included."""
    if [_span(a) for a in kernel.space] != [_span(a) for a in other.space]:
        return False
    if any(len(k.stages) != 1 or [a.combiner for a in k.stages[0].accumulates] != ["sum"] for k in (kernel, other)):
        return False
    return _same_loops(kernel.stages[0], _with_axes_of(kernel, other).stages[0]) is not None


def _covers(load: Load, axes: set[str]) -> bool:
    used = {name for i in load.index if isinstance(i, Affine) for name, _ in i.terms}
    return axes <= used


def _repeats(found: set[Load], axes: set[str]) -> bool:
    """True for a contraction: two operands each of which is loaded again along an axis of the other."""
    partial = [{n for i in e.index if isinstance(i, Affine) for n, _ in i.terms} & axes for e in found]
    return any(one and other and not (one <= other or other <= one) for one in partial for other in partial)


def _same_loops(first: Stage, second: Stage) -> dict[str, str] | None:
    """The axes of `second` by those of `first`, if both have the same loops inside the kernel's space."""
    if first.space or second.space or [_span(a) for a in first.reduce] != [_span(a) for a in second.reduce]:
        return None
    return {b.name: a.name for a, b in zip(first.reduce, second.reduce, strict=True)}


# ---- side by side ---------------------------------------------------------------------------------------------------


def _with_axes_of(kernel: Kernel, other: Kernel) -> Kernel:
    """`other` over the axes of `kernel`'s space; axes of its stages keep clear of their names."""
    wanted = {b.name: a.name for a, b in zip(kernel.space, other.space, strict=True)}
    inner = [a.name for s in other.stages for a in (*s.space, *s.reduce)]
    taken = {a.name for a in kernel.space} | set(inner)
    for name in dict.fromkeys(inner):
        if name in wanted.values():
            wanted[name] = _fresh(name, taken)
    moves = {old: new for old, new in wanted.items() if old != new}
    return rename_axes(other, moves) if moves else other


def _side_by_side(kernel: Kernel, other: Kernel) -> Kernel:
    stages = list(kernel.stages)
    taken = set(value_names(kernel.stages))
    known: dict[str, str] = {}  # values of `other` by the names that they have in the result
    for stage in _with_axes_of(kernel, other).stages:
        place = _place(stages, stage, known)
        if place is None:
            known |= {name: _fresh(name, taken) for name in value_names([stage]) if name in taken}
            stages.append(rename_values(stage, known))
        else:
            stages[place] = _merged(stages[place], stage, known, taken)
        taken |= set(value_names(stages))
    operands = ordered_operands([*kernel.operands, *other.operands])
    capacities = {**kernel.capacities, **other.capacities}
    return replace(kernel, operands=operands, stages=tuple(stages), capacities=capacities)


def _place(stages: list[Stage], stage: Stage, known: Mapping[str, str]) -> int | None:
    """The stage whose loops `stage` can share: one that reduces the same, or the only one if nothing depends on it."""
    for position, candidate in enumerate(stages):
        if _matching(candidate, stage, known) is not None:
            return position
    alone = len(stages) == 1 and not known and _same_loops(stages[0], stage) is not None
    return 0 if alone else None


def _matching(first: Stage, second: Stage, known: Mapping[str, str]) -> dict[str, str] | None:
    """Names of `second`'s lets and accumulators by those of `first`, if both reduce the same; else None."""
    loops = _same_loops(first, second)
    kinds = [[a.combiner for a in s.accumulates] for s in (first, second)]
    if loops is None or not first.reduce or kinds[0] != kinds[1] or len(first.lets) != len(second.lets):
        return None
    second = _with_reduce_axes(second, loops)
    named = dict(known)
    for mine, theirs in zip(first.lets, second.lets, strict=True):
        if mine.expr != _renamed(theirs.expr, named):
            return None
        named[theirs.name] = mine.name
    for a, b in zip(first.accumulates, second.accumulates, strict=True):
        if a.exprs != tuple(_renamed(e, named) for e in b.exprs):
            return None
    for a, b in zip(first.accumulates, second.accumulates, strict=True):
        named |= dict(zip(b.names, a.names, strict=True))
    return named


def _merged(first: Stage, second: Stage, known: dict[str, str], taken: set[str]) -> Stage:
    """Both stages in one nest of loops; `known` learns the names of what `second` computes."""
    loops = _same_loops(first, second)
    assert loops is not None
    second = _with_reduce_axes(second, loops)
    same = _matching(first, second, known)
    if same is None:
        known |= {name: _fresh(name, taken) for name in value_names([second]) if name in taken}
        added = rename_values(second, known)
        return replace(
            first,
            lets=(*first.lets, *added.lets),
            accumulates=(*first.accumulates, *added.accumulates),
            results=(*first.results, *added.results),
            stores=(*first.stores, *added.stores),
        )
    known |= same
    computed = {let.expr: let.name for let in first.results}
    results = list(first.results)
    for let in second.results:
        expr = _renamed(let.expr, known)
        if expr in computed:
            known[let.name] = computed[expr]
        else:
            name = _fresh(let.name, taken) if let.name in taken else let.name
            known[let.name] = name
            results.append(Let(name, expr))
    stores = rename_values(replace(second, lets=(), accumulates=(), results=()), known).stores
    return replace(first, results=tuple(results), stores=(*first.stores, *stores))


def _with_reduce_axes(stage: Stage, loops: Mapping[str, str]) -> Stage:
    changed = {old: new for old, new in loops.items() if old != new}
    return rename_axes(Kernel("", (), (), (stage,)), changed).stages[0] if changed else stage


def _renamed(expr: Expr, names: Mapping[str, str]) -> Expr:
    return transform(expr, lambda e: Name(names[e.id]) if isinstance(e, Name) and e.id in names else None)


def _fresh(name: str, taken: Iterable[str]) -> str:
    """`name` with the first number that makes it new; `taken` learns it if it is a set."""
    number = 2
    while f"{name}_{number}" in taken:
        number += 1
    if isinstance(taken, set):
        taken.add(f"{name}_{number}")
    return f"{name}_{number}"


# ---- sums that are only added up ------------------------------------------------------------------------------------


def add_up_sums(kernel: Kernel) -> Kernel:
    """Sums of one stage that are used once, in `a + b` or `a - b`, become one sum: `sum(x) - sum(y) = sum(x - y)`."""
    for position, stage in enumerate(kernel.stages):
        pair = _added_sums(kernel, stage)
        while pair is not None:
            stage = _one_sum(stage, pair)
            kernel = map_stages(kernel, {position: stage})
            pair = _added_sums(kernel, stage)
    return kernel


def _added_sums(kernel: Kernel, stage: Stage) -> Apply | None:
    """`a + b` or `a - b` of two sums of a stage that nothing else uses."""
    sums = {a.names[0] for a in stage.accumulates if a.combiner == "sum"}
    if len(sums) < 2:
        return None
    tops = [e for s in kernel.stages for e in s.expressions()]
    uses = Counter(name for e in tops for name in names_in(e))
    found: list[Apply] = []

    def note(e: Expr) -> None:
        if isinstance(e, Apply) and e.primitive in ("add", "sub"):
            names = [a.id for a in e.args if isinstance(a, Name)]
            if len(set(names)) == 2 and set(names) <= sums and all(uses[n] == 1 for n in names):
                found.append(e)

    for expr in (*(let.expr for let in stage.results), *(s.value for s in stage.stores)):
        transform(expr, note)
    return found[0] if found else None


def _one_sum(stage: Stage, pair: Apply) -> Stage:
    kept, gone = (arg.id for arg in pair.args if isinstance(arg, Name))
    exprs = {a.names[0]: a.exprs[0] for a in stage.accumulates}
    joined = Accumulate((kept,), "sum", (Apply(pair.primitive, (exprs[kept], exprs[gone])),))
    accumulates = tuple(joined if a.names == (kept,) else a for a in stage.accumulates if a.names != (gone,))

    def change(expr: Expr) -> Expr:
        return transform(expr, lambda e: Name(kept) if e == pair else None)

    return replace(
        stage,
        accumulates=accumulates,
        results=tuple(Let(let.name, change(let.expr)) for let in stage.results),
        stores=tuple(replace(s, value=change(s.value)) for s in stage.stores),
    )
