"""A kernel form and a schedule to the source of one kernel function, in the tile vocabulary."""

from __future__ import annotations

from collections.abc import Iterator

from graphc.codegen.analysis import collapse, flatten, kernel_loads, kernel_stores, rooms, with_unique_axes
from graphc.codegen.cpu.expressions import Scope
from graphc.codegen.cpu.loops import Segment
from graphc.codegen.cpu.nest import Nest
from graphc.codegen.cpu.values import Context, Tile
from graphc.codegen.cpu.writer import Names, Source
from graphc.codegen.host import Host
from graphc.errors import CompileError
from graphc.kernel.expr import Affine, Apply, AxisIndex, Const, Expr, Extent, Load, Name, affine_of, children
from graphc.kernel.form import Kernel
from graphc.kernel.schedule import Schedule
from graphc.kernel.text import print_kernel


def emit(kernel: Kernel, schedule: Schedule, host: Host) -> str:
    """Python source with `def <kernel.name>(args, thread, threads)`, deterministic.

    The schedule names axes of `schedulable(kernel)`, in which dense neighbouring axes are one.
    Raises CompileError for a form that the schedule's kind has no code for; kind "scalar" has code for all.
    """
    flat = schedulable(kernel)
    _check_lanes(flat, schedule, host)
    if problem := unit_problem(flat, schedule):
        raise CompileError(f"kernel {kernel.name}: {problem}")
    context = _context(kernel, flat, host)
    source = context.source
    with source.block(f"def {kernel.name}(args, thread, threads):"):
        _describe(kernel, schedule, source)
        if schedule.parallel is None:
            with source.block("if thread != 0:"):
                source.line("return")
        _operands(kernel, context)
        _hoist_scalars(flat, context)
        Nest(flat, schedule, context).write()
    tables = "".join(f"{name} = {values!r}\n" for values, name in context.tables.items())
    return _constants(source.text) + tables + source.text


def _check_lanes(flat: Kernel, schedule: Schedule, host: Host) -> None:
    """A `dot` schedule takes one vector of its reduce axis at a time, whatever a user's own says."""
    lanes = dict(schedule.tile).get(schedule.vector_axis or "")
    if schedule.kind == "dot" and lanes is not None and lanes != host.lanes:
        axis = schedule.vector_axis
        raise CompileError(f"kernel {flat.name}: a dot schedule reads {host.lanes} elements of {axis!r} at a time, "
                           f"its tile says {lanes}; give {axis}:{host.lanes}")


def unit_problem(flat: Kernel, schedule: Schedule) -> str:
    """Why threads cannot share whole units of an axis, or '': tiles must fill them, and all that is stored must be
    stored at a point."""
    size = dict(schedule.tile).get(schedule.parallel or "", 1)
    if schedule.unit % size:
        return f"a unit of {schedule.unit} points of {schedule.parallel!r} is no multiple of its tiles of {size}"
    filled = next((o.name for o in flat.operands if o.init is not None), None)
    if schedule.unit and filled is not None:
        return (f"{filled} has an initial value, which units of an axis do not fill; share any tiles of "
                f"{schedule.parallel!r} instead")
    return ""


def tiles_of(kernel: Kernel, flat: Kernel, schedule: Schedule, host: Host, axis: str) -> list[Segment]:
    """The tiles that cover an axis of `flat = schedulable(kernel)` in the code, of one point if it is untiled."""
    context = _context(kernel, flat, host)
    found = next(a for a in flat.space if a.name == axis)
    if axis in dict(schedule.tile):
        return Nest(flat, schedule, context).segments(found)
    return [Segment("0", "" if found.extent is None else context.dim(found.extent), 1, 1)]


def _context(kernel: Kernel, flat: Kernel, host: Host) -> Context:
    """A context in which counts, operands and the axes of the space have their names."""
    names = Names()
    dtypes = {o.name: o.dtype for o in kernel.operands}
    for symbol in kernel.runtime_extents:
        names.of("count", symbol)
    for operand in kernel.operands:
        names.of("operand", operand.name)
    for axis in flat.space:
        names.of("axis", axis.name)
    return Context(Source(), names, dtypes, kernel.capacities, host.lanes, host.registers, rooms=rooms(kernel))


def schedulable(kernel: Kernel) -> Kernel:
    """The form that schedules are about: flat operands, dense neighbouring axes merged."""
    return collapse(flatten(with_unique_axes(kernel)))


def _describe(kernel: Kernel, schedule: Schedule, source: Source) -> None:
    """The docstring: the kernel's text, where it comes from, its schedule."""
    text = print_kernel(kernel).replace("\\", "\\\\").replace('"""', "'''")
    lines = text.rstrip().splitlines()
    source.line(f'"""{lines[0]}')
    for line in lines[1:]:
        source.line(line)
    source.line("")
    source.line(f"schedule: {schedule}")
    source.line('"""')


def _operands(kernel: Kernel, context: Context) -> None:
    for number, operand in enumerate(kernel.operands):
        context.source.line(f"{context.operand(operand.name)} = operand_{operand.dtype}(args, {number})")
    for number, symbol in enumerate(kernel.runtime_extents, len(kernel.operands)):
        context.source.line(f"{context.names.of('count', symbol)} = extent(args, {number})")


def _hoist_scalars(kernel: Kernel, context: Context) -> None:
    """Compute once what is the same at all points: learning rates, random keys, `1 / N`."""
    written = {store.operand for store in kernel_stores(kernel)}
    scope = Scope(context, Tile())
    for load in kernel_loads(kernel):
        fixed = isinstance(load.index[0], Affine) and not load.index[0].terms
        if fixed and load.operand not in written and kernel.operand(load.operand).shape != (0,):
            context.hoisted[load] = scope.define(f"{load.operand}_value", scope.load(load))
    for top in (e for stage in kernel.stages for e in stage.expressions()):
        for expr in _largest_fixed(top, context):
            if expr not in context.hoisted:
                context.hoisted[expr] = scope.define("fixed", scope.value(expr))


def _largest_fixed(expr: Expr, context: Context) -> Iterator[Expr]:
    """The largest parts of an expression that compute a float from hoisted loads, constants and extents alone."""
    if _is_fixed(expr, context):
        if isinstance(expr, Apply) and any(not isinstance(e, Const) for e in expr.args):
            yield expr
        return
    for child in children(expr):
        yield from _largest_fixed(child, context)


def _is_fixed(expr: Expr, context: Context) -> bool:
    if isinstance(expr, Const | Extent) or expr in context.hoisted:
        return True
    if isinstance(expr, Load | Name | AxisIndex) or affine_of(expr) is not None:
        return False  # indices are cheap where they stand
    return all(_is_fixed(child, context) for child in children(expr))


def _constants(text: str) -> str:
    """The non-finite numbers, which have no literal; Numba freezes module-level names."""
    code = text.rsplit('"""', 1)[-1]
    words = set(code.replace("(", " ").replace(")", " ").replace(",", " ").replace("-", " ").split())
    return "".join(f'{name} = float("{name}")\n' for name in ("inf", "nan") if name in words)
