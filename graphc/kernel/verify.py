"""The verifier of kernel forms: what it accepts has one meaning, touches no memory beyond its operands and may run
its points in any order that `sequential` axes allow."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from graphc.errors import VerifyError
from graphc.ir.dims import Dim, format_shape
from graphc.ir.types import DType, bool_
from graphc.kernel.combiners import check_components, combiner
from graphc.kernel.expr import Affine, AxisIndex, Computed, Const, Expr, Index, Load, dtype_of, walk
from graphc.kernel.form import Axis, Bound, Kernel, Operand, Stage, Store, Table
from graphc.kernel.parser import RESERVED
from graphc.kernel.races import coverage_reasons, race_reasons
from graphc.kernel.ranges import Box, guard_facts, never_negative
from graphc.kernel.scope import StageScope, stage_scopes
from graphc.kernel.text import print_affine, print_expr, print_kernel


def verify(kernel: Kernel) -> None:
    """Check a kernel form. Raises VerifyError that names the culprit and shows the kernel's text.

    Checked are: names, roles and capacities; axes and their bounds; visibility and dtypes of everything in
    expressions; ranks and ranges of indices, with runtime extents anywhere in 1 .. capacity; races between points;
    and that outputs without `init` are covered.
    """
    try:
        _check_names(kernel)
        _check_capacities(kernel)
        _check_axes(kernel)
        scopes = stage_scopes(kernel)
        for stage, scope in zip(kernel.stages, scopes, strict=True):
            _check_stage(kernel, stage, scope)
        for reasons in (race_reasons, coverage_reasons):
            for reason in reasons(kernel):
                raise VerifyError(reason)
    except VerifyError as error:
        raise VerifyError(f"kernel {kernel.name!r}: {error}\n{print_kernel(kernel)}") from None


# Names, operands, capacities


def _check_names(kernel: Kernel) -> None:
    _check_name("kernel", kernel.name, dots=False)
    taken: dict[str, str] = {}
    for operand in kernel.operands:
        _check_name("operand", operand.name, dots=True)
        _take(taken, operand.name, "operand")
        _check_operand(operand)
    for name in kernel.runtime_extents:
        if taken.get(name) != "operand":  # whose names users choose: `N[i]` is the one, `N` the other
            _take(taken, name, "runtime extent")
    for axis in kernel.space:
        _check_name("axis", axis.name, dots=False)
        _take(taken, axis.name, "axis")
    for stage in kernel.stages:
        in_stage = dict(taken)
        for axis in (*stage.space, *stage.reduce):
            _check_name("axis", axis.name, dots=False)
            _take(in_stage, axis.name, "axis")
        named = [let.name for let in (*stage.lets, *stage.results)]
        for name in [*named, *(name for a in stage.accumulates for name in a.names)]:
            _check_name("value", name, dots=False)
            if name in in_stage:
                raise VerifyError(f"the value {name!r} has the name of an {in_stage[name]}")


def _check_name(what: str, name: str, dots: bool) -> None:
    parts = name.split(".") if dots else [name]
    if not all(part.isidentifier() and part.isascii() for part in parts) or name in RESERVED:
        raise VerifyError(f"{name!r} cannot be the name of an {what}: it is no identifier, or a word of the text")


def _take(taken: dict[str, str], name: str, what: str) -> None:
    if name in taken:
        raise VerifyError(f"the name {name!r} is used twice, as {taken[name]} and as {what}")
    taken[name] = what


def _check_operand(operand: Operand) -> None:
    if operand.role not in ("in", "out", "inout"):
        raise VerifyError(f"operand {operand.name!r} has the role {operand.role!r}; it is one of in, out, inout")
    if operand.init is not None:
        if operand.role != "out":
            raise VerifyError(f"operand {operand.name!r} is {operand.role}: `init` would overwrite what it holds")
        if operand.init != operand.init or (not operand.dtype.is_float and not float(operand.init).is_integer()):
            raise VerifyError(f"operand {operand.name!r}: init {operand.init} is no value of {operand.dtype}")
    if len(operand.padding) not in (0, len(operand.shape)) or min(operand.padding, default=0) < 0:
        raise VerifyError(f"operand {operand.name!r} has the padding {operand.padding}, which is no number of elements "
                          f"for each axis of {format_shape(operand.shape)}")
    for dim in operand.shape:
        if isinstance(dim, int) and dim < 0:
            raise VerifyError(f"operand {operand.name!r} has a negative dimension in {format_shape(operand.shape)}")


def _check_capacities(kernel: Kernel) -> None:
    for name in kernel.runtime_extents:
        if name not in kernel.capacities:
            raise VerifyError(f"the runtime extent {name!r} has no capacity; write `where {name} <= ...`")
        if kernel.capacities[name] < 0:
            raise VerifyError(f"the runtime extent {name!r} has the negative capacity {kernel.capacities[name]}")


# Axes


def _check_axes(kernel: Kernel) -> None:
    for position in range(len(kernel.space)):
        _check_axis(kernel, kernel.space[:position], kernel.space[position])
    for stage in kernel.stages:
        own = (*stage.space, *stage.reduce)
        for position in range(len(own)):
            _check_axis(kernel, (*kernel.space, *own[:position]), own[position])


def _check_axis(kernel: Kernel, outer: Sequence[Axis], axis: Axis) -> None:
    if not axis.lower or not axis.upper:
        raise VerifyError(f"axis {axis.name!r} has no lower or no upper bound")
    names = {a.name for a in outer}
    for bound in (*axis.lower, *axis.upper):
        used = [bound.axis] if isinstance(bound, Table) else [name for name, _ in bound.terms]
        unknown = [name for name in used if name not in names]
        if unknown:
            raise VerifyError(f"a bound of axis {axis.name!r} depends on {unknown[0]!r}, which is no axis around it")
        _check_bound(Box(tuple(outer), kernel.capacities), axis, bound)


def _check_bound(outer: Box, axis: Axis, bound: Bound) -> None:
    if isinstance(bound, Affine):
        _check_canonical(bound)
        return
    size = Affine((), len(bound.values))
    if not outer.contains(Affine(), Affine.axis(bound.axis), size):
        raise VerifyError(f"the table of axis {axis.name!r} has {len(bound.values)} values, too few for {bound.axis!r}")


def _check_canonical(affine: Affine) -> None:
    if Affine.of(dict(affine.terms), affine.const) != affine:
        raise VerifyError(f"the terms of {print_affine(affine)} are not sorted, or some are zero; use Affine.of")


# Stages: expressions and stores


def _check_stage(kernel: Kernel, stage: Stage, scope: StageScope) -> None:
    inside, outside = Box(scope.axes, kernel.capacities), Box(scope.space, kernel.capacities)
    for let in stage.lets:
        _check_expr(kernel, let.expr, inside)
    for accumulate in stage.accumulates:
        for expr in accumulate.exprs:
            _check_expr(kernel, expr, inside)
    for let in stage.results:
        _check_expr(kernel, let.expr, outside)
    for store in stage.stores:
        _check_store(kernel, store, scope, outside)


def _check_expr(kernel: Kernel, expr: Expr, box: Box) -> None:
    """Axes in scope, and loads in range. Dtypes of lets and accumulators are known to fit by now."""
    operands = {operand.name: operand for operand in kernel.operands}
    axes = {axis.name for axis in box.axes}
    for e in walk(expr):
        if isinstance(e, AxisIndex) and e.axis not in axes:
            raise VerifyError(f"axis {e.axis!r} is not in scope here; axes: {', '.join(sorted(axes)) or 'none'}")
        if isinstance(e, Const):
            _check_const(e)
        if isinstance(e, Load):
            _check_index(operands[e.operand], e.index, box, ())


def _check_const(const: Const) -> None:
    if const.dtype.is_integer:
        bits = 8 * const.dtype.itemsize
        low, high = (0, 2**bits) if const.dtype.kind == "u" else (-(2 ** (bits - 1)), 2 ** (bits - 1))
        if not low <= const.value < high:
            raise VerifyError(f"{const.value} is no value of {const.dtype}")


def _check_store(kernel: Kernel, store: Store, scope: StageScope, box: Box) -> None:
    operands = {operand.name: operand for operand in kernel.operands}
    dtypes = {name: operand.dtype for name, operand in operands.items()}
    if store.operand not in operands:
        raise VerifyError(f"operand {store.operand!r} is stored and not declared; declared: {', '.join(operands)}")
    operand = operands[store.operand]
    if operand.role == "in":
        raise VerifyError(f"operand {store.operand!r} is stored, and declared as read only; declare it out or inout")
    for expr in _expressions(store):
        dtype_of(expr, dtypes, scope.names)
        _check_expr(kernel, expr, box)
    value = dtype_of(store.value, dtypes, scope.names)
    if value != operand.dtype:
        raise VerifyError(f"a value of {value} is stored to {store.operand!r}, which is {operand.dtype}; cast it")
    _check_mode(store, operand)
    if store.guard is not None and dtype_of(store.guard, dtypes, scope.names) != bool_:
        raise VerifyError(f"the guard {print_expr(store.guard)} of the store to {store.operand!r} is no bool")
    _check_computed(store, dtypes, scope)
    _check_index(operand, store.index, box, guard_facts(store.guard))


def _expressions(store: Store) -> Iterator[Expr]:
    yield from (index.expr for index in store.index if isinstance(index, Computed))
    yield store.value
    if store.guard is not None:
        yield store.guard


def _check_mode(store: Store, operand: Operand) -> None:
    if store.partials < 0:
        raise VerifyError(f"the store to {store.operand!r} goes through {store.partials} partials")
    if store.mode == "=":
        if store.partials:
            raise VerifyError(f"the plain store to {store.operand!r} has partials; only combining ones do")
        return
    check_components(combiner(store.mode), (operand.dtype,))
    if operand.role == "out" and operand.init is None:
        raise VerifyError(f"values are combined into the output {store.operand!r}, which has no `init` to start from")


def _check_computed(store: Store, dtypes: dict[str, DType], scope: StageScope) -> None:
    probe = Load(store.operand, store.index)  # stores' indices obey the rules of loads'
    dtype_of(probe, dtypes, scope.names)


def _check_index(operand: Operand, index: tuple[Index, ...], box: Box, facts: tuple[Affine, ...]) -> None:
    """Rank and range of an index, at every point of the box where the facts hold."""
    place = f"{operand.name}[{', '.join(_index_text(i, box) for i in index)}]"
    if len(index) != len(operand.shape):
        raise VerifyError(f"{place} has {len(index)} indices; {operand.name!r} is {format_shape(operand.shape)}")
    axes = {axis.name for axis in box.axes}
    for position, (i, dim) in enumerate(zip(index, operand.shape, strict=True)):
        if isinstance(i, Computed):
            if not box.is_empty and not _within(i.lower, i.upper, dim, box):
                raise VerifyError(f"{place}: the bounds {i.lower} .. {i.upper} go beyond dimension {position}, {dim}")
            continue
        _check_canonical(i)
        unknown = [name for name, _ in i.terms if name not in axes]
        if unknown:
            known = ", ".join(sorted(axes)) or "none"
            raise VerifyError(f"{place}: axis {unknown[0]!r} is not in scope here; axes: {known}")
        if not box.contains(Affine(), i, Affine((), dim), facts):
            text = _index_text(i, box)
            raise VerifyError(f"{place}: index {text} is not seen to stay in 0 .. {dim} of dimension {position}")


def _within(lower: Dim, upper: Dim, dim: Dim, box: Box) -> bool:
    return never_negative(lower, box.capacities) and never_negative(dim - upper, box.capacities)


def _index_text(index: Index, box: Box) -> str:
    if isinstance(index, Affine):
        return print_affine(index, [axis.name for axis in box.axes])
    return print_expr(index.expr, [axis.name for axis in box.axes])
