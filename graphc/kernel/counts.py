"""How much work a kernel is: arithmetic on floats, and the bytes of its operands, as symbolic dimensions."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from graphc.ir.dims import Dim, product
from graphc.ir.types import DType, TensorType
from graphc.kernel.combiners import combiner
from graphc.kernel.expr import Apply, Expr, Load, Name, children, dtype_of
from graphc.kernel.form import Accumulate, Axis, Bound, Kernel, Stage, Table
from graphc.kernel.points import Points
from graphc.kernel.ranges import Box
from graphc.kernel.scope import StageScope, stage_scopes

EXACT_LIMIT = 1 << 20  # points of clipped loops that are counted one by one
_FREE = frozenset({"where", "isnan", "isinf", "isfinite", "neg", "abs", "sign", "uniform"})


def flops(kernel: Kernel) -> Dim:
    """Floating-point operations of a run: one for each primitive with float operands, so that a multiply-add is two.

    `exp` counts as one like any other; selections, comparisons, signs and integer arithmetic count nothing. Clipped
    loops of fixed size are counted exactly, clipped loops over runtime extents as their box, that is from above.
    Raises VerifyError for an ill-typed kernel.
    """
    total: Dim = 0
    for stage, scope in zip(kernel.stages, stage_scopes(kernel), strict=True):
        outside, inside = _stage_operations(kernel, stage, scope)
        total = total + outside * points(scope.space, kernel) + inside * points(scope.axes, kernel)
    return total


def bytes_moved(kernel: Kernel) -> Dim:
    """Bytes that have to cross memory: each operand that is read once, and each that is written once."""
    total: Dim = 0
    for operand in kernel.operands:
        size = TensorType(operand.dtype, operand.shape).nbytes
        total = total + (size * 2 if operand.role == "inout" else size)
    return total


def points(axes: Sequence[Axis], kernel: Kernel) -> Dim:
    """Number of points of loops over `axes`, outermost first: a polynomial in the kernel's runtime extents.

    Axes that bounds tie together are counted as a group: exactly if their bounds are fixed, else as their box.
    """
    return product(_group_points(group, kernel) for group in _groups(axes))


def _groups(axes: Sequence[Axis]) -> list[list[Axis]]:
    """Axes that depend on each other's values through their bounds, together; each group in loop order."""
    groups: list[list[Axis]] = []
    for axis in axes:
        used = _axes_of(axis)
        joined = [group for group in groups if any(a.name in used for a in group)]
        groups = [group for group in groups if group not in joined]
        groups.append([*(a for group in joined for a in group), axis])
    order = {axis.name: position for position, axis in enumerate(axes)}
    return [sorted(group, key=lambda a: order[a.name]) for group in groups]


def _axes_of(axis: Axis) -> set[str]:
    bounds: Iterable[Bound] = (*axis.lower, *axis.upper)
    return {name for b in bounds for name in ([b.axis] if isinstance(b, Table) else [n for n, _ in b.terms])}


def _group_points(group: Sequence[Axis], kernel: Kernel) -> Dim:
    if len(group) == 1 and group[0].extent is not None:
        return group[0].extent
    box = Box(tuple(group), kernel.capacities)
    spans = [box.span(axis.name) for axis in group]
    sizes = [max(0, high - low + 1) for low, high in spans]
    consts = [b.const for a in group for b in (*a.lower, *a.upper) if not isinstance(b, Table)]
    at_most = product(sizes)
    if all(isinstance(c, int) for c in consts) and isinstance(at_most, int) and at_most <= EXACT_LIMIT:
        return Points.single().expand(group, {})[0].count
    return product(size if axis.extent is None else axis.extent for axis, size in zip(group, sizes, strict=True))


def _stage_operations(kernel: Kernel, stage: Stage, scope: StageScope) -> tuple[int, int]:
    """Operations at each point of a stage's space, and at each of its reduce points."""
    operands = {operand.name: operand.dtype for operand in kernel.operands}
    inner = [let.expr for let in stage.lets] + [e for a in stage.accumulates for e in a.exprs]
    outer = [let.expr for let in stage.results]
    for store in stage.stores:
        outer += [store.value] if store.guard is None else [store.value, store.guard]
    inside = _operations(inner, operands, dict(scope.inner))
    inside += sum(_combining(a, operands, dict(scope.inner)) for a in stage.accumulates)
    outside = _operations(outer, operands, dict(scope.names))
    outside += sum(operands[store.operand].is_float for store in stage.stores if store.mode != "=")
    return outside, inside


def _combining(accumulate: Accumulate, operands: dict[str, DType], names: dict[str, DType]) -> int:
    """Operations of one combination."""
    dtypes = [dtype_of(e, operands, names) for e in accumulate.exprs]
    sides = {f"{side}{k}": dtype for side in "ab" for k, dtype in enumerate(dtypes)}
    return _operations(combiner(accumulate.combiner).combine, {}, sides)


def _operations(exprs: Iterable[Expr], operands: dict[str, DType], names: dict[str, DType]) -> int:
    """Operations of expressions, each distinct sub-expression once; those in computed indices are not counted."""
    seen: set[Expr] = set()
    waiting, total = list(exprs), 0
    while waiting:
        e = waiting.pop()
        if e in seen or isinstance(e, Load | Name):
            continue
        seen.add(e)
        waiting.extend(children(e))
        if isinstance(e, Apply) and e.primitive not in _FREE and dtype_of(e, operands, names).is_float:
            total += 2 if e.primitive == "fma" else 1
    return total
